"""Every refusal is a problem document, whoever refuses; nothing inner shows; nothing that is not yours can be told from nothing."""

import re
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.exceptions import HTTPException
from tests.api.test_signature import is_problem
from tests.factories.client import Client, running_app
from tests.factories.merchants import TestMerchant

from kameng_api.api import problems
from kameng_api.api.deps import Door
from kameng_api.kit.db import Database
from kameng_api.kit.errors import Problem, Unavailable
from kameng_api.kit.gather import Interrupted, Overflow
from kameng_api.settings import Settings

CONTRACT = {
    400: "malformed_json path_not_canonical cursor_invalid",
    401: "auth_missing auth_malformed unknown_key key_expired bad_signature timestamp_out_of_window nonce_reused",
    402: "insufficient_balance",
    403: "ip_not_allowed scope_missing merchant_suspended product_not_authorised",
    404: "not_found",
    409: "merchant_order_no_conflict state_conflict",
    413: "body_too_large",
    415: "unsupported_media_type",
    422: "validation_failed product_unavailable price_changed target_not_supported out_of_stock duplicate_target test_value_in_live",
    429: "rate_limited",
    500: "internal",
    503: "unavailable",
}
BODY = {"number": "n1", "available": "5.0000"}


@pytest.mark.parametrize(("status", "codes"), CONTRACT.items())
def test_every_code_of_the_contract_has_its_status(status: int, codes: str) -> None:
    for code in codes.split():
        assert problems.CODES[code].status == status


def test_every_code_is_explained() -> None:
    page = (Path(__file__).parents[2] / "docs" / "errors.md").read_text("utf-8")
    explained = dict(re.findall(r"^\| `([a-z_]+)` \| (\d{3}) \|", page, re.MULTILINE))
    assert explained == {code: str(meaning.status) for code, meaning in problems.CODES.items()}


def test_every_problem_class_has_a_code_in_the_table() -> None:
    pending, seen = [Problem], set()
    while pending:
        kind = pending.pop()
        pending += kind.__subclasses__()
        seen.add(kind.code)
    assert seen <= set(problems.CODES), seen - set(problems.CODES)


async def test_other_methods_are_named(client: Client) -> None:
    for method in ("PUT", "DELETE", "PATCH", "POST", "HEAD"):
        answer = await client.send(method, "/v1/balance")
        assert answer.status_code == 405
        assert answer.headers["allow"] == "GET"
        if method != "HEAD":
            is_problem(answer, 405, "method_not_allowed")
    is_problem(await client.send("POST", "/livez", signed=False), 405, "method_not_allowed")


async def test_only_json_is_read(client: Client) -> None:
    kinds = ["text/plain", "application/x-www-form-urlencoded", "application/json; charset=gbk", "application/vnd.x+json", "multipart/form-data", ""]
    for kind in kinds:
        is_problem(await client.post("/v1/test/balance", BODY, headers={"Content-Type": kind}), 415, "unsupported_media_type")


async def test_compressed_json_is_not_read(client: Client) -> None:
    is_problem(await client.post("/v1/test/balance", BODY, headers={"Content-Encoding": "gzip"}), 415, "unsupported_media_type")


async def test_json_may_be_declared_in_its_usual_spellings(client: Client) -> None:
    for kind in ("application/json", "application/json; charset=utf-8", 'Application/JSON;charset="UTF-8"'):
        assert (await client.post("/v1/test/balance", BODY, headers={"Content-Type": kind})).status_code in (200, 201)


MALFORMED = [
    b"", b"{", b"nonsense", b'{"number":"a","number":"b","available":"1"}', b'{"number":"a","available":NaN}', b"\xff\xfe", b"\xef\xbb\xbf{}",
    b'{"number":"a\\u0000","available":"1"}', b'{"number":"\\ud800","available":"1"}', b"[" * 21 + b"]" * 21, b"[" * 100_000, b"1" * 5000, b"{} {}",
]  # fmt: skip


async def test_json_that_can_be_read_in_two_ways_is_refused(client: Client) -> None:
    for body in MALFORMED:
        answer = await client.post("/v1/test/balance", body, headers={"Content-Type": "application/json"})
        problem = is_problem(answer, 400, "malformed_json")
        assert problem["charged"] == "no" and problem["retry"] == "never"


WRONG: list[tuple[Any, str, str]] = [
    ({**BODY, "extra": 1}, "/extra", "unknown_field"),
    ({"number": "n"}, "/available", "required"),
    ({**BODY, "available": 5}, "/available", "wrong_type"),
    ({**BODY, "available": 5.0}, "/available", "wrong_type"),
    ({**BODY, "available": True}, "/available", "wrong_type"),
    ({**BODY, "available": None}, "/available", "wrong_type"),
    ({**BODY, "available": "-5"}, "/available", "format"),
    ({**BODY, "available": "1e5"}, "/available", "format"),
    ({**BODY, "available": "5.00001"}, "/available", "format"),
    ({**BODY, "available": "5\n"}, "/available", "format"),
    ({**BODY, "available": "５"}, "/available", "format"),
    ({**BODY, "available": "05"}, "/available", "format"),
    ({**BODY, "number": 1}, "/number", "wrong_type"),
    ({**BODY, "number": "a b"}, "/number", "format"),
    ({**BODY, "number": "n\n"}, "/number", "format"),
    ({**BODY, "number": "x" * 65}, "/number", "format"),
    ([], "", "wrong_type"),
    ("text", "", "wrong_type"),
]


