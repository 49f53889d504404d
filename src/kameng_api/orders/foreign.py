"""An order as a foreign protocol may see it: by the caller's own number and product number, in five states, with doubt shown as work.

Doors (`api/doors/`) answer from it, and the job that calls back writes its letters from it. No I/O.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar, Final
from uuid import UUID

import orjson

from kameng_api.kit.ids import parse_ulid, public_id, ulid_text
from kameng_api.merchants.door_rules import Account
from kameng_api.orders.rules import Order, Status
from kameng_api.webhooks.rules import DOOR_RECEIVER


class State(StrEnum):
    """Where an order stands, for protocols that know fewer words than we do."""

    PROCESSING = "processing"  # also: nobody knows yet, or a person decides. Never a failure
    SUCCEEDED = "succeeded"
    PARTIAL = "partial"  # some units delivered, the rest of the money is back
    FAILED = "failed"  # nothing delivered, all of the money is back, final
    CANCELLED = "cancelled"  # by the merchant, before dispatch; money as FAILED


@dataclass(frozen=True, slots=True)
class Shown:
    """An order that came through a door. Amounts in 1/10000 of the currency unit, times aware UTC.

    `amount` is what was held, `charged` what is kept after all (0 until a final state), less `refunded`. `product` is the number the caller
    asked for. `facts` are the door's own, as it gave them to `Counter.place`; empty for an order that was not placed through this account.
    """

    number: str
    order_id: str
    state: State
    product: str
    sku: str
    product_type: str
    quantity: int
    delivered: int
    face_value: int | None
    """Of one unit."""
    unit_price: int
    amount: int
    charged: int
    refunded: int
    currency: str
    cards: int
    """How many card codes may be read with `Counter.cards`."""
    failure: str | None
    """One of the contract's failure codes, for FAILED and PARTIAL."""
    receipt: str | None
    created_at: datetime
    completed_at: datetime | None
    version: int
    target: str | None = field(default=None, repr=False)
    """The number or account to charge, in full."""
    callback: str | None = field(default=None, repr=False)
    """The address that was given to `Counter.place`."""
    facts: Mapping[str, str] = field(default_factory=dict)
    mine: bool = True
    """Placed through this very account. What was not is shown veiled, see `veiled`."""
    key: UUID = field(default=UUID(int=0), repr=False)

    @property
    def short(self) -> int:
        """Our id as an integer below 2^63, for protocols whose ids are numbers; see `short_of`."""
        return short_of(self.key)

    @property
    def final(self) -> bool:
        return self.state is not State.PROCESSING


@dataclass(frozen=True, slots=True)
class Card:
    """One delivered card code (卡密). Never in a log, a trace or an error."""

    code: str = field(repr=False)
    pin: str | None = field(default=None, repr=False)
    expires_on: str | None = None
    """ISO date."""


@dataclass(frozen=True, slots=True)
class Letter:
    """One call back to a merchant's system, ready to be sent as it is."""

    url: str = field(repr=False)
    body: bytes = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    method: str = "POST"


class Letters:
    """How one door calls back: what it writes, what it takes for an acknowledgement, and how often it tries. Subclassed by door folders."""

    retries_s: ClassVar[tuple[int, ...]]
    """Seconds to wait after the first failure, the second, …; then the delivery is given up and stays on record."""
    with_cards: ClassVar[bool] = False
    """Whether letters carry card codes: only then are they opened for `write`, and the reveal written down."""

    def write(self, account: Account, order: Shown, cards: Sequence[Card], now: datetime) -> Letter | None:
        """The letter about the order as it is now; None when there is nothing to tell in this state."""
        raise NotImplementedError

    def heard(self, status: int, body: bytes) -> bool:
        """Whether this answer (HTTP status, at most 16 KB of body) is the acknowledgement, compared exactly."""
        raise NotImplementedError


_STATES: Final[Mapping[Status, State]] = {
    Status.ACCEPTED: State.PROCESSING,
    Status.PROCESSING: State.PROCESSING,
    Status.SUCCEEDED: State.SUCCEEDED,
    Status.PARTIALLY_SUCCEEDED: State.PARTIAL,
    Status.FAILED: State.FAILED,
    Status.CANCELLED: State.CANCELLED,
}


