"""What is posted to JD when an order is final, and which answer counts as heard. Pure."""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final
from urllib.parse import urlencode

from kameng_api.api.doors.door import Account, Card, Letter, Letters, Shown
from kameng_api.api.doors.jd_card import mapping, wire

LIVE: Final = "https://card.jd.com/api"
REHEARSAL: Final = "https://card-pre.jd.com/api"
_ACTION: Final = {"direct": "gameApi.action", "card": "cardApi.action"}
RETRIES_S: Final = (10, 60, 300, 900, 1800, 3600, 7200, 14400, 28800, 43200, 86400)
"""JD publishes no schedule and asks by itself for up to 180 days: a callback only makes it quicker."""
_HEADERS: Final = {"content-type": "application/x-www-form-urlencoded"}


def address(account: Account, kind: str) -> str | None:
    """Where an order of this kind (`direct`, `card`) is told. JD lists the addresses that may call it. None: never."""
    base = account.settings.get("callback_base") or (LIVE if account.environment == "live" else REHEARSAL)
    return None if base == "off" else f"{base.rstrip('/')}/{_ACTION[kind]}"


class JdCardLetters(Letters):
    """A signed form whose `data` is base64 of GBK; delivered when JD answers retCode 100."""

    retries_s = RETRIES_S
    with_cards = True

    def write(self, account: Account, order: Shown, cards: Sequence[Card], now: datetime) -> Letter | None:
        """None while JD should go on asking: also for a partly delivered order, and for cards that JD's alphabet cannot hold."""
        if order.callback is None:
            return None
        told = _members(order, cards)
        if told is None:
            return None
        params = {"customerId": account.account, "data": wire.data_of_callback(told), "timestamp": wire.timestamp(now)}
        params["sign"] = wire.sign(account.secrets["private_key"], params)
        return Letter(order.callback, urlencode(params).encode(), _HEADERS)

    def heard(self, status: int, body: bytes) -> bool:
        if status != 200:
            return False
        try:
            found = json.loads(body)
        except (ValueError, RecursionError):
            return False
        return isinstance(found, dict) and type(found.get("retCode")) in (int, str) and str(found["retCode"]) == mapping.OK


def _members(order: Shown, cards: Sequence[Card]) -> dict[str, Any] | None:
    infos = mapping.card_infos(cards)
    told: dict[str, Any] = {"orderId": order.number}
    match mapping.status_of(order, infos):
        case mapping.SUCCESS:
            told["orderStatus"] = str(mapping.SUCCESS)
            return told | ({"cardinfos": infos} if infos else {})
        case mapping.FAILURE:
            words = mapping.failure_of(order)
            return told | {"orderStatus": str(mapping.FAILURE), "failedCode": words.code, "failedReason": words.text}
        case _:
            return None
