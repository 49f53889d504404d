"""A dujiao-next shop as a supplier: says our purchases in its protocol and its answers in our words."""

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from kameng_api.suppliers.adapters.dujiao import callback, mapping, wire
from kameng_api.suppliers.adapters.dujiao.settings import DujiaoSettings
from kameng_api.suppliers.port import (
    Answer,
    AnswerUnusable,
    CallbackNews,
    Capabilities,
    Cause,
    HttpAnswer,
    NotSent,
    Purchase,
    Send,
    Supplier,
    SupplierBase,
    SupplierProduct,
    Unknown,
    Wallet,
    WantedField,
)

_PAGE: Final = 100
_MOST_PAGES: Final = 10_000
_NO_NUMBER: Final = Unknown("it can be asked by its own order number only, and we have none", needs_person=True)


def connect(settings: DujiaoSettings, send: Send) -> Supplier:
    return DujiaoSupplier(settings, send)


class DujiaoSupplier(SupplierBase):
    """One account at one shop. It can be asked by its `order_id` only: without that, a person asks the shop."""

    capabilities = Capabilities(idempotent_submit=True, callback=True, trusted_callback=True)
    callback_reply = callback.REPLY

    def __init__(self, settings: DujiaoSettings, send: Send) -> None:
        self._base_url = settings.base_url
        self._api_key = settings.api_key
        self._secret = settings.api_secret.get_secret_value()
        self._currency = settings.currency
        self._target_field = settings.target_field
        self._manual_is_goods = settings.manual_payload == "goods"
        self._timeout_s = settings.timeout_s
        self._send = send

    async def place(self, purchase: Purchase) -> Answer:
        if purchase.currency != self._currency:
            return Answer(NotSent("the shop sells in another currency", Cause.UNSAYABLE))
        try:
            body = wire.order_body(purchase, self._target_field)
        except wire.Unreadable as error:
            return Answer(NotSent(f"cannot be said in this protocol: {error}", Cause.UNSAYABLE))
        answer = await self._call("POST", "/orders", body=body)
        if not isinstance(answer, HttpAnswer):
            return Answer(answer)
        return Answer(mapping.at_placing(answer), answer.body, answer.status)

    async def look_up(self, reference: str, supplier_order_no: str | None = None) -> Answer:
        """Never NotSent: that nobody could be asked says nothing about the purchase."""
        number = wire.order_number(supplier_order_no)
        if number is None:
            return Answer(_NO_NUMBER)
        answer = await self._call("GET", f"/orders/{number}")
        match answer:
            case HttpAnswer():
                outcome = mapping.at_look_up(answer, number, manual_is_goods=self._manual_is_goods)
                return Answer(outcome, answer.body, answer.status)
            case NotSent(reason=reason):
                return Answer(Unknown(f"look-up not sent: {reason}"))
            case Unknown():
                return Answer(answer)

    async def balance(self) -> Wallet:
        """What POST /ping says beside that it is there. Raises AnswerUnusable."""
        found = await self._read("POST", "/ping")
        try:
            return Wallet(wire.amount(found.get("balance")), str(found["currency"]))
        except (wire.Unreadable, KeyError) as error:
            raise AnswerUnusable("balance: unreadable") from error

    async def products(self) -> AsyncIterator[Sequence[SupplierProduct]]:
        """A line for every SKU of every product on sale, page by page. Raises AnswerUnusable."""
        for page in range(1, _MOST_PAGES + 1):
            found = await self._read("GET", "/products", f"?page={page}&page_size={_PAGE}")
            try:
                items = found["items"]
                total = wire.whole(found, "total")
                lines = [_line(item, sku, self._currency) for item in items for sku in item["skus"]]
            except (wire.Unreadable, KeyError, TypeError, AttributeError) as error:
                raise AnswerUnusable("products: unreadable") from error
            yield lines
            if page * _PAGE >= total:
                return
            if not items:
                break
        raise AnswerUnusable("products: no end")

    async def product(self, code: str) -> SupplierProduct | None:
        """Raises AnswerUnusable."""
        try:
            product_id, sku_id = wire.split_code(code)
        except wire.Unreadable:
            return None
        answer = await self._call("GET", f"/products/{product_id}")
        if isinstance(answer, HttpAnswer) and answer.status == 404 and _is_gone(answer):
            return None
        try:
            item = _object(answer, "product")["product"]
            return next((_line(item, sku, self._currency) for sku in item["skus"] if sku["id"] == sku_id), None)
        except (wire.Unreadable, KeyError, TypeError, AttributeError) as error:
            raise AnswerUnusable("product: unreadable") from error

    def read_callback(self, headers: Mapping[str, str], body: bytes, now: datetime) -> CallbackNews:
        return callback.read(self._api_key, self._secret, headers, body, now)

    async def _call(self, method: str, path: str, query: str = "", body: bytes = b"") -> HttpAnswer | NotSent | Unknown:
        path = wire.ROOT + path
        headers = wire.headers(self._api_key, self._secret, method, path, int(time.time()), body)
        return await self._send(method, f"{self._base_url}{path}{query}", headers=headers, content=body, timeout_s=self._timeout_s)

    async def _read(self, method: str, path: str, query: str = "") -> dict[str, Any]:
        return _object(await self._call(method, path, query), path)


