"""Batches and imports as a merchant's program meets them: signed, stored, followed, corrected, and sent again."""

import csv
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
from fastapi import FastAPI
from tests.factories.client import Client
from tests.factories.merchants import TestMerchant, make_key, make_merchant
from tests.factories.shop import PHONE, open_desk, stock_the_shop

from kameng_api.api.gate import MAX_BATCH_BYTES, MAX_FILE_BYTES
from kameng_api.jobs.batches import advance_batches
from kameng_api.jobs.desk import Desk
from kameng_api.kit.db import Database, execute, fetch
from kameng_api.settings import Settings

CSV = {"Content-Type": "text/csv"}
ROWS = "merchant_order_no,sku,target,remark\r\nPO-1,mobile-cn-100,13800138000,=shop\r\nPO-2,mobile-cn-100,138,b\r\nPO-3,no-such,13800138000,c\r\n"


@pytest.fixture
async def goods(database: Database, settings: Settings) -> None:
    await stock_the_shop(database, settings, "http://127.0.0.1:9", {"sim-a": "secret-of-sim-a-only-for-tests"})


@pytest.fixture
async def desk(app: FastAPI, settings: Settings) -> AsyncIterator[Desk]:
    async with open_desk(settings) as opened:
        yield opened


async def work(desk: Desk) -> None:
    for _ in range(20):
        if not await advance_batches(desk, 4):
            return
    raise AssertionError("never at rest")


def body(number: str = "B-1", rows: int = 2, **more: Any) -> dict[str, Any]:
    return {"merchant_batch_no": number, "items": [{"sku": "mobile-cn-100", "target": PHONE} for _ in range(rows)], **more}


async def test_a_batch_is_stored_followed_and_replayed(client: Client, desk: Desk) -> None:
    sent = await client.post("/v1/order-batches", body())
    assert (sent.status_code, sent.json()["status"], sent.json()["progress"]["total"]) == (202, "validating", 2)
    assert sent.headers["location"] == f"/v1/order-batches/{sent.json()['id']}"
    assert '"batches"' in sent.headers["ratelimit"]
    again = await client.post("/v1/order-batches", body())
    assert (again.status_code, again.headers["idempotent-replayed"], again.json()["id"]) == (200, "true", sent.json()["id"])
    other = await client.post("/v1/order-batches", body(rows=3))
    assert (other.status_code, other.json()["code"], other.json()["existing_batch_id"]) == (409, "merchant_batch_no_conflict", sent.json()["id"])
    await work(desk)
    now = (await client.get(sent.headers["location"])).json()
    assert (now["status"], now["progress"]["accepted"], now["progress"]["total_cost"]) == ("processing", 2, "197.0000")
    assert (await client.get("/v1/order-batches/by-merchant-no/B-1")).json() == now
    assert (await client.get("/v1/order-batches?status=processing")).json()["items"] == [now]
    assert (await client.get("/v1/orders/by-merchant-no/B-1-2")).json()["status"] == "accepted"


async def test_defaults_that_are_written_out_are_the_same_content(client: Client, desk: Desk) -> None:
    first = await client.post("/v1/order-batches", body())
    written = body(mode="partial", confirm="auto", validate_only=False)
    written["items"] = [{**row, "quantity": 1, "confirm_duplicate": False, "fields": {}, "metadata": {}} for row in written["items"]]
    assert (await client.post("/v1/order-batches", written)).json()["id"] == first.json()["id"]


