"""Ding's own traps, over HTTP against its twin: no deduplication, verdicts with HTTP 500, names that are silently ignored, `Complete`."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from tests.suppliers.twins import ding
from tests.suppliers.twins.world import ACCOUNT, TwinWorld

from kameng_api.suppliers.port import Accepted, Cause, Delivered, LineKind, NotFound, NotSent, Outcome, RefusalReason, Refused, Scope, Unknown

NAME = "ding"


async def look_up(twin: TwinWorld, reference: str) -> Outcome:
    assert twin.supplier.look_up is not None
    return (await twin.supplier.look_up(reference)).outcome


async def test_a_transfer_is_complete_at_once_and_found_under_our_reference(twin: TwinWorld) -> None:
    purchase = twin.purchase()
    outcome = (await twin.supplier.place(purchase)).outcome
    assert isinstance(outcome, Delivered) and outcome.cost == 14_5000 == await twin.charged(purchase.reference)
    assert await look_up(twin, purchase.reference) == outcome


async def test_the_same_reference_again_is_paid_again_and_goes_to_a_person(twin: TwinWorld) -> None:
    """Why nothing is promised about repetitions, and why the house sends a reference once."""
    purchase = twin.purchase()
    for _ in range(2):
        assert isinstance((await twin.supplier.place(purchase)).outcome, Delivered)
    assert await twin.delivered(purchase.reference) == 2
    found = await look_up(twin, purchase.reference)
    assert isinstance(found, Unknown) and found.needs_person
    assert not twin.supplier.capabilities.idempotent_submit


async def test_a_lost_answer_is_looked_up_and_never_sent_again(twin: TwinWorld) -> None:
    await twin.turn(reset_rate=1, reset_point="after")
    purchase = twin.purchase()
    assert isinstance((await twin.supplier.place(purchase)).outcome, Unknown)
    await twin.turn()
    assert isinstance(await look_up(twin, purchase.reference), Delivered)
    assert await twin.delivered(purchase.reference) == 1
    assert len(await twin.simulator.rows("orders", purchase.reference)) == 1


async def test_an_empty_wallet_says_so_with_http_500_and_an_error_500_says_nothing(twin: TwinWorld) -> None:
    await twin.simulator.call("POST", f"suppliers/{ACCOUNT}/wallet", {"take": True})
    try:
        answer = await twin.supplier.place(twin.purchase())
    finally:
        await twin.simulator.call("POST", f"suppliers/{ACCOUNT}/wallet", {"amount": "1000000"})
    assert answer.http_status == 500
    assert answer.outcome == Refused(Scope.CHANNEL, RefusalReason.WALLET_EMPTY, "InsufficientBalance/")
    await twin.turn(error_500_rate=1)
    purchase = twin.purchase()
    broken = await twin.supplier.place(purchase)
    assert broken.http_status == 500 and isinstance(broken.outcome, Unknown)
    assert isinstance(await look_up(twin, purchase.reference), Delivered)


@pytest.mark.parametrize(
    ("code", "scope", "reason"),
    [
        ("TARGET_NOT_EXIST", Scope.ORDER, RefusalReason.TARGET_INVALID),
        ("TARGET_BLACKLISTED", Scope.CHANNEL, RefusalReason.TARGET_NOT_ELIGIBLE),
        ("TARGET_NOT_ELIGIBLE", Scope.CHANNEL, RefusalReason.TARGET_NOT_ELIGIBLE),
        ("ORDER_REJECTED", Scope.CHANNEL, RefusalReason.SUPPLIER_REJECTED),
        ("STOCK_EMPTY", Scope.CHANNEL, RefusalReason.PRODUCT_OFF),
        ("PARAM_INVALID", Scope.CHANNEL, RefusalReason.SUPPLIER_REJECTED),
    ],
)
async def test_the_body_decides_and_not_the_http_status(twin: TwinWorld, code: str, scope: Scope, reason: RefusalReason) -> None:
    await twin.turn(refuse_rate=1, refuse_code=code)
    purchase = twin.purchase()
    answer = await twin.supplier.place(purchase)
    assert answer.http_status == 200 and isinstance(answer.outcome, Refused)
    assert (answer.outcome.scope, answer.outcome.reason) == (scope, reason)
    found = await look_up(twin, purchase.reference)
    assert found == answer.outcome or found == NotFound()
    assert await twin.charged(purchase.reference) == 0


async def test_a_provider_that_timed_out_is_a_doubt_until_the_record_says_failed(twin: TwinWorld) -> None:
    await twin.turn(refuse_rate=1, refuse_code="CHANNEL_MAINTENANCE")
    purchase = twin.purchase()
    answer = await twin.supplier.place(purchase)
    assert isinstance(answer.outcome, Unknown) and b"ProviderTimedOut" in answer.raw
    assert isinstance(await look_up(twin, purchase.reference), Refused)


async def test_a_throttle_and_a_wrong_key_are_not_sent(twin: TwinWorld) -> None:
    await twin.turn(rate_limit_per_s=1)
    outcomes = [answer.outcome for answer in await asyncio.gather(*(twin.supplier.place(twin.purchase()) for _ in range(5)))]
    assert any(isinstance(outcome, NotSent) and outcome.cause is Cause.BUSY for outcome in outcomes)
    await twin.turn()
    purchase = twin.purchase()
    answer = await twin.connect(api_key="another-key-of-enough-length").place(purchase)
    assert isinstance(answer.outcome, NotSent) and answer.http_status == 401
    assert await twin.simulator.rows("orders", purchase.reference) == []


async def test_a_deferred_transfer_is_submitted_first(twin: TwinWorld) -> None:
    await twin.turn(async_rate=1, async_after_s=10)
    purchase = twin.purchase()
    supplier = twin.connect(defer=True)
    placed = (await supplier.place(purchase)).outcome
    assert isinstance(placed, Accepted) and await look_up(twin, purchase.reference) == placed
    await asyncio.sleep(0.8)
    assert isinstance(await look_up(twin, purchase.reference), Delivered)


async def test_references_are_compared_with_their_case(twin: TwinWorld) -> None:
    ours = twin.purchase()
    await twin.supplier.place(replace(ours, reference=ours.reference.lower()))
    assert await look_up(twin, ours.reference) == NotFound()


async def test_a_voucher_brings_its_pin(twin: TwinWorld) -> None:
    purchase = twin.purchase(kind="card")
    outcome = (await twin.supplier.place(purchase)).outcome
    [row] = await twin.simulator.rows("deliveries", purchase.reference)
    assert isinstance(outcome, Delivered) and [code.code for code in outcome.codes] == [row["code"]]
    assert await look_up(twin, purchase.reference) == outcome


async def test_a_price_that_moved_is_refused_and_the_list_has_another_line(twin: TwinWorld) -> None:
    assert twin.supplier.product is not None
    await twin.turn(price_factor=2)
    purchase = twin.purchase()
    outcome = (await twin.supplier.place(purchase)).outcome
    assert isinstance(outcome, Refused) and outcome.detail == "ParameterOutOfRange/SendValue"
    assert await twin.supplier.product("CN_CM_TopUp-14.50") is None
    line = await twin.supplier.product("CN_CM_TopUp-29.00")
    assert line is not None and line.cost == 29_0000
    dear = await twin.supplier.place(twin.purchase(max_cost=14_4999))
    assert isinstance(dear.outcome, NotSent) and dear.outcome.cause is Cause.UNSAYABLE


async def test_the_list_the_balance_and_the_records_are_the_vendors(twin: TwinWorld) -> None:
    supplier, purchase, ranged = twin.supplier, twin.purchase(), twin.purchase(kind="ranged", face_value=33_3300)
    assert supplier.products is not None and supplier.balance is not None and supplier.statement is not None
    lines = {line.product_code: line for page in [page async for page in supplier.products()] for line in page}
    assert set(lines) == {product.code for product in ding.TWIN.products}
    assert (await supplier.balance()).currency == "USD"
    for one in (purchase, ranged):
        assert isinstance((await supplier.place(one)).outcome, Delivered)
    rows = [line async for page in supplier.statement(datetime.now(UTC).date()) for line in page]
    ours = {line.reference: line for line in rows if line.reference in (purchase.reference, ranged.reference)}
    assert {line.kind for line in ours.values()} == {LineKind.CHARGE}
    for one in (purchase, ranged):
        assert -ours[one.reference].amount == await twin.charged(one.reference)


async def test_what_cannot_be_said_is_not_sent(twin: TwinWorld) -> None:
    no_face, cents = twin.purchase(kind="ranged", face_value=None), twin.purchase(kind="ranged", face_value=10_0050)
    for purchase in (twin.purchase(units=2), twin.purchase("12x"), twin.purchase(product_code="hf-100"), no_face, cents):
        answer = await twin.supplier.place(purchase)
        assert isinstance(answer.outcome, NotSent) and answer.outcome.cause is Cause.UNSAYABLE
