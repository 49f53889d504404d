"""The desk of a merchant's developer: try an endpoint, see how it answers, find what was sent, end an old secret."""

import hashlib
from datetime import timedelta
from typing import Any

import orjson
import pytest
from fastapi import FastAPI
from tests.api.test_signature import is_problem
from tests.api.test_webhooks_api import PATH, URL, create, happen
from tests.factories.client import Client
from tests.factories.counter import Counter
from tests.factories.merchants import TestMerchant, keyring_of, make_key, make_merchant
from tests.factories.shop import PHONE, stock_the_shop

from kameng_api.kit.clock import utc_now, wire_time
from kameng_api.kit.db import Database, execute, fetch
from kameng_api.kit.ids import parse_public_id
from kameng_api.orders.views import view
from kameng_api.settings import Settings
from kameng_api.webhooks import actions, queries, samples
from kameng_api.webhooks.actions import Tried
from kameng_api.webhooks.events import EVENT_TYPES
from kameng_api.webhooks.rules import State


@pytest.mark.parametrize("event_type", EVENT_TYPES)
async def test_a_sample_of_every_type_is_sent_to_this_endpoint_alone(client: Client, database: Database, event_type: str) -> None:
    made = await create(client, event_types=["order.failed"])
    other = await create(client, f"{URL}/other")
    answer = await client.post(f"{PATH}/{made['id']}/test", {"type": event_type})
    assert answer.status_code == 202, answer.text
    async with database.transaction() as tx:
        await actions.fan_out(tx, 100)
    [delivery] = (await client.get(f"{PATH}/{made['id']}/deliveries")).json()["items"]
    assert (delivery["id"], delivery["event_id"]) == (answer.json()["delivery_id"], answer.json()["event_id"])
    assert (delivery["event_type"], delivery["test"], delivery["state"]) == (event_type, True, "pending")
    body = (await client.get(f"/v1/events/{delivery['event_id']}")).content
    assert (delivery["body_sha256"], delivery["body_bytes"]) == (hashlib.sha256(body).hexdigest(), len(body))
    event = orjson.loads(body)
    assert (event["id"], event["type"], event["test"]) == (delivery["event_id"], event_type, True)
    assert event["data"]["version"] >= 1 and event["data"]["object"]
    assert (await client.get(f"{PATH}/{other['id']}/deliveries")).json()["items"] == []
    assert (await client.get("/v1/events")).json()["items"] == []  # the poller hears of nothing that did not happen
    assert (await client.get(f"/v1/events?type={event_type}")).json()["items"] == []


async def test_samples_of_orders_have_the_fields_of_real_ones(client: Client, database: Database, settings: Settings) -> None:
    counter = await Counter.open(database, settings)
    real = view(await counter.order("PO-1"))
    made = await create(client)
    async with database.transaction() as tx:
        [endpoint] = (await queries.find_endpoints(tx, [await _key(tx, made)])).values()
    for event_type in EVENT_TYPES:
        if event_type.startswith("order."):
            event = orjson.loads(samples.body_of_sample(event_type, endpoint.endpoint_id, endpoint, utc_now()))
            shown = event["data"]["object"]
            assert list(shown) == list(real), event_type
            assert (shown["id"], shown["version"]) == (event["data"]["id"], event["data"]["version"])
            assert shown["environment"] == "test" and shown["metadata"] == {"sample": True}


async def _key(tx: Any, made: dict[str, object]) -> tuple[int, Any]:
    endpoint_id = parse_public_id("whe", str(made["id"]))
    [row] = await fetch(tx, "SELECT book_id FROM webhook_endpoints WHERE endpoint_id = $1", endpoint_id)
    return row["book_id"], endpoint_id


async def test_a_sample_can_be_sent_again_and_only_where_something_is_sent(client: Client, database: Database) -> None:
    made = await create(client)
    path = f"{PATH}/{made['id']}"
    first = (await client.post(f"{path}/test", {"type": "order.failed"})).json()
    assert (await client.post(f"{path}/resend", {"event_id": first["event_id"]})).json() == first
    assert is_problem(await client.post(f"{path}/test", {"type": "order.eaten"}), 422, "validation_failed")["errors"][0]["pointer"] == "/type"
    is_problem(await client.post(f"{path}/test", {}), 422, "validation_failed")
    is_problem(await client.post(f"{path}/test", {"type": "endpoint.sample"}), 422, "validation_failed")
    await client.post(f"{path}/disable")
    is_problem(await client.post(f"{path}/test", {"type": "order.failed"}), 409, "state_conflict")


async def _tried(database: Database, merchant: TestMerchant, *tries: tuple[int, int | None, str | None, State]) -> list[Any]:
    """(took_ms, status, trouble, state) for the newest deliveries, newest first."""
    async with database.transaction() as tx:
        found = [r["delivery_id"] for r in await fetch(tx, "SELECT delivery_id FROM webhook_deliveries ORDER BY delivery_id DESC")]
        for delivery_id, (took_ms, status, trouble, state) in zip(found, tries, strict=False):
            await actions.record_attempts(tx, [Tried(merchant.book_id, delivery_id, took_ms, status, trouble)])
            await actions.record_states(tx, [(merchant.book_id, delivery_id, state, 1)])
    return found


