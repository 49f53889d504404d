"""What 卡卡云's words mean in ours. Pure, and total: whatever is not in these tables is Unknown.

Source: the vendor's document, 全局结果代码说明, 订单状态结果码说明 and 订单查询接口 (copy of 2026-04-14).
"""

from collections.abc import Mapping
from typing import Any, Final

from kameng_api.suppliers.adapters.kakayun import wire
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

OK: Final = 1
# At placing, in an answer that is JSON: "code other than 1 and 9999 is a failure and may be refunded".
REFUSALS: Final[Mapping[int, RefusalReason]] = {
    **dict.fromkeys((401, 402, 403, 1000, 1001, 1002, 1200, 1201, 1202, 1203, 1204, 1208, 1212), RefusalReason.SUPPLIER_REJECTED),
    **dict.fromkeys((1206, 1207, 1209, 1214), RefusalReason.PRODUCT_OFF),
    1210: RefusalReason.PRICE_EXCEEDED,
    1211: RefusalReason.TARGET_INVALID,
    1213: RefusalReason.WALLET_EMPTY,
}
# 404 is "asked too often", among the same failures.
BUSY: Final = 404
# Doubt, though the document calls them failures: 9999 is to be verified by hand, 1205 says that an order has this number, -1 says nothing.
DOUBT: Final = frozenset({9999, 1205, -1})
NO_SUCH_ORDER: Final = 1301
GONE: Final = frozenset({1206, 1214})

WORKED_ON: Final = 3
FAILED: Final = 4
DELIVERED: Final = 5
# 0 paid, 1 "ended for cards, paid for top-ups", 2 "not paid (failed)": the document and its clients disagree, so they are doubt.

# refundstatus
NOTHING_BACK: Final = 0
ALL_BACK: Final = frozenset({1, 4})  # in full; by the way it came
PART_BACK: Final = 2
ONLY_MARKED: Final = 3  # marked as refunded, no money moved


def at_placing(answer: HttpAnswer, reference: str) -> Outcome:
    """The answer to `order/create`. It names both numbers and no state."""
    try:
        found = _read(answer)
        code = wire.whole(found.get("code"))
        if code == BUSY:
            return NotSent("asked too often", Cause.BUSY)
        if code in REFUSALS:
            return Refused(Scope.CHANNEL, REFUSALS[code], f"code {code}")
        if code != OK:
            return Unknown(f"code {code if abs(code) < 100_000 else 'odd'}")
        order = _order(found, reference)
    except wire.Unreadable as error:
        return Unknown(f"unreadable answer: {error}")
    return Accepted(_text(order.get("orderno")))


def at_look_up(answer: HttpAnswer, reference: str) -> Outcome:
    """The answer to `order/get`. "No such order" (1301) is also said of orders older than 30 days."""
    try:
        found = _read(answer)
        code = wire.whole(found.get("code"))
        if code == NO_SUCH_ORDER:
            return NotFound()
        return state(_order(found, reference)) if code == OK else Unknown(f"code {code if abs(code) < 100_000 else 'odd'}")
    except wire.Unreadable as error:
        return Unknown(f"unreadable answer: {error}")


def at_cancelling(answer: HttpAnswer) -> Outcome:
    """The answer to `order/cancelOrder`, which is an application for a refund: what became of the order, a look-up tells."""
    try:
        return Accepted() if wire.whole(_read(answer).get("code")) == OK else Unknown("not cancelled")
    except wire.Unreadable as error:
        return Unknown(f"unreadable answer: {error}")


def state(order: Mapping[str, Any]) -> Outcome:
    """An order as a look-up or a callback tells it: two words, one about the goods and one about the money. Raises wire.Unreadable."""
    status, number = wire.whole(order.get("status")), _text(order.get("orderno"))
    if status == WORKED_ON:
        return Accepted(number)
    if status not in (FAILED, DELIVERED):
        return Unknown(f"status {status if 0 <= status < 1000 else 'odd'}")
    back = wire.whole(order.get("refundstatus"))
    money, refunded = wire.amount(order.get("money")), wire.amount(order.get("refundmoney"))
    all_back = back in ALL_BACK and refunded == money
    if status == FAILED:
        if all_back:
            return Refused(Scope.CHANNEL, RefusalReason.SUPPLIER_REJECTED, "status 4, paid back")
        return Unknown(f"failed, and not paid back in full (refundstatus {back})", needs_person=back in (PART_BACK, ONLY_MARKED))
    if all_back and number is not None:
        return Reversed(f"refund-{number}", refunded)
    return _delivered(order, number, back, money, refunded)


def _delivered(order: Mapping[str, Any], number: str | None, back: int, money: int, refunded: int) -> Outcome:
    codes = _codes(order)
    units = len(codes) if order.get("buynum") is None else wire.whole(order.get("buynum"))
    if units < 1:  # a callback about a top-up: the document tells no quantity there
        return Unknown("delivered, and not how many: a look-up tells")
    if back == NOTHING_BACK and not refunded and (not codes or len(codes) == units):
        return Delivered(units, money, number, receipt=_receipt(order), codes=codes)
    if back == PART_BACK and 0 < len(codes) < units and money * len(codes) == (money - refunded) * units:
        return Delivered(len(codes), money - refunded, number, receipt=_receipt(order), codes=codes)
    return Unknown(f"delivered, with a refund or cards that do not fit (refundstatus {back})", needs_person=True)


def _codes(order: Mapping[str, Any]) -> tuple[Code, ...]:
    """`cards` since 2025-09-07; before that `cardlist`, lines of text that may end in a carriage return."""
    rows, lines = order.get("cards") or [], order.get("cardlist") or []
    if not isinstance(rows, list) or not isinstance(lines, list):
        raise wire.Unreadable("cards")
    if not rows:
        return tuple(Code(line.strip()) for line in lines if isinstance(line, str) and line.strip())
    found = []
    for row in rows:
        number, secret = (str(row.get(name) or "").strip() if isinstance(row, dict) else "" for name in ("card_no", "card_pwd"))
        if not (number or secret):
            raise wire.Unreadable("an empty card")
        found.append(Code(number or secret, secret if number and secret else None, wire.day_of(row.get("card_expire_at"))))
    return tuple(found)


def _read(answer: HttpAnswer) -> dict[str, Any]:
    if answer.status != 200:
        raise wire.Unreadable(f"HTTP {answer.status}")
    if not answer.headers.get("content-type", "").startswith("application/json"):
        raise wire.Unreadable("not JSON by its content type")
    return wire.read_object(answer.body)


def _order(found: Mapping[str, Any], reference: str) -> dict[str, Any]:
    order = found.get("data")
    if not isinstance(order, dict) or order.get("usorderno") != reference:
        raise wire.Unreadable("no order, or another one")
    return order


def _receipt(order: Mapping[str, Any]) -> str | None:
    text = _text(order.get("receipt"))
    return text[:128] if text else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
