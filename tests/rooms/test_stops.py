"""Rows are tampered with as the owner role: each breach is found, the right book is stopped, others go on, and after the lift orders end rightly."""

from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from sqlalchemy.engine import make_url
from tests.factories.counter import Counter, codes_of
from tests.factories.merchants import give, make_merchant

from kameng_api.embedded.servers import Servers
from kameng_api.evidence import actions as evidence
from kameng_api.evidence.signer import load_signer
from kameng_api.jobs import monitor as jobs
from kameng_api.jobs.stops import stop
from kameng_api.kit.db import Database, execute, fetch
from kameng_api.kit.errors import Invalid, NotFound, StateConflict
from kameng_api.kit.ids import new_ulid
from kameng_api.ledger import actions as ledger
from kameng_api.ledger import rules, stops
from kameng_api.ledger.errors import BooksStopped
from kameng_api.ledger.queries import Breach
from kameng_api.orders import actions
from kameng_api.orders.absorb import News
from kameng_api.orders.dispatch import Submission
from kameng_api.orders.settle import Settlement
from kameng_api.orders.waiting import put_off
from kameng_api.reconciliation import chain, invariants, monitor
from kameng_api.settings import Settings
from kameng_api.suppliers.port import Answer, Delivered
from kameng_api.tasks import actions as tasks
from kameng_api.tasks.rules import Due, Lane
from kameng_api.webhooks import actions as webhooks

Owner = asyncpg.Connection


@pytest.fixture
async def owner(migrated: Servers) -> "AsyncIterator[asyncpg.Connection[asyncpg.Record]]":
    connection = await asyncpg.connect(make_url(migrated.owner_url).set(drivername="postgresql").render_as_string(hide_password=False))
    yield connection
    await connection.close()


@pytest.fixture
async def counter(database: Database, settings: Settings) -> Counter:
    return await Counter.open(database, settings)


async def stop_book(db: Database, book_id: int, detail: str = "made up") -> None:
    async with db.transaction() as tx:
        assert await stop(tx, [Breach("chain", book_id, detail)]) == [book_id]


async def lift(db: Database, book_id: int, by: str = "ann") -> stops.Stop:
    async with db.transaction() as tx:
        return await stops.lift(tx, book_id, "looked at it", by)


async def minute(db: Database) -> list[Breach]:
    async with db.transaction() as tx:
        return await chain.check_chains(tx) + await invariants.check_sums(tx)


# ---- nothing is posted ------------------------------------------------------------------------------------------------


async def test_a_stopped_book_accepts_no_order_and_stores_nothing_while_others_go_on(counter: Counter, settings: Settings) -> None:
    other = await Counter.open(counter.db, settings)
    known = await counter.order("PO-before")
    await stop_book(counter.db, counter.book_id)
    verdicts = await counter.place(counter.ask("PO-1"), other.ask("PO-1"), counter.ask("PO-before"))
    assert codes_of(verdicts) == ["books_stopped", "created", "replayed"]
    assert (await counter.money(), await other.money()) == ((9900, 100), (9900, 100))
    async with counter.db.transaction() as tx:
        rows = await fetch(tx, "SELECT order_id FROM orders WHERE book_id = $1", counter.book_id)
    assert [r["order_id"] for r in rows] == [known.order_id]
    await lift(counter.db, counter.book_id)
    assert codes_of(await counter.place(counter.ask("PO-1"))) == ["created"]


async def test_a_stop_between_the_lock_and_the_write_is_still_seen(counter: Counter) -> None:
    posting = give(counter.book_id, "test", "1")
    async with counter.db.transaction() as tx:
        balances = await ledger.lock(tx, rules.accounts_touched([posting]))
        async with counter.db.transaction() as other:
            await execute(
                other,
                "INSERT INTO stopped_books (book_id, stop_id, invariant, reason, marks, stopped_by) VALUES ($1, $2, 'x', 'x', '{x}', 'x')",
                counter.book_id, UUID(int=1),
            )  # fmt: skip
        with pytest.raises(BooksStopped):
            await ledger.post_locked(tx, [posting], balances)
        await tx.rollback()
    assert await counter.money() == (10000, 0)