async def test_a_number_that_was_only_validated_is_still_free(client: Client, desk: Desk) -> None:
    checked = await client.post("/v1/order-batches", body(validate_only=True))
    await work(desk)
    assert (await client.get("/v1/order-batches/by-merchant-no/B-1")).json()["status"] == "validated"
    real = await client.post("/v1/order-batches", body())
    assert (real.status_code, real.json()["id"] != checked.json()["id"]) == (202, True)
    assert (await client.get("/v1/order-batches/by-merchant-no/B-1")).json()["id"] == real.json()["id"]
    refused = await client.post(f"/v1/order-batches/{checked.json()['id']}/confirm")
    assert (refused.status_code, refused.json()["code"]) == (409, "state_conflict")


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"items": []}, "/items"),
        ({"items": [{"sku": "a", "quantity": 0}]}, "/items/0/quantity"),
        ({"items": [{"sku": "a", "quantity": "1"}]}, "/items/0/quantity"),
        ({"items": [{"sku": "a", "colour": "red"}]}, "/items/0/colour"),
        ({"items": [{"sku": "a", "notify_url": "http://10.0.0.1/"}]}, "/items/0/notify_url"),
        ({"items": [{"sku": "a", "max_unit_price": 1.5}]}, "/items/0/max_unit_price"),
        ({"merchant_batch_no": "a b"}, "/merchant_batch_no"),
        ({"mode": "maybe"}, "/mode"),
        ({"items": [{"sku": "a"}] * 1001}, "/items"),
    ],
)
async def test_what_is_not_a_batch_is_refused_and_stores_nothing(client: Client, database: Database, change: dict[str, Any], pointer: str) -> None:
    answer = await client.post("/v1/order-batches", body() | change)
    assert (answer.status_code, answer.json()["code"]) == (422, "validation_failed")
    assert pointer in [e["pointer"] for e in answer.json()["errors"]]
    async with database.transaction() as tx:
        assert await fetch(tx, "SELECT 1 FROM batches") == []


async def test_a_file_is_imported_and_its_rows_explained(client: Client, desk: Desk) -> None:
    sent = await client.post("/v1/order-imports?filename=C:\\orders\\a.csv&merchant_batch_no=F-1".replace("\\", "%5C"), ROWS.encode(), headers=CSV)
    assert (sent.status_code, sent.json()["kind"], sent.json()["filename"]) == (202, "file", "a.csv")
    await work(desk)
    place = sent.headers["location"]
    items = (await client.get(f"{place}/items")).json()["items"]
    assert [(i["line_no"], i["status"], i["error"] and i["error"]["code"]) for i in items] == [
        (2, "accepted", None), (3, "invalid", "target_not_supported"), (4, "invalid", "product_unavailable"),
    ]  # fmt: skip
    assert [i["line_no"] for i in (await client.get(f"{place}/items?status=invalid")).json()["items"]] == [3, 4]
    assert (await client.get(f"{place}/lines/3")).json()["status"] == "invalid"
    assert (await client.get(f"{place}/lines/99")).status_code == 404


async def test_a_file_comes_back_under_its_own_headings(client: Client, desk: Desk) -> None:
    rows = "订单号,商品编码,手机号,Our Shop,-x\r\nPO-1,mobile-cn-100,13800138000,east,1\r\nPO-2,no-such,13800138000,west,2\r\n"
    sent = await client.post("/v1/order-imports?filename=a.csv&merchant_batch_no=F-1", rows.encode(), headers=CSV)
    assert sent.json()["warnings"] == [], "it has not been read"
    await work(desk)
    place = sent.headers["location"]
    warnings = (await client.get(place)).json()["warnings"]
    assert len(warnings) == 2 and "'Our Shop'" in warnings[0] and "'-x'" in warnings[1]
    for which in ("failed", "retry"):
        [row] = table(await client.get(f"{place}/results/{which}"))
        assert (row["订单号"], row["商品编码"], row["手机号"], row["Our Shop"], row["'-x"]) == ("PO-2", "no-such", "13800138000", "west", "2")
    retry = (await client.get(f"{place}/results/retry")).content.replace(b"no-such", b"mobile-cn-100")
    again = await client.post("/v1/order-imports?filename=b.csv&merchant_batch_no=F-2", retry, headers=CSV)
    await work(desk)
    assert (await client.get(again.headers["location"])).json()["progress"]["accepted"] == 1


async def test_rows_that_are_no_longer_kept_are_gone_and_not_empty(client: Client, desk: Desk, database: Database) -> None:
    sent = await client.post("/v1/order-batches", body(rows=300))
    await work(desk)
    async with database.transaction() as tx:
        await execute(tx, "DELETE FROM batch_pages WHERE n = 1")  # the first page that goes is enough
    place = sent.headers["location"]
    for which in ("succeeded", "failed", "unprocessed", "retry"):
        answer = await client.get(f"{place}/results/{which}")
        assert (answer.status_code, answer.json()["code"], answer.json()["retry"]) == (410, "rows_gone", "never")
    assert len((await client.get(f"{place}/items?limit=100")).json()["items"]) == 100
    assert (await client.post("/v1/order-batches", body(rows=300))).json()["id"] == sent.json()["id"], "the number stands for it for ever"


