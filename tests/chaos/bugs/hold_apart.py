"""The order is committed first and its money is held afterwards, in a transaction of its own; what cannot be held is only logged.

Where it bites: `orders.actions.place` behind the door. Two flushes for a poor merchant both see the money, and a process that dies in between
leaves an order that nobody pays. Needs poor merchants, and APIs that are killed.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from tests.chaos.bugs import Recipe

from kameng_api.api import orders as door_of_orders
from kameng_api.api.deps import Door
from kameng_api.ledger import actions as ledger
from kameng_api.ledger import rules as books
from kameng_api.orders import actions
from kameng_api.orders.actions import Place, Placed

RECIPE = Recipe(
    faults=("kill -9 api", "wire: COMMIT not acknowledged", "postgres backends terminated"),
    expected=frozenset({"I1", "I2", "I3"}),
)


class _NoPosting:
    """`ledger.actions` as `place` sees it, without the writing."""

    lock = staticmethod(ledger.lock)

    @staticmethod
    def parts_of(rows: Sequence[Any], changed: Mapping[Any, Any]) -> list[Any]:
        return []


def plant() -> None:
    actions.ledger = _NoPosting  # type: ignore[assignment]
    place = door_of_orders._place

    async def first_the_order(door: Door, batch: Sequence[Place]) -> list[Any]:
        verdicts = await place(door, batch)
        new = [v.order for v in verdicts if isinstance(v, Placed) and v.created]
        postings = [books.hold(o.book_id, o.order_id, o.currency, o.amount) for o in new]
        async with door.db.transaction() as tx:
            await ledger.post(tx, postings)
        return verdicts

    door_of_orders._place = first_the_order
