"""The merchant's own limits, and the fund flow as a file."""

import csv
import io
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from fastapi import FastAPI
from python_calamine import CalamineWorkbook
from sqlalchemy.engine import make_url
from tests.api.test_signature import is_problem
from tests.factories.client import Client
from tests.factories.counter import Counter
from tests.factories.merchants import TestMerchant, keyring_of, make_key, make_merchant
from tests.rooms.test_statements import run, today

from kameng_api.api import balance_export
from kameng_api.embedded.servers import Servers
from kameng_api.kit.db import Database, fetch
from kameng_api.kit.ids import new_ulid
from kameng_api.kit.money import parse_amount
from kameng_api.ledger import actions as ledger
from kameng_api.ledger import rules
from kameng_api.settings import Settings

ALERTS = "/v1/balance/alerts"
EXPORT = "/v1/balance/transactions/export"


async def test_limits_are_set_shown_and_taken_away(client: Client) -> None:
    none = (await client.get(ALERTS)).json()
    assert none == {
        "currency": "CNY", "amount": None, "hours_left": None, "set_by": None, "state": "ok", "reason": None, "low_since": None,
        "spendable": "10000.0000", "burn_rate_per_hour": {"last_hour": "0.0000", "last_day": "0.0000", "last_week": "0.0000"},
        "empty_in_s": None, "empty_at": None,
    }  # fmt: skip
    for _ in range(2):
        answer = await client.send("PUT", ALERTS, {"amount": "500", "hours_left": 24})
        assert answer.status_code == 200, answer.text
        assert answer.json() == none | {"amount": "500.0000", "hours_left": 24, "set_by": "merchant"}
    assert (await client.get(f"{ALERTS}?currency=CNY")).json() == answer.json()
    assert (await client.send("PUT", ALERTS, {})).json() == none


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"amount": "0"}, "/amount"), ({"amount": 500}, "/amount"), ({"amount": "-1"}, "/amount"), ({"hours_left": 0}, "/hours_left"),
        ({"hours_left": 721}, "/hours_left"), ({"hours_left": "24"}, "/hours_left"), ({"hours_left": True}, "/hours_left"),
        ({"currency": "cny"}, "/currency"), ({"more": 1}, "/more"),
    ],
)  # fmt: skip
async def test_a_wrong_limit_is_named(client: Client, body: object, pointer: str) -> None:
    problem = is_problem(await client.send("PUT", ALERTS, body), 422, "validation_failed")
    assert [e["pointer"] for e in problem["errors"]] == [pointer]


async def test_limits_belong_to_a_book_and_a_currency_with_money(
    app: FastAPI, client: Client, database: Database, settings: Settings, merchant: TestMerchant
) -> None:
    await client.send("PUT", ALERTS, {"amount": "500"})
    live = await make_key(database, settings, merchant.merchant_id, "live")
    other = await make_merchant(database, settings)
    for key in (live, other.key):
        assert (await client.get(ALERTS, key=key)).json()["amount"] is None
    is_problem(await client.get(f"{ALERTS}?currency=USD"), 404, "not_found")
    is_problem(await client.send("PUT", ALERTS, {"currency": "USD", "amount": "5"}), 404, "not_found")
    reader = await make_key(database, settings, merchant.merchant_id, scopes=("balance:read",))
    assert (await client.get(ALERTS, key=reader)).status_code == 200
    is_problem(await client.send("PUT", ALERTS, {"amount": "5"}, key=reader), 403, "scope_missing")


async def test_play_money_that_comes_in_is_told_like_real_money(client: Client, database: Database, merchant: TestMerchant) -> None:
    for number, available in (("n1", "12000"), ("n2", "7"), ("n1", "12000")):
        await client.post("/v1/test/balance", {"number": number, "available": available})
    [event] = (await client.get("/v1/events?type=balance.credited")).json()["items"]
    shown = event["data"]["object"]
    assert (shown["credited"], shown["available"], shown["reference"]) == ("2000.0000", "12000.0000", "n1")
    async with database.transaction() as tx:
        rows = await fetch(tx, "SELECT version FROM accounts WHERE book_id = $1 AND account = $2", merchant.book_id, rules.AVAILABLE)
    assert event["data"]["version"] == rows[0]["version"] - 1  # of the account, right after that change


