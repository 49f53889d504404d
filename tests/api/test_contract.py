"""The contract through HTTP, signed: every error code, every row of the idempotency table, every strictness."""

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from fastapi import FastAPI
from tests.api.test_signature import is_problem
from tests.factories.client import Client
from tests.factories.counter import Counter
from tests.factories.merchants import TestMerchant, keyring_of, make_key, make_merchant
from tests.factories.shop import PHONE, stock_the_shop

from kameng_api.api import problems
from kameng_api.catalog import actions as catalog
from kameng_api.catalog import queries as catalog_queries
from kameng_api.kit.clock import utc_now
from kameng_api.kit.db import Database, execute, fetch
from kameng_api.kit.ids import new_ulid, parse_public_id, public_id
from kameng_api.merchants import actions as merchants
from kameng_api.merchants.actions import Terms
from kameng_api.orders.choices import Surroundings
from kameng_api.settings import Settings
from kameng_api.suppliers.port import Code, Delivered, RefusalReason, Refused, Scope

SECRETS = {"sim-a": "secret-of-sim-a-only-for-tests", "sim-b": "secret-of-sim-b-only-for-tests"}
NOWHERE = "http://127.0.0.1:9"


@dataclass
class House:
    """The app with a shop behind it; what suppliers answer is told by the test."""

    client: Client
    merchant: TestMerchant
    counter: Counter
    db: Database
    settings: Settings
    app: FastAPI

    async def order(self, no: str = "PO-1", **more: Any) -> httpx.Response:
        return await self.client.post("/v1/orders", body(no, **more))

    async def placed(self, no: str = "PO-1", **more: Any) -> dict[str, Any]:
        answer = await self.order(no, **more)
        assert answer.status_code == 201, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def sent(self, no: str = "PO-1", **more: Any) -> dict[str, Any]:
        order = await self.placed(no, **more)
        [self.submission] = await self.counter.dispatch()
        return order

    async def delivered(self, no: str = "PO-1", **more: Any) -> dict[str, Any]:
        order = await self.sent(no, **more)
        units = order["quantity"]
        codes = tuple(Code(f"TEST-{no}-{n}", str(n)) for n in range(units)) if order["product_type"] == "card" else ()
        await self.counter.told(self.submission, Delivered(units, codes=codes, receipt="RCPT-1"))
        return (await self.client.get(f"/v1/orders/{order['id']}")).json()  # type: ignore[no-any-return]


def body(no: str = "PO-1", **more: Any) -> dict[str, Any]:
    values = {"merchant_order_no": no, "sku": "mobile-cn-100", "target": PHONE} | more
    return {k: v for k, v in values.items() if v is not ...}


@pytest.fixture
async def goods(database: Database, settings: Settings) -> None:
    await stock_the_shop(database, settings, NOWHERE, SECRETS)


@pytest.fixture
async def house(app: FastAPI, client: Client, merchant: TestMerchant, database: Database, settings: Settings) -> House:
    async with database.transaction() as tx:
        around = Surroundings(await catalog_queries.load_snapshot(tx))
    counter = Counter(database, keyring_of(settings), merchant.book_id, merchant.merchant_id, around)
    return House(client, merchant, counter, database, settings, app)


# ---- every code ----------------------------------------------------------------------------------------------------


Make = Callable[[House], Awaitable[httpx.Response]]
CODES: dict[str, Make] = {}


def code(name: str) -> Callable[[Make], Make]:
    def keep(make: Make) -> Make:
        CODES[name] = make
        return make

    return keep


@code("malformed_json")
async def _(house: House) -> httpx.Response:
    return await house.client.post("/v1/orders", b'{"merchant_order_no":"A","merchant_order_no":"B"}')


@code("path_not_canonical")
async def _(house: House) -> httpx.Response:
    return await house.client.get("/v1/%6frders")


@code("cursor_invalid")
async def _(house: House) -> httpx.Response:
    return await house.client.get("/v1/orders?cursor=abc")


@code("auth_missing")
async def _(house: House) -> httpx.Response:
    return await house.client.get("/v1/orders", signed=False)


@code("auth_malformed")
async def _(house: House) -> httpx.Response:
    return await house.client.get("/v1/orders", signed=False, headers={"Authorization": "KM1-HMAC-SHA256 key_id=x"})


