"""What merchants and operators do to orders: place, cancel, refund, decide a review."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import orjson

from kameng_api.catalog.rules import Snapshot
from kameng_api.kit import sets
from kameng_api.kit.crypto import Keyring
from kameng_api.kit.db import Tx, execute, fetch
from kameng_api.kit.errors import Invalid, NotFound, Problem, StateConflict
from kameng_api.kit.ids import new_ulid, public_id
from kameng_api.kit.money import format_amount
from kameng_api.kit.sets import Part, columns_of
from kameng_api.ledger import actions as ledger
from kameng_api.ledger import rules as books
from kameng_api.ledger.errors import BooksStopped
from kameng_api.orders import changes as writing
from kameng_api.orders import queries
from kameng_api.orders.absorb import News, absorb, give_refund
from kameng_api.orders.changes import Changes
from kameng_api.orders.errors import DuplicateTarget, NotEnoughMoney, NumberClosed, OrderNoConflict
from kameng_api.orders.requests import Draft, OrderRequest
from kameng_api.orders.rules import FailureCode, Order, Status, mask
from kameng_api.orders.views import view_json
from kameng_api.outbox import actions as outbox
from kameng_api.outbox.rules import Fact
from kameng_api.suppliers import queries as attempts_of
from kameng_api.suppliers.actions import Evidence
from kameng_api.suppliers.port import Answer, Delivered, RefusalReason, Refused, Scope
from kameng_api.suppliers.rules import Attempt
from kameng_api.tasks import actions as tasks
from kameng_api.tasks.rules import Due, Lane


@dataclass(frozen=True, slots=True)
class Place:
    """One order at the door: who, what, and the price it was appraised at (or why it cannot be)."""

    book_id: int
    environment: str
    currency: str
    request: OrderRequest = field(repr=False)
    fingerprint: bytes = field(repr=False)
    appraisal: Draft | Problem


@dataclass(frozen=True, slots=True)
class Placed:
    """The order, and whether this request created it. `json` is its public view, already serialised for an event."""

    order: Order
    created: bool
    json: bytes = field(repr=False)


def target_binding(book_id: int, order_id: UUID) -> bytes:
    """Associated data of a sealed target: it opens beside its own order only."""
    return b"orders.target:%d:%s" % (book_id, order_id.bytes)


def fields_binding(book_id: int, order_id: UUID) -> bytes:
    return b"orders.fields:%d:%s" % (book_id, order_id.bytes)


async def place(tx: Tx, keyring: Keyring, items: Sequence[Place]) -> list[Placed | Problem]:
    """Accept a flush of orders: one verdict each, everything accepted is written, nothing else is.

    A number of which a door has said that no order stands under it (see `closing`) is refused, whichever way it comes: NumberClosed.

    First the floor rows are locked in sorted order; then, in a new snapshot, existing numbers are found; each item is decided over the
    running balance. Two flushes with one number therefore never both debit; and what is refused waits for them, too: a twin of it, asked
    before the catalogue changed, may be about to commit.
    """
    touched = {(i.book_id, books.AVAILABLE, i.currency) for i in items}
    balances = await ledger.lock(tx, list(touched))
    numbers = await queries.look_up_numbers(tx, [(i.book_id, i.request.merchant_order_no) for i in items])
    now, known = numbers.now, numbers.orders
    charged = await _recently_charged(tx, keyring, items, now)
    drafts = [_draft_order(keyring, i, i.appraisal, now) if isinstance(i.appraisal, Draft) else None for i in items]

    verdicts: list[Placed | Problem] = []
    accepted: list[Placed] = []
    rows: list[books.Row] = []
    changed: dict[books.AccountKey, books.Balance] = {}
    for item, order in zip(items, drafts, strict=True):
        number = (item.book_id, item.request.merchant_order_no)
        verdict = _already(item, known.get(number)) or _closed(item, numbers.closed) or _refused(item, order, charged)
        if verdict is None:
            assert order is not None
            verdict = _hold(order, balances, rows, changed)
        if isinstance(verdict, Placed) and verdict.created:
            known[number] = verdict.order  # a twin later in this flush meets it as an existing order
            accepted.append(verdict)
            if verdict.order.target_hash is not None:
                charged.add((verdict.order.book_id, verdict.order.sku, verdict.order.target_hash))
        verdicts.append(verdict)
    await sets.write(tx, ledger.parts_of(rows, changed) + _parts_of(accepted))
    return verdicts


def _hold(
    order: Order,
    balances: dict[books.AccountKey, books.Balance],
    rows: list[books.Row],
    changed: dict[books.AccountKey, books.Balance],
) -> Placed | Problem:
    """Take the money of one order from the running balances, or say that it is not there."""
    posting = books.hold(order.book_id, order.order_id, order.currency, order.amount)
    [verdict], decided, after = books.decide([posting], balances, {})
    if isinstance(verdict, books.Stopped):
        return BooksStopped()
    if isinstance(verdict, books.Insufficient):
        detail = f"available {format_amount(verdict.available)} {order.currency}, required {format_amount(order.amount)}"
        return NotEnoughMoney(detail)
    assert isinstance(verdict, books.Posted)
    balances.update(after)
    changed.update(after)
    rows.extend(decided)
    return Placed(order, True, view_json(order))


_PLACED: Final = (
    ("order_id", "uuid"),
    ("book_id", "bigint"),
    ("merchant_order_no", "text"),
    ("fingerprint", "bytea"),
    ("environment", "text"),
    ("sku", "text"),
    ("product_type", "text"),
    ("quantity", "int"),
    ("target_sealed", "bytea"),
    ("target_masked", "text"),
    ("target_hash", "bytea"),
    ("fields_sealed", "bytea"),
    ("face_value", "bigint"),
    ("unit_price", "bigint"),
    ("amount", "bigint"),
    ("currency", "text"),
    ("notify_url", "text"),
    ("metadata", "bytea"),
    ("deadline_at", "timestamptz"),
    ("created_at", "timestamptz"),
)


def _parts_of(accepted: Sequence[Placed]) -> list[Part]:
    if not accepted:
        return []
    orders = [p.order for p in accepted]
    facts = [
        Fact(o.book_id, "order.accepted", public_id("ord", o.order_id), o.version, p.json, o.order_id, o.notify_url)
        for p, o in zip(accepted, orders, strict=True)
    ]
    return [
        sets.inserting("orders", columns_of(orders, _PLACED)),
        *tasks.parts_of_new([Due(o.book_id, Lane.SUBMIT, o.order_id) for o in orders]),
        *outbox.parts_of(facts),
    ]


def _draft_order(keyring: Keyring, item: Place, draft: Draft, now: datetime) -> Order:
    request, order_id = item.request, new_ulid()
    target = request.target
    fields = orjson.dumps(request.fields) if request.fields else None
    return Order(
        book_id=item.book_id,
        order_id=order_id,
        merchant_order_no=request.merchant_order_no,
        fingerprint=item.fingerprint,
        environment=item.environment,
        sku=request.sku,
        product_type=draft.product.product_type,
        quantity=request.quantity,
        unit_price=draft.unit_price,
        amount=draft.amount,
        currency=item.currency,
        deadline_at=now + draft.within,
        created_at=now,
        target_sealed=keyring.seal(target.encode(), target_binding(item.book_id, order_id)) if target else None,
        target_masked=mask(target) if target else None,
        target_hash=_target_hash(keyring, target) if target and draft.guard_target else None,
        fields_sealed=keyring.seal(fields, fields_binding(item.book_id, order_id)) if fields else None,
        face_value=draft.face_value,
        notify_url=request.notify_url,
        metadata=orjson.dumps(request.metadata),
    )


def _target_hash(keyring: Keyring, target: str) -> bytes:
    return keyring.fingerprint(target.encode(), "order-target")


def _already(item: Place, existing: Order | None) -> Placed | Problem | None:
    if existing is None:
        return None
    if existing.fingerprint != item.fingerprint:
        return OrderNoConflict(
            "this merchant_order_no stands for an order with other content",
            existing_order_id=public_id("ord", existing.order_id),
        )
    return Placed(existing, False, b"")


def _closed(item: Place, closed: set[tuple[int, str]]) -> Problem | None:
    if (item.book_id, item.request.merchant_order_no) in closed:
        return NumberClosed("this merchant_order_no is closed: a door has answered that no order stands under it, and that stays true")
    return None


def _refused(item: Place, order: Order | None, charged: set[tuple[int, str, bytes]]) -> Problem | None:
    if isinstance(item.appraisal, Problem):
        return item.appraisal
    assert order is not None
    if order.target_hash is None or item.request.confirm_duplicate:
        return None
    if (order.book_id, order.sku, order.target_hash) in charged:
        return DuplicateTarget("this target was charged with this product a moment ago; confirm_duplicate overrides")
    return None


async def _recently_charged(tx: Tx, keyring: Keyring, items: Sequence[Place], now: datetime) -> set[tuple[int, str, bytes]]:
    wanted = [
        (i.book_id, i.request.sku, _target_hash(keyring, i.request.target),
         now - timedelta(seconds=i.appraisal.product.duplicate_window_s))
        for i in items
        if isinstance(i.appraisal, Draft) and i.appraisal.guard_target and i.request.target
    ]  # fmt: skip
    return await queries.targets_charged_since(tx, wanted) if wanted else set()


async def is_duplicate(tx: Tx, keyring: Keyring, item: Place) -> bool:
    """Whether the duplicate-target guard would refuse this order now."""
    [now] = [r["now"] for r in await fetch(tx, "SELECT now() AS now")]
    return not item.request.confirm_duplicate and bool(await _recently_charged(tx, keyring, [item], now))


async def cancel(tx: Tx, keyring: Keyring, book_id: int, order_id: UUID) -> Order:
    """Before dispatch only. Cancelled again is the same order; raises StateConflict once dispatched, NotFound."""
    order = (await queries.lock_orders(tx, [(book_id, order_id)])).get((book_id, order_id))
    if order is None:
        raise NotFound
    if order.status == Status.CANCELLED:
        return order
    if order.status != Status.ACCEPTED:
        raise StateConflict("the order has been dispatched")
    changes = Changes()
    order.step(Status.CANCELLED)
    order.completed_at = await _tx_now(tx)
    changes.postings.append(books.final(book_id, order_id, order.currency, captured=0, released=order.amount))
    # The submit task stays: dispatch will find the order cancelled. Taking it away here would lock against dispatch's order.
    changes.touch(order)
    changes.tell(order)
    await writing.write(tx, keyring, changes)
    return order


async def refund(tx: Tx, keyring: Keyring, book_id: int, order_id: UUID, *, refund_no: str, amount: int, reason: str) -> Order:
    """Return captured money (1/10000 units). The number makes it safe to repeat.

    Raises NotFound, StateConflict (not final, number taken by another refund), Invalid (more than is left).
    """
    order = (await queries.lock_orders(tx, [(book_id, order_id)])).get((book_id, order_id))
    if order is None:
        raise NotFound
    known = await fetch(tx, "SELECT order_id, amount FROM refunds WHERE book_id = $1 AND refund_no = $2", book_id, refund_no)
    if known:
        if (known[0]["order_id"], known[0]["amount"]) != (order_id, amount):
            raise StateConflict("this refund_no stands for another refund")
        return order
    if order.status not in (Status.SUCCEEDED, Status.PARTIALLY_SUCCEEDED):
        raise StateConflict("only a delivered order can be refunded")
    if not 0 < amount <= order.captured - order.refunded:
        raise Invalid(f"at most {format_amount(order.captured - order.refunded)} {order.currency} can be refunded")
    changes = Changes()
    give_refund(order, refund_no, reason, amount, changes)
    await writing.write(tx, keyring, changes)
    return order


@dataclass(frozen=True, slots=True)
class Resolution:
    """A person's verdict on an order in manual review: `delivered` with an optional receipt, or refused."""

    delivered: bool
    note: str
    receipt: str | None = None


