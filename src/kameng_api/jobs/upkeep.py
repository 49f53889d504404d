"""The house's own chores: what keeps the books summed, finds lost work, tells a person in time, and throws away what is old.

Every chore may be killed at any moment and run again at once: it does its work in short transactions that leave things right. Each worker
runs the whole table; a transaction-scoped advisory lock and the time of the last run keep many workers from repeating a chore.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Protocol

from kameng_api.alarms import actions as alarms
from kameng_api.catalog import actions as catalog
from kameng_api.catalog import queries as catalog_queries
from kameng_api.catalog.rules import Channel
from kameng_api.jobs.alarms import send_alarms
from kameng_api.jobs.stops import stop
from kameng_api.kit import log
from kameng_api.kit.clock import utc_now, wire_time
from kameng_api.kit.db import Database, Tx, execute, fetch
from kameng_api.kit.ids import public_id
from kameng_api.kit.money import format_amount
from kameng_api.ledger import actions as ledger
from kameng_api.ledger.queries import Breach
from kameng_api.outbox import actions as outbox
from kameng_api.reconciliation import invariants, rollforward
from kameng_api.settings import Settings
from kameng_api.suppliers import events
from kameng_api.suppliers import queries as suppliers
from kameng_api.suppliers.port import Supplier, Wallet
from kameng_api.tasks import actions as tasks
from kameng_api.tasks.rules import Due, Lane

_log = log.get()

_ROLL_UP_S: Final = 2.0
_ALARMS_S: Final = 5.0
_SWEEP_S: Final = 30.0
_WATCH_S: Final = 60.0
_WALLETS_S: Final = 60.0
_RECENT_S: Final = 180.0
_FULL_S: Final = 86_400.0
_PRUNE_S: Final = 3_600.0

_GRACE_S: Final = 10.0
"""Work younger than this is left alone: its own transaction may still be on the way."""
_SWEEP_AT_ONCE: Final = 1_000
_STUCK_AFTER_S: Final = 600.0
_LAG_S: Final = 60.0
_BALANCE_CALL_S: Final = 15.0
_FAILING_AT_LEAST: Final = 5
_PRUNE_BATCH: Final = 2_000
_PRUNE_BATCHES: Final = 200


class Desk(Protocol):
    """What the chores need of their process."""

    @property
    def db(self) -> Database: ...

    @property
    def settings(self) -> Settings: ...

    def supplier_of(self, channel: Channel) -> Supplier:
        """The connected supplier behind a channel. Raises LookupError or ValueError when it cannot be connected."""
        ...


@dataclass(frozen=True, slots=True)
class Chore:
    """A job of the clock: run it every `every_s` seconds."""

    name: str
    every_s: float
    run: Callable[[Desk], Awaitable[Any]]
    cut: bool = False
    """It may take long, and is cut off when its process stops; others are let end."""


async def is_my_turn(tx: Tx, name: str, every_s: float) -> bool:
    """False while another worker is at it, or when one has done it in this period. Writes nothing."""
    [lock] = await fetch(tx, "SELECT pg_try_advisory_xact_lock(hashtextextended('kameng:' || $1, 0)) AS mine", name)
    if not lock["mine"]:
        return False
    return not await fetch(
        tx, "SELECT 1 FROM chores WHERE name = $1 AND ran_at > now() - make_interval(secs => $2)", name, 0.9 * every_s
    )


async def stamp(tx: Tx, name: str) -> None:
    await execute(
        tx, "INSERT INTO chores (name) VALUES ($1) ON CONFLICT (name) DO UPDATE SET ran_at = excluded.ran_at", name
    )


async def roll_up(desk: Desk) -> bool:
    """Sum up the accounts without a floor. The mark's row lock keeps two workers apart."""
    async with desk.db.transaction() as tx:
        return await ledger.roll_up(tx)


