"""`kameng statement …` and `kameng book …`: a day as it was told, whether a file is genuine, and books that are stopped."""

import base64
import hashlib
import json
import sys
from datetime import date
from pathlib import Path
from typing import Annotated, Any

import typer

from kameng_api.cli.bench import Bench, run
from kameng_api.cli.terminal import REFUSED, fail, show, show_list
from kameng_api.kit.clock import wire_time, wire_time_or_none
from kameng_api.kit.errors import FieldError, Invalid
from kameng_api.ledger import stops
from kameng_api.ledger.stops import Stop
from kameng_api.merchants import actions as merchant_actions
from kameng_api.merchants import queries as merchants
from kameng_api.statements import actions, queries
from kameng_api.statements.queries import Statement
from kameng_api.statements.rules import FORMATS, NotGenuine, check_file, check_signature

statement_app = typer.Typer(no_args_is_help=True)
book_app = typer.Typer(no_args_is_help=True)

Environment = Annotated[str, typer.Option("--environment", "-e", help="live or test")]
_READ_AT_ONCE = 1 << 20
_PIECES_AT_ONCE = 16


@statement_app.command("list")
def list_statements(merchant: str, environment: Environment = "live") -> None:
    """The newest hundred days of a merchant."""

    async def work(bench: Bench) -> list[dict[str, Any]]:
        owner = await bench.merchant(merchant)
        book_id = await merchants.get_book(bench.tx, owner.merchant_id, environment)
        return [actions.view(s) for s in await queries.list_statements(bench.tx, book_id, limit=100)]

    show_list(run(work), ("date", "currency", "opening", "movements_count", "closing", "key_id", "ready_at"))


@statement_app.command("get")
def get_statement(
    merchant: str,
    day: Annotated[str, typer.Argument(help="such as 2026-11-21")],
    out: Annotated[Path, typer.Option(help="a folder")] = Path(),
    format_: Annotated[str, typer.Option("--format", help="csv, xlsx or json")] = "csv",
    environment: Environment = "live",
) -> None:
    """Write a day's file, and beside it its signed manifest (`.manifest.json`)."""
    if format_ not in FORMATS:
        raise typer.BadParameter(" | ".join(FORMATS))

    async def work(bench: Bench) -> dict[str, Any]:
        owner = await bench.merchant(merchant)
        book_id = await merchants.get_book(bench.tx, owner.merchant_id, environment)
        statement = await queries.get_statement(bench.tx, book_id, owner.currency, _day(day))
        path = out / f"statement-{statement.day}-{statement.currency}-{environment}.{format_}"
        await _write(bench, statement, format_, path)
        return {"file": str(path), "manifest": str(_manifest_beside(path)), **actions.view(statement)}

    show(run(work))


async def _write(bench: Bench, statement: Statement, format_: str, path: Path) -> None:
    first = 0
    with path.open("wb") as file:
        while pieces := await queries.list_pieces(bench.tx, statement, format_, first, _PIECES_AT_ONCE):
            file.writelines(pieces)
            first += len(pieces)
    manifest = {name: base64.b64encode(getattr(statement, name)).decode() for name in ("manifest", "signature")}
    _manifest_beside(path).write_text(json.dumps({**manifest, "algorithm": "ed25519", "key_id": statement.key_id}), encoding="utf-8")


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise Invalid("a day is written 2026-11-21", errors=[FieldError("/date", "format", "such as 2026-11-21")]) from None


def _manifest_beside(path: Path) -> Path:
    return path.with_name(path.name + ".manifest.json")


