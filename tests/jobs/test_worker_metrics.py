"""The worker's gauges say what is in the database, over real HTTP, at a cost that does not grow with it."""

import asyncio
import urllib.request
from datetime import datetime, timedelta
from typing import cast

import pytest
from prometheus_client.parser import text_string_to_metric_families

from kameng_api.alarms import actions as alarms
from kameng_api.demo.processes import free_port
from kameng_api.embedded.servers import Servers
from kameng_api.jobs import metrics
from kameng_api.kit.db import Database, Tx, execute, fetch
from kameng_api.kit.ids import new_ulid
from kameng_api.settings import Settings
from kameng_api.tasks import actions as tasks
from kameng_api.tasks.rules import Due, Lane


async def add_orders(database: Database, status: str, n: int) -> None:
    async with database.transaction() as tx:
        await execute(
            tx,
            """INSERT INTO orders (book_id, order_id, merchant_order_no, fingerprint, environment, status, sku, product_type, quantity,
              unit_price, amount, currency, metadata, deadline_at)
            SELECT 16, gen_random_uuid(), gen_random_uuid(), '', 'live', $1, 's', 'topup', 1, 5, 5, 'CNY', '{}', now()
            FROM generate_series(1, $2)""",
            status, n,
        )  # fmt: skip


def samples(gauges: metrics.Gauges) -> dict[tuple[str, ...], float]:
    return {(s.name, *s.labels.values()): s.value for family in gauges.collect() for s in family.samples}


async def test_the_gauges_say_what_is_there(database: Database) -> None:
    await add_orders(database, "accepted", 3)
    async with database.transaction() as tx:
        late = (await _now(tx)) - timedelta(seconds=40)
        await tasks.make_due(tx, [Due(16, Lane.WEBHOOK, new_ulid(), late), Due(16, Lane.WEBHOOK, new_ulid(), late + timedelta(hours=1))])
        await alarms.raise_alarm(tx, "wallet_low", "east", None, "x")
        await execute(
            tx,
            "INSERT INTO channels (channel_id, name, adapter, environment, settings_sealed, callback_token_hash, callback_token_sealed, "
            "wallet_balance) VALUES ('east', 'e', 'simulator', 'live', '', '', '', 125000)",
        )
        await execute(
            tx,
            "INSERT INTO attempts (book_id, attempt_id, order_id, n, channel_id, product_code, units, state, currency, cost, reference, "
            "reason, unknown_since) VALUES (16, $1, $1, 1, 'east', 'p', 1, 'unknown', 'CNY', 1, 'r', 'r', now() - interval '50 seconds')",
            new_ulid(),
        )
    gauges = metrics.Gauges()
    assert samples(gauges) == {}
    await gauges.refresh(database)
    found = samples(gauges)
    assert found["kameng_orders", "accepted"] == 3
    assert found["kameng_orders", "processing"] == 0
    assert found["kameng_lane_due", "webhook"] == 1
    assert found["kameng_webhook_backlog",] == 2
    assert 39 < found["kameng_lane_oldest_due_seconds", "webhook"] < 60
    assert found["kameng_lane_due", "submit"] == found["kameng_lane_oldest_due_seconds", "submit"] == 0
    assert found["kameng_unknown_attempts", "east"] == found["kameng_attempts_recent", "east", "unknown"] == 1
    assert 49 < found["kameng_unknown_oldest_seconds", "east"] < 60
    assert found["kameng_open_alarms", "wallet_low", "warning"] == 1
    assert found["kameng_supplier_wallet", "east"] == 12.5
    assert found["kameng_gauges_age_seconds",] < 5
    assert {name for name, *_ in found} <= {f.name for f in metrics.FAMILIES}


async def test_final_orders_are_estimated_and_not_counted(database: Database, migrated: Servers) -> None:
    await add_orders(database, "succeeded", 3000)
    await add_orders(database, "failed", 1000)
    owner = Database(migrated.owner_url, pool_size=2)
    async with owner.transaction() as tx:
        await execute(tx, "ANALYZE orders")
    await owner.close()
    gauges = metrics.Gauges()
    await gauges.refresh(database)
    found = samples(gauges)
    assert found["kameng_orders", "succeeded"] == pytest.approx(3000, rel=0.05)
    assert found["kameng_orders", "failed"] == pytest.approx(1000, rel=0.05)


async def test_counting_stops_at_the_cap(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "CAP", 10)
    await add_orders(database, "accepted", 30)
    gauges = metrics.Gauges()
    await gauges.refresh(database)
    assert samples(gauges)["kameng_orders", "accepted"] == 10


async def test_a_worker_serves_them_over_http_and_closes_its_port(database: Database, settings: Settings) -> None:
    port = free_port()
    gauges = metrics.Gauges()
    serving = asyncio.create_task(gauges.serve(settings.model_copy(update={"worker_metrics_port": port}), database))
    for _ in range(200):
        await asyncio.sleep(0.02)
        if samples(gauges):
            break
    text = await asyncio.to_thread(_get, port)
    names = {family.name for family in text_string_to_metric_families(text)}
    assert {"kameng_orders", "kameng_lane_due", "kameng_webhook_backlog", "python_info"} <= names
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving
    with pytest.raises(OSError):
        await asyncio.to_thread(_get, port)


async def test_no_port_no_server(database: Database, settings: Settings) -> None:
    async with asyncio.timeout(1):
        await metrics.Gauges().serve(settings, database)


async def test_without_a_database_the_figures_stay_and_grow_old(
    database: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "REFRESH_S", 0.05)
    gauges = metrics.Gauges()
    await gauges.refresh(database)
    away = Database("postgresql+asyncpg://nobody@/none?host=/nonexistent")
    serving = asyncio.create_task(gauges.serve(settings.model_copy(update={"worker_metrics_port": free_port()}), away))
    await asyncio.sleep(0.4)
    assert not serving.done()
    assert samples(gauges)["kameng_gauges_age_seconds",] > 0.3
    assert ("kameng_orders", "accepted") in samples(gauges)
    serving.cancel()
    await away.close()


def _get(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        return str(answer.read().decode())


async def _now(tx: Tx) -> datetime:
    [row] = await fetch(tx, "SELECT now() AS now")
    return cast(datetime, row["now"])
