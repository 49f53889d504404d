"""The door to PostgreSQL: raw statements live in the same transaction as SQLAlchemy's."""

import asyncio

import pytest

from kameng_api.kit.db import Database, execute, fetch
from kameng_api.kit.errors import Unavailable

_INSERT = "INSERT INTO merchants (merchant_id, name) VALUES (gen_random_uuid(), $1)"


async def test_a_raw_statement_is_rolled_back_with_its_transaction(database: Database) -> None:
    with pytest.raises(RuntimeError):
        async with database.transaction() as tx:
            assert await execute(tx, _INSERT, "ghost") == 1
            raise RuntimeError
    async with database.transaction() as tx:
        assert await fetch(tx, "SELECT 1 FROM merchants") == []


async def test_a_raw_statement_is_committed_with_its_transaction(database: Database) -> None:
    async with database.transaction() as tx:
        await execute(tx, _INSERT, "real")
    async with database.transaction() as tx:
        [row] = await fetch(tx, "SELECT name FROM merchants")
        assert row["name"] == "real"


async def test_connections_that_died_in_the_pool_are_replaced_unseen(database: Database) -> None:
    await _hold_open(database, 5)
    async with database.transaction() as tx:
        await fetch(tx, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = current_user AND pid <> pg_backend_pid()")
    for _ in range(8):
        async with database.transaction() as tx:
            assert (await fetch(tx, "SELECT 1 AS one"))[0]["one"] == 1


async def test_a_connection_lost_inside_a_transaction_is_unavailable_and_leaves_nothing(database: Database) -> None:
    with pytest.raises(Unavailable):
        async with database.transaction() as tx:
            await execute(tx, _INSERT, "ghost")
            [row] = await fetch(tx, "SELECT pg_backend_pid() AS pid")
            async with database.transaction() as other:
                await fetch(other, "SELECT pg_terminate_backend($1)", row["pid"])
            await asyncio.sleep(0.1)
            await fetch(tx, "SELECT 1")
    async with database.transaction() as tx:
        assert await fetch(tx, "SELECT 1 FROM merchants") == []
    assert database.pool_in_use() == 0


async def test_a_cancelled_transaction_gives_its_connection_back(database: Database) -> None:
    async def slow() -> None:
        async with database.transaction() as tx:
            await execute(tx, _INSERT, "ghost")
            await fetch(tx, "SELECT pg_sleep(5)")

    task = asyncio.create_task(slow())
    await asyncio.sleep(0.3)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with database.transaction() as tx:
        assert await fetch(tx, "SELECT 1 FROM merchants") == []
    assert database.pool_in_use() == 0


async def _hold_open(database: Database, n: int) -> None:
    async def briefly() -> None:
        async with database.transaction() as tx:
            await fetch(tx, "SELECT pg_sleep(0.1)")

    await asyncio.gather(*(briefly() for _ in range(n)))
