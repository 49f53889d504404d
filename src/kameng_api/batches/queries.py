"""Batches, read: as they stand, their rows with what became of the orders, and their pages opened."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import orjson

from kameng_api.batches.errors import RowsGone
from kameng_api.batches.requests import StoredRow, headings_in, unpack
from kameng_api.batches.rules import Batch, Counts, Group, Options, State, add_up, shown_status
from kameng_api.kit.crypto import Keyring
from kameng_api.kit.db import Tx, fetch
from kameng_api.kit.errors import NotFound

_COLUMNS: Final = (
    "book_id", "batch_id", "merchant_batch_no", "fingerprint", "environment", "currency", "kind", "filename", "options", "validate_only", "state",
    "version", "total", "invalid", "pages", "pages_validated", "pages_placed", "failure_code", "failure_detail", "warnings", "final_counts", "looks",
    "told_at", "created_at", "validated_at", "confirmed_at", "completed_at",
)  # fmt: skip
_SELECT: Final = ", ".join(f"b.{c}" for c in _COLUMNS)

# LIMIT keeps each look at an order a look by its key, also before the first ANALYZE of a large import, when the planner knows no sizes.
_GROUPS = """
SELECT i.batch_id, i.status, o.status AS order_status, count(*)::int AS n, sum(i.amount)::bigint AS amount
FROM batch_items i
LEFT JOIN LATERAL (SELECT status FROM orders WHERE book_id = i.book_id AND order_id = i.order_id LIMIT 1) o ON true
WHERE i.book_id = $1 AND i.batch_id = ANY ($2) GROUP BY 1, 2, 3
"""

_ITEMS = """
SELECT i.line_no, i.part, i.status, i.merchant_order_no, i.sku, i.quantity, i.amount, i.order_id, i.merged_into, i.error_code, i.error_pointer,
  i.error_detail, o.status AS order_status, o.failure_code, o.delivered_units
FROM batch_items i
LEFT JOIN LATERAL (
  SELECT status, failure_code, delivered_units FROM orders WHERE book_id = i.book_id AND order_id = i.order_id LIMIT 1
) o ON true
WHERE i.book_id = $1 AND i.batch_id = $2 AND (i.line_no, i.part) > ($3, $4) AND ($5::text[] IS NULL OR {shown} = ANY ($5))
ORDER BY i.line_no, i.part LIMIT $6
""".format(shown="coalesce(o.status, i.status)")


@dataclass(frozen=True, slots=True)
class Item:
    """A row, or a part of one, with what became of its order. `amount` in 1/10000 units."""

    line_no: int
    part: int
    status: str
    merchant_order_no: str | None
    sku: str | None
    quantity: int | None
    amount: int
    order_id: UUID | None
    merged_into: int | None
    error_code: str | None
    error_pointer: str | None
    error_detail: str | None
    order_status: str | None
    failure_code: str | None
    delivered_units: int | None

    @property
    def shown(self) -> str:
        return shown_status(self.status, self.order_status)

    @property
    def is_duplicate(self) -> bool:
        return self.status == "duplicate"

    @property
    def code(self) -> str | None:
        """Why there is no (delivered) order."""
        return self.error_code or self.failure_code


@dataclass(frozen=True, slots=True)
class Pending:
    """An item whose turn to be placed has come, as it was decided when it was validated."""

    line_no: int
    part: int
    merchant_order_no: str
    sku: str
    quantity: int


def file_binding(book_id: int, batch_id: UUID, n: int) -> bytes:
    """Associated data of a piece of a file."""
    return b"batch_files.sealed:%d:%s:%d" % (book_id, batch_id.bytes, n)


def page_binding(book_id: int, batch_id: UUID, n: int) -> bytes:
    """Associated data of a page of rows."""
    return b"batch_pages.sealed:%d:%s:%d" % (book_id, batch_id.bytes, n)


def _batch(row: Any) -> Batch:
    values = dict(row)
    options = orjson.loads(values["options"])
    values["options"] = Options(**{**options, "split_skus": tuple(options["split_skus"])})
    values["state"] = State(values["state"])
    values["warnings"] = () if values["warnings"] is None else tuple(orjson.loads(values["warnings"]))
    values["final_counts"] = None if values["final_counts"] is None else Counts(**orjson.loads(values["final_counts"]))
    return Batch(**values)


async def find_batch(tx: Tx, book_id: int, batch_id: UUID) -> Batch | None:
    rows = await fetch(tx, f"SELECT {_SELECT} FROM batches b WHERE b.book_id = $1 AND b.batch_id = $2", book_id, batch_id)
    return _batch(rows[0]) if rows else None


async def get_batch(tx: Tx, book_id: int, batch_id: UUID) -> Batch:
    """Raises NotFound, also for another book's batch."""
    batch = await find_batch(tx, book_id, batch_id)
    if batch is None:
        raise NotFound
    return batch


async def lock_batch(tx: Tx, book_id: int, batch_id: UUID) -> tuple[Batch, datetime]:
    """Its row locked until `tx` ends, and the transaction's time. Before orders and accounts, everywhere. Raises NotFound."""
    rows = await fetch(
        tx, f"SELECT {_SELECT}, now() AS tx_now FROM batches b WHERE b.book_id = $1 AND b.batch_id = $2 FOR NO KEY UPDATE", book_id, batch_id
    )
    if not rows:
        raise NotFound
    values = dict(rows[0])
    now: datetime = values.pop("tx_now")
    return _batch(values), now


