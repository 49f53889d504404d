"""A run with one vendor's twins in place of the simulators: their accounts, and what they sell of the tour's catalogue."""

from collections.abc import Mapping, Sequence
from decimal import ROUND_FLOOR, Decimal
from typing import Any, Final

from tests.suppliers import twins
from tests.suppliers.twins import Twin

from kameng_api.demo import catalogue
from kameng_api.demo.catalogue import Goods
from kameng_api.simulator.config import Product

_FIRST_CODE: Final = 1000
_NEEDS_TARGET: Final = "topup"
_CENT: Final = Decimal("0.01")


def twin_of(vendor: str | None) -> Twin | None:
    """None: the run is played with the simulators."""
    return None if vendor is None else twins.get(vendor)


def facts(vendor: str | None) -> Mapping[str, bool]:
    """What the judge must know of the vendor's words to read the twin's file."""
    twin = twin_of(vendor)
    return {} if twin is None else {"reversed_is_failed": twin.reversed_is_failed, "cards_have_pins": twin.cards_have_pins}


def keys(vendor: str) -> tuple[str, str]:
    """(app key, secret) of the account at the twin."""
    twin = twins.get(vendor)
    return twin.app_key, twin.secret


def settings(vendor: str, base_url: str) -> Mapping[str, Any]:
    """The adapter's settings for that account."""
    twin = twins.get(vendor)
    return {**twin.settings(base_url, twin.app_key, twin.secret), **twin.in_chaos}


def sold(vendor: str | None) -> Sequence[Goods]:
    """What of the catalogue can be sold."""
    if vendor is None:
        return catalogue.GOODS
    twin = twins.get(vendor)
    return [goods for goods in catalogue.GOODS if _is_sold(twin, goods)]


def _is_sold(twin: Twin, goods: Goods) -> bool:
    if goods.sku == "test-price-moved":
        return False
    if goods.target_kind == "account" and not twin.takes_accounts:
        return False
    if goods.ranged:
        return twin.ranged_codes is not None
    return (twin.goods.topup if goods.product_type == _NEEDS_TARGET else twin.goods.card) is not None


def code_of(vendor: str | None, goods: Goods, extra_ppm: int) -> str:
    """The vendor's own code, as it writes them."""
    if vendor is None:
        return goods.vendor_code
    twin = twins.get(vendor)
    pattern = twin.ranged_codes if goods.ranged and twin.ranged_codes is not None else twin.codes
    return pattern.format(n=_FIRST_CODE + catalogue.GOODS.index(goods), cost=_cost(twin, goods, extra_ppm))


def _cost(twin: Twin, goods: Goods, extra_ppm: int) -> str:
    """Of a unit; where the code says it, to a cent below."""
    cost = catalogue.dearer(goods.cost, extra_ppm)
    return str(Decimal(cost).quantize(_CENT, ROUND_FLOOR)) if "{cost}" in twin.codes else cost


def products(vendor: str, extra_ppm: int) -> tuple[Product, ...]:
    """The twin's list; what it charges is `extra_ppm` parts per million above the cheapest."""
    twin = twins.get(vendor)
    return tuple(
        Product(
            code=code_of(vendor, goods, extra_ppm), name=goods.name, type=goods.product_type, cost=_cost(twin, goods, extra_ppm), stock=goods.stock,
            face_min=goods.face[0] if goods.ranged else None, face_max=goods.face[1] if goods.ranged else None,
        )
        for goods in sold(vendor)
    )  # fmt: skip


def instead(vendor: str, content: Mapping[str, Any], target: str) -> dict[str, Any]:
    """An order's content; of a SKU that this vendor does not sell, that of another."""
    twin, goods = twins.get(vendor), catalogue.find(content["sku"])
    found = {name: value for name, value in content.items() if name != "merchant_order_no"}
    if not _is_sold(twin, goods):
        found = {"sku": "mobile-cn-10", "target": target} if twin.goods.topup is not None else {"sku": "test-card"}
    if "quantity" in found:
        found["quantity"] = min(int(found["quantity"]), twin.most_units)
    return found
