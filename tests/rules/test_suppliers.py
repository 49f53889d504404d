"""Which channel next, when to ask again, and what proves that nothing was bought."""

from datetime import UTC, datetime, timedelta
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.factories.orders import an_attempt

from kameng_api.suppliers.port import (
    Accepted,
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
from kameng_api.suppliers.rules import (
    LIVE,
    AttemptState,
    may_try_another,
    next_look_up,
    not_found_proves_nothing_bought,
    outcome_word,
)

T0 = datetime(2026, 11, 22, tzinfo=UTC)

ALLOWED = {
    "created": {"submitting"},
    "submitting": {"accepted", "delivered", "refused", "not_sent", "unknown"},
    "accepted": {"delivered", "refused", "unknown"},
    "unknown": {"delivered", "refused"},
}


@pytest.mark.parametrize(("have", "to"), list(product(AttemptState, AttemptState)))
def test_an_attempt_takes_only_the_steps_of_the_note_on_work(have: AttemptState, to: AttemptState) -> None:
    attempt = an_attempt(have.value)
    if to.value in ALLOWED.get(have.value, set()):
        attempt.step(to)
        assert attempt.state == to
    else:
        with pytest.raises(AssertionError):
            attempt.step(to)
        assert attempt.state == have


def test_what_is_live_may_still_deliver_and_what_is_not_never_leaves() -> None:
    assert {s for s in AttemptState if an_attempt(s.value).live} == LIVE == {AttemptState(s) for s in ALLOWED}


OUTCOMES: list[tuple[Outcome, str, bool]] = [
    (Delivered(1), "delivered", False),
    (Accepted(), "accepted", False),
    (Refused(Scope.CHANNEL, RefusalReason.OUT_OF_STOCK), "refused_channel", True),
    (Refused(Scope.ORDER, RefusalReason.TARGET_INVALID), "refused_order", False),
    (NotSent("x"), "not_sent", True),
    (NotSent("x", Cause.UNSAYABLE), "unsayable", True),
    (Unknown("x"), "unknown", False),
    (Unknown("x", needs_person=True), "unknown", False),
    (NotFound(), "not_found", False),
    (Reversed("r"), "reversed", False),
]


@pytest.mark.parametrize(("outcome", "word", "another"), OUTCOMES)
def test_only_a_definite_failure_of_the_channel_permits_another(outcome: Outcome, word: str, another: bool) -> None:
    assert outcome_word(outcome) == word
    assert may_try_another(outcome) is another


# ---- asking again --------------------------------------------------------------------------------------------------


def test_the_look_up_schedule_is_the_one_written_down() -> None:
    ages, now = [], T0
    while (at := next_look_up(T0, now, 0.0)) is not None:
        ages.append(int((at - T0).total_seconds()))
        now = at
    minutes = [60 * m for m in range(2, 11)]
    fives = [600 + 300 * n for n in range(1, 11)]
    hours = [3600 * h for h in range(2, 25)]
    assert ages == [2, 5, 15, 30, 60, *minutes, *fives, *hours]


@given(age_s=st.floats(0, 100_000), interval_s=st.floats(0.1, 600))
def test_nobody_is_asked_sooner_than_he_allows_or_in_the_past(age_s: float, interval_s: float) -> None:
    now = T0 + timedelta(seconds=age_s)
    at = next_look_up(T0, now, interval_s)
    if age_s >= 86_400:
        assert at is None
    else:
        assert at is not None
        assert at - now >= timedelta(seconds=interval_s) - timedelta(microseconds=2)
        assert at - now <= timedelta(seconds=max(3600, interval_s) + 1)


@pytest.mark.parametrize(
    ("flagged", "age_s", "first_ago_s", "proven"),
    [
        (True, 300, 60, True),
        (True, 299, 60, False),
        (True, 300, 59, False),
        (True, 300, None, False),
        (True, 10_000, 9_999, True),
        (False, 10_000, 9_999, False),
    ],
)
def test_not_found_proves_something_only_when_certified_late_and_said_twice(
    flagged: bool, age_s: int, first_ago_s: int | None, proven: bool
) -> None:
    now = T0 + timedelta(seconds=age_s)
    first = None if first_ago_s is None else now - timedelta(seconds=first_ago_s)
    assert not_found_proves_nothing_bought(Capabilities(not_found_is_final=flagged, not_found_grace_s=300), T0, first, now) is proven