async def test_every_way_of_posting_is_refused_but_a_person_s_adjustment(counter: Counter) -> None:
    done, sent = await counter.buy("PO-3")
    await counter.told(sent, Delivered(1))
    order, submission = await counter.buy()
    waiting = await counter.order("PO-2")
    await stop_book(counter.db, counter.book_id)
    before = await _transfers(counter.db)
    with pytest.raises(BooksStopped):
        await counter.told(submission, Delivered(1))
    with pytest.raises(BooksStopped):
        await counter.dispatch()
    with pytest.raises(BooksStopped):
        async with counter.db.transaction() as tx:
            await actions.cancel(tx, counter.keyring, *waiting.key)
    with pytest.raises(BooksStopped):
        async with counter.db.transaction() as tx:
            await actions.refund(tx, counter.keyring, *done.key, refund_no="r", amount=1, reason="r")
    with pytest.raises(BooksStopped):
        async with counter.db.transaction() as tx:
            await ledger.post_one(tx, give(counter.book_id, "test", "1"))
    with pytest.raises(BooksStopped):  # no floor account is touched, nothing is locked
        async with counter.db.transaction() as tx:
            await ledger.post_one(tx, rules.supplier_topup(counter.book_id, "n", "a", "CNY", 1))
    assert await _transfers(counter.db) == before
    async with counter.db.transaction() as tx:
        await ledger.post_one(tx, rules.adjustment(counter.book_id, "t-1", rules.AVAILABLE, "CNY", 10_000, "put right"))
    assert await counter.money() == (9701, 200)
    assert (await counter.now(order)).status == "processing"


async def _transfers(db: Database) -> int:
    async with db.transaction() as tx:
        return int((await fetch(tx, "SELECT count(*) AS n FROM transfers"))[0]["n"])


async def test_facts_are_stored_and_work_waits_and_ends_rightly_after_the_lift(counter: Counter) -> None:
    order, submission = await counter.buy()
    await stop_book(counter.db, counter.book_id)
    settlement = _settlement(submission)
    async with counter.db.transaction() as tx:
        [now] = await fetch(tx, "SELECT now() AS now")
        await put_off(tx, counter.keyring, [settlement], now["now"])
    async with counter.db.transaction() as tx:
        assert len(await fetch(tx, "SELECT 1 FROM supplier_answers")) == 1
    assert (await counter.tasks(), await counter.money()) == ([("submit", "ready")], (9900, 100))
    assert (await counter.now(order)).status == "processing"
    await lift(counter.db, counter.book_id)
    assert await counter.dispatch() == []  # never sent twice: it is asked about instead
    [attempt] = await counter.attempts(order)
    assert attempt.state == "unknown"
    await counter.told(attempt, Delivered(1), beat="look_up")
    assert (await counter.now(order)).status == "succeeded"
    assert await counter.money() == (9900, 0)


def _settlement(submission: Submission) -> Settlement:
    return Settlement(News(*submission.attempt_key, "place", Answer(Delivered(1), raw=b"{}")), submission.task)


# ---- who stops, who lifts ---------------------------------------------------------------------------------------------


async def test_only_a_breach_of_money_stops_a_book(counter: Counter) -> None:
    async with counter.db.transaction() as tx:
        assert await stop(tx, [Breach("task_missing", counter.book_id, "late"), Breach("versions", counter.book_id, "told twice")]) == []
        assert await stops.stopped(tx) == frozenset()


async def test_real_money_is_lifted_by_two_and_play_money_by_one(database: Database, settings: Settings) -> None:
    live = await make_merchant(database, settings, environment="live")
    test = await make_merchant(database, settings)
    for book_id in (live.book_id, test.book_id):
        await stop_book(database, book_id)
    assert (await lift(database, test.book_id)).lifted_by == "ann"
    assert (await lift(database, live.book_id)).lifted_at is None
    assert (await lift(database, live.book_id)).lifted_at is None  # asking again is not agreeing
    lifted = await lift(database, live.book_id, by="bob")
    assert (lifted.lift_asked_by, lifted.lifted_by) == ("ann", "bob")
    with pytest.raises(StateConflict):
        await lift(database, live.book_id)
    with pytest.raises(NotFound):
        await lift(database, 9999)


async def test_a_note_is_wanted(counter: Counter) -> None:
    await stop_book(counter.db, counter.book_id)
    with pytest.raises(Invalid):
        async with counter.db.transaction() as tx:
            await stops.lift(tx, counter.book_id, " ", "ann")


