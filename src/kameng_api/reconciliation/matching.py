"""Lay a channel's statement of a day beside our attempts and the ledger, in bounded steps that can be cut off and repeated.

Each step is a few set-based statements over at most `PAGE` rows; the database finds what agrees, and only what does not is looked at here. A
run that was cut off goes on at its place; a run made again finds the same and changes nothing. No money moves: steps need not wait for the log.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final
from uuid import UUID
from zoneinfo import ZoneInfo

import orjson

from kameng_api.alarms import actions as alarms
from kameng_api.kit.db import Database, Tx, execute, fetch
from kameng_api.kit.ids import new_ulid
from kameng_api.reconciliation import queries, rules
from kameng_api.reconciliation.queries import BUSINESS_DAY, Run
from kameng_api.reconciliation.rules import CLASSES, DRIFT, GAP, STRANGER, Facts, Finding, Terms

PAGE: Final = 20_000
STEPS: Final = ("reference", "order_no", "suggest", "strangers", "sent", "told", "kept")
_STRANGERS_AT_ONCE: Final = 5_000
_ORDER_NO_PAGES: Final = 10
"""Lines without a reference are matched so many pages at once: each time reads the attempts of three days."""
_TICK: Final = timedelta(microseconds=1)
_FIRST_PLACE: Final = {"sent": "", "told": "0", "reference": "0", "kept": str(UUID(int=0)), "strangers": ""}

_COUNTED: Final = "l.kind IN ('charge', 'refund', 'reversal') AND l.withdrawn_at IS NULL"
_UNMATCHED: Final = "NOT EXISTS (SELECT FROM recon_matches m WHERE m.line_id = l.line_id)"
_UNMATCHED_NOW: Final = "(SELECT true FROM recon_matches m WHERE m.line_id = l.line_id) IS NULL"
"""The same, by key for each line: for a page, where `_UNMATCHED` might read all matches."""

_LINES_END: Final = """
SELECT line_id FROM recon_lines WHERE channel_id = $1 AND day = $2 AND line_id > $3 ORDER BY line_id OFFSET $4 - 1 LIMIT 1
"""

# How every statement here is written: whatever is looked up by a key of ours is looked up row by row in a subquery with OFFSET 0, which the
# planner may neither flatten nor turn round. A day's statistics are those of the day before, or of an empty table, so its guesses about how many
# lines a page has are off by thousands either way; a join that it may choose freely is then, some days, the product of two pages.
_BY_REFERENCE: Final = f"""
INSERT INTO recon_matches (line_id, book_id, attempt_id, rule, run_id)
SELECT l.line_id, a.book_id, a.attempt_id, 'reference', $5
FROM (
  SELECT l.* FROM recon_lines l
  WHERE l.channel_id = $1 AND l.day = $2 AND l.line_id > $3 AND l.line_id <= $4 AND {_COUNTED} AND {_UNMATCHED_NOW}
  ORDER BY l.book_id, l.attempt_id OFFSET 0) AS l
CROSS JOIN LATERAL (
  SELECT a.book_id, a.attempt_id FROM attempts a WHERE a.book_id = l.book_id AND a.attempt_id = l.attempt_id
    AND a.reference = l.reference AND a.channel_id = l.channel_id OFFSET 0) AS a
