"""What another house says, in our words. Pure, and total: whatever is not in these tables is Unknown.

Source: openapi/kameng.v1.yaml, docs/errors.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from kameng_api.suppliers.adapters.kameng import wire
from kameng_api.suppliers.port import (
    Accepted,
    Cause,
    Delivered,
    HttpAnswer,
    LineKind,
    NotFound,
    NotSent,
    Outcome,
    RefusalReason,
    Refused,
    Reversed,
    Scope,
    Unknown,
)

# (HTTP status, code) at placing. "Any 4xx: nothing changed, nothing stored"; each must also say `charged: no`.
REFUSALS: Final[Mapping[tuple[int, str], RefusalReason]] = {
    (402, "insufficient_balance"): RefusalReason.WALLET_EMPTY,
    (403, "product_not_authorised"): RefusalReason.PRODUCT_OFF,
    (403, "merchant_suspended"): RefusalReason.SUPPLIER_REJECTED,
    (422, "product_unavailable"): RefusalReason.PRODUCT_OFF,
    (422, "price_changed"): RefusalReason.PRICE_EXCEEDED,
    (422, "out_of_stock"): RefusalReason.OUT_OF_STOCK,
    (422, "target_not_supported"): RefusalReason.TARGET_NOT_ELIGIBLE,
    (422, "duplicate_target"): RefusalReason.TARGET_NOT_ELIGIBLE,
    (422, "test_value_in_live"): RefusalReason.TARGET_NOT_ELIGIBLE,
    (422, "validation_failed"): RefusalReason.SUPPLIER_REJECTED,
}
BUSY: Final = (429, "rate_limited")

# Why an order of theirs failed. Only a number that does not exist fails everywhere.
FAILURES: Final[Mapping[str, tuple[Scope, RefusalReason]]] = {
    "target_invalid": (Scope.ORDER, RefusalReason.TARGET_INVALID),
    "target_not_eligible": (Scope.CHANNEL, RefusalReason.TARGET_NOT_ELIGIBLE),
    "out_of_stock": (Scope.CHANNEL, RefusalReason.OUT_OF_STOCK),
    "price_exceeded": (Scope.CHANNEL, RefusalReason.PRICE_EXCEEDED),
    "supplier_rejected": (Scope.CHANNEL, RefusalReason.SUPPLIER_REJECTED),
    "deadline_passed": (Scope.CHANNEL, RefusalReason.SUPPLIER_REJECTED),
    "all_channels_refused": (Scope.CHANNEL, RefusalReason.SUPPLIER_REJECTED),
    "cancelled_by_operator": (Scope.CHANNEL, RefusalReason.SUPPLIER_REJECTED),
}
# While they work on it: their doubt is our doubt, one hop further.
WORKED_ON: Final = frozenset({"dispatching", "awaiting_supplier", None})
THEIR_DOUBT: Final = "outcome_unknown"
THEIR_PERSON: Final = "manual_review"

# Movements of a merchant's balance; a hold is charged when the order is made, what is not delivered comes back.
REFUND: Final = "refund"
KINDS: Final[Mapping[str, LineKind]] = {
    "hold": LineKind.CHARGE,
    "release": LineKind.REFUND,
    "split": LineKind.REFUND,
    REFUND: LineKind.REVERSAL,
    "fund": LineKind.TOP_UP,
}


@dataclass(frozen=True, slots=True)
class CodesWanted:
    """Delivered, and its codes are to be revealed before it counts."""

    order_id: str
    delivered: Delivered


def at_placing(answer: HttpAnswer, reference: str) -> Outcome:
    """The answer to POST /v1/orders. Codes are never in it: a delivered card order is looked up."""
    try:
        if answer.status in (200, 201):
            found = order(_json(answer), reference)
            return Accepted(found.order_id) if isinstance(found, CodesWanted) else found
        problem = _problem(answer)
        said = (answer.status, problem)
        if said == BUSY:
            return NotSent("rate limited by the other house", Cause.BUSY)
        reason = REFUSALS.get(said)
    except wire.Unreadable as error:
        return Unknown(f"unreadable answer: {error}")
    return Unknown(f"HTTP {answer.status}, {_word(problem)}") if reason is None else Refused(Scope.CHANNEL, reason, problem)


def at_look_up(answer: HttpAnswer, reference: str) -> Outcome | CodesWanted:
    """The answer to GET /v1/orders/by-merchant-no/…."""
    try:
        if answer.status == 200:
            return order(_json(answer), reference)
        if answer.status == 404 and _problem(answer, charged=False) == "not_found":
            return NotFound()
    except wire.Unreadable as error:
        return Unknown(f"unreadable answer: {error}")
    return Unknown(f"HTTP {answer.status}")


def with_codes(wanted: CodesWanted, answer: HttpAnswer, delivery_key: str) -> Outcome:
    """The answer to GET /v1/orders/{id}/codes."""
    try:
        if answer.status != 200:
            return Unknown(f"codes: HTTP {answer.status}")
        codes = wire.open_codes(_json(answer), delivery_key, wanted.order_id)
    except wire.Unreadable as error:
        return Unknown(f"codes: {error}")
    told = wanted.delivered
    if len(codes) != told.units:
        return Unknown("codes do not fit the units")
    return Delivered(told.units, told.cost, told.supplier_order_no, told.receipt, codes)


def at_cancelling(answer: HttpAnswer, reference: str) -> Outcome:
    """The answer to POST /v1/orders/{id}/cancel; what was dispatched (409 state_conflict) goes on."""
    try:
        if answer.status == 200:
            found = order(_json(answer), reference)
            return found if isinstance(found, Refused) else Unknown("not cancelled")
    except wire.Unreadable as error:
        return Unknown(f"unreadable answer: {error}")
    return Unknown(f"not cancelled: HTTP {answer.status}")


def order(found: Mapping[str, Any], reference: str) -> Outcome | CodesWanted:
    """An order resource, in an answer or inside an event. Raises wire.Unreadable."""
    if found.get("object") != "order" or found.get("merchant_order_no") != reference:
        return Unknown("an answer about another order")
    order_id, status = found.get("id"), found.get("status")
    if not isinstance(order_id, str) or not order_id:
        raise wire.Unreadable("id")
    wire.number(order_id)
    if status == "accepted":
        return Accepted(order_id)
    if status == "processing":
        return _in_work(order_id, found.get("substatus"))
    if status in ("succeeded", "partially_succeeded"):
        return _delivered(found, order_id)
    if status == "cancelled":
        return Refused(Scope.CHANNEL, RefusalReason.SUPPLIER_REJECTED, "cancelled")
    if status == "failed" and wire.whole(found, "delivered_quantity") == 0:
        failure = found.get("failure")
        code = failure.get("code") if isinstance(failure, dict) else None
        verdict = FAILURES.get(code) if isinstance(code, str) else None
        return Unknown(f"failure {_word(code)}") if verdict is None else Refused(*verdict, detail=str(code))
    return Unknown(f"status {_word(status)}")


def _in_work(order_id: str, substatus: object) -> Outcome:
    if substatus is None or (isinstance(substatus, str) and substatus in WORKED_ON):
        return Accepted(order_id)
    if substatus == THEIR_DOUBT:
        return Unknown("their own supplier has not said what happened")
    return Unknown("in their manual review", needs_person=True) if substatus == THEIR_PERSON else Unknown(f"substatus {_word(substatus)}")


def _delivered(found: Mapping[str, Any], order_id: str) -> Outcome | CodesWanted:
    asked, units = wire.whole(found, "quantity"), wire.whole(found, "delivered_quantity")
    if not 0 < units <= asked or (found["status"] == "succeeded") != (units == asked):
        return Unknown("units do not fit the status")
    cost, refunded = wire.amount(found.get("unit_price")) * units, wire.amount(found.get("refunded_amount"))
    if refunded:
        if refunded < cost:
            return Unknown("paid back in part after delivery", needs_person=True)
        return Reversed(reversal_id(order_id), refunded)
    delivery = found.get("delivery")
    receipt = delivery.get("receipt") if isinstance(delivery, dict) else None
    told = Delivered(units, cost, order_id, receipt=receipt if isinstance(receipt, str) and receipt else None)
    if found.get("codes_available") is True:
        return CodesWanted(order_id, told)
    if found.get("codes_available") is not False or found.get("product_type") != "topup":
        return Unknown("delivered, without codes")
    return told


def worth(found: Mapping[str, Any], order_id: str) -> int:
    """What the delivered units of an order cost, in 1/10000 units, whatever was paid back of it. Raises wire.Unreadable."""
    if found.get("object") != "order" or found.get("id") != order_id:
        raise wire.Unreadable("another order")
    return wire.amount(found.get("unit_price")) * wire.whole(found, "delivered_quantity")


def reversal_id(order_id: str) -> str:
    """One number for all that an order cost, paid back after its delivery, in events, look-ups and statements alike."""
    return f"{order_id}-refunded"


def _json(answer: HttpAnswer) -> dict[str, Any]:
    if not answer.headers.get("content-type", "").startswith("application/json"):
        raise wire.Unreadable("not JSON by its content type")
    return wire.read_object(answer.body)


def _problem(answer: HttpAnswer, *, charged: bool = True) -> str:
    """The code of a problem document that says that nothing was charged."""
    if not answer.headers.get("content-type", "").startswith("application/problem+json"):
        raise wire.Unreadable("no problem document")
    found = wire.read_object(answer.body)
    code = found.get("code")
    if not isinstance(code, str) or found.get("status") != answer.status or (charged and found.get("charged") != "no"):
        raise wire.Unreadable("a problem that does not say that nothing was charged")
    return code


def _word(value: object) -> str:
    """An unlisted word of theirs, short and harmless enough for a log."""
    if isinstance(value, str) and value.isascii() and value.replace("_", "").isalnum():
        return value[:40]
    return "missing or odd"
