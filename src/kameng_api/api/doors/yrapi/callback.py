"""How 大猿人 yrapi calls back: a signed form, acknowledged with the bare word `success`.

The note names no retry schedule; this one covers a day, as merchants expect of such a platform.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from kameng_api.api.doors.door import Account, Card, Letter, Letters, Shown
from kameng_api.api.doors.yrapi import wire
from kameng_api.api.doors.yrapi.mapping import STATES, charged_face, kami

ACKNOWLEDGEMENT: Final = b"success"


class YrapiLetters(Letters):
    """See `door.Letters`."""

    retries_s = (15, 30, 60, 180, 600, 1_800, 3_600, 10_800, 21_600, 43_200)
    with_cards = True

    def write(self, account: Account, order: Shown, cards: Sequence[Card], now: datetime) -> Letter | None:
        if not order.callback or not order.final:
            return None
        at = order.completed_at or now
        fields = {
            "userid": account.account,
            "order_number": order.order_id,
            "out_trade_num": order.number,
            "otime": str(int(at.timestamp())),
            "state": str(STATES[order.state]),
            "mobile": order.target or "",
            "remark": order.failure or "",
            "charge_amount": charged_face(order),
            "voucher": order.receipt or "",
            "charge_kami": kami(cards),
        }
        body = wire.signed_form(fields, account.secrets["api_key"])
        return Letter(order.callback, body, {"Content-Type": "application/x-www-form-urlencoded"})

    def heard(self, status: int, body: bytes) -> bool:
        return status == 200 and body == ACKNOWLEDGEMENT
