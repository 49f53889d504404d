"""What a decision costs in time of the processor: the router's `choose` timed while it routes a world of four and one of eight channels."""

from collections.abc import Callable, Sequence
from time import thread_time_ns

from benchmarks.routing.engine import Run
from benchmarks.routing.faults import BlackHole, Flapping, Slow
from benchmarks.routing.run import router
from benchmarks.routing.scenarios import SKUS
from benchmarks.routing.world import Scene, World, channel_and_truth
from kameng_api.suppliers.routing.facts import Ask, Decision, Event, Option, Policy


class Timed:
    """A policy with a stopwatch."""

    def __init__(self, policy: Policy, choices: list[int], observations: list[int]) -> None:
        self.policy = policy
        self.choices = choices
        self.observations = observations

    def choose(self, ask: Ask, options: Sequence[Option], now: float, seed: int) -> Decision:
        """Timed."""
        began = thread_time_ns()
        decision = self.policy.choose(ask, options, now, seed)
        self.choices.append(thread_time_ns() - began)
        return decision

    def observe(self, event: Event) -> None:
        """Timed."""
        began = thread_time_ns()
        self.policy.observe(event)
        self.observations.append(thread_time_ns() - began)


def many(channels: int) -> Scene:
    """An hour with three misfortunes among so many channels."""
    pairs = [channel_and_truth(f"c{n}", 3.0 - 0.25 * n, 0.97, 4.0 + n) for n in range(channels)]
    world = World(tuple(channel for channel, _ in pairs), SKUS)
    faults = (BlackHole(0, 600, 1200), Flapping(1, 900, 1500), Slow(2, 1200, 1800))
    return Scene(f"many-{channels}", world, tuple(truth for _, truth in pairs), faults, seconds=2400)


def choose_cost(say: Callable[[str], None]) -> float:
    """p99 of `choose` with eight channels, milliseconds; all quantiles are said."""
    p99 = 0.0
    for channels in (4, 8):
        choices: list[int] = []
        observations: list[int] = []

        def timed(run: Run, choices: list[int] = choices, observations: list[int] = observations) -> Timed:
            return Timed(router(run.scene.world), choices, observations)

        Run(many(channels), 0, timed).run()
        choices.sort()
        observations.sort()
        p99 = choices[int(0.99 * len(choices))] / 1e6
        say(
            f"choose with {channels} channels: p50 {choices[len(choices) // 2] / 1e3:.1f} µs, p99 {p99 * 1e3:.1f} µs; "
            f"observe: p50 {observations[len(observations) // 2] / 1e3:.1f} µs, p99 {observations[int(0.99 * len(observations))] / 1e3:.1f} µs"
        )
    return p99
