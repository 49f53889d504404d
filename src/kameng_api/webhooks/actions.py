"""Changing endpoints, secrets and deliveries: `(tx, …)`, one whole sentence each."""

import base64
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

import orjson

from kameng_api.kit.clock import utc_now
from kameng_api.kit.crypto import Keyring
from kameng_api.kit.db import Tx, execute, fetch
from kameng_api.kit.errors import NotFound
from kameng_api.kit.ids import new_ulid, parse_public_id, public_id
from kameng_api.outbox import actions as outbox
from kameng_api.tasks import actions as tasks
from kameng_api.tasks.rules import Due, Lane, Task
from kameng_api.webhooks import queries, rules, samples
from kameng_api.webhooks.errors import AlreadyRegistered, EndpointIsDisabled, TooManyEndpoints
from kameng_api.webhooks.events import ENDPOINT_PREFIX, PING, SAMPLE, EndpointPinged
from kameng_api.webhooks.queries import Delivery, Endpoint
from kameng_api.webhooks.rules import State

_SECRET_BYTES = 32
_REGISTRATION_LOCK = 0x77656862  # one registration of a book at a time, so that two of the same cannot pass each other
_REPLAY_AT_ONCE = 5_000

# --- endpoints -------------------------------------------------------------------------------------------------------

_REGISTER = """
INSERT INTO webhook_endpoints (book_id, endpoint_id, url, event_types, secret_sealed, description)
VALUES ($1, $2, $3, $4, $5, $6)
"""


async def register(
    tx: Tx, keyring: Keyring, book_id: int, *, url: str, event_types: Sequence[str], description: str
) -> tuple[Endpoint, str]:
    """A new endpoint and its secret, which is shown this once. The URL has been checked by the caller.

    Raises AlreadyRegistered (with `existing_id`) and TooManyEndpoints.
    """
    types = sorted(set(event_types))
    known = await _lock_registrations(tx, book_id)
    _refuse_twin(known, url, types)
    if len(known) >= rules.MAX_ENDPOINTS:
        raise TooManyEndpoints(f"a merchant has at most {rules.MAX_ENDPOINTS} webhook endpoints")
    endpoint_id, secret = new_ulid(), _new_secret()
    sealed = keyring.seal(secret.encode(), _endpoint_aad(book_id, endpoint_id))
    await execute(tx, _REGISTER, book_id, endpoint_id, url, types, sealed, description)
    return await queries.get_endpoint(tx, book_id, endpoint_id), secret


async def change(
    tx: Tx,
    book_id: int,
    endpoint_id: UUID,
    *,
    url: str | None = None,
    event_types: Sequence[str] | None = None,
    description: str | None = None,
) -> Endpoint:
    """Change what is given. Raises NotFound, AlreadyRegistered."""
    known = await _lock_registrations(tx, book_id)
    old = await queries.get_endpoint(tx, book_id, endpoint_id, lock=True)
    url = old.url if url is None else url
    types = list(old.event_types) if event_types is None else sorted(set(event_types))
    _refuse_twin([e for e in known if e.endpoint_id != endpoint_id], url, types)
    await execute(
        tx,
        """UPDATE webhook_endpoints SET url = $3, event_types = $4, description = $5
        WHERE book_id = $1 AND endpoint_id = $2""",
        book_id, endpoint_id, url, types, old.description if description is None else description,
    )  # fmt: skip
    return await queries.get_endpoint(tx, book_id, endpoint_id)


async def _lock_registrations(tx: Tx, book_id: int) -> list[Endpoint]:
    await fetch(tx, "SELECT pg_advisory_xact_lock($1::int, $2::int)", _REGISTRATION_LOCK, book_id)
    return await queries.list_endpoints(tx, book_id)


def _refuse_twin(known: Sequence[Endpoint], url: str, types: Sequence[str]) -> None:
    for endpoint in known:
        if endpoint.url == url and list(endpoint.event_types) == list(types):
            raise AlreadyRegistered(
                "this URL is already registered for these event types",
                existing_id=public_id(ENDPOINT_PREFIX, endpoint.endpoint_id),
            )


