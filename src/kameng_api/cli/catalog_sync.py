"""`kameng catalog …`: suppliers' lists read now, what is asked about them, what anything cost since when."""

from typing import Annotated, Any

import typer

from kameng_api.api.admin import catalog_sync_shapes as shapes
from kameng_api.api.admin.shapes import offer as show_offer
from kameng_api.catalog import costs
from kameng_api.cli.bench import Bench, read_id, run
from kameng_api.cli.terminal import show, show_list
from kameng_api.suppliers.listings import queries, reviews, wishes
from kameng_api.suppliers.listings.queries import ReviewFilter

catalog_app = typer.Typer(no_args_is_help=True)

Channel = Annotated[str | None, typer.Option(help="of one channel")]


@catalog_app.command("lists")
def list_lists() -> None:
    """How each channel's list is read, and how that goes."""

    async def work(bench: Bench) -> list[dict[str, Any]]:
        return [shapes.supplier_list(one) for one in await queries.list_lists(bench.tx)]

    show_list(run(work), ("channel_id", "enabled", "every_s", "whole_at", "next_full_at", "failures"))


@catalog_app.command("sync")
def sync(channel: str) -> None:
    """Have a channel's whole list read as soon as a worker is free."""

    async def work(bench: Bench) -> dict[str, Any]:
        await wishes.want_now(bench.tx, channel, bench.actor)
        await bench.audit("supplier_list.asked", f"channel:{channel}")
        return shapes.supplier_list(await queries.get_list(bench.tx, channel))

    show(run(work, permission="channels:switch"))


@catalog_app.command("syncs")
def list_syncs(channel: Channel = None, limit: int = 20) -> None:
    """The newest readings."""

    async def work(bench: Bench) -> list[dict[str, Any]]:
        return [shapes.sync(one) for one in await queries.list_syncs(bench.tx, channel_id=channel, limit=limit)]

    columns = ("id", "channel_id", "kind", "state", "lines", "added", "changed", "gone", "applied", "reviews", "missing", "trouble", "ended_at")
    show_list(run(work), columns)


@catalog_app.command("let-go")
def let_go(sync_id: str, note: Annotated[str, typer.Option(help="why so much is gone")]) -> None:
    """Agree that what a stopped reading lacked is gone; the list is read again, and may close as many lines."""

    async def work(bench: Bench) -> dict[str, Any]:
        found = await wishes.let_go(bench.tx, read_id("syn", sync_id), bench.actor)
        await bench.audit("supplier_list.let_go", f"channel:{found.channel_id}", sync=sync_id, missing=found.missing, note=note)
        return shapes.sync(found)

    show(run(work, permission="catalog:write"))


@catalog_app.command("reviews")
def list_reviews(channel: Channel = None, kind: str | None = None, state: str = "open", limit: int = 100) -> None:
    """What a person must say about offers, oldest first."""

    async def work(bench: Bench) -> list[dict[str, Any]]:
        wanted = ReviewFilter(channel, kind, None if state == "all" else state)
        return [shapes.review(one) for one in await queries.list_reviews(bench.tx, wanted, limit=limit)]

    show_list(run(work), ("id", "channel_id", "product_code", "sku", "kind", "state", "change", "facts"))


@catalog_app.command("decide")
def decide(
    review_id: str,
    decision: Annotated[str, typer.Argument(help="approve, reject or ignore")],
    sku: Annotated[str | None, typer.Option(help="what a new line is sold as")] = None,
    note: str | None = None,
) -> None:
    """Answer one question."""

    async def work(bench: Bench) -> dict[str, Any]:
        decided = await reviews.decide(bench.tx, read_id("ofr", review_id), decision, bench.actor, note=note, sku=sku)
        await bench.audit(
            f"offer_review.{decided.state}", f"channel:{decided.channel_id}", review=review_id, kind=decided.kind.value,
            product_code=decided.product_code, sku=decided.sku, told=decided.told, note=note,
        )  # fmt: skip
        return shapes.review(decided)

    show(run(work, permission="catalog:write"))


@catalog_app.command("link")
def link(channel: str, product_code: str, sku: str) -> None:
    """Sell a supplier's line as a SKU."""

    async def work(bench: Bench) -> dict[str, Any]:
        offer = await reviews.link(bench.tx, channel, product_code, sku, bench.actor)
        await bench.audit("offer.linked", f"channel:{channel}", **show_offer(offer))
        return show_offer(offer)

    show(run(work, permission="catalog:write"))


@catalog_app.command("costs")
def list_costs(
    channel: str,
    code: Annotated[str | None, typer.Option(help="the supplier's product code: what was asked")] = None,
    sku: Annotated[str | None, typer.Option(help="the SKU: what we reckoned with")] = None,
    limit: int = 100,
) -> None:
    """What a line was sold to us for, or what an offer was reckoned with, since when; newest first."""
    if (code is None) == (sku is None):
        raise typer.BadParameter("either --code or --sku")

    async def work(bench: Bench) -> list[dict[str, Any]]:
        if sku is not None:
            return [shapes.offer_cost(row) for row in await costs.list_costs(bench.tx, channel, sku, limit=limit)]
        return [shapes.supplier_cost(row) for row in await queries.list_supplier_costs(bench.tx, channel, code or "", limit=limit)]

    show_list(run(work), ("since", "unit_cost", "rate", "said_by") if sku is not None else ("since", "cost", "currency"))
