"""What support does all day, with real orders: a worker, a simulator over HTTP, reviews, refunds, knobs, alarms."""

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from pydantic import SecretStr
from redis.asyncio import Redis
from tests.api.admin.conftest import Hire, Operator, ok
from tests.factories.client import Client, running_app
from tests.factories.merchants import TestMerchant
from tests.factories.shop import PHONE, eventually, running_worker, stock_the_shop
from tests.simulator.conftest import SECRETS, TOKEN, Simulator

from kameng_api.alarms import actions as alarms
from kameng_api.kit.db import Database, execute
from kameng_api.kit.ids import new_ulid, public_id
from kameng_api.settings import Settings


@pytest.fixture(scope="module")
async def simulator(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Simulator]:
    simulator = Simulator(Path(tmp_path_factory.mktemp("sim")), time_scale=0.05)
    await simulator.start()
    yield simulator
    await simulator.end(signal.SIGTERM)


@pytest.fixture
async def app(database: Database, redis: "Redis[bytes]", settings: Settings, simulator: Simulator) -> AsyncIterator[FastAPI]:
    here = settings.model_copy(update={"simulator_token": SecretStr(TOKEN)})
    await stock_the_shop(database, here, simulator.url, SECRETS)
    async with running_app(here) as running, running_worker(here):
        yield running


async def order(client: Client, **more: Any) -> str:
    wanted = {"merchant_order_no": "PO-1", "sku": "mobile-cn-100", "target": PHONE} | more
    return str((await ok(await client.post("/v1/orders", wanted), 201))["id"])


async def until(admin: Operator, order_id: str, **wanted: Any) -> dict[str, Any]:
    async def look() -> Any:
        found = await ok(await admin.get(f"/orders/{order_id}"))
        return found if all(found[name] == value for name, value in wanted.items()) else None

    found: dict[str, Any] = await eventually(look, within_s=15)
    return found


async def test_an_order_is_found_with_everything_behind_it(admin: Operator, client: Client, merchant: TestMerchant) -> None:
    order_id = await order(client)
    found = await until(admin, order_id, status="succeeded")
    assert [a["state"] for a in found["attempts"]] == ["delivered"]
    assert {t["type"] for t in found["transfers"]} == {"hold", "capture", "attempt_reserve", "attempt_delivered"}
    assert found["merchant_name"] == merchant.name
    assert PHONE not in str(found), "the target stays masked"
    shop = found["merchant_id"]
    for query in (f"merchant_id={shop}&status=succeeded", "merchant_order_no=PO-1", "environment=test"):
        assert [o["id"] for o in (await ok(await admin.get(f"/orders?{query}")))["items"]] == [order_id], query
    for query in ("environment=live", "status=processing", "merchant_order_no=PO-2"):
        assert (await ok(await admin.get(f"/orders?{query}")))["items"] == [], query
    assert (await admin.get("/orders?status=failed")).status_code == 422
    assert (await admin.get(f"/orders/ord_{'0' * 26}")).status_code == 404


async def test_a_refund_happens_once(admin: Operator, hire: Hire, client: Client) -> None:
    order_id = await order(client)
    await until(admin, order_id, status="succeeded")
    support = await hire("support", "su")
    path = f"/orders/{order_id}/refunds"
    wanted = {"refund_no": "R-1", "amount": "8.5", "reason": "the customer complained"}
    assert (await support.post(path, json=wanted)).status_code == 201
    assert (await support.post(path, json=wanted)).status_code == 200
    assert (await support.post(path, json=wanted | {"amount": "9"})).status_code == 409
    too_much = await support.post(path, json=wanted | {"refund_no": "R-2", "amount": "90.0001"})
    assert too_much.status_code == 422, too_much.text
    found = await until(admin, order_id, refunded_amount="8.5000")
    assert [(r["refund_no"], r["amount"]) for r in found["refunds"]] == [("R-1", "8.5000")]
    balance = await ok(await client.get("/v1/balance"))
    assert balance["available"] == "9910.0000"


@pytest.mark.parametrize(("outcome", "status", "available"), [("delivered", "succeeded", "9901.5000"), ("refused", "failed", "10000.0000")])
async def test_a_review_is_resolved_by_a_person(admin: Operator, hire: Hire, client: Client, outcome: str, status: str, available: str) -> None:
    order_id = await order(client, target="10000000009")
    await until(admin, order_id, substatus="manual_review")
    assert [o["id"] for o in (await ok(await admin.get("/reviews")))["items"]] == [order_id]
    support = await hire("support", "su")
    assert (await support.post(f"/reviews/{order_id}", json={"outcome": outcome})).status_code == 422
    verdict = {"outcome": outcome, "note": "asked their staff"}
    if outcome == "delivered":
        verdict["receipt"] = "SN-42"
    resolved = await ok(await support.post(f"/reviews/{order_id}", json=verdict))
    assert (resolved["status"], resolved["substatus"]) == (status, None)
    assert (await support.post(f"/reviews/{order_id}", json=verdict)).status_code == 409
    assert (await ok(await admin.get("/reviews")))["items"] == []
    assert (await ok(await client.get("/v1/balance")))["available"] == available
    [entry] = (await ok(await admin.get(f"/audit?subject={order_id}")))["items"]
    assert (entry["actor"], entry["facts"]["note"]) == ("su", "asked their staff")
    for scope in ("recent", "all"):
        assert (await ok(await admin.post("/ledger/verify", json={"scope": scope}))) == {
            "scope": scope, "holds": True, "breaches": [],
        }  # fmt: skip


