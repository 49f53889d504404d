"""Everything the client raises.

KamengError
├── NoAnswer                 no answer, or none that can be read, until the deadline: what happened is unknown
├── ApiError                 a problem document; `.code`, `.charged`, `.retry`, `.request_id`
│   ├── BadRequest           400    (MalformedJson, CursorInvalid …)
│   ├── Unauthorized         401    BadSignature, UnknownKey, KeyExpired, ClockOutOfStep, NonceReused
│   ├── InsufficientBalance  402
│   ├── Forbidden            403    IpNotAllowed, ScopeMissing, MerchantSuspended, ProductNotAuthorised
│   ├── NotFound             404
│   ├── Conflict             409    NumberConflict, StateConflict, NotReady
│   ├── Unprocessable        422    ValidationFailed, ProductUnavailable, PriceChanged, TargetNotSupported, OutOfStock, DuplicateTarget …
│   ├── RateLimited          429
│   └── ServerError          5xx    Unavailable, BooksStopped
├── NotFinal                 wait_until_final ran out of patience; the order goes on
├── WebhookRefused           a webhook is not genuine, or too old
├── NotGenuine               a statement, a receipt or an envelope of codes is not what it says
└── BrokenAnswer             the house answered 2xx with something this client cannot read

A code this client does not know is raised as the class of its status: new codes are no surprise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal

Charged = Literal["no", "yes", "unknown"]
Retry = Literal["never", "same_request", "after_s", "query_first"]


class KamengError(Exception):
    """Whatever this package raises on purpose."""


@dataclass(frozen=True)
class FieldError:
    """One field that was refused. `pointer` is a JSON pointer into the body (or `/query/…`, `/path/…`)."""

    pointer: str
    code: str
    detail: str


class NoAnswer(KamengError):
    """Every attempt until the deadline ended in silence, or in an answer that tells nothing.

    What happened is unknown. Send the same body and number again, or ask by your own number; never invent a new number.
    """

    charged: Charged = "unknown"
    retry: Retry = "same_request"

    def __init__(self, message: str, *, attempts: int, charged: Charged = "unknown") -> None:
        super().__init__(message)
        self.attempts = attempts
        self.charged = charged


class ApiError(KamengError):
    """The house refused, and said why in a problem document.

    `charged`: whether this call may have moved money; `unknown` too when an earlier attempt of the same call went unanswered.
    `retry`: what the house says a program should do next. `document` is the whole document, with whatever a later version adds.
    """

    def __init__(self, status: int, document: Mapping[str, Any], *, attempts: int = 1, earlier_unknown: bool = False) -> None:
        self.status = status
        self.document = dict(document)
        self.code: str = str(document.get("code", "unknown"))
        self.title: str = str(document.get("title", ""))
        self.detail: str = str(document.get("detail", ""))
        self.request_id: str = str(document.get("request_id", ""))
        self.retry: str = str(document.get("retry", "never"))
        self.charged: str = "unknown" if earlier_unknown else str(document.get("charged", "unknown"))
        self.retry_after_s: float | None = None
        self.attempts = attempts
        self.earlier_unknown = earlier_unknown
        found = document.get("errors")
        self.errors: tuple[FieldError, ...] = tuple(
            FieldError(str(e.get("pointer", "")), str(e.get("code", "")), str(e.get("detail", "")))
            for e in (found if isinstance(found, list) else [])
            if isinstance(e, Mapping)
        )
        super().__init__(self._sentence())

    def _sentence(self) -> str:
        where = "; ".join(f"{e.pointer} {e.detail}" for e in self.errors)
        told = f"{self.status} {self.code}: {self.detail or self.title}" + (f" ({where})" if where else "")
        return f"{told} [request {self.request_id}]" if self.request_id else told


class BadRequest(ApiError):
    """400, and whatever 4xx has no class of its own."""


class MalformedJson(BadRequest):
    """`malformed_json`"""


class PathNotCanonical(BadRequest):
    """`path_not_canonical`"""


class CursorInvalid(BadRequest):
    """`cursor_invalid`: the cursor belongs to other filters, or the event is no longer on record."""


class Unauthorized(ApiError):
    """401"""


class UnknownKey(Unauthorized):
    """`unknown_key`"""


class KeyExpired(Unauthorized):
    """`key_expired`"""


class BadSignature(Unauthorized):
    """`bad_signature`: wrong secret, or something between changed the request. See `client.test.signature()`."""


class ClockOutOfStep(Unauthorized):
    """`timestamp_out_of_window`, even after this client took over the house's time."""

    @property
    def server_time(self) -> int | None:
        told = self.document.get("server_time")
        return told if isinstance(told, int) else None


class NonceReused(Unauthorized):
    """`nonce_reused`"""


class InsufficientBalance(ApiError):
    """402 `insufficient_balance`: nothing was stored; fund the account and send the same number again."""


