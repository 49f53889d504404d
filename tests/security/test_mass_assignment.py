"""No request can set what is not its to set: every body of the contract is closed, and the app keeps to that."""

from typing import Any

import pytest
from fastapi import FastAPI
from tests.factories import contract
from tests.factories.client import Client

DOCUMENT = contract.document()
FORBIDDEN = {
    "id": "x", "status": "succeeded", "unit_cost": "0.0001", "amount": "0.0001", "merchant_id": "x", "book_id": 1, "version": 9, "environment": "live"
}  # fmt: skip
OPEN = {"show_signed_text"}
"""Signs whatever was sent: that is its purpose, and it stores nothing."""


def _with_body() -> list[tuple[str, str, dict[str, Any], str]]:
    found = []
    for path, operations in DOCUMENT["paths"].items():
        for method, op in operations.items():
            schema = op.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
            if schema and op["operationId"] not in OPEN:
                found.append((method.upper(), path, schema, op["operationId"]))
    return found


def _resolved(schema: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in schema:
        schema = DOCUMENT["components"]["schemas"][schema["$ref"].rsplit("/", 1)[-1]]
    for one in schema.get("anyOf", []):  # a body that may be left out
        if one.get("type") != "null":
            return _resolved(one)
    return schema


@pytest.mark.parametrize(("method", "path", "schema", "name"), _with_body(), ids=lambda v: v if isinstance(v, str) else "")
async def test_a_field_that_is_not_the_callers_is_refused(
    app: FastAPI, client: Client, method: str, path: str, schema: dict[str, Any], name: str
) -> None:
    shape = _resolved(schema)
    assert shape.get("additionalProperties") is False, name
    foreign = {field: value for field, value in FORBIDDEN.items() if field not in shape["properties"]}
    assert len(foreign) >= 6
    answer = await client.send(method, path.replace("{", "").replace("}", ""), foreign)
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (422, "validation_failed"), answer.text
    unknown = {one["pointer"].strip("/") for one in problem["errors"] if one["code"] == "unknown_field"}
    assert unknown == set(foreign)
