"""What DT One's words mean in ours. Pure, and total: whatever is not in these tables is Unknown.

An order is judged by `status.class.id` alone, as the vendor asks; the sub-status only says why. Codes and classes are the vendor's (DVS OpenAPI
1.23.0); what each permits us is our own reading of them.
"""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

from kameng_api.suppliers.adapters.dtone import wire
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
    Reversed,
    Scope,
    Unknown,
)

Verdict = tuple[Scope, RefusalReason]
_CHANNEL_NO: Final = (Scope.CHANNEL, RefusalReason.SUPPLIER_REJECTED)
_ORDER_NO: Final = (Scope.ORDER, RefusalReason.SUPPLIER_REJECTED)
_NOT_ELIGIBLE: Final = (Scope.ORDER, RefusalReason.TARGET_NOT_ELIGIBLE)

# `status.class.id`. 1 holds our money and expires unless confirmed; 2 and 5 are under way; 3, 4 and 9 give it back; 8 follows a 7.
UNDER_WAY: Final = frozenset({1, 2, 5})
REFUSED: Final = frozenset({3, 4, 9})
COMPLETED: Final = 7
REVERSED: Final = 8

# Why a REJECTED, CANCELLED or DECLINED order failed. A sub-status that is not here failed too, and is not tried elsewhere by guess.
SUB_STATUSES: Final[Mapping[str, Verdict]] = {
    "REJECTED": _CHANNEL_NO,
    "REJECTED-INVALID-CREDIT-PARTY": (Scope.ORDER, RefusalReason.TARGET_INVALID),
    "REJECTED-BARRED-CREDIT-PARTY": _NOT_ELIGIBLE,
    "REJECTED-INELIGIBLE-CREDIT-PARTY": _NOT_ELIGIBLE,
    "REJECTED-INVALID-DEBIT-PARTY": _CHANNEL_NO,
    "REJECTED-BARRED-DEBIT-PARTY": _CHANNEL_NO,
    "REJECTED-LIMITATIONS-ON-CREDIT-PARTY-AMOUNT": _NOT_ELIGIBLE,
    "REJECTED-LIMITATIONS-ON-CREDIT-PARTY-QUANTITY": _NOT_ELIGIBLE,
    "REJECTED-OPERATOR-CURRENTLY-UNAVAILABLE": _CHANNEL_NO,
    "REJECTED-INSUFFICIENT-BALANCE": (Scope.CHANNEL, RefusalReason.WALLET_EMPTY),
    "CANCELLED": _CHANNEL_NO,
    "DECLINED": _CHANNEL_NO,
    "DECLINED-EXCEPTION": _CHANNEL_NO,
    "DECLINED-INVALID-CREDIT-PARTY": (Scope.ORDER, RefusalReason.TARGET_INVALID),
    "DECLINED-BARRED-CREDIT-PARTY": _NOT_ELIGIBLE,
    "DECLINED-INELIGIBLE-CREDIT-PARTY": _NOT_ELIGIBLE,
    "DECLINED-INVALID-DEBIT-PARTY": _CHANNEL_NO,
    "DECLINED-BARRED-DEBIT-PARTY": _CHANNEL_NO,
    "DECLINED-OPERATOR-CURRENTLY-UNAVAILABLE": _CHANNEL_NO,
    # The operator saw the same top-up a moment ago: the recipient may have it already. Refused, and no other channel is asked.
    "DECLINED-DUPLICATED-TRANSACTION": _ORDER_NO,
    "DECLINED-LIMITATIONS-ON-OPERATOR-AMOUNT": _ORDER_NO,
    "DECLINED-LIMITATIONS-ON-OPERATOR-QUANTITY": _ORDER_NO,
    "DECLINED-LIMITATIONS-ON-CREDIT-PARTY-AMOUNT": _NOT_ELIGIBLE,
    "DECLINED-LIMITATIONS-ON-CREDIT-PARTY-QUANTITY": _NOT_ELIGIBLE,
    "DECLINED-LIMITATIONS-ON-CUSTOMER-AMOUNT": _NOT_ELIGIBLE,
    "DECLINED-LIMITATIONS-ON-CUSTOMER-QUANTITY": _NOT_ELIGIBLE,
}
# Errors that refuse to create a transaction, each with the HTTP status it is documented with: code → (status, verdict).
REFUSALS: Final[Mapping[int, tuple[int, Verdict]]] = {
    1003001: (404, (Scope.CHANNEL, RefusalReason.PRODUCT_OFF)),
    1003002: (400, _CHANNEL_NO),  # amount out of range: of this product, another channel's may be wider
    1003003: (400, _CHANNEL_NO),
    1005003: (400, (Scope.ORDER, RefusalReason.TARGET_INVALID)),
    1006001: (400, (Scope.CHANNEL, RefusalReason.WALLET_EMPTY)),
    1007500: (400, _CHANNEL_NO),
}
# Given before a request is looked at: nothing was bought.
NOT_SENT: Final[Mapping[int, tuple[int, str, Cause]]] = {
    1000401: (401, "the supplier does not take our key", Cause.UNREACHED),
    1000429: (429, "rate limited by the supplier", Cause.BUSY),
}
# Everything else is Unknown, and these are so on purpose: 1007001 (our number is in use: the order exists), 1009001 (500), 1009503 (503).
NOT_FOUND: Final = 1008004
NO_PRODUCT: Final = 1003001
NO_RESOURCE: Final = 1000404
PIN_TYPES: Final = frozenset({"FIXED_VALUE_PIN_PURCHASE", "RANGED_VALUE_PIN_PURCHASE"})
PLAIN_TYPES: Final = frozenset({"FIXED_VALUE_RECHARGE", "RANGED_VALUE_RECHARGE", "RANGED_VALUE_PAYMENT"})


