"""Suppliers' lists through the operator's API, read from a real simulator; and the door at which the supplier hints."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import orjson
import pytest
from fastapi import FastAPI
from tests.api.admin.conftest import Hire, Operator, ok
from tests.factories.shop import eventually, open_desk
from tests.simulator.conftest import SECRETS, Simulator

from kameng_api.jobs import catalog_sync
from kameng_api.jobs.desk import Desk
from kameng_api.kit.db import Database, fetch
from kameng_api.settings import Settings
from kameng_api.simulator.protocol import signed
from kameng_api.suppliers.actions import Arrival
from kameng_api.suppliers.listings import wishes

CODE = "list-card"
CARD: dict[str, Any] = {"name": "Card", "product_type": "card", "face_value": "10"}


@pytest.fixture(scope="module")
async def simulator(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Simulator]:
    found = Simulator(tmp_path_factory.mktemp("simulator"))
    await found.start()
    yield found
    await found.end(signal.SIGTERM)


class Bench:
    """An operator, a channel at a real simulator, and the worker's reader beside."""

    def __init__(self, admin: Operator, desk: Desk, simulator: Simulator, callback_url: str) -> None:
        self.admin, self.desk, self.simulator, self.callback_url = admin, desk, simulator, callback_url

    async def put(self, cost: str, code: str = CODE, **more: Any) -> None:
        await self.simulator.call("PUT", f"suppliers/sim-a/products/{code}", {"name": "A card", "type": "card", "cost": cost, **more})

    async def sell(self, code: str = CODE, price: str = "20") -> None:
        await ok(await self.admin.put(f"/products/{code}", json=CARD))
        await ok(await self.admin.put(f"/products/{code}/price", json={"unit_price": price}))

    async def read(self) -> dict[str, Any]:
        await ok(await self.admin.post("/supplier-lists/sim-a/sync"), 202)
        await catalog_sync.sync_catalogs(self.desk)
        found: dict[str, Any] = (await ok(await self.admin.get("/catalog-syncs?channel_id=sim-a&limit=1")))["items"][0]
        return found

    async def offer(self, code: str = CODE) -> dict[str, Any]:
        [found] = (await ok(await self.admin.get(f"/offers?sku={code}")))["items"]
        return dict(found)

    async def asked(self, more: str = "") -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await ok(await self.admin.get(f"/offer-reviews?channel_id=sim-a{more}")))["items"]
        return found


@pytest.fixture
async def bench(admin: Operator, settings: Settings, simulator: Simulator) -> AsyncIterator[Bench]:
    connection = {"base_url": simulator.url, "app_key": "app-sim-a", "secret": SECRETS["sim-a"], "timeout_s": 5}
    channel = {"id": "sim-a", "name": "A", "adapter": "simulator", "environment": "test", "settings": connection}
    made = await ok(await admin.post("/channels", json=channel), 201)
    await ok(await admin.put("/supplier-lists/sim-a", json={"pause_ms": 0}))
    await simulator.turn("sim-a")
    async with open_desk(settings) as desk:
        found = Bench(admin, desk, simulator, made["callback_url"])
        await found.put("9")
        yield found


async def test_a_list_is_given_a_clock_and_terms_and_shows_how_it_is_read(bench: Bench) -> None:
    wanted = {"every_s": 3600, "pause_ms": 50, "terms": {"price_up": "0.05", "review_new": False}}
    shown = await ok(await bench.admin.put("/supplier-lists/sim-a", json=wanted))
    assert (shown["every_s"], shown["pause_ms"], shown["terms"]["price_up"], shown["terms"]["price_down"]) == (3600, 50, "0.050000", "0.100000")
    assert (await ok(await bench.admin.get("/supplier-lists")))["items"] == [shown] and shown["whole_at"] is None
    sync = await bench.read()
    assert (sync["kind"], sync["state"], sync["asked_by"], sync["reviews"]) == ("full", "done", "admin", 0) and sync["added"] > 10
    after = await ok(await bench.admin.get("/supplier-lists/sim-a"))
    assert after["whole_at"] is not None and after["asked_by"] is None and after["read_until"] is None
    for wrong in ({"every_s": 1}, {"terms": {"vanish": "2"}}, {"pause_ms": -1}):
        answer = await bench.admin.put("/supplier-lists/sim-a", json=wrong)
        assert answer.status_code == 422, wrong
    for unknown in ("/supplier-lists/nobody", "/supplier-products?channel_id=nobody"):
        assert (await bench.admin.get(unknown)).status_code == 404
    assert (await bench.admin.post("/supplier-lists/nobody/sync")).status_code == 404


