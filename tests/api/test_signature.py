"""Who is calling: every way to be refused, and that nothing but the signer's own request is let in."""

import asyncio
import base64
import hashlib
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from tests.factories.client import Client, authorization, door_of, running_app
from tests.factories.merchants import ApiKey, TestMerchant, keyring_of, make_key, make_merchant

from kameng_api.api import gate
from kameng_api.kit.clock import utc_now
from kameng_api.kit.db import Database, execute
from kameng_api.kit.signing import ED25519_SCHEME, HMAC_SCHEME, ed25519_public_key
from kameng_api.merchants import actions, queries
from kameng_api.merchants.actions import Terms
from kameng_api.settings import Settings

VECTOR_KEY_ID = "ak_test_01JD0000000000000000000001"
VECTOR_SECRET = b"sk_test_8Zc0m0bqf3oQm9m1m8m2dX2jv8bK1v3pJt6yW5rT4uA"
VECTOR_TIME = 1795350000
VECTOR_BODY = b'{"merchant_order_no":"PO-20261122-0001","sku":"mobile-cn-100","quantity":1,"target":"13800138000"}'
VECTOR_HMAC = "clPrHanEKN7puphiCPIqXozoZnGbw1jzU0DzD3zUANA="
VECTOR_ED25519 = "LWrNqjvwY27u5IS5AkaAYIKMM3UXiL4PZmNJSKZ0fWWikeOdWxebYVpe4eH4ITps1OqrwFZW7owau0jm0ScoBQ=="
VECTOR_GET = "mFasBiUi09fU9Y9plqjG5/sYIvxIw4+8v8xQRZIkMaE="
BALANCE = b"/v1/balance"


def is_problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    assert problem["code"] == code
    assert problem["status"] == status
    assert problem["request_id"] == answer.headers["request-id"]
    assert problem["type"] == f"urn:kameng:problem:{code}"
    assert problem["charged"] in ("no", "unknown") and problem["retry"] in ("never", "same_request", "after_s", "query_first")
    return problem


@pytest.fixture
async def at_vector_time(monkeypatch: pytest.MonkeyPatch) -> None:
    class Clock:
        perf_counter = staticmethod(time.perf_counter)

        @staticmethod
        def time() -> float:
            return VECTOR_TIME + 7.5

    monkeypatch.setattr(gate, "time", Clock)


async def vector_key(db: Database, settings: Settings, merchant: TestMerchant, algorithm: str) -> None:
    """The contract's key, whose id and secret nobody could have been given by chance."""
    sealed = keyring_of(settings).seal(VECTOR_SECRET, queries.secret_aad(VECTOR_KEY_ID)) if algorithm == "hmac" else None
    public = ed25519_public_key(bytes(range(32))) if algorithm == "ed25519" else None
    async with db.transaction() as tx:
        await execute(
            tx,
            "INSERT INTO api_keys (key_id, merchant_id, book_id, environment, algorithm, secret_sealed, public_key, scopes) "
            "VALUES ($1, $2, $3, 'test', $4, $5, $6, '{orders:read,catalog:read}')",
            VECTOR_KEY_ID, merchant.merchant_id, merchant.book_id, algorithm, sealed, public,
        )  # fmt: skip


def vector_header(scheme: str, signature: str, nonce: str = "b7f3c1d2e4a5968778695a4b3c2d1e0f", at: int = VECTOR_TIME) -> dict[str, str]:
    parts = f'key_id="{VECTOR_KEY_ID}",timestamp="{at}",nonce="{nonce}",signature="{signature}"'
    return {"Authorization": f"{scheme} {parts}"}


