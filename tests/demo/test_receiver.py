"""The tour's webhook receiver: what it believes, and what it answers."""

from datetime import UTC, datetime

import httpx
import pytest
from standardwebhooks.webhooks import Webhook

from kameng_api.demo.receiver import build_app

SECRET = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
BODY = b'{"id":"evt_1"}'
CONTROL = {"Authorization": "Bearer control"}


def _signed(body: bytes, secret: str = SECRET) -> dict[str, str]:
    now = datetime.now(UTC)
    return {
        "webhook-id": "evt_1",
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(secret).sign("evt_1", now, body.decode()),
    }


@pytest.fixture
def client() -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(build_app("control")), base_url="http://receiver")


async def test_a_hook_without_a_secret_is_asked_to_come_again(client: httpx.AsyncClient) -> None:
    assert (await client.post("/hooks/shop", content=BODY, headers=_signed(BODY))).status_code == 503
    assert (await client.get("/received", headers=CONTROL)).json() == {"items": []}


async def test_only_what_verifies_is_accepted_and_everything_is_told(client: httpx.AsyncClient) -> None:
    assert (await client.put("/secrets", json={"shop": SECRET}, headers=CONTROL)).status_code == 204
    assert (await client.post("/hooks/shop", content=BODY, headers=_signed(BODY))).status_code == 204
    assert (await client.post("/hooks/shop", content=BODY + b" ", headers=_signed(BODY))).status_code == 400
    assert (await client.post("/hooks/shop", content=BODY)).status_code == 400
    odd = {**_signed(BODY), "webhook-signature": "no comma"}
    assert (await client.post("/hooks/shop", content=BODY, headers=odd)).status_code == 400
    items = (await client.get("/received", headers=CONTROL)).json()["items"]
    assert [item["verified"] for item in items] == [True, False, False, False]


async def test_secrets_and_what_arrived_need_the_token(client: httpx.AsyncClient) -> None:
    assert (await client.put("/secrets", json={"shop": SECRET})).status_code == 401
    assert (await client.get("/received", headers={"Authorization": "Bearer wrong"})).status_code == 401
