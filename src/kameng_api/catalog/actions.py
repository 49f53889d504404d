"""Changes to the catalogue. Each takes the version row's lock first, so copies know that they are stale."""

import hashlib
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from kameng_api.catalog import barcodes, changes, costs, definitions, hand_definitions, queries, rules
from kameng_api.catalog.errors import BarcodeTaken, ChannelExists, ChannelUnknown, IdentityFixed
from kameng_api.catalog.hand import Allow, Pin, Rule, write_facts
from kameng_api.catalog.rules import Channel, Offer, Price, Product
from kameng_api.catalog.tables import (
    catalog_version,
    channels,
    offers,
    prices,
    product_barcodes,
    product_grants,
    products,
    routing_rules,
)
from kameng_api.kit.crypto import Keyring
from kameng_api.kit.db import Tx, execute, fetch
from kameng_api.kit.errors import FieldError, Invalid
from kameng_api.kit.ids import new_ulid
from kameng_api.outbox import actions as outbox
from kameng_api.outbox.rules import fact_of

_TOKEN_BYTES = 32


async def put_product(tx: Tx, product: Product) -> bool:
    """Create the SKU, or change what may change about it; True when it is new. Raises Invalid, IdentityFixed."""
    _refuse(definitions.check_product(product))
    async with _change(tx, [product.sku]):
        old = await queries.find_product(tx, product.sku)
        if old is not None and (fixed := definitions.identity_changes(old, product)):
            raise IdentityFixed(f"{', '.join(fixed)} of a SKU may not change; use another SKU")
        row = _row(product)
        statement = upsert(products).values(**row)
        await tx.execute(
            statement.on_conflict_do_update(
                index_elements=[products.c.sku],
                set_={name: statement.excluded[name] for name in row if name != "sku"} | {"updated_at": func.now()},
            )
        )
    return old is None


def _row(product: Product) -> dict[str, Any]:
    row = {name: value for name, value in asdict(product).items() if name not in ("created_at", "updated_at")}
    return row | {
        "fields": [rules.form_field(wanted) for wanted in product.fields],
        "environments": sorted(product.environments),
    }


async def set_product_status(tx: Tx, sku: str, status: str) -> None:
    """`on_sale`, `paused` or `retired`. Raises ProductUnknown, Invalid."""
    if status not in rules.PRODUCT_STATUSES:
        raise _invalid("/status", "unknown_value", " | ".join(rules.PRODUCT_STATUSES))
    async with _change(tx, [sku]):
        await queries.get_product(tx, sku)
        await tx.execute(update(products).where(products.c.sku == sku).values(status=status, updated_at=func.now()))


async def set_price(
    tx: Tx, sku: str, price: Price, *, level: str | None = None, merchant_id: UUID | None = None
) -> None:
    """The price for everybody, for a level, or for one merchant. Raises ProductUnknown, Invalid."""
    await _check_scope(tx, level, merchant_id)
    async with _change(tx, [sku]):
        _refuse(definitions.check_price(await queries.get_product(tx, sku), price))
        values = {"unit_price": price.unit_price, "rate_ppm": price.rate_ppm}
        statement = upsert(prices).values(price_id=new_ulid(), sku=sku, level=level, merchant_id=merchant_id, **values)
        await tx.execute(
            statement.on_conflict_do_update(
                index_elements=["sku", "level", "merchant_id"], set_=values | {"updated_at": func.now()}
            )
        )


async def remove_price(tx: Tx, sku: str, *, level: str | None = None, merchant_id: UUID | None = None) -> bool:
    """True when there was one. Whoever bought at it falls back to the next wider price, or sees the product no more."""
    async with _change(tx, [sku]):
        gone = await tx.execute(
            delete(prices).where(
                prices.c.sku == sku,
                prices.c.level.is_not_distinct_from(level),
                prices.c.merchant_id.is_not_distinct_from(merchant_id),
            )
        )
    return gone.rowcount > 0


async def _check_scope(tx: Tx, level: str | None, merchant_id: UUID | None) -> None:
    if level is not None and merchant_id is not None:
        raise _invalid("/level", "ambiguous", "a price is for a level or for a merchant, not both")
    if level is not None and not (1 <= len(level) <= 32 and level.isprintable()):
        raise _invalid("/level", "format", "1–32 printable characters")
    if merchant_id is not None:
        await _check_merchants(tx, [merchant_id], "/merchant_id")


