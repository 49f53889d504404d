"""Where a merchant wants to be called, what was sent there, and how to have it sent again."""

from datetime import datetime, timedelta
from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, Field, StringConstraints
from starlette.responses import JSONResponse, Response

from kameng_api.alarms import actions as alarms
from kameng_api.api.deps import CalledBy, Door, InDoor
from kameng_api.api.routes import StrictRoute, WireModel
from kameng_api.api.wire import Limit, Time
from kameng_api.kit import paging
from kameng_api.kit.clock import utc_now, wire_time, wire_time_or_none
from kameng_api.kit.db import Tx
from kameng_api.kit.errors import FieldError, Invalid, NotFound
from kameng_api.kit.ids import parse_public_id, parse_ulid, public_id, ulid_text
from kameng_api.kit.public_address import MAX_URL_CHARS, UrlRefused, check_url
from kameng_api.merchants.rules import Caller
from kameng_api.orders import queries as orders
from kameng_api.tasks.rules import Lane
from kameng_api.webhooks import actions, queries
from kameng_api.webhooks.events import DELIVERY_PREFIX, ENDPOINT_PREFIX, EVENT_PREFIX, EVENT_TYPES
from kameng_api.webhooks.queries import LoggedDelivery
from kameng_api.webhooks.rules import MAX_ENDPOINTS, SECRET_OVERLAP, State
from kameng_api.webhooks.samples import has_sample

router = APIRouter(prefix="/v1/webhook-endpoints", route_class=StrictRoute, tags=["webhooks"])

deliveries_router = APIRouter(prefix="/v1/webhook-deliveries", route_class=StrictRoute, tags=["webhooks"])

_LIST: Final = "webhook-endpoints/deliveries"
_HEALTH_OF: Final = 1_000
_HEALTH_WINDOW: Final = timedelta(hours=24)
_MISSING_COUNTED: Final = 10_000
_COUNTED: Final = ("deliveries", "delivered", "pending", "given_up", "held", "attempts", "p50_ms", "p95_ms", "missing")
_CLOCKS_APART: Final = timedelta(minutes=1)
"""An event is looked for so far around the moment of which it tells."""
_BY_MERCHANT: Final = "by_merchant"

