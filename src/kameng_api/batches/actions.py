"""What is done to a batch: taken in, read, validated, placed page by page, confirmed, cancelled, ended."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import orjson

from kameng_api.batches import queries
from kameng_api.batches.errors import BatchNoConflict
from kameng_api.batches.files import Sheet
from kameng_api.batches.queries import file_binding, page_binding
from kameng_api.batches.requests import Decided, Desk, StoredRow, Trouble, pack, trouble_of
from kameng_api.batches.rules import (
    FINAL,
    PAGE,
    PREFIX,
    PROGRESS_EVERY,
    Batch,
    ItemStatus,
    Options,
    State,
    ended_state,
    view,
)
from kameng_api.kit import sets
from kameng_api.kit.crypto import Keyring
from kameng_api.kit.db import Tx, execute, fetch
from kameng_api.kit.errors import Problem, StateConflict
from kameng_api.kit.ids import new_ulid, public_id
from kameng_api.kit.sets import columns_of
from kameng_api.ledger.errors import BooksStopped
from kameng_api.orders import actions as orders
from kameng_api.orders import queries as orders_of
from kameng_api.orders.actions import Place, Placed
from kameng_api.orders.errors import NotEnoughMoney
from kameng_api.orders.requests import appraise
from kameng_api.outbox import actions as outbox
from kameng_api.outbox.rules import fact_of
from kameng_api.tasks import actions as tasks
from kameng_api.tasks.rules import Due, Lane

_PIECE: Final = 1_000_000

_INSERT = """
INSERT INTO batches (book_id, batch_id, merchant_batch_no, fingerprint, environment, currency, kind, filename, options, validate_only, total, pages)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) ON CONFLICT (book_id, merchant_batch_no) WHERE NOT validate_only DO NOTHING
RETURNING created_at
"""
_KEEP = """
UPDATE batches SET state = $3, version = $4, total = $5, invalid = $6, pages = $7, pages_validated = $8, pages_placed = $9, failure_code = $10,
  failure_detail = $11, final_counts = $12, looks = $13, told_at = $14, validated_at = $15, confirmed_at = $16, completed_at = $17, warnings = $18
WHERE book_id = $1 AND batch_id = $2
"""
# Rows that another one carries follow it, wherever it went.
_FOLLOW = """
UPDATE batch_items m SET status = c.status, order_id = c.order_id, merchant_order_no = c.merchant_order_no, error_code = c.error_code,
  error_pointer = c.error_pointer, error_detail = c.error_detail
FROM batch_items c
WHERE m.book_id = $1 AND m.batch_id = $2 AND m.merged_into IS NOT NULL AND m.status = 'pending' AND ($3::int IS NULL OR m.page = $3)
  AND c.book_id = m.book_id AND c.batch_id = m.batch_id AND c.line_no = m.merged_into AND c.part = 0 AND c.status <> 'pending'
"""
_OUTCOMES = """
UPDATE batch_items i SET status = k.status, order_id = k.order_id, amount = coalesce(k.amount, i.amount), error_code = k.code,
  error_pointer = k.pointer, error_detail = k.detail
FROM unnest($3::int[], $4::smallint[], $5::text[], $6::uuid[], $7::bigint[], $8::text[], $9::text[], $10::text[])
  AS k (line_no, part, status, order_id, amount, code, pointer, detail)
