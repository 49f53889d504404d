"""The site calls us about an order or about a line of its list: verified here, and only a hint to ask.

The text that is signed can be cut into other fields where a value holds `&`, and calls travel over plain HTTP: their verdict is not believed.
"""

from datetime import datetime
from typing import Final

from kameng_api.suppliers.adapters.kakayun import mapping, wire
from kameng_api.suppliers.port import CallbackNews, CallbackRefused, CallbackReply, CatalogHint

REPLY: Final = CallbackReply(status=200, body=b"ok", content_type="text/plain")


def read(key: str, body: bytes, now: datetime) -> CallbackNews | CatalogHint:
    """Raises CallbackRefused unless `body` is signed with `key` within five minutes of `now`."""
    try:
        found = wire.read_signed(body)
        if not wire.is_signed(key, found):
            raise CallbackRefused("bad signature")
        if abs(now.timestamp() - wire.whole(found.get("timestamp"))) > wire.CLOCK_WINDOW_S:
            raise CallbackRefused("stale")
        reference = found.get("usorderno")
        if isinstance(reference, str) and reference:
            return CallbackNews(reference, mapping.state(found))
        if found.get("goodsid") and "orderno" not in found:
            return CatalogHint((str(wire.whole(found["goodsid"])),))
    except (wire.Unreadable, TypeError) as error:
        raise CallbackRefused("unreadable") from error
    raise CallbackRefused("about nothing of ours")
