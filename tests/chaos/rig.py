"""The machine under test: every process of the house twice or thrice, its own servers, three suppliers, and a wire of ours on every edge."""

import asyncio
import json
import secrets
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp
from benchmarks.house import migrate
from sqlalchemy.engine import make_url
from tests.chaos import vendors
from tests.chaos.fleet import Child, Failed, Machines, Wires, environment
from tests.chaos.history import History
from tests.chaos.process import SKEW_FILE

from kameng_api import embedded
from kameng_api.demo import processes
from kameng_api.kit.db import Database
from kameng_api.kit.money import at_rate, format_amount, parse_amount
from kameng_api.simulator.catalogue import default_products

APIS: Final = ("api-0", "api-1")
WORKERS: Final = ("worker-0", "worker-1", "worker-2")
SUPPLIERS: Final = {"sim-a": ("primary", 0), "sim-b": ("secondary", 3_000), "sim-c": ("secondary", 6_000)}
"""Channel and account → role, and how much dearer it is than the cheapest, in parts per million."""
RECEIVER: Final = "receiver"
SUPPLIER_TIMEOUT_S: Final = 4.0
LEASE_S: Final = 10
GRACE_S: Final = 10
"""After which the simulator's adapter believes "not found"; see its `Capabilities`."""
WALLET: Final = "100000000"
_WHOLE: Final = 1_000_000


