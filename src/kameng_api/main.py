"""The HTTP process: settings in, app out. Nothing happens at import."""

import ast
import asyncio
import re
import resource
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Final

import structlog
import uvicorn
from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from redis.asyncio import Redis

from kameng_api.api import (
    balance,
    batches,
    events,
    health,
    numbers,
    openapi,
    orders,
    problems,
    products,
    receipts,
    scan,
    statements,
    supplier_callbacks,
    test_mode,
    webhooks,
)
from kameng_api.api.access import AccessMap
from kameng_api.api.admin import router as admin
from kameng_api.api.deps import Door
from kameng_api.api.doors.accounts import Accounts
from kameng_api.api.doors.lobby import Lobby
from kameng_api.api.doors.mounting import Doors
from kameng_api.api.doors.registry import list_doors
from kameng_api.api.gate import Gate
from kameng_api.api.limits import Failures, Memory
from kameng_api.api.lookups import Lookups
from kameng_api.api.metrics import Metrics
from kameng_api.api.orders import gather_orders
from kameng_api.api.outcomes import Outcomes
from kameng_api.api.signature import KeyCache
from kameng_api.api.supplier_callbacks import gather_callbacks
from kameng_api.catalog import queries as catalog
from kameng_api.catalog.rules import Snapshot
from kameng_api.evidence import restores
from kameng_api.kit import log, traces
from kameng_api.kit.crypto import Keyring
from kameng_api.kit.db import Database
from kameng_api.kit.doorbell import Doorbell
from kameng_api.kit.fresh import Fresh
from kameng_api.kit.http import build_client
from kameng_api.kit.memory import settle_memory
from kameng_api.settings import Settings
from kameng_api.suppliers.connections import Connections
from kameng_api.suppliers.registry import list_adapters, use_files

BACKLOG: Final = 16_384
_CATALOG_EVERY_S: Final = 0.5
_DRAIN_NOTICE_S: Final = 3.0  # how long load balancers get to read /readyz before connections are closed
_DRAIN_S: Final = 30
_REVISION: Final = re.compile(r"^(down_)?revision(?:: [^=\n]+)? = (.+)$", re.MULTILINE)

_log = structlog.get_logger()


def build_app(settings: Settings, db: Database | None = None) -> FastAPI:
    """The whole HTTP surface. Servers are reached when the app's lifespan starts, not here. `db` takes the place of a pool of the app's own."""
    use_files(settings.supplier_files)
    public = settings.mode != "live"
    app = FastAPI(
        title="Kameng API",
        version="1",
        lifespan=_lifespan,
        openapi_url="/openapi.json" if public else None,
        docs_url="/docs" if public else None,
        redoc_url=None,
        swagger_ui_oauth2_redirect_url=None,
        redirect_slashes=False,
        separate_input_output_schemas=False,
        generate_unique_id_function=_operation_id,
        # Its own would copy exception texts and refused values to whatever exporter the environment names; ours is kit.traces.
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
    )
    app.state.settings, app.state.db = settings, db
    app.router.routes.extend(_surface().routes)
    app.mount("/doors", Doors(list_doors()))
    problems.install(app)
    openapi.install(app)
    app.add_middleware(Gate)
    return app


@cache
def _surface() -> APIRouter:
    """All routes but the doors. One for all apps of a process: what FastAPI works out of a route at its first request is worked out once."""
    surface = APIRouter(redirect_slashes=False, generate_unique_id_function=_operation_id)
    for router in (
        orders.router,  # routers are asked in turn: the busiest first
        supplier_callbacks.router,
        batches.router,
        balance.router,
        receipts.router,
        products.router,
        scan.router,
        numbers.router,
        events.router,
        statements.router,
        webhooks.router,
        webhooks.deliveries_router,
        webhooks.notify_router,
        orders.test_router,
        test_mode.router,
        health.router,
    ):
        surface.include_router(router)
    admin.include_in(surface)
    return surface


def _operation_id(route: APIRoute) -> str:
    return f"admin_{route.name}" if route.path.startswith("/admin/") else route.name


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    app.state.heads = migration_heads()
    door = await open_door(app.state.settings, app.state.db)
    app.state.door = door
    try:
        yield
    finally:
        await close_door(door)


