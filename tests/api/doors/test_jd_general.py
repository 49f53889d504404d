"""京东 通用交易 as JD plays it: a client made from the document alone, against the real app, worker and database."""

import asyncio
import base64
import hashlib
import itertools
import json
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import parse_qs

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from tests.factories.client import Client, door_of
from tests.factories.doors import DoorHouse, Heard
from tests.factories.shop import PHONE, eventually

from kameng_api.catalog import actions as catalog
from kameng_api.catalog import queries as catalog_queries
from kameng_api.catalog.rules import Offer, Price

KEY = "12345678901234567890123456789012"
AES = "abcdefghijklmnopqrstuvwxyz012345"
SHOP = "1201"
BASE = f"/doors/jd_general/~{SHOP}"
_orders = itertools.count(10001)


def sign_of(params: dict[str, str], key: str = KEY) -> str:
    """§12.5: key1value1key2value2…PRIVATEKEY, keys ascending, what has no value left out, sign and signType not in it."""
    text = "".join(name + params[name] for name in sorted(params) if params[name] and name not in ("sign", "signType"))
    return hashlib.md5((text + key).encode("utf-8")).hexdigest()


def opened(product: str) -> list[dict[str, str]]:
    """AES-256 ECB, PKCS padding, base64 with its line breaks."""
    assert all(len(line) <= 76 for line in product.split("\n")) and not product.endswith("\n")
    opening = Cipher(algorithms.AES(AES.encode()), modes.ECB()).decryptor()
    padded = opening.update(base64.b64decode(product)) + opening.finalize()
    found: list[dict[str, str]] = json.loads(padded[: -padded[-1]])
    return found


@dataclass
class Jd:
    """JD's side."""

    house: DoorHouse
    base: str = BASE
    key: str = KEY

    def form(self, params: dict[str, str]) -> dict[str, str]:
        complete = {"signType": "MD5", "timestamp": "20210208101217"} | params
        return {**complete, "sign": sign_of(complete, self.key)}

    async def send(self, method: str, form: dict[str, str]) -> dict[str, Any]:
        answer = await self.house.http.post(f"{self.base}/{method}", data=form)
        assert answer.status_code == 200
        read: dict[str, Any] = answer.json()
        return read

    async def signed(self, method: str, params: dict[str, str]) -> dict[str, Any]:
        """An answer whose signature is checked, as JD checks it."""
        read = await self.send(method, self.form(params))
        assert read["sign"] == sign_of({name: str(value) for name, value in read.items()})
        assert read["signType"] == "MD5" and len(read["timestamp"]) == 14 and read["agentOrderNo"]
        assert read["jdOrderNo"] == int(params["jdOrderNo"])
        return read

    async def begin(self, params: dict[str, str]) -> tuple[str, int]:
        read = await self.signed("beginDistill", params)
        return read["code"], read["produceStatus"]

    async def find(self, number: str) -> tuple[str, int]:
        read = await self.signed("findDistill", {"jdOrderNo": number})
        return read["code"], read["produceStatus"]


def new_number() -> str:
    return str(next(_orders))


def topup(house: DoorHouse, number: str, **more: str) -> dict[str, str]:
    """Appendix 52.3, with its fields."""
    return {
        "wareNo": "45001", "quantity": "1", "jdOrderNo": number, "produceAccount": PHONE, "totalPrice": "10000", "payTime": "20210208101218",
        "notifyUrl": f"{house.receiver.url}/vtp", "vendorId": SHOP,
    } | more  # fmt: skip


def cards(house: DoorHouse, number: str, **more: str) -> dict[str, str]:
    order = topup(house, number, wareNo="45002", quantity="2", totalPrice="2000")
    del order["produceAccount"]
    return order | more


async def jd_at(house: DoorHouse, *, aes: str = AES, **settings: str) -> Jd:
    await house.account(
        "jd_general", SHOP, {"private_key": KEY, "aes_key": aes},
        products={"45001": {"sku": "mobile-cn-100"}, "45002": {"sku": "test-card"}, "45003": {"sku": "test-out-of-stock"}}, settings=settings,
    )  # fmt: skip
    house.receiver.reply = lambda _: (200, '{"code":"0","message":"成功"}'.encode())
    return Jd(house)


