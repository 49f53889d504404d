"""What a proving ground is made of: channels, what may be known of them, what is really true of them, and luck that is the same for everyone.

A **scene** is a whole script: the channels, the demand and the faults. Bring your own with `--world package.module:function`, where
`function(seed: int) -> Scene`. A policy is made from `scene.world` alone, which holds what a distributor knows from the suppliers' papers;
only the oracle sees the `Truth`.

Every outcome of order × channel is one fixed draw from (seed, order, channel), so that all policies meet the same luck.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import exp, log
from random import Random
from statistics import NormalDist
from typing import ClassVar, Final

FACE: Final = 1_000_000
"""The sale price of every order: 100 currency units in 1/10000."""
SYNC_TIMEOUT_S: Final = 30.0
ASYNC_TIMEOUT_S: Final = 120.0
"""An accepted purchase whose callback has not come by then is in doubt."""
ASYNC_FACTOR: Final = 6.0
"""A callback takes so many times as long as an answer on the spot."""
QUICK_S: Final = 0.3
"""How long a refusal on the spot, a BUSY or the acceptance by an asynchronous supplier takes."""
GRACE_S: Final = 300.0
"""A purchase that the supplier cannot find may be believed undone only so long after the doubt began."""
LOOK_UPS_S: Final = (2.0, 5.0, 15.0, 30.0, 60.0, *(60.0 * minute for minute in range(2, 11)), *(600.0 + 300.0 * n for n in range(1, 11)))
"""Ages of a doubt at which the supplier is asked again, as in production."""
MASK: Final = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Channel:
    """One supplier as its papers show it."""

    name: str
    cost: int
    """At the beginning, 1/10000 units."""
    callback: bool = False
    """Asynchronous: it accepts at once and calls back later."""
    callback_batch_s: float | None = None
    """It declares that callbacks are sent in batches, so many seconds apart."""


@dataclass(frozen=True, slots=True)
class World:
    """All that a policy may know before the first order."""

    channels: tuple[Channel, ...]
    skus: tuple[str, ...]
    price: int = FACE


@dataclass(slots=True)
class Truth:
    """What is true of channel × SKU at one moment. Faults bend a copy of it."""

    p: float
    median_s: float
    sigma: float
    cost: int
    lost: float = 0.001
    """Share of answers that never arrive although the order was worked on; a look-up finds the result."""
    dark: float = 0.0
    """Share of requests of which even a look-up knows nothing until the grace is over."""
    quick: bool = False
    """Failures are said at once."""
    fail_s: tuple[float, float] | None = None
    """Failures are known only so many seconds later (from, to)."""
    straggle: float = 0.0
    """Share of answers that take `straggle_factor` times as long."""
    straggle_factor: float = 8.0
    batch_s: float | None = None
    twice: float = 0.0
    """Share of answers that are said a second time, up to a minute later."""
    cap: int | None = None
    """How many it works on at once; the next one is told BUSY."""
    dead: bool = False
    """For the figures: an order sent here now is wasted."""

    def copy(self) -> "Truth":
        """For a fault to bend."""
        return Truth(self.p, self.median_s, self.sigma, self.cost, self.lost, self.dark, self.quick, self.fail_s,
                     self.straggle, self.straggle_factor, self.batch_s, self.twice, self.cap, self.dead)

    def mean_s(self) -> float:
        """Expected seconds to a verdict that comes in the ordinary way."""
        return self.median_s * exp(self.sigma * self.sigma / 2) * (1 + self.straggle * (self.straggle_factor - 1)) + (self.batch_s or 0.0) / 2


@dataclass(eq=False, slots=True)
class Fault:
    """Something that goes wrong from `start` to `end` (seconds) on one channel (its place in `world.channels`), for all SKUs or some.

    Subclass it and override `bend` to bring another kind of misfortune. `kills` says that an order sent there is wasted meanwhile, which
    makes the figures watch how fast a policy leaves and comes back.
    """

    kills: ClassVar[bool] = False

    channel: int
    start: float
    end: float
    skus: frozenset[int] | None = None

    def bend(self, truth: Truth, now: float) -> None:
        """Change what is true at `now`."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Surge:
    """One SKU is asked for `factor` times as often for a while."""

    start: float
    end: float
    sku: int
    factor: float


@dataclass(slots=True)
class Scene:
    """The whole script of one simulated time. `truths` stand in the order of `world.channels`."""

    name: str
    world: World
    truths: tuple[Truth, ...]
    faults: Sequence[Fault] = ()
    surges: Sequence[Surge] = ()
    rate: float = 3.0
    """Orders a second."""
    seconds: float = 3600.0
    popularity: tuple[float, ...] = field(default=())
    """A weight for each SKU; Zipf(1.1) by default."""

    def __post_init__(self) -> None:
        if not self.popularity:
            self.popularity = tuple((rank + 1) ** -1.1 for rank in range(len(self.world.skus)))


def orders_of(scene: Scene, seed: int) -> list[tuple[float, int]]:
    """(arrival in seconds, place of the SKU) of every order, a Poisson stream; the same for all policies."""
    random = Random(f"{scene.name}:{seed}")
    skus = range(len(scene.popularity))
    moments: list[tuple[float, int]] = []
    now = 0.0
    while (now := now + random.expovariate(scene.rate)) < scene.seconds:
        moments.append((now, random.choices(skus, scene.popularity)[0]))
    total = sum(scene.popularity)
    for surge in scene.surges:
        extra = scene.rate * scene.popularity[surge.sku] / total * (surge.factor - 1)
        now = surge.start
        while (now := now + random.expovariate(extra)) < surge.end:
            moments.append((now, surge.sku))
    moments.sort()
    return moments


def luck(seed: int, order: int, channel: int) -> int:
    """64 bits that belong to this order on this channel, for whoever sends it there (the finalizer of SplitMix64)."""
    return mix(seed * 0x9E3779B97F4A7C15 + order * 0xD1342543DE82EF95 + channel * 0xA0761D6478BD642F + 0x632BE59BD9B4E019)


def mix(x: int) -> int:
    """Another 64 bits from these."""
    x &= MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


NORMAL: Final = tuple(NormalDist().inv_cdf((n + 0.5) / 65536) for n in range(65536))
"""The normal law's quantiles, so that a latency costs one look into a table and one exponential."""


def channel_and_truth(
    name: str,
    margin: float,
    p: float,
    median_s: float,
    *,
    sigma: float = 0.5,
    callback: bool = False,
    batch_s: float | None = None,
    cap: int | None = None,
) -> tuple[Channel, Truth]:
    """A channel from its margin in currency units on a face value of 100, with what is true of it."""
    cost = FACE - round(margin * 10_000)
    median_s = median_s * ASYNC_FACTOR if callback else median_s
    return Channel(name, cost, callback, batch_s), Truth(p, median_s, sigma, cost, batch_s=batch_s, cap=cap)


def late_share(truth: Truth, seconds: float) -> float:
    """Which share of ordinary verdicts takes longer than `seconds`."""
    return 1 - NormalDist(log(truth.median_s), truth.sigma).cdf(log(seconds))
