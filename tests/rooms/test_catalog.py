"""The catalogue on a real PostgreSQL."""

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

import orjson
import pytest
from tests.factories import listing

from kameng_api.catalog import actions, queries, rules
from kameng_api.catalog.errors import ChannelExists, ChannelUnknown, IdentityFixed, ProductUnknown
from kameng_api.catalog.rules import FormField, Offer, Price, Product
from kameng_api.kit.crypto import CryptoError, Keyring
from kameng_api.kit.db import Database, execute, fetch
from kameng_api.kit.errors import Invalid

KEYRING = Keyring({"one": bytes(32)}, "one")
TOPUP = Product("mobile-cn-100", "话费 100 元", "topup", face_value=1_000_000, target_kind="mobile")
SETTINGS = b'{"app_id":"a","secret":"very-secret-value"}'
ANNA, BO, CAI = UUID(int=1), UUID(int=2), UUID(int=3)


async def add_merchant(db: Database, merchant_id: UUID, book_id: int, *, level: str = "standard") -> None:
    """Books `book_id` (live) and `book_id + 1` (test)."""
    async with db.transaction() as tx:
        await execute(
            tx,
            "INSERT INTO merchants (merchant_id, name, level) VALUES ($1, $2, $3)",
            merchant_id, str(merchant_id), level,
        )  # fmt: skip
        await execute(
            tx,
            "INSERT INTO books (book_id, merchant_id, environment) VALUES ($1, $3, 'live'), ($2, $3, 'test')",
            book_id, book_id + 1, merchant_id,
        )  # fmt: skip


async def events(db: Database) -> list[tuple[int, str, dict[str, Any]]]:
    async with db.transaction() as tx:
        rows = await fetch(tx, "SELECT book_id, type, body FROM events ORDER BY event_id")
    return [(r["book_id"], r["type"], orjson.loads(r["body"])["data"]) for r in rows]


async def version(db: Database) -> int:
    async with db.transaction() as tx:
        return await queries.find_version(tx)


async def put(db: Database, *products: Product) -> None:
    async with db.transaction() as tx:
        for product in products:
            await actions.put_product(tx, product)


def new_channel(channel_id: str = "one", **more: Any) -> actions.NewChannel:
    return actions.NewChannel(channel_id, "One", "simulator", "live", SETTINGS, **more)


async def test_a_product_comes_back_as_it_was_defined(database: Database) -> None:
    product = replace(
        TOPUP,
        fields=(FormField("server", "区服", pattern="CN-[0-9]+", max_length=8), FormField("note", "n", required=False)),
        environments=frozenset({"test"}),
        duplicate_window_s=600,
    )
    async with database.transaction() as tx:
        assert await actions.put_product(tx, product)
        assert not await actions.put_product(tx, product)
    async with database.transaction() as tx:
        found = (await queries.load_snapshot(tx)).products[TOPUP.sku]
    assert replace(found, created_at=None, updated_at=None) == product


async def test_every_change_grows_the_version(database: Database) -> None:
    await add_merchant(database, ANNA, 16)
    seen = [await version(database)]

    async def step(work: Any) -> None:
        async with database.transaction() as tx:
            await work(tx)
        seen.append(await version(database))

    await step(lambda tx: actions.put_product(tx, TOPUP))
    await step(lambda tx: actions.set_price(tx, TOPUP.sku, Price(985_000)))
    await step(lambda tx: actions.remove_price(tx, TOPUP.sku))
    await step(lambda tx: actions.set_product_status(tx, TOPUP.sku, "paused"))
    await step(lambda tx: actions.set_grants(tx, TOPUP.sku, [ANNA]))
    await step(lambda tx: actions.create_channel(tx, KEYRING, new_channel()))
    await step(lambda tx: actions.set_offer(tx, Offer("one", TOPUP.sku, "X", unit_cost=980_000, stock=4)))
    await step(lambda tx: listing.hear(tx, "one", TOPUP.sku, stock=3))
    await step(lambda tx: actions.record_wallet(tx, "one", 5))
    await step(lambda tx: actions.set_channel_status(tx, "one", "disabled"))
    assert seen == sorted(set(seen))
    await step(lambda tx: actions.record_wallet(tx, "one", 5))
    assert seen[-1] == seen[-2], "what did not change makes no copy stale"


