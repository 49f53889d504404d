"""`kameng supplier …`: the supplier desk from the command line, and the skeleton of a new supplier."""

import asyncio
import json
import sys
from contextlib import redirect_stdout
from datetime import date, timedelta
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import typer

from kameng_api.api.admin import cancelling
from kameng_api.api.admin import supplier_shapes as shown
from kameng_api.api.admin.supplier_probes import probe_channel, probe_settings
from kameng_api.catalog import actions as catalog
from kameng_api.catalog import queries as channels
from kameng_api.cli.bench import Bench, read_amount, read_id, run
from kameng_api.cli.scaffold import find_checkout, scaffold
from kameng_api.cli.terminal import REFUSED, fail, read_settings, show, show_list
from kameng_api.kit.clock import utc_now
from kameng_api.kit.errors import FieldError, Invalid, NotFound, Problem
from kameng_api.operators import suppliers
from kameng_api.suppliers import registry
from kameng_api.suppliers.desk import actions, queries
from kameng_api.suppliers.desk.rules import Document, Person

supplier_app = typer.Typer(no_args_is_help=True)
document_app = typer.Typer(help="Qualification documents (资质).", no_args_is_help=True)
contact_app = typer.Typer(help="Whom to ask there.", no_args_is_help=True)
note_app = typer.Typer(help="What people wrote down.", no_args_is_help=True)
supplier_app.add_typer(document_app, name="document")
supplier_app.add_typer(contact_app, name="contact")
supplier_app.add_typer(note_app, name="note")

_PROBE_S = 8.0
"""A command holds a transaction while it asks: it waits for no supplier longer than this."""


def _amount(text: str | None) -> int | None:
    return None if text is None else read_amount(text)


def _day(pointer: str, text: str | None) -> date | None:
    try:
        return None if text is None else date.fromisoformat(text)
    except ValueError:
        raise Invalid("not a date", errors=[FieldError(pointer, "format", "a date such as 2026-12-31")]) from None


@supplier_app.command("new")
def new_supplier(
    name: Annotated[str, typer.Argument(help="of the folder: a–z 0–9 _")],
    title: Annotated[str | None, typer.Option(help="the vendor's own name, as the desk shows it")] = None,
) -> None:
    """Write the skeleton of an adapter and of its twin into this source tree. Never overwrites."""
    try:
        root = find_checkout()
        written = scaffold(root, name, title or name)
    except Problem as problem:
        for wrong in problem.errors:
            sys.stderr.write(f"{wrong.pointer}: {wrong.detail}\n")
        fail(problem.detail, REFUSED)
    paths = [str(path.relative_to(root)) for path in written]
    show({"written": paths, "next": f"read {paths[0].rpartition('/')[0]}/README.md; then: pytest tests/suppliers -k {name}"})


@supplier_app.command("list")
def list_suppliers(environment: Annotated[str | None, typer.Option("--environment", "-e")] = None) -> None:
    """Every channel: does it take orders and if not why, wallet and for how long, doubts, papers."""

    async def work(bench: Bench) -> list[dict[str, Any]]:
        now = utc_now()
        return [shown.overview(one, now) for one in await suppliers.list_overviews(bench.tx, now, environment=environment)]

    rows = [
        {
            **one,
            "balance": one["wallet"]["balance"],
            "empty_in_h": None if one["wallet"]["empty_in_s"] is None else f"{one['wallet']['empty_in_s'] / 3600:.1f}",
            "unknown": str(one["unknowns"]["count"]),
        }
        for one in run(work)
    ]
    show_list(rows, ("id", "adapter", "environment", "takes_orders", "why_not", "balance", "empty_in_h", "unknown"))


@supplier_app.command("show")
def show_supplier(channel_id: str) -> None:
    """One of them, with its papers and when its statements come."""

    async def work(bench: Bench) -> dict[str, Any]:
        now = utc_now()
        [found] = await suppliers.list_overviews(bench.tx, now, channel_id=channel_id)
        papers = await queries.list_documents(bench.tx, channel_id)
        schedules = await suppliers.list_schedules(bench.tx, channel_id)
        return {
            **shown.overview(found, now),
            "papers": [shown.document(one, now) for one in papers],
            "statements": [shown.schedule(row, now) for row in schedules],
        }

    show(run(work))


