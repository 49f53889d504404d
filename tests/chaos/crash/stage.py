"""What the crash points are tried on: one PostgreSQL, Redis, simulator and receiver, and lanes that share nothing else.

A lane has its own database, supplier accounts, merchant, API and worker, so that several points can be tried at once, each on a machine
where nobody but its own victim steps in.
"""

import asyncio
import json
import random
import socket
import sqlite3
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl

import asyncpg
import httpx
from aiohttp import web
from sqlalchemy.engine import make_url
from tests.chaos.crash.fuse import DIED, Fuse
from tests.factories import nursery
from tests.factories.client import Client
from tests.factories.merchants import TestMerchant, keyring_of, make_merchant

from kameng_api.catalog import actions as catalog
from kameng_api.catalog.actions import NewChannel
from kameng_api.catalog.hand import Rule, Scope, Terms
from kameng_api.catalog.rules import Offer, Price, Product
from kameng_api.embedded import places, servers
from kameng_api.kit.db import Database
from kameng_api.kit.ids import new_ulid
from kameng_api.kit.money import parse_amount
from kameng_api.operators import actions as operators
from kameng_api.settings import Settings

TOKEN: Final = "control-token"
SCALE: Final = 0.01  # a second of the vendor takes 10 ms
CHANNELS: Final = ("a", "b", "c", "d")
"""`a` is asked first, `b` is dearer, `c` sells `asked` alone, answers late and never calls back, `d` sells `booked` alone."""
SELLERS: Final = {"phone": 2, "card": 2, "asked": 1, "booked": 1}
"""How many suppliers sell it."""
_SUPERUSER: Final = "postgres"
_PATIENCE_S: Final = 60.0
_PROGRAM: Final = "from tests.chaos.crash import launch; launch.main()"


# Rows that somebody works at are left to him, and no statement waits for another one's locks.
_HURRY: Final = (
    """UPDATE tasks SET run_at = now() WHERE (book_id, lane, ref) IN (
      SELECT book_id, lane, ref FROM tasks WHERE state = 'ready' AND run_at > now() FOR UPDATE SKIP LOCKED)""",
    """UPDATE attempts SET not_found_first_at = not_found_first_at - interval '1 hour', sent_at = sent_at - interval '1 hour'
    WHERE (book_id, attempt_id) IN (SELECT book_id, attempt_id FROM attempts
      WHERE state = 'unknown' AND not_found_first_at > now() - interval '1 minute' FOR UPDATE SKIP LOCKED)""",
)


@dataclass
class Receiver:
    """Merchants' endpoints and an alarm sink. Keeps what it was told; `refuse` is how many calls it answers 500 first."""

    url: str = ""
    told: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    refuse: dict[str, int] = field(default_factory=dict)

    async def take(self, request: web.Request) -> web.Response:
        name, body = request.match_info["name"], await request.read()
        if self.refuse.get(name, 0) > 0:
            self.refuse[name] -= 1
            return web.Response(status=500)
        if request.content_type == "application/x-www-form-urlencoded":  # a door's callback, and its acknowledgement
            self.told.setdefault(name, []).append(dict(parse_qsl(body.decode(), keep_blank_values=True)))
            return web.Response(text="success")
        self.told.setdefault(name, []).append(json.loads(body))
        return web.Response(status=204)


