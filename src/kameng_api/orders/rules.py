"""States of an order and the steps between them; what each answer of a supplier does to an order. No I/O, no clock."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final
from uuid import UUID


class Status(StrEnum):
    """What a merchant sees."""

    ACCEPTED = "accepted"  # validated, money held, nothing asked of a supplier yet
    PROCESSING = "processing"  # see the substatus
    SUCCEEDED = "succeeded"
    PARTIALLY_SUCCEEDED = "partially_succeeded"  # some units delivered, the rest refunded
    FAILED = "failed"  # nothing delivered, the hold is released
    CANCELLED = "cancelled"  # by the merchant, before dispatch


class Substatus(StrEnum):
    """Where a processing order stands."""

    DISPATCHING = "dispatching"  # a supplier is being chosen or asked
    AWAITING_SUPPLIER = "awaiting_supplier"  # a supplier works on it
    OUTCOME_UNKNOWN = "outcome_unknown"  # it may have been delivered; only evidence decides
    MANUAL_REVIEW = "manual_review"  # a person decides


FINAL: Final = frozenset({Status.SUCCEEDED, Status.PARTIALLY_SUCCEEDED, Status.FAILED, Status.CANCELLED})

STEPS: Final[Mapping[Status, frozenset[Status]]] = {
    Status.ACCEPTED: frozenset({Status.PROCESSING, Status.CANCELLED}),
    Status.PROCESSING: frozenset({Status.SUCCEEDED, Status.PARTIALLY_SUCCEEDED, Status.FAILED}),
    Status.SUCCEEDED: frozenset(),
    Status.PARTIALLY_SUCCEEDED: frozenset(),
    Status.FAILED: frozenset(),
    Status.CANCELLED: frozenset(),
}


class FailureCode(StrEnum):
    """Why an order failed, for the merchant."""

    SUPPLIER_REJECTED = "supplier_rejected"
    TARGET_INVALID = "target_invalid"
    TARGET_NOT_ELIGIBLE = "target_not_eligible"
    OUT_OF_STOCK = "out_of_stock"
    PRICE_EXCEEDED = "price_exceeded"
    DEADLINE_PASSED = "deadline_passed"
    ALL_CHANNELS_REFUSED = "all_channels_refused"
    CANCELLED_BY_OPERATOR = "cancelled_by_operator"


@dataclass(slots=True)
class Order:
    """One order as stored. Amounts in 1/10000 units, times aware UTC. Changed only under its row lock.

    `committed_units` = units of live attempts + delivered units ≤ quantity: the guard beside the one-live-attempt index.
    """

    book_id: int
    order_id: UUID
    merchant_order_no: str
    fingerprint: bytes = field(repr=False)
    environment: str
    sku: str
    product_type: str
    quantity: int
    unit_price: int
    amount: int
    currency: str
    deadline_at: datetime
    created_at: datetime
    status: str = Status.ACCEPTED.value
    substatus: str | None = None
    version: int = 1
    committed_units: int = 0
    delivered_units: int = 0
    target_sealed: bytes | None = field(default=None, repr=False)
    target_masked: str | None = field(default=None, repr=False)
    target_hash: bytes | None = field(default=None, repr=False)
    fields_sealed: bytes | None = field(default=None, repr=False)
    face_value: int | None = None
    captured: int = 0
    refunded: int = 0
    codes_count: int = 0
    failure_code: str | None = None
    receipt: str | None = None
    review: str | None = None
    notify_url: str | None = field(default=None, repr=False)
    metadata: bytes = field(default=b"{}", repr=False)
    dispatched_at: datetime | None = None
    delivered_at: datetime | None = None
    completed_at: datetime | None = None

    @property
    def key(self) -> tuple[int, UUID]:
        return self.book_id, self.order_id

    @property
    def final(self) -> bool:
        return self.status in FINAL

    @property
    def remaining_units(self) -> int:
        """Units that no live attempt works on and nobody has delivered."""
        return self.quantity - self.committed_units

    def step(self, to: Status, substatus: Substatus | None = None) -> None:
        """The only way to change the status. An illegal step is a bug: stop."""
        assert to in STEPS[Status(self.status)], f"order {self.status} → {to}"
        self.status = to.value
        self.substatus = substatus.value if substatus else None
        self.version += 1

    def wait_in(self, substatus: Substatus) -> bool:
        """Move between substatuses of `processing`; True when that is a visible change."""
        assert self.status == Status.PROCESSING
        if self.substatus == substatus:
            return False
        self.substatus = substatus.value
        if substatus is not Substatus.MANUAL_REVIEW:
            self.review = None
        self.version += 1
        return True


def final_status(order: Order) -> Status:
    """What an order ends as when nothing is live and nothing more will be tried."""
    if order.delivered_units == order.quantity:
        return Status.SUCCEEDED
    return Status.PARTIALLY_SUCCEEDED if order.delivered_units else Status.FAILED


def event_of(status: str) -> str:
    """The event a merchant hears when an order has reached a status."""
    return _EVENTS[Status(status)]


_EVENTS: Final[Mapping[Status, str]] = {
    Status.ACCEPTED: "order.accepted",
    Status.PROCESSING: "order.processing",
    Status.SUCCEEDED: "order.succeeded",
    Status.PARTIALLY_SUCCEEDED: "order.partially_succeeded",
    Status.FAILED: "order.failed",
    Status.CANCELLED: "order.cancelled",
}

REFUNDED_EVENT: Final = "order.refunded"

# What the merchant reads when no channel is left: the last refusal decides.
REFUSAL_TO_FAILURE: Final[Mapping[str, FailureCode]] = {
    "supplier_rejected": FailureCode.SUPPLIER_REJECTED,
    "target_invalid": FailureCode.TARGET_INVALID,
    "target_not_eligible": FailureCode.TARGET_NOT_ELIGIBLE,
    "out_of_stock": FailureCode.OUT_OF_STOCK,
    "product_off": FailureCode.ALL_CHANNELS_REFUSED,
    "price_exceeded": FailureCode.PRICE_EXCEEDED,
    "wallet_empty": FailureCode.ALL_CHANNELS_REFUSED,
}


def failure_when_no_channel_is_left(refusals: list[str]) -> FailureCode:
    """All channels out of stock reads `out_of_stock`, all too dear `price_exceeded`; any mixture `all_channels_refused`."""
    kinds = {REFUSAL_TO_FAILURE.get(r, FailureCode.ALL_CHANNELS_REFUSED) for r in refusals}
    if kinds in ({FailureCode.OUT_OF_STOCK}, {FailureCode.PRICE_EXCEEDED}):
        return kinds.pop()
    return FailureCode.ALL_CHANNELS_REFUSED


_MAGIC: Final = {f"100000000{n:02d}": n for n in range(1, 11)}


def magic_number(target: str | None) -> int | None:
    """1–10 for the magic phone targets of test mode, else None. The prefix 100 is assigned to no mobile network."""
    return _MAGIC.get(target) if target else None


def magic_masked(environment: str, target_masked: str | None) -> int | None:
    """`magic_number` of a stored order, told by its masked target: no other number of a test order begins with 100 and ends so."""
    return _MAGIC_MASKED.get(target_masked) if target_masked and environment == "test" else None


def mask(target: str) -> str:
    """`13800138000` → `138****8000`; short ones show one character at most."""
    if len(target) >= 8:
        return f"{target[:3]}****{target[-4:]}"
    return f"{target[0]}****" if len(target) >= 4 else "****"


_MAGIC_MASKED: Final = {mask(target): n for target, n in _MAGIC.items()}

NO_EVIDENCE: Final = frozenset(_MAGIC_MASKED)
"""Masked targets of test orders whose outcome was asked for, and says nothing about a supplier."""
