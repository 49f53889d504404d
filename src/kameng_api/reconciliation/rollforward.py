"""Does a supplier's day add up? Opening + top-ups − charges + refunds = closing, beside what the supplier says that our wallet holds.

The two ends of a day are read from the balances that the supplier told every few minutes (wallet snapshots), where no line of its statement
stands so near that nobody can say on which side of the telling it was; else from what the statement itself says of its ends. Without either
the day proves nothing, and is said to prove nothing. Amounts in 1/10000 units.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from kameng_api.kit.db import Tx, execute, fetch

_NEAR_S: Final = 3_600.0
"""A snapshot further from midnight tells nothing about it."""
_QUIET_S: Final = 3.0
"""Their clock and ours, and the way of the answer: a line so near to a snapshot may be in it or not."""
_CANDIDATES: Final = 120
_LATE_DAYS: Final = 10
"""A line may be told in a file of so many days later."""


@dataclass(frozen=True, slots=True)
class Day:
    """A channel's day as the lines add up. `state`: `agrees`, `gap`, or `unproven` when one of the ends is not known."""

    channel_id: str
    day: date
    currency: str
    opening: int | None
    top_ups: int
    charges: int
    refunds: int
    other: int
    closing: int | None
    theirs: int | None
    gap: int | None
    state: str


def bounds_of(day: date, timezone: str) -> tuple[datetime, datetime]:
    """The first instant of a business day, and of the next one."""
    zone = ZoneInfo(timezone)
    return datetime.combine(day, time(), zone), datetime.combine(day + timedelta(days=1), time(), zone)


async def record_snapshot(tx: Tx, channel_id: str, balance: int, currency: str) -> None:
    """What a supplier said just now."""
    await execute(
        tx,
        """INSERT INTO wallet_snapshots (channel_id, at, balance, currency) VALUES ($1, clock_timestamp(), $2, $3)
        ON CONFLICT (channel_id, at) DO NOTHING""",
        channel_id, balance, currency,
    )  # fmt: skip


async def prune_snapshots(tx: Tx, days: int) -> int:
    """Forget balances that no day needs any more."""
    return await execute(tx, "DELETE FROM wallet_snapshots WHERE at < now() - make_interval(days => $1)", days)


_COUNTS: Final = """
l.channel_id = $1 AND l.day BETWEEN $2::date - 1 AND $2::date + $3::int AND l.currency = $4 AND l.withdrawn_at IS NULL
  AND EXISTS (SELECT FROM recon_files f WHERE f.file_id = l.file_id AND f.state = 'accepted')
"""

_SUMS: Final = f"""
SELECT coalesce(sum(l.amount) FILTER (WHERE l.kind IN ('top_up', 'withdrawal')), 0)::bigint AS top_ups,
  coalesce(-sum(l.amount) FILTER (WHERE l.kind = 'charge'), 0)::bigint AS charges,
  coalesce(sum(l.amount) FILTER (WHERE l.kind IN ('refund', 'reversal')), 0)::bigint AS refunds,
  coalesce(sum(l.amount) FILTER (WHERE l.kind IN ('fee', 'other')), 0)::bigint AS other
FROM recon_lines l WHERE {_COUNTS} AND l.at >= $5 AND l.at < $6
"""

# Snapshots around an instant, each with what the lines say moved between the two, and whether a line stands too near to it.
_AROUND: Final = f"""
SELECT s.at, s.balance,
  coalesce((SELECT sum(l.amount) FROM recon_lines l WHERE {_COUNTS} AND l.at >= least(s.at, $5::timestamptz)
    AND l.at < greatest(s.at, $5::timestamptz)), 0)::bigint AS moved
FROM (SELECT at, balance FROM wallet_snapshots WHERE channel_id = $1 AND currency = $4
    AND at BETWEEN $5::timestamptz - make_interval(secs => $6) AND $5::timestamptz + make_interval(secs => $6)
    ORDER BY abs(extract(epoch FROM at - $5::timestamptz)) LIMIT $8) AS s
WHERE (s.at < $5::timestamptz) = $9::boolean AND NOT EXISTS (SELECT FROM recon_lines l WHERE {_COUNTS}
  AND l.at BETWEEN s.at - make_interval(secs => $7) AND s.at + make_interval(secs => $7))
ORDER BY abs(extract(epoch FROM s.at - $5::timestamptz)) LIMIT 1
"""

