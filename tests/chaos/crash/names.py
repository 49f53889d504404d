"""The checked-in list of points, `points.toml`, as values."""

import tomllib
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path
from typing import Final

from tests.chaos.crash.fuse import POINTS

FILE: Final = Path(__file__).with_name("points.toml")


@dataclass(frozen=True, slots=True)
class Names:
    """`story_of`: point → the story in which it is tried in CI. `whole`: commits that stand alone → why. `later`: rooms not finished.

    `reads`: never write."""

    story_of: dict[str, str]
    commits: frozenset[str]
    whole: dict[str, str]
    later: frozenset[str]
    reads: tuple[str, ...]

    def places_of(self, site: str) -> list[str]:
        """In which of the tables a commit stands; a name written out counts before a pattern."""
        found = [table for table, known in (("commits", self.commits), ("whole", self.whole), ("later", self.later)) if site in known]
        if site in self.reads or (not found and any(fnmatchcase(site, pattern) for pattern in self.reads)):
            found.append("reads")
        return found


@lru_cache(maxsize=1)
def read() -> Names:
    found = tomllib.loads(FILE.read_text(encoding="utf-8"))
    story_of = {f"{site}:{moment}": story for kind, moments in POINTS.items() for site, story in found[kind].items() for moment in moments}
    return Names(story_of, frozenset(found["commits"]), found["whole"], frozenset(found["later"]["commits"]), tuple(found["reads"]["commits"]))
