"""What the ledger refuses.

Problem
├── InsufficientBalance   insufficient_balance   a floor would break
└── Mismatched            state_conflict         the event key is taken by a posting with other lines
"""

from kameng_api.kit.errors import Problem


class InsufficientBalance(Problem):
    """The account may not go below its floor."""

    code = "insufficient_balance"


class Mismatched(Problem):
    """This event was already posted, with another outcome."""

    code = "state_conflict"


class BooksStopped(Problem):
    """An invariant of this book is broken; nothing is posted until a person has looked."""

    code = "unavailable"
