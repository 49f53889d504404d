"""Orders per second through one worker: supplier call, settlement and webhook, all over HTTP; against two bare POSTs per order."""

import asyncio
import sqlite3
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.figures import column, conclude, cpu_us, say, spread
from benchmarks.generator import Generator
from benchmarks.house import APP_KEY, PRODUCT_CODE, TARGET, UNIT_COST, House, open_house
from benchmarks.machine import Failed, Process, machine
from kameng_api.kit.db import fetch
from kameng_api.reconciliation import invariants

MERCHANTS: Final = 10
ROUNDS: Final = 3
ORDERS: Final = 15_000
IN_FLIGHT: Final = 100
_PATIENCE_S: Final = 240.0


@dataclass
class Scene:
    """Everything but the worker."""

    house: House
    load: Generator
    receiver: Process
    posts: Process
    api: Process
    api_port: int
    supplier_url: str
    receiver_url: str
    supplier_file: Path

    async def place(self, orders: int) -> None:
        """Accept orders while nobody works on them."""
        figures = await self.load.round(self.api_port, warm_s=0, orders=orders)
        if figures["acknowledged"] != orders:
            raise Failed(f"placed {figures['acknowledged']} of {orders}")

    async def until_heard(self, events: int) -> dict[str, Any]:
        """Wait until the merchants have heard of so many orders. Raises Failed when it takes too long."""
        give_up_at = time.monotonic() + _PATIENCE_S
        while True:
            heard: dict[str, Any] = await self.receiver.ask(ids=False)
            if heard["events"] >= events:
                return heard
            if time.monotonic() > give_up_at:
                raise Failed(f"only {heard['events']} of {events} webhooks after {_PATIENCE_S:.0f} s")
            await asyncio.sleep(0.05)

    async def drain(self, orders: int) -> dict[str, Any]:
        """Place, start the worker, wait for the last webhook. Orders/s from the first purchase that reached the supplier to it."""
        await self.receiver.ask(forget=True)
        bought_before = self._bought()[1]
        await self.place(orders)
        worker = await self.house.worker()
        already = (await self.until_heard(1))["events"]
        self.house.meter.start()
        heard = await self.until_heard(orders)
        reading, resident_mb = self.house.meter.read(), worker.resident_mb()
        await worker.stop()
        with sqlite3.connect(f"file:{self.supplier_file}?mode=ro", uri=True) as file:
            [first_at] = file.execute("SELECT min(at) FROM delivery WHERE id > ?", (bought_before,)).fetchone()
        await self._all_final()
        return {
            "per_s": round(orders / (heard["last_at"] - first_at), 1),
            "others": round(reading.cores_of_others, 2),
            "cpu_us": reading.us_per(orders - already),
            "worker_mb": resident_mb,
        }

    async def bare(self, orders: int) -> dict[str, Any]:
        """The two POSTs, for as many orders."""
        self.house.meter.start()
        figures = await self.posts.ask(
            orders=orders, supplier=self.supplier_url, receiver=self.receiver_url, secret=self.house.simulator_secret, app_key=APP_KEY,
            product_code=PRODUCT_CODE, target=TARGET, max_cost=UNIT_COST, in_flight=IN_FLIGHT,
        )  # fmt: skip
        if figures["wrong"]:
            raise Failed(f"{figures['wrong']} bare posts went wrong")
        reading = self.house.meter.read()
        return {"per_s": figures["per_s"], "others": round(reading.cores_of_others, 2), "cpu_us": reading.us_per(orders)}

    def _bought(self) -> tuple[int, int]:
        """Deliveries in the supplier's own log: how many, and the last one's id."""
        with sqlite3.connect(f"file:{self.supplier_file}?mode=ro", uri=True) as file:
            count, last = file.execute("SELECT count(*), coalesce(max(id), 0) FROM delivery").fetchone()
        return count, last

    async def _all_final(self) -> None:
        async with self.house.db.transaction() as tx:
            rows = await fetch(tx, "SELECT status, count(*) AS n FROM orders WHERE status <> 'succeeded' GROUP BY 1")
        if rows:
            raise Failed(f"not everything succeeded: {[dict(r) for r in rows]}")

    async def check(self) -> dict[str, int]:
        """The books agree, each order was delivered once by the supplier's own log, each merchant was told. Raises Failed."""
        async with self.house.db.transaction() as tx:
            breaches = await invariants.check_all(tx)
            [orders] = await fetch(tx, "SELECT count(*) AS n, sum(delivered_units) AS units FROM orders")
            references = {r["reference"] for r in await fetch(tx, "SELECT reference FROM attempts WHERE state = 'delivered'")}
            untold = await fetch(tx, "SELECT count(*) AS n FROM webhook_deliveries WHERE state <> 'delivered'")
        with sqlite3.connect(f"file:{self.supplier_file}?mode=ro", uri=True) as file:
            log = [row[0] for row in file.execute("SELECT reference FROM delivery")]
        ours = [reference for reference in log if reference in references]
        if breaches:
            raise Failed(f"the books do not agree: {breaches[:5]}")
        if not orders["n"] == orders["units"] == len(ours) == len(set(ours)) == len(references):
            raise Failed(f"{orders['n']} orders, {len(ours)} deliveries of {len(set(ours))} references, {len(references)} attempts")
        if untold[0]["n"]:
            raise Failed(f"{untold[0]['n']} webhooks are not delivered")
        return {"orders": orders["n"], "deliveries": len(ours), "breaches": 0}


