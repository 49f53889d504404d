"""大猿人 calls us: signed like a request, but neither dated nor numbered, so the news is a reason to ask and no more."""

from kameng_api.suppliers.adapters.yrapi import mapping, wire
from kameng_api.suppliers.port import CallbackNews, CallbackRefused


def read(userid: str, apikey: str, body: bytes) -> CallbackNews:
    """Raises CallbackRefused unless the form is signed with `apikey`. "Processing" may come before the final one: that is Accepted."""
    try:
        params = wire.read_form(body)
    except wire.Unreadable as error:
        raise CallbackRefused("unreadable") from error
    if params.get("userid") != userid or not wire.is_signed(apikey, params):
        raise CallbackRefused("bad signature")
    reference = params.get("out_trade_num", "")
    if not reference:
        raise CallbackRefused("no reference")
    return CallbackNews(reference, mapping.of_order(params))
