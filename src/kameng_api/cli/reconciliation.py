"""`kameng reconcile …`: suppliers' statements, what they do not agree with, and what two people do about it."""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from kameng_api.api.admin import reconciliation_shapes as shapes
from kameng_api.api.admin.reconciliation import read_day, report_of
from kameng_api.catalog.rules import Channel
from kameng_api.cli.bench import Bench, keyring_of, read_amount, read_id, run
from kameng_api.cli.terminal import REFUSED, UNAVAILABLE, fail, find_servers, read_settings, show, show_list
from kameng_api.jobs import reconciliation as jobs
from kameng_api.kit.crypto import Keyring
from kameng_api.kit.db import Database
from kameng_api.kit.errors import FieldError, Invalid, Problem, Unavailable
from kameng_api.kit.http import build_client
from kameng_api.kit.ids import public_id
from kameng_api.operators import actions as operators
from kameng_api.reconciliation import actions, exports, landing, queries, reports, sources, uploads
from kameng_api.reconciliation.sources import SourceWanted
from kameng_api.settings import Settings
from kameng_api.suppliers.connections import Connections
from kameng_api.suppliers.port import AnswerUnusable, Supplier

reconcile_app = typer.Typer(no_args_is_help=True)

_LARGEST_MAPPING: Final = 100_000
_COLUMNS: Final = ("id", "class", "name", "state", "channel_id", "amount", "age_s", "owner", "why")
_FILE_COLUMNS: Final = ("id", "source", "day", "state", "rows_read", "rows_bad", "name", "by")
BreakId = Annotated[str, typer.Argument(help="brk_…")]
FileId = Annotated[str, typer.Argument(help="rcf_…")]


@reconcile_app.command("run")
def run_day(
    channel: str,
    day: Annotated[str, typer.Argument(help="the supplier's business day, such as 2026-11-22")],
    again: Annotated[bool, typer.Option("--again", help="fetch the statement anew, though one is there")] = False,
) -> None:
    """Fetch a day's statement if it can be fetched, compare it, and settle what it proves; now, while you wait."""

    async def asked(bench: Bench) -> str:
        await bench.audit("reconciliation.run_asked", f"channel:{channel}", day=day)
        return bench.actor

    actor = run(asked, permission="reconciliation:write")

    async def work(desk: LongDesk) -> dict[str, Any]:
        try:
            return shapes.run(await jobs.reconcile_day(desk, channel, read_day(day), actor, refetch=again))
        except (LookupError, ValueError, TimeoutError, AnswerUnusable) as trouble:
            raise Unavailable(f"the supplier's statement could not be read: {trouble}") from trouble

    show(_take_long(work))


@reconcile_app.command("report")
def report(channel: str, day: str) -> None:
    """One channel's day: what was told, what agrees, what does not, and whether it adds up."""

    async def work(bench: Bench) -> dict[str, Any]:
        return await report_of(bench.tx, channel, read_day(day))

    show(run(work))


@reconcile_app.command("breaks")
def list_breaks(
    channel: str | None = None,
    break_class: Annotated[str | None, typer.Option("--class", help="R1 to R13")] = None,
    state: Annotated[str | None, typer.Option(help="open | waiting | proposed | approved | closed; all that are not closed if left out")] = None,
    older_than_hours: Annotated[float | None, typer.Option()] = None,
    out: Annotated[Path | None, typer.Option(help="write them to a .csv or .xlsx file instead")] = None,
    limit: int = 100,
) -> None:
    """What does not agree, newest first."""
    age = None if older_than_hours is None else timedelta(hours=older_than_hours)
    if out is not None:
        _export(out, channel, break_class, state, age)
        return

    async def work(bench: Bench) -> list[dict[str, Any]]:
        found = await queries.list_breaks(bench.tx, channel_id=channel, class_=break_class, state=state, older_than=age, limit=limit)
        return [shapes.whole_break(b) for b in found if state is not None or b.state != "closed"]

    show_list(run(work), _COLUMNS)


def _export(out: Path, channel: str | None, break_class: str | None, state: str | None, age: timedelta | None) -> None:
    async def work(bench: Bench) -> list[list[Any]]:
        if out.suffix not in (".csv", ".xlsx"):
            raise Invalid("a .csv or .xlsx file", errors=[FieldError("/out", "format", "a .csv or .xlsx file")])
        rows = await reports.break_rows(
            bench.tx, shapes.whole_break, shapes.BREAK_COLUMNS, most=50_000, channel_id=channel, class_=break_class, state=state, older_than=age
        )
        await bench.audit("reconciliation.exported", "breaks", rows=len(rows), format=out.suffix[1:])
        return rows

    rows = run(work)
    make = exports.as_csv if out.suffix == ".csv" else exports.as_xlsx
    out.write_bytes(make(shapes.BREAK_COLUMNS, rows))
    show({"written": str(out), "breaks": len(rows)})


