"""The tour's own processes: started, kept alive, and stopped by their ids, in the reverse order of their start."""

import asyncio
import contextlib
import errno
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final, Protocol

from kameng_api.embedded import processes as machine

_LEASH: Final = Path(__file__).with_name("leash.py")
_PACKAGES: Final = Path(__file__).resolve().parents[2]
_MARK: Final = "kameng_demo="
_PORTS: Final = range(20_000, 32_768)  # below those that Linux (32768), macOS and Windows (49152) give to outgoing connections
_STOP_S: Final = 45.0  # the API lets open requests end for 30 s
_TAIL_LINES: Final = 15


class ProcessFailed(Exception):
    """A process of the tour did not come up; the message holds the end of its log."""


class Running(Protocol):
    """As much of a `subprocess.Popen` as is needed of a process that was started."""

    stdin: IO[bytes] | None

    def poll(self) -> int | None: ...

    def wait(self, timeout: float | None = None) -> int: ...

    def send_signal(self, sig: int) -> None: ...

    def kill(self) -> None: ...


@dataclass
class Child:
    """One process. `arguments` follow the name of the Python program; `given` goes to its standard input."""

    name: str
    arguments: Sequence[str]
    environment: Mapping[str, str] = field(repr=False)
    log: Path
    given: bytes = field(default=b"", repr=False)
    process: Running | None = None
    starts: int = 0


Start = Callable[[Child, Path, int], Running]
"""Starts what the child says, in this folder, its output to this descriptor."""


def free_port() -> int:
    """A port of loopback that nobody listens on at this moment, and that no system hands out of itself: it is still free when its process starts.

    Raises OSError when none is found.
    """
    for port in random.SystemRandom().sample(_PORTS, 100):  # never the same in two processes, whoever has seeded the common one
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise OSError(errno.EADDRINUSE, "no free port of loopback between 20000 and 32767")


def environment(settings: Mapping[str, str]) -> dict[str, str]:
    """Our own environment with none of its `KAMENG_…`, and these settings instead."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("KAMENG_")}
    path = os.pathsep.join([str(_PACKAGES), *filter(None, [kept.get("PYTHONPATH")])])
    return {**kept, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", **{f"KAMENG_{name.upper()}": value for name, value in settings.items()}}


def mark_of(var: Path) -> str:
    """What stands on the command line of every process that belongs to this folder."""
    return _MARK + str(var)


def leftovers(var: Path, commands: Mapping[int, str]) -> list[int]:
    """Process ids of what a killed tour of this folder left running."""
    mark = mark_of(var)
    return [pid for pid, command in commands.items() if mark in command.split("\0") and pid != os.getpid()]


def end_leftovers(var: Path, patience_s: float = 15.0) -> int:
    """Ends what a killed tour of this folder left running, and says how many processes that were."""
    found = leftovers(var, machine.all_commands())
    machine.signal_all(found, signal.SIGTERM)
    if not machine.wait_until(lambda: not leftovers(var, machine.all_commands()), patience_s, every_s=0.1):
        machine.signal_all(leftovers(var, machine.all_commands()), signal.SIGKILL)
    return len(found)


def on_a_leash(child: Child, var: Path, output: int) -> "subprocess.Popen[bytes]":
    """A process that ends when ours is killed, and that says on its command line whose it is."""
    command = [sys.executable, "-I", "-S", str(_LEASH), str(os.getpid()), sys.executable, "-X", mark_of(var), *child.arguments]
    return subprocess.Popen(
        command,
        env=dict(child.environment),
        cwd=var,  # a .env of the folder the tour was started in is not for us
        stdin=subprocess.PIPE if child.given else subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        start_new_session=True,  # Ctrl-C is ours to pass on, in order
    )


class Crew:
    """The processes of one tour. `tell` hears of every process that has to be started again."""

    def __init__(self, var: Path, tell: Callable[[str], None], start: Start) -> None:
        self._var = var
        self._tell = tell
        self._start = start
        self._children: list[Child] = []
        self.broke: list[str] = []
        """Processes that ended by themselves; those that somebody killed are started again and not held against anyone."""

    def start(self, child: Child) -> None:
        """From the main thread only: the leash is tied to the thread that starts a process."""
        self._children.append(child)
        self._launch(child)

    def forget(self, child: Child) -> None:
        """A process that never answered and has ended."""
        self._children.remove(child)

    def _launch(self, child: Child) -> None:
        descriptor = os.open(child.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
        try:
            child.process = self._start(child, self._var, descriptor)
        finally:
            os.close(descriptor)
        child.starts += 1
        if child.given and child.process.stdin is not None:
            child.process.stdin.write(child.given)
            child.process.stdin.close()

    async def watch(self) -> None:
        """Starts again what has ended, for ever; a process that breaks at once is tried at a slower pace."""
        while True:
            await asyncio.sleep(0.3)
            for child in self._children:
                code = None if child.process is None else child.process.poll()
                if code is None:
                    continue
                if code >= 0:
                    self.broke.append(f"{child.name} ended by itself with status {code}:\n{tail(child.log)}")
                self._tell(f"{child.name} has ended ({_how(code)}), starting it again")
                await asyncio.sleep(min(0.5 * child.starts, 5.0))
                self._launch(child)

    async def stop(self) -> list[str]:
        """SIGTERM to each in the reverse order of the start, waiting for each; SIGKILL for those that do not end. Says which."""
        stubborn = []
        for child in reversed(self._children):
            if child.process is None:
                continue
            if not await asyncio.to_thread(_end, child.process, _STOP_S):
                stubborn.append(f"{child.name} did not end within {_STOP_S:.0f} s and was killed")
        self._children.clear()
        return stubborn


def _end(process: Running, patience_s: float) -> bool:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(patience_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return False
    return True


def _how(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"status {code}"


def tail(log: Path) -> str:
    """The end of a log, for messages."""
    try:
        return "\n".join(log.read_text(errors="replace").splitlines()[-_TAIL_LINES:])
    except OSError:
        return ""


async def wait_for(child: Child, answers: Callable[[], Awaitable[bool]], patience_s: float) -> None:
    """Until `answers()` says yes. Raises ProcessFailed when the process ends first, or never answers."""
    deadline = time.monotonic() + patience_s
    while not await answers():
        if child.process is not None and child.process.poll() is not None:
            raise ProcessFailed(f"{child.name} ended at once:\n{tail(child.log)}")
        if time.monotonic() > deadline:
            raise ProcessFailed(f"{child.name} did not answer within {patience_s:.0f} s:\n{tail(child.log)}")
        await asyncio.sleep(0.1)
