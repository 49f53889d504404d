"""卡商网 as a supplier: says our purchases in its protocol and its answers in our words."""

import re
import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from kameng_api.suppliers.adapters.kashangwl import callback, mapping, wire
from kameng_api.suppliers.adapters.kashangwl.settings import KashangwlSettings
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

_CURRENCY: Final = "CNY"
_CONTENT: Final = {"json": "application/json", "form": "application/x-www-form-urlencoded; charset=UTF-8"}
_RANGE: Final = re.compile(r"\A([0-9]{1,6})-([0-9]{1,6})\Z")


def connect(settings: KashangwlSettings, send: Send) -> Supplier:
    return KashangwlSupplier(settings, send)


class KashangwlSupplier(SupplierBase):
    """One account. What a repeated number does is not documented, so nothing is promised about it."""

    capabilities = Capabilities(query_by_reference=True, callback=True, returns_cost=True)
    callback_reply = callback.REPLY

    def __init__(self, settings: KashangwlSettings, send: Send) -> None:
        self._settings = settings
        self._key = settings.customer_key.get_secret_value()
        self._customer_id = int(settings.customer_id)
        self._headers = {"content-type": _CONTENT[settings.body], "accept": "application/json"}
        self._send = send

    async def place(self, purchase: Purchase) -> Answer:
        if purchase.currency != _CURRENCY:
            return Answer(NotSent("the platform sells in yuan only", Cause.UNSAYABLE))
        try:
            params = wire.order_params(purchase, self._settings.safe_cost)
        except wire.Unreadable as error:
            return Answer(NotSent(f"cannot be said in this protocol: {error}", Cause.UNSAYABLE))
        answer = await self._call("/api/buy", params)
        if not isinstance(answer, HttpAnswer):
            return Answer(answer)
        return Answer(mapping.at_placing(answer, purchase, self._settings.refusal_codes), answer.body, answer.status)

    async def look_up(self, reference: str, supplier_order_no: str | None = None) -> Answer:
        """Never NotSent: that nobody could be asked says nothing about the purchase."""
        answer = await self._call("/api/outer-order", {"outer_order_id": reference})
        match answer:
            case HttpAnswer():
                return Answer(mapping.at_look_up(answer, reference), answer.body, answer.status)
            case NotSent(reason=reason):
                return Answer(Unknown(f"look-up not sent: {reason}"))
            case Unknown():
                return Answer(answer)

    async def balance(self) -> Wallet:
        """Raises AnswerUnusable."""
        found = await self._data("/api/customer", {})
        try:
            return Wallet(wire.amount(found.get("balance")), _CURRENCY)
        except wire.Unreadable as error:
            raise AnswerUnusable("balance: unreadable") from error

    async def product(self, code: str) -> SupplierProduct | None:
        """One line, and for a top-up what it must be told. There is no documented list. Raises AnswerUnusable."""
        if not (code.isascii() and code.isdigit()):
            return None
        found = await self._data("/api/product", {"product_id": int(code)})
        try:
            fields: tuple[WantedField, ...] = ()
            if wire.whole(found.get("id")) != int(code):
                raise wire.Unreadable("another product")
            if wire.whole(found.get("type")) == 1:
                fields = _fields(await self._data("/api/product/recharge-params", {"product_id": int(code)}))
            return _line(found, fields)
        except (wire.Unreadable, KeyError, TypeError, AttributeError) as error:
            raise AnswerUnusable("product: unreadable") from error

    def read_callback(self, headers: Mapping[str, str], body: bytes, now: datetime) -> CallbackNews:
        return callback.read(self._key, body)

    async def _call(self, path: str, params: Mapping[str, wire.Value]) -> HttpAnswer | NotSent | Unknown:
        settings = self._settings
        now = int(time.time() * 1000) if settings.timestamp == "ms" else int(time.time())
        complete: dict[str, wire.Value] = {**params, "customer_id": self._customer_id, "timestamp": now}
        complete["sign"] = wire.sign(self._key, complete)
        content = wire.written(settings.body, complete)
        return await self._send("POST", settings.base_url + path, headers=self._headers, content=content, timeout_s=settings.timeout_s)

    async def _data(self, path: str, params: Mapping[str, wire.Value]) -> dict[str, Any]:
        answer = await self._call(path, params)
        if not isinstance(answer, HttpAnswer):
            raise AnswerUnusable(f"{path}: {answer.reason}")
        try:
            found = wire.read_object(answer.body)
        except wire.Unreadable as error:
            raise AnswerUnusable(f"{path}: HTTP {answer.status}, unreadable") from error
        data = found.get("data")
        if answer.status != 200 or found.get("code") != mapping.OK or not isinstance(data, dict):
            raise AnswerUnusable(f"{path}: HTTP {answer.status}, refused")
        return data


def _line(found: Mapping[str, Any], fields: tuple[WantedField, ...]) -> SupplierProduct:
    """`supply_state` 1 enough, 2 none; `stock_state` 1 on sale, 2 in maintenance, 3 off."""
    kind = mapping.TYPES.get(wire.whole(found.get("type")))
    supply, state = wire.whole(found.get("supply_state")), wire.whole(found.get("stock_state"))
    if kind is None or supply not in (1, 2):
        raise wire.Unreadable("type or supply_state")
    bounds = _RANGE.match(str(found.get("valid_purchasing_quantity") or ""))
    names = [str(found[name]) for name in ("product_name", "name") if found.get(name)]
    return SupplierProduct(
        product_code=str(wire.whole(found.get("id"))),
        name=" ".join(names),
        product_type=kind,
        cost=wire.amount(found.get("price")),
        currency=_CURRENCY,
        stock=0 if supply == 2 else None,
        available=state == 1 and supply == 1,
        fields=fields,
        min_units=max(int(bounds.group(1)), 1) if bounds else 1,
        max_units=int(bounds.group(2)) if bounds else None,
    )


def _fields(found: Mapping[str, Any]) -> tuple[WantedField, ...]:
    """What the order form asks beside the account; `options` are parted by commas."""
    told = []
    for field in found.get("recharge_params") or ():
        options = tuple(part for part in str(field.get("options") or "").split(",") if part)
        told.append(WantedField(str(field["name"]), str(field["name"]), kind="choice" if options else "text", options=options))
    return tuple(told)
