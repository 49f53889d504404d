"""Workers as processes that can be killed, and a judge who believes only the supplier's own delivery log."""

import asyncio
import os
import signal
from collections import Counter as Tally
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.factories import nursery
from tests.factories.counter import Counter
from tests.factories.shop import stock_the_shop
from tests.simulator.conftest import SECRETS, Simulator

from kameng_api.catalog import queries as catalog
from kameng_api.jobs.desk import Desk
from kameng_api.kit.db import Database, execute
from kameng_api.orders.choices import Surroundings
from kameng_api.orders.rules import Order
from kameng_api.settings import Settings

_PROGRAM = "from kameng_api.worker import run; from kameng_api.settings import Settings; run(Settings(_env_file=None))"


async def open_counter(db: Database, settings: Settings, simulator: Simulator) -> Counter:
    """A merchant, and the shop on both accounts of the simulator with all knobs at rest."""
    for name in SECRETS:
        await simulator.turn(name)
    await stock_the_shop(db, settings, simulator.url, SECRETS)
    counter = await Counter.open(db, settings, money="100000")
    async with db.transaction() as tx:
        counter.around = Surroundings(await catalog.load_snapshot(tx))
    return counter


async def order_many(counter: Counter, n: int, **more: Any) -> list[Order]:
    asked = [counter.ask(f"PO-{i}", **{"sku": "mobile-cn-100"} | more) for i in range(n)]
    return [placed.order for placed in await counter.place(*asked)]  # type: ignore[union-attr]


@asynccontextmanager
async def worker_process(settings: Settings, log: Path, **more: str) -> AsyncIterator[nursery.Process]:
    """A worker in a process of its own. Killed at the end if it still lives."""
    assert settings.database_url is not None and settings.redis_url is not None
    environment = os.environ | {
        "KAMENG_DATABASE_URL": settings.database_url.get_secret_value(), "KAMENG_REDIS_URL": settings.redis_url.get_secret_value(),
        "KAMENG_TICK_S": "0.05", "KAMENG_WEBHOOK_DEVELOPMENT": "true", "KAMENG_LANES": "submit,look_up,callback", **more,
    }  # fmt: skip
    with log.open("ab") as out:
        process = nursery.popen(["-c", _PROGRAM], env=environment, stdout=out, stderr=out)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        await asyncio.to_thread(process.wait, 40)


async def stop(process: nursery.Process, how: signal.Signals) -> int:
    """The exit code after a signal."""
    process.send_signal(how)
    return await asyncio.to_thread(process.wait, 40)


LONGEST_NOT_FOUND_S = 0.15
"""The simulators of these tests run at 0.05 of real time: two seconds of "not found" are 0.1 s, far below the grace that we shift by hours."""


async def run_until_quiet(desk: Desk, counter: Counter, orders: Sequence[Order], *, rounds: int = 60) -> None:
    """Turn the beats by hand, an hour passing between two of them, until every order is final."""
    for _ in range(rounds):
        await counter.expire_leases()
        await counter.everything_due()
        await desk.buyer.look_up(500)
        await settled(desk)
        await desk.buyer.submit(500)
        await settled(desk)
        if all([(await counter.now(o)).final for o in orders]):
            return
        async with counter.db.transaction() as tx:
            await execute(
                tx,
                "UPDATE attempts SET sent_at = sent_at - interval '1 hour', not_found_first_at = not_found_first_at - interval '1 hour'",
            )
        await asyncio.sleep(LONGEST_NOT_FOUND_S)  # what the supplier promises to know after its grace it must be given time to know
    raise AssertionError("not quiet in time")


async def settled(desk: Desk, within_s: float = 30) -> None:
    """Until every call that is under way has ended and its answer is recorded."""
    async with asyncio.timeout(within_s):
        while desk.buyer._running:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def log_of(simulator: Simulator, table: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = (await simulator.call("GET", f"{table}?limit=10000"))["items"]
    return rows


async def judge(counter: Counter, simulator: Simulator, orders: Sequence[Order], *, statuses: Sequence[str] = ("succeeded",)) -> None:
    """Each unit delivered once, by the supplier's own log; no reference sent twice; the books agree."""
    delivered = Tally(row["reference"] for row in await log_of(simulator, "deliveries"))
    placed = Tally(row["reference"] for row in await log_of(simulator, "log") if row["path"] == "place")
    for order in orders:
        now = await counter.now(order)
        references = [a.reference for a in await counter.attempts(order)]
        assert now.status in statuses, (now.status, now.substatus, now.failure_code, references)
        assert sum(delivered[r] for r in references) == now.delivered_units
        assert all(placed[r] <= 1 for r in references)
    await counter.holds()
