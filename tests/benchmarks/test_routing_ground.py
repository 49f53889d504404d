"""The proving ground itself: a judge that loses orders, deals luck unevenly or judges on what was tuned proves nothing."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import isnan

import pytest
from benchmarks.routing.engine import LEASE_S, Misbehaved, Outcome, Run
from benchmarks.routing.example import cheapest_first
from benchmarks.routing.faults import BlackHole, FastErrors, Slow, Stutter
from benchmarks.routing.goals import Results, at_most, goals, interval
from benchmarks.routing.measure import figures
from benchmarks.routing.oracle import Oracle
from benchmarks.routing.run import Job, NoSuchName, against_oracle, maker_of, play, play_all, scene_of
from benchmarks.routing.scenarios import JUDGING_CHAOS, JUDGING_SEEDS, SKUS, TUNING_CHAOS, TUNING_SEEDS, MixedSeeds, chaos, check_seeds, four, storm
from benchmarks.routing.world import Fault, Scene, World, luck, orders_of

from kameng_api.suppliers.routing.facts import Action, Answered, Ask, Decision, Event, Heard, Option, Sent

HERE = "tests.benchmarks.routing_strangers"


def small(*faults: Fault, seconds: float = 400.0, callback: bool = False, caps: Sequence[int | None] = (None,) * 4) -> Scene:
    world, truths = four(callback=callback, caps=caps)
    return Scene("small", world, truths, faults, seconds=seconds)


@dataclass
class Spread:
    """Sends anywhere that is left, by the seed it is given, and remembers all it is told."""

    heard: list[Event] = field(default_factory=list)
    told: list[tuple[float, Event]] = field(default_factory=list)
    now: float = 0.0
    rebuilt: list[Event] | None = None

    def choose(self, ask: Ask, options: Sequence[Option], now: float, seed: int) -> Decision:
        self.now = now
        left = [option.channel for option in options if option.channel not in ask.tried]
        return Decision(Action.DISPATCH, "ANY", left[luck(seed, 0, 0) % len(left)]) if left else Decision(Action.GIVE_UP, "NONE")

    def observe(self, event: Event) -> None:
        self.heard.append(event)

    def rebuild(self, events: Sequence[Event]) -> None:
        self.rebuilt = list(events)


def run(scene: Scene, seed: int = 7, **conditions: object) -> Outcome:
    return Run(scene, seed, lambda run: Spread(), **conditions).run()  # type: ignore[arg-type]


HARSH = (BlackHole(0, 50, 200), Slow(1, 100, 300), FastErrors(2, 0, 250), Stutter(1, 0, 400), Stutter(3, 0, 400))


@pytest.mark.parametrize("callback", [False, True])
def test_every_order_has_one_end_and_at_most_one_delivery(callback: bool) -> None:
    scene = small(*HARSH, callback=callback, caps=(10, None, None, 8))
    outcome = run(scene, mess=True)
    assert [(order.at, order.sku) for order in outcome.orders] == orders_of(scene, 7)
    for order in outcome.orders:
        assert order.done_at >= order.at
        assert not order.live
        assert order.deliveries == (order.margin is not None)
        assert order.attempts <= 3
    assert len(outcome.attempts) == sum(order.attempts for order in outcome.orders)


def test_supplier_places_are_given_back() -> None:
    run_ = Run(small(*HARSH, caps=(10, 10, 10, 10)), 7, lambda run: Spread())
    run_.run()
    assert run_.working == [0, 0, 0, 0]


def test_the_safe_engine_never_delivers_twice_and_the_naive_one_does_and_says_so() -> None:
    scene = small(Slow(0, 0, 400), Slow(1, 0, 400))
    assert figures(run(scene)).doubles == 0
    naive = run(scene, naive=True)
    assert figures(naive).doubles > 100
    assert figures(naive).doubles == sum(order.deliveries > 1 for order in naive.orders)


def test_all_policies_meet_the_same_luck() -> None:
    """What became of order × channel is the same whoever sends it, whenever; over many orders luck is as the truth says."""
    first, second = Run(small(), 7, lambda run: Spread()), Run(small(), 7, lambda run: cheapest_first(run.scene.world))
    ends: list[dict[tuple[str, str], tuple[bool, float]]] = []
    for each in (first, second):
        seen: dict[tuple[str, str], tuple[bool, float]] = {}

        def note(worker: int, event: Event, seen: dict[tuple[str, str], tuple[bool, float]] = seen) -> None:
            if isinstance(event, Answered):
                seen[event.attempt.split(".")[0], event.channel] = event.what is Heard.GOOD, round(event.at - event.sent_at, 6)

        each.tell = note  # type: ignore[method-assign]
        each.run()
        ends.append(seen)
    common = ends[0].keys() & ends[1].keys()
    assert len(common) > 200
    assert all(ends[0][key] == ends[1][key] for key in common)
    draws = [luck(7, order, channel) & 0xFFFFFF for order in range(20_000) for channel in range(2)]
    assert abs(sum(draw < 0.97 * 2**24 for draw in draws) / len(draws) - 0.97) < 0.005


def test_another_seed_is_other_luck() -> None:
    assert figures(run(small(), 7)).value != figures(run(small(), 8)).value


def test_nobody_beats_the_oracle_where_nothing_changes() -> None:
    jobs = [Job(policy, "stationary", seed) for policy in ("oracle", "router", "breaker-tuned", "static-priority", "random") for seed in (100,)]
    played = play_all(jobs, cores=1, tell=print)
    against_oracle(played)
    assert all(found.regret > -3 for found in played.values())
    assert all(found.regret > 300 for job, found in played.items() if job.policy == "random")


def test_the_oracle_leaves_a_hole_at_once_and_comes_back() -> None:
    found = figures(Run(small(BlackHole(0, 100, 200), seconds=700.0), 7, Oracle).run())
    assert (found.dead_attempts, found.evict_orders) == (0, 0)
    assert found.back_s < 5


def test_who_stays_is_seen_to_stay_and_pays_for_it() -> None:
    scene = small(BlackHole(0, 100, 300), seconds=700.0)
    stays = figures(Run(scene, 7, lambda run: cheapest_first(run.scene.world)).run())
    expected = sum(100 <= at < 300 for at, _ in orders_of(scene, 7))
    assert stays.dead_attempts == stays.evict_orders == expected
    assert stays.evict_s == 200
    assert stays.p99_s > 330
    assert figures(Run(scene, 7, Oracle).run()).value - stays.value > 500


def test_a_doubt_freezes_the_order_until_a_look_up() -> None:
    spread = Spread()
    outcome = Run(small(BlackHole(0, 0, 400), BlackHole(1, 0, 400), BlackHole(2, 0, 400), BlackHole(3, 0, 400)), 7, lambda run: spread).run()
    sent: dict[str, list[float]] = {}
    for event in spread.heard:
        if isinstance(event, Sent):
            sent.setdefault(event.attempt.split(".")[0], []).append(event.at)
    gaps = [later - earlier for times in sent.values() for earlier, later in pairwise(times) if earlier < 400]
    assert len(gaps) > 500
    assert min(gaps) == pytest.approx(330)
    assert max(order.done_at - order.at for order in outcome.orders) <= 900 + 330


def test_others_learn_late_or_never() -> None:
    for lag in (1.0, None):
        policies: list[Spread] = []

        def make(run: Run, policies: list[Spread] = policies) -> Spread:
            policies.append(Spread())
            return policies[-1]

        outcome = Run(small(), 7, make, workers=8, lag_s=lag).run()
        sent = [sum(isinstance(event, Sent) for event in policy.heard) for policy in policies]
        everybody = len(outcome.attempts)
        assert sum(sent) == everybody if lag is None else all(everybody - 10 <= count <= everybody for count in sent)


def test_lost_memory_is_rebuilt_from_the_last_attempts() -> None:
    policies: list[Spread] = []

    def make(run: Run) -> Spread:
        policies.append(Spread())
        return policies[-1]

    Run(small(BlackHole(0, 50, 400)), 7, make, wipe_at=350.0, rebuild=True).run()
    before, after = policies
    assert after.rebuilt
    assert set(map(str, after.rebuilt)) <= set(map(str, before.heard))
    assert max(sum(isinstance(event, Sent) and event.channel == name for event in after.rebuilt) for name in "ABCD") <= 256


def test_of_eight_workers_one_probes_a_circuit_at_a_time() -> None:
    """Each wants to probe with every order; whoever may not is asked again for an order that is not to be a probe."""

    class Eager(Spread):
        def choose(self, ask: Ask, options: Sequence[Option], now: float, seed: int) -> Decision:
            plain = super().choose(ask, options, now, seed)
            probe = plain.action is Action.DISPATCH and not ask.premium
            return Decision(Action.PROBE, "EAGER", plain.channel, until_s=60.0) if probe else plain

    alone = Run(small(), 7, lambda run: Eager(), workers=8, lag_s=None).run()
    assert all(probe for *_, probe in alone.attempts)
    together = Run(small(), 7, lambda run: Eager(), workers=8).run()
    for channel in range(4):
        times = [at for at, place, _, _, probe in together.attempts if probe and place == channel]
        assert len(times) > 50
        assert min(later - earlier for earlier, later in pairwise(times)) >= LEASE_S


def test_a_second_delivery_is_paid_for() -> None:
    scene = small(Slow(0, 0, 400), Slow(1, 0, 400))
    naive = figures(run(scene, naive=True))
    assert naive.value < figures(run(scene)).value - naive.doubles / naive.orders * 1000 * 90


def test_a_policy_that_sends_twice_to_one_channel_is_stopped() -> None:
    class Stubborn(Spread):
        def choose(self, ask: Ask, options: Sequence[Option], now: float, seed: int) -> Decision:
            return Decision(Action.DISPATCH, "ALWAYS", "A")

    with pytest.raises(Misbehaved):
        Run(small(FastErrors(0, 0, 400)), 7, lambda run: Stubborn()).run()


def test_tuning_and_judging_worlds_do_not_mix() -> None:
    assert not set(TUNING_SEEDS) & set(JUDGING_SEEDS)
    assert not set(TUNING_CHAOS) & set(JUDGING_CHAOS)
    check_seeds(TUNING_CHAOS, TUNING_SEEDS, tuning=True)
    check_seeds(JUDGING_CHAOS, JUDGING_SEEDS, tuning=False)
    wrong: list[tuple[tuple[int, ...], tuple[int, ...], bool]] = [
        ((0,), (), True), ((), (0,), True), ((1000,), (), False), ((), (100,), False), ((5, 1000), (), False), ((60,), (), False),
    ]
    for worlds, seeds, tuning in wrong:
        with pytest.raises(MixedSeeds):
            check_seeds(worlds, seeds, tuning=tuning)


def test_random_worlds_are_the_same_each_time_and_differ_from_each_other() -> None:
    assert str(chaos(1003)) == str(chaos(1003))
    shapes = {(len(chaos(seed).truths), len(chaos(seed).faults)) for seed in TUNING_CHAOS}
    assert len(shapes) > 10
    assert all(3 <= channels <= 7 and 2 <= faults <= 5 for channels, faults in shapes)


def test_a_stranger_brings_a_policy_and_a_world() -> None:
    found = play(Job(f"{HERE}:dearest_first", f"{HERE}:three_minutes", 7))
    assert found.orders > 300
    assert found.value < play(Job("benchmarks.routing.example:cheapest_first", f"{HERE}:three_minutes", 7)).value


def test_a_name_that_is_none_is_refused() -> None:
    for wrong in ("nobody", "router-without-luck", f"{HERE}:nothing"):
        with pytest.raises((NoSuchName, ModuleNotFoundError)):
            maker_of(wrong)
    with pytest.raises(NoSuchName):
        scene_of("nowhere", 7)


def test_a_missed_goal_is_missed_and_an_unmeasured_one_is_not_met() -> None:
    assert at_most("G0", "", 3.1, 3).met is False
    assert at_most("G0", "", 3.0, 3).met is True
    assert at_most("G0", "", float("nan"), 3).met is None
    nothing = goals(Results({}))
    assert all(goal.met is None for goal in nothing if goal.name != "G10")
    assert isnan(nothing[0].figure)


def test_the_interval_of_a_sure_difference_leaves_zero_out() -> None:
    low, high = interval([5.0, 6.0, 7.0, 5.5] * 10)
    assert 5 < low < 5.875 < high < 7
    low, high = interval([-30.0, 40.0, 5.0, -12.0])
    assert low < 0 < high


def test_a_storm_of_all_faults_delivers_nothing_twice() -> None:
    scene = storm(0)
    scene.seconds = 2500.0
    outcome = run(scene, mess=True, workers=3)
    assert len(outcome.orders) > 12_000
    assert figures(outcome).doubles == 0


def test_a_policy_knows_the_papers_and_not_the_truth() -> None:
    world = chaos(1001).world
    assert isinstance(world, World)
    assert not hasattr(world, "truths")
    assert world.skus == SKUS
