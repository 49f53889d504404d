"""A run with one vendor's twins in place of the simulators: their accounts, and what they sell of the tour's catalogue."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from tests.suppliers import twins
from tests.suppliers.twins import Twin

from kameng_api.demo import catalogue
from kameng_api.demo.catalogue import Goods
from kameng_api.simulator.config import Product

_FIRST_CODE: Final = 1000
_NEEDS_TARGET: Final = "topup"


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
    if goods.ranged:
        return twin.goods.ranged is not None
    return (twin.goods.topup if goods.product_type == _NEEDS_TARGET else twin.goods.card) is not None


def code_of(vendor: str | None, goods: Goods) -> str:
    """The vendor's own code: numeric for twins, as most vendors have it."""
    return goods.vendor_code if vendor is None else str(_FIRST_CODE + catalogue.GOODS.index(goods))


def products(vendor: str, extra_ppm: int) -> tuple[Product, ...]:
    """The twin's list; what it charges is `extra_ppm` parts per million above the cheapest."""
    return tuple(
        Product(
            code=code_of(vendor, goods), name=goods.name, type=goods.product_type, cost=catalogue.dearer(goods.cost, extra_ppm), stock=goods.stock,
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
