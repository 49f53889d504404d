"""`kameng-merchant`: a merchant's counter at the terminal. Needs the extra `cli`: pip install 'kameng[cli]'."""

import re
import secrets
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from enum import Enum
from pathlib import Path
from typing import Annotated

try:
    import typer
except ImportError:
    raise SystemExit("kameng-merchant needs the extra `cli`: pip install 'kameng[cli]'") from None

from kameng import cli_profile
from kameng.cli_batches import batch_app
from kameng.cli_live import find_order, listen, sign_debug, watch
from kameng.cli_profile import Profile
from kameng.cli_screen import (
    FAILED,
    NOT_FINAL,
    REFUSED,
    UNKNOWN,
    Chosen,
    aside,
    fail,
    opened,
    profile,
    show,
    show_list,
    told,
)
from kameng.errors import ApiError, BrokenAnswer, KamengError, NoAnswer, NotFinal, ServerError

app = typer.Typer(help="A merchant's counter at the terminal.", no_args_is_help=True, pretty_exceptions_enable=False)
app.add_typer(batch_app, name="batch")
app.command()(watch)
app.command()(listen)
app.command("sign-debug")(sign_debug)

_ORDER = (
    "id", "merchant_order_no", "status", "substatus", "sku", "quantity", "delivered_quantity", "target", "amount", "currency", "refunded_amount",
    "failure", "delivery", "codes_available", "created_at", "completed_at",
)  # fmt: skip
_NUMBER = re.compile(r"[A-Za-z0-9_-]{1,64}")


class Format(str, Enum):
    """Of a statement."""

    csv = "csv"
    xlsx = "xlsx"
    json = "json"


@app.callback()
def choose(
    profile: Annotated[str | None, typer.Option(envvar="KAMENG_MERCHANT_PROFILE", help="which login; else KAMENG_KEY_ID, else `default`")] = None,
    json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
    deadline: Annotated[float, typer.Option(min=1, help="seconds for one call with all its repetitions")] = 60.0,
) -> None:
    """A merchant's counter at the terminal. Secrets are never printed and never taken from the command line."""
    Chosen.profile, Chosen.named = profile or "default", profile is not None
    Chosen.as_json, Chosen.deadline_s = json, deadline


@app.command()
def login(
    url: Annotated[str, typer.Option(prompt="address of the house", help="https://hub.example")],
    key_id: Annotated[str, typer.Option(prompt="key id", help="ak_test_… or ak_live_…")],
    private_key_file: Annotated[Path | None, typer.Option(exists=True, dir_okay=False, help="Ed25519: base64 of 32 bytes")] = None,
    stdin: Annotated[bool, typer.Option("--stdin", help="the secret is the first line of standard input")] = False,
    check: Annotated[bool, typer.Option("--check/--no-check", help="ask the house once whether the key works")] = True,
) -> None:
    """Keep a key in a file that only you can read. The secret is asked for, never an argument: arguments stand in the shell's history."""
    with told():
        address = cli_profile.check_url(url)
        private = secret = None
        if private_key_file is not None:
            private = private_key_file.read_text(encoding="ascii").strip()
        elif stdin:
            secret = sys.stdin.readline().strip()
        else:
            secret = typer.prompt("secret", hide_input=True, err=True).strip()
        made = Profile(address, key_id.strip(), secret, private)
        with made.client() as client:
            balance = client.balance() if check else None
        cli_profile.store(Chosen.profile, made)
    said = f"{made.key_id} ({client.environment}) at {address} is kept in {cli_profile.place()}"
    aside().print(said if balance is None else f"{said}; available {balance.available} {balance.currency}")


@app.command()
def logout() -> None:
    """Forget the key of this profile. The key itself stays valid: revoke it at the house if need be."""
    with told():
        aside().print("forgotten" if cli_profile.forget(Chosen.profile) else "there was none")


@app.command()
def whoami() -> None:
    """Which key, of which house, and what can be spent."""
    with opened() as client:
        known, balance = profile(), client.balance()
    show(
        {
            "base_url": known.base_url, "key_id": known.key_id, "environment": client.environment, "available": balance.available,
            "held": balance.held, "credit_limit": balance.credit_limit, "currency": balance.currency,
        },
    )  # fmt: skip


@app.command()
def products(search: Annotated[str, typer.Argument(help="part of a SKU or name")] = "") -> None:
    """What you may buy, at your prices."""
    with opened() as client:
        found = [p for p in client.products.list() if search.lower() in p.sku.lower() or search.lower() in p.name.lower()]
    show_list(
        found,
        {
            "sku": lambda p: p.sku, "name": lambda p: p.name, "type": lambda p: p.product_type,
            "price": lambda p: p.unit_price if p.unit_price is not None else f"{p.price_rate} of {p.range.min}–{p.range.max}" if p.range else None,
            "currency": lambda p: p.currency, "stock": lambda p: p.stock, "status": lambda p: p.status,
        },
    )  # fmt: skip


