"""The kit against real shops over HTTP: it passes the sound one, and names what each broken one gets wrong."""

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from kameng_api import conformance as kit
from kameng_api.cli.app import app
from kameng_api.conformance.catalogue import SCENARIOS
from kameng_api.conformance.options import VECTOR_API_SECRET, VECTOR_WEBHOOK_SECRET
from kameng_api.demo.processes import free_port

SHOP = Path(__file__).parent / "shop.py"
ORDERS = ("order_timeout", "order_500", "order_replayed", "order_rate_limited", "order_outcome_unknown", "order_clock_skew")

# What is broken → in which scenarios it shows → by which fault it is named there.
MISTAKES = {
    "no_signature_check": {"webhook_wrong_signature": "signature_not_checked", "webhook_old_timestamp": "replay_accepted"},
    "no_age_check": {"webhook_old_timestamp": "replay_accepted"},
    "takes_duplicates": {"webhook_duplicate": "duplicate_taken_twice"},
    "old_overwrites_new": {"webhook_reordered": "old_version_overwrote"},
    "invents_numbers": {"order_timeout": "number_invented", "order_500": "number_invented", "order_replayed": "number_invented"},
    "impatient": {"order_rate_limited": "retry_after_ignored"},
    "deaf_to_the_clock": {"order_clock_skew": "clock_not_corrected"},
    "refunds_in_doubt": {"order_outcome_unknown": "resold_in_doubt"},
    "deaf_after_the_end": {"webhook_reversal": "reversal_ignored"},
    "strict_about_types": {"webhook_unknown_type": "webhook_refused"},
    "redirecting": {"webhook_no_redirect": "webhook_redirected", "webhook_valid": "webhook_redirected"},
    "gives_up_in_doubt": {"order_timeout": "left_in_doubt", "order_500": "left_in_doubt", "order_replayed": "left_in_doubt"},
    "deaf_to_replays": {"order_replayed": "replay_not_understood"},
    "slow": {"webhook_unknown_type": "webhook_unanswered", "webhook_in_time": "answered_too_late"},
}
# Of these every webhook is lost, so that only what names the reason is played; of the one that gives up, not what a second attempt is needed for.
PLAYED = {mode: tuple(MISTAKES[mode]) for mode in ("redirecting", "slow", "gives_up_in_doubt")}


