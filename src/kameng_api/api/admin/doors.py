"""Doors (兼容入口): which there are, whose software may use them, and what became of their callbacks."""

from typing import Any, Literal
from uuid import UUID

from fastapi import APIRouter
from pydantic import Field

from kameng_api.api.admin import shapes
from kameng_api.api.admin.desk import AtDesk, Cursor, Desk, DeskRoute, needs, read_id, uuid_position
from kameng_api.api.doors import opening
from kameng_api.api.doors.registry import list_doors
from kameng_api.api.routes import WireModel
from kameng_api.api.wire import Limit
from kameng_api.kit.clock import wire_time, wire_time_or_none
from kameng_api.kit.db import Tx
from kameng_api.kit.errors import NotFound
from kameng_api.kit.ids import public_id
from kameng_api.merchants import door_accounts, queries
from kameng_api.merchants.door_accounts import PREFIX, AccountShown, AccountTerms, NewAccount
from kameng_api.orders import foreign
from kameng_api.tasks.rules import Lane
from kameng_api.webhooks import actions as webhooks
from kameng_api.webhooks import queries as deliveries
from kameng_api.webhooks.events import DELIVERY_PREFIX

router = APIRouter(route_class=DeskRoute)


class SoldWanted(WireModel):
    """What one of their product numbers stands for here."""

    sku: str = Field(max_length=64)
    face_value: str | None = Field(default=None, max_length=20)


class TermsWanted(WireModel):
    """What an account means and may do. `products`: their number → SKU; with `own_skus` other numbers are read as SKUs."""

    settings: dict[str, str] = Field(default_factory=dict, max_length=20)
    products: dict[str, SoldWanted] = Field(default_factory=dict)
    own_skus: bool = True
    cidrs: list[str] = Field(default_factory=list)
    reads_per_s: int | None = None
    writes_per_s: int | None = None
    label: str = ""

    def terms(self) -> AccountTerms:
        products = {number: sold.model_dump(exclude_none=True) for number, sold in self.products.items()}
        return AccountTerms(self.settings, products, self.own_skus, self.cidrs, self.reads_per_s, self.writes_per_s, self.label)


class AccountWanted(TermsWanted):
    """An account to be. `account` is what requests will carry; `secrets` may be left out where we make them."""

    environment: Literal["live", "test"]
    door: str = Field(max_length=40)
    account: str = Field(min_length=1, max_length=64)
    secrets: dict[str, str] = Field(default_factory=dict, max_length=10)


class SecretsWanted(WireModel):
    secrets: dict[str, str] = Field(default_factory=dict, max_length=10)


def shown(one: AccountShown, base_url: str) -> dict[str, Any]:
    """The account without its secrets."""
    return {
        "id": public_id(PREFIX, one.account_id),
        "merchant_id": shapes.merchant_name(one.merchant_id),
        "environment": one.environment,
        "door": one.door,
        "account": one.account,
        "base_url": f"{base_url.rstrip('/')}/doors/{one.door}",
        "enabled": one.enabled,
        "settings": dict(one.settings),
        "products": dict(one.products),
        "own_skus": one.own_skus,
        "cidrs": list(one.cidrs),
        "reads_per_s": one.reads_per_s,
        "writes_per_s": one.writes_per_s,
        "label": one.label,
        "created_at": wire_time(one.created_at),
        "updated_at": wire_time(one.updated_at),
    }


def shown_new(made: NewAccount, base_url: str) -> dict[str, Any]:
    """With the secrets, this once."""
    return {**shown(made.account, base_url), "secrets": dict(made.secrets)}


@router.get("/doors")
@needs("read")
async def list_all_doors(desk: AtDesk) -> dict[str, Any]:
    """Every protocol that is spoken, with the form of its accounts. A merchant uses none before it has an account."""
    return {"items": [opening.describe(door, desk.door.settings.base_url) for door in list_doors()], "next_cursor": None}


@router.post("/merchants/{merchant_id}/door-accounts", status_code=201)
@needs("keys:write")
async def create_door_account(desk: AtDesk, merchant_id: str, wanted: AccountWanted) -> dict[str, Any]:
    """An account at a door, on at once. The secrets are in this answer and nowhere else."""
    door = opening.find_door(wanted.door)
    secrets = opening.complete_secrets(door, wanted.secrets)
    opening.check_settings(door, wanted.settings)
    async with desk.door.db.transaction() as tx:
        owner = read_id("mer", merchant_id)
        made = await door_accounts.create(
            tx, desk.door.keyring, owner, wanted.environment, door.name, wanted.account, secrets, wanted.terms()
        )
        await desk.audit(tx, "door_account.created", merchant_id, **_facts(made.account))
    desk.door.lobby.accounts.forget()
    return shown_new(made, desk.door.settings.base_url)


def _facts(one: AccountShown) -> dict[str, Any]:
    return {"account_id": public_id(PREFIX, one.account_id), "door": one.door, "account": one.account, "environment": one.environment}


@router.get("/merchants/{merchant_id}/door-accounts")
@needs("read")
async def list_door_accounts(desk: AtDesk, merchant_id: str) -> dict[str, Any]:
    async with desk.door.db.transaction() as tx:
        owner = await queries.get_merchant(tx, read_id("mer", merchant_id))
        found = await door_accounts.list_of_merchant(tx, owner.merchant_id)
    return {"items": [shown(one, desk.door.settings.base_url) for one in found], "next_cursor": None}


@router.get("/door-accounts/{account_id}")
@needs("read")
async def get_door_account(desk: AtDesk, account_id: str) -> dict[str, Any]:
    async with desk.door.db.transaction() as tx:
        found = await door_accounts.get(tx, read_id(PREFIX, account_id))
    return shown(found, desk.door.settings.base_url)