def _object(answer: HttpAnswer | NotSent | Unknown, asked: str) -> dict[str, Any]:
    if not isinstance(answer, HttpAnswer):
        raise AnswerUnusable(f"{asked}: {answer.reason}")
    try:
        found = wire.read_object(answer.body)
    except wire.Unreadable as error:
        raise AnswerUnusable(f"{asked}: HTTP {answer.status}, unreadable") from error
    if answer.status != 200 or found.get("ok") is not True:
        raise AnswerUnusable(f"{asked}: HTTP {answer.status}, refused")
    return found


def _is_gone(answer: HttpAnswer) -> bool:
    try:
        return wire.read_object(answer.body).get("error_code") in ("product_not_found", "product_unavailable")
    except wire.Unreadable:
        return False


def _line(item: Mapping[str, Any], sku: Mapping[str, Any], currency: str) -> SupplierProduct:
    """§4.3. What the shop delivers from its stock (`auto`) are cards; what a person delivers (`manual`) is done to an account."""
    stock = wire.whole(sku, "stock_quantity")
    specs = " ".join(str(value) for value in (sku.get("spec_values") or {}).values())
    return SupplierProduct(
        product_code=wire.product_code(wire.whole(item, "id"), wire.whole(sku, "id")),
        name=f"{_spoken(item['title'])} {specs}".strip(),
        product_type="card" if item["fulfillment_type"] == mapping.AUTO else "topup",
        cost=wire.amount(sku.get("price_amount")),
        currency=currency,
        stock=None if stock < 0 else stock,
        available=item["is_active"] is True and sku["is_active"] is True and sku["stock_status"] != "out_of_stock",
        fields=_form(item.get("manual_form_schema")),
        max_units=None if item["fulfillment_type"] == mapping.AUTO else 1,
    )


def _spoken(title: Mapping[str, str]) -> str:
    return str(title.get("zh-CN") or next(iter(title.values()), ""))


def _form(schema: object) -> tuple[WantedField, ...]:
    """The form of a manual product. Its inner shape is not in the document; fields with a key are taken as they come."""
    fields = schema.get("fields") if isinstance(schema, dict) else None
    if not isinstance(fields, list):
        return ()
    return tuple(
        WantedField(
            name=str(field["key"]),
            label=_spoken(field["label"]) if isinstance(field.get("label"), dict) else str(field.get("label") or field["key"]),
            kind="choice" if field.get("options") else "text",
            required=field.get("required") is True,
            options=tuple(str(option) for option in field.get("options") or ()),
        )
        for field in fields
        if isinstance(field, dict) and field.get("key")
    )
