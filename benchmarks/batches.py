"""Items of batches per second, durable at the door of one API process, beside single orders; and an import whose worker is killed.

What is accepted at the door is stored and due, and is placed by workers: orders placed per second by one worker are printed beside it.
"""

import asyncio
import os
import secrets
import signal
import statistics
import time
from typing import Any, Final

import aiohttp
import orjson

from benchmarks.figures import conclude, say, spread
from benchmarks.generator import Generator
from benchmarks.house import SKU, TARGET, Buyer, House, open_house
from benchmarks.machine import Failed, Process, machine
from kameng_api.kit.db import fetch
from kameng_api.kit.signing import HMAC_SCHEME, sign_request

ITEMS: Final = 1_000
BATCHES: Final = 100
ROUNDS: Final = 3
MERCHANTS: Final = 20
IN_FLIGHT: Final = 4
ROWS: Final = 20_000
BAD_EVERY: Final = 100
WANTED_PER_S: Final = 10_000
WANTED_IMPORT_S: Final = 30.0
_WORKER: Final = ("-c", "from kameng_api.cli import main; main()", "worker")


async def measure(batches: int = BATCHES, rounds: int = ROUNDS, rows: int = ROWS) -> bool:
    """The whole benchmark. True when the door and the import reach what is asked for."""
    stands_on = await machine()
    async with open_house("batches", merchants_count=MERCHANTS) as house:
        _, port = await house.api()
        load = await Generator.start(house)
        door, single, others = [], [], []
        for n in range(rounds):
            house.meter.start()
            door.append(await _at_the_door(house, port, f"R{n}", batches))
            others.append(round(house.meter.read().cores_of_others, 2))
            single.append((await load.round(port, seconds=4.0))["per_s"])
            say(f"  door {door[-1]:>8.0f} items/s   single {single[-1]:>7.0f} orders/s   others {others[-1]:.2f} cores")
        stored = await _count(house, "SELECT coalesce(sum(total), 0) AS n FROM batches WHERE merchant_batch_no ~ '^R'")
        if stored != batches * rounds * ITEMS:
            raise Failed(f"{stored} items stand in the database, {batches * rounds * ITEMS} were acknowledged")
        placed_per_s = await _placed(house, stored)
        say(f"  one worker places {placed_per_s:.0f} orders/s")
        imported = await _import_killed(house, port, rows)
    ratio = statistics.median(door) / statistics.median(single)
    conclude(
        "batches",
        ratio,
        {
            "items_per_s_at_the_door": spread(door),
            "single_orders_per_s": spread(single),
            "ratio": round(ratio, 2),
            "orders_placed_per_s_by_one_worker": round(placed_per_s),
            "ratio_of_placing": round(placed_per_s / statistics.median(single), 2),
            "import": imported,
            "cores_of_others": spread(others),
            "items": ITEMS,
            "wanted": {"items_per_s_at_the_door": WANTED_PER_S, "import_s": WANTED_IMPORT_S},
            "machine": stands_on,
        },
    )
    return statistics.median(door) >= WANTED_PER_S and imported["seconds"] <= WANTED_IMPORT_S


async def _post(session: aiohttp.ClientSession, buyer: Buyer, target: str, body: bytes, kind: str) -> dict[str, Any]:
    at, nonce = int(time.time()), secrets.token_hex(16)
    signed = sign_request(HMAC_SCHEME, buyer.secret.encode(), buyer.key_id, at, nonce, "POST", target.encode(), body)
    async with session.post(target, data=body, headers={"Authorization": signed, "Content-Type": kind}) as answer:
        content = await answer.read()
        if answer.status != 202:
            raise Failed(f"{answer.status}: {content[:300]!r}")
    found: dict[str, Any] = orjson.loads(content)
    return found


async def _at_the_door(house: House, port: int, prefix: str, batches: int) -> float:
    """Items per second, from the first byte sent to the last answer."""
    items = [{"sku": SKU, "target": TARGET} for _ in range(ITEMS)]
    bodies = [orjson.dumps({"merchant_batch_no": f"{prefix}-{n}", "items": items}) for n in range(batches)]
    waiting = list(enumerate(bodies))
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:

        async def send() -> None:
            while waiting:
                n, body = waiting.pop()
                await _post(session, house.buyers[n % len(house.buyers)], "/v1/order-batches", body, "application/json")

        began = time.perf_counter()
        await asyncio.gather(*(send() for _ in range(IN_FLIGHT)))
        return batches * ITEMS / (time.perf_counter() - began)


