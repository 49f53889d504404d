"""What dujiao-next's words mean in ours. Pure, and total: whatever is not in these tables is Unknown.

Sources: the document's §4.5 to §4.7, §5, §6 and §7.
"""

from collections.abc import Mapping
from typing import Any, Final

from kameng_api.suppliers.adapters.dujiao import wire
from kameng_api.suppliers.port import (
    Accepted,
    Code,
    Delivered,
    HttpAnswer,
    NotFound,
    Outcome,
    RefusalReason,
    Refused,
    Reversed,
    Scope,
    Unknown,
)

# (HTTP status, error_code) at placing, all given before there is an order to be paid (§4.5).
REFUSALS: Final[Mapping[tuple[int, str], RefusalReason]] = {
    (400, "bad_request"): RefusalReason.SUPPLIER_REJECTED,
    (400, "invalid_callback_url"): RefusalReason.SUPPLIER_REJECTED,
    (400, "sku_unavailable"): RefusalReason.PRODUCT_OFF,
    (400, "product_unavailable"): RefusalReason.PRODUCT_OFF,
    (402, "insufficient_balance"): RefusalReason.WALLET_EMPTY,
    (409, "insufficient_stock"): RefusalReason.OUT_OF_STOCK,
}
# The order was made, its payment failed, and the shop cancelled it by itself: HTTP 200 with ok false and status canceled (§4.5).
UNPAID: Final = (200, "payment_failed")
WORKED_ON: Final = frozenset({"pending_payment", "paid", "fulfilling"})
DELIVERED: Final = frozenset({"delivered", "completed"})
CANCELED: Final = "canceled"
REFUNDED: Final = "refunded"
# Some of it was delivered or paid back; how much, neither the order nor the callback says.
IN_PART: Final = frozenset({"partially_delivered", "partially_refunded"})
AUTO, MANUAL = "auto", "manual"

_CANCELED: Final = Refused(Scope.CHANNEL, RefusalReason.SUPPLIER_REJECTED, CANCELED)


def at_placing(answer: HttpAnswer) -> Outcome:
    """The answer to POST /orders. It names no reference and no cards: a delivered order is looked up by its number."""
    try:
        found = _read(answer)
        error = found.get("error_code")
        if found.get("ok") is False and isinstance(error, str):
            if (answer.status, error) == UNPAID and found.get("status") == CANCELED:
                return Refused(Scope.CHANNEL, RefusalReason.WALLET_EMPTY, error)
            reason = REFUSALS.get((answer.status, error))
            return Unknown(f"HTTP {answer.status}, {_word(error)}") if reason is None else Refused(Scope.CHANNEL, reason, error)
        number, status = _order(answer, found)
    except wire.Unreadable as error:
        return Unknown(f"unreadable answer: {error}")
    if status in WORKED_ON or status in DELIVERED:
        return Accepted(number)
    return _without_cards(number, status, None)


def at_look_up(answer: HttpAnswer, number: str, *, manual_is_goods: bool = True) -> Outcome:
    """The answer to GET /orders/:id for the order `number`. `manual_is_goods`: what a person wrote there is goods, not a note."""
    try:
        found = _read(answer)
        if answer.status == 404 and found.get("ok") is False and found.get("error_code") == "order_not_found":
            return NotFound()
        told, status = _order(answer, found)
        if told != number:
            return Unknown("an answer about another order")
        if status in WORKED_ON:
            return Accepted(number)
        cost = wire.amount(found.get("amount"))
        if status in DELIVERED:
            return _delivered(number, found.get("fulfillment"), _quantity(found), cost, manual_is_goods)
        return _without_cards(number, status, cost)
    except wire.Unreadable as error:
        return Unknown(f"unreadable answer: {error}")


def in_callback(found: Mapping[str, Any]) -> Outcome:
    """A verified callback. It says neither quantity nor amount, so a delivery is looked up, by the number that it names.

    Raises wire.Unreadable.
    """
    number, status = str(wire.whole(found, "order_id")), _status(found)
    if status in WORKED_ON or status in DELIVERED:
        return Accepted(number)
    return _without_cards(number, status, None)


def _read(answer: HttpAnswer) -> dict[str, Any]:
    if not answer.headers.get("content-type", "").startswith("application/json"):
        raise wire.Unreadable("not JSON by its content type")
    return wire.read_object(answer.body)


def _order(answer: HttpAnswer, found: Mapping[str, Any]) -> tuple[str, str]:
    """`(order id, status)` of an answer that says ok."""
    if answer.status != 200 or found.get("ok") is not True or found.get("error_code"):
        raise wire.Unreadable(f"HTTP {answer.status}, {_word(found.get('error_code'))}")
    number = wire.order_number(str(wire.whole(found, "order_id")))
    if number is None:
        raise wire.Unreadable("order_id")
    return number, _status(found)


def _status(found: Mapping[str, Any]) -> str:
    status = found.get("status")
    return status if isinstance(status, str) else ""


def _without_cards(number: str, status: str, paid: int | None) -> Outcome:
    """Statuses in which nothing (more) is delivered."""
    if status == CANCELED:
        return _CANCELED
    if status == REFUNDED:
        return Reversed(f"refunded-{number}", paid)
    if status in IN_PART:
        return Unknown(f"{status}: how much, only the shop can tell", needs_person=True)
    return Unknown(f"status {_word(status)}")


def _delivered(number: str, fulfillment: object, quantity: int, cost: int, manual_is_goods: bool) -> Outcome:
    """Goods of the shop's own stock are one card a line. What a person delivers is a text, and goods until an operator says that it is a note."""
    if not isinstance(fulfillment, dict) or fulfillment.get("status") != "delivered" or quantity < 1:
        return Unknown("delivered, without what was delivered")
    kind = fulfillment.get("type")
    if kind == MANUAL and (not manual_is_goods or not (fulfillment.get("payload") or fulfillment.get("delivery_data"))):
        return Delivered(quantity, cost, number)
    if kind not in (AUTO, MANUAL):
        return Unknown(f"fulfillment type {_word(kind)}")
    if kind == MANUAL and not fulfillment.get("payload"):
        return Unknown("delivered by hand in a form that is not read here", needs_person=True)
    lines = _lines(fulfillment)
    if kind == MANUAL and quantity == 1 and lines:
        lines = ["\n".join(lines)]  # an account and its password may stand on two lines
    if len(lines) != quantity:
        return Unknown("cards do not fit the quantity", needs_person=True)
    return Delivered(quantity, cost, number, codes=tuple(Code(line) for line in lines))


def _lines(fulfillment: Mapping[str, Any]) -> list[str]:
    payload = fulfillment.get("payload")
    if not isinstance(payload, str):
        raise wire.Unreadable("payload")
    return [line.strip() for line in payload.split("\n") if line.strip()]


def _quantity(found: Mapping[str, Any]) -> int:
    items = found.get("items")
    if not isinstance(items, list) or len(items) != 1 or not isinstance(items[0], dict):
        raise wire.Unreadable("items")
    return wire.whole(items[0], "quantity")


def _word(value: object) -> str:
    """An unlisted word of theirs, short and harmless enough for a log."""
    if isinstance(value, str) and value.isascii() and value.replace("_", "").isalnum():
        return value[:40]
    return "missing or odd"