async def test_health_says_how_the_endpoint_answers(client: Client, database: Database, merchant: TestMerchant) -> None:
    made = await create(client)
    path = f"{PATH}/{made['id']}/health"
    none = (await client.get(path)).json()
    assert (none["deliveries"], none["success_rate"], none["p50_ms"], none["last_error"]) == (0, None, None, None)
    await happen(database, merchant.book_id, 20)
    good = [(10 * (n + 1), 200, None, State.DELIVERED) for n in range(18)]
    await _tried(database, merchant, *good, (900, 500, "not_2xx", State.PENDING), (5000, None, "timed_out", State.GIVEN_UP))
    shown = (await client.get(path)).json()
    assert {name: shown[name] for name in ("deliveries", "delivered", "pending", "given_up", "held", "attempts", "missing")} == {
        "deliveries": 20, "delivered": 18, "pending": 1, "given_up": 1, "held": 0, "attempts": 20, "missing": 1,
    }  # fmt: skip
    assert (shown["success_rate"], shown["p50_ms"], shown["p95_ms"]) == ("0.9000", 100, 900)
    assert shown["last_error"] | {"at": ""} == {"at": "", "took_ms": 5000, "http_status": None, "trouble": "timed_out"}
    assert shown["endpoint_id"] == made["id"] and shown["status"] == "enabled"


async def test_health_forgets_after_a_day(client: Client, database: Database, merchant: TestMerchant) -> None:
    made = await create(client)
    await happen(database, merchant.book_id, 3)
    async with database.transaction() as tx:
        await execute(
            tx,
            "UPDATE webhook_deliveries SET delivery_id = ('00000000' || substr(delivery_id::text, 9))::uuid, state = 'held'",
        )
    shown = (await client.get(f"{PATH}/{made['id']}/health")).json()
    assert (shown["deliveries"], shown["missing"]) == (0, 3)


async def test_replay_takes_a_window(client: Client, database: Database, merchant: TestMerchant) -> None:
    made = await create(client)
    path = f"{PATH}/{made['id']}/replay-missing"
    await happen(database, merchant.book_id, 3)
    await _tried(database, merchant, *[(1, 500, "not_2xx", State.GIVEN_UP)] * 3)
    async with database.transaction() as tx:
        rows = await fetch(tx, "SELECT delivery_id FROM webhook_deliveries ORDER BY delivery_id")
        for age, row in enumerate(rows):
            sql = "UPDATE webhook_deliveries SET created_at = now() - make_interval(hours => $2) WHERE delivery_id = $1"
            await execute(tx, sql, row["delivery_id"], 10 * age)
    early, late = (wire_time(utc_now() - timedelta(hours=h)) for h in (15, 5))
    assert (await client.post(path, {"since": early, "until": late})).json() == {"replayed": 1, "more": False}
    assert (await client.post(path, {"until": late})).json() == {"replayed": 1, "more": False}
    assert (await client.post(path, {})).json() == {"replayed": 1, "more": False}
    wrong = is_problem(await client.post(path, {"until": "soon"}), 422, "validation_failed")
    assert wrong["errors"][0]["pointer"] == "/until"


async def test_the_overlap_of_secrets_ends_when_the_merchant_says_so(
    client: Client, database: Database, merchant: TestMerchant, settings: Settings
) -> None:
    made = await create(client)
    path = f"{PATH}/{made['id']}"
    rotated = (await client.post(f"{path}/rotate-secret")).json()

    async def signing() -> tuple[str, ...]:
        async with database.transaction() as tx:
            [endpoint] = (await queries.find_endpoints(tx, [await _key(tx, made)])).values()
        return actions.open_secrets(keyring_of(settings), endpoint).at(utc_now())

    assert await signing() == (rotated["secret"], made["secret"])
    for _ in range(2):
        ended = await client.post(f"{path}/expire-old-secret")
        assert ended.status_code == 200 and ended.json()["old_secret_until"] is None
        assert await signing() == (rotated["secret"],)


async def test_the_secret_of_notify_urls_is_in_the_merchants_hands(
    client: Client, database: Database, merchant: TestMerchant, settings: Settings
) -> None:
    first = await client.post("/v1/notify-secret/rotate")
    assert first.status_code == 200, first.text
    assert first.headers["cache-control"] == "no-store" and first.json()["secret"].startswith("whsec_")
    second = (await client.post("/v1/notify-secret/rotate")).json()["secret"]

    async def signing() -> tuple[str, ...]:
        async with database.transaction() as tx:
            found = await actions.find_notify_secrets(tx, keyring_of(settings), [merchant.book_id])
        return found[merchant.book_id].at(utc_now())

    assert await signing() == (second, first.json()["secret"])
    assert (await client.post("/v1/notify-secret/expire-old-secret")).status_code == 204
    assert await signing() == (second,)


