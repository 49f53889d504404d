"""Products, prices, and who may buy them."""

from dataclasses import replace
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response
from pydantic import Field

from kameng_api.api.admin import shapes
from kameng_api.api.admin.desk import Amount, AtDesk, Cursor, DeskRoute, Rate, needs, read_id
from kameng_api.api.routes import WireModel
from kameng_api.api.wire import Limit
from kameng_api.catalog import actions, queries
from kameng_api.catalog.rules import FormField, Price, Product
from kameng_api.kit.db import Tx

router = APIRouter(route_class=DeskRoute)

ProductStatus = Literal["on_sale", "paused", "retired"]


class FieldWanted(WireModel):
    name: str
    label: str
    required: bool = True
    pattern: str | None = None
    max_length: int = 64
    min_length: int = 0
    checksum: str | None = None


class ProductWanted(WireModel):
    name: str
    product_type: Literal["topup", "card", "voucher"]
    currency: str = "CNY"
    face_value: Amount | None = None
    face_min: Amount | None = None
    face_max: Amount | None = None
    face_step: Amount | None = None
    target_kind: Literal["mobile", "account"] | None = None
    fields: list[FieldWanted] = Field(default_factory=list, max_length=20)
    environments: list[Literal["live", "test"]] = Field(default=["live", "test"], max_length=2)
    status: ProductStatus = "on_sale"
    max_quantity: int = 100
    deliver_within_s: int = 600
    duplicate_window_s: int = 0
    allow_below_cost: bool = False
    refund_on_reversal: bool = True
    carriers: list[str] = Field(default_factory=list, max_length=8)

    def product(self, sku: str) -> Product:
        values = dict(self)
        values["fields"] = tuple(FormField(**dict(wanted)) for wanted in self.fields)
        values["environments"] = frozenset(self.environments)
        values["carriers"] = tuple(self.carriers)
        return Product(sku=sku, **values)


@router.put("/products/{sku}")
@needs("catalog:write")
async def put_product(desk: AtDesk, sku: str, wanted: ProductWanted, response: Response) -> dict[str, Any]:
    """Creates the SKU, or changes what may change: type, currency, face value and target of a SKU stay."""
    product = wanted.product(sku)
    async with desk.door.db.transaction() as tx:
        new = await actions.put_product(tx, product)
        await desk.audit(tx, "product.created" if new else "product.changed", sku, **_told(product))
        found = await queries.get_product(tx, sku)
    response.status_code = 201 if new else 200
    return shapes.product(found)


def _told(product: Product) -> dict[str, Any]:
    told = shapes.product(replace(product, created_at=None, updated_at=None))
    return {name: value for name, value in told.items() if name not in ("sku", "created_at", "updated_at")}


@router.get("/products")
@needs("read")
async def list_products(
    desk: AtDesk,
    status: Annotated[ProductStatus | None, Query()] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> dict[str, Any]:
    context = ("products", status or "")
    position = desk.position(cursor, *context)
    async with desk.door.db.transaction() as tx:
        found = await queries.list_products(tx, after=position[0] if position else None, limit=limit + 1, status=status)
    return desk.page(found, limit, shapes.product, lambda p: [p.sku], *context)


@router.get("/products/{sku}")
@needs("read")
async def get_product(desk: AtDesk, sku: str) -> dict[str, Any]:
    """With its prices, offers, barcodes, and the merchants who alone may buy it (none named: everybody may)."""
    async with desk.door.db.transaction() as tx:
        return await _whole(tx, sku)


async def _whole(tx: Tx, sku: str) -> dict[str, Any]:
    product = await queries.get_product(tx, sku)
    return {
        **shapes.product(product),
        "prices": [shapes.price(row) for row in await queries.list_prices(tx, sku)],
        "offers": [shapes.offer(one) for one in await queries.list_offers(tx, sku=sku)],
        "barcodes": await queries.list_barcodes(tx, sku),
        "only_for": [shapes.merchant_name(one) for one in await queries.list_grants(tx, sku)],
    }


class StatusWanted(WireModel):
    status: ProductStatus


@router.put("/products/{sku}/status")
@needs("catalog:write")
async def set_status(desk: AtDesk, sku: str, wanted: StatusWanted) -> dict[str, Any]:
    async with desk.door.db.transaction() as tx:
        await actions.set_product_status(tx, sku, wanted.status)
        await desk.audit(tx, "product.status_set", sku, status=wanted.status)
        return shapes.product(await queries.get_product(tx, sku))


class PriceWanted(WireModel):
    """For everybody, for one level, or for one merchant; an amount, or a rate of the face value."""

    level: str | None = None
    merchant_id: str | None = None
    unit_price: Amount | None = None
    rate: Rate | None = None


@router.put("/products/{sku}/price")
@needs("catalog:write")
async def set_price(desk: AtDesk, sku: str, wanted: PriceWanted) -> dict[str, Any]:
    """The narrowest price wins: a merchant's own, its level's, everybody's."""
    owner = None if wanted.merchant_id is None else read_id("mer", wanted.merchant_id)
    async with desk.door.db.transaction() as tx:
        price = Price(wanted.unit_price, wanted.rate)
        await actions.set_price(tx, sku, price, level=wanted.level, merchant_id=owner)
        await desk.audit(
            tx,
            "price.set",
            sku,
            level=wanted.level,
            merchant_id=wanted.merchant_id,
            unit_price=shapes.amount_or_none(wanted.unit_price),
            rate=shapes.rate_or_none(wanted.rate),
        )
        return await _whole(tx, sku)


@router.delete("/products/{sku}/price")
@needs("catalog:write")
async def remove_price(
    desk: AtDesk,
    sku: str,
    level: Annotated[str | None, Query()] = None,
    merchant_id: Annotated[str | None, Query()] = None,
) -> dict[str, Any]:
    """Whoever bought at it falls back to the next wider price, or sees the product no more."""
    owner = None if merchant_id is None else read_id("mer", merchant_id)
    async with desk.door.db.transaction() as tx:
        await queries.get_product(tx, sku)
        removed = await actions.remove_price(tx, sku, level=level, merchant_id=owner)
        if removed:
            await desk.audit(tx, "price.removed", sku, level=level, merchant_id=merchant_id)
        return await _whole(tx, sku)


class GrantsWanted(WireModel):
    merchant_ids: list[str] = Field(max_length=1000)


@router.put("/products/{sku}/only-for")
@needs("catalog:write")
async def set_grants(desk: AtDesk, sku: str, wanted: GrantsWanted) -> dict[str, Any]:
    """Only these merchants may buy the SKU; an empty list opens it to all."""
    owners = [read_id("mer", one) for one in wanted.merchant_ids]
    async with desk.door.db.transaction() as tx:
        await actions.set_grants(tx, sku, owners)
        await desk.audit(tx, "product.only_for_set", sku, merchant_ids=wanted.merchant_ids)
        return await _whole(tx, sku)


class BarcodesWanted(WireModel):
    """A GTIN (8, 12, 13 or 14 digits), or any text a scanner reads. One barcode means one SKU."""

    barcodes: list[str] = Field(max_length=50)


@router.put("/products/{sku}/barcodes")
@needs("catalog:write")
async def set_barcodes(desk: AtDesk, sku: str, wanted: BarcodesWanted) -> dict[str, Any]:
    """These barcodes mean the SKU, and no others; a barcode of another SKU answers 409."""
    async with desk.door.db.transaction() as tx:
        await actions.set_barcodes(tx, sku, wanted.barcodes)
        await desk.audit(tx, "product.barcodes_set", sku, barcodes=wanted.barcodes)
        return await _whole(tx, sku)
