"""Rows that are put back are those that the real actions write, and as fresh."""

from datetime import datetime
from typing import Any

from tests.conftest import empty
from tests.factories.merchants import make_merchant
from tests.factories.shop import stock_the_shop

from kameng_api.catalog import queries as catalog
from kameng_api.embedded.servers import Servers
from kameng_api.kit.db import Database, fetch
from kameng_api.settings import Settings

SECRETS = {"sim-a": "secret-of-this-test-only", "sim-b": "another-secret-of-this-test"}
WRITTEN = ("products", "prices", "channels", "offers", "offer_costs", "catalog_marks")
VERSIONS = ("version", "stock_version", "details_version")


async def test_a_shop_put_back_is_the_shop_that_was_written(database: Database, migrated: Servers, settings: Settings) -> None:
    await stock_the_shop(database, settings, "http://127.0.0.1:9", SECRETS)
    written, _, version = await _read(database)
    await empty(migrated.owner_url)
    await stock_the_shop(database, settings, "http://127.0.0.1:9", SECRETS)
    back, ended, later = await _read(database)
    assert later > version  # copies of the catalogue know that they are stale
    for table in WRITTEN:
        for was, now in zip(written[table], back[table], strict=True):
            assert was.keys() == now.keys()
            for name, value in was.items():
                if isinstance(value, datetime):
                    assert value < now[name] <= ended, (table, name)  # said anew, and not in time to come
                elif name in VERSIONS:
                    assert now[name] - value in ({later - version} if value else {0}), (table, name)
                else:
                    assert now[name] == value, (table, name)


async def test_beside_other_rows_the_shop_is_written_by_the_actions(database: Database, settings: Settings) -> None:
    for _ in range(2):
        await make_merchant(database, settings)
        await stock_the_shop(database, settings, "http://127.0.0.1:9", {})
    async with database.transaction() as tx:
        [row] = await fetch(tx, "SELECT count(*) AS n FROM product_marks")
        assert row["n"] > 0  # the books that look were told
        assert len((await catalog.load_snapshot(tx)).products) == 6


async def _read(db: Database) -> tuple[dict[str, list[dict[str, Any]]], datetime, int]:
    async with db.transaction() as tx:
        rows = {table: [dict(r) for r in await fetch(tx, f"SELECT * FROM {table} ORDER BY 1, 2")] for table in WRITTEN}
        [now] = await fetch(tx, "SELECT clock_timestamp() AS at, version FROM catalog_version")
    return rows, now["at"], now["version"]
