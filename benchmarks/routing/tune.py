"""Searches the constants of the tuned rivals, on the tuning worlds and on nothing else: `python -m benchmarks.routing.tune [NAME …]`.

Every point of a grid is played on all forty tuning worlds; the greatest mean value of an order wins. The judging worlds are refused. The
grids are what remained of ones three times as wide, of which every fourth world was played. What this prints is written into the policies by
hand, beside a comment that names this command.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from multiprocessing import get_context
from statistics import fmean
from typing import Any, Final

from benchmarks.routing.engine import Run
from benchmarks.routing.measure import figures
from benchmarks.routing.oracle import Oracle
from benchmarks.routing.policies.discounted_thompson import DiscountedThompson
from benchmarks.routing.policies.epsilon_greedy import EpsilonGreedy
from benchmarks.routing.policies.juspay_ev import TunedJuspayEV
from benchmarks.routing.policies.live_breaker import LivePriceBreaker
from benchmarks.routing.policies.sliding_ucb import SlidingUCB
from benchmarks.routing.policies.tuned_breaker import TunedBreaker
from benchmarks.routing.scenarios import TUNING_CHAOS, chaos, check_seeds
from kameng_api.suppliers.routing.facts import Policy

SHOWN: Final = 5
Setting = dict[str, Any]

KINDS: Final[dict[str, Callable[..., Policy]]] = {
    "disc-thompson": DiscountedThompson,
    "sw-ucb": SlidingUCB,
    "eps-greedy": EpsilonGreedy,
    "hyperswitch-ev-tuned": TunedJuspayEV,
    "breaker-tuned": TunedBreaker,
    "breaker-live-price": LivePriceBreaker,
}
Grid = dict[str, Sequence[Any]]
BREAKERS: Final[Grid] = {"window_s": (10.0, 30.0, 60.0), "volume": (3, 5), "error_share": (0.7,), "sleep_s": (30.0, 60.0)}
GRIDS: Final[dict[str, Sequence[Grid]]] = {
    "disc-thompson": [
        {"half_life": (60.0, 120.0), "in_rounds": (False,), "prior_good": (10.0, 30.0)},
        {"half_life": (50.0, 100.0, 200.0), "in_rounds": (True,), "prior_good": (10.0, 30.0)},
    ],
    "sw-ucb": [{"window": (400, 800, 1600), "xi": (0.2, 0.5, 1.0), "minds_busy": (False,)}],
    "eps-greedy": [{"epsilon": (0.0, 0.002, 0.005, 0.01), "half_life": (60.0, 120.0)}],
    "hyperswitch-ev-tuned": [{"window": (10, 25, 50), "hedging": (0.0, 0.005, 0.01)}],
    "breaker-tuned": [BREAKERS],
    "breaker-live-price": [BREAKERS],
}


def settings(name: str) -> Iterator[Setting]:
    """Every point of a rival's grid."""
    for grid in GRIDS[name]:
        for values in product(*grid.values()):
            yield dict(zip(grid, values, strict=True))


def value(name: str, setting: Setting, worlds: Sequence[int]) -> float:
    """Mean value of 1,000 orders over these worlds."""
    make = KINDS[name]
    return fmean(figures(Run(chaos(world), world, lambda run: make(**setting)).run()).value for world in worlds)


def best_possible(worlds: Sequence[int]) -> float:
    """The oracle's value there."""
    return fmean(figures(Run(chaos(world), world, Oracle).run()).value for world in worlds)


def _value(job: tuple[str, Setting, Sequence[int]]) -> float:
    return value(*job)


def tune(name: str, cores: int) -> None:
    """Print the best few with their mean regret over all tuning worlds, the winner first."""
    points = list(settings(name))
    with ProcessPoolExecutor(cores, mp_context=get_context("fork")) as pool:
        reached = list(pool.map(_value, [(name, point, TUNING_CHAOS) for point in points]))
    top = best_possible(TUNING_CHAOS)
    print(f"{name}: {len(points)} settings; mean regret on {len(TUNING_CHAOS)} tuning worlds")
    for each, point in sorted(zip(reached, points, strict=True), key=lambda pair: -pair[0])[:SHOWN]:
        print(f"  {top - each:8.1f}  {point}", flush=True)


def main() -> None:
    """Tune the named rivals, or all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.routing.tune", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(KINDS)}; all by default")
    parser.add_argument("--cores", type=int, default=1)
    given = parser.parse_args()
    check_seeds(TUNING_CHAOS, (), tuning=True)
    for name in given.names or KINDS:
        if name not in KINDS:
            parser.error(f"{name} is not tuned; these are: {', '.join(KINDS)}")
        tune(name, given.cores)


if __name__ == "__main__":
    main()
