"""The one interface between a door folder and the house: what a foreign protocol brings, and what it may ask for. Nothing else is imported here.

A door (兼容入口) lets a merchant go on speaking the protocol its software already speaks: it changes the URL and the keys. A folder
`api/doors/<name>/` exports `DOOR`, an instance of a subclass of `VendorDoor`; the registry finds it, and `mounting` does the rest:

    request → account_of → account known, enabled, address allowed → is_proven → rates → path.answer(counter, ask) → reply
                                   any refusal on the way → refuse(…)         any doubt on the way → in_doubt(…)

What a folder may rely on, and must not do itself:
- `answer` runs only for a proven request, and its `Counter` is bound to that one account: no other book can be reached through it.
- Anything raised out of `answer` (`Doubt`, a database that went away, a bug) becomes `in_doubt`. So raise, never guess.
- `Counter.place` returns `Refused` only when no order stands, or will ever stand, under this number (see `a_refusal_closes`), and
  `Counter.find` returns None only when none can be committing. Whatever else may be the case is `Doubt`.
- Nothing here sees the database, the clock (`ask.now`), the network or the web framework.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar, Final, Protocol
from urllib.parse import parse_qsl

from kameng_api.kit import strict_json
from kameng_api.kit.strict_json import MalformedJson
from kameng_api.merchants.door_rules import Account
from kameng_api.orders.foreign import Card, Letter, Letters, Shown, State

__all__ = [
    "Account",
    "Answer",
    "Ask",
    "Balance",
    "Card",
    "Conflict",
    "Counter",
    "Doubt",
    "Kind",
    "Letter",
    "Letters",
    "Offered",
    "Path",
    "Placed",
    "Refused",
    "Reply",
    "Secret",
    "Setting",
    "Shown",
    "Stale",
    "State",
    "Unreadable",
    "VendorDoor",
    "Wanted",
    "WantedField",
    "Why",
]  # fmt: skip

_MAX_FIELDS: Final = 64
_FORM: Final = "application/x-www-form-urlencoded"


class Unreadable(Exception):
    """The request is not what the protocol says; the text says what is wrong, without repeating what was sent. Becomes `Why.UNREADABLE`."""


class Doubt(Exception):
    """Nobody knows now: it may have been bought, or be about to be. Becomes `VendorDoor.in_doubt`."""


class Why(StrEnum):
    """Why a request was turned away before anything was looked up or done. None of these is a verdict about an order."""

    UNREADABLE = "unreadable"
    UNKNOWN_ACCOUNT = "unknown_account"  # also: the door is off for this account, or was never on
    ADDRESS = "address"  # the account's allowlist does not hold the caller
    NOT_PROVEN = "not_proven"  # the signature
    STALE = "stale"  # the vendor's time window
    THROTTLED = "throttled"
    NO_SUCH_PATH = "no_such_path"


class Kind(StrEnum):
    """What a path does: by which rate it is counted, and what doubt means there."""

    PLACE = "place"
    QUERY = "query"
    CANCEL = "cancel"
    READ = "read"  # products, balance, a probe


@dataclass(frozen=True, slots=True)
class Ask:
    """One request. `path` is the vendor's own, as it stands behind `/doors/<name>`; `full_path` is the whole raw path.

    `headers` have lower-case names, the last of a repeated one wins. `in_path` is the account of `/doors/<name>/~<account>/…`, for protocols whose
    anonymous requests do not say whose shop they mean.
    """

    method: str
    path: str
    full_path: str
    query: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    address: str
    request_id: str
    now: datetime
    in_path: str | None = None
    parameters: Mapping[str, str] = field(default_factory=dict)
    """The `{names}` of the path's template."""

    def form(self) -> dict[str, str]:
        """The fields of a form body, with those of the query string under them, empty values kept. Raises Unreadable.

        UTF-8; a field given twice in one of the two places is refused, because two readers could sign two different requests.
        """
        kind = self.headers.get("content-type", _FORM).partition(";")[0].strip().lower()
        if self.body and kind != _FORM:
            raise Unreadable("send a form (application/x-www-form-urlencoded)")
        try:
            text = self.body.decode("ascii")
        except UnicodeDecodeError:
            raise Unreadable("the form is not URL-encoded") from None
        return _fields(self.query) | _fields(text)

    def json(self) -> dict[str, Any]:
        """The body as one JSON object. Raises Unreadable."""
        try:
            document = strict_json.loads(self.body)
        except MalformedJson as wrong:
            raise Unreadable(wrong.detail) from None
        if not isinstance(document, dict):
            raise Unreadable("the body is not a JSON object")
        return document


