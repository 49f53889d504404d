"""One access token per connection: asked for once however many wait, used as long as the vendor says, and never a reason to buy twice."""

import asyncio
import contextvars
import time
from typing import Any, Final

import orjson

from kameng_api.suppliers.adapters.reloadly_gift import wire
from kameng_api.suppliers.port import Cause, HttpAnswer, NotSent, Send, Unknown

_EARLY_S: Final = 300.0
_EARLY_SHARE: Final = 0.25
"""A token is renewed so long before its end, or with so much of a short life left."""
_PAUSE_S: Final = 1.0
"""After a failure nobody asks again for so long: what cannot be had is not asked for by every order."""
_REFUSED: Final = frozenset({"INVALID_CREDENTIALS", "INVALID_AUDIENCE"})


class Token:
    """The secret leaves in the token request alone (`POST /oauth/token`)."""

    def __init__(self, send: Send, auth_url: str, client_id: str, client_secret: str, audience: str, timeout_s: float) -> None:
        asked = {"client_id": client_id, "client_secret": client_secret, "grant_type": "client_credentials", "audience": audience}
        self._body = orjson.dumps(asked)
        self._url = f"{auth_url}/oauth/token"
        self._send = send
        self._timeout_s = timeout_s
        self._value = ""
        self._good_until = 0.0
        self._failure: NotSent | None = None
        self._asking: asyncio.Task[str | NotSent] | None = None

    async def get(self) -> str | NotSent:
        """The token, or why there is none: then nothing else was sent either."""
        now = time.monotonic()
        if now < self._good_until:
            return self._failure or self._value
        asking = self._asking
        if asking is None or asking.done():
            # In a context of its own: the lease of whoever comes first must not end the request of all who wait.
            asking = self._asking = asyncio.create_task(self._ask(), context=contextvars.Context())
        return await asyncio.shield(asking)

    def forget(self, value: str) -> None:
        """`value` was refused; the next who asks gets another. A newer one stays."""
        if value == self._value:
            self._good_until = 0.0

    async def _ask(self) -> str | NotSent:
        headers = {"content-type": "application/json", "accept": "application/json"}
        answer = await self._send("POST", self._url, headers=headers, content=self._body, timeout_s=self._timeout_s)
        found = _read(answer)
        if isinstance(found, NotSent):
            self._failure, self._value, life_s = found, "", _PAUSE_S
        else:
            self._failure, (self._value, life_s) = None, found
            life_s -= min(_EARLY_S, life_s * _EARLY_SHARE)
        self._good_until = time.monotonic() + life_s
        return self._failure or self._value


def _read(answer: HttpAnswer | NotSent | Unknown) -> tuple[str, float] | NotSent:
    """(token, its life in seconds), or why not. Whatever became of a token request, no purchase left."""
    match answer:
        case NotSent():
            return answer
        case Unknown(reason=reason):
            return NotSent(f"no token: {reason}")
    try:
        found: Any = wire.read(answer.body)
    except wire.Unreadable:
        found = None
    if not isinstance(found, dict):
        return NotSent(f"no token: HTTP {answer.status}, unreadable")
    if answer.status != 200:
        code = found.get("errorCode")
        if code in _REFUSED:
            return NotSent(f"no token: {code}")
        return NotSent(f"no token: HTTP {answer.status}", Cause.BUSY if answer.status == 429 else Cause.UNREACHED)
    value, life = found.get("access_token"), found.get("expires_in")
    if not isinstance(value, str) or not (value.isascii() and value.isprintable() and value) or not isinstance(life, int) or life <= 0:
        return NotSent("no token: unreadable")
    return value, float(min(life, 10**8))
