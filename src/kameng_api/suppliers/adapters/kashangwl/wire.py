"""卡商网's spelling: the signature, the two ways of writing a request, amounts.

Source: the client dtapps/kashangwl (d332140, 2024-03-08), which quotes doc.cqmeihu.cn: sign.go, request.go, api.*.go; the form variant is 京兆云's.
"""

import hmac
import json
import re
from collections.abc import Mapping
from hashlib import md5
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode

import orjson

from kameng_api.kit.money import SCALE, format_amount
from kameng_api.suppliers.port import Purchase

Value = str | int
_DECIMAL: Final = re.compile(r"\A(-?)([0-9]{1,12})(?:\.([0-9]{1,12}))?\Z")
_NUMBER: Final = re.compile(r"\A[1-9][0-9]{0,17}\Z")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")


class Unreadable(ValueError):
    """Not what the document says; the message names the part, never its value."""


def sign(key: str, params: Mapping[str, Value]) -> str:
    """Lower-case hex MD5 of the key and, sorted by name, every name directly followed by its value; `sign` itself left out."""
    text = key + "".join([f"{name}{params[name]}" for name in sorted(params) if name != "sign"])
    return md5(text.encode(), usedforsecurity=False).hexdigest()


def is_signed(key: str, params: Mapping[str, Value]) -> bool:
    return hmac.compare_digest(sign(key, params).encode(), str(params.get("sign", "")).encode())


def written(kind: str, params: Mapping[str, Value]) -> bytes:
    """The body of a request. `kind`: json or form."""
    return orjson.dumps(params) if kind == "json" else urlencode(params).encode()


def order_params(purchase: Purchase, safe_cost: str) -> dict[str, Value]:
    """What `/api/buy` is asked; empty parameters are not sent. Raises Unreadable when it cannot be said in this protocol."""
    if not _NUMBER.match(purchase.product_code):
        raise Unreadable("a product code is a number")
    if purchase.face_value is not None:
        raise Unreadable("a face value cannot be named")
    limit = purchase.max_cost if safe_cost == "total" else purchase.max_cost // purchase.units
    params: dict[str, Value] = {
        "product_id": int(purchase.product_code),
        "quantity": purchase.units,
        "outer_order_id": purchase.reference,
        "safe_cost": format_amount(limit).rstrip("0").rstrip("."),
    }
    if purchase.target:
        params["recharge_account"] = purchase.target
    if purchase.fields:
        params["recharge_template_input_items"] = json.dumps(dict(purchase.fields), ensure_ascii=False, sort_keys=True)
    if purchase.callback_url:
        params["notify_url"] = purchase.callback_url
    for name, value in params.items():
        if isinstance(value, str) and _CONTROL.search(value):
            raise Unreadable(f"{name} holds control characters")
    return params


def read_object(body: bytes) -> dict[str, Any]:
    """Numbers with a point stay text, so that no amount passes through a float. Raises Unreadable."""
    try:
        found = json.loads(body, parse_float=str, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise Unreadable("not JSON") from error
    if not isinstance(found, dict):
        raise Unreadable("not an object")
    return found


def read_flat(body: bytes) -> dict[str, Value]:
    """A callback, as JSON or as a form: names with texts or whole numbers. Raises Unreadable."""
    if body.lstrip().startswith(b"{"):
        found = read_object(body)
    else:
        try:
            pairs = parse_qsl(body.decode(), keep_blank_values=True, strict_parsing=True, max_num_fields=50)
        except ValueError as error:
            raise Unreadable("not a form") from error
        found = dict(pairs)
        if len(found) != len(pairs):
            raise Unreadable("a name stands twice")
    if not all(isinstance(value, str | int) and not isinstance(value, bool) for value in found.values()):
        raise Unreadable("a value is neither text nor number")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(name)


def amount(value: object) -> int:
    """Signed decimal text or whole number → 1/10000 units, a fifth place rounded up. Raises Unreadable."""
    match = _DECIMAL.match(str(value)) if isinstance(value, str | int) and not isinstance(value, bool) else None
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


def number_text(value: object) -> str | None:
    """An order number, which the one document writes as text and the other as a number."""
    return str(value)[:128] if isinstance(value, str | int) and not isinstance(value, bool) and str(value) else None
