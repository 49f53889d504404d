"""The other end of `benchmarks.load`: asks for rounds, and believes none of them before the database agrees."""

from dataclasses import dataclass, field
from typing import Any, Final

from benchmarks.house import SKU, TARGET, House
from benchmarks.machine import Failed, Process

ORDERS_PATH: Final = "/v1/orders"
_TRIES: Final = 3


@dataclass
class Generator:
    """The load of one house."""

    house: House
    process: Process
    _rounds: int = 0
    _stored: list[tuple[str, int]] = field(default_factory=list)

    @classmethod
    async def start(cls, house: House) -> "Generator":
        process = await house.spoken("load")
        await process.ask(keys=[[b.key_id, b.secret, SKU, TARGET] for b in house.buyers])
        return cls(house, process)

    async def round(
        self,
        port: int,
        *,
        seconds: float = 6.0,
        warm_s: float = 1.0,
        path: str = ORDERS_PATH,
        connections: int = 64,
        spread: int = 1_000_000,
        rate: float = 0.0,
        orders: int = 0,
        stored: bool = True,
    ) -> dict[str, Any]:
        """One round: as fast as `connections` go, or at `rate` per second; for `seconds`, or for a number of `orders`.

        `spread`: over how many merchants. `stored`: whether `verify` must find the orders. A round in which the machine stood still is played
        again. Raises Failed for anything but a 201 about the right order, and when nothing is answered while it is measured, again and again.
        """
        how = {"seconds": seconds, "warm_s": warm_s, "path": path, "connections": connections, "spread": spread, "rate": rate, "orders": orders}
        for _ in range(_TRIES):
            figures = await self._round(port, how, stored)
            if orders or figures["per_s"]:
                return figures
        raise Failed(f"nothing was answered in {seconds} s, {_TRIES} times")

    async def _round(self, port: int, how: dict[str, Any], stored: bool) -> dict[str, Any]:
        self._rounds += 1
        prefix = f"R{self._rounds:03d}-"
        self.house.meter.start()
        figures: dict[str, Any] = await self.process.ask(port=port, prefix=prefix, **how)
        reading = self.house.meter.read()
        sent, missed = figures["sent"], set(figures["unacknowledged"])
        if figures["trouble"] or figures["refused"] or figures["lost"] or missed:
            raise Failed(f"not every request was answered 201: { {k: figures[k] for k in figures if k != 'unacknowledged'} }")
        if sent != figures["acknowledged"] or not sent:
            raise Failed(f"sent {sent}, acknowledged {figures['acknowledged']}")
        if stored:
            self._stored.append((prefix, sent))
        return figures | {"others": round(reading.cores_of_others, 2), "cpu_us": reading.us_per(sent)}

    async def verify(self) -> int:
        """Every acknowledged order stands in the database exactly once, and no other. Returns how many. Raises Failed."""
        count = 0
        for prefix, sent in self._stored:
            if await self.house.numbers(prefix) != [f"{prefix}{index:07d}" for index in range(sent)]:
                raise Failed(f"round {prefix}: what was acknowledged is not what is stored")
            count += sent
        return count
