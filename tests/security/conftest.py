"""The app as a stranger meets it, over ASGI, with real servers behind it."""

from collections.abc import AsyncIterator, Iterator

import pytest
import structlog
from fastapi import FastAPI
from redis.asyncio import Redis
from tests.factories.client import Client, running_app
from tests.factories.merchants import TestMerchant, make_merchant

from kameng_api.kit.db import Database
from kameng_api.settings import Settings


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Refusals made on purpose are logged nowhere."""
    with structlog.testing.capture_logs():
        yield


@pytest.fixture
async def app(database: Database, redis: "Redis[bytes]", settings: Settings) -> AsyncIterator[FastAPI]:
    async with running_app(settings) as running:
        yield running


@pytest.fixture
async def merchant(database: Database, settings: Settings) -> TestMerchant:
    """A merchant with an HMAC test key, every scope, and 10,000 CNY of play money."""
    return await make_merchant(database, settings)


@pytest.fixture
async def client(app: FastAPI, merchant: TestMerchant) -> AsyncIterator[Client]:
    """Signs as `merchant`."""
    async with Client(app, merchant.key) as signed:
        yield signed
