"""The production monitors M1–M9: what each looks at, which alarm it raises, and which of them stop the postings of a book.

M1–M5 are about a book's own money (`invariants`, `chain`): their breaches stop it. M6–M9 are about supplier wallets, lateness and age: they
raise alarms and stop nothing, for stopping would make them worse.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from kameng_api.kit.clock import wire_time
from kameng_api.kit.db import Tx, fetch
from kameng_api.kit.money import format_amount
from kameng_api.ledger import rules as books
from kameng_api.ledger import stops
from kameng_api.ledger.queries import Breach
from kameng_api.reconciliation import chain, invariants
from kameng_api.reconciliation.invariants import STOPPING

RECENT: Final = timedelta(hours=1)
LATE_S: Final = 60.0
DEAD_ROWS: Final = 100_000
SUSPENSE_S: Final = 86_400.0
_WALLET_MARGIN_S: Final = 120.0


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something that a person should look at: the alarm it raises, about what, and the figures."""

    alarm: str
    subject: str
    detail: str


MONITORS: Final[Mapping[str, str]] = {
    "M1": "transfers, balances and roll-ups sum to zero per book and currency",
    "M2": "balances are the sums of their transfers, running balances chain, versions are dense",
    "M3": "money held is the money of open orders",
    "M4": "cost in progress is the cost of live attempts",
    "M5": "every final order has one final event, and what was delivered is what was captured",
    "M6": "our wallets at suppliers are what the books say",
    "M7": "nothing due is late, nothing in doubt is old, nothing is parked",
    "M8": "roll-up, fan-out and seals keep up with the transaction horizon, the table of tasks is not bloated",
    "M9": "clearing and suspense accounts are empty, or young",
}

MONITOR_OF: Final[Mapping[str, str]] = {
    "sum_zero": "M1",
    "balance_is_sum": "M2", "chain": "M2", "floor_marks": "M2", "rollup_is_sum": "M2",
    "held_is_open": "M3", "hold_posting": "M3",
    "wip_is_live": "M4", "one_live_attempt": "M4", "committed_units": "M4",
    "final_posting": "M5", "captured_fits": "M5", "delivered_units": "M5", "one_final_event": "M5", "versions": "M5", "refunds": "M5",
    "codes_count": "M5", "fingerprints": "M5",
    "wallet_drift": "M6",
    "lane_late": "M7", "unknown_too_old": "M7", "task_parked": "M7", "task_missing": "M7",
    "horizon_lag": "M8", "rollup_lag": "M8", "seal_late": "M8", "dead_rows": "M8",
    "funding_clears": "M9", "suspense_old": "M9",
}  # fmt: skip
"""Check or alarm → the monitor it belongs to."""


async def stop_books(tx: Tx, breaches: Sequence[Breach], by: str) -> list[int]:
    """Stop each book whose own money a breach is about. Returns the books that are stopped only now.

    The house's book is stopped as any other: receipts, supplier top-ups and what is settled with suppliers wait, which only operators
    post. Orders go on: they are posted in the merchants' books alone.
    """
    of_books: dict[int, list[Breach]] = {}
    for breach in breaches:
        if breach.invariant in STOPPING:
            of_books.setdefault(breach.book_id, []).append(breach)
    known = {r["book_id"] for r in await fetch(tx, "SELECT book_id FROM books WHERE book_id = ANY ($1::bigint[])", list(of_books))}
    new = []
    for book_id in sorted(known):
        found = of_books[book_id]
        if await stops.stop(tx, book_id, found[0].invariant, found[0].detail, sorted({b.mark for b in found}), by):
            new.append(book_id)
    return new


