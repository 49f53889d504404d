"""Logs as facts: one JSON object a line, and nothing in it that must not be read by whoever reads logs.

Redaction works twice: keys that name a secret lose their value whatever it is, and texts that look like one
(`sk_live_…`, `whsec_…`, bearer tokens, Authorization parameters) are masked wherever they stand, exception messages
and other libraries' records included. Exceptions are written as type, message and `file:line` frames, never with
local values.
"""

import logging
import re
import sys
from collections.abc import Mapping
from json import dumps as dumps_anything
from pathlib import PurePath
from types import TracebackType
from typing import Any, TextIO, cast

import orjson
import structlog
from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger

MASK = "***"
_MAX_TEXT_CHARS = 2000
_MAX_FRAMES = 12
_MAX_CAUSES = 4
_MAX_DEPTH = 4
_MAX_ITEMS = 50

_SECRET_WORDS = frozenset(
    {
        *("secret", "secrets", "authorization", "cookie", "signature", "signatures", "sign", "token", "tokens"),
        *("password", "passwd", "pwd", "passphrase", "credential", "credentials", "kek", "key", "keys", "apikey"),
        *("body", "raw", "payload", "plaintext", "dsn", "target", "targets", "phone", "mobile", "email"),
        *("code", "codes", "card", "cards", "pin", "pins"),
    }
)
# A name that ends so is a fact about the secret, not the secret; "code" has many innocent meanings.
_FACT_SUFFIXES = (
    *("_id", "_ids", "_kind", "_type", "_state", "_status", "_count", "_bytes", "_sha256", "_at", "_on", "_s", "_ms"),
    *("error_code", "status_code", "http_code", "reason_code", "failure_code", "problem_code", "exit_code"),
    *("product_code", "country_code", "event_key"),
)
_WORDS = re.compile(r"[^a-zA-Z0-9]+|(?<=[a-z0-9])(?=[A-Z])")
_SECRET_TEXTS = re.compile(
    r"(\b(?!ak_)[a-z]{2}_(?:live|test)_|\bwhsec_)[A-Za-z0-9+/=_-]{8,}"
    r"|(\b(?:Bearer|Basic|KM1-HMAC-SHA256|KM1-ED25519)\s+)[^\r\n]+"
    r"|(\bauthorization['\"]?\s*[:=]\s*)[^\r\n]+"
    r"|(\b(?:signature|secret|password|passwd|token|sign)['\"]?\s*[=:]\s*['\"]?)[^\s'\",;&]+"
    r"|(://[^/\s:@]*:)[^/\s@]+(?=@)"
    r"|\b(1[3-9]\d)\d{8}\b",  # a mainland mobile number
    re.IGNORECASE,
)
# Cheap first look: most texts hold nothing of this and are left alone.
_SUSPECT = re.compile(r"_live_|_test_|whsec|bearer|basic|km1-|authoriz|sign|secret|passw|token|://|\d{11}", re.IGNORECASE)


def configure(level: str = "INFO", *, json: bool = True, stream: TextIO | None = None) -> None:
    """Send structlog and the standard library's loggers to `stream` (stdout) as JSON lines, or as readable lines for
    a developer's terminal.

    Levels below `level` cost one method call. Call once, at the start of a process; raises `ValueError` for an
    unknown level.
    """
    number = logging.getLevelNamesMapping().get(level.upper())
    if number is None:
        raise ValueError(f"unknown log level {level!r}")
    _sink.stream = stream
    before: list[Processor] = [structlog.contextvars.merge_contextvars, structlog.processors.add_log_level]
    after: list[Processor] = [
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        describe_exception,
        redact,
        render_json if json else structlog.dev.ConsoleRenderer(colors=False),
    ]
    structlog.configure(
        processors=[*before, *after],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(file=cast(TextIO, _sink)),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(_sink)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[_name_stdlib_logger, *before],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *after],
            use_get_message=True,
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(number)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "sqlalchemy", "asyncpg", "arq", "aiohttp", "httpx"):
        library = logging.getLogger(name)
        library.handlers.clear()
        library.propagate = True
        library.setLevel(logging.NOTSET)  # ours counts, whatever a library set before
    # An access line a request is a second log of the same fact; at DEBUG the drivers print values.
    for name in ("uvicorn.access", "httpx", "sqlalchemy", "asyncpg", "arq"):
        logging.getLogger(name).setLevel(max(number, logging.WARNING))


def get(**facts: Any) -> FilteringBoundLogger:
    """A logger that adds `facts` to each line."""
    logger: FilteringBoundLogger = structlog.get_logger(**facts)
    return logger


