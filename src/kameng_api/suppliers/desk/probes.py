"""Does a connection work, and if not, what is wrong? Asks for the balance and for one page of products; nothing here can buy anything.

What a vendor says about its own mistakes is read for a handful of words that all of them use, so that an operator is told "wrong signature"
and not "HTTP 200". Nothing follows from these words but a sentence on a screen.
"""

import asyncio
import json
import re
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Any, Final
from urllib.parse import urlsplit

from kameng_api.kit.log import MASK, mask_text
from kameng_api.suppliers.desk.forms import Said
from kameng_api.suppliers.port import Cause, HttpAnswer, NotSent, Send, Supplier, Unknown, Wallet

SKEW_S: Final = 60.0
"""Vendors refuse calls whose time is further off; most allow five minutes, some one."""
_DIAL_S: Final = 5.0
_LONGEST_WORDS: Final = 200
_READ_CHARS: Final = 4_000


class Found(StrEnum):
    """What a step has found."""

    WELL = "well"
    NOT_OFFERED = "not_offered"
    SKIPPED = "skipped"
    NO_SUCH_HOST = "no_such_host"
    NOT_REACHABLE = "not_reachable"
    BAD_CERTIFICATE = "bad_certificate"
    NO_ANSWER = "no_answer"
    BUSY = "busy"
    WRONG_ADDRESS = "wrong_address"
    WRONG_SIGNATURE = "wrong_signature"
    WRONG_ACCOUNT = "wrong_account"
    ADDRESS_NOT_ALLOWED = "address_not_allowed"
    CLOCK_SKEW = "clock_skew"
    SUPPLIER_TROUBLE = "supplier_trouble"
    TOO_LONG = "too_long"
    UNREADABLE = "unreadable"


MEANING: Final[Mapping[Found, Said]] = {
    Found.WELL: Said("It answered, and was understood.", "对方已正常应答。"),
    Found.NOT_OFFERED: Said("This supplier does not offer that.", "该上游没有这个接口。"),
    Found.SKIPPED: Said("Not asked: the step before it failed.", "前一步失败，未再询问。"),
    Found.NO_SUCH_HOST: Said("Nobody knows the host of this address: look for a typing mistake in it.", "域名无法解析，请检查接口地址是否写错。"),
    Found.NOT_REACHABLE: Said(
        "The host is there, and takes no connection: look at the port, and ask whether our address must be let in by their firewall.",
        "域名存在但连接不上：请检查端口，并确认对方防火墙是否放行了我们的出口地址。",
    ),
    Found.BAD_CERTIFICATE: Said(
        "Its certificate is not one for this host, has ended, or is signed by nobody known.", "对方证书与域名不符、已过期或不受信任。"
    ),
    Found.NO_ANSWER: Said("It took the connection and gave no complete answer in time.", "已连上，但在限定时间内没有得到完整应答。"),
    Found.BUSY: Said("It says that we ask too often: try again in a minute.", "对方提示请求过于频繁，请稍后再试。"),
    Found.WRONG_ADDRESS: Said(
        "Something answers there, but not this supplier's interface: look at host and path.", "该地址有应答，但不是这家的接口：请检查域名和路径。"
    ),
    Found.WRONG_SIGNATURE: Said(
        "It refuses our signature: the secret is wrong, has a blank at its end, or belongs to another account.",
        "对方提示签名错误：密钥不对、末尾多了空格，或不是这个账号的密钥。",
    ),
    Found.WRONG_ACCOUNT: Said(
        "It does not know this account, or the account may not do this: look at the account's number, and whether its interface was opened.",
        "对方不认识该账号或未开通接口：请核对账号编号，并确认接口权限已开通。",
    ),
    Found.ADDRESS_NOT_ALLOWED: Said(
        "It does not let our address in: have our outgoing address put on its list.", "对方限制了来源 IP：请把我们的出口 IP 加入对方白名单。"
    ),
    Found.CLOCK_SKEW: Said(
        "Its clock and ours are too far apart, or it finds our call too old: set this machine's clock.",
        "双方时钟相差过大，或对方认为请求已过期：请校准本机时间。",
    ),
    Found.SUPPLIER_TROUBLE: Said("It answers that something is wrong on its side.", "对方提示其系统异常。"),
    Found.TOO_LONG: Said("Its answer is longer than is read at once.", "应答过长，超出单次读取上限。"),
    Found.UNREADABLE: Said("It answered, and the answer is not what its document promises.", "对方有应答，但与其文档不符。"),
}


