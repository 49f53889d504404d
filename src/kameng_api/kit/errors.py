"""Three kinds of trouble have one base each: theirs is a `Problem` with a stable code; the world's is `Unavailable`; ours is an assertion.

Problem
├── NotFound            not_found
├── Invalid             validation_failed, with one entry per wrong field
└── … each room adds its own in its errors.py
Unavailable             a server that we need did not answer; the caller may repeat the same request
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar


@dataclass(frozen=True, slots=True)
class FieldError:
    """One wrong field: where (JSON pointer), which rule, and a sentence."""

    pointer: str
    code: str
    detail: str


class Problem(Exception):
    """A refusal that the caller can act on. `code` is contract; `detail` is for people and never holds a secret."""

    code: ClassVar[str] = "internal"

    def __init__(self, detail: str = "", *, errors: Sequence[FieldError] = (), **facts: Any) -> None:
        super().__init__(detail)
        self.detail = detail
        self.errors = tuple(errors)
        self.facts: Mapping[str, Any] = facts


class NotFound(Problem):
    """It does not exist, or it is not yours: the two are never told apart."""

    code = "not_found"


class Invalid(Problem):
    """A well-formed request with wrong content."""

    code = "validation_failed"


class StateConflict(Problem):
    """The thing is not in a state that allows this step."""

    code = "state_conflict"


class Unavailable(Exception):
    """A server we depend on did not answer in time; nothing is known about the outcome."""
