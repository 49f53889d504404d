"""阿奇索 / 91卡券 标准货源 as the tool plays it: a client made from the interface's description alone, against the real app, worker and database."""

import asyncio
import base64
import hashlib
import itertools
import json
import time
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from tests.factories.client import Client, door_of
from tests.factories.doors import DoorHouse, Heard
from tests.factories.merchants import keyring_of
from tests.factories.shop import PHONE, eventually

from kameng_api.catalog import actions as catalog
from kameng_api.catalog import queries as catalog_queries
from kameng_api.catalog.rules import Offer, Price
from kameng_api.orders import actions as orders

SECRET = "0123456789abcdef0123456789abcdef"
MERCHANT_KEY = "a0b1c2d3e4f5a6b7"
USER = "90001"
BASE = f"/doors/agiso/~{USER}/agisoAcprSupplierApi"
_orders = itertools.count(2023061917481700001)


def text_of(value: Any) -> str:
    """As their language prints it: a decimal without needless zeros, null as nothing."""
    return "" if value is None else format(value.normalize(), "f") if isinstance(value, Decimal) else str(value)


def sign_of(params: dict[str, Any]) -> str:
    """secret + k=v joined by & (names ascending, empty values too) + secret, MD5, upper case."""
    secret = SECRET + MERCHANT_KEY
    query = "&".join(f"{name}={text_of(params[name])}" for name in sorted(params) if name != "sign")
    return hashlib.md5((secret + query + secret).encode("utf-8")).hexdigest().upper()


def opened(cards: str) -> list[dict[str, str]]:
    """base64, AES-256-ECB-PKCS5 under the AppSecret, JSON."""
    opening = Cipher(algorithms.AES(SECRET.encode()), modes.ECB()).decryptor()
    padded = opening.update(base64.b64decode(cards, validate=True)) + opening.finalize()
    found: list[dict[str, str]] = json.loads(padded[: -padded[-1]])
    return found


