"""The contract in machine form, generated from the app: one document for merchants, one for operators.

The files in `openapi/` are written by `write` and compared with the app by a test, so neither can say what the other does not do.
"""

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final, cast

import yaml
from fastapi import APIRouter, FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel, ConfigDict, Field

from kameng_api.api.access import AccessMap, shape_of
from kameng_api.api.problems import CODES, MEDIA_TYPE, TYPE_PREFIX
from kameng_api.api.wire import Time
from kameng_api.webhooks.events import EVENT_TYPES

MERCHANT_FILE: Final = "kameng.v1.yaml"
ADMIN_FILE: Final = "admin.v1.yaml"
_ADMIN: Final = "/admin/"
_SIGNED: Final = "/v1/"
_REFERENCE: Final = re.compile(r"^#/components/([^/]+)/([^/]+)$")

_ABOUT: Final = """\
Signed orders for top-ups, card codes and vouchers. Amounts are decimal strings with four places, times RFC 3339 UTC, lists keyset pages.

Every write carries your own number and is safe to repeat for ever. **Timeout or 5xx: send the same body again, signed anew, or GET by your own
number; never invent a new number.**

Errors are problem documents (RFC 9457); `code` is contract, see docs/errors.md. The `Request-Id` of every answer names it in our logs."""
_ABOUT_ADMIN: Final = "What operators do: merchants, keys, catalogue, channels, money, manual reviews. Everything is audited."
_SIGNING: Final = """\
`Authorization: {scheme} key_id="ak_…",timestamp="<unix seconds>",nonce="<16–64 of A-Za-z0-9_->",signature="<base64>"` over seven lines, each ended
by one LF: scheme, timestamp, nonce, key_id, method, request target exactly as sent, lower-case hex SHA-256 of the body. {key}
Clock ±300 s; a nonce serves once. See docs/signing.md."""
_SCHEMES: Final = {
    "hmac": {
        "type": "http",
        "scheme": "KM1-HMAC-SHA256",
        "description": _SIGNING.format(scheme="KM1-HMAC-SHA256", key="The HMAC key is the ASCII of the whole secret string, not decoded."),
    },
    "ed25519": {
        "type": "http",
        "scheme": "KM1-ED25519",
        "description": _SIGNING.format(scheme="KM1-ED25519", key="The public key is uploaded; we hold no secret."),
    },
}
_BEARER: Final = {"bearer": {"type": "http", "scheme": "bearer", "description": "An operator's token (`op_…`)."}}
_REQUEST_ID: Final = {"description": "Names this request in our logs.", "schema": {"type": "string"}}
_USUAL: Final = {
    "400": "The path or the JSON cannot be read in one way only",
    "401": "Not proven who is calling",
    "403": "Proven, and not allowed",
    "429": "Too many requests; see Retry-After",
    "503": "A server that we need did not answer; send the same request again, signed anew",
}


class WebhookData(BaseModel):
    """What the event is about. Apply it only if `version` is greater than the one you hold."""

    id: str = Field(examples=["ord_01JD0000000000000000000009"])
    version: int
    object: dict[str, Any] = Field(description="The object as GET shows it; never with card codes.")


class WebhookEvent(BaseModel):
    """Sent with `webhook-id`, `webhook-timestamp` and `webhook-signature` (Standard Webhooks 1.0). Answer 2xx within 15 s."""

    model_config = ConfigDict(title="WebhookEvent")

    id: str = Field(examples=["evt_01JD0000000000000000000042"])
    type: str
    timestamp: Time
    data: WebhookData


def install(app: FastAPI) -> None:
    """Document the webhooks, and let `/openapi.json` show the merchants' document: it is worked out once, half a second of a standing loop."""
    app.webhooks.routes.extend(_webhooks().routes)
    app.openapi = cache(lambda: merchant_document(app))  # type: ignore[method-assign]


@cache
def _webhooks() -> APIRouter:
    """Those of all apps of a process."""
    found = APIRouter()
    for event_type in EVENT_TYPES:
        operation_id = "heard_" + event_type.replace(".", "_")
        found.add_api_route(event_type, _heard, methods=["POST"], summary=event_type, operation_id=operation_id)
    return found


async def _heard(event: WebhookEvent) -> None:
    """Any 2xx means that you have heard; anything else is sent again for three days."""


def merchant_document(app: FastAPI) -> dict[str, Any]:
    """What merchants build against: every route but the operators', and the webhooks."""
    document = _whole(app, about=_ABOUT, webhooks=True)
    document["paths"] = {p: ops for p, ops in document["paths"].items() if not p.startswith(_ADMIN)}
    table = AccessMap()
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            if path.startswith(_SIGNED):
                _describe_signed(table, method.upper(), path, operation)
            _describe_answers(operation, problems=not path.endswith(("livez", "readyz")))
    document["components"]["securitySchemes"] = dict(_SCHEMES)
    return _only_what_is_used(document)


def admin_document(app: FastAPI) -> dict[str, Any]:
    """The operators' API."""
    document = _whole(app, about=_ABOUT_ADMIN, webhooks=False)
    document["info"]["title"] = "Kameng operator API"
    document["paths"] = {p: ops for p, ops in document["paths"].items() if p.startswith(_ADMIN)}
    for operations in document["paths"].values():
        for operation in operations.values():
            operation["security"] = [{"bearer": []}]
            _describe_answers(operation, problems=True)
    document["components"]["securitySchemes"] = dict(_BEARER)
    return _only_what_is_used(document)