async def set_grants(tx: Tx, sku: str, merchant_ids: Sequence[UUID]) -> None:
    """Only these merchants may buy the SKU; none named opens it to all. Raises ProductUnknown, Invalid."""
    wanted = sorted(set(merchant_ids))
    await _check_merchants(tx, wanted, "/merchant_ids")
    async with _change(tx, [sku]):
        await queries.get_product(tx, sku)
        await tx.execute(delete(product_grants).where(product_grants.c.sku == sku))
        if wanted:
            await tx.execute(insert(product_grants), [{"sku": sku, "merchant_id": one} for one in wanted])


async def set_barcodes(tx: Tx, sku: str, wanted: Sequence[str]) -> None:
    """These barcodes mean the SKU, and no others. Raises ProductUnknown, Invalid, BarcodeTaken."""
    _refuse(definitions.check_barcodes(wanted))
    shown = {barcodes.key_of(one): one for one in wanted}
    async with _change(tx, [sku]):
        await queries.get_product(tx, sku)
        taken = select(product_barcodes.c.shown, product_barcodes.c.sku).where(product_barcodes.c.barcode.in_(shown), product_barcodes.c.sku != sku)
        if (other := (await tx.execute(taken.limit(1))).one_or_none()) is not None:
            raise BarcodeTaken(f"{other.shown} means {other.sku}", sku=other.sku)
        await tx.execute(delete(product_barcodes).where(product_barcodes.c.sku == sku))
        if shown:
            rows = [{"barcode": key, "sku": sku, "shown": one} for key, one in shown.items()]
            await tx.execute(insert(product_barcodes), rows)


@asynccontextmanager
async def level_change(tx: Tx, merchant_id: UUID) -> AsyncIterator[None]:
    """Around a merchant's move to another price level: its change feed names afterwards what it sees differently.

    No webhooks: one for each product would be thousands at once.
    """
    version = await bump(tx)  # first: the level read next is the one that nobody else is changing
    old = [reader for reader in await queries.list_readers(tx, suspended=True) if reader.merchant_id == merchant_id]
    yield
    await changes.record_level(tx, version, old, await queries.load_snapshot(tx))


async def _check_merchants(tx: Tx, merchant_ids: Sequence[UUID], pointer: str) -> None:
    [row] = await fetch(tx, "SELECT count(*) AS n FROM merchants WHERE merchant_id = ANY ($1::uuid[])", merchant_ids)
    if row["n"] != len(merchant_ids):
        raise _invalid(pointer, "unknown_value", "no such merchant")


@dataclass(frozen=True, slots=True)
class NewChannel:
    """What an operator says of a connection. `settings` is JSON text that the adapter's model has accepted."""

    channel_id: str
    name: str
    adapter: str
    environment: str
    settings: bytes
    concurrency: int = 100
    wallet_low_at: int | None = None
    status: str = "enabled"


async def create_channel(tx: Tx, keyring: Keyring, new: NewChannel) -> str:
    """Store a connection; returns the callback token. Raises Invalid, ChannelExists."""
    channel = Channel(
        channel_id=new.channel_id,
        name=new.name,
        adapter=new.adapter,
        environment=new.environment,
        status=new.status,
        concurrency=new.concurrency,
        wallet_low_at=new.wallet_low_at,
    )
    _refuse(definitions.check_channel(channel))
    token = secrets.token_urlsafe(_TOKEN_BYTES)
    async with _change(tx, []):
        statement = upsert(channels).values(
            channel_id=new.channel_id,
            name=new.name,
            adapter=new.adapter,
            environment=new.environment,
            status=new.status,
            concurrency=new.concurrency,
            wallet_low_at=new.wallet_low_at,
            settings_sealed=keyring.seal(new.settings, rules.settings_aad(new.channel_id)),
            callback_token_hash=hashlib.sha256(token.encode()).digest(),
            callback_token_sealed=keyring.seal(token.encode(), rules.callback_token_aad(new.channel_id)),
        )
        if not (await tx.execute(statement.on_conflict_do_nothing())).rowcount:
            raise ChannelExists("this channel id is taken")
    return token


async def change_channel(
    tx: Tx,
    keyring: Keyring,
    channel_id: str,
    *,
    name: str,
    settings: bytes | None,
    concurrency: int,
    wallet_low_at: int | None,
) -> None:
    """Adapter and environment stay; `settings` None keeps the sealed ones. Raises ChannelUnknown, Invalid."""
    async with _change(tx, []):
        old = await queries.get_channel(tx, channel_id)
        values: dict[str, Any] = {"name": name, "concurrency": concurrency, "wallet_low_at": wallet_low_at}
        _refuse(definitions.check_channel(replace(old, **values)))
        if settings is not None:
            values["settings_sealed"] = keyring.seal(settings, rules.settings_aad(channel_id))
        statement = update(channels).where(channels.c.channel_id == channel_id)
        await tx.execute(statement.values(**values, updated_at=func.now()))