_ENDS: Final = """
SELECT opening, closing FROM recon_files WHERE channel_id = $1 AND day = $2 AND state = 'accepted' ORDER BY accepted_at DESC, file_id DESC LIMIT 1
"""

_STORE: Final = """
INSERT INTO recon_days (channel_id, day, currency, opening, top_ups, charges, refunds, other, closing, theirs, gap, state)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
ON CONFLICT (channel_id, day, currency) DO UPDATE SET opening = excluded.opening, top_ups = excluded.top_ups, charges = excluded.charges,
  refunds = excluded.refunds, other = excluded.other, closing = excluded.closing, theirs = excluded.theirs, gap = excluded.gap,
  state = excluded.state, updated_at = now()
"""


async def roll_forward(tx: Tx, channel_id: str, day: date, *, timezone: str, currency: str) -> Day:
    """Add up a day whose statement has landed, and store what came out. The same again gives the same, or more when more is known."""
    start, end = bounds_of(day, timezone)
    [sums] = await fetch(tx, _SUMS, channel_id, day, _LATE_DAYS, currency, start, end)
    ends = await fetch(tx, _ENDS, channel_id, day)
    said_opening, said_closing = (ends[0]["opening"], ends[0]["closing"]) if ends else (None, None)
    opening = await _theirs_before(tx, channel_id, day, currency)
    if opening is None:
        opening = await _balance_at(tx, channel_id, day, currency, start, looking_back=False)
    if opening is None:
        opening = said_opening
    # Lines of this day alone are known for sure: the end is looked at from before it.
    theirs = await _balance_at(tx, channel_id, day, currency, end, looking_back=True)
    if theirs is None:
        theirs = said_closing
    moved = sums["top_ups"] - sums["charges"] + sums["refunds"] + sums["other"]
    closing = None if opening is None else opening + moved
    gap = None if closing is None or theirs is None else theirs - closing
    state = "unproven" if gap is None else "gap" if gap else "agrees"
    found = Day(
        channel_id, day, currency, opening, sums["top_ups"], sums["charges"], sums["refunds"], sums["other"], closing, theirs, gap, state
    )
    await execute(
        tx, _STORE, channel_id, day, currency, opening, found.top_ups, found.charges, found.refunds, found.other, closing, theirs, gap, state
    )
    return found


async def _theirs_before(tx: Tx, channel_id: str, day: date, currency: str) -> int | None:
    rows = await fetch(
        tx, "SELECT theirs FROM recon_days WHERE channel_id = $1 AND day = $2 AND currency = $3", channel_id, day - timedelta(days=1), currency
    )
    return rows[0]["theirs"] if rows else None


async def _balance_at(tx: Tx, channel_id: str, day: date, currency: str, at: datetime, *, looking_back: bool) -> int | None:
    rows = await fetch(tx, _AROUND, channel_id, day, _LATE_DAYS, currency, at, _NEAR_S, _QUIET_S, _CANDIDATES, looking_back)
    if not rows:
        return None
    moved = rows[0]["moved"]
    return int(rows[0]["balance"] + (moved if looking_back else -moved))


async def list_days(tx: Tx, *, channel_id: str | None, upto: date, limit: int) -> Sequence[Day]:
    """The newest first."""
    rows = await fetch(
        tx,
        """SELECT channel_id, day, currency, opening, top_ups, charges, refunds, other, closing, theirs, gap, state FROM recon_days
        WHERE ($1::text IS NULL OR channel_id = $1) AND day <= $2 ORDER BY day DESC, channel_id, currency LIMIT $3""",
        channel_id, upto, limit,
    )  # fmt: skip
    return [Day(**r) for r in rows]
