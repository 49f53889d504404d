"""The smallest policy there is, for a stranger to copy: the cheapest channel that was not tried yet.

A policy is made from a `World` and has `choose` and `observe`; name it on the command line as
`--policy benchmarks.routing.example:cheapest_first`. It may also offer `rebuild(events)`, which is used when shared memory is lost.
"""

from collections.abc import Sequence

from benchmarks.routing.world import World
from kameng_api.suppliers.routing.facts import Action, Ask, Decision, Event, Option


class CheapestFirst:
    """Learns nothing."""

    def choose(self, ask: Ask, options: Sequence[Option], now: float, seed: int) -> Decision:
        """By price alone."""
        left = [option for option in options if option.channel not in ask.tried]
        if not left:
            return Decision(Action.GIVE_UP, "NONE_LEFT")
        return Decision(Action.DISPATCH, "CHEAPEST", min(left, key=lambda option: option.cost).channel)

    def observe(self, event: Event) -> None:
        """Whatever is heard, the price stays the price."""


def cheapest_first(world: World) -> CheapestFirst:
    """The factory that `--policy` names."""
    return CheapestFirst()
