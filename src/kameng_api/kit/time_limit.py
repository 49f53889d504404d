"""`asyncio.timeout` for many calls that share one limit: one timer for all of them instead of one each."""

import asyncio
from collections import deque
from types import TracebackType
from typing import Any


class TimeLimit:
    """`with limit():` around awaits raises TimeoutError `seconds` later, or up to `slack_s` after that.

    Calls under one limit end in the order in which they began, so a look at the oldest is enough.
    """

    def __init__(self, seconds: float, slack_s: float = 0.25) -> None:
        self._seconds = seconds
        self._slack_s = slack_s
        self._begun: deque[_Limited] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def __call__(self) -> "_Limited":
        return _Limited(self)

    def _began(self, call: "_Limited", loop: asyncio.AbstractEventLoop) -> None:
        self._begun.append(call)
        if self._timer is None:
            self._timer = loop.call_later(self._seconds, self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        begun = self._begun
        now = loop.time()
        while begun and (begun[0].task is None or begun[0].ends_at <= now):
            begun.popleft().expire()
        if begun:
            self._timer = loop.call_later(max(begun[0].ends_at - now, self._slack_s), self._look, loop)
        else:
            self._timer = None

    def _forget_ended(self) -> None:
        begun = self._begun
        while begun and begun[0].task is None:
            begun.popleft()


class _Limited:
    """One call under the limit. `task` is None when it has ended."""

    __slots__ = ("_cancelling", "_expired", "_limit", "ends_at", "task")

    def __init__(self, limit: TimeLimit) -> None:
        self._limit = limit
        self.task: asyncio.Task[Any] | None = None
        self.ends_at = 0.0
        self._cancelling = 0
        self._expired = False

    def __enter__(self) -> None:
        loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        assert task is not None, "inside a task"
        self.task = task
        self.ends_at = loop.time() + self._limit._seconds
        self._cancelling = task.cancelling()
        self._limit._began(self, loop)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None) -> None:
        task, self.task = self.task, None
        self._limit._forget_ended()
        # As asyncio.timeout: a cancellation from elsewhere that came meanwhile stays a cancellation.
        if self._expired and task is not None and task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def expire(self) -> None:
        """Time is up; nothing happens to a call that has ended."""
        if self.task is not None:
            self._expired = True
            self.task.cancel()