@app.command()
def order(
    sku: str,
    target: Annotated[str | None, typer.Option(help="number or account to charge")] = None,
    quantity: Annotated[int, typer.Option(min=1)] = 1,
    number: Annotated[str | None, typer.Option(help="your own number; after a doubt give the same one again")] = None,
    field: Annotated[list[str] | None, typer.Option(help="name=value, may be repeated")] = None,
    max_unit_price: Annotated[str | None, typer.Option(help="refuse to pay more for one")] = None,
    confirm_duplicate: Annotated[bool, typer.Option("--confirm-duplicate", help="although this target was charged a moment ago")] = False,
    validate_only: Annotated[bool, typer.Option("--validate-only", help="what would be said; nothing is bought")] = False,
    wait: Annotated[float, typer.Option(min=0, help="seconds to wait for the outcome")] = 60.0,
    yes: Annotated[bool, typer.Option("--yes", help="do not ask before buying with a live key")] = False,
) -> None:
    """Buy. Status 0 succeeded, 1 refused or failed, 3 unknown (same number again!), 4 not final yet."""
    fields = dict(_pair(text) for text in field or ())
    order_no = number or f"CLI-{datetime.now(timezone.utc):%Y%m%d-%H%M%S}-{secrets.token_hex(4)}"
    if not _NUMBER.fullmatch(order_no):
        fail("--number: 1 to 64 of A-Z a-z 0-9 _ -", REFUSED)
    with opened() as client:
        if validate_only:
            show(client.orders.validate(order_no, sku, quantity=quantity, target=target, fields=fields or None, max_unit_price=max_unit_price))
            return
        if client.environment == "live" and not yes and not typer.confirm(f"buy {quantity} × {sku} with real money?", err=True):
            raise typer.Exit(FAILED)
        aside().print(f"number {order_no}")
        try:
            found = client.orders.create(
                order_no, sku, quantity=quantity, target=target, fields=fields or None, max_unit_price=max_unit_price,
                confirm_duplicate=confirm_duplicate,
            )  # fmt: skip
        except (NoAnswer, BrokenAnswer, ApiError) as trouble:
            if isinstance(trouble, ApiError) and not isinstance(trouble, ServerError) and trouble.charged == "no":
                raise
            fail(f"{trouble}\nWhat happened is unknown. Run the same command with --number {order_no}; never with a new number.", UNKNOWN)
        try:
            found = client.orders.wait_until_final(found, timeout_s=wait)
        except NotFinal as still:
            found = still.order
        except KamengError as trouble:  # about looking, not about buying: the order stands
            aside().print(f"{trouble}\nThe order was placed; how it went on could not be seen.", markup=False)
    show(found, _ORDER)
    if not found.is_final:
        aside().print(f"not final yet: kameng-merchant watch {order_no}")
        raise typer.Exit(NOT_FINAL)
    if found.status in ("failed", "cancelled"):
        raise typer.Exit(FAILED)


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        fail(f"--field {text}: name=value", REFUSED)
    return name, value


@app.command("show")
def show_order(order: Annotated[str, typer.Argument(help="its id, or your own number")]) -> None:
    """How an order stands."""
    with opened() as client:
        show(find_order(client, order), _ORDER)


@app.command()
def statement(
    day: Annotated[str | None, typer.Argument(help="YYYY-MM-DD; without it those that are ready")] = None,
    format: Format = Format.csv,
    currency: str | None = None,
    to: Annotated[Path | None, typer.Option(help="file to write")] = None,
) -> None:
    """A business day's statement, written only after hash and signature were verified."""
    with opened() as client:
        if day is None:
            days = list(client.statements.list().page().items)
        else:
            got = client.statements.download(day, format=format.value, currency=currency, to=to or Path(f"statement-{day}.{format.value}"))
    if day is not None:
        show({"file": str(got.path), "verified": True, **{n: got.content[n] for n in ("date", "currency", "opening", "closing") if n in got.content}})
        return
    show_list(
        days,
        {
            "date": lambda s: s.date, "currency": lambda s: s.currency, "opening": lambda s: s.opening, "movements": lambda s: s.movements_count,
            "closing": lambda s: s.closing, "ready": lambda s: s.ready_at,
        },
    )  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    """The console script."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if "--json" in given:  # anywhere on the line
        given = ["--json", *(argument for argument in given if argument != "--json")]
    app(args=given, prog_name="kameng-merchant")
