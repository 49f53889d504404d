"""In every fault of the database server: 503 `unavailable` with `retry: same_request`, in time; afterwards well by itself, and one right order."""

import asyncio
import contextlib
import os
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Final

import asyncpg
import httpx
import pytest
from tests.chaos.dbfaults.place import SERVER, WELL, House, is_unavailable, one_order_each, timed, until_well
from tests.chaos.proxy import Fault
from tests.factories.client import Client, door_of
from tests.factories.shop import eventually, running_worker
from tests.simulator.conftest import Simulator

from kameng_api.embedded import places, postgres, servers
from kameng_api.kit.db import Database
from kameng_api.reconciliation import invariants

_COMMIT_ANSWERED: Final = b"COMMIT\x00"
"""How PostgreSQL ends its answer to COMMIT."""


async def delivered_once(house: House, simulator: Simulator, numbers: list[str]) -> None:
    """Every order ends well, each was bought once by the supplier's own log, and the books agree."""

    async def all_done() -> bool:
        return set((await one_order_each(house, numbers)).values()) == {"succeeded"}

    await eventually(all_done, within_s=30)
    owner = await house.owner()
    joined = "SELECT a.reference FROM attempts a JOIN orders o USING (book_id, order_id) WHERE o.merchant_order_no = ANY ($1)"
    rows = await owner.fetch(joined, numbers)
    await owner.close()
    found = [await simulator.delivered(r["reference"]) for r in rows]
    assert sum(found) == len(numbers) and max(found) == 1
    db = Database(house.found.app_url, pool_size=1)
    async with db.transaction() as tx:
        assert await invariants.check_all(tx) == []
    await db.close()


async def test_a_server_that_is_restarted_at_once_under_load(house: House, simulator: Simulator) -> None:
    """PostgreSQL's "immediate" stop: no farewell, recovery from the WAL at the next start."""
    answers: list[httpx.Response] = []

    async def buy(client: Client, body: dict[str, Any], stopping: asyncio.Event) -> None:
        while True:
            answer, _ = await timed(client.post("/v1/orders", body))
            answers.append(answer)
            if answer.status_code in (200, 201):
                return
            await asyncio.sleep(0.2)

    async def buyer(client: Client, stopping: asyncio.Event) -> None:
        while not stopping.is_set():
            await buy(client, house.next_body(), stopping)

    async with running_worker(house.settings), house.app() as (_, client):
        stopping = asyncio.Event()
        buyers = [asyncio.create_task(buyer(client, stopping)) for _ in range(8)]
        await eventually(_one_delivered(house), within_s=30)  # a worker that finds no database at its start ends, for its supervisor to see
        os.kill(house.server_pid(), signal.SIGQUIT)
        await asyncio.sleep(1.0)
        await house.start_again()
        await until_well(client, house.next_body())
        stopping.set()
        await asyncio.gather(*buyers)
        trouble = [a for a in answers if a.status_code not in (200, 201)]
        assert trouble, "the fault was not felt"
        for answer in trouble:
            is_unavailable(answer)
        await delivered_once(house, simulator, house.numbers)


async def test_a_connection_that_is_cut_after_commit_was_sent(house: House) -> None:
    """The server has committed and its word is lost: nobody knows, so the answer says so, and the same number meets its order."""
    async with house.wire() as (wire, settings), house.app(**settings) as (_, client):
        body = house.next_body()
        wire.set(Fault(cut_at=_COMMIT_ANSWERED))
        answer, took_s = await timed(client.post("/v1/orders", body))
        wire.set(WELL)
        is_unavailable(answer)
        assert answer.json()["charged"] == "unknown" and took_s < 6
        assert await one_order_each(house, [body["merchant_order_no"]]) == {body["merchant_order_no"]: "accepted"}, "it was to be committed"
        again = await until_well(client, body)
        assert again.status_code == 200 and again.headers["idempotent-replayed"] == "true"
        await one_order_each(house, house.numbers)


