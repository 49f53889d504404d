"""The number is looked up before the balance is locked, nothing unique stands behind it, and the content is not compared.

Where it bites: `orders.actions.place`. Guard taken away: the unique constraint over book and number. Needs clients that send the same number
twice at once to two APIs, and clients that reuse a number; the load always has both.
"""

from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any

from tests.chaos.bugs import Recipe

from kameng_api.kit.db import Tx
from kameng_api.orders import actions, queries
from kameng_api.orders.actions import Place, Placed
from kameng_api.orders.queries import Numbers
from kameng_api.orders.rules import Order

RECIPE = Recipe(faults=("wire: clients slow", "wire: answers to clients lost"), expected=frozenset({"I9", "I3"}))
UNGUARDED = (
    "ALTER TABLE orders DROP CONSTRAINT uq_orders_book_id_merchant_order_no",
    "CREATE INDEX ON orders (book_id, merchant_order_no)",
)

_early: ContextVar[Numbers | None] = ContextVar("_early", default=None)


def plant() -> None:
    place, find = actions.place, queries.look_up_numbers

    async def look_first(tx: Tx, keyring: Any, items: Sequence[Place]) -> Any:
        _early.set(await find(tx, [(i.book_id, i.request.merchant_order_no) for i in items]))
        try:
            return await place(tx, keyring, items)
        finally:
            _early.set(None)

    async def as_seen(tx: Tx, numbers: Sequence[tuple[int, str]]) -> Numbers:
        return _early.get() or await find(tx, numbers)

    def already(item: Place, existing: Order | None) -> Placed | None:
        return None if existing is None else Placed(existing, False, b"")

    actions.place, queries.look_up_numbers, actions._already = look_first, as_seen, already  # type: ignore[assignment]
