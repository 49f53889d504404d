"""From a merchant's words to a priced draft: every rule about what may be ordered, decided from values. No I/O."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

import orjson

from kameng_api.catalog import rules as catalog
from kameng_api.catalog.numbers import NumberWord
from kameng_api.catalog.rules import Product, Snapshot
from kameng_api.kit.errors import FieldError, Invalid, Problem
from kameng_api.kit.money import format_amount
from kameng_api.merchants.rules import Caller
from kameng_api.orders.errors import (
    OutOfStock,
    PriceChanged,
    ProductNotAuthorised,
    ProductUnavailable,
    TargetNotSupported,
    TestValueInLive,
)
from kameng_api.orders.rules import magic_number

_MOBILE: Final = re.compile(r"\A1[0-9]{10}\Z")
_ACCOUNT: Final = re.compile(r"\A[!-~]{1,64}\Z")
PRICE_MOVED_SKU: Final = "test-price-moved"


@dataclass(frozen=True, slots=True)
class OrderRequest:
    """An order as the merchant asked for it, after defaults. `max_unit_price` in 1/10000 units; `metadata` is JSON bytes."""

    merchant_order_no: str
    sku: str
    quantity: int = 1
    target: str | None = field(default=None, repr=False)
    fields: Mapping[str, str] = field(default_factory=dict, repr=False)
    max_unit_price: int | None = None
    deliver_within_s: int | None = None
    notify_url: str | None = field(default=None, repr=False)
    metadata: Mapping[str, Any] = field(default_factory=dict, repr=False)
    confirm_duplicate: bool = False

    def fingerprint(self) -> bytes:
        """SHA-256 over all fields after defaults: equal for "the same content", whatever the key order on the wire."""
        content = [
            self.merchant_order_no, self.sku, self.quantity, self.target, self.fields, self.max_unit_price,
            self.deliver_within_s, self.notify_url, self.metadata, self.confirm_duplicate,
        ]  # fmt: skip
        return hashlib.sha256(orjson.dumps(content, option=orjson.OPT_SORT_KEYS)).digest()


@dataclass(frozen=True, slots=True)
class Draft:
    """An order that may be accepted if the number is free and the money is there."""

    product: Product
    unit_price: int
    amount: int
    face_value: int | None
    within: timedelta
    guard_target: bool


def appraise(request: OrderRequest, caller: Caller, snapshot: Snapshot, looked_up: NumberWord | None = None) -> Draft | Problem:
    """Price an order against one copy of the catalogue, or say why not. The first reason wins, in the order of this function.

    `looked_up`: what somebody who knows says of the target's carrier; without it the prefix's word stands.
    """
    magic = magic_number(request.target)
    product = catalog.find_product(snapshot, request.sku, caller.environment)
    if product is None or product.status != "on_sale" or product.currency != caller.currency:
        return ProductUnavailable("this SKU is not on sale")
    if not catalog.may_buy(snapshot, product.sku, caller.merchant_id):
        return ProductNotAuthorised("this SKU is not open to you")
    if magic is not None and caller.environment == "live" and product.target_kind == "mobile":
        return TestValueInLive("this target is for test keys only")
    wrong = _wrong_fields(request, product, looked_up)
    if wrong is not None:
        return wrong
    face_value = catalog.read_face_value(product, request.fields)[0] if product.ranged else product.face_value
    price = catalog.unit_price(snapshot, product, caller.merchant_id, caller.level, face_value)
    if price is None or price <= 0:
        return ProductUnavailable("this SKU has no price for you")
    refusal = _not_now(request, caller, snapshot, product, price, face_value)
    if refusal is not None:
        return refusal
    return Draft(
        product=product,
        unit_price=price,
        amount=price * request.quantity,
        face_value=face_value,
        within=timedelta(seconds=request.deliver_within_s or product.deliver_within_s),
        guard_target=bool(product.duplicate_window_s) and request.target is not None and (magic is None or caller.environment == "live"),
    )


def _not_now(
    request: OrderRequest, caller: Caller, snapshot: Snapshot, product: Product, price: int, face_value: int | None
) -> Problem | None:
    if product.sku == PRICE_MOVED_SKU and caller.environment == "test":
        return PriceChanged("the price has moved", unit_price=format_amount(price + 1))
    if request.max_unit_price is not None and price > request.max_unit_price:
        return PriceChanged("the price is above max_unit_price", unit_price=format_amount(price))
    offers = catalog.usable_offers(snapshot, product.sku, caller.environment)
    if all(offer.stock is not None and offer.stock <= 0 for _, offer in offers):
        return OutOfStock("nobody has it at the moment")
    if not product.allow_below_cost:
        cheapest = min(catalog.unit_cost(offer, face_value) for _, offer in offers)
        if cheapest > price:
            return ProductUnavailable("this SKU cannot be supplied at its price at the moment")
    return None


def _wrong_fields(request: OrderRequest, product: Product, looked_up: NumberWord | None) -> Problem | None:
    if request.quantity > product.max_quantity:
        return _invalid("/quantity", "too_many", f"at most {product.max_quantity} per order")
    wrong = _wrong_target(request.target, product)
    if wrong is not None:
        return wrong
    if product.carriers and (carrier := catalog.check_carrier(product, request.target, looked_up)) is not None:
        return TargetNotSupported("the number is of a carrier that this product does not serve", errors=[carrier])
    errors = catalog.read_face_value(product, request.fields)[1] + catalog.check_form(product, request.fields)
    return Invalid("some form fields are wrong", errors=errors) if errors else None


def _wrong_target(target: str | None, product: Product) -> Problem | None:
    if product.target_kind is None:
        return None if target is None else _invalid("/target", "not_allowed", "this product takes no target")
    if target is None:
        return _invalid("/target", "missing", "this product needs a target")
    pattern = _MOBILE if product.target_kind == "mobile" else _ACCOUNT
    return None if pattern.match(target) else TargetNotSupported("the target does not have the form this product needs")


def _invalid(pointer: str, code: str, detail: str) -> Invalid:
    return Invalid(detail, errors=[FieldError(pointer, code, detail)])
