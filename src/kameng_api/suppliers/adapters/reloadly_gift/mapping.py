"""What Reloadly's words mean in ours for gift cards. Pure, and total: whatever is not in these tables is Unknown.

The codes are the vendor's. That an error of theirs with HTTP 4xx means that nothing happened, and
that a 5xx says nothing, was seen by others in their sandbox (2026-10-08); what each permits us is our own reading.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from kameng_api.suppliers.adapters.reloadly_gift import wire
from kameng_api.suppliers.port import (
    Accepted,
    Cause,
    Code,
    Delivered,
    HttpAnswer,
    NotFound,
    NotSent,
    Outcome,
    RefusalReason,
    Refused,
    Scope,
    Unknown,
)

Verdict = tuple[Scope, RefusalReason]
_CHANNEL_NO: Final = (Scope.CHANNEL, RefusalReason.SUPPLIER_REJECTED)

# `errorCode` of an answer with HTTP 4xx: nothing was bought under our number.
REFUSALS: Final[Mapping[str, Verdict]] = {
    "INVALID_PRODUCT": (Scope.CHANNEL, RefusalReason.PRODUCT_OFF),
    "WRONG_PRODUCT_PRICE": _CHANNEL_NO,  # a face value that this product does not have
    "INVALID_AMOUNT": _CHANNEL_NO,
    "INVALID_INPUT_PROVIDED": _CHANNEL_NO,
    "COUNTRY_NOT_SUPPORTED": _CHANNEL_NO,
    "MAX_DAILY_TRANSACTION_AMOUNT_REACHED": _CHANNEL_NO,
    "MAX_DAILY_TRANSACTION_COUNT_REACHED": _CHANNEL_NO,
    "INSUFFICIENT_BALANCE": (Scope.CHANNEL, RefusalReason.WALLET_EMPTY),
    "INACTIVE_ACCOUNT": _CHANNEL_NO,
    "ACCOUNT_NOT_FOUND": _CHANNEL_NO,
}
LIMITED: Final = "RATE_LIMIT_REACHED"
# HTTP 401 with one of these: the request was turned away at the door.
TOKEN_REFUSED: Final = frozenset({"INVALID_TOKEN", "TOKEN_EXPIRED", "MISSING_TOKEN", "INVALID_CREDENTIALS"})
# Unknown on purpose, with every code that is not here: CUSTOM_IDENTIFIER_ALREADY_USED (an order under our number exists),
# TRANSACTION_CANNOT_BE_PROCESSED_AT_THE_MOMENT, PROVIDER_INTERNAL_ERROR, REQUEST_FAILED_ON_PROVIDER, and an `errorCode` of null ("cannot order
# products valued more than 100 USD at a go" has none).

UNDER_WAY: Final = frozenset({"PROCESSING", "PENDING"})
FAILED: Final = frozenset({"FAILED", "REFUNDED"})
"""Not debited, or paid back."""
SUCCESSFUL: Final = "SUCCESSFUL"


@dataclass(frozen=True, slots=True)
class Sold:
    """A successful order whose cards are still to be fetched. `cost` in 1/10000 units of our account's currency, None where it is told in another."""

    number: str
    units: int
    cost: int | None


def at_placing(answer: HttpAnswer, reference: str, currency: str) -> Outcome:
    """The answer to `POST /orders`. Cards are never in it: a successful order is looked up, and its cards with it."""
    try:
        found = _object(answer)
        if answer.status != 200:
            return _refusal(answer.status, found)
        outcome = order(found, reference, currency)
        return Accepted(outcome.number) if isinstance(outcome, Sold) else outcome
    except wire.Unreadable as error:
        return Unknown(f"unreadable answer: {error}")


def _refusal(status: int, found: Mapping[str, Any]) -> Outcome:
    code = found.get("errorCode")
    if not isinstance(code, str):
        return Unknown(f"HTTP {status} without a code")
    if status == 429 and code == LIMITED:
        return NotSent("rate limited by the supplier", Cause.BUSY)
    if status == 401 and code in TOKEN_REFUSED:
        return NotSent("the supplier does not take our token", Cause.OURS if code == "TOKEN_EXPIRED" else Cause.UNREACHED)
    verdict = REFUSALS.get(code) if 400 <= status < 500 and status not in (401, 408, 429) else None
    return Unknown(f"HTTP {status}, code {_word(code)}") if verdict is None else Refused(*verdict, detail=code)


def at_report(answer: HttpAnswer, reference: str, currency: str) -> Outcome | Sold:
    """The transactions found under `reference`: their search does not see upper and lower case, we do."""
    try:
        found = _object(answer)
        rows, count = found.get("content"), found.get("totalElements")
        if answer.status != 200 or not isinstance(rows, list) or not isinstance(count, int) or isinstance(count, bool):
            return Unknown(f"HTTP {answer.status}, no list")
        if not rows and count == 0:
            return NotFound()
        ours = [row for row in rows if isinstance(row, dict) and row.get("customIdentifier") == reference]
        if len(ours) > 1:  # their check of numbers lets parallel calls through
            return Unknown("more than one order under our reference", needs_person=True)
        if count > len(rows):
            return Unknown("more rows than one page")
        return order(ours[0], reference, currency) if ours else Unknown("an answer about other orders")
    except wire.Unreadable as error:
        return Unknown(f"unreadable answer: {error}")


