"""The catalogue as rows, and as the one snapshot that processes keep."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import RowMapping, Table, func, select

from kameng_api.catalog import hand, rules
from kameng_api.catalog.errors import ChannelUnknown, ProductUnknown, RuleUnknown
from kameng_api.catalog.rules import Channel, FormField, Offer, Price, PriceList, Product, Reader, Snapshot
from kameng_api.catalog.tables import (
    catalog_version,
    channels,
    offers,
    prices,
    product_barcodes,
    product_grants,
    products,
    routing_rules,
)
from kameng_api.kit.db import Tx, fetch

_READERS = """
SELECT b.book_id, b.environment, m.merchant_id, m.level, m.currency
FROM merchants m JOIN books b ON b.merchant_id = m.merchant_id
WHERE m.status = 'active' OR $1 ORDER BY b.book_id
"""


async def find_version(tx: Tx) -> int:
    """Grows with every change in this room; 0 before the first."""
    return int((await tx.execute(select(func.coalesce(func.max(catalog_version.c.version), 0)))).scalar_one())


async def load_snapshot(tx: Tx, skus: Sequence[str] | None = None) -> Snapshot:
    """One copy of the catalogue, or of some SKUs of it (channels always all).

    A writer that commits between two of the statements below leaves `version` older than the rows: who compares
    versions then loads again.
    """
    version = await find_version(tx)
    known = {row["sku"]: _product(row) for row in await _rows(tx, products, skus)}
    listed = {row["channel_id"]: Channel(**row) for row in (await tx.execute(select(channels))).mappings()}
    offered: dict[str, list[Offer]] = {}
    for row in await _rows(tx, offers, skus):
        offered.setdefault(row["sku"], []).append(_offer(row))
    granted: dict[str, set[UUID]] = {}
    for row in await _rows(tx, product_grants, skus):
        granted.setdefault(row["sku"], set()).add(row["merchant_id"])
    codes: dict[str, list[str]] = {}
    barcodes: dict[str, str] = {}
    for row in await _rows(tx, product_barcodes, skus):
        barcodes[row["barcode"]] = row["sku"]
        codes.setdefault(row["sku"], []).append(row["shown"])
    # A row of a product or channel that was added after the statement above is left to the next load.
    return Snapshot(
        version=version,
        products=known,
        prices=_price_lists(known, await _rows(tx, prices, skus)),
        offers={
            sku: rules.resolve(known[sku], (o for o in some if o.channel_id in listed))
            for sku, some in offered.items()
            if sku in known
        },
        channels=listed,
        grants={sku: frozenset(merchants) for sku, merchants in granted.items()},
        hand=hand.gather(await list_rules(tx)),
        barcodes=barcodes,
        barcodes_of={sku: tuple(shown) for sku, shown in codes.items()},
    )


async def _rows(tx: Tx, table: Table, skus: Sequence[str] | None) -> Sequence[RowMapping]:
    statement = select(table).order_by(*table.primary_key.columns)
    if skus is not None:
        statement = statement.where(table.c.sku.in_(skus))
    return (await tx.execute(statement)).mappings().all()


def _product(row: RowMapping) -> Product:
    fields = tuple(FormField(**wanted) for wanted in row["fields"])
    parts = {"fields": fields, "environments": frozenset(row["environments"]), "carriers": tuple(row["carriers"])}
    return Product(**{**row, **parts})


def _offer(row: RowMapping) -> Offer:
    return Offer(**{name: value for name, value in row.items() if name != "updated_at"})


def _price_lists(known: Mapping[str, Product], rows: Iterable[RowMapping]) -> dict[str, PriceList]:
    everybody: dict[str, Price] = {}
    levels: dict[str, dict[str, Price]] = {}
    merchants: dict[str, dict[UUID, Price]] = {}
    for row in rows:
        sku = row["sku"]
        if sku not in known:
            continue
        price = rules.resolve_price(known[sku], Price(row["unit_price"], row["rate_ppm"]))
        if row["merchant_id"] is not None:
            merchants.setdefault(sku, {})[row["merchant_id"]] = price
        elif row["level"] is not None:
            levels.setdefault(sku, {})[row["level"]] = price
        else:
            everybody[sku] = price
    skus = {*everybody, *levels, *merchants}
    return {sku: PriceList(everybody.get(sku), levels.get(sku, {}), merchants.get(sku, {})) for sku in skus}


async def list_readers(tx: Tx, *, suspended: bool = False) -> list[Reader]:
    """Both books of every active merchant: who hears of changes. `suspended`: of the others too, who will look when they are back."""
    return [Reader(**dict(row)) for row in await fetch(tx, _READERS, suspended)]


async def find_product(tx: Tx, sku: str) -> Product | None:
    row = (await tx.execute(select(products).where(products.c.sku == sku))).mappings().one_or_none()
    return None if row is None else _product(row)


async def get_product(tx: Tx, sku: str) -> Product:
    """Raises ProductUnknown."""
    product = await find_product(tx, sku)
    if product is None:
        raise ProductUnknown("no product has this SKU")
    return product


async def list_products(tx: Tx, *, after: str | None, limit: int, status: str | None = None) -> list[Product]:
    """By SKU; `after` is the last SKU of the page before."""
    statement = select(products).order_by(products.c.sku).limit(limit)
    if after is not None:
        statement = statement.where(products.c.sku > after)
    if status is not None:
        statement = statement.where(products.c.status == status)
    return [_product(row) for row in (await tx.execute(statement)).mappings()]


async def list_prices(tx: Tx, sku: str) -> list[Mapping[str, Any]]:
    """Rows of `prices` for one SKU: everybody first, then levels, then merchants."""
    order = (prices.c.merchant_id.nulls_first(), prices.c.level.nulls_first())
    return [dict(r) for r in (await tx.execute(select(prices).where(prices.c.sku == sku).order_by(*order))).mappings()]


async def list_barcodes(tx: Tx, sku: str) -> list[str]:
    """As they are printed, in the order of their one spelling."""
    statement = select(product_barcodes.c.shown).where(product_barcodes.c.sku == sku)
    return list((await tx.execute(statement.order_by(product_barcodes.c.barcode))).scalars())


async def list_grants(tx: Tx, sku: str) -> list[UUID]:
    """The merchants who alone may buy this SKU; empty: everybody may."""
    statement = select(product_grants.c.merchant_id).where(product_grants.c.sku == sku)
    return list((await tx.execute(statement.order_by(product_grants.c.merchant_id))).scalars())


async def find_channel(tx: Tx, channel_id: str) -> Channel | None:
    row = (await tx.execute(select(channels).where(channels.c.channel_id == channel_id))).mappings().one_or_none()
    return None if row is None else Channel(**row)


async def get_channel(tx: Tx, channel_id: str) -> Channel:
    """Raises ChannelUnknown."""
    channel = await find_channel(tx, channel_id)
    if channel is None:
        raise ChannelUnknown("no channel has this id")
    return channel


async def list_channels(tx: Tx, *, environment: str | None = None) -> list[Channel]:
    """All channels, by id; there are tens, not thousands."""
    statement = select(channels).order_by(channels.c.channel_id)
    if environment is not None:
        statement = statement.where(channels.c.environment == environment)
    return [Channel(**row) for row in (await tx.execute(statement)).mappings()]


async def list_offers(
    tx: Tx,
    *,
    sku: str | None = None,
    channel_id: str | None = None,
    after: tuple[str, str] | None = None,
    limit: int = 100,
) -> list[Offer]:
    """As stored (a rate stays a rate), by channel and SKU; `after` is the last (channel, SKU) of the page before."""
    statement = select(offers).order_by(offers.c.channel_id, offers.c.sku).limit(limit)
    if sku is not None:
        statement = statement.where(offers.c.sku == sku)
    if channel_id is not None:
        statement = statement.where(offers.c.channel_id == channel_id)
    if after is not None:
        reached = (offers.c.channel_id > after[0]) | ((offers.c.channel_id == after[0]) & (offers.c.sku > after[1]))
        statement = statement.where(reached)
    return [_offer(row) for row in (await tx.execute(statement)).mappings()]


async def list_rules(
    tx: Tx,
    *,
    kind: str | None = None,
    channel_id: str | None = None,
    sku: str | None = None,
    merchant_id: UUID | None = None,
    level: str | None = None,
    over: bool = False,
    after: UUID | None = None,
    limit: int | None = None,
) -> list[hand.Rule]:
    """Routing rules by id, oldest first; `over`: those past their end too. `after` is the last id of the page before."""
    statement = select(routing_rules).order_by(routing_rules.c.rule_id).limit(limit)
    named = {"kind": kind, "channel_id": channel_id, "sku": sku, "merchant_id": merchant_id, "level": level}
    for name, value in named.items():
        if value is not None:
            statement = statement.where(routing_rules.c[name] == value)
    if not over:
        statement = statement.where(routing_rules.c.expires_at.is_(None) | (routing_rules.c.expires_at > func.now()))
    if after is not None:
        statement = statement.where(routing_rules.c.rule_id > after)
    return [_rule(row) for row in (await tx.execute(statement)).mappings()]


async def get_rule(tx: Tx, rule_id: UUID) -> hand.Rule:
    """Raises RuleUnknown."""
    row = (await tx.execute(select(routing_rules).where(routing_rules.c.rule_id == rule_id))).mappings().one_or_none()
    if row is None:
        raise RuleUnknown("no routing rule has this id")
    return _rule(row)


def _rule(row: RowMapping) -> hand.Rule:
    return hand.Rule(
        rule_id=row["rule_id"],
        scope=hand.Scope(row["channel_id"], row["sku"], row["merchant_id"], row["level"], row["name"]),
        facts=hand.read_facts(hand.Kind(row["kind"]), row["facts"]),
        reason=row["reason"],
        made_by=row["made_by"],
        starts_at=row["starts_at"],
        expires_at=row["expires_at"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )


async def list_buyers(tx: Tx, book_ids: Sequence[int]) -> dict[int, hand.Buyer]:
    """book → whose it is. Needed only where `snapshot.hand.personal`; a book of the house has no buyer."""
    sql = """SELECT b.book_id, m.merchant_id, m.level FROM books b JOIN merchants m ON m.merchant_id = b.merchant_id
    WHERE b.book_id = ANY ($1::bigint[])"""
    return {row["book_id"]: hand.Buyer(row["merchant_id"], row["level"]) for row in await fetch(tx, sql, list(book_ids))}


async def reload(tx: Tx, last: Snapshot | None) -> Snapshot:
    """The catalogue as it is now; `last` itself while its version has not moved."""
    if last is not None and await find_version(tx) == last.version:
        return last
    return await load_snapshot(tx)
