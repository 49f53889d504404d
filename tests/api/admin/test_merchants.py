"""Merchants and their keys, as operators make them; and merchants really let in by them."""

import base64

import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fastapi import FastAPI
from tests.api.admin.conftest import Operator, ok
from tests.factories.client import Client
from tests.factories.merchants import ApiKey

from kameng_api.kit.db import Database, fetch
from kameng_api.kit.ids import new_ulid
from kameng_api.kit.signing import ED25519_SCHEME, HMAC_SCHEME


async def make(admin: Operator, name: str = "shop") -> str:
    return str((await ok(await admin.post("/merchants", json={"name": name}), 201))["id"])


async def test_a_merchant_made_here_can_call(admin: Operator, app: FastAPI) -> None:
    shop = await make(admin)
    made = await ok(await admin.post(f"/merchants/{shop}/keys", json={"environment": "test"}), 201)
    funding = {"environment": "test", "channel": "play", "external_id": "P-1", "amount": "12.5"}
    await ok(await admin.post(f"/merchants/{shop}/fundings", json=funding), 201)
    async with Client(app, ApiKey(made["key_id"], HMAC_SCHEME, made["secret"].encode())) as merchant:
        assert (await ok(await merchant.get("/v1/balance")))["available"] == "12.5000"


async def test_an_ed25519_key_made_here_can_call(admin: Operator, app: FastAPI) -> None:
    shop = await make(admin)
    seed = bytes(range(32))
    public = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
    wanted = {"environment": "live", "algorithm": "ed25519", "public_key": base64.b64encode(public).decode()}
    made = await ok(await admin.post(f"/merchants/{shop}/keys", json=wanted), 201)
    assert made["secret"] is None
    async with Client(app, ApiKey(made["key_id"], ED25519_SCHEME, seed)) as merchant:
        await ok(await merchant.get("/v1/balance"))


async def test_secrets_are_shown_once(admin: Operator, database: Database) -> None:
    shop = await make(admin)
    key = await ok(await admin.post(f"/merchants/{shop}/keys", json={"environment": "live"}), 201)
    rotated = await ok(await admin.post(f"/keys/{key['key_id']}/rotate", json={}), 201)
    delivery = await ok(await admin.post(f"/merchants/{shop}/delivery-keys", json={"environment": "live"}), 201)
    hook = await ok(await admin.post(f"/merchants/{shop}/webhook-secret", json={"environment": "live"}), 201)
    renewed = await ok(await admin.post(f"/merchants/{shop}/webhook-secret", json={"environment": "live"}), 201)
    assert len(delivery["key"].encode()) == 32
    secrets = (key["secret"], rotated["secret"], delivery["key"], hook["secret"], renewed["secret"])
    assert len(set(secrets)) == 5
    for path in (f"/merchants/{shop}", f"/merchants/{shop}/keys", f"/merchants/{shop}/delivery-keys", "/audit"):
        text = (await admin.get(path)).text
        assert not any(secret in text for secret in secrets), path
    assert len((await ok(await admin.get(f"/merchants/{shop}/keys")))["items"]) == 2
    async with database.transaction() as tx:
        rows = await fetch(
            tx, "SELECT k::text AS row FROM api_keys k UNION ALL SELECT d::text FROM delivery_keys d UNION ALL SELECT n::text FROM notify_secrets n"
        )
    for secret in secrets:
        assert not any(secret in r["row"] or secret.encode().hex() in r["row"] for r in rows)


async def test_keys_are_revoked(admin: Operator) -> None:
    shop = await make(admin)
    key = await ok(await admin.post(f"/merchants/{shop}/keys", json={"environment": "live"}), 201)
    gone = await ok(await admin.post(f"/keys/{key['key_id']}/revoke"))
    again = await ok(await admin.post(f"/keys/{key['key_id']}/revoke"))
    assert gone["revoked_at"] == again["revoked_at"] is not None
    assert (await admin.post(f"/keys/{key['key_id']}/rotate", json={})).status_code == 404


