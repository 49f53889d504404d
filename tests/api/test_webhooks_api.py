"""Webhook endpoints, as a merchant's program manages them."""

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from fastapi import FastAPI
from tests.factories.client import Client
from tests.factories.merchants import TestMerchant, make_key, make_merchant

from kameng_api.kit.clock import utc_now, wire_time
from kameng_api.kit.crypto import Keyring
from kameng_api.kit.db import Database, fetch
from kameng_api.kit.ids import parse_public_id
from kameng_api.outbox import actions as outbox
from kameng_api.outbox.rules import fact_of
from kameng_api.settings import Settings
from kameng_api.webhooks import actions
from kameng_api.webhooks.actions import Tried
from kameng_api.webhooks.rules import State

URL = "https://shop.example.com/hook"
PATH = "/v1/webhook-endpoints"


async def create(client: Client, url: str = URL, **fields: object) -> dict[str, object]:
    answer = await client.post(PATH, {"url": url, **fields})
    assert answer.status_code == 201, answer.text
    made: dict[str, object] = answer.json()
    return made


async def happen(db: Database, book_id: int, count: int = 1) -> list[str]:
    facts = [fact_of(book_id, "order.succeeded", "ord_01JD0000000000000000000009", i, {}) for i in range(count)]
    async with db.transaction() as tx:
        await outbox.record(tx, facts)
    async with db.transaction() as tx:
        await actions.fan_out(tx, 1000)
        found = await fetch(tx, "SELECT body FROM events WHERE book_id = $1 ORDER BY xid, event_id", book_id)
    return [r["body"].decode().split('"')[3] for r in found]


async def test_an_endpoint_is_registered_shown_changed_and_deleted(client: Client) -> None:
    answer = await client.post(PATH, {"url": URL, "event_types": ["order.succeeded"], "description": "ERP"})
    assert answer.status_code == 201, answer.text
    made = answer.json()
    assert answer.headers["Location"] == f"{PATH}/{made['id']}"
    assert answer.headers["Cache-Control"] == "no-store"
    assert parse_public_id("whe", made["id"]) is not None
    secret = made.pop("secret")
    assert secret.startswith("whsec_")
    assert made | {"id": "", "created_at": ""} == {
        "id": "", "object": "webhook_endpoint", "url": URL, "event_types": ["order.succeeded"], "description": "ERP",
        "status": "enabled", "status_reason": None, "failures": 0, "first_failure_at": None, "last_success_at": None,
        "old_secret_until": None, "created_at": "",
    }  # fmt: skip
    path = f"{PATH}/{made['id']}"
    assert (await client.get(path)).json() == made
    assert (await client.get(PATH)).json() == {"items": [made], "next_cursor": None}
    assert secret not in (await client.get(PATH)).text

    changed = await client.send("PATCH", path, {"event_types": [], "url": f"{URL}/new"})
    assert changed.status_code == 200, changed.text
    assert changed.json() == made | {"event_types": [], "url": f"{URL}/new"}
    assert (await client.send("DELETE", path)).status_code == 204
    assert (await client.get(path)).status_code == 404
    assert (await client.send("DELETE", path)).status_code == 404
    assert (await client.get(PATH)).json()["items"] == []


@pytest.mark.parametrize(
    "url",
    [
        "http://shop.example.com/hook", "https://shop.example.com:8080/hook", "https://user@shop.example.com/hook",
        "https://shop.example.com/hook#part", "https://93.184.216.34/hook", "https://[2606:2800:220:1::1]/hook",
        "https://2130706433/", "https://0x7f.1/", "https://db.internal/hook", "https://printer.local/", "https://shop/",
        "ftp://shop.example.com/", "shop.example.com", "https://", "https://shop.example.com/" + "x" * 2048,
        "https://shop.example.com\\@127.0.0.1/", "https://①②⑦.0.0.1/", "https://shop.example.com/a b",
        "http://10.0.0.1:8080/", "http://169.254.169.254/latest/meta-data", "http://0.0.0.0:9000/", "http://[::]:9000/",
    ],
)  # fmt: skip
async def test_a_url_that_could_lead_inside_is_not_registered(client: Client, url: str) -> None:
    answer = await client.post(PATH, {"url": url})
    assert answer.status_code == 422, answer.text
    document = answer.json()
    assert document["code"] == "validation_failed"
    assert [e["pointer"] for e in document["errors"]] == ["/url"]
    assert (await client.get(PATH)).json()["items"] == []