@contextmanager
def _shop(mode: str) -> Iterator[kit.Options]:
    """A shop in a process of its own, and the options to play against it."""
    port = free_port()
    process = subprocess.Popen([sys.executable, str(SHOP), mode, "0", f"http://127.0.0.1:{port}"], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        url = f"http://127.0.0.1:{int(process.stdout.readline())}"
        yield kit.Options(f"{url}/hooks", trigger=f"{url}/place", probe=f"{url}/believes", port=port, wait_s=4.0, quiet_s=0.4, hold_s=0.3)
    finally:
        process.kill()
        process.wait()


def _verdicts(report: kit.Report) -> dict[str, str]:
    return {finding.scenario.key: finding.verdict.value for finding in report.findings}


@pytest.fixture(scope="module")
async def reports() -> dict[str, kit.Report]:
    """Every shop played against, all at the same time: most of a rehearsal is waiting."""

    async def play(mode: str) -> tuple[str, kit.Report]:
        with _shop(mode) as options:
            return mode, await kit.run(replace(options, only=PLAYED.get(mode, ())))

    return dict(await asyncio.gather(*(play(mode) for mode in ("good", *MISTAKES))))


def test_a_sound_shop_passes_everything(reports: dict[str, kit.Report]) -> None:
    report = reports["good"]
    assert {key: verdict for key, verdict in _verdicts(report).items() if verdict != "passed"} == {}, report.shown()
    assert len(report.findings) == len(SCENARIOS)
    assert report.exit_status() == 0
    _expect_no_secret(json.dumps(report.shown(), ensure_ascii=False) + kit.html_page(report))


def _expect_no_secret(text: str) -> None:
    for secret in (VECTOR_API_SECRET, VECTOR_WEBHOOK_SECRET, "13800138000"):
        assert secret not in text
    assert re.search(r"v1,[A-Za-z0-9+/]{12}", text) is None
    assert re.search(r'signature=\\*"[A-Za-z0-9+/]{12}', text) is None
    assert "138****8000" in text


@pytest.mark.parametrize("mode", MISTAKES)
def test_each_mistake_is_named_and_nothing_else_is_blamed(mode: str, reports: dict[str, kit.Report]) -> None:
    report = reports[mode]
    found = {f.scenario.key: f.faults[0].code for f in report.findings if f.faults}
    assert found == MISTAKES[mode], report.shown()
    assert report.exit_status() == 1


def test_a_timeout_that_is_taken_for_a_failure_is_named_too(reports: dict[str, kit.Report]) -> None:
    finding = next(f for f in reports["gives_up_in_doubt"].findings if f.scenario.key == "order_timeout")
    assert [fault.code for fault in finding.faults] == ["left_in_doubt", "timeout_taken_for_failure"]


async def test_without_hooks_nothing_is_passed_that_was_not_seen() -> None:
    with _shop("good") as options:
        report = await kit.run(replace(options, trigger=None, probe=None))
    verdicts = _verdicts(report)
    assert {verdict for key, verdict in verdicts.items() if key.startswith("order_")} == {"not_checked"}
    assert verdicts["requests_signed"] == "not_checked"
    assert verdicts["webhook_duplicate"] == verdicts["webhook_reordered"] == "not_checked"
    assert verdicts["webhook_unknown_type"] == verdicts["webhook_in_time"] == "passed"
    assert report.exit_status() == 4
    assert report.exit_status(allow_unchecked=True) == 0


async def test_without_a_probe_a_forger_is_still_found() -> None:
    with _shop("no_signature_check") as options:
        report = await kit.run(replace(options, trigger=None, probe=None, only=("webhook_wrong_signature", "webhook_duplicate")))
    assert _verdicts(report) == {"webhook_wrong_signature": "failed", "webhook_duplicate": "not_checked"}


async def test_a_callback_that_nobody_serves_fails() -> None:
    report = await kit.run(kit.Options(f"http://127.0.0.1:{free_port()}/", port=0, only=("webhook_valid", "webhook_in_time")))
    assert _verdicts(report) == {"webhook_valid": "failed", "webhook_in_time": "not_checked"}


async def test_a_trigger_that_places_nothing_is_a_failure_only_of_the_first_order() -> None:
    with _shop("good") as options:
        report = await kit.run(replace(options, trigger=options.callback, wait_s=0.3, only=("order_placed", *ORDERS)))
    verdicts = _verdicts(report)
    assert verdicts.pop("order_placed") == "failed"
    assert set(verdicts.values()) == {"not_checked"}


def test_the_command_writes_the_report_and_ends_with_its_verdict(tmp_path: Path) -> None:
    page = tmp_path / "out.html"
    chosen = ("webhook_unknown_type", "webhook_duplicate", "webhook_reordered")
    only = [part for key in chosen for part in ("--only", key)]
    with _shop("takes_duplicates") as options:
        command = [sys.executable, "-m", "kameng_api.cli", "conformance", "--callback", options.callback, "--trigger", str(options.trigger)]
        command += ["--probe", str(options.probe), "--listen", f"127.0.0.1:{options.port}", "--quiet", "0.3", *only, "--report", str(page), "--json"]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 1, ran.stderr
    assert json.loads(ran.stdout)["counts"] == {"passed": 2, "failed": 1, "not_checked": 0}
    html = page.read_text(encoding="utf-8")
    assert "duplicate_taken_twice" in html
    assert "http://" not in re.sub(r"http://127\.0\.0\.1:[0-9]+", "", html), "the page loads nothing from elsewhere"
    assert "<script" not in html


@pytest.mark.parametrize("arguments", [["--listen", "8091"], ["--secret", "whsec_short"], ["--only", "no_such_scenario"]])
def test_the_command_refuses_what_it_cannot_read(arguments: list[str]) -> None:
    ran = CliRunner().invoke(app, ["conformance", "--callback", "http://127.0.0.1:1/", *arguments])
    assert ran.exit_code == 2, ran.output


def test_what_comes_over_the_wire_is_escaped_in_the_page() -> None:
    scenario = SCENARIOS[0][0]
    finding = kit.Finding(scenario, faults=[kit.Fault("x", "<b>bold</b>")])
    finding.exchanges.append(kit.Exchange("a → b", "POST http://h/", answer_body="<script>alert(1)</script>"))
    page = kit.html_page(kit.Report("now", "http://h/<i>", "http://k", (finding,)))
    assert "<script" not in page
    assert "<b>" not in page
    assert "<i>" not in page


@pytest.mark.parametrize("page", ["conformance.md", "conformance.zh-CN.md"])
def test_every_scenario_is_explained(page: str) -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / page).read_text(encoding="utf-8")
    assert {scenario.key for scenario, _ in SCENARIOS} - set(re.findall(r"`([a-z0-9_]+)`", text)) == set()
    assert set(re.findall(r"`((?:order|webhook|requests)_[a-z0-9_]+)`", text)) - {scenario.key for scenario, _ in SCENARIOS} == set()
