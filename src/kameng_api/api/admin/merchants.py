"""Merchants, their keys, and their webhook endpoints."""

import base64
import binascii
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import Field

from kameng_api.api.admin import shapes
from kameng_api.api.admin.desk import (
    Amount,
    AtDesk,
    Cursor,
    DeskRoute,
    Instant,
    needs,
    read_id,
    uuid_position,
)
from kameng_api.api.routes import WireModel
from kameng_api.api.wire import Limit
from kameng_api.catalog import actions as catalog
from kameng_api.ledger import actions as ledger
from kameng_api.ledger import queries as ledger_queries
from kameng_api.merchants import actions, queries
from kameng_api.merchants.rules import DEFAULT_SCOPES
from kameng_api.operators.actions import invalid
from kameng_api.webhooks import actions as webhooks
from kameng_api.webhooks import queries as webhook_queries
from kameng_api.webhooks.events import ENDPOINT_PREFIX

router = APIRouter(route_class=DeskRoute)

Environment = Literal["live", "test"]
AskedEnvironment = Annotated[Environment, Query()]


class MerchantWanted(WireModel):
    name: str
    level: str = "standard"
    currency: str = "CNY"
    timezone: str = "Asia/Shanghai"
    low_balance_at: Amount | None = None


@router.post("/merchants", status_code=201)
@needs("merchants:write")
async def create_merchant(desk: AtDesk, wanted: MerchantWanted) -> dict[str, Any]:
    async with desk.door.db.transaction() as tx:
        made = await actions.create_merchant(
            tx,
            name=wanted.name,
            open_book=ledger.open_book,
            level=wanted.level,
            currency=wanted.currency,
            timezone=wanted.timezone,
            low_balance_at=wanted.low_balance_at,
        )
        await desk.audit(tx, "merchant.created", shapes.merchant_name(made.merchant_id), name=made.name, level=made.level)
    return shapes.merchant(made)


@router.get("/merchants")
@needs("read")
async def list_merchants(desk: AtDesk, limit: Limit = 50, cursor: Cursor = None) -> dict[str, Any]:
    after = uuid_position(desk.position(cursor, "merchants"))
    async with desk.door.db.transaction() as tx:
        found = await queries.list_merchants(tx, after=after, limit=limit + 1)
    return desk.page(found, limit, shapes.merchant, lambda m: [str(m.merchant_id)], "merchants")


@router.get("/merchants/{merchant_id}")
@needs("read")
async def get_merchant(desk: AtDesk, merchant_id: str) -> dict[str, Any]:
    """With both balances."""
    async with desk.door.db.transaction() as tx:
        found = await queries.get_merchant(tx, read_id("mer", merchant_id))
        balances = {}
        for environment in ("live", "test"):
            book_id = await queries.get_book(tx, found.merchant_id, environment)
            balances[environment] = shapes.balance(await ledger_queries.get_balance(tx, book_id, found.currency))
    return {**shapes.merchant(found), "balances": balances}


@router.get("/merchants/{merchant_id}/transactions")
@needs("read")
async def list_transactions(
    desk: AtDesk, merchant_id: str, environment: AskedEnvironment = "live", limit: Limit = 50, cursor: Cursor = None
) -> dict[str, Any]:
    """Fund flow (资金流水) of the spendable balance, newest first."""
    context = ("transactions", merchant_id, environment)
    position = desk.position(cursor, *context)
    async with desk.door.db.transaction() as tx:
        found = await queries.get_merchant(tx, read_id("mer", merchant_id))
        book_id = await queries.get_book(tx, found.merchant_id, environment)
        lines = await ledger_queries.list_movements(
            tx, book_id, found.currency, before_version=int(position[0]) if position else None, limit=limit + 1
        )
    return desk.page(lines, limit, shapes.transaction, lambda line: [str(line.version)], *context)


@router.post("/merchants/{merchant_id}/suspend")
@needs("merchants:write")
async def suspend_merchant(desk: AtDesk, merchant_id: str) -> dict[str, Any]:
    """Every request is refused within 5 s; accepted orders go on."""
    async with desk.door.db.transaction() as tx:
        found = await actions.suspend(tx, read_id("mer", merchant_id))
        await desk.audit(tx, "merchant.suspended", merchant_id)
    return shapes.merchant(found)


