"""The rule of sending again: as decisions, and over real sockets against a server that answers as told."""

import asyncio
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from typer.testing import CliRunner

from kameng import (
    AsyncClient,
    BrokenAnswer,
    Client,
    ClockOutOfStep,
    InsufficientBalance,
    NoAnswer,
    NumberConflict,
    RateLimited,
    RetryPolicy,
    ServerError,
    Unprocessable,
)
from kameng.cli import app
from kameng.retries import Again, Attempted, Course, Stop

KEY_ID = "ak_test_01JD0000000000000000000001"
SECRET = "sk_test_8Zc0m0bqf3oQm9m1m8m2dX2jv8bK1v3pJt6yW5rT4uA"
QUICK = RetryPolicy(attempts=5, deadline_s=10.0, first_wait_s=0.01, longest_wait_s=0.02)


def course(policy: RetryPolicy = QUICK, *, repeatable: bool = True, writes: bool = True) -> Course:
    return Course(policy, repeatable=repeatable, writes=writes, began_s=0.0)


@pytest.mark.parametrize(
    ("was", "repeatable", "goes_on"),
    [
        (Attempted(None), True, True),  # silence
        (Attempted(None), False, False),
        (Attempted(None, reached=False), False, True),  # it never arrived
        (Attempted(502), True, True),  # a proxy's
        (Attempted(500, {"retry": "same_request", "charged": "unknown"}), True, True),
        (Attempted(500, {"retry": "same_request", "charged": "unknown"}), False, False),
        (Attempted(503, {"retry": "same_request", "charged": "no"}), False, True),
        (Attempted(503, {"retry": "after_s", "charged": "no"}, "1"), True, True),
        (Attempted(429, {"retry": "after_s", "charged": "no"}, "1"), False, True),
        (Attempted(408, {"retry": "same_request", "charged": "no"}), True, True),
        (Attempted(402, {"retry": "never", "charged": "no"}), True, False),
        (Attempted(409, {"retry": "query_first", "charged": "no"}), True, False),
        (Attempted(422, {"retry": "never"}), True, False),
        (Attempted(404, {}), True, False),
        (Attempted(302, {}), True, False),
        (Attempted(401, {"code": "bad_signature", "retry": "never"}), True, False),
        (Attempted(401, {"code": "nonce_reused", "retry": "same_request"}), False, True),
        (Attempted(401, {"code": "timestamp_out_of_window", "retry": "same_request"}), True, False),  # and does not say what time it is
        (Attempted(418, {"retry": "a word of next year"}), True, False),
    ],
)
def test_what_follows_an_attempt(was: Attempted, repeatable: bool, goes_on: bool) -> None:
    assert isinstance(course(repeatable=repeatable).next(was, 0.0), Again) is goes_on


def test_retry_after_is_waited_for_in_full_and_never_past_the_deadline() -> None:
    verdict = course().next(Attempted(429, {"retry": "after_s"}, "7"), 0.0)
    assert isinstance(verdict, Again) and verdict.wait_s == 7.0
    assert isinstance(course().next(Attempted(429, {"retry": "after_s"}, "11"), 0.0), Stop)
    assert isinstance(course().next(Attempted(429, {"retry": "after_s"}, "7"), 3.0), Stop)
    told = course().next(Attempted(503, {"retry": "after_s", "retry_after_s": 5}), 0.0)
    assert isinstance(told, Again) and told.wait_s == 5.0


def test_attempts_are_bounded_and_waits_grow_with_jitter() -> None:
    policy = RetryPolicy(attempts=6, deadline_s=1000.0, first_wait_s=1.0, longest_wait_s=4.0)
    for _ in range(50):
        going = course(policy)
        waits = []
        while isinstance(verdict := going.next(Attempted(None), 0.0), Again):
            waits.append(verdict.wait_s)
        assert len(waits) == 5 and going.attempts == 6
        assert all(widest / 2 <= wait <= widest for wait, widest in zip(waits, [1, 2, 4, 4, 4], strict=True))


def test_the_clock_is_corrected_twice_at_most() -> None:
    going = course()
    told = Attempted(401, {"code": "timestamp_out_of_window", "server_time": 1795350000})
    assert going.next(told, 0.0) == Again(0.0, 1795350000)
    assert going.next(told, 0.0) == Again(0.0, 1795350000)
    assert going.next(told, 0.0) == Stop()


