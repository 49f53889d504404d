"""The router in the real pipeline: real suppliers fail in their ways, and orders go where they are delivered, once each."""

import asyncio
import time
from collections import Counter as Tally
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import pytest
import structlog
from pydantic import SecretStr
from redis.asyncio import Redis
from tests.factories.counter import Counter
from tests.factories.shop import eventually, open_desk
from tests.factories.workshop import judge, run_until_quiet
from tests.simulator.conftest import Simulator

from kameng_api.catalog import actions as catalog
from kameng_api.catalog.rules import Offer
from kameng_api.demo.processes import free_port
from kameng_api.jobs.desk import Desk
from kameng_api.jobs.pulse import Pulse
from kameng_api.jobs.upkeep import refresh_wallets
from kameng_api.kit.clock import utc_now
from kameng_api.kit.db import execute, fetch
from kameng_api.kit.money import parse_amount
from kameng_api.orders.rules import Order
from kameng_api.settings import Settings
from kameng_api.suppliers.routing.facts import Circuit, Reading

SKU = "mobile-cn-100"
QB = {"sku": "qb", "target": "a-test-account", "fields": {"face_value": "10"}}
FAILS_OVER = "10000000010"


@pytest.fixture(autouse=True)
def quiet() -> Any:
    """What goes wrong on purpose is logged nowhere."""
    with structlog.testing.capture_logs():
        yield


# ---- workers, orders, and what became of them ----------------------------------------------------------------------


@asynccontextmanager
async def working(settings: Settings, count: int = 1) -> AsyncIterator[list[Desk]]:
    """Desks that buy and ask by themselves."""
    stopping = asyncio.Event()
    async with AsyncExitStack() as stack:
        desks = [await stack.enter_async_context(open_desk(settings)) for _ in range(count)]
        loops = [asyncio.create_task(_work(desk, stopping)) for desk in desks]
        try:
            yield desks
        finally:
            stopping.set()
            await asyncio.gather(*loops)


async def _work(desk: Desk, stopping: asyncio.Event) -> None:
    while not stopping.is_set():
        await desk.buyer.submit(200)
        await desk.buyer.look_up(200)
        with suppress(TimeoutError):
            async with asyncio.timeout(0.02):
                await stopping.wait()


def pulse_of(desk: Desk) -> Pulse:
    return desk.buyer.pulse


def read(desk: Desk, channel: str = "sim-a", sku: str = SKU) -> Reading:
    return pulse_of(desk).under_way(utc_now()).read(channel, sku)


def is_open(desk: Desk, channel: str = "sim-a", sku: str = SKU) -> bool:
    return read(desk, channel, sku).circuit is Circuit.OPEN


_placed = 0


async def order_one(counter: Counter, **more: Any) -> Order:
    global _placed  # noqa: PLW0603  numbers of one file
    _placed += 1
    return await counter.order(f"PO-live-{_placed}", **{"sku": SKU} | more)


async def stream(counter: Counter, count: int, every_s: float = 0.1, **more: Any) -> list[Order]:
    """Orders one after the other, as merchants send them."""
    orders = []
    for _ in range(count):
        orders.append(await order_one(counter, **more))
        await asyncio.sleep(every_s)
    return orders


async def all_final(counter: Counter, orders: Sequence[Order], within_s: float = 20) -> None:
    async def look() -> bool:
        async with counter.db.transaction() as tx:
            rows = await fetch(
                tx,
                "SELECT count(*) AS n FROM orders WHERE order_id = ANY ($1::uuid[]) AND status IN ('accepted', 'processing')",
                [o.order_id for o in orders],
            )
        return bool(rows[0]["n"] == 0)

    await eventually(look, within_s=within_s)


async def sent_to(counter: Counter, orders: Sequence[Order], channel: str = "sim-a", *, probes: bool = False) -> int:
    """Attempts there for these orders; probes are counted apart."""
    async with counter.db.transaction() as tx:
        rows = await fetch(
            tx,
            "SELECT count(*) AS n FROM attempts WHERE order_id = ANY ($1::uuid[]) AND channel_id = $2 AND probe = $3",
            [o.order_id for o in orders], channel, probes,
        )  # fmt: skip
    return int(rows[0]["n"])


async def outcomes(counter: Counter, orders: Sequence[Order]) -> Tally[tuple[str, str, str | None]]:
    """(channel, state, refusal) → how many attempts."""
    async with counter.db.transaction() as tx:
        rows = await fetch(
            tx, "SELECT channel_id, state, refusal FROM attempts WHERE order_id = ANY ($1::uuid[])", [o.order_id for o in orders]
        )
    return Tally((r["channel_id"], r["state"], r["refusal"]) for r in rows)


