"""A house with doors for tests: the real app, worker and simulator; accounts made as operators make them; a receiver of callbacks on loopback."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
from aiohttp import web
from fastapi import FastAPI
from tests.factories.client import NOBODY, door_of
from tests.factories.merchants import TestMerchant, keyring_of, make_merchant
from tests.factories.served import served
from tests.factories.shop import eventually, running_worker, stock_the_shop
from tests.simulator.conftest import SECRETS, Simulator

from kameng_api.kit.db import Database
from kameng_api.ledger import actions as ledger
from kameng_api.ledger import rules as books
from kameng_api.merchants import door_accounts
from kameng_api.merchants.door_accounts import AccountTerms, NewAccount
from kameng_api.orders import queries
from kameng_api.orders.rules import Order
from kameng_api.settings import Settings


@dataclass(frozen=True, slots=True)
class Heard:
    """One call that the receiver got, as it came."""

    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes


@dataclass
class Receiver:
    """A merchant's system on loopback. `reply(heard)` says what it answers: (status, body)."""

    url: str = ""
    heard: list[Heard] = field(default_factory=list)
    reply: Callable[[Heard], tuple[int, bytes]] = lambda _: (200, b"success")

    async def take(self, request: web.Request) -> web.Response:
        one = Heard(request.path, request.query_string, {k.lower(): v for k, v in request.headers.items()}, await request.read())
        self.heard.append(one)
        status, body = self.reply(one)
        return web.Response(status=status, body=body)

    async def wait_for(self, count: int, *, within_s: float = 15) -> list[Heard]:
        """The first `count` calls; fails the test when they do not come in time."""

        async def enough() -> list[Heard] | None:
            return self.heard if len(self.heard) >= count else None

        found: list[Heard] = await eventually(enough, within_s=within_s)
        return found


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    app = web.Application()

    async def take(request: web.Request) -> web.Response:
        return await receiver.take(request)  # looked up each time: a test may put its own in its place

    app.router.add_route("*", "/{tail:.*}", take)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    assert site._server is not None
    port = site._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
    receiver.url = f"http://127.0.0.1:{port}"
    yield receiver
    await runner.cleanup()


@dataclass
class DoorHouse:
    """The app on a socket with the shop of `stock_the_shop`, a merchant with 10,000 CNY of play money, and a receiver."""

    app: FastAPI
    db: Database
    settings: Settings
    merchant: TestMerchant
    receiver: Receiver
    http: httpx.AsyncClient

    async def account(
        self, door: str, account: str, secrets: Mapping[str, str], *, merchant: TestMerchant | None = None, **terms: Any
    ) -> NewAccount:
        """An account of the house's merchant, or of another; `terms` as of `AccountTerms`."""
        owner = merchant or self.merchant
        async with self.db.transaction() as tx:
            made = await door_accounts.create(
                tx, keyring_of(self.settings), owner.merchant_id, owner.environment, door, account, secrets, AccountTerms(**terms)
            )
        door_of(self.app).lobby.accounts.forget()
        return made

    async def another_merchant(self) -> TestMerchant:
        return await make_merchant(self.db, self.settings)

    async def order(self, number: str, *, book_id: int | None = None) -> Order | None:
        """What stands under the number, from the database."""
        book = book_id or self.merchant.book_id
        async with self.db.transaction() as tx:
            _, known = await queries.find_by_numbers(tx, [(book, number)])
        return known.get((book, number))

    async def finished(self, number: str, *, within_s: float = 15) -> Order:
        async def look() -> Order | None:
            order = await self.order(number)
            return order if order is not None and order.final else None

        try:
            found: Order = await eventually(look, within_s=within_s)
        except TimeoutError:
            raise AssertionError(f"not final in time: {await self.order(number)}") from None
        return found

    async def orders(self) -> int:
        async with self.db.transaction() as tx:
            return len(await queries.list_orders(tx, self.merchant.book_id, limit=1000))

    def slow_placing(self, holds: int = 1_000_000) -> "Gate":
        """From now on placing waits, decided but for the last step, until `Gate.open`; only the first `holds` of them do."""
        return Gate(self, holds)

    @asynccontextmanager
    async def spendable_locked(self) -> AsyncIterator[None]:
        """As while another process is deciding a purchase of this book: its spendable account is locked."""
        async with self.db.transaction() as tx:
            await ledger.lock(tx, [(self.merchant.book_id, books.AVAILABLE, "CNY")])
            yield


class Gate:
    """Holds back what this process places, after the request has come in and before it is decided."""

    def __init__(self, house: DoorHouse, holds: int = 1_000_000) -> None:
        self._holds = holds
        self._orders = door_of(house.app).orders
        self._submit = self._orders.submit
        self._go = asyncio.Event()
        self.waiting = 0
        self._orders.submit = self._held  # type: ignore[method-assign]

    async def _held(self, item: Any) -> Any:
        self.waiting += 1
        if self.waiting <= self._holds:
            await self._go.wait()
        return await self._submit(item)

    async def until_waiting(self, count: int = 1) -> None:
        async def enough() -> bool:
            return self.waiting >= count

        await eventually(enough, within_s=5)

    def open(self) -> None:
        self._orders.submit = self._submit  # type: ignore[method-assign]
        self._go.set()


@asynccontextmanager
async def door_house(db: Database, settings: Settings, simulator: Simulator, *, worker: bool = True) -> AsyncIterator[DoorHouse]:
    """Everything running; `worker=False` leaves orders where they were placed."""
    await stock_the_shop(db, settings, simulator.url, SECRETS)
    merchant = await make_merchant(db, settings)
    async with (
        receiving() as receiver,
        served(settings) as (app, here),
        httpx.AsyncClient(base_url=here.base_url, timeout=30, trust_env=False, verify=NOBODY) as http,
    ):
        house = DoorHouse(app, db, here, merchant, receiver, http)
        if not worker:
            yield house
            return
        async with running_worker(here):
            yield house