@code("unknown_key")
async def _(house: House) -> httpx.Response:
    return await house.client.get("/v1/orders", key=replace(house.merchant.key, key_id=f"ak_test_{public_id('x', new_ulid())[2:]}"))


@code("key_expired")
async def _(house: House) -> httpx.Response:
    key = await make_key(house.db, house.settings, house.merchant.merchant_id)
    async with house.db.transaction() as tx:
        await merchants.revoke_key(tx, key.key_id)
    return await house.client.get("/v1/orders", key=key)


@code("bad_signature")
async def _(house: House) -> httpx.Response:
    return await house.client.get("/v1/orders", key=replace(house.merchant.key, key=b"another"))


@code("timestamp_out_of_window")
async def _(house: House) -> httpx.Response:
    return await house.client.get("/v1/orders", skew_s=-400)


@code("nonce_reused")
async def _(house: House) -> httpx.Response:
    await house.client.get("/v1/orders", nonce="n" * 20)
    return await house.client.get("/v1/orders", nonce="n" * 20)


@code("insufficient_balance")
async def _(house: House) -> httpx.Response:
    await house.placed("PO-0", quantity=90)
    return await house.order(quantity=90)


@code("ip_not_allowed")
async def _(house: House) -> httpx.Response:
    key = await make_key(house.db, house.settings, house.merchant.merchant_id, terms=Terms(cidrs=["10.0.0.0/8"]))
    return await house.client.get("/v1/orders", key=key)


@code("scope_missing")
async def _(house: House) -> httpx.Response:
    key = await make_key(house.db, house.settings, house.merchant.merchant_id, scopes=["orders:read"])
    return await house.client.post("/v1/orders", body(), key=key)


@code("merchant_suspended")
async def _(house: House) -> httpx.Response:
    other = await make_merchant(house.db, house.settings)
    async with house.db.transaction() as tx:
        await merchants.suspend(tx, other.merchant_id)
    return await house.client.post("/v1/orders", body(), key=other.key)


@code("product_not_authorised")
async def _(house: House) -> httpx.Response:
    other = await make_merchant(house.db, house.settings)
    async with house.db.transaction() as tx:
        await catalog.set_grants(tx, "mobile-cn-100", [other.merchant_id])
    await house.app.state.door.catalog.refresh()
    return await house.order()


@code("not_found")
async def _(house: House) -> httpx.Response:
    return await house.client.get(f"/v1/orders/{public_id('ord', new_ulid())}")


@code("merchant_order_no_conflict")
async def _(house: House) -> httpx.Response:
    await house.placed()
    return await house.order(quantity=2)


@code("state_conflict")
async def _(house: House) -> httpx.Response:
    order = await house.sent()
    return await house.client.post(f"/v1/orders/{order['id']}/cancel")


@code("body_too_large")
async def _(house: House) -> httpx.Response:
    return await house.client.post("/v1/orders", b" " * 1_000_001)


@code("unsupported_media_type")
async def _(house: House) -> httpx.Response:
    return await house.client.post("/v1/orders", b"a=b", headers={"Content-Type": "application/x-www-form-urlencoded"})


@code("validation_failed")
async def _(house: House) -> httpx.Response:
    return await house.order(quantity=0)


@code("product_unavailable")
async def _(house: House) -> httpx.Response:
    return await house.order(sku="nothing-like-it")


@code("price_changed")
async def _(house: House) -> httpx.Response:
    return await house.order(max_unit_price="98.4999")


@code("target_not_supported")
async def _(house: House) -> httpx.Response:
    return await house.order(target="12345")


@code("out_of_stock")
async def _(house: House) -> httpx.Response:
    return await house.order(sku="test-out-of-stock", target=...)


@code("duplicate_target")
async def _(house: House) -> httpx.Response:
    await house.placed(sku="mobile-cn-50")
    return await house.order("PO-2", sku="mobile-cn-50")


@code("test_value_in_live")
async def _(house: House) -> httpx.Response:
    live = await make_key(house.db, house.settings, house.merchant.merchant_id, "live")
    return await house.client.post("/v1/orders", body(target="10000000001"), key=live)


@code("rate_limited")
async def _(house: House) -> httpx.Response:
    key = await make_key(house.db, house.settings, house.merchant.merchant_id, terms=Terms(scopes=["orders:write"], writes_per_s=1))
    answers = [await house.client.post("/v1/orders", body(f"PO-{n}"), key=key) for n in range(8)]
    return next(a for a in answers if a.status_code == 429)


