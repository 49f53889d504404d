"""Reloadly's gift cards as lines of goods. Pure."""

from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any, Final

from kameng_api.suppliers.adapters.reloadly_gift import wire
from kameng_api.suppliers.port import SupplierProduct, WantedField

_USER: Final = WantedField("userId", "User id")
_MOST_UNITS: Final = 100


def lines(product: object) -> Iterator[SupplierProduct]:
    """One line for each fixed face value, one for a range. Faces in the card's currency, costs in our account's. Raises Unreadable."""
    if not isinstance(product, dict):
        raise wire.Unreadable("product")
    number, name, needs = product.get("productId"), product.get("productName"), product.get("additionalRequirements")
    if not isinstance(number, int) or not isinstance(name, str):
        raise wire.Unreadable("product")
    common: dict[str, Any] = {
        "product_type": "card",
        "currency": str(product.get("senderCurrencyCode")),
        "stock": None,
        "available": product.get("status", "ACTIVE") == "ACTIVE",
        "fields": (_USER,) if isinstance(needs, dict) and needs.get("userIdRequired") is True else (),
        "max_units": _MOST_UNITS,
    }
    match product.get("denominationType"):
        case "FIXED":
            for denomination in product.get("fixedRecipientDenominations") or ():
                face = wire.decimal(denomination)
                text = f"{face.normalize():f}"
                cost = wire.charge(_cost(product, face))
                yield SupplierProduct(f"{number}-{text}", f"{name} {text}"[:256], cost=cost, face_value=wire.holding(face), **common)
        case "RANGE" if product.get("minRecipientDenomination") is not None and product.get("maxRecipientDenomination") is not None:
            low, high = wire.decimal(product["minRecipientDenomination"]), wire.decimal(product["maxRecipientDenomination"])
            smallest = low or high
            if not smallest:
                return
            rate = wire.charge(_cost(product, smallest) / smallest)  # a flat fee weighs most on the smallest card
            yield SupplierProduct(str(number), name[:256], cost=rate, face_min=wire.charge(low), face_max=wire.holding(high), **common)


def _cost(product: Mapping[str, Any], face: Decimal) -> Decimal:
    """What the list price of one card comes to; an order is charged what the vendor says, not this. The fee is taken for each card."""
    price = _price(product, face)
    discount, percent = wire.decimal(product.get("discountPercentage") or 0), wire.decimal(product.get("senderFeePercentage") or 0)
    return max(price * (100 - discount + percent) / 100 + wire.decimal(product.get("senderFee") or 0), Decimal(0))


def _price(product: Mapping[str, Any], face: Decimal) -> Decimal:
    """A card's face value in our currency: exact where the list of prices has it, else by the rate, which is rounded to six places.

    Raises Unreadable.
    """
    prices = product.get("fixedRecipientToSenderDenominationsMap")
    for text, price in prices.items() if isinstance(prices, dict) else ():
        if _is_face(text, face):
            return wire.decimal(price)
    rate = product.get("recipientCurrencyToSenderCurrencyExchangeRate")
    if rate is not None:
        return face * wire.decimal(rate)
    if product.get("recipientCurrencyCode") != product.get("senderCurrencyCode"):
        raise wire.Unreadable("exchange rate")
    return face


def _is_face(text: str, face: Decimal) -> bool:
    return text.replace(".", "", 1).isdigit() and text.isascii() and Decimal(text) == face and face > 0