@pytest.mark.parametrize(
    ("algorithm", "scheme", "signature"), [("hmac", HMAC_SCHEME, VECTOR_HMAC), ("ed25519", ED25519_SCHEME, VECTOR_ED25519)]
)
async def test_the_vectors_of_the_contract_prove_themselves(
    app: FastAPI, database: Database, settings: Settings, merchant: TestMerchant, at_vector_time: None, algorithm: str, scheme: str,
    signature: str,
) -> None:  # fmt: skip
    await vector_key(database, settings, merchant, algorithm)
    async with Client(app) as client:
        sent = {**vector_header(scheme, signature), "Content-Type": "application/json"}
        answer = await client.send("POST", "/v1/orders", VECTOR_BODY, headers=sent)
        # The key has no orders:write: refused after the signature was found good, so the vector is proven.
        is_problem(answer, 403, "scope_missing")
        tampered = await client.send("POST", "/v1/orders", VECTOR_BODY.replace(b":1,", b":2,"), headers=sent)
        is_problem(tampered, 401, "bad_signature")


async def test_the_get_vector_proves_itself(
    app: FastAPI, database: Database, settings: Settings, merchant: TestMerchant, at_vector_time: None
) -> None:
    await vector_key(database, settings, merchant, "hmac")
    header = vector_header(HMAC_SCHEME, VECTOR_GET, "0f1e2d3c4b5a69788796a5b4c3d2e1f0", VECTOR_TIME + 1)
    async with Client(app) as client:
        answer = await client.http.get("/v1/orders?limit=20&status=succeeded&cursor=abc%3D", headers=header)
    assert answer.status_code not in (401, 403), answer.text
    assert "ratelimit" in answer.headers  # it came as far as the rate limit


async def test_ed25519_keys_read_and_write(app: FastAPI, database: Database, settings: Settings) -> None:
    holder = await make_merchant(database, settings, algorithm="ed25519")
    async with Client(app, holder.key) as client:
        assert (await client.get("/v1/balance")).status_code == 200
        assert (await client.post("/v1/test/balance", {"number": "a", "available": "5"})).status_code == 201


async def test_no_signature_is_no_entry(client: Client) -> None:
    for path in ("/v1/balance", "/v1/orders", "/v1/nowhere", "/v1/test/balance"):
        problem = is_problem(await client.get(path, signed=False), 401, "auth_missing")
        assert problem["charged"] == "no"


MALFORMED = [
    "",
    "Bearer abc",
    'KM1-HMAC-SHA256 key_id="a"',
    'KM1-HMAC-SHA1 key_id="a",timestamp="1",nonce="{n}",signature="AAAA"',
    'KM1-HMAC-SHA256 key_id="a",timestamp="01",nonce="{n}",signature="AAAA"',
    'KM1-HMAC-SHA256 key_id="a",timestamp="+1",nonce="{n}",signature="AAAA"',
    'KM1-HMAC-SHA256 key_id="a",timestamp="1.0",nonce="{n}",signature="AAAA"',
    'KM1-HMAC-SHA256 key_id="a",timestamp="NaN",nonce="{n}",signature="AAAA"',
    'KM1-HMAC-SHA256 key_id="a",timestamp="-1",nonce="{n}",signature="AAAA"',
    'KM1-HMAC-SHA256 key_id="a",timestamp="99999999999999999999",nonce="{n}",signature="AAAA"',
    'KM1-HMAC-SHA256 key_id="a",timestamp="1",nonce="short",signature="AAAA"',
    'KM1-HMAC-SHA256 key_id="a",timestamp="1",nonce="{n}{n}{n}",signature="AAAA"',
    'KM1-HMAC-SHA256 key_id="a",timestamp="1",nonce="{n}",signature="AAAA",extra="1"',
    'KM1-HMAC-SHA256 key_id="a",key_id="b",timestamp="1",nonce="{n}",signature="AAAA"',
    'KM1-HMAC-SHA256 key_id="a",key_id="b",nonce="{n}",signature="AAAA"',
    'KM1-HMAC-SHA256 key_id="a", timestamp="1",nonce="{n}",signature="AAAA"',
    "KM1-HMAC-SHA256 key_id=a,timestamp=1,nonce={n},signature=AAAA",
    'KM1-HMAC-SHA256 key_id="a",timestamp="1",nonce="{n}",signature="A*AA"',
    'KM1-HMAC-SHA256 key_id="a",timestamp="1",nonce="{n}",signature="AAB="',
    'km1-hmac-sha256 key_id="a",timestamp="1",nonce="{n}",signature="AAAA"',
    'KM1-HMAC-SHA256 key_id="a",timestamp="1",nonce="{n}",signature="' + "A" * 600 + '"',
]


