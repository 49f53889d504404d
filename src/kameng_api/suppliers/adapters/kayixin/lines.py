"""Lines of 卡易信's list in ours."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from kameng_api.suppliers.adapters.kayixin import wire
from kameng_api.suppliers.port import AnswerUnusable, SupplierProduct, WantedField

CURRENCY: Final = "CNY"
TYPES: Final[Mapping[str, str]] = {"1": "card", "3": "topup"}
KINDS: Final[Mapping[str, str]] = {"0": "text", "13": "number", "14": "choice", "15": "text", "16": "choice"}


def product(row: Mapping[str, Any], target_field: str, sku: str = "") -> SupplierProduct | None:
    """A row of getList, or getDetail with its template, or one `sku` of it; None for what is neither card nor top-up, or has no such sku.

    A goods of several skus is not bought by itself, and one that sends a multiple of what is bought (发货倍数) not at all.
    Raises AnswerUnusable.
    """
    product_type = TYPES.get(wire.text(row, "goodsType"))
    if product_type is None:
        return None
    chosen = next((one for one in _details(row) if wire.text(one, "sku") == sku), None) if sku else None
    if sku and chosen is None:
        return None
    try:
        whole = wire.text(row, "skuType") == "0" or chosen is not None
        on_sale = wire.text(row, "status") == "1" and (chosen is None or wire.text(chosen, "status") == "1")
        stock = row.get("stockCount") if chosen is None else chosen.get("count")
        goods_id = str(wire.number(row, "goodsId"))
        return SupplierProduct(
            product_code=f"{goods_id}:{sku}" if sku else goods_id,
            name=wire.text(row, "name"),
            product_type=product_type,
            cost=wire.amount(row.get("salesPrice") if chosen is None else chosen.get("money")),
            currency=CURRENCY,
            stock=None if stock is None else max(wire.number({"stock": stock}, "stock"), 0),
            available=on_sale and whole and wire.number(row, "multiple") == 1,
            face_value=wire.amount(row["faceValue"]) or None if row.get("faceValue") is not None else None,
            fields=tuple(_wanted(one) for one in row.get("rechargeTemplates") or () if one.get("title") != target_field),
            min_units=max(wire.number(row, "minQuantity"), 1) if "minQuantity" in row else 1,
            max_units=wire.number(row, "maxQuantity") or None if "maxQuantity" in row else None,
        )
    except (wire.Unreadable, TypeError, AttributeError) as error:
        raise AnswerUnusable("a line of the list is unreadable") from error


def _details(row: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The skus of both kinds: goodsSku.details (多规格) and goodsSpec[].items (多单规格)."""
    several, single = row.get("goodsSku"), row.get("goodsSpec")
    groups = [several.get("details")] if isinstance(several, dict) else []
    groups += [spec.get("items") for spec in single if isinstance(spec, dict)] if isinstance(single, list) else []
    for group in groups:
        if isinstance(group, list):
            yield from (one for one in group if isinstance(one, dict))


def _wanted(field: Mapping[str, Any]) -> WantedField:
    """The title is the name: orders carry it (页面显示的名称). Of cascades the first level's values."""
    title, options = wire.text(field, "title"), field.get("options")
    kind = KINDS.get(wire.text(field, "type"), "text")
    values = [wire.text(one, "value") for one in options if isinstance(one, dict)] if kind == "choice" and isinstance(options, list) else []
    return WantedField(title, title, kind, wire.text(field, "required") == "1", tuple(values))
