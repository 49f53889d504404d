"""What must always be true between the books, the orders, the attempts, the tasks and the events.

Every check is one statement, hence one snapshot: since each step of the business is one transaction, nothing half-done is ever seen and a
racing commit is never reported. Orders are checked in batches, so that no statement runs long; the whole check only reads.

The checks
    final_posting         a final order's final event moved captured to sales and the rest back; an open order has none
    hold_posting          an order's hold moved its amount, once
    captured_fits         succeeded captured all of it, failed and cancelled nothing, partial something between
    committed_units       committed = units of the live attempt + units delivered
    delivered_units       delivered = Σ delivered units of the attempts; all, some or none as the status says
    one_live_attempt      at most one, and none on a final order
    refunds               Σ refunds = refunded ≤ captured, and each refund is posted
    codes_count           as many code rows as the order says
    task_missing          an open order has work due, or waits for a person
    held_is_open          per book: money held = Σ amounts of open orders
    wip_is_live           per book and channel: cost in progress = Σ cost of live attempts
    one_final_event       a final order told so exactly once, an open one never
    versions              no two events of one order with one version, none above the order's, the final one not before `processing`
    fingerprints          each card code of an order has its fingerprint
    sum_zero              per book and currency: everything that was ever moved sums to zero, in balances and roll-ups as in transfers
and everything of `ledger.queries.list_breaches`.
"""

from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from typing import Final
from uuid import UUID

from kameng_api.kit.db import Tx, execute, fetch
from kameng_api.kit.ids import public_id, ulid_text
from kameng_api.ledger import queries as ledger
from kameng_api.ledger import rules as books
from kameng_api.ledger.queries import Breach

_BATCH: Final = 2_000
_MOST: Final = 100
"""Breaches listed per check: who has a hundred needs no more to know that something is wrong."""
_GRACE_S: Final = 10
_MOST_TOUCHED: Final = 20_000
"""Orders looked at by one incremental check: beyond it, whichever the hash brings first; the nightly check misses none."""

_OPEN: Final = "('accepted', 'processing')"
_LIVE: Final = "('created', 'submitting', 'accepted', 'unknown')"
_FINAL_EVENTS: Final = "('order.succeeded', 'order.partially_succeeded', 'order.failed', 'order.cancelled')"

