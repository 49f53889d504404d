"""The kit's own book: orders by the contract's rules, in memory, moved by scenarios instead of suppliers."""

from dataclasses import dataclass, field
from typing import Any, Final

from kameng_api.kit.clock import utc_now, wire_time
from kameng_api.kit.ids import new_ulid, public_id
from kameng_api.kit.money import format_amount

UNIT_PRICE: Final = 985_000
FINAL: Final = frozenset(("succeeded", "partially_succeeded", "failed", "cancelled"))


class NumberTaken(Exception):
    """The number stands for an order with other content."""

    def __init__(self, existing: "Order") -> None:
        super().__init__("this number stands for an order with other content")
        self.existing = existing


@dataclass(slots=True)
class Order:
    """An order as the platform knows it. `content` is the request after defaults; amounts in 1/10000 units."""

    order_id: str
    content: dict[str, Any] = field(repr=False)
    status: str = "accepted"
    substatus: str | None = None
    version: int = 1
    refunded: int = 0
    created_at: str = field(default_factory=lambda: wire_time(utc_now()))
    dispatched_at: str | None = None
    completed_at: str | None = None

    @property
    def number(self) -> str:
        return str(self.content["merchant_order_no"])

    def view(self) -> dict[str, Any]:
        """The order resource of the contract."""
        quantity = self.content["quantity"]
        succeeded = self.status == "succeeded"
        target = self.content["target"]
        return {
            "id": self.order_id, "object": "order", "environment": "test", "version": self.version, "status": self.status,
            "substatus": self.substatus, "merchant_order_no": self.number, "sku": self.content["sku"], "product_type": "topup",
            "quantity": quantity, "delivered_quantity": quantity if succeeded else 0,
            "target": target if target is None or len(target) < 8 else f"{target[:3]}****{target[-4:]}",
            "unit_price": format_amount(UNIT_PRICE), "amount": format_amount(UNIT_PRICE * quantity), "currency": "CNY",
            "refunded_amount": format_amount(self.refunded), "codes_available": False,
            "failure": {"code": "supplier_rejected", "detail": "The supplier refused this order for good."} if self.status == "failed" else None,
            "delivery": {"receipt": f"KIT{self.order_id[-10:]}", "delivered_at": self.completed_at} if succeeded else None,
            "created_at": self.created_at, "dispatched_at": self.dispatched_at, "completed_at": self.completed_at,
            "metadata": self.content["metadata"],
        }  # fmt: skip


class OrderBook:
    """Every order of the run by id and by number, and every event about them."""

    def __init__(self) -> None:
        self.by_number: dict[str, Order] = {}
        self.by_id: dict[str, Order] = {}
        self.events: list[dict[str, Any]] = []

    def place(self, content: dict[str, Any]) -> tuple[Order, bool]:
        """The order and whether it is new. Raises NumberTaken."""
        known = self.by_number.get(content["merchant_order_no"])
        if known is not None:
            if known.content != content:
                raise NumberTaken(known)
            return known, False
        order = Order(public_id("ord", new_ulid()), content)
        self.by_number[order.number] = self.by_id[order.order_id] = order
        self._record(order, "order.accepted")
        return order, True

    def imagine(self, sku: str, target: str | None) -> Order:
        """An order that no merchant placed, to have something to tell of."""
        number = f"KIT-{public_id('x', new_ulid())[2:]}"
        return self.place(defaults({"merchant_order_no": number, "sku": sku, "target": target}))[0]

    def advance(self, order: Order, status: str, substatus: str | None = None) -> dict[str, Any]:
        """Move the order one version on; the event that tells of it."""
        assert order.status not in FINAL, "final states do not change"
        now = wire_time(utc_now())
        order.status, order.substatus, order.version = status, substatus, order.version + 1
        order.dispatched_at = order.dispatched_at or now
        order.completed_at = now if status in FINAL else None
        return self._record(order, f"order.{status}")

    def refund(self, order: Order) -> dict[str, Any]:
        """A reversal after the end: the state stays, the money comes back; the event that tells of it."""
        order.refunded, order.version = UNIT_PRICE * order.content["quantity"], order.version + 1
        return self._record(order, "order.refunded")

    def _record(self, order: Order, kind: str) -> dict[str, Any]:
        event = tell(kind, {"id": order.order_id, "version": order.version, "object": order.view()})
        self.events.append(event)
        return event


def tell(kind: str, data: dict[str, Any]) -> dict[str, Any]:
    """A fresh event."""
    return {"id": public_id("evt", new_ulid()), "type": kind, "timestamp": wire_time(utc_now()), "data": data}


def defaults(content: dict[str, Any]) -> dict[str, Any]:
    """All fields of an order request, so that "the same content" can be compared."""
    empty: dict[str, Any] = {
        "merchant_order_no": "", "sku": "", "quantity": 1, "target": None, "fields": {}, "max_unit_price": None,
        "deliver_within_s": None, "notify_url": None, "metadata": {}, "confirm_duplicate": False,
    }  # fmt: skip
    return empty | content
