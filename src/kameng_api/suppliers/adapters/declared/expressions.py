"""Reading a value out of a vendor's answer by a JMESPath expression that cannot grow, loop or reach anything but the answer."""

import re
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from typing import Any, Final

import jmespath
from jmespath.exceptions import JMESPathError

from kameng_api.kit.money import LARGEST, SCALE

MOST_CHARACTERS: Final = 300
MOST_NODES: Final = 60
MOST_DEPTH: Final = 12
MOST_TEXT: Final = 128

# Only what picks: nothing that builds new objects, nothing that calls for each, so the result is never larger than the answer.
_NODES: Final = frozenset(
    {
        "field", "subexpression", "index", "index_expression", "slice", "projection", "value_projection", "filter_projection", "flatten",
        "comparator", "or_expression", "and_expression", "not_expression", "literal", "current", "identity", "pipe", "function_expression",
    }
)  # fmt: skip
_FUNCTIONS: Final = frozenset({"contains", "ends_with", "length", "not_null", "starts_with", "to_string", "type"})
_DECIMAL: Final = re.compile(r"\A-?(?:0|[1-9][0-9]{0,11})(?:\.[0-9]{1,12})?\Z")
_COUNT: Final = re.compile(r"\A(?:0|[1-9][0-9]{0,8})\Z")

Pick = Callable[[Any], Any]
"""What stands at an expression's place in an answer; None where nothing does. Raises Unreadable."""


class Unreadable(ValueError):
    """An answer is not what the file says; the message names the part, never its value."""


def compile_expression(text: str) -> Pick:
    """Raises ValueError, in words for whoever wrote the file."""
    if len(text) > MOST_CHARACTERS:
        raise ValueError(f"an expression has at most {MOST_CHARACTERS} characters")
    try:
        compiled = jmespath.compile(text)
    except JMESPathError as error:
        raise ValueError(f"not a JMESPath expression: {str(error).splitlines()[0]}") from None
    except RecursionError:
        raise ValueError("not a JMESPath expression: nested too deep") from None
    _check(compiled.parsed, text)
    search: Pick = compiled.search

    def pick(found: Any) -> Any:
        try:
            return search(found)
        except (JMESPathError, TypeError, ValueError, ArithmeticError, RecursionError) as error:
            raise Unreadable(f"{text[:40]!r} does not fit the answer") from error

    return pick


def _check(root: dict[str, Any], text: str) -> None:
    pending, seen = [(root, 1)], 0
    while pending:
        node, depth = pending.pop()
        seen += 1
        kind = node["type"]
        if kind not in _NODES:
            raise ValueError(f"an expression only picks: {kind.replace('_', ' ')} is not used here")
        if kind == "function_expression" and node["value"] not in _FUNCTIONS:
            raise ValueError(f"no function {node['value']!r} here; there are: {', '.join(sorted(_FUNCTIONS))}")
        if seen > MOST_NODES or depth > MOST_DEPTH:
            raise ValueError(f"an expression has at most {MOST_NODES} parts, {MOST_DEPTH} deep")
        pending += [(child, depth + 1) for child in node["children"] if isinstance(child, dict)]  # a slice holds bare numbers


# ---- what a picked value is taken for ----------------------------------------------------------------------------------


def word(value: Any) -> str | None:
    """A code or status: text as it is, a whole number in digits, a truth value as `true` or `false`; None for everything else."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int) else None


def text_of(value: Any) -> str | None:
    """A number or receipt to keep, cut to 128 characters; None where there is none."""
    found = str(value) if isinstance(value, Decimal) else word(value)
    return found[:MOST_TEXT] if found else None


def count_of(value: Any) -> int:
    """Raises Unreadable."""
    found = word(value)
    if found is None or not _COUNT.match(found):
        raise Unreadable("a count is not a whole number")
    return int(found)


def amount_of(value: Any, unit: str) -> int:
    """Signed, 1/10000 units. `unit`: `yuan` (1 of the currency) or `fen` (1/100). Raises Unreadable; never rounds."""
    found = str(value) if isinstance(value, Decimal) else word(value)
    if found is None or not _DECIMAL.match(found):
        raise Unreadable("an amount is not decimal")
    try:
        exact = Decimal(found) * (SCALE if unit == "yuan" else SCALE // 100)
        amount = int(exact)
    except InvalidOperation as error:
        raise Unreadable("an amount is not decimal") from error
    if amount != exact or abs(amount) > LARGEST:
        raise Unreadable("an amount is finer or larger than money here")
    return amount


def shown(value: Any) -> str:
    """An unlisted word of theirs, short and harmless enough for a log."""
    found = word(value)
    if found and found.isascii() and found.replace("_", "").replace("-", "").isalnum():
        return found[:40]
    return "missing or odd"