# $1 books, $2 orders, $3 hold keys, $4 final keys; $5 available, $6 held, $7 sales
_ORDERS: Final = f"""
WITH facts AS (
  SELECT o.*, o.status IN {_OPEN} AS is_open, a.live, a.live_units, a.given, f.captured_sum, f.released_sum, f.others,
    h.hold_sum, h.hold_others, r.refund_sum, r.refund_posted, c.codes
  FROM unnest($1::bigint[], $2::uuid[], $3::text[], $4::text[]) AS k (book_id, order_id, hold_key, final_key)
  JOIN orders o ON o.book_id = k.book_id AND o.order_id = k.order_id
  CROSS JOIN LATERAL (
    SELECT count(*) FILTER (WHERE state IN {_LIVE}) AS live,
      coalesce(sum(units) FILTER (WHERE state IN {_LIVE}), 0) AS live_units, coalesce(sum(delivered_units), 0) AS given
    FROM attempts WHERE book_id = k.book_id AND order_id = k.order_id) AS a
  CROSS JOIN LATERAL (
    SELECT coalesce(sum(amount) FILTER (WHERE debit_account = $6 AND credit_account = $7), 0) AS captured_sum,
      coalesce(sum(amount) FILTER (WHERE debit_account = $6 AND credit_account = $5), 0) AS released_sum,
      count(*) FILTER (WHERE debit_account = $6 AND credit_account NOT IN ($5, $7) OR order_id IS DISTINCT FROM k.order_id
        OR currency <> o.currency) AS others
    FROM transfers WHERE book_id = k.book_id AND event_key = k.final_key) AS f
  CROSS JOIN LATERAL (
    SELECT coalesce(sum(amount) FILTER (WHERE debit_account = $5 AND credit_account = $6), 0) AS hold_sum,
      count(*) FILTER (WHERE NOT (debit_account = $5 AND credit_account = $6) OR currency <> o.currency) AS hold_others
    FROM transfers WHERE book_id = k.book_id AND event_key = k.hold_key) AS h
  CROSS JOIN LATERAL (
    SELECT coalesce(sum(x.amount), 0) AS refund_sum, coalesce(sum(t.amount), 0) AS refund_posted
    FROM refunds x LEFT JOIN transfers t ON t.book_id = x.book_id AND t.event_key = 'refund:' || x.refund_no
      AND t.credit_account = $5 AND t.order_id = x.order_id AND t.currency = x.currency
    WHERE x.book_id = k.book_id AND x.order_id = k.order_id) AS r
  CROSS JOIN LATERAL (
    SELECT count(*) AS codes FROM codes WHERE book_id = k.book_id AND order_id = k.order_id) AS c
)
SELECT f.book_id, f.order_id, b.invariant, b.detail FROM facts f CROSS JOIN LATERAL (VALUES
  ('final_posting', f.is_open AND (f.captured_sum <> 0 OR f.released_sum <> 0 OR f.others > 0),
    'is ' || f.status || ' and its final event is posted'),
  ('final_posting', NOT f.is_open AND (f.captured_sum <> f.captured OR f.released_sum <> f.amount - f.captured OR f.others > 0),
    'is ' || f.status || ': captured ' || f.captured || ' of ' || f.amount || ', posted ' || f.captured_sum || ' and released '
      || f.released_sum || ', other lines ' || f.others),
  ('hold_posting', f.hold_sum <> f.amount OR f.hold_others > 0, 'amount ' || f.amount || ', held ' || f.hold_sum),
  ('captured_fits', CASE f.status WHEN 'succeeded' THEN f.captured <> f.amount
      WHEN 'partially_succeeded' THEN f.delivered_units NOT BETWEEN 1 AND f.quantity - 1
        OR f.captured <> f.amount * f.delivered_units / f.quantity
      ELSE f.captured <> 0 END,
    'is ' || f.status || ': captured ' || f.captured || ' of ' || f.amount || ', units ' || f.delivered_units || ' of ' || f.quantity),
  ('committed_units', f.committed_units <> f.live_units + f.given,
    'committed ' || f.committed_units || ', live ' || f.live_units || ', delivered ' || f.given),
  ('delivered_units', f.delivered_units <> f.given OR f.status = 'succeeded' AND f.delivered_units <> f.quantity
      OR f.status IN ('failed', 'cancelled') AND f.delivered_units <> 0,
    'is ' || f.status || ': delivered ' || f.delivered_units || ' of ' || f.quantity || ', attempts ' || f.given),
  ('one_live_attempt', f.live > 1 OR f.live > 0 AND NOT f.is_open, 'is ' || f.status || ' with ' || f.live || ' live attempts'),
  ('refunds', f.refund_sum <> f.refunded OR f.refund_posted <> f.refunded OR f.refunded > f.captured,
    'refunded ' || f.refunded || ' of ' || f.captured || ', refunds ' || f.refund_sum || ', posted ' || f.refund_posted),
  ('codes_count', f.codes <> f.codes_count, 'codes_count ' || f.codes_count || ', rows ' || f.codes)
) AS b (invariant, broken, detail) WHERE b.broken
LIMIT {_MOST}
"""

# Parked work counts as known: its alarm has told a person. A step taken within the grace may be between two of our transactions.
_TASK_MISSING: Final = f"""
SELECT o.book_id, o.order_id, 'is ' || o.status || ' and nothing is due for it' AS detail
FROM orders o LEFT JOIN attempts a ON a.book_id = o.book_id AND a.order_id = o.order_id AND a.state IN {_LIVE}
WHERE o.status IN {_OPEN} AND o.substatus IS DISTINCT FROM 'manual_review'
  AND o.created_at < now() - make_interval(secs => $1) AND (a.sent_at IS NULL OR a.sent_at < now() - make_interval(secs => $1))
  AND NOT EXISTS (SELECT FROM tasks t WHERE t.book_id = o.book_id AND t.lane = 'submit' AND t.ref = o.order_id)
  AND NOT EXISTS (SELECT FROM tasks t WHERE t.book_id = a.book_id AND t.lane = 'look_up' AND t.ref = a.attempt_id)
  AND NOT EXISTS (SELECT FROM attempts s WHERE s.book_id = o.book_id AND s.order_id = o.order_id
    AND s.settled_at > now() - make_interval(secs => $1))
LIMIT {_MOST}
"""

# Exact sums of accounts without a floor, per book: rolled up, plus everything since; `like` names the accounts.
_EXACT: Final = """
  SELECT book_id, account, currency, sum(net) AS net FROM (
    SELECT book_id, account, currency, credits - debits AS net FROM rollups WHERE {like}
    UNION ALL
    SELECT t.book_id, x.account, t.currency, x.net FROM transfers t,
      LATERAL (VALUES (t.debit_account, -t.amount), (t.credit_account, t.amount)) AS x (account, net)
    WHERE t.xid >= (SELECT upto_xid FROM rollup_marks WHERE book_range = 0) AND {like}
  ) AS s GROUP BY 1, 2, 3
"""

