"""What 福禄's codes and states mean in ours. Pure, and total: whatever is not in these tables is Unknown."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from kameng_api.suppliers.adapters.fulu import wire
from kameng_api.suppliers.port import (
    Accepted,
    Code,
    Delivered,
    HttpAnswer,
    Outcome,
    Purchase,
    RefusalReason,
    Refused,
    Scope,
    Unknown,
)

OK: Final = 0
# What the error codes mean is not in any document read here; clients try another product on 3001-3005 and 3008. So none of them is a refusal
# unless the operator has it confirmed (settings.refusal_codes), and a text that speaks of an order, of repetition or of doubt never makes one.
CONFIRMED_NEVER: Final = (
    *("重复", "已存在", "已经存在", "单号", "订单", "已提交", "处理中", "查询", "超时", "未知", "异常"),
    *("错误", "稍后", "重试", "繁忙", "系统", "网络", "上游"),
)
NO_SUCH_PRODUCT: Final = "商品不存在"
MOBILE_TYPES: Final = frozenset({"1", "2"})  # 话费, 流量: one order is one unit, whatever buy_num counts
CARD_TYPE: Final = "3"
DIRECT_TYPE: Final = "4"

Refusals = Mapping[int, RefusalReason]


class Unsigned(wire.Unreadable):
    """An answer whose result is not signed with our secret."""


def at_placing(answer: HttpAnswer, purchase: Purchase, secret: str, confirmed: Refusals) -> Outcome:
    """The answer to a purchase. Taken is not charged and not delivered: the look-up is compulsory. Failed at once is final."""
    try:
        found = _read(answer)
        code = found.get("code")
        doubtful = bool(found.get("result")) or any(word in wire.text(found, "message") for word in CONFIRMED_NEVER)
        if type(code) is int and code in confirmed and not doubtful:
            return Refused(Scope.CHANNEL, confirmed[code], detail=f"code {code}")
        order = _result(found, secret)
        if order is None:
            return Unknown(f"code {_word(code)}")
        if not _is_ours(order, purchase):
            return Unknown("an answer about another order")
        return _AT_PLACING.get(wire.text(order, "order_state"), _odd)(order)
    except wire.Unreadable as error:
        return Unknown(f"unreadable answer: {error}")


def _is_ours(order: Mapping[str, Any], purchase: Purchase) -> bool:
    """Number, account and quantity: their signature cannot tell two quantities made of the same digits apart, the answer can."""
    account, units = wire.text(order, "charge_account"), wire.text(order, "buy_num")
    mobile = wire.text(order, "order_type") in MOBILE_TYPES
    return (
        order.get("customer_order_no") == purchase.reference
        and account in ("", purchase.target or "")
        and (mobile or units in ("", str(purchase.units)))
    )


def at_look_up(answer: HttpAnswer, reference: str, secret: str) -> Outcome:
    """The answer to fulu.order.info.get. No code is known to say "not found"."""
    try:
        found = _read(answer)
        order = _result(found, secret)
        if order is None:
            return Unknown(f"code {_word(found.get('code'))}")
        if order.get("customer_order_no") != reference:
            return Unknown("an answer about another order")
        if wire.text(order, "order_state") == "success":
            return _delivered(order, secret)
        return _WAITING_OR_FAILED.get(wire.text(order, "order_state"), _odd)(order)
    except wire.Unreadable as error:
        return Unknown(f"unreadable answer: {error}")


def in_callback(fields: Mapping[str, Any]) -> Outcome:
    """What a verified callback says: success or failed, never a card. Raises wire.Unreadable."""
    status = wire.text(fields, "order_status")
    if status == "success":
        return _charged(fields, wire.number(fields, "buy_num"), "price")
    return _failed(fields) if status == "failed" else _odd(fields)


def _delivered(order: Mapping[str, Any], secret: str) -> Outcome:
    kind, units = wire.text(order, "order_type"), wire.number(order, "buy_num")
    if kind in MOBILE_TYPES:
        return _charged(order, 1, "order_price", times=units)
    if kind == DIRECT_TYPE:
        return _charged(order, units, "order_price")
    if kind != CARD_TYPE:
        return Unknown(f"order type {_word(order.get('order_type'))}")
    codes = _codes(order, secret)
    return _charged(order, units, "order_price", codes=codes) if len(codes) == units else Unknown("cards do not fit the units")


def _charged(order: Mapping[str, Any], units: int, price: str, *, times: int | None = None, codes: tuple[Code, ...] = ()) -> Outcome:
    """Their price is for one (交易单价)."""
    if units < 1 or (times is not None and times < 1):
        return Unknown("a quantity that cannot be")
    return Delivered(
        units=units,
        cost=wire.amount(order.get(price)) * (units if times is None else times),
        supplier_order_no=wire.text(order, "order_id")[:128] or None,
        receipt=wire.text(order, "operator_serial_number")[:128] or None,
        codes=codes,
    )


def _codes(order: Mapping[str, Any], secret: str) -> tuple[Code, ...]:
    cards = order.get("cards") or []
    if not isinstance(cards, list) or not all(isinstance(card, dict) for card in cards):
        raise wire.Unreadable("cards")
    found = []
    for card in cards:
        number, password = (wire.decrypt(secret, sealed) if (sealed := wire.text(card, name)) else "" for name in ("card_number", "card_pwd"))
        if not (number or password):
            raise wire.Unreadable("an empty card")
        found.append(Code(number or password, password if number and password else None, wire.expiry(card.get("card_deadline"))))
    return tuple(found)


def _accepted(order: Mapping[str, Any]) -> Outcome:
    return Accepted(wire.text(order, "order_id")[:128] or None)


def _failed(order: Mapping[str, Any]) -> Outcome:
    return Refused(Scope.CHANNEL, RefusalReason.SUPPLIER_REJECTED, detail="failed")


def _odd(order: Mapping[str, Any]) -> Outcome:
    return Unknown("a state that is not in the table")


_WAITING_OR_FAILED: Final[Mapping[str, Callable[[Mapping[str, Any]], Outcome]]] = {
    "processing": _accepted,
    "untreated": _accepted,
    "failed": _failed,
}
_AT_PLACING: Final[Mapping[str, Callable[[Mapping[str, Any]], Outcome]]] = {**_WAITING_OR_FAILED, "success": _accepted}


def result_of(answer: HttpAnswer, secret: str) -> Any:
    """What an answer holds, verified; None when its code is no success. Raises wire.Unreadable."""
    return _result(_read(answer), secret, whole=True)


def says_absent(answer: HttpAnswer) -> bool:
    """Whether an answer says that there is no such product: the text is our reading. Raises wire.Unreadable."""
    found = _read(answer)
    return type(found.get("code")) is int and found["code"] != OK and NO_SUCH_PRODUCT in wire.text(found, "message")


def _result(found: Mapping[str, Any], secret: str, *, whole: bool = False) -> Any:
    """`result` is JSON in a text, signed by its characters."""
    code, result = found.get("code"), found.get("result")
    if type(code) is not int or code != OK:
        return None
    if not isinstance(result, str) or not wire.is_signed(secret, result, found.get("sign")):
        raise Unsigned("not signed with our secret")
    return wire.read_json(result) if whole else wire.read_object(result)


def _read(answer: HttpAnswer) -> dict[str, Any]:
    if answer.status != 200:
        raise wire.Unreadable(f"HTTP {answer.status}")
    return wire.read_object(answer.body)


def _word(value: object) -> str:
    """An unlisted number of theirs, if it is harmless enough for a log."""
    return str(value)[:12] if type(value) is int else "missing or odd"
