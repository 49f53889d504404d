"""Write attempts and what suppliers answered. The order's row lock is held by the caller wherever an attempt changes."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

import orjson

from kameng_api.kit.crypto import Keyring
from kameng_api.kit.db import Tx, execute
from kameng_api.kit.ids import new_ulid
from kameng_api.suppliers.port import Answer
from kameng_api.suppliers.queries import callback_binding
from kameng_api.suppliers.rules import Attempt, outcome_word

_OPEN = """
INSERT INTO attempts (book_id, attempt_id, order_id, n, channel_id, product_code, units, state, currency, cost,
  reference, reason, sent_at)
SELECT * FROM unnest($1::bigint[], $2::uuid[], $3::uuid[], $4::smallint[], $5::text[], $6::text[], $7::int[],
  $8::text[], $9::text[], $10::bigint[], $11::text[], $12::text[], $13::timestamptz[])
"""

_SAVE = """
UPDATE attempts a SET state = k.state, delivered_units = k.delivered_units, actual_cost = k.actual_cost,
  supplier_order_no = k.supplier_order_no, refusal = k.refusal, trouble = k.trouble, look_ups = k.look_ups,
  not_found_first_at = k.not_found_first_at, reversed_amount = k.reversed_amount, unknown_since = k.unknown_since,
  settled_at = k.settled_at
FROM unnest($1::bigint[], $2::uuid[], $3::text[], $4::int[], $5::bigint[], $6::text[], $7::text[], $8::text[],
  $9::int[], $10::timestamptz[], $11::bigint[], $12::timestamptz[], $13::timestamptz[])
  AS k (book_id, attempt_id, state, delivered_units, actual_cost, supplier_order_no, refusal, trouble, look_ups,
  not_found_first_at, reversed_amount, unknown_since, settled_at)
WHERE a.book_id = k.book_id AND a.attempt_id = k.attempt_id
"""

_STORE = """
INSERT INTO supplier_answers (book_id, answer_id, attempt_id, beat, outcome, http_status, raw_sealed)
SELECT * FROM unnest($1::bigint[], $2::uuid[], $3::uuid[], $4::text[], $5::text[], $6::smallint[], $7::bytea[])
"""


async def open_attempts(tx: Tx, attempts: Sequence[Attempt]) -> None:
    """Write attempts with our reference before anything is sent. One live attempt per order is the database's own rule."""
    if not attempts:
        return
    await execute(
        tx,
        _OPEN,
        [a.book_id for a in attempts],
        [a.attempt_id for a in attempts],
        [a.order_id for a in attempts],
        [a.n for a in attempts],
        [a.channel_id for a in attempts],
        [a.product_code for a in attempts],
        [a.units for a in attempts],
        [a.state for a in attempts],
        [a.currency for a in attempts],
        [a.cost for a in attempts],
        [a.reference for a in attempts],
        [a.reason for a in attempts],
        [a.sent_at for a in attempts],
    )


async def save_attempts(tx: Tx, attempts: Sequence[Attempt]) -> None:
    """Write what changed under the order's lock."""
    if not attempts:
        return
    await execute(
        tx,
        _SAVE,
        [a.book_id for a in attempts],
        [a.attempt_id for a in attempts],
        [a.state for a in attempts],
        [a.delivered_units for a in attempts],
        [a.actual_cost for a in attempts],
        [a.supplier_order_no for a in attempts],
        [a.refusal for a in attempts],
        [a.trouble for a in attempts],
        [a.look_ups for a in attempts],
        [a.not_found_first_at for a in attempts],
        [a.reversed_amount for a in attempts],
        [a.unknown_since for a in attempts],
        [a.settled_at for a in attempts],
    )


@dataclass(frozen=True, slots=True)
class Evidence:
    """A raw answer to be kept: which attempt, at which beat (place, look_up, callback, operator)."""

    book_id: int
    attempt_id: UUID
    beat: str
    answer: Answer


async def store_answers(tx: Tx, keyring: Keyring, evidence: Sequence[Evidence]) -> None:
    """Facts are never fenced: every answer is kept, encrypted, whether or not it changes anything."""
    if not evidence:
        return
    ids = [new_ulid() for _ in evidence]
    await execute(
        tx,
        _STORE,
        [e.book_id for e in evidence],
        ids,
        [e.attempt_id for e in evidence],
        [e.beat for e in evidence],
        [outcome_word(e.answer.outcome) for e in evidence],
        [e.answer.http_status for e in evidence],
        [
            keyring.seal(e.answer.raw, b"supplier_answers:" + i.bytes) if e.answer.raw else None
            for e, i in zip(evidence, ids, strict=True)
        ],
    )


@dataclass(frozen=True, slots=True)
class Arrival:
    """A callback as it arrived. `headers` with lower-case names; `attempt` when it verified and names a reference of ours."""

    channel_id: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    verified: bool
    attempt: tuple[int, UUID] | None


_STORE_CALLBACKS = """
INSERT INTO supplier_callbacks (callback_id, channel_id, body_hash, raw_sealed, verified, book_id, attempt_id)
SELECT * FROM unnest($1::uuid[], $2::text[], $3::bytea[], $4::bytea[], $5::bool[], $6::bigint[], $7::uuid[])
"""


async def store_callbacks(tx: Tx, keyring: Keyring, arrivals: Sequence[Arrival]) -> list[UUID]:
    """Keep what suppliers called us with, believed or not. Returns an id each, in order."""
    ids = [new_ulid() for _ in arrivals]
    plain = [orjson.dumps(dict(a.headers)) + b"\n" + a.body for a in arrivals]
    await execute(
        tx,
        _STORE_CALLBACKS,
        ids,
        [a.channel_id for a in arrivals],
        [hashlib.sha256(a.body).digest() for a in arrivals],
        [keyring.seal(p, callback_binding(i)) for p, i in zip(plain, ids, strict=True)],
        [a.verified for a in arrivals],
        [a.attempt[0] if a.attempt else None for a in arrivals],
        [a.attempt[1] if a.attempt else None for a in arrivals],
    )
    return ids
