"""Statements end to end: a real supplier's books, fetched, landed, compared, and believed where they prove something."""

from collections.abc import Sequence
from datetime import date, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from tests.factories.counter import Counter
from tests.factories.workshop import log_of, order_many, settled
from tests.simulator.conftest import Simulator

from kameng_api.catalog import queries as catalog
from kameng_api.jobs import reconciliation as jobs
from kameng_api.jobs import upkeep
from kameng_api.jobs.desk import Desk
from kameng_api.kit.db import execute, fetch
from kameng_api.orders.rules import Order
from kameng_api.reconciliation import landing, queries, rollforward, sources
from kameng_api.reconciliation.sources import SourceWanted, StatementFile
from kameng_api.suppliers.adapters.simulator.client import SimulatorSupplier
from kameng_api.suppliers.port import AnswerUnusable, StatementTerms

CHINA = ZoneInfo("Asia/Shanghai")


def today() -> date:
    return datetime.now(CHINA).date()


async def source_of(desk: Desk, channel_id: str = "sim-a", **more: Any) -> sources.Source:
    wanted: dict[str, Any] = {"lag_s": 600, "window_days": 0, "complete": True} | more
    async with desk.db.transaction() as tx:
        return await sources.put_source(tx, SourceWanted(channel_id, channel_id, "fetch", **wanted))


async def fetch_today(desk: Desk, source: sources.Source) -> StatementFile:
    async with desk.db.transaction() as tx:
        channel = await catalog.get_channel(tx, source.channel_id)
    file = await jobs.fetch_day(desk, channel, source, today(), "fang")
    await jobs.land_files(desk)
    return file


async def compare(desk: Desk, channel_id: str = "sim-a") -> None:
    await jobs.compare_day(desk.db, channel_id, today(), "Asia/Shanghai", "CNY", "fang")
    await jobs.settle(desk)


async def breaks(desk: Desk, orders: Sequence[Order] | None = None, **filters: Any) -> list[tuple[str, str]]:
    """Of these orders alone where they are named: the supplier of this file also knows those of the tests before, as strangers."""
    ours = None if orders is None else {o.order_id for o in orders}
    async with desk.db.transaction() as tx:
        found = await queries.list_breaks(tx, limit=1000, **filters)
    return sorted((b.class_, b.state) for b in found if ours is None or b.order_id in ours)


async def told(desk: Desk) -> list[object]:
    """For a failing test: every break with what it rests on."""
    async with desk.db.transaction() as tx:
        return [(b.class_, b.state, b.amount, dict(b.evidence)) for b in await queries.list_breaks(tx)]


async def submitted(desk: Desk, counter: Counter, n: int = 1) -> list[Order]:
    orders = await order_many(counter, n)
    await desk.buyer.submit(500)
    await settled(desk)
    return orders


async def test_an_unknown_outcome_is_resolved_by_the_statement(desk: Desk, counter: Counter, simulator: Simulator) -> None:
    """Delivered, its answer lost, and the supplier cannot be asked: its own statement shows the charge."""
    await simulator.turn("sim-a", error_500_rate=1, outage_paths=["query"], callback_copies=0)
    [order] = await submitted(desk, counter)
    await simulator.turn("sim-a", outage="http_503", outage_paths=["query"])
    await counter.everything_due()
    await desk.buyer.look_up(500)
    await settled(desk)
    [attempt] = await counter.attempts(order)
    assert (attempt.state, (await counter.now(order)).final) == ("unknown", False)

    source = await source_of(desk)
    file = await fetch_today(desk, source)
    assert (file.state, file.rows_bad) == ("accepted", 0)
    await compare(desk)
    now = await counter.now(order)
    assert (now.status, now.delivered_units) == ("succeeded", 1), await told(desk)
    [attempt] = await counter.attempts(order)
    assert (attempt.state, attempt.actual_cost) == ("delivered", 97_5000)
    delivered = [row for row in await log_of(simulator, "deliveries") if row["reference"] == attempt.reference]
    assert len(delivered) == 1, "once"
    assert ("R6", "closed") in await breaks(desk, class_="R6")
    await counter.holds()
    for _ in range(2):  # told again, it changes nothing
        await fetch_today(desk, source)
        await compare(desk)
    assert (await counter.now(order)).version == now.version
    await counter.holds()


