"""Balance, fund flow and play money, through signed requests."""

import asyncio
import hashlib
import re
from itertools import pairwise
from typing import Any

from fastapi import FastAPI
from tests.api.test_signature import is_problem
from tests.factories.client import Client
from tests.factories.merchants import ApiKey, TestMerchant, make_key, make_merchant

from kameng_api.kit.db import Database
from kameng_api.kit.ids import new_ulid, public_id
from kameng_api.kit.money import parse_amount
from kameng_api.ledger import actions as ledger
from kameng_api.ledger import queries as books
from kameng_api.ledger import rules
from kameng_api.settings import Settings


async def test_a_signed_request_reads_the_balance(client: Client) -> None:
    answer = await client.get("/v1/balance")
    assert answer.status_code == 200, answer.text
    assert answer.json() == {
        "currency": "CNY", "available": "10000.0000", "held": "0.0000", "credit_limit": "0.0000", "deposit": "0.0000",
        "frozen": "0.0000", "spendable": "10000.0000", "statements": [],
    }  # fmt: skip


async def test_the_balance_of_an_ordinary_merchant_holds_no_surprises(app: FastAPI, database: Database, settings: Settings) -> None:
    holder = await make_merchant(database, settings, money="0")
    async with database.transaction() as tx:
        await ledger.set_credit_line(tx, holder.book_id, "CNY", 5_000_000)
        await ledger.post_one(tx, rules.hold(holder.book_id, new_ulid(), "CNY", 1_234_567))
    async with Client(app, holder.key) as client:
        answer = (await client.get("/v1/balance")).json()
    assert answer["available"] == "-123.4567"
    assert answer["held"] == "123.4567"
    assert answer["credit_limit"] == "500.0000"
    assert answer["spendable"] == "376.5433"


async def test_the_fund_flow_is_paged_newest_first_and_adds_up(client: Client, database: Database, merchant: TestMerchant) -> None:
    orders = [new_ulid() for _ in range(7)]
    async with database.transaction() as tx:
        await ledger.post(tx, [rules.hold(merchant.book_id, order, "CNY", 10_000 * (n + 1)) for n, order in enumerate(orders)])
        await ledger.post_one(tx, rules.final(merchant.book_id, orders[0], "CNY", captured=0, released=10_000))
    items: list[dict[str, Any]] = []
    cursor: str | None = ""
    while cursor is not None:
        page = (await client.get("/v1/balance/transactions?limit=3" + (f"&cursor={cursor}" if cursor else ""))).json()
        assert len(page["items"]) <= 3
        items += page["items"]
        cursor = page["next_cursor"]
    assert [i["type"] for i in items] == ["release", *["hold"] * 7, "play_money"]
    assert [i["amount"] for i in items[:3]] == ["1.0000", "-7.0000", "-6.0000"]
    assert items[1]["order_id"] == public_id("ord", orders[6])
    assert items[-1]["order_id"] is None
    assert len({i["id"] for i in items}) == 9
    assert all(re.fullmatch(r"txn_[0-7][0-9A-HJKMNP-TV-Z]{25}", i["id"]) for i in items)
    for newer, older in pairwise(items):
        assert parse(newer["balance_after"]) == parse(older["balance_after"]) + parse(newer["amount"])
    assert items[0]["balance_after"] == (await client.get("/v1/balance")).json()["available"]
    again = (await client.get("/v1/balance/transactions?limit=100")).json()
    assert again == {"items": items, "next_cursor": None}


def parse(text: str) -> int:
    return -parse_amount(text[1:]) if text.startswith("-") else parse_amount(text)


async def test_a_cursor_serves_only_its_own_book(client: Client, database: Database, settings: Settings, merchant: TestMerchant) -> None:
    for n in range(2):
        await client.post("/v1/test/balance", {"number": f"n{n}", "available": f"{n + 5}"})
    cursor = (await client.get("/v1/balance/transactions?limit=1")).json()["next_cursor"]
    other = await make_merchant(database, settings)
    live = await make_key(database, settings, merchant.merchant_id, "live")
    assert (await client.get(f"/v1/balance/transactions?limit=1&cursor={cursor}")).status_code == 200
    for key in (other.key, live):
        is_problem(await client.get(f"/v1/balance/transactions?limit=1&cursor={cursor}", key=key), 400, "cursor_invalid")
    is_problem(await client.get(f"/v1/products?cursor={cursor}"), 400, "cursor_invalid")


