"""When a webhook is sent again, when an endpoint is given up, and how fast each one is called. No I/O, no clock."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Final

from kameng_api.tasks.rules import Lane

MAX_ENDPOINTS: Final = 16
SECRET_OVERLAP: Final = timedelta(hours=24)
CONNECT_TIMEOUT_S: Final = 5.0
TOTAL_TIMEOUT_S: Final = 15.0
MAX_ANSWER_BYTES: Final = 16 * 1024

RETRY_DELAYS: Final[tuple[timedelta, ...]] = (
    timedelta(seconds=5),
    timedelta(seconds=30),
    timedelta(minutes=2),
    timedelta(minutes=5),
    timedelta(minutes=15),
    timedelta(minutes=30),
    timedelta(hours=1),
    timedelta(hours=2),
    timedelta(hours=4),
    timedelta(hours=8),
    timedelta(hours=12),
    timedelta(hours=24),
    timedelta(hours=24),
)
"""After the first failure, the second, …; then the delivery is given up, and stays on record."""
MAX_ATTEMPTS: Final = len(RETRY_DELAYS) + 1
_JITTER: Final = 0.2

DISABLE_AFTER: Final = timedelta(days=5)
DISABLE_FAILURES: Final = 20


DOOR_RECEIVER: Final = "door:"
"""A `notify_url` that begins with it is no URL: a door tells the merchant, in its own format (lane `door`, see `orders.foreign`)."""
DOOR_EVENTS: Final = ("order.succeeded", "order.partially_succeeded", "order.failed", "order.cancelled", "order.refunded")
"""What doors tell: that an order has ended, and what became of its money after that."""


class State(StrEnum):
    """Where one event stands with one receiver."""

    PENDING = "pending"  # a task will try it
    DELIVERED = "delivered"  # answered with 2xx
    GIVEN_UP = "given_up"  # every retry failed; replay-missing and resend take it up again
    HELD = "held"  # its endpoint was disabled; replay-missing and resend take it up again


class Trouble(StrEnum):
    """Why an attempt failed, as the attempts log shows it. Nothing the receiver wrote is in it."""

    ADDRESS_REFUSED = "address_refused"  # the name leads to an address that is not public; nothing was sent
    CONNECT_FAILED = "connect_failed"  # no name, refused, or no TLS
    TIMED_OUT = "timed_out"  # 5 s to connect, 15 s in all
    BROKEN_OFF = "broken_off"  # the connection ended before an answer
    REDIRECTED = "redirected"  # 3xx is not followed
    NOT_2XX = "not_2xx"
    NOT_ACKNOWLEDGED = "not_acknowledged"  # a door's callback was answered, but not with its acknowledgement


@dataclass(frozen=True, slots=True)
class Reply:
    """What came of one call: a status, or the trouble that stood in its place. `took_s` in seconds."""

    took_s: float
    http_status: int | None = None
    retry_after: str | None = None
    trouble: Trouble | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What follows from a reply. `retry_in` is set exactly when the delivery stays pending."""

    state: State
    retry_in: timedelta | None = None
    disable: bool = False


def trouble_of(reply: Reply) -> Trouble | None:
    """None exactly when the receiver has heard: 2xx and nothing else."""
    if reply.http_status is None:
        return reply.trouble or Trouble.BROKEN_OFF
    if 200 <= reply.http_status < 300:
        return None
    return Trouble.REDIRECTED if 300 <= reply.http_status < 400 else Trouble.NOT_2XX


def judge(reply: Reply, attempts: int, now: datetime, chance: float, *, endpoint: bool = True) -> Verdict:
    """The verdict after attempt number `attempts` (the first is 1); `chance` in [0, 1) spreads the retries.

    `endpoint` is False for an order's notify_url: after a 410 there is nothing to disable, and nothing to replay to.
    """
    if trouble_of(reply) is None:
        return Verdict(State.DELIVERED)
    if reply.http_status == 410:
        return Verdict(State.HELD, disable=True) if endpoint else Verdict(State.GIVEN_UP)
    delay = retry_delay(attempts, chance)
    if delay is None:
        return Verdict(State.GIVEN_UP)
    wished = parse_retry_after(reply.retry_after, now)
    return Verdict(State.PENDING, delay if wished is None else min(max(wished, delay), 2 * delay))


def retry_delay(attempts: int, chance: float) -> timedelta | None:
    """How long after failed attempt number `attempts`, ±20 % by `chance`; None when it was the last."""
    if attempts > len(RETRY_DELAYS):
        return None
    return RETRY_DELAYS[max(attempts, 1) - 1] * (1 - _JITTER + 2 * _JITTER * chance)


def parse_retry_after(value: str | None, now: datetime) -> timedelta | None:
    """A `Retry-After` header: seconds or an HTTP date; None for anything else."""
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        return timedelta(seconds=int(text[:9]))
    try:
        at = parsedate_to_datetime(text)
    except (ValueError, IndexError, OverflowError):
        return None
    return max((at if at.tzinfo else at.replace(tzinfo=UTC)) - now, timedelta())


def should_disable(failures: int, first_failure_at: datetime | None, now: datetime) -> bool:
    """Five days without success and at least 20 failures. Days count from the first failure since the last success: an
    endpoint that had nothing to receive for a week has not failed for a week."""
    return failures >= DISABLE_FAILURES and first_failure_at is not None and now - first_failure_at >= DISABLE_AFTER


