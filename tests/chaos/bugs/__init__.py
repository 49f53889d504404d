"""Mistakes that a careless engineer would have made, planted from outside one at a time, so that the judge can be seen catching them.

Nothing of this is in the product. The launcher (`tests.chaos.process --bug NAME`) calls `plant()` before the process's own main; where a
constraint of the database would stop the mistake, `prepare` takes that constraint away as well: the bug is then "what if that guard had been
forgotten too". `python -m tests.chaos.bugs` runs each alone and exits 1 when the judge misses one (docs/decisions/0014-planted-bugs.md).
"""

import importlib
import inspect
from dataclasses import dataclass, field
from typing import Any, Final

import asyncpg
from sqlalchemy.engine import make_url

NAMES: Final = (
    "timeout_is_failure",
    "unlocked_settle",
    "missing_fence",
    "new_reference_on_doubt",
    "webhook_before_commit",
    "release_on_unknown",
    "not_found_believed_at_once",
    "hold_apart",
    "acknowledged_before_commit",
    "number_unguarded",
    "reversal_counted_twice",
    "refund_unguarded",
    "task_done_too_early",
    "doorbell_carries_work",
    "codes_issued_twice",
    "late_success_ignored",
)


@dataclass(frozen=True, slots=True)
class Recipe:
    """The run that lets a bug bite: names of `tests.chaos.faults.FAULTS`, and more knobs for the suppliers."""

    faults: tuple[str, ...] = ()
    knobs: tuple[dict[str, Any], ...] = ()
    seconds: float = 20.0
    seed: int = 7
    rate_per_s: float = 25.0
    expected: frozenset[str] = field(default_factory=frozenset)
    """Invariants of which at least one must be seen broken; others may be as well. Never `own`: the product may not be its only judge."""


def recipe_of(name: str) -> Recipe:
    recipe: Recipe = importlib.import_module(f"tests.chaos.bugs.{name}").RECIPE
    return recipe


def story_of(name: str) -> str:
    """The first line of the bug's docstring."""
    return (inspect.getdoc(importlib.import_module(f"tests.chaos.bugs.{name}")) or "").split("\n")[0]


async def prepare(name: str, owner_url: str) -> None:
    """Takes away the constraint that would stop the bug, if it names one. After the migrations, before the load."""
    statements: tuple[str, ...] = getattr(importlib.import_module(f"tests.chaos.bugs.{name}"), "UNGUARDED", ())
    if not statements:
        return
    connection = await asyncpg.connect(make_url(owner_url).set(drivername="postgresql").render_as_string(hide_password=False), timeout=10)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()
