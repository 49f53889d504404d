"""What the simulator's words mean in ours. Pure, and total: whatever is not in these tables is Unknown."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from kameng_api.suppliers.adapters.simulator import wire
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

# Their final refusals: recorded under our reference, nothing is delivered, and asking again gives the same answer.
REFUSALS: Final[Mapping[str, tuple[Scope, RefusalReason]]] = {
    "TARGET_NOT_EXIST": (Scope.ORDER, RefusalReason.TARGET_INVALID),
    "TARGET_BLACKLISTED": (Scope.ORDER, RefusalReason.TARGET_NOT_ELIGIBLE),
    "TARGET_NOT_ELIGIBLE": (Scope.ORDER, RefusalReason.TARGET_NOT_ELIGIBLE),
    "ORDER_REJECTED": (Scope.ORDER, RefusalReason.SUPPLIER_REJECTED),
    "STOCK_EMPTY": (Scope.CHANNEL, RefusalReason.OUT_OF_STOCK),
    "PRODUCT_OFF_SHELF": (Scope.CHANNEL, RefusalReason.PRODUCT_OFF),
    "BALANCE_NOT_ENOUGH": (Scope.CHANNEL, RefusalReason.WALLET_EMPTY),
    "PRICE_CHANGED": (Scope.CHANNEL, RefusalReason.PRICE_EXCEEDED),
    "CHANNEL_MAINTENANCE": (Scope.CHANNEL, RefusalReason.SUPPLIER_REJECTED),
    "PARAM_INVALID": (Scope.CHANNEL, RefusalReason.SUPPLIER_REJECTED),
}
# Whose network a number is on, in a number's look-up; anything else is nobody's word.
CARRIERS: Final[Mapping[str, str]] = {"CMCC": "cmcc", "CUCC": "cucc", "CTCC": "ctcc", "CBN": "cbn"}
FLAGS: Final[Mapping[str, bool]] = {"0": False, "1": True}
# Documented as given before an order is read: this request bought nothing, and the supplier is busy.
NOT_SENT: Final[Mapping[str, str]] = {"RATE_LIMITED": "rate limited by the supplier"}


def at_placing(answer: HttpAnswer, reference: str, units: int) -> Outcome:
    """The answer to a purchase of `units` under `reference`."""
    try:
        found = _read(answer, also_status=429)
        code = found.get("code")
        if answer.status == 429 or (isinstance(code, str) and code in NOT_SENT):
            return _limited(answer.status, code)
        outcome = _order(found, reference)
        if isinstance(code, str) and code in REFUSALS and not isinstance(outcome, Refused):
            return Unknown("code and order disagree")
    except wire.Unreadable as error:
        return Unknown(f"unreadable answer: {error}")
    if isinstance(outcome, Delivered) and outcome.units > units:
        return Unknown("more units than asked")
    return outcome


def _limited(status: int, code: object) -> Outcome:
    if status == 429 and isinstance(code, str) and code in NOT_SENT:
        return NotSent(NOT_SENT[code], Cause.BUSY)
    return Unknown("a limit that is not the documented one")


def at_look_up(answer: HttpAnswer, reference: str) -> Outcome:
    """The answer to a look-up of `reference`. Only the order in it speaks about the order."""
    try:
        found = _read(answer)
        if found.get("code") == "ORDER_NOT_FOUND":
            return NotFound()
        return _order(found, reference)
    except wire.Unreadable as error:
        return Unknown(f"unreadable answer: {error}")


def in_callback(order: Mapping[str, Any]) -> Outcome:
    """The order as a verified callback describes it. Raises wire.Unreadable."""
    return _status(order)


def _read(answer: HttpAnswer, also_status: int = 200) -> dict[str, Any]:
    if answer.status not in (200, also_status):
        raise wire.Unreadable(f"HTTP {answer.status}")
    if not answer.headers.get("content-type", "").startswith("application/json"):
        raise wire.Unreadable("not JSON by its content type")
    return wire.read_object(answer.body)


def _order(found: Mapping[str, Any], reference: str) -> Outcome:
    """What the order inside an answer says; without one, or with another one, nothing is certain."""
    code, order = found.get("code"), found.get("data")
    if not isinstance(order, dict):
        return Unknown(f"code {_word(code)}")
    if order.get("out_order_no") != reference:
        return Unknown("an answer about another order")
    if code not in ("OK", "CONTACT_STAFF") and not (isinstance(code, str) and code in REFUSALS):
        return Unknown(f"code {_word(code)}")
    return _status(order)


def _status(order: Mapping[str, Any]) -> Outcome:
    status = order.get("status")
    read = _STATUSES.get(status) if isinstance(status, str) else None
    return Unknown(f"status {_word(status)}") if read is None else read(order)


def _delivered(order: Mapping[str, Any]) -> Outcome:
    asked, units = _count(order, "units"), _count(order, "delivered_units")
    complete = order["status"] == "SUCCESS"
    if not 0 < units <= asked or complete != (units == asked):
        return Unknown("units do not fit the status")
    codes = _codes(order)
    if order.get("product_type") != "topup" and len(codes) != units:
        return Unknown("cards do not fit the units")
    return Delivered(
        units=units,
        cost=wire.amount(order.get("cost")),
        supplier_order_no=_text(order, "order_no"),
        receipt=_text(order, "receipt"),
        codes=codes,
    )


def _accepted(order: Mapping[str, Any]) -> Outcome:
    return Accepted(_text(order, "order_no"))


def _refused(order: Mapping[str, Any]) -> Outcome:
    code = order.get("fail_code")
    verdict = REFUSALS.get(code) if isinstance(code, str) else None
    if verdict is None:
        return Unknown(f"fail code {_word(code)}")
    return Refused(*verdict, detail=str(code))


def _reversed(order: Mapping[str, Any]) -> Outcome:
    external_id = _text(order, "reversal_no")
    if external_id is None:
        return Unknown("a reversal without number")
    return Reversed(external_id, wire.amount(order.get("reversed_amount")))


_STATUSES: Final[Mapping[str, Callable[[Mapping[str, Any]], Outcome]]] = {
    "SUCCESS": _delivered,
    "PARTIAL": _delivered,
    "PROCESSING": _accepted,
    "FAILED": _refused,
    "REVERSED": _reversed,
    "CONTACT_STAFF": lambda order: Unknown("the supplier asks to contact its staff", needs_person=True),
}


def _codes(order: Mapping[str, Any]) -> tuple[Code, ...]:
    cards = order.get("cards") or []
    if not isinstance(cards, list) or not all(isinstance(card, dict) and card.get("code") for card in cards):
        raise wire.Unreadable("cards")
    return tuple(
        Code(str(card["code"]), str(card["pin"]) if card.get("pin") else None, wire.expiry(card.get("expires_on")))
        for card in cards
    )


def _count(order: Mapping[str, Any], name: str) -> int:
    """In answers a number, in callbacks digits."""
    value = order.get(name)
    if isinstance(value, str) and value.isascii() and value.isdigit():
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise wire.Unreadable(name)


def _text(order: Mapping[str, Any], name: str) -> str | None:
    value = order.get(name)
    return value[:128] if isinstance(value, str) and value else None


def _word(value: object) -> str:
    """An unlisted word of theirs, short and harmless enough for a log."""
    if isinstance(value, str) and value.isascii() and value.replace("_", "").isalnum():
        return value[:40]
    return "missing or odd"
