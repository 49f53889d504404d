"""Starts the house's processes with a fuse at every durable step: `python -m tests.chaos.crash.launch`.

Reads one JSON object per line, `{"what": "api"|"worker", "settings": {…}, "fuse": PATH, "log": PATH, "out": PATH}`, and answers
`{"pid": …}`; tells `{"ended": pid, "status": …}` when one has died. Everything is imported once and each process is a fork of that: a real
process with a pid, sockets and a death of its own, only without the seconds of importing.
"""

import ctypes
import gc
import json
import os
import re
import select
import signal
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from tests.chaos.crash import sites
from tests.chaos.crash.fuse import Fuse

from kameng_api import main as api_process
from kameng_api import worker as worker_process
from kameng_api.api.gate import Gate
from kameng_api.batches import actions as batch_actions
from kameng_api.jobs import batches, pulse, stops
from kameng_api.kit.db import Database, fetch
from kameng_api.kit.http import Client
from kameng_api.reconciliation import landing
from kameng_api.settings import Settings

_IDS: Final = re.compile(r"(?<=/)(?:[a-z]{2,4}_[0-9A-Z]{26}|lane[0-9]+-[a-z]|[A-Za-z0-9_-]{43,})(?=/|$)")
_PR_SET_PDEATHSIG: Final = 1
_SOON_S: Final = 1.0
"""Clocks that would be waited for without need; how often they tick decides nothing."""
_BEAT_S: Final = 0.03
_RUN: Final[dict[str, Callable[[Settings], None]]] = {"api": api_process.serve, "worker": worker_process.run}


class Watched:
    """A transaction that tells when its COMMIT is about to be sent and when it was answered. One that wrote nothing is no durable step."""

    def __init__(self, inner: Any, name: str, fuse: Fuse) -> None:
        self._inner, self._name, self._fuse = inner, name, fuse
        self._tx: Any = None

    async def __aenter__(self) -> Any:
        self._tx = await self._inner.__aenter__()
        return self._tx

    async def __aexit__(self, kind: type[BaseException] | None, trouble: BaseException | None, trace: TracebackType | None) -> Any:
        durable = False
        if kind is None and self._name:
            try:
                [row] = await fetch(self._tx, "SELECT pg_current_xact_id_if_assigned() IS NOT NULL AS wrote")
            except BaseException as found:  # who is cancelled here has not committed, and his transaction must end
                await self._inner.__aexit__(type(found), found, found.__traceback__)
                raise
            durable = row["wrote"]
        if durable:
            self._fuse.reached(f"{self._name}:before_commit")
        done = await self._inner.__aexit__(kind, trouble, trace)
        if durable:
            self._fuse.reached(f"{self._name}:after_commit")
        return done


def wire(fuse: Fuse) -> None:
    """Put the fuse into the three doors through which anything durable happens: COMMIT, outgoing HTTP, the answer to a request."""
    transaction, exchange, call = Database.transaction, Client.exchange, Gate.__call__

    @wraps(transaction)
    def watched(self: Database) -> Watched:
        return Watched(transaction(self), sites.commit_of(sys._getframe(1)), fuse)

    @wraps(exchange)
    async def told(self: Client, *given: Any, **named: Any) -> Any:
        name = sites.call_of(sys._getframe(1))
        if name:
            fuse.reached(f"{name}:before_call")
        try:
            return await exchange(self, *given, **named)
        finally:
            if name:
                fuse.reached(f"{name}:after_call")

    @wraps(call)
    async def answered(self: Gate, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD", "OPTIONS"):
            return await call(self, scope, receive, send)
        name = f"{scope['method']} {_IDS.sub('{}', scope['path'])}"

        async def sending(message: Any) -> None:
            if message["type"] == "http.response.start":
                fuse.reached(f"{name}:before_answer")
            await send(message)
            if message["type"] == "http.response.body" and not message.get("more_body"):
                fuse.reached(f"{name}:after_answer")

        return await call(self, scope, receive, sending)

    Database.transaction = watched  # type: ignore[method-assign, assignment]
    Client.exchange = told  # type: ignore[method-assign]
    Gate.__call__ = answered  # type: ignore[method-assign]


def tick_soon() -> None:
    """Let every chore look once a second whether it is due."""
    pulse._KEEP_S = stops._BELIEVED_S = _SOON_S  # type: ignore[misc]
    for name, module in list(sys.modules.items()):
        if name.startswith("kameng_api.jobs."):
            for chore in getattr(module, "CHORES", ()):
                object.__setattr__(chore, "every_s", min(chore.every_s, _SOON_S))


def turn_pages_often() -> None:
    """A page of a statement is full with its first line and one of a batch with its second, so that small files too are kept in several commits.

    A batch is so small then that its lease would never be renewed by the clock: that ticks fast, too."""
    landing.PAGE = 1  # type: ignore[misc]
    batch_actions.PAGE = 2  # type: ignore[attr-defined]
    batches._BEAT_S = _BEAT_S  # type: ignore[misc]


def start(order: dict[str, Any]) -> int:
    """The process id of a new API or worker."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        out = os.open(order["out"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for descriptor, at in ((nothing, 0), (out, 1), (out, 2)):
            os.dup2(descriptor, at)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        wire(Fuse(Path(order["fuse"]), Path(order["log"])))
        _RUN[order["what"]](Settings(_env_file=None, **order["settings"]))
        status = 0
    finally:
        os._exit(status)


def _tell(**said: int) -> None:
    sys.stdout.write(json.dumps(said) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Until standard input ends; what still lives then is killed."""
    sites.list_sites()
    tick_soon()
    turn_pages_often()
    gc.collect()
    gc.freeze()
    alive: set[int] = set()
    wake, woken = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(woken)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    _tell(ready=os.getpid())
    rest = b""
    while True:
        readable, _, _ = select.select([0, wake], [], [])
        if wake in readable:
            os.read(wake, 4096)
            while alive:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if not pid:
                    break
                alive.discard(pid)
                _tell(ended=pid, status=os.waitstatus_to_exitcode(status))
        if 0 in readable:
            read = os.read(0, 1 << 16)
            if not read:
                break
            *lines, rest = (rest + read).split(b"\n")
            for line in lines:
                pid = start(json.loads(line))
                alive.add(pid)
                _tell(pid=pid)
    for pid in alive:
        os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    main()
