"""A value that a process keeps in memory and reads again every so often, so that requests never wait for it."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

import structlog

Value = TypeVar("Value")

_log = structlog.get_logger()


class Fresh(Generic[Value]):
    """Keeps what `load` returned last and loads again every `every_s` seconds between `start` and `stop`.

    A load that fails is logged and leaves the last value standing; `age_s` tells how old that is. The first load must succeed.
    """

    def __init__(self, load: Callable[[], Awaitable[Value]], every_s: float) -> None:
        self._load = load
        self._every_s = every_s
        self._value: Value | None = None
        self._loaded_at = float("-inf")
        self._loading = asyncio.Lock()
        self._keeping: asyncio.Task[None] | None = None

    @property
    def current(self) -> Value:
        """The last value loaded; asserts that `start` or `refresh` has run."""
        assert self._value is not None, "not started"
        return self._value

    @property
    def age_s(self) -> float:
        """Seconds since the last load that succeeded."""
        return asyncio.get_running_loop().time() - self._loaded_at

    async def start(self) -> None:
        """Load once, then keep loading in the background. Raises what the first load raises."""
        await self.refresh()
        self._keeping = asyncio.create_task(self._keep())

    async def refresh(self) -> Value:
        """Load now. Raises what `load` raises, and keeps the last value then."""
        async with self._loading:
            asked_at = asyncio.get_running_loop().time()
            self._value = await self._load()
            self._loaded_at = asked_at
            return self._value

    async def stop(self) -> None:
        """End the background loading."""
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.gather(self._keeping, return_exceptions=True)
            self._keeping = None

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(self._every_s)
            try:
                await self.refresh()
            except Exception as trouble:
                _log.warning("fresh.stale", load=getattr(self._load, "__qualname__", "?"), trouble=type(trouble).__name__)
