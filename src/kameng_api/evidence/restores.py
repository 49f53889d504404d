"""After a restore: nothing is bought again blindly.

A database that was put back to an older point does not know what was bought since. Its orders that were open then may have been delivered, or
refused, or cancelled; orders placed since are gone. So a restored database is noticed (its server, or the server's timeline, is another one than
before), everything is held until an operator has begun the restore, and while it is open every order that was open at that point is asked about
under the references its next attempts would have had: `attempt_id_of(order, n)` is the same today as it was then.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

import orjson

from kameng_api.kit.crypto import Keyring
from kameng_api.kit.db import Tx, execute, fetch
from kameng_api.kit.errors import StateConflict
from kameng_api.kit.ids import book_reference, new_ulid, parse_book_reference
from kameng_api.ledger import rules as books
from kameng_api.orders import changes as writing
from kameng_api.orders import queries as orders_of
from kameng_api.orders.absorb import News
from kameng_api.orders.changes import Changes
from kameng_api.orders.rules import Order, Substatus
from kameng_api.orders.settle import Settlement, settle
from kameng_api.suppliers import queries as attempts_of
from kameng_api.suppliers.port import Answer, Capabilities, LineKind, StatementLine
from kameng_api.suppliers.rules import LIVE, Attempt, AttemptState, attempt_id_of

_IDENTITY = """
SELECT i.system_identifier AS known, i.timeline_id AS known_timeline, c.system_identifier AS here,
  CASE WHEN pg_is_in_recovery() THEN 0 ELSE ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int END AS timeline,
  EXISTS (SELECT FROM restores WHERE ended_at IS NULL) AS holding
FROM pg_control_system() c LEFT JOIN database_identity i ON true
"""
AHEAD: Final = 8
"""How many attempts beyond the last known one are asked about: those that were never sent leave gaps."""


class Standing(StrEnum):
    """Whether orders may be sent to suppliers."""

    WELL = "well"
    HOLDING = "holding"  # a restore is open: orders are accepted and wait
    MOVED = "moved"  # this is another server, or another timeline, than the one these rows were last on: begin a restore first


async def find_standing(tx: Tx) -> Standing:
    """Where this database stands. The very first one to ask is remembered as the server these rows belong to."""
    [r] = await fetch(tx, _IDENTITY)
    if r["known"] is None:
        await execute(
            tx, "INSERT INTO database_identity (system_identifier, timeline_id) VALUES ($1, $2) ON CONFLICT DO NOTHING", r["here"], r["timeline"]
        )
        return Standing.HOLDING if r["holding"] else Standing.WELL
    if (r["known"], r["known_timeline"]) != (r["here"], r["timeline"]):
        return Standing.MOVED
    return Standing.HOLDING if r["holding"] else Standing.WELL


_SEEN = """
UPDATE database_identity SET seen_at = now()
WHERE system_identifier = (SELECT system_identifier FROM pg_control_system()) AND seen_at < now() - interval '5 seconds'
"""


async def note_seen(tx: Tx) -> None:
    """These rows are still where they were, now: what is younger than the last such sight may be of after a move.

    Only for a transaction in which `find_standing` did not say MOVED.
    """
    await execute(tx, _SEEN)


@dataclass(frozen=True, slots=True)
class Begun:
    """What `begin` found. `xid_shift`: how far the house's transaction ids now run ahead of the server's."""

    restore_id: UUID
    last_commit_at: datetime
    open_orders: int
    xid_shift: int


_XID_COLUMNS = """
SELECT table_name, column_name FROM information_schema.columns
WHERE table_schema = 'public' AND data_type = 'bigint' AND (column_name = 'xid' OR column_name LIKE '%\\_xid')
  AND table_name IN (SELECT tablename FROM pg_tables WHERE schemaname = 'public') ORDER BY 1, 2
"""
_FUNCTIONS: Final = (
    "CREATE OR REPLACE FUNCTION xid_now() RETURNS bigint LANGUAGE sql STABLE AS 'SELECT (pg_current_xact_id()::text)::bigint + {shift}'",
    "CREATE OR REPLACE FUNCTION xid_horizon() RETURNS bigint LANGUAGE sql STABLE AS "
    "'SELECT (pg_snapshot_xmin(pg_current_snapshot())::text)::bigint + {shift}'",
)
# Rows younger than the last sight may be of after the move: API processes that survive a failover go on accepting orders.
_LAST_COMMIT = """
SELECT coalesce((SELECT max(seen_at) FROM database_identity),
  greatest((SELECT max(created_at) FROM transfers WHERE created_at > now() - interval '3650 days'), (SELECT max(created_at) FROM orders))) AS at
