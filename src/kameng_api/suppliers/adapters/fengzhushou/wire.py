"""蜂助手's spelling: the signature, request parameters, amounts.

Source: public clients of its standard open API (the research names them; the vendor's own document was not found).
"""

import hmac
import json
import re
from collections.abc import Mapping
from hashlib import sha1
from typing import Any, Final

from kameng_api.kit.money import SCALE, format_amount
from kameng_api.suppliers.port import Purchase

Value = str | int
_DECIMAL: Final = re.compile(r"\A(-?)([0-9]{1,12})(?:\.([0-9]{1,12}))?\Z")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")


class Unreadable(ValueError):
    """Not what the clients know; the message names the part, never its value."""


def sign(key: str, params: Mapping[str, Value | None]) -> str:
    """Upper-case hex SHA-1 of `k=v` sorted and joined by `&`, blank values left out, and `&signKey=` with the key at the end."""
    parts = [f"{name}={params[name]}" for name in sorted(params) if name != "sign" and params[name] is not None and str(params[name]).strip()]
    return sha1("&".join([*parts, f"signKey={key}"]).encode(), usedforsecurity=False).hexdigest().upper()


def is_signed(key: str, params: Mapping[str, Value | None]) -> bool:
    return hmac.compare_digest(sign(key, params).encode(), str(params.get("sign", "")).encode())


def order_params(purchase: Purchase, sku_price: str) -> dict[str, Value]:
    """What `sendgoods` is asked. Raises Unreadable when it cannot be said, or its answer could not tell what was delivered."""
    if purchase.product_type != "topup":
        raise Unreadable("no answer of theirs holds a card")
    if purchase.units != 1:
        raise Unreadable("no answer of theirs says how many units were delivered")
    if purchase.face_value is not None:
        raise Unreadable("a face value cannot be named")
    params: dict[str, Value] = {
        "skuCode": purchase.product_code,
        "channelOrderNo": purchase.reference,
        "account": purchase.target or "",
        "num": purchase.units,
        "callbackUrl": purchase.callback_url or "",
        "ext": json.dumps(dict(purchase.fields), ensure_ascii=False, sort_keys=True) if purchase.fields else "",
    }
    if sku_price == "limit":
        params["skuPrice"] = format_amount(purchase.max_cost).rstrip("0").rstrip(".")
    for name, value in params.items():
        if isinstance(value, str) and _CONTROL.search(value):
            raise Unreadable(f"{name} holds control characters")
    return {name: value for name, value in params.items() if value != ""}


def read_object(body: bytes) -> dict[str, Any]:
    """Numbers with a point stay text, so that no amount passes through a float. Raises Unreadable."""
    try:
        found = json.loads(body, parse_float=str, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise Unreadable("not JSON") from error
    if not isinstance(found, dict):
        raise Unreadable("not an object")
    return found


def read_flat(body: bytes) -> dict[str, Value | None]:
    """A callback: names with texts, whole numbers or nothing. Raises Unreadable."""
    found = read_object(body)
    if not all(value is None or (isinstance(value, str | int) and not isinstance(value, bool)) for value in found.values()):
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
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 9:
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise Unreadable("not a whole number")
