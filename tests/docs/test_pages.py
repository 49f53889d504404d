"""Every command and every program that a page prints is run as printed, against the demo, in the order of the page.

A block that is not meant to be run says why in a comment before it (`<!-- not run: … -->`); what a block must print stands in comments after it
(`<!-- prints: … -->`). Pages other than the quickstart begin in the shell that it leaves the reader with.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from kameng_api import embedded
from kameng_api.demo import processes

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
RUNNABLE = ("bash", "sh", "python")
RUNTIMES = ("php", "node", "java", "go")
# Pages whose blocks a test of their own runs, in both languages.
RUN_ELSEWHERE = {"sdk-python": "sdk/python/tests/test_docs.py", "signing": "tests/docs/test_snippets.py"}
START_S = 240.0
_BLOCK = re.compile(
    r"(?:<!-- not run: (?P<reason>[^\n]*?) -->\n+)?^(?P<indent> *)```(?P<kind>[a-z]+)[^\n]*\n(?P<code>.*?)^ *```\n"
    r"(?P<after>(?:<!-- prints: [^\n]* -->\n)*)",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    kind: str
    code: str
    reason: str | None
    prints: tuple[str, ...]


def blocks(page: Path) -> list[Block]:
    """The runnable blocks of a page; `reason` says why one is not run."""
    found = []
    for match in _BLOCK.finditer(page.read_text(encoding="utf-8") + "\n"):
        if match["kind"] in RUNNABLE:
            prints = tuple(re.findall(r"<!-- prints: (.*?) -->", match["after"]))
            code = re.sub(rf"^{match['indent']}", "", match["code"], flags=re.MULTILINE)
            found.append(Block(match["kind"], code, match["reason"], prints))
    return found


ENGLISH = sorted(path for path in DOCS.glob("*.md") if not path.name.endswith(".zh-CN.md") and path.stem not in RUN_ELSEWHERE)
RUN = [path.stem for path in ENGLISH if any(block.reason is None for block in blocks(path))]


def test_pages_are_run_at_all() -> None:
    assert {"quickstart", "recipe-erp", "recipe-excel", "recipe-pos"} <= set(RUN)
    assert all(page in (ROOT / test).read_text(encoding="utf-8") for page, test in RUN_ELSEWHERE.items())
    assert all(block.reason is None or len(block.reason) > 10 for path in ENGLISH for block in blocks(path))


def _without_remarks(code: str) -> str:
    return "\n".join(re.sub(r"\s+# .*$", "", line) for line in code.splitlines())


@pytest.mark.parametrize("page", [path.stem for path in ENGLISH if (DOCS / f"{path.stem}.zh-CN.md").is_file()])
def test_the_chinese_page_prints_the_same_commands(page: str) -> None:
    """So that running the English one proves both."""
    ours, twins = blocks(DOCS / f"{page}.md"), blocks(DOCS / f"{page}.zh-CN.md")
    assert [(b.kind, _without_remarks(b.code), b.prints) for b in ours] == [(b.kind, _without_remarks(b.code), b.prints) for b in twins]


@pytest.fixture(scope="module")
def reader() -> Iterator[Path]:
    """The folder of somebody who has cloned the repository and started the demo as the quickstart says."""
    with tempfile.TemporaryDirectory(prefix="kameng-pages-", dir=os.environ.get("KAMENG_TEST_VAR")) as made:
        folder = Path(made)
        folder.chmod(0o711)  # lets root's servers in
        for name in (".venv", "docs", "sdk"):
            if (ROOT / name).exists():
                (folder / name).symlink_to(ROOT / name)
        with (folder / "demo.log").open("wb") as log:
            demo = subprocess.Popen(
                [sys.executable, "-m", "kameng_api.cli", "demo", "--state", "state.json"],
                cwd=folder, env=processes.environment({"var": str(folder / "var")}),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        try:
            deadline = time.monotonic() + START_S
            while not (folder / "state.json").exists():
                assert demo.poll() is None and time.monotonic() < deadline, (folder / "demo.log").read_text(errors="replace")[-3000:]
                time.sleep(0.1)
            yield folder
        finally:
            demo.send_signal(signal.SIGTERM)
            try:
                demo.wait(timeout=90)
            except subprocess.TimeoutExpired:
                demo.kill()
            embedded.remove(folder / "var" / "demo")


def _script(folder: Path, page: str) -> tuple[Path, list[Block]]:
    """One file per block, sourced one after another by one shell, with a mark before each."""
    entrance = next(block for block in blocks(DOCS / "quickstart.md") if block.reason is None)
    chosen = [block for block in blocks(DOCS / f"{page}.md") if block.reason is None]
    chosen = [block for block in chosen if block.code.split(maxsplit=1)[0] not in RUNTIMES or shutil.which(block.code.split(maxsplit=1)[0])]
    if page != "quickstart":
        chosen = [entrance, *chosen]
    place = folder / f"{page}.blocks"
    place.mkdir()
    lines = ["set -m", "shopt -s expand_aliases", "export PYTHONDONTWRITEBYTECODE=1"]
    for number, block in enumerate(chosen):
        file = place / f"{number}.{block.kind}"
        file.write_text(block.code, encoding="utf-8")
        run = f".venv/bin/python {file}" if block.kind == "python" else f"source {file}"
        lines += [f"echo '@@{number}'", run, 'echo "@@status $?"']
    script = place / "all.sh"
    script.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return script, chosen


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("page", RUN)
def test_what_a_page_prints_runs_as_printed(reader: Path, page: str) -> None:
    script, chosen = _script(reader, page)
    outside = {name: value for name, value in os.environ.items() if not name.startswith("KAMENG_")}
    done = subprocess.run(
        ["bash", str(script)], cwd=reader, env={"HOME": str(reader), **outside, "no_proxy": "127.0.0.1,localhost"},
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=400, check=False,
    )  # fmt: skip
    said = re.split(r"^@@(?=\d+$)", done.stdout, flags=re.MULTILINE)[1:]
    assert len(said) == len(chosen), done.stdout[-3000:]
    for block, text in zip(chosen, said, strict=True):
        status = re.search(r"@@status (\d+)", text)
        assert status is not None, f"{block.code}\n---\n{text}"
        if not re.search(r"kill %\d", block.code):  # what is killed says so by its status
            assert status[1] == "0", f"{block.code}\n---\n{text}"
        assert "Traceback" not in text and "command not found" not in text and "FORGED" not in text, f"{block.code}\n---\n{text}"
        for wanted in block.prints:
            assert wanted in text, f"{wanted!r} is not printed by\n{block.code}\n---\n{text}"
