"""What a supplier's file may say, word by word; everything that is not here is refused with its line."""

from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from kameng_api.suppliers.port import RefusalReason, Scope

Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,39}$")]
WireName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_.\[\]-]{0,63}$")]
HeaderName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9-]{0,63}$")]
Line = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]
Expression = Annotated[str, StringConstraints(min_length=1, max_length=300)]
Template = Annotated[str, StringConstraints(max_length=1000)]
Charset = Literal["utf-8", "gbk"]
Unit = Literal["yuan", "fen"]
TOO_WIDE: Final = frozenset({"", "default", "else", "other", "any", "_"})
"""Codes that look like a catch-all."""


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, populate_by_name=True)


# ---- settings ------------------------------------------------------------------------------------------------------------


class Setting(Strict):
    """One thing an operator fills in. A secret is at least 8 characters long, never shown, and has no default."""

    label: Line
    label_zh: Line | None = None
    secret: bool = False
    default: Annotated[str, StringConstraints(max_length=1000)] | None = None
    optional: bool = False
    min_length: int | None = Field(default=None, ge=1, le=1000)

    @model_validator(mode="after")
    def _no_default_secret(self) -> Self:
        if self.secret and self.default is not None:
            raise ValueError("a secret has no default")
        return self


# ---- signatures ----------------------------------------------------------------------------------------------------------


class Fields(Strict):
    """The fields one after the other. `order`: sorted by name, as they were sent, or exactly these names."""

    order: Literal["sorted", "sent"] | list[WireName] = "sorted"
    without: list[WireName] = []
    empty: Literal["keep", "skip"] = "skip"
    pair: Literal["k=v", "kv", "v"] = "k=v"
    join: Annotated[str, StringConstraints(max_length=8)] = "&"
    nested: Literal["json", "sorted_json"] = "json"
    formats: dict[WireName, str] = {}


class JsonText(Strict):
    """All fields as one compact JSON text."""

    sorted: bool = False
    without: list[WireName] = []
    escape_slashes: bool = False
    escape_unicode: bool = False


class Part(Strict):
    """One piece of the signed text; exactly one of the names.

    `unquoted` decodes a text like a query, as vendors do whose code decodes the whole string: fields were encoded before and come out the same,
    the key was not.
    """

    text: Template | None = None
    unquoted: bool = False
    fields: Fields | None = None
    json_of: JsonText | None = Field(default=None, alias="json")
    characters: JsonText | None = None
    body: Literal["raw", "md5", "sha1", "sha256"] | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(one is not None for one in (self.text, self.fields, self.json_of, self.characters, self.body)) != 1:
            raise ValueError("a part of the signed text is one of: text, fields, json, characters, body")
        if self.unquoted and self.text is None:
            raise ValueError("`unquoted` is for a text")
        return self


class Signature(Strict):
    text: list[Part] = Field(min_length=1, max_length=12)
    digest: Literal["md5", "sha1", "sha256", "sha512", "hmac-md5", "hmac-sha1", "hmac-sha256", "hmac-sha512"]
    key: Template | None = None
    spelled: Literal["lower", "upper", "base64"] = "lower"
    charset: Charset = "utf-8"
    at: dict[Literal["field", "header", "query"], WireName]

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if len(self.at) != 1:
            raise ValueError("a signature stands in one place: field, header or query")
        if "field" in self.at and any(part.body for part in self.text):
            raise ValueError("a signature over the body cannot stand in the body")
        return self


# ---- verdicts ------------------------------------------------------------------------------------------------------------

Word = Literal["delivered", "partial", "accepted", "refused", "not_found", "busy", "unknown", "contact_staff", "reversed", "by_refund", "state", "ok"]


class Row(Strict):
    """What one code means. A bare word stands for `{verdict: word}`; `refused` always says how far and why."""

    verdict: Word
    scope: Literal["channel", "order"] | None = None
    reason: str | None = None
    status: list[Annotated[int, Field(ge=200, le=599)]] = [200]
    returned: Expression | None = None
    charged: Expression | None = None
    unit: Unit = "yuan"
    none: "Row | None" = None
    part: "Row | None" = None
    whole: "Row | None" = None
    id: Expression | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_word(cls, given: Any) -> Any:
        return {"verdict": given} if isinstance(given, str) else given

    @model_validator(mode="after")
    def _whole_row(self) -> Self:
        if (self.verdict == "refused") != (self.scope is not None and self.reason is not None):
            raise ValueError("`refused`, and nothing else, has a scope (channel or order) and a reason")
        if self.reason is not None and self.reason not in [*RefusalReason]:
            raise ValueError(f"no reason {self.reason!r}; there are: {', '.join(RefusalReason)}")
        by_refund = (self.returned, self.charged, self.none, self.part, self.whole)
        if self.verdict == "by_refund":
            if None in by_refund:
                raise ValueError("`by_refund` says returned, charged, and what none, part and whole of it mean")
        elif any(one is not None for one in by_refund):
            raise ValueError("only `by_refund` has returned, charged, none, part and whole")
        if (self.verdict == "reversed") != (self.id is not None):
            raise ValueError("`reversed`, and nothing else, has the id of the reversal")
        return self

    def refusal(self) -> tuple[Scope, RefusalReason]:
        assert self.scope is not None and self.reason is not None
        return Scope(self.scope), RefusalReason(self.reason)


