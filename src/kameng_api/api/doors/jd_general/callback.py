"""What is posted to JD when an order is final, and which answer counts as heard. Pure."""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Final
from urllib.parse import urlencode, urlsplit

from kameng_api.api.doors.door import Account, Card, Letter, Letters, Shown
from kameng_api.api.doors.jd_general import mapping, wire

RESULT: Final = "/produce/result"
RETRIES_S: Final = (5, 15, 60, 300, 900, 1800, 3600, 7200, 14400, 28800, 43200, 86400, 86400, 86400)
"""JD publishes no schedule; it stops asking after a while and then hears of the order from this callback alone, so ours goes on for days."""
_HEADERS: Final = {"content-type": "application/x-www-form-urlencoded"}


def address(account: Account, notify_url: str) -> str:
    """The account's own address if it has one (JD's self-test), else `notifyUrl` + `/produce/result`; JD's hosts always over TLS."""
    fixed = account.settings.get("callback_url")
    if fixed:
        return fixed
    if notify_url.startswith("http://") and f".{urlsplit(notify_url).netloc}".endswith(".jd.com"):
        notify_url = "https://" + notify_url.removeprefix("http://")
    return notify_url.rstrip("/") + RESULT


class JdGeneralLetters(Letters):
    """A signed form; delivered when JD answers `{"code": "0"}`."""

    retries_s = RETRIES_S
    with_cards = True

    def write(self, account: Account, order: Shown, cards: Sequence[Card], now: datetime) -> Letter | None:
        """Success, failure, and the pause that asks for a person; None while it is being produced."""
        if order.callback is None or not order.final:
            return None
        told = mapping.cards_of(cards)
        words = mapping.words_of(order, told)
        params = {
            "vendorId": account.settings.get("vendor_id") or order.facts.get("vendor") or account.account,
            "jdOrderNo": order.number,
            "agentOrderNo": order.order_id,
            "produceStatus": str(words.status),
            "quantity": str(order.quantity),
            "timestamp": wire.timestamp(now),
        }
        if words.status == mapping.SUCCESS and told:
            params["product"] = wire.sealed_cards(account.secrets["aes_key"], told)
        params["sign"] = wire.sign(account.secrets["private_key"], params)
        return Letter(order.callback, urlencode(params).encode(), _HEADERS)

    def heard(self, status: int, body: bytes) -> bool:
        if status != 200:
            return False
        try:
            found = json.loads(body)
        except (ValueError, RecursionError):
            return False
        return isinstance(found, dict) and type(found.get("code")) in (int, str) and str(found["code"]) == "0"