@dataclass
class Script:
    """What the server answers, one after the other (the last for ever), and what it was sent."""

    answers: list[tuple[int, dict[str, str], bytes] | str]
    seen: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)
    url: str = ""


@pytest.fixture
def script() -> Iterator[Script]:
    told = Script([])

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            told.seen.append((self.command, self.path, dict(self.headers.items()), body))
            answer = told.answers[min(len(told.seen), len(told.answers)) - 1]
            self.close_connection = True
            if isinstance(answer, str):
                self._misbehave(answer)
                return
            status, headers, content = answer
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(content))} | headers).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def _misbehave(self, how: str) -> None:
            if how == "half":
                self.wfile.write(b"HTTP/1.1 201 Created\r\nContent-Length: 1000\r\n\r\n{")
            elif how == "drip":
                self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
                for _ in range(100):
                    self.wfile.write(b" ")
                    self.wfile.flush()
                    time.sleep(0.05)
            elif how == "silence":
                time.sleep(2)

        do_POST = do_PATCH = do_DELETE = do_GET

        def log_message(self, *_: Any) -> None:
            pass

        def handle(self) -> None:
            with suppress(OSError):  # the client has had enough
                super().handle()

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        told.url = f"http://127.0.0.1:{server.server_port}"
        yield told
        server.shutdown()


def problem(status: int, code: str, retry: str = "never", charged: str = "no", **more: Any) -> tuple[int, dict[str, str], bytes]:
    document = {"code": code, "title": code, "detail": "because", "retry": retry, "charged": charged, "request_id": "req_1", **more}
    return status, {"Content-Type": "application/problem+json"}, json.dumps(document).encode()


ORDER = {
    "id": "ord_01JD0000000000000000000009", "object": "order", "environment": "test", "version": 4, "status": "a state of next year",
    "substatus": None, "merchant_order_no": "PO-1", "sku": "s", "product_type": "topup", "quantity": 1, "delivered_quantity": 0, "target": None,
    "unit_price": "98.5000", "amount": "98.5000", "currency": "CNY", "refunded_amount": "0.0000", "codes_available": False, "failure": None,
    "delivery": None, "created_at": "2026-11-22T11:44:59.123Z", "dispatched_at": None, "completed_at": None, "metadata": {}, "new_field": [1],
}  # fmt: skip
GOOD = (201, {"Content-Type": "application/json"}, json.dumps(ORDER).encode())


@pytest.fixture(params=["blocking", "asyncio"])
def create(request: pytest.FixtureRequest, script: Script) -> Any:
    """Places one order with one of the two clients."""

    def blocking(policy: RetryPolicy = QUICK, timeout_s: float = 5.0) -> Any:
        with Client(script.url, KEY_ID, SECRET, retry=policy, timeout_s=timeout_s, trust_env=False) as client:
            return client.orders.create("PO-1", "s", target="13800138000", metadata={"note": "充值"})

    def for_asyncio(policy: RetryPolicy = QUICK, timeout_s: float = 5.0) -> Any:
        async def run() -> Any:
            async with AsyncClient(script.url, KEY_ID, SECRET, retry=policy, timeout_s=timeout_s, trust_env=False) as client:
                return await client.orders.create("PO-1", "s", target="13800138000", metadata={"note": "充值"})

        return asyncio.run(run())

    return blocking if request.param == "blocking" else for_asyncio


def test_after_silence_and_5xx_the_same_body_goes_again_signed_anew(script: Script, create: Any) -> None:
    script.answers = ["cut", "half", (502, {"Content-Type": "text/html"}, b"<html>"), problem(500, "internal", "same_request", "unknown"), GOOD]
    order = create()
    assert order.id == ORDER["id"]
    assert len(script.seen) == 5
    assert len({body for *_, body in script.seen}) == 1
    assert json.loads(script.seen[0][3])["merchant_order_no"] == "PO-1"
    nonces = [re.search('nonce="(.*?)"', headers["Authorization"]) for _, _, headers, _ in script.seen]
    assert len({found.group(1) for found in nonces if found}) == 5


def test_what_a_later_version_adds_is_kept(script: Script, create: Any) -> None:
    script.answers = [GOOD]
    order = create()
    assert order.status == "a state of next year" and not order.is_final
    assert order.extra == {"new_field": [1]}
    assert order.created_at.isoformat() == "2026-11-22T11:44:59.123000+00:00"


