"""The counter: a scanned barcode and the shopper's number become an order, and the till waits for the outcome as long as it likes to."""

import hashlib
from typing import Annotated, Final

import orjson
from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import Field

from kameng_api.api.deps import Door, caller_of, door_of
from kameng_api.api.order_schemas import OrderResource
from kameng_api.api.orders import ANSWERS, OrderTerms, answer, request_of, shown, validate
from kameng_api.api.routes import StrictRoute
from kameng_api.catalog import barcodes
from kameng_api.kit.errors import FieldError, Invalid, Unavailable
from kameng_api.orders import queries
from kameng_api.orders.actions import Place
from kameng_api.orders.requests import OrderRequest, appraise
from kameng_api.orders.rules import Order

router = APIRouter(route_class=StrictRoute, tags=["counter"])

_LONGEST_WAIT_S: Final = 10


class ScanBody(OrderTerms):
    """What a till sends. `till_no` and `receipt_no` together are the order's permanent number: `{till_no}-{receipt_no}`."""

    till_no: Annotated[str, Field(pattern=r"^[A-Za-z0-9_]{1,24}$", examples=["shop7_till2"])]
    receipt_no: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,39}$", examples=["20261123-0042"])]
    code: Annotated[
        str,
        Field(min_length=1, max_length=512, description="What the scanner read: a GTIN, your operator's own barcode, or a QR that carries the SKU."),
    ]
    wait_s: Annotated[int, Field(ge=0, le=_LONGEST_WAIT_S, description="How long to wait for a final outcome before answering.")] = 5


@router.post("/v1/scan", status_code=201, response_model=OrderResource, responses=ANSWERS, summary="Sell what was scanned")
async def scan(body: ScanBody, request: Request) -> Response:
    """Order what a barcode means, and wait up to `wait_s` for the outcome; the answer is the order in the state it has then.

    Safe to repeat: **the same body again waits again and answers the same order**, 200. Timeout or 5xx: send the same body again, signed anew.
    """
    door, caller = door_of(request), caller_of(request)
    snapshot = door.catalog.current
    sku = barcodes.find_sku(body.code, snapshot.barcodes, snapshot.products)
    wanted = request_of(body, f"{body.till_no}-{body.receipt_no}", sku or "", door)
    looked_up = await door.lookups.word_for(snapshot, caller.environment, wanted.sku, wanted.target)
    verdict = _not_known(body.code) if sku is None else appraise(wanted, caller, snapshot, looked_up)
    item = Place(caller.book_id, caller.environment, caller.currency, wanted, _fingerprint(wanted, body.code), verdict)
    if body.validate_only:
        return await validate(door, caller, item)
    placed = await door.orders.submit(item)
    order = placed.order
    if not order.final:
        order = await door.outcomes.wait(order.key, body.wait_s) or await _as_it_is(door, order)
    return answer(placed, shown(door, caller, order))


def _not_known(code: str) -> Invalid:
    if barcodes.is_misread(code.strip()):
        return Invalid("the barcode was misread", errors=[FieldError("/code", "checksum", "its check digit does not fit: scan it again")])
    return Invalid("no product has this barcode", errors=[FieldError("/code", "unknown_barcode", "no product has it")])


def _fingerprint(wanted: OrderRequest, code: str) -> bytes:
    """The same content is the same scan: what the barcode means may have changed since, the order it made stays the till's."""
    scanned = OrderRequest(
        wanted.merchant_order_no, "", wanted.quantity, wanted.target, wanted.fields, wanted.max_unit_price,
        wanted.deliver_within_s, wanted.notify_url, wanted.metadata, wanted.confirm_duplicate,
    )  # fmt: skip
    return hashlib.sha256(b"scan\n" + scanned.fingerprint() + orjson.dumps(code)).digest()


async def _as_it_is(door: Door, order: Order) -> Order:
    """Read anew, or as it was placed when the database is away: the order stands, and the till is told so."""
    try:
        async with door.db.transaction() as tx:
            return await queries.get_order(tx, *order.key)
    except Unavailable:
        return order
