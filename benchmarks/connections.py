"""Ten thousand open connections, each sending orders, at a steady 500 orders/s; against the same pace over 64 connections."""

import statistics
from typing import Any, Final

from benchmarks.accept import one
from benchmarks.figures import column, conclude, spread
from benchmarks.generator import Generator
from benchmarks.house import open_house
from benchmarks.machine import Failed, machine

MERCHANTS: Final = 100
ROUNDS: Final = 3
CONNECTIONS: Final = 10_000
RATE: Final = 500.0
SECONDS: Final = 24.0  # 20 s until each connection has sent one order, and some more for those that come round again
FEW_SECONDS: Final = 8.0
WANTED_P99_MS: Final = 200.0


async def measure() -> bool:
    """The whole benchmark. True when nobody was refused or lost, and p99 is as asked for."""
    stands_on = await machine()
    many: list[dict[str, Any]] = []
    few: list[dict[str, Any]] = []
    resident: list[float] = []
    async with open_house("connections", merchants_count=MERCHANTS) as house:
        api, port = await house.api()
        load = await Generator.start(house)
        await load.round(port, seconds=1)
        for _ in range(ROUNDS):
            few.append(await one(load, "64", port, rate=RATE, seconds=FEW_SECONDS))
            many.append(await one(load, "10,000", port, rate=RATE, seconds=SECONDS, warm_s=0, connections=CONNECTIONS))
            resident.append(api.resident_mb())
            _check(many[-1])
        stored = await load.verify()
    p99 = column(many, "p99_ms")
    ratio = WANTED_P99_MS / statistics.median(p99)
    conclude(
        "connections",
        ratio,
        {
            "p99_ms": spread(p99),
            "max_ms": spread(column(many, "max_ms")),
            "p99_ms_over_64_connections": spread(column(few, "p99_ms")),
            "connections_open": spread(column(many, "opened")),
            "connections_that_sent": spread(column(many, "used")),
            "refused": sum(r["refused"] for r in many),
            "lost": sum(r["lost"] for r in many),
            "orders_per_s": spread([r["sent"] / r["seconds"] for r in many]),
            "api_mb_after": spread(resident),
            "cores_of_others": spread(column(many, "others")),
            "verified_orders": stored,
            "wanted": {"p99_ms": WANTED_P99_MS, "orders_per_s": RATE, "refused": 0, "lost": 0},
            "machine": stands_on,
        },
    )
    return ratio >= 1


def _check(figures: dict[str, Any]) -> None:
    if not figures["opened"] == figures["alive"] == figures["used"] == CONNECTIONS:
        raise Failed(f"opened {figures['opened']}, still open {figures['alive']}, sent {figures['used']} of {CONNECTIONS}")
    if figures["sent"] < RATE * SECONDS * 0.99:
        raise Failed(f"the pace was not kept: {figures['sent']} orders in {SECONDS} s")
