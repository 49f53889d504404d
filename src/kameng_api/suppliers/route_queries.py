"""Choices of channels as they were written down, read: of one order, of one set of inputs, and of a period."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Final
from uuid import UUID

from kameng_api.kit.db import Tx, fetch
from kameng_api.suppliers.answers import heard_of_row
from kameng_api.suppliers.routing.backtest import Ended, Step, Tried
from kameng_api.suppliers.routing.facts import Answered, Event, Heard, Sent

_LONGEST_ORDER: Final = timedelta(days=8)
"""Choices are made until an order's deadline; whoever has no end yet is looked for up to now."""
_CHUNK: Final = 2000


@dataclass(frozen=True, slots=True)
class Decided:
    """One choice for one order, the inputs it was made from (None once their day has been dropped), and the attempt it led to."""

    n: int
    decided_at: datetime
    action: str
    channel_id: str | None
    reason: str
    inputs_id: UUID
    row: bytes | None = field(repr=False)
    attempt_id: UUID | None
    attempt_n: int | None


_OF_ORDER = """
SELECT d.n, d.decided_at, d.action, d.channel_id, d.reason, d.inputs_id, i.body AS row, a.attempt_id, a.n AS attempt_n
FROM route_decisions d
LEFT JOIN route_inputs i ON i.inputs_id = d.inputs_id AND i.day = d.day
LEFT JOIN attempts a ON a.book_id = d.book_id AND a.order_id = d.order_id AND a.sent_at = d.decided_at AND a.channel_id = d.channel_id
WHERE d.book_id = $1 AND d.order_id = $2 AND d.day BETWEEN $3 AND $4
ORDER BY d.n, d.decided_at
"""


async def list_of_order(tx: Tx, book_id: int, order_id: UUID, created_at: datetime, ended_at: datetime | None) -> list[Decided]:
    """Every choice made for an order, in the order in which they were made. The times say which days to look at."""
    first = created_at.astimezone(UTC).date()
    last = (ended_at or created_at + _LONGEST_ORDER).astimezone(UTC).date() + timedelta(days=1)
    return [Decided(**r) for r in await fetch(tx, _OF_ORDER, book_id, order_id, first, last)]


async def find_inputs(tx: Tx, inputs_id: UUID) -> bytes | None:
    """What one set of inputs holds; an id says its day, and clocks may be a little apart."""
    made = datetime.fromtimestamp((inputs_id.int >> 80) / 1000, UTC).date()
    rows = await fetch(
        tx,
        "SELECT body FROM route_inputs WHERE inputs_id = $1 AND day BETWEEN $2 AND $3",
        inputs_id, made - timedelta(days=1), made + timedelta(days=1),
    )  # fmt: skip
    return rows[0]["body"] if rows else None


# ---- a period --------------------------------------------------------------------------------------------------------

_BEGUN = """
SELECT DISTINCT d.book_id, d.order_id FROM route_decisions d JOIN books b ON b.book_id = d.book_id AND b.environment = $3
WHERE d.order_id >= $1 AND d.order_id < $2 AND d.day BETWEEN $4 AND $5 AND (d.book_id, d.order_id) > ($6, $7)
  AND mod(abs(hashtextextended(d.order_id::text, 0)), 1000000) < $8
ORDER BY 1, 2 LIMIT $9
"""

_ENDED = """
SELECT o.book_id, o.order_id, o.currency, o.quantity, o.delivered_units, o.unit_price, o.created_at, o.completed_at
FROM unnest($1::bigint[], $2::uuid[]) AS k (book_id, order_id)
JOIN orders o ON o.book_id = k.book_id AND o.order_id = k.order_id
WHERE o.status NOT IN ('accepted', 'processing', 'cancelled') AND o.completed_at IS NOT NULL
  AND NOT (o.environment = 'test' AND coalesce(o.target_masked, '') = ANY ($3::text[]))
"""

_TRIED = """
SELECT a.book_id, a.order_id, a.sent_at, a.state, a.units, a.delivered_units, a.cost, a.actual_cost
FROM unnest($1::bigint[], $2::uuid[]) AS k (book_id, order_id)
JOIN attempts a ON a.book_id = k.book_id AND a.order_id = k.order_id
ORDER BY a.book_id, a.order_id, a.n
"""

_STEPS = """
SELECT d.book_id, d.order_id, d.inputs_id, d.decided_at
FROM unnest($1::bigint[], $2::uuid[]) AS k (book_id, order_id)
JOIN route_decisions d ON d.book_id = k.book_id AND d.order_id = k.order_id AND d.day BETWEEN $3 AND $4
ORDER BY d.book_id, d.order_id, d.n
"""


@dataclass(slots=True)
class Period:
    """The recorded choices of a period. `unfinished`: orders that are still open, were cancelled, or are test orders with magic targets."""

    ended: list[Ended] = field(default_factory=list)
    inputs: list[tuple[UUID, bytes]] = field(default_factory=list)
    unfinished: int = 0
    cut: bool = False
    """There were more orders than were asked for."""


