"""Another tuning, held against what was recorded: matched where it would have done the same, estimated where not, and never flattered."""

import ast
import inspect
import random
from dataclasses import replace
from uuid import UUID

import pytest

from kameng_api.suppliers.routing import choose as choosing
from kameng_api.suppliers.routing.backtest import Ended, Judged, Step, Tried, compare, judge
from kameng_api.suppliers.routing.choose import choose
from kameng_api.suppliers.routing.facts import Action, Answered, Ask, Circuit, Event, Heard, Option, Reading, Sent
from kameng_api.suppliers.routing.record import Shadow, recall, remember
from kameng_api.suppliers.routing.shadow import DECIDING, differences, needs_own_health, read_tuning, shadow, tuning_with
from kameng_api.suppliers.routing.tuning import DEFAULT

PRICE = 1_000_000
WELL = Reading(p=1.0, latency_s=2.0, p_healthy=1.0, latency_healthy_s=2.0)


def uid(n: int) -> UUID:
    return UUID(int=n)


def ended(n: int, *tried: Tried, at: float, inputs: int | None = None, undelivered: float = 0.0, took_s: float = 0.0) -> Ended:
    return Ended(at, at + took_s, "CNY", undelivered, tried, (Step(uid(n if inputs is None else inputs), at),))


def judged(recorded: str, candidate: str | None, worth: dict[str, float | None]) -> Judged:
    """Prices of 100, 3 for an undelivered order, 0.1 a failed attempt, 0.01 a second."""
    def of(channel: str) -> tuple[str, str | None]:
        return ("hold", None) if channel == "hold" else ("dispatch", channel)

    return Judged(
        PRICE, 30_000.0, 1_000.0, 100.0, of(recorded), of(recorded), None if candidate is None else of(candidate),
        {of(channel): value for channel, value in worth.items()},
    )  # fmt: skip


def test_agreement_counts_what_came_and_disagreement_what_the_model_says() -> None:
    orders = [
        ended(1, Tried(0.0, False, PRICE, 970_000), at=0.0),  # earned 3, and the candidate would have done the same
        ended(2, Tried(600.0, False, PRICE, 970_000), at=600.0),  # earned 3; the candidate would have gone to b, worth 2
    ]
    found = {uid(1): judged("a", "a", {"a": 29_000.0}), uid(2): judged("a", "b", {"a": 29_000.0, "b": 20_000.0})}
    [result] = compare(orders, found)
    assert result.recorded.mean == pytest.approx(3000)
    assert result.current.mean == pytest.approx(3000)
    assert result.candidate.mean == pytest.approx((3 + 2) / 2 * 1000)
    assert result.difference.mean == pytest.approx(-500)
    assert (result.current_matched, result.candidate_matched) == (1.0, 0.5)
    assert result.model_error.mean == pytest.approx(100)
    assert result.changes == (("dispatch a -> dispatch b", 1),)


def test_what_was_lost_before_the_first_difference_stays_lost() -> None:
    """Refused by a after 10 s and delivered by b; the candidate would have gone to c second."""
    order = Ended(0.0, 20.0, "CNY", 0.0, (Tried(0.0, True), Tried(10.0, False, PRICE, 980_000)), (Step(uid(1), 0.0), Step(uid(2), 10.0)))
    found = {uid(1): judged("a", "a", {"a": 0.0}), uid(2): judged("b", "c", {"b": 0.0, "c": 50_000.0})}
    [result] = compare([order], found)
    assert result.recorded.mean == pytest.approx((2.0 - 0.1 - 0.2) * 1000)
    assert result.candidate.mean == pytest.approx((5.0 - 0.1 - 0.1) * 1000)


def test_an_undelivered_order_costs_what_its_share_costs() -> None:
    order = ended(1, Tried(0.0, False, 500_000, 485_000), at=0.0, undelivered=0.5)
    [result] = compare([order], {uid(1): judged("a", "a", {"a": 0.0})})
    assert result.recorded.mean == pytest.approx((1.5 - 1.5) * 1000, abs=1e-6)


def test_a_hold_is_worth_what_held_orders_came_to() -> None:
    held = [ended(n, Tried(n * 400.0, False, PRICE, 990_000), at=n * 400.0) for n in range(20)]
    other = ended(99, Tried(90_000.0, False, PRICE, 970_000), at=90_000.0)
    found = {uid(n): judged("hold", "hold", {"hold": None}) for n in range(20)} | {uid(99): judged("a", "hold", {"a": 0.0, "hold": None})}
    [result] = compare([*held, other], found)
    assert result.holds == 20
    assert result.candidate.mean == pytest.approx(1000)
    [few] = compare([*held[:5], other], found)
    assert few.holds == 5
    assert few.candidate.mean == pytest.approx((5 * 1 - 3) / 6 * 1000), "as an undelivered order"


