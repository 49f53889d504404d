"""Our router as one process sees it: health folded from events, and the decision made from it."""

from collections.abc import Mapping, Sequence

from kameng_api.suppliers.routing.choose import choose
from kameng_api.suppliers.routing.facts import Ask, ChannelFacts, Decision, Event, Option
from kameng_api.suppliers.routing.health import Health
from kameng_api.suppliers.routing.tuning import DEFAULT, Tuning


class Router:
    """A `Policy`: what the simulation runs, made of the same `Health` and `choose` as production."""

    def __init__(self, facts: Mapping[str, ChannelFacts] | None = None, tuning: Tuning = DEFAULT) -> None:
        self.tuning = tuning
        self.health = Health(facts, tuning)

    def choose(self, ask: Ask, options: Sequence[Option], now: float, seed: int) -> Decision:
        """Decide with this process's readings; those of `options` are not looked at."""
        health = self.health
        health.tend(now)
        readings = [health.reading(option.channel, ask.sku, now) for option in options]
        return choose(ask, options, now, seed, self.tuning, readings)

    def observe(self, event: Event) -> None:
        self.health.observe(event)

    def rebuild(self, events: Sequence[Event]) -> None:
        """Begin anew from the last attempts, as after the loss of the shared state."""
        self.health = Health(self.health.facts, self.tuning)
        for event in events:
            self.health.observe(event)
