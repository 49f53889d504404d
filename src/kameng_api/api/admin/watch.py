"""What needs a person's eye: alarms, incidents, work that was given up, and whether the books hold."""

from datetime import timedelta
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import Field

from kameng_api.alarms import actions as alarms
from kameng_api.alarms import queries as alarm_queries
from kameng_api.api.admin import shapes
from kameng_api.api.admin.connections import simulator_knobs
from kameng_api.api.admin.desk import AtDesk, Cursor, DeskRoute, needs, read_id, uuid_position
from kameng_api.api.routes import WireModel
from kameng_api.api.wire import Limit
from kameng_api.catalog import queries as catalog
from kameng_api.ledger import queries as ledger
from kameng_api.operators import actions, queries
from kameng_api.operators.actions import invalid
from kameng_api.reconciliation import invariants
from kameng_api.tasks.rules import Lane

router = APIRouter(route_class=DeskRoute)

_RECENT = timedelta(hours=1)


@router.get("/alarms")
@needs("read")
async def list_alarms(
    desk: AtDesk,
    state: Annotated[Literal["open", "all"], Query()] = "open",
    kind: Annotated[str | None, Query(max_length=64)] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> dict[str, Any]:
    context = ("alarms", state, kind or "")
    before = uuid_position(desk.position(cursor, *context))
    async with desk.door.db.transaction() as tx:
        found = await alarm_queries.list_alarms(tx, only_open=state == "open", kind=kind, before=before, limit=limit + 1)
    return desk.page(found, limit, shapes.alarm, lambda a: [str(a.alarm_id)], *context)


@router.post("/alarms/{alarm_id}/acknowledge")
@needs("alarms:write")
async def acknowledge_alarm(desk: AtDesk, alarm_id: str) -> dict[str, Any]:
    """You have seen it; it stays open until the trouble is over."""
    async with desk.door.db.transaction() as tx:
        seen = await alarms.acknowledge(tx, read_id("alm", alarm_id), desk.actor)
        await desk.audit(tx, "alarm.acknowledged", alarm_id, kind=seen.kind)
    return shapes.alarm(seen)


@router.post("/alarms/{alarm_id}/close")
@needs("alarms:write")
async def close_alarm(desk: AtDesk, alarm_id: str) -> dict[str, Any]:
    """You say that it is over; the same trouble seen again is a new alarm."""
    async with desk.door.db.transaction() as tx:
        closed = await alarms.close_by_id(tx, read_id("alm", alarm_id), desk.actor)
        await desk.audit(tx, "alarm.closed", alarm_id, kind=closed.kind)
    return shapes.alarm(closed)


@router.get("/incidents")
@needs("read")
async def list_incidents(
    desk: AtDesk,
    state: Annotated[Literal["open", "all"], Query()] = "open",
    limit: Limit = 50,
    cursor: Cursor = None,
) -> dict[str, Any]:
    """Facts that contradict each other."""
    before = uuid_position(desk.position(cursor, "incidents", state))
    async with desk.door.db.transaction() as tx:
        found = await queries.list_incidents(tx, only_open=state == "open", before=before, limit=limit + 1)
    return desk.page(found, limit, shapes.incident, lambda row: [str(row["incident_id"])], "incidents", state)


class Noted(WireModel):
    note: str = Field(min_length=1, max_length=500)


@router.post("/incidents/{incident_id}/close")
@needs("incidents:write")
async def close_incident(desk: AtDesk, incident_id: str, wanted: Noted) -> dict[str, Any]:
    """You have dealt with it; the note says how."""
    async with desk.door.db.transaction() as tx:
        await actions.close_incident(tx, read_id("inc", incident_id), desk.actor)
        await desk.audit(tx, "incident.closed", incident_id, note=wanted.note)
    return {"id": incident_id, "closed_by": desk.actor}


@router.get("/tasks/parked")
@needs("read")
async def list_parked(desk: AtDesk, limit: Limit = 50, cursor: Cursor = None) -> dict[str, Any]:
    """Work that raised again and again and was given up."""
    position = desk.position(cursor, "parked")
    after = (int(position[0]), position[1], UUID(position[2])) if position else None
    async with desk.door.db.transaction() as tx:
        found = await queries.list_parked(tx, after=after, limit=limit + 1)
    return desk.page(found, limit, shapes.parked_task, lambda row: [str(row["book_id"]), row["lane"], str(row["ref"])], "parked")


class TaskNamed(WireModel):
    book_id: int
    lane: Lane = Field(strict=False)
    ref: str


@router.post("/tasks/retry")
@needs("tasks:write")
async def retry_task(desk: AtDesk, wanted: TaskNamed) -> dict[str, Any]:
    """Let it run again, with a fresh count of attempts."""
    try:
        ref = UUID(wanted.ref)
    except ValueError:
        raise invalid("/ref", "format", "a UUID") from None
    async with desk.door.db.transaction() as tx:
        await actions.retry_parked(tx, wanted.book_id, wanted.lane, ref)
        await desk.audit(tx, "task.retried", f"task:{wanted.lane}:{ref}", book_id=wanted.book_id)
    desk.door.doorbell.ring(wanted.lane)
    return {"book_id": wanted.book_id, "lane": wanted.lane, "ref": str(ref), "state": "ready"}


class CheckWanted(WireModel):
    """`recent` looks at the last hour and at all open orders; `all` reads every transfer and order."""

    scope: Literal["recent", "all"] = "recent"


@router.post("/ledger/verify")
@needs("ledger:verify")
async def verify_ledger(desk: AtDesk, wanted: CheckWanted) -> dict[str, Any]:
    """Do the books hold?"""
    async with desk.door.db.transaction() as tx:
        if wanted.scope == "all":
            breaches = await invariants.check_all(tx, events_kept=timedelta(days=desk.door.settings.keep_events_days))
        else:
            breaches = await invariants.check_recent(tx, _RECENT)
        await desk.audit(tx, "ledger.verified", "ledger", scope=wanted.scope, breaches=len(breaches))
    return {"scope": wanted.scope, **shapes.verdict(breaches)}


@router.get("/ledger/house")
@needs("read")
async def get_house_sums(desk: AtDesk, environment: Annotated[Literal["live", "test"], Query()] = "live") -> dict[str, Any]:
    """Sums over all books of the accounts without a floor; credits minus debits, so what we own is negative."""
    async with desk.door.db.transaction() as tx:
        sums = await ledger.house_sums(tx, environment)
    return {"environment": environment, "items": shapes.house_sums(sums)}


@router.get("/simulator/{supplier}/knobs")
@needs("read")
async def get_knobs(desk: AtDesk, supplier: str) -> dict[str, Any]:
    """How a simulated supplier behaves; `supplier` is a test channel's id, or the account's name at the simulator."""
    return await _knobs(desk, supplier, None)


class Knobs(WireModel):
    """Whatever the simulator knows; what is not named returns to its default."""

    knobs: dict[str, Any]


@router.put("/simulator/{supplier}/knobs")
@needs("simulator:write")
async def put_knobs(desk: AtDesk, supplier: str, wanted: Knobs) -> dict[str, Any]:
    """Turns the knobs of a simulated supplier. Test channels only."""
    shown = await _knobs(desk, supplier, wanted.knobs)
    async with desk.door.db.transaction() as tx:
        await desk.audit(tx, "simulator.knobs_set", f"simulator:{supplier}", knobs=wanted.knobs)
    return shown


async def _knobs(desk: AtDesk, supplier: str, knobs: dict[str, Any] | None) -> dict[str, Any]:
    async with desk.door.db.transaction() as tx:
        channels = await catalog.list_channels(tx, environment="test")
    token = desk.door.settings.simulator_token
    return await simulator_knobs(channels, desk.door.keyring, token, supplier, knobs)
