"""The package and the OpenAPI file say the same: every shape field by field, every operation, every error code."""

import dataclasses
import inspect
import re
import sys
from collections.abc import Iterator
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import pytest
from tests.factories import contract

import kameng
from kameng import errors, models
from kameng.models import Event, Model, Order, OrderStatus

ROOT = Path(__file__).parents[3]
PACKAGE = ROOT / "sdk/python/src/kameng"
API = contract.document()
SCHEMAS: dict[str, Any] = API["components"]["schemas"]
MODELS = [m for m in vars(models).values() if isinstance(m, type) and issubclass(m, Model) and m.__schema__]

NO_METHOD = {
    "GET /livez", "GET /readyz",  # the operator's
}  # fmt: skip
"""Operations without a method of their own; `client.run(kameng.calls.Call(…))` reaches them."""

LEFT_IN_EXTRA: set[str] = set()
"""Fields that the package keeps in `extra` on purpose."""


def test_the_blocking_client_is_made_from_the_asyncio_one() -> None:
    sys.path.insert(0, str(ROOT / "sdk/python/tools"))
    try:
        import unasync  # a tool, not a part of the package
    finally:
        sys.path.pop(0)
    made = unasync.made()
    assert {path.name for path in (PACKAGE / "_sync").glob("*.py")} == {path.name for path in made}
    for path, text in made.items():
        assert path.read_text(encoding="utf-8") == text, f"run sdk/python/tools/unasync.py: {path.name} is not what _async says"
        assert not re.search(r"\basync\b|\bawait\b|\bAsync[A-Z]", text.split('"""', 2)[2]), path


def _plain(schema: dict[str, Any]) -> dict[str, Any]:
    return SCHEMAS[schema["$ref"].rsplit("/", 1)[-1]] if "$ref" in schema else schema


def _fits(hint: Any, schema: dict[str, Any]) -> bool:
    """Whether a value of the schema can be read as the hint."""
    if "anyOf" in schema:
        kinds = [one for one in schema["anyOf"] if one.get("type") != "null"]
        inner = [one for one in get_args(hint) if one is not NoneType]
        nullable = len(kinds) < len(schema["anyOf"])
        if nullable != (get_origin(hint) in (Union, UnionType)):
            return False
        return len(kinds) > 1 or _fits(inner[0] if nullable else hint, kinds[0])
    if get_origin(hint) in (Union, UnionType):
        return False
    found = _plain(schema)
    match found.get("type", "string" if "enum" in found else "object"):
        case "string":
            if found.get("format") == "date-time":
                return hint is datetime
            return hint in (str, Decimal, date) and not (hint is str and "[0-9]{4}$" in found.get("pattern", ""))
        case "integer":
            return hint is int
        case "boolean":
            return hint is bool
        case "array":
            return get_origin(hint) is tuple and _fits(get_args(hint)[0], found["items"])
        case "object":
            return _fits_object(hint, schema)
    return False


def _fits_object(hint: Any, schema: dict[str, Any]) -> bool:
    if isinstance(hint, type) and issubclass(hint, Model):
        return "$ref" in schema and hint.__schema__ == schema["$ref"].rsplit("/", 1)[-1]
    return get_origin(hint) is not None  # a mapping, kept as it came


@pytest.mark.parametrize("model", MODELS, ids=lambda m: m.__name__)
def test_a_model_is_what_the_openapi_file_says(model: type[Model]) -> None:
    if model.__schema__ not in SCHEMAS:
        pytest.skip(f"{model.__schema__} is not in the OpenAPI file (yet)")
    schema = SCHEMAS[model.__schema__]
    fields = {f.name: f for f in dataclasses.fields(model) if f.name != "extra" and not f.metadata.get("ours")}
    assert set(schema["properties"]) - set(fields) <= LEFT_IN_EXTRA, "the house tells more than the package reads"
    assert all(name in schema["properties"] or found.default is not dataclasses.MISSING for name, found in fields.items())
    hints = get_type_hints(model)
    for name, found in ((n, f) for n, f in fields.items() if n in schema["properties"]):
        assert _fits(hints[name], schema["properties"][name]), f"{name}: {hints[name]} is not {schema['properties'][name]}"
        if found.default is dataclasses.MISSING:
            assert name in schema["required"], f"{name} may be absent"


