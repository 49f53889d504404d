"""What is known of channels: evidence from answers and from silence, circuits, and a fold that does not mind how it is told."""

from collections.abc import Iterable, Sequence
from itertools import count
from math import exp
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kameng_api.suppliers.routing.choose import is_full
from kameng_api.suppliers.routing.facts import Action, Answered, Ask, ChannelFacts, Circuit, Event, Heard, Option, Reading, Sent
from kameng_api.suppliers.routing.health import Health
from kameng_api.suppliers.routing.policy import Router
from kameng_api.suppliers.routing.tuning import DEFAULT, Tuning


def attempt(
    name: str, at: float, what: Heard | None, seconds: float = 5.0, *, channel: str = "A", sku: str = "s", probe: bool = False
) -> list[Event]:
    events: list[Event] = [Sent(name, channel, sku, at, probe)]
    if what is not None:
        events.append(Answered(name, channel, sku, at + seconds, at, what))
    return events


def tell(health: Health, events: Iterable[Event], until: float) -> None:
    """In the order of their times, with the evidence looked at twice a second as in production."""
    ordered = sorted((event for event in events if event.at <= until), key=lambda event: event.at)
    now = ordered[0].at if ordered else until
    for event in ordered:
        while now + 0.5 <= event.at:
            now += 0.5
            health.tend(now)
        health.observe(event)
    while now < until:
        now = min(now + 0.5, until)
        health.tend(now)


def ordinary(
    seconds: float, *, rate: float = 3.0, p: float = 0.97, median_s: float = 5.0, channel: str = "A", seed: int = 1, start: float = 0.0
) -> list[Event]:
    """A healthy channel's attempts, over ten SKUs."""
    random = Random(seed)
    events: list[Event] = []
    for number in range(int(seconds * rate)):
        took = median_s * exp(0.5 * random.gauss(0, 1))
        what = Heard.GOOD if random.random() < p else Heard.BAD
        events += attempt(f"{channel}{start}-{number}", start + number / rate, what, took, channel=channel, sku=f"s{random.randrange(10)}")
    return events


def hole(start: float, seconds: float, *, rate: float = 3.0, what: Heard | None = None, took: float = 0.3) -> list[Event]:
    """From `start` on, attempts that hear nothing, or fail."""
    return [
        event for number in range(int(seconds * rate))
        for event in attempt(f"h{start}-{number}", start + number / rate, what, took, sku=f"s{number % 10}")
    ]  # fmt: skip


def reading(health: Health, now: float, sku: str = "s1", channel: str = "A") -> Reading:
    return health.reading(channel, sku, now)


def test_a_channel_of_which_nothing_is_known_is_believed_well() -> None:
    health = Health({"A": ChannelFacts(latency_s=12.0)})
    assert reading(health, 0.0).p == DEFAULT.p_prior
    assert reading(health, 0.0).latency_s == 12.0


def test_success_and_time_are_learnt() -> None:
    health = Health()
    tell(health, ordinary(300.0, p=0.8), 300.0)
    found = reading(health, 300.0)
    assert found.circuit is Circuit.CLOSED
    assert found.p == pytest.approx(0.8, abs=0.08)
    assert found.latency_s == pytest.approx(5.0 * exp(0.125), rel=0.25)
    assert found.late_s == pytest.approx(5.0 * exp(1.645 * 0.5), rel=0.25)
    assert 5 < found.in_flight < 30


def first_open(health: Health, events: Sequence[Event], start: float, until: float) -> float | None:
    tell(health, events, until)
    opened = [change.at for change in health.changes() if change.circuit is Circuit.OPEN and change.sku is None and change.at >= start]
    return opened[0] if opened else None


def test_silence_alone_condemns_a_black_hole_before_any_time_out() -> None:
    opened = first_open(Health(), ordinary(300.0) + hole(300.0, 60.0), 300.0, 330.0)
    assert opened is not None
    assert 303.0 < opened < 312.0