async def test_a_new_line_is_found_linked_and_its_costs_are_told(bench: Bench) -> None:
    await bench.sell()
    await bench.read()
    [line] = (await ok(await bench.admin.get(f"/supplier-products?channel_id=sim-a&search={CODE}")))["items"]
    assert (line["cost"], line["skus"], line["gone_at"]) == ("9.0000", [], None)
    [review] = await bench.asked(f"&kind=new&product_code={CODE}")
    assert (await bench.admin.post(f"/offer-reviews/{review['id']}/decide", json={"decision": "approve"})).status_code == 422
    decided = await ok(await bench.admin.post(f"/offer-reviews/{review['id']}/decide", json={"decision": "approve", "sku": CODE}))
    assert (decided["state"], decided["sku"], decided["decided_by"]) == ("approved", CODE, "admin")
    again = await bench.admin.post(f"/offer-reviews/{review['id']}/decide", json={"decision": "ignore"})
    assert again.status_code == 409
    await bench.put("9.2")
    await bench.read()
    costs = (await ok(await bench.admin.get(f"/supplier-costs?channel_id=sim-a&product_code={CODE}")))["items"]
    assert [c["cost"] for c in costs] == ["9.2000", "9.0000"]
    first = await ok(await bench.admin.get(f"/offer-costs?channel_id=sim-a&sku={CODE}&limit=1"))
    assert (first["items"][0]["unit_cost"], first["items"][0]["said_by"]) == ("9.2000", "supplier's list")
    second = await ok(await bench.admin.get(f"/offer-costs?channel_id=sim-a&sku={CODE}&limit=1&cursor={first['next_cursor']}"))
    assert (second["items"][0]["unit_cost"], second["items"][0]["said_by"], second["next_cursor"]) == ("9.0000", "admin", None)


async def test_a_cost_that_moved_on_is_not_approved_by_who_saw_the_old_one(bench: Bench) -> None:
    await bench.sell()
    await bench.read()
    link = {"channel_id": "sim-a", "product_code": CODE, "sku": CODE}
    assert (await ok(await bench.admin.post("/offers/link", json=link), 201))["held"] is None
    assert (await bench.admin.post("/offers/link", json=link)).status_code == 409
    await bench.put("12")
    await bench.read()
    [review] = await bench.asked("&kind=price_up")
    assert (review["told"], review["change"]) == ("120000", "0.333333")
    await bench.put("13")
    await bench.read()
    answer = await bench.admin.post(f"/offer-reviews/{review['id']}/decide", json={"decision": "approve", "told": review["told"]})
    assert answer.status_code == 409 and answer.json()["code"] == "state_conflict"
    assert ((await bench.offer())["held"], (await bench.offer())["unit_cost"]) == ("price", "9.0000")
    await ok(await bench.admin.post(f"/offer-reviews/{review['id']}/decide", json={"decision": "approve", "told": "130000"}))
    assert ((await bench.offer())["held"], (await bench.offer())["unit_cost"]) == (None, "13.0000")


async def test_many_questions_are_answered_by_one_filter(bench: Bench) -> None:
    for n in range(4):
        await bench.put("9", f"bulk-{n}")
    await bench.sell("bulk-0")
    await bench.sell("bulk-1")
    await bench.read()
    wanted = {"decision": "approve", "kind": "new", "code_begins": "bulk-"}
    told = await ok(await bench.admin.post("/offer-reviews/decide", json=wanted))
    assert told["decided"] == 2 and {s["reason"] for s in told["skipped"]} == {"no SKU is spelt like its code"}
    rest = await ok(await bench.admin.post("/offer-reviews/decide", json=wanted | {"decision": "ignore"}))
    assert rest["decided"] == 2 and rest["skipped"] == []
    assert [r for r in await bench.asked("&kind=new") if r["product_code"].startswith("bulk-")] == []
    page = await ok(await bench.admin.get("/offer-reviews?state=all&kind=new&limit=2"))
    assert len(page["items"]) == 2 and page["total"] > 4 and page["next_cursor"]
    assert (await ok(await bench.admin.post("/offer-reviews/decide", json=wanted | {"after": told["after"]})))["after"] is None


