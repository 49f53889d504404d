"""京东 游戏点卡 as JD plays it: a client made from JD's document alone, against the real app, worker and database."""

import asyncio
import base64
import hashlib
import itertools
import json
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import parse_qs

import pytest
from tests.factories.client import Client, door_of
from tests.factories.doors import DoorHouse, Heard
from tests.factories.shop import PHONE, eventually

from kameng_api.catalog import actions as catalog
from kameng_api.catalog import queries as catalog_queries
from kameng_api.catalog.rules import Offer, Price

KEY = "1888bc29f89f9e19e7ff8c788ba5fc0c"
CUSTOMER = "1010000055"
BASE = "/doors/jd_card"
NEVER_REFUNDS = {"100", "105", "106", "108", "110", "999", "1000"}
"""Success, and the codes with the mark [重试] (§4.2): any other answer to a query makes JD refund."""
_orders = itertools.count(203632092)


def gensign(private_key: str, param_dict: dict[str, str]) -> str:
    """§4.5, the rule of the three sample programs."""
    parts = [f"{key}={param_dict[key]}" for key in sorted(param_dict) if param_dict[key] != ""]
    return hashlib.md5("&".join([*parts, private_key]).encode("utf-8")).hexdigest()


@dataclass
class Jd:
    """JD's side. `said` is every return code it has read, by path."""

    house: DoorHouse
    key: str = KEY
    customer: str = CUSTOMER

    def form(self, data: dict[str, Any], *, timestamp: str = "20261123120000") -> dict[str, str]:
        text = base64.b64encode(json.dumps(data, ensure_ascii=False).encode("utf-8")).decode()
        params = {"customerId": self.customer, "data": text, "timestamp": timestamp}
        return {**params, "sign": gensign(self.key, params)}

    async def send(self, path: str, form: dict[str, str]) -> dict[str, Any]:
        answer = await self.house.http.post(BASE + path, data=form)
        assert answer.status_code == 200
        read: dict[str, Any] = answer.json()
        assert isinstance(read["retCode"], str) and read["retMessage"]
        if "data" in read:
            read["data"] = json.loads(base64.b64decode(read["data"]).decode("utf-8"))
        return read

    async def call(self, path: str, data: dict[str, Any]) -> dict[str, Any]:
        return await self.send(path, self.form(data))

    async def query(self, number: str, kind: str = "direct") -> dict[str, Any]:
        return await self.call(f"/{kind}/query", {"orderId": number})


def new_number() -> str:
    return str(next(_orders))


def direct(number: str, **more: Any) -> dict[str, Any]:
    """§2.3.1.2, with the fields of its example."""
    order = {
        "orderId": number, "pin": "zhangsan", "buyNum": "1", "totalPrice": "99.5", "gameAccount": PHONE, "permit": "",
        "skuId": "1016892029", "brandId": "1010000055", "gameAccountType": {"id": "51yx ", "name": "神雕账号"},
        "features": [{"expand1": {"id": "1", "name": "名称1"}}], "userIp": "127.0.0.1",
    }  # fmt: skip
    return order | more


def cards(number: str, **more: Any) -> dict[str, Any]:
    """§2.4.1.2."""
    return {"orderId": number, "pin": "zhangsan", "brandId": "52471", "skuId": "1100491280", "buyNum": "2", "totalPrice": "20.00"} | more


async def jd_at(house: DoorHouse, **settings: str) -> Jd:
    await house.account(
        "jd_card", CUSTOMER, {"private_key": KEY},
        products={"1016892029": {"sku": "mobile-cn-100"}, "1100491280": {"sku": "test-card"}},
        settings={"callback_base": f"{house.receiver.url}/api"} | settings,
    )  # fmt: skip
    house.receiver.reply = lambda _: (200, '{"retCode":"100","retMessage":"接收成功"}'.encode())
    return Jd(house)