async def test_a_disabled_channel_gets_no_orders(admin: Operator, client: Client, app: FastAPI) -> None:
    off = {"status": "disabled", "reason": "test"}
    await ok(await admin.put("/channels/sim-a/status", json=off))
    await asyncio.sleep(1.2)  # the worker's copy of the catalogue is at most a second old
    found = await until(admin, await order(client, merchant_order_no="PO-2"), status="succeeded")
    assert {a["channel_id"] for a in found["attempts"]} == {"sim-b"}
    await ok(await admin.put("/channels/sim-b/status", json=off))
    await app.state.door.catalog.refresh()
    wanted = {"merchant_order_no": "PO-3", "sku": "mobile-cn-100", "target": PHONE}
    assert (await client.post("/v1/orders", wanted)).json()["code"] == "out_of_stock"


async def test_a_wallet_is_asked_and_shown(admin: Operator) -> None:
    shown = await ok(await admin.post("/channels/sim-a/refresh-wallet"))
    assert float(shown["wallet"]["balance"]) > 0
    assert shown["wallet"]["checked_at"] is not None


async def test_knobs_are_turned(admin: Operator, hire: Hire) -> None:
    support = await hire("support", "su")
    before = await ok(await support.get("/simulator/sim-a/knobs"))
    assert before["refuse_rate"] == 0
    turned = await ok(await support.put("/simulator/sim-a/knobs", json={"knobs": {"refuse_rate": 1.0}}))
    assert turned["refuse_rate"] == 1
    assert (await ok(await support.get("/simulator/sim-a/knobs")))["refuse_rate"] == 1
    assert (await ok(await support.put("/simulator/sim-a/knobs", json={"knobs": {}})))["refuse_rate"] == 0
    assert (await support.put("/simulator/sim-a/knobs", json={"knobs": {"odd": 1}})).status_code == 422
    assert (await support.get("/simulator/nobody/knobs")).status_code == 404
    [entry] = (await ok(await admin.get("/audit?subject=simulator:sim-a&limit=1")))["items"]
    assert entry["action"] == "simulator.knobs_set"


async def test_alarms_are_seen_and_closed(admin: Operator, hire: Hire, database: Database) -> None:
    async with database.transaction() as tx:
        await alarms.raise_alarm(tx, "endpoint_disabled", "whe_1", None, "silent for 5 days")
    support = await hire("support", "su")
    [alarm] = (await ok(await support.get("/alarms?kind=endpoint_disabled")))["items"]
    seen = await ok(await support.post(f"/alarms/{alarm['id']}/acknowledge"))
    assert (seen["acknowledged_by"], seen["closed_at"]) == ("su", None)
    await ok(await support.post(f"/alarms/{alarm['id']}/close"))
    assert (await support.post(f"/alarms/{alarm['id']}/acknowledge")).status_code == 409
    assert (await ok(await support.get("/alarms?kind=endpoint_disabled")))["items"] == []
    assert len((await ok(await support.get("/alarms?kind=endpoint_disabled&state=all")))["items"]) == 1


async def test_parked_work_is_run_again(admin: Operator, database: Database, merchant: TestMerchant) -> None:
    refs = [new_ulid() for _ in range(3)]
    async with database.transaction() as tx:
        for ref in refs:
            await execute(
                tx,
                "INSERT INTO tasks (book_id, lane, ref, state, attempts, trouble) VALUES ($1, 'upkeep', $2, 'parked', 20, 'boom')",
                merchant.book_id, ref,
            )  # fmt: skip
    first = await ok(await admin.get("/tasks/parked?limit=2"))
    rest = await ok(await admin.get(f"/tasks/parked?limit=2&cursor={first['next_cursor']}"))
    assert [t["ref"] for t in first["items"] + rest["items"]] == [str(ref) for ref in refs]
    named = {name: first["items"][0][name] for name in ("book_id", "lane", "ref")}
    await ok(await admin.post("/tasks/retry", json=named))
    assert (await admin.post("/tasks/retry", json=named)).status_code == 404
    assert (await admin.post("/tasks/retry", json=named | {"ref": "x"})).status_code == 422
    assert (await admin.post("/tasks/retry", json=named | {"lane": "nowhere"})).status_code == 422
    assert len((await ok(await admin.get("/tasks/parked")))["items"]) == 2


async def test_incidents_are_closed_with_a_note(admin: Operator, database: Database, merchant: TestMerchant) -> None:
    incident = new_ulid()
    async with database.transaction() as tx:
        await execute(
            tx,
            "INSERT INTO incidents (book_id, incident_id, kind, detail) VALUES ($1, $2, 'late_success', 'two stories')",
            merchant.book_id, incident,
        )  # fmt: skip
    name = public_id("inc", incident)
    assert [i["id"] for i in (await ok(await admin.get("/incidents")))["items"]] == [name]
    assert (await admin.post(f"/incidents/{name}/close", json={})).status_code == 422
    await ok(await admin.post(f"/incidents/{name}/close", json={"note": "the supplier paid back"}))
    assert (await ok(await admin.get("/incidents")))["items"] == []
    [closed] = (await ok(await admin.get("/incidents?state=all")))["items"]
    assert closed["closed_by"] == "admin"
