"""A decision survives its row to the last bit, is made again from it, and can be told."""

import re
import struct
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kameng_api.suppliers.routing import record
from kameng_api.suppliers.routing.choose import choose
from kameng_api.suppliers.routing.facts import Action, Ask, Circuit, Code, Decision, Option, Reading, Reason, Seen, Weights
from kameng_api.suppliers.routing.record import is_same, recall, remember, replay
from kameng_api.suppliers.routing.telling import tell
from kameng_api.suppliers.routing.tuning import DEFAULT, Tuning

NOON = 1_795_528_800.0
"""2026-11-24 14:00:00 UTC."""

FLOATS = st.floats(allow_nan=False, allow_infinity=True, allow_subnormal=True)
AMOUNTS = st.integers(0, 10**12)
NAMES = st.sampled_from(["A", "B", "C", "a\u6e20\u9053", 'q"uote', "float", "map", "inf", ""])
SETS = st.frozensets(st.sampled_from(["gd", "bj", "cmcc", "invoice"]), max_size=3)


def or_none(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


READINGS = st.builds(
    Reading,
    p=st.floats(0, 1), n=FLOATS, latency_s=FLOATS, late_s=FLOATS, doubt=st.floats(0, 1), freeze_s=FLOATS,
    circuit=st.sampled_from(Circuit), of_sku=st.booleans(), nats=FLOATS, failures=st.integers(0, 99), silent=st.integers(0, 99),
    opened_at=or_none(FLOATS), probe_at=or_none(FLOATS), in_flight=st.integers(0, 50), limit=or_none(FLOATS), inferred=st.booleans(),
    p_healthy=st.floats(0, 1), latency_healthy_s=FLOATS, probed_at=or_none(FLOATS), probes=st.integers(0, 9), probing=st.integers(0, 9),
    wins=st.integers(0, 2), demand=FLOATS,
)  # fmt: skip
OPTIONS = st.builds(
    Option,
    channel=NAMES, cost=AMOUNTS, product_code=NAMES, enabled=st.booleans(), stock=or_none(st.integers(-5, 10)), wallet=or_none(AMOUNTS),
    wallet_floor=AMOUNTS, quote_age_s=or_none(FLOATS), quote_ttl_s=or_none(FLOATS), maintenance_in_s=or_none(FLOATS),
    queryable=st.booleans(), value_limit=or_none(AMOUNTS), regions=or_none(SETS), carriers=or_none(SETS),
    face_values=or_none(st.tuples(AMOUNTS, AMOUNTS)), qualifications=SETS, forced=or_none(st.sampled_from(Circuit)), weight=FLOATS,
    bonus=AMOUNTS, cap=or_none(st.integers(0, 50)), sent_last_second=st.integers(0, 9), qps=or_none(FLOATS), reading=READINGS,
)  # fmt: skip
ASKS = st.builds(
    Ask,
    order=NAMES, sku=NAMES, price=AMOUNTS, units=st.integers(1, 9), age_s=FLOATS, left_s=FLOATS, attempts=st.integers(0, 9),
    tried=st.dictionaries(NAMES, NAMES, max_size=2), weights=st.builds(Weights, AMOUNTS, AMOUNTS, AMOUNTS), premium=st.booleans(),
    allow_loss=st.booleans(), allowed=or_none(st.frozensets(NAMES, max_size=3)), banned=st.frozensets(NAMES, max_size=2),
    pins=st.lists(NAMES, max_size=2).map(tuple), pin_hard=st.booleans(), region=or_none(st.sampled_from(["gd", "sh"])),
    carrier=or_none(st.sampled_from(["cmcc", "cucc"])), face_value=or_none(AMOUNTS), qualifications=SETS,
)  # fmt: skip
TUNINGS = st.sampled_from([DEFAULT, replace(DEFAULT, hold=False), replace(DEFAULT, probe_max_s=float("inf"), version="2", probes_out=0)])
USUAL_FLOATS = st.floats(0, 1e6, allow_subnormal=False)


def bits(value: Any) -> Any:
    """What tells -0.0 from 0.0, 1 from 1.0 and one NaN from another number."""
    if isinstance(value, float):
        return struct.pack("<d", value)
    if hasattr(type(value), "__dataclass_fields__"):
        return (type(value).__name__, *(bits(getattr(value, field.name)) for field in fields(value)))
    if isinstance(value, list | tuple):
        return tuple(bits(each) for each in value)
    return str(value) if isinstance(value, str) else (type(value).__name__, value)


def decide(ask: Ask, options: Sequence[Option], now: float, seed: int, tuning: Tuning) -> Decision | None:
    try:
        return choose(ask, options, now, seed, tuning)
    except (OverflowError, ZeroDivisionError):  # of numbers that no clock and no invoice shows
        return None


@given(ASKS, st.lists(OPTIONS, max_size=4), FLOATS, st.integers(0, 2**63 - 1), TUNINGS)
def test_whatever_was_seen_is_seen_again(ask: Ask, options: list[Option], now: float, seed: int, tuning: Tuning) -> None:
    decision = decide(ask, options, now, seed, tuning)
    if decision is None:
        return
    row = remember(ask, options, now, seed, tuning, decision)
    found = recall(row)
    assert bits(found.ask) == bits(ask)
    assert bits(found.options) == bits(tuple(options))
    assert bits([found.now, found.seed, found.tuning]) == bits([now, seed, tuning])
    assert bits(found.decision) == bits(decision)
    again = replay(row)
    assert bits(again) == bits(decision)
    assert is_same(again, found.decision)
    assert tell(found)


@given(ASKS, st.lists(OPTIONS, min_size=1, max_size=4), READINGS, TUNINGS)
def test_readings_kept_apart_are_written_in_place_of_the_options_own(ask: Ask, options: list[Option], reading: Reading, tuning: Tuning) -> None:
    apart = [reading] * len(options)
    try:
        decision = choose(ask, options, NOON, 1, tuning, apart)
    except (OverflowError, ZeroDivisionError):
        return
    row = remember(ask, options, NOON, 1, tuning, decision, apart)
    assert bits([option.reading for option in recall(row).options]) == bits(apart)
    assert is_same(replay(row), decision)


@given(st.lists(st.floats(), min_size=4, max_size=4))
def test_numbers_that_json_has_no_word_for_survive(numbers: list[float]) -> None:
    p, opened_at, value, until_s = numbers
    option = Option("A", 1, reading=Reading(p=p, opened_at=opened_at))
    decision = Decision(Action.HOLD, Reason.HELD, None, until_s, (Seen("A", "", value),))
    found = recall(remember(Ask("o", "s", 1, tried={"float": "inf"}), [option], 0.0, 1, DEFAULT, decision))
    # Which of the many NaNs it was, nothing here asks.
    assert repr(found.decision) == repr(decision)
    assert repr(found.options) == repr((option,))
    assert found.ask.tried == {"float": "inf"}


def test_every_field_of_every_fact_has_its_place() -> None:
    """A field that is added without a place would be forgotten, and the decision not made again."""
    places = {
        Reading: record.READING,
        Option: (*record.OPTION, "reading"),
        Ask: (*record.ASK, "weights"),
        Weights: record.WEIGHTS,
    }
    for kind, names in places.items():
        assert {field.name for field in fields(kind)} <= set(names), kind
        assert len(names) == len(set(names)), kind


def test_the_places_of_what_is_already_stored_have_not_moved() -> None:
    """Rows are kept for weeks: append only. Every value here is another one, so that no two can change places."""
    row = (
        b'[1,1795528800.5,7,["1",true,true,true,true,true,true,true,256,64,0.1,5.0,13.0,0.95,8.0,400.0,300.0,900.0,6.0,15.0,20,60.0,5.0,'
        b'0.08,4.0,300.0,1.0,6,15.0,4.0,1.5,64.0,5.0,30.0,10.0],["ord","sku",1000000,2,3.5,900.5,4,{"B":"refused"},true,false,["A","C"],["D"],'
        b'["A"],false,"gd","cmcc",500000,["invoice"],[30001,1002,103]],[["A",970000,"code",true,11,2000000,13,14.5,15.5,16.5,true,17,["gd"],'
        b'["cmcc"],[18,19],["invoice","x"],"closed",1.25,20,21,22,23.5]],[[0.9,5.1,2.2,9.3,0.04,300.5,0.6,0.97,2.8,0.09,10.1,11.2,12.3,13.4,'
        b'"open",false,14,15,16,true,17,18,19]],["dispatch","ONLY_ELIGIBLE","A",1.5,[["A","",23699.999999999996,7.5]]]]'
    )
    found = recall(row)
    assert (found.now, found.seed, found.tuning.version, found.tuning.probe_share, found.tuning.busy_s) == (NOON + 0.5, 7, "1", 0.08, 10.0)
    assert found.ask == Ask(
        "ord", "sku", 1_000_000, 2, 3.5, 900.5, 4, {"B": "refused"}, Weights(30_001, 1_002, 103), premium=True, allowed=frozenset("AC"),
        banned=frozenset("D"), pins=("A",), region="gd", carrier="cmcc", face_value=500_000, qualifications=frozenset({"invoice"}),
    )  # fmt: skip
    reading = Reading(
        p=0.9, n=5.1, latency_s=2.2, late_s=9.3, doubt=0.04, freeze_s=300.5, circuit=Circuit.OPEN, nats=0.6, failures=14, silent=15,
        opened_at=10.1, probe_at=11.2, in_flight=16, limit=12.3, p_healthy=0.97, latency_healthy_s=2.8, probed_at=13.4, probes=17, probing=18,
        wins=19, demand=0.09,
    )  # fmt: skip
    option = Option(
        "A", 970_000, "code", stock=11, wallet=2_000_000, wallet_floor=13, quote_age_s=14.5, quote_ttl_s=15.5, maintenance_in_s=16.5, value_limit=17,
        regions=frozenset({"gd"}), carriers=frozenset({"cmcc"}), face_values=(18, 19), qualifications=frozenset({"invoice", "x"}),
        forced=Circuit.CLOSED, weight=1.25, bonus=20, cap=21, sent_last_second=22, qps=23.5, reading=reading,
    )  # fmt: skip
    assert found.options == (option,)
    assert found.decision == Decision(Action.DISPATCH, Reason.ONLY_ELIGIBLE, "A", 1.5, (Seen("A", "", 23699.999999999996, 7.5),))


def _float_fields(kind: type) -> list[str]:
    return [field.name for field in fields(kind) if "float" in str(field.type)]


@pytest.mark.parametrize("endless", [float("inf"), float("-inf"), float("nan")])
def test_a_single_number_without_an_end_survives_wherever_it_stands(endless: float) -> None:
    """One at a time: each place must be looked at by itself."""
    ask, option, decision = Ask("o", "s", 1), Option("A", 1), Decision(Action.HOLD, Reason.HELD, None, 1.0, (Seen("A", "", 1.0, 1.0),))
    rows = [(replace(ask, **{name: endless}), option, 1.0, decision) for name in _float_fields(Ask)]
    rows += [(ask, replace(option, **{name: endless}), 1.0, decision) for name in _float_fields(Option)]
    rows += [(ask, replace(option, reading=Reading(**{name: endless})), 1.0, decision) for name in _float_fields(Reading)]
    rows += [(ask, option, 1.0, replace(decision, seen=(replace(decision.seen[0], **{name: endless}),))) for name in _float_fields(Seen)]
    rows += [(ask, option, endless, decision), (ask, option, 1.0, replace(decision, until_s=endless))]
    assert len(rows) >= 25
    for given_ask, given_option, now, given_decision in rows:
        found = recall(remember(given_ask, [given_option], now, 1, DEFAULT, given_decision))
        assert repr((found.ask, found.options, found.now, found.decision)) == repr((given_ask, (given_option,), now, given_decision))


def test_a_field_of_a_tuning_that_has_no_place_is_kept_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "TUNING", tuple(name for name in record.TUNING if name not in ("hold_s", "hold")))
    tuning = replace(DEFAULT, hold_s=7.25, hold=False, version="of a test")
    decision = choose(Ask("o", "s", 1), [], 0.0, 1, tuning)
    row = remember(Ask("o", "s", 1), [], 0.0, 1, tuning, decision)
    assert b'"hold_s",7.25' in row
    assert recall(row).tuning == tuning


