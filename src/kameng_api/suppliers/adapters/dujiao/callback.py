"""The shop calls us: verified here, believed by whoever asked. Source: the document's §5; the signed path from the shop's source."""

import hmac
from collections.abc import Mapping
from datetime import datetime
from typing import Final

from kameng_api.suppliers.adapters.dujiao import mapping, wire
from kameng_api.suppliers.port import CallbackNews, CallbackRefused, CallbackReply

REPLY: Final = CallbackReply(status=200, body=b'{"ok":true,"message":"received"}', content_type="application/json")


def read(api_key: str, secret: str, headers: Mapping[str, str], body: bytes, now: datetime) -> CallbackNews:
    """Raises CallbackRefused unless `body` is signed with `secret` for `api_key` within a minute of `now`."""
    told = {name.lower(): value for name, value in headers.items()}
    timestamp = told.get("dujiao-next-timestamp", "")
    expected = wire.sign(secret, "POST", wire.CALLBACK_PATH, timestamp, body)
    if told.get("dujiao-next-api-key") != api_key or not hmac.compare_digest(expected.encode(), told.get("dujiao-next-signature", "").encode()):
        raise CallbackRefused("bad signature")
    if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= 12):
        raise CallbackRefused("no timestamp")
    if abs(now.timestamp() - int(timestamp)) > wire.CLOCK_WINDOW_S:
        raise CallbackRefused("stale")
    try:
        found = wire.read_object(body)
        reference = found.get("downstream_order_no")
        if not isinstance(reference, str) or not reference:
            raise CallbackRefused("no reference")
        return CallbackNews(reference, mapping.in_callback(found))
    except wire.Unreadable as error:
        raise CallbackRefused("unreadable") from error
