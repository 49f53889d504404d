"""Every refusal as one kind of document (RFC 9457), with every code that may stand in it in one table.

`charged` says whether this request may have moved money, `retry` what a program should do next: `never` (the same request will be refused
again), `same_request` (send the same body and number again, signed anew), `after_s` (the same, after `Retry-After`), `query_first` (look at the
object before doing anything).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson
import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError, ResponseValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import Scope

from kameng_api.kit.errors import FieldError, Problem, Unavailable
from kameng_api.kit.gather import Interrupted, Overflow
from kameng_api.kit.strict_json import MalformedJson

MEDIA_TYPE: Final = "application/problem+json"
TYPE_PREFIX: Final = "urn:kameng:problem:"
RETRY_AFTER_S: Final = 1

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a code means to a program, and a sentence for people where the refusal itself brings none."""

    status: int
    title: str
    detail: str
    retry: str = "never"
    charged: str = "no"


CODES: Final[Mapping[str, Meaning]] = {
    "malformed_json": Meaning(400, "Malformed JSON", "The body is not one unambiguous JSON document."),
    "path_not_canonical": Meaning(400, "Path not canonical", "The path holds an escape, an empty or dot segment, or an odd letter."),
    "cursor_invalid": Meaning(400, "Cursor invalid", "The cursor was not given out for this list and these filters."),
    "bad_request": Meaning(400, "Bad request", "The request cannot be understood."),
    "auth_missing": Meaning(401, "Signature missing", "Sign the request with an Authorization header."),
    "auth_malformed": Meaning(401, "Signature malformed", "The Authorization header is not written as the contract says."),
    "unknown_key": Meaning(401, "Unknown key", "No key has this id."),
    "key_expired": Meaning(401, "Key not valid", "The key is revoked, expired, or not valid yet."),
    "bad_signature": Meaning(401, "Bad signature", "The signature is not this key's over this request."),
    "timestamp_out_of_window": Meaning(
        401, "Clock out of step", "The timestamp is more than 300 s from our clock; see server_time.", "same_request"
    ),
    "nonce_reused": Meaning(401, "Nonce reused", "Sign each attempt anew, with a fresh nonce.", "same_request"),
    "token_invalid": Meaning(401, "Token not valid", "The bearer token is missing, unknown, expired or revoked."),
    "insufficient_balance": Meaning(402, "Insufficient balance", "The spendable balance does not cover the amount."),
    "ip_not_allowed": Meaning(403, "Address not allowed", "The request comes from an address outside the allowlist."),
    "scope_missing": Meaning(403, "Scope missing", "The key was not given this right."),
    "role_missing": Meaning(403, "Role missing", "Your role may not do this."),
    "merchant_suspended": Meaning(403, "Merchant suspended", "The operator has stopped this merchant."),
    "product_not_authorised": Meaning(403, "Product not authorised", "This product is not open to you."),
    "not_found": Meaning(404, "Not found", "It does not exist, or it is not yours."),
    "method_not_allowed": Meaning(405, "Method not allowed", "This path knows other methods; see Allow."),
    "body_timeout": Meaning(408, "Body too slow", "The body did not arrive in time.", "same_request"),
    "merchant_order_no_conflict": Meaning(
        409, "Number already used", "This merchant_order_no stands for an order with other content.", "query_first"
    ),
    "merchant_batch_no_conflict": Meaning(
        409, "Number already used", "This merchant_batch_no stands for a batch with other content.", "query_first"
    ),
    "statement_not_ready": Meaning(409, "Statement not ready", "The day is not over, or its statement is being made.", "after_s"),
    "not_sealed_yet": Meaning(409, "Not sealed yet", "Some events of this order are too young to stand in a sealed block.", "after_s"),
    "state_conflict": Meaning(409, "State conflict", "The object is not in a state that allows this.", "query_first"),
    "rows_gone": Meaning(410, "Rows no longer kept", "The batch ended long ago and its rows were deleted; its items still tell what became of each."),
    "body_too_large": Meaning(413, "Body too large", "The body is larger than this path takes: 1 MB, 10 MB for imports."),
    "unsupported_media_type": Meaning(415, "Unsupported media type", "Send application/json, not compressed."),
    "validation_failed": Meaning(422, "Validation failed", "Some fields are wrong; see errors."),
    "product_unavailable": Meaning(422, "Product unavailable", "This product cannot be bought now."),
    "price_changed": Meaning(422, "Price changed", "The price is above max_unit_price."),
    "target_not_supported": Meaning(422, "Target not supported", "This product cannot be delivered to this target."),
    "out_of_stock": Meaning(422, "Out of stock", "No supplier has this product now."),
    "duplicate_target": Meaning(
        422, "Duplicate target", "This target was charged with this product a moment ago; confirm_duplicate overrides.", "query_first"
    ),
    "test_value_in_live": Meaning(422, "Test value in live", "A magic test target was sent with a live key."),
    "rate_limited": Meaning(429, "Rate limited", "Too many requests; see Retry-After.", "after_s"),
    "internal": Meaning(500, "Internal error", "We failed; what happened is not known to you.", "same_request", "unknown"),
    "books_stopped": Meaning(
        503, "Books stopped", "Postings of your account are stopped while the operator looks into it. Nothing was stored.", "after_s"
    ),
    "unavailable": Meaning(503, "Unavailable", "A server that we need did not answer.", "same_request", "unknown"),
}
"""Every code that merchants or operators may meet; docs/errors.md explains each, a test compares the two."""

