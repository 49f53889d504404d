"""`GET /v1/orders/{id}/receipt`: proven without our package, nobody else's, and without what the house keeps to itself."""

import importlib.util
from typing import Any

import pytest
from fastapi import FastAPI
from tests.api.test_contract import NOWHERE, SECRETS, body
from tests.api.test_signature import is_problem
from tests.conftest import ROOT
from tests.factories.client import Client
from tests.factories.merchants import TestMerchant, keyring_of, make_merchant
from tests.factories.shop import stock_the_shop

from kameng_api.evidence import actions
from kameng_api.evidence.rules import commitment
from kameng_api.evidence.signer import load_signer
from kameng_api.kit.db import Database, fetch
from kameng_api.settings import Settings

SIGNER = load_signer(None, bytes(range(32)))


@pytest.fixture
async def goods(database: Database, settings: Settings) -> None:
    await stock_the_shop(database, settings, NOWHERE, SECRETS)


def _snippet() -> Any:
    spec = importlib.util.spec_from_file_location("receipt", ROOT / "docs/snippets/python/receipt.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


async def _seal(database: Database, settings: Settings) -> None:
    async with database.transaction() as tx:
        await actions.seal(tx, keyring_of(settings), SIGNER)


async def test_a_receipt_is_proven_without_us(client: Client, database: Database, settings: Settings) -> None:
    order = (await client.post("/v1/orders", body("PO-1"))).json()
    await client.post("/v1/orders", body("PO-2"))
    path = f"/v1/orders/{order['id']}/receipt"
    problem = is_problem(await client.get(path), 409, "not_sealed_yet")
    assert problem["retry"] == "after_s"
    await client.post(f"/v1/orders/{order['id']}/cancel", {})
    await _seal(database, settings)
    receipt = (await client.get(path)).json()
    events = _snippet().verify(receipt, SIGNER.public_key.hex())
    assert [e["kind"] for e in events] == ["hold", "release"]
    assert "supplier" not in str(receipt) and "cogs" not in str(receipt)
    assert (await client.get("/v1/evidence/keys")).json()["keys"] == {SIGNER.key_id: SIGNER.public_key.hex()}
    salt = bytes.fromhex(receipt["salts"][events[1]["key"]])
    assert events[1]["facts"]["order"]["target"] == commitment(salt, "target", body("x")["target"].encode())
    assert events[1]["facts"]["order"]["merchant_order_no"] == "PO-1"
    async with database.transaction() as tx:
        stored = {r["salt"] for r in await fetch(tx, "SELECT salt FROM chain_facts")}
    assert salt not in stored, "what is stored opens the supplier's number too"


@pytest.mark.parametrize("what", ["leaf", "path", "root", "signature", "index"])
async def test_a_changed_receipt_proves_nothing(client: Client, database: Database, settings: Settings, what: str) -> None:
    order = (await client.post("/v1/orders", body("PO-1"))).json()
    await _seal(database, settings)
    receipt = (await client.get(f"/v1/orders/{order['id']}/receipt")).json()
    proof = receipt["leaves"][0]
    match what:
        case "leaf":
            proof["leaf"] = proof["leaf"].replace('"hold"', '"fold"', 1)
        case "path":
            proof["path"][0] = "00" * 32
        case "root":
            proof["head"]["block"]["root"] = "00" * 32
        case "signature":
            proof["head"]["signature"] = "00" * 64
        case "index":
            proof["index"] ^= 1
    with pytest.raises(Exception):  # noqa: B017
        _snippet().verify(receipt, SIGNER.public_key.hex())


async def test_nobody_else_sees_it(client: Client, app: FastAPI, database: Database, settings: Settings) -> None:
    order = (await client.post("/v1/orders", body("PO-1"))).json()
    await _seal(database, settings)
    other: TestMerchant = await make_merchant(database, settings)
    async with Client(app, other.key) as stranger:
        is_problem(await stranger.get(f"/v1/orders/{order['id']}/receipt"), 404, "not_found")
    is_problem(await client.get("/v1/orders/ord_nonsense/receipt"), 404, "not_found")
