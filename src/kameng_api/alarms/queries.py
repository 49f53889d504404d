"""Which alarms there are."""

from collections.abc import Sequence
from uuid import UUID

import asyncpg

from kameng_api.alarms.rules import Alarm, Severity
from kameng_api.kit.db import Tx, fetch
from kameng_api.kit.errors import NotFound

COLUMNS = (
    "alarm_id, kind, subject, severity, detail, count, first_at, last_at, sent_at, sent_to, send_tries, "
    "acknowledged_by, closed_at"
)


def read_row(row: "asyncpg.Record") -> Alarm:
    """A row of COLUMNS as an Alarm."""
    facts = dict(row)
    facts["severity"] = Severity(facts["severity"])
    facts["sent_to"] = tuple(name for name in (facts["sent_to"] or "").split(",") if name)
    return Alarm(**facts)


async def list_alarms(
    tx: Tx, *, only_open: bool = True, kind: str | None = None, before: UUID | None = None, limit: int = 100
) -> Sequence[Alarm]:
    """Newest first; `before` is the id of the last one seen."""
    rows = await fetch(
        tx,
        f"""SELECT {COLUMNS} FROM alarms
        WHERE (NOT $1 OR closed_at IS NULL) AND ($2::text IS NULL OR kind = $2) AND ($3::uuid IS NULL OR alarm_id < $3)
        ORDER BY alarm_id DESC LIMIT $4""",
        only_open, kind, before, limit,
    )  # fmt: skip
    return [read_row(r) for r in rows]


async def get_alarm(tx: Tx, alarm_id: UUID) -> Alarm:
    """Raises NotFound."""
    rows = await fetch(tx, f"SELECT {COLUMNS} FROM alarms WHERE alarm_id = $1", alarm_id)
    if not rows:
        raise NotFound("no such alarm")
    return read_row(rows[0])
