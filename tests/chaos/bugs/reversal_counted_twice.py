"""A reversal is applied whenever it is told: each copy of the callback refunds the merchant again.

Where it bites: `orders.absorb._take_back`. Guard taken away: refunded ≤ captured. Needs deliveries that are taken back, told more than once.
"""

import os
from datetime import datetime

from tests.chaos.bugs import Recipe

from kameng_api.ledger import rules as books
from kameng_api.orders import absorb, settle
from kameng_api.orders.absorb import News
from kameng_api.orders.changes import Changes, RefundRow
from kameng_api.orders.rules import REFUNDED_EVENT, Order, Status
from kameng_api.suppliers.port import Reversed
from kameng_api.suppliers.rules import Attempt

RECIPE = Recipe(
    knobs=(
        {"reversal_rate": 0.3, "reversal_after_s": 3, "callback_copies": 3},
        {"reversal_rate": 0.3, "reversal_after_s": 6, "callback_copies": 2},
    ),
    expected=frozenset({"I15", "I3"}),
)
UNGUARDED = ("ALTER TABLE orders DROP CONSTRAINT ck_orders_refunded",)


def plant() -> None:
    async def never_known(_tx: object, news: News, *_: object) -> News:
        return news

    def take_back(order: Order, attempt: Attempt, reversed_: Reversed, news: News, now: datetime, to: Changes) -> None:
        if order.status not in (Status.SUCCEEDED, Status.PARTIALLY_SUCCEEDED):
            return
        number, back = f"reversal-{os.urandom(6).hex()}", order.unit_price * attempt.delivered_units
        order.refunded += back
        order.version += 1
        to.postings.append(books.refund(order.book_id, order.order_id, number, order.currency, back))
        to.refunds.append(RefundRow(order, number, "reversed_by_supplier", back))
        to.touch(order, attempt)
        to.tell(order, REFUNDED_EVENT)

    absorb._take_back = take_back
    settle._with_known_reversal = never_known  # type: ignore[assignment]
