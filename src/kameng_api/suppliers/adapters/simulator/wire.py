"""The simulator's spelling: signature, request parameters, amounts. Its manual is docs/simulator.md."""

import hmac
import json
import re
from collections.abc import Mapping
from datetime import date
from typing import Any, Final

import orjson

from kameng_api.kit.money import format_amount, parse_amount
from kameng_api.suppliers.port import Purchase

CLOCK_WINDOW_S: Final = 300
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")


class Unreadable(ValueError):
    """Not what the manual says; the message names the part, never its value."""


def sign(secret: str, params: Mapping[str, str]) -> str:
    """Lower-case hex HMAC-SHA256 over `name=value` lines, sorted by name, without `sign` and empty values."""
    text = "\n".join([f"{name}={params[name]}" for name in sorted(params) if name != "sign" and params[name]])
    return hmac.digest(secret.encode(), text.encode(), "sha256").hex()


def is_signed(secret: str, params: Mapping[str, str]) -> bool:
    return hmac.compare_digest(sign(secret, params).encode(), params.get("sign", "").encode())


def signed_body(secret: str, app_key: str, now_s: int, nonce: str, params: Mapping[str, str]) -> bytes:
    complete = {**params, "app_key": app_key, "timestamp": str(now_s), "nonce": nonce}
    complete["sign"] = sign(secret, complete)
    return orjson.dumps(complete)


def order_params(purchase: Purchase) -> dict[str, str]:
    """Raises Unreadable when the purchase cannot be said in this protocol."""
    params = {
        "out_order_no": purchase.reference,
        "product_code": purchase.product_code,
        "units": str(purchase.units),
        "max_cost": format_amount(purchase.max_cost),
        "target": purchase.target or "",
        "callback_url": purchase.callback_url or "",
        "face_value": "" if purchase.face_value is None else format_amount(purchase.face_value),
        "fields": json.dumps(dict(purchase.fields), ensure_ascii=False, sort_keys=True) if purchase.fields else "",
    }
    if _CONTROL.search("".join(params.values())):
        name = next(name for name, value in params.items() if _CONTROL.search(value))
        raise Unreadable(f"{name} holds control characters")
    return params


def read_flat(body: bytes) -> dict[str, str]:
    """A flat object of strings, each name once, no control characters. Raises Unreadable."""
    params = read_object(body)
    if not all(isinstance(value, str) for value in params.values()):
        raise Unreadable("a value is not a string")
    if any(_CONTROL.search(name) or _CONTROL.search(value) for name, value in params.items()):
        raise Unreadable("control characters")
    return params


def read_object(body: bytes) -> dict[str, Any]:
    """An object in which each name stands once, at every level. Raises Unreadable."""
    try:
        found = orjson.loads(body)
        if orjson.dumps(found) != body:  # what is written back the same held no name twice; the rest is read with more care
            found = json.loads(body, object_pairs_hook=_each_once)
    except (ValueError, TypeError, RecursionError) as error:  # TypeError: nested too deep for orjson
        raise Unreadable("not JSON") from error
    if not isinstance(found, dict):
        raise Unreadable("not an object")
    return found


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Unreadable("a name stands twice")
    return found


def amount(text: object) -> int:
    """Signed decimal text → 1/10000 units. Raises Unreadable."""
    if not isinstance(text, str):
        raise Unreadable("an amount is not a string")
    try:
        return -parse_amount(text[1:]) if text.startswith("-") else parse_amount(text)
    except ValueError as error:
        raise Unreadable("an amount is not decimal") from error


def expiry(text: object) -> date | None:
    if not text:
        return None
    try:
        return date.fromisoformat(str(text))
    except ValueError as error:
        raise Unreadable("an expiry date is not a date") from error