# Derived from the state of orders alone, so that even a task row that vanished is found again. Parked work waits for a person.
_LOST = """
SELECT o.book_id, o.order_id, a.attempt_id FROM orders o
LEFT JOIN attempts a ON a.book_id = o.book_id AND a.order_id = o.order_id
  AND a.state IN ('created', 'submitting', 'accepted', 'unknown')
WHERE o.status IN ('accepted', 'processing') AND o.substatus IS DISTINCT FROM 'manual_review'
  AND o.created_at < now() - make_interval(secs => $1)
  AND (a.sent_at IS NULL OR a.sent_at < now() - make_interval(secs => $1))
  AND NOT EXISTS (SELECT FROM tasks t WHERE t.book_id = o.book_id AND t.lane = 'submit' AND t.ref = o.order_id)
  AND NOT EXISTS (SELECT FROM tasks t WHERE t.book_id = a.book_id AND t.lane = 'look_up' AND t.ref = a.attempt_id)
LIMIT $2
"""


async def sweep(desk: Desk) -> int:
    """Make lost work due again: look up a live attempt, else submit. Returns how many orders had none."""
    async with desk.db.transaction() as tx:
        if not await is_my_turn(tx, "sweep", _SWEEP_S):
            return 0
        lost = await fetch(tx, _LOST, _GRACE_S, _SWEEP_AT_ONCE)
        await tasks.make_due(
            tx,
            [
                Due(r["book_id"], Lane.LOOK_UP, r["attempt_id"])
                if r["attempt_id"] is not None
                else Due(r["book_id"], Lane.SUBMIT, r["order_id"])
                for r in lost
            ],
        )
        await stamp(tx, "sweep")
    for r in lost[:10]:
        _log.warning("lost_work_found", order=public_id("ord", r["order_id"]), live_attempt=r["attempt_id"] is not None)
    return len(lost)


# One alarm per group and not per order: an outage that sticks a million orders is one trouble.
_STUCK = """
SELECT environment || ' ' || coalesce(substatus, status) AS subject, count(*) AS n, min(deadline_at) AS since,
  (array_agg(order_id ORDER BY deadline_at))[1] AS oldest
FROM orders WHERE status IN ('accepted', 'processing') AND deadline_at < now() - make_interval(secs => $1) GROUP BY 1
"""

_UNKNOWN = """
SELECT channel_id AS subject, count(*) AS n, min(unknown_since) AS since,
  (array_agg(order_id ORDER BY unknown_since))[1] AS oldest
FROM attempts WHERE state = 'unknown' AND unknown_since < now() - make_interval(secs => $1) GROUP BY 1
"""

_PARKED = """
SELECT 'lane ' || lane AS subject, count(*) AS n, min(trouble) AS trouble FROM tasks WHERE state = 'parked' GROUP BY 1
"""

_INCIDENTS = """
SELECT kind AS subject, count(*) AS n, min(at) AS since, (array_agg(order_id ORDER BY at))[1] AS oldest FROM incidents
WHERE closed_at IS NULL GROUP BY 1
"""

_HORIZON = """
SELECT 'webhook fan-out' AS subject, created_at AS since, extract(epoch FROM now() - created_at)::float8 AS lag_s FROM events
WHERE xid >= (SELECT upto_xid FROM fanout_marks WHERE book_range = 0) ORDER BY xid LIMIT 1
"""

_OLDEST_TRANSACTION = """
SELECT coalesce(max(extract(epoch FROM now() - xact_start)), 0)::int AS s FROM pg_stat_activity
WHERE backend_xid IS NOT NULL OR backend_xmin IS NOT NULL
"""


async def watch(desk: Desk) -> None:
    """Raise and close the alarms that are read from the state of the house."""
    async with desk.db.transaction() as tx:
        if not await is_my_turn(tx, "watch", _WATCH_S):
            return
        stuck = await fetch(tx, _STUCK, _STUCK_AFTER_S)
        await alarms.keep_raised(
            tx,
            "order_stuck",
            {
                r["subject"]: f"{r['n']} order(s) open more than {_STUCK_AFTER_S / 60:.0f} min after their deadline, oldest "
                f"{public_id('ord', r['oldest'])} (due {wire_time(r['since'])})"
                for r in stuck
            },
        )
        unknown = await fetch(tx, _UNKNOWN, float(desk.settings.unknown_alarm_s))
        await alarms.keep_raised(
            tx,
            "unknown_too_old",
            {
                r["subject"]: f"{r['n']} attempt(s) with unknown outcome, oldest of order {public_id('ord', r['oldest'])} "
                f"since {wire_time(r['since'])}; money stays held"
                for r in unknown
            },
        )
        await _watch_incidents(tx)
        await _watch_parked(tx)
        await _watch_channels(tx)
        await _watch_horizon(tx)
        await stamp(tx, "watch")