@code("internal")
async def _(house: House) -> httpx.Response:
    order = await house.placed()
    async with house.db.transaction() as tx:
        await execute(tx, "UPDATE orders SET target_sealed = 'x'")
    return await house.client.get(f"/v1/orders/{order['id']}")


@code("unavailable")
async def _(house: House) -> httpx.Response:
    """The redis-less write and the cut database have tests of their own; here the operator's servers cannot be reached at all."""
    await house.app.state.door.db.close()
    address = house.app.state.door.db.engine.url.set(host="127.0.0.1", port=9, query={})
    house.app.state.door.db = Database(address.render_as_string(hide_password=False), pool_size=2)
    return await house.order()


ON_CONTRACT = [
    "malformed_json", "path_not_canonical", "cursor_invalid", "auth_missing", "auth_malformed", "unknown_key", "key_expired", "bad_signature",
    "timestamp_out_of_window", "nonce_reused", "insufficient_balance", "ip_not_allowed", "scope_missing", "merchant_suspended",
    "product_not_authorised", "not_found", "merchant_order_no_conflict", "state_conflict", "body_too_large", "unsupported_media_type",
    "validation_failed", "product_unavailable", "price_changed", "target_not_supported", "out_of_stock", "duplicate_target",
    "test_value_in_live", "rate_limited", "unavailable", "internal",
]  # fmt: skip


def test_every_code_of_the_contract_is_reached() -> None:
    assert sorted(CODES) == sorted(ON_CONTRACT)


@pytest.mark.parametrize("name", ON_CONTRACT)
async def test_a_refusal_says_its_code_and_changes_nothing(house: House, name: str) -> None:
    answer = await CODES[name](house)
    problem = is_problem(answer, problems.CODES[name].status, name)
    assert set(problem) >= {"type", "title", "status", "detail", "instance", "code", "request_id", "charged", "retry"}
    reading = answer.request.method == "GET"
    assert problem["charged"] == ("no" if reading else problems.CODES[name].charged)
    text = answer.text
    assert PHONE not in text and "Traceback" not in text and "SELECT" not in text
    async with house.db.transaction() as tx:
        orders = await fetch(tx, "SELECT merchant_order_no FROM orders")
        holds = await fetch(tx, "SELECT event_key FROM transfers WHERE kind = 'hold'")
    assert len(orders) == len(holds)
    extras = {
        "timestamp_out_of_window": "server_time",
        "merchant_order_no_conflict": "existing_order_id",
        "price_changed": "unit_price",
        "validation_failed": "errors",
    }
    assert name not in extras or extras[name] in problem
    assert name not in ("rate_limited", "unavailable") or int(answer.headers["retry-after"]) >= 1


# ---- safe to repeat ------------------------------------------------------------------------------------------------


async def test_first_time_201_again_200_the_order_as_it_is_now(house: House) -> None:
    first = await house.order(metadata={"a": 1, "b": None}, max_unit_price="98.5")
    assert first.status_code == 201 and "idempotent-replayed" not in first.headers
    order = first.json()
    assert first.headers["location"] == f"/v1/orders/{order['id']}"
    assert (order["status"], order["version"], order["unit_price"], order["amount"]) == ("accepted", 1, "98.5000", "98.5000")
    [submission] = await house.counter.dispatch()
    await house.counter.told(submission, Delivered(1, receipt="R-9"))
    # Other key order, other spelling of the same amount, explicit defaults: the same content.
    again = await house.client.post(
        "/v1/orders", b'{ "target":"%s","quantity":1,"max_unit_price":"98.5000","metadata":{"b":null,"a":1},"sku":"mobile-cn-100",'
        b'"merchant_order_no":"PO-1","fields":{},"confirm_duplicate":false}' % PHONE.encode(),
    )  # fmt: skip
    assert (again.status_code, again.headers["idempotent-replayed"]) == (200, "true")
    assert (again.json()["id"], again.json()["status"]) == (order["id"], "succeeded")
    assert again.json()["delivery"]["receipt"] == "R-9"


