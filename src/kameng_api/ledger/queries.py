"""What stands in the books."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from kameng_api.kit.db import Tx, fetch
from kameng_api.ledger import rules

_FLOORS = "SELECT account, balance, floor FROM accounts WHERE book_id = $1 AND currency = $2"

# One statement, one snapshot: what is rolled up, plus everything since.
_SUM = """
SELECT coalesce((SELECT credits - debits FROM rollups WHERE book_id = $1 AND account = $2 AND currency = $3), 0)
     + coalesce((SELECT sum(CASE WHEN t.credit_account = $2 THEN t.amount ELSE -t.amount END)
                 FROM transfers t
                 WHERE t.book_id = $1 AND t.currency = $3 AND (t.credit_account = $2 OR t.debit_account = $2)
                   AND t.xid >= (SELECT upto_xid FROM rollup_marks WHERE book_range = 0)), 0)::bigint AS sum
"""

_FLOW = """
SELECT * FROM (
  (SELECT event_key, line, kind, -amount AS signed, debit_balance_after AS after, debit_version AS version, order_id,
     created_at
   FROM transfers WHERE book_id = $1 AND debit_account = $2 AND currency = $3 AND debit_version < $4
   ORDER BY debit_version DESC LIMIT $5)
  UNION ALL
  (SELECT event_key, line, kind, amount, credit_balance_after, credit_version, order_id, created_at
   FROM transfers WHERE book_id = $1 AND credit_account = $2 AND currency = $3 AND credit_version < $4
   ORDER BY credit_version DESC LIMIT $5)
) AS flow ORDER BY version DESC LIMIT $5
"""


@dataclass(frozen=True, slots=True)
class MerchantBalance:
    """All amounts in 1/10000 units; `credit_limit` ≥ 0 is how far `available` may go below zero."""

    currency: str
    available: int
    held: int
    credit_limit: int
    deposit: int
    frozen: int


@dataclass(frozen=True, slots=True)
class Movement:
    """One line of a merchant's fund flow (资金流水): `amount` signed, `balance_after` running."""

    version: int
    event_key: str
    kind: str
    amount: int
    balance_after: int
    order_id: UUID | None
    created_at: datetime


async def get_balance(tx: Tx, book_id: int, currency: str) -> MerchantBalance:
    """The merchant's balance, exact at this snapshot."""
    floors = {r["account"]: r for r in await fetch(tx, _FLOORS, book_id, currency)}
    available = floors[rules.AVAILABLE]
    return MerchantBalance(
        currency=currency,
        available=available["balance"],
        held=await sum_of(tx, book_id, rules.HELD, currency),
        credit_limit=-available["floor"],
        deposit=floors[rules.DEPOSIT]["balance"],
        frozen=floors[rules.FROZEN]["balance"],
    )


async def sum_of(tx: Tx, book_id: int, account: str, currency: str) -> int:
    """Credits minus debits of an account without a floor, exact: rolled up plus everything since."""
    [row] = await fetch(tx, _SUM, book_id, account, currency)
    return int(row["sum"])


async def list_movements(
    tx: Tx, book_id: int, currency: str, *, before_version: int | None, limit: int
) -> Sequence[Movement]:
    """Fund flow of the spendable balance, newest first; `before_version` is the keyset."""
    rows = await fetch(tx, _FLOW, book_id, rules.AVAILABLE, currency, before_version or 2**62, limit)
    return [
        Movement(r["version"], r["event_key"], r["kind"], r["signed"], r["after"], r["order_id"], r["created_at"])
        for r in rows
    ]


@dataclass(frozen=True, slots=True)
class Place:
    """Between two movements of the spendable balance: how many there were before, and the balance they led to."""

    version: int
    balance: int


_PLACE = """
SELECT version, after FROM (
  (SELECT debit_version AS version, debit_balance_after AS after FROM transfers
   WHERE book_id = $1 AND debit_account = $2 AND currency = $3 AND debit_version IS NOT NULL AND created_at < $4
   ORDER BY debit_version DESC LIMIT 1)
  UNION ALL
  (SELECT credit_version, credit_balance_after FROM transfers
   WHERE book_id = $1 AND credit_account = $2 AND currency = $3 AND credit_version IS NOT NULL AND created_at < $4
   ORDER BY credit_version DESC LIMIT 1)
) AS last ORDER BY version DESC LIMIT 1
"""


async def find_place(tx: Tx, book_id: int, currency: str, before: datetime) -> Place:
    """After the last movement that was booked before a moment, and everything the ledger put before it."""
    rows = await fetch(tx, _PLACE, book_id, rules.AVAILABLE, currency, before)
    return Place(rows[0]["version"], rows[0]["after"]) if rows else Place(0, 0)


async def find_end(tx: Tx, book_id: int, currency: str) -> Place | None:
    """After the newest movement; None for a currency in which the book has no money."""
    rows = await fetch(
        tx, "SELECT version, balance FROM accounts WHERE book_id = $1 AND account = $2 AND currency = $3", book_id, rules.AVAILABLE, currency
    )
    return Place(rows[0]["version"], rows[0]["balance"]) if rows else None


async def find_note(tx: Tx, book_id: int, event_key: str) -> str | None:
    """The note of the event posted under this key, "" for one without; None when the key is free."""
    rows = await fetch(
        tx, "SELECT note FROM transfers WHERE book_id = $1 AND event_key = $2 AND line = 0", book_id, event_key
    )
    return (rows[0]["note"] or "") if rows else None


