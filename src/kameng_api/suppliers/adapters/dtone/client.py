"""DT One as a supplier: says our purchases in its protocol and its answers in our words."""

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import date, datetime
from typing import Any, Final
from urllib.parse import quote, urlencode

from kameng_api.suppliers.adapters.dtone import callback, catalogue, mapping, statement, wire
from kameng_api.suppliers.adapters.dtone.settings import DtoneSettings
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
    StatementLine,
    StatementTerms,
    Supplier,
    SupplierBase,
    SupplierProduct,
    Unknown,
    Wallet,
)

_PER_PAGE: Final = 100
_MOST_PAGES: Final = 10_000


def connect(settings: DtoneSettings, send: Send) -> Supplier:
    return DtoneSupplier(settings, send)


class DtoneSupplier(SupplierBase):
    """One account at DT One; one transaction is one unit."""

    capabilities = Capabilities(query_by_reference=True, callback=True, returns_cost=True)
    callback_reply = callback.REPLY
    statement_terms = StatementTerms(timezone="UTC", lag_s=3600, complete=False)

    def __init__(self, settings: DtoneSettings, send: Send) -> None:
        self._base_url = f"{settings.base_url}/v1"
        self._headers = {
            "authorization": wire.basic(settings.api_key, settings.api_secret.get_secret_value()),
            "content-type": "application/json",
            "accept": "application/json",
        }
        self._callback_authorization = wire.basic(settings.callback_user, settings.callback_password.get_secret_value())
        self._currency = settings.currency
        self._country_code = settings.country_code
        self._timeout_s = settings.timeout_s
        self._send = send

    async def place(self, purchase: Purchase) -> Answer:
        """Asynchronous mode, which the vendor recommends: the outcome comes by callback or look-up."""
        if purchase.currency != self._currency:
            return Answer(NotSent("our account there is in another currency", Cause.UNSAYABLE))
        try:
            body = wire.order_body(purchase, self._country_code)
        except wire.Unreadable as error:
            return Answer(NotSent(f"cannot be said in this protocol: {error}", Cause.UNSAYABLE))
        answer = await self._call("POST", "/async/transactions", body)
        if not isinstance(answer, HttpAnswer):
            return Answer(answer)
        cards = purchase.product_type != "topup"
        return Answer(mapping.at_placing(answer, purchase.reference, self._currency, cards=cards), answer.body, answer.status)

    async def look_up(self, reference: str, supplier_order_no: str | None = None) -> Answer:
        """By their number where we know it, else by ours. Never NotSent: that nobody could be asked says nothing about the purchase."""
        by_number = supplier_order_no is not None and supplier_order_no.isascii() and supplier_order_no.isdigit()
        path = f"/transactions/{supplier_order_no}" if by_number else f"/transactions?external_id={quote(reference, safe='')}"
        answer = await self._call("GET", path)
        match answer:
            case HttpAnswer():
                read = mapping.at_look_up_by_number if by_number else mapping.at_look_up
                return Answer(read(answer, reference, self._currency), answer.body, answer.status)
            case NotSent(reason=reason):
                return Answer(Unknown(f"look-up not sent: {reason}"))
            case Unknown():
                return Answer(answer)

    async def balance(self) -> Wallet:
        """What is available in our currency; what is held for open orders is not. Raises AnswerUnusable."""
        found, _ = await self._page(f"/balances?per_page={_PER_PAGE}")
        try:
            [ours] = [line for line in found if line["unit"] == self._currency]
            return Wallet(wire.holding(wire.decimal(ours["available"])), self._currency)
        except (wire.Unreadable, KeyError, TypeError, ValueError) as error:
            raise AnswerUnusable("balances: unreadable") from error

    async def products(self) -> AsyncIterator[Sequence[SupplierProduct]]:
        """Raises AnswerUnusable."""
        async for page in self._pages("/products", {}):
            try:
                yield tuple(line for product in page if (line := catalogue.line(product)) is not None)
            except wire.Unreadable as error:
                raise AnswerUnusable("products: unreadable") from error

    async def product(self, code: str) -> SupplierProduct | None:
        """Raises AnswerUnusable."""
        try:
            asked = wire.read_code(code)
        except wire.Unreadable:
            return None
        answer = await self._call("GET", f"/products/{asked.product_id}")
        found = _body(answer, "product", also=404)
        try:
            if isinstance(answer, HttpAnswer) and answer.status == 404:
                if mapping.error_code(found) in (mapping.NO_PRODUCT, mapping.NO_RESOURCE):
                    return None
                raise AnswerUnusable("product: HTTP 404")
            line = catalogue.line(found)
        except wire.Unreadable as error:
            raise AnswerUnusable("product: unreadable") from error
        if line is not None and wire.read_code(line.product_code).product_id != asked.product_id:
            raise AnswerUnusable("product: another one")
        return line if line is not None and line.product_code == code else None

    async def statement(self, day: date) -> AsyncIterator[Sequence[StatementLine]]:
        """What the transactions created on `day` (UTC) did to our balance, as far as it is known now. Raises AnswerUnusable."""
        window = {"from_date": f"{day.isoformat()}T00:00:00.000000Z", "to_date": f"{day.isoformat()}T23:59:59.999999Z"}
        async for page in self._pages("/transactions", window, none_at_all=mapping.NOT_FOUND):
            try:
                yield [line for transaction in page for line in statement.lines(transaction, self._currency)]
            except wire.Unreadable as error:
                raise AnswerUnusable("statement: unreadable") from error

    def read_callback(self, headers: Mapping[str, str], body: bytes, now: datetime) -> CallbackNews:
        return callback.read(self._callback_authorization, self._currency, headers, body)

    async def _call(self, method: str, path: str, content: bytes = b"") -> HttpAnswer | NotSent | Unknown:
        return await self._send(method, f"{self._base_url}{path}", headers=self._headers, content=content, timeout_s=self._timeout_s)

    async def _pages(self, path: str, params: Mapping[str, str], none_at_all: int | None = None) -> AsyncIterator[Sequence[Any]]:
        for number in range(1, _MOST_PAGES):
            query = urlencode({**params, "page": number, "per_page": _PER_PAGE})
            found, last = await self._page(f"{path}?{query}", number, none_at_all)
            yield found
            if last:
                return
        raise AnswerUnusable(f"{path}: no end")

    async def _page(self, path: str, number: int = 1, none_at_all: int | None = None) -> tuple[list[Any], bool]:
        """(the lines, whether there are no more). `none_at_all`: the code with which HTTP 404 says so."""
        name = path.partition("?")[0]
        answer = await self._call("GET", path)
        found = _body(answer, name, also=200 if none_at_all is None else 404)
        assert isinstance(answer, HttpAnswer)
        if answer.status == 404:
            try:
                if mapping.error_code(found) == none_at_all:
                    return [], True
            except wire.Unreadable:
                pass
            raise AnswerUnusable(f"{name}: HTTP 404")
        if not isinstance(found, list):
            raise AnswerUnusable(f"{name}: not a list")
        total = answer.headers.get("x-total-pages", "")
        last = number >= int(total) if total.isascii() and total.isdigit() else len(found) < _PER_PAGE
        return found, last


def _body(answer: HttpAnswer | NotSent | Unknown, name: str, *, also: int = 200) -> Any:
    """Raises AnswerUnusable."""
    if not isinstance(answer, HttpAnswer):
        raise AnswerUnusable(f"{name}: {answer.reason}")
    if answer.status not in (200, also):
        raise AnswerUnusable(f"{name}: HTTP {answer.status}")
    try:
        return wire.read(answer.body)
    except wire.Unreadable as error:
        raise AnswerUnusable(f"{name}: HTTP {answer.status}, unreadable") from error