@supplier_app.command("form")
def show_form(adapter: str) -> None:
    """What must be filled in to connect a channel of this adapter."""
    try:
        form = shown.form(registry.get_adapter(adapter))
    except registry.AdapterNotFound as error:
        fail(str(error), REFUSED)
    rows = [{**one, "title": f"{one['title']['en']} / {one['title']['zh']}"} for one in form["fields"]]
    show_list(rows, ("name", "title", "kind", "required", "default"))


@supplier_app.command("try")
def try_supplier(
    channel_id: Annotated[str | None, typer.Argument(help="a channel as it is saved")] = None,
    adapter: Annotated[str | None, typer.Option(help="instead of a channel: settings that nobody has saved")] = None,
    environment: Annotated[str, typer.Option("--environment", "-e", help="with --adapter")] = "test",
    settings: Annotated[Path | None, typer.Option(help="with --adapter: JSON file, - for standard input")] = None,
) -> None:
    """Does the connection work? Asks for the balance and one page of products; buys nothing. Status 1 when it does not work."""
    if (channel_id is None) == (adapter is None):
        fail("a channel, or --adapter with --settings", REFUSED)
    if adapter is not None:
        report = _try_settings(adapter, environment, settings)
    else:

        async def work(bench: Bench) -> dict[str, Any]:
            assert channel_id is not None
            channel = await channels.get_channel(bench.tx, channel_id)
            found = await probe_channel(channel, bench.keyring, min(bench.settings.supplier_timeout_s, _PROBE_S))
            await bench.audit("channel.tried", f"channel:{channel_id}", works=found.works, found=[step.found.value for step in found.steps])
            return shown.report(found)

        with redirect_stdout(sys.stderr):  # what is logged on the way is no part of the answer
            report = run(work, permission="channels:switch")
    show(report)
    if not report["works"]:
        raise typer.Exit(1)