# ---- the export ------------------------------------------------------------------------------------------------------


@pytest.fixture
async def days(database: Database, settings: Settings, migrated: Servers, merchant: TestMerchant) -> list[str]:
    """Two finished days with statements, and today: 10,000 in, then 7 holds a day, one of them of an order."""
    owner = await asyncpg.connect(make_url(migrated.owner_url).set(drivername="postgresql").render_as_string(hide_password=False))
    await owner.execute("UPDATE merchants SET created_at = now() - interval '2 days'")
    for age in (2, 1, 0):
        async with database.transaction() as tx:
            await ledger.post(tx, [rules.hold(merchant.book_id, new_ulid(), "CNY", 10_000 * (n + 1)) for n in range(7)])
        await owner.execute("UPDATE transfers SET created_at = now() - make_interval(days => $1) WHERE created_at > now() - interval '1 hour'", age)
    await owner.close()
    counter = Counter(database, keyring_of(settings), merchant.book_id, merchant.merchant_id)
    assert await run(counter, settings) == 4
    return [(today() - timedelta(days=n)).isoformat() for n in (2, 1, 0)]


def _rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text.removeprefix("\ufeff"), newline="")))


def _of(rows: list[dict[str, str]], kind: str) -> list[dict[str, str]]:
    return [row for row in rows if row["row"] == kind]


async def _export(client: Client, first: str, last: str, **more: Any) -> list[dict[str, str]]:
    answer = await client.get(f"{EXPORT}?from={first}&to={last}", **more)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.headers["content-disposition"] == f'attachment; filename="transactions-{first}-{last}-CNY-test.csv"'
    return _rows(answer.content.decode())


async def test_a_finished_day_holds_exactly_its_statement(client: Client, days: list[str]) -> None:
    for day in days[:2]:
        exported = await _export(client, day, day)
        stated = _rows((await client.get(f"/v1/statements/{day}?format=csv")).content.decode())
        assert exported == stated
    assert len(_of(exported, "movement")) == 7


