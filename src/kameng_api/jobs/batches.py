"""Turns merchants' batches into orders: read · validate page by page · place page by page · wait until the orders are final.

Each page is one transaction that holds its orders and what became of its rows, so a worker that dies leaves the batch at a page's end, and the
next one goes on there. A batch gets a moment at a time, so that a large one keeps no small one waiting.
"""

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timedelta
from typing import Final, Protocol

import structlog

from kameng_api.alarms import actions as alarms
from kameng_api.batches import actions, files, queries, requests
from kameng_api.batches.actions import CameToNothing, OutOfTurn, Short, may_place
from kameng_api.batches.errors import FileRefused
from kameng_api.batches.requests import StoredRow, Trouble
from kameng_api.batches.rules import FINAL, MAX_ROWS, MAX_ROWS_AT_ONCE, Batch, State, next_look
from kameng_api.catalog.rules import Snapshot
from kameng_api.evidence import restores
from kameng_api.jobs.orders import Buyer
from kameng_api.jobs.upkeep import Chore, is_my_turn, stamp
from kameng_api.kit.crypto import Keyring
from kameng_api.kit.db import Database, Tx, fetch
from kameng_api.kit.fresh import Fresh
from kameng_api.kit.ids import ulid_text
from kameng_api.ledger.errors import BooksStopped
from kameng_api.merchants import queries as merchants
from kameng_api.merchants.rules import Caller
from kameng_api.settings import Settings
from kameng_api.tasks import actions as tasks
from kameng_api.tasks.rules import BUDGET, Due, Lane, Task, backoff

LEASE_S: Final = 10.0
"""Short, and renewed while a batch is worked on: a merchant who watches a progress bar should not wait a minute for a dead worker."""
_BEAT_S: Final = 3.0
_TURN_S: Final = 0.5
_STOPPED_S: Final = 30.0
_SWEEP_S: Final = 60.0

_log = structlog.get_logger()


class WorkDesk(Protocol):
    """What this job needs of its process."""

    @property
    def db(self) -> Database: ...
    @property
    def keyring(self) -> Keyring: ...
    @property
    def settings(self) -> Settings: ...
    @property
    def catalog(self) -> Fresh[Snapshot]: ...
    @property
    def buyer(self) -> Buyer: ...
    @property
    def worker(self) -> str: ...


class LeaseLost(Exception):
    """Somebody else works on this batch now: nothing of this step may stand."""


async def advance_batches(desk: WorkDesk, limit: int) -> int:
    """Give up to `limit` batches a turn each. Returns how many were due."""
    async with desk.db.transaction() as tx:
        claimed = await tasks.claim(tx, Lane.BATCH, limit, LEASE_S, desk.worker)
    await asyncio.gather(*(_turn(desk, task) for task in claimed))
    return len(claimed)


async def _turn(desk: WorkDesk, task: Task) -> None:
    try:
        async with _renewing(desk, task):
            wait = await _advance(desk, task)
        async with desk.db.transaction() as tx:
            if wait is None:
                await tasks.complete(tx, [task])
            else:
                await tasks.reschedule(tx, [(task, await _now(tx) + wait, None)])
    except LeaseLost:
        _log.info("batch.lease_lost", batch=ulid_text(task.ref))
    except Exception as trouble:
        await _try_later(desk, task, trouble)


async def _try_later(desk: WorkDesk, task: Task, trouble: Exception) -> None:
    """Work that raises is tried again later and later; when its budget is used up it is parked, and someone is told."""
    name, stopped = type(trouble).__name__, isinstance(trouble, BooksStopped)
    if not stopped:
        _log.warning("batch.failed", batch=ulid_text(task.ref), attempts=task.attempts, trouble=name, exc_info=task.attempts == 1)
    with suppress(Exception):  # the lease brings it back
        async with desk.db.transaction() as tx:
            if task.attempts >= BUDGET and not stopped:
                await tasks.park(tx, task, name)
                detail = f"given up after {task.attempts} tries: {name}"
                await alarms.raise_alarm(tx, "task_parked", f"{task.lane} {ulid_text(task.ref)}", None, detail)
                return
            wait = timedelta(seconds=_STOPPED_S) if stopped else backoff(task.attempts, random.random())  # noqa: S311  jitter
            await tasks.reschedule(tx, [(task, await _now(tx) + wait, name)])


async def _now(tx: Tx) -> datetime:
    now: datetime = (await fetch(tx, "SELECT now() AS now"))[0]["now"]
    return now


