"""A lease protects nothing: purchases wait in a queue of the process for as long as it takes, and tasks are ended without the lease's token.

Where it bites: `jobs.orders.Buyer._buy` and the statements of `tasks.actions`. A call that waited, or whose process stood still, leaves after
the lease; by then another worker has heard "not found" and bought elsewhere. Needs slow suppliers and frozen workers.
"""

import asyncio
import time
from typing import Any

from tests.chaos.bugs import Recipe

from kameng_api.jobs.orders import Buyer
from kameng_api.tasks import actions

RECIPE = Recipe(
    faults=("worker frozen beyond its lease", "wire: supplier silent"),
    knobs=({"latency": {"kind": "fixed", "ms": 2500}},),
    seconds=28,
    expected=frozenset({"I5", "I7", "I11"}),
)
_AT_ONCE = 12


def plant() -> None:
    buy = Buyer._buy
    queue: list[asyncio.Semaphore] = []

    async def whenever(self: Buyer, submission: Any, claimed_at: float) -> None:
        if not queue:
            queue.append(asyncio.Semaphore(_AT_ONCE))
        async with queue[0]:
            await buy(self, submission, time.monotonic())

    Buyer._buy = whenever  # type: ignore[method-assign]
    for name in ("_COMPLETE", "_RESCHEDULE", "_OWNED", "_AGAIN_OF_LANE", "_GONE_OF_LANE"):
        sql = getattr(actions, name)
        for token in ("t.lease_token = m.token", "t.lease_token = k.token"):
            sql = sql.replace(f"AND {token}", "").replace(f"WHERE {token} AND", "WHERE")
        setattr(actions, name, sql)
