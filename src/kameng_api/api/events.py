"""What happened, for merchants who ask instead of being called: the polling twin of the webhooks, with the same bytes."""

from typing import Annotated

import orjson
from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, Field
from starlette.responses import Response

from kameng_api.api.deps import CalledBy, InDoor
from kameng_api.api.openapi import WebhookEvent
from kameng_api.api.routes import StrictRoute
from kameng_api.api.wire import Limit
from kameng_api.kit.errors import FieldError, Invalid, NotFound
from kameng_api.kit.ids import parse_public_id, public_id
from kameng_api.kit.paging import CursorInvalid
from kameng_api.webhooks import queries
from kameng_api.webhooks.events import EVENT_PREFIX, EVENT_TYPES

router = APIRouter(route_class=StrictRoute, tags=["events"])


class Events(BaseModel):
    """Events in the order in which they became certain. Keep the last `id` and ask for what comes `after` it."""

    items: list[WebhookEvent]
    next_cursor: str | None = Field(
        description="The last id of this page when there is more at once; send it as `after`.",
        examples=["evt_01JD0000000000000000000042"],
    )


@router.get("/v1/events", response_model=Events, summary="Events, oldest first")
async def list_events(
    door: InDoor,
    caller: CalledBy,
    after: Annotated[str | None, Query(max_length=64, description="An event id; without it, from the oldest kept.")] = None,
    type: Annotated[str | None, Query(max_length=64, description="Only this type.")] = None,
    limit: Limit = 20,
) -> Response:
    if type is not None and type not in EVENT_TYPES:
        raise Invalid(errors=[FieldError("/query/type", "unknown_event_type", "there is no such event type")])
    async with door.db.transaction() as tx:
        place = None
        if after is not None:
            event_id = parse_public_id(EVENT_PREFIX, after)
            xid = None if event_id is None else await queries.find_event_xid(tx, caller.book_id, event_id)
            if event_id is None or xid is None:
                raise CursorInvalid("no event of yours with this id is on record; begin without `after`")
            place = xid, event_id
        found = await queries.list_events(tx, caller.book_id, after=place, event_type=type, limit=limit + 1)
    shown = found[:limit]
    page = {
        "items": [orjson.Fragment(body) for _, body in shown],
        "next_cursor": public_id(EVENT_PREFIX, shown[-1][0]) if len(found) > limit else None,
    }
    return Response(orjson.dumps(page), media_type="application/json")


@router.get("/v1/events/{event_id}", response_model=WebhookEvent, summary="Event")
async def get_event(door: InDoor, caller: CalledBy, event_id: Annotated[str, Path(max_length=64)]) -> Response:
    known = parse_public_id(EVENT_PREFIX, event_id)
    if known is None:
        raise NotFound
    async with door.db.transaction() as tx:
        return Response(await queries.get_event_body(tx, caller.book_id, known), media_type="application/json")
