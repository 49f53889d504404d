"""Everything that is known of one order, for whoever must judge it. No framework in here."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from kameng_api.api.admin import route_shapes, shapes
from kameng_api.kit.db import Tx
from kameng_api.kit.ids import public_id, ulid_text
from kameng_api.operators import queries
from kameng_api.orders import queries as orders
from kameng_api.suppliers import route_queries as routes


async def whole_order(tx: Tx, order_id: UUID) -> shapes.Shape:
    """The order with every choice of a channel, attempt, refund, and line in the books. Raises NotFound."""
    place = await queries.get_place(tx, order_id)
    [order] = await queries.list_orders(tx, merchant_id=place.merchant_id, order_id=order_id, limit=1)
    attempts = await queries.list_attempts(tx, place.book_id, order_id)
    refunds = await orders.list_refunds(tx, place.book_id, order_id)
    transfers = await queries.list_transfers(tx, place.book_id, _events(order_id, attempts, refunds))
    for row in attempts:
        if row["reversed_amount"] or row["state"] in ("refused", "not_sent"):
            transfers += await queries.list_late_transfers(tx, place.book_id, _attempt(row))
    decided = await routes.list_of_order(tx, place.book_id, order_id, order["created_at"], order["completed_at"])
    return {
        **shapes.order(order),
        "route": [route_shapes.step(n, one) for n, one in enumerate(decided, 1)],
        "attempts": [shapes.attempt(row) for row in attempts],
        "refunds": [shapes.refund(one) for one in refunds],
        "transfers": [shapes.transfer(row) for row in transfers],
    }


async def whole_route(tx: Tx, order_id: UUID) -> shapes.Shape:
    """Every choice of a channel for the order, with what it saw. Raises NotFound."""
    place = await queries.get_place(tx, order_id)
    [order] = await queries.list_orders(tx, merchant_id=place.merchant_id, order_id=order_id, limit=1)
    decided = await routes.list_of_order(tx, place.book_id, order_id, order["created_at"], order["completed_at"])
    return {
        "order_id": public_id("ord", order_id),
        "sku": order["sku"],
        "status": order["status"],
        "decisions": [route_shapes.decision(n, one) for n, one in enumerate(decided, 1)],
    }


def _events(order_id: UUID, attempts: Sequence[Any], refunds: Sequence[Any]) -> list[str]:
    order = [f"order:{ulid_text(order_id)}:{step}" for step in ("hold", "final")]
    tried = [f"{_attempt(row)}:{step}" for row in attempts for step in ("reserve", "settle")]
    return [*order, *tried, *(f"refund:{one.refund_no}" for one in refunds)]


def _attempt(row: Any) -> str:
    return f"attempt:{ulid_text(row['attempt_id'])}"
