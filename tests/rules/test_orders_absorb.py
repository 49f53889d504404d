"""What each answer does to an order in each state of its attempt: the whole table, cell by cell, and what is posted."""

from dataclasses import dataclass
from datetime import timedelta
from itertools import product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.factories.orders import NOW, UNIT_COST, UNIT_PRICE, an_attempt, an_order, with_attempt

from kameng_api.ledger import rules as books
from kameng_api.orders.absorb import News, absorb, crashed_while_submitting, tried_channels
from kameng_api.orders.changes import Changes
from kameng_api.orders.rules import Order
from kameng_api.suppliers.port import (
    Accepted,
    Answer,
    Capabilities,
    Cause,
    Code,
    Delivered,
    NotFound,
    NotSent,
    Outcome,
    RefusalReason,
    Refused,
    Reversed,
    Scope,
    Unknown,
)
from kameng_api.suppliers.rules import LIVE, Attempt, AttemptState

LOOKS_UP = Capabilities(not_found_is_final=True, not_found_grace_s=60)

OUTCOMES: dict[str, Outcome] = {
    "delivered": Delivered(2, cost=150),
    "partial": Delivered(1, cost=75),
    "nothing": Delivered(0),
    "accepted": Accepted("S-1"),
    "refused_channel": Refused(Scope.CHANNEL, RefusalReason.OUT_OF_STOCK),
    "refused_order": Refused(Scope.ORDER, RefusalReason.TARGET_INVALID),
    "not_sent": NotSent("connection refused"),
    "unsayable": NotSent("it has no face values", Cause.UNSAYABLE),
    "unknown": Unknown("silence"),
    "needs_person": Unknown("call us", needs_person=True),
    "not_found": NotFound(),
    "not_found_again": NotFound(),
    "reversed": Reversed("R-1", 150),
}


@dataclass(frozen=True)
class Cell:
    """What must be true afterwards. `status` is status or substatus of the order."""

    attempt: str
    status: str
    posted: tuple[str, ...] = ()
    incident: str | None = None
    due: str | None = None


GIVEN_BACK = Cell("refused", "dispatching", ("attempt_refused",), due="submit")
DELIVERED = Cell("delivered", "succeeded", ("attempt_delivered", "capture"))
PART = Cell("delivered", "dispatching", ("attempt_delivered",), due="submit")
FAILED = Cell("refused", "failed", ("attempt_refused", "release"))
DOUBT = Cell("unknown", "outcome_unknown", due="look_up")
WAITS = Cell("accepted", "awaiting_supplier", due="look_up")
TOOK_BACK_TOO_EARLY = Cell("unknown", "manual_review", incident="reversed_before_delivered")
DONE = Cell("delivered", "succeeded")
CONTRADICTED = Cell("delivered", "succeeded", incident="contradiction")


def _late(state: str) -> Cell:
    return Cell(state, "manual_review", ("attempt_late",), incident="late_success")


