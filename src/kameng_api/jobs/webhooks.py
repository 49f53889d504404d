"""Tells merchants: recorded events become deliveries, deliveries signed calls, and what came of each is written down.

Claim (many at a time, one short transaction) · call (no transaction) · record (many at a time, under the lease). A
crash anywhere between means: sent again, with the same id and the same bytes. What one slow or dead receiver is owed
never stands in the way of the others (`webhooks.rules.Pace`).
"""

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable, Collection, Coroutine, Hashable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, Protocol
from urllib.parse import urlsplit
from uuid import UUID

import httpx

from kameng_api.alarms import actions as alarms
from kameng_api.kit import log, traces
from kameng_api.kit.crypto import CryptoError, Keyring
from kameng_api.kit.db import Database, Tx, fetch
from kameng_api.kit.errors import Unavailable
from kameng_api.kit.gather import Gatherer
from kameng_api.kit.http import AddressRefused, Client, build_client
from kameng_api.kit.ids import public_id
from kameng_api.kit.signing import sign_webhook
from kameng_api.kit.time_limit import TimeLimit
from kameng_api.settings import Settings
from kameng_api.tasks import actions as tasks
from kameng_api.tasks.rules import Lane, Task
from kameng_api.webhooks import actions as webhooks
from kameng_api.webhooks import queries, rules
from kameng_api.webhooks.actions import Health, SigningSecrets, Taker, Tried
from kameng_api.webhooks.events import ENDPOINT_PREFIX
from kameng_api.webhooks.queries import Delivery, Endpoint
from kameng_api.webhooks.rules import Pace, Reply, State, Trouble, Verdict

_USER_AGENT: Final = "kameng-webhooks/1"
_EVENTS_AT_ONCE: Final = 2_000
_KEEP_WAITING: Final = 1_000
"""Claimed and not yet called, per process: enough that the next claim overlaps with the calls of the last."""
_KEEP_UNRECORDED: Final = 4_000
_SLOW_FACTOR: Final = 3
"""Slow calls may take this many times `webhook_concurrency` beside the quick ones."""
_STALE_S: Final = 5.0
_LOOK_EVERY_S: Final = 0.2
_FLUSH_TRIES: Final = 3
_MANY_LINES: Final = 10_000
_UNREADABLE_RETRY: Final = timedelta(minutes=5)

_log = log.get()


class Desk(Protocol):
    """What these jobs need of their process."""

    @property
    def db(self) -> Database: ...

    @property
    def courier(self) -> "Courier": ...


async def fan_out(desk: Desk) -> int:
    """One round: up to some 2,000 committed events become deliveries. Returns how many events it passed on."""
    return await desk.courier.fan_out()


async def deliver(desk: Desk, limit: int) -> int:
    """Claim up to `limit` due deliveries and begin to send them; the calls go on after it returns. Returns how many."""
    return await desk.courier.deliver(limit)


@dataclass(frozen=True, slots=True, eq=False)
class Parcel:
    """One claimed delivery, ready to be sent."""

    task: Task
    delivery: Delivery
    url: str
    secrets: SigningSecrets
    body: bytes
    claimed_at: float


@dataclass(frozen=True, slots=True)
class _Sent:
    """The call was made; this came of it."""

    parcel: Parcel
    reply: Reply
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class _PutBack:
    """The call was not made; due again in `delay_s`."""

    parcel: Parcel
    delay_s: float


_Result = _Sent | _PutBack


@dataclass(slots=True, eq=False)
class _Line:
    """What waits for one receiver, and how fast it may go."""

    pace: Pace
    waiting: deque[Parcel] = field(default_factory=deque)