def test_orders_of_one_moment_are_one_observation() -> None:
    """A thousand orders of one outage say little; a thousand spread over days say much."""
    rng = random.Random(7)
    together, apart = [], []
    for n in range(1000):
        tried = Tried(0.0, False, PRICE, PRICE - rng.choice((10_000, 30_000)))
        moment = n % 2 * 3000 + n * 0.1  # two outages, of a minute each
        together.append(ended(n, replace(tried, sent_at=moment), at=moment))
        apart.append(ended(n, replace(tried, sent_at=n * 400.0), at=n * 400.0))
    found = {uid(n): judged("a", "a", {"a": 0.0}) for n in range(1000)}
    [one], [many] = compare(together, found), compare(apart, found)
    assert one.recorded.high - one.recorded.low != pytest.approx(many.recorded.high - many.recorded.low, rel=0.05)
    assert many.recorded.mean == pytest.approx(one.recorded.mean)
    assert many.recorded.high - many.recorded.mean == pytest.approx(1.96 * 1000 / 1000**0.5, rel=0.02)
    [alone] = compare(together[:1], found)
    assert (alone.recorded.low, alone.recorded.high) == (float("-inf"), float("inf"))


def test_the_interval_of_two_observations() -> None:
    orders = [ended(n, Tried(n * 400.0, False, 10_000 + n * 20_000, 0), at=n * 400.0) for n in range(2)]
    [result] = compare(orders, {uid(n): judged("a", "a", {"a": 0.0}) for n in range(2)})
    assert (result.recorded.mean, result.recorded.low, result.recorded.high) == pytest.approx((2000, 2000 - 1960, 2000 + 1960))


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = random.Random(11)
    covered = 0
    for _ in range(200):
        orders = []
        for n in range(150):
            luck = 1.0 if rng.random() < 0.3 else 0.0  # of a whole block
            orders += [ended(n, Tried(n * 400.0, False, 10_000, 0) if luck else Tried(n * 400.0, False), at=n * 400.0) for _ in range(2)]
        [result] = compare(orders, {uid(n): judged("a", "a", {"a": 0.0}) for n in range(150)})
        covered += result.recorded.low <= 300.0 <= result.recorded.high
    assert 180 <= covered <= 199


def test_currencies_are_not_added_up_and_orders_without_a_shadow_are_left_out() -> None:
    orders = [ended(1, at=0.0), replace(ended(1, at=0.0), currency="USD"), ended(2, at=0.0), ended(3, at=0.0)]
    found = {uid(1): judged("a", "a", {"a": 0.0}), uid(2): judged("a", None, {"a": 0.0})}
    results = compare(orders, found)
    assert [(one.currency, one.orders, one.unshadowed) for one in results] == [("CNY", 1, 1), ("USD", 1, 0)]


# ---- decisions made again --------------------------------------------------------------------------------------------


def row(n: int, options: list[Option], at: float = 100.0, other: Shadow | None = None) -> tuple[UUID, bytes]:
    ask = Ask("o", "s", PRICE)
    return uid(n), remember(ask, options, at, 1, DEFAULT, choose(ask, options, at, 1), None, other)


FULL = Option("a", 900_000, cap=1, reading=replace(WELL, in_flight=1))


def test_the_current_tuning_does_what_was_recorded_and_a_candidate_what_it_would() -> None:
    rows = [row(1, [Option("a", 970_000, reading=WELL)]), row(2, [FULL])]
    found = judge(rows, tuning_with({"hold": False}))
    assert found[uid(1)].recorded == found[uid(1)].current == found[uid(1)].candidate == (Action.DISPATCH, "a")
    assert found[uid(2)].current == found[uid(2)].recorded == (Action.HOLD, None)
    assert found[uid(2)].candidate == (Action.DISPATCH, "a")
    assert found[uid(2)].worth[Action.HOLD, None] is None
    worth = found[uid(1)].worth[Action.DISPATCH, "a"]
    assert worth == pytest.approx(30_000 - 2 * 100), "margin less two seconds"


def test_a_probe_is_a_dispatch() -> None:
    """The supplier cannot tell them apart, and neither can the outcome."""
    ill = Reading(p=0.05, latency_s=2.0, circuit=Circuit.OPEN, nats=9.0, probed_at=0.0, probe_at=0.0, p_healthy=0.99, demand=1.0)
    options = [Option("a", 960_000, reading=ill), Option("b", 970_000, reading=WELL)]
    assert choose(Ask("o", "s", PRICE), options, 100.0, 1).action is Action.PROBE
    assert judge([row(1, options)], DEFAULT)[uid(1)].recorded == (Action.DISPATCH, "a")


