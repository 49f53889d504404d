"""resilience4j's circuit breaker in front of each channel, in the price order of t=0.

Source: resilience4j/resilience4j `CircuitBreakerConfig.java`, `CircuitBreakerStateMachine.java` (af9e7c9): count window 100, minimum 100
calls, failure rate 50 %, slow call 60 s with slow rate 100 %, open 60 s, 10 permitted calls while half-open, no longest half-open wait.
Results of older calls count in whatever state they find, as in the source. Kinder than the default: a supplier's own limit is among
`ignoreExceptions`, and an order that finds everything open waits.
"""

from collections import deque

from benchmarks.routing.policies.rival import Priority
from kameng_api.suppliers.routing.facts import Heard, Option

WINDOW = 100
MINIMUM = 100
FAILURE_SHARE = 0.5
SLOW_S = 60.0
SLOW_SHARE = 1.0
OPEN_S = 60.0
PERMITS = 10


class Breaker:
    """One state machine: CLOSED (`opened_at` None), OPEN, or HALF_OPEN (`permits` not None)."""

    __slots__ = ("bad", "opened_at", "permits", "results", "size", "slow")

    def __init__(self) -> None:
        self.opened_at: float | None = None
        self.permits: int | None = None
        self.renew(WINDOW)

    def renew(self, size: int) -> None:
        """Fresh figures over the next `size` calls."""
        self.size = size
        self.results: deque[tuple[bool, bool]] = deque()
        self.bad = self.slow = 0

    def add(self, bad: bool, slow: bool) -> None:
        """One more result; the oldest leaves a full window."""
        self.results.append((bad, slow))
        self.bad += bad
        self.slow += slow
        if len(self.results) > self.size:
            old_bad, old_slow = self.results.popleft()
            self.bad -= old_bad
            self.slow -= old_slow


class Resilience4j(Priority):
    """With the library's defaults."""

    minds_busy = False

    def __init__(self) -> None:
        super().__init__()
        self.breakers: dict[str, Breaker] = {}

    def lets_through(self, channel: str, now: float) -> bool:
        breaker = self.breakers.get(channel)
        if breaker is None:
            return True
        if breaker.opened_at is not None:
            if now <= breaker.opened_at + OPEN_S:
                return False
            breaker.opened_at = None
            breaker.permits = PERMITS
            breaker.renew(PERMITS)
        if breaker.permits is None:
            return True
        if breaker.permits == 0:
            return False
        breaker.permits -= 1
        return True

    def answered(self, channel: str, ok: bool, at: float, seconds: float, what: Heard) -> None:
        breaker = self.breakers.get(channel)
        if breaker is None:
            breaker = self.breakers[channel] = Breaker()
        breaker.add(not ok, seconds > SLOW_S)
        if breaker.opened_at is not None:
            return
        calls = len(breaker.results)
        if calls < (MINIMUM if breaker.permits is None else PERMITS):
            return
        if breaker.bad >= FAILURE_SHARE * calls or breaker.slow >= SLOW_SHARE * calls:
            breaker.opened_at, breaker.permits = at, None
        elif breaker.permits is not None:
            breaker.permits = None
            breaker.renew(WINDOW)

    def neutral(self, channel: str, at: float) -> None:
        breaker = self.breakers.get(channel)
        if breaker is not None and breaker.permits is not None:
            breaker.permits += 1

    def wait_s(self, usable: list[Option], now: float) -> float:
        waits = [self.breakers[option.channel].opened_at for option in usable]
        return min((opened_at + OPEN_S - now + 0.001 for opened_at in waits if opened_at is not None), default=2.0)
