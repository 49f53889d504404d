"""Thompson sampling: one draw per channel from what all its results allow, and the best draw wins.

Source: Agrawal and Goyal, COLT 2012 (Bernoulli Thompson sampling): Beta(1 + successes, 1 + failures), nothing is ever forgotten.
Kinder than the source: the draw is worth money (`bandit.py`), so it minds prices.
"""

from random import Random

from benchmarks.routing.policies.bandit import Arm, Bandit


class Thompson(Bandit):
    """The textbook one."""

    def estimate(self, arm: Arm, random: Random) -> float:
        return random.betavariate(1.0 + arm.good, 1.0 + arm.bad)
