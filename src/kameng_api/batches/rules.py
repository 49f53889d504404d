"""What a batch is, the steps it may take, and how its rows add up. No I/O, no clock."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final, Literal
from uuid import UUID

import orjson

from kameng_api.kit.clock import wire_time_or_none
from kameng_api.kit.errors import StateConflict
from kameng_api.kit.ids import public_id
from kameng_api.kit.money import format_amount

PREFIX: Final = "bat"
PAGE: Final = 250
"""Rows that are validated, or placed, in one transaction."""
MAX_ITEMS: Final = 1_000
MAX_FILE_BYTES: Final = 10_000_000
MAX_ROWS: Final = 20_000
MAX_ROWS_AT_ONCE: Final = 5_000
"""`all_or_nothing`: its one transaction keeps the merchant's other orders waiting."""
PROGRESS_EVERY: Final = timedelta(seconds=30)


class State(StrEnum):
    """Where a batch stands."""

    VALIDATING = "validating"  # its rows are being read and checked; nothing is placed
    VALIDATED = "validated"  # waits for `confirm`, or was only to be validated
    PROCESSING = "processing"  # orders are being placed, or placed ones are not final yet
    COMPLETED = "completed"  # every row ended well
    COMPLETED_WITH_ERRORS = "completed_with_errors"  # every row has ended; some did not end well
    FAILED = "failed"  # nothing was placed: the file cannot be read, or all_or_nothing came to nothing
    CANCELLED = "cancelled"  # what was not placed will not be; orders that were placed live on


STEPS: Final[Mapping[State, frozenset[State]]] = {
    State.VALIDATING: frozenset({State.VALIDATED, State.PROCESSING, State.FAILED, State.CANCELLED}),
    State.VALIDATED: frozenset({State.PROCESSING, State.FAILED, State.CANCELLED}),
    State.PROCESSING: frozenset({State.COMPLETED, State.COMPLETED_WITH_ERRORS, State.FAILED, State.CANCELLED}),
    State.COMPLETED: frozenset(),
    State.COMPLETED_WITH_ERRORS: frozenset(),
    State.FAILED: frozenset(),
    State.CANCELLED: frozenset(),
}
FINAL: Final = frozenset(state for state, after in STEPS.items() if not after)


class ItemStatus(StrEnum):
    """What we did with a row; what became of its order is the order's own status."""

    PENDING = "pending"  # valid, its turn has not come
    INVALID = "invalid"  # can never be an order as it stands
    PLACED = "placed"  # an order was made for it
    DUPLICATE = "duplicate"  # the order existed before, with the same content
    REFUSED = "refused"  # was valid, and was refused when its turn came
    UNPROCESSED = "unprocessed"  # its turn did not come, or there was no money for it: nothing is wrong with it


@dataclass(frozen=True, slots=True)
class Options:
    """How a batch is to be done. `split_skus`: a row with a `face_value` and no SKU becomes orders of these."""

    mode: Literal["partial", "all_or_nothing"] = "partial"
    confirm: Literal["auto", "manual"] = "auto"
    on_insufficient_balance: Literal["stop", "skip"] = "stop"
    merge_equal: bool = False
    split_skus: tuple[str, ...] = ()

    def as_json(self) -> bytes:
        return orjson.dumps(asdict(self), option=orjson.OPT_SORT_KEYS)


@dataclass(slots=True)
class Batch:
    """One batch as stored, changed only under its row lock. Counts of rows and pages; times aware UTC."""

    book_id: int
    batch_id: UUID
    merchant_batch_no: str
    fingerprint: bytes = field(repr=False)
    environment: str
    currency: str
    kind: str
    filename: str | None
    options: Options
    validate_only: bool
    state: State = State.VALIDATING
    version: int = 1
    total: int = 0
    invalid: int = 0
    pages: int = 0
    pages_validated: int = 0
    pages_placed: int = 0
    failure_code: str | None = None
    failure_detail: str | None = None
    warnings: tuple[str, ...] = ()
    final_counts: "Counts | None" = None
    looks: int = 0
    told_at: datetime | None = None
    created_at: datetime | None = None
    validated_at: datetime | None = None
    confirmed_at: datetime | None = None
    completed_at: datetime | None = None

    @property
    def key(self) -> tuple[int, UUID]:
        return self.book_id, self.batch_id

    @property
    def is_read(self) -> bool:
        """Whether its rows lie in pages; a file's do once it has been read."""
        return self.pages > 0

    def step(self, to: State) -> None:
        """The only way to change a state. Raises StateConflict."""
        if to not in STEPS[self.state]:
            raise StateConflict(f"the batch is {self.state}")
        self.state = to
        self.version += 1


