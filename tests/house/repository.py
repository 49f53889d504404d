"""Where the checkout stands, and which files belong to it."""

import ast
import subprocess
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "kameng_api"
_NOT_OURS = {
    ".git", ".venv", "var", "dist", "__pycache__", ".pycache", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis", ".import_linter_cache",
}  # fmt: skip


@cache
def files() -> tuple[Path, ...]:
    """Every file a commit would hold: what git tracks or would add, or, without git, all that is not made by a tool."""
    git = ["git", "-c", f"safe.directory={ROOT}", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(git, check=True, capture_output=True).stdout.decode().split("\0")
        found = [ROOT / name for name in listed if name]
    except (OSError, subprocess.CalledProcessError):
        found = [path for path in ROOT.rglob("*") if not _NOT_OURS.intersection(path.relative_to(ROOT).parts)]
    return tuple(sorted(path for path in found if path.is_file() and not path.is_symlink()))


@cache
def texts() -> dict[str, str]:
    """Text of every file by its path in the repository; what is no UTF-8 is left out."""
    read: dict[str, str] = {}
    for path in files():
        try:
            read[path.relative_to(ROOT).as_posix()] = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
    return read


@cache
def modules() -> dict[str, ast.Module]:
    """Every module of the package, parsed."""
    return {path.relative_to(ROOT).as_posix(): ast.parse(path.read_text(encoding="utf-8")) for path in sorted(PACKAGE.rglob("*.py"))}