def at_transaction(answer: HttpAnswer, reference: str, currency: str) -> Outcome | Sold:
    """`GET /reports/transactions/{number}`: the transaction itself."""
    try:
        found = _object(answer)
        return order(found, reference, currency) if answer.status == 200 else Unknown(f"HTTP {answer.status}")
    except wire.Unreadable as error:
        return Unknown(f"unreadable answer: {error}")


def order(row: Mapping[str, Any], reference: str, currency: str) -> Outcome | Sold:
    """What a transaction says; `currency` is that of our account. Raises Unreadable."""
    if row.get("customIdentifier") != reference:
        return Unknown("an answer about another order")
    status = row.get("status")
    if not isinstance(status, str):
        raise wire.Unreadable("status")
    if status in UNDER_WAY:
        return Accepted(number_of(row))
    if status in FAILED:
        return Refused(*_CHANNEL_NO, detail=status)
    if status != SUCCESSFUL:
        return Unknown(f"status {_word(status)}")
    return Sold(number_of(row), units_of(row), cost_of(row, currency))


def at_cards(answer: HttpAnswer, sold: Sold) -> Outcome:
    """`GET /orders/transactions/{number}/cards`, version 2: exactly as many cards as were ordered, each with something to redeem."""
    try:
        cards = _json(answer)
        if answer.status != 200 or not isinstance(cards, list):
            return Unknown(f"HTTP {answer.status}, no cards")
        codes = tuple(_code(card) for card in cards)
    except wire.Unreadable as error:
        return Unknown(f"unreadable cards: {error}")
    if len(codes) != sold.units or len(set(codes)) != sold.units:
        return Unknown("cards do not fit the units")
    return Delivered(sold.units, sold.cost, sold.number, None, codes)


def _code(card: object) -> Code:
    """Some brands have a number and a PIN, some one of them, some an address where the card is shown. Raises Unreadable."""
    if not isinstance(card, dict):
        raise wire.Unreadable("card")
    number, pin, url = (str(card.get(name) or "") for name in ("cardNumber", "pinCode", "redemptionUrl"))
    parts = [part for part in (number, pin, url) if part]
    if not parts:
        raise wire.Unreadable("a card without anything to redeem")
    return Code(parts[0], parts[1] if len(parts) > 1 else None)


def units_of(row: Mapping[str, Any]) -> int:
    """Raises Unreadable."""
    product = row.get("product")
    units = product.get("quantity") if isinstance(product, dict) else None
    if not isinstance(units, int) or isinstance(units, bool) or units < 1:
        raise wire.Unreadable("quantity")
    return units


def cost_of(row: Mapping[str, Any], currency: str) -> int | None:
    """What left our balance, in 1/10000 units. None where it is told in another currency. Raises Unreadable."""
    cost, told_in = charge_of(row)
    return cost if told_in == currency else None


def charge_of(row: Mapping[str, Any]) -> tuple[int, str]:
    """What left our balance, as they say it, and in which currency. Their schema spells it `balaneInfo`; reports may have the amount alone.

    1/10000 units; the currency is empty where they do not say it. Raises Unreadable.
    """
    balance = row.get("balanceInfo") or row.get("balaneInfo")
    if isinstance(balance, dict) and balance.get("cost") is not None:
        return wire.charge(wire.decimal(balance["cost"])), str(balance.get("currencyCode") or "")
    return wire.charge(wire.decimal(row.get("amount"))), str(row.get("currencyCode") or "")


def number_of(row: Mapping[str, Any]) -> str:
    """Raises Unreadable."""
    number = row.get("transactionId")
    if not isinstance(number, int) or isinstance(number, bool):
        raise wire.Unreadable("transactionId")
    return str(number)


def error_code(answer: HttpAnswer) -> str:
    """The `errorCode` of an answer, empty without one."""
    try:
        code = _object(answer).get("errorCode")
    except wire.Unreadable:
        return ""
    return code if isinstance(code, str) else ""


def _object(answer: HttpAnswer) -> dict[str, Any]:
    found = _json(answer)
    if not isinstance(found, dict):
        raise wire.Unreadable("not an object")
    return found


def _json(answer: HttpAnswer) -> Any:
    """`application/json` or their own `application/com.reloadly.…+json`. Raises Unreadable."""
    kind = answer.headers.get("content-type", "").partition(";")[0].strip()
    if kind != "application/json" and not (kind.startswith("application/com.reloadly.") and kind.endswith("+json")):
        raise wire.Unreadable("not JSON by its content type")
    return wire.read(answer.body)


def _word(code: str) -> str:
    """An unlisted word of theirs, short and harmless enough for a log."""
    return code[:60] if code.isascii() and code.replace("_", "").isalnum() else "odd"