def test_the_same_means_the_last_bit() -> None:
    zero = Decision(Action.HOLD, Reason.HELD, None, 0.0)
    assert is_same(zero, replace(zero))
    assert not is_same(zero, replace(zero, until_s=-0.0))
    assert not is_same(zero, replace(zero, until_s=5e-324))
    assert not is_same(zero, replace(zero, until_s=None))
    assert is_same(replace(zero, until_s=float("nan")), replace(zero, until_s=float("nan")))


def test_a_row_of_a_later_build_is_refused() -> None:
    row = orjson.loads(remember(Ask("o", "s", 1), [Option("A", 1)], 0.0, 1, DEFAULT, Decision(Action.HOLD, Reason.HELD)))
    row[6][0].append(0.5)
    with pytest.raises(ValueError, match="later build"):
        recall(orjson.dumps(row))


def test_a_row_that_lacks_the_latest_fields_takes_their_defaults() -> None:
    option = Option("A", 970_000)
    row = orjson.loads(remember(Ask("o", "s", 10**6), [option], NOON, 1, DEFAULT, choose(Ask("o", "s", 10**6), [option], NOON, 1)))
    row[5][0].pop()  # qps
    row[6][0].pop()  # wins
    del row[3][34:]  # busy_s, and what has no place
    found = recall(orjson.dumps(row))
    assert found.options == (option,)
    assert found.tuning == DEFAULT


