"""The merchant is answered when the order has been written, not when it has been committed: the commit follows a moment later.

Where it bites: `api.orders._place`. Needs APIs that are killed and a database that restarts.
"""

import asyncio
import sys
from collections.abc import Sequence
from typing import Any

from tests.chaos.bugs import Recipe

from kameng_api.api import orders as door_of_orders
from kameng_api.api.deps import Door
from kameng_api.orders import actions
from kameng_api.orders.actions import Place

RECIPE = Recipe(
    faults=("kill -9 api", "postgres immediate restart", "postgres backends terminated", "wire: reset"),
    expected=frozenset({"I4", "I9", "I16"}),
)
_LATER_S = 0.05


def plant() -> None:
    committing: set[asyncio.Task[None]] = set()

    async def answer_first(door: Door, batch: Sequence[Place]) -> list[Any]:
        opened = door.db.transaction()
        tx = await opened.__aenter__()
        try:
            verdicts = await actions.place(tx, door.keyring, batch)
        except BaseException:
            await opened.__aexit__(*sys.exc_info())
            raise
        task = asyncio.create_task(_commit(opened))
        committing.add(task)
        task.add_done_callback(committing.discard)
        return verdicts

    door_of_orders._place = answer_first


async def _commit(opened: Any) -> None:
    await asyncio.sleep(_LATER_S)
    await opened.__aexit__(None, None, None)
