"""The wire to a process that is to die: the test writes the name of a point, the process reads it at every durable step.

Nothing of this is in the product; `launch.py` wraps the product's own doors before its main begins.
"""

import mmap
import os
import signal
from collections.abc import Iterable
from pathlib import Path
from typing import Final

SIZE: Final = 4096
DIED: Final = "+"
"""Begins the line of the point at which a process died."""
POINTS: Final = {"commits": ("before_commit", "after_commit"), "calls": ("before_call", "after_call"), "answers": ("before_answer", "after_answer")}
"""Kind of durable step → the two moments around it."""


class Fuse:
    """One small file shared by a test and the processes it may kill. `log` takes one line per point a process passed for the first time."""

    def __init__(self, path: Path, log: Path) -> None:
        with path.open("r+b" if path.exists() else "w+b") as file:
            if path.stat().st_size < SIZE:
                file.write(bytes(SIZE))
                file.flush()
            self._map = mmap.mmap(file.fileno(), SIZE)
        self._log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._seen: set[str] = set()

    def arm(self, points: Iterable[str]) -> None:
        """Whoever reaches one of `points` next dies there."""
        text = "\n".join(["", *points, ""]).encode()
        assert len(text) < SIZE
        self._map[0] = 0
        self._map[1:SIZE] = text.ljust(SIZE - 1, b"\0")
        self._map[0] = len(text) > 1

    def reached(self, point: str) -> None:
        """Called at every point; does not return from the one that is armed: no clean-up runs, as after `kill -9`."""
        if point not in self._seen:
            self._seen.add(point)
            os.write(self._log, f"{point}\n".encode())
        if self._map[0] and self._map.find(f"\n{point}\n".encode(), 1) > 0:
            os.write(self._log, f"{DIED}{point}\n".encode())
            os.kill(os.getpid(), signal.SIGKILL)
