"""Where alarms go and how each receiver wants to be spoken to: values in, a request out. No I/O.

A sink is written `kind:address`; the signing secret of a robot follows the address after `#`:
`wecom:https://…`, `dingtalk:https://…#SEC…`, `feishu:https://…#…`, `webhook:https://…`, `email:somebody@example.com`.
"""

import base64
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

import orjson

from kameng_api.alarms.rules import KINDS, Alarm, digest
from kameng_api.kit.clock import wire_time, wire_time_or_none
from kameng_api.kit.ids import public_id

ROBOTS: Final = frozenset({"wecom", "dingtalk", "feishu"})
_SIGNED: Final = frozenset({"dingtalk", "feishu"})
_WECOM_BYTES: Final = 2048
_DINGTALK_BYTES: Final = 15_000
_FEISHU_BYTES: Final = 15_000
_MAIL_BYTES: Final = 100_000


@dataclass(frozen=True, slots=True)
class Sink:
    """One receiver. Its address is a secret as well: whoever knows a robot's URL may write to the group."""

    kind: str
    address: str = field(repr=False)
    secret: str | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        """Stable and harmless: kind and eight characters of a hash of the address."""
        return f"{self.kind}:{hashlib.sha256(self.address.encode()).hexdigest()[:8]}"


@dataclass(frozen=True, slots=True)
class SinkRequest:
    """One POST of JSON."""

    url: str = field(repr=False)
    body: bytes


def parse_sinks(texts: Sequence[str]) -> tuple[Sink, ...]:
    """Raises ValueError naming the position, never the text, of a sink that cannot be meant."""
    return tuple(_parse(n, text) for n, text in enumerate(texts, 1))


def _parse(n: int, text: str) -> Sink:
    kind, _, rest = text.partition(":")
    if kind == "email":
        name, at, host = rest.partition("@")
        if not (name and at and host) or any(c.isspace() for c in rest):
            raise ValueError(f"alarm sink {n}: email:ADDRESS wants a mail address")
        return Sink(kind, rest)
    if kind not in ROBOTS | {"webhook"}:
        raise ValueError(f"alarm sink {n}: begins with none of webhook:, wecom:, dingtalk:, feishu:, email:")
    address, _, secret = rest.partition("#")
    parts = urlsplit(address)
    if parts.scheme not in ("https", "http") or not parts.hostname:
        raise ValueError(f"alarm sink {n}: {kind}: wants an http(s) URL")
    if secret and kind not in _SIGNED:
        raise ValueError(f"alarm sink {n}: {kind}: is not signed, so nothing may follow a #")
    return Sink(kind, address, secret or None)


def request_for(sink: Sink, alarms: Sequence[Alarm], now: datetime) -> SinkRequest:
    """The request that tells these alarms to a sink that is reached by HTTP."""
    match sink.kind:
        case "wecom":
            return _wecom(sink, alarms)
        case "dingtalk":
            return _dingtalk(sink, alarms, now)
        case "feishu":
            return _feishu(sink, alarms, now)
        case _:
            return SinkRequest(sink.address, orjson.dumps({"alarms": [_as_json(a) for a in alarms]}))


def _wecom(sink: Sink, alarms: Sequence[Alarm]) -> SinkRequest:
    """WeCom (企业微信) group robot: https://developer.work.weixin.qq.com/document/path/91770.

    A text is at most 2,048 bytes of UTF-8; at most 20 messages a minute per robot; `errcode` 0 means taken.
    """
    text = digest(alarms, _WECOM_BYTES)
    return SinkRequest(sink.address, orjson.dumps({"msgtype": "text", "text": {"content": text}}))


def _dingtalk(sink: Sink, alarms: Sequence[Alarm], now: datetime) -> SinkRequest:
    """DingTalk (钉钉) group robot: https://open.dingtalk.com/document/robots/customize-robot-security-settings.

    Signed: query parameters `timestamp` (milliseconds) and `sign` = base64(HMAC-SHA256(secret, timestamp LF secret)).
    `errcode` 0 means taken; at most 20 messages a minute.
    """
    url = sink.address
    if sink.secret is not None:
        at = str(int(now.timestamp() * 1000))
        mac = hmac.new(sink.secret.encode(), f"{at}\n{sink.secret}".encode(), hashlib.sha256).digest()
        url += ("&" if "?" in url else "?") + urlencode({"timestamp": at, "sign": base64.b64encode(mac).decode()})
    text = digest(alarms, _DINGTALK_BYTES)
    return SinkRequest(url, orjson.dumps({"msgtype": "text", "text": {"content": text}}))


def _feishu(sink: Sink, alarms: Sequence[Alarm], now: datetime) -> SinkRequest:
    """Feishu (飞书) custom bot: https://open.feishu.cn/document/client-docs/bot-v3/add-custom-bot.

    Signed: `timestamp` (seconds) and `sign` in the body, where the HMAC-SHA256 *key* is `timestamp LF secret` and the message
    is empty. The body is at most 20 KB; `code` 0 means taken.
    """
    content: dict[str, Any] = {
        "msg_type": "text",
        "content": {"text": digest(alarms, _FEISHU_BYTES)},
    }
    if sink.secret is not None:
        at = str(int(now.timestamp()))
        mac = hmac.new(f"{at}\n{sink.secret}".encode(), b"", hashlib.sha256).digest()
        content = {"timestamp": at, "sign": base64.b64encode(mac).decode(), **content}
    return SinkRequest(sink.address, orjson.dumps(content))


def was_taken(sink: Sink, status: int, body: bytes) -> bool:
    """Whether the receiver has it. Robots answer 200 to refusals too and tell the truth in the body."""
    if not 200 <= status < 300:
        return False
    if sink.kind not in ROBOTS:
        return True
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        return False
    word = "code" if sink.kind == "feishu" else "errcode"
    return isinstance(answer, Mapping) and answer.get(word) == 0


def mail_for(alarms: Sequence[Alarm]) -> tuple[str, str]:
    """(subject, text) of the mail about these alarms."""
    kinds = sorted({a.kind for a in alarms})
    return f"[kameng] {len(alarms)} alarm(s): {', '.join(kinds)}", digest(alarms, _MAIL_BYTES)


def _as_json(alarm: Alarm) -> dict[str, Any]:
    return {
        "id": public_id("alm", alarm.alarm_id),
        "kind": alarm.kind,
        "title": KINDS[alarm.kind].title,
        "subject": alarm.subject,
        "severity": alarm.severity.value,
        "detail": alarm.detail,
        "count": alarm.count,
        "first_at": wire_time(alarm.first_at),
        "last_at": wire_time(alarm.last_at),
        "closed_at": wire_time_or_none(alarm.closed_at),
    }
