"""The kit against the example shops of the Python package: it passes all three, and names the mistake of a broken variant of each."""

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from kameng_api import conformance as kit
from kameng_api.conformance.catalogue import SCENARIOS
from kameng_api.conformance.options import VECTOR_API_SECRET, VECTOR_KEY_ID, VECTOR_WEBHOOK_SECRET
from kameng_api.demo.processes import free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]  # the first of them waits for all six rehearsals
ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "sdk" / "python" / "examples"
APPS = ("flask_app.py", "fastapi_app.py", "django_app.py")
PATIENCE = {"wait": 8.0, "quiet": 0.4, "hold": 0.3}

# App with a mistake in it → in which scenarios it shows → by which fault it is named there.
MISTAKES = {
    ("flask_app.py", "believes_anyone"): {"webhook_wrong_signature": "signature_not_checked", "webhook_old_timestamp": "replay_accepted"},
    ("fastapi_app.py", "counts_every_delivery"): {"webhook_duplicate": "duplicate_taken_twice"},
    ("django_app.py", "orders_again_after_silence"): {
        "order_timeout": "number_invented", "order_500": "number_invented", "order_replayed": "number_invented",
    },
}  # fmt: skip


@dataclass(frozen=True)
class Running:
    """A shop that answers at `url` and buys at the port that the kit is to listen on."""

    url: str
    kit_port: int

    @property
    def hooks(self) -> dict[str, str]:
        return {"callback": f"{self.url}/webhooks/kameng", "trigger": f"{self.url}/orders", "probe": f"{self.url}/orders"}


@asynccontextmanager
async def _running(app: str, folder: Path, mistake: str | None = None) -> AsyncIterator[Running]:
    """The example as its docstring says: `python flask_app.py`, told by its environment where to buy and whom to believe."""
    port = free_port()
    shop = Running(f"http://127.0.0.1:{port}", free_port())
    command = [str(EXAMPLES / app)] if mistake is None else [str(Path(__file__).with_name("broken_examples.py")), mistake, app]
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *command,
        env={
            **{name: value for name, value in os.environ.items() if not name.startswith("KAMENG_")},
            "PYTHONPATH": str(ROOT / "sdk" / "python" / "src"), "PYTHONDONTWRITEBYTECODE": "1", "PORT": str(port),
            "SHOP_DB": f"{folder}/{mistake or app}.sqlite", "SHOP_WEBHOOK_SECRETS": VECTOR_WEBHOOK_SECRET,
            "KAMENG_BASE_URL": f"http://127.0.0.1:{shop.kit_port}", "KAMENG_KEY_ID": VECTOR_KEY_ID, "KAMENG_SECRET": VECTOR_API_SECRET,
            "no_proxy": "127.0.0.1", "NO_PROXY": "127.0.0.1",
        },
        stdout=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        await _until_it_answers(shop, process)
        yield shop
    finally:
        process.kill()
        await process.wait()


async def _until_it_answers(shop: Running, process: asyncio.subprocess.Process) -> None:
    ends_at = time.monotonic() + 60
    async with httpx.AsyncClient(trust_env=False) as http:
        while True:
            try:
                if (await http.get(shop.hooks["probe"], params={"merchant_order_no": "none"})).status_code == 404:
                    return
            except httpx.TransportError:
                pass
            assert process.returncode is None and time.monotonic() < ends_at, "it does not come up; it said why above"
            await asyncio.sleep(0.2)


@dataclass(frozen=True)
class Ran:
    """What the command left: its exit status, and its report in JSON."""

    status: int
    report: dict[str, Any]
    said: str


@pytest.fixture(scope="module")
async def rehearsals(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str | None], Ran | kit.Report]:
    """Every shop played against, all at the same time: most of a rehearsal is waiting."""
    folder = tmp_path_factory.mktemp("shops")

    async def by_command(app: str) -> Ran:
        async with _running(app, folder) as shop:
            hooks = [part for name, url in shop.hooks.items() for part in (f"--{name}", url)]
            patience = [part for name, seconds in PATIENCE.items() for part in (f"--{name}", str(seconds))]
            command = [sys.executable, "-m", "kameng_api.cli", "--json", "conformance", *hooks, *patience, "--listen", f"127.0.0.1:{shop.kit_port}"]
            process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE)
            out, said = await process.communicate()
            return Ran(process.returncode or 0, json.loads(out), said.decode())

    async def by_function(app: str, mistake: str) -> kit.Report:
        async with _running(app, folder, mistake) as shop:
            patience = {f"{name}_s": seconds for name, seconds in PATIENCE.items()}
            return await kit.run(kit.Options(**shop.hooks, port=shop.kit_port, **patience))  # type: ignore[arg-type]

    good, broken = await asyncio.gather(
        asyncio.gather(*(by_command(app) for app in APPS)), asyncio.gather(*(by_function(*which) for which in MISTAKES))
    )
    return {**{(app, None): ran for app, ran in zip(APPS, good, strict=True)}, **dict(zip(MISTAKES, broken, strict=True))}


@pytest.mark.parametrize("app", APPS)
def test_an_example_shop_passes_everything(app: str, rehearsals: dict[tuple[str, str | None], Ran | kit.Report]) -> None:
    ran = rehearsals[app, None]
    assert isinstance(ran, Ran)
    not_passed = [finding for finding in ran.report["findings"] if finding["verdict"] != "passed"]
    assert not_passed == [], ran.said
    assert (ran.status, ran.report["counts"]) == (0, {"passed": len(SCENARIOS), "failed": 0, "not_checked": 0})


@pytest.mark.parametrize(("app", "mistake"), MISTAKES)
def test_the_mistake_of_a_broken_example_is_named_and_nothing_else(
    app: str, mistake: str, rehearsals: dict[tuple[str, str | None], Ran | kit.Report]
) -> None:
    report = rehearsals[app, mistake]
    assert isinstance(report, kit.Report)
    assert {f.scenario.key: f.faults[0].code for f in report.findings if f.faults} == MISTAKES[app, mistake], report.shown()
    assert {f.scenario.key for f in report.findings if f.verdict.value == "not_checked"} == set()
    assert report.exit_status() == 1


def test_silence_that_is_taken_for_a_failure_is_named_too(rehearsals: dict[tuple[str, str | None], Ran | kit.Report]) -> None:
    report = rehearsals["django_app.py", "orders_again_after_silence"]
    assert isinstance(report, kit.Report)
    finding = next(f for f in report.findings if f.scenario.key == "order_timeout")
    assert [fault.code for fault in finding.faults] == ["number_invented", "timeout_taken_for_failure", "refunded_in_doubt"]