@dataclass
class Rig:
    """One run's machine. `time_scale` shortens what suppliers do later; `workers` and `apis` may be fewer for figures."""

    folder: Path
    seed: int
    bug: str | None = None
    vendor: str | None = None
    """The twin that stands in place of the simulators; see `tests.suppliers.twins`."""
    time_scale: float = 0.5
    lease_s: int = LEASE_S
    supplier_timeout_s: float = SUPPLIER_TIMEOUT_S
    settings: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Settings of the house that a figure wants otherwise."""
    apis: Sequence[str] = APIS
    workers: Sequence[str] = WORKERS
    children: dict[str, Child] = field(default_factory=dict)
    ports: dict[str, int] = field(default_factory=dict)
    """Edge → port of the wire on it."""
    held_down: set[str] = field(default_factory=set)
    """Children that a fault wants dead at the moment; all others are started again."""
    control_token: str = field(default_factory=lambda: secrets.token_urlsafe(16), repr=False)
    supplier_secrets: dict[str, str] = field(default_factory=lambda: {name: secrets.token_urlsafe(24) for name in SUPPLIERS}, repr=False)
    operator_token: str = field(default="", repr=False)
    aged: list[str] = field(default_factory=list)
    """References of purchases in doubt for which a day has passed; see `ending`."""

    def __post_init__(self) -> None:
        self.machines = Machines(self.folder)
        self.history: History = None  # type: ignore[assignment]
        self.wires: Wires = None  # type: ignore[assignment]
        self.servers: embedded.Servers = None  # type: ignore[assignment]
        self.db: Database = None  # type: ignore[assignment]
        self.http: aiohttp.ClientSession = None  # type: ignore[assignment]
        self._keeping: asyncio.Task[None] | None = None
        self._nemesis = self.folder / "nemesis.jsonl"

    # ---- up and down

    async def open(self) -> None:
        """Everything runs and answers, but for the workers: `start_workers` once there is a shop. Raises Failed, EmbeddedError."""
        await asyncio.to_thread(self._make_room)
        self.history = History(self.folder / "history.jsonl")
        self.servers = await asyncio.to_thread(self.machines.start)
        await asyncio.to_thread(migrate, self.servers)
        self.db = Database(self.servers.app_url, pool_size=4)
        self.http = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10))
        self.wires = await Wires.start(self.folder, self.seed)
        self._declare()
        await self._open_wires()
        for name in (*SUPPLIERS, RECEIVER, *self.apis):
            self.children[name].start()
        await asyncio.gather(*(self.children[name].until_well() for name in (*SUPPLIERS, RECEIVER, *self.apis)))
        self.operator_token = await self._make_operator()

    async def start_workers(self) -> None:
        """And whatever dies from now on is started again."""
        for name in self.workers:
            self.children[name].start()
        await asyncio.gather(*(self.children[name].until_well() for name in self.workers))
        self._keeping = asyncio.create_task(self._keep())

    async def close(self) -> list[str]:
        """Stops everything; says what did not end by itself."""
        if self._keeping is not None:
            self._keeping.cancel()
        stubborn = [name for name, ended in await self._stop_children() if not ended]
        if self.http is not None:
            await self.http.close()
        if self.db is not None:
            await self.db.close()
        if self.wires is not None:
            await self.wires.stop()
        await asyncio.to_thread(embedded.remove, self.folder)
        if self.history is not None:
            self.history.close()
        return stubborn

    async def _stop_children(self) -> list[tuple[str, bool]]:
        names = [*self.workers, *self.apis, *SUPPLIERS, RECEIVER]
        children = [self.children[n] for n in names if n in self.children and self.children[n].process is not None]
        ended = []
        for group in (children[: len(self.workers)], children[len(self.workers) :]):
            ended += list(zip([c.name for c in group], await asyncio.gather(*(c.stop() for c in group)), strict=True))
        return ended

    def _make_room(self) -> None:
        if self.folder.exists():
            processes.end_leftovers(self.folder)
            embedded.remove(self.folder)
            shutil.rmtree(self.folder)
        (self.folder / "log").mkdir(parents=True)
        self.folder.chmod(0o711)

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(0.2)
            for child in self.children.values():
                if child.starts and not child.alive and child.name not in self.held_down:
                    child.start()

    # ---- what there is

    def _declare(self) -> None:
        for name in (*self.apis, *self.workers, *SUPPLIERS, RECEIVER):
            self.ports[f"direct:{name}"] = processes.free_port()

    async def _open_wires(self) -> None:
        sockets = self.machines.sockets
        for name in (*self.apis, *self.workers):
            self.ports[f"{name}>pg"] = await self.wires.open(f"{name}>pg", f"unix:{sockets}/.s.PGSQL.5432")
            self.ports[f"{name}>redis"] = await self.wires.open(f"{name}>redis", f"unix:{sockets}/redis.sock")
        for name in self.apis:
            self.ports[f"client>{name}"] = await self.wires.open(f"client>{name}", f"127.0.0.1:{self.ports[f'direct:{name}']}")
        for name in SUPPLIERS:
            self.ports[f"worker>{name}"] = await self.wires.open(f"worker>{name}", f"127.0.0.1:{self.ports[f'direct:{name}']}")
        self.ports["sim>callback"] = await self.wires.open("sim>callback", *(f"127.0.0.1:{self.ports[f'direct:{n}']}" for n in self.apis))
        apis = [f"127.0.0.1:{self.ports[f'direct:{name}']}" for name in self.apis]
        self.ports["front"] = await self.wires.open("front", *apis, ready="/readyz")
        self.ports["worker>receiver"] = await self.wires.open("worker>receiver", f"127.0.0.1:{self.ports[f'direct:{RECEIVER}']}")
        for name in self.apis:
            self._child(name, ("serve",), {"port": str(self.ports[f"direct:{name}"])}, "/readyz")
        for name in self.workers:
            self._child(name, ("worker",), {"worker_metrics_port": str(self.ports[f"direct:{name}"])}, "/metrics")
        for name in SUPPLIERS:
            self._declare_supplier(name)
        port = self.ports[f"direct:{RECEIVER}"]
        arguments = ("-m", "tests.chaos.receiver", str(port), str(self.folder))
        self.children[RECEIVER] = Child(RECEIVER, arguments, environment({}), self.folder, port, "/health")

    def _child(self, name: str, arguments: tuple[str, ...], own: dict[str, str], health: str) -> None:
        bug = ("--bug", self.bug) if self.bug else ()
        env = environment({**self._settings(name), **own}, **{SKEW_FILE: str(self.skew_file(name))})
        self.children[name] = Child(
            name, ("-m", "tests.chaos.process", *bug, *arguments), env, self.folder, self.ports[f"direct:{name}"], health
        )

    def _settings(self, name: str) -> dict[str, str]:
        database = make_url(self.servers.app_url).set(host="127.0.0.1", port=self.ports[f"{name}>pg"], query={"ssl": "disable"})
        secret = self.servers.redis_url.split("@")[0].removeprefix("unix://")
        return {
            "mode": "development",
            "var": str(self.folder),
            "host": "127.0.0.1",
            "base_url": f"http://127.0.0.1:{self.ports['sim>callback']}",
            "database_url": database.render_as_string(hide_password=False),
            "redis_url": f"redis://{secret}@127.0.0.1:{self.ports[f'{name}>redis']}/0",
            "webhook_development": "true",
            "rate_reads_per_s": "100000",
            "rate_writes_per_s": "100000",
            "rate_reveals_per_s": "100000",
            "rate_auth_failures_per_min": "0",
            "supplier_timeout_s": str(self.supplier_timeout_s),
            "lease_s": str(self.lease_s),
            "tick_s": "0.2",
            "log_level": "warning",
            **self.settings,
        }

    def _declare_supplier(self, name: str) -> None:
        role, extra_ppm = SUPPLIERS[name]
        products = vendors.products(self.vendor, extra_ppm) if self.vendor else default_products(extra_ppm)
        app_key, secret = vendors.keys(self.vendor) if self.vendor else (f"app-{name}", self.supplier_secrets[name])
        account = {
            "name": name, "app_key": app_key, "secret": secret, "role": role, "balance": WALLET,
            "products": [{**p.model_dump(), "stock": None if p.stock else p.stock} for p in products],
        }  # fmt: skip
        config = {"control_token": self.control_token, "time_scale": self.time_scale, "synchronous": "NORMAL", "suppliers": [account]}
        path = self.folder / f"{name}.json"
        path.write_text(json.dumps(config))
        port = self.ports[f"direct:{name}"]
        data = str(self.folder / f"{name}.sqlite")
        module = ("tests.suppliers.twins", self.vendor) if self.vendor else ("kameng_api.simulator",)
        arguments = ("-m", *module, "--port", str(port), "--data", data, "--config", str(path))
        self.children[name] = Child(name, arguments, environment({}), self.folder, port, "/sim/health")

    def skew_file(self, name: str) -> Path:
        return self.folder / f"{name}.skew"

    async def _make_operator(self) -> str:
        settings = {**self._settings(self.apis[0]), "database_url": self.servers.app_url, "redis_url": self.servers.redis_url}
        running = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "kameng_api.cli", "operator", "create", "chaos", "--role", "admin", "--json",
            env=environment(settings), cwd=self.folder, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        said, trouble = await running.communicate()
        if running.returncode:
            raise Failed(f"no operator: {trouble.decode(errors='replace')[-2000:]}")
        return str(json.loads(said)["token"])

    # ---- to be asked

    def front(self, turn: int) -> str:
        """The merchants' address of one of the APIs, through its wire."""
        return f"http://127.0.0.1:{self.ports[f'client>{self.apis[turn % len(self.apis)]}']}"

    def direct(self, name: str) -> str:
        return f"http://127.0.0.1:{self.ports[f'direct:{name}']}"

    @property
    def hooks_url(self) -> str:
        return f"http://127.0.0.1:{self.ports['worker>receiver']}/hooks"

    async def control(self, supplier: str, method: str, path: str, body: Any) -> dict[str, Any]:
        """The simulator's own handle, past all wires; tried for a while, as the simulator may be dead or frozen. Raises Failed."""
        headers = {"authorization": f"Bearer {self.control_token}"}
        deadline = time.monotonic() + 30
        while True:
            try:
                url = f"{self.direct(supplier)}/sim/suppliers/{supplier}/{path}"
                async with self.http.request(method, url, json=body, headers=headers, timeout=aiohttp.ClientTimeout(total=5)) as answer:
                    found: dict[str, Any] = await answer.json()
                    if answer.status != 200:
                        raise Failed(f"{supplier} answered {answer.status} to {path}: {found}")
                    return found
            except (aiohttp.ClientError, TimeoutError) as trouble:
                if time.monotonic() > deadline:
                    raise Failed(f"{supplier} cannot be controlled: {trouble!r}") from trouble
                await asyncio.sleep(0.2)

    def note_fault(self, **facts: Any) -> None:
        with self._nemesis.open("ab", buffering=0) as file:
            file.write(json.dumps({"wall": time.time(), **facts}).encode() + b"\n")


def dearer(text: str, extra_ppm: int) -> str:
    return format_amount(at_rate(parse_amount(text), _WHOLE + extra_ppm))
