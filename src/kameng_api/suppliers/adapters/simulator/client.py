"""The simulator as a supplier: says our purchases in its protocol and its answers in our words."""

import os
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any, Final

from kameng_api.suppliers.adapters.simulator import callback, mapping, wire
from kameng_api.suppliers.adapters.simulator.settings import SimulatorSettings
from kameng_api.suppliers.port import (
    Answer,
    AnswerUnusable,
    CallbackNews,
    Capabilities,
    CatalogHint,
    Cause,
    HttpAnswer,
    LineKind,
    NotSent,
    NumberFacts,
    Purchase,
    Send,
    StatementLine,
    StatementTerms,
    Supplier,
    SupplierBase,
    SupplierProduct,
    Unknown,
    Wallet,
)

_HEADERS = {"content-type": "application/json", "accept": "application/json"}
_MOST_PAGES = 10_000
_LINES_A_PAGE: Final = "500"


def connect(settings: SimulatorSettings, send: Send) -> Supplier:
    return SimulatorSupplier(settings, send)


class SimulatorSupplier(SupplierBase):
    """One account at the simulator."""

    capabilities = Capabilities(
        idempotent_submit=True,
        idempotent_resubmit=True,
        query_by_reference=True,
        not_found_is_final=True,
        not_found_grace_s=10,
        min_query_interval_s=0.1,
        callback=True,
        returns_cost=True,
        price_version=True,
        trusted_callback=True,
    )
    callback_reply = callback.REPLY
    statement_terms = StatementTerms(timezone="Asia/Shanghai", lag_s=600, complete=True)

    def __init__(self, settings: SimulatorSettings, send: Send) -> None:
        self._base_url = f"{settings.base_url}/open/v2"
        self._app_key = settings.app_key
        self._secret = settings.secret.get_secret_value()
        self._timeout_s = settings.timeout_s
        self._send = send

    async def place(self, purchase: Purchase) -> Answer:
        try:
            params = wire.order_params(purchase)
        except wire.Unreadable as error:
            return Answer(NotSent(f"cannot be said in this protocol: {error}", Cause.UNSAYABLE))
        answer = await self._call("order/place", params)
        if not isinstance(answer, HttpAnswer):
            return Answer(answer)
        outcome = mapping.at_placing(answer, purchase.reference, purchase.units)
        return Answer(outcome, answer.body, answer.status)

    async def look_up(self, reference: str, supplier_order_no: str | None = None) -> Answer:
        """Never NotSent: that nobody could be asked says nothing about the purchase."""
        answer = await self._call("order/query", {"out_order_no": reference})
        match answer:
            case HttpAnswer():
                return Answer(mapping.at_look_up(answer, reference), answer.body, answer.status)
            case NotSent(reason=reason):
                return Answer(Unknown(f"look-up not sent: {reason}"))
            case Unknown():
                return Answer(answer)

    async def hurry(self, reference: str) -> int:
        """See `port.Hurried`. An order that never reached the simulator waits for nothing."""
        answer = await self._call("order/hurry", {"out_order_no": reference})
        if not isinstance(answer, HttpAnswer):
            raise AnswerUnusable(f"hurry: {answer.reason}")
        try:
            found = wire.read_object(answer.body)
            return int(found["data"]["moved"]) if found.get("code") == "OK" else 0
        except (wire.Unreadable, KeyError, TypeError, ValueError) as error:
            raise AnswerUnusable(f"hurry: HTTP {answer.status}, unreadable") from error

    async def balance(self) -> Wallet:
        """Raises AnswerUnusable."""
        found = await self._data("balance", {})
        try:
            return Wallet(wire.amount(found["balance"]), str(found["currency"]))
        except (wire.Unreadable, KeyError, TypeError) as error:
            raise AnswerUnusable("balance: unreadable") from error

    async def products(self) -> AsyncIterator[Sequence[SupplierProduct]]:
        """Raises AnswerUnusable. A ranged product's `cost` is per 1.00 of face value."""
        async for lines in self._pages("products", {"limit": _LINES_A_PAGE}, "lines"):
            try:
                yield tuple(_product(line) for line in lines)
            except (wire.Unreadable, KeyError, TypeError, ValueError) as error:
                raise AnswerUnusable("products: unreadable") from error

    async def product(self, product_code: str) -> SupplierProduct | None:
        """Raises AnswerUnusable."""
        found = await self._data("product", {"product_code": product_code}, unless="PRODUCT_NOT_FOUND")
        try:
            return None if found is None else _product(found)
        except (wire.Unreadable, KeyError, TypeError, ValueError) as error:
            raise AnswerUnusable("product: unreadable") from error

    async def changed_since(self, at: datetime) -> AsyncIterator[Sequence[str]]:
        """Raises AnswerUnusable."""
        async for changes in self._pages("changes", {"since": str(int(at.timestamp()))}, "changes"):
            try:
                yield tuple(str(change["product_code"]) for change in changes)
            except (KeyError, TypeError) as error:
                raise AnswerUnusable("changes: unreadable") from error

    async def look_up_number(self, number: str) -> NumberFacts | None:
        """Raises AnswerUnusable."""
        found = await self._data("number", {"target": number})
        try:
            carrier = mapping.CARRIERS.get(str(found["carrier"]))
            flags = mapping.FLAGS[found["virtual"]], mapping.FLAGS[found["ported"]]
            return None if carrier is None else NumberFacts(carrier, *flags)
        except (KeyError, TypeError) as error:
            raise AnswerUnusable("number: unreadable") from error

    async def statement(self, day: date) -> AsyncIterator[Sequence[StatementLine]]:
        """Every movement of our wallet on `day` as China counts days, page by page. Raises AnswerUnusable."""
        async for lines in self._pages("statement", {"day": day.isoformat()}, "lines"):
            try:
                yield [_line(line) for line in lines]
            except (wire.Unreadable, KeyError, TypeError, ValueError) as error:
                raise AnswerUnusable("statement: unreadable") from error

    async def _pages(self, path: str, params: Mapping[str, str], name: str) -> AsyncIterator[Sequence[Any]]:
        """What stands under `name` of each page. Raises AnswerUnusable."""
        after = ""
        for _ in range(_MOST_PAGES):
            found = await self._data(path, {**params, "after": after})
            try:
                lines, before, after = found[name], after, str(found["next"])
            except (KeyError, TypeError) as error:
                raise AnswerUnusable(f"{path}: unreadable") from error
            if not isinstance(lines, list):
                raise AnswerUnusable(f"{path}: unreadable")
            yield lines
            if not after:
                return
            if after == before:
                break
        raise AnswerUnusable(f"{path}: no end")

    def read_callback(self, headers: Mapping[str, str], body: bytes, now: datetime) -> CallbackNews | CatalogHint:
        return callback.read(self._app_key, self._secret, body, now)

    async def _call(self, path: str, params: Mapping[str, str]) -> HttpAnswer | NotSent | Unknown:
        body = wire.signed_body(self._secret, self._app_key, int(time.time()), os.urandom(12).hex(), params)
        return await self._send(
            "POST", f"{self._base_url}/{path}", headers=_HEADERS, content=body, timeout_s=self._timeout_s
        )

    async def _data(self, path: str, params: Mapping[str, str], *, unless: str | None = None) -> Any:
        """What the answer holds; None when it says `unless`. Raises AnswerUnusable."""
        answer = await self._call(path, params)
        if not isinstance(answer, HttpAnswer):
            raise AnswerUnusable(f"{path}: {answer.reason}")
        try:
            found = wire.read_object(answer.body)
        except wire.Unreadable as error:
            raise AnswerUnusable(f"{path}: HTTP {answer.status}, unreadable") from error
        if answer.status == 200 and unless is not None and found.get("code") == unless:
            return None
        if answer.status != 200 or found.get("code") != "OK":
            raise AnswerUnusable(f"{path}: HTTP {answer.status}, refused")
        return found.get("data")


