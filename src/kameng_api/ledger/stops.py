"""Books whose postings are stopped: stop rather than continue wrong, until a person has looked and a second one agrees.

The refusal itself stands in `ledger.actions`, inside the statement that posts. It holds for every statement that begins after the stop has
committed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from kameng_api.kit.db import Tx, execute, fetch
from kameng_api.kit.errors import Invalid, NotFound, StateConflict
from kameng_api.kit.ids import new_ulid, ulid_text

_COLUMNS: Final = (
    "s.book_id, s.stop_id, b.merchant_id, b.environment, s.invariant, s.reason, s.marks, s.stopped_by, s.stopped_at, s.lift_asked_by, "
    "s.lift_asked_at, s.note, s.lifted_by, s.lifted_at"
)
_LONGEST_REASON: Final = 500
_MOST_MARKS: Final = 1000


@dataclass(frozen=True, slots=True)
class Stop:
    """One stop of one book. `marks` are the breaches found; `lift_asked_by` is the first of the two people who lift it."""

    book_id: int
    stop_id: UUID
    merchant_id: UUID | None
    environment: str
    invariant: str
    reason: str
    marks: Sequence[str]
    stopped_by: str
    stopped_at: datetime
    lift_asked_by: str | None
    lift_asked_at: datetime | None
    note: str | None
    lifted_by: str | None
    lifted_at: datetime | None


# What a person lifted knowingly stops the book no more. A breach that is new voids the wish to lift that was uttered before it was known.
_STOP: Final = """
WITH fresh AS (
  SELECT array_agg(m) AS marks FROM unnest($5::text[]) AS m
  WHERE NOT EXISTS (SELECT FROM stopped_books s WHERE s.book_id = $1 AND m = ANY (s.marks))
)
INSERT INTO stopped_books AS s (book_id, stop_id, invariant, reason, marks, stopped_by)
SELECT $1, $2, $3, $4, fresh.marks, $6 FROM fresh WHERE fresh.marks IS NOT NULL
ON CONFLICT (book_id) WHERE lifted_at IS NULL
DO UPDATE SET marks = (s.marks || excluded.marks)[:$7], lift_asked_by = NULL, lift_asked_at = NULL
RETURNING stop_id
"""


async def stop(tx: Tx, book_id: int, invariant: str, reason: str, marks: Sequence[str], by: str) -> bool:
    """Stop the postings of a book for these breaches; True when it is a new stop. Breaches that were known before change nothing."""
    stop_id = new_ulid()
    rows = await fetch(tx, _STOP, book_id, stop_id, invariant, reason[:_LONGEST_REASON], list(marks)[:_MOST_MARKS], by, _MOST_MARKS)
    return bool(rows) and rows[0]["stop_id"] == stop_id


BY_HAND: Final = "by_hand"
"""The invariant that a person names: none that a monitor knows."""


async def stop_by_hand(tx: Tx, book_id: int, note: str, by: str) -> Stop:
    """A person stops a book on a suspicion of his own; it is lifted like any other. Raises NotFound, Invalid, StateConflict."""
    if not 1 <= len(note.strip()) <= _LONGEST_REASON:
        raise Invalid("a stop needs a note: what you have seen")
    if not await fetch(tx, "SELECT 1 FROM books WHERE book_id = $1", book_id):
        raise NotFound("no such book")
    if not await stop(tx, book_id, BY_HAND, note, [f"{BY_HAND}: {ulid_text(new_ulid())}"], by):
        raise StateConflict("postings of this book are stopped already")
    [open_] = await fetch(tx, "SELECT stop_id FROM stopped_books WHERE book_id = $1 AND lifted_at IS NULL", book_id)
    return await get_stop(tx, book_id, open_["stop_id"])


async def lift(tx: Tx, book_id: int, note: str, by: str) -> Stop:
    """Ask for, or agree to, posting again: real money needs two people, play money one. Raises NotFound, Invalid, StateConflict.

    The same person asking again changes the note and nothing else. Every breach named in the stop is thereby known, and stops no more.
    """
    if not 1 <= len(note.strip()) <= _LONGEST_REASON:
        raise Invalid("a lift needs a note: what was wrong, and what was done")
    rows = await fetch(tx, "SELECT stop_id FROM stopped_books WHERE book_id = $1 AND lifted_at IS NULL FOR UPDATE", book_id)
    if not rows:
        if await fetch(tx, "SELECT 1 FROM books WHERE book_id = $1", book_id):
            raise StateConflict("postings of this book are not stopped")
        raise NotFound("no such book")
    found = await get_stop(tx, book_id, rows[0]["stop_id"])
    if found.environment == "test" or found.lift_asked_by not in (None, by):
        await execute(
            tx,
            "UPDATE stopped_books SET lifted_by = $3, lifted_at = now(), note = concat_ws(' / ', note, $4::text) WHERE book_id = $1 AND stop_id = $2",
            book_id, found.stop_id, by, note,
        )  # fmt: skip
    else:
        await execute(
            tx,
            "UPDATE stopped_books SET lift_asked_by = $3, lift_asked_at = now(), note = $4 WHERE book_id = $1 AND stop_id = $2",
            book_id, found.stop_id, by, note,
        )  # fmt: skip
    return await get_stop(tx, book_id, found.stop_id)


async def get_stop(tx: Tx, book_id: int, stop_id: UUID) -> Stop:
    """Raises NotFound."""
    rows = await fetch(
        tx, f"SELECT {_COLUMNS} FROM stopped_books s JOIN books b USING (book_id) WHERE s.book_id = $1 AND s.stop_id = $2", book_id, stop_id
    )
    if not rows:
        raise NotFound("no such stop")
    return Stop(*rows[0])


async def list_stops(tx: Tx, *, only_open: bool = True, before: UUID | None = None, limit: int = 100) -> list[Stop]:
    """Newest first; `before` is the keyset."""
    rows = await fetch(
        tx,
        f"""SELECT {_COLUMNS} FROM stopped_books s JOIN books b USING (book_id)
        WHERE (NOT $1 OR s.lifted_at IS NULL) AND ($2::uuid IS NULL OR s.stop_id < $2) ORDER BY s.stop_id DESC LIMIT $3""",
        only_open, before, limit,
    )  # fmt: skip
    return [Stop(*r) for r in rows]


async def stopped(tx: Tx) -> frozenset[int]:
    """The books that take no postings now."""
    return frozenset(r["book_id"] for r in await fetch(tx, "SELECT book_id FROM stopped_books WHERE lifted_at IS NULL"))
