"""What a restored database believes: which charges are lost, whom it asks about, and which orders may be lost ones ordered again."""

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
from tests.conftest import _owner_connection
from tests.factories.counter import Counter

from kameng_api.embedded.servers import Servers
from kameng_api.evidence import restores
from kameng_api.evidence.restores import Standing
from kameng_api.jobs.restores import StandingLoader
from kameng_api.kit.clock import utc_now
from kameng_api.kit.db import Database, execute
from kameng_api.kit.ids import book_reference, new_ulid
from kameng_api.settings import Settings
from kameng_api.suppliers.port import LineKind, StatementLine


@pytest.fixture
async def counter(database: Database, settings: Settings) -> Counter:
    return await Counter.open(database, settings)


@pytest.fixture
async def owner(migrated: Servers, database: Database) -> AsyncIterator[Database]:
    found = Database(migrated.owner_url, pool_size=1)
    yield found
    await found.close()


@pytest.fixture
async def superuser(migrated: Servers) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    connection = await _owner_connection(migrated.owner_url)
    yield connection
    await connection.close()


async def open_restore(db: Database) -> Any:
    """A restore that holds every open order."""
    restore_id = new_ulid()
    async with db.transaction() as tx:
        await execute(tx, "INSERT INTO restores (restore_id, begun_by, last_commit_at, xid_shift) VALUES ($1, 'test', now(), 0)", restore_id)
        await execute(tx, "INSERT INTO restored_orders (book_id, order_id, restore_id) SELECT book_id, order_id, $1 FROM orders", restore_id)
    return restore_id


def charge(reference: str) -> StatementLine:
    return StatementLine(f"W-{reference}", reference, f"S-{reference}", LineKind.CHARGE, -900_000, "CNY", utc_now())


async def test_a_purchase_lost_on_one_channel_is_not_found_again_on_another(counter: Counter) -> None:
    order, _ = await counter.buy()
    [attempt] = await counter.attempts(order)
    assert attempt.channel_id == "a"
    restore_id = await open_restore(counter.db)
    async with counter.db.transaction() as tx:
        assert await restores.record_losses(tx, "a", [charge(attempt.reference)]) == 0
        assert await restores.record_losses(tx, "b", [charge(attempt.reference)]) == 1
        assert [r["channel_id"] for r in await restores.list_losses(tx, restore_id)] == ["b"]


async def test_orders_with_a_live_attempt_take_no_place_of_those_to_ask_about(counter: Counter) -> None:
    for n in range(3):
        await counter.buy(f"LIVE-{n}")
    untouched = await counter.order("UNTOUCHED")
    await open_restore(counter.db)
    async with counter.db.transaction() as tx:
        held = await restores.list_held(tx, 2)
    assert [h.order.order_id for h in held] == [untouched.order_id]


async def test_what_was_ordered_between_the_move_and_begin_counts_as_ordered_again(
    counter: Counter, owner: Database, superuser: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    look = StandingLoader(counter.db)
    assert await look() is Standing.WELL
    await superuser.execute("UPDATE database_identity SET seen_at = now() - interval '1 hour'")
    before = await counter.order("BEFORE")
    assert await look() is Standing.WELL  # a worker saw it since, where it belongs
    await superuser.execute("UPDATE database_identity SET system_identifier = system_identifier - 1")
    after = await counter.order("AFTER")  # by a process that outlived the failover
    assert await look() is Standing.MOVED
    async with owner.transaction() as tx:
        begun = await restores.begin(tx, "test")
    assert before.created_at < begun.last_commit_at < after.created_at
    async with counter.db.transaction() as tx:
        await restores.record_losses(tx, "a", [charge(book_reference(counter.book_id, new_ulid()))])
        await execute(tx, "UPDATE restored_orders SET state = 'free'")
        assert (await restores.end(tx, counter.keyring, "test"))["sent_to_review"] == 1
    assert [(await counter.now(o)).substatus for o in (before, after)] == [before.substatus, "manual_review"]