"""
_HOLD = """
INSERT INTO restored_orders (book_id, order_id, restore_id)
SELECT book_id, order_id, $1 FROM orders WHERE status IN ('accepted', 'processing')
"""


async def begin(tx: Tx, who: str) -> Begun:
    """Open a restore, as the owner role: make transaction ids run on, give the chain a new epoch, hold every open order.

    Raises StateConflict when one is open on this very server already.
    """
    await execute(tx, "SET LOCAL statement_timeout = 0")  # whole tables are read, once
    await execute(tx, "SET LOCAL idle_in_transaction_session_timeout = 0")
    [r] = await fetch(tx, _IDENTITY)
    if r["holding"] and (r["known"], r["known_timeline"]) == (r["here"], r["timeline"]):
        raise StateConflict("a restore is open already")
    await execute(tx, "UPDATE restores SET ended_at = now(), ended_by = 'a later restore' WHERE ended_at IS NULL")
    shift = await _run_on(tx)
    [last] = await fetch(tx, _LAST_COMMIT)
    restore_id = new_ulid()
    await execute(
        tx, "INSERT INTO restores (restore_id, begun_by, last_commit_at, xid_shift) VALUES ($1, $2, coalesce($3, now()), $4)",
        restore_id, who, last["at"], shift,
    )  # fmt: skip
    held = await execute(tx, _HOLD, restore_id)
    await execute(tx, "UPDATE chain_state SET epoch = epoch + 1")
    await execute(tx, "DELETE FROM database_identity")
    await execute(tx, "INSERT INTO database_identity (system_identifier, timeline_id) VALUES ($1, $2)", r["here"], r["timeline"])
    # Leases are of workers that no longer exist, and the last runs of chores are of another life.
    await execute(tx, "UPDATE tasks SET state = 'ready', lease_until = NULL, run_at = now() WHERE state = 'running'")
    return Begun(restore_id, last["at"] or datetime.now().astimezone(), held, shift)


async def _run_on(tx: Tx) -> int:
    """A server that was filled from a dump counts transactions from its own beginning; every stored mark must stay in the past."""
    highest = 0
    for c in await fetch(tx, _XID_COLUMNS):
        [row] = await fetch(tx, f'SELECT coalesce(max("{c["column_name"]}"), 0) AS xid FROM "{c["table_name"]}"')
        highest = max(highest, row["xid"])
    [now] = await fetch(tx, "SELECT xid_now() AS house, (pg_current_xact_id()::text)::bigint AS own")
    shift = int(now["house"] - now["own"])
    if highest >= now["house"]:
        shift += int(highest - now["house"]) + 1
        for function in _FUNCTIONS:
            await execute(tx, function.format(shift=shift))
    return shift


@dataclass(frozen=True, slots=True)
class Held:
    """An order that was open at the restored point and has no answer yet, with what its next attempts would have been called."""

    order: Order
    restore_id: UUID
    begun_at: datetime
    first_asked_at: datetime | None
    references: tuple[tuple[int, str], ...]


_WAITING = """
SELECT h.book_id, h.order_id, h.restore_id, h.first_asked_at, r.begun_at FROM restores r JOIN restored_orders h ON h.restore_id = r.restore_id
WHERE r.ended_at IS NULL AND h.state = 'waiting'
  AND NOT EXISTS (SELECT FROM attempts a WHERE a.book_id = h.book_id AND a.order_id = h.order_id AND a.state = ANY ($2::text[]))
