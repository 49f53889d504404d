"""Raising, closing and passing on alarms: one open row per (kind, subject), however often the trouble is seen."""

from collections.abc import Mapping, Sequence
from uuid import UUID

from kameng_api.alarms import queries, rules
from kameng_api.alarms.rules import KINDS, Alarm, Severity
from kameng_api.kit.db import Tx, execute, fetch
from kameng_api.kit.errors import StateConflict
from kameng_api.kit.ids import new_ulid

# Sorted by subject, so that two jobs that raise the same alarms never wait for each other in a circle.
_RAISE = """
INSERT INTO alarms AS a (alarm_id, kind, subject, severity, detail)
SELECT k.id, $1, k.subject, $2, k.detail FROM unnest($3::uuid[], $4::text[], $5::text[]) AS k (id, subject, detail)
ORDER BY k.subject
ON CONFLICT (kind, subject) WHERE closed_at IS NULL
DO UPDATE SET count = a.count + 1, last_at = now(), detail = excluded.detail,
  severity = CASE WHEN 'critical' IN (a.severity, excluded.severity) THEN 'critical' ELSE excluded.severity END
"""

_CLAIM = f"""
UPDATE alarms SET send_tries = send_tries + 1, send_after = now() + make_interval(secs => $2)
WHERE alarm_id IN (
  SELECT alarm_id FROM alarms WHERE sent_at IS NULL AND send_after <= now()
  ORDER BY first_at LIMIT $1 FOR UPDATE SKIP LOCKED)
RETURNING {queries.COLUMNS}
"""

_RECORD = """
UPDATE alarms a SET sent_to = k.sent_to, sent_at = CASE WHEN k.done THEN now() END,
  send_after = now() + make_interval(secs => k.wait_s)
FROM unnest($1::uuid[], $2::text[], $3::boolean[], $4::double precision[]) AS k (alarm_id, sent_to, done, wait_s)
WHERE a.alarm_id = k.alarm_id AND a.sent_at IS NULL
"""


async def raise_alarm(tx: Tx, kind: str, subject: str, severity: str | None, detail: str) -> None:
    """Say that something is wrong; the same trouble while it is open only counts up. `severity` None: the kind's own.

    `kind` is one of `alarms.rules.KINDS`. Secrets and personal data are masked in `detail`, and do not belong into `subject`.
    """
    await raise_alarms(tx, kind, {subject: detail}, severity=severity)


async def raise_alarms(tx: Tx, kind: str, troubles: Mapping[str, str], *, severity: str | None = None) -> None:
    """`raise_alarm` for many subjects at once: subject → detail."""
    if not troubles:
        return
    level = KINDS[kind].severity if severity is None else Severity(severity)
    subjects = sorted(troubles)
    details = [rules.clean_detail(troubles[s]) for s in subjects]
    await execute(tx, _RAISE, kind, level.value, [new_ulid() for _ in subjects], subjects, details)


async def keep_raised(tx: Tx, kind: str, troubles: Mapping[str, str]) -> None:
    """The whole truth about one kind: raise what is listed, close what no longer is."""
    await raise_alarms(tx, kind, troubles)
    await execute(
        tx,
        "UPDATE alarms SET closed_at = now() WHERE kind = $1 AND closed_at IS NULL AND subject <> ALL ($2::text[])",
        kind, list(troubles),
    )  # fmt: skip


async def close_alarm(tx: Tx, kind: str, subject: str) -> bool:
    """The trouble is over. False when there was none open."""
    return bool(
        await execute(
            tx,
            "UPDATE alarms SET closed_at = now() WHERE kind = $1 AND subject = $2 AND closed_at IS NULL",
            kind, subject,
        )
    )  # fmt: skip


async def acknowledge(tx: Tx, alarm_id: UUID, by: str) -> Alarm:
    """A person has seen it; it stays open. The first name stays. Raises NotFound, StateConflict when it is closed already."""
    alarm = await queries.get_alarm(tx, alarm_id)
    if alarm.closed_at is not None:
        raise StateConflict("this alarm is closed")
    await execute(
        tx, "UPDATE alarms SET acknowledged_by = coalesce(acknowledged_by, $2) WHERE alarm_id = $1", alarm_id, by
    )
    return await queries.get_alarm(tx, alarm_id)


async def close_by_id(tx: Tx, alarm_id: UUID, by: str) -> Alarm:
    """A person says that it is over. Closing twice is closing once. Raises NotFound."""
    await queries.get_alarm(tx, alarm_id)
    await execute(
        tx,
        "UPDATE alarms SET closed_at = coalesce(closed_at, now()), acknowledged_by = coalesce(acknowledged_by, $2) "
        "WHERE alarm_id = $1",
        alarm_id, by,
    )  # fmt: skip
    return await queries.get_alarm(tx, alarm_id)


async def claim_unsent(tx: Tx, limit: int) -> Sequence[Alarm]:
    """Alarms that are due to be sent, leased to the caller for `rules.LEASE_S` seconds; a crash means: sent again, never lost."""
    return [queries.read_row(r) for r in await fetch(tx, _CLAIM, limit, rules.LEASE_S)]


async def record_sent(tx: Tx, results: Sequence[tuple[Alarm, tuple[str, ...], bool]]) -> None:
    """For each alarm: the sinks that have it by now, and whether nothing more will be tried."""
    await execute(
        tx,
        _RECORD,
        [alarm.alarm_id for alarm, _, _ in results],
        [",".join(names) for _, names, _ in results],
        [done for _, _, done in results],
        [float(rules.backoff_s(alarm.send_tries)) for alarm, _, _ in results],
    )