def told(heard: Heard) -> tuple[dict[str, str], dict[str, Any]]:
    """The fields of a callback, and its `data`, read as §3 says: base64 of GBK."""
    fields = {name: values[0] for name, values in parse_qs(heard.body.decode("ascii"), strict_parsing=True).items()}
    assert fields["sign"] == gensign(KEY, {name: value for name, value in fields.items() if name != "sign"})
    assert len(fields["timestamp"]) == 14 and fields["customerId"] == CUSTOMER
    data: dict[str, Any] = json.loads(base64.b64decode(fields["data"]).decode("gbk"))
    return fields, data


# ---- the way it should go -----------------------------------------------------------------------------------------------


async def test_a_direct_order_is_accepted_delivered_told_and_found(house: DoorHouse) -> None:
    jd, number = await jd_at(house), new_number()
    assert await jd.call("/direct/order", direct(number)) == {"retCode": "100", "retMessage": "接单成功"}
    order = await house.finished(number)
    assert (order.status, order.captured) == ("succeeded", 985_000)

    [heard] = await house.receiver.wait_for(1)
    assert heard.path == "/api/gameApi.action"
    assert told(heard)[1] == {"orderId": number, "orderStatus": "0"}
    assert await jd.query(number) == {"retCode": "100", "retMessage": "查询成功", "data": {"orderStatus": 0}}


async def test_cards_are_told_all_together_by_callback_and_query(house: DoorHouse) -> None:
    jd, number = await jd_at(house), new_number()
    answer = await jd.call("/card/order", cards(number))
    assert answer["retCode"] == "100" and "data" not in answer
    await house.finished(number)

    [heard] = await house.receiver.wait_for(1)
    assert heard.path == "/api/cardApi.action"
    data = told(heard)[1]
    assert (data["orderId"], data["orderStatus"], len(data["cardinfos"])) == (number, "0", 2)
    assert all(card["cardno"] and card["cardpass"] for card in data["cardinfos"])
    found = await jd.query(number, "card")
    assert found["retCode"] == "100" and found["data"] == {"orderStatus": 0, "cardinfos": data["cardinfos"]}


async def test_a_failed_order_is_told_with_its_reason_in_gbk_and_found_failed(house: DoorHouse) -> None:
    jd, number = await jd_at(house), new_number()
    await jd.call("/direct/order", direct(number, gameAccount="10000000002"))
    assert (await house.finished(number)).status == "failed"
    [heard] = await house.receiver.wait_for(1)
    data = told(heard)[1]
    assert data == {"orderId": number, "orderStatus": "2", "failedCode": "123", "failedReason": "品牌侧下单失败"}
    assert base64.b64decode(told(heard)[0]["data"]).find("品牌".encode("gbk")) > 0
    assert await jd.query(number) == {"retCode": "100", "retMessage": "查询成功", "data": {"orderStatus": 2}}


@pytest.mark.parametrize(("target", "end"), [("10000000004", 0), ("10000000005", 2)])
async def test_while_nobody_knows_the_outcome_it_is_charging(house: DoorHouse, target: str, end: int) -> None:
    jd, number = await jd_at(house), new_number()
    await jd.call("/direct/order", direct(number, gameAccount=target))
    seen = set()

    async def unknown() -> bool:
        seen.add(json.dumps(await jd.query(number), sort_keys=True))
        order = await house.order(number)
        return order is not None and order.substatus == "outcome_unknown"

    await eventually(unknown)
    assert (await jd.query(number))["data"] == {"orderStatus": 1}
    assert all(json.loads(one)["data"] == {"orderStatus": 1} for one in seen)
    assert not house.receiver.heard
    await house.finished(number)
    assert (await jd.query(number))["data"] == {"orderStatus": end}
    [heard] = await house.receiver.wait_for(1)
    assert told(heard)[1]["orderStatus"] == str(end)


