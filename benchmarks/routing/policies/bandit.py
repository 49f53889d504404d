"""What the bandits share: a success rate per channel that may fade, turned into the expected money of one attempt.

The reward of an attempt is what the simulation will charge for it: the margin if it delivers, the cost of a failed attempt if not, and
the seconds it takes. A timeout counts as a failure and is taken back, with its seconds set right, when the real verdict comes.
"""

from random import Random

from benchmarks.routing.policies.rival import Rival
from kameng_api.suppliers.routing.facts import Ask, Heard, Option

SECONDS_AT_FIRST = 5.0


class Arm:
    """Successes, failures and seconds, fading with one half-life."""

    __slots__ = ("bad", "good", "seconds", "stamp")

    def __init__(self, stamp: float) -> None:
        self.good = self.bad = self.seconds = 0.0
        self.stamp = stamp

    def fade(self, clock: float, half_life: float) -> None:
        """Let the past weigh less."""
        if clock > self.stamp:
            factor = 0.5 ** ((clock - self.stamp) / half_life)
            self.good *= factor
            self.bad *= factor
            self.seconds *= factor
            self.stamp = clock


class Bandit(Rival):
    """`half_life` in seconds, or in results heard if `in_rounds`; None: nothing fades."""

    def __init__(self, half_life: float | None = None, in_rounds: bool = False) -> None:
        super().__init__()
        self._half_life, self._in_rounds = half_life, in_rounds
        self._rounds = 0
        self.arms: dict[str, Arm] = {}
        self._random: Random | None = None
        self._in_doubt: dict[str, tuple[float, float]] = {}

    def estimate(self, arm: Arm, random: Random) -> float:
        """The success rate that this bandit believes in for one decision."""
        raise NotImplementedError

    def pick(self, ask: Ask, usable: list[Option], now: float, seed: int) -> str | None:
        if self._random is None:
            self._random = Random(seed)
        random, price, weights = self._random, ask.price, ask.weights
        failed, second = price * weights.failed_attempt / 1e6, price * weights.second / 1e6
        best, most = None, -price * weights.undelivered / 1e6
        for option in usable:
            arm = self.arm(option.channel, now)
            q = self.estimate(arm, random)
            wait_s = (arm.seconds + SECONDS_AT_FIRST) / (arm.good + arm.bad + 1.0)
            worth = q * (price - option.cost) - (1.0 - q) * failed - second * wait_s
            if worth > most:
                best, most = option.channel, worth
        return best

    def arm(self, channel: str, now: float) -> Arm:
        """The channel's arm as it weighs now."""
        clock = self._clock(now)
        arm = self.arms.get(channel)
        if arm is None:
            arm = self.arms[channel] = Arm(clock)
        elif self._half_life is not None:
            arm.fade(clock, self._half_life)
        return arm

    def _clock(self, now: float) -> float:
        return float(self._rounds) if self._in_rounds else now

    def answered(self, channel: str, ok: bool, at: float, seconds: float, what: Heard) -> None:
        self._rounds += 1
        arm = self.arm(channel, at)
        arm.good += ok
        arm.bad += not ok
        arm.seconds += seconds
        self._last_seconds = seconds

    def doubted(self, attempt: str, channel: str, at: float) -> None:
        self._in_doubt[attempt] = (self._clock(at), self._last_seconds)

    def settled(self, attempt: str, channel: str, ok: bool, at: float, seconds: float) -> None:
        stamp, counted = self._in_doubt.pop(attempt)
        arm = self.arm(channel, at)
        weight = 1.0 if self._half_life is None else 0.5 ** ((self._clock(at) - stamp) / self._half_life)
        arm.seconds += (seconds - counted) * weight
        if ok:
            arm.bad = max(arm.bad - weight, 0.0)
            arm.good += weight
