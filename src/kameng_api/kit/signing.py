"""Signatures: what a request must look like to count as the merchant's own, and how a webhook proves it is ours.

Requests carry `Authorization: KM1-HMAC-SHA256 key_id="…",timestamp="…",nonce="…",signature="…"` (or `KM1-ED25519`)
over a text of seven lines, each ended by one LF. Webhooks follow Standard Webhooks 1.0. Nothing here knows a clock, a
nonce memory or a merchant.
"""

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from kameng_api.kit.errors import Problem

HMAC_SCHEME = "KM1-HMAC-SHA256"
ED25519_SCHEME = "KM1-ED25519"
EMPTY_BODY_SHA256 = hashlib.sha256(b"").hexdigest()
_MAX_HEADER_BYTES = 512
_LINES = 7

# Four parameters, each from its own alphabet. Four repetitions and four filled groups together mean: each exactly once.
_AUTHORIZATION = re.compile(
    rb"(KM1-HMAC-SHA256|KM1-ED25519) "
    rb"(?:(?:"
    rb'key_id="([A-Za-z0-9_]{1,64})"'
    rb'|timestamp="([1-9][0-9]{0,11})"'
    rb'|nonce="([A-Za-z0-9_-]{16,64})"'
    rb'|signature="([A-Za-z0-9+/]{2,86}={0,2})"'
    rb")(?:,(?!\Z)|\Z)){4}"
)
# Our own paths need no more letters than these; everything else lets the signed path and the routed path differ.
_ODD_PATH = re.compile(rb"[^A-Za-z0-9._~/-]|//|/\.\.?(?:/|\Z)")


class AuthMalformed(Problem):
    """The Authorization header is not written as the contract says."""

    code = "auth_malformed"


class Credentials(NamedTuple):
    """A well-formed Authorization header; nothing in it is proven yet. `timestamp` in unix seconds, `signature`
    decoded.
    """

    scheme: str
    key_id: str
    timestamp: int
    nonce: str
    signature: bytes


def parse_authorization(value: bytes) -> Credentials:
    """Read an Authorization header strictly; raises `AuthMalformed`. The caller refuses a request with two such
    headers.
    """
    match = _AUTHORIZATION.fullmatch(value) if len(value) <= _MAX_HEADER_BYTES else None
    if match is None:
        raise AuthMalformed("Authorization must be: scheme, space, and key_id, timestamp, nonce, signature once each")
    scheme, key_id, timestamp, nonce, encoded = match.groups()
    if key_id is None or timestamp is None or nonce is None or encoded is None:
        raise AuthMalformed("key_id, timestamp, nonce and signature must each appear exactly once")
    try:
        signature = binascii.a2b_base64(encoded)
    except binascii.Error:
        raise AuthMalformed("signature is not base64") from None
    if binascii.b2a_base64(signature, newline=False) != encoded:  # other spellings of the same bytes are refused
        raise AuthMalformed("signature is not canonical base64")
    return Credentials(scheme.decode(), key_id.decode(), int(timestamp), nonce.decode(), signature)


def string_to_sign(scheme: str, timestamp: int, nonce: str, key_id: str, method: str, target: bytes, body_sha256_hex: str) -> bytes:
    """The seven lines. `target` is the raw path plus `?` and the raw query if there is one; raises `ValueError` if a
    part holds a line feed.
    """
    text = b"%b\n%d\n%b\n%b\n%b\n%b\n%b\n" % (
        scheme.encode(),
        timestamp,
        nonce.encode(),
        key_id.encode(),
        method.encode(),
        target,
        body_sha256_hex.encode(),
    )
    if text.count(b"\n") != _LINES:
        raise ValueError("a part of the string to sign contains a line feed")
    return text


def sign_hmac(secret: bytes, text: bytes) -> bytes:
    """HMAC-SHA256, 32 bytes. `secret` is the ASCII of the whole secret string, not decoded in any way."""
    return hmac.digest(secret, text, "sha256")


def verify_hmac(secret: bytes, text: bytes, signature: bytes) -> bool:
    """Whether `signature` is the HMAC of `text`, in time that does not depend on where they differ."""
    return hmac.compare_digest(hmac.digest(secret, text, "sha256"), signature)


def sign_ed25519(private_key: bytes, text: bytes) -> bytes:
    """64 bytes; `private_key` is the 32-byte seed."""
    return _private_key(private_key).sign(text)


def verify_ed25519(public_key: bytes, text: bytes, signature: bytes) -> bool:
    """Whether `signature` was made over `text` by the holder of the 32-byte `public_key`; raises `ValueError` for a
    key of another length.
    """
    try:
        _public_key(public_key).verify(signature, text)
    except InvalidSignature:
        return False
    return True


def ed25519_public_key(private_key: bytes) -> bytes:
    """The 32-byte public key of a 32-byte seed."""
    return _private_key(private_key).public_key().public_bytes_raw()


def sign_request(scheme: str, key: bytes, key_id: str, timestamp: int, nonce: str, method: str, target: bytes, body: bytes) -> str:
    """The whole Authorization header value, as a client makes it. `key` is the secret's ASCII (HMAC) or the 32-byte
    seed (Ed25519).
    """
    text = string_to_sign(scheme, timestamp, nonce, key_id, method, target, hashlib.sha256(body).hexdigest())
    signature = sign_ed25519(key, text) if scheme == ED25519_SCHEME else sign_hmac(key, text)
    encoded = binascii.b2a_base64(signature, newline=False).decode()
    return f'{scheme} key_id="{key_id}",timestamp="{timestamp}",nonce="{nonce}",signature="{encoded}"'


def path_is_canonical(raw_path: bytes) -> bool:
    """Whether the path can be read in one way only: no escapes, no empty or dot segments, and only
    `[A-Za-z0-9._~/-]`.
    """
    return raw_path.startswith(b"/") and _ODD_PATH.search(raw_path) is None


def sign_webhook(secrets: Sequence[str], msg_id: str, timestamp: int, body: bytes) -> str:
    """The `webhook-signature` header of Standard Webhooks 1.0: one `v1,…` for each secret, so that a receiver may
    hold either while we rotate.

    A secret is `whsec_` and base64 of its 16–64 bytes, decoded before use (unlike a request secret). `timestamp` in
    unix seconds is the time of this attempt. Raises `ValueError` for a malformed secret or an id that would make the
    signed text ambiguous.
    """
    if not secrets or "." in msg_id:
        raise ValueError("a webhook needs a secret, and an id without a dot")
    text = b"%b.%d.%b" % (msg_id.encode(), timestamp, body)
    keys = [_webhook_key(secret) for secret in secrets]
    return " ".join("v1," + base64.b64encode(hmac.digest(key, text, "sha256")).decode() for key in keys)


@lru_cache(maxsize=4096)
def _webhook_key(secret: str) -> bytes:
    prefix, encoded = secret[:6], secret[6:]
    try:
        key = base64.b64decode(encoded, validate=True)
    except ValueError:
        key = b""
    if prefix != "whsec_" or not 16 <= len(key) <= 64:
        raise ValueError("a webhook secret is whsec_ and base64 of 16 to 64 bytes")
    return key


@lru_cache(maxsize=4096)
def _public_key(public_key: bytes) -> Ed25519PublicKey:
    return Ed25519PublicKey.from_public_bytes(public_key)


@lru_cache(maxsize=64)
def _private_key(private_key: bytes) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(private_key)
