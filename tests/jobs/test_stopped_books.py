"""A stopped book waits and spoils nobody's batch: through the worker's own beats, against a real supplier."""

from tests.factories.counter import Counter
from tests.factories.workshop import judge, order_many, run_until_quiet, settled
from tests.simulator.conftest import Simulator

from kameng_api.jobs.desk import Desk
from kameng_api.jobs.stops import stop
from kameng_api.kit.db import execute
from kameng_api.ledger import stops
from kameng_api.ledger.queries import Breach
from kameng_api.settings import Settings


async def test_orders_of_a_stopped_book_wait_while_others_end_and_end_after_the_lift(
    counter: Counter, desk: Desk, simulator: Simulator, settings: Settings
) -> None:
    other = await Counter.open(counter.db, settings, money="100000")
    other.around = counter.around
    sent = await order_many(counter, 2)
    await desk.buyer.submit(200)  # under way when the book is stopped: answered, and not settled
    async with counter.db.transaction() as tx:
        assert await stop(tx, [Breach("chain", counter.book_id, "made up")]) == [counter.book_id]
    await settled(desk)
    [waiting] = [p.order for p in await other.place(other.ask("PO-x", sku="mobile-cn-100"))]  # type: ignore[union-attr]
    await desk.buyer.submit(200)
    await settled(desk)
    assert (await other.now(waiting)).status == "succeeded"
    async with counter.db.transaction() as tx:
        await stops.lift(tx, counter.book_id, "looked at it", "ann")
        await execute(tx, "UPDATE tasks SET run_at = now() WHERE state = 'ready'")
    desk.buyer._stopped._until = 0.0  # as if the quarter of a minute had passed
    await run_until_quiet(desk, counter, sent)
    await judge(counter, simulator, sent)
