"""Names for the places where something becomes durable, read from the source, so that a new one cannot go unnoticed.

A commit is named after the function that opens the transaction, `jobs.orders:Buyer.submit`; where one function opens several, the second
is `…#2`. A call to the outside is named after the outermost function of `jobs/` or `api/` on the way to it.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import FrameType
from typing import Final

import kameng_api

SOURCE: Final = Path(kameng_api.__file__).parent
APART: Final = frozenset({"cli", "demo", "embedded"})
"""What does not run in the API or in a worker; the command line opens transactions too, each its own process and its own whole."""


@dataclass(frozen=True, slots=True)
class Site:
    """One `….transaction()` in the source."""

    name: str
    path: Path
    line: int


@lru_cache(maxsize=1)
def list_sites() -> tuple[Site, ...]:
    """Every place in the processes that opens a transaction."""
    files = [file for file in sorted(SOURCE.rglob("*.py")) if file.relative_to(SOURCE).parts[0] not in APART]
    return tuple(site for file in files for site in _sites_of(file))


def _sites_of(file: Path) -> Iterator[Site]:
    module = ".".join(file.relative_to(SOURCE).with_suffix("").parts)
    seen: dict[str, int] = {}
    for function, line in sorted(_openings(ast.parse(file.read_text(encoding="utf-8")), ""), key=lambda found: found[1]):
        seen[function] = seen.get(function, 0) + 1
        number = seen[function]
        yield Site(f"{module}:{function}" + (f"#{number}" if number > 1 else ""), file, line)


def _openings(node: ast.AST, within: str) -> Iterator[tuple[str, int]]:
    """(qualified name as the interpreter writes it, line) of each call of `transaction`."""
    for child in ast.iter_child_nodes(node):
        name = within
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            name = f"{within}{child.name}.<locals>."
        elif isinstance(child, ast.ClassDef):
            name = f"{within}{child.name}."
        elif isinstance(child, ast.Call) and isinstance(child.func, ast.Attribute) and child.func.attr == "transaction":
            yield within.removesuffix(".<locals>."), child.lineno
        yield from _openings(child, name)


@lru_cache(maxsize=1)
def _by_place() -> dict[tuple[str, int], str]:
    return {(str(site.path), site.line): site.name for site in list_sites()}


def commit_of(caller: FrameType) -> str:
    """The name of the transaction that `caller` opens; "" for one that is opened elsewhere."""
    return _by_place().get((caller.f_code.co_filename, caller.f_lineno), "")


def call_of(caller: FrameType | None) -> str:
    """The name of the outgoing call that somebody up the stack of `caller` makes; "" when nobody of the processes does."""
    name = ""
    while caller is not None:
        module = str(caller.f_globals.get("__name__", ""))
        if module.startswith(("kameng_api.jobs.", "kameng_api.api.")):
            name = f"{module.removeprefix('kameng_api.')}:{caller.f_code.co_qualname}"
        caller = caller.f_back
    return name
