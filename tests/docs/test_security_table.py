"""The table of controls names tests that exist and run, says the same in both languages, and counts itself right."""

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = {"security.md": ("proven", "partly", "open"), "security.zh-CN.md": ("已证明", "部分", "未做")}
Row = tuple[int, tuple[str, ...], int, str]


def rows(page: str) -> list[Row]:
    """Number, tests, state as its place in PAGES, and the reason."""
    found = []
    for line in (ROOT / "docs" / page).read_text(encoding="utf-8").splitlines():
        if match := re.match(r"\| (\d+) \| [^|]+ \| ([^|]+) \| ([^|]+) \|$", line):
            number, tests, state = match.groups()
            word, _, reason = re.sub("：", ":", state, count=1).partition(":")
            names = tuple(f"tests/{name}" for name in re.findall(r"`([^`]+)`", tests))
            found.append((int(number), names, PAGES[page].index(word.strip()), reason.strip()))
    return found


@pytest.mark.parametrize("page", PAGES)
def test_every_control_has_a_row_and_the_rows_are_counted(page: str) -> None:
    told = rows(page)
    assert [number for number, *_ in told] == list(range(1, 51))
    counts = Counter(state for _, _, state, _ in told)
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    pairs = [(PAGES[page][state], counts[state]) for state in range(3)]
    assert all(f"{count} {word}" in text or f"{word} {count} 项" in text for word, count in pairs), pairs


@pytest.mark.parametrize("page", PAGES)
def test_no_row_claims_more_than_it_shows(page: str) -> None:
    for number, tests, state, reason in rows(page):
        assert tests if state < 2 else not tests, number
        assert state == 0 or len(reason) > 3, f"row {number} does not say what is missing"


def test_both_languages_say_the_same() -> None:
    english, chinese = (rows(page) for page in PAGES)
    assert [row[:3] for row in english] == [row[:3] for row in chinese]


def test_every_named_test_exists_and_is_collected(request: pytest.FixtureRequest) -> None:
    names = sorted({name for _, tests, *_ in rows("security.md") for name in tests})
    files = sorted({name.partition("::")[0] for name in names})
    assert [file for file in files if not (ROOT / file).is_file()] == []
    collected = {item.nodeid.partition("[")[0] for item in request.session.items}
    if not set(files) <= {name.partition("::")[0] for name in collected}:  # not the whole suite is being run
        collected = _collect(files)
    assert set(names) - collected == set()


def _collect(files: list[str]) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-p", "no:cacheprovider", *files],
        cwd=ROOT, capture_output=True, text=True, timeout=110, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]
    return {line.partition("[")[0] for line in done.stdout.splitlines() if "::" in line}
