"""Which channel next, which answer permits what, and when to ask again. No I/O, no clock.

`work.md`'s vocabulary: a live attempt may still deliver; only a definite failure frees its units for another channel.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final
from uuid import UUID

from kameng_api.suppliers.port import (
    Accepted,
    Capabilities,
    Delivered,
    NotFound,
    NotSent,
    Outcome,
    Refused,
    Reversed,
    Scope,
    Unknown,
)


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


@dataclass(frozen=True, slots=True)
class Candidate:
    """A channel that could be asked now. `cost` is what all units would cost; `wallet` None when unknown."""

    channel_id: str
    product_code: str
    cost: int
    price: int
    stock: int | None = None
    wallet: int | None = None
    enabled: bool = True
    healthy: bool = True


LOSS: Final = "would be sold at a loss"
NO_STOCK: Final = "not enough stock"
_AS_REFUSAL: Final = {LOSS: "price_exceeded", NO_STOCK: "out_of_stock"}


@dataclass(frozen=True, slots=True)
class Choice:
    """The channel chosen, and one sentence why."""

    candidate: Candidate
    reason: str


@dataclass(frozen=True, slots=True)
class NoChoice:
    """Nobody may be asked. `passed_over` names a reason per channel; `retry` when waiting may help."""

    passed_over: Mapping[str, str] = field(default_factory=dict)

    @property
    def refusals(self) -> list[str]:
        """What the filters that speak for a supplier would have said, as refusal reasons."""
        return [_AS_REFUSAL[why] for why in self.passed_over.values() if why in _AS_REFUSAL]

    @property
    def reason(self) -> str:
        return "; ".join(f"{channel}: {why}" for channel, why in self.passed_over.items()) or "no channel sells it"


def choose(
    candidates: Sequence[Candidate], units: int, tried: Mapping[str, str], *, allow_below_cost: bool = False
) -> Choice | NoChoice:
    """The cheapest healthy offer not tried yet, by hard filters in a fixed order; each channel leaves its reason.

    `tried` maps channel → what became of it. An unhealthy channel is asked only when no healthy one is left.
    """
    passed: dict[str, str] = {}
    open_: list[Candidate] = []
    for c in candidates:
        why = _why_not(c, units, tried, allow_below_cost)
        if why is None:
            open_.append(c)
        else:
            passed[c.channel_id] = why
    if not open_:
        return NoChoice(passed)
    best = min(open_, key=lambda c: (not c.healthy, c.cost, c.channel_id))
    others = [f"{c.channel_id}: {'unhealthy' if not c.healthy else 'dearer'}" for c in open_ if c is not best]
    others += [f"{channel}: {why}" for channel, why in passed.items()]
    why = "cheapest healthy offer" if best.healthy else "no healthy offer is left"
    return Choice(best, why + (f" ({'; '.join(others)})" if others else ""))


def _why_not(c: Candidate, units: int, tried: Mapping[str, str], allow_below_cost: bool) -> str | None:
    if not c.enabled:
        return "disabled"
    if c.cost > c.price and not allow_below_cost:
        return LOSS
    if c.stock is not None and c.stock < units:
        return NO_STOCK
    if c.wallet is not None and c.wallet < c.cost:
        return "our wallet there is too low"
    if c.channel_id in tried:
        return f"already tried, {tried[c.channel_id]}"
    return None


def may_try_another(outcome: Outcome) -> bool:
    """True only where nothing more can come of the attempt and another channel may do better."""
    match outcome:
        case Refused(scope=Scope.CHANNEL) | NotSent():
            return True
        case _:
            return False


def outcome_word(outcome: Outcome) -> str:
    """The outcome's name as stored beside the raw answer and counted in metrics."""
    match outcome:
        case Delivered():
            return "delivered"
        case Accepted():
            return "accepted"
        case Refused(scope=Scope.ORDER):
            return "refused_order"
        case Refused():
            return "refused_channel"
        case NotSent():
            return "not_sent"
        case NotFound():
            return "not_found"
        case Reversed():
            return "reversed"
        case Unknown():
            return "unknown"


_EARLY_S: Final = (2, 5, 15, 30, 60)


def next_look_up(first_at: datetime, now: datetime, min_interval_s: float) -> datetime | None:
    """When to ask again: at ages 2 s, 5 s, 15 s, 30 s, 1 min, each minute to 10 min, each 5 min to 1 h, hourly to 24 h; then None.

    `first_at` is when the attempt was sent. Never sooner than the supplier's own minimum interval.
    """
    age = (now - first_at).total_seconds()
    if age >= 24 * 3600:
        return None
    for at in _EARLY_S:
        if at > age:
            due = float(at)
            break
    else:
        step = 60 if age < 600 else 300 if age < 3600 else 3600
        due = (age // step + 1) * step
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
