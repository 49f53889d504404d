"""Ding's product list, line by line. Pure."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

from kameng_api.kit.money import SCALE
from kameng_api.suppliers.adapters.ding import wire
from kameng_api.suppliers.port import SupplierProduct, WantedField

_CENT: Final = Decimal("0.01")
_CARD: Final = "ReadReceipt"
"""`RedemptionMechanism` of what is delivered as a PIN on the receipt."""


def line(product: object) -> SupplierProduct:
    """One product. Equal ends of its range make it a fixed one, and its price a part of our product code. Raises Unreadable."""
    if not isinstance(product, dict):
        raise wire.Unreadable("product")
    sku, low, high = _word(product, "SkuCode"), _price(product, "Minimum"), _price(product, "Maximum")
    least, most = wire.decimal(low.get("SendValue")), wire.decimal(high.get("SendValue"))
    name = product.get("DefaultDisplayText")
    common: dict[str, Any] = {
        "name": f"{name} {sku}"[:256] if isinstance(name, str) and name else sku,
        "product_type": "card" if product.get("RedemptionMechanism") == _CARD else "topup",
        "currency": _word(low, "SendCurrencyIso"),
        "stock": None,
        # Bills have to be asked for first, which is not done here; and our product code has room for two decimals, as the document says.
        "available": product.get("LookupBillsRequired") is not True and least == least.quantize(_CENT),
        "fields": tuple(_fields(product.get("SettingDefinitions"))),
        "max_units": 1,
    }
    if least == most:
        received = low.get("ReceiveValue")
        face = None if received is None else wire.holding(wire.decimal(received))
        return SupplierProduct(f"{sku}-{least:.2f}", cost=wire.charge(least), face_value=face, **common)
    return SupplierProduct(f"{sku}-range", cost=SCALE, face_min=wire.charge(least), face_max=wire.holding(most), **common)


def _fields(definitions: object) -> list[WantedField]:
    found = []
    for one in definitions if isinstance(definitions, list) else ():
        name = _word(one, "Name") if isinstance(one, dict) else ""
        if not name:
            raise wire.Unreadable("SettingDefinitions")
        label = one.get("Description")
        found.append(WantedField(name, label[:120] if isinstance(label, str) and label else name, required=one.get("IsMandatory") is True))
    return found


def _price(product: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """`{Price}` or the price itself: both were seen. Raises Unreadable."""
    value = product.get(name)
    inner = value.get("Price", value) if isinstance(value, dict) else None
    if not isinstance(inner, dict):
        raise wire.Unreadable(name)
    return inner


def _word(record: Mapping[str, Any], name: str) -> str:
    value = record.get(name)
    if not isinstance(value, str) or not value:
        raise wire.Unreadable(name)
    return value
