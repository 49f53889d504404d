"""Reading endpoints, deliveries, and the events merchants may poll."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import asyncpg

from kameng_api.kit.db import Tx, fetch
from kameng_api.kit.errors import NotFound
from kameng_api.webhooks.events import SAMPLE

Row = asyncpg.Record

# Below this transaction id everything is decided: what is committed can be seen, and nothing more can be committed.
HORIZON = "xid_horizon()"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A merchant's registered receiver. Secrets are sealed, see `actions.open_secrets`."""

    book_id: int
    endpoint_id: UUID
    url: str
    event_types: tuple[str, ...]
    secret_sealed: bytes
    old_secret_sealed: bytes | None
    old_secret_until: datetime | None
    status: str
    status_reason: str | None
    description: str
    failures: int
    first_failure_at: datetime | None
    last_success_at: datetime | None
    created_at: datetime


_ENDPOINT_COLUMNS = """w.book_id, w.endpoint_id, w.url, w.event_types,
  w.secret_sealed, w.old_secret_sealed, w.old_secret_until,
  w.status, w.status_reason, w.description, w.failures, w.first_failure_at, w.last_success_at, w.created_at"""

_ENDPOINTS = f"""
SELECT {_ENDPOINT_COLUMNS} FROM webhook_endpoints w WHERE w.book_id = $1 AND w.deleted_at IS NULL ORDER BY w.endpoint_id
"""

_ENDPOINT = f"""
SELECT {_ENDPOINT_COLUMNS} FROM webhook_endpoints w WHERE w.book_id = $1 AND w.endpoint_id = $2 AND w.deleted_at IS NULL
"""

_ENDPOINTS_OF = f"""
SELECT {_ENDPOINT_COLUMNS} FROM unnest($1::bigint[], $2::uuid[]) AS k (book_id, endpoint_id)
JOIN webhook_endpoints w ON w.book_id = k.book_id AND w.endpoint_id = k.endpoint_id AND w.deleted_at IS NULL
"""


async def list_endpoints(tx: Tx, book_id: int) -> list[Endpoint]:
    """All of a book, oldest first; there are never more than `rules.MAX_ENDPOINTS`."""
    return [_endpoint(r) for r in await fetch(tx, _ENDPOINTS, book_id)]


async def get_endpoint(tx: Tx, book_id: int, endpoint_id: UUID, *, lock: bool = False) -> Endpoint:
    """Raises NotFound. `lock` keeps the row until `tx` ends."""
    rows = await fetch(tx, _ENDPOINT + (" FOR NO KEY UPDATE" if lock else ""), book_id, endpoint_id)
    if not rows:
        raise NotFound("no such webhook endpoint")
    return _endpoint(rows[0])


async def find_endpoints(tx: Tx, keys: Sequence[tuple[int, UUID]]) -> dict[tuple[int, UUID], Endpoint]:
    """Those of `keys` (book, endpoint) that are not deleted."""
    if not keys:
        return {}
    rows = await fetch(tx, _ENDPOINTS_OF, [k[0] for k in keys], [k[1] for k in keys])
    return {(r["book_id"], r["endpoint_id"]): _endpoint(r) for r in rows}


def _endpoint(row: Row) -> Endpoint:
    values = dict(row.items())
    values["event_types"] = tuple(values["event_types"])
    return Endpoint(**values)


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event for one receiver, with the bytes to send; `body` is None when the event is no longer kept."""

    book_id: int
    delivery_id: UUID
    event_id: UUID
    endpoint_id: UUID | None
    notify_url: str | None
    state: str
    attempts: int
    body: bytes | None

    @property
    def key(self) -> tuple[int, UUID]:
        return self.book_id, self.delivery_id


_DELIVERIES = """
SELECT d.book_id, d.delivery_id, d.event_id, d.endpoint_id, d.notify_url, d.state, d.attempts, e.body
FROM unnest($1::bigint[], $2::uuid[]) AS k (book_id, delivery_id)
JOIN webhook_deliveries d ON d.book_id = k.book_id AND d.delivery_id = k.delivery_id
LEFT JOIN events e ON e.book_id = d.book_id AND e.event_id = d.event_id
"""


def delivery_from(row: Row) -> Delivery:
    """A row that names each attribute of a delivery."""
    return Delivery(
        row["book_id"], row["delivery_id"], row["event_id"], row["endpoint_id"], row["notify_url"], row["state"], row["attempts"], row["body"]
    )  # fmt: skip


async def find_deliveries(tx: Tx, keys: Sequence[tuple[int, UUID]]) -> dict[tuple[int, UUID], Delivery]:
    """By (book, delivery)."""
    rows = await fetch(tx, _DELIVERIES, [k[0] for k in keys], [k[1] for k in keys])
    return {(r["book_id"], r["delivery_id"]): Delivery(*r.values()) for r in rows}


@dataclass(frozen=True, slots=True)
class Attempt:
    at: datetime
    took_ms: int
    http_status: int | None
    trouble: str | None


@dataclass(frozen=True, slots=True)
class LoggedDelivery:
    """A delivery as the merchant's attempts log shows it; `log` oldest first. `notify_url` where an order named its own receiver.

    `sample` is True for what was sent on trial. Hash and length of the body are None once the event is no longer kept.
    """

    delivery_id: UUID
    event_id: UUID
    endpoint_id: UUID | None
    notify_url: str | None
    event_type: str | None
    sample: bool
    body_sha256: str | None
    body_bytes: int | None
    state: str
    attempts: int
    created_at: datetime
    delivered_at: datetime | None
    log: tuple[Attempt, ...]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which deliveries of a book; None does not matter. `events`: only those of these events; `receiver`: how the notify_url begins."""

    endpoint_id: UUID | None = None
    state: str | None = None
    event_type: str | None = None
    events: tuple[UUID, ...] | None = None
    receiver: str | None = None