async def set_channel_status(tx: Tx, channel_id: str, status: str) -> None:
    """A disabled channel gets no new orders; open ones are still looked up. Raises ChannelUnknown, Invalid."""
    if status not in rules.SWITCH:
        raise _invalid("/status", "unknown_value", " | ".join(rules.SWITCH))
    sold = (await tx.execute(select(offers.c.sku).where(offers.c.channel_id == channel_id))).scalars()
    async with stock_change(tx, sorted(sold)):
        statement = update(channels).where(channels.c.channel_id == channel_id)
        if not (await tx.execute(statement.values(status=status, updated_at=func.now()))).rowcount:
            raise ChannelUnknown("no channel has this id")


async def record_wallet(tx: Tx, channel_id: str, balance: int) -> None:
    """What the supplier says our wallet holds, 1/10000 units. Raises ChannelUnknown."""
    known = await queries.get_channel(tx, channel_id)
    paused = known.is_paused_at(balance)
    if known.wallet_balance != balance or paused != (known.wallet_paused_at is not None):
        await bump(tx)
    values: dict[str, Any] = {"wallet_balance": balance, "wallet_checked_at": func.now()}
    if paused != (known.wallet_paused_at is not None):
        values["wallet_paused_at"] = func.now() if paused else None
    await tx.execute(update(channels).where(channels.c.channel_id == channel_id).values(**values))


async def set_wallet_terms(tx: Tx, channel_id: str, *, low_at: int | None, floor: int | None, resume_at: int | None, hours_left: int | None) -> None:
    """When somebody is told of a wallet, and when its channel pauses; see `Channel`. 1/10000 units. Raises ChannelUnknown, Invalid.

    A pause under the old terms is weighed anew at once, by what the supplier said last.
    """
    async with _change(tx, []):
        old = await queries.get_channel(tx, channel_id)
        wanted = replace(old, wallet_low_at=low_at, wallet_floor=floor, wallet_resume_at=resume_at, wallet_hours_left=hours_left)
        _refuse(definitions.check_channel(wanted))
        paused = wanted.wallet_balance is not None and wanted.is_paused_at(wanted.wallet_balance)
        values: dict[str, Any] = {"wallet_low_at": low_at, "wallet_floor": floor, "wallet_resume_at": resume_at, "wallet_hours_left": hours_left}
        if paused != (old.wallet_paused_at is not None):
            values["wallet_paused_at"] = func.now() if paused else None
        await tx.execute(update(channels).where(channels.c.channel_id == channel_id).values(**values, updated_at=func.now()))


async def set_no_orders_after(tx: Tx, channel_id: str, at: datetime | None) -> None:
    """From `at` on the channel takes no new orders; None: no document forbids it. Raises ChannelUnknown."""
    if (await queries.get_channel(tx, channel_id)).no_orders_after == at:
        return
    async with _change(tx, []):
        await tx.execute(update(channels).where(channels.c.channel_id == channel_id).values(no_orders_after=at, updated_at=func.now()))


async def set_offer(tx: Tx, offer: Offer, said_by: str = "operator") -> bool:
    """Create or replace a channel's offer for a SKU; True when new. Raises ProductUnknown, ChannelUnknown, Invalid."""
    async with _change(tx, [offer.sku]):
        _refuse(definitions.check_offer(await queries.get_product(tx, offer.sku), offer))
        await queries.get_channel(tx, offer.channel_id)
        row = {name: value for name, value in asdict(offer).items() if name not in ("quoted_at", "stocked_at", "listed_at")}
        old = await tx.execute(
            select(offers.c.sku).where(offers.c.channel_id == offer.channel_id, offers.c.sku == offer.sku)
        )
        new = old.one_or_none() is None
        statement = upsert(offers).values(**row)
        await tx.execute(
            statement.on_conflict_do_update(
                index_elements=["channel_id", "sku"],
                set_={name: statement.excluded[name] for name in row if name not in ("channel_id", "sku")}
                | {"quoted_at": func.now(), "updated_at": func.now()},
            )
        )
        await costs.note_costs(tx, offer.channel_id, [offer.sku], said_by)
    return new