# One column per beat would say the same thing four times: an answer means the same wherever it comes from, but for NotSent (only the
# purchase itself can prove it) and NotFound (only a look-up can say it).
TABLE: dict[tuple[str, str], Cell] = {
    ("submitting", "delivered"): DELIVERED,
    ("submitting", "partial"): PART,
    ("submitting", "nothing"): GIVEN_BACK,
    ("submitting", "accepted"): WAITS,
    ("submitting", "refused_channel"): GIVEN_BACK,
    ("submitting", "refused_order"): FAILED,
    ("submitting", "not_sent"): Cell("not_sent", "dispatching", ("attempt_refused",), due="submit"),
    ("submitting", "unsayable"): Cell("refused", "dispatching", ("attempt_refused",), due="submit"),
    ("submitting", "unknown"): DOUBT,
    ("submitting", "needs_person"): Cell("unknown", "manual_review", due="look_up"),
    ("submitting", "not_found"): Cell("submitting", "dispatching", due="look_up"),
    ("submitting", "not_found_again"): GIVEN_BACK,
    ("submitting", "reversed"): TOOK_BACK_TOO_EARLY,
    ("accepted", "delivered"): DELIVERED,
    ("accepted", "partial"): PART,
    ("accepted", "nothing"): GIVEN_BACK,
    ("accepted", "accepted"): WAITS,
    ("accepted", "refused_channel"): GIVEN_BACK,
    ("accepted", "refused_order"): FAILED,
    ("accepted", "not_sent"): WAITS,
    ("accepted", "unsayable"): WAITS,
    ("accepted", "unknown"): WAITS,
    ("accepted", "needs_person"): Cell("accepted", "manual_review", due="look_up"),
    ("accepted", "not_found"): WAITS,
    ("accepted", "not_found_again"): Cell("accepted", "manual_review", incident="contradiction"),
    ("accepted", "reversed"): TOOK_BACK_TOO_EARLY,
    ("unknown", "delivered"): DELIVERED,
    ("unknown", "partial"): PART,
    ("unknown", "nothing"): GIVEN_BACK,
    ("unknown", "accepted"): DOUBT,
    ("unknown", "refused_channel"): GIVEN_BACK,
    ("unknown", "refused_order"): FAILED,
    ("unknown", "not_sent"): DOUBT,
    ("unknown", "unsayable"): DOUBT,
    ("unknown", "unknown"): DOUBT,
    ("unknown", "needs_person"): Cell("unknown", "manual_review", due="look_up"),
    ("unknown", "not_found"): DOUBT,
    ("unknown", "not_found_again"): GIVEN_BACK,
    ("unknown", "reversed"): TOOK_BACK_TOO_EARLY,
    ("delivered", "delivered"): DONE,
    ("delivered", "partial"): DONE,
    ("delivered", "nothing"): DONE,
    ("delivered", "accepted"): DONE,
    ("delivered", "refused_channel"): CONTRADICTED,
    ("delivered", "refused_order"): CONTRADICTED,
    ("delivered", "not_sent"): DONE,
    ("delivered", "unsayable"): DONE,
    ("delivered", "unknown"): DONE,
    ("delivered", "needs_person"): DONE,
    ("delivered", "not_found"): DONE,
    ("delivered", "not_found_again"): DONE,
    ("delivered", "reversed"): Cell("delivered", "succeeded", ("attempt_reversed", "refund")),
    **{
        (state, outcome): _late(state) if outcome in ("delivered", "partial") else Cell(state, "dispatching")
        for state, outcome in product(("refused", "not_sent"), OUTCOMES)
    },
}


def _news(outcome: Outcome, beat: str = "look_up", **more: Any) -> News:
    attempt = an_attempt()
    return News(*attempt.key, beat, Answer(outcome), LOOKS_UP, **more)


def _beat_of(name: str) -> str:
    return "place" if name in ("not_sent", "unsayable") else "look_up"


def _absorbed(state: str, name: str) -> tuple[Order, Attempt, Changes]:
    order, attempt = with_attempt(state)
    if name == "not_found_again":
        attempt.not_found_first_at = NOW - timedelta(seconds=61)
    changes = Changes()
    absorb(order, attempt, [attempt], _news(OUTCOMES[name], _beat_of(name)), NOW, changes)
    return order, attempt, changes


def test_the_table_has_every_cell() -> None:
    states = {s.value for s in AttemptState} - {"created"}
    assert set(TABLE) == set(product(states, OUTCOMES))


@pytest.mark.parametrize(("state", "name"), TABLE)
def test_an_answer_does_what_the_table_says(state: str, name: str) -> None:
    order, attempt, changes = _absorbed(state, name)
    due = {d.lane for d in changes.due}
    found = Cell(
        attempt.state,
        order.substatus or order.status,
        tuple(p.kind for p in changes.postings),
        changes.incidents[0].kind if changes.incidents else None,
        due.pop().value if due else None,  # type: ignore[attr-defined]
    )
    assert found == TABLE[state, name]
    assert not due and len(changes.incidents) <= 1


@pytest.mark.parametrize(("state", "name"), TABLE)
def test_money_is_moved_and_never_made(state: str, name: str) -> None:
    order, attempt, changes = _absorbed(state, name)
    net: dict[str, int] = {}
    for line in (line for p in changes.postings for line in p.lines):
        net[line.debit] = net.get(line.debit, 0) - line.amount
        net[line.credit] = net.get(line.credit, 0) + line.amount
    assert sum(net.values()) == 0
    was_live = state in LIVE
    if was_live and not attempt.live:  # the cost in progress is gone, wherever it went
        assert net[books.supplier_wip("ch-1")] == attempt.cost
    if was_live and attempt.live:
        assert net == {}
    if order.final and state != "delivered":
        assert net[books.HELD] == -order.amount
        assert net.get(books.SALES, 0) == order.captured == UNIT_PRICE * order.delivered_units
        assert net.get(books.AVAILABLE, 0) == order.amount - order.captured
    elif name != "reversed":
        assert books.HELD not in net and books.AVAILABLE not in net
    assert 0 <= order.delivered_units <= order.committed_units <= order.quantity
    assert order.refunded <= order.captured


