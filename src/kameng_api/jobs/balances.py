"""Tells merchants that their money runs low: once per crossing, and again after it has recovered.

Reads what the ledger keeps anyway (balances, rolled-up sums); nothing is added to the way of an order. Killed at any moment, it says nothing
twice: the mark that somebody was told and the event stand in one transaction.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from kameng_api.jobs.upkeep import Chore, Desk, is_my_turn, stamp
from kameng_api.kit.db import Tx, fetch
from kameng_api.kit.ids import public_id
from kameng_api.kit.money import format_amount
from kameng_api.ledger import burning
from kameng_api.ledger import queries as ledger
from kameng_api.ledger.forecast import Rates, outlook, seconds_left
from kameng_api.ledger.rules import AVAILABLE
from kameng_api.merchants import alerts
from kameng_api.merchants.alerts import Limits
from kameng_api.outbox import actions as outbox
from kameng_api.outbox.rules import Fact, fact_of

_SAMPLE_S: Final = 300.0
_TELL_S: Final = 10.0
_TOLD_AT_ONCE: Final = 500
LOW: Final = "balance.low"

# Everything that is watched, with all that decides: one statement, whatever the number of merchants. A book that never had any money cannot
# run low.
_WATCHED: Final = """
SELECT a.book_id, a.currency, b.merchant_id, a.balance - a.floor AS spendable, a.version, w.low_since IS NOT NULL AS low,
  coalesce(w.own, false) AS own, CASE WHEN w.own THEN w.amount ELSE m.low_balance_at END AS amount,
  CASE WHEN w.own THEN w.hours_left END AS hours_left,
  coalesce(r.last_hour, 0) AS last_hour, coalesce(r.last_day, 0) AS last_day, coalesce(r.last_week, 0) AS last_week, now() AS now
FROM accounts a JOIN books b USING (book_id) JOIN merchants m USING (merchant_id)
LEFT JOIN balance_alerts w ON w.book_id = a.book_id AND w.currency = a.currency
LEFT JOIN burn_rates r ON r.book_id = a.book_id AND r.currency = a.currency
WHERE a.account = $1 AND a.version > 0 AND (w.low_since IS NOT NULL OR CASE WHEN w.own THEN w.hours_left IS NOT NULL OR a.balance - a.floor < w.amount
  ELSE a.balance - a.floor < m.low_balance_at END)
ORDER BY 1, 2
"""


@dataclass(frozen=True, slots=True)
class Watched:
    """One spendable balance, its limits and its rates."""

    book_id: int
    currency: str
    merchant_id: UUID
    spendable: int
    version: int
    low: bool
    limits: Limits
    rates: Rates
    now: datetime

    @property
    def key(self) -> tuple[int, str]:
        return self.book_id, self.currency

    @property
    def left_s(self) -> int | None:
        return seconds_left(self.spendable, self.rates)


async def sample(desk: Desk) -> int:
    """Note what the books have spent, and how fast. Returns how many had spent anything."""
    async with desk.db.transaction() as tx:
        if not await is_my_turn(tx, "sample_balances", _SAMPLE_S):
            return 0
        changed = await burning.sample(tx)
        await stamp(tx, "sample_balances")
    return changed


async def tell(desk: Desk) -> int:
    """One round: who has crossed a limit is told, who has recovered may be told again. Returns how many were told."""
    async with desk.db.transaction() as tx:
        if not await is_my_turn(tx, "tell_balances", _TELL_S):
            return 0
        watched = [_watched(row) for row in await fetch(tx, _WATCHED, AVAILABLE)]
        await alerts.mark_recovered(tx, [w.key for w in watched if w.low and alerts.recovered(w.limits, w.spendable, w.left_s)])
        found = [(w, reason) for w in watched if not w.low and (reason := alerts.crossed(w.limits, w.spendable, w.left_s)) is not None]
        told = await _tell(tx, found[:_TOLD_AT_ONCE])
        await stamp(tx, "tell_balances")
    return told


async def _tell(tx: Tx, found: Sequence[tuple[Watched, str]]) -> int:
    new = await alerts.mark_low(tx, [(w.book_id, w.currency, reason) for w, reason in found])
    facts = [await _fact(tx, w, reason) for w, reason in found if w.key in new]
    await outbox.record(tx, facts)
    return len(facts)


async def _fact(tx: Tx, watched: Watched, reason: str) -> Fact:
    balance = await ledger.get_balance(tx, watched.book_id, watched.currency)
    shown = {
        "currency": balance.currency,
        "available": format_amount(balance.available),
        "held": format_amount(balance.held),
        "credit_limit": format_amount(balance.credit_limit),
        "deposit": format_amount(balance.deposit),
        "frozen": format_amount(balance.frozen),
        "reason": reason,
        "amount": None if watched.limits.amount is None else format_amount(watched.limits.amount),
        "hours_left": watched.limits.hours_left,
        **outlook(watched.spendable, watched.rates, watched.now),
    }
    return fact_of(watched.book_id, LOW, public_id("mer", watched.merchant_id), watched.version, shown)


def _watched(row: Any) -> Watched:
    return Watched(
        row["book_id"], row["currency"], row["merchant_id"], row["spendable"], row["version"], row["low"],
        Limits(row["amount"], row["hours_left"], row["own"]), Rates(row["last_hour"], row["last_day"], row["last_week"]), row["now"],
    )  # fmt: skip


CHORES: Final[tuple[Chore, ...]] = (
    Chore("sample_balances", _SAMPLE_S, sample),
    Chore("tell_balances", _TELL_S, tell),
)
