"""Orders at the door: placed through group commit, read back in the same words, cancelled before dispatch."""

from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal
from uuid import UUID

import orjson
import structlog
from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import Response
from pydantic import AfterValidator, Field, field_validator

from kameng_api.api.deps import CalledBy, Door, InDoor, caller_of, door_of
from kameng_api.api.order_schemas import CodesEnvelope, OrderList, OrderResource, OrderValidation, RefundList, Timeline
from kameng_api.api.routes import StrictRoute, WireModel
from kameng_api.api.wire import Instant, Limit
from kameng_api.evidence import restores
from kameng_api.kit import paging, traces
from kameng_api.kit.crypto import delivery_envelope
from kameng_api.kit.db import Tx
from kameng_api.kit.errors import FieldError, Invalid, NotFound, Problem, StateConflict, Unavailable
from kameng_api.kit.gather import Gatherer
from kameng_api.kit.ids import parse_public_id, parse_ulid, public_id, ulid_text
from kameng_api.kit.money import format_amount, parse_amount
from kameng_api.kit.public_address import UrlRefused, check_url
from kameng_api.ledger import queries as ledger
from kameng_api.merchants import queries as merchants
from kameng_api.merchants.rules import Caller
from kameng_api.orders import actions, codes, queries, timeline
from kameng_api.orders.actions import Place, Placed, Resolution, target_binding
from kameng_api.orders.errors import DuplicateTarget, NotEnoughMoney, NumberClosed, OrderNoConflict
from kameng_api.orders.requests import OrderRequest, appraise
from kameng_api.orders.rules import Order, Status
from kameng_api.orders.views import view, view_json
from kameng_api.suppliers import queries as attempts_of
from kameng_api.tasks.rules import Lane

router = APIRouter(prefix="/v1/orders", tags=["orders"], route_class=StrictRoute)
test_router = APIRouter(prefix="/v1/test/orders", tags=["test mode"], route_class=StrictRoute)
_log = structlog.get_logger()

_JSON: Final = "application/json"
_MAX_METADATA_BYTES: Final = 8192
Scalar = str | int | float | bool | None


def _amount(text: str) -> str:
    parse_amount(text)
    return text


class OrderTerms(WireModel):
    """Everything an order says beside its number and what is bought. Money is a decimal string."""

    quantity: Annotated[int, Field(ge=1, le=100_000)] = 1
    target: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    fields: Annotated[dict[str, Annotated[str, Field(max_length=256)]], Field(max_length=20, default_factory=dict)]
    max_unit_price: Annotated[str, Field(max_length=20), AfterValidator(_amount)] | None = None
    deliver_within_s: Annotated[int, Field(ge=1, le=86_400)] | None = None
    notify_url: Annotated[str, Field(min_length=1, max_length=2048)] | None = None
    metadata: Annotated[dict[Annotated[str, Field(max_length=64)], Scalar], Field(max_length=50, default_factory=dict)]
    confirm_duplicate: bool = False
    validate_only: bool = False

    @field_validator("metadata")
    @classmethod
    def _small(cls, value: dict[str, Scalar]) -> dict[str, Scalar]:
        if len(orjson.dumps(value)) > _MAX_METADATA_BYTES:
            raise ValueError(f"at most {_MAX_METADATA_BYTES} bytes")
        return value


class OrderBody(OrderTerms):
    """What a merchant sends to buy something. Money is a decimal string."""

    merchant_order_no: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
    sku: Annotated[str, Field(pattern=r"^[A-Za-z0-9._~-]{1,64}$")]


class AdvanceBody(WireModel):
    """How a test order in manual review ends."""

    outcome: Literal["succeeded", "failed"] = "succeeded"


def gather_orders(door: Door) -> Gatherer[Place, Placed]:
    """Group commit: orders that arrive while a flush is in flight go together in the next one, each with its own verdict."""

    async def flush(batch: Sequence[Place]) -> Sequence[Placed | BaseException]:
        try:
            verdicts = await _place(door, batch)
        except Unavailable:
            raise
        except Exception as trouble:
            if len(batch) == 1:
                raise
            _log.warning("place.one_by_one", size=len(batch), trouble=type(trouble).__name__)
            verdicts = [await _place_one(door, item) for item in batch]
        door.doorbell.ring(Lane.SUBMIT)
        door.doorbell.ring(Lane.WEBHOOK)
        return verdicts

    return Gatherer(flush, largest=256, in_flight=2, crowd=24)


async def _place(door: Door, batch: Sequence[Place]) -> list[Any]:
    with traces.span("orders.place", orders=len(batch)):
        async with door.db.transaction() as tx:
            return await actions.place(tx, door.keyring, batch)


async def _place_one(door: Door, item: Place) -> Any:
    try:
        return (await _place(door, [item]))[0]
    except Exception as trouble:
        return trouble


ANSWERS: Final[dict[int | str, dict[str, Any]]] = {
    200: {"model": OrderResource | OrderValidation, "description": "The order that this number stands for; or the verdict of `validate_only`"}
}