class Lane:
    """One small house, with an `api` and a `worker`."""

    def __init__(self, number: int, world: "World") -> None:
        self.number = number
        self.world = world
        self.name = f"lane{number}"
        folder = world.folder / self.name
        folder.mkdir(parents=True)
        self.fuse_file, self.log, self.out = folder / "fuse", folder / "reached", folder / "out"
        self.fuse = Fuse(self.fuse_file, self.log)
        self.log_read = 0
        self.port = _quiet_port()
        self.given: dict[str, Any] = {}
        self.settings: Settings
        self.merchant: TestMerchant
        self.operator = ""
        self.second = ""
        self.client: Client
        self.owner: asyncpg.Pool[asyncpg.Record]
        self.owner_url = ""
        self.db: Database
        self.process: dict[str, nursery.Process] = {}
        self.orders = 0
        self.lost: list[str] = []

    async def open(self) -> None:
        found = self.world.servers
        self.given = {
            "database_url": _renamed(found.app_url, self.name), "redis_url": found.redis_url.replace("db=0", f"db={self.number}"),
            "port": self.port, "base_url": f"http://127.0.0.1:{self.port}", "webhook_development": True,
            "rate_auth_failures_per_min": 0, "rate_reads_per_s": 5000, "rate_writes_per_s": 5000, "rate_batches_per_min": 5000, "tick_s": 0.25,
            "database_pool": 6, "supplier_timeout_s": 5, "log_level": "warning", "anchor_file": str(self.fuse_file.with_name("anchors")),
            "anchor_every_s": 1,  # a head that is sealed a moment after the clock struck must not wait for the next minute
            "alarm_sinks": f"webhook:{self.world.receiver.url}/{self.name}-alarms",
        }  # fmt: skip
        self.settings = Settings(_env_file=None, **self.given)
        await self.world.create_database(self.name)
        self.owner_url = _renamed(found.owner_url, self.name)
        self.owner = await asyncpg.create_pool(_plain(self.owner_url), min_size=1, max_size=4)
        self.db = db = Database(_renamed(found.app_url, self.name), pool_size=2)
        self.merchant = await make_merchant(db, self.settings, money="10000000")
        await stock(db, self.settings, self.world.simulator_url, self.name)
        async with db.transaction() as tx:
            self.operator = (await operators.create_operator(tx, "operator", "admin")).token
            self.second = (await operators.create_operator(tx, "second", "finance")).token
        self.client = Client(base_url=self.settings.base_url, key=self.merchant.key)
        self.start("api")
        self.start("worker")
        await self.answering()
        made = await self.client.post("/v1/webhook-endpoints", {"url": f"{self.world.receiver.url}/{self.name}"})
        assert made.status_code == 201, made.text

    def start(self, what: str) -> None:
        order = {"what": what, "settings": self.given, "fuse": str(self.fuse_file), "log": str(self.log)}
        with self.out.open("ab") as out:
            self.process[what] = nursery.popen(["-c", _PROGRAM, json.dumps(order)], stdin=subprocess.DEVNULL, stdout=out, stderr=out)

    async def answering(self) -> None:
        """Until the API takes requests."""
        async with asyncio.timeout(_PATIENCE_S):
            while True:
                with suppress(httpx.HTTPError):
                    if (await self.client.get("/v1/balance")).status_code == 200:  # another house on this machine would not know our key
                        return
                await asyncio.sleep(0.02)

    async def ended(self, what: str) -> int:
        """The status it ended with, once it has."""
        return await self.process[what].ended()

    def deaths(self) -> list[str]:
        """The points at which somebody died since this was last asked."""
        with self.log.open("rb") as log:
            log.seek(self.log_read)
            said = log.read()
        self.log_read += len(said)
        return [line.removeprefix(DIED) for line in said.decode().split("\n") if line.startswith(DIED)]

    def passed(self) -> set[str]:
        """The points that were passed so far."""
        return {line for line in self.log.read_text().split("\n") if line and not line.startswith(DIED)}

    async def kill(self, what: str) -> None:
        self.process[what].kill()
        await self.process[what].ended()
        if what == "worker":
            await self.an_hour_passes()

    async def an_hour_passes(self) -> None:
        """While no worker lives: leases run out, everything is due, suppliers have had time to know what they were sent."""
        await self.owner.execute(
            """UPDATE tasks SET lease_until = now() - interval '1 second' WHERE state = 'running';
            UPDATE attempts SET sent_at = sent_at - interval '1 hour', not_found_first_at = not_found_first_at - interval '1 hour'
            WHERE state IN ('submitting', 'accepted', 'unknown');
            UPDATE statements SET making_until = making_until - interval '1 hour' WHERE ready_at IS NULL;
            UPDATE recon_files SET created_at = created_at - interval '1 hour' WHERE state = 'reading';
            UPDATE alarms SET send_after = now() WHERE sent_at IS NULL;
            UPDATE supplier_lists SET lease_until = now() - interval '1 second' WHERE lease IS NOT NULL;
            UPDATE chores SET ran_at = ran_at - interval '1 hour'"""
        )
        await self.hurry()

    async def hurry(self) -> None:
        """What waits for its time need not wait; and a supplier that once did not know a reference has had its minute to find it."""
        for statement in _HURRY:
            await self.owner.execute(statement)

    def channel(self, name: str) -> str:
        """The id of one of `CHANNELS`, which is also the name of its account at the simulator."""
        return f"{self.name}-{name}"

    async def at_desk(self, method: str, path: str, *, by: str = "", **more: Any) -> httpx.Response:
        """What an operator asks of the desk of reconciliation; `by` is the token of another one than usual."""
        headers = {"Authorization": f"Bearer {by or self.operator}"}
        return await self.client.http.request(method, f"/admin/v1/reconciliation/{path}", headers=headers, **more)

    async def close(self) -> None:
        await self.client.http.aclose()
        await self.owner.close()
        await self.db.close()


