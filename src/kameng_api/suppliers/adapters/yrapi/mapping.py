"""What 大猿人's numbers and texts mean in ours. Pure, and total: whatever is not in these tables is Unknown."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from kameng_api.suppliers.adapters.yrapi import wire
from kameng_api.suppliers.port import (
    Accepted,
    Code,
    Delivered,
    HttpAnswer,
    NotFound,
    Outcome,
    RefusalReason,
    Refused,
    Scope,
    Unknown,
)

# errno 1 says "failed" of everything, a repeated number included, of which an order exists. Only these texts say that no order was entered:
# the server gives them before it writes one (document: "提单驳回"; texts: source of 2024-06-04). A site with other texts gets Unknown.
REFUSALS: Final[Mapping[str, tuple[Scope, RefusalReason]]] = {
    "未找到相关产品(产品ID不正确或已下架)": (Scope.CHANNEL, RefusalReason.PRODUCT_OFF),
    "要充值的产品还没有准备好，请联系平台！": (Scope.CHANNEL, RefusalReason.PRODUCT_OFF),
    "成本限制，提单不通过！": (Scope.CHANNEL, RefusalReason.PRICE_EXCEEDED),
    "面值检测不相同，提单不通过！": (Scope.CHANNEL, RefusalReason.SUPPLIER_REJECTED),
    "该号码无法充值-黑名单": (Scope.CHANNEL, RefusalReason.TARGET_NOT_ELIGIBLE),  # their own list
    "请不要同时在多个分类下单!": (Scope.CHANNEL, RefusalReason.TARGET_NOT_ELIGIBLE),
    "手机号格式不正确": (Scope.CHANNEL, RefusalReason.TARGET_INVALID),  # not eleven digits: it may be an account to somebody else
    "请选择电费地区！": (Scope.CHANNEL, RefusalReason.SUPPLIER_REJECTED),
    "不支持的电费地区！": (Scope.CHANNEL, RefusalReason.TARGET_NOT_ELIGIBLE),
    "电费充值请选择地级市！": (Scope.CHANNEL, RefusalReason.SUPPLIER_REJECTED),
    "电费充值身份证/银行卡/营业执照后六位必填！": (Scope.CHANNEL, RefusalReason.SUPPLIER_REJECTED),
    "电费充值身份证/银行卡/营业执照后六位不正确！": (Scope.CHANNEL, RefusalReason.TARGET_INVALID),
}


def at_placing(answer: HttpAnswer, reference: str) -> Outcome:
    """The answer to a purchase. errno 0 means entered, not paid: the wallet is charged later."""
    try:
        found = _read(answer)
        errno, order = found.get("errno"), found.get("data")
        if _is(errno, 1):
            return _refused(found.get("errmsg"))
        if not _is(errno, 0) or not isinstance(order, dict):
            return Unknown(f"errno {_word(errno)}")
        if order.get("out_trade_num") != reference:
            return Unknown("an answer about another order")
        number = _text(order, "order_number")
        return Accepted(number) if number else Unknown("no order number")
    except wire.Unreadable as error:
        return Unknown(f"unreadable answer: {error}")


def _refused(text: object) -> Outcome:
    verdict = REFUSALS.get(text) if isinstance(text, str) else None
    return Unknown("errno 1 with a text that is not in the table") if verdict is None else Refused(*verdict, detail="errno 1")


def at_look_up(answer: HttpAnswer, reference: str) -> Outcome:
    """The answer to a look-up: a list from which an order they do not know is simply missing."""
    try:
        found = _read(answer)
        rows = found.get("data")
        if not _is(found.get("errno"), 0) or not isinstance(rows, list):
            return Unknown(f"errno {_word(found.get('errno'))}")
        if not rows:
            return NotFound()
        if len(rows) != 1 or not isinstance(rows[0], dict) or rows[0].get("out_trade_num") != reference:
            return Unknown("an answer about another order, or about two")
        return of_order(rows[0])
    except wire.Unreadable as error:
        return Unknown(f"unreadable answer: {error}")


def at_cancel(answer: HttpAnswer, reference: str) -> Outcome:
    """The answer to 申请撤单: errno 0 with our number says that the request was taken; the look-up tells what became of it."""
    try:
        found = _read(answer)
        rows = found.get("data")
        if not _is(found.get("errno"), 0) or not isinstance(rows, list) or len(rows) != 1:
            return Unknown(f"errno {_word(found.get('errno'))}")
        named = isinstance(rows[0], dict) and rows[0].get("out_trade_num") == reference
        return Accepted() if named else Unknown("an answer about another order")
    except wire.Unreadable as error:
        return Unknown(f"unreadable answer: {error}")


def of_order(order: Mapping[str, Any]) -> Outcome:
    """What an order says of itself, in a look-up (numbers) or in a callback (their digits)."""
    state = order.get("state")
    read = _STATES.get(str(state)) if isinstance(state, str | int) and not isinstance(state, bool) else None
    return Unknown(f"state {_word(state)}") if read is None else read(order)


def _delivered(order: Mapping[str, Any]) -> Outcome:
    """`charge_kami` is a card in some shops and a serial number in others: whole and sealed, as a card is."""
    kami = order.get("charge_kami")
    if not isinstance(kami, str | int | None) or isinstance(kami, bool):
        return Unknown("delivered, with an odd charge_kami")
    card = str(kami or "").strip()
    codes = (Code(card),) if card else ()
    return Delivered(units=1, supplier_order_no=_text(order, "order_number"), receipt=_text(order, "voucher"), codes=codes)


def _failed(order: Mapping[str, Any]) -> Outcome:
    return Refused(Scope.CHANNEL, RefusalReason.SUPPLIER_REJECTED, detail=f"state {order['state']}")


def _accepted(order: Mapping[str, Any]) -> Outcome:
    return Accepted(_text(order, "order_number"))


_STATES: Final[Mapping[str, Callable[[Mapping[str, Any]], Outcome]]] = {
    "0": _accepted,  # also before it is paid, and whenever they do not know themselves
    "1": _delivered,
    "2": _failed,
    "-1": _failed,  # cancelled, also because our wallet did not cover it
    # A part of the face value has reached the number; the rest was paid back. One unit cannot be delivered in part.
    "3": lambda order: Unknown("a part of the face value was delivered", needs_person=True),
}


def _read(answer: HttpAnswer) -> dict[str, Any]:
    if answer.status != 200:
        raise wire.Unreadable(f"HTTP {answer.status}")
    return wire.read_object(answer.body)


def _is(value: object, number: int) -> bool:
    return type(value) is int and value == number


def _text(order: Mapping[str, Any], name: str) -> str | None:
    value = order.get(name)
    return value[:128] if isinstance(value, str) and value else None


def _word(value: object) -> str:
    """An unlisted number of theirs, if it is harmless enough for a log."""
    return str(value)[:12] if type(value) is int else "missing or odd"
