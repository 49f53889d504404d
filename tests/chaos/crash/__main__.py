"""`make crash-points`: every point in every story that passes it. `--ci`: every point once, as the tests do."""

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path

from tests.chaos.crash import names, stage
from tests.chaos.crash.stories import STORIES
from tests.chaos.crash.trial import Verdict, try_all, walk_through
from tests.conftest import migrate

from kameng_api.embedded import servers


def _tell(verdict: Verdict) -> None:
    word = "ok   " if not verdict.trouble else "WRONG"
    sys.stdout.write(f"{word} {verdict.took_s:5.2f} s  {verdict.point} in {verdict.story}\n{verdict.trouble and verdict.trouble + chr(10)}")
    sys.stdout.flush()


async def _run(found: servers.Servers, folder: Path, options: argparse.Namespace) -> int:
    known = names.read().story_of
    async with stage.opened(folder, found, options.lanes) as lanes:
        trials, together = sorted(known.items()), options.together or (6 if options.ci else 1)
        if not options.ci:
            trials, unnamed = [], set[str]()
            for story in (name for name in STORIES if options.story in name):
                verdict, passed = await walk_through(lanes[0], story)
                _tell(verdict)
                trials += [(point, story) for point in sorted(passed & set(known))]
                unnamed |= {point for point in passed - set(known) if not names.read().places_of(point.rpartition(":")[0])}
            trials += sorted(set(known.items()) - set(trials))
            sys.stdout.writelines(f"UNNAMED {point}\n" for point in sorted(unnamed))
        trials = [(point, story) for point, story in trials if options.only in point and options.story in story]
        if options.walk:
            trials = []
        started = time.monotonic()
        verdicts = await try_all(lanes, trials, _tell, together)
    wrong = [v for v in verdicts if v.trouble]
    sys.stdout.write(f"{len(verdicts)} deaths in {time.monotonic() - started:.0f} s, {len(wrong)} not survived\n")
    if missed := sorted(set(trials) - {(v.point, v.story) for v in verdicts}):
        sys.stdout.write(f"{len(missed)} passed in a story once and not again: {', '.join(f'{point} in {story}' for point, story in missed)}\n")
    return bool(wrong)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.crash")
    parser.add_argument("--ci", action="store_true")
    parser.add_argument("--only", default="", help="points whose name holds this text")
    parser.add_argument("--story", default="", help="stories whose name holds this text")
    parser.add_argument("--together", type=int, default=0, help="so many points of a story in one telling")
    parser.add_argument("--walk", action="store_true", help="tell the stories, kill nobody")
    parser.add_argument("--lanes", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kameng-crash-") as folder:
        Path(folder).chmod(0o711)
        with servers.running(Path(folder) / "var", settings={"shared_buffers": "128MB"}) as found:
            migrate(found, "head")
            return asyncio.run(_run(found, Path(folder) / "crash", options))


if __name__ == "__main__":
    sys.exit(main())