async def transitions(counter: Counter) -> list[tuple[str, str | None, str]]:
    async with counter.db.transaction() as tx:
        rows = await fetch(tx, "SELECT channel_id, sku, state FROM channel_transitions ORDER BY at")
    return [(r["channel_id"], r["sku"], r["state"]) for r in rows]


async def facts_now(*desks: Desk) -> None:
    """What each process would know a second later: the catalogue, gates, wallets."""
    for desk in desks:
        await desk.catalog.refresh()
        await pulse_of(desk)._facts.refresh()


async def until_open(counter: Counter, *desks: Desk, within_s: float = 15) -> list[Order]:
    """Orders until every desk sees the circuit of sim-a open."""
    orders: list[Order] = []
    give_up_at = time.monotonic() + within_s
    while not all(is_open(desk) for desk in desks):
        assert time.monotonic() < give_up_at, [read(desk) for desk in desks]
        orders += await stream(counter, 1)
    return orders


# ---- an outage -----------------------------------------------------------------------------------------------------


@pytest.mark.timeout(120)
async def test_a_channel_that_refuses_everything_is_left_probed_and_taken_back(
    counter: Counter, settings: Settings, simulator: Simulator
) -> None:
    await simulator.turn("sim-a", refuse_rate=1)
    async with working(settings, 2) as desks:
        ill = await until_open(counter, *desks)
        assert await sent_to(counter, ill) <= 25
        later = await stream(counter, 10)
        await all_final(counter, ill + later)
        assert await sent_to(counter, later) <= 2  # on the way while the second desk still learnt of it
        assert (await outcomes(counter, later))["sim-b", "delivered", None] == len(later)

        await simulator.turn("sim-a")
        give_up_at = time.monotonic() + 30
        again: list[Order] = []
        while any(is_open(desk) for desk in desks):
            assert time.monotonic() < give_up_at
            again += await stream(counter, 1, 0.2)
        assert 1 <= await sent_to(counter, again, probes=True) <= 10
        well = await stream(counter, 5)
        await all_final(counter, again + well)
        assert (await outcomes(counter, well))["sim-a", "delivered", None] >= 4
        for desk in desks:
            await pulse_of(desk)._keep()
    assert await transitions(counter) == [("sim-a", None, "open"), ("sim-a", None, "closed")]
    await judge(counter, simulator, ill + later + again + well)


@pytest.mark.timeout(120)
async def test_redis_lost_in_an_outage_brings_no_orders_back_to_the_dead(
    counter: Counter, settings: Settings, simulator: Simulator, redis: "Redis[bytes]"
) -> None:
    await simulator.turn("sim-a", refuse_rate=1)
    async with working(settings, 2) as desks:
        before = await until_open(counter, *desks)
        await redis.flushall()
        flushed = await stream(counter, 15)
        await all_final(counter, before + flushed)
    assert await sent_to(counter, flushed) + await sent_to(counter, flushed, probes=True) <= 10
    async with counter.db.transaction() as tx:
        await execute(tx, "DELETE FROM route_snapshots")
    lonely = settings.model_copy(update={"redis_url": SecretStr(f"redis://127.0.0.1:{free_port()}/0")})
    async with working(lonely, 2):  # nobody remembers, and they cannot talk to each other
        rebuilt = await stream(counter, 15)
        await all_final(counter, rebuilt)
    assert await sent_to(counter, rebuilt) + await sent_to(counter, rebuilt, probes=True) <= 10
    await judge(counter, simulator, before + flushed + rebuilt)


@pytest.mark.timeout(120)
async def test_a_fault_of_one_product_leaves_the_others_where_they_are(counter: Counter, settings: Settings, simulator: Simulator) -> None:
    async with counter.db.transaction() as tx:
        await catalog.set_offer(tx, Offer("sim-b", "qb", "qb", rate_ppm=978_000))  # like everything at sim-b, a little dearer
    await simulator.turn("sim-a", products={"hf-100": {"refuse_rate": 1}})
    async with working(settings) as [desk]:
        phones: list[Order] = []
        accounts: list[Order] = []
        give_up_at = time.monotonic() + 20
        while not is_open(desk):
            assert time.monotonic() < give_up_at, read(desk)
            accounts += await stream(counter, 2, 0.03, **QB)
            phones += await stream(counter, 1, 0.06)
        assert read(desk).of_sku and not is_open(desk, sku="qb")
        later = await stream(counter, 8), await stream(counter, 8, **QB)
        await all_final(counter, [*phones, *accounts, *later[0], *later[1]])
        await pulse_of(desk)._keep()
    assert (await outcomes(counter, later[0]))["sim-b", "delivered", None] == 8
    assert await outcomes(counter, accounts + later[1]) == {("sim-a", "delivered", None): len(accounts) + 8}
    assert await transitions(counter) == [("sim-a", SKU, "open")]
    await judge(counter, simulator, [*phones, *accounts, *later[0], *later[1]])


