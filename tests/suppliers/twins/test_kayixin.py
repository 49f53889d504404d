"""卡易信's own traps, over HTTP: exact bytes, encrypted cards, refunds as a growing number, goods that send a multiple, mistitled pages."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from tests.suppliers.twins.kayixin import sign
from tests.suppliers.twins.world import ACCOUNT, TwinWorld

from kameng_api.suppliers.port import (
    Accepted,
    CallbackNews,
    CallbackRefused,
    CatalogHint,
    Delivered,
    NotFound,
    NotSent,
    Outcome,
    RefusalReason,
    Refused,
    Reversed,
    Supplier,
    Unknown,
)

NAME = "kayixin"


async def look_up(supplier: Supplier, reference: str) -> Outcome:
    assert supplier.look_up is not None
    return (await supplier.look_up(reference)).outcome


async def until(twin: TwinWorld, reference: str, kind: type) -> Outcome:
    async with asyncio.timeout(8):
        while not isinstance(outcome := await look_up(twin.supplier, reference), kind):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    return outcome


async def called(twin: TwinWorld) -> tuple[dict[str, str], bytes]:
    async with asyncio.timeout(8):
        while not twin.mailbox.calls:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    return twin.mailbox.calls[0]


async def add(twin: TwinWorld, code: str, **more: Any) -> None:
    await twin.simulator.call("PUT", f"suppliers/{ACCOUNT}/products/{code}", {"code": code, "name": code, "cost": "10", "stock": 7, **more})


async def test_cards_come_with_the_answer_in_the_look_up_and_encrypted_in_the_callback(twin: TwinWorld) -> None:
    purchase = twin.purchase(kind="card", units=3)
    placed = (await twin.supplier.place(purchase)).outcome
    assert isinstance(placed, Delivered) and placed.units == 3
    found = await look_up(twin.supplier, purchase.reference)
    assert isinstance(found, Delivered) and found.codes == placed.codes and found.cost == 3 * 95_5000
    headers, body = await called(twin)
    assert placed.codes[0].code.encode() not in body, "in the clear"
    (news,) = twin.mailbox.news(twin.supplier, purchase.reference)
    assert news == found
    rows = await twin.simulator.rows("deliveries", purchase.reference)
    assert [(code.code, code.pin) for code in placed.codes] == [(row["code"], row["pin"]) for row in rows]
    assert twin.supplier.read_callback is not None
    for changed in (body.replace(b'"status": 3', b'"status": 4'), body + b" "):
        with pytest.raises(CallbackRefused):
            twin.supplier.read_callback(headers, changed, datetime.now(UTC))


async def test_cards_swapped_inside_the_cipher_are_caught_by_the_signature(twin: TwinWorld) -> None:
    """ECB lets whole blocks be moved: only the signature around it tells."""
    purchase = twin.purchase(kind="card", units=2)
    await twin.supplier.place(purchase)
    headers, body = await called(twin)
    order = orjson.loads(body)
    order["cards"] = order["cards"][:-4] + "AAAA"
    assert twin.supplier.read_callback is not None
    with pytest.raises(CallbackRefused):
        twin.supplier.read_callback(headers, orjson.dumps(order), datetime.now(UTC))


async def test_the_same_number_twice_is_doubt_and_buys_once(twin: TwinWorld) -> None:
    purchase = twin.purchase()
    assert isinstance((await twin.supplier.place(purchase)).outcome, Accepted)
    assert isinstance((await twin.supplier.place(purchase)).outcome, Unknown), "采购单号重复 is an order, not a refusal"
    assert isinstance(await look_up(twin.supplier, purchase.reference), Delivered)
    assert await twin.delivered(purchase.reference) == 1


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("PRICE_CHANGED", RefusalReason.PRICE_EXCEEDED),
        ("PRODUCT_OFF_SHELF", RefusalReason.PRODUCT_OFF),
        ("STOCK_EMPTY", RefusalReason.OUT_OF_STOCK),
        ("BALANCE_NOT_ENOUGH", RefusalReason.WALLET_EMPTY),
    ],
)
async def test_a_failure_that_names_its_reason_is_a_refusal(twin: TwinWorld, code: str, reason: RefusalReason) -> None:
    await twin.turn(refuse_rate=1, refuse_code=code)
    purchase = twin.purchase()
    outcome = (await twin.supplier.place(purchase)).outcome
    assert isinstance(outcome, Refused) and outcome.reason is reason
    assert isinstance(await look_up(twin.supplier, purchase.reference), NotFound)


async def test_a_failure_without_a_known_reason_is_doubt(twin: TwinWorld) -> None:
    await twin.turn(refuse_rate=1, refuse_code="PARAM_INVALID")
    purchase = twin.purchase()
    assert isinstance((await twin.supplier.place(purchase)).outcome, Unknown)
    assert isinstance(await look_up(twin.supplier, purchase.reference), NotFound)


async def test_the_limit_is_for_the_whole_order(twin: TwinWorld) -> None:
    dear = twin.purchase(units=3, max_cost=3 * 97_5000 - 1)
    outcome = (await twin.supplier.place(dear)).outcome
    assert isinstance(outcome, Refused) and outcome.reason is RefusalReason.PRICE_EXCEEDED
    exact = twin.purchase(units=3, max_cost=3 * 97_5000)
    assert isinstance((await twin.supplier.place(exact)).outcome, Accepted)
    found = await look_up(twin.supplier, exact.reference)
    assert isinstance(found, Delivered) and (found.units, found.cost) == (3, 3 * 97_5000)


async def test_a_part_that_came_back_is_a_persons_case_and_all_of_it_a_reversal(twin: TwinWorld) -> None:
    await twin.turn(partial_rate=1)
    part = twin.purchase(units=3)
    await twin.supplier.place(part)
    outcome = await look_up(twin.supplier, part.reference)
    assert isinstance(outcome, Unknown) and outcome.needs_person
    await twin.turn(reversal_rate=1, reversal_after_s=4)
    whole = twin.purchase(units=2)
    await twin.supplier.place(whole)
    taken_back = await until(twin, whole.reference, Reversed)
    assert isinstance(taken_back, Reversed) and taken_back.amount == 2 * 97_5000
    assert await look_up(twin.supplier, whole.reference) == taken_back, "counts once"


async def test_void_cards_are_never_handed_out(twin: TwinWorld) -> None:
    await twin.turn(reversal_rate=1, reversal_after_s=2)
    purchase = twin.purchase(kind="card")
    await twin.supplier.place(purchase)
    await asyncio.sleep(0.4)
    assert isinstance(await look_up(twin.supplier, purchase.reference), Unknown)


async def test_goods_that_send_a_multiple_are_not_offered_and_their_cards_not_believed(twin: TwinWorld) -> None:
    await add(twin, "6521", type="card")
    assert twin.supplier.product is not None
    line = await twin.supplier.product("6521")
    assert line is not None and not line.available


async def test_goods_of_several_skus_are_bought_by_their_sku_alone(twin: TwinWorld) -> None:
    await add(twin, "6520")
    assert twin.supplier.product is not None
    whole, one = await twin.supplier.product("6520"), await twin.supplier.product("6520:RED-1")
    assert whole is not None and not whole.available
    assert one is not None and one.available and one.cost == 10_0000 and one.stock == 7
    assert await twin.supplier.product("6520:BLUE") is None
    without = await twin.supplier.place(twin.purchase(product_code="6520"))
    assert not isinstance(without.outcome, Accepted | Delivered)
    bought = twin.purchase(product_code="6520:RED-1")
    assert isinstance((await twin.supplier.place(bought)).outcome, Accepted)
    assert await twin.delivered(bought.reference) == 1


async def test_pages_are_read_to_their_end_whichever_number_they_are_called_by(twin: TwinWorld) -> None:
    assert twin.supplier.products is not None
    lines = [line async for page in twin.supplier.products() for line in page]
    assert len(lines) == len({line.product_code for line in lines}) >= 42


async def test_unicode_and_quotes_in_a_field_arrive_as_they_were(twin: TwinWorld) -> None:
    purchase = twin.purchase(target='账号/"\\\u2028', fields={"区服": "一区"})
    assert isinstance((await twin.supplier.place(purchase)).outcome, Accepted)
    (row,) = await twin.simulator.rows("deliveries", purchase.reference)
    assert row["target"] == purchase.target


async def test_cancelling_withdraws_what_is_under_way_and_asks_about_what_is_done(twin: TwinWorld) -> None:
    assert twin.supplier.cancel is not None
    open_order, done = twin.purchase(target="10000000003"), twin.purchase()
    await twin.supplier.place(open_order)
    await twin.supplier.place(done)
    assert isinstance((await twin.supplier.cancel(open_order.reference)).outcome, Refused)
    assert await twin.charged(open_order.reference) == 0
    assert isinstance((await twin.supplier.cancel(done.reference)).outcome, Accepted)
    assert isinstance((await twin.supplier.cancel("KMTNEVERPLACED")).outcome, Unknown)


async def test_a_push_about_a_product_is_a_hint_and_is_signed(twin: TwinWorld) -> None:
    assert twin.supplier.read_callback is not None
    body = orjson.dumps({"goodsId": 6518, "money": "0.01", "status": "1"})
    headers = {"X-App-Id": twin.twin.app_key, "X-Version": "3.0", "X-Timestamp": "1795361000"}
    signed = {**headers, "X-Signature": sign(twin.twin.app_key, twin.twin.secret, "3.0", "1795361000", body)}
    assert twin.supplier.read_callback(signed, body, datetime.now(UTC)) == CatalogHint(("6518",))
    with pytest.raises(CallbackRefused):
        twin.supplier.read_callback(headers, body, datetime.now(UTC))


async def test_a_failure_later_is_told_by_callback_and_look_up_alike(twin: TwinWorld) -> None:
    purchase = twin.purchase(target="10000000002")
    await twin.supplier.place(purchase)
    found = await until(twin, purchase.reference, Refused)
    await called(twin)
    read = twin.mailbox.read(twin.supplier)
    assert [one.outcome for one in read if isinstance(one, CallbackNews)] == [found]


async def test_a_product_without_a_number_cannot_be_said(twin: TwinWorld) -> None:
    assert isinstance((await twin.supplier.place(twin.purchase(product_code="hf-100"))).outcome, NotSent)
