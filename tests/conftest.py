"""What every test may ask for: real servers of the session's own, and a database that is migrated and empty."""

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import asyncpg
import pytest
from alembic import command
from alembic.config import Config
from redis.asyncio import Redis
from sqlalchemy.engine import make_url

from kameng_api.embedded import servers
from kameng_api.kit.db import Database
from kameng_api.settings import Settings

ROOT = Path(__file__).parent.parent
_KEEP = ("alembic_version", "books", "rollup_marks", "fanout_marks", "catalog_version")


@pytest.fixture(scope="session")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.Servers]:
    """PostgreSQL and Redis of this test process alone."""
    with tempfile.TemporaryDirectory(prefix="kameng-test-", dir=os.environ.get("KAMENG_TEST_VAR")) as folder:
        Path(folder).chmod(0o711)  # lets root's servers in; else their data would stand, and stay, outside this folder
        # autovacuum's own transactions would hold the horizon back, which every test that passes events on at once expects behind it
        with servers.running(Path(folder) / "var", settings={"shared_buffers": "128MB", "autovacuum": "off"}) as found:
            yield found


@pytest.fixture(scope="session")
def migrated(embedded: servers.Servers) -> servers.Servers:
    """The same servers after `alembic upgrade head`."""
    migrate(embedded, "head")
    return embedded


def migrate(found: servers.Servers, revision: str) -> None:
    config = Config(str(ROOT / "alembic.ini"))
    config.attributes["owner_url"] = found.owner_url
    config.attributes["app_role"] = make_url(found.app_url).username
    (command.upgrade if revision != "base" else command.downgrade)(config, revision)


@pytest.fixture(scope="session")
def settings(migrated: servers.Servers) -> Settings:
    """Settings as the demo and the tests run: loopback webhooks, generous limits."""
    return Settings(
        _env_file=None,
        database_url=migrated.app_url,
        database_owner_url=migrated.owner_url,
        redis_url=migrated.redis_url,
        webhook_development=True,
        rate_reads_per_s=5000,
        rate_writes_per_s=5000,
        rate_auth_failures_per_min=0,
        tick_s=0.05,
        log_level="warning",
    )


async def empty(owner_url: str) -> None:
    """Remove every row but those that exist exactly once. Only what holds rows is touched: to truncate every table takes a third of a second."""
    connection = await _owner_connection(owner_url)
    try:
        parents, others = await _tables(connection)
        full = await connection.fetch(" UNION ALL ".join(f"SELECT '{name}' WHERE EXISTS (SELECT 1 FROM {name})" for name in parents + others))
        names = {row[0] for row in full}
        if children := [name for name in others if name in names]:
            await connection.execute(f"TRUNCATE {', '.join(children)}")
        for name in parents:
            if name in names:
                await connection.execute(f"DELETE FROM {name}")
        await connection.execute("DELETE FROM books WHERE merchant_id IS NOT NULL")
        await connection.execute("UPDATE rollup_marks SET upto_xid = 0")
        await connection.execute("UPDATE fanout_marks SET upto_xid = 0")
        await connection.execute("INSERT INTO books VALUES (1, NULL, 'live'), (2, NULL, 'test') ON CONFLICT DO NOTHING")
    finally:
        await connection.close()


async def _tables(connection: "asyncpg.Connection[asyncpg.Record]") -> tuple[list[str], list[str]]:
    """Those that others refer to, which cannot be truncated alone, children first; and all the others."""
    names = {row[0] for row in await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")} - set(_KEEP)
    keys = await connection.fetch("SELECT conrelid::regclass::text, confrelid::regclass::text FROM pg_constraint WHERE contype = 'f'")
    parents = {parent for child, parent in keys if parent in names and child != parent}
    referring = {parent: {child for child, other in keys if other == parent and child in parents and child != parent} for parent in parents}
    return list(TopologicalSorter(referring).static_order()), sorted(names - parents)


async def _owner_connection(owner_url: str) -> "asyncpg.Connection[asyncpg.Record]":
    return await asyncpg.connect(make_url(owner_url).set(drivername="postgresql").render_as_string(hide_password=False))


@pytest.fixture
async def database(migrated: servers.Servers, settings: Settings) -> AsyncIterator[Database]:
    """An empty, migrated database, reached as the application role."""
    await empty(migrated.owner_url)
    db = Database(migrated.app_url, pool_size=20)
    yield db
    await db.close()


@pytest.fixture
async def redis(migrated: servers.Servers) -> "AsyncIterator[Redis[bytes]]":
    """An empty Redis."""
    client: Redis[bytes] = Redis.from_url(migrated.redis_url)
    await client.flushall()
    yield client
    await client.aclose()


def run(work: object) -> object:
    return asyncio.run(work)  # type: ignore[arg-type]
