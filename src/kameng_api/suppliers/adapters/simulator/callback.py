"""The simulator calls us: verified here, believed by whoever asked."""

import json
from datetime import datetime
from typing import Any, Final

from kameng_api.suppliers.adapters.simulator import mapping, wire
from kameng_api.suppliers.port import CallbackNews, CallbackRefused, CallbackReply, CatalogHint

REPLY: Final = CallbackReply(status=200, body=b"success", content_type="text/plain")


def read(app_key: str, secret: str, body: bytes, now: datetime) -> CallbackNews | CatalogHint:
    """News of an order, or, with `product_codes` in place of one, lines of the list that have changed.

    Raises CallbackRefused unless `body` is signed with `secret` for `app_key` within five minutes of `now`.
    """
    try:
        params = wire.read_flat(body)
        if params.get("app_key") != app_key or not wire.is_signed(secret, params):
            raise CallbackRefused("bad signature")
        if abs(now.timestamp() - _seconds(params)) > wire.CLOCK_WINDOW_S:
            raise CallbackRefused("stale")
        if params.get("product_codes") and not params.get("out_order_no"):
            return CatalogHint(tuple(params["product_codes"].split(",")))
        reference = params.get("out_order_no", "")
        if not reference:
            raise CallbackRefused("no reference")
        order: dict[str, Any] = dict(params)
        if params.get("cards"):
            order["cards"] = json.loads(params["cards"])
        return CallbackNews(reference, mapping.in_callback(order))
    except (wire.Unreadable, ValueError) as error:
        raise CallbackRefused("unreadable") from error


def _seconds(params: dict[str, str]) -> int:
    text = params.get("timestamp", "")
    if not (text.isascii() and text.isdigit() and len(text) <= 12):
        raise CallbackRefused("no timestamp")
    return int(text)
