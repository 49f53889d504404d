"""What could create, lose or spend money twice where the router, the copies and the couriers meet the database."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
import structlog
from tests.factories.counter import ALWAYS, Counter, shop

from kameng_api.catalog.hand import Rule, Scope, Stakes, gather
from kameng_api.catalog.rules import Channel, Offer, Snapshot
from kameng_api.jobs.orders import Buyer
from kameng_api.jobs.pulse import Pulse
from kameng_api.kit.db import Database, Tx, execute, fetch
from kameng_api.kit.ids import new_ulid
from kameng_api.kit.sets import Moved
from kameng_api.orders import queries
from kameng_api.orders.absorb import News
from kameng_api.orders.dispatch import Submission
from kameng_api.orders.route_facts import UnderWay
from kameng_api.orders.settle import Settlement, settle, settle_copies
from kameng_api.settings import Settings
from kameng_api.suppliers.port import Answer, Delivered, NotFound, Outcome
from kameng_api.suppliers.routing.facts import Answered, Circuit, Heard, Reading, Sent

YES = Delivered(1, cost=900_000, receipt="R")


@pytest.fixture
async def counter(database: Database, settings: Settings) -> Counter:
    return await Counter.open(database, settings)


def told(submission: Submission, outcome: Outcome = YES) -> Settlement:
    """What a worker hands in when the purchase's own answer has come."""
    return Settlement(News(*submission.attempt_key, "place", Answer(outcome, b"{}"), ALWAYS), submission.task, copy=submission.copy)


async def settle_quickly(counter: Counter, settlements: list[Settlement]) -> list[str]:
    async with counter.db.transaction() as tx:
        return await settle_copies(tx, counter.keyring, settlements)


async def until_somebody_waits(db: Database) -> None:
    for _ in range(400):
        async with db.transaction() as tx:
            if await fetch(tx, "SELECT 1 FROM pg_locks WHERE NOT granted"):
                return
        await asyncio.sleep(0.01)
    raise AssertionError("nobody waits for a lock")


# ---- copies against everybody else ---------------------------------------------------------------------------------


async def test_an_answer_on_a_copy_and_a_callback_do_not_wait_for_each_other(counter: Counter) -> None:
    """Everybody takes the order before its attempts; who takes them the other way round ends in a deadlock, a second later."""
    order, submission = await counter.buy()
    async with counter.db.transaction() as tx:
        await queries.lock_orders(tx, [order.key])
        quick = asyncio.create_task(settle_quickly(counter, [told(submission)]))
        await until_somebody_waits(counter.db)
        news = News(*submission.attempt_key, "callback", Answer(YES, b"{}"), ALWAYS)
        assert await settle(tx, counter.keyring, [Settlement(news)]) == ["succeeded"]
    with pytest.raises(Moved):
        await quick
    assert await counter.money() == (9_900, 0)
    await counter.holds()


async def test_a_lock_that_changes_nothing_leaves_the_copy_as_good_as_it_was(counter: Counter) -> None:
    order, submission = await counter.buy()
    async with counter.db.transaction() as tx:
        await queries.lock_orders(tx, [order.key])
        quick = asyncio.create_task(settle_quickly(counter, [told(submission)]))
        await until_somebody_waits(counter.db)
    assert await quick == ["succeeded"]
    await counter.holds()


async def test_the_copies_of_two_rounds_of_one_order_are_not_mixed_up(counter: Counter) -> None:
    """The first worker stood still, "not found" was proven, another channel was asked; then both answers are recorded in one commit."""
    order, first = await counter.buy()
    await counter.expire_leases()
    await counter.dispatch(worker="w2")
    for _ in range(2):
        await counter.told(first, NotFound(), "look_up")
    await counter.everything_due()
    [second] = await counter.dispatch()
    assert second.channel_id != first.channel_id
    both = [told(first), told(second, Delivered(1, cost=950_000))]
    with pytest.raises(Moved):
        await settle_quickly(counter, both)
    async with counter.db.transaction() as tx:
        await settle(tx, counter.keyring, both)
    assert await counter.incidents(order) == ["late_success"]
    assert ((await counter.now(order)).captured, await counter.money()) == (1_000_000, (9_900, 0))
    await counter.holds()


async def test_good_news_that_was_committed_without_our_knowing_counts_once(counter: Counter) -> None:
    order, submission = await counter.buy(quantity=2)
    settlement = told(submission, Delivered(1, cost=900_000))
    assert await settle_quickly(counter, [settlement]) == ["processing"]
    assert not settlement.is_quick
    async with counter.db.transaction() as tx:
        await settle(tx, counter.keyring, [settlement])  # as after a COMMIT whose answer was lost
    now = await counter.now(order)
    assert (now.delivered_units, now.committed_units) == (1, 1)
    [second] = await counter.dispatch()
    await counter.told(second, Delivered(1, cost=950_000))
    assert await counter.money() == (9_800, 0)
    await counter.holds()


# ---- a round that goes order by order ------------------------------------------------------------------------------