async def _watch_incidents(tx: Tx) -> None:
    incidents = {}
    for r in await fetch(tx, _INCIDENTS):
        order = f", oldest of order {public_id('ord', r['oldest'])}" if r["oldest"] is not None else ""
        incidents[r["subject"]] = f"{r['n']} open incident(s){order} since {wire_time(r['since'])}"
    await alarms.keep_raised(tx, "incident_opened", incidents)


async def _watch_parked(tx: Tx) -> None:
    parked = {r["subject"]: f"{r['n']} task(s) parked, for example: {r['trouble'] or 'no reason'}" for r in await fetch(tx, _PARKED)}
    await alarms.raise_alarms(tx, "task_parked", parked)
    for lane in Lane:
        if f"lane {lane}" not in parked:
            await alarms.close_alarm(tx, "task_parked", f"lane {lane}")


async def _watch_channels(tx: Tx) -> None:
    enabled = [c.channel_id for c in await catalog_queries.list_channels(tx) if c.status == "enabled"]
    health = await suppliers.recent_health(tx, enabled)
    for channel_id in sorted(enabled):
        good, bad = health.get(channel_id, (0, 0))
        if bad >= _FAILING_AT_LEAST and bad > good:
            detail = f"in the last minute {bad} attempt(s) in doubt or not reached, {good} delivered"
            await alarms.raise_alarm(tx, "channel_failing", channel_id, None, detail)
        elif good > bad:  # silence proves nothing: a channel without traffic keeps its alarm
            await alarms.close_alarm(tx, "channel_failing", channel_id)


async def _watch_horizon(tx: Tx) -> None:
    late = [r for r in await fetch(tx, _HORIZON) if r["lag_s"] > _LAG_S]
    [oldest] = await fetch(tx, _OLDEST_TRANSACTION)
    await alarms.keep_raised(
        tx,
        "horizon_lag",
        {
            r["subject"]: f"events wait since {wire_time(r['since'])} ({r['lag_s']:.0f} s); the oldest transaction runs for "
            f"{oldest['s']} s"
            for r in late
        },
    )


async def refresh_wallets(desk: Desk) -> int:
    """Ask every enabled channel for our balance, store it, and raise or close `wallet_low`. Returns how many answered."""
    async with desk.db.transaction() as tx:
        if not await is_my_turn(tx, "wallets", _WALLETS_S):
            return 0
        channels = [c for c in await catalog_queries.list_channels(tx) if c.status == "enabled"]
        await stamp(tx, "wallets")
    answers = await asyncio.gather(*(_ask_balance(desk, channel) for channel in channels))
    known = [(c, w) for c, w in zip(channels, answers, strict=True) if w is not None]
    for channel, wallet in known:
        async with desk.db.transaction() as tx:
            await catalog.record_wallet(tx, channel.channel_id, wallet.balance)
            await rollforward.record_snapshot(tx, channel.channel_id, wallet.balance, wallet.currency)
    async with desk.db.transaction() as tx:
        await _tell_of_low_wallets(tx, {channel.channel_id: wallet.currency for channel, wallet in known})
    return len(known)


async def _tell_of_low_wallets(tx: Tx, currencies: Mapping[str, str]) -> None:
    """The alarm stays while it lasts; the event comes once, when it begins."""
    low = {c.channel_id: c for c in await catalog_queries.list_channels(tx) if c.status == "enabled" and _is_low(c)}
    known = {r["subject"] for r in await fetch(tx, "SELECT subject FROM alarms WHERE kind = 'wallet_low' AND closed_at IS NULL")}
    facts = [
        events.fact_of_low_wallet(c.channel_id, c.environment, currencies[channel_id], c.wallet_balance or 0, c.wallet_low_at or 0, utc_now())
        for channel_id, c in sorted(low.items())
        if channel_id not in known and channel_id in currencies
    ]
    await outbox.record(tx, facts)
    await alarms.keep_raised(
        tx,
        "wallet_low",
        {
            channel_id: f"balance {format_amount(c.wallet_balance or 0)}, alarm below {format_amount(c.wallet_low_at or 0)}"
            for channel_id, c in low.items()
        },
    )


