"""Python processes that tests start, without the seconds that each would spend on importing what the one before it has imported.

`popen(["-m", "kameng_api.simulator", "--port", "0"], stdout=subprocess.PIPE)` is what `subprocess.Popen` would make of the same arguments behind
`sys.executable`: a process with a pid, an environment, files, sockets and a death of its own. Only it is a fork of one that has done already
what the program begins with, its imports. There is one such nursery for each process that asks, from the first time it asks until it ends,
however it ends; nothing that was born in it lives longer.

A program that patches what it imports, or whose start itself is looked at, wants a real start.
"""

import ast
import asyncio
import atexit
import ctypes
import gc
import importlib
import importlib.util
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import cache
from pathlib import Path
from typing import IO, Any, Final

_ROOT: Final = Path(__file__).parents[2]
_PR_SET_PDEATHSIG: Final = 1
_HOUSE: Final = frozenset({"kameng_api.cli", "kameng_api.main", "kameng_api.worker"})
_LENGTH: Final = 8
_SLICE_S: Final = 0.2

File = IO[bytes] | int | None
"""As `subprocess.Popen` takes it: a file or its descriptor, PIPE, DEVNULL; None for our own."""


def popen(
    arguments: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: Path | None = None,
    stdin: File = None, stdout: File = None, stderr: File = None,
) -> "Process":  # fmt: skip
    """A process that runs `-m MODULE ARGUMENT…` or `-c PROGRAM ARGUMENT…`. Returns at once; `env` replaces our own environment entirely."""
    return _nursery().start(arguments, dict(os.environ if env is None else env), cwd or Path.cwd(), (stdin, stdout, stderr))


class Process:
    """One that was born in the nursery, to be used as a `subprocess.Popen` is."""

    def __init__(self, said: int, pipes: Sequence[IO[bytes] | None]) -> None:
        self.stdin, self.stdout, self.stderr = pipes
        self.returncode: int | None = None
        self._said = said
        self._pid: int | None = None
        self._taking_in = threading.Lock()
        self._over: asyncio.Future[None] | None = None
        os.set_blocking(said, False)
        weakref.finalize(self, os.close, said)

    @property
    def pid(self) -> int:
        """Waits until it is born."""
        while self._pid is None:
            assert self.returncode is None, "the nursery ended before this process was born"
            self._hear(None)
        return self._pid

    def poll(self) -> int | None:
        self._hear(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """The status it ended with: -9 for one that was killed. Raises subprocess.TimeoutExpired."""
        until = None if timeout is None else time.monotonic() + timeout
        while self.returncode is None:
            left_s = None if until is None else until - time.monotonic()
            if left_s is not None and left_s <= 0:
                raise subprocess.TimeoutExpired("a process of the nursery", timeout or 0)
            self._hear(left_s)
        return self.returncode

    async def ended(self) -> int:
        """`wait` for coroutines, which keeps none of their loop's few threads."""
        if self.poll() is None:
            loop = asyncio.get_running_loop()
            if self._over is None:
                self._over = loop.create_future()
                loop.add_reader(self._said, self._look, loop, self._over)
            await asyncio.shield(self._over)
        assert self.returncode is not None
        return self.returncode

    def _look(self, loop: asyncio.AbstractEventLoop, over: "asyncio.Future[None]") -> None:
        if self.poll() is not None:
            loop.remove_reader(self._said)
            over.set_result(None)

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _hear(self, within_s: float | None) -> None:
        """Take in what the nursery says of it: its pid on one line, on the next how it ended. Waits less long than asked for
        where another thread might be taking it in meanwhile."""
        waiting = select.poll()
        waiting.register(self._said, select.POLLIN)
        waiting.poll(1000 * (_SLICE_S if within_s is None else min(within_s, _SLICE_S)))
        with self._taking_in, suppress(BlockingIOError):
            if self.returncode is not None:
                return
            said = os.read(self._said, 64)
            if not said:  # the nursery is dead, and so is all that was born in it
                self.returncode = -signal.SIGKILL
            for line in said.split():
                if self._pid is None:
                    self._pid = int(line)
                else:
                    self.returncode = int(line)


class _Nursery:
    """Our end of it."""

    def __init__(self) -> None:
        self._orders, its = socket.socketpair()
        self._one_at_a_time = threading.Lock()
        command = [sys.executable, "-m", "tests.factories.nursery"]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("KAMENG_")}
        with its:
            self._process = subprocess.Popen(
                command, cwd=_ROOT, env=environment, stdin=its.fileno(), stdout=subprocess.DEVNULL, start_new_session=True
            )
        atexit.register(self.close)

    def start(self, arguments: Sequence[str], env: dict[str, str], cwd: Path, files: Sequence[File]) -> Process:
        order = json.dumps({"arguments": list(arguments), "env": env, "cwd": str(cwd)}).encode()
        with ExitStack() as until_sent:
            said, saying = os.pipe()
            until_sent.callback(os.close, saying)
            ends = [_ends(at, file, until_sent) for at, file in enumerate(files)]
            with self._one_at_a_time:
                socket.send_fds(self._orders, [len(order).to_bytes(_LENGTH, "big")], [*(its for its, _ in ends), saying])
                self._orders.sendall(order)
        return Process(said, [ours for _, ours in ends])

    def close(self) -> None:
        """Whatever was born in it and still lives is killed."""
        self._orders.close()
        self._process.wait()


