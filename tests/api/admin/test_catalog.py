"""Products, prices, channels and offers through the operator's API."""

from typing import Any

import pytest
from fastapi import FastAPI
from tests.api.admin.conftest import Hire, Operator, ok

from kameng_api.catalog import rules

TOPUP: dict[str, Any] = {
    "name": "话费 100 元", "product_type": "topup", "face_value": "100", "target_kind": "mobile",
    "fields": [{"name": "note", "label": "Note", "required": False}],
}  # fmt: skip
SECRET = "0123456789abcdef-very-secret"
SETTINGS = {"base_url": "http://127.0.0.1:9", "app_key": "account-a", "secret": SECRET}
CHANNEL: dict[str, Any] = {
    "id": "sim-a", "name": "Simulator A", "adapter": "simulator", "environment": "test", "settings": SETTINGS,
}  # fmt: skip


async def test_a_product_with_price_and_offer(admin: Operator, app: FastAPI) -> None:
    first = await ok(await admin.put("/products/mobile-cn-100", json=TOPUP), 201)
    assert await ok(await admin.put("/products/mobile-cn-100", json=TOPUP), 200) | {"updated_at": ""} == first | {"updated_at": ""}
    await ok(await admin.post("/channels", json=CHANNEL), 201)
    offer = {"product_code": "hf-100", "rate": "0.9935", "stock": 7}
    await ok(await admin.put("/channels/sim-a/offers/mobile-cn-100", json=offer), 201)
    await ok(await admin.put("/channels/sim-a/offers/mobile-cn-100", json=offer), 200)
    await ok(await admin.put("/products/mobile-cn-100/price", json={"unit_price": "99.5"}))
    await ok(await admin.put("/products/mobile-cn-100/price", json={"rate": "0.994", "level": "gold"}))
    shown = await ok(await admin.get("/products/mobile-cn-100"))
    assert [(p["level"], p["unit_price"], p["rate"]) for p in shown["prices"]] == [
        (None, "99.5000", None),
        ("gold", None, "0.994000"),
    ]
    assert [(o["product_code"], o["rate"], o["stock"]) for o in shown["offers"]] == [("hf-100", "0.993500", 7)]
    snapshot = await app.state.door.catalog.refresh()
    assert rules.cheapest_cost(snapshot, "mobile-cn-100", "test", None) == 993_500
    assert rules.cheapest_cost(snapshot, "mobile-cn-100", "live", None) is None

    await ok(await admin.delete("/products/mobile-cn-100/price?level=gold"))
    assert len((await ok(await admin.get("/products/mobile-cn-100")))["prices"]) == 1
    assert (await ok(await admin.put("/products/mobile-cn-100/status", json={"status": "paused"})))["status"] == "paused"
    [listed] = (await ok(await admin.get("/products?status=paused")))["items"]
    assert listed["sku"] == "mobile-cn-100"
    assert (await ok(await admin.get("/offers?sku=mobile-cn-100")))["items"] == shown["offers"]


async def test_a_product_only_for_some(admin: Operator) -> None:
    await ok(await admin.put("/products/mobile-cn-100", json=TOPUP))
    shop = (await ok(await admin.post("/merchants", json={"name": "shop"})))["id"]
    only = await ok(await admin.put("/products/mobile-cn-100/only-for", json={"merchant_ids": [shop]}))
    assert only["only_for"] == [shop]
    price = {"unit_price": "98", "merchant_id": shop}
    assert (await ok(await admin.put("/products/mobile-cn-100/price", json=price)))["prices"][0]["merchant_id"] == shop
    await ok(await admin.put("/products/mobile-cn-100/only-for", json={"merchant_ids": []}))
    stranger = {"merchant_ids": ["mer_01JD0000000000000000000009"]}
    assert (await admin.put("/products/mobile-cn-100/only-for", json=stranger)).status_code == 422



async def test_a_barcode_means_one_product(admin: Operator, hire: Hire) -> None:
    for sku in ("mobile-cn-100", "mobile-cn-50"):
        await ok(await admin.put(f"/products/{sku}", json=TOPUP))
    path = "/products/mobile-cn-100/barcodes"
    shown = await ok(await admin.put(path, json={"barcodes": ["4006381333931", "KM-SHELF-7"]}))
    assert shown["barcodes"] == (await ok(await admin.get("/products/mobile-cn-100")))["barcodes"] == ["4006381333931", "KM-SHELF-7"]

    taken = await admin.put("/products/mobile-cn-50/barcodes", json={"barcodes": ["04006381333931"]})  # the same GTIN, written with 14 digits
    assert (taken.status_code, taken.json()["code"]) == (409, "state_conflict")
    assert (await ok(await admin.get("/products/mobile-cn-50")))["barcodes"] == []
    assert (await ok(await admin.put(path, json={"barcodes": ["KM-SHELF-7"]})))["barcodes"] == ["KM-SHELF-7"]
    assert (await ok(await admin.put("/products/mobile-cn-50/barcodes", json={"barcodes": ["4006381333931"]})))["barcodes"] == ["4006381333931"]

    trail = [e for e in (await ok(await admin.get("/audit")))["items"] if e["action"] == "product.barcodes_set"]
    assert [(e["subject"], e["facts"]["barcodes"]) for e in trail][-1] == ("mobile-cn-100", ["4006381333931", "KM-SHELF-7"])
    assert len(trail) == 3, "what was refused is not told as done"
    assert (await (await hire("viewer")).put(path, json={"barcodes": []})).json()["code"] == "role_missing"
    assert (await ok(await admin.put(path, json={"barcodes": []})))["barcodes"] == []


