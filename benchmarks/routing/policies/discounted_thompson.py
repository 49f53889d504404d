"""Discounted Thompson sampling: the same draw from results that fade, so that a sick channel is left and found again.

Source: Raj and Kalyani, arXiv 1707.09727 (dTS): Beta(prior + faded successes, prior + faded failures). Their discount is per round; the
search was free to choose rounds or seconds, the half-life and the prior. Kinder than the source: money as in `bandit.py`.
"""

from random import Random

from benchmarks.routing.policies.bandit import Arm, Bandit

# Found by `python -m benchmarks.routing.tune disc-thompson`.
HALF_LIFE = 100.0
IN_ROUNDS = True
PRIOR_GOOD = 30.0


class DiscountedThompson(Bandit):
    """`prior_good` successes and one failure are believed before anything is known."""

    def __init__(self, half_life: float = HALF_LIFE, in_rounds: bool = IN_ROUNDS, prior_good: float = PRIOR_GOOD) -> None:
        super().__init__(half_life, in_rounds)
        self._prior_good = prior_good

    def estimate(self, arm: Arm, random: Random) -> float:
        return random.betavariate(self._prior_good + arm.good, 1.0 + arm.bad)
