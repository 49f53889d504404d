"""The merchant contract's own vectors, byte for byte, by the code with which this house buys from another one."""

import base64
import json
from collections.abc import Mapping
from datetime import date

import pytest

from kameng_api.kit.signing import sign_webhook
from kameng_api.suppliers.adapters.kameng import wire
from kameng_api.suppliers.adapters.kameng.client import KamengSupplier
from kameng_api.suppliers.adapters.kameng.settings import KamengSettings
from kameng_api.suppliers.port import Code, HttpAnswer, NotSent, Purchase, Unknown

SECRET, KEY_ID = "sk_test_8Zc0m0bqf3oQm9m1m8m2dX2jv8bK1v3pJt6yW5rT4uA", "ak_test_01JD0000000000000000000001"
BODY = b'{"merchant_order_no":"PO-20261122-0001","sku":"mobile-cn-100","quantity":1,"target":"13800138000"}'
NONCE = "b7f3c1d2e4a5968778695a4b3c2d1e0f"


def signature(header: str) -> str:
    return header.partition('signature="')[2].rstrip('"')


def test_a_write_signed_by_hmac() -> None:
    header = wire.authorization(SECRET, None, KEY_ID, 1795350000, NONCE, "POST", "/v1/orders", BODY)
    assert signature(header) == "clPrHanEKN7puphiCPIqXozoZnGbw1jzU0DzD3zUANA="
    assert header.startswith(f'KM1-HMAC-SHA256 key_id="{KEY_ID}",timestamp="1795350000",nonce="{NONCE}"')


def test_a_write_signed_by_ed25519() -> None:
    seed = base64.b64encode(bytes(range(32))).decode()
    header = wire.authorization(None, seed, KEY_ID, 1795350000, NONCE, "POST", "/v1/orders", BODY)
    assert signature(header) == "LWrNqjvwY27u5IS5AkaAYIKMM3UXiL4PZmNJSKZ0fWWikeOdWxebYVpe4eH4ITps1OqrwFZW7owau0jm0ScoBQ=="


def test_a_question_with_its_query() -> None:
    target = "/v1/orders?limit=20&status=succeeded&cursor=abc%3D"
    header = wire.authorization(SECRET, None, KEY_ID, 1795350001, "0f1e2d3c4b5a69788796a5b4c3d2e1f0", "GET", target, b"")
    assert signature(header) == "mFasBiUi09fU9Y9plqjG5/sYIvxIw4+8v8xQRZIkMaE="


def test_the_body_of_an_order() -> None:
    purchase = Purchase(
        reference="PO-20261122-0001", product_code="mobile-cn-100", product_type="topup", units=3, currency="CNY", max_cost=10_0000,
        target="13800138000",
    )  # fmt: skip
    assert wire.order_body(purchase) == BODY.replace(b'"quantity":1,', b'"quantity":3,"max_unit_price":"3.3333",')


def test_codes_open_with_the_delivery_key() -> None:
    envelope = {
        "algorithm": "AEAD_AES_256_GCM", "kid": "dk_1", "nonce": "a1b2c3d4e5f6", "associated_data": "order_codes:ord_01JD0000000000000000000009",
        "ciphertext": "fEfNd1PcZQa6vuE54rDckVbo6b0yN3DtbzDQSttNSuGV5e3vWi5XBjsLpesP8YCLLPU/MtQ4bltAGBzx8w==",
    }  # fmt: skip
    found = wire.open_codes(envelope, "0123456789abcdef0123456789abcdef", "ord_01JD0000000000000000000009")
    assert found == (Code("TEST-AAAA-BBBB-CCCC", "1234"),)


def test_the_webhooks_vector() -> None:
    body = (
        b'{"id":"evt_01JD0000000000000000000042","type":"order.succeeded","timestamp":"2026-11-22T11:44:59Z",'
        b'"data":{"id":"ord_01JD0000000000000000000009","version":4}}'
    )
    secret = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
    found = sign_webhook([secret], "evt_01JD0000000000000000000042", 1795350300, body)
    assert found == "v1,u7WxpLHC7vauWnLoChnLtU4jtPR7+LWC51IZgjPgj9A="


@pytest.mark.parametrize(
    ("amounts", "status", "numbers"),
    [
        (["30.0000", "68.5000"], 200, ["txn_0", "txn_1"]),  # two parts that make up the whole, and are two all the same
        (["98.5000"], 200, ["ord_01JD0000000000000000000009-refunded"]),
        (["98.5000"], 404, ["txn_0"]),
    ],
)
async def test_parts_paid_back_have_a_number_each_and_all_of_it_has_the_orders(
    amounts: list[str], status: int, numbers: list[str]
) -> None:
    """One number for all of them would hide the second part, and a whole that follows a part, as something already known."""
    order_id = "ord_01JD0000000000000000000009"
    asked: list[str] = []
    common = {"type": "refund", "time": "2026-11-21T03:00:00.000Z", "order_id": order_id, "merchant_order_no": "T1", "balance_after": "1.0000"}
    day = {"currency": "CNY", "movements": [{**common, "id": f"txn_{n}", "amount": amount} for n, amount in enumerate(amounts)]}
    order: dict[str, object] = {"object": "order", "id": order_id, "unit_price": "98.5000", "delivered_quantity": 1}
    if status == 404:
        order = {"code": "not_found", "status": 404, "charged": "no"}

    async def send(
        method: str, url: str, *, headers: Mapping[str, str] | None = None, content: bytes = b"", timeout_s: float = 30.0
    ) -> HttpAnswer | NotSent | Unknown:
        asked.append(url)
        if "/statements/" in url:
            return HttpAnswer(200, {"content-type": "application/json"}, json.dumps(day).encode())
        kind = "application/json" if status == 200 else "application/problem+json"
        return HttpAnswer(status, {"content-type": kind}, json.dumps(order).encode())

    webhook_secret = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
    keys = {"key_id": KEY_ID, "secret": SECRET, "delivery_key": "0123456789abcdef" * 2, "webhook_secret": webhook_secret}
    supplier = KamengSupplier(KamengSettings.model_validate({"base_url": "https://hub.example", **keys}), send)
    [page] = [page async for page in supplier.statement(date(2026, 11, 21))]
    assert [line.external_id for line in page] == numbers
    assert [url.partition("/v1/")[2] for url in asked] == ["statements/2026-11-21", f"orders/{order_id}"], "an order is asked about once"
