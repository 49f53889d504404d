"""Sliding-window UCB: the mean of the last results plus what ignorance might add.

Source: Garivier and Moulines, arXiv 0805.3415 (SW-UCB): mean over the last τ plays + sqrt(ξ ln(min(t, τ)) / plays in the window).
Kinder than the source: money as in `bandit.py`, and a channel without plays in the window counts as perfect instead of being forced;
τ and ξ searched.
"""

from collections import deque
from math import log, sqrt

from benchmarks.routing.policies.bandit import SECONDS_AT_FIRST
from benchmarks.routing.policies.rival import Rival
from kameng_api.suppliers.routing.facts import Ask, Heard, Option

# Found by `python -m benchmarks.routing.tune sw-ucb`.
WINDOW = 800
XI = 0.5
MINDS_BUSY = False


class Play:
    """One result, while it is in the window."""

    __slots__ = ("arm", "gone", "good", "seconds")

    def __init__(self, arm: "Counts", good: bool, seconds: float) -> None:
        self.arm, self.good, self.seconds = arm, good, seconds
        self.gone = False


class Counts:
    """A channel's sums over the window."""

    __slots__ = ("good", "plays", "seconds")

    def __init__(self) -> None:
        self.plays = self.good = 0
        self.seconds = 0.0


class SlidingUCB(Rival):
    """Optimistic about what it has not seen lately."""

    def __init__(self, window: int = WINDOW, xi: float = XI, minds_busy: bool = MINDS_BUSY) -> None:
        super().__init__()
        self.minds_busy = minds_busy
        self._window, self._xi = window, xi
        self._plays: deque[Play] = deque()
        self.arms: dict[str, Counts] = {}
        self._in_doubt: dict[str, Play] = {}

    def pick(self, ask: Ask, usable: list[Option], now: float, seed: int) -> str | None:
        price, weights = ask.price, ask.weights
        failed, second = price * weights.failed_attempt / 1e6, price * weights.second / 1e6
        spread = self._xi * log(max(len(self._plays), 2))
        best, most = None, -price * weights.undelivered / 1e6
        for option in usable:
            q, wait_s = 1.0, SECONDS_AT_FIRST
            arm = self.arms.get(option.channel)
            if arm is not None and arm.plays:
                q = min(arm.good / arm.plays + sqrt(spread / arm.plays), 1.0)
                wait_s = arm.seconds / arm.plays
            worth = q * (price - option.cost) - (1.0 - q) * failed - second * wait_s
            if worth > most:
                best, most = option.channel, worth
        return best

    def answered(self, channel: str, ok: bool, at: float, seconds: float, what: Heard) -> None:
        arm = self.arms.get(channel)
        if arm is None:
            arm = self.arms[channel] = Counts()
        arm.plays += 1
        arm.good += ok
        arm.seconds += seconds
        self._plays.append(Play(arm, ok, seconds))
        if len(self._plays) > self._window:
            old = self._plays.popleft()
            old.gone = True
            old.arm.plays -= 1
            old.arm.good -= old.good
            old.arm.seconds -= old.seconds

    def doubted(self, attempt: str, channel: str, at: float) -> None:
        self._in_doubt[attempt] = self._plays[-1]

    def settled(self, attempt: str, channel: str, ok: bool, at: float, seconds: float) -> None:
        play = self._in_doubt.pop(attempt)
        if play.gone:
            return
        play.arm.seconds += seconds - play.seconds
        play.arm.good += ok - play.good
        play.seconds, play.good = seconds, ok
