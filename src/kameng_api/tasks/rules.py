"""What a task is, and when a failed one is tried again. No I/O."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final
from uuid import UUID


class Lane(StrEnum):
    """Kinds of work that may not wait for each other: a slow supplier or a dead endpoint starves nobody."""

    SUBMIT = "submit"  # ref: order; choose a channel and buy
    LOOK_UP = "look_up"  # ref: attempt; ask what became of it
    CALLBACK = "callback"  # ref: supplier callback; apply what a supplier told us
    WEBHOOK = "webhook"  # ref: delivery; tell a merchant
    DOOR = "door"  # ref: delivery; tell a merchant in the format of its door
    BATCH = "batch"  # ref: batch; read, validate and place a merchant's rows
    UPKEEP = "upkeep"  # the house's own chores


@dataclass(frozen=True, slots=True)
class Due:
    """Work that becomes due at `run_at` (None: now, by the database's clock)."""

    book_id: int
    lane: str
    ref: UUID
    run_at: datetime | None = None


def earliest(items: Iterable[Due]) -> list[Due]:
    """Each piece of work once, at its earliest time: two answers about one attempt in one commit make it due twice."""
    kept: dict[tuple[int, str, UUID], Due] = {}
    for item in items:
        key = (item.book_id, item.lane, item.ref)
        before = kept.get(key)
        if before is None or (before.run_at is not None and (item.run_at is None or item.run_at < before.run_at)):
            kept[key] = item
    return list(kept.values())


@dataclass(frozen=True, slots=True)
class Task:
    """A claimed task: ours while `lease_token` stands and the lease has not run out."""

    book_id: int
    lane: str
    ref: UUID
    attempts: int
    lease_token: int
    run_at: datetime

    @property
    def key(self) -> tuple[int, UUID]:
        return self.book_id, self.ref


BUDGET: Final = 20
"""Attempts after which a task that keeps raising is parked and someone is told."""


def backoff(attempts: int, chance: float) -> timedelta:
    """1 s doubling to 5 min, ±25 % by `chance` in [0, 1): for work that raised, not for suppliers' answers."""
    base = min(2.0 ** min(attempts - 1, 12), 300.0)
    return timedelta(seconds=base * (0.75 + 0.5 * chance))
