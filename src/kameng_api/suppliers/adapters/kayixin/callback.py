"""卡易信 calls us about orders and about its list: signed in full, cards encrypted, by MD5 with a leading secret; so it is asked again."""

from collections.abc import Mapping
from typing import Any, Final

from kameng_api.suppliers.adapters.kayixin import mapping, wire
from kameng_api.suppliers.port import CallbackNews, CallbackRefused, CallbackReply, CatalogHint

REPLY: Final = CallbackReply(status=200, body=b"ok", content_type="text/plain")


def read(app_id: str, secret: str, headers: Mapping[str, str], body: bytes) -> CallbackNews | CatalogHint:
    """Raises CallbackRefused."""
    if not wire.is_signed(app_id, secret, {name.lower(): value for name, value in headers.items()}, body):
        raise CallbackRefused("bad signature")
    try:
        order = wire.read_object(body)
        reference = wire.text(order, "outerNumber")
        if reference:
            return CallbackNews(reference, mapping.in_callback(order, secret))
        goods_id = wire.text(order, "goodsId")
        if not goods_id:
            raise CallbackRefused("no reference")
        return CatalogHint((goods_id, *(f"{goods_id}:{sku}" for sku in _skus(order))))
    except wire.Unreadable as error:
        raise CallbackRefused("unreadable") from error


def _skus(push: Mapping[str, Any]) -> list[str]:
    rows = [*_rows(push.get("skus")), *(row for spec in _rows(push.get("specs")) for row in _rows(spec.get("data")))]
    return [sku for row in rows if (sku := wire.text(row, "sku"))]


def _rows(value: object) -> list[dict[str, Any]]:
    return [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []
