"""A supplier's list of 100,000 lines read by one worker: seconds, the memory it takes, and what reading it again writes.

Beside it, in the same run, the least it could cost: the same lines read through the same adapter and thrown away, and the same rows written by
one plain COPY.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import astuple, dataclass, fields
from typing import Any, Final

import asyncpg
from sqlalchemy.engine import make_url

from benchmarks.figures import conclude, say
from benchmarks.house import House, open_house
from benchmarks.machine import Failed, Process, machine
from benchmarks.memory import Watch
from kameng_api.catalog import actions as catalog
from kameng_api.catalog.actions import NewChannel
from kameng_api.catalog.rules import Offer, Price, Product
from kameng_api.demo.processes import free_port
from kameng_api.kit.db import execute, fetch
from kameng_api.kit.http import build_client
from kameng_api.suppliers.listings import wishes
from kameng_api.suppliers.listings.rules import ListTerms
from kameng_api.suppliers.port import SupplierProduct
from kameng_api.suppliers.registry import get_adapter
from kameng_api.suppliers.transport import Transport

LINES: Final = 100_000
FEW: Final = 10_000
SOLD: Final = 1_000
SECRET: Final = "secret-of-the-list-benchmark"
WANTED_RATIO: Final = 6.0
WANTED_GROWTH_MB: Final = 25.0
_WORKER: Final = ("-c", "from kameng_api.cli import main; main()", "worker", "--lane", "upkeep")
_LONGEST_S: Final = 900.0


@dataclass(frozen=True, slots=True)
class Run:
    """One reading. `written_mb`: of write-ahead log, everybody's."""

    seconds: float
    written_mb: float
    row: dict[str, Any]


async def measure(lines: int = LINES, few: int = FEW) -> bool:
    """The whole benchmark. True when time and memory stay within what is asked for and the second reading changes nothing."""
    stands_on = await machine()
    async with open_house("catalog_sync") as house, _simulator(house, {"few": few, "many": lines}) as url:
        await _stock(house, url)
        read_s, told = await _read_alone(url, lines)
        copy_s = await _copy_alone(house, told)
        del told
        say(f"  the list read and thrown away {read_s:.1f} s, its rows by COPY {copy_s:.1f} s")
        worker = await Process.start("catalog-sync-worker", _WORKER, house.var, house.environment())
        house.end_with(worker)
        await asyncio.sleep(8.0)
        idle_mb = worker.resident_mb()
        watch = Watch(worker=worker)
        watching = asyncio.create_task(watch.run())
        await _sync(house, "few")
        small_mb = watch.highest["worker"]
        first = await _sync(house, "many")
        second = await _sync(house, "many")
        watching.cancel()
    peak_mb = watch.highest["worker"]
    say(f"  first {first.seconds:.1f} s, {first.written_mb:.0f} MB of log; again {second.seconds:.1f} s, {second.written_mb:.1f} MB")
    say(f"  resident {idle_mb} MB idle, {small_mb} MB with {few} lines, {peak_mb} MB with {lines}")
    if first.row["added"] != lines or first.row["state"] != "done":
        raise Failed(f"the reading ended as {first.row}")
    unchanged = all(second.row[name] == 0 for name in ("added", "changed", "gone", "applied", "reviews")) and second.row["lines"] == lines
    ratio = first.seconds / (read_s + copy_s)
    conclude(
        "catalog_sync",
        ratio,
        {
            "lines": lines, "sold": SOLD, "seconds": round(first.seconds, 2), "lines_per_s": round(lines / first.seconds),
            "again_seconds": round(second.seconds, 2), "again_changed_nothing": unchanged, "again_log_mb": round(second.written_mb, 2),
            "log_mb": round(first.written_mb, 1), "read_alone_s": round(read_s, 2), "copy_alone_s": round(copy_s, 2),
            "idle_mb": idle_mb, "peak_mb_few": small_mb, "peak_mb": peak_mb, "few": few,
            "wanted": {"ratio": WANTED_RATIO, "growth_mb": WANTED_GROWTH_MB}, "machine": stands_on,
        },
    )  # fmt: skip
    return unchanged and ratio <= WANTED_RATIO and peak_mb - small_mb <= WANTED_GROWTH_MB


def _code(n: int) -> str:
    return f"code-{n:06d}"