async def test_the_same_number_in_parallel_is_one_order(house: House) -> None:
    answers = await asyncio.gather(*(house.order() for _ in range(30)))
    assert sorted(a.status_code for a in answers) == [200] * 29 + [201]
    assert len({a.json()["id"] for a in answers}) == 1
    assert (await house.client.get("/v1/balance")).json()["held"] == "98.5000"


async def test_a_number_that_was_refused_may_be_used_again(house: House) -> None:
    is_problem(await house.order(max_unit_price="1"), 422, "price_changed")
    is_problem(await house.order(quantity=101), 422, "validation_failed")
    await house.placed()


async def test_an_existing_number_is_found_before_product_price_stock_or_balance(house: House) -> None:
    order = await house.placed(quantity=90)
    async with house.db.transaction() as tx:
        await catalog.set_product_status(tx, "mobile-cn-100", "paused")
    await house.app.state.door.catalog.refresh()
    is_problem(await house.order("PO-2"), 422, "product_unavailable")
    again = await house.order(quantity=90)
    assert (again.status_code, again.json()["id"]) == (200, order["id"])
    problem = is_problem(await house.order(quantity=89), 409, "merchant_order_no_conflict")
    assert problem["existing_order_id"] == order["id"]


async def test_numbers_are_per_book(house: House, database: Database, settings: Settings) -> None:
    other = await make_merchant(database, settings)
    order = await house.placed()
    theirs = await house.client.post("/v1/orders", body(quantity=2), key=other.key)
    assert theirs.status_code == 201 and theirs.json()["id"] != order["id"]


async def test_cancelled_again_answers_the_same(house: House) -> None:
    order = await house.placed()
    for _ in range(2):
        answer = await house.client.post(f"/v1/orders/{order['id']}/cancel")
        assert (answer.status_code, answer.json()["status"], answer.json()["version"]) == (200, "cancelled", 2)
    assert (await house.client.get("/v1/balance")).json()["available"] == "10000.0000"


async def test_validate_only_says_what_would_happen_and_nothing_happens(house: House) -> None:
    answer = await house.order(validate_only=True, quantity=2)
    assert (answer.status_code, answer.json()["valid"], answer.json()["amount"]) == (200, True, "197.0000")
    is_problem(await house.order(validate_only=True, sku="nope"), 422, "product_unavailable")
    await house.placed(quantity=2)
    replay = await house.order(validate_only=True, quantity=2)
    assert (replay.status_code, replay.headers["idempotent-replayed"]) == (200, "true")
    is_problem(await house.order(validate_only=True), 409, "merchant_order_no_conflict")
    await house.placed("PO-g", sku="mobile-cn-50")
    is_problem(await house.order("PO-h", sku="mobile-cn-50", validate_only=True), 422, "duplicate_target")
    await house.placed("PO-i", quantity=90)
    is_problem(await house.order("PO-j", quantity=90, validate_only=True), 402, "insufficient_balance")
    async with house.db.transaction() as tx:
        [row] = await fetch(tx, "SELECT count(*) AS n FROM orders")
    assert row["n"] == 3


# ---- guards --------------------------------------------------------------------------------------------------------


async def test_the_price_guard_lets_the_price_itself_pass(house: House) -> None:
    assert (await house.order(max_unit_price="98.5")).status_code == 201
    problem = is_problem(await house.order("PO-2", max_unit_price="98.4999"), 422, "price_changed")
    assert problem["unit_price"] == "98.5000"
    is_problem(await house.order("PO-3", sku="test-price-moved"), 422, "price_changed")


async def test_an_order_whose_time_is_over_fails_and_is_paid_back(house: House) -> None:
    order = await house.placed(deliver_within_s=1)
    async with house.db.transaction() as tx:
        await execute(tx, "UPDATE orders SET deadline_at = now() - interval '1 second'")
    assert await house.counter.dispatch() == []
    now = (await house.client.get(f"/v1/orders/{order['id']}")).json()
    assert (now["status"], now["failure"]["code"]) == ("failed", "deadline_passed")
    assert (await house.client.get("/v1/balance")).json()["available"] == "10000.0000"


async def test_confirming_overrides_the_duplicate_guard_and_magic_targets_are_exempt(house: House) -> None:
    await house.placed(sku="mobile-cn-50")
    assert (await house.order("PO-2", sku="mobile-cn-50", confirm_duplicate=True)).status_code == 201
    for n in range(2):
        assert (await house.order(f"PO-m{n}", sku="mobile-cn-50", target="10000000001")).status_code == 201


