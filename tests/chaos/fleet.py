"""Every process of a run by its name: started, killed, stopped, frozen and started again, one by one."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

from tests.factories import nursery

from kameng_api import embedded
from kameng_api.demo import processes
from kameng_api.embedded import places, postgres, redis

ROOT: Final = Path(__file__).parents[2]
_LEASH: Final = ROOT / "src" / "kameng_api" / "demo" / "leash.py"
_BUG: Final = "--bug"
_HOUSE: Final = ("-m", "tests.chaos.process")
_HOUSE_OF_THE_NURSERY: Final = """
import time
import arq.utils, arq.worker
import kameng_api.main, kameng_api.worker, kameng_api.cli
from tests.chaos.process import main
arq.utils.time = arq.worker.time = lambda: time.time()  # whoever imports them after the clock was turned gets the turned one
main()
"""
_START_S: Final = 90.0
_STOP_S: Final = 45.0


class Failed(Exception):
    """The rig itself cannot go on; says nothing about the product."""


@dataclass
class Child:
    """One process that can be started more than once. `health` is a path on `port`; without one it is well when it runs."""

    name: str
    arguments: Sequence[str]
    environment: Mapping[str, str] = field(repr=False)
    folder: Path
    port: int = 0
    health: str = ""
    process: "subprocess.Popen[bytes] | nursery.Process | None" = None
    starts: int = 0
    ended: list[str] = field(default_factory=list)
    """How it ended when nobody had asked it to."""

    @property
    def log(self) -> Path:
        return self.folder / "log" / f"{self.name}.log"

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        """From the main thread only: the leash is tied to the thread that starts a process."""
        if self.alive:
            return
        if self.process is not None and self.process.returncode not in (0, None, -signal.SIGKILL, -signal.SIGTERM):
            self.ended.append(f"{self.name} ended with {self.process.returncode}")
        with self.log.open("ab") as output:
            self.process = self._alone(output) if _BUG in self.arguments else self._in_the_nursery(output)
        self.starts += 1

    def _in_the_nursery(self, output: IO[bytes]) -> nursery.Process:
        house = tuple(self.arguments[:2]) == _HOUSE
        arguments = ["-c", _HOUSE_OF_THE_NURSERY, *self.arguments[2:]] if house else self.arguments
        return nursery.popen(arguments, env=self.environment, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output)

    def _alone(self, output: IO[bytes]) -> "subprocess.Popen[bytes]":
        """On a leash. A bug is planted in what is imported after it."""
        python = [sys.executable, "-X", processes.mark_of(self.folder)]
        command = [sys.executable, "-I", "-S", str(_LEASH), str(os.getpid()), *python, *self.arguments]
        return subprocess.Popen(
            command, env=dict(self.environment), cwd=self.folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )

    def signal(self, number: int) -> None:
        if self.alive:
            assert self.process is not None
            self.process.send_signal(number)

    async def kill(self) -> None:
        """As a power cut would."""
        self.signal(signal.SIGKILL)
        await self.wait(10)

    async def stop(self, patience_s: float = _STOP_S) -> bool:
        """SIGTERM and wait; False when it had to be killed."""
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        if await self.wait(patience_s):
            return True
        await self.kill()
        return False

    async def wait(self, patience_s: float) -> bool:
        deadline = time.monotonic() + patience_s
        while self.alive:
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(0.02)
        return True

    async def until_well(self, patience_s: float = _START_S) -> None:
        """Until it answers 200. Raises Failed."""
        deadline = time.monotonic() + patience_s
        while self.health and await status_of(self.port, self.health) != 200:
            if not self.alive:
                self.start()
                await asyncio.sleep(0.5)
            if time.monotonic() > deadline:
                raise Failed(f"{self.name} does not answer:\n{processes.tail(self.log)}")
            await asyncio.sleep(0.1)


async def status_of(port: int, path: str, patience_s: float = 3.0) -> int:
    """HTTP status of a GET on loopback; 0 for none."""
    try:
        async with asyncio.timeout(patience_s):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(f"GET {path} HTTP/1.1\r\nhost: chaos\r\nconnection: close\r\n\r\n".encode())
                head = await reader.read(64)
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return 0
    return int(head.split(b" ", 2)[1]) if head.startswith(b"HTTP/1.") else 0


class Wires:
    """The proxy process: opens wires and hurts them."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._turn = asyncio.Lock()

    @classmethod
    async def start(cls, folder: Path, seed: int) -> "Wires":
        with (folder / "log" / "proxy.log").open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-I", "-S", str(_LEASH), str(os.getpid()), sys.executable, "-X", processes.mark_of(folder),
                "-m", "tests.chaos.proxy", str(seed),
                env=environment({}), cwd=folder, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=output,
            )  # fmt: skip
        return cls(process)

    async def say(self, **order: Any) -> dict[str, Any]:
        """One order, one answer. Raises Failed when the proxy is gone."""
        assert self._process.stdin is not None and self._process.stdout is not None
        async with self._turn:
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            line = await self._process.stdout.readline()
        if not line:
            raise Failed("the proxy ended: see proxy.log")
        answer: dict[str, Any] = json.loads(line)
        return answer

    async def open(self, name: str, *addresses: str, ready: str = "") -> int:
        """A wire to these addresses, in turn; with `ready`, only to those that answer 200 there. Returns its port."""
        return int((await self.say(open=name, to=list(addresses), ready=ready))["port"])

    async def hurt(self, name: str, **fault: Any) -> None:
        await self.say(set=name, fault=fault)

    async def heal(self, name: str = "*") -> None:
        await self.say(clear=name)

    async def cut(self, name: str) -> None:
        await self.say(cut=name)

    async def stop(self) -> None:
        if self._process.returncode is None:
            self._process.kill()
            await self._process.wait()


