"""Houses with doors, and a simulator process per file behind them."""

import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis
from tests.factories.doors import DoorHouse, door_house
from tests.simulator.conftest import Simulator

from kameng_api.kit.db import Database
from kameng_api.settings import Settings


@pytest.fixture(scope="module")
async def simulator(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Simulator]:
    found = Simulator(Path(tmp_path_factory.mktemp("sim")), time_scale=0.05)
    await found.start()
    yield found
    await found.end(signal.SIGTERM)


@pytest.fixture
async def house(database: Database, redis: Redis, settings: Settings, simulator: Simulator) -> AsyncIterator[DoorHouse]:
    """With a worker: orders are delivered, and their ends told."""
    async with door_house(database, settings, simulator) as opened:
        yield opened


@pytest.fixture
async def quiet_house(database: Database, redis: Redis, settings: Settings, simulator: Simulator) -> AsyncIterator[DoorHouse]:
    """Without a worker: orders stay as they were placed."""
    async with door_house(database, settings, simulator, worker=False) as opened:
        yield opened
