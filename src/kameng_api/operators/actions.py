"""Operators and their tokens, decisions by two people, and the audit trail."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import orjson

from kameng_api.kit.db import Tx, execute, fetch
from kameng_api.kit.errors import FieldError, Invalid, NotFound, StateConflict
from kameng_api.kit.ids import new_ulid
from kameng_api.operators import queries, rules
from kameng_api.operators.errors import RoleTooSmall, TokenInvalid
from kameng_api.operators.rules import Approval, Operator

_NOTED_EVERY = timedelta(minutes=1)


async def audit(tx: Tx, actor: str, action: str, subject: str, facts: Mapping[str, Any] | None = None, request_id: str | None = None) -> None:
    """Who did what, in the transaction that did it. `facts` are JSON values and never hold a secret."""
    await execute(
        tx,
        """INSERT INTO audit_entries (entry_id, actor, action, subject, facts, request_id)
        VALUES ($1, $2, $3, $4, $5::text::jsonb, $6)""",
        new_ulid(), actor, action, subject, orjson.dumps(facts or {}).decode(), request_id,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class NewOperator:
    """An operator just made; the token is shown now or never."""

    operator: Operator
    token: str = field(repr=False)


async def create_operator(tx: Tx, name: str, role: str, *, expires_at: datetime | None = None) -> NewOperator:
    """Raises Invalid, StateConflict: a name is never given twice, since approvals name people."""
    errors = rules.check_operator(name, role)
    if errors:
        raise Invalid("an operator cannot look like this", errors=errors)
    token = rules.new_token()
    made = await execute(
        tx,
        """INSERT INTO operators (operator_id, name, role, token_hash, expires_at) VALUES ($1, $2, $3, $4, $5)
        ON CONFLICT (name) DO NOTHING""",
        new_ulid(), name, role, rules.hash_token(token), expires_at,
    )  # fmt: skip
    if not made:
        raise StateConflict("an operator of this name exists")
    operator = await queries.find_operator(tx, name)
    assert operator is not None
    return NewOperator(operator, token)


async def revoke_operator(tx: Tx, name: str) -> Operator:
    """The token ends at once. Again: nothing changes. Raises NotFound."""
    await execute(tx, "UPDATE operators SET revoked_at = now() WHERE name = $1 AND revoked_at IS NULL", name)
    operator = await queries.find_operator(tx, name)
    if operator is None:
        raise NotFound("no such operator")
    return operator


async def authenticate(tx: Tx, token: str, now: datetime) -> Operator:
    """The operator behind a bearer token. Raises TokenInvalid."""
    operator = None
    if rules.TOKEN.fullmatch(token):
        operator = await queries.find_operator_by_token(tx, rules.hash_token(token))
    if operator is None or not rules.is_active(operator, now):
        raise TokenInvalid
    if operator.last_used_at is None or now - operator.last_used_at > _NOTED_EVERY:
        await execute(tx, "UPDATE operators SET last_used_at = $2 WHERE operator_id = $1", operator.operator_id, now)
    return operator


def require(operator: Operator, permission: str) -> None:
    """Raises RoleTooSmall."""
    if not rules.allows(operator.role, permission):
        raise RoleTooSmall(f"the role {operator.role} may not do this; it takes {permission}")


async def ask_approval(tx: Tx, action: str, arguments: Mapping[str, Any], made_by: str) -> Approval:
    """Put a movement before a second person. The caller holds the movement's number."""
    approval_id = new_ulid()
    await execute(
        tx,
        "INSERT INTO approvals (approval_id, action, arguments, made_by) VALUES ($1, $2, $3::text::jsonb, $4)",
        approval_id, action, orjson.dumps(arguments).decode(), made_by,
    )  # fmt: skip
    return await queries.get_approval(tx, approval_id)


async def mark_decided(tx: Tx, approval_id: UUID, state: str, decided_by: str) -> Approval:
    """`approved` or `rejected`, once. The table itself refuses an approval by its maker."""
    changed = await execute(
        tx,
        """UPDATE approvals SET state = $2, decided_by = $3, decided_at = now()
        WHERE approval_id = $1 AND state = 'waiting'""",
        approval_id, state, decided_by,
    )  # fmt: skip
    assert changed == 1, "the caller holds the row and has seen it waiting"
    return await queries.get_approval(tx, approval_id)


async def close_incident(tx: Tx, incident_id: UUID, by: str) -> None:
    """A person has dealt with it. Again: nothing changes. Raises NotFound."""
    known = await fetch(
        tx,
        """UPDATE incidents SET closed_at = coalesce(closed_at, now()), closed_by = coalesce(closed_by, $2)
        WHERE incident_id = $1 RETURNING 1""",
        incident_id, by,
    )  # fmt: skip
    if not known:
        raise NotFound("no such incident")


async def retry_parked(tx: Tx, book_id: int, lane: str, ref: UUID) -> None:
    """Let given-up work run again, with a fresh count of attempts. Raises NotFound when it is not parked."""
    changed = await execute(
        tx,
        """UPDATE tasks SET state = 'ready', run_at = now(), attempts = 0
        WHERE book_id = $1 AND lane = $2 AND ref = $3 AND state = 'parked'""",
        book_id, lane, ref,
    )  # fmt: skip
    if not changed:
        raise NotFound("no parked task of this name")


def invalid(pointer: str, code: str, detail: str) -> Invalid:
    """One wrong field."""
    return Invalid(detail, errors=[FieldError(pointer, code, detail)])