async def resolve_review(tx: Tx, keyring: Keyring, snapshot: Snapshot, book_id: int, order_id: UUID, resolution: Resolution) -> Order:
    """Apply a person's verdict. Raises NotFound, StateConflict when the order is not in manual review.

    With a live attempt the verdict is its outcome; without one, what is not delivered is given up. Never buys again.
    """
    order = (await queries.lock_orders(tx, [(book_id, order_id)])).get((book_id, order_id))
    if order is None:
        raise NotFound
    if order.substatus != "manual_review":
        raise StateConflict("the order is not in manual review")
    siblings = (await attempts_of.list_of_orders(tx, [order.key]))[order.key]
    now = await _tx_now(tx)
    changes = Changes()
    live = next((a for a in siblings if a.live), None)
    if live is not None:
        news = _verdict_as_news(order, live, resolution)
        if isinstance(news.answer.outcome, Delivered) and order.product_type == "card":
            raise StateConflict("card codes cannot be delivered by hand here: refuse, or wait for the supplier's answer")
        changes.evidence.append(Evidence(book_id, live.attempt_id, "operator", news.answer))
        absorb(order, live, siblings, news, now, changes)
    elif resolution.delivered:
        raise StateConflict("no attempt is open that could have delivered it")
    else:
        changes.finish(order, now, FailureCode.CANCELLED_BY_OPERATOR)
    await writing.write(tx, keyring, changes)
    return order


def _verdict_as_news(order: Order, live: Attempt, resolution: Resolution) -> News:
    outcome: Delivered | Refused
    if resolution.delivered:
        outcome = Delivered(live.units, receipt=resolution.receipt)
    else:
        outcome = Refused(Scope.ORDER, RefusalReason.SUPPLIER_REJECTED, "decided by a person")
    return News(order.book_id, live.attempt_id, "operator", Answer(outcome, raw=resolution.note.encode()))


async def record_reveal(tx: Tx, book_id: int, order_id: UUID, *, key_id: str, address: str, request_id: str, count: int) -> None:
    """Every reveal of card codes is written down before it leaves."""
    await execute(
        tx,
        """INSERT INTO code_reveals (book_id, reveal_id, order_id, key_id, address, request_id, count)
        VALUES ($1, $2, $3, $4, $5, $6, $7)""",
        book_id, new_ulid(), order_id, key_id, address, request_id, count,
    )  # fmt: skip


async def _tx_now(tx: Tx) -> datetime:
    now: datetime = (await fetch(tx, "SELECT now() AS now"))[0]["now"]
    return now