async def test_items_come_in_pages(client: Client, desk: Desk) -> None:
    sent = await client.post("/v1/order-batches", body(rows=7))
    await work(desk)
    path, seen, cursor = f"{sent.headers['location']}/items?limit=3", [], ""
    while True:
        page = (await client.get(path + cursor)).json()
        seen += [i["line_no"] for i in page["items"]]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert seen == list(range(1, 8))


def table(answer: Any) -> list[dict[str, str]]:
    assert answer.status_code == 200, answer.text
    lines = answer.content.decode("utf-8-sig").splitlines(keepends=True)
    return list(csv.DictReader(lines[1:] if lines[0].startswith("#kameng") else lines))


async def test_the_failed_rows_are_corrected_and_sent_again(client: Client, desk: Desk, database: Database) -> None:
    sent = await client.post("/v1/order-imports?filename=a.csv&merchant_batch_no=F-1", ROWS.encode(), headers=CSV)
    await work(desk)
    async with database.transaction() as tx:
        await execute(tx, "UPDATE orders SET status = 'failed', failure_code = 'supplier_rejected', completed_at = now()")
        await execute(tx, "UPDATE tasks SET run_at = now() WHERE lane = 'batch'")
    await work(desk)
    place = sent.headers["location"]
    assert (await client.get(place)).json()["status"] == "completed_with_errors"
    failed = table(await client.get(f"{place}/results/failed?format=csv"))
    assert [(r["line_no"], r["status"], r["error_code"]) for r in failed] == [
        ("2", "failed", "supplier_rejected"), ("3", "invalid", "target_not_supported"), ("4", "invalid", "product_unavailable"),
    ]  # fmt: skip
    assert failed[0]["order_id"].startswith("ord_")
    retry = await client.get(f"{place}/results/retry?format=csv")
    rows = table(retry)
    assert [r["merchant_order_no"] for r in rows] == ["PO-1-r1", "PO-2", "PO-3"], "the number of an order that failed is used up"
    assert rows[0]["target"] == PHONE
    mended = retry.content.replace(b",138,", f",{PHONE},".encode()).replace(b"no-such", b"mobile-cn-100")
    again = await client.post("/v1/order-imports?filename=retry.csv&merchant_batch_no=F-2", mended, headers=CSV)
    await work(desk)
    assert (await client.get(again.headers["location"])).json()["progress"]["accepted"] == 3
    assert table(await client.get(f"{place}/results/succeeded")) == []


async def test_the_same_file_under_another_number_buys_nothing_twice(client: Client, desk: Desk) -> None:
    for number in ("F-1", "F-2"):
        await client.post(f"/v1/order-imports?filename=a.csv&merchant_batch_no={number}", ROWS.encode(), headers=CSV)
        await work(desk)
    now = (await client.get("/v1/order-batches/by-merchant-no/F-2")).json()["progress"]
    assert (now["accepted"], now["duplicates"]) == (1, 1)
    assert len((await client.get("/v1/orders")).json()["items"]) == 1


async def test_targets_are_masked_for_keys_that_may_not_see_them(
    client: Client, desk: Desk, database: Database, settings: Settings, merchant: TestMerchant
) -> None:
    sent = await client.post("/v1/order-batches", body())
    await work(desk)
    async with database.transaction() as tx:
        await execute(tx, "UPDATE orders SET status = 'succeeded', completed_at = now()")
    key = await make_key(database, settings, merchant.merchant_id, scopes=("orders:read",))
    place = sent.headers["location"]
    assert [r["target"] for r in table(await client.get(f"{place}/results/succeeded", key=key))] == ["138****8000"] * 2
    assert [r["target"] for r in table(await client.get(f"{place}/results/succeeded"))] == [PHONE] * 2
    refused = await client.get(f"{place}/results/retry", key=key)
    assert (refused.status_code, refused.json()["code"]) == (403, "scope_missing")


