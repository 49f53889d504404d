"""Client of the kameng merchant API: signed orders, safe retries, verified webhooks.

    from kameng import Client

    with Client("https://hub.example", "ak_test_…", "sk_test_…") as client:
        order = client.orders.create("PO-1", "mobile-cn-100", target="13800138000")
        order = client.orders.wait_until_final(order)

`AsyncClient` is the same with `await`. Timeout or 5xx: the client sends the same body again, signed anew; if that does not help either it raises
NoAnswer, and you call again with the same arguments, or ask by your own number. Never invent a new number.
"""

from kameng._async.client import AsyncClient
from kameng._async.paging import AsyncPager
from kameng._sync.client import Client
from kameng._sync.paging import Pager
from kameng.calls import Page
from kameng.calls import order_body as order_item
from kameng.codes import open_codes
from kameng.errors import (
    ApiError,
    BadRequest,
    BadSignature,
    BooksStopped,
    BrokenAnswer,
    ClockOutOfStep,
    Conflict,
    CursorInvalid,
    DuplicateTarget,
    FieldError,
    Forbidden,
    InsufficientBalance,
    IpNotAllowed,
    KamengError,
    KeyExpired,
    MalformedJson,
    MerchantSuspended,
    NoAnswer,
    NonceReused,
    NotFinal,
    NotFound,
    NotGenuine,
    NotReady,
    NumberConflict,
    OutOfStock,
    PathNotCanonical,
    PriceChanged,
    ProductNotAuthorised,
    ProductUnavailable,
    RateLimited,
    ScopeMissing,
    ServerError,
    StateConflict,
    TargetNotSupported,
    TestValueInLive,
    Unauthorized,
    Unavailable,
    UnknownKey,
    Unprocessable,
    ValidationFailed,
    WebhookRefused,
)
from kameng.models import (
    Balance,
    Batch,
    BatchItem,
    CardCode,
    Delivery,
    Endpoint,
    EndpointWithSecret,
    Event,
    Order,
    OrderStatus,
    OrderValidation,
    Product,
    Receipt,
    Refund,
    Statement,
    Step,
    Transaction,
)
from kameng.proofs import verify_receipt, verify_statement
from kameng.retries import RetryPolicy
from kameng.webhooks import Webhooks

__version__ = "0.1.0"

__all__ = [
    "ApiError",
    "AsyncClient",
    "AsyncPager",
    "BadRequest",
    "BadSignature",
    "Balance",
    "Batch",
    "BatchItem",
    "BooksStopped",
    "BrokenAnswer",
    "CardCode",
    "Client",
    "ClockOutOfStep",
    "Conflict",
    "CursorInvalid",
    "Delivery",
    "DuplicateTarget",
    "Endpoint",
    "EndpointWithSecret",
    "Event",
    "FieldError",
    "Forbidden",
    "InsufficientBalance",
    "IpNotAllowed",
    "KamengError",
    "KeyExpired",
    "MalformedJson",
    "MerchantSuspended",
    "NoAnswer",
    "NonceReused",
    "NotFinal",
    "NotFound",
    "NotGenuine",
    "NotReady",
    "NumberConflict",
    "Order",
    "OrderStatus",
    "OrderValidation",
    "OutOfStock",
    "Page",
    "Pager",
    "PathNotCanonical",
    "PriceChanged",
    "Product",
    "ProductNotAuthorised",
    "ProductUnavailable",
    "RateLimited",
    "Receipt",
    "Refund",
    "RetryPolicy",
    "ScopeMissing",
    "ServerError",
    "StateConflict",
    "Statement",
    "Step",
    "TargetNotSupported",
    "TestValueInLive",
    "Transaction",
    "Unauthorized",
    "Unavailable",
    "UnknownKey",
    "Unprocessable",
    "ValidationFailed",
    "WebhookRefused",
    "Webhooks",
    "open_codes",
    "order_item",
    "verify_receipt",
    "verify_statement",
]
