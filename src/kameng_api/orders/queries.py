"""Orders, read."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any
from uuid import UUID

from kameng_api.kit.db import Tx, fetch
from kameng_api.kit.errors import NotFound
from kameng_api.orders.rules import FINAL, Order

COLUMNS = tuple(f.name for f in fields(Order))
_SELECT = ", ".join(f"o.{c}" for c in COLUMNS)

_LOCK = f"""
SELECT {_SELECT}, now() AS tx_now, (pg_current_xact_id()::text)::bigint AS xid
FROM unnest($1::bigint[], $2::uuid[]) AS k (book_id, order_id)
JOIN orders o ON o.book_id = k.book_id AND o.order_id = k.order_id
ORDER BY o.book_id, o.order_id
FOR NO KEY UPDATE OF o
"""

_BY_KEYS = f"""
SELECT {_SELECT} FROM unnest($1::bigint[], $2::uuid[]) AS k (book_id, order_id)
JOIN orders o ON o.book_id = k.book_id AND o.order_id = k.order_id
"""

# What is closed comes beside every row, as places in the list that was asked: the join over orders stays as it was.
_BY_NUMBERS = f"""
SELECT now() AS tx_now, (
  SELECT array_agg(k.place) FROM unnest($1::bigint[], $2::text[]) WITH ORDINALITY AS k (book_id, merchant_order_no, place)
  JOIN closed_numbers c ON c.book_id = k.book_id AND c.merchant_order_no = k.merchant_order_no) AS closed, {_SELECT}
FROM (SELECT 1) AS one
LEFT JOIN (unnest($1::bigint[], $2::text[]) AS k (book_id, merchant_order_no)
  JOIN orders o ON o.book_id = k.book_id AND o.merchant_order_no = k.merchant_order_no) ON true