_LOG = f"""
SELECT d.delivery_id, d.event_id, d.endpoint_id, d.notify_url,
  CASE e.type WHEN '{SAMPLE}' THEN convert_from(e.body, 'UTF8')::jsonb ->> 'type' ELSE e.type END AS event_type,
  coalesce(e.type = '{SAMPLE}', false) AS sample, encode(sha256(e.body), 'hex') AS body_sha256, octet_length(e.body) AS body_bytes,
  d.state, d.attempts, d.created_at, d.delivered_at
FROM webhook_deliveries d LEFT JOIN events e ON e.book_id = d.book_id AND e.event_id = d.event_id
WHERE d.book_id = $1 AND ($2::uuid IS NULL OR d.endpoint_id = $2)
  AND ($3::uuid IS NULL OR d.delivery_id < $3) AND ($4::text IS NULL OR d.state = $4) AND ($5::text IS NULL OR e.type = $5)
  AND ($7::text IS NULL OR starts_with(d.notify_url, $7)) {{events}}
ORDER BY d.delivery_id DESC LIMIT $6
"""

_ATTEMPTS = """
SELECT delivery_id, at, took_ms, http_status, trouble FROM webhook_attempts
WHERE book_id = $1 AND delivery_id = ANY ($2::uuid[]) ORDER BY delivery_id, attempt_id
"""


async def list_deliveries(tx: Tx, book_id: int, wanted: Wanted, *, before: UUID | None = None, limit: int) -> list[LoggedDelivery]:
    """Newest first, those below delivery `before`, each with its attempts."""
    values = [book_id, wanted.endpoint_id, before, wanted.state, wanted.event_type, limit, wanted.receiver]
    if wanted.events is None:
        rows = await fetch(tx, _LOG.format(events=""), *values)
    else:
        rows = await fetch(tx, _LOG.format(events="AND d.event_id = ANY ($8::uuid[])"), *values, list(wanted.events))
    attempts: dict[UUID, list[Attempt]] = {r["delivery_id"]: [] for r in rows}
    for r in await fetch(tx, _ATTEMPTS, book_id, list(attempts)):
        attempts[r["delivery_id"]].append(Attempt(r["at"], r["took_ms"], r["http_status"], r["trouble"]))
    return [LoggedDelivery(log=tuple(attempts[r["delivery_id"]]), **dict(r.items())) for r in rows]


# Event ids carry their time in front: an order's events lie where it lived, and are found without an index of their own.
_OF_ORDER = """
SELECT e.event_id, e.version FROM unnest($3::uuid[], $4::uuid[]) AS k (first, last)
JOIN events e ON e.book_id = $1 AND e.event_id BETWEEN k.first AND k.last AND e.order_id = $2
ORDER BY e.version, e.event_id
"""


async def list_events_of_order(tx: Tx, book_id: int, order_id: UUID, between: Sequence[tuple[datetime, datetime]]) -> list[UUID]:
    """The order's events that were recorded in these spans of time, by version."""
    first = [first_id(start) for start, _ in between]
    last = [UUID(int=first_id(end).int + (1 << 80) - 1) for _, end in between]
    return list(dict.fromkeys(r["event_id"] for r in await fetch(tx, _OF_ORDER, book_id, order_id, first, last)))


def first_id(at: datetime) -> UUID:
    """Not above any id that was made at this time or later."""
    return UUID(int=int(at.timestamp() * 1000) << 80)