def test_without_silence_the_black_hole_is_not_seen() -> None:
    assert first_open(Health(tuning=Tuning(silence=False)), ordinary(300.0) + hole(300.0, 60.0), 300.0, 329.0) is None


def test_a_handful_of_quick_failures_condemns() -> None:
    opened = first_open(Health(), ordinary(300.0) + hole(300.0, 60.0, what=Heard.BAD), 300.0, 330.0)
    assert opened is not None
    assert opened < 303.5


def test_late_successes_of_orders_from_before_an_outage_do_not_speak_for_it() -> None:
    """A chance failure begins the suspicion early; what was sent between it and the outage is delivered while the circuit is open."""
    health = Health()
    early = attempt("chance", 297.0, Heard.BAD, 2.5, sku="s1")
    late = [event for n in range(9) for event in attempt(f"late{n}", 297.3 + n * 0.3, Heard.GOOD, 5.0 + n * 0.3, sku=f"s{n}")]
    tell(health, ordinary(297.0, p=0.99) + early + late + hole(300.0, 2.0, rate=5.0, what=Heard.BAD), 310.0)
    found = reading(health, 310.0)
    assert found.circuit is Circuit.OPEN
    assert found.p < 0.1, "nine deliveries from before the outage make the dead channel look half alive"


def test_a_handful_of_failures_condemns_at_three_orders_a_minute_too() -> None:
    opened = first_open(Health(), ordinary(3600.0, rate=0.05) + hole(3600.0, 600.0, rate=0.05, what=Heard.BAD), 3600.0, 4200.0)
    assert opened is not None
    assert opened <= 3600.0 + 4 * 20.0


def test_wrong_numbers_condemn_nobody() -> None:
    health = Health()
    assert first_open(health, ordinary(300.0) + hole(300.0, 60.0, what=Heard.NEUTRAL), 300.0, 400.0) is None
    assert reading(health, 400.0).p > 0.9


def test_a_normal_day_opens_nothing() -> None:
    health = Health()
    tell(health, ordinary(3600.0), 3600.0)
    assert [change for change in health.changes() if change.sku is None] == []


def test_one_sick_sku_does_not_condemn_its_channel() -> None:
    events = ordinary(300.0)
    for number in range(120):
        sku, at = f"s{number % 10}", 300.0 + number / 3
        events += attempt(f"x{number}", at, Heard.BAD if sku == "s3" else Heard.GOOD, 0.3 if sku == "s3" else 4.0, sku=sku)
    health = Health()
    tell(health, events, 340.0)
    assert {(change.sku, change.circuit) for change in health.changes() if change.at > 300} == {("s3", Circuit.OPEN)}
    assert reading(health, 340.0, "s3").of_sku
    assert reading(health, 340.0, "s4").circuit is Circuit.CLOSED
    assert reading(health, 340.0, "s4").p > 0.9


def open_channel(what: Heard | None = Heard.BAD) -> Health:
    health = Health()
    tell(health, ordinary(300.0) + hole(300.0, 12.0, what=what), 320.0)
    assert reading(health, 320.0).circuit is Circuit.OPEN
    health.changes()
    return health


def test_cheap_failures_need_one_success_to_close_and_dear_ones_two() -> None:
    for what, needed in ((Heard.BAD, 1), (None, 2)):
        health = open_channel(what)
        for number in range(1, needed + 1):
            assert reading(health, 330.0).circuit is Circuit.OPEN
            tell(health, attempt(f"p{number}", 320.0 + number, Heard.GOOD, 3.0, sku=f"s{number}", probe=True), 325.0 + number)
        assert reading(health, 330.0).circuit is Circuit.CLOSED
        assert [change.circuit for change in health.changes()] == [Circuit.CLOSED]


def test_a_success_that_was_in_doubt_closes_nothing() -> None:
    health = open_channel()
    health.observe(Sent("p", "A", "s1", 321.0, True))
    health.observe(Answered("p", "A", "s1", 351.0, 321.0, Heard.DOUBT))
    health.observe(Answered("p", "A", "s1", 360.0, 321.0, Heard.GOOD))
    health.tend(361.0)
    assert reading(health, 361.0).circuit is Circuit.OPEN


