"""The test mode over the wire: every magic value with its webhooks, the helpers, and a wall between it and live keys."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest
from aiohttp import web
from standardwebhooks.webhooks import Webhook
from tests.api.test_signature import is_problem
from tests.factories.client import Client
from tests.factories.merchants import ApiKey, TestMerchant, give, keyring_of, make_key, make_merchant
from tests.factories.served import served
from tests.factories.shop import PHONE, eventually, running_worker, stock_the_shop
from tests.simulator.conftest import SECRETS, Simulator

from kameng_api.api.access import TABLE
from kameng_api.catalog import actions as catalog
from kameng_api.catalog import queries as channels
from kameng_api.catalog.actions import NewChannel
from kameng_api.catalog.rules import Channel, Offer
from kameng_api.kit.db import Database
from kameng_api.kit.http import build_client
from kameng_api.kit.money import parse_amount
from kameng_api.ledger import actions as ledger
from kameng_api.merchants import queries as merchants
from kameng_api.reconciliation import invariants
from kameng_api.settings import Settings
from kameng_api.suppliers.connections import Connections

MAGIC_TARGETS = [f"100000000{n:02d}" for n in range(1, 11)]
FINAL = ("succeeded", "partially_succeeded", "failed", "cancelled")


@pytest.fixture(scope="module")
async def simulator(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Simulator]:
    """In real time: thirty seconds are thirty seconds, unless somebody lets them pass."""
    found = Simulator(tmp_path_factory.mktemp("simulator"), time_scale=1.0)
    await found.start()
    yield found
    await found.end(signal.SIGTERM)


@dataclass
class Ear:
    """A merchant's receiver that verifies with the library that our documentation names."""

    url: str = ""
    secret: str = ""
    heard: list[dict[str, Any]] = field(default_factory=list)

    async def take(self, request: web.Request) -> web.Response:
        body = await request.read()
        Webhook(self.secret).verify(body, dict(request.headers), json_parse=False)
        self.heard.append(orjson.loads(body))
        return web.Response(status=204)

    def of(self, order_id: str) -> list[dict[str, Any]]:
        return [e for e in self.heard if e["data"]["id"] == order_id]


@dataclass
class House:
    client: Client
    merchant: TestMerchant
    ear: Ear
    endpoint: dict[str, Any]

    async def order(self, no: str, **more: Any) -> str:
        answer = await self.client.post("/v1/orders", {"merchant_order_no": no, "sku": "mobile-cn-100"} | more)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    async def until(self, order_id: str, within_s: float = 20.0, **wanted: Any) -> dict[str, Any]:
        async def look() -> Any:
            order = (await self.client.get(f"/v1/orders/{order_id}")).json()
            return order if all(order[name] == value for name, value in wanted.items()) else None

        found: dict[str, Any] = await eventually(look, within_s=within_s)
        return found

    async def final(self, order_id: str) -> dict[str, Any]:
        async def look() -> Any:
            order = (await self.client.get(f"/v1/orders/{order_id}")).json()
            return order if order["status"] in FINAL else None

        found: dict[str, Any] = await eventually(look, within_s=20)
        return found

    async def forward(self, order_id: str) -> int:
        """Until there is nothing left to wait for; returns how much happened."""
        answer = await self.client.post(f"/v1/test/orders/{order_id}/fast-forward")
        assert answer.status_code == 202 and answer.json()["order_id"] == order_id, answer.text
        return int(answer.json()["moved"])


@pytest.fixture
async def ear() -> AsyncIterator[Ear]:
    found = Ear()
    app = web.Application()
    app.router.add_post("/hook", found.take)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    found.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    yield found
    await runner.cleanup()


@pytest.fixture
async def house(database: Database, redis: object, settings: Settings, simulator: Simulator, ear: Ear) -> AsyncIterator[House]:
    """API on a real socket, one worker, two channels, one endpoint."""
    await stock_the_shop(database, settings, simulator.url, SECRETS)
    merchant = await make_merchant(database, settings)
    async with served(settings) as (_, here), running_worker(here), Client(key=merchant.key, base_url=here.base_url) as client:
        endpoint = (await client.post("/v1/webhook-endpoints", {"url": ear.url})).json()
        ear.secret = endpoint["secret"]
        yield House(client, merchant, ear, endpoint)


