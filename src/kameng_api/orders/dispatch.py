"""The first beat: take due orders, choose a channel, open an attempt with our reference, all before anything is sent."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import orjson

from kameng_api.catalog import queries as catalog
from kameng_api.catalog.hand import Buyer
from kameng_api.catalog.rules import RESERVED_FIELDS
from kameng_api.kit.crypto import Keyring
from kameng_api.kit.db import DATABASE_TROUBLE, Tx
from kameng_api.kit.ids import book_reference
from kameng_api.ledger import rules as books
from kameng_api.orders import changes as writing
from kameng_api.orders import queries
from kameng_api.orders.absorb import crashed_while_submitting
from kameng_api.orders.actions import fields_binding, target_binding
from kameng_api.orders.changes import Changes
from kameng_api.orders.choices import Choices, Chosen, Surroundings
from kameng_api.orders.rules import (
    FailureCode,
    Order,
    Status,
    Substatus,
    failure_when_no_channel_is_left,
    magic_masked,
)
from kameng_api.suppliers import queries as attempts_of
from kameng_api.suppliers import vitals
from kameng_api.suppliers.port import Purchase
from kameng_api.suppliers.routing.facts import Action, Option, Sent
from kameng_api.suppliers.rules import Attempt, AttemptState, attempt_id_of
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


@dataclass(slots=True)
class Round:
    """What one round decided: purchases to send, and the tasks whose order could not be decided, each with what was raised."""

    claimed: int = 0
    submissions: list[Submission] = field(default_factory=list)
    sent: list[Sent] = field(default_factory=list)
    """What the router may be told of them when the transaction stands."""
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
    choices = Choices(around, now, await _buyers(tx, around, orders))
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
            step = await _next_step(tx, order, attempts.get(task.key, ()), choices, own)
            submission = _submission(keyring, task, Copy(order, step, xid, now, clock)) if isinstance(step, Attempt) else None
        except DATABASE_TROUBLE:
            raise
        except Exception as trouble:
            round_.poisoned.append((task, trouble))
            continue
        changes.add(own)
        if submission is not None:
            round_.submissions.append(submission)
            if magic_masked(order.environment, order.target_masked) is None:
                attempt = submission.copy.attempt
                round_.sent.append(Sent(attempt.reference, attempt.channel_id, order.sku, now.timestamp(), attempt.probe))
        elif isinstance(step, datetime):
            later.append((task, step, None))
        else:
            done.append(task)
    told = {decision.inputs_id for decision in choices.decisions}  # not those of a probe that was denied, nor of a moment's hold
    changes.inputs, changes.decisions = [i for i in choices.inputs if i.inputs_id in told], choices.decisions
    await writing.write(tx, keyring, changes)
    await tasks.reschedule(tx, later)
    await tasks.complete(tx, done)
    return round_


async def _buyers(tx: Tx, around: Surroundings, orders: Mapping[tuple[int, UUID], Order]) -> Mapping[int, Buyer]:
    """Who orders, where the operator's rules ask for it."""
    return await catalog.list_buyers(tx, sorted({book for book, _ in orders})) if around.snapshot.hand.personal else {}


async def _next_step(tx: Tx, order: Order, attempts: Sequence[Attempt], choices: Choices, changes: Changes) -> Attempt | datetime | None:
    """Open an attempt, or say when to come back, or None when this task has nothing more to do."""
    now = choices.now
    live = next((a for a in attempts if a.live), None)
    if live is not None:
        if live.state == AttemptState.SUBMITTING:
            crashed_while_submitting(order, live, now, changes)
        return None
    if order.remaining_units == 0 or now >= order.deadline_at:
        _end(order, now, FailureCode.DEADLINE_PASSED, changes)
        return None
    chosen = choices.decide(order, attempts)
    if chosen.decision.action is Action.PROBE and not await _lease_probe(tx, chosen, order.sku):
        chosen = choices.decide_without_probe(order, attempts, chosen)
    choices.take(order, chosen)
    if chosen.decision.action is Action.HOLD:
        return min(now + timedelta(seconds=chosen.hold_s), order.deadline_at)
    if chosen.option is None:
        refusals = [a.refusal for a in attempts if a.refusal] + chosen.code_refusals
        _end(order, now, failure_when_no_channel_is_left(refusals), changes)
        return None
    return _open(order, attempts, chosen, chosen.option, now, changes)


_LEASE_S: Final = 3.0


async def _lease_probe(tx: Tx, chosen: Chosen, sku: str) -> bool:
    """One process probes a circuit at a time, however many see that a probe is due.

    The lease bridges only the time until the others have heard of the probe: from then on their own readings say when the next is due.
    """
    assert chosen.option is not None
    scope = sku if chosen.option.reading.of_sku else None
    return await vitals.lease_probe(tx, chosen.option.channel, scope, min(chosen.decision.until_s or 0.0, _LEASE_S))


def _end(order: Order, now: datetime, failure: FailureCode, changes: Changes) -> None:
    changes.start_processing(order, now)
    changes.finish(order, now, failure)


def _open(order: Order, attempts: Sequence[Attempt], chosen: Chosen, option: Option, now: datetime, changes: Changes) -> Attempt:
    n = attempts[-1].n + 1 if attempts else 1
    attempt_id = attempt_id_of(order.order_id, n)  # never a random one: after a restore a lost attempt is found by it
    units = order.remaining_units
    attempt = Attempt(
        book_id=order.book_id,
        attempt_id=attempt_id,
        order_id=order.order_id,
        n=n,
        channel_id=option.channel,
        product_code=option.product_code,
        units=units,
        state=AttemptState.SUBMITTING.value,
        currency=order.currency,
        cost=option.cost,
        reference=book_reference(order.book_id, attempt_id),
        reason=chosen.why,
        sent_at=now,
        sku=order.sku,
        price=chosen.ask.price,
        loss_allowed=chosen.ask.allow_loss,
        probe=chosen.decision.action is Action.PROBE,
    )
    changes.start_processing(order, now)
    order.committed_units += units
    changes.opened.append(attempt)
    changes.born.append(
        books.reserve(order.book_id, attempt_id, order.order_id, attempt.channel_id, attempt.currency, attempt.cost)
    )
    return attempt


def _submission(keyring: Keyring, task: Task, copy: Copy) -> Submission:
    order, attempt = copy.order, copy.attempt
    target = None
    asked: dict[str, str] = {}  # only orders of ranged products say a face value in it; others are bought by their product code alone
    if order.target_sealed is not None:
        target = keyring.open(order.target_sealed, target_binding(order.book_id, order.order_id)).decode()
    if order.fields_sealed is not None:
        asked = orjson.loads(keyring.open(order.fields_sealed, fields_binding(order.book_id, order.order_id)))
    purchase = Purchase(
        reference=attempt.reference,
        product_code=attempt.product_code,
        product_type=order.product_type,
        units=attempt.units,
        currency=order.currency,
        max_cost=attempt.cost,
        target=target,
        fields={name: value for name, value in asked.items() if name not in RESERVED_FIELDS},
        face_value=order.face_value if "face_value" in asked else None,
    )
    return Submission(
        task, order.key, attempt.key, attempt.channel_id, order.sku, order.product_type, purchase, copy
    )