@dataclass
class Tool:
    """Their side. Every answer has code, message and data, over HTTP 200."""

    house: DoorHouse
    base: str = BASE

    def body(self, params: dict[str, Any], *, at: int | None = None) -> dict[str, Any]:
        complete = {"userId": USER, "timestamp": at or int(time.time()), "version": "1.0"} | params
        return {**complete, "sign": sign_of(complete)}

    async def post(self, path: str, body: dict[str, Any]) -> httpx.Response:
        return await self.house.http.post(f"{self.base}/{path}", content=json.dumps(body, ensure_ascii=False).encode())

    async def send(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = await self.post(path, body)
        assert answer.status_code == 200
        read: dict[str, Any] = json.loads(answer.content, parse_float=Decimal)
        assert set(read) == {"code", "message", "data"} and isinstance(read["code"], int)
        return read

    async def call(self, path: str, params: dict[str, Any]) -> dict[str, Any]:
        return await self.send(path, self.body(params))

    async def status(self, number: str) -> int:
        """What `order/get` says; an answer without a status is no verdict."""
        read = await self.call("order/get", {"orderNo": number})
        assert read["code"] == 200, read
        found: int = read["data"]["orderStatus"]
        return found


def new_number() -> str:
    return str(next(_orders))


def recharge(house: DoorHouse, number: str, **more: Any) -> dict[str, Any]:
    return {
        "orderNo": number, "productNo": "hf100", "buyNum": 1, "attach": json.dumps({"account": PHONE}), "maxAmount": "",
        "callbackUrl": f"{house.receiver.url}/SupplierOrderNotify/1",
    } | more  # fmt: skip


def purchase(house: DoorHouse, number: str, **more: Any) -> dict[str, Any]:
    return recharge(house, number, productNo="card10", buyNum=2, attach="") | more


async def tool_at(house: DoorHouse, *, secret: str = SECRET, rate: int | None = None, **settings: str) -> Tool:
    await house.account(
        "agiso", USER, {"app_secret": secret, "merchant_key": MERCHANT_KEY},
        products={"hf100": {"sku": "mobile-cn-100"}, "card10": {"sku": "test-card"}, "none": {"sku": "test-out-of-stock"},
                  "qb10": {"sku": "qb", "face_value": "10"}, "voucher10": {"sku": "test-voucher"}},
        settings={"app_id": "2026073033612141753"} | settings, own_skus=False, reads_per_s=rate, writes_per_s=rate,
    )  # fmt: skip
    house.receiver.reply = lambda _: (200, '{"code":200,"message":"请求成功"}'.encode())
    return Tool(house)


async def add_voucher(house: DoorHouse) -> None:
    """`voucher10`, a voucher (卡券), whose success may be a receipt alone."""
    async with house.db.transaction() as tx:
        product = await catalog_queries.get_product(tx, "test-card")
        await catalog.put_product(tx, replace(product, sku="test-voucher", product_type="voucher"))
        await catalog.set_price(tx, "test-voucher", Price(unit_price=100_000))
        await catalog.set_offer(tx, Offer("sim-a", "test-voucher", "test-card", unit_cost=95_000))
    await door_of(house.app).catalog.refresh()


def told(heard: Heard) -> dict[str, Any]:
    """A callback, its signature checked over every member."""
    assert heard.headers["content-type"].startswith("application/json")
    found: dict[str, Any] = json.loads(heard.body, parse_float=Decimal)
    assert found["sign"] == sign_of(found)
    assert abs(found["timestamp"] - time.time()) < 60
    return found


# ---- the way it should go -----------------------------------------------------------------------------------------------


async def test_a_recharge_is_accepted_delivered_told_and_found(house: DoorHouse) -> None:
    tool, number = await tool_at(house), new_number()
    read = await tool.call("order/createRecharge", recharge(house, number))
    assert (read["code"], read["message"]) == (200, "接口调用成功")
    assert (read["data"]["orderNo"], read["data"]["orderStatus"], read["data"]["cards"]) == (number, 10, "")
    assert (await house.finished(number)).status == "succeeded"
    [heard] = await house.receiver.wait_for(1)
    assert heard.path == "/SupplierOrderNotify/1"
    news = told(heard)
    assert (news["orderNo"], news["outTradeNo"], news["orderStatus"]) == (number, read["data"]["outTradeNo"], 20)
    assert (news["orderCost"], news["failCode"], news["failReason"], news["cards"]) == (Decimal("98.5"), 0, "", "")
    found = await tool.call("order/get", {"orderNo": number})
    assert found["data"] == {name: value for name, value in news.items() if name not in ("timestamp", "sign")}


async def test_cards_come_encrypted_by_callback_and_query(house: DoorHouse) -> None:
    tool, number = await tool_at(house), new_number()
    assert (await tool.call("order/createPurchase", purchase(house, number)))["data"]["orderStatus"] == 10
    await house.finished(number)
    [heard] = await house.receiver.wait_for(1)
    news = told(heard)
    cards = opened(news["cards"])
    assert news["orderStatus"] == 20 and len(cards) == 2
    assert all(set(card) == {"cardNo", "cardPwd", "expireTime"} and card["cardNo"] for card in cards)
    again = await tool.call("order/createPurchase", purchase(house, number))
    assert (again["data"]["orderStatus"], opened(again["data"]["cards"])) == (20, cards), "the same number: the first order"


async def test_a_failed_order_is_told_and_found_failed(house: DoorHouse) -> None:
    tool, number = await tool_at(house), new_number()
    await tool.call("order/createRecharge", recharge(house, number, attach='{"account":"10000000002"}'))
    await house.finished(number)
    [heard] = await house.receiver.wait_for(1)
    news = told(heard)
    assert (news["orderStatus"], news["failCode"], news["failReason"], news["orderCost"]) == (30, 9999, "供应商处理失败", 0)
    assert await tool.status(number) == 30


async def test_what_was_given_back_is_no_cost(house: DoorHouse) -> None:
    tool, number = await tool_at(house), new_number()
    await tool.call("order/createRecharge", recharge(house, number))
    order = await house.finished(number)
    async with house.db.transaction() as tx:
        await orders.refund(
            tx, keyring_of(house.settings), order.book_id, order.order_id, refund_no="r1", amount=85_000, reason="a complaint"
        )
    read = await tool.call("order/get", {"orderNo": number})
    assert (read["data"]["orderStatus"], read["data"]["orderCost"]) == (20, 90)


@pytest.mark.parametrize(("target", "end"), [("10000000004", 20), ("10000000005", 30)])
async def test_while_nobody_knows_the_outcome_it_is_processing(house: DoorHouse, target: str, end: int) -> None:
    tool, number = await tool_at(house), new_number()
    await tool.call("order/createRecharge", recharge(house, number, attach=json.dumps({"account": target})))

    async def unknown() -> bool:
        assert await tool.status(number) == 10
        order = await house.order(number)
        return order is not None and order.substatus == "outcome_unknown"

    await eventually(unknown)
    assert await tool.status(number) == 10
    assert not house.receiver.heard
    await house.finished(number)
    assert await tool.status(number) == end


async def test_a_partly_delivered_order_is_neither_success_nor_failure(house: DoorHouse) -> None:
    tool, number = await tool_at(house), new_number()
    await tool.call("order/createRecharge", recharge(house, number, buyNum=2, attach='{"account":"10000000006"}'))
    assert (await house.finished(number)).status == "partially_succeeded"
    assert await tool.status(number) == 10
    await asyncio.sleep(1)
    assert not house.receiver.heard


async def test_the_account_may_stand_beside_attach_and_attach_may_be_null(quiet_house: DoorHouse) -> None:
    house = quiet_house
    tool, number = await tool_at(house), new_number()
    read = await tool.call("order/createRecharge", recharge(house, number, attach=None, account=PHONE))
    assert read["data"]["orderStatus"] == 10
    assert (await house.order(number)).target_masked == "138****8000"  # type: ignore[union-attr]


# ---- signatures, clocks and strangers -----------------------------------------------------------------------------------


async def test_a_wrong_signature_and_a_stranger_read_the_same(quiet_house: DoorHouse) -> None:
    house = quiet_house
    tool, number = await tool_at(house), new_number()
    forged = tool.body(recharge(house, number)) | {"sign": "0" * 32}
    changed = tool.body(recharge(house, number)) | {"buyNum": 2}
    fuller = tool.body(recharge(house, number)) | {"extra": ""}
    stranger = tool.body(recharge(house, number, userId="90002"))
    answers = [await tool.send(path, b) for b in (forged, changed, fuller, stranger) for path in ("order/createRecharge", "order/get")]
    assert {json.dumps(a, ensure_ascii=False) for a in answers} == {'{"code": 401, "message": "签名错误", "data": null}'}
    assert await house.orders() == 0


@pytest.mark.parametrize(("away_s", "code"), [(-600, 408), (660, 408), (-540, 200), (590, 200)])
async def test_a_timestamp_ten_minutes_away_is_refused(quiet_house: DoorHouse, away_s: int, code: int) -> None:
    house = quiet_house
    tool, number = await tool_at(house), new_number()
    read = await tool.send("order/createRecharge", tool.body(recharge(house, number), at=int(time.time()) + away_s))
    assert read["code"] == code
    assert await house.orders() == (1 if code == 200 else 0)


async def test_a_missing_timestamp_is_an_old_one(quiet_house: DoorHouse) -> None:
    tool = await tool_at(quiet_house)
    assert (await tool.call("order/get", {"orderNo": "1", "timestamp": ""}))["code"] == 408


async def test_a_replay_within_the_window_changes_nothing(quiet_house: DoorHouse) -> None:
    house = quiet_house
    tool, number = await tool_at(house), new_number()
    body = tool.body(recharge(house, number))
    answers = [await tool.send("order/createRecharge", body) for _ in range(3)]
    assert len({json.dumps(a["data"], default=str) for a in answers}) == 1
    assert await house.orders() == 1


async def test_the_app_id_is_told_to_anybody_who_names_the_account(quiet_house: DoorHouse) -> None:
    tool = await tool_at(quiet_house)
    assert (await tool.send("app/getAppId", {}))["data"] == {"appId": 2026073033612141753}
    for base in ("/doors/agiso/agisoAcprSupplierApi", "/doors/agiso/~nobody/agisoAcprSupplierApi"):
        assert (await Tool(quiet_house, base).send("app/getAppId", {}))["code"] == 9999


# ---- the same number again ----------------------------------------------------------------------------------------------


async def test_the_same_order_sent_again_is_the_first_whatever_its_limit_and_clock(quiet_house: DoorHouse) -> None:
    house = quiet_house
    tool, number = await tool_at(house), new_number()
    both = await asyncio.gather(*[tool.call("order/createRecharge", recharge(house, number)) for _ in range(2)])
    later = tool.body(recharge(house, number, maxAmount="120", callbackUrl=""), at=int(time.time()) + 60)
    third = await tool.send("order/createRecharge", later)
    assert {a["code"] for a in [*both, third]} == {200}
    assert len({a["data"]["outTradeNo"] for a in [*both, third]}) == 1
    assert await house.orders() == 1


OTHER_ORDERS = [{"buyNum": 2}, {"attach": '{"account":"13900139000"}'}, {"productNo": "qb10"}, {"productNo": "card10"}]


@pytest.mark.parametrize("more", OTHER_ORDERS)
async def test_another_order_under_the_number_is_no_verdict_while_the_first_may_be_delivered(
    quiet_house: DoorHouse, more: dict[str, Any]
) -> None:
    house = quiet_house
    tool, number = await tool_at(house), new_number()
    await tool.call("order/createRecharge", recharge(house, number))
    read = await tool.call("order/createRecharge", recharge(house, number, **more))
    assert (read["code"], read["data"]["orderNo"], read["data"]["orderStatus"]) == (200, number, 10)
    assert await house.orders() == 1
    assert await tool.status(number) == 10


@pytest.mark.parametrize("more", OTHER_ORDERS)
async def test_another_order_under_the_number_is_an_error_once_the_first_has_bought_nothing(
    quiet_house: DoorHouse, more: dict[str, Any]
) -> None:
    house = quiet_house
    tool, number = await tool_at(house), new_number()
    await tool.call("order/createRecharge", recharge(house, number))
    assert (await tool.call("order/cancel", {"orderNo": number}))["data"]["cancelStatus"] == 20
    assert (await tool.call("order/createRecharge", recharge(house, number, **more)))["code"] == 1250
    assert await house.orders() == 1


@pytest.mark.parametrize("unknown_orders", ["wait", "failed"])
async def test_a_number_that_the_merchant_uses_elsewhere_is_never_given_up_while_it_may_be_delivered(
    quiet_house: DoorHouse, unknown_orders: str
) -> None:
    house = quiet_house
    tool, number = await tool_at(house, unknown_orders=unknown_orders), new_number()
    async with Client(house.app, house.merchant.key) as merchant:
        placed = await merchant.post("/v1/orders", {"merchant_order_no": number, "sku": "mobile-cn-100", "target": PHONE})
        assert placed.status_code == 201
        assert await tool.status(number) == 10
        assert (await tool.call("order/createRecharge", recharge(house, number)))["data"]["orderStatus"] == 10
        assert (await tool.call("order/cancel", {"orderNo": number}))["data"]["cancelStatus"] == 30
        assert (await merchant.post(f"/v1/orders/{placed.json()['id']}/cancel", {})).status_code == 200
    assert await tool.status(number) == (10 if unknown_orders == "wait" else 30)
    assert (await tool.call("order/createRecharge", recharge(house, number)))["code"] == 1250


@pytest.mark.parametrize("unknown_orders", ["wait", "failed"])
async def test_an_order_delivered_elsewhere_is_never_given_up(house: DoorHouse, unknown_orders: str) -> None:
    tool, number = await tool_at(house, unknown_orders=unknown_orders), new_number()
    async with Client(house.app, house.merchant.key) as merchant:
        await merchant.post("/v1/orders", {"merchant_order_no": number, "sku": "mobile-cn-100", "target": PHONE})
    assert (await house.finished(number)).status == "succeeded"
    assert await tool.status(number) == 10
    assert (await tool.call("order/createRecharge", recharge(house, number)))["data"]["orderStatus"] == 10


# ---- asked while it is being placed -------------------------------------------------------------------------------------


@pytest.mark.parametrize("unknown_orders", ["wait", "failed"])
async def test_a_query_while_the_order_is_being_placed_here_is_processing(quiet_house: DoorHouse, unknown_orders: str) -> None:
    house = quiet_house
    tool, number = await tool_at(house, unknown_orders=unknown_orders), new_number()
    gate = house.slow_placing()
    placing = asyncio.ensure_future(tool.call("order/createRecharge", recharge(house, number)))
    await gate.until_waiting()
    assert set(await asyncio.gather(*[tool.status(number) for _ in range(5)])) == {10}
    assert (await tool.call("order/cancel", {"orderNo": number}))["data"] is None
    gate.open()
    assert (await placing)["data"]["orderStatus"] == 10
    assert await tool.status(number) == 10


@pytest.mark.parametrize("unknown_orders", ["wait", "failed"])
async def test_a_query_while_another_process_decides_waits_for_it(quiet_house: DoorHouse, unknown_orders: str) -> None:
    house = quiet_house
    tool, number = await tool_at(house, unknown_orders=unknown_orders), new_number()
    async with house.spendable_locked():
        asking = asyncio.ensure_future(tool.call("order/get", {"orderNo": number}))
        await asyncio.sleep(0.5)
        assert not asking.done()
    read = await asking
    assert (read["code"], read["data"]["orderStatus"]) == (200, 10 if unknown_orders == "wait" else 30)


async def test_an_unknown_order_is_waited_for_and_may_still_be_placed(quiet_house: DoorHouse) -> None:
    house = quiet_house
    tool, number = await tool_at(house), new_number()
    assert await tool.status(number) == 10
    assert (await tool.call("order/createRecharge", recharge(house, number)))["data"]["orderStatus"] == 10


async def test_an_order_that_was_told_failed_because_it_is_unknown_is_never_bought(quiet_house: DoorHouse) -> None:
    house = quiet_house
    tool, number = await tool_at(house, unknown_orders="failed"), new_number()
    assert await tool.status(number) == 30
    assert (await tool.call("order/createRecharge", recharge(house, number)))["code"] == 9999
    assert await tool.status(number) == 30
    assert await house.orders() == 0


async def test_a_lost_database_is_processing(quiet_house: DoorHouse) -> None:
    house = quiet_house
    tool, number = await tool_at(house), new_number()
    await tool.call("order/get", {"orderNo": number})  # the account is known for a moment
    gate = house.slow_placing()
    placing = asyncio.ensure_future(tool.call("order/createRecharge", recharge(house, number)))
    await gate.until_waiting()

    async def gone(_: Any) -> Any:
        raise ConnectionResetError

    gate._submit = gone  # type: ignore[assignment]
    gate.open()
    assert (await placing)["data"]["orderStatus"] == 10


# ---- refusals -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"productNo": "nothing"}, 1100),
        ({"productNo": "card10"}, 1100),
        ({"maxAmount": "98.4999"}, 1220),
        ({"maxAmount": 98.4}, 1220),
        ({"buyNum": 2, "maxAmount": "196.99"}, 1220),
        ({"productNo": "none"}, 1100),
        ({"attach": '{"account":"12345"}'}, 9999),
        ({"attach": "{}"}, 9999),
        ({"callbackUrl": "http://192.0.2.1/x"}, 9999),
    ],
)
async def test_a_refusal_has_their_code_and_stays(quiet_house: DoorHouse, more: dict[str, Any], code: int) -> None:
    house = quiet_house
    tool, number = await tool_at(house), new_number()
    read = await tool.call("order/createRecharge", recharge(house, number, **more))
    assert read["code"] == code and read["message"].startswith("失败原因:") and read["data"] is None
    mended = await tool.call("order/createRecharge", recharge(house, number))
    assert mended["code"] == 9999, "a delayed, or mended, copy of a refused order must not be bought"
    assert await house.orders() == 0


