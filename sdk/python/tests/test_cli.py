"""`kameng-merchant` against a real house: what it does, what it says, and that no secret is ever among it."""

import json
import os
import secrets
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from tests.factories.house import House
from typer.testing import CliRunner

import kameng
from kameng import Webhooks
from kameng.cli import app
from kameng.cli_batches import batch_app
from kameng_api.demo.clients import Keys

Run = Callable[..., Any]
SKU = "mobile-cn-100"


def _number() -> str:
    return f"T-{secrets.token_hex(8)}"


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("KAMENG_BASE_URL", "KAMENG_KEY_ID", "KAMENG_SECRET", "KAMENG_PRIVATE_KEY", "KAMENG_LISTEN_SECRET"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("KAMENG_MERCHANT_CONFIG", str(tmp_path / "kameng" / "merchant.json"))
    return tmp_path / "kameng" / "merchant.json"


@pytest.fixture
def run(config: Path, keys: Keys) -> Run:
    """One command; whatever it prints, the secret is not in it."""

    def run(*arguments: str, status: int | None = 0, given: str = "") -> Any:
        result = CliRunner().invoke(app, list(arguments), input=given)
        assert keys.secret is not None
        assert keys.secret not in result.output
        assert status is None or result.exit_code == status, (result.output, result.exception)
        return result

    return run


@pytest.fixture
def at_home(run: Run, house: House, keys: Keys) -> Run:
    """The same, logged in."""
    run("login", "--url", house.base_url, "--key-id", keys.key_id, "--stdin", given=f"{keys.secret}\n")
    return run


def test_a_login_is_kept_where_only_its_owner_can_read(at_home: Run, config: Path, keys: Keys) -> None:
    assert stat.S_IMODE(config.stat().st_mode) == 0o600
    assert stat.S_IMODE(config.parent.stat().st_mode) == 0o700
    told = json.loads(at_home("--json", "whoami").stdout)
    assert told["key_id"] == keys.key_id
    assert told["environment"] == "test"
    assert "secret" not in told


def test_a_secret_that_is_asked_for_is_not_echoed(run: Run, house: House, keys: Keys, config: Path) -> None:
    run("login", "--url", house.base_url, "--key-id", keys.key_id, given=f"{keys.secret}\n")
    assert config.exists()


def test_a_key_that_does_not_work_is_not_kept(run: Run, house: House, keys: Keys, config: Path) -> None:
    result = run("login", "--url", house.base_url, "--key-id", keys.key_id, "--stdin", given="sk_test_wrong\n", status=1)
    assert "bad_signature" in result.stderr
    assert not config.exists()


def test_a_file_that_others_can_read_is_refused(at_home: Run, config: Path) -> None:
    config.chmod(0o644)
    assert "chmod 600" in at_home("whoami", status=2).stderr


def test_http_is_for_this_machine_only(run: Run, keys: Keys) -> None:
    result = run("login", "--url", "http://hub.example", "--key-id", keys.key_id, "--stdin", given="sk\n", status=2)
    assert "https" in result.stderr


def test_logout_forgets(at_home: Run, config: Path) -> None:
    at_home("logout")
    assert "sk_" not in config.read_text(encoding="utf-8")
    assert "login" in at_home("whoami", status=2).stderr


def test_products_are_listed_and_searched(at_home: Run) -> None:
    found = json.loads(at_home("--json", "products", SKU).stdout)["items"]
    assert [one["sku"] for one in found] == [SKU]
    assert isinstance(found[0]["unit_price"], str)
    assert SKU in at_home("products").stdout


def test_an_order_is_placed_shown_and_placed_only_once(at_home: Run) -> None:
    number = _number()
    first = json.loads(at_home("--json", "order", SKU, "--target", "10000000001", "--number", number).stdout)
    again = json.loads(at_home("--json", "order", SKU, "--target", "10000000001", "--number", number).stdout)
    assert first["status"] == "succeeded"
    assert (again["id"], again["replayed"]) == (first["id"], True)
    assert json.loads(at_home("--json", "show", number).stdout)["id"] == first["id"]
    assert "succeeded" in at_home("watch", "--once", first["id"]).stdout
    assert number in at_home("watch", "--once").stdout


def test_the_status_says_how_an_order_ended(at_home: Run) -> None:
    at_home("order", SKU, "--target", "10000000002", status=1)
    at_home("order", SKU, "--target", "10000000003", "--wait", "0", status=4)
    at_home("order", "no-such-sku", "--target", "10000000001", status=1)
    at_home("order", SKU, "--target", "10000000001", "--number", "not allowed", status=2)


def test_nothing_is_bought_when_only_asked(at_home: Run) -> None:
    number = _number()
    told = json.loads(at_home("--json", "order", SKU, "--target", "10000000001", "--number", number, "--validate-only").stdout)
    assert told["valid"] is True
    assert "not_found" in at_home("show", number, status=1).stderr


def test_a_house_that_does_not_answer_leaves_the_number_to_try_again(run: Run, keys: Keys) -> None:
    run("login", "--url", "http://127.0.0.1:9", "--key-id", keys.key_id, "--stdin", "--no-check", given=f"{keys.secret}\n")
    number = _number()
    result = run("--deadline", "1", "order", SKU, "--target", "10000000001", "--number", number, status=3)
    assert f"--number {number}" in " ".join(result.stderr.split())


def test_a_watched_order_is_told_version_by_version(at_home: Run) -> None:
    number = _number()
    at_home("order", SKU, "--target", "10000000001", "--number", number, "--wait", "0", status=None)
    lines = [json.loads(line) for line in at_home("--json", "watch", number, "--every", "0.2").stdout.splitlines()]
    versions = [line["version"] for line in lines]
    assert versions == sorted(set(versions))
    assert lines[-1]["status"] == "succeeded"


# --- listen -----------------------------------------------------------------------------------------------------------


class Receiver:
    """A program on this machine that takes webhooks; `broken`: how many it answers 500 first."""

    def __init__(self) -> None:
        self.taken: list[tuple[dict[str, str], bytes]] = []
        self.broken = 0
        self.url = ""


@contextmanager
def _receiver() -> Iterator[Receiver]:
    receiver = Receiver()

    class Door(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status = 500 if receiver.broken else 204
            receiver.broken = max(0, receiver.broken - 1)
            if status == 204:
                receiver.taken.append((dict(self.headers.items()), body))
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Door)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    receiver.url = f"http://127.0.0.1:{server.server_address[1]}/hooks"
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _order(at_home: Run) -> str:
    number = _number()
    at_home("order", SKU, "--target", "10000000001", "--number", number)
    time.sleep(0.3)  # its last event becomes certain
    return number


def test_events_come_signed_in_order_and_once(at_home: Run, config: Path) -> None:
    _order(at_home)
    with _receiver() as receiver:
        first = at_home("listen", "--forward-to", receiver.url, "--once")
        assert receiver.taken == [], "what happened before the first run is passed over"
        secret = json.loads(config.read_text(encoding="utf-8"))["profiles"]["default"]["listen_secret"]
        assert secret in first.stderr
        number = _order(at_home)
        at_home("listen", "--forward-to", receiver.url, "--once")
        events = [Webhooks(secret).verify(headers, body) for headers, body in receiver.taken]
        assert [e.order.merchant_order_no for e in events if e.order] == [number] * len(events)
        assert [e.version for e in events] == sorted({e.version for e in events})
        assert events[-1].type == "order.succeeded"
        at_home("listen", "--forward-to", receiver.url, "--once")
        assert len(receiver.taken) == len(events), "what was taken does not come again"


def test_listening_goes_on_where_a_broken_program_stopped_it(at_home: Run) -> None:
    secret = "whsec_" + "c2VjcmV0" * 4
    with _receiver() as receiver:
        start = ("listen", "--forward-to", receiver.url, "--secret", secret, "--once")
        at_home(*start)
        _order(at_home)
        receiver.broken = 2
        result = at_home(*start, "--attempts", "1", status=1)
        assert "was not taken" in " ".join(result.stderr.split())
        assert receiver.taken == []
        rows = [json.loads(line) for line in at_home("--json", *start).stdout.splitlines()]
        assert [row["status"] for row in rows[:2]] == [500, 204], "the same event is tried again"
        assert rows[0]["event_id"] == rows[1]["event_id"]
        assert len(receiver.taken) == len(rows) - 1 >= 2
        assert Webhooks(secret).verify(*receiver.taken[0]).type == "order.accepted"


def test_an_event_that_is_never_taken_can_be_skipped(at_home: Run) -> None:
    with _receiver() as receiver:
        start = ("listen", "--forward-to", receiver.url, "--once")
        at_home(*start)
        _order(at_home)
        receiver.broken = 1
        at_home(*start, "--attempts", "1", "--skip-failed")
        assert receiver.taken
        assert all(json.loads(body)["type"] != "order.accepted" for _, body in receiver.taken)


# --- the rest ---------------------------------------------------------------------------------------------------------


def test_our_seven_lines_are_the_houses(at_home: Run, tmp_path: Path) -> None:
    body = tmp_path / "body.json"
    body.write_text('{"sku": "充"}', encoding="utf-8")
    told = json.loads(at_home("--json", "sign-debug", "--body", str(body), "--query", "a=1&b=%3D").stdout)
    assert told["signature_valid"] is True
    assert set(told["same"].values()) == {True}
    assert told["ours"]["target"].endswith("/v1/test/signature?a=1&b=%3D")
    assert "valid" in at_home("sign-debug").stdout


def test_a_wrong_secret_shows_as_an_invalid_signature_over_the_same_lines(run: Run, house: House, keys: Keys) -> None:
    run("login", "--url", house.base_url, "--key-id", keys.key_id, "--stdin", "--no-check", given="sk_test_wrong\n")
    told = json.loads(run("--json", "sign-debug", status=1).stdout)
    assert told["signature_valid"] is False
    assert set(told["same"].values()) == {True}


def test_statements_are_listed_and_a_day_without_one_is_refused(at_home: Run) -> None:
    assert json.loads(at_home("--json", "statement").stdout) == {"items": []}
    at_home("statement", "2020-01-01", status=1)


def test_a_file_of_orders_goes_up_once(at_home: Run, tmp_path: Path) -> None:
    numbers = [_number() for _ in range(3)]
    rows = [f"{number},{SKU},1000000000{target},till 7" for number, target in zip(numbers, (1, 1, 2), strict=True)]
    file = tmp_path / "orders.csv"
    file.write_text("\n".join(["merchant_order_no,sku,target,tagret", *rows]) + "\n", encoding="utf-8")
    first = at_home("--json", "batch", "upload", str(file), status=1)
    told = json.loads(first.stdout)
    assert (told["progress"]["succeeded"], told["progress"]["failed"], told["progress"]["total"]) == (2, 1, 3)
    assert "note: the column 'tagret'" in " ".join(at_home("batch", "show", told["id"], status=1).stderr.split())
    again = at_home("--json", "batch", "upload", str(file), status=1)
    assert json.loads(again.stdout)["id"] == told["id"]
    assert "nothing is bought twice" in " ".join(again.stderr.split())
    failed = tmp_path / "failed.csv"
    at_home("batch", "results", told["id"], "failed", "--to", str(failed))
    assert numbers[2] in failed.read_text(encoding="utf-8-sig")
    at_home("batch", "results", told["id"], "failed", "--to", str(failed), status=1)
    assert json.loads(at_home("--json", "show", numbers[0]).stdout)["status"] == "succeeded"
    assert told["id"] in at_home("batch", "list").stdout


def test_the_environments_key_is_taken_before_the_files(run: Run, house: House, keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    assert keys.secret is not None
    for name, value in (("BASE_URL", house.base_url), ("KEY_ID", keys.key_id), ("SECRET", keys.secret)):
        monkeypatch.setenv(f"KAMENG_{name}", value)
    assert json.loads(run("--json", "whoami").stdout)["key_id"] == os.environ["KAMENG_KEY_ID"]


def test_a_profile_that_was_named_is_never_replaced_by_the_environments_key(
    at_home: Run, house: House, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = json.loads(at_home("--json", "whoami").stdout)["key_id"]
    for name, value in (("BASE_URL", house.base_url), ("KEY_ID", "ak_test_another"), ("SECRET", keys.secret or "")):
        monkeypatch.setenv(f"KAMENG_{name}", value)
    assert json.loads(at_home("--json", "--profile", "default", "whoami").stdout)["key_id"] == own
    at_home("--profile", "nobody", "whoami", status=2)


@pytest.mark.parametrize("page", ["merchant-cli.md", "merchant-cli.zh-CN.md"])
def test_every_command_is_explained(page: str) -> None:
    text = (Path(__file__).resolve().parents[3] / "docs" / page).read_text(encoding="utf-8")
    commands = [command.name or command.callback.__name__ for command in app.registered_commands if command.callback]
    parts = [command.name or command.callback.__name__ for command in batch_app.registered_commands if command.callback]
    assert len(commands) > 9 and len(parts) > 6
    assert [name for name in commands if f"`{name}" not in text] == []
    assert [name for name in parts if name not in text] == []


def test_without_the_extra_it_says_what_to_install() -> None:
    program = "import sys; sys.modules['typer'] = None; import kameng.cli"
    where = {**os.environ, "PYTHONPATH": str(Path(kameng.__file__).parents[1])}
    ran = subprocess.run([sys.executable, "-c", program], env=where, capture_output=True, text=True, check=False)
    assert ran.returncode != 0
    assert ran.stderr.strip() == "kameng-merchant needs the extra `cli`: pip install 'kameng[cli]'"