ORDER BY h.first_asked_at NULLS FIRST, h.book_id, h.order_id LIMIT $1
"""
_SAY = "UPDATE restored_orders SET state = $4, detail = $5 WHERE book_id = $1 AND order_id = $2 AND restore_id = $3 AND state = 'waiting'"


async def list_held(tx: Tx, limit: int) -> list[Held]:
    """Orders to ask about now. Those that ended, or wait for a person, are taken off the list on the way.

    A live attempt is looked up by its own task first; its order takes no place here meanwhile.
    """
    rows = await fetch(tx, _WAITING, limit, [state.value for state in LIVE])
    keys = [(r["book_id"], r["order_id"]) for r in rows]
    attempts = await attempts_of.list_of_orders(tx, keys) if keys else {}
    held = []
    for r in rows:
        key = r["book_id"], r["order_id"]
        order = await orders_of.get_order(tx, *key)
        known = attempts[key]
        if order.final or order.substatus == Substatus.MANUAL_REVIEW:
            await execute(tx, _SAY, *key, r["restore_id"], "final" if order.final else "person", order.review or order.status)
        elif order.remaining_units:
            first = known[-1].n + 1 if known else 1
            references = tuple((n, book_reference(key[0], attempt_id_of(key[1], n))) for n in range(first, first + AHEAD))
            held.append(Held(order, r["restore_id"], r["begun_at"], r["first_asked_at"], references))
    return held


_NOT_KNOWN_YET = """
SELECT 1 FROM restored_orders o JOIN restores r USING (restore_id)
WHERE r.ended_at IS NULL AND o.book_id = $1 AND o.order_id = $2 AND o.state IN ('waiting', 'person')
"""


async def may_have_been_bought(tx: Tx, book_id: int, order_id: UUID) -> bool:
    """Whether an order that looks untouched may have been delivered after the restored point: its money must not be given back now."""
    return await find_standing(tx) is Standing.MOVED or bool(await fetch(tx, _NOT_KNOWN_YET, book_id, order_id))


async def has_begun_since(tx: Tx, moment: datetime | None) -> bool:
    """Whether a restore was begun since: work that is older may have gone on after the restored point, and nobody here knows how far."""
    return bool(await fetch(tx, "SELECT 1 FROM restores WHERE begun_at >= $1 LIMIT 1", moment))


async def note_asked(tx: Tx, held: Held) -> None:
    """Nobody knew it, for the first time."""
    await execute(
        tx,
        """UPDATE restored_orders SET first_asked_at = coalesce(first_asked_at, now())
        WHERE book_id = $1 AND order_id = $2 AND restore_id = $3""",
        *held.order.key, held.restore_id,
    )  # fmt: skip


async def note(tx: Tx, held: Held, state: str, detail: str) -> None:
    """`free`: provably never bought; `person`: nobody can say."""
    await execute(tx, _SAY, *held.order.key, held.restore_id, state, detail)


@dataclass(frozen=True, slots=True)
class Offered:
    """Where a lost attempt was found, and what it should have cost there."""

    channel_id: str
    product_code: str
    cost: int
    price: int


async def take_back(
    tx: Tx, keyring: Keyring, held: Held, n: int, reference: str, at: Offered, answer: Answer, capabilities: Capabilities
) -> bool:
    """A supplier knows an attempt that we lost: write it down again under its own reference, and let its answer decide. False: no longer ours to."""
    now, found = await orders_of.lock_orders_now(tx, [held.order.key])
    order = found[held.order.key]
    known = (await attempts_of.list_of_orders(tx, [order.key]))[order.key]
    if order.final or order.substatus == Substatus.MANUAL_REVIEW or any(a.live or a.n >= n for a in known) or not order.remaining_units:
        return False
    attempt = Attempt(
        order.book_id, attempt_id_of(order.order_id, n), order.order_id, n, at.channel_id, at.product_code, order.remaining_units,
        AttemptState.SUBMITTING.value, order.currency, at.cost, reference, "found at the supplier after a restore", now,
        sku=order.sku, price=at.price, loss_allowed=True,
    )  # fmt: skip
    changes = Changes()
    changes.start_processing(order, now)
    order.committed_units += attempt.units
    changes.opened.append(attempt)
    changes.born.append(books.reserve(order.book_id, attempt.attempt_id, order.order_id, at.channel_id, order.currency, at.cost))
    await writing.write(tx, keyring, changes)
    await settle(tx, keyring, [Settlement(News(order.book_id, attempt.attempt_id, "look_up", answer, capabilities), order_id=order.order_id)])
    return True


async def record_losses(tx: Tx, channel_id: str, lines: Sequence[StatementLine]) -> int:
    """Note charges under references of ours whose attempts we do not have. Returns how many are new."""
    open_ = await find_open(tx)
    net: dict[str, int] = {}
    charge: dict[str, StatementLine] = {}
    for line in lines:
        if line.reference and line.kind in (LineKind.CHARGE, LineKind.REFUND, LineKind.REVERSAL):
            net[line.reference] = net.get(line.reference, 0) + line.amount
            if line.kind is LineKind.CHARGE:
                charge.setdefault(line.reference, line)
    ours = [(c, parsed) for ref, c in charge.items() if net[ref] < 0 and (parsed := parse_book_reference(ref))]
    if open_ is None or not ours:
        return 0
    known = await attempts_of.find_attempts(tx, [key for _, key in ours])
    # References are the same again after a restore: an attempt of this name on another channel is another purchase.
    lost = [(c, key) for c, key in ours if key not in known or known[key].channel_id != channel_id]
    return await execute(
        tx,
        """INSERT INTO restore_losses (book_id, reference, restore_id, channel_id, supplier_order_no, amount, currency, at)
        SELECT k.book_id, k.reference, $8, $7, k.number, k.amount, k.currency, k.at
        FROM unnest($1::bigint[], $2::text[], $3::text[], $4::bigint[], $5::text[], $6::timestamptz[])
          AS k (book_id, reference, number, amount, currency, at) ON CONFLICT DO NOTHING""",
        [key[0] for _, key in lost], [c.reference for c, _ in lost], [c.supplier_order_no for c, _ in lost],
        [-net[str(c.reference)] for c, _ in lost], [c.currency for c, _ in lost], [c.at for c, _ in lost], channel_id, open_["restore_id"],
    )  # fmt: skip


_LOSSES = """
SELECT l.* FROM restore_losses l JOIN restores r USING (restore_id) WHERE r.restore_id = $1 ORDER BY l.at, l.reference
"""


async def list_losses(tx: Tx, restore_id: UUID) -> list[Any]:
    """Purchases that suppliers charged and we do not know; an attempt found again there since is left out."""
    rows = await fetch(tx, _LOSSES, restore_id)
    keys = [(r["book_id"], parsed[1]) for r in rows if (parsed := parse_book_reference(r["reference"]))]
    known = await attempts_of.find_attempts(tx, keys)
    return [r for r, key in zip(rows, keys, strict=True) if key not in known or known[key].channel_id != r["channel_id"]]


async def find_open(tx: Tx) -> Any | None:
    """The open restore's row."""
    rows = await fetch(tx, "SELECT * FROM restores WHERE ended_at IS NULL")
    return rows[0] if rows else None


