"""DT One's own traps, over HTTP against its twin: classes of state, one number twice, 429 and 401 as refusals, credentials without a signature."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from tests.suppliers.twins import dtone
from tests.suppliers.twins.world import TwinWorld

from kameng_api.suppliers.port import (
    Accepted,
    Cause,
    Delivered,
    LineKind,
    NotFound,
    NotSent,
    Outcome,
    RefusalReason,
    Refused,
    Reversed,
    Scope,
    Unknown,
)

NAME = "dtone"


async def become(twin: TwinWorld, reference: str, wanted: type[Outcome], number: str | None = None) -> Outcome:
    """What a look-up says once it says `wanted`."""
    assert twin.supplier.look_up is not None
    async with asyncio.timeout(10):
        while not isinstance(outcome := (await twin.supplier.look_up(reference, number)).outcome, wanted):  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    return outcome


async def eventually(read: Callable[[], Any]) -> Any:
    """What `read` says once it says something."""
    async with asyncio.timeout(10):
        while True:
            found = read()
            value = await found if isinstance(found, Awaitable) else found
            if value:
                return value
            await asyncio.sleep(0.05)


async def test_an_order_is_taken_first_and_delivered_when_the_operator_says_so(twin: TwinWorld) -> None:
    purchase = twin.purchase()
    answer = await twin.supplier.place(purchase)
    assert isinstance(answer.outcome, Accepted) and answer.http_status == 201
    outcome = await become(twin, purchase.reference, Delivered)
    assert isinstance(outcome, Delivered)
    assert (outcome.units, outcome.cost, outcome.codes) == (1, 14_2000, ())
    assert outcome.cost == await twin.charged(purchase.reference)
    by_number = await become(twin, purchase.reference, Delivered, answer.outcome.supplier_order_no)
    assert by_number == outcome


async def test_a_number_that_is_used_is_a_doubt_and_buys_nothing_more(twin: TwinWorld) -> None:
    purchase = twin.purchase()
    assert isinstance((await twin.supplier.place(purchase)).outcome, Accepted)
    again = await twin.supplier.place(purchase)
    assert isinstance(again.outcome, Unknown) and b"1007001" in again.raw
    assert await twin.delivered(purchase.reference) == 1


async def test_of_many_calls_at_once_with_one_number_all_but_one_are_a_doubt(twin: TwinWorld) -> None:
    purchase = twin.purchase()
    outcomes = [answer.outcome for answer in await asyncio.gather(*(twin.supplier.place(purchase) for _ in range(8)))]
    assert sum(isinstance(outcome, Accepted) for outcome in outcomes) <= 1
    assert all(isinstance(outcome, Accepted | Unknown) for outcome in outcomes)
    assert await twin.delivered(purchase.reference) == 1


@pytest.mark.parametrize(
    ("code", "scope", "reason"),
    [
        ("TARGET_NOT_EXIST", Scope.ORDER, RefusalReason.TARGET_INVALID),
        ("TARGET_BLACKLISTED", Scope.ORDER, RefusalReason.TARGET_NOT_ELIGIBLE),
        ("TARGET_NOT_ELIGIBLE", Scope.ORDER, RefusalReason.TARGET_NOT_ELIGIBLE),
        ("ORDER_REJECTED", Scope.CHANNEL, RefusalReason.SUPPLIER_REJECTED),
        ("CHANNEL_MAINTENANCE", Scope.CHANNEL, RefusalReason.SUPPLIER_REJECTED),
    ],
)
async def test_a_declined_transaction_is_a_no_with_its_reason(twin: TwinWorld, code: str, scope: Scope, reason: RefusalReason) -> None:
    await twin.turn(refuse_rate=1, refuse_code=code)
    purchase = twin.purchase()
    assert isinstance((await twin.supplier.place(purchase)).outcome, Accepted)
    outcome = await become(twin, purchase.reference, Refused)
    assert isinstance(outcome, Refused) and (outcome.scope, outcome.reason) == (scope, reason)
    assert await twin.charged(purchase.reference) == 0


async def test_an_empty_wallet_and_a_product_that_went_are_refused_at_once(twin: TwinWorld) -> None:
    gone = await twin.supplier.place(twin.purchase(product_code="9999"))
    assert isinstance(gone.outcome, Refused) and gone.outcome.reason is RefusalReason.PRODUCT_OFF
    await twin.turn(refuse_rate=1, refuse_code="BALANCE_NOT_ENOUGH")
    purchase = twin.purchase()
    empty = await twin.supplier.place(purchase)
    assert isinstance(empty.outcome, Refused) and empty.outcome.reason is RefusalReason.WALLET_EMPTY
    assert twin.supplier.look_up is not None
    assert isinstance((await twin.supplier.look_up(purchase.reference)).outcome, NotFound)


async def test_too_many_requests_are_not_sent_and_a_wrong_key_neither(twin: TwinWorld) -> None:
    await twin.turn(rate_limit_per_s=1)
    outcomes = [answer.outcome for answer in await asyncio.gather(*(twin.supplier.place(twin.purchase()) for _ in range(6)))]
    refused = [outcome for outcome in outcomes if isinstance(outcome, NotSent)]
    assert refused and all(outcome.cause is Cause.BUSY for outcome in refused)
    await twin.turn()
    purchase = twin.purchase()
    stranger = twin.connect(api_secret="another-secret-of-enough-length")
    answer = await stranger.place(purchase)
    assert isinstance(answer.outcome, NotSent) and answer.http_status == 401
    assert stranger.look_up is not None
    assert isinstance((await stranger.look_up(purchase.reference)).outcome, Unknown)
    assert await twin.delivered(purchase.reference) == 0


async def test_an_error_500_says_nothing_and_the_look_up_finds_the_delivery(twin: TwinWorld) -> None:
    await twin.turn(error_500_rate=1)
    purchase = twin.purchase()
    answer = await twin.supplier.place(purchase)
    assert isinstance(answer.outcome, Unknown) and b"1009001" in answer.raw
    assert isinstance(await become(twin, purchase.reference, Delivered), Delivered)


async def test_a_card_has_its_code_and_its_serial_number_but_not_in_a_callback(twin: TwinWorld) -> None:
    purchase = twin.purchase(kind="card")
    await twin.supplier.place(purchase)
    outcome = await become(twin, purchase.reference, Delivered)
    [row] = await twin.simulator.rows("deliveries", purchase.reference)
    assert isinstance(outcome, Delivered)
    [code] = outcome.codes
    assert (code.code, code.pin) == (row["code"], row["pin"])
    await eventually(lambda: twin.mailbox.news(twin.supplier, purchase.reference))
    [hint] = twin.mailbox.news(twin.supplier, purchase.reference)
    assert isinstance(hint, Delivered) and hint.codes == () and not twin.supplier.capabilities.trusted_callback


async def test_a_callback_without_our_credentials_is_refused(twin: TwinWorld) -> None:
    await twin.turn(callback_wrong_signature_rate=1)
    purchase = twin.purchase()
    await twin.supplier.place(purchase)
    await eventually(lambda: twin.mailbox.calls)
    assert twin.mailbox.read(twin.supplier) == []
    stranger = twin.connect(callback_password="another-password")
    await twin.turn()
    await twin.supplier.place(twin.purchase())
    await eventually(lambda: twin.mailbox.read(twin.supplier))
    assert twin.mailbox.read(stranger) == []


async def test_any_2xx_acknowledges_a_callback(twin: TwinWorld) -> None:
    twin.mailbox.reply = (202, b"whatever", "text/plain")
    purchase = twin.purchase()
    await twin.supplier.place(purchase)
    rows = await eventually(lambda: twin.simulator.rows("callbacks", purchase.reference))
    assert [row["acknowledged"] for row in rows] == [1]


async def test_a_completed_order_may_be_reversed_later(twin: TwinWorld) -> None:
    purchase = twin.purchase("10000000007")
    await twin.supplier.place(purchase)
    assert isinstance(await become(twin, purchase.reference, Delivered), Delivered)
    outcome = await become(twin, purchase.reference, Reversed)
    assert isinstance(outcome, Reversed) and outcome.amount == 14_2000
    news = await eventually(lambda: [one for one in twin.mailbox.news(twin.supplier, purchase.reference) if isinstance(one, Reversed)])
    assert news[0] == outcome, "the news counts once"


async def test_a_ranged_product_is_charged_by_its_face_value(twin: TwinWorld) -> None:
    purchase = twin.purchase(kind="ranged", face_value=50_5000)
    await twin.supplier.place(purchase)
    outcome = await become(twin, purchase.reference, Delivered)
    assert isinstance(outcome, Delivered) and outcome.cost == await twin.charged(purchase.reference) == 7_1710
    [row] = await twin.simulator.rows("deliveries", purchase.reference)
    assert row["face_value"] == 50_5000


async def test_what_cannot_be_said_is_not_sent(twin: TwinWorld) -> None:
    no_face = twin.purchase(kind="ranged", face_value=None)
    for purchase in (twin.purchase(units=2), twin.purchase("123"), twin.purchase(product_code="hf-100"), no_face):
        answer = await twin.supplier.place(purchase)
        assert isinstance(answer.outcome, NotSent) and answer.outcome.cause is Cause.UNSAYABLE


async def test_the_list_and_the_balance_are_the_vendors(twin: TwinWorld) -> None:
    supplier = twin.supplier
    assert supplier.products is not None and supplier.product is not None and supplier.balance is not None
    lines = {line.product_code: line for page in [page async for page in supplier.products()] for line in page}
    assert set(lines) == {product.code for product in dtone.TWIN.products}
    assert (lines["1234"].cost, lines["1234"].currency, lines["1236"].product_type) == (14_2000, "USD", "card")
    assert (lines["1235-CNY"].cost, lines["1235-CNY"].face_min, lines["1235-CNY"].face_max) == (1420, 10_0000, 500_0000)
    await twin.turn(price_factor=2)
    fresh = await supplier.product("1234")
    assert fresh is not None and fresh.cost == 28_4000
    assert await supplier.product("77") is None
    assert (await supplier.balance()).currency == "USD"


async def test_the_days_transactions_say_what_left_the_wallet(twin: TwinWorld) -> None:
    one, reversed_one = twin.purchase(), twin.purchase("10000000007")
    day = datetime.now(UTC).date()
    for purchase in (one, reversed_one):
        await twin.supplier.place(purchase)
    await become(twin, one.reference, Delivered)
    await become(twin, reversed_one.reference, Reversed)
    assert twin.supplier.statement is not None and twin.supplier.statement_terms is not None
    assert not twin.supplier.statement_terms.complete
    lines = [line async for page in twin.supplier.statement(day) for line in page]
    assert [(line.kind, line.amount) for line in lines if line.reference == one.reference] == [(LineKind.CHARGE, -14_2000)]
    theirs = [(line.kind, line.amount, line.external_id) for line in lines if line.reference == reversed_one.reference]
    assert [row[:2] for row in theirs] == [(LineKind.CHARGE, -14_2000), (LineKind.REVERSAL, 14_2000)]
    reversal = await become(twin, reversed_one.reference, Reversed)
    assert isinstance(reversal, Reversed) and theirs[1][2] == reversal.external_id
