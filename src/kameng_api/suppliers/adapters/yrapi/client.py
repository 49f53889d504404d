"""大猿人 as a supplier: says our purchases in its protocol and its answers in our words."""

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from kameng_api.suppliers.adapters.yrapi import callback, mapping, wire
from kameng_api.suppliers.adapters.yrapi.settings import YrapiSettings
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
)

_HEADERS = {"content-type": "application/x-www-form-urlencoded", "accept": "application/json"}
_CURRENCY = "CNY"


def connect(settings: YrapiSettings, send: Send) -> Supplier:
    return YrapiSupplier(settings, send)


class YrapiSupplier(SupplierBase):
    """One merchant account on one site."""

    capabilities = Capabilities(query_by_reference=True, cancel=True, callback=True, price_version=True)

    def __init__(self, settings: YrapiSettings, send: Send) -> None:
        self._base_url = f"{settings.base_url}/yrapi.php/index"
        self._userid = settings.userid
        self._apikey = settings.apikey.get_secret_value()
        self._timeout_s = settings.timeout_s
        self._send = send

    async def place(self, purchase: Purchase) -> Answer:
        if purchase.currency != _CURRENCY:
            return Answer(NotSent("it sells in yuan only", Cause.UNSAYABLE))
        try:
            params = wire.order_params(purchase)
        except wire.Unreadable as error:
            return Answer(NotSent(f"cannot be said in this protocol: {error}", Cause.UNSAYABLE))
        answer = await self._call("recharge", params)
        if not isinstance(answer, HttpAnswer):
            return Answer(answer)
        return Answer(mapping.at_placing(answer, purchase.reference), answer.body, answer.status)

    async def look_up(self, reference: str, supplier_order_no: str | None = None) -> Answer:
        """Never NotSent: that nobody could be asked says nothing about the purchase."""
        answer = await self._call("check", {"out_trade_nums": reference})
        if not isinstance(answer, HttpAnswer):
            return Answer(Unknown(f"look-up not answered: {answer.reason}"))
        return Answer(mapping.at_look_up(answer, reference), answer.body, answer.status)

    async def cancel(self, reference: str, supplier_order_no: str | None = None) -> Answer:
        """申请撤单: asks for the order to be stopped; only a look-up tells whether it was."""
        answer = await self._call("remove", {"out_trade_nums": reference})
        if not isinstance(answer, HttpAnswer):
            return Answer(Unknown(f"cancel not answered: {answer.reason}"))
        return Answer(mapping.at_cancel(answer, reference), answer.body, answer.status)

    async def balance(self) -> Wallet:
        """Raises AnswerUnusable."""
        found = await self._data("user", {})
        try:
            return Wallet(wire.amount(found["balance"]), _CURRENCY)
        except (wire.Unreadable, KeyError, TypeError) as error:
            raise AnswerUnusable("user: unreadable") from error

    async def products(self) -> AsyncIterator[Sequence[SupplierProduct]]:
        """What is on sale, one page per category; a product that is off is not listed. Raises AnswerUnusable."""
        for kind in _list(await self._data("typecate", {}), "typecate"):
            for category in _list(kind.get("cate"), "typecate"):
                chosen = {"type": _id(kind), "cate_id": _id(category)}
                lines = _lines(await self._data("product", chosen))
                if lines:
                    yield lines

    async def product(self, product_code: str) -> SupplierProduct | None:
        """From the list of what is on sale: `index/price` knows products that are off as well and does not tell them apart."""
        return next((line for line in _lines(await self._data("product", {})) if line.product_code == product_code), None)

    def read_callback(self, headers: Mapping[str, str], body: bytes, now: datetime) -> CallbackNews:
        return callback.read(self._userid, self._apikey, body)

    async def _call(self, path: str, params: Mapping[str, str]) -> HttpAnswer | NotSent | Unknown:
        body = wire.signed_body(self._apikey, self._userid, params)
        return await self._send("POST", f"{self._base_url}/{path}", headers=_HEADERS, content=body, timeout_s=self._timeout_s)

    async def _data(self, path: str, params: Mapping[str, str]) -> Any:
        answer = await self._call(path, params)
        if not isinstance(answer, HttpAnswer):
            raise AnswerUnusable(f"{path}: {answer.reason}")
        try:
            found = wire.read_object(answer.body)
        except wire.Unreadable as error:
            raise AnswerUnusable(f"{path}: HTTP {answer.status}, unreadable") from error
        errno = found.get("errno")
        if answer.status != 200 or type(errno) is not int or errno != 0:
            raise AnswerUnusable(f"{path}: HTTP {answer.status}, refused")
        return found.get("data")


def _list(value: object, path: str) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise AnswerUnusable(f"{path}: unreadable")
    return value


def _id(line: Mapping[str, Any]) -> str:
    value = line.get("id")
    if isinstance(value, bool) or not isinstance(value, str | int) or not str(value):
        raise AnswerUnusable("a line without its number")
    return str(value)


def _lines(categories: object) -> tuple[SupplierProduct, ...]:
    """`[{id, cate, products: [{id, name, price, …}]}]` as lines. Raises AnswerUnusable."""
    return tuple(_product(line) for category in _list(categories, "product") for line in _list(category.get("products"), "product"))


def _product(line: Mapping[str, Any]) -> SupplierProduct:
    try:
        return SupplierProduct(
            product_code=_id(line),
            name=str(line["name"]),
            product_type="topup",
            cost=wire.amount(line["price"]),
            currency=_CURRENCY,
            stock=None,
            available=True,
            max_units=1,
        )
    except (wire.Unreadable, KeyError) as error:
        raise AnswerUnusable("product: unreadable") from error