class Forbidden(ApiError):
    """403"""


class IpNotAllowed(Forbidden):
    """`ip_not_allowed`"""


class ScopeMissing(Forbidden):
    """`scope_missing`"""


class MerchantSuspended(Forbidden):
    """`merchant_suspended`"""


class ProductNotAuthorised(Forbidden):
    """`product_not_authorised`"""


class NotFound(ApiError):
    """404: it does not exist, or it is not yours."""


class Conflict(ApiError):
    """409"""


class NumberConflict(Conflict):
    """Your number stands for something with other content. Look at it before doing anything."""

    @property
    def existing_order_id(self) -> str | None:
        told = self.document.get("existing_order_id")
        return told if isinstance(told, str) else None


class StateConflict(Conflict):
    """`state_conflict`: the object is not in a state that allows this; `existing_id` where the object is there already."""

    @property
    def existing_id(self) -> str | None:
        told = self.document.get("existing_id")
        return told if isinstance(told, str) else None


class NotReady(Conflict):
    """`statement_not_ready`, `not_sealed_yet`: later."""


class Unprocessable(ApiError):
    """422"""


class ValidationFailed(Unprocessable):
    """`validation_failed`: see `errors`."""


class ProductUnavailable(Unprocessable):
    """`product_unavailable`"""


class PriceChanged(Unprocessable):
    """`price_changed`: the price is above `max_unit_price`."""


class TargetNotSupported(Unprocessable):
    """`target_not_supported`"""


class OutOfStock(Unprocessable):
    """`out_of_stock`"""


class DuplicateTarget(Unprocessable):
    """`duplicate_target`: this target was charged a moment ago; `confirm_duplicate` overrides."""


class TestValueInLive(Unprocessable):
    """`test_value_in_live`: a magic test target with a live key."""

    __test__: ClassVar[bool] = False


class RateLimited(ApiError):
    """429, and waiting as long as it says would pass the deadline."""


class ServerError(ApiError):
    """5xx until the deadline."""


class Unavailable(ServerError):
    """`unavailable`"""


class BooksStopped(ServerError):
    """`books_stopped`: the operator looks into your account; nothing was stored."""


class NotFinal(KamengError):
    """The order (or batch) was not final in time. It goes on by itself; `order` is how it stood when last looked at."""

    def __init__(self, order: Any) -> None:
        substatus = getattr(order, "substatus", None)
        super().__init__(f"{order.id} is still {order.status}" + (f" ({substatus})" if substatus else ""))
        self.order = order


class WebhookRefused(KamengError):
    """Not genuine, or too old or too new: answer 400 and do nothing."""


class NotGenuine(KamengError):
    """A file, a proof or a ciphertext is not what it says; the message says which."""


class BrokenAnswer(KamengError):
    """A 2xx answer that cannot be read as what was asked for: perhaps not from the house at all. What was asked for may have been done."""


BY_CODE: Final[Mapping[str, type[ApiError]]] = {
    "malformed_json": MalformedJson,
    "path_not_canonical": PathNotCanonical,
    "cursor_invalid": CursorInvalid,
    "unknown_key": UnknownKey,
    "key_expired": KeyExpired,
    "bad_signature": BadSignature,
    "timestamp_out_of_window": ClockOutOfStep,
    "nonce_reused": NonceReused,
    "insufficient_balance": InsufficientBalance,
    "ip_not_allowed": IpNotAllowed,
    "scope_missing": ScopeMissing,
    "merchant_suspended": MerchantSuspended,
    "product_not_authorised": ProductNotAuthorised,
    "merchant_order_no_conflict": NumberConflict,
    "merchant_batch_no_conflict": NumberConflict,
    "state_conflict": StateConflict,
    "statement_not_ready": NotReady,
    "not_sealed_yet": NotReady,
    "validation_failed": ValidationFailed,
    "product_unavailable": ProductUnavailable,
    "price_changed": PriceChanged,
    "target_not_supported": TargetNotSupported,
    "out_of_stock": OutOfStock,
    "duplicate_target": DuplicateTarget,
    "test_value_in_live": TestValueInLive,
    "unavailable": Unavailable,
    "books_stopped": BooksStopped,
}
_BY_STATUS: Final[Mapping[int, type[ApiError]]] = {
    401: Unauthorized,
    402: InsufficientBalance,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    422: Unprocessable,
    429: RateLimited,
}


def error_of(status: int, document: Mapping[str, Any], *, attempts: int = 1, earlier_unknown: bool = False) -> ApiError:
    """The problem document as the exception of its code, else of its status."""
    fallback = ServerError if status >= 500 else _BY_STATUS.get(status, BadRequest)
    kind = BY_CODE.get(str(document.get("code")), fallback)
    return kind(status, document, attempts=attempts, earlier_unknown=earlier_unknown)