def test_what_the_model_makes_of_a_choice() -> None:
    """100 a unit; an undelivered order costs 3, a failed attempt 0.1, a second 0.01."""
    unsure = Reading(p=0.6, latency_s=10.0, doubt=0.1, freeze_s=300.0)
    first, second = Option("a", 940_000, reading=unsure), Option("b", 970_000, reading=replace(WELL, p=0.5))
    shut = Option("c", 800_000, reading=replace(WELL, circuit=Circuit.OPEN))
    dearer = Option("d", 1_100_000, reading=WELL)
    seconds = 0.01 * (10 + 0.1 * 300)
    behind = 0.5 * 3 - 0.5 * 3.1 - 0.02
    expected = {(first, second, shut, dearer): 0.6 * 6 + 0.4 * (behind - 0.1) - seconds, (first, shut): 0.6 * 6 + 0.4 * (-3 - 0.1) - seconds}
    for options, worth in expected.items():
        ask = Ask("o", "s", PRICE, pins=("a",))
        decision = choose(ask, options, 100.0, 1)
        assert decision.channel == "a"
        found = judge([(uid(1), remember(ask, options, 100.0, 1, DEFAULT, decision))], DEFAULT)
        assert found[uid(1)].worth[Action.DISPATCH, "a"] == pytest.approx(worth * 10_000)


def test_a_recorded_shadow_is_taken_at_its_word() -> None:
    ask, options = Ask("o", "s", PRICE), [Option("a", 970_000, reading=WELL), Option("b", 980_000, reading=WELL)]
    other = Shadow(tuning_with({"hold_s": 1.0}), choose(replace(ask, tried={"a": "x"}), options, 100.0, 1))
    found = judge([row(1, options, other=other), row(2, options, other=Shadow(other.tuning)), row(3, options)], None)
    assert [found[uid(n)].candidate for n in (1, 2, 3)] == [(Action.DISPATCH, "b"), (Action.DISPATCH, "a"), None]


def test_a_candidate_that_reads_otherwise_hears_only_what_had_been_heard() -> None:
    """Forty failures on a, then a choice, then forty deliveries: neither tuning may look into the future."""
    events: list[Event] = []
    for n in range(80):
        at = 1000.0 + n
        events += [Sent(f"t{n}", "a", "s", at), Answered(f"t{n}", "a", "s", at + 0.5, at, Heard.BAD if n < 40 else Heard.GOOD)]
    options = [Option("a", 970_000, reading=WELL), Option("b", 975_000, reading=WELL)]
    candidate = tuning_with({"h_min": 1.0})
    assert needs_own_health(candidate)
    found = judge([row(1, options, 999.0), row(2, options, 1040.0)], candidate, events=events)
    assert found[uid(1)].candidate == (Action.DISPATCH, "a")
    assert found[uid(2)].candidate == (Action.DISPATCH, "b")
    assert found[uid(2)].recorded == (Action.DISPATCH, "a"), "the recorded reading was another"


# ---- candidates ------------------------------------------------------------------------------------------------------


def test_the_fields_that_choose_looks_at_are_known() -> None:
    """A candidate that changes another one needs readings of its own, and must not be judged on the recorded ones."""
    tree = ast.parse(inspect.getsource(choosing))
    of_something = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    looked_at = {node.attr for node in of_something if getattr(node.value, "id", getattr(node.value, "attr", None)) == "tuning"}
    assert len(looked_at) > 5
    assert looked_at <= DECIDING
    assert DECIDING - looked_at == {"version"}


def test_a_tuning_is_said_by_its_differences() -> None:
    tuning = read_tuning(['{"h_min": 4, "hold": false}', "probe_share=0.1"])
    assert differences(tuning) == {"h_min": 4.0, "hold": False, "probe_share": 0.1}
    assert isinstance(tuning.h_min, float)
    assert tuning.version == f"{DEFAULT.version}+"
    assert read_tuning([]) == DEFAULT
    assert tuning_with({"hold": DEFAULT.hold}).version == DEFAULT.version
    assert read_tuning(["version=7", "hold_s=2"]).version == "7"


@pytest.mark.parametrize(
    "text", ["speed=1", "hold=1", "hold", "h_min=fast", "h_min=true", '{"h_min": "4"}', "{", "window=3.5", "window=true", "version"]
)
def test_a_tuning_that_cannot_be_meant_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        read_tuning([text])


def test_a_shadow_that_would_do_the_same_is_none_and_is_kept_as_that() -> None:
    ask, options = Ask("o", "s", PRICE), [FULL]
    decision = choose(ask, options, 100.0, 1)
    assert shadow(ask, options, 100.0, 1, DEFAULT, decision) is None
    assert shadow(ask, options, 100.0, 1, tuning_with({"hold_s": 1.0}), decision) is None
    candidate = tuning_with({"hold": False})
    other = shadow(ask, options, 100.0, 1, candidate, decision)
    assert other is not None
    assert (decision.action, other.action, other.channel) == (Action.HOLD, Action.DISPATCH, "a")
    for kept in (Shadow(candidate, other), Shadow(candidate)):
        assert recall(remember(ask, options, 100.0, 1, DEFAULT, decision, None, kept)).shadow == kept