# ---- silence -------------------------------------------------------------------------------------------------------


async def _a_past(counter: Counter, settings: Settings) -> list[Order]:
    """Thirty deliveries, a minute ago: enough to know how long they take."""
    async with working(settings):
        orders = await stream(counter, 30, 0.02)
        await all_final(counter, orders)
    async with counter.db.transaction() as tx:
        await execute(tx, "UPDATE attempts SET sent_at = sent_at - interval '1 minute', settled_at = settled_at - interval '1 minute'")
        await execute(tx, "DELETE FROM route_snapshots")
    return orders


@pytest.mark.timeout(120)
async def test_a_black_hole_is_left_before_it_has_answered_anything(
    counter: Counter, settings: Settings, simulator: Simulator, redis: "Redis[bytes]"
) -> None:
    past = await _a_past(counter, settings)
    await redis.flushall()
    await simulator.turn("sim-a", outage="silent")
    async with working(settings) as [desk]:
        assert read(desk).latency_s < 3
        begun = time.monotonic()
        ill = await until_open(counter, desk, within_s=4.5)
        assert time.monotonic() - begun < 5, "a call to a silent supplier ends after five seconds: nothing can have been heard by then"
        swallowed = await sent_to(counter, ill)
        assert swallowed <= 40
        later = await stream(counter, 10)
        await all_final(counter, later)
        assert await sent_to(counter, later) == 0

        async def in_doubt() -> bool:
            return [(await counter.now(o)).substatus for o in ill].count("outcome_unknown") >= swallowed

        await eventually(in_doubt, within_s=15)
        for order in ill:  # doubt is asked about, never bought again elsewhere
            if (await counter.now(order)).substatus == "outcome_unknown":
                assert [(a.channel_id, a.state) for a in await counter.attempts(order)] == [("sim-a", "unknown")]
    await simulator.turn("sim-a")
    async with open_desk(settings) as desk:
        await run_until_quiet(desk, counter, ill)
    await judge(counter, simulator, past + ill + later)


@pytest.mark.timeout(120)
async def test_failures_that_are_known_only_later_count_for_what_they_are(
    counter: Counter, settings: Settings, simulator: Simulator
) -> None:
    await simulator.turn("sim-a", late_failure_rate=1, late_failure_after_s=20)  # a second of ours
    async with working(settings) as [desk]:
        ill = await stream(counter, 15, 0.02)

        async def frozen() -> bool:
            return (await outcomes(counter, ill))["sim-a", "accepted", None] == len(ill)

        await eventually(frozen)
        assert not is_open(desk)  # taken is no verdict
        assert (await outcomes(counter, ill)).total() == len(ill)  # and nobody else was asked
        await asyncio.sleep(1.2)
        await counter.everything_due()
        await all_final(counter, ill)
        await eventually(lambda: _as_future(is_open(desk)))
        later = await stream(counter, 8)
        await all_final(counter, later)
    assert await outcomes(counter, ill) == {("sim-a", "refused", "supplier_rejected"): 15, ("sim-b", "delivered", None): 15}
    assert (await outcomes(counter, later))["sim-b", "delivered", None] == len(later)
    await judge(counter, simulator, ill + later)


async def _as_future(found: object) -> object:
    return found


# ---- gates ---------------------------------------------------------------------------------------------------------


async def test_a_price_that_has_risen_is_paid_by_nobody(counter: Counter, settings: Settings, simulator: Simulator) -> None:
    await simulator.turn("sim-a", price_factor=1.05)
    async with working(settings) as [desk]:
        first = await stream(counter, 3, 0.02)
        await all_final(counter, first)
        await facts_now(desk)
        later = await stream(counter, 10, 0.05)
        await all_final(counter, later)
        assert await sent_to(counter, later) == 0
        assert not is_open(desk) and read(desk).failures == 0  # a price is no illness

        async with counter.db.transaction() as tx:  # somebody has looked: it costs what it did
            await catalog.set_offer(tx, Offer("sim-a", SKU, "hf-100", unit_cost=parse_amount("97.5")))
        await simulator.turn("sim-a")
        await facts_now(desk)
        again = await stream(counter, 5, 0.05)
        await all_final(counter, again)
        assert await sent_to(counter, again) == 5

        for name in ("sim-a", "sim-b"):
            await simulator.turn(name, price_factor=1.05)
        lost = await stream(counter, 2)
        await all_final(counter, lost)
    assert [(now := await counter.now(o)).status + " " + str(now.failure_code) for o in lost] == ["failed price_exceeded"] * 2
    async with counter.db.transaction() as tx:
        assert await fetch(tx, "SELECT 1 FROM attempts WHERE cost > price OR actual_cost > price") == []
    await judge(counter, simulator, first + later + again)
    await judge(counter, simulator, lost, statuses=("failed",))


