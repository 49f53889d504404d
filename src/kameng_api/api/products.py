"""What this merchant can buy, at its own prices."""

import asyncio
import hashlib
from dataclasses import dataclass
from typing import Annotated, Final, Literal

import orjson
from fastapi import APIRouter, Path, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from kameng_api import __version__
from kameng_api.api.deps import CalledBy, Door, InDoor
from kameng_api.api.routes import StrictRoute
from kameng_api.api.wire import Amount, Limit
from kameng_api.catalog import changes
from kameng_api.catalog import rules as catalog
from kameng_api.catalog.changes import Mark
from kameng_api.catalog.rules import Product as CatalogProduct
from kameng_api.catalog.rules import Reader, Snapshot
from kameng_api.evidence import restores
from kameng_api.kit import paging
from kameng_api.kit.errors import FieldError, Invalid, NotFound
from kameng_api.merchants import queries as merchants
from kameng_api.merchants.rules import Caller

router = APIRouter(route_class=StrictRoute, tags=["products"])

_LIST: Final = "products"
_FEED: Final = "product_changes"
_SLICE: Final = 200


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
    min_length: int = 0
    checksum: str | None = Field(None, description="The check digit that is verified, such as `luhn` or `gb_11643`.")


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
    carriers: list[str] = Field(
        default_factory=list,
        description="Carriers whose numbers it is sold to: `cmcc`, `cucc`, `ctcc`, `cbn`; `virtual`: virtual operators too. Empty: any.",
    )
    barcodes: list[str] = Field(default_factory=list, description="What `POST /v1/scan` takes for it.")
    stock: str = Field(description="`in_stock`, `low` or `out_of_stock`")
    status: str = Field(description="`on_sale`, `paused` or `retired`")


class Products(BaseModel):
    items: list[Product]
    next_cursor: str | None
    changes_after: str | None = Field(
        None, description="Of the whole list only: ask `GET /v1/products/changes` for what came after this snapshot.", examples=["WzQyLCIiXQ.mac"]
    )


class Changed(BaseModel):
    """A product that is another one for you now."""

    sku: str
    changed: list[Literal["price", "status", "stock", "details"]] = Field(description="What moved since `after`; some may be named again.")
    product: Product = Field(description="As it is now. `status` `retired`: you can no longer buy it.")


class Changes(BaseModel):
    """Changes in the order in which they became certain; each product once, as it is now."""

    items: list[Changed]
    after: str = Field(description="Keep it, and ask with it the next time.")
    next_cursor: str | None = Field(description="The same as `after` when there is more at once, else null.")


@router.get("/v1/products", response_model=Products, summary="Products")
async def list_products(
    request: Request,
    door: InDoor,
    caller: CalledBy,
    limit: Limit = 20,
    cursor: Annotated[str | None, Query(max_length=1024)] = None,
    whole: Annotated[Literal["true"] | None, Query(description="Everything at once, with the place to go on from in the change feed.")] = None,
) -> Response:
    """What you can buy, page by page, or everything at once with `whole=true`. Send the `ETag` back as `If-None-Match`: 304 while nothing changed."""
    if whole is not None:
        if "limit" in request.query_params or cursor is not None:
            raise Invalid(errors=[FieldError("/query/whole", "ambiguous", "the whole list has no pages")])
        return await _whole(request, door, caller)
    snapshot, reader = door.catalog.current, _reader(caller, caller.level)
    key, context = door.keyring.derive("cursors"), (_LIST, str(caller.book_id))
    after = paging.decode(key, cursor, context)[0] if cursor is not None else ""
    skus = [sku for sku in sorted(snapshot.products) if sku > after and _visible(snapshot, sku, reader)]
    shown = skus[:limit]
    page = {
        "items": [catalog.public_view(snapshot, snapshot.products[sku], reader) for sku in shown],
        "next_cursor": paging.encode(key, [shown[-1]], context) if len(skus) > limit else None,
        "changes_after": None,
    }
    return _tagged(request, orjson.dumps(page))


@dataclass(frozen=True, slots=True)
class _Standing:
    """Where a book stands in the feed, read in one transaction: every view made from `snapshot` is at least as new as `last`."""

    snapshot: Snapshot
    reader: Reader
    last: tuple[int, str]
    marks: list[Mark]
    more: bool
    context: tuple[str, ...]


