"""The small, realistic catalogue a new simulated supplier starts with, and the two suppliers of the demo."""

import secrets
from pathlib import Path

from pydantic import SecretStr

from kameng_api.kit.money import at_rate, format_amount, parse_amount
from kameng_api.simulator.config import Product, Role, SimulatorConfig, SupplierConfig

_WHOLE = 1_000_000  # parts per million


def default_products(extra_ppm: int = 0) -> tuple[Product, ...]:
    """话费, 流量, Q币, 点卡, 会员, 券 and test products; costs are `extra_ppm` parts per million above base."""

    def cost(text: str) -> str:
        return format_amount(at_rate(parse_amount(text), _WHOLE + extra_ppm))

    top_ups = tuple(
        Product(code=f"hf-{value}", name=f"全国话费 {value} 元", type="topup", cost=cost(f"{value * 0.975:.4f}")) for value in (10, 30, 50, 100, 200)
    )
    return (
        *top_ups,
        Product(code="ll-1g", name="全国流量 1 GB", type="topup", cost=cost("4.20")),
        Product(code="qb", name="Q币 1–1000", type="topup", cost=cost("0.965"), face_min="1", face_max="1000"),
        Product(code="dk-30", name="游戏点卡 30 元", type="card", cost=cost("28.80"), stock=10_000),
        Product(code="dk-100", name="游戏点卡 100 元", type="card", cost=cost("95.50"), stock=10_000),
        Product(code="hy-month", name="视频会员 月卡", type="topup", cost=cost("16.80")),
        Product(code="hy-year", name="视频会员 年卡", type="topup", cost=cost("168.00")),
        Product(code="coffee-30", name="咖啡兑换券 30 元", type="voucher", cost=cost("24.00"), stock=5_000),
        Product(code="test-card", name="Test card", type="card", cost=cost("9.50")),
        Product(code="test-out-of-stock", name="Test product without stock", type="card", cost=cost("9.50"), stock=0),
        Product(code="test-price-moved", name="Test product whose price moved", cost=cost("9.50"), price_moved=True),
    )


def demo_config(data: Path, control_token: str, time_scale: float = 1.0) -> SimulatorConfig:
    """sim-a (primary) and sim-b (secondary, 1 % dearer), with the default catalogue and fresh random secrets."""
    accounts = (("sim-a", Role.PRIMARY, 0), ("sim-b", Role.SECONDARY, 10_000))
    return SimulatorConfig(
        data=data,
        control_token=SecretStr(control_token),
        time_scale=time_scale,
        suppliers=tuple(
            SupplierConfig(
                name=name,
                app_key=f"app-{name}",
                secret=SecretStr(secrets.token_urlsafe(32)),
                role=role,
                balance="1000000",
                products=default_products(extra_ppm),
            )
            for name, role, extra_ppm in accounts
        ),
    )
