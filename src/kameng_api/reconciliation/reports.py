"""Lists for people: comparisons, and breaks as the rows of a table."""

from collections.abc import Callable, Mapping, Sequence
from datetime import date, timedelta
from typing import Any, Final
from uuid import UUID

from kameng_api.kit.db import Tx, fetch
from kameng_api.reconciliation import queries
from kameng_api.reconciliation.queries import RUN, Run, run_of
from kameng_api.reconciliation.rules import Break

_AT_ONCE: Final = 1_000


async def list_runs(tx: Tx, *, channel_id: str | None, before: UUID | None, limit: int) -> list[Run]:
    """Newest first."""
    rows = await fetch(
        tx,
        f"""SELECT {RUN} FROM recon_runs WHERE ($1::text IS NULL OR channel_id = $1) AND ($2::uuid IS NULL OR run_id < $2)
        ORDER BY run_id DESC LIMIT $3""",
        channel_id, before, limit,
    )  # fmt: skip
    return [run_of(r) for r in rows]


async def is_told(tx: Tx, channel_id: str, day: date) -> bool:
    """Whether a statement of the day counts and has landed."""
    rows = await fetch(
        tx,
        """SELECT bool_and(NOT EXISTS (SELECT FROM recon_pages p WHERE p.file_id = f.file_id AND NOT p.landed)) AS told
        FROM recon_files f WHERE channel_id = $1 AND day = $2 AND state = 'accepted'""",
        channel_id, day,
    )  # fmt: skip
    return bool(rows[0]["told"])


async def break_rows(
    tx: Tx, show: Callable[[Break], Mapping[str, Any]], columns: Sequence[str], *, most: int, channel_id: str | None = None,
    class_: str | None = None, state: str | None = None, older_than: timedelta | None = None,
) -> list[list[Any]]:  # fmt: skip
    """At most `most` breaks, newest first, each as the values of `columns`."""
    rows: list[list[Any]] = []
    before: UUID | None = None
    while len(rows) < most:
        limit = min(_AT_ONCE, most - len(rows))
        found = await queries.list_breaks(
            tx, channel_id=channel_id, class_=class_, state=state, older_than=older_than, before=before, limit=limit
        )
        rows += [[shown.get(column) for column in columns] for shown in (show(b) for b in found)]
        if len(found) < limit:
            break
        before = found[-1].break_id
    return rows
