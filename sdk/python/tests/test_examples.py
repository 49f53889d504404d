"""Each example shop for real: its own process, a real house, real webhooks over loopback."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.factories.house import House

from kameng import Client
from kameng.webhooks import sign
from kameng_api.demo.clients import Keys
from kameng_api.demo.processes import free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]  # the first of them waits for the house to come up
PACKAGE = Path(__file__).parents[1]
APPS = ("flask_app.py", "fastapi_app.py", "django_app.py")
SKU = "mobile-cn-100"


class Running:
    """A shop that answers."""

    def __init__(self, url: str) -> None:
        self.http = httpx.Client(base_url=url, timeout=30, trust_env=False)

    def buy(self, target: str, **more: Any) -> str:
        answer = self.http.post("/orders", json={"sku": SKU, "target": target, **more})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["merchant_order_no"])

    def look(self, number: str) -> dict[str, Any]:
        found: dict[str, Any] = self.http.get("/orders", params={"merchant_order_no": number}).json()
        return found

    def until(self, number: str, status: str, within_s: float = 20.0) -> dict[str, Any]:
        ends_at = time.monotonic() + within_s
        while (found := self.look(number))["status"] != status:
            assert time.monotonic() < ends_at, found
            time.sleep(0.1)
        return found


@contextmanager
def running(app: str, folder: Path, port: int, **env: str) -> Iterator[Running]:
    log = folder / "app.log"
    with log.open("wb") as said:
        process = subprocess.Popen(
            [sys.executable, str(PACKAGE / "examples" / app)],
            env={
                **{name: value for name, value in os.environ.items() if not name.startswith("KAMENG_")},
                "PYTHONPATH": str(PACKAGE / "src"), "PYTHONDONTWRITEBYTECODE": "1", "PORT": str(port), "SHOP_DB": str(folder / "shop.sqlite"),
                "no_proxy": "127.0.0.1", "NO_PROXY": "127.0.0.1", **env,
            },
            stdout=said, stderr=said,
        )  # fmt: skip
        shop = Running(f"http://127.0.0.1:{port}")
        try:
            ends_at = time.monotonic() + 60
            while True:
                try:
                    if shop.http.get("/orders", params={"merchant_order_no": "none"}).status_code == 404:
                        break
                except httpx.TransportError:
                    assert process.poll() is None and time.monotonic() < ends_at, log.read_text()
                time.sleep(0.1)
            yield shop
        finally:
            process.terminate()
            process.wait(timeout=20)


def told(house: House, keys: Keys) -> dict[str, str]:
    assert keys.secret is not None
    return {"KAMENG_BASE_URL": house.base_url, "KAMENG_KEY_ID": keys.key_id, "KAMENG_SECRET": keys.secret}


@pytest.mark.parametrize("app", APPS)
def test_a_shop_hears_webhooks_once_and_in_whatever_order(
    app: str, house: House, tmp_path: Path, client_of: Callable[[str, Keys], Client]
) -> None:
    keys, port = house.merchant(), free_port()
    with client_of(house.base_url, keys) as client:
        endpoint = client.webhook_endpoints.create(f"http://127.0.0.1:{port}/webhooks/kameng")
        with running(app, tmp_path, port, SHOP_WEBHOOK_SECRETS=endpoint.secret, SHOP_POLL_S="0", **told(house, keys)) as shop:
            number = shop.buy("10000000001")
            done = shop.until(number, "succeeded")
            assert (done["deliveries"], done["refunds"]) == (1, 0)
            lost = shop.until(shop.buy("10000000002"), "failed")
            assert (lost["deliveries"], lost["refunds"], lost["reason"]) == (0, 1, "supplier_rejected")
            events = [event for event in client.events.list() if event.order is not None and event.order.merchant_order_no == number]
            assert len(events) == 3
            for event in [*events, *events[::-1]]:  # all of it again, and backwards
                body = _body(event.id, client)
                answer = shop.http.post("/webhooks/kameng", content=body, headers=sign(endpoint.secret, event.id, int(time.time()), body))
                assert answer.status_code == 204
            assert shop.look(number) == done
            forged = body.replace(b'"processing"', b'"failed"')
            for secret, content in ((keys.webhook_secret, body), (endpoint.secret, forged)):
                headers = sign(secret, events[0].id, int(time.time()), body)
                status = shop.http.post("/webhooks/kameng", content=content, headers=headers).status_code
                assert status == 400 or content == body == forged
            assert shop.http.post("/webhooks/kameng", content=b"{}").status_code == 400
            assert shop.look(number) == done


def _body(event_id: str, client: Client) -> bytes:
    """The event as the house would send it once more."""
    event = client.events.get(event_id)
    wire = {"id": event.id, "type": event.type, "timestamp": event.timestamp.isoformat().replace("+00:00", "Z"), "data": event.data, **event.extra}
    return json.dumps(wire).encode()


@pytest.mark.parametrize("app", APPS)
def test_a_shop_that_hears_nothing_asks(app: str, house: House, tmp_path: Path) -> None:
    keys = house.merchant()
    with running(app, tmp_path, free_port(), SHOP_WEBHOOK_SECRETS=keys.webhook_secret, SHOP_POLL_S="0.3", **told(house, keys)) as shop:
        done = shop.until(shop.buy("10000000001"), "succeeded")
        assert (done["deliveries"], done["refunds"]) == (1, 0)
        both = shop.until(shop.buy("10000000006", quantity=2), "partially_succeeded")
        assert (both["deliveries"], both["refunds"]) == (1, 1)
        poor = shop.buy("10000000001", quantity=100000)
        assert shop.look(poor)["status"] == "refused" and shop.look(poor)["refunds"] == 1


def test_a_shop_whose_house_is_away_sends_the_same_number_later(house: House, tmp_path: Path) -> None:
    keys, away = house.merchant(), free_port()
    env = {"SHOP_WEBHOOK_SECRETS": keys.webhook_secret, "SHOP_POLL_S": "0"}
    probe = (
        "import sys; sys.path.insert(0, sys.argv[1]); from shop import Shop; from kameng import Client, RetryPolicy, Webhooks; import os\n"
        "def shop(url): return Shop(os.environ['SHOP_DB'], Client(url, os.environ['KAMENG_KEY_ID'], os.environ['KAMENG_SECRET'],"
        " retry=RetryPolicy(attempts=2, first_wait_s=0.01), trust_env=False), Webhooks(os.environ['SHOP_WEBHOOK_SECRETS']))\n"
        f"number = shop('http://127.0.0.1:{away}').buy('{SKU}', 1, '10000000001')\n"
        "back = shop(os.environ['KAMENG_BASE_URL']); print(back.look(number)['status'], back.open_numbers() == [number])\n"
        "back.send(number); back.send(number); print(back.look(number)['status'], back.open_numbers(), number)"
    )
    done = subprocess.run(
        [sys.executable, "-c", probe, str(PACKAGE / "examples")],
        env={**os.environ, **env, **told(house, keys), "SHOP_DB": str(tmp_path / "s.sqlite"), "PYTHONPATH": str(PACKAGE / "src"),
             "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first == "sending True"
    status, none_open, number = second.split()
    assert status in ("accepted", "processing", "succeeded") and none_open == "[]"
    with Client(house.base_url, keys.key_id, keys.secret, trust_env=False) as client:
        assert [order.merchant_order_no for order in client.orders.list()] == [number]