ON CONFLICT DO NOTHING
"""

# Only lines without a reference of ours; a number that two attempts carry proves nothing. No index has these numbers (it would be one more for
# every purchase): both sides are read once and hashed, see `_order_no`.
_BY_ORDER_NO: Final = f"""
WITH l AS MATERIALIZED (
  SELECT l.line_id, l.supplier_order_no, l.at FROM recon_lines l
  WHERE l.channel_id = $1 AND l.day = $2 AND l.line_id > $3 AND l.line_id <= $4 AND l.attempt_id IS NULL AND l.supplier_order_no IS NOT NULL
    AND {_COUNTED} AND {_UNMATCHED_NOW}
), near AS (
  SELECT l.line_id, min(a.book_id) AS book_id, min(a.attempt_id::text)::uuid AS attempt_id FROM l
  JOIN attempts a ON a.supplier_order_no = l.supplier_order_no
  WHERE a.channel_id = $1 AND a.sent_at >= (SELECT min(at) FROM l) - interval '3 days' AND a.sent_at <= (SELECT max(at) FROM l) + interval '1 hour'
  GROUP BY 1 HAVING count(*) = 1
)
INSERT INTO recon_matches (line_id, book_id, attempt_id, rule, run_id)
SELECT line_id, book_id, attempt_id, 'order_no', $5 FROM near ON CONFLICT DO NOTHING
"""

# Same cost, same currency, ten minutes apart, no line of its own, and no other account where both know one. The attempts that no line told of are
# found once; where there are thousands of them a suggestion says nothing, and not all are tried.
_SUGGEST: Final = f"""
WITH l AS MATERIALIZED (
  SELECT l.* FROM recon_lines l
  WHERE l.channel_id = $1 AND l.day = $2 AND l.kind = 'charge' AND {_COUNTED} AND {_UNMATCHED} ORDER BY l.line_id LIMIT 1000
), free AS MATERIALIZED (
  SELECT a.book_id, a.attempt_id, a.order_id, a.sent_at, a.currency, coalesce(a.actual_cost, a.cost) AS cost FROM attempts a
  WHERE a.channel_id = $1 AND a.sent_at >= (SELECT min(at) FROM l) - interval '10 minutes'
    AND a.sent_at <= (SELECT max(at) FROM l) + interval '10 minutes' AND coalesce(a.actual_cost, a.cost) IN (SELECT -amount FROM l)
    AND (SELECT true FROM recon_matches m WHERE m.book_id = a.book_id AND m.attempt_id = a.attempt_id LIMIT 1) IS NULL
  ORDER BY a.sent_at LIMIT 5000
), known AS MATERIALIZED (
  SELECT f.*, o.target_hash, o.face_value FROM free f
  CROSS JOIN LATERAL (SELECT o.target_hash, o.face_value FROM orders o WHERE o.book_id = f.book_id AND o.order_id = f.order_id OFFSET 0) AS o
)
INSERT INTO recon_suggestions (line_id, book_id, attempt_id, why, run_id)
SELECT l.line_id, c.book_id, c.attempt_id, 'same amount within ten minutes' || CASE WHEN c.same THEN ', same account' ELSE '' END, $3
FROM l CROSS JOIN LATERAL (
  SELECT k.book_id, k.attempt_id, coalesce(k.target_hash = l.account_hash, false) AS same FROM known k
  WHERE k.sent_at BETWEEN l.at - interval '10 minutes' AND l.at + interval '10 minutes' AND k.cost = -l.amount AND k.currency = l.currency
    AND coalesce(k.target_hash = l.account_hash, true) AND coalesce(k.face_value = l.face_value, true)
  ORDER BY same DESC, abs(extract(epoch FROM k.sent_at - l.at)), k.attempt_id LIMIT 3) AS c
ON CONFLICT DO NOTHING
"""

_STRANGERS: Final = f"""
SELECT coalesce(l.reference, l.supplier_order_no, l.ext_line_id) AS name, l.currency, min(l.line_id) AS line_id, count(*) AS lines,
  -sum(l.amount)::bigint AS amount, min(l.at) AS at, bool_or(l.attempt_id IS NOT NULL) AS ours
FROM recon_lines l
WHERE l.channel_id = $1 AND l.day = $2 AND {_COUNTED} AND {_UNMATCHED} AND coalesce(l.reference, l.supplier_order_no, l.ext_line_id) > $3
GROUP BY 1, 2 ORDER BY 1, 2 LIMIT $4
"""

# What was booked of a stranger's charges: as a claim that is open, or for good. One that was paid on a statement of another day explains its
# charge as before; one that was paid by these lines themselves took nothing in the end.
_STRANGERS_BOOKED: Final = """
SELECT b.subject,
  coalesce(sum(b.amount) FILTER (WHERE b.state = 'closed' AND (b.closed_because <> 'paid' OR b.evidence ? 'paid_by')), 0)::bigint AS booked,
  coalesce(sum(b.amount) FILTER (WHERE b.state = 'approved'), 0)::bigint AS claimed
FROM unnest($1::text[]) AS k (subject) JOIN recon_breaks b ON b.subject = k.subject
WHERE b.class = 'R5' AND b.resolution IN ('claim', 'loss') AND b.state IN ('closed', 'approved') GROUP BY 1
"""

# What their lines of that day still take of charges that are claimed: less, when it was given back in a newer telling.
_TAKEN_NOW: Final = """
UPDATE recon_breaks b SET evidence = b.evidence || jsonb_build_object('taken_now', k.amount)
FROM unnest($1::text[], $2::bigint[]) AS k (subject, amount)
WHERE b.subject = k.subject AND b.class = 'R5' AND b.state = 'approved' AND b.resolution = 'claim'
  AND coalesce((b.evidence->>'taken_now')::bigint, b.amount) <> k.amount
