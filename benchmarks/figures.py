"""What is said while a benchmark runs, what of it becomes the last line, and how rounds become one figure."""

import json
import statistics
from collections.abc import Mapping, Sequence
from typing import Any


def say(text: str) -> None:
    """A line for the person who watches."""
    print(text, flush=True)


def conclude(bench: str, ratio: float, figures: Mapping[str, Any]) -> None:
    """The last line."""
    print(json.dumps({"bench": bench, "ratio": round(ratio, 3), "figures": figures}), flush=True)


def spread(values: Sequence[float]) -> dict[str, float]:
    """What is printed of several rounds."""
    return {"median": round(statistics.median(values), 3), "min": round(min(values), 3), "max": round(max(values), 3)}


def column(rounds: list[dict[str, Any]], name: str) -> list[float]:
    """One figure of every round."""
    return [r[name] for r in rounds]


def cpu_us(rounds: list[dict[str, Any]]) -> dict[str, float]:
    """CPU microseconds of each process for one request, the median of the rounds."""
    names = sorted({name for r in rounds for name in r["cpu_us"]})
    return {name: statistics.median(r["cpu_us"].get(name, 0.0) for r in rounds) for name in names}
