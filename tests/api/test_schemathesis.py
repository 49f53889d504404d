"""Whatever fits the OpenAPI document, and whatever does not, over a real socket and signed: no 5xx, and every answer as described."""

from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from redis.asyncio import Redis
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance, status_code_conformance
from tests.api.test_server import serving
from tests.factories.client import Client, authorization
from tests.factories.merchants import ApiKey, TestMerchant
from tests.factories.shop import PHONE, stock_the_shop

from kameng_api.embedded.servers import Servers
from kameng_api.kit.db import Database
from kameng_api.settings import Settings

DOCUMENT = Path(__file__).parents[2] / "openapi" / "kameng.v1.yaml"
CHECKS = (not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance)
MODES = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)


class Signed(requests.auth.AuthBase):
    """Signs the very bytes that are about to leave."""

    def __init__(self, key: ApiKey) -> None:
        self._key = key

    def __call__(self, r: requests.PreparedRequest) -> requests.PreparedRequest:
        content = r.body.encode() if isinstance(r.body, str) else r.body or b""
        assert r.method is not None and r.path_url is not None
        r.headers["Authorization"] = authorization(self._key, r.method, r.path_url.encode(), content)
        return r


def _explore(operation: Any, mode: GenerationMode, base_url: str, key: ApiKey, owned: dict[str, str]) -> int:
    """Call one operation with many inputs; returns how many were sent. Raises the first failure."""
    sent = 0

    @examples(max_examples=6, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy(generation_mode=mode), mine=st.booleans(), ours=st.booleans())
    def explore(case: Any, mine: bool, ours: bool) -> None:
        nonlocal sent
        if mine:  # else every id would be one that nobody has
            case.path_parameters = {name: owned.get(name, value) for name, value in (case.path_parameters or {}).items()}
        if ours and isinstance(case.body, dict) and operation.path == "/v1/orders":
            case.body = {**case.body, "sku": "mobile-cn-100", "target": PHONE}
        case.call_and_validate(base_url=base_url, auth=Signed(key), checks=CHECKS, timeout=20)
        sent += 1

    explore()
    return sent


@pytest.mark.timeout(240)
async def test_no_input_breaks_the_surface(
    database: Database, redis: "Redis[bytes]", migrated: Servers, settings: Settings, merchant: TestMerchant, tmp_path: Path
) -> None:
    await stock_the_shop(database, settings, "http://127.0.0.1:9", {"sim-a": "secret-of-sim-a-only-for-tests"})
    schema = schemathesis.openapi.from_path(DOCUMENT)
    operations = [found.ok() for found in schema.get_all_operations()]
    assert len(operations) > 25
    sent: dict[str, int] = {}
    async with (
        serving(migrated, tmp_path / "log", KAMENG_WEBHOOK_DEVELOPMENT="true", KAMENG_RATE_REVEALS_PER_S="5000") as (base_url, _),
        Client(key=merchant.key, base_url=base_url) as client,
    ):
        order = await client.post("/v1/orders", {"merchant_order_no": "PO-mine", "sku": "mobile-cn-100", "target": PHONE})
        endpoint = await client.post("/v1/webhook-endpoints", {"url": "https://merchant.example/hook"})
        assert (order.status_code, endpoint.status_code) == (201, 201), (order.text, endpoint.text)
        [event] = [e for e in (await client.get("/v1/events")).json()["items"] if e["type"] == "order.accepted"]
        owned = {
            "order_id": order.json()["id"], "endpoint_id": endpoint.json()["id"], "event_id": event["id"], "merchant_order_no": "PO-mine",
            "sku": "mobile-cn-100",
        }  # fmt: skip
        failures = []
        for operation in sorted(operations, key=lambda o: o.method == "delete"):  # what is deleted is no longer there to be asked about
            for mode in MODES:
                try:
                    sent[operation.label] = sent.get(operation.label, 0) + _explore(operation, mode, base_url, merchant.key, owned)
                except Unsatisfiable:  # there is no wrong input to an operation without parameters
                    assert mode is GenerationMode.NEGATIVE, operation.label
                except BaseExceptionGroup as trouble:
                    failures.append(f"{operation.label} {mode.value}: {[str(e) for e in trouble.exceptions]}")
                except Exception as trouble:
                    failures.append(f"{operation.label} {mode.value}: {trouble}")
        assert failures == [], "\n\n".join(failures)
    assert all(n >= 1 for n in sent.values()) and sum(sent.values()) > 200, sent
