"""`kameng supplier new`: a folder for a supplier nobody has spoken to yet, which passes the contract suite before a line is changed."""

import keyword
import re
from pathlib import Path
from typing import Final

from kameng_api.kit.errors import FieldError, Invalid, StateConflict
from kameng_api.suppliers import adapters

_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,39}")
_TAKEN: Final = frozenset({"conftest", "world", "new"})
_SKELETON: Final = Path(__file__).parent / "skeleton"


def find_checkout() -> Path:
    """The source tree that this code runs from. Raises StateConflict where it is installed without one."""
    package = Path(adapters.__path__[0]).resolve()
    root = package.parents[3]
    if not (root / "pyproject.toml").is_file() or not (root / "tests" / "suppliers" / "twins").is_dir() or package.parents[2] != root / "src":
        raise StateConflict(
            "a supplier is added to the source: this kameng is installed as a package, without its tests. Clone the repository, "
            "install it with `pip install -e .`, and say it again there. A supplier with an ordinary form or JSON interface may need no "
            "code at all: see docs/suppliers.md about files that declare one."
        )
    return root


def scaffold(root: Path, name: str, title: str) -> list[Path]:
    """Write the skeleton of an adapter and of its twin below `root`; the paths that were written, in order.

    Raises Invalid for a name that cannot be a folder of the registry, StateConflict where something of that name stands already: nothing
    is ever overwritten.
    """
    if not _NAME.fullmatch(name) or name.startswith("test_") or name.endswith("_") or keyword.iskeyword(name) or name in _TAKEN:
        wrong = "1–40 of a–z 0–9 _, a letter first; no word of Python, none of test_…"
        raise Invalid(f"{name!r} cannot be a supplier's name", errors=[FieldError("/name", "format", wrong)])
    if not title.isprintable() or not 0 < len(title) <= 64 or any(sign in title for sign in "\"\\%'"):
        raise Invalid("this title cannot stand in the source", errors=[FieldError("/title", "format", "1–64 printable characters, no quotes")])
    folder = root / "src" / "kameng_api" / "suppliers" / "adapters" / name
    twin = root / "tests" / "suppliers" / "twins" / name
    standing = [path for path in (folder, folder.with_suffix(".py"), twin, twin.with_suffix(".py")) if path.exists()]
    if standing:
        raise StateConflict(f"{standing[0].relative_to(root)} is there already; nothing was written")
    words = {"%NAME%": name, "%CLASS%": "".join(part.capitalize() for part in name.split("_")), "%TITLE%": title}
    wanted = {folder / path.relative_to(_SKELETON / "adapter").with_suffix(""): path for path in sorted((_SKELETON / "adapter").rglob("*.txt"))}
    wanted[twin.with_suffix(".py")] = _SKELETON / "twin.py.txt"
    for target, source in wanted.items():
        text = source.read_text(encoding="utf-8")
        for word, value in words.items():
            text = text.replace(word, value)
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("x", encoding="utf-8") as file:
            file.write(text)
    return list(wanted)