# Ours: what was paid in, less what was reserved. Theirs lies between that and that plus what is under way, as far as both are of one moment:
# their figure is up to some minutes old, so what moved since then may be on either side. Only wallets that the books know of: topped up once.
_WALLETS: Final = """
WITH known AS (
  SELECT DISTINCT x.account FROM transfers t, LATERAL (VALUES (t.debit_account), (t.credit_account)) AS x (account)
  WHERE t.book_id IN (1, 2) AND starts_with(x.account, $1)
), ours AS (
  SELECT account, sum(net) AS net FROM (
    SELECT account, debits - credits AS net FROM rollups WHERE starts_with(account, $1) OR starts_with(account, $2)
    UNION ALL
    SELECT x.account, x.net FROM transfers t,
      LATERAL (VALUES (t.debit_account, t.amount), (t.credit_account, -t.amount)) AS x (account, net)
    WHERE t.xid >= (SELECT upto_xid FROM rollup_marks WHERE book_range = 0) AND (starts_with(x.account, $1) OR starts_with(x.account, $2))
  ) AS s GROUP BY 1
)
SELECT c.channel_id, c.wallet_balance AS theirs, c.wallet_checked_at AS wallet_at, coalesce(p.net, 0)::bigint AS prepaid,
  coalesce(w.net, 0)::bigint AS wip, m.moved
FROM channels c JOIN known k ON k.account = $1 || c.channel_id
LEFT JOIN ours p ON p.account = $1 || c.channel_id LEFT JOIN ours w ON w.account = $2 || c.channel_id
CROSS JOIN LATERAL (
  SELECT coalesce(sum(a.cost + coalesce(a.reversed_amount, 0)), 0)::bigint AS moved FROM attempts a WHERE a.channel_id = c.channel_id
    AND greatest(a.sent_at, a.settled_at) > c.wallet_checked_at - make_interval(secs => $3)
    AND a.sent_at > c.wallet_checked_at - interval '1 day') AS m
WHERE c.wallet_balance IS NOT NULL AND c.status = 'enabled'
"""


async def check_wallets(tx: Tx) -> list[Trouble]:
    """M6: the supplier says another balance than our books can explain."""
    found = []
    for r in await fetch(tx, _WALLETS, books.supplier_prepaid(""), books.supplier_wip(""), _WALLET_MARGIN_S):
        low, high = r["prepaid"] - r["moved"], r["prepaid"] + r["wip"] + r["moved"]
        if not low <= r["theirs"] <= high:
            off = r["theirs"] - (high if r["theirs"] > high else low)
            found.append(
                Trouble(
                    "wallet_drift", r["channel_id"],
                    f"the supplier said {format_amount(r['theirs'])} at {wire_time(r['wallet_at'])}; the books say {format_amount(r['prepaid'])} and "
                    f"{format_amount(r['wip'])} under way: {format_amount(off)} unexplained",
                )
            )  # fmt: skip
    return found


_LATE: Final = """
SELECT lane, extract(epoch FROM now() - min(run_at))::float8 AS late_s, count(*) AS n FROM (
  SELECT lane, run_at FROM tasks t WHERE state = 'ready' AND run_at < now() - make_interval(secs => $1)
  ORDER BY run_at LIMIT 100000) AS t GROUP BY lane
"""


async def check_lateness(tx: Tx) -> list[Trouble]:
    """M7: work that has been due for long. (What is in doubt for long or parked is watched by `jobs.upkeep.watch`.)"""
    return [
        Trouble("lane_late", f"lane {r['lane']}", f"{r['n']} task(s) due and not taken, the oldest since {r['late_s']:.0f} s")
        for r in await fetch(tx, _LATE, LATE_S)
    ]


# What has not been taken yet by those who read behind the horizon: the oldest of it.
_LAGS: Final = """
SELECT kind, who, does, at, extract(epoch FROM now() - at)::float8 AS lag_s FROM (
  SELECT 'rollup_lag' AS kind, 'roll-up' AS who, 'transfers wait since {} to be summed up' AS does, (
    SELECT min(created_at) FROM (SELECT created_at FROM transfers
      WHERE xid >= (SELECT upto_xid FROM rollup_marks WHERE book_range = 0) LIMIT $1) AS t) AS at
  UNION ALL SELECT 'seal_late', 'chain 0', 'events wait since {} to be sealed', (
    SELECT min(created_at) FROM (SELECT created_at FROM transfers
      WHERE xid >= coalesce((SELECT upto_xid FROM chain_state WHERE book_range = 0), 0) LIMIT $1) AS t)
  UNION ALL SELECT 'horizon_lag', 'fan-out', 'events wait since {} to be told', (
    SELECT min(created_at) FROM (SELECT created_at FROM events
      WHERE xid >= (SELECT upto_xid FROM fanout_marks WHERE book_range = 0) LIMIT $1) AS t)
) AS k WHERE at IS NOT NULL
"""
_LOOKED_AT: Final = 100_000
_DEAD: Final = "SELECT n_dead_tup AS dead, n_live_tup AS live FROM pg_stat_user_tables WHERE schemaname = 'public' AND relname = 'tasks'"


