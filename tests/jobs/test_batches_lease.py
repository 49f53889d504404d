"""Whoever works on a batch keeps its lease while he works, and no longer."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest
from tests.factories.counter import Counter

from kameng_api.jobs import batches
from kameng_api.jobs.batches import WorkDesk
from kameng_api.kit.db import Database, Tx, fetch
from kameng_api.kit.errors import Unavailable
from kameng_api.kit.ids import new_ulid
from kameng_api.settings import Settings
from kameng_api.tasks import actions as tasks
from kameng_api.tasks.rules import Due, Lane, Task


async def claimed(db: Database, book_id: int) -> Task:
    async with db.transaction() as tx:
        await tasks.make_new_due(tx, [Due(book_id, Lane.BATCH, new_ulid())])
    async with db.transaction() as tx:
        [task] = await tasks.claim(tx, Lane.BATCH, 1, 0.2, "w")
    return task


async def lease_s(tx: Tx, task: Task) -> float:
    sql = "SELECT extract(epoch FROM lease_until - clock_timestamp())::float8 AS s FROM tasks WHERE book_id = $1 AND ref = $2"
    [row] = await fetch(tx, sql, *task.key)
    return float(row["s"])


class Slow:
    """A database that is asked in the middle of a turn's end, and whose connection then breaks."""

    def __init__(self, inner: Database) -> None:
        self.inner = inner
        self.asked = asyncio.Event()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Any]:
        async with self.inner.transaction() as tx:
            self.asked.set()
            try:
                await asyncio.sleep(0.2)
            except asyncio.CancelledError:
                raise Unavailable("broken off") from None
            yield tx


async def test_the_lease_is_kept_while_a_step_takes_its_time(database: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "_BEAT_S", 0.02)
    task = await claimed(database, (await Counter.open(database, settings)).book_id)
    async with batches._renewing(cast(WorkDesk, SimpleNamespace(db=database)), task):
        await asyncio.sleep(0.5)
    async with database.transaction() as tx:
        assert await lease_s(tx, task) > batches.LEASE_S - 3


async def test_a_turn_ends_also_in_the_middle_of_a_beat(database: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A beat that was told to end while its connection broke went on for ever: it kept the lease, and nobody ever worked on the batch again."""
    monkeypatch.setattr(batches, "_BEAT_S", 0.02)
    task = await claimed(database, (await Counter.open(database, settings)).book_id)
    slow = Slow(database)
    began = time.monotonic()
    async with asyncio.timeout(3):
        async with batches._renewing(cast(WorkDesk, SimpleNamespace(db=slow)), task):
            await slow.asked.wait()
    assert time.monotonic() - began < 2, "ended only since it was cancelled from outside"