@cache
def _nursery() -> _Nursery:
    return _Nursery()


def _ends(at: int, file: File, until_sent: ExitStack) -> tuple[int, IO[bytes] | None]:
    """What the process gets as this one of its first three files, and our end where it is a pipe."""
    if file is None:
        return at, None
    if file == subprocess.DEVNULL:
        its = os.open(os.devnull, os.O_RDWR)
        until_sent.callback(os.close, its)
        return its, None
    if file == subprocess.PIPE:
        reading, writing = os.pipe()
        ours, its = (writing, reading) if at == 0 else (reading, writing)
        until_sent.callback(os.close, its)
        return its, os.fdopen(ours, "wb" if at == 0 else "rb")
    return file if isinstance(file, int) else file.fileno(), None


# ---- what follows is done in the nursery, the last two in the newborn process


def _serve() -> list[str]:
    """Fork for every order that comes through standard input, until that ends. Returns in newborn processes only, with the arguments of each."""
    orders = socket.socket(fileno=0)
    wake, woken = os.pipe()
    for end in (wake, woken):
        os.set_blocking(end, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(woken)
    alive: dict[int, int] = {}
    """Process id → where its end is to be told."""
    here = os.getpid()
    while True:
        readable, _, _ = select.select([0, wake], [], [])
        if wake in readable:
            os.read(wake, 4096)
            while alive:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if not pid:
                    break
                saying = alive.pop(pid)
                _say(saying, os.waitstatus_to_exitcode(status))
                os.close(saying)
        if 0 in readable:
            length, files, _, _ = socket.recv_fds(orders, _LENGTH, 4)
            if not length:
                break
            order = json.loads(orders.recv(int.from_bytes(length, "big"), socket.MSG_WAITALL))
            _do_ahead(order["arguments"])
            pid = os.fork()
            if not pid:
                orders.detach()
                _settle_in(here, order, files)
                return list(order["arguments"])
            *its, saying = files
            for file in its:
                os.close(file)
            alive[pid] = saying
            _say(saying, pid)
    for pid in alive:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    sys.exit()


def _say(where: int, number: int) -> None:
    with suppress(BrokenPipeError):  # nobody wants to know any more
        os.write(where, b"%d\n" % number)


def _do_ahead(arguments: Sequence[str]) -> None:
    """The imports that the program begins with. What cannot be imported here fails there, where it is looked for."""
    before = len(sys.modules)
    with suppress(Exception):
        for statement in ast.parse(_source(arguments)).body:
            if isinstance(statement, ast.Import | ast.ImportFrom):
                exec(compile(ast.Module([statement], []), "<ahead>", "exec"), {})
        if not _HOUSE.isdisjoint(sys.modules):
            _make_house_ready()
    if len(sys.modules) != before:
        gc.collect()
        gc.freeze()


@cache
def _make_house_ready() -> None:
    """What its processes import only when they start, and what each would work out from nothing but the code, for all its life."""
    importlib.import_module("kameng_api.worker")
    settings = importlib.import_module("kameng_api.settings").Settings(_env_file=None)
    for route in importlib.import_module("kameng_api.main").build_app(settings).routes:
        route.matches({"type": "http", "method": "GET", "path": "/nowhere", "headers": []})  # else at the first request of each process
    importlib.import_module("kameng_api.suppliers.registry").list_adapters()
    importlib.import_module("kameng_api.kit.http").usual_authorities()


@cache
def _source_of(module: str) -> str:
    spec = importlib.util.find_spec(module)
    if spec is not None and spec.submodule_search_locations is not None:
        spec = importlib.util.find_spec(f"{module}.__main__")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).read_text(encoding="utf-8")


def _source(arguments: Sequence[str]) -> str:
    return _source_of(arguments[1]) if arguments[0] == "-m" else arguments[1]


def _settle_in(nursery: int, order: dict[str, Any], files: Sequence[int]) -> None:
    """Be as a process is that has just been started: nothing of the nursery's and nothing of its other children's."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        if os.getppid() != nursery:
            os._exit(1)
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for at, file in enumerate(files[:3]):
        os.dup2(file, at)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    os.setsid()
    os.chdir(order["cwd"])
    os.environ.clear()
    os.environ.update(order["env"])
    time.tzset()
    if os.environ.get("PYTHONUNBUFFERED"):
        sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    sys.path[:0] = [order["cwd"], *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    gc.enable()


def _run(arguments: Sequence[str]) -> None:
    how, what, *its_own = arguments
    sys.argv = [how, *its_own]
    if how == "-m":
        runpy.run_module(what, run_name="__main__", alter_sys=True)
    else:
        exec(compile(what, "<string>", "exec"), {"__name__": "__main__"})


if __name__ == "__main__":
    gc.disable()
    _run(_serve())