async def test_a_charge_given_back_is_a_failure(desk: Desk, counter: Counter, simulator: Simulator) -> None:
    await simulator.turn("sim-a", late_success_rate=1, late_success_after_s=86_400, callback_copies=0)
    [order] = await submitted(desk, counter)
    [attempt] = await counter.attempts(order)
    assert attempt.state == "unknown"
    await simulator.turn("sim-a", outage="http_503", outage_paths=["query"], callback_copies=0)
    await simulator.call("POST", f"suppliers/sim-a/orders/{attempt.reference}/advance", {"status": "FAILED"})
    await fetch_today(desk, await source_of(desk))
    await compare(desk)
    [attempt] = await counter.attempts(order)
    assert attempt.state == "refused"
    await counter.holds()


async def test_silence_alone_goes_to_a_person(desk: Desk, counter: Counter, simulator: Simulator) -> None:
    """The request was lost before it became an order; the statement does not know it. That proves nothing by itself."""
    await simulator.turn("sim-a", reset_rate=1, reset_point="before")
    [order] = await submitted(desk, counter)
    await simulator.turn("sim-a", outage="http_503", outage_paths=["query"])
    for complete in (False, True):
        source = await source_of(desk, complete=complete)
        await fetch_today(desk, source)
        await compare(desk)
        now = await counter.now(order)
        assert (await counter.attempts(order))[0].state == "unknown" and not now.final
        assert await breaks(desk, [order]) == [("R6", "open")], await told(desk)
    assert [row for row in await log_of(simulator, "deliveries") if row["reference"] == (await counter.attempts(order))[0].reference] == []
    await counter.holds()


async def test_a_day_of_sound_books_shows_no_break_and_adds_up(desk: Desk, counter: Counter, simulator: Simulator) -> None:
    await upkeep.refresh_wallets(desk)
    orders = await submitted(desk, counter, 20)
    assert all([(await counter.now(o)).status == "succeeded" for o in orders])
    source = await source_of(desk)
    file = await fetch_today(desk, source)
    assert file.rows_read >= 20
    await compare(desk)
    ours = {o.order_id for o in orders}
    async with desk.db.transaction() as tx:
        found = [b for b in await queries.list_breaks(tx, limit=500) if b.order_id in ours]
        [day] = await rollforward.list_days(tx, channel_id="sim-a", upto=today(), limit=5)
    assert found == []
    assert (day.state, day.gap) == ("agrees", 0), "the end by the lines' own balances, the start too"


@pytest.mark.parametrize(
    ("spoiled", "gap"),
    [({"missing_rate": 0.3}, True), ({"amount_rate": 1, "amount_delta": "5"}, True), ({"reissue": 3, "shuffle": True}, False)],
)
async def test_a_spoiled_statement_is_found_out(
    desk: Desk, counter: Counter, simulator: Simulator, spoiled: dict[str, Any], gap: bool
) -> None:
    orders = await submitted(desk, counter, 10)
    source = await source_of(desk)
    whole = await fetch_today(desk, source)
    await compare(desk)
    await simulator.turn("sim-a", statement=spoiled)
    file = await fetch_today(desk, source)
    if file.state == "read":  # far fewer lines than the telling before: no machine lets it count
        async with desk.db.transaction() as tx:
            assert await fetch(tx, "SELECT 1 FROM alarms WHERE kind = 'statement_doubted' AND closed_at IS NULL")
            await landing.accept(tx, file.file_id, "gao")
        await jobs.land_files(desk)
    await compare(desk)
    async with desk.db.transaction() as tx:
        [day] = await rollforward.list_days(tx, channel_id="sim-a", upto=today(), limit=5)
    if gap:
        assert (day.gap or 0) != 0 and ("R11", "open") in await breaks(desk)
    else:
        assert day.gap in (0, None) and await breaks(desk, orders) == []
    await simulator.turn("sim-a")
    again = await fetch_today(desk, source)
    assert again.file_id == whole.file_id or again.state == "accepted"