async def find_by_number(tx: Tx, book_id: int, merchant_batch_no: str, *, real: bool = False) -> Batch | None:
    """The batch that owns a number; without one (and unless `real`) the latest that was only validated under it."""
    rows = await fetch(
        tx,
        f"""SELECT {_SELECT} FROM batches b WHERE b.book_id = $1 AND b.merchant_batch_no = $2 AND NOT (b.validate_only AND $3)
        ORDER BY b.validate_only, b.batch_id DESC LIMIT 1""",
        book_id, merchant_batch_no, real,
    )  # fmt: skip
    return _batch(rows[0]) if rows else None


async def list_batches(tx: Tx, book_id: int, *, state: str | None, before: UUID | None, limit: int) -> list[Batch]:
    """Newest first; `before` is the keyset."""
    rows = await fetch(
        tx,
        f"""SELECT {_SELECT} FROM batches b WHERE b.book_id = $1 AND ($2::text IS NULL OR b.state = $2) AND ($3::uuid IS NULL OR b.batch_id < $3)
        ORDER BY b.batch_id DESC LIMIT $4""",
        book_id, state, before, limit,
    )  # fmt: skip
    return [_batch(row) for row in rows]


async def counts_of(tx: Tx, batches: Sequence[Batch]) -> dict[UUID, Counts]:
    """How the rows of batches of one book stand now: orders are counted as they are, unless none can change any more."""
    known = {b.batch_id: b.final_counts for b in batches if b.final_counts is not None}
    open_ones = [b for b in batches if b.final_counts is None]
    groups: dict[UUID, list[Group]] = {b.batch_id: [] for b in open_ones}
    if open_ones:
        for row in await fetch(tx, _GROUPS, open_ones[0].book_id, list(groups)):
            groups[row["batch_id"]].append(Group(row["status"], row["order_status"], row["n"], row["amount"]))
    return known | {b.batch_id: add_up(b.total, groups[b.batch_id]) for b in open_ones}


async def count(tx: Tx, batch: Batch) -> Counts:
    return (await counts_of(tx, [batch]))[batch.batch_id]


async def list_items(
    tx: Tx, batch: Batch, *, shown: Sequence[str] | None = None, after: tuple[int, int] = (-1, 0), limit: int = 100
) -> list[Item]:
    """In the order of the file; `shown`: only these statuses, as merchants read them."""
    rows = await fetch(tx, _ITEMS, *batch.key, *after, None if shown is None else list(shown), limit)
    return [Item(**row) for row in rows]


async def list_parts(tx: Tx, batch: Batch, line_no: int) -> list[Item]:
    """What became of one row: itself, or its parts."""
    found = await list_items(tx, batch, after=(line_no - 1, 32_767), limit=1_000)
    return [item for item in found if item.line_no == line_no]


async def list_pending(tx: Tx, batch: Batch, page: int) -> list[Pending]:
    """The items of a page that are to be placed, each once: rows that another one carries are not among them."""
    rows = await fetch(
        tx,
        """SELECT line_no, part, merchant_order_no, sku, quantity FROM batch_items
        WHERE book_id = $1 AND batch_id = $2 AND page = $3 AND status = 'pending' AND merged_into IS NULL ORDER BY line_no, part""",
        *batch.key, page,
    )  # fmt: skip
    return [Pending(*row) for row in rows]


async def list_carriers(tx: Tx, batch: Batch) -> dict[int, int]:
    """Line → quantity of the orders that rows of validated pages stand for, with what they carry of later pages."""
    rows = await fetch(
        tx,
        """SELECT line_no, quantity FROM batch_items
        WHERE book_id = $1 AND batch_id = $2 AND part = 0 AND merged_into IS NULL AND quantity IS NOT NULL""",
        *batch.key,
    )  # fmt: skip
    return {row["line_no"]: row["quantity"] for row in rows}


async def read_page(tx: Tx, keyring: Keyring, batch: Batch, n: int) -> tuple[list[StoredRow], list[str]]:
    """(rows, columns) of a page, opened. Raises CryptoError when it was tampered with, RowsGone when it is no longer kept."""
    return unpack(await _page(tx, keyring, batch, n))


async def read_headings(tx: Tx, keyring: Keyring, batch: Batch) -> dict[str, str]:
    """Column → what stood above it in the merchant's file; empty for JSON. Raises CryptoError, RowsGone."""
    return headings_in(await _page(tx, keyring, batch, 0)) if batch.is_read else {}


async def _page(tx: Tx, keyring: Keyring, batch: Batch, n: int) -> bytes:
    rows = await fetch(tx, "SELECT sealed FROM batch_pages WHERE book_id = $1 AND batch_id = $2 AND n = $3", *batch.key, n)
    if not rows:
        raise RowsGone
    return keyring.open(rows[0]["sealed"], page_binding(*batch.key, n))


async def read_file(tx: Tx, keyring: Keyring, batch: Batch) -> bytes:
    """The file as it was sent."""
    rows = await fetch(tx, "SELECT n, sealed FROM batch_files WHERE book_id = $1 AND batch_id = $2 ORDER BY n", *batch.key)
    return b"".join(keyring.open(row["sealed"], file_binding(*batch.key, row["n"])) for row in rows)
