"""The arq process: every job and every clock in one table. Only this file and kit/doorbell.py know arq.

Each lane is a loop that claims due work from PostgreSQL, woken by the doorbell, by its own work, or by its own tick: without Redis
everything goes on, a tick later.
"""

import asyncio
import os
import random
import signal
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, cast

import structlog
import uvloop
from arq.connections import ArqRedis
from arq.typing import WorkerCoroutine
from arq.worker import Worker as ArqWorker
from arq.worker import func
from redis.asyncio import ConnectionPool

from kameng_api.alarms.sinks import parse_sinks
from kameng_api.api.doors.registry import list_doors
from kameng_api.catalog.rules import Snapshot
from kameng_api.evidence.restores import Standing
from kameng_api.jobs import balances, batches, catalog_sync, evidence, monitor, reconciliation, restores, route_chores, statements, supplier_desk
from kameng_api.jobs.batches import advance_batches
from kameng_api.jobs.callbacks import apply_callbacks
from kameng_api.jobs.desk import CatalogLoader, Desk
from kameng_api.jobs.door_callbacks import Messenger, call_back
from kameng_api.jobs.metrics import Gauges
from kameng_api.jobs.orders import Buyer, look_up, submit
from kameng_api.jobs.pulse import Pulse
from kameng_api.jobs.upkeep import CHORES, Chore
from kameng_api.jobs.webhooks import Courier, deliver, fan_out
from kameng_api.kit import log, traces
from kameng_api.kit.crypto import Keyring
from kameng_api.kit.db import Database
from kameng_api.kit.doorbell import QUEUE, deserialize, serialize
from kameng_api.kit.fresh import Fresh
from kameng_api.kit.http import build_client
from kameng_api.kit.memory import settle_memory
from kameng_api.settings import Settings
from kameng_api.suppliers.connections import Connections
from kameng_api.suppliers.registry import list_adapters, use_files
from kameng_api.tasks.rules import Lane

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Job:
    """A lane's loop: `run(desk, limit)` claims up to `limit` and returns how many it found."""

    name: str
    lane: Lane
    run: Callable[[Any, int], Awaitable[int]]
    limit: int


async def _fan_out(desk: Desk, _limit: int) -> int:
    return await fan_out(desk)


JOBS: Final = (
    Job("orders.submit", Lane.SUBMIT, submit, 200),
    Job("orders.look_up", Lane.LOOK_UP, look_up, 200),
    Job("callbacks.apply", Lane.CALLBACK, apply_callbacks, 200),
    Job("webhooks.fan_out", Lane.WEBHOOK, _fan_out, 2000),
    Job("webhooks.deliver", Lane.WEBHOOK, deliver, 500),
    Job("doors.call_back", Lane.DOOR, call_back, 100),
    Job("batches.advance", Lane.BATCH, advance_batches, 4),
)
"""Every job that claims work. The clocks are the `CHORES` of `jobs.upkeep`, `route_chores`, `monitor`, `statements`, `reconciliation`,
`evidence`, `restores`, `balances`, `batches` and `supplier_desk`."""

_CLOCKS: Final = (
    *CHORES, *route_chores.CHORES, *monitor.CHORES, *statements.CHORES, *reconciliation.CHORES, *evidence.CHORES, *restores.CHORES,
    *balances.CHORES, *batches.CHORES, *catalog_sync.CHORES, *supplier_desk.CHORES,
)  # fmt: skip


_FIRST_CHORE_S: Final = 10.0
"""Within so many seconds of a start every clock strikes first (sooner, if its own wait is shorter). Within one second, some thirty chores
would have their first statements planned while the orders that waited for the worker are bought."""


