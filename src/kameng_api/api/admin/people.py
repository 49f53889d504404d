"""Operators, and what they did."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query

from kameng_api.api.admin import shapes
from kameng_api.api.admin.desk import AtDesk, Cursor, DeskRoute, Instant, needs, uuid_position
from kameng_api.api.routes import WireModel
from kameng_api.api.wire import Limit
from kameng_api.operators import actions, queries, rules

router = APIRouter(route_class=DeskRoute)


class OperatorWanted(WireModel):
    name: str
    role: Literal["viewer", "support", "finance", "admin"]
    expires_at: Instant | None = None


@router.get("/me")
@needs("read")
async def who_am_i(desk: AtDesk) -> dict[str, Any]:
    """The operator behind this token, and what it may do."""
    may = [permission for permission in rules.PERMISSIONS if rules.allows(desk.operator.role, permission)]
    return {**shapes.operator(desk.operator), "permissions": may}


@router.post("/operators", status_code=201)
@needs("operators:write")
async def create_operator(desk: AtDesk, wanted: OperatorWanted) -> dict[str, Any]:
    """The token is in this answer and nowhere else."""
    async with desk.door.db.transaction() as tx:
        made = await actions.create_operator(tx, wanted.name, wanted.role, expires_at=wanted.expires_at)
        await desk.audit(tx, "operator.created", f"operator:{wanted.name}", role=wanted.role)
    return {**shapes.operator(made.operator), "token": made.token}


@router.get("/operators")
@needs("audit:read")
async def list_operators(desk: AtDesk) -> dict[str, Any]:
    async with desk.door.db.transaction() as tx:
        found = await queries.list_operators(tx)
    return {"items": [shapes.operator(one) for one in found], "next_cursor": None}


class OperatorRevoked(WireModel):
    name: str


@router.post("/operators/revoke")
@needs("operators:write")
async def revoke_operator(desk: AtDesk, wanted: OperatorRevoked) -> dict[str, Any]:
    """The token ends at once."""
    async with desk.door.db.transaction() as tx:
        gone = await actions.revoke_operator(tx, wanted.name)
        await desk.audit(tx, "operator.revoked", f"operator:{wanted.name}")
    return shapes.operator(gone)


@router.get("/audit")
@needs("audit:read")
async def list_audit(
    desk: AtDesk,
    subject: Annotated[str | None, Query(max_length=128)] = None,
    actor: Annotated[str | None, Query(max_length=64)] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> dict[str, Any]:
    """Who did what, newest first."""
    context = ("audit", subject or "", actor or "")
    before = uuid_position(desk.position(cursor, *context))
    async with desk.door.db.transaction() as tx:
        found = await queries.list_audit(tx, subject=subject, actor=actor, before=before, limit=limit + 1)
    return desk.page(found, limit, shapes.audit_entry, lambda e: [str(e.entry_id)], *context)
