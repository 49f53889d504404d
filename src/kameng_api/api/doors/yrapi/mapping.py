"""Our states and refusals in the words of 大猿人 yrapi, as tables. Pure.

States (protocol note §2A): -1 cancelled, 0 charging, 1 success, 2 failed, 3 partly successful. Errors are `errno` 1 and a sentence; 0 is success.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson

from kameng_api.api.doors.door import Card, Reply, Shown, State, Why

STATES: Final[Mapping[State, int]] = {
    State.PROCESSING: 0,
    State.SUCCEEDED: 1,
    State.FAILED: 2,
    State.PARTIAL: 3,
    State.CANCELLED: -1,
}

DUPLICATE: Final = "已经存在相同商户订单号的订单"
"""The platform's own text for a number that is taken: clients read it as "ask", not as a refusal."""

REFUSALS: Final[Mapping[str, str]] = {
    "validation_failed": "参数错误",
    "product_unavailable": "产品已下架",
    "product_not_authorised": "无此产品权限",
    "price_changed": "产品价格高于最高成本",
    "out_of_stock": "产品库存不足",
    "target_not_supported": "充值号码不支持该产品",
    "duplicate_target": "该号码短时间内已充值",
    "test_value_in_live": "测试号码不能用于正式环境",
    "insufficient_balance": "余额不足",
    "merchant_suspended": "账号已被停用",
    "url_refused": "回调地址不可用",
    "number_closed": "该订单号已关闭",
}

TURNED_AWAY: Final[Mapping[Why, tuple[int, str]]] = {
    Why.UNREADABLE: (200, "参数错误"),
    Why.UNKNOWN_ACCOUNT: (401, "userid错误"),
    Why.ADDRESS: (403, "IP未授权"),
    Why.NOT_PROVEN: (401, "签名错误"),
    Why.NO_SUCH_PATH: (404, "接口不存在"),
}
"""HTTP status and sentence: the platform itself always answers 200, but no client may take a lost key for a refused order."""

BUSY: Final = "系统繁忙，订单状态未知，请稍后查询".encode()
"""Said without JSON and with a 5xx or 429, which is what clients know as unknown."""


def replied(errno: int, errmsg: str, data: Any = None, *, status: int = 200) -> Reply:
    return Reply(orjson.dumps({"errno": errno, "errmsg": errmsg, "data": data}), status)


def busy(status: int) -> Reply:
    return Reply(BUSY, status, "text/plain; charset=utf-8")


def money(amount: int) -> str:
    """1/10000 units as decimal text with two places, more only where they say something."""
    whole, part = divmod(abs(amount), 10_000)
    text = f"{part:04d}"
    return f"{'-' if amount < 0 else ''}{whole}.{text[:2]}{text[2:].rstrip('0')}"


def number(text: str) -> int | str:
    """A product number as JSON: an integer where it is one, because clients read it into one."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else text


def charged_face(order: Shown) -> str:
    """The face value that was delivered."""
    return money((order.face_value or 0) * order.delivered)


def kami(cards: Sequence[Card]) -> str:
    """Card codes as one text: `code`, or `code,pin`, one card a line."""
    return "\n".join(card.code if card.pin is None else f"{card.code},{card.pin}" for card in cards)


def row(order: Shown, cards: Sequence[Card]) -> dict[str, Any]:
    """One order in the answer to `check`."""
    return {
        "order_number": order.order_id,
        "out_trade_num": order.number,
        "create_time": int(order.created_at.timestamp()),
        "finish_time": int(order.completed_at.timestamp()) if order.completed_at is not None else 0,
        "mobile": order.target or "",
        "product_id": number(order.product),
        "charge_amount": charged_face(order),
        "charge_kami": kami(cards),
        "remark": order.failure or "",
        "state": STATES[order.state],
        "voucher": order.receipt or "",
    }
