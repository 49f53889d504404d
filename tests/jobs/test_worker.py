"""The worker as a process: it drains when told to stop, and needs Redis for nothing but haste."""

import asyncio
import signal
from pathlib import Path
from typing import Any

from redis.asyncio import Redis
from tests.factories.counter import Counter
from tests.factories.shop import eventually, running_worker
from tests.factories.workshop import judge, log_of, order_many, stop, worker_process
from tests.simulator.conftest import Simulator

from kameng_api.demo.processes import free_port
from kameng_api.kit.db import fetch
from kameng_api.kit.doorbell import Doorbell
from kameng_api.orders.rules import Order
from kameng_api.settings import Settings
from kameng_api.tasks.rules import Lane


async def _all_final(counter: Counter, orders: list[Order], within_s: float = 15) -> None:
    async def look() -> bool:
        return all([(await counter.now(o)).final for o in orders])

    await eventually(look, within_s=within_s)


async def test_told_to_stop_it_lets_every_call_end_and_records_it(
    counter: Counter, settings: Settings, simulator: Simulator, tmp_path: Path
) -> None:
    await simulator.turn("sim-a", latency={"kind": "fixed", "ms": 800})
    before = len(await log_of(simulator, "deliveries"))
    orders = await order_many(counter, 12)
    async with worker_process(settings, tmp_path / "log") as worker:

        async def delivered() -> bool:
            return len(await log_of(simulator, "deliveries")) > before

        await eventually(delivered, within_s=20)  # delivered, and not yet answered
        assert await stop(worker, signal.SIGTERM) == 0
    async with counter.db.transaction() as tx:
        rows = await fetch(tx, "SELECT state, count(*) AS n FROM attempts GROUP BY 1")
    assert {r["state"]: r["n"] for r in rows} == {"delivered": 12}
    assert await counter.tasks() == []
    await judge(counter, simulator, orders)


async def test_without_redis_the_ticks_suffice(counter: Counter, settings: Settings, simulator: Simulator) -> None:
    for redis_url in (None, f"redis://127.0.0.1:{free_port()}/0"):
        lonely = settings.model_copy(update={"redis_url": settings.redis_url and redis_url and type(settings.redis_url)(redis_url)})
        orders = [await counter.order(f"PO-{redis_url}-{n}".replace(":", "-"), sku="mobile-cn-100") for n in range(5)]
        bell = Doorbell(redis_url)
        async with running_worker(lonely):
            bell.ring(Lane.SUBMIT)
            await _all_final(counter, orders)
        await bell.close()
        await judge(counter, simulator, orders)


async def test_the_doorbell_wakes_a_worker_that_ticks_slowly(
    counter: Counter, settings: Settings, simulator: Simulator, redis: "Redis[bytes]"
) -> None:
    sleepy = settings.model_copy(update={"tick_s": 60.0})
    assert settings.redis_url is not None
    bell = Doorbell(settings.redis_url.get_secret_value())
    async with running_worker(sleepy):
        await asyncio.sleep(1.0)
        orders = await order_many(counter, 3)
        bell.ring(Lane.SUBMIT)
        await _all_final(counter, orders, within_s=10)
        await redis.flushall()  # everything Redis knew: nothing that matters
        more = [await counter.order(f"PO-more-{n}", sku="mobile-cn-100") for n in range(3)]

        async def rung() -> Any:
            bell.ring(Lane.SUBMIT)
            return all([(await counter.now(o)).final for o in more])

        await eventually(rung, within_s=10)
    await bell.close()
    await judge(counter, simulator, orders + more)


async def test_redis_may_be_emptied_while_orders_are_on_the_way(
    counter: Counter, settings: Settings, simulator: Simulator, redis: "Redis[bytes]"
) -> None:
    await simulator.turn("sim-a", latency={"kind": "fixed", "ms": 150})
    orders = await order_many(counter, 30)
    async with running_worker(settings):
        for _ in range(5):
            await redis.flushall()
            await asyncio.sleep(0.1)
        await _all_final(counter, orders)
    await judge(counter, simulator, orders)