@asynccontextmanager
async def _renewing(desk: WorkDesk, task: Task) -> AsyncIterator[None]:
    """Keep the lease while a step takes its time."""
    over = asyncio.Event()

    async def beat() -> None:
        while not over.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(_BEAT_S):
                    await over.wait()
                    return
            with suppress(Exception):
                async with desk.db.transaction() as tx:
                    await tasks.renew(tx, [task], LEASE_S)

    beating = asyncio.create_task(beat())
    try:
        yield
    finally:  # told, and not cancelled: one whose connection breaks while it is cancelled would go on for ever, and keep the lease
        over.set()
        await beating


async def _advance(desk: WorkDesk, task: Task) -> timedelta | None:
    """Take steps for a moment. Returns when the next turn is due; None when none is left."""
    began = time.monotonic()
    plan: dict[int, tuple[int, int]] | None = None
    while time.monotonic() - began < _TURN_S:
        async with desk.db.transaction() as tx:
            batch = await queries.find_batch(tx, task.book_id, task.ref)
            if batch is None:
                return None
            merchant = await merchants.find_merchant_of_book(tx, task.book_id)
            moved = await restores.find_standing(tx) is restores.Standing.MOVED
            restored = await restores.has_begun_since(tx, batch.created_at)
        assert merchant is not None, "a batch stands in a merchant's book"
        if moved and batch.state not in FINAL:
            return timedelta(seconds=_STOPPED_S)
        if restored and not batch.validate_only and may_place(batch):
            with suppress(OutOfTurn):
                await _cut_off(desk, task)
            continue
        if batch.state not in FINAL and merchant.status != "active":
            return timedelta(seconds=_STOPPED_S)
        caller = Caller(
            "", merchant.merchant_id, merchant.name, batch.book_id, batch.environment, merchant.level, batch.currency, frozenset(), "", ""
        )
        if plan is None:
            plan = await _plan(desk, batch)
        at_desk = requests.Desk(caller, desk.catalog.current, batch.options, batch.merchant_batch_no, plan, desk.settings.webhook_development)
        with suppress(OutOfTurn):  # it was cancelled or taken over between two looks: look again
            over, wait = await _step(desk, task, batch, at_desk)
            if over or wait:
                return wait
            if not batch.is_read:
                plan = None
    return timedelta(0)


async def _know_where_we_are(tx: Tx, batch: Batch) -> None:
    """Raises OutOfTurn where the database has been restored, or moved, since the last look: an order placed now may be one that is lost."""
    if await restores.find_standing(tx) is restores.Standing.MOVED or await restores.has_begun_since(tx, batch.created_at):
        raise OutOfTurn


async def _cut_off(desk: WorkDesk, task: Task) -> None:
    async with desk.db.transaction() as tx:
        await actions.cut_off(tx, *await _locked(desk, tx, task))


async def _plan(desk: WorkDesk, batch: Batch) -> dict[int, tuple[int, int]]:
    """Which rows carry which others: read over all pages, the same each time, whatever the catalogue says by then."""
    if not (batch.options.merge_equal and batch.state is State.VALIDATING and batch.is_read):
        return {}
    rows: list[StoredRow] = []
    decided: dict[int, int] = {}
    for n in range(batch.pages):
        async with desk.db.transaction() as tx:
            rows += (await queries.read_page(tx, desk.keyring, batch, n))[0]
            decided = decided if n else await queries.list_carriers(tx, batch)
    return requests.plan_merging(rows, {sku: product.max_quantity for sku, product in desk.catalog.current.products.items()}, decided)


async def _step(desk: WorkDesk, task: Task, batch: Batch, at_desk: requests.Desk) -> tuple[bool, timedelta | None]:
    """One transaction forward. Returns whether the batch is over, and how long to wait otherwise (None: go on at once)."""
    if batch.state is State.VALIDATING and not batch.is_read:
        await _read(desk, task, batch)
    elif batch.state is State.VALIDATING:
        await _validate(desk, task, at_desk)
    elif batch.state is State.PROCESSING and batch.pages_placed < batch.pages:
        await _place(desk, task, batch, at_desk)
        desk.buyer.on_settled()
    else:
        async with desk.db.transaction() as tx:
            found = await _locked(desk, tx, task)
            over = await actions.look(tx, *found)
        return over, None if over else next_look(found[0].looks)
    return False, None