@router.put("/door-accounts/{account_id}")
@needs("keys:write")
async def change_door_account(desk: AtDesk, account_id: str, wanted: TermsWanted) -> dict[str, Any]:
    """Other terms, all of them; known everywhere within 3 s. Orders keep what they were placed with."""
    async with desk.door.db.transaction() as tx:
        found = await door_accounts.get(tx, read_id(PREFIX, account_id))
        opening.check_settings(opening.find_door(found.door), wanted.settings)
        changed = await door_accounts.change(tx, found.account_id, wanted.terms())
        await _audit(desk, tx, "door_account.changed", changed, products=len(changed.products))
    desk.door.lobby.accounts.forget()
    return shown(changed, desk.door.settings.base_url)


async def _audit(desk: Desk, tx: Tx, action: str, one: AccountShown, **facts: Any) -> None:
    await desk.audit(tx, action, shapes.merchant_name(one.merchant_id), **_facts(one), **facts)


@router.post("/door-accounts/{account_id}/rotate", status_code=201)
@needs("keys:write")
async def rotate_door_account(desk: AtDesk, account_id: str, wanted: SecretsWanted) -> dict[str, Any]:
    """Other secrets, within 3 s everywhere; the old ones end with it, because these protocols know no overlap."""
    async with desk.door.db.transaction() as tx:
        found = await door_accounts.get(tx, read_id(PREFIX, account_id))
        secrets = opening.complete_secrets(opening.find_door(found.door), wanted.secrets)
        made = await door_accounts.rotate(tx, desk.door.keyring, found.account_id, secrets)
        await _audit(desk, tx, "door_account.rotated", made.account)
    desk.door.lobby.accounts.forget()
    return shown_new(made, desk.door.settings.base_url)


@router.post("/door-accounts/{account_id}/enable")
@needs("keys:write")
async def enable_door_account(desk: AtDesk, account_id: str) -> dict[str, Any]:
    """On again within 3 s, and what was not told meanwhile is told."""
    return await _switch(desk, account_id, enabled=True)


@router.post("/door-accounts/{account_id}/disable")
@needs("keys:write")
async def disable_door_account(desk: AtDesk, account_id: str) -> dict[str, Any]:
    """Within 3 s the door answers as to a stranger, and calls nobody back; callbacks are kept. Orders already placed go on."""
    return await _switch(desk, account_id, enabled=False)


async def _switch(desk: Desk, account_id: str, *, enabled: bool) -> dict[str, Any]:
    async with desk.door.db.transaction() as tx:
        found = await door_accounts.switch(tx, read_id(PREFIX, account_id), enabled=enabled)
        taken_up = await webhooks.take_up_held(tx, found.book_id, foreign.receiver(found.account_id, "")) if enabled else 0
        await _audit(desk, tx, "door_account.enabled" if enabled else "door_account.disabled", found)
    desk.door.lobby.accounts.forget()
    if taken_up:
        desk.door.doorbell.ring(Lane.DOOR)
    return shown(found, desk.door.settings.base_url)


@router.get("/door-accounts/{account_id}/callbacks")
@needs("read")
async def list_door_callbacks(
    desk: AtDesk, account_id: str, state: Literal["pending", "delivered", "given_up", "held"] | None = None, limit: Limit = 50, cursor: Cursor = None
) -> dict[str, Any]:
    """What was, or is to be, told through this account, newest first, with every attempt."""
    before = uuid_position(desk.position(cursor, "door_callbacks", account_id, state or ""))
    async with desk.door.db.transaction() as tx:
        account = await door_accounts.get(tx, read_id(PREFIX, account_id))
        wanted = deliveries.Wanted(state=state, receiver=foreign.receiver(account.account_id, ""))
        found = await deliveries.list_deliveries(tx, account.book_id, wanted, before=before, limit=limit + 1)
    return desk.page(found, limit, _callback, lambda one: [str(one.delivery_id)], "door_callbacks", account_id, state or "")


def _callback(one: deliveries.LoggedDelivery) -> dict[str, Any]:
    named = foreign.read_receiver(one.notify_url)
    return {
        "id": public_id(DELIVERY_PREFIX, one.delivery_id),
        "event_type": one.event_type,
        "url": named[1] if named is not None else None,
        "state": one.state,
        "attempts": one.attempts,
        "created_at": wire_time(one.created_at),
        "delivered_at": wire_time_or_none(one.delivered_at),
        "log": [{"at": wire_time(a.at), "took_ms": a.took_ms, "http_status": a.http_status, "trouble": a.trouble} for a in one.log],
    }


@router.post("/door-accounts/{account_id}/callbacks/{delivery_id}/resend")
@needs("webhooks:write")
async def resend_door_callback(desk: AtDesk, account_id: str, delivery_id: str) -> dict[str, Any]:
    """Tell it (again), as the order is now, with all retries anew."""
    async with desk.door.db.transaction() as tx:
        account = await door_accounts.get(tx, read_id(PREFIX, account_id))
        which = read_id(DELIVERY_PREFIX, delivery_id)
        await _resend(tx, account, which)
        await _audit(desk, tx, "door_callback.resent", account, delivery_id=delivery_id)
    desk.door.doorbell.ring(Lane.DOOR)
    return {"id": delivery_id, "state": "pending"}


async def _resend(tx: Tx, account: AccountShown, which: UUID) -> None:
    """Raises NotFound, also for another account's delivery."""
    found = (await deliveries.find_deliveries(tx, [(account.book_id, which)])).get((account.book_id, which))
    named = foreign.read_receiver(found.notify_url) if found is not None else None
    if named is None or named[0] != account.account_id:
        raise NotFound("no such callback")
    await webhooks.resend_delivery(tx, account.book_id, which)
