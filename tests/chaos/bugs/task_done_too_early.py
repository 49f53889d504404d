"""The task is taken off the list, committed, and only then is the work done; and nobody sweeps for orders that no task knows.

Where it bites: `jobs.orders` at the claim. A worker that dies, or an order that must wait for a channel, has no task any more. Needs workers
that are killed, or channels that are full.
"""

from typing import Any

from tests.chaos.bugs import Recipe

from kameng_api.jobs import orders as beats
from kameng_api.jobs import upkeep
from kameng_api.kit.db import Database, Tx
from kameng_api.orders.dispatch import Round, dispatch_claimed
from kameng_api.tasks import actions as tasks
from kameng_api.tasks.rules import Lane

RECIPE = Recipe(
    faults=("kill -9 worker", "kill -9 worker, started at once", "postgres backends terminated"),
    knobs=({"latency": {"kind": "fixed", "ms": 800}},),
    expected=frozenset({"I12", "I13", "I17"}),
)


def plant() -> None:
    own: list[Database] = []

    async def dispatch(tx: Tx, keyring: Any, around: Any, *, limit: int, lease_s: float, worker: str) -> Round:
        if not own:
            own.append(Database(tx.engine.url.render_as_string(hide_password=False), pool_size=2))
        async with own[0].transaction() as apart:
            claimed = await tasks.claim(apart, Lane.SUBMIT, limit, lease_s, worker)
            await tasks.complete(apart, claimed)
        return await dispatch_claimed(tx, keyring, around, claimed)

    beats.dispatch = dispatch
    upkeep._LOST = upkeep._LOST.replace("LIMIT $2", "LIMIT $2 * 0")