async def test_a_partly_delivered_order_is_neither_success_nor_failure(house: DoorHouse) -> None:
    """JD allows no partial delivery: a person must look, and JD is told nothing final."""
    jd, number = await jd_at(house), new_number()
    await jd.call("/direct/order", direct(number, gameAccount="10000000006", buyNum="2", totalPrice="199"))
    assert (await house.finished(number)).status == "partially_succeeded"
    assert (await jd.query(number)) == {"retCode": "100", "retMessage": "查询成功", "data": {"orderStatus": 1}}
    await asyncio.sleep(1)
    assert not house.receiver.heard


# ---- signatures and strangers -------------------------------------------------------------------------------------------


async def test_a_wrong_signature_an_unknown_and_a_disabled_customer_read_the_same_and_are_asked_again(quiet_house: DoorHouse) -> None:
    house = quiet_house
    jd, number = await jd_at(house), new_number()
    forged = jd.form(direct(number)) | {"sign": "0" * 32}
    changed = jd.form(direct(number)) | {"timestamp": "20261123120001"}
    stranger = Jd(house, customer="1010000056").form(direct(number))
    unsigned = {name: value for name, value in jd.form(direct(number)).items() if name != "sign"}
    answers = [await jd.send(path, form) for form in (forged, changed, stranger, unsigned) for path in ("/direct/order", "/direct/query")]
    assert {json.dumps(a) for a in answers} == {json.dumps({"retCode": "106", "retMessage": "验证摘要串验证失败"})}
    assert await house.orders() == 0


@pytest.mark.parametrize("customer", ["\x00", "1010000055\x00", "é", "a b", "x" * 2000])
async def test_a_stranger_with_an_odd_name_is_a_stranger(quiet_house: DoorHouse, customer: str) -> None:
    assert (await Jd(quiet_house, customer=customer).query("1"))["retCode"] == "106"


async def test_an_address_outside_the_list_is_asked_again(quiet_house: DoorHouse) -> None:
    house = quiet_house
    await house.account("jd_card", CUSTOMER, {"private_key": KEY}, cidrs=("203.0.113.0/24",))
    assert (await Jd(house).query("1"))["retCode"] == "105"


async def test_a_replayed_request_changes_nothing(quiet_house: DoorHouse) -> None:
    house = quiet_house
    jd, number = await jd_at(house), new_number()
    form = jd.form(direct(number), timestamp="20200101000000")
    answers = [await jd.send("/direct/order", form) for _ in range(3)]
    assert {a["retCode"] for a in answers} == {"100"}
    assert await house.orders() == 1


# ---- the same number again ----------------------------------------------------------------------------------------------


async def test_the_same_order_sent_again_with_another_price_clock_and_buyer_is_the_first(quiet_house: DoorHouse) -> None:
    house = quiet_house
    jd, number = await jd_at(house), new_number()
    again = direct(number, totalPrice="120", userIp="10.1.1.1", pin="lisi", features=[])
    both = await asyncio.gather(jd.call("/direct/order", direct(number)), jd.call("/direct/order", direct(number)))
    third = await jd.send("/direct/order", jd.form(again, timestamp="20261124000000"))
    assert {a["retCode"] for a in [*both, third]} == {"100"}
    assert await house.orders() == 1


async def test_another_order_under_the_number_is_never_told_final_while_the_first_may_be_delivered(house: DoorHouse) -> None:
    jd, number = await jd_at(house), new_number()
    await jd.call("/direct/order", direct(number, gameAccount="10000000002"))
    await house.finished(number)
    assert (await jd.call("/direct/order", direct(number)))["retCode"] == "102", "the first has failed: nothing is delivered"
    assert await house.orders() == 1

    delivered = new_number()
    await jd.call("/direct/order", direct(delivered))
    assert (await jd.call("/direct/order", direct(delivered, gameAccount="13900139000")))["retCode"] == "999"
    assert (await jd.call("/direct/order", direct(delivered, type=1)))["retCode"] == "999"
    assert (await house.finished(delivered)).target_masked == "138****8000"
    assert (await jd.call("/direct/order", direct(delivered, gameAccount="13900139000")))["retCode"] == "999"


