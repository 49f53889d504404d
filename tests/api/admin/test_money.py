"""Money moved by hand through the operator's API: once, by two people when it is much, and always audited."""

import asyncio
from typing import Any

import pytest
from tests.api.admin.conftest import Hire, Operator, ok

from kameng_api.kit.db import Database
from kameng_api.ledger import queries as ledger

LARGE = "10000.0001"  # the settings' default limit is 10000.0000


@pytest.fixture
async def fang(hire: Hire) -> Operator:
    return await hire("finance", "fang")


@pytest.fixture
async def shop(admin: Operator) -> str:
    return str((await ok(await admin.post("/merchants", json={"name": "shop"}), 201))["id"])


def funding(amount: str = "500", external_id: str = "T-1", **more: Any) -> dict[str, Any]:
    return {"channel": "bank", "external_id": external_id, "amount": amount} | more


async def available(admin: Operator, shop: str, environment: str = "live") -> str:
    return str((await ok(await admin.get(f"/merchants/{shop}")))["balances"][environment]["available"])


async def holds(db: Database) -> bool:
    async with db.transaction() as tx:
        return await ledger.list_breaches(tx) == []


async def test_a_funding_can_be_sent_again(fang: Operator, admin: Operator, shop: str, database: Database) -> None:
    path = f"/merchants/{shop}/fundings"
    first = await fang.post(path, json=funding())
    assert first.status_code == 201
    assert "idempotent-replayed" not in first.headers
    again = await fang.post(path, json=funding("500.00"))
    assert (again.status_code, again.headers["idempotent-replayed"]) == (200, "true")
    assert again.json() == first.json()
    other = await fang.post(path, json=funding("500.0001"))
    assert (other.status_code, other.json()["code"]) == (409, "state_conflict")
    assert await available(admin, shop) == "500.0000"
    [line] = (await ok(await fang.get(f"/merchants/{shop}/transactions")))["items"]
    assert (line["type"], line["amount"], line["balance_after"]) == ("fund", "500.0000", "500.0000")
    assert await holds(database)


async def test_twenty_at_once_book_once(fang: Operator, admin: Operator, shop: str, database: Database) -> None:
    path = f"/merchants/{shop}/fundings"
    answers = await asyncio.gather(*(fang.post(path, json=funding()) for _ in range(20)))
    assert sorted(a.status_code for a in answers) == [200] * 19 + [201]
    assert await available(admin, shop) == "500.0000"
    assert await holds(database)


async def test_a_large_funding_waits_for_another_person(fang: Operator, hire: Hire, admin: Operator, shop: str, database: Database) -> None:
    path = f"/merchants/{shop}/fundings"
    asked = await fang.post(path, json=funding(LARGE))
    assert asked.status_code == 202
    approval = asked.json()["approval"]
    assert (await fang.post(path, json=funding(LARGE))).json()["approval"]["id"] == approval["id"]
    assert await available(admin, shop) == "0.0000"
    assert [a["id"] for a in (await ok(await fang.get("/approvals?state=waiting")))["items"]] == [approval["id"]]

    own = await fang.post(f"/approvals/{approval['id']}/approve")
    assert (own.status_code, own.json()["code"]) == (409, "state_conflict")
    supporter = await hire("support", "su")
    assert (await supporter.post(f"/approvals/{approval['id']}/approve")).status_code == 403

    second = await hire("finance", "gao")
    both = await asyncio.gather(*(one.post(f"/approvals/{approval['id']}/approve") for one in (second, admin, second, admin)))
    assert sorted(a.status_code for a in both) == [200, 200, 409, 409], "who was first may say it twice"
    assert await available(admin, shop) == LARGE
    assert (await fang.post(path, json=funding(LARGE))).status_code == 200
    shown = await ok(await fang.get(f"/approvals/{approval['id']}"))
    assert (shown["state"], shown["made_by"]) == ("approved", "fang")
    assert shown["decided_by"] in ("gao", "admin")
    actions = [e["action"] for e in (await ok(await admin.get(f"/audit?subject={approval['id']}")))["items"]]
    assert actions == ["approval.approved", "approval.asked"]
    assert await holds(database)


