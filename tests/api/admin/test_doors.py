"""The desk's side of the doors: accounts made, changed, rotated and switched off; callbacks looked at and sent again."""

from typing import Any

from tests.api.admin.conftest import Hire, Operator, ok
from tests.factories.merchants import TestMerchant

from kameng_api.api.doors import accounts
from kameng_api.kit.db import Database, fetch
from kameng_api.kit.ids import public_id


def _wanted(**more: Any) -> dict[str, Any]:
    return {"environment": "test", "door": "yrapi", "account": "10001", "products": {"8": {"sku": "mobile-cn-100"}}} | more


async def _create(admin: Operator, merchant: TestMerchant, **more: Any) -> Any:
    return await ok(await admin.post(f"/merchants/{public_id('mer', merchant.merchant_id)}/door-accounts", json=_wanted(**more)))


async def test_doors_are_described_with_the_form_of_their_accounts(admin: Operator) -> None:
    found = {door["name"]: door for door in (await ok(await admin.get("/doors")))["items"]}
    assert {"yrapi", "dujiao"} <= set(found)
    assert found["yrapi"]["secrets"] == [{"name": "api_key", "label": "API key (密钥)", "given_by_them": False}]
    assert found["yrapi"]["base_url"].endswith("/doors/yrapi") and found["yrapi"]["calls_back"] is True


async def test_the_secret_is_shown_once_and_kept_sealed(admin: Operator, merchant: TestMerchant, database: Database) -> None:
    made = await _create(admin, merchant)
    secret = made["secrets"]["api_key"]
    assert len(secret) == 32 and made["enabled"] is True
    shown = await ok(await admin.get(f"/door-accounts/{made['id']}"))
    listed = await ok(await admin.get(f"/merchants/{made['merchant_id']}/door-accounts"))
    assert "secrets" not in shown and listed["items"] == [shown]
    async with database.transaction() as tx:
        [row] = await fetch(tx, "SELECT secrets_sealed FROM door_accounts")
        audit = await fetch(tx, "SELECT action, facts::text AS facts FROM audit_entries WHERE action LIKE 'door%'")
    assert secret.encode() not in row["secrets_sealed"]
    assert [r["action"] for r in audit] == ["door_account.created"] and secret not in audit[0]["facts"]


async def test_a_rotated_secret_is_another_and_a_given_one_is_taken(admin: Operator, merchant: TestMerchant) -> None:
    made = await _create(admin, merchant)
    rotated = await ok(await admin.post(f"/door-accounts/{made['id']}/rotate", json={}))
    assert rotated["secrets"]["api_key"] != made["secrets"]["api_key"]
    given = await ok(await admin.post(f"/door-accounts/{made['id']}/rotate", json={"secrets": {"api_key": "given-by-hand-123"}}))
    assert given["secrets"] == {"api_key": "given-by-hand-123"}


async def test_terms_are_replaced_and_the_switch_turns(admin: Operator, merchant: TestMerchant) -> None:
    made = await _create(admin, merchant, cidrs=["203.0.113.0/24"], label="old shop")
    products = {"9": {"sku": "qb", "face_value": "50"}}
    changed = await ok(await admin.put(f"/door-accounts/{made['id']}", json={"products": products, "own_skus": False}))
    assert (changed["products"], changed["own_skus"], changed["cidrs"]) == (products, False, [])
    assert (await ok(await admin.post(f"/door-accounts/{made['id']}/disable")))["enabled"] is False
    assert (await ok(await admin.post(f"/door-accounts/{made['id']}/enable")))["enabled"] is True


async def test_one_name_stands_for_one_merchant(admin: Operator, merchant: TestMerchant) -> None:
    await _create(admin, merchant)
    other = await ok(await admin.post("/merchants", json={"name": "another"}))
    answer = await admin.post(f"/merchants/{other['id']}/door-accounts", json=_wanted())
    assert (answer.status_code, answer.json()["code"]) == (409, "state_conflict")
    await _create(admin, merchant, door="dujiao")  # at another door the name is free


async def test_what_does_not_fit_the_door_is_refused(admin: Operator, merchant: TestMerchant) -> None:
    path = f"/merchants/{public_id('mer', merchant.merchant_id)}/door-accounts"
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"door": "nobody"}, "/door"),
        ({"secrets": {"password": "12345678"}}, "/secrets/password"),
        ({"secrets": {"api_key": "short"}}, "/secrets/api_key"),
        ({"settings": {"repeat": "twice"}}, "/settings/repeat"),
        ({"settings": {"colour": "red"}}, "/settings/colour"),
        ({"account": "a b"}, "/account"),
        ({"products": {"8": {"sku": "a b"}}}, "/products"),
        ({"cidrs": ["10.0.0.1/8"]}, "/cidrs/0"),
    ]
    for more, pointer in wrong:
        answer = await admin.post(path, json=_wanted(**more))
        assert answer.status_code == 422, answer.text
        assert [e["pointer"] for e in answer.json()["errors"]] == [pointer]
        assert "short" not in answer.text


async def test_secrets_the_vendor_assigns_must_be_given(admin: Operator, merchant: TestMerchant) -> None:
    path = f"/merchants/{public_id('mer', merchant.merchant_id)}/door-accounts"
    answer = await admin.post(path, json={"environment": "test", "door": "jd_card", "account": "1010000055"})
    assert answer.status_code == 422
    assert {e["code"] for e in answer.json()["errors"]} == {"required"}


async def test_roles(hire: Hire, merchant: TestMerchant, admin: Operator) -> None:
    made = await _create(admin, merchant)
    support = await hire("support")
    assert (await support.get(f"/door-accounts/{made['id']}")).status_code == 200
    for answer in (
        await support.post(f"/merchants/{made['merchant_id']}/door-accounts", json=_wanted(account="2")),
        await support.post(f"/door-accounts/{made['id']}/rotate", json={}),
        await support.post(f"/door-accounts/{made['id']}/disable"),
        await support.put(f"/door-accounts/{made['id']}", json={}),
    ):
        assert answer.status_code == 403
    assert (await support.get(f"/door-accounts/{made['id']}/callbacks")).json() == {"items": [], "next_cursor": None}
    assert (await support.post(f"/door-accounts/{made['id']}/callbacks/whd_01JD0000000000000000000009/resend")).status_code == 404


def test_a_change_is_known_everywhere_within_the_contracts_five_seconds() -> None:
    assert accounts.GOOD_S <= 5
