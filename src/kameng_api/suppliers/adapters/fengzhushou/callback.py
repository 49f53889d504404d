"""蜂助手 calls us: verified here, and only a hint to ask, because no time is known to be signed."""

from typing import Final

from kameng_api.suppliers.adapters.fengzhushou import mapping, wire
from kameng_api.suppliers.port import CallbackNews, CallbackRefused, CallbackReply

REPLY: Final = CallbackReply(status=200, body=b'{"code":"0"}', content_type="application/json")


def read(key: str, body: bytes) -> CallbackNews:
    """Raises CallbackRefused unless `body` is signed with `key`."""
    try:
        found = wire.read_flat(body)
        if not wire.is_signed(key, found):
            raise CallbackRefused("bad signature")
        reference = found.get("channelOrderNo")
        if not isinstance(reference, str) or not reference:
            raise CallbackRefused("no reference")
        return CallbackNews(reference, mapping.in_callback(found))
    except wire.Unreadable as error:
        raise CallbackRefused("unreadable") from error
