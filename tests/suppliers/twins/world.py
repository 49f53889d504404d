"""One twin as a process, a receiver of its callbacks, and the adapter that ships between them."""

import contextlib
import signal
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aiohttp import web
from tests.simulator.conftest import SCALE, Simulator
from tests.suppliers.twins import Twin

from kameng_api.kit.http import Client, build_client
from kameng_api.kit.ids import new_ulid, ulid_text
from kameng_api.suppliers.port import CallbackNews, CallbackRefused, CatalogHint, Outcome, Purchase, Supplier
from kameng_api.suppliers.registry import get_adapter
from kameng_api.suppliers.transport import Transport

ACCOUNT = "sim-a"
BALANCE = "1000000"


@dataclass
class Mailbox:
    """Takes the twin's callbacks, and acknowledges them as the adapter says unless `reply` is set."""

    url: str = ""
    reply: tuple[int, bytes, str] = (200, b"success", "text/plain")
    calls: list[tuple[dict[str, str], bytes]] = field(default_factory=list)

    async def take(self, request: web.Request) -> web.Response:
        self.calls.append(({name.lower(): value for name, value in request.headers.items()}, await request.read()))
        status, body, content_type = self.reply
        return web.Response(status=status, body=body, headers={"content-type": content_type})

    def news(self, supplier: Supplier, reference: str) -> list[Outcome]:
        """What verified callbacks said about `reference`, in the order of arrival."""
        return [one.outcome for one in self.read(supplier) if isinstance(one, CallbackNews) and one.reference == reference]

    def read(self, supplier: Supplier) -> list[CallbackNews | CatalogHint]:
        assert supplier.read_callback is not None
        found = []
        for headers, body in self.calls:
            with contextlib.suppress(CallbackRefused):
                found.append(supplier.read_callback(headers, body, datetime.now(UTC)))
        return found


@dataclass
class TwinWorld:
    """`simulator` is the engine of the twin: its knobs, logs and control."""

    twin: Twin
    simulator: Simulator
    mailbox: Mailbox
    client: Client
    supplier: Supplier

    def connect(self, **changes: Any) -> Supplier:
        """Another connection to the same account, with other settings."""
        adapter = get_adapter(self.twin.name)
        known = {**self.twin.settings(self.simulator.url, self.twin.app_key, self.twin.secret), "timeout_s": 0.8, **changes}
        return adapter.connect(adapter.settings(**known), Transport(self.client, longest_s=2.0).send)

    def purchase(self, target: str | None = None, kind: str | None = None, **more: Any) -> Purchase:
        """Of the twin's top-up, or card where it has no top-up; `kind` names another of its goods."""
        goods = self.twin.goods
        chosen = kind or ("topup" if goods.topup is not None else "card")
        units = int(more.get("units", 1))
        values: dict[str, Any] = {
            "reference": f"KMT{ulid_text(new_ulid())}",
            "product_code": getattr(goods, chosen),
            "product_type": "card" if chosen == "card" else "topup",
            "units": units,
            "currency": self.twin.currency,
            "max_cost": self.twin.max_cost * units,
            "target": (target or self.twin.target) if chosen != "card" else None,
            "fields": dict(self.twin.fields),
            "callback_url": self.mailbox.url,
            **more,
        }
        return Purchase(**values)

    async def turn(self, **knobs: Any) -> None:
        await self.simulator.turn(ACCOUNT, **knobs)

    async def delivered(self, reference: str) -> int:
        """Units, by the twin's delivery log."""
        return await self.simulator.delivered(reference)

    async def charged(self, reference: str) -> int:
        """Net, 1/10000, by the twin's wallet."""
        return -sum(int(row["amount"]) for row in await self.simulator.rows("movements", reference))


class TwinProcess(Simulator):
    """`python -m tests.suppliers.twins NAME` with one account."""

    def __init__(self, twin: Twin, folder: Path, time_scale: float = SCALE) -> None:
        super().__init__(folder, time_scale)
        self.module = ("tests.suppliers.twins", twin.name)
        self._config["suppliers"] = [account(twin)]


def account(twin: Twin, name: str = ACCOUNT, role: str = "primary", balance: str = BALANCE) -> Mapping[str, Any]:
    """The twin's account in a simulator's configuration."""
    products = [product.model_dump() for product in twin.products]
    keys = {"app_key": twin.app_key, "secret": twin.secret, "currency": twin.currency}
    return {"name": name, "role": role, "balance": balance, "products": products, **keys}


@contextlib.asynccontextmanager
async def mailbox() -> AsyncIterator[Mailbox]:
    found = Mailbox()
    app = web.Application()
    app.router.add_post("/callbacks/{name}", found.take)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    found.url = f"http://127.0.0.1:{runner.addresses[0][1]}/callbacks/x"
    yield found
    await runner.cleanup()


@contextlib.asynccontextmanager
async def opened(twin: Twin, folder: Path) -> AsyncIterator[TwinWorld]:
    """The twin runs, nothing has been asked of it yet."""
    process = TwinProcess(twin, folder)
    await process.start()
    client = build_client(max_connections=100, connect_timeout_s=2, guard=False)
    try:
        async with mailbox() as box:
            world = TwinWorld(twin, process, box, client, supplier=None)  # type: ignore[arg-type]
            world.supplier = world.connect()
            reply = world.supplier.callback_reply
            box.reply = reply.status, reply.body, reply.content_type
            if twin.dashboard:
                told = {"client_id": twin.app_key, "client_secret": twin.secret, "webhook_url": box.url}
                async with process.http.put(f"{process.url}{twin.dashboard}", json=told) as answer:
                    assert answer.status == 200
            yield world
    finally:
        await client.aclose()
        await process.end(signal.SIGTERM)


async def at_rest(world: TwinWorld) -> None:
    """All knobs at zero, the wallet and every shelf full, no callback seen."""
    await world.turn()
    for product in world.twin.products:
        await world.simulator.call("PUT", f"suppliers/{ACCOUNT}/products/{product.code}", product.model_dump())
    reply = world.supplier.callback_reply
    world.mailbox.reply = reply.status, reply.body, reply.content_type
    world.mailbox.calls.clear()
