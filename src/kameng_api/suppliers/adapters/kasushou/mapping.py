"""What 卡速售's codes and states mean in ours. Pure, and total: whatever is not in these tables is Unknown."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from kameng_api.suppliers.adapters.kasushou import wire
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

OK: Final = 200
# The document's table of codes: 400 is "failed, msg says why", 500 is "unknown error" (and "after a timeout ask order/info").
FAILED: Final = 400
# 400 is also what a number that was used before is answered, and then there is an order. No text of the document says which it is, so only one
# that names a reason (REASONS), and nothing of an order, of repetition, of trouble on the way or of doubt, is a refusal.
DOUBTFUL: Final = (
    *("重复", "已存在", "已经存在", "订单", "单号", "已提交", "处理中", "查询", "超时", "未知", "异常"),
    *("错误", "稍后", "重试", "繁忙", "系统", "网络", "上游", "orderno", "ordersn"),
)
# What goods/info says of a number that is no product: the text is our reading, another one is no fact.
NO_SUCH_PRODUCT: Final = "商品不存在"
# First match; the texts are sites' own, a site with others gets Unknown.
REASONS: Final[tuple[tuple[str, RefusalReason], ...]] = (
    ("余额不足", RefusalReason.WALLET_EMPTY),
    ("预存款不足", RefusalReason.WALLET_EMPTY),
    ("库存不足", RefusalReason.OUT_OF_STOCK),
    ("高于安全价", RefusalReason.PRICE_EXCEEDED),
    ("已下架", RefusalReason.PRODUCT_OFF),
    ("已禁售", RefusalReason.PRODUCT_OFF),
    (NO_SUCH_PRODUCT, RefusalReason.PRODUCT_OFF),
)


def at_placing(answer: HttpAnswer, reference: str) -> Outcome:
    """The answer to a purchase. 200 means taken, never delivered: cards and results come with order/info."""
    try:
        found = _read(answer)
        code, order = found.get("code"), found.get("data")
        if _is(code, FAILED):
            return _refused(found.get("msg"), order)
        if not _is(code, OK) or not isinstance(order, dict):
            return Unknown(f"code {_word(code)}")
        if order.get("external_orderno") != reference:
            return Unknown("an answer about another order")
        number = wire.text(order, "ordersn")
        return Accepted(number[:128]) if number else Unknown("no order number")
    except wire.Unreadable as error:
        return Unknown(f"unreadable answer: {error}")


def _refused(msg: object, order: object) -> Outcome:
    if not isinstance(msg, str) or order or any(word in msg for word in DOUBTFUL):
        return Unknown("code 400 that may speak of an order which exists")
    reason = next((reason for word, reason in REASONS if word in msg), None)
    return Unknown("code 400 with a text that is not in the table") if reason is None else Refused(Scope.CHANNEL, reason, detail="code 400")


def at_look_up(answer: HttpAnswer, reference: str) -> Outcome:
    """The answer to order/info: a list, from which an order they do not know is missing."""
    try:
        found = _read(answer)
        rows = found.get("data")
        if not _is(found.get("code"), OK) or not isinstance(rows, list):
            return Unknown(f"code {_word(found.get('code'))}")
        if not rows:
            return NotFound()
        if len(rows) != 1 or not isinstance(rows[0], dict) or rows[0].get("external_orderno") != reference:
            return Unknown("an answer about another order, or about two")
        return _state(rows[0], _ROW)
    except wire.Unreadable as error:
        return Unknown(f"unreadable answer: {error}")


def number_in(answer: HttpAnswer, reference: str) -> str:
    """Their own number of the order in an answer of order/info; empty where it does not say. Raises wire.Unreadable."""
    rows = _read(answer).get("data")
    ours = [row for row in rows if isinstance(row, dict) and row.get("external_orderno") == reference] if isinstance(rows, list) else []
    return wire.text(ours[0], "ordersn") if len(ours) == 1 else ""


def at_cancel(answer: HttpAnswer) -> Outcome:
    """The answer to order/close: a request that was taken is no refund, the look-up tells (撤单不代表退款)."""
    try:
        code = _read(answer).get("code")
        return Accepted() if _is(code, OK) else Unknown(f"code {_word(code)}")
    except wire.Unreadable as error:
        return Unknown(f"unreadable answer: {error}")


def in_callback(fields: Mapping[str, Any]) -> Outcome:
    """What an order's verified callback says. Raises wire.Unreadable. It tells no quantity, and its cards are not signed."""
    return _state(fields, _NEWS)


