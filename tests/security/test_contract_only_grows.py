"""Whoever built against the contract of yesterday is served tomorrow: nothing on the floor below may disappear or become stricter.

`contract_floor.json` is what merchants may count on. It is made anew, deliberately, with `python -m tests.security.test_contract_only_grows`;
a change in it that takes something away is a broken promise and belongs into a new version of the API.
"""

import json
from pathlib import Path
from typing import Any

from tests.factories import contract

from kameng_api.api.problems import CODES
from kameng_api.webhooks.events import EVENT_TYPES

FLOOR = Path(__file__).with_name("contract_floor.json")
METHODS = ("get", "post", "put", "patch", "delete")


def promises(api: dict[str, Any]) -> dict[str, list[str]]:
    """Everything a program may rely on, as flat sorted names."""
    schemas = api["components"]["schemas"]
    operations = [(f"{m.upper()} {p}", op) for p, ops in api["paths"].items() for m, op in ops.items() if m in METHODS]
    return {
        "operations": sorted(name for name, _ in operations),
        "parameters": sorted(f"{name} {one['in']} {one['name']}" for name, op in operations for one in op.get("parameters", [])),
        "answers": sorted(f"{name} {status}" for name, op in operations for status in op["responses"] if status.startswith("2")),
        "fields": sorted(f"{name}.{field}" for name, schema in schemas.items() for field in schema.get("properties", {})),
        "values": sorted({str(value) for schema in schemas.values() for value in schema.get("enum", [])}),  # a name of a schema is no promise
        "codes": sorted(f"{code} {meaning.status}" for code, meaning in CODES.items()),
        "events": sorted(EVENT_TYPES),
    }


def demands(api: dict[str, Any]) -> list[str]:
    """What a request must bring; the list may only become shorter for what exists."""
    found = set()
    for path, operations in api["paths"].items():
        for method, op in operations.items():
            if method not in METHODS:
                continue
            name = f"{method.upper()} {path}"
            found |= {f"{name} {one['name']}" for one in op.get("parameters", []) if one.get("required")}
            for shape in op.get("requestBody", {}).get("content", {}).values():
                reference = shape.get("schema", {}).get("$ref", "")
                schema = api["components"]["schemas"].get(reference.rsplit("/", 1)[-1], {})
                found |= {f"{name} {field}" for field in schema.get("required", [])}
    return sorted(found)


def test_nothing_that_was_promised_is_gone() -> None:
    api, floor = contract.document(), json.loads(FLOOR.read_text("utf-8"))
    now = promises(api)
    gone = {kind: sorted(set(names) - set(now[kind])) for kind, names in floor["promises"].items()}
    assert {kind: names for kind, names in gone.items() if names} == {}


def test_nothing_new_is_demanded_of_old_requests() -> None:
    api, floor = contract.document(), json.loads(FLOOR.read_text("utf-8"))
    old = set(floor["promises"]["operations"])
    new = {demand for demand in demands(api) if any(demand.startswith(f"{name} ") for name in old)}
    assert new - set(floor["demands"]) == set()


if __name__ == "__main__":
    document = contract.document()
    FLOOR.write_text(json.dumps({"promises": promises(document), "demands": demands(document)}, indent=1) + "\n", "utf-8")