async def _told(house: House, order: dict[str, Any]) -> list[dict[str, Any]]:
    """The order's webhooks by version, once the first one and the one about its present state have come; in which order is not promised."""

    async def look() -> Any:
        heard = sorted(house.ear.of(order["id"]), key=lambda e: int(e["data"]["version"]))
        return heard if heard and (heard[0]["data"]["version"], heard[-1]["data"]["version"]) == (1, order["version"]) else None

    found: list[dict[str, Any]] = await eventually(look, within_s=10)
    target = order["target"] and f"{order['target'][:3]}****{order['target'][-4:]}"  # our key may see it whole, a webhook never shows it
    assert found[-1]["data"]["object"] == order | {"target": target}
    assert len({e["data"]["version"] for e in found}) == len({e["id"] for e in found})
    return found


async def test_every_magic_target_does_what_the_table_says_and_its_webhooks_too(house: House, database: Database) -> None:
    began = time.monotonic()
    ids = {n: await house.order(f"PO-{n}", target=f"{10_000_000_000 + n}", quantity=3 if n == 6 else 1) for n in range(1, 11)}
    assert len(MAGIC_TARGETS) == len(ids)

    for n in (4, 5):  # the supplier answered 500: visible as unclear within 3 s
        order = await house.until(ids[n], substatus="outcome_unknown", within_s=max(3 - (time.monotonic() - began), 0.5) + 2)
        assert order["status"] == "processing"
    await house.until(ids[9], substatus="manual_review")
    assert (await house.client.get(f"/v1/orders/{ids[3]}")).json()["substatus"] == "awaiting_supplier"

    first = {n: await house.final(ids[n]) for n in (1, 2, 6, 7, 8, 10)}
    assert {n: o["status"] for n, o in first.items()} == {
        1: "succeeded", 2: "failed", 6: "partially_succeeded", 7: "succeeded", 8: "succeeded", 10: "succeeded",
    }  # fmt: skip
    assert first[2]["failure"]["code"] == "supplier_rejected"
    assert (first[6]["delivered_quantity"], first[6]["quantity"]) == (1, 3)
    steps = [s["step"] for s in (await house.client.get(f"/v1/orders/{ids[10]}/timeline")).json()["items"]]
    assert steps == ["accepted", "sent_to_supplier", "refused", "sent_to_supplier", "delivered", "succeeded"]

    assert await house.forward(ids[1]) == 0  # nothing is left to wait for
    for n, status in ((3, "succeeded"), (4, "succeeded"), (5, "failed")):
        assert await house.forward(ids[n]) >= 1
        assert (await house.final(ids[n]))["status"] == status
    assert await house.forward(ids[7]) == 1
    reversed_ = await house.until(ids[7], refunded_amount="98.5000")
    assert reversed_["status"] == "succeeded"
    [refund] = (await house.client.get(f"/v1/orders/{ids[7]}/refunds")).json()["items"]
    assert refund["amount"] == "98.5000"
    advanced = await house.client.post(f"/v1/test/orders/{ids[9]}/advance", {"outcome": "failed"})
    assert advanced.json()["status"] == "failed", advanced.text
    assert time.monotonic() - began < 28  # all of it before the first thirty seconds were over

    for order_id in ids.values():
        order = (await house.client.get(f"/v1/orders/{order_id}")).json()
        told = await _told(house, order)
        assert told[0]["type"] == "order.accepted"
        assert told[-1]["type"] == ("order.refunded" if order_id == ids[7] else f"order.{order['status']}")
    assert (await house.client.get("/v1/balance")).json()["held"] == "0.0000"
    async with database.transaction() as tx:
        assert await invariants.check_all(tx) == []


