"""Products, money movements, events, webhook endpoints, statements and test mode."""

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path
from typing import IO, Any, Literal

from kameng import calls
from kameng._async.paging import AsyncPager
from kameng._async.runner import AsyncRunner
from kameng.calls import Call, Money, Page, amount, segment
from kameng.errors import NoAnswer, NotFound, RateLimited, ServerError
from kameng.models import (
    Balance,
    Delivery,
    Endpoint,
    EndpointHealth,
    EndpointWithSecret,
    Event,
    FastForwarded,
    NotifySecret,
    Order,
    Product,
    ProductChanges,
    PublicKey,
    Replayed,
    Resent,
    SentAgain,
    SignedText,
    Statement,
    Transaction,
)
from kameng.proofs import SignedManifest, verify_statement

Format = Literal["csv", "xlsx", "json"]


@dataclass(frozen=True)
class AsyncSnapshot:
    """All products at one moment. `etag` asks whether there is a newer one, `changes_after` for what changed since."""

    products: tuple[Product, ...]
    etag: str
    changes_after: str


class AsyncProducts:
    """`client.products`"""

    def __init__(self, client: AsyncRunner) -> None:
        self._client = client

    def list(self, *, page_size: int = 100, cursor: str | None = None) -> AsyncPager[Product]:
        """At your prices."""

        async def fetch(at: str | None) -> Page[Product]:
            return await self._client.run(calls.get("/v1/products", calls.page(Product), limit=page_size, cursor=at))

        return AsyncPager(fetch, cursor)

    async def get(self, sku: str) -> Product:
        """Raises NotFound."""
        return await self._client.run(calls.get(f"/v1/products/{segment(sku)}", calls.one(Product)))

    async def snapshot(self, *, etag: str | None = None) -> AsyncSnapshot | None:
        """Everything you can buy, at once. With the `etag` of the last one: None while nothing changed."""
        call = Call(
            "GET", "/v1/products", calls.whole, {"whole": "true"},
            headers={} if etag is None else {"If-None-Match": etag}, also_well=frozenset((304,)),
        )  # fmt: skip
        answer = await self._client.run(call)
        if answer.status == 304:
            return None
        return AsyncSnapshot(calls.items(Product)(answer), answer.headers.get("etag", ""), str(answer.json().get("changes_after") or ""))

    async def changes(self, *, after: str | None = None, limit: int = 100) -> ProductChanges:
        """What changed for you since `after` (of a snapshot, or of the last answer): price, status, stock or description. Nothing is missed."""
        return await self._client.run(calls.get("/v1/products/changes", calls.one(ProductChanges), after=after, limit=limit))


class AsyncTransactions:
    """`client.transactions`: the fund flow."""

    def __init__(self, client: AsyncRunner) -> None:
        self._client = client

    def list(self, *, page_size: int = 100, cursor: str | None = None) -> AsyncPager[Transaction]:
        """Newest first."""

        async def fetch(at: str | None) -> Page[Transaction]:
            return await self._client.run(calls.get("/v1/balance/transactions", calls.page(Transaction), limit=page_size, cursor=at))

        return AsyncPager(fetch, cursor)

    async def export(self, first: date | str, last: date | str, *, format: Literal["csv", "xlsx"] = "csv", currency: str | None = None) -> bytes:
        """The fund flow of business days, both included, at most 93, as a file."""
        query = {"from": str(first), "to": str(last), "format": format, "currency": currency}
        return (await self._client.run(Call("GET", "/v1/balance/transactions/export", calls.whole, query))).content