@dataclass(frozen=True, slots=True)
class Step:
    """One question. `said`: the vendor's own words where it refused, without secrets and numbers; for eyes, decides nothing."""

    name: str
    found: Found
    took_ms: int = 0
    said: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Report:
    """How a connection does. `clock_skew_s`: how far their clock is ahead of ours, None where they do not tell."""

    steps: tuple[Step, ...]
    wallet: Wallet | None = None
    products_seen: int | None = None
    clock_skew_s: float | None = None

    @property
    def works(self) -> bool:
        """Something was asked, and all that was asked was well."""
        asked = [step for step in self.steps if step.found is not Found.NOT_OFFERED]
        return bool(asked) and all(step.found is Found.WELL for step in asked)


@dataclass(slots=True)
class Ear:
    """A `Send` that passes everything on and remembers the last answer; it holds secrets, so it is shown to nobody."""

    send: Send
    url: str = field(default="", repr=False)
    verdict: HttpAnswer | NotSent | Unknown | None = field(default=None, repr=False)
    skew_s: float | None = None

    async def __call__(
        self, method: str, url: str, *, headers: Mapping[str, str] | None = None, content: bytes = b"", timeout_s: float = 30.0
    ) -> HttpAnswer | NotSent | Unknown:
        self.url = url
        before = datetime.now(UTC)
        self.verdict = await self.send(method, url, headers=headers, content=content, timeout_s=timeout_s)
        if isinstance(self.verdict, HttpAnswer):
            told = _told_at(self.verdict.headers.get("date", ""))
            if told is not None:
                middle = before + (datetime.now(UTC) - before) / 2
                self.skew_s = round((told - middle).total_seconds(), 1)
        return self.verdict


def _told_at(text: str) -> datetime | None:
    try:
        told = parsedate_to_datetime(text)
    except (ValueError, TypeError):
        return None
    return told if told.tzinfo is not None else told.replace(tzinfo=UTC)


async def examine(connect: Callable[[Send], Supplier], send: Send, *, secrets: Sequence[str], limit_s: float) -> Report:
    """Ask a connected supplier what costs nothing. `limit_s` bounds each step; `secrets` never stand in what is reported."""
    ear = Ear(send)
    supplier = connect(ear)
    seen: list[int] = []

    async def first_page() -> None:
        assert supplier.products is not None
        pages = supplier.products()
        async with aclosing(pages) as turning:  # type: ignore[type-var]  # an async generator, by the port
            async for page in turning:
                seen.append(len(page))
                return

    wallets: list[Wallet] = []

    async def ask_balance() -> None:
        assert supplier.balance is not None
        wallets.append(await supplier.balance())

    steps = [await _step("balance", ask_balance if supplier.balance is not None else None, ear, secrets, limit_s)]
    if steps[0].found in (Found.WELL, Found.NOT_OFFERED):
        steps.append(await _step("products", first_page if supplier.products is not None else None, ear, secrets, limit_s))
    else:
        steps.append(Step("products", Found.SKIPPED if supplier.products is not None else Found.NOT_OFFERED))
    return Report(tuple(steps), wallets[0] if wallets else None, sum(seen) if seen else None, ear.skew_s)


async def _step(name: str, ask: Callable[[], Awaitable[None]] | None, ear: Ear, secrets: Sequence[str], limit_s: float) -> Step:
    if ask is None:
        return Step(name, Found.NOT_OFFERED)
    ear.verdict = None
    started = time.perf_counter()
    try:
        async with asyncio.timeout(limit_s):
            await ask()
    except TimeoutError:
        found, said = Found.NO_ANSWER, ""
    except Exception:  # whatever an adapter makes of an answer that it cannot read
        found, said = await _diagnosed(ear, secrets)
    else:
        found, said = Found.WELL, ""
    return Step(name, found, round((time.perf_counter() - started) * 1000), said)


async def _diagnosed(ear: Ear, secrets: Sequence[str]) -> tuple[Found, str]:
    match ear.verdict:
        case HttpAnswer() as answer:
            words = words_of(answer)
            return diagnose(answer, words, ear.skew_s), _safe(words, secrets)
        case NotSent(cause=Cause.UNREACHED):
            return await dial(ear.url), ""
        case NotSent(cause=Cause.BUSY):
            return Found.BUSY, ""
        case Unknown(reason="answer too long"):
            return Found.TOO_LONG, ""
        case Unknown():
            return Found.NO_ANSWER, ""
        case _:
            return Found.UNREADABLE, ""


# ---- what they say ---------------------------------------------------------------------------------------------------

