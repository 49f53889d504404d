"""Our states, failures and refusals in the return codes of 京东 游戏点卡 (§4.1, §4.2), one table each. Pure.

The rule that decides everything here: in a query, a code other than 100 without the mark [重试] makes JD refund its buyer.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from kameng_api.api.doors.door import Card, Shown, State


@dataclass(frozen=True, slots=True)
class Words:
    """A return code of theirs and the sentence behind it."""

    code: str
    text: str


OK: Final = "100"
ACCEPTED: Final = Words(OK, "接单成功")
FOUND: Final = Words(OK, "查询成功")
NO_ORDER: Final = Words("101", "订单不存在")
NUMBER_TAKEN: Final = Words("102", "订单号不允许重复")
WRONG: Final = Words("104", "传入的参数有误")
NO_PRODUCT: Final = Words("107", "没有对应商品")
NOT_FOR_SALE: Final = Words("109", "本商品不可销售")
NO_STOCK: Final = Words("110", "库存不足")
PRICE: Final = Words("111", "商品价钱不一致")
NO_MONEY: Final = Words("112", "账户余额不足")
NO_ACCOUNT: Final = Words("113", "角色或账号不存在")
ACCOUNT_MISTYPED: Final = Words("116", "充值帐户输入错误，请输入正确的账号")
BOUGHT_TOO_OFTEN: Final = Words("118", "账号达到最大购买次数限制")
NOT_ENTITLED: Final = Words("121", "无该产品的购买资格，不符合活动资格")
UPSTREAM_FAILED: Final = Words("123", "品牌侧下单失败")

ADDRESS: Final = Words("105", "IP地址不符合要求")
BAD_SIGNATURE: Final = Words("106", "验证摘要串验证失败")
BUSY: Final = Words("108", "数据库繁忙，请稍后重试")
IN_DOUBT: Final = Words("999", "系统错误，请稍后重试")
NOT_HERE: Final = Words("999", "暂无此订单，请稍后再查")
RETRIED: Final = frozenset(("105", "106", "108", "110", "999", "1000"))
"""The codes with the mark [重试]: JD asks again, and refunds nothing."""

SUCCESS: Final = 0
CHARGING: Final = 1
FAILURE: Final = 2

STATUS: Final[Mapping[State, int]] = {
    State.PROCESSING: CHARGING,
    State.SUCCEEDED: SUCCESS,
    State.PARTIAL: CHARGING,  # partial delivery is not allowed (§2.4.2.3): neither verdict would be true, a person must look
    State.FAILED: FAILURE,
    State.CANCELLED: FAILURE,
}

REFUSED: Final[Mapping[str, Words]] = {
    "product_unavailable": NOT_FOR_SALE,
    "product_not_authorised": NOT_FOR_SALE,
    "price_changed": PRICE,
    "out_of_stock": NO_STOCK,
    "validation_failed": WRONG,
    "target_not_supported": ACCOUNT_MISTYPED,
    "test_value_in_live": ACCOUNT_MISTYPED,
    "duplicate_target": BOUGHT_TOO_OFTEN,
    "insufficient_balance": NO_MONEY,
    "merchant_suspended": NOT_FOR_SALE,
    "url_refused": BUSY,  # our own setting is wrong: not the order's fault
    "number_closed": NOT_FOR_SALE,
}
"""A refusal, by the contract's code; one that is not listed here is answered with IN_DOUBT."""
ASKED_AGAIN: Final = frozenset(code for code, words in REFUSED.items() if words.code in RETRIED)
"""What JD sends again, and what may still be bought then."""

FAILED: Final[Mapping[str, Words]] = {
    "supplier_rejected": UPSTREAM_FAILED,
    "target_invalid": NO_ACCOUNT,
    "target_not_eligible": NOT_ENTITLED,
    "out_of_stock": NO_STOCK,
    "price_exceeded": PRICE,
    "deadline_passed": UPSTREAM_FAILED,
    "all_channels_refused": UPSTREAM_FAILED,
    "cancelled_by_operator": NOT_FOR_SALE,
}
"""Why an order failed, by the contract's failure code; told in callbacks as failedCode and failedReason (≤ 100 characters)."""

_NUMBER: Final = re.compile(r"\A[A-Za-z0-9_-]{1,200}\Z")
_PASSWORD: Final = re.compile(r"\A[!-~]{1,5000}\Z")


def is_direct(product_type: str) -> bool:
    """Charged to an account (直充), not delivered as codes (卡密)."""
    return product_type == "topup"


def is_card(product_type: str) -> bool:
    """Delivered as codes (卡密), one for each unit. A voucher (卡券) is neither: its delivery may be a receipt alone, for which JD has no place."""
    return product_type == "card"


def failure_of(order: Shown) -> Words:
    return NOT_FOR_SALE if order.state is State.CANCELLED else FAILED.get(order.failure or "", UPSTREAM_FAILED)


def card_infos(cards: Sequence[Card]) -> list[dict[str, str]] | None:
    """The cards as they are told; None if one cannot be told (§2.4.2.3: the number is letters, digits, `-`, `_`; the password ASCII).

    Both parts are required there: a card that is one code is told as both.
    """
    told = []
    for card in cards:
        info = {"cardno": card.code, "cardpass": card.pin or card.code}
        if not _NUMBER.match(info["cardno"]) or not _PASSWORD.match(info["cardpass"]):
            return None
        told.append(info | ({"expiretime": card.expires_on} if card.expires_on else {}))
    return told


def status_of(order: Shown, infos: Sequence[Mapping[str, str]] | None) -> int:
    """Success is said only of an order that is delivered whole, all of its cards in the same message."""
    status = STATUS[order.state]
    if status == SUCCESS and not is_direct(order.product_type) and (infos is None or len(infos) != order.quantity):
        return CHARGING
    return status
