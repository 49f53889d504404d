"""Accepting with a million orders in flight and two million settled behind them, against an empty database; both servers stand, one is loaded."""

import statistics
import time
from contextlib import AsyncExitStack
from typing import Final

from benchmarks.accept import ROUNDS, one
from benchmarks.figures import column, conclude, cpu_us, say, spread
from benchmarks.fill import FILL_SETTINGS, Filling, statements
from benchmarks.generator import Generator
from benchmarks.house import House, open_house
from benchmarks.machine import Meter, machine
from kameng_api.kit.db import fetch

MERCHANTS: Final = 1000
FIRST_S: Final = 4.0
"""How long each house is loaded before anything is measured."""
IN_FLIGHT: Final = 1_000_000
SETTLED: Final = 2_000_000
WANTED: Final = 0.9


async def measure(in_flight: int = IN_FLIGHT, settled: int = SETTLED) -> bool:
    """The whole benchmark. True when the ratio reaches what is asked for."""
    stands_on = await machine()
    found: dict[str, list[dict[str, float]]] = {"full": [], "empty": []}
    async with AsyncExitStack() as stack:
        empty = await stack.enter_async_context(open_house("scale-empty", merchants_count=MERCHANTS))
        full = await stack.enter_async_context(open_house("scale-full", merchants_count=MERCHANTS))
        took_s = await fill(full, Filling(MERCHANTS, in_flight // MERCHANTS, settled // MERCHANTS))
        await empty.restart()
        holds = await _holds(full)
        say(f"  filled in {took_s:.0f} s: {holds}")
        _watch_both(full, empty)
        loads = {"full": (await Generator.start(full), (await full.api())[1]), "empty": (await Generator.start(empty), (await empty.api())[1])}
        for load, port in loads.values():
            await load.round(port, seconds=FIRST_S, warm_s=0)
        for n in range(ROUNDS):
            for name in ("full", "empty") if n % 2 == 0 else ("empty", "full"):
                found[name].append(await one(loads[name][0], name, loads[name][1]))
        stored = {name: await load.verify() for name, (load, _) in loads.items()}
    mine, limit = column(found["full"], "per_s"), column(found["empty"], "per_s")
    ratios = [a / b for a, b in zip(mine, limit, strict=True)]
    ratio = statistics.median(ratios)
    conclude(
        "scale",
        ratio,
        {
            "full_per_s": spread(mine),
            "empty_per_s": spread(limit),
            "ratio": spread(ratios),
            "p99_ms": {name: spread(column(of, "p99_ms")) for name, of in found.items()},
            "cpu_us_per_request": {name: cpu_us(of) for name, of in found.items()},
            "behind": holds,
            "filled_in_s": round(took_s),
            "cores_of_others": spread([r["others"] for of in found.values() for r in of]),
            "verified_orders": stored,
            "wanted": {"ratio": WANTED},
            "machine": stands_on,
        },
    )
    return ratio >= WANTED


async def fill(house: House, filling: Filling) -> float:
    """Load the rows as the owner, in one transaction that needs no write-ahead log, then go back to the default settings. Seconds."""
    started = time.monotonic()
    await house.restart(FILL_SETTINGS)
    books = [b.book_id for b in house.buyers]
    await house.owner_does([";\n".join(("BEGIN", *statements(books, filling), "COMMIT"))])
    for table in ("orders", "transfers", "attempts", "events", "tasks", "accounts", "rollups"):
        await house.owner_does([f"VACUUM (ANALYZE) {table}"])
    await house.restart()
    return time.monotonic() - started


async def _holds(house: House) -> dict[str, int]:
    async with house.db.transaction() as tx:
        rows = await fetch(
            tx,
            """SELECT 'in_flight' AS what, count(*) AS n FROM orders WHERE status = 'processing'
            UNION ALL SELECT 'settled', count(*) FROM orders WHERE status = 'succeeded'
            UNION ALL SELECT 'gigabytes', (pg_database_size(current_database()) / 1000000000)::bigint""",
        )
    return {r["what"]: r["n"] for r in rows}


def _watch_both(full: House, empty: House) -> None:
    """One meter for both houses: neither server is somebody else's."""
    roots = {f"{n}-{h.name}": pid for h in (full, empty) for n, pid in h.meter.roots.items()}
    full.meter = empty.meter = Meter(roots, {**full.meter.names, **empty.meter.names})