@pytest.mark.parametrize(
    ("wanted", "pointer"),
    [
        ({"environment": "beta"}, "/environment"),
        ({"environment": "live", "scopes": ["everything"]}, "/scopes/0"),
        ({"environment": "live", "cidrs": ["10.0.0.1/8"]}, "/cidrs/0"),
        ({"environment": "live", "algorithm": "ed25519"}, "/public_key"),
        ({"environment": "live", "algorithm": "ed25519", "public_key": "!"}, "/public_key"),
        ({"environment": "live", "public_key": "AAAA"}, "/public_key"),
        ({"environment": "live", "expires_at": 1}, "/expires_at"),
        ({"environment": "live", "expires_at": "2026-11-22T12:00:00"}, "/expires_at"),
        ({"environment": "live", "writes_per_s": "5"}, "/writes_per_s"),
    ],
)
async def test_wrong_keys_are_refused(admin: Operator, wanted: dict[str, object], pointer: str) -> None:
    shop = await make(admin)
    answer = await admin.post(f"/merchants/{shop}/keys", json=wanted)
    assert answer.status_code == 422, answer.text
    assert [e["pointer"] for e in answer.json()["errors"]] == [pointer]
    assert (await ok(await admin.get(f"/merchants/{shop}/keys")))["items"] == []


async def test_a_suspended_merchant_is_refused_and_let_in_again(admin: Operator) -> None:
    shop = await make(admin)
    assert (await ok(await admin.post(f"/merchants/{shop}/suspend")))["status"] == "suspended"
    assert (await ok(await admin.post(f"/merchants/{shop}/resume")))["status"] == "active"
    assert (await ok(await admin.put(f"/merchants/{shop}/level", json={"level": "gold"})))["level"] == "gold"
    assert (await admin.put(f"/merchants/{shop}/level", json={"level": "NO!"})).status_code == 422
    nobody = f"/merchants/mer_{'0' * 26}"
    assert (await admin.post(f"{nobody}/suspend")).status_code == 404
    entries = (await ok(await admin.get(f"/audit?subject={shop}")))["items"]
    assert [e["action"] for e in entries] == [
        "merchant.level_set", "merchant.resumed", "merchant.suspended", "merchant.created",
    ]  # fmt: skip
    assert all(e["request_id"].startswith("req_") and e["actor"] == "admin" for e in entries)


async def test_names_are_unique(admin: Operator) -> None:
    await make(admin)
    answer = await admin.post("/merchants", json={"name": "shop"})
    assert (answer.status_code, answer.json()["code"]) == (409, "state_conflict")


async def test_lists_are_paged_without_a_gap(admin: Operator) -> None:
    made = [await make(admin, f"shop {n}") for n in range(7)]
    seen: list[str] = []
    query = "?limit=3"
    while query:
        page = await ok(await admin.get(f"/merchants{query}"))
        seen += [m["id"] for m in page["items"]]
        query = f"?limit=3&cursor={page['next_cursor']}" if page["next_cursor"] else ""
    assert seen == made
    cursor = (await ok(await admin.get("/merchants?limit=3")))["next_cursor"]
    assert (await admin.get(f"/audit?cursor={cursor}")).json()["code"] == "cursor_invalid"


async def test_webhook_endpoints_are_listed_and_enabled(admin: Operator, database: Database) -> None:
    shop = await make(admin)
    endpoint_id = new_ulid()
    async with database.transaction() as tx:
        [book] = await fetch(tx, "SELECT book_id FROM books WHERE merchant_id IS NOT NULL AND environment = 'live'")
        await fetch(
            tx,
            """INSERT INTO webhook_endpoints (book_id, endpoint_id, url, secret_sealed, status, status_reason)
            VALUES ($1, $2, 'https://shop.example/hook', $3, 'disabled', 'no success for 5 days')""",
            book["book_id"], endpoint_id, b"sealed-secret",
        )  # fmt: skip
    [shown] = (await ok(await admin.get(f"/merchants/{shop}/webhook-endpoints")))["items"]
    assert (shown["status"], shown["status_reason"]) == ("disabled", "no success for 5 days")
    assert "sealed" not in orjson.dumps(shown).decode()
    path = f"/merchants/{shop}/webhook-endpoints/{shown['id']}/enable"
    assert (await ok(await admin.post(path, json={"environment": "live"})))["status"] == "enabled"
    assert (await admin.post(path, json={"environment": "test"})).status_code == 404
