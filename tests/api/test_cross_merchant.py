"""Nobody sees, or can tell that there is, what belongs to another merchant or to the other environment. From the OpenAPI document itself."""

from dataclasses import dataclass
from typing import Any

import pytest
from fastapi import FastAPI
from tests.api.test_signature import is_problem
from tests.factories import contract
from tests.factories.client import Client
from tests.factories.merchants import ALL_SCOPES, ApiKey, TestMerchant, make_key, make_merchant
from tests.factories.shop import PHONE, open_desk, stock_the_shop

from kameng_api.api.access import TABLE, Access
from kameng_api.catalog import actions as catalog
from kameng_api.jobs.batches import advance_batches
from kameng_api.kit.db import Database
from kameng_api.kit.ids import new_ulid, public_id
from kameng_api.settings import Settings

DOCUMENT = contract.document()
OPERATIONS = [(method.upper(), path) for path, found in DOCUMENT["paths"].items() for method in found if path.startswith("/v1/")]
WITH_ID = [(method, path) for method, path in OPERATIONS if "{" in path]
BODIES: dict[str, dict[str, Any]] = {
    "PATCH /v1/webhook-endpoints/{endpoint_id}": {"event_types": ["order.failed"]},
    "POST /v1/webhook-endpoints/{endpoint_id}/resend": {"event_id": "evt_01JD0000000000000000000042"},
    "POST /v1/webhook-endpoints/{endpoint_id}/test": {"type": "order.failed"},
    "POST /v1/webhook-endpoints/{endpoint_id}/replay-missing": {"since": "2026-11-01T00:00:00Z"},
    "POST /v1/test/orders/{order_id}/advance": {"outcome": "succeeded"},
    "POST /v1/webhook-endpoints": {"url": "https://merchant.example/hook"},
    "POST /v1/orders": {"merchant_order_no": "PO-x", "sku": "mobile-cn-100", "target": PHONE},
    "POST /v1/test/balance": {"number": "n", "available": "1"},
    "POST /v1/test/signature": {},
    "POST /v1/order-batches": {
        "merchant_batch_no": "BATCH-x", "confirm": "manual", "items": [{"sku": "mobile-cn-100", "target": PHONE, "merchant_order_no": "PO-y"}]
    },
}  # fmt: skip
FIXED = {"line_no": "1", "which": "unprocessed", "number": PHONE}
PUBLIC = {"sku", "date", "number"}
"""Parameters that name no merchant's thing. What is private about a product is tested by its grant, of a day's statement in test_statements_api."""


@dataclass
class Street:
    """What merchant A owns, by the name of the path parameter that asks for it, and the keys that must not open it."""

    client: Client
    owner: TestMerchant
    owned: dict[str, str]
    strangers: dict[str, ApiKey]


@pytest.fixture
async def goods(database: Database, settings: Settings) -> None:
    await stock_the_shop(database, settings, "http://127.0.0.1:9", {"sim-a": "secret-of-sim-a-only-for-tests"})


@pytest.fixture
async def street(app: FastAPI, client: Client, merchant: TestMerchant, database: Database, settings: Settings) -> Street:
    other = await make_merchant(database, settings)
    order = await client.post("/v1/orders", BODIES["POST /v1/orders"])
    endpoint = await client.post("/v1/webhook-endpoints", BODIES["POST /v1/webhook-endpoints"])
    assert (order.status_code, endpoint.status_code) == (201, 201), (order.text, endpoint.text)
    [event] = [e for e in (await client.get("/v1/events")).json()["items"] if e["type"] == "order.accepted"]
    owned = {"order_id": order.json()["id"], "endpoint_id": endpoint.json()["id"], "event_id": event["id"], "merchant_order_no": "PO-x"}
    sample = await client.post(f"/v1/webhook-endpoints/{owned['endpoint_id']}/test", {"type": "order.failed"})
    owned["delivery_id"] = sample.json()["delivery_id"]
    batch = await client.post("/v1/order-batches", BODIES["POST /v1/order-batches"])
    owned |= {"batch_id": batch.json()["id"], "merchant_batch_no": "BATCH-x"}
    strangers = {
        "another merchant": other.key,
        "another merchant, live": await make_key(database, settings, other.merchant_id, "live"),
        "the same merchant, live": await make_key(database, settings, merchant.merchant_id, "live"),
    }
    return Street(client, merchant, owned, strangers)


def _parameter(path: str) -> str:
    name, *_ = [step[1:-1] for step in path.split("/") if step.startswith("{")]
    return name


async def _read_rows(settings: Settings, parameter: str) -> None:
    """Until the rows of the owner's batch are known; it waits for a word of its owner then."""
    if "batch" in parameter:
        async with open_desk(settings) as desk:
            while await advance_batches(desk, 10):
                pass


def _random(parameter: str) -> str:
    if parameter in ("merchant_order_no", "merchant_batch_no"):
        return f"PO-{new_ulid().hex}"
    if parameter in FIXED:
        return FIXED[parameter]
    return public_id({"order_id": "ord", "endpoint_id": "we", "event_id": "evt", "batch_id": "bat"}.get(parameter, "x"), new_ulid())


def _path_of(path: str, value: str) -> str:
    """The path of `value`; which part of it is asked for is the same for everybody."""
    path = path.replace(f"{{{_parameter(path)}}}", value)
    for name, fixed in FIXED.items():
        path = path.replace(f"{{{name}}}", fixed)
    return path


def test_every_operation_stands_in_the_access_table_and_the_other_way_round() -> None:
    assert sorted(OPERATIONS) == sorted((row.method, row.template) for row in TABLE)


