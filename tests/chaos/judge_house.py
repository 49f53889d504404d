"""What can be seen in our own database only: the books by a second arithmetic, lost work, stuck locks; and the trap for stale leases.

`set_trap` before the load, `take_house` after the final reads; the checks are pure functions over the file that it leaves.
"""

import json
from pathlib import Path
from typing import Any, Final

import asyncpg
from sqlalchemy.engine import make_url
from tests.chaos.history import FINAL_STATUSES
from tests.chaos.judge_evidence import Run
from tests.chaos.judge_verdict import Verdict

from kameng_api.kit.db import Database
from kameng_api.kit.ids import ulid_text
from kameng_api.reconciliation import invariants

BOUND_S: Final = 60.0
_LIVE: Final = "('created', 'submitting', 'accepted', 'unknown')"
_SECONDS: Final = "extract(epoch FROM {})::float8"

# Written down in the database: who ended a task that was running for somebody else. Sessions are named after their process
# (`application_name` = host:pid, as workers sign their claims). Dropped work is legal only where an order no longer needs it.
TRAP: Final = """
CREATE TABLE IF NOT EXISTS chaos_stale (
  at timestamptz NOT NULL DEFAULT clock_timestamp(), lane text, ref uuid, token bigint, owner text, by text);
GRANT INSERT ON chaos_stale TO PUBLIC;
CREATE OR REPLACE FUNCTION chaos_trap() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  INSERT INTO chaos_stale (lane, ref, token, owner, by)
    VALUES (OLD.lane, OLD.ref, OLD.lease_token, OLD.worker, current_setting('application_name'));
  RETURN NULL; END $$;
DROP TRIGGER IF EXISTS chaos_ended ON tasks;
CREATE TRIGGER chaos_ended AFTER UPDATE OF state ON tasks FOR EACH ROW
  WHEN (OLD.state = 'running' AND NEW.state IN ('ready', 'parked') AND OLD.worker <> current_setting('application_name')
    AND current_setting('application_name') LIKE '%:%') EXECUTE FUNCTION chaos_trap();
DROP TRIGGER IF EXISTS chaos_deleted ON tasks;
CREATE TRIGGER chaos_deleted AFTER DELETE ON tasks FOR EACH ROW
  WHEN (OLD.state = 'running' AND OLD.lane IN ('webhook', 'callback') AND OLD.worker <> current_setting('application_name')
    AND current_setting('application_name') LIKE '%:%') EXECUTE FUNCTION chaos_trap();
"""

