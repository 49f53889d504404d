"""Durable signed orders per second, against the same gate and the same answer without a database, and against a bare FastAPI POST."""

import statistics
from typing import Any, Final

from benchmarks.figures import column, conclude, cpu_us, say, spread
from benchmarks.generator import Generator
from benchmarks.house import House, open_house
from benchmarks.limits import PATH
from benchmarks.machine import Process, machine
from kameng_api.demo.processes import free_port

MERCHANTS: Final = 1000
ROUNDS: Final = 5
SECONDS: Final = 6.0
PACED_ROUNDS: Final = 3
PACED_SECONDS: Final = 8.0


async def measure() -> bool:
    """The whole benchmark. True when the figures reach what is asked for."""
    stands_on = await machine()
    async with open_house("accept", merchants_count=MERCHANTS) as house:
        _, own = await house.api("api")
        _, gate = await house.api("limit", ("-m", "benchmarks.limits", "gate"))
        bare = await start_bare(house)
        load = await Generator.start(house)
        rounds = await _rounds(load, own, gate, bare)
        half = statistics.median(column(rounds["own"], "per_s")) / 2
        paced = [await one(load, "half", own, rate=half, seconds=PACED_SECONDS) for _ in range(PACED_ROUNDS)]
        stored = await load.verify()
    per_s = {name: column(of, "per_s") for name, of in rounds.items()}
    ratios = [mine / limit for mine, limit in zip(per_s["own"], per_s["gate"], strict=True)]
    raw = [mine / limit for mine, limit in zip(per_s["own"], per_s["bare"], strict=True)]
    p99 = [r["p99_ms"] for r in paced]
    ratio = statistics.median(ratios)
    conclude(
        "accept",
        ratio,
        {
            "orders_per_s": spread(per_s["own"]),
            "same_gate_no_database_per_s": spread(per_s["gate"]),
            "bare_fastapi_hmac_body_per_s": spread(per_s["bare"]),
            "ratio": spread(ratios),
            "ratio_to_bare": spread(raw),
            "p99_ms_at_half_load": spread(p99),
            "half_load_per_s": round(half, 1),
            "cpu_us_per_request": {name: cpu_us(of) for name, of in rounds.items()},
            "cores_of_others": spread([r["others"] for of in rounds.values() for r in of]),
            "verified_orders": stored,
            "connections": 64,
            "merchants": MERCHANTS,
            "wanted": {"ratio": 0.65, "p99_ms_at_half_load": 50},
            "machine": stands_on,
        },
    )
    return ratio >= 0.65 and statistics.median(p99) <= 50


async def start_bare(house: House) -> int:
    """The bare endpoint's process; returns its port."""
    port = free_port()
    keys = [[b.key_id, b.secret] for b in house.buyers]
    process = await Process.start(f"{house.name}-bare", ("-m", "benchmarks.limits", "bare"), house.var, {"KAMENG_PORT": str(port)}, spoken=True)
    house.end_with(process)
    process.tell(keys=keys)
    await process.until_it_answers(port, "/livez")
    return port


async def _rounds(load: Generator, own: int, gate: int, bare: int) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {"own": [], "gate": [], "bare": []}
    for n in range(ROUNDS):
        turns = [("gate", gate, PATH), ("own", own, "/v1/orders"), ("bare", bare, "/v1/orders")]
        for name, port, path in turns[n % 3 :] + turns[: n % 3]:
            found[name].append(await one(load, name, port, path=path, stored=name == "own"))
    return found


async def one(load: Generator, name: str, port: int, **how: Any) -> dict[str, Any]:
    """One round, printed."""
    figures = await load.round(port, **({"seconds": SECONDS} | how))
    say(
        f"  {name:<6} {figures['per_s']:>7.0f}/s  p50 {figures['p50_ms']:>7.2f}  p99 {figures['p99_ms']:>7.2f}  max {figures['max_ms']:>7.1f} ms"
        f"  others {figures['others']:.2f} cores  CPU µs each {figures['cpu_us']}"
    )
    return figures