async def check_horizon(tx: Tx) -> list[Trouble]:
    """M8: sums, seals and fan-out that lag behind, and dead rows of tasks that nobody clears away. Also seen while no worker runs to tell."""
    found = [
        Trouble(r["kind"], r["who"], f"{r['does'].format(wire_time(r['at']))} ({r['lag_s']:.0f} s)")
        for r in await fetch(tx, _LAGS, _LOOKED_AT)
        if r["lag_s"] > LATE_S
    ]
    return found + [
        Trouble("dead_rows", "tasks", f"{r['dead']} dead rows beside {r['live']} live ones: autovacuum does not keep up")
        for r in await fetch(tx, _DEAD)
        if r["dead"] > DEAD_ROWS and r["dead"] > 5 * r["live"]
    ]


# Since when an account has not been empty: after the last time its running sum was zero. Rows are few: each is somebody's open question.
_OPEN_SINCE: Final = """
SELECT environment, account, currency, sum(net)::bigint AS net, min(created_at) FILTER (WHERE place > empty_at) AS since FROM (
  SELECT *, coalesce(max(place) FILTER (WHERE running = 0) OVER (PARTITION BY environment, account, currency), 0) AS empty_at FROM (
    SELECT *, sum(net) OVER w AS running, row_number() OVER w AS place FROM (
      SELECT b.environment, x.account, t.currency, x.net, t.created_at, t.xid, t.event_key, t.line FROM transfers t JOIN books b USING (book_id),
        LATERAL (VALUES (t.debit_account, -t.amount), (t.credit_account, t.amount)) AS x (account, net)
      WHERE (t.debit_account IN ('suspense', 'funding_clearing') OR t.credit_account IN ('suspense', 'funding_clearing'))
        AND x.account IN ('suspense', 'funding_clearing')
    ) AS moves WINDOW w AS (PARTITION BY environment, account, currency ORDER BY xid, event_key, line)
  ) AS summed
) AS marked GROUP BY 1, 2, 3 HAVING sum(net) <> 0
"""


async def check_suspense(tx: Tx) -> list[Trouble]:
    """M9: money in suspense, or in clearing, that nobody has explained for a day. Reads every transfer: nightly, and when asked."""
    rows = await fetch(tx, _OPEN_SINCE)
    [now] = await fetch(tx, "SELECT now() AS now")
    return [
        Trouble(
            "suspense_old", f"{r['environment']} {r['account']} {r['currency']}",
            f"{format_amount(r['net'])} stands there, open since {wire_time(r['since'])}",
        )
        for r in rows
        if (now["now"] - r["since"]).total_seconds() > SUSPENSE_S
    ]  # fmt: skip


_OPEN_ALARMS: Final = """
SELECT kind, subject, detail FROM alarms WHERE closed_at IS NULL AND kind IN ('unknown_too_old', 'task_parked')
"""


async def examine(tx: Tx, *, whole: bool = False) -> dict[str, list[str]]:
    """Every monitor now → what it found; nothing is stopped, raised or remembered. `whole` reads every transfer and order."""
    breaches = await invariants.check_all(tx) if whole else await invariants.check_recent(tx, RECENT) + await chain.check_chains(tx, remember=False)
    troubles = await check_wallets(tx) + await check_lateness(tx) + await check_horizon(tx) + await check_suspense(tx)
    troubles += [Trouble(r["kind"], r["subject"], r["detail"]) for r in await fetch(tx, _OPEN_ALARMS)]
    found: dict[str, list[str]] = {name: [] for name in MONITORS}
    for breach in breaches:
        found[MONITOR_OF[breach.invariant]].append(f"book {breach.book_id}: {breach.mark}")
    for trouble in troubles:
        found[MONITOR_OF[trouble.alarm]].append(f"{trouble.subject}: {trouble.detail}")
    return found