async def _locked(desk: WorkDesk, tx: Tx, task: Task) -> tuple[Batch, datetime]:
    """The batch's row, locked, while the lease is ours. Raises LeaseLost."""
    found = await queries.lock_batch(tx, task.book_id, task.ref)
    if not await tasks.renew(tx, [task], LEASE_S):
        raise LeaseLost
    return found


async def _read(desk: WorkDesk, task: Task, batch: Batch) -> None:
    """Read a file outside of any transaction, then keep its rows, or say why it cannot be read."""
    async with desk.db.transaction() as tx:
        content = await queries.read_file(tx, desk.keyring, batch)
    try:
        rows, sheet = await asyncio.to_thread(read_rows, content, batch.filename or "", batch.options.mode == "all_or_nothing")
    except FileRefused as refused:
        async with desk.db.transaction() as tx:
            found, now = await _locked(desk, tx, task)
            if found.state is State.VALIDATING:
                await actions.fail(tx, found, now, refused.reason, refused.detail)
                await actions.keep(tx, found)
        return
    async with desk.db.transaction() as tx:
        found, _ = await _locked(desk, tx, task)
        if found.state is State.VALIDATING and not found.is_read:
            await actions.keep_rows(tx, desk.keyring, found, rows, sheet)


def read_rows(content: bytes, filename: str, at_once: bool) -> tuple[list[StoredRow], files.Sheet]:
    """(rows, the file they stand in). Raises FileRefused."""
    sheet = files.read(content, filename)
    most = MAX_ROWS_AT_ONCE if at_once else MAX_ROWS
    rows: list[StoredRow] = []
    for row in sheet.rows:
        if len(rows) == most:
            raise FileRefused("too_many_rows", f"at most {most} rows" + (" with all_or_nothing" if at_once else ""))
        problem = None if row.problem is None else Trouble(*row.problem)
        rows.append(StoredRow(row.line_no, cells=row.cells, problem=problem))
    if not rows:
        raise FileRefused("no_rows", "the file has no rows below its header")
    return rows, sheet


async def _validate(desk: WorkDesk, task: Task, at_desk: requests.Desk) -> None:
    async with desk.db.transaction() as tx:
        batch, now = await _locked(desk, tx, task)
        await actions.validate_page(tx, desk.keyring, batch, now, at_desk)


async def _place(desk: WorkDesk, task: Task, batch: Batch, at_desk: requests.Desk) -> None:
    if batch.options.mode == "all_or_nothing":
        await _place_all(desk, task, at_desk)
        return
    upto: int | None = None
    while True:
        try:
            async with desk.db.transaction() as tx:
                found, now = await _locked(desk, tx, task)
                await _know_where_we_are(tx, found)
                await actions.place_page(tx, desk.keyring, found, now, at_desk, upto)
            return
        except Short as short:  # until there it can be paid; should the balance have fallen since, until a row before
            upto = short.at


async def _place_all(desk: WorkDesk, task: Task, at_desk: requests.Desk) -> None:
    try:
        async with desk.db.transaction() as tx:
            batch, now = await _locked(desk, tx, task)
            await _know_where_we_are(tx, batch)
            await actions.place_all(tx, desk.keyring, batch, now, at_desk)
    except CameToNothing as nothing:
        async with desk.db.transaction() as tx:
            batch, now = await _locked(desk, tx, task)
            await actions.come_to_nothing(tx, batch, now, nothing.outcome)


# Derived from the state of batches alone, so that even a task row that vanished is found again.
_LOST: Final = """
SELECT b.book_id, b.batch_id FROM batches b
WHERE b.final_counts IS NULL AND b.state <> 'validated' AND b.created_at < now() - make_interval(secs => $1)
  AND NOT EXISTS (SELECT FROM tasks t WHERE t.book_id = b.book_id AND t.lane = 'batch' AND t.ref = b.batch_id)
LIMIT 1000
"""


async def sweep(desk: WorkDesk) -> int:
    """Make batches due again that nobody will look at any more. Returns how many."""
    async with desk.db.transaction() as tx:
        if not await is_my_turn(tx, "sweep_batches", _SWEEP_S):
            return 0
        lost = await fetch(tx, _LOST, _SWEEP_S)
        await tasks.make_due(tx, [Due(r["book_id"], Lane.BATCH, r["batch_id"]) for r in lost])
        await stamp(tx, "sweep_batches")
    return len(lost)


CHORES: Final[tuple[Chore, ...]] = (Chore("sweep_batches", _SWEEP_S, sweep),)  # type: ignore[arg-type]  # the desk of a worker has a keyring too