async def delete(tx: Tx, book_id: int, endpoint_id: UUID) -> None:
    """Nothing more is sent there; what was waiting is given up. Raises NotFound."""
    await queries.get_endpoint(tx, book_id, endpoint_id, lock=True)
    await execute(
        tx,
        "UPDATE webhook_endpoints SET deleted_at = now() WHERE book_id = $1 AND endpoint_id = $2",
        book_id, endpoint_id,
    )  # fmt: skip


async def enable(tx: Tx, book_id: int, endpoint_id: UUID) -> Endpoint:
    """Send again, with a clean record; what was missed stays held until `replay_missing`. Raises NotFound."""
    await queries.get_endpoint(tx, book_id, endpoint_id, lock=True)
    await execute(
        tx,
        """UPDATE webhook_endpoints SET status = 'enabled', status_reason = NULL, failures = 0, first_failure_at = NULL
        WHERE book_id = $1 AND endpoint_id = $2 AND status = 'disabled'""",
        book_id, endpoint_id,
    )  # fmt: skip
    return await queries.get_endpoint(tx, book_id, endpoint_id)


async def disable(tx: Tx, book_id: int, endpoint_id: UUID, reason: str) -> bool:
    """Send nothing more; events go on being recorded as held deliveries. True when it was enabled until now."""
    return bool(
        await execute(
            tx,
            """UPDATE webhook_endpoints SET status = 'disabled', status_reason = $3
            WHERE book_id = $1 AND endpoint_id = $2 AND status = 'enabled' AND deleted_at IS NULL""",
            book_id, endpoint_id, reason,
        )
    )  # fmt: skip


# --- secrets ---------------------------------------------------------------------------------------------------------


async def rotate_secret(tx: Tx, keyring: Keyring, book_id: int, endpoint_id: UUID) -> tuple[Endpoint, str]:
    """A new secret, shown this once; for 24 hours every webhook carries both signatures. Raises NotFound."""
    await queries.get_endpoint(tx, book_id, endpoint_id, lock=True)
    secret = _new_secret()
    await execute(
        tx,
        """UPDATE webhook_endpoints SET secret_sealed = $3,
          old_secret_sealed = secret_sealed, old_secret_until = now() + $4
        WHERE book_id = $1 AND endpoint_id = $2""",
        book_id, endpoint_id, keyring.seal(secret.encode(), _endpoint_aad(book_id, endpoint_id)), rules.SECRET_OVERLAP,
    )  # fmt: skip
    return await queries.get_endpoint(tx, book_id, endpoint_id), secret


async def drop_old_secret(tx: Tx, book_id: int, endpoint_id: UUID) -> Endpoint:
    """From now on only the new secret signs; nothing to do where no rotation is under way. Raises NotFound."""
    await queries.get_endpoint(tx, book_id, endpoint_id, lock=True)
    await execute(
        tx,
        "UPDATE webhook_endpoints SET old_secret_sealed = NULL, old_secret_until = NULL WHERE book_id = $1 AND endpoint_id = $2",
        book_id, endpoint_id,
    )  # fmt: skip
    return await queries.get_endpoint(tx, book_id, endpoint_id)


async def drop_old_notify_secret(tx: Tx, book_id: int) -> None:
    """As `drop_old_secret`, for `notify_url` calls."""
    await execute(tx, "UPDATE notify_secrets SET old_secret_sealed = NULL, old_secret_until = NULL WHERE book_id = $1", book_id)


async def ensure_notify_secret(tx: Tx, keyring: Keyring, book_id: int) -> str:
    """The secret that signs calls to an order's `notify_url`, made on first use; one per book."""
    sealed = keyring.seal(_new_secret().encode(), _notify_aad(book_id))
    await execute(
        tx,
        "INSERT INTO notify_secrets (book_id, secret_sealed) VALUES ($1, $2) ON CONFLICT DO NOTHING",
        book_id, sealed,
    )  # fmt: skip
    [row] = await fetch(tx, "SELECT secret_sealed FROM notify_secrets WHERE book_id = $1", book_id)
    return keyring.open(row["secret_sealed"], _notify_aad(book_id)).decode()


