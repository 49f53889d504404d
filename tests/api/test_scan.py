"""The counter: a scan becomes an order, waits for its outcome without holding anything, and is one order however often it is sent."""

import asyncio
import re
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from signal import SIGTERM
from typing import Any

import pytest
from fastapi import FastAPI
from tests.api.test_server import serving
from tests.factories.client import Client, door_of
from tests.factories.merchants import TestMerchant, make_merchant
from tests.factories.served import served
from tests.factories.shop import PHONE, running_worker, stock_the_shop
from tests.simulator.conftest import SECRETS, Simulator

from kameng_api.catalog import actions as catalog
from kameng_api.catalog import queries as catalog_queries
from kameng_api.embedded.servers import Servers
from kameng_api.kit import log
from kameng_api.kit.db import Database, fetch
from kameng_api.settings import Settings

EAN = "4006381333931"
UNICOM = "13000131234"


@pytest.fixture(scope="module")
async def simulator(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Simulator]:
    simulator = Simulator(Path(tmp_path_factory.mktemp("sim")), time_scale=1.0)
    await simulator.start()
    yield simulator
    await simulator.end(SIGTERM)


@pytest.fixture
async def shop(database: Database, settings: Settings, simulator: Simulator) -> None:
    await stock_the_shop(database, settings, simulator.url, SECRETS)
    async with database.transaction() as tx:
        await catalog.set_barcodes(tx, "mobile-cn-100", [EAN, "KM-SHELF-7"])


@pytest.fixture
async def till(shop: None, app: FastAPI, client: Client) -> Client:
    """A till at an API without a worker: its orders stay accepted."""
    await door_of(app).catalog.refresh()
    return client


@pytest.fixture
async def house(shop: None, database: Database, settings: Settings) -> AsyncIterator[Client]:
    """API on a real socket, a worker, two channels of a simulator that keeps real time."""
    merchant = await make_merchant(database, settings)
    async with served(settings) as (_, here), running_worker(here), Client(key=merchant.key, base_url=here.base_url) as client:
        yield client


def scanned(receipt: str = "1", **more: Any) -> dict[str, Any]:
    return {"till_no": "till1", "receipt_no": receipt, "code": EAN, "target": PHONE, "wait_s": 0} | more


async def orders(db: Database) -> int:
    async with db.transaction() as tx:
        return int((await fetch(tx, "SELECT count(*) AS n FROM orders"))[0]["n"])


# ---- with a worker ---------------------------------------------------------------------------------------------------


async def test_the_till_waits_for_the_outcome(house: Client) -> None:
    started = time.monotonic()
    answer = await house.post("/v1/scan", scanned(target="10000000001", wait_s=10))
    assert answer.status_code == 201, answer.text
    order = answer.json()
    assert (order["status"], order["sku"], order["merchant_order_no"]) == ("succeeded", "mobile-cn-100", "till1-1")
    assert 0.9 < time.monotonic() - started < 8


async def test_a_till_that_waits_too_short_gets_the_state_there_is_and_may_ask_again(house: Client, database: Database) -> None:
    first = await house.post("/v1/scan", scanned(target="10000000001", wait_s=0))
    assert (first.status_code, first.json()["status"]) == (201, "accepted")
    again = await house.post("/v1/scan", scanned(target="10000000001", wait_s=10))
    assert again.status_code == 200
    assert again.headers["Idempotent-Replayed"] == "true"
    assert (again.json()["id"], again.json()["status"]) == (first.json()["id"], "succeeded")
    assert await orders(database) == 1


async def test_many_tills_wait_and_nobody_holds_a_connection(till: Client, app: FastAPI, database: Database) -> None:
    door = door_of(app)
    asked = 0
    look = door.outcomes._look

    async def counted() -> Any:
        nonlocal asked
        asked += 1
        return await look()

    door.outcomes._look = counted  # type: ignore[method-assign]
    tills = [asyncio.create_task(till.post("/v1/scan", scanned(str(n), wait_s=2))) for n in range(60)]
    most = 0
    while not all(one.done() for one in tills):
        if door.outcomes.waiting == 60:
            most = max(most, door.db.pool_in_use())
        await asyncio.sleep(0.013)
    answers = [one.result() for one in tills]
    assert [a.status_code for a in answers] == [201] * 60
    assert {a.json()["status"] for a in answers} == {"accepted"}
    assert most <= 2, "tills that wait take no connections"
    assert asked <= 40, "one question serves all tills"
    assert door.outcomes.waiting == 0