"""

# In the order of the index, so that no plan sorts the day. Attempts of one moment are never parted: a page may be longer by them.
_SENT_END: Final = """
SELECT sent_at FROM attempts WHERE channel_id = $1 AND sent_at > $2 AND sent_at < $3 ORDER BY sent_at OFFSET $4 - 1 LIMIT 1
"""

_OF_SENT: Final = """
SELECT a.* FROM attempts a WHERE a.channel_id = $1 AND a.sent_at > $2 AND a.sent_at <= $3
"""

# Attempts of another day that this day's lines are about.
_OF_TOLD: Final = """
SELECT a.* FROM (
  SELECT DISTINCT m.book_id, m.attempt_id FROM recon_lines l
  CROSS JOIN LATERAL (SELECT m.book_id, m.attempt_id FROM recon_matches m WHERE m.line_id = l.line_id OFFSET 0) AS m
  WHERE l.channel_id = $1 AND l.day = $2 AND l.line_id > $3 AND l.line_id <= $4 ORDER BY 1, 2 OFFSET 0) AS m
CROSS JOIN LATERAL (
  SELECT a.* FROM attempts a WHERE a.book_id = m.book_id AND a.attempt_id = m.attempt_id AND (a.sent_at < $5 OR a.sent_at >= $6) OFFSET 0) AS a
