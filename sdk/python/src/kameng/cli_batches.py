"""`kameng-merchant batch …`: a file of orders goes up, a progress bar comes back, then the rows that failed."""

import hashlib
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from kameng._sync.client import Client
from kameng.cli_screen import FAILED, NOT_FINAL, Chosen, aside, console, fail, opened, show, show_list
from kameng.errors import NotFinal
from kameng.models import Batch

batch_app = typer.Typer(help="Many orders from a file.", no_args_is_help=True)
_SHOWN = ("id", "merchant_batch_no", "status", "failure", "filename")


class Mode(str, Enum):
    """What an invalid row does to the others."""

    partial = "partial"
    all_or_nothing = "all_or_nothing"


class Shortage(str, Enum):
    """What happens to a row that the balance does not cover."""

    stop = "stop"
    skip = "skip"


class Which(str, Enum):
    """Rows by what became of them; `retry` has the failed ones alone, ready to be corrected."""

    succeeded = "succeeded"
    failed = "failed"
    unprocessed = "unprocessed"
    retry = "retry"


class Format(str, Enum):
    """Of files."""

    csv = "csv"
    xlsx = "xlsx"


@batch_app.command()
def upload(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help=".csv or .xlsx, at most 10 MB and 20,000 rows")],
    number: Annotated[str | None, typer.Option(help="your own number of the batch; without it one that follows from the file")] = None,
    mode: Mode = Mode.partial,
    on_insufficient_balance: Shortage = Shortage.stop,
    merge_equal: Annotated[bool, typer.Option("--merge-equal", help="equal rows become one order")] = False,
    split: Annotated[list[str] | None, typer.Option(help="a SKU to split large face values into; may be repeated")] = None,
    confirm: Annotated[bool, typer.Option("--confirm", help="stop after validating and ask before anything is bought")] = False,
    validate_only: Annotated[bool, typer.Option("--validate-only", help="buy nothing")] = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="with a progress bar, until every order is final")] = True,
    timeout: Annotated[float, typer.Option(min=1, help="seconds to wait")] = 3600.0,
) -> None:
    """Upload a file of orders. The same file again is the same batch: nothing is bought twice."""
    content = file.read_bytes()
    batch_no = number or f"FILE-{hashlib.sha256(content).hexdigest()[:24]}"
    with opened() as client:
        found = client.batches.upload(
            batch_no, content, filename=file.name, mode=mode.value, confirm="manual" if confirm else "auto",
            on_insufficient_balance=on_insufficient_balance.value, merge_equal=merge_equal, split_skus=split or (), validate_only=validate_only,
        )  # fmt: skip
        aside().print(f"batch {found.id}, number {batch_no}" + (": known already, nothing is bought twice" if found.replayed else ""))
        if wait:
            found = _watch(client, found, timeout)
        if wait and confirm and found.status == "validated" and not validate_only:
            found = _ask(client, found, timeout)
    _end(found)


def _ask(client: Client, found: Batch, timeout_s: float) -> Batch:
    _warn(found)
    progress = found.progress
    question = f"{progress.valid} of {progress.total} rows are valid, for {progress.total_cost} {progress.currency}. Buy?"
    if not typer.confirm(question, err=True):
        aside().print("left as it is: `kameng-merchant batch confirm` or `cancel` it")
        return found
    return _watch(client, client.batches.confirm(found.id), timeout_s)


def _warn(found: Batch) -> None:
    """What the house says of the file: a misspelt heading shows here."""
    for warning in found.warnings:
        aside().print(f"note: {warning}", markup=False)


def _watch(client: Client, found: Batch, timeout_s: float) -> Batch:
    """Until it is at rest, with a bar on stderr."""
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"), TimeElapsedColumn())
    with Progress(*columns, console=aside(), transient=False, disable=Chosen.as_json) as bar:
        task = bar.add_task(found.status, total=100)

        def tell(now: Batch) -> None:
            counts = now.progress
            said = f"{now.status}: {counts.succeeded} succeeded, {counts.failed + counts.invalid} failed of {counts.total}"
            bar.update(task, description=said, completed=counts.percent)

        return _patiently(client, found, timeout_s, tell)