async def test_a_process_on_its_way_out_keeps_no_till_waiting(till: Client, app: FastAPI) -> None:
    waiting = asyncio.create_task(till.post("/v1/scan", scanned(wait_s=10)))
    while not door_of(app).outcomes.waiting:  # noqa: ASYNC110  the till tells in no other way
        await asyncio.sleep(0.01)
    door_of(app).draining = True
    async with asyncio.timeout(2):
        answer = await waiting
    assert (answer.status_code, answer.json()["status"]) == (201, "accepted")


# ---- the same rules as an order --------------------------------------------------------------------------------------


async def test_the_answers_are_those_of_the_order_path(till: Client) -> None:
    made = await till.post("/v1/scan", scanned())
    assert made.status_code == 201
    plain = (await till.get(made.headers["Location"])).json()
    assert made.json() == plain
    other = await till.post("/v1/scan", scanned(target=UNICOM))
    assert (other.status_code, other.json()["code"]) == (409, "merchant_order_no_conflict")
    assert other.json()["existing_order_id"] == plain["id"]
    for terms, code in (
        ({"target": "12"}, "target_not_supported"),
        ({"target": None}, "validation_failed"),
        ({"max_unit_price": "98.4999"}, "price_changed"),
        ({"quantity": 101}, "validation_failed"),
        ({"quantity": 0}, "validation_failed"),
        ({"fields": {"x": "y"}}, "validation_failed"),
        ({"code": "test-out-of-stock", "target": None}, "out_of_stock"),
        ({"code": "test-price-moved"}, "price_changed"),
        ({"quantity": 100, "code": "kameng:mobile-cn-100", "target": UNICOM}, None),
        ({"quantity": 3}, "insufficient_balance"),
    ):
        number = f"n{len(str(terms))}{abs(hash(str(terms)))}"
        sku = {EAN: "mobile-cn-100"}.get(str(terms.get("code", EAN)), str(terms.get("code", "")))
        scan = await till.post("/v1/scan", {k: v for k, v in scanned(f"s{number}", **terms).items() if v is not None})
        order = {"merchant_order_no": f"o{number}", "sku": sku.removeprefix("kameng:"), "target": PHONE} | terms
        order.pop("code", None)
        if code is None:
            assert scan.status_code == 201, scan.text
            continue
        placed = await till.post("/v1/orders", {k: v for k, v in order.items() if v is not None})
        told = [{k: v for k, v in a.json().items() if k not in ("instance", "request_id", "detail")} for a in (scan, placed)]
        assert told[0] == told[1]
        assert scan.json()["code"] == code, scan.text


@pytest.mark.parametrize(
    ("body", "pointer", "code"),
    [
        ({"code": "4006381333932"}, "/code", "checksum"),
        ({"code": "9999"}, "/code", "unknown_barcode"),
        ({"code": ""}, "/code", None),
        ({"wait_s": 11}, "/wait_s", None),
        ({"wait_s": -1}, "/wait_s", None),
        ({"wait_s": 1.0}, "/wait_s", None),
        ({"till_no": "a-b"}, "/till_no", None),
        ({"receipt_no": "x" * 40}, "/receipt_no", None),
        ({"sku": "mobile-cn-100"}, "/sku", None),
    ],
)
async def test_mistakes_are_named(till: Client, database: Database, body: dict[str, Any], pointer: str, code: str | None) -> None:
    answer = await till.post("/v1/scan", scanned() | body)
    assert (answer.status_code, answer.json()["code"]) == (422, "validation_failed")
    [error] = answer.json()["errors"]
    assert error["pointer"] == pointer
    assert code is None or error["code"] == code
    assert await orders(database) == 0


