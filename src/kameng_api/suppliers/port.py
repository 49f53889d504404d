"""What can be asked of a supplier, and the only words in which a supplier may answer.

Every adapter translates its vendor's protocol into the types of this file and nothing else. The rule that keeps money safe:
**doubt is `Unknown`**. `Delivered` and `Refused` come only from codes listed in the adapter's mapping table; `NotSent` only where nothing can
have been bought; everything else is `Unknown` and is looked up later, never bought again.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from pydantic import BaseModel


class Scope(StrEnum):
    """How far a refusal reaches."""

    CHANNEL = "channel"  # this supplier cannot; another channel may be tried (out of stock, product off, its wallet empty)
    ORDER = "order"  # it fails everywhere: wrong number, blacklisted account


class RefusalReason(StrEnum):
    """Why a supplier said a final no, in our words; `Refused.detail` may add text that is safe to show an operator."""

    SUPPLIER_REJECTED = "supplier_rejected"  # the supplier's final no, without a better reason
    TARGET_INVALID = "target_invalid"  # the number or account does not exist
    TARGET_NOT_ELIGIBLE = "target_not_eligible"  # the number exists but may not be charged with this product
    OUT_OF_STOCK = "out_of_stock"  # the supplier has none; says nothing about other suppliers
    PRODUCT_OFF = "product_off"  # the supplier no longer sells this product code
    PRICE_EXCEEDED = "price_exceeded"  # the supplier's price is above `Purchase.max_cost`
    WALLET_EMPTY = "wallet_empty"  # our prepaid balance at the supplier does not cover it


@dataclass(frozen=True, slots=True)
class Purchase:
    """One thing to buy, completely described by values.

    `reference` is ours (≤ 40 characters of [A-Za-z0-9]), written to the database before it is sent. Amounts are integers in 1/10000 of the
    currency unit. `max_cost` is for all units together. `face_value` is per unit and set for ranged products.
    """

    reference: str
    product_code: str
    product_type: str
    units: int
    currency: str
    max_cost: int
    target: str | None = field(default=None, repr=False)
    fields: Mapping[str, str] = field(default_factory=dict, repr=False)
    face_value: int | None = None
    callback_url: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Code:
    """One card code (卡密) as the supplier delivered it; never logged."""

    code: str = field(repr=False)
    pin: str | None = field(default=None, repr=False)
    expires_on: date | None = None


@dataclass(frozen=True, slots=True)
class Delivered:
    """Final: `units` were delivered, perhaps fewer than asked, and nothing more will be under this reference.

    `cost` is the total charged for them, None if unsaid.
    """

    units: int
    cost: int | None = None
    supplier_order_no: str | None = None
    receipt: str | None = None
    codes: tuple[Code, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class Accepted:
    """The supplier works on it; the outcome comes by callback or look-up."""

    supplier_order_no: str | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """Final: nothing was and nothing will be delivered under this reference."""

    scope: Scope
    reason: RefusalReason
    detail: str = ""


class Cause(StrEnum):
    """Why nothing was sent; says what it means for the channel's health."""

    UNREACHED = "unreached"  # nobody took the request: refused connection, no address, no TLS, no connection in time
    BUSY = "busy"  # the rate-limit refusal that the vendor documents as given before a request is read
    OURS = "ours"  # we held it back for now: our own limit, our lease too old
    UNSAYABLE = "unsayable"  # it cannot be said in their protocol, today or tomorrow: currency, characters, a face value, a number of units


@dataclass(frozen=True, slots=True)
class NotSent:
    """Proof that nothing was bought: refused connection, connect timeout, our pool full, or a rate-limit refusal the vendor documents."""

    reason: str
    cause: Cause = Cause.UNREACHED


@dataclass(frozen=True, slots=True)
class Unknown:
    """Everything else. `needs_person` when the supplier itself says that only its staff can tell."""

    reason: str
    needs_person: bool = False


@dataclass(frozen=True, slots=True)
class NotFound:
    """An answer to a look-up only: the supplier does not know our reference (yet)."""


@dataclass(frozen=True, slots=True)
class Reversed:
    """A delivery was taken back after it was reported (冲正). `external_id` makes the news count once; `amount` is what returns to our wallet."""

    external_id: str
    amount: int | None = None


Outcome = Delivered | Accepted | Refused | NotSent | Unknown | NotFound | Reversed


@dataclass(frozen=True, slots=True)
class Answer:
    """An outcome with its evidence. `raw` is stored encrypted and pruned by age; `http_status` None when no answer came."""

    outcome: Outcome
    raw: bytes = field(default=b"", repr=False)
    http_status: int | None = None


@dataclass(frozen=True, slots=True)
class CallbackNews:
    """What a verified callback says about one reference."""

    reference: str
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class CatalogHint:
    """What a verified push says about the supplier's list: these lines may have changed. Their values are read again, never taken from here."""

    product_codes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Wallet:
    """Our prepaid balance at the supplier, 1/10000 units."""

    balance: int
    currency: str


