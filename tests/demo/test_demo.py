"""`kameng demo --once --state FILE`, as a stranger runs it."""

import asyncio
import base64
import json
import os
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from kameng_api import embedded
from kameng_api.demo import processes
from kameng_api.demo.clients import Keys, Merchant
from kameng_api.demo.seed import ORDERS_OF_THE_POOR
from kameng_api.embedded.processes import all_commands

START_S = 200.0


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="kameng-demo-", dir=os.environ.get("KAMENG_TEST_VAR")) as made:
        Path(made).chmod(0o711)  # lets root's servers in
        yield Path(made)
        embedded.remove(Path(made) / "var" / "demo")


def _demo(folder: Path, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "kameng_api.cli", "demo", *arguments],
        cwd=folder, env=processes.environment({"var": str(folder / "var")}), text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip


def _nothing_is_left(folder: Path) -> bool:
    var = (folder / "var" / "demo").resolve()
    status = embedded.status(var)
    return not processes.leftovers(var, all_commands()) and status.postgres.pid is None and status.redis.pid is None


def _state(file: Path, running: "subprocess.Popen[str]") -> dict[str, Any]:
    """The file, as soon as it is there."""
    deadline = time.monotonic() + START_S
    while not file.exists():
        assert running.poll() is None, running.communicate()[0]
        assert time.monotonic() < deadline, "no state file"
        time.sleep(0.05)
    told: dict[str, Any] = json.loads(file.read_text())
    return told


def _keys(merchant: dict[str, Any]) -> Keys:
    names = ("name", "merchant_id", "key_id", "environment", "secret", "private_key", "delivery_key", "webhook_secret")
    return Keys(**{name: merchant[name] for name in names if name in merchant})


async def _buy(base_url: str, merchant: dict[str, Any], sku: str, orders: int) -> list[int]:
    async with Merchant(base_url, _keys(merchant)) as client:
        bodies = [{"merchant_order_no": f"V-{n}", "sku": sku, "target": f"1000000{3000 + n}"} for n in range(orders)]
        return sorted([(await client.send("POST", "/v1/orders", body)).status_code for body in bodies])


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_demo_holds_and_tells_where_it_answers_while_it_runs(folder: Path) -> None:
    file = folder / "state.json"
    running = _demo(folder, "--once", "--state", str(file))
    try:
        told = _state(file, running)
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert httpx.get(f"{told['base_url']}/readyz", trust_env=False).status_code == 200
        token = {"Authorization": f"Bearer {told['admin_token']}"}
        assert httpx.get(f"{told['admin_url']}/me", headers=token, trust_env=False).json()["role"] == "admin"
        assert httpx.get(f"{told['simulator_url']}/sim/health", trust_env=False).status_code == 200
        assert len(told["merchants"]) >= 3 and all(one["environment"] == "test" for one in told["merchants"])
        hmac, ed25519, poor = told["merchants"]
        assert len(base64.b64decode(ed25519["private_key"])) == 32 and "secret" not in ed25519
        first = told["skus"][0]
        assert asyncio.run(_buy(told["base_url"], hmac, first, 2)) == [201, 201]
        assert asyncio.run(_buy(told["base_url"], ed25519, first, 2)) == [201, 201]
        bought = asyncio.run(_buy(told["base_url"], poor, first, ORDERS_OF_THE_POOR + 5))
        assert bought == [201] * ORDERS_OF_THE_POOR + [402] * 5
        said, _ = running.communicate(timeout=300)
    finally:
        if running.poll() is None:
            running.send_signal(signal.SIGTERM)
            running.communicate(timeout=60)
    assert running.returncode == 0, said
    assert "✗" not in said
    assert _nothing_is_left(folder)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_after_kill_9_nothing_works_on_and_the_next_demo_starts_and_stops_cleanly(folder: Path) -> None:
    var = (folder / "var" / "demo").resolve()
    running = _demo(folder, "--state", str(folder / "first.json"))
    _state(folder / "first.json", running)
    running.kill()
    running.communicate()
    deadline = time.monotonic() + 60
    while processes.leftovers(var, all_commands()) and sys.platform == "linux":
        assert time.monotonic() < deadline, "processes of a killed demo go on"
        time.sleep(0.2)
    again = _demo(folder, "--state", str(folder / "second.json"))
    _state(folder / "second.json", again)
    again.send_signal(signal.SIGTERM)
    said, _ = again.communicate(timeout=90)
    assert again.returncode == 128 + signal.SIGTERM, said
    assert _nothing_is_left(folder)