async def test_days_together_are_the_days_one_by_one(client: Client, days: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(balance_export, "_PAGE", 3)
    whole = await _export(client, days[0], days[2])
    parts = [await _export(client, day, day) for day in days]
    assert _of(whole, "movement") == [row for part in parts for row in _of(part, "movement")]
    assert len(_of(whole, "movement")) == 22
    assert [row["amount"] for row in _of(whole, "subtotal")] == ["-84.0000", "10000.0000"]
    assert _of(whole, "opening")[0]["balance_after"] == "0.0000"
    assert _of(whole, "closing")[0]["balance_after"] == (await client.get("/v1/balance")).json()["available"] == "9916.0000"
    listed = (await client.get("/v1/balance/transactions?limit=100")).json()["items"]
    assert [row["transaction_id"] for row in _of(whole, "movement")] == [t["id"] for t in reversed(listed)]
    for before, after in pairwise(parts):
        assert _of(before, "closing")[0]["balance_after"] == _of(after, "opening")[0]["balance_after"]


async def test_the_workbook_says_the_same(client: Client, days: list[str], tmp_path: Path) -> None:
    answer = await client.get(f"{EXPORT}?from={days[0]}&to={days[2]}&format=xlsx")
    assert answer.status_code == 200 and answer.headers["content-type"] == balance_export.MEDIA_TYPES["xlsx"]
    book = CalamineWorkbook.from_filelike(io.BytesIO(answer.content))
    movements: list[list[Any]] = book.get_sheet_by_name("Movements").to_python()[1:]
    rows = _of(await _export(client, days[0], days[2]), "movement")
    assert [(m[2], m[5]) for m in movements] == [(r["type"], r["transaction_id"]) for r in rows]
    assert [round(m[3] * 10_000) for m in movements] == [_signed(r["amount"]) for r in rows]
    summary = {row[0]: row[1] for row in book.get_sheet_by_name("Statement").to_python()}
    assert (summary["date"], summary["closing"]) == (f"{days[0]}/{days[2]}", 9916.0)


def _signed(text: str) -> int:
    return -parse_amount(text[1:]) if text.startswith("-") else parse_amount(text)


async def test_days_without_a_statement_yet_are_cut_at_midnight(
    client: Client, database: Database, migrated: Servers, merchant: TestMerchant
) -> None:
    owner = await asyncpg.connect(make_url(migrated.owner_url).set(drivername="postgresql").render_as_string(hide_password=False))
    await owner.execute("UPDATE transfers SET created_at = now() - interval '3 days'")
    async with database.transaction() as tx:
        await ledger.post_one(tx, rules.hold(merchant.book_id, new_ulid(), "CNY", 50_000))
    await owner.execute("UPDATE transfers SET created_at = now() - interval '1 day' WHERE kind = 'hold'")
    await owner.close()
    old, quiet, day = [(today() - timedelta(days=n)).isoformat() for n in (3, 2, 1)]
    assert [r["amount"] for r in _of(await _export(client, old, old), "movement")] == ["10000.0000"]
    nothing = await _export(client, quiet, quiet)
    assert [r["row"] for r in nothing] == ["opening", "closing"] and nothing[0]["balance_after"] == "10000.0000"
    assert [r["amount"] for r in _of(await _export(client, day, day), "movement")] == ["-5.0000"]
    assert _of(await _export(client, "2020-01-01", "2020-02-01"), "closing")[0]["balance_after"] == "0.0000"


async def test_no_cell_is_a_formula(client: Client, database: Database, merchant: TestMerchant) -> None:
    async with database.transaction() as tx:
        await ledger.post_one(tx, rules.fund_merchant(merchant.book_id, "bank", "1", "CNY", 10_000))
        line = rules.Line(rules.FUNDING_CLEARING, rules.AVAILABLE, 1)
        await ledger.post_one(tx, rules.Posting(merchant.book_id, "=cmd|'x'!A1", "fund", "CNY", (line,)))
    rows = await _export(client, today().isoformat(), today().isoformat())
    assert [r["reference"] for r in _of(rows, "movement")][-1] == "'=cmd|'x'!A1"
    assert not [value for row in rows for name, value in row.items() if name not in ("amount", "balance_after") and value[:1] in "=+-@" and value]


async def test_nonsense_and_too_much_are_refused(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    day, tomorrow = today().isoformat(), (today() + timedelta(days=2)).isoformat()
    for query, pointer in (
        ("from=2026-13-01&to=2026-12-01", "/query/from"), ("from=2026-11-02&to=2026-11-01", "/query/to"), (f"from={day}", "/query/to"),
        ("from=2026-01-01&to=2026-11-01", "/query/to"), (f"from={tomorrow}&to={tomorrow}", "/query/from"),
        (f"from={day}&to={day}&format=pdf", "/query/format"),
        ("from=0001-01-01&to=0001-01-02", "/query/from"),
    ):  # fmt: skip
        problem = is_problem(await client.get(f"{EXPORT}?{query}"), 422, "validation_failed")
        assert problem["errors"][0]["pointer"] == pointer, query
    is_problem(await client.get(f"{EXPORT}?from={day}&to={day}&currency=USD"), 404, "not_found")
    monkeypatch.setattr(balance_export, "MOST_MOVEMENTS", 0)
    is_problem(await client.get(f"{EXPORT}?from={day}&to={day}"), 422, "validation_failed")


async def test_the_balance_leads_to_the_newest_statements(client: Client, days: list[str]) -> None:
    shown = (await client.get("/v1/balance")).json()["statements"]
    assert [s["date"] for s in shown] == [days[1], days[0]]
    for link in shown:
        statement = (await client.get(link["url"])).json()
        assert statement["date"] == link["date"] and statement["currency"] == link["currency"]
    listed = (await client.get("/v1/statements")).json()["items"]
    assert [s["id"] for s in shown] == [s["id"] for s in listed]
