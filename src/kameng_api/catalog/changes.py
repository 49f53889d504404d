"""What a merchant would see differently since it last looked: one mark per book and SKU, moved forward by each change.

A mark carries the catalogue's version. That version's row is locked by every change until it commits, so versions become visible in their
order: a reader that has seen everything up to one of them never meets an earlier one later. A mark says that the product is another one now,
not what it was in between, so the feed never grows beyond the catalogue and needs no pruning.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from kameng_api.catalog import queries, rules
from kameng_api.catalog.rules import Change, Reader, Snapshot
from kameng_api.kit.db import Tx, execute, fetch

BEGINNING: Final = (0, "")


@dataclass(frozen=True, slots=True)
class Mark:
    """A product that is another one for a book since `version`; `changed` of `price`, `status`, `stock`, `details`."""

    version: int
    sku: str
    changed: tuple[str, ...]


_OWN: Final = """
INSERT INTO product_marks AS m (book_id, sku, version, price_version, status_version)
SELECT k.book_id, k.sku, $4::bigint, CASE WHEN k.is_price THEN $4::bigint ELSE 0 END, CASE WHEN k.is_price THEN 0 ELSE $4::bigint END
FROM unnest($1::bigint[], $2::text[], $3::bool[]) AS k (book_id, sku, is_price) ORDER BY 1, 2
ON CONFLICT (book_id, sku) DO UPDATE SET version = excluded.version,
  price_version = greatest(m.price_version, excluded.price_version), status_version = greatest(m.status_version, excluded.status_version)
"""

_SHARED: Final = """
INSERT INTO catalog_marks AS m (environment, sku, version, stock_version, details_version)
SELECT k.environment, k.sku, $5::bigint, CASE WHEN k.stock THEN $5::bigint ELSE 0 END, CASE WHEN k.details THEN $5::bigint ELSE 0 END
FROM unnest($1::text[], $2::text[], $3::bool[], $4::bool[]) AS k (environment, sku, stock, details) ORDER BY 1, 2
ON CONFLICT (environment, sku) DO UPDATE SET version = excluded.version,
  stock_version = greatest(m.stock_version, excluded.stock_version), details_version = greatest(m.details_version, excluded.details_version)
"""


async def record_own(tx: Tx, version: int, changes: Sequence[Change]) -> None:
    """Statuses and prices that differ for some books; each (book, SKU) once."""
    if changes:
        books = [change.reader.book_id for change in changes]
        await execute(tx, _OWN, books, [c.sku for c in changes], [c.type == "product.price_changed" for c in changes], version)


async def record_shared(tx: Tx, version: int, before: Snapshot, after: Snapshot, skus: Iterable[str]) -> None:
    """Stock words and descriptions that differ, for whoever sees the product."""
    found = [
        (environment, sku, stock, details)
        for sku in skus
        if sku in before.products and sku in after.products
        for environment in rules.ENVIRONMENTS
        for stock, details in [_shared_changes(before, after, sku, environment)]
        if stock or details
    ]
    if found:
        environments, names, stocks, details = (list(column) for column in zip(*found, strict=True))
        await execute(tx, _SHARED, environments, names, stocks, details, version)


def _shared_changes(before: Snapshot, after: Snapshot, sku: str, environment: str) -> tuple[bool, bool]:
    stock = rules.stock_word(before, sku, environment) != rules.stock_word(after, sku, environment)
    return stock, rules.details(before, sku) != rules.details(after, sku)


async def record_level(tx: Tx, version: int, were: Sequence[Reader], snapshot: Snapshot) -> None:
    """Readers may be on another price level now: what they see differently."""
    now = {reader.book_id: reader for reader in await queries.list_readers(tx, suspended=True)}
    moved = [(now[old.book_id], old.level) for old in were if now[old.book_id].level != old.level]
    await record_own(tx, version, [change for reader, level in moved for change in rules.find_level_changes(snapshot, reader, level)])


_LIST: Final = """
SELECT k.version, k.sku, coalesce(o.price_version, 0) AS price, coalesce(o.status_version, 0) AS status,
  coalesce(c.stock_version, 0) AS stock, coalesce(c.details_version, 0) AS details
FROM (
  SELECT version, sku FROM (
    (SELECT version, sku FROM product_marks WHERE book_id = $1 AND (version, sku) > ($3::bigint, $4::text) ORDER BY version, sku LIMIT $5::bigint)
    UNION
    (SELECT version, sku FROM catalog_marks WHERE environment = $2 AND (version, sku) > ($3::bigint, $4::text) ORDER BY version, sku LIMIT $5::bigint)
  ) AS marks ORDER BY version, sku LIMIT $5::bigint
) AS k
LEFT JOIN product_marks o ON o.book_id = $1 AND o.sku = k.sku
LEFT JOIN catalog_marks c ON c.environment = $2 AND c.sku = k.sku
ORDER BY k.version, k.sku
"""


async def list_marks(tx: Tx, book_id: int, environment: str, *, after: tuple[int, str], limit: int) -> list[Mark]:
    """Oldest first; `after` is the (version, SKU) of the last one seen.

    A mark names everything that moved since, because the reader is shown the product as it is: what is told here may be named again later.
    """
    rows = await fetch(tx, _LIST, book_id, environment, *after, limit)
    return [
        Mark(row["version"], row["sku"], tuple(kind for kind in ("price", "status", "stock", "details") if row[kind] and row[kind] >= after[0]))
        for row in rows
    ]


_LAST: Final = """
SELECT version, sku FROM (
  (SELECT version, sku FROM product_marks WHERE book_id = $1 ORDER BY version DESC, sku DESC LIMIT 1)
  UNION ALL
  (SELECT version, sku FROM catalog_marks WHERE environment = $2 ORDER BY version DESC, sku DESC LIMIT 1)
) AS last ORDER BY version DESC, sku DESC LIMIT 1
"""


async def find_last(tx: Tx, book_id: int, environment: str) -> tuple[int, str]:
    """Where the feed of this book ends at this moment."""
    rows = await fetch(tx, _LAST, book_id, environment)
    return (rows[0]["version"], rows[0]["sku"]) if rows else BEGINNING