_SHORT_EPOCH_MS: Final = 1_577_836_800_000  # 2020-01-01
_SHORT_BITS: Final = 22


def short_of(order_id: UUID) -> int:
    """The milliseconds of an id since 2020 (41 bits: until 2089), then its last 22 bits, in which ids of one process and millisecond differ."""
    return (order_id.int >> 80) - _SHORT_EPOCH_MS << _SHORT_BITS | order_id.int & (1 << _SHORT_BITS) - 1


def ids_of_short(short: int) -> tuple[UUID, UUID] | None:
    """The first and the last id that may have this short form; None for a number that is none."""
    if not 0 < short < 1 << 63:
        return None
    first = (short >> _SHORT_BITS) + _SHORT_EPOCH_MS << 80
    return UUID(int=first), UUID(int=first | (1 << 80) - 1)


def receiver(account_id: UUID, url: str) -> str:
    """The `notify_url` of an order that wants to be called back through a door."""
    return f"{DOOR_RECEIVER}{ulid_text(account_id)}:{url}"


def read_receiver(notify_url: str | None) -> tuple[UUID, str] | None:
    """(account, address to call) of an order that wants a door's callback; None for any other order."""
    if notify_url is None or not notify_url.startswith(DOOR_RECEIVER):
        return None
    account, _, url = notify_url.removeprefix(DOOR_RECEIVER).partition(":")
    account_id = parse_ulid(account)
    return None if account_id is None else (account_id, url)


def marks(door: str, account_id: UUID, product: str, same: str, facts: Mapping[str, str]) -> dict[str, Any]:
    """What an order's metadata keeps of the door and the account it came through."""
    return {"door": {"name": door, "account": ulid_text(account_id), "product": product, "same": same, "facts": dict(facts)}}


def read_marks(order: Order, door: str, account_id: UUID) -> Mapping[str, Any]:
    """The marks of this account of this door on this order; empty when it came another way."""
    kept = orjson.loads(order.metadata).get("door")
    if not isinstance(kept, dict) or (kept.get("name"), kept.get("account")) != (door, ulid_text(account_id)):
        return {}
    return kept


def read_cards(opened: bytes) -> list[Card]:
    """Cards from what `codes.opened` returns."""
    return [Card(one["code"], one.get("pin"), one.get("expires_on")) for one in orjson.loads(opened)]


def veiled(order: Shown) -> Shown:
    """An order of the book that did not come through this account, as it may be told to it: whether it bought nothing for good, and no more.

    Never "there is none" while it may deliver, or has delivered: whoever asks would refund it, or buy it elsewhere.
    """
    bought_nothing = order.state in (State.FAILED, State.CANCELLED)
    return replace(
        order, state=order.state if bought_nothing else State.PROCESSING, product="", delivered=0, charged=0, refunded=0, cards=0, failure=None,
        receipt=None, completed_at=order.completed_at if bought_nothing else None, target=None, callback=None, facts={}, mine=False,
    )  # fmt: skip


def show(order: Order, door: str, account_id: UUID, target: str | None) -> Shown:
    """The order for an account of `door`, in full; `target` has been opened by the caller."""
    kept = read_marks(order, door, account_id)
    state = _STATES[Status(order.status)]
    named = read_receiver(order.notify_url)
    return Shown(
        number=order.merchant_order_no,
        order_id=public_id("ord", order.order_id),
        state=state,
        product=kept.get("product", order.sku),
        sku=order.sku,
        product_type=order.product_type,
        quantity=order.quantity,
        delivered=order.delivered_units,
        face_value=order.face_value,
        unit_price=order.unit_price,
        amount=order.amount,
        charged=order.captured,
        refunded=order.refunded,
        currency=order.currency,
        cards=order.codes_count,
        failure=order.failure_code,
        receipt=order.receipt,
        created_at=order.created_at,
        completed_at=order.completed_at,
        version=order.version,
        target=target,
        callback=named[1] if named is not None else None,
        facts=kept.get("facts", {}),
        mine=bool(kept),
        key=order.order_id,
    )
