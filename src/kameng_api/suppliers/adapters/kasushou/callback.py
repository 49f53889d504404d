"""卡速售 calls us about orders and about its list; neither call is signed in full, so both are a reason to ask and no more."""

from typing import Final

from kameng_api.suppliers.adapters.kasushou import mapping, wire
from kameng_api.suppliers.port import CallbackNews, CallbackRefused, CallbackReply, CatalogHint

REPLY: Final = CallbackReply(status=200, body=b"ok", content_type="text/plain")


def read(apikey: str, body: bytes) -> CallbackNews | CatalogHint:
    """Raises CallbackRefused. Cards are never taken from here: `card_list` is outside the signature."""
    try:
        fields = wire.read_post(body)
        reference = wire.text(fields, "external_orderno")
        if reference:
            if not wire.is_signed(apikey, fields):
                raise CallbackRefused("bad signature")
            return CallbackNews(reference, mapping.in_callback(fields))
        product_code = wire.text(fields, "id")
        if not product_code or not wire.is_hint_signed(apikey, fields):
            raise CallbackRefused("bad signature")
        return CatalogHint((product_code,))
    except wire.Unreadable as error:
        raise CallbackRefused("unreadable") from error