"""

_OF_KEYS: Final = """
SELECT a.* FROM unnest($1::bigint[], $2::uuid[]) AS k (book_id, attempt_id)
JOIN attempts a ON a.book_id = k.book_id AND a.attempt_id = k.attempt_id
"""

# The three legs of each attempt, and of those only which do not agree beyond doubt. `{picked}` selects the attempts.
# The ledger is read by the prefix that all events of one attempt share; keys sort by byte in our databases.
# `booked`: what resolved breaks of the attempt have taken from our prepaid account, over and above its own events; `claimed`: what claims that
# are not paid yet have. Late successes are such events of its own.
_LEGS: Final = """
WITH k AS MATERIALIZED (
  SELECT p.*, 'attempt:' || right(p.reference, 26) AS name, 'supplier_prepaid:' || p.channel_id AS wallet, 'supplier_wip:' || p.channel_id AS work,
    'cogs:' || p.channel_id AS spent FROM ({picked}) AS p ORDER BY p.book_id, p.attempt_id
), legs AS (
  SELECT k.*, b.*, coalesce(c.prepaid, 0) AS prepaid, coalesce(c.wip, 0) AS wip, coalesce(c.cogs, 0) AS cogs, coalesce(c.suspense, 0) AS suspense,
    coalesce(d.booked, 0) AS booked, coalesce(d.claimed, 0) AS claimed
  FROM k CROSS JOIN LATERAL (
    SELECT count(*) FILTER (WHERE l.kind = 'charge') AS charges,
      coalesce(-sum(l.amount) FILTER (WHERE l.kind = 'charge'), 0)::bigint AS charged,
      coalesce(max(-l.amount) FILTER (WHERE l.kind = 'charge'), 0) AS largest_charge,
      count(*) FILTER (WHERE l.kind <> 'charge') AS refunds,
      coalesce(sum(l.amount) FILTER (WHERE l.kind <> 'charge'), 0)::bigint AS refunded,
      count(*) FILTER (WHERE l.kind = 'reversal') AS reversals,
      max(l.at) FILTER (WHERE l.kind <> 'charge') AS last_refund_at,
      max(l.supplier_order_no) AS theirs_no,
      min(l.currency) AS currency_low, max(l.currency) AS currency_high,
      min(l.face_value) AS face_low, max(l.face_value) AS face_high, sum(l.units) FILTER (WHERE l.kind = 'charge') AS their_units,
      min(l.account_hash) AS account_low, max(l.account_hash) AS account_high
    FROM recon_matches m CROSS JOIN LATERAL (SELECT l.* FROM recon_lines l WHERE l.line_id = m.line_id AND l.withdrawn_at IS NULL OFFSET 0) AS l
    WHERE m.book_id = k.book_id AND m.attempt_id = k.attempt_id
  ) AS b CROSS JOIN LATERAL (
    SELECT
      sum(CASE k.wallet WHEN t.debit_account THEN t.amount WHEN t.credit_account THEN -t.amount END)::bigint AS prepaid,
      sum(CASE k.work WHEN t.debit_account THEN t.amount WHEN t.credit_account THEN -t.amount END)::bigint AS wip,
      sum(CASE k.spent WHEN t.debit_account THEN t.amount WHEN t.credit_account THEN -t.amount END)::bigint AS cogs,
      sum(CASE 'suspense' WHEN t.debit_account THEN t.amount WHEN t.credit_account THEN -t.amount END)::bigint AS suspense
    FROM transfers t WHERE t.book_id = k.book_id AND t.event_key >= k.name || ':' AND t.event_key < k.name || ';' AND t.currency = k.currency
  ) AS c CROSS JOIN LATERAL (
    SELECT sum(t.taken) FILTER (WHERE b.state = 'closed')::bigint AS booked, sum(t.taken) FILTER (WHERE b.state = 'approved')::bigint AS claimed
    FROM recon_breaks b CROSS JOIN LATERAL (
      SELECT CASE k.wallet WHEN t.credit_account THEN t.amount WHEN t.debit_account THEN -t.amount END AS taken
      FROM transfers t WHERE t.book_id = b.book_id AND t.currency = k.currency
        AND t.event_key IN (b.parked_key, b.event_key, b.event_key || ':paid', replace(b.parked_key, ':park', ':unpark'))
        AND NOT starts_with(t.event_key, 'attempt:') OFFSET 0) AS t
    WHERE b.subject = k.name AND b.book_id = k.book_id AND b.state IN ('closed', 'approved') AND b.class NOT IN ('R4', 'R9')
  ) AS d
), judged AS (
  SELECT x.*, (x.prepaid = -x.cogs AND x.wip = 0 AND x.suspense = 0
    AND coalesce(x.currency_low, x.currency) = x.currency AND coalesce(x.currency_high, x.currency) = x.currency
    AND CASE WHEN x.state = 'delivered' THEN x.charges > 0 AND x.charged - x.refunded = coalesce(x.actual_cost, 0) - x.reversed_amount
        AND x.cogs = coalesce(x.actual_cost, 0) - x.reversed_amount
      WHEN x.state IN ('refused', 'not_sent') THEN x.charged = x.refunded AND x.cogs = 0
      ELSE false END) AS agrees FROM legs x
), doubtful AS MATERIALIZED (
  SELECT * FROM judged x
  WHERE {all} NOT x.agrees OR x.booked <> 0 OR x.claimed <> 0 OR x.face_low IS NOT NULL OR x.their_units IS NOT NULL OR x.account_low IS NOT NULL
), facts AS (
SELECT x.agrees, x.booked, x.claimed, x.book_id, x.attempt_id, x.order_id, x.channel_id, o.environment, x.reference, x.state, x.units,
  x.delivered_units, x.currency, x.cost, x.actual_cost, x.reversed_amount, (x.sent_at AT TIME ZONE $TZ)::date AS sent_on, x.settled_at, x.trouble,
  o.quantity,
  o.delivered_units - x.delivered_units AS order_delivered_units, x.charges, x.charged, x.largest_charge, x.refunds, x.refunded, x.reversals,
  x.last_refund_at, CASE WHEN x.refunds > 0 THEN ({last_refund}) END AS external_id, x.theirs_no AS supplier_order_no,
  coalesce(x.currency_low <> x.currency OR x.currency_high <> x.currency, false) AS other_currency,
  coalesce(x.face_low <> o.face_value OR x.face_high <> o.face_value, false)
    OR coalesce(x.account_low <> o.target_hash OR x.account_high <> o.target_hash, false)
    OR coalesce(x.state = 'delivered' AND x.charges = 1 AND x.refunds = 0 AND x.their_units <> x.delivered_units, false) AS other_attributes,
  x.prepaid, x.wip, x.cogs, x.suspense
FROM doubtful x CROSS JOIN LATERAL (
  SELECT o.environment, o.quantity, o.delivered_units, o.face_value, o.target_hash FROM orders o
  WHERE o.book_id = x.book_id AND o.order_id = x.order_id OFFSET 0) AS o
)
SELECT * FROM facts WHERE {wanted}
"""

_LAST_REFUND: Final = """
SELECT coalesce(l.external_id, l.ext_line_id) FROM recon_matches m
CROSS JOIN LATERAL (SELECT l.* FROM recon_lines l WHERE l.line_id = m.line_id AND l.withdrawn_at IS NULL AND l.kind <> 'charge' OFFSET 0) AS l
WHERE m.book_id = x.book_id AND m.attempt_id = x.attempt_id ORDER BY l.at DESC, l.line_id DESC LIMIT 1
"""

_SEEN: Final = """
INSERT INTO recon_breaks (break_id, class, channel_id, environment, subject, book_id, order_id, attempt_id, line_id, amount, currency, fingerprint,
  state, owner, evidence, due_at, run_id, first_seen_at)