def _patiently(client: Client, found: Batch, timeout_s: float, tell: Callable[[Batch], None]) -> Batch:
    try:
        return client.batches.wait(found, timeout_s=timeout_s, on_progress=tell)
    except NotFinal as still:
        still_batch: Batch = still.order
        return still_batch


def _end(found: Batch) -> None:
    """Status 0 when every row succeeded or was only to be validated; 1 when some failed; 4 when it goes on."""
    if Chosen.as_json:
        show(found)
    else:
        show(found, _SHOWN)
        show(found.progress)
        _warn(found)
    if found.status in ("failed", "cancelled", "completed_with_errors") or found.progress.invalid:
        aside().print(f"why, row by row: kameng-merchant batch results {found.id} failed; corrected and sent again: … retry")
        raise typer.Exit(FAILED)
    if not found.is_at_rest:
        aside().print(f"it goes on: kameng-merchant batch show {found.id}")
        raise typer.Exit(NOT_FINAL)


@batch_app.command("show")
def show_batch(batch: Annotated[str, typer.Argument(help="its id, or your own number")]) -> None:
    """How a batch stands."""
    with opened() as client:
        _end(_find(client, batch))


@batch_app.command("list")
def list_batches(limit: Annotated[int, typer.Option(min=1, max=100)] = 20) -> None:
    """The newest batches."""
    with opened() as client:
        items = client.batches.list(page_size=limit).page().items
    show_list(
        items,
        {
            "id": lambda b: b.id, "number": lambda b: b.merchant_batch_no, "status": lambda b: b.status, "rows": lambda b: b.progress.total,
            "succeeded": lambda b: b.progress.succeeded, "failed": lambda b: b.progress.failed + b.progress.invalid,
            "created": lambda b: b.created_at,
        },
    )  # fmt: skip


@batch_app.command()
def confirm(batch: str) -> None:
    """Let a validated batch buy."""
    with opened() as client:
        show(client.batches.confirm(_find(client, batch).id), _SHOWN)


@batch_app.command()
def cancel(batch: str) -> None:
    """Place nothing more of a batch; orders that were placed live on."""
    with opened() as client:
        show(client.batches.cancel(_find(client, batch).id), _SHOWN)


@batch_app.command()
def results(
    batch: str,
    which: Annotated[Which, typer.Argument()] = Which.failed,
    format: Format = Format.csv,
    to: Annotated[Path | None, typer.Option(help="file to write; it must not exist yet")] = None,
) -> None:
    """The rows as you sent them, with what became of each."""
    with opened() as client:
        content = client.batches.results(_find(client, batch).id, which.value, format=format.value)
    _write(content, to or Path(f"{batch}-{which.value}.{format.value}"))


@batch_app.command()
def template(
    to: Annotated[Path, typer.Option(help="file to write, .csv or .xlsx; it must not exist yet")] = Path("orders.xlsx"),
    chinese: Annotated[bool, typer.Option("--chinese", help="Chinese headings")] = False,
) -> None:
    """An empty file with the columns that `upload` understands."""
    with opened() as client:
        content = client.batches.template(format="csv" if to.suffix == ".csv" else "xlsx", locale="zh-CN" if chinese else "en")
    _write(content, to)


def _find(client: Client, batch: str) -> Batch:
    return client.batches.get(batch) if batch.startswith("bat_") else client.batches.by_number(batch)


def _write(content: bytes, to: Path) -> None:
    try:
        with to.open("xb") as file:
            file.write(content)
    except OSError as trouble:
        fail(f"{to}: {trouble.strerror}", FAILED)
    console().print(f"{to}: {len(content)} bytes")
