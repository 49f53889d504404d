"""Our states and refusals in the words of dujiao-next v1, as tables. Pure. Source: the project's integration document (2026-04-01), §4–§7."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from kameng_api.api.doors.door import Card, Offered, Reply, Shown, State, Why

STATES: Final[Mapping[State, str]] = {
    State.PROCESSING: "fulfilling",
    State.SUCCEEDED: "delivered",
    State.PARTIAL: "partially_delivered",
    State.FAILED: "canceled",
    State.CANCELLED: "canceled",
}
PAID: Final = "paid"
"""What a new order answers: the money is held, delivery has not begun."""

REFUSALS: Final[Mapping[str, tuple[int, str]]] = {
    "validation_failed": (400, "bad_request"),
    "product_unavailable": (400, "sku_unavailable"),
    "product_not_authorised": (400, "sku_unavailable"),
    "price_changed": (400, "sku_unavailable"),
    "out_of_stock": (409, "insufficient_stock"),
    "target_not_supported": (400, "bad_request"),
    "duplicate_target": (400, "bad_request"),
    "test_value_in_live": (400, "bad_request"),
    "insufficient_balance": (402, "insufficient_balance"),
    "merchant_suspended": (403, "user_disabled"),
    "url_refused": (400, "invalid_callback_url"),
    "number_closed": (400, "bad_request"),
}

TURNED_AWAY: Final[Mapping[Why, tuple[int, str]]] = {
    Why.UNREADABLE: (400, "bad_request"),
    Why.UNKNOWN_ACCOUNT: (401, "invalid_api_key"),
    Why.ADDRESS: (403, "invalid_api_key"),
    Why.NOT_PROVEN: (401, "invalid_signature"),
    Why.STALE: (401, "timestamp_expired"),
    Why.THROTTLED: (429, "internal_error"),
    Why.NO_SUCH_PATH: (404, "bad_request"),
}

CATEGORIES: Final[Mapping[str, tuple[int, str, str, str]]] = {
    "topup": (1, "topup", "直充", "Top-up"),
    "card": (2, "card", "卡密", "Card codes"),
    "voucher": (3, "voucher", "卡券", "Vouchers"),
}
_STOCK: Final[Mapping[str, tuple[str, int]]] = {"in_stock": ("unlimited", -1), "low": ("low_stock", 1), "out_of_stock": ("out_of_stock", 0)}
"""How many there are is not told; of few, one can be counted on."""
_NEVER: Final = datetime(1970, 1, 1, tzinfo=UTC)


def replied(content: Mapping[str, Any], status: int = 200) -> Reply:
    return Reply(orjson.dumps(content), status)


def failed(status: int, code: str, message: str) -> Reply:
    return replied({"ok": False, "error_code": code, "error_message": message}, status)


def money(amount: int) -> str:
    """1/10000 units as decimal text with two places, more only where they say something."""
    whole, part = divmod(abs(amount), 10_000)
    text = f"{part:04d}"
    return f"{'-' if amount < 0 else ''}{whole}.{text[:2]}{text[2:].rstrip('0')}"


def instant(at: datetime | None) -> str:
    return (at or _NEVER).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def words(chinese: str, english: str | None = None) -> dict[str, str]:
    return {"zh-CN": chinese, "en": english or chinese}


def is_number(product: str) -> bool:
    """Whether a product number may stand as a JSON integer here; others are not shown."""
    return product.isascii() and product.isdigit() and len(product) < 16 and product[0] != "0"


def product(one: Offered) -> dict[str, Any]:
    """A product of one SKU: both have the number of the account's product map."""
    price, number = money(one.unit_price or 0), int(one.number)
    stock_status, stock_quantity = _STOCK[one.stock]
    return {
        "id": number, "slug": one.sku, "title": words(one.name), "description": {}, "content": {}, "seo_meta": {}, "images": [], "tags": [],
        "price_amount": price, "fulfillment_type": "auto" if one.target_kind is None and not one.fields else "manual",
        "manual_form_schema": form_schema(one), "is_active": one.on_sale, "category_id": CATEGORIES[one.product_type][0],
        "skus": [
            {
                "id": number, "sku_code": one.sku, "spec_values": {}, "price_amount": price, "stock_status": stock_status,
                "stock_quantity": stock_quantity, "is_active": one.on_sale,
            }
        ],
        "created_at": instant(one.updated_at), "updated_at": instant(one.updated_at),
    }  # fmt: skip


def form_schema(one: Offered) -> dict[str, Any] | None:
    """What `manual_form_data` must hold: `target`, and the fields of the product."""
    fields = [] if one.target_kind is None else [("target", "手机号" if one.target_kind == "mobile" else "账号", True, 64)]
    fields += [(f.name, f.label, f.required, f.max_length) for f in one.fields]
    if not fields:
        return None
    return {
        "fields": [
            {"key": name, "type": "text", "required": required, "label": words(label), "max_len": max_length}
            for name, label, required, max_length in fields
        ]
    }


def fulfillment(order: Shown, cards: Sequence[Card]) -> dict[str, Any] | None:
    """What was delivered; None while nothing was."""
    if order.state not in (State.SUCCEEDED, State.PARTIAL):
        return None
    lines = [card.code if card.pin is None else f"{card.code} {card.pin}" for card in cards]
    return {
        "type": "auto" if order.product_type == "card" else "manual",
        "status": "delivered",
        "payload": "\n".join(lines) if lines else order.receipt or "",
        "delivery_data": None,
        "delivered_at": instant(order.completed_at),
    }