@pytest.mark.parametrize(("state", "name"), TABLE)
def test_the_same_answer_again_moves_nothing(state: str, name: str) -> None:
    """Callbacks arrive twice, look-ups repeat: the second time no money, no incident, no further final event."""
    order, attempt, _ = _absorbed(state, name)
    version = order.version
    again = Changes()
    known = name == "reversed" and state == "delivered"
    absorb(order, attempt, [attempt], _news(OUTCOMES[name], _beat_of(name), reversal_known=known), NOW, again)
    assert again.postings == [] and again.incidents == [] and again.facts == []
    assert order.version == version


def test_every_visible_change_of_a_final_state_is_told_with_its_own_version() -> None:
    order, _, changes = _absorbed("unknown", "delivered")
    assert [(f.type, f.version) for f in changes.facts] == [("order.succeeded", order.version)]
    order, _, changes = _absorbed("delivered", "reversed")
    assert [(f.type, f.version) for f in changes.facts] == [("order.refunded", order.version)]


def test_the_actual_cost_is_booked_wherever_it_differs() -> None:
    for cost, kinds in ((150, 1), (160, 2), (120, 2), (0, 1)):
        order, attempt = with_attempt("submitting")
        changes = Changes()
        absorb(order, attempt, [attempt], _news(Delivered(2, cost=cost)), NOW, changes)
        [settled] = [p for p in changes.postings if p.kind == "attempt_delivered"]
        assert len(settled.lines) == kinds
        goods = sum(line.amount for line in settled.lines if line.debit == books.cogs("ch-1"))
        assert goods == cost == attempt.actual_cost


def test_a_partial_delivery_frees_the_rest_and_pays_its_share() -> None:
    order, _, _ = _absorbed("submitting", "partial")
    assert (order.delivered_units, order.committed_units, order.remaining_units) == (1, 1, 1)
    unsaid = with_attempt("submitting")
    absorb(*unsaid, [unsaid[1]], _news(Delivered(1)), NOW, Changes())
    assert unsaid[1].actual_cost == UNIT_COST


def test_a_refusal_after_a_partial_delivery_keeps_what_was_delivered() -> None:
    first, second = with_attempt("delivered")[1], an_attempt("submitting", n=2, units=1, channel_id="ch-2")
    first.delivered_units = 1
    order = an_order(committed_units=2, delivered_units=1)
    changes = Changes()
    absorb(order, second, [first, second], _news(OUTCOMES["refused_order"], "place"), NOW, changes)
    assert (order.status, order.captured, order.failure_code) == ("partially_succeeded", 100, "target_invalid")
    assert [p.kind for p in changes.postings] == ["attempt_refused", "split"]


def test_more_units_than_asked_are_never_counted() -> None:
    order, attempt = with_attempt("submitting")
    changes = Changes()
    absorb(order, attempt, [attempt], _news(Delivered(3, cost=225)), NOW, changes)
    assert (order.status, order.delivered_units, order.captured) == ("succeeded", 2, 200)
    assert [i.kind for i in changes.incidents] == ["delivered_too_much"]


# ---- codes ---------------------------------------------------------------------------------------------------------


CODES = (Code("A", "1"), Code("B", "2"))


@pytest.mark.parametrize("codes", [(), CODES[:1], (*CODES, Code("C"))])
def test_a_card_delivery_without_its_codes_is_neither_a_delivery_nor_a_refusal(codes: tuple[Code, ...]) -> None:
    order, attempt = with_attempt("submitting")
    order.product_type = "card"
    changes = Changes()
    absorb(order, attempt, [attempt], _news(Delivered(2, codes=codes), "place"), NOW, changes)
    assert (attempt.state, order.substatus, changes.postings, changes.codes) == ("unknown", "manual_review", [], [])
    assert [i.kind for i in changes.incidents] == ["codes_missing"]