async def put_rule(tx: Tx, rule: Rule, now: datetime) -> tuple[Rule, bool]:
    """Say it, or say it anew for the same scope; the rule as it stands, and True when nothing was said before.

    Raises Invalid, ProductUnknown, ChannelUnknown.
    """
    _refuse(hand_definitions.check_rule(rule, now))
    scope = rule.scope
    async with _change(tx, []):
        await _check_named(tx, rule)
        values = {
            "facts": write_facts(rule.facts),
            "starts_at": rule.starts_at,
            "expires_at": rule.expires_at,
            "reason": rule.reason.strip(),
            "made_by": rule.made_by,
        }
        same = [routing_rules.c[name].is_not_distinct_from(value) for name, value in asdict(scope).items()]
        known = (await tx.execute(select(routing_rules.c.rule_id).where(routing_rules.c.kind == rule.kind.value, *same))).scalar_one_or_none()
        if known is None:
            known = new_ulid()
            await tx.execute(insert(routing_rules).values(rule_id=known, kind=rule.kind.value, **asdict(scope), **values))
            return await queries.get_rule(tx, known), True
        statement = update(routing_rules).where(routing_rules.c.rule_id == known)
        await tx.execute(statement.values(**values, updated_at=func.now()))
    return await queries.get_rule(tx, known), False


async def _check_named(tx: Tx, rule: Rule) -> None:
    """Everything a rule names exists."""
    if rule.scope.sku is not None:
        await queries.get_product(tx, rule.scope.sku)
    if rule.scope.channel_id is not None:
        await queries.get_channel(tx, rule.scope.channel_id)
    if rule.scope.merchant_id is not None:
        await _check_merchants(tx, [rule.scope.merchant_id], "/merchant_id")
    if isinstance(rule.facts, Pin | Allow):
        wanted = rule.facts.channels
        known = set((await tx.execute(select(channels.c.channel_id).where(channels.c.channel_id.in_(wanted)))).scalars())
        _refuse([FieldError(f"/channels/{n}", "unknown_value", "no such channel") for n, one in enumerate(wanted) if one not in known])


async def remove_rule(tx: Tx, rule_id: UUID) -> Rule:
    """Take it back; returns what it said. Raises RuleUnknown."""
    async with _change(tx, []):
        rule = await queries.get_rule(tx, rule_id)
        await tx.execute(delete(routing_rules).where(routing_rules.c.rule_id == rule_id))
    return rule


async def prune_rules(tx: Tx, *, days: int) -> int:
    """Throw away rules that ended more than `days` ago; no copy holds them any more."""
    return await execute(tx, "DELETE FROM routing_rules WHERE expires_at < now() - make_interval(days => $1)", days)


@asynccontextmanager
async def _change(tx: Tx, skus: Sequence[str]) -> AsyncIterator[None]:
    """Around every change: take the version's lock, and tell the books that can see a difference afterwards."""
    version = await bump(tx)
    before = await queries.load_snapshot(tx, skus)
    yield
    if not skus:
        return
    after = await queries.load_snapshot(tx, skus)
    known = [sku for sku in skus if sku in after.products]
    await changes.record_shared(tx, version, before, after, known)
    seen = rules.find_changes(before, after, known, await queries.list_readers(tx, suspended=True))
    if seen:
        await changes.record_own(tx, version, seen)
        active = {reader.book_id for reader in await queries.list_readers(tx)}
        heard = [change for change in seen if change.reader.book_id in active]
        await outbox.record(
            tx,
            [fact_of(change.reader.book_id, change.type, change.sku, version, change.view) for change in heard],
        )


@asynccontextmanager
async def stock_change(tx: Tx, skus: Sequence[str]) -> AsyncIterator[None]:
    """Around a change after which nothing but the stock of these SKUs can look different."""
    version = await bump(tx)
    before = await queries.load_snapshot(tx, skus) if skus else None
    yield
    if before is not None:
        await changes.record_shared(tx, version, before, await queries.load_snapshot(tx, skus), skus)


async def bump(tx: Tx) -> int:
    """Take the version's lock and move it on; returns the new version."""
    statement = upsert(catalog_version).values(singleton=True, version=1)
    grown = {"version": catalog_version.c.version + 1}
    statement = statement.on_conflict_do_update(index_elements=["singleton"], set_=grown)
    return int((await tx.execute(statement.returning(catalog_version.c.version))).scalar_one())


def _refuse(errors: Sequence[FieldError]) -> None:
    if errors:
        raise Invalid("the definition has mistakes", errors=errors)


def _invalid(pointer: str, code: str, detail: str) -> Invalid:
    return Invalid(detail, errors=[FieldError(pointer, code, detail)])
