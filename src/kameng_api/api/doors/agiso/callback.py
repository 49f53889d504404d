"""What is posted to the `callbackUrl` of an order, and which answer counts as heard. Pure."""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from kameng_api.api.doors.agiso import mapping, wire
from kameng_api.api.doors.door import Account, Card, Letter, Letters, Shown

RETRIES_S: Final = (5, 15, 30, 60, 120, 300, 300, 600, 1800, 3600, 7200, 14400, 28800, 43200, 86400)
"""They publish no schedule; ours ends after some two days. `order/get` tells the same at any time."""
_HEADERS: Final = {"content-type": "application/json; charset=utf-8"}


def order_members(account: Account, order: Shown, cards: Sequence[Card]) -> dict[str, Any]:
    """An order as `order/*` answers and callbacks tell it. Raises ValueError for cards under an appSecret that is no key."""
    told = tuple(mapping.card_of(card) for card in cards)
    status = mapping.status_of(order, told)
    failure = mapping.failure_of(order)
    return {
        "orderNo": order.number,
        "outTradeNo": order.order_id,
        "orderStatus": status,
        "failCode": failure.code if failure else 0,
        "failReason": failure.text if failure else "",
        "orderCost": wire.Number(order.charged - order.refunded if order.final else order.amount),
        "cards": wire.sealed_cards(account.secrets["app_secret"], told) if told and status == mapping.SUCCESS else "",
    }


class AgisoLetters(Letters):
    """Signed JSON about a final order; delivered when the answer is JSON whose `code` is 200."""

    retries_s = RETRIES_S
    with_cards = True

    def write(self, account: Account, order: Shown, cards: Sequence[Card], now: datetime) -> Letter | None:
        """None while they should go on waiting: also for a partly delivered order, which has no word in their protocol."""
        if order.callback is None:
            return None
        members = order_members(account, order, cards)
        if members["orderStatus"] == mapping.PROCESSING:
            return None
        members["timestamp"] = int(now.timestamp())
        body = wire.signed_callback(account.secrets["app_secret"], account.secrets["merchant_key"], members)
        return Letter(order.callback, body, _HEADERS)

    def heard(self, status: int, body: bytes) -> bool:
        """`{"code": 200}`, also when the whole document is wrapped in a JSON string, as mai.91kami.com sends it."""
        if status != 200:
            return False
        found = _document(body)
        if isinstance(found, str):
            found = _document(found.encode(errors="replace"))
        return isinstance(found, dict) and type(found.get("code")) in (int, str) and str(found["code"]) == str(mapping.OK)


def _document(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None
