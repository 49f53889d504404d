"""The channels' health as the database knows it: attempts told as events, the last snapshot, probe leases, gates, and what wallets owe."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

import asyncpg
import orjson

from kameng_api.kit.db import Tx, execute, fetch
from kameng_api.kit.ids import new_ulid, parse_book_reference
from kameng_api.suppliers.answers import GATES, Closing, heard_of_row
from kameng_api.suppliers.port import RefusalReason
from kameng_api.suppliers.routing.facts import Answered, Change, Event, Heard, Sent

EACH: Final = 256
"""Attempts per channel that are worth folding."""

# `said`: the word of the last stored answer, looked up only where the state alone does not tell what was heard. Test orders with magic
# targets say nothing about a supplier.
_TOLD = """
SELECT a.reference, a.channel_id, o.sku, a.sent_at, a.probe, a.state, a.refusal, a.settled_at, a.unknown_since, a.reversed_amount, s.outcome AS said
FROM {attempts}
JOIN orders o ON o.book_id = a.book_id AND o.order_id = a.order_id AND NOT (o.environment = 'test' AND o.target_masked = ANY ($1::text[]))
LEFT JOIN LATERAL (
  SELECT s.outcome FROM supplier_answers s WHERE s.book_id = a.book_id AND s.attempt_id = a.attempt_id
  ORDER BY s.received_at DESC LIMIT 1
) s ON a.state IN ('unknown', 'not_sent', 'refused')
ORDER BY a.sent_at
"""
_RECENT = _TOLD.format(
    attempts="""unnest($2::text[]) AS c (channel_id)
CROSS JOIN LATERAL (
  SELECT * FROM attempts t WHERE t.channel_id = c.channel_id ORDER BY t.sent_at DESC LIMIT $3
) a"""
)
_THESE = _TOLD.format(
    attempts="""unnest($2::bigint[], $3::uuid[]) AS k (book_id, attempt_id)
