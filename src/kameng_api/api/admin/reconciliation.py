"""Suppliers' books beside ours, at the operator's desk: sources, files, comparisons, and what is done about a difference, by two people."""

import tempfile
from datetime import date as Date
from datetime import timedelta
from typing import Annotated, Any, Final, Literal
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field

from kameng_api.api.admin import reconciliation_shapes as shapes
from kameng_api.api.admin.desk import Amount, AtDesk, Cursor, Desk, DeskRoute, needs, read_id, uuid_position
from kameng_api.api.routes import WireModel
from kameng_api.api.wire import Limit
from kameng_api.kit.db import Tx
from kameng_api.kit.errors import FieldError, Invalid, StateConflict
from kameng_api.kit.ids import public_id
from kameng_api.reconciliation import actions, exports, landing, queries, reports, rollforward, sources, uploads
from kameng_api.reconciliation.rules import CLASSES, Break
from kameng_api.reconciliation.sources import SourceWanted, StatementFile

router = APIRouter(prefix="/reconciliation", route_class=DeskRoute)

MOST_EXPORTED: Final = 50_000
State = Annotated[Literal["open", "waiting", "proposed", "approved", "closed"] | None, Query()]
Class = Annotated[str | None, Query(pattern="^R([1-9]|1[0-3])$")]
Channel = Annotated[str | None, Query(max_length=32)]
Age = Annotated[int | None, Query(ge=0, le=31_536_000, description="seconds since it was first seen, at least")]


def read_day(text: str, pointer: str = "/day") -> Date:
    """`2026-11-22`. Raises Invalid."""
    try:
        if len(text) != 10:
            raise ValueError
        return Date.fromisoformat(text)
    except ValueError:
        raise Invalid("no such day", errors=[FieldError(pointer, "format", "a day such as 2026-11-22")]) from None


class SourceDocument(WireModel):
    """`tolerance` and `drift_limit` are amounts. `complete`: what is not in a whole statement did not happen; think before you say so."""

    channel_id: str = Field(max_length=32)
    kind: str
    currency: str = "CNY"
    timezone: str = "Asia/Shanghai"
    lag_s: int = 3600
    complete: bool = False
    window_days: int = 2
    charges_at: str = "submission"
    tolerance: Amount = 100
    drift_limit: Amount | None = None
    mapping: dict[str, Any] | None = None
    enabled: bool = True


@router.get("/sources")
@needs("read")
async def list_sources(desk: AtDesk, channel_id: Channel = None) -> dict[str, Any]:
    """Where statements come from."""
    async with desk.door.db.transaction() as tx:
        found = await sources.list_sources(tx, channel_id=channel_id)
    return {"items": [shapes.source(s) for s in found]}


@router.put("/sources/{name}")
@needs("reconciliation:write")
async def put_source(desk: AtDesk, name: str, wanted: SourceDocument) -> dict[str, Any]:
    """Make or change a source; how its files are read is checked now, not when a file comes."""
    async with desk.door.db.transaction() as tx:
        made = await sources.put_source(tx, SourceWanted(name=name, **dict(wanted)))
        shown = shapes.source(made)
        await desk.audit(tx, "reconciliation.source_set", f"source:{name}", **shown)
    return shown


class DayWanted(WireModel):
    day: str


@router.post("/sources/{name}/fetch", status_code=202)
@needs("reconciliation:write")
async def fetch_day(desk: AtDesk, name: str, wanted: DayWanted) -> dict[str, Any]:
    """Let a worker fetch a day, now or again; within a minute or so."""
    day = read_day(wanted.day)
    async with desk.door.db.transaction() as tx:
        source = await sources.get_source(tx, name)
        if source.kind != "fetch":
            raise StateConflict("this source is not fetched: upload its files")
        file_id = await landing.ask_for(tx, source, day, desk.actor)
        await desk.audit(tx, "reconciliation.fetch_asked", f"source:{name}", day=wanted.day)
        return shapes.file(await sources.get_file(tx, file_id), name)