async def test_a_header_not_written_as_the_contract_says_is_refused(client: Client) -> None:
    for header in MALFORMED:
        sent = {"Authorization": header.replace("{n}", "n" * 32)}
        is_problem(await client.send("GET", "/v1/balance", signed=False, headers=sent), 401, "auth_malformed")


async def test_two_authorization_headers_are_refused(app: FastAPI, client: Client, merchant: TestMerchant) -> None:
    good = authorization(merchant.key, "GET", BALANCE)
    answer = await client.http.get("/v1/balance", headers=[("Authorization", good), ("Authorization", good)])
    is_problem(answer, 401, "auth_malformed")


async def test_clocks_within_the_window_are_served(client: Client) -> None:
    for skew_s in (-299, 0, 299):
        assert (await client.get("/v1/balance", skew_s=skew_s)).status_code == 200


async def test_clocks_outside_the_window_are_told_the_time(client: Client) -> None:
    for skew_s in (-301, 302, 86_400, -86_400):
        began, answer = 0.0, None
        while answer is None or time.time() - began >= 1:  # a busy machine: meanwhile the time told has come into the window
            began = time.time()
            answer = await client.get("/v1/balance", skew_s=skew_s)
        problem = is_problem(answer, 401, "timestamp_out_of_window")
        assert abs(problem["server_time"] - time.time()) < 5


async def test_unknown_keys_are_refused(client: Client) -> None:
    for key_id in ("ak_test_01JD0000000000000000000001", "ak_live_01JD0000000000000000000001", "nonsense"):
        stranger = ApiKey(key_id, HMAC_SCHEME, b"sk_test_x")
        is_problem(await client.get("/v1/balance", key=stranger), 401, "unknown_key")


async def test_any_flipped_part_makes_the_signature_bad(app: FastAPI, merchant: TestMerchant) -> None:
    body = b'{"number":"n1","available":"5.0000"}'
    path = b"/v1/test/balance"

    async def send(client: Client, header: str, *, target: str = path.decode(), content: bytes = body) -> httpx.Response:
        sent = {"Authorization": header, "Content-Type": "application/json"}
        return await client.http.post(target, content=content, headers=sent)

    header = authorization(merchant.key, "POST", path, body)
    flipped = {
        "timestamp": header.replace('timestamp="', 'timestamp="').replace(f'"{int(time.time())}"', f'"{int(time.time()) - 1}"'),
        "nonce": header.replace('nonce="', 'nonce="x'),
        "method": authorization(merchant.key, "PUT", path, body),
        "target": authorization(merchant.key, "POST", b"/v1/test/signature", body),
        "query": authorization(merchant.key, "POST", path + b"?a=1", body),
        "body": authorization(merchant.key, "POST", path, body + b" "),
        "secret": authorization(ApiKey(merchant.key.key_id, HMAC_SCHEME, merchant.key.key + b"x"), "POST", path, body),
        "scheme": authorization(merchant.key, "POST", path, body).replace(HMAC_SCHEME, ED25519_SCHEME),
    }
    async with Client(app) as client:
        for part, wrong in flipped.items():
            answer = await send(client, wrong)
            assert answer.json()["code"] == "bad_signature", (part, answer.text)
        is_problem(await send(client, header, content=body.replace(b"5.", b"6.")), 401, "bad_signature")
        assert (await send(client, header)).status_code == 201


