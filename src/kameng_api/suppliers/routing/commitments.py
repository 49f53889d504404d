"""What a volume commitment (保量) adds to a purchase: nothing while it is on its way, more the further it lags. Pure.

A split by share would buy at a loss or from the ill to keep a promise. A bonus cannot: it changes which channel is worth more, and every
filter stands before it.
"""

from typing import Final

FULL_LAG: Final = 0.1
"""Behind by this share of the target, the bonus is whole."""


def lag(target: int, done: int, elapsed: float) -> float:
    """How urgent a commitment is, 0 to 1: how far `done` is behind the even pace of the period, where `elapsed` is the share that is over.

    Never less urgent than the pace still needed: towards the end of a period, what is missing weighs in full. 0 once the target is met.
    """
    if done >= target:
        return 0.0
    missing, left = (target - done) / target, max(1.0 - elapsed, 0.0)
    behind = elapsed - done / target
    if behind <= 0.0:
        return 0.0
    if left <= 0.0:
        return 1.0
    return min(1.0, max(behind / FULL_LAG, (missing / left - 1.0)))


def bonus(cost: int, bonus_ppm: int, lag_share: float) -> int:
    """What a delivery that costs `cost` is worth besides its margin, 1/10000 units, rounded down."""
    return int(cost * bonus_ppm * lag_share) // 1_000_000