@reconcile_app.command("show")
def show_break(break_id: BreakId) -> None:
    """One break with everything needed to decide."""

    async def work(bench: Bench) -> dict[str, Any]:
        found = read_id("brk", break_id)
        return shapes.whole_break(await queries.get_break(bench.tx, found)) | {
            "evidence": shapes.evidence(await queries.break_evidence(bench.tx, found))
        }

    show(run(work))


def _on_break(work: Callable[[Bench], Awaitable[Any]], what: str, permission: str, **facts: Any) -> None:
    async def audited(bench: Bench) -> dict[str, Any]:
        shown = shapes.whole_break(await work(bench))
        await bench.audit(f"reconciliation.{what}", shown["id"], **{"class": shown["class"], "amount": shown["amount"], **facts})
        return shown

    show(run(audited, permission=permission))


@reconcile_app.command("assign")
def assign(break_id: BreakId, owner: str) -> None:
    """Give a break to somebody."""
    _on_break(
        lambda b: actions.assign(b.tx, read_id("brk", break_id), b.actor, owner), "break_assigned", "reconciliation:propose", owner=owner
    )


@reconcile_app.command("propose")
def propose(break_id: BreakId, resolution: str, note: Annotated[str, typer.Option(help="why, for whoever decides")]) -> None:
    """Say how it should be resolved. Nothing moves before somebody else approves."""
    _on_break(
        lambda b: actions.propose(b.tx, read_id("brk", break_id), b.actor, resolution, note), "break_proposed", "reconciliation:propose",
        resolution=resolution, note=note,
    )  # fmt: skip


@reconcile_app.command("approve")
def approve(break_id: BreakId, proposal: Annotated[str, typer.Argument(help="what you saw: `proposal` of `show` or `breaks`")]) -> None:
    """Resolve it as proposed. Whoever proposed it may not approve it, and nothing is approved that was proposed since."""
    _on_break(
        lambda b: actions.decide(b.tx, b.keyring, b.actor, read_id("brk", break_id), approve=True, proposal=proposal),
        "break_approved", "reconciliation:decide",
    )  # fmt: skip


@reconcile_app.command("reject")
def reject(break_id: BreakId) -> None:
    """Send the proposal back."""
    _on_break(
        lambda b: actions.decide(b.tx, b.keyring, b.actor, read_id("brk", break_id), approve=False), "break_rejected", "reconciliation:decide"
    )


@reconcile_app.command("sources")
def list_sources(channel: str | None = None) -> None:
    """Where statements come from."""

    async def work(bench: Bench) -> list[dict[str, Any]]:
        return [shapes.source(s) for s in await sources.list_sources(bench.tx, channel_id=channel)]

    show_list(run(work), ("name", "channel_id", "kind", "timezone", "lag_s", "complete", "window_days", "tolerance", "enabled"))


@reconcile_app.command("source")
def put_source(
    name: str,
    channel: Annotated[str, typer.Option()],
    kind: Annotated[str, typer.Option(help="fetch | upload")] = "upload",
    mapping: Annotated[Path | None, typer.Option(help="a JSON file that says how this source's files are read")] = None,
    currency: str = "CNY",
    timezone: str = "Asia/Shanghai",
    lag_s: Annotated[int, typer.Option(help="so long after the end of the day the statement is whole")] = 3600,
    complete: Annotated[bool, typer.Option("--complete", help="what is not in a whole statement did not happen")] = False,
    window_days: Annotated[int, typer.Option(help="so long a line may be late")] = 2,
    charges_at: Annotated[str, typer.Option(help="submission | success")] = "submission",
    tolerance: Annotated[str, typer.Option(help="an amount per purchase")] = "0.01",
    drift_limit: Annotated[str | None, typer.Option(help="an amount; beyond it an alarm")] = None,
    disabled: Annotated[bool, typer.Option("--disabled")] = False,
) -> None:
    """Make or change a source."""

    async def work(bench: Bench) -> dict[str, Any]:
        wanted = SourceWanted(
            channel, name, kind, currency, timezone, lag_s, complete, window_days, charges_at, read_amount(tolerance),
            None if drift_limit is None else read_amount(drift_limit), None if mapping is None else _mapping(mapping), not disabled,
        )  # fmt: skip
        shown = shapes.source(await sources.put_source(bench.tx, wanted))
        await bench.audit("reconciliation.source_set", f"source:{name}", **shown)
        return shown

    show(run(work, permission="reconciliation:write"))


def _mapping(path: Path) -> Mapping[str, Any]:
    try:
        if path.stat().st_size > _LARGEST_MAPPING:
            raise ValueError("too large")
        document = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(document, dict):
            raise ValueError("not an object")
    except (OSError, ValueError) as trouble:
        raise Invalid("no mapping", errors=[FieldError("/mapping", "format", f"a file with one JSON object: {trouble}")]) from None
    return document