async def ready_to_drain(house: House, merchants: int = MERCHANTS) -> Scene:
    """Supplier, receiver, API and merchants with an endpoint each; no worker."""
    _, supplier_url, supplier_file = await house.simulator()
    await house.stock(supplier_url)
    await house.let_in(merchants)
    receiver = await house.spoken("receiver")
    receiver_url = f"http://127.0.0.1:{(await receiver.hear())['port']}/hooks"
    await house.tell_me_at(receiver_url)
    api, api_port = await house.api()
    posts = await house.spoken("posts")
    return Scene(house, await Generator.start(house), receiver, posts, api, api_port, supplier_url, receiver_url, supplier_file)


async def measure() -> bool:
    """The whole benchmark. True when the figures reach what is asked for."""
    stands_on = await machine()
    found: dict[str, list[dict[str, Any]]] = {"bare": [], "drain": []}
    async with open_house("drain") as house:
        scene = await ready_to_drain(house)
        for n in range(ROUNDS):
            for what in ("bare", "drain") if n % 2 == 0 else ("drain", "bare"):
                figures = await (scene.bare(ORDERS) if what == "bare" else scene.drain(ORDERS))
                found[what].append(figures)
                say(f"  {what:<5} {figures['per_s']:>7.0f} orders/s  others {figures['others']:.2f} cores  CPU µs each {figures['cpu_us']}")
        stored = await scene.load.verify()
        checked = await scene.check()
    drained, bare = column(found["drain"], "per_s"), column(found["bare"], "per_s")
    ratios = [mine / limit for mine, limit in zip(drained, bare, strict=True)]
    ratio = statistics.median(ratios)
    conclude(
        "drain",
        ratio,
        {
            "orders_per_s": spread(drained),
            "two_bare_posts_per_s": spread(bare),
            "ratio": spread(ratios),
            "orders_per_round": ORDERS,
            "merchants": MERCHANTS,
            "cpu_us_per_order": {name: cpu_us(of) for name, of in found.items()},
            "cores_of_others": spread([r["others"] for of in found.values() for r in of]),
            "worker_mb_at_the_end": spread(column(found["drain"], "worker_mb")),
            "verified_orders": stored,
            "checked": checked,
            "wanted": {"orders_per_s": 1000, "ratio": 0.5},
            "machine": stands_on,
        },
    )
    return ratio >= 0.5 and statistics.median(drained) >= 1000
