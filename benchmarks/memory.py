"""Resident memory of one API process and one worker process: after the start, and under the load of the other benchmarks."""

import asyncio
from typing import Final

from benchmarks.drain import ready_to_drain
from benchmarks.figures import conclude, say
from benchmarks.house import open_house
from benchmarks.machine import Process, machine

IDLE_S: Final = 10.0
LOAD_S: Final = 20.0
MERCHANTS: Final = 1000
EVERY_S: Final = 0.2
WANTED_IDLE_MB: Final = 150.0
WANTED_LOAD_MB: Final = 300.0


class Watch:
    """The highest resident memory seen, by process, in MB (10^6 bytes)."""

    def __init__(self, **processes: Process) -> None:
        self._processes = processes
        self.highest: dict[str, float] = {}

    async def run(self) -> None:
        while True:
            for name, process in self._processes.items():
                self.highest[name] = max(self.highest.get(name, 0.0), process.resident_mb())
            await asyncio.sleep(EVERY_S)


async def measure() -> bool:
    """The whole benchmark. True when both processes stay below what is asked for."""
    stands_on = await machine()
    async with open_house("memory") as house:
        scene = await ready_to_drain(house, MERCHANTS)
        worker = await house.worker()
        await asyncio.sleep(IDLE_S)
        idle = {"api": scene.api.resident_mb(), "worker": worker.resident_mb()}
        say(f"  idle {idle} MB")
        watch = Watch(api=scene.api, worker=worker)
        watching = asyncio.create_task(watch.run())
        figures = await scene.load.round(scene.api_port, seconds=LOAD_S)
        await scene.until_heard(figures["sent"])
        watching.cancel()
        say(f"  load {watch.highest} MB, {figures['per_s']} orders/s accepted while the worker drained")
        stored = await scene.load.verify()
    ratio = min(WANTED_IDLE_MB / max(idle.values()), WANTED_LOAD_MB / max(watch.highest.values()))
    conclude(
        "memory",
        ratio,
        {
            "idle_mb": idle,
            "under_load_mb": watch.highest,
            "accepted_per_s": figures["per_s"],
            "orders": stored,
            "merchants": MERCHANTS,
            "wanted": {"idle_mb": WANTED_IDLE_MB, "under_load_mb": WANTED_LOAD_MB},
            "machine": stands_on,
        },
    )
    return ratio >= 1