async def rotate_notify_secret(tx: Tx, keyring: Keyring, book_id: int) -> str:
    """A new secret for `notify_url` calls; the old one signs beside it for 24 hours."""
    await ensure_notify_secret(tx, keyring, book_id)
    secret = _new_secret()
    await execute(
        tx,
        """UPDATE notify_secrets SET secret_sealed = $2,
          old_secret_sealed = secret_sealed, old_secret_until = now() + $3
        WHERE book_id = $1""",
        book_id, keyring.seal(secret.encode(), _notify_aad(book_id)), rules.SECRET_OVERLAP,
    )  # fmt: skip
    return secret


@dataclass(frozen=True, slots=True)
class SigningSecrets:
    """Ready to sign with: the current secret and, until `old_until`, the one before."""

    current: str
    old: str | None = None
    old_until: datetime | None = None

    def at(self, now: datetime) -> tuple[str, ...]:
        if self.old is None or self.old_until is None or now >= self.old_until:
            return (self.current,)
        return (self.current, self.old)


def open_secrets(keyring: Keyring, endpoint: Endpoint) -> SigningSecrets:
    """Raises CryptoError when the sealing key is not in the ring."""
    aad = _endpoint_aad(endpoint.book_id, endpoint.endpoint_id)
    old = None if endpoint.old_secret_sealed is None else keyring.open(endpoint.old_secret_sealed, aad).decode()
    return SigningSecrets(keyring.open(endpoint.secret_sealed, aad).decode(), old, endpoint.old_secret_until)


async def find_notify_secrets(tx: Tx, keyring: Keyring, book_ids: Sequence[int]) -> dict[int, SigningSecrets]:
    """The notify secrets of these books, made where there was none."""
    found: dict[int, SigningSecrets] = {}
    if not book_ids:
        return found
    rows = await fetch(tx, "SELECT * FROM notify_secrets WHERE book_id = ANY ($1::bigint[])", list(book_ids))
    for row in rows:
        aad = _notify_aad(row["book_id"])
        old = None if row["old_secret_sealed"] is None else keyring.open(row["old_secret_sealed"], aad).decode()
        current = keyring.open(row["secret_sealed"], aad).decode()
        found[row["book_id"]] = SigningSecrets(current, old, row["old_secret_until"])
    for book_id in sorted(set(book_ids) - set(found)):
        found[book_id] = SigningSecrets(await ensure_notify_secret(tx, keyring, book_id))
    return found


def _new_secret() -> str:
    return "whsec_" + base64.b64encode(os.urandom(_SECRET_BYTES)).decode()


def _endpoint_aad(book_id: int, endpoint_id: UUID) -> bytes:
    return f"webhook_endpoints:{book_id}:{endpoint_id}:secret".encode()


def _notify_aad(book_id: int) -> bytes:
    return f"notify_secrets:{book_id}:secret".encode()


# --- deliveries ------------------------------------------------------------------------------------------------------

# Only where something is to be passed on, so that an idle tick locks nothing. ORDER BY … LIMIT 1 and not EXISTS: see docs/decisions/0010.
_LOCK_MARKS = f"""
SELECT m.book_range, m.upto_xid, {queries.HORIZON} AS horizon, now() AS now FROM fanout_marks m
WHERE coalesce((SELECT e.xid FROM events e WHERE e.xid >= m.upto_xid ORDER BY e.xid LIMIT 1) < {queries.HORIZON}, false)
ORDER BY m.book_range FOR UPDATE OF m SKIP LOCKED
"""

_XIDS = f"SELECT xid, type = '{PING}' AS is_ping FROM events WHERE xid >= $1 AND xid < $2 ORDER BY xid LIMIT $3"

# A new id keeps the event's milliseconds in front, so that deliveries sort by age; the rest is random.
_NEW_ID = "(left(e.event_id::text, 13) || substr(gen_random_uuid()::text, 14))::uuid"

_DOOR_EVENTS = str(rules.DOOR_EVENTS)