def texts(app: FastAPI) -> dict[str, str]:
    """File name → YAML, as the files in `openapi/` must read."""
    documents = {MERCHANT_FILE: merchant_document(app)}
    operators = admin_document(app)
    if operators["paths"]:
        documents[ADMIN_FILE] = operators
    return {name: yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120) for name, content in documents.items()}


def write(app: FastAPI, folder: Path) -> list[Path]:
    """Write the files anew; returns those that changed."""
    folder.mkdir(parents=True, exist_ok=True)
    changed = []
    for name, text in texts(app).items():
        path = folder / name
        if not path.is_file() or path.read_text("utf-8") != text:
            path.write_text(text, "utf-8")
            changed.append(path)
    return changed


def _whole(app: FastAPI, *, about: str, webhooks: bool) -> dict[str, Any]:
    document = get_openapi(
        title=app.title,
        version=app.version,
        description=about,
        routes=app.routes,
        webhooks=app.webhooks.routes if webhooks else None,
        separate_input_output_schemas=False,
    )
    components = document.setdefault("components", {})
    components.setdefault("schemas", {})["Problem"] = _PROBLEM
    components["headers"] = {"RequestId": _REQUEST_ID}
    components["responses"] = {
        "Problem": {
            "description": "A refusal, or our failure",
            "headers": {"Request-Id": {"$ref": "#/components/headers/RequestId"}},
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
    }
    for operations in document.get("webhooks", {}).values():
        for operation in operations.values():
            operation["responses"].pop("422", None)
    return document


def _describe_signed(table: AccessMap, method: str, path: str, operation: dict[str, Any]) -> None:
    access = table.find(method, shape_of(path))
    assert access is not None, f"{method} {path} is missing in api/access.py"
    operation["security"] = [{"hmac": []}, {"ed25519": []}]
    needs = f"Scope `{access.scope}`." if access.scope else "No scope needed."
    if access.test_only:
        needs += " Test keys only: for a live key it does not exist."
    operation["description"] = f"{operation['description']}\n\n{needs}" if operation.get("description") else needs
    operation["x-rate-class"] = access.rate_class


def _describe_answers(operation: dict[str, Any], *, problems: bool) -> None:
    answers: dict[str, Any] = operation["responses"]
    if "HTTPValidationError" in str(answers.get("422")):
        del answers["422"]
    for answer in answers.values():
        answer.setdefault("headers", {}).setdefault("Request-Id", {"$ref": "#/components/headers/RequestId"})
    if problems:
        for status, meaning in _USUAL.items():
            answers.setdefault(status, _problem(meaning))
        answers["default"] = _problem("Any other refusal")


def _problem(meaning: str) -> dict[str, Any]:
    return {"description": meaning, "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}}


_PROBLEM: Final[Mapping[str, Any]] = {
    "title": "Problem",
    "type": "object",
    "description": "RFC 9457. Members may be added.",
    "required": ["type", "title", "status", "detail", "instance", "code", "request_id", "charged", "retry"],
    "properties": {
        "type": {"type": "string", "examples": [TYPE_PREFIX + "insufficient_balance"]},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "instance": {"type": "string"},
        "code": {"type": "string", "description": "Contract: " + ", ".join(f"`{code}`" for code in CODES)},
        "request_id": {"type": "string"},
        "charged": {"type": "string", "enum": ["no", "yes", "unknown"], "description": "Whether this request may have moved money."},
        "retry": {"type": "string", "enum": ["never", "same_request", "after_s", "query_first"]},
        "retry_after_s": {"type": "integer", "description": "With `after_s`."},
        "server_time": {"type": "integer", "description": "With `timestamp_out_of_window`: our clock, unix seconds."},
        "existing_order_id": {"type": "string", "description": "With `merchant_order_no_conflict`."},
        "existing_batch_id": {"type": "string", "description": "With `merchant_batch_no_conflict`."},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["pointer", "code", "detail"],
                "properties": {
                    "pointer": {"type": "string", "description": "JSON pointer into the body; /query/… and /path/… for parameters."},
                    "code": {"type": "string"},
                    "detail": {"type": "string"},
                },
            },
        },
    },
}


def _only_what_is_used(document: dict[str, Any]) -> dict[str, Any]:
    """Leave out components that nothing refers to, directly or through another."""
    components: dict[str, dict[str, Any]] = document["components"]
    used: set[tuple[str, str]] = set()
    pending: list[Any] = [document["paths"], document.get("webhooks", {})]
    while pending:
        node = pending.pop()
        if isinstance(node, dict):
            found = _REFERENCE.match(str(node.get("$ref", "")))
            if found:
                name = cast(tuple[str, str], found.groups())
                if name not in used:
                    used.add(name)
                    pending.append(components[name[0]][name[1]])
            pending += node.values()
        elif isinstance(node, list):
            pending += node
    document["components"] = {
        kind: {n: part for n, part in sorted(parts.items()) if kind == "securitySchemes" or (kind, n) in used}
        for kind, parts in components.items()
    }
    document["components"] = {kind: parts for kind, parts in document["components"].items() if parts}
    return document