async def house_sums(tx: Tx, environment: str) -> dict[tuple[str, str], int]:
    """(account, currency) → credits minus debits over all books of one environment, for accounts without a floor."""
    rows = await fetch(
        tx,
        """
        SELECT account, currency, sum(net)::bigint AS net FROM (
          SELECT r.account, r.currency, r.credits - r.debits AS net
          FROM rollups r JOIN books b USING (book_id) WHERE b.environment = $1
          UNION ALL
          SELECT x.account, t.currency, x.net FROM transfers t JOIN books b USING (book_id),
            LATERAL (VALUES (t.debit_account, -t.amount), (t.credit_account, t.amount)) AS x (account, net)
          WHERE b.environment = $1 AND t.xid >= (SELECT upto_xid FROM rollup_marks WHERE book_range = 0)
            AND x.account <> ALL ($2::text[])
        ) AS s GROUP BY 1, 2 ORDER BY 1, 2
        """,
        environment,
        sorted(rules.FLOOR_ACCOUNTS),
    )
    return {(r["account"], r["currency"]): r["net"] for r in rows}


@dataclass(frozen=True, slots=True)
class Breach:
    """An invariant of the books that does not hold. What `detail` says before the first `;` stays the same while the breach does."""

    invariant: str
    book_id: int
    detail: str

    @property
    def mark(self) -> str:
        """The same for the same breach seen again, however much has been posted since."""
        return f"{self.invariant}: {self.detail.partition(';')[0]}"


_CHECKS = {
    # I2: the locked balance is the sum of its transfers, and `version` counts them.
    "balance_is_sum": """
        SELECT a.book_id, a.account || ' ' || a.currency || ': balance off by ' || a.balance - coalesce(s.net, 0)
          || ', version by ' || a.version - coalesce(s.n, 0) || '; balance ' || a.balance || ', version ' || a.version AS detail
        FROM accounts a LEFT JOIN (
          SELECT book_id, account, currency, sum(net) AS net, count(*) AS n FROM (
            SELECT book_id, debit_account AS account, currency, -amount AS net FROM transfers
            WHERE debit_version IS NOT NULL
            UNION ALL
            SELECT book_id, credit_account, currency, amount FROM transfers WHERE credit_version IS NOT NULL
          ) AS moves GROUP BY 1, 2, 3
        ) AS s USING (book_id, account, currency)
        WHERE a.balance <> coalesce(s.net, 0) OR a.version <> coalesce(s.n, 0)""",
    # I1: running balances chain without a gap.
    "chain": """
        SELECT book_id, account || ' ' || currency || ' at version ' || version AS detail FROM (
          SELECT *, lag(after, 1, 0) OVER w AS before, lag(version, 1, 0) OVER w AS previous FROM (
            SELECT book_id, debit_account AS account, currency, debit_version AS version, -amount AS net,
              debit_balance_after AS after FROM transfers WHERE debit_version IS NOT NULL
            UNION ALL
            SELECT book_id, credit_account, currency, credit_version, amount, credit_balance_after
            FROM transfers WHERE credit_version IS NOT NULL
          ) AS moves WINDOW w AS (PARTITION BY book_id, account, currency ORDER BY version)
        ) AS chained WHERE after <> before + net OR version <> previous + 1""",
    # A transfer that touches a floor account carries its balance; others carry none.
    "floor_marks": """
        SELECT book_id, event_key AS detail FROM transfers
        WHERE (debit_account = ANY ($1::text[])) <> (debit_version IS NOT NULL)
           OR (credit_account = ANY ($1::text[])) <> (credit_version IS NOT NULL)""",
    # Rolled-up sums equal the transfers below the mark.
    "rollup_is_sum": """
        SELECT book_id, account || ' ' || currency || ': debits off by ' || coalesce(r.debits, 0) - coalesce(s.debits, 0)
          || ', credits by ' || coalesce(r.credits, 0) - coalesce(s.credits, 0) AS detail
        FROM rollups r FULL JOIN (
          SELECT t.book_id, x.account, t.currency, sum(x.debits) AS debits, sum(x.credits) AS credits
          FROM transfers t, LATERAL (VALUES (t.debit_account, t.amount, 0::bigint),
            (t.credit_account, 0::bigint, t.amount)) AS x (account, debits, credits)
          WHERE t.xid < (SELECT upto_xid FROM rollup_marks WHERE book_range = 0) AND x.account <> ALL ($1::text[])
          GROUP BY 1, 2, 3
        ) AS s USING (book_id, account, currency)
        WHERE coalesce(r.debits, 0) <> coalesce(s.debits, 0) OR coalesce(r.credits, 0) <> coalesce(s.credits, 0)""",
    # Funding in transit clears to zero, per environment and currency: the house's half, or the merchant's, is missing; the house answers for it.
    "funding_clears": """
        SELECT CASE b.environment WHEN 'live' THEN 1 ELSE 2 END AS book_id,
          b.environment || ' ' || t.currency || ' funding_clearing is off by '
            || sum(CASE WHEN t.debit_account = 'funding_clearing' THEN -t.amount ELSE t.amount END) AS detail
        FROM transfers t JOIN books b USING (book_id)
        WHERE 'funding_clearing' IN (t.debit_account, t.credit_account)
        GROUP BY b.environment, t.currency
        HAVING sum(CASE WHEN t.debit_account = 'funding_clearing' THEN -t.amount ELSE t.amount END) <> 0""",
}


async def list_breaches(tx: Tx) -> list[Breach]:
    """Check the whole of the books; empty means that they hold. Reads every transfer."""
    breaches = []
    for name, sql in _CHECKS.items():
        values = [sorted(rules.FLOOR_ACCOUNTS)] if "$1" in sql else []
        breaches += [Breach(name, r["book_id"], r["detail"]) for r in await fetch(tx, sql, *values)]
    return breaches
