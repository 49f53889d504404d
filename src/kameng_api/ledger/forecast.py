"""How long money lasts at the rates it was spent at. No I/O. Amounts in 1/10000 units, rates in those per hour."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from kameng_api.kit.clock import wire_time
from kameng_api.kit.money import format_amount

_HOUR_S: Final = 3600
_FAR_S: Final = 20 * 366 * 86_400
"""What ends later ends on no date worth naming."""


@dataclass(frozen=True, slots=True)
class Rates:
    """What is spent in an hour, by the last hour, the last day and the last week."""

    last_hour: int = 0
    last_day: int = 0
    last_week: int = 0


def seconds_left(spendable: int, rates: Rates) -> int | None:
    """Until nothing is left; None when it is not spent at all.

    The last hour speaks for the next one, the last day for the next day, the last week for all that follows: a busy evening does not look as
    if it went on for ever, and a quiet night not as if the morning never came.
    """
    left, at_h = spendable, 0
    if left <= 0:
        return 0
    for upto_h, rate in ((1, rates.last_hour), (24, rates.last_day)):
        spent = rate * (upto_h - at_h)
        if spent >= left:
            return at_h * _HOUR_S + left * _HOUR_S // rate
        left, at_h = left - spent, upto_h
    later = rates.last_week or rates.last_day
    return at_h * _HOUR_S + left * _HOUR_S // later if later else None


def outlook(spendable: int, rates: Rates, now: datetime) -> dict[str, Any]:
    """What may be spent, how fast it goes, and when it ends, as `balance.low` and `GET /v1/balance/alerts` say it."""
    left_s = seconds_left(spendable, rates)
    return {
        "spendable": format_amount(spendable),
        "burn_rate_per_hour": {
            "last_hour": format_amount(rates.last_hour),
            "last_day": format_amount(rates.last_day),
            "last_week": format_amount(rates.last_week),
        },
        "empty_in_s": left_s,
        "empty_at": None if left_s is None or left_s > _FAR_S else wire_time(now + timedelta(seconds=left_s)),
    }
