"""Orders of all merchants, and those that wait for a person."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import Field

from kameng_api.api.admin import shapes
from kameng_api.api.admin.case import whole_order, whole_route
from kameng_api.api.admin.desk import AtDesk, Cursor, DeskRoute, needs, read_id, uuid_position
from kameng_api.api.routes import WireModel
from kameng_api.api.wire import Limit
from kameng_api.operators import queries
from kameng_api.operators.actions import invalid
from kameng_api.orders.actions import Resolution
from kameng_api.orders.actions import resolve_review as resolve
from kameng_api.tasks.rules import Lane

router = APIRouter(route_class=DeskRoute)

Environment = Literal["live", "test"]
Status = Literal["accepted", "processing", "succeeded", "partially_succeeded", "failed", "cancelled"]
_OPEN = ("accepted", "processing")


@router.get("/orders")
@needs("read")
async def list_orders(
    desk: AtDesk,
    merchant_id: Annotated[str | None, Query()] = None,
    environment: Annotated[Environment | None, Query()] = None,
    merchant_order_no: Annotated[str | None, Query(max_length=64)] = None,
    status: Annotated[Status | None, Query()] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> dict[str, Any]:
    """Newest first. Over all merchants, `status` finds open orders only: name a merchant for the others."""
    if merchant_id is None and status is not None and status not in _OPEN:
        raise invalid("/query/status", "not_allowed", "over all merchants only accepted and processing")
    owner = None if merchant_id is None else read_id("mer", merchant_id)
    context = ("orders", merchant_id or "", environment or "", merchant_order_no or "", status or "")
    before = uuid_position(desk.position(cursor, *context))
    async with desk.door.db.transaction() as tx:
        found = await queries.list_orders(
            tx,
            merchant_id=owner,
            environment=environment,
            merchant_order_no=merchant_order_no,
            status=status,
            before=before,
            limit=limit + 1,
        )
    return desk.page(found, limit, shapes.order, lambda row: [str(row["order_id"])], *context)


@router.get("/orders/{order_id}")
@needs("read")
async def get_order(desk: AtDesk, order_id: str) -> dict[str, Any]:
    """With every attempt, refund, and line in the books."""
    async with desk.door.db.transaction() as tx:
        return await whole_order(tx, read_id("ord", order_id))


@router.get("/orders/{order_id}/route")
@needs("read")
async def get_route(desk: AtDesk, order_id: str) -> dict[str, Any]:
    """Every choice of a channel: why in one sentence, what each channel looked like, and the attempt it led to."""
    async with desk.door.db.transaction() as tx:
        return await whole_route(tx, read_id("ord", order_id))


@router.get("/reviews")
@needs("read")
async def list_reviews(desk: AtDesk, limit: Limit = 50, cursor: Cursor = None) -> dict[str, Any]:
    """Orders that wait for a person; `review` says why."""
    before = uuid_position(desk.position(cursor, "reviews"))
    async with desk.door.db.transaction() as tx:
        found = await queries.list_orders(tx, review=True, before=before, limit=limit + 1)
    return desk.page(found, limit, shapes.order, lambda row: [str(row["order_id"])], "reviews")


class Verdict(WireModel):
    """What a person found out. `receipt` is the merchant's proof of a delivery; `note` says how you know."""

    outcome: Literal["delivered", "refused"]
    note: str = Field(min_length=1, max_length=500)
    receipt: str | None = Field(default=None, min_length=1, max_length=200)


@router.post("/reviews/{order_id}")
@needs("reviews:write")
async def resolve_review(desk: AtDesk, order_id: str, verdict: Verdict) -> dict[str, Any]:
    """`delivered` captures the money, `refused` gives it back. Nothing is ever bought again from here."""
    if verdict.outcome == "refused" and verdict.receipt is not None:
        raise invalid("/receipt", "not_allowed", "only a delivery has a receipt")
    wanted = read_id("ord", order_id)
    async with desk.door.db.transaction() as tx:
        place = await queries.get_place(tx, wanted)
        resolution = Resolution(verdict.outcome == "delivered", verdict.note, verdict.receipt)
        catalog = desk.door.catalog.current
        await resolve(tx, desk.door.keyring, catalog, place.book_id, wanted, resolution)
        await desk.audit(tx, "review.resolved", order_id, outcome=verdict.outcome, note=verdict.note)
        [order] = await queries.list_orders(tx, merchant_id=place.merchant_id, order_id=wanted, limit=1)
    desk.door.doorbell.ring(Lane.WEBHOOK)
    return shapes.order(order)