def told(heard: Heard) -> dict[str, str]:
    """The fields of a callback, its signature checked."""
    assert heard.path == "/vtp/produce/result"
    fields = {name: values[0] for name, values in parse_qs(heard.body.decode("ascii"), strict_parsing=True).items()}
    assert fields["sign"] == sign_of(fields)
    assert len(fields["timestamp"]) == 14 and fields["vendorId"] == SHOP
    return fields


# ---- the way it should go -----------------------------------------------------------------------------------------------


async def test_a_top_up_is_produced_told_and_found(house: DoorHouse) -> None:
    jd, number = await jd_at(house), new_number()
    assert await jd.begin(topup(house, number)) == ("JDO_201", 3)
    order = await house.finished(number)
    assert (order.status, order.captured) == ("succeeded", 985_000)
    [heard] = await house.receiver.wait_for(1)
    fields = told(heard)
    assert (fields["jdOrderNo"], fields["produceStatus"], fields["quantity"]) == (number, "1", "1")
    assert "product" not in fields
    found = await jd.signed("findDistill", {"jdOrderNo": number})
    assert (found["code"], found["produceStatus"], found["agentOrderNo"]) == ("JDO_200", 1, fields["agentOrderNo"])
    assert await jd.begin(topup(house, number)) == ("JDO_200", 1), "sent again, it answers with the result of that order"


async def test_cards_are_told_encrypted_in_the_callback_and_when_asked(house: DoorHouse) -> None:
    jd, number = await jd_at(house), new_number()
    assert await jd.begin(cards(house, number)) == ("JDO_201", 3)
    await house.finished(number)
    [heard] = await house.receiver.wait_for(1)
    fields = told(heard)
    codes = opened(fields["product"])
    assert fields["produceStatus"] == "1" and len(codes) == 2
    assert all(set(code) == {"cardNumber", "password", "expiryDate"} and all(code.values()) for code in codes)
    found = await jd.signed("findDistill", {"jdOrderNo": number})
    assert (found["code"], found["produceStatus"]) == ("JDO_200", 1)
    assert opened(found["product"]) == codes
    assert "\n" in found["product"], "long enough to be broken, and signed with the break"


async def test_a_failed_order_is_told_and_found_failed(house: DoorHouse) -> None:
    jd, number = await jd_at(house), new_number()
    await jd.begin(topup(house, number, produceAccount="10000000002"))
    await house.finished(number)
    [heard] = await house.receiver.wait_for(1)
    assert told(heard)["produceStatus"] == "2"
    assert await jd.find(number) == ("JDO_500", 2)
    assert await jd.begin(topup(house, number, produceAccount="10000000002")) == ("JDO_500", 2)


@pytest.mark.parametrize(("target", "end"), [("10000000004", ("JDO_200", 1)), ("10000000005", ("JDO_500", 2))])
async def test_while_nobody_knows_the_outcome_it_is_being_produced(house: DoorHouse, target: str, end: tuple[str, int]) -> None:
    jd, number = await jd_at(house), new_number()
    await jd.begin(topup(house, number, produceAccount=target))

    async def unknown() -> bool:
        assert await jd.find(number) == ("JDO_201", 3)
        order = await house.order(number)
        return order is not None and order.substatus == "outcome_unknown"

    await eventually(unknown)
    assert await jd.find(number) == ("JDO_201", 3)
    assert await jd.begin(topup(house, number, produceAccount=target)) == ("JDO_201", 3)
    assert not house.receiver.heard
    await house.finished(number)
    assert await jd.find(number) == end


