"""Operators, approvals and the audit trail as rows; and where in the books an order stands."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from asyncpg import Record

from kameng_api.kit.db import Tx, fetch
from kameng_api.kit.errors import NotFound
from kameng_api.operators.rules import Approval, Operator

Row = Mapping[str, Any]

_OPERATOR = "operator_id, name, role, expires_at, revoked_at, last_used_at, created_at"
# As text: what a driver makes of jsonb is its own affair.
_APPROVAL = "approval_id, action, arguments::text AS arguments, state, made_by, decided_by, created_at, decided_at"


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """Who did what to what, with which facts."""

    entry_id: UUID
    actor: str
    action: str
    subject: str
    facts: Mapping[str, Any]
    request_id: str | None
    at: datetime


async def find_operator_by_token(tx: Tx, token_hash: bytes) -> Operator | None:
    rows = await fetch(tx, f"SELECT {_OPERATOR} FROM operators WHERE token_hash = $1", token_hash)
    return Operator(**rows[0]) if rows else None


async def find_operator(tx: Tx, name: str) -> Operator | None:
    rows = await fetch(tx, f"SELECT {_OPERATOR} FROM operators WHERE name = $1", name)
    return Operator(**rows[0]) if rows else None


async def list_operators(tx: Tx) -> list[Operator]:
    """Everybody who ever had a token, oldest first."""
    return [Operator(**row) for row in await fetch(tx, f"SELECT {_OPERATOR} FROM operators ORDER BY operator_id")]


async def get_approval(tx: Tx, approval_id: UUID, *, lock: bool = False) -> Approval:
    """Raises NotFound. `lock` keeps the row until `tx` ends."""
    ending = " FOR UPDATE" if lock else ""
    rows = await fetch(tx, f"SELECT {_APPROVAL} FROM approvals WHERE approval_id = $1{ending}", approval_id)
    if not rows:
        raise NotFound("no such approval")
    return _approval(rows[0])


async def find_approval(tx: Tx, action: str, number: str) -> Approval | None:
    """The one under this number that was not rejected."""
    rows = await fetch(
        tx,
        f"SELECT {_APPROVAL} FROM approvals WHERE action = $1 AND arguments ->> 'number' = $2 AND state <> 'rejected'",
        action, number,
    )  # fmt: skip
    return _approval(rows[0]) if rows else None


async def list_approvals(tx: Tx, *, state: str | None, before: UUID | None, limit: int) -> list[Approval]:
    """Newest first; `before` is the last id of the page before."""
    rows = await fetch(
        tx,
        f"""SELECT {_APPROVAL} FROM approvals
        WHERE ($1::text IS NULL OR state = $1) AND ($2::uuid IS NULL OR approval_id < $2)
        ORDER BY approval_id DESC LIMIT $3""",
        state, before, limit,
    )  # fmt: skip
    return [_approval(row) for row in rows]


def _approval(row: Record) -> Approval:
    return Approval(**{**row, "arguments": orjson.loads(row["arguments"])})


async def list_audit(tx: Tx, *, subject: str | None, actor: str | None, before: UUID | None, limit: int) -> list[AuditEntry]:
    """Newest first; `before` is the last id of the page before."""
    rows = await fetch(
        tx,
        """SELECT entry_id, actor, action, subject, facts::text AS facts, request_id, at FROM audit_entries
        WHERE ($1::text IS NULL OR subject = $1) AND ($2::text IS NULL OR actor = $2)
          AND ($3::uuid IS NULL OR entry_id < $3)
        ORDER BY entry_id DESC LIMIT $4""",
        subject, actor, before, limit,
    )  # fmt: skip
    return [AuditEntry(**{**row, "facts": orjson.loads(row["facts"])}) for row in rows]


# An order's id does not say its book: one look per book, each by the primary key.
_OF_ORDER = """
SELECT b.book_id, b.environment, b.merchant_id, o.currency FROM books b,
  LATERAL (SELECT currency FROM orders WHERE book_id = b.book_id AND order_id = $1 LIMIT 1) AS o
"""


@dataclass(frozen=True, slots=True)
class Place:
    """The book an order stands in."""

    book_id: int
    environment: str
    merchant_id: UUID
    currency: str


async def get_place(tx: Tx, order_id: UUID) -> Place:
    """Raises NotFound."""
    rows = await fetch(tx, _OF_ORDER, order_id)
    if not rows:
        raise NotFound("no such order")
    return Place(**rows[0])


_ORDERS = """
SELECT found.*, b.merchant_id, m.name AS merchant_name FROM books b JOIN merchants m ON m.merchant_id = b.merchant_id,
  LATERAL (
    SELECT o.book_id, o.order_id, o.merchant_order_no, o.environment, o.status, o.substatus, o.version, o.sku,
      o.product_type, o.quantity, o.delivered_units, o.target_masked, o.unit_price, o.amount, o.captured, o.refunded,
      o.currency, o.failure_code, o.receipt, o.review, o.deadline_at, o.created_at, o.dispatched_at, o.delivered_at,
      o.completed_at
    FROM orders o
    WHERE o.book_id = b.book_id AND ($3::uuid IS NULL OR o.order_id < $3) {where}
    ORDER BY o.order_id DESC LIMIT $4
  ) AS found
