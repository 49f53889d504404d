"""The shapes of order answers, for the OpenAPI document and the tests that hold answers against it."""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from kameng_api.orders.rules import FailureCode, Status, Substatus


class Shape(BaseModel):
    """What goes out. New members may be added; clients ignore those they do not know."""

    model_config = ConfigDict(extra="forbid")


class Failure(Shape):
    code: FailureCode
    detail: str


class Delivery(Shape):
    receipt: str | None
    delivered_at: datetime


class OrderResource(Shape):
    """An order. Money: decimal strings with four places. Final states do not change; a later refund is its own object."""

    id: str
    object: Literal["order"]
    environment: Literal["live", "test"]
    version: int
    status: Status
    substatus: Substatus | None
    merchant_order_no: str
    sku: str
    product_type: Literal["topup", "card", "voucher"]
    quantity: int
    delivered_quantity: int
    target: str | None
    unit_price: str
    amount: str
    currency: str
    refunded_amount: str
    codes_available: bool
    failure: Failure | None
    delivery: Delivery | None
    created_at: datetime
    dispatched_at: datetime | None
    completed_at: datetime | None
    metadata: dict[str, Any]


class OrderList(Shape):
    items: list[OrderResource]
    next_cursor: str | None


class OrderValidation(Shape):
    """The answer to `validate_only`: nothing was stored."""

    object: Literal["order_validation"]
    valid: bool
    merchant_order_no: str
    sku: str
    quantity: int
    unit_price: str
    amount: str
    currency: str


class Step(Shape):
    at: datetime
    step: str
    detail: str


class Timeline(Shape):
    order_id: str
    items: list[Step]


class RefundResource(Shape):
    id: str
    refund_no: str
    reason: str
    amount: str
    currency: str
    created_at: datetime


class RefundList(Shape):
    items: list[RefundResource]
    next_cursor: str | None


class CodesEnvelope(Shape):
    """Card codes under the merchant's delivery key; `ciphertext` is base64 of ciphertext and tag."""

    algorithm: Literal["AEAD_AES_256_GCM"]
    kid: str
    nonce: str
    associated_data: str
    ciphertext: str