_MESSAGE: Final = re.compile(
    r"(?i)((msg|message|mess|error|err|desc|description|reason|detail|info|remark|title|tip|status_?text)s?|^(ret|err|error|result)?_?code)$"
)
_ABOUT: Final[tuple[tuple[Found, re.Pattern[str]], ...]] = (
    (Found.BUSY, re.compile(r"(?i)频繁|限流|请求过快|too many|rate.?limit|throttl")),
    (Found.CLOCK_SKEW, re.compile(r"(?i)timestamp|时间戳|time.?stamp|请求(已)?(过期|超时)|时间(不正确|错误|误差|过期)|request (has )?expired|clock")),
    (Found.ADDRESS_NOT_ALLOWED, re.compile(r"(?i)白名单|white.?list|allow.?list|(?<![a-z])ip(?![a-z])|来源地址")),
    (Found.WRONG_SIGNATURE, re.compile(r"(?i)签名|验签|signature|(?<![a-z])sign(?![a-z])|sign_?(err|inv|fail)|密钥|secret|hmac")),
    (
        Found.WRONG_ACCOUNT,
        re.compile(
            r"(?i)app_?id|app_?key|api_?key|client|merchant|account|user|unauthori|authenti|credential|token|forbidden|permission"
            r"|账号|帐号|账户|商户|用户|会员|未开通|无权|权限"
        ),
    ),
    (Found.SUPPLIER_TROUBLE, re.compile(r"(?i)系统(异常|错误|繁忙|维护)|服务器|维护|internal|maintenance|unavailable")),
)


def words_of(answer: HttpAnswer) -> str:
    """What an answer says in words: the texts of its message fields, or the beginning of a page."""
    text = _decoded(answer.body)[:_READ_CHARS]
    try:
        found = json.loads(_decoded(answer.body))
    except (ValueError, RecursionError):
        return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", text)).strip()
    said: list[str] = []
    _collect(found, "", said, 0)
    return " · ".join(said)


def _collect(value: Any, name: str, said: list[str], depth: int) -> None:
    if depth > 4 or len(said) >= 6:
        return
    if isinstance(value, Mapping):
        for key, inner in value.items():
            _collect(inner, str(key), said, depth + 1)
    elif isinstance(value, list):
        for inner in value[:5]:
            _collect(inner, name, said, depth + 1)
    elif isinstance(value, str) and value and _MESSAGE.search(name):
        said.append(value)


def _decoded(body: bytes) -> str:
    for encoding in ("utf-8", "gb18030"):
        try:
            return body.decode(encoding)
        except UnicodeDecodeError:
            continue
    return body.decode("latin-1")


def diagnose(answer: HttpAnswer, words: str, skew_s: float | None) -> Found:
    """What is wrong with a connection whose answer could not be used."""
    if answer.status == 429:
        return Found.BUSY
    if answer.status >= 500:
        return Found.SUPPLIER_TROUBLE
    page = answer.headers.get("content-type", "").startswith("text/html")
    about = None if page else next((found for found, pattern in _ABOUT if pattern.search(words)), None)
    if about in (Found.WRONG_SIGNATURE, Found.WRONG_ACCOUNT) and skew_s is not None and abs(skew_s) > SKEW_S:
        return Found.CLOCK_SKEW  # a time that is off makes both look wrong
    if about is not None:
        return about
    if answer.status in (401, 403):
        return Found.CLOCK_SKEW if skew_s is not None and abs(skew_s) > SKEW_S else Found.WRONG_ACCOUNT
    if page or answer.status in (301, 302, 307, 308, 404, 405):
        return Found.WRONG_ADDRESS
    return Found.UNREADABLE


def _safe(words: str, secrets: Sequence[str]) -> str:
    """Their words without our secrets, and without anything that is long enough to be a number of somebody."""
    for secret in sorted((one for one in secrets if len(one) >= 4), key=len, reverse=True):
        words = words.replace(secret, MASK)
    return re.sub(r"[0-9A-Za-z+/=_-]{16,}", MASK, mask_text(words))[:_LONGEST_WORDS]


# ---- is anybody there ------------------------------------------------------------------------------------------------


async def dial(url: str) -> Found:
    """Why a request to `url` never left: no such host, no connection, or a certificate that is no good. Sends nothing."""
    parts = urlsplit(url)
    host, secure = parts.hostname or "", parts.scheme == "https"
    loop = asyncio.get_running_loop()
    try:
        port = parts.port or (443 if secure else 80)
        async with asyncio.timeout(_DIAL_S):
            await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            _, writer = await asyncio.open_connection(host, port, ssl=ssl.create_default_context() if secure else None)
    except (socket.gaierror, ValueError):
        return Found.NO_SUCH_HOST
    except ssl.SSLError:
        return Found.BAD_CERTIFICATE
    except (OSError, TimeoutError):
        return Found.NOT_REACHABLE
    writer.close()
    return Found.NO_ANSWER  # it can be reached after all: the connection was lost, or came too late
