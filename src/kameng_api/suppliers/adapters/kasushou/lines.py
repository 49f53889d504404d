"""Lines of 卡速售's list in ours."""

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from kameng_api.suppliers.adapters.kasushou import wire
from kameng_api.suppliers.port import AnswerUnusable, SupplierProduct, WantedField

CURRENCY: Final = "CNY"
TYPES: Final[Mapping[str, str]] = {"1": "card", "2": "topup"}  # 3 is a parcel
ON_SALE: Final = "1"
KINDS: Final[Mapping[str, str]] = {
    "text": "text",
    "password": "password",
    "checkbox": "choice",
    "select": "choice",
    "radio": "choice",
    "cascader": "choice",
}


def product(row: Mapping[str, Any]) -> SupplierProduct | None:
    """A row of goods/list, or goods/info with its template; None for what is neither a card nor a top-up. Raises AnswerUnusable."""
    product_type = TYPES.get(wire.text(row, "goods_type"))
    if product_type is None:
        return None
    try:
        code, stock = wire.text(row, "id"), row.get("stock_num")
        if not code:
            raise wire.Unreadable("id")
        return SupplierProduct(
            product_code=code,
            name=wire.text(row, "goods_name"),
            product_type=product_type,
            cost=wire.amount(row.get("goods_price")),
            currency=CURRENCY,
            stock=None if stock is None else max(int(wire.text(row, "stock_num")), 0),
            available=wire.text(row, "status") == ON_SALE and int(wire.text(row, "start_count") or 1) <= 1,
            face_value=wire.amount(row["face_value"]) or None if row.get("face_value") else None,
            fields=tuple(_wanted(one) for one in row.get("attach") or () if one.get("key") != wire.TARGET_FIELD),
            max_units=1,  # see wire.order_params: what is sold in several only is therefore not available
        )
    except (ValueError, TypeError, AttributeError) as error:
        raise AnswerUnusable("a line of the list is unreadable") from error


def _wanted(field: Mapping[str, Any]) -> WantedField:
    kind = KINDS.get(wire.text(field, "type"), "text")
    return WantedField(
        name=wire.text(field, "key"),
        label=wire.text(field, "name"),
        kind=kind,
        options=_options(wire.text(field, "options")) if kind == "choice" else (),
    )


def _options(written: str) -> tuple[str, ...]:
    """Their form is not documented: a JSON list of texts, or texts between commas."""
    try:
        found = json.loads(written)
    except ValueError:
        return tuple(one for part in re.split(r"[,，|\n]", written) if (one := part.strip()))
    return tuple(one for one in found if isinstance(one, str)) if isinstance(found, list) else ()
