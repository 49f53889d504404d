"""What Reloadly's words mean in ours for airtime. Pure, and total: whatever is not in these tables is Unknown.

The codes are the vendor's. That an error of theirs with HTTP 4xx (and one with 503) means that nothing happened, and that every other 5xx
says nothing, was seen by others in their sandbox (2026-10-08); what each permits us is our own reading.
"""

from collections.abc import Mapping
from typing import Any, Final

from kameng_api.suppliers.adapters.reloadly import wire
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
    "INVALID_RECIPIENT_PHONE": (Scope.ORDER, RefusalReason.TARGET_INVALID),
    "OPERATOR_AND_RECIPIENT_PHONE_MISMATCH": (Scope.ORDER, RefusalReason.TARGET_NOT_ELIGIBLE),
    "COULD_NOT_AUTO_DETECT_OPERATOR": (Scope.CHANNEL, RefusalReason.TARGET_NOT_ELIGIBLE),
    # Somebody topped this number up a moment ago, perhaps under another order of ours: refused, and no other channel is asked.
    "PHONE_RECENTLY_RECHARGED": (Scope.ORDER, RefusalReason.TARGET_NOT_ELIGIBLE),
    "RECIPIENT_HAS_PENDING_TRANSACTION": (Scope.ORDER, RefusalReason.TARGET_NOT_ELIGIBLE),
    "INVALID_AMOUNT": _CHANNEL_NO,
    "INVALID_AMOUNT_FOR_OPERATOR": _CHANNEL_NO,
    "INVALID_LOCAL_AMOUNT_FOR_OPERATOR": _CHANNEL_NO,
    "LOCAL_AMOUNTS_NOT_SUPPORTED_BY_OPERATOR": _CHANNEL_NO,
    "INVALID_INPUT_PROVIDED": _CHANNEL_NO,
    "COUNTRY_NOT_SUPPORTED": _CHANNEL_NO,
    "OPERATOR_NOT_IN_SERVICE": (Scope.CHANNEL, RefusalReason.PRODUCT_OFF),
    "OPERATOR_NOT_FOUND": (Scope.CHANNEL, RefusalReason.PRODUCT_OFF),
    "TRANSACTION_FAILED_ON_OPERATOR": _CHANNEL_NO,
    "TRANSACTION_REJECTED_BY_OPERATOR": _CHANNEL_NO,
    "TOPUP_TRANSACTION_FAILED": _CHANNEL_NO,
    "MAX_DAILY_TRANSACTION_AMOUNT_REACHED": _CHANNEL_NO,
    "MAX_DAILY_TRANSACTION_COUNT_REACHED": _CHANNEL_NO,
    "INSUFFICIENT_BALANCE": (Scope.CHANNEL, RefusalReason.WALLET_EMPTY),
    "INACTIVE_ACCOUNT": _CHANNEL_NO,
    "ACCOUNT_NOT_FOUND": _CHANNEL_NO,
}
# Said before anything is tried, with HTTP 503; an operator that does not exist is answered so too.
REFUSALS_503: Final[Mapping[str, Verdict]] = {"OPERATOR_UNAVAILABLE_OR_CURRENTLY_INACTIVE": (Scope.CHANNEL, RefusalReason.PRODUCT_OFF)}
LIMITED: Final = "RATE_LIMIT_REACHED"
# HTTP 401 with one of these: the request was turned away at the door.
TOKEN_REFUSED: Final = frozenset({"INVALID_TOKEN", "TOKEN_EXPIRED", "MISSING_TOKEN", "INVALID_CREDENTIALS"})
# Unknown on purpose, with every code that is not here: CUSTOM_IDENTIFIER_ALREADY_USED (an order under our number exists),
# TRANSACTION_CANNOT_BE_PROCESSED_AT_THE_MOMENT, PROVIDER_INTERNAL_ERROR, REQUEST_FAILED_ON_PROVIDER, and an `errorCode` of null.

UNDER_WAY: Final = frozenset({"PROCESSING", "PENDING"})
FAILED: Final = frozenset({"FAILED", "REFUNDED"})
"""Not debited, or paid back."""
SUCCESSFUL: Final = "SUCCESSFUL"


