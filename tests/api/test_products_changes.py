"""The whole catalogue as one merchant sees it, and everything that changes after it: nothing twice, nothing missed, nothing of others."""

import asyncio
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from fastapi import FastAPI
from tests.factories import listing
from tests.factories.client import Client
from tests.factories.merchants import TestMerchant, make_key, make_merchant
from tests.factories.shop import stock_the_shop

from kameng_api.catalog import actions as catalog
from kameng_api.catalog import queries as catalog_queries
from kameng_api.catalog.rules import Offer, Price
from kameng_api.kit.db import Database, execute, fetch
from kameng_api.kit.ids import new_ulid
from kameng_api.merchants import actions as merchants
from kameng_api.settings import Settings

SKU, OTHER = "mobile-cn-100", "mobile-cn-50"


@pytest.fixture
async def goods(database: Database, settings: Settings) -> None:
    await stock_the_shop(database, settings, "http://127.0.0.1:9", {"sim-a": "s" * 20, "sim-b": "t" * 20})


async def whole(client: Client, **headers: str) -> Any:
    answer = await client.get("/v1/products?whole=true", headers=headers)
    assert answer.status_code == 200, answer.text
    return answer


async def news(client: Client, after: str, limit: int = 100) -> tuple[list[tuple[str, list[str]]], str]:
    answer = await client.get(f"/v1/products/changes?limit={limit}&after={after}")
    assert answer.status_code == 200, answer.text
    page = answer.json()
    return [(item["sku"], item["changed"]) for item in page["items"]], page["after"]


async def change(db: Database, what: str) -> None:
    async with db.transaction() as tx:
        product = await catalog_queries.get_product(tx, SKU)
        match what:
            case "price":
                await catalog.set_price(tx, SKU, Price(unit_price=999_000))
            case "status":
                await catalog.set_product_status(tx, SKU, "paused")
            case "details":
                await catalog.put_product(tx, replace(product, name="话费 100 元"))
            case "carriers":
                await catalog.put_product(tx, replace(product, carriers=("cmcc",)))
            case "barcodes":
                await catalog.set_barcodes(tx, SKU, ["4006381333931"])
            case "stock":
                for channel in ("sim-a", "sim-b"):
                    await listing.hear(tx, channel, SKU, stock=0)
            case "offers":
                for channel in ("sim-a", "sim-b"):
                    await catalog.set_offer(tx, Offer(channel, SKU, "hf-100", unit_cost=1, status="disabled"))


SEEN = {
    "price": ["price"], "status": ["status"], "details": ["details"], "carriers": ["details"], "barcodes": ["details"],
    "stock": ["stock"], "offers": ["stock"],
}  # fmt: skip


@pytest.mark.parametrize("what", list(SEEN))
async def test_each_kind_of_change_is_told_once_and_the_tag_moves_with_it(client: Client, database: Database, what: str) -> None:
    before = await whole(client)
    tag, after = before.headers["ETag"], before.json()["changes_after"]
    assert await news(client, after) == ([], after)
    await change(database, what)
    [(sku, kinds)], then = await news(client, after)
    assert (sku, kinds) == (SKU, SEEN[what])
    assert await news(client, then) == ([], then)
    now = await whole(client, **{"If-None-Match": tag})
    assert now.headers["ETag"] != tag
    assert now.json()["changes_after"] == then
    told = (await client.get(f"/v1/products/changes?after={after}")).json()["items"][0]["product"]
    assert told in now.json()["items"]
    assert told not in before.json()["items"]


async def test_an_unchanged_catalogue_is_not_sent_again(client: Client, database: Database) -> None:
    first = await whole(client)
    tag = first.headers["ETag"]
    assert tag.startswith('"')
    async with database.transaction() as tx:  # none of it can be seen: a wallet, a cost, one more in stock, another merchant's price
        await catalog.record_wallet(tx, "sim-a", 1)
        await listing.hear(tx, "sim-a", SKU, cost=970_000, stock=500)
    for held in (tag, f'"other", {tag}'):
        again = await client.get("/v1/products?whole=true", headers={"If-None-Match": held})
        assert (again.status_code, again.content, again.headers["ETag"]) == (304, b"", tag)
    assert (await whole(client)).content == first.content
    assert len(first.json()["items"]) == 6