class Bells:
    """One event per job; ringing a lane wakes all of its jobs."""

    def __init__(self) -> None:
        self._bells = {job.name: asyncio.Event() for job in JOBS}

    def ring(self, lane: str) -> None:
        for job in JOBS:
            if job.lane == lane:
                self._bells[job.name].set()

    def ring_job(self, name: str) -> None:
        self._bells[name].set()

    def ring_after_settling(self) -> None:
        """Answers were recorded: there may be merchants to tell, and orders to go on with."""
        self.ring_job("webhooks.fan_out")
        self.ring_job("orders.submit")

    async def wait(self, name: str, longest_s: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(longest_s):
                await self._bells[name].wait()
        self._bells[name].clear()


def run(settings: Settings) -> None:
    """Work until SIGTERM or SIGINT, then let every call that is under way end and be recorded."""
    log.configure(settings.log_level)
    uvloop.run(work(settings))


async def work(settings: Settings, stopping: asyncio.Event | None = None, db: Database | None = None) -> None:
    """The worker's life. `stopping` ends it from inside a test; otherwise signals do. `db` takes the place of a pool of its own."""
    traces.start(settings.otlp_endpoint, name="kameng-worker")
    use_files(settings.supplier_files)
    list_adapters()  # a broken adapter folder stops the start, not the first order
    parse_sinks([sink.get_secret_value() for sink in settings.alarm_sinks])  # nor is the first alarm the moment to find a typing error
    stopping = stopping or _stop_on_signals()
    desk = await open_desk(settings, db)
    settle_memory()
    bells = Bells()
    desk.buyer.on_room = lambda: bells.ring_job("orders.submit")
    desk.buyer.on_settled = bells.ring_after_settling
    desk.courier.on_due = lambda: bells.ring_job("webhooks.deliver")
    loops = [asyncio.create_task(_lane(job, desk, bells, stopping)) for job in JOBS if job.lane in settings.lanes]
    if Lane.UPKEEP in settings.lanes:
        loops += [asyncio.create_task(_clock(chore, desk, stopping)) for chore in _CLOCKS if not chore.cut]
    cut_off = [asyncio.create_task(_clock(chore, desk, stopping)) for chore in _CLOCKS if chore.cut and Lane.UPKEEP in settings.lanes]
    listening = asyncio.create_task(_listen(settings, bells))
    measuring = asyncio.create_task(Gauges(desk.buyer.pulse.sample).serve(settings, desk.db))
    _log.info("worker.started", worker=desk.worker, lanes=list(settings.lanes))
    await stopping.wait()
    _log.info("worker.draining", worker=desk.worker)
    for job in JOBS:
        bells.ring_job(job.name)  # nobody sleeps through the end, however slow the tick
    listening.cancel()
    measuring.cancel()
    for clock in cut_off:
        clock.cancel()
    await asyncio.gather(*loops, *cut_off, measuring, return_exceptions=True)
    await close_desk(desk)
    traces.stop()
    _log.info("worker.stopped", worker=desk.worker)


def _stop_on_signals() -> asyncio.Event:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    return stopping


async def open_desk(settings: Settings, db: Database | None = None) -> Desk:
    """Connect to everything a worker needs. Raises when the database cannot be read."""
    assert settings.database_url is not None
    db = db or Database(settings.database_url.get_secret_value(), pool_size=settings.database_pool)
    keyring = Keyring(settings.kek_bytes, next(iter(settings.kek_bytes)))
    client = build_client(
        max_connections=2 * settings.supplier_concurrency + 20, connect_timeout_s=5.0, read_timeout_s=120.0, guard=False
    )
    connections = Connections(keyring, client, base_url=settings.base_url, timeout_s=settings.supplier_timeout_s)

    catalog: Fresh[Snapshot] = Fresh(CatalogLoader(db), 0.5)
    worker = f"{socket.gethostname()}:{os.getpid()}"
    desk = Desk(settings, db, keyring, catalog, connections, worker)
    desk.standing = Fresh(restores.StandingLoader(db), 1.0)
    if await desk.standing.refresh() is Standing.MOVED:
        await db.close()
        raise RuntimeError("this database was restored, or moved to another server: run `kameng restore begin` before any worker")
    await desk.standing.start()
    await desk.catalog.start()
    redis_url = None if settings.redis_url is None else settings.redis_url.get_secret_value()
    pulse = Pulse(db, redis_url, desk.catalog, connections, worker)
    desk.buyer = Buyer(db, keyring, desk.catalog, connections, settings, worker, pulse)
    desk.courier = Courier(db, keyring, settings, worker)
    letters = {door.name: door.letters for door in list_doors() if door.letters is not None}
    desk.messenger = Messenger(db, keyring, settings, worker, letters)
    await desk.buyer.start()
    return desk


async def close_desk(desk: Desk) -> None:
    """Let every call that is under way end and be recorded, then let go of the servers."""
    await desk.buyer.stop()
    await desk.courier.stop()
    await desk.messenger.stop()
    await desk.catalog.stop()
    await desk.standing.stop()
    await desk.connections.close()
    await desk.db.close()


async def _lane(job: Job, desk: Desk, bells: Bells, stopping: asyncio.Event) -> None:
    """Claim while there is work; otherwise wait for the bell, or for the tick."""
    trouble_s = 0.0
    while not stopping.is_set():
        try:
            # While a restore is open nothing is bought: orders wait, everything else goes on.
            held = job.lane is Lane.SUBMIT and desk.standing.current is not Standing.WELL
            found = 0 if held else await job.run(desk, job.limit)
            trouble_s = 0.0
        except Exception as trouble:
            _log.warning("job.failed", job=job.name, trouble=type(trouble).__name__, exc_info=trouble_s == 0.0)
            found = 0
            trouble_s = min(max(2 * trouble_s, 0.1), 5.0)
            await asyncio.sleep(trouble_s)
        if not found and not stopping.is_set():
            await bells.wait(job.name, desk.settings.tick_s * random.uniform(0.8, 1.2))  # noqa: S311  spreads ticks only


async def _clock(chore: Chore, desk: Desk, stopping: asyncio.Event) -> None:
    """Run a chore every so often; how long it takes does not matter, that it raises neither."""
    await _rest(stopping, random.uniform(0, min(chore.every_s, _FIRST_CHORE_S)))  # noqa: S311  spreads processes only
    while not stopping.is_set():
        try:
            await chore.run(desk)
        except Exception as trouble:
            _log.warning("chore.failed", chore=chore.name, trouble=type(trouble).__name__, exc_info=True)
        await _rest(stopping, chore.every_s)


async def _rest(stopping: asyncio.Event, longest_s: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(longest_s):
            await stopping.wait()


async def _listen(settings: Settings, bells: Bells) -> None:
    """Host arq for the doorbell, and start it again whenever Redis went away."""
    if settings.redis_url is None:
        return
    while True:
        try:
            await _arq(settings.redis_url.get_secret_value(), bells)
        except asyncio.CancelledError:
            raise
        except Exception as trouble:
            _log.warning("doorbell.lost", trouble=type(trouble).__name__)
        await asyncio.sleep(1.0)


async def _arq(redis_url: str, bells: Bells) -> None:
    async def ring(_context: dict[Any, Any], lane: str) -> None:
        bells.ring(lane)

    pool = ConnectionPool.from_url(redis_url, socket_connect_timeout=2.0)
    redis = ArqRedis(pool, job_serializer=serialize, job_deserializer=deserialize, default_queue_name=QUEUE)
    worker = ArqWorker(
        functions=[func(cast(WorkerCoroutine, ring), name="ring", keep_result=0, max_tries=1)],
        redis_pool=redis,
        queue_name=QUEUE,
        handle_signals=False,
        max_jobs=50,
        job_timeout=5,
        keep_result=0,
        max_tries=1,
        retry_jobs=False,
        poll_delay=0.05,
        queue_read_limit=500,
        job_completion_wait=1,
        health_check_interval=10,
        job_serializer=serialize,
        job_deserializer=deserialize,
        log_results=False,
    )
    try:
        await worker.async_run()
    finally:
        with suppress(Exception):
            await worker.close()