async def test_changes_in_parallel_each_get_a_version_of_their_own(database: Database) -> None:
    await put(database, TOPUP)
    before = await version(database)

    async def price(amount: int) -> None:
        async with database.transaction() as tx:
            await actions.set_price(tx, TOPUP.sku, Price(amount))

    await asyncio.gather(*(price(900_000 + n) for n in range(10)))
    assert await version(database) == before + 10


async def test_a_refused_change_changes_nothing(database: Database) -> None:
    before = await version(database)
    with pytest.raises(Invalid) as refused:
        async with database.transaction() as tx:
            await actions.put_product(tx, replace(TOPUP, sku="a b", max_quantity=0))
    assert [e.pointer for e in refused.value.errors] == ["/sku", "/max_quantity"]
    assert await version(database) == before
    for work in (
        lambda tx: actions.set_price(tx, "nothing", Price(1)),
        lambda tx: actions.set_product_status(tx, "nothing", "paused"),
        lambda tx: actions.set_offer(tx, Offer("one", "nothing", "X", unit_cost=1)),
    ):
        with pytest.raises(ProductUnknown):
            async with database.transaction() as tx:
                await work(tx)
    await put(database, TOPUP)
    with pytest.raises(ChannelUnknown):
        async with database.transaction() as tx:
            await actions.set_offer(tx, Offer("nowhere", TOPUP.sku, "X", unit_cost=1))
    for unknown in ({"merchant_id": BO}, {"level": "x", "merchant_id": BO}):
        with pytest.raises(Invalid):
            async with database.transaction() as tx:
                await actions.set_price(tx, TOPUP.sku, Price(1), **unknown)  # type: ignore[arg-type]


@pytest.mark.parametrize("change", [{"face_value": 500_000}, {"currency": "USD"}, {"target_kind": "account"}])
async def test_what_a_sku_is_does_not_change(database: Database, change: dict[str, Any]) -> None:
    await put(database, TOPUP)
    with pytest.raises(IdentityFixed):
        await put(database, replace(TOPUP, **change))
    await put(database, replace(TOPUP, name="another name"))


async def test_settings_and_token_are_sealed_and_bound_to_their_channel(database: Database) -> None:
    async with database.transaction() as tx:
        token = await actions.create_channel(tx, KEYRING, new_channel("one"))
        await actions.create_channel(tx, KEYRING, new_channel("two"))
    async with database.transaction() as tx:
        seen = await queries.load_snapshot(tx)
        [stored] = await fetch(tx, "SELECT c::text AS row FROM channels c WHERE channel_id = 'one'")
    one, two = seen.channels["one"], seen.channels["two"]
    assert rules.open_settings(KEYRING, one) == SETTINGS
    assert rules.open_callback_token(KEYRING, one) == token
    assert rules.find_channel_by_token_hash(seen, hashlib.sha256(token.encode()).digest()) == one
    assert rules.find_channel_by_token_hash(seen, hashlib.sha256(b"x").digest()) is None
    assert b"very-secret-value".hex() not in stored["row"]
    assert token.encode().hex() not in stored["row"]
    assert "very-secret" not in repr(one)
    with pytest.raises(CryptoError):
        rules.open_settings(KEYRING, replace(two, settings_sealed=one.settings_sealed))


async def test_a_channel_id_is_taken_once_and_settings_may_change(database: Database) -> None:
    async with database.transaction() as tx:
        await actions.create_channel(tx, KEYRING, new_channel())
    with pytest.raises(ChannelExists):
        async with database.transaction() as tx:
            await actions.create_channel(tx, KEYRING, new_channel())
    async with database.transaction() as tx:
        await actions.change_channel(
            tx, KEYRING, "one", name="Uno", settings=b"{}", concurrency=7, wallet_low_at=10_000
        )
        channel = await queries.get_channel(tx, "one")
    assert (channel.name, channel.concurrency, channel.wallet_low_at) == ("Uno", 7, 10_000)
    assert rules.open_settings(KEYRING, channel) == b"{}"


async def told(db: Database, after: int) -> Sequence[tuple[int, str]]:
    return [(book, kind) for book, kind, _ in (await events(db))[after:]]


