"""Some points of one story: arm them, tell the story, let what dies recover, judge. Or the story alone, to learn which points it passes."""

import asyncio
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

from tests.chaos.crash import names
from tests.chaos.crash.judge import judge, quiet
from tests.chaos.crash.scenarios import Story, Told
from tests.chaos.crash.stage import Lane
from tests.chaos.crash.stories import STORIES

_REACHED_S: Final = 40.0
_NO_MORE_S: Final = 2.5
"""So long after a story is over, points of it that were not passed are left for another telling."""
_LATE: Final = ("late",)
_SPOILED: Final = 3


@dataclass(frozen=True, slots=True)
class Verdict:
    """`trouble` is empty when everything came out well. `took_s`: of the telling, which may have had other deaths, too."""

    point: str
    story: str
    took_s: float
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class Trial:
    """Points of a story at which somebody is to die, one after the other, in one telling."""

    points: tuple[str, ...]
    story: str

    @property
    def certain(self) -> bool:
        """Whether each telling passes them. What is named for another story was passed in this one once, maybe since a clock struck just then."""
        return any(names.read().story_of.get(point) == self.story for point in self.points)


async def kill_at(lane: Lane, trial: Trial) -> list[Verdict]:
    """Kill whoever reaches one of the points in the story; raises nothing: verdicts in words. Points that this telling did not pass have none,
    unless it was the only one and every telling passes it."""
    started, told, trouble = time.monotonic(), Told(), ""
    try:
        async with asyncio.timeout(150 + 30 * len(trial.points)):
            await _try(lane, trial, told)
    except AssertionError as found:
        trouble = f"{found}"[:1500] or traceback.format_exc()[-1500:]
    except Exception:
        trouble = traceback.format_exc()[-2500:]
    finally:
        lane.fuse.arm(())
    if trouble and len(told.deaths) != 1:
        trouble = f"after the deaths at {told.deaths}: {trouble}"
    took_s = time.monotonic() - started
    whole = not trial.points or (trouble and not told.deaths) or (len(trial.points) == 1 and trial.certain)
    return [Verdict(point, trial.story, took_s, trouble) for point in (trial.points or ("",) if whole else told.deaths)]


async def _try(lane: Lane, trial: Trial, told: Told) -> None:
    story = STORIES[trial.story]
    lane.deaths()
    if story.alone or story.setting is not None:
        await lane.kill("worker")
    if story.setting is not None:
        await story.setting(lane, told)
    lane.fuse.arm(trial.points)
    if story.setting is not None:
        lane.start("worker")
    acting = asyncio.create_task(_tell(lane, story, told))
    try:
        await _revive(lane, trial, told, acting, story)
        await acting
        await quiet(lane)
        if story.check is not None:
            await story.check(lane, told)
    finally:
        acting.cancel()
    await judge(lane, told, late=story.name in _LATE)


async def _tell(lane: Lane, story: Story, told: Told) -> None:
    """Until nothing of it is under way any more."""
    await story.act(lane, told)
    if story.alone:
        lane.start("worker")
    await quiet(lane)


async def _revive(lane: Lane, trial: Trial, told: Told, acting: "asyncio.Task[None]", story: Story) -> None:
    """Wait for each death, then start what died again, an hour later if it was the worker."""
    left, alone = set(trial.points), len(trial.points) == 1 and trial.certain
    killed = lane.process["worker"] if story.alone else None
    alive = ("api",) if story.alone else ("api", "worker")
    watched = {what: asyncio.create_task(lane.ended(what)) for what in alive}
    deadline = time.monotonic() + _REACHED_S
    buried = 0
    try:
        while (left or buried < len(told.deaths)) and time.monotonic() < deadline:
            await asyncio.wait(watched.values(), timeout=0.1, return_when=asyncio.FIRST_COMPLETED)
            if "worker" not in watched and lane.process["worker"] != killed:  # it lives by now
                watched["worker"] = asyncio.create_task(lane.ended("worker"))
            over = acting.done() and not alone and time.monotonic() > deadline - _REACHED_S + _NO_MORE_S
            if over:  # nobody may die any more, and who did so in this moment is found
                lane.fuse.arm(())
                await asyncio.sleep(0.5)
            for what in [what for what, ended in watched.items() if ended.done()]:
                assert watched[what].result() == -9, f"ended with {watched[what].result()} instead of being killed"
                told.deaths += (died := lane.deaths())  # of the other process, too, when both died at once: it is buried when it has ended
                buried += 1
                left -= set(died)
                lane.fuse.arm(() if over else left)
                if what == "worker":
                    await lane.an_hour_passes()
                lane.start(what)
                watched[what] = asyncio.create_task(lane.ended(what))
                deadline = time.monotonic() + _REACHED_S
            if acting.done():
                acting.result()
            if over:
                break
            await lane.hurry()
    finally:
        for ended in watched.values():
            ended.cancel()
    assert not left or not alone, f"{trial.points} was not reached"


async def try_all(
    lanes: Sequence[Lane], trials: Sequence[tuple[str, str]], tell: Callable[[Verdict], None] = lambda _: None, together: int = 1
) -> list[Verdict]:
    """Every (point, story), the lanes taking turns, up to `together` points of a story in one telling.

    What a telling did not pass and must pass is tried again, alone if need be. A lane in which things went wrong is not used for ever.
    """
    waiting, verdicts = deque(_gather(trials, together)), list[Verdict]()

    async def work(lane: Lane) -> None:
        spoiled = 0
        while waiting and spoiled < _SPOILED:
            trial = waiting.popleft()
            found = await kill_at(lane, trial)
            verdicts.extend(found)
            for verdict in found:
                tell(verdict)
            spoiled += any(verdict.trouble for verdict in found)
            known = {verdict.point for verdict in found}
            left = [point for point in trial.points if point not in known] if trial.certain else []
            waiting.extend(_gather([(point, trial.story) for point in left], together if known else 1))

    await asyncio.gather(*(work(lane) for lane in lanes))
    return verdicts + [Verdict(point, trial.story, 0.0, "not tried: every lane was spoiled") for trial in waiting for point in trial.points]


def _gather(trials: Sequence[tuple[str, str]], together: int) -> list[Trial]:
    found = []
    for story, pairs in groupby(sorted(trials, key=lambda pair: pair[1]), key=lambda pair: pair[1]):
        points = [point for point, _ in pairs]
        count = -(-len(points) // together)
        found += [Trial(tuple(points[n::count]), story) for n in range(count)]
    return found


async def walk_through(lane: Lane, story_name: str) -> tuple[Verdict, set[str]]:
    """The story without a death, and the points it passed."""
    lane.log.write_bytes(b"")
    lane.log_read = 0
    [verdict] = await kill_at(lane, Trial((), story_name))
    return verdict, lane.passed()
