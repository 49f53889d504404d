"""`python -m tests.chaos.bugs [NAME…]`: each planted bug alone in a run of its own; exit code 1 when the judge misses one.

`--clean` plays the same runs without the bugs: the judge must find nothing there.
"""

import argparse
import asyncio
import dataclasses
import sys
import time
from functools import partial
from pathlib import Path

from tests.chaos import bugs, judge
from tests.chaos.faults import FAULTS, Fault, turn_knobs
from tests.chaos.fleet import ROOT
from tests.chaos.rig import SUPPLIERS
from tests.chaos.run import Outcome, run

_PATIENCE_S = 30.0
_CHEAPEST = ("sim-a",)


def faults_of(recipe: bugs.Recipe) -> list[Fault]:
    """The recipe's faults, its knobs among them, most of them soon and long: a bug run is short."""
    known = {f.name: f for f in FAULTS}
    chosen = [known[name] for name in recipe.faults]
    for knobs in recipe.knobs:
        chosen.append(Fault(f"supplier: {', '.join(knobs)}", partial(turn_knobs, knobs), tuple(SUPPLIERS), (6.0, 10.0), ("{}",)))
        chosen.append(Fault(f"cheapest: {', '.join(knobs)}", partial(turn_knobs, knobs), _CHEAPEST, (8.0, 12.0), ("{}",)))
    # What befalls a dearer supplier is hardly seen: nearly all orders go to the cheapest.
    return [dataclasses.replace(f, targets=_CHEAPEST) if f.name.startswith("supplier: ") and f.name in known else f for f in chosen]


async def play(name: str, folder: Path, *, planted: bool) -> Outcome:
    recipe = bugs.recipe_of(name)
    return await run(
        folder, recipe.seed, recipe.seconds, bug=name if planted else None, rate_per_s=recipe.rate_per_s, small=True,
        faults=faults_of(recipe), patience_s=_PATIENCE_S,
    )  # fmt: skip


def report(name: str, outcome: Outcome, took_s: float, *, planted: bool) -> bool:
    """One line; with details where the judge was wrong. True when it was right."""
    found = judge.broken(outcome.verdicts)
    expected = bugs.recipe_of(name).expected
    right = bool(expected & set(found)) if planted else not found
    word = ("caught" if right else "MISSED") if planted else ("clean" if right else "FALSE ALARM")
    by = ", ".join(f"{i}*" if i in expected else i for i in found) or "nothing"
    print(f"{name:<28} {word:<12} by {by:<40} {outcome.orders:5} orders  {took_s:4.0f} s  {bugs.story_of(name)}", flush=True)
    for verdict in outcome.verdicts:
        if verdict.broken and (not planted or not right):
            print(verdict, flush=True)
    for problem in outcome.problems:
        print(f"    rig: {problem}", flush=True)
    return right


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.bugs")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(bugs.NAMES))
    parser.add_argument("--clean", action="store_true", help="the same runs without the bugs")
    parser.add_argument("--out", type=Path, default=ROOT / "var" / "chaos")
    options = parser.parse_args()
    wrong: list[str] = []
    for name in options.names or bugs.NAMES:
        begin = time.monotonic()
        folder = options.out.resolve() / f"{'clean' if options.clean else 'bug'}-{name}"
        outcome = asyncio.run(play(name, folder, planted=not options.clean))
        if not report(name, outcome, time.monotonic() - begin, planted=not options.clean):
            wrong.append(name)
    asked = len(options.names or bugs.NAMES)
    print(f"{asked - len(wrong)} of {asked} as they should be" + (f"; wrong: {', '.join(wrong)}" if wrong else ""))
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
