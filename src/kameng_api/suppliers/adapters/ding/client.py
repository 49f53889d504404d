"""Ding Connect as a supplier: says our purchases in its protocol and its answers in our words."""

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final
from urllib.parse import quote

import orjson

from kameng_api.suppliers.adapters.ding import catalogue, mapping, wire
from kameng_api.suppliers.adapters.ding.settings import DingSettings
from kameng_api.suppliers.port import (
    Answer,
    AnswerUnusable,
    Capabilities,
    Cause,
    HttpAnswer,
    LineKind,
    NotSent,
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

_RECORDS_AT_ONCE: Final = 100
_RECORDS_OF_ONE: Final = 10
_MOST_PAGES: Final = 10_000


def connect(settings: DingSettings, send: Send) -> Supplier:
    return DingSupplier(settings, send)


class DingSupplier(SupplierBase):
    """One account at Ding; one transfer is one unit.

    A reference is sent once and never again: the vendor was seen to pay the same `DistributorRef` twice.
    """

    capabilities = Capabilities(query_by_reference=True)
    statement_terms = StatementTerms(timezone="UTC", lag_s=3600, complete=False)

    def __init__(self, settings: DingSettings, send: Send) -> None:
        self._base_url = f"{settings.base_url}/api/V1"
        self._headers = {"api_key": settings.api_key.get_secret_value(), "content-type": "application/json", "accept": "application/json"}
        self._placing = {**self._headers, "x-option": "DeferTransfer"} if settings.defer else self._headers
        self._currency = settings.currency
        self._countries = settings.countries
        self._country_code = settings.country_code
        self._timeout_s = settings.timeout_s
        self._send = send

    async def place(self, purchase: Purchase) -> Answer:
        """The vendor holds the connection for up to 90 s, unless the settings defer; longer than we wait, it is looked up."""
        if purchase.currency != self._currency:
            return Answer(NotSent("our account there is in another currency", Cause.UNSAYABLE))
        try:
            body = wire.order_body(purchase, self._country_code)
        except wire.Unreadable as error:
            return Answer(NotSent(f"cannot be said in this protocol: {error}", Cause.UNSAYABLE))
        answer = await self._send("POST", f"{self._base_url}/SendTransfer", headers=self._placing, content=body, timeout_s=self._timeout_s)
        if not isinstance(answer, HttpAnswer):
            return Answer(answer)
        outcome = mapping.at_placing(answer, purchase.reference, self._currency, cards=purchase.product_type != "topup")
        return Answer(outcome, answer.body, answer.status)

    async def look_up(self, reference: str, supplier_order_no: str | None = None) -> Answer:
        """By our reference, two months back. Never NotSent: that nobody could be asked says nothing about the purchase."""
        body = orjson.dumps({"DistributorRef": reference, "Skip": 0, "Take": _RECORDS_OF_ONE})
        answer = await self._call("POST", "ListTransferRecords", body)
        if not isinstance(answer, HttpAnswer):
            return Answer(Unknown(f"look-up: {answer.reason}"))
        return Answer(mapping.at_look_up(answer, reference, self._currency), answer.body, answer.status)

    async def balance(self) -> Wallet:
        """Raises AnswerUnusable."""
        found = await self._done("GET", "GetBalance")
        try:
            return Wallet(wire.holding(wire.decimal(found["Balance"])), str(found["CurrencyIso"]))
        except (wire.Unreadable, KeyError) as error:
            raise AnswerUnusable("balance: unreadable") from error

    async def products(self) -> AsyncIterator[Sequence[SupplierProduct]]:
        """A page is one country: the vendor has no pages. Raises AnswerUnusable."""
        for country in self._countries or await self._all_countries():
            yield await self._lines(f"GetProducts?countryIsos={country}")

    async def product(self, code: str) -> SupplierProduct | None:
        """Raises AnswerUnusable."""
        try:
            asked = wire.read_code(code)
        except wire.Unreadable:
            return None
        lines = await self._lines(f"GetProducts?skuCodes={quote(asked.sku, safe='')}")
        return next((line for line in lines if line.product_code == code), None)

    async def statement(self, day: date) -> AsyncIterator[Sequence[StatementLine]]:
        """What the transfers started on `day` (UTC) cost. All records of two months are read for it: they have no filter by time.

        Raises AnswerUnusable.
        """
        start = datetime(day.year, day.month, day.day, tzinfo=UTC)
        end = start + timedelta(days=1)
        for number in range(_MOST_PAGES):
            body = orjson.dumps({"Skip": number * _RECORDS_AT_ONCE, "Take": _RECORDS_AT_ONCE})
            found = await self._done("POST", "ListTransferRecords", body)
            items, more = found.get("Items"), found.get("ThereAreMoreItems")
            if not isinstance(items, list) or not isinstance(more, bool):
                raise AnswerUnusable("statement: no list")
            try:
                yield [line for item in items if (line := _line(item)) is not None and start <= line.at < end]
            except (wire.Unreadable, KeyError, TypeError) as error:
                raise AnswerUnusable("statement: unreadable") from error
            if not more:
                return
        raise AnswerUnusable("statement: no end")

    async def _all_countries(self) -> Sequence[str]:
        found = await self._done("GET", "GetCountries")
        try:
            return [quote(str(country["CountryIso"]), safe="") for country in found["Items"]]
        except (KeyError, TypeError) as error:
            raise AnswerUnusable("GetCountries: unreadable") from error

    async def _lines(self, path: str) -> Sequence[SupplierProduct]:
        found = await self._done("GET", path)
        try:
            return tuple(catalogue.line(product) for product in found["Items"])
        except (wire.Unreadable, KeyError, TypeError) as error:
            raise AnswerUnusable("GetProducts: unreadable") from error

    async def _call(self, method: str, path: str, content: bytes = b"") -> HttpAnswer | NotSent | Unknown:
        return await self._send(method, f"{self._base_url}/{path}", headers=self._headers, content=content, timeout_s=self._timeout_s)

    async def _done(self, method: str, path: str, content: bytes = b"") -> dict[str, Any]:
        """The body of a question that was answered exactly. Raises AnswerUnusable."""
        answer, name = await self._call(method, path, content), path.partition("?")[0]
        if not isinstance(answer, HttpAnswer):
            raise AnswerUnusable(f"{name}: {answer.reason}")
        try:
            found = wire.read(answer.body)
        except wire.Unreadable as error:
            raise AnswerUnusable(f"{name}: HTTP {answer.status}, unreadable") from error
        if answer.status != 200 or found.get("ResultCode") != 1:
            raise AnswerUnusable(f"{name}: HTTP {answer.status}, refused")
        return found


def _line(item: Mapping[str, Any]) -> StatementLine | None:
    """The charge of a completed transfer; what failed was not charged. Raises Unreadable."""
    record = item["TransferRecord"]
    if record["ProcessingState"] not in mapping.COMPLETE:
        return None
    number, reference, (cost, currency) = mapping.number_of(record), record["TransferId"].get("DistributorRef"), mapping.charge_of(record)
    if not currency:
        raise wire.Unreadable("Price")
    return StatementLine(
        line_id=number,
        reference=reference if isinstance(reference, str) and reference else None,
        supplier_order_no=number,
        kind=LineKind.CHARGE,
        amount=-cost,
        currency=currency,
        at=wire.moment(record["StartedUtc"]),
    )
