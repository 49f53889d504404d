"""The spelling of 阿奇索 标准货源: what is signed, how a request is read, how an answer and its cards are written. Pure.

Source of every protocol fact here: the standard supplier interface (标准货源) as two public implementations and their tests show it; see README.md.
"""

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn

import orjson
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.padding import PKCS7

CLOCK_WINDOW_S: Final = 600
"""A request whose `timestamp` is ten minutes or more from our clock is refused with 408."""
CARD_KEY_BYTES: Final = 32
_MOST_NAMES: Final = 64


class Unreadable(ValueError):
    """Not what the protocol says; the message names the part, never its value."""


@dataclass(frozen=True, slots=True)
class Card:
    """One card code as they want it. `expires_on` is an ISO date, told as the last second of that day."""

    number: str = field(repr=False)
    password: str = field(default="", repr=False)
    expires_on: str | None = None


def sign(app_secret: str, merchant_key: str, params: Mapping[str, str]) -> str:
    """Upper-case MD5 of secret · `k=v` joined by `&`, names ascending, empty values included · secret; secret = appSecret + merchantKey."""
    secret = app_secret + merchant_key
    text = "&".join([f"{name}={params[name]}" for name in sorted(params) if name != "sign"])
    return hashlib.md5((secret + text + secret).encode(), usedforsecurity=False).hexdigest().upper()


def is_signed(app_secret: str, merchant_key: str, params: Mapping[str, str]) -> bool:
    """In constant time; the case of the hex digits does not matter."""
    return hmac.compare_digest(sign(app_secret, merchant_key, params).encode(), params.get("sign", "").upper().encode())


def read(body: bytes) -> dict[str, str]:
    """The members of a JSON object as the text that is signed: a number as it was written, null as nothing.

    Raises Unreadable, also for a member that is an array or an object: the protocol has none (`attach` is JSON inside a string).
    """
    found = _object(body)
    if len(found) > _MOST_NAMES:
        raise Unreadable("too many members")
    params = {name: _text(value) for name, value in found.items()}
    try:
        "".join([*params, *params.values()]).encode()
    except UnicodeEncodeError:
        raise Unreadable("half a surrogate pair") from None
    return params


def read_attach(text: str) -> dict[str, str]:
    """The form inside `attach`. Empty text: an empty form. Raises Unreadable."""
    return read(text.encode()) if text.strip() else {}


def _object(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body.decode(), object_pairs_hook=_each_once, parse_int=str, parse_float=str, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise Unreadable("not one JSON document in UTF-8") from error
    if not isinstance(found, dict):
        raise Unreadable("not an object")
    return found


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Unreadable("a name stands twice")
    return found


def _no_constant(name: str) -> NoReturn:
    raise Unreadable(f"{name} is not JSON")


def _text(value: object) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case str():
            return str(value)
        case _:
            raise Unreadable("a member is an array or an object")


@dataclass(frozen=True, slots=True)
class Number:
    """An amount as a JSON number: `99000` of 1/10000 → `9.9`, without needless zeros, and signed as the same text."""

    amount: int

    def __str__(self) -> str:
        whole, part = divmod(abs(self.amount), 10_000)
        text = f"{whole}.{part:04d}".rstrip("0").rstrip(".")
        return f"-{text}" if self.amount < 0 else text


def write(members: Mapping[str, Any]) -> bytes:
    """An answer or a callback as JSON."""
    return orjson.dumps(members, default=_fragment, option=orjson.OPT_PASSTHROUGH_DATACLASS)


def _fragment(value: Any) -> Any:
    if isinstance(value, Number):
        return orjson.Fragment(str(value))
    raise TypeError


def signed_callback(app_secret: str, merchant_key: str, members: Mapping[str, Any]) -> bytes:
    """A callback with its `sign`, which covers every member as its text; None counts as empty."""
    params = {name: "" if value is None else str(value) for name, value in members.items()}
    return write({**members, "sign": sign(app_secret, merchant_key, params)})


def card_key(app_secret: str) -> bytes:
    """The bytes of the appSecret are the key of the cards. Raises ValueError unless they are 32."""
    key = app_secret.encode()
    if len(key) != CARD_KEY_BYTES:
        raise ValueError(f"an appSecret is {CARD_KEY_BYTES} bytes long: it is the AES-256 key of the cards")
    return key


def sealed_cards(app_secret: str, cards: Sequence[Card]) -> str:
    """base64(AES-256-ECB-PKCS5(JSON)). ECB hides neither repeats nor changes; it is what the other side can open."""
    told = [{"cardNo": c.number, "cardPwd": c.password, "expireTime": f"{c.expires_on} 23:59:59" if c.expires_on else ""} for c in cards]
    padder = PKCS7(128).padder()
    padded = padder.update(orjson.dumps(told)) + padder.finalize()
    sealing = Cipher(algorithms.AES(card_key(app_secret)), modes.ECB()).encryptor()  # noqa: S305  # the protocol's cipher
    return base64.b64encode(sealing.update(padded) + sealing.finalize()).decode()
