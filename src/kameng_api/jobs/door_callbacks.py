"""Calls merchants back in the format of the door their order came through: claim · call · record, as webhooks are sent.

A delivery here is a row of the webhooks room whose receiver is a door (`webhooks.rules.lane_of`). What is told is written from the order as it is
when it is told, so a late retry says the truth of its moment. A crash anywhere between means: told again.
"""

import asyncio
import random
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, Protocol
from uuid import UUID

import httpx

from kameng_api.alarms import actions as alarms
from kameng_api.alarms.rules import Severity
from kameng_api.kit import log, traces
from kameng_api.kit.crypto import Keyring
from kameng_api.kit.db import Database, Tx, fetch
from kameng_api.kit.http import AddressRefused, Client, build_client
from kameng_api.kit.ids import public_id
from kameng_api.kit.time_limit import TimeLimit
from kameng_api.merchants import door_accounts
from kameng_api.merchants.door_rules import DoorAccount
from kameng_api.orders import actions as orders
from kameng_api.orders import codes, foreign
from kameng_api.orders import queries as order_queries
from kameng_api.orders.foreign import Letter, Letters, Shown
from kameng_api.orders.rules import Order
from kameng_api.settings import Settings
from kameng_api.tasks import actions as tasks
from kameng_api.tasks.rules import Lane, Task
from kameng_api.webhooks import actions as webhooks
from kameng_api.webhooks import queries, rules
from kameng_api.webhooks.actions import Tried
from kameng_api.webhooks.events import DELIVERY_PREFIX
from kameng_api.webhooks.queries import Delivery
from kameng_api.webhooks.rules import Reply, State, Trouble

_USER_AGENT: Final = "kameng-doors/1"
_MOST_IN_FLIGHT: Final = 100
_PER_ACCOUNT: Final = 10
"""Calls to one account's system at a time: what one slow system is owed does not stand in the way of the others."""
_KEEP_WAITING: Final = 400
_KEEP_PER_ACCOUNT: Final = 20
"""Of which of one account: else a dead system that is owed much would fill the places of all."""
_AGAIN_SOON: Final = timedelta(seconds=5)
_AGAIN_WHEN_BUSY: Final = timedelta(seconds=rules.TOTAL_TIMEOUT_S)
_UNREADABLE_RETRY: Final = timedelta(minutes=5)
_JITTER: Final = 0.1

_log = log.get()


class Desk(Protocol):
    """What this job needs of its process."""

    @property
    def messenger(self) -> "Messenger": ...


async def call_back(desk: Desk, limit: int) -> int:
    """Claim up to `limit` due callbacks and begin to send them; the calls go on after it returns. Returns how many."""
    return await desk.messenger.call_back(limit)


@dataclass(frozen=True, slots=True, eq=False)
class _Parcel:
    """One claimed delivery with its letter, ready to be sent."""

    task: Task
    delivery: Delivery
    letters: Letters
    letter: Letter
    account: tuple[int, UUID]
    claimed_at: float


@dataclass(slots=True)
class _Chosen:
    """What one claim decided: to send, to settle without sending, to look at later (how much later, why)."""

    parcels: list[_Parcel] = field(default_factory=list)
    settled: list[tuple[Task, Delivery | None, State]] = field(default_factory=list)
    postponed: list[tuple[Task, timedelta, str | None]] = field(default_factory=list)
    untold: dict[str, str] = field(default_factory=dict)
    """Alarms: orders that ended, and whose end their door has no word for."""
    waiting: Counter[tuple[int, UUID]] = field(default_factory=Counter)
    """How many letters of each account wait for their turn in this process."""

    def say_nothing(self, task: Task, delivery: Delivery, order: Order, account: DoorAccount) -> None:
        """The door has no letter about the order as it is: a person must tell an end, what is no end yet needs no telling."""
        if not order.final:
            self.settled.append((task, delivery, State.DELIVERED))  # not one attempt stands beside it
            return
        self.settled.append((task, delivery, State.GIVEN_UP))
        subject = f"door callback {public_id('ord', order.order_id)}"
        words = f"book {order.book_id}: the order is {order.status}, and {account.door} cannot say so: tell account {account.seen.account}"
        self.untold[subject] = words