async def test_a_reading_that_was_stopped_goes_on_when_a_person_agrees(bench: Bench) -> None:
    await bench.read()
    await bench.simulator.turn("sim-a", catalogue={"truncate_after": 2})
    stopped = await bench.read()
    assert stopped["state"] == "stopped" and stopped["missing"] > 3
    await ok(await bench.admin.post(f"/catalog-syncs/{stopped['id']}/let-go", json={"note": "they closed shop"}), 202)
    await catalog_sync.sync_catalogs(bench.desk)
    done = (await ok(await bench.admin.get("/catalog-syncs?limit=1")))["items"][0]
    assert (done["state"], done["gone"]) == ("done", stopped["missing"])
    assert (await bench.admin.post(f"/catalog-syncs/{stopped['id']}/let-go", json={"note": "again"})).status_code == 409
    gone = (await ok(await bench.admin.get("/supplier-products?channel_id=sim-a&gone=true&limit=100")))["items"]
    assert len(gone) == stopped["missing"]
    await bench.simulator.turn("sim-a")


async def test_only_who_may_write_the_catalogue_decides_and_support_may_have_a_list_read(bench: Bench, hire: Hire) -> None:
    support = await hire("support")
    assert (await support.post("/supplier-lists/sim-a/sync")).status_code == 202
    for path, body in (
        ("/offer-reviews/decide", {"decision": "ignore", "kind": "new"}),
        ("/offers/link", {"channel_id": "sim-a", "product_code": CODE, "sku": CODE}),
    ):
        assert (await support.post(path, json=body)).status_code == 403
    assert (await support.put("/supplier-lists/sim-a", json={})).status_code == 403
    audit = (await ok(await bench.admin.get("/audit?limit=20")))["items"]
    assert "supplier_list.asked" in {entry["action"] for entry in audit}


async def test_a_pushed_change_is_stored_answered_and_read_again_whatever_it_says(bench: Bench, app: FastAPI, database: Database) -> None:
    await bench.sell()
    await bench.read()
    await ok(await bench.admin.post("/offers/link", json={"channel_id": "sim-a", "product_code": CODE, "sku": CODE}), 201)
    await app.state.door.catalog.refresh()
    await bench.put("9.2")
    path = httpx.URL(bench.callback_url).path
    told = {"product_codes": f"{CODE},no-such-line", "cost": "0.0001"}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://api.test") as supplier:
        body = orjson.dumps(signed(SECRETS["sim-a"].encode(), "app-sim-a", time.time(), told))
        answer = await supplier.post(path, content=body)
        assert (answer.status_code, answer.text) == (200, "success")
        forged = orjson.dumps(signed(b"somebody else's secret", "app-sim-a", time.time(), told | {"product_codes": "qb"}))
        assert (await supplier.post(path, content=forged)).status_code == 401
    async with database.transaction() as tx:
        assert [r["product_code"] for r in await fetch(tx, "SELECT product_code FROM catalog_hints ORDER BY 1")] == [CODE, "no-such-line"]
        assert len(await fetch(tx, "SELECT 1 FROM supplier_callbacks")) == 2
    await catalog_sync.sync_catalogs(bench.desk)
    assert (await bench.offer())["unit_cost"] == "9.2000"


async def test_hints_hold_up_no_callback_about_an_order(bench: Bench, app: FastAPI, database: Database) -> None:
    """Somebody else is busy with the line that is hinted at: what came with the hint is kept all the same."""

    async def both_kept() -> bool:
        async with database.transaction() as tx:
            return len(await fetch(tx, "SELECT 1 FROM supplier_callbacks")) == 2

    arrivals = Arrival("sim-a", {}, b"1", True, None, (CODE,)), Arrival("sim-a", {}, b"2", True, None)
    async with database.transaction() as tx:
        await wishes.note_hints(tx, "sim-a", [CODE])
        told = [asyncio.create_task(app.state.door.callbacks.submit(arrival)) for arrival in arrivals]
        await eventually(both_kept, within_s=5)
    assert len(await asyncio.gather(*told)) == 2
