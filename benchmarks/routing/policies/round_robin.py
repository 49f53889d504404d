"""Round robin: everybody in turn.

Source: the default of load balancers (Envoy `ROUND_ROBIN`, nginx upstream 1.27); no constants.
"""

from benchmarks.routing.policies.rival import Rival
from kameng_api.suppliers.routing.facts import Ask, Option


class RoundRobin(Rival):
    """The usable channel that has waited longest for its turn."""

    def __init__(self) -> None:
        super().__init__()
        self._turn = 0
        self._last: dict[str, int] = {}

    def pick(self, ask: Ask, usable: list[Option], now: float, seed: int) -> str | None:
        last = self._last
        channel = min([option.channel for option in usable], key=lambda name: last.get(name, 0))
        self._turn += 1
        last[channel] = self._turn
        return channel
