"""`kameng door …`: which foreign protocols are spoken, and whose software may use them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from kameng_api.api.admin import shapes
from kameng_api.api.doors import opening
from kameng_api.api.doors.registry import list_doors
from kameng_api.cli.bench import Bench, read_id, run
from kameng_api.cli.terminal import show, show_list
from kameng_api.kit.clock import wire_time
from kameng_api.kit.errors import FieldError, Invalid
from kameng_api.kit.ids import public_id
from kameng_api.merchants import door_accounts
from kameng_api.merchants.door_accounts import PREFIX, AccountShown, AccountTerms, NewAccount
from kameng_api.orders import foreign
from kameng_api.webhooks import actions as webhooks

door_app = typer.Typer(no_args_is_help=True)
_COLUMNS: Final = ("id", "door", "account", "environment", "enabled", "label", "created_at")

Named = Annotated[list[str] | None, typer.Option(help="NAME=VALUE, may be repeated")]


def _shown(one: AccountShown) -> dict[str, Any]:
    return {
        "id": public_id(PREFIX, one.account_id), "merchant_id": shapes.merchant_name(one.merchant_id), "environment": one.environment,
        "door": one.door, "account": one.account, "enabled": one.enabled, "settings": dict(one.settings), "products": dict(one.products),
        "own_skus": one.own_skus, "cidrs": list(one.cidrs), "label": one.label, "created_at": wire_time(one.created_at),
    }  # fmt: skip


def _shown_new(made: NewAccount) -> dict[str, Any]:
    return {**_shown(made.account), "secrets": dict(made.secrets)}


def _pairs(texts: Sequence[str] | None) -> dict[str, str]:
    """`NAME=VALUE` each. Raises Invalid."""
    found: dict[str, str] = {}
    for text in texts or ():
        name, equals, value = text.partition("=")
        if not equals or not name or name in found:
            raise Invalid("write NAME=VALUE, each name once", errors=[FieldError("/", "format", "NAME=VALUE")])
        found[name] = value
    return found


def _read_products(file: Path | None) -> Mapping[str, Mapping[str, str]]:
    if file is None:
        return {}
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise Invalid("the file of products is no JSON", errors=[FieldError("/products", "format", "a JSON object")]) from None
    if not isinstance(found, dict) or not all(isinstance(sold, dict) for sold in found.values()):
        raise Invalid("the file of products is no map", errors=[FieldError("/products", "format", '{"their number": {"sku": …}}')])
    return found


@door_app.command("list")
def list_all() -> None:
    """Every protocol, and what its accounts need."""
    doors = [opening.describe(door, "") for door in list_doors()]
    show_list(
        [{**one, "secrets": [s["name"] for s in one["secrets"]], "settings": [s["name"] for s in one["settings"]]} for one in doors],
        ("name", "title", "base_url", "secrets", "settings"),
    )


@door_app.command("accounts")
def accounts(merchant: str) -> None:
    """A merchant's accounts (merchant by id or name)."""

    async def work(bench: Bench) -> list[dict[str, Any]]:
        owner = await bench.merchant(merchant)
        return [_shown(one) for one in await door_accounts.list_of_merchant(bench.tx, owner.merchant_id)]

    show_list(run(work), _COLUMNS)


@door_app.command("create")
def create(
    merchant: str,
    door: str,
    account: Annotated[str, typer.Argument(help="what requests will carry: userid, customerId, vendorId, API key")],
    environment: Annotated[str, typer.Option("--environment", "-e", help="live or test")],
    secret: Named = None,
    setting: Named = None,
    products: Annotated[Path | None, typer.Option(help='JSON: {"their number": {"sku": …, "face_value": …}}')] = None,
    own_skus: Annotated[bool, typer.Option(help="read other product numbers as SKUs")] = True,
    cidr: Annotated[list[str] | None, typer.Option(help="may be repeated")] = None,
    label: str = "",
) -> None:
    """Open a door to a merchant's software; the secrets are shown this once."""

    async def work(bench: Bench) -> dict[str, Any]:
        owner = await bench.merchant(merchant)
        found = opening.find_door(door)
        secrets, settings = opening.complete_secrets(found, _pairs(secret)), _pairs(setting)
        opening.check_settings(found, settings)
        terms = AccountTerms(settings, _read_products(products), own_skus, cidr or (), label=label)
        made = await door_accounts.create(bench.tx, bench.keyring, owner.merchant_id, environment, found.name, account, secrets, terms)
        await _audit(bench, "door_account.created", made.account)
        return _shown_new(made)

    show(run(work, permission="keys:write"))


@door_app.command("rotate")
def rotate(account_id: str, secret: Named = None) -> None:
    """Other secrets, at once; they are shown this once."""

    async def work(bench: Bench) -> dict[str, Any]:
        found = await door_accounts.get(bench.tx, read_id(PREFIX, account_id))
        secrets = opening.complete_secrets(opening.find_door(found.door), _pairs(secret))
        made = await door_accounts.rotate(bench.tx, bench.keyring, found.account_id, secrets)
        await _audit(bench, "door_account.rotated", made.account)
        return _shown_new(made)

    show(run(work, permission="keys:write"))


@door_app.command("enable")
def enable(account_id: str) -> None:
    """Let an account in again, and tell it what was held meanwhile."""
    _switch(account_id, enabled=True)


@door_app.command("disable")
def disable(account_id: str) -> None:
    """Answer this account as a stranger, and keep its callbacks; accepted orders go on."""
    _switch(account_id, enabled=False)


def _switch(account_id: str, *, enabled: bool) -> None:
    async def work(bench: Bench) -> dict[str, Any]:
        found = await door_accounts.switch(bench.tx, read_id(PREFIX, account_id), enabled=enabled)
        if enabled:
            await webhooks.take_up_held(bench.tx, found.book_id, foreign.receiver(found.account_id, ""))
        await _audit(bench, "door_account.enabled" if enabled else "door_account.disabled", found)
        return _shown(found)

    show(run(work, permission="keys:write"))


async def _audit(bench: Bench, action: str, one: AccountShown) -> None:
    await bench.audit(
        action, shapes.merchant_name(one.merchant_id), account_id=public_id(PREFIX, one.account_id), door=one.door, account=one.account
    )