async def test_wrong_fields_are_named_and_not_repeated(client: Client) -> None:
    for body, pointer, code in WRONG:
        problem = is_problem(await client.post("/v1/test/balance", body), 422, "validation_failed")
        assert (pointer, code) in [(e["pointer"], e["code"]) for e in problem["errors"]], problem
        assert "５" not in str(problem) and "input" not in problem


async def test_page_sizes_are_strict(client: Client) -> None:
    for query in ("limit=0", "limit=101", "limit=-1", "limit=1.0", "limit=+1", "limit=1_0", "limit=", "limit=1e9", "limit=%201"):
        problem = is_problem(await client.get(f"/v1/balance/transactions?{query}"), 422, "validation_failed")
        assert problem["errors"][0]["pointer"] == "/query/limit"


async def test_unknown_and_repeated_parameters_are_refused(client: Client) -> None:
    for query in ("nonsense=1", "limit=1&limit=1", "limit=1&Limit=2", "cursor[]=a", "&", "=1", "limit=1&"):
        is_problem(await client.get(f"/v1/balance/transactions?{query}"), 422, "validation_failed")
        is_problem(await client.get(f"/v1/balance?{query}"), 422, "validation_failed")


async def test_cursors_nobody_gave_out_are_refused(client: Client) -> None:
    for cursor in ("x", "a.b", "null", "x" * 1000, "W10.AAAAAAAAAAAAAAAAAAAA"):
        for path in ("/v1/balance/transactions", "/v1/products"):
            is_problem(await client.get(f"{path}?cursor={cursor}"), 400, "cursor_invalid")


async def test_what_does_not_exist_reads_the_same_everywhere(client: Client) -> None:
    answers = [await client.get(path) for path in ("/v1/nowhere", "/v1/products/nothing", "/v1/nowhere/else")]
    bodies = []
    for answer in answers:
        problem = is_problem(answer, 404, "not_found")
        problem.pop("request_id"), problem.pop("instance")
        bodies.append(problem)
    assert bodies[0] == bodies[1] == bodies[2]


TROUBLES = [
    (RuntimeError("SELECT secret FROM x; /usr/lib sk_live_abc"), 500, "internal", "unknown"),
    (Unavailable("dsn=postgresql://user:pass@host"), 503, "unavailable", "unknown"),
    (Interrupted(), 503, "unavailable", "unknown"),
    (Overflow(), 503, "unavailable", "no"),
    (HTTPException(418, "sk_live_abc"), 400, "bad_request", "no"),
    (HTTPException(404, "sk_live_abc"), 404, "not_found", "no"),
    (HTTPException(500, "sk_live_abc"), 500, "internal", "unknown"),
    (problems.Refused("no_such_code", "sk_live_abc"), 500, "internal", "unknown"),
]


@pytest.mark.parametrize(("trouble", "status", "code", "charged"), TROUBLES)
async def test_our_own_trouble_shows_nothing_inner(
    database: Database, settings: Settings, merchant: TestMerchant, monkeypatch: pytest.MonkeyPatch, redis: Any, trouble: Exception, status: int,
    code: str, charged: str,
) -> None:  # fmt: skip
    async with running_app(settings) as app, Client(app, merchant.key) as client:
        door: Door = app.state.door

        def broken() -> None:
            raise trouble

        assert (await client.get("/v1/balance")).status_code == 200  # the key is known now
        monkeypatch.setattr(door.db, "transaction", broken)
        answer = await client.post("/v1/test/balance", BODY)
        problem = is_problem(answer, status, code)
        assert problem["charged"] == charged
        for inner in ("sk_live", "SELECT", "postgresql", "/usr", "Traceback", "no_such_code"):
            assert inner not in answer.text
        read = await client.get("/v1/balance")
        assert read.status_code == status and read.json()["charged"] == "no"
        assert "sk_live" not in read.text
        monkeypatch.undo()


async def test_every_answer_names_itself(app: FastAPI, client: Client) -> None:
    ids = [
        (await client.get("/v1/balance")).headers["request-id"],
        (await client.get("/v1/balance", signed=False)).headers["request-id"],
        (await client.get("/livez", signed=False)).headers["request-id"],
        (await client.get("/nowhere", signed=False)).headers["request-id"],
    ]
    assert len(set(ids)) == 4
    assert all(re.fullmatch(r"req_[0-7][0-9A-HJKMNP-TV-Z]{25}", each) for each in ids)