async def test_out_of_stock_and_an_empty_wallet_say_so(quiet_house: DoorHouse) -> None:
    house = quiet_house
    tool = await tool_at(house)
    assert (await tool.call("order/createPurchase", purchase(house, new_number(), productNo="none")))["code"] == 1230
    for _ in range(10):  # 10,000 yuan of play money
        await tool.call("order/createPurchase", purchase(house, new_number(), buyNum=100))
    read = await tool.call("order/createPurchase", purchase(house, new_number(), buyNum=100))
    assert (read["code"], read["message"]) == (9999, "失败原因:余额不足")


@pytest.mark.parametrize("limit", ["98.5", "98.50", "98.500000", 98.5, "197", ""])
async def test_a_limit_that_covers_the_whole_order_lets_it_pass(quiet_house: DoorHouse, limit: Any) -> None:
    house = quiet_house
    tool = await tool_at(house)
    read = await tool.call("order/createRecharge", recharge(house, new_number(), maxAmount=limit))
    assert read["code"] == 200, read


@pytest.mark.parametrize(
    "more", [{"orderNo": ""}, {"buyNum": "x"}, {"buyNum": 0}, {"attach": "{"}, {"attach": "[1]"}, {"maxAmount": "1e3"}, {"productNo": None}]
)
async def test_what_cannot_be_read_is_an_error_without_a_status(quiet_house: DoorHouse, more: dict[str, Any]) -> None:
    house = quiet_house
    tool = await tool_at(house)
    read = await tool.call("order/createRecharge", recharge(house, new_number(), **more))
    assert read == {"code": 9999, "message": "失败原因:参数错误", "data": None}
    assert await house.orders() == 0


