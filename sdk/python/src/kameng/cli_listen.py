"""`kameng-merchant listen`: events fetched from the house and brought to a program on this machine as signed webhooks; no tunnel is needed."""

import base64
import hashlib
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx

from kameng import calls
from kameng._sync.client import Client
from kameng.cli_profile import place, read_private, write_private
from kameng.errors import NoAnswer, RateLimited, ServerError
from kameng.webhooks import sign

_ANSWER_S: Final = 15.0
_LONGEST_WAIT_S: Final = 30.0


class GaveUp(Exception):
    """The program did not take an event in so many attempts; nothing after it was forwarded."""


@dataclass(frozen=True)
class Forwarded:
    """One attempt. `status` None: no answer, and `trouble` says why."""

    event_id: str
    event_type: str
    status: int | None
    took_s: float
    attempt: int
    trouble: str = ""

    @property
    def taken(self) -> bool:
        return self.status is not None and 200 <= self.status < 300


def new_secret() -> str:
    """A webhook secret for this machine alone."""
    return "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()


class Bookmark:
    """The last event that was taken, per house, key and address: kept in a file, so that the next run goes on behind it."""

    def __init__(self, base_url: str, key_id: str, forward_to: str) -> None:
        name = hashlib.sha256(f"{base_url}\n{key_id}\n{forward_to}".encode()).hexdigest()[:16]
        self.path: Path = place().parent / f"listen-{name}.json"

    def read(self) -> str | None:
        found = read_private(self.path)
        after = found.get("after") if isinstance(found, dict) else None
        return after if isinstance(after, str) else None

    def write(self, event_id: str) -> None:
        write_private(self.path, {"after": event_id})


@dataclass
class Listener:
    """Fetches and forwards, in order, one event at a time. `tell` hears of each attempt."""

    client: Client
    forward_to: str
    secret: str = field(repr=False)
    bookmark: Bookmark
    tell: Callable[[Forwarded], None]
    event_type: str | None = None
    attempts: int = 8
    skip_failed: bool = False
    first_wait_s: float = 1.0

    def skip_to_the_end(self) -> int:
        """Set the bookmark behind everything there is; how many events were passed over."""
        passed, last = 0, ""
        for event in self.client.events.list(after=self.bookmark.read()):
            passed, last = passed + 1, event.id
        if last:
            self.bookmark.write(last)
        return passed

    def run(self, *, once: bool, every_s: float) -> int:
        """Without end, or until there is nothing more (`once`); how many events were taken. Raises GaveUp, CursorInvalid."""
        taken, wait_s = 0, 0.0
        with httpx.Client(timeout=httpx.Timeout(_ANSWER_S, connect=5.0), follow_redirects=False, trust_env=False) as local:
            while True:
                time.sleep(wait_s)
                try:
                    page = self.client.events.list(after=self.bookmark.read(), type=self.event_type).page()
                except (NoAnswer, RateLimited, ServerError):
                    if once:
                        raise
                    wait_s = min(max(every_s, wait_s * 2), _LONGEST_WAIT_S)
                    continue
                for event in page.items:
                    taken += self._deliver(local, event.id, event.type)
                    self.bookmark.write(event.id)
                if page.next_cursor is None and once:
                    return taken
                wait_s = 0.0 if page.next_cursor is not None else every_s

    def _deliver(self, local: httpx.Client, event_id: str, event_type: str) -> int:
        """1 when it was taken, 0 when it was skipped. Raises GaveUp."""
        body = self.client.run(calls.get(f"/v1/events/{event_id}", calls.whole)).content  # the webhook's very bytes
        for attempt in range(1, self.attempts + 1):
            forwarded = self._send(local, event_id, event_type, body, attempt)
            self.tell(forwarded)
            if forwarded.taken:
                return 1
            if attempt < self.attempts:
                time.sleep(min(self.first_wait_s * 2 ** (attempt - 1), _LONGEST_WAIT_S))
        if not self.skip_failed:
            raise GaveUp(f"{event_type} {event_id} was not taken in {self.attempts} attempts")
        return 0

    def _send(self, local: httpx.Client, event_id: str, event_type: str, body: bytes, attempt: int) -> Forwarded:
        headers = {"Content-Type": "application/json", **sign(self.secret, event_id, int(time.time()), body)}
        began = time.monotonic()
        status: int | None = None
        trouble = ""
        try:
            with local.stream("POST", self.forward_to, content=body, headers=headers) as answer:
                status = answer.status_code
        except httpx.HTTPError as broken:
            trouble = type(broken).__name__
        return Forwarded(event_id, event_type, status, time.monotonic() - began, attempt, trouble)


def as_row(forwarded: Forwarded) -> dict[str, Any]:
    """For `--json`: one line per attempt."""
    return {
        "event_id": forwarded.event_id, "type": forwarded.event_type, "status": forwarded.status, "taken": forwarded.taken,
        "attempt": forwarded.attempt, "took_s": round(forwarded.took_s, 3), "trouble": forwarded.trouble,
    }  # fmt: skip
