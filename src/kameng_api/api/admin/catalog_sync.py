"""Suppliers' lists: how they are read, what they say, what they asked when, and what a person must say about it."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import Field

from kameng_api.api.admin import catalog_sync_shapes as shapes
from kameng_api.api.admin.desk import AtDesk, Cursor, DeskRoute, Rate, needs, read_id, time_position_alone, uuid_position
from kameng_api.api.admin.shapes import offer as show_offer
from kameng_api.api.routes import WireModel
from kameng_api.api.wire import Limit
from kameng_api.catalog import costs
from kameng_api.catalog import queries as catalog
from kameng_api.suppliers.listings import queries, reviews, wishes
from kameng_api.suppliers.listings.queries import ReviewFilter
from kameng_api.suppliers.listings.rules import ListTerms

router = APIRouter(route_class=DeskRoute)

Kind = Literal["new", "price_up", "price_down", "below_cost", "gone", "changed", "currency"]
State = Literal["open", "approved", "rejected", "ignored", "overtaken", "all"]
Decision = Literal["approve", "reject", "ignore"]
_COUNTED: int = 10_000


# ---- how a list is read ------------------------------------------------------------------------------------------------


@router.get("/supplier-lists")
@needs("read")
async def list_supplier_lists(desk: AtDesk) -> dict[str, Any]:
    """Every channel whose supplier's list is read: its clock, its terms, how that goes."""
    async with desk.door.db.transaction() as tx:
        found = await queries.list_lists(tx)
    return {"items": [shapes.supplier_list(one) for one in found], "next_cursor": None}


@router.get("/supplier-lists/{channel_id}")
@needs("read")
async def get_supplier_list(desk: AtDesk, channel_id: str) -> dict[str, Any]:
    async with desk.door.db.transaction() as tx:
        return shapes.supplier_list(await queries.get_list(tx, channel_id))


class TermsWanted(WireModel):
    """Shares as decimals. A cost within them takes effect by itself; a reading that lacks more than `vanish` of the lines closes none."""

    price_up: Rate = Field(default_factory=lambda: ListTerms().price_up)
    price_down: Rate = Field(default_factory=lambda: ListTerms().price_down)
    margin: Rate = Field(default_factory=lambda: ListTerms().margin)
    vanish: Rate = Field(default_factory=lambda: ListTerms().vanish)
    stock: bool = True
    review_new: bool = True


class ListWanted(WireModel):
    enabled: bool = True
    every_s: int = 21_600
    changes_every_s: int = 300
    pause_ms: int = 200
    terms: TermsWanted = Field(default_factory=TermsWanted)


@router.put("/supplier-lists/{channel_id}")
@needs("catalog:write")
async def put_supplier_list(desk: AtDesk, channel_id: str, wanted: ListWanted) -> dict[str, Any]:
    """How often the list is read, how fast, and what of it takes effect by itself."""
    terms = ListTerms(**dict(wanted.terms))
    async with desk.door.db.transaction() as tx:
        await wishes.set_list(
            tx, channel_id, wishes.ListWanted(wanted.enabled, wanted.every_s, wanted.changes_every_s, wanted.pause_ms, terms)
        )
        shown = shapes.supplier_list(await queries.get_list(tx, channel_id))
        await desk.audit(
            tx, "supplier_list.set", f"channel:{channel_id}", enabled=wanted.enabled, every_s=wanted.every_s,
            changes_every_s=wanted.changes_every_s, pause_ms=wanted.pause_ms, terms=shown["terms"],
        )  # fmt: skip
    return shown


@router.post("/supplier-lists/{channel_id}/sync", status_code=202)
@needs("channels:switch")
async def sync_supplier_list(desk: AtDesk, channel_id: str) -> dict[str, Any]:
    """Read the whole list as soon as a worker is free."""
    async with desk.door.db.transaction() as tx:
        await wishes.want_now(tx, channel_id, desk.actor)
        await desk.audit(tx, "supplier_list.asked", f"channel:{channel_id}")
        return shapes.supplier_list(await queries.get_list(tx, channel_id))