async def test_workers_whose_commits_are_never_answered_buy_nothing_twice(house: House, simulator: Simulator) -> None:
    async with house.wire() as (wire, settings), house.app() as (_, client):
        through = house.settings.model_copy(update=settings)
        await until_well(client, house.next_body())
        async with running_worker(through):
            await eventually(_one_delivered(house), within_s=30)
            wire.set(Fault(cut_at=_COMMIT_ANSWERED, chance=0.5))
            for _ in range(20):
                await until_well(client, house.next_body())
            await asyncio.sleep(2.0)
            wire.set(WELL)
            assert wire.resets, "the fault was not felt"
            owner = await house.owner()  # what a worker had claimed in a commit that it never heard of is free again when the lease is over
            await asyncio.sleep(1.0)
            await owner.execute("UPDATE tasks SET lease_until = now() - interval '1 second' WHERE state = 'running'")
            await owner.close()
            await _in_the_end(house)
        await _nothing_twice(house, simulator)


def _one_delivered(house: House) -> Callable[[], Awaitable[Any]]:
    async def found() -> Any:
        owner = await house.owner()
        try:
            return await owner.fetchval("SELECT count(*) FROM orders WHERE status = 'succeeded'")
        finally:
            await owner.close()

    return found


async def _in_the_end(house: House) -> None:
    """An hour passes, again and again, until every order is final."""
    owner = await house.owner()
    try:
        async with asyncio.timeout(40):
            while await owner.fetchval("SELECT count(*) FROM orders WHERE status IN ('accepted', 'processing')"):
                await asyncio.sleep(0.3)
                await owner.execute(
                    """UPDATE tasks SET run_at = now() WHERE state = 'ready' AND run_at > now();
                    UPDATE attempts SET sent_at = sent_at - interval '1 hour', not_found_first_at = not_found_first_at - interval '1 hour'
                    WHERE state = 'unknown' AND not_found_first_at > now() - interval '1 minute'"""
                )
    finally:
        await owner.close()


async def _nothing_twice(house: House, simulator: Simulator) -> None:
    owner = await house.owner()
    rows = await owner.fetch("SELECT a.reference, a.delivered_units FROM attempts a")
    await owner.close()
    for row in rows:
        assert await simulator.delivered(row["reference"]) == row["delivered_units"], row["reference"]
    assert set((await one_order_each(house, house.numbers)).values()) == {"succeeded"}
    db = Database(house.found.app_url, pool_size=1)
    async with db.transaction() as tx:
        assert await invariants.check_all(tx) == []
    await db.close()


async def test_a_table_that_is_locked_for_longer_than_we_wait(house: House) -> None:
    async with house.app() as (_, client):
        owner = await house.owner()
        body = house.next_body()
        async with owner.transaction():
            await owner.execute("LOCK TABLE orders IN ACCESS EXCLUSIVE MODE")
            placing, reading = await asyncio.gather(timed(client.post("/v1/orders", body)), timed(client.get("/v1/orders")))
            assert (await client.get("/livez")).status_code == 200
        await owner.close()
        is_unavailable(placing[0])
        is_unavailable(reading[0], writing=False)
        assert max(placing[1], reading[1]) < 8
        await until_well(client, body)
        await one_order_each(house, house.numbers)


async def test_a_pool_that_has_no_connection_left(house: House) -> None:
    async with house.app(database_pool=2) as (app, client):
        db, release = door_of(app).db, asyncio.Event()

        async def hold() -> None:
            async with db.transaction():
                await release.wait()

        holding = [asyncio.create_task(hold()) for _ in range(2)]
        await eventually(_pool_is_full(db))
        body = house.next_body()
        answer, took_s = await timed(client.post("/v1/orders", body))
        is_unavailable(answer)
        assert took_s < 8
        release.set()
        await asyncio.gather(*holding)
        assert (await until_well(client, body)).status_code == 201
        await one_order_each(house, house.numbers)


def _pool_is_full(db: Database) -> Any:
    async def full() -> bool:
        return db.pool_in_use() == 2

    return full


async def test_a_server_that_takes_no_more_connections(house: House) -> None:
    async with house.app() as (_, client), contextlib.AsyncExitStack() as stack:
        superuser = await as_superuser(house)  # to the end: a place that is given back late is one that the app finds
        stack.push_async_callback(superuser.close)

        async def take_every_place() -> int:
            taken = 0
            with contextlib.suppress(asyncpg.TooManyConnectionsError):
                while True:
                    stack.push_async_callback((await house.owner()).close)
                    taken += 1
            return taken

        await take_every_place()
        async with asyncio.timeout(20):
            while await end_connections_of_app(superuser) + await take_every_place():
                pass  # others were quicker to take their places
        body = house.next_body()
        answer, took_s = await timed(client.post("/v1/orders", body))
        is_unavailable(answer)
        assert took_s < 8
        await stack.aclose()
        assert (await until_well(client, body)).status_code == 201
        await one_order_each(house, house.numbers)