SELECT k.break_id, k.class, k.channel_id, k.environment, k.subject, k.book_id, k.order_id, k.attempt_id, k.line_id, k.amount, k.currency,
  k.fingerprint, k.state, k.owner, k.evidence::jsonb, coalesce(k.due_on::timestamptz, now() + make_interval(hours => k.due_hours)), $1,
  coalesce((SELECT min(b.first_seen_at) FROM recon_breaks b WHERE b.subject = k.subject AND b.state NOT IN ('closed', 'approved')), now())
FROM unnest($2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bigint[], $8::uuid[], $9::uuid[], $10::bigint[], $11::bigint[],
  $12::text[], $13::text[], $14::text[], $15::text[], $16::text[], $17::date[], $18::int[]) AS k (break_id, class, channel_id, environment, subject,
  book_id, order_id, attempt_id, line_id, amount, currency, fingerprint, state, owner, evidence, due_on, due_hours)
WHERE NOT EXISTS (SELECT FROM recon_breaks b WHERE b.subject = k.subject AND b.class = k.class
  AND (b.state NOT IN ('closed', 'approved') OR b.state = 'approved' AND b.class IN ('R4', 'R9')
    OR b.fingerprint = k.fingerprint AND b.resolution IS NOT NULL))
ORDER BY k.subject, k.class
ON CONFLICT (subject, class) WHERE state NOT IN ('closed', 'approved') DO NOTHING
RETURNING break_id
"""

# New facts under an open break; one that a person has proposed something for stays as they saw it, and cannot be approved any more.
_MOVED: Final = """
UPDATE recon_breaks b SET amount = k.amount, fingerprint = k.fingerprint, evidence = k.evidence::jsonb, run_id = $1,
  state = CASE WHEN b.state = 'waiting' AND b.parked_key IS NULL AND k.class <> 'R2' THEN 'open' ELSE b.state END
FROM unnest($2::text[], $3::text[], $4::bigint[], $5::text[], $6::text[]) AS k (class, subject, amount, fingerprint, evidence)
WHERE b.subject = k.subject AND b.class = k.class AND b.state IN ('open', 'waiting') AND b.parked_key IS NULL
  AND b.fingerprint <> k.fingerprint
"""

_KEPT: Final = """
SELECT break_id, class, subject, book_id, attempt_id, line_id FROM recon_breaks
WHERE channel_id = $1 AND state IN ('open', 'waiting') AND class <> 'R11' AND parked_key IS NULL AND break_id > $2 ORDER BY break_id LIMIT $3
"""

_GONE: Final = """
UPDATE recon_breaks b SET state = 'closed', closed_at = now(), resolution = NULL,
  closed_because = coalesce('became ' || (SELECT min(n.class) FROM recon_breaks n
    WHERE n.subject = b.subject AND n.state <> 'closed' AND n.class <> b.class AND n.class <> 'R13'), 'both agree now')
