"""What a signed order request must look like, decided from its bytes: the contract's checks in the contract's order."""

import hashlib
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from kameng_api.conformance.orders import defaults
from kameng_api.kit import signing, strict_json
from kameng_api.kit.errors import Problem

CLOCK_WINDOW_S: Final = 300
STATUS: Final[Mapping[str, int]] = {
    "malformed_json": 400, "path_not_canonical": 400, "cursor_invalid": 400,
    "auth_missing": 401, "auth_malformed": 401, "unknown_key": 401, "bad_signature": 401, "timestamp_out_of_window": 401, "nonce_reused": 401,
    "not_found": 404, "method_not_allowed": 405, "merchant_order_no_conflict": 409, "state_conflict": 409, "body_too_large": 413,
    "unsupported_media_type": 415, "validation_failed": 422, "product_unavailable": 422, "rate_limited": 429, "internal": 500, "unavailable": 503,
}  # fmt: skip
RETRY: Final[Mapping[str, str]] = {
    "timestamp_out_of_window": "same_request", "nonce_reused": "same_request", "internal": "same_request", "unavailable": "same_request",
    "rate_limited": "after_s", "merchant_order_no_conflict": "query_first", "state_conflict": "query_first",
}  # fmt: skip

_NUMBER: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_SKU: Final = re.compile(r"[A-Za-z0-9._~-]{1,64}")
_AMOUNT: Final = re.compile(r"(0|[1-9][0-9]{0,11})(\.[0-9]{1,4})?")
_KINDS: Final[Mapping[str, type]] = {
    "merchant_order_no": str, "sku": str, "quantity": int, "target": str, "fields": dict, "max_unit_price": str, "deliver_within_s": int,
    "notify_url": str, "metadata": dict, "confirm_duplicate": bool, "validate_only": bool,
}  # fmt: skip
_MAY_BE_NULL: Final = frozenset(("target", "max_unit_price", "deliver_within_s", "notify_url"))


class Refused(Exception):
    """A request the platform would refuse. `facts` are further members of the problem document."""

    def __init__(self, code: str, detail: str, **facts: Any) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.facts = facts


@dataclass(frozen=True, slots=True)
class Signed:
    """A request as it came in. `target` is the raw path and query."""

    method: str
    target: str
    authorizations: Sequence[str]
    body: bytes

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]


def text_to_sign(request: Signed) -> tuple[signing.Credentials, bytes]:
    """Credentials and the seven lines as the platform reads them. Raises Refused."""
    if not signing.path_is_canonical(request.path.encode()):
        raise Refused("path_not_canonical", "the path holds an escape, an empty or dot segment, or an odd letter")
    if not request.authorizations:
        raise Refused("auth_missing", "there is no Authorization header")
    if len(request.authorizations) > 1:
        raise Refused("auth_malformed", "there are two Authorization headers")
    try:
        credentials = signing.parse_authorization(request.authorizations[0].encode())
        digest = hashlib.sha256(request.body).hexdigest()
        text = signing.string_to_sign(
            credentials.scheme, credentials.timestamp, credentials.nonce, credentials.key_id, request.method, request.target.encode(), digest
        )
    except Problem as problem:
        raise Refused(problem.code, problem.detail) from None
    return credentials, text


def prove(request: Signed, *, key_id: str, secret: str, nonces: set[str], clock_offset_s: int) -> signing.Credentials:
    """Whose request it is. `clock_offset_s` is how far the kit's clock is ahead of the true one. Raises Refused."""
    credentials, text = text_to_sign(request)
    now = int(time.time()) + clock_offset_s
    if abs(credentials.timestamp - now) > CLOCK_WINDOW_S:
        raise Refused("timestamp_out_of_window", f"the timestamp is {credentials.timestamp - now:+d} s from our clock", server_time=now)
    if credentials.key_id != key_id:
        raise Refused("unknown_key", f"the kit knows only the key {key_id}")
    if credentials.scheme != signing.HMAC_SCHEME:
        raise Refused("bad_signature", "the kit's key is an HMAC key")
    if not signing.verify_hmac(secret.encode(), text, credentials.signature):
        raise Refused("bad_signature", "the signature is not this key's over the seven lines; compare with POST /v1/test/signature")
    if credentials.nonce in nonces:
        raise Refused("nonce_reused", "this nonce was used before: sign each attempt anew")
    nonces.add(credentials.nonce)
    return credentials


def read_order(body: bytes, content_type: str) -> tuple[dict[str, Any], bool]:
    """The order's content after defaults, and whether it is only to be validated. Raises Refused."""
    if content_type.partition(";")[0].strip().lower() != "application/json":
        raise Refused("unsupported_media_type", "send application/json")
    try:
        read = strict_json.loads(body)
    except Problem as problem:
        raise Refused(problem.code, problem.detail) from None
    wrong = _wrong(read) if isinstance(read, dict) else [("", "wrong_type", "an object is expected")]
    if wrong:
        errors = [{"pointer": pointer, "code": code, "detail": detail} for pointer, code, detail in wrong]
        raise Refused("validation_failed", "; ".join(f"{e['pointer']}: {e['detail']}" for e in errors), errors=errors)
    validate_only = bool(read.pop("validate_only", False))
    return defaults(read), validate_only


def _wrong(read: dict[str, Any]) -> list[tuple[str, str, str]]:
    wrong = [(f"/{name}", "unknown_field", "the contract knows no such field") for name in read if name not in _KINDS]
    wrong += [(f"/{name}", "required", "is missing") for name in ("merchant_order_no", "sku") if name not in read]
    for name, kind in _KINDS.items():
        value = read.get(name)
        if name in read and type(value) is not kind and not (value is None and name in _MAY_BE_NULL):
            wrong.append((f"/{name}", "wrong_type", f"must be {kind.__name__}, strictly"))
    if wrong:
        return wrong
    if not _NUMBER.fullmatch(read["merchant_order_no"]):
        wrong.append(("/merchant_order_no", "format", "1 to 64 of [A-Za-z0-9_-]"))
    if not _SKU.fullmatch(read["sku"]):
        wrong.append(("/sku", "format", "1 to 64 of [A-Za-z0-9._~-]"))
    if not 1 <= read.get("quantity", 1) <= 100_000:
        wrong.append(("/quantity", "out_of_range", "1 to 100000"))
    if read.get("max_unit_price") is not None and not _AMOUNT.fullmatch(read["max_unit_price"]):
        wrong.append(("/max_unit_price", "format", 'a decimal string with at most four places, such as "98.5000"'))
    return wrong