def _product(line: Mapping[str, Any]) -> SupplierProduct:
    return SupplierProduct(
        product_code=str(line["product_code"]),
        name=str(line["name"]),
        product_type=str(line["product_type"]),
        cost=wire.amount(line["cost"]),
        currency=str(line["currency"]),
        stock=int(line["stock"]) if line["stock"] else None,
        available=line["on_sale"] == "1",
        face_value=_amount(line, "face_value"),
        face_min=_amount(line, "face_min"),
        face_max=_amount(line, "face_max"),
    )


def _amount(line: Mapping[str, Any], name: str) -> int | None:
    return wire.amount(line[name]) if line.get(name) else None


_KINDS: Final[Mapping[str, LineKind]] = {
    "CHARGE": LineKind.CHARGE,
    "REFUND": LineKind.REFUND,
    "REVERSAL": LineKind.REVERSAL,
    "TOP_UP": LineKind.TOP_UP,
    "WITHDRAWAL": LineKind.WITHDRAWAL,
}


def _line(line: Mapping[str, Any]) -> StatementLine:
    return StatementLine(
        line_id=str(line["line_id"]),
        reference=str(line["out_order_no"]) or None,
        supplier_order_no=str(line["order_no"]) or None,
        kind=_KINDS.get(str(line["kind"]), LineKind.OTHER),
        amount=wire.amount(line["amount"]),
        currency=str(line["currency"]),
        at=datetime.fromisoformat(line["at"]).astimezone(UTC),
        external_id=str(line.get("reversal_no") or "") or None,
        balance_after=wire.amount(line["balance_after"]) if line.get("balance_after") else None,
    )
