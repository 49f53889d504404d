"""Reloadly's operators as lines of goods. Pure."""

from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any, Final

from kameng_api.suppliers.adapters.reloadly import wire
from kameng_api.suppliers.port import SupplierProduct, WantedField

_PHONE: Final = WantedField("phone", "Recipient's phone")


def lines(operator: object) -> Iterator[SupplierProduct]:
    """One line for each fixed amount, one for a range; all in our account's currency. Raises Unreadable."""
    if not isinstance(operator, dict):
        raise wire.Unreadable("operator")
    number, name, country = operator.get("operatorId"), operator.get("name"), operator.get("country")
    iso = country.get("isoName") if isinstance(country, dict) else None
    if not isinstance(number, int) or not isinstance(name, str) or not isinstance(iso, str):
        raise wire.Unreadable("operator")
    pin = operator.get("pin") is True
    common: dict[str, Any] = {
        "product_type": "card" if pin else "topup",
        "currency": str(operator.get("senderCurrencyCode")),
        "stock": None,
        "available": operator.get("status", "ACTIVE") == "ACTIVE",
        "fields": (_PHONE,) if pin else (),
        "max_units": 1,
    }
    match operator.get("denominationType"):
        case "FIXED":
            for amount in operator.get("fixedAmounts") or ():
                value = wire.decimal(amount)
                text = f"{value.normalize():f}"
                cost = wire.charge(_cost(operator, value))
                yield SupplierProduct(f"{number}-{iso}-{text}", f"{name} {text}"[:256], cost=cost, face_value=wire.holding(value), **common)
        case "RANGE" if operator.get("minAmount") is not None and operator.get("maxAmount") is not None:
            low, high = wire.decimal(operator["minAmount"]), wire.decimal(operator["maxAmount"])
            smallest = low or high
            if not smallest:
                return
            rate = wire.charge(_cost(operator, smallest) / smallest)  # a flat fee weighs most on the smallest amount
            yield SupplierProduct(
                f"{number}-{iso}", name[:256], cost=rate, face_min=wire.charge(low), face_max=wire.holding(high), **common
            )


def _cost(operator: Mapping[str, Any], amount: Decimal) -> Decimal:
    """What the list price comes to; an order is charged what the vendor says, not this. With a percentage fee no discount is given."""
    fees = operator.get("fees")
    fees = fees if isinstance(fees, dict) else {}
    flat, percent = wire.decimal(fees.get("international") or 0), wire.decimal(fees.get("internationalPercentage") or 0)
    discount = Decimal(0) if percent else wire.decimal(operator.get("internationalDiscount") or 0)
    return max(amount * (100 - discount + percent) / 100 + flat, Decimal(0))
