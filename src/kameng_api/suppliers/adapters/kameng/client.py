"""Another house as a supplier: says our purchases in its merchant contract and its answers in our words."""

import os
import time
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any, Final
from urllib.parse import quote

from kameng_api.suppliers.adapters.kameng import callback, mapping, wire
from kameng_api.suppliers.adapters.kameng.settings import KamengSettings
from kameng_api.suppliers.port import (
    Accepted,
    Answer,
    AnswerUnusable,
    CallbackNews,
    Capabilities,
    CatalogHint,
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
    WantedField,
)

_PAGE: Final = 100
_MOST_PAGES: Final = 10_000
_MARKS_KEPT: Final = 16


def connect(settings: KamengSettings, send: Send) -> Supplier:
    return KamengSupplier(settings, send)


class KamengSupplier(SupplierBase):
    """One merchant key at one house."""

    capabilities = Capabilities(
        idempotent_submit=True,
        idempotent_resubmit=True,
        query_by_reference=True,
        cancel=True,
        callback=True,
        returns_cost=True,
        price_version=True,
        trusted_callback=True,
    )
    callback_reply = callback.REPLY
    statement_terms = StatementTerms(timezone="Asia/Shanghai", lag_s=3600)

    def __init__(self, settings: KamengSettings, send: Send) -> None:
        self._base_url = settings.base_url
        self._key_id = settings.key_id
        self._secret = None if settings.secret is None else settings.secret.get_secret_value()
        self._private_key = None if settings.private_key is None else settings.private_key.get_secret_value()
        self._delivery_key = settings.delivery_key.get_secret_value()
        self._webhook_secret = settings.webhook_secret.get_secret_value()
        self._currency = settings.currency
        self._timeout_s = settings.timeout_s
        self._send = send
        self._marks: deque[tuple[datetime, str]] = deque(maxlen=_MARKS_KEPT)
        """Places in their change feed, and the moment from which each goes on."""

    async def place(self, purchase: Purchase) -> Answer:
        if purchase.currency != self._currency:
            return Answer(NotSent("the other house sells in another currency", Cause.UNSAYABLE))
        try:
            body = wire.order_body(purchase)
        except wire.Unreadable as error:
            return Answer(NotSent(f"cannot be said in this contract: {error}", Cause.UNSAYABLE))
        answer = await self._call("POST", "/v1/orders", body)
        if not isinstance(answer, HttpAnswer):
            return Answer(answer)
        return Answer(mapping.at_placing(answer, purchase.reference), answer.body, answer.status)

    async def look_up(self, reference: str, supplier_order_no: str | None = None) -> Answer:
        """Never NotSent. Card codes are revealed with it, and each reveal is written down over there."""
        answer = await self._call("GET", f"/v1/orders/by-merchant-no/{wire.number(reference)}")
        if not isinstance(answer, HttpAnswer):
            return _unasked(answer)
        found = mapping.at_look_up(answer, reference)
        if not isinstance(found, mapping.CodesWanted):
            return Answer(found, answer.body, answer.status)
        revealed = await self._call("GET", f"/v1/orders/{found.order_id}/codes")
        if not isinstance(revealed, HttpAnswer):
            return _unasked(revealed)
        return Answer(mapping.with_codes(found, revealed, self._delivery_key), revealed.body, revealed.status)

    async def cancel(self, reference: str, supplier_order_no: str | None = None) -> Answer:
        """Only before dispatch. Without their number the order is looked up for it."""
        number = supplier_order_no
        if number is None:
            asked = await self._call("GET", f"/v1/orders/by-merchant-no/{wire.number(reference)}")
            if not isinstance(asked, HttpAnswer):
                return _unasked(asked)
            found = mapping.at_look_up(asked, reference)
            if not isinstance(found, Accepted) or found.supplier_order_no is None:
                return Answer(Unknown("not cancelled: it is not waiting"), asked.body, asked.status)
            number = found.supplier_order_no
        answer = await self._call("POST", f"/v1/orders/{wire.number(number)}/cancel")
        if not isinstance(answer, HttpAnswer):
            return _unasked(answer)
        return Answer(mapping.at_cancelling(answer, reference), answer.body, answer.status)

    async def balance(self) -> Wallet:
        """What is ours there, without credit. Raises AnswerUnusable."""
        found = await self._read("/v1/balance")
        try:
            return Wallet(wire.amount(found.get("available")), str(found["currency"]))
        except (wire.Unreadable, KeyError) as error:
            raise AnswerUnusable("balance: unreadable") from error

    async def products(self) -> AsyncIterator[Sequence[SupplierProduct]]:
        """A hundred lines a page. Raises AnswerUnusable."""
        cursor: str | None = ""
        for _ in range(_MOST_PAGES):
            found = await self._read(f"/v1/products?limit={_PAGE}" + (f"&cursor={quote(cursor, safe='')}" if cursor else ""))
            try:
                lines = [line for line in map(_line, found["items"]) if line is not None]
                before, cursor = cursor, found["next_cursor"]
            except (wire.Unreadable, KeyError, TypeError, AttributeError) as error:
                raise AnswerUnusable("products: unreadable") from error
            yield lines
            if cursor is None:
                return
            if cursor == before:
                break
        raise AnswerUnusable("products: no end")

    async def product(self, code: str) -> SupplierProduct | None:
        """Raises AnswerUnusable."""
        try:
            answer = await self._call("GET", f"/v1/products/{wire.sku(code)}")
        except wire.Unreadable:
            return None
        if isinstance(answer, HttpAnswer) and answer.status == 404 and _code_of(answer) == "not_found":
            return None
        try:
            line = _line(_object(answer, "product"))
        except (wire.Unreadable, KeyError, TypeError, AttributeError) as error:
            raise AnswerUnusable("product: unreadable") from error
        if line is not None and line.product_code != code:
            raise AnswerUnusable("product: another one")
        return line

    async def changed_since(self, at: datetime) -> AsyncIterator[Sequence[str]]:
        """Their feed goes on from places, not from moments: it is read from the newest place known for `at`, else from its beginning.

        Raises AnswerUnusable.
        """
        started = datetime.now(UTC)
        after = next((place for moment, place in reversed(self._marks) if moment <= at), "")
        for _ in range(_MOST_PAGES):
            found = await self._read(f"/v1/products/changes?limit={_PAGE}" + (f"&after={quote(after, safe='')}" if after else ""))
            try:
                codes = [str(item["sku"]) for item in found["items"]]
                before, after, more = after, str(found["after"]), found["next_cursor"] is not None
            except (KeyError, TypeError) as error:
                raise AnswerUnusable("changes: unreadable") from error
            if codes:
                yield codes
            if not more:
                self._marks.append((started, after))
                return
            if after == before:
                break
        raise AnswerUnusable("changes: no end")

    async def statement(self, day: date) -> AsyncIterator[Sequence[StatementLine]]:
        """Their signed file of the day, as one page; of each order that was paid back it is asked what it cost, once.

        Raises AnswerUnusable, also while it is not ready.
        """
        found = await self._read(f"/v1/statements/{day.isoformat()}")
        try:
            refunded = dict.fromkeys(str(line["order_id"]) for line in found["movements"] if line["type"] == mapping.REFUND and line.get("order_id"))
            worth = {order_id: await self._worth(order_id) for order_id in refunded}
            yield [_movement(line, str(found["currency"]), worth) for line in found["movements"]]
        except (wire.Unreadable, KeyError, TypeError, ValueError) as error:
            raise AnswerUnusable("statement: unreadable") from error

    async def _worth(self, order_id: str) -> int | None:
        """What an order of ours cost there before anything was paid back, None where they do not know it any more. Raises AnswerUnusable."""
        answer = await self._call("GET", f"/v1/orders/{wire.number(order_id)}")
        if isinstance(answer, HttpAnswer) and answer.status == 404 and _code_of(answer) == "not_found":
            return None
        return mapping.worth(_object(answer, "order"), order_id)

    def read_callback(self, headers: Mapping[str, str], body: bytes, now: datetime) -> CallbackNews | CatalogHint:
        return callback.read(self._webhook_secret, headers, body, now)

    async def _call(self, method: str, target: str, body: bytes = b"") -> HttpAnswer | NotSent | Unknown:
        """Signed anew each time: a nonce is good once."""
        nonce = os.urandom(16).hex()
        signed = wire.authorization(self._secret, self._private_key, self._key_id, int(time.time()), nonce, method, target, body)
        headers = {"authorization": signed, "accept": "application/json", **({"content-type": "application/json"} if body else {})}
        return await self._send(method, self._base_url + target, headers=headers, content=body, timeout_s=self._timeout_s)

    async def _read(self, target: str) -> dict[str, Any]:
        return _object(await self._call("GET", target), target.partition("?")[0])


