"""When a merchant wants to be told that its money runs low, and when it has been told. Amounts in 1/10000 units, times left in seconds."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from kameng_api.kit.db import Tx, execute, fetch

AMOUNT: Final = "amount"
HOURS_LEFT: Final = "hours_left"
MOST_HOURS: Final = 720
"""No forecast is worth more than that."""
_HOUR_S: Final = 3600


@dataclass(frozen=True, slots=True)
class Limits:
    """Below `amount`, or when the money lasts for less than `hours_left`. `own`: set by the merchant; else the operator's mark."""

    amount: int | None = None
    hours_left: int | None = None
    own: bool = False


@dataclass(frozen=True, slots=True)
class Alert:
    """The limits of one book and currency, and whether they are crossed: `reason` says which was first."""

    limits: Limits
    low_since: datetime | None = None
    reason: str | None = None


def crossed(limits: Limits, spendable: int, left_s: int | None) -> str | None:
    """Which limit says low, None when none does."""
    if limits.amount is not None and spendable < limits.amount:
        return AMOUNT
    if limits.hours_left is not None and left_s is not None and left_s < limits.hours_left * _HOUR_S:
        return HOURS_LEFT
    return None


def recovered(limits: Limits, spendable: int, left_s: int | None) -> bool:
    """Clearly above every limit, by a tenth of the amount and a fifth of the hours: what hovers at a limit is told once."""
    if limits.amount is not None and spendable * 10 < limits.amount * 11:
        return False
    return limits.hours_left is None or left_s is None or left_s * 5 >= limits.hours_left * _HOUR_S * 6


_ALERT: Final = """
SELECT coalesce(w.own, false) AS own, CASE WHEN w.own THEN w.amount ELSE m.low_balance_at END AS amount,
  CASE WHEN w.own THEN w.hours_left END AS hours_left, w.low_since, w.reason
FROM books b JOIN merchants m USING (merchant_id) LEFT JOIN balance_alerts w ON w.book_id = b.book_id AND w.currency = $2
WHERE b.book_id = $1
"""

# Other limits are judged afresh; the same again change nothing, so that a repeated request makes no second event.
_SET: Final = """
INSERT INTO balance_alerts AS w (book_id, currency, own, amount, hours_left) VALUES ($1, $2, true, $3, $4)
ON CONFLICT (book_id, currency) DO UPDATE SET own = true, amount = excluded.amount, hours_left = excluded.hours_left,
  low_since = NULL, reason = NULL, updated_at = now()
WHERE NOT w.own OR (w.amount, w.hours_left) IS DISTINCT FROM (excluded.amount, excluded.hours_left)
"""

_TELL: Final = """
INSERT INTO balance_alerts AS w (book_id, currency, own, low_since, reason)
SELECT k.book_id, k.currency, false, now(), k.reason FROM unnest($1::bigint[], $2::text[], $3::text[]) AS k (book_id, currency, reason)
ORDER BY 1, 2
ON CONFLICT (book_id, currency) DO UPDATE SET low_since = now(), reason = excluded.reason, updated_at = now() WHERE w.low_since IS NULL
RETURNING book_id, currency
"""

_FORGET: Final = """
UPDATE balance_alerts w SET low_since = NULL, reason = NULL, updated_at = now()
FROM unnest($1::bigint[], $2::text[]) AS k (book_id, currency) WHERE w.book_id = k.book_id AND w.currency = k.currency
"""


async def get_alert(tx: Tx, book_id: int, currency: str) -> Alert:
    """The limits in force; none set: neither amount nor hours."""
    [row] = await fetch(tx, _ALERT, book_id, currency)
    return Alert(Limits(row["amount"], row["hours_left"], row["own"]), row["low_since"], row["reason"])


async def set_limits(tx: Tx, book_id: int, currency: str, amount: int | None, hours_left: int | None) -> None:
    """The merchant's own, instead of whatever held before; None for both: tell nothing."""
    await execute(tx, _SET, book_id, currency, amount, hours_left)


async def mark_low(tx: Tx, low: Sequence[tuple[int, str, str]]) -> set[tuple[int, str]]:
    """(book, currency, reason) of balances that have crossed. Returns those that had not been marked before: they are to be told."""
    if not low:
        return set()
    rows = await fetch(tx, _TELL, [k[0] for k in low], [k[1] for k in low], [k[2] for k in low])
    return {(r["book_id"], r["currency"]) for r in rows}


async def mark_recovered(tx: Tx, well: Sequence[tuple[int, str]]) -> None:
    """(book, currency) of balances that are well again: the next crossing is told anew."""
    if well:
        await execute(tx, _FORGET, [k[0] for k in well], [k[1] for k in well])