async def test_loopback_is_refused_without_the_development_setting(
    app: FastAPI, client: Client, settings: Settings
) -> None:
    app.state.door.settings = settings.model_copy(update={"webhook_development": False})
    for url in ("http://127.0.0.1:9000/", "http://localhost:9000/", "https://localhost/", "http://[::1]:9000/"):
        assert (await client.post(PATH, {"url": url})).status_code == 422
    app.state.door.settings = settings
    assert (await client.post(PATH, {"url": "http://127.0.0.1:9000/"})).status_code == 201


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"url": URL, "event_types": ["order.eaten"]}, "/event_types/0"),
        ({"url": URL, "event_types": "order.failed"}, "/event_types"),
        ({"url": URL, "event_types": ["order.failed"] * 65}, "/event_types"),
        ({"url": URL, "secret": "mine"}, "/secret"),
        ({"url": URL, "description": "x" * 201}, "/description"),
        ({"url": URL, "description": "two\nlines"}, "/description"),
        ({"url": 1}, "/url"),
        ({}, "/url"),
    ],
)
async def test_a_wrong_field_is_named(client: Client, body: object, pointer: str) -> None:
    answer = await client.post(PATH, body)
    assert answer.status_code == 422, answer.text
    assert [e["pointer"] for e in answer.json()["errors"]] == [pointer]


async def test_a_change_to_null_is_refused(client: Client) -> None:
    made = await create(client)
    answer = await client.send("PATCH", f"{PATH}/{made['id']}", {"url": None})
    assert answer.status_code == 422
    assert [e["pointer"] for e in answer.json()["errors"]] == ["/url"]


async def test_registering_again_names_the_first_and_makes_no_twin(client: Client) -> None:
    made = await create(client, event_types=["order.failed", "order.succeeded"])
    again = await client.post(PATH, {"url": URL, "event_types": ["order.succeeded", "order.failed"]})
    assert again.status_code == 409, again.text
    assert again.json()["code"] == "state_conflict"
    assert again.json()["existing_id"] == made["id"]
    other = await create(client, event_types=["order.failed"])
    twin = await client.send("PATCH", f"{PATH}/{other['id']}", {"event_types": ["order.failed", "order.succeeded"]})
    assert twin.status_code == 409


async def test_the_seventeenth_endpoint_is_refused(client: Client) -> None:
    for i in range(16):
        await create(client, f"{URL}/{i}")
    answer = await client.post(PATH, {"url": f"{URL}/16"})
    assert (answer.status_code, answer.json()["code"]) == (409, "state_conflict")


async def test_disabling_and_enabling_may_be_repeated(client: Client) -> None:
    made = await create(client)
    for _ in range(2):
        shown = await client.post(f"{PATH}/{made['id']}/disable")
        assert (shown.json()["status"], shown.json()["status_reason"]) == ("disabled", "by_merchant")
    for verb, body in (("ping", None), ("replay-missing", {}), ("resend", {"event_id": "evt_01JD0000000000000000000042"})):
        refused = await client.post(f"{PATH}/{made['id']}/{verb}", body)
        assert (refused.status_code, refused.json()["code"]) == (409, "state_conflict"), verb
    for _ in range(2):
        shown = await client.post(f"{PATH}/{made['id']}/enable")
        assert (shown.json()["status"], shown.json()["status_reason"]) == ("enabled", None)


async def test_rotation_shows_the_new_secret_once(client: Client, database: Database, settings: Settings) -> None:
    made = await create(client)
    answer = await client.post(f"{PATH}/{made['id']}/rotate-secret")
    assert answer.status_code == 200, answer.text
    rotated = answer.json()
    assert rotated["secret"].startswith("whsec_")
    assert rotated["secret"] != made["secret"]
    assert rotated["old_secret_until"] > wire_time(utc_now() + timedelta(hours=23))
    assert "whsec_" not in (await client.get(f"{PATH}/{made['id']}")).text


async def test_a_ping_is_recorded_and_on_its_way(client: Client, database: Database) -> None:
    made = await create(client, event_types=["order.failed"])
    answer = await client.post(f"{PATH}/{made['id']}/ping")
    assert answer.status_code == 202, answer.text
    async with database.transaction() as tx:
        await actions.fan_out(tx, 100)
    [delivery] = (await client.get(f"{PATH}/{made['id']}/deliveries")).json()["items"]
    assert (delivery["event_type"], delivery["state"], delivery["log"]) == ("endpoint.ping", "pending", [])
    event = (await client.get(f"/v1/events/{delivery['event_id']}")).json()
    assert event["data"]["id"] == made["id"]


async def test_resend_and_replay_put_deliveries_on_their_way(
    client: Client, database: Database, merchant: TestMerchant
) -> None:
    made = await create(client)
    path = f"{PATH}/{made['id']}"
    event_ids = await happen(database, merchant.book_id, 3)
    async with database.transaction() as tx:
        found = await fetch(tx, "SELECT delivery_id FROM webhook_deliveries ORDER BY delivery_id")
        states = [(merchant.book_id, r["delivery_id"], State.GIVEN_UP, 14) for r in found]
        await actions.record_states(tx, states)
    future = wire_time(utc_now() + timedelta(hours=1))
    assert (await client.post(f"{path}/replay-missing", {"since": future})).json() == {"replayed": 0, "more": False}
    again = await client.post(f"{path}/resend", {"event_id": event_ids[0]})
    assert again.status_code == 202, again.text
    assert again.json()["event_id"] == event_ids[0]
    answer = await client.post(f"{path}/replay-missing", {"since": "2026-01-01T00:00:00+08:00"})
    assert answer.status_code == 202
    assert answer.json() == {"replayed": 2, "more": False}
    shown = (await client.get(f"{path}/deliveries?state=pending")).json()["items"]
    assert {d["event_id"] for d in shown} == set(event_ids)
    for since in ("yesterday", "2026-01-01", "2026-01-01T00:00:00"):
        wrong = await client.post(f"{path}/replay-missing", {"since": since})
        assert (wrong.status_code, wrong.json()["errors"][0]["pointer"]) == (422, "/since")
    for event_id in ("evt_01JD0000000000000000000042", "ord_01JD0000000000000000000042", "x"):
        assert (await client.post(f"{path}/resend", {"event_id": event_id})).status_code == 404