def test_an_outage_does_not_poison_the_reference() -> None:
    health = open_channel()
    before = reading(health, 320.0).p_healthy
    tell(health, hole(321.0, 300.0, rate=0.2, what=Heard.BAD), 621.0)
    assert reading(health, 621.0).p_healthy == pytest.approx(before, abs=0.01)
    tell(health, attempt("p", 622.0, Heard.GOOD, 3.0, sku="s1", probe=True), 626.0)
    assert reading(health, 626.0).p > 0.9


def test_a_refusal_for_load_proves_a_limit_and_hurts_nobody() -> None:
    health = Health()
    tell(health, ordinary(300.0), 300.0)
    in_flight = reading(health, 300.0).in_flight
    tell(health, attempt("b", 300.5, Heard.BUSY, 0.1), 301.0)
    found = reading(health, 301.0)
    assert found.limit is not None
    assert found.limit <= in_flight
    assert not found.inferred
    assert found.circuit is Circuit.CLOSED


def test_declared_batches_are_waited_for() -> None:
    """Verdicts come once a minute: no alarm between batches, and one soon after the first batch that stays away."""

    def batched(until: float) -> list[Event]:
        events: list[Event] = []
        random = Random(3)
        for number in range(1800):
            at = number / 3
            heard_at = -((-(at + 20.0 * exp(0.4 * random.gauss(0, 1)))) // 60.0) * 60.0
            events.append(Sent(f"b{number}", "A", f"s{number % 10}", at))
            if heard_at <= until:
                events.append(Answered(f"b{number}", "A", f"s{number % 10}", heard_at, at, Heard.GOOD))
        return events

    told = Health({"A": ChannelFacts(callback_batch_s=60.0, latency_s=30.0)})
    tell(told, batched(420.0), 482.0)
    assert [change for change in told.changes() if change.sku is None] == []
    tell(told, [], 482.0)
    told.tend(485.0)
    assert [change.circuit for change in told.changes() if change.sku is None] == [Circuit.OPEN]


def test_a_channel_that_becomes_slower_is_believed_to_be() -> None:
    health = Health()
    tell(health, ordinary(600.0) + ordinary(300.0, median_s=6.5, start=600.0), 900.0)
    assert reading(health, 900.0).circuit is Circuit.CLOSED
    assert reading(health, 900.0).latency_s == pytest.approx(6.5 * exp(0.125), rel=0.15)


Drawn = list[tuple[str, str, float, float, Heard | None, bool]]
events_of_attempts = st.lists(
    st.tuples(
        st.sampled_from(["A", "B"]), st.sampled_from(["s1", "s2"]), st.floats(0, 60), st.floats(0.1, 40),
        st.sampled_from([Heard.GOOD, Heard.BAD, Heard.DOUBT, Heard.TAKEN, Heard.NEUTRAL, None]), st.booleans(),
    ),
    max_size=40,
)  # fmt: skip


def build(drawn: Drawn) -> list[Event]:
    events: list[Event] = []
    for number, (channel, sku, at, took, what, resolves) in enumerate(drawn):
        events += attempt(f"a{number}", at, what, took, channel=channel, sku=sku)
        if what is Heard.DOUBT and resolves:
            events.append(Answered(f"a{number}", channel, sku, at + took + 9.0, at, Heard.GOOD))
    return events


def state(health: Health, now: float = 200.0) -> list[tuple[object, ...]]:
    health.tend(now)
    return [
        (
            round(found.p, 9),
            round(found.n, 6),
            found.circuit,
            round(found.nats, 6),
            found.failures,
            found.silent,
            found.in_flight,
            round(found.latency_s, 6),
            round(found.doubt, 9),
            round(found.freeze_s, 6),
        )
        for found in (health.reading(channel, sku, now) for channel in "AB" for sku in ("s1", "s2"))
    ]


@pytest.mark.parametrize("verdict", [Heard.GOOD, Heard.BAD])
def test_a_doubt_that_is_told_after_its_end_counts_as_if_before(verdict: Heard) -> None:
    told = [Sent("a", "A", "s1", 10.0), Answered("a", "A", "s1", 40.0, 10.0, Heard.DOUBT), Answered("a", "A", "s1", 640.0, 10.0, verdict)]
    straight, late, never = Health(), Health(), Health()
    for health, order in ((straight, (0, 1, 2)), (late, (0, 2, 1, 1)), (never, (0, 2))):
        for number in order:
            health.observe(told[number])
    assert state(late, 700.0) == state(straight, 700.0) != state(never, 700.0)
    assert late.reading("A", "s1", 700.0).freeze_s == (300.0 + 600.0) / 2


@settings(max_examples=60, deadline=None)
@given(events_of_attempts, st.randoms(use_true_random=False))
def test_what_is_told_twice_late_or_in_another_order_counts_once(drawn: Drawn, random: Random) -> None:
    events = build(drawn)
    straight, messy = Health(), Health()
    for event in events:
        straight.observe(event)
    mess = [*events, *random.sample(events, len(events) // 2)]
    random.shuffle(mess)
    for event in mess:
        messy.observe(event)
    assert state(straight) == state(messy)


@settings(max_examples=40, deadline=None)
@given(events_of_attempts, events_of_attempts)
def test_a_snapshot_goes_on_as_if_nothing_had_happened(before: Drawn, after: Drawn) -> None:
    health = Health()
    tell(health, build(before), 100.0)
    loaded = Health.load(health.dump())
    assert loaded.dump() == health.dump()
    later = build([(channel, sku, at + 100.0, took, what, resolves) for channel, sku, at, took, what, resolves in after])
    later = [type(event)(**{**{name: getattr(event, name) for name in event.__slots__}, "attempt": "n" + event.attempt}) for event in later]
    for each in (health, loaded):
        each.changes()
        tell(each, later, 300.0)
    assert [health.reading(c, s, 300.0) for c in "AB" for s in ("s1", "s2")] == [loaded.reading(c, s, 300.0) for c in "AB" for s in ("s1", "s2")]
    assert health.changes() == loaded.changes()


def test_a_damaged_snapshot_is_refused() -> None:
    for bad in (b"{}", b"[1]", b"nonsense", Health().dump().replace(b'"form":1', b'"form":9')):
        with pytest.raises(ValueError):
            Health.load(bad)


def test_a_reversed_delivery_is_taken_back() -> None:
    health = Health()
    tell(health, ordinary(120.0, p=1.0), 150.0)
    before = reading(health, 150.0, "s1").p
    victims = [event for event in ordinary(120.0, p=1.0) if isinstance(event, Sent) and event.sku == "s1"][-3:]
    for victim in victims:
        health.observe(Answered(victim.attempt, "A", "s1", 151.0, victim.at, Heard.REVERSED))
        health.observe(Answered(victim.attempt, "A", "s1", 151.0, victim.at, Heard.REVERSED))
    health.tend(152.0)
    assert reading(health, 152.0, "s1").p < before - 0.02


def test_a_rebuild_from_the_last_attempts_knows_the_outage() -> None:
    events = ordinary(300.0)[-400:] + hole(300.0, 20.0)
    router = Router()
    router.rebuild(events)
    decision = router.choose(Ask("o", "s1", 1_000_000), [Option("A", 970_000), Option("B", 976_000)], 320.0, 1)
    assert decision.channel == "B"
    assert reading(router.health, 320.0).circuit is Circuit.OPEN


def test_the_router_is_deterministic() -> None:
    def play() -> list[object]:
        router, numbers, decisions = Router(), count(), []
        random = Random(5)
        for step in range(600):
            now = step / 3
            decision = router.choose(Ask(str(step), f"s{step % 5}", 1_000_000), [Option("A", 970_000), Option("B", 976_000)], now, step)
            decisions.append(decision)
            if decision.channel is not None:
                key = str(next(numbers))
                router.observe(Sent(key, decision.channel, f"s{step % 5}", now, decision.action is Action.PROBE))
                if decision.channel == "B" or now < 100:
                    router.observe(Answered(key, decision.channel, f"s{step % 5}", now, now, Heard.GOOD if random.random() < 0.9 else Heard.BAD))
        return decisions

    first = play()
    assert first == play()
    assert any(decision.action is Action.PROBE for decision in first)  # type: ignore[attr-defined]


def test_at_three_hundred_a_second_a_sample_reaches_back_far_enough_to_hear_the_silence() -> None:
    events = ordinary(20.0, rate=300.0) + hole(20.0, 9.0, rate=300.0)
    opened = first_open(Health(), events, 20.0, 29.0)
    assert opened is not None
    assert opened < 28.0  # two of these seconds an answer may lie with us


def test_weeks_of_silence_do_no_harm() -> None:
    health = Health()
    tell(health, ordinary(60.0), 90.0)
    later = 90.0 + 30 * 86_400
    for event in attempt("late", later, Heard.GOOD):
        health.observe(event)
    health.tend(later + 6.0)
    assert reading(health, later + 6.0).p > 0.9
    assert reading(health, later + 6.0).n < 2.0


def test_the_smallest_limit_grows_again() -> None:
    health = Health()
    tell(health, ordinary(60.0) + attempt("b", 100.0, Heard.BUSY, 0.1), 101.0)
    limits = [reading(health, 101.0).limit]
    for number in range(60):
        at = 101.0 + 10.0 * number
        tell(health, attempt(f"one{number}", at, Heard.GOOD, 3.0), at + 5.0)
        limits.append(reading(health, at + 5.0).limit)
    assert limits[0] is not None
    assert limits[0] < 2.0
    assert limits[-1] is not None
    assert limits[-1] > 2.0


def test_attempts_that_nobody_will_ever_answer_take_no_place_under_the_smallest_limit() -> None:
    """A worker died with two calls open, then the supplier said "too many": its limit is one, and both are waited for by a person."""
    health = Health()
    lost = attempt("lost1", 59.0, None) + attempt("lost2", 59.5, None)
    tell(health, ordinary(60.0, median_s=0.2) + lost + attempt("b", 70.0, Heard.BUSY, 0.1), 72.0)
    option = Option("A", 1, reading=reading(health, 72.0))
    assert option.reading.in_flight >= 2
    ask = Ask("o", "s", 1_000_000)
    full = [is_full(ask, option, reading(health, 72.0), DEFAULT)]
    tell(health, attempt("later", 131.0, Heard.NEUTRAL, 0.1), 140.0)
    full.append(is_full(ask, option, reading(health, 140.0), DEFAULT))
    assert full == [True, False]
    tell(health, attempt("now", 140.5, None) + attempt("now2", 140.6, None), 141.0)
    assert is_full(ask, option, reading(health, 141.0), DEFAULT), "what is under way counts as before"


def test_what_a_quick_supplier_has_not_said_for_a_moment_says_nothing() -> None:
    """Its verdicts take a tenth of a second; ours to record them may take longer than that under load."""
    health = Health()
    for n in range(300):
        health.observe(Sent(f"a{n}", "A", "x", n * 0.05))
        health.observe(Answered(f"a{n}", "A", "x", n * 0.05 + 0.1, n * 0.05, Heard.GOOD))
        health.tend(n * 0.05)
    for n in range(200):
        now = 15.0 + n * 0.05
        health.observe(Sent(f"late{n}", "A", "x", now))
        health.tend(now)
        if now < 16.9:
            assert health.reading("A", "x", now).circuit is Circuit.CLOSED
    assert health.reading("A", "x", 25.0).circuit is Circuit.OPEN