def test_a_no_is_not_believed_after_the_supplier_had_told_of_a_delivery() -> None:
    """Else another channel would buy what the first one may have delivered."""
    for told in (_news(Delivered(2, codes=CODES[:1]), "place"), _news(OUTCOMES["reversed"], "callback")):
        for no in ("refused_channel", "refused_order", "nothing", "not_found_again", "accepted", "unknown"):
            order, attempt = with_attempt("submitting")
            order.product_type = "card"
            absorb(order, attempt, [attempt], told, NOW, Changes())
            attempt.not_found_first_at = NOW - timedelta(hours=1)
            changes = Changes()
            absorb(order, attempt, [attempt], _news(OUTCOMES[no]), NOW, changes)
            assert (attempt.state, order.substatus) == ("unknown", "manual_review"), no
            assert changes.postings == [] and changes.due == []


def test_a_person_ends_what_the_supplier_contradicted() -> None:
    order, attempt = with_attempt("submitting")
    absorb(order, attempt, [attempt], _news(OUTCOMES["reversed"], "callback"), NOW, Changes())
    changes = Changes()
    absorb(order, attempt, [attempt], _news(OUTCOMES["refused_order"], "operator"), NOW, changes)
    assert (order.status, [p.kind for p in changes.postings]) == ("failed", ["attempt_refused", "release"])


def test_the_right_codes_end_the_doubt_about_codes() -> None:
    order, attempt = with_attempt("submitting")
    order.product_type = "card"
    absorb(order, attempt, [attempt], _news(Delivered(2, codes=CODES[:1]), "place"), NOW, Changes())
    changes = Changes()
    absorb(order, attempt, [attempt], _news(Delivered(2, codes=CODES)), NOW, changes)
    assert (order.status, order.codes_count, [c.unit_no for c in changes.codes]) == ("succeeded", 2, [1, 2])


def test_codes_that_were_sold_before_are_not_delivered() -> None:
    order, attempt = with_attempt("submitting")
    order.product_type = "card"
    changes = Changes()
    absorb(order, attempt, [attempt], _news(Delivered(2, codes=CODES), "place", codes_sold_before=True), NOW, changes)
    assert (attempt.state, order.substatus, changes.codes, changes.postings) == ("unknown", "manual_review", [], [])
    assert [i.kind for i in changes.incidents] == ["code_sold_before"]


def test_codes_of_a_second_delivery_are_numbered_after_the_first() -> None:
    first = with_attempt("delivered")[1]
    first.delivered_units = 1
    second = an_attempt("submitting", n=2, units=1)
    order = an_order(product_type="card", committed_units=2, delivered_units=1, codes_count=1)
    changes = Changes()
    absorb(order, second, [first, second], _news(Delivered(1, codes=CODES[:1])), NOW, changes)
    assert [c.unit_no for c in changes.codes] == [2]


# ---- reversals -----------------------------------------------------------------------------------------------------


def test_a_reversal_in_parts_returns_exactly_the_whole() -> None:
    order, attempt = with_attempt("delivered")
    for n, amount in enumerate((33, 33, 33, 51)):
        absorb(order, attempt, [attempt], _news(Reversed(f"R-{n}", amount)), NOW, Changes())
    assert (order.refunded, attempt.reversed_amount) == (200, 150)


def test_a_reversal_never_returns_more_than_was_paid() -> None:
    order, attempt = with_attempt("delivered")
    changes = Changes()
    absorb(order, attempt, [attempt], _news(Reversed("R-1", 99_999)), NOW, changes)
    assert (order.refunded, attempt.reversed_amount) == (200, 150)
    again = Changes()
    absorb(order, attempt, [attempt], _news(Reversed("R-2", 150)), NOW, again)
    assert order.refunded == 200 and all(not p.lines for p in again.postings)


def test_a_reversal_after_a_refund_returns_only_what_is_left() -> None:
    order, attempt = with_attempt("delivered")
    order.refunded = 150
    absorb(order, attempt, [attempt], _news(Reversed("R-1", 150)), NOW, Changes())
    assert order.refunded == 200


def test_a_reversal_that_the_product_does_not_refund_waits_for_a_person() -> None:
    order, attempt = with_attempt("delivered")
    changes = Changes()
    absorb(order, attempt, [attempt], _news(Reversed("R-1"), refund_on_reversal=False), NOW, changes)
    assert order.refunded == 0
    assert ([p.kind for p in changes.postings], [i.kind for i in changes.incidents]) == (["attempt_reversed"], ["reversed"])