class World:
    """Everything that the lanes share."""

    def __init__(self, folder: Path, found: servers.Servers) -> None:
        self.folder = folder
        self.servers = found
        self.receiver = Receiver()
        self.simulator_url = ""
        self.simulator_file = folder / "simulator.db"
        self.http = httpx.AsyncClient(headers={"authorization": f"Bearer {TOKEN}"}, trust_env=False)
        self._creating = asyncio.Lock()

    async def create_database(self, name: str) -> None:
        async with self._creating:  # the template may have no other visitor
            connection = await _connect(self._superuser_url())
            await connection.execute(f"CREATE DATABASE {name} TEMPLATE kameng OWNER kameng_owner")
            await connection.close()

    def _superuser_url(self) -> str:
        ground = places.recall(self.servers.var)
        assert ground is not None
        url = make_url(self.servers.owner_url).set(username=_SUPERUSER, password=ground.record.superuser_password, database="postgres")
        return url.render_as_string(hide_password=False)

    async def advance(self, account: str, reference: str, status: str) -> None:
        """What the vendor's staff do with an order by hand."""
        answer = await self.http.post(f"{self.simulator_url}/sim/suppliers/{account}/orders/{reference}/advance", json={"status": status})
        assert answer.status_code == 200, answer.text

    async def turn(self, account: str, **knobs: Any) -> None:
        """Set how the account behaves; what is not named is as usual."""
        answer = await self.http.put(f"{self.simulator_url}/sim/suppliers/{account}/knobs", json=knobs)
        assert answer.status_code == 200, answer.text

    def delivered(self, references: Sequence[str]) -> dict[str, int]:
        """Reference → units, from the simulator's own file."""
        connection = sqlite3.connect(f"file:{self.simulator_file}?mode=ro", uri=True)
        try:
            marks = ",".join("?" * len(references))
            return dict(connection.execute(f"SELECT reference, count(*) FROM delivery WHERE reference IN ({marks}) GROUP BY 1", list(references)))
        finally:
            connection.close()

    def asked_to_place(self, references: Sequence[str]) -> dict[str, int]:
        """Reference → how often an order with it arrived at the supplier."""
        connection = sqlite3.connect(f"file:{self.simulator_file}?mode=ro", uri=True)
        try:
            marks = ",".join("?" * len(references))
            sql = f"SELECT reference, count(*) FROM request WHERE path = 'place' AND reference IN ({marks}) GROUP BY 1"
            return dict(connection.execute(sql, list(references)))
        finally:
            connection.close()


