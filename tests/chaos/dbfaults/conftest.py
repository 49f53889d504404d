"""One PostgreSQL for these tests alone: it is killed, filled and locked."""

import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from tests.chaos.dbfaults.place import SERVER, House
from tests.conftest import empty, migrate
from tests.factories.merchants import make_merchant
from tests.factories.shop import stock_the_shop
from tests.simulator.conftest import SECRETS, Simulator, simulator

from kameng_api.embedded import servers
from kameng_api.kit.db import Database
from kameng_api.settings import Settings

__all__ = ["simulator"]


@pytest.fixture(scope="module")
def own_servers() -> Iterator[servers.Servers]:
    with tempfile.TemporaryDirectory(prefix="kameng-faults-", dir=os.environ.get("KAMENG_TEST_VAR")) as folder:
        Path(folder).chmod(0o711)
        with servers.running(Path(folder) / "var", settings=SERVER) as found:
            migrate(found, "head")
            yield found
            servers.start(found.var, settings=SERVER)  # a test may have left it dead, and the end stops what it finds


@pytest.fixture
async def house(own_servers: servers.Servers, simulator: Simulator) -> AsyncIterator[House]:
    """The shop on both accounts of the simulator, and a merchant with money."""
    settings = Settings(
        _env_file=None, database_url=own_servers.app_url, redis_url=own_servers.redis_url, webhook_development=True,
        rate_reads_per_s=5000, rate_writes_per_s=5000, rate_auth_failures_per_min=0, tick_s=0.05, log_level="error", database_pool=5,
    )  # fmt: skip
    await empty(own_servers.owner_url)
    for name in SECRETS:
        await simulator.turn(name)
    db = Database(own_servers.app_url, pool_size=2)
    await stock_the_shop(db, settings, simulator.url, SECRETS)
    merchant = await make_merchant(db, settings, money="1000000")
    await db.close()
    yield House(own_servers, settings, merchant)