async def test_what_a_barcode_means_later_does_not_touch_the_order_it_made(till: Client, app: FastAPI, database: Database) -> None:
    first = await till.post("/v1/scan", scanned())
    async with database.transaction() as tx:
        await catalog.set_barcodes(tx, "mobile-cn-100", [])
        await catalog.set_barcodes(tx, "mobile-cn-50", [EAN])
    await door_of(app).catalog.refresh()
    again = await till.post("/v1/scan", scanned())
    assert (again.status_code, again.json()["id"], again.json()["sku"]) == (200, first.json()["id"], "mobile-cn-100")
    async with database.transaction() as tx:
        await catalog.set_barcodes(tx, "mobile-cn-50", [])
    await door_of(app).catalog.refresh()
    assert (await till.post("/v1/scan", scanned())).json()["id"] == first.json()["id"]
    assert (await till.post("/v1/scan", scanned("2"))).status_code == 422
    assert await orders(database) == 1


async def test_twenty_tills_with_one_receipt_make_one_order(till: Client, database: Database) -> None:
    answers = await asyncio.gather(*(till.post("/v1/scan", scanned()) for _ in range(20)))
    assert sorted(a.status_code for a in answers) == [200] * 19 + [201]
    assert len({a.json()["id"] for a in answers}) == 1
    assert await orders(database) == 1


async def test_validate_only_says_what_would_be_and_keeps_nothing(till: Client, database: Database) -> None:
    answer = await till.post("/v1/scan", scanned(validate_only=True))
    assert (answer.status_code, answer.json()["amount"]) == (200, "98.5000")
    assert await orders(database) == 0


# ---- carriers --------------------------------------------------------------------------------------------------------


async def for_carriers(database: Database, app: FastAPI, *carriers: str) -> None:
    async with database.transaction() as tx:
        product = await catalog_queries.get_product(tx, "mobile-cn-100")
        await catalog.put_product(tx, replace(product, carriers=carriers))
    await door_of(app).catalog.refresh()


async def test_a_wrong_carrier_is_refused_before_money_moves(till: Client, app: FastAPI, database: Database) -> None:
    await for_carriers(database, app, "cmcc")
    for path, body in (
        ("/v1/scan", scanned(target=UNICOM)),
        ("/v1/orders", {"merchant_order_no": "PO-1", "sku": "mobile-cn-100", "target": UNICOM}),
    ):
        answer = await till.post(path, body)
        assert (answer.status_code, answer.json()["code"], answer.json()["charged"]) == (422, "target_not_supported", "no")
        [error] = answer.json()["errors"]
        assert (error["pointer"], error["code"]) == ("/target", "carrier")
        assert UNICOM not in answer.text
    assert await orders(database) == 0
    assert (await till.get("/v1/balance")).json()["available"] == "10000.0000"
    assert (await till.post("/v1/scan", scanned())).status_code == 201
    assert (await till.post("/v1/scan", scanned("magic", target="10000000001"))).status_code == 201


async def test_a_number_that_was_taken_along_is_judged_by_where_it_is_now(till: Client, app: FastAPI, database: Database) -> None:
    await for_carriers(database, app, "cmcc")
    assert (await till.post("/v1/scan", scanned("in", target="13000137001"))).status_code == 201  # unicom's prefix, now on CMCC
    gone = await till.post("/v1/scan", scanned("out", target="13800137002"))  # CMCC's prefix, now on unicom
    assert (gone.status_code, gone.json()["code"]) == (422, "target_not_supported")


@pytest.mark.parametrize("outage", ["silent", "http_503"])
async def test_a_look_up_that_does_not_answer_leaves_the_prefix_in_force(
    till: Client, app: FastAPI, database: Database, simulator: Simulator, outage: str
) -> None:
    await for_carriers(database, app, "cmcc")
    down = {"outage": outage, "outage_paths": ["number"]}
    try:
        for name in SECRETS:
            await _turn(simulator, name, down)
        started = time.monotonic()
        assert (await till.post("/v1/scan", scanned("out", target="13800137002"))).status_code == 201
        assert (await till.post("/v1/scan", scanned("in", target="13000137001"))).status_code == 422
        assert time.monotonic() - started < 3
        answer = (await till.get("/v1/numbers/13000137001")).json()
        assert (answer["carrier"]["code"], answer["source"], answer["ported"]) == ("cucc", "prefix", None)
    finally:
        for name in SECRETS:
            await _turn(simulator, name, {"outage": "none", "outage_paths": []})


async def _turn(simulator: Simulator, name: str, knobs: dict[str, Any]) -> None:
    async with simulator.http.patch(f"{simulator.url}/sim/suppliers/{name}/knobs", json=knobs) as answer:
        assert answer.status == 200, await answer.text()


