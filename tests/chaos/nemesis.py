"""When which fault strikes whom, drawn from the seed before the run begins, and carried out by `tests.chaos.faults`."""

import asyncio
import contextlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from tests.chaos.faults import FAULTS, Fault, Heal
from tests.chaos.rig import Rig

_CALM_S: Final = 2.0
"""Before the first fault: orders flow."""
MOST_AT_ONCE: Final = 4


@dataclass(frozen=True, slots=True)
class Shot:
    """One fault of the plan. Times in seconds from the beginning of the load."""

    at_s: float
    seconds: float
    fault: Fault
    target: str
    seed: str

    @property
    def ends_at_s(self) -> float:
        return self.at_s + self.seconds


def plan(seed: int, load_s: float, faults: Sequence[Fault] = FAULTS) -> list[Shot]:
    """Every fault in a drawn order, again and again, at most `MOST_AT_ONCE` together and never two on one resource."""
    draw = random.Random(f"{seed}/nemesis")
    every_s = min(max(load_s / (1.5 * len(faults)), 0.7), 3.0)
    shots: list[Shot] = []
    waiting: list[Fault] = []
    at_s = _CALM_S
    while at_s < load_s - 1:
        if not waiting:
            waiting = list(faults)
            draw.shuffle(waiting)
        now = [s for s in shots if s.ends_at_s > at_s]
        busy = {resource for s in now for resource in s.fault.resources(s.target)}
        for fault in waiting if len(now) < MOST_AT_ONCE else ():
            target = draw.choice(fault.targets)
            seconds = draw.uniform(*fault.seconds)
            if busy.isdisjoint(fault.resources(target)) and at_s + min(fault.seconds) < load_s:
                shots.append(Shot(at_s, min(seconds, load_s - at_s), fault, target, f"{seed}/{len(shots)}"))
                waiting.remove(fault)
                break
        at_s += every_s * draw.uniform(0.6, 1.4)
    return shots


class Nemesis:
    """Carries a plan out. `done` counts what really was injected, by name."""

    def __init__(self, rig: Rig, shots: Sequence[Shot]) -> None:
        self._rig = rig
        self._shots = shots
        self.done: dict[str, int] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self.troubles: list[str] = []
        """Faults that the rig could not inject or heal: the rig's own trouble, which makes a run worthless."""

    async def run(self) -> None:
        """The whole plan; every fault heals itself. When cancelled, what is under way is healed first."""
        loop = asyncio.get_running_loop()
        begin = loop.time()
        try:
            async with asyncio.TaskGroup() as group:
                for shot in self._shots:
                    await asyncio.sleep(max(begin + shot.at_s - loop.time(), 0))
                    group.create_task(self._shoot(shot))
        finally:
            await self.heal_all()

    async def _shoot(self, shot: Shot) -> None:
        """On a slow machine a heal takes longer than planned: then the next fault of the same resource waits for it."""
        async with contextlib.AsyncExitStack() as mine:
            for resource in sorted(shot.fault.resources(shot.target)):
                await mine.enter_async_context(self._locks.setdefault(resource, asyncio.Lock()))
            await self._hurt_and_heal(shot)

    async def _hurt_and_heal(self, shot: Shot) -> None:
        name, rig = shot.fault.name, self._rig
        rig.note_fault(fault=name, event="start", target=shot.target, seconds=round(shot.seconds, 2))
        heal: Heal | None = None
        try:
            heal = await shot.fault.inject(rig, shot.target, random.Random(shot.seed), shot.seconds)
            self.done[name] = self.done.get(name, 0) + 1
            await asyncio.sleep(shot.seconds)
        except Exception as trouble:
            self.troubles.append(f"{name} {shot.target}: {trouble!r}")
        finally:
            if heal is not None:
                try:
                    await asyncio.shield(heal())
                except Exception as trouble:
                    self.troubles.append(f"healing {name} {shot.target}: {trouble!r}")
            rig.note_fault(fault=name, event="end", target=shot.target)

    async def heal_all(self) -> None:
        """All wires well again; every process is wanted alive."""
        await self._rig.wires.heal()
        self._rig.held_down.clear()
