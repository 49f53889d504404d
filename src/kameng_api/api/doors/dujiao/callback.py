"""How dujiao-next calls back: signed JSON; taken when the answer is 200 and its JSON says `ok: true`; 30, 60, 120 and 300 s after a failure."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import orjson

from kameng_api.api.doors.door import Account, Card, Letter, Letters, Shown, State
from kameng_api.api.doors.dujiao import wire
from kameng_api.api.doors.dujiao.mapping import STATES, fulfillment


class DujiaoLetters(Letters):
    """See `door.Letters`."""

    retries_s = (30, 60, 120, 300)
    with_cards = True

    def write(self, account: Account, order: Shown, cards: Sequence[Card], now: datetime) -> Letter | None:
        if not order.callback or not order.final:
            return None
        timestamp = int(now.timestamp())
        body: dict[str, Any] = {
            "event": "order.fulfilled" if order.state is State.SUCCEEDED else "order.status_changed",
            "order_id": order.short,
            "order_no": order.order_id,
            "downstream_order_no": order.number,
            "status": STATES[order.state],
            "timestamp": timestamp,
        }
        delivered = fulfillment(order, cards)
        if delivered is not None:
            body["fulfillment"] = delivered
        sent = orjson.dumps(body)
        return Letter(order.callback, sent, wire.signed_headers(account.account, account.secrets["api_secret"], timestamp, sent))

    def heard(self, status: int, body: bytes) -> bool:
        if status != 200:
            return False
        try:
            answer = orjson.loads(body)
        except orjson.JSONDecodeError:
            return False
        return isinstance(answer, dict) and answer.get("ok") is True