_BY_STATUS: Final = {
    400: "bad_request",
    401: "auth_missing",
    403: "scope_missing",
    404: "not_found",
    405: "method_not_allowed",
    408: "body_timeout",
    413: "body_too_large",
    415: "unsupported_media_type",
    422: "validation_failed",
    429: "rate_limited",
    503: "unavailable",
}
_OWN_MEMBERS: Final = frozenset(
    ("type", "title", "status", "detail", "instance", "code", "request_id", "charged", "retry", "errors")
)
_READING: Final = frozenset(("GET", "HEAD", "OPTIONS"))
_CHALLENGE: Final = "KM1-HMAC-SHA256, KM1-ED25519"


class NothingHappened(Unavailable):
    """A server that we need did not answer, and that was noticed before anything was done."""


class RateLimited(Problem):
    """More requests than the key, or this address, may make now. Fact: `retry_after_s`."""

    code = "rate_limited"


class Refused(Problem):
    """A refusal whose code is known only where it is raised."""

    def __init__(self, code: str, detail: str = "", *, errors: Sequence[FieldError] = (), **facts: Any) -> None:
        super().__init__(detail, errors=errors, **facts)
        self.code = code  # type: ignore[misc]  # the class has none of its own


def document(
    code: str,
    *,
    request_id: str,
    method: str,
    instance: str,
    detail: str = "",
    errors: Sequence[FieldError] = (),
    facts: Mapping[str, Any] | None = None,
    charged: str | None = None,
) -> bytes:
    """The problem document as bytes. A request that only reads is never charged."""
    meaning = CODES[code]
    body: dict[str, Any] = {
        "type": TYPE_PREFIX + code,
        "title": meaning.title,
        "status": meaning.status,
        "detail": detail or meaning.detail,
        "instance": instance,
        "code": code,
        "request_id": request_id,
        "charged": "no" if method in _READING else charged or meaning.charged,
        "retry": meaning.retry,
    }
    if errors:
        body["errors"] = [{"pointer": e.pointer, "code": e.code, "detail": e.detail} for e in errors]
    if facts:
        body |= {name: value for name, value in facts.items() if name not in _OWN_MEMBERS}
    return orjson.dumps(body, default=str)


