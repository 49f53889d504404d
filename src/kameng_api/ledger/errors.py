"""What the ledger refuses.

Problem
├── InsufficientBalance   insufficient_balance   a floor would break
├── Mismatched            state_conflict         the event key is taken by a posting with other lines
└── BooksStopped          books_stopped          an invariant of the book is broken: nothing is posted until a person has looked
"""

from kameng_api.kit.errors import Problem


class InsufficientBalance(Problem):
    """The account may not go below its floor."""

    code = "insufficient_balance"


class Mismatched(Problem):
    """This event was already posted, with another outcome."""

    code = "state_conflict"


class BooksStopped(Problem):
    """An invariant of this book is broken; nothing is posted until a person has looked. Nothing was stored."""

    code = "books_stopped"

    def __init__(self, detail: str = "") -> None:
        super().__init__(detail, retry_after_s=60)