def redact(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """structlog processor: mask secret keys and secret-looking texts, at any depth."""
    return {mask_text(key): MASK if value is not None and is_secret_key(key) else _clean(value, 0) for key, value in event.items()}


def is_secret_key(key: str) -> bool:
    """Whether a value under this name may never be printed."""
    verdict = _key_verdicts.get(key)
    if verdict is None:
        words = {word.lower() for word in _WORDS.split(key)}
        verdict = not words.isdisjoint(_SECRET_WORDS) and not key.lower().endswith(_FACT_SUFFIXES)
        if len(_key_verdicts) < 4096:
            _key_verdicts[key] = verdict
    return verdict


def mask_text(text: str) -> str:
    """The text with everything that looks like a secret masked, cut at 2,000 characters."""
    if len(text) > _MAX_TEXT_CHARS:
        text = text[:_MAX_TEXT_CHARS] + "…"
    if _SUSPECT.search(text) is None:
        return text
    return _SECRET_TEXTS.sub(lambda match: next((group for group in match.groups() if group), "") + MASK, text)


def describe_exception(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """structlog processor: turn `exc_info` into `exception`, a list of type, message and frames from the outermost
    error to its cause.
    """
    exc_info = event.pop("exc_info", None)
    event.pop("stack_info", None)
    error = exc_info if isinstance(exc_info, BaseException) else None
    if isinstance(exc_info, tuple):
        error = exc_info[1]
    elif exc_info and error is None:
        error = sys.exc_info()[1]
    if error is not None:
        event["exception"] = _causes(error)
    return event


def render_json(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    """structlog processor: one JSON line; a value JSON has no word for is written as its type's name."""
    try:
        return orjson.dumps(event, default=_type_name, option=orjson.OPT_NON_STR_KEYS).decode()
    except TypeError:  # an integer beyond 64 bits, half a surrogate pair
        return dumps_anything(event, default=_type_name)


class _Sink:
    """The stream of the last `configure`, looked up at each line, because loggers keep what they were first given."""

    stream: TextIO | None = None

    def write(self, text: str) -> int:
        return (self.stream or sys.stdout).write(text)

    def flush(self) -> None:
        (self.stream or sys.stdout).flush()


_sink = _Sink()
_key_verdicts: dict[str, bool] = dict.fromkeys(("event", "level", "timestamp", "exception", "logger"), False)


def _type_name(value: object) -> str:
    return f"<{type(value).__name__}>"


def _clean(value: Any, depth: int) -> Any:
    match value:
        case str():
            return mask_text(value)
        case int() | float() | None:
            return value
        case _ if depth >= _MAX_DEPTH:
            return "…"
        case Mapping():
            pairs = [(str(key), item) for key, item in list(value.items())[:_MAX_ITEMS]]
            return {mask_text(key): MASK if is_secret_key(key) else _clean(item, depth + 1) for key, item in pairs}
        case list() | tuple() | set() | frozenset():
            return [_clean(item, depth + 1) for item in list(value)[:_MAX_ITEMS]]
        case bytes() | bytearray() | memoryview():
            return f"<{len(value)} bytes>"
        case BaseException():
            return f"{type(value).__name__}: {mask_text(str(value))}"
        case _:
            return mask_text(str(value))


def _causes(error: BaseException) -> list[dict[str, Any]]:
    described: list[dict[str, Any]] = []
    current: BaseException | None = error
    while current is not None and len(described) < _MAX_CAUSES:
        entry: dict[str, Any] = {
            "type": f"{type(current).__module__}.{type(current).__qualname__}",
            "message": mask_text(_message(current)),
            "frames": _frames(current.__traceback__),
        }
        if isinstance(current, BaseExceptionGroup):
            members = current.exceptions[:_MAX_ITEMS]
            entry["members"] = [f"{type(member).__name__}: {mask_text(_message(member))}" for member in members]
        described.append(entry)
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
    return described


def _message(error: BaseException) -> str:
    """The first line only: drivers append the statement and its values on the following lines."""
    return str(error).partition("\n")[0]


def _frames(trace: TracebackType | None) -> list[str]:
    frames: list[str] = []
    while trace is not None:
        path = PurePath(trace.tb_frame.f_code.co_filename)
        frames.append(f"{'/'.join(path.parts[-3:])}:{trace.tb_lineno} {trace.tb_frame.f_code.co_name}")
        trace = trace.tb_next
    return frames[-_MAX_FRAMES:]


def _name_stdlib_logger(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    record = event.get("_record")
    if record is not None:
        event["logger"] = record.name
    return event
