"""Money moved by hand. Every movement carries the operator's own number and happens once; large ones wait for a second person."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response

from kameng_api.api.admin import shapes
from kameng_api.api.admin.desk import (
    Amount,
    AtDesk,
    Cursor,
    Desk,
    DeskRoute,
    SignedAmount,
    needs,
    read_id,
    uuid_position,
)
from kameng_api.api.routes import WireModel
from kameng_api.api.wire import Limit
from kameng_api.catalog import queries as catalog
from kameng_api.kit.money import parse_amount
from kameng_api.merchants import queries as merchants
from kameng_api.operators import movements, queries, rules
from kameng_api.operators.rules import Adjustment, CreditLine, Funding, Movement, Refund, SupplierTopup

router = APIRouter(route_class=DeskRoute)

Environment = Literal["live", "test"]


async def _move(desk: Desk, movement: Movement, response: Response) -> dict[str, Any]:
    """201 moved, 200 had been moved, 202 waits for a second person."""
    above = parse_amount(desk.door.settings.approval_above)
    async with desk.door.db.transaction() as tx:
        outcome = await movements.move(tx, desk.door.keyring, desk.actor, movement, above=above, request_id=desk.request_id)
    if outcome.replayed:
        response.headers["Idempotent-Replayed"] = "true"
    if isinstance(outcome, movements.Waiting):
        response.status_code = 202
        return {"state": "waiting", "approval": shapes.approval(outcome.approval)}
    response.status_code = 200 if outcome.replayed else 201
    return {"state": "done", "movement": shapes.movement(movement)}


class FundingWanted(WireModel):
    """`external_id` is the bank's or payment channel's own number. In `test` it is play money from nowhere."""

    environment: Environment = "live"
    channel: str
    external_id: str
    amount: Amount
    currency: str | None = None


@router.post("/merchants/{merchant_id}/fundings", status_code=201)
@needs("money:write")
async def fund(desk: AtDesk, merchant_id: str, wanted: FundingWanted, response: Response) -> dict[str, Any]:
    """Money that came in for a merchant; one receipt credits one merchant, once."""
    async with desk.door.db.transaction() as tx:
        owner = await merchants.get_merchant(tx, read_id("mer", merchant_id))
    movement = Funding(
        merchant_id=owner.merchant_id,
        environment=wanted.environment,
        channel=wanted.channel,
        external_id=wanted.external_id,
        currency=wanted.currency or owner.currency,
        amount=wanted.amount,
    )
    return await _move(desk, movement, response)


class AdjustmentWanted(WireModel):
    """`amount` is signed: above zero the account gains."""

    environment: Environment = "live"
    account: str = "merchant_available"
    ticket: str
    amount: SignedAmount
    currency: str | None = None
    note: str


@router.post("/merchants/{merchant_id}/adjustments", status_code=201)
@needs("money:write")
async def adjust(desk: AtDesk, merchant_id: str, wanted: AdjustmentWanted, response: Response) -> dict[str, Any]:
    """A correction against suspense, under the number of the ticket that asks for it."""
    async with desk.door.db.transaction() as tx:
        owner = await merchants.get_merchant(tx, read_id("mer", merchant_id))
    movement = Adjustment(
        merchant_id=owner.merchant_id,
        environment=wanted.environment,
        account=wanted.account,
        ticket=wanted.ticket,
        currency=wanted.currency or owner.currency,
        amount=wanted.amount,
        note=wanted.note,
    )
    return await _move(desk, movement, response)


class HouseAdjustmentWanted(WireModel):
    environment: Environment = "live"
    account: str
    ticket: str
    amount: SignedAmount
    currency: str = "CNY"
    note: str


@router.post("/house/adjustments", status_code=201)
@needs("money:write")
async def adjust_house(desk: AtDesk, wanted: HouseAdjustmentWanted, response: Response) -> dict[str, Any]:
    """A correction of one of the house's own accounts (supplier_prepaid:…, psp_clearing:…, bank:…) against suspense."""
    return await _move(desk, Adjustment(merchant_id=None, **dict(wanted)), response)


