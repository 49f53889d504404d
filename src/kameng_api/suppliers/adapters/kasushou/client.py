"""卡速售 as a supplier: says our purchases in its protocol and its answers in our words."""

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

from kameng_api.suppliers.adapters.kasushou import callback, lines, mapping, wire
from kameng_api.suppliers.adapters.kasushou.settings import KasushouSettings
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

_PAGE: Final = 100
_MOST_PAGES: Final = 10_000
_LOG_REACHES: Final = timedelta(days=3)
_CHINA: Final = ZoneInfo("Asia/Shanghai")


def connect(settings: KasushouSettings, send: Send) -> Supplier:
    return KasushouSupplier(settings, send)


class KasushouSupplier(SupplierBase):
    """One user account on one site."""

    capabilities = Capabilities(query_by_reference=True, cancel=True, callback=True, returns_cost=True, price_version=True)
    callback_reply = callback.REPLY

    def __init__(self, settings: KasushouSettings, send: Send) -> None:
        self._base_url = f"{settings.base_url}/api/v1"
        self._user_id = settings.user_id
        self._apikey = settings.apikey.get_secret_value()
        self._timeout_s = settings.timeout_s
        self._send = send

    async def place(self, purchase: Purchase) -> Answer:
        if purchase.currency != lines.CURRENCY:
            return Answer(NotSent("it sells in yuan only", Cause.UNSAYABLE))
        try:
            params = wire.order_params(purchase)
        except wire.Unreadable as error:
            return Answer(NotSent(f"cannot be said in this protocol: {error}", Cause.UNSAYABLE))
        answer = await self._call("order/buy", params)
        if not isinstance(answer, HttpAnswer):
            return Answer(answer)
        return Answer(mapping.at_placing(answer, purchase.reference), answer.body, answer.status)

    async def look_up(self, reference: str, supplier_order_no: str | None = None) -> Answer:
        """Never NotSent: that nobody could be asked says nothing about the purchase."""
        answer = await self._ask(reference)
        if not isinstance(answer, HttpAnswer):
            return Answer(Unknown(f"look-up not answered: {answer.reason}"))
        return Answer(mapping.at_look_up(answer, reference), answer.body, answer.status)

    async def cancel(self, reference: str, supplier_order_no: str | None = None) -> Answer:
        """撤单, by their number, which is looked up where it is not known; only a later look-up tells whether the money came back."""
        number = supplier_order_no
        if not number:
            asked = await self._ask(reference)
            if not isinstance(asked, HttpAnswer):
                return Answer(Unknown(f"look-up not answered: {asked.reason}"))
            try:
                number = mapping.number_in(asked, reference)
            except wire.Unreadable as error:
                return Answer(Unknown(f"unreadable answer: {error}"), asked.body, asked.status)
            if not number:
                return Answer(Unknown("it does not say which order it is"), asked.body, asked.status)
        answer = await self._call("order/close", {"ordersn": number})
        if not isinstance(answer, HttpAnswer):
            return Answer(Unknown(f"cancel not answered: {answer.reason}"))
        return Answer(mapping.at_cancel(answer), answer.body, answer.status)

    async def balance(self) -> Wallet:
        """Raises AnswerUnusable."""
        found = await self._data("user/info", {})
        try:
            return Wallet(wire.amount(found["balance"]), lines.CURRENCY)
        except (wire.Unreadable, KeyError, TypeError) as error:
            raise AnswerUnusable("user/info: unreadable") from error

    async def products(self) -> AsyncIterator[Sequence[SupplierProduct]]:
        """Raises AnswerUnusable. What an order must say beside the target is told by `product` alone."""
        async for rows in self._pages("goods/list", {"cate_id": 0, "keyword": ""}):
            yield [line for row in rows if (line := lines.product(row)) is not None]

    async def product(self, product_code: str) -> SupplierProduct | None:
        """Raises AnswerUnusable."""
        if not (product_code.isascii() and product_code.isdigit()):
            return None
        found = await self._data("goods/info", {"id": int(product_code)}, absent=mapping.NO_SUCH_PRODUCT)
        if found is None:
            return None
        if not isinstance(found, dict) or wire.text(found, "id") != product_code:
            raise AnswerUnusable("goods/info: unreadable")
        return lines.product(found)

    async def changed_since(self, at: datetime) -> AsyncIterator[Sequence[str]]:
        """Products whose price changed since, from their log of three days; it knows nothing of stock and status. Raises AnswerUnusable."""
        now = datetime.now(UTC)
        if now - at > _LOG_REACHES:
            raise AnswerUnusable("goods/pricelog: reaches back three days only")
        days = min(3, (now - at) // timedelta(days=1) + 1)
        since = at.astimezone(_CHINA).strftime("%Y-%m-%d %H:%M:%S")
        async for rows in self._pages("goods/pricelog", {"keyword": "", "day": days}):
            found = [wire.text(row, "goods_id") for row in rows if wire.text(row, "create_time") >= since]
            if found:
                yield found

    def read_callback(self, headers: Mapping[str, str], body: bytes, now: datetime) -> CallbackNews | CatalogHint:
        return callback.read(self._apikey, body)

    async def _ask(self, reference: str) -> HttpAnswer | NotSent | Unknown:
        """order/info over all their days, not the last thirty."""
        return await self._call("order/info", {"external_orderno": reference, "ordersn": "", "day": 0})

    async def _call(self, path: str, params: Mapping[str, Any]) -> HttpAnswer | NotSent | Unknown:
        body, now_ms = wire.request_body(params), str(time.time_ns() // 1_000_000)
        headers = {
            "content-type": "application/json; charset=utf-8",
            "sign": wire.sign(self._apikey, now_ms, body),
            "timestamp": now_ms,
            "userid": self._user_id,
        }
        return await self._send("POST", f"{self._base_url}/{path}", headers=headers, content=body, timeout_s=self._timeout_s)

    async def _data(self, path: str, params: Mapping[str, Any], *, absent: str | None = None) -> Any:
        """`data` of an answer; None where it fails with a text that says `absent`. Raises AnswerUnusable."""
        answer = await self._call(path, params)
        if not isinstance(answer, HttpAnswer):
            raise AnswerUnusable(f"{path}: {answer.reason}")
        try:
            found = wire.read_object(answer.body)
        except wire.Unreadable as error:
            raise AnswerUnusable(f"{path}: HTTP {answer.status}, unreadable") from error
        code = found.get("code")
        if absent is not None and answer.status == 200 and type(code) is int and code == mapping.FAILED and absent in wire.text(found, "msg"):
            return None
        if answer.status != 200 or type(code) is not int or code != mapping.OK:
            raise AnswerUnusable(f"{path}: HTTP {answer.status}, refused")
        return found.get("data")

    async def _pages(self, path: str, params: Mapping[str, Any]) -> AsyncIterator[list[dict[str, Any]]]:
        seen = 0
        for page in range(1, _MOST_PAGES + 1):
            found = await self._data(path, {**params, "limit": _PAGE, "page": page})
            rows, total = (found.get("list"), found.get("total")) if isinstance(found, dict) else (None, None)
            if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows) or type(total) is not int:
                raise AnswerUnusable(f"{path}: unreadable")
            yield rows
            seen += len(rows)
            if seen >= total:
                return
            if not rows:
                raise AnswerUnusable(f"{path}: ended before its end")
        raise AnswerUnusable(f"{path}: no end")