def test_money_is_decimal_and_nothing_else_is() -> None:
    money = {"amount", "unit_price", "refunded_amount", "available", "held", "opening", "closing", "balance_after", "face_value", "total_cost"}
    for model in MODELS:
        for name, hint in get_type_hints(model).items():
            if name in money and model is not models.EndpointHealth:
                assert Decimal in (hint, *get_args(hint)), f"{model.__name__}.{name}"


def _answers() -> Iterator[tuple[str, str]]:
    for path, operations in API["paths"].items():
        for method, operation in operations.items():
            if method not in ("get", "post", "put", "patch", "delete"):
                continue
            yield f"{method.upper()} {path}", str(operation)


def test_every_operation_has_a_method() -> None:
    source = "".join(path.read_text(encoding="utf-8") for path in (PACKAGE / "_async").glob("*.py"))
    source = re.sub(r"\{(?:calls\.)?segment\([a-z_]+\)\}|\{[a-z_]+\}", "{}", source)
    source += "\n/v1/webhook-endpoints/{}".join(["", *(f"/{verb}\"" for verb in re.findall(r'_path\(endpoint_id, "([a-z-]+)"\)', source))])
    missing = []
    for operation, _ in _answers():
        path = re.sub(r"\{[a-z_]+\}", "{}", operation.split(" ")[1])
        if operation not in NO_METHOD and not re.search(re.escape(path) + r"[\"']", source) and path != "/v1/webhook-endpoints/{}":
            missing.append(operation)
    assert not missing, "the package does not reach these; write a method, or name them in NO_METHOD"


def test_every_error_code_has_a_class_of_its_status() -> None:
    told = set(re.findall(r"`([a-z_]+)`", SCHEMAS["Problem"]["properties"]["code"]["description"]))
    assert set(errors.BY_CODE) <= told, "codes that no house sends"
    for kind in errors.BY_CODE.values():
        assert kind.__name__ in kameng.__all__


def test_the_states_of_an_order_are_those_of_the_contract() -> None:
    ours = {value for name, value in vars(OrderStatus).items() if name.isupper()}
    assert ours == set(SCHEMAS["Status"]["enum"])
    final = {status for status in ours if dataclasses.replace(ORDER, status=status).is_final}
    assert final == {"succeeded", "partially_succeeded", "failed", "cancelled"}


WIRE = {
    "id": "ord_1", "object": "order", "environment": "test", "version": 1, "status": "accepted", "substatus": None, "merchant_order_no": "1",
    "sku": "s", "product_type": "topup", "quantity": 1, "delivered_quantity": 0, "target": None, "unit_price": "1.0000", "amount": "1.0000",
    "currency": "CNY", "refunded_amount": "0.0000", "codes_available": False, "failure": None, "delivery": None,
    "created_at": "2026-11-22T11:44:59Z", "dispatched_at": None, "completed_at": None, "metadata": {},
}  # fmt: skip
ORDER = Order.read(WIRE)


@pytest.mark.parametrize(
    "change",
    [{"amount": 1.5}, {"amount": "x"}, {"version": "4"}, {"version": True}, {"created_at": "yesterday"}, {"id": None}, {"failure": []}],
)
def test_what_cannot_be_read_is_said_and_never_guessed(change: dict[str, Any]) -> None:
    with pytest.raises(kameng.BrokenAnswer):
        Order.read(WIRE | change)


@pytest.mark.parametrize(
    ("text", "microsecond"),
    [("2026-11-22T11:44:59Z", 0), ("2026-11-22T11:44:59.1Z", 100_000), ("2026-11-22T19:44:59.123456789+08:00", 123_456)],
)
def test_times_are_aware_and_in_utc(text: str, microsecond: int) -> None:
    found = Order.read(WIRE | {"created_at": text}).created_at
    assert found.isoformat().startswith("2026-11-22T11:44:59") and found.microsecond == microsecond and str(found.tzinfo) == "UTC"


def test_an_event_of_a_type_of_next_year_is_an_event() -> None:
    event = Event.read({"id": "evt_1", "type": "moon.rose", "timestamp": "2026-11-22T11:44:59Z", "data": {"id": "m", "phase": 1}})
    assert (event.order, event.version, event.object_id, event.data["phase"]) == (None, 0, "m", 1)


def test_both_clients_offer_the_same() -> None:
    for ours, theirs in ((kameng.Client, kameng.AsyncClient),):
        names = {name for name, _ in inspect.getmembers(ours) if name[0] != "_"}
        assert names ^ {name for name, _ in inspect.getmembers(theirs) if name[0] != "_"} == {"close", "aclose"}
