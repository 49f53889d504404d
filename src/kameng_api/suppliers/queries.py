"""Attempts and evidence, read."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from uuid import UUID

from kameng_api.kit.db import Tx, fetch
from kameng_api.suppliers.rules import Attempt

_COLUMNS = ", ".join(f"a.{f.name}" for f in fields(Attempt))

_OF_ORDERS = f"""
SELECT {_COLUMNS} FROM unnest($1::bigint[], $2::uuid[]) AS k (book_id, order_id)
JOIN attempts a ON a.book_id = k.book_id AND a.order_id = k.order_id
ORDER BY a.book_id, a.order_id, a.n
"""

_BY_ID = f"""
SELECT {_COLUMNS} FROM unnest($1::bigint[], $2::uuid[]) AS k (book_id, attempt_id)
JOIN attempts a ON a.book_id = k.book_id AND a.attempt_id = k.attempt_id
"""


async def list_of_orders(tx: Tx, orders: Sequence[tuple[int, UUID]]) -> dict[tuple[int, UUID], list[Attempt]]:
    """(book, order) → its attempts in order. Read them under the order's lock when they will be changed."""
    found: dict[tuple[int, UUID], list[Attempt]] = {key: [] for key in orders}
    for r in await fetch(tx, _OF_ORDERS, [k[0] for k in orders], [k[1] for k in orders]):
        attempt = Attempt(*r)
        found[attempt.book_id, attempt.order_id].append(attempt)
    return found


async def find_attempts(tx: Tx, keys: Sequence[tuple[int, UUID]]) -> dict[tuple[int, UUID], Attempt]:
    """(book, attempt) → attempt, for those that exist."""
    rows = await fetch(tx, _BY_ID, [k[0] for k in keys], [k[1] for k in keys])
    return {(r["book_id"], r["attempt_id"]): Attempt(*r) for r in rows}


_HEALTH = """
SELECT channel_id, count(*) FILTER (WHERE state = 'delivered') AS good,
  count(*) FILTER (WHERE state IN ('unknown', 'not_sent') OR unknown_since IS NOT NULL) AS bad
FROM attempts WHERE channel_id = ANY ($1::text[]) AND sent_at > now() - interval '60 seconds' GROUP BY 1
"""


async def recent_health(tx: Tx, channel_ids: Sequence[str]) -> dict[str, tuple[int, int]]:
    """channel → (delivered, in doubt or not reached) of the last minute."""
    return {r["channel_id"]: (r["good"], r["bad"]) for r in await fetch(tx, _HEALTH, list(channel_ids))}


@dataclass(frozen=True, slots=True)
class StoredCallback:
    """What a supplier called us with, as it arrived: `raw_sealed` holds headers (one JSON line) and body."""

    callback_id: UUID
    channel_id: str
    raw_sealed: bytes = field(repr=False)
    verified: bool
    book_id: int | None
    attempt_id: UUID | None
    received_at: datetime


def callback_binding(callback_id: UUID) -> bytes:
    """Associated data of a sealed callback."""
    return b"supplier_callbacks:" + callback_id.bytes


async def find_callbacks(tx: Tx, ids: Sequence[UUID]) -> dict[UUID, StoredCallback]:
    rows = await fetch(
        tx,
        """SELECT callback_id, channel_id, raw_sealed, verified, book_id, attempt_id, received_at
        FROM supplier_callbacks WHERE callback_id = ANY ($1::uuid[])""",
        list(ids),
    )
    return {r["callback_id"]: StoredCallback(**r) for r in rows}