def environment(settings: Mapping[str, str], **more: str) -> dict[str, str]:
    """What a process of the rig finds: these settings of the house and no others, and the checkout on its path."""
    made = processes.environment(settings)
    return {**made, "PYTHONPATH": os.pathsep.join([str(ROOT), made["PYTHONPATH"]]), **more}


class Machines:
    """PostgreSQL and Redis of the run, each to be hurt by itself. All calls block: run them in a thread."""

    def __init__(self, var: Path) -> None:
        self.var = var
        self._settings = {"max_connections": "120", "shared_buffers": "128MB", "log_min_duration_statement": "2000"}

    def start(self) -> embedded.Servers:
        return embedded.start(self.var, settings=self._settings)

    def stop(self) -> None:
        self._signal(redis.pid_of, signal.SIGCONT)
        self._signal(postgres.pid_of, signal.SIGCONT)
        embedded.stop(self.var)

    @property
    def place(self) -> Path:
        ground = places.recall(self.var)
        assert ground is not None
        return ground.place

    @property
    def sockets(self) -> Path:
        ground = places.recall(self.var)
        assert ground is not None
        return ground.sockets

    def signal_postgres(self, number: int) -> None:
        self._signal(postgres.pid_of, number)

    def signal_redis(self, number: int) -> None:
        self._signal(redis.pid_of, number)

    def _signal(self, find: Callable[[Path], int | None], number: int) -> None:
        pid = find(self.place)
        if pid is not None:
            os.kill(pid, number)

    def end_postgres(self, number: int) -> None:
        """SIGQUIT: immediate, as a crash; SIGINT: fast. Waits until it is gone."""
        self.signal_postgres(number)
        deadline = time.monotonic() + 30
        while postgres.pid_of(self.place) is not None and time.monotonic() < deadline:
            time.sleep(0.05)

    def start_postgres(self) -> None:
        embedded.start(self.var, redis=False, settings=self._settings)

    def start_redis(self) -> None:
        """Empty: it keeps nothing on disk."""
        embedded.start(self.var, postgres=False)