@asynccontextmanager
async def _simulator(house: House, accounts: dict[str, int]) -> AsyncIterator[str]:
    """Accounts with so many lines each."""

    def listed(count: int) -> list[dict[str, Any]]:
        return [
            {
                "code": _code(n), "name": f"商品 {n} 号，一行普通长度的名称", "type": "card", "cost": f"{9 + n % 90}.{n % 100:02d}",
                "stock": 1000 + n % 7,
            }
            for n in range(count)
        ]  # fmt: skip

    config = {
        "control_token": "token-of-this-run", "synchronous": "NORMAL",
        "suppliers": [{"name": name, "app_key": f"app-{name}", "secret": SECRET, "products": listed(count)} for name, count in accounts.items()],
    }  # fmt: skip
    path, port = house.var / "lists.json", free_port()
    path.write_text(json.dumps(config), encoding="utf-8")
    arguments = ("-m", "kameng_api.simulator", "--port", str(port), "--data", str(house.var / "lists.db"), "--config", str(path))
    process = await Process.start("catalog-sync-simulator", arguments, house.var, {})
    house.end_with(process)
    await process.until_it_answers(port, "/sim/health")
    yield f"http://127.0.0.1:{port}"


async def _stock(house: House, url: str) -> None:
    """Both channels, their lists without a clock of their own, and some lines sold."""
    async with house.db.transaction() as tx:
        for name in ("few", "many"):
            connection = {"base_url": url, "app_key": f"app-{name}", "secret": SECRET, "timeout_s": 20}
            await catalog.create_channel(tx, house.keyring, NewChannel(name, name, "simulator", "test", json.dumps(connection).encode()))
            await wishes.set_list(tx, name, wishes.ListWanted(False, 86_400, 86_400, 0, ListTerms()))
    for start in range(0, SOLD, 100):
        async with house.db.transaction() as tx:
            for n in range(start, start + 100):
                sku, cost = f"sku-{n:06d}", (9 + n % 90) * 10_000 + (n % 100) * 100
                await catalog.put_product(tx, Product(sku, sku, "card", face_value=cost))
                await catalog.set_price(tx, sku, Price(unit_price=2 * cost))
                await catalog.set_offer(tx, Offer("many", sku, _code(n), cost, stock=1000 + n % 7))


async def _read_alone(url: str, lines: int) -> tuple[float, list[SupplierProduct]]:
    adapter = get_adapter("simulator")
    client = build_client(max_connections=4, connect_timeout_s=5.0, read_timeout_s=60.0, guard=False)
    settings = adapter.settings.model_validate({"base_url": url, "app_key": "app-many", "secret": SECRET, "timeout_s": 20})
    supplier = adapter.connect(settings, Transport(client).send)
    assert supplier.products is not None
    found: list[SupplierProduct] = []
    began = time.perf_counter()
    async for page in supplier.products():
        found += page
    took = time.perf_counter() - began
    await client.aclose()
    if len(found) != lines:
        raise Failed(f"{len(found)} lines were told, {lines} there are")
    return took, found


async def _copy_alone(house: House, told: Sequence[SupplierProduct]) -> float:
    """The same rows into a table of the same shape, by COPY in one transaction."""
    assert house.settings.database_owner_url is not None
    url = make_url(house.settings.database_owner_url.get_secret_value()).set(drivername="postgresql").render_as_string(hide_password=False)
    connection = await asyncpg.connect(url)
    names = [f.name for f in fields(SupplierProduct)]
    empty = names.index("fields")
    rows = [("many", n, *(*(values := astuple(line))[:empty], "[]", *values[empty + 1 :])) for n, line in enumerate(told)]
    try:
        await connection.execute("CREATE TABLE bench_lines (LIKE supplier_products INCLUDING ALL)")
        began = time.perf_counter()
        await connection.copy_records_to_table("bench_lines", records=rows, columns=["channel_id", "number", *names])
        took = time.perf_counter() - began
        await connection.execute("DROP TABLE bench_lines")
    finally:
        await connection.close()
    return took


async def _sync(house: House, channel: str) -> Run:
    """Have the worker read a list, and wait for its end."""
    async with house.db.transaction() as tx:
        [before] = await fetch(tx, "SELECT count(*) AS n, pg_current_wal_lsn() AS at FROM catalog_syncs WHERE channel_id = $1", channel)
    async with house.db.transaction() as tx:
        await execute(tx, "UPDATE supplier_lists SET asked_by = 'bench' WHERE channel_id = $1", channel)
    give_up_at = time.monotonic() + _LONGEST_S
    while time.monotonic() < give_up_at:
        await asyncio.sleep(0.2)
        async with house.db.transaction() as tx:
            rows = await fetch(
                tx,
                """SELECT *, extract(epoch FROM ended_at - started_at)::float8 AS took, pg_wal_lsn_diff(pg_current_wal_lsn(), $3)::float8 / 1e6 AS mb
                FROM catalog_syncs WHERE channel_id = $1 AND ended_at IS NOT NULL ORDER BY sync_id OFFSET $2""",
                channel, before["n"], before["at"],
            )  # fmt: skip
        if rows:
            return Run(rows[0]["took"], rows[0]["mb"], dict(rows[0]))
    raise Failed(f"the list of {channel} was not read within {_LONGEST_S:.0f} s")