@router.get("/catalog-syncs")
@needs("read")
async def list_catalog_syncs(
    desk: AtDesk, channel_id: Annotated[str | None, Query(max_length=64)] = None, limit: Limit = 50, cursor: Cursor = None
) -> dict[str, Any]:
    """Every reading, newest first: what was read, what came of it, how it ended."""
    context = ("catalog-syncs", channel_id or "")
    before = uuid_position(desk.position(cursor, *context))
    async with desk.door.db.transaction() as tx:
        found = await queries.list_syncs(tx, channel_id=channel_id, before=before, limit=limit + 1)
    return desk.page(found, limit, shapes.sync, lambda one: [str(one.sync_id)], *context)


class Noted(WireModel):
    note: str = Field(min_length=1, max_length=500)


@router.post("/catalog-syncs/{sync_id}/let-go", status_code=202)
@needs("catalog:write")
async def let_go(desk: AtDesk, sync_id: str, wanted: Noted) -> dict[str, Any]:
    """A stopped reading: agree that so many lines are gone. The list is read again at once, and may close as many, not more."""
    async with desk.door.db.transaction() as tx:
        sync = await wishes.let_go(tx, read_id("syn", sync_id), desk.actor)
        await desk.audit(tx, "supplier_list.let_go", f"channel:{sync.channel_id}", sync=sync_id, missing=sync.missing, note=wanted.note)
    return shapes.sync(sync)


# ---- what it says ------------------------------------------------------------------------------------------------------

ChannelId = Annotated[str, Query(max_length=64)]


