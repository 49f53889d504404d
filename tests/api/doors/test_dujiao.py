"""A shop written from dujiao-next's integration document alone (2026-04-01) against the door: real app, worker, supplier and receiver."""

import asyncio
import hashlib
import hmac
import json
import time
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from tests.factories.client import door_of
from tests.factories.doors import DoorHouse, Heard
from tests.factories.shop import PHONE

from kameng_api.api.doors.dujiao import DOOR
from kameng_api.kit.db import execute, fetch
from kameng_api.kit.ids import new_ulid
from kameng_api.orders.foreign import short_of

SECRET = "test-api-secret"
KEY = "dj_test_key"
PRODUCTS = {"1": {"sku": "mobile-cn-100"}, "2": {"sku": "test-card"}, "3": {"sku": "test-out-of-stock"}, "old": {"sku": "mobile-cn-50"}}
BASE = "/api/v1/upstream"


def sign(secret: str, method: str, path: str, timestamp: int, body: bytes) -> str:
    text = f"{method}\n{path}\n{timestamp}\n{hashlib.md5(body, usedforsecurity=False).hexdigest()}"
    return hmac.new(secret.encode(), text.encode(), hashlib.sha256).hexdigest()


@dataclass
class Shop:
    """The client of the document's §9."""

    http: httpx.AsyncClient
    key: str = KEY
    secret: str = SECRET
    root: str = "/doors/dujiao"

    async def send(
        self, method: str, path: str, body: Any = None, *, skew_s: int = 0, whole_path: bool = False, signature: str | None = None
    ) -> httpx.Response:
        content = json.dumps(body).encode() if body is not None else b""
        at = int(time.time()) + skew_s
        signed_path = f"{self.root}{path}" if whole_path else path
        headers = {
            "Dujiao-Next-Api-Key": self.key,
            "Dujiao-Next-Timestamp": str(at),
            "Dujiao-Next-Signature": signature if signature is not None else sign(self.secret, method, signed_path.partition("?")[0], at, content),
            "Content-Type": "application/json",
        }
        return await self.http.request(method, f"{self.root}{path}", content=content, headers=headers)

    async def call(self, method: str, path: str, body: Any = None, *, status: int = 200) -> Any:
        answer = await self.send(method, f"{BASE}{path}", body)
        assert answer.status_code == status, answer.text
        return answer.json()

    async def order(self, number: str, sku: int = 1, quantity: int = 1, *, status: int = 200, **more: Any) -> Any:
        body = {"sku_id": sku, "quantity": quantity, "downstream_order_no": number, "trace_id": "t", **more}
        if sku == 1 and "manual_form_data" not in more:
            body["manual_form_data"] = {"target": PHONE}
        return await self.call("POST", "/orders", body, status=status)

    def told(self, heard: Heard) -> Any:
        """A callback, its signature checked over the fixed path."""
        at = int(heard.headers["dujiao-next-timestamp"])
        assert heard.headers["dujiao-next-api-key"] == self.key
        assert heard.headers["dujiao-next-signature"] == sign(self.secret, "POST", f"{BASE}/callback", at, heard.body)
        return json.loads(heard.body)


@pytest.fixture
async def shop(house: DoorHouse) -> Shop:
    await house.account("dujiao", KEY, {"api_secret": SECRET}, products=PRODUCTS, own_skus=False)
    house.receiver.reply = lambda _: (200, b'{ "ok": true, "message": "received" }')
    return Shop(house.http)


@pytest.fixture
async def quiet_shop(quiet_house: DoorHouse) -> Shop:
    await quiet_house.account("dujiao", KEY, {"api_secret": SECRET}, products=PRODUCTS, own_skus=False)
    return Shop(quiet_house.http)