def _is_low(channel: Channel) -> bool:
    balance, mark = channel.wallet_balance, channel.wallet_low_at
    return balance is not None and mark is not None and balance < mark


async def _ask_balance(desk: Desk, channel: Channel) -> Wallet | None:
    try:
        ask = desk.supplier_of(channel).balance
        if ask is None:
            return None
        async with asyncio.timeout(_BALANCE_CALL_S):
            return await ask()
    except Exception as trouble:
        _log.warning("wallet_not_read", channel=channel.channel_id, trouble=type(trouble).__name__)
        return None


async def check_recent(desk: Desk) -> list[Breach]:
    """The invariants of what happened lately and of all open orders; raises `invariant_broken`, closes nothing."""
    async with desk.db.transaction() as reading:
        if not await is_my_turn(reading, "check_recent", _RECENT_S):
            return []
        found = await invariants.check_recent(reading, timedelta(seconds=2 * _RECENT_S))
        async with desk.db.transaction() as tx:
            await alarms.raise_alarms(tx, "invariant_broken", by_subject(found))
            await stop(tx, found)
            await stamp(tx, "check_recent")
    return found


async def check_all(desk: Desk) -> list[Breach]:
    """Every invariant over everything; what holds again is closed. The first time ever only starts the clock: a start is no quiet hour."""
    async with desk.db.transaction() as reading:
        if not await is_my_turn(reading, "check_all", _FULL_S):
            return []
        if not await fetch(reading, "SELECT 1 FROM chores WHERE name = 'check_all'"):
            await stamp(reading, "check_all")
            return []
        found = await invariants.check_all(reading, events_kept=timedelta(days=desk.settings.keep_events_days))
        async with desk.db.transaction() as tx:
            await alarms.keep_raised(tx, "invariant_broken", by_subject(found))
            await stop(tx, found)
            await stamp(tx, "check_all")
    return found


def by_subject(found: list[Breach]) -> dict[str, str]:
    """One alarm per invariant and book, with the first example and how many more."""
    grouped: dict[str, list[str]] = {}
    for breach in found:
        grouped.setdefault(f"{breach.invariant} in book {breach.book_id}", []).append(breach.detail)
    return {s: d[0] + (f" (and {len(d) - 1} more)" if len(d) > 1 else "") for s, d in grouped.items()}


_BY_AGE = """
DELETE FROM {table} WHERE ctid = ANY (ARRAY(
  SELECT ctid FROM {table} WHERE {at} < now() - make_interval(days => $1) {more} LIMIT $2))
"""

# Oldest first along xid, so that a batch never reads past what is due; with its events go their deliveries, the pending ones stay.
_EVENTS = """
WITH oldest AS (
  SELECT book_id, event_id, created_at FROM events
  WHERE xid < (SELECT upto_xid FROM fanout_marks WHERE book_range = 0) ORDER BY xid LIMIT $2
), due AS (
  SELECT book_id, event_id FROM oldest o WHERE created_at < now() - make_interval(days => $1) AND NOT EXISTS (
    SELECT FROM webhook_deliveries d WHERE d.book_id = o.book_id AND d.event_id = o.event_id AND d.state = 'pending')
), told AS (
  DELETE FROM webhook_deliveries d USING due WHERE d.book_id = due.book_id AND d.event_id = due.event_id
)
DELETE FROM events e USING due WHERE e.book_id = due.book_id AND e.event_id = due.event_id
"""

# What merchants sent, targets among it, of batches in which nothing can change any more; the outcome of each row stays. Page by page: who
# fetches a result file meanwhile is told that the rows are gone, whichever page went first.
_BATCH_ROWS = """
DELETE FROM batch_pages WHERE ctid = ANY (ARRAY(
  SELECT p.ctid FROM batch_pages p JOIN batches b ON b.book_id = p.book_id AND b.batch_id = p.batch_id
  WHERE (b.final_counts IS NOT NULL AND b.completed_at < now() - make_interval(days => $1))
     OR (b.validate_only AND b.state = 'validated' AND b.validated_at < now() - make_interval(days => $1)) LIMIT $2))
"""

