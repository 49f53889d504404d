"""What stands between their books and ours, read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import date, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from kameng_api.kit.db import Tx, fetch
from kameng_api.kit.errors import NotFound
from kameng_api.kit.ids import ulid_text
from kameng_api.ledger import rules as books
from kameng_api.reconciliation import rules
from kameng_api.reconciliation.rules import Break, Facts, Terms

BUSINESS_DAY: Final = "Asia/Shanghai"
RUN: Final = "run_id, channel_id, day, by, state, step, place, counts, started_at, finished_at, terms"
_BREAK: Final = ", ".join(f.name if f.name != "class_" else "class" for f in fields(Break))
_FACTS: Final = tuple(f.name for f in fields(Facts))


@dataclass(frozen=True, slots=True)
class Run:
    """A comparison of one channel's day: what it is at, what it has counted, and how far each source was believed when it began."""

    run_id: UUID
    channel_id: str
    day: date
    by: str
    state: str
    step: str
    place: str
    counts: Mapping[str, int]
    started_at: datetime
    finished_at: datetime | None
    terms: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class OpenFigure:
    """Open breaks of one class and channel. `amount`: what they took too much, 1/10000 units, over all currencies."""

    class_: str
    channel_id: str
    count: int
    amount: int
    oldest_at: datetime


@dataclass(frozen=True, slots=True)
class DayReport:
    """One channel's day: how many lines, how many of them belong to attempts, and the breaks by class and state."""

    channel_id: str
    day: date
    lines: int
    matched: int
    attempts: int
    breaks: Mapping[str, Mapping[str, int]]
    last_run: Run | None


def run_of(row: Any) -> Run:
    return Run(*row)


def facts_of(row: Any) -> Facts:
    return Facts(*(row[name] for name in _FACTS))


def break_of(row: Any) -> Break:
    values = dict(row)
    values["class_"] = values.pop("class")
    return Break(**values)


def house_book_of(environment: str) -> int:
    return books.house_book(environment)


async def environment_of(tx: Tx, channel_id: str) -> str:
    """Raises NotFound."""
    rows = await fetch(tx, "SELECT environment FROM channels WHERE channel_id = $1", channel_id)
    if not rows:
        raise NotFound("no such channel")
    return str(rows[0]["environment"])


# By every enabled source: what one of them does not say, another may.
_TOLD_DAYS: Final = """
SELECT f.day FROM recon_files f JOIN recon_sources s ON s.source_id = f.source_id AND s.enabled
WHERE f.channel_id = $1 AND f.state = 'accepted' AND f.rows_bad = 0
  AND NOT EXISTS (SELECT FROM recon_pages p WHERE p.file_id = f.file_id AND NOT p.landed)
GROUP BY f.day HAVING count(DISTINCT f.source_id) = (SELECT count(*) FROM recon_sources WHERE channel_id = $1 AND enabled)
"""


async def terms_of(tx: Tx, channel_id: str) -> Terms:
    """How far this channel's statements are believed: the strictest of its sources."""
    sources = await fetch(
        tx, "SELECT tolerance, window_days, charges_at, complete FROM recon_sources WHERE channel_id = $1 AND enabled", channel_id
    )
    if not sources:
        return Terms()
    window = max(r["window_days"] for r in sources)
    told = frozenset(r["day"] for r in await fetch(tx, _TOLD_DAYS, channel_id))
    gaps = await fetch(
        tx, "SELECT evidence->>'day' AS day FROM recon_breaks WHERE channel_id = $1 AND class = 'R11' AND state <> 'closed'", channel_id
    )
    unsound = frozenset(date.fromisoformat(r["day"]) for r in gaps if r["day"])
    return Terms(
        tolerance=min(r["tolerance"] for r in sources),
        window_days=window,
        charges_at_success=all(r["charges_at"] == "success" for r in sources),
        complete=all(r["complete"] for r in sources),
        over_days=rules.days_over(told, unsound, window),
    )


async def get_break(tx: Tx, break_id: UUID, *, lock: bool = False) -> Break:
    """Raises NotFound."""
    rows = await fetch(tx, f"SELECT {_BREAK} FROM recon_breaks WHERE break_id = $1 {'FOR UPDATE' if lock else ''}", break_id)
    if not rows:
        raise NotFound("no such break")
    return break_of(rows[0])


async def list_breaks(
    tx: Tx, *, channel_id: str | None = None, class_: str | None = None, state: str | None = None,
    older_than: timedelta | None = None, before: UUID | None = None, limit: int = 50,
) -> Sequence[Break]:  # fmt: skip
    """Newest first; `before` is the keyset. `older_than`: first seen longer ago than this."""
    rows = await fetch(
        tx,
        f"""SELECT {_BREAK} FROM recon_breaks WHERE ($1::text IS NULL OR channel_id = $1) AND ($2::text IS NULL OR class = $2)
          AND ($3::text IS NULL OR state = $3) AND ($4::interval IS NULL OR first_seen_at < now() - $4::interval)
          AND ($5::uuid IS NULL OR break_id < $5) ORDER BY break_id DESC LIMIT $6""",
        channel_id, class_, state, older_than, before, limit,
    )  # fmt: skip
    return [break_of(r) for r in rows]