def _try_settings(adapter: str, environment: str, source: Path | None) -> dict[str, Any]:
    """Needs no database: nothing is kept."""
    if source is None:
        fail("--settings is missing", REFUSED)
    try:
        given = json.loads(sys.stdin.read() if str(source) == "-" else source.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        fail("--settings is no JSON document", REFUSED)
    try:
        timeout_s = min(read_settings().supplier_timeout_s, _PROBE_S)
        with redirect_stdout(sys.stderr):
            return shown.report(asyncio.run(probe_settings(adapter, environment, given, timeout_s)))
    except Problem as problem:
        for wrong in problem.errors:
            sys.stderr.write(f"{wrong.pointer}: {wrong.detail}\n")
        fail(problem.detail, REFUSED)


@supplier_app.command("wallet")
def show_wallet(channel_id: str, days: Annotated[int, typer.Option(min=1, max=40)] = 1) -> None:
    """What is in it, how long it lasts, and what it was charged by the hour."""

    async def work(bench: Bench) -> dict[str, Any]:
        now = utc_now()
        channel = await channels.get_channel(bench.tx, channel_id)
        wallets = await suppliers.read_wallets(bench.tx, [channel])
        since = now - timedelta(days=days)
        points = await suppliers.list_balances(bench.tx, channel_id, since, now, timedelta(hours=1))
        burns = await queries.list_burns(bench.tx, channel_id, since, now)
        return {
            **shown.wallet(channel, wallets[channel_id], now),
            "balances": [shown.balance_point(row) for row in points],
            "charges": [shown.burn(row) for row in burns],
        }

    show(run(work))


@supplier_app.command("wallet-terms")
def set_wallet_terms(
    channel_id: str,
    low_at: Annotated[str | None, typer.Option(help="alarm below it")] = None,
    floor: Annotated[str | None, typer.Option(help="no new orders below it")] = None,
    resume_at: Annotated[str | None, typer.Option(help="and then none until it holds so much again")] = None,
    hours_left: Annotated[int | None, typer.Option(help="alarm when it lasts for less")] = None,
) -> None:
    """When somebody is told, and when the channel pauses. All at once: what is left out is off."""

    async def work(bench: Bench) -> dict[str, Any]:
        await catalog.set_wallet_terms(
            bench.tx, channel_id, low_at=_amount(low_at), floor=_amount(floor), resume_at=_amount(resume_at), hours_left=hours_left
        )
        channel = await channels.get_channel(bench.tx, channel_id)
        told = shown.wallet(channel, (await suppliers.read_wallets(bench.tx, [channel]))[channel_id], utc_now())
        terms = {name: told[name] for name in ("low_at", "floor", "resume_at", "hours_left")}
        await bench.audit("channel.wallet_terms_set", f"channel:{channel_id}", **terms)
        return told

    show(run(work, permission="channels:write"))


@supplier_app.command("ask-to-cancel")
def ask_to_cancel(order_id: str, attempt_id: str, reason: Annotated[str, typer.Option(help="why, for whoever asks")]) -> None:
    """Ask the supplier to stop an order it works on. Only its final no frees the units; everything else is looked up, as ever."""
    order, attempt = read_id_or_end("ord", order_id), read_id_or_end("att", attempt_id)

    async def find(bench: Bench) -> tuple[cancelling.Asked, Any, float]:
        return await cancelling.find_asked(bench.tx, order, attempt), bench.keyring, bench.settings.supplier_timeout_s

    asked, keyring, timeout_s = run(find, permission="reviews:write")
    try:
        with redirect_stdout(sys.stderr):
            answer, supplier = asyncio.run(cancelling.ask(asked, keyring, timeout_s))
    except Problem as problem:
        fail(problem.detail, REFUSED)

    async def work(bench: Bench) -> dict[str, Any]:
        word = await cancelling.record(bench.tx, bench.keyring, asked, answer, supplier)
        channel_id = asked.channel.channel_id
        await bench.audit("attempt.cancel_asked", order_id, attempt=attempt_id, channel=channel_id, outcome=word, reason=reason)
        return {"order_id": order_id, "attempt_id": attempt_id, "answer": word}

    show(run(work, permission="reviews:write"))


def read_id_or_end(prefix: str, text: str) -> UUID:
    """As `read_id`, before there is a transaction."""
    try:
        found: UUID = read_id(prefix, text)
    except NotFound as problem:
        fail(problem.detail, REFUSED)
    return found


# ---- papers ----------------------------------------------------------------------------------------------------------


@document_app.command("list")
def list_documents(channel_id: str, withdrawn: bool = False) -> None:
    """Those that count; the first to end first."""

    async def work(bench: Bench) -> list[dict[str, Any]]:
        await channels.get_channel(bench.tx, channel_id)
        return [shown.document(one, utc_now()) for one in await queries.list_documents(bench.tx, channel_id, withdrawn=withdrawn)]

    show_list(run(work), ("id", "kind", "number", "valid_until", "required", "standing"))


@document_app.command("add")
def add_document(
    channel_id: str,
    kind: str,
    number: str = "",
    issuer: str = "",
    valid_from: str | None = None,
    valid_until: Annotated[str | None, typer.Option(help="its last day")] = None,
    remind_days: int = 30,
    required: Annotated[bool, typer.Option(help="no new orders after its last day")] = False,
    url: str | None = None,
    note: str = "",
    file: Annotated[Path | None, typer.Option(help="its scan: PDF, JPEG, PNG or WebP")] = None,
) -> None:
    """Keep a document, with its scan if there is one."""

    async def work(bench: Bench) -> dict[str, Any]:
        document = await actions.add_document(
            bench.tx,
            Document(
                UUID(int=0), channel_id, kind, number, issuer, _day("/valid_from", valid_from), _day("/valid_until", valid_until), remind_days,
                required, url, note, created_by=bench.actor,
            ),
        )  # fmt: skip
        if file is not None:
            types = {".pdf": "application/pdf", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".png": "image/png", ".webp": "image/webp"}
            content, kind_of_file = await asyncio.to_thread(file.read_bytes), types.get(file.suffix.lower(), "application/octet-stream")
            document, _ = await actions.store_file(bench.tx, bench.keyring, channel_id, document.document_id, content, file.name, kind_of_file)
        told = shown.document(document, utc_now())
        facts = {name: told[name] for name in ("id", "kind", "number", "issuer", "valid_from", "valid_until", "remind_days", "required", "file")}
        await bench.audit("supplier.document_added", f"channel:{channel_id}", **facts)
        return told

    show(run(work, permission="suppliers:write"))


@document_app.command("withdraw")
def withdraw_document(channel_id: str, document_id: str) -> None:
    """It counts no more; it stays to be read."""

    async def work(bench: Bench) -> dict[str, Any]:
        document = await actions.withdraw_document(bench.tx, channel_id, read_id(shown.DOCUMENT_PREFIX, document_id), bench.actor)
        await bench.audit("supplier.document_withdrawn", f"channel:{channel_id}", document=document_id)
        return shown.document(document, utc_now())

    show(run(work, permission="suppliers:write"))


# ---- contacts and notes ----------------------------------------------------------------------------------------------


@contact_app.command("list")
def list_contacts(channel_id: str) -> None:
    """By role, with names and numbers; that they were read is written down."""

    async def work(bench: Bench) -> list[dict[str, Any]]:
        await channels.get_channel(bench.tx, channel_id)
        found = await queries.list_contacts(bench.tx, channel_id, bench.keyring)
        if found:
            await bench.audit("supplier.contacts_read", f"channel:{channel_id}", count=len(found))
        return [shown.contact(one) for one in found]

    show_list(run(work, permission="contacts:read"), ("id", "role", "person", "hours"))


@contact_app.command("set")
def set_contact(
    channel_id: str,
    role: str,
    person: Annotated[Path, typer.Option(help='JSON file with {"name","phone","im","email"}, - for standard input: not in a shell\'s history')],
    hours: str = "",
    contact: Annotated[str | None, typer.Option(help="an old one, said anew")] = None,
) -> None:
    """Keep a contact; who it is, is sealed."""
    try:
        who = Person(**json.loads(sys.stdin.read() if str(person) == "-" else person.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        fail('--person: {"name","phone","im","email"}', REFUSED)

    async def work(bench: Bench) -> dict[str, Any]:
        contact_id = None if contact is None else read_id(shown.CONTACT_PREFIX, contact)
        kept = await actions.put_contact(bench.tx, bench.keyring, channel_id, contact_id, role=role, hours=hours, person=who, by=bench.actor)
        told = shown.contact(kept)
        action = "supplier.contact_added" if contact_id is None else "supplier.contact_changed"
        await bench.audit(action, f"channel:{channel_id}", contact=told["id"], role=role)
        return told

    show(run(work, permission="suppliers:write"))


@contact_app.command("remove")
def remove_contact(channel_id: str, contact_id: str) -> None:
    """Gone for good."""

    async def work(bench: Bench) -> dict[str, Any]:
        gone = await actions.remove_contact(bench.tx, channel_id, read_id(shown.CONTACT_PREFIX, contact_id))
        await bench.audit("supplier.contact_removed", f"channel:{channel_id}", contact=contact_id, role=gone.role)
        return shown.contact(gone)

    show(run(work, permission="suppliers:write"))


@note_app.command("add")
def add_note(channel_id: str, text: str) -> None:
    """Write something down."""

    async def work(bench: Bench) -> dict[str, Any]:
        row = await actions.add_note(bench.tx, channel_id, text, bench.actor)
        await bench.audit("supplier.note_added", f"channel:{channel_id}")
        return shown.note(row)

    show(run(work, permission="suppliers:write"))


@note_app.command("list")
def list_notes(channel_id: str, limit: Annotated[int, typer.Option(min=1, max=1000)] = 100) -> None:
    """Newest first."""

    async def work(bench: Bench) -> list[dict[str, Any]]:
        await channels.get_channel(bench.tx, channel_id)
        return [shown.note(row) for row in await queries.list_notes(bench.tx, channel_id, before=None, limit=limit)]

    show_list(run(work), ("at", "author", "text"))
