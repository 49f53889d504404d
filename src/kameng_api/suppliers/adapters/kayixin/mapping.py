"""What 卡易信's codes and states mean in ours. Pure, and total: whatever is not in these tables is Unknown."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from kameng_api.suppliers.adapters.kayixin import wire
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

OK: Final = 1000
# "1000 is the only success, every other code is a failure, msg says why." A repeated number is such a failure too, and then an order exists:
# only a text that names one of these reasons, and none of the doubtful words, is a refusal.
REASONS: Final[tuple[tuple[str, RefusalReason], ...]] = (
    ("高于安全价", RefusalReason.PRICE_EXCEEDED),
    ("余额不足", RefusalReason.WALLET_EMPTY),
    ("库存不足", RefusalReason.OUT_OF_STOCK),
    ("已下架", RefusalReason.PRODUCT_OFF),
    ("已禁售", RefusalReason.PRODUCT_OFF),
    ("商品不存在", RefusalReason.PRODUCT_OFF),
)
DOUBTFUL: Final = (
    *("重复", "已存在", "已经存在", "单号", "订单", "已提交", "处理中", "查询", "超时", "未知", "异常"),
    *("错误", "稍后", "重试", "繁忙", "系统", "网络", "上游"),
)
NOT_FOUND: Final = (2404, "订单不存在")  # 2404 is also said of products and users
NO_SUCH_PRODUCT: Final = (2404, "商品不存在")
VOID: Final = frozenset({"2", "4"})  # a card that was voided, or is being voided


def at_placing(answer: HttpAnswer, units: int) -> Outcome:
    """The answer to a purchase of `units`. Cards may come at once; anything else is told later."""
    try:
        found = _read(answer)
        code, order = found.get("code"), found.get("data")
        if not _is(code, OK):
            return _refused(code, found.get("msg"), order)
        if not isinstance(order, dict) or not wire.text(order, "orderNumber"):
            return Unknown("no order number")
        number, cards = wire.text(order, "orderNumber")[:128], _cards(order.get("cards"))
        if not cards:
            return Accepted(number)
        return Delivered(units, None, number, codes=cards) if len(cards) == units else Unknown("cards do not fit the units")
    except wire.Unreadable as error:
        return Unknown(f"unreadable answer: {error}")


def _refused(code: object, msg: object, order: object) -> Outcome:
    if type(code) is int and isinstance(msg, str) and not order and not any(word in msg for word in DOUBTFUL):
        for word, reason in REASONS:
            if word in msg:
                return Refused(Scope.CHANNEL, reason, detail=f"code {_word(code)}")
    return Unknown(f"code {_word(code)} with a text that is not in the table")


def at_look_up(answer: HttpAnswer, reference: str) -> Outcome:
    """The answer to order/getDetail."""
    try:
        found = _read(answer)
        code, order = found.get("code"), found.get("data")
        if says(found, NOT_FOUND):
            return NotFound()
        if not _is(code, OK) or not isinstance(order, dict):
            return Unknown(f"code {_word(code)}")
        if order.get("outerNumber") != reference:
            return Unknown("an answer about another order")
        return _state(order, _cards(order.get("cards")), wire.number(order, "count"))
    except wire.Unreadable as error:
        return Unknown(f"unreadable answer: {error}")


def at_cancel(answer: HttpAnswer) -> Outcome:
    """The answer to order/refunds: 4 is final (all is paid back); 5 says nothing of the amount, 8 and 9 are under way: the look-up tells."""
    try:
        found = _read(answer)
        order = found.get("data")
        if not _is(found.get("code"), OK) or not isinstance(order, dict):
            return Unknown(f"code {_word(found.get('code'))}")
        return _CANCELLED.get(wire.text(order, "status"), Unknown("a status that is not in the table"))
    except wire.Unreadable as error:
        return Unknown(f"unreadable answer: {error}")


def in_callback(order: Mapping[str, Any], secret: str) -> Outcome:
    """What a verified callback says; it does not tell how many were asked for. Raises wire.Unreadable."""
    sealed = order.get("cards") or ""
    if not isinstance(sealed, str):
        raise wire.Unreadable("cards")
    cards = _cards(wire.decrypt_cards(secret, sealed)) if sealed else ()
    return _state(order, cards, len(cards) or 1)


def _state(order: Mapping[str, Any], cards: tuple[Code, ...], count: int) -> Outcome:
    status = order.get("status")
    read = _STATUSES.get(status if type(status) is str else str(status)) if type(status) in (str, int) else None
    return Unknown(f"status {_word(status)}") if read is None else read(order, cards, count)


def _done(order: Mapping[str, Any], cards: tuple[Code, ...], count: int) -> Outcome:
    """3, and 9: done, and somebody wants the money back. Money that went back already makes it something else."""
    money, back = wire.amount(order.get("money")), wire.amount(order.get("retMoney"))
    if back != 0:
        return Unknown("done, and a part was paid back", needs_person=True)
    if count < 1 or (cards and len(cards) != count):
        return Unknown("cards do not fit the units")
    return Delivered(count, money, wire.text(order, "orderNumber")[:128] or None, codes=cards)


def _withdrawn(order: Mapping[str, Any], cards: tuple[Code, ...], count: int) -> Outcome:
    """4: withdrawn before it was done, paid back in full by definition."""
    money, back = wire.amount(order.get("money")), wire.amount(order.get("retMoney"))
    if 0 < back < money:
        return Unknown("withdrawn, and only a part was paid back", needs_person=True)
    return Refused(Scope.CHANNEL, RefusalReason.SUPPLIER_REJECTED, detail="status 4")


def _paid_back(order: Mapping[str, Any], cards: tuple[Code, ...], count: int) -> Outcome:
    """5 comes after 3 only: a delivery that was taken back. `retMoney` is none, a part, or all of it, and grows with every further part."""
    money, back = wire.amount(order.get("money")), wire.amount(order.get("retMoney"))
    number = wire.text(order, "orderNumber")[:120]
    if 0 < money == back and number:
        return Reversed(f"{number}-5", back)
    return Unknown("done, and not all of it was paid back", needs_person=True)


def _waits(order: Mapping[str, Any], cards: tuple[Code, ...], count: int) -> Outcome:
    return Accepted(wire.text(order, "orderNumber")[:128] or None)


_STATUSES: Final[Mapping[str, Callable[[Mapping[str, Any], tuple[Code, ...], int], Outcome]]] = {
    "0": lambda order, cards, count: Unknown("not paid"),
    "1": _waits,
    "2": _waits,
    "3": _done,
    "4": _withdrawn,
    "5": _paid_back,
    "7": _waits,  # 待同步
    "8": _waits,  # 退单中: may still be done
    "9": _done,
}
_CANCELLED: Final[Mapping[str, Outcome]] = {
    "4": Refused(Scope.CHANNEL, RefusalReason.SUPPLIER_REJECTED, detail="status 4"),
    "5": Accepted(),
    "8": Accepted(),
    "9": Accepted(),
}


def _cards(cards: object) -> tuple[Code, ...]:
    """Either half of a card may be empty; what is there alone is the code. Raises wire.Unreadable, also for a card that is void."""
    if not cards:
        return ()
    if not isinstance(cards, list) or not all(isinstance(card, dict) for card in cards):
        raise wire.Unreadable("cards")
    found = []
    for card in cards:
        code, password = wire.text(card, "cardNo"), wire.text(card, "cardPwd")
        if not (code or password) or wire.text(card, "status") in VOID:
            raise wire.Unreadable("a card is empty or void")
        found.append(Code(code or password, password if code and password else None))
    return tuple(found)


def says(found: Mapping[str, Any], words: tuple[int, str]) -> bool:
    """Whether an answer is this code with this text in its `msg`."""
    return _is(found.get("code"), words[0]) and words[1] in wire.text(found, "msg")


def _read(answer: HttpAnswer) -> dict[str, Any]:
    if answer.status != 200:
        raise wire.Unreadable(f"HTTP {answer.status}")
    return wire.read_object(answer.body)


def _is(value: object, number: int) -> bool:
    return type(value) is int and value == number


def _word(value: object) -> str:
    """An unlisted number of theirs, if it is harmless enough for a log."""
    return str(value)[:12] if type(value) is int else "missing or odd"