async def test_a_fetch_that_dies_counts_nothing_and_is_done_anew(
    desk: Desk, counter: Counter, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    await submitted(desk, counter, 3)
    source = await source_of(desk)
    async with desk.db.transaction() as tx:
        dead = await landing.begin(tx, source, today(), "fetch", "machine")
        await execute(tx, "UPDATE recon_files SET created_at = now() - interval '1 hour' WHERE file_id = $1", dead.file_id)
    async with desk.db.transaction() as tx:
        assert [(w.source.name, w.day) for w in await jobs._list_wanted(tx)] == [("sim-a", today())]
    assert await jobs.fetch_statements(desk) >= 1
    async with desk.db.transaction() as tx:
        file = await sources.get_file(tx, dead.file_id)
        with pytest.raises(landing.ReadElsewhere):
            await landing.keep(tx, dead)
    assert file.state == "accepted" and file.rows_read >= 3


async def test_a_supplier_that_does_not_answer_is_asked_again_and_told_of(desk: Desk, counter: Counter, simulator: Simulator) -> None:
    source = await source_of(desk)
    await simulator.turn("sim-a", outage="http_503", outage_paths=["statement"])
    with pytest.raises(AnswerUnusable):
        await fetch_today(desk, source)
    async with desk.db.transaction() as tx:
        [file] = await sources.list_files(tx, day=today())
        assert (file.state, file.bad[0][1]) == ("reading", "statement: HTTP 503, refused")
        assert await jobs._list_wanted(tx) == [], "not at once"
        await execute(tx, "UPDATE recon_files SET created_at = now() - interval '6 minutes'")
        assert len(await jobs._list_wanted(tx)) == 1
        await execute(tx, "UPDATE recon_sources SET created_at = now() - interval '3 days'")
    await jobs.watch_books(desk)
    async with desk.db.transaction() as tx:
        [alarm] = await fetch(tx, "SELECT subject FROM alarms WHERE kind = 'statement_missing'")
    assert alarm["subject"] == "sim-a"


async def test_channels_get_their_source_by_themselves_and_no_promise_nobody_gave(
    desk: Desk, counter: Counter, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    await source_of(desk, "sim-b", complete=True)
    monkeypatch.setattr(SimulatorSupplier, "statement_terms", StatementTerms(lag_s=600, complete=False))
    await jobs.fetch_statements(desk)
    async with desk.db.transaction() as tx:
        found = {s.name: s for s in await sources.list_sources(tx)}
    assert set(found) == {"sim-a", "sim-b"}
    assert (found["sim-a"].lag_s, found["sim-a"].complete, found["sim-b"].complete) == (600, False, False)


async def test_the_days_that_are_over_are_fetched_and_compared_once(desk: Desk, counter: Counter, simulator: Simulator) -> None:
    await source_of(desk)
    async with desk.db.transaction() as tx:
        await execute(tx, "UPDATE recon_sources SET created_at = now() - interval '2 days'")
    assert await jobs.fetch_statements(desk) >= 1
    await jobs.land_files(desk)
    assert await jobs.compare_days(desk) >= 1
    async with desk.db.transaction() as tx:
        await execute(tx, "UPDATE chores SET ran_at = now() - interval '1 day'")
    assert (await jobs.fetch_statements(desk), await jobs.compare_days(desk)) == (0, 0)


async def test_wallet_snapshots_are_kept_and_forgotten(desk: Desk, counter: Counter) -> None:
    assert await upkeep.refresh_wallets(desk) >= 1
    async with desk.db.transaction() as tx:
        rows = await fetch(tx, "SELECT channel_id, currency FROM wallet_snapshots ORDER BY 1")
        assert tuple(rows[0]) == ("sim-a", "CNY")
        assert await rollforward.prune_snapshots(tx, 40) == 0