_RESTORES = """
SELECT r.*, (SELECT count(*) FROM restore_losses l WHERE l.restore_id = r.restore_id) AS losses,
  coalesce((SELECT jsonb_object_agg(state, n) FROM (
    SELECT state, count(*) AS n FROM restored_orders o WHERE o.restore_id = r.restore_id GROUP BY 1) AS s), '{}')::text AS orders
FROM restores r WHERE $1::uuid IS NULL OR restore_id < $1 ORDER BY restore_id DESC LIMIT $2
"""


async def list_restores(tx: Tx, before: UUID | None, limit: int) -> list[dict[str, Any]]:
    """Newest first, each with its orders by state and the purchases that were found lost; `before` is the keyset."""
    return [{**r, "orders": orjson.loads(r["orders"])} for r in await fetch(tx, _RESTORES, before, limit)]


async def states(tx: Tx, restore_id: UUID) -> dict[str, int]:
    """How many held orders stand where."""
    rows = await fetch(tx, "SELECT state, count(*) AS n FROM restored_orders WHERE restore_id = $1 GROUP BY 1", restore_id)
    return {r["state"]: r["n"] for r in rows}


_PLACED_SINCE = """
SELECT book_id, order_id FROM orders WHERE status IN ('accepted', 'processing') AND book_id = ANY ($1::bigint[]) AND created_at >= $2
"""
_UNSURE = """
SELECT book_id, order_id FROM restored_orders WHERE restore_id = $1 AND state IN ('waiting', 'person')
"""


async def end(tx: Tx, keyring: Keyring, who: str, *, whatever: bool = False) -> dict[str, int]:
    """Let orders go to suppliers again. Those of which nobody could say anything, and new ones of merchants who lost deliveries, go to a person.

    Raises StateConflict while orders are still being asked about, unless `whatever`: then they go to a person too.
    """
    open_ = await find_open(tx)
    if open_ is None:
        raise StateConflict("no restore is open")
    waiting = (await states(tx, open_["restore_id"])).get("waiting", 0)
    if waiting and not whatever:
        raise StateConflict(f"{waiting} order(s) are still being asked about")
    unsure = {(r["book_id"], r["order_id"]) for r in await fetch(tx, _UNSURE, open_["restore_id"])}
    losses = await list_losses(tx, open_["restore_id"])
    again = {
        (r["book_id"], r["order_id"])
        for r in await fetch(tx, _PLACED_SINCE, sorted({r["book_id"] for r in losses}), open_["last_commit_at"])
    } - unsure
    _, locked = await orders_of.lock_orders_now(tx, sorted(unsure | again))
    attempts = await attempts_of.list_of_orders(tx, list(locked)) if locked else {}
    changes, reviewed = Changes(), 0
    for key, order in locked.items():
        if order.final or order.substatus == Substatus.MANUAL_REVIEW or any(a.live for a in attempts[key]):
            continue  # what is live is looked up like any other
        changes.start_processing(order, open_["begun_at"])
        why = "open at the restored point, and no supplier can say what was bought since"
        changes.review(order, why if key in unsure else "its merchant lost deliveries in the restore: it may be one of them, ordered again")
        reviewed += 1
    await writing.write(tx, keyring, changes)
    await execute(tx, "UPDATE restores SET ended_at = now(), ended_by = $2 WHERE restore_id = $1", open_["restore_id"], who)
    return {"losses": len(losses), "sent_to_review": reviewed, "was_waiting": waiting}