@pytest.mark.parametrize("row", [b"[]", b"{}", b'[2,"later"]', b"[1]", b"[1,0,0,[],[],[],[],[]]", b"not json", b"7"])
def test_what_cannot_be_read_is_a_value_error(row: bytes) -> None:
    with pytest.raises(ValueError):
        recall(row)


# ---- told ------------------------------------------------------------------------------------------------------------

ORDER = Ask("ord_1", "CN-MOBILE-100", 1_000_000)
WELL = Reading(p=1.0, n=100.0, latency_s=2.0, latency_healthy_s=2.0, p_healthy=1.0)
ILL = Reading(
    p=0.1, latency_s=20.0, circuit=Circuit.OPEN, nats=11.8, failures=4, silent=19, opened_at=NOON + 131, probed_at=NOON + 131,
    probe_at=NOON + 135, p_healthy=0.99, latency_healthy_s=2.0, demand=1.0, freeze_s=300.0,
)  # fmt: skip
LONG_ILL = replace(ILL, opened_at=NOON - 600, probed_at=NOON - 600, probe_at=NOON)


def told(ask: Ask, *options: Option, now: float = NOON + 132, tuning: Tuning = DEFAULT) -> str:
    decision = choose(ask, options, now, 1, tuning)
    return tell(recall(remember(ask, options, now, 1, tuning, decision)))


