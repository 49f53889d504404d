"""Write attempts and what suppliers answered. The order's row lock is held by the caller wherever an attempt changes."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

import orjson

from kameng_api.kit import sets
from kameng_api.kit.crypto import Keyring
from kameng_api.kit.db import Tx
from kameng_api.kit.ids import new_ulid
from kameng_api.kit.sets import Column, Part, columns_of
from kameng_api.suppliers.port import Answer
from kameng_api.suppliers.queries import callback_binding
from kameng_api.suppliers.rules import Attempt, outcome_word

_OPENED: Final = (
    ("attempt_id", "uuid"),
    ("book_id", "bigint"),
    ("order_id", "uuid"),
    ("n", "smallint"),
    ("channel_id", "text"),
    ("product_code", "text"),
    ("units", "int"),
    ("state", "text"),
    ("currency", "text"),
    ("cost", "bigint"),
    ("reference", "text"),
    ("reason", "text"),
    ("sent_at", "timestamptz"),
    ("sku", "text"),
    ("price", "bigint"),
    ("loss_allowed", "bool"),
    ("probe", "bool"),
)


def parts_of_opened(attempts: Sequence[Attempt]) -> list[Part]:
    """Write attempts with our reference before anything is sent. One live attempt per order is the database's own rule."""
    return [sets.inserting("attempts", columns_of(attempts, _OPENED))] if attempts else []


@dataclass(frozen=True, slots=True)
class RouteInputs:
    """What one choice saw, as `routing.record.remember` wrote it."""

    inputs_id: UUID
    at: datetime
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class RouteDecision:
    """One choice for one order. `n` orders the choices of an order: milliseconds since it was accepted."""

    book_id: int
    order_id: UUID
    n: int
    decided_at: datetime
    action: str
    channel_id: str | None
    reason: str
    inputs_id: UUID
    seed: int


_DECIDED: Final = (
    ("order_id", "uuid"),
    ("book_id", "bigint"),
    ("n", "int"),
    ("decided_at", "timestamptz"),
    ("action", "text"),
    ("channel_id", "text"),
    ("reason", "text"),
    ("inputs_id", "uuid"),
    ("seed", "bigint"),
)


def parts_of_choices(inputs: Sequence[RouteInputs], decisions: Sequence[RouteDecision]) -> list[Part]:
    """Every choice, so that it can be told and made again. All of one transaction, and so of one day."""
    if not decisions:
        return []
    day = decisions[0].decided_at.astimezone(UTC).date()
    days = Column("day", "date", [day] * len(decisions))
    asks = Column("ask", "bytea", [b""] * len(decisions))
    decided = sets.inserting("route_decisions", [*columns_of(decisions, _DECIDED), days, asks])
    return [
        # Two of one moment: the database's clock was set back. What is only written down must not stop an order.
        replace(decided, sql=f"{decided.sql} ON CONFLICT DO NOTHING"),
        sets.inserting(
            "route_inputs",
            [
                Column("inputs_id", "uuid", [i.inputs_id for i in inputs]),
                Column("day", "date", [day] * len(inputs)),
                Column("body", "bytea", [i.body for i in inputs]),
            ],
        ),
    ]


_SAVED_KEY: Final = (("book_id", "bigint"), ("attempt_id", "uuid"))
_SAVED: Final = (
    ("state", "text"),
    ("delivered_units", "int"),
    ("actual_cost", "bigint"),
    ("supplier_order_no", "text"),
    ("refusal", "text"),
    ("trouble", "text"),
    ("look_ups", "int"),
    ("not_found_first_at", "timestamptz"),
    ("reversed_amount", "bigint"),
    ("unknown_since", "timestamptz"),
    ("settled_at", "timestamptz"),
)


def parts_of_saved(attempts: Sequence[Attempt], *, written_by: Sequence[int] | None = None) -> list[Part]:
    """Write what changed under the order's lock, or, with `written_by`, of copies that must still be current (`sets.updating`)."""
    if not attempts:
        return []
    return [sets.updating("attempts", columns_of(attempts, _SAVED_KEY), columns_of(attempts, _SAVED), written_by=written_by)]


@dataclass(frozen=True, slots=True)
class Evidence:
    """A raw answer to be kept: which attempt, at which beat (place, look_up, callback, operator)."""

    book_id: int
    attempt_id: UUID
    beat: str
    answer: Answer


def parts_of_answers(keyring: Keyring, evidence: Sequence[Evidence]) -> list[Part]:
    """Facts are never fenced: every answer is kept, encrypted, whether or not it changes anything."""
    if not evidence:
        return []
    ids = [new_ulid() for _ in evidence]
    part = sets.inserting(
        "supplier_answers",
        [
            Column("answer_id", "uuid", ids),
            Column("book_id", "bigint", [e.book_id for e in evidence]),
            Column("attempt_id", "uuid", [e.attempt_id for e in evidence]),
            Column("beat", "text", [e.beat for e in evidence]),
            Column("outcome", "text", [outcome_word(e.answer.outcome) for e in evidence]),
            Column("http_status", "smallint", [e.answer.http_status for e in evidence]),
            Column("raw_sealed", "bytea", [_sealed(keyring, e, i) for e, i in zip(evidence, ids, strict=True)]),
        ],
    )
    return [part]


def _sealed(keyring: Keyring, evidence: Evidence, answer_id: UUID) -> bytes | None:
    raw = evidence.answer.raw
    return keyring.seal(raw, b"supplier_answers:" + answer_id.bytes) if raw else None


@dataclass(frozen=True, slots=True)
class Arrival:
    """A callback as it arrived. `headers` with lower-case names; `attempt` when it verified and names a reference of ours.

    `hinted`: codes of the supplier's list that it says have changed.
    """

    channel_id: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    verified: bool
    attempt: tuple[int, UUID] | None
    hinted: tuple[str, ...] = ()


async def store_callbacks(tx: Tx, keyring: Keyring, arrivals: Sequence[Arrival]) -> list[UUID]:
    """Keep what suppliers called us with, believed or not. Returns an id each, in order."""
    ids = [new_ulid() for _ in arrivals]
    plain = [orjson.dumps(dict(a.headers)) + b"\n" + a.body for a in arrivals]
    part = sets.inserting(
        "supplier_callbacks",
        [
            Column("callback_id", "uuid", ids),
            Column("channel_id", "text", [a.channel_id for a in arrivals]),
            Column("body_hash", "bytea", [hashlib.sha256(a.body).digest() for a in arrivals]),
            Column("raw_sealed", "bytea", [keyring.seal(p, callback_binding(i)) for p, i in zip(plain, ids, strict=True)]),
            Column("verified", "bool", [a.verified for a in arrivals]),
            Column("book_id", "bigint", [a.attempt[0] if a.attempt else None for a in arrivals]),
            Column("attempt_id", "uuid", [a.attempt[1] if a.attempt else None for a in arrivals]),
        ],
    )
    await sets.write(tx, [part])
    return ids
