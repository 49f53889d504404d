"""When a webhook is sent again, and when nobody tries any more."""

from datetime import UTC, datetime, timedelta

import pytest

from kameng_api.webhooks import rules
from kameng_api.webhooks.rules import Pace, Reply, State, Trouble, judge

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
SCHEDULE_S = [5, 30, 120, 300, 900, 1800, 3600, 7200, 14400, 28800, 43200, 86400, 86400]


def failed(status: int = 500, retry_after: str | None = None) -> Reply:
    return Reply(0.1, status, retry_after)


def test_the_schedule_is_the_contracts() -> None:
    assert [d.total_seconds() for d in rules.RETRY_DELAYS] == SCHEDULE_S
    assert rules.MAX_ATTEMPTS == 14


@pytest.mark.parametrize(("attempt", "delay_s"), list(enumerate(SCHEDULE_S, start=1)))
def test_each_retry_waits_its_delay_within_a_fifth(attempt: int, delay_s: int) -> None:
    for chance, factor in ((0.0, 0.8), (0.5, 1.0), (0.999999, 1.2)):
        verdict = judge(failed(), attempt, NOW, chance)
        assert verdict.state == State.PENDING
        assert verdict.retry_in is not None
        assert verdict.retry_in.total_seconds() == pytest.approx(delay_s * factor, rel=1e-4)


def test_the_last_failure_is_given_up_and_not_dropped() -> None:
    assert judge(failed(), 13, NOW, 0.5).retry_in is not None
    assert judge(failed(), 14, NOW, 0.5) == rules.Verdict(State.GIVEN_UP)


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_only_2xx_is_success(status: int) -> None:
    assert judge(Reply(0.1, status), 1, NOW, 0.5) == rules.Verdict(State.DELIVERED)


@pytest.mark.parametrize(
    ("reply", "trouble"),
    [
        (failed(199), Trouble.NOT_2XX),
        (failed(301), Trouble.REDIRECTED),
        (failed(308), Trouble.REDIRECTED),
        (failed(404), Trouble.NOT_2XX),
        (failed(410), Trouble.NOT_2XX),
        (failed(429), Trouble.NOT_2XX),
        (failed(503), Trouble.NOT_2XX),
        (Reply(15.0, trouble=Trouble.TIMED_OUT), Trouble.TIMED_OUT),
        (Reply(0.0, trouble=Trouble.ADDRESS_REFUSED), Trouble.ADDRESS_REFUSED),
        (Reply(0.0), Trouble.BROKEN_OFF),
    ],
)
def test_everything_else_is_trouble_with_a_name(reply: Reply, trouble: Trouble) -> None:
    assert rules.trouble_of(reply) == trouble
    assert judge(reply, 1, NOW, 0.5).state != State.DELIVERED


@pytest.mark.parametrize(
    ("retry_after", "waits_s"),
    [
        ("7", 7),
        ("0", 5),  # not sooner than the schedule
        ("86400", 10),  # not later than twice the schedule
        ("999999999999999999999", 10),
        ("Sun, 22 Nov 2026 12:00:08 GMT", 8),
        ("Sun, 22 Nov 2026 11:00:00 GMT", 5),
        ("Sun, 22 Nov 2099 11:00:00 GMT", 10),
        ("soon", 5),
        ("-3", 5),
        ("７", 5),
        ("", 5),
        (None, 5),
    ],
)
def test_retry_after_is_honoured_between_once_and_twice_the_delay(retry_after: str | None, waits_s: int) -> None:
    verdict = judge(failed(503, retry_after), 1, NOW, 0.5)
    assert verdict.retry_in == timedelta(seconds=waits_s)


def test_gone_disables_the_endpoint_and_keeps_the_event() -> None:
    assert judge(failed(410), 1, NOW, 0.5) == rules.Verdict(State.HELD, disable=True)
    assert judge(failed(410), 1, NOW, 0.5, endpoint=False) == rules.Verdict(State.GIVEN_UP)


@pytest.mark.parametrize(
    ("failures", "days", "disabled"),
    [(20, 5, True), (19, 5, False), (1000, 4.99, False), (20, 30, True), (0, 30, False)],
)
def test_five_days_and_twenty_failures_disable(failures: int, days: float, disabled: bool) -> None:
    assert rules.should_disable(failures, NOW - timedelta(days=days), NOW) is disabled
    assert not rules.should_disable(failures, None, NOW)


@pytest.mark.parametrize(
    ("xids", "limit", "end"),
    [
        ([7], 3, 100),
        ([7, 7, 8], 3, 100),
        ([7, 8, 8, 9], 3, 9),  # 9 and what shares its transaction come next time
        ([7, 8, 9, 9], 3, 9),
        ([7, 7, 7, 7], 3, 8),  # one transaction larger than the limit is taken whole
    ],
)
def test_a_range_never_cuts_a_transaction(xids: list[int], limit: int, end: int) -> None:
    assert rules.range_end(xids, limit, 100) == end


# --- pace ---


def test_a_quick_receiver_earns_more_calls_up_to_its_limit() -> None:
    pace = Pace(50)
    assert pace.limit == rules.FIRST_LIMIT
    for i in range(100):
        pace.start(i, i * 0.01)
        pace.end(i, i * 0.01 + 0.005, success=True)
    assert pace.limit == 50
    assert Pace(3).limit == 3


def test_a_receiver_that_fails_is_paused_for_longer_and_longer_and_then_tried_with_one_call() -> None:
    pace, now, pauses = Pace(50), 100.0, []
    for i in range(12):
        if i >= 5:
            now = pace.paused_until
        assert pace.may_start(now)
        pace.start(i, now)
        pace.end(i, now, success=False)
        if not pace.may_start(now):
            pauses.append(pace.paused_until - now)
            assert pace.room(0, now) == 0
            assert pace.book(now, 0.0) >= pace.paused_until - now
    assert pauses[:6] == [5, 10, 20, 40, 60, 60]
    now = pace.paused_until
    pace.start("one", now)
    assert not pace.may_start(now)  # one at a time until it succeeds
    pace.end("one", now + 0.01, success=True)
    assert pace.may_start(now + 0.01)
    assert pace.limit == 2


def test_a_receiver_that_hangs_gets_nothing_more_until_it_answers() -> None:
    pace = Pace(50)
    pace.start("a", 0.0)
    assert pace.may_start(0.5)
    assert not pace.may_start(1.5)
    assert pace.room(0, 1.5) == 0
    pace.end("a", 15.0, success=False)
    assert pace.may_start(15.0)


def test_one_lost_call_does_not_stop_a_receiver_that_answers_the_others() -> None:
    pace = Pace(50)
    pace.start("lost", 0.0)
    for i in range(1, 140):
        now = i * 0.1
        assert pace.may_start(now)
        pace.start(i, now)
        pace.end(i, now + 0.01, success=True)


def test_bookings_spread_over_what_the_receiver_can_take() -> None:
    pace = Pace(10)
    for i in range(20):  # 0.5 s each, ten at a time: 20 a second
        pace.start(i, i * 0.5)
        pace.end(i, i * 0.5 + 0.5, success=True)
    now = 10.0
    booked = [pace.book(now, 0.5) for _ in range(100)]
    assert booked == sorted(booked)
    assert 3.5 <= booked[-1] - booked[0] <= 6.5
    assert all(pace.book(now, 0.5) <= 30.0 for _ in range(10_000))