async def test_cards_are_bought_queried_and_told(house: DoorHouse, shop: Shop) -> None:
    placed = await shop.order("D1", 2, 2, callback_url=f"{house.receiver.url}{BASE}/callback")
    assert placed["ok"] is True and placed["status"] == "paid" and placed["amount"] == "20.00" and placed["currency"] == "CNY"
    assert type(placed["order_id"]) is int
    await house.finished("D1")
    now = await shop.call("GET", f"/orders/{placed['order_id']}")
    assert (now["status"], now["order_no"]) == ("delivered", placed["order_no"])
    assert now["items"] == [
        {"product_id": 2, "sku_id": 2, "title": {"zh-CN": "Test card", "en": "Test card"}, "quantity": 2, "unit_price": "10.00",
         "total_price": "20.00", "fulfillment_type": "auto"}
    ]  # fmt: skip
    codes = now["fulfillment"]["payload"].splitlines()
    assert len(codes) == 2 and all(code.startswith("TEST-") for code in codes)
    [heard] = await house.receiver.wait_for(1)
    told = shop.told(heard)
    assert (told["order_id"], told["downstream_order_no"], told["status"]) == (placed["order_id"], "D1", "delivered")
    assert told["event"] == "order.fulfilled"
    assert told["fulfillment"]["payload"] == now["fulfillment"]["payload"]


async def test_a_failed_order_is_cancelled_and_the_money_is_back(house: DoorHouse, shop: Shop) -> None:
    placed = await shop.order("D2", callback_url=f"{house.receiver.url}/cb", manual_form_data={"target": "10000000002"})
    await house.finished("D2")
    assert (await shop.call("GET", f"/orders/{placed['order_id']}"))["status"] == "canceled"
    told = shop.told((await house.receiver.wait_for(1))[0])
    assert told["status"] == "canceled" and "fulfillment" not in told
    assert (await shop.call("POST", "/ping"))["balance"] == "10000.00"


async def test_a_partial_delivery_hands_over_what_there_is(house: DoorHouse, shop: Shop) -> None:
    placed = await shop.order("D6", quantity=3, callback_url=f"{house.receiver.url}/cb", manual_form_data={"target": "10000000006"})
    await house.finished("D6")
    assert (await shop.call("GET", f"/orders/{placed['order_id']}"))["status"] == "partially_delivered"
    assert shop.told((await house.receiver.wait_for(1))[0])["status"] == "partially_delivered"


async def test_doubt_is_shown_as_work(house: DoorHouse, shop: Shop) -> None:
    placed = await shop.order("D4", manual_form_data={"target": "10000000004"})
    await asyncio.sleep(1)
    assert (await shop.call("GET", f"/orders/{placed['order_id']}"))["status"] == "fulfilling"


@pytest.mark.parametrize("reply", [(200, b"ok"), (200, b'{"ok":"true"}'), (201, b'{"ok":true}'), (500, b'{"ok":true}'), (200, b"[true]")])
def test_nothing_but_ok_true_is_an_acknowledgement(reply: tuple[int, bytes]) -> None:
    assert DOOR.letters is not None
    assert not DOOR.letters.heard(*reply)
    assert DOOR.letters.heard(200, b'{"ok":true}')


async def test_the_same_number_again_is_the_first_order(quiet_house: DoorHouse, quiet_shop: Shop) -> None:
    first = await quiet_shop.order("D1")
    again = await quiet_shop.order("D1")
    assert again == {**first, "status": "fulfilling"}
    assert await quiet_shop.order("D1", callback_url="https://m.example.com/cb") == again  # where it is told does not make it another order
    assert (await quiet_shop.order("D1", quantity=2, status=400))["error_code"] == "bad_request"
    assert await quiet_house.orders() == 1
    answers = await asyncio.gather(*(quiet_shop.order("D2") for _ in range(30)))
    assert len({a["order_id"] for a in answers}) == 1 and await quiet_house.orders() == 2


async def test_a_query_by_another_shop_finds_nothing(quiet_house: DoorHouse, quiet_shop: Shop) -> None:
    other = await quiet_house.another_merchant()
    await quiet_house.account("dujiao", "dj_other", {"api_secret": "another-secret"}, merchant=other, products=PRODUCTS)
    theirs = Shop(quiet_house.http, "dj_other", "another-secret")
    placed = await quiet_shop.order("D1")
    for path in (f"/orders/{placed['order_id']}", "/orders/1", "/orders/99999999999999999999", "/orders/abc"):
        assert (await theirs.call("GET", path, status=404))["error_code"] == "order_not_found"
    assert (await theirs.call("POST", f"/orders/{placed['order_id']}/cancel", status=404))["error_code"] == "order_not_found"
    assert (await quiet_shop.call("GET", f"/orders/{placed['order_id']}"))["status"] == "fulfilling"