# Bodies come along for whoever will send them at once.
_FAN_OUT = f"""
WITH moved AS (
  UPDATE fanout_marks SET upto_xid = $2 WHERE book_range = $3
), made AS (
INSERT INTO webhook_deliveries (book_id, delivery_id, event_id, endpoint_id, notify_url, state)
SELECT e.book_id, {_NEW_ID}, e.event_id, r.endpoint_id, r.notify_url, r.state
FROM events e CROSS JOIN LATERAL (
  SELECT w.endpoint_id, NULL::text AS notify_url, CASE w.status WHEN 'enabled' THEN 'pending' ELSE 'held' END AS state
  FROM webhook_endpoints w
  WHERE w.book_id = e.book_id AND w.deleted_at IS NULL AND w.created_at <= e.created_at
    AND e.type NOT IN ('{PING}', '{SAMPLE}') AND (w.event_types = '{{}}' OR e.type = ANY (w.event_types))
  UNION ALL
  SELECT NULL, e.notify_url, 'pending' WHERE e.notify_url IS NOT NULL AND (e.notify_url NOT LIKE '{rules.DOOR_RECEIVER}%' OR e.type IN {_DOOR_EVENTS})
) r
WHERE e.xid >= $1 AND e.xid < $2
RETURNING book_id, delivery_id, event_id, endpoint_id, notify_url, state, attempts
)
SELECT made.*, CASE WHEN $4 THEN (SELECT b.body FROM events b WHERE b.book_id = made.book_id AND b.event_id = made.event_id) END AS body
FROM made
"""

_PINGS = f"SELECT book_id, event_id, body FROM events WHERE xid >= $1 AND xid < $2 AND type = '{PING}'"

_FAN_OUT_PINGS = f"""
INSERT INTO webhook_deliveries (book_id, delivery_id, event_id, endpoint_id, state)
SELECT e.book_id, {_NEW_ID}, e.event_id, e.endpoint_id, CASE w.status WHEN 'enabled' THEN 'pending' ELSE 'held' END
FROM unnest($1::bigint[], $2::uuid[], $3::uuid[]) AS e (book_id, event_id, endpoint_id)
JOIN webhook_endpoints w ON w.book_id = e.book_id AND w.endpoint_id = e.endpoint_id AND w.deleted_at IS NULL
RETURNING book_id, delivery_id, state
"""


@dataclass(frozen=True, slots=True)
class Taker:
    """Who fans out and will send up to `room` of the new deliveries itself, under a lease of `lease_s` seconds."""

    room: int
    lease_s: float
    worker: str


@dataclass(slots=True)
class FannedOut:
    """One round: events passed, deliveries that the taker now holds, and how many more became due for anybody; `now` by the database's clock."""

    events: int = 0
    now: datetime | None = None
    taken: list[tuple[Task, Delivery]] = field(default_factory=list)
    left: int = 0


async def fan_out(tx: Tx, limit: int, taker: Taker | None = None) -> FannedOut:
    """Turn about `limit` recorded events into deliveries, each exactly once.

    Events are taken in ranges of transaction ids below the horizon, where nothing can be committed any more: whatever
    commits late lies above the mark and is found by a later call. When another process is at it, this one passes by.
    """
    marks = await fetch(tx, _LOCK_MARKS)
    if not marks:
        return FannedOut()
    mark = marks[0]
    found = await fetch(tx, _XIDS, mark["upto_xid"], mark["horizon"], limit + 1)
    xids = [r["xid"] for r in found]
    if not xids:
        return FannedOut()
    upto = rules.range_end(xids, limit, mark["horizon"])
    room = 0 if taker is None else taker.room
    made = await fetch(tx, _FAN_OUT, mark["upto_xid"], upto, mark["book_range"], room > 0)
    due = [r for r in made if r["state"] == State.PENDING]
    round_ = FannedOut(sum(1 for xid in xids if xid < upto), mark["now"])
    theirs = [r for r in due if rules.lane_of(r["notify_url"]) is Lane.DOOR]
    if theirs:
        due = [r for r in due if rules.lane_of(r["notify_url"]) is Lane.WEBHOOK]
        await tasks.make_new_due(tx, [Due(r["book_id"], Lane.DOOR, r["delivery_id"]) for r in theirs])
    if taker is not None and room and due:
        mine, due = due[:room], due[room:]
        round_.taken = await _take(tx, taker, mine)
    if len(found) > limit or any(r["is_ping"] for r in found):  # of one huge transaction not all was looked at
        due += [r for r in await _fan_out_pings(tx, mark["upto_xid"], upto) if r["state"] == State.PENDING]
    round_.left = len(due)
    await tasks.make_new_due(tx, [Due(r["book_id"], Lane.WEBHOOK, r["delivery_id"]) for r in due])
    return round_