@router.post("/merchants/{merchant_id}/resume")
@needs("merchants:write")
async def resume_merchant(desk: AtDesk, merchant_id: str) -> dict[str, Any]:
    async with desk.door.db.transaction() as tx:
        found = await actions.resume(tx, read_id("mer", merchant_id))
        await desk.audit(tx, "merchant.resumed", merchant_id)
    return shapes.merchant(found)


class LevelWanted(WireModel):
    level: str


@router.put("/merchants/{merchant_id}/level")
@needs("merchants:write")
async def set_level(desk: AtDesk, merchant_id: str, wanted: LevelWanted) -> dict[str, Any]:
    async with desk.door.db.transaction() as tx:
        owner = read_id("mer", merchant_id)
        async with catalog.level_change(tx, owner):
            found = await actions.set_level(tx, owner, wanted.level)
        await desk.audit(tx, "merchant.level_set", merchant_id, level=wanted.level)
    return shapes.merchant(found)


class KeyWanted(WireModel):
    environment: Environment
    algorithm: Literal["hmac", "ed25519"] = "hmac"
    public_key: str | None = Field(default=None, max_length=100)
    scopes: list[str] = Field(default_factory=lambda: list(DEFAULT_SCOPES), max_length=20)
    cidrs: list[str] = Field(default_factory=list, max_length=100)
    label: str = ""
    not_before: Instant | None = None
    expires_at: Instant | None = None
    reads_per_s: int | None = None
    writes_per_s: int | None = None

    def terms(self) -> actions.Terms:
        return actions.Terms(self.scopes, self.cidrs, self.label, self.not_before, self.expires_at, self.reads_per_s, self.writes_per_s)


def read_public_key(text: str | None) -> bytes:
    """Base64 of the key's 32 bytes. Raises Invalid."""
    try:
        return base64.b64decode(text or "", validate=True)
    except binascii.Error:
        raise invalid("/public_key", "format", "base64 of the 32 bytes of an Ed25519 public key") from None


@router.post("/merchants/{merchant_id}/keys", status_code=201)
@needs("keys:write")
async def create_key(desk: AtDesk, merchant_id: str, wanted: KeyWanted) -> dict[str, Any]:
    """The secret of an HMAC key is in this answer and nowhere else."""
    owner = read_id("mer", merchant_id)
    if wanted.algorithm == "hmac" and wanted.public_key is not None:
        raise invalid("/public_key", "not_allowed", "an HMAC key has none")
    async with desk.door.db.transaction() as tx:
        if wanted.algorithm == "hmac":
            made = await actions.create_hmac_key(tx, desk.door.keyring, owner, wanted.environment, wanted.terms())
        else:
            public_key = read_public_key(wanted.public_key)
            made = await actions.create_ed25519_key(tx, owner, wanted.environment, public_key, wanted.terms())
        await desk.audit(tx, "key.created", merchant_id, key_id=made.key.key_id, algorithm=wanted.algorithm, scopes=list(made.key.scopes))
    return shapes.new_key(made)


@router.get("/merchants/{merchant_id}/keys")
@needs("read")
async def list_keys(desk: AtDesk, merchant_id: str) -> dict[str, Any]:
    async with desk.door.db.transaction() as tx:
        owner = await queries.get_merchant(tx, read_id("mer", merchant_id))
        found = await queries.list_keys(tx, owner.merchant_id)
    return {"items": [shapes.key(one) for one in found], "next_cursor": None}


@router.post("/keys/{key_id}/revoke")
@needs("keys:write")
async def revoke_key(desk: AtDesk, key_id: str) -> dict[str, Any]:
    """Ends within 5 s, everywhere, for good."""
    async with desk.door.db.transaction() as tx:
        gone = await actions.revoke_key(tx, key_id)
        await desk.audit(tx, "key.revoked", shapes.merchant_name(gone.merchant_id), key_id=key_id)
    return shapes.key(gone)


class KeyRotated(WireModel):
    public_key: str | None = Field(default=None, max_length=100)


