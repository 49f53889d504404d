"""The operator's hand on routing: what people say about channels, with a reason and perhaps an end."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from kameng_api.api.admin import routing_shapes as shapes
from kameng_api.api.admin import routing_wanted as said
from kameng_api.api.admin.desk import AtDesk, Cursor, Desk, DeskRoute, needs, read_id, time_position, uuid_position
from kameng_api.api.wire import Limit
from kameng_api.catalog import actions, queries
from kameng_api.catalog.hand import Kind
from kameng_api.kit.clock import utc_now
from kameng_api.operators.actions import require
from kameng_api.operators.rules import permission_for_rule
from kameng_api.suppliers import vitals

router = APIRouter(prefix="/routing", route_class=DeskRoute)

_Name = Query(max_length=64, pattern=r"^[A-Za-z0-9._~-]+$")


async def _put(desk: Desk, wanted: said.Said, response: Response) -> dict[str, Any]:
    now = utc_now()
    async with desk.door.db.transaction() as tx:
        rule, new = await actions.put_rule(tx, wanted.rule(desk.actor), now)
        shown = shapes.rule(rule, now)
        await desk.audit(tx, f"routing.{rule.kind}_set", shapes.subject(shown), **shown)
    response.status_code = 201 if new else 200
    return shown


@router.put("/pins")
@needs("routing:write")
async def set_pin(desk: AtDesk, wanted: said.PinWanted, response: Response) -> dict[str, Any]:
    """These channels first, in this order; with `hard` these alone, whatever their health."""
    return await _put(desk, wanted, response)


@router.put("/bans")
@needs("routing:switch")
async def set_ban(desk: AtDesk, wanted: said.BanWanted, response: Response) -> dict[str, Any]:
    """The channel gets none of these orders: of a SKU, a merchant, a level, or any."""
    return await _put(desk, wanted, response)


@router.put("/allow-lists")
@needs("routing:write")
async def set_allow_list(desk: AtDesk, wanted: said.AllowWanted, response: Response) -> dict[str, Any]:
    """Only these channels get these orders; several lists that fit one order all hold."""
    return await _put(desk, wanted, response)


@router.put("/weights")
@needs("routing:write")
async def set_weight(desk: AtDesk, wanted: said.WeightWanted, response: Response) -> dict[str, Any]:
    """A factor on what the channel is worth to the router."""
    return await _put(desk, wanted, response)


@router.put("/commitments")
@needs("routing:write")
async def set_commitment(desk: AtDesk, wanted: said.CommitmentWanted, response: Response) -> dict[str, Any]:
    """So much a day, week or month was promised; while it lags, the channel is worth more, never below cost."""
    return await _put(desk, wanted, response)


@router.put("/maintenance")
@needs("routing:switch")
async def set_maintenance(desk: AtDesk, wanted: said.MaintenanceWanted, response: Response) -> dict[str, Any]:
    """The supplier is away: once, or every week. Nothing is sent that would still be under way when it begins."""
    return await _put(desk, wanted, response)


@router.put("/forces")
@needs("routing:switch")
async def force_circuit(desk: AtDesk, wanted: said.ForceWanted, response: Response) -> dict[str, Any]:
    """The circuit is open, or closed, because you say so; ends by itself."""
    return await _put(desk, wanted, response)


@router.put("/stakes")
@needs("routing:write")
async def set_stakes(desk: AtDesk, wanted: said.StakesWanted, response: Response) -> dict[str, Any]:
    """What it costs when such an order fails or waits, and whether it may serve as a probe."""
    return await _put(desk, wanted, response)


@router.put("/terms")
@needs("routing:write")
async def set_terms(desk: AtDesk, wanted: said.TermsWanted, response: Response) -> dict[str, Any]:
    """What a channel may be sent: regions, carriers, face values, contract limits, wallet floor, age of its quotes."""
    return await _put(desk, wanted, response)


@router.put("/needs")
@needs("routing:write")
async def set_needs(desk: AtDesk, wanted: said.NeedsWanted, response: Response) -> dict[str, Any]:
    """What a channel must fit to get such orders."""
    return await _put(desk, wanted, response)


@router.get("/rules")
@needs("read")
async def list_rules(
    desk: AtDesk,
    kind: Annotated[Kind | None, Query()] = None,
    channel_id: Annotated[str | None, _Name] = None,
    sku: Annotated[str | None, _Name] = None,
    merchant_id: Annotated[str | None, Query(max_length=64)] = None,
    level: Annotated[str | None, _Name] = None,
    over: Annotated[bool, Query(description="Those past their end too.")] = False,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> dict[str, Any]:
    """What has been said and has not ended, oldest first."""
    owner = None if merchant_id is None else read_id("mer", merchant_id)
    context = ("routing", kind or "", channel_id or "", sku or "", merchant_id or "", level or "", str(over))
    after = uuid_position(desk.position(cursor, *context))
    async with desk.door.db.transaction() as tx:
        found = await queries.list_rules(
            tx, kind=kind, channel_id=channel_id, sku=sku, merchant_id=owner, level=level, over=over, after=after, limit=limit + 1
        )
    now = utc_now()
    return desk.page(found, limit, lambda one: shapes.rule(one, now), lambda one: [str(one.rule_id)], *context)


@router.get("/transitions")
@needs("read")
async def list_transitions(
    desk: AtDesk,
    channel_id: Annotated[str | None, _Name] = None,
    sku: Annotated[str | None, _Name] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> dict[str, Any]:
    """When circuits opened and closed, and why, the latest first; `sku` null: the circuit of the whole channel."""
    context = ("transitions", channel_id or "", sku or "")
    before = time_position(desk.position(cursor, *context))
    async with desk.door.db.transaction() as tx:
        found = await vitals.list_transitions(tx, channel_id=channel_id, sku=sku, before=before, limit=limit + 1)
    return desk.page(found, limit, shapes.transition, lambda r: [r["at"].isoformat(), str(r["transition_id"])], *context)


@router.get("/rules/{rule_id}")
@needs("read")
async def get_rule(desk: AtDesk, rule_id: str) -> dict[str, Any]:
    async with desk.door.db.transaction() as tx:
        return shapes.rule(await queries.get_rule(tx, read_id("rul", rule_id)), utc_now())


@router.delete("/rules/{rule_id}")
@needs("routing:switch")
async def remove_rule(desk: AtDesk, rule_id: str) -> dict[str, Any]:
    """Take it back; the answer is what it said. Your role must allow saying it."""
    async with desk.door.db.transaction() as tx:
        gone = await actions.remove_rule(tx, read_id("rul", rule_id))
        require(desk.operator, permission_for_rule(gone.kind))
        shown = shapes.rule(gone, utc_now()) | {"counts": False}
        await desk.audit(tx, f"routing.{gone.kind}_removed", shapes.subject(shown), **shown)
    return shown