@router.post("/files", status_code=201, openapi_extra={
    "requestBody": {"required": True, "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}
})  # fmt: skip
@needs("reconciliation:write")
async def upload_file(
    desk: AtDesk,
    request: Request,
    response: Response,
    source: Annotated[str, Query(max_length=64)],
    day: Annotated[str, Query(max_length=10)],
    name: Annotated[str, Query(max_length=200)] = "file",
) -> dict[str, Any]:
    """The bytes of a CSV or XLSX file, at most 32 MB. Read now, row by row; nothing of it counts before it is accepted. The same bytes
    again are 200 and the file they were."""
    async with desk.door.db.transaction() as tx:
        found = await sources.get_source(tx, source)
    body = await request.body()
    with tempfile.TemporaryFile() as file:  # without a name: nothing of it is left behind, however this process ends
        file.write(body)
        file.flush()
        read, new = await uploads.upload(desk.door.db, found, read_day(day), file, name, desk.actor)
    async with desk.door.db.transaction() as tx:
        await desk.audit(tx, "reconciliation.uploaded", public_id("rcf", read.file_id), source=source, day=day, sha256=read.sha256.hex(), new=new)
    if not new:
        response.status_code = 200
        response.headers["Idempotent-Replayed"] = "true"
    return shapes.file(read, source)


@router.get("/files")
@needs("read")
async def list_files(
    desk: AtDesk,
    channel_id: Channel = None,
    day: Annotated[str | None, Query(max_length=10)] = None,
    state: Annotated[Literal["reading", "read", "accepted", "rejected", "superseded"] | None, Query()] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> dict[str, Any]:
    """Tellings of days, newest first."""
    context = ("recon_files", channel_id or "", day or "", state or "")
    before = uuid_position(desk.position(cursor, *context))
    async with desk.door.db.transaction() as tx:
        found = await sources.list_files(
            tx, channel_id=channel_id, day=read_day(day) if day else None, state=state, before=before, limit=limit + 1
        )
        names = {s.source_id: s.name for s in await sources.list_sources(tx)}
    return desk.page(found, limit, lambda f: shapes.file(f, names[f.source_id]), lambda f: [str(f.file_id)], *context)


async def _shown(tx: Tx, file: StatementFile) -> dict[str, Any]:
    names = {s.source_id: s.name for s in await sources.list_sources(tx)}
    return shapes.file(file, names[file.source_id])


@router.get("/files/{file_id}")
@needs("read")
async def get_file(desk: AtDesk, file_id: str) -> dict[str, Any]:
    """With the rows that could not be read."""
    async with desk.door.db.transaction() as tx:
        return await _shown(tx, await sources.get_file(tx, read_id("rcf", file_id)))


class Accepting(WireModel):
    """`with_bad` true: the rows that cannot be read are left out, knowingly."""

    with_bad: bool = False


@router.post("/files/{file_id}/accept")
@needs("reconciliation:write")
async def accept_file(desk: AtDesk, file_id: str, wanted: Accepting) -> dict[str, Any]:
    """From now on it counts: its lines land within seconds, and the day is compared."""
    async with desk.door.db.transaction() as tx:
        file = await landing.accept(tx, read_id("rcf", file_id), desk.actor, with_bad=wanted.with_bad)
        await desk.audit(tx, "reconciliation.file_accepted", file_id, rows=file.rows_read, bad=file.rows_bad)
        return await _shown(tx, file)


@router.post("/files/{file_id}/reject")
@needs("reconciliation:write")
async def reject_file(desk: AtDesk, file_id: str) -> dict[str, Any]:
    """Nothing of it will count; the same bytes may be uploaded again."""
    async with desk.door.db.transaction() as tx:
        file = await sources.reject_file(tx, read_id("rcf", file_id), desk.actor)
        await desk.audit(tx, "reconciliation.file_rejected", file_id)
        return await _shown(tx, file)


class RunWanted(WireModel):
    channel_id: str = Field(max_length=32)
    day: str


@router.post("/runs", status_code=202)
@needs("reconciliation:write")
async def start_run(desk: AtDesk, wanted: RunWanted) -> dict[str, Any]:
    """Let a worker compare a day whose statement has landed, now or again."""
    day = read_day(wanted.day)
    async with desk.door.db.transaction() as tx:
        await queries.environment_of(tx, wanted.channel_id)
        if not await reports.is_told(tx, wanted.channel_id, day):
            raise StateConflict("no statement of this day counts yet: fetch it, or upload and accept its file")
        run = await actions.start_run(tx, wanted.channel_id, day, desk.actor)
        await desk.audit(tx, "reconciliation.run_asked", f"channel:{wanted.channel_id}", day=wanted.day)
    return shapes.run(run)


@router.get("/runs")
@needs("read")
async def list_runs(desk: AtDesk, channel_id: Channel = None, limit: Limit = 50, cursor: Cursor = None) -> dict[str, Any]:
    """Comparisons, newest first."""
    context = ("recon_runs", channel_id or "")
    before = uuid_position(desk.position(cursor, *context))
    async with desk.door.db.transaction() as tx:
        found = await reports.list_runs(tx, channel_id=channel_id, before=before, limit=limit + 1)
    return desk.page(found, limit, shapes.run, lambda r: [str(r.run_id)], *context)


@router.get("/breaks")
@needs("read")
async def list_breaks(
    desk: AtDesk, channel_id: Channel = None, break_class: Annotated[str | None, Query(alias="class", pattern="^R([1-9]|1[0-3])$")] = None,
    state: State = None, older_than_s: Age = None, limit: Limit = 50, cursor: Cursor = None,
) -> dict[str, Any]:  # fmt: skip
    """What does not agree, newest first."""
    context = ("breaks", channel_id or "", break_class or "", state or "", str(older_than_s or ""))
    before = uuid_position(desk.position(cursor, *context))
    async with desk.door.db.transaction() as tx:
        found = await queries.list_breaks(
            tx, channel_id=channel_id, class_=break_class, state=state, older_than=_age(older_than_s), before=before, limit=limit + 1
        )
    return desk.page(found, limit, shapes.whole_break, lambda b: [str(b.break_id)], *context)


def _age(seconds: int | None) -> timedelta | None:
    return None if seconds is None else timedelta(seconds=seconds)


@router.get("/classes")
@needs("read")
async def list_classes(desk: AtDesk) -> dict[str, Any]:
    """The sorts of differences, and how each may be resolved."""
    return {
        "items": [
            {
                "class": c.code, "name": c.name, "title": c.title, "title_zh": c.title_zh, "severity": c.severity, "owner": c.owner,
                "resolutions": sorted(c.resolutions), "default_resolution": c.default, "automatic": c.automatic, "due_hours": c.due_hours,
            }
            for c in CLASSES.values()
        ]
    }  # fmt: skip


@router.get("/exports/breaks", response_class=Response)
@needs("read")
async def export_breaks(
    desk: AtDesk, format: Annotated[Literal["csv", "xlsx"], Query()] = "csv", channel_id: Channel = None,
    break_class: Annotated[str | None, Query(alias="class", pattern="^R([1-9]|1[0-3])$")] = None, state: State = None, older_than_s: Age = None,
) -> Response:  # fmt: skip
    """The same list as one file, at most 50,000 breaks. What suppliers wrote is text in it and never a formula."""
    async with desk.door.db.transaction() as tx:
        rows = await reports.break_rows(
            tx, shapes.whole_break, shapes.BREAK_COLUMNS, most=MOST_EXPORTED,
            channel_id=channel_id, class_=break_class, state=state, older_than=_age(older_than_s),
        )  # fmt: skip
        await desk.audit(tx, "reconciliation.exported", "breaks", rows=len(rows), format=format)
    made = exports.as_csv(shapes.BREAK_COLUMNS, rows) if format == "csv" else exports.as_xlsx(shapes.BREAK_COLUMNS, rows)
    kind = "text/csv; charset=utf-8" if format == "csv" else "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
    return Response(made, media_type=kind, headers={"Content-Disposition": f'attachment; filename="breaks.{format}"'})


@router.get("/breaks/{break_id}")
@needs("read")
async def get_break(desk: AtDesk, break_id: str) -> dict[str, Any]:
    """With everything needed to decide: lines, attempts, transfers, suggestions, and who did what."""
    async with desk.door.db.transaction() as tx:
        found = read_id("brk", break_id)
        return shapes.whole_break(await queries.get_break(tx, found)) | {"evidence": shapes.evidence(await queries.break_evidence(tx, found))}


class OwnerWanted(WireModel):
    owner: str = Field(min_length=1, max_length=64, pattern=r"^[^\x00-\x1f]+$")


@router.post("/breaks/{break_id}/assign")
@needs("reconciliation:propose")
async def assign_break(desk: AtDesk, break_id: str, wanted: OwnerWanted) -> dict[str, Any]:
    """Give it to somebody."""
    async with desk.door.db.transaction() as tx:
        done = await actions.assign(tx, read_id("brk", break_id), desk.actor, wanted.owner)
        return await _told(desk, tx, done, "break_assigned", owner=wanted.owner)


class ResolutionWanted(WireModel):
    """`resolution`: one of the break's `resolutions`; `link:att_…` names the attempt that its lines belong to."""

    resolution: str = Field(min_length=1, max_length=64)
    note: str = Field(min_length=1, max_length=500)


@router.post("/breaks/{break_id}/propose")
@needs("reconciliation:propose")
async def propose_resolution(desk: AtDesk, break_id: str, wanted: ResolutionWanted) -> dict[str, Any]:
    """Say how it should be resolved. Nothing moves before somebody else approves."""
    async with desk.door.db.transaction() as tx:
        done = await actions.propose(tx, read_id("brk", break_id), desk.actor, wanted.resolution, wanted.note)
        return await _told(desk, tx, done, "break_proposed", resolution=wanted.resolution, note=wanted.note)


class ApprovalWanted(WireModel):
    """`proposal`: the break's, as it was shown to whoever approves. 409 when another one waits by now."""

    proposal: str = Field(min_length=1, max_length=64)


@router.post("/breaks/{break_id}/approve")
@needs("reconciliation:decide")
async def approve_break(desk: AtDesk, break_id: str, wanted: ApprovalWanted) -> dict[str, Any]:
    """Resolve it as proposed, as a new event in the books. Whoever proposed it may not approve it."""
    return await _decide(desk, read_id("brk", break_id), approve=True, proposal=wanted.proposal)


@router.post("/breaks/{break_id}/reject")
@needs("reconciliation:decide")
async def reject_break(desk: AtDesk, break_id: str) -> dict[str, Any]:
    """Send the proposal back."""
    return await _decide(desk, read_id("brk", break_id), approve=False)


async def _decide(desk: Desk, break_id: UUID, *, approve: bool, proposal: str | None = None) -> dict[str, Any]:
    async with desk.door.db.transaction() as tx:
        before = await queries.get_break(tx, break_id)
        done = await actions.decide(tx, desk.door.keyring, desk.actor, break_id, approve=approve, proposal=proposal)
        return await _told(
            desk, tx, done, "break_approved" if approve else "break_rejected", resolution=before.resolution, proposed_by=before.proposed_by
        )


async def _told(desk: Desk, tx: Tx, b: Break, what: str, **facts: Any) -> dict[str, Any]:
    shown = shapes.whole_break(b)
    await desk.audit(tx, f"reconciliation.{what}", shown["id"], **{"class": b.class_, "amount": shown["amount"], **facts})
    return shown


@router.get("/days")
@needs("read")
async def list_days(
    desk: AtDesk, channel_id: Channel = None, upto: Annotated[str | None, Query(max_length=10)] = None, limit: Limit = 50
) -> dict[str, Any]:
    """Does each day add up? Newest first, from `upto` backwards."""
    async with desk.door.db.transaction() as tx:
        found = await rollforward.list_days(tx, channel_id=channel_id, upto=read_day(upto, "/upto") if upto else Date(2099, 12, 31), limit=limit)
    return {"items": [shapes.day(d) for d in found]}


@router.get("/reports/{channel_id}/{day}")
@needs("read")
async def get_report(desk: AtDesk, channel_id: str, day: str) -> dict[str, Any]:
    """One channel's day: what was told, what agrees, what does not, and whether it adds up."""
    async with desk.door.db.transaction() as tx:
        return await report_of(tx, channel_id, read_day(day))


async def report_of(tx: Tx, channel_id: str, day: Date) -> dict[str, Any]:
    """Also what `kameng reconcile report` prints. Raises NotFound."""
    found = await queries.day_report(tx, channel_id, day)
    names = {s.source_id: s.name for s in await sources.list_sources(tx)}
    days = [d for d in await rollforward.list_days(tx, channel_id=channel_id, upto=day, limit=20) if d.day == day]
    files = [shapes.file(f, names[f.source_id]) for f in await sources.list_files(tx, channel_id=channel_id, day=day, limit=20)]
    return shapes.report(found, days, files)
