"""Who may reach what: the token before the body, the role before the deed, for every endpoint there is."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from tests.api.admin.conftest import Hire, Operator
from tests.factories.client import Client

from kameng_api.api.admin import catalog, channels, merchants, money, orders, people, routing, watch
from kameng_api.api.admin.desk import DeskRoute
from kameng_api.kit.clock import utc_now
from kameng_api.kit.db import Database, fetch
from kameng_api.operators import actions, rules

PARTS = (catalog, channels, merchants, money, orders, people, routing, watch)
ROUTES = [route for part in PARTS for route in part.router.routes if isinstance(route, DeskRoute)]
ENDPOINTS = sorted((method, route.path, route.permission) for route in ROUTES for method in route.methods)
ULID = "01JD0000000000000000000009"
PATH = {
    "merchant_id": f"mer_{ULID}", "order_id": f"ord_{ULID}", "approval_id": f"apr_{ULID}", "alarm_id": f"alm_{ULID}",
    "incident_id": f"inc_{ULID}", "endpoint_id": f"whe_{ULID}", "key_id": f"ak_test_{ULID}", "kid": f"dk_{ULID}",
    "sku": "nothing", "channel_id": "nowhere", "supplier": "nobody", "rule_id": f"rul_{ULID}",
}  # fmt: skip


def client_for(app: FastAPI, headers: list[tuple[str, str]], address: str = "127.0.0.1") -> Operator:
    transport = httpx.ASGITransport(app, client=(address, 4711))
    return httpx.AsyncClient(transport=transport, base_url="http://api.test/admin/v1", headers=headers)


def test_every_route_of_the_package_is_tested_here() -> None:
    assert len(ENDPOINTS) > 50
    assert len({(method, path) for method, path, _ in ENDPOINTS}) == len(ENDPOINTS)


@pytest.mark.parametrize("role", rules.ROLES)
async def test_the_role_matrix(hire: Hire, role: str) -> None:
    """A role without the right gets 403 whatever it sends; one with it gets as far as the body."""
    operator = await hire(role)
    for method, path, permission in ENDPOINTS:
        answer = await operator.request(method, path.format(**PATH), json=None if method == "GET" else {"odd": 1})
        where = (role, method, path, answer.status_code, answer.text)
        if rules.allows(role, permission):
            assert answer.status_code in (200, 404, 409, 422), where
        else:
            assert answer.status_code == 403, where
            assert answer.json()["code"] == "role_missing", where


async def test_writes_are_never_open_to_viewers() -> None:
    for method, path, permission in ENDPOINTS:
        if method != "GET":
            assert not rules.allows("viewer", permission), (method, path)


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("Authorization", "Bearer")],
        [("Authorization", "Bearer op_" + "a" * 43)],
        [("Authorization", "Basic b3A6YQ==")],
        [("Authorization", "op_" + "a" * 43)],
    ],
)
async def test_without_a_good_token_nothing_is_read(app: FastAPI, headers: list[tuple[str, str]]) -> None:
    async with client_for(app, headers) as outsider:
        for method, path, _ in ENDPOINTS:
            answer = await outsider.request(method, path.format(**PATH), content=b'{"a":1,"a":2')
            assert answer.status_code == 401, (method, path, answer.text)
            assert answer.json()["code"] == "token_invalid"
            assert answer.headers["www-authenticate"] == "Bearer"
            assert answer.headers["content-type"] == "application/problem+json"


async def test_two_tokens_are_none(app: FastAPI, database: Database) -> None:
    async with database.transaction() as tx:
        made = await actions.create_operator(tx, "ann", "admin")
    good = ("Authorization", f"Bearer {made.token}")
    async with client_for(app, [good]) as one, client_for(app, [good, good]) as two:
        assert (await one.get("/me")).status_code == 200
        assert (await two.get("/me")).status_code == 401


async def test_a_token_ends_at_once(app: FastAPI, database: Database, admin: Operator) -> None:
    made = (await admin.post("/operators", json={"name": "bob", "role": "viewer"})).json()
    async with client_for(app, [("Authorization", f"bearer {made['token']}")]) as bob:
        assert (await bob.get("/me")).json()["name"] == "bob"
        assert (await admin.post("/operators/revoke", json={"name": "bob"})).status_code == 200
        assert (await bob.get("/me")).status_code == 401
    async with database.transaction() as tx:
        late = await actions.create_operator(tx, "late", "admin", expires_at=utc_now() - timedelta(seconds=1))
    async with client_for(app, [("Authorization", f"Bearer {late.token}")]) as gone:
        assert (await gone.get("/me")).status_code == 401


async def test_operators_call_from_inside_only(app: FastAPI, database: Database) -> None:
    async with database.transaction() as tx:
        made = await actions.create_operator(tx, "ann", "admin")
    async with client_for(app, [("Authorization", f"Bearer {made.token}")], "203.0.113.9") as outside:
        assert (await outside.get("/me")).json()["code"] == "ip_not_allowed"


async def test_a_merchants_key_opens_no_operators_door(client: Client) -> None:
    answer = await client.get("/admin/v1/me")
    assert (answer.status_code, answer.json()["code"]) == (401, "token_invalid")


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [
        (b"{", 400, "malformed_json"),
        (b'{"name":"a","name":"b"}', 400, "malformed_json"),
        (b'{"name":"a","odd":1}', 422, "validation_failed"),
        (b'{"name":1}', 422, "validation_failed"),
        (b"[]", 422, "validation_failed"),
    ],
)
async def test_bodies_are_read_strictly(admin: Operator, database: Database, content: bytes, status: int, code: str) -> None:
    answer = await admin.post("/merchants", content=content, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    async with database.transaction() as tx:
        assert await fetch(tx, "SELECT 1 FROM merchants") == []


async def test_unknown_paths_methods_and_parameters(admin: Operator) -> None:
    expected: list[tuple[Any, int]] = [
        (admin.get("/nothing"), 404),
        (admin.delete("/merchants"), 405),
        (admin.get("/merchants?odd=1"), 422),
        (admin.get("/merchants?limit=0"), 422),
        (admin.get("/merchants?limit=101"), 422),
        (admin.get("/merchants?cursor=abc"), 400),
        (admin.get("/merchants/mer_x"), 404),
    ]
    for request, status in expected:
        answer = await request
        assert answer.status_code == status, answer.text
        assert answer.headers["content-type"] == "application/problem+json"


def test_every_endpoint_and_permission_is_documented() -> None:
    page = (Path(__file__).parents[3] / "docs" / "operator-api.md").read_text(encoding="utf-8")
    for method, path, permission in ENDPOINTS:
        assert f"| `{method} {path}` | `{permission}` |" in page, (method, path)
    for permission, roles in rules.PERMISSIONS.items():
        row = " | ".join("yes" if role in roles else "" for role in rules.ROLES)
        assert f"| `{permission}` | {row} |" in page, permission
