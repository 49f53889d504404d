"""How dujiao-next v1 signs: HMAC-SHA256 over `METHOD\\nPATH\\nTIMESTAMP\\nMD5(body)`, lower-case hexadecimal. Pure.

Source: the project's integration document (2026-04-01), §2; the path of a callback is fixed, whatever its URL (the project's own source).
"""

import hashlib
import hmac
from typing import Final

API_KEY: Final = "Dujiao-Next-Api-Key"
TIMESTAMP: Final = "Dujiao-Next-Timestamp"
SIGNATURE: Final = "Dujiao-Next-Signature"
WINDOW_S: Final = 60
CALLBACK_PATH: Final = "/api/v1/upstream/callback"


def sign(secret: str, method: str, path: str, timestamp: str, body: bytes) -> str:
    """`path` without host and query; `timestamp` as in the header."""
    digest = hashlib.md5(body, usedforsecurity=False).hexdigest()
    text = f"{method}\n{path}\n{timestamp}\n{digest}"
    return hmac.new(secret.encode(), text.encode(), hashlib.sha256).hexdigest()


def is_signed(secret: str, method: str, paths: tuple[str, ...], timestamp: str, body: bytes, given: str) -> bool:
    """Whether `given` signs one of `paths`: a client may sign the path it knows, or the one of the URL it was given. In constant time."""
    matches = [hmac.compare_digest(sign(secret, method, path, timestamp, body).encode(), given.encode()) for path in paths]
    return any(matches)


def signed_headers(api_key: str, secret: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The headers of a callback."""
    at = str(timestamp)
    return {
        "Content-Type": "application/json",
        API_KEY: api_key,
        TIMESTAMP: at,
        SIGNATURE: sign(secret, "POST", CALLBACK_PATH, at, body),
    }