@router.get("/supplier-products")
@needs("read")
async def list_supplier_products(
    desk: AtDesk,
    channel_id: ChannelId,
    search: Annotated[str | None, Query(max_length=128)] = None,
    gone: Annotated[bool | None, Query(strict=False)] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> dict[str, Any]:
    """A supplier's list as it was read last. `search`: part of a name, or the beginning of a code."""
    context = ("supplier-products", channel_id, search or "", str(gone))
    position = desk.position(cursor, *context)
    async with desk.door.db.transaction() as tx:
        await catalog.get_channel(tx, channel_id)
        after = position[0] if position else None
        found = await queries.list_lines(tx, channel_id, search=search, gone=gone, after=after, limit=limit + 1)
    return desk.page(found, limit, shapes.line, lambda one: [one.line.product_code], *context)


@router.get("/supplier-costs")
@needs("read")
async def list_supplier_costs(
    desk: AtDesk, channel_id: ChannelId, product_code: Annotated[str, Query(max_length=128)], limit: Limit = 50, cursor: Cursor = None
) -> dict[str, Any]:
    """What a supplier asked for a line, since when; newest first."""
    context = ("supplier-costs", channel_id, product_code)
    before = time_position_alone(desk.position(cursor, *context))
    async with desk.door.db.transaction() as tx:
        found = await queries.list_supplier_costs(tx, channel_id, product_code, before=before, limit=limit + 1)
    return desk.page(found, limit, shapes.supplier_cost, lambda row: [row["since"].isoformat()], *context)


@router.get("/offer-costs")
@needs("read")
async def list_offer_costs(
    desk: AtDesk, channel_id: ChannelId, sku: Annotated[str, Query(max_length=128)], limit: Limit = 50, cursor: Cursor = None
) -> dict[str, Any]:
    """What an offer was reckoned with, since when, and on whose word; newest first."""
    context = ("offer-costs", channel_id, sku)
    before = time_position_alone(desk.position(cursor, *context))
    async with desk.door.db.transaction() as tx:
        found = await costs.list_costs(tx, channel_id, sku, before=before, limit=limit + 1)
    return desk.page(found, limit, shapes.offer_cost, lambda row: [row["since"].isoformat()], *context)


# ---- what a person must say --------------------------------------------------------------------------------------------


@router.get("/offer-reviews")
@needs("read")
async def list_offer_reviews(
    desk: AtDesk,
    channel_id: Annotated[str | None, Query(max_length=64)] = None,
    kind: Annotated[Kind | None, Query()] = None,
    state: Annotated[State, Query()] = "open",
    sku: Annotated[str | None, Query(max_length=128)] = None,
    product_code: Annotated[str | None, Query(max_length=128)] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> dict[str, Any]:
    """Questions about offers, oldest first; `total` is counted to 10,000."""
    wanted = ReviewFilter(channel_id, kind, None if state == "all" else state, sku, product_code)
    context = ("offer-reviews", channel_id or "", kind or "", state, sku or "", product_code or "")
    after = uuid_position(desk.position(cursor, *context))
    async with desk.door.db.transaction() as tx:
        found = await queries.list_reviews(tx, wanted, after=after, limit=limit + 1)
        total = await queries.count_reviews(tx, wanted, _COUNTED)
    return {**desk.page(found, limit, shapes.review, lambda one: [str(one.review_id)], *context), "total": total}


class DecisionWanted(WireModel):
    """`told`: what the question was about when you read it; `sku`: what a new line is sold as."""

    decision: Decision
    told: str | None = Field(default=None, max_length=200)
    sku: str | None = Field(default=None, max_length=128)
    note: str | None = Field(default=None, max_length=500)


@router.post("/offer-reviews/{review_id}/decide")
@needs("catalog:write")
async def decide_offer_review(desk: AtDesk, review_id: str, wanted: DecisionWanted) -> dict[str, Any]:
    """Approved: what the supplier says takes effect. Rejected: it does not, and an offer held for it is disabled. Ignored: all stays."""
    async with desk.door.db.transaction() as tx:
        decided = await reviews.decide(
            tx, read_id("ofr", review_id), wanted.decision, desk.actor, note=wanted.note, told=wanted.told, sku=wanted.sku
        )
        await desk.audit(
            tx, f"offer_review.{decided.state}", f"channel:{decided.channel_id}", review=review_id, kind=decided.kind.value,
            product_code=decided.product_code, sku=decided.sku, told=decided.told, note=wanted.note,
        )  # fmt: skip
    return shapes.review(decided)


class ManyWanted(WireModel):
    """Open questions that all of these fit. `most_change`: cost changes of at most that share, up or down."""

    decision: Decision
    kind: Kind
    channel_id: str | None = Field(default=None, max_length=64)
    code_begins: str | None = Field(default=None, min_length=1, max_length=128)
    product_type: Literal["topup", "card", "voucher"] | None = None
    most_change: Rate | None = None
    note: str | None = Field(default=None, max_length=500)
    after: str | None = Field(default=None, max_length=64)


@router.post("/offer-reviews/decide")
@needs("catalog:write")
async def decide_offer_reviews(desk: AtDesk, wanted: ManyWanted) -> dict[str, Any]:
    """Decide up to 500 at once; new lines that are approved, up to 50, each as the SKU that is spelt like its code.

    Ask again with `after` until it is null. What cannot take effect is listed, stays open, and stops nothing.
    """
    chosen = ReviewFilter(
        wanted.channel_id, wanted.kind, "open", code_begins=wanted.code_begins, product_type=wanted.product_type, most_change=wanted.most_change
    )
    after = None if wanted.after is None else read_id("ofr", wanted.after)
    async with desk.door.db.transaction() as tx:
        settled = await reviews.decide_many(tx, chosen, wanted.decision, desk.actor, note=wanted.note, after=after)
        await desk.audit(
            tx, "offer_review.many", f"channel:{wanted.channel_id or 'all'}", decision=wanted.decision, kind=wanted.kind,
            code_begins=wanted.code_begins, product_type=wanted.product_type, decided=settled.decided, skipped=len(settled.skipped),
            note=wanted.note,
        )  # fmt: skip
    return shapes.settled(settled)


class LinkWanted(WireModel):
    channel_id: str = Field(max_length=64)
    product_code: str = Field(max_length=128)
    sku: str = Field(max_length=128)
    note: str | None = Field(default=None, max_length=500)


@router.post("/offers/link", status_code=201)
@needs("catalog:write")
async def link_line(desk: AtDesk, wanted: LinkWanted) -> dict[str, Any]:
    """Sell a supplier's line as a SKU: an offer at the line's cost and with its stock. At a cost above what somebody pays it is held at once."""
    async with desk.door.db.transaction() as tx:
        offer = await reviews.link(tx, wanted.channel_id, wanted.product_code, wanted.sku, desk.actor, note=wanted.note)
        await desk.audit(tx, "offer.linked", f"channel:{wanted.channel_id}", **show_offer(offer))
    return show_offer(offer)
