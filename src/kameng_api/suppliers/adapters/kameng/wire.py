"""The merchant contract as a merchant writes it: signed requests, orders, amounts, sealed codes. Source: openapi/kameng.v1.yaml, docs/signing.md."""

import base64
import json
import re
from collections.abc import Mapping
from datetime import date
from typing import Any, Final

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from kameng_api.kit.money import format_amount, parse_amount
from kameng_api.kit.signing import ED25519_SCHEME, HMAC_SCHEME, sign_request
from kameng_api.suppliers.port import Code, Purchase

CLOCK_WINDOW_S: Final = 300
_NUMBER: Final = re.compile(r"\A[A-Za-z0-9_-]{1,64}\Z")
_SKU: Final = re.compile(r"\A[A-Za-z0-9._~-]{1,64}\Z")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")


class Unreadable(ValueError):
    """Not what the contract says; the message names the part, never its value."""


def authorization(secret: str | None, private_key: str | None, key_id: str, now_s: int, nonce: str, method: str, target: str, body: bytes) -> str:
    """The Authorization header; `target` is path and query as they are sent."""
    if secret is not None:
        return sign_request(HMAC_SCHEME, secret.encode("ascii"), key_id, now_s, nonce, method, target.encode("ascii"), body)
    seed = base64.b64decode(private_key or "")
    return sign_request(ED25519_SCHEME, seed, key_id, now_s, nonce, method, target.encode("ascii"), body)


def order_body(purchase: Purchase) -> bytes:
    """The body of POST /v1/orders. Raises Unreadable when the purchase cannot be said in this contract."""
    fields = dict(purchase.fields)
    if purchase.face_value is not None:
        if "face_value" in fields:
            raise Unreadable("a field has the name of the face value")
        fields["face_value"] = format_amount(purchase.face_value)
    order: dict[str, Any] = {
        "merchant_order_no": number(purchase.reference),
        "sku": sku(purchase.product_code),
        "quantity": purchase.units,
        "max_unit_price": format_amount(purchase.max_cost // purchase.units),
    }
    if purchase.target is not None:
        order["target"] = purchase.target
    if fields:
        order["fields"] = fields
    if purchase.callback_url is not None:
        order["notify_url"] = purchase.callback_url
    if any(_CONTROL.search(text) for text in (purchase.target or "", *fields.values())):
        raise Unreadable("a value holds control characters")
    return orjson.dumps(order)


def number(text: str) -> str:
    """Our number of an order, or theirs, as it may stand in an address. Raises Unreadable."""
    if not _NUMBER.match(text):
        raise Unreadable("a number holds other than letters, digits, - and _")
    return text


def sku(code: str) -> str:
    """Raises Unreadable."""
    if not _SKU.match(code) or code in (".", ".."):
        raise Unreadable("a SKU of another shape")
    return code


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


def open_codes(envelope: Mapping[str, Any], key: str, order_id: str) -> tuple[Code, ...]:
    """Raises Unreadable when they are another order's, were changed, or are sealed under another key."""
    bound = f"order_codes:{order_id}"
    if envelope.get("algorithm") != "AEAD_AES_256_GCM" or envelope.get("associated_data") != bound:
        raise Unreadable("codes of another order, or sealed in another way")
    try:
        sealed, nonce = base64.b64decode(str(envelope.get("ciphertext")), validate=True), str(envelope.get("nonce")).encode("ascii")
        cards = json.loads(AESGCM(key.encode("ascii")).decrypt(nonce, sealed, bound.encode()))
        return tuple(Code(str(card["code"]), card.get("pin") or None, _day(card.get("expires_on"))) for card in cards)
    except (InvalidTag, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Unreadable("codes cannot be opened") from error


def _day(text: str | None) -> date | None:
    return date.fromisoformat(text) if text else None
