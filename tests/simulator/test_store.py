"""The one thread that writes: groups share a commit, and nobody is answered before it."""

import asyncio
import sqlite3
import threading
from pathlib import Path

import pytest

from kameng_api.simulator.store import Writer, open_file


class Memory:
    def __init__(self) -> None:
        self.committed_groups = 0
        self.rollbacks = 0

    def flush(self) -> None:
        pass

    def committed(self) -> None:
        self.committed_groups += 1

    def rolled_back(self) -> None:
        self.rollbacks += 1


def note(connection: sqlite3.Connection, verdict: str) -> None:
    connection.execute("INSERT INTO request (at, supplier, path, reference, verdict) VALUES (0, 's', 'p', 'r', ?)", [verdict])


async def test_requests_that_wait_together_share_one_commit(tmp_path: Path) -> None:
    connection = open_file(tmp_path / "x.db", "FULL")
    memory = Memory()
    writer = Writer(connection, memory, lambda: None)
    gate = threading.Event()
    first = writer.submit(lambda: gate.wait(5))
    rest = [writer.submit(lambda n=n: note(connection, str(n))) for n in range(100)]  # type: ignore[misc]
    gate.set()
    await asyncio.gather(first, *rest)
    assert memory.committed_groups <= 2
    with sqlite3.connect(tmp_path / "x.db") as other:  # on disk before anybody was answered
        assert other.execute("SELECT count(*) FROM request").fetchone() == (100,)
    await writer.close()


async def test_one_failing_request_fails_alone(tmp_path: Path) -> None:
    connection = open_file(tmp_path / "x.db", "NORMAL")
    memory = Memory()
    writer = Writer(connection, memory, lambda: None)
    gate = threading.Event()

    def fail() -> None:
        note(connection, "half done")
        raise RuntimeError("no")

    first = writer.submit(lambda: gate.wait(5))
    futures = [writer.submit(work) for work in (lambda: note(connection, "a"), fail, lambda: note(connection, "b"))]
    gate.set()
    results = await asyncio.gather(first, *futures, return_exceptions=True)
    assert isinstance(results[2], RuntimeError) and results[1] is None and results[3] is None
    assert memory.rollbacks >= 1
    await writer.close()
    with sqlite3.connect(tmp_path / "x.db") as other:
        assert other.execute("SELECT verdict FROM request ORDER BY id").fetchall() == [("a",), ("b",)]


async def test_close_keeps_what_was_submitted(tmp_path: Path) -> None:
    connection = open_file(tmp_path / "x.db", "FULL")
    writer = Writer(connection, Memory(), lambda: None)
    future = writer.submit(lambda: note(connection, "last"))
    await writer.close()
    await future
    with pytest.raises(sqlite3.ProgrammingError):
        connection.execute("SELECT 1")
    with sqlite3.connect(tmp_path / "x.db") as other:
        assert other.execute("SELECT verdict FROM request").fetchall() == [("last",)]
