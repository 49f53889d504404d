"""A whole house for one benchmark: servers of its own on the real disk, migrations, a small shop, merchants with money, and its processes."""

import asyncio
import fcntl
import json
import secrets
import shutil
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import asyncpg
from alembic import command
from alembic.config import Config
from pydantic import SecretStr
from sqlalchemy.engine import make_url

from benchmarks.figures import say
from benchmarks.machine import ROOT, Failed, Meter, Process
from kameng_api import embedded
from kameng_api.catalog import actions as catalog
from kameng_api.catalog.actions import NewChannel
from kameng_api.catalog.rules import Offer, Price, Product
from kameng_api.demo.processes import free_port
from kameng_api.embedded import servers
from kameng_api.kit.crypto import Keyring
from kameng_api.kit.db import Database, fetch
from kameng_api.kit.ids import new_ulid, ulid_text
from kameng_api.kit.money import parse_amount
from kameng_api.ledger import actions as ledger
from kameng_api.ledger import rules as books
from kameng_api.merchants import actions as merchants
from kameng_api.merchants import queries as merchants_of
from kameng_api.settings import Settings
from kameng_api.webhooks import actions as webhooks

BASE = ROOT / "var" / "bench"  # on the disk of the checkout: in a folder that is memory, fsync costs nothing
SKU: Final = "mobile-cn-100"
PRODUCT_CODE: Final = "hf-100"
TARGET: Final = "13800138000"  # the contract's own example number
CHANNEL: Final = "sim-a"
APP_KEY: Final = "app-sim-a"
MONEY: Final = "100000000.0000"
UNIT_PRICE: Final = parse_amount("98.5")
UNIT_COST: Final = parse_amount("97.5")
FINAL_EVENTS: Final = ("order.succeeded", "order.partially_succeeded", "order.failed", "order.cancelled")
_SCOPES: Final = ("orders:write", "orders:read")
_AT_ONCE: Final = 50
_KAMENG: Final = ("-c", "from kameng_api.cli import main; main()")  # the `kameng` command, with the interpreter that runs us


@dataclass(frozen=True, slots=True)
class Buyer:
    """A merchant of the benchmark: its test book, and the one key its program signs with."""

    merchant_id: UUID
    book_id: int
    key_id: str
    secret: str = field(repr=False)


