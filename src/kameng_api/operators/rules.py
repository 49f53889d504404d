"""Which role may do what, and which money movements need a second person. No I/O.

Amounts are integers in 1/10000 of the currency unit.
"""

import hashlib
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from pydantic import TypeAdapter

from kameng_api.kit.errors import FieldError
from kameng_api.kit.money import LARGEST
from kameng_api.ledger import rules as books

ROLES: Final = ("viewer", "support", "finance", "admin")

_EVERYBODY: Final = frozenset(ROLES)
_SUPPORT: Final = frozenset({"support", "admin"})
_FINANCE: Final = frozenset({"finance", "admin"})
_ADMIN: Final = frozenset({"admin"})

PERMISSIONS: Final[Mapping[str, frozenset[str]]] = {
    "read": _EVERYBODY,
    "merchants:write": _ADMIN,
    "keys:write": _ADMIN,
    "catalog:write": _ADMIN,
    "channels:write": _ADMIN,
    "suppliers:write": _SUPPORT,  # papers, contacts and notes
    "contacts:read": _SUPPORT | _FINANCE,  # names and telephone numbers of people: for those who call them
    "channels:switch": _SUPPORT,  # at night somebody must be able to switch a failing channel off
    "routing:write": _ADMIN,
    "routing:switch": _SUPPORT,  # a supplier goes away at night: bans, windows and circuits, which undo no agreement
    "money:write": _FINANCE,
    "refunds:write": _SUPPORT | _FINANCE,
    "reviews:write": _SUPPORT | _FINANCE,
    "approvals:decide": _FINANCE,
    "webhooks:write": _SUPPORT,
    "tasks:write": _SUPPORT,
    "incidents:write": _SUPPORT | _FINANCE,
    "alarms:write": _SUPPORT | _FINANCE,
    "ledger:verify": _FINANCE,
    "reconciliation:write": _FINANCE,
    "reconciliation:propose": _SUPPORT | _FINANCE,  # support asks the customer and the supplier; the money is finance's
    "reconciliation:decide": _FINANCE,
    "books:lift": _FINANCE,
    "simulator:write": _SUPPORT,
    "operators:write": _ADMIN,
    "audit:read": _FINANCE,
}
"""What may be done, and by which roles."""

TOKEN: Final = re.compile(r"op_[A-Za-z0-9_-]{43}")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._@-]{0,63}")
_NUMBER: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_CHANNEL: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
MERCHANT_ACCOUNTS: Final = (books.AVAILABLE, books.DEPOSIT, books.FROZEN)
_HOUSE_ACCOUNT: Final = re.compile(r"(?:supplier_prepaid|psp_clearing|bank):[a-z0-9][a-z0-9_-]{0,31}")


@dataclass(frozen=True, slots=True)
class Operator:
    """One person with a token."""

    operator_id: UUID
    name: str
    role: str
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Approval:
    """A movement that waits, or waited, for a second person. `arguments` is `arguments_of` the movement."""

    approval_id: UUID
    action: str
    arguments: Mapping[str, Any]
    state: str
    made_by: str
    decided_by: str | None
    created_at: datetime
    decided_at: datetime | None


@dataclass(frozen=True, slots=True)
class Funding:
    """Money that came in: `external_id` is the bank's or channel's own number, unique per channel for ever."""

    merchant_id: UUID
    environment: str
    channel: str
    external_id: str
    currency: str
    amount: int


@dataclass(frozen=True, slots=True)
class Adjustment:
    """A signed correction of one account against suspense. Without a merchant: an account of the house."""

    merchant_id: UUID | None
    environment: str
    account: str
    ticket: str
    currency: str
    amount: int
    note: str


@dataclass(frozen=True, slots=True)
class CreditLine:
    """How far a merchant's spendable balance may fall below zero."""

    merchant_id: UUID
    environment: str
    ticket: str
    currency: str
    limit: int


@dataclass(frozen=True, slots=True)
class SupplierTopup:
    """What we paid a supplier in advance."""

    channel_id: str
    environment: str
    topup_no: str
    currency: str
    amount: int


@dataclass(frozen=True, slots=True)
class Refund:
    """Money back to a merchant after capture."""

    book_id: int
    environment: str
    order_id: UUID
    refund_no: str
    currency: str
    amount: int
    reason: str


Movement = Funding | Adjustment | CreditLine | SupplierTopup | Refund

ACTIONS: Final[Mapping[str, type[Movement]]] = {
    "fund": Funding,
    "adjust": Adjustment,
    "credit_line": CreditLine,
    "supplier_topup": SupplierTopup,
    "refund": Refund,
}
_NAMES: Final = {kind: name for name, kind in ACTIONS.items()}


def action_of(movement: Movement) -> str:
    """The word approvals and the audit trail use."""
    return _NAMES[type(movement)]