async def test_a_person_stops_a_book_by_hand_and_it_is_lifted_like_any_other(counter: Counter) -> None:
    async with counter.db.transaction() as tx:
        with pytest.raises(NotFound):
            await stops.stop_by_hand(tx, 4711, "odd", "ann")
        with pytest.raises(Invalid):
            await stops.stop_by_hand(tx, counter.book_id, " ", "ann")
    for note in ("odd refunds", "odd refunds"):  # what was lifted before stops again: a suspicion is always new
        async with counter.db.transaction() as tx:
            made = await stops.stop_by_hand(tx, counter.book_id, note, "ann")
            assert (made.invariant, made.reason, made.stopped_by) == (stops.BY_HAND, note, "ann")
            with pytest.raises(StateConflict):
                await stops.stop_by_hand(tx, counter.book_id, note, "bo")
        assert codes_of(await counter.place(counter.ask("PO-1"))) == ["books_stopped"]
        await lift(counter.db, counter.book_id)
    assert codes_of(await counter.place(counter.ask("PO-1"))) == ["created"]


async def test_what_was_lifted_stops_no_more_and_what_is_new_does(counter: Counter) -> None:
    await stop_book(counter.db, counter.book_id, "at version 3; now 10")
    await lift(counter.db, counter.book_id)
    async with counter.db.transaction() as tx:
        assert await stop(tx, [Breach("chain", counter.book_id, "at version 3; now 12")]) == []
        assert await stop(tx, [Breach("chain", counter.book_id, "at version 5; now 12")]) == [counter.book_id]


async def test_a_new_breach_voids_a_wish_to_lift(database: Database, settings: Settings) -> None:
    live = await make_merchant(database, settings, environment="live")
    await stop_book(database, live.book_id, "one")
    await lift(database, live.book_id)
    async with database.transaction() as tx:
        await stop(tx, [Breach("chain", live.book_id, "two")])
    assert (await lift(database, live.book_id, by="bob")).lifted_at is None
    assert (await lift(database, live.book_id, by="ann")).marks == ["chain: one", "chain: two"]


async def test_a_stop_is_an_alarm_until_it_is_lifted(counter: Counter) -> None:
    await stop_book(counter.db, counter.book_id)
    async with counter.db.transaction() as tx:
        assert [r["kind"] for r in await fetch(tx, "SELECT kind FROM alarms WHERE closed_at IS NULL")] == ["books_stopped"]
    await lift(counter.db, counter.book_id)
    async with counter.db.transaction() as tx:
        await stop(tx, [])
        assert await fetch(tx, "SELECT kind FROM alarms WHERE closed_at IS NULL") == []


async def test_the_house_s_book_stops_receipts_and_no_orders(counter: Counter, settings: Settings) -> None:
    live = await make_merchant(counter.db, settings, environment="live", money="0")
    await stop_book(counter.db, rules.HOUSE_LIVE)
    await stop_book(counter.db, rules.HOUSE_TEST)
    with pytest.raises(BooksStopped):
        async with counter.db.transaction() as tx:
            await ledger.post_one(tx, rules.fund_house(rules.HOUSE_LIVE, "bank", "1", "CNY", 1))
    assert live.book_id not in (rules.HOUSE_LIVE, rules.HOUSE_TEST)
    _, submission = await counter.buy()
    assert await counter.told(submission, Delivered(1)) == "succeeded"


# ---- M1–M5: tampered with, found, stopped ------------------------------------------------------------------------------

_FIRST = "book_id = $1 AND kind = 'hold'"
TAMPERING = {
    "M1": ("UPDATE rollups SET debits = debits + 5 WHERE book_id = $1 AND account = 'merchant_held'", "sum_zero"),
    "M2 balance": ("UPDATE accounts SET balance = balance + 5 WHERE book_id = $1 AND account = 'merchant_available'", "balance_is_sum"),
    "M2 chain": (f"UPDATE transfers SET debit_balance_after = debit_balance_after + 5 WHERE {_FIRST}", "chain"),
    "M2 gone": (f"DELETE FROM transfers WHERE {_FIRST}", "chain"),
    "M3": ("UPDATE orders SET amount = amount + 5 WHERE book_id = $1 AND status = 'processing'", "held_is_open"),
    "M4": ("UPDATE attempts SET cost = cost + 5 WHERE book_id = $1 AND state = 'submitting'", "wip_is_live"),
    "M5": ("UPDATE orders SET captured = captured - 5 WHERE book_id = $1 AND status = 'succeeded'", "captured_fits"),
}


