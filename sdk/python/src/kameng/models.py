"""What the house answers, as frozen dataclasses.

Money is `Decimal`, times are aware `datetime`s in UTC, days are `date`s. What a later version of the house adds is kept: unknown fields in
`extra`, unknown states and types as the text they are. `__schema__` names the shape in the OpenAPI file that a test compares each class with.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timezone
from decimal import Decimal, InvalidOperation
from functools import cache
from typing import Any, ClassVar, Final, TypeVar, Union, get_args, get_origin, get_type_hints

from kameng.errors import BrokenAnswer

Json = Mapping[str, Any]
M = TypeVar("M", bound="Model")
_FINAL: Final = frozenset(("succeeded", "partially_succeeded", "failed", "cancelled"))


@dataclass(frozen=True, kw_only=True)
class Model:
    """Reads itself from a JSON object. Raises BrokenAnswer when a field that was always there is missing or of another kind."""

    __schema__: ClassVar[str] = ""

    extra: Json = field(default_factory=dict, repr=False)

    @classmethod
    def read(cls: type[M], wire: Any) -> M:
        if not isinstance(wire, Mapping):
            raise BrokenAnswer(f"{cls.__name__}: not a JSON object")
        kind: Any = cls
        hints, known = _shape(kind)
        values: dict[str, Any] = {}
        for name, required in known.items():
            if name in wire:
                values[name] = _read(hints[name], wire[name], f"{cls.__name__}.{name}")
            elif required:
                raise BrokenAnswer(f"{cls.__name__}.{name} is missing")
        return cls(**values, extra={name: value for name, value in wire.items() if name not in known})


@cache
def _shape(cls: Any) -> tuple[dict[str, Any], dict[str, bool]]:
    known = {
        f.name: f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        for f in dataclasses.fields(cls)
        if f.name != "extra" and not f.metadata.get("ours")
    }
    return get_type_hints(cls), known


def _read(kind: Any, value: Any, where: str) -> Any:
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        if value is None:
            return None
        return _read(next(one for one in inner if one is not type(None)), value, where)
    try:
        return _read_plain(kind, origin, inner, value, where)
    except (ValueError, TypeError, InvalidOperation):
        raise BrokenAnswer(f"{where} cannot be read") from None


def _read_plain(kind: Any, origin: Any, inner: tuple[Any, ...], value: Any, where: str) -> Any:
    if origin is tuple:
        if not isinstance(value, list):
            raise TypeError
        return tuple(_read(inner[0], one, where) for one in value)
    if kind is Any:
        return value
    if origin is not None:  # a mapping: kept as it came
        return dict(value)
    if issubclass(kind, Model):
        return kind.read(value)
    if kind is Decimal:
        return money(value)
    if kind is datetime:
        return instant(value)
    if kind is date:
        return date.fromisoformat(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise TypeError
    return value


def money(text: Any) -> Decimal:
    """Raises TypeError for anything but text: a JSON number would have lost digits."""
    if not isinstance(text, str):
        raise TypeError
    return Decimal(text)


def instant(text: Any) -> datetime:
    """RFC 3339, aware. (Python 3.10 reads neither a Z nor just any number of digits.)"""
    if not isinstance(text, str):
        raise TypeError
    body, _, zone = (text[:-1], "", "+00:00") if text.endswith("Z") else (text[:-6], "", text[-6:])
    whole, dot, parts = body.partition(".")
    found = datetime.fromisoformat(whole + (dot + parts[:6].ljust(6, "0") if dot else "") + zone)
    return found.astimezone(timezone.utc)


class OrderStatus:
    """What `Order.status` may say today; others may come."""

    ACCEPTED: Final = "accepted"
    PROCESSING: Final = "processing"
    SUCCEEDED: Final = "succeeded"
    PARTIALLY_SUCCEEDED: Final = "partially_succeeded"
    FAILED: Final = "failed"
    CANCELLED: Final = "cancelled"


@dataclass(frozen=True, kw_only=True)
class Failure(Model):
    __schema__ = "Failure"

    code: str
    detail: str


@dataclass(frozen=True, kw_only=True)
class OrderDelivery(Model):
    """`receipt` is the proof for your customer: the carrier's serial number or the voucher."""

    __schema__ = "kameng_api__api__order_schemas__Delivery"

    receipt: str | None
    delivered_at: datetime


