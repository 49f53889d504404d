"""Statements, read."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Final
from uuid import UUID

import orjson

from kameng_api.kit.db import Tx, fetch
from kameng_api.kit.errors import NotFound, Problem
from kameng_api.kit.ids import public_id
from kameng_api.ledger.rules import AVAILABLE, transaction_id
from kameng_api.statements.rules import Cut, Line


class NotReady(Problem):
    """The day is not over, or its statement is being made."""

    code = "statement_not_ready"

    def __init__(self, detail: str) -> None:
        super().__init__(detail, retry_after_s=300)


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement that was made: the signed bytes and the signature over them."""

    book_id: int
    currency: str
    day: date
    make_id: UUID
    ready_at: datetime
    manifest: bytes
    signature: bytes
    key_id: str

    @property
    def content(self) -> dict[str, Any]:
        """The manifest, read."""
        content: dict[str, Any] = orjson.loads(self.manifest)
        return content


_READY: Final = "book_id, currency, day, make_id, ready_at, manifest, signature, key_id"


async def list_statements(
    tx: Tx, book_id: int, *, currency: str | None = None, before: tuple[date, str] | None = None, limit: int = 20
) -> list[Statement]:
    """Those that are ready, newest day first; `before` is the keyset (day, currency)."""
    rows = await fetch(
        tx,
        f"""SELECT {_READY} FROM statements WHERE book_id = $1 AND ready_at IS NOT NULL AND ($2::text IS NULL OR currency = $2)
          AND ($3::date IS NULL OR (day, currency) < ($3, $4)) ORDER BY day DESC, currency DESC LIMIT $5""",
        book_id, currency, before and before[0], before and before[1], limit,
    )  # fmt: skip
    return [Statement(**r) for r in rows]


@dataclass(frozen=True, slots=True)
class DayCut:
    """A day whose movements are decided, whether its statement is made yet or not. `make_id` names the statement once it is ready."""

    currency: str
    day: date
    timezone: str
    starts_at: datetime
    ends_at: datetime
    from_version: int
    to_version: int
    opening: int
    closing: int
    make_id: UUID | None


_DAY: Final = "currency, day, timezone, starts_at, ends_at, from_version, to_version, opening, closing, make_id"


async def list_newest(tx: Tx, book_id: int, count: int) -> list[DayCut]:
    """The newest days whose statements are ready, newest first."""
    rows = await fetch(
        tx, f"SELECT {_DAY} FROM statements WHERE book_id = $1 AND ready_at IS NOT NULL ORDER BY day DESC, currency LIMIT $2", book_id, count
    )
    return [DayCut(**r) for r in rows]


async def find_cut(tx: Tx, book_id: int, currency: str, upto: date) -> DayCut | None:
    """The newest day that is cut, not later than `upto`."""
    rows = await fetch(
        tx, f"SELECT {_DAY} FROM statements WHERE book_id = $1 AND currency = $2 AND day <= $3 ORDER BY day DESC LIMIT 1", book_id, currency, upto
    )
    return DayCut(**rows[0]) if rows else None


async def get_statement(tx: Tx, book_id: int, currency: str, day: date) -> Statement:
    """Raises NotFound for a day before the merchant's first and for a currency it has no money in; else NotReady."""
    rows = await fetch(
        tx, f"SELECT {_READY} FROM statements WHERE book_id = $1 AND currency = $2 AND day = $3 AND ready_at IS NOT NULL", book_id, currency, day
    )
    if rows:
        return Statement(**rows[0])
    known = await fetch(
        tx,
        """SELECT (m.created_at AT TIME ZONE m.timezone)::date AS first
        FROM accounts a JOIN books b USING (book_id) JOIN merchants m USING (merchant_id)
        WHERE a.book_id = $1 AND a.account = $2 AND a.currency = $3""",
        book_id, AVAILABLE, currency,
    )  # fmt: skip
    if not known or day < known[0]["first"]:
        raise NotFound("no such statement")
    raise NotReady(f"the statement of {day} is made when the day is over and every movement of it has been booked")


async def list_pieces(tx: Tx, statement: Statement, format_: str, first: int, count: int) -> list[bytes]:
    """`count` pieces of a file, from the piece numbered `first`; fewer at its end."""
    rows = await fetch(
        tx,
        "SELECT body FROM statement_chunks WHERE book_id = $1 AND make_id = $2 AND format = $3 AND n >= $4 AND n < $5 ORDER BY n",
        statement.book_id, statement.make_id, format_, first, first + count,
    )  # fmt: skip
    return [r["body"] for r in rows]


_LINES: Final = """
SELECT f.version, f.created_at, f.kind, f.signed, f.after, f.event_key, f.order_id, o.merchant_order_no, o.sku, o.target_masked FROM (
  SELECT debit_version AS version, created_at, kind, -amount AS signed, debit_balance_after AS after, event_key, order_id FROM transfers
  WHERE book_id = $1 AND debit_account = $2 AND currency = $3 AND debit_version > $4 AND debit_version <= $5
  UNION ALL
  SELECT credit_version, created_at, kind, amount, credit_balance_after, event_key, order_id FROM transfers
  WHERE book_id = $1 AND credit_account = $2 AND currency = $3 AND credit_version > $4 AND credit_version <= $5
) AS f LEFT JOIN orders o ON o.book_id = $1 AND o.order_id = f.order_id ORDER BY f.version
"""


async def list_lines(tx: Tx, cut: Cut, after: int, limit: int) -> Sequence[Line]:
    """The next movements of a day; versions are dense, so a range of them is a page. What was posted never changes: no snapshot is needed."""
    upto = min(after + limit, cut.to_version)
    rows = await fetch(tx, _LINES, cut.book_id, AVAILABLE, cut.currency, after, upto)
    return [
        Line(
            version, at, kind, signed, balance, transaction_id(cut.book_id, cut.currency, version, at), key,
            public_id("ord", order_id) if order_id is not None else "", number or "", sku or "", target or "",
        )
        for version, at, kind, signed, balance, key, order_id, number, sku, target in rows
    ]  # fmt: skip


async def list_keys(tx: Tx) -> list[tuple[str, bytes]]:
    """(key id, public key) of every key that ever signed, newest first."""
    rows = await fetch(tx, "SELECT key_id, public_key FROM statement_keys ORDER BY first_used_at DESC, key_id")
    return [(r["key_id"], r["public_key"]) for r in rows]


async def first_unready(tx: Tx) -> datetime | None:
    """The end of the oldest day that was cut and whose statement is not made."""
    [row] = await fetch(tx, "SELECT min(ends_at) AS ends_at FROM statements WHERE ready_at IS NULL")
    ends_at: datetime | None = row["ends_at"]
    return ends_at
