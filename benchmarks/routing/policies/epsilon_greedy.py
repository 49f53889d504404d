"""ε-greedy: the best mean, and now and then any channel at all.

Source: Sutton and Barto, Reinforcement Learning (2nd ed.) §2.4–2.5: with probability ε a uniform choice, else the greatest mean, of results
that fade so that it can follow changes. Kinder than the source: money as in `bandit.py`; ε and half-life searched.
"""

from random import Random

from benchmarks.routing.policies.bandit import Arm, Bandit
from kameng_api.suppliers.routing.facts import Ask, Option

# Found by `python -m benchmarks.routing.tune eps-greedy`.
EPSILON = 0.002
HALF_LIFE = 60.0


class EpsilonGreedy(Bandit):
    """A channel never heard of counts as one that always delivers."""

    def __init__(self, epsilon: float = EPSILON, half_life: float = HALF_LIFE) -> None:
        super().__init__(half_life)
        self._epsilon = epsilon

    def estimate(self, arm: Arm, random: Random) -> float:
        return (arm.good + 1.0) / (arm.good + arm.bad + 1.0)

    def pick(self, ask: Ask, usable: list[Option], now: float, seed: int) -> str | None:
        if self._random is None:
            self._random = Random(seed)
        if self._random.random() < self._epsilon:
            return usable[int(self._random.random() * len(usable))].channel
        return super().pick(ask, usable, now, seed)
