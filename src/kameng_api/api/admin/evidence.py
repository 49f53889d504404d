"""How far the evidence chain is, where its heads stand outside, and what is known while a restore is open."""

from typing import Any

from fastapi import APIRouter

from kameng_api.api.admin.desk import AtDesk, Cursor, DeskRoute, needs, uuid_position
from kameng_api.api.wire import Limit
from kameng_api.evidence import queries, restores
from kameng_api.evidence.anchors import names_of
from kameng_api.kit.clock import wire_time, wire_time_or_none
from kameng_api.kit.ids import public_id
from kameng_api.kit.money import format_amount

router = APIRouter(route_class=DeskRoute)


@router.get("/evidence")
@needs("read")
async def get_evidence(desk: AtDesk) -> dict[str, Any]:
    """The chain's head, how late sealing and anchoring are, each anchor's newest head, and every public key that ever signed."""
    names = names_of(desk.door.settings)
    async with desk.door.db.transaction() as tx:
        lag = await queries.lag_of(tx, names)
        head = await queries.find_head(tx)
        anchors = [(name, await queries.last_anchor(tx, name)) for name in names]
        keys = await queries.public_keys(tx)
    return {
        "head": lag.head,
        "hash": None if head is None else head.hash.hex(),
        "epoch": 0 if head is None else head.header.epoch,
        "leaves": lag.total,
        "seal_lag_s": round(lag.seal_s, 1),
        "anchor_lag_s": round(lag.anchor_s, 1),
        "anchors": [{"target": name, "head": None if a is None else a.no, "leaves": None if a is None else a.total} for name, a in anchors],
        "keys": {name: key.hex() for name, key in keys.items()},
    }


@router.get("/restores")
@needs("read")
async def list_restores(desk: AtDesk, limit: Limit = 50, cursor: Cursor = None) -> dict[str, Any]:
    """Every restore, newest first. `orders`: how many that were open at the restored point stand where; see docs/backup.md."""
    before = uuid_position(desk.position(cursor, "restores"))
    async with desk.door.db.transaction() as tx:
        standing = await restores.find_standing(tx)
        found = await restores.list_restores(tx, before, limit + 1)
    return {"standing": standing.value, **desk.page(found, limit, _restore, lambda r: [str(r["restore_id"])], "restores")}


def _restore(r: Any) -> dict[str, Any]:
    return {
        "id": public_id("rst", r["restore_id"]),
        "begun_by": r["begun_by"],
        "begun_at": wire_time(r["begun_at"]),
        "last_commit_at": wire_time(r["last_commit_at"]),
        "ended_by": r["ended_by"],
        "ended_at": wire_time_or_none(r["ended_at"]),
        "orders": r["orders"],
        "losses": r["losses"],
    }


@router.get("/restores/losses")
@needs("read")
async def list_losses(desk: AtDesk) -> dict[str, Any]:
    """Purchases of the open restore that suppliers charged and that are not in the books, oldest first: all of them."""
    async with desk.door.db.transaction() as tx:
        open_ = await restores.find_open(tx)
        found = [] if open_ is None else await restores.list_losses(tx, open_["restore_id"])
    return {"items": [loss(r) for r in found]}


def loss(r: Any) -> dict[str, Any]:
    """A lost purchase as it is shown."""
    return {
        "at": wire_time(r["at"]),
        "channel_id": r["channel_id"],
        "reference": r["reference"],
        "supplier_order_no": r["supplier_order_no"],
        "amount": format_amount(r["amount"]),
        "currency": r["currency"],
        "book_id": r["book_id"],
    }
