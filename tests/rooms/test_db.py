"""The door to PostgreSQL: raw statements live in the same transaction as SQLAlchemy's."""

import asyncio
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from uuid import UUID

import pytest

from kameng_api.kit.db import Database, driver, execute, fetch
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


async def test_arrays_are_known_to_every_connection_without_a_question(database: Database) -> None:
    values = {
        "bool": True, "bytea": b"\0", "int4": 1, "int8": 2**40, "text": "话费", "float8": 0.5, "numeric": Decimal("0.0001"), "uuid": UUID(int=7),
        "date": date(2026, 11, 24), "timestamptz": datetime(2026, 11, 24, tzinfo=UTC), "interval": timedelta(hours=1),
    }  # fmt: skip
    columns = ", ".join(f"${n}::{name}[] AS {name}" for n, name in enumerate(values, 1))
    async with database.transaction() as tx:
        await fetch(tx, f"SELECT {columns}", *([value] for value in values.values()))
    await database.close()
    asked: list[str] = []
    async with database.transaction() as tx:
        connection = await driver(tx)
        connection.add_query_logger(lambda query: asked.append(query.query))
        for name, value in values.items():
            [row] = await fetch(tx, f"SELECT $1::{name}[] AS one", [value, None])
            assert row["one"] == [value, None]
        await asyncio.sleep(0)  # who logs is told a turn later
        assert len(asked) == len(values)
        [row] = await fetch(tx, "SELECT array_agg(m) AS rows FROM fanout_marks AS m")  # an array of our own is looked up
        await asyncio.sleep(0)
        assert row["rows"][0]["book_range"] == 0 and len(asked) > len(values) + 1


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
