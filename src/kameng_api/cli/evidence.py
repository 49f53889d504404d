"""`kameng evidence …` and `kameng restore …`: proofs that leave the house, and the way back after a restore."""

import asyncio
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from kameng_api.cli.bench import Bench, read_id, run
from kameng_api.cli.terminal import REFUSED, UNAVAILABLE, fail, find_servers, read_settings, show, show_list
from kameng_api.evidence import actions, queries, restores
from kameng_api.evidence.anchors import names_of, read_anchors
from kameng_api.evidence.checks import check as check_chain
from kameng_api.evidence.export import export as export_chain
from kameng_api.evidence.verify import Anchor, Report
from kameng_api.evidence.verify import verify as verify_file
from kameng_api.jobs.evidence import signer_of
from kameng_api.kit.clock import wire_time
from kameng_api.kit.db import Database
from kameng_api.kit.errors import NotFound, Problem
from kameng_api.kit.ids import public_id
from kameng_api.kit.money import format_amount
from kameng_api.operators import actions as operators

evidence_app = typer.Typer(no_args_is_help=True)
restore_app = typer.Typer(no_args_is_help=True)

Anchors = Annotated[Path | None, typer.Option(help="a file of anchored heads, as the file target writes them")]
Keys = Annotated[list[str] | None, typer.Option("--key", help="a public key in hex that is trusted; may be repeated")]
_COLUMNS: Final = ("at", "channel_id", "reference", "supplier_order_no", "amount", "currency", "book_id")


@evidence_app.command("export")
def export_evidence(
    file: Path,
    first: Annotated[int, typer.Option("--from", min=1, help="block number")] = 1,
    last: Annotated[int | None, typer.Option("--to", min=1, help="block number; the newest if left out")] = None,
) -> None:
    """Write the chain, or a range of blocks, to FILE (gzip, one line per leaf)."""

    async def work(bench: Bench) -> dict[str, Any]:
        return await export_chain(bench.tx, file, first, last)

    show(run(work))


@evidence_app.command("verify")
def verify_evidence(file: Path, anchors: Anchors = None, key: Keys = None) -> None:
    """Check an export, offline and alone; status 1 when anything in it is not as it was sealed."""
    if not file.is_file():
        fail(f"{file} is no file", REFUSED)
    _tell(verify_file(file, _anchors(anchors), _keys(key)))


@evidence_app.command("check")
def check_evidence(
    first: Annotated[int, typer.Option("--from", min=1, help="block number")] = 1, anchors: Anchors = None, key: Keys = None
) -> None:
    """Compare the tables of today with the sealed chain; status 1 when they differ."""
    read, pinned = _anchors(anchors), _keys(key)

    async def work(bench: Bench) -> Report:
        return await check_chain(bench.tx, bench.keyring, first=first, anchors=read, pinned=pinned)

    _tell(run(work))


def _anchors(path: Path | None) -> list[Anchor]:
    try:
        return [] if path is None else read_anchors(path)
    except (OSError, ValueError) as trouble:
        fail(str(trouble), REFUSED)


def _keys(texts: list[str] | None) -> list[bytes]:
    try:
        keys = [bytes.fromhex(text) for text in texts or ()]
    except ValueError:
        keys = [b""]
    if any(len(key) != 32 for key in keys):
        fail("--key: 64 hex digits", REFUSED)
    return keys


def _tell(report: Report) -> None:
    show({"well": report.well, **asdict(report)})
    if not report.well:
        raise typer.Exit(1)


@evidence_app.command("status")
def evidence_status() -> None:
    """How far the chain is, and with which key it is signed here."""

    async def work(bench: Bench) -> dict[str, Any]:
        lag = await queries.lag_of(bench.tx, names_of(bench.settings))
        signer = signer_of(bench.settings, bench.keyring)
        return {
            "head": lag.head, "leaves": lag.total, "seal_lag_s": round(lag.seal_s, 1), "anchor_lag_s": round(lag.anchor_s, 1),
            "anchors": names_of(bench.settings), "key": signer.key_id, "public_key": signer.public_key.hex(),
        }  # fmt: skip

    show(run(work))