@asynccontextmanager
async def opened(folder: Path, found: servers.Servers, lanes: int) -> AsyncIterator[list[Lane]]:
    """The lanes, each with its processes up. `found` is a migrated server of which we may copy the database."""
    world = World(folder, found)
    app = web.Application()
    app.router.add_post("/{name}", world.receiver.take)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    world.receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    simulator = await _start_simulator(world, lanes)
    made: list[Lane] = []
    try:
        made = [Lane(n, world) for n in range(1, lanes + 1)]
        await asyncio.gather(*(lane.open() for lane in made))
        yield made
    finally:
        for lane in made:
            for process in lane.process.values():
                process.kill()
                await process.ended()
            with suppress(AttributeError):
                await lane.close()
        simulator.kill()
        await simulator.ended()
        await world.http.aclose()
        await runner.cleanup()


async def _start_simulator(world: World, lanes: int) -> nursery.Process:
    accounts = [
        {
            "name": f"lane{n}-{channel}", "app_key": f"app-lane{n}-{channel}", "secret": f"secret-of-lane{n}-{channel}-for-tests",
            "role": "secondary" if channel == "b" else "primary", "balance": "10000000",
            "knobs": {"async_rate": 1.0, "async_after_s": 1, "callback_copies": 0} if channel == "c" else {},
        }
        for n in range(1, lanes + 1) for channel in CHANNELS
    ]  # fmt: skip
    config = {"control_token": TOKEN, "time_scale": SCALE, "synchronous": "NORMAL", "suppliers": accounts}
    command = ["-m", "kameng_api.simulator", "--port", "0", "--data", str(world.simulator_file), "--config", "-"]
    process = nursery.popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(json.dumps(config).encode())
    process.stdin.close()
    world.simulator_url = json.loads(await asyncio.to_thread(process.stdout.readline))["simulator_url"]
    return process


async def stock(db: Database, settings: Settings, simulator_url: str, lane: str) -> None:
    """`phone` and `card` on a and b, `asked` on c alone, `booked` on d alone."""
    keyring = keyring_of(settings)
    face = parse_amount("100")
    products = {
        "phone": (Product("phone", "Phone", "topup", face_value=face, target_kind="mobile"), "hf-100", "ab", "97.5"),
        "asked": (Product("asked", "Asked", "topup", face_value=face, target_kind="mobile"), "hf-100", "c", "97.5"),
        "booked": (Product("booked", "Booked", "topup", face_value=face, target_kind="mobile"), "hf-100", "d", "97.5"),
        "card": (Product("card", "Card", "card", face_value=parse_amount("10")), "test-card", "ab", "9.5"),
    }
    async with db.transaction() as tx:
        for channel in CHANNELS:
            name = f"{lane}-{channel}"
            connection = {"base_url": simulator_url, "app_key": f"app-{name}", "secret": f"secret-of-{name}-for-tests", "timeout_s": 4}
            await catalog.create_channel(tx, keyring, NewChannel(name, name, "simulator", "test", json.dumps(connection).encode()))
        for product, code, channels, cost in products.values():
            await catalog.put_product(tx, product)
            await catalog.set_price(tx, product.sku, Price(unit_price=parse_amount(cost) + 10_000))
            for channel in channels:
                dearer = 5_000 if channel == "b" else 0
                await catalog.set_offer(tx, Offer(f"{lane}-{channel}", product.sku, code, unit_cost=parse_amount(cost) + dearer))
        now = datetime.now(UTC)
        await catalog.put_rule(tx, Rule(new_ulid(), Scope(channel_id=f"{lane}-a"), Terms(quote_ttl_s=86_400), "fresh prices", "test"), now)


def _quiet_port() -> int:
    """Below those that the system lends to anybody: it must still be free when an API is started there again."""
    while True:
        port = random.randint(20_000, 29_999)
        with socket.socket() as tried, suppress(OSError):
            tried.bind(("127.0.0.1", port))
            return port


def _renamed(url: str, database: str) -> str:
    return make_url(url).set(database=database).render_as_string(hide_password=False)


async def _connect(url: str) -> "asyncpg.Connection[asyncpg.Record]":
    return await asyncpg.connect(_plain(url))


def _plain(url: str) -> str:
    """As asyncpg itself wants it."""
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