@dataclass(frozen=True, slots=True)
class WantedField:
    """Something the supplier must be told beside target and units. `kind`: text, number, password or choice (then `options`)."""

    name: str
    label: str
    kind: str = "text"
    required: bool = True
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SupplierProduct:
    """One line of the supplier's product list. Amounts in 1/10000 units; None where the supplier does not tell.

    `cost` is per unit; where `face_min` is set (ranged products), per 1.0000 of face value. `face_value` is per unit.
    """

    product_code: str
    name: str
    product_type: str
    cost: int
    currency: str
    stock: int | None
    available: bool
    face_value: int | None = None
    face_min: int | None = None
    face_max: int | None = None
    fields: tuple[WantedField, ...] = ()
    min_units: int = 1
    max_units: int | None = None


@dataclass(frozen=True, slots=True)
class NumberFacts:
    """What a supplier knows of a mobile number today. `carrier` is the network it is on now: cmcc, cucc, ctcc or cbn."""

    carrier: str
    virtual: bool = False
    """Sold by a virtual operator on that network."""
    ported: bool | None = None
    """Taken along from another carrier; None: it does not say."""


class LineKind(StrEnum):
    """What moved our wallet in the supplier's own books, in our words."""

    CHARGE = "charge"  # paid for a purchase; `amount` below zero
    REFUND = "refund"  # a charge given back because its purchase failed: no delivery was ever reported
    REVERSAL = "reversal"  # a charge given back after a delivery had been reported (冲正)
    TOP_UP = "top_up"  # we paid in
    WITHDRAWAL = "withdrawal"  # we took out
    FEE = "fee"  # what they take for themselves
    OTHER = "other"  # anything their manual does not explain; counts in the balance, matches nothing


@dataclass(frozen=True, slots=True)
class StatementLine:
    """One movement of our wallet in the supplier's own books. `amount` signed: negative is a charge. 1/10000 units.

    `line_id` is theirs and names the movement for ever: the same movement fetched again has the same id. `external_id` is the number of a
    reversal or refund, the same as `Reversed.external_id` where the supplier also calls back about it, so that the news counts once.
    `balance_after` is what their books say the wallet holds after the line.
    """

    line_id: str
    reference: str | None
    supplier_order_no: str | None
    kind: LineKind
    amount: int
    currency: str
    at: datetime
    external_id: str | None = None
    balance_after: int | None = None
    face_value: int | None = None
    units: int | None = None


@dataclass(frozen=True, slots=True)
class StatementTerms:
    """What a supplier's statement is, said by the adapter and certified by the contract suite."""

    timezone: str = "Asia/Shanghai"
    """Whose midnight ends its business day."""
    lag_s: int = 3600
    """So long after the end of its day the statement is whole."""
    complete: bool = False
    """Whole means whole: what is not in the statement of its day, read after `lag_s`, and in none of the days around it, was not charged.
    Without this promise, absence goes to a person."""
    reading_s: float = 600.0
    """How long reading one day may take in all."""


@dataclass(frozen=True, slots=True)
class CallbackReply:
    """What the supplier must read to stop calling back."""

    status: int
    body: bytes
    content_type: str


class AnswerUnusable(Exception):
    """A balance, product list, number or statement could not be read, in words safe to log. Nothing about any purchase follows from it."""


class CallbackRefused(Exception):
    """A callback that does not verify: bad signature, stale, unreadable. Stored, never acted on."""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What this supplier really does, certified by the contract suite, not believed from its brochure. At rest: nothing is promised."""

    idempotent_submit: bool = False
    """The same reference, sent again after the first was answered, returns the first order and never buys twice."""
    idempotent_resubmit: bool = False
    """The same while the first is under way or was never answered: twenty at once buy once. Stronger, and rarer."""
    query_by_reference: bool = False
    """It can be asked by our reference what became of a purchase; `Supplier.look_up` is there."""
    not_found_is_final: bool = False
    """"Not found" after `not_found_grace_s` proves that nothing was bought and nothing will be."""
    not_found_grace_s: int = 300
    min_query_interval_s: float = 1.0
    """It answers look-ups of one reference that are so far apart, and need not answer closer ones."""
    cancel: bool = False
    """An order it works on can be cancelled under our reference, and says whether it was."""
    callback: bool = False
    """It calls back with every final outcome of an order it had accepted."""
    callback_batch_s: float = 0.0
    """Callbacks may wait so long to be sent together; 0: each is sent when it is known."""
    returns_cost: bool = False
    """Each delivery says what it cost; the statement agrees."""
    price_version: bool = False
    """It never sells above the price that the purchase names (its version, or `Purchase.max_cost`), however its prices have moved."""
    trusted_callback: bool = False
    """Strong signature: the callback's verdict may be applied; else it only triggers a look-up."""