async def test_the_attempts_log_is_paged_newest_first(client: Client, database: Database, merchant: TestMerchant) -> None:
    made = await create(client)
    path = f"{PATH}/{made['id']}/deliveries"
    await happen(database, merchant.book_id, 5)
    async with database.transaction() as tx:
        found = await fetch(tx, "SELECT delivery_id FROM webhook_deliveries ORDER BY delivery_id DESC")
        tried = [Tried(merchant.book_id, r["delivery_id"], 12, 500, "not_2xx") for r in found]
        await actions.record_attempts(tx, tried)
        await actions.record_attempts(tx, tried[:1])
    seen, cursor = [], None
    for _ in range(3):
        page = (await client.get(f"{path}?limit=2" + (f"&cursor={cursor}" if cursor else ""))).json()
        seen += page["items"]
        cursor = page["next_cursor"]
    assert cursor is None
    assert [d["id"] for d in seen] == sorted((d["id"] for d in seen), reverse=True)
    assert len(seen) == 5
    assert [len(d["log"]) for d in seen] == [2, 1, 1, 1, 1]
    assert seen[0]["log"][0] | {"at": ""} == {"at": "", "took_ms": 12, "http_status": 500, "trouble": "not_2xx"}
    first = (await client.get(f"{path}?limit=2")).json()["next_cursor"]
    assert (await client.get(f"{path}?limit=2&state=held&cursor={first}")).json()["code"] == "cursor_invalid"
    assert (await client.get(f"{path}?state=lost")).status_code == 422


@pytest.fixture
async def stranger(app: FastAPI, database: Database, settings: Settings) -> AsyncIterator[Client]:
    other = await make_merchant(database, settings)
    async with Client(app, other.key) as signed:
        yield signed


async def test_another_merchants_endpoint_does_not_exist(client: Client, stranger: Client) -> None:
    made = await create(client)
    path = f"{PATH}/{made['id']}"
    missing = await stranger.get(f"{PATH}/whe_01JD0000000000000000000007")
    for method, below, body in (
        ("GET", "", None), ("PATCH", "", {"description": "mine now"}), ("DELETE", "", None), ("POST", "/enable", None),
        ("POST", "/disable", None), ("POST", "/ping", None), ("POST", "/rotate-secret", None),
        ("POST", "/resend", {"event_id": "evt_01JD0000000000000000000042"}), ("POST", "/replay-missing", {}),
        ("GET", "/deliveries", None),
    ):  # fmt: skip
        answer = await stranger.send(method, path + below, body)
        assert answer.status_code == 404, (method, below, answer.text)
        assert answer.json()["detail"] == missing.json()["detail"]
    assert (await stranger.get(PATH)).json()["items"] == []
    assert (await client.get(path)).json()["description"] == ""


async def test_endpoints_need_their_scope(client: Client, database: Database, merchant: TestMerchant, settings: Settings) -> None:
    key = await make_key(database, settings, merchant.merchant_id, scopes=("orders:read", "orders:write"))
    for method, path in (("GET", PATH), ("POST", PATH), ("GET", f"{PATH}/whe_01JD0000000000000000000007/deliveries")):
        answer = await client.send(method, path, {"url": URL} if method == "POST" else None, key=key)
        assert (answer.status_code, answer.json()["code"]) == (403, "scope_missing")


async def test_an_endpoint_belongs_to_one_environment(
    client: Client, database: Database, merchant: TestMerchant, settings: Settings
) -> None:
    made = await create(client)
    live = await make_key(database, settings, merchant.merchant_id, "live")
    assert (await client.get(f"{PATH}/{made['id']}", key=live)).status_code == 404


async def test_the_secret_in_the_answer_is_the_one_that_signs(
    client: Client, database: Database, merchant: TestMerchant, settings: Settings
) -> None:
    made = await create(client)
    keyring = Keyring(settings.kek_bytes, next(iter(settings.kek_bytes)))
    async with database.transaction() as tx:
        [endpoint] = (await actions.queries.find_endpoints(tx, [(merchant.book_id, _id(made))])).values()
    assert actions.open_secrets(keyring, endpoint).at(utc_now()) == (made["secret"],)


def _id(made: dict[str, object]) -> object:
    return parse_public_id("whe", str(made["id"]))