@pytest.mark.parametrize("unknown_orders", ["wait", "refund"])
async def test_a_number_that_the_merchant_bought_elsewhere_is_never_refunded(quiet_house: DoorHouse, unknown_orders: str) -> None:
    house = quiet_house
    jd, number = await jd_at(house, unknown_orders=unknown_orders), new_number()
    async with Client(house.app, house.merchant.key) as merchant:
        placed = await merchant.post("/v1/orders", {"merchant_order_no": number, "sku": "mobile-cn-100", "target": PHONE})
        assert placed.status_code == 201
    assert (await jd.query(number))["retCode"] == "999"
    assert (await jd.call("/direct/order", direct(number)))["retCode"] == "999"


# ---- asked while it is being placed -------------------------------------------------------------------------------------


@pytest.mark.parametrize("unknown_orders", ["wait", "refund"])
async def test_a_query_while_the_order_is_being_placed_here_never_refunds(quiet_house: DoorHouse, unknown_orders: str) -> None:
    house = quiet_house
    jd, number = await jd_at(house, unknown_orders=unknown_orders), new_number()
    gate = house.slow_placing()
    placing = asyncio.ensure_future(jd.call("/direct/order", direct(number)))
    await gate.until_waiting()
    asked = await asyncio.gather(*[jd.query(number) for _ in range(5)])
    assert {a["retCode"] for a in asked} == {"999"}
    gate.open()
    assert (await placing)["retCode"] == "100"
    assert (await jd.query(number))["data"] == {"orderStatus": 1}


@pytest.mark.parametrize("unknown_orders", ["wait", "refund"])
async def test_a_query_while_another_process_decides_waits_for_it(quiet_house: DoorHouse, unknown_orders: str) -> None:
    house = quiet_house
    jd, number = await jd_at(house, unknown_orders=unknown_orders), new_number()
    async with house.spendable_locked():
        asking = asyncio.ensure_future(jd.query(number))
        await asyncio.sleep(0.5)
        assert not asking.done()
    assert (await asking)["retCode"] == ("999" if unknown_orders == "wait" else "101")


async def test_an_unknown_order_is_waited_for_and_may_still_be_placed(quiet_house: DoorHouse) -> None:
    """The default: JD may be asking about an order of the merchant's former supplier, or before its own request has arrived."""
    house = quiet_house
    jd, number = await jd_at(house), new_number()
    assert await jd.query(number) == {"retCode": "999", "retMessage": "暂无此订单，请稍后再查"}
    assert (await jd.call("/direct/order", direct(number)))["retCode"] == "100"
    assert (await jd.query(number))["data"] == {"orderStatus": 1}


async def test_after_a_refund_the_order_is_never_bought(quiet_house: DoorHouse) -> None:
    house = quiet_house
    jd, number = await jd_at(house, unknown_orders="refund"), new_number()
    assert (await jd.query(number)) == {"retCode": "101", "retMessage": "订单不存在"}
    late = await jd.call("/direct/order", direct(number))
    assert late["retCode"] == "109"
    assert (await jd.query(number))["retCode"] == "101"
    assert await house.orders() == 0


# ---- refusals -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"skuId": "999", "outId": ""}, "109"),
        ({"skuId": "", "outId": "nothing-here"}, "109"),
        ({"totalPrice": "98.49"}, "111"),
        ({"totalPrice": 98.49}, "111"),
        ({"buyNum": "101", "totalPrice": "99999"}, "104"),
        ({"gameAccount": "12345"}, "116"),
        ({"gameAccount": ""}, "104"),
        ({"type": 1, "rights": [{"rightsId": "1"}]}, "109"),
        ({"skuId": "1100491280"}, "107"),
    ],
)
async def test_a_refusal_that_jd_takes_for_final_stays_final(quiet_house: DoorHouse, more: dict[str, Any], code: str) -> None:
    house = quiet_house
    jd, number = await jd_at(house), new_number()
    assert (await jd.call("/direct/order", direct(number, **more)))["retCode"] == code
    healed = await jd.call("/direct/order", direct(number))
    assert healed["retCode"] == "109", "a delayed, or mended, copy of a refused order must not be bought"
    assert await house.orders() == 0


