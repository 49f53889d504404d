"""The bell is the only thing that starts work: no tick of a worker's own, and nobody sweeps for what was forgotten.

Where it bites: `worker.Bells.wait` and `jobs.upkeep.sweep`. What is due later, or was rung while Redis was away, waits for ever. Needs Redis
to forget, and answers that must be asked for later.
"""

from tests.chaos.bugs import Recipe

from kameng_api.jobs import upkeep
from kameng_api.worker import Bells

RECIPE = Recipe(
    faults=("redis FLUSHALL", "redis killed, back empty"),
    knobs=({"hang_rate": 0.3, "async_rate": 0.5, "callback_copies": 0},),
    expected=frozenset({"I12", "I13", "I17"}),
)


def plant() -> None:
    async def wait(self: Bells, name: str, longest_s: float) -> None:
        await self._bells[name].wait()
        self._bells[name].clear()

    Bells.wait = wait  # type: ignore[method-assign]
    upkeep._LOST = upkeep._LOST.replace("LIMIT $2", "LIMIT $2 * 0")