class Messenger:
    """Sends this process's share of the doors' callbacks. `letters`: how each door writes, by its name."""

    def __init__(
        self, db: Database, keyring: Keyring, settings: Settings, worker: str, letters: Mapping[str, Letters], *,
        client: Client | None = None, chance: Callable[[], float] = random.random,
    ) -> None:  # fmt: skip
        self._db = db
        self._keyring = keyring
        self._worker = worker
        self._lease_s = float(settings.lease_s)
        self._letters = letters
        self._chance = chance
        self._client = client or build_client(
            max_connections=_MOST_IN_FLIGHT, connect_timeout_s=rules.CONNECT_TIMEOUT_S, read_timeout_s=rules.TOTAL_TIMEOUT_S, guard=True,
            allow_loopback=settings.webhook_development, max_answer_bytes=rules.MAX_ANSWER_BYTES, user_agent=_USER_AGENT,
        )  # fmt: skip
        self._call_limit = TimeLimit(rules.TOTAL_TIMEOUT_S)
        self._waiting: deque[_Parcel] = deque()
        self._in_flight: Counter[tuple[int, UUID]] = Counter()
        self._running: set[asyncio.Task[None]] = set()

    # --- claim -------------------------------------------------------------------------------------------------------

    async def call_back(self, limit: int) -> int:
        """See the function of the same name."""
        room = min(limit, _KEEP_WAITING - len(self._waiting))
        if room <= 0:
            await asyncio.sleep(0.1)
            self._pump()
            return 1
        async with self._db.transaction() as tx:
            claimed = await tasks.claim(tx, Lane.DOOR, room, self._lease_s, self._worker)
            if claimed:
                self._waiting.extend(await self._address(tx, claimed))
        self._pump()
        return len(claimed)

    async def _address(self, tx: Tx, claimed: Sequence[Task]) -> list[_Parcel]:
        """Those to send; the others are settled or postponed in this transaction."""
        [row] = await fetch(tx, "SELECT now() AS now")
        now: datetime = row["now"]
        deliveries = await queries.find_deliveries(tx, [t.key for t in claimed])
        named = {(d.book_id, to[0]) for d in deliveries.values() if (to := foreign.read_receiver(d.notify_url)) is not None}
        accounts = await door_accounts.find_by_ids(tx, self._keyring, sorted(named))
        found = await self._orders(tx, deliveries.values())
        chosen = _Chosen(waiting=Counter(parcel.account for parcel in self._waiting))
        for task in claimed:
            await self._choose(tx, chosen, task, deliveries.get(task.key), accounts, found, now)
        done = await tasks.complete(tx, [task for task, _, _ in chosen.settled])
        await webhooks.record_states(
            tx, [(d.book_id, d.delivery_id, state, d.attempts) for task, d, state in chosen.settled if d is not None and task.key in done]
        )
        await tasks.reschedule(tx, [(task, now + delay, why) for task, delay, why in chosen.postponed])
        await alarms.raise_alarms(tx, "task_parked", chosen.untold, severity=Severity.WARNING)
        return chosen.parcels

    async def _orders(self, tx: Tx, deliveries: Collection[Delivery]) -> dict[tuple[int, UUID], Order]:
        """By (book, event)."""
        rows = await fetch(
            tx,
            "SELECT e.book_id, e.event_id, e.order_id FROM unnest($1::bigint[], $2::uuid[]) AS k (book_id, event_id) "
            "JOIN events e ON e.book_id = k.book_id AND e.event_id = k.event_id WHERE e.order_id IS NOT NULL",
            [d.book_id for d in deliveries], [d.event_id for d in deliveries],
        )  # fmt: skip
        found = await order_queries.find_orders(tx, sorted({(r["book_id"], r["order_id"]) for r in rows}))
        return {(r["book_id"], r["event_id"]): order for r in rows if (order := found.get((r["book_id"], r["order_id"]))) is not None}

    async def _choose(
        self, tx: Tx, chosen: _Chosen, task: Task, delivery: Delivery | None, accounts: Mapping[tuple[int, UUID], DoorAccount],
        found: Mapping[tuple[int, UUID], Order], now: datetime,
    ) -> None:  # fmt: skip
        if delivery is None or delivery.state != State.PENDING:
            chosen.settled.append((task, None, State.DELIVERED))
            return
        to = foreign.read_receiver(delivery.notify_url)
        order = found.get((delivery.book_id, delivery.event_id))
        if to is None or order is None:
            chosen.settled.append((task, delivery, State.GIVEN_UP))
            return
        account = accounts.get((delivery.book_id, to[0]))
        letters = self._letters.get(account.door) if account is not None else None
        if account is None or letters is None:
            chosen.postponed.append((task, _UNREADABLE_RETRY, "account_unreadable"))
            return
        if not account.enabled:
            if await door_accounts.is_off(tx, account.book_id, account.account_id):
                chosen.settled.append((task, delivery, State.HELD))
            else:  # switched on since this claim looked
                chosen.postponed.append((task, _AGAIN_SOON, None))
            return
        whose = (account.book_id, account.account_id)
        if chosen.waiting[whose] >= _KEEP_PER_ACCOUNT:
            chosen.postponed.append((task, _AGAIN_WHEN_BUSY, None))
            return
        sealed: Sequence[tuple[int, bytes]] = ()
        if letters.with_cards and order.codes_count and order.final:
            sealed = await order_queries.list_codes(tx, *order.key)
        try:
            cards = foreign.read_cards(codes.opened(self._keyring, *order.key, sealed)) if sealed else []
            letter = letters.write(account.seen, self._show(order, account), cards, now)
        except Exception as error:  # one door's bug, or one order whose codes do not open, must not stop the callbacks of the others
            _log.error("door_letter_not_written", door=account.door, order=public_id("ord", order.order_id), trouble=type(error).__name__)
            chosen.postponed.append((task, _UNREADABLE_RETRY, "letter_not_written"))
            return
        if letter is None:
            chosen.say_nothing(task, delivery, order, account)
            return
        if sealed:
            await orders.record_reveal(
                tx, *order.key, key_id=f"door:{account.door}:{account.seen.account}", address="callback",
                request_id=public_id(DELIVERY_PREFIX, delivery.delivery_id), count=len(sealed),
            )  # fmt: skip
        chosen.waiting[whose] += 1
        chosen.parcels.append(_Parcel(task, delivery, letters, letter, whose, time.monotonic()))

    def _show(self, order: Order, account: DoorAccount) -> Shown:
        target = None
        if order.target_sealed is not None:
            target = self._keyring.open(order.target_sealed, orders.target_binding(*order.key)).decode()
        return foreign.show(order, account.door, account.account_id, target)

    # --- call --------------------------------------------------------------------------------------------------------

    def _pump(self) -> None:
        """Start what may be started. Those of a busy account wait their turn, or go back when their lease grows old."""
        now = time.monotonic()
        for _ in range(len(self._waiting)):
            parcel = self._waiting.popleft()
            if now - parcel.claimed_at > self._lease_s / 2:
                self._run(self._put_back(parcel))
            elif self._in_flight[parcel.account] < _PER_ACCOUNT and self._in_flight.total() < _MOST_IN_FLIGHT:
                self._in_flight[parcel.account] += 1
                self._run(self._call(parcel))
            else:
                self._waiting.append(parcel)

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _call(self, parcel: _Parcel) -> None:
        try:
            reply, heard = await self._send(parcel)
        finally:
            self._in_flight[parcel.account] -= 1
            if not self._in_flight[parcel.account]:
                del self._in_flight[parcel.account]
        await self._record(parcel, reply, heard=heard)
        self._pump()

    async def _send(self, parcel: _Parcel) -> tuple[Reply, bool]:
        """Never raises for what the receiver does."""
        started, letter = time.monotonic(), parcel.letter
        delivery_id = public_id(DELIVERY_PREFIX, parcel.delivery.delivery_id)
        try:
            with traces.span("door.call_back", delivery_id=delivery_id), self._call_limit():
                answer = await self._client.exchange(
                    letter.method, letter.url, headers=dict(letter.headers), content=letter.body, max_answer_bytes=rules.MAX_ANSWER_BYTES, cut=True
                )
            heard = parcel.letters.heard(answer.status_code, answer.content)
        except AddressRefused:
            trouble = Trouble.ADDRESS_REFUSED
        except (httpx.TimeoutException, TimeoutError):
            trouble = Trouble.TIMED_OUT
        except (httpx.ConnectError, httpx.UnsupportedProtocol):
            trouble = Trouble.CONNECT_FAILED
        except (httpx.HTTPError, OSError):
            trouble = Trouble.BROKEN_OFF
        except Exception as error:
            _log.error("door_call_broke", delivery_id=delivery_id, trouble=type(error).__name__)
            trouble = Trouble.BROKEN_OFF
        else:
            refused = None if heard else rules.trouble_of(Reply(0.0, answer.status_code)) or Trouble.NOT_ACKNOWLEDGED
            return Reply(time.monotonic() - started, answer.status_code, trouble=refused), heard
        return Reply(time.monotonic() - started, trouble=trouble), False

    # --- record ------------------------------------------------------------------------------------------------------

    async def _record(self, parcel: _Parcel, reply: Reply, *, heard: bool) -> None:
        delivery = parcel.delivery
        attempts = delivery.attempts + 1
        retries = parcel.letters.retries_s
        again = None if heard or attempts > len(retries) else retries[attempts - 1] * (1 + _JITTER * self._chance())
        state = State.DELIVERED if heard else State.GIVEN_UP if again is None else State.PENDING
        try:
            async with self._db.transaction() as tx:
                if again is None:
                    mine = await tasks.complete(tx, [parcel.task])
                else:
                    [row] = await fetch(tx, "SELECT now() AS now")
                    mine = await tasks.reschedule(tx, [(parcel.task, row["now"] + timedelta(seconds=again), reply.trouble)])
                if mine:
                    await webhooks.record_states(tx, [(delivery.book_id, delivery.delivery_id, state, attempts)])
                took_ms = min(int(reply.took_s * 1000), 2**31 - 1)
                await webhooks.record_attempts(
                    tx, [Tried(delivery.book_id, delivery.delivery_id, took_ms, reply.http_status, reply.trouble)]
                )
        except Exception as error:
            # Not lost: the lease runs out and the merchant is told again.
            _log.error("door_call_not_recorded", delivery_id=public_id(DELIVERY_PREFIX, delivery.delivery_id), trouble=type(error).__name__)

    async def _put_back(self, parcel: _Parcel) -> None:
        try:
            async with self._db.transaction() as tx:
                [row] = await fetch(tx, "SELECT now() AS now")
                await tasks.reschedule(tx, [(parcel.task, row["now"] + _AGAIN_SOON, None)])
        except Exception as error:
            _log.warning("door_call_not_put_back", trouble=type(error).__name__)

    # --- the end -----------------------------------------------------------------------------------------------------

    async def drain(self) -> None:
        """Wait until everything claimed has been called, or put back, and recorded."""
        while self._running or self._waiting:
            self._pump()
            if self._running:
                await asyncio.wait(self._running, timeout=0.25)
            else:
                await asyncio.sleep(0.01)

    async def stop(self) -> None:
        """Give back what was not sent yet, let calls in flight end (15 s at most), record, close the connections."""
        while self._waiting:
            self._run(self._put_back(self._waiting.popleft()))
        await self.drain()
        await self._client.aclose()