async def _take(tx: Tx, taker: Taker, rows: "Sequence[queries.Row]") -> list[tuple[Task, Delivery]]:
    """Tasks born claimed, each with what is to be sent."""
    born = [Due(r["book_id"], Lane.WEBHOOK, r["delivery_id"]) for r in rows]
    held = {t.key: t for t in await tasks.make_new_claimed(tx, born, taker.lease_s, taker.worker)}
    deliveries = [queries.delivery_from(r) for r in rows]
    return [(held[d.key], d) for d in deliveries]


async def _fan_out_pings(tx: Tx, from_xid: int, upto_xid: int) -> "list[queries.Row]":
    pings = [(r["book_id"], r["event_id"], _pinged(r["body"])) for r in await fetch(tx, _PINGS, from_xid, upto_xid)]
    known = [(book, event, endpoint) for book, event, endpoint in pings if endpoint is not None]
    if not known:
        return []
    return await fetch(tx, _FAN_OUT_PINGS, [p[0] for p in known], [p[1] for p in known], [p[2] for p in known])


def _pinged(body: bytes) -> UUID | None:
    return parse_public_id(ENDPOINT_PREFIX, str(orjson.loads(body)["data"]["id"]))


async def ping(tx: Tx, endpoint: Endpoint) -> None:
    """Record an `endpoint.ping` that only this endpoint hears. Raises EndpointIsDisabled."""
    _refuse_disabled(endpoint)
    await outbox.record(tx, [EndpointPinged(endpoint.book_id, endpoint.endpoint_id, endpoint.url).fact()])


async def send_sample(tx: Tx, endpoint: Endpoint, event_type: str) -> tuple[UUID, UUID]:
    """Send a made-up event of this type to this endpoint alone; returns event and delivery. Raises LookupError, EndpointIsDisabled.

    It is kept like any event, so that it can be sent again, but passed on to nobody and told to no poller.
    """
    _refuse_disabled(endpoint)
    event_id, delivery_id = new_ulid(), new_ulid()
    body = samples.body_of_sample(event_type, event_id, endpoint, utc_now())
    await execute(
        tx, "INSERT INTO events (book_id, event_id, type, version, body) VALUES ($1, $2, $3, 1, $4)", endpoint.book_id, event_id, SAMPLE, body
    )
    await execute(tx, _NEW_DELIVERY, endpoint.book_id, delivery_id, event_id, endpoint.endpoint_id)
    await tasks.make_due(tx, [Due(endpoint.book_id, Lane.WEBHOOK, delivery_id)])
    return event_id, delivery_id


_LAST_DELIVERY = """
SELECT delivery_id FROM webhook_deliveries WHERE book_id = $1 AND event_id = $2 AND endpoint_id = $3
ORDER BY delivery_id DESC LIMIT 1
"""

_NEW_DELIVERY = """
INSERT INTO webhook_deliveries (book_id, delivery_id, event_id, endpoint_id) VALUES ($1, $2, $3, $4)
"""

_MISSING = """
SELECT delivery_id FROM webhook_deliveries
WHERE book_id = $1 AND endpoint_id = $2 AND state IN ('given_up', 'held')
  AND created_at >= coalesce($3, '-infinity'::timestamptz) AND created_at < coalesce($4, 'infinity'::timestamptz)
ORDER BY delivery_id LIMIT $5
"""

_HELD_FOR = """
SELECT delivery_id FROM webhook_deliveries
WHERE book_id = $1 AND endpoint_id IS NULL AND state = 'held' AND starts_with(notify_url, $2)
"""

_RECEIVERS = "SELECT delivery_id, notify_url FROM webhook_deliveries WHERE book_id = $1 AND delivery_id = ANY ($2::uuid[])"

_START_ANEW = """
UPDATE webhook_deliveries SET state = 'pending', attempts = 0 WHERE book_id = $1 AND delivery_id = ANY ($2::uuid[])
"""


