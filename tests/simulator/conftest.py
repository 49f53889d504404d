"""A simulator as a real process, a real receiver of its callbacks, and the real adapter between them."""

import asyncio
import contextlib
import json
import signal
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from tests.factories import nursery

from kameng_api.kit.http import build_client
from kameng_api.kit.ids import new_ulid, ulid_text
from kameng_api.suppliers.port import CallbackNews, CallbackRefused, CatalogHint, Outcome, Purchase, StatementLine, Supplier
from kameng_api.suppliers.registry import get_adapter
from kameng_api.suppliers.transport import Transport

TOKEN = "control-token"
SCALE = 0.05  # a minute of the vendor takes three seconds
SECRETS = {"sim-a": "secret-of-sim-a-only-for-tests", "sim-b": "secret-of-sim-b-only-for-tests"}
SUPPLIERS = [
    {"name": "sim-a", "app_key": "app-sim-a", "secret": SECRETS["sim-a"], "role": "primary", "balance": "1000000"},
    {"name": "sim-b", "app_key": "app-sim-b", "secret": SECRETS["sim-b"], "role": "secondary", "balance": "1000000"},
]


class Simulator:
    """One process; `start` again after `kill` continues on the same file and port."""

    module: tuple[str, ...] = ("kameng_api.simulator",)

    def __init__(self, folder: Path, time_scale: float = SCALE) -> None:
        self.data = folder / "simulator.db"
        self._config: dict[str, Any] = {"control_token": TOKEN, "time_scale": time_scale, "suppliers": SUPPLIERS}
        self._port = 0
        self._process: nursery.Process | None = None
        self.url = ""
        self.http: aiohttp.ClientSession

    async def start(self) -> None:
        command = ["-m", *self.module, "--port", str(self._port), "--data", str(self.data), "--config", "-"]
        self._process = nursery.popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(self._config).encode())
        self._process.stdin.close()
        line = await asyncio.to_thread(self._process.stdout.readline)
        self.url = json.loads(line)["simulator_url"]
        self._port = int(self.url.rpartition(":")[2])
        self.http = aiohttp.ClientSession(headers={"authorization": f"Bearer {TOKEN}"})
        async with asyncio.timeout(20):
            while True:
                with contextlib.suppress(aiohttp.ClientError):
                    async with self.http.get(f"{self.url}/sim/health") as response:
                        if response.status == 200:
                            return
                await asyncio.sleep(0.05)

    async def end(self, how: signal.Signals) -> None:
        assert self._process is not None
        await self.http.close()
        self._process.send_signal(how)
        async with asyncio.timeout(15):
            await self._process.ended()

    async def call(self, method: str, path: str, body: Any = None, status: int = 200) -> Any:
        async with self.http.request(method, f"{self.url}/sim/{path}", json=body) as response:
            text = await response.text()
            assert response.status == status, (response.status, text)
            return json.loads(text)

    async def turn(self, name: str = "sim-a", **knobs: Any) -> None:
        await self.call("PUT", f"suppliers/{name}/knobs", knobs)

    async def rows(self, log: str, reference: str) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = (await self.call("GET", f"{log}?reference={reference}"))["items"]
        return items

    async def delivered(self, reference: str) -> int:
        return len(await self.rows("deliveries", reference))


@dataclass
class Receiver:
    """Reads callbacks with the adapter; answers what the test says."""

    url: str = ""
    reply: tuple[int, str] = (200, "success")
    bodies: list[bytes] = field(default_factory=list)

    async def take(self, request: web.Request) -> web.Response:
        self.bodies.append(await request.read())
        return web.Response(status=self.reply[0], text=self.reply[1])

    def news(self, supplier: Supplier, reference: str) -> list[Outcome]:
        """What was said about `reference`, in the order of arrival; what does not verify is left out."""
        assert supplier.read_callback is not None
        found: list[CallbackNews | CatalogHint] = []
        for body in self.bodies:
            with contextlib.suppress(CallbackRefused):
                found.append(supplier.read_callback({}, body, datetime.now(UTC)))
        return [one.outcome for one in found if isinstance(one, CallbackNews) and one.reference == reference]

    async def wait_for(self, supplier: Supplier, reference: str, count: int, within_s: float = 8) -> list[Outcome]:
        async with asyncio.timeout(within_s):
            while len(found := self.news(supplier, reference)) < count:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        return found


@dataclass
class World:
    simulator: Simulator
    receiver: Receiver
    a: Supplier
    b: Supplier

    def purchase(self, target: str | None = "10000000000", **more: Any) -> Purchase:
        values: dict[str, Any] = {
            "reference": f"KMT{ulid_text(new_ulid())}",
            "product_code": "hf-100",
            "product_type": "topup",
            "units": 1,
            "currency": "CNY",
            "max_cost": 100_0000 * int(more.get("units", 1)),
            "target": target,
            "callback_url": self.receiver.url,
            **more,
        }
        return Purchase(**values)

    async def statement(self, supplier: Supplier, day: date) -> list[StatementLine]:
        assert supplier.statement is not None
        return [line async for page in supplier.statement(day) for line in page]

    async def look_up(self, purchase: Purchase, supplier: Supplier | None = None) -> Outcome:
        chosen = supplier or self.a
        assert chosen.look_up is not None
        return (await chosen.look_up(purchase.reference)).outcome

    async def look_until(self, purchase: Purchase, kind: type, within_s: float = 8) -> Outcome:
        async with asyncio.timeout(within_s):
            while not isinstance(outcome := await self.look_up(purchase), kind):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        return outcome


@pytest.fixture(scope="module")
async def receiver() -> AsyncIterator[Receiver]:
    found = Receiver()
    app = web.Application()
    app.router.add_post("/callbacks/{name}", found.take)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    found.url = f"http://127.0.0.1:{runner.addresses[0][1]}/callbacks/x"
    yield found
    await runner.cleanup()


@pytest.fixture(scope="module")
async def simulator(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Simulator]:
    found = Simulator(tmp_path_factory.mktemp("simulator"))
    await found.start()
    yield found
    await found.end(signal.SIGTERM)


@pytest.fixture
async def world(simulator: Simulator, receiver: Receiver) -> AsyncIterator[World]:
    """Both accounts connected, all knobs at rest."""
    for name in SECRETS:
        await simulator.turn(name)
    receiver.reply = (200, "success")
    receiver.bodies.clear()
    adapter = get_adapter("simulator")
    client = build_client(max_connections=50, connect_timeout_s=2, guard=False)

    def connect(name: str) -> Supplier:
        settings = {"base_url": simulator.url, "app_key": f"app-{name}", "secret": SECRETS[name], "timeout_s": 0.8}
        return adapter.connect(adapter.settings(**settings), Transport(client).send)

    yield World(simulator, receiver, connect("sim-a"), connect("sim-b"))
    await client.aclose()