def test_a_part_reversed_while_the_rest_is_open_is_reported() -> None:
    first, second = with_attempt("delivered")[1], an_attempt("accepted", n=2, units=1)
    first.delivered_units, first.actual_cost = 1, 75
    order = an_order(committed_units=2, delivered_units=1, substatus="awaiting_supplier")
    changes = Changes()
    absorb(order, first, [first, second], _news(Reversed("R-1", 75)), NOW, changes)
    assert [i.kind for i in changes.incidents] == ["reversed_while_open"]
    assert order.status == "processing" and changes.refunds == []


def test_a_delivery_for_nothing_can_be_reversed() -> None:
    order, attempt = with_attempt("delivered")
    attempt.cost = attempt.actual_cost = 0
    absorb(order, attempt, [attempt], _news(Reversed("R-1")), NOW, Changes())
    assert order.refunded == 200


# ---- contradictions, crashes, waiting ------------------------------------------------------------------------------


def test_a_larger_delivery_after_the_last_word_is_a_contradiction_once() -> None:
    order, attempt = with_attempt("delivered")
    attempt.delivered_units, order.delivered_units, order.committed_units = 1, 1, 1
    order.status, order.captured = "partially_succeeded", 100
    changes = Changes()
    for _ in range(3):
        absorb(order, attempt, [attempt], _news(Delivered(2, cost=150)), NOW, changes)
    assert ([i.kind for i in changes.incidents], changes.postings) == (["contradiction"], [])


def test_a_contradiction_stops_an_open_order_unless_an_attempt_is_live() -> None:
    first = with_attempt("delivered")[1]
    first.delivered_units = 1
    for others, substatus in (([], "manual_review"), ([an_attempt("accepted", n=2, units=1)], "dispatching")):
        order = an_order(committed_units=1 + len(others), delivered_units=1)
        first.trouble = None
        absorb(order, first, [first, *others], _news(OUTCOMES["refused_channel"]), NOW, Changes())
        assert order.substatus == substatus


def test_a_late_success_never_buys_again_while_another_attempt_is_live() -> None:
    first, second = with_attempt("refused")[1], an_attempt("submitting", n=2)
    order = an_order(committed_units=2)
    changes = Changes()
    absorb(order, first, [first, second], _news(OUTCOMES["delivered"], "callback"), NOW, changes)
    assert [p.kind for p in changes.postings] == ["attempt_late"]
    assert (order.substatus, order.delivered_units, changes.due) == ("dispatching", 0, [])


def test_a_crash_while_submitting_asks_and_never_resends() -> None:
    order, attempt = with_attempt("submitting")
    changes = Changes()
    crashed_while_submitting(order, attempt, NOW, changes)
    assert (attempt.state, order.substatus, changes.postings) == ("unknown", "outcome_unknown", [])
    assert [(d.lane, d.ref) for d in changes.due] == [("look_up", attempt.attempt_id)]


def test_not_found_counts_only_when_said_twice_in_a_row() -> None:
    order, attempt = with_attempt("unknown")
    attempt.not_found_first_at = NOW - timedelta(minutes=1)
    absorb(order, attempt, [attempt], _news(Accepted()), NOW, Changes())
    absorb(order, attempt, [attempt], _news(NotFound()), NOW, Changes())
    assert attempt.state == "unknown"


def test_a_not_found_that_no_look_up_gave_proves_nothing() -> None:
    for beat in ("place", "callback"):
        order, attempt = with_attempt("unknown")
        attempt.not_found_first_at = NOW - timedelta(hours=1)
        absorb(order, attempt, [attempt], _news(NotFound(), beat), NOW, Changes())
        assert attempt.state == "unknown"


def test_a_not_sent_that_another_beat_gave_proves_nothing() -> None:
    for beat in ("look_up", "callback"):
        order, attempt = with_attempt("submitting")
        absorb(order, attempt, [attempt], _news(NotSent("x"), beat), NOW, Changes())
        assert attempt.state == "unknown"
        order, attempt = with_attempt("submitting")
        absorb(order, attempt, [attempt], _news(NotSent("x", Cause.UNSAYABLE), beat), NOW, Changes())
        assert attempt.state == "unknown"


def test_after_a_day_of_asking_a_person_decides_and_the_money_stays_held() -> None:
    order, attempt = with_attempt("unknown")
    attempt.sent_at = NOW - timedelta(hours=24)
    changes = Changes()
    absorb(order, attempt, [attempt], _news(Unknown("silence")), NOW, changes)
    assert (order.substatus, attempt.state, changes.postings, changes.due) == ("manual_review", "unknown", [], [])


