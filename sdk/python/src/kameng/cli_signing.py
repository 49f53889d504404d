"""What is wrong with a signature: the seven lines side by side, and the usual mistakes tried one after the other."""

import base64
import binascii
import hashlib
import hmac
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from kameng.signing import HMAC_SCHEME, string_to_sign

NAMES: Final = ("scheme", "timestamp", "nonce", "key_id", "method", "target", "body_sha256")
_HEADER: Final = re.compile(r'(KM1-HMAC-SHA256|KM1-ED25519) ((?:[a-z_]+="[^"]*",?){4})')
_PART: Final = re.compile(r'([a-z_]+)="([^"]*)"')


@dataclass(frozen=True)
class Presented:
    """An Authorization header as some software made it."""

    scheme: str
    key_id: str
    timestamp: int
    nonce: str
    signature: str


def read_header(header: str) -> Presented:
    """Raises ValueError saying what is malformed."""
    text = header.strip().removeprefix("Authorization:").strip()
    found = _HEADER.fullmatch(text)
    parts = dict(_PART.findall(found[2])) if found is not None else {}
    if found is None or set(parts) != {"key_id", "timestamp", "nonce", "signature"} or text.endswith(","):
        raise ValueError('the header must be: scheme, one space, and key_id="…",timestamp="…",nonce="…",signature="…", each once')
    if not re.fullmatch(r"[1-9][0-9]{0,11}", parts["timestamp"]):
        raise ValueError("timestamp must be decimal unix seconds, without fraction (milliseconds are a common mistake)")
    if not re.fullmatch(r"[A-Za-z0-9_-]{16,64}", parts["nonce"]):
        raise ValueError("nonce must be 16 to 64 of A-Z a-z 0-9 _ -")
    return Presented(found[1], parts["key_id"], int(parts["timestamp"]), parts["nonce"], parts["signature"])


def lines_of(text: bytes) -> dict[str, str]:
    """The seven lines by name."""
    return dict(zip(NAMES, text.decode("latin-1").split("\n"), strict=False))


def explain(given: Presented, secret: str, method: str, target: str, body: bytes) -> str | None:
    """None when the signature fits; else the mistake that leads to this very signature, or that none of the usual ones does."""
    if given.scheme != HMAC_SCHEME:
        raise ValueError("only KM1-HMAC-SHA256 can be looked into")
    right = _text(given, method, target, body)
    if hmac.compare_digest(_sign(secret.encode(), right), given.signature):
        return None
    for mistake, signature in _mistakes(given, secret, method, target, body):
        if hmac.compare_digest(signature, given.signature):
            return mistake
    return "none of the usual mistakes leads to this signature: compare the secret, the body's bytes and the seven lines"


def _mistakes(given: Presented, secret: str, method: str, target: str, body: bytes) -> Iterator[tuple[str, str]]:
    key, right = secret.encode(), _text(given, method, target, body)
    path, _, query = target.partition("?")

    def signed(target: str = target, method: str = method, body: bytes = body) -> str:
        return _sign(key, _text(given, method, target, body))

    yield "the last line lacks its line feed: all seven lines end with one", _sign(key, right[:-1])
    yield "the lines end with CR LF instead of LF", _sign(key, right.replace(b"\n", b"\r\n"))
    yield "the signature is hex instead of base64", hmac.new(key, right, "sha256").hexdigest()
    yield "the signature is URL-safe base64; use the ordinary alphabet", _sign(key, right).replace("+", "-").replace("/", "_")
    yield "the signature's base64 lacks its padding", _sign(key, right).rstrip("=")
    yield "SHA-256 without HMAC, the secret appended", base64.b64encode(hashlib.sha256(right + key).digest()).decode()
    yield "the body's hash is written in upper case", _sign(key, right[:-65] + right[-65:].upper())
    yield "the body was left out of the signature", signed(body=b"")
    yield "the query was left out of the target", signed(target=path)
    yield "the method is not in upper case", signed(method=method.lower())
    for tail in ("/", ""):
        yield "the slash at the end of the path differs from what was sent", signed(target=path.rstrip("/") + tail + ("?" + query if query else ""))
    yield "the body itself stands in line 7 instead of its SHA-256", _sign(key, right[:-65] + body + b"\n")
    yield from _mistakes_of_secret(secret, right)
    for spelling, other in _spellings(body):
        yield f"another spelling of the body was signed than was sent ({spelling}): serialise once, sign and send those bytes", signed(body=other)


def _mistakes_of_secret(secret: str, right: bytes) -> Iterator[tuple[str, str]]:
    bare = secret.split("_", 2)[-1]
    yield "the secret was cut: it is used whole, `sk_…` included", _sign(bare.encode(), right)
    yield "there is a line feed after the secret", _sign(secret.encode() + b"\n", right)
    try:
        decoded = base64.b64decode(bare + "=" * (-len(bare) % 4))
    except (binascii.Error, ValueError):
        return
    yield "the secret was base64-decoded: request secrets are used as they are written", _sign(decoded, right)


def _spellings(body: bytes) -> Iterator[tuple[str, bytes]]:
    try:
        read = json.loads(body)
    except ValueError:
        return
    yield "compact", json.dumps(read, ensure_ascii=False, separators=(",", ":")).encode()
    yield "compact, escaped", json.dumps(read, separators=(",", ":")).encode()
    yield "with spaces", json.dumps(read, ensure_ascii=False).encode()
    yield "with spaces, escaped", json.dumps(read).encode()
    yield "keys sorted, compact", json.dumps(read, ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode()
    yield "without the line feed at its end", body.rstrip(b"\r\n")
    yield "with a line feed at its end", body + b"\n"


def _text(given: Presented, method: str, target: str, body: bytes) -> bytes:
    return string_to_sign(given.scheme, given.timestamp, given.nonce, given.key_id, method, target, body)


def _sign(key: bytes, text: bytes) -> str:
    return base64.b64encode(hmac.new(key, text, "sha256").digest()).decode()