class Courier:
    """Sends this process's share of the webhooks.

    Each receiver (an endpoint, or the host of a notify_url within a book) has a line of its own; lines take turns.
    `webhook_concurrency` bounds calls that have been out for less than a second; slower ones are counted apart, so that
    hanging receivers do not use up the places of the others.
    """

    def __init__(
        self,
        db: Database,
        keyring: Keyring,
        settings: Settings,
        worker: str,
        *,
        client: Client | None = None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._db = db
        self._keyring = keyring
        self._worker = worker
        self._lease_s = float(settings.lease_s)
        self._concurrency = settings.webhook_concurrency
        self._per_endpoint = min(settings.webhook_per_endpoint, settings.webhook_concurrency)
        self._chance = chance
        self._client = client or build_client(
            max_connections=(1 + _SLOW_FACTOR) * settings.webhook_concurrency,
            connect_timeout_s=rules.CONNECT_TIMEOUT_S,
            read_timeout_s=rules.TOTAL_TIMEOUT_S,
            guard=True,
            allow_loopback=settings.webhook_development,
            max_answer_bytes=rules.MAX_ANSWER_BYTES,
            user_agent=_USER_AGENT,
        )
        self._call_limit = TimeLimit(rules.TOTAL_TIMEOUT_S)
        self.on_due: Callable[[], None] | None = None
        """Called when there is something new to deliver, so that `deliver` need not wait for its tick."""
        self._lines: dict[Hashable, _Line] = {}
        self._turns: dict[Hashable, _Line] = {}  # lines that may have something to start, the longest waiting first
        self._waiting = 0
        self._unrecorded = 0
        self._in_flight: dict[Parcel, float] = {}
        self._slow = 0
        self._slow_counted_at = 0.0
        self._looked_at = 0.0
        self._running: set[asyncio.Task[None]] = set()
        self._moved = asyncio.Event()
        self._database_now: tuple[datetime, float] | None = None
        self._records: Gatherer[_Result, None] = Gatherer(self._flush, largest=256, in_flight=2, crowd=64)

    # --- claim -------------------------------------------------------------------------------------------------------

    async def deliver(self, limit: int) -> int:
        """See the function of the same name. Waits, a few seconds at most, while there is no room to claim into."""
        self._clear_stale()
        self._pump()
        room = await self._find_room(limit)
        if room <= 0:
            return 0
        claimed, parcels = await self._claim(room)
        self._take(parcels)
        return claimed

    async def fan_out(self) -> int:
        """See the function of the same name. What there is room for comes with its lease, and is sent without being claimed first."""
        room = max(0, min(_KEEP_WAITING - self._waiting, _KEEP_UNRECORDED - self._unrecorded))
        clock = time.monotonic()
        async with self._db.transaction() as tx:
            round_ = await webhooks.fan_out(tx, _EVENTS_AT_ONCE, Taker(room, self._lease_s, self._worker))
            taken = {d.key: d for _, d in round_.taken}
            parcels = await self._address(tx, [task for task, _ in round_.taken], taken, clock, round_.now)
        self._take(parcels)
        if round_.left and self.on_due is not None:
            self.on_due()
        return round_.events

    def _take(self, parcels: Sequence[tuple[Hashable, Parcel]]) -> None:
        for key, parcel in parcels:
            self._line(key).waiting.append(parcel)
            self._turns.setdefault(key, self._lines[key])
        self._waiting += len(parcels)
        self._unrecorded += len(parcels)
        self._pump()

    async def _find_room(self, limit: int) -> int:
        give_up_at = time.monotonic() + _STALE_S
        while True:
            room = min(limit, _KEEP_WAITING - self._waiting, _KEEP_UNRECORDED - self._unrecorded)
            if room >= min(limit, _KEEP_WAITING // 4) or time.monotonic() >= give_up_at:
                return room
            self._moved.clear()
            try:
                async with asyncio.timeout(0.25):
                    await self._moved.wait()
            except TimeoutError:
                self._clear_stale()
                self._pump()

    async def _claim(self, limit: int) -> tuple[int, list[tuple[Hashable, Parcel]]]:
        """How many were claimed, and those to send, by receiver. The others are settled or postponed at once."""
        clock = time.monotonic()
        async with self._db.transaction() as tx:
            claimed = await tasks.claim(tx, Lane.WEBHOOK, limit, self._lease_s, self._worker)
            deliveries = await queries.find_deliveries(tx, [t.key for t in claimed]) if claimed else {}
            parcels = await self._address(tx, claimed, deliveries, clock)
        return len(claimed), parcels

    async def _address(
        self, tx: Tx, claimed: Sequence[Task], deliveries: dict[tuple[int, UUID], Delivery], clock: float, now: datetime | None = None
    ) -> list[tuple[Hashable, Parcel]]:
        """Those to send, by receiver; the others are settled or postponed. `now`: the transaction's time, if it is known already."""
        if not claimed:
            return []
        if now is None:
            [row] = await fetch(tx, "SELECT now() AS now")
            now = row["now"]
        self._database_now = now, clock
        chosen = self._sort_out(claimed, deliveries, await self._find_receivers(tx, deliveries.values()), clock)
        done = await tasks.complete(tx, [task for task, _ in chosen.settled])
        await webhooks.record_states(
            tx,
            [
                (d.book_id, d.delivery_id, state, d.attempts)
                for task, state in chosen.settled
                if state is not None and task.key in done and (d := deliveries.get(task.key)) is not None
            ],
        )
        await tasks.reschedule(
            tx, [(task, now + timedelta(seconds=delay_s), why) for task, delay_s, why in chosen.postponed]
        )
        return chosen.parcels

    def _now(self) -> datetime:
        """The database's clock, carried on: the clock of this machine may be wrong."""
        assert self._database_now is not None
        at, clock = self._database_now
        return at + timedelta(seconds=time.monotonic() - clock)

    async def _find_receivers(self, tx: Tx, wanted: Collection[Delivery]) -> "_Receivers":
        endpoints = await queries.find_endpoints(
            tx, sorted({(d.book_id, d.endpoint_id) for d in wanted if d.endpoint_id is not None})
        )
        books = sorted({d.book_id for d in wanted if d.notify_url is not None})
        return _Receivers(endpoints, await webhooks.find_notify_secrets(tx, self._keyring, books))

    def _sort_out(
        self,
        claimed: Sequence[Task],
        deliveries: dict[tuple[int, UUID], Delivery],
        receivers: "_Receivers",
        clock: float,
    ) -> "_Chosen":
        chosen = _Chosen()
        added: dict[Hashable, int] = {}
        secrets: dict[Hashable, SigningSecrets | None] = {}
        for task in sorted(claimed, key=lambda t: t.run_at):
            delivery = deliveries.get(task.key)
            if delivery is None or delivery.state != State.PENDING:
                chosen.settled.append((task, None))
                continue
            state = receivers.state_instead(delivery)
            if state is not None or delivery.body is None:
                chosen.settled.append((task, state or State.GIVEN_UP))
                continue
            url, key = receivers.address(delivery)
            if key not in secrets:
                secrets[key] = self._open(receivers, delivery)
            opened = secrets[key]
            if opened is None:
                chosen.postponed.append((task, _UNREADABLE_RETRY.total_seconds(), "secret_unreadable"))
                continue
            line = self._line(key)
            if line.pace.room(len(line.waiting) + added.get(key, 0), clock) <= 0:
                chosen.postponed.append((task, line.pace.book(clock, self._chance()), None))
                continue
            added[key] = added.get(key, 0) + 1
            chosen.parcels.append((key, Parcel(task, delivery, url, opened, delivery.body, clock)))
        return chosen

    def _open(self, receivers: "_Receivers", delivery: Delivery) -> SigningSecrets | None:
        if delivery.endpoint_id is None:
            return receivers.notify_secrets[delivery.book_id]
        try:
            return webhooks.open_secrets(self._keyring, receivers.endpoints[delivery.book_id, delivery.endpoint_id])
        except CryptoError:
            _log.error("webhook_secret_unreadable", endpoint=public_id(ENDPOINT_PREFIX, delivery.endpoint_id))
            return None

    def _line(self, key: Hashable) -> _Line:
        line = self._lines.get(key)
        if line is None:
            line = self._lines[key] = _Line(Pace(self._per_endpoint))
        return line

    # --- call --------------------------------------------------------------------------------------------------------

    def _pump(self) -> None:
        """Start calls while there are places, one from each line in turn.

        A line that may not go on leaves the round until its next answer, or the next look at all lines.
        """
        now = time.monotonic()
        turns = self._turns
        while turns and self._free(now) > 0:
            key = next(iter(turns))
            line = turns.pop(key)
            if not line.waiting or not line.pace.may_start(now):
                continue
            parcel = line.waiting.popleft()
            self._waiting -= 1
            if now - parcel.claimed_at > self._lease_s / 2:
                self._put_back(parcel, 0.0)
            else:
                line.pace.start(parcel, now)
                self._in_flight[parcel] = now
                self._run(self._call(key, line, parcel))
            if line.waiting:
                turns[key] = line
        if self._waiting <= _KEEP_WAITING // 2:
            self._moved.set()

    def _free(self, now: float) -> int:
        if now - self._slow_counted_at > 0.05:
            self._slow_counted_at = now
            self._slow = 0
            for started in self._in_flight.values():
                if now - started <= rules.QUICK_S:
                    break
                self._slow += 1
        slow = min(self._slow, _SLOW_FACTOR * self._concurrency, len(self._in_flight))
        return self._concurrency - (len(self._in_flight) - slow)

    async def _call(self, key: Hashable, line: _Line, parcel: Parcel) -> None:
        started = time.monotonic()
        try:
            reply = await self._send(parcel, started)
        finally:
            ended = time.monotonic()
            del self._in_flight[parcel]
            if ended - started > rules.QUICK_S and self._slow:
                self._slow -= 1
        line.pace.end(parcel, ended, success=rules.trouble_of(reply) is None)
        if line.waiting:
            self._turns.setdefault(key, line)
        self._pump()
        delivery = parcel.delivery
        verdict = rules.judge(
            reply, delivery.attempts + 1, self._now(), self._chance(), endpoint=delivery.endpoint_id is not None
        )
        await self._record(_Sent(parcel, reply, verdict))

    async def _send(self, parcel: Parcel, started: float) -> Reply:
        """Never raises for what the receiver does."""
        now = self._now()
        timestamp = int(now.timestamp())
        event_id = public_id("evt", parcel.delivery.event_id)
        headers = {
            "Content-Type": "application/json",
            "webhook-id": event_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": sign_webhook(parcel.secrets.at(now), event_id, timestamp, parcel.body),
        }
        try:
            with traces.span("webhook.send", event_id=event_id), self._call_limit():
                answer = await self._client.exchange(
                    "POST", parcel.url, headers=headers, content=parcel.body,
                    max_answer_bytes=rules.MAX_ANSWER_BYTES, cut=True,
                )  # fmt: skip
        except AddressRefused:
            trouble = Trouble.ADDRESS_REFUSED
        except (httpx.TimeoutException, TimeoutError):
            trouble = Trouble.TIMED_OUT
        except (httpx.ConnectError, httpx.UnsupportedProtocol):
            trouble = Trouble.CONNECT_FAILED
        except (httpx.HTTPError, OSError):
            trouble = Trouble.BROKEN_OFF
        except Exception as error:
            _log.error("webhook_call_broke", event_id=event_id, trouble=type(error).__name__)
            trouble = Trouble.BROKEN_OFF
        else:
            return Reply(time.monotonic() - started, answer.status_code, answer.headers.get("Retry-After"))
        return Reply(time.monotonic() - started, trouble=trouble)

    def _clear_stale(self) -> None:
        """Give back what waits for a receiver that is paused, hangs or is slower than thought; then look at all again."""
        now = time.monotonic()
        if now - self._looked_at < _LOOK_EVERY_S:
            return
        self._looked_at = now
        for key, line in list(self._lines.items()):
            stuck = now < line.pace.paused_until or line.pace.hangs(now)
            while line.waiting and (stuck or now - line.waiting[0].claimed_at > _STALE_S):
                self._waiting -= 1
                self._put_back(line.waiting.popleft(), line.pace.book(now, self._chance()))
            if line.waiting:
                self._turns.setdefault(key, line)
            elif len(self._lines) > _MANY_LINES and line.pace.idle(now):
                del self._lines[key]
                self._turns.pop(key, None)

    def _put_back(self, parcel: Parcel, delay_s: float) -> None:
        self._run(self._record(_PutBack(parcel, delay_s)))

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    # --- record ------------------------------------------------------------------------------------------------------

    async def _record(self, result: _Result) -> None:
        try:
            await self._records.submit(result)
        except Exception as error:
            # Not lost: the lease runs out and the delivery is sent again, with the same id.
            event_id = public_id("evt", result.parcel.delivery.event_id)
            _log.error("webhook_not_recorded", event_id=event_id, trouble=type(error).__name__)
        finally:
            self._unrecorded -= 1
            self._moved.set()

    async def _flush(self, results: Sequence[_Result]) -> Sequence[None]:
        for attempt in range(1, _FLUSH_TRIES + 1):
            try:
                async with self._db.transaction() as tx:
                    await self._write(tx, results)
                break
            except Unavailable:
                if attempt == _FLUSH_TRIES:
                    raise
                await asyncio.sleep(0.2 * attempt)
        return [None] * len(results)

    async def _write(self, tx: Tx, results: Sequence[_Result]) -> None:
        """Endpoints first, then tasks, then deliveries: the order in which the API's actions take their rows."""
        sent = [r for r in results if isinstance(r, _Sent)]
        failing = await webhooks.record_health(tx, _health(sent))
        await self._disable(tx, failing, sent)
        mine = await tasks.complete(tx, [r.parcel.task for r in sent if r.verdict.retry_in is None])
        mine |= await self._reschedule(tx, results)
        await webhooks.record_states(
            tx,
            [
                (d.book_id, d.delivery_id, r.verdict.state, d.attempts + 1)
                for r in sent
                if r.parcel.task.key in mine and (d := r.parcel.delivery)
            ],
        )
        await webhooks.record_attempts(tx, [_tried(r) for r in sent])

    async def _reschedule(self, tx: Tx, results: Sequence[_Result]) -> set[tuple[int, UUID]]:
        now = self._now()
        plans: list[tuple[Task, datetime, str | None]] = []
        for result in results:
            match result:
                case _PutBack(parcel=parcel, delay_s=delay_s):
                    plans.append((parcel.task, now + timedelta(seconds=delay_s), None))
                case _Sent(parcel=parcel, reply=reply, verdict=Verdict(retry_in=timedelta() as retry_in)):
                    plans.append((parcel.task, now + retry_in, rules.trouble_of(reply)))
        return await tasks.reschedule(tx, plans)

    async def _disable(self, tx: Tx, failing: Sequence[tuple[int, UUID]], sent: Sequence[_Sent]) -> None:
        reasons = dict.fromkeys(failing, "failing")
        for result in sent:
            delivery = result.parcel.delivery
            if result.verdict.disable and delivery.endpoint_id is not None:
                reasons[delivery.book_id, delivery.endpoint_id] = "gone"
        for (book_id, endpoint_id), reason in sorted(reasons.items()):
            if await webhooks.disable(tx, book_id, endpoint_id, reason):
                wire_id = public_id(ENDPOINT_PREFIX, endpoint_id)
                words = "answered 410 Gone" if reason == "gone" else "5 days without success and 20 failures or more"
                await alarms.raise_alarm(tx, "endpoint_disabled", wire_id, None, f"book {book_id}: {words}")
                _log.warning("endpoint_disabled", endpoint=wire_id, reason=reason)

    # --- the end -----------------------------------------------------------------------------------------------------

    async def drain(self) -> None:
        """Wait until everything claimed has been called, or put back, and recorded."""
        while self._running or self._waiting:
            self._pump()
            if self._running:
                await asyncio.wait(self._running, timeout=0.25)
            else:
                await asyncio.sleep(0.01)
            self._clear_stale()

    async def stop(self) -> None:
        """Give back what was not sent yet, let calls in flight end (15 s at most), record, close the connections."""
        for line in self._lines.values():
            while line.waiting:
                self._waiting -= 1
                self._put_back(line.waiting.popleft(), 0.0)
        await self.drain()
        await self._records.drain()
        await self._client.aclose()


@dataclass(frozen=True, slots=True)
class _Receivers:
    """Who the claimed deliveries are for."""

    endpoints: dict[tuple[int, UUID], Endpoint]
    notify_secrets: dict[int, SigningSecrets]

    def state_instead(self, delivery: Delivery) -> State | None:
        """The state a delivery gets instead of being sent; None when it is to be sent."""
        if delivery.endpoint_id is None:
            return None
        endpoint = self.endpoints.get((delivery.book_id, delivery.endpoint_id))
        if endpoint is None:
            return State.GIVEN_UP  # deleted
        return None if endpoint.status == "enabled" else State.HELD

    def address(self, delivery: Delivery) -> tuple[str, Hashable]:
        """The URL, and whose line it is: the endpoint's, or that of a notify_url's host."""
        if delivery.endpoint_id is not None:
            return self.endpoints[delivery.book_id, delivery.endpoint_id].url, delivery.endpoint_id
        url = delivery.notify_url or ""
        return url, (delivery.book_id, urlsplit(url).netloc)


@dataclass(slots=True)
class _Chosen:
    """What one claim decided: to send, to settle without sending, to look at later (seconds, why)."""

    parcels: list[tuple[Hashable, Parcel]] = field(default_factory=list)
    settled: list[tuple[Task, State | None]] = field(default_factory=list)
    postponed: list[tuple[Task, float, str | None]] = field(default_factory=list)


def _health(sent: Sequence[_Sent]) -> list[Health]:
    """One entry per endpoint; a success among them clears the failures."""
    found: dict[tuple[int, UUID], tuple[bool, int]] = {}
    for result in sent:
        delivery = result.parcel.delivery
        if delivery.endpoint_id is None:
            continue
        succeeded, failures = found.get((delivery.book_id, delivery.endpoint_id), (False, 0))
        if result.verdict.state == State.DELIVERED:
            succeeded = True
        else:
            failures += 1
        found[delivery.book_id, delivery.endpoint_id] = succeeded, failures
    return [Health(book, endpoint, succeeded, failures) for (book, endpoint), (succeeded, failures) in found.items()]


def _tried(result: _Sent) -> Tried:
    delivery, reply = result.parcel.delivery, result.reply
    took_ms = min(int(reply.took_s * 1000), 2**31 - 1)
    return Tried(delivery.book_id, delivery.delivery_id, took_ms, reply.http_status, rules.trouble_of(reply))
