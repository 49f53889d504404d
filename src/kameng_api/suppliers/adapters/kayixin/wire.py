"""卡易信's spelling: the signature over raw bodies, requests, cards under AES. Source: 7qsaa0ye9g.apifox.cn, API 3.0 (2026-04-14)."""

import base64
import binascii
import hmac
import json
import re
from collections.abc import Mapping
from decimal import Decimal
from hashlib import md5
from typing import Any, Final, NoReturn

import orjson
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.padding import PKCS7

from kameng_api.kit.money import LARGEST, SCALE, format_amount
from kameng_api.suppliers.port import Purchase

VERSION: Final = "3.0"
_DECIMAL: Final = re.compile(r"-?(0|[1-9][0-9]{0,11})(\.[0-9]{1,8})?\Z")
_BLOCK_BITS: Final = 128


class Unreadable(ValueError):
    """Not what the document says; the message names the part, never its value."""


class Token(str):
    """A JSON number with a fraction, as it was written."""

    __slots__ = ()


def sign(app_id: str, secret: str, timestamp: str, body: bytes) -> str:
    """Lower-case hex MD5 of id, secret, version, timestamp and the exact bytes of the body."""
    return md5(f"{app_id}{secret}{VERSION}{timestamp}".encode() + body, usedforsecurity=False).hexdigest()


def is_signed(app_id: str, secret: str, headers: Mapping[str, str], body: bytes) -> bool:
    """`headers` by lower-case name. Nothing stands between the signed parts, so each must be what it is on its own. Raises nothing."""
    timestamp = headers.get("x-timestamp", "")
    if headers.get("x-app-id") != app_id or headers.get("x-version") != VERSION or not (timestamp.isascii() and timestamp.isdigit()):
        return False
    expected = sign(app_id, secret, timestamp, body)
    return hmac.compare_digest(expected.encode(), headers.get("x-signature", "").encode())


def order_body(purchase: Purchase, target_field: str) -> bytes:
    """order/create. A product is `goodsId`, or `goodsId:sku` where it has several. `safePrice` is for the whole order (订单总成本).

    Raises Unreadable when the purchase cannot be said in this protocol.
    """
    goods_id, _, sku = purchase.product_code.partition(":")
    if not (goods_id.isascii() and goods_id.isdigit()):
        raise Unreadable("a product is a number")
    attach = [{"name": name, "value": value} for name, value in purchase.fields.items()]
    if purchase.target:
        attach.insert(0, {"name": target_field, "value": purchase.target})
    return orjson.dumps(
        {
            "goodsId": int(goods_id),
            "count": purchase.units,
            "notifyUrl": purchase.callback_url or "",
            "outerNumber": purchase.reference,
            "safePrice": orjson.Fragment(format_amount(purchase.max_cost).encode()),  # a number to them, never a float here
            "sku": sku,
            "attach": attach,
        }
    )


def read_object(body: bytes) -> dict[str, Any]:
    """A JSON object, each name once at every level, numbers with a fraction as Token. Raises Unreadable."""
    found = _read(body)
    if not isinstance(found, dict):
        raise Unreadable("not an object")
    return found


def _read(text: bytes) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_each_once, parse_float=Token, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise Unreadable("not JSON") from error


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Unreadable("a name stands twice")
    return found


def _refuse(constant: str) -> NoReturn:
    raise Unreadable(constant)


def decrypt_cards(secret: str, sealed: str) -> list[Any]:
    """The cards of a callback: base64 of AES-256-ECB with PKCS7, the key is the secret. Raises Unreadable.

    The cipher vouches for nothing: only the signature of the call does.
    """
    try:
        raw = base64.b64decode(sealed, validate=True)
        opener = Cipher(algorithms.AES(secret.encode()), modes.ECB()).decryptor()  # noqa: S305  the vendor's
        unpadder = PKCS7(_BLOCK_BITS).unpadder()
        plain = unpadder.update(opener.update(raw) + opener.finalize()) + unpadder.finalize()
    except (ValueError, binascii.Error) as error:
        raise Unreadable("cards cannot be decrypted") from error
    found = _read(plain)
    if not isinstance(found, list):
        raise Unreadable("cards are no list")
    return found


def text(fields: Mapping[str, Any], name: str) -> str:
    """A text, or a number as it was written; empty when there is none."""
    value = fields.get(name)
    return str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""


def number(fields: Mapping[str, Any], name: str) -> int:
    """A whole number, or its digits. Raises Unreadable."""
    value = fields.get(name)
    if type(value) is int:
        return value
    if type(value) is str and value.isascii() and value.isdigit():
        return int(value)
    raise Unreadable(name)


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