async def test_another_merchant_finds_nothing(client: Client, desk: Desk, database: Database, settings: Settings) -> None:
    sent = await client.post("/v1/order-batches", body(confirm="manual"))
    stranger = await make_merchant(database, settings)
    place = sent.headers["location"]
    for path in (place, f"{place}/items", f"{place}/results/failed", f"{place}/lines/1", "/v1/order-batches/by-merchant-no/B-1"):
        assert (await client.get(path, key=stranger.key)).status_code == 404, path
    for step in ("confirm", "cancel"):
        assert (await client.post(f"{place}/{step}", key=stranger.key)).status_code == 404
    assert (await client.get("/v1/order-batches", key=stranger.key)).json()["items"] == []


async def test_confirm_and_cancel_by_hand(client: Client, desk: Desk) -> None:
    first = await client.post("/v1/order-batches", body("B-1", confirm="manual"))
    second = await client.post("/v1/order-batches", body("B-2", confirm="manual"))
    early = await client.post(f"{first.headers['location']}/confirm")
    assert (early.status_code, early.json()["code"]) == (409, "state_conflict")
    await work(desk)
    assert (await client.post(f"{first.headers['location']}/confirm")).json()["status"] == "processing"
    assert (await client.post(f"{second.headers['location']}/cancel")).json()["status"] == "cancelled"
    await work(desk)
    assert (await client.post(f"{first.headers['location']}/cancel")).status_code == 409
    unprocessed = table(await client.get(f"{second.headers['location']}/results/unprocessed"))
    assert [(r["merchant_order_no"], r["status"]) for r in unprocessed] == [("B-2-1", "unprocessed"), ("B-2-2", "unprocessed")]


@pytest.mark.parametrize("format_", ["csv", "xlsx"])
async def test_the_template_is_a_file_that_an_import_reads(client: Client, desk: Desk, format_: str) -> None:
    answer = await client.get(f"/v1/order-imports/template?format={format_}")
    assert answer.status_code == 200
    kind = {"Content-Type": answer.headers["content-type"]}
    sent = await client.post(f"/v1/order-imports?filename=t.{format_}&merchant_batch_no=T-1", answer.content, headers=kind)
    assert sent.status_code == 202, sent.text
    await work(desk)
    assert (await client.get(sent.headers["location"])).json()["failure"]["code"] in ("no_rows", "file_empty")


async def test_uploads_are_bounded_and_declared(client: Client, desk: Desk) -> None:
    path = "/v1/order-imports?filename=a.csv&merchant_batch_no=F-1"
    assert (await client.post(path, b"x" * (MAX_FILE_BYTES + 1), headers=CSV)).json()["code"] == "body_too_large"
    assert (await client.post(path, b"x" * 3_000_000, headers=CSV)).status_code == 202
    assert (await client.post("/v1/order-batches", b" " * (MAX_BATCH_BYTES + 1))).json()["code"] == "body_too_large"
    assert (await client.post(path, b"a", headers={"Content-Type": "application/json"})).json()["code"] == "unsupported_media_type"
    assert (await client.post(path, b"a", headers=CSV | {"Content-Encoding": "gzip"})).json()["code"] == "unsupported_media_type"
    assert (await client.post(path, headers=CSV)).json()["code"] == "validation_failed"
    bad = await client.post("/v1/order-imports?filename=a.txt&merchant_batch_no=F-1", b"a", headers=CSV)
    assert bad.json()["errors"][0]["pointer"] == "/query/filename"


async def test_batches_are_ten_a_minute(database: Database, settings: Settings, client: Client, desk: Desk) -> None:
    answers = [(await client.post("/v1/order-batches", body(f"B-{n}"))).status_code for n in range(settings.rate_batches_per_min + 1)]
    assert answers == [202] * settings.rate_batches_per_min + [429]


async def test_a_thousand_rows_with_notes_fit(client: Client, desk: Desk) -> None:
    sent = body(rows=1000)
    sent["items"] = [{**row, "metadata": {"note": "x" * 1500}} for row in sent["items"]]
    assert len(orjson.dumps(sent)) > 1_000_000
    assert (await client.post("/v1/order-batches", sent)).status_code == 202