# ---- numbers ---------------------------------------------------------------------------------------------------------


async def test_what_is_known_of_a_number(till: Client) -> None:
    answer = await till.get("/v1/numbers/13800138000")
    assert answer.status_code == 200, answer.text
    assert answer.json() == {
        "object": "number", "number": "+8613800138000", "country": "CN", "valid": True, "type": "mobile",
        "carrier": {"code": "cmcc", "name": "China Mobile", "name_zh": "中国移动"}, "virtual": False,
        "home": {"zh": "北京市", "en": "Beijing"}, "source": "prefix", "ported": None,
    }  # fmt: skip
    ported = (await till.get("/v1/numbers/008613800137012")).json()
    assert (ported["carrier"]["code"], ported["virtual"], ported["source"], ported["ported"]) == ("cucc", True, "lookup", True)
    abroad = (await till.get("/v1/numbers/0085291234567")).json()
    assert (abroad["country"], abroad["type"], abroad["carrier"]["code"], abroad["home"]) == ("HK", "mobile", None, None)


@pytest.mark.parametrize("text", ["1", "abc", "138001380001234567", "86138-0013-8000", "~"])
async def test_what_is_no_number_is_refused(till: Client, text: str) -> None:
    answer = await till.get(f"/v1/numbers/{text}")
    assert (answer.status_code, answer.json()["code"]) == (422, "validation_failed")


async def test_questions_about_numbers_have_a_limit_of_their_own(till: Client) -> None:
    answers = await asyncio.gather(*(till.get("/v1/numbers/13800138000") for _ in range(60)))
    assert {a.status_code for a in answers} == {200, 429}
    assert (await till.get("/v1/products")).status_code == 200


async def test_no_number_reaches_the_log(
    database: Database, settings: Settings, migrated: Servers, merchant: TestMerchant, tmp_path: Path
) -> None:
    """Not even masked: the log would mask a mainland number that somebody wrote into it, which shows as `138***`; a number abroad would stay."""
    abroad = "85291234567"
    leaks = re.compile(r"138\*\*\*|13800138|" + abroad)
    for careless in (PHONE, f"no answer about {PHONE}", abroad):
        assert leaks.search(str(log.redact(None, "info", {"event": careless}))), "what this test looks for is what a careless line would leave"
    await stock_the_shop(database, settings, "http://127.0.0.1:9", SECRETS)  # nobody listens there: the look-up fails, and that is told
    async with database.transaction() as tx:
        await catalog.set_barcodes(tx, "mobile-cn-100", [EAN])
    said = tmp_path / "log"
    async with (
        serving(migrated, said, KAMENG_LOG_LEVEL="debug") as (base_url, _),
        Client(key=merchant.key, base_url=base_url) as client,
    ):
        answers = [
            await client.get(f"/v1/numbers/{PHONE}"),
            await client.get(f"/v1/numbers/00{abroad}"),
            await client.get(f"/v1/numbers/{PHONE}{PHONE}"),
            await client.post("/v1/scan", scanned()),
            await client.post("/v1/scan", scanned("2", target=abroad)),
            await client.post("/v1/orders", {"merchant_order_no": "PO-log", "sku": "mobile-cn-100", "target": f"{PHONE}x"}),
            await client.post("/v1/orders", {"merchant_order_no": "PO-log", "sku": "mobile-cn-100", "target": PHONE, "note": abroad}),
        ]
    assert [a.status_code for a in answers] == [200, 200, 422, 201, 422, 422, 422]
    lines = said.read_text()
    assert "numbers.lookup_failed" in lines, "the log is heard"
    assert leaks.search(lines) is None, lines


async def test_a_merchants_answers_name_the_till_and_the_product(till: Client, merchant: TestMerchant) -> None:
    shown = (await till.get("/v1/products/mobile-cn-100")).json()
    assert shown["barcodes"] == [EAN, "KM-SHELF-7"]
    found = await till.get("/v1/orders/by-merchant-no/till1-1")
    assert found.status_code == 404
    await till.post("/v1/scan", scanned())
    assert (await till.get("/v1/orders/by-merchant-no/till1-1")).json()["sku"] == "mobile-cn-100"
