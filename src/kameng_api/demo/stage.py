"""Everything that stands behind the tour: servers of its own, and every process of the house, on free ports of loopback.

Each tour begins with an empty database; what the last one left in its folder stays there to be looked at until then.
"""

import asyncio
import fcntl
import json
import os
import secrets
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx

from kameng_api import embedded
from kameng_api.demo import processes
from kameng_api.demo.catalogue import SECOND_EXTRA_PPM
from kameng_api.demo.processes import Child, Crew, ProcessFailed, Start
from kameng_api.simulator.catalogue import default_products

SUPPLIERS: Final = {"sim-a": ("primary", 0), "sim-b": ("secondary", SECOND_EXTRA_PPM)}
"""Channel id, which is the account's name too → its role and how much dearer it is."""
WALLET: Final = "100000000"
_START_S: Final = 120.0
_TRIES: Final = 3
_CLI: Final = ("-m", "kameng_api.cli")


class Busy(Exception):
    """Another tour runs in this folder."""


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where everything answers, and what opens it."""

    base_url: str
    simulator_url: str
    receiver_url: str
    simulator_token: str = field(repr=False)
    receiver_token: str = field(repr=False)
    supplier_secrets: dict[str, str] = field(repr=False)

    @property
    def admin_url(self) -> str:
        return f"{self.base_url}/admin/v1"


class Stage:
    """Raise it with `open`, then `start_worker`; `close` takes down all of it, whatever had come up. `var` is the tour's own folder."""

    def __init__(self, var: Path, port: int, tell: Callable[[str], None], start: Start = processes.on_a_leash) -> None:
        self.var = var.resolve()
        self.crew = Crew(self.var, tell, start)
        self.addresses: Addresses | None = None
        self._port = port
        self._tell = tell
        self._lock: int | None = None
        self._servers: embedded.Servers | None = None
        self._settings: dict[str, str] = {}
        self._http = httpx.AsyncClient(timeout=5, trust_env=False)
        self._watching: asyncio.Task[None] | None = None

    async def open(self) -> str:
        """Everything but the worker. Answers an operator's token. Raises Busy, EmbeddedError, ProcessFailed."""
        self.var.mkdir(parents=True, exist_ok=True)
        self._lock = _take(self.var / "demo.lock")
        left = await asyncio.to_thread(processes.end_leftovers, self.var)
        if left:
            self._tell(f"ended {left} processes that an earlier tour had left")
        await asyncio.to_thread(self._sweep)
        simulator, receiver, self._servers = await asyncio.gather(
            self._start_simulator(), self._start_receiver(), asyncio.to_thread(embedded.start, self.var)
        )
        self._settings = self._common_settings(simulator[1])
        await self.command("migrate", owner=True)
        (base_url, token) = await asyncio.gather(self._start_api(), self._make_operator())
        self.addresses = Addresses(base_url, simulator[0], receiver[0], simulator[1], receiver[1], simulator[2])
        self._watching = asyncio.create_task(self.crew.watch())
        return token

    async def close(self) -> list[str]:
        """Stops what was started, in the reverse order, the servers last. Says what would not end by itself."""
        if self._watching is not None:
            self._watching.cancel()
        stubborn = await self.crew.stop()
        await self._http.aclose()
        if self._lock is not None:
            try:
                await asyncio.to_thread(embedded.stop, self.var)
            except embedded.EmbeddedError as trouble:
                stubborn.append(str(trouble))
            os.close(self._lock)
        return stubborn

    def _sweep(self) -> None:
        """An empty folder, but for the logs of the servers."""
        embedded.remove(self.var)
        for old in (*self.var.glob("simulator.sqlite*"), *(self.var / "log").glob("demo-*.log")):
            old.unlink()
        (self.var / "log").mkdir(mode=0o700, exist_ok=True)

    def _common_settings(self, simulator_token: str) -> dict[str, str]:
        assert self._servers is not None
        return {
            "mode": "development",
            "var": str(self.var),
            "database_url": self._servers.app_url,
            "redis_url": self._servers.redis_url,
            "host": "127.0.0.1",
            "webhook_development": "true",
            "rate_reads_per_s": "5000",
            "rate_writes_per_s": "5000",
            "rate_auth_failures_per_min": "0",
            "simulator_token": simulator_token,
            "tick_s": "0.25",
        }

    def _child(self, name: str, arguments: tuple[str, ...], settings: dict[str, str], given: bytes = b"") -> Child:
        log = self.var / "log" / f"demo-{name.replace(' ', '-')}.log"
        return Child(name, arguments, processes.environment(settings), log, given)

    async def _start(self, make: Callable[[int], Child], answers: Callable[[int], Awaitable[bool]], port: int = 0) -> int:
        """Starts what `make(port)` says on a free port, on another one when somebody was faster. Answers the port."""
        for attempt in range(1, _TRIES + 1):
            at = port or processes.free_port()
            child = make(at)
            self.crew.start(child)
            try:
                await processes.wait_for(child, lambda at=at: answers(at), _START_S)  # type: ignore[misc]
            except ProcessFailed:
                if attempt == _TRIES or child.process is None or child.process.poll() is None:
                    raise
                self.crew.forget(child)
            else:
                return at
        raise AssertionError("unreachable")

    async def _start_simulator(self) -> tuple[str, str, dict[str, str]]:
        token = secrets.token_urlsafe(24)
        keys = {name: secrets.token_urlsafe(32) for name in SUPPLIERS}
        config = {
            "control_token": token,
            "synchronous": "NORMAL",
            "suppliers": [
                {
                    "name": name,
                    "app_key": f"app-{name}",
                    "secret": keys[name],
                    "role": role,
                    "balance": WALLET,
                    "products": [product.model_dump() for product in default_products(extra_ppm)],
                }
                for name, (role, extra_ppm) in SUPPLIERS.items()
            ],
        }
        data = str(self.var / "simulator.sqlite")

        def make(port: int) -> Child:
            arguments = ("-m", "kameng_api.simulator", "--port", str(port), "--data", data, "--config", "-")
            return self._child("simulator", arguments, {}, json.dumps(config).encode())

        port = await self._start(make, lambda at: self._answers(f"http://127.0.0.1:{at}/sim/health"))
        return f"http://127.0.0.1:{port}", token, keys

    async def _start_receiver(self) -> tuple[str, str]:
        token = secrets.token_urlsafe(24)

        def make(port: int) -> Child:
            return self._child("receiver", ("-m", "kameng_api.demo.receiver", str(port)), {}, f"{token}\n".encode())

        port = await self._start(make, lambda at: self._answers(f"http://127.0.0.1:{at}/health"))
        return f"http://127.0.0.1:{port}", token

    async def _start_api(self) -> str:
        def make(port: int) -> Child:
            self._settings |= {"port": str(port), "base_url": f"http://127.0.0.1:{port}"}
            return self._child("api", (*_CLI, "serve"), self._settings)

        await self._start(make, lambda at: self._answers(f"http://127.0.0.1:{at}/readyz"), self._port)
        return self._settings["base_url"]

    async def start_worker(self) -> None:
        """Nothing is bought before this. Raises ProcessFailed."""

        def make(port: int) -> Child:
            return self._child("worker", (*_CLI, "worker"), {**self._settings, "worker_metrics_port": str(port)})

        await self._start(make, lambda at: self._answers(f"http://127.0.0.1:{at}/metrics"))

    async def _answers(self, url: str) -> bool:
        try:
            return (await self._http.get(url)).status_code == 200
        except httpx.HTTPError:
            return False

    async def _make_operator(self) -> str:
        made: dict[str, Any] = json.loads(await self.command("operator", "create", "demo", "--role", "admin"))
        return str(made["token"])

    def environment(self, *, owner: bool = False) -> dict[str, str]:
        """Of a command that is run beside the processes of the stage; `owner`: one that may change the schema."""
        assert self._servers is not None
        owners = {"database_owner_url": self._servers.owner_url} if owner else {}
        return processes.environment({**self._settings, **owners})

    async def command(self, *arguments: str, owner: bool = False) -> str:
        """What a command of the command line prints as JSON. Raises ProcessFailed."""
        running = await asyncio.create_subprocess_exec(
            sys.executable, "-X", processes.mark_of(self.var), *_CLI, *arguments, "--json",
            env=self.environment(owner=owner),
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )  # fmt: skip
        try:
            said, trouble = await running.communicate()
        except asyncio.CancelledError:
            running.kill()
            await running.wait()
            raise
        if running.returncode != 0:
            raise ProcessFailed(f"kameng {arguments[0]} ended with status {running.returncode}:\n{trouble.decode(errors='replace')[-3000:]}")
        return said.decode()


def _take(path: Path) -> int:
    """Holds the folder until this process ends, however it ends. Raises Busy."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise Busy(f"another demo runs in {path.parent}: end it first, or use another clone") from None
    return descriptor