def _fields(text: str) -> dict[str, str]:
    if not text:
        return {}
    try:
        pairs = parse_qsl(text, keep_blank_values=True, strict_parsing=True, errors="strict", max_num_fields=_MAX_FIELDS)
    except (ValueError, UnicodeDecodeError):
        raise Unreadable("the form cannot be read") from None
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Unreadable("a field is given twice")
    return found


@dataclass(frozen=True, slots=True)
class Reply:
    """What is sent back, byte for byte."""

    body: bytes = field(repr=False)
    status: int = 200
    content_type: str = "application/json; charset=utf-8"
    headers: Mapping[str, str] = field(default_factory=dict)


# ---- what a door may ask for -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Wanted:
    """An order as the foreign request asks for it.

    `number` is the caller's order number (1–64 of `[A-Za-z0-9_-]`; any other is Refused). `product` is the caller's product number, which the
    account's map turns into a SKU. `fields` are form fields of the product beside the target. `most` is the highest total the caller will pay,
    in 1/10000 units. `face_value` (1/10000 units) must be what the product has, when it is given. `callback` is where the result is to be told.

    `same` tells whether two requests with one number are the same order: text made of every field that matters and none that changes when the
    request is sent again (no timestamp, no signature). `facts` are kept with the order and come back in `Shown.facts`: what callbacks and answers
    must repeat. Neither may hold a target, a card code or a secret in the clear; use a digest in `same`.
    """

    number: str
    product: str
    same: str
    quantity: int = 1
    target: str | None = field(default=None, repr=False)
    fields: Mapping[str, str] = field(default_factory=dict, repr=False)
    most: int | None = None
    face_value: int | None = None
    callback: str | None = field(default=None, repr=False)
    facts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Placed:
    """An order stands under this number, and it is the one that was asked for. `created`: by this request."""

    order: Shown
    created: bool


@dataclass(frozen=True, slots=True)
class Conflict:
    """Another order stands under this number, or an equal one of another account or way (`order.mine` is False); nothing was changed."""

    order: Shown


@dataclass(frozen=True, slots=True)
class Refused:
    """No order stands under this number. `code` is one of the contract's (docs/errors.md), `detail` a sentence that may be shown.

    The codes: validation_failed, product_unavailable, product_not_authorised, price_changed, out_of_stock, target_not_supported,
    duplicate_target, test_value_in_live, insufficient_balance, merchant_suspended, url_refused (the callback address), number_closed (a no was
    said about this number before, and stands).
    """

    code: str
    detail: str


Answer = Placed | Conflict | Refused


@dataclass(frozen=True, slots=True)
class Balance:
    """1/10000 units. `spendable` is what an order may cost now: available money and the credit line."""

    available: int
    held: int
    credit: int
    currency: str

    @property
    def spendable(self) -> int:
        return self.available + self.credit


@dataclass(frozen=True, slots=True)
class WantedField:
    """A form field that an order of the product must or may fill, beside the target."""

    name: str
    label: str
    required: bool
    max_length: int


@dataclass(frozen=True, slots=True)
class Offered:
    """A product as this account may buy it. `unit_price` in 1/10000 units, None where it cannot be bought now.

    `target_kind`: `mobile`, `account`, or None for what needs no target (cards). `stock`: `in_stock`, `low`, `out_of_stock`.
    """

    number: str
    sku: str
    name: str
    product_type: str
    unit_price: int | None
    face_value: int | None
    currency: str
    target_kind: str | None
    stock: str
    on_sale: bool
    max_quantity: int
    fields: Sequence[WantedField] = ()
    updated_at: datetime | None = None


