"""What is known of deliveries when their events are sealed: the supplier's last answer, its number, commitments to codes and target."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from kameng_api.evidence.queries import has_facts
from kameng_api.evidence.rules import canonical, commitment, microseconds, shown_salt
from kameng_api.kit.crypto import Keyring
from kameng_api.kit.db import Tx, fetch
from kameng_api.kit.ids import parse_ulid
from kameng_api.kit.turns import by_turns
from kameng_api.orders import codes
from kameng_api.orders.actions import target_binding

_SALT_BYTES = 32
_AT_ONCE = 50

_ATTEMPTS = """
SELECT k.attempt_id IS NULL AS of_order, a.book_id, a.attempt_id, a.order_id, a.channel_id, a.reference, a.state, a.units,
  a.delivered_units, a.cost, a.actual_cost,
  a.supplier_order_no, a.refusal, a.settled_at, s.answer_id, s.beat, s.outcome, s.http_status, s.received_at,
  sha256(s.raw_sealed) AS raw_hash
FROM unnest($1::bigint[], $2::uuid[], $3::uuid[], $4::timestamptz[]) AS k (book_id, order_id, attempt_id, at)
JOIN attempts a ON a.book_id = k.book_id AND a.order_id = k.order_id
  AND (a.attempt_id = k.attempt_id OR (k.attempt_id IS NULL AND a.delivered_units > 0))
LEFT JOIN LATERAL (SELECT * FROM supplier_answers x WHERE x.book_id = a.book_id AND x.attempt_id = a.attempt_id AND x.received_at <= k.at
  ORDER BY x.received_at DESC, x.answer_id DESC LIMIT 1) AS s ON true
WHERE a.settled_at IS NOT NULL
ORDER BY a.book_id, a.order_id, a.n
"""

_ORDERS = """
SELECT o.book_id, o.order_id, o.merchant_order_no, o.sku, o.quantity, o.unit_price, o.delivered_units, o.status, o.failure_code, o.receipt,
  o.target_sealed, o.created_at, o.completed_at
