"""Orders from a signed request to a settled outcome: real servers, a real worker, a real simulator over HTTP."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.factories.client import Client
from tests.factories.merchants import TestMerchant, make_merchant
from tests.factories.served import served
from tests.factories.shop import PHONE, eventually, running_worker, stock_the_shop
from tests.simulator.conftest import SECRETS, Simulator

from kameng_api.kit.db import Database
from kameng_api.reconciliation import invariants
from kameng_api.settings import Settings


@pytest.fixture(scope="module")
async def simulator(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Simulator]:
    simulator = Simulator(Path(tmp_path_factory.mktemp("sim")), time_scale=0.05)
    await simulator.start()
    yield simulator
    import signal

    await simulator.end(signal.SIGTERM)


@pytest.fixture
async def house(database: Database, settings: Settings, simulator: Simulator) -> AsyncIterator[tuple[Client, TestMerchant]]:
    """API on a real socket, one worker, two channels."""
    await stock_the_shop(database, settings, simulator.url, SECRETS)
    merchant = await make_merchant(database, settings)
    async with served(settings) as (_, here), running_worker(here), Client(key=merchant.key, base_url=here.base_url) as client:
        yield client, merchant


async def _final(client: Client, order_id: str, within_s: float = 15.0) -> dict[str, Any]:
    async def look() -> Any:
        order = (await client.get(f"/v1/orders/{order_id}")).json()
        return order if order["status"] not in ("accepted", "processing") else None

    return await eventually(look, within_s=within_s)


def _order(no: str, **more: Any) -> dict[str, Any]:
    return {"merchant_order_no": no, "sku": "mobile-cn-100", "target": PHONE} | more


async def test_an_order_is_delivered_and_the_books_agree(house: tuple[Client, TestMerchant], database: Database) -> None:
    client, _ = house
    answer = await client.post("/v1/orders", _order("PO-1"))
    assert answer.status_code == 201, answer.text
    order = await _final(client, answer.json()["id"])
    assert order["status"] == "succeeded", order
    balance = (await client.get("/v1/balance")).json()
    assert (balance["available"], balance["held"]) == ("9901.5000", "0.0000")
    async with database.transaction() as tx:
        assert await invariants.check_all(tx) == []


MAGIC = {
    "10000000001": "succeeded",
    "10000000002": "failed",
    "10000000003": "succeeded",
    "10000000004": "succeeded",
    "10000000005": "failed",
    "10000000007": "succeeded",
    "10000000008": "succeeded",
    "10000000010": "succeeded",
}


@pytest.mark.parametrize("target", MAGIC)
async def test_a_magic_target_ends_as_the_contract_says(house: tuple[Client, TestMerchant], database: Database, target: str) -> None:
    client, _ = house
    answer = await client.post("/v1/orders", _order("PO-m", target=target))
    order = await _final(client, answer.json()["id"])
    assert order["status"] == MAGIC[target], order
    if target == "10000000002":
        assert order["failure"]["code"] == "supplier_rejected"
    if target == "10000000010":
        steps = [s["step"] for s in (await client.get(f"/v1/orders/{order['id']}/timeline")).json()["items"]]
        assert steps == ["accepted", "sent_to_supplier", "refused", "sent_to_supplier", "delivered", "succeeded"]
    if target == "10000000007":

        async def refunded() -> Any:
            now = (await client.get(f"/v1/orders/{order['id']}")).json()
            return now if now["refunded_amount"] == "98.5000" else None

        assert (await eventually(refunded, within_s=10))["status"] == "succeeded"
    await _books_agree(client, database)


async def _books_agree(client: Client, database: Database) -> None:
    assert (await client.get("/v1/balance")).json()["held"] == "0.0000"
    async with database.transaction() as tx:
        assert await invariants.check_all(tx) == []


async def test_an_unclear_answer_is_shown_as_unclear_within_seconds(house: tuple[Client, TestMerchant]) -> None:
    client, _ = house
    order_id = (await client.post("/v1/orders", _order("PO-u", target="10000000004"))).json()["id"]

    async def unknown() -> Any:
        order = (await client.get(f"/v1/orders/{order_id}")).json()
        return order if order["substatus"] == "outcome_unknown" else None

    await eventually(unknown, within_s=3)
    assert (await client.get("/v1/balance")).json()["held"] == "98.5000"
    cancel = await client.post(f"/v1/orders/{order_id}/cancel")
    assert (cancel.status_code, cancel.json()["code"]) == (409, "state_conflict")
    assert (await _final(client, order_id))["status"] == "succeeded"


async def test_one_unit_of_three_is_a_partial_success(house: tuple[Client, TestMerchant], database: Database) -> None:
    client, _ = house
    answer = await client.post("/v1/orders", _order("PO-p", target="10000000006", quantity=3))
    order = await _final(client, answer.json()["id"])
    assert (order["status"], order["delivered_quantity"], order["amount"]) == ("partially_succeeded", 1, "295.5000")
    assert (await client.get("/v1/balance")).json()["available"] == "9901.5000"
    await _books_agree(client, database)


async def test_a_review_waits_for_a_person(house: tuple[Client, TestMerchant], database: Database) -> None:
    client, _ = house
    order_id = (await client.post("/v1/orders", _order("PO-r", target="10000000009"))).json()["id"]

    async def review() -> Any:
        order = (await client.get(f"/v1/orders/{order_id}")).json()
        return order["substatus"] == "manual_review"

    await eventually(review)
    advanced = await client.post(f"/v1/test/orders/{order_id}/advance", {})
    assert (advanced.status_code, advanced.json()["status"]) == (200, "succeeded"), advanced.text
    await _books_agree(client, database)


async def test_card_codes_leave_only_as_an_envelope(house: tuple[Client, TestMerchant], database: Database) -> None:
    client, _ = house
    answer = await client.post("/v1/orders", {"merchant_order_no": "PO-c", "sku": "test-card", "quantity": 3})
    order = await _final(client, answer.json()["id"])
    assert (order["status"], order["codes_available"], order["target"]) == ("succeeded", True, None)
    no_key = await client.get(f"/v1/orders/{order['id']}/codes")
    assert (no_key.status_code, no_key.json()["code"]) == (409, "state_conflict")
    await _books_agree(client, database)


async def test_a_ranged_product_is_charged_by_its_face_value(house: tuple[Client, TestMerchant], database: Database) -> None:
    client, _ = house
    body = {"merchant_order_no": "PO-q", "sku": "qb", "target": "some-account", "fields": {"face_value": "37"}}
    order = await _final(client, (await client.post("/v1/orders", body)).json()["id"])
    assert (order["status"], order["amount"]) == ("succeeded", "36.2600")
    await _books_agree(client, database)
