"""One page of a supplier's list as it takes effect on our offers: one version of the catalogue, however many rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from kameng_api.catalog.actions import bump, stock_change
from kameng_api.catalog.costs import note_costs
from kameng_api.kit.db import Tx, execute, fetch


@dataclass(frozen=True, slots=True)
class Listed:
    """What an offer becomes by its supplier's list. `cost` None: it stays; else per unit, or in ppm where the SKU is ranged.

    `read_at` is when the offer was written last, as the decision saw it: one that an operator has touched since stays as he left it.
    """

    sku: str
    product_code: str
    cost: int | None
    stock: int | None
    held: str | None
    read_at: datetime
    disable: bool = False


@dataclass(frozen=True, slots=True)
class Learnt:
    """What the list says of an offer that stays as it is: that its cost holds, that there is some, that it is on sale."""

    sku: str
    cost: bool
    stock: bool
    on_sale: bool


_LISTED: Final = """
UPDATE offers o SET
  unit_cost = CASE WHEN k.cost IS NULL THEN o.unit_cost WHEN p.face_value IS NOT NULL THEN k.cost END,
  rate_ppm = CASE WHEN k.cost IS NULL THEN o.rate_ppm WHEN p.face_value IS NULL THEN k.cost END,
  quoted_at = CASE WHEN k.cost IS NULL THEN o.quoted_at ELSE $9 END, stock = k.stock, held = k.held,
  status = CASE WHEN k.disable THEN 'disabled' ELSE o.status END, updated_at = clock_timestamp()
FROM unnest($2::text[], $3::text[], $4::bigint[], $5::int[], $6::text[], $7::timestamptz[], $8::bool[])
  AS k (sku, product_code, cost, stock, held, read_at, disable)
JOIN products p ON p.sku = k.sku
WHERE o.channel_id = $1 AND o.sku = k.sku AND o.product_code = k.product_code AND o.updated_at = k.read_at
RETURNING o.sku
"""

_LEARNT: Final = """
UPDATE offers o SET quoted_at = CASE WHEN k.cost THEN greatest(o.quoted_at, $6) ELSE o.quoted_at END,
  stocked_at = CASE WHEN k.stock THEN $6 ELSE o.stocked_at END, listed_at = CASE WHEN k.on_sale THEN $6 ELSE o.listed_at END
FROM unnest($2::text[], $3::bool[], $4::bool[], $5::bool[]) AS k (sku, cost, stock, on_sale)
WHERE o.channel_id = $1 AND o.sku = k.sku
"""


async def apply_listed(
    tx: Tx, channel_id: str, changes: Sequence[Listed], learnt: Sequence[Learnt], asked_at: datetime, said_by: str
) -> set[str]:
    """One page of a supplier's list takes effect: one new version of the catalogue, however many offers. Returns the SKUs that changed.

    `asked_at`: when the supplier was asked, by the database's clock; what it refused after that moment stays closed.
    """
    done: set[str] = set()
    if changes:
        ordered = sorted(changes, key=lambda c: c.sku)
        async with stock_change(tx, [c.sku for c in ordered]):
            columns = [[getattr(c, name) for c in ordered] for name in ("sku", "product_code", "cost", "stock", "held", "read_at", "disable")]
            done = {row["sku"] for row in await fetch(tx, _LISTED, channel_id, *columns, asked_at)}
            await note_costs(tx, channel_id, sorted(done), said_by)
    if learnt:
        if not changes:
            await bump(tx)
        columns = [[getattr(one, name) for one in learnt] for name in ("sku", "cost", "stock", "on_sale")]
        await execute(tx, _LEARNT, channel_id, *columns, asked_at)
    return done
