"""`make fuzz MINUTES=30`: rounds over every endpoint with ever new inputs until the time is over. Exit code 1 when an answer was wrong."""

import argparse
import asyncio
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from redis.asyncio import Redis
from tests.api.test_server import serving
from tests.conftest import migrate
from tests.factories import nursery
from tests.factories.client import Client
from tests.factories.merchants import make_merchant
from tests.factories.shop import PHONE, stock_the_shop
from tests.fuzz.target import IMPORT, Target
from tests.fuzz.uploads import BYTES, CSV, SKU, XLSX

from kameng_api.embedded import servers
from kameng_api.kit.db import Database, fetch
from kameng_api.settings import Settings

MAX_EXAMPLES = 20
GENEROUS = {"KAMENG_WEBHOOK_DEVELOPMENT": "true", "KAMENG_RATE_REVEALS_PER_S": "5000", "KAMENG_RATE_BATCHES_PER_MIN": "100000"}


async def fuzz(minutes: float, first_seed: int, only: str = "") -> int:
    """Returns how many faults were found; prints them, and what was sent. `only`: operations whose label holds this."""
    with tempfile.TemporaryDirectory(prefix="kameng-fuzz-") as folder:
        await asyncio.to_thread(Path(folder).chmod, 0o711)  # lets root's servers in
        with servers.running(Path(folder) / "var", settings={"shared_buffers": "128MB"}) as found:
            await asyncio.to_thread(migrate, found, "head")
            settings = Settings(_env_file=None, database_url=found.app_url, redis_url=found.redis_url, webhook_development=True)
            db = Database(found.app_url, pool_size=5)
            try:
                await stock_the_shop(db, settings, "http://127.0.0.1:9", {"sim-a": "secret-of-sim-a-only-for-tests"})
                merchant = await make_merchant(db, settings, money="100000000")
            finally:
                await db.close()
            async with (
                serving(found, Path(folder) / "log", **GENEROUS) as (base_url, _),
                Client(key=merchant.key, base_url=base_url) as client,
                working(found, Path(folder) / "worker.log"),
            ):
                target = Target(base_url, merchant.key, await possessions(client))
                target.operations = [operation for operation in target.operations if only in operation.label]
                faults = await asyncio.to_thread(rounds, target, minutes, first_seed)
                faults += await batches_in_trouble(found)
            async with Redis.from_url(found.redis_url) as redis:
                await redis.flushall()
            logs = [(Path(folder) / name).read_text(errors="replace") for name in ("log", "worker.log")]
            tracebacks = sum(said.count('"exception"') + said.count("Traceback") for said in logs)
    print(f"{sum(target.sent.values())} requests to {len(target.sent)} operations; answers {dict(sorted(target.by_status.items()))}; "
          f"tracebacks in the log {tracebacks}; faults {len(faults)}")  # fmt: skip
    if IMPORT in target.answers:
        print(f"files taken in {dict(sorted(target.kinds_sent.items()))}; imports answered {dict(sorted(target.answers[IMPORT].items()))}")
        faults += [f"no file of {kind} was taken in" for kind in (CSV, XLSX, BYTES) if not target.kinds_sent[kind]]
    refused = [label for label, answers in sorted(target.answers.items()) if min(answers) >= 300]
    for label in refused:
        print(f"never with success: {label}: {dict(target.refusals.get(label, Counter()).most_common(4))}")
    missed = [operation.label for operation in target.operations if operation.label not in target.sent]
    if missed:
        print("never sent:", ", ".join(missed))
    return len(faults) + len(missed) + tracebacks


@asynccontextmanager
async def working(servers_found: servers.Servers, log: Path) -> AsyncIterator[None]:
    """A worker that turns batches into orders and nothing else: what a file holds is looked at by it alone, and nobody's address is called."""
    environment = os.environ | {"KAMENG_DATABASE_URL": servers_found.app_url, "KAMENG_REDIS_URL": servers_found.redis_url, "KAMENG_TICK_S": "0.1"}
    with log.open("wb") as out:
        process = nursery.popen(["-m", "kameng_api.cli", "worker", "--lane", "batch"], env=environment, stdout=out, stderr=out)
    try:
        yield
        assert process.poll() is None, log.read_text()  # noqa: ASYNC240  a few lines
    finally:
        process.terminate()
        await process.ended()