async def test_another_account_of_the_merchant_sees_no_order_and_no_cards(house: DoorHouse, shop: Shop) -> None:
    await house.account("dujiao", "dj_second", {"api_secret": SECRET}, products=PRODUCTS)
    second = Shop(house.http, "dj_second")
    placed = await shop.order("D1", 2)
    await house.finished("D1")
    for method, path in (("GET", f"/orders/{placed['order_id']}"), ("POST", f"/orders/{placed['order_id']}/cancel")):
        assert (await second.call(method, path, status=503))["error_code"] == "internal_error"  # it was delivered: no "there is none"
    assert (await second.order("D1", 2, status=400))["error_code"] == "bad_request"
    async with house.db.transaction() as tx:
        assert await fetch(tx, "SELECT 1 FROM code_reveals") == []


async def test_an_order_that_a_restore_may_have_lost_is_not_denied(quiet_house: DoorHouse, quiet_shop: Shop) -> None:
    """Its id is older than a restore, which is over: it may be among what was lost, and delivered."""
    before = short_of(new_ulid())
    async with quiet_house.db.transaction() as tx:
        await execute(
            tx, "INSERT INTO restores (restore_id, begun_by, last_commit_at, xid_shift, ended_at) VALUES ($1, 'test', now(), 0, now())", new_ulid()
        )
    assert (await quiet_shop.call("GET", f"/orders/{before}", status=503))["error_code"] == "internal_error"
    await asyncio.sleep(0.01)
    assert (await quiet_shop.call("GET", f"/orders/{short_of(new_ulid())}", status=404))["error_code"] == "order_not_found"


async def test_an_answer_that_is_not_certain_says_so(quiet_house: DoorHouse, quiet_shop: Shop) -> None:
    orders = door_of(quiet_house.app).orders
    submit = orders.submit
    orders.submit = _committed_but_unheard(submit)  # type: ignore[method-assign]
    answer = await quiet_shop.send("POST", f"{BASE}/orders", {"sku_id": 2, "quantity": 1, "downstream_order_no": "D1"})
    assert answer.status_code == 503 and answer.json()["error_code"] == "internal_error"
    orders.submit = submit  # type: ignore[method-assign]
    assert (await quiet_shop.order("D1", 2))["status"] == "fulfilling"  # sent again: the order that stands
    assert await quiet_house.orders() == 1


def _committed_but_unheard(submit: Any) -> Any:
    async def work(item: Any) -> Any:
        await submit(item)
        raise ConnectionError("the answer to COMMIT was lost")

    return work


async def test_signatures(quiet_house: DoorHouse, quiet_shop: Shop) -> None:
    path = f"{BASE}/ping"
    assert (await quiet_shop.send("POST", path)).json()["ok"] is True
    assert (await quiet_shop.send("POST", path, whole_path=True)).json()["ok"] is True
    for options, status, code in (
        ({"signature": "0" * 64}, 401, "invalid_signature"),
        ({"skew_s": 61}, 401, "timestamp_expired"),
        ({"skew_s": -61}, 401, "timestamp_expired"),
    ):
        second, answer = -1, None
        while answer is None or int(time.time()) != second:  # a second later, one that is early has come into the window
            second = int(time.time())
            answer = await quiet_shop.send("POST", path, **options)
        assert (answer.status_code, answer.json()["error_code"]) == (status, code)
    stranger = Shop(quiet_house.http, "dj_nobody")
    assert (await stranger.send("POST", path)).json()["error_code"] == "invalid_api_key"
    assert (await quiet_house.http.post(f"/doors/dujiao{path}")).json()["error_code"] == "missing_auth_headers"
    # A signature of one order does not fit another, nor another method of the same path.
    body = {"sku_id": 2, "quantity": 1, "downstream_order_no": "D1"}
    at = int(time.time())
    forged = sign(SECRET, "POST", f"{BASE}/orders", at, json.dumps(body | {"quantity": 9}).encode())
    assert (await quiet_shop.send("POST", f"{BASE}/orders", body, signature=forged)).json()["error_code"] == "invalid_signature"
    assert await quiet_house.orders() == 0


