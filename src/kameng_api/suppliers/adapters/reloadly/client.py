"""Reloadly airtime as a supplier: says our purchases in its protocol and its answers in our words."""

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final
from urllib.parse import urlencode

from kameng_api.suppliers.adapters.reloadly import callback, catalogue, mapping, wire
from kameng_api.suppliers.adapters.reloadly.settings import ReloadlySettings
from kameng_api.suppliers.adapters.reloadly.token import Token
from kameng_api.suppliers.port import (
    Answer,
    AnswerUnusable,
    CallbackNews,
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

_ACCEPT: Final = "application/com.reloadly.topups-v1+json"
_OPERATORS_AT_ONCE: Final = 100  # the vendor allows 1000; 100 of them stay below a megabyte
_ROWS_AT_ONCE: Final = 200
_MOST_PAGES: Final = 10_000


def connect(settings: ReloadlySettings, send: Send) -> Supplier:
    return ReloadlySupplier(settings, send)


class ReloadlySupplier(SupplierBase):
    """One account at Reloadly; one top-up is one unit.

    Never two calls with one reference at once: the vendor's check of numbers lets parallel calls through. The house places a reference once.
    """

    capabilities = Capabilities(query_by_reference=True, callback=True, returns_cost=True)
    callback_reply = callback.REPLY
    statement_terms = StatementTerms(timezone="UTC", lag_s=3600, complete=False)

    def __init__(self, settings: ReloadlySettings, send: Send) -> None:
        self._base_url = settings.base_url
        self._currency = settings.currency
        self._country_code = settings.country_code
        self._webhook_secret = settings.webhook_secret.get_secret_value()
        self._timeout_s = settings.timeout_s
        self._send = send
        secret = settings.client_secret.get_secret_value()
        audience = settings.audience or settings.base_url
        self._token = Token(send, settings.auth_url, settings.client_id, secret, audience, min(settings.timeout_s, 15.0))

    async def place(self, purchase: Purchase) -> Answer:
        """Asynchronous: the synchronous endpoint may hold the connection for a minute. A purchase is posted once, whatever becomes of its token."""
        if purchase.currency != self._currency:
            return Answer(NotSent("our account there is in another currency", Cause.UNSAYABLE))
        try:
            body = wire.order_body(purchase, self._country_code)
        except wire.Unreadable as error:
            return Answer(NotSent(f"cannot be said in this protocol: {error}", Cause.UNSAYABLE))
        token = await self._token.get()
        if isinstance(token, NotSent):
            return Answer(token)
        answer = await self._post("/topups-async", body, token)
        if not isinstance(answer, HttpAnswer):
            return Answer(answer)
        if answer.status == 401:
            self._token.forget(token)  # the next purchase asks for another
        return Answer(mapping.at_placing(answer), answer.body, answer.status)

    async def look_up(self, reference: str, supplier_order_no: str | None = None) -> Answer:
        """By their number where we know it, else by ours. Never NotSent: that nobody could be asked says nothing about the purchase."""
        if supplier_order_no is not None and supplier_order_no.isascii() and supplier_order_no.isdigit():
            answer = await self._get(f"/topups/{supplier_order_no}/status")
            if isinstance(answer, HttpAnswer):
                return Answer(mapping.at_status(answer, reference, supplier_order_no, self._currency), answer.body, answer.status)
        else:
            now = datetime.now(UTC)
            ordered_at = wire.ordered_at(reference, now)  # the attempt came later, perhaps days later
            window = {} if ordered_at is None else wire.window(ordered_at, max(ordered_at, now))
            params = {"customIdentifier": reference, **window, "page": "1", "size": "50"}
            answer = await self._get(f"/topups/reports/transactions?{urlencode(params)}")
            if isinstance(answer, HttpAnswer):
                return Answer(mapping.at_report(answer, reference, self._currency), answer.body, answer.status)
        return Answer(Unknown(f"look-up: {answer.reason}"))

    async def balance(self) -> Wallet:
        """Raises AnswerUnusable."""
        found = await self._object("/accounts/balance")
        try:
            return Wallet(wire.holding(wire.decimal(found["balance"])), str(found["currencyCode"]))
        except (wire.Unreadable, KeyError) as error:
            raise AnswerUnusable("balance: unreadable") from error

    async def products(self) -> AsyncIterator[Sequence[SupplierProduct]]:
        """Raises AnswerUnusable."""
        params = {"includeBundles": "true", "includeData": "true", "includePin": "true", "suggestedAmounts": "false"}
        async for page in self._pages("/operators", params, _OPERATORS_AT_ONCE):
            try:
                yield tuple(line for operator in page for line in catalogue.lines(operator))
            except wire.Unreadable as error:
                raise AnswerUnusable("operators: unreadable") from error

    async def product(self, code: str) -> SupplierProduct | None:
        """Raises AnswerUnusable."""
        try:
            asked = wire.read_code(code)
        except wire.Unreadable:
            return None
        answer = await self._get(f"/operators/{asked.operator_id}")
        if isinstance(answer, HttpAnswer) and answer.status == 404 and mapping.error_code(answer) == "OPERATOR_NOT_FOUND":
            return None
        found = _body(answer, "operator")
        if found.get("operatorId") != asked.operator_id:
            raise AnswerUnusable("operator: another one")
        try:
            return next((line for line in catalogue.lines(found) if line.product_code == code), None)
        except wire.Unreadable as error:
            raise AnswerUnusable("operator: unreadable") from error

    async def statement(self, day: date) -> AsyncIterator[Sequence[StatementLine]]:
        """What the top-ups of `day` (UTC) took from our balance, as their report of transactions says it. Raises AnswerUnusable."""
        start = datetime(day.year, day.month, day.day, tzinfo=UTC)
        end = start + timedelta(days=1)
        async for page in self._pages("/topups/reports/transactions", wire.window(start, end), _ROWS_AT_ONCE):
            try:
                yield [line for row in page if (line := _line(row)) is not None and start <= line.at < end]
            except (wire.Unreadable, KeyError, TypeError) as error:
                raise AnswerUnusable("statement: unreadable") from error

    def read_callback(self, headers: Mapping[str, str], body: bytes, now: datetime) -> CallbackNews:
        return callback.read(self._webhook_secret, self._currency, headers, body, now)

    # ---- requests

    async def _post(self, path: str, body: bytes, token: str) -> HttpAnswer | NotSent | Unknown:
        headers = {"authorization": f"Bearer {token}", "accept": _ACCEPT, "content-type": "application/json"}
        return await self._send("POST", f"{self._base_url}{path}", headers=headers, content=body, timeout_s=self._timeout_s)

    async def _get(self, path: str) -> HttpAnswer | NotSent | Unknown:
        """A question; where its token is refused it is asked once more with a new one."""
        for last in (False, True):
            token = await self._token.get()
            if isinstance(token, NotSent):
                return token
            headers = {"authorization": f"Bearer {token}", "accept": _ACCEPT}
            answer = await self._send("GET", f"{self._base_url}{path}", headers=headers, timeout_s=self._timeout_s)
            if last or not isinstance(answer, HttpAnswer) or answer.status != 401:
                return answer
            self._token.forget(token)
        raise AssertionError("unreachable")

    async def _object(self, path: str) -> dict[str, Any]:
        return _body(await self._get(path), path.partition("?")[0])

    async def _pages(self, path: str, params: Mapping[str, str], size: int) -> AsyncIterator[Sequence[Any]]:
        """Pages are counted from 1; a page says whether it is the last. Raises AnswerUnusable."""
        for number in range(1, _MOST_PAGES):
            found = await self._object(f"{path}?{urlencode({**params, 'page': number, 'size': size})}")
            rows, last = found.get("content"), found.get("last")
            if not isinstance(rows, list) or not isinstance(last, bool):
                raise AnswerUnusable(f"{path}: no page")
            yield rows
            if last:
                return
        raise AnswerUnusable(f"{path}: no end")


def _body(answer: HttpAnswer | NotSent | Unknown, name: str) -> dict[str, Any]:
    """Raises AnswerUnusable."""
    if not isinstance(answer, HttpAnswer):
        raise AnswerUnusable(f"{name}: {answer.reason}")
    if answer.status != 200:
        raise AnswerUnusable(f"{name}: HTTP {answer.status}")
    try:
        found = wire.read(answer.body)
    except wire.Unreadable as error:
        raise AnswerUnusable(f"{name}: unreadable") from error
    if not isinstance(found, dict):
        raise AnswerUnusable(f"{name}: not an object")
    return found


def _line(row: Mapping[str, Any]) -> StatementLine | None:
    """The charge of a successful top-up; the others took nothing, or gave it back without saying when. Raises Unreadable."""
    if row["status"] != mapping.SUCCESSFUL:
        return None
    number, reference, (cost, currency) = mapping.number_of(row), row.get("customIdentifier"), mapping.charge_of(row)
    if not currency:
        raise wire.Unreadable("balanceInfo")
    return StatementLine(
        line_id=number,
        reference=reference if isinstance(reference, str) and reference else None,
        supplier_order_no=number,
        kind=LineKind.CHARGE,
        amount=-cost,
        currency=currency,
        at=wire.moment(row["transactionDate"]),
    )
