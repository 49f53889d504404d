"""Accepting for one hot merchant, against the same orders spread over a thousand."""

import statistics
from typing import Final

from benchmarks.accept import MERCHANTS, ROUNDS, one
from benchmarks.figures import column, conclude, cpu_us, spread
from benchmarks.generator import Generator
from benchmarks.house import open_house
from benchmarks.machine import machine

WANTED: Final = 0.90


async def measure() -> bool:
    """The whole benchmark. True when the ratio reaches what is asked for."""
    stands_on = await machine()
    found: dict[str, list[dict[str, float]]] = {"hot": [], "spread": []}
    async with open_house("hot", merchants_count=MERCHANTS) as house:
        _, port = await house.api()
        load = await Generator.start(house)
        await load.round(port, seconds=1)  # the first plans and pages, for neither of the two
        for n in range(ROUNDS):
            for name in ("hot", "spread") if n % 2 == 0 else ("spread", "hot"):
                found[name].append(await one(load, name, port, spread=1 if name == "hot" else MERCHANTS))
        stored = await load.verify()
    hot, wide = column(found["hot"], "per_s"), column(found["spread"], "per_s")
    ratios = [mine / limit for mine, limit in zip(hot, wide, strict=True)]
    ratio = statistics.median(ratios)
    conclude(
        "hot",
        ratio,
        {
            "one_merchant_per_s": spread(hot),
            "thousand_merchants_per_s": spread(wide),
            "ratio": spread(ratios),
            "p99_ms": {name: spread(column(of, "p99_ms")) for name, of in found.items()},
            "cpu_us_per_request": {name: cpu_us(of) for name, of in found.items()},
            "cores_of_others": spread([r["others"] for of in found.values() for r in of]),
            "verified_orders": stored,
            "wanted": {"ratio": WANTED},
            "machine": stands_on,
        },
    )
    return ratio >= WANTED