@dataclass
class House:
    """Servers that run, a migrated database, and everything needed to start processes on them."""

    name: str
    var: Path
    settings: Settings
    db: Database
    meter: Meter
    simulator_secret: str
    buyers: list[Buyer] = field(default_factory=list)
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    @property
    def keyring(self) -> Keyring:
        return Keyring(self.settings.kek_bytes, next(iter(self.settings.kek_bytes)))

    def environment(self, **more: str) -> dict[str, str]:
        """What a process of this house finds in its environment."""
        s = self.settings
        assert s.database_url is not None and s.redis_url is not None
        return {
            "KAMENG_VAR": str(self.var),
            "KAMENG_DATABASE_URL": s.database_url.get_secret_value(),
            "KAMENG_REDIS_URL": s.redis_url.get_secret_value(),
            "KAMENG_RATE_WRITES_PER_S": str(s.rate_writes_per_s),
            "KAMENG_RATE_READS_PER_S": str(s.rate_reads_per_s),
            "KAMENG_RATE_BATCHES_PER_MIN": "1000000",
            "KAMENG_RATE_AUTH_FAILURES_PER_MIN": "0",
            "KAMENG_WEBHOOK_DEVELOPMENT": "true",
            "KAMENG_LOG_LEVEL": "warning",
            **more,
        }

    async def api(self, name: str = "api", arguments: Sequence[str] = (*_KAMENG, "serve")) -> tuple[Process, int]:
        """One API process that is ready, and its port."""
        port = free_port()
        env = self.environment(KAMENG_PORT=str(port), KAMENG_BASE_URL=f"http://127.0.0.1:{port}")
        process = await self._start(f"{self.name}-{name}", arguments, env)
        await process.until_it_answers(port, "/readyz")
        return process, port

    async def worker(self) -> Process:
        """One worker process; the caller stops it or lets the house do so."""
        return await self._start(f"{self.name}-worker", (*_KAMENG, "worker"), self.environment())

    async def spoken(self, module: str, *arguments: str) -> Process:
        """A process of the benchmark's own that listens to lines of JSON."""
        return await self._start(f"{self.name}-{module}", ("-m", f"benchmarks.{module}", *arguments), {}, spoken=True)

    async def simulator(self) -> tuple[Process, str, Path]:
        """The supplier simulator with synchronous NORMAL: its process, its address and its SQLite file."""
        data, port = self.var / "simulator.db", free_port()
        config = {
            "control_token": secrets.token_urlsafe(16),
            "synchronous": "NORMAL",
            "suppliers": [
                {"name": CHANNEL, "app_key": APP_KEY, "secret": self.simulator_secret, "role": "primary", "balance": "10000000000"}
            ],
        }
        path = self.var / "simulator.json"
        path.write_text(json.dumps(config), encoding="utf-8")
        arguments = ("-m", "kameng_api.simulator", "--port", str(port), "--data", str(data), "--config", str(path))
        process = await self._start(f"{self.name}-simulator", arguments, {})
        await process.until_it_answers(port, "/sim/health")
        return process, f"http://127.0.0.1:{port}", data

    async def _start(self, name: str, arguments: Sequence[str], env: Mapping[str, str], *, spoken: bool = False) -> Process:
        process = await Process.start(name, arguments, self.var, env, spoken=spoken)
        self.end_with(process)
        return process

    def end_with(self, process: Process) -> None:
        """Stop this process when the house is closed, the last started first."""
        self.meter.names[process.pid] = process.name.removeprefix(f"{self.name}-")
        self._stack.push_async_callback(process.stop)

    # --- what is in it -----------------------------------------------------------------------------------------------

    async def stock(self, simulator_url: str = "http://127.0.0.1:9") -> None:
        """One product, one channel to the simulator, one offer."""
        connection = {"base_url": simulator_url, "app_key": APP_KEY, "secret": self.simulator_secret, "timeout_s": 10}
        async with self.db.transaction() as tx:
            await catalog.put_product(tx, Product(SKU, "话费 100", "topup", face_value=parse_amount("100"), target_kind="mobile"))
            await catalog.set_price(tx, SKU, Price(unit_price=UNIT_PRICE))
            new = NewChannel(CHANNEL, CHANNEL, "simulator", "test", json.dumps(connection).encode(), concurrency=1000)
            await catalog.create_channel(tx, self.keyring, new)
            await catalog.set_offer(tx, Offer(CHANNEL, SKU, PRODUCT_CODE, unit_cost=UNIT_COST))

    async def let_in(self, count: int) -> None:
        """Merchants, each with a key and play money, through the same actions as an operator's."""
        for start in range(0, count, _AT_ONCE):
            async with self.db.transaction() as tx:
                self.buyers += [await self._let_in_one(tx, n) for n in range(start, min(start + _AT_ONCE, count))]

    async def _let_in_one(self, tx: Any, n: int) -> Buyer:
        merchant = await merchants.create_merchant(tx, name=f"bench {n:04d}", open_book=ledger.open_book)
        book_id = await merchants_of.get_book(tx, merchant.merchant_id, "test")
        await ledger.post_one(tx, books.play_money(book_id, ulid_text(new_ulid()), "CNY", parse_amount(MONEY)))
        made = await merchants.create_hmac_key(tx, self.keyring, merchant.merchant_id, "test", merchants.Terms(scopes=_SCOPES))
        assert made.secret is not None
        return Buyer(merchant.merchant_id, book_id, made.key.key_id, made.secret)

    async def tell_me_at(self, url: str) -> None:
        """Every merchant's endpoint, subscribed to final events only."""
        async with self.db.transaction() as tx:
            for buyer in self.buyers:
                await webhooks.register(tx, self.keyring, buyer.book_id, url=url, event_types=FINAL_EVENTS, description="bench")

    async def numbers(self, prefix: str) -> list[str]:
        """The merchants' numbers of all stored orders that begin with `prefix`, sorted, as often as they are stored."""
        async with self.db.transaction() as tx:
            rows = await fetch(
                tx,
                """SELECT o.merchant_order_no AS no FROM unnest($1::bigint[]) AS b (book_id) JOIN orders o ON o.book_id = b.book_id
                WHERE o.merchant_order_no >= $2 AND o.merchant_order_no < $2 || '~' ORDER BY 1""",
                [b.book_id for b in self.buyers], prefix,
            )  # fmt: skip
        return [r["no"] for r in rows]

    async def restart(self, settings: Mapping[str, str] | None = None) -> None:
        """Stop and start the servers, PostgreSQL with other settings. For the time when no process stands on them."""
        await self.db.close()
        await asyncio.to_thread(embedded.stop, self.var)
        await asyncio.to_thread(embedded.start, self.var, settings=settings)
        self.meter.roots = _roots(self.var)

    async def owner_does(self, statements: Sequence[str], timeout_s: float = 3600.0) -> None:
        """Statements as the owner of the schema, each in a transaction of its own."""
        assert self.settings.database_owner_url is not None
        url = make_url(self.settings.database_owner_url.get_secret_value()).set(drivername="postgresql")
        connection = await asyncpg.connect(url.render_as_string(hide_password=False), command_timeout=timeout_s)
        try:
            for statement in statements:
                await connection.execute(statement)
        finally:
            await connection.close()


