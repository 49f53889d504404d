"""Orders from a signed request to a settled outcome: real servers, a real worker, a real simulator over HTTP."""

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from tests.factories.client import Client
from tests.factories.merchants import TestMerchant, make_merchant
from tests.factories.shop import PHONE, eventually, running_worker, stock_the_shop
from tests.simulator.conftest import SECRETS, Simulator

from kameng_api.kit.db import Database, fetch
from kameng_api.main import build_app
from kameng_api.reconciliation import invariants
from kameng_api.settings import Settings


@pytest.fixture(scope="module")
async def simulator(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Simulator]:
    simulator = Simulator(Path(tmp_path_factory.mktemp("sim")), time_scale=0.05)
    await simulator.start()
    yield simulator
    import signal  # noqa: PLC0415

    await simulator.end(signal.SIGTERM)


@pytest.fixture
async def house(database: Database, settings: Settings, simulator: Simulator) -> AsyncIterator[tuple[Client, TestMerchant]]:
    """API on a real socket, one worker, two channels."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    here = settings.model_copy(update={"base_url": f"http://127.0.0.1:{port}", "port": port})
    await stock_the_shop(database, here, simulator.url, SECRETS)
    merchant = await make_merchant(database, here)
    server = uvicorn.Server(uvicorn.Config(build_app(here), port=port, log_level="warning", proxy_headers=False))
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.02)
    async with running_worker(here), Client(key=merchant.key, base_url=here.base_url) as client:
        yield client, merchant
    server.should_exit = True
    await serving


async def _final(client: Client, order_id: str, within_s: float = 15.0) -> dict[str, Any]:
    async def look() -> Any:
        order = (await client.get(f"/v1/orders/{order_id}")).json()
        return order if order["status"] not in ("accepted", "processing") else None

    return await eventually(look, within_s=within_s)


def _order(no: str, **more: Any) -> dict[str, Any]:
    return {"merchant_order_no": no, "sku": "mobile-cn-100", "target": PHONE} | more


async def test_an_order_is_delivered_and_the_books_agree(house: tuple[Client, TestMerchant], database: Database) -> None:
    client, _ = house
    answer = await client.post("/v1/orders", _order("PO-1"))
    assert answer.status_code == 201, answer.text
    order = await _final(client, answer.json()["id"])
    assert order["status"] == "succeeded", order
    balance = (await client.get("/v1/balance")).json()
    assert (balance["available"], balance["held"]) == ("9901.5000", "0.0000")
    async with database.transaction() as tx:
        assert await invariants.check_all(tx) == []