@pytest.mark.parametrize(("method", "path"), [o for o in WITH_ID if _parameter(o[1]) not in PUBLIC])
async def test_what_is_not_yours_reads_like_what_is_not_there(street: Street, settings: Settings, method: str, path: str) -> None:
    name = _parameter(path)
    await _read_rows(settings, name)
    body = BODIES.get(f"{method} {path}")
    prefix, dash = street.owned[name].partition("_")[::2]
    for who, key in street.strangers.items():
        theirs = _path_of(path, street.owned[name])
        nowhere = _path_of(path, public_id(prefix, new_ulid()) if dash else f"PO-{new_ulid().hex}")
        first = await street.client.send(method, theirs, body, key=key)
        second = await street.client.send(method, nowhere, body, key=key)
        assert (first.status_code, second.status_code) == (404, 404), (who, first.text, second.text)
        one, two = ({k: v for k, v in a.json().items() if k not in ("request_id", "instance")} for a in (first, second))
        assert one == two and one["code"] == "not_found"
        assert _shape_of(first.headers) == _shape_of(second.headers)


def _shape_of(headers: Any) -> list[tuple[str, str]]:
    varying = {"request-id", "content-length", "ratelimit", "ratelimit-policy", "ratelimit-remaining", "date"}
    return sorted((k, v) for k, v in headers.items() if k not in varying)


@pytest.mark.parametrize(("method", "path"), [o for o in WITH_ID if _parameter(o[1]) not in PUBLIC])
async def test_the_owner_finds_it(street: Street, settings: Settings, method: str, path: str) -> None:
    """Else the test above would prove nothing."""
    name = _parameter(path)
    await _read_rows(settings, name)
    answer = await street.client.send(method, _path_of(path, street.owned[name]), BODIES.get(f"{method} {path}"))
    expected_conflict = {"/v1/orders/{order_id}/codes", "/v1/test/orders/{order_id}/advance"}
    if path == "/v1/webhook-endpoints/{endpoint_id}/resend":  # the event of the body does not exist
        assert answer.status_code == 404
    elif path in expected_conflict:
        is_problem(answer, 409, "state_conflict")
    elif path.endswith("/receipt"):  # nothing seals here
        is_problem(answer, 409, "not_sealed_yet")
    else:
        assert answer.status_code in (200, 202, 204), answer.text


async def test_a_product_that_is_not_granted_does_not_exist(street: Street, database: Database, app: FastAPI) -> None:
    async with database.transaction() as tx:
        await catalog.set_grants(tx, "mobile-cn-100", [street.owner.merchant_id])
    await app.state.door.catalog.refresh()
    assert (await street.client.get("/v1/products/mobile-cn-100")).status_code == 200
    one = await street.client.get("/v1/products/mobile-cn-100", key=street.strangers["another merchant"])
    two = await street.client.get("/v1/products/no-such-sku", key=street.strangers["another merchant"])
    assert one.status_code == two.status_code == 404
    assert one.json()["detail"] == two.json()["detail"]


async def test_lists_hold_only_one_s_own(street: Street) -> None:
    for key in street.strangers.values():
        for path in ("/v1/orders", "/v1/webhook-endpoints", "/v1/events"):
            answer = await street.client.get(path, key=key)
            assert (answer.status_code, answer.json()["items"]) == (200, []), (path, answer.text)
        assert street.owned["order_id"] not in (await street.client.get("/v1/balance/transactions", key=key)).text


async def test_another_merchant_s_number_is_free(street: Street) -> None:
    answer = await street.client.post("/v1/orders", BODIES["POST /v1/orders"], key=street.strangers["another merchant"])
    assert answer.status_code == 201 and answer.json()["id"] != street.owned["order_id"]


# ---- scopes --------------------------------------------------------------------------------------------------------


def _filled(row: Access) -> str:
    path = row.template
    for step in row.template.split("/"):
        if step.startswith("{"):
            path = path.replace(step, _random(step[1:-1]))
    return path


@pytest.mark.parametrize("row", [r for r in TABLE if r.scope is not None], ids=lambda r: f"{r.method} {r.template}")
async def test_without_its_scope_an_endpoint_is_closed(street: Street, database: Database, settings: Settings, row: Access) -> None:
    others = [scope for scope in ALL_SCOPES if scope != row.scope]
    narrow = await make_key(database, settings, street.owner.merchant_id, scopes=others)
    body = BODIES.get(f"{row.method} {row.template}")
    problem = is_problem(await street.client.send(row.method, _filled(row), body, key=narrow), 403, "scope_missing")
    assert problem["scope"] == row.scope
    only = await make_key(database, settings, street.owner.merchant_id, scopes=[str(row.scope)])
    answer = await street.client.send(row.method, _filled(row), body, key=only)
    assert answer.status_code not in (401, 403), answer.text


@pytest.mark.parametrize("row", [r for r in TABLE if r.test_only], ids=lambda r: f"{r.method} {r.template}")
async def test_helpers_of_the_test_environment_do_not_exist_for_live_keys(street: Street, row: Access) -> None:
    live = street.strangers["the same merchant, live"]
    answer = await street.client.send(row.method, _filled(row), BODIES.get(f"{row.method} {row.template}"), key=live)
    nowhere = await street.client.send(row.method, "/v1/test/nothing", {}, key=live)
    is_problem(answer, 404, "not_found")
    assert {k: v for k, v in answer.json().items() if k not in ("request_id", "instance")} == {
        k: v for k, v in nowhere.json().items() if k not in ("request_id", "instance")
    }
