"""Each beat killed in turn: every order finishes once, and is never bought twice by the supplier's own log."""

import asyncio
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import structlog
from tests.conftest import _owner_connection
from tests.factories.counter import ALWAYS, Counter
from tests.factories.shop import eventually, open_desk
from tests.factories.workshop import judge, log_of, order_many, run_until_quiet, settled, stop, worker_process
from tests.simulator.conftest import Simulator

from kameng_api.jobs import orders as beats
from kameng_api.jobs.desk import Desk
from kameng_api.kit.db import Database, execute, fetch
from kameng_api.orders.absorb import News
from kameng_api.orders.settle import Settlement
from kameng_api.settings import Settings
from kameng_api.suppliers.port import Answer, Code, Delivered
from kameng_api.tasks.rules import BUDGET


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """What goes wrong on purpose is logged nowhere."""
    with structlog.testing.capture_logs():
        yield


async def _wait_for_deliveries(simulator: Simulator, before: int, n: int) -> None:
    async def look() -> bool:
        return len(await log_of(simulator, "deliveries")) >= before + n

    await eventually(look, within_s=20)


# ---- killed --------------------------------------------------------------------------------------------------------


async def test_a_worker_that_dies_after_its_claim_has_bought_nothing(counter: Counter, desk: Desk, simulator: Simulator) -> None:
    orders = await order_many(counter, 5)
    lost = await counter.dispatch(worker="dead")  # committed, and never called
    assert len(lost) == 5
    await run_until_quiet(desk, counter, orders)
    await judge(counter, simulator, orders)
    for order in orders:
        assert [(a.state, a.refusal) for a in await counter.attempts(order)] == [("refused", "not_found"), ("delivered", None)]


@pytest.mark.timeout(180)
async def test_workers_killed_again_and_again_buy_every_order_once(
    counter: Counter, settings: Settings, simulator: Simulator, tmp_path: Path
) -> None:
    orders = await order_many(counter, 100)
    await simulator.turn("sim-a", latency={"kind": "fixed", "ms": 800})
    for _ in range(3):
        before = len(await log_of(simulator, "deliveries"))
        async with worker_process(settings, tmp_path / "log", KAMENG_SUPPLIER_CONCURRENCY="10") as worker:
            await _wait_for_deliveries(simulator, before, 1)  # the supplier has delivered; its answer is still on the way
            assert await stop(worker, signal.SIGKILL) == -signal.SIGKILL
        await counter.expire_leases()
        await counter.everything_due()
    async with counter.db.transaction() as tx:
        [row] = await fetch(tx, "SELECT count(*) AS n FROM attempts WHERE state = 'submitting'")
        assert row["n"] > 0  # else nothing was killed in the middle
    await simulator.turn("sim-a")
    async with open_desk(settings) as desk:
        await run_until_quiet(desk, counter, orders)
    await judge(counter, simulator, orders)


async def test_an_answer_that_cannot_be_recorded_at_once_is_recorded_later(counter: Counter, desk: Desk, simulator: Simulator) -> None:
    orders = await order_many(counter, 10)
    await simulator.turn("sim-a", latency={"kind": "fixed", "ms": 300})
    assert await desk.buyer.submit(50) == 10
    await _cut_all_connections(counter.db, desk, for_s=0.9)
    await settled(desk)
    await judge(counter, simulator, orders)
    for order in orders:
        assert [a.look_ups for a in await counter.attempts(order)] == [0]