@router.post("/keys/{key_id}/rotate", status_code=201)
@needs("keys:write")
async def rotate_key(desk: AtDesk, key_id: str, wanted: KeyRotated) -> dict[str, Any]:
    """A second key with the terms of the first, which works until it is revoked."""
    public_key = None if wanted.public_key is None else read_public_key(wanted.public_key)
    async with desk.door.db.transaction() as tx:
        made = await actions.rotate_key(tx, desk.door.keyring, key_id, public_key=public_key)
        owner = shapes.merchant_name(made.key.merchant_id)
        await desk.audit(tx, "key.rotated", owner, key_id=key_id, new_key_id=made.key.key_id)
    return shapes.new_key(made)


class InEnvironment(WireModel):
    environment: Environment


@router.post("/merchants/{merchant_id}/delivery-keys", status_code=201)
@needs("keys:write")
async def create_delivery_key(desk: AtDesk, merchant_id: str, wanted: InEnvironment) -> dict[str, Any]:
    """The key under which card codes leave the house; it is in this answer and nowhere else."""
    async with desk.door.db.transaction() as tx:
        made = await actions.create_delivery_key(tx, desk.door.keyring, read_id("mer", merchant_id), wanted.environment)
        await desk.audit(tx, "delivery_key.created", merchant_id, kid=made.kid, environment=wanted.environment)
    return shapes.new_delivery_key(made)


@router.get("/merchants/{merchant_id}/delivery-keys")
@needs("read")
async def list_delivery_keys(desk: AtDesk, merchant_id: str, environment: AskedEnvironment = "live") -> dict[str, Any]:
    async with desk.door.db.transaction() as tx:
        book_id = await queries.get_book(tx, read_id("mer", merchant_id), environment)
        found = await queries.list_delivery_keys(tx, book_id)
    return {"items": [shapes.delivery_key(one) for one in found], "next_cursor": None}


@router.post("/delivery-keys/{kid}/revoke")
@needs("keys:write")
async def revoke_delivery_key(desk: AtDesk, kid: str) -> dict[str, Any]:
    async with desk.door.db.transaction() as tx:
        await actions.revoke_delivery_key(tx, kid)
        await desk.audit(tx, "delivery_key.revoked", kid)
    return {"kid": kid, "revoked": True}


@router.post("/merchants/{merchant_id}/webhook-secret", status_code=201)
@needs("keys:write")
async def renew_webhook_secret(desk: AtDesk, merchant_id: str, wanted: InEnvironment) -> dict[str, Any]:
    """A new default webhook secret, which signs calls to the `notify_url` of orders; it is in this answer and nowhere else.

    The one before signs beside it for 24 hours.
    """
    async with desk.door.db.transaction() as tx:
        book_id = await queries.get_book(tx, read_id("mer", merchant_id), wanted.environment)
        secret = await webhooks.rotate_notify_secret(tx, desk.door.keyring, book_id)
        await desk.audit(tx, "webhook_secret.renewed", merchant_id, environment=wanted.environment)
    return {"secret": secret}


@router.get("/merchants/{merchant_id}/webhook-endpoints")
@needs("read")
async def list_endpoints(desk: AtDesk, merchant_id: str, environment: AskedEnvironment = "live") -> dict[str, Any]:
    async with desk.door.db.transaction() as tx:
        book_id = await queries.get_book(tx, read_id("mer", merchant_id), environment)
        found = await webhook_queries.list_endpoints(tx, book_id)
    return {"items": [shapes.endpoint(one) for one in found], "next_cursor": None}


@router.post("/merchants/{merchant_id}/webhook-endpoints/{endpoint_id}/enable")
@needs("webhooks:write")
async def enable_endpoint(desk: AtDesk, merchant_id: str, endpoint_id: str, wanted: InEnvironment) -> dict[str, Any]:
    """Sends again from now on; what was missed stays held until the merchant replays it."""
    async with desk.door.db.transaction() as tx:
        book_id = await queries.get_book(tx, read_id("mer", merchant_id), wanted.environment)
        found = await webhooks.enable(tx, book_id, read_id(ENDPOINT_PREFIX, endpoint_id))
        await desk.audit(tx, "webhook_endpoint.enabled", merchant_id, endpoint_id=endpoint_id)
    return shapes.endpoint(found)
