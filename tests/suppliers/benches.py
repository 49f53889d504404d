"""Every twin as a place where its adapter is certified."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.simulator.conftest import SCALE
from tests.suppliers import twins
from tests.suppliers.twins.world import TwinWorld

from kameng_api.suppliers.port import Capabilities, HttpAnswer, NotSent, Outcome, Purchase, Supplier, Unknown
from kameng_api.suppliers.registry import get_adapter


@dataclass
class TwinBench:
    """See `certificates.Bench`."""

    world: TwinWorld
    scale: float = SCALE
    numbers: dict[str, str] = field(default_factory=dict)

    @property
    def supplier(self) -> Supplier:
        return self.world.supplier

    def purchase(self, **more: Any) -> Purchase:
        units = min(int(more.pop("units", 1)), self.world.twin.most_units)
        return self.world.purchase(units=units, **more)

    def ranged(self) -> Purchase | None:
        return None if self.world.twin.goods.ranged is None else self.world.purchase(kind="ranged", face_value=50_0000)

    async def be_well(self) -> None:
        await self.world.turn()

    async def lose_answers(self) -> None:
        await self.world.turn(hang_rate=1, hang_point="after")

    async def lose_requests(self) -> None:
        await self.world.turn(hang_rate=1, hang_point="before")

    async def work_for(self, after_s: float, *, in_vain: bool = False) -> None:
        name = "late_failure" if in_vain else "async"
        await self.world.turn(**{f"{name}_rate": 1, f"{name}_after_s": after_s / self.scale})

    async def double_prices(self) -> None:
        await self.world.turn(price_factor=2)

    async def delivered(self, reference: str) -> int:
        return await self.world.delivered(reference)

    async def charged(self, reference: str) -> int:
        return await self.world.charged(reference)

    async def called_back_after_s(self, reference: str) -> list[float]:
        (order,) = await self.world.simulator.rows("orders", reference)
        sent = await self.world.simulator.rows("callbacks", reference)
        return [row["at"] - order["finished_at"] for row in sent if row["acknowledged"] and order["finished_at"]]

    def told(self, reference: str) -> Sequence[Outcome]:
        return self.world.mailbox.news(self.supplier, reference)


async def _nobody(*args: Any, **more: Any) -> HttpAnswer | NotSent | Unknown:
    return Unknown("no call")


def connected(name: str) -> Supplier:
    """The adapter of a twin, connected to nobody: to be asked what it can do."""
    twin, adapter = twins.get(name), get_adapter(name)
    settings = adapter.settings(**twin.settings("http://127.0.0.1:1", twin.app_key, twin.secret))
    return adapter.connect(settings, _nobody)


def capabilities_of(name: str) -> Capabilities:
    """What the adapter of a twin declares."""
    return connected(name).capabilities