async def resend(tx: Tx, book_id: int, endpoint_id: UUID, event_id: UUID) -> UUID:
    """Send one event of this book to this endpoint (again), with its own id and bytes; returns the delivery's id.

    Also events of types the endpoint does not ask for, and older than it. Raises NotFound, EndpointIsDisabled.
    """
    _refuse_disabled(await queries.get_endpoint(tx, book_id, endpoint_id, lock=True))
    await queries.get_event_body(tx, book_id, event_id)
    rows = await fetch(tx, _LAST_DELIVERY, book_id, event_id, endpoint_id)
    if rows:
        delivery_id: UUID = rows[0]["delivery_id"]
        await _start_anew(tx, book_id, [delivery_id])
    else:
        delivery_id = new_ulid()
        await execute(tx, _NEW_DELIVERY, book_id, delivery_id, event_id, endpoint_id)
        await tasks.make_due(tx, [Due(book_id, Lane.WEBHOOK, delivery_id)])
    return delivery_id


async def resend_delivery(tx: Tx, book_id: int, delivery_id: UUID) -> UUID:
    """Send one delivery again, to its endpoint or to the notify_url of its order; returns its event. Raises NotFound, EndpointIsDisabled."""
    rows = await fetch(tx, "SELECT event_id, endpoint_id FROM webhook_deliveries WHERE book_id = $1 AND delivery_id = $2", book_id, delivery_id)
    if not rows:
        raise NotFound("no such delivery")
    if rows[0]["endpoint_id"] is not None:
        _refuse_disabled(await queries.get_endpoint(tx, book_id, rows[0]["endpoint_id"], lock=True))
    event_id: UUID = rows[0]["event_id"]
    await queries.get_event_body(tx, book_id, event_id)
    await _start_anew(tx, book_id, [delivery_id])
    return event_id


async def send_everywhere(tx: Tx, book_id: int, event_id: UUID) -> list[UUID]:
    """Send an event (again) to every enabled endpoint that wants its type, and to its notify_url if that was tried; returns the deliveries."""
    event_type = str(orjson.loads(await queries.get_event_body(tx, book_id, event_id))["type"])
    wanting = [e for e in await queries.list_endpoints(tx, book_id) if e.status == "enabled" and rules.wants(e.event_types, event_type)]
    sent = [await resend(tx, book_id, endpoint.endpoint_id, event_id) for endpoint in wanting]
    rows = await fetch(
        tx, "SELECT delivery_id FROM webhook_deliveries WHERE book_id = $1 AND event_id = $2 AND endpoint_id IS NULL", book_id, event_id
    )
    notified = [r["delivery_id"] for r in rows]
    await _start_anew(tx, book_id, notified)
    return sent + notified


async def replay_missing(
    tx: Tx, book_id: int, endpoint_id: UUID, since: datetime | None, until: datetime | None = None
) -> tuple[int, bool]:
    """Send what was given up or held in this window, oldest first, at most 5,000 at once.

    Returns how many, and whether there may be more. Raises NotFound, EndpointIsDisabled.
    """
    _refuse_disabled(await queries.get_endpoint(tx, book_id, endpoint_id, lock=True))
    rows = await fetch(tx, _MISSING, book_id, endpoint_id, since, until, _REPLAY_AT_ONCE)
    await _start_anew(tx, book_id, [r["delivery_id"] for r in rows])
    return len(rows), len(rows) == _REPLAY_AT_ONCE


async def take_up_held(tx: Tx, book_id: int, receiver: str) -> int:
    """Send what was held for the receiver whose `notify_url` begins so, a door's account that is on again. Returns how many."""
    rows = await fetch(tx, _HELD_FOR, book_id, receiver)
    await _start_anew(tx, book_id, [r["delivery_id"] for r in rows])
    return len(rows)


async def _start_anew(tx: Tx, book_id: int, delivery_ids: Sequence[UUID]) -> None:
    # The task before the delivery, as the job takes them, or the two would wait for each other.
    rows = await fetch(tx, _RECEIVERS, book_id, list(delivery_ids))
    await tasks.make_due(tx, [Due(book_id, rules.lane_of(r["notify_url"]), r["delivery_id"]) for r in rows])
    await execute(tx, _START_ANEW, book_id, list(delivery_ids))