class CutAtCommit(Database):
    """Loses the connection where a COMMIT should be, once; nothing of that transaction stands."""

    def __init__(self, url: str, at: int) -> None:
        super().__init__(url, pool_size=4)
        self._left = at

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Tx]:
        self._left -= 1
        cut = self._left == 0
        async with super().transaction() as tx:
            yield tx
            if cut:
                raise ConnectionResetError("cut at COMMIT")


async def test_what_was_not_committed_is_not_sent(counter: Counter, settings: Settings) -> None:
    """Its attempt does not exist: it would be bought under a reference that nobody knows, and then once more."""
    orders = [await counter.order(f"PO-{n}") for n in range(3)]
    assert settings.database_url is not None
    cut = CutAtCommit(settings.database_url.get_secret_value(), at=3)  # the claim, the first order, the second
    nothing: Any = None
    buyer = Buyer(cut, counter.keyring, nothing, nothing, settings, "w1", Pulse(cut, None, nothing, nothing, "w1"))
    try:
        with structlog.testing.capture_logs():
            found = await buyer._dispatch_one_by_one(counter.around, 10)
    finally:
        await cut.close()
    written = {a.key for order in orders for a in await counter.attempts(order)}
    assert len(written) == 2
    assert {s.attempt_key for s in found.submissions} == written
    assert {s.attempt for s in found.sent} == {a.reference for o in orders for a in await counter.attempts(o)}
    assert [task.ref for task, _ in found.poisoned] == [o.order_id for o in orders if not await counter.attempts(o)]


# ---- one round's accounts ------------------------------------------------------------------------------------------


def only_a(**about: Any) -> Snapshot:
    """Channel `a` alone, with a stock or a wallet."""
    stock, wallet = about.get("stock"), about.get("wallet")
    found = shop(costs={"a": 900_000})
    return replace(
        found,
        offers={sku: (Offer("a", sku, "code", unit_cost=900_000, stock=stock),) for sku in found.offers},
        channels={"a": Channel("a", "a", "simulator", "test", concurrency=100, wallet_balance=wallet)},
    )


async def test_orders_that_are_not_alike_share_a_channel_s_stock(counter: Counter) -> None:
    for n in range(10):
        await counter.order(f"PO-{n}", quantity=1 + n % 2, confirm_duplicate=True)
    sent = await counter.dispatch(snapshot=only_a(stock=6))
    assert sum(s.purchase.units for s in sent) <= 6
    await counter.holds()


async def test_orders_that_are_not_alike_share_a_channel_s_wallet(counter: Counter) -> None:
    for n in range(10):
        await counter.order(f"PO-{n}", quantity=1 + n % 2, confirm_duplicate=True)
    sent = await counter.dispatch(snapshot=only_a(wallet=6 * 900_000))
    assert sum(s.purchase.max_cost for s in sent) <= 6 * 900_000
    await counter.holds()


async def test_orders_that_are_not_alike_share_a_channel_s_room(counter: Counter) -> None:
    for n in range(10):
        await counter.order(f"PO-{n}", quantity=1 + n % 2, confirm_duplicate=True)
    sent = await counter.dispatch(room={"a": 3, "b": 2})
    assert sorted(s.channel_id for s in sent) == ["a"] * 3 + ["b"] * 2
    await counter.holds()


# ---- what is only written down must stop nothing --------------------------------------------------------------------


async def test_a_clock_that_was_set_back_stops_no_order(counter: Counter) -> None:
    order = await counter.order()
    async with counter.db.transaction() as tx:
        await execute(tx, "UPDATE orders SET created_at = now() + interval '1 minute' WHERE order_id = $1", order.order_id)
    assert await counter.dispatch(room={"a": 0, "b": 0}) == []
    await counter.everything_due()
    assert await counter.dispatch(room={"a": 0, "b": 0}) == []
    await counter.everything_due()
    [submission] = await counter.dispatch()
    await counter.told(submission, YES)
    await counter.holds()


# ---- the end of an order -------------------------------------------------------------------------------------------


async def test_an_order_that_no_channel_is_mapped_to_ends_at_once(counter: Counter) -> None:
    order = await counter.order()
    assert await counter.dispatch(snapshot=replace(shop(), offers={})) == []
    now = await counter.now(order)
    assert (now.status, now.failure_code, await counter.money()) == ("failed", "all_channels_refused", (10_000, 0))
    await counter.holds()


async def test_a_held_order_fails_at_its_deadline_and_its_money_comes_back(counter: Counter) -> None:
    order = await counter.order()
    for _ in range(3):
        assert await counter.dispatch(snapshot=only_a(wallet=1)) == []
        await counter.everything_due()
    assert (await counter.now(order)).status == "accepted"
    async with counter.db.transaction() as tx:
        [row] = await fetch(tx, "UPDATE orders SET deadline_at = now() + interval '300 ms' WHERE order_id = $1 RETURNING deadline_at", order.order_id)
    assert await counter.dispatch(snapshot=only_a(wallet=1)) == []
    async with counter.db.transaction() as tx:
        [due] = await fetch(tx, "SELECT run_at FROM tasks")
    assert due["run_at"] <= row["deadline_at"]
    await asyncio.sleep(0.35)
    assert await counter.dispatch(snapshot=only_a(wallet=1)) == []
    assert ((await counter.now(order)).failure_code, await counter.money()) == ("deadline_passed", (10_000, 0))
    await counter.holds()