async def test_play_money_is_set_and_safe_to_repeat(client: Client, database: Database) -> None:
    first = await client.post("/v1/test/balance", {"number": "n1", "available": "100.0000"})
    assert first.status_code == 201 and first.json()["available"] == "100.0000"
    assert "idempotent-replayed" not in first.headers
    assert (await client.post("/v1/test/balance", {"number": "n2", "available": "250.5"})).json()["available"] == "250.5000"
    again = await client.post("/v1/test/balance", {"number": "n1", "available": "100.0000"})
    assert again.status_code == 200 and again.headers["idempotent-replayed"] == "true"
    assert again.json()["available"] == "250.5000"
    is_problem(await client.post("/v1/test/balance", {"number": "n1", "available": "101"}), 409, "state_conflict")
    same = await client.post("/v1/test/balance", {"number": "n3", "available": "250.5000"})
    assert same.status_code == 201 and same.json()["available"] == "250.5000"
    await client.post("/v1/test/balance", {"number": "n4", "available": "0"})
    assert (await client.post("/v1/test/balance", {"number": "n3", "available": "250.50"})).json()["available"] == "0.0000"
    async with database.transaction() as tx:
        assert await books.list_breaches(tx) == []


async def test_of_parallel_equal_changes_one_is_made(client: Client, database: Database) -> None:
    answers = await asyncio.gather(*(client.post("/v1/test/balance", {"number": "n", "available": "7"}) for _ in range(20)))
    assert sorted(a.status_code for a in answers) == [200] * 19 + [201]
    page = (await client.get("/v1/balance/transactions")).json()
    assert [i["type"] for i in page["items"]] == ["play_money", "play_money"]


async def test_play_money_has_a_limit(client: Client) -> None:
    problem = is_problem(await client.post("/v1/test/balance", {"number": "n", "available": "1000000.0001"}), 422, "validation_failed")
    assert problem["errors"][0]["pointer"] == "/available"


async def test_play_money_cannot_go_below_what_credit_allows(client: Client) -> None:
    assert (await client.post("/v1/test/balance", {"number": "n", "available": "0"})).json()["available"] == "0.0000"


async def test_nothing_of_test_mode_exists_for_live_keys(client: Client, database: Database, settings: Settings, merchant: TestMerchant) -> None:
    live = await make_key(database, settings, merchant.merchant_id, "live")
    for path in ("/v1/test/balance", "/v1/test/signature", "/v1/test/orders/ord_01JD0000000000000000000009/advance", "/v1/test/nothing"):
        is_problem(await client.post(path, {"number": "n", "available": "5"}, key=live), 404, "not_found")
        is_problem(await client.get(path, key=live), 404, "not_found")


async def test_our_string_to_sign_is_shown_line_by_line(client: Client, merchant: TestMerchant) -> None:
    body = b'{"any":"thing"}'
    answer = await client.post("/v1/test/signature?a=%20b", body, nonce="n" * 20)
    shown = answer.json()
    assert answer.status_code == 200, answer.text
    assert shown["signature_valid"] is True
    assert shown["lines"]["target"] == "/v1/test/signature?a=%20b"
    assert shown["lines"]["method"] == "POST" and shown["lines"]["nonce"] == "n" * 20
    assert shown["lines"]["body_sha256"] == hashlib.sha256(body).hexdigest()
    assert shown["string_to_sign"] == "".join(f"{line}\n" for line in shown["lines"].values())
    assert shown["bytes"] == len(shown["string_to_sign"])
    wrong = ApiKey(merchant.key.key_id, merchant.key.scheme, b"sk_test_wrong")
    helped = await client.post("/v1/test/signature", body, key=wrong)
    assert helped.status_code == 200 and helped.json()["signature_valid"] is False
    assert merchant.key.key.decode() not in helped.text
    assert (await client.get("/v1/balance")).json()["available"] == "10000.0000"


async def test_the_help_with_signatures_helps_nobody_else(client: Client, database: Database, settings: Settings, merchant: TestMerchant) -> None:
    live = await make_key(database, settings, merchant.merchant_id, "live")
    wrong_live = ApiKey(live.key_id, live.scheme, b"sk_live_wrong")
    is_problem(await client.post("/v1/test/signature", {}, key=wrong_live), 401, "bad_signature")
    stranger = ApiKey("ak_test_01JD0000000000000000000001", live.scheme, b"x")
    is_problem(await client.post("/v1/test/signature", {}, key=stranger), 401, "unknown_key")
    is_problem(await client.post("/v1/test/signature", {}, signed=False), 401, "auth_missing")
