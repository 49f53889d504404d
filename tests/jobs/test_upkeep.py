"""The house's chores: each does its work once, whoever runs it and however often it is killed."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

import asyncpg
import pytest
from sqlalchemy.engine import make_url

from kameng_api.alarms import queries as alarms
from kameng_api.catalog.rules import Channel
from kameng_api.embedded.servers import Servers
from kameng_api.jobs import upkeep
from kameng_api.kit.db import Database, Tx, execute, fetch
from kameng_api.kit.ids import new_ulid
from kameng_api.ledger import actions as ledger
from kameng_api.ledger import rules, stops
from kameng_api.settings import Settings
from kameng_api.suppliers.port import Supplier, Wallet
from kameng_api.tasks import actions as tasks
from kameng_api.tasks.rules import Due, Lane

BOOK = 16


@dataclass
class Desk:
    db: Database
    settings: Settings
    wallets: Mapping[str, Callable[[], Awaitable[Wallet]] | None] = field(default_factory=dict)

    def supplier_of(self, channel: Channel) -> Supplier:
        if channel.channel_id not in self.wallets:
            raise LookupError(channel.channel_id)
        return cast(Supplier, SimpleNamespace(balance=self.wallets[channel.channel_id]))


@pytest.fixture
async def desk(database: Database, settings: Settings) -> Desk:
    async with database.transaction() as tx:
        await execute(tx, "INSERT INTO books (book_id, merchant_id, environment) VALUES ($1, $2, 'live')", BOOK, new_ulid())
        await ledger.open_book(tx, BOOK, "CNY")
    return Desk(database, settings)


async def add_order(
    db: Database, *, status: str = "accepted", substatus: str | None = None, age_s: float = 60, deadline_in_s: float = 600,
    attempt: str | None = None,
) -> tuple[UUID, UUID]:  # fmt: skip
    """(order, attempt) with nothing due for it."""
    order_id, attempt_id = new_ulid(), new_ulid()
    async with db.transaction() as tx:
        await execute(
            tx,
            """INSERT INTO orders (book_id, order_id, merchant_order_no, fingerprint, environment, status, substatus, sku, product_type,
              quantity, committed_units, unit_price, amount, currency, metadata, deadline_at, created_at)
            VALUES ($1, $2, $3, '', 'live', $4, $5, 'sku', 'topup', 1, $6, 5, 5, 'CNY', '{}',
              now() + make_interval(secs => $7), now() - make_interval(secs => $8))""",
            BOOK, order_id, str(order_id), status, substatus, 1 if attempt else 0, deadline_in_s, age_s,
        )  # fmt: skip
        if attempt:
            await execute(
                tx,
                """INSERT INTO attempts (book_id, attempt_id, order_id, n, channel_id, product_code, units, state, currency, cost,
                  reference, reason, sent_at, unknown_since)
                VALUES ($1, $2, $3, 1, 'east', 'p', 1, $4, 'CNY', 4, 'r', 'test', now() - make_interval(secs => $5),
                  CASE WHEN $4 = 'unknown' THEN now() - make_interval(secs => $5) END)""",
                BOOK, attempt_id, order_id, attempt, age_s,
            )  # fmt: skip
    return order_id, attempt_id


async def add_channel(db: Database, channel_id: str, *, low_at: int | None = None, status: str = "enabled") -> None:
    async with db.transaction() as tx:
        await execute(
            tx,
            """INSERT INTO channels (channel_id, name, adapter, environment, status, settings_sealed, callback_token_hash,
              callback_token_sealed, wallet_low_at) VALUES ($1, $1, 'simulator', 'live', $2, '', $3, '', $4)""",
            channel_id, status, channel_id.encode(), low_at,
        )  # fmt: skip


async def all_tasks(db: Database) -> list[tuple[str, UUID, str]]:
    async with db.transaction() as tx:
        return [(r["lane"], r["ref"], r["state"]) for r in await fetch(tx, "SELECT lane, ref, state FROM tasks ORDER BY lane")]


async def open_alarms(db: Database) -> dict[tuple[str, str], str]:
    async with db.transaction() as tx:
        return {(a.kind, a.subject): a.detail for a in await alarms.list_alarms(tx)}


async def next_period(db: Database) -> None:
    """As if the chores had last run long ago."""
    async with db.transaction() as tx:
        await execute(tx, "UPDATE chores SET ran_at = now() - interval '2 days'")


async def run_owner(servers: Servers, sql: str, *values: Any) -> str:
    owner = await asyncpg.connect(make_url(servers.owner_url).set(drivername="postgresql").render_as_string(hide_password=False))
    try:
        return str(await owner.execute(sql, *values))
    finally:
        await owner.close()


# --- sweeper ---


async def test_an_order_whose_task_vanished_is_found_again(desk: Desk) -> None:
    order, _ = await add_order(desk.db)
    _, attempt = await add_order(desk.db, status="processing", attempt="unknown")
    assert await upkeep.sweep(desk) == 2
    assert await all_tasks(desk.db) == [("look_up", attempt, "ready"), ("submit", order, "ready")]
    await next_period(desk.db)
    assert await upkeep.sweep(desk) == 0


@pytest.mark.parametrize(
    "facts",
    [{"age_s": 3}, {"status": "processing", "substatus": "manual_review"}, {"status": "failed"}, {"status": "succeeded"}],
)
async def test_work_that_is_not_lost_is_left_alone(desk: Desk, facts: dict[str, Any]) -> None:
    await add_order(desk.db, **facts)
    assert await upkeep.sweep(desk) == 0
    assert await all_tasks(desk.db) == []


async def test_parked_and_running_work_is_left_alone(desk: Desk) -> None:
    first, _ = await add_order(desk.db)
    second, _ = await add_order(desk.db)
    async with desk.db.transaction() as tx:
        await tasks.make_due(tx, [Due(BOOK, Lane.SUBMIT, first), Due(BOOK, Lane.SUBMIT, second)])
        one, _ = await tasks.claim(tx, Lane.SUBMIT, 10, 60, "w")
        await tasks.park(tx, one, "gave up")
    assert await upkeep.sweep(desk) == 0
    assert sorted(state for _, _, state in await all_tasks(desk.db)) == ["parked", "running"]


# --- who does it ---


async def test_many_workers_do_a_chore_once_a_period(desk: Desk) -> None:
    await add_order(desk.db)
    found = await asyncio.gather(*(upkeep.sweep(desk) for _ in range(8)))
    assert sorted(found) == [0] * 7 + [1]
    async with desk.db.transaction() as tx:
        await execute(tx, "DELETE FROM tasks")
    assert await upkeep.sweep(desk) == 0  # done already in this period
    await next_period(desk.db)
    assert await upkeep.sweep(desk) == 1


async def test_a_killed_chore_leaves_the_turn_to_another(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    await add_order(desk.db)

    async def die(*_: Any) -> None:
        raise asyncio.CancelledError

    with monkeypatch.context() as broken:
        broken.setattr(upkeep, "stamp", die)
        with pytest.raises(asyncio.CancelledError):
            await upkeep.sweep(desk)
    assert await all_tasks(desk.db) == []
    assert await upkeep.sweep(desk) == 1


async def test_a_chore_that_another_worker_is_at_is_not_waited_for(desk: Desk) -> None:
    async with desk.db.transaction() as tx:
        assert await upkeep.is_my_turn(tx, "sweep", 30)
        async with asyncio.timeout(2):
            assert await upkeep.sweep(desk) == 0


def test_every_chore_is_in_the_table_once() -> None:
    names = [c.name for c in upkeep.CHORES]
    assert len(set(names)) == len(names)
    assert {"roll_up", "send_alarms", "sweep", "watch", "wallets", "check_recent", "check_all", "prune"} <= set(names)
    assert all(c.every_s > 0 for c in upkeep.CHORES)


async def test_every_chore_runs_on_an_empty_house(desk: Desk) -> None:
    for chore in upkeep.CHORES:
        await chore.run(desk)
    assert await open_alarms(desk.db) == {}


# --- alarms ---


async def test_orders_open_long_after_their_deadline_are_one_alarm_that_closes(desk: Desk) -> None:
    for _ in range(3):
        await add_order(desk.db, status="processing", substatus="awaiting_supplier", deadline_in_s=-700)
    await add_order(desk.db, deadline_in_s=-500)
    await upkeep.watch(desk)
    [(key, detail)] = (await open_alarms(desk.db)).items()
    assert key == ("order_stuck", "live awaiting_supplier")
    assert detail.startswith("3 order(s) open more than 10 min")
    async with desk.db.transaction() as tx:
        await execute(tx, "UPDATE orders SET status = 'failed'")
    await next_period(desk.db)
    await upkeep.watch(desk)
    assert await open_alarms(desk.db) == {}


async def test_an_unknown_outcome_that_is_too_old_is_told(desk: Desk) -> None:
    await add_order(desk.db, status="processing", attempt="unknown", age_s=desk.settings.unknown_alarm_s - 30)
    await upkeep.watch(desk)
    assert await open_alarms(desk.db) == {}
    await add_order(desk.db, status="processing", attempt="unknown", age_s=desk.settings.unknown_alarm_s + 30)
    await next_period(desk.db)
    await upkeep.watch(desk)
    [(key, detail)] = (await open_alarms(desk.db)).items()
    assert key == ("unknown_too_old", "east")
    assert detail.startswith("1 attempt(s)")


async def test_parked_work_and_open_incidents_are_told_until_they_are_gone(desk: Desk) -> None:
    order, attempt = await add_order(desk.db)
    async with desk.db.transaction() as tx:
        await tasks.make_due(tx, [Due(BOOK, Lane.SUBMIT, order)])
        [task] = await tasks.claim(tx, Lane.SUBMIT, 1, 60, "w")
        await tasks.park(tx, task, "ValueError")
        await execute(
            tx,
            "INSERT INTO incidents (book_id, incident_id, order_id, attempt_id, kind, detail) VALUES ($1, $2, $3, $4, 'late_success', 'x')",
            BOOK, new_ulid(), order, attempt,
        )  # fmt: skip
    await upkeep.watch(desk)
    told = await open_alarms(desk.db)
    assert set(told) == {("task_parked", "lane submit"), ("incident_opened", "late_success")}
    assert "ValueError" in told["task_parked", "lane submit"]
    async with desk.db.transaction() as tx:
        await execute(tx, "DELETE FROM tasks")
        await execute(tx, "UPDATE incidents SET closed_at = now()")
    await next_period(desk.db)
    await upkeep.watch(desk)
    assert await open_alarms(desk.db) == {}


async def test_events_that_wait_behind_an_old_transaction_are_told(desk: Desk, migrated: Servers) -> None:
    async with desk.db.transaction() as tx:
        await execute(
            tx,
            "INSERT INTO events (book_id, event_id, type, version, body, created_at) "
            "VALUES ($1, $2, 'order.accepted', 1, '', now() - interval '90 seconds')",
            BOOK, new_ulid(),
        )  # fmt: skip
    await upkeep.watch(desk)
    assert set(await open_alarms(desk.db)) == {("horizon_lag", "webhook fan-out")}
    await run_owner(migrated, "UPDATE fanout_marks SET upto_xid = (SELECT max(xid) + 1 FROM events)")
    await next_period(desk.db)
    await upkeep.watch(desk)
    assert await open_alarms(desk.db) == {}


async def test_a_failing_channel_is_told_and_silence_proves_nothing(desk: Desk) -> None:
    await add_channel(desk.db, "east")
    for _ in range(6):
        await add_order(desk.db, status="processing", attempt="unknown", age_s=20)
    await upkeep.watch(desk)
    assert set(await open_alarms(desk.db)) == {("channel_failing", "east")}
    async with desk.db.transaction() as tx:
        await execute(tx, "UPDATE attempts SET sent_at = now() - interval '1 hour'")
    await next_period(desk.db)
    await upkeep.watch(desk)
    assert ("channel_failing", "east") in await open_alarms(desk.db)
    async with desk.db.transaction() as tx:
        await execute(tx, "UPDATE attempts SET sent_at = now(), state = 'delivered', delivered_units = 1, unknown_since = NULL")
    await next_period(desk.db)
    await upkeep.watch(desk)
    assert ("channel_failing", "east") not in await open_alarms(desk.db)


async def test_a_broken_invariant_is_told_with_an_example_and_closed_by_the_full_check(desk: Desk) -> None:
    for _ in range(3):
        await add_order(desk.db)  # no hold, nothing due
    found = await upkeep.check_recent(desk)
    assert {b.invariant for b in found} == {"task_missing", "held_is_open"}
    told = await open_alarms(desk.db)
    broken = {("invariant_broken", f"{name} in book 16") for name in ("task_missing", "held_is_open")}
    assert set(told) == broken | {("books_stopped", "book 16 (live)")}, "held money that is of no order is the book's own"
    assert told["invariant_broken", "task_missing in book 16"].endswith("(and 2 more)")
    assert await upkeep.check_all(desk) == []  # the first time ever only starts its clock
    await next_period(desk.db)
    assert {b.invariant for b in await upkeep.check_all(desk)} == {"task_missing", "held_is_open", "hold_posting"}
    await upkeep.sweep(desk)
    async with desk.db.transaction() as tx:
        for who in ("ann", "bo"):
            await stops.lift(tx, BOOK, "holds are posted by hand", who)
    async with desk.db.transaction() as tx:
        orders = await fetch(tx, "SELECT order_id FROM orders")
        await ledger.post(tx, [rules.adjustment(BOOK, "a", rules.AVAILABLE, "CNY", 15, "test")])
        await ledger.post(tx, [rules.hold(BOOK, r["order_id"], "CNY", 5) for r in orders])
    await next_period(desk.db)
    assert await upkeep.check_recent(desk) == []
    assert len(await open_alarms(desk.db)) == 3  # the small check proves too little to close anything
    await next_period(desk.db)
    assert await upkeep.check_all(desk) == []
    assert await open_alarms(desk.db) == {}


# --- wallets ---


async def test_wallets_are_asked_stored_and_told_when_low(desk: Desk) -> None:
    for name, low_at, status in (("low", 500, "enabled"), ("rich", 500, "enabled"), ("quiet", 500, "enabled"), ("broken", 500, "enabled"),
                                 ("off", 500, "disabled"), ("gone", None, "enabled")):  # fmt: skip
        await add_channel(desk.db, name, low_at=low_at, status=status)

    async def answer(balance: int) -> Wallet:
        return Wallet(balance, "CNY")

    async def fail() -> Wallet:
        raise ConnectionError("no")

    desk.wallets = {"low": lambda: answer(499), "rich": lambda: answer(500), "quiet": None, "broken": fail, "off": lambda: answer(1)}
    assert await upkeep.refresh_wallets(desk) == 2
    async with desk.db.transaction() as tx:
        rows = await fetch(tx, "SELECT channel_id, wallet_balance FROM channels WHERE wallet_balance IS NOT NULL ORDER BY 1")
    assert [tuple(r) for r in rows] == [("low", 499), ("rich", 500)]
    assert await open_alarms(desk.db) == {("wallet_low", "low"): "balance 0.0499, alarm below 0.0500"}
    assert await upkeep.refresh_wallets(desk) == 0
    desk.wallets = {"low": lambda: answer(9_000)}
    await next_period(desk.db)
    assert await upkeep.refresh_wallets(desk) == 1
    assert await open_alarms(desk.db) == {}


async def test_a_supplier_that_hangs_does_not_hide_the_others(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "_BALANCE_CALL_S", 0.2)
    for name in ("hangs", "good"):
        await add_channel(desk.db, name)

    async def hang() -> Wallet:
        await asyncio.sleep(60)
        raise AssertionError

    async def good() -> Wallet:
        return Wallet(7, "CNY")

    desk.wallets = {"hangs": hang, "good": good}
    async with asyncio.timeout(5):
        assert await upkeep.refresh_wallets(desk) == 1


# --- retention ---


async def test_what_is_old_goes_and_what_is_young_or_needed_stays(desk: Desk, migrated: Servers) -> None:
    order, attempt = await add_order(desk.db, status="failed")
    open_order, open_attempt = await add_order(desk.db, status="processing", attempt="unknown")
    s = desk.settings
    ages = {
        "supplier_answers": s.keep_answers_days, "supplier_callbacks": s.keep_callbacks_days,
        "webhook_attempts": s.keep_webhook_attempts_days, "events": s.keep_events_days, "alarms": s.keep_alarms_days,
        "tasks": s.keep_tasks_days, "batch_pages": s.keep_batch_rows_days,
    }  # fmt: skip
    delivery_states = {}
    async with desk.db.transaction() as tx:
        for name, days in ages.items():
            for shift in (-1, 1):
                at = timedelta(days=days + shift)
                one, two = new_ulid(), new_ulid()
                if name == "supplier_answers":
                    await execute(tx, "INSERT INTO supplier_answers (book_id, answer_id, attempt_id, beat, outcome, received_at) "
                                  "VALUES (16, $1, $2, 'place', 'unknown', now() - $3::interval)", one, attempt, at)  # fmt: skip
                elif name == "supplier_callbacks":
                    await execute(tx, "INSERT INTO supplier_callbacks (callback_id, channel_id, body_hash, raw_sealed, verified, received_at) "
                                  "VALUES ($1, 'east', '', '', true, now() - $2::interval)", one, at)  # fmt: skip
                elif name == "webhook_attempts":
                    await execute(tx, "INSERT INTO webhook_attempts (book_id, attempt_id, delivery_id, took_ms, at) "
                                  "VALUES (16, $1, $2, 1, now() - $3::interval)", one, two, at)  # fmt: skip
                elif name == "events":
                    for state in ("delivered", "pending"):
                        event, delivery = new_ulid(), new_ulid()
                        delivery_states[delivery] = (state, shift)
                        await execute(tx, "INSERT INTO events (book_id, event_id, type, version, body, created_at) "
                                      "VALUES (16, $1, 'order.failed', 1, '', now() - $2::interval)", event, at)  # fmt: skip
                        await execute(tx, "INSERT INTO webhook_deliveries (book_id, delivery_id, event_id, notify_url, state) "
                                      "VALUES (16, $1, $2, 'https://h', $3)", delivery, event, state)  # fmt: skip
                elif name == "alarms":
                    await execute(tx, "INSERT INTO alarms (alarm_id, kind, subject, severity, detail, closed_at) "
                                  "VALUES ($1, 'wallet_low', 'x', 'info', 'x', now() - $2::interval)", one, at)  # fmt: skip
                elif name == "batch_pages":
                    for ended in ("over", "checked", "waiting", "open"):
                        await _add_batch(tx, ended, at)
                else:
                    for lane, ref in (("submit", order if shift > 0 else one), ("look_up", attempt if shift > 0 else two),
                                      ("webhook", new_ulid())):  # fmt: skip
                        await execute(tx, "INSERT INTO tasks (book_id, lane, ref, state, run_at) "
                                      "VALUES (16, $1, $2, 'parked', now() - $3::interval)", lane, ref, at)  # fmt: skip
        old = timedelta(days=1000)
        for lane, ref, state in (("submit", open_order, "parked"), ("look_up", open_attempt, "parked"), ("submit", new_ulid(), "ready")):
            await execute(tx, "INSERT INTO tasks (book_id, lane, ref, state, run_at) VALUES (16, $1, $2, $3, now() - $4::interval)",
                          lane, ref, state, old)  # fmt: skip
        await execute(tx, "INSERT INTO alarms (alarm_id, kind, subject, severity, detail, first_at) "
                      "VALUES ($1, 'wallet_low', 'open', 'info', 'x', now() - $2::interval)", new_ulid(), old)  # fmt: skip
    await run_owner(migrated, "UPDATE fanout_marks SET upto_xid = (SELECT max(xid) + 1 FROM events)")
    gone = await upkeep.prune(desk)
    assert gone == {"supplier_answers": 1, "supplier_callbacks": 1, "webhook_attempts": 1, "events": 1, "alarms": 1, "tasks": 3, "batch_pages": 4}
    async with desk.db.transaction() as tx:
        left = {r["delivery_id"] for r in await fetch(tx, "SELECT delivery_id FROM webhook_deliveries")}
        pages = await fetch(
            tx, "SELECT split_part(merchant_batch_no, '-', 1) AS ended, count(*) AS n FROM batch_pages JOIN batches USING (batch_id) GROUP BY 1"
        )
        batches = await fetch(tx, "SELECT count(*) AS n FROM batches")
    assert left == {d for d, (state, shift) in delivery_states.items() if state == "pending" or shift < 0}
    assert {r["ended"]: r["n"] for r in pages} == {"over": 2, "checked": 2, "waiting": 4, "open": 4}, "what may still be confirmed or placed stays"
    assert batches[0]["n"] == 8, "that there was a batch is kept for ever"
    await next_period(desk.db)
    assert set((await upkeep.prune(desk)).values()) == {0}


async def _add_batch(tx: Tx, ended: str, age: timedelta) -> None:
    """Two pages of a batch that is over, was only to be checked, waits for `confirm`, or has orders that are not final; `age` ago."""
    batch, over = new_ulid(), ended == "over"
    state = {"over": "completed", "checked": "validated", "waiting": "validated", "open": "processing"}[ended]
    number = f"{ended}-{age.days}"
    await execute(
        tx,
        """INSERT INTO batches (book_id, batch_id, merchant_batch_no, fingerprint, environment, currency, kind, options, validate_only, state,
          pages, final_counts, created_at, validated_at, completed_at)
        VALUES (16, $1, $2, '', 'test', 'CNY', 'json', '{}', $3, $4, 2, $5, now() - $6::interval, now() - $6::interval, now() - $7::interval)""",
        batch, number, ended == "checked", state, "{}" if over else None, age, age if over else None,
    )  # fmt: skip
    await execute(tx, "INSERT INTO batch_pages (book_id, batch_id, n, sealed) SELECT 16, $1, n, '' FROM generate_series(0, 1) n", batch)


async def test_events_nobody_has_fanned_out_are_never_pruned(desk: Desk) -> None:
    async with desk.db.transaction() as tx:
        await execute(tx, "INSERT INTO events (book_id, event_id, type, version, body, created_at) "
                      "VALUES (16, $1, 'order.failed', 1, '', now() - interval '1000 days')", new_ulid())  # fmt: skip
    assert (await upkeep.prune(desk))["events"] == 0


async def test_pruning_goes_in_small_batches_to_the_end(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "_PRUNE_BATCH", 7)
    async with desk.db.transaction() as tx:
        await execute(tx, "INSERT INTO supplier_callbacks (callback_id, channel_id, body_hash, raw_sealed, verified, received_at) "
                      "SELECT gen_random_uuid(), 'east', '', '', true, now() - interval '1000 days' FROM generate_series(1, 50)")  # fmt: skip
    assert (await upkeep.prune(desk))["supplier_callbacks"] == 50


async def test_books_orders_attempts_codes_and_audit_are_in_no_line_of_the_retention(settings: Settings) -> None:
    kept = {"transfers", "accounts", "orders", "attempts", "codes", "code_fingerprints", "refunds", "audit_entries", "books", "incidents"}
    for name, statement, days in upkeep._retention(settings):
        assert days >= 1
        deleted = {part.split()[0] for part in statement.split("DELETE FROM ")[1:]}
        assert not deleted & kept, name