@pytest.mark.parametrize("what", TAMPERING)
async def test_tampering_is_found_and_stops_the_right_book(counter: Counter, settings: Settings, owner: Owner, what: str) -> None:
    other = await Counter.open(counter.db, settings)
    for each in (counter, other):
        _, submission = await each.buy()
        await each.told(submission, Delivered(1))
        await each.buy("PO-2")
    async with counter.db.transaction() as tx:
        await ledger.roll_up(tx)
    if what not in ("M2 chain", "M2 gone"):
        assert await minute(counter.db) == []  # and remembered: what is found is found from the mark on
    sql, invariant = TAMPERING[what]
    assert not (await owner.execute(sql, counter.book_id)).endswith(" 0")
    async with counter.db.transaction() as tx:
        found = await chain.check_chains(tx) + await invariants.check_recent(tx, monitor.RECENT)
        assert invariant in {b.invariant for b in found}, found
        assert {b.book_id for b in found} == {counter.book_id}
        assert await stop(tx, found) == [counter.book_id]
    assert codes_of(await counter.place(counter.ask("PO-3"), other.ask("PO-3"))) == ["books_stopped", "created"]
    await lift(counter.db, counter.book_id)
    async with counter.db.transaction() as tx:
        assert await stop(tx, await chain.check_chains(tx) + await invariants.check_recent(tx, monitor.RECENT)) == []
    if what != "M1":
        async with counter.db.transaction() as tx:
            shown = await monitor.examine(tx)
        assert shown[monitor.MONITOR_OF[invariant]] and not shown["M9"]


async def test_the_incremental_check_goes_on_from_its_mark_and_not_past_a_breach(counter: Counter, owner: Owner) -> None:
    await counter.order("PO-1")
    assert await minute(counter.db) == []
    await owner.execute("UPDATE transfers SET amount = amount + 5 WHERE kind = 'hold'")
    async with counter.db.transaction() as tx:
        assert await chain.check_chains(tx) == []  # below the mark: the nightly check's, or that of the sums
    await counter.order("PO-2")
    await owner.execute("UPDATE transfers SET debit_balance_after = 0 WHERE debit_version = 3")
    for _ in range(2):
        assert [b.detail for b in await minute(counter.db) if b.invariant == "chain"] == ["merchant_available CNY at version 3"]


async def test_a_long_way_is_checked_in_steps(counter: Counter, monkeypatch: pytest.MonkeyPatch) -> None:
    for n in range(5):
        await counter.order(f"PO-{n}")
    monkeypatch.setattr(chain, "_MOVES_AT_ONCE", 2)
    marks = []
    for _ in range(4):
        assert await minute(counter.db) == []
        async with counter.db.transaction() as tx:
            marks.append((await fetch(tx, "SELECT max(version) AS v FROM chain_marks"))[0]["v"])
    assert marks == [2, 4, 6, 6]


# ---- M6–M9 stop nothing ------------------------------------------------------------------------------------------------


async def test_a_wallet_that_the_books_cannot_explain_is_told(database: Database) -> None:
    async with database.transaction() as tx:
        await execute(
            tx,
            """INSERT INTO channels (channel_id, name, adapter, environment, settings_sealed, callback_token_hash, callback_token_sealed, status,
              wallet_balance, wallet_checked_at)
            VALUES ('east', 'east', 'simulator', 'test', '', '', '', 'enabled', 1000000, now())""",
        )
        assert await monitor.check_wallets(tx) == []  # never topped up in our books: nothing to compare
        await ledger.post_one(tx, rules.supplier_topup(rules.HOUSE_TEST, "n", "east", "CNY", 1_000_000))
        assert await monitor.check_wallets(tx) == []
        await execute(tx, "UPDATE channels SET wallet_balance = 999990")
        [trouble] = await monitor.check_wallets(tx)
    assert (trouble.alarm, trouble.subject) == ("wallet_drift", "east") and "-0.0010 unexplained" in trouble.detail


async def test_work_that_nobody_takes_is_told(counter: Counter, owner: Owner) -> None:
    await counter.order()
    async with counter.db.transaction() as tx:
        assert await monitor.check_lateness(tx) == []
    await owner.execute("UPDATE tasks SET run_at = now() - interval '2 minutes'")
    async with counter.db.transaction() as tx:
        assert [(t.alarm, t.subject) for t in await monitor.check_lateness(tx)] == [("lane_late", "lane submit")]