async def load_period(
    tx: Tx, begin: datetime, end: datetime, environment: str, no_evidence: Iterable[str], *, share: float = 1.0, most: int = 100_000
) -> Period:
    """Orders accepted in [begin, end) whose choices were written down, with their inputs in the order of time.

    `share`: of the orders, picked by their ids. At most `most` orders. `no_evidence`: masked targets of test orders that say nothing.
    """
    found = Period()
    days = begin.astimezone(UTC).date(), (end + _LONGEST_ORDER).astimezone(UTC).date()
    wanted: set[UUID] = set()
    masked = list(no_evidence)
    last: tuple[int, UUID] = (0, UUID(int=0))
    seen = 0
    while not found.cut:
        size = min(_CHUNK, most + 1 - seen)
        rows = await fetch(tx, _BEGUN, _first_id(begin), _first_id(end), environment, *days, *last, round(share * 1_000_000), size)
        keys = [(r["book_id"], r["order_id"]) for r in rows][: most - seen]
        found.cut = len(rows) > len(keys)
        if keys:
            ended = await _load_ended(tx, keys, days, masked)
            found.ended += ended
            found.unfinished += len(keys) - len(ended)
            wanted |= {step.inputs_id for order in ended for step in order.steps}
            last = keys[-1]
        seen += len(keys)
        if len(rows) < size:
            break
    found.inputs = await _load_inputs(tx, wanted, days)
    return found


def _first_id(at: datetime) -> UUID:
    """The least ULID of that instant."""
    return UUID(int=int(at.timestamp() * 1000) << 80)


async def _load_ended(tx: Tx, keys: Sequence[tuple[int, UUID]], days: tuple[date, date], masked: list[str]) -> list[Ended]:
    books, ids = [k[0] for k in keys], [k[1] for k in keys]
    orders = {(r["book_id"], r["order_id"]): r for r in await fetch(tx, _ENDED, books, ids, masked)}
    tried: dict[tuple[int, UUID], list[Tried]] = {key: [] for key in orders}
    steps: dict[tuple[int, UUID], list[Step]] = {key: [] for key in orders}
    for r in await fetch(tx, _TRIED, books, ids):
        order = orders.get((r["book_id"], r["order_id"]))
        if order is not None:
            revenue = order["unit_price"] * r["delivered_units"]
            spent = r["actual_cost"] if r["actual_cost"] is not None else r["cost"] * r["delivered_units"] // r["units"]
            cost = spent if r["delivered_units"] else 0
            tried[r["book_id"], r["order_id"]].append(Tried(r["sent_at"].timestamp(), r["state"] in ("refused", "not_sent"), revenue, cost))
    for r in await fetch(tx, _STEPS, books, ids, *days):
        if (r["book_id"], r["order_id"]) in orders:
            steps[r["book_id"], r["order_id"]].append(Step(r["inputs_id"], r["decided_at"].timestamp()))
    return [
        Ended(
            o["created_at"].timestamp(), o["completed_at"].timestamp(), o["currency"], 1.0 - o["delivered_units"] / o["quantity"],
            tuple(tried[key]), tuple(steps[key]),
        )
        for key, o in orders.items()
    ]  # fmt: skip


async def _load_inputs(tx: Tx, wanted: set[UUID], days: tuple[date, date]) -> list[tuple[UUID, bytes]]:
    """In the order of their ids, which is that of time."""
    ordered, found = sorted(wanted, key=lambda one: one.int), []
    for start in range(0, len(ordered), _CHUNK):
        rows = await fetch(
            tx,
            "SELECT inputs_id, body FROM route_inputs WHERE inputs_id = ANY ($1::uuid[]) AND day BETWEEN $2 AND $3",
            ordered[start : start + _CHUNK], *days,
        )  # fmt: skip
        bodies = {r["inputs_id"]: r["body"] for r in rows}
        found += [(each, bodies[each]) for each in ordered[start : start + _CHUNK] if each in bodies]
    return found


_EVENTS = """
SELECT a.reference, a.channel_id, o.sku, a.sent_at, a.probe, a.state, a.refusal, a.settled_at, a.unknown_since, a.reversed_amount, s.outcome AS said
FROM attempts a
JOIN orders o ON o.book_id = a.book_id AND o.order_id = a.order_id AND o.environment = $3
  AND NOT (o.environment = 'test' AND coalesce(o.target_masked, '') = ANY ($4::text[]))
LEFT JOIN LATERAL (
  SELECT s.outcome FROM supplier_answers s WHERE s.book_id = a.book_id AND s.attempt_id = a.attempt_id
  ORDER BY s.received_at DESC LIMIT 1
) s ON a.state IN ('unknown', 'not_sent', 'refused')
WHERE a.sent_at >= $1 AND a.sent_at < $2
"""


async def load_events(tx: Tx, begin: datetime, end: datetime, environment: str, no_evidence: Iterable[str]) -> list[Event]:
    """Every attempt sent in [begin, end) as the router was told of it, in the order in which it was told."""
    events: list[Event] = []
    for r in await fetch(tx, _EVENTS, begin, end, environment, list(no_evidence)):
        sent_at, attempt, channel, sku = r["sent_at"].timestamp(), r["reference"], r["channel_id"], r["sku"]
        events.append(Sent(attempt, channel, sku, sent_at, r["probe"]))
        if r["unknown_since"] is not None and r["state"] != "unknown":
            events.append(Answered(attempt, channel, sku, r["unknown_since"].timestamp(), sent_at, Heard.DOUBT))
        what = heard_of_row(r["state"], r["refusal"], r["said"], taken_back=r["reversed_amount"] > 0)
        if what is not None:
            at = r["settled_at"] or r["unknown_since"] or r["sent_at"]
            events.append(Answered(attempt, channel, sku, at.timestamp(), sent_at, what))
    return sorted(events, key=lambda event: event.at)
