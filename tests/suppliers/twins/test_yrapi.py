"""大猿人's own traps, over HTTP: asynchronous payment, early callbacks, missing rows, numbers that are not unique."""

import asyncio
from dataclasses import replace

from tests.suppliers.twins.world import TwinWorld

from kameng_api.suppliers.port import Accepted, Code, Delivered, NotFound, NotSent, Outcome, RefusalReason, Refused, Supplier, Unknown

NAME = "yrapi"


async def look_up(supplier: Supplier, reference: str) -> Outcome:
    assert supplier.look_up is not None
    return (await supplier.look_up(reference)).outcome


async def until(twin: TwinWorld, reference: str, kind: type) -> Outcome:
    async with asyncio.timeout(8):
        while not isinstance(outcome := await look_up(twin.supplier, reference), kind):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    return outcome


async def test_an_order_that_cannot_be_paid_is_accepted_first_and_cancelled_later(twin: TwinWorld) -> None:
    """errno 0 says entered: the wallet is looked at later."""
    await twin.turn(refuse_rate=1, refuse_code="BALANCE_NOT_ENOUGH")
    purchase = twin.purchase()
    assert isinstance((await twin.supplier.place(purchase)).outcome, Accepted)
    assert isinstance(await look_up(twin.supplier, purchase.reference), Refused)
    assert await twin.delivered(purchase.reference) == 0


async def test_the_early_callback_is_no_verdict_and_the_final_one_is_not_lost(twin: TwinWorld) -> None:
    purchase = twin.purchase(target="10000000001")
    await twin.supplier.place(purchase)
    async with asyncio.timeout(8):
        while len(news := twin.mailbox.news(twin.supplier, purchase.reference)) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    assert [type(one) for one in news] == [Accepted, Delivered]
    assert news[1] == await look_up(twin.supplier, purchase.reference)


async def test_the_same_number_twice_is_doubt_and_buys_once(twin: TwinWorld) -> None:
    purchase = twin.purchase()
    assert isinstance((await twin.supplier.place(purchase)).outcome, Accepted)
    again = await twin.supplier.place(purchase)
    assert isinstance(again.outcome, Unknown), "a duplicate is an order, not a refusal"
    assert isinstance(await look_up(twin.supplier, purchase.reference), Delivered)
    assert await twin.delivered(purchase.reference) == 1


async def test_a_missing_row_is_not_found_and_proves_nothing(twin: TwinWorld) -> None:
    await twin.turn(not_found_for_s=20)  # a second here
    purchase = twin.purchase()
    await twin.supplier.place(purchase)
    assert isinstance(await look_up(twin.supplier, purchase.reference), NotFound)
    assert not twin.supplier.capabilities.not_found_is_final
    assert isinstance(await until(twin, purchase.reference, Delivered), Delivered)


async def test_a_price_above_the_limit_is_refused_and_leaves_no_order(twin: TwinWorld) -> None:
    await twin.turn(price_factor=2)
    purchase = twin.purchase()
    outcome = (await twin.supplier.place(purchase)).outcome
    assert isinstance(outcome, Refused) and outcome.reason is RefusalReason.PRICE_EXCEEDED
    assert isinstance(await look_up(twin.supplier, purchase.reference), NotFound)
    assert await twin.charged(purchase.reference) == 0


async def test_another_face_value_than_the_products_is_refused(twin: TwinWorld) -> None:
    outcome = (await twin.supplier.place(twin.purchase(face_value=50_0000))).outcome
    assert isinstance(outcome, Refused)
    right = twin.purchase(face_value=100_0000)
    assert isinstance((await twin.supplier.place(right)).outcome, Accepted)
    assert await twin.delivered(right.reference) == 1


async def test_a_number_that_was_cancelled_can_carry_a_second_order_and_then_says_nothing(twin: TwinWorld) -> None:
    purchase = twin.purchase(target="10000000003")
    await twin.supplier.place(purchase)
    assert twin.supplier.cancel is not None
    assert isinstance((await twin.supplier.cancel(purchase.reference)).outcome, Accepted)
    assert isinstance(await look_up(twin.supplier, purchase.reference), Refused)
    assert isinstance((await twin.supplier.place(replace(purchase, target="10000000000"))).outcome, Accepted)
    assert isinstance(await look_up(twin.supplier, purchase.reference), Unknown), "two orders under one number"


async def test_a_finished_order_cannot_be_cancelled(twin: TwinWorld) -> None:
    purchase = twin.purchase()
    await twin.supplier.place(purchase)
    assert twin.supplier.cancel is not None
    assert isinstance((await twin.supplier.cancel(purchase.reference)).outcome, Unknown)
    assert isinstance(await look_up(twin.supplier, purchase.reference), Delivered)


async def test_a_wrong_key_is_doubt_and_no_refusal(twin: TwinWorld) -> None:
    purchase = twin.purchase()
    assert isinstance((await twin.connect(apikey="a key with 100%42+ in it").place(purchase)).outcome, Unknown)
    assert await twin.delivered(purchase.reference) == 0


async def test_more_than_one_unit_and_cards_cannot_be_said(twin: TwinWorld) -> None:
    for purchase in (twin.purchase(units=2), twin.purchase(product_type="card"), twin.purchase(fields={"unknown": "1"})):
        assert isinstance((await twin.supplier.place(purchase)).outcome, NotSent)
        assert await twin.delivered(purchase.reference) == 0


async def test_signs_and_spaces_in_a_target_survive_form_and_signature(twin: TwinWorld) -> None:
    purchase = twin.purchase(target="+86 138%2B 中文&=账号", fields={"area": "四川", "param1": ""})
    assert isinstance((await twin.supplier.place(purchase)).outcome, Accepted)
    assert await twin.delivered(purchase.reference) == 1


async def test_what_may_be_a_card_is_a_code_and_no_receipt(twin: TwinWorld) -> None:
    purchase = twin.purchase(target="card-1")
    await twin.supplier.place(purchase)
    found = await look_up(twin.supplier, purchase.reference)
    (row,) = await twin.simulator.rows("deliveries", purchase.reference)
    assert isinstance(found, Delivered) and found.codes == (Code(row["receipt"]),) and found.receipt is None


async def test_a_callback_with_a_wrong_signature_is_not_read(twin: TwinWorld) -> None:
    await twin.turn(callback_wrong_signature_rate=1)
    purchase = twin.purchase()
    await twin.supplier.place(purchase)
    async with asyncio.timeout(8):
        while not twin.mailbox.calls:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    assert twin.mailbox.news(twin.supplier, purchase.reference) == []


async def test_products_prices_and_balance_are_read(twin: TwinWorld) -> None:
    assert twin.supplier.products is not None and twin.supplier.product is not None and twin.supplier.balance is not None
    lines = [line async for page in twin.supplier.products() for line in page]
    assert [(line.product_code, line.cost, line.max_units) for line in lines] == [("8", 97_5000, 1), ("9", 48_7500, 1)]
    assert await twin.supplier.product("9") == lines[1] and await twin.supplier.product("10") is None
    before = (await twin.supplier.balance()).balance
    await twin.supplier.place(twin.purchase())
    assert (await twin.supplier.balance()).balance == before - 97_5000
