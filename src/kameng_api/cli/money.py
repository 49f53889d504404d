"""`kameng fund | adjust | credit | topup | refund | approval | review | order | ledger`: money by hand, and the orders behind it."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Annotated, Any

import typer

from kameng_api.api.admin import shapes
from kameng_api.api.admin.case import whole_order
from kameng_api.catalog import queries as catalog
from kameng_api.cli.bench import Bench, read_amount, read_id, run
from kameng_api.cli.terminal import show, show_list
from kameng_api.ledger import queries as ledger
from kameng_api.operators import movements, queries
from kameng_api.operators.rules import Adjustment, CreditLine, Funding, Movement, Refund, SupplierTopup
from kameng_api.orders.actions import Resolution, resolve_review
from kameng_api.reconciliation import invariants

money_app = typer.Typer()
approval_app = typer.Typer(no_args_is_help=True)
review_app = typer.Typer(no_args_is_help=True)
order_app = typer.Typer(no_args_is_help=True)
ledger_app = typer.Typer(no_args_is_help=True)

Environment = Annotated[str, typer.Option("--environment", "-e", help="live or test")]


def _move(make: Callable[[Bench], Awaitable[Movement]], permission: str) -> None:
    async def work(bench: Bench) -> dict[str, Any]:
        movement = await make(bench)
        done = await movements.move(bench.tx, bench.keyring, bench.actor, movement, above=bench.approval_above)
        if isinstance(done, movements.Waiting):
            return {"state": "waiting", "replayed": done.replayed, "approval": shapes.approval(done.approval)}
        return {"state": "done", "replayed": done.replayed, "movement": shapes.movement(movement)}

    show(run(work, permission=permission))


@money_app.command("fund")
def fund(
    merchant: str,
    amount: str,
    external_id: Annotated[str, typer.Option(help="the bank's or payment channel's own number")],
    channel: str = "bank",
    environment: Environment = "live",
) -> None:
    """Money that came in for a merchant; one receipt credits one merchant, once. In test it is play money."""

    async def make(bench: Bench) -> Movement:
        owner = await bench.merchant(merchant)
        return Funding(owner.merchant_id, environment, channel, external_id, owner.currency, read_amount(amount))

    _move(make, "money:write")


def _signed(text: str) -> int:
    return -read_amount(text[1:]) if text.startswith("-") else read_amount(text)


@money_app.command("adjust", context_settings={"ignore_unknown_options": True})
def adjust(
    merchant: Annotated[str, typer.Argument(help="id or name, or `house`")],
    amount: Annotated[str, typer.Argument(help="signed: above zero the account gains")],
    ticket: Annotated[str, typer.Option()],
    note: Annotated[str, typer.Option()],
    account: str = "merchant_available",
    environment: Environment = "live",
    currency: str = "CNY",
) -> None:
    """A correction against suspense, under the number of the ticket that asks for it."""

    async def make(bench: Bench) -> Movement:
        if merchant == "house":
            return Adjustment(None, environment, account, ticket, currency, _signed(amount), note)
        owner = await bench.merchant(merchant)
        return Adjustment(owner.merchant_id, environment, account, ticket, owner.currency, _signed(amount), note)

    _move(make, "money:write")


@money_app.command("credit")
def set_credit_line(merchant: str, limit: str, ticket: Annotated[str, typer.Option()], environment: Environment = "live") -> None:
    """How far a merchant's spendable balance may fall below zero."""

    async def make(bench: Bench) -> Movement:
        owner = await bench.merchant(merchant)
        return CreditLine(owner.merchant_id, environment, ticket, owner.currency, read_amount(limit))

    _move(make, "money:write")


@money_app.command("topup")
def top_up_supplier(channel: str, amount: str, number: Annotated[str, typer.Option(help="your own number")], currency: str = "CNY") -> None:
    """What we paid a supplier in advance."""

    async def make(bench: Bench) -> Movement:
        found = await catalog.get_channel(bench.tx, channel)
        return SupplierTopup(channel, found.environment, number, currency, read_amount(amount))

    _move(make, "money:write")


