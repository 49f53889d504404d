"""Hystrix's circuit breaker in front of each channel, in the price order of t=0.

Source: Netflix/Hystrix `HystrixCommandProperties.java`, `HystrixCircuitBreaker.java` (HEAD, 1.5.18): rolling window 10 s, request volume
threshold 20, error threshold 50 %, sleep window 5 s, exactly one call while half-open, any success then closes and clears the window.
Kinder than the source: the window is judged at every result, not every 500 ms, a supplier's own limit is no failure (what a
HystrixBadRequestException is for), and an order that finds everything open waits.
"""

from collections import deque

from benchmarks.routing.policies.rival import Priority
from kameng_api.suppliers.routing.facts import Heard, Option

WINDOW_S = 10.0
VOLUME = 20
ERROR_SHARE = 0.5
SLEEP_S = 5.0


class Breaker:
    """One circuit. `opened_at` None: closed; `probing`: its one half-open call is under way."""

    __slots__ = ("bad", "opened_at", "probing", "results")

    def __init__(self) -> None:
        self.results: deque[tuple[float, bool]] = deque()
        self.bad = 0
        self.opened_at: float | None = None
        self.probing = False


class Hystrix(Priority):
    """Constants are arguments, so that the tuned breaker is this one with others."""

    minds_busy = False

    def __init__(self, window_s: float = WINDOW_S, volume: int = VOLUME, error_share: float = ERROR_SHARE, sleep_s: float = SLEEP_S) -> None:
        super().__init__()
        self._window_s, self._volume, self._error_share, self._sleep_s = window_s, volume, error_share, sleep_s
        self.breakers: dict[str, Breaker] = {}

    def lets_through(self, channel: str, now: float) -> bool:
        breaker = self.breakers.get(channel)
        if breaker is None or breaker.opened_at is None:
            return True
        if breaker.probing or now <= breaker.opened_at + self._sleep_s:
            return False
        breaker.probing = True
        return True

    def answered(self, channel: str, ok: bool, at: float, seconds: float, what: Heard) -> None:
        breaker = self.breakers.get(channel)
        if breaker is None:
            breaker = self.breakers[channel] = Breaker()
        if breaker.probing:
            breaker.probing = False
            breaker.opened_at = None if ok else at
            if ok:
                breaker.results.clear()
                breaker.bad = 0
            return
        results = breaker.results
        results.append((at, ok))
        breaker.bad += not ok
        horizon = at - self._window_s
        while results[0][0] < horizon:
            breaker.bad -= not results.popleft()[1]
        if breaker.opened_at is None and len(results) >= self._volume and breaker.bad >= self._error_share * len(results):
            breaker.opened_at = at

    def neutral(self, channel: str, at: float) -> None:
        breaker = self.breakers.get(channel)
        if breaker is not None:
            breaker.probing = False

    def wait_s(self, usable: list[Option], now: float) -> float:
        breakers = [self.breakers[option.channel] for option in usable if option.channel in self.breakers]
        opened = [breaker.opened_at for breaker in breakers if breaker.opened_at is not None and not breaker.probing]
        return min(opened) + self._sleep_s - now + 0.001 if opened else 2.0
