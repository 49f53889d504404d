"""The functions that move money: `(tx, postings) → verdicts`, set-based, each whole or not at all."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Final

from kameng_api.kit import sets
from kameng_api.kit.db import Tx, execute, fetch
from kameng_api.kit.sets import Column, Part
from kameng_api.ledger import rules
from kameng_api.ledger.errors import BooksStopped, InsufficientBalance, Mismatched
from kameng_api.ledger.rules import AccountKey, Balance, Line, Posting, Row, Verdict

_LOCK = """
SELECT a.book_id, a.account, a.currency, a.balance, a.floor, a.version,
  a.book_id IN (SELECT book_id FROM stopped_books WHERE lifted_at IS NULL) AS stopped
FROM unnest($1::bigint[], $2::text[], $3::text[]) AS k (book_id, account, currency)
JOIN accounts a ON a.book_id = k.book_id AND a.account = k.account AND a.currency = k.currency
ORDER BY a.book_id, a.account, a.currency
FOR NO KEY UPDATE OF a
"""

_EXISTING = """
SELECT t.book_id, t.event_key, t.debit_account, t.credit_account, t.amount
FROM unnest($1::bigint[], $2::text[]) AS k (book_id, event_key)
JOIN transfers t ON t.book_id = k.book_id AND t.event_key = k.event_key
ORDER BY t.book_id, t.event_key, t.line
"""

_OPEN_ACCOUNT = """
INSERT INTO accounts (book_id, account, currency, floor) VALUES ($1, $2, $3, 0) ON CONFLICT DO NOTHING
"""

Existing = dict[tuple[int, str], tuple[Line, ...]]


async def lock(tx: Tx, accounts: Sequence[AccountKey]) -> dict[AccountKey, Balance]:
    """Row-lock floor accounts, in sorted order, until `tx` ends. An account that does not exist raises KeyError later."""
    if not accounts:
        return {}
    ordered = sorted(accounts)
    rows = await fetch(tx, _LOCK, [a[0] for a in ordered], [a[1] for a in ordered], [a[2] for a in ordered])
    return {(r["book_id"], r["account"], r["currency"]): Balance(r["balance"], r["floor"], r["version"], r["stopped"]) for r in rows}


async def post(tx: Tx, postings: Sequence[Posting]) -> list[Verdict]:
    """Post a batch of events. One verdict each: Posted, Existed, Mismatch, Insufficient or Stopped. Raises BooksStopped, see `_GUARD`.

    An event key taken by a concurrent posting that touches no floor account raises the database's unique violation: run the batch again.
    """
    verdicts, parts = await prepare(tx, postings)
    await sets.write(tx, parts)
    return verdicts


async def prepare(tx: Tx, postings: Sequence[Posting]) -> tuple[list[Verdict], list[Part]]:
    """`post` up to the writing: the verdicts, and the parts that the caller must write in this transaction, or raise.

    Locks come first; what already exists is read after them, in a new snapshot, so two flushes with one key never both write.
    """
    if not postings:
        return [], []
    balances = await lock(tx, rules.accounts_touched(postings))
    verdicts, rows, changed = rules.decide(postings, balances, await find_existing(tx, postings))
    return verdicts, parts_of(rows, changed)


def parts_of_new(postings: Sequence[Posting]) -> list[Part]:
    """Events that cannot exist yet and touch no floor account: nothing to look up and nothing to lock. A key that is taken raises."""
    assert not rules.touches_a_floor(postings), "a floor account must be locked"
    return parts_of(rules.rows_of_new(postings), {})


async def post_one(tx: Tx, posting: Posting) -> rules.Posted | rules.Existed:
    """Post a single event. Raises InsufficientBalance, Mismatched, BooksStopped."""
    [verdict] = await post(tx, [posting])
    match verdict:
        case rules.Insufficient(account=account):
            raise InsufficientBalance(f"{account} would fall below its floor")
        case rules.Mismatch():
            raise Mismatched("this event was already posted with other content")
        case rules.Stopped():
            raise BooksStopped
        case _:
            return verdict


async def find_existing(tx: Tx, postings: Sequence[Posting]) -> Existing:
    """Lines already posted under these keys."""
    rows = await fetch(tx, _EXISTING, [p.book_id for p in postings], [p.event_key for p in postings])
    found: Existing = {}
    for r in rows:
        key = (r["book_id"], r["event_key"])
        found[key] = (*found.get(key, ()), Line(r["debit_account"], r["credit_account"], r["amount"]))
    return found


async def post_locked(tx: Tx, postings: Sequence[Posting], balances: Mapping[AccountKey, Balance]) -> list[Verdict]:
    """`post` for a caller who holds the locks and knows that none of these events exists. Raises BooksStopped."""
    verdicts, rows, changed = rules.decide(postings, balances, {})
    if any(isinstance(v, rules.Stopped) for v in verdicts):
        raise BooksStopped
    await sets.write(tx, parts_of(rows, changed))
    return verdicts


def parts_of(rows: Sequence[Row], changed: Mapping[AccountKey, Balance]) -> list[Part]:
    """How to store what `rules.decide` decided, under the locks that `lock` took in this transaction."""
    parts: list[Part] = []
    if changed:
        keys = list(changed)
        parts.append(
            sets.updating(
                "accounts",
                [
                    Column("account", "text", [k[1] for k in keys]),
                    Column("book_id", "bigint", [k[0] for k in keys]),
                    Column("currency", "text", [k[2] for k in keys]),
                ],
                [
                    Column("balance", "bigint", [changed[k].balance for k in keys]),
                    Column("version", "bigint", [changed[k].version for k in keys]),
                ],
            )
        )
    if rows:
        parts.append(_transfers(rows))
    return parts


# Every posting passes here, so here, inside its own transaction, is where a stopped book refuses it. While no book is stopped this is one look
# at an empty index per statement: an uncorrelated sub-select, evaluated once. Those who lock floor accounts have heard it from the lock before.
_GUARD: Final = """
 WHERE NOT EXISTS (SELECT FROM stopped_books WHERE lifted_at IS NULL)
  OR CASE WHEN {book} IN (SELECT book_id FROM stopped_books WHERE lifted_at IS NULL) AND {kind} <> 'adjustment'
    THEN refuse_stopped_book({book}) ELSE true END"""


def _transfers(rows: Sequence[Row]) -> Part:
    postings = [r.posting for r in rows]
    lines = [r.line for r in rows]
    part = sets.inserting(
        "transfers",
        [
            Column("event_key", "text", [p.event_key for p in postings]),
            Column("book_id", "bigint", [p.book_id for p in postings]),
            Column("line", "smallint", [r.line_no for r in rows]),
            Column("kind", "text", [p.kind for p in postings]),
            Column("debit_account", "text", [line.debit for line in lines]),
            Column("credit_account", "text", [line.credit for line in lines]),
            Column("currency", "text", [p.currency for p in postings]),
            Column("amount", "bigint", [line.amount for line in lines]),
            Column("debit_balance_after", "bigint", [r.debit_balance_after for r in rows]),
            Column("debit_version", "bigint", [r.debit_version for r in rows]),
            Column("credit_balance_after", "bigint", [r.credit_balance_after for r in rows]),
            Column("credit_version", "bigint", [r.credit_version for r in rows]),
            Column("order_id", "uuid", [p.order_id for p in postings]),
            Column("note", "text", [p.note for p in postings]),
        ],
    )
    return replace(part, sql=part.sql + _guard(part.sql), refusal=BooksStopped)


@lru_cache(maxsize=64)
def _guard(insert: str) -> str:
    # Book and kind are the second and the fourth column: an array's element, or one value where all rows share it.
    return _GUARD.format(
        book="k.book_id" if "k.book_id" in insert else "$2::bigint", kind="k.kind" if "k.kind" in insert else "$4::text"
    )


async def open_book(tx: Tx, book_id: int, currency: str) -> None:
    """Create the floor accounts of a merchant's book, so that there is always a row to lock."""
    for account in sorted(rules.FLOOR_ACCOUNTS):
        await execute(tx, _OPEN_ACCOUNT, book_id, account, currency)


