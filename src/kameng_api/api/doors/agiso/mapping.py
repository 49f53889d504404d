"""Our states, failures and refusals in the words of 阿奇索 标准货源, one table each. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from kameng_api.api.doors.agiso.wire import Card
from kameng_api.api.doors.door import Card as Delivered
from kameng_api.api.doors.door import Shown, State

OK: Final = 200
BAD_SIGNATURE: Final = 401
OLD_TIMESTAMP: Final = 408
NO_PRODUCT: Final = 1100
TOO_DEAR: Final = 1220
NO_STOCK: Final = 1230
NUMBER_TAKEN: Final = 1250
OTHER: Final = 9999

DONE_TEXT: Final = "接口调用成功"

PROCESSING: Final = 10
SUCCESS: Final = 20
FAILURE: Final = 30

CANCELLED: Final = 20
CANCEL_REFUSED: Final = 30

DIRECT: Final = 1
CARD: Final = 2

SYNCHRONOUS: Final = 1
ASYNCHRONOUS: Final = 2


@dataclass(frozen=True, slots=True)
class Words:
    """A code of theirs and the sentence behind it."""

    code: int
    text: str


STATUS: Final[Mapping[State, int]] = {
    State.PROCESSING: PROCESSING,
    State.SUCCEEDED: SUCCESS,
    State.PARTIAL: PROCESSING,  # they have no word for it: neither success nor failure would be true, a person must look
    State.FAILED: FAILURE,
    State.CANCELLED: FAILURE,
}

REFUSED: Final[Mapping[str, Words]] = {
    "product_unavailable": Words(NO_PRODUCT, "商品不存在"),
    "product_not_authorised": Words(NO_PRODUCT, "商品不存在"),
    "price_changed": Words(TOO_DEAR, "超出订单金额限制"),
    "out_of_stock": Words(NO_STOCK, "库存不足"),
    "validation_failed": Words(OTHER, "参数错误"),
    "target_not_supported": Words(OTHER, "充值账号不支持"),
    "test_value_in_live": Words(OTHER, "充值账号不支持"),
    "duplicate_target": Words(OTHER, "同一账号刚刚充值过"),
    "insufficient_balance": Words(OTHER, "余额不足"),
    "merchant_suspended": Words(OTHER, "账户已停用"),
    "url_refused": Words(OTHER, "回调地址不可用"),
    "number_closed": Words(OTHER, "订单号已失败，不可再用"),
}
"""A refusal, by the contract's code."""
REFUSED_OTHERWISE: Final = Words(OTHER, "下单失败")

FAILED: Final[Mapping[str, Words]] = {
    "supplier_rejected": Words(OTHER, "供应商处理失败"),
    "target_invalid": Words(OTHER, "充值账号不存在"),
    "target_not_eligible": Words(OTHER, "充值账号不可充值该商品"),
    "out_of_stock": Words(NO_STOCK, "库存不足"),
    "price_exceeded": Words(TOO_DEAR, "商品价格变动"),
    "deadline_passed": Words(OTHER, "处理超时"),
    "all_channels_refused": Words(OTHER, "供应商处理失败"),
    "cancelled_by_operator": Words(OTHER, "订单已取消"),
}
"""Why an order failed, by the contract's failure code."""
FAILED_OTHERWISE: Final = Words(OTHER, "处理失败")
CANCELLED_BEFORE: Final = Words(OTHER, "订单已撤销")
NO_ORDER: Final = Words(OTHER, "订单不存在")
NUMBER_OF_ANOTHER: Final = Words(NUMBER_TAKEN, "订单号重复，且内容不同")

STOCK: Final[Mapping[str, int]] = {"in_stock": 9999, "low": 1, "out_of_stock": 0}
"""They want a number; we know three words. A number too low costs a sale, one too high a refusal."""


def is_direct(product_type: str) -> bool:
    """Charged to a target (直充), not delivered as codes (卡密)."""
    return product_type == "topup"


def is_card(product_type: str) -> bool:
    """Delivered as codes (卡密), one for each unit. A voucher (卡券) is neither: a receipt alone may be its delivery, which they cannot be told."""
    return product_type == "card"


def status_of(order: Shown, cards: tuple[Card, ...]) -> int:
    """Success is said only of an order that is delivered whole: all of its cards are in the same answer."""
    status = STATUS[order.state]
    if status == SUCCESS and not is_direct(order.product_type) and len(cards) != order.quantity:
        return PROCESSING
    return status


def failure_of(order: Shown) -> Words | None:
    """None for an order that has not failed."""
    match order.state:
        case State.FAILED:
            return FAILED.get(order.failure or "", FAILED_OTHERWISE)
        case State.CANCELLED:
            return CANCELLED_BEFORE
        case _:
            return None


def card_of(card: Delivered) -> Card:
    return Card(card.code, card.pin or "", card.expires_on)
