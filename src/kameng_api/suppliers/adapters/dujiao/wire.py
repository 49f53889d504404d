"""dujiao-next's spelling: the signature of requests and callbacks, the order form, amounts, product codes.

Source: dujiao-next/document, docs/api/integration-open-api.md, §2 and §4 (2026-04-01, read at 6e6d063 of 2026-08-11).
"""

import hmac
import re
from collections.abc import Mapping
from hashlib import md5
from typing import Any, Final

import orjson

from kameng_api.kit.money import parse_amount
from kameng_api.suppliers.port import Purchase

ROOT: Final = "/api/v1/upstream"
CALLBACK_PATH: Final = "/api/v1/upstream/callback"
"""Signed in callbacks whatever address they are really sent to (downstream_callback_service.go, SendCallback, at a88575e)."""
CLOCK_WINDOW_S: Final = 60
_CODE: Final = re.compile(r"\A([1-9][0-9]{0,17})-([1-9][0-9]{0,17})\Z")
_NUMBER: Final = re.compile(r"\A[1-9][0-9]{0,17}\Z")


class Unreadable(ValueError):
    """Not what the document says; the message names the part, never its value."""


def sign(secret: str, method: str, path: str, timestamp: str, body: bytes) -> str:
    """Lower-case hex HMAC-SHA256 over method, path without query, timestamp and the body's MD5 (§2.2)."""
    text = f"{method}\n{path}\n{timestamp}\n{md5(body, usedforsecurity=False).hexdigest()}"
    return hmac.digest(secret.encode(), text.encode(), "sha256").hex()


def headers(api_key: str, secret: str, method: str, path: str, now_s: int, body: bytes) -> dict[str, str]:
    timestamp = str(now_s)
    return {
        "content-type": "application/json",
        "accept": "application/json",
        "dujiao-next-api-key": api_key,
        "dujiao-next-timestamp": timestamp,
        "dujiao-next-signature": sign(secret, method, path, timestamp, body),
    }


def order_body(purchase: Purchase, target_field: str) -> bytes:
    """The body of POST /orders (§4.5). Raises Unreadable when the purchase cannot be said in this protocol."""
    _, sku_id = split_code(purchase.product_code)
    if purchase.face_value is not None:
        raise Unreadable("a face value cannot be named")
    if purchase.product_type != "card" and purchase.units != 1:
        raise Unreadable("what a person delivers is one text, which cannot be divided: one unit an order")
    order: dict[str, Any] = {"sku_id": sku_id, "quantity": purchase.units, "downstream_order_no": purchase.reference}
    form = dict(purchase.fields)
    if purchase.target is not None:
        if target_field in form:
            raise Unreadable("a field has the name of the target")
        form[target_field] = purchase.target
    if form:
        order["manual_form_data"] = form
    if purchase.callback_url is not None:
        order["callback_url"] = purchase.callback_url
    return orjson.dumps(order)


def product_code(product_id: int, sku_id: int) -> str:
    """One line of the list is a SKU; it is bought by its own id and read again by its product's, so the code holds both."""
    return f"{product_id}-{sku_id}"


def split_code(code: str) -> tuple[int, int]:
    """`(product id, SKU id)`. Raises Unreadable."""
    match = _CODE.match(code)
    if match is None:
        raise Unreadable("a product code is <product id>-<SKU id>")
    return int(match.group(1)), int(match.group(2))


def order_number(text: str | None) -> str | None:
    """Their `order_id` as we keep it, None for what cannot be one: it becomes part of an address."""
    return text if text is not None and _NUMBER.match(text) else None


def read_object(body: bytes) -> dict[str, Any]:
    """Raises Unreadable."""
    try:
        found = orjson.loads(body)
    except ValueError as error:
        raise Unreadable("not JSON") from error
    if not isinstance(found, dict):
        raise Unreadable("not an object")
    return found


def amount(text: object) -> int:
    """Signed decimal text → 1/10000 units. Raises Unreadable."""
    if not isinstance(text, str):
        raise Unreadable("an amount is not a string")
    try:
        return -parse_amount(text[1:]) if text.startswith("-") else parse_amount(text)
    except ValueError as error:
        raise Unreadable("an amount is not decimal") from error


def whole(values: Mapping[str, Any], name: str) -> int:
    """A JSON integer. Raises Unreadable."""
    value = values.get(name)
    if isinstance(value, bool) or not isinstance(value, int):
        raise Unreadable(name)
    return value
