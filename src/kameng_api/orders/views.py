"""An order as the world sees it: the same JSON in answers and in events."""

from typing import Any, Final

import orjson

from kameng_api.kit.clock import wire_time, wire_time_or_none
from kameng_api.kit.ids import public_id
from kameng_api.kit.money import format_amount
from kameng_api.orders.rules import FailureCode, Order

FAILURE_DETAILS: Final = {
    FailureCode.SUPPLIER_REJECTED: "The supplier refused this order for good.",
    FailureCode.TARGET_INVALID: "The target does not exist.",
    FailureCode.TARGET_NOT_ELIGIBLE: "The target may not be charged with this product.",
    FailureCode.OUT_OF_STOCK: "No supplier has it.",
    FailureCode.PRICE_EXCEEDED: "Every supplier has become dearer than the price you paid.",
    FailureCode.DEADLINE_PASSED: "It could not be delivered in the time you gave.",
    FailureCode.ALL_CHANNELS_REFUSED: "Every supplier that sells this refused.",
    FailureCode.CANCELLED_BY_OPERATOR: "An operator cancelled this order.",
}


def view(order: Order, *, target: str | None = None) -> dict[str, Any]:
    """The order resource of the contract. `target` replaces the masked one for keys with scope `targets:read`."""
    return {
        "id": public_id("ord", order.order_id),
        "object": "order",
        "environment": order.environment,
        "version": order.version,
        "status": order.status,
        "substatus": order.substatus,
        "merchant_order_no": order.merchant_order_no,
        "sku": order.sku,
        "product_type": order.product_type,
        "quantity": order.quantity,
        "delivered_quantity": order.delivered_units,
        "target": target if target is not None else order.target_masked,
        "unit_price": format_amount(order.unit_price),
        "amount": format_amount(order.amount),
        "currency": order.currency,
        "refunded_amount": format_amount(order.refunded),
        "codes_available": order.codes_count > 0,
        "failure": _failure(order),
        "delivery": _delivery(order),
        "created_at": wire_time(order.created_at),
        "dispatched_at": wire_time_or_none(order.dispatched_at),
        "completed_at": wire_time_or_none(order.completed_at),
        "metadata": orjson.Fragment(order.metadata),
    }


def view_json(order: Order, *, target: str | None = None) -> bytes:
    """`view` as compact JSON: the bytes of an answer, and the `object` of an event."""
    return orjson.dumps(view(order, target=target))


def _failure(order: Order) -> dict[str, str] | None:
    if order.failure_code is None:
        return None
    return {"code": order.failure_code, "detail": FAILURE_DETAILS[FailureCode(order.failure_code)]}


def _delivery(order: Order) -> dict[str, str | None] | None:
    if order.delivered_at is None:
        return None
    return {"receipt": order.receipt, "delivered_at": wire_time(order.delivered_at)}