_HELD_IS_OPEN: Final = f"""
WITH held AS ({_EXACT.format(like="account = $1")}),
open AS (SELECT book_id, currency, sum(amount) AS amount, count(*) AS n FROM orders WHERE status IN {_OPEN} GROUP BY 1, 2)
SELECT book_id, currency || ' off by ' || coalesce(h.net, 0) - coalesce(o.amount, 0) || '; held ' || coalesce(h.net, 0) || ', open orders '
  || coalesce(o.amount, 0) || ' in ' || coalesce(o.n, 0) AS detail
FROM held h FULL JOIN open o USING (book_id, currency) WHERE coalesce(h.net, 0) <> coalesce(o.amount, 0)
LIMIT {_MOST}
"""

_WIP_IS_LIVE: Final = f"""
WITH wip AS ({_EXACT.format(like="starts_with(account, $1)")}),
live AS (SELECT book_id, $1 || channel_id AS account, currency, sum(cost) AS cost FROM attempts WHERE state IN {_LIVE}
  GROUP BY 1, 2, 3)
SELECT book_id, account || ' ' || currency || ' off by ' || -coalesce(w.net, 0) - coalesce(l.cost, 0) || '; in progress '
  || -coalesce(w.net, 0) || ', live attempts ' || coalesce(l.cost, 0) AS detail
FROM wip w FULL JOIN live l USING (book_id, account, currency) WHERE -coalesce(w.net, 0) <> coalesce(l.cost, 0)
LIMIT {_MOST}
"""

# A transfer cannot but sum to zero; what is kept beside it (balances, roll-ups) can be changed without it. $1: floor accounts.
_SUM_ZERO: Final = f"""
SELECT book_id, currency || ' off by ' || sum(net) AS detail FROM (
  SELECT book_id, currency, balance::numeric AS net FROM accounts
  UNION ALL SELECT book_id, currency, net FROM ({_EXACT.format(like="account <> ALL ($1::text[])")}) AS e
) AS s GROUP BY book_id, currency HAVING sum(net) <> 0
LIMIT {_MOST}
"""

# Events are pruned by age, so only orders finished after the oldest kept second are asked for theirs. $1: xid to begin at, $2: since when.
_EVENTS: Final = f"""
WITH told AS (
  SELECT book_id, order_id, count(*) FILTER (WHERE type IN {_FINAL_EVENTS}) AS finals, max(version) AS newest,
    count(*) - count(DISTINCT version) AS doubles,
    max(type) FILTER (WHERE type IN {_FINAL_EVENTS}) AS final_type,
    max(version) FILTER (WHERE type IN {_FINAL_EVENTS})
      <= max(version) FILTER (WHERE type IN ('order.accepted', 'order.processing')) AS backwards
  FROM events WHERE xid >= $1 AND order_id IS NOT NULL GROUP BY 1, 2
), asked AS (
  SELECT o.book_id, o.order_id, o.status, o.version, t.finals, t.newest, t.doubles, t.final_type, t.backwards
  FROM told t JOIN orders o USING (book_id, order_id)
  UNION ALL
  SELECT o.book_id, o.order_id, o.status, o.version, 0, 0, 0, NULL, false FROM orders o
  WHERE $3 AND o.completed_at >= $2 AND NOT EXISTS (
    SELECT FROM told t WHERE t.book_id = o.book_id AND t.order_id = o.order_id)
)
SELECT a.book_id, a.order_id, b.invariant, b.detail FROM asked a
JOIN orders o USING (book_id, order_id) CROSS JOIN LATERAL (VALUES
  ('one_final_event', a.status IN {_OPEN} AND a.finals > 0, 'is ' || a.status || ' and told ' || coalesce(a.final_type, '')),
  ('one_final_event', a.finals > 1 OR a.finals = 0 AND a.status NOT IN {_OPEN} AND o.completed_at >= $2
      OR a.final_type <> 'order.' || a.status,
    'is ' || a.status || ' and told ' || a.finals || ' times' || coalesce(', ' || a.final_type, '')),
  ('versions', a.newest > a.version OR a.doubles > 0 OR a.backwards,
    'version ' || a.version || ', newest told ' || a.newest || ', told twice ' || a.doubles)
) AS b (invariant, broken, detail) WHERE b.broken
LIMIT {_MOST}
"""

_FINGERPRINTS: Final = f"""
SELECT book_id, order_id, 'codes_count ' || coalesce(o.codes_count, 0) || ', fingerprints ' || coalesce(f.n, 0) AS detail
FROM (SELECT book_id, order_id, codes_count FROM orders WHERE codes_count > 0) AS o
FULL JOIN (SELECT book_id, order_id, count(*) AS n FROM code_fingerprints GROUP BY 1, 2) AS f USING (book_id, order_id)
WHERE coalesce(o.codes_count, 0) <> coalesce(f.n, 0)
LIMIT {_MOST}
"""

# Rows are nearly in time order along xid, so walking back from the newest reads little more than the window.
_WINDOW: Final = """
SELECT coalesce((SELECT xid + 1 FROM events WHERE created_at < now() - make_interval(secs => $1)
  ORDER BY xid DESC LIMIT 1), 0) AS xid, now() - make_interval(secs => $1 / 2) AS sure
"""