def migrate(found: servers.Servers) -> None:
    """`alembic upgrade head` as the owner. Runs a loop of its own: call it in a thread."""
    config = Config(str(ROOT / "alembic.ini"))
    config.attributes["owner_url"] = found.owner_url
    config.attributes["app_role"] = make_url(found.app_url).username
    command.upgrade(config, "head")


@asynccontextmanager
async def open_house(name: str, *, merchants_count: int = 0) -> AsyncIterator[House]:
    """Servers in `var/bench/NAME` with the default settings (fsync on), thrown away at the end."""
    var = BASE / name
    BASE.mkdir(parents=True, exist_ok=True)
    with (BASE / f"{name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Failed(f"another run of {name} stands in {var}") from None
        async with _standing(name, var, merchants_count) as house:
            yield house


@asynccontextmanager
async def _standing(name: str, var: Path, merchants_count: int) -> AsyncIterator[House]:
    await asyncio.to_thread(_make_room, var)
    say(f"· {name}: starting PostgreSQL and Redis, migrating")
    try:
        found = await asyncio.to_thread(embedded.start, var)
        await asyncio.to_thread(migrate, found)
        house = _house(name, found)
        try:
            async with house._stack:
                if merchants_count:
                    await house.stock()
                    await house.let_in(merchants_count)
                yield house
        finally:
            await house.db.close()
    finally:
        await asyncio.to_thread(_clear, var)


def _house(name: str, found: servers.Servers) -> House:
    settings = Settings(
        _env_file=None,
        var=found.var,
        database_url=SecretStr(found.app_url),
        database_owner_url=SecretStr(found.owner_url),
        redis_url=SecretStr(found.redis_url),
        webhook_development=True,
        rate_reads_per_s=1_000_000,
        rate_writes_per_s=1_000_000,
        rate_auth_failures_per_min=0,
    )
    meter = Meter(_roots(found.var))
    return House(name, found.var, settings, Database(found.app_url, pool_size=4), meter, secrets.token_urlsafe(24))


def _roots(var: Path) -> dict[str, int]:
    status = servers.status(var)
    if status.postgres.pid is None or status.redis.pid is None:
        raise Failed("the embedded servers did not start")
    return {"postgres": status.postgres.pid, "redis": status.redis.pid}


def _make_room(var: Path) -> None:
    if var.exists():  # of a run that was killed
        _clear(var)
    var.mkdir()


def _clear(var: Path) -> None:
    servers.remove(var)
    shutil.rmtree(var, ignore_errors=True)
