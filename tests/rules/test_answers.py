"""What each answer permits, what it says about health, which gates it closes, and when to ask again: as tables."""

import re
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.factories.orders import NOW, with_attempt

from kameng_api.orders.absorb import News, absorb
from kameng_api.orders.changes import Changes
from kameng_api.suppliers import answers
from kameng_api.suppliers.answers import (
    TABLE,
    Closing,
    GateScope,
    OpenedBy,
    class_of,
    closed_gates,
    gate_after,
    heard,
    heard_of_row,
    key_of,
)
from kameng_api.suppliers.port import (
    Accepted,
    Answer,
    Capabilities,
    Cause,
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
from kameng_api.suppliers.routing.facts import Heard
from kameng_api.suppliers.rules import (
    AskAPerson,
    AskAt,
    AttemptState,
    CallbackBy,
    may_try_another,
    next_look_up,
    next_question,
    outcome_word,
)

T0 = datetime(2026, 11, 22, tzinfo=UTC)
DOCS = Path(__file__).parents[2] / "docs"

# order · another channel · the same channel · health · gate
ROWS: list[tuple[Outcome, str, bool, str, Heard | None, GateScope | None]] = [
    (Delivered(2), "delivered", False, "never", Heard.GOOD, None),
    (Delivered(0), "freed", True, "never", Heard.BAD, None),
    (Accepted(), "live", False, "never", Heard.TAKEN, None),
    (Refused(Scope.CHANNEL, RefusalReason.SUPPLIER_REJECTED), "freed", True, "never", Heard.BAD, None),
    (Refused(Scope.CHANNEL, RefusalReason.TARGET_INVALID), "freed", True, "never", Heard.NEUTRAL, None),
    (Refused(Scope.CHANNEL, RefusalReason.TARGET_NOT_ELIGIBLE), "freed", True, "never", Heard.NEUTRAL, None),
    (Refused(Scope.CHANNEL, RefusalReason.OUT_OF_STOCK), "freed", True, "never", Heard.NEUTRAL, GateScope.OFFER),
    (Refused(Scope.CHANNEL, RefusalReason.PRODUCT_OFF), "freed", True, "never", Heard.NEUTRAL, GateScope.OFFER),
    (Refused(Scope.CHANNEL, RefusalReason.PRICE_EXCEEDED), "freed", True, "never", Heard.NEUTRAL, GateScope.OFFER),
    (Refused(Scope.CHANNEL, RefusalReason.WALLET_EMPTY), "freed", True, "never", Heard.NEUTRAL, GateScope.CHANNEL),
    (Refused(Scope.ORDER, RefusalReason.TARGET_INVALID), "failed", False, "never", Heard.NEUTRAL, None),
    (Refused(Scope.ORDER, RefusalReason.TARGET_NOT_ELIGIBLE), "failed", False, "never", Heard.NEUTRAL, None),
    (Refused(Scope.ORDER, RefusalReason.SUPPLIER_REJECTED), "failed", False, "never", Heard.NEUTRAL, None),
    (NotSent("refused"), "freed", True, "after_a_pause", Heard.BAD, None),
    (NotSent("429", Cause.BUSY), "freed", True, "after_a_pause", Heard.BUSY, None),
    (NotSent("pool", Cause.OURS), "freed", True, "after_a_pause", Heard.NEUTRAL, None),
    (NotSent("face value", Cause.UNSAYABLE), "freed", True, "never", Heard.NEUTRAL, None),
    (Unknown("5xx"), "frozen", False, "same_reference", Heard.DOUBT, None),
    (Unknown("staff", needs_person=True), "frozen", False, "never", Heard.DOUBT, None),
    (NotFound(), "frozen", False, "never", None, None),
    (Reversed("r"), "claim", False, "never", Heard.REVERSED, None),
]

EVERY: list[Outcome] = [row[0] for row in ROWS] + [Refused(scope, reason, "x") for scope in Scope for reason in RefusalReason]


@pytest.mark.parametrize(("outcome", "order", "another", "again", "health", "gate"), ROWS, ids=lambda value: str(value)[:60])
def test_each_answer_permits_what_is_written_and_nothing_else(
    outcome: Outcome, order: str, another: bool, again: str, health: Heard | None, gate: GateScope | None
) -> None:
    row = class_of(outcome)
    assert (row.order, row.another, row.again, row.heard) == (order, another, again, health)
    closes = gate_after(outcome.reason, T0) if isinstance(outcome, Refused) and outcome.scope is Scope.CHANNEL else None
    assert (closes.scope if closes else None) == gate


def test_the_table_has_every_answer_and_no_row_that_nobody_can_give() -> None:
    assert {key_of(outcome) for outcome in EVERY} | {answers.PROVEN_NOT_FOUND} == set(TABLE)


@pytest.mark.parametrize("outcome", EVERY, ids=str)
def test_the_one_rule_about_another_channel_is_the_table(outcome: Outcome) -> None:
    assert may_try_another(outcome) is TABLE[key_of(outcome)].another
    assert outcome_word(outcome) == TABLE[key_of(outcome)].word


def test_another_channel_only_where_nothing_more_can_come() -> None:
    for key, row in TABLE.items():
        assert row.another == (row.order is answers.Effect.FREED), key
        assert row.another or row.again is not answers.Again.AFTER_A_PAUSE, key


def test_a_gate_closes_instead_of_lowering_health() -> None:
    for reason in RefusalReason:
        if gate_after(reason, T0) is not None:
            assert TABLE[f"refused_channel.{reason}"].heard is Heard.NEUTRAL
    assert TABLE["refused_channel.supplier_rejected"].heard is Heard.BAD


# ---- what is heard -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", ["submitting", "accepted", "unknown", "delivered"])
@pytest.mark.parametrize("outcome", EVERY, ids=str)
def test_what_is_heard_live_is_what_the_rebuild_reads_from_the_row(first: str, outcome: Outcome) -> None:
    """The real decision about the order says what became of the attempt; both ways to health must then agree."""
    order, attempt = with_attempt(first)
    beat = "place" if first == "submitting" else "look_up"
    absorb(order, attempt, [attempt], News(order.book_id, attempt.attempt_id, beat, Answer(outcome)), NOW, Changes())
    live = heard(outcome, first, attempt.state, attempt.refusal)
    if attempt.state != first or live is Heard.REVERSED:
        again = heard_of_row(attempt.state, attempt.refusal, outcome_word(outcome), taken_back=live is Heard.REVERSED)
        assert live == again
    if attempt.state == first == "submitting":
        assert live is None


HEARD: list[tuple[Outcome, str, str, str | None, Heard | None]] = [
    (Delivered(2), "submitting", "delivered", None, Heard.GOOD),
    (Delivered(2), "unknown", "delivered", None, Heard.GOOD),
    (Delivered(2), "submitting", "unknown", None, Heard.DOUBT),  # codes that cannot be used
    (Delivered(2), "refused", "refused", None, None),  # too late: a person's matter
    (Accepted(), "submitting", "accepted", None, Heard.TAKEN),
    (Accepted(), "unknown", "unknown", None, None),
    (Unknown("500"), "submitting", "unknown", None, Heard.DOUBT),
    (Unknown("500"), "accepted", "accepted", None, None),
    (Unknown("staff", needs_person=True), "accepted", "accepted", None, Heard.DOUBT),
    (NotFound(), "unknown", "unknown", None, None),
    (NotFound(), "unknown", "refused", "not_found", Heard.BAD),
    (Refused(Scope.CHANNEL, RefusalReason.SUPPLIER_REJECTED), "accepted", "refused", "supplier_rejected", Heard.BAD),
    (Refused(Scope.CHANNEL, RefusalReason.OUT_OF_STOCK), "submitting", "refused", "out_of_stock", Heard.NEUTRAL),
    (Refused(Scope.ORDER, RefusalReason.SUPPLIER_REJECTED), "accepted", "refused", "supplier_rejected", Heard.NEUTRAL),
    (Refused(Scope.ORDER, RefusalReason.TARGET_INVALID), "delivered", "delivered", None, None),
    (NotSent("x"), "submitting", "not_sent", None, Heard.BAD),
    (NotSent("x", Cause.BUSY), "submitting", "not_sent", None, Heard.BUSY),
    (NotSent("x", Cause.OURS), "submitting", "not_sent", None, Heard.NEUTRAL),
    (NotSent("x", Cause.UNSAYABLE), "submitting", "refused", "unsayable", Heard.NEUTRAL),
    (Reversed("r"), "delivered", "delivered", None, Heard.REVERSED),
    (Reversed("r"), "accepted", "unknown", None, Heard.DOUBT),
]


@pytest.mark.parametrize(("outcome", "before", "after", "refusal", "what"), HEARD, ids=str)
def test_only_news_is_told_to_the_router(outcome: Outcome, before: str, after: str, refusal: str | None, what: Heard | None) -> None:
    assert heard(outcome, before, after, refusal) == what


def test_a_row_without_an_answer_is_no_answer() -> None:
    assert heard_of_row("submitting", None, None) is None
    assert heard_of_row("unknown", None, None) is None  # our process died: the supplier has said nothing
    assert heard_of_row("not_sent", None, None) is Heard.BAD  # its answer has been thrown away by age


# ---- gates ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reason", "scope", "for_s", "opened_by"),
    [
        (RefusalReason.OUT_OF_STOCK, GateScope.OFFER, 300, OpenedBy.STOCK),
        (RefusalReason.PRODUCT_OFF, GateScope.OFFER, 1800, OpenedBy.ON_SALE),
        (RefusalReason.PRICE_EXCEEDED, GateScope.OFFER, 600, OpenedBy.COST),
        (RefusalReason.WALLET_EMPTY, GateScope.CHANNEL, 300, OpenedBy.WALLET),
    ],
)
def test_a_gate_is_closed_for_its_time_or_until_the_fact_is_known_anew(
    reason: RefusalReason, scope: GateScope, for_s: int, opened_by: OpenedBy
) -> None:
    gate = gate_after(reason, T0)
    assert gate is not None
    assert (gate.scope, gate.until, gate.opened_by) == (scope, T0 + timedelta(seconds=for_s), opened_by)
    second = timedelta(seconds=1)
    assert gate.is_closed(T0) and gate.is_closed(gate.until - second)
    assert not gate.is_closed(gate.until)
    assert gate.is_closed(T0 + second, fact_at=T0 - second)  # what we knew before the refusal was wrong
    assert not gate.is_closed(T0 + second, fact_at=T0 + second)