@pytest.mark.parametrize(
    ("barcodes", "pointers"),
    [
        (["ok", ""], ["/barcodes/1"]),
        (["4006381333931", "04006381333931"], ["/barcodes/1"]),
        (["same", "same"], ["/barcodes/1"]),
        (["a\nb"], ["/barcodes/0"]),
        (["x" * 513], ["/barcodes/0"]),
        (["x"] * 51, ["/barcodes"]),
        ("4006381333931", ["/barcodes"]),
    ],
)
async def test_what_is_no_barcode_is_refused(admin: Operator, barcodes: Any, pointers: list[str]) -> None:
    await ok(await admin.put("/products/mobile-cn-100", json=TOPUP))
    answer = await admin.put("/products/mobile-cn-100/barcodes", json={"barcodes": barcodes})
    assert (answer.status_code, [e["pointer"] for e in answer.json()["errors"]]) == (422, pointers), answer.text
    assert (await admin.put("/products/nothing/barcodes", json={"barcodes": []})).status_code == 404

@pytest.mark.parametrize(
    ("change", "pointers"),
    [
        ({"face_value": 100}, ["/face_value"]),
        ({"face_value": "1e2"}, ["/face_value"]),
        ({"face_value": "-1"}, ["/face_value"]),
        ({"face_value": None}, ["/face_value"]),
        ({"product_type": "gift"}, ["/product_type"]),
        ({"target_kind": None}, ["/target_kind"]),
        ({"fields": [{"name": "A", "label": "x"}, {"name": "b", "label": ""}]}, ["/fields/0/name", "/fields/1/label"]),
        ({"fields": [{"name": "b", "label": "x", "pattern": "("}]}, ["/fields/0/pattern"]),
        ({"fields": [{"name": "b", "label": "x", "odd": 1}]}, ["/fields/0/odd"]),
        ({"max_quantity": 0, "deliver_within_s": 1}, ["/max_quantity", "/deliver_within_s"]),
        ({"max_quantity": True}, ["/max_quantity"]),
    ],
)
async def test_bad_definitions_are_refused_with_pointers(admin: Operator, change: dict[str, Any], pointers: list[str]) -> None:
    answer = await admin.put("/products/mobile-cn-100", json=TOPUP | change)
    assert answer.status_code == 422, answer.text
    assert [e["pointer"] for e in answer.json()["errors"]] == pointers
    assert (await admin.get("/products/mobile-cn-100")).status_code == 404


async def test_what_a_sku_is_does_not_change(admin: Operator) -> None:
    await ok(await admin.put("/products/mobile-cn-100", json=TOPUP))
    answer = await admin.put("/products/mobile-cn-100", json=TOPUP | {"face_value": "200"})
    assert (answer.status_code, answer.json()["code"]) == (409, "state_conflict")


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"adapter": "nobody"}, "/adapter"),
        ({"settings": {}}, "/settings/base_url"),
        ({"settings": SETTINGS | {"secret": "short"}}, "/settings/secret"),
        ({"settings": SETTINGS | {"odd": 1}}, "/settings/odd"),
        ({"id": "Bad Id"}, "/id"),
        ({"environment": "beta"}, "/environment"),
        ({"concurrency": 0}, "/concurrency"),
    ],
)
async def test_bad_channels_are_refused_and_no_secret_is_repeated(admin: Operator, change: dict[str, Any], pointer: str) -> None:
    answer = await admin.post("/channels", json=CHANNEL | change)
    assert answer.status_code == 422, answer.text
    assert pointer in [e["pointer"] for e in answer.json()["errors"]]
    assert SECRET not in answer.text
    assert (await ok(await admin.get("/channels")))["items"] == []


async def test_a_channels_secrets_are_shown_once_at_most(admin: Operator, app: FastAPI) -> None:
    made = await ok(await admin.post("/channels", json=CHANNEL), 201)
    token = made["callback_url"].rpartition("/")[2]
    assert len(token) == 43
    assert SECRET not in str(made)
    changed = {"name": "Simulator A2", "settings": SETTINGS | {"timeout_s": 3}, "wallet_low_at": "100"}
    await ok(await admin.put("/channels/sim-a", json=changed))
    await ok(await admin.put("/channels/sim-a", json={"name": "Simulator A3"}))
    for path in ("/channels", "/channels/sim-a", "/audit", "/adapters"):
        text = (await admin.get(path)).text
        assert SECRET not in text
        assert token not in text
    snapshot = await app.state.door.catalog.refresh()
    settings = rules.open_settings(app.state.door.keyring, snapshot.channels["sim-a"])
    assert SECRET.encode() in settings
    assert b'"timeout_s":3' in settings
    assert (await admin.post("/channels", json=CHANNEL)).status_code == 409


async def test_channels_are_switched(admin: Operator) -> None:
    await ok(await admin.post("/channels", json=CHANNEL), 201)
    off = {"status": "disabled", "reason": "refuses everything"}
    assert (await ok(await admin.put("/channels/sim-a/status", json=off)))["status"] == "disabled"
    assert (await admin.put("/channels/sim-a/status", json={"status": "disabled"})).status_code == 422
    assert (await admin.put("/channels/nowhere/status", json=off)).status_code == 404
    [entry] = (await ok(await admin.get("/audit?subject=channel:sim-a&limit=1")))["items"]
    assert (entry["action"], entry["facts"]) == ("channel.disabled", {"reason": "refuses everything"})


async def test_a_wallet_that_cannot_be_asked_is_unavailable(admin: Operator) -> None:
    await ok(await admin.post("/channels", json=CHANNEL), 201)  # nobody listens on port 9
    answer = await admin.post("/channels/sim-a/refresh-wallet")
    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
    assert (await ok(await admin.get("/channels/sim-a")))["wallet"]["balance"] is None
