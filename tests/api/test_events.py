"""The polling twin of the webhooks: the same bytes, in an order in which nothing is ever skipped."""

from collections.abc import AsyncIterator

import orjson
import pytest
from fastapi import FastAPI
from tests.factories.client import Client
from tests.factories.merchants import TestMerchant, make_key, make_merchant

from kameng_api.kit.db import Database, execute, fetch
from kameng_api.outbox import actions as outbox
from kameng_api.outbox.rules import Fact, fact_of
from kameng_api.settings import Settings


def fact(book_id: int, version: int = 1, type_: str = "order.succeeded") -> Fact:
    return fact_of(book_id, type_, "ord_01JD0000000000000000000009", version, {"amount": "98.5000", "name": "话费"})


async def record(db: Database, *facts: Fact) -> None:
    async with db.transaction() as tx:
        await outbox.record(tx, facts)


async def bodies(db: Database) -> list[bytes]:
    async with db.transaction() as tx:
        return [r["body"] for r in await fetch(tx, "SELECT body FROM events ORDER BY xid, event_id")]


async def versions(client: Client, query: str = "") -> list[int]:
    answer = await client.get("/v1/events" + query)
    assert answer.status_code == 200, answer.text
    return [e["data"]["version"] for e in answer.json()["items"]]


async def test_events_are_shown_with_the_very_bytes_of_the_webhook(
    client: Client, database: Database, merchant: TestMerchant
) -> None:
    await record(database, fact(merchant.book_id))
    [body] = await bodies(database)
    answer = await client.get("/v1/events")
    assert answer.content == b'{"items":[' + body + b'],"next_cursor":null}'
    one = await client.get(f"/v1/events/{orjson.loads(body)['id']}")
    assert one.content == body
    assert one.headers["Content-Type"] == "application/json"


async def test_pages_follow_each_other_without_gap_or_repetition(
    client: Client, database: Database, merchant: TestMerchant
) -> None:
    for start in (0, 4, 8):
        await record(database, *(fact(merchant.book_id, start + i) for i in range(4)))
    seen, after = [], None
    for _ in range(3):
        page = (await client.get("/v1/events?limit=5" + (f"&after={after}" if after else ""))).json()
        seen += [e["data"]["version"] for e in page["items"]]
        after = page["items"][-1]["id"]
        assert page["next_cursor"] == (after if len(seen) < 12 else None)
    assert seen == list(range(12))
    assert await versions(client, f"?after={after}") == []
    await record(database, fact(merchant.book_id, 99))
    assert await versions(client, f"?after={after}") == [99]


async def test_an_event_that_is_committed_late_is_never_skipped(
    client: Client, database: Database, merchant: TestMerchant
) -> None:
    await record(database, fact(merchant.book_id, 1))
    after = (await client.get("/v1/events")).json()["items"][-1]["id"]
    async with database.transaction() as late:
        await outbox.record(late, [fact(merchant.book_id, 2)])
        await record(database, fact(merchant.book_id, 3))
        assert await versions(client, f"?after={after}") == []  # 3 waits for 2, or 2 would be skipped
    assert await versions(client, f"?after={after}") == [2, 3]


async def test_one_type_can_be_asked_for(client: Client, database: Database, merchant: TestMerchant) -> None:
    await record(
        database, fact(merchant.book_id, 1), fact(merchant.book_id, 2, "order.failed"), fact(merchant.book_id, 3)
    )
    assert await versions(client, "?type=order.failed") == [2]
    assert await versions(client, "?type=order.succeeded&limit=1") == [1]
    wrong = await client.get("/v1/events?type=order.eaten")
    assert (wrong.status_code, wrong.json()["errors"][0]["pointer"]) == (422, "/query/type")


@pytest.mark.parametrize("after", ["evt_01JD0000000000000000000042", "ord_01JD0000000000000000000042", "evt_", "x", ""])
async def test_an_unknown_place_is_refused(client: Client, after: str) -> None:
    answer = await client.get(f"/v1/events?after={after}")
    assert (answer.status_code, answer.json()["code"]) == (400, "cursor_invalid")


async def test_a_pruned_place_is_refused_and_never_read_as_the_beginning(
    client: Client, database: Database, merchant: TestMerchant
) -> None:
    await record(database, fact(merchant.book_id, 1), fact(merchant.book_id, 2))
    first = (await client.get("/v1/events?limit=1")).json()["items"][0]["id"]
    async with database.transaction() as tx:
        await execute(tx, "DELETE FROM events WHERE version = 1")
    answer = await client.get(f"/v1/events?after={first}")
    assert (answer.status_code, answer.json()["code"]) == (400, "cursor_invalid")


@pytest.mark.parametrize("query", ["limit=0", "limit=101", "limit=1.0", "limit=x", "since=1", "after=a&after=b", "type=" + "x" * 65])
async def test_a_query_that_cannot_be_read_is_refused(client: Client, query: str) -> None:
    answer = await client.get(f"/v1/events?{query}")
    assert (answer.status_code, answer.json()["code"]) == (422, "validation_failed")


@pytest.fixture
async def stranger(app: FastAPI, database: Database, settings: Settings) -> AsyncIterator[Client]:
    other = await make_merchant(database, settings)
    async with Client(app, other.key) as signed:
        yield signed


async def test_another_merchants_events_do_not_exist(
    client: Client, stranger: Client, database: Database, merchant: TestMerchant, settings: Settings
) -> None:
    await record(database, fact(merchant.book_id))
    event_id = (await client.get("/v1/events")).json()["items"][0]["id"]
    assert await versions(stranger) == []
    assert (await stranger.get(f"/v1/events/{event_id}")).status_code == 404
    assert (await stranger.get(f"/v1/events?after={event_id}")).json()["code"] == "cursor_invalid"
    live = await make_key(database, settings, merchant.merchant_id, "live")
    assert (await client.get(f"/v1/events/{event_id}", key=live)).status_code == 404
