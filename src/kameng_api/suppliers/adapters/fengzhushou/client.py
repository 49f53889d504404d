"""蜂助手 as a supplier: says our purchases in its protocol and its answers in our words."""

import time
from collections.abc import Mapping
from datetime import datetime
from typing import Final

import orjson

from kameng_api.suppliers.adapters.fengzhushou import callback, mapping, wire
from kameng_api.suppliers.adapters.fengzhushou.settings import FengzhushouSettings
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
    Unknown,
    Wallet,
)

_CURRENCY: Final = "CNY"
_HEADERS: Final = {"content-type": "application/json", "accept": "application/json"}
_ROOT: Final = "/fzs-stdopen-api/api/v1/"


def connect(settings: FengzhushouSettings, send: Send) -> Supplier:
    return FengzhushouSupplier(settings, send)


class FengzhushouSupplier(SupplierBase):
    """One project. What a repeated number does is not public, so nothing is promised about it."""

    capabilities = Capabilities(query_by_reference=True, callback=True)
    callback_reply = callback.REPLY

    def __init__(self, settings: FengzhushouSettings, send: Send) -> None:
        self._url = settings.base_url + _ROOT
        self._project_code = settings.project_code
        self._key = settings.sign_key.get_secret_value()
        self._sku_price = settings.sku_price
        self._timeout_s = settings.timeout_s
        self._send = send

    async def place(self, purchase: Purchase) -> Answer:
        if purchase.currency != _CURRENCY:
            return Answer(NotSent("it sells in yuan only", Cause.UNSAYABLE))
        try:
            params = wire.order_params(purchase, self._sku_price)
        except wire.Unreadable as error:
            return Answer(NotSent(f"cannot be said in this protocol: {error}", Cause.UNSAYABLE))
        answer = await self._call("sendgoods", params)
        if not isinstance(answer, HttpAnswer):
            return Answer(answer)
        return Answer(mapping.at_placing(answer, purchase.reference), answer.body, answer.status)

    async def look_up(self, reference: str, supplier_order_no: str | None = None) -> Answer:
        """Never NotSent: that nobody could be asked says nothing about the purchase."""
        answer = await self._call("queryorder", {"channelOrderNo": reference})
        match answer:
            case HttpAnswer():
                return Answer(mapping.at_look_up(answer, reference), answer.body, answer.status)
            case NotSent(reason=reason):
                return Answer(Unknown(f"look-up not sent: {reason}"))
            case Unknown():
                return Answer(answer)

    async def balance(self) -> Wallet:
        """Raises AnswerUnusable."""
        answer = await self._call("balance", {})
        if not isinstance(answer, HttpAnswer):
            raise AnswerUnusable(f"balance: {answer.reason}")
        try:
            found = wire.read_object(answer.body)
            if answer.status != 200 or wire.whole(found.get("retcode")) != 0:
                raise AnswerUnusable(f"balance: HTTP {answer.status}, refused")
            data = found.get("data")
            return Wallet(wire.amount((data if isinstance(data, dict) else found).get("balance")), _CURRENCY)
        except wire.Unreadable as error:
            raise AnswerUnusable(f"balance: HTTP {answer.status}, unreadable") from error

    def read_callback(self, headers: Mapping[str, str], body: bytes, now: datetime) -> CallbackNews:
        return callback.read(self._key, body)

    async def _call(self, path: str, params: Mapping[str, wire.Value]) -> HttpAnswer | NotSent | Unknown:
        complete: dict[str, wire.Value] = {**params, "projectCode": self._project_code, "timestamp": str(time.time_ns() // 1_000_000)}
        complete["sign"] = wire.sign(self._key, complete)
        return await self._send("POST", self._url + path, headers=_HEADERS, content=orjson.dumps(complete), timeout_s=self._timeout_s)
