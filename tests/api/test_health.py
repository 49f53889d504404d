"""Ready says no when it must, and the counters count."""

from fastapi import FastAPI
from tests.factories.client import Client, door_of

from kameng_api.kit.db import Database


async def test_a_draining_process_is_not_ready_and_asks_callers_to_leave(app: FastAPI, client: Client) -> None:
    door_of(app).draining = True
    ready = await client.send("GET", "/readyz", signed=False)
    assert ready.status_code == 503 and ready.json()["checks"]["draining"] == "yes"
    answer = await client.get("/v1/balance")
    assert answer.status_code == 200 and answer.headers["connection"] == "close"


async def test_a_database_that_is_behind_is_not_ready(app: FastAPI, client: Client) -> None:
    app.state.heads = frozenset({"a revision of tomorrow"})
    ready = await client.send("GET", "/readyz", signed=False)
    assert ready.status_code == 503 and ready.json()["checks"] == {
        "database": "ok", "migrations": "behind", "memory": "ok", "draining": "no",
    }  # fmt: skip


async def test_without_a_database_the_process_lives_and_is_not_ready(app: FastAPI, client: Client) -> None:
    door = door_of(app)
    whole, door.db = door.db, Database("postgresql+asyncpg://nobody:x@127.0.0.1:1/none", pool_size=2)
    try:
        assert (await client.send("GET", "/livez", signed=False)).status_code == 200
        ready = await client.send("GET", "/readyz", signed=False)
        assert ready.status_code == 503 and ready.json()["checks"]["database"] == "unreachable"
        answer = await client.get("/v1/balance")
        assert answer.status_code == 503 and answer.json()["code"] == "unavailable"
    finally:
        door.db = whole


async def test_requests_are_counted_by_template_and_refusals_by_code(client: Client) -> None:
    await client.get("/v1/products/one")
    await client.get("/v1/products/two")
    await client.get("/v1/balance", signed=False)
    text = (await client.send("GET", "/metrics", signed=False)).text
    assert 'kameng_http_requests_total{method="GET",route="/v1/products/{sku}",status="404"} 2.0' in text
    assert 'kameng_gate_refusals_total{code="auth_missing"} 1.0' in text
    assert 'kameng_flush_size_count{flush="gate_memory"}' in text
    assert "/v1/products/one" not in text