# Parked work whose subject ended without it.
_TASKS = """
DELETE FROM tasks t WHERE ctid = ANY (ARRAY(
  SELECT t.ctid FROM tasks t WHERE t.state = 'parked' AND t.run_at < now() - make_interval(days => $1) AND CASE t.lane
    WHEN 'submit' THEN NOT EXISTS (SELECT FROM orders o WHERE o.book_id = t.book_id AND o.order_id = t.ref
      AND o.status IN ('accepted', 'processing'))
    WHEN 'look_up' THEN NOT EXISTS (SELECT FROM attempts a WHERE a.book_id = t.book_id AND a.attempt_id = t.ref
      AND a.state IN ('created', 'submitting', 'accepted', 'unknown'))
    WHEN 'callback' THEN NOT EXISTS (SELECT FROM supplier_callbacks c WHERE c.callback_id = t.ref)
    WHEN 'webhook' THEN NOT EXISTS (SELECT FROM webhook_deliveries d WHERE d.book_id = t.book_id AND d.delivery_id = t.ref
      AND d.state = 'pending')
    WHEN 'door' THEN NOT EXISTS (SELECT FROM webhook_deliveries d WHERE d.book_id = t.book_id AND d.delivery_id = t.ref
      AND d.state = 'pending')
    WHEN 'batch' THEN NOT EXISTS (SELECT FROM batches b WHERE b.book_id = t.book_id AND b.batch_id = t.ref AND b.final_counts IS NULL)
    ELSE true END
  LIMIT $2)) AND t.state = 'parked'
"""


def _retention(settings: Settings) -> tuple[tuple[str, str, int], ...]:
    """(what, statement, days). Books, orders, attempts, codes, refunds and the audit trail are in no line: they are kept for ever."""
    return (
        ("supplier_answers", _BY_AGE.format(table="supplier_answers", at="received_at", more=""), settings.keep_answers_days),
        ("supplier_callbacks", _BY_AGE.format(table="supplier_callbacks", at="received_at", more=""), settings.keep_callbacks_days),
        ("webhook_attempts", _BY_AGE.format(table="webhook_attempts", at="at", more=""), settings.keep_webhook_attempts_days),
        ("events", _EVENTS, settings.keep_events_days),
        ("batch_pages", _BATCH_ROWS, settings.keep_batch_rows_days),
        ("alarms", _BY_AGE.format(table="alarms", at="closed_at", more=""), settings.keep_alarms_days),
        ("tasks", _TASKS, settings.keep_tasks_days),
    )


async def prune(desk: Desk) -> dict[str, int]:
    """Delete what is older than its documented age, in small transactions. Returns what went, by table."""
    gone: dict[str, int] = {}
    for what, statement, days in _retention(desk.settings):
        for _ in range(_PRUNE_BATCHES):
            async with desk.db.transaction() as tx:
                if not await is_my_turn(tx, "prune", _PRUNE_S):
                    return gone
                deleted = await execute(tx, statement, days, _PRUNE_BATCH)
            gone[what] = gone.get(what, 0) + deleted
            if not deleted:
                break
    async with desk.db.transaction() as tx:
        await stamp(tx, "prune")
    _log.info("pruned", **gone)
    return gone


CHORES: Final[tuple[Chore, ...]] = (
    Chore("roll_up", _ROLL_UP_S, roll_up),
    Chore("send_alarms", _ALARMS_S, send_alarms),
    Chore("sweep", _SWEEP_S, sweep),
    Chore("watch", _WATCH_S, watch),
    Chore("wallets", _WALLETS_S, refresh_wallets),
    Chore("check_recent", _RECENT_S, check_recent),
    Chore("check_all", _FULL_S, check_all),
    Chore("prune", _PRUNE_S, prune),
)
"""What `worker.py` runs, each by its own clock."""
