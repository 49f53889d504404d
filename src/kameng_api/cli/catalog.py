"""`kameng product | price | channel | offer`: what is sold, at what price, and where it comes from."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from kameng_api.api.admin import shapes
from kameng_api.api.admin.connections import ask_wallet, read_settings
from kameng_api.catalog import actions, queries
from kameng_api.catalog.rules import FormField, Offer, Price, Product, parse_rate
from kameng_api.cli.bench import Bench, read_amount, run
from kameng_api.cli.terminal import show, show_list
from kameng_api.kit.errors import FieldError, Invalid

product_app = typer.Typer(no_args_is_help=True)
price_app = typer.Typer(no_args_is_help=True)
channel_app = typer.Typer(no_args_is_help=True)
offer_app = typer.Typer(no_args_is_help=True)


def _amount(text: str | None) -> int | None:
    return None if text is None else read_amount(text)


def _rate(text: str | None) -> int | None:
    if text is None:
        return None
    try:
        return parse_rate(text)
    except ValueError as error:
        raise Invalid(str(error), errors=[FieldError("/rate", "format", str(error))]) from None


def _json(source: Path | None, pointer: str) -> Any:
    """A JSON file, or standard input for `-`; None stays None. Raises Invalid."""
    if source is None:
        return None
    try:
        return json.loads(sys.stdin.read() if str(source) == "-" else source.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Invalid(f"{source} cannot be read", errors=[FieldError(pointer, "format", str(error))]) from None


@product_app.command("set")
def set_product(
    sku: str,
    name: str,
    product_type: Annotated[str, typer.Option("--type", help="topup, card or voucher")],
    face_value: str | None = None,
    face_min: str | None = None,
    face_max: str | None = None,
    face_step: str | None = None,
    target_kind: Annotated[str | None, typer.Option(help="mobile or account")] = None,
    currency: str = "CNY",
    fields: Annotated[Path | None, typer.Option(help="JSON file with the form fields, - for standard input")] = None,
    environment: Annotated[list[str] | None, typer.Option(help="live, test; both if left out")] = None,
    max_quantity: int = 100,
    deliver_within_s: int = 600,
    duplicate_window_s: int = 0,
    allow_below_cost: bool = False,
    refund_on_reversal: bool = True,
    carrier: Annotated[list[str] | None, typer.Option(help="cmcc, cucc, ctcc, cbn, and virtual beside them; any if left out")] = None,
) -> None:
    """Create a SKU, or change what may change about it. Its status stays."""

    async def work(bench: Bench) -> dict[str, Any]:
        wanted = Product(
            sku=sku,
            name=name,
            product_type=product_type,
            currency=currency,
            face_value=_amount(face_value),
            face_min=_amount(face_min),
            face_max=_amount(face_max),
            face_step=_amount(face_step),
            target_kind=target_kind,
            fields=_form(_json(fields, "/fields")),
            environments=frozenset(environment or ("live", "test")),
            max_quantity=max_quantity,
            deliver_within_s=deliver_within_s,
            duplicate_window_s=duplicate_window_s,
            allow_below_cost=allow_below_cost,
            refund_on_reversal=refund_on_reversal,
            carriers=tuple(carrier or ()),
        )
        old = await queries.find_product(bench.tx, sku)
        new = await actions.put_product(bench.tx, wanted if old is None else replace(wanted, status=old.status))
        await bench.audit("product.created" if new else "product.changed", sku, name=name)
        return shapes.product(await queries.get_product(bench.tx, sku))

    show(run(work, permission="catalog:write"))


def _form(values: Any) -> tuple[FormField, ...]:
    try:
        return tuple(FormField(**value) for value in values or ())
    except TypeError as error:
        wrong = FieldError("/fields", "format", 'a list of {"name","label","required","pattern","min_length","max_length","checksum"}')
        raise Invalid("the form fields cannot be read", errors=[wrong]) from error


@product_app.command("status")
def set_product_status(sku: str, status: Annotated[str, typer.Argument(help="on_sale, paused or retired")]) -> None:
    """Sell it, stop selling it, or end it."""

    async def work(bench: Bench) -> dict[str, Any]:
        await actions.set_product_status(bench.tx, sku, status)
        await bench.audit("product.status_set", sku, status=status)
        return shapes.product(await queries.get_product(bench.tx, sku))

    show(run(work, permission="catalog:write"))


@product_app.command("barcodes")
def set_barcodes(sku: str, barcode: Annotated[list[str] | None, typer.Argument(help="all of them; none takes them away")] = None) -> None:
    """Which scanned barcodes mean this SKU."""

    async def work(bench: Bench) -> list[dict[str, Any]]:
        wanted = barcode or []
        await actions.set_barcodes(bench.tx, sku, wanted)
        await bench.audit("product.barcodes_set", sku, barcodes=wanted)
        return [{"barcode": one} for one in await queries.list_barcodes(bench.tx, sku)]

    show_list(run(work, permission="catalog:write"), ("barcode",))


@product_app.command("list")
def list_products(limit: int = 1000) -> None:
    """All products."""

    async def work(bench: Bench) -> list[dict[str, Any]]:
        return [shapes.product(one) for one in await queries.list_products(bench.tx, after=None, limit=limit)]

    show_list(run(work), ("sku", "name", "product_type", "face_value", "status"))


@price_app.command("set")
def set_price(
    sku: str,
    unit_price: str | None = None,
    rate: Annotated[str | None, typer.Option(help="of the face value, such as 0.985")] = None,
    level: str | None = None,
    merchant: Annotated[str | None, typer.Option(help="id or name")] = None,
) -> None:
    """For everybody, for a level, or for one merchant; the narrowest wins."""

    async def work(bench: Bench) -> list[dict[str, Any]]:
        owner = None if merchant is None else (await bench.merchant(merchant)).merchant_id
        price = Price(_amount(unit_price), _rate(rate))
        await actions.set_price(bench.tx, sku, price, level=level, merchant_id=owner)
        shown = None if owner is None else shapes.merchant_name(owner)
        await bench.audit("price.set", sku, unit_price=unit_price, rate=rate, level=level, merchant_id=shown)
        return [shapes.price(row) for row in await queries.list_prices(bench.tx, sku)]

    show_list(run(work, permission="catalog:write"), ("level", "merchant_id", "unit_price", "rate"))


@price_app.command("list")
def list_prices(sku: str) -> None:
    """All prices of one SKU."""

    async def work(bench: Bench) -> list[dict[str, Any]]:
        await queries.get_product(bench.tx, sku)
        return [shapes.price(row) for row in await queries.list_prices(bench.tx, sku)]

    show_list(run(work), ("level", "merchant_id", "unit_price", "rate"))


@channel_app.command("set")
def set_channel(
    channel_id: str,
    name: str,
    adapter: Annotated[str | None, typer.Option(help="for a new channel")] = None,
    environment: Annotated[str | None, typer.Option("--environment", "-e", help="for a new channel")] = None,
    settings: Annotated[Path | None, typer.Option(help="JSON file, - for standard input")] = None,
    concurrency: int = 100,
    wallet_low_at: str | None = None,
) -> None:
    """Create a channel, or change it; a new one shows its callback address this once."""

    async def work(bench: Bench) -> dict[str, Any]:
        old = await queries.find_channel(bench.tx, channel_id)
        given = _json(settings, "/settings")
        low_at = _amount(wallet_low_at)
        if old is not None:
            sealed = None if given is None else orjson.dumps(read_settings(old.adapter, given))
            await actions.change_channel(
                bench.tx, bench.keyring, channel_id,
                name=name, settings=sealed, concurrency=concurrency, wallet_low_at=low_at,
            )  # fmt: skip
            await bench.audit("channel.changed", f"channel:{channel_id}", new_settings=sealed is not None)
            return shapes.channel(await queries.get_channel(bench.tx, channel_id))
        if adapter is None or environment is None:
            raise Invalid("a new channel needs --adapter, --environment and --settings")
        plain = orjson.dumps(read_settings(adapter, given or {}))
        new = actions.NewChannel(channel_id, name, adapter, environment, plain, concurrency, low_at)
        token = await actions.create_channel(bench.tx, bench.keyring, new)
        await bench.audit("channel.created", f"channel:{channel_id}", adapter=adapter, environment=environment)
        address = f"{bench.settings.base_url.rstrip('/')}/callbacks/{token}"
        return {**shapes.channel(await queries.get_channel(bench.tx, channel_id)), "callback_url": address}

    show(run(work, permission="channels:write"))


@channel_app.command("list")
def list_channels() -> None:
    """All channels, without their settings."""

    async def work(bench: Bench) -> list[dict[str, Any]]:
        return [shapes.channel(one) for one in await queries.list_channels(bench.tx)]

    show_list(run(work), ("id", "name", "adapter", "environment", "status", "wallet"))


def _switch(channel_id: str, status: str, reason: str) -> None:
    async def work(bench: Bench) -> dict[str, Any]:
        await actions.set_channel_status(bench.tx, channel_id, status)
        await bench.audit(f"channel.{status}", f"channel:{channel_id}", reason=reason)
        return shapes.channel(await queries.get_channel(bench.tx, channel_id))

    show(run(work, permission="channels:switch"))


@channel_app.command("enable")
def enable_channel(channel_id: str, reason: str = "by command line") -> None:
    """Let it have orders again."""
    _switch(channel_id, "enabled", reason)


@channel_app.command("disable")
def disable_channel(channel_id: str, reason: str = "by command line") -> None:
    """No new orders for it; open ones are still looked up."""
    _switch(channel_id, "disabled", reason)


@channel_app.command("wallet")
def refresh_wallet(channel_id: str) -> None:
    """Ask the supplier now what our wallet there holds."""

    async def read(bench: Bench) -> tuple[Any, Any, float]:
        channel = await queries.get_channel(bench.tx, channel_id)
        return channel, bench.keyring, bench.settings.supplier_timeout_s

    channel, keyring, timeout_s = run(read, permission="channels:switch")

    async def work(bench: Bench) -> dict[str, Any]:
        # Inside the command's transaction: nobody else waits for it.
        wallet = await ask_wallet(channel, keyring, min(timeout_s, 8.0))
        await actions.record_wallet(bench.tx, channel_id, wallet.balance)
        await bench.audit("channel.wallet_asked", f"channel:{channel_id}")
        return shapes.channel(await queries.get_channel(bench.tx, channel_id))

    show(run(work, permission="channels:switch"))


@offer_app.command("set")
def set_offer(
    channel_id: str,
    sku: str,
    code: Annotated[str, typer.Option(help="the supplier's product code")],
    cost: str | None = None,
    rate: Annotated[str | None, typer.Option(help="of the face value, such as 0.975")] = None,
    stock: int | None = None,
    status: str = "enabled",
) -> None:
    """What a channel charges for a SKU."""

    async def work(bench: Bench) -> dict[str, Any]:
        offer = Offer(channel_id, sku, code, _amount(cost), _rate(rate), stock, status)
        await actions.set_offer(bench.tx, offer, bench.actor)
        await bench.audit("offer.set", f"channel:{channel_id}", **shapes.offer(offer))
        return shapes.offer(offer)

    show(run(work, permission="catalog:write"))


@offer_app.command("list")
def list_offers(sku: str | None = None, channel: str | None = None, limit: int = 1000) -> None:
    """Offers, by channel and SKU."""

    async def work(bench: Bench) -> list[dict[str, Any]]:
        return [shapes.offer(o) for o in await queries.list_offers(bench.tx, sku=sku, channel_id=channel, limit=limit)]

    show_list(run(work), ("channel_id", "sku", "product_code", "unit_cost", "rate", "stock", "status"))
