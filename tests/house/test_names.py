"""Names and openings that every module keeps."""

import ast
import re

from tests.house.repository import modules

_EMPTY_WORDS = re.compile(r"(Service|Manager|Helper|Util|Utils|Handler|Processor)$")
_EMPTY_FILES = {"utils", "util", "helpers", "helper", "common", "misc", "services", "managers", "models"}


def test_every_module_says_why_it_exists() -> None:
    silent = []
    for file, tree in modules().items():
        if file.endswith("__init__.py") and not tree.body:
            continue
        sentence = ast.get_docstring(tree)
        if not sentence or not sentence.splitlines()[0].strip():
            silent.append(file)
    assert not silent


def test_no_class_is_called_by_what_everything_is() -> None:
    found = [
        f"{file}:{node.name}"
        for file, tree in modules().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and _EMPTY_WORDS.search(node.name)
    ]
    assert not found


def test_no_module_is_a_drawer_for_everything() -> None:
    assert [file for file in modules() if file.rsplit("/", 1)[-1].removesuffix(".py") in _EMPTY_FILES] == []
