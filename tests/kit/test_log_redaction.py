"""Canary secrets in every place a log line has; none may come out."""

import io
import json
import logging
from typing import Any

import pytest
import structlog
from tests.conftest import log_plainly

from kameng_api.kit import log

KEY = "sk_live_8Zc0m0bqf3oQm9m1m8m2dX2jv8bK1v3pJt6yW5rT4uA"
TEST_KEY = KEY.replace("live", "test")
WEBHOOK = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
HEADER = f'KM1-HMAC-SHA256 key_id="ak_test_1",timestamp="1",nonce="n",signature="c2lnbmF0dXJl{"A" * 30}="'
CANARIES = [KEY, TEST_KEY, WEBHOOK, HEADER, "Bearer eyJhbGciOiJIUzI1NiJ9.canary", "Basic Y2FuYXJ5OmNhbmFyeQ=="]
PARTS = ["8Zc0m0bqf3oQ", "AAECAwQFBgcI", "c2lnbmF0dXJl", "eyJhbGciOiJIUzI1NiJ9", "Y2FuYXJ5OmNhbmFyeQ"]


@pytest.fixture
def out(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What a freshly configured process writes; the root logger is put back afterwards."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    stream = io.StringIO()
    log.configure("debug", stream=stream)
    yield stream
    structlog.reset_defaults()
    log_plainly()
    structlog.contextvars.clear_contextvars()
    log._sink.stream = None
    root.handlers[:] = before
    root.setLevel(level)


def lines(out: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.getvalue().splitlines()]


@pytest.mark.parametrize("canary", CANARIES)
def test_a_secret_shaped_text_is_masked_wherever_it_stands(out: io.StringIO, canary: str) -> None:
    logger, text = log.get(), "calling with " + canary
    logger.info(
        text,
        fact=canary,
        deep={"list": [{"text": f"x {canary}"}]},
        **{canary.split(" ", maxsplit=1)[0]: 1},
    )
    logger.bind(bound=canary).warning("bound")
    structlog.contextvars.bind_contextvars(context=canary)
    logging.getLogger("uvicorn.error").error("plain %s", canary)
    text = "url=https://x.example/?a=" + canary
    logging.getLogger("aiohttp").warning(text, extra={"more": canary})
    try:
        try:
            raise ValueError(canary)
        except ValueError as error:
            raise RuntimeError(f"wrapped {canary}") from error
    except RuntimeError:
        logger.exception("failed")
        logging.getLogger("arq").exception("failed")
    try:
        raise ExceptionGroup(canary, [ValueError(canary)])
    except ExceptionGroup:
        logger.exception("group")
    assert len(lines(out)) >= 7
    for part in PARTS:
        assert part not in out.getvalue()


@pytest.mark.parametrize(
    "key",
    [
        *(
            "secret",
            "client_secret",
            "Authorization",
            "signature",
            "webhook-signature",
            "body",
            "raw_body",
            "target",
            "code",
            "codes",
        ),
        *(
            "card_code",
            "cardCode",
            "pin",
            "token",
            "admin_token",
            "password",
            "private_key",
            "api_key",
            "key",
            "delivery_key",
            "phone",
        ),
        *("redis_password", "Set-Cookie", "accessToken", "X-Sign", "plaintext"),
    ],
)
def test_a_secret_key_loses_its_value_whatever_it_is(out: io.StringIO, key: str) -> None:
    for value in ("canary", 1371234, b"canary", ["canary"], {"a": "canary"}, 1.5, True):
        log.get().info("event", **{key: value}, inner={key: value, "list": [{key: value}]})
    for line in lines(out):
        assert line[key] == log.MASK
        assert line["inner"] == {key: log.MASK, "list": [{key: log.MASK}]}


@pytest.mark.parametrize(
    "key",
    [
        "key_id",
        "error_code",
        "status_code",
        "failure_code",
        "order_id",
        "amount",
        "body_bytes",
        "sku",
        "target_kind",
        "author",
        "keyboard",
    ],
)
def test_facts_stay_readable(out: io.StringIO, key: str) -> None:
    log.get().info("order.placed", **{key: "ak_test_01JD0000000000000000000001"})
    assert lines(out)[0][key] == "ak_test_01JD0000000000000000000001"


def test_a_phone_number_or_a_password_in_a_text_is_masked_and_ids_are_not(out: io.StringIO) -> None:
    ids = "ord_01JD1380013800000000000009 1795350000000 20261122138001"
    log.get().info("recharge 13800138000 failed at postgresql://app:canary@db.example/kameng " + ids, at="1795350000")
    event = lines(out)[0]["event"]
    assert "recharge 138*** failed" in event
    assert "canary" not in event
    assert ids in event


def test_an_exception_is_type_first_line_and_frames_without_values(out: io.StringIO) -> None:
    def inner(hidden: str) -> None:
        local_canary = hidden * 2
        raise ValueError("first line\n[SQL: select canary] parameters: canary " + local_canary[:0])

    try:
        inner("canary-value")
    except ValueError as error:
        log.get().error("failed", exc_info=error)
    (line,) = lines(out)
    (described,) = line["exception"]
    assert described["type"] == "builtins.ValueError"
    assert described["message"] == "first line"
    assert described["frames"][-1].startswith("tests/kit/test_log_redaction.py:")
    assert described["frames"][-1].endswith(" inner")
    assert "canary" not in out.getvalue()


def test_library_loggers_write_the_same_lines_and_their_chatter_is_off(out: io.StringIO) -> None:
    logging.getLogger("uvicorn.error").info("started %s", "well")
    for name in ("uvicorn.access", "sqlalchemy.engine", "asyncpg", "arq.worker", "httpx"):
        logging.getLogger(name).info("chatter 13800138000")
    (line,) = lines(out)
    assert line["event"] == "started well"
    assert line["logger"] == "uvicorn.error"
    assert line["level"] == "info"
    assert line["timestamp"].endswith("Z")


def test_values_json_has_no_word_for_do_not_break_the_line(out: io.StringIO) -> None:
    cycle: dict[str, Any] = {}
    cycle["again"] = cycle
    log.get().info(
        "odd",
        cycle=cycle,
        raw_bytes=b"\xff",
        number=10**30,
        text="x" * 10_000,
        lone="\ud800",
        nothing=object(),
        flags={1, 2},
    )
    (line,) = lines(out)
    assert len(line["text"]) <= 2001
    assert line["raw_bytes"] == "<1 bytes>"


def test_levels_below_the_configured_one_write_nothing(out: io.StringIO) -> None:
    log.configure("warning", stream=out)
    structlog.get_logger("fresh").info("quiet")
    logging.getLogger("anything").info("quiet")
    assert out.getvalue() == ""
    with pytest.raises(ValueError, match="unknown log level"):
        log.configure("loud")
