"""Signs requests as the contract says (KM1): seven lines, each ended by one line feed, signed by HMAC-SHA256 or Ed25519."""

import base64
import hashlib
import hmac
import re
import secrets
import time
from typing import Final, Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

HMAC_SCHEME: Final = "KM1-HMAC-SHA256"
ED25519_SCHEME: Final = "KM1-ED25519"
_KEY_ID: Final = re.compile(r"ak_(live|test)_[0-9A-HJKMNP-TV-Z]{26}")


class Key(Protocol):
    """What signs. `scheme` is the first line of what is signed."""

    @property
    def key_id(self) -> str: ...

    @property
    def scheme(self) -> str: ...

    def sign(self, text: bytes) -> str:
        """Base64 of the signature."""


class HmacKey:
    """A key id and its secret, `sk_…`; the secret is used as it is written, not decoded. Raises ValueError when either is malformed."""

    scheme: Final = HMAC_SCHEME

    def __init__(self, key_id: str, secret: str) -> None:
        self.key_id = _checked(key_id)
        if not secret or not secret.isascii() or secret != secret.strip():
            raise ValueError("the secret is empty, not ASCII, or has spaces around it")
        self._secret = secret.encode("ascii")

    def sign(self, text: bytes) -> str:
        return base64.b64encode(hmac.digest(self._secret, text, "sha256")).decode()

    def __repr__(self) -> str:
        return f"HmacKey({self.key_id!r})"


class Ed25519Key:
    """A key id and a private key: its 32-byte seed, or base64 of it. Raises ValueError when either is malformed."""

    scheme: Final = ED25519_SCHEME

    def __init__(self, key_id: str, private_key: bytes | str) -> None:
        self.key_id = _checked(key_id)
        try:
            seed = base64.b64decode(private_key, validate=True) if isinstance(private_key, str) else private_key
            self._private = Ed25519PrivateKey.from_private_bytes(seed)
        except ValueError:
            raise ValueError("the private key is not 32 bytes, nor base64 of 32 bytes") from None

    def sign(self, text: bytes) -> str:
        return base64.b64encode(self._private.sign(text)).decode()

    def __repr__(self) -> str:
        return f"Ed25519Key({self.key_id!r})"


class Clock:
    """Unix seconds as the house counts them: this machine's clock, moved by what the house has told. Safe to share between threads."""

    def __init__(self) -> None:
        self.offset_s = 0

    def now(self) -> int:
        return int(time.time()) + self.offset_s

    def correct(self, server_time: int) -> None:
        """Take over what a refusal `timestamp_out_of_window` carried as `server_time`."""
        self.offset_s = server_time - int(time.time())


def string_to_sign(scheme: str, timestamp: int, nonce: str, key_id: str, method: str, target: str, body: bytes) -> bytes:
    """The text that is signed. `target` is the raw path and query exactly as they are sent."""
    lines = (scheme, str(timestamp), nonce, key_id, method, target, hashlib.sha256(body).hexdigest())
    return "".join(f"{line}\n" for line in lines).encode("ascii")


def authorization(key: Key, method: str, target: str, body: bytes, *, timestamp: int, nonce: str | None = None) -> str:
    """The Authorization header of one attempt; every attempt needs its own, so leave `nonce` alone but in tests."""
    nonce = nonce if nonce is not None else secrets.token_hex(16)
    signature = key.sign(string_to_sign(key.scheme, timestamp, nonce, key.key_id, method, target, body))
    return f'{key.scheme} key_id="{key.key_id}",timestamp="{timestamp}",nonce="{nonce}",signature="{signature}"'


def _checked(key_id: str) -> str:
    if not _KEY_ID.fullmatch(key_id):
        raise ValueError("a key id looks like ak_test_ or ak_live_ and 26 letters and digits")
    return key_id