async def test_no_cards_are_bought_under_a_secret_that_cannot_hand_them_over(quiet_house: DoorHouse) -> None:
    house = quiet_house
    await tool_at(house, secret=SECRET + "0")
    odd = {"userId": USER, "timestamp": int(time.time()), "version": "1.0"} | purchase(house, new_number())
    secret = SECRET + "0" + MERCHANT_KEY
    query = "&".join(f"{name}={text_of(odd[name])}" for name in sorted(odd))
    odd["sign"] = hashlib.md5((secret + query + secret).encode()).hexdigest().upper()
    answer = await Tool(house).post("order/createPurchase", odd)
    assert (answer.status_code, answer.content) == (503, b""), "nothing was placed: no answer that reads as accepted, and none that is a verdict"
    assert await house.orders() == 0


async def test_who_places_too_often_is_not_told_that_the_order_was_taken(quiet_house: DoorHouse) -> None:
    house = quiet_house
    tool = await tool_at(house, rate=1)
    numbers = [new_number() for _ in range(12)]
    await tool.status(numbers[0])  # the account is known for a moment
    answers = await asyncio.gather(*[tool.post("order/createRecharge", tool.body(recharge(house, number))) for number in numbers])
    turned_away = [number for number, answer in zip(numbers, answers, strict=True) if answer.status_code == 429]
    assert turned_away and all(a.content == b"" for a in answers if a.status_code == 429)
    assert await house.orders() == len(numbers) - len(turned_away)
    asked = await asyncio.gather(*[tool.status(turned_away[0]) for _ in range(6)])
    assert set(asked) == {10}, "a query that was turned away is no verdict"


