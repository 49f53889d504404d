"""Orders at the door while PostgreSQL is cut, Redis is gone, or the caller hangs up: the same body again is always safe."""

import asyncio
import random
from collections import Counter as Tally
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import httpx
import pytest
from fastapi import FastAPI
from pydantic import SecretStr
from redis.asyncio import Redis
from standardwebhooks import Webhook
from tests.api.test_contract import NOWHERE, SECRETS, body
from tests.api.test_signature import is_problem
from tests.conftest import _owner_connection
from tests.factories.client import Client, door_of, running_app
from tests.factories.merchants import TestMerchant, make_merchant
from tests.factories.shop import eventually, running_worker, stock_the_shop

from kameng_api.demo.processes import free_port
from kameng_api.embedded.servers import Servers
from kameng_api.kit.db import Database, fetch
from kameng_api.reconciliation import invariants
from kameng_api.settings import Settings


@pytest.fixture
async def goods(database: Database, settings: Settings) -> None:
    await stock_the_shop(database, settings, NOWHERE, SECRETS)


@pytest.fixture
async def owner(migrated: Servers) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    """A hand on PostgreSQL from outside."""
    connection = await _owner_connection(migrated.app_url)  # one role may end only its own connections
    yield connection
    await connection.close()


async def _held_up(owner: Any, merchant: TestMerchant) -> Any:
    """Nobody gets past this merchant's balance until the transaction ends."""
    transaction = owner.transaction()
    await transaction.start()
    await owner.execute("SELECT 1 FROM accounts WHERE book_id = $1 FOR UPDATE", merchant.book_id)
    return transaction


async def _somebody_waits(owner: Any) -> None:
    async def look() -> bool:
        return bool(await owner.fetchval("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"))

    await eventually(look, within_s=10, every_s=0.01)


async def _cut(owner: Any, database: Database) -> None:
    role = database.engine.url.username
    await owner.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1 AND pid <> pg_backend_pid()", role)


async def _orders(database: Database) -> int:
    async with database.transaction() as tx:
        [row] = await fetch(tx, "SELECT count(*) AS n FROM orders")
        assert await invariants.check_all(tx) == []
    return int(row["n"])


async def test_a_connection_cut_in_the_middle_of_a_flush_is_an_unknown_that_a_repeat_resolves(
    client: Client, merchant: TestMerchant, database: Database, owner: Any
) -> None:
    for n in range(3):
        transaction = await _held_up(owner, merchant)
        waiting = asyncio.create_task(client.post("/v1/orders", body(f"PO-{n}")))
        await _somebody_waits(owner)
        await _cut(owner, database)
        problem = is_problem(await waiting, 503, "unavailable")
        assert (problem["charged"], problem["retry"]) == ("unknown", "same_request")
        await transaction.rollback()
        answer = await client.post("/v1/orders", body(f"PO-{n}"))
        assert answer.status_code in (200, 201), answer.text
    assert await _orders(database) == 3


async def test_cuts_at_any_moment_lose_nothing_and_charge_once(
    client: Client, merchant: TestMerchant, database: Database, owner: Any
) -> None:
    """Also between COMMIT sent and COMMIT heard: then the repeat is a replay."""

    async def cutting() -> None:
        for _ in range(30):
            await _cut(owner, database)
            await asyncio.sleep(random.uniform(0.02, 0.12))

    async def order(n: int) -> int:
        for tries in range(1, 200):
            if (await client.post("/v1/orders", body(f"PO-{n}"))).status_code in (200, 201):
                return tries
            await asyncio.sleep(0.02)
        raise AssertionError("never accepted")

    async def one_after_the_other(first: int) -> list[int]:
        return [await order(n) for n in range(first, 80, 8)]

    _, *found = await asyncio.gather(cutting(), *(one_after_the_other(n) for n in range(8)))
    tries = [n for some in found for n in some]
    assert max(tries) > 1  # else nothing was cut
    again = [await client.post("/v1/orders", body(f"PO-{n}")) for n in range(80)]
    assert {a.status_code for a in again} == {200}
    assert await _orders(database) == 80
    assert (await client.get("/v1/balance")).json()["held"] == "7880.0000"


