"""What an attempt may become, which answer permits what, and when to ask again. No I/O, no clock.

`work.md`'s vocabulary: a live attempt may still deliver; only a definite failure frees its units for another channel.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final
from uuid import UUID

from kameng_api.kit.ids import derived_ulid
from kameng_api.suppliers.answers import class_of
from kameng_api.suppliers.port import Capabilities, Outcome


class AttemptState(StrEnum):
    """Where an attempt to buy stands."""

    CREATED = "created"  # written, not yet claimed for sending
    SUBMITTING = "submitting"  # our reference is written; the call may be on its way
    ACCEPTED = "accepted"  # the supplier works on it
    UNKNOWN = "unknown"  # it may or may not deliver; only evidence ends this
    DELIVERED = "delivered"  # final
    REFUSED = "refused"  # final: definitely not delivered
    NOT_SENT = "not_sent"  # final: provably never asked


LIVE: Final = frozenset(
    {AttemptState.CREATED, AttemptState.SUBMITTING, AttemptState.ACCEPTED, AttemptState.UNKNOWN}
)

STEPS: Final[Mapping[AttemptState, frozenset[AttemptState]]] = {
    AttemptState.CREATED: frozenset({AttemptState.SUBMITTING}),
    AttemptState.SUBMITTING: frozenset(
        {
            AttemptState.ACCEPTED,
            AttemptState.DELIVERED,
            AttemptState.REFUSED,
            AttemptState.NOT_SENT,
            AttemptState.UNKNOWN,
        }
    ),
    AttemptState.ACCEPTED: frozenset({AttemptState.DELIVERED, AttemptState.REFUSED, AttemptState.UNKNOWN}),
    AttemptState.UNKNOWN: frozenset({AttemptState.DELIVERED, AttemptState.REFUSED}),
    AttemptState.DELIVERED: frozenset(),
    AttemptState.REFUSED: frozenset(),
    AttemptState.NOT_SENT: frozenset(),
}


@dataclass(slots=True)
class Attempt:
    """One try to buy units of an order from one channel. Amounts in 1/10000 units. Changed only under its order's lock."""

    book_id: int
    attempt_id: UUID
    order_id: UUID
    n: int
    channel_id: str
    product_code: str
    units: int
    state: str
    currency: str
    cost: int
    reference: str
    reason: str
    sent_at: datetime
    delivered_units: int = 0
    actual_cost: int | None = None
    supplier_order_no: str | None = None
    refusal: str | None = None
    trouble: str | None = None
    look_ups: int = 0
    not_found_first_at: datetime | None = None
    reversed_amount: int = 0
    unknown_since: datetime | None = None
    settled_at: datetime | None = None
    sku: str | None = None
    price: int | None = None
    loss_allowed: bool = False
    probe: bool = False

    @property
    def key(self) -> tuple[int, UUID]:
        return self.book_id, self.attempt_id

    @property
    def live(self) -> bool:
        return self.state in LIVE

    def step(self, to: AttemptState) -> None:
        """The only way an attempt changes its state. An illegal step is a bug: stop."""
        assert to in STEPS[AttemptState(self.state)], f"attempt {self.state} → {to}"
        self.state = to.value


def attempt_id_of(order_id: UUID, n: int) -> UUID:
    """The id, and with it our reference, of an order's `n`-th attempt: known before it is made, and still when its row was lost."""
    return derived_ulid(order_id, f"attempt:{n}")


def may_try_another(outcome: Outcome) -> bool:
    """True only where nothing more can come of the attempt and another channel may do better; the table of answers says where."""
    return class_of(outcome).another


def outcome_word(outcome: Outcome) -> str:
    """The outcome's name as stored beside the raw answer and counted in metrics."""
    return class_of(outcome).word


# ---- asking again ----------------------------------------------------------------------------------------------------

_EARLY_S: Final = (2, 5, 15, 30, 60)
ASKED_FOR_S: Final = 24 * 3600
"""Age at which asking ends and a person takes over; an attempt is never failed by its age."""
CALLBACK_FIRST_S: Final = 10.0
"""So long a supplier that calls back is left to do so. One that collects its callbacks for longer is asked from the beginning."""
CALLBACK_ONLY_S: Final = 3600.0
"""How long a supplier that can only call back may take before a person asks it."""


@dataclass(frozen=True, slots=True)
class AskAt:
    """Look up at `at`, unless a verdict has come by then."""

    at: datetime


@dataclass(frozen=True, slots=True)
class CallbackBy:
    """Only its callback can tell; at `at` the waiting ends."""

    at: datetime


@dataclass(frozen=True, slots=True)
class AskAPerson:
    """Nobody can be asked by a machine any more. The attempt stays as it is: manual review, never failed by itself."""

    why: str


def next_question(
    capabilities: Capabilities, state: str, sent_at: datetime, now: datetime, *, can_look_up: bool = True
) -> AskAt | CallbackBy | AskAPerson:
    """What to do next about an attempt that is `accepted` or `unknown` and has no verdict at `now`."""
    if can_look_up:
        promised = state == AttemptState.ACCEPTED and capabilities.callback and capabilities.callback_batch_s < CALLBACK_FIRST_S
        at = next_look_up(sent_at, now, capabilities.min_query_interval_s, CALLBACK_FIRST_S if promised else 0.0)
        return AskAPerson("no verdict after 24 hours of asking") if at is None else AskAt(at)
    if not capabilities.callback:
        return AskAPerson("the supplier cannot be asked: a person must find out")
    end = sent_at + timedelta(seconds=CALLBACK_ONLY_S + capabilities.callback_batch_s)
    return CallbackBy(end) if now < end else AskAPerson("no callback came, and the supplier cannot be asked")


def next_look_up(first_at: datetime, now: datetime, min_interval_s: float, quiet_s: float = 0.0) -> datetime | None:
    """When to ask again: at ages 2 s, 5 s, 15 s, 30 s, 1 min, each minute to 10 min, each 5 min to 1 h, hourly to 24 h; then None.

    `first_at` is when the attempt was sent. Never sooner than the supplier's own minimum interval; the ages up to `quiet_s` are left out.
    """
    age = (now - first_at).total_seconds()
    if age >= ASKED_FOR_S:
        return None
    awake = max(age, quiet_s)
    for at in _EARLY_S:
        if at > awake:
            due = float(at)
            break
    else:
        step = 60 if awake < 600 else 300 if awake < 3600 else 3600
        due = (awake // step + 1) * step
    return first_at + timedelta(seconds=max(due, age + min_interval_s))


def not_found_proves_nothing_bought(
    capabilities: Capabilities, sent_at: datetime, first_not_found_at: datetime | None, now: datetime
) -> bool:
    """A "not found" counts as a final no only where certified, after the grace, and when said twice with time between."""
    if not capabilities.not_found_is_final or first_not_found_at is None:
        return False
    grace = timedelta(seconds=capabilities.not_found_grace_s)
    apart = min(grace, timedelta(seconds=60))
    return now - sent_at >= grace and now - first_not_found_at >= apart