async def batches_in_trouble(found: servers.Servers) -> list[str]:
    """Batches that a worker failed at, or that are not read after all this time: whatever a file holds, it ends as a batch or as refused."""
    db = Database(found.app_url, pool_size=1)
    try:
        for _ in range(300):
            async with db.transaction() as tx:
                unread = await fetch(tx, "SELECT merchant_batch_no FROM batches WHERE state = 'validating'")
                failed = await fetch(tx, "SELECT ref, state, attempts, trouble FROM tasks WHERE lane = 'batch' AND trouble IS NOT NULL")
            if not unread or failed:
                break
            await asyncio.sleep(0.1)
        async with db.transaction() as tx:
            ended = await fetch(tx, "SELECT kind, state, failure_code, count(*) AS n FROM batches GROUP BY 1, 2, 3 ORDER BY 1, 2, 3")
    finally:
        await db.close()
    print("batches:", ", ".join(f"{r['n']} {r['kind']} {r['state']}{' ' + r['failure_code'] if r['failure_code'] else ''}" for r in ended))
    return [f"batch {r['ref']} {r['state']} after {r['attempts']}: {r['trouble']}" for r in failed] + [
        f"batch {r['merchant_batch_no']} was never read" for r in unread
    ]


async def possessions(client: Client) -> dict[str, list[str]]:
    """Path parameter → things of the merchant's own, so that not every answer is 404."""
    order = await client.post("/v1/orders", {"merchant_order_no": "PO-mine", "sku": SKU, "target": PHONE})
    endpoint = await client.post("/v1/webhook-endpoints", {"url": "https://merchant.example/hook"})
    assert (order.status_code, endpoint.status_code) == (201, 201), (order.text, endpoint.text)
    rows = f"sku,target,shop\r\n{SKU},{PHONE},east\r\n{SKU},138,west\r\n"
    query = "merchant_batch_no=F-mine&filename=mine.csv"
    batch = await client.post(f"/v1/order-imports?{query}", rows.encode(), headers={"Content-Type": CSV})
    assert batch.status_code == 202, batch.text
    for _ in range(100):
        accepted = [e for e in (await client.get("/v1/events")).json()["items"] if e["type"] == "order.accepted"]
        if accepted:
            break
        await asyncio.sleep(0.1)
    return {
        "order_id": [order.json()["id"]], "endpoint_id": [endpoint.json()["id"]], "event_id": [accepted[0]["id"]],
        "merchant_order_no": ["PO-mine"], "sku": [SKU], "batch_id": [batch.json()["id"]], "merchant_batch_no": ["F-mine"],
        "line_no": ["1", "2", "3"], "number": [PHONE],
    }  # fmt: skip


def rounds(target: Target, minutes: float, first_seed: int) -> list[str]:
    """At least one whole round is made, however short the time: each endpoint is asked."""
    until, faults, number = time.monotonic() + minutes * 60, [], 0
    while number == 0 or time.monotonic() < until:
        for operation in target.operations:
            if number and time.monotonic() >= until:
                break
            for fault in target.faults_of(operation, max_examples=MAX_EXAMPLES, seeded=first_seed + number):
                faults.append(fault)
                print(f"seed {first_seed + number}: {fault}\n", flush=True)
        number += 1
    return faults


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--minutes", type=float, default=3)
    asked.add_argument("--seed", type=int, default=None)
    asked.add_argument("--only", default="", help="operations whose method and path hold this, such as order-imports")
    given = asked.parse_args()
    first_seed = given.seed if given.seed is not None else random.randrange(2**31)
    print(f"seed {first_seed}", flush=True)
    sys.exit(1 if asyncio.run(fuzz(given.minutes, first_seed, given.only)) else 0)


if __name__ == "__main__":
    main()
