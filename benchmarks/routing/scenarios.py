"""The scripts: fourteen scenes that each show one thing, and random worlds that show how it all goes together.

Seeds for tuning and seeds for judging are different, and `judge`/`tune` refuse each other's: what was tuned on a world proves nothing there.
"""

from collections.abc import Callable, Sequence
from math import exp, log
from random import Random
from typing import Final

from benchmarks.routing.faults import (
    Batched,
    BlackHole,
    Choked,
    Deaf,
    Dearer,
    Degradation,
    DelayedFailures,
    FastErrors,
    Flapping,
    Slow,
    Stragglers,
    Stutter,
)
from benchmarks.routing.world import FACE, Channel, Fault, Scene, Surge, Truth, World, channel_and_truth

TUNING_SEEDS: Final = (100, 101, 102)
TUNING_CHAOS: Final = tuple(range(1000, 1040))
JUDGING_SEEDS: Final = (0, 1, 2, 3, 4)
JUDGING_CHAOS: Final = tuple(range(60))
SKUS: Final = tuple(f"sku-{n:02}" for n in range(20))
MARGINS: Final = (3.0, 2.4, 1.8, 1.2)
SUCCESS: Final = (0.970, 0.985, 0.990, 0.950)
MEDIANS_S: Final = (5.0, 7.0, 3.5, 9.0)


class MixedSeeds(Exception):
    """Tuning worlds and judging worlds in one run, or a world that belongs to neither."""


def check_seeds(chaos: Sequence[int], seeds: Sequence[int], *, tuning: bool) -> None:
    """Refuse a run that would judge on what was tuned, or tune on what will judge."""
    allowed_seeds = TUNING_SEEDS if tuning else JUDGING_SEEDS
    allowed_chaos = TUNING_CHAOS if tuning else JUDGING_CHAOS
    if wrong := (set(seeds) - set(allowed_seeds)) | (set(chaos) - set(allowed_chaos)):
        raise MixedSeeds(f"seeds {sorted(wrong)} are not for {'tuning' if tuning else 'judging'}")


def four(
    *, callback: bool = False, batch_s: float | None = None, caps: Sequence[int | None] = (None,) * 4, margins: Sequence[float] = MARGINS
) -> tuple[World, tuple[Truth, ...]]:
    """The four suppliers of all scenes."""
    pairs = [
        channel_and_truth(name, margin, p, median_s, callback=callback, batch_s=batch_s, cap=cap)
        for name, margin, p, median_s, cap in zip("ABCD", margins, SUCCESS, MEDIANS_S, caps, strict=True)
    ]
    return World(tuple(channel for channel, _ in pairs), SKUS), tuple(truth for _, truth in pairs)


def scene(name: str, *faults: Fault, callback: bool = False, batch_s: float | None = None) -> Scene:
    """One hour of the four suppliers at three orders a second."""
    world, truths = four(callback=callback, batch_s=batch_s)
    return Scene(name, world, truths, faults)


def stationary(seed: int) -> Scene:
    """Nothing happens."""
    return scene("stationary")


def outage_fast(seed: int) -> Scene:
    """The cheapest says no at once for 15 minutes."""
    return scene("outage_fast", FastErrors(0, 1200, 2100))


def outage_hole(seed: int) -> Scene:
    """The cheapest swallows everything for 15 minutes."""
    return scene("outage_hole", BlackHole(0, 1200, 2100))


def slow_degrade(seed: int) -> Scene:
    """The cheapest falls from 97 % to 30 % within half an hour."""
    return scene("slow_degrade", Degradation(0, 900, 3600))


def flap(seed: int) -> Scene:
    """The cheapest is a minute away and a minute there, for half an hour."""
    return scene("flap", Flapping(0, 1200, 3000))


def latency_spike(seed: int) -> Scene:
    """The cheapest takes twelve times as long for 15 minutes, and fails no more than ever."""
    return scene("latency_spike", Slow(0, 1200, 2100))


def price(seed: int) -> Scene:
    """The cheapest becomes dearer than what we sell for."""
    return scene("price", Dearer(0, 1200, 3600))


def delayed(seed: int) -> Scene:
    """Suppliers call back; for 15 minutes the cheapest accepts everything and says no after four to six minutes."""
    return scene("delayed", DelayedFailures(0, 1200, 2100), callback=True)


def hot_sku(seed: int) -> Scene:
    """Nine times the demand for one SKU during ten minutes, and suppliers that work on so many at once."""
    world, truths = four(caps=(20, 12, 6, 8))
    return Scene("hot_sku", world, truths, surges=(Surge(1200, 1800, 0, 9.0),))


def correlated(seed: int) -> Scene:
    """All four fall into the same hole; two of them come back after five minutes, two after ten."""
    return scene("correlated", BlackHole(0, 1200, 1800), BlackHole(1, 1200, 1800), BlackHole(2, 1200, 1500), BlackHole(3, 1200, 1500))


def sku_outage(seed: int) -> Scene:
    """Three SKUs fail on the cheapest for twenty minutes, one of them silently; the others go on well."""
    return scene("sku_outage", FastErrors(0, 1200, 2400, frozenset({0, 9})), BlackHole(0, 1200, 2400, frozenset({1})))


def batch_callbacks(seed: int) -> Scene:
    """Suppliers that call back once a minute, and a hole of ten minutes in the cheapest."""
    return scene("batch_callbacks", BlackHole(0, 1200, 1800), callback=True, batch_s=60.0)


def heavy_tail(seed: int) -> Scene:
    """Three in a hundred answers take eight times as long, everywhere and always; and a hole of ten minutes in the cheapest."""
    tails = [Stragglers(n, 0, 3600) for n in range(4)]
    return scene("heavy_tail", *tails, BlackHole(0, 1200, 1800))


