"""What the tests of the beats share: a simulator process per file, a shop in front of it, and a worker's desk."""

import signal
from collections.abc import AsyncIterator

import pytest
from tests.factories.counter import Counter
from tests.factories.shop import open_desk
from tests.factories.workshop import open_counter
from tests.simulator.conftest import Simulator

from kameng_api.jobs.desk import Desk
from kameng_api.kit.db import Database
from kameng_api.settings import Settings


@pytest.fixture(scope="module")
async def simulator(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Simulator]:
    found = Simulator(tmp_path_factory.mktemp("simulator"))
    await found.start()
    yield found
    await found.end(signal.SIGTERM)


@pytest.fixture
async def counter(database: Database, settings: Settings, simulator: Simulator) -> Counter:
    return await open_counter(database, settings, simulator)


@pytest.fixture
async def desk(counter: Counter, settings: Settings) -> AsyncIterator[Desk]:
    async with open_desk(settings) as opened:
        yield opened
