"""Processes of a benchmark out of the nursery: nothing here measures how long they take to start."""

import asyncio
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from subprocess import DEVNULL, PIPE
from typing import Any

from benchmarks.machine import LONGEST_LINE, Process, clean_environment
from tests.factories import nursery


async def start(
    cls: type[Process], name: str, arguments: Sequence[str], folder: Path, env: Mapping[str, str], *, spoken: bool = False
) -> Process:
    """As `Process.start`."""
    log = folder / f"{name}.log"
    with log.open("ab") as output:
        born = nursery.popen(
            arguments, env=clean_environment() | dict(env), cwd=folder,
            stdin=PIPE if spoken else DEVNULL, stdout=PIPE if spoken else output, stderr=output,
        )  # fmt: skip
    process: Any = _Spoken(born, await _reader(born)) if spoken else _Born(born)
    return cls(name, process, log)


async def _reader(born: nursery.Process) -> asyncio.StreamReader:
    reader = asyncio.StreamReader(limit=LONGEST_LINE)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), born.stdout)
    return reader


class _Born:
    """What `asyncio.subprocess.Process` offers."""

    def __init__(self, born: nursery.Process) -> None:
        self._born = born
        self.pid = born.pid
        self.send_signal = born.send_signal
        self.kill = born.kill
        self.wait = born.ended

    @property
    def returncode(self) -> int | None:
        return self._born.poll()


class _Spoken(_Born):
    def __init__(self, born: nursery.Process, said: asyncio.StreamReader) -> None:
        super().__init__(born)
        self.stdin, self.stdout = self, said

    def write(self, line: bytes) -> None:
        assert self._born.stdin is not None
        os.write(self._born.stdin.fileno(), line)
