"""The one HTTP door of all adapters: here, and only here, it is decided whether a request can have bought something.

Three answers: a complete `HttpAnswer`; `NotSent`, the proof that no byte of the request left (`kit.http` keeps that
promise); `Unknown` for everything else. Nothing is ever sent twice from here.
"""

import logging
import time
from collections.abc import Mapping
from functools import lru_cache
from urllib.parse import urlsplit

import httpx
import structlog

from kameng_api.kit.http import AnswerTooLong, Client, SentTooLate
from kameng_api.kit.time_limit import TimeLimit
from kameng_api.suppliers.port import Cause, HttpAnswer, NotSent, Unknown

_log = structlog.get_logger(__name__)

_MOST_LIMITS = 256
_NO_HEADERS: Mapping[str, str] = {}


class Transport:
    """`send` is the port's `Send`. `longest_s` bounds every call in total and must stay below the worker's lease."""

    def __init__(
        self,
        client: Client,
        *,
        longest_s: float = 30.0,
        connect_timeout_s: float = 5.0,
        max_answer_bytes: int = 1_000_000,
    ) -> None:
        self._client = client
        self._longest_s = longest_s
        self._connect_timeout_s = connect_timeout_s
        self._max_answer_bytes = max_answer_bytes
        self._limits: dict[float, TimeLimit] = {}  # adapters name a handful of limits, from their settings

    async def send(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        content: bytes = b"",
        timeout_s: float = 30.0,
    ) -> HttpAnswer | NotSent | Unknown:
        """One request, at most once; never raises but on cancellation."""
        total_s = min(timeout_s, self._longest_s)
        started = time.perf_counter()
        verdict = await self._exchange(method, url, headers or _NO_HEADERS, content, total_s)
        _record(method, url, verdict, time.perf_counter() - started)
        return verdict

    async def _exchange(
        self, method: str, url: str, headers: Mapping[str, str], content: bytes, total_s: float
    ) -> HttpAnswer | NotSent | Unknown:
        limit = self._limits.get(total_s)
        if limit is None:
            limit = self._limits[total_s] = TimeLimit(total_s)
            if len(self._limits) > _MOST_LIMITS:
                self._limits.clear()
        try:
            with limit():
                answer = await self._client.exchange(
                    method,
                    url,
                    headers=headers,
                    content=content,
                    timeout=_timeouts(total_s, min(self._connect_timeout_s, total_s)),
                    max_answer_bytes=self._max_answer_bytes,
                )
        except SentTooLate:
            return NotSent("too late to be sent under this lease", Cause.OURS)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            return NotSent(_spoken(error))
        except AnswerTooLong:
            return Unknown("answer too long")
        except TimeoutError:
            return Unknown("no complete answer in time")
        except Exception as error:  # whatever it is, it is no proof that nothing was bought
            return Unknown(_spoken(error))
        return HttpAnswer(
            answer.status_code, {name.lower(): value for name, value in answer.headers.items()}, answer.content
        )


@lru_cache(maxsize=64)
def _timeouts(total_s: float, connect_s: float) -> httpx.Timeout:
    return httpx.Timeout(total_s, connect=connect_s, pool=connect_s)


def _spoken(error: Exception) -> str:
    """The kind of the error only: messages may quote addresses and bodies."""
    return type(error).__name__


def _record(method: str, url: str, verdict: HttpAnswer | NotSent | Unknown, seconds: float) -> None:
    """One line per call: no query, no header, no body. Most calls are answered, and then mostly nobody wants the line."""
    if isinstance(verdict, HttpAnswer) and not logging.getLogger().isEnabledFor(logging.DEBUG):
        return
    parts = urlsplit(url)
    match verdict:
        case HttpAnswer(status=status):
            outcome, level = str(status), _log.debug
        case NotSent(reason=reason):
            outcome, level = f"not sent: {reason}", _log.info
        case Unknown(reason=reason):
            outcome, level = f"unknown: {reason}", _log.info
    level(
        "supplier.called",
        method=method,
        host=parts.hostname,
        path=parts.path,
        outcome=outcome,
        took_ms=round(seconds * 1000, 1),
    )