async def test_every_test_sku(house: House) -> None:
    card = await house.final(await house.order("PO-card", sku="test-card", quantity=2))
    assert (card["status"], card["codes_available"]) == ("succeeded", True)
    none = await house.client.post("/v1/orders", {"merchant_order_no": "PO-none", "sku": "test-out-of-stock"})
    is_problem(none, 422, "out_of_stock")
    moved = {"merchant_order_no": "PO-moved", "sku": "test-price-moved", "target": PHONE}
    too_dear = await house.client.post("/v1/orders", moved | {"max_unit_price": "9.9"})
    is_problem(too_dear, 422, "price_changed")
    answer = await house.client.post("/v1/orders", moved)
    if answer.status_code == 201:  # the supplier's price has moved above what its list says
        order = await house.final(answer.json()["id"])
        assert (order["status"], order["failure"]["code"]) in (("failed", "price_exceeded"), ("failed", "all_channels_refused"))
    else:
        is_problem(answer, 422, "price_changed")


async def test_the_webhook_of_a_state_is_sent_again_with_the_same_bytes(house: House) -> None:
    order_id = await house.order("PO-1", target="10000000001")
    order = await house.final(order_id)
    await _told(house, order)
    before = len(house.ear.of(order_id))
    answer = await house.client.post(f"/v1/test/orders/{order_id}/webhook")
    assert answer.status_code == 202, answer.text
    assert len(answer.json()["delivery_ids"]) == 1

    async def again() -> Any:
        return len(house.ear.of(order_id)) > before

    await eventually(again)
    last = [e for e in house.ear.of(order_id) if e["id"] == answer.json()["event_id"]]
    assert len(last) == 2 and last[0] == last[1] and last[0]["type"] == "order.succeeded"


async def test_a_sample_arrives_signed_and_marked(house: House) -> None:
    sent = await house.client.post(f"/v1/webhook-endpoints/{house.endpoint['id']}/test", {"type": "order.refunded"})
    assert sent.status_code == 202, sent.text

    async def came() -> Any:
        return [e for e in house.ear.heard if e["id"] == sent.json()["event_id"]]

    [event] = await eventually(came)
    assert (event["type"], event["test"], event["data"]["object"]["refunded_amount"]) == ("order.refunded", True, "98.5000")

    async def logged() -> Any:
        [delivery] = (await house.client.get(f"/v1/webhook-deliveries?event_id={event['id']}")).json()["items"]
        return delivery if delivery["state"] == "delivered" else None

    delivery = await eventually(logged)
    assert delivery["log"][0]["http_status"] == 204


async def test_helpers_know_only_ones_own_orders(house: House, database: Database, settings: Settings) -> None:
    order_id = await house.order("PO-1", target="10000000003")
    other = await make_merchant(database, settings)
    for verb in ("fast-forward", "webhook"):
        for wrong in (order_id, "ord_01JD0000000000000000000009", "nonsense"):
            key = other.key if wrong == order_id else house.merchant.key
            is_problem(await house.client.post(f"/v1/test/orders/{wrong}/{verb}", key=key), 404, "not_found")


# ---- the wall --------------------------------------------------------------------------------------------------------


@pytest.fixture
async def live(house: House, database: Database, settings: Settings) -> ApiKey:
    """A live key of the same merchant, with real money."""
    async with database.transaction() as tx:
        book_id = await merchants.get_book(tx, house.merchant.merchant_id, "live")
        await ledger.post_one(tx, give(book_id, "live", "1000"))
    return await make_key(database, settings, house.merchant.merchant_id, "live")


async def test_no_path_of_the_test_mode_exists_for_a_live_key(house: House, live: ApiKey) -> None:
    order_id = await house.order("PO-1", target="10000000009")
    paths = {row.template.replace("{order_id}", order_id) for row in TABLE if row.template.startswith("/v1/test/")}
    assert len(paths) >= 5 and all(row.test_only for row in TABLE if row.template.startswith("/v1/test/"))
    assert not [row.template for row in TABLE if row.test_only and not row.template.startswith("/v1/test/")]
    for path in sorted(paths | {"/v1/test", "/v1/test/", "/v1/test/anything"}):
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
            body = None if method == "GET" else {"number": "n", "available": "5", "outcome": "succeeded"}
            answer = await house.client.send(method, path, body, key=live)
            assert answer.status_code == 404 or (path == "/v1/test/" and answer.status_code == 400), (method, path, answer.text)
    assert (await house.client.get("/v1/balance", key=live)).json()["available"] == "1000.0000"
    await house.until(order_id, status="processing", substatus="manual_review")