class Amount(Strict):
    at: Expression
    unit: Unit = "yuan"


class Cards(Strict):
    """Card codes in an answer. `covers`: the whole list is one encrypted text, or each value is; `cipher: none` reads them as they are."""

    at: Expression
    cipher: Literal["none", "aes-256-ecb", "aes-128-ecb", "aes-256-cbc", "aes-128-cbc"] = "none"
    key: Template | None = None
    key_as: Literal["text", "hex", "base64", "md5_hex"] = "text"
    iv: Template | None = None
    text_as: Literal["base64", "hex"] = "base64"
    covers: Literal["list", "each"] = "list"
    code: Expression
    pin: Expression | None = None
    expires_on: Expression | None = None
    expires_as: Literal["yyyy-MM-dd", "yyyyMMdd", "yyyy-MM-dd HH:mm:ss", "yyyy/MM/dd"] = "yyyy-MM-dd"
    no_expiry: list[str] = ["", "-"]

    @model_validator(mode="after")
    def _key(self) -> Self:
        if (self.cipher == "none") != (self.key is None):
            raise ValueError("a cipher has a key, and `none` has not")
        if (self.iv is not None) != self.cipher.endswith("cbc"):
            raise ValueError("CBC, and nothing else, has an iv")
        return self


class Reading(Strict):
    """How an order is read out of an answer or a callback. `order` is picked first; a list is searched for our reference."""

    order: Expression | None = None
    reference: Expression | None = None
    state: Expression | None = None
    states: dict[str, Row] = {}
    units: Expression | None = None
    asked: Expression | None = None
    one_unit: bool = False
    cost: Amount | None = None
    receipt: Expression | None = None
    order_no: Expression | None = None
    cards: Cards | None = None

    @model_validator(mode="after")
    def _tables(self) -> Self:
        if bool(self.states) != (self.state is not None):
            raise ValueError("`state` and `states` come together")
        return self


class Answer(Reading):
    """What comes back. `content_types` are compared without their parameters."""

    kind: Literal["json", "xml"] = "json"
    charset: Charset = "utf-8"
    content_types: list[str] = []
    code: Expression | None = None
    codes: dict[str, Row] = {}

    @model_validator(mode="after")
    def _codes(self) -> Self:
        if bool(self.codes) != (self.code is not None):
            raise ValueError("`code` and `codes` come together")
        if self.code is None and self.state is None:
            raise ValueError("an answer has a code, a state or both")
        return self


class BalanceAnswer(Answer):
    balance: Amount
    currency: str = "CNY"


class ProductForm(Strict):
    code: Expression
    name: Expression
    product_type: Literal["topup", "card", "voucher"] | None = None
    type_at: Expression | None = None
    types: dict[str, Literal["topup", "card", "voucher"]] = {}
    cost: Amount
    currency: str = "CNY"
    stock: Expression | None = None
    available: Expression | None = None
    available_is: list[str] = []
    face_value: Amount | None = None

    @model_validator(mode="after")
    def _type(self) -> Self:
        if (self.product_type is None) == (self.type_at is None) or bool(self.types) != (self.type_at is not None):
            raise ValueError("a product has a `product_type`, or `type_at` with `types`")
        if bool(self.available_is) != (self.available is not None):
            raise ValueError("`available` and `available_is` come together")
        return self


class ProductAnswer(Answer):
    product: ProductForm


