"""A world in which everything holds, broken in one place at a time: each break is found and named, and nothing else is."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

import asyncpg
import pytest
from sqlalchemy.engine import make_url

from kameng_api.embedded.servers import Servers
from kameng_api.kit.db import Database, Tx, execute
from kameng_api.kit.ids import new_ulid, public_id
from kameng_api.ledger import actions as ledger
from kameng_api.ledger import rules
from kameng_api.outbox import actions as outbox
from kameng_api.outbox.rules import fact_of
from kameng_api.reconciliation import invariants
from kameng_api.tasks import actions as tasks
from kameng_api.tasks.rules import Due, Lane

BOOK, CHANNEL = 16, "east"
PRICE, COST = 985_000, 970_000
WINDOW = timedelta(minutes=10)


@dataclass(frozen=True)
class World:
    """One order in every situation."""

    accepted: UUID
    submitting: UUID
    unknown: UUID
    review: UUID
    succeeded: UUID
    partial: UUID
    failed: UUID
    cancelled: UUID
    refunded: UUID
    cards: UUID


async def order(
    tx: Tx, status: str, *, quantity: int = 1, delivered: int = 0, live: str | None = None, substatus: str | None = None,
    refund: int = 0, codes: int = 0,
) -> UUID:  # fmt: skip
    """A complete, consistent order an hour old, with its postings, attempts, events and due work."""
    order_id, attempt = new_ulid(), new_ulid()
    amount = PRICE * quantity
    is_open = status in ("accepted", "processing")
    captured = 0 if is_open else amount * delivered // quantity
    live_units = quantity - delivered if live else 0
    version = 1 if status == "accepted" else 2 if is_open else 3 + bool(refund)
    await execute(
        tx,
        """INSERT INTO orders (book_id, order_id, merchant_order_no, fingerprint, environment, status, substatus, version, sku,
          product_type, quantity, committed_units, delivered_units, unit_price, amount, captured, refunded, currency, codes_count,
          metadata, deadline_at, created_at, completed_at)
        VALUES ($1, $2, $3, '', 'live', $4, $5, $6, 'sku', 'topup', $7, $8, $9, $10, $11, $12, $13, 'CNY', $14, '{}',
          now() + interval '1 hour', now() - interval '1 hour', CASE WHEN $15 THEN NULL ELSE now() END)""",
        BOOK, order_id, str(order_id), status, substatus, version, quantity, live_units + delivered, delivered, PRICE, amount,
        captured, refund, codes, is_open,
    )  # fmt: skip
    postings = [rules.hold(BOOK, order_id, "CNY", amount)]
    if live or delivered:
        state = live or "delivered"
        await execute(
            tx,
            """INSERT INTO attempts (book_id, attempt_id, order_id, n, channel_id, product_code, units, delivered_units, state,
              currency, cost, reference, reason, sent_at, unknown_since, settled_at)
            VALUES ($1, $2, $3, 1, $4, 'p', $5, $6, $7, 'CNY', $8, $9, 'test', now() - interval '1 hour',
              CASE WHEN $7 = 'unknown' THEN now() - interval '59 minutes' END,
              CASE WHEN $7 = 'delivered' THEN now() - interval '30 minutes' END)""",
            BOOK, attempt, order_id, CHANNEL, quantity, delivered, state, COST, str(attempt),
        )  # fmt: skip
        names = (BOOK, attempt, order_id, CHANNEL, "CNY")
        postings.append(rules.reserve(*names, COST))
        if not live:
            postings.append(rules.settle_delivered(*names, reserved=COST, actual=COST))
    if not is_open:
        postings.append(rules.final(BOOK, order_id, "CNY", captured=captured, released=amount - captured))
    if refund:
        await execute(
            tx,
            "INSERT INTO refunds (book_id, refund_id, order_id, refund_no, reason, amount, currency) "
            "VALUES ($1, $2, $3, $4, 'reversed', $5, 'CNY')",
            BOOK, new_ulid(), order_id, f"r-{order_id}", refund,
        )  # fmt: skip
        postings.append(rules.refund(BOOK, order_id, f"r-{order_id}", "CNY", refund))
    await ledger.post(tx, postings)
    for n in range(codes):
        await execute(tx, "INSERT INTO codes (book_id, order_id, unit_no, sealed) VALUES ($1, $2, $3, '')", BOOK, order_id, n)
        await execute(
            tx,
            "INSERT INTO code_fingerprints (fingerprint, environment, book_id, order_id) VALUES ($1, 'live', $2, $3)",
            new_ulid().bytes, BOOK, order_id,
        )  # fmt: skip
    kinds = ["accepted"] + ["processing"] * (status not in ("accepted", "cancelled")) + [status] * (not is_open)
    told = list(enumerate(kinds, 1)) if status != "cancelled" else [(1, "accepted"), (3, "cancelled")]
    await outbox.record(tx, [fact_of(BOOK, f"order.{k}", "ord", v, {}, order_id=order_id) for v, k in told])
    if is_open and substatus != "manual_review":
        due = Due(BOOK, Lane.LOOK_UP, attempt) if live == "unknown" else Due(BOOK, Lane.SUBMIT, order_id)
        await tasks.make_due(tx, [due])
    return order_id


@pytest.fixture
async def world(database: Database) -> World:
    async with database.transaction() as tx:
        await execute(tx, "INSERT INTO books (book_id, merchant_id, environment) VALUES ($1, $2, 'live')", BOOK, new_ulid())
        await ledger.open_book(tx, BOOK, "CNY")
        await ledger.post(tx, [rules.adjustment(BOOK, "start", rules.AVAILABLE, "CNY", 100 * PRICE, "test")])
    async with database.transaction() as tx:
        return World(
            accepted=await order(tx, "accepted"),
            submitting=await order(tx, "processing", live="submitting", substatus="dispatching"),
            unknown=await order(tx, "processing", live="unknown", substatus="outcome_unknown"),
            review=await order(tx, "processing", live="unknown", substatus="manual_review"),
            succeeded=await order(tx, "succeeded", delivered=1),
            partial=await order(tx, "partially_succeeded", quantity=3, delivered=1),
            failed=await order(tx, "failed"),
            cancelled=await order(tx, "cancelled"),
            refunded=await order(tx, "succeeded", quantity=2, delivered=2, refund=PRICE),
            cards=await order(tx, "succeeded", quantity=2, delivered=2, codes=2),
        )


async def full(database: Database) -> list[invariants.Breach]:
    async with database.transaction() as tx:
        return await invariants.check_all(tx)


async def recent(database: Database) -> list[invariants.Breach]:
    async with database.transaction() as tx:
        return await invariants.check_recent(tx, WINDOW)


async def test_a_sound_world_has_no_breach(database: Database, world: World) -> None:
    assert await full(database) == []
    assert await recent(database) == []


async def test_a_sound_world_stays_sound_when_rolled_up(database: Database, world: World) -> None:
    for _ in range(2):
        async with database.transaction() as tx:
            await ledger.roll_up(tx)
        assert await full(database) == []


async def test_an_empty_house_has_no_breach(database: Database) -> None:
    assert await full(database) == []
    assert await recent(database) == []


_AN_ORDER = "UPDATE orders SET {} WHERE order_id = $1"
_ITS_EVENTS = "UPDATE events SET {} WHERE order_id = $1"

# which order, what is done to it, which invariants must say so
BREAKS: Sequence[tuple[str, str, set[str]]] = [
    ("accepted", "UPDATE transfers SET amount = amount + 1 WHERE order_id = $1",
     {"hold_posting", "held_is_open", "balance_is_sum", "chain", "sum_zero"}),
    ("accepted", "DELETE FROM transfers WHERE order_id = $1", {"hold_posting", "held_is_open", "balance_is_sum", "chain", "sum_zero"}),
    ("accepted", "DELETE FROM tasks WHERE ref = $1", {"task_missing"}),
    ("unknown", "DELETE FROM tasks WHERE ref IN (SELECT attempt_id FROM attempts WHERE order_id = $1)", {"task_missing"}),
    ("accepted", _AN_ORDER.format("status = 'failed', completed_at = now()"), {"final_posting", "held_is_open", "one_final_event"}),
    ("accepted", _AN_ORDER.format("status = 'cancelled', completed_at = now() - interval '100 days'"), {"final_posting", "held_is_open"}),
    ("succeeded", _AN_ORDER.format("status = 'processing', substatus = 'manual_review', completed_at = NULL, captured = 0"),
     {"final_posting", "captured_fits", "held_is_open", "one_final_event"} - {"captured_fits"}),
    ("succeeded", _AN_ORDER.format("captured = captured - 1"), {"final_posting", "captured_fits"}),
    ("failed", _AN_ORDER.format("captured = 1"), {"final_posting", "captured_fits"}),
    ("partial", _AN_ORDER.format("delivered_units = 2, committed_units = 2"),
     {"captured_fits", "committed_units", "delivered_units"}),
    ("succeeded", _AN_ORDER.format("delivered_units = 0"), {"delivered_units"}),
    ("submitting", _AN_ORDER.format("committed_units = 0"), {"committed_units"}),
    ("submitting", "UPDATE attempts SET state = 'refused' WHERE order_id = $1", {"committed_units", "wip_is_live"}),
    ("unknown", "UPDATE attempts SET cost = cost + 1 WHERE order_id = $1", {"wip_is_live"}),
    ("succeeded", "UPDATE attempts SET state = 'unknown' WHERE order_id = $1",
     {"one_live_attempt", "committed_units", "wip_is_live"}),
    ("succeeded", "UPDATE attempts SET delivered_units = 0 WHERE order_id = $1", {"committed_units", "delivered_units"}),
    ("refunded", "UPDATE refunds SET amount = amount + 1 WHERE order_id = $1", {"refunds"}),
    ("refunded", _AN_ORDER.format("refunded = 0"), {"refunds"}),
    ("refunded", "UPDATE transfers SET event_key = 'refund:other' WHERE order_id = $1 AND kind = 'refund'", {"refunds"}),
    ("succeeded", "UPDATE transfers SET credit_account = 'suspense' WHERE order_id = $1 AND kind = 'capture'", {"final_posting"}),
    ("succeeded", "UPDATE transfers SET order_id = NULL WHERE order_id = $1 AND kind = 'capture'", {"final_posting"}),
    ("cards", "DELETE FROM codes WHERE order_id = $1 AND unit_no = 0", {"codes_count"}),
    ("cards", "DELETE FROM code_fingerprints WHERE order_id = $1", {"fingerprints"}),
    ("succeeded", "INSERT INTO code_fingerprints SELECT 'x', 'live', 16, $1", {"fingerprints"}),
    ("succeeded", "DELETE FROM events WHERE order_id = $1 AND type = 'order.succeeded'", {"one_final_event"}),
    ("succeeded", "DELETE FROM events WHERE order_id = $1", {"one_final_event"}),
    ("succeeded", "UPDATE events SET type = 'order.failed' WHERE order_id = $1 AND type = 'order.succeeded'", {"one_final_event"}),
    ("succeeded", "UPDATE events SET type = 'order.succeeded' WHERE order_id = $1 AND type = 'order.processing'",
     {"one_final_event"}),
    ("accepted", "UPDATE events SET type = 'order.failed' WHERE order_id = $1", {"one_final_event"}),
    ("succeeded", _ITS_EVENTS.format("version = version + 1"), {"versions"}),
    ("succeeded", _ITS_EVENTS.format("version = 1"), {"versions"}),
    ("succeeded", _ITS_EVENTS.format("version = 4 - version"), {"versions"}),
]  # fmt: skip


@pytest.mark.parametrize(("which", "break_", "expected"), BREAKS, ids=[f"{n}-{w}" for n, (w, _, _) in enumerate(BREAKS)])
async def test_each_break_is_found_and_named(
    database: Database, world: World, migrated: Servers, which: str, break_: str, expected: set[str]
) -> None:
    owner = await _owner(migrated)
    order_id = getattr(world, which)
    assert await owner.execute(break_, order_id) not in ("UPDATE 0", "DELETE 0")
    await owner.close()
    found = await full(database)
    assert {b.invariant for b in found} == expected
    of_orders = [b for b in found if b.detail.startswith("ord_")]
    assert all(b.detail.startswith(public_id("ord", order_id)) and b.book_id == BOOK for b in of_orders)

    # The incremental check sees the same, but for what only the whole books or long-pruned rows can tell.
    missed = {"balance_is_sum", "chain", "fingerprints"}
    if break_ == "DELETE FROM events WHERE order_id = $1":
        missed.add("one_final_event")
    assert {b.invariant for b in await recent(database)} == expected - missed


async def test_old_orders_are_left_to_the_full_check(database: Database, world: World, migrated: Servers) -> None:
    owner = await _owner(migrated)
    await owner.execute("UPDATE events SET created_at = now() - interval '1 day'")
    await owner.execute("UPDATE orders SET delivered_units = 0 WHERE order_id = $1", world.succeeded)
    await owner.close()
    async with database.transaction() as tx:
        fresh = await order(tx, "accepted")
    assert await recent(database) == []
    assert {b.invariant for b in await full(database)} == {"delivered_units"}
    owner = await _owner(migrated)
    await owner.execute("DELETE FROM tasks WHERE ref = $1", fresh)
    await owner.close()
    assert [b.invariant for b in await recent(database)] == ["task_missing"]


async def test_a_fresh_order_without_a_task_is_given_a_moment(database: Database, world: World, migrated: Servers) -> None:
    owner = await _owner(migrated)
    await owner.execute("DELETE FROM tasks")
    await owner.execute("UPDATE orders SET created_at = now() - interval '3 seconds'")
    assert await recent(database) == []
    await owner.execute("UPDATE orders SET created_at = now() - interval '12 seconds'")
    assert {b.invariant for b in await recent(database)} == {"task_missing"}
    # An attempt that was settled this moment explains it too.
    await owner.execute("DELETE FROM events")
    await owner.close()


async def test_parked_work_is_known_work(database: Database, world: World, migrated: Servers) -> None:
    owner = await _owner(migrated)
    await owner.execute("UPDATE tasks SET state = 'parked'")
    await owner.close()
    assert await full(database) == []


async def test_every_batch_of_orders_is_looked_at(database: Database, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(invariants, "_BATCH", 3)
    async with database.transaction() as tx:
        await execute(tx, "UPDATE orders SET codes_count = 7 WHERE status <> 'accepted'")
    found = [b for b in await full(database) if b.invariant == "codes_count"]
    assert len(found) == 9
    assert len([b for b in await recent(database) if b.invariant == "codes_count"]) == 9


async def _owner(servers: Servers) -> "asyncpg.Connection[asyncpg.Record]":
    return await asyncpg.connect(make_url(servers.owner_url).set(drivername="postgresql").render_as_string(hide_password=False))