async def test_the_whole_list_has_no_pages_and_the_pages_no_feed(client: Client) -> None:
    for query in ("whole=true&limit=5", "whole=true&cursor=x", "whole=1", "whole=false"):
        assert (await client.get(f"/v1/products?{query}")).status_code == 422, query
    page = (await client.get("/v1/products?limit=2")).json()
    assert (len(page["items"]), page["changes_after"]) == (2, None)


async def test_other_merchants_prices_are_nobodys_business(client: Client, app: FastAPI, database: Database, settings: Settings) -> None:
    other = await make_merchant(database, settings)
    after = (await whole(client)).json()["changes_after"]
    async with Client(app, other.key) as theirs:
        their_after = (await whole(theirs)).json()["changes_after"]
        async with database.transaction() as tx:
            await catalog.set_price(tx, SKU, Price(unit_price=990_000), merchant_id=other.merchant_id)
            await catalog.set_grants(tx, OTHER, [other.merchant_id])
        told, _ = await news(theirs, their_after)
        assert told == [(SKU, ["price"])]
        refused = await theirs.get(f"/v1/products/changes?after={after}")
        assert (refused.status_code, refused.json()["code"]) == (400, "cursor_invalid")
    assert (await news(client, after))[0] == [(OTHER, ["status"])]
    shown = (await client.get(f"/v1/products/changes?after={after}")).json()["items"][0]["product"]
    assert shown["status"] == "retired"
    await change(database, "stock")
    async with database.transaction() as tx:
        await listing.hear(tx, "sim-a", OTHER, stock=0)
        await listing.hear(tx, "sim-b", OTHER, stock=0)
    _, then = await news(client, after)
    assert OTHER not in [item["sku"] for item in (await whole(client)).json()["items"]]
    assert (await news(client, then))[0] == []


async def test_a_new_price_level_is_told_at_once(client: Client, database: Database, merchant: TestMerchant) -> None:
    async with database.transaction() as tx:
        await catalog.set_price(tx, SKU, Price(unit_price=980_000), level="gold")
    after = (await whole(client)).json()["changes_after"]
    async with database.transaction() as tx, catalog.level_change(tx, merchant.merchant_id):
        await merchants.set_level(tx, merchant.merchant_id, "gold")
    assert (await news(client, after))[0] == [(SKU, ["price"])]
    prices = {item["sku"]: item.get("unit_price") for item in (await whole(client)).json()["items"]}
    assert prices[SKU] == "98.0000"


async def test_a_merchant_who_was_suspended_has_missed_nothing(client: Client, database: Database, merchant: TestMerchant) -> None:
    after = (await whole(client)).json()["changes_after"]
    async with database.transaction() as tx:
        await execute(tx, "UPDATE merchants SET status = 'suspended' WHERE merchant_id = $1", merchant.merchant_id)
        await execute(tx, "DELETE FROM events")
    await change(database, "price")
    async with database.transaction() as tx:
        assert await fetch(tx, "SELECT 1 FROM events WHERE book_id = $1", merchant.book_id) == []
        await execute(tx, "UPDATE merchants SET status = 'active' WHERE merchant_id = $1", merchant.merchant_id)
    assert (await news(client, after))[0] == [(SKU, ["price"])]


async def test_a_place_from_before_a_restore_is_refused(client: Client, database: Database, migrated: Any) -> None:
    after = (await whole(client)).json()["changes_after"]
    async with database.transaction() as tx:
        await execute(
            tx,
            "INSERT INTO restores (restore_id, begun_by, last_commit_at, xid_shift, ended_at, ended_by) VALUES ($1, 'x', now(), 0, now(), 'x')",
            new_ulid(),
        )
    refused = await client.get(f"/v1/products/changes?after={after}")
    assert (refused.status_code, refused.json()["code"]) == (400, "cursor_invalid")
    assert (await news(client, (await whole(client)).json()["changes_after"]))[0] == []


