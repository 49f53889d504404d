"""A wallet below its floor: the order goes elsewhere and says why, and comes back when the wallet is refilled."""

from tests.factories.counter import Counter
from tests.factories.workshop import order_many, run_until_quiet, settled

from kameng_api.api.admin.case import whole_route
from kameng_api.catalog import actions as catalog
from kameng_api.jobs.desk import Desk
from kameng_api.kit.db import Database
from kameng_api.kit.money import parse_amount


async def say(db: Database, desk: Desk, balance: str) -> None:
    """What the supplier says of the wallet, as every process hears it."""
    async with db.transaction() as tx:
        await catalog.record_wallet(tx, "sim-a", parse_amount(balance))
    await desk.catalog.refresh()


async def where(desk: Desk, counter: Counter, number: str) -> tuple[str, str]:
    """The channel that one order is sent to, and the sentence that says why."""
    placed = (await counter.place(counter.ask(number, sku="mobile-cn-100")))[0]
    order = placed.order  # type: ignore[union-attr]
    await desk.buyer.submit(10)
    await settled(desk)
    [attempt] = await counter.attempts(order)
    async with counter.db.transaction() as tx:
        route = await whole_route(tx, order.order_id)
    return attempt.channel_id, route["decisions"][0]["sentence"]


async def test_a_channel_below_its_floor_gets_no_orders_and_the_route_says_so(desk: Desk, counter: Counter) -> None:
    async with counter.db.transaction() as tx:
        await catalog.set_wallet_terms(
            tx, "sim-a", low_at=None, floor=parse_amount("1000"), resume_at=parse_amount("5000"), hours_left=None
        )
    await say(counter.db, desk, "6000")
    assert (await where(desk, counter, "PO-1"))[0] == "sim-a", "the cheaper one"
    await say(counter.db, desk, "1050")
    channel, why = await where(desk, counter, "PO-2")
    assert channel == "sim-b" and "below its floor of 1000.00" in why, "one order would take it below"
    await say(counter.db, desk, "999")
    channel, why = await where(desk, counter, "PO-3")
    assert channel == "sim-b" and "below its floor of 5000.00" in why
    await say(counter.db, desk, "4999")
    assert (await where(desk, counter, "PO-4"))[0] == "sim-b", "the first coin does not open it"
    await say(counter.db, desk, "5200")
    assert (await where(desk, counter, "PO-5"))[0] == "sim-a"


async def test_without_another_channel_the_order_waits_for_the_refill(desk: Desk, counter: Counter) -> None:
    async with counter.db.transaction() as tx:
        await catalog.set_wallet_terms(tx, "sim-a", low_at=None, floor=parse_amount("1000"), resume_at=None, hours_left=None)
        await catalog.set_channel_status(tx, "sim-b", "disabled")
    await say(counter.db, desk, "10")
    [order] = await order_many(counter, 1)
    await desk.buyer.submit(10)
    await settled(desk)
    assert await counter.attempts(order) == [] and not (await counter.now(order)).final, "held, not failed"
    await say(counter.db, desk, "9000")
    await run_until_quiet(desk, counter, [order])
    assert (await counter.now(order)).status == "succeeded"