class AsyncEvents:
    """`client.events`: the same events as webhooks bring, for those who ask."""

    def __init__(self, client: AsyncRunner) -> None:
        self._client = client

    def list(self, *, after: str | None = None, type: str | None = None, page_size: int = 100) -> AsyncPager[Event]:
        """Oldest first, what is there now. `after`: the id of the last event you have dealt with."""

        async def fetch(at: str | None) -> Page[Event]:
            return await self._client.run(calls.get("/v1/events", calls.page(Event), after=at, type=type, limit=page_size))

        return AsyncPager(fetch, after)

    async def get(self, event_id: str) -> Event:
        """Raises NotFound."""
        return await self._client.run(calls.get(f"/v1/events/{segment(event_id)}", calls.one(Event)))

    async def follow(self, *, after: str | None = None, type: str | None = None, every_s: float = 1.0) -> AsyncIterator[Event]:
        """Every event from `after` on, without end; asks again `every_s` after a page that was not full.

        Store an event's id when you are done with it, in the same transaction as what you did, and begin there next time. The house not answering
        ends nothing: it is asked again. Raises CursorInvalid when `after` is no longer on record (kept for 90 days).
        """
        wait_s = 0.0
        while True:
            await asyncio.sleep(wait_s)
            try:
                page = await self.list(after=after, type=type).page()
            except (NoAnswer, RateLimited, ServerError):
                wait_s = min(max(every_s, wait_s * 2), 60.0)
                continue
            for event in page.items:
                yield event
                after = event.id
            wait_s = 0.0 if page.next_cursor is not None else every_s


