"""DT One's product list, line by line. Pure."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

from kameng_api.suppliers.adapters.dtone import wire
from kameng_api.suppliers.port import SupplierProduct, WantedField

_PRODUCT_TYPES: Final[Mapping[str, str]] = {
    "FIXED_VALUE_RECHARGE": "topup",
    "RANGED_VALUE_RECHARGE": "topup",
    "RANGED_VALUE_PAYMENT": "topup",
    "FIXED_VALUE_PIN_PURCHASE": "card",
    "RANGED_VALUE_PIN_PURCHASE": "card",
}
_RANGED: Final = frozenset({"RANGED_VALUE_RECHARGE", "RANGED_VALUE_PAYMENT", "RANGED_VALUE_PIN_PURCHASE"})
# `required_…_fields` → the part of the transaction that they belong to.
_WANTED: Final[Mapping[str, str]] = {
    "required_credit_party_identifier_fields": "credit_party_identifier",
    "required_debit_party_identifier_fields": "debit_party_identifier",
    "required_sender_fields": "sender",
    "required_beneficiary_fields": "beneficiary",
    "required_statement_identifier_fields": "statement_identifier",
    "required_additional_identifier_fields": "additional_identifier",
}
_TARGETS: Final = frozenset({"mobile_number", "account_number"})


def line(product: object) -> SupplierProduct | None:
    """One product; None for a type that is not sold here. Raises Unreadable."""
    if not isinstance(product, dict) or not isinstance(product.get("id"), int):
        raise wire.Unreadable("product")
    kind = str(product.get("type"))
    if kind not in _PRODUCT_TYPES:
        return None
    code = str(product["id"])
    prices, destination = _part(_part(product, "prices"), "wholesale"), _part(product, "destination")
    unit = _word(prices, "unit")
    credit = _alternatives(product, "required_credit_party_identifier_fields")
    by_account = bool(credit) and "mobile_number" not in credit[0] and "account_number" in credit[0]
    common: dict[str, Any] = {
        "name": _word(product, "name"),
        "product_type": _PRODUCT_TYPES[kind],
        "currency": unit,
        "stock": None,
        "available": True,
        "fields": tuple(_fields(product)),
        "max_units": 1,
    }
    fee = wire.decimal(prices.get("fee", 0))
    if kind not in _RANGED:
        cost = wire.charge(wire.decimal(prices.get("amount")) + fee)
        face = destination.get("amount")
        suffix = "-account" if by_account else ""
        return SupplierProduct(
            product_code=code + suffix, cost=cost, face_value=None if face is None else wire.holding(wire.decimal(face)), **common
        )
    low, high = _range(destination), _range(prices)
    suffix = f"-{_word(destination, 'unit')}" + ("-account" if by_account else "")
    return SupplierProduct(
        product_code=code + suffix,
        cost=_dearest(low, high, fee),
        face_min=wire.charge(low[0]),
        face_max=wire.holding(low[1]),
        **common,
    )


def _dearest(faces: tuple[Decimal, Decimal], prices: tuple[Decimal, Decimal], fee: Decimal) -> int:
    """What 1.0000 of face value costs at most, seen at both ends of the range: the fee weighs most on the smallest."""
    ratios = [(price + fee) / face for face, price in zip(faces, prices, strict=True) if face]
    if not ratios:
        raise wire.Unreadable("an empty range")
    return wire.charge(max(ratios))


def _range(part: Mapping[str, Any]) -> tuple[Decimal, Decimal]:
    amount = _part(part, "amount")
    return wire.decimal(amount.get("min")), wire.decimal(amount.get("max"))


def _fields(product: Mapping[str, Any]) -> list[WantedField]:
    """The first of the alternatives that each requirement names; the target itself is not asked for again."""
    found: list[WantedField] = []
    for name, part in _WANTED.items():
        alternatives = _alternatives(product, name)
        for field in alternatives[0] if alternatives else ():
            if part == "credit_party_identifier" and field in _TARGETS:
                continue
            found.append(WantedField(f"{part}.{field}", f"{part} {field}".replace("_", " ")))
    return found


def _alternatives(product: Mapping[str, Any], name: str) -> list[list[str]]:
    value = product.get(name)
    if not isinstance(value, list):
        return []
    return [[field for field in names if isinstance(field, str)] for names in value if isinstance(names, list)]


def _part(record: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = record.get(name)
    if not isinstance(value, dict):
        raise wire.Unreadable(name)
    return value


def _word(record: Mapping[str, Any], name: str) -> str:
    value = record.get(name)
    if not isinstance(value, str) or not value:
        raise wire.Unreadable(name)
    return value