def lane_of(notify_url: str | None) -> Lane:
    """Which lane a delivery waits in."""
    return Lane.DOOR if notify_url is not None and notify_url.startswith(DOOR_RECEIVER) else Lane.WEBHOOK


def wants(event_types: Sequence[str], event_type: str) -> bool:
    """No types named: all of them."""
    return not event_types or event_type in event_types


def range_end(xids: Sequence[int], limit: int, horizon: int) -> int:
    """Where a fan-out range ends (exclusive) that begins with these sorted transaction ids, at most `limit` + 1.

    A transaction is never cut in two, however many events it recorded.
    """
    if len(xids) <= limit:
        return horizon
    return xids[-1] if xids[-1] > xids[0] else xids[0] + 1


# --- how fast one receiver is called ---------------------------------------------------------------------------------

FIRST_LIMIT: Final = 10
QUICK_S: Final = 1.0
"""A call that takes longer no longer counts against the calls that others may have in flight."""
_TRIP_AFTER: Final = 5
_FIRST_PAUSE_S: Final = 5.0
_LONGEST_PAUSE_S: Final = 60.0
_LOOK_AHEAD_S: Final = 1.0
_FIRST_GUESS_S: Final = 0.02
_LONGEST_BOOKING_S: Final = 30.0
_LONGEST_GUESSED_BOOKING_S: Final = 2.0
_ENOUGH_ANSWERS: Final = 5


class Pace:
    """How one process calls one receiver: few calls until it proves quick, none for a while when it keeps failing.

    The limit of calls in flight grows by one with each quick success and halves with each failure; after five failures
    in a row the receiver is paused for 5 s, doubling to 60 s, and then tried with one call. All times are seconds of
    one monotonic clock.
    """

    __slots__ = (
        "_answers",
        "_in_a_row",
        "_last_success",
        "_latency_s",
        "_most",
        "_next_slot",
        "_pause_s",
        "in_flight",
        "limit",
        "paused_until",
    )

    def __init__(self, most: int) -> None:
        self._most = most
        self.limit = min(FIRST_LIMIT, most)
        self.in_flight: dict[object, float] = {}  # call → when it started, oldest first
        self.paused_until = 0.0
        self._pause_s = 0.0
        self._in_a_row = 0
        self._last_success = -_LONGEST_PAUSE_S
        self._latency_s = _FIRST_GUESS_S
        self._answers = 0
        self._next_slot = 0.0

    def may_start(self, now: float) -> bool:
        return now >= self.paused_until and len(self.in_flight) < self.limit and not self.hangs(now)

    def hangs(self, now: float) -> bool:
        """A call has been out for far longer than usual, and no other one has succeeded meanwhile."""
        if not self.in_flight:
            return False
        patience = min(max(QUICK_S, 4 * self._latency_s), CONNECT_TIMEOUT_S)
        return now - max(next(iter(self.in_flight.values())), self._last_success) > patience

    def start(self, call: object, now: float) -> None:
        self.in_flight[call] = now

    def end(self, call: object, now: float, *, success: bool) -> None:
        took = now - self.in_flight.pop(call)
        self._answers += 1
        if success:
            self._heard(took, now)
        else:
            self._failed(now)

    def _heard(self, took: float, now: float) -> None:
        self._latency_s += (took - self._latency_s) * 0.2
        self._last_success = now
        self._in_a_row = 0
        self._pause_s = 0.0
        self.paused_until = 0.0
        if took <= QUICK_S:
            self.limit = min(self._most, self.limit + 1)
        else:
            self.limit = max(min(FIRST_LIMIT, self._most), self.limit - 1)

    def _failed(self, now: float) -> None:
        self.limit = max(1, self.limit // 2)
        self._in_a_row += 1
        if self._in_a_row >= _TRIP_AFTER and now >= self.paused_until:
            self._pause_s = min(max(2 * self._pause_s, _FIRST_PAUSE_S), _LONGEST_PAUSE_S)
            self.paused_until = now + self._pause_s
            self.limit = 1

    def room(self, waiting: int, now: float) -> int:
        """How many more may wait here beside the `waiting` ones: what the receiver should take within a second."""
        if now < self.paused_until or self.hangs(now):
            return 0
        per_s = self.limit / max(self._latency_s, 0.001)
        return max(int(per_s * _LOOK_AHEAD_S) + self.limit - waiting, 0)

    def book(self, now: float, chance: float) -> float:
        """Seconds until one that found no room should be looked at again; each booking takes a slot of its own."""
        if now < self.paused_until:
            return self.paused_until - now + chance
        known = self._answers >= _ENOUGH_ANSWERS or self.hangs(now)
        farthest = _LONGEST_BOOKING_S if known else _LONGEST_GUESSED_BOOKING_S
        step = max(self._latency_s, 0.001) / max(self.limit, 1)
        first = now + (_FIRST_PAUSE_S if self.hangs(now) else _LOOK_AHEAD_S / 2)
        slot = max(self._next_slot, first) + step
        if slot - now > farthest:
            return farthest * (0.5 + 0.5 * chance)
        self._next_slot = slot
        return slot - now

    def idle(self, now: float) -> bool:
        """Nothing known that would be missed if this were forgotten."""
        return not self.in_flight and self._in_a_row == 0 and now >= self.paused_until