WHERE b.break_id = ANY ($1::uuid[]) AND b.state IN ('open', 'waiting')
"""

_LINES_TAKEN: Final = f"""
SELECT b.break_id FROM unnest($1::uuid[], $2::bigint[]) AS b (break_id, line_id)
WHERE NOT EXISTS (SELECT FROM recon_lines l WHERE l.line_id = b.line_id AND {_COUNTED} AND {_UNMATCHED})
"""

_MOVE: Final = """
UPDATE recon_runs SET step = $2, place = $3, counts = $4::text::jsonb, state = $5, finished_at = CASE WHEN $5 = 'done' THEN now() END
WHERE run_id = $1
"""


async def run_day(db: Database, channel_id: str, day: date, by: str, *, page: int = PAGE) -> Run:
    """Compare one day to the end, each step in a transaction of its own. Safe to call again, whatever happened to the last call."""
    async with db.transaction() as tx:
        run = await start_run(tx, channel_id, day, by)
    while run.state == "running":
        async with db.transaction() as tx:
            run = await advance(tx, run, page=page)
    return run


async def start_run(tx: Tx, channel_id: str, day: date, by: str) -> Run:
    """A new run of this day, or the one that was cut off. Raises NotFound for a channel that does not exist."""
    await queries.environment_of(tx, channel_id)
    await execute(
        tx,
        """INSERT INTO recon_runs (run_id, channel_id, day, by, step, place, terms)
        SELECT $1, $2, $3, $4, $5, $6, coalesce(jsonb_agg(jsonb_build_object('source', name, 'complete', complete, 'charges_at', charges_at,
          'window_days', window_days, 'timezone', timezone, 'tolerance', tolerance) ORDER BY name), '[]') FROM recon_sources
        WHERE channel_id = $2 AND enabled
        ON CONFLICT (channel_id, day) WHERE state = 'running' DO NOTHING""",
        new_ulid(), channel_id, day, by, STEPS[0], _FIRST_PLACE[STEPS[0]],
    )  # fmt: skip
    [row] = await fetch(tx, f"SELECT {queries.RUN} FROM recon_runs WHERE channel_id = $1 AND day = $2 AND state = 'running'", channel_id, day)
    return queries.run_of(row)


async def advance(tx: Tx, run: Run, *, page: int = PAGE) -> Run:
    """One bounded piece of the run; where it stands is read and written under the run's own row lock. Commit after each."""
    await execute(tx, "SET LOCAL synchronous_commit = off")
    await execute(tx, "SET LOCAL plan_cache_mode = force_custom_plan")
    await execute(tx, "SET LOCAL work_mem = '64MB'")
    [row] = await fetch(tx, f"SELECT {queries.RUN} FROM recon_runs WHERE run_id = $1 FOR UPDATE", run.run_id)
    run = queries.run_of(row)
    if run.state != "running":
        return run
    step = _Step(tx, run, page)
    place = await step.take()
    if place is not None:
        return await _move(tx, run, run.step, place, step.counts, "running")
    following = STEPS.index(run.step) + 1
    if following < len(STEPS):
        name = STEPS[following]
        return await _move(tx, run, name, _FIRST_PLACE.get(name, ""), step.counts, "running")
    await _tell(tx, run.channel_id)
    return await _move(tx, run, run.step, "", step.counts, "done")


async def _move(tx: Tx, run: Run, step: str, place: str, counts: dict[str, int], state: str) -> Run:
    await execute(tx, _MOVE, run.run_id, step, place, orjson.dumps(counts).decode(), state)
    return replace(run, state=state, step=step, place=place, counts=counts)


