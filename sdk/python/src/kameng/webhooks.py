"""Verifies webhooks (Standard Webhooks 1.0) and reads them as events.

    receiver = Webhooks("whsec_…")
    event = receiver.verify(request.headers, request_body_as_bytes)     # raises WebhookRefused

Keep `event.id` for 90 days, or compare `event.version` with the version you hold: the same event may come again, and events may overtake each other.
"""

import base64
import binascii
import hmac
import json
import re
import time
from collections.abc import Mapping
from typing import Final

from kameng.errors import BrokenAnswer, WebhookRefused
from kameng.models import Event

TOLERANCE_S: Final = 300
_MOST_SIGNATURES: Final = 16
_TIMESTAMP: Final = re.compile(r"[0-9]{1,11}")


class Webhooks:
    """A receiver's secrets. Give the old and the new one while you change them; the house signs with both for 24 hours after a rotation."""

    def __init__(self, *secrets: str, tolerance_s: int = TOLERANCE_S) -> None:
        """Raises ValueError for what is no `whsec_…` secret, and when none is given."""
        if not secrets:
            raise ValueError("no secret: a receiver without one would believe everybody")
        self._keys = tuple(_key(secret) for secret in secrets)
        self._tolerance_s = tolerance_s

    def verify(self, headers: Mapping[str, str], body: bytes, *, now: float | None = None) -> Event:
        """`headers` in any spelling of their names, `body` as the bytes received, before any JSON parser. Raises WebhookRefused."""
        given = {str(name).lower(): str(value) for name, value in headers.items()}
        event_id, timestamp, signatures = (given.get(f"webhook-{name}", "") for name in ("id", "timestamp", "signature"))
        if not event_id or not signatures or not _TIMESTAMP.fullmatch(timestamp):
            raise WebhookRefused("a webhook- header is missing or malformed")
        if abs((time.time() if now is None else now) - int(timestamp)) > self._tolerance_s:
            raise WebhookRefused("the timestamp is too far from this machine's clock")
        if not self._is_signed(event_id, timestamp, signatures, body):
            raise WebhookRefused("no signature fits")
        try:
            event = Event.read(json.loads(body))
        except (ValueError, BrokenAnswer):
            raise WebhookRefused("signed, but not an event") from None
        if event.id != event_id:
            raise WebhookRefused("the body belongs to another event")
        return event

    def _is_signed(self, event_id: str, timestamp: str, signatures: str, body: bytes) -> bool:
        found = False
        offered = [one.encode("utf-8", "replace") for one in signatures.split(" ")[:_MOST_SIGNATURES]]
        for key in self._keys:
            expected = _signature(key, event_id, timestamp, body).encode("ascii")
            for one in offered:
                found |= hmac.compare_digest(expected, one)
        return found

    def __repr__(self) -> str:
        return f"Webhooks({len(self._keys)} secrets)"


def sign(secret: str, event_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The three headers, as the house sends them: for the tests of your own receiver."""
    signature = _signature(_key(secret), event_id, str(timestamp), body)
    return {"webhook-id": event_id, "webhook-timestamp": str(timestamp), "webhook-signature": signature}


def _key(secret: str) -> bytes:
    """Unlike a request secret, this one is decoded: base64 after `whsec_`."""
    try:
        key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not secret.startswith("whsec_") or not key:
        raise ValueError("a webhook secret is whsec_ and base64")
    return key


def _signature(key: bytes, event_id: str, timestamp: str, body: bytes) -> str:
    text = f"{event_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(key, text, "sha256")).decode()
