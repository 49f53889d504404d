"""The decision: which filter speaks, what money says, when to probe and when to wait."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kameng_api.suppliers.routing.choose import choose
from kameng_api.suppliers.routing.facts import Action, Ask, Circuit, Code, Decision, Option, Reading, Reason
from kameng_api.suppliers.routing.tuning import DEFAULT

PRICE = 1_000_000
ASK = Ask(order="o", sku="sku", price=PRICE)
CHEAP = Option(channel="A", cost=970_000, reading=Reading(p=0.97, latency_s=5.0))
DEAR = Option(channel="B", cost=976_000, reading=Reading(p=0.985, latency_s=7.0))
DEAD = Reading(
    p=0.01, latency_s=300.0, circuit=Circuit.OPEN, nats=14.0, failures=4, opened_at=1000.0, probe_at=1004.0, probed_at=1000.0,
    p_healthy=0.97, latency_healthy_s=5.0, demand=3.0,
)  # fmt: skip


def decide(*options: Option, ask: Ask = ASK, now: float = 1010.0, seed: int = 1, **switches: bool) -> Decision:
    return choose(ask, options, now, seed, replace(DEFAULT, **switches))  # type: ignore[arg-type]


def code_of(option: Option, ask: Ask = ASK) -> str:
    decision = decide(option, ask=ask)
    assert len(decision.seen) == 1
    return decision.seen[0].code


FILTERS = [
    (Code.DISABLED, replace(CHEAP, enabled=False), ASK),
    (Code.MERCHANT_BLACKLIST, CHEAP, replace(ASK, banned=frozenset({"A"}))),
    (Code.MERCHANT_BLACKLIST, CHEAP, replace(ASK, allowed=frozenset({"B"}))),
    (Code.PIN, CHEAP, replace(ASK, pins=("B",), pin_hard=True)),
    (Code.REGION, replace(CHEAP, regions=frozenset({"sichuan"})), replace(ASK, region="hubei")),
    (Code.CARRIER, replace(CHEAP, carriers=frozenset({"unicom"})), replace(ASK, carrier="mobile")),
    (Code.FACE_VALUE, replace(CHEAP, face_values=(10, 20)), replace(ASK, face_value=21)),
    (Code.QUALIFICATION, CHEAP, replace(ASK, qualifications=frozenset({"invoice"}))),
    (Code.MAINTENANCE, replace(CHEAP, maintenance_in_s=-5.0), ASK),
    (Code.MAINTENANCE, replace(CHEAP, maintenance_in_s=20.0), ASK),
    (Code.QUOTE_STALE, replace(CHEAP, quote_age_s=601.0, quote_ttl_s=600.0), ASK),
    (Code.LOSS, replace(CHEAP, cost=PRICE + 1), ASK),
    (Code.STOCK, replace(CHEAP, stock=0), ASK),
    (Code.BALANCE, replace(CHEAP, wallet=970_000, wallet_floor=1), ASK),
    (Code.NO_QUERY, replace(CHEAP, queryable=False, value_limit=969_999), ASK),
    (Code.TRIED, CHEAP, replace(ASK, tried={"A": "failed"})),
    (Code.FORCED_OPEN, replace(CHEAP, forced=Circuit.OPEN), ASK),
    (Code.CIRCUIT_OPEN, replace(CHEAP, reading=replace(DEAD, probed_at=1009.9)), ASK),
    (Code.FULL, replace(CHEAP, cap=3, reading=Reading(in_flight=3)), ASK),
    (Code.FULL, replace(CHEAP, qps=2.0, sent_last_second=2), ASK),
    (Code.FULL, replace(CHEAP, reading=Reading(in_flight=4, limit=4.0)), ASK),
]


@pytest.mark.parametrize(("code", "option", "ask"), FILTERS)
def test_each_filter_has_its_code(code: Code, option: Option, ask: Ask) -> None:
    assert code_of(option, ask) == code
    assert code_of(CHEAP) == ""


def test_the_first_filter_in_the_order_of_the_note_is_the_reason() -> None:
    order = [Code.DISABLED, Code.MERCHANT_BLACKLIST, Code.REGION, Code.MAINTENANCE, Code.QUOTE_STALE, Code.LOSS, Code.STOCK, Code.TRIED]
    faults = [
        {"enabled": False}, {}, {"regions": frozenset({"x"})}, {"maintenance_in_s": 0.0}, {"quote_age_s": 9.0, "quote_ttl_s": 1.0},
        {"cost": PRICE + 1}, {"stock": 0}, {},
    ]  # fmt: skip
    for first in range(len(order)):
        option = CHEAP
        for fault in faults[first:]:
            option = replace(option, **fault)
        ask = replace(ASK, region="y", tried={"A": "failed"}, banned=frozenset({"A"}) if first <= 1 else frozenset())
        assert code_of(option, ask) == order[first]


def test_the_most_money_wins_and_every_option_is_seen() -> None:
    decision = decide(DEAR, CHEAP)
    assert (decision.action, decision.channel, decision.reason) == (Action.DISPATCH, "A", Reason.BEST_VALUE)
    assert [seen.channel for seen in decision.seen] == ["B", "A"]
    values = [seen.value for seen in decision.seen]
    assert values[0] is not None
    assert values[1] is not None
    assert values[1] > values[0]


def test_the_value_is_the_one_of_the_note() -> None:
    """p m + (1 - p)(next best - C) - lam L, on a price of 100: lam 0.01 a second, C 0.1, F 3."""
    seen = {each.channel: each.value for each in decide(CHEAP, DEAR).seen}
    straight = 0.985 * 24_000 - 0.015 * 31_000 - 100 * 7.0
    assert seen["A"] == pytest.approx(0.97 * 30_000 + 0.03 * (straight - 1_000) - 100 * 5.0)


def test_waiting_costs_money() -> None:
    assert decide(replace(CHEAP, reading=replace(CHEAP.reading, latency_s=100.0)), DEAR).channel == "B"


def test_doubt_costs_money() -> None:
    assert decide(replace(CHEAP, reading=replace(CHEAP.reading, doubt=0.3, freeze_s=300.0)), DEAR).channel == "B"


def test_a_quick_failure_is_worth_the_next_channel_only_with_look_ahead() -> None:
    shaky = replace(CHEAP, cost=955_000, reading=Reading(p=0.5, latency_s=0.3))
    assert decide(shaky, DEAR).channel == "A"
    assert decide(shaky, DEAR, look_ahead=False).channel == "B"


def test_a_bonus_and_the_operators_weight_count() -> None:
    assert decide(CHEAP, replace(DEAR, bonus=8_000)).channel == "B"
    assert decide(CHEAP, replace(DEAR, weight=1.5)).channel == "B"
    assert decide(replace(CHEAP, weight=0.5), DEAR).channel == "B"


def test_a_soft_pin_goes_first_but_not_into_an_open_circuit() -> None:
    ask = replace(ASK, pins=("B",))
    assert (decide(CHEAP, DEAR, ask=ask).channel, decide(CHEAP, DEAR, ask=ask).reason) == ("B", Reason.PIN)
    assert decide(CHEAP, replace(DEAR, reading=replace(DEAD, probed_at=1009.0)), ask=ask).channel == "A"


def test_a_hard_pin_goes_even_into_an_open_circuit() -> None:
    ask = replace(ASK, pins=("B",), pin_hard=True)
    decision = decide(CHEAP, replace(DEAR, reading=replace(DEAD, probed_at=1009.0)), ask=ask)
    assert (decision.action, decision.channel) == (Action.DISPATCH, "B")


def test_a_person_overrules_the_circuit() -> None:
    closed = replace(CHEAP, forced=Circuit.CLOSED, reading=replace(CHEAP.reading, circuit=Circuit.OPEN))
    assert decide(closed, DEAR).channel == "A"


def test_an_open_circuit_that_is_still_worth_trying_is_tried() -> None:
    """It fails half of the time, but at once: worth more than going straight to a channel that earns little."""
    half = Reading(p=0.5, latency_s=0.5, circuit=Circuit.OPEN, opened_at=900.0, probed_at=1009.0, demand=3.0)
    poor = replace(DEAR, cost=995_000)
    decision = decide(replace(CHEAP, reading=half), poor)
    assert (decision.action, decision.channel) == (Action.DISPATCH, "A")
    assert decide(replace(CHEAP, reading=replace(half, latency_s=300.0)), poor).channel == "B"


def test_a_probe_is_due_when_it_is_worth_its_price() -> None:
    gaps = {}
    for latency_s in (0.3, 300.0):
        reading = replace(DEAD, latency_s=latency_s)
        decision = decide(replace(CHEAP, reading=reading), DEAR, now=1200.0)
        assert (decision.action, decision.channel, decision.reason) == (Action.PROBE, "A", Reason.PROBE)
        assert decision.until_s is not None
        gaps[latency_s] = decision.until_s
    assert gaps[0.3] == DEFAULT.probe_min_s
    assert 15 < gaps[300.0] < 60


def test_no_probe_before_it_is_due_and_the_explanation_says_when() -> None:
    reading = replace(DEAD, probed_at=1008.0)
    decision = decide(replace(CHEAP, reading=reading), DEAR)
    assert (decision.action, decision.channel) == (Action.DISPATCH, "B")
    assert decision.seen[0].until is not None
    assert decision.seen[0].until > 1010.0
    later = decide(replace(CHEAP, reading=reading), DEAR, now=decision.seen[0].until)
    assert later.action is Action.PROBE


def test_premium_orders_and_orders_near_their_end_are_no_probes() -> None:
    dead = replace(CHEAP, reading=DEAD)
    assert decide(dead, DEAR, now=1200.0, ask=replace(ASK, premium=True)).action is Action.DISPATCH
    assert decide(dead, DEAR, now=1200.0, ask=replace(ASK, left_s=200.0)).action is Action.DISPATCH


def test_a_channel_that_nobody_needs_is_hardly_probed() -> None:
    dead = replace(DEAR, cost=999_000, reading=DEAD)
    assert decide(CHEAP, dead, now=1200.0).action is Action.DISPATCH
    assert decide(CHEAP, dead, now=1301.0).action is Action.PROBE


def test_after_a_success_the_next_probe_does_not_wait() -> None:
    won = replace(DEAD, probed_at=1008.5, probe_at=1009.5, wins=1)
    assert decide(replace(CHEAP, reading=won), DEAR).action is Action.PROBE


def test_with_everything_open_orders_wait_and_probe() -> None:
    dead = [replace(option, reading=replace(DEAD, probed_at=1009.0)) for option in (CHEAP, DEAR)]
    decision = decide(*dead)
    assert (decision.action, decision.reason) == (Action.HOLD, Reason.HELD)
    assert decision.until_s is not None
    assert 4.0 <= decision.until_s <= 6.0
    assert decide(*dead, now=1100.0).action is Action.PROBE


def test_a_guessed_limit_yields_to_age_and_a_proven_one_does_not() -> None:
    old = replace(ASK, age_s=31.0)
    assert decide(replace(CHEAP, reading=Reading(in_flight=4, limit=4.0)), ask=old).action is Action.DISPATCH
    assert decide(replace(CHEAP, reading=Reading(in_flight=4, limit=4.0, inferred=False)), ask=old).action is Action.HOLD


def test_nothing_to_wait_for_means_giving_up() -> None:
    assert decide().action is Action.GIVE_UP
    tried = replace(ASK, tried={"A": "failed"})
    assert decide(CHEAP, ask=tried).action is Action.GIVE_UP
    assert decide(replace(CHEAP, stock=0), ask=tried).action is Action.GIVE_UP
    assert decide(replace(CHEAP, stock=0)).action is Action.GIVE_UP
    assert decide(replace(CHEAP, wallet=0)).action is Action.HOLD
    assert decide(CHEAP, ask=replace(ASK, left_s=0.0)).reason == Reason.DEADLINE


def test_a_hold_never_outlives_the_deadline() -> None:
    decision = decide(replace(CHEAP, wallet=0), ask=replace(ASK, left_s=0.7))
    assert decision.until_s == pytest.approx(0.7)


channels = st.sampled_from("ABCDEFGH")
readings = st.builds(
    Reading,
    p=st.floats(0.0, 1.0), latency_s=st.floats(0.1, 900.0), late_s=st.floats(0.1, 900.0), doubt=st.floats(0.0, 1.0),
    circuit=st.sampled_from(Circuit), opened_at=st.just(900.0), probed_at=st.floats(900.0, 1010.0), probe_at=st.none() | st.floats(900.0, 1020.0),
    in_flight=st.integers(0, 20), limit=st.none() | st.floats(1.0, 20.0), inferred=st.booleans(), demand=st.floats(0.0, 10.0), wins=st.integers(0, 2),
)  # fmt: skip
options = st.builds(
    Option,
    channel=channels, cost=st.integers(900_000, 1_100_000), enabled=st.booleans(), stock=st.none() | st.integers(0, 3),
    wallet=st.none() | st.integers(0, 2_000_000), forced=st.none() | st.sampled_from(Circuit), weight=st.floats(0.1, 3.0),
    bonus=st.integers(0, 10_000), cap=st.none() | st.integers(1, 20), maintenance_in_s=st.none() | st.floats(-10.0, 900.0), reading=readings,
)  # fmt: skip
asks = st.builds(
    Ask,
    order=st.just("o"), sku=st.just("sku"), price=st.just(PRICE), units=st.integers(1, 2), age_s=st.floats(0, 900), left_s=st.floats(-1, 900),
    tried=st.dictionaries(channels, st.just("failed"), max_size=4), premium=st.booleans(), allow_loss=st.booleans(),
    banned=st.frozensets(channels, max_size=2), pins=st.lists(channels, max_size=2).map(tuple), pin_hard=st.booleans(),
)  # fmt: skip


@given(asks, st.lists(options, max_size=8, unique_by=lambda option: option.channel), st.integers(0, 2**63))
def test_no_decision_breaks_a_promise(ask: Ask, offered: list[Option], seed: int) -> None:
    decision = choose(ask, offered, 1010.0, seed)
    assert decision == choose(ask, offered, 1010.0, seed)
    assert [seen.channel for seen in decision.seen] == [option.channel for option in offered]
    if decision.action in (Action.HOLD, Action.GIVE_UP):
        assert decision.channel is None
        return
    chosen = next(option for option in offered if option.channel == decision.channel)
    assert chosen.channel not in ask.tried
    assert chosen.channel not in ask.banned
    assert chosen.cost <= ask.price or ask.allow_loss
    assert chosen.enabled
    assert chosen.forced is not Circuit.OPEN
    assert chosen.stock is None or chosen.stock >= ask.units
    assert chosen.cap is None or chosen.reading.in_flight < chosen.cap
    assert not (ask.pin_hard and chosen.channel not in ask.pins)
    assert not (decision.action is Action.PROBE and ask.premium)


@given(asks, st.lists(options, max_size=6, unique_by=lambda option: option.channel), st.randoms())
def test_the_order_of_the_options_does_not_matter(ask: Ask, offered: list[Option], random: object) -> None:
    values = [seen.value for seen in choose(ask, offered, 1010.0, 1).seen if seen.value is not None]
    if len(set(values)) < len(values):
        return
    shuffled = list(offered)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    before, after = choose(ask, offered, 1010.0, 1), choose(ask, shuffled, 1010.0, 1)
    assert (before.action, before.until_s) == (after.action, after.until_s) or before.action is Action.PROBE
    assert before.action is Action.PROBE or before.channel == after.channel
