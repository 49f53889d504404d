"""Every durable step has a name, and a process killed right before or right after it loses nothing, doubles nothing, and is recovered from."""

from collections import Counter as Tally
from pathlib import Path

import pytest
from tests.chaos.crash import names, sites, stage
from tests.chaos.crash.stories import STORIES
from tests.chaos.crash.trial import try_all

from kameng_api.embedded.servers import Servers

_LANES = 3
_TOGETHER = 12
"""Points of a story in one telling: each is a death and a recovery, and what was told is judged once."""


def test_every_commit_in_the_source_stands_in_one_table() -> None:
    """A new durable step must be named, and put where a process is killed at it, or be shown to stand alone."""
    known = names.read()
    found = {site.name for site in sites.list_sites()}
    wrong = {name: places for name in sorted(found) if len(places := known.places_of(name)) != 1}
    assert wrong == {}, f"in no table, or in several: {wrong}; see tests/chaos/crash/points.toml"
    assert (known.commits | set(known.whole)) - found == set(), "named, and not in the source any more"


def test_every_point_has_a_story() -> None:
    assert set(names.read().story_of.values()) <= set(STORIES)
    assert all(known.strip() for known in names.read().whole.values())


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_a_process_killed_at_any_point_loses_and_doubles_nothing(vacant: Servers, tmp_path: Path) -> None:
    known = names.read()
    async with stage.opened(tmp_path / "crash", vacant, _LANES) as lanes:  # each on a copy of the database
        verdicts = await try_all(lanes, sorted(known.story_of.items()), together=_TOGETHER)
        passed = {point for lane in lanes for point in lane.passed()}
        logs = "\n".join(lane.out.read_text()[-2000:] for lane in lanes if lane.out.exists())
    wrong = [f"{v.point} in {v.story} ({v.took_s:.1f} s): {v.trouble}" for v in verdicts if v.trouble]
    assert not wrong, "\n\n".join([*wrong, logs])
    assert Tally(v.point for v in verdicts) == Tally(known.story_of.keys())
    strangers = {point for point in passed - set(known.story_of) if known.places_of(point.rpartition(":")[0]) != ["whole"]}
    assert strangers == set(), "durable steps without a name, or reads that wrote"