async def as_superuser(house: House) -> "asyncpg.Connection[asyncpg.Record]":
    ground = places.recall(house.found.var)
    assert ground is not None
    return await asyncpg.connect(house.owner_url(), user="postgres", password=ground.record.superuser_password)


async def end_connections_of_app(superuser: "asyncpg.Connection[asyncpg.Record]") -> int:
    """How many there were."""
    return int(await superuser.fetchval("SELECT count(pg_terminate_backend(pid, 1000)) FROM pg_stat_activity WHERE usename = 'kameng_app'"))


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A disk of 256 MB that the server's account can reach. Skips where this account may not mount one."""
    disk = Path(tempfile.mkdtemp(prefix="kameng-disk-", dir="/tmp"))
    disk.chmod(0o711)
    mount = ["mount", "-t", "tmpfs", "-o", "size=256m,mode=0777", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        disk.rmdir()
        pytest.skip("only an account that may mount a tmpfs can fill a disk of its own")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=False)
    disk.rmdir()


@pytest.fixture
async def wal_on_small_disk(house: House, small_disk: Path) -> AsyncIterator[Path]:
    """The WAL of the server stands on it, and is brought back at the end."""
    ground = places.recall(house.found.var)
    assert ground is not None
    inside = house.data_folder() / "pg_wal"
    await asyncio.to_thread(postgres.stop, ground)
    await asyncio.to_thread(_move, inside, small_disk / "pg_wal")
    inside.symlink_to(small_disk / "pg_wal")
    await asyncio.to_thread(_start_with_little_wal, house)
    yield small_disk
    (small_disk / "filler").unlink(missing_ok=True)
    if postgres.pid_of(ground.place) is not None:
        await asyncio.to_thread(postgres.stop, ground)
    inside.unlink()
    await asyncio.to_thread(_move, small_disk / "pg_wal", inside)
    await house.start_again()


def _move(there: Path, to: Path) -> None:
    subprocess.run(["cp", "-a", str(there), str(to)], check=True)
    subprocess.run(["rm", "-rf", str(there)], check=True)


def _start_with_little_wal(house: House) -> None:
    servers.start(house.found.var, redis=False, settings={**SERVER, "max_wal_size": "64MB", "min_wal_size": "32MB"})


async def test_a_disk_of_the_wal_that_is_full(house: House, simulator: Simulator, wal_on_small_disk: Path) -> None:
    """PostgreSQL stops itself rather than lose a commit. What it had confirmed is there when there is room again."""
    async with house.app() as (_, client):
        first = house.next_body()
        await until_well(client, first)
        filler = wal_on_small_disk / "filler"
        await asyncio.to_thread(_fill, filler)
        for _ in range(5):
            await _write_much(house)
            body = house.next_body()
            answer, _ = await timed(client.post("/v1/orders", body))
            if answer.status_code != 201:
                break
        is_unavailable(answer)
        read, _ = await timed(client.get("/v1/orders"))
        if read.status_code != 200:
            is_unavailable(read, writing=False)
        filler.unlink()
        await asyncio.to_thread(_start_with_little_wal, house)
        await until_well(client, body)
        assert (await client.post("/v1/orders", first)).status_code == 200
        async with running_worker(house.settings):
            await delivered_once(house, simulator, house.numbers)


async def _write_much(house: House) -> None:
    """More than the segments that are still there can take."""
    with contextlib.suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
        owner = await house.owner()
        try:
            await owner.execute("CREATE TABLE ballast AS SELECT repeat('x', 500) AS x FROM generate_series(1, 300000)")
            await owner.execute("DROP TABLE ballast")
        finally:
            owner.terminate()


def _fill(file: Path) -> None:
    with file.open("wb") as out, contextlib.suppress(OSError):
        while True:
            out.write(bytes(1 << 20))
            out.flush()