def at_placing(answer: HttpAnswer) -> Outcome:
    """The answer to `POST /topups-async`: their number alone, or a refusal."""
    try:
        found = _object(answer)
        if answer.status == 200:
            return Accepted(number_of(found))
        return _refusal(answer.status, found)
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
    verdict = REFUSALS_503.get(code) if status == 503 else REFUSALS.get(code) if 400 <= status < 500 and status not in (401, 408, 429) else None
    return Unknown(f"HTTP {status}, code {_word(code)}") if verdict is None else Refused(*verdict, detail=code)


def at_report(answer: HttpAnswer, reference: str, currency: str) -> Outcome:
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


def at_status(answer: HttpAnswer, reference: str, number: str, currency: str) -> Outcome:
    """`GET /topups/{number}/status`: {code, message, status, transaction}; the transaction is null until it is known."""
    try:
        found = _object(answer)
        if answer.status != 200:
            return Unknown(f"HTTP {answer.status}")
        status, transaction = found.get("status"), found.get("transaction")
        if isinstance(transaction, dict):
            outcome = order(transaction, reference, currency)
            return outcome if transaction.get("status") == status else Unknown("status and transaction disagree")
        if transaction is not None or not isinstance(status, str):
            raise wire.Unreadable("transaction")
        if status in UNDER_WAY:
            return Accepted(number)
        if status in FAILED:
            return _failed(status, found.get("code"))
        return Unknown("a status without its transaction")
    except wire.Unreadable as error:
        return Unknown(f"unreadable answer: {error}")


def order(row: Mapping[str, Any], reference: str, currency: str) -> Outcome:
    """What a transaction says; `currency` is that of our account. Raises Unreadable."""
    if row.get("customIdentifier") != reference:
        return Unknown("an answer about another order")
    status = row.get("status")
    if not isinstance(status, str):
        raise wire.Unreadable("status")
    if status in UNDER_WAY:
        return Accepted(number_of(row))
    if status in FAILED:
        return _failed(status, None)
    if status != SUCCESSFUL:
        return Unknown(f"status {_word(status)}")
    receipt = row.get("operatorTransactionId")
    receipt = str(receipt)[:128] if isinstance(receipt, str | int) and not isinstance(receipt, bool) and receipt != "" else None
    return Delivered(1, cost_of(row, currency), number_of(row), receipt, _codes(row.get("pinDetail")))


def _failed(status: str, code: object) -> Outcome:
    """FAILED may say why; neither is tried again under this number."""
    verdict = REFUSALS.get(code, _CHANNEL_NO) if isinstance(code, str) else _CHANNEL_NO
    return Refused(*verdict, detail=code if isinstance(code, str) and code in REFUSALS else status)


def cost_of(row: Mapping[str, Any], currency: str) -> int | None:
    """What left our balance, in 1/10000 units. None where it is told in another currency. Raises Unreadable."""
    cost, told_in = charge_of(row)
    return cost if told_in == currency else None


def charge_of(row: Mapping[str, Any]) -> tuple[int, str]:
    """What left our balance, as they say it, and in which currency: discounts, fees and rates are theirs to count.

    1/10000 units; the currency is empty where they do not say it. Raises Unreadable.
    """
    balance = row.get("balanceInfo")
    if not isinstance(balance, dict):
        raise wire.Unreadable("balanceInfo")
    return wire.charge(wire.decimal(balance.get("cost"))), str(balance.get("currencyCode") or "")


def _codes(pin: object) -> tuple[Code, ...]:
    if not isinstance(pin, dict) or not pin.get("code"):
        return ()
    code, serial = str(pin["code"]), pin.get("serial")
    return (Code(str(serial), code) if isinstance(serial, str | int) and serial else Code(code),)


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
    """`application/json` or their own `application/com.reloadly.…+json`. Raises Unreadable."""
    kind = answer.headers.get("content-type", "").partition(";")[0].strip()
    if kind != "application/json" and not (kind.startswith("application/com.reloadly.") and kind.endswith("+json")):
        raise wire.Unreadable("not JSON by its content type")
    found = wire.read(answer.body)
    if not isinstance(found, dict):
        raise wire.Unreadable("not an object")
    return found


def _word(code: str) -> str:
    """An unlisted word of theirs, short and harmless enough for a log."""
    return code[:60] if code.isascii() and code.replace("_", "").isalnum() else "odd"
