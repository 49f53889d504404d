"""Reloadly's own traps, over HTTP against its twin: tokens that expire, a check of numbers that is not atomic, a search without case, UTC-4."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.suppliers.twins import reloadly
from tests.suppliers.twins.world import TwinWorld

from kameng_api.suppliers.port import (
    Accepted,
    AnswerUnusable,
    Cause,
    Delivered,
    LineKind,
    NotFound,
    NotSent,
    Outcome,
    RefusalReason,
    Refused,
    Scope,
    Unknown,
)

NAME = "reloadly"


async def dashboard(twin: TwinWorld, count: str = "given", **change: Any) -> int:
    """Changes what a human sets there; how many tokens were given (or refused) so far."""
    body = {"client_id": twin.twin.app_key, "client_secret": twin.twin.secret, **change}
    async with twin.simulator.http.put(f"{twin.simulator.url}/dashboard", json=body) as answer:
        return int((await answer.json(content_type=None))[count])


async def look_up(twin: TwinWorld, reference: str, number: str | None = None) -> Outcome:
    assert twin.supplier.look_up is not None
    return (await twin.supplier.look_up(reference, number)).outcome


async def eventually(read: Callable[[], Awaitable[Any]]) -> Any:
    """What `read` says once it says something."""
    async with asyncio.timeout(10):
        while not (found := await read()):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    return found


async def test_an_order_is_found_by_their_number_and_by_ours_with_what_it_cost(twin: TwinWorld) -> None:
    purchase = twin.purchase()
    answer = await twin.supplier.place(purchase)
    assert isinstance(answer.outcome, Accepted)
    by_number = await look_up(twin, purchase.reference, answer.outcome.supplier_order_no)
    by_reference = await look_up(twin, purchase.reference)
    assert isinstance(by_reference, Delivered) and by_reference == by_number
    assert by_reference.cost == 14_2500 == await twin.charged(purchase.reference)


async def test_a_hundred_who_come_at_once_share_one_token(twin: TwinWorld) -> None:
    before = await dashboard(twin)
    supplier = twin.connect()
    assert supplier.balance is not None
    await asyncio.gather(*(supplier.balance() for _ in range(50)), *(supplier.place(twin.purchase()) for _ in range(50)))
    assert await dashboard(twin) == before + 1


async def test_a_token_is_used_as_long_as_they_say_and_no_longer(twin: TwinWorld) -> None:
    supplier = twin.connect()
    assert supplier.balance is not None
    try:
        before = await dashboard(twin, expires_in=1)
        await supplier.balance()
        await supplier.balance()
        assert await dashboard(twin) == before + 1
        await asyncio.sleep(0.8)  # a quarter of so short a life is left
        await supplier.balance()
        assert await dashboard(twin) == before + 2
    finally:
        await dashboard(twin, expires_in=3600)


async def test_a_purchase_whose_token_was_revoked_is_posted_once_and_not_sent(twin: TwinWorld) -> None:
    await twin.supplier.place(twin.purchase())
    await dashboard(twin, revoke=True)
    purchase = twin.purchase()
    answer = await twin.supplier.place(purchase)
    assert isinstance(answer.outcome, NotSent) and answer.http_status == 401
    assert await twin.delivered(purchase.reference) == 0
    assert await twin.simulator.rows("orders", purchase.reference) == []
    again = await twin.supplier.place(replace(purchase, reference=twin.purchase().reference))
    assert isinstance(again.outcome, Accepted), "the next attempt has a new token"


async def test_a_question_whose_token_was_revoked_is_asked_again_once(twin: TwinWorld) -> None:
    assert twin.supplier.balance is not None
    await twin.supplier.balance()
    before = await dashboard(twin, revoke=True)
    await asyncio.gather(*(twin.supplier.balance() for _ in range(10)))
    assert await dashboard(twin) == before + 1
    try:
        before = await dashboard(twin, revoke=True, expires_in=-1)
        with pytest.raises(AnswerUnusable):
            await twin.supplier.balance()
        assert await dashboard(twin) == before + 1, "a token that lives less than nothing is not asked for in a loop"
    finally:
        await dashboard(twin, expires_in=3600)
        await asyncio.sleep(1.1)


async def test_a_wrong_secret_is_not_asked_with_by_every_order(twin: TwinWorld) -> None:
    before = await dashboard(twin, "refused")
    stranger = twin.connect(client_secret="another-secret-of-enough-length")
    purchases = [twin.purchase() for _ in range(5)]
    for purchase in purchases:
        answer = await stranger.place(purchase)
        assert answer.outcome == NotSent("no token: INVALID_CREDENTIALS", Cause.UNREACHED) and answer.http_status is None
    assert await dashboard(twin, "refused") - before <= 2
    other = twin.connect(audience="https://giftcards.reloadly.com")
    assert (await other.place(twin.purchase())).outcome == NotSent("no token: INVALID_AUDIENCE", Cause.UNREACHED)


async def test_a_used_number_is_a_doubt_and_buys_nothing_more(twin: TwinWorld) -> None:
    purchase = twin.purchase()
    assert isinstance((await twin.supplier.place(purchase)).outcome, Accepted)
    again = await twin.supplier.place(purchase)
    assert isinstance(again.outcome, Unknown) and b"CUSTOM_IDENTIFIER_ALREADY_USED" in again.raw
    assert await twin.delivered(purchase.reference) == 1


async def test_parallel_calls_with_one_number_all_buy_and_are_shown_to_a_person(twin: TwinWorld) -> None:
    """Why nothing is promised about repetitions, and why the house places a reference once."""
    purchase = twin.purchase()
    await asyncio.gather(*(twin.supplier.place(purchase) for _ in range(5)))
    assert await twin.delivered(purchase.reference) == 5
    found = await look_up(twin, purchase.reference)
    assert isinstance(found, Unknown) and found.needs_person
    assert not twin.supplier.capabilities.idempotent_submit


async def test_the_search_does_not_see_case_and_we_do(twin: TwinWorld) -> None:
    ours = twin.purchase()
    other = replace(ours, reference=ours.reference.lower())
    await twin.supplier.place(other)
    assert isinstance(await look_up(twin, ours.reference), Unknown), "another number's order says nothing about ours"
    await twin.turn(async_rate=1, async_after_s=60)
    await twin.supplier.place(ours)
    assert isinstance(await look_up(twin, ours.reference), Accepted)
    assert isinstance(await look_up(twin, other.reference), Delivered)


async def test_a_window_without_the_wider_ends_would_miss_the_order(twin: TwinWorld) -> None:
    """Their filters read UTC-4, their rows say UTC."""
    purchase = twin.purchase()
    await twin.supplier.place(purchase)
    body = {"client_id": twin.twin.app_key, "client_secret": twin.twin.secret, "grant_type": "client_credentials", "audience": reloadly.AUDIENCE}
    async with twin.simulator.http.post(f"{twin.simulator.url}/oauth/token", json=body) as answer:
        token = (await answer.json(content_type=None))["access_token"]
    headers = {"authorization": f"Bearer {token}", "accept": "application/com.reloadly.topups-v1+json"}

    async def found(hours: float) -> int:
        now = datetime.now(UTC)
        narrow = {name: f"{now + sign * timedelta(hours=hours):%Y-%m-%d %H:%M:%S}" for name, sign in (("startDate", -1), ("endDate", 1))}
        params = {"customIdentifier": purchase.reference, **narrow}
        async with twin.simulator.http.get(f"{twin.simulator.url}/topups/reports/transactions", params=params, headers=headers) as answer:
            return int((await answer.json(content_type=None))["totalElements"])

    assert (await found(1), await found(36)) == (0, 1)
    assert isinstance(await look_up(twin, purchase.reference), Delivered)


async def test_a_number_that_was_never_sent_is_not_found_and_that_is_never_final(twin: TwinWorld) -> None:
    assert await look_up(twin, twin.purchase().reference) == NotFound()
    assert not twin.supplier.capabilities.not_found_is_final


@pytest.mark.parametrize(
    ("code", "scope", "reason"),
    [
        ("TARGET_NOT_EXIST", Scope.ORDER, RefusalReason.TARGET_INVALID),
        ("TARGET_NOT_ELIGIBLE", Scope.ORDER, RefusalReason.TARGET_NOT_ELIGIBLE),
        ("TARGET_BLACKLISTED", Scope.ORDER, RefusalReason.TARGET_NOT_ELIGIBLE),
        ("BALANCE_NOT_ENOUGH", Scope.CHANNEL, RefusalReason.WALLET_EMPTY),
        ("CHANNEL_MAINTENANCE", Scope.CHANNEL, RefusalReason.PRODUCT_OFF),
        ("PARAM_INVALID", Scope.CHANNEL, RefusalReason.SUPPLIER_REJECTED),
    ],
)
async def test_their_errors_are_a_no_with_a_reason(twin: TwinWorld, code: str, scope: Scope, reason: RefusalReason) -> None:
    await twin.turn(refuse_rate=1, refuse_code=code)
    purchase = twin.purchase()
    outcome = (await twin.supplier.place(purchase)).outcome
    assert isinstance(outcome, Refused) and (outcome.scope, outcome.reason) == (scope, reason)
    assert await twin.charged(purchase.reference) == 0
    assert await look_up(twin, purchase.reference) == NotFound(), "what was refused leaves no record"


async def test_a_500_with_a_code_of_theirs_says_nothing(twin: TwinWorld) -> None:
    await twin.turn(error_500_rate=1)
    purchase = twin.purchase()
    answer = await twin.supplier.place(purchase)
    assert isinstance(answer.outcome, Unknown) and answer.http_status == 500 and b"errorCode" in answer.raw
    assert isinstance(await look_up(twin, purchase.reference), Delivered)


async def test_an_order_under_way_has_no_transaction_yet_and_may_fail_with_a_reason(twin: TwinWorld) -> None:
    await twin.turn(late_failure_rate=1, late_failure_after_s=10, refuse_code="ORDER_REJECTED")
    purchase = twin.purchase()
    placed = (await twin.supplier.place(purchase)).outcome
    assert isinstance(placed, Accepted)
    assert await look_up(twin, purchase.reference, placed.supplier_order_no) == placed
    await asyncio.sleep(0.8)
    failed = await look_up(twin, purchase.reference, placed.supplier_order_no)
    assert isinstance(failed, Refused) and failed.scope is Scope.CHANNEL
    assert await twin.charged(purchase.reference) == 0


async def test_too_many_requests_are_not_sent(twin: TwinWorld) -> None:
    assert twin.supplier.balance is not None
    await twin.supplier.balance()
    await twin.turn(rate_limit_per_s=1)
    outcomes = [answer.outcome for answer in await asyncio.gather(*(twin.supplier.place(twin.purchase()) for _ in range(6)))]
    assert any(isinstance(outcome, NotSent) and outcome.cause is Cause.BUSY for outcome in outcomes)


async def test_a_webhook_is_signed_over_body_and_time_and_only_a_hint(twin: TwinWorld) -> None:
    purchase = twin.purchase()
    await twin.supplier.place(purchase)

    async def news() -> list[Outcome]:
        return twin.mailbox.news(twin.supplier, purchase.reference)

    [told] = await eventually(news)
    assert isinstance(told, Delivered) and not twin.supplier.capabilities.trusted_callback
    stranger = twin.connect(webhook_secret="another-webhook-secret")
    assert twin.mailbox.read(stranger) == []


async def test_the_list_and_the_statement_are_the_vendors(twin: TwinWorld) -> None:
    supplier, purchase, ranged = twin.supplier, twin.purchase(), twin.purchase(kind="ranged", face_value=33_3300)
    assert supplier.products is not None and supplier.product is not None and supplier.statement is not None
    lines = {line.product_code: line for page in [page async for page in supplier.products()] for line in page}
    assert set(lines) == {product.code for product in reloadly.TWIN.products}
    assert (lines["173-CN-15"].cost, lines["173-CN-15"].face_value, lines["174-CN"].cost) == (14_2500, 15_0000, 9700)
    assert await supplier.product("173-CN-16") is None and await supplier.product("999-CN") is None and await supplier.product("x") is None
    for one in (purchase, ranged):
        await supplier.place(one)
    rows = [line async for page in supplier.statement(datetime.now(UTC).date()) for line in page]
    ours = {line.reference: line for line in rows if line.reference in (purchase.reference, ranged.reference)}
    assert {line.kind for line in ours.values()} == {LineKind.CHARGE}
    for one in (purchase, ranged):
        assert -ours[one.reference].amount == await twin.charged(one.reference)
    assert len({line.line_id for line in rows}) == len(rows)


async def test_what_cannot_be_said_is_not_sent(twin: TwinWorld) -> None:
    no_face = twin.purchase(kind="ranged", face_value=None)
    for purchase in (twin.purchase(units=2), twin.purchase("12x"), twin.purchase(product_code="hf-100"), no_face):
        answer = await twin.supplier.place(purchase)
        assert isinstance(answer.outcome, NotSent) and answer.outcome.cause is Cause.UNSAYABLE