async def test_an_empty_wallet_shuts_the_channel_until_it_is_filled(counter: Counter, settings: Settings, simulator: Simulator) -> None:
    taken = await simulator.call("POST", "suppliers/sim-a/wallet", {"take": True})
    async with working(settings) as [desk]:
        first = await stream(counter, 2, 0.02)
        await all_final(counter, first)
        await facts_now(desk)
        later = await stream(counter, 5, 0.05), await stream(counter, 5, 0.05, **QB)
        await all_final(counter, later[0] + later[1])
        assert await sent_to(counter, later[0] + later[1]) == 0
        assert not is_open(desk)

        await simulator.call("POST", "suppliers/sim-a/wallet", {"amount": taken["before"]})
        assert await refresh_wallets(desk) == 2
        await facts_now(desk)
        again = await stream(counter, 5, 0.05)
        await all_final(counter, again)
        assert await sent_to(counter, again) == 5
    assert (await outcomes(counter, first))["sim-a", "refused", "wallet_empty"] >= 1
    await judge(counter, simulator, [*first, *later[0], *later[1], *again])


# ---- limits --------------------------------------------------------------------------------------------------------


@pytest.mark.timeout(120)
async def test_more_orders_than_suppliers_take_wait_and_are_all_delivered(
    counter: Counter, settings: Settings, simulator: Simulator
) -> None:
    for name, capacity in (("sim-a", 4), ("sim-b", 3)):
        await simulator.turn(name, capacity=capacity, latency={"kind": "fixed", "ms": 100})
    async with working(settings) as [desk]:
        orders = await stream(counter, 60, 0.0)
        await all_final(counter, orders, within_s=60)
        assert not is_open(desk) and not is_open(desk, "sim-b")  # busy is no illness
    found = await outcomes(counter, orders)
    assert found["sim-a", "delivered", None] > 5 and found["sim-b", "delivered", None] > 5
    assert {state for _, state, _ in found} <= {"delivered", "not_sent"}
    burnt = sum(count for (_, state, _), count in found.items() if state == "not_sent")
    assert burnt <= 6 * len(orders), found
    for order in orders:
        now = await counter.now(order)
        assert now.completed_at is not None and now.completed_at < now.deadline_at
    await judge(counter, simulator, orders)


# ---- magic targets -------------------------------------------------------------------------------------------------


async def test_the_target_that_fails_over_does_so_whatever_is_known(counter: Counter, settings: Settings, simulator: Simulator) -> None:
    async with working(settings) as [desk]:
        magic = await stream(counter, 20, 0.02, target=FAILS_OVER)
        await all_final(counter, magic)
        assert read(desk).n == 0 and read(desk, "sim-b").n == 0 and not is_open(desk)
        await pulse_of(desk)._look()
        assert read(desk).n == 0 and read(desk, "sim-b").n == 0  # nor from the rows

        await simulator.turn("sim-a", refuse_rate=1)
        ill = await until_open(counter, desk)
        more = await stream(counter, 3, 0.02, target=FAILS_OVER)
        await all_final(counter, ill + more)
    for order in magic + more:
        assert [(a.channel_id, a.state) for a in await counter.attempts(order)] == [("sim-a", "refused"), ("sim-b", "delivered")]
    await judge(counter, simulator, magic + ill + more)


async def test_every_choice_left_a_row(counter: Counter, settings: Settings, simulator: Simulator) -> None:
    await simulator.turn("sim-a", refuse_rate=0.5, seed=3)
    async with working(settings):
        orders = await stream(counter, 10, 0.02)
        await all_final(counter, orders)
    async with counter.db.transaction() as tx:
        rows = await fetch(tx, "SELECT order_id, action, channel_id, inputs_id FROM route_decisions WHERE action IN ('dispatch', 'probe')")
        inputs = {r["inputs_id"] for r in await fetch(tx, "SELECT inputs_id FROM route_inputs")}
    sent = [(o.order_id, a.channel_id) for o in orders for a in await counter.attempts(o)]
    assert sorted((r["order_id"], r["channel_id"]) for r in rows) == sorted(sent)
    assert {r["inputs_id"] for r in rows} <= inputs
