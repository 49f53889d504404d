"""What 卡商网's words mean in ours. Pure, and total: whatever is not in these tables is Unknown.

Of the codes beside `ok` only `server_error` is known from public documents, and it is doubt. What else a platform has confirmed stands in the
channel's `refusal_codes`.
"""

from collections.abc import Mapping
from typing import Any, Final

from kameng_api.suppliers.adapters.kashangwl import wire
from kameng_api.suppliers.port import (
    Accepted,
    Code,
    Delivered,
    HttpAnswer,
    Outcome,
    Purchase,
    RefusalReason,
    Refused,
    Reversed,
    Scope,
    Unknown,
)

OK: Final = "ok"
WORKED_ON: Final = frozenset({100, 101})  # waiting, charging
DELIVERED: Final = 200
FAILED: Final = 500
NOT_KNOWN: Final = 501  # "unknown state" in the vendor's own words
# product_type: what it sells. 4 is done by a person.
TYPES: Final[Mapping[int, str]] = {1: "topup", 2: "card", 3: "voucher", 4: "topup"}

_FAILED: Final = Refused(Scope.CHANNEL, RefusalReason.SUPPLIER_REJECTED, "state 500")
Refusals = Mapping[str, RefusalReason]


def at_placing(answer: HttpAnswer, purchase: Purchase, refusals: Refusals) -> Outcome:
    """The answer to `/api/buy`. It does not repeat our number; where it does, it must be ours."""
    try:
        found = _read(answer)
        code = found.get("code")
        if isinstance(code, str) and code in refusals:
            return Refused(Scope.CHANNEL, refusals[code], _word(code))
        order = _data(found)
        if order.get("outer_order_id", purchase.reference) != purchase.reference:
            return Unknown("an answer about another order")
        return _state(order, "order_id", purchase.units, cards_due=purchase.product_type != "topup")
    except wire.Unreadable as error:
        return Unknown(f"unreadable answer: {error}")


def at_look_up(answer: HttpAnswer, reference: str) -> Outcome:
    """The answer to `/api/outer-order`. Only the order in it speaks: no code is documented for "not found"."""
    try:
        order = _data(_read(answer))
        if order.get("outer_order_id") != reference:
            return Unknown("an answer about another order")
        kind = TYPES.get(wire.whole(order.get("product_type")))
        if kind is None:
            return Unknown("a product of no known type")
        return _state(order, "id", wire.whole(order.get("quantity")), cards_due=kind != "topup")
    except wire.Unreadable as error:
        return Unknown(f"unreadable answer: {error}")


def in_callback(params: Mapping[str, wire.Value]) -> Outcome:
    """A verified callback: a hint, without cards and amounts. Raises wire.Unreadable."""
    state, number = wire.whole(params.get("state")), wire.number_text(params.get("order_id"))
    if state in WORKED_ON:
        return Accepted(number)
    if state == DELIVERED:
        return Delivered(wire.whole(params.get("quantity")), supplier_order_no=number)
    return _FAILED if state == FAILED else _no_verdict(state)


def _read(answer: HttpAnswer) -> dict[str, Any]:
    if answer.status != 200:
        raise wire.Unreadable(f"HTTP {answer.status}")
    if not answer.headers.get("content-type", "").startswith("application/json"):
        raise wire.Unreadable("not JSON by its content type")
    return wire.read_object(answer.body)


def _data(found: Mapping[str, Any]) -> dict[str, Any]:
    data = found.get("data")
    if found.get("code") != OK or not isinstance(data, dict):
        raise wire.Unreadable(f"code {_word(found.get('code'))}")
    return data


def _state(order: Mapping[str, Any], number_name: str, units: int, *, cards_due: bool) -> Outcome:
    state, number = wire.whole(order.get("state")), wire.number_text(order.get(number_name))
    if state in WORKED_ON:
        return Accepted(number)
    if state == FAILED:
        return _FAILED
    if state != DELIVERED:
        return _no_verdict(state)
    cost, refunded = wire.amount(order.get("total_price")), wire.amount(order.get("refunded_amount") or 0)
    if refunded:
        if refunded < cost or number is None:
            return Unknown("paid back in part: how much was delivered, only they can tell", needs_person=True)
        return Reversed(f"refund-{number}", refunded)
    cards = _cards(order) if cards_due else ()
    if cards_due and len(cards) != units:
        return Unknown("cards do not fit the units")
    if units < 1:
        return Unknown("delivered, and no units")
    return Delivered(units, cost, number, codes=cards)


def _no_verdict(state: int) -> Unknown:
    return Unknown("state 501, unknown in their own words" if state == NOT_KNOWN else f"state {state if 0 <= state < 10_000 else 'odd'}")


def _cards(order: Mapping[str, Any]) -> tuple[Code, ...]:
    """Cards (卡密) are a number and a password, vouchers (卡券) a number and a ticket; one of the two may be empty."""
    found = []
    for row in order.get("cards") or order.get("tickets") or ():
        if not isinstance(row, dict):
            raise wire.Unreadable("cards")
        number, secret = _text(row.get("card_no") or row.get("no")), _text(row.get("card_password") or row.get("password") or row.get("ticket"))
        code = number or secret
        if code is None:
            raise wire.Unreadable("an empty card")
        found.append(Code(code, secret if number else None))
    return tuple(found)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _word(value: object) -> str:
    """An unlisted word of theirs, short and harmless enough for a log."""
    if isinstance(value, str) and value.isascii() and value.replace("_", "").isalnum():
        return value[:40]
    return "missing or odd"
