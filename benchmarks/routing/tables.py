"""The figures as tables for people, and as CSV for whoever wants to reckon again."""

import csv
from dataclasses import fields
from math import isnan
from pathlib import Path
from statistics import quantiles
from typing import Final

from benchmarks.routing.goals import CHAOS, Goal, Results, interval
from benchmarks.routing.measure import Figures
from benchmarks.routing.run import OURS, Job

TABLES: Final = (
    ("A", "regret: currency units lost against the oracle per 1,000 orders of face value 100", "regret", 0),
    ("B", "p99 completion, seconds", "p99_s", 0),
    ("C", "attempts sent into a dead channel during the whole fault, probes included", "dead_attempts", 0),
    ("D", "orders sent to the dead channel until it was left (share below 10 % over the next 30 s)", "evict_orders", 0),
    ("E", "delivered, % of orders", "delivered", 2),
    ("F", "seconds after the fault's end until the channel has half its old share again", "back_s", 0),
    ("G", "sold below cost, orders", "at_loss", 0),
)


def print_tables(results: Results, scenes: list[str]) -> list[str]:
    """All tables, as lines."""
    lines: list[str] = []
    for letter, title, figure, digits in TABLES:
        lines += ["", f"Table {letter} - {title}", *table(results, scenes, figure, digits)]
    return lines


def table(results: Results, scenes: list[str], figure: str, digits: int) -> list[str]:
    """Policies down, scenes across."""
    policies = results.policies()
    width = max((len(name) for name in policies), default=6) + 1
    heads = [scene.split(":")[-1][:13].rjust(6) for scene in scenes]
    lines = ["".ljust(width) + "".join(head.rjust(len(head) + 2) for head in heads)]
    scale = 100 if figure == "delivered" else 1
    for policy in policies:
        cells = [results.mean(policy, scene, figure) for scene in scenes]
        shown = ["-" if isnan(cell) else f"{cell * scale:,.{digits}f}" for cell in cells]
        lines.append(policy.ljust(width) + "".join(cell.rjust(len(head) + 2) for cell, head in zip(shown, heads, strict=True)))
    return lines


def print_gaps(results: Results) -> list[str]:
    """Every rival's regret minus ours over the same random worlds."""
    lines = ["", "Regret of others minus ours, world by world (paired bootstrap, 95 %)"]
    for policy in results.policies():
        gaps = results.gaps(policy)
        if policy == OURS or len(gaps) < 2:
            continue
        low, high = interval(gaps)
        better, worse = sum(gap > 5 for gap in gaps), sum(gap < -5 for gap in gaps)
        lines.append(
            f"  {policy:24} {sum(gaps) / len(gaps):8.1f} [{low:.1f}, {high:.1f}]"
            f"  ours better by > 5 in {better}, worse by > 5 in {worse} of {len(gaps)}"
        )
    ours = sorted(found.regret for _, found in results.rows(OURS, CHAOS))
    if len(ours) > 2:
        tenths = quantiles(ours, n=10, method="inclusive")
        lines.append(f"  ours: median {tenths[4]:.1f}, p90 {tenths[8]:.1f}, max {ours[-1]:.1f}")
    return lines


def print_conditions(results: Results) -> list[str]:
    """Eight workers, memory lost, and failing over on a time-out."""
    lines: list[str] = []
    plain = Job("", "", 0)
    others = [job for job in results.played if (job.workers, job.wipe, job.naive) != (1, "", False)]
    seen = sorted({(job.workers, job.lag_s is None, job.wipe, job.naive, job.scene) for job in others})
    for workers, alone, wipe, naive, scene in seen:
        conditions: dict[str, object] = {"workers": workers, "lag_s": None if alone else plain.lag_s, "wipe": wipe, "naive": naive}
        what = [f"{workers} workers, {'each alone' if alone else 'state 1 s late'}"] if workers > 1 else []
        what += [f"memory lost ({wipe})"] if wipe else []
        what += ["failing over on a time-out"] if naive else []
        lines += ["", f"{scene}: {', '.join(what)}"]
        for policy in results.policies():
            rows = results.rows(policy, scene, **conditions)
            if not rows:
                continue
            before = results.mean(policy, scene, "regret")
            after = results.mean(policy, scene, "regret", **conditions)
            doubles = sum(found.doubles for _, found in rows) / sum(found.orders for _, found in rows) * 1e4
            wiped = results.mean(policy, scene, "after_wipe", **conditions)
            lines.append(
                f"  {policy:24} regret {before:8.1f} -> {after:8.1f}"
                + (f"  into the dead channel within 120 s {wiped:6.1f}" if wipe else "")
                + (f"  double deliveries per 10,000 {doubles:8.1f}" if naive else "")
            )
    return lines


def print_goals(goals: list[Goal]) -> list[str]:
    """Each goal with its figure, its limit and whether it is met."""
    lines = ["", "Goals"]
    words = {True: "met", False: "MISSED", None: "not measured"}
    for goal in goals:
        figure = "-" if isnan(goal.figure) else f"{goal.figure:,.2f}"
        lines.append(f"  {goal.name:4} {goal.what:62} {figure:>10}  {goal.limit:>8}  {words[goal.met]}")
    return lines


def write_csv(results: Results, goals: list[Goal], out: Path) -> None:
    """`runs.csv`: one row per run; `goals.csv`: one row per goal."""
    out.mkdir(parents=True, exist_ok=True)
    names = [each.name for each in fields(Figures) if each.name != "shares"]
    with (out / "runs.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*(each.name for each in fields(Job)), *names])
        for job, found in results.played.items():
            writer.writerow([*(getattr(job, each.name) for each in fields(Job)), *(getattr(found, name) for name in names)])
    with (out / "goals.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["goal", "what", "figure", "limit", "met"])
        writer.writerows([goal.name, goal.what, goal.figure, goal.limit, goal.met] for goal in goals)