@pytest.mark.parametrize("n", range(1, 11))
async def test_a_magic_target_under_a_live_key_is_refused(house: House, n: int) -> None:
    live = await make_key(house.db, house.settings, house.merchant.merchant_id, "live")
    answer = await house.client.post("/v1/orders", body(target=f"100000000{n:02d}"), key=live)
    is_problem(answer, 422, "test_value_in_live")


async def test_a_failure_is_told_in_the_words_of_the_contract(house: House) -> None:
    order = await house.sent()
    await house.counter.told(house.submission, Refused(Scope.ORDER, RefusalReason.TARGET_NOT_ELIGIBLE, "their words"))
    answer = await house.client.get(f"/v1/orders/{order['id']}")
    assert answer.json()["failure"]["code"] == "target_not_eligible"
    assert "their words" not in answer.text and "sim-a" not in answer.text


# ---- strictness ----------------------------------------------------------------------------------------------------


BAD_BODIES: dict[str, bytes] = {
    "integer as text": json.dumps(body(quantity="1")).encode(),
    "integer as float": json.dumps(body(quantity=1.0)).encode(),
    "integer as bool": json.dumps(body(quantity=True)).encode(),
    "huge integer": json.dumps(body(quantity=10**30)).encode(),
    "money as number": json.dumps(body(max_unit_price=98.5)).encode(),
    "money with five places": json.dumps(body(max_unit_price="98.50001")).encode(),
    "money with a sign": json.dumps(body(max_unit_price="-1")).encode(),
    "unknown field": json.dumps(body(colour="red")).encode(),
    "null for a field": json.dumps(body(quantity=None)).encode(),
    "number with a space": json.dumps(body("PO 1")).encode(),
    "number too long": json.dumps(body("P" * 65)).encode(),
    "number with a newline": json.dumps(body("PO-1\n")).encode(),
    "no number": b'{"sku":"mobile-cn-100"}',
    "number empty": json.dumps(body("")).encode(),
    "metadata nested": json.dumps(body(metadata={"a": {"b": 1}})).encode(),
    "metadata large": json.dumps(body(metadata={"a": "x" * 9000})).encode(),
    "metadata integer beyond 64 bits": json.dumps(body(metadata={"a": 2**70})).encode(),
    "a list": b"[]",
    "a string": b'"x"',
    "null": b"null",
    "notify_url by ftp": json.dumps(body(notify_url="ftp://merchant.example/")).encode(),
    "notify_url with a password": json.dumps(body(notify_url="https://a:b@merchant.example/")).encode(),
    "deadline too long": json.dumps(body(deliver_within_s=86_401)).encode(),
    "fields not text": json.dumps(body(fields={"a": 1})).encode(),
}
MALFORMED: dict[str, bytes] = {
    "duplicate key": b'{"merchant_order_no":"A","sku":"s","sku":"s"}',
    "duplicate key deep": b'{"merchant_order_no":"A","sku":"s","metadata":{"a":1,"a":2}}',
    "duplicate key escaped": b'{"merchant_order_no":"A","sku":"s","\\u0073ku":"s"}',
    "NaN": b'{"merchant_order_no":"A","sku":"s","metadata":{"a":NaN}}',
    "too deep": b'{"metadata":' + b"[" * 25 + b"]" * 25 + b"}",
    "lone surrogate": b'{"merchant_order_no":"A","sku":"s","target":"\\ud800"}',
    "NUL": b'{"merchant_order_no":"A","sku":"s","target":"\\u0000"}',
    "not UTF-8": b'{"merchant_order_no":"A","sku":"\xff"}',
    "BOM": b"\xef\xbb\xbf{}",
    "truncated": b'{"merchant_order_no":',
    "empty": b" ",
    "two documents": b"{}{}",
}


async def test_a_body_that_could_mean_two_things_is_refused(house: House) -> None:
    for name, content in MALFORMED.items():
        answer = await house.client.post("/v1/orders", content)
        assert (answer.status_code, answer.json()["code"]) == (400, "malformed_json"), (name, answer.text)
    for name, content in BAD_BODIES.items():
        answer = await house.client.post("/v1/orders", content)
        assert answer.status_code in (400, 422), (name, answer.text)
        assert answer.json()["code"] in ("validation_failed", "malformed_json"), (name, answer.text)
    async with house.db.transaction() as tx:
        assert await fetch(tx, "SELECT 1 FROM orders") == []


