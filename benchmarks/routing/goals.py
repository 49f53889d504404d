"""What must be shown, as figures with limits; a goal that is missed makes the whole proving ground fail."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isnan, nan
from random import Random
from statistics import fmean
from typing import Final

from benchmarks.routing.measure import Figures
from benchmarks.routing.run import ORACLE, OURS, WITHOUT, Job

TUNED: Final = "breaker-tuned"
RESAMPLES: Final = 4000
CHAOS: Final = "chaos"


@dataclass(frozen=True, slots=True)
class Goal:
    """One figure and its limit; `met` None: not measured in this run."""

    name: str
    what: str
    figure: float
    limit: str
    met: bool | None


class Results:
    """All runs, asked for means."""

    def __init__(self, played: dict[Job, Figures]) -> None:
        self.played = played

    def rows(self, policy: str, scene: str, **conditions: object) -> list[tuple[Job, Figures]]:
        """Runs of a policy in a scene, or in all chaos worlds; without conditions: the plain ones."""
        wanted = {"workers": 1, "lag_s": 1.0, "wipe": "", "naive": False, "mess": False} | conditions
        return [
            (job, found) for job, found in self.played.items()
            if job.policy == policy and (job.scene == scene or (scene == CHAOS and job.scene.startswith("chaos-")))
            and all(getattr(job, key) == value for key, value in wanted.items())
        ]

    def mean(self, policy: str, scene: str, figure: str, **conditions: object) -> float:
        """Mean over seeds or worlds, of those that have the figure; nan when none has."""
        values = [value for _, found in self.rows(policy, scene, **conditions) if not isnan(value := float(getattr(found, figure)))]
        return fmean(values) if values else nan

    def policies(self) -> list[str]:
        """In the order of their mean regret in chaos, else by name; without the oracle."""
        names = sorted({job.policy for job in self.played} - {ORACLE})
        regrets = {name: self.mean(name, CHAOS, "regret") for name in names}
        return sorted(names, key=lambda name: (name != OURS, isnan(regrets[name]), 0.0 if isnan(regrets[name]) else regrets[name]))

    def gaps(self, policy: str, against: str = OURS) -> list[float]:
        """Their regret minus ours, world by world."""
        ours = {(job.scene, job.seed): found.regret for job, found in self.rows(against, CHAOS)}
        theirs = {(job.scene, job.seed): found.regret for job, found in self.rows(policy, CHAOS)}
        return [theirs[key] - ours[key] for key in sorted(ours.keys() & theirs.keys())]


def interval(gaps: Sequence[float]) -> tuple[float, float]:
    """95 % of the means of resampled worlds lie between these (paired bootstrap)."""
    random = Random(1)
    means = sorted(fmean(random.choices(gaps, k=len(gaps))) for _ in range(RESAMPLES))
    return means[int(0.025 * RESAMPLES)], means[int(0.975 * RESAMPLES)]


def goals(results: Results, *, choose_p99_ms: float = nan, doubles: float = nan, million: int = 0) -> list[Goal]:
    """G1 to G15 as far as the runs tell them."""
    rivals = [name for name in results.policies() if name != OURS and not name.startswith(WITHOUT) and results.gaps(name)]
    gap = min((interval(results.gaps(name))[0] for name in rivals), default=nan)
    ours: Callable[..., float] = lambda scene, figure, **more: results.mean(OURS, scene, figure, **more)  # noqa: E731
    losses = sum(found.at_loss for job, found in results.played.items() if job.policy == OURS) if results.policies() else nan
    one, eight = ours("outage_hole", "regret"), ours("outage_hole", "regret", workers=8)
    return [
        at_most("G1", "chaos: mean regret", ours(CHAOS, "regret"), 30),
        at_least("G1", "chaos: lower bound (95 %) of the gap to the nearest rival", gap, 0, strictly=True),
        at_most("G2", "chaos: p99 completion, s", ours(CHAOS, "p99_s"), 115),
        at_least("G2", "chaos: delivered, %", 100 * ours(CHAOS, "delivered"), 99.9),
        at_most("G3", "stationary: regret", ours("stationary", "regret"), 1),
        at_most("G4", "black hole: orders to eviction", ours("outage_hole", "evict_orders"), 40),
        at_most("G4", "black hole: seconds to eviction", ours("outage_hole", "evict_s"), 12),
        at_most("G4", "black hole: attempts in 15 min", ours("outage_hole", "dead_attempts"), 75),
        at_most("G4", "black hole: p99 completion, s", ours("outage_hole", "p99_s"), 30),
        at_most("G4", "black hole: recovery, s", ours("outage_hole", "back_s"), 60),
        at_most("G5", "fast errors: orders to eviction", ours("outage_fast", "evict_orders"), 10),
        at_most("G5", "fast errors: regret", ours("outage_fast", "regret"), 5),
        at_most("G6", "delayed failures: orders to eviction", ours("delayed", "evict_orders"), 150),
        at_most("G6", "delayed failures: regret", ours("delayed", "regret"), 100),
        at_most("G6", "delayed failures: recovery, s", ours("delayed", "back_s"), 240),
        at_most("G7", "three SKUs out: regret", ours("sku_outage", "regret"), 20),
        at_most("G8", "3 orders a minute: orders to eviction", ours("low_volume", "evict_orders"), 4),
        at_most("G8", "3 orders a minute: regret", ours("low_volume", "regret"), 80),
        at_least("G9", "flash sale: delivered, %", 100 * ours("hot_sku", "delivered"), 99.5),
        at_most("G10", "deliveries below cost", float(losses), 0),
        at_most("G11", f"double deliveries in {million:,} orders", doubles, 0),
        at_most("G12", "memory lost, rebuilt: orders to the dead channel in 120 s", ours("outage_hole", "after_wipe", wipe="rebuilt"), 10),
        at_most("G13", "8 workers, 1 s late: regret against one process, %", 100 * (eight / one - 1) if one else nan, 10),
        at_most("G14", "choose with 8 channels: p99, ms", choose_p99_ms, 1),
        at_most("G15", "latency spike: regret against the tuned breaker", times(results, "latency_spike"), 1.5),
        at_most("G15", "batched callbacks: regret against the tuned breaker", times(results, "batch_callbacks"), 1.5),
    ]


def times(results: Results, scene: str) -> float:
    """Our regret as a multiple of the tuned breaker's."""
    theirs = results.mean(TUNED, scene, "regret")
    return results.mean(OURS, scene, "regret") / theirs if theirs > 0 else nan


def at_most(name: str, what: str, figure: float, limit: float) -> Goal:
    """A figure that must not be larger."""
    return Goal(name, what, figure, f"≤ {limit:g}", None if isnan(figure) else figure <= limit)


def at_least(name: str, what: str, figure: float, limit: float, *, strictly: bool = False) -> Goal:
    """A figure that must not be smaller."""
    met = None if isnan(figure) else figure > limit if strictly else figure >= limit
    return Goal(name, what, figure, f"{'>' if strictly else '≥'} {limit:g}", met)