@evidence_app.command("forget")
def forget_order(merchant: str, order_id: str, environment: str = "live") -> None:
    """Erase what opens an order's commitments (target, receipt, codes). Every proof still holds; nobody can open them any more."""

    async def work(bench: Bench) -> dict[str, Any]:
        found = await bench.merchant(merchant)
        rows = await queries.books_of(bench.tx, found.merchant_id, environment)
        ulid = read_id("ord", order_id)
        erased = sum([await actions.forget(bench.tx, book, ulid) for book in rows])
        if not erased:
            raise NotFound("nothing of this order is sealed with a salt")
        await bench.audit("evidence.forgotten", order_id, salts=erased)
        return {"order_id": order_id, "salts_erased": erased}

    show(run(work, permission="money:write"))


@restore_app.command("begin")
def begin_restore() -> None:
    """Say that this database was restored: run this before any worker or API starts. As the owner role."""
    settings = find_servers(read_settings())
    if settings.database_owner_url is None:
        fail("set KAMENG_DATABASE_OWNER_URL: a restore is begun as the role that owns the schema", UNAVAILABLE)
    url = settings.database_owner_url.get_secret_value()

    async def work() -> restores.Begun:
        db = Database(url, pool_size=2)
        try:
            async with db.transaction() as tx:
                begun = await restores.begin(tx, "cli")
                await operators.audit(tx, "cli", "restore.begun", "database", {"open_orders": begun.open_orders, "xid_shift": begun.xid_shift})
                return begun
        finally:
            await db.close()

    try:
        begun = asyncio.run(work())
    except Problem as problem:
        fail(f"{problem.code}: {problem.detail}", REFUSED)
    show(
        {
            "restore": public_id("rst", begun.restore_id),
            "last_commit_at": wire_time(begun.last_commit_at),
            "open_orders": begun.open_orders,
            "xid_shift": begun.xid_shift,
        }
    )


@restore_app.command("status")
def restore_status() -> None:
    """What is open, what of it is known by now, and what suppliers charged that we do not know of."""

    async def work(bench: Bench) -> dict[str, Any]:
        standing = await restores.find_standing(bench.tx)
        open_ = await restores.find_open(bench.tx)
        if open_ is None:
            return {"standing": standing.value}
        losses = await restores.list_losses(bench.tx, open_["restore_id"])
        return {
            "standing": standing.value,
            "begun_at": wire_time(open_["begun_at"]),
            "last_commit_at": wire_time(open_["last_commit_at"]),
            "orders": await restores.states(bench.tx, open_["restore_id"]),
            "lost_purchases": len(losses),
        }

    show(run(work))


@restore_app.command("losses")
def show_losses() -> None:
    """Purchases that suppliers charged after the backup and that are not in our books."""

    async def work(bench: Bench) -> list[dict[str, Any]]:
        open_ = await restores.find_open(bench.tx)
        rows = [] if open_ is None else await restores.list_losses(bench.tx, open_["restore_id"])
        return [
            {**{c: r[c] for c in _COLUMNS if c not in ("at", "amount")}, "at": wire_time(r["at"]), "amount": format_amount(r["amount"])}
            for r in rows
        ]

    show_list(run(work), _COLUMNS)


@restore_app.command("end")
def end_restore(
    reconciled: Annotated[bool, typer.Option("--reconciled", help="every supplier's statement since the backup has been read and matched")] = False,
    whatever: Annotated[bool, typer.Option("--whatever", help="send orders that nobody could be asked about yet to a person")] = False,
) -> None:
    """Let orders go to suppliers again. What nobody can say anything about goes to a person."""
    if not reconciled:
        fail("read and match the statements since the backup first, then say --reconciled: see docs/backup.md", REFUSED)

    async def work(bench: Bench) -> dict[str, Any]:
        told: dict[str, Any] = await restores.end(bench.tx, bench.keyring, bench.actor, whatever=whatever)
        await bench.audit("restore.ended", "database", **told)
        return told

    show(run(work, permission="money:write"))
