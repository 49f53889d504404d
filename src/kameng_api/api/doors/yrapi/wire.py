"""How 大猿人 yrapi signs: sorted `k=v` joined by `&`, empty values included, `&apikey=KEY` at the end, MD5 in capitals. Pure.

Source: the protocol note §2A (client source of 2023–2024, the platform's own PHP source). The platform URL-decodes the whole string before hashing,
key included; here values are signed as they were meant, and a key with `%` or `+` in it is not accepted for an account.
"""

import hashlib
import hmac
from collections.abc import Mapping
from urllib.parse import urlencode


def string_to_sign(fields: Mapping[str, str], key: str) -> str:
    """Every field but `sign`, sorted by name."""
    pairs = [f"{name}={fields[name]}" for name in sorted(fields) if name != "sign"]
    return "&".join((*pairs, f"apikey={key}"))


def sign(fields: Mapping[str, str], key: str) -> str:
    """32 capital hexadecimal digits."""
    return hashlib.md5(string_to_sign(fields, key).encode(), usedforsecurity=False).hexdigest().upper()


def is_signed(fields: Mapping[str, str], key: str) -> bool:
    """Whether `fields["sign"]` is right; compared in constant time."""
    return hmac.compare_digest(sign(fields, key).encode(), fields.get("sign", "").encode())


def signed_form(fields: Mapping[str, str], key: str) -> bytes:
    """The fields with their signature, as the body of a form."""
    return urlencode({**fields, "sign": sign(fields, key)}).encode()
