"""What went over the wire, kept for the report: without secrets, signatures in full, or a shopper's number."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

_SHOWN_CHARS: Final = 2000
_HEADERS: Final = frozenset((
    "authorization", "content-type", "idempotent-replayed", "location", "retry-after", "webhook-id", "webhook-signature", "webhook-timestamp",
))  # fmt: skip
_SIGNATURE: Final = re.compile(r'(signature="|v1,)([A-Za-z0-9+/]{6})[A-Za-z0-9+/]+={0,2}')
_QUERY_VALUE: Final = re.compile(r"=[^&]*")
_LOOKS_SECRET: Final = re.compile(r"\b(sk_(?:live|test)_|whsec_)[A-Za-z0-9+/=_-]{8,}")


@dataclass(slots=True)
class Exchange:
    """One request and what came back. `status` is None when no answer came, and `trouble` says why; `took_s` in seconds."""

    who: str
    request: str
    request_headers: dict[str, str] = field(default_factory=dict)
    request_body: str = ""
    status: int | None = None
    answer_headers: dict[str, str] = field(default_factory=dict)
    answer_body: str = ""
    took_s: float = 0.0
    trouble: str = ""

    def shown(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "who": self.who,
            "request": self.request,
            "request_headers": self.request_headers,
            "request_body": self.request_body,
            "status": self.status,
            "answer_headers": self.answer_headers,
            "answer_body": self.answer_body,
            "took_s": round(self.took_s, 3),
            "trouble": self.trouble,
        }


class Redactor:
    """Takes out of texts what must not stand in a report: the secrets of this run, anything shaped like one, and the target."""

    def __init__(self, secrets: Iterable[str], target: str | None) -> None:
        self._secrets = [secret for secret in secrets if secret]
        self._target = target if target is not None and len(target) > 7 else None

    def text(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "[secret]")
        text = _LOOKS_SECRET.sub(r"\1[secret]", text)
        if self._target is not None:
            text = text.replace(self._target, f"{self._target[:3]}****{self._target[-4:]}")
        return text

    def body(self, body: bytes) -> str:
        text = self.text(body[: _SHOWN_CHARS * 4].decode("utf-8", "replace"))
        return text if len(body) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}… ({len(body)} bytes)"

    def headers(self, headers: Mapping[str, str]) -> dict[str, str]:
        """Only those that belong to the contract, signatures cut short."""
        return {n.lower(): self.text(_SIGNATURE.sub(r"\1\2…", v)) for n, v in headers.items() if n.lower() in _HEADERS}

    def url(self, url: str) -> str:
        """Without user name, password and the values of the query: addresses of hooks often carry tokens."""
        parts = urlsplit(url)
        query = "?" + _QUERY_VALUE.sub("=…", parts.query) if parts.query else ""
        return self.text(f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}{query}")
