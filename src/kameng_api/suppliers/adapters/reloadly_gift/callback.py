"""Reloadly calls us: signed with a timestamp, by a formula that is known from other receivers only, so the news is a hint."""

import hmac
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from kameng_api.suppliers.adapters.reloadly_gift import mapping, wire
from kameng_api.suppliers.port import CallbackNews, CallbackRefused, CallbackReply, Delivered

REPLY: Final = CallbackReply(status=200, body=b"OK", content_type="text/plain")
_WINDOW_S: Final = 3600
"""Wide, because it is not documented whether a retried webhook is signed anew."""


def read(secret: str, currency: str, headers: Mapping[str, str], body: bytes, now: datetime) -> CallbackNews:
    """Raises CallbackRefused unless the body is signed and of this hour."""
    timestamp = headers.get("x-reloadly-request-timestamp", "")
    given = headers.get("x-reloadly-signature", "").lower()
    if not timestamp or not hmac.compare_digest(given.encode(), wire.signature(secret, body, timestamp).encode()):
        raise CallbackRefused("bad signature")
    if abs(now.timestamp() - _seconds(timestamp)) > _WINDOW_S:
        raise CallbackRefused("stale")
    try:
        row = _transaction(wire.read(body))
        reference = row.get("customIdentifier")
        if not isinstance(reference, str) or not reference:
            raise CallbackRefused("no reference")
        found = mapping.order(row, reference, currency)
    except wire.Unreadable as error:
        raise CallbackRefused("unreadable") from error
    outcome = Delivered(found.units, found.cost, found.number) if isinstance(found, mapping.Sold) else found
    return CallbackNews(reference, outcome)


def _transaction(found: Any) -> Mapping[str, Any]:
    """Under `data`, or one deeper under `data.transaction`. Raises Unreadable."""
    inner = found.get("data") if isinstance(found, dict) else None
    deeper = inner.get("transaction") if isinstance(inner, dict) else None
    row = deeper if isinstance(deeper, dict) else inner
    if not isinstance(row, dict):
        raise wire.Unreadable("data")
    return row


def _seconds(timestamp: str) -> float:
    """Seconds or milliseconds since 1970, or a date and time. Raises CallbackRefused."""
    if timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= 13:
        return int(timestamp) / (1000 if len(timestamp) > 10 else 1)
    try:
        return wire.moment(timestamp).timestamp()
    except wire.Unreadable as error:
        raise CallbackRefused("no timestamp") from error