async def test_a_replay_within_the_minute_buys_nothing(quiet_house: DoorHouse, quiet_shop: Shop) -> None:
    body = json.dumps({"sku_id": 2, "quantity": 1, "downstream_order_no": "D1"}).encode()
    at = int(time.time())
    headers = {
        "Dujiao-Next-Api-Key": KEY, "Dujiao-Next-Timestamp": str(at), "Content-Type": "application/json",
        "Dujiao-Next-Signature": sign(SECRET, "POST", f"{BASE}/orders", at, body),
    }  # fmt: skip
    answers = [(await quiet_house.http.post(f"/doors/dujiao{BASE}/orders", content=body, headers=headers)).json() for _ in range(3)]
    assert len({a["order_id"] for a in answers}) == 1
    assert await quiet_house.orders() == 1


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ({"sku_id": 77}, 400, "sku_unavailable"),
        ({"sku_id": "1"}, 400, "bad_request"),
        ({"sku_id": 3}, 409, "insufficient_stock"),
        ({"quantity": 0}, 400, "bad_request"),
        ({"quantity": 101}, 400, "bad_request"),
        ({"downstream_order_no": ""}, 400, "bad_request"),
        ({"downstream_order_no": "a/b"}, 400, "bad_request"),
        ({"callback_url": "http://10.0.0.1/cb"}, 400, "invalid_callback_url"),
        ({"sku_id": 1, "manual_form_data": {"target": "12"}}, 400, "bad_request"),
        ({"sku_id": 1, "manual_form_data": {"target": [PHONE]}}, 400, "bad_request"),
    ],
)
async def test_a_refusal_has_the_documents_code(quiet_house: DoorHouse, quiet_shop: Shop, fields: dict[str, Any], status: int, code: str) -> None:
    body = {"sku_id": 2, "quantity": 1, "downstream_order_no": "D1", **fields}
    answer = await quiet_shop.call("POST", "/orders", body, status=status)
    assert answer["ok"] is False and answer["error_code"] == code
    assert await quiet_house.orders() == 0


async def test_too_little_money_is_402(quiet_house: DoorHouse, quiet_shop: Shop) -> None:
    assert (await quiet_shop.order("D1", quantity=100))["ok"] is True
    assert (await quiet_shop.order("D2", quantity=100, status=402))["error_code"] == "insufficient_balance"


async def test_products_are_those_with_whole_numbers(quiet_shop: Shop) -> None:
    answer = await quiet_shop.call("GET", "/products?page=1&page_size=2")
    assert (answer["total"], [p["id"] for p in answer["items"]]) == (3, [1, 2])
    first = answer["items"][0]
    assert (first["price_amount"], first["fulfillment_type"], first["skus"][0]["id"]) == ("98.50", "manual", 1)
    assert [f["key"] for f in first["manual_form_schema"]["fields"]] == ["target"]
    assert answer["items"][1]["fulfillment_type"] == "auto"
    assert (await quiet_shop.call("GET", "/products/3"))["product"]["skus"][0]["stock_status"] == "out_of_stock"
    assert (await quiet_shop.call("GET", "/products/old", status=404))["error_code"] == "product_not_found"
    assert {c["slug"] for c in (await quiet_shop.call("GET", "/categories"))["categories"]} == {"topup", "card", "voucher"}
    assert (await quiet_shop.call("POST", "/ping"))["balance"] == "10000.00"


async def test_cancel_before_dispatch_only(quiet_house: DoorHouse, quiet_shop: Shop) -> None:
    placed = await quiet_shop.order("D1")
    for _ in range(2):
        assert (await quiet_shop.call("POST", f"/orders/{placed['order_id']}/cancel"))["status"] == "canceled"
    assert (await quiet_shop.call("POST", "/ping"))["balance"] == "10000.00"


async def test_a_delivered_order_cannot_be_cancelled(house: DoorHouse, shop: Shop) -> None:
    placed = await shop.order("D1", 2)
    await house.finished("D1")
    assert (await shop.call("POST", f"/orders/{placed['order_id']}/cancel", status=409))["error_code"] == "cancel_not_allowed"
