"""`kameng operator | merchant | key | delivery-key | alarm | tasks`: who may do what, and what needs a person's eye."""

import base64
import binascii
from typing import Annotated, Any
from uuid import UUID

import typer

from kameng_api.alarms import actions as alarms
from kameng_api.alarms import queries as alarm_queries
from kameng_api.api.admin import shapes
from kameng_api.cli.bench import Bench, read_id, run
from kameng_api.cli.terminal import show, show_list
from kameng_api.kit.errors import FieldError, Invalid
from kameng_api.ledger import actions as ledger
from kameng_api.ledger import queries as ledger_queries
from kameng_api.merchants import actions as merchants
from kameng_api.merchants import queries as merchant_queries
from kameng_api.merchants.rules import DEFAULT_SCOPES
from kameng_api.operators import actions as operators
from kameng_api.operators import queries as operator_queries

operator_app = typer.Typer(no_args_is_help=True)
merchant_app = typer.Typer(no_args_is_help=True)
key_app = typer.Typer(no_args_is_help=True)
delivery_key_app = typer.Typer(no_args_is_help=True)
alarm_app = typer.Typer(no_args_is_help=True)
tasks_app = typer.Typer(no_args_is_help=True)

Environment = Annotated[str, typer.Option("--environment", "-e", help="live or test")]


@operator_app.command("create")
def create_operator(name: str, role: Annotated[str, typer.Option(help="viewer, support, finance or admin")]) -> None:
    """Give somebody a token; it is shown this once."""

    async def work(bench: Bench) -> dict[str, Any]:
        made = await operators.create_operator(bench.tx, name, role)
        await bench.audit("operator.created", f"operator:{name}", role=role)
        return {**shapes.operator(made.operator), "token": made.token}

    show(run(work, permission="operators:write"))


@operator_app.command("list")
def list_operators() -> None:
    """Everybody who ever had a token."""

    async def work(bench: Bench) -> list[dict[str, Any]]:
        return [shapes.operator(one) for one in await operator_queries.list_operators(bench.tx)]

    show_list(run(work, permission="audit:read"), ("name", "role", "created_at", "last_used_at", "revoked_at"))


@operator_app.command("revoke")
def revoke_operator(name: str) -> None:
    """End a token at once."""

    async def work(bench: Bench) -> dict[str, Any]:
        gone = await operators.revoke_operator(bench.tx, name)
        await bench.audit("operator.revoked", f"operator:{name}")
        return shapes.operator(gone)

    show(run(work, permission="operators:write"))


@merchant_app.command("create")
def create_merchant(name: str, level: str = "standard", currency: str = "CNY", timezone: str = "Asia/Shanghai") -> None:
    """A merchant with a live and a test book."""

    async def work(bench: Bench) -> dict[str, Any]:
        made = await merchants.create_merchant(bench.tx, name=name, open_book=ledger.open_book, level=level, currency=currency, timezone=timezone)
        await bench.audit("merchant.created", shapes.merchant_name(made.merchant_id), name=name, level=level)
        return shapes.merchant(made)

    show(run(work, permission="merchants:write"))


@merchant_app.command("list")
def list_merchants(limit: int = 1000) -> None:
    """All merchants."""

    async def work(bench: Bench) -> list[dict[str, Any]]:
        return [shapes.merchant(m) for m in await merchant_queries.list_merchants(bench.tx, after=None, limit=limit)]

    show_list(run(work), ("id", "name", "status", "level", "currency"))


@merchant_app.command("show")
def show_merchant(merchant: str) -> None:
    """One merchant (id or name) with its balances."""

    async def work(bench: Bench) -> dict[str, Any]:
        found = await bench.merchant(merchant)
        shown = shapes.merchant(found)
        for environment in ("live", "test"):
            book_id = await merchant_queries.get_book(bench.tx, found.merchant_id, environment)
            balance = await ledger_queries.get_balance(bench.tx, book_id, found.currency)
            shown[environment] = shapes.balance(balance)
        return shown

    show(run(work))


@merchant_app.command("suspend")
def suspend_merchant(merchant: str) -> None:
    """Refuse every request of this merchant; accepted orders go on."""

    async def work(bench: Bench) -> dict[str, Any]:
        found = await merchants.suspend(bench.tx, (await bench.merchant(merchant)).merchant_id)
        await bench.audit("merchant.suspended", shapes.merchant_name(found.merchant_id))
        return shapes.merchant(found)

    show(run(work, permission="merchants:write"))


@merchant_app.command("resume")
def resume_merchant(merchant: str) -> None:
    """Let a suspended merchant in again."""

    async def work(bench: Bench) -> dict[str, Any]:
        found = await merchants.resume(bench.tx, (await bench.merchant(merchant)).merchant_id)
        await bench.audit("merchant.resumed", shapes.merchant_name(found.merchant_id))
        return shapes.merchant(found)

    show(run(work, permission="merchants:write"))