class LookUp(Protocol):
    """What became of a purchase. `supplier_order_no` is the vendor's own number where we know it: some can be asked by nothing else."""

    async def __call__(self, reference: str, supplier_order_no: str | None = None) -> Answer: ...


class Cancel(Protocol):
    """Asks the vendor to stop an order it works on.

    `Refused` only when it says that the order is finally cancelled and the money is back; `Accepted` when it took the request and a look-up
    will tell; everything else is Unknown.
    """

    async def __call__(self, reference: str, supplier_order_no: str | None = None) -> Answer: ...


class Supplier(Protocol):
    """One connected channel. A capability the vendor lacks is None, not a method that raises."""

    capabilities: Capabilities

    async def place(self, purchase: Purchase) -> Answer: ...

    @property
    def look_up(self) -> LookUp | None: ...

    @property
    def cancel(self) -> Cancel | None: ...

    @property
    def balance(self) -> Callable[[], Awaitable[Wallet]] | None: ...

    @property
    def products(self) -> Callable[[], AsyncIterator[Sequence[SupplierProduct]]] | None:
        """`() -> pages of lines`, each held in memory alone; raises AnswerUnusable. Whole only when the last page was read."""
        ...

    @property
    def product(self) -> Callable[[str], Awaitable[SupplierProduct | None]] | None:
        """`(product code) -> its line as it is now`, None for a code the supplier does not know; raises AnswerUnusable."""
        ...

    @property
    def changed_since(self) -> Callable[[datetime], AsyncIterator[Sequence[str]]] | None:
        """`(moment) -> pages of product codes` whose price, stock or status changed since; raises AnswerUnusable."""
        ...

    @property
    def look_up_number(self) -> "Callable[[str], Awaitable[NumberFacts | None]] | None":
        """`(11-digit mobile number) -> facts`, None for a number it does not know; raises AnswerUnusable. Buys nothing, costs nothing."""
        ...

    @property
    def statement(self) -> Callable[[date], AsyncIterator[Sequence[StatementLine]]] | None:
        """`(business day) -> pages of lines`, each held in memory alone; raises AnswerUnusable. `statement_terms` says what it is worth."""
        ...

    @property
    def statement_terms(self) -> StatementTerms | None:
        """None without `statement`."""
        ...

    @property
    def read_callback(self) -> Callable[[Mapping[str, str], bytes, datetime], CallbackNews | CatalogHint] | None:
        """`(headers, body, now) -> news`, pure; raises CallbackRefused."""
        ...

    @property
    def callback_reply(self) -> CallbackReply: ...


class SupplierBase:
    """A supplier that can do nothing but sell: adapters begin here and add what their vendor has."""

    capabilities: Capabilities = Capabilities()
    look_up: LookUp | None = None
    cancel: Cancel | None = None
    balance: Callable[[], Awaitable[Wallet]] | None = None
    products: Callable[[], AsyncIterator[Sequence[SupplierProduct]]] | None = None
    product: Callable[[str], Awaitable[SupplierProduct | None]] | None = None
    changed_since: Callable[[datetime], AsyncIterator[Sequence[str]]] | None = None
    look_up_number: Callable[[str], Awaitable[NumberFacts | None]] | None = None
    statement: Callable[[date], AsyncIterator[Sequence[StatementLine]]] | None = None
    statement_terms: StatementTerms | None = None
    read_callback: Callable[[Mapping[str, str], bytes, datetime], CallbackNews | CatalogHint] | None = None
    callback_reply: CallbackReply = CallbackReply(200, b"success", "text/plain")


@runtime_checkable
class Hurried(Protocol):
    """What a simulated supplier can do beside: let time pass for one order."""

    async def hurry(self, reference: str) -> int:
        """Whatever the order still waits for happens now; returns how much that was. Raises AnswerUnusable."""
        ...


class Send(Protocol):
    """The one HTTP door an adapter is given (`suppliers.transport.Transport.send`)."""

    async def __call__(
        self, method: str, url: str, *, headers: Mapping[str, str] | None = None, content: bytes = b"", timeout_s: float = 30.0
    ) -> "HttpAnswer | NotSent | Unknown": ...


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """A complete answer as received; what it means is the adapter's business. `headers` keys are lower-case."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Adapter:
    """What a folder in `adapters/` exports as ADAPTER. `settings` is the pydantic model of a channel's connection (secrets as SecretStr)."""

    name: str
    settings: type[BaseModel]
    connect: Callable[[Any, Send], Supplier]
    simulated: bool = False
    """It sells nothing: channels of the live environment are never connected with it."""
    title: str = ""
    """The vendor's own name, as the operator's desk shows it."""
    folder: Path | None = None
    """Where its README and `examples/` stand, for adapters that are no package of their own."""