def _unasked(answer: NotSent | Unknown) -> Answer:
    """That nobody could be asked says nothing about the purchase."""
    return Answer(Unknown(f"not sent: {answer.reason}") if isinstance(answer, NotSent) else answer)


def _object(answer: HttpAnswer | NotSent | Unknown, asked: str) -> dict[str, Any]:
    if not isinstance(answer, HttpAnswer):
        raise AnswerUnusable(f"{asked}: {answer.reason}")
    if answer.status != 200:
        raise AnswerUnusable(f"{asked}: HTTP {answer.status}")
    try:
        return wire.read_object(answer.body)
    except wire.Unreadable as error:
        raise AnswerUnusable(f"{asked}: unreadable") from error


def _code_of(answer: HttpAnswer) -> object:
    try:
        return wire.read_object(answer.body).get("code")
    except wire.Unreadable:
        return None


def _line(line: Mapping[str, Any]) -> SupplierProduct | None:
    """None for one that has no price for us. Of ranged products the rate is the cost per 1.0000 of face value.

    A word for the stock is all that a merchant learns of it.
    """
    ranged, face = line.get("range"), line.get("face_value")
    price = line.get("unit_price" if ranged is None else "price_rate")
    if price is None:
        return None
    if ranged is not None and not isinstance(ranged, dict):
        raise wire.Unreadable("range")
    return SupplierProduct(
        product_code=str(line["sku"]),
        name=str(line["name"]),
        product_type=str(line["product_type"]),
        cost=wire.amount(price) if ranged is None else _rate(price),
        currency=str(line["currency"]),
        stock=0 if line["stock"] == "out_of_stock" else None,
        available=line["status"] == "on_sale" and line["stock"] != "out_of_stock",
        face_value=None if face is None else wire.amount(face),
        face_min=None if ranged is None else wire.amount(ranged["min"]),
        face_max=None if ranged is None else wire.amount(ranged["max"]),
        fields=tuple(WantedField(str(one["name"]), str(one["label"]), required=one["required"] is True) for one in line["fields"]),
    )


