"""Answers are settled by read, decide, write: no row lock, no look at the version, and every event of the books has a fresh key.

Where it bites: `orders.settle`. Two answers about one order at once (the place's and a callback, or a callback three times) are both
settled. Needs callbacks that race the answer.
"""

import os
from dataclasses import replace
from typing import Any

from tests.chaos.bugs import Recipe

from kameng_api.kit import sets
from kameng_api.ledger import rules as books
from kameng_api.orders import queries

RECIPE = Recipe(
    knobs=(
        {"callback_on_sync_success": True, "callback_copies": 3, "latency": {"kind": "fixed", "ms": 150}},
        {"async_rate": 1.0, "async_after_s": 0.5, "callback_copies": 3},
    ),
    expected=frozenset({"I3", "I6", "I16"}),
)


def plant() -> None:
    queries._LOCK = queries._LOCK.replace("FOR NO KEY UPDATE OF o", "")
    updating = sets.updating

    def blind(table: str, keys: Any, columns: Any, *, written_by: Any = None) -> sets.Part:
        return updating(table, keys, columns)

    sets.updating = blind  # type: ignore[assignment]
    for name in ("final", "settle_delivered", "settle_refused"):
        setattr(books, name, _with_fresh_key(getattr(books, name)))


def _with_fresh_key(make: Any) -> Any:
    def made(*values: Any, **named: Any) -> books.Posting:
        posting = make(*values, **named)
        return replace(posting, event_key=f"{posting.event_key}:{os.urandom(6).hex()}")

    return made