class AsyncWebhookEndpoints:
    """`client.webhook_endpoints`"""

    def __init__(self, client: AsyncRunner) -> None:
        self._client = client

    async def create(self, url: str, *, event_types: Sequence[str] = (), description: str = "") -> EndpointWithSecret:
        """Its secret is shown this once. `event_types` empty: all, later ones too. Never sent twice by itself: after NoAnswer look at `list`.

        Raises StateConflict with `existing_id` when the same is registered already.
        """
        body = {"url": url, "event_types": list(event_types), "description": description}
        return await self._client.run(
            calls.send("POST", "/v1/webhook-endpoints", calls.one(EndpointWithSecret), body, repeatable=False)
        )

    async def list(self) -> tuple[Endpoint, ...]:
        return await self._client.run(calls.get("/v1/webhook-endpoints", calls.items(Endpoint)))

    async def get(self, endpoint_id: str) -> Endpoint:
        return await self._client.run(calls.get(self._path(endpoint_id), calls.one(Endpoint)))

    async def change(
        self, endpoint_id: str, *, url: str | None = None, event_types: Sequence[str] | None = None, description: str | None = None
    ) -> Endpoint:
        """What is not given stays."""
        given = {"url": url, "event_types": None if event_types is None else list(event_types), "description": description}
        body = {name: value for name, value in given.items() if value is not None}
        return await self._client.run(calls.send("PATCH", self._path(endpoint_id), calls.one(Endpoint), body))

    async def delete(self, endpoint_id: str) -> None:
        try:
            await self._client.run(calls.send("DELETE", self._path(endpoint_id), calls.nothing))
        except NotFound as gone:
            if not gone.earlier_unknown:
                raise  # else an attempt that went unanswered has deleted it

    async def enable(self, endpoint_id: str) -> Endpoint:
        """What was missed meanwhile stays held until `replay_missing`."""
        return await self._client.run(calls.send("POST", self._path(endpoint_id, "enable"), calls.one(Endpoint)))

    async def disable(self, endpoint_id: str) -> Endpoint:
        return await self._client.run(calls.send("POST", self._path(endpoint_id, "disable"), calls.one(Endpoint)))

    async def rotate_secret(self, endpoint_id: str) -> EndpointWithSecret:
        """The old secret signs beside the new one for 24 hours. Never sent twice by itself: after NoAnswer rotate once more."""
        return await self._client.run(
            calls.send("POST", self._path(endpoint_id, "rotate-secret"), calls.one(EndpointWithSecret), repeatable=False)
        )

    async def ping(self, endpoint_id: str) -> Endpoint:
        """Sends a signed `endpoint.ping`; see `deliveries` for what came of it."""
        return await self._client.run(calls.send("POST", self._path(endpoint_id, "ping"), calls.one(Endpoint)))

    async def resend(self, endpoint_id: str, event_id: str) -> Resent:
        return await self._client.run(calls.send("POST", self._path(endpoint_id, "resend"), calls.one(Resent), {"event_id": event_id}))

    async def send_test(self, endpoint_id: str, event_type: str) -> Resent:
        """An example of this type, to this endpoint alone."""
        return await self._client.run(calls.send("POST", self._path(endpoint_id, "test"), calls.one(Resent), {"type": event_type}))

    async def health(self, endpoint_id: str) -> EndpointHealth:
        return await self._client.run(calls.get(self._path(endpoint_id, "health"), calls.one(EndpointHealth)))

    async def expire_old_secret(self, endpoint_id: str) -> Endpoint:
        """At once instead of after 24 hours: when it has leaked."""
        return await self._client.run(calls.send("POST", self._path(endpoint_id, "expire-old-secret"), calls.one(Endpoint)))

    async def rotate_notify_secret(self) -> NotifySecret:
        """Of the calls to `notify_url`. Never sent twice by itself: after NoAnswer rotate once more."""
        return await self._client.run(calls.send("POST", "/v1/notify-secret/rotate", calls.one(NotifySecret), repeatable=False))

    async def expire_old_notify_secret(self) -> None:
        await self._client.run(calls.send("POST", "/v1/notify-secret/expire-old-secret", calls.nothing))

    def all_deliveries(
        self,
        *,
        state: str | None = None,
        event_type: str | None = None,
        event_id: str | None = None,
        order_id: str | None = None,
        page_size: int = 100,
    ) -> AsyncPager[Delivery]:
        """The attempts log of all receivers, newest event first; those to a `notify_url` too."""

        async def fetch(at: str | None) -> Page[Delivery]:
            query = {"state": state, "event_type": event_type, "event_id": event_id, "order_id": order_id}
            return await self._client.run(calls.get("/v1/webhook-deliveries", calls.page(Delivery), **query, limit=page_size, cursor=at))

        return AsyncPager(fetch)

    async def resend_delivery(self, delivery_id: str) -> Resent:
        """Once more to the same receiver: same id, same bytes."""
        return await self._client.run(calls.send("POST", f"/v1/webhook-deliveries/{segment(delivery_id)}/resend", calls.one(Resent)))

    async def replay_missing(self, endpoint_id: str, *, since: datetime | None = None, until: datetime | None = None) -> int:
        """Everything given up or held, all of it: asked as often as there is more. How many are on their way."""
        given = {"since": since, "until": until}
        body = {name: calls.text(at) for name, at in given.items() if at is not None}
        total = 0
        while True:
            told = await self._client.run(calls.send("POST", self._path(endpoint_id, "replay-missing"), calls.one(Replayed), body))
            total += told.replayed
            if not told.more:
                return total

    def deliveries(self, endpoint_id: str, *, state: str | None = None, page_size: int = 100) -> AsyncPager[Delivery]:
        """The attempts log, newest event first. `state`: pending, delivered, given_up or held."""

        async def fetch(at: str | None) -> Page[Delivery]:
            path = self._path(endpoint_id, "deliveries")
            return await self._client.run(calls.get(path, calls.page(Delivery), state=state, limit=page_size, cursor=at))

        return AsyncPager(fetch)

    @staticmethod
    def _path(endpoint_id: str, verb: str | None = None) -> str:
        return f"/v1/webhook-endpoints/{segment(endpoint_id)}" + (f"/{verb}" if verb else "")


@dataclass(frozen=True)
class AsyncDownload:
    """A statement that was verified. `content` is the signed manifest's; the file stands at `path`, or in `file` where none was asked for."""

    content: Mapping[str, Any]
    proof: SignedManifest
    path: Path | None
    file: bytes = field(repr=False)