BAD_QUERIES = [
    "limit=0", "limit=101", "limit=1.0", "limit=a", "limit=", "status=unknown", "created_from=yesterday", "limit=1&limit=2", "colour=red", "cursor=",
    "cursor=%00", "cursor=" + "a" * 1025, "created_from=99999-01-01T00:00:00Z",
]  # fmt: skip
ODD_TIMES = [
    "2026-11-22T00:00:00Z", "2026-11-22T00:00:00%2B08:00", "2026-11-22T00:00:00", "2026-11-22", "0", "1e3", "-1", "0001-01-01T00:00:00%2B23:59",
    "9999-12-31T23:59:59-23:59", "1795350000000", "99999999999999", "nan", "inf",
]  # fmt: skip


async def test_a_query_that_is_not_understood_is_refused(house: House) -> None:
    for query in BAD_QUERIES:
        answer = await house.client.get(f"/v1/orders?{query}")
        assert answer.status_code in (400, 422), (query, answer.status_code, answer.text)


async def test_no_time_in_a_query_is_a_server_error(house: House) -> None:
    for name in ("created_from", "created_to"):
        for at in ODD_TIMES:
            answer = await house.client.get(f"/v1/orders?{name}={at}")
            assert answer.status_code in (200, 422), (name, at, answer.status_code, answer.text)


async def test_odd_ids_are_simply_not_there(house: House) -> None:
    order = await house.placed()
    plain = order["id"]
    for odd in (plain.lower(), plain[:-1], plain + "0", "ord_" + "Z" * 26, "att" + plain[3:], "ord_", "x", "0" * 64):
        for path in (f"/v1/orders/{odd}", f"/v1/orders/{odd}/timeline", f"/v1/orders/{odd}/refunds"):
            is_problem(await house.client.get(path), 404, "not_found")
        is_problem(await house.client.post(f"/v1/orders/{odd}/cancel"), 404, "not_found")


# ---- lists ---------------------------------------------------------------------------------------------------------


async def test_pages_hold_every_order_once_newest_first(house: House) -> None:
    made = [(await house.placed(f"PO-{n}"))["id"] for n in range(7)]
    seen, query = [], "limit=3"
    while True:
        page = (await house.client.get(f"/v1/orders?{query}")).json()
        seen += [o["id"] for o in page["items"]]
        if page["next_cursor"] is None:
            break
        query = f"limit=3&cursor={page['next_cursor']}"
    assert seen == made[::-1]


async def test_a_cursor_is_bound_to_its_merchant_its_filters_and_its_list(house: House, database: Database, settings: Settings) -> None:
    for n in range(3):
        await house.placed(f"PO-{n}")
    cursor = (await house.client.get("/v1/orders?limit=1")).json()["next_cursor"]
    other = await make_merchant(database, settings)
    is_problem(await house.client.get(f"/v1/orders?limit=1&cursor={cursor}", key=other.key), 400, "cursor_invalid")
    for query in (f"status=accepted&cursor={cursor}", f"created_from=2026-01-01T00:00:00Z&cursor={cursor}", f"cursor={cursor[:-2]}"):
        is_problem(await house.client.get(f"/v1/orders?{query}"), 400, "cursor_invalid")
    is_problem(await house.client.get(f"/v1/balance/transactions?cursor={cursor}"), 400, "cursor_invalid")
    assert (await house.client.get(f"/v1/orders?limit=2&cursor={cursor}")).status_code == 200


