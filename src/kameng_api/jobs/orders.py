"""Buys what was ordered: claim (many, one short transaction) · call (no transaction) · record (many, group commit).

A crash between any two beats leaves an attempt with our reference written down: it is looked up, never sent again.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import lru_cache
from typing import Any, Final, Protocol
from uuid import UUID

import structlog
from prometheus_client import Counter, Histogram

from kameng_api.alarms import actions as alarms
from kameng_api.catalog.rules import Channel, Snapshot
from kameng_api.jobs.pulse import Pulse
from kameng_api.jobs.stops import Stopped, later
from kameng_api.kit import traces
from kameng_api.kit.clock import utc_now
from kameng_api.kit.crypto import Keyring
from kameng_api.kit.db import Database, Tx, fetch
from kameng_api.kit.errors import Unavailable
from kameng_api.kit.fresh import Fresh
from kameng_api.kit.gather import Gatherer
from kameng_api.kit.http import send_before
from kameng_api.kit.ids import public_id, ulid_text
from kameng_api.kit.sets import Moved
from kameng_api.kit.time_limit import TimeLimit
from kameng_api.ledger.errors import BooksStopped
from kameng_api.orders.absorb import News
from kameng_api.orders.changes import CodeSoldBefore
from kameng_api.orders.choices import Surroundings
from kameng_api.orders.dispatch import Round, Submission, dispatch, dispatch_claimed
from kameng_api.orders.settle import Settlement, settle, settle_copies
from kameng_api.orders.waiting import put_off
from kameng_api.settings import Settings
from kameng_api.suppliers import queries as attempts_of
from kameng_api.suppliers.connections import Connections
from kameng_api.suppliers.port import Answer, Cause, Delivered, NotSent, Refused, Reversed, Supplier, Unknown
from kameng_api.suppliers.routing.facts import Answered
from kameng_api.suppliers.routing.shadow import needs_own_health, tuning_with
from kameng_api.suppliers.rules import Attempt, outcome_word
from kameng_api.tasks import actions as tasks
from kameng_api.tasks.rules import BUDGET, Lane, Task, backoff

_log = structlog.get_logger()
_CLAIM_AT_ONCE: Final = 200
_RECORD_TRIES: Final = 5
_CONFIRM_TRIES: Final = 14
_CONFIRM_AGAIN_S: Final = 5.0
_UNCONFIRMED: Final = "a hint about a settled purchase, and no certain answer"

ANSWERS: Final = Counter("kameng_supplier_answers_total", "Answers of suppliers by channel, beat and outcome.", ["channel", "beat", "outcome"])
CALL_SECONDS: Final = Histogram(
    "kameng_supplier_call_seconds",
    "How long suppliers take to answer.",
    ["channel", "beat"],
    buckets=(0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
_count = lru_cache(maxsize=1024)(ANSWERS.labels)  # finding a metric by its labels costs more than counting
_seconds = lru_cache(maxsize=1024)(CALL_SECONDS.labels)
SETTLE_FLUSH: Final = Histogram("kameng_settle_flush_size", "Answers settled by one commit.", buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256))


class Desk(Protocol):
    """What these jobs need of their process."""

    @property
    def buyer(self) -> "Buyer": ...


async def submit(desk: Desk, limit: int) -> int:
    """Claim up to `limit` due orders and begin to buy; the calls go on after it returns. Returns how many tasks were found."""
    return await desk.buyer.submit(limit)


async def look_up(desk: Desk, limit: int) -> int:
    """Claim up to `limit` due look-ups and begin to ask. Returns how many."""
    return await desk.buyer.look_up(limit)


@dataclass(frozen=True, slots=True)
class _Question:
    """A look-up that is under way."""

    task: Task
    attempt: Attempt
    sku: str


@dataclass(slots=True)
class _Load:
    """Calls under way, in all and per channel."""

    limit: int
    total: int = 0
    channels: dict[str, int] = field(default_factory=dict)

    def enter(self, channel_id: str) -> None:
        self.total += 1
        self.channels[channel_id] = self.channels.get(channel_id, 0) + 1

    def leave(self, channel_id: str) -> None:
        self.total -= 1
        self.channels[channel_id] -= 1

    def room(self) -> int:
        return self.limit - self.total


class Buyer:
    """This process's share of buying and asking.

    `supplier_concurrency` bounds the calls of each lane; a channel's own `concurrency` bounds what it is sent, so that one that hangs
    cannot take every place.
    """

    def __init__(
        self,
        db: Database,
        keyring: Keyring,
        catalog: Fresh[Snapshot],
        connections: Connections,
        settings: Settings,
        worker: str,
        pulse: Pulse,
    ) -> None:
        self.pulse = pulse
        self._db = db
        self._keyring = keyring
        self._catalog = catalog
        self._connections = connections
        self._settings = settings
        self._worker = worker
        self._longest_call_s = settings.supplier_timeout_s + 2
        self._call_limit = TimeLimit(self._longest_call_s)
        self._shadow = None if settings.route_shadow is None else tuning_with(settings.route_shadow)
        if self._shadow is not None and needs_own_health(self._shadow):
            _log.warning("route_shadow.sees_the_live_readings", tuning=self._shadow.version)
        self._buying = _Load(settings.supplier_concurrency)
        self._asking = _Load(settings.supplier_concurrency)
        self._running: set[asyncio.Task[None]] = set()
        self._stopped = Stopped(db)
        self._records: Gatherer[Settlement, str] = Gatherer(self._record, largest=256, in_flight=2, crowd=48)
        self._records.on_flush = SETTLE_FLUSH.observe
        self._unrecorded: dict[int, float] = {}
        pulse.lag_s = self._recording_lag_s
        self.on_room: Callable[[], None] = _nothing
        """Called when enough calls have ended that claiming is worth while again."""
        self.on_settled: Callable[[], None] = _nothing
        """Called after each commit of answers: there may be merchants to tell and orders to go on with."""

    async def start(self) -> None:
        await self.pulse.start()

    async def stop(self) -> None:
        """Let every call that is under way end and be recorded."""
        while self._running:
            await asyncio.wait(self._running)
        await self._records.drain()
        await self.pulse.stop()

    @property
    def in_flight(self) -> int:
        """Supplier calls under way."""
        return self._buying.total + self._asking.total

    # --- claim -------------------------------------------------------------------------------------------------------

    async def submit(self, limit: int) -> int:
        """See the function of the same name."""
        room = min(limit, _CLAIM_AT_ONCE, self._buying.room())
        if room * 2 < min(limit, self._buying.limit):  # a claim costs its round trips whatever its size: wait for room
            return 0
        claimed_at = time.monotonic()  # before the lease begins: never later than the database says
        around = Surroundings(self._catalog.current, self.pulse.under_way, self._room_of_channels(), shadow=self._shadow)
        try:
            try:
                round_ = await self._dispatch(around, room)
            except BooksStopped:
                await self._stopped.refresh()
                round_ = await self._dispatch(around, room)
        except Unavailable:
            raise
        except Exception as trouble:
            _log.warning("dispatch.one_by_one", trouble=type(trouble).__name__, exc_info=True)
            round_ = await self._dispatch_one_by_one(around, room)
        self.pulse.tell(round_.sent)
        for submission in round_.submissions:
            self._buying.enter(submission.channel_id)
            self._begin(self._buy(submission, claimed_at))
        await give_back(self._db, round_.poisoned)
        return round_.claimed

    async def _dispatch(self, around: Surroundings, room: int) -> Round:
        """One transaction. Raises BooksStopped where a book has been stopped that this process has not heard of."""
        async with self._db.transaction() as tx:
            if not self._stopped.books:
                return await dispatch(tx, self._keyring, around, limit=room, lease_s=self._settings.lease_s, worker=self._worker)
            claimed = await tasks.claim(tx, Lane.SUBMIT, room, self._settings.lease_s, self._worker)
            round_ = await dispatch_claimed(tx, self._keyring, around, await self._stopped.put_off(tx, claimed))
            round_.claimed = len(claimed)
            return round_

    async def _dispatch_one_by_one(self, around: Surroundings, limit: int) -> Round:
        """After a round that the database refused as a whole: the claim alone, then each order in a transaction of its own."""
        async with self._db.transaction() as tx:
            claimed = await tasks.claim(tx, Lane.SUBMIT, limit, self._settings.lease_s, self._worker)
        whole = Round(len(claimed))
        for task in claimed:
            try:
                one = Round()
                async with self._db.transaction() as tx:
                    if await tasks.lock_owned(tx, [task]):
                        one = await dispatch_claimed(tx, self._keyring, around, [task])
                # Only now: what was not committed must not be sent, for nobody would know its reference.
                whole.submissions += one.submissions
                whole.sent += one.sent
                whole.poisoned += one.poisoned
            except Exception as trouble:
                whole.poisoned.append((task, trouble))
        return whole

    async def look_up(self, limit: int) -> int:
        """See the function of the same name."""
        room = min(limit, _CLAIM_AT_ONCE, self._asking.room())
        if room <= 0:
            return 0
        questions: list[_Question] = []
        async with self._db.transaction() as tx:
            claimed = await tasks.claim(tx, Lane.LOOK_UP, room, self._settings.lease_s, self._worker)
            found = await attempts_of.find_attempts(tx, [t.key for t in claimed]) if claimed else {}
            skus = await skus_of(tx, list(found.values())) if found else {}
            settled = [t for t in claimed if t.key not in found or not found[t.key].live]
            await tasks.complete(tx, settled)
            gone = {t.key for t in settled}
            questions = [_Question(t, found[t.key], skus[t.key]) for t in claimed if t.key not in gone]
        for question in questions:
            self._asking.enter(question.attempt.channel_id)
            self._begin(self._ask(question))
        return len(claimed)

    def _room_again(self) -> None:
        if self._buying.room() * 2 >= self._buying.limit:
            self.on_room()

    def _room_of_channels(self) -> dict[str, int]:
        under_way = self._buying.channels
        return {c: channel.concurrency - under_way.get(c, 0) for c, channel in self._catalog.current.channels.items()}

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    # --- call --------------------------------------------------------------------------------------------------------

    async def _buy(self, submission: Submission, claimed_at: float) -> None:
        channel = self._catalog.current.channels[submission.channel_id]
        supplier = self._connected(channel)
        try:
            if supplier is None:
                answer = Answer(NotSent("the channel cannot be connected"))
            elif time.monotonic() - claimed_at > self._settings.lease_s - self._longest_call_s:
                # This process stood still. By now somebody may have asked, heard "not found", and bought elsewhere.
                answer = Answer(NotSent("too late to be sent under this lease", Cause.OURS))
            else:
                # Half a call's time is left for the request to arrive before anybody asks the supplier about it.
                limit = send_before.set(claimed_at + self._settings.lease_s - self._longest_call_s / 2)
                try:
                    purchase = replace(submission.purchase, callback_url=self._connections.callback_url(channel))
                    with traces.span("supplier.place", channel=channel.channel_id):
                        answer = await self._call(channel.channel_id, "place", supplier.place(purchase))
                finally:
                    send_before.reset(limit)  # for the call alone: what is begun from here later is under another lease, or none
        finally:
            self._buying.leave(channel.channel_id)
            self._room_again()
        news = self._news(submission.attempt_key, "place", answer, supplier, submission.sku)
        await self.tell(channel.channel_id, Settlement(news, submission.task, submission.order_key[1], submission.copy))

    def _connected(self, channel: Channel) -> Supplier | None:
        try:
            return self._connections.of(channel)
        except Exception as trouble:
            _log.error("channel.not_connected", channel=channel.channel_id, trouble=type(trouble).__name__)
            return None

    async def _ask(self, question: _Question) -> None:
        news = await self._asked(question)
        await self.tell(question.attempt.channel_id, Settlement(news, question.task, question.attempt.order_id))

    def confirm(self, task: Task, attempt: Attempt, sku: str) -> None:
        """Ask the supplier, on behalf of `task`, about a purchase that is settled: a callback that may not be believed hints at something else."""
        self._asking.enter(attempt.channel_id)
        self._begin(self._confirm(_Question(task, attempt, sku)))

    async def _confirm(self, question: _Question) -> None:
        """What is certain is settled; without a certain answer the supplier is asked again, and in the end the question is parked for a person."""
        news, task = await self._asked(question), question.task
        if isinstance(news.answer.outcome, Delivered | Refused | Reversed):
            await self.tell(question.attempt.channel_id, Settlement(news, task, question.attempt.order_id))
            return
        async with self._db.transaction() as tx:
            if task.attempts >= _CONFIRM_TRIES:
                _log.error("confirm.unanswered", attempt=public_id("att", question.attempt.attempt_id))
                await tasks.park(tx, task, _UNCONFIRMED)
                return
            [row] = await fetch(tx, "SELECT now() AS now")
            again_at = row["now"] + timedelta(seconds=min(_CONFIRM_AGAIN_S * 2.0**task.attempts, 3600.0))
            await tasks.reschedule(tx, [(task, again_at, _UNCONFIRMED)])

    async def _asked(self, question: _Question) -> News:
        attempt = question.attempt
        channel = self._catalog.current.channels.get(attempt.channel_id)
        supplier = self._connected(channel) if channel is not None else None
        try:
            if supplier is None:
                answer = Answer(Unknown("the channel cannot be connected"))
            elif supplier.look_up is None:
                answer = Answer(Unknown("the supplier cannot be asked", needs_person=True))
            else:
                with traces.span("supplier.look_up", channel=attempt.channel_id):
                    answer = await self._call(attempt.channel_id, "look_up", supplier.look_up(attempt.reference, attempt.supplier_order_no))
        finally:
            self._asking.leave(attempt.channel_id)
        return self._news(attempt.key, "look_up", answer, supplier, question.sku)

    async def _call(self, channel_id: str, beat: str, call: Coroutine[Any, Any, Answer] | Awaitable[Answer]) -> Answer:
        started = time.perf_counter()
        try:
            with self._call_limit():
                return await call
        except Exception as trouble:  # an adapter that raises has not told us what happened
            _log.error("adapter.raised", trouble=type(trouble).__name__)
            return Answer(Unknown(f"the adapter raised {type(trouble).__name__}"))
        finally:
            _seconds(channel_id, beat).observe(time.perf_counter() - started)

    def _news(self, attempt: tuple[int, UUID], beat: str, answer: Answer, supplier: Supplier | None, sku: str) -> News:
        product = self._catalog.current.products.get(sku)
        refund = product is None or product.refund_on_reversal
        if supplier is None:
            return News(*attempt, beat, answer, refund_on_reversal=refund)
        return News(*attempt, beat, answer, supplier.capabilities, supplier.look_up is not None, refund)

    # --- record ------------------------------------------------------------------------------------------------------

    async def tell(self, channel_id: str, settlement: Settlement) -> None:
        """Record an answer, whatever it takes: it is the only proof of what was bought."""
        _count(channel_id, settlement.news.beat, outcome_word(settlement.news.answer.outcome)).inc()
        self._unrecorded[id(settlement)] = time.monotonic()
        try:
            await self._tell(settlement)
        finally:
            del self._unrecorded[id(settlement)]

    def _recording_lag_s(self) -> float:
        """How long the answer that has waited longest has not been recorded."""
        oldest = next(iter(self._unrecorded.values()), None)
        return 0.0 if oldest is None else time.monotonic() - oldest

    async def _tell(self, settlement: Settlement) -> None:
        for n in range(1, _RECORD_TRIES + 1):
            try:
                await self._records.submit(settlement)
            except Exception as trouble:
                _log.warning("settle.failed", attempt=public_id("att", settlement.news.attempt_id), n=n, trouble=type(trouble).__name__)
                await asyncio.sleep(min(0.1 * 4**n, 10.0))
            else:
                return
        await self._give_up(settlement)

    async def _record(self, batch: Sequence[Settlement]) -> Sequence[str | BaseException]:
        with traces.span("orders.settle", answers=len(batch)):
            statuses = await self._record_quick(batch)
            left = [n for n in range(len(batch)) if n not in statuses]
            if left:
                statuses |= zip(left, await self._record_locked([batch[n] for n in left]), strict=True)
        self.on_settled()
        return [statuses[n] for n in range(len(batch))]

    async def _record_quick(self, batch: Sequence[Settlement]) -> dict[int, str | BaseException]:
        """Place in the batch → status, for those that could be written without a lock: mostly all of them or none."""
        quick = [n for n, s in enumerate(batch) if s.is_quick]
        if not quick:
            return {}
        told: list[Answered] = []
        try:
            async with self._db.transaction() as tx:
                statuses = await settle_copies(tx, self._keyring, [batch[n] for n in quick], told)
            self.pulse.tell(told)
            return dict(zip(quick, statuses, strict=True))
        except Unavailable:
            raise
        except Moved:  # a callback was quicker, or an operator: nothing stands yet, and the rows decide
            return {}
        except Exception as trouble:
            _log.warning("settle.under_locks", size=len(quick), trouble=type(trouble).__name__)
            return {}

    async def _record_locked(self, batch: Sequence[Settlement]) -> Sequence[str | BaseException]:
        try:
            try:
                return await self._settle(batch)
            except BooksStopped:
                await self._stopped.refresh()
                return await self._settle(batch)
        except Unavailable:
            raise
        except Exception as trouble:
            if len(batch) == 1 and not isinstance(trouble, CodeSoldBefore):
                raise
            _log.warning("settle.one_by_one", size=len(batch), trouble=type(trouble).__name__)
            return [await self._record_one(s) for s in batch]

    async def _settle(self, batch: Sequence[Settlement]) -> list[str]:
        stopped = self._stopped.books
        if stopped:
            return await self._settle_around(batch, stopped)
        told: list[Answered] = []
        async with self._db.transaction() as tx:
            statuses = await settle(tx, self._keyring, batch, told)
        self.pulse.tell(told)
        return statuses

    async def _settle_around(self, batch: Sequence[Settlement], stopped: frozenset[int]) -> list[str]:
        """Settle what can be; of stopped books the facts are kept and the work waits."""
        told: list[Answered] = []
        open_ = [s for s in batch if s.news.book_id not in stopped]
        async with self._db.transaction() as tx:
            await put_off(tx, self._keyring, [s for s in batch if s.news.book_id in stopped], later())
            statuses = iter(await settle(tx, self._keyring, open_, told) if open_ else [])
        self.pulse.tell(told)
        return ["" if s.news.book_id in stopped else next(statuses) for s in batch]

    async def _record_one(self, settlement: Settlement) -> str | BaseException:
        try:
            return await self._settle_one(settlement)
        except CodeSoldBefore:
            _log.error("settle.code_sold_before", attempt=public_id("att", settlement.news.attempt_id))
        except Exception as trouble:
            return trouble
        try:
            return await self._settle_one(replace(settlement, news=replace(settlement.news, codes_sold_before=True)))
        except Exception as trouble:
            return trouble

    async def _settle_one(self, settlement: Settlement) -> str:
        [status] = await self._settle([settlement])
        return status

    async def _give_up(self, settlement: Settlement) -> None:
        """The lease will run out, and the order goes on as a doubtful one; a person hears of it."""
        news = settlement.news
        _log.error("settle.given_up", attempt=public_id("att", news.attempt_id), outcome=outcome_word(news.answer.outcome))
        try:
            async with self._db.transaction() as tx:
                await alarms.raise_alarm(
                    tx, "task_parked", public_id("att", news.attempt_id), "critical",
                    f"a supplier's answer ({outcome_word(news.answer.outcome)}) could not be recorded",
                )  # fmt: skip
        except Exception as trouble:
            _log.error("alarm.not_raised", trouble=type(trouble).__name__)


async def give_back(db: Database, poisoned: Sequence[tuple[Task, Exception]]) -> None:
    """Work that raises is tried again later and later; when its budget is used up it is parked, and someone is told."""
    for task, trouble in poisoned:
        name = type(trouble).__name__
        _log.error("task.raised", lane=task.lane, attempts=task.attempts, trouble=name, exc_info=trouble)
        async with db.transaction() as tx:
            if task.attempts >= BUDGET and not isinstance(trouble, BooksStopped):
                await tasks.park(tx, task, name)
                await alarms.raise_alarm(
                    tx, "task_parked", f"{task.lane} {ulid_text(task.ref)}", None, f"given up after {task.attempts} tries: {name}"
                )
            else:
                await tasks.reschedule(tx, [(task, utc_now() + backoff(task.attempts, random.random()), name)])  # noqa: S311  jitter


def _nothing() -> None:
    pass


async def skus_of(tx: Tx, attempts: Sequence[Attempt]) -> dict[tuple[int, UUID], str]:
    """(book, attempt) → the SKU of its order."""
    rows = await fetch(
        tx,
        """SELECT k.book_id, k.attempt_id, o.sku
        FROM unnest($1::bigint[], $2::uuid[], $3::uuid[]) AS k (book_id, attempt_id, order_id)
        JOIN orders o ON o.book_id = k.book_id AND o.order_id = k.order_id""",
        [a.book_id for a in attempts], [a.attempt_id for a in attempts], [a.order_id for a in attempts],
    )  # fmt: skip
    return {(r["book_id"], r["attempt_id"]): r["sku"] for r in rows}