@dataclass(frozen=True, kw_only=True)
class Order(Model):
    """An order as it is now. Apply it only where its `version` is greater than the one you hold."""

    __schema__ = "OrderResource"

    id: str
    object: str
    environment: str
    version: int
    status: str
    substatus: str | None
    merchant_order_no: str
    sku: str
    product_type: str
    quantity: int
    delivered_quantity: int
    target: str | None
    unit_price: Decimal
    amount: Decimal
    currency: str
    refunded_amount: Decimal
    codes_available: bool
    failure: Failure | None
    delivery: OrderDelivery | None
    created_at: datetime
    dispatched_at: datetime | None
    completed_at: datetime | None
    metadata: Json
    replayed: bool = field(default=False, metadata={"ours": True})
    """True when the answer was to a number that the house knew already."""

    @property
    def is_final(self) -> bool:
        return self.status in _FINAL

    @property
    def is_doubtful(self) -> bool:
        """The supplier has not said whether it delivered. Wait: nobody buys again meanwhile, and neither should you."""
        return self.substatus == "outcome_unknown"


@dataclass(frozen=True, kw_only=True)
class OrderValidation(Model):
    """What an order would cost, without placing it."""

    object: str
    valid: bool
    merchant_order_no: str
    sku: str
    quantity: int
    unit_price: Decimal
    amount: Decimal
    currency: str


@dataclass(frozen=True, kw_only=True)
class Refund(Model):
    __schema__ = "RefundResource"

    id: str
    refund_no: str
    reason: str
    amount: Decimal
    currency: str
    created_at: datetime


@dataclass(frozen=True, kw_only=True)
class Step(Model):
    """One line of an order's timeline."""

    __schema__ = "Step"

    at: datetime
    step: str
    detail: str


@dataclass(frozen=True, kw_only=True)
class CodesEnvelope(Model):
    """Card codes, encrypted under your delivery key; `kameng.codes.open_codes` opens it."""

    __schema__ = "CodesEnvelope"

    algorithm: str
    kid: str
    nonce: str
    associated_data: str
    ciphertext: str = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class CardCode(Model):
    """One card. Neither field is ever shown by repr: say `card.code` where you mean it."""

    code: str = field(repr=False)
    pin: str | None = field(default=None, repr=False)


@dataclass(frozen=True, kw_only=True)
class Balance(Model):
    __schema__ = "Balance"

    currency: str
    available: Decimal
    held: Decimal
    credit_limit: Decimal
    deposit: Decimal
    frozen: Decimal
    spendable: Decimal
    """`available` with the credit line: the largest order that would be accepted now."""


@dataclass(frozen=True, kw_only=True)
class StatementLink(Model):
    """Where a day's statement is."""

    __schema__ = "StatementLink"

    id: str
    date: date
    currency: str
    url: str


@dataclass(frozen=True, kw_only=True)
class BalanceNow(Balance):
    """With the newest three statements that are ready."""

    __schema__ = "BalanceNow"

    statements: tuple[StatementLink, ...]


@dataclass(frozen=True, kw_only=True)
class BurnRate(Model):
    """What is spent in an hour, seen over the last hour, day and week."""

    __schema__ = "BurnRate"

    last_hour: Decimal
    last_day: Decimal
    last_week: Decimal


@dataclass(frozen=True, kw_only=True)
class BalanceAlerts(Model):
    """When `balance.low` comes, and how things stand. Limits that are None are not watched."""

    __schema__ = "Alerts"

    currency: str
    amount: Decimal | None
    hours_left: int | None
    set_by: str | None
    state: str
    reason: str | None
    low_since: datetime | None
    spendable: Decimal
    burn_rate_per_hour: BurnRate
    empty_in_s: int | None
    empty_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class Transaction(Model):
    """A line of the fund flow. `balance_after` is `available` right after it."""

    __schema__ = "Transaction"

    id: str
    type: str
    amount: Decimal
    balance_after: Decimal
    order_id: str | None
    created_at: datetime


@dataclass(frozen=True, kw_only=True)
class Range(Model):
    """Face values from `min` to `max` in steps."""

    __schema__ = "Range"

    min: Decimal
    max: Decimal
    step: Decimal


@dataclass(frozen=True, kw_only=True)
class FormField(Model):
    """A further field that an order of this product needs."""

    __schema__ = "FormField"

    name: str
    label: str
    required: bool
    pattern: str | None
    max_length: int
    min_length: int = 0
    checksum: str | None = None
    """The check digit that is verified, such as `luhn`."""


@dataclass(frozen=True, kw_only=True)
class Product(Model):
    """A product at this merchant's price. `unit_price` where it has a face value, `price_rate` (per unit of face value) where it has a range."""

    __schema__ = "Product"

    sku: str
    name: str
    product_type: str
    currency: str
    fields: tuple[FormField, ...]
    stock: str
    status: str
    face_value: Decimal | None = None
    range: Range | None = None
    unit_price: Decimal | None = None
    price_rate: Decimal | None = None
    carriers: tuple[str, ...] = ()
    """Carriers whose numbers it is sold to; empty: any."""
    barcodes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ProductChange(Model):
    """A product that is another one for you now. `changed`: price, status, stock, details."""

    __schema__ = "Changed"

    sku: str
    changed: tuple[str, ...]
    product: Product


