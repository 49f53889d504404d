"""`python -m tests.compiled`: compiles the tests once, on all cores, where each process of the suite would compile all of them for itself."""

import os
import subprocess
import sys
from importlib.util import cache_from_source
from pathlib import Path

ROOT = Path(__file__).parents[1]


def main() -> None:
    stale = [file for folder in ("tests", "sdk/python/tests") for file in sorted((ROOT / folder).rglob("test_*.py")) if not _is_compiled(file)]
    if sys.dont_write_bytecode or len(stale) < 20:
        return
    cores = os.cpu_count() or 1
    collect = [sys.executable, "-m", "pytest", "--collect-only", "-qq", "-p", "no:cacheprovider"]
    shares = [[str(file) for file in stale[n::cores]] for n in range(cores)]
    working = [subprocess.Popen([*collect, *share], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for share in shares if share]
    for process in working:
        process.wait()  # what cannot be collected is told by the suite itself


def _is_compiled(file: Path) -> bool:
    """By pytest, which writes its assertions anew and keeps the result beside what Python itself would keep."""
    kept = Path(cache_from_source(str(file))).parent.glob(f"{file.stem}.*-pytest-*.pyc")
    return any(one.stat().st_mtime >= file.stat().st_mtime for one in kept)


if __name__ == "__main__":
    main()
