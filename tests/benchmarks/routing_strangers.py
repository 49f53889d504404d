"""What a stranger would bring to the proving ground: a policy and a world, by name only."""

from collections.abc import Sequence

from benchmarks.routing.faults import FastErrors
from benchmarks.routing.world import Scene, World, channel_and_truth

from kameng_api.suppliers.routing.facts import Action, Ask, Decision, Event, Option, Policy


class DearestFirst:
    """Nobody should want this."""

    def choose(self, ask: Ask, options: Sequence[Option], now: float, seed: int) -> Decision:
        left = [option for option in options if option.channel not in ask.tried]
        return Decision(Action.DISPATCH, "DEAREST", max(left, key=lambda option: option.cost).channel) if left else Decision(Action.GIVE_UP, "NONE")

    def observe(self, event: Event) -> None:
        pass


def dearest_first(world: World) -> Policy:
    return DearestFirst()


def three_minutes(seed: int) -> Scene:
    pairs = [channel_and_truth("near", 2.0, 0.95, 3.0), channel_and_truth("far", 1.0, 0.9, 8.0)]
    return Scene("three_minutes", World(tuple(c for c, _ in pairs), ("x", "y")), tuple(t for _, t in pairs), (FastErrors(0, 60, 90),), seconds=180.0)
