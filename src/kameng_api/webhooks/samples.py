"""Made-up events that look like real ones, for a merchant who tries its receiver. No I/O.

Everything about them says test: `test` in the body, the order's environment and its number. Their objects exist nowhere.
"""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID
from zoneinfo import ZoneInfo

from kameng_api.kit.clock import wire_time
from kameng_api.kit.ids import derived_ulid, public_id
from kameng_api.outbox.rules import body_of, fact_of
from kameng_api.webhooks.events import ENDPOINT_PREFIX, PING
from kameng_api.webhooks.queries import Endpoint

ORDER_NO: Final = "TEST-SEND"
_SKU: Final = "mobile-cn-100"
_TARGET: Final = "138****8000"


def has_sample(event_type: str) -> bool:
    return event_type in _SAMPLES


def body_of_sample(event_type: str, event_id: UUID, endpoint: Endpoint, now: datetime) -> bytes:
    """The event as it will be sent, ending in `"test":true`. Raises LookupError for a type of which there is none."""
    prefix, version, made = _SAMPLES[event_type]
    object_id = _SKU
    if prefix:
        object_id = public_id(prefix, endpoint.endpoint_id if event_type == PING else derived_ulid(event_id, "sample"))
    fact = fact_of(endpoint.book_id, event_type, object_id, version, made(object_id, event_type, now))
    return body_of(fact, event_id, now)[:-1] + b',"test":true}'


def _order(object_id: str, event_type: str, now: datetime) -> Mapping[str, Any]:
    status, substatus, delivered, refunded, code = _ORDERS[event_type]
    done = status not in ("accepted", "processing")
    began, sent, ended = (wire_time(now - timedelta(seconds=s)) for s in (3, 2, 0))
    return {
        "id": object_id,
        "object": "order",
        "environment": "test",
        "version": _SAMPLES[event_type][1],
        "status": status,
        "substatus": substatus,
        "merchant_order_no": ORDER_NO,
        "sku": _SKU,
        "product_type": "topup",
        "quantity": 2,
        "delivered_quantity": delivered,
        "target": _TARGET,
        "unit_price": "98.5000",
        "amount": "197.0000",
        "currency": "CNY",
        "refunded_amount": refunded,
        "codes_available": False,
        "failure": None if code is None else {"code": code, "detail": "The supplier refused this order for good."},
        "delivery": {"receipt": "RC000000000001", "delivered_at": ended} if delivered else None,
        "created_at": began,
        "dispatched_at": None if status in ("accepted", "cancelled") else sent,
        "completed_at": ended if done else None,
        "metadata": {"sample": True},
    }


_ORDERS: Final[Mapping[str, tuple[str, str | None, int, str, str | None]]] = {
    "order.accepted": ("accepted", None, 0, "0.0000", None),
    "order.processing": ("processing", "awaiting_supplier", 0, "0.0000", None),
    "order.succeeded": ("succeeded", None, 2, "0.0000", None),
    "order.partially_succeeded": ("partially_succeeded", None, 1, "0.0000", None),
    "order.failed": ("failed", None, 0, "0.0000", "supplier_rejected"),
    "order.cancelled": ("cancelled", None, 0, "0.0000", None),
    "order.refunded": ("succeeded", None, 2, "98.5000", None),
}


def _balance(available: str, **more: Any) -> Mapping[str, Any]:
    return {
        "currency": "CNY", "available": available, "held": "197.0000", "credit_limit": "0.0000", "deposit": "0.0000", "frozen": "0.0000", **more,
    }  # fmt: skip


def _low(_object_id: str, _type: str, now: datetime) -> Mapping[str, Any]:
    return _balance(
        "480.0000", reason="amount", amount="500.0000", hours_left=24, spendable="480.0000",
        burn_rate_per_hour={"last_hour": "60.0000", "last_day": "42.0000", "last_week": "40.0000"},
        empty_in_s=39_600, empty_at=wire_time(now + timedelta(seconds=39_600)),
    )  # fmt: skip


def _credited(_object_id: str, _type: str, _now: datetime) -> Mapping[str, Any]:
    return _balance("10480.0000", credited="10000.0000", reference=ORDER_NO)


