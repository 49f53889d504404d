"""福禄 as a supplier: says our purchases in its protocol and its answers in our words."""

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from kameng_api.suppliers.adapters.fulu import callback, mapping, wire
from kameng_api.suppliers.adapters.fulu.settings import FuluSettings
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

_HEADERS: Final = {"content-type": "application/json; charset=utf-8", "accept": "application/json"}
_CURRENCY: Final = "CNY"
_TYPES: Final[Mapping[str, str]] = {"卡密": "card", "直充": "topup"}
_ON_SALE: Final = "上架"
_NONE_LEFT: Final = "断货"


def connect(settings: FuluSettings, send: Send) -> Supplier:
    return FuluSupplier(settings, send)


class FuluSupplier(SupplierBase):
    """One application on the open platform."""

    capabilities = Capabilities(query_by_reference=True, callback=True, returns_cost=True)

    def __init__(self, settings: FuluSettings, send: Send) -> None:
        self._url = f"{settings.base_url}/api/getway"
        self._app_key = settings.app_key
        self._secret = settings.app_secret.get_secret_value()
        self._confirmed = settings.refusal_codes
        self._timeout_s = settings.timeout_s
        self._send = send

    async def place(self, purchase: Purchase) -> Answer:
        if purchase.currency != _CURRENCY:
            return Answer(NotSent("it sells in yuan only", Cause.UNSAYABLE))
        try:
            method, business = wire.order(purchase)
        except wire.Unreadable as error:
            return Answer(NotSent(f"cannot be said in this protocol: {error}", Cause.UNSAYABLE))
        answer = await self._call(method, business)
        if not isinstance(answer, HttpAnswer):
            return Answer(answer)
        return Answer(mapping.at_placing(answer, purchase, self._secret, self._confirmed), answer.body, answer.status)

    async def look_up(self, reference: str, supplier_order_no: str | None = None) -> Answer:
        """Never NotSent: that nobody could be asked says nothing about the purchase."""
        answer = await self._call("fulu.order.info.get", orjson.dumps({"customer_order_no": reference}))
        if not isinstance(answer, HttpAnswer):
            return Answer(Unknown(f"look-up not answered: {answer.reason}"))
        return Answer(mapping.at_look_up(answer, reference, self._secret), answer.body, answer.status)

    async def balance(self) -> Wallet:
        """Raises AnswerUnusable."""
        found = await self._result("fulu.user.info.get", {})
        try:
            return Wallet(wire.amount(found["balance"]), _CURRENCY)
        except (wire.Unreadable, KeyError, TypeError) as error:
            raise AnswerUnusable("user.info: unreadable") from error

    async def products(self) -> AsyncIterator[Sequence[SupplierProduct]]:
        """Cards, then direct top-ups, each as one page: their list has none. Mobile top-ups have no line. Raises AnswerUnusable."""
        for kind in _TYPES:
            rows = await self._result("fulu.goods.list.get", {"product_type": kind})
            if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
                raise AnswerUnusable("goods.list: unreadable")
            yield [line for row in rows if (line := _line(row)) is not None]

    async def product(self, product_code: str) -> SupplierProduct | None:
        """Raises AnswerUnusable."""
        if not (product_code.isascii() and product_code.isdigit()):
            return None
        found = await self._result("fulu.goods.info.get", {"product_id": product_code}, may_be_absent=True)
        if found is None:
            return None
        if not isinstance(found, dict) or wire.text(found, "product_id") != product_code:
            raise AnswerUnusable("goods.info: unreadable")
        return _line(found)

    def read_callback(self, headers: Mapping[str, str], body: bytes, now: datetime) -> CallbackNews:
        return callback.read(self._secret, body)

    async def _call(self, method: str, business: bytes) -> HttpAnswer | NotSent | Unknown:
        body = wire.signed_body(self._app_key, self._secret, method, business, datetime.now(UTC))
        return await self._send("POST", self._url, headers=_HEADERS, content=body, timeout_s=self._timeout_s)

    async def _result(self, method: str, params: Mapping[str, Any], *, may_be_absent: bool = False) -> Any:
        """What an answer holds; None only where it says that there is no such product. Raises AnswerUnusable."""
        answer = await self._call(method, orjson.dumps(params))
        if not isinstance(answer, HttpAnswer):
            raise AnswerUnusable(f"{method}: {answer.reason}")
        try:
            if may_be_absent and mapping.says_absent(answer):
                return None
            found = mapping.result_of(answer, self._secret)
        except wire.Unreadable as error:
            raise AnswerUnusable(f"{method}: HTTP {answer.status}, unreadable") from error
        if found is None:
            raise AnswerUnusable(f"{method}: HTTP {answer.status}, refused")
        return found


def _line(row: Mapping[str, Any]) -> SupplierProduct | None:
    """A row of the list; None for what is neither a card nor a direct top-up. A state that is not told is no obstacle. Raises AnswerUnusable."""
    product_type = _TYPES.get(wire.text(row, "product_type"))
    if product_type is None:
        return None
    try:
        return SupplierProduct(
            product_code=str(wire.number(row, "product_id")),
            name=wire.text(row, "product_name"),
            product_type=product_type,
            cost=wire.amount(row.get("purchase_price")),
            currency=_CURRENCY,
            stock=None,
            available=row.get("sales_status", _ON_SALE) == _ON_SALE and row.get("stock_status") != _NONE_LEFT,
            face_value=wire.amount(row["face_value"]) or None if row.get("face_value") is not None else None,
        )
    except wire.Unreadable as error:
        raise AnswerUnusable("a line of the list is unreadable") from error