@pytest.fixture
async def shop(database: Database, settings: Settings, app: FastAPI) -> None:
    await stock_the_shop(database, settings, "http://127.0.0.1:9", {"sim-a": "secret-of-sim-a-only-for-tests"})
    await app.state.door.catalog.refresh()


async def test_what_was_sent_is_found_by_order_and_by_event(
    client: Client, database: Database, settings: Settings, merchant: TestMerchant, shop: None
) -> None:
    made = await create(client)
    orders = []
    for n in range(2):
        body = {"merchant_order_no": f"PO-{n}", "sku": "mobile-cn-100", "target": PHONE, "notify_url": "http://127.0.0.1:9/notify"}
        answer = await client.post("/v1/orders", body)
        assert answer.status_code == 201, answer.text
        orders.append(answer.json()["id"])
    assert (await client.post(f"/v1/orders/{orders[0]}/cancel")).status_code == 200
    async with database.transaction() as tx:
        await actions.fan_out(tx, 1000)
    found = (await client.get(f"/v1/webhook-deliveries?order_id={orders[0]}")).json()["items"]
    assert sorted((d["event_type"], d["endpoint_id"], d["notify_url"]) for d in found if d["endpoint_id"]) == [
        ("order.accepted", made["id"], None), ("order.cancelled", made["id"], None),
    ]  # fmt: skip
    assert [d["notify_url"] for d in found if not d["endpoint_id"]] == ["http://127.0.0.1:9/notify"] * 2
    assert {d["test"] for d in found} == {False}
    one = found[0]
    of_event = (await client.get(f"/v1/webhook-deliveries?event_id={one['event_id']}")).json()["items"]
    assert len(of_event) == 2 and {d["event_id"] for d in of_event} == {one["event_id"]}
    mine = (await client.get(f"{PATH}/{made['id']}/deliveries?order_id={orders[1]}")).json()["items"]
    assert [d["event_type"] for d in mine] == ["order.accepted"]
    assert (await client.get(f"/v1/webhook-deliveries?order_id={orders[1]}&event_id={one['event_id']}")).json()["items"] == []
    accepted = (await client.get("/v1/webhook-deliveries?event_type=order.accepted&limit=3")).json()
    assert len(accepted["items"]) == 3
    rest = (await client.get(f"/v1/webhook-deliveries?event_type=order.accepted&limit=3&cursor={accepted['next_cursor']}")).json()
    assert len(rest["items"]) == 1 and rest["next_cursor"] is None
    is_problem(await client.get(f"/v1/webhook-deliveries?cursor={accepted['next_cursor']}"), 400, "cursor_invalid")
    is_problem(await client.get("/v1/webhook-deliveries?event_type=order.eaten"), 422, "validation_failed")
    assert (await client.get("/v1/webhook-deliveries?event_id=nonsense")).json()["items"] == []
    for order_id in ("ord_01JD0000000000000000000009", "nonsense"):
        is_problem(await client.get(f"/v1/webhook-deliveries?order_id={order_id}"), 404, "not_found")
    stranger = await make_merchant(database, settings)
    is_problem(await client.get(f"/v1/webhook-deliveries?order_id={orders[0]}", key=stranger.key), 404, "not_found")
    assert (await client.get("/v1/webhook-deliveries", key=stranger.key)).json()["items"] == []
    assert (await client.get(f"/v1/webhook-deliveries?event_id={one['event_id']}", key=stranger.key)).json()["items"] == []

    await _tried(database, merchant, *[(1, 500, "not_2xx", State.GIVEN_UP)] * 6)
    told = next(d for d in found if not d["endpoint_id"])
    again = await client.post(f"/v1/webhook-deliveries/{told['id']}/resend")
    assert again.status_code == 202 and again.json() == {"delivery_id": told["id"], "event_id": told["event_id"]}
    assert [d["id"] for d in (await client.get("/v1/webhook-deliveries?state=pending")).json()["items"]] == [told["id"]]
    is_problem(await client.post(f"/v1/webhook-deliveries/{told['id']}/resend", key=stranger.key), 404, "not_found")
    is_problem(await client.post("/v1/webhook-deliveries/whd_01JD0000000000000000000011/resend"), 404, "not_found")


async def test_the_desk_needs_its_scope(client: Client, database: Database, merchant: TestMerchant, settings: Settings) -> None:
    made = await create(client)
    key = await make_key(database, settings, merchant.merchant_id, scopes=("orders:read", "orders:write"))
    for method, path in (
        ("GET", "/v1/webhook-deliveries"), ("GET", f"{PATH}/{made['id']}/health"), ("POST", f"{PATH}/{made['id']}/test"),
        ("POST", f"{PATH}/{made['id']}/expire-old-secret"), ("POST", "/v1/notify-secret/rotate"), ("POST", "/v1/notify-secret/expire-old-secret"),
        ("POST", "/v1/webhook-deliveries/whd_01JD0000000000000000000011/resend"),
    ):  # fmt: skip
        is_problem(await client.send(method, path, {} if method == "POST" else None, key=key), 403, "scope_missing")