def _state(order: Mapping[str, Any], states: "Mapping[str, Callable[[Mapping[str, Any]], Outcome]]") -> Outcome:
    status = order.get("status")
    read = states.get(status if type(status) is str else str(status)) if type(status) in (str, int) else None
    return Unknown(f"status {_word(status)}") if read is None else read(order)


def _done(order: Mapping[str, Any]) -> Outcome:
    """Status 3 of order/info. Money that went back makes it something else, whatever the status says."""
    cost, back = wire.amount(order.get("total_price")), wire.amount(order.get("has_back_money"))
    if back != 0:
        return Unknown("done, and a part was paid back", needs_person=True)
    number, cards, asked = wire.text(order, "ordersn")[:128] or None, _cards(order), order.get("recharge_info")
    if len(cards) > 1:
        return Unknown("more cards than one, and orders are for one unit", needs_person=True)
    if cards or (isinstance(asked, list) and asked):  # asked for: a top-up. Every order is for one unit: see wire.order_params
        return Delivered(1, cost, number, codes=cards)
    return Accepted(number)  # cards are fetched in their own time: done, and not yet there


def _told_done(fields: Mapping[str, Any]) -> Outcome:
    cost, back = wire.amount(fields.get("total_price")), wire.amount(fields.get("has_back_money"))
    if back != 0:
        return Unknown("done, and a part was paid back", needs_person=True)
    number = wire.text(fields, "ordersn")[:128] or None
    return Accepted(number) if fields.get("card_list") else Delivered(1, cost, number)


def _given_up(order: Mapping[str, Any]) -> Outcome:
    """Status 4 and 5: a failure only when all of the money is back."""
    cost, back = wire.amount(order.get("total_price")), wire.amount(order.get("has_back_money"))
    if back == 0 or cost <= 0:
        return Unknown("given up, and the money is not back")
    if back != cost:
        return Unknown("given up, and only a part was paid back", needs_person=True)
    return Refused(Scope.CHANNEL, RefusalReason.SUPPLIER_REJECTED, detail=f"status {wire.text(order, 'status')}")


def _taken_back(order: Mapping[str, Any]) -> Outcome:
    """Status 4 and 5 of order/info: with cards in it the order had been delivered before it was paid back."""
    outcome = _given_up(order)
    number = wire.text(order, "ordersn")[:120]
    if isinstance(outcome, Refused) and order.get("card_list"):
        return Reversed(f"{number}-5", wire.amount(order.get("has_back_money"))) if number else Unknown("a reversal without number")
    return outcome


def _waits(order: Mapping[str, Any]) -> Outcome:
    return Accepted(wire.text(order, "ordersn")[:128] or None)


_ROW: Final[Mapping[str, Callable[[Mapping[str, Any]], Outcome]]] = {
    "-1": lambda order: Unknown("not paid"),  # their wallet is empty; it may be paid yet
    "1": _waits,
    "2": _waits,
    "3": _done,
    "4": _taken_back,
    "5": _taken_back,
}
_NEWS: Final[Mapping[str, Callable[[Mapping[str, Any]], Outcome]]] = {"2": _waits, "3": _told_done, "4": _given_up, "5": _given_up}


def _cards(order: Mapping[str, Any]) -> tuple[Code, ...]:
    """Either half of a card may be empty; what is there alone is the code. Raises wire.Unreadable."""
    cards = order.get("card_list") or []
    if not isinstance(cards, list) or not all(isinstance(card, dict) for card in cards):
        raise wire.Unreadable("cards")
    found = []
    for card in cards:
        number, password = wire.text(card, "card_no"), wire.text(card, "card_password")
        if not (number or password):
            raise wire.Unreadable("an empty card")
        found.append(Code(number or password, password if number and password else None, wire.expiry(card.get("end_time"))))
    return tuple(found)


def _read(answer: HttpAnswer) -> dict[str, Any]:
    if answer.status != 200:
        raise wire.Unreadable(f"HTTP {answer.status}")
    return wire.read_object(answer.body)


def _is(value: object, number: int) -> bool:
    return type(value) is int and value == number


def _word(value: object) -> str:
    """An unlisted number of theirs, if it is harmless enough for a log."""
    return str(value)[:12] if type(value) is int else "missing or odd"
