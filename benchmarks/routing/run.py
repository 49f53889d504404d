"""One run or thousands: a job says which policy plays which scene with which seed and under which conditions; all cores play.

A policy is named by its name in `policies.POLICIES`, as `router`, `router-without-<part>`, `oracle`, or as `package.module:factory` where
`factory(world: World) -> Policy`. A scene is named by its name in `scenarios.SCENES` or `EVEN`, as `chaos-<seed>`, or as `package.module:function`
where `function(seed: int) -> Scene`.
"""

import importlib
import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, fields, replace
from time import process_time
from typing import Any, Final

from benchmarks.routing.engine import MakePolicy, Run
from benchmarks.routing.measure import Figures, figures
from benchmarks.routing.oracle import Oracle
from benchmarks.routing.policies import POLICIES
from benchmarks.routing.scenarios import EVEN, SCENES, chaos
from benchmarks.routing.world import Scene, World
from kameng_api.suppliers.routing.facts import ChannelFacts, Policy
from kameng_api.suppliers.routing.policy import Router
from kameng_api.suppliers.routing.tuning import DEFAULT, Tuning

OURS: Final = "router"
ORACLE: Final = "oracle"
WITHOUT: Final = "router-without-"
WIPE_AFTER_S: Final = 300.0
CALLBACK_LATENCY_S: Final = 30.0
"""What the router is told of a supplier that calls back, until it has learnt better."""


class NoSuchName(Exception):
    """A policy or a scene that does not exist."""


@dataclass(frozen=True, slots=True)
class Job:
    """One run. `wipe`: "" or "cold" or "rebuilt", five minutes into the first fault. `lag_s` None: each worker keeps to itself."""

    policy: str
    scene: str
    seed: int
    workers: int = 1
    lag_s: float | None = 1.0
    wipe: str = ""
    naive: bool = False
    mess: bool = False


def play(job: Job) -> Figures:
    """Run one job in this process."""
    scene = scene_of(job.scene, job.seed)
    make = maker_of(job.policy)
    wipe_at = min(fault.start for fault in scene.faults) + WIPE_AFTER_S if job.wipe else None
    began = process_time()
    outcome = Run(
        scene, job.seed, make, workers=job.workers, lag_s=job.lag_s, wipe_at=wipe_at, rebuild=job.wipe == "rebuilt", naive=job.naive, mess=job.mess
    ).run()
    micros = (process_time() - began) / max(1, len(outcome.orders)) * 1e6
    return replace(figures(outcome), micros=micros)


def play_all(jobs: Iterable[Job], *, cores: int, tell: Callable[[str], None]) -> dict[Job, Figures]:
    """Run all jobs on so many processes; scenes that belong together follow each other."""
    todo = sorted(dict.fromkeys(jobs), key=lambda job: (job.scene, job.seed, job.policy))
    if cores <= 1:
        return dict(zip(todo, map(play, todo), strict=True))
    with ProcessPoolExecutor(cores, mp_context=multiprocessing.get_context("fork")) as pool:
        return dict(zip(todo, progress(pool.map(play, todo, chunksize=4), len(todo), tell), strict=True))


def progress(results: Iterator[Figures], count: int, tell: Callable[[str], None]) -> Iterator[Figures]:
    """Say every tenth part."""
    step = max(1, count // 10)
    for number, result in enumerate(results, 1):
        if number % step == 0:
            tell(f"  {number} of {count} runs")
        yield result


def against_oracle(played: dict[Job, Figures]) -> None:
    """Fill in the regret of each run from the oracle's run of the same scene and seed."""
    for job, found in played.items():
        oracle = played.get(Job(ORACLE, job.scene, job.seed))
        if oracle is not None:
            found.regret = oracle.value - found.value


def scene_of(name: str, seed: int) -> Scene:
    """Make the scene that a name means."""
    if name in SCENES or name in EVEN:
        return (SCENES | EVEN)[name](seed)
    if name.startswith("chaos-"):
        return chaos(int(name.removeprefix("chaos-")))
    made = look_up(name)(seed)
    if not isinstance(made, Scene):
        raise NoSuchName(f"{name} made no Scene")
    return made


def maker_of(name: str) -> Callable[[Run], Policy]:
    """How to make the policy that a name means."""
    if name == ORACLE:
        return Oracle
    make: MakePolicy
    if name == OURS:
        make = router
    elif name.startswith(WITHOUT):
        tuning = replace(DEFAULT, **{part_of(name): False})  # type: ignore[arg-type]

        def make(world: World) -> Policy:
            return router(world, tuning)
    else:
        make = POLICIES[name] if name in POLICIES else look_up(name)
    return lambda run: make(run.scene.world)


def part_of(name: str) -> str:
    """The switch that `router-without-<part>` turns off."""
    part = name.removeprefix(WITHOUT).replace("-", "_")
    if part not in parts():
        raise NoSuchName(f"the router has no part {part}; it has {', '.join(parts())}")
    return part


def parts() -> list[str]:
    """The parts of the router that can be left out."""
    return [each.name for each in fields(DEFAULT) if isinstance(getattr(DEFAULT, each.name), bool)]


def router(world: World, tuning: Tuning = DEFAULT) -> Policy:
    """Ours, told what the suppliers' papers say."""
    facts = {
        channel.name: ChannelFacts(channel.callback_batch_s or 0.0, CALLBACK_LATENCY_S if channel.callback else ChannelFacts().latency_s)
        for channel in world.channels
    }
    return FleetRouter(facts, tuning)


class FleetRouter(Router):
    """Ours as one of several processes: it can say which circuit a probe asks."""

    def circuit(self, channel: str, sku: str, now: float) -> str:
        """The channel's, or that of channel × SKU."""
        return f"{channel}/{sku}" if self.health.reading(channel, sku, now).of_sku else channel


def look_up(name: str) -> Callable[..., Any]:
    """`package.module:function`."""
    module, colon, attribute = name.partition(":")
    if not colon:
        raise NoSuchName(f"there is no {name}; a plug-in is named package.module:function")
    found = getattr(importlib.import_module(module), attribute, None)
    if not callable(found):
        raise NoSuchName(f"{module} has no function {attribute}")
    return found  # type: ignore[no-any-return]
