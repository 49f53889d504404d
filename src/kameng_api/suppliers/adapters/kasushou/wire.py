"""卡速售's spelling: two signatures that escape differently, request bodies, amounts. Source: doc.kasushou.com/api/v2api (2026-04-14)."""

import hmac
import json
import re
from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from hashlib import sha1
from typing import Any, Final, NoReturn
from urllib.parse import parse_qsl

import orjson

from kameng_api.kit.money import LARGEST, SCALE, format_amount
from kameng_api.suppliers.port import Purchase

TARGET_FIELD: Final = "recharge_account"
UNSIGNED: Final = frozenset({"sign", "card_list", "express_list"})
"""What an order's callback carries outside its signature: the cards among it."""
_DECIMAL: Final = re.compile(r"-?(0|[1-9][0-9]{0,11})(\.[0-9]{1,8})?\Z")


class Unreadable(ValueError):
    """Not what the document says; the message names the part, never its value."""


class Token(str):
    """A JSON number with a fraction, as it was written: signatures cover the digits, not the value."""

    __slots__ = ()


def request_body(params: Mapping[str, Any]) -> bytes:
    """Compact JSON, names sorted, slashes and Unicode unescaped, `{}` when empty: what PHP makes of it again, byte by byte."""
    return orjson.dumps(params, option=orjson.OPT_SORT_KEYS).replace(b"\xe2\x80\xa8", rb"\u2028").replace(b"\xe2\x80\xa9", rb"\u2029")


def sign(apikey: str, time_ms: str, body: bytes) -> str:
    """Lower-case hex SHA-1 of timestamp, JSON and key."""
    return sha1(time_ms.encode() + body + apikey.encode(), usedforsecurity=False).hexdigest()


def callback_text(fields: Mapping[str, Any]) -> bytes:
    """What a callback signs: the fields sorted, Unicode unescaped, and, unlike in a request, slashes **escaped**. Raises Unreadable."""
    pairs = [f"{_php(name)}:{_scalar(fields[name])}" for name in sorted(fields) if name not in UNSIGNED]
    return ("{" + ",".join(pairs) + "}").encode()


def is_signed(apikey: str, fields: Mapping[str, Any]) -> bool:
    """An order's callback. Raises Unreadable."""
    return _same(sign(apikey, text(fields, "time"), callback_text(fields)), fields)


def is_hint_signed(apikey: str, fields: Mapping[str, Any]) -> bool:
    """A pushed change of a product: only its id and the time are signed, price and stock are not. Raises Unreadable."""
    return _same(sign(apikey, text(fields, "time"), callback_text({name: fields.get(name) for name in ("id", "time")})), fields)


def _same(signature: str, fields: Mapping[str, Any]) -> bool:
    return hmac.compare_digest(signature.encode(), text(fields, "sign").encode())


def _php(value: str) -> str:
    """A string as `json_encode($x, JSON_UNESCAPED_UNICODE)` writes it."""
    written = json.dumps(value, ensure_ascii=False).replace("/", "\\/")
    return written.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _scalar(value: object) -> str:
    if isinstance(value, Token):
        return str(value)
    if isinstance(value, str):
        return _php(value)
    if value is None or isinstance(value, bool | int):
        return json.dumps(value)
    raise Unreadable("a signed field is not a text or number")


def order_params(purchase: Purchase) -> dict[str, Any]:
    """Raises Unreadable when the purchase cannot be said, or its outcome could not be told, in this protocol."""
    if not (purchase.product_code.isascii() and purchase.product_code.isdigit()):
        raise Unreadable("a product is a number")
    params: dict[str, Any] = {
        "id": int(purchase.product_code),
        "external_orderno": purchase.reference,
        "quantity": purchase.units,
        "safe_price": limit_text(purchase.max_cost),
    }
    if purchase.callback_url:
        params["url"] = purchase.callback_url
    if purchase.units != 1:
        raise Unreadable("no answer says how many units an order has")
    attach = dict(purchase.fields)
    if purchase.target:
        attach[TARGET_FIELD] = purchase.target
    if purchase.product_type == "topup":
        params["attach"] = attach
    elif attach:
        raise Unreadable("an order for cards carries nothing")
    return params


def limit_text(amount: int) -> str:
    """Two places at least, no more than are needed: `"2.20"`, `"2.2345"`."""
    whole, _, part = format_amount(amount).partition(".")
    return f"{whole}.{part.rstrip('0').ljust(2, '0')}"


def read_object(body: bytes) -> dict[str, Any]:
    """A JSON object, each name once at every level, numbers with a fraction as Token. Raises Unreadable."""
    try:
        found = json.loads(body, object_pairs_hook=_each_once, parse_float=Token, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise Unreadable("not JSON") from error
    if not isinstance(found, dict):
        raise Unreadable("not an object")
    return found


def read_post(body: bytes) -> dict[str, Any]:
    """A callback's fields: the document says POST and shows PHP's `$post`, which is a form or JSON. Raises Unreadable."""
    if body[:1] == b"{":
        return read_object(body)
    try:
        pairs = parse_qsl(body.decode("ascii"), keep_blank_values=True, strict_parsing=True, errors="strict", max_num_fields=60)
    except ValueError as error:
        raise Unreadable("not a form") from error
    return _each_once(pairs)


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Unreadable("a name stands twice")
    return found


def _refuse(constant: str) -> NoReturn:
    raise Unreadable(constant)


def text(fields: Mapping[str, Any], name: str) -> str:
    """A text, or a number as it was written; empty when there is none."""
    value = fields.get(name)
    return str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""


def amount(value: object) -> int:
    """Yuan as text or number → 1/10000, digits beyond the fourth rounded up. Raises Unreadable."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise Unreadable("an amount is missing")
    if not _DECIMAL.match(str(value)):
        raise Unreadable("an amount is not decimal")
    exact = Decimal(str(value)) * SCALE
    found = int(exact) + (exact > int(exact))
    if abs(found) > LARGEST:
        raise Unreadable("an amount is too large")
    return found


def expiry(value: object) -> date | None:
    """A card's `end_time`, `2026-12-31` or `2026-12-31 23:59:59`; None where there is none or it is no date."""
    try:
        return date.fromisoformat(str(value)[:10]) if value else None
    except ValueError:
        return None
