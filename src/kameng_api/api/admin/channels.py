"""Connections to suppliers, what they offer, and what stands in their wallets."""

from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter, Query, Response
from pydantic import Field

from kameng_api.api.admin import shapes
from kameng_api.api.admin.connections import ask_wallet, read_settings
from kameng_api.api.admin.desk import Amount, AtDesk, Cursor, DeskRoute, Rate, needs
from kameng_api.api.routes import WireModel
from kameng_api.api.wire import Limit
from kameng_api.catalog import actions, queries
from kameng_api.catalog.rules import Offer
from kameng_api.kit.money import format_amount
from kameng_api.suppliers import registry

router = APIRouter(route_class=DeskRoute)

Environment = Literal["live", "test"]
Switch = Literal["enabled", "disabled"]


class ChannelWanted(WireModel):
    """`settings` is what the adapter asks for (`GET /admin/v1/adapters`); it is sealed and never shown again."""

    id: str
    name: str
    adapter: str
    environment: Environment
    settings: dict[str, Any]
    concurrency: int = 100
    wallet_low_at: Amount | None = None
    status: Switch = "enabled"


@router.get("/adapters")
@needs("read")
async def list_adapters(desk: AtDesk) -> dict[str, Any]:
    return {"items": [shapes.adapter(one) for one in registry.list_adapters()], "next_cursor": None}


@router.post("/channels", status_code=201)
@needs("channels:write")
async def create_channel(desk: AtDesk, wanted: ChannelWanted) -> dict[str, Any]:
    """The address the supplier calls back is in this answer and nowhere else: whoever knows it may call it."""
    settings = read_settings(wanted.adapter, wanted.settings)
    new = actions.NewChannel(
        channel_id=wanted.id,
        name=wanted.name,
        adapter=wanted.adapter,
        environment=wanted.environment,
        settings=orjson.dumps(settings),
        concurrency=wanted.concurrency,
        wallet_low_at=wanted.wallet_low_at,
        status=wanted.status,
    )
    async with desk.door.db.transaction() as tx:
        token = await actions.create_channel(tx, desk.door.keyring, new)
        await desk.audit(tx, "channel.created", f"channel:{wanted.id}", adapter=wanted.adapter, environment=wanted.environment)
        made = await queries.get_channel(tx, wanted.id)
    base = desk.door.settings.base_url.rstrip("/")
    return {**shapes.channel(made), "callback_url": f"{base}/callbacks/{token}"}


@router.get("/channels")
@needs("read")
async def list_channels(desk: AtDesk, environment: Annotated[Environment | None, Query()] = None) -> dict[str, Any]:
    async with desk.door.db.transaction() as tx:
        found = await queries.list_channels(tx, environment=environment)
    return {"items": [shapes.channel(one) for one in found], "next_cursor": None}


@router.get("/channels/{channel_id}")
@needs("read")
async def get_channel(desk: AtDesk, channel_id: str) -> dict[str, Any]:
    async with desk.door.db.transaction() as tx:
        return shapes.channel(await queries.get_channel(tx, channel_id))


class ChannelChanged(WireModel):
    """Without `settings` the sealed ones stay."""

    name: str
    settings: dict[str, Any] | None = None
    concurrency: int = 100
    wallet_low_at: Amount | None = None


@router.put("/channels/{channel_id}")
@needs("channels:write")
async def change_channel(desk: AtDesk, channel_id: str, wanted: ChannelChanged) -> dict[str, Any]:
    """Adapter and environment of a channel stay: open orders are looked up through it."""
    async with desk.door.db.transaction() as tx:
        old = await queries.get_channel(tx, channel_id)
        settings = None if wanted.settings is None else orjson.dumps(read_settings(old.adapter, wanted.settings))
        await actions.change_channel(
            tx,
            desk.door.keyring,
            channel_id,
            name=wanted.name,
            settings=settings,
            concurrency=wanted.concurrency,
            wallet_low_at=wanted.wallet_low_at,
        )
        await desk.audit(
            tx,
            "channel.changed",
            f"channel:{channel_id}",
            name=wanted.name,
            concurrency=wanted.concurrency,
            wallet_low_at=shapes.amount_or_none(wanted.wallet_low_at),
            new_settings=settings is not None,
        )
        return shapes.channel(await queries.get_channel(tx, channel_id))


class SwitchWanted(WireModel):
    status: Switch
    reason: str = Field(min_length=1, max_length=500)


@router.put("/channels/{channel_id}/status")
@needs("channels:switch")
async def switch_channel(desk: AtDesk, channel_id: str, wanted: SwitchWanted) -> dict[str, Any]:
    """A disabled channel gets no new orders; open ones are still looked up."""
    async with desk.door.db.transaction() as tx:
        await actions.set_channel_status(tx, channel_id, wanted.status)
        await desk.audit(tx, f"channel.{wanted.status}", f"channel:{channel_id}", reason=wanted.reason)
        return shapes.channel(await queries.get_channel(tx, channel_id))


@router.post("/channels/{channel_id}/refresh-wallet")
@needs("channels:switch")
async def refresh_wallet(desk: AtDesk, channel_id: str) -> dict[str, Any]:
    """Asks the supplier now what our wallet there holds."""
    async with desk.door.db.transaction() as tx:
        channel = await queries.get_channel(tx, channel_id)
    wallet = await ask_wallet(channel, desk.door.keyring, desk.door.settings.supplier_timeout_s)
    async with desk.door.db.transaction() as tx:
        await actions.record_wallet(tx, channel_id, wallet.balance)
        await desk.audit(tx, "channel.wallet_asked", f"channel:{channel_id}", balance=format_amount(wallet.balance))
        return shapes.channel(await queries.get_channel(tx, channel_id))


class OfferWanted(WireModel):
    """`unit_cost`, or `rate` of the face value. `stock` null: the supplier does not tell."""

    product_code: str
    unit_cost: Amount | None = None
    rate: Rate | None = None
    stock: int | None = None
    status: Switch = "enabled"


@router.put("/channels/{channel_id}/offers/{sku}")
@needs("catalog:write")
async def set_offer(desk: AtDesk, channel_id: str, sku: str, wanted: OfferWanted, response: Response) -> dict[str, Any]:
    offer = Offer(channel_id, sku, wanted.product_code, wanted.unit_cost, wanted.rate, wanted.stock, wanted.status)
    async with desk.door.db.transaction() as tx:
        new = await actions.set_offer(tx, offer, desk.actor)
        await desk.audit(tx, "offer.set", f"channel:{channel_id}", **shapes.offer(offer))
    response.status_code = 201 if new else 200
    return shapes.offer(offer)


@router.get("/offers")
@needs("read")
async def list_offers(
    desk: AtDesk,
    sku: Annotated[str | None, Query()] = None,
    channel_id: Annotated[str | None, Query()] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> dict[str, Any]:
    context = ("offers", sku or "", channel_id or "")
    position = desk.position(cursor, *context)
    after = (position[0], position[1]) if position else None
    async with desk.door.db.transaction() as tx:
        found = await queries.list_offers(tx, sku=sku, channel_id=channel_id, after=after, limit=limit + 1)
    return desk.page(found, limit, shapes.offer, lambda o: [o.channel_id, o.sku], *context)
