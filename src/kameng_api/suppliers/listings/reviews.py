"""A person's word on what a supplier's list says: what it does to the offer, and how a line comes to be sold."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final
from uuid import UUID

from kameng_api.alarms import actions as alarms
from kameng_api.catalog import actions as catalog
from kameng_api.catalog import listed
from kameng_api.catalog import queries as catalog_queries
from kameng_api.catalog.listed import Listed
from kameng_api.catalog.rules import Offer, Product
from kameng_api.kit.db import Tx, execute, fetch
from kameng_api.kit.errors import FieldError, Invalid, NotFound, Problem, StateConflict
from kameng_api.suppliers.listings import actions, queries, rules
from kameng_api.suppliers.listings.queries import Review, ReviewFilter
from kameng_api.suppliers.listings.rules import Kind, Known, Sold, Step
from kameng_api.suppliers.port import SupplierProduct

MOST_AT_ONCE: Final = 500
MOST_LINKS_AT_ONCE: Final = 50
"""Each makes an offer of its own."""


async def decide(
    tx: Tx, review_id: UUID, decision: str, by: str, *, note: str | None = None, told: str | None = None, sku: str | None = None
) -> Review:
    """Approve, reject or ignore one. `told`: what the person has seen; `sku`: what a new line is sold as.

    Raises NotFound, Invalid, StateConflict when it is decided already, is about something else by now, or cannot take effect.
    """
    review = await queries.get_review(tx, review_id)
    await queries.get_list(tx, review.channel_id, lock=True)
    review = await queries.get_review(tx, review_id)  # again, as it stands under the lock
    if review.state != "open":
        raise StateConflict(f"this review is {review.state}")
    if told is not None and told != review.told:
        raise StateConflict("the supplier says something else by now: look again")
    if review.kind is Kind.NEW and decision == "approve":
        if sku is None:
            raise Invalid("say which SKU it is", errors=[FieldError("/sku", "required", "which SKU the line is sold as")])
        await link(tx, review.channel_id, review.product_code, sku, by, note=note)
        return await queries.get_review(tx, review_id)
    refused = await _settle(tx, review.channel_id, [review], decision, by, note)
    if refused:
        raise StateConflict(refused[review.review_id])
    return await queries.get_review(tx, review_id)


@dataclass(frozen=True, slots=True)
class Settled:
    """What became of many. `skipped`: those for which it cannot take effect, with the reason."""

    decided: int
    skipped: dict[UUID, str]
    last: UUID | None


async def decide_many(tx: Tx, wanted: ReviewFilter, decision: str, by: str, *, note: str | None = None, after: UUID | None = None) -> Settled:
    """Decide the next open reviews of this filter after `after`: at most `MOST_AT_ONCE`, new lines that are approved `MOST_LINKS_AT_ONCE`.

    Approving new lines sells each as the SKU that is spelt like its code, where there is one that fits.
    """
    wanted = replace(wanted, state="open")
    linking = decision == "approve" and wanted.kind == Kind.NEW
    found = await queries.list_reviews(tx, wanted, after=after, limit=MOST_LINKS_AT_ONCE if linking else MOST_AT_ONCE)
    skipped: dict[UUID, str] = {}
    for channel_id in sorted({review.channel_id for review in found}):
        await queries.get_list(tx, channel_id, lock=True)
        still = await _still_open(tx, [r for r in found if r.channel_id == channel_id])
        if linking:
            skipped |= await _link_by_code(tx, still, by, note)
        else:
            skipped |= await _settle(tx, channel_id, still, decision, by, note)
    return Settled(len(found) - len(skipped), skipped, found[-1].review_id if found else None)


async def _still_open(tx: Tx, reviews: Sequence[Review]) -> list[Review]:
    sql = "SELECT review_id, told FROM offer_reviews WHERE review_id = ANY ($1::uuid[]) AND state = 'open'"
    rows = await fetch(tx, sql, [r.review_id for r in reviews])
    told = {row["review_id"]: row["told"] for row in rows}
    return [r for r in reviews if told.get(r.review_id) == r.told]


async def _link_by_code(tx: Tx, reviews: Sequence[Review], by: str, note: str | None) -> dict[UUID, str]:
    skipped = {}
    for review in reviews:
        if await catalog_queries.find_product(tx, review.product_code) is None:
            skipped[review.review_id] = "no SKU is spelt like its code"
            continue
        try:
            await link(tx, review.channel_id, review.product_code, review.product_code, by, note=note)
        except Problem as problem:
            skipped[review.review_id] = problem.detail
    return skipped


async def _settle(tx: Tx, channel_id: str, reviews: Sequence[Review], decision: str, by: str, note: str | None) -> dict[UUID, str]:
    """Every decision but the sale of a new line; returns those that cannot take effect. The list is locked."""
    if decision not in rules.DECISIONS:
        raise Invalid("no such decision", errors=[FieldError("/decision", "unknown_value", " | ".join(rules.DECISIONS))])
    codes = [r.product_code for r in reviews]
    known = await queries.load_known(tx, channel_id, codes)
    sold = {(code, offer.sku): offer for code, offer in await queries.load_sold(tx, channel_id, codes)}
    others = await _open_kinds(tx, channel_id, codes)
    changes: dict[str, Listed] = {}
    refused: dict[UUID, str] = {}
    done: list[Review] = []
    for review in reviews:
        step = _step(review, decision, known, sold, others.get((review.product_code, review.sku), set()))
        if isinstance(step, str) or (step is not None and review.sku in changes):
            refused[review.review_id] = step if isinstance(step, str) else "another question about the same offer was decided with it"
            continue
        done.append(review)
        if step is not None:
            changes[review.sku] = _change(review, step, known[review.product_code].line, sold[review.product_code, review.sku])
    [row] = await fetch(tx, "SELECT now() AS now")
    applied = await listed.apply_listed(tx, channel_id, list(changes.values()), [], row["now"], by)
    lost = [r for r in done if r.sku in changes and r.sku not in applied]
    refused |= {r.review_id: "the offer has just been changed by somebody else" for r in lost}
    await _close(tx, [r for r in done if r not in lost], decision, by, note)
    return refused


def _step(
    review: Review, decision: str, known: dict[str, Known], sold: dict[tuple[str, str], Sold], others: set[Kind]
) -> Step | str | None:
    if review.kind is Kind.NEW:
        return "say which SKU it is" if decision == "approve" else None
    offer = sold.get((review.product_code, review.sku))
    line = known.get(review.product_code)
    if offer is None or line is None:
        return None  # sold no longer: there is nothing left to do
    return rules.settle(review.kind, decision, review.told, line.line, offer, others)


def _change(review: Review, step: Step, line: SupplierProduct, offer: Sold) -> Listed:
    stock = offer.stock if review.kind is Kind.GONE else rules.stock_of(line)
    held = None if step.disable else step.held
    return Listed(review.sku, review.product_code, step.cost, stock, held, offer.read_at, step.disable)


async def _open_kinds(tx: Tx, channel_id: str, codes: Sequence[str]) -> dict[tuple[str, str], set[Kind]]:
    rows = await fetch(
        tx,
        "SELECT product_code, sku, kind FROM offer_reviews WHERE channel_id = $1 AND product_code = ANY ($2::text[]) AND state = 'open'",
        channel_id, list(codes),
    )  # fmt: skip
    found: dict[tuple[str, str], set[Kind]] = {}
    for row in rows:
        found.setdefault((row["product_code"], row["sku"]), set()).add(Kind(row["kind"]))
    return found


_STATES: Final = {"approve": "approved", "reject": "rejected", "ignore": "ignored"}


async def _close(tx: Tx, reviews: Sequence[Review], decision: str, by: str, note: str | None) -> None:
    await execute(
        tx,
        "UPDATE offer_reviews SET state = $2, decided_at = now(), decided_by = $3, note = $4 WHERE review_id = ANY ($1::uuid[]) AND state = 'open'",
        [r.review_id for r in reviews], _STATES[decision], by, note,
    )  # fmt: skip


# ---- selling a line ----------------------------------------------------------------------------------------------------


async def link(tx: Tx, channel_id: str, product_code: str, sku: str, by: str, *, note: str | None = None) -> Offer:
    """Sell a supplier's line as a SKU: the channel's offer, at the line's cost and with its stock.

    A cost above what somebody pays holds the offer at once, and asks. Raises NotFound, StateConflict when the two do not fit, or the channel
    sells this SKU of another line already.
    """
    await queries.get_list(tx, channel_id, lock=True)
    known = (await queries.load_known(tx, channel_id, [product_code])).get(product_code)
    if known is None:
        raise NotFound("the supplier lists no such line")
    if known.gone:
        raise StateConflict("the line is no longer in the supplier's list")
    product = await catalog_queries.get_product(tx, sku)
    if (why := rules.misfit(known.line, product)) is not None:
        raise StateConflict(why)
    there = [o for o in await catalog_queries.list_offers(tx, sku=sku, channel_id=channel_id) if o.status == "enabled"]
    if there:
        raise StateConflict(f"this channel sells {sku} as {there[0].product_code} already: disable that offer first")
    offer = _offer(channel_id, product, known.line)
    await catalog.set_offer(tx, offer, by)
    [sold] = [one for code, one in await queries.load_sold(tx, channel_id, [product_code]) if one.sku == sku]
    offer = await _guard_margin(tx, channel_id, offer, known.line, sold, by)
    await execute(
        tx,
        """UPDATE offer_reviews SET state = 'approved', decided_at = now(), decided_by = $3, note = $4, sku = $5
        WHERE channel_id = $1 AND product_code = $2 AND kind = 'new' AND state = 'open'""",
        channel_id, product_code, by, note, sku,
    )  # fmt: skip
    return offer


def _offer(channel_id: str, product: Product, line: SupplierProduct) -> Offer:
    cost = rules.cost_for(line, product)
    ranged = product.ranged
    return Offer(
        channel_id, product.sku, line.product_code, None if ranged else cost, cost if ranged else None, stock=rules.stock_of(line)
    )


async def _guard_margin(tx: Tx, channel_id: str, offer: Offer, line: SupplierProduct, sold: Sold, by: str) -> Offer:
    terms = (await queries.get_list(tx, channel_id)).terms
    finding = rules.below_cost(terms, line, sold)
    if finding is None:
        return offer
    held = replace(offer, held="margin")
    await catalog.set_offer(tx, held, by)
    await actions.ask(tx, channel_id, [finding])
    return held


async def watch_margins(tx: Tx) -> None:
    """One alarm per channel while offers are held because somebody pays less than they cost; over when a person has looked."""
    rows = await fetch(
        tx, "SELECT channel_id, count(*) AS n, min(sku) AS sku FROM offers WHERE held = 'margin' AND status = 'enabled' GROUP BY 1"
    )
    troubles = {r["channel_id"]: f"{r['n']} offer(s) cost more than somebody pays and are held, for example {r['sku']}" for r in rows}
    await alarms.keep_raised(tx, actions.MARGIN_ALARM, troubles)

