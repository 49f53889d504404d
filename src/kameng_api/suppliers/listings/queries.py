"""Suppliers' lists, what was read of them and what is asked about them, read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import asyncpg
import orjson

from kameng_api.kit.db import Tx, fetch
from kameng_api.kit.errors import NotFound
from kameng_api.suppliers.listings.rules import Kind, Known, ListTerms, Sold, read_terms
from kameng_api.suppliers.port import SupplierProduct, WantedField


@dataclass(frozen=True, slots=True)
class SupplierList:
    """How one channel's list is read, and how that goes."""

    channel_id: str
    enabled: bool
    every_s: int
    changes_every_s: int
    pause_ms: int
    terms: ListTerms
    next_full_at: datetime
    next_changes_at: datetime
    asked_by: str | None
    whole_at: datetime | None
    changes_upto: datetime | None
    may_vanish: int
    failures: int
    lease_until: datetime | None


def _columns(row: type) -> str:
    """JSON as text: what a driver makes of jsonb is its own affair."""
    return ", ".join(f"{f.name}::text AS {f.name}" if f.name in ("terms", "facts", "fields") else f.name for f in fields(row))


_LIST_COLUMNS: Final = _columns(SupplierList)


def _list(row: "asyncpg.Record") -> SupplierList:
    return SupplierList(**{**dict(row), "terms": read_terms(orjson.loads(row["terms"]))})


async def list_lists(tx: Tx) -> list[SupplierList]:
    """All, by channel; there are tens."""
    return [_list(row) for row in await fetch(tx, f"SELECT {_LIST_COLUMNS} FROM supplier_lists ORDER BY channel_id")]


async def get_list(tx: Tx, channel_id: str, *, lock: bool = False) -> SupplierList:
    """`lock`: until the transaction ends nobody else writes what stands of this channel's list. Raises NotFound."""
    rows = await fetch(tx, f"SELECT {_LIST_COLUMNS} FROM supplier_lists WHERE channel_id = $1{' FOR UPDATE' if lock else ''}", channel_id)
    if not rows:
        raise NotFound("this channel's list is not read")
    return _list(rows[0])


_LINE_NAMES: Final = tuple(f.name for f in fields(SupplierProduct))
_LINE_COLUMNS: Final = _columns(SupplierProduct)


def line_of(row: "asyncpg.Record") -> SupplierProduct:
    """A row of `supplier_products` in the supplier's words."""
    values = {name: row[name] for name in _LINE_NAMES}
    told = values["fields"]
    values["fields"] = () if told == "[]" else tuple(WantedField(**{**f, "options": tuple(f["options"])}) for f in orjson.loads(told))
    return SupplierProduct(**values)


async def load_known(tx: Tx, channel_id: str, codes: Sequence[str]) -> dict[str, Known]:
    """code → the line as it was read last."""
    rows = await fetch(
        tx,
        f"""SELECT number, gone_at, listed, asked_alone, {_LINE_COLUMNS} FROM supplier_products
        WHERE channel_id = $1 AND product_code = ANY ($2::text[])""",
        channel_id, list(codes),
    )  # fmt: skip
    return {row["product_code"]: Known(row["number"], line_of(row), row["gone_at"] is not None, row["listed"], row["asked_alone"]) for row in rows}


# The lowest price anybody pays: for everybody, a level or one merchant; as `at_rate` rounds.
_SOLD: Final = """
SELECT o.product_code, o.sku, p.product_type, p.currency, p.face_value, p.face_min, p.face_max, p.allow_below_cost, o.unit_cost, o.rate_ppm,
  o.stock, o.status, o.held, o.updated_at AS read_at, (
    SELECT min(CASE WHEN p.face_value IS NULL THEN r.rate_ppm ELSE coalesce(r.unit_price, (p.face_value * r.rate_ppm + 999999) / 1000000) END)
    FROM prices r WHERE r.sku = o.sku) AS floor
FROM offers o JOIN products p ON p.sku = o.sku
WHERE o.channel_id = $1 AND o.product_code = ANY ($2::text[]) ORDER BY o.sku
"""


async def load_sold(tx: Tx, channel_id: str, codes: Sequence[str]) -> list[tuple[str, Sold]]:
    """(code, offer made of it)."""
    found = []
    for row in await fetch(tx, _SOLD, channel_id, list(codes)):
        values = dict(row)
        code = values.pop("product_code")
        found.append((code, Sold(**values)))
    return found