@dataclass(frozen=True, slots=True)
class Counts:
    """Rows by what became of them: total = invalid + succeeded + failed + processing + unprocessed. `total_cost` in 1/10000 units.

    `failed`: refused when placed, or an order that failed or was cancelled. `succeeded` holds the `partially_succeeded`, `accepted` (rows that
    have an order) the `duplicates`.
    """

    total: int = 0
    invalid: int = 0
    accepted: int = 0
    duplicates: int = 0
    succeeded: int = 0
    partially_succeeded: int = 0
    failed: int = 0
    processing: int = 0
    unprocessed: int = 0
    total_cost: int = 0

    @property
    def has_errors(self) -> bool:
        return self.invalid + self.failed + self.unprocessed + self.partially_succeeded > 0


@dataclass(frozen=True, slots=True)
class Group:
    """So many rows of one status whose orders (if any) have one status. `amount` is their sum, in 1/10000 units."""

    status: str
    order_status: str | None
    rows: int
    amount: int


_SHOWN: Final = {"placed": "accepted", "duplicate": "accepted"}
_SUCCEEDED: Final = ("succeeded", "partially_succeeded")
_LOST: Final = ("failed", "cancelled")


def shown_status(status: str, order_status: str | None) -> str:
    """What a merchant reads beside a row: the order's status where there is an order."""
    return order_status or _SHOWN.get(status, status)


def add_up(total: int, groups: Iterable[Group]) -> Counts:
    """The counts of a batch of `total` rows. Rows that nobody has looked at yet are unprocessed."""
    n = dict.fromkeys(("invalid", "accepted", "duplicates", "succeeded", "partially_succeeded", "failed", "processing"), 0)
    cost = 0
    for group in groups:
        if group.status not in (ItemStatus.INVALID, ItemStatus.REFUSED):
            cost += group.amount
        if group.status == ItemStatus.INVALID:
            n["invalid"] += group.rows
        elif group.status == ItemStatus.REFUSED:
            n["failed"] += group.rows
        elif group.status in (ItemStatus.PLACED, ItemStatus.DUPLICATE):
            n["accepted"] += group.rows
            n["duplicates"] += group.rows if group.status == ItemStatus.DUPLICATE else 0
            n["partially_succeeded"] += group.rows if group.order_status == "partially_succeeded" else 0
            n["succeeded" if group.order_status in _SUCCEEDED else "failed" if group.order_status in _LOST else "processing"] += group.rows
    left = total - n["invalid"] - n["succeeded"] - n["failed"] - n["processing"]
    return Counts(total=total, unprocessed=left, total_cost=cost, **n)


def percent(batch: Batch, counts: Counts) -> int:
    """How many of a hundred rows have ended, rounded down; 100 only when no row can change any more."""
    if not counts.total:
        return 100 if batch.state in FINAL else 0
    over = batch.state in FINAL
    ended = counts.invalid + counts.succeeded + counts.failed + (counts.unprocessed if over else 0)
    return ended * 100 // counts.total


def ended_state(counts: Counts) -> State:
    """How a batch ends whose rows have all ended."""
    return State.COMPLETED_WITH_ERRORS if counts.has_errors else State.COMPLETED


def view(batch: Batch, counts: Counts) -> dict[str, Any]:
    """The batch as merchants read it, in answers and events alike."""
    failure = None if batch.failure_code is None else {"code": batch.failure_code, "detail": batch.failure_detail or ""}
    checked = batch.state is not State.VALIDATING
    return {
        "id": public_id(PREFIX, batch.batch_id),
        "object": "order_batch",
        "environment": batch.environment,
        "version": batch.version,
        "merchant_batch_no": batch.merchant_batch_no,
        "kind": batch.kind,
        "filename": batch.filename,
        "status": str(batch.state),
        "mode": batch.options.mode,
        "validate_only": batch.validate_only,
        "confirm": batch.options.confirm,
        "on_insufficient_balance": batch.options.on_insufficient_balance,
        "merge_equal": batch.options.merge_equal,
        "split_skus": list(batch.options.split_skus),
        "progress": {
            "total": counts.total,
            "valid": counts.total - counts.invalid if checked else 0,
            "invalid": counts.invalid,
            "accepted": counts.accepted,
            "duplicates": counts.duplicates,
            "succeeded": counts.succeeded,
            "partially_succeeded": counts.partially_succeeded,
            "failed": counts.failed,
            "processing": counts.processing,
            "unprocessed": counts.unprocessed,
            "total_cost": format_amount(counts.total_cost),
            "currency": batch.currency,
            "percent": percent(batch, counts),
        },
        "failure": failure,
        "warnings": list(batch.warnings),
        "created_at": wire_time_or_none(batch.created_at),
        "validated_at": wire_time_or_none(batch.validated_at),
        "confirmed_at": wire_time_or_none(batch.confirmed_at),
        "completed_at": wire_time_or_none(batch.completed_at),
    }


def next_look(looks: int) -> timedelta:
    """When to look again whether the placed orders are final: after 1 s, doubling to a minute."""
    return timedelta(seconds=min(2.0 ** min(looks, 6), 60.0))