async def test_the_self_test_has_an_address_of_its_own(house: DoorHouse) -> None:
    jd, number = await jd_at(house, callback_url=f"{house.receiver.url}/vtp/produce/notify", vendor_id="77"), new_number()
    await jd.begin(topup(house, number))
    [heard] = await house.receiver.wait_for(1)
    assert heard.path == "/vtp/produce/notify"
    assert parse_qs(heard.body.decode())["vendorId"] == ["77"]


async def test_the_misspelt_path_of_the_documents_example_works(quiet_house: DoorHouse) -> None:
    house = quiet_house
    jd, number = await jd_at(house), new_number()
    assert (await jd.signed("beginDisstill", topup(house, number)))["produceStatus"] == 3


# ---- signatures and strangers -------------------------------------------------------------------------------------------


async def test_who_has_not_proven_itself_gets_nothing_signed_and_nothing_final(quiet_house: DoorHouse) -> None:
    house = quiet_house
    jd, number = await jd_at(house), new_number()
    forged = jd.form(topup(house, number)) | {"sign": "0" * 32}
    changed = jd.form(topup(house, number)) | {"wareNo": "45002"}
    unsigned = {name: value for name, value in jd.form(topup(house, number)).items() if name != "sign"}
    answers = [await jd.send(method, form) for form in (forged, changed, unsigned) for method in ("beginDistill", "findDistill")]
    answers.append(await Jd(house, base="/doors/jd_general/~9").send("beginDistill", jd.form(topup(house, number))))
    answers.append(await Jd(house, base="/doors/jd_general").send("findDistill", jd.form({"jdOrderNo": number})))
    assert all((a["code"], a["produceStatus"]) == ("JDO_304", 4) and "sign" not in a for a in answers)
    assert await house.orders() == 0


async def test_the_vendor_may_stand_in_the_form_instead_of_the_address(quiet_house: DoorHouse) -> None:
    house = quiet_house
    await jd_at(house)
    assert await Jd(house, base="/doors/jd_general").begin(topup(house, new_number())) == ("JDO_201", 3)


async def test_an_encrypted_expand_is_signed_as_it_is_sent(quiet_house: DoorHouse) -> None:
    house = quiet_house
    jd = await jd_at(house)
    assert await jd.begin(topup(house, new_number(), expand="ab+c/d==")) == ("JDO_201", 3)
    once_more = jd.form(topup(house, new_number(), expand="ab+c/d==")) | {"expand": "ab%2Bc%2Fd%3D%3D"}
    assert (await jd.send("beginDistill", once_more))["produceStatus"] == 3


async def test_a_replayed_request_changes_nothing(quiet_house: DoorHouse) -> None:
    house = quiet_house
    jd, number = await jd_at(house), new_number()
    form = jd.form(topup(house, number))
    assert {(await jd.send("beginDistill", form))["produceStatus"] for _ in range(3)} == {3}
    assert await house.orders() == 1


# ---- the same number again ----------------------------------------------------------------------------------------------


async def test_the_same_order_sent_again_is_the_first_whatever_its_price_and_clock(quiet_house: DoorHouse) -> None:
    house = quiet_house
    jd, number = await jd_at(house), new_number()
    both = await asyncio.gather(jd.begin(topup(house, number)), jd.begin(topup(house, number)))
    third = await jd.begin(topup(house, number, totalPrice="1", payTime="20220101000000", timestamp="20220101000000"))
    assert [*both, third] == [("JDO_201", 3)] * 3
    assert await house.orders() == 1


async def test_another_order_under_the_number_pauses_and_is_final_only_once_the_first_has_failed(house: DoorHouse) -> None:
    jd, number, failing = await jd_at(house), new_number(), new_number()
    await jd.begin(topup(house, number))
    assert await jd.begin(topup(house, number, produceAccount="13900139000")) == ("JDO_303", 4)
    assert await jd.begin(topup(house, number, quantity="2")) == ("JDO_303", 4)
    await house.finished(number)
    assert await jd.begin(topup(house, number, produceAccount="13900139000")) == ("JDO_303", 4)
    await jd.begin(topup(house, failing, produceAccount="10000000002"))
    await house.finished(failing)
    assert await jd.begin(topup(house, failing)) == ("JDO_303", 2)
    assert await house.orders() == 2


