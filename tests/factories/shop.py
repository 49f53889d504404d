"""A small catalogue on two channels of a real simulator, and the worker's rounds run by hand or by themselves."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from tests.factories.kept import once
from tests.factories.merchants import keyring_of
from tests.factories.pools import borrow

from kameng_api import worker as worker_process
from kameng_api.catalog import actions as catalog
from kameng_api.catalog.actions import NewChannel
from kameng_api.catalog.rules import Offer, Price, Product
from kameng_api.jobs.desk import Desk
from kameng_api.kit.crypto import Keyring
from kameng_api.kit.db import Database, Tx
from kameng_api.kit.money import parse_amount
from kameng_api.settings import Settings

PHONE = "13800138000"  # the contract's own example number


async def stock_the_shop(db: Database, settings: Settings, simulator_url: str, secrets: dict[str, str]) -> None:
    """SKUs for phones, accounts and cards; sim-a is cheaper than sim-b."""
    key = (stock_the_shop, simulator_url, *sorted(secrets.items()), *settings.kek_bytes.items())
    async with db.transaction() as tx:
        await once(tx, key, lambda: _stock(tx, keyring_of(settings), simulator_url, secrets))


async def _stock(tx: Tx, keyring: Keyring, simulator_url: str, secrets: dict[str, str]) -> None:
    products = [
        Product("mobile-cn-100", "话费 100", "topup", face_value=parse_amount("100"), target_kind="mobile"),
        Product("mobile-cn-50", "话费 50", "topup", face_value=parse_amount("50"), target_kind="mobile", duplicate_window_s=600),
        Product(
            "qb", "Q币", "topup", face_min=parse_amount("1"), face_max=parse_amount("1000"), face_step=parse_amount("1"),
            target_kind="account",
        ),
        Product("test-card", "Test card", "card", face_value=parse_amount("10"), environments=frozenset({"test"})),
        Product("test-out-of-stock", "No stock", "card", face_value=parse_amount("10"), environments=frozenset({"test"})),
        Product("test-price-moved", "Moved", "topup", face_value=parse_amount("10"), target_kind="mobile", environments=frozenset({"test"})),
    ]  # fmt: skip
    prices = {
        "mobile-cn-100": Price(unit_price=parse_amount("98.5")),
        "mobile-cn-50": Price(unit_price=parse_amount("49.5")),
        "qb": Price(rate_ppm=980_000),
        "test-card": Price(unit_price=parse_amount("10")),
        "test-out-of-stock": Price(unit_price=parse_amount("10")),
        "test-price-moved": Price(unit_price=parse_amount("10")),
    }
    codes = {
        "mobile-cn-100": "hf-100", "mobile-cn-50": "hf-50", "qb": "qb", "test-card": "test-card",
        "test-out-of-stock": "test-out-of-stock", "test-price-moved": "test-price-moved",
    }  # fmt: skip
    dearer = {"sim-a": 0, "sim-b": 5000}
    for product in products:
        await catalog.put_product(tx, product)
        await catalog.set_price(tx, product.sku, prices[product.sku])
    for channel_id, secret in secrets.items():
        connection = {"base_url": simulator_url, "app_key": f"app-{channel_id}", "secret": secret, "timeout_s": 5}
        await catalog.create_channel(
            tx, keyring, NewChannel(channel_id, channel_id, "simulator", "test", json.dumps(connection).encode())
        )
        for product in products:
            cost = {"mobile-cn-100": "97.5", "mobile-cn-50": "48.75"}.get(product.sku, "9.5")
            ranged = product.sku == "qb"
            await catalog.set_offer(
                tx,
                Offer(
                    channel_id,
                    product.sku,
                    codes[product.sku],
                    unit_cost=None if ranged else parse_amount(cost) + dearer[channel_id],
                    rate_ppm=970_000 if ranged else None,
                    stock=0 if product.sku == "test-out-of-stock" else None,
                ),
            )


@asynccontextmanager
async def open_desk(settings: Settings) -> AsyncIterator[Desk]:
    """A worker's desk whose rounds the test runs itself."""
    desk = await worker_process.open_desk(settings, borrow(settings))
    try:
        yield desk
    finally:
        await worker_process.close_desk(desk)


@asynccontextmanager
async def running_worker(settings: Settings) -> AsyncIterator[None]:
    """A whole worker in this loop."""
    stopping = asyncio.Event()
    working = asyncio.create_task(worker_process.work(settings, stopping, borrow(settings)))
    try:
        yield
    finally:
        stopping.set()
        await working


async def eventually(look: Callable[[], Awaitable[Any]], *, within_s: float = 10.0, every_s: float = 0.05) -> Any:
    """The first true answer of `look`; fails the test when there is none in time."""
    async with asyncio.timeout(within_s):
        while True:
            found = await look()
            if found:
                return found
            await asyncio.sleep(every_s)
