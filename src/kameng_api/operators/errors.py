"""What operators are refused.

Problem
├── TokenInvalid       token_invalid      no bearer token, an unknown one, a revoked one, or one past its day
├── RoleTooSmall       role_missing       the role may not do this
├── NumberTaken        state_conflict     this number already moved other money, or waits to
├── SamePerson         state_conflict     who made it may not also approve it
└── AlreadyDecided     state_conflict     the approval was decided the other way, or by somebody else
"""

from kameng_api.kit.errors import Problem, StateConflict


class TokenInvalid(Problem):
    """The four cases are never told apart."""

    code = "token_invalid"


class RoleTooSmall(Problem):
    """The operator's role may not do this."""

    code = "role_missing"


class NumberTaken(StateConflict):
    """The number an operator gave was used for another movement."""


class SamePerson(StateConflict):
    """Maker and checker are two people."""


class AlreadyDecided(StateConflict):
    """Somebody has decided this approval before."""
