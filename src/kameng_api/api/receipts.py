"""What an order is proven by: its events as they were sealed, their places in the chain, and signed heads. Verifiable without us."""

from collections.abc import Sequence
from typing import Annotated, Any, Final

import orjson
from fastapi import APIRouter, Path
from pydantic import Field
from starlette.responses import Response

from kameng_api.api.deps import CalledBy, InDoor
from kameng_api.api.order_schemas import Shape
from kameng_api.api.routes import StrictRoute
from kameng_api.evidence import queries as chain
from kameng_api.evidence.actions import leaf_of_stored
from kameng_api.evidence.errors import NotSealedYet
from kameng_api.evidence.rules import leaf_hash, path_of, shown_salt
from kameng_api.kit.db import Tx, fetch
from kameng_api.kit.errors import NotFound, StateConflict
from kameng_api.kit.ids import parse_public_id
from kameng_api.merchants.rules import Caller
from kameng_api.orders import queries as orders
from kameng_api.orders.rules import Order
from kameng_api.orders.views import view
from kameng_api.suppliers import queries as attempts

router = APIRouter(route_class=StrictRoute, tags=["evidence"])

_RETRY_S: Final = 5
_JSON: Final = "application/json"


class BlockHead(Shape):
    """A sealed block, without its leaves."""

    block: dict[str, int | str] = Field(description="The header; its canonical JSON, in this order of fields, is what `hash` is made of.")
    hash: str
    key: str = Field(description="Which key signed; see `keys`.", examples=["ek_0123456789abcdef"])
    signature: str = Field(description="Ed25519 over `kameng/head/1\\n` and the 32 bytes of `hash`; hex.")


class Leaf(Shape):
    """One event of the order and its way up to the root of its block."""

    leaf: str = Field(description="The exact text that was hashed.")
    index: int
    path: list[str]
    head: BlockHead


class Receipt(Shape):
    """An order with its proofs."""

    object: str = Field(examples=["receipt"])
    order: dict[str, Any] = Field(description="The order as `GET /v1/orders/{id}` shows it.")
    leaves: list[Leaf]
    salts: dict[str, str] = Field(
        description="Event key → what opens the commitments to target, receipt and codes in its leaf. Only for keys that may see what it opens "
        "(`targets:read`, and `codes:read` where there are codes)."
    )
    keys: dict[str, str] = Field(description="Public keys, hex. Compare them with those you were given by another way.")


class Keys(Shape):
    """The public keys of this deployment's evidence chain."""

    keys: dict[str, str]


@router.get("/v1/orders/{order_id}/receipt", response_model=Receipt, summary="Proof of an order")
async def get_receipt(order_id: Annotated[str, Path(max_length=64)], door: InDoor, caller: CalledBy) -> Response:
    """The order's money movements as sealed, with inclusion proofs and signed heads. 409 `not_sealed_yet` for some seconds after a change."""
    ulid = parse_public_id("ord", order_id)
    if ulid is None:
        raise NotFound
    async with door.db.transaction() as tx:
        order = await orders.get_order(tx, caller.book_id, ulid)
        shown = await _receipt(tx, order, caller)
    return Response(orjson.dumps(shown), media_type=_JSON)


@router.get("/v1/evidence/keys", response_model=Keys, summary="Keys of the evidence chain")
async def list_evidence_keys(door: InDoor, _caller: CalledBy) -> dict[str, Any]:
    """Every public key that ever signed a head."""
    async with door.db.transaction() as tx:
        return {"keys": {name: key.hex() for name, key in (await chain.public_keys(tx)).items()}}


async def _receipt(tx: Tx, order: Order, caller: Caller) -> dict[str, Any]:
    known = (await attempts.list_of_orders(tx, [order.key]))[order.key]
    refunds = await orders.list_refunds(tx, *order.key)
    events = await chain.transfers_of_order(tx, *order.key, [a.attempt_id for a in known], [r.refund_no for r in refunds])
    # What an attempt cost, and whom it was bought from, is sealed too, and the house's own.
    own = [e for e in events if e[0]["event_key"].startswith(("order:", "refund:"))]
    if not own:
        raise StateConflict("this order moved no money: there is nothing to prove")
    blocks = await chain.blocks_of_xids(tx, [e[0]["xid"] for e in own])
    if any(e[0]["xid"] not in blocks for e in own):
        raise NotSealedYet("sealed within seconds, once no older transaction is open", retry_after_s=_RETRY_S)
    facts = await chain.stored_facts(tx, [(e[0]["book_id"], e[0]["event_key"]) for e in own])
    leaves = [leaf_of_stored(e, facts.get((e[0]["book_id"], e[0]["event_key"]))) for e in own]
    keys = await chain.public_keys(tx)
    proofs = [await _proof(tx, leaf, blocks[e[0]["xid"]]) for leaf, e in zip(leaves, own, strict=True)]
    return {
        "object": "receipt",
        "order": view(order),
        "leaves": proofs,
        "salts": await _salts(tx, order, own, caller),
        "keys": {name: keys[name].hex() for name in sorted({p["head"]["key"] for p in proofs})},
    }


async def _proof(tx: Tx, leaf: bytes, block: chain.Block) -> dict[str, Any]:
    stored = await chain.leaves_of(tx, block.header.no)
    digest = leaf_hash(leaf)
    assert digest in stored, "an event of this order is not what was sealed"
    index = stored.index(digest)
    head = {"block": block.header.form(), "hash": block.hash.hex(), "key": block.key_id, "signature": block.signature.hex()}
    return {"leaf": leaf.decode(), "index": index, "path": [step.hex() for step in path_of(stored, index)], "head": head}


async def _salts(tx: Tx, order: Order, own: Sequence[Sequence[Any]], caller: Caller) -> dict[str, str]:
    """With its salt a short secret can be guessed from its commitment: the salt is as secret as what it covers."""
    needed = {"targets:read"} | ({"codes:read"} if order.codes_count else set())
    if not needed <= caller.scopes:
        return {}
    rows = await fetch(
        tx,
        "SELECT event_key, salt FROM chain_facts WHERE book_id = $1 AND event_key = ANY ($2::text[]) AND salt IS NOT NULL",
        order.book_id, [e[0]["event_key"] for e in own],
    )  # fmt: skip
    return {r["event_key"]: shown_salt(r["salt"]).hex() for r in rows}
