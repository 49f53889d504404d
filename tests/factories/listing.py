"""What a supplier's list says of one offer, without a list."""

from kameng_api.catalog import listed
from kameng_api.catalog.listed import Learnt, Listed
from kameng_api.kit.db import Tx, fetch


async def hear(tx: Tx, channel_id: str, sku: str, *, cost: int | None = None, stock: int | None = None) -> None:
    """The offer's new stock and, unless None, cost: per unit, or in ppm where the SKU is ranged."""
    await fetch(tx, "SELECT 1 FROM catalog_version FOR UPDATE")  # else somebody else may write the offer in between, and this would be left out
    [now] = await fetch(tx, "SELECT product_code, held, updated_at, now() AS at FROM offers WHERE channel_id = $1 AND sku = $2", channel_id, sku)
    change = Listed(sku, now["product_code"], cost, stock, now["held"], now["updated_at"])
    assert await listed.apply_listed(tx, channel_id, [change], [], now["at"], "supplier") == {sku}


async def confirm(tx: Tx, channel_id: str, sku: str) -> None:
    """The list says the same as before."""
    [now] = await fetch(tx, "SELECT now() AS at")
    await listed.apply_listed(tx, channel_id, [], [Learnt(sku, cost=True, stock=True, on_sale=True)], now["at"], "supplier")