_SHUT: Final = """
SELECT DISTINCT sku FROM attempts WHERE channel_id = $1 AND refusal IN ('out_of_stock', 'product_off', 'price_exceeded') AND sku IS NOT NULL
  AND settled_at > now() - interval '30 minutes'
"""


async def list_refused(tx: Tx, channel_id: str) -> set[str]:
    """SKUs that this channel refused lately for want of stock, as off sale or for its price: what their line says now may open them again."""
    return {row["sku"] for row in await fetch(tx, _SHUT, channel_id)}


@dataclass(frozen=True, slots=True)
class Missing:
    """A standing line that a whole reading lacked. `listed`: the list held it once."""

    number: int
    product_code: str
    listed: bool
    sold: bool


async def list_missing(tx: Tx, channel_id: str, seen: bytes, *, after: int, limit: int) -> list[Missing]:
    """Standing lines whose bit is not set in `seen`, by number; of those that no list ever held the ones we sell."""
    rows = await fetch(
        tx,
        """SELECT p.number, p.product_code, p.listed, s.sold FROM supplier_products p, LATERAL (SELECT EXISTS (
          SELECT FROM offers o WHERE o.channel_id = p.channel_id AND o.product_code = p.product_code AND o.status = 'enabled') AS sold) s
        WHERE p.channel_id = $1 AND p.gone_at IS NULL AND p.number > $3 AND p.number < 8 * length($2::bytea) AND get_bit($2, p.number) = 0
          AND (p.listed OR s.sold) ORDER BY p.number LIMIT $4""",
        channel_id, seen, after, limit,
    )  # fmt: skip
    return [Missing(**dict(row)) for row in rows]


async def count_missing(tx: Tx, channel_id: str, seen: bytes) -> tuple[int, int]:
    """(standing lines that the list held once, those among them that were not seen)."""
    [row] = await fetch(
        tx,
        """SELECT count(*) AS standing, count(*) FILTER (WHERE number < 8 * length($2::bytea) AND get_bit($2, number) = 0) AS missing
        FROM supplier_products WHERE channel_id = $1 AND gone_at IS NULL AND listed""",
        channel_id, seen,
    )  # fmt: skip
    return row["standing"], row["missing"]


# ---- for people --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Review:
    """Something a person is, or was, asked; `sku` '': the line is sold under none."""

    review_id: UUID
    channel_id: str
    product_code: str
    sku: str
    kind: Kind
    state: str
    told: str
    change_ppm: int | None
    facts: Mapping[str, Any]
    opened_at: datetime
    told_at: datetime
    decided_at: datetime | None
    decided_by: str | None
    note: str | None


_REVIEW_COLUMNS: Final = _columns(Review)


def _review(row: "asyncpg.Record") -> Review:
    return Review(**{**dict(row), "kind": Kind(row["kind"]), "facts": orjson.loads(row["facts"])})


@dataclass(frozen=True, slots=True)
class ReviewFilter:
    """Which reviews; None: any. `most_change`: cost changes of at most so many ppm, up or down."""

    channel_id: str | None = None
    kind: str | None = None
    state: str | None = "open"
    sku: str | None = None
    product_code: str | None = None
    code_begins: str | None = None
    product_type: str | None = None
    most_change: int | None = None


_WHERE: Final = """
WHERE ($1::text IS NULL OR channel_id = $1) AND ($2::text IS NULL OR kind = $2) AND ($3::text IS NULL OR state = $3)
  AND ($4::text IS NULL OR sku = $4) AND ($5::text IS NULL OR product_code = $5) AND ($6::text IS NULL OR starts_with(product_code, $6))
  AND ($7::text IS NULL OR facts ->> 'type' = $7) AND ($8::bigint IS NULL OR abs(change_ppm) <= $8)
"""


def _values(wanted: ReviewFilter) -> list[Any]:
    return [getattr(wanted, f.name) for f in fields(ReviewFilter)]


async def list_reviews(tx: Tx, wanted: ReviewFilter, *, after: UUID | None = None, limit: int = 100, lock: bool = False) -> list[Review]:
    """Oldest first; `after` is the last id of the page before. `lock`: those found are the caller's until his transaction ends."""
    sql = f"SELECT {_REVIEW_COLUMNS} FROM offer_reviews {_WHERE} AND ($9::uuid IS NULL OR review_id > $9) ORDER BY review_id LIMIT $10"
    return [_review(row) for row in await fetch(tx, sql + (" FOR UPDATE" if lock else ""), *_values(wanted), after, limit)]


