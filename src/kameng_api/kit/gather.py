"""Natural batching: what arrives while the last flush is in flight goes together in the next one.

No timer: when idle, the first item flushes at once; under load batches grow by themselves. Used for group commit, nonce and rate checks,
and settlement.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

Item = TypeVar("Item")
Verdict = TypeVar("Verdict")

Flush = Callable[[Sequence[Item]], Awaitable[Sequence[Verdict | BaseException]]]


class Gatherer(Generic[Item, Verdict]):
    """Runs `flush` over batches of at most `largest` items, at most `in_flight` at a time.

    While one is in flight another starts only when `crowd` items wait: a flush that costs its round trips whatever its size should be large,
    and the process should not stand idle while the database works.

    `flush` returns one verdict per item, in order; an exception in a slot is raised to that caller alone, an exception out of `flush` to
    all of its callers. A caller that goes away cannot cancel a flush. `too_many` bounds what may wait; beyond it `Overflow` is raised.
    """

    def __init__(
        self, flush: Flush[Item, Verdict], *, largest: int = 256, in_flight: int = 2, crowd: int = 1, too_many: int = 20_000
    ) -> None:
        self._flush = flush
        self._largest = largest
        self._free = in_flight
        self._crowd = crowd
        self._too_many = too_many
        self._waiting: deque[tuple[Item, asyncio.Future[Verdict]]] = deque()
        self._running: set[asyncio.Task[None]] = set()
        self._scheduled = False
        self.on_flush: Callable[[int], None] | None = None

    async def submit(self, item: Item) -> Verdict:
        """Wait for this item's verdict. Raises Overflow, or what the flush raised."""
        if len(self._waiting) >= self._too_many:
            raise Overflow
        loop = asyncio.get_running_loop()
        verdict: asyncio.Future[Verdict] = loop.create_future()
        self._waiting.append((item, verdict))
        if self._free and not self._scheduled and self._worth_a_flight():
            # One turn of the loop later, so that requests parsed in the same turn travel together.
            self._scheduled = True
            loop.call_soon(self._start)
        return await verdict

    def _worth_a_flight(self) -> bool:
        return len(self._waiting) >= (self._crowd if self._running else 1)

    def _start(self) -> None:
        self._scheduled = False
        while self._free and self._worth_a_flight():
            size = min(self._largest, len(self._waiting))
            batch = [self._waiting.popleft() for _ in range(size)]
            self._free -= 1
            flight = asyncio.create_task(self._fly(batch))
            self._running.add(flight)
            flight.add_done_callback(self._landed)

    def _landed(self, flight: asyncio.Task[None]) -> None:
        self._running.discard(flight)
        self._free += 1
        if self._waiting:
            self._start()

    async def _fly(self, batch: list[tuple[Item, asyncio.Future[Verdict]]]) -> None:
        if self.on_flush is not None:
            self.on_flush(len(batch))
        try:
            verdicts = await self._flush([item for item, _ in batch])
            assert len(verdicts) == len(batch)
        except BaseException as trouble:
            for _, future in batch:
                if not future.done():
                    future.set_exception(trouble if isinstance(trouble, Exception) else Interrupted())
            if not isinstance(trouble, Exception):
                raise
            return
        for (_, future), verdict in zip(batch, verdicts, strict=True):
            if future.done():
                continue
            if isinstance(verdict, BaseException):
                future.set_exception(verdict)
            else:
                future.set_result(verdict)

    async def drain(self) -> None:
        """Wait until nothing is waiting or in flight."""
        while self._waiting or self._running:
            if self._running:
                await asyncio.wait(self._running)
            else:
                await asyncio.sleep(0)


class Overflow(Exception):
    """More items wait than the gatherer may hold."""


class Interrupted(Exception):
    """The flush was cut off; whether it took effect is not known."""