async def test_pages_are_cut_anywhere_and_nothing_is_lost(client: Client, database: Database) -> None:
    after = (await whole(client)).json()["changes_after"]
    async with database.transaction() as tx:  # one version for several products, and two kinds for one product
        for sku in (SKU, OTHER, "qb"):
            product = await catalog_queries.get_product(tx, sku)
            await catalog.put_product(tx, replace(product, name=f"{sku}!", status="paused"))
        await catalog.set_channel_status(tx, "sim-a", "disabled")
        await catalog.set_channel_status(tx, "sim-b", "disabled")
    at_once, end = await news(client, after)
    one_by_one: list[tuple[str, list[str]]] = []
    for _ in range(50):
        found, then = await news(client, after, limit=1)
        one_by_one += found
        if not found and then == after:
            break
        after = then
    assert after == end
    assert {sku for sku, _ in one_by_one} == {sku for sku, _ in at_once}
    assert {(sku, kind) for sku, kinds in at_once for kind in kinds} <= {(sku, kind) for sku, kinds in one_by_one for kind in kinds}
    assert (SKU, "stock") in {(sku, kind) for sku, kinds in one_by_one for kind in kinds}


async def test_a_reader_between_writers_misses_nothing(client: Client, app: FastAPI, database: Database) -> None:
    """Writers that commit out of order, some of which give up, beside a reader that keeps a copy: in the end the copy is the catalogue."""
    first = (await whole(client)).json()
    copy = {item["sku"]: item for item in first["items"]}
    after = first["changes_after"]
    done = asyncio.Event()

    async def write(n: int) -> None:
        for step in range(12):
            try:
                async with database.transaction() as tx:
                    sku = (SKU, OTHER)[(n + step) % 2]
                    if n % 2:
                        await catalog.set_price(tx, sku, Price(unit_price=980_000 + 97 * n + step))
                    else:
                        for channel in ("sim-a", "sim-b"):
                            await listing.hear(tx, channel, sku, stock=(n + step) % 3 and 50)
                    await asyncio.sleep(0.002 * (n % 3))
                    if step % 5 == 4:
                        raise _GivenUp
            except _GivenUp:
                pass

    async def read() -> None:
        nonlocal after
        while True:
            last = done.is_set()
            page = (await client.get(f"/v1/products/changes?limit=1&after={after}")).json()
            copy.update({item["sku"]: item["product"] for item in page["items"]})
            after = page["after"]
            if last and not page["items"]:
                return

    reading = asyncio.create_task(read())
    await asyncio.gather(*(write(n) for n in range(4)))
    done.set()
    await reading
    now = (await whole(client)).json()
    assert copy == {item["sku"]: item for item in now["items"]}
    assert now["changes_after"] == after


class _GivenUp(Exception):
    """A writer that rolls back."""


async def test_the_events_of_the_contract_are_there_too(client: Client, database: Database) -> None:
    async with database.transaction() as tx:
        await execute(tx, "DELETE FROM events")
    await change(database, "price")
    await change(database, "status")
    told = [(e["type"], e["data"]["object"]["sku"]) for e in (await client.get("/v1/events")).json()["items"]]
    assert told == [("product.price_changed", SKU), ("product.status_changed", SKU)]


async def test_the_live_book_has_its_own_feed(client: Client, app: FastAPI, database: Database, settings: Settings, merchant: TestMerchant) -> None:
    live = await make_key(database, settings, UUID(str(merchant.merchant_id)), "live")
    after = (await whole(client)).json()["changes_after"]
    async with Client(app, live) as theirs:
        their_after = (await whole(theirs)).json()["changes_after"]
        await change(database, "stock")  # of test channels
        assert (await news(theirs, their_after))[0] == []
    assert (await news(client, after))[0] == [(SKU, ["stock"])]
