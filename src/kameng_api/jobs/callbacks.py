"""Acts on what suppliers called us with: the API has stored and verified it, here it meets the order."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final, Protocol

import orjson
import structlog

from kameng_api.catalog.rules import Snapshot
from kameng_api.jobs.orders import Buyer, skus_of
from kameng_api.kit.crypto import Keyring
from kameng_api.kit.db import Database, Tx, fetch
from kameng_api.kit.fresh import Fresh
from kameng_api.orders.absorb import News
from kameng_api.orders.settle import Settlement
from kameng_api.settings import Settings
from kameng_api.suppliers import queries as suppliers
from kameng_api.suppliers.connections import Connections
from kameng_api.suppliers.port import Accepted, Answer, CallbackRefused, CatalogHint, Delivered, Outcome, Refused, Reversed
from kameng_api.suppliers.queries import StoredCallback
from kameng_api.suppliers.rules import Attempt, AttemptState
from kameng_api.tasks import actions as tasks
from kameng_api.tasks.rules import Due, Lane, Task

_MOMENT: Final = timedelta(seconds=1)

_log = structlog.get_logger()


class Desk(Protocol):
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
    def connections(self) -> Connections: ...
    @property
    def buyer(self) -> Buyer: ...
    @property
    def worker(self) -> str: ...


async def apply_callbacks(desk: Desk, limit: int) -> int:
    """Claim up to `limit` stored callbacks and apply them. Returns how many were found.

    Where the signature is strong the verdict counts; otherwise a callback only makes the look-up due, and one that contradicts a purchase
    that is settled (taken back, or delivered after all) has the supplier asked once more. A no waits while the call that buys is still open:
    its answer may have been a yes that was given before, and is about to be recorded.
    """
    async with desk.db.transaction() as tx:
        claimed = await tasks.claim(tx, Lane.CALLBACK, limit, desk.settings.lease_s, desk.worker)
        if not claimed:
            return 0
        callbacks = await suppliers.find_callbacks(tx, [t.ref for t in claimed])
        keys = [(c.book_id, c.attempt_id) for c in callbacks.values() if c.book_id is not None and c.attempt_id is not None]
        attempts = await suppliers.find_attempts(tx, keys) if keys else {}
        skus = await skus_of(tx, list(attempts.values())) if attempts else {}
        trusted, hints, doubts, done = _sort(desk, claimed, callbacks, attempts, skus)
        await _ask(tx, hints)
        await tasks.complete(tx, done)
        trusted = await _put_off(tx, trusted, attempts, desk.settings.lease_s)
    for task, attempt in doubts:
        desk.buyer.confirm(task, attempt, skus[attempt.key])
    await asyncio.gather(*(desk.buyer.tell(channel_id, settlement) for channel_id, settlement in trusted))
    return len(claimed)


async def _ask(tx: Tx, hints: Sequence[Attempt]) -> None:
    await tasks.make_due(tx, [Due(a.book_id, Lane.LOOK_UP, a.attempt_id) for a in {a.key: a for a in hints}.values()])


async def _put_off(
    tx: Tx, trusted: Sequence[tuple[str, Settlement]], attempts: dict[Any, Attempt], lease_s: int
) -> list[tuple[str, Settlement]]:
    """Those that can be settled now. The others come again in a moment, until the answer is recorded or its lease is over."""
    open_calls = {key for key, attempt in attempts.items() if attempt.state == AttemptState.SUBMITTING}
    if not open_calls:
        return list(trusted)
    [row] = await fetch(tx, "SELECT now() AS now")
    settled, early = [], []
    for channel_id, settlement in trusted:
        news = settlement.news
        key = news.book_id, news.attempt_id
        waits = key in open_calls and isinstance(news.answer.outcome, Refused | Reversed)
        if waits and row["now"] - attempts[key].sent_at < timedelta(seconds=lease_s) and settlement.task is not None:
            early.append((settlement.task, row["now"] + _MOMENT, None))
        else:
            settled.append((channel_id, settlement))
    await tasks.reschedule(tx, early)
    return settled


def _sort(
    desk: Desk,
    claimed: Sequence[Task],
    callbacks: dict[Any, StoredCallback],
    attempts: dict[Any, Attempt],
    skus: dict[Any, str],
) -> tuple[list[tuple[str, Settlement]], list[Attempt], list[tuple[Task, Attempt]], list[Task]]:
    """(verdicts to settle, attempts to look up, settled ones to ask about once more, tasks that end here)."""
    trusted: list[tuple[str, Settlement]] = []
    hints: list[Attempt] = []
    doubts: list[tuple[Task, Attempt]] = []
    done: list[Task] = []
    for task in claimed:
        callback = callbacks.get(task.ref)
        attempt = attempts.get((callback.book_id, callback.attempt_id)) if callback else None
        if callback is None or attempt is None:
            _log.warning("callback.without_attempt", channel=callback.channel_id if callback else None)
            done.append(task)
            continue
        news, believed = _read(desk, callback, attempt, skus[attempt.key])
        if news is not None and believed:
            trusted.append((attempt.channel_id, Settlement(news, task, attempt.order_id)))
        elif news is not None and _contradicts(attempt, news.answer.outcome):
            doubts.append((task, attempt))
        else:
            hints.append(attempt)
            done.append(task)
    return trusted, hints, doubts, done


def _contradicts(attempt: Attempt, told: Outcome) -> bool:
    """Whether this says something else of a settled purchase than what it was settled by."""
    if attempt.live:
        return False
    if attempt.state == AttemptState.DELIVERED:
        return not isinstance(told, Delivered | Accepted)
    return isinstance(told, Delivered)


def _read(desk: Desk, callback: StoredCallback, attempt: Attempt, sku: str) -> tuple[News | None, bool]:
    """What the callback says, and whether that is a verdict; None when it says nothing that can be read."""
    channel = desk.catalog.current.channels.get(callback.channel_id)
    if channel is None or attempt.channel_id != callback.channel_id:
        return None, False  # signed by one supplier about another one's reference: ask the right one
    try:
        supplier = desk.connections.of(channel)
    except Exception as trouble:  # one channel that cannot be connected must not stop the callbacks of the others
        _log.error("channel.not_connected", channel=channel.channel_id, trouble=type(trouble).__name__)
        return None, False
    if supplier.read_callback is None:
        return None, False
    headers, body = open_callback(desk.keyring, callback)
    try:
        told = supplier.read_callback(headers, body, callback.received_at)
    except CallbackRefused:
        return None, False
    if isinstance(told, CatalogHint):
        return None, False
    product = desk.catalog.current.products.get(sku)
    news = News(
        *attempt.key,
        "callback",
        Answer(told.outcome, raw=body),
        refund_on_reversal=product is None or product.refund_on_reversal,
    )
    news = replace(news, capabilities=supplier.capabilities, can_look_up=supplier.look_up is not None)
    return news, supplier.capabilities.trusted_callback


def open_callback(keyring: Keyring, callback: StoredCallback) -> tuple[dict[str, str], bytes]:
    """(headers, body) as they arrived."""
    plain = keyring.open(callback.raw_sealed, suppliers.callback_binding(callback.callback_id))
    head, _, body = plain.partition(b"\n")
    return orjson.loads(head), body
