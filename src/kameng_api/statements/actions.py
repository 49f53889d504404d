"""Days are cut once, below the transaction horizon; then each cut is made into files, signed, and told."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from kameng_api.kit.clock import wire_time
from kameng_api.kit.db import Tx, execute, fetch
from kameng_api.kit.ids import new_ulid
from kameng_api.ledger.rules import AVAILABLE
from kameng_api.outbox import actions as outbox
from kameng_api.outbox.rules import fact_of
from kameng_api.statements import rules
from kameng_api.statements.queries import Statement
from kameng_api.statements.rules import Cut, Disagrees, Key

GRACE_S: Final = 60.0
"""A day is looked at this long after its end: longer than a transaction may live that began before and has written nothing yet."""
MAKING_S: Final = 900.0

_DUE: Final = """
due AS (
  SELECT a.book_id, a.currency, m.timezone, n.day, coalesce(l.ends_at, n.day::timestamp AT TIME ZONE m.timezone) AS starts_at,
    greatest((n.day + 1)::timestamp AT TIME ZONE m.timezone, l.ends_at) AS ends_at, coalesce(l.to_version, 0) AS from_version,
    coalesce(l.closing, 0) AS opening
  FROM merchants m JOIN books b USING (merchant_id) JOIN accounts a ON a.book_id = b.book_id AND a.account = $1
  LEFT JOIN LATERAL (
    SELECT day, ends_at, to_version, closing FROM statements s WHERE s.book_id = a.book_id AND s.currency = a.currency
    ORDER BY day DESC LIMIT 1) AS l ON true
  CROSS JOIN LATERAL (SELECT coalesce(l.day + 1, (m.created_at AT TIME ZONE m.timezone)::date) AS day) AS n
  WHERE greatest((n.day + 1)::timestamp AT TIME ZONE m.timezone, l.ends_at) <= now() - make_interval(secs => $2)
  LIMIT $3
)
"""

# The first transaction that is known to have begun after the day's end. Those before it may still hold movements of the day.
_MARK: Final = f"""
WITH {_DUE}
INSERT INTO statement_days (ends_at, xid) SELECT DISTINCT ends_at, xid_now() FROM due
ON CONFLICT DO NOTHING
"""

# The last movement that was booked before the day's end, and everything the ledger put before it: versions are given out under the account's
# lock, so nothing can come in between any more, whatever time it says.
_CUT: Final = f"""
WITH {_DUE}, closed AS (
  SELECT due.* FROM due JOIN statement_days d USING (ends_at) WHERE d.xid < xid_horizon()
), cut AS (
  SELECT c.*, e.version, e.after FROM closed c LEFT JOIN LATERAL (
    SELECT version, after FROM (
      (SELECT debit_version AS version, debit_balance_after AS after FROM transfers
       WHERE book_id = c.book_id AND debit_account = $1 AND currency = c.currency AND debit_version > c.from_version
         AND created_at < c.ends_at ORDER BY debit_version DESC LIMIT 1)
      UNION ALL
      (SELECT credit_version, credit_balance_after FROM transfers
       WHERE book_id = c.book_id AND credit_account = $1 AND currency = c.currency AND credit_version > c.from_version
         AND created_at < c.ends_at ORDER BY credit_version DESC LIMIT 1)
    ) AS last ORDER BY version DESC LIMIT 1) AS e ON true
)
INSERT INTO statements (book_id, currency, day, timezone, starts_at, ends_at, from_version, to_version, opening, closing)
SELECT book_id, currency, day, timezone, starts_at, ends_at, from_version, coalesce(version, from_version), opening, coalesce(after, opening)
FROM cut ON CONFLICT DO NOTHING
"""


async def mark_ends(tx: Tx, limit: int) -> int:
    """Note, for every day that has ended and is not cut, a transaction that began after its end. Returns how many days were new."""
    return await execute(tx, _MARK, AVAILABLE, GRACE_S, limit)


async def cut_days(tx: Tx, limit: int) -> int:
    """Decide what belongs to each day that is closed below the horizon, once and for ever. Returns how many were cut."""
    return await execute(tx, _CUT, AVAILABLE, GRACE_S, limit)


@dataclass(frozen=True, slots=True)
class Making:
    """A cut that this process makes into files. `make_id` names this try; another try has another."""

    cut: Cut
    make_id: UUID


_CLAIM: Final = """
UPDATE statements s SET make_id = $1, making_until = now() + make_interval(secs => $2)
FROM (SELECT book_id, currency, day, make_id AS before FROM statements d
  WHERE ready_at IS NULL AND (making_until IS NULL OR making_until < now()) AND NOT EXISTS (
    SELECT FROM statements e WHERE e.book_id = d.book_id AND e.currency = d.currency AND e.day < d.day AND e.ready_at IS NULL)
  ORDER BY ends_at LIMIT 1 FOR UPDATE SKIP LOCKED) AS k
