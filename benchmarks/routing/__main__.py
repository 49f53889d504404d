"""`python -m benchmarks.routing`: everything, judged; see `--help` for less, for other worlds and for other policies."""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from math import nan
from pathlib import Path
from time import perf_counter
from typing import Final

from benchmarks.figures import say
from benchmarks.routing.cost import choose_cost
from benchmarks.routing.goals import CHAOS, TUNED, Results, goals
from benchmarks.routing.policies import POLICIES
from benchmarks.routing.run import ORACLE, OURS, WITHOUT, Job, against_oracle, parts, play_all, scene_of
from benchmarks.routing.scenarios import EVEN, JUDGING_CHAOS, JUDGING_SEEDS, SCENES, TUNING_CHAOS, TUNING_SEEDS, check_seeds
from benchmarks.routing.tables import print_conditions, print_gaps, print_goals, print_tables, write_csv

QUICK_RIVALS: Final = (TUNED, "hystrix", "resilience4j", "envoy-outlier", "disc-thompson", "static-priority")
HOLE: Final = ("outage_hole",)
NAIVE_SCENES: Final = ("stationary", "outage_hole", "latency_spike")
"""A normal day, a black hole, and a supplier that is merely slow."""
STORMED: Final = (OURS, "random", "static-priority", TUNED, "thompson")
"""Who routes while everything fails at once: that nothing is delivered twice must not depend on the policy."""
STORM: Final = 50_000
CONDITION_RIVALS: Final = (TUNED, "hystrix", "resilience4j", "hyperswitch-ev", "static-priority")


def arguments(given: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.routing", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one seed, twelve random worlds, the nearest rivals")
    parser.add_argument("--policies", default="", help="names, comma separated; ours and the oracle always play")
    scenes = f"of {', '.join(SCENES)}; with one price for all: {', '.join(EVEN)}; none: -"
    parser.add_argument("--scenarios", default="", help=f"names, comma separated, {scenes}")
    parser.add_argument("--chaos", type=int, default=None, help="how many random worlds")
    parser.add_argument("--seeds", type=int, default=None, help="how many seeds of each scenario")
    parser.add_argument("--tuning", action="store_true", help="the worlds and seeds that are for tuning; goals are not judged on them")
    parser.add_argument("--policy", action="append", default=[], metavar="MODULE:FACTORY", help="one more policy: factory(world) -> Policy")
    parser.add_argument("--world", action="append", default=[], metavar="MODULE:FUNCTION", help="one more scene: function(seed) -> Scene")
    parser.add_argument("--ablate", action="store_true", help="the router without each of its parts")
    parser.add_argument("--workers", type=int, default=None, help="policy instances that learn of each other's events a second late (goal G13: 8)")
    parser.add_argument("--wipe", action="store_true", help="shared memory is lost five minutes into the outage")
    parser.add_argument("--naive", action="store_true", help="an engine that fails over on a time-out: how often it delivers twice")
    parser.add_argument("--million", type=int, default=None, metavar="ORDERS", help="orders with all faults through the safe engine (0: none)")
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--out", type=Path, default=None, help="folder for CSV files and plots")
    return parser.parse_args(given)


def names(text: str, every: Sequence[str]) -> list[str]:
    """A comma separated list; empty: all."""
    return [] if text == "-" else [name for name in text.split(",") if name] or list(every)


def plan(asked: argparse.Namespace) -> tuple[list[Job], list[str], list[str]]:
    """What is to be played, and the scenes and conditions that the tables show."""
    seeds_pool, chaos_pool = (TUNING_SEEDS, TUNING_CHAOS) if asked.tuning else (JUDGING_SEEDS, JUDGING_CHAOS)
    seeds = seeds_pool[: asked.seeds if asked.seeds is not None else 1 if asked.quick else len(seeds_pool)]
    worlds = chaos_pool[: asked.chaos if asked.chaos is not None else 12 if asked.quick else len(chaos_pool)]
    check_seeds(worlds, seeds, tuning=asked.tuning)
    policies = [OURS, *names(asked.policies, QUICK_RIVALS if asked.quick else list(POLICIES)), *asked.policy]
    policies += [WITHOUT + part for part in parts()] if asked.ablate else []
    scenes = [*names(asked.scenarios, list(SCENES)), *asked.world]
    jobs = [Job(policy, scene, seed) for policy in (ORACLE, *policies) for scene in scenes for seed in seeds]
    jobs += [Job(policy, f"chaos-{seed}", seed) for policy in (ORACLE, *policies) for seed in worlds]
    whole = not asked.scenarios and not asked.policies and not asked.tuning
    conditions = scenes if asked.scenarios else None
    some = [name for name in policies if name == OURS or name in CONDITION_RIVALS]
    if workers := asked.workers or (8 if whole else None):
        for scene in conditions or HOLE:
            jobs += [Job(policy, scene, seed, workers, lag) for policy in some for seed in seeds for lag in (1.0, None)]
    if asked.wipe or whole:
        troubled = [scene for scene in conditions or HOLE if scene_of(scene, seeds[0]).faults]
        jobs += [Job(policy, scene, seed, wipe=wipe) for policy in some for scene in troubled for seed in seeds for wipe in ("cold", "rebuilt")]
    if asked.naive or whole:
        jobs += [Job(policy, scene, seed, naive=True) for policy in some for scene in conditions or NAIVE_SCENES for seed in seeds[:2]]
    return jobs, scenes, [CHAOS] if worlds else []


def storm(asked: argparse.Namespace) -> list[Job]:
    """Everything fails at once, jobs run twice, workers are killed and memory is lost."""
    whole = not asked.scenarios and not asked.policies and not asked.tuning
    orders = asked.million if asked.million is not None else 0 if not whole else STORM if asked.quick else 1_000_000
    return [
        Job(STORMED[seed % len(STORMED)], "benchmarks.routing.scenarios:storm", seed, workers=3, wipe="cold", mess=True)
        for seed in range(orders // STORM)
    ]


def main(given: Sequence[str]) -> int:
    """0 when no goal is missed."""
    asked = arguments(given)
    began = perf_counter()
    jobs, scenes, chaos = plan(asked)
    p99_ms = choose_cost(say)
    say(f"{len(jobs)} runs on {asked.cores} cores; {'tuning' if asked.tuning else 'judging'} seeds")
    played = play_all(jobs, cores=asked.cores, tell=say)
    if stormy := storm(asked):
        say(f"{len(stormy) * STORM:,} orders with all faults at once")
    stormed = play_all(stormy, cores=asked.cores, tell=say)
    against_oracle(played)
    results = Results(played)
    doubles = float(sum(each.doubles for each in stormed.values())) if stormed else nan
    found = goals(results, choose_p99_ms=p99_ms, doubles=doubles, million=sum(each.orders for each in stormed.values()))
    lines = [*print_tables(results, scenes + chaos), *print_gaps(results), *print_conditions(results)]
    lines += [] if asked.tuning else print_goals(found)
    for line in lines:
        say(line)
    if asked.out:
        write_csv(results, found, asked.out)
        (asked.out / "tables.txt").write_text("\n".join(lines) + "\n")
        if find_spec("matplotlib"):
            import_module("benchmarks.routing.draw").draw(results, scenes + chaos, asked.out)
        else:
            say("matplotlib is not installed: no plots")
    mean_micros = sum(each.micros * each.orders for each in played.values()) / max(1, sum(each.orders for each in played.values()))
    say(f"{perf_counter() - began:.0f} s; {mean_micros:.0f} µs per order, engine and policy together")
    return 1 if not asked.tuning and any(goal.met is False for goal in found) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