WHERE i.book_id = $1 AND i.batch_id = $2 AND i.line_no = k.line_no AND i.part = k.part AND i.status = 'pending'
"""
_LEAVE = """
UPDATE batch_items SET status = 'unprocessed', error_code = $3, error_pointer = '', error_detail = $4
WHERE book_id = $1 AND batch_id = $2 AND status = 'pending'
"""

_CUT_OFF: Final = "the database was put back to an earlier point: this row may have been bought since; compare before you send it again"


class OutOfTurn(Exception):
    """The batch is not where this step begins: somebody else took it, or it was cancelled. Nothing may stand."""


class Short(Exception):
    """`stop`: the money ends at item `at` of the page. Nothing may stand; the page is placed again up to there."""

    def __init__(self, at: int) -> None:
        super().__init__(at)
        self.at = at


class CameToNothing(Exception):
    """`all_or_nothing`: one item cannot be placed, so none is. Nothing may stand."""

    def __init__(self, outcome: "Outcome") -> None:
        super().__init__(outcome.trouble.code if outcome.trouble else "")
        self.outcome = outcome


@dataclass(frozen=True, slots=True)
class NewBatch:
    """What came in: pages of rows that have been read (JSON), or a file that has not."""

    book_id: int
    merchant_batch_no: str
    environment: str
    currency: str
    options: Options
    validate_only: bool
    rows: Sequence[StoredRow] = field(default=(), repr=False)
    columns: Sequence[str] = ()
    content: bytes = field(default=b"", repr=False)
    filename: str | None = None

    def fingerprint(self) -> bytes:
        """Equal for the same content and options; whether it is only to be validated, and a file's name, do not count."""
        parts = (self.options.as_json(), b"file" if self.filename is not None else b"json", self.content or pack(self.rows, self.columns))
        return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).digest()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an item when its turn came."""

    line_no: int
    part: int
    status: ItemStatus
    order_id: UUID | None = None
    amount: int | None = None
    trouble: Trouble | None = None


async def create(tx: Tx, keyring: Keyring, new: NewBatch) -> tuple[Batch, bool]:
    """Store a batch, due now. Returns it, and whether it is new: the same number and content is the batch it was.

    Raises BatchNoConflict when the number stands for other content. A batch that is only to be validated takes no number.
    """
    fingerprint = new.fingerprint()
    known = await queries.find_by_number(tx, new.book_id, new.merchant_batch_no, real=True)
    if known is None:
        batch = await _insert(tx, keyring, new, fingerprint)
        if batch is not None:
            return batch, True
        known = await queries.find_by_number(tx, new.book_id, new.merchant_batch_no, real=True)
        assert known is not None, "the number was taken a moment ago"
    if known.fingerprint != fingerprint:
        raise BatchNoConflict(
            "this merchant_batch_no stands for a batch with other content", existing_batch_id=public_id(PREFIX, known.batch_id)
        )
    return known, False


async def _insert(tx: Tx, keyring: Keyring, new: NewBatch, fingerprint: bytes) -> Batch | None:
    batch_id, kind = new_ulid(), "json" if new.filename is None else "file"
    pages = [new.rows[n : n + PAGE] for n in range(0, len(new.rows), PAGE)]
    taken = await fetch(
        tx, _INSERT, new.book_id, batch_id, new.merchant_batch_no, fingerprint, new.environment, new.currency, kind, new.filename,
        new.options.as_json().decode(), new.validate_only, len(new.rows), len(pages),
    )  # fmt: skip
    if not taken:
        return None
    if kind == "file":
        pieces = [new.content[n : n + _PIECE] for n in range(0, len(new.content), _PIECE)]
        sealed = [keyring.seal(piece, file_binding(new.book_id, batch_id, n)) for n, piece in enumerate(pieces)]
        await _store(tx, "batch_files", new.book_id, batch_id, sealed)
    else:
        await _store_pages(tx, keyring, new.book_id, batch_id, pages, new.columns)
    await tasks.make_new_due(tx, [Due(new.book_id, Lane.BATCH, batch_id)])
    return Batch(
        new.book_id, batch_id, new.merchant_batch_no, fingerprint, new.environment, new.currency, kind, new.filename, new.options,
        new.validate_only, total=len(new.rows), pages=len(pages), created_at=taken[0]["created_at"],
    )  # fmt: skip


async def _store_pages(
    tx: Tx,
    keyring: Keyring,
    book_id: int,
    batch_id: UUID,
    pages: Iterable[Sequence[StoredRow]],
    columns: Sequence[str],
    headings: Sequence[str] = (),
) -> None:
    sealed = [keyring.seal(pack(page, columns, headings), page_binding(book_id, batch_id, n)) for n, page in enumerate(pages)]
    await _store(tx, "batch_pages", book_id, batch_id, sealed)


async def _store(tx: Tx, table: str, book_id: int, batch_id: UUID, sealed: Sequence[bytes]) -> None:
    await execute(
        tx,
        f"INSERT INTO {table} (book_id, batch_id, n, sealed) SELECT $1, $2, k.n, k.sealed FROM unnest($3::int[], $4::bytea[]) AS k (n, sealed)",
        book_id, batch_id, list(range(len(sealed))), sealed,
    )  # fmt: skip


async def keep_rows(tx: Tx, keyring: Keyring, batch: Batch, rows: Sequence[StoredRow], sheet: Sheet) -> None:
    """A file has been read: keep its rows under its own headings, and let go of the file. `batch` is locked."""
    pages = [rows[n : n + PAGE] for n in range(0, len(rows), PAGE)]
    await _store_pages(tx, keyring, *batch.key, pages, sheet.columns, sheet.headings)
    await execute(tx, "DELETE FROM batch_files WHERE book_id = $1 AND batch_id = $2", *batch.key)
    batch.total, batch.pages, batch.warnings = len(rows), len(pages), tuple(sheet.warnings)
    batch.version += 1
    await keep(tx, batch)


async def validate_page(tx: Tx, keyring: Keyring, batch: Batch, now: datetime, desk: Desk) -> None:
    """Decide the rows of the next page; after the last one the batch goes on, waits, or ends. `batch` is locked."""
    if batch.state is not State.VALIDATING or not batch.is_read:
        raise OutOfTurn
    page = batch.pages_validated
    rows, _ = await queries.read_page(tx, keyring, batch, page)
    decided = [item for row in rows for item in desk.decide(row)]
    outcomes = await _already(tx, batch, decided)
    await _add_items(tx, batch, page, decided, outcomes)
    followed = await execute(tx, _FOLLOW, *batch.key, page) if desk.plan else 0
    batch.total += len(decided) - len(rows)
    if followed:
        wrong = "SELECT count(*)::int AS n FROM batch_items WHERE book_id = $1 AND batch_id = $2 AND status = 'invalid'"
        [found] = await fetch(tx, wrong, *batch.key)
        batch.invalid = found["n"]
    else:
        batch.invalid += sum(outcomes[d.line_no, d.part].status is ItemStatus.INVALID for d in decided)
    batch.pages_validated += 1
    if batch.pages_validated == batch.pages:
        await _end_validation(tx, batch, now)
    await keep(tx, batch)


async def _already(tx: Tx, batch: Batch, decided: Sequence[Decided]) -> dict[tuple[int, int], Outcome]:
    """Each item as it was decided, or as an order that exists under its number makes it: the order itself, or a conflict."""
    numbers = [(batch.book_id, d.number) for d in decided if d.number is not None and d.request is not None]
    looked_up = await orders_of.look_up_numbers(tx, numbers)
    known, closed = looked_up.orders, looked_up.closed
    outcomes = {}
    for d in decided:
        existing = known.get((batch.book_id, d.number)) if d.number is not None and d.request is not None else None
        if existing is None and d.request is not None and (batch.book_id, d.number) in closed:
            trouble = Trouble("state_conflict", "/merchant_order_no", "the number is closed: a door has answered that no order stands under it")
            outcome = Outcome(d.line_no, d.part, ItemStatus.INVALID, trouble=trouble)
        elif existing is None:
            outcome = Outcome(d.line_no, d.part, d.status, amount=d.amount, trouble=d.trouble)
        elif d.request is not None and existing.fingerprint == d.request.fingerprint():
            outcome = Outcome(d.line_no, d.part, ItemStatus.DUPLICATE, existing.order_id, existing.amount)
        else:
            order_id = public_id("ord", existing.order_id)
            trouble = Trouble("merchant_order_no_conflict", "/merchant_order_no", f"the number stands for {order_id}, which has other content")
            outcome = Outcome(d.line_no, d.part, ItemStatus.INVALID, trouble=trouble)
        outcomes[d.line_no, d.part] = outcome
    return outcomes


@dataclass(frozen=True, slots=True)
class _ItemRow:
    line_no: int
    book_id: int
    batch_id: UUID
    part: int
    page: int
    status: str
    merchant_order_no: str | None
    sku: str | None
    quantity: int | None
    amount: int
    order_id: UUID | None
    merged_into: int | None
    error_code: str | None
    error_pointer: str | None
    error_detail: str | None


_ITEM: Final = (
    ("line_no", "int"), ("book_id", "bigint"), ("batch_id", "uuid"), ("part", "smallint"), ("page", "int"), ("status", "text"),
    ("merchant_order_no", "text"), ("sku", "text"), ("quantity", "int"), ("amount", "bigint"), ("order_id", "uuid"), ("merged_into", "int"),
    ("error_code", "text"), ("error_pointer", "text"), ("error_detail", "text"),
)  # fmt: skip


async def _add_items(tx: Tx, batch: Batch, page: int, decided: Sequence[Decided], outcomes: dict[tuple[int, int], Outcome]) -> None:
    rows = []
    for d in decided:
        o = outcomes[d.line_no, d.part]
        wrong = (o.trouble.code, o.trouble.pointer, o.trouble.detail) if o.trouble else (None, None, None)
        rows.append(
            _ItemRow(
                d.line_no, *batch.key, d.part, page, str(o.status), d.number, d.sku, d.quantity, o.amount or 0, o.order_id, d.merged_into, *wrong
            )
        )
    if rows:
        await sets.write(tx, [sets.inserting("batch_items", columns_of(rows, _ITEM))])


async def _end_validation(tx: Tx, batch: Batch, now: datetime) -> None:
    batch.validated_at = now
    if batch.invalid and batch.options.mode == "all_or_nothing" and not batch.validate_only:
        await fail(tx, batch, now, "rows_invalid", f"{batch.invalid} of {batch.total} rows are not valid, so none was placed")
        return
    waits = batch.validate_only or batch.options.confirm == "manual"
    batch.step(State.VALIDATED if waits else State.PROCESSING)
    if not waits:
        batch.confirmed_at = now
    await tell(tx, batch, "batch.validated", now)


async def place_page(tx: Tx, keyring: Keyring, batch: Batch, now: datetime, desk: Desk, upto: int | None = None) -> None:
    """Place the items of the next page: their orders and their outcomes in one commit. `batch` is locked.

    Raises Short when the money ends within the page and the batch is to stop there: then again with `upto` that item; after that page
    nothing more is placed. Raises BooksStopped.
    """
    if batch.state is not State.PROCESSING or batch.pages_placed >= batch.pages:
        raise OutOfTurn
    outcomes = await _place(tx, keyring, batch, desk, batch.pages_placed, upto)
    if batch.options.on_insufficient_balance == "stop":
        short = next((n for n, o in enumerate(outcomes) if o.status is ItemStatus.UNPROCESSED), None)
        if short is not None:
            raise Short(short)
    await _record(tx, batch, outcomes)
    if upto is None:
        batch.pages_placed += 1
    else:
        await execute(tx, _LEAVE, *batch.key, NotEnoughMoney.code, "the balance was used up by the rows before")
        batch.pages_placed = batch.pages
    batch.version += 1
    if batch.told_at is None or now - batch.told_at >= PROGRESS_EVERY:
        await tell(tx, batch, "batch.progress", now)
    await keep(tx, batch)


async def place_all(tx: Tx, keyring: Keyring, batch: Batch, now: datetime, desk: Desk) -> None:
    """Place every item in this one transaction. `batch` is locked. Raises CameToNothing with the first that cannot be placed."""
    if batch.state is not State.PROCESSING or batch.pages_placed:
        raise OutOfTurn
    for page in range(batch.pages):
        outcomes = await _place(tx, keyring, batch, desk, page, None)
        wrong = next((o for o in outcomes if o.trouble is not None), None)
        if wrong is not None:
            raise CameToNothing(wrong)
        await _record(tx, batch, outcomes)
    batch.pages_placed = batch.pages
    batch.version += 1
    await keep(tx, batch)


async def come_to_nothing(tx: Tx, batch: Batch, now: datetime, outcome: Outcome) -> None:
    """`all_or_nothing` could not place one item, so it ends with none. `batch` is locked."""
    if batch.state is not State.PROCESSING:
        raise OutOfTurn
    assert outcome.trouble is not None
    if outcome.status is ItemStatus.REFUSED:
        await _record(tx, batch, [outcome])
    await fail(tx, batch, now, outcome.trouble.code, f"row {outcome.line_no}: {outcome.trouble.detail}; so none was placed")
    await keep(tx, batch)


async def _place(tx: Tx, keyring: Keyring, batch: Batch, desk: Desk, page: int, upto: int | None) -> list[Outcome]:
    pending = (await queries.list_pending(tx, batch, page))[:upto]
    if not pending:
        return []
    rows = {row.line_no: row for row in (await queries.read_page(tx, keyring, batch, page))[0]}
    items = []
    for p in pending:
        request = desk.request_of(rows[p.line_no], number=p.merchant_order_no, sku=p.sku, quantity=p.quantity)
        verdict = appraise(request, desk.caller, desk.snapshot)
        items.append(Place(batch.book_id, batch.environment, batch.currency, request, request.fingerprint(), verdict))
    verdicts = await orders.place(tx, keyring, items)
    return [_outcome(p.line_no, p.part, verdict) for p, verdict in zip(pending, verdicts, strict=True)]


def _outcome(line_no: int, part: int, verdict: Placed | Problem) -> Outcome:
    match verdict:
        case Placed(order, created):
            return Outcome(line_no, part, ItemStatus.PLACED if created else ItemStatus.DUPLICATE, order.order_id, order.amount)
        case BooksStopped():
            raise verdict
        case NotEnoughMoney():
            return Outcome(line_no, part, ItemStatus.UNPROCESSED, trouble=trouble_of(verdict))
        case _:
            return Outcome(line_no, part, ItemStatus.REFUSED, trouble=trouble_of(verdict))


async def _record(tx: Tx, batch: Batch, outcomes: Sequence[Outcome]) -> None:
    if not outcomes:
        return
    troubles = [o.trouble for o in outcomes]
    touched = await execute(
        tx, _OUTCOMES, *batch.key, [o.line_no for o in outcomes], [o.part for o in outcomes], [str(o.status) for o in outcomes],
        [o.order_id for o in outcomes], [o.amount for o in outcomes], [t.code if t else None for t in troubles],
        [t.pointer if t else None for t in troubles], [t.detail if t else None for t in troubles],
    )  # fmt: skip
    assert touched == len(outcomes), "an item's turn comes once"
    if batch.options.merge_equal:
        await execute(tx, _FOLLOW, *batch.key, None)


async def confirm(tx: Tx, book_id: int, batch_id: UUID) -> Batch:
    """Let a validated batch go on. Confirmed again is the same batch. Raises NotFound, StateConflict."""
    batch, now = await queries.lock_batch(tx, book_id, batch_id)
    if batch.confirmed_at is not None and batch.state is not State.CANCELLED:
        return batch
    if batch.validate_only:
        raise StateConflict("the batch was only to be validated: send it again without validate_only")
    if batch.state is not State.VALIDATED:
        raise StateConflict(f"the batch is {batch.state}")
    batch.step(State.PROCESSING)
    batch.confirmed_at = now
    await keep(tx, batch)
    await tasks.make_due(tx, [Due(*_due(batch))])
    return batch


async def cancel(tx: Tx, book_id: int, batch_id: UUID) -> Batch:
    """What is not placed yet will not be; orders that were placed live on. Cancelled again is the same. Raises NotFound, StateConflict."""
    batch, now = await queries.lock_batch(tx, book_id, batch_id)
    if batch.state is State.CANCELLED:
        return batch
    if batch.state is State.PROCESSING and batch.pages_placed >= batch.pages:
        raise StateConflict("every row has been placed; cancel the orders one by one")
    await _leave_off(tx, batch, now, "cancelled before its turn came")
    await tasks.make_due(tx, [Due(*_due(batch))])  # to count it for good once its orders are final
    return batch


async def cut_off(tx: Tx, batch: Batch, now: datetime) -> None:
    """Place nothing more of a batch that is older than a restore: what was placed of it since is not known. `batch` is locked. Raises OutOfTurn."""
    if not may_place(batch):
        raise OutOfTurn
    await _leave_off(tx, batch, now, _CUT_OFF)


async def _leave_off(tx: Tx, batch: Batch, now: datetime, detail: str) -> None:
    batch.step(State.CANCELLED)
    batch.completed_at = now
    await execute(tx, _LEAVE, *batch.key, "batch_cancelled", detail)
    await execute(tx, "DELETE FROM batch_files WHERE book_id = $1 AND batch_id = $2", *batch.key)
    await tell(tx, batch, "batch.completed", now)
    await keep(tx, batch)


def _due(batch: Batch) -> tuple[int, str, UUID]:
    return batch.book_id, Lane.BATCH, batch.batch_id


async def fail(tx: Tx, batch: Batch, now: datetime, code: str, detail: str) -> None:
    """End a batch of which nothing was placed. `batch` is locked; the caller keeps it."""
    batch.failure_code, batch.failure_detail = code, detail
    batch.step(State.FAILED)
    batch.completed_at = now
    await execute(tx, _LEAVE, *batch.key, code, "nothing of the batch was placed")
    await execute(tx, "DELETE FROM batch_files WHERE book_id = $1 AND batch_id = $2", *batch.key)
    batch.final_counts = await queries.count(tx, batch)
    await tell(tx, batch, "batch.completed", now)


async def look(tx: Tx, batch: Batch, now: datetime) -> bool:
    """Whether the batch is over for good. While its orders are not final it is looked at again later. `batch` is locked."""
    if batch.final_counts is not None or batch.state is State.VALIDATED:
        return True
    counts = await queries.count(tx, batch)
    batch.looks += 1
    over = counts.processing == 0
    if over:
        batch.final_counts = counts
    if batch.state is State.PROCESSING:
        if over:
            batch.step(ended_state(counts))
            batch.completed_at = now
            await tell(tx, batch, "batch.completed", now)
        elif batch.told_at is None or now - batch.told_at >= PROGRESS_EVERY:
            batch.version += 1
            await tell(tx, batch, "batch.progress", now)
    await keep(tx, batch)
    return over


async def tell(tx: Tx, batch: Batch, event: str, now: datetime) -> None:
    """Record an event with the batch as it is now; the caller keeps it."""
    batch.told_at = now
    shown: dict[str, Any] = view(batch, await queries.count(tx, batch))
    await outbox.record(tx, [fact_of(batch.book_id, event, public_id(PREFIX, batch.batch_id), batch.version, shown)])


async def keep(tx: Tx, batch: Batch) -> None:
    """Write a locked batch back."""
    counts = None if batch.final_counts is None else orjson.dumps(asdict(batch.final_counts)).decode()
    warnings = orjson.dumps(batch.warnings).decode() if batch.warnings else None
    await execute(
        tx, _KEEP, *batch.key, str(batch.state), batch.version, batch.total, batch.invalid, batch.pages, batch.pages_validated, batch.pages_placed,
        batch.failure_code, batch.failure_detail, counts, batch.looks, batch.told_at, batch.validated_at, batch.confirmed_at, batch.completed_at,
        warnings,
    )  # fmt: skip


def may_place(batch: Batch) -> bool:
    """Whether rows of it may still become orders by themselves."""
    return batch.state is State.VALIDATING or (batch.state is State.PROCESSING and batch.pages_placed < batch.pages)


def is_over(batch: Batch) -> bool:
    """Whether no step is left but to count."""
    return batch.state in FINAL