class _Step:
    """One piece of one step. `take` returns the place where the next piece begins, None when the step is over."""

    def __init__(self, tx: Tx, run: Run, page: int) -> None:
        self._tx = tx
        self._run = run
        self._page = page
        self.counts: dict[str, int] = dict(run.counts)

    async def take(self) -> str | None:
        return await getattr(self, f"_{self._run.step}")()  # type: ignore[no-any-return]

    def _add(self, name: str, n: int) -> None:
        self.counts[name] = self.counts.get(name, 0) + n

    # ---- lines find their attempts

    async def _reference(self) -> str | None:
        start = int(self._run.place)
        end = await self._lines_end(start)
        last = end if end is not None else 2**62
        matched = await execute(self._tx, _BY_REFERENCE, self._run.channel_id, self._run.day, start, last, self._run.run_id)
        self._add("matched", matched)
        return None if end is None else str(end)

    async def _lines_end(self, start: int, *, at_once: int | None = None) -> int | None:
        rows = await fetch(self._tx, _LINES_END, self._run.channel_id, self._run.day, start, at_once or self._page)
        return rows[0]["line_id"] if rows else None

    async def _order_no(self) -> str | None:
        start = int(self._run.place or 0)
        end = await self._lines_end(start, at_once=self._page * _ORDER_NO_PAGES)
        last = end if end is not None else 2**62
        # A loop over two lists without an index is the one plan that must not be; guessed sizes would allow it.
        await execute(self._tx, "SET LOCAL enable_nestloop = off")
        found = await execute(self._tx, _BY_ORDER_NO, self._run.channel_id, self._run.day, start, last, self._run.run_id)
        await execute(self._tx, "SET LOCAL enable_nestloop = on")
        self._add("matched_by_order_no", found)
        return None if end is None else str(end)

    async def _suggest(self) -> str | None:
        self._add("suggested", await execute(self._tx, _SUGGEST, self._run.channel_id, self._run.day, self._run.run_id))
        return None

    async def _strangers(self) -> str | None:
        run = self._run
        rows = await fetch(self._tx, _STRANGERS, run.channel_id, run.day, run.place, _STRANGERS_AT_ONCE)
        environment = await queries.environment_of(self._tx, run.channel_id)
        found = [_stranger(run.channel_id, environment, run.day, r) for r in rows]
        booked = {r["subject"]: (r["booked"], r["claimed"]) for r in await fetch(self._tx, _STRANGERS_BOOKED, [f.subject for f in found])}
        known = [rules.beside_what_was_claimed(f, *booked[f.subject]) if f.subject in booked else f for f in found]
        await self._record([f for f in known if f is not None])
        now = [f.amount - booked[f.subject][0] for f in found if f.subject in booked]
        await execute(self._tx, _TAKEN_NOW, [f.subject for f in found if f.subject in booked], now)
        return str(rows[-1]["name"]) if len(rows) == _STRANGERS_AT_ONCE else None

    # ---- attempts on all legs

    async def _sent(self) -> str | None:
        start, end = day_bounds(self._run.day)
        after = _place_of(self._run.place) if self._run.place else start - _TICK
        rows = await fetch(self._tx, _SENT_END, self._run.channel_id, after, end, self._page)
        upto = rows[0]["sent_at"] if rows else end - _TICK
        await self._compare(_OF_SENT, self._run.channel_id, after, upto)
        return upto.isoformat() if rows else None

    async def _told(self) -> str | None:
        start = int(self._run.place)
        end = await self._lines_end(start)
        await self._compare(_OF_TOLD, self._run.channel_id, self._run.day, start, end if end is not None else 2**62, *day_bounds(self._run.day))
        return None if end is None else str(end)

    async def _kept(self) -> str | None:
        """Breaks that are open: which of them still stand? This is where an awaited line closes R2, or the end of the window makes R3 of it."""
        kept = await fetch(self._tx, _KEPT, self._run.channel_id, UUID(self._run.place), self._page)
        of_attempts = {(r["book_id"], r["attempt_id"]) for r in kept if r["attempt_id"] is not None}
        found = await self._compare(_OF_KEYS, [k[0] for k in of_attempts], [k[1] for k in of_attempts])
        still = {(f.class_, f.subject) for f in found}
        gone = [r["break_id"] for r in kept if r["attempt_id"] is not None and (r["class"], r["subject"]) not in still]
        lines = [r for r in kept if r["attempt_id"] is None and r["line_id"] is not None]
        taken = await fetch(self._tx, _LINES_TAKEN, [r["break_id"] for r in lines], [r["line_id"] for r in lines])
        self._add("closed", await execute(self._tx, _GONE, [*gone, *(r["break_id"] for r in taken)]))
        return str(kept[-1]["break_id"]) if len(kept) == self._page else None

    async def _compare(self, picked: str, *values: Any) -> list[Finding]:
        terms = await queries.terms_of(self._tx, self._run.channel_id)
        found = await find_differences(self._tx, terms, picked, *values)
        await self._record(found)
        return found

    async def _record(self, found: Sequence[Finding]) -> None:
        opened = await record_findings(self._tx, found, self._run.run_id)
        self._add("opened", len(opened))


async def find_differences(tx: Tx, terms: Terms, picked: str, *values: Any) -> list[Finding]:
    """Classify the attempts that `picked` selects (one of this module's `_OF_…`, with its values)."""
    found = []
    for row in await fetch(tx, _legs(picked), *values):
        facts = queries.facts_of(row)
        differences = rules.classify(facts, terms)
        if row["booked"] or row["claimed"]:
            differences = rules.beside_what_was_booked(differences, None if differences else facts, row["booked"], row["claimed"], terms)
        found += differences
    return found


async def look_at(tx: Tx, book_id: int, attempt_id: UUID) -> Facts | None:
    """One attempt on all its legs, whether or not they agree."""
    found = await look_beside(tx, book_id, attempt_id)
    return found[0] if found else None