async def test_an_answer_that_was_never_recorded_is_asked_for_again(
    counter: Counter, desk: Desk, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    orders = await order_many(counter, 5)
    await simulator.turn("sim-a", latency={"kind": "fixed", "ms": 300})
    monkeypatch.setattr(beats, "_RECORD_TRIES", 1)
    assert await desk.buyer.submit(50) == 5
    await _cut_all_connections(counter.db, desk, for_s=1.2)
    await settled(desk)
    assert {(await counter.now(o)).status for o in orders} == {"processing"}
    await simulator.turn("sim-a")
    await run_until_quiet(desk, counter, orders)
    await judge(counter, simulator, orders)


async def _cut_all_connections(db: Database, desk: Desk, *, for_s: float) -> None:
    """PostgreSQL as after a crash of the network: whatever connects is cut, and so is what tries again."""
    url = db.engine.url.render_as_string(hide_password=False)
    role = db.engine.url.username
    owner = await _owner_connection(url)
    end = time.monotonic() + for_s
    while time.monotonic() < end:
        await owner.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1 AND pid <> pg_backend_pid()", role)
        await asyncio.sleep(0.003)
    await owner.close()


# ---- late, slow, frozen --------------------------------------------------------------------------------------------


async def test_a_worker_that_stood_still_sends_nothing_under_a_lease_that_ends(
    counter: Counter, settings: Settings, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    [order] = await order_many(counter, 1)
    hasty = settings.model_copy(update={"supplier_timeout_s": 1.0, "lease_s": 4})
    async with open_desk(hasty) as desk:
        connect = desk.connections.of

        def freeze(channel: Any) -> Any:
            time.sleep(1.2)  # the whole process, between the claim's commit and the call
            monkeypatch.setattr(desk.connections, "of", connect)
            return connect(channel)

        monkeypatch.setattr(desk.connections, "of", freeze)
        assert await desk.buyer.submit(1) == 1
        await settled(desk)
        [attempt] = await counter.attempts(order)
        assert (attempt.state, attempt.trouble) == ("not_sent", "too late to be sent under this lease")
        assert await simulator.rows("log", attempt.reference) == []
        await run_until_quiet(desk, counter, [order])
    await judge(counter, simulator, [order])


async def test_a_worker_frozen_on_the_way_to_the_supplier_sends_nothing_under_a_lease_that_ends(
    counter: Counter, settings: Settings, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    [order] = await order_many(counter, 1)
    hasty = settings.model_copy(update={"supplier_timeout_s": 1.0, "lease_s": 4})
    async with open_desk(hasty) as desk:
        connect = aiohttp.TCPConnector.connect
        frozen: list[None] = []

        async def freeze(self: aiohttp.TCPConnector, *args: Any, **kwargs: Any) -> Any:
            connection = await connect(self, *args, **kwargs)
            if not frozen:
                frozen.append(None)
                time.sleep(2.8)  # noqa: ASYNC251 - past the look at the lease, and the connection is there: only the write is left
            return connection

        monkeypatch.setattr(aiohttp.TCPConnector, "connect", freeze)
        assert await desk.buyer.submit(1) == 1
        await settled(desk)
        [attempt] = await counter.attempts(order)
        assert (attempt.state, attempt.trouble) == ("not_sent", "too late to be sent under this lease")
        assert await simulator.rows("log", attempt.reference) == []
        await run_until_quiet(desk, counter, [order])
    await judge(counter, simulator, [order])


async def test_an_answer_after_the_lease_ran_out_is_still_a_fact(counter: Counter, desk: Desk, settings: Settings, simulator: Simulator) -> None:
    orders = await order_many(counter, 5)
    await simulator.turn("sim-a", latency={"kind": "fixed", "ms": 700})
    assert await desk.buyer.submit(50) == 5
    await asyncio.sleep(0.2)
    await counter.expire_leases()
    async with open_desk(settings) as other:
        assert await other.buyer.submit(50) == 5  # takes the tasks over, finds attempts under way, asks
        assert {(await counter.now(o)).substatus for o in orders} == {"outcome_unknown"}
        await settled(desk)
    await judge(counter, simulator, orders)


async def test_two_workers_share_the_work_and_buy_nothing_twice(counter: Counter, desk: Desk, settings: Settings, simulator: Simulator) -> None:
    orders = await order_many(counter, 60)
    async with open_desk(settings) as other:
        for _ in range(10):
            await asyncio.gather(*(d.buyer.submit(7) for d in (desk, other, desk, other)))
            await asyncio.gather(settled(desk), settled(other))
        await run_until_quiet(desk, counter, orders)
    await judge(counter, simulator, orders)


# ---- suppliers that behave badly -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("knobs", "statuses"),
    [
        ({"error_500_rate": 0.5, "refuse_rate": 0.3}, ("succeeded",)),
        ({"reset_rate": 0.5, "reset_point": "after"}, ("succeeded",)),
        ({"reset_rate": 0.5, "reset_point": "before"}, ("succeeded",)),
        ({"error_500_rate": 0.6, "not_found_for_s": 2}, ("succeeded",)),
        ({"partial_rate": 0.6, "error_500_rate": 0.3}, ("succeeded",)),
        ({"rate_limit_per_s": 3}, ("succeeded",)),
        ({"refuse_rate": 1.0, "refuse_code": "TARGET_BLACKLISTED"}, ("failed",)),
        ({"late_success_rate": 0.0, "async_rate": 1.0, "async_after_s": 0}, ("succeeded",)),
    ],
    ids=lambda v: "+".join(v) if isinstance(v, dict) else "",
)
async def test_whatever_the_first_supplier_does_each_unit_is_delivered_once(
    counter: Counter, desk: Desk, simulator: Simulator, knobs: dict[str, Any], statuses: tuple[str, ...]
) -> None:
    await simulator.turn("sim-a", seed=7, **knobs)
    orders = await order_many(counter, 12, quantity=2)
    await run_until_quiet(desk, counter, orders)
    await judge(counter, simulator, orders, statuses=statuses)


async def test_during_an_outage_money_stays_held_and_after_it_every_order_ends(counter: Counter, desk: Desk, simulator: Simulator) -> None:
    await simulator.turn("sim-a", outage="http_503")
    orders = await order_many(counter, 5)
    await desk.buyer.submit(50)
    for _ in range(4):
        await settled(desk)
        await counter.everything_due()
        await desk.buyer.look_up(50)
        await desk.buyer.submit(50)
    await settled(desk)
    assert {(await counter.now(o)).substatus for o in orders} == {"outcome_unknown"}
    assert all([len(await counter.attempts(o)) == 1 for o in orders])
    await counter.holds()
    await simulator.turn("sim-a")
    await run_until_quiet(desk, counter, orders)
    await judge(counter, simulator, orders)


async def test_a_supplier_that_contradicts_itself_leaves_an_open_break(counter: Counter, desk: Desk, simulator: Simulator) -> None:
    await simulator.turn("sim-a", contradiction_rate=1.0, contradiction_kind="failed_then_success", contradiction_after_s=0, callback_copies=0)
    [order] = await order_many(counter, 1)
    await run_until_quiet(desk, counter, [order])
    [attempt] = await counter.attempts(order)
    assert (await counter.now(order)).status == "failed"
    await counter.told(attempt, Delivered(1, supplier_order_no="S-1"), "callback")  # what its callback would say
    assert await counter.incidents(order) == ["late_success"]
    await counter.holds()


async def test_a_channel_that_cannot_be_connected_buys_nothing_and_stops_nobody(counter: Counter, settings: Settings, simulator: Simulator) -> None:
    async with counter.db.transaction() as tx:
        await execute(tx, "UPDATE channels SET settings_sealed = 'x' WHERE channel_id = 'sim-a'")
    orders = await order_many(counter, 3)
    async with open_desk(settings) as desk:
        await run_until_quiet(desk, counter, orders)
    await judge(counter, simulator, orders)
    for order in orders:
        assert [(a.channel_id, a.state) for a in await counter.attempts(order)] == [("sim-a", "not_sent"), ("sim-b", "delivered")]


async def test_a_code_sold_before_goes_to_a_person_and_the_others_of_its_commit_are_settled(counter: Counter, desk: Desk) -> None:
    await order_many(counter, 3, sku="test-card", target=None)
    calls = await counter.dispatch()
    sold, twin, fine = calls
    same = (Code("TEST-SAME", "1"),)
    await counter.told(sold, Delivered(1, codes=same))
    told = [(twin, same), (fine, (Code("TEST-OTHER"),))]
    news = [Settlement(News(*s.attempt_key, "place", Answer(Delivered(1, codes=c)), ALWAYS), s.task) for s, c in told]
    await asyncio.gather(*(desk.buyer.tell("sim-a", n) for n in news))
    async with counter.db.transaction() as tx:
        rows = await fetch(tx, "SELECT order_id, status, substatus FROM orders")
    state = {r["order_id"]: r["substatus"] or r["status"] for r in rows}
    assert [state[s.order_key[1]] for s in calls] == ["succeeded", "manual_review", "succeeded"]
    assert await counter.tasks() == []
    await counter.holds()


async def test_an_order_that_cannot_be_decided_is_parked_and_somebody_is_told(counter: Counter, desk: Desk, simulator: Simulator) -> None:
    broken, fine = await order_many(counter, 2)
    async with counter.db.transaction() as tx:
        await execute(tx, "UPDATE orders SET target_sealed = 'x' WHERE order_id = $1", broken.order_id)
    for _ in range(BUDGET):
        await desk.buyer.submit(10)
        await settled(desk)
        await counter.everything_due()
    assert await counter.tasks() == [("submit", "parked")]
    assert (await counter.now(fine)).status == "succeeded"
    async with counter.db.transaction() as tx:
        alarms = await fetch(tx, "SELECT kind FROM alarms")
    assert [a["kind"] for a in alarms] == ["task_parked"]
    assert await counter.money() == (100_000 - 197, 98)
    await counter.holds()


async def test_a_channel_is_sent_no_more_than_its_own_limit(counter: Counter, settings: Settings, simulator: Simulator) -> None:
    async with counter.db.transaction() as tx:
        await execute(tx, "UPDATE channels SET concurrency = 2")
    await simulator.turn("sim-a", latency={"kind": "fixed", "ms": 200})
    orders = await order_many(counter, 9)
    async with open_desk(settings) as desk:
        await desk.buyer.submit(100)
        assert desk.buyer.in_flight == 4  # two of each
        await settled(desk)
        await run_until_quiet(desk, counter, orders)
    await judge(counter, simulator, orders)


async def test_a_lease_outlives_the_longest_call(settings: Settings) -> None:
    assert settings.lease_s > settings.supplier_timeout_s + 5
    with pytest.raises(ValueError, match="LEASE"):
        Settings(_env_file=None, supplier_timeout_s=30, lease_s=35)
