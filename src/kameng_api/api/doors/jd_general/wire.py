"""The spelling of 京东 通用交易 (vtp): names and values concatenated without anything between, MD5, AES-256-ECB in MIME base64. Pure.

Source of every protocol fact here: 通用交易平台接口文档, a public copy without a date; see README.md.
"""

import base64
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final
from urllib.parse import unquote
from zoneinfo import ZoneInfo

import orjson
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.padding import PKCS7

AES_KEY_BYTES: Final = 32
LONGEST: Final = 127
"""Characters of a card number, a password: no more can be told."""
ABSENT: Final = "-"
"""Stands where a card has no such part."""
_UNSIGNED: Final = frozenset(("sign", "signType"))
_BEIJING: Final = ZoneInfo("Asia/Shanghai")
_MIME_LINE: Final = 76


@dataclass(frozen=True, slots=True)
class Card:
    """One card code as they want it. `expires_on` is an ISO date."""

    number: str = field(repr=False)
    password: str = field(default=ABSENT, repr=False)
    expires_on: str | None = None

    @property
    def can_be_told(self) -> bool:
        """Short enough for the protocol."""
        return max(len(self.number), len(self.password)) <= LONGEST


def sign(private_key: str, params: Mapping[str, str]) -> str:
    """Lower-case MD5 of name·value·name·value…·key, names ascending, without `sign`, `signType` and empty values.

    An encrypted value is signed as the very text that is sent, its line breaks with it.
    """
    text = "".join([name + params[name] for name in sorted(params) if name not in _UNSIGNED and params[name]])
    return hashlib.md5((text + private_key).encode(), usedforsecurity=False).hexdigest()


def is_signed(private_key: str, params: Mapping[str, str]) -> bool:
    """In constant time. Without a key nothing is signed.

    `expand` is URL-encoded before the form encodes it once more; the document does not say which of the two texts is signed, so both count.
    """
    given = params.get("sign", "").lower().encode()
    spellings = [params]
    if "%" in params.get("expand", ""):
        spellings.append({**params, "expand": unquote(params["expand"])})
    found = [hmac.compare_digest(sign(private_key, spelling).encode(), given) for spelling in spellings]
    return bool(private_key) and any(found)


def aes_key(text: str) -> bytes:
    """Raises ValueError unless the key is 32 bytes of text, as JD hands it out."""
    key = text.encode()
    if len(key) != AES_KEY_BYTES:
        raise ValueError(f"the AES key is {AES_KEY_BYTES} bytes long")
    return key


def sealed_cards(key: str, cards: Sequence[Card]) -> str:
    """The `product` of a delivered card order: MIME base64 of AES-256-ECB, PKCS padding, of the cards as JSON. What is missing reads `-`."""
    told = [{"cardNumber": c.number, "expiryDate": c.expires_on or ABSENT, "password": c.password} for c in cards]
    return sealed(key, orjson.dumps(told))


def sealed(key: str, plain: bytes) -> str:
    """A line feed after each 76 characters and none at the end, as the document's own example has it. ECB is what the other side can open."""
    padder = PKCS7(128).padder()
    padded = padder.update(plain) + padder.finalize()
    sealing = Cipher(algorithms.AES(aes_key(key)), modes.ECB()).encryptor()  # noqa: S305  # the protocol's cipher
    text = base64.b64encode(sealing.update(padded) + sealing.finalize()).decode()
    return "\n".join([text[at : at + _MIME_LINE] for at in range(0, len(text), _MIME_LINE)])


def write(private_key: str, members: Mapping[str, Any]) -> bytes:
    """A signed answer as JSON; numbers are signed as their digits. Empty and absent members are left out."""
    told = {name: value for name, value in members.items() if value not in (None, "")}
    signed = {name: str(value) for name, value in told.items()}
    return orjson.dumps({**told, "sign": sign(private_key, signed), "signType": "MD5"})


def timestamp(now: datetime) -> str:
    """yyyyMMddHHmmss on a clock in China."""
    return now.astimezone(_BEIJING).strftime("%Y%m%d%H%M%S")