def test_a_supplier_that_cannot_be_asked_goes_to_a_person() -> None:
    order, attempt = with_attempt("submitting")
    changes = Changes()
    absorb(order, attempt, [attempt], _news(Unknown("silence"), "place", can_look_up=False), NOW, changes)
    assert (order.substatus, changes.due) == ("manual_review", [])


def test_a_supplier_that_only_calls_back_is_waited_for_and_not_for_ever() -> None:
    calls_back = Capabilities(callback=True)
    for age, review in ((timedelta(seconds=5), False), (timedelta(hours=1), True)):
        order, attempt = with_attempt("accepted", sent_at=NOW - age)
        changes = Changes()
        news = News(*attempt.key, "look_up", Answer(Unknown("cannot be asked")), calls_back, can_look_up=False)
        absorb(order, attempt, [attempt], news, NOW, changes)
        assert [d.run_at for d in changes.due] == ([] if review else [attempt.sent_at + timedelta(hours=1)])
        assert (order.substatus == "manual_review") is review


def test_a_channel_that_was_never_reached_may_be_asked_again() -> None:
    attempts = [
        an_attempt("not_sent", channel_id="a"),
        an_attempt("refused", channel_id="b", refusal="out_of_stock"),
        an_attempt("delivered", channel_id="c", delivered_units=1),
        an_attempt("not_sent", channel_id="b"),
    ]
    assert tried_channels(attempts) == {"b": "out_of_stock", "c": "delivered 1 of 2"}


# ---- any history ---------------------------------------------------------------------------------------------------


_ANY = st.one_of(
    st.builds(Delivered, st.integers(0, 3), st.none() | st.integers(0, 400)),
    st.just(Accepted("S-1")),
    st.just(Accepted()),
    st.builds(Refused, st.sampled_from(Scope), st.sampled_from(RefusalReason)),
    st.just(NotSent("x")),
    st.builds(Unknown, st.just("x"), st.booleans()),
    st.just(NotFound()),
    st.builds(Reversed, st.sampled_from(["r1", "r2"]), st.none() | st.integers(0, 400)),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(_ANY, st.sampled_from(["place", "look_up", "callback"]), st.integers(0, 7200)), max_size=12))
def test_no_history_of_one_attempt_loses_or_makes_money(history: list[tuple[Outcome, str, int]]) -> None:
    order, attempt = with_attempt("submitting")
    net = {books.HELD: order.amount, books.supplier_wip("ch-1"): -attempt.cost}
    now, versions, finals = NOW, [], 0
    posted: dict[str, tuple[books.Line, ...]] = {}
    work = {"place"}  # the purchase that is under way
    for outcome, beat, later_s in history:
        now += timedelta(seconds=later_s)
        changes = Changes()
        known = isinstance(outcome, Reversed) and any(f":reversal:{outcome.external_id}" in k for k in posted)
        absorb(order, attempt, [attempt], _news(outcome, beat, reversal_known=known), now, changes)
        for posting in changes.postings:
            assert posting.event_key not in posted
            if posting.lines:
                posted[posting.event_key] = posting.lines
            for line in posting.lines:
                net[line.debit] = net.get(line.debit, 0) - line.amount
                net[line.credit] = net.get(line.credit, 0) + line.amount
        versions += [f.version for f in changes.facts]
        finals += sum(f.type in ("order.succeeded", "order.partially_succeeded", "order.failed") for f in changes.facts)
        assert net[books.HELD] == (0 if order.final else order.amount)
        assert net[books.supplier_wip("ch-1")] == (-attempt.cost if attempt.live else 0)
        assert order.refunded <= order.captured
        assert order.committed_units == order.delivered_units + (attempt.units if attempt.live else 0)
        # Something must go on with every open order: work due, or a person. The beat's own task ends with it.
        work -= {beat} | set(changes.no_longer_due)
        work |= {d.lane for d in changes.due}
        assert order.final or work or order.substatus == "manual_review"
    assert versions == sorted(set(versions))
    assert finals == int(order.final)
    captured = net.get(books.SALES, 0)
    assert captured == order.captured
    assert net.get(books.AVAILABLE, 0) == (order.amount - captured if order.final else 0) + order.refunded