# ---- what is only an opinion must stop nothing ----------------------------------------------------------------------


class NotConnected:
    def of(self, _channel: Channel) -> Any:
        raise ConnectionError


@pytest.fixture
async def pulse(counter: Counter) -> AsyncIterator[Pulse]:
    catalog: Any = SimpleNamespace(current=counter.around.snapshot)
    connections: Any = NotConnected()
    found = Pulse(counter.db, None, catalog, connections, "w1")
    await found.start()
    yield found
    await found.stop()


class Broken:
    def __getattr__(self, name: str) -> Any:
        raise ZeroDivisionError(name)


async def test_health_that_cannot_be_read_stops_no_order(counter: Counter, pulse: Pulse) -> None:
    await counter.order()
    pulse.health = cast(Any, Broken())
    with structlog.testing.capture_logs() as logs:
        [submission] = await counter.dispatch(under_way=pulse.under_way)
        pulse.tell([Sent(submission.purchase.reference, submission.channel_id, "phone", time.time())])
    assert {entry["event"] for entry in logs} >= {"pulse.not_read"}
    await counter.told(submission, YES)
    await counter.holds()


async def test_a_clock_that_was_a_month_ahead_stops_no_order(counter: Counter, pulse: Pulse) -> None:
    """One moment a month ahead, told by a clock that was wrong: sums that halve in minutes overflow until the month is over."""
    await counter.order()
    month_s = 30 * 86_400
    with structlog.testing.capture_logs() as logs:
        for channel in "ab":
            pulse.tell([Sent("early", channel, "phone", time.time()), Sent("wrong", channel, "phone", time.time() + month_s)])
            pulse.tell([Answered("wrong", channel, "phone", time.time() + month_s, time.time() + month_s, Heard.GOOD)])
        pulse.health.tend(time.time() + month_s)
        [submission] = await counter.dispatch(under_way=pulse.under_way)
        pulse.tell([Sent(submission.purchase.reference, submission.channel_id, "phone", time.time())])
    assert [entry for entry in logs if entry["event"].startswith("pulse.")] == []
    await counter.told(submission, YES)
    await counter.holds()


async def test_a_channel_for_premium_orders_alone_is_found_well_again(counter: Counter) -> None:
    """An open circuit closes only when it is probed, and every order of this SKU asks not to be the probe."""
    dead = Reading(p=0.02, circuit=Circuit.OPEN, of_sku=True, probed_at=time.time() - 600, opened_at=time.time() - 600, demand=1.0)
    premium = gather([Rule(new_ulid(), Scope(sku="phone"), Stakes(premium=True), "vip", "test")])
    lonely = replace(only_a(), hand=premium)
    around: dict[str, Any] = {"snapshot": lonely, "under_way": lambda _now: UnderWay(read=lambda _channel, _sku: dead)}
    for n in range(3):
        await counter.order(f"PO-{n}")
    [probe] = await counter.dispatch(**around)
    assert probe.copy.attempt.probe
    assert (await counter.tasks()).count(("submit", "ready")) == 2
    await counter.told(probe, YES)
    await counter.holds()


async def test_a_premium_order_is_no_probe_while_another_channel_is_well(counter: Counter) -> None:
    dead = Reading(p=0.02, circuit=Circuit.OPEN, of_sku=True, probed_at=time.time() - 600, opened_at=time.time() - 600, demand=1.0)
    premium = gather([Rule(new_ulid(), Scope(sku="phone"), Stakes(premium=True), "vip", "test")])
    await counter.order()
    known = UnderWay(read=lambda channel, _sku: dead if channel == "a" else Reading())
    [submission] = await counter.dispatch(snapshot=replace(shop(), hand=premium), under_way=lambda _now: known)
    assert (submission.channel_id, submission.copy.attempt.probe) == ("b", False)


async def test_many_answers_and_many_callbacks_of_the_same_orders_do_not_deadlock(counter: Counter) -> None:
    for _ in range(3):
        for n in range(33):
            await counter.order(f"PO-{time.monotonic_ns()}-{n}")
        sent = sorted(await counter.dispatch(), key=lambda s: s.order_key, reverse=True)

        async def callbacks(sent: list[Submission] = sent) -> list[str]:
            async with counter.db.transaction() as tx:
                news = [News(*s.attempt_key, "callback", Answer(YES, b"{}"), ALWAYS) for s in sent]
                return await settle(tx, counter.keyring, [Settlement(n) for n in news])

        quick, told_by_callbacks = await asyncio.gather(settle_quickly(counter, [told(s) for s in sent]), callbacks(), return_exceptions=True)
        assert told_by_callbacks == ["succeeded"] * 33
        assert isinstance(quick, Moved) or quick == ["succeeded"] * 33
    await counter.holds()
