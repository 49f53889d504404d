"""Tells people: sends alarms that nobody has heard of yet to the configured sinks, and tries again until each sink has them.

Claim (lease in the alarm's row) · call (no transaction) · record. A crash between call and record sends a batch twice; a message
read twice is better than one never read. Without a sink the log line is the message.
"""

import asyncio
import smtplib
import ssl
from collections.abc import Sequence
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from typing import Final, Protocol
from urllib.parse import parse_qs, unquote, urlsplit

import httpx

from kameng_api.alarms import actions as alarms
from kameng_api.alarms import rules, sinks
from kameng_api.alarms.rules import Alarm
from kameng_api.alarms.sinks import Sink
from kameng_api.kit import clock, log
from kameng_api.kit.db import Database
from kameng_api.kit.http import Client, build_client
from kameng_api.settings import Settings

_AT_ONCE: Final = 50
_CALL_S: Final = 15.0
_SMTP_PORT: Final = {"smtp": 587, "smtps": 465}
_THIS_MACHINE: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_HEADERS: Final = {"Content-Type": "application/json; charset=utf-8"}

_log = log.get()


class Desk(Protocol):
    """What this job needs of its process."""

    @property
    def db(self) -> Database: ...

    @property
    def settings(self) -> Settings: ...


class MailRefused(Exception):
    """The mail settings or the mail server do not allow a safe delivery."""


async def send_alarms(desk: Desk) -> int:
    """One round: every alarm that is due goes to every sink that has not taken it. Returns how many alarms are done with."""
    receivers = sinks.parse_sinks([s.get_secret_value() for s in desk.settings.alarm_sinks])
    async with desk.db.transaction() as tx:
        claimed = await alarms.claim_unsent(tx, _AT_ONCE)
    if not claimed:
        return 0
    for alarm in claimed:
        if alarm.send_tries == 1:
            _log.warning("alarm", kind=alarm.kind, subject=alarm.subject, severity=alarm.severity.value, detail=alarm.detail)
    took = await _tell(desk.settings, receivers, claimed)
    results = [(alarm, *_verdict(alarm, receivers, took)) for alarm in claimed]
    async with desk.db.transaction() as tx:
        await alarms.record_sent(tx, results)
    return sum(1 for _, _, done in results if done)


def _verdict(alarm: Alarm, receivers: Sequence[Sink], took: set[str]) -> tuple[tuple[str, ...], bool]:
    """(who has it by now, whether it is done with)."""
    has = tuple(dict.fromkeys((*alarm.sent_to, *(s.name for s in receivers if s.name in took))))
    if all(s.name in has for s in receivers):
        return has or ("log",), True
    if alarm.send_tries >= rules.TRIES:
        return (*has, "given_up"), True
    return has, False


async def _tell(settings: Settings, receivers: Sequence[Sink], claimed: Sequence[Alarm]) -> set[str]:
    """The names of the sinks that took everything that they did not have yet."""
    client = build_client(max_connections=10, connect_timeout_s=5.0, read_timeout_s=_CALL_S, guard=False)
    try:
        verdicts = await asyncio.gather(*(_tell_one(settings, client, sink, claimed) for sink in receivers))
    finally:
        await client.aclose()
    return {sink.name for sink, ok in zip(receivers, verdicts, strict=True) if ok}


async def _tell_one(settings: Settings, client: Client, sink: Sink, claimed: Sequence[Alarm]) -> bool:
    news = [a for a in claimed if sink.name not in a.sent_to]
    if not news:
        return True
    try:
        async with asyncio.timeout(_CALL_S):
            if sink.kind == "email":
                return await _mail(settings, sink, news)
            request = sinks.request_for(sink, news, clock.utc_now())
            answer = await client.exchange(
                "POST", request.url, headers=_HEADERS, content=request.body, max_answer_bytes=16_384, cut=True
            )
    except (httpx.HTTPError, OSError, TimeoutError, smtplib.SMTPException, MailRefused) as trouble:
        # The type only: messages of HTTP errors quote the URL, and a robot's URL is its password.
        _log.error("alarm_sink_failed", sink=sink.name, trouble=type(trouble).__name__)
        return False
    taken = sinks.was_taken(sink, answer.status_code, answer.content)
    if not taken:
        _log.error("alarm_sink_refused", sink=sink.name, http_status=answer.status_code)
    return taken


async def _mail(settings: Settings, sink: Sink, news: Sequence[Alarm]) -> bool:
    if settings.smtp_url is None:
        raise MailRefused("email: sinks need KAMENG_SMTP_URL")
    subject, text = sinks.mail_for(news)
    message = EmailMessage()
    message["Subject"] = subject
    message["To"] = sink.address
    message["Date"] = formatdate()
    message["Message-ID"] = make_msgid(domain="kameng.invalid")
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(text)
    await asyncio.to_thread(_post_mail, settings.smtp_url.get_secret_value(), message)
    return True


def _post_mail(smtp_url: str, message: EmailMessage) -> None:
    """Blocking. `smtps://` is TLS from the start; `smtp://` takes STARTTLS where offered, and never logs in without TLS."""
    parts = urlsplit(smtp_url)
    host = parts.hostname or ""
    port = parts.port or _SMTP_PORT.get(parts.scheme, 0)
    if not port or not host:
        raise MailRefused("KAMENG_SMTP_URL is smtp://user:password@host:port or smtps://…")
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    sender = parse_qs(parts.query).get("from", [user if "@" in user else f"kameng@{host}"])[0]
    message["From"] = sender
    context = ssl.create_default_context()
    door = (
        smtplib.SMTP_SSL(host, port, timeout=_CALL_S, context=context)
        if parts.scheme == "smtps"
        else smtplib.SMTP(host, port, timeout=_CALL_S)
    )
    with door:
        door.ehlo()
        secure = parts.scheme == "smtps"
        if not secure and door.has_extn("starttls"):
            door.starttls(context=context)
            door.ehlo()
            secure = True
        if user and not secure and host not in _THIS_MACHINE:
            raise MailRefused("the mail server offers no TLS: the password stays here")
        if user:
            door.login(user, password)
        door.send_message(message)
