"""Whoever does not answer did not deliver: the order fails and the money goes back to the merchant.

Where it bites: `orders.absorb._doubt`. Needs suppliers that deliver and do not say so, or only later.
"""

from datetime import datetime

from tests.chaos.bugs import Recipe

from kameng_api.orders import absorb
from kameng_api.orders.absorb import News
from kameng_api.orders.changes import Changes
from kameng_api.orders.rules import Order
from kameng_api.suppliers.port import RefusalReason, Refused, Scope
from kameng_api.suppliers.rules import Attempt

RECIPE = Recipe(
    faults=("supplier: delivers, never answers", "supplier: late success", "supplier: delivers and resets"),
    expected=frozenset({"I5", "I14"}),
)


def plant() -> None:
    def release(order: Order, attempt: Attempt, news: News, now: datetime, to: Changes) -> None:
        absorb._refuse(order, attempt, Refused(Scope.ORDER, RefusalReason.SUPPLIER_REJECTED, "no answer"), now, to)

    absorb._doubt = release