async def test_a_caller_who_hangs_up_cannot_stop_a_flush(client: Client, merchant: TestMerchant, database: Database, owner: Any) -> None:
    transaction = await _held_up(owner, merchant)
    first = [asyncio.create_task(client.post("/v1/orders", body(f"PO-{n}"))) for n in range(5)]
    await _somebody_waits(owner)
    for call in first[:4]:
        call.cancel()
    await asyncio.sleep(0.05)
    await transaction.rollback()
    assert (await first[4]).status_code == 201
    for n in range(4):

        async def found(number: str = f"PO-{n}") -> bool:
            return (await client.get(f"/v1/orders/by-merchant-no/{number}")).status_code == 200

        await eventually(found)
    assert await _orders(database) == 5


async def test_two_hundred_signed_orders_at_once_against_money_for_fifty(
    app: FastAPI, database: Database, settings: Settings
) -> None:
    poor = await make_merchant(database, settings, money="4925")
    async with Client(app, poor.key) as client:
        answers = await asyncio.gather(*(client.post("/v1/orders", body(f"PO-{n}")) for n in range(200)))
    assert Tally(a.status_code for a in answers) == {201: 50, 402: 150}
    assert await _orders(database) == 50


async def test_two_doors_and_one_number(database: Database, redis: "Redis[bytes]", settings: Settings, merchant: TestMerchant) -> None:
    async with running_app(settings) as one, running_app(settings) as two, Client(one, merchant.key) as a, Client(two, merchant.key) as b:
        answers = await asyncio.gather(*(door.post("/v1/orders", body("PO-1")) for door in (a, b) * 50))
    assert Tally(x.status_code for x in answers) == {201: 1, 200: 99}
    assert await _orders(database) == 1


async def test_without_redis_orders_go_on_and_unnumbered_writes_wait(database: Database, settings: Settings, merchant: TestMerchant) -> None:
    lonely = settings.model_copy(update={"redis_url": SecretStr(f"redis://127.0.0.1:{free_port()}/0")})
    async with running_app(lonely) as app, Client(app, merchant.key) as client:
        assert (await client.post("/v1/orders", body("PO-1"))).status_code == 201
        assert (await client.post("/v1/orders", body("PO-1"))).status_code == 200
        order = (await client.get("/v1/orders")).json()["items"][0]
        assert (await client.post(f"/v1/orders/{order['id']}/cancel")).status_code == 200
        problem = is_problem(await client.post(f"/v1/test/orders/{order['id']}/advance", {}), 503, "unavailable")
        assert problem["charged"] == "no"


async def test_draining_answers_what_is_under_way(app: FastAPI, client: Client, merchant: TestMerchant, owner: Any) -> None:
    transaction = await _held_up(owner, merchant)
    waiting = [asyncio.create_task(client.post("/v1/orders", body(f"PO-{n}"))) for n in range(5)]
    await _somebody_waits(owner)
    drained = asyncio.create_task(door_of(app).orders.drain())
    await asyncio.sleep(0.05)
    assert not drained.done()
    await transaction.rollback()
    assert {(await w).status_code for w in waiting} == {201}
    await drained


async def test_what_a_merchant_s_own_receiver_hears_verifies_with_the_public_library(
    app: FastAPI, client: Client, database: Database, settings: Settings
) -> None:
    heard: list[tuple[dict[str, str], bytes]] = []

    async def receive(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in head[1:] if line)}
        heard.append((headers, await reader.readexactly(int(headers["content-length"]))))
        writer.write(b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(receive, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook"
    made = await client.post("/v1/webhook-endpoints", {"url": url, "event_types": ["order.accepted", "order.cancelled"]})
    assert made.status_code == 201, made.text
    order = (await client.post("/v1/orders", body("PO-1"))).json()
    await client.post(f"/v1/orders/{order['id']}/cancel")
    lanes = settings.model_copy(update={"lanes": ("webhook",)})
    async with running_worker(lanes):

        async def all_heard() -> bool:
            return len(heard) >= 2

        await eventually(all_heard, within_s=15)
    server.close()
    library = Webhook(made.json()["secret"])
    told = {}
    for headers, content in heard:
        event = library.verify(content, headers)
        told[event["type"]] = event["data"]["version"]
        assert event["id"] == headers["webhook-id"] and event["data"]["id"] == order["id"]
        assert httpx.Response(200, content=content).json() == event
    assert told == {"order.accepted": 1, "order.cancelled": 2}
