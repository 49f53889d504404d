"""Operators of every role, each with a client that carries the token."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from kameng_api.kit.db import Database
from kameng_api.operators import actions

Operator = httpx.AsyncClient
Hire = Callable[..., Awaitable[Operator]]


@pytest.fixture
async def hire(app: FastAPI, database: Database) -> AsyncIterator[Hire]:
    """`await hire("finance", "fang")` → a client of the operator's API."""
    async with AsyncExitStack() as stack:

        async def one(role: str, name: str | None = None) -> Operator:
            async with database.transaction() as tx:
                made = await actions.create_operator(tx, name or role, role)
            return await stack.enter_async_context(
                httpx.AsyncClient(
                    transport=httpx.ASGITransport(app, client=("127.0.0.1", 4711)),
                    base_url="http://api.test/admin/v1",
                    headers={"Authorization": f"Bearer {made.token}"},
                )
            )

        yield one


@pytest.fixture
async def admin(hire: Hire) -> Operator:
    return await hire("admin")


async def ok(answer: httpx.Response, *statuses: int) -> Any:
    assert answer.status_code in (statuses or (200, 201)), (answer.status_code, answer.text)
    return answer.json()
