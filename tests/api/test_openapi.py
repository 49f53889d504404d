"""The committed contract is what the app does, no more and no less; and every signed endpoint says what it needs."""

import json
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from tests.factories.client import Client

from kameng_api.api import openapi
from kameng_api.api.access import TABLE, AccessMap, shape_of
from kameng_api.main import build_app
from kameng_api.settings import Settings
from kameng_api.webhooks.events import EVENT_TYPES

FOLDER = Path(__file__).parents[2] / "openapi"
METHODS = ("get", "post", "put", "patch", "delete")


@pytest.fixture(scope="module")
def built() -> FastAPI:
    return build_app(Settings(_env_file=None))


@pytest.fixture(scope="module")
def merchants(built: FastAPI) -> dict[str, Any]:
    return openapi.merchant_document(built)


@pytest.fixture(scope="module")
def operators(built: FastAPI) -> dict[str, Any]:
    return openapi.admin_document(built)


def test_the_committed_files_are_what_the_app_says(built: FastAPI) -> None:
    for name, text in openapi.texts(built).items():
        path = FOLDER / name
        assert path.is_file(), f"run `make openapi`: {name} is missing"
        assert path.read_text("utf-8") == text, f"run `make openapi`: {name} is not what the app does"


def test_every_signed_route_stands_in_the_access_table_and_back(merchants: dict[str, Any]) -> None:
    routes = {(m.upper(), shape_of(p)) for p, ops in merchants["paths"].items() if p.startswith("/v1/") for m in ops}
    assert routes == {(row.method, row.shape) for row in TABLE}


def test_every_signed_operation_names_its_scope_and_its_refusals(merchants: dict[str, Any]) -> None:
    table = AccessMap()
    for path, operations in merchants["paths"].items():
        for method, operation in operations.items():
            if not path.startswith("/v1/"):
                assert "security" not in operation
                continue
            access = table.find(method.upper(), shape_of(path))
            assert access is not None
            assert operation["security"] == [{"hmac": []}, {"ed25519": []}]
            assert access.scope is None or f"`{access.scope}`" in operation["description"]
            for status in ("400", "401", "403", "429", "503", "default"):
                assert "application/problem+json" in operation["responses"][status]["content"], (path, method, status)


def test_merchants_do_not_read_about_operators(merchants: dict[str, Any], operators: dict[str, Any]) -> None:
    assert not [p for p in merchants["paths"] if p.startswith("/admin")]
    assert operators["paths"] and all(p.startswith("/admin/v1/") for p in operators["paths"])
    assert all(op["security"] == [{"bearer": []}] for ops in operators["paths"].values() for op in ops.values())


def test_every_webhook_is_documented(merchants: dict[str, Any]) -> None:
    assert tuple(merchants["webhooks"]) == EVENT_TYPES


def test_every_reference_leads_somewhere_and_every_component_is_used(merchants: dict[str, Any], operators: dict[str, Any]) -> None:
    for document in (merchants, operators):
        text = json.dumps(document, indent=1)
        for kind, parts in document["components"].items():
            if kind != "securitySchemes":
                assert all(f'"#/components/{kind}/{name}"' in text for name in parts)
        for line in text.splitlines():
            if '"$ref": ' in line:
                kind, name = line.split("#/components/")[1].strip('", ').split("/")
                assert name in document["components"][kind], line


def test_operation_ids_are_unique(merchants: dict[str, Any], operators: dict[str, Any]) -> None:
    for document in (merchants, operators):
        ids = [op["operationId"] for ops in document["paths"].values() for m, op in ops.items() if m in METHODS]
        assert len(ids) == len(set(ids))


async def test_the_document_is_shown_outside_live_mode_only(app: FastAPI, client: Client, merchants: dict[str, Any]) -> None:
    shown = await client.send("GET", "/openapi.json", signed=False)
    assert shown.status_code == 200
    assert shown.json() == merchants
    assert app.openapi() is app.openapi(), "it is long work, and anybody may ask"
    assert (await client.send("GET", "/docs", signed=False)).status_code == 200
    live = build_app(app.state.settings.model_copy(update={"mode": "live"}))
    async with live.router.lifespan_context(live), Client(live) as stranger:
        for path in ("/openapi.json", "/docs", "/redoc"):
            assert (await stranger.send("GET", path, signed=False)).json()["code"] == "not_found"