def _rate(text: object) -> int:
    """A rate such as "0.985000", per 1.0000 of face value, rounded up to 1/10000."""
    if not isinstance(text, str):
        raise wire.Unreadable("price_rate")
    units, _, places = text.partition(".")
    return wire.amount(f"{units}.{places[:4] or '0'}") + (1 if places[4:].strip("0") else 0)


def _movement(line: Mapping[str, Any], currency: str, worth: Mapping[str, int | None]) -> StatementLine:
    """`worth`: what each order cost that was paid back.

    All of it has the number that look-ups and events give it. A part has the line's own: a second part, or the rest, is other news.
    """
    kind = mapping.KINDS.get(str(line["type"]), LineKind.OTHER)
    order_id, amount, external_id = line.get("order_id"), wire.amount(line["amount"]), None
    if kind is LineKind.REVERSAL and order_id:
        external_id = mapping.reversal_id(str(order_id)) if amount == worth[str(order_id)] else str(line["id"])
    return StatementLine(
        line_id=str(line["id"]),
        reference=line.get("merchant_order_no"),
        supplier_order_no=order_id,
        kind=kind,
        amount=amount,
        currency=currency,
        at=datetime.fromisoformat(str(line["time"])).astimezone(UTC),
        external_id=external_id,
        balance_after=wire.amount(line["balance_after"]),
    )
