"""DT One calls us: only credentials prove who speaks, nothing proves what is said, so the news is a hint and brings no code."""

import hmac
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from kameng_api.suppliers.adapters.dtone import mapping, wire
from kameng_api.suppliers.port import CallbackNews, CallbackRefused, CallbackReply, Delivered

REPLY: Final = CallbackReply(status=200, body=b"OK", content_type="text/plain")


def read(authorization: str, currency: str, headers: Mapping[str, str], body: bytes) -> CallbackNews:
    """Raises CallbackRefused unless the Basic credentials are those we set in DT Shop."""
    if not hmac.compare_digest(headers.get("authorization", "").encode(), authorization.encode()):
        raise CallbackRefused("wrong credentials")
    try:
        found = wire.read(body)
        reference = found.get("external_id") if isinstance(found, dict) else None
        if not isinstance(reference, str) or not reference:
            raise CallbackRefused("no reference")
        outcome = mapping.order(found, reference, currency)
    except wire.Unreadable as error:
        raise CallbackRefused("unreadable") from error
    return CallbackNews(reference, replace(outcome, codes=()) if isinstance(outcome, Delivered) else outcome)