_TOUCHED: Final = """
SELECT DISTINCT book_id, order_id FROM (
  SELECT book_id, order_id FROM events WHERE xid >= $1 AND order_id IS NOT NULL
  UNION ALL
  SELECT book_id, order_id FROM transfers WHERE xid >= $1 AND order_id IS NOT NULL
) AS t LIMIT $2
"""

_NEXT_ORDERS: Final = """
SELECT book_id, order_id FROM orders WHERE (book_id, order_id) > ($1, $2) ORDER BY book_id, order_id LIMIT $3
"""

STOPPING: Final = frozenset((
    "balance_is_sum", "chain", "floor_marks", "rollup_is_sum", "funding_clears", "sum_zero",
    "final_posting", "hold_posting", "captured_fits", "refunds", "held_is_open", "wip_is_live",
))  # fmt: skip
"""What is wrong with money itself stops the postings of its book. What is only late, untold or miscounted raises an alarm and stops nothing."""

OrderKey = tuple[int, UUID]


async def check_all(tx: Tx, *, events_kept: timedelta = timedelta(days=90)) -> list[Breach]:
    """Everything, from the first order on. Reads all books and orders; nightly, or when an operator asks.

    `events_kept` is the age at which events are pruned: older orders are not asked for theirs.
    """
    await execute(tx, "SET LOCAL statement_timeout = '10min'")
    found = list(await ledger.list_breaches(tx)) + await check_sums(tx)
    async for keys in _all_orders(tx):
        found += await check_orders(tx, keys)
        if len(found) >= 10 * _MOST:
            break
    found += await check_open_orders(tx)
    [kept] = await fetch(tx, "SELECT now() - $1::interval AS since", events_kept - timedelta(minutes=10))
    found += _of_orders(await fetch(tx, _EVENTS, 0, kept["since"], True))
    found += _of_orders(await fetch(tx, _FINGERPRINTS), "fingerprints")
    return found


async def check_recent(tx: Tx, since: timedelta) -> list[Breach]:
    """Orders that something happened to within `since`, and everything about open orders; for every few minutes. Bounded, whatever the load."""
    [window] = await fetch(tx, _WINDOW, since.total_seconds())
    touched = [(r["book_id"], r["order_id"]) for r in await fetch(tx, _TOUCHED, window["xid"], _MOST_TOUCHED)]
    found: list[Breach] = []
    for start in range(0, len(touched), _BATCH):
        found += await check_orders(tx, touched[start : start + _BATCH])
    found += await check_open_orders(tx) + await check_sums(tx)
    found += _of_orders(await fetch(tx, _EVENTS, window["xid"], window["sure"], False))
    return found


async def check_orders(tx: Tx, orders: Sequence[OrderKey]) -> list[Breach]:
    """What must be true of each of these orders by itself."""
    texts = [ulid_text(order_id) for _, order_id in orders]
    rows = await fetch(
        tx,
        _ORDERS,
        [book for book, _ in orders],
        [order for _, order in orders],
        [f"order:{t}:hold" for t in texts],
        [f"order:{t}:final" for t in texts],
        books.AVAILABLE,
        books.HELD,
        books.SALES,
    )
    return _of_orders(rows)


async def check_open_orders(tx: Tx) -> list[Breach]:
    """What must be true of all open orders and live attempts together."""
    found = _of_orders(await fetch(tx, _TASK_MISSING, float(_GRACE_S)), "task_missing")
    found += [Breach("held_is_open", r["book_id"], r["detail"]) for r in await fetch(tx, _HELD_IS_OPEN, books.HELD)]
    rows = await fetch(tx, _WIP_IS_LIVE, books.supplier_wip(""))
    return found + [Breach("wip_is_live", r["book_id"], r["detail"]) for r in rows]


async def check_sums(tx: Tx) -> list[Breach]:
    """M1. Reads balances, roll-ups and what was posted since: little, however old the books."""
    rows = await fetch(tx, _SUM_ZERO, sorted(books.FLOOR_ACCOUNTS))
    return [Breach("sum_zero", r["book_id"], r["detail"]) for r in rows]


async def _all_orders(tx: Tx) -> AsyncIterator[list[OrderKey]]:
    last: OrderKey = (0, UUID(int=0))
    while rows := await fetch(tx, _NEXT_ORDERS, *last, _BATCH):
        keys = [(r["book_id"], r["order_id"]) for r in rows]
        yield keys
        last = keys[-1]


def _of_orders(rows: Sequence[object], invariant: str | None = None) -> list[Breach]:
    return [
        Breach(invariant or r["invariant"], r["book_id"], f"{public_id('ord', r['order_id'])} {r['detail']}")  # type: ignore[index]
        for r in rows
    ]
