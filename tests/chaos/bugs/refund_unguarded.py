"""A refund is read, checked and written without the order's lock, and nobody asks what is left of what was captured.

Where it bites: `orders.actions.refund`. Guard taken away: refunded ≤ captured. Needs refunds that race each other; the load has them.
"""

from typing import Any
from uuid import UUID

from tests.chaos.bugs import Recipe

from kameng_api.kit.db import Tx
from kameng_api.kit.errors import StateConflict
from kameng_api.ledger import rules as books
from kameng_api.orders import actions, queries
from kameng_api.orders import changes as writing
from kameng_api.orders.changes import Changes, RefundRow
from kameng_api.orders.rules import REFUNDED_EVENT, Order, Status

RECIPE = Recipe(expected=frozenset({"I15", "I3"}))
UNGUARDED = ("ALTER TABLE orders DROP CONSTRAINT ck_orders_refunded",)


def plant() -> None:
    async def refund(tx: Tx, keyring: Any, book_id: int, order_id: UUID, *, refund_no: str, amount: int, reason: str) -> Order:
        order = await queries.get_order(tx, book_id, order_id)
        if order.status not in (Status.SUCCEEDED, Status.PARTIALLY_SUCCEEDED):
            raise StateConflict("only a delivered order can be refunded")
        order.refunded += amount
        order.version += 1
        changes = Changes()
        changes.postings.append(books.refund(book_id, order_id, refund_no, order.currency, amount))
        changes.refunds.append(RefundRow(order, refund_no, reason, amount))
        changes.touch(order)
        changes.tell(order, REFUNDED_EVENT)
        await writing.write(tx, keyring, changes)
        return order

    actions.refund = refund
