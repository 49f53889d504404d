"""Our states, failures and refusals in the words of 京东 通用交易 (appendix 51), one table each. Pure.

produceStatus 2 is final and refunds the buyer by itself; 3 makes JD ask again; 4 pauses the order until JD starts it again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from kameng_api.api.doors.door import Card, Shown, State
from kameng_api.api.doors.jd_general import wire

SUCCESS: Final = 1
FAILURE: Final = 2
PRODUCING: Final = 3
PAUSED: Final = 4


@dataclass(frozen=True, slots=True)
class Words:
    """`code` and `produceStatus` of an answer."""

    code: str
    status: int


DONE: Final = Words("JDO_200", SUCCESS)
WORKING: Final = Words("JDO_201", PRODUCING)
STUCK: Final = Words("JDO_500", PAUSED)
BAD_SIGNATURE: Final = Words("JDO_304", PAUSED)
UNREADABLE: Final = Words("JDO_303", PAUSED)
LOST: Final = Words("JDO_303", FAILURE)
NO_PRODUCT: Final = Words("JDO_302", FAILURE)

REFUSED: Final[Mapping[str, Words]] = {
    "product_unavailable": Words("JDO_305", FAILURE),
    "product_not_authorised": Words("JDO_305", FAILURE),
    "out_of_stock": Words("JDO_305", FAILURE),
    "validation_failed": Words("JDO_303", FAILURE),
    "target_not_supported": Words("JDO_301", FAILURE),
    "test_value_in_live": Words("JDO_301", FAILURE),
    "number_closed": Words("JDO_500", FAILURE),
    "price_changed": Words("JDO_305", PAUSED),
    "insufficient_balance": Words("JDO_500", PAUSED),
    "merchant_suspended": Words("JDO_500", PAUSED),
    "duplicate_target": Words("JDO_500", PAUSED),
    "url_refused": Words("JDO_303", PAUSED),
}
"""A refusal, by the contract's code. Paused is what the merchant can mend; one that is not listed here is paused."""
ASKED_AGAIN: Final = frozenset(code for code, words in REFUSED.items() if words.status == PAUSED)
"""What JD may start again after the pause, and what may still be bought then."""

FAILED: Final[Mapping[str, str]] = {
    "target_invalid": "JDO_301",
    "target_not_eligible": "JDO_301",
    "out_of_stock": "JDO_305",
    "price_exceeded": "JDO_305",
    "cancelled_by_operator": "JDO_305",
    "supplier_rejected": "JDO_500",
    "deadline_passed": "JDO_500",
    "all_channels_refused": "JDO_500",
}
"""Why an order failed, by the contract's failure code."""


def is_direct(product_type: str) -> bool:
    """Charged to an account (充值), not delivered as codes (卡密)."""
    return product_type == "topup"


def is_card(product_type: str) -> bool:
    """Delivered as codes (卡密), one for each unit. A voucher (卡券) is neither: its delivery may be a receipt alone, for which JD has no place."""
    return product_type == "card"


def cards_of(cards: Sequence[Card]) -> tuple[wire.Card, ...] | None:
    """The cards as they are told; None if one is longer than the protocol holds."""
    told = tuple(wire.Card(card.code, card.pin or wire.ABSENT, card.expires_on) for card in cards)
    return told if all(card.can_be_told for card in told) else None


def words_of(order: Shown, cards: Sequence[wire.Card] | None) -> Words:
    """Where the order stands. Success is said only of one that is delivered whole, all of its cards in the same message."""
    match order.state:
        case State.PROCESSING:
            return WORKING
        case State.SUCCEEDED:
            whole = is_direct(order.product_type) or (cards is not None and len(cards) == order.quantity)
            return DONE if whole else STUCK
        case State.PARTIAL:
            return STUCK  # neither verdict would be true: a person must look
        case State.FAILED:
            return Words(FAILED.get(order.failure or "", "JDO_500"), FAILURE)
        case State.CANCELLED:
            return Words("JDO_305", FAILURE)