@key_app.command("create")
def create_key(
    merchant: str,
    environment: Environment,
    public_key: Annotated[str | None, typer.Option(help="base64 of 32 bytes makes an Ed25519 key; else HMAC")] = None,
    scope: Annotated[list[str] | None, typer.Option(help="may be repeated")] = None,
    cidr: Annotated[list[str] | None, typer.Option(help="may be repeated")] = None,
    label: str = "",
) -> None:
    """A key for a merchant; the secret is shown this once."""

    async def work(bench: Bench) -> dict[str, Any]:
        owner = await bench.merchant(merchant)
        terms = merchants.Terms(scope or DEFAULT_SCOPES, cidr or (), label)
        if public_key is None:
            made = await merchants.create_hmac_key(bench.tx, bench.keyring, owner.merchant_id, environment, terms)
        else:
            raw = _read_public_key(public_key)
            made = await merchants.create_ed25519_key(bench.tx, owner.merchant_id, environment, raw, terms)
        await bench.audit("key.created", shapes.merchant_name(owner.merchant_id), key_id=made.key.key_id)
        return shapes.new_key(made)

    show(run(work, permission="keys:write"))


def _read_public_key(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        wrong = FieldError("/public_key", "format", "base64 of the 32 bytes of an Ed25519 public key")
        raise Invalid("the public key cannot be read", errors=[wrong]) from None


@key_app.command("list")
def list_keys(merchant: str) -> None:
    """Every key a merchant ever had, without secrets."""

    async def work(bench: Bench) -> list[dict[str, Any]]:
        owner = await bench.merchant(merchant)
        return [shapes.key(one) for one in await merchant_queries.list_keys(bench.tx, owner.merchant_id)]

    show_list(run(work), ("key_id", "environment", "algorithm", "label", "last_used_at", "revoked_at"))


@key_app.command("revoke")
def revoke_key(key_id: str) -> None:
    """End a key for good, everywhere within 5 s."""

    async def work(bench: Bench) -> dict[str, Any]:
        gone = await merchants.revoke_key(bench.tx, key_id)
        await bench.audit("key.revoked", shapes.merchant_name(gone.merchant_id), key_id=key_id)
        return shapes.key(gone)

    show(run(work, permission="keys:write"))


@delivery_key_app.command("create")
def create_delivery_key(merchant: str, environment: Environment) -> None:
    """A delivery key; it is shown this once."""

    async def work(bench: Bench) -> dict[str, Any]:
        owner = await bench.merchant(merchant)
        made = await merchants.create_delivery_key(bench.tx, bench.keyring, owner.merchant_id, environment)
        await bench.audit("delivery_key.created", shapes.merchant_name(owner.merchant_id), kid=made.kid)
        return shapes.new_delivery_key(made)

    show(run(work, permission="keys:write"))


@alarm_app.command("list")
def list_alarms(everything: Annotated[bool, typer.Option("--all", help="closed ones too")] = False) -> None:
    """Alarms, newest first."""

    async def work(bench: Bench) -> list[dict[str, Any]]:
        return [shapes.alarm(one) for one in await alarm_queries.list_alarms(bench.tx, only_open=not everything)]

    show_list(run(work), ("id", "severity", "kind", "subject", "count", "last_at", "acknowledged_by", "detail"))


@alarm_app.command("acknowledge")
def acknowledge_alarm(alarm_id: str) -> None:
    """You have seen it; it stays open."""

    async def work(bench: Bench) -> dict[str, Any]:
        seen = await alarms.acknowledge(bench.tx, read_id("alm", alarm_id), bench.actor)
        await bench.audit("alarm.acknowledged", alarm_id, kind=seen.kind)
        return shapes.alarm(seen)

    show(run(work, permission="alarms:write"))


@tasks_app.command("parked")
def list_parked(limit: int = 100) -> None:
    """Work that raised again and again and was given up."""

    async def work(bench: Bench) -> list[dict[str, Any]]:
        found = await operator_queries.list_parked(bench.tx, after=None, limit=limit)
        return [shapes.parked_task(row) for row in found]

    show_list(run(work), ("book_id", "lane", "ref", "attempts", "trouble"))


@tasks_app.command("retry")
def retry_task(book_id: int, lane: str, ref: UUID) -> None:
    """Let it run again."""

    async def work(bench: Bench) -> dict[str, Any]:
        await operators.retry_parked(bench.tx, book_id, lane, ref)
        await bench.audit("task.retried", f"task:{lane}:{ref}", book_id=book_id)
        return {"book_id": book_id, "lane": lane, "ref": str(ref), "state": "ready"}

    show(run(work, permission="tasks:write"))
