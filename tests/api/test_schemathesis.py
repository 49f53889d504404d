"""Whatever fits the OpenAPI document, and whatever does not, over a real socket and signed: no 5xx, and every answer as described.

A short run of what `make fuzz` does for as long as one likes.
"""

import asyncio
from pathlib import Path

import pytest
from redis.asyncio import Redis
from tests.api.test_server import serving
from tests.factories.client import Client
from tests.factories.merchants import TestMerchant
from tests.factories.shop import stock_the_shop
from tests.fuzz.__main__ import GENEROUS, batches_in_trouble, possessions, working
from tests.fuzz.target import Target

from kameng_api.embedded.servers import Servers
from kameng_api.kit.db import Database
from kameng_api.settings import Settings


@pytest.mark.timeout(480)
async def test_no_input_breaks_the_surface(
    database: Database, redis: "Redis[bytes]", migrated: Servers, settings: Settings, merchant: TestMerchant, tmp_path: Path
) -> None:
    await stock_the_shop(database, settings, "http://127.0.0.1:9", {"sim-a": "secret-of-sim-a-only-for-tests"})
    async with (
        serving(migrated, tmp_path / "log", **GENEROUS) as (base_url, _),
        Client(key=merchant.key, base_url=base_url) as client,
        working(migrated, tmp_path / "worker.log"),
    ):
        target = Target(base_url, merchant.key, await possessions(client))
        assert len(target.operations) > 25
        faults = await asyncio.to_thread(lambda: list(target.faults(max_examples=6)))
        faults += await batches_in_trouble(migrated)
        assert faults == [], "\n\n".join(faults)
    assert all(target.sent.get(operation.label, 0) >= 1 for operation in target.operations), target.sent
    assert sum(target.sent.values()) > 200, target.sent
    assert sum(target.kinds_sent.values()) >= 3, "files are taken in, and not only refused"
