"""Who is asking is settled before a single byte of a body is understood, at every signed endpoint of the contract."""

import gzip

import pytest
from fastapi import FastAPI
from tests.factories import contract
from tests.factories.client import Client

DOCUMENT = contract.document()
SIGNED = [
    (method.upper(), path) for path, found in DOCUMENT["paths"].items() for method, op in found.items() if op.get("security")
]
BODIES = {
    "none": b"",
    "no JSON": b"\xff\xfe\x00{{{",
    "deep": b"[" * 100_000,
    "many keys": b"{" + b",".join(b'"%d":1' % n for n in range(10_000)) + b"}",
    "gzip": gzip.compress(b"0" * 500_000),
}


@pytest.mark.parametrize("kind", BODIES)
async def test_an_unsigned_body_is_answered_without_being_read(app: FastAPI, client: Client, kind: str) -> None:
    assert len(SIGNED) > 25
    for method, path in SIGNED:
        answer = await client.send(method, path.replace("{", "").replace("}", ""), BODIES[kind], signed=False)
        assert (answer.status_code, answer.json()["code"]) == (401, "auth_missing"), (method, path, answer.text)


async def test_a_body_above_the_limit_is_refused_before_the_signature_is_looked_at(app: FastAPI, client: Client) -> None:
    answer = await client.send("POST", "/v1/orders", b"x" * 1_000_001, signed=False)
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")


async def test_every_signed_operation_refuses_a_wrong_signature(app: FastAPI, client: Client) -> None:
    """A route whose access row were ignored would answer something else."""
    wrong = {"Authorization": 'KM1-HMAC-SHA256 key_id="ak_test_01JD0000000000000000000001",timestamp="1",nonce="0123456789abcdef",signature="AAAA"'}
    for method, path in SIGNED:
        answer = await client.send(method, path.replace("{", "").replace("}", ""), signed=False, headers=wrong)
        assert answer.status_code == 401, (method, path, answer.text)