class AsyncStatements:
    """`client.statements`: a signed file for each business day."""

    def __init__(self, client: AsyncRunner) -> None:
        self._client = client

    def list(self, *, page_size: int = 100, cursor: str | None = None) -> AsyncPager[Statement]:
        """Those that are ready, newest day first."""

        async def fetch(at: str | None) -> Page[Statement]:
            return await self._client.run(calls.get("/v1/statements", calls.page(Statement), limit=page_size, cursor=at))

        return AsyncPager(fetch, cursor)

    async def keys(self) -> dict[str, str]:
        """Key id → public key in base64. Take them once and keep them: a key you have just been told proves little."""
        call = Call("GET", "/keys", calls.items(PublicKey, "keys"), signed=False)
        return {key.key_id: key.public_key for key in await self._client.run(call)}

    async def download(
        self,
        day: date | str,
        *,
        format: Format = "csv",
        currency: str | None = None,
        to: str | os.PathLike[str] | None = None,
        keys: Mapping[str, str] | None = None,
    ) -> AsyncDownload:
        """The day's file, verified before anybody sees it: hash, signature, key. `to` is written whole or not at all.

        `keys`: those you trust; without them the house is asked for them. Raises NotReady, NotFound, NotGenuine, OSError.
        """
        trusted = keys if keys is not None else await self.keys()
        target = None if to is None else Path(to)
        with tempfile.NamedTemporaryFile(dir=None if target is None else target.parent, delete=False) as part:
            try:
                downloaded = await self._fetch(str(day), format, currency, part, trusted)
                part.flush()
                if target is None:
                    part.seek(0)
                    return AsyncDownload(*downloaded, None, part.read())
                os.fsync(part.fileno())
                Path(part.name).replace(target)
                return AsyncDownload(*downloaded, target, b"")
            finally:
                Path(part.name).unlink(missing_ok=True)

    async def _fetch(
        self, day: str, format: Format, currency: str | None, into: IO[bytes], keys: Mapping[str, str]
    ) -> tuple[dict[str, Any], SignedManifest]:
        query = {"format": format, "currency": currency}
        answer = await self._client.run(Call("GET", f"/v1/statements/{segment(day)}", calls.whole, query, into=into))
        proof = SignedManifest.of_headers(answer.headers)
        content = verify_statement(into, format, proof, keys)
        if content.get("date") != day:
            raise calls.not_that_day(day)
        return content, proof


class AsyncTestMode:
    """`client.test`: what works with a test key only; NotFound with a live one."""

    __test__ = False

    def __init__(self, client: AsyncRunner) -> None:
        self._client = client

    async def set_balance(self, number: str, available: Money) -> Balance:
        """Play money. `number` is yours: the same number and amount again changes nothing."""
        body = {"number": number, "available": amount(available)}
        return await self._client.run(calls.send("POST", "/v1/test/balance", calls.one(Balance), body))

    async def advance(self, order_id: str, outcome: Literal["succeeded", "failed"] = "succeeded") -> Order:
        """Decides an order in manual review (magic target 10000000009)."""
        return await self._client.run(
            calls.send("POST", f"/v1/test/orders/{segment(order_id)}/advance", calls.order, {"outcome": outcome})
        )

    async def fast_forward(self, order_id: str) -> FastForwarded:
        """What the simulated suppliers would do for the order later, they do now."""
        return await self._client.run(calls.send("POST", f"/v1/test/orders/{segment(order_id)}/fast-forward", calls.one(FastForwarded)))

    async def send_webhook(self, order_id: str) -> SentAgain:
        """The order's newest event once more, to every endpoint that wants it."""
        return await self._client.run(calls.send("POST", f"/v1/test/orders/{segment(order_id)}/webhook", calls.one(SentAgain)))

    async def signature(self, body: Mapping[str, Any] | None = None) -> SignedText:
        """What the house signs for a request as this client sends it. Compare line by line when signatures are refused."""
        return await self._client.run(calls.send("POST", "/v1/test/signature", calls.one(SignedText), body))