async def open_door(settings: Settings, db: Database | None = None) -> Door:
    """Connect to everything an API process needs. Raises when the database cannot be read."""
    assert settings.database_url is not None and settings.redis_url is not None, "resolve the embedded servers first"
    db = db or Database(settings.database_url.get_secret_value(), pool_size=settings.database_pool)
    async with db.transaction() as tx:
        if await restores.find_standing(tx) is restores.Standing.MOVED:
            raise RuntimeError("this database was restored, or moved to another server: run `kameng restore begin` first")
    redis_url = settings.redis_url.get_secret_value()
    redis: Redis = Redis.from_url(redis_url, socket_connect_timeout=1.0, socket_timeout=1.0)
    keyring = Keyring(settings.kek_bytes, next(iter(settings.kek_bytes)))
    client = build_client(max_connections=20, connect_timeout_s=5.0, guard=False)  # admin's questions to suppliers
    connections = Connections(keyring, client, base_url=settings.base_url, timeout_s=settings.supplier_timeout_s)
    door = Door(
        settings=settings,
        db=db,
        redis=redis,
        keyring=keyring,
        catalog=Fresh(_catalog_loader(db), _CATALOG_EVERY_S),
        doorbell=Doorbell(redis_url),
        keys=KeyCache(db, keyring),
        memory=Memory(redis),
        failures=Failures(settings.rate_auth_failures_per_min),
        access=AccessMap(),
        metrics=Metrics(),
        connections=connections,
        lookups=Lookups(connections, timeout_s=settings.number_lookup_timeout_s),
        outcomes=Outcomes(db),
        lobby=Lobby(Accounts(db, keyring)),
    )
    door.orders = gather_orders(door)
    door.callbacks = gather_callbacks(door)
    door.outcomes.hurried = lambda: door.draining
    _watch(door)
    await door.catalog.start()
    await door.keys.start()
    return door


async def close_door(door: Door) -> None:
    """Let what is under way finish, then let go of the servers."""
    door.draining = True
    door.outcomes.stop()
    await door.memory.asking.drain()
    await door.orders.drain()
    await door.callbacks.drain()
    await door.keys.stop()
    await door.catalog.stop()
    await door.doorbell.close()
    await door.connections.close()
    await door.redis.aclose()
    await door.db.close()


class _CatalogLoader:
    """Reads the whole catalogue only when its version has moved."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._last: Snapshot | None = None

    async def __call__(self) -> Snapshot:
        async with self._db.transaction() as tx:
            if self._last is None or await catalog.find_version(tx) != self._last.version:
                self._last = await catalog.load_snapshot(tx)
        return self._last


def _catalog_loader(db: Database) -> _CatalogLoader:
    return _CatalogLoader(db)


def _watch(door: Door) -> None:
    metrics = door.metrics
    metrics.watch("kameng_gate_memory_down", "1 while Redis is lost and nonces and rates are not checked",
                  lambda: float(door.memory.down))  # fmt: skip
    metrics.watch("kameng_database_connections_in_use", "Connections checked out", lambda: float(door.db.pool_in_use()))
    metrics.watch("kameng_tills_waiting", "Scans that wait for an outcome", lambda: float(door.outcomes.waiting))
    metrics.watch("kameng_http_in_flight", "Requests being answered", lambda: float(door.in_flight))
    metrics.watch("kameng_catalog_version", "Version of the catalogue copy", lambda: float(door.catalog.current.version))
    metrics.watch("kameng_catalog_age_seconds", "Age of the catalogue copy", lambda: door.catalog.age_s)
    door.memory.asking.on_flush = metrics.flushes("gate_memory")
    door.orders.on_flush = metrics.flushes("orders")
    door.callbacks.on_flush = metrics.flushes("callbacks")


def migration_heads() -> frozenset[str] | None:
    """The newest revisions this code knows; None where the migrations were not shipped beside it."""
    for folder in (Path(__file__).parents[2] / "migrations", Path("migrations")):
        if (folder / "env.py").is_file():
            return read_heads(folder / "versions")
    return None


def read_heads(versions: Path) -> frozenset[str]:
    """Which revisions none follows, read as text: Alembic, to say the same, has to be imported and to run every migration's module."""
    known: set[str] = set()
    followed: set[str] = set()
    for file in versions.glob("*.py"):
        for down, value in _REVISION.findall(file.read_text(encoding="utf-8")):
            names = ast.literal_eval(value) or ()
            (followed if down else known).update((names,) if isinstance(names, str) else names)
    return frozenset(known - followed)


class _Server(uvicorn.Server):
    """Told to stop, it first says so on /readyz and on every answer, and closes its doors a moment later."""

    def __init__(self, config: uvicorn.Config, app: FastAPI, notice_s: float) -> None:
        super().__init__(config)
        self._app = app
        self._notice_s = notice_s

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        door: Door | None = getattr(self._app.state, "door", None)
        if sig == signal.SIGTERM and door is not None and not door.draining and self._notice_s > 0:
            door.draining = True
            self._captured_signals.append(sig)
            asyncio.get_running_loop().call_later(self._notice_s, setattr, self, "should_exit", True)
            return
        if door is not None:
            door.draining = True
        super().handle_exit(sig, frame)


def serve(settings: Settings) -> None:
    """Run the API in this process until SIGTERM or SIGINT. The servers named in `settings` must answer."""
    log.configure(settings.log_level)
    traces.start(settings.otlp_endpoint, name="kameng-api")
    raise_open_files()
    app = build_app(settings)
    list_adapters()  # a broken supplier's file stops the start, not the first callback
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="on",
        proxy_headers=False,
        server_header=False,
        date_header=True,
        access_log=False,
        log_config=None,
        backlog=BACKLOG,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=_DRAIN_S,
    )
    settle_memory()
    _Server(config, app, _DRAIN_NOTICE_S if settings.mode == "live" else 0.0).run()
    traces.stop()


def raise_open_files() -> None:
    """Ten thousand connections are ten thousand open files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = hard if hard != resource.RLIM_INFINITY else 1_048_576
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