async def test_a_public_key_is_no_hmac_secret(app: FastAPI, database: Database, settings: Settings) -> None:
    """Algorithm confusion: who knows a public key must not be able to sign with it."""
    holder = await make_merchant(database, settings, algorithm="ed25519")
    public = ed25519_public_key(holder.key.key)
    async with Client(app) as client:
        for secret in (public, base64.b64encode(public), public.hex().encode(), b"", hashlib.sha256(b"nobody's secret").hexdigest().encode()):
            forged = ApiKey(holder.key.key_id, HMAC_SCHEME, secret)
            is_problem(await client.get("/v1/balance", key=forged), 401, "bad_signature")
        nobody = ApiKey(holder.key.key_id, ED25519_SCHEME, hashlib.sha256(b"nobody's seed").digest())
        is_problem(await client.get("/v1/balance", key=nobody), 401, "bad_signature")


async def test_the_dummy_secret_opens_nothing(app: FastAPI, merchant: TestMerchant) -> None:
    nobody = hashlib.sha256(b"nobody's seed").digest()
    forged = ApiKey(merchant.key.key_id, ED25519_SCHEME, nobody)
    stranger = ApiKey("ak_test_01JD0000000000000000000001", ED25519_SCHEME, nobody)
    async with Client(app) as client:
        is_problem(await client.get("/v1/balance", key=forged), 401, "bad_signature")
        is_problem(await client.get("/v1/balance", key=stranger), 401, "unknown_key")


async def test_a_request_is_served_once(client: Client, merchant: TestMerchant) -> None:
    sent = {"Authorization": authorization(merchant.key, "GET", BALANCE)}
    assert (await client.http.get("/v1/balance", headers=sent)).status_code == 200
    problem = is_problem(await client.http.get("/v1/balance", headers=sent), 401, "nonce_reused")
    assert problem["retry"] == "same_request"


async def test_a_nonce_serves_once_whatever_it_signs(client: Client) -> None:
    assert (await client.get("/v1/balance", nonce="n" * 32)).status_code == 200
    is_problem(await client.get("/v1/products", nonce="n" * 32, skew_s=5), 401, "nonce_reused")


async def test_two_keys_may_use_the_same_nonce(client: Client, database: Database, settings: Settings, merchant: TestMerchant) -> None:
    other = await make_key(database, settings, merchant.merchant_id)
    assert (await client.get("/v1/balance", nonce="n" * 32)).status_code == 200
    assert (await client.get("/v1/balance", nonce="n" * 32, key=other)).status_code == 200


async def test_of_fifty_equal_requests_at_once_one_is_served(client: Client, merchant: TestMerchant) -> None:
    sent = {"Authorization": authorization(merchant.key, "GET", BALANCE)}
    answers = await asyncio.gather(*(client.http.get("/v1/balance", headers=sent) for _ in range(50)))
    assert sorted(a.status_code for a in answers) == [200] + [401] * 49
    assert {a.json()["code"] for a in answers if a.status_code == 401} == {"nonce_reused"}


async def test_a_bad_signature_does_not_burn_the_nonce(client: Client, merchant: TestMerchant) -> None:
    wrong = ApiKey(merchant.key.key_id, HMAC_SCHEME, b"sk_test_wrong")
    is_problem(await client.get("/v1/balance", key=wrong, nonce="n" * 32), 401, "bad_signature")
    assert (await client.get("/v1/balance", nonce="n" * 32)).status_code == 200


ODD_PATHS = [
    "/v1//balance", "/v1/%62alance", "/v1/balance%2Ftransactions", "/v1/./balance", "/v1/../v1/balance", "/v1/%2e%2e/v1/balance",
    "/v1/balance;a=1", "/v1/bal ance", "/v1/balance/.", "//v1/balance", "/v1/orders/%00",
]  # fmt: skip


async def test_a_path_that_can_be_read_in_two_ways_is_refused(app: FastAPI, merchant: TestMerchant) -> None:
    """Sent as raw ASGI, because clients tidy paths up."""
    for path in ODD_PATHS:
        status, answer = await raw_asgi(app, path.encode(), authorization(merchant.key, "GET", path.encode()))
        assert (status, answer["code"]) == (400, "path_not_canonical")


