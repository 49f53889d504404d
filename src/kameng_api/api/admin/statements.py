"""Merchants' statements as an operator sees them, and the time zone that says when a merchant's day ends."""

from datetime import date as Date
from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.responses import Response

from kameng_api.api.admin import shapes
from kameng_api.api.admin.desk import AtDesk, Cursor, DeskRoute, needs, read_id
from kameng_api.api.routes import WireModel
from kameng_api.api.statements import Currency, Day, Format, answer, read_day
from kameng_api.api.wire import Limit
from kameng_api.merchants import actions as merchant_actions
from kameng_api.merchants import queries as merchants
from kameng_api.statements import actions, queries

router = APIRouter(route_class=DeskRoute)

Environment = Annotated[str, Query(pattern="^(live|test)$")]


@router.get("/merchants/{merchant_id}/statements")
@needs("read")
async def list_statements(
    desk: AtDesk, merchant_id: str, environment: Environment = "live", limit: Limit = 50, cursor: Cursor = None
) -> dict[str, Any]:
    """Those that are ready, newest day first."""
    context = ("statements", merchant_id, environment)
    place = desk.position(cursor, *context)
    async with desk.door.db.transaction() as tx:
        book_id = await merchants.get_book(tx, read_id("mer", merchant_id), environment)
        before = (Date.fromisoformat(place[0]), place[1]) if place else None
        found = await queries.list_statements(tx, book_id, before=before, limit=limit + 1)
    return desk.page(found, limit, actions.view, lambda s: [s.day.isoformat(), s.currency], *context)


@router.get("/merchants/{merchant_id}/statements/{date}", response_class=Response)
@needs("read")
async def get_statement(
    desk: AtDesk, merchant_id: str, date: Day, environment: Environment = "live", format: Format = "json", currency: Currency = None
) -> Response:
    """The very bytes the merchant gets."""
    async with desk.door.db.transaction() as tx:
        merchant = await merchants.get_merchant(tx, read_id("mer", merchant_id))
        book_id = await merchants.get_book(tx, merchant.merchant_id, environment)
        statement = await queries.get_statement(tx, book_id, currency or merchant.currency, read_day(date))
    return answer(desk.door.db, statement, format)


class ZoneWanted(WireModel):
    timezone: str


@router.put("/merchants/{merchant_id}/timezone")
@needs("merchants:write")
async def set_timezone(desk: AtDesk, merchant_id: str, wanted: ZoneWanted) -> dict[str, Any]:
    """When the merchant's business day ends, from the next statement on: that day is longer or shorter, and no movement is lost or told twice."""
    async with desk.door.db.transaction() as tx:
        merchant = await merchant_actions.set_timezone(tx, read_id("mer", merchant_id), wanted.timezone)
        await desk.audit(tx, "merchant.timezone_set", merchant_id, timezone=wanted.timezone)
    return shapes.merchant(merchant)