class Counter(Protocol):
    """The house's side of the door, bound to the one account that has proven itself. Every method may raise Doubt."""

    @property
    def account(self) -> Account: ...

    async def place(self, wanted: Wanted) -> Answer:
        """Buy, once for ever under this number. A repeat of the same order is Placed with `created` False."""
        ...

    async def find(self, number: str, *, closing: bool | None = None) -> Shown | None:
        """The order under the caller's number; raises Doubt while one may be committing.

        One that came another way (the contract's API, another door or account; `mine` is False) is PROCESSING here, unless it bought nothing.

        `closing` says whether None is a promise, as `VendorDoor.a_no_closes` says when it is left out. Where it is not, None means no more than
        that nothing stands there now, and must be answered with words that are no verdict.
        """
        ...

    async def find_by_id(self, order_id: str) -> Shown | None:
        """The order under our id (`ord_…`), for protocols that only ask by it. None: not this merchant's, or no such order."""
        ...

    async def find_by_short(self, short: int) -> Shown | None:
        """The order under `Shown.short`, for protocols whose ids are numbers. None as in `find_by_id`."""
        ...

    async def cancel(self, order_id: str) -> Shown | None:
        """Cancel before dispatch; the order as it is now, cancelled or not. None as in `find_by_id`. Another's (`mine` is False) is left alone."""
        ...

    async def cards(self, order: Shown) -> Sequence[Card]:
        """The card codes of an order of this account, in the order of their units; the reveal is written down before they are returned."""
        ...

    async def balance(self) -> Balance: ...

    def products(self) -> Sequence[Offered]:
        """What this account may see, by number in order."""
        ...

    def product(self, number: str) -> Offered | None: ...

    def is_mapped(self, number: str) -> bool:
        """Whether the account's product map names the number, on sale or not; a SKU of ours that is read as a number is not named there."""
        ...


# ---- what a door brings ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Secret:
    """A secret of an account. `vendor_given`: the other side assigns it, so the operator must enter it; else we make `length` characters."""

    name: str
    label: str
    length: int = 32
    vendor_given: bool = False


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting of an account that is no secret; `pattern` must match the whole value."""

    name: str
    label: str
    pattern: str = r"[^\x00-\x1f\x7f]{0,512}"
    required: bool = False


@dataclass(frozen=True, slots=True)
class Path:
    """One endpoint: the vendor's path, `{name}` for a step that varies, and what answers it.

    `anonymous` paths are answered without an account or a signature, by `VendorDoor.answer_anonymous`; they may read nothing of a merchant's.
    """

    method: str
    template: str
    kind: Kind
    answer: Callable[[Counter, Ask], Awaitable[Reply]] | None = None
    anonymous: bool = False


class VendorDoor:
    """What a door folder subclasses; `DOOR` is one instance. Every method is pure."""

    name: ClassVar[str]
    """The folder's name, and the step of the URL behind `/doors/`."""
    title: ClassVar[str]
    """The vendor's name as the desk shows it, such as `大猿人 yrapi`."""
    secrets: ClassVar[tuple[Secret, ...]]
    settings: ClassVar[tuple[Setting, ...]] = ()
    paths: ClassVar[tuple[Path, ...]]
    letters: ClassVar[Letters | None] = None
    """How it calls back; None: it never does."""
    a_no_closes: ClassVar[bool] = True
    """Whether `find` → None closes the number for good, so that a delayed request under it can never be bought later.

    True wherever the other side acts on such an answer (refunds its buyer, buys elsewhere) and does not use the number again: JD. False only where
    the protocol itself says that the absence of an order means nothing, and the same number is sent again as a matter of course.
    """

    a_refusal_closes: ClassVar[bool] = True
    """Whether `place` → Refused closes the number for good, whatever `a_no_closes` says of questions. True wherever the protocol's word for a refusal
    is final: a first try may still hang on its way to another process when the second is refused, and must not be bought after that."""

    asked_again: ClassVar[frozenset[str]] = frozenset()
    """Codes of `Refused` after which the other side asks again under the same number (JD: out of stock). They do not close it, whatever
    `a_refusal_closes` says. Where the protocol has a word that tells them from final ones, use it."""

    def account_of(self, ask: Ask) -> str | None:
        """The account id that the request names; None when it names none. Raises Unreadable."""
        raise NotImplementedError

    def is_proven(self, ask: Ask, account: Account) -> bool:
        """Whether the account's key made this request; compared in constant time. Raises Unreadable, or Stale for an old timestamp.

        Also called with a dummy account when there is none: it must not matter which secrets it holds.
        """
        raise NotImplementedError

    def refuse(self, ask: Ask, path: Path | None, why: Why, detail: str) -> Reply:
        """The protocol's words for a request that was turned away. In a query it must not read as "this order failed"."""
        raise NotImplementedError

    def in_doubt(self, ask: Ask, path: Path) -> Reply:
        """The protocol's words for "unknown, ask again": never a code that the vendor's document, or its clients, take for final."""
        raise NotImplementedError

    def answer_anonymous(self, ask: Ask, path: Path, account: Account | None) -> Reply:
        """For anonymous paths; `account` is that of `ask.in_path`, if it is known and enabled."""
        raise NotImplementedError


class Stale(Exception):
    """The request's timestamp is outside the vendor's window. Becomes `Why.STALE`."""