def test_the_sentence_of_a_passed_over_channel() -> None:
    sentence = told(ORDER, Option("A", 970_000, reading=ILL), Option("B", 976_000, reading=WELL))
    head = "B chosen: A would earn 0.60 more but its circuit is open since 14:02:11 (11.8 nats: 4 failures, 19 late answers; next probe 14:02:"
    assert re.fullmatch(re.escape(head) + r"\d\d\)", sentence), sentence


def test_the_next_best_is_named_where_nobody_earns_more() -> None:
    sentence = told(ORDER, Option("A", 970_000, reading=WELL), Option("B", 976_000, reading=WELL), Option("C", 990_000, reading=WELL))
    assert sentence == "A chosen: B is worth 0.60 less"


@pytest.mark.parametrize(
    ("ask", "b", "expected"),
    [
        ({}, {"enabled": False}, "it is switched off"),
        ({"banned": frozenset("B")}, {}, "it is not for this order"),
        ({"allowed": frozenset("A")}, {}, "it is not on the list for this order"),
        ({"pins": ("A",), "pin_hard": True}, {}, "it is not among the pinned (A)"),
        ({"region": "gd"}, {"regions": frozenset({"bj"})}, "it does not serve the region gd"),
        ({"carrier": "cmcc"}, {"carriers": frozenset({"cucc"})}, "it does not serve the carrier cmcc"),
        ({"face_value": 10**6}, {"face_values": (100_000, 500_000)}, "it sells 10.00 to 50.00, not 100.00"),
        ({"qualifications": frozenset({"invoice"})}, {}, "it cannot do invoice"),
        ({}, {"maintenance_in_s": 12.0}, "its maintenance begins in 12 s, and its answer may take 30 s"),
        ({}, {"maintenance_in_s": -1.0}, "it is in maintenance"),
        ({}, {"quote_age_s": 700.0, "quote_ttl_s": 600.0}, "its price was said 700 s ago and is believed for 600 s"),
        ({"price": 965_000, "allow_loss": False}, {"cost": 966_000}, "it costs 96.60 and the merchant pays 96.50"),
        ({"units": 3}, {"stock": 2}, "it has 2 left of 3 asked for"),
        ({}, {"wallet": 1_000_000, "wallet_floor": 500_000}, "its wallet holds 100.00 and would fall to 4.00, below its floor of 50.00"),
        ({}, {"queryable": False, "value_limit": 500_000}, "it cannot be asked what became of an order, and 96.00 is more than the 50.00"),
        ({"tried": {"B": "refused"}}, {}, "it was tried already (refused)"),
        ({}, {"forced": Circuit.OPEN}, "it is closed out by hand"),
        ({}, {"cap": 3, "reading": replace(WELL, in_flight=3)}, "it is full (3 under way, 3 agreed)"),
        ({}, {"cap": 0}, "it takes nothing just now"),
        ({}, {"qps": 2.0, "sent_last_second": 2}, "it was sent 2 in the last second and takes 2"),
        ({}, {"reading": replace(WELL, in_flight=9, limit=8.4, inferred=False)}, "it is full (9 under way, it seems to take 8)"),
        ({}, {"reading": replace(ILL, of_sku=True)}, "its circuit for CN-MOBILE-100 is open since 14:02:11 (11.8 nats"),
    ],
)
def test_every_code_has_its_words(ask: dict[str, Any], b: dict[str, Any], expected: str) -> None:
    asked = replace(ORDER, **ask)
    options = [
        Option("A", 964_000, reading=replace(WELL, in_flight=1), stock=100, carriers=frozenset({"cmcc"}), qualifications=frozenset({"invoice"})),
        Option(**{"channel": "B", "cost": 960_000, "reading": WELL} | b),
    ]  # fmt: skip
    decision = choose(asked, options, NOON + 132, 1)
    found = recall(remember(asked, options, NOON + 132, 1, DEFAULT, decision))
    [seen] = [seen for seen in decision.seen if seen.channel == "B"]
    assert seen.code
    sentence = tell(replace(found, decision=replace(decision, action=Action.GIVE_UP, reason=Reason.NO_CHANNEL)))
    assert f"B: {expected}" in sentence