@money_app.command("refund")
def refund(
    order_id: str,
    amount: str,
    number: Annotated[str, typer.Option(help="your own number")],
    reason: Annotated[str, typer.Option()],
) -> None:
    """Money back to the merchant, never more than the order captured."""

    async def make(bench: Bench) -> Movement:
        order = read_id("ord", order_id)
        place = await queries.get_place(bench.tx, order)
        return Refund(place.book_id, place.environment, order, number, place.currency, read_amount(amount), reason)

    _move(make, "refunds:write")


@approval_app.command("list")
def list_approvals(everything: Annotated[bool, typer.Option("--all", help="decided ones too")] = False) -> None:
    """Movements that wait for a second person."""

    async def work(bench: Bench) -> list[dict[str, Any]]:
        state = None if everything else "waiting"
        return [shapes.approval(a) for a in await queries.list_approvals(bench.tx, state=state, before=None, limit=100)]

    show_list(run(work), ("id", "state", "made_by", "decided_by", "movement"))


def _decide(approval_id: str, *, approve: bool) -> None:
    async def work(bench: Bench) -> dict[str, Any]:
        decided = await movements.decide(bench.tx, bench.keyring, bench.actor, read_id("apr", approval_id), approve=approve)
        return shapes.approval(decided)

    show(run(work, permission="approvals:decide"))


@approval_app.command("approve")
def approve(approval_id: str) -> None:
    """Move the money. Whoever asked for it may not agree to it."""
    _decide(approval_id, approve=True)


@approval_app.command("reject")
def reject(approval_id: str) -> None:
    """Nothing moves; the number may be used again."""
    _decide(approval_id, approve=False)


@review_app.command("list")
def list_reviews() -> None:
    """Orders that wait for a person."""

    async def work(bench: Bench) -> list[dict[str, Any]]:
        return [shapes.order(row) for row in await queries.list_orders(bench.tx, review=True, limit=100)]

    show_list(run(work), ("id", "merchant_name", "environment", "sku", "amount", "review", "created_at"))


@review_app.command("resolve")
def resolve(
    order_id: str,
    outcome: Annotated[str, typer.Argument(help="delivered or refused")],
    note: Annotated[str, typer.Option(help="how you know")],
    receipt: Annotated[str | None, typer.Option(help="the merchant's proof of a delivery")] = None,
) -> None:
    """Apply what a person found out. Nothing is ever bought again from here."""
    if outcome not in ("delivered", "refused"):
        raise typer.BadParameter("delivered or refused")

    async def work(bench: Bench) -> dict[str, Any]:
        order = read_id("ord", order_id)
        place = await queries.get_place(bench.tx, order)
        snapshot = await catalog.load_snapshot(bench.tx)
        resolution = Resolution(outcome == "delivered", note, receipt)
        await resolve_review(bench.tx, bench.keyring, snapshot, place.book_id, order, resolution)
        await bench.audit("review.resolved", order_id, outcome=outcome, note=note)
        return await whole_order(bench.tx, order)

    show(run(work, permission="reviews:write"))


@order_app.command("show")
def show_order(order_id: str) -> None:
    """An order with every attempt, refund, and line in the books."""

    async def work(bench: Bench) -> dict[str, Any]:
        return await whole_order(bench.tx, read_id("ord", order_id))

    show(run(work))


@ledger_app.command("verify")
def verify(
    recent: Annotated[bool, typer.Option("--recent", help="the last hour and all open orders only")] = False,
) -> None:
    """Do the books hold? Ends with status 1 when they do not."""

    async def work(bench: Bench) -> dict[str, Any]:
        if recent:
            found = await invariants.check_recent(bench.tx, timedelta(hours=1))
        else:
            found = await invariants.check_all(bench.tx, events_kept=timedelta(days=bench.settings.keep_events_days))
        await bench.audit("ledger.verified", "ledger", scope="recent" if recent else "all", breaches=len(found))
        return shapes.verdict(found)

    verdict = run(work, permission="ledger:verify")
    show(verdict)
    if not verdict["holds"]:
        raise typer.Exit(1)


@ledger_app.command("house")
def house_sums(environment: Environment = "live") -> None:
    """Sums over all books; credits minus debits, so what we own is negative."""

    async def work(bench: Bench) -> list[dict[str, Any]]:
        return shapes.house_sums(await ledger.house_sums(bench.tx, environment))

    show_list(run(work), ("account", "currency", "net"))
