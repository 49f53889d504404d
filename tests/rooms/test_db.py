"""The door to PostgreSQL: raw statements live in the same transaction as SQLAlchemy's."""

import pytest

from kameng_api.kit.db import Database, execute, fetch

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
