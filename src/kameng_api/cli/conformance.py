"""`kameng conformance`: plays the platform against a merchant's software, and leaves a report."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from kameng_api import conformance as kit
from kameng_api.cli.terminal import REFUSED, UNAVAILABLE, Printing, fail
from kameng_api.conformance.options import VECTOR_API_SECRET, VECTOR_KEY_ID, VECTOR_WEBHOOK_SECRET

conformance_app = typer.Typer()


@conformance_app.command("conformance")
def conformance(
    callback: Annotated[str, typer.Option(help="where your software receives webhooks")],
    secret: Annotated[
        str, typer.Option(envvar="KAMENG_CONFORMANCE_WEBHOOK_SECRET", help="what webhooks are signed with", show_default="the contract's vector")
    ] = VECTOR_WEBHOOK_SECRET,
    trigger: Annotated[str | None, typer.Option(help="POST here makes your software place one order; without it orders are not checked")] = None,
    probe: Annotated[str | None, typer.Option(help="GET here says what your software believes of an order; without it that is not checked")] = None,
    listen: Annotated[str, typer.Option(help="host:port of the platform in miniature: your software's base URL")] = "127.0.0.1:8091",
    key_id: Annotated[str, typer.Option(help="with which your software signs")] = VECTOR_KEY_ID,
    api_secret: Annotated[
        str, typer.Option(envvar="KAMENG_CONFORMANCE_API_SECRET", help="of that key", show_default="the contract's vector")
    ] = VECTOR_API_SECRET,
    sku: Annotated[str, typer.Option(help="of the orders asked for")] = "mobile-cn-100",
    target: Annotated[str, typer.Option(help="of the orders asked for; empty for none")] = "13800138000",
    wait: Annotated[float, typer.Option(min=0.1, help="seconds your software may take for one step")] = 20.0,
    quiet: Annotated[float, typer.Option(min=0.1, help="seconds during which nothing more may happen")] = 2.0,
    hold: Annotated[float, typer.Option(min=0.0, help="seconds before a lost answer becomes a lost connection")] = 3.0,
    only: Annotated[list[str] | None, typer.Option(help="a scenario; may be repeated")] = None,
    report: Annotated[Path | None, typer.Option(help="write the report to this HTML file")] = None,
    allow_unchecked: Annotated[bool, typer.Option("--allow-unchecked", help="status 0 although something was not checked")] = False,
) -> None:
    """Play the platform against a merchant's software. Status 0: all passed; 1: something failed; 4: something was not checked."""
    host, _, port = listen.rpartition(":")
    if not host or "/" in host or not port.isdecimal() or int(port) > 65535:
        fail("--listen: host:port, such as 127.0.0.1:8091", REFUSED)
    options = kit.Options(
        callback, secret, trigger, probe, host, int(port), key_id, api_secret, sku, target or None, 1, wait, quiet, hold, tuple(only or ())
    )
    console = Console(stderr=True, quiet=Printing.as_json, highlight=False)
    try:
        made = asyncio.run(
            kit.run(
                options,
                opened=lambda url: console.print(f"playing the platform at [bold]{url}[/bold], key {key_id}\n"),
                ended=lambda finding: kit.print_finding(console, finding),
            )
        )
    except ValueError as trouble:
        fail(str(trouble), REFUSED)
    except OSError as trouble:
        fail(f"--listen {listen}: {trouble.strerror or trouble}", UNAVAILABLE)
    kit.print_sum(console, made)
    if report is not None:
        report.write_text(kit.html_page(made), encoding="utf-8")
        console.print(f"the whole report: {report}")
    if Printing.as_json:
        sys.stdout.write(json.dumps(made.shown(), ensure_ascii=False, indent=2) + "\n")
    raise typer.Exit(made.exit_status(allow_unchecked=allow_unchecked))