@statement_app.command("verify")
def verify(
    file: Path,
    manifest: Annotated[Path | None, typer.Option(help="as `?format=manifest` answered; else FILE.manifest.json")] = None,
    keys: Annotated[Path | None, typer.Option(help="as `GET /keys` answered")] = None,
    public_key: Annotated[str | None, typer.Option(help="base64 of the key's 32 bytes, instead of --keys")] = None,
) -> None:
    """Is this file, byte for byte, what was signed? Works offline; status 1 when it is not."""
    try:
        sealed = json.loads((manifest or _manifest_beside(file)).read_bytes())
        signed, signature = (base64.b64decode(sealed[name], validate=True) for name in ("manifest", "signature"))
        content = check_signature(signed, signature, _public_key(sealed["key_id"], keys, public_key))
        if content["key_id"] != sealed["key_id"]:
            raise NotGenuine("the manifest names another key")
        sha256, size = _digest(file)
        format_ = check_file(content, sha256, size)
    except NotGenuine as trouble:
        sys.stderr.write(f"not genuine: {trouble}\n")
        raise typer.Exit(1) from None
    except (OSError, ValueError, KeyError, TypeError) as trouble:
        fail(f"cannot be checked: {type(trouble).__name__}: {trouble}", REFUSED)
    kept = ("merchant_id", "environment", "date", "timezone", "currency", "opening", "movements_count", "closing", "key_id")
    show({"genuine": True, "format": format_, "sha256": sha256, **{name: content[name] for name in kept}})


def _public_key(key_id: str, keys: Path | None, public_key: str | None) -> bytes:
    if public_key is not None:
        return base64.b64decode(public_key, validate=True)
    if keys is None:
        raise ValueError("give --keys (what GET /keys answered) or --public-key: a file cannot vouch for itself")
    for key in json.loads(keys.read_bytes())["keys"]:
        if (key["key_id"], key["algorithm"]) == (key_id, "ed25519"):
            return base64.b64decode(key["public_key"], validate=True)
    raise NotGenuine(f"the key {key_id} is not in the list of keys")


def _digest(file: Path) -> tuple[str, int]:
    whole, size = hashlib.sha256(), 0
    with file.open("rb") as opened:
        while piece := opened.read(_READ_AT_ONCE):
            whole.update(piece)
            size += len(piece)
    return whole.hexdigest(), size


@statement_app.command("zone")
def set_zone(merchant: str, timezone: Annotated[str, typer.Argument(help="such as Asia/Shanghai")]) -> None:
    """Say when a merchant's business day ends, from the next statement on."""

    async def work(bench: Bench) -> dict[str, Any]:
        owner = await bench.merchant(merchant)
        changed = await merchant_actions.set_timezone(bench.tx, owner.merchant_id, timezone)
        await bench.audit("merchant.timezone_set", owner.name, timezone=timezone)
        return {"merchant": changed.name, "timezone": changed.timezone}

    show(run(work, permission="merchants:write"))


def _stop(stop: Stop) -> dict[str, Any]:
    return {
        "book_id": stop.book_id, "environment": stop.environment, "invariant": stop.invariant, "reason": stop.reason,
        "stopped_at": wire_time(stop.stopped_at), "lift_asked_by": stop.lift_asked_by, "note": stop.note, "lifted_by": stop.lifted_by,
        "lifted_at": wire_time_or_none(stop.lifted_at),
    }  # fmt: skip


@book_app.command("stopped")
def list_stopped(everything: Annotated[bool, typer.Option("--all", help="lifted ones too")] = False) -> None:
    """Books in which nothing is posted."""

    async def work(bench: Bench) -> list[dict[str, Any]]:
        return [_stop(s) for s in await stops.list_stops(bench.tx, only_open=not everything)]

    show_list(run(work), ("book_id", "environment", "invariant", "reason", "stopped_at", "lift_asked_by", "lifted_by"))


@book_app.command("stop")
def stop_book(book_id: int, note: Annotated[str, typer.Option(help="what you have seen")]) -> None:
    """Stop a book's postings on a suspicion of your own; it is lifted as any other stop."""

    async def work(bench: Bench) -> dict[str, Any]:
        stop = await stops.stop_by_hand(bench.tx, book_id, note, bench.actor)
        await bench.audit("books.stopped", f"book:{book_id}", note=note)
        return _stop(stop)

    show(run(work, permission="books:lift"))


@book_app.command("lift")
def lift(book_id: int, note: Annotated[str, typer.Option(help="what was wrong, and what was done")]) -> None:
    """Ask that postings go on, or agree to it: real money needs two people."""

    async def work(bench: Bench) -> dict[str, Any]:
        stop = await stops.lift(bench.tx, book_id, note, bench.actor)
        await bench.audit("books.lifted" if stop.lifted_at else "books.lift_asked", f"book:{book_id}", note=note, invariant=stop.invariant)
        return _stop(stop)

    show(run(work, permission="books:lift"))
