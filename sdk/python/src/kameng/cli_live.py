"""Commands that look on: `watch`, `listen` and `sign-debug`."""

import secrets
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
from rich.console import Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from kameng import cli_profile
from kameng._sync.client import Client
from kameng.cli_listen import Bookmark, Forwarded, GaveUp, Listener, as_row, new_secret
from kameng.cli_screen import (
    FAILED,
    REFUSED,
    Chosen,
    aside,
    coloured,
    console,
    fail,
    opened,
    profile,
    show,
    table,
    told,
    write_json,
)
from kameng.cli_signing import NAMES, explain, lines_of, read_header
from kameng.errors import CursorInvalid, error_of
from kameng.models import Order
from kameng.signing import authorization, string_to_sign

_COLUMNS = {
    "number": lambda o: o.merchant_order_no, "sku": lambda o: o.sku, "target": lambda o: o.target, "amount": lambda o: o.amount,
    "status": lambda o: o.status, "": lambda o: o.substatus, "created": lambda o: o.created_at, "id": lambda o: o.id,
}  # fmt: skip


def find_order(client: Client, order: str) -> Order:
    """By id, or by the merchant's own number. Raises NotFound."""
    return client.orders.get(order) if order.startswith("ord_") else client.orders.by_number(order)


def watch(
    order: Annotated[str | None, typer.Argument(help="an id or your own number; without it the newest orders")] = None,
    every: Annotated[float, typer.Option(min=0.2, help="seconds between two looks")] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="look once")] = False,
) -> None:
    """Live: one order until it is final, or the newest orders until Ctrl-C. Status 1 when the order failed."""
    with opened() as client:
        try:
            if order is None:
                _watch_all(client, every, once)
            else:
                _watch_one(client, order, every, once)
        except KeyboardInterrupt:
            return


def _watch_all(client: Client, every_s: float, once: bool) -> None:
    def look() -> Any:
        return client.orders.list(page_size=20).page().items

    if Chosen.as_json or once:
        items = look()
        write_json({"items": items}) if Chosen.as_json else console().print(table(items, _COLUMNS))
        return
    with Live(table(look(), _COLUMNS), console=console(), auto_refresh=False) as live:
        while True:
            time.sleep(every_s)
            live.update(table(look(), _COLUMNS), refresh=True)


def _watch_one(client: Client, name: str, every_s: float, once: bool) -> None:
    found = find_order(client, name)
    if not Chosen.as_json:
        with Live(_picture(client, found), console=console(), auto_refresh=False) as live:
            while not (found.is_final or once):
                time.sleep(every_s)
                found = client.orders.get(found.id)
                live.update(_picture(client, found), refresh=True)
    else:
        version = 0
        while True:
            if found.version > version:
                write_json(found, line=True)
                version = found.version
            if found.is_final or once:
                break
            time.sleep(every_s)
            found = client.orders.get(found.id)
    if found.status in ("failed", "cancelled"):
        raise typer.Exit(FAILED)


def _picture(client: Client, found: Order) -> Group:
    head = Text.from_markup(
        f"[bold]{escape(found.merchant_order_no)}[/bold] {escape(found.sku)} × {found.quantity}  {found.amount} {found.currency}  "
        f"{coloured(found.status)} {coloured(found.substatus)}"
    )
    steps = table(client.orders.timeline(found.id), {"at": lambda s: s.at, "step": lambda s: s.step, "detail": lambda s: s.detail})
    return Group(head, steps)


def listen(
    forward_to: Annotated[str, typer.Option(help="where your program receives webhooks, such as http://localhost:8000/hooks")],
    secret: Annotated[str | None, typer.Option(envvar="KAMENG_LISTEN_SECRET", help="whsec_…; without it this machine's own")] = None,
    type: Annotated[str | None, typer.Option(help="only this event type")] = None,
    after: Annotated[str | None, typer.Option(help="begin behind this event")] = None,
    from_start: Annotated[bool, typer.Option("--from-start", help="begin with the oldest event kept")] = False,
    every: Annotated[float, typer.Option(min=0.2, help="seconds between two looks")] = 1.0,
    attempts: Annotated[int, typer.Option(min=1, help="per event, waiting 1, 2, 4 … 30 s between them")] = 8,
    skip_failed: Annotated[bool, typer.Option("--skip-failed", help="go on behind an event that is never taken, instead of ending")] = False,
    once: Annotated[bool, typer.Option("--once", help="end when there is nothing more")] = False,
) -> None:
    """Bring events to a program on this machine as signed webhooks; no tunnel. The next run goes on behind the last event that was taken."""
    if not forward_to.startswith(("http://", "https://")):
        fail("--forward-to: an address with http:// or https://", REFUSED)
    with opened() as client:
        known = profile()
        bookmark = Bookmark(known.base_url, known.key_id, forward_to)
        listener = Listener(
            client, forward_to, _listening_secret(known, secret), bookmark, _tell, event_type=type, attempts=attempts, skip_failed=skip_failed
        )
        try:
            if after is not None:
                bookmark.write(after)
            elif from_start:
                bookmark.path.unlink(missing_ok=True)
            elif bookmark.read() is None:
                aside().print(f"first run for this address: {listener.skip_to_the_end()} older events are passed over (--from-start brings them)")
            aside().print(f"forwarding to {escape(forward_to)}; Ctrl-C ends it, the next run goes on from there")
            listener.run(once=once, every_s=every)
        except KeyboardInterrupt:
            return
        except GaveUp as trouble:
            fail(f"{trouble}; repair your program and run this again, or add --skip-failed", FAILED)
        except CursorInvalid:
            fail("the event to go on from is no longer on record (kept for 90 days): use --from-start", FAILED)


