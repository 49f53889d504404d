"""Result files that are sent again: what was not bought is bought once, whole, and nothing of it twice."""

import csv
from collections.abc import AsyncIterator
from typing import Any

import pytest
from fastapi import FastAPI
from tests.factories.client import Client
from tests.factories.merchants import make_merchant
from tests.factories.shop import PHONE, open_desk, stock_the_shop

from kameng_api.jobs.batches import advance_batches
from kameng_api.jobs.desk import Desk
from kameng_api.kit.db import Database, execute, fetch
from kameng_api.settings import Settings

CSV = {"Content-Type": "text/csv"}


@pytest.fixture
async def goods(database: Database, settings: Settings) -> None:
    await stock_the_shop(database, settings, "http://127.0.0.1:9", {"sim-a": "secret-of-sim-a-only-for-tests"})


@pytest.fixture
async def desk(app: FastAPI, settings: Settings) -> AsyncIterator[Desk]:
    async with open_desk(settings) as opened:
        yield opened


async def work(desk: Desk) -> None:
    for _ in range(20):
        if not await advance_batches(desk, 4):
            return
    raise AssertionError("never at rest")


async def units(database: Database, status: str) -> int:
    async with database.transaction() as tx:
        [row] = await fetch(tx, "SELECT coalesce(sum(quantity), 0)::int AS n FROM orders WHERE status = $1", status)
    return int(row["n"])


async def fail_everything(database: Database, desk: Desk) -> None:
    async with database.transaction() as tx:
        await execute(tx, "UPDATE orders SET status = 'failed', failure_code = 'supplier_rejected', completed_at = now()")
        await execute(tx, "UPDATE tasks SET run_at = now() WHERE lane = 'batch'")
    await work(desk)


def numbers(content: bytes) -> list[str]:
    return [row["merchant_order_no"] for row in csv.DictReader(content.decode("utf-8-sig").splitlines())]


async def send_again(client: Client, desk: Desk, content: bytes, number: str, **more: Any) -> dict[str, Any]:
    sent = await client.post(f"/v1/order-imports?filename=again.csv&merchant_batch_no={number}", content, headers=CSV, **more)
    assert sent.status_code == 202, sent.text
    await work(desk)
    found: dict[str, Any] = (await client.get(sent.headers["location"], **more)).json()["progress"]
    return found


@pytest.mark.parametrize(
    ("row", "bought", "tried_again"),
    [
        ({"face_value": "10", "quantity": 200}, 200, ["PO-7-1-r1", "PO-7-2-r1"]),
        ({"face_value": "1200"}, 120, ["PO-7-1-r1", "PO-7-2-r1"]),
        ({"face_value": "30"}, 3, ["PO-7-1-r1"]),
    ],
)
async def test_parts_of_a_row_that_failed_are_tried_again_each(
    client: Client, desk: Desk, database: Database, row: dict[str, Any], bought: int, tried_again: list[str]
) -> None:
    items = [{"merchant_order_no": "PO-7", **row}]
    sent = await client.post("/v1/order-batches", {"merchant_batch_no": "B-1", "items": items, "split_skus": ["test-card"]})
    await work(desk)
    assert await units(database, "accepted") == bought
    await fail_everything(database, desk)
    again = (await client.get(f"{sent.headers['location']}/results/retry?format=csv")).content
    assert numbers(again) == tried_again
    for number in ("B-2", "B-3"):
        await send_again(client, desk, again, number)
        assert await units(database, "accepted") == bought


async def test_rows_that_one_order_carried_are_tried_again_each_and_once(client: Client, desk: Desk, database: Database) -> None:
    items = [{"sku": "mobile-cn-100", "target": PHONE}] * 3
    sent = await client.post("/v1/order-batches", {"merchant_batch_no": "B-1", "items": items, "merge_equal": True})
    await work(desk)
    await fail_everything(database, desk)
    again = (await client.get(f"{sent.headers['location']}/results/retry?format=csv")).content
    for number in ("B-2", "B-3"):
        await send_again(client, desk, again, number)
        assert await units(database, "accepted") == 3


async def test_rows_that_one_order_would_have_carried_lose_nothing_when_they_are_sent_again(
    client: Client, desk: Desk, database: Database, settings: Settings
) -> None:
    poor = await make_merchant(database, settings, money="500")
    items = [{"sku": "test-card", "quantity": 30}] * 3
    body = {"merchant_batch_no": "B-1", "items": items, "merge_equal": True, "on_insufficient_balance": "skip"}
    sent = await client.post("/v1/order-batches", body, key=poor.key)
    await work(desk)
    left = (await client.get(f"{sent.headers['location']}/results/unprocessed?format=csv", key=poor.key)).content
    assert (await client.post("/v1/test/balance", {"number": "N-1", "available": "5000"}, key=poor.key)).status_code == 201
    told = await send_again(client, desk, left, "B-2", key=poor.key)
    assert (told["accepted"], told["duplicates"], await units(database, "accepted")) == (3, 0, 90)
