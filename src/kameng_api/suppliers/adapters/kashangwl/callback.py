"""The platform calls us: verified here, and only a hint to ask.

The signature is a bare MD5 with the key in front, so whoever saw one callback can lengthen it, and it holds no time.
"""

from typing import Final

from kameng_api.suppliers.adapters.kashangwl import mapping, wire
from kameng_api.suppliers.port import CallbackNews, CallbackRefused, CallbackReply

REPLY: Final = CallbackReply(status=200, body=b"ok", content_type="text/plain")


def read(key: str, body: bytes) -> CallbackNews:
    """Raises CallbackRefused unless `body` (JSON, or a form) is signed with `key`."""
    try:
        params = wire.read_flat(body)
        if not wire.is_signed(key, params):
            raise CallbackRefused("bad signature")
        reference = params.get("outer_order_id")
        if not isinstance(reference, str) or not reference:
            raise CallbackRefused("no reference")
        return CallbackNews(reference, mapping.in_callback(params))
    except wire.Unreadable as error:
        raise CallbackRefused("unreadable") from error
