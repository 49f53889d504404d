"""Reloadly gift cards as a supplier: says our purchases in its protocol and its answers in our words."""

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final
from urllib.parse import urlencode

from kameng_api.suppliers.adapters.reloadly_gift import callback, catalogue, mapping, wire
from kameng_api.suppliers.adapters.reloadly_gift.settings import ReloadlyGiftSettings
from kameng_api.suppliers.adapters.reloadly_gift.token import Token
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

_ACCEPT: Final = "application/com.reloadly.giftcards-v1+json"
_ACCEPT_CARDS: Final = "application/com.reloadly.giftcards-v2+json"
_PRODUCTS_AT_ONCE: Final = 100  # the vendor allows 200; 100 of them stay below a megabyte
_ROWS_AT_ONCE: Final = 50
_MOST_PAGES: Final = 10_000


def connect(settings: ReloadlyGiftSettings, send: Send) -> Supplier:
    return ReloadlyGiftSupplier(settings, send)


class ReloadlyGiftSupplier(SupplierBase):
    """One account at Reloadly.

    Never two calls with one reference at once: the vendor's check of numbers lets parallel calls through. The house places a reference once.
    """

    capabilities = Capabilities(query_by_reference=True, callback=True, returns_cost=True)
    callback_reply = callback.REPLY
    statement_terms = StatementTerms(timezone="UTC", lag_s=3600, complete=False)

    def __init__(self, settings: ReloadlyGiftSettings, send: Send) -> None:
        self._base_url = settings.base_url
        self._currency = settings.currency
        self._sender_name = settings.sender_name
        self._webhook_secret = settings.webhook_secret.get_secret_value()
        self._timeout_s = settings.timeout_s
        self._send = send
        secret = settings.client_secret.get_secret_value()
        audience = settings.audience or settings.base_url
        self._token = Token(send, settings.auth_url, settings.client_id, secret, audience, min(settings.timeout_s, 15.0))

    async def place(self, purchase: Purchase) -> Answer:
        """A purchase is posted once, whatever becomes of its token. The cards of a successful order come with the look-up."""
        if purchase.currency != self._currency:
            return Answer(NotSent("our account there is in another currency", Cause.UNSAYABLE))
        try:
            body = wire.order_body(purchase, self._sender_name)
        except wire.Unreadable as error:
            return Answer(NotSent(f"cannot be said in this protocol: {error}", Cause.UNSAYABLE))
        token = await self._token.get()
        if isinstance(token, NotSent):
            return Answer(token)
        answer = await self._post("/orders", body, token)
        if not isinstance(answer, HttpAnswer):
            return Answer(answer)
        if answer.status == 401:
            self._token.forget(token)  # the next purchase asks for another
        return Answer(mapping.at_placing(answer, purchase.reference, self._currency), answer.body, answer.status)

    async def look_up(self, reference: str, supplier_order_no: str | None = None) -> Answer:
        """By their number where we know it, else by ours; then the cards. Never NotSent: that nobody could be asked says nothing."""
        by_number = supplier_order_no is not None and supplier_order_no.isascii() and supplier_order_no.isdigit()
        if by_number:
            answer = await self._get(f"/reports/transactions/{supplier_order_no}")
        else:
            now = datetime.now(UTC)
            ordered_at = wire.ordered_at(reference, now)  # the attempt came later, perhaps days later
            window = {} if ordered_at is None else wire.window(ordered_at, max(ordered_at, now))
            params = {"customIdentifier": reference, **window, "page": "1", "size": "50"}
            answer = await self._get(f"/reports/transactions?{urlencode(params)}")
        if not isinstance(answer, HttpAnswer):
            return Answer(Unknown(f"look-up: {answer.reason}"))
        read = mapping.at_transaction if by_number else mapping.at_report
        found = read(answer, reference, self._currency)
        if not isinstance(found, mapping.Sold):
            return Answer(found, answer.body, answer.status)
        cards = await self._get(f"/orders/transactions/{found.number}/cards", _ACCEPT_CARDS)
        if not isinstance(cards, HttpAnswer):
            return Answer(Unknown(f"its cards: {cards.reason}"))
        return Answer(mapping.at_cards(cards, found), cards.body, cards.status)

    async def balance(self) -> Wallet:
        """Raises AnswerUnusable."""
        found = await self._object("/accounts/balance")
        try:
            return Wallet(wire.holding(wire.decimal(found["balance"])), str(found["currencyCode"]))
        except (wire.Unreadable, KeyError) as error:
            raise AnswerUnusable("balance: unreadable") from error

    async def products(self) -> AsyncIterator[Sequence[SupplierProduct]]:
        """Raises AnswerUnusable."""
        async for page in self._pages("/products", {}, _PRODUCTS_AT_ONCE):
            try:
                yield tuple(line for product in page for line in catalogue.lines(product))
            except wire.Unreadable as error:
                raise AnswerUnusable("products: unreadable") from error

    async def product(self, code: str) -> SupplierProduct | None:
        """Raises AnswerUnusable."""
        try:
            asked = wire.read_code(code)
        except wire.Unreadable:
            return None
        answer = await self._get(f"/products/{asked.product_id}")
        if isinstance(answer, HttpAnswer) and answer.status == 404 and mapping.error_code(answer) == "INVALID_PRODUCT":
            return None
        found = _body(answer, "product")
        if found.get("productId") != asked.product_id:
            raise AnswerUnusable("product: another one")
        try:
            return next((line for line in catalogue.lines(found) if line.product_code == code), None)
        except wire.Unreadable as error:
            raise AnswerUnusable("product: unreadable") from error

    async def statement(self, day: date) -> AsyncIterator[Sequence[StatementLine]]:
        """What the orders of `day` (UTC) took from our balance, as their report of transactions says it. Raises AnswerUnusable."""
        start = datetime(day.year, day.month, day.day, tzinfo=UTC)
        end = start + timedelta(days=1)
        async for page in self._pages("/reports/transactions", wire.window(start, end), _ROWS_AT_ONCE):
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

    async def _get(self, path: str, accept: str = _ACCEPT) -> HttpAnswer | NotSent | Unknown:
        """A question; where its token is refused it is asked once more with a new one."""
        for last in (False, True):
            token = await self._token.get()
            if isinstance(token, NotSent):
                return token
            headers = {"authorization": f"Bearer {token}", "accept": accept}
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
    """The charge of a successful order; the others took nothing, or gave it back without saying when. Raises Unreadable."""
    if row["status"] != mapping.SUCCESSFUL:
        return None
    number, reference, (cost, currency) = mapping.number_of(row), row.get("customIdentifier"), mapping.charge_of(row)
    if not currency:
        raise wire.Unreadable("currencyCode")
    return StatementLine(
        line_id=number,
        reference=reference if isinstance(reference, str) and reference else None,
        supplier_order_no=number,
        kind=LineKind.CHARGE,
        amount=-cost,
        currency=currency,
        at=wire.moment(row["transactionCreatedTime"]),
        units=mapping.units_of(row),
    )
