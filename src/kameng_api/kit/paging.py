"""Opaque keyset cursors: the place in a list where the next page begins, usable only in the list it was given for.

A cursor is the last row's sort key plus a MAC over it and its context (whose list, which filters), so that a cursor
of another merchant, of other filters, or made by hand is refused. It is not secret: put nothing in a position that
the caller has not seen.
"""

import base64
import binascii
import hmac
import re
from collections.abc import Sequence

import orjson

from kameng_api.kit.errors import Problem

_MAC_BYTES = 15  # 120 bits: 20 characters without padding
_MAX_CURSOR_CHARS = 1024
_CURSOR = re.compile(r"([A-Za-z0-9_-]{1,1000})\.([A-Za-z0-9_-]{20})")


class CursorInvalid(Problem):
    """The cursor was not given out for this list and these filters."""

    code = "cursor_invalid"


def encode(key: bytes, position: Sequence[str], context: Sequence[str]) -> str:
    """A cursor of `[A-Za-z0-9._-]` for the row whose sort key is `position`; raises `ValueError` if it would pass
    1,024 characters.
    """
    payload = base64.urlsafe_b64encode(orjson.dumps(list(position))).rstrip(b"=").decode()
    cursor = f"{payload}.{_mac(key, payload, context)}"
    if len(cursor) > _MAX_CURSOR_CHARS or _CURSOR.fullmatch(cursor) is None:
        raise ValueError("the position is too long for a cursor")
    return cursor


def decode(key: bytes, cursor: str, context: Sequence[str]) -> list[str]:
    """The position `encode` was given, if key and context are the same; raises `CursorInvalid`."""
    match = _CURSOR.fullmatch(cursor) if len(cursor) <= _MAX_CURSOR_CHARS else None
    if match is None:
        raise CursorInvalid("the cursor is malformed")
    payload, mac = match.groups()
    if not hmac.compare_digest(_mac(key, payload, context), mac):  # over the text, so each cursor has one spelling
        raise CursorInvalid("the cursor belongs to another list or other filters")
    position: list[str] = orjson.loads(binascii.a2b_base64(_unpadded(payload)))
    return position


def _mac(key: bytes, payload: str, context: Sequence[str]) -> str:
    bound = orjson.dumps(["cursor/1", payload, *context])
    return base64.urlsafe_b64encode(hmac.digest(key, bound, "sha256")[:_MAC_BYTES]).decode()


def _unpadded(payload: str) -> bytes:
    return payload.translate(_STANDARD).encode() + b"=" * (-len(payload) % 4)


_STANDARD = str.maketrans("-_", "+/")