async def raw_asgi(app: FastAPI, raw_path: bytes, header: str, *, method: str = "GET", path: str | None = None) -> tuple[int, Any]:
    received: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        received.append(message)

    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http", "raw_path": raw_path,
        "path": path or raw_path.decode("latin-1"), "query_string": b"", "headers": [(b"authorization", header.encode())],
        "client": ("127.0.0.1", 1), "server": ("kameng.test", 80), "root_path": "",
    }  # fmt: skip
    await app(scope, receive, send)
    return received[0]["status"], httpx.Response(200, content=b"".join(m.get("body", b"") for m in received[1:])).json()


async def test_a_line_feed_cannot_be_injected(app: FastAPI, merchant: TestMerchant) -> None:
    """A method that carries a line feed would shift the lines of the signed text."""
    header = authorization(merchant.key, "GET", b"/v1/orders")
    status, answer = await raw_asgi(app, b"/v1/orders", header, method="GET\n/v1/balance")
    assert status in (400, 401) and answer["code"] in ("bad_signature", "auth_malformed")


async def test_a_key_without_the_scope_is_refused(client: Client, database: Database, settings: Settings, merchant: TestMerchant) -> None:
    narrow = await make_key(database, settings, merchant.merchant_id, scopes=["catalog:read"])
    problem = is_problem(await client.get("/v1/balance", key=narrow), 403, "scope_missing")
    assert problem["scope"] == "balance:read"
    assert (await client.get("/v1/products", key=narrow)).status_code == 200
    is_problem(await client.post("/v1/orders", {}, key=narrow), 403, "scope_missing")


async def test_keys_are_valid_only_in_their_time(client: Client, database: Database, settings: Settings, merchant: TestMerchant) -> None:
    now = utc_now()
    early = Terms(not_before=now + timedelta(hours=1))
    late = Terms(expires_at=now - timedelta(seconds=1))
    fits = Terms(not_before=now - timedelta(hours=1), expires_at=now + timedelta(hours=1))
    for terms in (early, late):
        key = await make_key(database, settings, merchant.merchant_id, terms=terms)
        is_problem(await client.get("/v1/balance", key=key), 401, "key_expired")
    key = await make_key(database, settings, merchant.merchant_id, terms=fits)
    assert (await client.get("/v1/balance", key=key)).status_code == 200


async def test_a_revoked_key_is_dead_within_five_seconds(client: Client, database: Database, merchant: TestMerchant) -> None:
    assert (await client.get("/v1/balance")).status_code == 200
    async with database.transaction() as tx:
        await actions.revoke_key(tx, merchant.key.key_id)
    deadline = time.monotonic() + 5
    while (answer := await client.get("/v1/balance")).status_code == 200:
        assert time.monotonic() < deadline, "still alive after 5 s"
        await asyncio.sleep(0.1)
    is_problem(answer, 401, "key_expired")


async def test_keys_are_not_trusted_longer_than_their_copy_is_good(app: FastAPI, client: Client, database: Database) -> None:
    """The background reading may stall: a copy that was not renewed is not used."""
    assert (await client.get("/v1/balance")).status_code == 200
    keys = door_of(app).keys
    await keys.stop()
    assert client.key is not None
    async with database.transaction() as tx:
        await actions.revoke_key(tx, client.key.key_id)
    await asyncio.sleep(3.1)
    is_problem(await client.get("/v1/balance"), 401, "key_expired")


async def test_a_rotated_key_serves_beside_the_old_one(
    client: Client, database: Database, settings: Settings, merchant: TestMerchant
) -> None:
    async with database.transaction() as tx:
        new = await actions.rotate_key(tx, keyring_of(settings), merchant.key.key_id)
    assert new.secret is not None and new.secret.startswith("sk_test_") and len(new.secret) == len("sk_test_") + 43
    second = ApiKey(new.key.key_id, HMAC_SCHEME, new.secret.encode())
    assert (await client.get("/v1/balance")).status_code == 200
    assert (await client.get("/v1/balance", key=second)).status_code == 200


