"""One run from the first process to the verdict: fund, load under faults, heal, quiet, last reads, judge."""

import asyncio
import random
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.chaos import bugs, ending, judge, judge_house
from tests.chaos.faults import FAULTS, Fault
from tests.chaos.fleet import ROOT
from tests.chaos.judge_verdict import Verdict
from tests.chaos.load import Load
from tests.chaos.merchant import Programs
from tests.chaos.nemesis import Nemesis, Shot, plan
from tests.chaos.rig import Rig
from tests.chaos.shop import open_shop

RATE_PER_S: Final = 80.0
FINAL_BOUND_S: Final = 120.0


@dataclass
class Outcome:
    """What a run was. `problems` are the rig's own: a run with any of them proves nothing."""

    seed: int
    commit: str
    bug: str | None
    folder: Path
    load_s: float = 0.0
    orders: int = 0
    answers: dict[str, int] = field(default_factory=dict)
    faults: dict[str, int] = field(default_factory=dict)
    restarts: dict[str, int] = field(default_factory=dict)
    resets: int = 0
    quiet: ending.Quiet | None = None
    final: dict[str, int] = field(default_factory=dict)
    verdicts: list[Verdict] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    ended_by_themselves: list[str] = field(default_factory=list)

    @property
    def green(self) -> bool:
        return not self.problems and self.quiet is not None and self.quiet.after_s is not None and judge.is_green(self.verdicts)


def commit() -> str:
    """The commit that is tried, with a + when the checkout differs from it."""
    said = subprocess.run(["git", "describe", "--always", "--dirty=+"], cwd=ROOT, capture_output=True, text=True, check=False)
    return said.stdout.strip() or "unknown"


async def run(
    folder: Path, seed: int, load_s: float, *, bug: str | None = None, vendor: str | None = None, rate_per_s: float = RATE_PER_S, small: bool = False,
    tell: Callable[[str], None] = lambda _: None, faults: Sequence[Fault] = FAULTS, patience_s: float = ending.QUIET_S,
) -> Outcome:  # fmt: skip
    """A whole run in `folder`, which is emptied first. `small`: fewer merchants, nothing that ends late; for the suite."""
    outcome = Outcome(seed, commit(), bug, folder, load_s)
    rig = Rig(folder, seed, bug, vendor, time_scale=0.2 if small else 0.5)
    try:
        tell("raising PostgreSQL, Redis, 2 APIs, 3 suppliers, a receiver and 17 wires")
        await rig.open()
        shots = plan(seed, load_s, faults) if faults else []
        await _play(rig, outcome, rate_per_s, small, tell, shots, patience_s)
    finally:
        stubborn = await rig.close()
        outcome.problems += [f"{name} did not end by SIGTERM" for name in stubborn]
        for child in rig.children.values():
            outcome.ended_by_themselves += child.ended
    tell("judging")
    outcome.verdicts = await asyncio.to_thread(judge.judge, folder)
    return outcome


async def _play(
    rig: Rig, outcome: Outcome, rate_per_s: float, small: bool, tell: Callable[[str], None], shots: Sequence[Shot], patience_s: float
) -> None:
    await judge_house.set_trap(rig.servers.owner_url)
    if rig.bug:
        await bugs.prepare(rig.bug, rig.servers.owner_url)
    rig.history.phase("fund")
    buyers = await open_shop(rig, rich=6 if small else 34, poor=2 if small else 6)
    await rig.start_workers()
    load = Load(Programs(rig, random.Random(f"{rig.seed}/programs")), buyers, rate_per_s, patient=not small, drain_s=3.0 if small else 60.0)
    nemesis = Nemesis(rig, shots)
    tell(f"load of {rate_per_s:.0f} orders/s for {outcome.load_s:.0f} s under {len(shots)} faults")
    rig.history.phase("load")
    await asyncio.gather(load.run(outcome.load_s), nemesis.run())
    outcome.faults, outcome.problems = nemesis.done, nemesis.troubles
    rig.history.phase("heal")
    tell("healing")
    await ending.heal(rig)
    healed_at = time.time()
    rig.history.phase("quiet")
    outcome.final = await ending.last_words(load.programs)
    outcome.quiet = await ending.become_quiet(rig, patience_s)
    quiet_at = None if outcome.quiet.after_s is None else time.time()
    tell("quiet" if quiet_at else f"NOT quiet: {outcome.quiet.left}")
    rig.history.phase("final")
    await ending.read_everything(load.programs, buyers)
    outcome.answers, outcome.orders = load.programs.counts, outcome.final["orders"]
    outcome.restarts = {name: child.starts - 1 for name, child in rig.children.items() if child.starts > 1}
    outcome.resets = sum((await rig.wires.say(counts=True))["resets"].values())
    await judge_house.take_house(rig.servers.owner_url, rig.folder / "house.json")
    rig.history.phase("end")
    await ending.write_facts(
        rig, buyers, commit=outcome.commit, minutes=outcome.load_s / 60, healed_at=healed_at, quiet_at=quiet_at, ended_at=time.time(),
        final_bound_s=FINAL_BOUND_S, bug=outcome.bug,
    )  # fmt: skip


def table(outcome: Outcome) -> str:
    """The summary for people."""
    lines = [f"seed {outcome.seed}  commit {outcome.commit}" + (f"  bug {outcome.bug}" if outcome.bug else "")]
    per_s = outcome.orders / outcome.load_s if outcome.load_s else 0
    unclear = outcome.final.get("unclear", 0)
    lines.append(f"orders            {outcome.orders} accepted in {outcome.load_s:.0f} s ({per_s:.0f}/s), {unclear} unclear at the end")
    lines += [f"  {name:<42} {n}" for name, n in sorted(outcome.answers.items())]
    lines.append(f"faults            {sum(outcome.faults.values())} of {len(outcome.faults)} kinds, {outcome.resets} connections reset")
    lines += [f"  {name:<42} {n}" for name, n in sorted(outcome.faults.items())]
    lines.append("starts again      " + ", ".join(f"{name} {n}" for name, n in sorted(outcome.restarts.items())))
    if outcome.ended_by_themselves:
        lines.append("ended by itself   " + "; ".join(outcome.ended_by_themselves))
    if outcome.quiet is not None:
        quiet = outcome.quiet
        said = f"after {quiet.after_s:.0f} s" if quiet.after_s is not None else f"NEVER: {quiet.left}"
        lines.append(f"quiet             {said}; parked tasks given back: {quiet.parked}")
    lines += [str(verdict) for verdict in outcome.verdicts]
    lines += [f"rig: {problem}" for problem in outcome.problems]
    lines.append(f"{'GREEN' if outcome.green else 'RED'}  seed {outcome.seed}  evidence in {outcome.folder}")
    return "\n".join(lines)
