"""A 卡卡云 site as a supplier: says our purchases in its protocol and its answers in our words."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import orjson

from kameng_api.suppliers.adapters.kakayun import callback, mapping, wire
from kameng_api.suppliers.adapters.kakayun.settings import KakayunSettings
from kameng_api.suppliers.port import (
    Answer,
    AnswerUnusable,
    CallbackNews,
    Capabilities,
    CatalogHint,
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
_HEADERS: Final = {"content-type": "application/json;charset=utf-8", "accept": "application/json"}
_PAGE: Final = 50
_MOST_PAGES: Final = 10_000
_TYPES: Final[Mapping[int, str]] = {0: "card", 1: "topup"}


def connect(settings: KakayunSettings, send: Send) -> Supplier:
    return KakayunSupplier(settings, send)


class KakayunSupplier(SupplierBase):
    """One account. A repeated number is answered with an error (1205), not with the first order."""

    capabilities = Capabilities(query_by_reference=True, cancel=True, callback=True, returns_cost=True, price_version=True)
    callback_reply = callback.REPLY

    def __init__(self, settings: KakayunSettings, send: Send) -> None:
        self._orders_url = f"{settings.base_url}/dockapiv3/"
        self._query_url = f"{settings.query_url}/dockapiv3/"
        self._userid = settings.userid
        self._key = settings.key.get_secret_value()
        self._list_interval_s = settings.list_interval_s
        self._timeout_s = settings.timeout_s
        self._send = send

    async def place(self, purchase: Purchase) -> Answer:
        if purchase.currency != _CURRENCY:
            return Answer(NotSent("the site sells in yuan only", Cause.UNSAYABLE))
        try:
            params = wire.order_params(purchase)
        except wire.Unreadable as error:
            return Answer(NotSent(f"cannot be said in this protocol: {error}", Cause.UNSAYABLE))
        answer = await self._call(self._orders_url + "order/create", params)
        if not isinstance(answer, HttpAnswer):
            return Answer(answer)
        return Answer(mapping.at_placing(answer, purchase.reference), answer.body, answer.status)

    async def look_up(self, reference: str, supplier_order_no: str | None = None) -> Answer:
        """Never NotSent: that nobody could be asked says nothing about the purchase."""
        answer = await self._call(self._query_url + "order/get", {"usorderno": reference})
        match answer:
            case HttpAnswer():
                return Answer(mapping.at_look_up(answer, reference), answer.body, answer.status)
            case NotSent(reason=reason):
                return Answer(Unknown(f"look-up not sent: {reason}"))
            case Unknown():
                return Answer(answer)

    async def cancel(self, reference: str, supplier_order_no: str | None = None) -> Answer:
        """Applies for a refund (申请退款), of orders of the last 30 days."""
        answer = await self._call(self._query_url + "order/cancelOrder", {"usorderno": reference})
        match answer:
            case HttpAnswer():
                return Answer(mapping.at_cancelling(answer), answer.body, answer.status)
            case NotSent(reason=reason):
                return Answer(Unknown(f"not cancelled, not sent: {reason}"))
            case Unknown():
                return Answer(answer)

    async def balance(self) -> Wallet:
        """The account's own money, which credit (授信额度) may let fall below zero. Raises AnswerUnusable."""
        _, found = await self._read("user/info", {})
        try:
            return Wallet(wire.amount(found["data"]["money"]), _CURRENCY)
        except (wire.Unreadable, KeyError, TypeError) as error:
            raise AnswerUnusable("balance: unreadable") from error

    async def products(self) -> AsyncIterator[Sequence[SupplierProduct]]:
        """Fifty lines a page, one page in `list_interval_s`. Raises AnswerUnusable."""
        for page in range(1, _MOST_PAGES + 1):
            _, found = await self._read("goods/all", {"limit": _PAGE, "page": page})
            try:
                lines = [_line(line, ()) for line in found["data"]]
                last = wire.whole(found["allpage"])
            except (wire.Unreadable, KeyError, TypeError, AttributeError) as error:
                raise AnswerUnusable("products: unreadable") from error
            yield lines
            if page >= last:
                return
            if not lines:
                break
            await asyncio.sleep(self._list_interval_s)
        raise AnswerUnusable("products: no end")

    async def product(self, code: str) -> SupplierProduct | None:
        """One line, and for a top-up what it must be told. Raises AnswerUnusable."""
        try:
            goods = {"goodsid": wire.goods_id(code)}
        except wire.Unreadable:
            return None
        told, found = await self._read("goods/details", goods, also=mapping.GONE)
        if told in mapping.GONE:
            return None
        try:
            line = found["data"]
            fields: tuple[WantedField, ...] = ()
            if wire.whole(line["goodsid"]) != int(code):
                raise wire.Unreadable("another product")
            if wire.whole(line["goodstype"]) == 1:
                _, template = await self._read("goods/tpl", goods)
                fields = _fields(template["data"])
            return _line(line, fields)
        except (wire.Unreadable, KeyError, TypeError, AttributeError) as error:
            raise AnswerUnusable("product: unreadable") from error

    def read_callback(self, headers: Mapping[str, str], body: bytes, now: datetime) -> CallbackNews | CatalogHint:
        return callback.read(self._key, body, now)

    async def _call(self, url: str, params: Mapping[str, Any]) -> HttpAnswer | NotSent | Unknown:
        complete = {**params, "userid": self._userid, "timestamp": int(time.time())}
        complete["sign"] = wire.sign(self._key, complete)
        return await self._send("POST", url, headers=_HEADERS, content=orjson.dumps(complete), timeout_s=self._timeout_s)

    async def _read(self, path: str, params: Mapping[str, Any], also: frozenset[int] = frozenset()) -> tuple[int, dict[str, Any]]:
        """`(code, answer)` of a question that was answered with 1, or with one of `also`."""
        answer = await self._call(self._query_url + path, params)
        if not isinstance(answer, HttpAnswer):
            raise AnswerUnusable(f"{path}: {answer.reason}")
        try:
            found = wire.read_object(answer.body)
            code = wire.whole(found.get("code"))
        except wire.Unreadable as error:
            raise AnswerUnusable(f"{path}: HTTP {answer.status}, unreadable") from error
        if answer.status != 200 or (code != mapping.OK and code not in also):
            raise AnswerUnusable(f"{path}: HTTP {answer.status}, code {code if abs(code) < 100_000 else 'odd'}")
        return code, found


def _line(line: Mapping[str, Any], fields: tuple[WantedField, ...]) -> SupplierProduct:
    kind = _TYPES.get(wire.whole(line["goodstype"]))
    if kind is None:
        raise wire.Unreadable("goodstype")
    stock = wire.whole(line["stock"])
    return SupplierProduct(
        product_code=str(wire.whole(line["goodsid"])),
        name=str(line["goodsname"]),
        product_type=kind,
        cost=wire.amount(line["goodsprice"]),
        currency=_CURRENCY,
        stock=stock,
        available=wire.whole(line["goodsstatus"]) == 1 and stock > 0,
        fields=fields,
        min_units=max(wire.whole(line.get("minbuy") or 1), 1),
        max_units=wire.whole(line["maxbuy"]) if line.get("maxbuy") else None,
    )


def _fields(template: Sequence[Mapping[str, Any]]) -> tuple[WantedField, ...]:
    """What is told beside the account; a field goes by its type number (充值字段类型)."""
    told = [(str(wire.whole(field["type"])), str(field.get("title") or "")) for field in template]
    return tuple(WantedField(name, title or name) for name, title in told if name != wire.ACCOUNT)