_LINES_OF: Final = """
SELECT l.line_id, l.ext_line_id, l.kind, l.amount, l.currency, l.at, l.reference, l.supplier_order_no, l.external_id, l.withdrawn_at, l.file_id,
  l.line_no FROM recon_lines l
WHERE l.line_id IN (SELECT line_id FROM recon_matches WHERE book_id = $1 AND attempt_id = $2) OR l.line_id = $3
ORDER BY l.line_id LIMIT 100
"""


async def break_evidence(tx: Tx, break_id: UUID) -> dict[str, list[dict[str, Any]]]:
    """Everything a person needs to decide: lines, attempts of the order, transfers, suggestions, and who did what. Raises NotFound."""
    b = await get_break(tx, break_id)
    found = {
        "lines": await fetch(tx, _LINES_OF, b.book_id, b.attempt_id, b.line_id),
        "attempts": await fetch(
            tx,
            """SELECT attempt_id, n, channel_id, state, units, delivered_units, cost, actual_cost, reversed_amount, reference, supplier_order_no,
              sent_at, settled_at FROM attempts WHERE book_id = $1 AND order_id = $2 ORDER BY n""",
            b.book_id, b.order_id,
        ),
        "transfers": [] if b.attempt_id is None else await fetch(
            tx,
            """SELECT event_key, line, kind, debit_account, credit_account, amount, currency, created_at FROM transfers
            WHERE book_id = $1 AND event_key >= $2 AND event_key < $3 ORDER BY created_at, event_key, line LIMIT 100""",
            b.book_id, f"attempt:{ulid_text(b.attempt_id)}:", f"attempt:{ulid_text(b.attempt_id)};",
        ),
        "suggestions": await fetch(
            tx,
            "SELECT line_id, book_id, attempt_id, why FROM recon_suggestions WHERE line_id = $1 OR attempt_id = $2 LIMIT 20",
            b.line_id, b.attempt_id,
        ),
        "steps": await fetch(tx, "SELECT at, actor, step, facts FROM recon_break_steps WHERE break_id = $1 ORDER BY step_id LIMIT 200", break_id),
    }  # fmt: skip
    return {name: [dict(r) for r in rows] for name, rows in found.items()}


async def open_figures(tx: Tx) -> list[OpenFigure]:
    """Open breaks by class and channel, for metrics and alarms."""
    rows = await fetch(
        tx,
        """SELECT class, channel_id, count(*) AS count, sum(amount)::bigint AS amount, min(first_seen_at) AS oldest_at FROM recon_breaks
        WHERE state <> 'closed' GROUP BY 1, 2 ORDER BY 1, 2""",
    )
    return [OpenFigure(*r) for r in rows]


async def day_report(tx: Tx, channel_id: str, day: date) -> DayReport:
    """One day in figures. Breaks are those whose attempt was sent, or whose line was told, that day. Raises NotFound."""
    await environment_of(tx, channel_id)
    [row] = await fetch(
        tx,
        """SELECT count(*) AS lines, count(m.line_id) AS matched, count(DISTINCT m.attempt_id) AS attempts
        FROM recon_lines l LEFT JOIN recon_matches m ON m.line_id = l.line_id
        WHERE l.channel_id = $1 AND l.day = $2 AND l.withdrawn_at IS NULL""",
        channel_id, day,
    )  # fmt: skip
    rows = await fetch(
        tx,
        f"""SELECT b.class, b.state, count(*) AS n FROM recon_breaks b
        LEFT JOIN attempts a ON a.book_id = b.book_id AND a.attempt_id = b.attempt_id LEFT JOIN recon_lines l ON l.line_id = b.line_id
        WHERE b.channel_id = $1 AND (coalesce(l.day, (a.sent_at AT TIME ZONE '{BUSINESS_DAY}')::date) = $2 OR b.evidence->>'day' = $2::date::text)
        GROUP BY 1, 2 ORDER BY 1, 2""",
        channel_id, day,
    )  # fmt: skip
    breaks: dict[str, dict[str, int]] = {}
    for r in rows:
        breaks.setdefault(r["class"], {})[r["state"]] = r["n"]
    runs = await fetch(
        tx, f"SELECT {RUN} FROM recon_runs WHERE channel_id = $1 AND day = $2 ORDER BY run_id DESC LIMIT 1", channel_id, day
    )
    return DayReport(channel_id, day, row["lines"], row["matched"], row["attempts"], breaks, run_of(runs[0]) if runs else None)
