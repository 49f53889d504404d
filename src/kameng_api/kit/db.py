"""The door to PostgreSQL: an engine, transactions that never end half, and raw asyncpg for the statements that carry the load.

`tx` everywhere in the house is the `AsyncConnection` of an open transaction. Only the two doors (api, jobs) open one.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from kameng_api.kit.connection import Connection
from kameng_api.kit.errors import Unavailable

Tx = AsyncConnection

_SESSION_SETTINGS = {
    "lock_timeout": "5s",
    "statement_timeout": "30s",
    "idle_in_transaction_session_timeout": "10s",
    "timezone": "UTC",
    "jit": "off",
}

# Nobody knows whether the statement, or the COMMIT, took effect: run again with the same key.
CONNECTION_TROUBLE = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # what a line that is cut in the middle of an answer looks like
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.TooManyConnectionsError,
    asyncpg.DiskFullError,
    asyncpg.QueryCanceledError,
    asyncpg.LockNotAvailableError,
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.ReadOnlySQLTransactionError,
)

DATABASE_TROUBLE = (*CONNECTION_TROUBLE, asyncpg.PostgresError, asyncpg.InterfaceError)
"""Whatever the database may raise: after any of it the transaction cannot go on."""


class Database:
    """One pool of connections. `url` is `postgresql+asyncpg://…`; `pool_size` bounds the connections of this process."""

    def __init__(self, url: str, *, pool_size: int = 10, pool_timeout_s: float = 5.0) -> None:
        self._pool_size = pool_size
        self.engine: AsyncEngine = create_async_engine(
            url,
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=pool_timeout_s,
            pool_use_lifo=True,
            pool_pre_ping=False,
            pool_recycle=1800,
            isolation_level="READ COMMITTED",
            connect_args={
                "connection_class": Connection,
                "timeout": 5,
                "command_timeout": 60,
                "statement_cache_size": 500,
                "server_settings": _SESSION_SETTINGS,
            },
        )

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Tx]:
        """Commits when the block ends, rolls back when it raises. A lost connection surfaces as `Unavailable`."""
        try:
            tx = await self._begin()
            try:
                yield tx
                await tx.commit()
            except BaseException as trouble:
                await _undo(tx, trouble)
                raise
            finally:
                await tx.close()
        except Exception as trouble:
            if is_connection_trouble(trouble):
                raise Unavailable("the database did not answer") from trouble
            raise

    async def _begin(self) -> Tx:
        """A connection on which BEGIN has succeeded. Nothing was done yet, so one that died in the pool is simply replaced."""
        for spare in range(self._pool_size, -1, -1):
            tx = await self.engine.connect()
            try:
                await tx.begin()
                await _really_begin(tx)
            except BaseException as trouble:
                await tx.invalidate()
                await tx.close()
                if spare and isinstance(trouble, Exception) and is_connection_trouble(trouble):
                    continue
                raise
            return tx
        raise AssertionError("unreachable")

    async def close(self) -> None:
        await self.engine.dispose()

    def pool_in_use(self) -> int:
        """Connections checked out at this moment."""
        return int(self.engine.pool.checkedout())  # type: ignore[attr-defined]


async def _undo(tx: Tx, trouble: BaseException) -> None:
    """Roll back; a connection of which nobody knows what it is doing is thrown away instead."""
    if isinstance(trouble, Exception) and not _is_lost(trouble):
        try:
            await tx.rollback()
        except Exception:
            await tx.invalidate()
    else:
        await tx.invalidate()


def _is_lost(trouble: Exception) -> bool:
    return is_connection_trouble(trouble) and not isinstance(trouble, asyncpg.PostgresError)


def is_connection_trouble(trouble: BaseException | None) -> bool:
    """True when the exception, or what it wraps, says that the server's verdict is not known or was 'not now'."""
    seen = 0
    while trouble is not None and seen < 6:
        if isinstance(trouble, CONNECTION_TROUBLE):
            return True
        if type(trouble).__module__.startswith("sqlalchemy") and type(trouble).__name__ == "TimeoutError":
            return True  # our own pool had no connection to give
        trouble = getattr(trouble, "orig", None) or trouble.__cause__
        seen += 1
    return False


async def driver(tx: Tx) -> "asyncpg.Connection[asyncpg.Record]":
    """The asyncpg connection inside `tx`, in the same transaction."""
    raw = await tx.get_raw_connection()
    connection = raw.driver_connection
    assert connection is not None
    return connection  # type: ignore[no-any-return]


async def _really_begin(tx: Tx) -> None:
    # SQLAlchemy's asyncpg dialect sends BEGIN with its first own statement; a raw statement before that would commit by itself.
    raw = await tx.get_raw_connection()
    adapted: Any = raw.dbapi_connection
    assert adapted._transaction is None
    await adapted._start_transaction()


async def fetch(tx: Tx, sql: str, *values: Any) -> "list[asyncpg.Record]":
    """Run one statement with `$n` placeholders inside `tx` and return its rows."""
    return await (await driver(tx)).fetch(sql, *values)


async def execute(tx: Tx, sql: str, *values: Any) -> int:
    """Run one statement with `$n` placeholders inside `tx`; returns the number of rows it touched."""
    status = await (await driver(tx)).execute(sql, *values)
    last = status.rsplit(" ", 1)[-1]
    return int(last) if last.isdigit() else 0
