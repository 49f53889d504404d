"""What this merchant can buy, at its own prices."""

import hashlib
from typing import Annotated, Any, Final

import orjson
from fastapi import APIRouter, Path, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from kameng_api.api.deps import CalledBy, InDoor
from kameng_api.api.routes import StrictRoute
from kameng_api.api.wire import Amount, Limit
from kameng_api.catalog import rules as catalog
from kameng_api.catalog.rules import Product as CatalogProduct
from kameng_api.catalog.rules import Reader, Snapshot
from kameng_api.kit import paging
from kameng_api.kit.errors import NotFound
from kameng_api.merchants.rules import Caller

router = APIRouter(route_class=StrictRoute, tags=["products"])

_LIST: Final = "products"


class Range(BaseModel):
    """Face values of a ranged product; order one with `fields.face_value`."""

    min: Amount
    max: Amount
    step: Amount


class FormField(BaseModel):
    """One thing the order must tell beside the target, in `fields`."""

    name: str
    label: str
    required: bool
    pattern: str | None
    max_length: int


class Product(BaseModel):
    """One SKU as this merchant sees it. A fixed product has `face_value` and `unit_price`, a ranged one `range` and `price_rate`."""

    model_config = ConfigDict(extra="allow")

    sku: str = Field(examples=["mobile-cn-100"])
    name: str
    product_type: str = Field(description="`topup`, `card` or `voucher`")
    face_value: Amount | None = None
    range: Range | None = None
    unit_price: Amount | None = Field(None, description="What one unit costs you.")
    price_rate: str | None = Field(None, description="Price per unit of face value, six places.", examples=["0.985000"])
    currency: str
    fields: list[FormField]
    stock: str = Field(description="`in_stock`, `low` or `out_of_stock`")
    status: str = Field(description="`on_sale`, `paused` or `retired`")


class Products(BaseModel):
    items: list[Product]
    next_cursor: str | None


@router.get("/v1/products", response_model=Products, summary="Products")
async def list_products(
    request: Request,
    door: InDoor,
    caller: CalledBy,
    limit: Limit = 20,
    cursor: Annotated[str | None, Query(max_length=1024)] = None,
) -> Response:
    snapshot, reader = door.catalog.current, _reader(caller)
    key, context = door.keyring.derive("cursors"), (_LIST, str(caller.book_id))
    after = paging.decode(key, cursor, context)[0] if cursor is not None else ""
    skus = [sku for sku in sorted(snapshot.products) if sku > after and _visible(snapshot, sku, reader)]
    shown = skus[:limit]
    page = {
        "items": [catalog.public_view(snapshot, snapshot.products[sku], reader) for sku in shown],
        "next_cursor": paging.encode(key, [shown[-1]], context) if len(skus) > limit else None,
    }
    return _tagged(request, orjson.dumps(page))


@router.get("/v1/products/{sku}", response_model=Product, summary="Product")
async def get_product(
    request: Request, door: InDoor, caller: CalledBy, sku: Annotated[str, Path(max_length=64)]
) -> Response:
    snapshot, reader = door.catalog.current, _reader(caller)
    product: CatalogProduct | None = snapshot.products.get(sku)
    if product is None or not _visible(snapshot, sku, reader):
        raise NotFound
    return _tagged(request, orjson.dumps(catalog.public_view(snapshot, product, reader)))


def _reader(caller: Caller) -> Reader:
    return Reader(caller.book_id, caller.environment, caller.merchant_id, caller.level, caller.currency)


def _visible(snapshot: Snapshot, sku: str, reader: Reader) -> bool:
    """What it may never buy, a merchant does not see; what is paused it does."""
    return catalog.visible_status(snapshot, sku, reader) != "retired"


def _tagged(request: Request, content: bytes) -> Response:
    """200 with an ETag, or 304 when the caller holds the same bytes."""
    tag = f'"{hashlib.blake2b(content, digest_size=12).hexdigest()}"'
    headers = {"ETag": tag, "Cache-Control": "private, no-cache"}
    held: Any = request.headers.get("if-none-match", "")
    if tag in [each.strip().removeprefix("W/") for each in held.split(",")]:
        return Response(status_code=304, headers=headers)
    return Response(content, headers=headers, media_type="application/json")
