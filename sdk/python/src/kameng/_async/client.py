"""Signs, sends and sends again: the one place that touches the network."""

import asyncio
import io
import logging
import os
import time
from collections.abc import Mapping
from types import TracebackType
from typing import IO, Any, Final, TypeVar

import httpx

from kameng import calls
from kameng._async.batches import AsyncBatches
from kameng._async.orders import AsyncOrders
from kameng._async.resources import (
    AsyncEvents,
    AsyncProducts,
    AsyncStatements,
    AsyncTestMode,
    AsyncTransactions,
    AsyncWebhookEndpoints,
)
from kameng.calls import LARGEST_ANSWER, Answer, Call, Money
from kameng.codes import DeliveryKey
from kameng.models import BalanceAlerts, BalanceNow, Number
from kameng.retries import Again, Course, RetryPolicy
from kameng.signing import Clock, Ed25519Key, HmacKey, Key, authorization

T = TypeVar("T")
_VERSION: Final = "0.1.0"
_log = logging.getLogger("kameng")


class AsyncClient:
    """A merchant's way to one house with one key.

        async with AsyncClient("https://hub.example", "ak_test_…", "sk_test_…") as client:
            order = await client.orders.create("PO-1", "mobile-cn-100", target="13800138000")

    Every call signs each attempt anew, follows the house's `retry` rule within `retry.deadline_s`, and takes over the house's clock when its own
    is refused. Raises what `kameng.errors` lists. Secrets stand in no repr and no log.
    """

    def __init__(
        self,
        base_url: str,
        key_id: str,
        secret: str | None = None,
        *,
        private_key: bytes | str | None = None,
        delivery_key: DeliveryKey | None = None,
        retry: RetryPolicy | None = None,
        timeout_s: float = 30.0,
        transport: httpx.AsyncBaseTransport | None = None,
        trust_env: bool = True,
    ) -> None:
        """`secret` (HMAC) or `private_key` (Ed25519: 32 bytes or their base64). `timeout_s` bounds one attempt, `retry` the whole call.

        `delivery_key` opens card codes. `trust_env`: whether proxies of the environment are used. Raises ValueError for malformed keys.
        """
        if (secret is None) == (private_key is None):
            raise ValueError("give a secret (HMAC) or a private_key (Ed25519), and not both")
        self.key: Key = HmacKey(key_id, secret) if secret is not None else Ed25519Key(key_id, private_key or b"")
        self.clock = Clock()
        self.delivery_key = delivery_key
        self.retry = retry if retry is not None else RetryPolicy()
        self._timeout_s = timeout_s
        self._http = httpx.AsyncClient(
            base_url=base_url.rstrip("/"),
            transport=transport,
            trust_env=trust_env,
            follow_redirects=False,
            headers={"User-Agent": f"kameng-python/{_VERSION}", "Accept": "application/json"},
        )
        self.orders = AsyncOrders(self)
        self.batches = AsyncBatches(self)
        self.products = AsyncProducts(self)
        self.transactions = AsyncTransactions(self)
        self.events = AsyncEvents(self)
        self.webhook_endpoints = AsyncWebhookEndpoints(self)
        self.statements = AsyncStatements(self)
        self.test = AsyncTestMode(self)

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None, **options: Any) -> "AsyncClient":
        """From KAMENG_BASE_URL, KAMENG_KEY_ID, KAMENG_SECRET or KAMENG_PRIVATE_KEY, and KAMENG_DELIVERY_KEY if there is one.

        Raises ValueError naming what is missing.
        """
        found = os.environ if environ is None else environ
        missing = [name for name in ("KAMENG_BASE_URL", "KAMENG_KEY_ID") if not found.get(name)]
        if missing:
            raise ValueError(f"set {' and '.join(missing)}")
        return cls(
            found["KAMENG_BASE_URL"],
            found["KAMENG_KEY_ID"],
            found.get("KAMENG_SECRET") or None,
            private_key=found.get("KAMENG_PRIVATE_KEY") or None,
            delivery_key=found.get("KAMENG_DELIVERY_KEY") or None,
            **options,
        )

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        await self._http.aclose()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self._http.base_url)!r}, {self.key.key_id!r})"

    @property
    def environment(self) -> str:
        """`live` or `test`, as the key says."""
        return self.key.key_id.split("_")[1]

    async def balance(self) -> BalanceNow:
        return await self.run(calls.get("/v1/balance", calls.one(BalanceNow)))

    async def balance_alerts(self, *, currency: str | None = None) -> BalanceAlerts:
        """When you are told that money runs low, and for how long it lasts at the present rate."""
        return await self.run(calls.get("/v1/balance/alerts", calls.one(BalanceAlerts), currency=currency))

    async def set_balance_alerts(
        self, *, amount: Money | None = None, hours_left: int | None = None, currency: str | None = None
    ) -> BalanceAlerts:
        """Both limits as they shall be from now on; what is None is not watched."""
        body = {"amount": None if amount is None else calls.amount(amount), "hours_left": hours_left, "currency": currency}
        return await self.run(calls.send("PUT", "/v1/balance/alerts", calls.one(BalanceAlerts), body))

    async def number(self, number: str) -> Number:
        """Carrier and home of a phone number: eleven digits of mainland China, or `+`, country code and number."""
        digits = number.replace("+", "00", 1)  # a path holds no +
        return await self.run(calls.get(f"/v1/numbers/{calls.segment(digits)}", calls.one(Number)))

    async def evidence_keys(self) -> dict[str, str]:
        """Key id → public key in hex, of everything that ever signed receipts."""
        answer = await self.run(calls.get("/v1/evidence/keys", calls.whole))
        return {str(name): str(key) for name, key in answer.json()["keys"].items()}

    async def run(self, call: Call[T]) -> T:
        """One call, as often as the rule of retries says. For what has no method yet: build a `kameng.calls.Call`."""
        course = Course(self.retry, repeatable=call.repeatable, writes=call.writes, began_s=time.monotonic())
        left_s = self.retry.deadline_s
        while True:
            answer, trouble = None, None
            try:
                answer = await self._attempt(call, min(self._timeout_s, left_s))
            except httpx.TransportError as broken:
                trouble = broken
            if answer is not None and (200 <= answer.status < 300 or answer.status in call.also_well):
                return call.read(answer)
            was = calls.attempted(call, answer, trouble)
            verdict = course.next(was, time.monotonic())
            _log.debug("%s %s: %s", call.method, call.path, was.status if trouble is None else type(trouble).__name__)
            if not isinstance(verdict, Again):
                raise calls.refusal(call, was, course) from trouble
            if verdict.server_time is not None:
                self.clock.correct(verdict.server_time)
            await asyncio.sleep(verdict.wait_s)
            left_s = course.left_s(time.monotonic())
            if left_s <= 0:  # a machine that stood still slept past the deadline
                raise calls.refusal(call, was, course) from trouble

    async def _attempt(self, call: Call[Any], timeout_s: float) -> Answer:
        """One exchange, signed now. Raises httpx.TransportError."""
        ends_at = time.monotonic() + timeout_s
        request = self._http.build_request(
            call.method, call.target, content=call.body or None, timeout=httpx.Timeout(timeout_s, connect=min(5.0, timeout_s))
        )
        if call.body:
            request.headers["Content-Type"] = call.content_type
        request.headers.update(call.headers)
        if call.signed:
            sent = request.url.raw_path.decode("ascii")  # what httpx really sends, a prefix of base_url too
            request.headers["Authorization"] = authorization(self.key, call.method, sent, call.body, timestamp=self.clock.now())
        response = await self._http.send(request, stream=True)
        try:
            into = call.into if call.into is not None and response.is_success else io.BytesIO()
            await self._receive(response, into, ends_at, bounded=into is not call.into)
            content = into.getvalue() if isinstance(into, io.BytesIO) and into is not call.into else b""
            return Answer(response.status_code, response.headers, content)
        except httpx.DecodingError as broken:
            raise httpx.RemoteProtocolError("the answer cannot be decoded") from broken
        finally:
            await response.aclose()

    async def _receive(self, response: httpx.Response, into: IO[bytes], ends_at: float, *, bounded: bool) -> None:
        """A body that drips for ever is no answer, one without end neither."""
        into.seek(0)
        into.truncate()
        size = 0
        async for piece in response.aiter_bytes():
            into.write(piece)
            size += len(piece)
            if bounded and (time.monotonic() > ends_at or size > LARGEST_ANSWER):
                raise httpx.ReadTimeout("the answer does not end")