def test_every_code_is_a_case_above_or_needs_none() -> None:
    """So that a code that is added is told in words too."""
    found = recall(remember(ORDER, [Option("A", 1)], NOON, 1, DEFAULT, Decision(Action.GIVE_UP, Reason.NO_CHANNEL, None, None, (Seen("A"),))))
    for code in Code:
        sentence = tell(replace(found, decision=replace(found.decision, seen=(Seen("A", code),))))
        assert f"({code})" not in sentence, code


@pytest.mark.parametrize(
    ("ask", "options", "expected"),
    [
        (ORDER, [Option("A", 970_000, reading=WELL)], "A chosen, the only one that may be asked"),
        (
            replace(ORDER, tried={"A": "out_of_stock"}),
            [Option("A", 960_000, reading=WELL), Option("B", 970_000, reading=WELL), Option("C", 980_000, reading=WELL)],
            "B chosen after A (out_of_stock): C is worth 1.00 less",
        ),
        (
            replace(ORDER, pins=("B",)),
            [Option("A", 960_000, reading=WELL), Option("B", 970_000, reading=WELL)],
            "B chosen, as pinned: A is worth 1.00 more",
        ),
        (
            ORDER,
            [Option("A", 970_000, reading=LONG_ILL), Option("B", 976_000, reading=WELL)],
            "A probed: its circuit is open since 13:50:00 (11.8 nats: 4 failures, 19 late answers), and if it is well it earns 0.60 more than B;"
            " nobody else probes it for ",
        ),
        (
            ORDER,
            [Option("A", 970_000, cap=2, reading=replace(WELL, in_flight=2)), Option("B", 980_000, enabled=False)],
            "s: A: it is full (2 under way, 2 agreed)",
        ),
        (replace(ORDER, left_s=0.0, age_s=900.0), [Option("A", 970_000)], "given up: no time is left after 900 s"),
        (ORDER, [], "given up: no channel sells CN-MOBILE-100"),
        (ORDER, [Option("A", 1_010_000)], "given up, for waiting would change nothing: A: it costs 101.00 and the merchant pays 100.00"),
        (
            ORDER,
            [Option(channel, 1_010_000) for channel in "ABCDEF"],
            "; D: it costs 101.00 and the merchant pays 100.00; and 2 more",
        ),
    ],
)
def test_every_action_is_told(ask: Ask, options: list[Option], expected: str) -> None:
    assert expected in told(ask, *options)


def test_a_channel_that_is_shut_and_would_earn_less_is_not_worth_a_word() -> None:
    assert told(ORDER, Option("A", 970_000, reading=WELL), Option("B", 976_000, reading=WELL), Option("C", 990_000, enabled=False)) == (
        "A chosen: B is worth 0.60 less"
    )


def test_times_of_another_day_have_their_date() -> None:
    since_yesterday = replace(ILL, opened_at=NOON - 86_400, probed_at=NOON + 130)
    sentence = told(ORDER, Option("A", 970_000, reading=since_yesterday), Option("B", 976_000, reading=WELL))
    assert "open since 2026-11-23 14:00:00" in sentence