WHERE ($1::uuid IS NULL OR b.merchant_id = $1) AND ($2::text IS NULL OR b.environment = $2)
ORDER BY found.order_id DESC LIMIT $4
"""


async def list_orders(
    tx: Tx,
    *,
    merchant_id: UUID | None = None,
    environment: str | None = None,
    order_id: UUID | None = None,
    merchant_order_no: str | None = None,
    status: str | None = None,
    review: bool = False,
    before: UUID | None = None,
    limit: int = 50,
) -> list[Row]:
    """Orders of one or all merchants, newest first; each with its merchant's id and name.

    One index walk per book, so `status` without a merchant should be an open one (the caller sees to it).
    """
    where, values = [], []
    for column, value in (("order_id", order_id), ("merchant_order_no", merchant_order_no), ("status", status)):
        if value is not None:
            values.append(value)
            where.append(f"AND o.{column} = ${4 + len(values)}")
    if review:
        where.append("AND o.substatus = 'manual_review'")
    elif status in ("accepted", "processing"):
        where.append("AND o.status IN ('accepted', 'processing')")  # says to the planner: the index of open orders
    sql = _ORDERS.format(where=" ".join(where))
    rows = await fetch(tx, sql, merchant_id, environment, before, limit, *values)
    return [dict(row) for row in rows]


async def list_attempts(tx: Tx, book_id: int, order_id: UUID) -> list[Row]:
    """What was tried for an order, in order."""
    rows = await fetch(
        tx,
        """SELECT attempt_id, n, channel_id, product_code, units, delivered_units, state, currency, cost, actual_cost,
          reference, supplier_order_no, refusal, reason, trouble, look_ups, reversed_amount, sent_at, unknown_since,
          settled_at
        FROM attempts WHERE book_id = $1 AND order_id = $2 ORDER BY n""",
        book_id, order_id,
    )  # fmt: skip
    return [dict(row) for row in rows]


async def list_transfers(tx: Tx, book_id: int, event_keys: Sequence[str]) -> list[Row]:
    """What the books say under these events."""
    rows = await fetch(
        tx,
        """SELECT event_key, line, kind, debit_account, credit_account, currency, amount, created_at
        FROM transfers WHERE book_id = $1 AND event_key = ANY ($2::text[]) ORDER BY created_at, event_key, line""",
        book_id, list(event_keys),
    )  # fmt: skip
    return [dict(row) for row in rows]


async def list_late_transfers(tx: Tx, book_id: int, attempt: str) -> list[Row]:
    """Reversals and late successes of one attempt (its key up to the step); their keys end in the supplier's number."""
    rows = await fetch(
        tx,
        """SELECT event_key, line, kind, debit_account, credit_account, currency, amount, created_at
        FROM transfers WHERE book_id = $1 AND (event_key LIKE $2 || ':reversal:%' OR event_key LIKE $2 || ':late:%')
        ORDER BY created_at, event_key, line""",
        book_id, attempt,
    )  # fmt: skip
    return [dict(row) for row in rows]


async def list_parked(tx: Tx, *, after: tuple[int, str, UUID] | None, limit: int) -> list[Row]:
    """Work that was given up and waits for a person, by (book, lane, ref)."""
    book_id, lane, ref = after or (0, "", UUID(int=0))
    rows = await fetch(
        tx,
        """SELECT book_id, lane, ref, attempts, trouble, run_at, created_at FROM tasks
        WHERE state = 'parked' AND (book_id, lane, ref) > ($1, $2, $3) ORDER BY book_id, lane, ref LIMIT $4""",
        book_id, lane, ref, limit,
    )  # fmt: skip
    return [dict(row) for row in rows]


async def list_incidents(tx: Tx, *, only_open: bool, before: UUID | None, limit: int) -> list[Row]:
    """Facts that contradict each other, newest first."""
    rows = await fetch(
        tx,
        """SELECT book_id, incident_id, order_id, attempt_id, kind, detail, severity, at, closed_at, closed_by
        FROM incidents WHERE (NOT $1 OR closed_at IS NULL) AND ($2::uuid IS NULL OR incident_id < $2)
        ORDER BY incident_id DESC LIMIT $3""",
        only_open, before, limit,
    )  # fmt: skip
    return [dict(row) for row in rows]