async def _stand(door: Door, caller: Caller, after: str | None, limit: int) -> _Standing:
    """With a limit the marks behind `after`, without one the end of the feed. Raises CursorInvalid.

    The copy of the catalogue is read anew when the marks are ahead of it.
    """
    async with door.db.transaction() as tx:
        restored = await restores.list_restores(tx, None, 1)
        # A database that was put back counts its versions again: the places given out before are worth nothing then.
        context = (_FEED, str(caller.book_id), str(restored[0]["restore_id"]) if restored else "")
        level = (await merchants.get_merchant(tx, caller.merchant_id)).level  # the key's own copy may be some seconds old
        marks: list[Mark] = []
        if limit:
            last = changes.BEGINNING if after is None else _read_place(door, after, context)
            marks = await changes.list_marks(tx, caller.book_id, caller.environment, after=last, limit=limit + 1)
        else:
            last = await changes.find_last(tx, caller.book_id, caller.environment)
    shown = marks[:limit]
    if shown:
        last = shown[-1].version, shown[-1].sku
    snapshot = door.catalog.current
    if snapshot.version < last[0]:
        snapshot = await door.catalog.refresh()
    return _Standing(snapshot, _reader(caller, level), last, shown, len(marks) > limit, context)


def _read_place(door: Door, after: str, context: tuple[str, ...]) -> tuple[int, str]:
    version, sku = paging.decode(door.keyring.derive("cursors"), after, context)
    return int(version), sku


async def _whole(request: Request, door: Door, caller: Caller) -> Response:
    at = await _stand(door, caller, None, 0)
    place = _encode(door, at)
    # Whatever this merchant can see moves its place in the feed, so the place names the content: 304 costs no list at all.
    named = orjson.dumps([place, at.reader.level, __version__])
    tag = f'"{hashlib.blake2b(named, digest_size=12).hexdigest()}"'
    if _holds(request, tag):
        return Response(status_code=304, headers=_headers(tag))
    items: list[bytes] = []
    for n, sku in enumerate(sorted(at.snapshot.products)):
        if _visible(at.snapshot, sku, at.reader):
            items.append(orjson.dumps(catalog.public_view(at.snapshot, at.snapshot.products[sku], at.reader)))
        if n % _SLICE == _SLICE - 1:
            await asyncio.sleep(0)  # ten thousand products are a fifth of a second: others come in between
    content = b'{"items":[%b],"next_cursor":null,"changes_after":%b}' % (b",".join(items), orjson.dumps(place))
    return Response(content, headers=_headers(tag), media_type="application/json")


@router.get("/v1/products/changes", response_model=Changes, summary="What changed for you, oldest first")
async def list_changes(
    door: InDoor,
    caller: CalledBy,
    after: Annotated[str | None, Query(max_length=1024, description="`changes_after` of the whole list, or `after` of the last answer.")] = None,
    limit: Limit = 20,
) -> Response:
    """Price, status, stock word or description: each product that changed since `after`, once, as it is now. Nothing is missed or expires."""
    at = await _stand(door, caller, after, limit)
    items = []
    for mark in at.marks:
        product = at.snapshot.products[mark.sku]
        if not _visible(at.snapshot, mark.sku, at.reader) and "status" not in mark.changed:
            continue  # stock of what this merchant cannot see is none of its business
        items.append({"sku": mark.sku, "changed": mark.changed, "product": catalog.public_view(at.snapshot, product, at.reader)})
    place = _encode(door, at)
    return Response(orjson.dumps({"items": items, "after": place, "next_cursor": place if at.more else None}), media_type="application/json")


def _encode(door: Door, at: _Standing) -> str:
    return paging.encode(door.keyring.derive("cursors"), [str(at.last[0]), at.last[1]], at.context)


@router.get("/v1/products/{sku}", response_model=Product, summary="Product")
async def get_product(
    request: Request, door: InDoor, caller: CalledBy, sku: Annotated[str, Path(max_length=64)]
) -> Response:
    snapshot, reader = door.catalog.current, _reader(caller, caller.level)
    product: CatalogProduct | None = snapshot.products.get(sku)
    if product is None or not _visible(snapshot, sku, reader):
        raise NotFound
    return _tagged(request, orjson.dumps(catalog.public_view(snapshot, product, reader)))


def _reader(caller: Caller, level: str) -> Reader:
    return Reader(caller.book_id, caller.environment, caller.merchant_id, level, caller.currency)


def _visible(snapshot: Snapshot, sku: str, reader: Reader) -> bool:
    """What it may never buy, a merchant does not see; what is paused it does."""
    return catalog.visible_status(snapshot, sku, reader) != "retired"


def _tagged(request: Request, content: bytes) -> Response:
    """200 with an ETag, or 304 when the caller holds the same bytes."""
    tag = f'"{hashlib.blake2b(content, digest_size=12).hexdigest()}"'
    if _holds(request, tag):
        return Response(status_code=304, headers=_headers(tag))
    return Response(content, headers=_headers(tag), media_type="application/json")


def _headers(tag: str) -> dict[str, str]:
    return {"ETag": tag, "Cache-Control": "private, no-cache"}


def _holds(request: Request, tag: str) -> bool:
    held = request.headers.get("if-none-match", "")
    return tag in [each.strip().removeprefix("W/") for each in held.split(",")]