class CreditLineWanted(WireModel):
    environment: Environment = "live"
    ticket: str
    limit: Amount


@router.put("/merchants/{merchant_id}/credit-line")
@needs("money:write")
async def set_credit_line(desk: AtDesk, merchant_id: str, wanted: CreditLineWanted, response: Response) -> dict[str, Any]:
    """How far the spendable balance may fall below zero."""
    async with desk.door.db.transaction() as tx:
        owner = await merchants.get_merchant(tx, read_id("mer", merchant_id))
    movement = CreditLine(owner.merchant_id, wanted.environment, wanted.ticket, owner.currency, wanted.limit)
    return await _move(desk, movement, response)


class SupplierTopupWanted(WireModel):
    topup_no: str
    amount: Amount
    currency: str = "CNY"


@router.post("/channels/{channel_id}/topups", status_code=201)
@needs("money:write")
async def top_up_supplier(desk: AtDesk, channel_id: str, wanted: SupplierTopupWanted, response: Response) -> dict[str, Any]:
    """What we paid a supplier in advance, as our books know it."""
    async with desk.door.db.transaction() as tx:
        channel = await catalog.get_channel(tx, channel_id)
    movement = SupplierTopup(channel_id, channel.environment, wanted.topup_no, wanted.currency, wanted.amount)
    return await _move(desk, movement, response)


class RefundWanted(WireModel):
    refund_no: str
    amount: Amount
    reason: str


@router.post("/orders/{order_id}/refunds", status_code=201)
@needs("refunds:write")
async def refund(desk: AtDesk, order_id: str, wanted: RefundWanted, response: Response) -> dict[str, Any]:
    """Money back to the merchant, never more than the order captured."""
    order = read_id("ord", order_id)
    async with desk.door.db.transaction() as tx:
        place = await queries.get_place(tx, order)
    movement = Refund(place.book_id, place.environment, order, wanted.refund_no, place.currency, wanted.amount, wanted.reason)
    return await _move(desk, movement, response)


@router.get("/approvals")
@needs("read")
async def list_approvals(
    desk: AtDesk,
    state: Annotated[Literal["waiting", "approved", "rejected"] | None, Query()] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> dict[str, Any]:
    context = ("approvals", state or "")
    before = uuid_position(desk.position(cursor, *context))
    async with desk.door.db.transaction() as tx:
        found = await queries.list_approvals(tx, state=state, before=before, limit=limit + 1)
    return desk.page(found, limit, shapes.approval, lambda a: [str(a.approval_id)], *context)


@router.get("/approvals/{approval_id}")
@needs("read")
async def get_approval(desk: AtDesk, approval_id: str) -> dict[str, Any]:
    async with desk.door.db.transaction() as tx:
        return shapes.approval(await queries.get_approval(tx, read_id("apr", approval_id)))


async def _decide(desk: Desk, approval_id: str, *, approve: bool) -> dict[str, Any]:
    async with desk.door.db.transaction() as tx:
        decided: rules.Approval = await movements.decide(
            tx, desk.door.keyring, desk.actor, read_id("apr", approval_id), approve=approve, request_id=desk.request_id
        )
    return shapes.approval(decided)


@router.post("/approvals/{approval_id}/approve")
@needs("approvals:decide")
async def approve(desk: AtDesk, approval_id: str) -> dict[str, Any]:
    """Moves the money, once. Whoever asked for it may not agree to it."""
    return await _decide(desk, approval_id, approve=True)


@router.post("/approvals/{approval_id}/reject")
@needs("approvals:decide")
async def reject(desk: AtDesk, approval_id: str) -> dict[str, Any]:
    """Nothing moves; the number may be used again. Whoever asked may also take it back."""
    return await _decide(desk, approval_id, approve=False)