async def set_credit_line(tx: Tx, book_id: int, currency: str, limit: int) -> None:
    """Let the spendable balance fall to minus `limit` (1/10000 units). Raises InsufficientBalance when it is already lower."""
    key = (book_id, rules.AVAILABLE, currency)
    balance = (await lock(tx, [key]))[key]
    if balance.balance < -limit:
        raise InsufficientBalance("the credit line already used is larger than the new limit")
    await execute(
        tx,
        "UPDATE accounts SET floor = $4 WHERE book_id = $1 AND account = $2 AND currency = $3",
        book_id, rules.AVAILABLE, currency, -limit,
    )  # fmt: skip


_RECEIPT = """
INSERT INTO funding_receipts (channel, external_id, book_id, amount, currency) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT DO NOTHING
"""


async def record_receipt(tx: Tx, channel: str, external_id: str, book_id: int, currency: str, amount: int) -> bool:
    """One bank transaction credits one merchant. True when new or identical to what is known; raises Mismatched otherwise."""
    if await execute(tx, _RECEIPT, channel, external_id, book_id, amount, currency):
        return True
    [known] = await fetch(
        tx,
        "SELECT book_id, amount, currency FROM funding_receipts WHERE channel = $1 AND external_id = $2",
        channel, external_id,
    )  # fmt: skip
    if (known["book_id"], known["amount"], known["currency"]) != (book_id, amount, currency):
        raise Mismatched("this receipt was already booked with another merchant or amount")
    return True


_ROLL_UP = """
WITH mark AS (
  SELECT upto_xid, xid_horizon() AS horizon
  FROM rollup_marks WHERE book_range = 0
), moved AS (
  SELECT t.book_id, t.debit_account AS account, t.currency, t.amount AS debits, 0::bigint AS credits
  FROM transfers t, mark WHERE t.xid >= mark.upto_xid AND t.xid < mark.horizon
  UNION ALL
  SELECT t.book_id, t.credit_account, t.currency, 0, t.amount
  FROM transfers t, mark WHERE t.xid >= mark.upto_xid AND t.xid < mark.horizon
), summed AS (
  INSERT INTO rollups AS r (book_id, account, currency, debits, credits)
  SELECT book_id, account, currency, sum(debits), sum(credits) FROM moved
  WHERE account <> ALL ($1::text[]) GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
  ON CONFLICT (book_id, account, currency)
  DO UPDATE SET debits = r.debits + excluded.debits, credits = r.credits + excluded.credits
  RETURNING 1
)
UPDATE rollup_marks SET upto_xid = mark.horizon FROM mark
WHERE book_range = 0 AND mark.horizon > rollup_marks.upto_xid
"""


async def roll_up(tx: Tx) -> bool:
    """Add transfers below the transaction horizon to the sums of accounts without a floor. False when another process is at it."""
    mine = await fetch(tx, "SELECT 1 FROM rollup_marks WHERE book_range = 0 FOR UPDATE SKIP LOCKED")
    if not mine:
        return False
    await execute(tx, _ROLL_UP, sorted(rules.FLOOR_ACCOUNTS))
    return True