@pytest.mark.parametrize("reason", [RefusalReason.SUPPLIER_REJECTED, RefusalReason.TARGET_INVALID, RefusalReason.TARGET_NOT_ELIGIBLE])
def test_other_refusals_close_no_gate(reason: RefusalReason) -> None:
    assert gate_after(reason, T0) is None


def test_what_is_passed_over_now() -> None:
    def ago(seconds: float) -> datetime:
        return T0 - timedelta(seconds=seconds)

    stock, price, off, wallet = (
        RefusalReason.OUT_OF_STOCK, RefusalReason.PRICE_EXCEEDED, RefusalReason.PRODUCT_OFF, RefusalReason.WALLET_EMPTY,
    )  # fmt: skip
    closings = [
        Closing("a", "s1", stock, ago(299)),
        Closing("a", "s2", stock, ago(300)),  # over
        Closing("a", "s3", RefusalReason.SUPPLIER_REJECTED, ago(1)),  # no gate
        Closing("b", "s1", off, ago(100)),
        Closing("b", "s1", price, ago(1)),  # opens sooner than the one above
        Closing("b", "s2", wallet, ago(10)),  # closes all of b
        Closing("c", "s1", wallet, ago(10)),  # filled since
        Closing("d", "s1", price, ago(10)),  # what was learnt is older
        Closing("e", "s1", stock, ago(20)),
        Closing("e", "s1", stock, ago(5)),  # said again after the stock had been read
    ]
    learnt = {
        ("c", None, OpenedBy.WALLET): ago(5),
        ("d", "s1", OpenedBy.COST): ago(11),
        ("d", "s1", OpenedBy.STOCK): ago(1),
        ("e", "s1", OpenedBy.STOCK): ago(10),
    }
    assert closed_gates(closings, learnt, T0) == {
        ("a", "s1"): stock, ("b", "s1"): off, ("b", None): wallet, ("d", "s1"): price, ("e", "s1"): stock,
    }  # fmt: skip
    assert closed_gates(reversed(closings), learnt, T0) == closed_gates(closings, learnt, T0)
    assert closed_gates(closings, learnt, T0 + timedelta(hours=1)) == {}


