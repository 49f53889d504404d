"""Work that must not be lost: claimed by one, finished in its effect's transaction, found again when its owner went silent."""

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from sqlalchemy.exc import IntegrityError

from kameng_api.kit.db import Database, execute, fetch
from kameng_api.kit.ids import new_ulid
from kameng_api.tasks import actions as tasks
from kameng_api.tasks.rules import Due, Lane, Task

BOOK = 16


async def due(db: Database, *refs: UUID, lane: str = Lane.SUBMIT, at: datetime | None = None) -> None:
    async with db.transaction() as tx:
        await tasks.make_due(tx, [Due(BOOK, lane, ref, at) for ref in refs])


async def claim(db: Database, lane: str = Lane.SUBMIT, *, limit: int = 10, lease_s: float = 60, worker: str = "w") -> list[Task]:
    async with db.transaction() as tx:
        return await tasks.claim(tx, lane, limit, lease_s, worker)


async def complete(db: Database, *claimed: Task) -> set[tuple[int, UUID]]:
    async with db.transaction() as tx:
        return await tasks.complete(tx, claimed)


async def rows(db: Database) -> list[tuple[str, int]]:
    """(state, attempts) of every task."""
    async with db.transaction() as tx:
        return [(r["state"], r["attempts"]) for r in await fetch(tx, "SELECT state, attempts FROM tasks ORDER BY created_at, ref")]


async def expire(db: Database) -> None:
    async with db.transaction() as tx:
        await execute(tx, "UPDATE tasks SET lease_until = now() - interval '1 second' WHERE state = 'running'")


async def run_at(db: Database) -> datetime:
    async with db.transaction() as tx:
        [row] = await fetch(tx, "SELECT run_at FROM tasks")
    found: datetime = row["run_at"]
    return found


async def test_due_twice_is_due_once_at_the_earlier_time(database: Database) -> None:
    ref, now = new_ulid(), datetime.now(UTC)
    for minutes in (10, 5, 20):
        await due(database, ref, at=now + timedelta(minutes=minutes))
    assert await rows(database) == [("ready", 0)]
    assert await run_at(database) == now + timedelta(minutes=5)
    assert await claim(database) == []
    await due(database, ref)
    assert [t.ref for t in await claim(database)] == [ref]


async def test_due_in_one_statement_twice_is_refused_by_the_caller_s_own_care(database: Database) -> None:
    ref = new_ulid()
    async with database.transaction() as tx:
        await tasks.make_new_due(tx, [Due(BOOK, Lane.SUBMIT, ref)])
    with pytest.raises(Exception, match="duplicate key") as caught:
        async with database.transaction() as tx:
            await tasks.make_new_due(tx, [Due(BOOK, Lane.SUBMIT, ref)])
    assert isinstance(caught.value, IntegrityError) or type(caught.value).__name__ == "UniqueViolationError"


async def test_a_task_is_claimed_by_one(database: Database) -> None:
    await due(database, *(new_ulid() for _ in range(200)))
    claimed = [t for found in await asyncio.gather(*(claim(database, limit=40, worker=f"w{n}") for n in range(8))) for t in found]
    assert len({t.ref for t in claimed}) == len(claimed) == 200
    assert len({t.lease_token for t in claimed}) == 200
    assert await claim(database) == []


async def test_lanes_do_not_wait_for_each_other(database: Database) -> None:
    await due(database, new_ulid(), lane=Lane.WEBHOOK)
    assert await claim(database) == []
    assert len(await claim(database, Lane.WEBHOOK)) == 1


async def test_the_oldest_is_claimed_first(database: Database) -> None:
    now = datetime.now(UTC)
    refs = [new_ulid() for _ in range(5)]
    for n, ref in enumerate(refs):
        await due(database, ref, at=now - timedelta(minutes=n))
    assert {t.ref for t in await claim(database, limit=2)} == {refs[4], refs[3]}


async def test_a_finished_task_is_gone_and_its_token_is_never_used_again(database: Database) -> None:
    ref = new_ulid()
    await due(database, ref)
    [first] = await claim(database)
    assert await complete(database, first) == {(BOOK, ref)}
    assert await rows(database) == []
    await due(database, ref)
    [second] = await claim(database)
    assert second.lease_token > first.lease_token
    assert await complete(database, first) == set()
    assert await rows(database) == [("running", 1)]


