"""A supplier's file as plain values with their line numbers: nothing in it can run, repeat itself without end, or be read in two ways."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import yaml

MOST_BYTES: Final = 256 * 1024
MOST_DEPTH: Final = 24
MOST_NODES: Final = 20_000
_WHOLE_NUMBER: Final = re.compile(r"\A-?(?:0|[1-9][0-9]{0,17})\Z")
_WORDS: Final[Mapping[str, bool | None]] = {"true": True, "false": False, "null": None, "~": None, "": None}

Path = tuple[str | int, ...]
"""Where something stands in the file: names and positions from the top."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong in a supplier's file. `line` counts from 1."""

    line: int
    path: Path
    said: str

    def __str__(self) -> str:
        return f"line {self.line}: {path_text(self.path)}: {self.said}"


class FileWrong(ValueError):
    """A supplier's file cannot be used; `problems` says every reason that was found, each with its line and the path of its key."""

    def __init__(self, name: str, problems: list[Problem]) -> None:
        super().__init__("\n".join([f"{name}:", *(f"  {problem}" for problem in problems)]))
        self.name = name
        self.problems = tuple(problems)


@dataclass(frozen=True, slots=True)
class Text:
    """A file's content and the line of every part of it."""

    content: dict[str, Any]
    lines: Mapping[Path, int]

    def line_of(self, path: Path) -> int:
        """The line of `path`, or of the nearest part around it."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)


def path_text(path: Path) -> str:
    """`('place', 'fields', 'a')` → `place.fields.a`."""
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return text.removeprefix(".") or "the file"


def read_text(text: bytes, name: str) -> Text:
    """Raises FileWrong.

    Names are text whatever they look like. A plain value is true, false, null, a whole number of at most 18 digits, or text: `1.0`, `yes`,
    `NO` and `012` are text. Anchors, aliases and tags are refused, so are two equal names in one mapping.
    """
    if len(text) > MOST_BYTES:
        raise FileWrong(name, [Problem(1, (), f"longer than {MOST_BYTES} bytes")])
    try:
        decoded = text.decode("utf-8")
        root = _Measured(decoded, name).get_single_node()
    except UnicodeDecodeError:
        raise FileWrong(name, [Problem(1, (), "not UTF-8")]) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise FileWrong(name, [Problem(mark.line + 1 if mark else 1, (), f"not YAML: {error.problem}")]) from None
    except yaml.YAMLError:
        raise FileWrong(name, [Problem(1, (), "not YAML")]) from None
    lines: dict[Path, int] = {}
    problems: list[Problem] = []
    content = None if root is None else _value(root, (), lines, problems)
    if not isinstance(content, dict):
        problems.append(Problem(1, (), "not a mapping of names to values"))
    if problems or not isinstance(content, dict):
        raise FileWrong(name, problems)
    return Text(content, lines)


class _Measured(yaml.SafeLoader):
    """Looks at every part before anything is made of it: no repetition, no depth, no crowd."""

    def __init__(self, text: str, name: str) -> None:
        super().__init__(text)
        self._of = name
        self._parts = 0
        self._depth = 0

    def get_event(self) -> Any:
        event: Any = super().get_event()  # type: ignore[no-untyped-call]
        line = event.start_mark.line + 1 if event.start_mark else 1
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise FileWrong(self._of, [Problem(line, (), "anchors and aliases are not used here")])
        if getattr(event, "tag", None):
            raise FileWrong(self._of, [Problem(line, (), "tags are not used here")])
        self._depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if self._depth > MOST_DEPTH:
            raise FileWrong(self._of, [Problem(line, (), f"nested deeper than {MOST_DEPTH}")])
        if self._parts > MOST_NODES:
            raise FileWrong(self._of, [Problem(line, (), f"more than {MOST_NODES} parts")])
        self._parts += 1
        return event


def _value(node: yaml.Node, path: Path, lines: dict[Path, int], problems: list[Problem]) -> Any:
    lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.ScalarNode):
        return _scalar(node)
    if isinstance(node, yaml.SequenceNode):
        return [_value(item, (*path, position), lines, problems) for position, item in enumerate(node.value)]
    found: dict[str, Any] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            problems.append(Problem(line, path, "a name is not text"))
            continue
        if key.value in found:
            problems.append(Problem(line, (*path, key.value), "stands here a second time"))
            continue
        lines[*path, key.value] = line
        found[key.value] = _value(value, (*path, key.value), lines, problems)
    return found


def _scalar(node: yaml.ScalarNode) -> str | int | bool | None:
    text: str = node.value
    if node.style is not None:
        return text
    if text in _WORDS:
        return _WORDS[text]
    return int(text) if _WHOLE_NUMBER.match(text) else text