def response(scope: Scope, code: str, **parts: Any) -> Response:
    """The problem as a response to the request in `scope`; `parts` as for `document`, and `headers`."""
    headers: dict[str, str] = dict(parts.pop("headers", None) or {})
    content = document(
        code,
        request_id=scope.get("kameng.request_id", ""),
        method=scope["method"],
        instance=scope["path"],
        **parts,
    )
    status = CODES[code].status
    if status == 401:
        headers.setdefault("WWW-Authenticate", "Bearer" if code == "token_invalid" else _CHALLENGE)
    if status in (429, 503) or CODES[code].retry == "after_s":
        wait_s = (parts.get("facts") or {}).get("retry_after_s", RETRY_AFTER_S)
        headers.setdefault("Retry-After", str(wait_s))
    return Response(content, status, headers, MEDIA_TYPE)


def answer_to(scope: Scope, trouble: Exception) -> Response:
    """What is said of any exception. What is ours is logged and never shown."""
    match trouble:
        case MalformedJson():
            at = [FieldError(trouble.pointer, "malformed_json", trouble.detail)] if trouble.pointer else []
            return response(scope, trouble.code, detail=trouble.detail, errors=at)
        case Problem() if trouble.code == "not_found":
            return response(scope, "not_found")  # one text for all: what is not yours reads like what is not there
        case Problem() if trouble.code in CODES and (CODES[trouble.code].status < 500 or trouble.code == "books_stopped"):
            return response(scope, trouble.code, detail=trouble.detail, errors=trouble.errors, facts=trouble.facts)
        case RequestValidationError():
            return response(scope, "validation_failed", errors=field_errors(trouble.errors()))
        case HTTPException() if trouble.status_code in _BY_STATUS:
            return response(scope, _BY_STATUS[trouble.status_code], headers=trouble.headers)
        case HTTPException() if trouble.status_code < 500:
            return response(scope, "bad_request", headers=trouble.headers)
        case NothingHappened():
            return response(scope, "unavailable", detail=str(trouble), charged="no")
        case Overflow():
            return response(scope, "unavailable", detail="More requests wait than we may hold.", charged="no")
        case Unavailable() | Interrupted():
            _log.warning("request.unavailable", request_id=scope.get("kameng.request_id"), exc_info=trouble)
            return response(scope, "unavailable")
        case Problem() if trouble.code == "unavailable":
            _log.error("request.stopped", request_id=scope.get("kameng.request_id"), exc_info=trouble)
            return response(scope, "unavailable")
        case _:
            _log.error("request.failed", request_id=scope.get("kameng.request_id"), exc_info=trouble)
            return response(scope, "internal")


_FIELD_CODES: Final = {
    "missing": "required",
    "extra_forbidden": "unknown_field",
    "string_too_short": "too_short",
    "string_too_long": "too_long",
    "too_short": "too_short",
    "too_long": "too_long",
    "string_pattern_mismatch": "format",
    "value_error": "format",
    "json_invalid": "format",
    "literal_error": "unknown_value",
    "enum": "unknown_value",
    "greater_than": "out_of_range",
    "greater_than_equal": "out_of_range",
    "less_than": "out_of_range",
    "less_than_equal": "out_of_range",
    "multiple_of": "out_of_range",
    "finite_number": "out_of_range",
}


def field_errors(errors: Sequence[Mapping[str, Any]]) -> list[FieldError]:
    """Pydantic's errors in our words: where, which rule, a sentence; never the value that was sent."""
    return [_field_error(error) for error in errors[:100]]


def _field_error(error: Mapping[str, Any]) -> FieldError:
    where = [str(step).replace("~", "~0").replace("/", "~1") for step in error["loc"]]
    if where and where[0] == "body":
        where = where[1:]
    kind = error["type"]
    code = _FIELD_CODES.get(kind)
    if code is None:
        code = "wrong_type" if kind.endswith(("_type", "_parsing")) else "invalid"
    message = str(error["msg"]).removeprefix("Value error, ")
    return FieldError("".join(f"/{step}" for step in where), code, message)


def install(app: FastAPI) -> None:
    """Let the framework's own refusals, and ours, be told in problem documents."""
    for kind in (Problem, RequestValidationError, HTTPException, Unavailable, Overflow, Interrupted, ResponseValidationError):
        app.add_exception_handler(kind, _handle)


async def _handle(request: Request, trouble: Exception) -> Response:
    return answer_to(request.scope, trouble)