@router.post("", status_code=201, response_model=OrderResource, responses=ANSWERS)
async def place_order(body: OrderBody, request: Request) -> Response:
    """Buy something. Safe to repeat: the same number and content answer 200 with the order as it is now.

    **Timeout or 5xx: send the same body again, signed anew, or GET by your own number; never invent a new number.**
    """
    door, caller = door_of(request), caller_of(request)
    wanted = request_of(body, body.merchant_order_no, body.sku, door)
    looked_up = await door.lookups.word_for(door.catalog.current, caller.environment, wanted.sku, wanted.target)
    appraisal = appraise(wanted, caller, door.catalog.current, looked_up)
    item = Place(caller.book_id, caller.environment, caller.currency, wanted, wanted.fingerprint(), appraisal)
    if body.validate_only:
        return await validate(door, caller, item)
    placed = await door.orders.submit(item)
    masked = placed.created and "targets:read" not in caller.scopes
    return answer(placed, placed.json if masked else shown(door, caller, placed.order))


def answer(placed: Placed, content: bytes) -> Response:
    """201 for an order that this request made, 200 for one that stood already."""
    headers = {"Location": f"/v1/orders/{public_id('ord', placed.order.order_id)}"}
    if not placed.created:
        headers["Idempotent-Replayed"] = "true"
    return Response(content, 201 if placed.created else 200, headers, _JSON)


def request_of(body: OrderTerms, merchant_order_no: str, sku: str, door: Door) -> OrderRequest:
    """Raises Invalid for a `notify_url` that nobody may be called at."""
    if body.notify_url is not None:
        try:
            check_url(body.notify_url, development=door.settings.webhook_development)
        except UrlRefused as refused:
            raise Invalid(errors=[FieldError("/notify_url", "url_refused", str(refused))]) from None
    return OrderRequest(
        merchant_order_no=merchant_order_no,
        sku=sku,
        quantity=body.quantity,
        target=body.target,
        fields=body.fields,
        max_unit_price=parse_amount(body.max_unit_price) if body.max_unit_price is not None else None,
        deliver_within_s=body.deliver_within_s,
        notify_url=body.notify_url,
        metadata=body.metadata,
        confirm_duplicate=body.confirm_duplicate,
    )


async def validate(door: Door, caller: Caller, item: Place) -> Response:
    """What would happen, without letting it happen."""
    async with door.db.transaction() as tx:
        numbers = await queries.look_up_numbers(tx, [(caller.book_id, item.request.merchant_order_no)])
        balance = await ledger.get_balance(tx, caller.book_id, caller.currency)
        duplicate = await actions.is_duplicate(tx, door.keyring, item)
    for existing in numbers.orders.values():
        if existing.fingerprint != item.fingerprint:
            raise OrderNoConflict(
                "this merchant_order_no stands for an order with other content",
                existing_order_id=public_id("ord", existing.order_id),
            )
        return Response(shown(door, caller, existing), 200, {"Idempotent-Replayed": "true"}, _JSON)
    if numbers.closed:
        raise NumberClosed("this merchant_order_no is closed: a door has answered that no order stands under it, and that stays true")
    if isinstance(item.appraisal, Problem):
        raise item.appraisal
    if duplicate:
        raise DuplicateTarget("this target was charged with this product a moment ago; confirm_duplicate overrides")
    if balance.available + balance.credit_limit < item.appraisal.amount:
        raise NotEnoughMoney("the balance does not cover this order")
    verdict = {
        "object": "order_validation",
        "valid": True,
        "merchant_order_no": item.request.merchant_order_no,
        "sku": item.request.sku,
        "quantity": item.request.quantity,
        "unit_price": format_amount(item.appraisal.unit_price),
        "amount": format_amount(item.appraisal.amount),
        "currency": caller.currency,
    }
    OrderValidation.model_validate(verdict)
    return Response(orjson.dumps(verdict), 200, media_type=_JSON)


def shown(door: Door, caller: Caller, order: Order) -> bytes:
    """The order as this key may see it."""
    return view_json(order, target=_full_target(door, caller, order))


def _full_target(door: Door, caller: Caller, order: Order) -> str | None:
    """The target unmasked, for keys that may see it."""
    if "targets:read" not in caller.scopes or order.target_sealed is None:
        return None
    return door.keyring.open(order.target_sealed, target_binding(order.book_id, order.order_id)).decode()


@router.get("", response_model=OrderList)
async def list_orders(
    door: InDoor,
    caller: CalledBy,
    status: Annotated[Status | None, Query()] = None,
    created_from: Annotated[Instant | None, Query()] = None,
    created_to: Annotated[Instant | None, Query()] = None,
    cursor: Annotated[str | None, Query(max_length=1024)] = None,
    limit: Limit = 20,
) -> Response:
    """Your orders, newest first."""
    filters = (status or "", str(created_from or ""), str(created_to or ""))
    context = ("orders", str(caller.book_id), *filters)
    key = door.keyring.derive("cursor")
    before = None
    if cursor is not None:
        before = parse_ulid(paging.decode(key, cursor, context)[0])
    async with door.db.transaction() as tx:
        found = await queries.list_orders(
            tx, caller.book_id, status=status, created_from=created_from, created_to=created_to, before=before,
            limit=limit + 1,
        )  # fmt: skip
    page = found[:limit]
    next_cursor = paging.encode(key, [ulid_text(page[-1].order_id)], context) if len(found) > limit else None
    items = [view(o, target=_full_target(door, caller, o)) for o in page]
    return Response(orjson.dumps({"items": items, "next_cursor": next_cursor}), media_type=_JSON)


