"""The ways in which a supplier fails, each a few lines: the proving ground's list of misfortunes."""

from dataclasses import dataclass
from typing import ClassVar, Final

from benchmarks.routing.world import Fault, Truth

SWALLOWED_BUT_DELIVERED: Final = 0.06
"""Of the requests that fall into a black hole, so many were worked on all the same: who fails over on a timeout delivers them twice."""


@dataclass(eq=False, slots=True)
class FastErrors(Fault):
    """It says no at once to everything: nearly free, for one fails over."""

    kills: ClassVar[bool] = True

    def bend(self, truth: Truth, now: float) -> None:
        truth.p, truth.quick, truth.dead = 0.0, True, True


@dataclass(eq=False, slots=True)
class BlackHole(Fault):
    """It takes the request and nothing more is heard, not even by a look-up, until the grace is over."""

    kills: ClassVar[bool] = True

    def bend(self, truth: Truth, now: float) -> None:
        truth.p, truth.dark, truth.dead = SWALLOWED_BUT_DELIVERED, 1.0, True


@dataclass(eq=False, slots=True)
class DelayedFailures(Fault):
    """It accepts everything and says four to six minutes later that it failed."""

    kills: ClassVar[bool] = True

    def bend(self, truth: Truth, now: float) -> None:
        truth.p, truth.fail_s, truth.dead = 0.0, (240.0, 360.0), True


@dataclass(eq=False, slots=True)
class Degradation(Fault):
    """Its success falls in a straight line to `floor` and stays there to the end."""

    floor: float = 0.30
    ramp_s: float = 1800.0

    def bend(self, truth: Truth, now: float) -> None:
        truth.p = truth.p + (min(truth.p, self.floor) - truth.p) * min(1.0, (now - self.start) / self.ramp_s)


@dataclass(eq=False, slots=True)
class Flapping(Fault):
    """Fast errors for `period_s`, then well for as long, and so on."""

    period_s: float = 60.0

    def bend(self, truth: Truth, now: float) -> None:
        if int((now - self.start) / self.period_s) % 2 == 0:
            truth.p, truth.quick, truth.dead = 0.0, True, True


@dataclass(eq=False, slots=True)
class Slow(Fault):
    """Everything takes `factor` times as long; nothing fails."""

    factor: float = 12.0

    def bend(self, truth: Truth, now: float) -> None:
        truth.median_s *= self.factor


@dataclass(eq=False, slots=True)
class Dearer(Fault):
    """The supplier's price rises to `cost` (1/10000 units)."""

    cost: int = 1_020_000

    def bend(self, truth: Truth, now: float) -> None:
        truth.cost = self.cost


@dataclass(eq=False, slots=True)
class Batched(Fault):
    """Callbacks are sent together every `every_s`."""

    every_s: float = 60.0

    def bend(self, truth: Truth, now: float) -> None:
        truth.batch_s = self.every_s


@dataclass(eq=False, slots=True)
class Stragglers(Fault):
    """A share of the answers takes many times as long."""

    share: float = 0.03
    factor: float = 8.0

    def bend(self, truth: Truth, now: float) -> None:
        truth.straggle, truth.straggle_factor = self.share, self.factor


@dataclass(eq=False, slots=True)
class Choked(Fault):
    """It works on `cap` orders at once and answers BUSY to the rest."""

    cap: int = 8

    def bend(self, truth: Truth, now: float) -> None:
        truth.cap = self.cap if truth.cap is None else min(self.cap, truth.cap)


@dataclass(eq=False, slots=True)
class Deaf(Fault):
    """A share of the answers is lost although the work was done."""

    share: float = 0.2

    def bend(self, truth: Truth, now: float) -> None:
        truth.lost = max(truth.lost, self.share)


@dataclass(eq=False, slots=True)
class Stutter(Fault):
    """A share of the answers is said twice."""

    share: float = 0.3

    def bend(self, truth: Truth, now: float) -> None:
        truth.twice = max(truth.twice, self.share)