"""


def order_from(row: Any) -> Order:
    """A row selected as COLUMNS, which stand in the order of the dataclass."""
    return Order(*row)


async def lock_orders(tx: Tx, keys: Sequence[tuple[int, UUID]]) -> dict[tuple[int, UUID], Order]:
    """Row-lock orders in sorted order until `tx` ends. Orders are locked before accounts, everywhere."""
    return (await lock_orders_now(tx, keys))[1]


async def lock_orders_now(tx: Tx, keys: Sequence[tuple[int, UUID]]) -> tuple[datetime, dict[tuple[int, UUID], Order]]:
    """`lock_orders`, and the transaction's time by the database's clock."""
    now, _, found = await lock_orders_of_transaction(tx, keys)
    return now, found


async def lock_orders_of_transaction(tx: Tx, keys: Sequence[tuple[int, UUID]]) -> tuple[datetime, int, dict[tuple[int, UUID], Order]]:
    """`lock_orders`, with the transaction's time by the database's clock and its id (0 when there is nothing to lock)."""
    ordered = sorted(set(keys))
    rows = await fetch(tx, _LOCK, [k[0] for k in ordered], [k[1] for k in ordered])
    if not rows:
        return (await fetch(tx, "SELECT now() AS now"))[0]["now"], 0, {}
    found = {order.key: order for order in (order_from(r[:-2]) for r in rows)}
    return rows[0]["tx_now"], rows[0]["xid"], found


@dataclass(frozen=True, slots=True)
class Numbers:
    """What is known of some (book, merchant_order_no): the orders that exist, and those under which a no was said, see `closing`."""

    now: datetime
    """The transaction's time by the database's clock."""
    orders: dict[tuple[int, str], Order]
    closed: set[tuple[int, str]]


async def look_up_numbers(tx: Tx, numbers: Sequence[tuple[int, str]]) -> Numbers:
    """Which of these numbers stand for an order, and which never will; in one statement."""
    rows = await fetch(tx, _BY_NUMBERS, [n[0] for n in numbers], [n[1] for n in numbers])
    found = {(r["book_id"], r["merchant_order_no"]): order_from(r[2:]) for r in rows if r["book_id"] is not None}
    return Numbers(rows[0]["tx_now"], found, {numbers[place - 1] for place in rows[0]["closed"] or ()})


async def find_by_numbers(
    tx: Tx, numbers: Sequence[tuple[int, str]]
) -> tuple[datetime, dict[tuple[int, str], Order]]:
    """(the transaction's time, (book, merchant_order_no) → order) for those that exist."""
    known = await look_up_numbers(tx, numbers)
    return known.now, known.orders


async def find_order(tx: Tx, book_id: int, order_id: UUID) -> Order | None:
    rows = await fetch(tx, f"SELECT {_SELECT} FROM orders o WHERE o.book_id = $1 AND o.order_id = $2", book_id, order_id)
    return order_from(rows[0]) if rows else None


async def find_orders(tx: Tx, keys: Sequence[tuple[int, UUID]]) -> dict[tuple[int, UUID], Order]:
    """By (book, order), as they are now, unlocked."""
    rows = await fetch(tx, _BY_KEYS, [k[0] for k in keys], [k[1] for k in keys]) if keys else []
    return {order.key: order for order in map(order_from, rows)}


async def list_between(tx: Tx, book_id: int, first: UUID, last: UUID) -> list[Order]:
    """Orders of a book whose ids lie between these two, both included."""
    rows = await fetch(tx, f"SELECT {_SELECT} FROM orders o WHERE o.book_id = $1 AND o.order_id BETWEEN $2 AND $3", book_id, first, last)
    return [order_from(r) for r in rows]


async def get_order(tx: Tx, book_id: int, order_id: UUID) -> Order:
    """Raises NotFound, also for another book's order."""
    order = await find_order(tx, book_id, order_id)
    if order is None:
        raise NotFound
    return order


_FINAL = f"""
SELECT {_SELECT} FROM unnest($1::bigint[], $2::uuid[]) AS k (book_id, order_id)
JOIN orders o ON o.book_id = k.book_id AND o.order_id = k.order_id WHERE o.status = ANY ($3::text[])
"""


async def find_final(tx: Tx, keys: Sequence[tuple[int, UUID]]) -> list[Order]:
    """Those of these orders that are final."""
    return [order_from(r) for r in await fetch(tx, _FINAL, [k[0] for k in keys], [k[1] for k in keys], sorted(FINAL))]


async def get_by_number(tx: Tx, book_id: int, merchant_order_no: str) -> Order:
    """Raises NotFound."""
    _, found = await find_by_numbers(tx, [(book_id, merchant_order_no)])
    if not found:
        raise NotFound
    return found[book_id, merchant_order_no]


async def list_orders(
    tx: Tx,
    book_id: int,
    *,
    status: str | None = None,
    created_from: datetime | None = None,
    created_to: datetime | None = None,
    before: UUID | None = None,
    limit: int = 20,
) -> list[Order]:
    """Newest first; `before` is the keyset: ids are time-ordered."""
    rows = await fetch(
        tx,
        f"""
        SELECT {_SELECT} FROM orders o
        WHERE o.book_id = $1 AND ($2::text IS NULL OR o.status = $2)
          AND ($3::timestamptz IS NULL OR o.created_at >= $3) AND ($4::timestamptz IS NULL OR o.created_at < $4)
          AND ($5::uuid IS NULL OR o.order_id < $5)
        ORDER BY o.order_id DESC LIMIT $6
        """,
        book_id, status, created_from, created_to, before, limit,
    )  # fmt: skip
    return [order_from(r) for r in rows]


async def list_reviews(tx: Tx, *, after: tuple[int, UUID] | None = None, limit: int = 50) -> list[Order]:
    """Orders that wait for a person, over all books."""
    book_id, order_id = after or (0, UUID(int=0))
    rows = await fetch(
        tx,
        f"""
        SELECT {_SELECT} FROM orders o WHERE o.substatus = 'manual_review' AND (o.book_id, o.order_id) > ($1, $2)
        ORDER BY o.book_id, o.order_id LIMIT $3
        """,
        book_id, order_id, limit,
    )  # fmt: skip
    return [order_from(r) for r in rows]


async def list_codes(tx: Tx, book_id: int, order_id: UUID) -> list[tuple[int, bytes]]:
    """(unit number, sealed code) of an order."""
    rows = await fetch(
        tx, "SELECT unit_no, sealed FROM codes WHERE book_id = $1 AND order_id = $2 ORDER BY unit_no", book_id, order_id
    )
    return [(r["unit_no"], r["sealed"]) for r in rows]


@dataclass(frozen=True, slots=True)
class Refund:
    """Money returned after an order was final. `amount` in 1/10000 units."""

    refund_id: UUID
    refund_no: str
    reason: str
    amount: int
    currency: str
    created_at: datetime


async def list_refunds(tx: Tx, book_id: int, order_id: UUID) -> list[Refund]:
    rows = await fetch(
        tx,
        """SELECT refund_id, refund_no, reason, amount, currency, created_at FROM refunds
        WHERE book_id = $1 AND order_id = $2 ORDER BY refund_id""",
        book_id, order_id,
    )  # fmt: skip
    return [Refund(**r) for r in rows]


async def list_incidents(tx: Tx, book_id: int, order_id: UUID) -> list[Any]:
    """Facts about this order that contradict each other."""
    return await fetch(
        tx, "SELECT kind, detail, at, closed_at FROM incidents WHERE book_id = $1 AND order_id = $2 ORDER BY incident_id",
        book_id, order_id,
    )  # fmt: skip


async def targets_charged_since(
    tx: Tx, wanted: Sequence[tuple[int, str, bytes, datetime]]
) -> set[tuple[int, str, bytes]]:
    """Of (book, sku, target hash, since): those for which an order that is alive or was delivered exists."""
    rows = await fetch(
        tx,
        """
        SELECT DISTINCT o.book_id, o.sku, o.target_hash
        FROM unnest($1::bigint[], $2::text[], $3::bytea[], $4::timestamptz[]) AS k (book_id, sku, target_hash, since)
        JOIN orders o ON o.book_id = k.book_id AND o.sku = k.sku AND o.target_hash = k.target_hash
          AND o.created_at > k.since AND o.status NOT IN ('failed', 'cancelled')
        """,
        [w[0] for w in wanted], [w[1] for w in wanted], [w[2] for w in wanted], [w[3] for w in wanted],
    )  # fmt: skip
    return {(r["book_id"], r["sku"], r["target_hash"]) for r in rows}