async def _count(house: House, sql: str) -> int:
    async with house.db.transaction() as tx:
        [row] = await fetch(tx, sql)
    return int(row["n"])


async def _worker(house: House, name: str) -> Process:
    process = await Process.start(f"{house.name}-{name}", _WORKER, house.var, house.environment(KAMENG_LANES="batch"))
    house.end_with(process)
    return process


_PLACED: Final = "SELECT count(*) AS n FROM batch_items WHERE status = 'placed'"


async def _placed(house: House, wanted: int) -> float:
    """Orders placed per second by one worker from its first order on; every batch is validated before. Over at most 20 s."""
    process = await _worker(house, "placing")
    async with asyncio.timeout(180):
        while not await _count(house, _PLACED):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    began, over, before = time.perf_counter(), 20.0, await _count(house, _PLACED)
    found = before
    while found < wanted and time.perf_counter() - began < over:
        await asyncio.sleep(0.5)
        found = await _count(house, _PLACED)
    per_s = (found - before) / (time.perf_counter() - began)
    await process.stop()
    async with house.db.transaction() as tx:  # what is left does not stand in the way of the import
        await fetch(tx, "DELETE FROM tasks WHERE lane = 'batch'")
    return per_s


async def _import_killed(house: House, port: int, rows: int) -> dict[str, Any]:
    """A file with bad rows, its worker killed in the middle, another one after it; then the same file again."""
    lines = ["merchant_order_no,sku,target,remark"]
    lines += [f"IMP-{n:06d},{SKU},{'1.38E+10' if n % BAD_EVERY == 0 else TARGET},row {n}" for n in range(rows)]
    content, buyer = "\r\n".join(lines).encode(), house.buyers[0]
    bad = -(-rows // BAD_EVERY)
    good = rows - bad
    numbers = f"SELECT count(*) AS n FROM orders WHERE book_id = {buyer.book_id} AND merchant_order_no ~ '^IMP-'"
    half = "SELECT count(*) AS n FROM batches WHERE merchant_batch_no = 'IMP-1' AND pages > 0 AND pages_placed * 2 >= pages"
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
        first = await _worker(house, "first")
        await asyncio.sleep(4.0)  # it stands and waits
        began = time.perf_counter()
        await _post(session, buyer, "/v1/order-imports?filename=orders.csv&merchant_batch_no=IMP-1", content, "text/csv")
        while await _count(house, half) == 0:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        os.kill(first.pid, signal.SIGKILL)
        died_s, at = time.perf_counter() - began, await _count(house, numbers)
        await _worker(house, "second")
        await _until_placed(house, "IMP-1")
        took = time.perf_counter() - began
        say(f"  import: killed after {died_s:.1f} s with {at} orders, all placed after {took:.1f} s")
        once = await _count(house, numbers)
        explained = await _count(house, "SELECT count(*) AS n FROM batch_items i JOIN batches b USING (book_id, batch_id) "
                                        "WHERE b.merchant_batch_no = 'IMP-1' AND i.status = 'invalid' AND i.error_code IS NOT NULL")  # fmt: skip
        await _post(session, buyer, "/v1/order-imports?filename=orders.csv&merchant_batch_no=IMP-2", content, "text/csv")
        await _until_placed(house, "IMP-2")
        again = await _count(house, numbers) - once
    if (once, explained, again) != (good, bad, 0):
        raise Failed(f"{once} orders for {good} good rows, {explained} of {bad} bad rows explained, {again} new ones from the same file")
    return {"rows": rows, "orders": once, "explained": explained, "new_from_upload_again": again, "killed_with": at, "seconds": round(took, 1)}


async def _until_placed(house: House, number: str) -> None:
    ready = f"SELECT count(*) AS n FROM batches WHERE merchant_batch_no = '{number}' AND pages > 0 AND pages_placed = pages"
    async with asyncio.timeout(180):
        while not await _count(house, ready):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
