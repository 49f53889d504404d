"""The processes of a benchmark, what they use of the machine, and who else uses it meanwhile."""

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psutil

from benchmarks.figures import say

ROOT: Final = Path(__file__).parents[1]
_START_S: Final = 60.0
_STOP_S: Final = 40.0
LONGEST_LINE: Final = 1 << 26


class Failed(Exception):
    """The benchmark cannot stand by its figures."""


def clean_environment() -> dict[str, str]:
    """Ours, with no setting in it."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("KAMENG_")}
    return kept | {"PYTHONUNBUFFERED": "1", "PYTHONPATH": str(ROOT)}


class Process:
    """A process of ours: started, spoken to over its standard input and output in lines of JSON, stopped by its id."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, log: Path) -> None:
        self.name = name
        self.log = log
        self._process = process

    @classmethod
    async def start(cls, name: str, arguments: Sequence[str], folder: Path, env: Mapping[str, str], *, spoken: bool = False) -> "Process":
        """`python ARGUMENTS` with no setting of ours in its environment but those in `env`."""
        log = folder / f"{name}.log"
        with log.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *arguments,
                stdin=asyncio.subprocess.PIPE if spoken else asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE if spoken else output,
                stderr=output,
                env=clean_environment() | dict(env),
                cwd=folder,  # no `.env` of the checkout is read
                limit=LONGEST_LINE,
            )
        return cls(name, process, log)

    @property
    def pid(self) -> int:
        return self._process.pid

    def tell(self, **what: Any) -> None:
        """One line there."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(what).encode() + b"\n")

    async def ask(self, **question: Any) -> Any:
        """One line there, one line back. Raises Failed when the process is gone."""
        self.tell(**question)
        return await self.hear()

    async def hear(self) -> Any:
        """The next line it says."""
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line:
            raise Failed(f"{self.name} ended: see {self.log}\n{self.last_words()}")
        return json.loads(line)

    def last_words(self) -> str:
        return self.log.read_text(errors="replace")[-3000:]

    async def until_it_answers(self, port: int, path: str) -> None:
        """Wait for a 200. Raises Failed."""
        give_up_at = time.monotonic() + _START_S
        while time.monotonic() < give_up_at:
            if self._process.returncode is not None:
                break
            if await _status(port, path) == 200:
                return
            await asyncio.sleep(0.1)
        raise Failed(f"{self.name} does not answer:\n{self.last_words()}")

    def resident_mb(self) -> float:
        return round(float(psutil.Process(self.pid).memory_info().rss) / 1e6, 1)

    async def stop(self) -> None:
        """SIGTERM, and SIGKILL when that does not help."""
        if self._process.returncode is not None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(_STOP_S):
                await self._process.wait()
        except TimeoutError:
            say(f"! {self.name} did not end within {_STOP_S:.0f} s of SIGTERM")
            self._process.kill()
            await self._process.wait()


async def _status(port: int, path: str) -> int:
    try:
        async with asyncio.timeout(2):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(f"GET {path} HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n\r\n".encode())
            head = await reader.read(64)
            writer.close()
    except (OSError, TimeoutError):
        return 0
    return int(head.split(b" ", 2)[1]) if head.startswith(b"HTTP/1.1 ") else 0


@dataclass
class Meter:
    """What the machine did between `start` and `read`: by our processes, and by everybody else."""

    roots: dict[str, int] = field(default_factory=dict)
    """Name → process id of servers that are no children of this process."""
    names: dict[int, str] = field(default_factory=dict)
    """Process id → name of those that are."""
    _at: float = 0.0
    _busy: float = 0.0
    _ours: dict[int, float] = field(default_factory=dict)

    def start(self) -> None:
        self._at, self._busy, self._ours = time.monotonic(), _machine_busy_s(), {pid: used for pid, (_, used) in self._used().items()}

    def read(self) -> "Reading":
        seconds = max(time.monotonic() - self._at, 0.001)
        all_of_it = _machine_busy_s() - self._busy
        ours: dict[str, float] = {}
        for pid, (name, used) in self._used().items():
            ours[name] = ours.get(name, 0.0) + used - self._ours.get(pid, 0.0)
        return Reading(all_of_it / seconds, max(all_of_it - sum(ours.values()), 0.0) / seconds, ours)

    def _used(self) -> dict[int, tuple[str, float]]:
        used: dict[int, tuple[str, float]] = {}
        for name, root in {"bench": os.getpid(), **self.roots}.items():
            with contextlib.suppress(psutil.Error):
                parent = psutil.Process(root)
                for process in (parent, *parent.children(recursive=True)):
                    with contextlib.suppress(psutil.Error):
                        times = process.cpu_times()
                        used[process.pid] = (self.names.get(process.pid, name), times.user + times.system)
        return used


@dataclass(frozen=True, slots=True)
class Reading:
    """Mean cores in use, in all and by others than this benchmark; CPU seconds of ours, by process."""

    cores_busy: float
    cores_of_others: float
    cpu_s: dict[str, float]

    def us_per(self, count: int) -> dict[str, float]:
        """CPU microseconds of each process for one of `count` things; what used next to nothing is left out."""
        return {name: round(1e6 * used / count, 1) for name, used in sorted(self.cpu_s.items()) if used > 0.05}


def _machine_busy_s() -> float:
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - times.iowait - times.guest - times.guest_nice)


async def machine() -> dict[str, Any]:
    """What the measurement stands on; the load is that of one second before anything of ours runs."""
    meter = Meter()
    meter.start()
    await asyncio.sleep(1.0)
    return {
        "cores": os.cpu_count(),
        "load_average_before": [round(x, 2) for x in os.getloadavg()],
        "cores_of_others_before": round(meter.read().cores_of_others, 2),
        "python": sys.version.split()[0],
    }