def test_a_refusal_is_raised_at_once_as_its_own_class(script: Script, create: Any) -> None:
    script.answers = [problem(402, "insufficient_balance")]
    with pytest.raises(InsufficientBalance) as refused:
        create()
    assert (refused.value.charged, refused.value.retry, refused.value.request_id, refused.value.attempts) == ("no", "never", "req_1", 1)
    assert len(script.seen) == 1


def test_a_conflict_names_the_existing_order(script: Script, create: Any) -> None:
    script.answers = [problem(409, "merchant_order_no_conflict", "query_first", existing_order_id="ord_1")]
    with pytest.raises(NumberConflict) as refused:
        create()
    assert refused.value.existing_order_id == "ord_1"


def test_a_code_of_next_year_is_raised_as_the_class_of_its_status(script: Script, create: Any) -> None:
    script.answers = [problem(422, "moon_phase_wrong")]
    with pytest.raises(Unprocessable) as refused:
        create()
    assert refused.value.code == "moon_phase_wrong"


def test_a_refusal_after_silence_does_not_say_that_nothing_happened(script: Script, create: Any) -> None:
    script.answers = ["cut", problem(402, "insufficient_balance")]
    with pytest.raises(InsufficientBalance) as refused:
        create()
    assert refused.value.charged == "unknown" and refused.value.earlier_unknown


def test_retry_after_is_obeyed(script: Script, create: Any) -> None:
    slow_down = problem(429, "rate_limited", "after_s")
    script.answers = [(slow_down[0], slow_down[1] | {"Retry-After": "1"}, slow_down[2]), GOOD]
    began = time.monotonic()
    create()
    assert time.monotonic() - began >= 1.0
    script.answers, script.seen = [(slow_down[0], slow_down[1] | {"Retry-After": "60"}, slow_down[2])], []
    with pytest.raises(RateLimited) as refused:
        create()
    assert refused.value.retry_after_s == 60.0 and len(script.seen) == 1


def test_the_clock_corrects_itself_from_the_refusal(script: Script, create: Any) -> None:
    there = int(time.time()) + 90_000
    script.answers = [problem(401, "timestamp_out_of_window", "same_request", server_time=there), GOOD]
    create()
    sent = [int(re.search('timestamp="(.*?)"', headers["Authorization"]).group(1)) for _, _, headers, _ in script.seen]  # type: ignore[union-attr]
    assert abs(sent[0] - time.time()) < 60 and abs(sent[1] - there) < 60
    script.answers, script.seen = [problem(401, "timestamp_out_of_window", "same_request", server_time=there)], []
    with pytest.raises(ClockOutOfStep) as refused:
        create()
    assert refused.value.server_time == there and len(script.seen) == 3


def test_no_answer_until_the_end_says_that_the_outcome_is_unknown(script: Script, create: Any) -> None:
    script.answers = ["cut"]
    with pytest.raises(NoAnswer, match="ask by your own number") as silent:
        create()
    assert silent.value.charged == "unknown" and silent.value.attempts == 5 == len(script.seen)


@pytest.mark.parametrize("how", ["silence", "drip"])
def test_the_deadline_bounds_the_whole_call(script: Script, create: Any, how: str) -> None:
    script.answers = [how]
    began = time.monotonic()
    with pytest.raises(NoAnswer):
        create(RetryPolicy(attempts=50, deadline_s=1.0, first_wait_s=0.01), 0.4)
    assert 0.3 < time.monotonic() - began < 2.0
    assert 2 <= len(script.seen) <= 4


def test_where_nobody_listens_nothing_was_charged(create: Any, script: Script) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        script.url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(NoAnswer) as silent:
            create()
    assert silent.value.charged == "no"


def test_200_of_somebody_else_is_no_order(script: Script, create: Any) -> None:
    for answer in ((200, {"Content-Type": "text/html"}, b"<html>log in</html>"), (200, {}, b"[]"), (200, {}, b'{"id": "ord_1"}')):
        script.answers, script.seen = [answer], []
        with pytest.raises(BrokenAnswer):
            create()


def test_a_redirect_is_not_followed(script: Script, create: Any) -> None:
    script.answers = [(307, {"Location": script.url + "/elsewhere"}, b"")]
    with pytest.raises(Exception, match="307"):
        create()
    assert [path for _, path, _, _ in script.seen] == ["/v1/orders"]


