"""卡易信 as a supplier: says our purchases in its protocol and its answers in our words."""

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import orjson

from kameng_api.suppliers.adapters.kayixin import callback, lines, mapping, wire
from kameng_api.suppliers.adapters.kayixin.settings import KayixinSettings
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
)

_MOST_PAGES: Final = 20_000


def connect(settings: KayixinSettings, send: Send) -> Supplier:
    return KayixinSupplier(settings, send)


class KayixinSupplier(SupplierBase):
    """One customer account on one site."""

    capabilities = Capabilities(query_by_reference=True, cancel=True, callback=True, price_version=True)
    callback_reply = callback.REPLY

    def __init__(self, settings: KayixinSettings, send: Send) -> None:
        self._base_url = f"{settings.base_url}/api/v3"
        self._app_id = settings.app_id
        self._secret = settings.app_secret.get_secret_value()
        self._target_field = settings.target_field
        self._timeout_s = settings.timeout_s
        self._send = send

    async def place(self, purchase: Purchase) -> Answer:
        if purchase.currency != lines.CURRENCY:
            return Answer(NotSent("it sells in yuan only", Cause.UNSAYABLE))
        try:
            body = wire.order_body(purchase, self._target_field)
        except wire.Unreadable as error:
            return Answer(NotSent(f"cannot be said in this protocol: {error}", Cause.UNSAYABLE))
        answer = await self._call("order/create", body)
        if not isinstance(answer, HttpAnswer):
            return Answer(answer)
        return Answer(mapping.at_placing(answer, purchase.units), answer.body, answer.status)

    async def look_up(self, reference: str, supplier_order_no: str | None = None) -> Answer:
        """Never NotSent: that nobody could be asked says nothing about the purchase."""
        answer = await self._call("order/getDetail", orjson.dumps({"orderNumber": "", "outerNumber": reference}))
        if not isinstance(answer, HttpAnswer):
            return Answer(Unknown(f"look-up not answered: {answer.reason}"))
        return Answer(mapping.at_look_up(answer, reference), answer.body, answer.status)

    async def cancel(self, reference: str, supplier_order_no: str | None = None) -> Answer:
        """申请退款: some are decided by their staff; only withdrawn at once is final."""
        answer = await self._call("order/refunds", orjson.dumps({"orderNumber": "", "outerNumber": reference}))
        if not isinstance(answer, HttpAnswer):
            return Answer(Unknown(f"cancel not answered: {answer.reason}"))
        return Answer(mapping.at_cancel(answer), answer.body, answer.status)

    async def balance(self) -> Wallet:
        """Raises AnswerUnusable."""
        found = await self._data("user/getAccount", {})
        try:
            return Wallet(wire.amount(found["balance"]), lines.CURRENCY)
        except (wire.Unreadable, KeyError, TypeError) as error:
            raise AnswerUnusable("user/getAccount: unreadable") from error

    async def products(self) -> AsyncIterator[Sequence[SupplierProduct]]:
        """Raises AnswerUnusable. Stock, skus and what an order must say are told by `product` alone."""
        for page in range(1, _MOST_PAGES + 1):
            found = await self._data("goods/getList", {"page": page})
            rows = found.get("items") if isinstance(found, dict) else None
            if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
                raise AnswerUnusable("goods/getList: unreadable")
            try:
                # the document calls allCount pages and allPage lines; its names say the contrary: there are never fewer lines than pages
                pages = min(wire.number(found, "allCount"), wire.number(found, "allPage"))
            except wire.Unreadable as error:
                raise AnswerUnusable("goods/getList: unreadable") from error
            yield [line for row in rows if (line := lines.product(row, self._target_field)) is not None]
            if page >= pages:
                return
        raise AnswerUnusable("goods/getList: no end")

    async def product(self, product_code: str) -> SupplierProduct | None:
        """`goodsId` or `goodsId:sku`. Raises AnswerUnusable."""
        goods_id, _, sku = product_code.partition(":")
        if not (goods_id.isascii() and goods_id.isdigit()):
            return None
        found = await self._data("goods/getDetail", {"goodsId": int(goods_id)}, absent=mapping.NO_SUCH_PRODUCT)
        if found is None:
            return None
        if not isinstance(found, dict) or wire.text(found, "goodsId") != goods_id:
            raise AnswerUnusable("goods/getDetail: unreadable")
        return lines.product(found, self._target_field, sku)

    def read_callback(self, headers: Mapping[str, str], body: bytes, now: datetime) -> CallbackNews | CatalogHint:
        return callback.read(self._app_id, self._secret, headers, body)

    async def _call(self, path: str, body: bytes) -> HttpAnswer | NotSent | Unknown:
        timestamp = str(int(time.time()))
        headers = {
            "content-type": "application/json",
            "accept": "application/json",
            "x-app-id": self._app_id,
            "x-version": wire.VERSION,
            "x-timestamp": timestamp,
            "x-signature": wire.sign(self._app_id, self._secret, timestamp, body),
        }
        return await self._send("POST", f"{self._base_url}/{path}", headers=headers, content=body, timeout_s=self._timeout_s)

    async def _data(self, path: str, params: Mapping[str, Any], *, absent: tuple[int, str] | None = None) -> Any:
        """`data` of an answer; None where it says `absent`. Raises AnswerUnusable."""
        answer = await self._call(path, orjson.dumps(params))
        if not isinstance(answer, HttpAnswer):
            raise AnswerUnusable(f"{path}: {answer.reason}")
        try:
            found = wire.read_object(answer.body)
        except wire.Unreadable as error:
            raise AnswerUnusable(f"{path}: HTTP {answer.status}, unreadable") from error
        if absent is not None and answer.status == 200 and mapping.says(found, absent):
            return None
        code, value = found.get("code"), found.get("data")
        if answer.status != 200 or type(code) is not int or code != mapping.OK or value is None:
            raise AnswerUnusable(f"{path}: HTTP {answer.status}, refused")
        return value
