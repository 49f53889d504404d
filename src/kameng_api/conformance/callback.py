"""Sends webhooks to the merchant's callback as the platform does: Standard Webhooks 1.0, no redirects, 5 s to connect, 15 s in all."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import httpx
import orjson

from kameng_api.conformance.options import Options
from kameng_api.conformance.trace import Exchange, Redactor
from kameng_api.kit.http import Client
from kameng_api.kit.signing import sign_webhook

TOTAL_S: Final = 15.0
_READ_BYTES: Final = 16 << 10


class Callback:
    """The merchant's receiving URL, and everything that was sent to it in `sent`."""

    def __init__(self, options: Options, client: Client, redactor: Redactor, journal: list[Exchange]) -> None:
        self._url = options.callback
        self._secret = options.webhook_secret
        self._client = client
        self._redactor = redactor
        self._journal = journal
        self.sent: list[Exchange] = []

    async def send(self, event: Mapping[str, Any], *, timestamp: int | None = None, secrets: Sequence[str] | None = None) -> Exchange:
        """Send one event, signed with the merchant's secret now unless told otherwise."""
        body = orjson.dumps(event)
        return await self.send_raw(body, self.headers(event["id"], body, timestamp=timestamp, secrets=secrets))

    def headers(self, event_id: str, body: bytes, *, timestamp: int | None = None, secrets: Sequence[str] | None = None) -> dict[str, str]:
        """The three headers for these bytes."""
        at = int(time.time()) if timestamp is None else timestamp
        signature = sign_webhook([self._secret] if secrets is None else secrets, event_id, at, body)
        return {"webhook-id": event_id, "webhook-timestamp": str(at), "webhook-signature": signature}

    async def send_raw(self, body: bytes, headers: Mapping[str, str]) -> Exchange:
        """Send exactly this; whatever goes wrong is written into the exchange."""
        whole = {"content-type": "application/json", **headers}
        exchange = Exchange("platform → callback", f"POST {self._redactor.url(self._url)}", self._redactor.headers(whole), self._redactor.body(body))
        self.sent.append(exchange)
        self._journal.append(exchange)
        began = time.monotonic()
        try:
            async with asyncio.timeout(TOTAL_S):
                answer = await self._client.exchange("POST", self._url, headers=whole, content=body, max_answer_bytes=_READ_BYTES, cut=True)
        except TimeoutError:
            exchange.trouble = f"no answer within {TOTAL_S:.0f} s"
        except httpx.HTTPError as trouble:
            exchange.trouble = f"{type(trouble).__name__}: no answer"
        else:
            exchange.status, exchange.answer_headers = answer.status_code, self._redactor.headers(answer.headers)
            exchange.answer_body = self._redactor.body(answer.content)
        exchange.took_s = time.monotonic() - began
        return exchange
