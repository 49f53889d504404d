"""大猿人's spelling: the signature, form bodies, amounts. Source: showdoc.com.cn/dyr (read through dtapps/dayuanren, 2024-06-14)."""

import hmac
import json
import re
from collections.abc import Mapping
from decimal import Decimal
from hashlib import md5
from typing import Any, Final, NoReturn
from urllib.parse import parse_qsl, unquote_plus, urlencode

from kameng_api.kit.money import LARGEST, SCALE, format_amount
from kameng_api.suppliers.port import Purchase

EXTRAS: Final = ("area", "ytype", "id_card_no", "city", "param1", "param2", "param3")
"""What an order may carry beside number and product: province, kind of proof, its last six characters, city, and three of the category's own."""
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_DECIMAL: Final = re.compile(r"-?(0|[1-9][0-9]{0,11})(\.[0-9]{1,8})?\Z")


class Unreadable(ValueError):
    """Not what the document says; the message names the part, never its value."""


def sign(apikey: str, params: Mapping[str, str]) -> str:
    """Upper-case hex MD5 of all parameters but `sign`, sorted, `k=v` joined by `&`, empty values included, then `&apikey=`.

    Their server decodes the whole string like a query, the key included; the parameters were encoded before, the key was not.
    """
    pairs = "&".join([f"{name}={params[name]}" for name in sorted(params) if name != "sign"])
    text = f"{pairs}&apikey={unquote_plus(apikey)}"
    return md5(text.encode(), usedforsecurity=False).hexdigest().upper()


def is_signed(apikey: str, params: Mapping[str, str]) -> bool:
    return hmac.compare_digest(sign(apikey, params).encode(), params.get("sign", "").encode())


def signed_body(apikey: str, userid: str, params: Mapping[str, str]) -> bytes:
    complete = {**params, "userid": userid}
    complete["sign"] = sign(apikey, complete)
    return urlencode(complete).encode()


def order_params(purchase: Purchase) -> dict[str, str]:
    """Raises Unreadable when the purchase cannot be said in this protocol: it has no quantity, and sells nothing but top-ups."""
    if purchase.units != 1:
        raise Unreadable("an order is for one unit")
    if purchase.product_type != "topup" or not purchase.target:
        raise Unreadable("only top-ups of a number or an account")
    if not set(purchase.fields) <= set(EXTRAS):
        raise Unreadable("a field that the protocol does not have")
    params = {
        "out_trade_num": purchase.reference,
        "product_id": purchase.product_code,
        "mobile": purchase.target,
        "notify_url": purchase.callback_url or "",
        "price": format_amount(purchase.max_cost),
        **purchase.fields,
    }
    if purchase.face_value is not None:
        params["amount"] = _short(purchase.face_value)
    if any(_CONTROL.search(value) for value in params.values()):
        raise Unreadable("control characters")
    return params


def _short(amount: int) -> str:
    """`"100"`, `"99.5"`: they compare it with the digits in the product's name."""
    return format_amount(amount).rstrip("0").rstrip(".")


def read_form(body: bytes) -> dict[str, str]:
    """A form in which each name stands once. Raises Unreadable."""
    try:
        pairs = parse_qsl(body.decode("ascii"), keep_blank_values=True, strict_parsing=True, errors="strict", max_num_fields=60)
    except ValueError as error:
        raise Unreadable("not a form") from error
    return _each_once(pairs)


def read_object(body: bytes) -> dict[str, Any]:
    """A JSON object, each name once at every level, numbers with a fraction as Decimal. Raises Unreadable."""
    try:
        found = json.loads(body, object_pairs_hook=_each_once, parse_float=Decimal, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise Unreadable("not JSON") from error
    if not isinstance(found, dict):
        raise Unreadable("not an object")
    return found


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Unreadable("a name stands twice")
    return found


def _refuse(constant: str) -> NoReturn:
    raise Unreadable(constant)


def amount(value: object) -> int:
    """Yuan as text or number → 1/10000, digits beyond the fourth rounded up. Raises Unreadable."""
    if isinstance(value, bool) or not isinstance(value, str | int | Decimal):
        raise Unreadable("an amount is missing")
    text = format(value, "f") if isinstance(value, Decimal) else str(value)
    if not _DECIMAL.match(text):
        raise Unreadable("an amount is not decimal")
    exact = Decimal(text) * SCALE
    whole = int(exact)
    found = whole + (exact > whole)
    if abs(found) > LARGEST:
        raise Unreadable("an amount is too large")
    return found
