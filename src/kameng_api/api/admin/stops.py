"""Books whose postings are stopped, and the two people who let them go on."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query
from pydantic import Field

from kameng_api.api.admin.desk import AtDesk, Cursor, DeskRoute, needs, uuid_position
from kameng_api.api.routes import WireModel
from kameng_api.api.wire import Limit
from kameng_api.kit.clock import wire_time, wire_time_or_none
from kameng_api.kit.ids import public_id
from kameng_api.ledger import stops
from kameng_api.ledger.stops import Stop

router = APIRouter(route_class=DeskRoute)


def shape(stop: Stop) -> dict[str, Any]:
    """A stop as it is shown; `state` is stopped, lift_asked or lifted."""
    return {
        "id": public_id("stp", stop.stop_id),
        "book_id": stop.book_id,
        "merchant_id": public_id("mer", stop.merchant_id) if stop.merchant_id else None,
        "environment": stop.environment,
        "state": "lifted" if stop.lifted_at else "lift_asked" if stop.lift_asked_by else "stopped",
        "invariant": stop.invariant,
        "reason": stop.reason,
        "breaches": list(stop.marks),
        "stopped_by": stop.stopped_by,
        "stopped_at": wire_time(stop.stopped_at),
        "lift_asked_by": stop.lift_asked_by,
        "lift_asked_at": wire_time_or_none(stop.lift_asked_at),
        "note": stop.note,
        "lifted_by": stop.lifted_by,
        "lifted_at": wire_time_or_none(stop.lifted_at),
    }


@router.get("/stopped-books")
@needs("read")
async def list_stopped_books(
    desk: AtDesk, state: Annotated[Literal["open", "all"], Query()] = "open", limit: Limit = 50, cursor: Cursor = None
) -> dict[str, Any]:
    """Books in which nothing is posted, because an invariant of their money is broken."""
    before = uuid_position(desk.position(cursor, "stopped-books", state))
    async with desk.door.db.transaction() as tx:
        found = await stops.list_stops(tx, only_open=state == "open", before=before, limit=limit + 1)
    return desk.page(found, limit, shape, lambda s: [str(s.stop_id)], "stopped-books", state)


class Noted(WireModel):
    note: str = Field(min_length=1, max_length=500)


BookId = Annotated[int, Path(ge=1, le=2**30)]


@router.post("/stopped-books/{book_id}/stop", status_code=201)
@needs("books:lift")
async def stop_book(desk: AtDesk, book_id: BookId, wanted: Noted) -> dict[str, Any]:
    """Stop a book's postings on a suspicion of your own. It is lifted as any other stop."""
    async with desk.door.db.transaction() as tx:
        stop = await stops.stop_by_hand(tx, book_id, wanted.note, desk.actor)
        await desk.audit(tx, "books.stopped", f"book:{book_id}", note=wanted.note)
    return shape(stop)


@router.post("/stopped-books/{book_id}/lift")
@needs("books:lift")
async def lift_stop(desk: AtDesk, book_id: BookId, wanted: Noted) -> dict[str, Any]:
    """Ask that postings go on, or agree to it: real money needs a second person. The breaches named in the stop are thereby known."""
    async with desk.door.db.transaction() as tx:
        stop = await stops.lift(tx, book_id, wanted.note, desk.actor)
        word = "books.lifted" if stop.lifted_at else "books.lift_asked"
        await desk.audit(tx, word, f"book:{book_id}", note=wanted.note, invariant=stop.invariant)
    return shape(stop)