async def test_out_of_stock_is_asked_again_and_an_empty_wallet_is_final(quiet_house: DoorHouse) -> None:
    house = quiet_house
    jd, number = await jd_at(house), new_number()
    absent = cards(number, skuId="", outId="test-out-of-stock")
    assert [(await jd.call("/card/order", absent))["retCode"] for _ in range(2)] == ["110", "110"]
    dear = cards(new_number(), buyNum="100", totalPrice="100000")
    for _ in range(10):  # 10,000 yuan of play money
        await jd.call("/card/order", dear | {"orderId": new_number()})
    assert (await jd.call("/card/order", dear))["retCode"] == "112"


async def test_prices_are_exact(quiet_house: DoorHouse) -> None:
    """98.5 is what it costs; no float stands between."""
    house = quiet_house
    jd = await jd_at(house)
    for price in ("98.5", "98.50", 98.5, "98.5000000"):
        assert (await jd.call("/direct/order", direct(new_number(), totalPrice=price)))["retCode"] == "100"
    await house.account("jd_card", "2", {"private_key": KEY}, products={"1016892029": {"sku": "mobile-cn-100"}}, settings={"price_limit": "off"})
    assert (await Jd(house, customer="2").call("/direct/order", direct(new_number(), totalPrice="1")))["retCode"] == "100"


@pytest.mark.parametrize(
    "data",
    [
        {}, {"orderId": "abc"}, {"orderId": "1", "buyNum": "1"}, {"orderId": "1", "skuId": "1016892029", "buyNum": "0"},
        {"orderId": "1", "skuId": "1016892029", "buyNum": "1", "totalPrice": "many"}, {"orderId": ["1"]},
    ],
)  # fmt: skip
async def test_what_cannot_be_read_is_asked_again_never_refused_for_good(quiet_house: DoorHouse, data: dict[str, Any]) -> None:
    jd = await jd_at(quiet_house)
    assert (await jd.call("/direct/order", data))["retCode"] == "999"
    assert (await jd.send("/direct/query", jd.form({}) | {"data": "!!"}))["retCode"] in NEVER_REFUNDS
    assert (await jd.call("/direct/query", {}))["retCode"] in NEVER_REFUNDS
    assert (await jd.call("/card/query", {"orderId": "x"}))["retCode"] in NEVER_REFUNDS


async def test_an_order_asked_for_at_the_other_kinds_address_is_doubt(quiet_house: DoorHouse) -> None:
    jd, number = await jd_at(quiet_house), new_number()
    await jd.call("/direct/order", direct(number))
    assert (await jd.query(number, "card"))["retCode"] == "999"


async def test_a_lost_database_is_doubt(quiet_house: DoorHouse) -> None:
    jd, number = await jd_at(quiet_house), new_number()
    await jd.query(number)  # the account is known for a moment
    gate = quiet_house.slow_placing()
    placing = asyncio.ensure_future(jd.call("/direct/order", direct(number)))
    await gate.until_waiting()

    async def gone(_: Any) -> Any:
        raise ConnectionResetError

    gate._submit = gone  # type: ignore[assignment]
    gate.open()
    assert (await placing)["retCode"] == "999"


async def add_product(house: DoorHouse, like: str, sku: str, **more: Any) -> None:
    """A product of ours beside `like`, for 1 yuan."""
    async with house.db.transaction() as tx:
        product = await catalog_queries.get_product(tx, like)
        await catalog.put_product(tx, replace(product, sku=sku, **more))
        await catalog.set_price(tx, sku, Price(unit_price=10_000))
        await catalog.set_offer(tx, Offer("sim-a", sku, "test-card", unit_cost=9_500))
    await door_of(house.app).catalog.refresh()


