"""Stopped books as the jobs meet them: a breach stops its book and is told; the work of a stopped book waits and spoils nobody's batch.

Nobody asks while nothing is stopped: the posting itself is refused (`ledger.errors.BooksStopped`), and only then the list is read. It is
believed for a while and then forgotten, so that a lift is noticed by itself; work that was put off comes back on its own.
"""

import random
import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from kameng_api.alarms import actions as alarms
from kameng_api.kit import log
from kameng_api.kit.clock import utc_now, wire_time
from kameng_api.kit.db import Database, Tx
from kameng_api.ledger import stops
from kameng_api.ledger.queries import Breach
from kameng_api.orders.waiting import put_off_tasks
from kameng_api.reconciliation import monitor
from kameng_api.tasks.rules import Task

BY: Final = "invariant monitor"
_BELIEVED_S: Final = 15.0
_WAIT_S: Final = 60.0

_log = log.get()


async def stop(tx: Tx, found: Sequence[Breach]) -> list[int]:
    """Stop the books that these breaches are about, and tell. Returns those that are stopped only now."""
    new = await monitor.stop_books(tx, found, BY)
    for book_id in new:
        _log.error("books.stopped", book=book_id)
    await tell_of_stops(tx)
    return new


async def tell_of_stops(tx: Tx) -> None:
    """One alarm per stopped book; a lift closes it."""
    await alarms.keep_raised(
        tx,
        "books_stopped",
        {
            f"book {s.book_id} ({s.environment})": f"no postings since {wire_time(s.stopped_at)}: {s.invariant}, {s.reason}"
            for s in await stops.list_stops(tx, limit=1000)
        },
    )


class Stopped:
    """The books of which this process has heard that they take no postings."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._known: frozenset[int] = frozenset()
        self._until = 0.0

    @property
    def books(self) -> frozenset[int]:
        """Empty almost always."""
        if self._known and time.monotonic() > self._until:
            self._known = frozenset()
        return self._known

    async def refresh(self) -> frozenset[int]:
        """After a refusal: read the list."""
        async with self._db.transaction() as tx:
            self._known = await stops.stopped(tx)
        self._until = time.monotonic() + _BELIEVED_S
        return self._known

    async def put_off(self, tx: Tx, claimed: Sequence[Task]) -> list[Task]:
        """Give the tasks of stopped books back; returns the others."""
        books = self.books
        await put_off_tasks(tx, [t for t in claimed if t.book_id in books], later())
        return [t for t in claimed if t.book_id not in books]


def later() -> datetime:
    """When work of a stopped book is looked at again."""
    return utc_now() + timedelta(seconds=_WAIT_S * random.uniform(0.9, 1.1))  # noqa: S311  spreads work only
