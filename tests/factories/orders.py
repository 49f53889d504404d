"""Orders and attempts as values, for tests of decisions: an order of two units at 100 each, bought for 75 each."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from kameng_api.orders.rules import Order
from kameng_api.suppliers.rules import Attempt

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
BOOK = 16
ORDER_ID = UUID(int=0x0193_0000_0000_0000_0000_0000_0000_0001)
ATTEMPT_ID = UUID(int=0x0193_0000_0000_0000_0000_0000_0000_0002)
UNIT_PRICE, UNIT_COST = 100, 75


def an_order(**more: Any) -> Order:
    """`processing`, `dispatching`, nothing committed, unless told otherwise."""
    quantity = more.get("quantity", 2)
    values: dict[str, Any] = {
        "book_id": BOOK,
        "order_id": ORDER_ID,
        "merchant_order_no": "PO-1",
        "fingerprint": b"f",
        "environment": "test",
        "sku": "sku",
        "product_type": "topup",
        "quantity": quantity,
        "unit_price": UNIT_PRICE,
        "amount": UNIT_PRICE * quantity,
        "currency": "CNY",
        "deadline_at": NOW + timedelta(minutes=10),
        "created_at": NOW - timedelta(minutes=5),
        "status": "processing",
        "substatus": "dispatching",
        "version": 2,
    }
    return Order(**values | more)


def an_attempt(state: str = "submitting", **more: Any) -> Attempt:
    """Two units, sent two minutes ago."""
    units = more.get("units", 2)
    values: dict[str, Any] = {
        "book_id": BOOK,
        "attempt_id": ATTEMPT_ID,
        "order_id": ORDER_ID,
        "n": 1,
        "channel_id": "ch-1",
        "product_code": "p",
        "units": units,
        "state": state,
        "currency": "CNY",
        "cost": UNIT_COST * units,
        "reference": "REF",
        "reason": "test",
        "sent_at": NOW - timedelta(minutes=2),
    }
    return Attempt(**values | more)


def with_attempt(state: str, **more: Any) -> tuple[Order, Attempt]:
    """An order that fits an attempt in `state`: what the database would hold."""
    attempt = an_attempt(state, **more)
    match state:
        case "submitting":
            return an_order(committed_units=2), attempt
        case "accepted":
            return an_order(committed_units=2, substatus="awaiting_supplier"), attempt
        case "unknown":
            attempt.unknown_since = NOW - timedelta(minutes=1)
            return an_order(committed_units=2, substatus="outcome_unknown"), attempt
        case "delivered":
            attempt.delivered_units, attempt.actual_cost, attempt.settled_at = 2, attempt.cost, NOW
            return (
                an_order(
                    status="succeeded", substatus=None, committed_units=2, delivered_units=2, captured=200, completed_at=NOW
                ),
                attempt,
            )
        case _:
            attempt.settled_at = NOW
            return an_order(), attempt