def _legs(picked: str, *, agreeing: bool = False) -> str:
    parts = {
        "{picked}": picked,
        "$TZ": f"'{BUSINESS_DAY}'",
        "{all}": "true OR" if agreeing else "",
        "{wanted}": "true" if agreeing else "NOT agrees OR other_attributes OR booked <> 0 OR claimed <> 0",
        "{last_refund}": _LAST_REFUND.strip(),
    }
    sql = _LEGS
    for name, text in parts.items():
        sql = sql.replace(name, text)
    return sql


async def look_beside(tx: Tx, book_id: int, attempt_id: UUID) -> tuple[Facts, int, int] | None:
    """The same, with what resolved breaks have booked of what was taken, and what open claims have (1/10000 units)."""
    rows = await fetch(tx, _legs(_OF_KEYS, agreeing=True), [book_id], [attempt_id])
    return (queries.facts_of(rows[0]), rows[0]["booked"], rows[0]["claimed"]) if rows else None


async def differences_of(tx: Tx, channel_id: str, attempts: Sequence[tuple[int, UUID]]) -> list[Finding]:
    """What is wrong with these attempts at this moment."""
    terms = await queries.terms_of(tx, channel_id)
    return await find_differences(tx, terms, _OF_KEYS, [k[0] for k in attempts], [k[1] for k in attempts])


async def record_findings(tx: Tx, found: Sequence[Finding], run_id: UUID | None) -> list[UUID]:
    """Open a break for each difference that is neither open nor explained by a resolved one; ids of the new. Facts that moved are updated."""
    if not found:
        return []
    ordered = sorted(found, key=lambda f: (f.subject, f.class_))
    evidence = [orjson.dumps({**f.evidence, "automatic": f.automatic}).decode() for f in ordered]
    columns = [
        [new_ulid() for _ in ordered], [f.class_ for f in ordered], [f.channel_id for f in ordered], [f.environment for f in ordered],
        [f.subject for f in ordered], [f.book_id for f in ordered], [f.order_id for f in ordered], [f.attempt_id for f in ordered],
        [f.line_id for f in ordered], [f.amount for f in ordered], [f.currency for f in ordered], [f.fingerprint for f in ordered],
        ["waiting" if f.waits else "open" for f in ordered], [CLASSES[f.class_].owner for f in ordered], evidence,
        [f.due_on for f in ordered], [CLASSES[f.class_].due_hours for f in ordered],
    ]  # fmt: skip
    new = await fetch(tx, _SEEN, run_id, *columns)
    await execute(tx, _MOVED, run_id, columns[1], columns[4], columns[9], columns[11], evidence)
    return [r["break_id"] for r in new]


def _stranger(channel_id: str, environment: str, day: date, row: Any) -> Finding:
    # A name may come again another day, or in another currency: that is another charge.
    return Finding(
        STRANGER, channel_id, environment, f"line:{channel_id}:{row['name']}:{day}:{row['currency']}", queries.house_book_of(environment),
        row["amount"], row["currency"], f"{row['lines']}x{row['amount']}", line_id=row["line_id"],
        evidence={"why": "no attempt of ours", "name": row["name"], "lines": row["lines"], "at": row["at"].isoformat(),
                  "carries_our_reference": row["ours"]},
    )  # fmt: skip


async def _tell(tx: Tx, channel_id: str) -> None:
    """One alarm per class and channel while breaks are open; our own bug pages somebody."""
    open_now = {f.class_: f for f in await queries.open_figures(tx) if f.channel_id == channel_id and f.class_ not in ("R2", GAP)}
    for class_ in CLASSES:
        kind = "invariant_broken" if class_ == DRIFT else "books_disagree"
        subject = f"reconciliation:{class_}:{channel_id}"
        figure = open_now.get(class_)
        if figure is None:
            await alarms.close_alarm(tx, kind, subject)
        else:
            sort = CLASSES[class_]
            detail = f"{figure.count} open: {sort.title} ({sort.title_zh})"
            await alarms.raise_alarm(tx, kind, subject, sort.severity, detail)


def day_bounds(day: date) -> tuple[datetime, datetime]:
    """A business day as `[start, end)`."""
    zone = ZoneInfo(BUSINESS_DAY)
    return tuple(datetime.combine(day + timedelta(days=n), time(), zone).astimezone(UTC) for n in (0, 1))  # type: ignore[return-value]


def _place_of(place: str) -> datetime:
    # Places once named an attempt of that moment, too: such a page is looked at from its beginning.
    at, _, attempt_id = place.partition(" ")
    return datetime.fromisoformat(at) - (_TICK if attempt_id else timedelta())