Url = Annotated[
    str,
    StringConstraints(min_length=1, max_length=MAX_URL_CHARS),
    Field(
        description="https, port 443 or 8443, a public host name; no user name, no fragment.",
        examples=["https://shop.example.com/kameng/webhooks"],
    ),
]
EventTypes = Annotated[
    list[Annotated[str, StringConstraints(max_length=64)]],
    Field(max_length=64, description="Which events; none named: all of them, later types too.", examples=[["order.succeeded"]]),
]
Description = Annotated[str, StringConstraints(max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]
EndpointId = Annotated[str, Path(max_length=64, examples=["whe_01JD0000000000000000000007"])]


class NewEndpoint(WireModel):
    url: Url
    event_types: EventTypes = Field(default_factory=list)
    description: Description = ""


class ChangedEndpoint(WireModel):
    """What is absent stays as it is."""

    url: Url | None = None
    event_types: EventTypes | None = None
    description: Description | None = None


class Endpoint(BaseModel):
    """A place that hears of events, signed with its own secret (Standard Webhooks 1.0)."""

    id: str = Field(examples=["whe_01JD0000000000000000000007"])
    object: str = Field(examples=["webhook_endpoint"])
    url: str
    event_types: list[str] = Field(description="Empty: all.")
    description: str
    status: str = Field(description="`enabled` or `disabled`; while disabled, events are kept for replay-missing.")
    status_reason: str | None = Field(
        description="`by_merchant`, `gone` (you answered 410) or `failing` (5 days without success and 20 failures)."
    )
    failures: int = Field(description="Failed calls since the last success.")
    first_failure_at: Time | None
    last_success_at: Time | None
    old_secret_until: Time | None = Field(description="Until then each webhook also carries the old secret's signature.")
    created_at: Time


class EndpointWithSecret(Endpoint):
    secret: str = Field(description="Shown this once.", examples=["whsec_…"])


class Endpoints(BaseModel):
    items: list[Endpoint]
    next_cursor: str | None


class Resend(WireModel):
    event_id: Annotated[str, StringConstraints(max_length=64)] = Field(examples=["evt_01JD0000000000000000000042"])


class ReplayMissing(WireModel):
    since: Annotated[str, StringConstraints(max_length=40)] | None = Field(
        None, description="RFC 3339; only what should have been sent since then.", examples=["2026-11-20T00:00:00Z"]
    )
    until: Annotated[str, StringConstraints(max_length=40)] | None = Field(
        None, description="RFC 3339; only what should have been sent before then.", examples=["2026-11-21T00:00:00Z"]
    )


class TestSend(WireModel):
    __test__ = False

    type: Annotated[str, StringConstraints(max_length=64)] = Field(description="Any event type.", examples=["order.succeeded"])


class Resent(BaseModel):
    delivery_id: str = Field(examples=["whd_01JD0000000000000000000011"])
    event_id: str


class Replayed(BaseModel):
    replayed: int = Field(description="How many deliveries are on their way now, oldest first.")
    more: bool = Field(description="True: call again for the rest.")


class Attempt(BaseModel):
    at: Time
    took_ms: int
    http_status: int | None
    trouble: str | None = Field(
        description="`address_refused`, `connect_failed`, `timed_out`, `broken_off`, `redirected`, `not_2xx` or, at a door, "
        "`not_acknowledged`; null: heard."
    )


class Delivery(BaseModel):
    """One event for one receiver, and every attempt to send it that is still on record (30 days)."""

    id: str = Field(examples=["whd_01JD0000000000000000000011"])
    event_id: str
    event_type: str | None
    endpoint_id: str | None = Field(description="null: the `notify_url` of an order.", examples=["whe_01JD0000000000000000000007"])
    notify_url: str | None
    test: bool = Field(description="Sent on trial: nothing of it happened.")
    body_sha256: str | None = Field(description="Lower-case hex of the bytes that every attempt sends; null once the event is no longer kept.")
    body_bytes: int | None
    state: str = Field(description="`pending`, `delivered`, `given_up` (every retry failed) or `held` (endpoint disabled).")
    attempts: int = Field(description="In the present round of retries.")
    created_at: Time
    delivered_at: Time | None
    log: list[Attempt] = Field(description="Oldest first.")


class Deliveries(BaseModel):
    items: list[Delivery]
    next_cursor: str | None


class EndpointHealth(BaseModel):
    """How the endpoint has answered lately."""

    endpoint_id: str = Field(examples=["whe_01JD0000000000000000000007"])
    status: str
    since: Time = Field(description="Events from then on were looked at.")
    deliveries: int = Field(description=f"At most the newest {_HEALTH_OF}.")
    delivered: int
    pending: int
    given_up: int
    held: int
    attempts: int
    success_rate: str | None = Field(description="Share of the attempts that were answered 2xx; null without any.", examples=["0.9975"])
    p50_ms: int | None
    p95_ms: int | None
    last_error: Attempt | None
    last_success_at: Time | None
    failures: int = Field(description="Failed calls since the last success.")
    missing: int = Field(description=f"What replay-missing would send, of any age; counted up to {_MISSING_COUNTED}.")


# --- endpoints ---------------------------------------------------------------------------------------------------------


@router.post(
    "", status_code=201, response_model=EndpointWithSecret, summary="Register an endpoint",
    description=f"At most {MAX_ENDPOINTS}. The same URL with the same event types is refused with 409 `state_conflict` and `existing_id`, "
    "so that a repeated request leaves no twin; rotate its secret if you never saw it.",
)  # fmt: skip
async def create_endpoint(wanted: NewEndpoint, door: InDoor, caller: CalledBy) -> Response:
    _check(door, wanted.url, wanted.event_types)
    async with door.db.transaction() as tx:
        made, secret = await actions.register(
            tx, door.keyring, caller.book_id,
            url=wanted.url, event_types=wanted.event_types, description=wanted.description,
        )  # fmt: skip
    shown = _show(made)
    return JSONResponse({**shown, "secret": secret}, 201, {"Location": f"/v1/webhook-endpoints/{shown['id']}", **_PRIVATE})


@router.get("", response_model=Endpoints, summary="Endpoints")
async def list_endpoints(door: InDoor, caller: CalledBy) -> Any:
    async with door.db.transaction() as tx:
        found = await queries.list_endpoints(tx, caller.book_id)
    return {"items": [_show(e) for e in found], "next_cursor": None}


@router.get("/{endpoint_id}", response_model=Endpoint, summary="Endpoint")
async def get_endpoint(door: InDoor, caller: CalledBy, endpoint_id: EndpointId) -> Any:
    known = _id_of(endpoint_id)
    async with door.db.transaction() as tx:
        return _show(await queries.get_endpoint(tx, caller.book_id, known))


@router.patch("/{endpoint_id}", response_model=Endpoint, summary="Change an endpoint")
async def change_endpoint(changed: ChangedEndpoint, door: InDoor, caller: CalledBy, endpoint_id: EndpointId) -> Any:
    _refuse_nulls(changed)
    _check(door, changed.url, changed.event_types)
    known = _id_of(endpoint_id)
    async with door.db.transaction() as tx:
        made = await actions.change(
            tx, caller.book_id, known,
            url=changed.url, event_types=changed.event_types, description=changed.description,
        )  # fmt: skip
    return _show(made)


@router.delete("/{endpoint_id}", status_code=204, summary="Delete an endpoint")
async def delete_endpoint(door: InDoor, caller: CalledBy, endpoint_id: EndpointId) -> Response:
    known = _id_of(endpoint_id)
    async with door.db.transaction() as tx:
        await actions.delete(tx, caller.book_id, known)
        await alarms.close_alarm(tx, "endpoint_disabled", endpoint_id)
    return Response(status_code=204)


@router.post(
    "/{endpoint_id}/enable", response_model=Endpoint, summary="Enable an endpoint",
    description="What was missed meanwhile stays held until you call replay-missing.",
)  # fmt: skip
async def enable_endpoint(door: InDoor, caller: CalledBy, endpoint_id: EndpointId) -> Any:
    known = _id_of(endpoint_id)
    async with door.db.transaction() as tx:
        made = await actions.enable(tx, caller.book_id, known)
        await alarms.close_alarm(tx, "endpoint_disabled", endpoint_id)
    return _show(made)


@router.post("/{endpoint_id}/disable", response_model=Endpoint, summary="Disable an endpoint")
async def disable_endpoint(door: InDoor, caller: CalledBy, endpoint_id: EndpointId) -> Any:
    known = _id_of(endpoint_id)
    async with door.db.transaction() as tx:
        await actions.disable(tx, caller.book_id, known, _BY_MERCHANT)
        return _show(await queries.get_endpoint(tx, caller.book_id, known))


@router.post(
    "/{endpoint_id}/rotate-secret", response_model=EndpointWithSecret, summary="Rotate the secret",
    description="The old secret signs beside the new one for 24 hours.",
)  # fmt: skip
async def rotate_secret(door: InDoor, caller: CalledBy, endpoint_id: EndpointId) -> Response:
    known = _id_of(endpoint_id)
    async with door.db.transaction() as tx:
        made, secret = await actions.rotate_secret(tx, door.keyring, caller.book_id, known)
    return JSONResponse({**_show(made), "secret": secret}, headers=_PRIVATE)


@router.post(
    "/{endpoint_id}/expire-old-secret", response_model=Endpoint, summary="End the overlap of two secrets",
    description="From now on only the newest secret signs. Call it as soon as your receiver knows the new one, at once when the old one leaked.",
)  # fmt: skip
async def expire_old_secret(door: InDoor, caller: CalledBy, endpoint_id: EndpointId) -> Any:
    known = _id_of(endpoint_id)
    async with door.db.transaction() as tx:
        return _show(await actions.drop_old_secret(tx, caller.book_id, known))


@router.get(
    "/{endpoint_id}/health", response_model=EndpointHealth, summary="How an endpoint answers",
    description=f"Of the events of the last 24 hours, the newest {_HEALTH_OF} deliveries and all attempts for them.",
)  # fmt: skip
async def get_health(door: InDoor, caller: CalledBy, endpoint_id: EndpointId) -> Any:
    known, since = _id_of(endpoint_id), utc_now() - _HEALTH_WINDOW
    async with door.db.transaction() as tx:
        found = await queries.get_endpoint(tx, caller.book_id, known)
        seen = await queries.measure(tx, caller.book_id, known, since=since, newest=_HEALTH_OF, most_missing=_MISSING_COUNTED)
    return {
        "endpoint_id": endpoint_id,
        "status": found.status,
        "since": wire_time(since),
        **{name: getattr(seen, name) for name in _COUNTED},
        "success_rate": f"{seen.succeeded / seen.attempts:.4f}" if seen.attempts else None,
        "last_error": None if seen.last_error is None else _show_attempt(seen.last_error),
        "last_success_at": wire_time_or_none(found.last_success_at),
        "failures": found.failures,
    }


# --- what is sent ------------------------------------------------------------------------------------------------------


@router.post(
    "/{endpoint_id}/ping", status_code=202, response_model=Endpoint, summary="Send a signed endpoint.ping",
    description="Only this endpoint hears it, whatever its event types. Look at its deliveries for what came of it.",
)  # fmt: skip
async def ping_endpoint(door: InDoor, caller: CalledBy, endpoint_id: EndpointId) -> Any:
    known = _id_of(endpoint_id)
    async with door.db.transaction() as tx:
        found = await queries.get_endpoint(tx, caller.book_id, known, lock=True)
        await actions.ping(tx, found)
    door.doorbell.ring(Lane.WEBHOOK)
    return _show(found)


@router.post(
    "/{endpoint_id}/test", status_code=202, response_model=Resent, summary="Send a sample event of any type",
    description="With realistic content about things that do not exist, marked `\"test\":true`; signed, logged and retried like any event. Only "
    "this endpoint hears it, whatever its event types, and GET /v1/events does not list it.",
)  # fmt: skip
async def send_test_event(wanted: TestSend, door: InDoor, caller: CalledBy, endpoint_id: EndpointId) -> Any:
    known = _id_of(endpoint_id)
    if not has_sample(wanted.type):
        raise Invalid(errors=[FieldError("/type", "unknown_event_type", "there is no such event type")])
    async with door.db.transaction() as tx:
        found = await queries.get_endpoint(tx, caller.book_id, known, lock=True)
        event_id, delivery_id = await actions.send_sample(tx, found, wanted.type)
    door.doorbell.ring(Lane.WEBHOOK)
    return {"delivery_id": public_id(DELIVERY_PREFIX, delivery_id), "event_id": public_id(EVENT_PREFIX, event_id)}


@router.post("/{endpoint_id}/resend", status_code=202, response_model=Resent, summary="Send one event again")
async def resend_event(wanted: Resend, door: InDoor, caller: CalledBy, endpoint_id: EndpointId) -> Any:
    known, event_id = _id_of(endpoint_id), parse_public_id(EVENT_PREFIX, wanted.event_id)
    if event_id is None:
        raise NotFound("no such event")
    async with door.db.transaction() as tx:
        delivery_id = await actions.resend(tx, caller.book_id, known, event_id)
    door.doorbell.ring(Lane.WEBHOOK)
    return {"delivery_id": public_id(DELIVERY_PREFIX, delivery_id), "event_id": wanted.event_id}


@router.post(
    "/{endpoint_id}/replay-missing", status_code=202, response_model=Replayed, summary="Send what was missed",
    description="Everything given up, or held while the endpoint was disabled. Same ids, same bytes.",
)  # fmt: skip
async def replay_missing(wanted: ReplayMissing, door: InDoor, caller: CalledBy, endpoint_id: EndpointId) -> Any:
    known, since, until = _id_of(endpoint_id), _time_of(wanted.since, "since"), _time_of(wanted.until, "until")
    async with door.db.transaction() as tx:
        replayed, more = await actions.replay_missing(tx, caller.book_id, known, since, until)
    door.doorbell.ring(Lane.WEBHOOK)
    return {"replayed": replayed, "more": more}


StateFilter = Annotated[State | None, Query(description="Only those in this state.")]
TypeFilter = Annotated[str | None, Query(max_length=64, description="Only events of this type.")]
EventFilter = Annotated[str | None, Query(max_length=64, description="Only of this event.", examples=["evt_01JD0000000000000000000042"])]
OrderFilter = Annotated[str | None, Query(max_length=64, description="Only of events of this order.", examples=["ord_01JD0000000000000000000009"])]
Cursor = Annotated[str | None, Query(max_length=1024)]


@router.get("/{endpoint_id}/deliveries", response_model=Deliveries, summary="Attempts log, newest event first")
async def list_deliveries(
    door: InDoor,
    caller: CalledBy,
    endpoint_id: EndpointId,
    state: StateFilter = None,
    event_type: TypeFilter = None,
    event_id: EventFilter = None,
    order_id: OrderFilter = None,
    limit: Limit = 20,
    cursor: Cursor = None,
) -> Any:
    async with door.db.transaction() as tx:
        await queries.get_endpoint(tx, caller.book_id, _id_of(endpoint_id))
    return await _deliveries(door, caller, endpoint_id, (state, event_type, event_id, order_id), limit, cursor)


@deliveries_router.get(
    "", response_model=Deliveries, summary="Find deliveries by event or order, newest event first",
    description="To every endpoint, deleted ones too, and to the `notify_url` of orders.",
)  # fmt: skip
async def find_deliveries(
    door: InDoor,
    caller: CalledBy,
    state: StateFilter = None,
    event_type: TypeFilter = None,
    event_id: EventFilter = None,
    order_id: OrderFilter = None,
    limit: Limit = 20,
    cursor: Cursor = None,
) -> Any:
    return await _deliveries(door, caller, None, (state, event_type, event_id, order_id), limit, cursor)


@deliveries_router.post("/{delivery_id}/resend", status_code=202, response_model=Resent, summary="Send one delivery again")
async def resend_delivery(
    door: InDoor, caller: CalledBy, delivery_id: Annotated[str, Path(max_length=64, examples=["whd_01JD0000000000000000000011"])]
) -> Any:
    known = parse_public_id(DELIVERY_PREFIX, delivery_id)
    if known is None:
        raise NotFound("no such delivery")
    async with door.db.transaction() as tx:
        event_id = await actions.resend_delivery(tx, caller.book_id, known)
    door.doorbell.ring(Lane.WEBHOOK)
    return {"delivery_id": delivery_id, "event_id": public_id(EVENT_PREFIX, event_id)}


async def _deliveries(
    door: Door, caller: Caller, endpoint_id: str | None, filters: tuple[State | None, str | None, str | None, str | None], limit: int,
    cursor: str | None,
) -> dict[str, Any]:  # fmt: skip
    state, event_type, event_id, order_id = filters
    if event_type is not None and event_type not in EVENT_TYPES:
        raise Invalid(errors=[FieldError("/query/event_type", "unknown_event_type", "there is no such event type")])
    key, context = door.keyring.derive("cursors"), (_LIST, str(caller.book_id), endpoint_id or "", *(part or "" for part in filters))
    before = parse_ulid(paging.decode(key, cursor, context)[0]) if cursor is not None else None
    async with door.db.transaction() as tx:
        events = await _events_of(tx, caller, event_id, order_id)
        wanted = queries.Wanted(None if endpoint_id is None else _id_of(endpoint_id), state, event_type, events)
        found = await queries.list_deliveries(tx, caller.book_id, wanted, before=before, limit=limit + 1)
    shown = found[:limit]
    more = len(found) > limit
    return {
        "items": [_show_delivery(d) for d in shown],
        "next_cursor": paging.encode(key, [ulid_text(shown[-1].delivery_id)], context) if more else None,
    }


async def _events_of(tx: Tx, caller: Caller, event_id: str | None, order_id: str | None) -> tuple[UUID, ...] | None:
    """The events that are asked for; None: any. Raises NotFound for an order that is not the caller's."""
    asked: set[UUID] | None = None
    if event_id is not None:
        known = parse_public_id(EVENT_PREFIX, event_id)
        asked = set() if known is None else {known}
    if order_id is not None:
        of_order = set(await events_of_order(tx, caller.book_id, order_id))
        asked = of_order if asked is None else asked & of_order
    return None if asked is None else tuple(sorted(asked))


async def events_of_order(tx: Tx, book_id: int, order_id: str) -> list[UUID]:
    """By version. Raises NotFound."""
    known = parse_public_id("ord", order_id)
    if known is None:
        raise NotFound("no such order")
    order = await orders.get_order(tx, book_id, known)
    refunds = await orders.list_refunds(tx, book_id, known)
    spans = [(order.created_at, order.completed_at or utc_now()), *((r.created_at, r.created_at) for r in refunds)]
    return await queries.list_events_of_order(tx, book_id, known, [(a - _CLOCKS_APART, b + _CLOCKS_APART) for a, b in spans])


# --- the secret of notify_url ------------------------------------------------------------------------------------------

notify_router = APIRouter(prefix="/v1/notify-secret", route_class=StrictRoute, tags=["webhooks"])


class NotifySecret(BaseModel):
    """What signs calls to the `notify_url` of orders."""

    secret: str = Field(description="Shown this once.", examples=["whsec_…"])
    old_secret_until: Time = Field(description="Until then each call also carries the old secret's signature.")


@notify_router.post(
    "/rotate", response_model=NotifySecret, summary="Rotate the secret of notify_url calls",
    description="Shows a new one, made by this call; the old one signs beside it for 24 hours.",
)  # fmt: skip
async def rotate_notify_secret(door: InDoor, caller: CalledBy) -> Response:
    async with door.db.transaction() as tx:
        secret = await actions.rotate_notify_secret(tx, door.keyring, caller.book_id)
    return JSONResponse({"secret": secret, "old_secret_until": wire_time(utc_now() + SECRET_OVERLAP)}, headers=_PRIVATE)


@notify_router.post("/expire-old-secret", status_code=204, summary="End the overlap of two notify_url secrets")
async def expire_old_notify_secret(door: InDoor, caller: CalledBy) -> Response:
    async with door.db.transaction() as tx:
        await actions.drop_old_notify_secret(tx, caller.book_id)
    return Response(status_code=204)


# --- in and out --------------------------------------------------------------------------------------------------------

_PRIVATE: Final = {"Cache-Control": "no-store"}


def _id_of(text: str) -> UUID:
    known = parse_public_id(ENDPOINT_PREFIX, text)
    if known is None:
        raise NotFound("no such webhook endpoint")
    return known


def _check(door: Door, url: str | None, event_types: list[str] | None) -> None:
    wrong = [
        FieldError(f"/event_types/{i}", "unknown_event_type", "there is no such event type")
        for i, name in enumerate(event_types or [])
        if name not in EVENT_TYPES
    ]
    if url is not None:
        try:
            check_url(url, development=door.settings.webhook_development)
        except UrlRefused as refused:
            wrong.append(FieldError("/url", "url_refused", str(refused)))
    if wrong:
        raise Invalid(errors=wrong)


def _refuse_nulls(changed: ChangedEndpoint) -> None:
    wrong = [
        FieldError(f"/{name}", "not_null", "leave out what shall stay")
        for name in changed.model_fields_set
        if getattr(changed, name) is None
    ]
    if wrong:
        raise Invalid(errors=wrong)


def _time_of(text: str | None, name: str) -> datetime | None:
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        raise Invalid(errors=[FieldError(f"/{name}", "not_a_time", "write it as 2026-11-20T00:00:00Z")])
    return at


def _show(endpoint: queries.Endpoint) -> dict[str, Any]:
    return {
        "id": public_id(ENDPOINT_PREFIX, endpoint.endpoint_id),
        "object": "webhook_endpoint",
        "url": endpoint.url,
        "event_types": list(endpoint.event_types),
        "description": endpoint.description,
        "status": endpoint.status,
        "status_reason": endpoint.status_reason,
        "failures": endpoint.failures,
        "first_failure_at": wire_time_or_none(endpoint.first_failure_at),
        "last_success_at": wire_time_or_none(endpoint.last_success_at),
        "old_secret_until": wire_time_or_none(endpoint.old_secret_until),
        "created_at": wire_time(endpoint.created_at),
    }


def _show_delivery(delivery: LoggedDelivery) -> dict[str, Any]:
    return {
        "id": public_id(DELIVERY_PREFIX, delivery.delivery_id),
        "event_id": public_id(EVENT_PREFIX, delivery.event_id),
        "event_type": delivery.event_type,
        "endpoint_id": None if delivery.endpoint_id is None else public_id(ENDPOINT_PREFIX, delivery.endpoint_id),
        "notify_url": delivery.notify_url,
        "test": delivery.sample,
        "body_sha256": delivery.body_sha256,
        "body_bytes": delivery.body_bytes,
        "state": delivery.state,
        "attempts": delivery.attempts,
        "created_at": wire_time(delivery.created_at),
        "delivered_at": wire_time_or_none(delivery.delivered_at),
        "log": [_show_attempt(a) for a in delivery.log],
    }


def _show_attempt(one: queries.Attempt) -> dict[str, Any]:
    return {"at": wire_time(one.at), "took_ms": one.took_ms, "http_status": one.http_status, "trouble": one.trouble}