def arguments_of(movement: Movement) -> dict[str, Any]:
    """The movement as JSON values, with its number under `number`."""
    values = TypeAdapter(type(movement)).dump_python(movement, mode="json")
    return {**values, "number": number_of(movement)}


def movement_of(approval: Approval) -> Movement:
    """The inverse of `arguments_of`."""
    values = {name: value for name, value in approval.arguments.items() if name != "number"}
    movement: Movement = TypeAdapter(ACTIONS[approval.action]).validate_python(values)
    return movement


def number_of(movement: Movement) -> str:
    """What makes this movement the same one when it is sent again."""
    match movement:
        case Funding():
            return f"fund:{movement.channel}:{movement.external_id}"
        case Adjustment():
            return f"adj:{movement.merchant_id or 'house'}:{movement.environment}:{movement.ticket}"
        case CreditLine():
            return f"credit:{movement.merchant_id}:{movement.environment}:{movement.ticket}"
        case SupplierTopup():
            return f"stopup:{movement.environment}:{movement.topup_no}"
        case Refund():
            return f"refund:{movement.book_id}:{movement.refund_no}"


def size_of(movement: Movement) -> int:
    """How much is at stake, never negative."""
    return movement.limit if isinstance(movement, CreditLine) else abs(movement.amount)


def needs_second_person(movement: Movement, above: int) -> bool:
    """Real money above the set amount; play money never."""
    return movement.environment == "live" and size_of(movement) > above


def check_movement(movement: Movement) -> list[FieldError]:
    """What is wrong with a movement, before anything is looked up."""
    match movement:
        case Funding():
            return [
                *_format(_CHANNEL, movement.channel, "/channel", "1–32 of a–z 0–9 _ -"),
                *_format(_NUMBER, movement.external_id, "/external_id", _NUMBER_FORM),
                *_amount(movement.amount),
            ]
        case Adjustment():
            known = movement.account in MERCHANT_ACCOUNTS if movement.merchant_id else _HOUSE_ACCOUNT.fullmatch(movement.account) is not None
            return [
                *([] if known else [FieldError("/account", "unknown_value", "no account that may be adjusted")]),
                *_format(_NUMBER, movement.ticket, "/ticket", _NUMBER_FORM),
                *_sentence(movement.note, "/note"),
                *_amount(abs(movement.amount)),
            ]
        case CreditLine():
            fits = 0 <= movement.limit <= LARGEST
            return [
                *_format(_NUMBER, movement.ticket, "/ticket", _NUMBER_FORM),
                *([] if fits else [FieldError("/limit", "out_of_range", "0 to 100 billion")]),
            ]
        case SupplierTopup():
            return [
                *_format(_NUMBER, movement.topup_no, "/topup_no", _NUMBER_FORM),
                *_amount(movement.amount),
            ]
        case Refund():
            return [
                *_format(_NUMBER, movement.refund_no, "/refund_no", _NUMBER_FORM),
                *_sentence(movement.reason, "/reason"),
                *_amount(movement.amount),
            ]


_NUMBER_FORM: Final = "1–64 of A–Z a–z 0–9 . _ -"


def _format(pattern: re.Pattern[str], value: str, pointer: str, form: str) -> list[FieldError]:
    return [] if pattern.fullmatch(value) else [FieldError(pointer, "format", form)]


def _amount(amount: int) -> list[FieldError]:
    return [] if 0 < amount <= LARGEST else [FieldError("/amount", "out_of_range", "not 0, at most 100 billion")]


def _sentence(text: str, pointer: str) -> list[FieldError]:
    good = 1 <= len(text.strip()) <= 500 and "\x00" not in text
    return [] if good else [FieldError(pointer, "required", "a sentence of at most 500 characters")]


def allows(role: str, permission: str) -> bool:
    """Whether a role may do this. Raises KeyError for a permission that is not in the table."""
    return role in PERMISSIONS[permission]


_SWITCHES: Final = frozenset({"ban", "maintenance", "force"})


def permission_for_rule(kind: str) -> str:
    """What it takes to say, or take back, a routing rule of this kind."""
    return "routing:switch" if kind in _SWITCHES else "routing:write"


def is_active(operator: Operator, now: datetime) -> bool:
    """Whether the token works at `now`."""
    return operator.revoked_at is None and (operator.expires_at is None or now < operator.expires_at)


def new_token() -> str:
    """`op_` and 43 characters: 256 random bits."""
    return "op_" + secrets.token_urlsafe(32)


def hash_token(token: str) -> bytes:
    """What is stored. A plain SHA-256 is enough for 256 random bits."""
    return hashlib.sha256(token.encode()).digest()


def check_operator(name: str, role: str) -> list[FieldError]:
    """What is wrong with an operator to be."""
    errors = _format(_NAME, name, "/name", "1–64 of A–Z a–z 0–9 space . _ @ -, beginning with a letter or digit")
    if role not in ROLES:
        errors.append(FieldError("/role", "unknown_value", " | ".join(ROLES)))
    return errors