FROM unnest($1::bigint[], $2::uuid[]) AS k (book_id, order_id) JOIN orders o ON o.book_id = k.book_id AND o.order_id = k.order_id
"""

_CODES = """
SELECT c.book_id, c.order_id, c.unit_no, c.sealed, c.created_at
FROM unnest($1::bigint[], $2::uuid[], $3::timestamptz[]) AS k (book_id, order_id, at)
JOIN codes c ON c.book_id = k.book_id AND c.order_id = k.order_id AND c.created_at = k.at ORDER BY 1, 2, 3
"""


@dataclass(frozen=True, slots=True)
class Sealed:
    """The facts of one event: as values, as canonical bytes, and the salt of their commitments."""

    book_id: int
    event_key: str
    order_id: UUID
    facts: Mapping[str, Any]
    spelt: bytes
    salt: bytes = field(repr=False)


async def facts_of(
    tx: Tx, keyring: Keyring, events: Sequence[Sequence[Any]], salts: Mapping[tuple[int, str], bytes] | None = None
) -> dict[tuple[int, str], Sealed]:
    """(book, event key) → the facts of the events that have some. `salts`: those that were used before, to make the same facts again."""
    wanted = [e[0] for e in events if e[0]["order_id"] is not None and has_facts(e[0]["event_key"])]
    if not wanted:
        return {}
    attempts = await _attempts(tx, wanted)
    finals = [w for w in wanted if w["event_key"].startswith("order:")]
    orders = {
        (r["book_id"], r["order_id"]): r
        for r in await fetch(tx, _ORDERS, [w["book_id"] for w in finals], [w["order_id"] for w in finals])
    }
    # The same delivery is told at the end of its attempt and of its order.
    answered = (a for found in attempts.values() for a in found if a["received_at"] is not None and a["delivered_units"])
    delivered = sorted({(a["book_id"], a["order_id"], a["received_at"]) for a in answered})
    coded: dict[tuple[int, UUID, Any], list[Any]] = {}
    for c in await fetch(tx, _CODES, *(list(column) for column in zip(*delivered, strict=True))) if delivered else ():
        coded.setdefault((c["book_id"], c["order_id"], c["created_at"]), []).append(c)
    if salts is None:
        salts = _new_salts([(w["book_id"], w["event_key"]) for w in wanted])
    made = {}
    async for part in by_turns(wanted, _AT_ONCE):
        for w in part:
            key = w["book_id"], w["event_key"]
            salt = salts[key]
            found = [(r, coded.get((r["book_id"], r["order_id"], r["received_at"]), ())) for r in attempts[key]]
            if w["event_key"].startswith("order:"):
                order = _order(keyring, orders[w["book_id"], w["order_id"]], salt)
                facts: dict[str, Any] = {"order": order, "deliveries": [_delivery(keyring, r, codes_, salt) for r, codes_ in found]}
            else:
                facts = {"attempts": [_attempt(keyring, r, codes_, salt) for r, codes_ in found]}
            made[key] = Sealed(w["book_id"], w["event_key"], w["order_id"], facts, canonical(facts), salt)
    return made


def _new_salts(keys: Sequence[tuple[int, str]]) -> dict[tuple[int, str], bytes]:
    """Asked for together: a word with the system costs more than what it says."""
    random = os.urandom(_SALT_BYTES * len(keys))
    return {key: random[i * _SALT_BYTES : (i + 1) * _SALT_BYTES] for i, key in enumerate(keys)}


async def _attempts(tx: Tx, wanted: Sequence[Any]) -> dict[tuple[int, str], list[Any]]:
    """The attempt that an event ends, and with the end of an order all that delivered; also those that cost nothing and have no own event."""
    ids = [parse_ulid(w["event_key"].split(":")[1]) if w["event_key"].startswith("attempt:") else None for w in wanted]
    rows = await fetch(
        tx, _ATTEMPTS, [w["book_id"] for w in wanted], [w["order_id"] for w in wanted], ids, [w["created_at"] for w in wanted]
    )
    found: dict[tuple[int, UUID], list[Any]] = {}
    for r in rows:
        found.setdefault((r["book_id"], r["order_id"] if r["of_order"] else r["attempt_id"]), []).append(r)
    return {
        (w["book_id"], w["event_key"]): found.get((w["book_id"], w["order_id"] if attempt_id is None else attempt_id), [])
        for w, attempt_id in zip(wanted, ids, strict=True)
    }


def _order(keyring: Keyring, o: Any, salt: bytes) -> dict[str, Any]:
    target, shown = o["target_sealed"], shown_salt(salt)
    opened = keyring.open(target, target_binding(o["book_id"], o["order_id"])) if target is not None else None
    return {
        "merchant_order_no": o["merchant_order_no"],
        "sku": o["sku"],
        "quantity": o["quantity"],
        "unit_price": o["unit_price"],
        "delivered": o["delivered_units"],
        "status": o["status"],
        "failure": o["failure_code"],
        "receipt": commitment(shown, "receipt", o["receipt"].encode()) if o["receipt"] is not None else None,
        "target": commitment(shown, "target", opened) if opened is not None else None,
        "accepted_at": microseconds(o["created_at"]),
        "completed_at": microseconds(o["completed_at"]),
    }


def _attempt(keyring: Keyring, a: Any, delivered: Sequence[Any], salt: bytes) -> dict[str, Any]:
    """For the house: who was asked, what it cost, what it said."""
    return {
        "attempt": a["attempt_id"].hex,
        "channel": a["channel_id"],
        "reference": a["reference"],
        "state": a["state"],
        "units": a["units"],
        "delivered": a["delivered_units"],
        "cost": a["cost"],
        "actual_cost": a["actual_cost"],
        "supplier_order_no": a["supplier_order_no"],
        "refusal": a["refusal"],
        "answer": _answer(a),
        "codes": _commitments(keyring, delivered, salt),
    }


def _delivery(keyring: Keyring, a: Any, delivered: Sequence[Any], salt: bytes) -> dict[str, Any]:
    """For the merchant, who is told neither the supplier nor its price; the supplier's number is committed to, and can be opened in a dispute.

    It is short and can be guessed: its salt is not the one that the merchant's receipt shows.
    """
    number = a["supplier_order_no"]
    return {
        "delivered": a["delivered_units"],
        "supplier_order_no": commitment(salt, "supplier_order_no", number.encode()) if number is not None else None,
        "answer": _answer(a),
        "codes": _commitments(keyring, delivered, salt),
    }


def _answer(a: Any) -> dict[str, Any] | None:
    if a["answer_id"] is None:
        return None
    return {
        "id": a["answer_id"].hex,
        "beat": a["beat"],
        "outcome": a["outcome"],
        "http": a["http_status"],
        "at": microseconds(a["received_at"]),
        "stored_sha256": a["raw_hash"].hex() if a["raw_hash"] is not None else None,
    }


def _commitments(keyring: Keyring, delivered: Sequence[Any], salt: bytes) -> list[list[Any]]:
    shown = shown_salt(salt) if delivered else b""
    return [[c["unit_no"], commitment(shown, f"code:{c['unit_no']}", _code(keyring, c))] for c in delivered]


def _code(keyring: Keyring, c: Any) -> bytes:
    """The code as the merchant's envelope shows it: the JSON object of one code."""
    return codes.opened(keyring, c["book_id"], c["order_id"], [(c["unit_no"], c["sealed"])])[1:-1]