OrderId = Annotated[str, Path(max_length=64)]


def _order_id(text: str) -> UUID:
    order_id = parse_public_id("ord", text)
    if order_id is None:
        raise NotFound
    return order_id


@router.get("/by-merchant-no/{merchant_order_no}", response_model=OrderResource)
async def get_order_by_merchant_no(
    merchant_order_no: Annotated[str, Path(max_length=64)], door: InDoor, caller: CalledBy
) -> Response:
    """One order by your own number."""
    async with door.db.transaction() as tx:
        order = await queries.get_by_number(tx, caller.book_id, merchant_order_no)
    return Response(shown(door, caller, order), media_type=_JSON)


@router.get("/{order_id}", response_model=OrderResource)
async def get_order(order_id: OrderId, door: InDoor, caller: CalledBy) -> Response:
    """One order as it is now."""
    async with door.db.transaction() as tx:
        order = await queries.get_order(tx, caller.book_id, _order_id(order_id))
    return Response(shown(door, caller, order), media_type=_JSON)


@router.post("/{order_id}/cancel", response_model=OrderResource)
async def cancel_order(order_id: OrderId, door: InDoor, caller: CalledBy) -> Response:
    """Cancel before dispatch; the money returns at once. Cancelled again answers the same; once dispatched: 409 `state_conflict`."""
    async with door.db.transaction() as tx:
        order = await actions.cancel(tx, door.keyring, caller.book_id, _order_id(order_id))
        if await restores.may_have_been_bought(tx, *order.key):
            raise StateConflict("the order may have been dispatched: its supplier is being asked")
    door.doorbell.ring(Lane.WEBHOOK)
    return Response(shown(door, caller, order), media_type=_JSON)


@router.get("/{order_id}/timeline", response_model=Timeline)
async def get_timeline(order_id: OrderId, door: InDoor, caller: CalledBy) -> Response:
    """Every step of the order, in your words; suppliers are numbered, not named."""
    async with door.db.transaction() as tx:
        order = await queries.get_order(tx, caller.book_id, _order_id(order_id))
        steps = await _steps(tx, order)
    return Response(orjson.dumps({"order_id": order_id, "items": steps}), media_type=_JSON)


async def _steps(tx: Tx, order: Order) -> list[dict[str, Any]]:
    attempts = (await attempts_of.list_of_orders(tx, [order.key]))[order.key]
    refunds = await queries.list_refunds(tx, *order.key)
    return timeline.steps(order, attempts, refunds)


@router.get("/{order_id}/refunds", response_model=RefundList)
async def list_refunds(order_id: OrderId, door: InDoor, caller: CalledBy) -> Response:
    """What was returned after the order was final."""
    async with door.db.transaction() as tx:
        order = await queries.get_order(tx, caller.book_id, _order_id(order_id))
        refunds = await queries.list_refunds(tx, *order.key)
    items = [timeline.refund_view(r) for r in refunds]
    return Response(orjson.dumps({"items": items, "next_cursor": None}), media_type=_JSON)


@router.get("/{order_id}/codes", response_model=CodesEnvelope)
async def reveal_codes(order_id: OrderId, door: InDoor, caller: CalledBy) -> Response:
    """The card codes, encrypted under your delivery key. Each reveal is written down."""
    async with door.db.transaction() as tx:
        order = await queries.get_order(tx, caller.book_id, _order_id(order_id))
        if order.codes_count == 0:
            raise StateConflict("this order has no codes to show")
        key = await merchants.find_delivery_key(tx, door.keyring, caller.book_id)
        if key is None:
            raise StateConflict("no delivery key is set up: ask the operator for one")
        sealed = await queries.list_codes(tx, *order.key)
        await actions.record_reveal(
            tx, *order.key, key_id=caller.key_id, address=caller.address, request_id=caller.request_id,
            count=len(sealed),
        )  # fmt: skip
    plain = codes.opened(door.keyring, *order.key, sealed)
    envelope = delivery_envelope(key[1], key[0], public_id("ord", order.order_id), plain)
    return Response(orjson.dumps(envelope), headers={"Cache-Control": "no-store"}, media_type=_JSON)


@test_router.post("/{order_id}/advance", response_model=OrderResource)
async def advance_order(order_id: OrderId, body: AdvanceBody, door: InDoor, caller: CalledBy) -> Response:
    """Decide a test order in manual review, as an operator would."""
    resolution = Resolution(body.outcome == "succeeded", "advanced by the merchant in test mode", receipt="TEST-REVIEWED")
    async with door.db.transaction() as tx:
        order = await actions.resolve_review(
            tx, door.keyring, door.catalog.current, caller.book_id, _order_id(order_id), resolution
        )
    door.doorbell.ring(Lane.WEBHOOK)
    return Response(shown(door, caller, order), media_type=_JSON)
