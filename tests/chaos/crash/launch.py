"""Runs one of the house's processes with a fuse at every durable step. Its argument, in JSON, is all it is told:
`{"what": "api"|"worker", "settings": {…}, "fuse": PATH, "log": PATH}`.
"""

import json
import re
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
from kameng_api.suppliers.routing.tuning import DEFAULT

_IDS: Final = re.compile(r"(?<=/)(?:[a-z]{2,4}_[0-9A-Z]{26}|lane[0-9]+-[a-z]|[A-Za-z0-9_-]{43,})(?=/|$)")
_SOON_S: Final = 2.0
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
    """Let every chore look once a second whether it is due, and shut suppliers be asked again as soon."""
    pulse._KEEP_S = stops._BELIEVED_S = _SOON_S  # type: ignore[misc]
    for longest in ("probe_min_s", "probe_max_s"):  # an order whose other suppliers are used up waits for one that is probed again
        object.__setattr__(DEFAULT, longest, _SOON_S)
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


sites.list_sites()  # by whoever imports this, the nursery, and not again in each process


def main() -> None:
    order = json.loads(sys.argv[1])
    tick_soon()
    turn_pages_often()
    wire(Fuse(Path(order["fuse"]), Path(order["log"])))
    _RUN[order["what"]](Settings(_env_file=None, **order["settings"]))