async def test_a_rejected_movement_never_moves(fang: Operator, admin: Operator, shop: str) -> None:
    asked = await fang.post(f"/merchants/{shop}/fundings", json=funding(LARGE))
    path = f"/approvals/{asked.json()['approval']['id']}"
    assert (await ok(await admin.post(f"{path}/reject")))["state"] == "rejected"
    assert (await admin.post(f"{path}/approve")).status_code == 409
    assert await available(admin, shop) == "0.0000"


async def test_play_money_goes_to_the_test_book_only(fang: Operator, admin: Operator, shop: str) -> None:
    play = funding("999999", environment="test")
    assert (await fang.post(f"/merchants/{shop}/fundings", json=play)).status_code == 201
    assert await available(admin, shop) == "0.0000"
    assert await available(admin, shop, "test") == "999999.0000"
    assert (await ok(await fang.get("/ledger/house?environment=live")))["items"] == []


async def test_adjustments_credit_lines_and_topups(fang: Operator, admin: Operator, shop: str, database: Database) -> None:
    adjust = {"ticket": "A-1", "amount": "-5", "note": "counted again"}
    broke = await fang.post(f"/merchants/{shop}/adjustments", json=adjust)
    assert (broke.status_code, broke.json()["code"]) == (402, "insufficient_balance")
    line = {"ticket": "C-1", "limit": "20"}
    assert (await fang.put(f"/merchants/{shop}/credit-line", json=line)).status_code == 201
    assert (await fang.post(f"/merchants/{shop}/adjustments", json=adjust)).status_code == 201
    assert (await fang.post(f"/merchants/{shop}/adjustments", json=adjust)).status_code == 200
    assert await available(admin, shop) == "-5.0000"

    settings = {"base_url": "http://127.0.0.1:9", "app_key": "account-a", "secret": "0123456789abcdef"}
    channel = {"id": "one", "name": "One", "adapter": "simulator", "environment": "live", "settings": settings}
    await ok(await admin.post("/channels", json=channel), 201)
    assert (await fang.post("/channels/one/topups", json={"topup_no": "S-1", "amount": "300"})).status_code == 201
    assert (await fang.post("/channels/one/topups", json={"topup_no": "S-1", "amount": "300"})).status_code == 200
    assert (await fang.post("/channels/one/topups", json={"topup_no": "S-1", "amount": "301"})).status_code == 409
    house = {"account": "supplier_prepaid:one", "ticket": "H-1", "amount": "-1", "note": "fee"}
    assert (await fang.post("/house/adjustments", json=house)).status_code == 201
    sums = {i["account"]: i["net"] for i in (await ok(await fang.get("/ledger/house")))["items"]}
    assert sums["supplier_prepaid:one"] == "-301.0000"
    assert sums["bank:main"] == "300.0000"
    assert await holds(database)


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        (funding("0"), "/amount"),
        (funding("-1"), "/amount"),
        (funding("1.23456"), "/amount"),
        ({**funding(), "amount": 5}, "/amount"),
        ({**funding(), "amount": 5.5}, "/amount"),
        (funding(channel="No Such!"), "/channel"),
        (funding(external_id="a b"), "/external_id"),
        (funding(currency="USD"), "/currency"),
        (funding(environment="beta"), "/environment"),
        (funding(odd=1), "/odd"),
    ],
)
async def test_wrong_fundings_change_nothing(fang: Operator, admin: Operator, shop: str, body: dict[str, Any], pointer: str) -> None:
    answer = await fang.post(f"/merchants/{shop}/fundings", json=body)
    assert answer.status_code == 422, answer.text
    assert [e["pointer"] for e in answer.json()["errors"]] == [pointer]
    assert answer.json()["charged"] == "no"
    assert await available(admin, shop) == "0.0000"
