"""What a transaction has decided about orders, gathered as values and then written set by set.

Decisions fill a `Changes`; `write` is the only place of this room that stores them. The caller holds the row locks of every order in it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final
from uuid import UUID

from kameng_api.kit import sets
from kameng_api.kit.crypto import Keyring
from kameng_api.kit.db import Tx, execute, fetch
from kameng_api.kit.ids import new_ulid, public_id
from kameng_api.kit.sets import columns_of
from kameng_api.ledger import actions as ledger
from kameng_api.ledger import rules as books
from kameng_api.ledger.errors import BooksStopped
from kameng_api.ledger.rules import Posting
from kameng_api.orders.codes import CodeToStore, duplicates, sealed_rows
from kameng_api.orders.rules import FailureCode, Order, Status, Substatus, event_of, final_status
from kameng_api.orders.views import view_json
from kameng_api.outbox import actions as outbox
from kameng_api.outbox.rules import Fact
from kameng_api.suppliers import actions as suppliers
from kameng_api.suppliers.actions import Evidence, RouteDecision, RouteInputs
from kameng_api.suppliers.rules import Attempt
from kameng_api.tasks import actions as tasks
from kameng_api.tasks.rules import Due, Lane, Task


@dataclass(frozen=True, slots=True)
class Incident:
    """Facts that contradict each other; a person closes it."""

    book_id: int
    order_id: UUID
    attempt_id: UUID | None
    kind: str
    detail: str
    severity: int = 2


@dataclass(frozen=True, slots=True)
class RefundRow:
    """Money on its way back to a merchant, 1/10000 units."""

    order: Order
    refund_no: str
    reason: str
    amount: int


class LedgerDisagrees(Exception):
    """An event key is taken by the other outcome: nothing of this transaction may stand."""


class CodeSoldBefore(Exception):
    """A delivered card code is already known to the house. `order_key` names the order it came for now."""

    def __init__(self, order_key: tuple[int, UUID]) -> None:
        super().__init__("a delivered card code had been sold before")
        self.order_key = order_key


@dataclass(slots=True)
class Changes:
    """Everything one transaction will write about orders."""

    orders: dict[tuple[int, UUID], Order] = field(default_factory=dict)
    attempts: dict[tuple[int, UUID], Attempt] = field(default_factory=dict)
    opened: list[Attempt] = field(default_factory=list)
    postings: list[Posting] = field(default_factory=list)
    born: list[Posting] = field(default_factory=list)
    """Events named after something that is made in this very transaction: they cannot have happened before. No floor accounts."""
    facts: list[Fact] = field(default_factory=list)
    due: list[Due] = field(default_factory=list)
    no_longer_due: dict[str, set[tuple[int, UUID]]] = field(default_factory=dict)
    incidents: list[Incident] = field(default_factory=list)
    codes: list[CodeToStore] = field(default_factory=list)
    refunds: list[RefundRow] = field(default_factory=list)
    evidence: list[Evidence] = field(default_factory=list)
    inputs: list[RouteInputs] = field(default_factory=list)
    decisions: list[RouteDecision] = field(default_factory=list)

    def add(self, other: "Changes") -> None:
        """Take over what was decided apart."""
        self.orders |= other.orders
        self.attempts |= other.attempts
        self.opened += other.opened
        self.postings += other.postings
        self.born += other.born
        self.facts += other.facts
        self.due += other.due
        for lane, keys in other.no_longer_due.items():
            self.no_longer_due.setdefault(lane, set()).update(keys)
        self.incidents += other.incidents
        self.codes += other.codes
        self.refunds += other.refunds
        self.evidence += other.evidence
        self.inputs += other.inputs
        self.decisions += other.decisions

    def touch(self, order: Order, attempt: Attempt | None = None) -> None:
        """Remember that these rows changed."""
        self.orders[order.key] = order
        if attempt is not None:
            self.attempts[attempt.key] = attempt

    def tell(self, order: Order, event: str | None = None) -> None:
        """Somebody outside should hear of it: the order exactly as it is now."""
        wire_id = public_id("ord", order.order_id)
        self.facts.append(
            Fact(
                order.book_id,
                event or event_of(order.status),
                wire_id,
                order.version,
                view_json(order),
                order.order_id,
                order.notify_url,
            )
        )

    def make_due(self, order_or_attempt: tuple[int, UUID], lane: Lane, at: datetime | None = None) -> None:
        self.due.append(Due(order_or_attempt[0], lane, order_or_attempt[1], at))

    def forget(self, key: tuple[int, UUID], lane: Lane) -> None:
        """This work is no longer needed."""
        self.no_longer_due.setdefault(lane, set()).add(key)

    def report(self, order: Order, attempt: Attempt | None, kind: str, detail: str, severity: int = 2) -> None:
        """Two facts contradict each other."""
        attempt_id = attempt.attempt_id if attempt else None
        self.incidents.append(Incident(order.book_id, order.order_id, attempt_id, kind, detail, severity))

    def start_processing(self, order: Order, now: datetime) -> None:
        """First step after accept."""
        if order.status == Status.ACCEPTED:
            order.step(Status.PROCESSING, Substatus.DISPATCHING)
            order.dispatched_at = now
            self.tell(order)
        elif order.substatus != Substatus.DISPATCHING:
            order.wait_in(Substatus.DISPATCHING)
        self.touch(order)

    def review(self, order: Order, why: str) -> None:
        """A person decides from here; nothing more is bought or asked by itself."""
        order.review = why
        order.wait_in(Substatus.MANUAL_REVIEW)
        self.forget(order.key, Lane.SUBMIT)
        self.touch(order)

    def finish(self, order: Order, now: datetime, failure: FailureCode | None) -> None:
        """Nothing is live and nothing more will be tried: capture what was delivered, release the rest, once."""
        assert order.committed_units == order.delivered_units, "a live attempt is open"
        order.captured = order.unit_price * order.delivered_units
        released = order.amount - order.captured
        status = final_status(order)
        if status is not Status.SUCCEEDED:
            order.failure_code = (failure or FailureCode.ALL_CHANNELS_REFUSED).value
        order.step(status)
        order.review = None
        order.completed_at = now
        self.postings.append(books.final(order.book_id, order.order_id, order.currency, captured=order.captured, released=released))
        self.forget(order.key, Lane.SUBMIT)
        self.touch(order)
        self.tell(order)


async def write(tx: Tx, keyring: Keyring, changes: Changes) -> None:
    """Store everything, in as few statements as can be. Raises LedgerDisagrees, CodeSoldBefore or BooksStopped: then nothing may be committed."""
    postings = _kept(changes.postings)
    verdicts, parts = await ledger.prepare(tx, postings)
    for verdict, posting in zip(verdicts, postings, strict=True):
        if isinstance(verdict, books.Stopped):
            raise BooksStopped
        if not isinstance(verdict, books.Posted | books.Existed):
            raise LedgerDisagrees(f"{posting.kind}: {type(verdict).__name__}")
    opened = {a.key for a in changes.opened}
    orders = list(changes.orders.values())
    parts += ledger.parts_of_new(_kept(changes.born))
    parts += suppliers.parts_of_opened(changes.opened)
    parts += suppliers.parts_of_saved([a for a in changes.attempts.values() if a.key not in opened])
    parts += suppliers.parts_of_answers(keyring, changes.evidence)
    parts += suppliers.parts_of_choices(changes.inputs, changes.decisions)
    parts += [sets.updating("orders", columns_of(orders, _SAVED_KEY), columns_of(orders, _SAVED))] if orders else []
    parts += outbox.parts_of(changes.facts)
    await sets.write(tx, parts)
    await _write_the_rare(tx, keyring, changes)
    for lane, keys in changes.no_longer_due.items():
        await tasks.drop(tx, lane, keys)
    await tasks.make_due(tx, changes.due)


async def write_of_copies(
    tx: Tx, keyring: Keyring, changes: Changes, written_by: Mapping[tuple[int, UUID], int], done: Sequence[Task]
) -> None:
    """`write` without locks, in one statement, for orders of which this process holds copies; `done` are tasks of one lane that it completes.

    `written_by`: order → the transaction that wrote order and attempt as the copies have them. Were they written again since, this raises
    `sets.Moved`; so it does for what only locks can decide. While they were not, no later event of theirs is posted and no look-up is due.
    """
    postings = _kept(changes.postings)
    if changes.opened or changes.born or books.touches_a_floor(postings):
        raise sets.Moved
    orders, attempts = list(changes.orders.values()), list(changes.attempts.values())
    parts = ledger.parts_of_new(postings)
    if orders:  # before their attempts, as everybody locks them: counted parts take their rows in this order
        by = [written_by[o.key] for o in orders]
        parts.append(sets.updating("orders", columns_of(orders, _SAVED_KEY), columns_of(orders, _SAVED), written_by=by))
    parts += suppliers.parts_of_saved(attempts, written_by=[written_by[a.book_id, a.order_id] for a in attempts])
    parts += suppliers.parts_of_answers(keyring, changes.evidence)
    parts += outbox.parts_of(changes.facts)
    parts += tasks.parts_of_completed(done)
    await sets.write(tx, parts)
    await _write_the_rare(tx, keyring, changes)
    await tasks.make_due(tx, changes.due)


async def _write_the_rare(tx: Tx, keyring: Keyring, changes: Changes) -> None:
    await _store_codes(tx, keyring, changes.codes)
    await _store_refunds(tx, changes.refunds)
    await _store_incidents(tx, changes.incidents)


def _kept(postings: Sequence[Posting]) -> list[Posting]:
    # An event whose lines are all zero (a supplier who charges nothing) leaves no trace in the books.
    return [p for p in postings if p.lines]


_SAVED_KEY: Final = (("book_id", "bigint"), ("order_id", "uuid"))
_SAVED: Final = (
    ("status", "text"),
    ("substatus", "text"),
    ("version", "int"),
    ("committed_units", "int"),
    ("delivered_units", "int"),
    ("captured", "bigint"),
    ("refunded", "bigint"),
    ("codes_count", "int"),
    ("failure_code", "text"),
    ("receipt", "text"),
    ("review", "text"),
    ("dispatched_at", "timestamptz"),
    ("delivered_at", "timestamptz"),
    ("completed_at", "timestamptz"),
)


_STORE_FINGERPRINTS = """
INSERT INTO code_fingerprints (fingerprint, environment, book_id, order_id)
SELECT * FROM unnest($1::bytea[], $2::text[], $3::bigint[], $4::uuid[])
ON CONFLICT (fingerprint) DO NOTHING RETURNING fingerprint
"""

_STORE_CODES = """
INSERT INTO codes (book_id, order_id, unit_no, sealed)
SELECT * FROM unnest($1::bigint[], $2::uuid[], $3::int[], $4::bytea[])
"""


async def _store_codes(tx: Tx, keyring: Keyring, codes: Sequence[CodeToStore]) -> None:
    if not codes:
        return
    rows = sealed_rows(keyring, codes)
    twice = duplicates(rows)
    if twice is not None:
        raise CodeSoldBefore(twice)
    new = await fetch(
        tx,
        _STORE_FINGERPRINTS,
        [r.fingerprint for r in rows],
        [r.environment for r in rows],
        [r.book_id for r in rows],
        [r.order_id for r in rows],
    )
    if len(new) != len(rows):
        fresh = {r["fingerprint"] for r in new}
        raise CodeSoldBefore(next((r.book_id, r.order_id) for r in rows if r.fingerprint not in fresh))
    await execute(
        tx, _STORE_CODES, [r.book_id for r in rows], [r.order_id for r in rows], [r.unit_no for r in rows],
        [r.sealed for r in rows],
    )  # fmt: skip


async def _store_refunds(tx: Tx, refunds: Sequence[RefundRow]) -> None:
    for r in refunds:
        await execute(
            tx,
            """INSERT INTO refunds (book_id, refund_id, order_id, refund_no, reason, amount, currency)
            VALUES ($1, $2, $3, $4, $5, $6, $7)""",
            r.order.book_id, new_ulid(), r.order.order_id, r.refund_no, r.reason, r.amount, r.order.currency,
        )  # fmt: skip


async def _store_incidents(tx: Tx, incidents: Sequence[Incident]) -> None:
    for i in incidents:
        await execute(
            tx,
            """INSERT INTO incidents (book_id, incident_id, order_id, attempt_id, kind, detail, severity)
            VALUES ($1, $2, $3, $4, $5, $6, $7)""",
            i.book_id, new_ulid(), i.order_id, i.attempt_id, i.kind, i.detail, i.severity,
        )  # fmt: skip
