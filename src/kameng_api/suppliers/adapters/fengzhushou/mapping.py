"""What 蜂助手's codes mean in ours. Pure, and total: whatever is not in these tables is Unknown."""

from collections.abc import Mapping
from typing import Any, Final

from kameng_api.suppliers.adapters.fengzhushou import wire
from kameng_api.suppliers.port import (
    Accepted,
    Delivered,
    HttpAnswer,
    NotFound,
    Outcome,
    RefusalReason,
    Refused,
    Scope,
    Unknown,
)

WORKED_ON: Final = 0
DELIVERED: Final = 1
NO_SUCH_ORDER: Final = 3000  # also said right after an order was taken
# 9999 is "internal error, to be confirmed"; 102, 103, 107, 400 and 1000 are errors of the request whose reach no public text tells.
REFUSALS: Final[Mapping[int, RefusalReason]] = {
    2000: RefusalReason.PRODUCT_OFF,
    3100: RefusalReason.TARGET_NOT_ELIGIBLE,  # this account may not buy this product: another channel's may
    3104: RefusalReason.PRICE_EXCEEDED,
    3999: RefusalReason.SUPPLIER_REJECTED,  # the order could not be made
    4001: RefusalReason.SUPPLIER_REJECTED,  # our wallet could not be charged
    4002: RefusalReason.WALLET_EMPTY,
}
FAILED: Final = 9


def at_placing(answer: HttpAnswer, reference: str) -> Outcome:
    """The answer to `sendgoods`: 0 takes the order, and says nothing of its end."""
    try:
        code, data = _read(answer, reference)
    except wire.Unreadable as error:
        return Unknown(f"unreadable answer: {error}")
    if code == WORKED_ON:
        return Accepted(_text(data.get("orderNo")))
    return _refused(code)


def at_look_up(answer: HttpAnswer, reference: str) -> Outcome:
    """The answer to `queryorder`. Its `retcode` is a state only beside our order: alone it may as well be about the question itself.

    A `status` beside it must agree.
    """
    try:
        code, data = _read(answer, reference)
        if code == NO_SUCH_ORDER:
            return NotFound()
        if data.get("channelOrderNo") != reference:
            return Unknown("an answer that names no order")
        if data.get("status") is not None and wire.whole(data["status"]) != code:
            return Unknown("two states in one answer")
        price = None if data.get("skuPrice") in (None, "") else wire.amount(data["skuPrice"])
    except wire.Unreadable as error:
        return Unknown(f"unreadable answer: {error}")
    return _state(code, _text(data.get("orderNo")), price)


def in_callback(found: Mapping[str, wire.Value | None]) -> Outcome:
    """A verified callback: state and numbers, no card and no price. Raises wire.Unreadable."""
    return _state(wire.whole(found.get("retcode")), _text(found.get("orderNo")), None)


def _state(code: int, number: str | None, price: int | None) -> Outcome:
    if code == WORKED_ON:
        return Accepted(number)
    if code == DELIVERED:
        return Delivered(1, price, number)  # only single units are ever bought: see wire.order_params
    if code == FAILED:
        return Refused(Scope.CHANNEL, RefusalReason.SUPPLIER_REJECTED, "state 9")
    return _refused(code)


def _refused(code: int) -> Outcome:
    reason = REFUSALS.get(code)
    if reason is None:
        return Unknown(f"code {code if abs(code) < 100_000 else 'odd'}")
    return Refused(Scope.CHANNEL, reason, f"code {code}")


def _read(answer: HttpAnswer, reference: str) -> tuple[int, dict[str, Any]]:
    if answer.status != 200:
        raise wire.Unreadable(f"HTTP {answer.status}")
    if not answer.headers.get("content-type", "").startswith("application/json"):
        raise wire.Unreadable("not JSON by its content type")
    found = wire.read_object(answer.body)
    data = found.get("data") or {}
    if not isinstance(data, dict) or data.get("channelOrderNo", reference) != reference:
        raise wire.Unreadable("an answer about another order")
    return wire.whole(found.get("retcode")), data


def _text(value: object) -> str | None:
    return value[:128] if isinstance(value, str) and value else None
