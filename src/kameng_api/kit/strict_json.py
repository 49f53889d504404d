"""JSON as a signed API must read it: one document, one meaning.

What two parsers could read differently is refused: duplicate keys, NaN and Infinity, lone surrogates, U+0000, a byte
order mark, invalid UTF-8, integers that lose digits, and nesting deeper than the caller allows. Numbers with a
fraction stay floats, so that money written as a JSON number can be refused by type.

Two readers, one verdict. orjson reads at full speed and already refuses most of the list; duplicate keys are then
found by counting: every key and every string accounts for the colons in the body, and a key that was dropped leaves
one over. Whatever that cannot decide (escaped ASCII, floats, any refusal) goes to the slow reader, which keeps every
key and can say where the trouble is.
"""

import json
import math
import re
from typing import Any, NoReturn

import orjson

from kameng_api.kit.errors import Problem

MAX_DEPTH = 20
_MAX_INT_DIGITS = 20
_NO_VERDICT = -(1 << 60)  # stays below zero whatever is added to it
_BAD_CHARACTER = re.compile("[\x00\ud800-\udfff]")


class MalformedJson(Problem):
    """The body is not one unambiguous JSON document; `pointer` (RFC 6901) says where, when that is known."""

    code = "malformed_json"

    def __init__(self, detail: str, pointer: str | None = None) -> None:
        super().__init__(detail)
        self.pointer = pointer


def loads(body: bytes, max_depth: int = MAX_DEPTH) -> Any:
    """Parse one JSON document; raises `MalformedJson`. A scalar has depth 0, `{}` and `[]` depth 1."""
    if b"\\u00" not in body:  # an escaped colon would spoil the count, an escaped NUL is to be refused
        try:
            value = orjson.loads(body)
        except orjson.JSONDecodeError:
            return _read_slowly(body, max_depth)
        if _colons(value, max_depth) == body.count(b":"):
            return value
    return _read_slowly(body, max_depth)


def _colons(value: Any, depth_left: int) -> int:
    """How many colons the text of `value` must hold; far below zero if this reader cannot vouch for it."""
    kind = type(value)
    if kind is str:
        return int(value.count(":"))
    if kind is dict or kind is list:
        if depth_left <= 0:
            return _NO_VERDICT
        items = value
        total = 0
        if kind is dict:
            total = len(value) + "".join(value).count(":")
            items = value.values()
        for item in items:
            if type(item) is str:
                if ":" in item:
                    total += item.count(":")
            elif type(item) is not int:
                total += _colons(item, depth_left - 1)
        return total
    return _NO_VERDICT if kind is float else 0  # orjson turns integers beyond 64 bits into floats


class _Repeated:
    """Stands where an object repeats a key, until the walk knows the place."""

    def __init__(self, key: str) -> None:
        self.key = key


class _TooLong:
    """Stands where an integer has too many digits."""


def _read_slowly(body: bytes, max_depth: int) -> Any:
    try:
        text = body.decode()
        value = json.loads(text, object_pairs_hook=_object, parse_int=_integer, parse_constant=_refuse_constant)
    except UnicodeDecodeError:
        raise MalformedJson("the body is not valid UTF-8") from None
    except json.JSONDecodeError as error:
        raise MalformedJson(f"{error.msg} at character {error.pos}") from None
    except RecursionError:
        raise MalformedJson(f"nested deeper than {max_depth}") from None
    _refuse_odd(value, max_depth)
    return value


def _object(pairs: list[tuple[str, Any]]) -> Any:
    result = dict(pairs)
    if len(result) == len(pairs):
        return result
    seen: set[str] = set()
    for key, _ in pairs:
        if key in seen:
            return _Repeated(key)
        seen.add(key)
    raise AssertionError("an object lost a key without repeating one")


def _integer(digits: str) -> Any:
    return int(digits) if len(digits.lstrip("-")) <= _MAX_INT_DIGITS else _TooLong()


def _refuse_constant(name: str) -> NoReturn:
    raise MalformedJson(f"{name} is not JSON")


def _refuse_odd(document: Any, max_depth: int) -> None:
    """Walk what the slow reader kept and refuse, with its place, what JSON's grammar lets pass."""
    pending: list[tuple[Any, str, int]] = [(document, "", 0)]
    while pending:
        value, pointer, depth = pending.pop()
        match value:
            case _Repeated():
                raise MalformedJson("a key appears twice in one object", f"{pointer}/{_escape(value.key)}")
            case _TooLong():
                raise MalformedJson(f"an integer has more than {_MAX_INT_DIGITS} digits", pointer)
            case str() if _BAD_CHARACTER.search(value):
                raise MalformedJson("a string holds U+0000 or half a surrogate pair", pointer)
            case float() if not math.isfinite(value):
                raise MalformedJson("a number is too large", pointer)
            case dict() | list() if depth >= max_depth:
                raise MalformedJson(f"nested deeper than {max_depth}", pointer)
            case dict():
                if any(_BAD_CHARACTER.search(key) for key in value):
                    raise MalformedJson("a key holds U+0000 or half a surrogate pair", pointer)
                pending += [(item, f"{pointer}/{_escape(key)}", depth + 1) for key, item in value.items()]
            case list():
                pending += [(item, f"{pointer}/{index}", depth + 1) for index, item in enumerate(value)]


def _escape(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")