async def test_sums_seals_and_fan_out_that_lag_are_told(counter: Counter, owner: Owner) -> None:
    await counter.order()
    await owner.execute("UPDATE transfers SET created_at = now() - interval '2 minutes'")
    await owner.execute("UPDATE events SET created_at = now() - interval '2 minutes'")
    assert await _late(counter.db) == ["horizon_lag", "rollup_lag", "seal_late"]
    async with counter.db.transaction() as tx:
        await ledger.roll_up(tx)
    async with counter.db.transaction() as tx:
        await ledger.roll_up(tx)
    assert await _late(counter.db) == ["horizon_lag", "seal_late"]
    async with counter.db.transaction() as tx:
        await evidence.seal(tx, counter.keyring, load_signer(None, bytes(32)))
    assert await _late(counter.db) == ["horizon_lag"]
    async with counter.db.transaction() as tx:
        shown = await monitor.examine(tx)
    assert [line.partition(":")[0] for line in shown["M8"]] == ["fan-out"]
    async with counter.db.transaction() as tx:
        await webhooks.fan_out(tx, 1000)
    assert await _late(counter.db) == []


async def _late(db: Database) -> list[str]:
    async with db.transaction() as tx:
        return sorted(t.alarm for t in await monitor.check_horizon(tx))


async def test_dead_rows_of_tasks_are_told_until_they_are_cleared_away(counter: Counter, owner: Owner, monkeypatch: pytest.MonkeyPatch) -> None:
    """By PostgreSQL's own count, which its sessions hand in when they are idle."""
    monkeypatch.setattr(monitor, "DEAD_ROWS", 50)
    await owner.execute("ALTER TABLE tasks SET (autovacuum_enabled = off)")
    try:
        async with counter.db.transaction() as tx:
            await tasks.make_due(tx, [Due(counter.book_id, Lane.SUBMIT, new_ulid()) for _ in range(100)])
        await owner.execute("DELETE FROM tasks")
        desk: Any = SimpleNamespace(db=counter.db)
        await owner.execute("SELECT pg_stat_force_next_flush()")
        assert [(t.alarm, t.subject) for t in await jobs.watch_figures(desk) if t.alarm == "dead_rows"] == [("dead_rows", "tasks")]
        await owner.execute("VACUUM tasks")
        await owner.execute("SELECT pg_stat_force_next_flush()")
        async with counter.db.transaction() as tx:
            assert [r["kind"] for r in await fetch(tx, "SELECT kind FROM alarms WHERE closed_at IS NULL")] == ["dead_rows"]
            await execute(tx, "UPDATE chores SET ran_at = ran_at - interval '1 hour'")
        assert await jobs.watch_figures(desk) == []
        async with counter.db.transaction() as tx:
            assert await fetch(tx, "SELECT kind FROM alarms WHERE closed_at IS NULL") == []
    finally:
        await owner.execute("ALTER TABLE tasks RESET (autovacuum_enabled)")


async def test_money_in_suspense_is_told_when_it_is_a_day_old(counter: Counter, owner: Owner) -> None:
    async with counter.db.transaction() as tx:
        await ledger.post_one(tx, rules.adjustment(counter.book_id, "t-1", rules.AVAILABLE, "CNY", 5, "?"))
    await owner.execute("UPDATE transfers SET created_at = now() - interval '3 days'")
    async with counter.db.transaction() as tx:
        assert [t.subject for t in await monitor.check_suspense(tx)] == ["test suspense CNY"]
        await ledger.post_one(tx, rules.adjustment(counter.book_id, "t-2", rules.AVAILABLE, "CNY", -5, "found"))
    async with counter.db.transaction() as tx:
        assert await monitor.check_suspense(tx) == []
        await ledger.post_one(tx, rules.adjustment(counter.book_id, "t-3", rules.AVAILABLE, "CNY", 7, "?"))
    async with counter.db.transaction() as tx:
        assert await monitor.check_suspense(tx) == []  # open since a moment only: it had been empty


def test_every_check_belongs_to_a_monitor() -> None:
    assert set(monitor.MONITOR_OF.values()) == set(monitor.MONITORS)
    assert set(monitor.MONITOR_OF) >= invariants.STOPPING
