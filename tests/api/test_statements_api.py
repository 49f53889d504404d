"""A merchant fetches its own day, whole and provable; a stopped book is told as one."""

import base64
import hashlib
from datetime import timedelta

import asyncpg
import pytest
from fastapi import FastAPI
from sqlalchemy.engine import make_url
from tests.api.test_signature import is_problem
from tests.factories.client import Client
from tests.factories.counter import Counter
from tests.factories.merchants import TestMerchant, keyring_of, make_key, make_merchant
from tests.rooms.test_statements import run, today

from kameng_api.api import statements as door
from kameng_api.embedded.servers import Servers
from kameng_api.jobs.stops import stop
from kameng_api.kit.db import Database
from kameng_api.ledger.queries import Breach
from kameng_api.settings import Settings
from kameng_api.statements import rules


@pytest.fixture
async def days(database: Database, settings: Settings, migrated: Servers, merchant: TestMerchant) -> tuple[str, str]:
    """The merchant's two finished days."""
    owner = await asyncpg.connect(make_url(migrated.owner_url).set(drivername="postgresql").render_as_string(hide_password=False))
    await owner.execute("UPDATE merchants SET created_at = now() - interval '2 days'")
    await owner.execute("UPDATE transfers SET created_at = now() - interval '2 days'")
    await owner.close()
    counter = Counter(database, keyring_of(settings), merchant.book_id, merchant.merchant_id)
    assert await run(counter, settings) == 4
    return (today() - timedelta(days=2)).isoformat(), (today() - timedelta(days=1)).isoformat()


async def test_the_list_chains_and_pages(client: Client, days: tuple[str, str]) -> None:
    page = (await client.get("/v1/statements?limit=1")).json()
    older = (await client.get(f"/v1/statements?limit=1&cursor={page['next_cursor']}")).json()
    assert [page["items"][0]["date"], older["items"][0]["date"]] == [days[1], days[0]]
    assert older["items"][0]["closing"] == page["items"][0]["opening"] == "10000.0000"
    assert older["next_cursor"] is None


@pytest.mark.parametrize("format_", rules.FORMATS)
async def test_a_file_comes_with_its_proof(client: Client, days: tuple[str, str], format_: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "_PIECES_AT_ONCE", 1)
    answer = await client.get(f"/v1/statements/{days[0]}?format={format_}")
    assert answer.status_code == 200 and answer.headers["content-type"] == rules.MEDIA_TYPES[format_]
    manifest = base64.b64decode(answer.headers["kameng-statement-manifest"])
    parts = dict(part.split("=", 1) for part in answer.headers["kameng-statement-signature"].split(","))
    [key] = [k for k in (await client.get("/keys", signed=False)).json()["keys"] if k["key_id"] == parts["key_id"].strip('"')]
    content = rules.check_signature(manifest, base64.b64decode(parts["signature"].strip('"')), base64.b64decode(key["public_key"]))
    assert rules.check_file(content, hashlib.sha256(answer.content).hexdigest(), len(answer.content)) == format_
    digest = base64.b64encode(hashlib.sha256(answer.content).digest()).decode()
    assert answer.headers["content-digest"] == f"sha-256=:{digest}:"


async def test_the_manifest_alone(client: Client, days: tuple[str, str]) -> None:
    sealed = (await client.get(f"/v1/statements/{days[0]}?format=manifest")).json()
    assert sealed["content"]["closing"] == "10000.0000" and sealed["algorithm"] == "ed25519"


async def test_not_yet_never_and_nonsense_are_told_apart(client: Client, days: tuple[str, str]) -> None:
    problem = is_problem(await client.get(f"/v1/statements/{today().isoformat()}"), 409, "statement_not_ready")
    assert (problem["retry"], problem["charged"]) == ("after_s", "no")
    is_problem(await client.get("/v1/statements/2020-01-01"), 404, "not_found")
    is_problem(await client.get(f"/v1/statements/{days[0]}?currency=USD"), 404, "not_found")
    for wrong in ("2026-13-40", "yesterday", "1795350000"):
        is_problem(await client.get(f"/v1/statements/{wrong}"), 422, "validation_failed")
    is_problem(await client.get(f"/v1/statements/{days[0]}?format=pdf"), 422, "validation_failed")


async def test_others_see_their_own_days_only(
    client: Client, database: Database, settings: Settings, merchant: TestMerchant, days: tuple[str, str]
) -> None:
    other = await make_merchant(database, settings)
    is_problem(await client.get(f"/v1/statements/{days[0]}", key=other.key), 404, "not_found")
    assert (await client.get("/v1/statements", key=other.key)).json()["items"] == []
    live = await make_key(database, settings, merchant.merchant_id, "live")
    assert (await client.get(f"/v1/statements/{days[0]}", key=live)).json()["closing"] == "0.0000"


async def test_a_stopped_book_is_told_and_nothing_is_stored(app: FastAPI, client: Client, database: Database, merchant: TestMerchant) -> None:
    async with database.transaction() as tx:
        await stop(tx, [Breach("chain", merchant.book_id, "made up")])
    answer = await client.post("/v1/test/balance", {"number": "n", "available": "1"})
    problem = is_problem(answer, 503, "books_stopped")
    assert (problem["charged"], problem["retry"], answer.headers["retry-after"]) == ("no", "after_s", "60")
    assert (await client.get("/v1/balance")).json()["available"] == "10000.0000"