@dataclass(frozen=True, kw_only=True)
class ProductChanges(Model):
    """Each product once, as it is now. Keep `after` and ask with it the next time; at once while `next_cursor` is not None."""

    __schema__ = "Changes"

    items: tuple[ProductChange, ...]
    after: str
    next_cursor: str | None


@dataclass(frozen=True, kw_only=True)
class NumberCarrier(Model):
    __schema__ = "NumberCarrier"

    code: str | None
    name: str
    name_zh: str | None


@dataclass(frozen=True, kw_only=True)
class NumberHome(Model):
    __schema__ = "NumberHome"

    zh: str
    en: str


@dataclass(frozen=True, kw_only=True)
class Number(Model):
    """Whom a phone number belongs to and where it is at home."""

    __schema__ = "Number"

    object: str
    number: str
    country: str | None
    valid: bool
    type: str
    carrier: NumberCarrier | None
    virtual: bool
    home: NumberHome | None
    source: str
    ported: bool | None


@dataclass(frozen=True, kw_only=True)
class Event(Model):
    """What a webhook brings and `GET /v1/events` repeats. `data` is kept as it came; see `order`."""

    __schema__ = "WebhookEvent"

    id: str
    type: str
    timestamp: datetime
    data: Json

    @property
    def version(self) -> int:
        """Of the object, not of the event: apply the event only where this is greater than the version you hold."""
        told = self.data.get("version")
        return told if isinstance(told, int) else 0

    @property
    def object_id(self) -> str:
        return str(self.data.get("id", ""))

    @property
    def order(self) -> Order | None:
        """The order of an `order.…` event, as it was then; without card codes, always."""
        return Order.read(self.data.get("object")) if self.type.startswith("order.") else None


@dataclass(frozen=True, kw_only=True)
class Endpoint(Model):
    """Where webhooks go."""

    __schema__ = "Endpoint"

    id: str
    object: str
    url: str
    event_types: tuple[str, ...]
    description: str
    status: str
    status_reason: str | None
    failures: int
    first_failure_at: datetime | None
    last_success_at: datetime | None
    old_secret_until: datetime | None
    created_at: datetime


@dataclass(frozen=True, kw_only=True)
class EndpointWithSecret(Endpoint):
    """Shown this once: keep `secret` where your secrets are."""

    __schema__ = "EndpointWithSecret"

    secret: str = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Attempt(Model):
    __schema__ = "Attempt"

    at: datetime
    took_ms: int
    http_status: int | None
    trouble: str | None


@dataclass(frozen=True, kw_only=True)
class Delivery(Model):
    """One event for one endpoint, and the attempts to send it."""

    __schema__ = "kameng_api__api__webhooks__Delivery"

    id: str
    event_id: str
    event_type: str | None
    state: str
    attempts: int
    created_at: datetime
    delivered_at: datetime | None
    log: tuple[Attempt, ...]
    endpoint_id: str | None = None
    notify_url: str | None = None
    test: bool = False
    body_sha256: str | None = None
    body_bytes: int | None = None


@dataclass(frozen=True, kw_only=True)
class EndpointHealth(Model):
    """How an endpoint fares. `missing`: what `replay_missing` would send."""

    __schema__ = "EndpointHealth"

    endpoint_id: str
    status: str
    since: datetime
    deliveries: int
    delivered: int
    pending: int
    given_up: int
    held: int
    attempts: int
    success_rate: Decimal | None
    p50_ms: int | None
    p95_ms: int | None
    last_error: Attempt | None
    last_success_at: datetime | None
    failures: int
    missing: int


@dataclass(frozen=True, kw_only=True)
class NotifySecret(Model):
    """What signs calls to `notify_url`; shown this once."""

    __schema__ = "NotifySecret"

    secret: str = field(repr=False)
    old_secret_until: datetime


@dataclass(frozen=True, kw_only=True)
class Resent(Model):
    __schema__ = "Resent"

    delivery_id: str
    event_id: str


@dataclass(frozen=True, kw_only=True)
class Replayed(Model):
    """`more`: call again for the rest."""

    __schema__ = "Replayed"

    replayed: int
    more: bool


@dataclass(frozen=True, kw_only=True)
class Subtotal(Model):
    __schema__ = "Subtotal"

    type: str
    count: int
    amount: Decimal


@dataclass(frozen=True, kw_only=True)
class StatementFile(Model):
    """`sha256` in lower-case hex."""

    __schema__ = "StatementFile"

    format: str
    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Statement(Model):
    """One business day in one currency; its `closing` is the next day's `opening`."""

    __schema__ = "StatementResource"

    id: str
    object: str
    environment: str
    date: date
    timezone: str
    starts_at: datetime
    ends_at: datetime
    currency: str
    opening: Decimal
    subtotals: tuple[Subtotal, ...]
    movements_count: int
    closing: Decimal
    files: tuple[StatementFile, ...]
    key_id: str
    ready_at: datetime