def _listening_secret(known: cli_profile.Profile, given: str | None) -> str:
    """The given one, else this machine's own, made once. It only ever signs what goes to --forward-to, and its holder needs to see it."""
    if given is not None:
        return given
    if known.listen_secret is not None:
        own = known.listen_secret
    else:
        own = new_secret()
        try:
            cli_profile.store(Chosen.profile, replace(cli_profile.load(Chosen.profile), listen_secret=own))
        except cli_profile.ProfileTrouble:
            aside().print("the key comes from the environment: this secret is for this run only (KAMENG_LISTEN_SECRET keeps one)")
    aside().print(f"webhook secret of your program for this: [bold]{own}[/bold]")
    return own


def _tell(forwarded: Forwarded) -> None:
    if Chosen.as_json:
        write_json(as_row(forwarded), line=True)
        return
    said = f"[green]{forwarded.status}[/green]" if forwarded.taken else f"[red]{forwarded.status or forwarded.trouble}[/red]"
    again = f" (attempt {forwarded.attempt})" if forwarded.attempt > 1 else ""
    console().print(f"{time.strftime('%H:%M:%S')}  {forwarded.event_type:<28} {forwarded.event_id}  {said}  {forwarded.took_s * 1000:.0f} ms{again}")


def sign_debug(
    body: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, allow_dash=True, help="the bytes of the body; - for standard input")
    ] = None,
    header: Annotated[str | None, typer.Option("--authorization", help="a header that your own software made: what is wrong with it?")] = None,
    method: Annotated[str, typer.Option(help="with --authorization: of that request")] = "POST",
    target: Annotated[str, typer.Option(help="with --authorization: path and query of that request")] = "/v1/orders",
    query: Annotated[str, typer.Option(help="without --authorization: sent along")] = "",
) -> None:
    """The seven lines of a request, ours beside the house's; or the mistake behind a signature that was refused. Status 1 when they differ."""
    content = b"" if body is None else sys.stdin.buffer.read() if str(body) == "-" else body.read_bytes()
    if header is not None:
        _explain(header, method, target, content)
        return
    with opened() as client:
        _compare(client, content, query)


def _explain(header: str, method: str, target: str, body: bytes) -> None:
    with told():
        known = profile()
        given = read_header(header)
        if known.secret is None:
            fail("the profile has no HMAC secret", REFUSED)
        if given.key_id != known.key_id:
            fail(f"the header is signed by {given.key_id}, the profile holds {known.key_id}", FAILED)
        mistake = explain(given, known.secret, method, target, body)
    text = string_to_sign(given.scheme, given.timestamp, given.nonce, given.key_id, method, target, body)
    off_s = given.timestamp - int(time.time())
    if Chosen.as_json:
        write_json({"lines": lines_of(text), "bytes": len(text), "signature_fits": mistake is None, "mistake": mistake, "clock_off_s": off_s})
    else:
        show(lines_of(text), NAMES)
        console().print(f"{len(text)} bytes, each line ended by one LF, the last one too; the timestamp is {off_s:+d} s from this machine's clock")
        console().print("[green]the signature fits[/green]" if mistake is None else f"[red]{escape(mistake)}[/red]")
    if mistake is not None:
        raise typer.Exit(FAILED)


def _compare(client: Client, body: bytes, query: str) -> None:
    """One signed request to /v1/test/signature by hand, because its nonce and timestamp must be known here."""
    known = profile()
    path = httpx.URL(known.base_url).path.rstrip("/") + "/v1/test/signature" + (f"?{query}" if query else "")
    timestamp, nonce = client.clock.now(), secrets.token_hex(16)
    ours = string_to_sign(client.key.scheme, timestamp, nonce, client.key.key_id, "POST", path, body)
    headers = {"Authorization": authorization(client.key, "POST", path, body, timestamp=timestamp, nonce=nonce), "Content-Type": "application/json"}
    url = httpx.URL(known.base_url).copy_with(raw_path=path.encode("ascii"))
    try:
        answer = httpx.post(url, content=body, headers=headers, timeout=30.0)
    except httpx.HTTPError as trouble:
        fail(f"no answer: {type(trouble).__name__}", FAILED)
    if answer.status_code != 200:
        document = answer.json() if "json" in answer.headers.get("content-type", "") else {}
        if client.environment == "live" and answer.status_code == 404:
            fail("the house shows its string to sign to test keys only", FAILED)
        raise error_of(answer.status_code, document)
    theirs = answer.json()
    _show_both(lines_of(ours), theirs["lines"], len(ours), theirs["bytes"], bool(theirs["signature_valid"]))


def _show_both(ours: dict[str, str], theirs: dict[str, str], our_bytes: int, their_bytes: int, valid: bool) -> None:
    same = {name: ours.get(name) == theirs.get(name) for name in NAMES}
    if Chosen.as_json:
        write_json({"ours": {name: ours[name] for name in NAMES}, "theirs": theirs, "same": same, "signature_valid": valid})
    else:
        made = Table(box=None, pad_edge=False, header_style="dim")
        for name in ("", "line", "here", "at the house"):
            made.add_column(name, overflow="fold")
        for name in NAMES:
            mark = "[green]✔[/green]" if same[name] else "[red]✘[/red]"
            made.add_row(mark, name, escape(ours[name]), "the same" if same[name] else f"[red]{escape(str(theirs.get(name)))}[/red]")
        console().print(made)
        verdict = "[green]valid[/green]" if valid else "[red]not valid[/red]"
        console().print(f"{our_bytes} bytes here, {their_bytes} at the house; the signature is {verdict}")
    if not (valid and all(same.values())):
        raise typer.Exit(FAILED)