JOIN books b USING (book_id)
WHERE s.book_id = k.book_id AND s.currency = k.currency AND s.day = k.day
RETURNING k.before, s.book_id, b.merchant_id, b.environment, s.currency, s.day, s.timezone, s.starts_at, s.ends_at, s.from_version,
  s.to_version, s.opening, s.closing
"""


async def claim(tx: Tx) -> Making | None:
    """The oldest cut that nobody makes at this moment, a book's days in order; what a maker that died left behind is thrown away."""
    make_id = new_ulid()
    rows = await fetch(tx, _CLAIM, make_id, MAKING_S)
    if not rows:
        return None
    before, *cut = rows[0]
    if before is not None:
        await execute(tx, "DELETE FROM statement_chunks WHERE book_id = $1 AND make_id = $2", cut[0], before)
    return Making(Cut(*cut), make_id)


# Whoever still makes pieces is alive: the lease begins anew.
_STORE: Final = """
WITH mine AS (
  UPDATE statements SET making_until = now() + make_interval(secs => $8)
  WHERE book_id = $1 AND currency = $3 AND day = $4 AND make_id = $2 AND ready_at IS NULL RETURNING 1
)
INSERT INTO statement_chunks (book_id, make_id, format, n, body)
SELECT $1, $2, k.format, k.n, k.body FROM unnest($5::text[], $6::int[], $7::bytea[]) AS k (format, n, body)
WHERE EXISTS (SELECT FROM mine)
"""
_STORED: Final = """
SELECT format, sum(octet_length(body))::bigint AS size FROM statement_chunks WHERE book_id = $1 AND make_id = $2 GROUP BY 1
"""


async def store(tx: Tx, making: Making, pieces: Sequence[tuple[str, int, bytes]]) -> bool:
    """Keep pieces of files. False when another process makes this statement by now: give up."""
    if not pieces:
        return True
    cut = making.cut
    stored = await execute(
        tx, _STORE, cut.book_id, making.make_id, cut.currency, cut.day,
        [p[0] for p in pieces], [p[1] for p in pieces], [p[2] for p in pieces], MAKING_S,
    )  # fmt: skip
    return stored == len(pieces)


_OURS: Final = """
SELECT 1 FROM statements WHERE book_id = $1 AND currency = $2 AND day = $3 AND make_id = $4 AND ready_at IS NULL FOR UPDATE
"""
_FINISH: Final = """
UPDATE statements SET manifest = $4, signature = $5, key_id = $6, ready_at = now(), making_until = NULL
WHERE book_id = $1 AND currency = $2 AND day = $3
RETURNING book_id, currency, day, make_id, ready_at, manifest, signature, key_id
"""


async def finish(tx: Tx, making: Making, tally: rules.Tally, files: Sequence[rules.File], key: Key) -> Statement | None:
    """Sign, and tell the merchant. None when another process has taken it over. Raises Disagrees when what is stored is not all that was made."""
    cut = making.cut
    if not await fetch(tx, _OURS, cut.book_id, cut.currency, cut.day, making.make_id):
        return None  # and whoever took it over has thrown our pieces away
    stored = {r["format"]: r["size"] for r in await fetch(tx, _STORED, cut.book_id, making.make_id)}
    if stored != {f.format: f.size for f in files}:
        raise Disagrees("the stored pieces are not the files that were made")
    manifest = rules.manifest_of(cut, making.make_id, tally, files, key.key_id)
    [row] = await fetch(tx, _FINISH, cut.book_id, cut.currency, cut.day, manifest, key.sign(manifest), key.key_id)
    await execute(
        tx, "INSERT INTO statement_keys (key_id, public_key) VALUES ($1, $2) ON CONFLICT DO NOTHING", key.key_id, key.public
    )
    statement = Statement(**row)
    shown = view(statement)
    await outbox.record(tx, [fact_of(cut.book_id, rules.READY, shown["id"], 1, shown)])
    return statement


def view(statement: Statement) -> dict[str, Any]:
    """As merchants see it, without the movements."""
    content = statement.content
    kept = ("id", "environment", "date", "timezone", "starts_at", "ends_at", "currency", "opening", "subtotals", "movements_count", "closing")
    return {
        "object": "statement",
        **{name: content[name] for name in kept},
        "files": [{"format": name, **content["files"][name]} for name in rules.FORMATS],
        "key_id": statement.key_id,
        "ready_at": wire_time(statement.ready_at),
    }