def at_placing(answer: HttpAnswer, reference: str, currency: str, *, cards: bool) -> Outcome:
    """The answer to a new transaction under `reference`; `cards` where it has to bring a code."""
    try:
        found = _read(answer)
        if answer.status == 201:
            return order(found, reference, currency, cards=cards)
        return _refusal(answer.status, error_code(found))
    except wire.Unreadable as error:
        return Unknown(f"unreadable answer: {error}")


def _refusal(status: int, code: int) -> Outcome:
    if code in NOT_SENT and NOT_SENT[code][0] == status:
        _, reason, cause = NOT_SENT[code]
        return NotSent(reason, cause)
    if code in REFUSALS and REFUSALS[code][0] == status:
        return Refused(*REFUSALS[code][1], detail=str(code))
    return Unknown(f"HTTP {status}, code {code}")


def at_look_up(answer: HttpAnswer, reference: str, currency: str) -> Outcome:
    """The answer to a search for `reference`: all that carry exactly it, for theirs may be found without regard to case."""
    try:
        found = _read(answer)
        if answer.status == 404 and error_code(found) == NOT_FOUND:
            return NotFound()
        if answer.status != 200 or not isinstance(found, list):
            return Unknown(f"HTTP {answer.status}")
        ours = [item for item in found if isinstance(item, dict) and item.get("external_id") == reference]
        if len(ours) > 1:  # that their check of numbers holds against parallel calls is nowhere promised
            return Unknown("more than one order under our reference", needs_person=True)
        return order(ours[0], reference, currency) if ours else Unknown("an answer about other orders")
    except wire.Unreadable as error:
        return Unknown(f"unreadable answer: {error}")


def at_look_up_by_number(answer: HttpAnswer, reference: str, currency: str) -> Outcome:
    """The answer about one transaction by its own id."""
    try:
        found = _read(answer)
        return order(found, reference, currency) if answer.status == 200 else Unknown(f"HTTP {answer.status}")
    except wire.Unreadable as error:
        return Unknown(f"unreadable answer: {error}")


def order(found: object, reference: str, currency: str, *, cards: bool = False) -> Outcome:
    """What a transaction says. Raises Unreadable."""
    if not isinstance(found, dict):
        raise wire.Unreadable("no transaction")
    if found.get("external_id") != reference:
        return Unknown("an answer about another order")
    status = found.get("status")
    kind = status.get("class") if isinstance(status, dict) else None
    class_id = kind.get("id") if isinstance(kind, dict) else None
    if not isinstance(status, dict) or not isinstance(class_id, int) or isinstance(class_id, bool):
        raise wire.Unreadable("status")
    if class_id in UNDER_WAY:
        return Accepted(number_of(found))
    if class_id in REFUSED:
        message = status.get("message")
        word = message if isinstance(message, str) else ""
        return Refused(*SUB_STATUSES.get(word, _ORDER_NO), detail=word if word in SUB_STATUSES else f"class {class_id}")
    if class_id == COMPLETED:
        return _delivered(found, currency, cards)
    if class_id == REVERSED:
        return Reversed(f"{number_of(found)}-reversed", cost_of(found, currency))
    return Unknown(f"status class {class_id}")


def _delivered(found: Mapping[str, Any], currency: str, cards: bool) -> Outcome:
    product = found.get("product")
    kind = product.get("type") if isinstance(product, dict) else None
    codes = _codes(found.get("pin"))
    if kind not in PIN_TYPES and kind not in PLAIN_TYPES:
        return Unknown("a product of no listed type")
    if (cards or kind in PIN_TYPES) and not codes:
        return Unknown("completed without its code")
    return Delivered(1, cost_of(found, currency), number_of(found), wire.text(found, "operator_reference"), codes)


def _codes(pin: object) -> tuple[Code, ...]:
    """`pin` is null, or a code, mostly with its serial number; a serial number alone redeems nothing that we know of."""
    if not isinstance(pin, dict):
        return ()
    code, serial = pin.get("code"), pin.get("serial")
    if not isinstance(code, str) or not code:
        return ()
    return (Code(code, None) if not isinstance(serial, str) or not serial else Code(serial, code),)


def cost_of(found: Mapping[str, Any], currency: str) -> int | None:
    """What was taken from our balance: wholesale price and fee, 1/10000 units. None where it is told in another currency. Raises Unreadable."""
    prices = found.get("prices")
    wholesale = prices.get("wholesale") if isinstance(prices, dict) else None
    if not isinstance(wholesale, dict):
        raise wire.Unreadable("prices")
    if wholesale.get("unit") != currency:
        return None
    return wire.charge(wire.decimal(wholesale.get("amount")) + wire.decimal(wholesale.get("fee", Decimal(0))))


def number_of(found: Mapping[str, Any]) -> str:
    """Raises Unreadable."""
    number = found.get("id")
    if not isinstance(number, int) or isinstance(number, bool):
        raise wire.Unreadable("id")
    return str(number)


def error_code(found: object) -> int:
    """The one code of `{errors: [{code, message}]}`. Raises Unreadable, also when there are several."""
    errors = found.get("errors") if isinstance(found, dict) else None
    if isinstance(errors, list) and len(errors) == 1 and isinstance(errors[0], dict):
        code = errors[0].get("code")
        if isinstance(code, int) and not isinstance(code, bool):
            return code
    raise wire.Unreadable("errors")


def _read(answer: HttpAnswer) -> Any:
    if not answer.headers.get("content-type", "").startswith("application/json"):
        raise wire.Unreadable("not JSON by its content type")
    return wire.read(answer.body)
