"""`twin`: the world of the module's `NAME`, at rest before each test; its process lives as long as the module."""

from collections.abc import AsyncIterator

import pytest
from tests.suppliers import twins
from tests.suppliers.twins import world
from tests.suppliers.twins.world import TwinWorld


@pytest.fixture(scope="module")
async def running_twin(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[TwinWorld]:
    name = request.module.NAME
    async with world.opened(twins.get(name), tmp_path_factory.mktemp(name)) as found:
        yield found


@pytest.fixture
async def twin(running_twin: TwinWorld) -> TwinWorld:
    await world.at_rest(running_twin)
    return running_twin
