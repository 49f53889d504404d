"""The pictures: who loses how much, world by world, and who leaves a dead channel how fast. The only module that knows matplotlib."""

from collections.abc import Sequence
from math import isnan
from pathlib import Path
from typing import Final

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot  # the drawing engine is chosen before the first figure

from benchmarks.routing.goals import CHAOS, Results
from benchmarks.routing.run import OURS
from benchmarks.routing.scenarios import SCENES

OUR_COLOUR: Final = "#c23b22"
OTHER_COLOUR: Final = "#8a9199"
SHOWN_SCENES: Final = ("outage_hole", "delayed", "sku_outage", "low_volume")
SHOWN_POLICIES: Final = 6
LEAST_A_MINUTE: Final = 20


def draw(results: Results, scenes: Sequence[str], out: Path) -> list[Path]:
    """Write every picture that the runs allow; returns what was written."""
    out.mkdir(parents=True, exist_ok=True)
    written = [bars(results, scenes, out / "regret.png")]
    if results.gaps(OURS):
        written.append(worlds(results, out / "chaos.png"))
    if shown := [scene for scene in SHOWN_SCENES if results.rows(OURS, scene)]:
        written.append(leavings(results, shown, out / "leaving.png"))
    return written


def bars(results: Results, scenes: Sequence[str], path: Path) -> Path:
    """Regret of every policy, one panel per scene."""
    policies = results.policies()
    columns = 5
    rows = -(-len(scenes) // columns)
    figure, axes = pyplot.subplots(rows, columns, figsize=(4 * columns, 0.22 * len(policies) * rows + 1.2 * rows), squeeze=False)
    for place, axis in enumerate(axes.flat):
        if place >= len(scenes):
            axis.set_visible(False)
            continue
        values = [results.mean(policy, scenes[place], "regret") for policy in policies]
        heights = [0.0 if isnan(value) else value for value in values]
        axis.barh(policies[::-1], heights[::-1], color=[OUR_COLOUR if policy == OURS else OTHER_COLOUR for policy in policies[::-1]])
        axis.set_title(scenes[place], fontsize=9)
        axis.tick_params(labelsize=6)
        axis.set_xscale("symlog", linthresh=10)
        axis.set_xlim(min(0.0, 1.1 * min(heights)), max(10.0, 1.1 * max(heights)))
    figure.suptitle("Lost against the oracle per 1,000 orders of face value 100 (less is better)", fontsize=11)
    figure.tight_layout(rect=(0, 0, 1, 0.97))
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
    return path


def worlds(results: Results, path: Path) -> Path:
    """Each random world: the nearest rivals' regret over ours."""
    rivals = [policy for policy in results.policies() if policy != OURS and results.gaps(policy)][:SHOWN_POLICIES]
    figure, axes = pyplot.subplots(1, max(1, len(rivals)), figsize=(3.2 * max(1, len(rivals)), 3.4), squeeze=False, sharey=True)
    ours = {(job.scene, job.seed): found.regret for job, found in results.rows(OURS, CHAOS)}
    for axis, policy in zip(axes.flat, rivals, strict=False):
        theirs = {(job.scene, job.seed): found.regret for job, found in results.rows(policy, CHAOS)}
        both = sorted(ours.keys() & theirs.keys())
        axis.scatter([ours[key] for key in both], [theirs[key] for key in both], s=12, color=OUR_COLOUR)
        highest = max([1.0, *(ours[key] for key in both), *(theirs[key] for key in both)])
        axis.plot([0, highest], [0, highest], color=OTHER_COLOUR, linewidth=0.8)
        axis.set_xscale("symlog", linthresh=10)
        axis.set_yscale("symlog", linthresh=10)
        axis.set_title(policy, fontsize=9)
        axis.set_xlabel("our regret", fontsize=8)
    axes[0][0].set_ylabel("their regret", fontsize=8)
    figure.suptitle("Random worlds: above the line ours is better", fontsize=10)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
    return path


def leavings(results: Results, scenes: Sequence[str], path: Path) -> Path:
    """Share of the first channel in all attempts; the fault is shaded."""
    policies = results.policies()[:SHOWN_POLICIES]
    figure, axes = pyplot.subplots(len(scenes), 1, figsize=(9, 2.4 * len(scenes)), squeeze=False)
    for axis, scene in zip(axes.flat, scenes, strict=True):
        fault = SCENES[scene](0).faults[0]
        axis.axvspan(fault.start / 60, fault.end / 60, color="#f3e3c3")
        for policy in policies:
            _, found = results.rows(policy, scene)[0]
            shares = [minute[fault.channel] / max(1, sum(minute)) for minute in found.shares]
            ours = policy == OURS
            axis.plot(range(len(shares)), shares, label=policy, linewidth=1.8 if ours else 0.9, color=OUR_COLOUR if ours else None)
        axis.set_title(scene, fontsize=9)
        axis.set_ylabel("share", fontsize=8)
    axes[0][0].legend(fontsize=6, ncols=3)
    axes[-1][0].set_xlabel("minute", fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
    return path


def share_of(minutes: Sequence[Sequence[int]], channel: int) -> tuple[list[float], list[float]]:
    """(middle in minutes, share of the channel) over stretches long enough to say something."""
    longer = 1 if sum(map(sum, minutes)) > LEAST_A_MINUTE * len(minutes) else 10
    times, found = [], []
    for first in range(0, len(minutes), longer):
        stretch = minutes[first : first + longer]
        if total := sum(map(sum, stretch)):
            times.append(first + len(stretch) / 2)
            found.append(sum(minute[channel] for minute in stretch) / total)
    return times, found
