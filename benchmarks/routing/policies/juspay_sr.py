"""Juspay's decision engine (Hyperswitch's dynamic routing), SR v3: the best success rate of a window. Blind to prices.

Source: juspay/decision-engine (6fe37d9) `gatewaydecider/gw_scoring.rs`, `gatewaydecider/constants.rs`, `feedback/constants.rs`,
`feedback/gateway_elimination_scoring/flow.rs`: window of 125 results that starts full of successes; hedging: 5 % of decisions go to any but
the leader; elimination score × 0.95 per failure and × 1.0526 per success (at most 1), below the threshold 0.05 (59 failures in a row) the
success rate is divided by 5; ties at random. Reset and sigma bonus are off by default and stay off. Kinder than the source: real failures
at the timeout instead of a penalty for pending ones after 300 s, no feedback for a supplier's own limit, no read cache of 75 ms. As in the
source, a result after a timeout is a second feedback.
"""

from collections import deque
from random import Random

from benchmarks.routing.policies.rival import Rival
from kameng_api.suppliers.routing.facts import Ask, Heard, Option

WINDOW = 125
HEDGING = 0.05
PENALTY = 1 - 5.0 / 100
REWARD = 1 + 5.26 / 100
THRESHOLD = 0.05
ELIMINATED = 5.0


class Gateway:
    """One gateway's window and elimination score."""

    __slots__ = ("elimination", "good", "results")

    def __init__(self, window: int) -> None:
        self.results = deque([1] * window, maxlen=window)
        self.good = window
        self.elimination = 1.0

    def feed(self, ok: bool) -> None:
        """One feedback."""
        self.good += ok - self.results[0]
        self.results.append(int(ok))
        self.elimination = min(self.elimination * REWARD, 1.0) if ok else self.elimination * PENALTY

    def score(self) -> float:
        """The success rate, made small when the gateway is eliminated."""
        rate = self.good / len(self.results)
        return rate / ELIMINATED if self.elimination < THRESHOLD else rate


class JuspaySR(Rival):
    """Window and hedging are arguments for the tuned ones."""

    minds_busy = False

    def __init__(self, window: int = WINDOW, hedging: float = HEDGING) -> None:
        super().__init__()
        self._window, self._hedging = window, hedging
        self.gateways: dict[str, Gateway] = {}
        self._random: Random | None = None

    def worth(self, ask: Ask, option: Option, score: float) -> float:
        """What is compared outside of hedging."""
        return score

    def pick(self, ask: Ask, usable: list[Option], now: float, seed: int) -> str | None:
        if self._random is None:
            self._random = Random(seed)
        random = self._random
        if len(usable) == 1:
            return usable[0].channel
        scores = [self._of(option.channel).score() for option in usable]
        if random.random() < self._hedging:
            head = self._any_of_the_best(scores, random)
            other = int(random.random() * (len(usable) - 1))
            return usable[other + (other >= head)].channel
        worths = [self.worth(ask, option, score) for option, score in zip(usable, scores, strict=True)]
        return usable[self._any_of_the_best(worths, random)].channel

    @staticmethod
    def _any_of_the_best(values: list[float], random: Random) -> int:
        most = max(values)
        if values.count(most) == 1:
            return values.index(most)
        best = [index for index, value in enumerate(values) if value == most]
        return best[int(random.random() * len(best))]

    def answered(self, channel: str, ok: bool, at: float, seconds: float, what: Heard) -> None:
        self._of(channel).feed(ok)

    def settled(self, attempt: str, channel: str, ok: bool, at: float, seconds: float) -> None:
        self._of(channel).feed(ok)

    def _of(self, channel: str) -> Gateway:
        gateway = self.gateways.get(channel)
        if gateway is None:
            gateway = self.gateways[channel] = Gateway(self._window)
        return gateway