async def test_a_voucher_is_no_product_here(quiet_house: DoorHouse) -> None:
    """It may be delivered by a receipt alone, and then there would be no cards to tell."""
    house = quiet_house
    jd, number = await jd_at(house), new_number()
    await add_product(house, "test-card", "test-voucher", product_type="voucher")
    assert (await jd.call("/preCheck", cards("1", skuId="test-voucher")))["retCode"] == "107"
    assert (await jd.call("/card/order", cards(number, skuId="test-voucher")))["retCode"] == "107"
    assert (await jd.call("/direct/order", direct(number)))["retCode"] == "109", "and the no stays true"
    assert await house.orders() == 0


@pytest.mark.parametrize(
    ("products", "out_id", "sku"),
    [
        ({"own-1": {"sku": "mobile-cn-100"}}, "own-1", "mobile-cn-100"),  # named by the merchant
        ({}, "mobile-cn-100", "mobile-cn-100"),  # a SKU of ours by the merchant's word
        ({"1016892029": {"sku": "1016892029"}, "own-1": {"sku": "mobile-cn-100"}}, "own-1", "1016892029"),
        ({}, "", "1016892029"),
    ],
)
async def test_jds_number_that_happens_to_be_a_sku_of_ours_is_not_meant(
    quiet_house: DoorHouse, products: dict[str, dict[str, str]], out_id: str, sku: str
) -> None:
    house, number = quiet_house, new_number()
    await add_product(house, "mobile-cn-100", "1016892029")
    await house.account("jd_card", CUSTOMER, {"private_key": KEY}, products=products, settings={"callback_base": "off"})
    answer = await Jd(house).call("/direct/order", direct(number, outId=out_id))
    order = await house.order(number)
    assert order is not None and order.sku == sku, answer


async def test_a_number_that_the_map_names_is_meant_even_while_it_is_not_sold(quiet_house: DoorHouse) -> None:
    house, number = quiet_house, new_number()
    await add_product(house, "mobile-cn-100", "1016892029")
    await house.account("jd_card", CUSTOMER, {"private_key": KEY}, products={"own-1": {"sku": "gone"}}, settings={"callback_base": "off"})
    assert (await Jd(house).call("/direct/order", direct(number, outId="own-1")))["retCode"] == "109"
    assert await house.orders() == 0


# ---- before the buyer pays ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({}, "100"),
        ({"skuId": "999"}, "107"),
        ({"totalPrice": "98"}, "111"),
        ({"buyNum": "101", "totalPrice": "99999"}, "109"),
        ({"gameAccount": ""}, "116"),
        ({"buyNum": "none"}, "104"),
        ({"skuId": "test-out-of-stock"}, "110"),
    ],
)
async def test_the_check_before_the_order_says_what_stands_in_the_way(quiet_house: DoorHouse, more: dict[str, Any], code: str) -> None:
    jd = await jd_at(quiet_house)
    asked = {name: value for name, value in direct("1", **more).items() if name != "orderId"}
    answer = await jd.call("/preCheck", asked)
    assert answer["retCode"] == code
    assert answer.get("data") == ({"status": 0} if code == "100" else None)


async def test_a_plus_sign_that_was_not_escaped_and_broken_lines_are_borne(quiet_house: DoorHouse) -> None:
    house, number = quiet_house, new_number()
    await jd_at(house)
    text = base64.encodebytes(json.dumps(direct(number, pin="??>>>")).encode()).decode()
    params = {"customerId": CUSTOMER, "data": text, "timestamp": "20261123120000"}
    params["sign"] = gensign(KEY, params)
    body = "&".join(f"{name}={value}" for name, value in params.items()).replace("\n", "%0A")
    assert "+" in text
    answer = await house.http.post(f"{BASE}/direct/order", content=body, headers={"content-type": "application/x-www-form-urlencoded"})
    assert answer.json()["retCode"] == "100"