@pytest.mark.parametrize("unknown_orders", ["wait", "refund"])
async def test_a_number_that_the_merchant_bought_elsewhere_is_given_up_only_once_it_has_failed(
    quiet_house: DoorHouse, unknown_orders: str
) -> None:
    house = quiet_house
    jd, number = await jd_at(house, unknown_orders=unknown_orders), new_number()
    async with Client(house.app, house.merchant.key) as merchant:
        placed = await merchant.post("/v1/orders", {"merchant_order_no": number, "sku": "mobile-cn-100", "target": PHONE})
        assert placed.status_code == 201
        assert await jd.find(number) == ("JDO_303", 4)
        assert await jd.begin(topup(house, number)) == ("JDO_303", 4)
        assert (await merchant.post(f"/v1/orders/{placed.json()['id']}/cancel", {})).status_code == 200
    assert await jd.find(number) == ("JDO_303", 4 if unknown_orders == "wait" else 2)
    assert await jd.begin(topup(house, number)) == ("JDO_303", 2)


@pytest.mark.parametrize("unknown_orders", ["wait", "refund"])
async def test_an_order_delivered_elsewhere_is_never_given_up(house: DoorHouse, unknown_orders: str) -> None:
    jd, number = await jd_at(house, unknown_orders=unknown_orders), new_number()
    async with Client(house.app, house.merchant.key) as merchant:
        await merchant.post("/v1/orders", {"merchant_order_no": number, "sku": "mobile-cn-100", "target": PHONE})
    assert (await house.finished(number)).status == "succeeded"
    assert await jd.find(number) == ("JDO_303", 4)


# ---- asked while it is being placed -------------------------------------------------------------------------------------


@pytest.mark.parametrize("unknown_orders", ["wait", "refund"])
async def test_a_query_while_the_order_is_being_placed_here_is_no_verdict(quiet_house: DoorHouse, unknown_orders: str) -> None:
    house = quiet_house
    jd, number = await jd_at(house, unknown_orders=unknown_orders), new_number()
    gate = house.slow_placing()
    placing = asyncio.ensure_future(jd.begin(topup(house, number)))
    await gate.until_waiting()
    asked = await asyncio.gather(*[jd.send("findDistill", jd.form({"jdOrderNo": number})) for _ in range(5)])
    assert all((a["code"], a["produceStatus"]) == ("JDO_201", 3) for a in asked)
    gate.open()
    assert await placing == ("JDO_201", 3)
    assert await jd.find(number) == ("JDO_201", 3)


@pytest.mark.parametrize("unknown_orders", ["wait", "refund"])
async def test_a_query_while_another_process_decides_waits_for_it(quiet_house: DoorHouse, unknown_orders: str) -> None:
    house = quiet_house
    jd, number = await jd_at(house, unknown_orders=unknown_orders), new_number()
    async with house.spendable_locked():
        asking = asyncio.ensure_future(jd.find(number))
        await asyncio.sleep(0.5)
        assert not asking.done()
    assert await asking == (("JDO_303", 4) if unknown_orders == "wait" else ("JDO_303", 2))


async def test_an_unknown_order_is_paused_and_may_still_be_placed(quiet_house: DoorHouse) -> None:
    house = quiet_house
    jd, number = await jd_at(house), new_number()
    assert await jd.find(number) == ("JDO_303", 4)
    assert await jd.begin(topup(house, number)) == ("JDO_201", 3)


async def test_after_a_refund_the_order_is_never_bought(quiet_house: DoorHouse) -> None:
    house = quiet_house
    jd, number = await jd_at(house, unknown_orders="refund"), new_number()
    assert await jd.find(number) == ("JDO_303", 2)
    assert await jd.begin(topup(house, number)) == ("JDO_500", 2)
    assert await jd.find(number) == ("JDO_303", 2)
    assert await house.orders() == 0