JOIN attempts a ON a.book_id = k.book_id AND a.attempt_id = k.attempt_id"""
)


async def list_recent(tx: Tx, channel_ids: Sequence[str], no_evidence: Iterable[str], each: int = EACH) -> list[Event]:
    """The last attempts of each channel as the router would have been told of them, in dispatch order.

    `no_evidence`: masked targets of test orders that say nothing.
    """
    return _events_of(await fetch(tx, _RECENT, list(no_evidence), sorted(channel_ids), each))


async def list_these(tx: Tx, references: Iterable[str], no_evidence: Iterable[str]) -> list[Event]:
    """The same of the attempts with these references."""
    keys = [key for reference in references if (key := parse_book_reference(reference)) is not None]
    return _events_of(await fetch(tx, _THESE, list(no_evidence), [book for book, _ in keys], [attempt for _, attempt in keys]))


def _events_of(rows: Iterable[asyncpg.Record]) -> list[Event]:
    events: list[Event] = []
    for r in rows:
        sent_at = r["sent_at"].timestamp()
        attempt, channel, sku = r["reference"], r["channel_id"], r["sku"]
        events.append(Sent(attempt, channel, sku, sent_at, r["probe"]))
        if r["unknown_since"] is not None and r["state"] != "unknown":
            events.append(Answered(attempt, channel, sku, r["unknown_since"].timestamp(), sent_at, Heard.DOUBT))
        what = heard_of_row(r["state"], r["refusal"], r["said"], taken_back=r["reversed_amount"] > 0)
        if what is not None:
            at = r["settled_at"] or r["unknown_since"] or r["sent_at"]
            events.append(Answered(attempt, channel, sku, at.timestamp(), sent_at, what))
    return events


# ---- the snapshot: what the last attempts alone cannot tell ---------------------------------------------------------

_SAVE = """
INSERT INTO route_snapshots AS r (scope, taken_at, stream_id, body) VALUES ('health', now(), $1, $2)
ON CONFLICT (scope) DO UPDATE SET taken_at = excluded.taken_at, stream_id = excluded.stream_id, body = excluded.body
WHERE r.taken_at < now() - make_interval(secs => $3)
"""


async def save_snapshot(tx: Tx, stream_id: str, body: bytes, not_within_s: float) -> bool:
    """Keep the folded state; False when somebody has kept his within the last seconds."""
    return bool(await execute(tx, _SAVE, stream_id, body, not_within_s))


async def find_snapshot(tx: Tx) -> tuple[datetime, str, bytes] | None:
    """(when, last stream entry folded, state)."""
    rows = await fetch(tx, "SELECT taken_at, stream_id, body FROM route_snapshots WHERE scope = 'health'")
    return (rows[0]["taken_at"], rows[0]["stream_id"], rows[0]["body"]) if rows else None


# ---- probe leases ---------------------------------------------------------------------------------------------------

_LEASE = """
INSERT INTO route_probes AS p (channel_id, sku, until) VALUES ($1, $2, now() + make_interval(secs => $3))
ON CONFLICT (channel_id, sku) DO UPDATE SET until = excluded.until WHERE p.until <= now()
"""


async def lease_probe(tx: Tx, channel_id: str, sku: str | None, seconds: float) -> bool:
    """Take the right to probe a circuit (`sku` None: the channel's) for so long; False when somebody has it."""
    return bool(await execute(tx, _LEASE, channel_id, sku or "", float(seconds)))


# ---- circuits that opened and closed --------------------------------------------------------------------------------

_LAST = """
SELECT k.channel_id, k.sku, t.state, t.at FROM unnest($1::text[], $2::text[]) AS k (channel_id, sku)
CROSS JOIN LATERAL (
  SELECT t.state, t.at FROM channel_transitions t WHERE t.channel_id = k.channel_id AND t.sku IS NOT DISTINCT FROM k.sku ORDER BY t.at DESC LIMIT 1
) t
"""

_RECORD = """
INSERT INTO channel_transitions (transition_id, channel_id, sku, state, at, reason, facts)
SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::timestamptz[], $6::text[], $7::jsonb[])
"""


@dataclass(frozen=True, slots=True)
class Transition:
    """A circuit's change with the database's time of it."""

    change: Change
    at: datetime

    @property
    def reason(self) -> str:
        c = self.change
        return f"{c.nats:.1f} nats: {c.failures} failures, {c.silent} late answers" if c.circuit == "open" else "probes were answered"


async def record_transitions(tx: Tx, transitions: Sequence[Transition]) -> list[Transition]:
    """Write down those that nobody has told yet: every process sees the same circuits change."""
    await fetch(tx, "SELECT pg_advisory_xact_lock(hashtextextended('kameng:channel_transitions', 0))")
    circuits = sorted({(t.change.channel, t.change.sku) for t in transitions}, key=str)
    rows = await fetch(tx, _LAST, [channel for channel, _ in circuits], [sku for _, sku in circuits])
    last = {(r["channel_id"], r["sku"]): (r["state"], r["at"]) for r in rows}
    new: list[Transition] = []
    for t in transitions:  # who is late with an opening that has been told, and closed since, tells nothing
        state, at = last.get((t.change.channel, t.change.sku), ("closed", None))
        if t.change.circuit.value != state and (at is None or t.at > at):
            new.append(t)
            last[t.change.channel, t.change.sku] = t.change.circuit.value, t.at
    if new:
        facts = [orjson.dumps({"nats": t.change.nats, "failures": t.change.failures, "silent": t.change.silent}).decode() for t in new]
        await execute(
            tx, _RECORD, [new_ulid() for _ in new], [t.change.channel for t in new], [t.change.sku for t in new],
            [t.change.circuit.value for t in new], [t.at for t in new], [t.reason for t in new], facts,
        )  # fmt: skip
    return new


_TOGETHER = """
SELECT channel_id, at FROM (
  SELECT DISTINCT ON (channel_id) channel_id, state, at FROM channel_transitions WHERE sku IS NULL ORDER BY channel_id, at DESC
) AS last WHERE state = 'open' ORDER BY at
"""


async def list_open_channels(tx: Tx) -> list[tuple[str, datetime]]:
    """Channels whose own circuit is open, with the time since when; the longest first."""
    return [(r["channel_id"], r["at"]) for r in await fetch(tx, _TOGETHER)]


_TRANSITIONS = """
SELECT transition_id, channel_id, sku, state, at, reason FROM channel_transitions
WHERE ($1::text IS NULL OR channel_id = $1) AND ($2::text IS NULL OR sku = $2) AND ($3::timestamptz IS NULL OR (at, transition_id) < ($3, $4::uuid))
ORDER BY at DESC, transition_id DESC LIMIT $5
"""


async def list_transitions(
    tx: Tx, *, channel_id: str | None, sku: str | None, before: tuple[datetime, UUID] | None, limit: int
) -> list[asyncpg.Record]:
    """When circuits opened and closed, the latest first."""
    at, last = before if before is not None else (None, None)
    return await fetch(tx, _TRANSITIONS, channel_id, sku, at, last, limit)


# ---- gates and wallets ----------------------------------------------------------------------------------------------

_CLOSINGS = """
SELECT a.channel_id, coalesce(a.sku, o.sku) AS sku, a.refusal, max(a.settled_at) AS at, min(a.units) AS units
FROM unnest($1::text[], $2::float8[]) AS k (refusal, for_s)
JOIN attempts a ON a.refusal = k.refusal AND a.settled_at > now() - make_interval(secs => k.for_s)
JOIN orders o ON o.book_id = a.book_id AND o.order_id = a.order_id
WHERE a.refusal IN ('out_of_stock', 'product_off', 'price_exceeded', 'wallet_empty')
  AND NOT (o.environment = 'test' AND coalesce(o.target_masked, '') = ANY ($3::text[]))
GROUP BY 1, 2, 3
"""


async def list_closings(tx: Tx, no_evidence: Iterable[str]) -> list[Closing]:
    """The last refusal of each kind that is about stock, wallet, price or product, by channel and SKU."""
    reasons, seconds = [reason.value for reason in GATES], [rule.for_s for rule in GATES.values()]
    rows = await fetch(tx, _CLOSINGS, reasons, seconds, list(no_evidence))
    return [Closing(r["channel_id"], r["sku"], RefusalReason(r["refusal"]), r["at"], r["units"]) for r in rows]


_SPENT = """
SELECT k.channel_id, coalesce(sum(a.cost) FILTER (WHERE a.state NOT IN ('refused', 'not_sent')), 0)::bigint AS spent, now() AS upto
FROM unnest($1::text[], $2::timestamptz[]) AS k (channel_id, since)
LEFT JOIN attempts a ON a.channel_id = k.channel_id AND a.sent_at >= k.since
GROUP BY 1
"""


async def count_spent(tx: Tx, since: Mapping[str, datetime]) -> tuple[dict[str, int], datetime | None]:
    """channel → cost of the attempts sent since then that may be charged, and the time up to which this counts."""
    channels = sorted(since)
    rows = await fetch(tx, _SPENT, channels, [since[c] for c in channels])
    return {r["channel_id"]: r["spent"] for r in rows}, rows[0]["upto"] if rows else None
