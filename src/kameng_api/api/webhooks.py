"""Where a merchant wants to be called, what was sent there, and how to have it sent again."""

from datetime import datetime
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
from kameng_api.kit.clock import wire_time, wire_time_or_none
from kameng_api.kit.errors import FieldError, Invalid, NotFound
from kameng_api.kit.ids import parse_public_id, parse_ulid, public_id, ulid_text
from kameng_api.kit.public_address import MAX_URL_CHARS, UrlRefused, check_url
from kameng_api.tasks.rules import Lane
from kameng_api.webhooks import actions, queries
from kameng_api.webhooks.events import DELIVERY_PREFIX, ENDPOINT_PREFIX, EVENT_PREFIX, EVENT_TYPES
from kameng_api.webhooks.queries import LoggedDelivery
from kameng_api.webhooks.rules import MAX_ENDPOINTS, State

router = APIRouter(prefix="/v1/webhook-endpoints", route_class=StrictRoute, tags=["webhooks"])

_LIST: Final = "webhook-endpoints/deliveries"
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
        description="`address_refused`, `connect_failed`, `timed_out`, `broken_off`, `redirected` or `not_2xx`; null: heard."
    )


class Delivery(BaseModel):
    """One event for this endpoint, and every attempt to send it that is still on record (30 days)."""

    id: str = Field(examples=["whd_01JD0000000000000000000011"])
    event_id: str
    event_type: str | None
    state: str = Field(description="`pending`, `delivered`, `given_up` (every retry failed) or `held` (endpoint disabled).")
    attempts: int = Field(description="In the present round of retries.")
    created_at: Time
    delivered_at: Time | None
    log: list[Attempt] = Field(description="Oldest first.")


class Deliveries(BaseModel):
    items: list[Delivery]
    next_cursor: str | None


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
    known, since = _id_of(endpoint_id), _time_of(wanted.since)
    async with door.db.transaction() as tx:
        replayed, more = await actions.replay_missing(tx, caller.book_id, known, since)
    door.doorbell.ring(Lane.WEBHOOK)
    return {"replayed": replayed, "more": more}


@router.get("/{endpoint_id}/deliveries", response_model=Deliveries, summary="Attempts log, newest event first")
async def list_deliveries(
    door: InDoor,
    caller: CalledBy,
    endpoint_id: EndpointId,
    state: Annotated[State | None, Query(description="Only those in this state.")] = None,
    limit: Limit = 20,
    cursor: Annotated[str | None, Query(max_length=1024)] = None,
) -> Any:
    known = _id_of(endpoint_id)
    key, context = door.keyring.derive("cursors"), (_LIST, str(caller.book_id), endpoint_id, state or "")
    before = parse_ulid(paging.decode(key, cursor, context)[0]) if cursor is not None else None
    async with door.db.transaction() as tx:
        await queries.get_endpoint(tx, caller.book_id, known)
        found = await queries.list_deliveries(
            tx, caller.book_id, known, state=state, before=before, limit=limit + 1
        )
    shown = found[:limit]
    more = len(found) > limit
    return {
        "items": [_show_delivery(d) for d in shown],
        "next_cursor": paging.encode(key, [ulid_text(shown[-1].delivery_id)], context) if more else None,
    }


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


def _time_of(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        raise Invalid(errors=[FieldError("/since", "not_a_time", "write it as 2026-11-20T00:00:00Z")])
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
        "state": delivery.state,
        "attempts": delivery.attempts,
        "created_at": wire_time(delivery.created_at),
        "delivered_at": wire_time_or_none(delivery.delivered_at),
        "log": [
            {"at": wire_time(a.at), "took_ms": a.took_ms, "http_status": a.http_status, "trouble": a.trouble}
            for a in delivery.log
        ],
    }