# ---- asking again --------------------------------------------------------------------------------------------------


def _ages(capabilities: Capabilities, state: str) -> list[float]:
    ages, now = [], T0
    while isinstance(step := next_question(capabilities, state, T0, now), AskAt):
        now = step.at
        ages.append((now - T0).total_seconds())
    assert isinstance(step, AskAPerson)
    return ages


CLOCK = [2, 5, 15, 30, 60, *range(120, 601, 60), *range(900, 3601, 300), *range(7200, 86_401, 3600)]


@pytest.mark.parametrize(
    ("capabilities", "state", "ages"),
    [
        (Capabilities(), "unknown", CLOCK),
        (Capabilities(), "accepted", CLOCK),
        (Capabilities(callback=True), "unknown", CLOCK),  # a lost answer may be a lost callback: money waits
        (Capabilities(callback=True), "accepted", CLOCK[2:]),
        (Capabilities(callback=True, callback_batch_s=60), "accepted", CLOCK),  # the answer is there before the callback
    ],
)
def test_the_clock_of_asking(capabilities: Capabilities, state: str, ages: list[int]) -> None:
    quick = Capabilities(callback=capabilities.callback, callback_batch_s=capabilities.callback_batch_s, min_query_interval_s=0)
    assert _ages(quick, state) == ages


