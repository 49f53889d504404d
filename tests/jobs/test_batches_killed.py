"""Workers killed in the middle of an import: every good row is ordered once, every bad one explained, and the file again buys nothing."""

import asyncio
import signal
from pathlib import Path

import pytest
from tests.factories.counter import PHONE, Counter
from tests.factories.shop import stock_the_shop
from tests.factories.workshop import stop, worker_process

from kameng_api.batches import actions, queries
from kameng_api.batches.actions import NewBatch
from kameng_api.batches.rules import Batch, Counts, Options
from kameng_api.kit.db import Database, fetch
from kameng_api.settings import Settings


def a_file(rows: int, bad_every: int) -> bytes:
    lines = ["merchant_order_no,sku,target,remark"]
    for n in range(rows):
        target = "1.38E+10" if n % bad_every == 0 else PHONE
        lines.append(f"PO-{n},mobile-cn-100,{target},row {n}")
    return "\r\n".join(lines).encode()


async def upload(counter: Counter, content: bytes, number: str) -> Batch:
    new = NewBatch(counter.book_id, number, "test", "CNY", Options(), False, content=content, filename="orders.csv")
    async with counter.db.transaction() as tx:
        batch, created = await actions.create(tx, counter.keyring, new)
    assert created
    return batch


async def look(counter: Counter, batch: Batch) -> tuple[Batch, Counts]:
    async with counter.db.transaction() as tx:
        found = await queries.get_batch(tx, *batch.key)
        return found, await queries.count(tx, found)


async def until_placed(counter: Counter, batch: Batch, pages: int | None = None, within_s: float = 90) -> None:
    async with asyncio.timeout(within_s):
        while True:
            async with counter.db.transaction() as tx:
                found = await queries.get_batch(tx, *batch.key)
            assert found.failure_code is None
            if found.is_read and found.pages_placed >= (found.pages if pages is None else pages):
                return
            await asyncio.sleep(0.02)


async def check(counter: Counter, batch: Batch, good: int, bad: int) -> None:
    _, counts = await look(counter, batch)
    assert (counts.total, counts.accepted, counts.invalid, counts.unprocessed) == (good + bad, good, bad, 0)
    async with counter.db.transaction() as tx:
        [orders] = await fetch(tx, "SELECT count(*) AS n, count(DISTINCT merchant_order_no) AS numbers FROM orders")
        [explained] = await fetch(tx, "SELECT count(*) AS n FROM batch_items WHERE status = 'invalid' AND error_code = 'scientific_notation'")
    assert (orders["n"], orders["numbers"]) == (good, good)
    await counter.holds()
    assert explained["n"] == bad * (1 if batch.merchant_batch_no == "F-1" else 2)


@pytest.mark.timeout(240)
async def test_killed_in_the_middle_and_uploaded_again(database: Database, settings: Settings, tmp_path: Path) -> None:
    await stock_the_shop(database, settings, "http://127.0.0.1:9", {"sim-a": "secret-of-sim-a-only-for-tests"})
    counter = await Counter.open(database, settings, money="1000000")
    content, good, bad = a_file(3_000, 100), 2_970, 30
    batch = await upload(counter, content, "F-1")
    for pages in (1, 6):  # the second dies in what the first had left
        async with worker_process(settings, tmp_path / "log", KAMENG_LANES="batch") as process:
            await until_placed(counter, batch, pages)
            await stop(process, signal.SIGKILL)
    async with worker_process(settings, tmp_path / "log", KAMENG_LANES="batch") as process:
        await until_placed(counter, batch)
        await check(counter, batch, good, bad)
        again = await upload(counter, content, "F-2")
        await until_placed(counter, again)
        await check(counter, again, good, bad)
        assert (await look(counter, again))[1].duplicates == good
        await stop(process, signal.SIGTERM)
