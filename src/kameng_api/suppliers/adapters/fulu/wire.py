"""福禄's spelling: signatures over sorted characters, JSON inside JSON, cards under AES. Source: open.fulu.com v2, read through SDKs of 2019–2022."""

import base64
import binascii
import hmac
import json
import re
from collections import Counter
from collections.abc import Mapping
from datetime import date, datetime
from decimal import Decimal
from hashlib import md5
from typing import Any, Final, NoReturn
from urllib.parse import parse_qsl
from zoneinfo import ZoneInfo

import orjson
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.padding import PKCS7

from kameng_api.kit.money import LARGEST, SCALE, format_amount
from kameng_api.suppliers.port import Purchase

DIRECT: Final = "fulu.order.direct.add"
MOBILE: Final = "fulu.order.mobile.add"
CARD: Final = "fulu.order.card.add"
EXTRAS: Final = (
    "charge_game_name", "charge_game_region", "charge_game_srv", "charge_game_role", "charge_type", "charge_password", "charge_ip", "contact_qq",
    "contact_tel", "remaining_number",
)  # fmt: skip
"""What a direct order may carry beside the account, by the names of its template."""
_MOBILE_CODE: Final = re.compile(r"mobile(?:-([1-9][0-9]{0,4}))?\Z")
_DECIMAL: Final = re.compile(r"-?(0|[1-9][0-9]{0,11})(\.[0-9]{1,8})?\Z")
# What PHP, Java and .NET escape or sort differently: signed, it would not verify everywhere.
_AMBIGUOUS: Final = re.compile("[\x00-\x1f\x7f\u2028\u2029\ud800-\udfff\U00010000-\U0010ffff]")
_CHINA: Final = ZoneInfo("Asia/Shanghai")
_BLOCK_BITS: Final = 128


class Unreadable(ValueError):
    """Not what the document says; the message names the part, never its value."""


class Token(str):
    """A JSON number with a fraction, as it was written."""

    __slots__ = ()


def sign(secret: str, text: str) -> str:
    """Lower-case hex MD5 of the sorted characters of `text` and the secret. Texts made of the same characters sign the same."""
    count = Counter(text)  # half the time of sorting them all
    characters = "".join([character * count[character] for character in sorted(count)])
    return md5((characters + secret).encode(), usedforsecurity=False).hexdigest()


def is_signed(secret: str, text: str, signature: object) -> bool:
    return isinstance(signature, str) and hmac.compare_digest(sign(secret, text).encode(), signature.encode())


def signed_body(app_key: str, secret: str, method: str, business: bytes, now: datetime) -> bytes:
    """A request: the order of the fields does not matter to the signature, escaping and white space would."""
    fields = {
        "app_key": app_key,
        "method": method,
        "timestamp": now.astimezone(_CHINA).strftime("%Y-%m-%d %H:%M:%S"),
        "version": "2.0",
        "format": "json",
        "charset": "utf-8",
        "sign_type": "md5",
        "app_auth_token": "",
        "biz_content": business.decode(),
    }
    return orjson.dumps({**fields, "sign": sign(secret, orjson.dumps(fields).decode())})


def order(purchase: Purchase) -> tuple[str, bytes]:
    """(method, biz_content). Cards by their product; top-ups by theirs, or as `mobile-100` and `mobile` with a face value, which name none.

    Raises Unreadable when the purchase cannot be said in this protocol.
    """
    texts = [purchase.product_code, purchase.target or "", *purchase.fields.values()]
    if any(_AMBIGUOUS.search(one) for one in texts):
        raise Unreadable("characters that their signature does not carry")
    mobile = _MOBILE_CODE.match(purchase.product_code)
    if mobile is not None:
        return MOBILE, orjson.dumps(_mobile(purchase, mobile.group(1)))
    if not (purchase.product_code.isascii() and purchase.product_code.isdigit()):
        raise Unreadable("a product is a number")
    if purchase.face_value is not None:
        raise Unreadable("only mobile top-ups have a face value")
    params: dict[str, Any] = {
        "product_id": int(purchase.product_code),
        "customer_order_no": purchase.reference,
        "buy_num": purchase.units,
    }
    if purchase.product_type != "topup":
        if purchase.fields or purchase.target:
            raise Unreadable("an order for cards carries nothing")
        return CARD, orjson.dumps(params)
    if not purchase.target or not set(purchase.fields) <= set(EXTRAS):
        raise Unreadable("no account, or a field that the protocol does not have")
    return DIRECT, orjson.dumps({**params, "charge_account": purchase.target, **purchase.fields})


def _mobile(purchase: Purchase, value: str | None) -> dict[str, Any]:
    if purchase.units != 1 or not purchase.target or purchase.fields or (value is None) == (purchase.face_value is None):
        raise Unreadable("a mobile top-up is one number and one value")
    text = value or format_amount(purchase.face_value or 0).rstrip("0").rstrip(".")
    return {"charge_phone": purchase.target, "charge_value": orjson.Fragment(text.encode()), "customer_order_no": purchase.reference}


def read_object(body: bytes | str) -> dict[str, Any]:
    """A JSON object, each name once at every level, numbers with a fraction as Token. Raises Unreadable."""
    found = read_json(body)
    if not isinstance(found, dict):
        raise Unreadable("not an object")
    return found


def read_json(text: bytes | str) -> Any:
    """Raises Unreadable."""
    try:
        return json.loads(text, object_pairs_hook=_each_once, parse_float=Token, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise Unreadable("not JSON") from error


def read_post(body: bytes) -> dict[str, Any]:
    """A callback: JSON by the document; forms are seen in clients. Raises Unreadable."""
    if body[:1] == b"{":
        return read_object(body)
    try:
        pairs = parse_qsl(body.decode("ascii"), keep_blank_values=True, strict_parsing=True, errors="strict", max_num_fields=60)
    except ValueError as error:
        raise Unreadable("not a form") from error
    return _each_once(pairs)


def callback_text(fields: Mapping[str, Any]) -> str:
    """What a callback signs: the compact JSON of all fields but `sign`, slashes and Unicode unescaped. Raises Unreadable."""
    return "{" + ",".join([f"{json.dumps(name, ensure_ascii=False)}:{_scalar(fields[name])}" for name in fields if name != "sign"]) + "}"


def _scalar(value: object) -> str:
    if isinstance(value, Token):
        return str(value)
    if value is None or isinstance(value, str | bool | int):
        return json.dumps(value, ensure_ascii=False)
    raise Unreadable("a signed field is not a text or number")


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Unreadable("a name stands twice")
    return found


def _refuse(constant: str) -> NoReturn:
    raise Unreadable(constant)


def decrypt(secret: str, sealed: str) -> str:
    """Half a card: base64 of AES-256-ECB with PKCS7, the key is the secret. Raises Unreadable. The cipher vouches for nothing."""
    try:
        raw = base64.b64decode(sealed, validate=True)
        opener = Cipher(algorithms.AES(secret.encode()), modes.ECB()).decryptor()  # noqa: S305  the vendor's
        unpadder = PKCS7(_BLOCK_BITS).unpadder()
        plain = unpadder.update(opener.update(raw) + opener.finalize()) + unpadder.finalize()
        return plain.decode()
    except (ValueError, binascii.Error) as error:
        raise Unreadable("a card cannot be decrypted") from error


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


def expiry(value: object) -> date | None:
    """`card_deadline`, `2026-12-31` or `2026-12-31 23:59:59`; None where there is none or it is no date."""
    try:
        return date.fromisoformat(str(value)[:10]) if value else None
    except ValueError:
        return None