async def test_only_books_that_see_a_difference_are_told(database: Database) -> None:
    await add_merchant(database, ANNA, 16)
    await add_merchant(database, BO, 18, level="gold")
    await add_merchant(database, CAI, 20)
    async with database.transaction() as tx:
        await execute(tx, "UPDATE merchants SET status = 'suspended' WHERE merchant_id = $1", CAI)
        await actions.put_product(tx, TOPUP)
    assert await told(database, 0) == [], "without a price nobody sees it"

    async def price(amount: int, **scope: Any) -> None:
        async with database.transaction() as tx:
            await actions.set_price(tx, TOPUP.sku, Price(amount), **scope)

    await price(1_000_000)
    appeared = await events(database)
    assert [(book, kind) for book, kind, _ in appeared] == [(n, "product.status_changed") for n in (16, 17, 18, 19)]
    assert appeared[0][2]["object"]["unit_price"] == "100.0000"
    assert appeared[0][2]["object"]["status"] == "on_sale"
    assert appeared[0][2]["id"] == TOPUP.sku

    await price(990_000, level="gold")
    assert await told(database, 4) == [(18, "product.price_changed"), (19, "product.price_changed")]
    await price(1_010_000)
    assert await told(database, 6) == [(16, "product.price_changed"), (17, "product.price_changed")]
    await price(1_010_000, merchant_id=ANNA)
    assert await told(database, 8) == [], "another row, the same price"
    async with database.transaction() as tx:
        await actions.put_product(tx, replace(TOPUP, environments=frozenset({"test"})))
    assert await told(database, 8) == [(16, "product.status_changed"), (18, "product.status_changed")]
    async with database.transaction() as tx:
        await actions.set_product_status(tx, TOPUP.sku, "paused")
    last = (await events(database))[10:]
    assert [(book, kind) for book, kind, _ in last] == [(17, "product.status_changed"), (19, "product.status_changed")]
    assert last[0][2]["object"]["status"] == "paused"
    versions = [data["version"] for _, _, data in await events(database)]
    assert versions == sorted(versions)


async def test_a_rolled_back_change_tells_nobody(database: Database) -> None:
    await add_merchant(database, ANNA, 16)
    await put(database, TOPUP)
    with pytest.raises(RuntimeError):
        async with database.transaction() as tx:
            await actions.set_price(tx, TOPUP.sku, Price(1_000_000))
            raise RuntimeError
    assert await events(database) == []


async def test_offers_prices_and_grants_are_listed(database: Database) -> None:
    await add_merchant(database, ANNA, 16)
    second = replace(TOPUP, sku="mobile-cn-200", face_value=2_000_000)
    await put(database, TOPUP, second)
    async with database.transaction() as tx:
        await actions.create_channel(tx, KEYRING, new_channel("one"))
        await actions.create_channel(tx, KEYRING, new_channel("two"))
        for channel in ("one", "two"):
            for sku in (TOPUP.sku, second.sku):
                await actions.set_offer(tx, Offer(channel, sku, f"{channel}-{sku}", rate_ppm=990_000))
        await actions.set_price(tx, TOPUP.sku, Price(1), merchant_id=ANNA)
        await actions.set_price(tx, TOPUP.sku, Price(3))
        await actions.set_price(tx, TOPUP.sku, Price(2), level="gold")
        await actions.set_grants(tx, TOPUP.sku, [ANNA, ANNA])
    async with database.transaction() as tx:
        first = await queries.list_offers(tx, limit=3)
        rest = await queries.list_offers(tx, after=(first[-1].channel_id, first[-1].sku), limit=3)
        assert [(o.channel_id, o.sku) for o in first + rest] == [
            (c, s) for c in ("one", "two") for s in (TOPUP.sku, second.sku)
        ]
        assert [p["unit_price"] for p in await queries.list_prices(tx, TOPUP.sku)] == [3, 2, 1]
        assert await queries.list_grants(tx, TOPUP.sku) == [ANNA]
        assert [p.sku for p in await queries.list_products(tx, after=TOPUP.sku, limit=9)] == [second.sku]
        seen = await queries.load_snapshot(tx)
    assert rules.cheapest_cost(seen, second.sku, "live", None) == 1_980_000
    assert not rules.may_buy(seen, TOPUP.sku, BO)
