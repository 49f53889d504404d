"""How long money lasts: the last hour speaks for the next one, the last day for the next day, the last week for what follows."""

from datetime import UTC, datetime

import pytest

from kameng_api.ledger.forecast import Rates, outlook, seconds_left
from kameng_api.merchants.alerts import AMOUNT, HOURS_LEFT, Limits, crossed, recovered


@pytest.mark.parametrize(
    ("spendable", "rates", "left_s"),
    [
        (0, Rates(), 0),
        (-5, Rates(100, 100, 100), 0),
        (100, Rates(), None),
        (50, Rates(last_hour=100), 1800),
        (100, Rates(last_hour=100), 3600),
        (200, Rates(last_hour=100), None),  # one busy hour after an idle day: nothing says that it goes on
        (100 + 230, Rates(100, 10, 10), 24 * 3600),
        (100 + 115, Rates(100, 10, 5), 12 * 3600 + 1800),
        (240 + 50, Rates(10, 10, 5), 34 * 3600),
        (240 + 50, Rates(10, 10, 0), 29 * 3600),  # too young for a week: the day speaks for it
        (10, Rates(0, 0, 1), 34 * 3600),
    ],
)
def test_each_window_speaks_for_its_own_length(spendable: int, rates: Rates, left_s: int | None) -> None:
    assert seconds_left(spendable, rates) == left_s


def test_what_never_ends_has_no_date() -> None:
    now = datetime(2026, 11, 23, tzinfo=UTC)
    assert outlook(10**15, Rates(1, 1, 1), now)["empty_at"] is None
    shown = outlook(36_0000, Rates(36_0000, 0, 0), now)
    assert (shown["spendable"], shown["empty_in_s"], shown["empty_at"]) == ("36.0000", 3600, "2026-11-23T01:00:00.000Z")


def test_crossing_and_recovery_leave_a_band_between_them() -> None:
    limits = Limits(amount=1000, hours_left=10)
    assert crossed(limits, 999, None) == AMOUNT
    assert crossed(limits, 1000, None) is None
    assert crossed(limits, 1000, 10 * 3600 - 1) == HOURS_LEFT
    assert crossed(limits, 1000, 10 * 3600) is None
    assert crossed(Limits(), -1, 0) is None
    assert not recovered(limits, 1099, None)
    assert recovered(limits, 1100, None)
    assert not recovered(limits, 5000, 12 * 3600 - 1)
    assert recovered(limits, 5000, 12 * 3600)
    assert recovered(Limits(), 0, 0)  # nothing is watched any more