# ---- cancellation and products ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["order/cancel", "order/cancelOrder"])
async def test_an_order_is_cancelled_before_dispatch_and_reads_failed(quiet_house: DoorHouse, path: str) -> None:
    house = quiet_house
    tool, number = await tool_at(house), new_number()
    await tool.call("order/createRecharge", recharge(house, number))
    for _ in range(2):
        read = await tool.call(path, {"orderNo": number})
        assert read["data"] == {
            "orderNo": number, "cancelStatus": 20, "refundAmount": Decimal("98.5"), "refuseReason": "", "refuseProof": "",
        }  # fmt: skip
    assert await tool.status(number) == 30


async def test_a_delivered_order_is_not_cancelled(house: DoorHouse) -> None:
    tool, number = await tool_at(house), new_number()
    await tool.call("order/createRecharge", recharge(house, number))
    await house.finished(number)
    read = await tool.call("order/cancel", {"orderNo": number})
    assert (read["data"]["cancelStatus"], read["data"]["refuseReason"], read["data"]["refuseProof"]) == (30, "订单已发货，无法撤单", "")
    assert (await tool.call("order/cancel", {"orderNo": "1"}))["data"]["cancelStatus"] == 30


async def test_products_are_listed_in_pages_with_exact_costs(quiet_house: DoorHouse) -> None:
    tool = await tool_at(quiet_house)
    whole = await tool.call("product/getList", {"keyword": "", "productType": "", "pageIndex": 1, "pageSize": 20})
    found = {item["productNo"]: item for item in whole["data"]["items"]}
    assert set(found) == {"hf100", "card10", "none", "qb10"} and whole["data"]["hasNextPage"] is False
    assert (found["hf100"]["productCost"], found["hf100"]["productType"]) == (Decimal("98.5"), 1)
    assert (found["card10"]["productCost"], found["card10"]["productType"]) == (10, 2)
    assert found["qb10"]["productCost"] == Decimal("9.8")
    pages = [await tool.call("product/getList", {"productType": 1, "pageIndex": page, "pageSize": 1}) for page in (1, 2, 3)]
    assert [[item["productNo"] for item in page["data"]["items"]] for page in pages] == [["hf100"], ["qb10"], []]
    assert [page["data"]["hasNextPage"] for page in pages] == [True, False, False]
    assert [i["productNo"] for i in (await tool.call("product/getList", {"keyword": "q币"}))["data"]["items"]] == ["qb10"]


