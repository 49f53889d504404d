"""卡卡云's spelling: the signature, the recharge fields, amounts.

Source: the vendor's document (showdoc 2592446100589081, copy of 2026-04-14): 签名计算规则, 统一下单接口, 充值字段类型.
"""

import hmac
import json
import re
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from hashlib import md5
from typing import Any, Final

import orjson

from kameng_api.kit.money import SCALE, format_amount
from kameng_api.suppliers.port import Purchase

CLOCK_WINDOW_S: Final = 300
ACCOUNT: Final = "1"
"""The recharge field type (attachtype) of the number or account to charge."""
_DECIMAL: Final = re.compile(r"\A(-?)([0-9]{1,12})(?:\.([0-9]{1,12}))?\Z")
_CODE: Final = re.compile(r"\A[1-9][0-9]{0,17}\Z")
_FIELD: Final = re.compile(r"\A[1-9][0-9]?\Z")
_CONTROL: Final = re.compile("[\x00-\x1f\x7f\u2028\u2029]")
_CHINA: Final = timedelta(hours=8)


class Unreadable(ValueError):
    """Not what the document says; the message names the part, never its value."""


def text_to_sign(params: Mapping[str, Any], *, inner_sorted: bool = False) -> str:
    """`k=v` sorted by name and joined by `&`, without `sign` and without empty values; lists and objects as JSON without blanks.

    The document's code leaves the names inside an object as they come; clients sort them (`inner_sorted`).
    """
    option = orjson.OPT_SORT_KEYS if inner_sorted else 0
    parts = []
    for name in sorted(params):
        value = params[name]
        if name == "sign" or value is None or value == "":
            continue
        if isinstance(value, bool):
            value = "true" if value else "false"
        elif isinstance(value, dict | list):
            value = orjson.dumps(value, option=option).decode()
        elif isinstance(value, float):
            value = repr(value).removesuffix(".0")
        parts.append(f"{name}={value}")
    return "&".join(parts)


def sign(key: str, params: Mapping[str, Any], *, inner_sorted: bool = False) -> str:
    """Lower-case hex MD5 of the text with the key behind it, nothing between them."""
    return md5((text_to_sign(params, inner_sorted=inner_sorted) + key).encode(), usedforsecurity=False).hexdigest()


def is_signed(key: str, params: Mapping[str, Any]) -> bool:
    told = str(params.get("sign", "")).encode()
    return any(hmac.compare_digest(sign(key, params, inner_sorted=inner).encode(), told) for inner in (False, True))


def order_params(purchase: Purchase) -> dict[str, Any]:
    """What `order/create` is asked. Raises Unreadable when it cannot be said in this protocol."""
    if purchase.face_value is not None:
        raise Unreadable("a face value cannot be named")
    params: dict[str, Any] = {
        "goodsid": goods_id(purchase.product_code),
        "buynum": purchase.units,
        "usorderno": purchase.reference,
        "maxmoney": _money(purchase.max_cost),
        "attach": _attach(purchase),
        "callbackurl": purchase.callback_url,
    }
    return {name: value for name, value in params.items() if value not in (None, "")}


def goods_id(code: str) -> str:
    """Raises Unreadable."""
    if not _CODE.match(code):
        raise Unreadable("a product code is a number")
    return code


def _attach(purchase: Purchase) -> str | list[dict[str, str]] | None:
    """The account alone, or with further fields a list; a field's name is its type in the vendor's table (充值字段类型)."""
    values = [purchase.target or "", *purchase.fields.values()]
    if any(_CONTROL.search(value) for value in values):
        raise Unreadable("a field holds control characters")
    if not purchase.fields:
        return purchase.target
    if not all(_FIELD.match(name) and name != ACCOUNT for name in purchase.fields):
        raise Unreadable("a field's name is its number in the vendor's table")
    account = {ACCOUNT: purchase.target} if purchase.target else {}
    return [{"attachtype": name, "value": value} for name, value in {**account, **purchase.fields}.items()]


def _money(amount: int) -> str:
    """Two places, or as many as it needs."""
    text = format_amount(amount)
    return text[:-2] + text[-2:].rstrip("0")


def read_object(body: bytes) -> dict[str, Any]:
    """Numbers with a point stay text, so that no amount passes through a float. Raises Unreadable."""
    return _object(body, lambda text: json.loads(text, parse_float=str, parse_constant=_no_constant))


def read_signed(body: bytes) -> dict[str, Any]:
    """A callback as it must be signed: numbers as numbers. Raises Unreadable."""
    return _object(body, orjson.loads)


def _object(body: bytes, read: Any) -> dict[str, Any]:
    try:
        found = read(body)
    except (ValueError, RecursionError) as error:
        raise Unreadable("not JSON") from error
    if not isinstance(found, dict):
        raise Unreadable("not an object")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(name)


def amount(value: object) -> int:
    """Signed decimal text or number → 1/10000 units, a fifth place rounded up. Raises Unreadable."""
    text = repr(value) if isinstance(value, float) else str(value)
    match = _DECIMAL.match(text) if isinstance(value, str | int | float) and not isinstance(value, bool) else None
    if match is None:
        raise Unreadable("an amount is not decimal")
    minus, units, places = match.groups()
    places = places or ""
    found = int(units) * SCALE + int(places[:4].ljust(4, "0")) + (1 if places[4:].strip("0") else 0)
    return -found if minus else found


def whole(value: object) -> int:
    """A whole number, written as one or as digits. Raises Unreadable."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 18:
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise Unreadable("not a whole number")


def day_of(value: object) -> date | None:
    """The day in China of a time in seconds; None where none is told. Raises Unreadable."""
    seconds = whole(value) if value not in (None, "") else 0
    if not 0 <= seconds < 10**11:
        raise Unreadable("a time is not in seconds")
    return (datetime.fromtimestamp(seconds, UTC) + _CHINA).date() if seconds else None