@dataclass(frozen=True, kw_only=True)
class PublicKey(Model):
    """`public_key` is base64 of 32 bytes."""

    __schema__ = "PublicKey"

    key_id: str
    algorithm: str
    use: str
    public_key: str
    current: bool


@dataclass(frozen=True, kw_only=True)
class BlockHead(Model):
    __schema__ = "BlockHead"

    block: Json
    hash: str
    key: str
    signature: str


@dataclass(frozen=True, kw_only=True)
class Leaf(Model):
    __schema__ = "Leaf"

    leaf: str
    index: int
    path: tuple[str, ...]
    head: BlockHead


@dataclass(frozen=True, kw_only=True)
class Receipt(Model):
    """Proof of an order; `kameng.proofs.verify_receipt` checks it. `salts` open what the leaves only commit to: as secret as that."""

    __schema__ = "Receipt"

    object: str
    order: Json
    leaves: tuple[Leaf, ...]
    salts: Json = field(repr=False)
    keys: Json


@dataclass(frozen=True, kw_only=True)
class SignedText(Model):
    """The house's own reading of a signed request: compare line by line."""

    __schema__ = "SignedText"

    string_to_sign: str
    lines: Json
    bytes: int
    signature_valid: bool


@dataclass(frozen=True, kw_only=True)
class BatchProgress(Model):
    """Rows by what became of them: `total` = `invalid` + `succeeded` + `failed` + `processing` + `unprocessed`."""

    __schema__ = "BatchProgress"

    total: int
    valid: int
    invalid: int
    accepted: int
    duplicates: int
    succeeded: int
    partially_succeeded: int
    failed: int
    processing: int
    unprocessed: int
    total_cost: Decimal
    currency: str
    percent: int


@dataclass(frozen=True, kw_only=True)
class BatchFailure(Model):
    """Why nothing of a batch was placed."""

    __schema__ = "BatchFailure"

    code: str
    detail: str


_BATCH_RESTS: Final = frozenset(("validated", "completed", "completed_with_errors", "failed", "cancelled"))


@dataclass(frozen=True, kw_only=True)
class Batch(Model):
    """Many orders sent at once: validating → validated → processing → completed, completed_with_errors, failed or cancelled."""

    __schema__ = "BatchResource"

    id: str
    object: str
    environment: str
    version: int
    merchant_batch_no: str
    kind: str
    filename: str | None
    status: str
    mode: str
    validate_only: bool
    confirm: str
    on_insufficient_balance: str
    merge_equal: bool
    split_skus: tuple[str, ...]
    progress: BatchProgress
    failure: BatchFailure | None
    warnings: tuple[str, ...] = ()
    created_at: datetime
    validated_at: datetime | None
    confirmed_at: datetime | None
    completed_at: datetime | None
    replayed: bool = field(default=False, metadata={"ours": True})
    """True when the answer was to a number that the house knew already."""

    @property
    def is_at_rest(self) -> bool:
        """Whether nothing changes any more by itself: final, or `validated`, which waits for `confirm` unless it was only to be validated."""
        waits = self.validate_only or self.confirm == "manual"
        return self.status in _BATCH_RESTS and (self.status != "validated" or waits)


@dataclass(frozen=True, kw_only=True)
class ItemError(Model):
    """Why a row has no delivered order."""

    __schema__ = "ItemError"

    code: str
    pointer: str
    detail: str


@dataclass(frozen=True, kw_only=True)
class BatchItem(Model):
    """One row of a batch, or a part of a row that was split, and what became of it."""

    __schema__ = "BatchItemResource"

    line_no: int
    part: int
    status: str
    duplicate: bool
    merchant_order_no: str | None
    sku: str | None
    quantity: int | None
    amount: Decimal
    delivered_quantity: int | None
    order_id: str | None
    merged_into: int | None
    error: ItemError | None


@dataclass(frozen=True, kw_only=True)
class BatchLine(Model):
    """One row as it was sent, with its parts and their sum."""

    __schema__ = "BatchLine"

    line_no: int
    status: str
    amount: Decimal
    parts: tuple[BatchItem, ...]


@dataclass(frozen=True, kw_only=True)
class FastForwarded(Model):
    """How much the simulated suppliers had still to do for the order."""

    __schema__ = "FastForwarded"

    order_id: str
    moved: int


@dataclass(frozen=True, kw_only=True)
class SentAgain(Model):
    __schema__ = "SentAgain"

    event_id: str
    delivery_ids: tuple[str, ...]