# ---- refusals -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"wareNo": "unknown"}, ("JDO_305", 2)),
        ({"wareNo": "45003", "produceAccount": ""}, ("JDO_305", 2)),
        ({"produceAccount": "12345"}, ("JDO_301", 2)),
        ({"produceAccount": ""}, ("JDO_303", 2)),
        ({"quantity": "2", "totalPrice": "20000"}, ("JDO_303", 2)),
    ],
)
async def test_what_the_order_is_to_blame_for_is_final_and_stays_so(
    quiet_house: DoorHouse, more: dict[str, str], words: tuple[str, int]
) -> None:
    house = quiet_house
    jd, number = await jd_at(house), new_number()
    assert await jd.begin(topup(house, number, **more)) == words
    assert (await jd.begin(topup(house, number)))[1] == 2, "a delayed, or mended, copy of a refused order must not be bought"
    assert await house.orders() == 0


async def test_what_the_merchant_can_mend_pauses_the_order_and_it_may_be_started_again(quiet_house: DoorHouse) -> None:
    house = quiet_house
    jd, number = await jd_at(house), new_number()
    assert await jd.begin(topup(house, number, totalPrice="9849")) == ("JDO_305", 4)
    assert await jd.begin(topup(house, number, totalPrice="9850")) == ("JDO_201", 3)
    late = new_number()
    assert await jd.begin(topup(house, late, notifyUrl="http://192.0.2.1/x")) == ("JDO_303", 4)
    assert await jd.begin(topup(house, late)) == ("JDO_201", 3)


async def test_an_empty_wallet_pauses(quiet_house: DoorHouse) -> None:
    house = quiet_house
    jd = await jd_at(house)
    for _ in range(10):  # 10,000 yuan of play money
        await jd.begin(cards(house, new_number(), quantity="100", totalPrice="100000"))
    assert await jd.begin(cards(house, new_number(), quantity="100", totalPrice="100000")) == ("JDO_500", 4)


@pytest.mark.parametrize(
    "more",
    [{"jdOrderNo": "1x"}, {"jdOrderNo": ""}, {"quantity": "many"}, {"totalPrice": "1.5"}, {"wareNo": ""}, {"notifyUrl": ""}, {"vendorId": "x"}],
)
async def test_what_cannot_be_read_is_paused_and_not_signed(quiet_house: DoorHouse, more: dict[str, str]) -> None:
    house = quiet_house
    jd = await jd_at(house)
    answer = await jd.send("beginDistill", jd.form(topup(house, new_number(), **more)))
    assert (answer["code"], answer["produceStatus"]) == ("JDO_303", 4)
    assert "sign" not in answer
    assert await house.orders() == 0


async def test_no_cards_are_bought_under_a_key_that_cannot_hand_them_over(quiet_house: DoorHouse) -> None:
    house = quiet_house
    jd = await jd_at(house, aes="too-short-for-a-key")
    answer = await jd.send("beginDistill", jd.form(cards(house, new_number())))
    assert (answer["code"], answer["produceStatus"]) == ("JDO_201", 3)
    assert await house.orders() == 0
    assert await jd.begin(topup(house, new_number())) == ("JDO_201", 3)


async def test_a_voucher_is_no_product_here(quiet_house: DoorHouse) -> None:
    """It may be delivered by a receipt alone, and then there would be no cards to tell."""
    house = quiet_house
    jd, number = await jd_at(house), new_number()
    async with house.db.transaction() as tx:
        product = await catalog_queries.get_product(tx, "test-card")
        await catalog.put_product(tx, replace(product, sku="test-voucher", product_type="voucher"))
        await catalog.set_price(tx, "test-voucher", Price(unit_price=100_000))
        await catalog.set_offer(tx, Offer("sim-a", "test-voucher", "test-card", unit_cost=95_000))
    await door_of(house.app).catalog.refresh()
    assert await jd.begin(cards(house, number, wareNo="test-voucher")) == ("JDO_302", 2)
    assert await jd.begin(topup(house, number)) == ("JDO_500", 2), "and the no stays true"
    assert await house.orders() == 0