async def test_no_magic_value_and_no_test_product_is_sold_for_real_money(house: House, live: ApiKey) -> None:
    for target in sorted(MAGIC_TARGETS):
        for sku in ("mobile-cn-100", "mobile-cn-50"):
            answer = await house.client.post("/v1/orders", {"merchant_order_no": "PO-m", "sku": sku, "target": target}, key=live)
            is_problem(answer, 422, "test_value_in_live")
    for sku in ("test-card", "test-out-of-stock", "test-price-moved"):
        body = {"merchant_order_no": "PO-t", "sku": sku} | ({"target": PHONE} if sku == "test-price-moved" else {})
        answer = await house.client.post("/v1/orders", body, key=live)
        assert answer.status_code in (403, 404, 422), answer.text
        assert (await house.client.get(f"/v1/products/{sku}", key=live)).status_code == 404
    shown = (await house.client.get("/v1/products?limit=100", key=live)).json()["items"]
    assert not [p["sku"] for p in shown if p["sku"].startswith("test-")]
    assert (await house.client.get("/v1/orders", key=live)).json()["items"] == []


async def test_no_live_order_reaches_the_simulator_whatever_was_configured(
    house: House, live: ApiKey, database: Database, settings: Settings, simulator: Simulator
) -> None:
    """Test channels do not serve live orders; and a live channel that somebody connected with the simulator is never connected."""
    body = {"merchant_order_no": "PO-live-1", "sku": "mobile-cn-100", "target": PHONE}
    is_problem(await house.client.post("/v1/orders", body, key=live), 422, "out_of_stock")
    before = await _seen(simulator)
    connection = {"base_url": simulator.url, "app_key": "app-sim-a", "secret": SECRETS["sim-a"], "timeout_s": 5}
    async with database.transaction() as tx:
        await catalog.create_channel(tx, keyring_of(settings), NewChannel("sim-live", "By mistake", "simulator", "live", orjson.dumps(connection)))
        await catalog.set_offer(tx, Offer("sim-live", "mobile-cn-100", "hf-100", unit_cost=parse_amount("97.5")))

    async def placed() -> Any:
        answer = await house.client.post("/v1/orders", body, key=live)
        return answer if answer.status_code in (200, 201) else None

    order_id = (await eventually(placed, within_s=5)).json()["id"]
    await asyncio.sleep(2)
    order = (await house.client.get(f"/v1/orders/{order_id}", key=live)).json()
    assert order["status"] in ("accepted", "processing", "failed") and order["delivered_quantity"] == 0, order
    assert await _seen(simulator) == before


async def _seen(simulator: Simulator) -> list[int]:
    """How many orders and deliveries it knows, and how many times it was asked to buy."""
    found = [(await simulator.call("GET", f"{log}?limit=10000"))["items"] for log in ("orders", "deliveries", "log")]
    return [len(found[0]), len(found[1]), len([row for row in found[2] if row["path"] == "place"])]


async def test_a_simulated_supplier_is_not_connected_to_a_live_channel(database: Database, settings: Settings) -> None:
    keyring = keyring_of(settings)
    connection = orjson.dumps({"base_url": "http://127.0.0.1:9", "app_key": "app-sim-a", "secret": "0123456789abcdef", "timeout_s": 5})
    client = build_client(max_connections=1, connect_timeout_s=1, guard=False)
    connections = Connections(keyring, client, base_url="http://127.0.0.1:9", timeout_s=1)
    found: dict[str, Channel] = {}
    async with database.transaction() as tx:
        for environment in ("test", "live"):
            await catalog.create_channel(tx, keyring, NewChannel(environment, environment, "simulator", environment, connection))
            found[environment] = await channels.get_channel(tx, environment)
    assert connections.of(found["test"])
    with pytest.raises(ValueError, match="test channels only"):
        connections.of(found["live"])
    await connections.close()
