"""The other house calls us by Standard Webhooks 1.0: about orders (believed) and about products (a hint)."""

import hmac
from collections.abc import Mapping
from datetime import datetime
from typing import Final

from kameng_api.kit.signing import sign_webhook
from kameng_api.suppliers.adapters.kameng import mapping, wire
from kameng_api.suppliers.port import Accepted, CallbackNews, CallbackRefused, CallbackReply, CatalogHint

REPLY: Final = CallbackReply(status=200, body=b"ok", content_type="text/plain")


def read(secret: str, headers: Mapping[str, str], body: bytes, now: datetime) -> CallbackNews | CatalogHint:
    """Raises CallbackRefused unless `body` is signed with `secret` within five minutes of `now`. Codes never come this way."""
    told = {name.lower(): value for name, value in headers.items()}
    timestamp = told.get("webhook-timestamp", "")
    if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= 12):
        raise CallbackRefused("no timestamp")
    try:
        expected = sign_webhook([secret], told.get("webhook-id", ""), int(timestamp), body).encode()
    except ValueError as error:
        raise CallbackRefused("bad id or secret") from error
    given = told.get("webhook-signature", "").split(" ")
    if not any([hmac.compare_digest(expected, one.encode()) for one in given]):  # noqa: C419 (each is compared, whichever fits)
        raise CallbackRefused("bad signature")
    if abs(now.timestamp() - int(timestamp)) > wire.CLOCK_WINDOW_S:
        raise CallbackRefused("stale")
    return _news(body)


def _news(body: bytes) -> CallbackNews | CatalogHint:
    try:
        event = wire.read_object(body)
        kind, data = str(event.get("type")), event.get("data")
        about = data.get("object") if isinstance(data, dict) else None
        if not isinstance(about, dict):
            raise CallbackRefused("about nothing of ours")
        if kind.startswith("product.") and isinstance(about.get("sku"), str):
            return CatalogHint((about["sku"],))
        reference = about.get("merchant_order_no")
        if not kind.startswith("order.") or not isinstance(reference, str) or not reference:
            raise CallbackRefused("about nothing of ours")
        outcome = mapping.order(about, reference)
        return CallbackNews(reference, Accepted(outcome.order_id) if isinstance(outcome, mapping.CodesWanted) else outcome)
    except wire.Unreadable as error:
        raise CallbackRefused("unreadable") from error