def test_what_must_not_happen_twice_is_not_sent_twice(script: Script) -> None:
    with Client(script.url, KEY_ID, SECRET, retry=QUICK, trust_env=False) as client:
        for act in (lambda: client.webhook_endpoints.create("https://shop.example"), lambda: client.webhook_endpoints.rotate_secret("whe_1")):
            script.answers, script.seen = ["cut"], []
            with pytest.raises(NoAnswer):
                act()
            assert len(script.seen) == 1
            script.answers, script.seen = [problem(500, "internal", "same_request", "unknown")], []
            with pytest.raises(ServerError):
                act()
            assert len(script.seen) == 1


def test_a_read_is_never_charged(script: Script) -> None:
    script.answers = ["cut"]
    with Client(script.url, KEY_ID, SECRET, retry=QUICK, trust_env=False) as client, pytest.raises(NoAnswer) as silent:
        client.balance()
    assert silent.value.charged == "no"
    assert len(script.seen) == 5


def test_secrets_and_targets_reach_no_log(script: Script, create: Any, caplog: pytest.LogCaptureFixture) -> None:
    script.answers = ["cut", GOOD]
    with caplog.at_level("DEBUG"):
        create()
    assert "POST /v1/orders" in caplog.text
    assert SECRET not in caplog.text and "13800138000" not in caplog.text and "signature=" not in caplog.text


@pytest.mark.parametrize("price", [98.5, True])
def test_money_as_a_float_is_refused(price: Any) -> None:
    with Client("http://127.0.0.1:1", KEY_ID, SECRET, trust_env=False) as client, pytest.raises(TypeError, match="money"):
        client.orders.create("PO-1", "s", max_unit_price=price)


@pytest.mark.parametrize("order_id", ["", "..", "a/b", "a%2Fb", "a?b", "ord_é"])
def test_an_id_that_would_lead_elsewhere_is_refused(order_id: str) -> None:
    with Client("http://127.0.0.1:1", KEY_ID, SECRET, trust_env=False) as client, pytest.raises(ValueError, match="ASCII"):
        client.orders.get(order_id)


def test_a_sleep_that_takes_too_long_ends_in_no_answer(script: Script, create: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def overslept(seconds: float, sleep: Any = time.sleep) -> None:
        sleep(seconds + 0.4)

    async def overslept_too(seconds: float, sleep: Any = asyncio.sleep) -> None:
        await sleep(seconds + 0.4)

    monkeypatch.setattr("kameng._sync.client.time.sleep", overslept)
    monkeypatch.setattr("kameng._async.client.asyncio.sleep", overslept_too)
    script.answers = ["cut"]
    with pytest.raises(NoAnswer) as silent:
        create(RetryPolicy(attempts=5, deadline_s=0.3, first_wait_s=0.01))
    assert silent.value.charged == "unknown"


@pytest.fixture
def at_counter(script: Script, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`kameng-merchant order …` against the script."""
    for name, value in {"BASE_URL": script.url, "KEY_ID": KEY_ID, "SECRET": SECRET}.items():
        monkeypatch.setenv(f"KAMENG_{name}", value)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")

    def buy() -> Any:
        return CliRunner().invoke(app, ["--deadline", "1", "order", "s", "--target", "13800138000", "--number", "PO-1", "--wait", "1"])

    return buy


def test_an_order_that_may_stand_is_no_refusal_at_the_counter(script: Script, at_counter: Any) -> None:
    proxy = (200, {"Content-Type": "text/html"}, b"<html>log in</html>")
    for answers in ([proxy], ["cut", proxy], ["cut", problem(429, "rate_limited", "after_s", retry_after_s=60)], ["cut"]):
        script.answers, script.seen = answers, []
        told = at_counter()
        assert told.exit_code == 3, (answers, told.output)
        assert "--number PO-1" in " ".join(told.stderr.split()), answers


def test_an_order_that_was_placed_and_cannot_be_watched_is_not_final(script: Script, at_counter: Any) -> None:
    for trouble in (problem(429, "rate_limited", "after_s", retry_after_s=60), problem(401, "key_expired"), (200, {}, b"<html>")):
        script.answers, script.seen = [GOOD, trouble], []
        told = at_counter()
        assert told.exit_code == 4, (trouble, told.output)
        assert ORDER["id"] in told.stdout