def test_a_slow_supplier_is_asked_at_its_own_pace() -> None:
    ages = _ages(Capabilities(min_query_interval_s=60), "unknown")
    assert ages[:3] == [60, 120, 180]
    assert all(later - earlier >= 60 for earlier, later in pairwise(ages))


@given(
    st.floats(0, 100_000), st.floats(0.1, 600), st.booleans(), st.floats(0, 120), st.sampled_from(["accepted", "unknown"]), st.booleans()
)
def test_waiting_always_has_an_end_that_is_a_person(
    age_s: float, interval_s: float, callback: bool, batch_s: float, state: str, can_look_up: bool
) -> None:
    now = T0 + timedelta(seconds=age_s)
    capabilities = Capabilities(callback=callback, callback_batch_s=batch_s, min_query_interval_s=interval_s)
    match next_question(capabilities, state, T0, now, can_look_up=can_look_up):
        case AskAt(at=at):
            assert can_look_up and age_s < 86_400
            assert at - now >= timedelta(seconds=interval_s) - timedelta(microseconds=2)
        case CallbackBy(at=at):
            assert callback and not can_look_up and now < at <= T0 + timedelta(hours=1, seconds=batch_s)
        case AskAPerson(why=why):
            assert why and (age_s >= 86_400 if can_look_up else not callback or age_s >= 3600)


def test_who_can_neither_be_asked_nor_calls_is_a_matter_for_a_person_at_once() -> None:
    assert isinstance(next_question(Capabilities(), AttemptState.UNKNOWN, T0, T0, can_look_up=False), AskAPerson)
    calls = Capabilities(callback=True)
    assert next_question(calls, AttemptState.UNKNOWN, T0, T0, can_look_up=False) == CallbackBy(T0 + timedelta(hours=1))


@pytest.mark.parametrize(("age_s", "due_s"), [(0, 15), (9, 15), (14, 15), (15, 30), (4000, 7200)])
def test_the_quiet_time_leaves_out_the_first_questions_only(age_s: int, due_s: int) -> None:
    assert next_look_up(T0, T0 + timedelta(seconds=age_s), 0.1, 10.0) == T0 + timedelta(seconds=due_s)


# ---- the page ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", ["suppliers.md", "suppliers.zh-CN.md"])
def test_the_page_about_suppliers_tells_what_the_table_says(page: str) -> None:
    lines = [line for line in (DOCS / page).read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    rows = {match[1]: line for line in lines if (match := re.match(r"\| `([a-z_.]+)`", line))}
    for key, row in TABLE.items():
        name = "refused_order" if key.startswith("refused_order") else key
        cells = [cell.strip() for cell in rows[name].split("|")[3:7]]
        words = [row.order.value, "yes" if row.another else "no", row.again.value, row.heard.value if row.heard else "–"]
        assert [cell.strip("`") for cell in cells] == words, name
    for reason, rule in answers.GATES.items():
        assert f"`{rule.scope.value}`" in rows[reason.value] and f"{rule.for_s:.0f} s" in rows[reason.value]
    for name in Capabilities.__dataclass_fields__:
        assert name in rows, name