async def test_a_template_says_what_the_buyer_must_fill_in(quiet_house: DoorHouse) -> None:
    tool = await tool_at(quiet_house)
    topup = (await tool.call("product/getTemplate", {"productNo": "hf100"}))["data"]
    assert (topup["apiType"], topup["productStatus"], topup["productStock"] > 0) == (2, 0, True)
    [line] = topup["attach"]
    assert (line["type"], line["name"], line["title"], line["inputCheck"]) == (0, "account", "手机号", 1)
    card = (await tool.call("product/getTemplate", {"productNo": "card10"}))["data"]
    assert (card["attach"], card["productType"]) == ([], 2)
    assert (await tool.call("product/getTemplate", {"productNo": "none"}))["data"]["productStock"] == 0
    assert (await tool.call("product/getTemplate", {"productNo": "nothing"}))["code"] == 1100
    assert (await tool.call("product/subscribePriceNotify", {"productNo": "hf100"}))["code"] == 9999


@pytest.mark.parametrize("path", ["order/createPurchase", "order/createRecharge"])
async def test_a_voucher_is_no_product_here(quiet_house: DoorHouse, path: str) -> None:
    """It may be delivered by a receipt alone, and then there would be no cards to tell."""
    house = quiet_house
    tool, number = await tool_at(house), new_number()
    await add_voucher(house)
    assert (await tool.call(path, purchase(house, number, productNo="voucher10")))["code"] == 1100
    assert (await tool.call("product/getTemplate", {"productNo": "voucher10"}))["code"] == 1100
    listed = await tool.call("product/getList", {"pageIndex": 1, "pageSize": 20})
    assert {item["productNo"] for item in listed["data"]["items"]} == {"hf100", "card10", "none", "qb10"}
    assert await house.orders() == 0
