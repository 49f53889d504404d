"""The simulator's own SQLite file, the ground truth of every test, and the one thread that writes it.

Requests that arrive together share one commit (group commit); nobody is answered before the commit that holds what
was done for them.
"""

import asyncio
import logging
import queue
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Generic, Protocol, TypeVar

T = TypeVar("T")
log = logging.getLogger(__name__)

LARGEST_GROUP: Final = 512

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS supplier (
    name TEXT PRIMARY KEY, app_key TEXT NOT NULL UNIQUE, secret TEXT NOT NULL, role TEXT NOT NULL,
    currency TEXT NOT NULL, balance INTEGER NOT NULL, knobs TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS product (
    supplier TEXT NOT NULL, code TEXT NOT NULL, spec TEXT NOT NULL, stock INTEGER, PRIMARY KEY (supplier, code)
) WITHOUT ROWID;
-- Every request that arrived, with what was done about it.
CREATE TABLE IF NOT EXISTS request (
    id INTEGER PRIMARY KEY, at REAL NOT NULL, supplier TEXT NOT NULL, path TEXT NOT NULL, reference TEXT NOT NULL,
    verdict TEXT NOT NULL
);
-- One row per order; `status` is the truth, `said_status` what the vendor says instead when it contradicts itself.
CREATE TABLE IF NOT EXISTS sim_order (
    id INTEGER PRIMARY KEY, supplier TEXT NOT NULL, reference TEXT NOT NULL, product_code TEXT NOT NULL,
    product_type TEXT NOT NULL, units INTEGER NOT NULL, delivered_units INTEGER NOT NULL, unit_cost INTEGER NOT NULL,
    cost INTEGER NOT NULL, target TEXT NOT NULL, face_value INTEGER, callback_url TEXT NOT NULL, fields TEXT NOT NULL,
    status TEXT NOT NULL, fail_code TEXT NOT NULL, said_status TEXT, said_fail_code TEXT,
    reversal_no TEXT NOT NULL DEFAULT '', reversed_amount INTEGER NOT NULL DEFAULT 0, created_at REAL NOT NULL,
    finished_at REAL
);
CREATE INDEX IF NOT EXISTS sim_order_reference ON sim_order (reference, supplier);
CREATE INDEX IF NOT EXISTS sim_order_open ON sim_order (supplier) WHERE status = 'PROCESSING';
-- One row per unit that really was delivered. Never deleted; a reversal is marked.
CREATE TABLE IF NOT EXISTS delivery (
    id INTEGER PRIMARY KEY, at REAL NOT NULL, supplier TEXT NOT NULL, reference TEXT NOT NULL,
    order_id INTEGER NOT NULL, unit INTEGER NOT NULL, product_code TEXT NOT NULL, target TEXT NOT NULL,
    face_value INTEGER, receipt TEXT NOT NULL, code TEXT, pin TEXT, reversed_at REAL
);
CREATE INDEX IF NOT EXISTS delivery_order ON delivery (order_id);
CREATE INDEX IF NOT EXISTS delivery_reference ON delivery (reference);
-- The vendor's books of our prepaid wallet: what a statement shows.
CREATE TABLE IF NOT EXISTS movement (
    id INTEGER PRIMARY KEY, at REAL NOT NULL, supplier TEXT NOT NULL, reference TEXT NOT NULL, order_id INTEGER,
    kind TEXT NOT NULL, amount INTEGER NOT NULL, balance_after INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS movement_day ON movement (supplier, at);
-- Which lines of the list have changed: their price, whether there is any, whether they are on sale, or that they are gone.
CREATE TABLE IF NOT EXISTS product_change (id INTEGER PRIMARY KEY, at REAL NOT NULL, supplier TEXT NOT NULL, code TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS product_change_at ON product_change (supplier, at);
-- What will happen later; survives kill -9.
CREATE TABLE IF NOT EXISTS timer (
    id INTEGER PRIMARY KEY, due_at REAL NOT NULL, kind TEXT NOT NULL, order_id INTEGER NOT NULL, step TEXT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0
);
-- Every callback that was sent, with what the receiver answered (0: nothing).
CREATE TABLE IF NOT EXISTS callback (
    id INTEGER PRIMARY KEY, at REAL NOT NULL, supplier TEXT NOT NULL, reference TEXT NOT NULL,
    order_id INTEGER NOT NULL, status TEXT NOT NULL, attempt INTEGER NOT NULL, answer INTEGER NOT NULL,
    acknowledged INTEGER NOT NULL
);
"""


@dataclass(frozen=True, slots=True, order=True)
class Timer:
    """A due time that waits in memory; its row is in the file."""

    due_at: float
    id: int
    kind: str = field(compare=False)


@dataclass(slots=True)
class _Job(Generic[T]):
    work: Callable[[], T]
    done: "asyncio.Future[T]"
    result: T | None = None
    error: Exception | None = None


def open_file(path: Path, synchronous: str) -> sqlite3.Connection:
    """The writing connection: WAL, explicit transactions."""
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=256)
    connection.row_factory = sqlite3.Row
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute(f"PRAGMA synchronous={synchronous}")
    connection.execute("PRAGMA busy_timeout=5000")
    connection.execute("PRAGMA cache_size=-65536")
    connection.executescript(SCHEMA)
    return connection


class Memory(Protocol):
    """What the books keep in memory beside the file; every method runs in the writer's thread."""

    def flush(self) -> None:
        """Before the commit: write what changed."""

    def committed(self) -> None:
        """After the commit."""

    def rolled_back(self) -> None:
        """Read everything back."""


class Writer:
    """Runs closures against one connection in one thread and resolves them after the commit they share.

    `on_group` is called in the event loop, once per group, before the group's callers are answered.
    """

    def __init__(self, connection: sqlite3.Connection, memory: Memory, on_group: Callable[[], None]) -> None:
        self._connection = connection
        self._memory = memory
        self._on_group = on_group
        self._jobs: queue.SimpleQueue[_Job[Any] | None] = queue.SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name="simulator-writer", daemon=True)
        self._thread.start()

    def submit(self, work: Callable[[], T]) -> "asyncio.Future[T]":
        """Runs `work` in the next group; the future resolves after the commit."""
        job: _Job[T] = _Job(work, self._loop.create_future())
        self._jobs.put(job)
        return job.done

    async def close(self) -> None:
        """Commits what was submitted, then ends the thread."""
        self._jobs.put(None)
        await asyncio.to_thread(self._thread.join)
        self._connection.close()

    def _run(self) -> None:
        last = False
        while not last:
            group: list[_Job[Any]] = []
            job = self._jobs.get()
            while True:
                if job is None:
                    last = True
                    break
                group.append(job)
                if len(group) == LARGEST_GROUP or self._jobs.empty():
                    break
                job = self._jobs.get_nowait()
            if group:
                self._write(group)
                self._loop.call_soon_threadsafe(self._resolve, group)

    def _write(self, group: list[_Job[Any]]) -> None:
        """One commit for all; if one of them fails, each alone, so that only the guilty one hears of it."""
        try:
            self._commit(group)
        except Exception:
            log.exception("simulator group failed, trying one by one")
            for job in group:
                try:
                    self._commit([job])
                except Exception as error:
                    job.error = error

    def _commit(self, group: list[_Job[Any]]) -> None:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            for job in group:
                job.result = job.work()
            self._memory.flush()
            self._connection.execute("COMMIT")
        except BaseException:
            self._connection.execute("ROLLBACK")
            self._memory.rolled_back()
            raise
        self._memory.committed()

    def _resolve(self, group: list[_Job[Any]]) -> None:
        self._on_group()
        for job in group:
            if job.done.done():
                continue
            if job.error is not None:
                job.done.set_exception(job.error)
            else:
                job.done.set_result(job.result)
