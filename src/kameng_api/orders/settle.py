"""The last beat: what suppliers answered, many orders in one commit."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from kameng_api.kit.crypto import Keyring
from kameng_api.kit.db import Tx, fetch
from kameng_api.kit.sets import Moved
from kameng_api.ledger.rules import reversal
from kameng_api.orders import changes as writing
from kameng_api.orders import queries
from kameng_api.orders.absorb import News, absorb, reversal_refund_no
from kameng_api.orders.changes import Changes
from kameng_api.orders.dispatch import Copy
from kameng_api.orders.rules import Order, magic_masked
from kameng_api.suppliers import queries as attempts_of
from kameng_api.suppliers.actions import Evidence
from kameng_api.suppliers.answers import heard
from kameng_api.suppliers.port import Accepted, Delivered, Reversed
from kameng_api.suppliers.routing.facts import Answered
from kameng_api.suppliers.rules import Attempt
from kameng_api.tasks import actions as tasks
from kameng_api.tasks.rules import Due, Task


@dataclass(frozen=True, slots=True)
class Settlement:
    """An answer to apply, and the task it completes, if one brought it."""

    news: News
    task: Task | None = None
    order_id: UUID | None = field(default=None)
    copy: Copy | None = field(default=None, repr=False)

    @property
    def is_quick(self) -> bool:
        """Its order is at hand and good news is all that is to be written: worth trying without a lock."""
        return self.copy is not None and not self.copy.taken and isinstance(self.news.answer.outcome, Delivered | Accepted)


async def settle_copies(
    tx: Tx, keyring: Keyring, settlements: Sequence[Settlement], told: list[Answered] | None = None
) -> list[str]:
    """`settle` in one statement, for quick settlements: decided on the copies that dispatch left in this process.

    Raises `sets.Moved` when somebody else has written to one of the orders since, or when only locks can decide; whatever it raises,
    nothing may be committed, and `settle` takes over from the rows. `told` as there.
    """
    changes = Changes()
    written_by: dict[tuple[int, UUID], int] = {}
    # One moment for all of them, by the copy that knows the database's clock best: what all rows share travels and is spelled once.
    latest = max((s.copy for s in settlements if s.copy is not None), key=_clock)
    now = latest.now + timedelta(seconds=time.monotonic() - latest.clock)
    for s in settlements:
        copy = s.copy
        assert copy is not None
        if copy.taken:
            raise Moved
        copy.taken = True
        written_by[copy.order.key] = copy.xid
        _absorb(copy.order, copy.attempt, [copy.attempt], s.news, now, changes, told)
    changes.evidence = [Evidence(s.news.book_id, s.news.attempt_id, s.news.beat, s.news.answer) for s in settlements]
    done = [s.task for s in settlements if s.task is not None]
    await writing.write_of_copies(tx, keyring, changes, written_by, done)
    return [s.copy.order.status for s in settlements if s.copy is not None]


def _clock(copy: Copy) -> float:
    return copy.clock


def _absorb(
    order: Order, attempt: Attempt, siblings: Sequence[Attempt], news: News, now: datetime, changes: Changes, told: list[Answered] | None
) -> None:
    before = attempt.state
    absorb(order, attempt, siblings, news, now, changes)
    what = heard(news.answer.outcome, before, attempt.state, attempt.refusal)
    if what is not None and told is not None and magic_masked(order.environment, order.target_masked) is None:
        told.append(Answered(attempt.reference, attempt.channel_id, order.sku, now.timestamp(), attempt.sent_at.timestamp(), what))


async def settle(
    tx: Tx, keyring: Keyring, settlements: Sequence[Settlement], told: list[Answered] | None = None
) -> list[str]:
    """Store every answer, apply each through its order's lock and settle key, complete the tasks.

    Facts are not fenced: the answer of a worker that lost its lease is applied all the same, and changes nothing twice. Returns the
    status of each order afterwards ("" where the attempt does not exist). `told` receives what the answers say about the channels'
    health; it may be passed on when the transaction stands.
    """
    order_of = await _orders_of(tx, settlements)
    now, orders = await queries.lock_orders_now(tx, list(order_of.values()))
    # Attempts are read under the order's lock: another process may have settled them a moment ago.
    siblings = await attempts_of.list_of_orders(tx, list(orders))
    attempts = {a.key: a for of_order in siblings.values() for a in of_order}
    known = [s for s in settlements if (s.news.book_id, s.news.attempt_id) in attempts]
    changes = Changes()
    changes.evidence = [Evidence(s.news.book_id, s.news.attempt_id, s.news.beat, s.news.answer) for s in known]
    seen_reversals: set[str] = set()
    for s in known:
        attempt = attempts[s.news.book_id, s.news.attempt_id]
        order = orders[attempt.book_id, attempt.order_id]
        news = await _with_known_reversal(tx, s.news, attempt, seen_reversals)
        _absorb(order, attempt, siblings[order.key], news, now, changes, told)
    mine = {(t.lane, t.key): t for s in settlements if (t := s.task) is not None}
    # Own tasks are given back or completed, once; only other work is made due or taken away here.
    again = [(mine.pop((d.lane, (d.book_id, d.ref))), d.run_at or now, None) for d in changes.due if (d.lane, (d.book_id, d.ref)) in mine]
    kept = {(task.lane, task.key) for task, _, _ in again}
    changes.due = [d for d in changes.due if (d.lane, (d.book_id, d.ref)) not in kept]
    for lane, key in mine:
        changes.no_longer_due.get(lane, set()).discard(key)
    await writing.write(tx, keyring, changes)
    ours = await tasks.reschedule(tx, again)
    # A task that somebody else took over, or finished, is made due like any other.
    await tasks.make_due(tx, [Due(t.book_id, t.lane, t.ref, at) for t, at, _ in again if t.key not in ours])
    await tasks.complete(tx, list(mine.values()))
    found = (attempts.get((s.news.book_id, s.news.attempt_id)) for s in settlements)
    return [orders[a.book_id, a.order_id].status if a is not None else "" for a in found]


async def _orders_of(tx: Tx, settlements: Sequence[Settlement]) -> dict[tuple[int, UUID], tuple[int, UUID]]:
    """(book, attempt) → (book, order), asking the database only for what the settlements do not say themselves."""
    order_of = {(s.news.book_id, s.news.attempt_id): (s.news.book_id, s.order_id) for s in settlements if s.order_id is not None}
    unsaid = [(s.news.book_id, s.news.attempt_id) for s in settlements if s.order_id is None]
    if unsaid:
        order_of |= {key: (a.book_id, a.order_id) for key, a in (await attempts_of.find_attempts(tx, unsaid)).items()}
    return order_of


async def _with_known_reversal(tx: Tx, news: News, attempt: Attempt, seen: set[str]) -> News:
    """A reversal counts once, however often and by whichever way it is told."""
    outcome = news.answer.outcome
    if not isinstance(outcome, Reversed):
        return news
    key = reversal(
        attempt.book_id, attempt.attempt_id, attempt.order_id, attempt.channel_id, attempt.currency,
        external_id=outcome.external_id, amount=1,
    ).event_key  # fmt: skip
    rows = await fetch(
        tx,
        """SELECT 1 FROM transfers WHERE book_id = $1 AND event_key = $2
        UNION ALL SELECT 1 FROM refunds WHERE book_id = $1 AND refund_no = $3 LIMIT 1""",
        attempt.book_id, key, reversal_refund_no(attempt, outcome),
    )  # fmt: skip
    known = bool(rows) or key in seen
    seen.add(key)
    return News(
        news.book_id, news.attempt_id, news.beat, news.answer, news.capabilities, news.can_look_up,
        news.refund_on_reversal, reversal_known=known,
    )  # fmt: skip