_QUERIES: Final = {
    "orders": f"""
        SELECT order_id, book_id, merchant_order_no AS number, status, substatus, version, quantity, delivered_units, amount, captured,
          refunded, {_SECONDS.format("created_at")} AS created_at, {_SECONDS.format("completed_at")} AS completed_at,
          (SELECT count(*) FROM codes c WHERE c.book_id = o.book_id AND c.order_id = o.order_id) AS codes FROM orders o""",
    "attempts": f"""
        SELECT reference, order_id, n, channel_id AS channel, state, units, delivered_units, trouble, refusal,
          {_SECONDS.format("sent_at")} AS sent_at, {_SECONDS.format("settled_at")} AS settled_at FROM attempts""",
    "incidents": "SELECT order_id, kind, detail FROM incidents WHERE order_id IS NOT NULL",
    "final_events": """
        SELECT order_id, count(*) AS n FROM events
        WHERE type IN ('order.succeeded', 'order.partially_succeeded', 'order.failed', 'order.cancelled') GROUP BY 1 HAVING count(*) > 1""",
    # I1: over all accounts of an environment and a currency, what has a row and what is only a sum.
    "sums": """
        SELECT b.environment, x.currency, sum(x.net)::bigint AS net FROM (
          SELECT book_id, currency, balance AS net FROM accounts UNION ALL
          SELECT t.book_id, t.currency, x.net FROM transfers t,
            LATERAL (VALUES (t.debit_account, -t.amount), (t.credit_account, t.amount)) AS x (account, net)
          WHERE x.account NOT IN ('merchant_available', 'merchant_deposit', 'merchant_frozen')
        ) AS x JOIN books b USING (book_id) GROUP BY 1, 2""",
    "chain": """
        SELECT book_id, account, currency, version, after - lag(after, 1, 0) OVER w - net AS gap, version - lag(version, 1, 0) OVER w AS step
        FROM (
          SELECT book_id, debit_account AS account, currency, debit_version AS version, -amount AS net, debit_balance_after AS after
          FROM transfers WHERE debit_version IS NOT NULL
          UNION ALL
          SELECT book_id, credit_account, currency, credit_version, amount, credit_balance_after FROM transfers
          WHERE credit_version IS NOT NULL
        ) AS moves WINDOW w AS (PARTITION BY book_id, account, currency ORDER BY version)""",
    "balances": """
        SELECT a.book_id, a.account, a.currency, a.balance, a.floor, a.version,
          (SELECT coalesce(sum(CASE WHEN t.credit_account = a.account THEN t.amount ELSE -t.amount END), 0)::bigint FROM transfers t
           WHERE t.book_id = a.book_id AND t.currency = a.currency AND a.account IN (t.debit_account, t.credit_account)) AS sum,
          (SELECT least(min(CASE WHEN t.credit_account = a.account THEN t.credit_balance_after END),
                        min(CASE WHEN t.debit_account = a.account THEN t.debit_balance_after END)) FROM transfers t
           WHERE t.book_id = a.book_id AND t.currency = a.currency AND a.account IN (t.debit_account, t.credit_account)) AS lowest
        FROM accounts a""",
    "workless": f"""
        SELECT o.order_id, o.status, o.substatus FROM orders o
        WHERE o.status IN ('accepted', 'processing') AND o.substatus IS DISTINCT FROM 'manual_review'
          AND NOT EXISTS (SELECT FROM tasks t WHERE t.book_id = o.book_id AND t.lane = 'submit' AND t.ref = o.order_id)
          AND NOT EXISTS (SELECT FROM tasks t JOIN attempts a ON a.book_id = t.book_id AND a.attempt_id = t.ref
            WHERE a.book_id = o.book_id AND a.order_id = o.order_id AND a.state IN {_LIVE} AND t.lane = 'look_up')""",
    "stuck": """
        SELECT pid, state, wait_event_type, left(query, 120) AS query, extract(epoch FROM now() - xact_start)::float8 AS s
        FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = current_database() AND backend_type = 'client backend'
          AND (wait_event_type = 'Lock' AND now() - state_change > interval '3 seconds'
            OR state LIKE 'idle in transaction%' AND now() - state_change > interval '3 seconds')""",
}


async def set_trap(owner_url: str) -> None:
    """Once, after the migrations and before the load. Needs processes that name their sessions (`tests.chaos.process`)."""
    connection = await _connect(owner_url)
    try:
        await connection.execute(TRAP)
    finally:
        await connection.close()


async def take_house(owner_url: str, file: Path) -> dict[str, Any]:
    """Writes house.json; the run is quiet. Returns what was written."""
    connection = await _connect(owner_url)
    try:
        house: dict[str, Any] = {}
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            for name, sql in _QUERIES.items():
                house[name] = [_plain(row) for row in await connection.fetch(sql)]
            links = await connection.fetchval("SELECT count(*) FROM transfers")
            trap = await connection.fetchval("SELECT to_regclass('chaos_stale')")
            house["stale"] = [_plain(r) for r in await connection.fetch("SELECT * FROM chaos_stale")] if trap else []
    finally:
        await connection.close()
    house["chain"] = [row for row in house["chain"] if row["gap"] != 0 or row["step"] != 1]
    house["transfers"], house["trap"] = links, trap is not None
    db = Database(str(make_url(owner_url).set(drivername="postgresql+asyncpg").render_as_string(hide_password=False)), pool_size=2)
    try:
        async with db.transaction() as tx:
            house["second_opinion"] = [f"{b.invariant}: book {b.book_id}: {b.detail}" for b in await invariants.check_all(tx)]
    finally:
        await db.close()
    file.write_text(json.dumps(house, default=str))  # noqa: ASYNC240  once, at the end
    return house