def _product(_object_id: str, event_type: str, _now: datetime) -> Mapping[str, Any]:
    moved = event_type == "product.price_changed"
    return {
        "sku": _SKU, "name": "全国话费 100 元", "product_type": "topup", "face_value": "100.0000",
        "unit_price": "98.7000" if moved else "98.5000", "currency": "CNY", "fields": [], "carriers": [], "barcodes": [],
        "stock": "in_stock", "status": "on_sale" if moved else "paused",
    }  # fmt: skip


def _statement(object_id: str, _type: str, now: datetime) -> Mapping[str, Any]:
    zone = ZoneInfo("Asia/Shanghai")
    end = now.astimezone(zone).replace(hour=0, minute=0, second=0, microsecond=0)
    start = end - timedelta(days=1)
    files = [{"format": name, "bytes": size, "sha256": "0" * 64} for name, size in (("csv", 612), ("xlsx", 7_402), ("json", 1_180))]
    return {
        "object": "statement", "id": object_id, "environment": "test", "date": start.date().isoformat(), "timezone": "Asia/Shanghai",
        "starts_at": wire_time(start), "ends_at": wire_time(end), "currency": "CNY", "opening": "1000.0000",
        "subtotals": [{"type": "hold", "count": 1, "amount": "-197.0000"}], "movements_count": 1, "closing": "803.0000", "files": files,
        "key_id": "sample", "ready_at": wire_time(now),
    }  # fmt: skip


def _batch(object_id: str, event_type: str, now: datetime) -> Mapping[str, Any]:
    done = {"batch.validated": 0, "batch.progress": 500, "batch.completed": 990}[event_type]
    over, began = event_type == "batch.completed", wire_time(now - timedelta(seconds=9))
    return {
        "id": object_id, "object": "order_batch", "environment": "test", "version": _SAMPLES[event_type][1], "merchant_batch_no": ORDER_NO,
        "kind": "json", "filename": None,
        "status": "validated" if event_type == "batch.validated" else "completed_with_errors" if over else "processing",
        "mode": "partial", "validate_only": False, "confirm": "auto", "on_insufficient_balance": "stop", "merge_equal": False, "split_skus": [],
        "progress": {
            "total": 1000, "valid": 990, "invalid": 10, "accepted": done, "duplicates": 0, "succeeded": done, "partially_succeeded": 0,
            "failed": 0, "processing": 0, "unprocessed": 990 - done, "total_cost": f"{98.5 * done:.4f}", "currency": "CNY",
            "percent": done * 100 // 990,
        },
        "failure": None, "warnings": [], "created_at": began, "validated_at": began,
        "confirmed_at": None if event_type == "batch.validated" else began,
        "completed_at": wire_time(now) if over else None,
    }  # fmt: skip


def _ping(object_id: str, _type: str, _now: datetime) -> Mapping[str, Any]:
    return {"id": object_id, "object": "webhook_endpoint", "url": "https://shop.example.com/kameng/webhooks"}


_Make = Callable[[str, str, datetime], Mapping[str, Any]]
_SAMPLES: Final[Mapping[str, tuple[str, int, _Make]]] = {
    "order.accepted": ("ord", 1, _order),
    "order.processing": ("ord", 2, _order),
    "order.succeeded": ("ord", 3, _order),
    "order.partially_succeeded": ("ord", 3, _order),
    "order.failed": ("ord", 3, _order),
    "order.cancelled": ("ord", 2, _order),
    "order.refunded": ("ord", 4, _order),
    "balance.low": ("mer", 12, _low),
    "balance.credited": ("mer", 13, _credited),
    "product.price_changed": ("", 7, _product),
    "product.status_changed": ("", 8, _product),
    "statement.ready": ("stm", 1, _statement),
    "batch.validated": ("bat", 2, _batch),
    "batch.progress": ("bat", 5, _batch),
    "batch.completed": ("bat", 9, _batch),
    PING: (ENDPOINT_PREFIX, 1, _ping),
}
"""Event type → prefix of the object's id (a product goes by its SKU), its version, and how it is made up."""
