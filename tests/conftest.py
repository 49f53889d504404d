"""What every test may ask for: real servers of the session's own, and a database that is migrated and empty."""

import asyncio
import gc
import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import asyncpg
import pytest
import structlog
from alembic import command
from alembic.config import Config
from redis.asyncio import Redis
from sqlalchemy.engine import make_url
from tests.factories.kept import ALWAYS
from tests.factories.pools import shared

from kameng_api.embedded import servers
from kameng_api.kit import log
from kameng_api.kit.db import Database
from kameng_api.settings import Settings

ROOT = Path(__file__).parent.parent


def pytest_sessionstart() -> None:
    """What collection makes, millions of objects, stays until the end: it is not looked through for garbage, now or while the tests run."""
    gc.disable()
    log_plainly()


def log_plainly() -> None:
    """As a process of the house writes its log, to stdout. Unconfigured, structlog paints every traceback with all its values, a second each."""
    structlog.configure(processors=[structlog.processors.add_log_level, log.describe_exception, log.redact, log.render_json])


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


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


_EMPTY = """CREATE FUNCTION pg_temp.empty() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  used regclass[];
  one regclass;
BEGIN
  SELECT array_agg(oid ORDER BY array_position('{{{parents}}}'::regclass[], oid::regclass) NULLS FIRST) INTO used FROM pg_class
    WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND relname <> ALL ('{{{kept}}}') AND pg_relation_size(oid) > 0;
  FOREACH one IN ARRAY coalesce(used, '{{}}') LOOP
    EXECUTE format('LOCK TABLE %s', one);  -- whoever still writes is waited for
    IF NOT one = ANY ('{{{parents}}}'::regclass[])
       AND (pg_relation_size(one) >= {fresh_bytes} OR (SELECT reltuples >= 0 FROM pg_class WHERE oid = one)) THEN
      EXECUTE format('TRUNCATE %s', one);
    ELSE
      EXECUTE format('DELETE FROM %s', one);
    END IF;
  END LOOP;
  DELETE FROM books WHERE merchant_id IS NOT NULL;
  UPDATE rollup_marks SET upto_xid = 0 WHERE upto_xid <> 0;
  UPDATE fanout_marks SET upto_xid = 0 WHERE upto_xid <> 0;
  INSERT INTO books VALUES (1, NULL, 'live'), (2, NULL, 'test') ON CONFLICT DO NOTHING;
  PERFORM pg_stat_force_next_flush();  -- what was counted of the rows that are gone is not told in the middle of the next test
END $$"""
_FRESH_BYTES = 10 * 8192
"""The planner takes a table that was never looked through for ten pages: below that it plans for one of which rows were deleted as for a new one."""


async def empty(owner_url: str) -> None:
    """Remove every row but those that exist exactly once."""
    connection = await _owner_connection(owner_url)
    try:
        await connection.execute(await _emptying(connection))
        await connection.execute("SELECT pg_temp.empty()")
    finally:
        await connection.close()


async def _emptying(connection: "asyncpg.Connection[asyncpg.Record]") -> str:
    """The statement that makes a function of this connection which does it.

    Rows are deleted: to truncate makes new files for a table and each of its indexes, ten times the work for a few rows. What has grown, or
    was analysed, is truncated, for statements to be planned in each test as on new tables.
    """
    return _EMPTY.format(parents=",".join(await _parents(connection)), kept=",".join(ALWAYS), fresh_bytes=_FRESH_BYTES)


async def _parents(connection: "asyncpg.Connection[asyncpg.Record]") -> list[str]:
    """The tables that others refer to, children first: they cannot be truncated alone."""
    keys = await connection.fetch(
        """SELECT conrelid::regclass::text, confrelid::regclass::text FROM pg_constraint
        WHERE contype = 'f' AND connamespace = 'public'::regnamespace AND conrelid <> confrelid"""
    )
    parents = {parent for _, parent in keys if parent not in ALWAYS}
    referring = {parent: {child for child, other in keys if other == parent and child in parents} for parent in parents}
    return list(TopologicalSorter(referring).static_order())


async def _owner_connection(owner_url: str) -> "asyncpg.Connection[asyncpg.Record]":
    return await asyncpg.connect(make_url(owner_url).set(drivername="postgresql").render_as_string(hide_password=False))


class _Connections:
    """The owner's connection and the application's pool: backends that know the tables already, for all tests of a process."""

    def __init__(self, found: servers.Servers) -> None:
        self.db = Database(found.app_url, pool_size=20)
        self._owner_url = found.owner_url
        self._owner: asyncpg.Connection[asyncpg.Record] | None = None

    async def empty(self) -> None:
        """As `empty`; a connection that a test cut is replaced."""
        try:
            await self._try_to_empty()
        except (OSError, asyncpg.PostgresConnectionError, asyncpg.InterfaceError):
            self._owner = None
            await self._try_to_empty()

    async def _try_to_empty(self) -> None:
        if self._owner is None:
            self._owner = await _owner_connection(self._owner_url)
            await self._owner.execute(await _emptying(self._owner))
        await self._owner.execute("SELECT pg_temp.empty()")

    async def close(self) -> None:
        """For now: they are opened again when somebody asks."""
        await self.db.close()
        if self._owner is not None:
            await self._owner.close()
            self._owner = None


@pytest.fixture(scope="session")
async def _connections(migrated: servers.Servers) -> AsyncIterator[_Connections]:
    found = _Connections(migrated)
    with shared(found.db, migrated.app_url):
        yield found
    await found.close()


@pytest.fixture
async def vacant(_connections: _Connections, migrated: servers.Servers) -> servers.Servers:
    """The servers, and nobody connected to their empty database: it may be copied."""
    await _connections.empty()
    await _connections.close()
    return migrated


@pytest.fixture
async def database(_connections: _Connections, settings: Settings) -> AsyncIterator[Database]:
    """An empty, migrated database, reached as the application role."""
    await _connections.empty()
    yield _connections.db
    if _connections.db.pool_in_use():
        await _connections.db.close()  # what a test has not given back is nothing for the next one


@pytest.fixture
async def redis(migrated: servers.Servers) -> "AsyncIterator[Redis[bytes]]":
    """An empty Redis."""
    client: Redis[bytes] = Redis.from_url(migrated.redis_url)
    await client.flushall()
    yield client
    await client.aclose()


def run(work: object) -> object:
    return asyncio.run(work)  # type: ignore[arg-type]