async def _connect(url: str) -> "asyncpg.Connection[asyncpg.Record]":
    return await asyncpg.connect(make_url(url).set(drivername="postgresql").render_as_string(hide_password=False), timeout=10)


def _plain(row: Any) -> dict[str, Any]:
    found = dict(row)
    if found.get("order_id") is not None:
        found["order_id"] = f"ord_{ulid_text(found['order_id'])}"
    return found


def check_books(run: Run) -> Verdict:
    """I1: everything sums to zero, and no link of a running balance is missing."""
    verdict = Verdict("I1", "all accounts of a currency and environment sum to 0, running balances chain without a gap")
    if "sums" not in run.house:
        verdict.cannot("house.json has no sums")
        return verdict
    verdict.checked = int(run.house.get("transfers", 0))
    for row in run.house["sums"]:
        if row["net"]:
            verdict.fail(f"{row['environment']} {row['currency']}: the accounts sum to {row['net']}")
    for row in run.house["chain"]:
        verdict.fail(f"book {row['book_id']} {row['account']} version {row['version']}: gap of {row['gap']}, step {row['step']}")
    return verdict


def check_balances(run: Run) -> Verdict:
    """I2: each balance is the sum of its transfers, and none was ever below its floor."""
    verdict = Verdict("I2", "a balance is the sum of its transfers, no floor was ever broken")
    for row in run.house.get("balances", ()):
        verdict.checked += 1
        if row["balance"] != row["sum"]:
            verdict.fail(f"book {row['book_id']} {row['account']}: balance {row['balance']}, sum {row['sum']}")
        lowest = min(row["balance"], row["lowest"] if row["lowest"] is not None else 0)
        if lowest < row["floor"]:
            verdict.fail(f"book {row['book_id']} {row['account']}: was {lowest}, floor {row['floor']}")
    return verdict


def check_work(run: Run) -> Verdict:
    """I12: every open order has work due, or waits for a person."""
    verdict = Verdict("I12", "every open order has a live task or is in manual review")
    verdict.checked = len(run.house.get("orders", ()))
    for row in run.house.get("workless", ()):
        verdict.fail(f"{row['order_id']} is {row['status']} ({row['substatus']}) and nothing is due for it")
    return verdict


def check_second_opinion(run: Run) -> Verdict:
    """The product's own invariants (`reconciliation.invariants.check_all`) must find nothing either."""
    verdict = Verdict("own", "the product's own invariant check finds nothing")
    if "second_opinion" not in run.house:
        verdict.cannot("house.json has none")
        return verdict
    verdict.checked = len(run.house.get("orders", ()))
    for text in run.house["second_opinion"]:
        verdict.fail(text)
    return verdict


def check_liveness(run: Run) -> Verdict:
    """I17: after the heal everything becomes quiet in time, soon for nearly all, and nobody holds a lock."""
    bound_s = float(run.facts.get("final_bound_s", BOUND_S))
    verdict = Verdict("I17", f"after the heal p99 of the time to final is below {bound_s:.0f} s, nothing is stuck")
    healed_at = run.facts.get("healed_at")
    if healed_at is None or "stuck" not in run.house:
        verdict.cannot("the time of the heal, or the locks, are not known")
        return verdict
    if run.facts.get("quiet_at") is None:
        verdict.fail("not quiet in time")
    waits: list[float] = []
    for row in run.house["orders"]:
        verdict.checked += 1
        if row["status"] in FINAL_STATUSES and row["completed_at"] is not None:
            waits.append(max(0.0, row["completed_at"] - max(float(healed_at), row["created_at"])))
    open_at_heal = sorted(w for w in waits if w > 0)
    if open_at_heal:
        p99 = open_at_heal[min(len(open_at_heal) - 1, int(0.99 * len(open_at_heal)))]
        if p99 > bound_s:
            verdict.fail(f"p99 of {len(open_at_heal)} orders that were open at the heal: {p99:.1f} s")
    for row in run.house["stuck"]:
        verdict.fail(f"backend {row['pid']}: {row['state']} ({row['wait_event_type']}) for {row['s']:.0f} s: {row['query']}")
    return verdict