async def count_reviews(tx: Tx, wanted: ReviewFilter, most: int) -> int:
    """How many there are, counted to `most`."""
    [row] = await fetch(tx, f"SELECT count(*) AS n FROM (SELECT 1 FROM offer_reviews {_WHERE} LIMIT $9) AS r", *_values(wanted), most)
    return int(row["n"])


async def get_review(tx: Tx, review_id: UUID) -> Review:
    """Raises NotFound."""
    rows = await fetch(tx, f"SELECT {_REVIEW_COLUMNS} FROM offer_reviews WHERE review_id = $1", review_id)
    if not rows:
        raise NotFound("no review has this id")
    return _review(rows[0])


@dataclass(frozen=True, slots=True)
class Sync:
    """One reading of a list."""

    sync_id: UUID
    channel_id: str
    kind: str
    state: str
    asked_by: str | None
    pages: int
    lines: int
    added: int
    changed: int
    gone: int
    applied: int
    reviews: int
    missing: int | None
    trouble: str | None
    started_at: datetime
    ended_at: datetime | None


_SYNC_COLUMNS: Final = _columns(Sync)


async def list_syncs(
    tx: Tx, *, channel_id: str | None = None, kind: str | None = None, before: UUID | None = None, limit: int = 100
) -> list[Sync]:
    """Newest first."""
    rows = await fetch(
        tx,
        f"""SELECT {_SYNC_COLUMNS} FROM catalog_syncs WHERE ($1::text IS NULL OR channel_id = $1) AND ($2::uuid IS NULL OR sync_id < $2)
          AND ($4::text IS NULL OR kind = $4) ORDER BY sync_id DESC LIMIT $3""",
        channel_id, before, limit, kind,
    )  # fmt: skip
    return [Sync(**dict(row)) for row in rows]


async def get_sync(tx: Tx, sync_id: UUID) -> Sync:
    """Raises NotFound."""
    rows = await fetch(tx, f"SELECT {_SYNC_COLUMNS} FROM catalog_syncs WHERE sync_id = $1", sync_id)
    if not rows:
        raise NotFound("no reading has this id")
    return Sync(**dict(rows[0]))


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a supplier's list, and the SKUs that are sold of it."""

    channel_id: str
    line: SupplierProduct
    first_seen_at: datetime
    changed_at: datetime
    gone_at: datetime | None
    skus: tuple[str, ...]


async def list_lines(
    tx: Tx, channel_id: str, *, search: str | None = None, gone: bool | None = None, after: str | None = None, limit: int = 100
) -> list[Line]:
    """By code; `search` is part of the name or the beginning of the code; `after` the last code of the page before."""
    rows = await fetch(
        tx,
        f"""SELECT {_LINE_COLUMNS}, first_seen_at, changed_at, gone_at, ARRAY(
          SELECT o.sku FROM offers o WHERE o.channel_id = p.channel_id AND o.product_code = p.product_code ORDER BY o.sku) AS skus
        FROM supplier_products p WHERE channel_id = $1 AND ($2::text IS NULL OR strpos(name, $2) > 0 OR starts_with(product_code, $2))
          AND ($3::bool IS NULL OR (gone_at IS NOT NULL) = $3) AND ($4::text IS NULL OR product_code > $4)
        ORDER BY product_code LIMIT $5""",
        channel_id, search, gone, after, limit,
    )  # fmt: skip
    return [Line(channel_id, line_of(r), r["first_seen_at"], r["changed_at"], r["gone_at"], tuple(r["skus"])) for r in rows]


async def list_supplier_costs(
    tx: Tx, channel_id: str, product_code: str, *, before: datetime | None = None, limit: int = 100
) -> list[Mapping[str, Any]]:
    """Rows of `supplier_costs`, newest first; `before` is the `since` of the last one seen."""
    rows = await fetch(
        tx,
        """SELECT channel_id, product_code, since, cost, currency FROM supplier_costs
        WHERE channel_id = $1 AND product_code = $2 AND ($3::timestamptz IS NULL OR since < $3) ORDER BY since DESC LIMIT $4""",
        channel_id, product_code, before, limit,
    )  # fmt: skip
    return [dict(row) for row in rows]