def low_volume(seed: int) -> Scene:
    """Three orders a minute for six hours; the cheapest is a hole for two of them."""
    world, truths = four()
    return Scene("low_volume", world, truths, (BlackHole(0, 7200, 14400),), rate=0.05, seconds=21600.0)


SCENES: Final[dict[str, Callable[[int], Scene]]] = {
    each.__name__: each
    for each in (
        stationary, outage_fast, outage_hole, slow_degrade, flap, latency_spike, price, delayed, hot_sku, correlated, sku_outage,
        batch_callbacks, heavy_tail, low_volume,
    )
}


def even(name: str, *faults: Fault, callback: bool = False, rate: float = 3.0, seconds: float = 3600.0) -> Scene:
    """The same price everywhere, so that nothing but reliability tells the suppliers apart; C is the best."""
    world, truths = four(callback=callback, margins=(2.4,) * 4)
    return Scene(name, world, truths, faults, rate=rate, seconds=seconds)


EVEN: Final[dict[str, Callable[[int], Scene]]] = {
    "even_hole": lambda seed: even("even_hole", BlackHole(2, 1200, 2100)),
    "even_delayed": lambda seed: even("even_delayed", DelayedFailures(2, 1200, 2100), callback=True),
    "even_sku": lambda seed: even("even_sku", FastErrors(2, 1200, 2400, frozenset({0, 9})), BlackHole(2, 1200, 2400, frozenset({1}))),
    "even_correlated": lambda seed: even(
        "even_correlated", BlackHole(2, 1200, 1800), BlackHole(0, 1200, 1800), BlackHole(1, 1200, 1500), BlackHole(3, 1200, 1500)
    ),
    "even_low_volume": lambda seed: even("even_low_volume", BlackHole(2, 7200, 14400), rate=0.05, seconds=21600.0),
}


def chaos(seed: int) -> Scene:
    """A random world: three to seven suppliers of random quality, price and capacity, random demand, two to five random misfortunes."""
    random = Random(f"chaos:{seed}")
    count = random.randint(3, 7)
    rate = exp(random.uniform(log(0.3), log(6.0)))
    pairs: list[tuple[Channel, Truth]] = []
    for n in range(count):
        callback = random.random() < 0.35
        median_s = exp(random.uniform(log(2.0), log(12.0)))
        cap = None
        if random.random() < 0.4:
            busy = rate * median_s * (6.0 if callback else 1.0)
            cap = max(4, round(busy * random.uniform(0.5, 2.5)))
        pairs.append(channel_and_truth(
            f"c{n}", random.uniform(0.5, 4.0), 1 - exp(random.uniform(log(0.005), log(0.12))), median_s,
            sigma=random.uniform(0.35, 0.75), callback=callback, cap=cap,
        ))
    world = World(tuple(channel for channel, _ in pairs), SKUS)
    truths = tuple(truth for _, truth in pairs)
    cheapest = min(range(count), key=lambda n: truths[n].cost)
    faults = [random_fault(random, cheapest if random.random() < 0.25 else random.randrange(count)) for _ in range(random.randint(2, 5))]
    surges = (Surge(at := random.uniform(600, 2400), at + random.uniform(120, 600), 0, random.uniform(3, 9)),) if random.random() < 0.2 else ()
    return Scene(f"chaos-{seed}", world, truths, faults, surges, rate=rate)


def random_fault(random: Random, channel: int) -> Fault:
    """Any misfortune, for two to twenty minutes, on all SKUs or on three of them."""
    start = random.uniform(400, 2700)
    end = start + exp(random.uniform(log(120), log(1200)))
    skus = frozenset(random.sample(range(8), 3)) if random.random() < 0.25 else None
    kind = random.choice(("fast", "hole", "delayed", "degrade", "flap", "slow", "dearer", "batched", "stragglers", "choked", "deaf"))
    match kind:
        case "fast":
            return FastErrors(channel, start, end, skus)
        case "hole":
            return BlackHole(channel, start, end, skus)
        case "delayed":
            return DelayedFailures(channel, start, end, skus)
        case "degrade":
            return Degradation(channel, start, end + 600, skus, floor=random.uniform(0.1, 0.7), ramp_s=random.uniform(60, 1200))
        case "flap":
            return Flapping(channel, start, end, skus, period_s=random.uniform(20, 120))
        case "slow":
            return Slow(channel, start, end, skus, factor=random.uniform(3, 15))
        case "dearer":
            return Dearer(channel, start, end, skus, cost=round(random.uniform(0.99, 1.03) * FACE))
        case "batched":
            return Batched(channel, start, end, skus, every_s=random.uniform(30, 90))
        case "stragglers":
            return Stragglers(channel, start, end, skus, share=random.uniform(0.02, 0.1))
        case "choked":
            return Choked(channel, start, end, skus, cap=random.randint(2, 10))
        case _:
            return Deaf(channel, start, end, skus, share=random.uniform(0.05, 0.4))


def storm(seed: int) -> Scene:
    """Every misfortune there is, on every channel, again and again, for some fifty thousand orders: nothing may be delivered twice."""
    random = Random(f"storm:{seed}")
    world, truths = four(callback=seed % 2 == 1, caps=(60, None, 40, None))
    seconds = 50_000 / 6.0
    faults: list[Fault] = [Stutter(n, 0, seconds) for n in range(4)]
    for _ in range(60):
        fault = random_fault(random, random.randrange(4))
        shift = random.uniform(0, seconds - 4000)
        fault.start, fault.end = fault.start + shift, fault.end + shift
        faults.append(fault)
    surges = (Surge(1000, 1300, 0, 9.0), Surge(5000, 5300, 3, 9.0))
    return Scene(f"storm-{seed}", world, truths, faults, surges, rate=6.0, seconds=seconds)
