"""A database server of these tests' own, an app and a worker on it, and what every answer in the middle of a fault must be."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import asyncpg
import httpx
from fastapi import FastAPI
from sqlalchemy.engine import make_url
from tests.chaos.proxy import Fault, Wire
from tests.factories.client import Client, running_app
from tests.factories.merchants import TestMerchant

from kameng_api.embedded import places, postgres, servers
from kameng_api.settings import Settings

SERVER: Final = {"shared_buffers": "32MB", "max_connections": "40"}
"""Settings of the server of these tests."""
LONGEST_ANSWER_S: Final = 12.0
"""Two waits of five seconds (a connection of the pool, then a lock), and some air."""
WELL_AGAIN_S: Final = 20.0
"""So long after the end of a fault the house has found back by itself, also on a machine that has other things to do."""
WELL: Final = Fault()


@dataclass
class House:
    """`settings` go straight to the server; `wired` through a wire that can be cut."""

    found: servers.Servers
    settings: Settings
    merchant: TestMerchant
    numbers: list[str] = field(default_factory=list)

    def owner_url(self) -> str:
        return make_url(self.found.owner_url).set(drivername="postgresql").render_as_string(hide_password=False)

    async def owner(self) -> "asyncpg.Connection[asyncpg.Record]":
        return await asyncpg.connect(self.owner_url())

    def server_pid(self) -> int:
        ground = places.recall(self.found.var)
        assert ground is not None
        pid = postgres.pid_of(ground.place)
        assert pid is not None
        return pid

    def data_folder(self) -> Path:
        ground = places.recall(self.found.var)
        assert ground is not None
        return places.data_folder(ground.place)

    async def start_again(self) -> None:
        """What the machine's supervisor does."""
        await asyncio.to_thread(servers.start, self.found.var, redis=False, settings=SERVER)

    @asynccontextmanager
    async def app(self, **more: Any) -> AsyncIterator[tuple[FastAPI, Client]]:
        """The API, and the merchant's client; its key has been seen before, as after the first request of a day."""
        async with running_app(self.settings.model_copy(update=more)) as app, Client(app, self.merchant.key) as client:
            assert (await client.get("/v1/balance")).status_code == 200
            yield app, client

    @asynccontextmanager
    async def wire(self) -> AsyncIterator[tuple[Wire, dict[str, Any]]]:
        """A wire to the server, and the settings that lead through it."""
        ground = places.recall(self.found.var)
        assert ground is not None
        wire = Wire("database", [f"unix:{ground.sockets}/.s.PGSQL.5432"], seed=1)
        port = await wire.open(0)
        url = make_url(self.found.app_url).difference_update_query(["host", "port"]).set(host="127.0.0.1", port=port)
        told = Settings(_env_file=None, database_url=url.render_as_string(hide_password=False)).database_url
        try:
            yield wire, {"database_url": told}
        finally:
            assert wire._server is not None
            wire._server.close()
            wire.cut()

    def next_body(self) -> dict[str, Any]:
        self.numbers.append(f"PO-{len(self.numbers) + 1}")
        return {"merchant_order_no": self.numbers[-1], "sku": "mobile-cn-100", "target": "13800138000"}


async def timed(call: Any) -> tuple[httpx.Response, float]:
    """The answer, and how long it took. Fails the test for one that hangs."""
    started = time.monotonic()
    async with asyncio.timeout(LONGEST_ANSWER_S):
        answer = await call
    return answer, time.monotonic() - started


def is_unavailable(answer: httpx.Response, *, writing: bool = True) -> None:
    """The one honest answer: nothing is known, send the same request again."""
    assert answer.status_code == 503, (answer.status_code, answer.text)
    told = answer.json()
    assert (told["code"], told["retry"]) == ("unavailable", "same_request"), told
    assert told["charged"] in (("unknown", "no") if writing else ("no",)), told  # "no" where it stopped before anything was tried
    assert int(answer.headers["retry-after"]) >= 1


async def until_well(client: Client, body: dict[str, Any], within_s: float = WELL_AGAIN_S) -> httpx.Response:
    """The same number until there is an order; everything before must be `unavailable`. Fails when it takes longer than `within_s`."""
    async with asyncio.timeout(within_s):
        while True:
            answer = await client.post("/v1/orders", body)
            if answer.status_code in (200, 201):
                return answer
            is_unavailable(answer)
            await asyncio.sleep(0.1)


async def one_order_each(house: House, numbers: list[str]) -> dict[str, str]:
    """Number → status; exactly one order for each number and one hold for each order."""
    owner = await house.owner()
    try:
        rows = await owner.fetch(
            """SELECT o.merchant_order_no AS number, o.status, (SELECT count(*) FROM transfers t WHERE t.order_id = o.order_id
              AND t.event_key LIKE '%:hold') AS holds FROM orders o WHERE o.merchant_order_no = ANY ($1)""",
            numbers,
        )
    finally:
        await owner.close()
    assert sorted(r["number"] for r in rows) == sorted(numbers)
    assert all(r["holds"] == 1 for r in rows), [dict(r) for r in rows]
    return {r["number"]: r["status"] for r in rows}