@reconcile_app.command("upload")
def upload(
    source: str,
    day: Annotated[str, typer.Argument(help="the business day the file tells")],
    file: Path,
    accept: Annotated[bool, typer.Option("--accept", help="let it count at once, if all can be read; live: another person accepts it")] = False,
) -> None:
    """Read a CSV or XLSX file. Nothing of it counts before it is accepted."""

    async def asked(bench: Bench) -> tuple[str, sources.Source]:
        if not _is_file(file):
            raise Invalid("no such file", errors=[FieldError("/file", "format", "a file that can be read")])
        return bench.actor, await sources.get_source(bench.tx, source)

    actor, found = run(asked, permission="reconciliation:write")

    async def work(desk: LongDesk) -> dict[str, Any]:
        with file.open("rb") as opened:
            read, new = await uploads.upload(desk.db, found, read_day(day), opened, file.name, actor)
        file_id = public_id("rcf", read.file_id)
        async with desk.db.transaction() as tx:
            facts = {"source": source, "day": day, "sha256": read.sha256.hex(), "new": new}
            await operators.audit(tx, actor, "reconciliation.uploaded", file_id, facts)
            if accept and read.state == "read" and read.environment == "test":
                read = await landing.accept(tx, read.file_id, actor)
                await operators.audit(tx, actor, "reconciliation.file_accepted", file_id, {"rows": read.rows_read, "bad": read.rows_bad})
        await jobs.land_files(desk)
        async with desk.db.transaction() as tx:
            return shapes.file(await sources.get_file(tx, read.file_id), source)

    show(_take_long(work))


def _is_file(path: Path) -> bool:
    return path.is_file()


@dataclass(frozen=True, slots=True)
class LongDesk:
    """For work that takes longer than one transaction may."""

    db: Database
    settings: Settings
    keyring: Keyring
    connections: Connections

    def supplier_of(self, channel: Channel) -> Supplier:
        return self.connections.of(channel)


def _take_long(work: Callable[[LongDesk], Awaitable[dict[str, Any]]]) -> dict[str, Any]:
    settings = find_servers(read_settings())
    try:
        return asyncio.run(_work_long(work, settings))
    except Problem as problem:
        for wrong in problem.errors:
            sys.stderr.write(f"{wrong.pointer or '/'}: {wrong.detail}\n")
        fail(f"{problem.code}: {problem.detail or type(problem).__doc__}", REFUSED)
    except Unavailable as trouble:
        fail(f"unavailable: {trouble}", UNAVAILABLE)


async def _work_long(work: Callable[[LongDesk], Awaitable[dict[str, Any]]], settings: Settings) -> dict[str, Any]:
    assert settings.database_url is not None
    db = Database(settings.database_url.get_secret_value(), pool_size=5)
    keyring = keyring_of(settings)
    client = build_client(max_connections=4, connect_timeout_s=5.0, read_timeout_s=120.0, guard=False)
    connections = Connections(keyring, client, base_url=settings.base_url, timeout_s=settings.supplier_timeout_s)
    try:
        return await work(LongDesk(db, settings, keyring, connections))
    finally:
        await connections.close()
        await db.close()


@reconcile_app.command("files")
def list_files(channel: str | None = None, day: str | None = None, state: str | None = None, limit: int = 50) -> None:
    """Tellings of days, newest first."""

    async def work(bench: Bench) -> list[dict[str, Any]]:
        names = {s.source_id: s.name for s in await sources.list_sources(bench.tx)}
        wanted: date | None = None if day is None else read_day(day)
        found = await sources.list_files(bench.tx, channel_id=channel, day=wanted, state=state, limit=limit)
        return [shapes.file(f, names[f.source_id]) for f in found]

    show_list(run(work), _FILE_COLUMNS)


@reconcile_app.command("accept")
def accept_file(
    file_id: FileId, with_bad: Annotated[bool, typer.Option("--with-bad", help="leave out the rows that cannot be read")] = False
) -> None:
    """Let a file count."""
    _on_file(lambda b, f: landing.accept(b.tx, f, b.actor, with_bad=with_bad), "file_accepted", file_id)


@reconcile_app.command("reject-file")
def reject_file(file_id: FileId) -> None:
    """Throw away what a file said, before it counts."""
    _on_file(lambda b, f: sources.reject_file(b.tx, f, b.actor), "file_rejected", file_id)


def _on_file(work: Callable[[Bench, Any], Awaitable[sources.StatementFile]], what: str, file_id: str) -> None:
    async def audited(bench: Bench) -> dict[str, Any]:
        file = await work(bench, read_id("rcf", file_id))
        await bench.audit(f"reconciliation.{what}", file_id, rows=file.rows_read, bad=file.rows_bad)
        names = {s.source_id: s.name for s in await sources.list_sources(bench.tx)}
        return shapes.file(file, names[file.source_id])

    show(run(audited, permission="reconciliation:write"))