# --- health ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class EndpointHealth:
    """What became of the endpoint's newest deliveries. Times in milliseconds; None where there was no attempt."""

    deliveries: int
    delivered: int
    pending: int
    given_up: int
    held: int
    attempts: int
    succeeded: int
    p50_ms: int | None
    p95_ms: int | None
    last_error: Attempt | None
    missing: int


_HEALTH = """
WITH newest AS (
  SELECT delivery_id, state FROM webhook_deliveries
  WHERE book_id = $1 AND endpoint_id = $2 AND delivery_id >= $3 ORDER BY delivery_id DESC LIMIT $4
), tried AS (
  SELECT a.* FROM newest n JOIN webhook_attempts a ON a.book_id = $1 AND a.delivery_id = n.delivery_id
)
SELECT (SELECT count(*) FROM newest) AS deliveries,
  (SELECT count(*) FILTER (WHERE state = 'delivered') FROM newest) AS delivered,
  (SELECT count(*) FILTER (WHERE state = 'pending') FROM newest) AS pending,
  (SELECT count(*) FILTER (WHERE state = 'given_up') FROM newest) AS given_up,
  (SELECT count(*) FILTER (WHERE state = 'held') FROM newest) AS held,
  count(*) AS attempts, count(*) FILTER (WHERE trouble IS NULL) AS succeeded,
  (percentile_disc(0.5) WITHIN GROUP (ORDER BY took_ms))::int AS p50_ms,
  (percentile_disc(0.95) WITHIN GROUP (ORDER BY took_ms))::int AS p95_ms,
  (SELECT count(*) FROM (SELECT FROM webhook_deliveries
    WHERE book_id = $1 AND endpoint_id = $2 AND state IN ('given_up', 'held') LIMIT $5) AS m) AS missing
FROM tried
"""

_LAST_ERROR = """
SELECT a.at, a.took_ms, a.http_status, a.trouble FROM (
  SELECT delivery_id FROM webhook_deliveries
  WHERE book_id = $1 AND endpoint_id = $2 AND delivery_id >= $3 ORDER BY delivery_id DESC LIMIT $4
) AS n JOIN webhook_attempts a ON a.book_id = $1 AND a.delivery_id = n.delivery_id
WHERE a.trouble IS NOT NULL ORDER BY a.at DESC, a.attempt_id DESC LIMIT 1
"""


async def measure(tx: Tx, book_id: int, endpoint_id: UUID, *, since: datetime, newest: int, most_missing: int) -> EndpointHealth:
    """Over at most `newest` deliveries made since then; `missing` counts no further than `most_missing`."""
    [row] = await fetch(tx, _HEALTH, book_id, endpoint_id, first_id(since), newest, most_missing)
    error = await fetch(tx, _LAST_ERROR, book_id, endpoint_id, first_id(since), newest)
    return EndpointHealth(last_error=Attempt(*error[0].values()) if error else None, **dict(row.items()))


# --- the polling twin ------------------------------------------------------------------------------------------------

_AFTER = "SELECT xid FROM events WHERE book_id = $1 AND event_id = $2"

_EVENTS = f"""
SELECT event_id, body FROM events
WHERE book_id = $1 AND xid < {HORIZON} AND (xid, event_id) > ($2, $3) AND ($4::text IS NULL OR type = $4) AND type <> '{SAMPLE}'
ORDER BY xid, event_id LIMIT $5
"""

_EVENT = "SELECT body FROM events WHERE book_id = $1 AND event_id = $2"


async def find_event_xid(tx: Tx, book_id: int, event_id: UUID) -> int | None:
    """The transaction that recorded an event; None when it is not, or no longer, on record."""
    rows = await fetch(tx, _AFTER, book_id, event_id)
    return rows[0]["xid"] if rows else None


async def list_events(
    tx: Tx, book_id: int, *, after: tuple[int, UUID] | None, event_type: str | None, limit: int
) -> list[tuple[UUID, bytes]]:
    """Event ids and bodies in the order (transaction, id), those after the given place.

    Only what lies below the transaction horizon is shown: a transaction that commits late can never put an event before
    a place that a reader has already passed.
    """
    xid, event_id = after or (-1, UUID(int=0))
    rows = await fetch(tx, _EVENTS, book_id, xid, event_id, event_type, limit)
    return [(r["event_id"], r["body"]) for r in rows]


async def get_event_body(tx: Tx, book_id: int, event_id: UUID) -> bytes:
    """The bytes of one event. Raises NotFound."""
    rows = await fetch(tx, _EVENT, book_id, event_id)
    if not rows:
        raise NotFound("no such event")
    return bytes(rows[0]["body"])