def _refuse_disabled(endpoint: Endpoint) -> None:
    if endpoint.status != "enabled":
        raise EndpointIsDisabled("the endpoint is disabled; enable it first")


# --- what became of a call -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Tried:
    """One call that was made, as the attempts log keeps it."""

    book_id: int
    delivery_id: UUID
    took_ms: int
    http_status: int | None
    trouble: str | None


@dataclass(frozen=True, slots=True)
class Health:
    """What one flush learned about one endpoint."""

    book_id: int
    endpoint_id: UUID
    succeeded: bool
    failures: int


_RECORD_ATTEMPTS = """
INSERT INTO webhook_attempts (book_id, attempt_id, delivery_id, took_ms, http_status, trouble)
SELECT * FROM unnest($1::bigint[], $2::uuid[], $3::uuid[], $4::int[], $5::smallint[], $6::text[])
"""

_RECORD_STATES = """
UPDATE webhook_deliveries d SET state = k.state, attempts = k.attempts,
  delivered_at = CASE WHEN k.state = 'delivered' THEN now() ELSE d.delivered_at END
FROM unnest($1::bigint[], $2::uuid[], $3::text[], $4::smallint[]) AS k (book_id, delivery_id, state, attempts)
WHERE d.book_id = k.book_id AND d.delivery_id = k.delivery_id
"""

# A busy, healthy endpoint is written once in ten seconds, not once for each webhook.
_RECORD_HEALTH = """
WITH k AS (
  SELECT w.book_id, w.endpoint_id, k.succeeded, k.failed
  FROM unnest($1::bigint[], $2::uuid[], $3::boolean[], $4::int[]) AS k (book_id, endpoint_id, succeeded, failed)
  JOIN webhook_endpoints w ON w.book_id = k.book_id AND w.endpoint_id = k.endpoint_id
  WHERE NOT k.succeeded OR w.failures > 0
    OR w.last_success_at IS NULL OR w.last_success_at < now() - interval '10 seconds'
  ORDER BY 1, 2 FOR NO KEY UPDATE OF w
)
UPDATE webhook_endpoints w SET
  failures = CASE WHEN k.succeeded THEN 0 ELSE w.failures + k.failed END,
  first_failure_at = CASE WHEN k.succeeded THEN NULL ELSE coalesce(w.first_failure_at, now()) END,
  last_success_at = CASE WHEN k.succeeded THEN now() ELSE w.last_success_at END
FROM k WHERE w.book_id = k.book_id AND w.endpoint_id = k.endpoint_id
RETURNING w.book_id, w.endpoint_id, w.failures, w.first_failure_at, w.status, now() AS now
"""


async def record_attempts(tx: Tx, tried: Sequence[Tried]) -> None:
    """Append to the attempts log: what was sent was sent, whoever owns the delivery now."""
    if tried:
        await execute(
            tx, _RECORD_ATTEMPTS,
            [t.book_id for t in tried], [new_ulid() for _ in tried], [t.delivery_id for t in tried],
            [t.took_ms for t in tried], [t.http_status for t in tried], [t.trouble for t in tried],
        )  # fmt: skip


async def record_states(tx: Tx, states: Sequence[tuple[int, UUID, State, int]]) -> None:
    """(book, delivery, state, attempts) of deliveries whose lease is ours."""
    if states:
        await execute(
            tx, _RECORD_STATES, [s[0] for s in states], [s[1] for s in states], [s[2].value for s in states],
            [s[3] for s in states],
        )  # fmt: skip


async def record_health(tx: Tx, found: Sequence[Health]) -> list[tuple[int, UUID]]:
    """Count failures, forget them on success. Returns (book, endpoint) of those that have failed for too long."""
    if not found:
        return []
    rows = await fetch(
        tx, _RECORD_HEALTH, [h.book_id for h in found], [h.endpoint_id for h in found], [h.succeeded for h in found],
        [h.failures for h in found],
    )  # fmt: skip
    return [
        (r["book_id"], r["endpoint_id"])
        for r in rows
        if r["status"] == "enabled" and rules.should_disable(r["failures"], r["first_failure_at"], r["now"])
    ]
