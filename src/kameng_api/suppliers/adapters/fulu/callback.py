"""福禄 calls us: signed by its characters alone, so whoever can reorder them can lie; the news is a reason to ask and no more."""

from kameng_api.suppliers.adapters.fulu import mapping, wire
from kameng_api.suppliers.port import CallbackNews, CallbackRefused


def read(secret: str, body: bytes) -> CallbackNews:
    """Raises CallbackRefused."""
    try:
        fields = wire.read_post(body)
        if not wire.is_signed(secret, wire.callback_text(fields), fields.get("sign")):
            raise CallbackRefused("bad signature")
        reference = wire.text(fields, "customer_order_no")
        if not reference:
            raise CallbackRefused("no reference")
        return CallbackNews(reference, mapping.in_callback(fields))
    except wire.Unreadable as error:
        raise CallbackRefused("unreadable") from error
