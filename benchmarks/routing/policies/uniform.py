"""Random: any usable channel, all alike.

Source: Envoy's `RANDOM` load balancer; no constants.
"""

from random import Random

from benchmarks.routing.policies.rival import Rival
from kameng_api.suppliers.routing.facts import Ask, Option


class Uniform(Rival):
    """Seeded once, by its first decision."""

    def __init__(self) -> None:
        super().__init__()
        self._random: Random | None = None

    def pick(self, ask: Ask, usable: list[Option], now: float, seed: int) -> str | None:
        if self._random is None:
            self._random = Random(seed)
        return usable[int(self._random.random() * len(usable))].channel
