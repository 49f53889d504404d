"""Every step of an order in the merchant's words, told from what is stored: suppliers are numbered, never named. No I/O."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from kameng_api.kit.clock import wire_time
from kameng_api.kit.ids import public_id
from kameng_api.kit.money import format_amount
from kameng_api.orders.queries import Refund
from kameng_api.orders.rules import Order, Status, Substatus
from kameng_api.suppliers.rules import Attempt, AttemptState

_REFUSALS: Final = {
    "supplier_rejected": "refused",
    "target_invalid": "refused: the target does not exist",
    "target_not_eligible": "refused: the target may not be charged with this product",
    "out_of_stock": "is out of stock",
    "product_off": "no longer sells this product",
    "price_exceeded": "has become dearer",
    "wallet_empty": "cannot serve this now",
    "unsayable": "does not sell in this form, and was not asked",
    "not_found": "never received it",
}


def steps(order: Order, attempts: Sequence[Attempt], refunds: Sequence[Refund]) -> list[dict[str, Any]]:
    """`{"at", "step", "detail"}` in the order of time."""
    told: list[tuple[datetime, str, str]] = [(order.created_at, "accepted", f"{format_amount(order.amount)} {order.currency} held")]
    names = _numbers(attempts)
    for attempt in attempts:
        told += _attempt_steps(attempt, names[attempt.channel_id], last=attempt is attempts[-1] and not order.final)
    if order.substatus == Substatus.MANUAL_REVIEW and attempts:
        told.append((attempts[-1].settled_at or attempts[-1].unknown_since or attempts[-1].sent_at, "manual_review", "a person decides"))
    if order.completed_at is not None:
        told.append((order.completed_at, order.status, _ending(order)))
    told += [(r.created_at, "refunded", f"{format_amount(r.amount)} {r.currency} returned: {r.reason}") for r in refunds]
    # Stable: steps of one instant stay in the order in which they were told.
    return [{"at": wire_time(at), "step": step, "detail": detail} for at, step, detail in sorted(told, key=lambda t: t[0])]


def _numbers(attempts: Sequence[Attempt]) -> dict[str, str]:
    numbers: dict[str, str] = {}
    for attempt in attempts:
        numbers.setdefault(attempt.channel_id, f"supplier {len(numbers) + 1}")
    return numbers


def _attempt_steps(attempt: Attempt, who: str, *, last: bool) -> list[tuple[datetime, str, str]]:
    units = f"{attempt.units} unit{'s' if attempt.units > 1 else ''}"
    told = [(attempt.sent_at, "sent_to_supplier", f"{who} was asked for {units}")]
    if attempt.unknown_since is not None:
        told.append((attempt.unknown_since, "outcome_unknown", f"{who} gave no clear answer; asking until there is one"))
    if attempt.state == AttemptState.ACCEPTED and last:
        told.append((attempt.sent_at, "awaiting_supplier", f"{who} works on it"))
    if attempt.settled_at is None:
        return told
    match attempt.state:
        case AttemptState.DELIVERED:
            told.append((attempt.settled_at, "delivered", f"{who} delivered {attempt.delivered_units} of {attempt.units}"))
        case AttemptState.NOT_SENT:
            told.append((attempt.settled_at, "not_reached", f"{who} could not be reached; nothing was bought"))
        case _:
            why = _REFUSALS.get(attempt.refusal or "", "refused")
            told.append((attempt.settled_at, "refused", f"{who} {why}"))
    return told


def _ending(order: Order) -> str:
    back = format_amount(order.amount - order.captured)
    match Status(order.status):
        case Status.SUCCEEDED:
            return f"{order.quantity} delivered, {format_amount(order.captured)} {order.currency} charged"
        case Status.PARTIALLY_SUCCEEDED:
            return f"{order.delivered_units} of {order.quantity} delivered, {back} {order.currency} returned"
        case Status.CANCELLED:
            return f"cancelled before dispatch, {back} {order.currency} returned"
        case _:
            return f"{order.failure_code}, {back} {order.currency} returned"


def refund_view(refund: Refund) -> dict[str, Any]:
    """The refund resource of the contract."""
    return {
        "id": public_id("ref", refund.refund_id),
        "refund_no": refund.refund_no,
        "reason": refund.reason,
        "amount": format_amount(refund.amount),
        "currency": refund.currency,
        "created_at": wire_time(refund.created_at),
    }
