"""Requests that wait for an order's outcome: however many wait, one question to the database every tenth of a second serves them all."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Final
from uuid import UUID

import structlog

from kameng_api.kit.db import Database
from kameng_api.orders import queries
from kameng_api.orders.rules import Order

_EVERY_S: Final = 0.1
_MOST: Final = 5_000
"""Waiting requests of one process; who comes later is answered at once with the state there is."""

_log = structlog.get_logger()
_Key = tuple[int, UUID]


class Outcomes:
    """A waiting request holds a future and nothing else: no connection, no transaction, no timer of its own in the database."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._futures: dict[_Key, asyncio.Future[Order | None]] = {}
        self._looking: asyncio.Task[None] | None = None
        self.waiting = 0
        """Requests that wait at this moment."""
        self.hurried: Callable[[], bool] = lambda: False
        """True once the process is on its way out: nobody is kept waiting then."""

    async def wait(self, key: _Key, longest_s: float) -> Order | None:
        """The order once it is final; None when that takes longer than `longest_s`. Never raises for a database that is away."""
        if longest_s <= 0 or self.waiting >= _MOST or self.hurried():
            return None
        future = self._futures.setdefault(key, asyncio.get_running_loop().create_future())
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look_on())
        self.waiting += 1
        try:
            async with asyncio.timeout(longest_s):
                return await asyncio.shield(future)
        except TimeoutError:
            return None
        finally:
            self.waiting -= 1
            if not self.waiting:
                self._futures.clear()

    def stop(self) -> None:
        """Answer everybody at once with what there is."""
        self._release()
        if self._looking is not None:
            self._looking.cancel()

    def _release(self) -> None:
        for future in self._futures.values():
            if not future.done():
                future.set_result(None)
        self._futures.clear()

    async def _look_on(self) -> None:
        while self.waiting or self._futures:
            await asyncio.sleep(_EVERY_S)
            if self.hurried():
                self._release()
                return
            try:
                for order in await self._look():
                    future = self._futures.pop(order.key, None)
                    if future is not None and not future.done():
                        future.set_result(order)
            except Exception as trouble:
                _log.warning("outcomes.not_seen", trouble=type(trouble).__name__, waiting=self.waiting)
                with suppress(asyncio.CancelledError):
                    await asyncio.sleep(_EVERY_S)

    async def _look(self) -> list[Order]:
        keys = [key for key, future in self._futures.items() if not future.done()]
        if not keys:
            return []
        async with self._db.transaction() as tx:
            return await queries.find_final(tx, keys)