class Paging(Strict):
    """`last`: the list ends with an empty page, with one shorter than `size`, or where `next` is missing, empty, 0 or false."""

    by: Literal["none", "page", "cursor"] = "none"
    first: int = Field(default=1, ge=0, le=1)
    size: int = Field(default=100, ge=1, le=1000)
    last: Literal["empty", "short", "next"] = "empty"
    next: Expression | None = None

    @model_validator(mode="after")
    def _end(self) -> Self:
        if (self.last == "next" or self.by == "cursor") != (self.next is not None):
            raise ValueError("`next` is for cursors and for `last: next`")
        if self.by == "cursor" and self.last != "next":
            raise ValueError("a cursor's list ends where `next` is empty")
        return self


class ProductsAnswer(ProductAnswer):
    rows: Expression


# ---- requests ------------------------------------------------------------------------------------------------------------


class Request(Strict):
    method: Literal["GET", "POST", "PUT", "DELETE"] = "POST"
    path: Annotated[str, StringConstraints(min_length=1, max_length=300)]
    encoding: Literal["form", "json", "multipart", "query"] | None = None
    charset: Charset | None = None
    headers: dict[HeaderName, Template] = {}
    fields: dict[WireName, Any] = {}
    omit_empty: bool | None = None
    signature: Signature | None = None
    unsigned: bool = False


class Place(Request):
    answer: Answer


class LookUp(Request):
    answer: Answer


class Cancel(Request):
    answer: Answer


class Balance(Request):
    answer: BalanceAnswer


class Products(Request):
    paging: Paging = Paging()
    answer: ProductsAnswer


class Product(Request):
    answer: ProductAnswer


class Common(Strict):
    """What all requests have in common; a request's own fields come after these and may replace them."""

    encoding: Literal["form", "json", "multipart", "query"] = "form"
    charset: Charset = "utf-8"
    headers: dict[HeaderName, Template] = {}
    fields: dict[WireName, Any] = {}
    omit_empty: bool = False
    signature: Signature | None = None


class Moment(Strict):
    """When a callback says it was sent; outside the window it is refused."""

    at: dict[Literal["field", "header"], WireName]
    spelled: str
    within_s: int = Field(default=300, ge=10, le=1800)


class Reply(Strict):
    status: int = Field(default=200, ge=200, le=299)
    text: Annotated[str, StringConstraints(max_length=200)]
    content_type: Line = "text/plain"


class Callback(Reading):
    encoding: Literal["form", "json"]
    charset: Charset = "utf-8"
    signature: Signature
    time: Moment | None = None
    trusted: bool = False
    reply: Reply
    product_codes: Expression | None = None


class Promises(Strict):
    """What the vendor promises beside what the file shows; each promise that money rests on needs a certificate."""

    idempotent_submit: bool = False
    idempotent_resubmit: bool = False
    not_found_is_final: bool = False
    not_found_grace_s: int = Field(default=300, ge=1, le=86_400)
    min_query_interval_s: int = Field(default=1, ge=1, le=3600)
    callback_batch_s: int = Field(default=0, ge=0, le=86_400)
    returns_cost: bool = False
    price_version: bool = False


class Limits(Strict):
    """What one order may be. Outside of it nothing is sent."""

    product_types: list[Literal["topup", "card", "voucher"]] = Field(min_length=1)
    max_units: int = Field(default=1, ge=1, le=100_000)
    currency: Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$")] = "CNY"
    split_product_code: Annotated[str, StringConstraints(min_length=1, max_length=3)] | None = None


class SupplierFile(Strict):
    """One supplier, whole. One file, one currency: an account sells in the currency that its wallet holds."""

    name: Name
    title: Line
    source: Line
    dated: Annotated[str, StringConstraints(pattern=r"^\d{4}-\d{2}(-\d{2})?$")]
    not_verified: list[Line] = []
    base_url: Annotated[str, StringConstraints(pattern=r"^https?://[^/?#\s]+(/[^?#\s]*)?$")] | None = None
    timeout_s: int = Field(default=15, ge=1, le=60)
    settings: dict[Name, Setting] = Field(min_length=1, max_length=30)
    limits: Limits
    promises: Promises = Promises()
    common: Common = Common()
    place: Place
    look_up: LookUp | None = None
    cancel: Cancel | None = None
    balance: Balance | None = None
    products: Products | None = None
    product: Product | None = None
    callback: Callback | None = None

    @model_validator(mode="after")
    def _one_currency(self) -> Self:
        said = {"balance": None if self.balance is None else self.balance.answer.currency}
        said["products"] = None if self.products is None else self.products.answer.product.currency
        said["product"] = None if self.product is None else self.product.answer.product.currency
        other = [name for name, currency in said.items() if currency not in (None, self.limits.currency)]
        if other:
            raise ValueError(f"limits.currency is {self.limits.currency}, and {', '.join(other)} says another")
        return self