async def test_the_work_of_a_silent_owner_is_claimed_again_and_the_stale_lease_changes_nothing(database: Database) -> None:
    ref = new_ulid()
    await due(database, ref)
    [old] = await claim(database)
    assert await claim(database) == []
    await expire(database)
    [new] = await claim(database, worker="w2")
    assert (new.ref, new.attempts) == (ref, 2)
    far = datetime.now(UTC) + timedelta(hours=1)
    async with database.transaction() as tx:
        assert await tasks.complete(tx, [old]) == set()
        assert await tasks.reschedule(tx, [(old, far, "x")]) == set()
        assert await tasks.renew(tx, [old], 60) == set()
        assert await tasks.lock_owned(tx, [old, new]) == {(BOOK, ref)}
        await tasks.park(tx, old, "x")
    assert await rows(database) == [("running", 2)]
    assert await complete(database, old, new) == {(BOOK, ref)}


async def test_work_made_due_while_it_runs_runs_once_more(database: Database) -> None:
    ref = new_ulid()
    await due(database, ref)
    [task] = await claim(database)
    await due(database, ref)
    assert await claim(database) == []  # still with its owner
    assert await complete(database, task) == {(BOOK, ref)}
    assert await rows(database) == [("ready", 0)]
    [again] = await claim(database)
    assert await complete(database, again) == {(BOOK, ref)}
    assert await rows(database) == []


async def test_work_made_due_while_it_runs_is_not_forgotten_when_it_is_given_back(database: Database) -> None:
    """A hint that arrives during a look-up may not wait for the look-up's own, later, next time."""
    ref = new_ulid()
    await due(database, ref)
    [task] = await claim(database)
    await due(database, ref)
    async with database.transaction() as tx:
        await tasks.reschedule(tx, [(task, datetime.now(UTC) + timedelta(hours=1), None)])
    assert len(await claim(database)) == 1


async def test_given_back_work_comes_at_its_time_with_its_count(database: Database) -> None:
    ref = new_ulid()
    await due(database, ref)
    [task] = await claim(database)
    soon, late = datetime.now(UTC) - timedelta(seconds=1), datetime.now(UTC) + timedelta(hours=1)
    async with database.transaction() as tx:
        await tasks.reschedule(tx, [(task, soon, "the world")])
    [task] = await claim(database)
    assert task.attempts == 2  # trouble is counted
    async with database.transaction() as tx:
        await tasks.reschedule(tx, [(task, late, None)])
    assert await claim(database) == []
    assert await rows(database) == [("ready", 0)]  # waiting is not


async def test_parked_work_waits_for_somebody_to_make_it_due(database: Database) -> None:
    ref = new_ulid()
    await due(database, ref)
    [task] = await claim(database)
    async with database.transaction() as tx:
        await tasks.park(tx, task, "gave up")
    assert await claim(database) == []
    await due(database, ref)
    assert len(await claim(database)) == 1


async def test_dropped_work_is_gone_whoever_runs_it(database: Database) -> None:
    running, ready = new_ulid(), new_ulid()
    await due(database, running)
    [task] = await claim(database)
    await due(database, ready)
    async with database.transaction() as tx:
        await tasks.drop(tx, Lane.SUBMIT, [(BOOK, running), (BOOK, ready)])
    assert await rows(database) == []
    assert await complete(database, task) == set()


async def test_renewed_leases_do_not_run_out(database: Database) -> None:
    await due(database, new_ulid())
    [task] = await claim(database, lease_s=0.2)
    async with database.transaction() as tx:
        assert await tasks.renew(tx, [task], 60) == {task.key}
    await asyncio.sleep(0.25)
    assert await claim(database) == []


async def test_a_claim_that_is_rolled_back_leaves_the_work_where_it_was(database: Database) -> None:
    await due(database, new_ulid())
    with pytest.raises(RuntimeError):
        async with database.transaction() as tx:
            assert len(await tasks.claim(tx, Lane.SUBMIT, 10, 60, "w")) == 1
            raise RuntimeError
    assert await rows(database) == [("ready", 0)]
