"""What must stay hidden is planted, a whole run is made with it, and then everything that was kept or written is searched."""

import base64
import io
import json
import os
import re
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from redis.asyncio import Redis
from tests.api.test_server import serving
from tests.conftest import _owner_connection
from tests.factories.client import Client
from tests.factories.merchants import TestMerchant, keyring_of, make_merchant
from tests.factories.shop import eventually, running_worker, stock_the_shop
from tests.simulator.conftest import SECRETS, Simulator

from kameng_api.embedded.servers import Servers
from kameng_api.kit.db import Database
from kameng_api.merchants import actions as merchants
from kameng_api.settings import Settings

TARGET = "13800138000"


@pytest.fixture
async def simulator(tmp_path: Path) -> AsyncIterator[Simulator]:
    simulator = Simulator(tmp_path / "sim", time_scale=0.05)
    await simulator.start()
    yield simulator
    import signal

    await simulator.end(signal.SIGTERM)


@asynccontextmanager
async def shop(
    database: Database, settings: Settings, migrated: Servers, simulator: Simulator, log: Path
) -> AsyncIterator[tuple[Client, TestMerchant]]:
    await stock_the_shop(database, settings, simulator.url, SECRETS)
    merchant = await make_merchant(database, settings)
    async with serving(migrated, log) as (base_url, _), running_worker(settings), Client(key=merchant.key, base_url=base_url) as client:
        yield client, merchant


async def _done(client: Client, body: dict[str, Any]) -> dict[str, Any]:
    made = await client.post("/v1/orders", body)
    assert made.status_code == 201, made.text

    async def look() -> Any:
        order = (await client.get(f"/v1/orders/{made.json()['id']}")).json()
        return order if order["status"] == "succeeded" else None

    found: dict[str, Any] = await eventually(look, within_s=20)
    return found


async def _everything_in_the_database(owner_url: str) -> str:
    """Every row of every table as text; bytes as hex and as they are."""
    connection = await _owner_connection(owner_url)
    try:
        names = [r["tablename"] for r in await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")]
        kept = io.StringIO()
        for name in names:
            for row in await connection.fetch(f'SELECT * FROM "{name}"'):
                kept.write("\n".join(v.decode("latin-1") if isinstance(v, bytes) else str(v) for v in row.values()) + "\n")
        return kept.getvalue()
    finally:
        await connection.close()


async def _everything_in_redis(redis: "Redis[bytes]") -> str:
    found = [b""]
    async for key in redis.scan_iter(count=1000):
        found += [key, await redis.dump(key) or b""]
    return b"\n".join(found).decode("latin-1")


def _write_ahead_log(servers: Servers) -> Iterator[bytes]:
    places = [servers.var, *(Path(p) for p in _remembered(servers.var))]
    for place in places:
        for folder in place.rglob("pg_wal"):
            for file in folder.iterdir():
                if file.is_file() and os.access(file, os.R_OK):
                    yield file.read_bytes()


def _remembered(var: Path) -> list[str]:
    file = var / "embedded.json"
    told = json.loads(file.read_text()) if file.is_file() else {}
    return [told["place"]] if told.get("place") else []


async def test_card_codes_targets_and_secrets_are_found_nowhere_after_a_full_run(
    database: Database, redis: "Redis[bytes]", migrated: Servers, settings: Settings, simulator: Simulator, tmp_path: Path, capfd: Any
) -> None:
    log = tmp_path / "api.log"
    structlog.reset_defaults()
    async with shop(database, settings, migrated, simulator, log) as (client, merchant):
        cards = await _done(client, {"merchant_order_no": "PO-codes", "sku": "test-card", "quantity": 3})
        await _done(client, {"merchant_order_no": "PO-phone", "sku": "mobile-cn-100", "target": TARGET})
        async with database.transaction() as tx:
            made = await merchants.create_delivery_key(tx, keyring_of(settings), merchant.merchant_id, "test")
        shown = await client.get(f"/v1/orders/{cards['id']}/codes")
        assert shown.status_code == 200, shown.text
        sealed = shown.json()
        key = made.key if isinstance(made.key, bytes) else str(made.key).encode()
        opened = AESGCM(key).decrypt(sealed["nonce"].encode(), base64.b64decode(sealed["ciphertext"]), sealed["associated_data"].encode())
        codes = [one["code"] for one in json.loads(opened)]
        assert len(codes) == 3
        refused = await client.post("/v1/orders", {"merchant_order_no": "PO-odd", "sku": "mobile-cn-100", "target": f"{TARGET}9", "status": "paid"})
        assert refused.status_code == 422 and TARGET not in refused.text
        said = [(await client.get(path)).text for path in ("/v1/events?limit=100", f"/v1/orders/{cards['id']}/timeline", "/v1/balance/transactions")]
        stored = await _everything_in_the_database(migrated.owner_url)
        remembered = await _everything_in_redis(redis)
    written = log.read_text(errors="replace") + "".join(capfd.readouterr())
    secret = merchant.key.key.decode()
    assert "PO-codes" in stored and "PO-codes" in said[0], "the search would find nothing at all"
    for name, text in (("database", stored), ("redis", remembered), ("log", written), ("other answers", "".join(said))):
        for kind, canary in (*(("code", code) for code in codes), ("secret", secret), ("delivery key", key.decode()), ("target", TARGET)):
            if (name, kind) == ("other answers", "target"):  # this key has the scope targets:read
                continue
            assert canary not in text, f"a {kind} stands in the {name}"
    wal = list(_write_ahead_log(migrated))
    if not wal and sys.platform == "linux":
        pytest.skip("the servers' data folder belongs to another account")
    assert any(b"PO-codes" in file for file in wal)
    for file in wal:
        assert not any(code.encode() in file for code in codes) and secret.encode() not in file


async def test_our_own_failure_tells_nothing_inner(
    database: Database, redis: "Redis[bytes]", migrated: Servers, settings: Settings, tmp_path: Path
) -> None:
    """A table that is gone is the worst of answers: SQL, a path and a traceback stand in the exception."""
    merchant = await make_merchant(database, settings)
    connection = await _owner_connection(migrated.owner_url)
    try:
        async with serving(migrated, tmp_path / "log") as (base_url, _), Client(key=merchant.key, base_url=base_url) as client:
            await connection.execute("ALTER TABLE orders RENAME TO orders_gone")
            answer = await client.get("/v1/orders")
    finally:
        await connection.execute("ALTER TABLE IF EXISTS orders_gone RENAME TO orders")
        await connection.close()
    assert answer.status_code in (500, 503) and answer.headers["content-type"] == "application/problem+json"
    assert not re.search(r"(?i)select|traceback|asyncpg|sqlalchemy|orders_gone|\.py|relation", answer.text), answer.text
