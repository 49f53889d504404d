"""The small, realistic catalogue of the tour: what is sold, at what price, and which supplier has it under which code. No I/O."""

from dataclasses import dataclass
from typing import Any, Final

from kameng_api.kit.money import at_rate, format_amount, parse_amount

SECOND_EXTRA_PPM: Final = 3_000
"""How much dearer sim-b is, in parts per million: less than the margin of the cheapest price list."""
_WHOLE: Final = 1_000_000
FIRST_TOPUP: Final = "mobile-cn-100"


@dataclass(frozen=True, slots=True)
class Goods:
    """One SKU. Money is decimal text; a ranged product has `face` as (least, most, step) and rates instead of amounts."""

    sku: str
    name: str
    product_type: str
    vendor_code: str
    face: str | tuple[str, str, str]
    cost: str
    price: str
    gold: str
    """The price of the merchant level `gold`."""
    target_kind: str | None = None
    stock: int | None = None
    max_quantity: int = 100

    @property
    def ranged(self) -> bool:
        return not isinstance(self.face, str)

    def product(self) -> dict[str, Any]:
        """As `PUT /admin/v1/products/{sku}` wants it."""
        face: dict[str, Any] = (
            {"face_value": self.face} if isinstance(self.face, str) else dict(zip(("face_min", "face_max", "face_step"), self.face, strict=True))
        )
        return {
            "name": self.name,
            "product_type": self.product_type,
            "target_kind": self.target_kind,
            "environments": ["test"],
            "max_quantity": self.max_quantity,
            **face,
        }

    def prices(self) -> list[dict[str, Any]]:
        """As `PUT /admin/v1/products/{sku}/price` wants them: everybody's, and the level's."""
        name = "rate" if self.ranged else "unit_price"
        return [{name: self.price}, {"level": "gold", name: self.gold}]

    def offer(self, extra_ppm: int) -> dict[str, Any]:
        """As `PUT /admin/v1/channels/{channel}/offers/{sku}` wants it."""
        cost = dearer(self.cost, extra_ppm)
        return {"product_code": self.vendor_code, "rate" if self.ranged else "unit_cost": cost, "stock": self.stock}


def dearer(cost: str, extra_ppm: int) -> str:
    """The same arithmetic as the simulator's own price list."""
    return format_amount(at_rate(parse_amount(cost), _WHOLE + extra_ppm))


def _mobile(face: int) -> Goods:
    return Goods(
        sku=f"mobile-cn-{face}",
        name=f"全国话费 {face} 元",
        product_type="topup",
        vendor_code=f"hf-{face}",
        face=str(face),
        cost=f"{face * 0.975:.4f}",
        price=f"{face * 0.985:.4f}",
        gold=f"{face * 0.982:.4f}",
        target_kind="mobile",
    )


GOODS: Final = (
    _mobile(100),
    *(_mobile(face) for face in (10, 30, 50, 200)),
    Goods("mobile-data-1gb", "全国流量 1 GB", "topup", "ll-1g", "5", "4.20", "4.50", "4.40", target_kind="mobile"),
    Goods("qq-coin", "Q币 1–1000", "topup", "qb", ("1", "1000", "1"), "0.965", "0.985", "0.98", target_kind="account"),
    Goods("game-card-30", "游戏点卡 30 元", "card", "dk-30", "30", "28.80", "29.40", "29.20"),
    Goods("game-card-100", "游戏点卡 100 元", "card", "dk-100", "100", "95.50", "97.50", "97.00"),
    Goods("video-month", "视频会员 月卡", "topup", "hy-month", "20", "16.80", "18.00", "17.60", target_kind="account"),
    Goods("video-year", "视频会员 年卡", "topup", "hy-year", "198", "168.00", "178.00", "175.00", target_kind="account"),
    Goods("coffee-30", "咖啡兑换券 30 元", "voucher", "coffee-30", "30", "24.00", "25.50", "25.00"),
    Goods("test-card", "Test card", "card", "test-card", "10", "9.50", "10.00", "9.90"),
    Goods("test-out-of-stock", "Test product without stock", "card", "test-out-of-stock", "10", "9.50", "10.00", "9.90", stock=0),
    Goods("test-price-moved", "Test product whose price moved", "topup", "test-price-moved", "10", "9.50", "10.00", "9.90", target_kind="mobile"),
)
SKUS: Final = tuple(goods.sku for goods in GOODS)
"""The first one is a top-up, as the state file promises."""


def find(sku: str) -> Goods:
    return next(goods for goods in GOODS if goods.sku == sku)


def money_for(orders: int, sku: str) -> str:
    """What exactly this many single units of a fixed product cost at everybody's price."""
    return format_amount(orders * parse_amount(find(sku).price))
