"""The first beat: take due orders, choose a channel, open an attempt with our reference, all before anything is sent."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from uuid import UUID

import orjson

from kameng_api.catalog import rules as catalog
from kameng_api.catalog.rules import Snapshot
from kameng_api.kit.crypto import Keyring
from kameng_api.kit.db import Tx
from kameng_api.kit.ids import book_reference, new_ulid
from kameng_api.ledger import rules as books
from kameng_api.orders import changes as writing
from kameng_api.orders import queries
from kameng_api.orders.absorb import crashed_while_submitting, tried_channels
from kameng_api.orders.actions import fields_binding, target_binding
from kameng_api.orders.changes import Changes
from kameng_api.orders.rules import (
    FailureCode,
    Order,
    Status,
    Substatus,
    failure_when_no_channel_is_left,
)
from kameng_api.suppliers import queries as attempts_of
from kameng_api.suppliers.port import Purchase
from kameng_api.suppliers.rules import Attempt, AttemptState, Candidate, Choice, NoChoice, choose
from kameng_api.tasks import actions as tasks
from kameng_api.tasks.rules import Lane, Task


@dataclass(slots=True)
class Copy:
    """An order and its live attempt exactly as the transaction `xid` wrote them: as good as the rows while these are still that version.

    `now` is that transaction's time by the database's clock, `clock` this machine's monotonic clock at that moment. Whoever changes the
    copy takes it first: what becomes of a failed write is not known, and then only the rows are to be believed.
    """

    order: Order
    attempt: Attempt
    xid: int
    now: datetime
    clock: float
    taken: bool = False


@dataclass(frozen=True, slots=True)
class Submission:
    """A purchase that is written down and may now be sent, once, under its task's lease."""

    task: Task
    order_key: tuple[int, UUID]
    attempt_key: tuple[int, UUID]
    channel_id: str
    sku: str
    product_type: str
    purchase: Purchase = field(repr=False)
    copy: Copy = field(repr=False)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the choice is made from, besides the order: one copy of the catalogue and what is known of the channels.

    `room`: how many more calls a channel may be sent now; one that is not named has no limit.
    """

    snapshot: Snapshot
    unhealthy: frozenset[str] = frozenset()
    room: dict[str, int] = field(default_factory=dict)
    not_sent_pause_s: float = 1.0

    def busy(self) -> set[str]:
        """Channels that may be sent nothing more now."""
        return {channel for channel, left in self.room.items() if left <= 0}


@dataclass(slots=True)
class Round:
    """What one round decided: purchases to send, and the tasks whose order could not be decided, each with what was raised."""

    claimed: int = 0
    submissions: list[Submission] = field(default_factory=list)
    poisoned: list[tuple[Task, Exception]] = field(default_factory=list)


async def dispatch(
    tx: Tx, keyring: Keyring, around: Surroundings, *, limit: int, lease_s: float, worker: str
) -> Round:
    """Claim up to `limit` due orders and open an attempt for each that can be bought now; finish or reschedule the others."""
    return await dispatch_claimed(tx, keyring, around, await tasks.claim(tx, Lane.SUBMIT, limit, lease_s, worker))


async def dispatch_claimed(tx: Tx, keyring: Keyring, around: Surroundings, claimed: Sequence[Task]) -> Round:
    """`dispatch` for tasks that are ours already. An order that cannot be decided spoils nothing for the others."""
    round_ = Round(len(claimed))
    if not claimed:
        return round_
    clock = time.monotonic()
    now, xid, orders = await queries.lock_orders_of_transaction(tx, [t.key for t in claimed])
    begun = [key for key, order in orders.items() if order.status != Status.ACCEPTED]  # the others have no attempts yet
    attempts = await attempts_of.list_of_orders(tx, begun) if begun else {}
    around = replace(around, room=dict(around.room))  # counted down while attempts are opened
    changes = Changes()
    done: list[Task] = []
    later: list[tuple[Task, datetime, str | None]] = []
    for task in claimed:
        order = orders.get(task.key)
        if order is None or order.final or order.substatus == Substatus.MANUAL_REVIEW:
            done.append(task)
            continue
        own = Changes()
        try:
            step = _next_step(order, attempts.get(task.key, ()), around, now, own)
            submission = _submission(keyring, task, Copy(order, step, xid, now, clock)) if isinstance(step, Attempt) else None
        except Exception as trouble:
            round_.poisoned.append((task, trouble))
            continue
        changes.add(own)
        if submission is not None:
            if submission.channel_id in around.room:
                around.room[submission.channel_id] -= 1
            round_.submissions.append(submission)
        elif isinstance(step, datetime):
            later.append((task, step, None))
        else:
            done.append(task)
    await writing.write(tx, keyring, changes)
    await tasks.reschedule(tx, later)
    await tasks.complete(tx, done)
    return round_


def _next_step(
    order: Order, attempts: Sequence[Attempt], around: Surroundings, now: datetime, changes: Changes
) -> Attempt | datetime | None:
    """Open an attempt, or say when to come back, or None when this task has nothing more to do."""
    live = next((a for a in attempts if a.live), None)
    if live is not None:
        if live.state == AttemptState.SUBMITTING:
            crashed_while_submitting(order, live, now, changes)
        return None
    if order.remaining_units == 0 or now >= order.deadline_at:
        _end(order, now, FailureCode.DEADLINE_PASSED, changes)
        return None
    candidates = _candidates(order, around)
    choice = choose(
        candidates, order.remaining_units, _passed_over(attempts, around, now), allow_below_cost=_below_cost(order, around)
    )
    if isinstance(choice, NoChoice):
        back_at = _worth_waiting(order, candidates, attempts, around, now)
        if back_at is not None:
            return min(back_at, order.deadline_at)
        refusals = [a.refusal for a in attempts if a.refusal] + choice.refusals
        _end(order, now, failure_when_no_channel_is_left(refusals), changes)
        return None
    return _open(order, attempts, choice, now, changes)


def _end(order: Order, now: datetime, failure: FailureCode, changes: Changes) -> None:
    changes.start_processing(order, now)
    changes.finish(order, now, failure)


def _open(order: Order, attempts: Sequence[Attempt], choice: Choice, now: datetime, changes: Changes) -> Attempt:
    attempt_id = new_ulid()
    attempt = Attempt(
        book_id=order.book_id,
        attempt_id=attempt_id,
        order_id=order.order_id,
        n=len(attempts) + 1,
        channel_id=choice.candidate.channel_id,
        product_code=choice.candidate.product_code,
        units=order.remaining_units,
        state=AttemptState.SUBMITTING.value,
        currency=order.currency,
        cost=choice.candidate.cost,
        reference=book_reference(order.book_id, attempt_id),
        reason=choice.reason,
        sent_at=now,
    )
    changes.start_processing(order, now)
    order.committed_units += attempt.units
    changes.opened.append(attempt)
    changes.born.append(
        books.reserve(
            order.book_id, attempt_id, order.order_id, attempt.channel_id, attempt.currency, attempt.cost
        )
    )
    return attempt


def _candidates(order: Order, around: Surroundings) -> list[Candidate]:
    units = order.remaining_units
    return [
        Candidate(
            channel_id=channel.channel_id,
            product_code=offer.product_code,
            cost=catalog.unit_cost(offer, order.face_value) * units,
            price=order.unit_price * units,
            stock=offer.stock,
            wallet=channel.wallet_balance,
            healthy=channel.channel_id not in around.unhealthy,
        )
        for channel, offer in catalog.usable_offers(around.snapshot, order.sku, order.environment)
    ]


def _below_cost(order: Order, around: Surroundings) -> bool:
    product = around.snapshot.products.get(order.sku)
    return product is not None and product.allow_below_cost


def _passed_over(attempts: Sequence[Attempt], around: Surroundings, now: datetime) -> Mapping[str, str]:
    passed = dict(tried_channels(attempts))
    passed |= {channel: "not reached a moment ago" for channel, at in _pauses(attempts, around).items() if at > now}
    passed |= dict.fromkeys(around.busy() - passed.keys(), "at its limit")
    return passed


def _pauses(attempts: Sequence[Attempt], around: Surroundings) -> dict[str, datetime]:
    """channel → when a channel that could not be reached may be asked again: 1 s, doubling, at most 30 s."""
    pauses: dict[str, datetime] = {}
    count: dict[str, int] = {}
    for a in attempts:
        if a.state == AttemptState.NOT_SENT:
            count[a.channel_id] = count.get(a.channel_id, 0) + 1
            wait = min(around.not_sent_pause_s * 2 ** (count[a.channel_id] - 1), 30.0)
            pauses[a.channel_id] = (a.settled_at or a.sent_at) + timedelta(seconds=wait)
    return pauses


def _worth_waiting(
    order: Order, candidates: Sequence[Candidate], attempts: Sequence[Attempt], around: Surroundings, now: datetime
) -> datetime | None:
    """When a channel that is only busy or was not reached may be asked; None when no channel can change its mind."""
    tried, busy = tried_channels(attempts), around.busy()
    pauses = _pauses(attempts, around)
    below_cost = _below_cost(order, around)
    open_ = [c.channel_id for c in candidates if c.channel_id not in tried and (c.cost <= c.price or below_cost)]
    times = [pauses[c] for c in open_ if c in pauses and pauses[c] > now]
    times += [now + timedelta(milliseconds=200) for c in open_ if c in busy]
    return min(times, default=None)


def _submission(keyring: Keyring, task: Task, copy: Copy) -> Submission:
    order, attempt = copy.order, copy.attempt
    target = fields = None
    if order.target_sealed is not None:
        target = keyring.open(order.target_sealed, target_binding(order.book_id, order.order_id)).decode()
    if order.fields_sealed is not None:
        fields = orjson.loads(keyring.open(order.fields_sealed, fields_binding(order.book_id, order.order_id)))
    purchase = Purchase(
        reference=attempt.reference,
        product_code=attempt.product_code,
        product_type=order.product_type,
        units=attempt.units,
        currency=order.currency,
        max_cost=attempt.cost,
        target=target,
        fields=fields or {},
        face_value=order.face_value,
    )
    return Submission(
        task, order.key, attempt.key, attempt.channel_id, order.sku, order.product_type, purchase, copy
    )