async def test_a_suspended_merchant_is_refused(client: Client, database: Database, merchant: TestMerchant) -> None:
    async with database.transaction() as tx:
        await actions.suspend(tx, merchant.merchant_id)
    is_problem(await client.get("/v1/balance"), 403, "merchant_suspended")
    async with database.transaction() as tx:
        await actions.resume(tx, merchant.merchant_id)
    await asyncio.sleep(3.1)
    assert (await client.get("/v1/balance")).status_code == 200


async def test_last_use_is_written_in_batches(app: FastAPI, client: Client, database: Database, merchant: TestMerchant) -> None:
    before = utc_now()
    await client.get("/v1/balance")
    await door_of(app).keys.write_uses()
    async with database.transaction() as tx:
        key = await queries.get_key(tx, merchant.key.key_id)
    assert key.last_used_at is not None and before - timedelta(seconds=1) < key.last_used_at <= utc_now()


@pytest.fixture
async def fenced(database: Database, settings: Settings, merchant: TestMerchant) -> ApiKey:
    """A key that may only be used from one network."""
    return await make_key(database, settings, merchant.merchant_id, terms=Terms(cidrs=["203.0.113.0/24", "2001:db8::/32"]))


@pytest.fixture
async def behind_proxy(settings: Settings, app: FastAPI) -> AsyncIterator[FastAPI]:
    """The same servers, and 10.0.0.0/8 is our own."""
    fields = settings.model_dump() | {"trusted_proxies": "10.0.0.0/8"}
    async with running_app(Settings(_env_file=None, **fields)) as running:
        yield running


async def test_the_allowlist_knows_the_socket_and_not_the_header(app: FastAPI, fenced: ApiKey) -> None:
    async with Client(app, fenced, peer="203.0.113.9") as inside:
        assert (await inside.get("/v1/balance")).status_code == 200
    async with Client(app, fenced, peer="::ffff:203.0.113.9") as mapped:
        assert (await mapped.get("/v1/balance")).status_code == 200
    async with Client(app, fenced, peer="2001:db8::1") as six:
        assert (await six.get("/v1/balance")).status_code == 200
    async with Client(app, fenced, peer="198.51.100.7") as outside:
        problem = is_problem(await outside.get("/v1/balance", headers={"X-Forwarded-For": "203.0.113.9"}), 403, "ip_not_allowed")
        assert problem["address"] == "198.51.100.7"
    async with Client(app, fenced, peer="127.0.0.1") as sidecar:
        is_problem(await sidecar.get("/v1/balance", headers={"X-Forwarded-For": "203.0.113.9"}), 403, "ip_not_allowed")


async def test_a_trusted_proxy_names_the_caller_and_only_the_nearest_counts(behind_proxy: FastAPI, fenced: ApiKey) -> None:
    async with Client(behind_proxy, fenced, peer="10.0.0.1") as proxied:
        assert (await proxied.get("/v1/balance", headers={"X-Forwarded-For": "1.2.3.4, 203.0.113.9"})).status_code == 200
        assert (await proxied.get("/v1/balance", headers={"X-Forwarded-For": "203.0.113.9, 10.0.0.7"})).status_code == 200
        for spoofed in ("203.0.113.9, 198.51.100.7", "203.0.113.9, garbage", "garbage", ""):
            answer = await proxied.get("/v1/balance", headers={"X-Forwarded-For": spoofed})
            is_problem(answer, 403, "ip_not_allowed")
    async with Client(behind_proxy, fenced, peer="198.51.100.7") as direct:
        answer = await direct.get("/v1/balance", headers={"X-Forwarded-For": "203.0.113.9"})
        is_problem(answer, 403, "ip_not_allowed")


async def test_a_test_key_cannot_be_made_to_read_live_books(
    client: Client, database: Database, settings: Settings, merchant: TestMerchant
) -> None:
    live = await make_key(database, settings, merchant.merchant_id, "live")
    assert (await client.get("/v1/balance")).json()["available"] == "10000.0000"
    assert (await client.get("/v1/balance", key=live)).json()["available"] == "0.0000"