async def test_filters_select(house: House) -> None:
    first = await house.placed("PO-1")
    await house.placed("PO-2")
    await house.client.post(f"/v1/orders/{first['id']}/cancel")
    assert [o["id"] for o in (await house.client.get("/v1/orders?status=cancelled")).json()["items"]] == [first["id"]]
    ahead = (utc_now() + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert (await house.client.get(f"/v1/orders?created_from={ahead}")).json()["items"] == []
    assert len((await house.client.get(f"/v1/orders?created_to={ahead}")).json()["items"]) == 2


# ---- what is shown to whom -----------------------------------------------------------------------------------------


async def test_a_target_is_masked_unless_the_key_may_read_it(house: House) -> None:
    narrow = await make_key(house.db, house.settings, house.merchant.merchant_id, scopes=["orders:read", "orders:write"])
    created = await house.client.post("/v1/orders", body(), key=narrow)
    order_id = created.json()["id"]
    paths = (f"/v1/orders/{order_id}", "/v1/orders/by-merchant-no/PO-1", "/v1/orders")
    for path in paths:
        assert PHONE not in (await house.client.get(path, key=narrow)).text
        assert PHONE in (await house.client.get(path)).text
    assert created.json()["target"] == "138****8000"
    assert PHONE not in (await house.client.post(f"/v1/orders/{order_id}/cancel", key=narrow)).text
    assert PHONE not in (await house.client.get("/v1/events", key=narrow)).text


async def test_codes_open_with_the_delivery_key_and_each_reveal_is_written_down(house: House) -> None:
    order = await house.delivered(sku="test-card", target=..., quantity=2)
    assert (order["status"], order["codes_available"]) == ("succeeded", True)
    path = f"/v1/orders/{order['id']}/codes"
    is_problem(await house.client.get(path), 409, "state_conflict")
    async with house.db.transaction() as tx:
        made = await merchants.create_delivery_key(tx, house.counter.keyring, house.merchant.merchant_id, "test")
    answer = await house.client.get(path)
    assert answer.status_code == 200 and answer.headers["cache-control"] == "no-store"
    sealed = answer.json()
    assert sealed["algorithm"] == "AEAD_AES_256_GCM" and sealed["associated_data"] == f"order_codes:{order['id']}"
    assert "TEST-" not in answer.text
    key = made.key if isinstance(made.key, bytes) else str(made.key).encode()
    plain = AESGCM(key).decrypt(sealed["nonce"].encode(), base64.b64decode(sealed["ciphertext"]), sealed["associated_data"].encode())
    assert json.loads(plain) == [{"code": f"TEST-PO-1-{n}", "pin": str(n)} for n in range(2)]
    async with house.db.transaction() as tx:
        reveals = await fetch(tx, "SELECT order_id, key_id, count FROM code_reveals")
    assert [(r["order_id"], r["key_id"], r["count"]) for r in reveals] == [(parse_public_id("ord", order["id"]), house.merchant.key.key_id, 2)]
    for place in ("/v1/events", f"/v1/orders/{order['id']}", f"/v1/orders/{order['id']}/timeline"):
        assert "TEST-PO-1" not in (await house.client.get(place)).text
    narrow = await make_key(house.db, house.settings, house.merchant.merchant_id, scopes=["orders:read"])
    is_problem(await house.client.get(path, key=narrow), 403, "scope_missing")


async def test_an_order_without_codes_has_none_to_show(house: House) -> None:
    order = await house.delivered()
    is_problem(await house.client.get(f"/v1/orders/{order['id']}/codes"), 409, "state_conflict")


async def test_test_skus_do_not_exist_for_live_keys(house: House) -> None:
    live = await make_key(house.db, house.settings, house.merchant.merchant_id, "live")
    for sku in ("test-card", "test-out-of-stock", "test-price-moved"):
        assert (await house.client.get(f"/v1/products/{sku}")).status_code == 200
        is_problem(await house.client.get(f"/v1/products/{sku}", key=live), 404, "not_found")
        is_problem(await house.client.post("/v1/orders", body(sku=sku, target=...), key=live), 422, "product_unavailable")


async def test_an_order_read_by_number_is_the_order_read_by_id(house: House) -> None:
    order = await house.placed("A_b-9")
    assert (await house.client.get("/v1/orders/by-merchant-no/A_b-9")).json() == (await house.client.get(f"/v1/orders/{order['id']}")).json()
    is_problem(await house.client.get("/v1/orders/by-merchant-no/A_b-8"), 404, "not_found")


async def test_versions_in_events_and_orders_agree(house: House) -> None:
    order = await house.delivered()
    events = (await house.client.get("/v1/events")).json()["items"]
    told = [(e["type"], e["data"]["version"]) for e in events if e["data"]["id"] == order["id"]]
    assert [t for t, _ in told] == ["order.accepted", "order.processing", "order.succeeded"]
    assert [v for _, v in told] == sorted({v for _, v in told}) and told[-1][1] == order["version"]
    last = next(e for e in events if e["type"] == "order.succeeded")
    shown = {**last["data"]["object"], "target": order["target"]}
    assert shown == order
