"""Sizes, rates and failures: what the gate refuses before anyone thinks, and what goes on when Redis does not."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from fastapi import FastAPI
from redis.asyncio import Redis
from tests.api.test_signature import is_problem
from tests.factories.client import Client, authorization, door_of, running_app
from tests.factories.merchants import ApiKey, TestMerchant, make_key, make_merchant

from kameng_api.api import gate
from kameng_api.api.gate import MAX_BODY_BYTES
from kameng_api.kit.db import Database
from kameng_api.kit.signing import HMAC_SCHEME
from kameng_api.merchants.actions import Terms
from kameng_api.settings import Settings

REDIS_NOBODY_IS_AT = "redis://127.0.0.1:1/0"


def changed(settings: Settings, **fields: Any) -> Settings:
    return Settings(_env_file=None, **(settings.model_dump() | {"trusted_proxies": "", **fields}))


@asynccontextmanager
async def app_with(settings: Settings, **fields: Any) -> AsyncIterator[FastAPI]:
    async with running_app(changed(settings, **fields)) as app:
        yield app


async def test_a_key_is_slowed_down_and_told_how(database: Database, settings: Settings, redis: Redis) -> None:
    holder = await make_merchant(database, settings, terms=Terms(reads_per_s=5))
    async with app_with(settings) as app, Client(app, holder.key) as client:
        answers = await asyncio.gather(*(client.get("/v1/balance") for _ in range(20)))
        served = [a for a in answers if a.status_code == 200]
        slowed = [a for a in answers if a.status_code == 429]
        assert len(served) + len(slowed) == 20
        assert 5 <= len(served) <= 10
        for answer in slowed:
            problem = is_problem(answer, 429, "rate_limited")
            assert problem["retry"] == "after_s" and problem["charged"] == "no"
            assert int(answer.headers["retry-after"]) == problem["retry_after_s"] == 1
        for answer in answers:
            assert answer.headers["ratelimit-policy"] == '"reads";q=5;w=1'
            assert answer.headers["ratelimit"].startswith('"reads";r=')
        assert sorted({int(a.headers["ratelimit"].split("r=")[1].split(";")[0]) for a in served})[0] == 0
        await asyncio.sleep(1.1)
        assert (await client.get("/v1/balance")).status_code == 200


async def test_rates_are_counted_per_key_and_class(database: Database, settings: Settings, redis: Redis) -> None:
    holder = await make_merchant(database, settings, terms=Terms(reads_per_s=1, writes_per_s=3))
    second = await make_key(database, settings, holder.merchant_id)
    async with app_with(settings, rate_reveals_per_s=2) as app, Client(app, holder.key) as client:
        assert (await client.get("/v1/balance")).status_code == 200
        is_problem(await client.get("/v1/balance"), 429, "rate_limited")
        assert (await client.get("/v1/balance", key=second)).status_code == 200
        assert (await client.post("/v1/test/balance", {"number": "a", "available": "1"})).headers["ratelimit-policy"] == '"writes";q=3;w=1'
        reveal = await client.get("/v1/orders/ord_01JD0000000000000000000009/codes")
        assert reveal.headers["ratelimit-policy"] == '"reveals";q=2;w=1'


async def test_rates_are_shared_by_all_processes(database: Database, settings: Settings, redis: Redis) -> None:
    holder = await make_merchant(database, settings, terms=Terms(reads_per_s=4))
    async with app_with(settings) as one, app_with(settings) as two, Client(one, holder.key) as first, Client(two, holder.key) as second:
        answers = await asyncio.gather(*(c.get("/v1/balance") for c in (first, second) for _ in range(10)))
        assert 4 <= sum(a.status_code == 200 for a in answers) <= 8
        sent = {"Authorization": authorization(holder.key, "GET", b"/v1/products")}
        await asyncio.sleep(1.1)
        assert (await first.http.get("/v1/products", headers=sent)).status_code == 200
        is_problem(await second.http.get("/v1/products", headers=sent), 401, "nonce_reused")


async def test_nonce_and_rate_checks_travel_together(app: FastAPI, client: Client) -> None:
    flights: list[int] = []
    door_of(app).memory.asking.on_flush = flights.append
    answers = await asyncio.gather(*(client.get("/v1/balance") for _ in range(60)))
    assert all(a.status_code == 200 for a in answers)
    assert sum(flights) == 60
    assert len(flights) < 40, flights


async def test_who_cannot_prove_it_is_not_listened_to_for_a_while(database: Database, settings: Settings, redis: Redis) -> None:
    holder = await make_merchant(database, settings)
    stranger = ApiKey("ak_test_01JD0000000000000000000001", HMAC_SCHEME, b"x")
    async with app_with(settings, rate_auth_failures_per_min=30) as app:
        async with Client(app, stranger, peer="198.51.100.7") as client:
            for _ in range(30):
                is_problem(await client.get("/v1/balance"), 401, "unknown_key")
            answer = await client.get("/v1/balance")
            is_problem(answer, 429, "rate_limited")
            assert 1 <= int(answer.headers["retry-after"]) <= 60
            is_problem(await client.get("/v1/balance", key=holder.key), 429, "rate_limited")
        async with Client(app, holder.key, peer="198.51.100.8") as neighbour:
            assert (await neighbour.get("/v1/balance")).status_code == 200


async def test_the_failure_limit_comes_before_any_cryptography(
    database: Database, settings: Settings, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    stranger = ApiKey("ak_test_01JD0000000000000000000001", HMAC_SCHEME, b"x")
    async with app_with(settings, rate_auth_failures_per_min=1) as app, Client(app, stranger, peer="2001:db8::1") as client:
        is_problem(await client.get("/v1/balance"), 401, "unknown_key")

        def unwanted(*_: object) -> None:
            raise AssertionError("verified a signature of a blocked address")

        monkeypatch.setattr(gate.signature, "is_proven", unwanted)
        is_problem(await client.get("/v1/balance"), 429, "rate_limited")
        async with Client(app, stranger, peer="2001:db8::2") as same_network:
            is_problem(await same_network.get("/v1/balance"), 429, "rate_limited")


async def test_replays_do_not_count_as_failures(database: Database, settings: Settings, redis: Redis) -> None:
    holder = await make_merchant(database, settings)
    async with app_with(settings, rate_auth_failures_per_min=2) as app, Client(app, holder.key, peer="198.51.100.7") as client:
        for _ in range(6):
            await client.get("/v1/balance", nonce="n" * 20)
        assert (await client.get("/v1/balance")).status_code == 200


async def test_bodies_up_to_one_megabyte_are_read(client: Client) -> None:
    edge = b'"' + b"a" * (MAX_BODY_BYTES - 2) + b'"'
    is_problem(await client.post("/v1/test/balance", edge), 422, "validation_failed")
    for over in (edge + b" ", edge * 3):
        is_problem(await client.post("/v1/test/balance", over), 413, "body_too_large")
    is_problem(await client.post("/v1/test/balance", edge + b" ", signed=False), 413, "body_too_large")


async def chunks(count: int, size: int, pause_s: float = 0.0) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield b"a" * size
        await asyncio.sleep(pause_s)


async def test_a_body_without_a_length_is_counted_as_it_comes(client: Client, merchant: TestMerchant) -> None:
    sent = {"Authorization": authorization(merchant.key, "POST", b"/v1/test/balance", b"a"), "Content-Type": "application/json"}
    answer = await client.http.post("/v1/test/balance", content=chunks(30, 100_000), headers=sent)
    is_problem(answer, 413, "body_too_large")


async def test_a_slow_body_is_given_up(client: Client, merchant: TestMerchant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "BODY_TIMEOUT_S", 0.3)
    sent = {"Authorization": authorization(merchant.key, "POST", b"/v1/test/balance", b"a"), "Content-Type": "application/json"}
    started = time.monotonic()
    answer = await client.http.post("/v1/test/balance", content=chunks(20, 1, 0.1), headers=sent)
    is_problem(answer, 408, "body_timeout")
    assert time.monotonic() - started < 4


async def lose_redis(settings: Settings, run: Callable[[FastAPI], Awaitable[None]]) -> None:
    async with app_with(settings, redis_url=REDIS_NOBODY_IS_AT) as app:
        await run(app)


async def test_without_redis_reads_and_numbered_writes_go_on_and_others_wait(database: Database, settings: Settings) -> None:
    holder = await make_merchant(database, settings)

    async def run(app: FastAPI) -> None:
        async with Client(app, holder.key) as client:
            nonce = "n" * 20
            assert [(await client.get("/v1/balance", nonce=nonce)).status_code for _ in range(3)] == [200, 200, 200]
            order = await client.post("/v1/orders", {}, nonce=nonce)
            assert order.status_code in (404, 422), order.text  # it came as far as the order door
            for path, body in (("/v1/test/balance", {"number": "a", "available": "1"}), ("/v1/webhook-endpoints", {}), ("/v1/test/signature", {})):
                answer = await client.post(path, body)
                problem = is_problem(answer, 503, "unavailable")
                assert problem["charged"] == "no" and problem["retry"] == "same_request"
                assert answer.headers["retry-after"] == "1"
            assert (await client.get("/v1/balance")).json()["available"] == "10000.0000"
            text = (await client.send("GET", "/metrics", signed=False)).text
            assert "kameng_gate_memory_down 1.0" in text
            assert "kameng_gate_unremembered_total 8.0" in text
            assert (await client.send("GET", "/readyz", signed=False)).json()["checks"]["memory"] == "stood down"

    await lose_redis(settings, run)


async def test_a_lost_redis_does_not_lower_the_other_checks(database: Database, settings: Settings) -> None:
    holder = await make_merchant(database, settings)
    narrow = await make_key(database, settings, holder.merchant_id, scopes=["catalog:read"])

    async def run(app: FastAPI) -> None:
        async with Client(app, holder.key) as client:
            is_problem(await client.get("/v1/balance", key=ApiKey(holder.key.key_id, HMAC_SCHEME, b"x")), 401, "bad_signature")
            is_problem(await client.get("/v1/balance", skew_s=400), 401, "timestamp_out_of_window")
            is_problem(await client.get("/v1/balance", key=narrow), 403, "scope_missing")

    await lose_redis(settings, run)


async def test_a_hanging_redis_costs_a_moment_once(database: Database, settings: Settings) -> None:
    """Accepts connections and never answers: the first requests wait 250 ms, the next ones not at all."""

    async def silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silence, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    holder = await make_merchant(database, settings)
    async with app_with(settings, redis_url=f"redis://127.0.0.1:{port}/0") as app, Client(app, holder.key) as client:
        assert (await client.get("/v1/balance")).status_code == 200
        started = time.monotonic()
        for _ in range(5):
            assert (await client.get("/v1/balance")).status_code == 200
        assert time.monotonic() - started < 0.25
    server.close()


async def test_redis_may_forget_everything_and_the_checks_go_on(client: Client, redis: Redis) -> None:
    assert (await client.get("/v1/balance", nonce="n" * 20)).status_code == 200
    await redis.flushall()
    await redis.script_flush()
    assert (await client.get("/v1/balance", nonce="n" * 20)).status_code == 200
    is_problem(await client.get("/v1/balance", nonce="n" * 20), 401, "nonce_reused")


async def test_nonces_are_kept_long_enough(client: Client, redis: Redis) -> None:
    await client.get("/v1/balance")
    kept = [await redis.ttl(name) for name in await redis.keys("kn*")]
    assert len(kept) == 1 and 655 <= kept[0] <= 660


async def test_operators_and_metrics_are_for_our_own_networks(app: FastAPI) -> None:
    async with Client(app, peer="198.51.100.7") as outside:
        for path in ("/metrics", "/admin/v1/merchants"):
            is_problem(await outside.send("GET", path), 403, "ip_not_allowed")
        assert (await outside.send("GET", "/livez")).status_code == 200
    async with Client(app, peer="10.1.2.3") as inside:
        assert (await inside.send("GET", "/metrics")).status_code == 200


async def test_what_stands_nowhere_is_not_found(app: FastAPI, client: Client) -> None:
    for path in ("/", "/favicon.ico", "/v2/balance", "/V1/balance", "/admin", "/livez/", "/docs/oauth2-redirect"):
        is_problem(await client.send("GET", path, signed=False), 404, "not_found")
    for path in ("/v1/nowhere", "/v1/balance/", "/v1/orders/a/b/c", "/v1/orders/by-merchant-no"):
        is_problem(await client.get(path), 404, "not_found")


async def test_websockets_are_closed(app: FastAPI) -> None:
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    await app({"type": "websocket", "path": "/v1/balance", "raw_path": b"/v1/balance", "headers": [], "query_string": b""}, receive, send)
    assert sent == [{"type": "websocket.close", "code": 1008}]
