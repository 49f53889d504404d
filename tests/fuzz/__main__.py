"""`make fuzz MINUTES=30`: rounds over every endpoint with ever new inputs until the time is over. Exit code 1 when an answer was wrong."""

import argparse
import asyncio
import random
import sys
import tempfile
import time
from pathlib import Path

from redis.asyncio import Redis
from tests.api.test_server import serving
from tests.conftest import migrate
from tests.factories.client import Client
from tests.factories.merchants import make_merchant
from tests.factories.shop import PHONE, stock_the_shop
from tests.fuzz.target import SKU, Target

from kameng_api.embedded import servers
from kameng_api.kit.db import Database
from kameng_api.settings import Settings

MAX_EXAMPLES = 20
GENEROUS = {"KAMENG_WEBHOOK_DEVELOPMENT": "true", "KAMENG_RATE_REVEALS_PER_S": "5000", "KAMENG_RATE_BATCHES_PER_MIN": "100000"}


async def fuzz(minutes: float, first_seed: int) -> int:
    """Returns how many faults were found; prints them, and what was sent."""
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
            async with serving(found, Path(folder) / "log", **GENEROUS) as (base_url, _), Client(key=merchant.key, base_url=base_url) as client:
                target = Target(base_url, merchant.key, await possessions(client))
                faults = await asyncio.to_thread(rounds, target, minutes, first_seed)
            async with Redis.from_url(found.redis_url) as redis:
                await redis.flushall()
            tracebacks = (Path(folder) / "log").read_text(errors="replace").count("Traceback")
    print(f"{sum(target.sent.values())} requests to {len(target.sent)} operations; answers {dict(sorted(target.by_status.items()))}; "
          f"tracebacks in the log {tracebacks}; faults {len(faults)}")  # fmt: skip
    missed = [operation.label for operation in target.operations if operation.label not in target.sent]
    if missed:
        print("never sent:", ", ".join(missed))
    return len(faults) + len(missed) + tracebacks


async def possessions(client: Client) -> dict[str, str]:
    """Path parameter → something of the merchant's own, so that not every answer is 404."""
    order = await client.post("/v1/orders", {"merchant_order_no": "PO-mine", "sku": SKU, "target": PHONE})
    endpoint = await client.post("/v1/webhook-endpoints", {"url": "https://merchant.example/hook"})
    assert (order.status_code, endpoint.status_code) == (201, 201), (order.text, endpoint.text)
    for _ in range(100):
        accepted = [e for e in (await client.get("/v1/events")).json()["items"] if e["type"] == "order.accepted"]
        if accepted:
            break
        await asyncio.sleep(0.1)
    return {
        "order_id": order.json()["id"], "endpoint_id": endpoint.json()["id"], "event_id": accepted[0]["id"], "merchant_order_no": "PO-mine",
        "sku": SKU,
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
    given = asked.parse_args()
    first_seed = given.seed if given.seed is not None else random.randrange(2**31)
    print(f"seed {first_seed}", flush=True)
    sys.exit(1 if asyncio.run(fuzz(given.minutes, first_seed)) else 0)


if __name__ == "__main__":
    main()
