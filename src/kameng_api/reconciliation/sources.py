"""Where a channel's statements come from, and the files that came: one row per telling of a day."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Final
from uuid import UUID

import asyncpg
from pydantic import ValidationError

from kameng_api.kit.db import Tx, execute, fetch
from kameng_api.kit.errors import FieldError, Invalid, NotFound, StateConflict
from kameng_api.kit.ids import new_ulid
from kameng_api.kit.zones import is_zone
from kameng_api.reconciliation.mappings import FileMapping

_NAME_LENGTH: Final = 64
MOST_TOLERANCE: Final = 10_000
"""One unit per attempt: what differs by more is never booked without people."""


@dataclass(frozen=True, slots=True)
class Source:
    """One way by which statements of a channel come: `fetch` through its adapter, or `upload` by a person.

    `lag_s` after the end of the supplier's day (in `timezone`) the statement is whole; `complete`: what is then not in it did not happen.
    `window_days`: so long a line may be late. `charges_at` `success`: a charge proves the delivery. `tolerance` per attempt and `drift_limit`
    in 1/10000 units.
    """

    source_id: UUID
    channel_id: str
    name: str
    kind: str
    currency: str
    timezone: str
    lag_s: int
    complete: bool
    window_days: int
    charges_at: str
    tolerance: int
    drift_limit: int | None
    mapping: FileMapping | None
    enabled: bool
    created_at: datetime


@dataclass(frozen=True, slots=True)
class StatementFile:
    """One telling of a day. `bad`: `(line number, reason)` of the first rows that could not be read."""

    file_id: UUID
    source_id: UUID
    channel_id: str
    environment: str
    day: date
    sha256: bytes
    name: str
    size_bytes: int
    state: str
    rows_read: int
    rows_new: int
    rows_repeated: int
    rows_bad: int
    bad: Sequence[tuple[int, str]]
    opening: int | None
    closing: int | None
    by: str
    accepted_by: str | None
    created_at: datetime
    accepted_at: datetime | None
    landed: bool


_SOURCE: Final = (
    "source_id, channel_id, name, kind, currency, timezone, lag_s, complete, window_days, charges_at, tolerance, drift_limit, mapping, enabled, "
    "created_at"
)
_FILE: Final = (
    "f.file_id, f.source_id, f.channel_id, f.environment, f.day, f.sha256, f.name, f.size_bytes, f.state, f.rows_read, f.rows_new, f.rows_repeated, "
    "f.rows_bad, f.bad, f.opening, f.closing, f.by, f.accepted_by, f.created_at, f.accepted_at, "
    "f.state = 'accepted' AND NOT EXISTS (SELECT FROM recon_pages p WHERE p.file_id = f.file_id AND NOT p.landed) AS landed"
)


@dataclass(frozen=True, slots=True)
class SourceWanted:
    """What an operator says of a source; `name` is its key. Amounts in 1/10000 units."""

    channel_id: str
    name: str
    kind: str
    currency: str = "CNY"
    timezone: str = "Asia/Shanghai"
    lag_s: int = 3600
    complete: bool = False
    window_days: int = 2
    charges_at: str = "submission"
    tolerance: int = 100
    drift_limit: int | None = None
    mapping: Mapping[str, Any] | None = None
    enabled: bool = True


def read_mapping(document: Mapping[str, Any]) -> FileMapping:
    """Raises Invalid, with one entry per mistake."""
    try:
        return FileMapping.model_validate(document)
    except ValidationError as error:
        wrong = [
            FieldError("/mapping/" + "/".join(str(step) for step in one["loc"]), "format", one["msg"].removeprefix("Value error, "))
            for one in error.errors(include_url=False, include_input=False, include_context=False)
        ]
        raise Invalid("this mapping does not say how to read a file", errors=wrong) from None


def check_source(wanted: SourceWanted) -> list[FieldError]:
    """What is wrong with a source to be, besides its mapping."""
    wrong = []
    if not (1 <= len(wanted.name) <= _NAME_LENGTH and wanted.name.isprintable() and wanted.name.strip() == wanted.name):
        wrong.append(FieldError("/name", "format", f"1–{_NAME_LENGTH} characters that can be seen"))
    if wanted.kind not in ("fetch", "upload"):
        wrong.append(FieldError("/kind", "unknown_value", "fetch | upload"))
    if wanted.charges_at not in ("submission", "success"):
        wrong.append(FieldError("/charges_at", "unknown_value", "submission | success"))
    if not is_zone(wanted.timezone):
        wrong.append(FieldError("/timezone", "unknown_value", "a time zone such as Asia/Shanghai"))
    if not (len(wanted.currency) == 3 and wanted.currency.isascii() and wanted.currency.isupper()):
        wrong.append(FieldError("/currency", "format", "three letters such as CNY"))
    if not 0 <= wanted.lag_s <= 7 * 86_400:
        wrong.append(FieldError("/lag_s", "out_of_range", "0 to 604800 seconds"))
    if not 0 <= wanted.window_days <= 60:
        wrong.append(FieldError("/window_days", "out_of_range", "0 to 60 days"))
    if wanted.tolerance > MOST_TOLERANCE:
        wrong.append(FieldError("/tolerance", "out_of_range", "at most 1.0000"))
    if wanted.tolerance < 0 or (wanted.drift_limit is not None and wanted.drift_limit < 0):
        wrong.append(FieldError("/tolerance" if wanted.tolerance < 0 else "/drift_limit", "out_of_range", "not below 0"))
    if wanted.kind == "upload" and wanted.mapping is None:
        wrong.append(FieldError("/mapping", "required", "how the files of this source are read"))
    if wanted.kind == "fetch" and wanted.mapping is not None:
        wrong.append(FieldError("/mapping", "unknown_field", "a fetched statement is read by its adapter"))
    return wrong


_PUT = f"""
INSERT INTO recon_sources AS s (source_id, channel_id, name, kind, currency, timezone, lag_s, complete, window_days, charges_at, tolerance,
  drift_limit, mapping, enabled)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13::text::jsonb, $14)
ON CONFLICT (name) DO UPDATE SET currency = excluded.currency, timezone = excluded.timezone, lag_s = excluded.lag_s,
  complete = excluded.complete, window_days = excluded.window_days, charges_at = excluded.charges_at, tolerance = excluded.tolerance,
  drift_limit = excluded.drift_limit, mapping = excluded.mapping, enabled = excluded.enabled
WHERE s.channel_id = excluded.channel_id AND s.kind = excluded.kind
RETURNING {_SOURCE}
"""


async def put_source(tx: Tx, wanted: SourceWanted) -> Source:
    """Make or change the source of this name. Raises Invalid, NotFound (channel), StateConflict (the name is another channel's or kind's)."""
    wrong = check_source(wanted)
    if wrong:
        raise Invalid("this cannot be a source", errors=wrong)
    mapping = None if wanted.mapping is None else read_mapping(wanted.mapping)
    if not await fetch(tx, "SELECT 1 FROM channels WHERE channel_id = $1", wanted.channel_id):
        raise NotFound("no such channel")
    rows = await fetch(
        tx, _PUT, new_ulid(), wanted.channel_id, wanted.name, wanted.kind, wanted.currency, wanted.timezone, wanted.lag_s, wanted.complete,
        wanted.window_days, wanted.charges_at, wanted.tolerance, wanted.drift_limit,
        None if mapping is None else mapping.model_dump_json(), wanted.enabled,
    )  # fmt: skip
    if not rows:
        raise StateConflict("this name is another source's, of another channel or kind")
    return _source(rows[0])


async def list_sources(tx: Tx, *, channel_id: str | None = None, kind: str | None = None, enabled: bool | None = None) -> list[Source]:
    rows = await fetch(
        tx,
        f"""SELECT {_SOURCE} FROM recon_sources WHERE ($1::text IS NULL OR channel_id = $1) AND ($2::text IS NULL OR kind = $2)
        AND ($3::bool IS NULL OR enabled = $3) ORDER BY name""",
        channel_id, kind, enabled,
    )  # fmt: skip
    return [_source(r) for r in rows]


async def get_source(tx: Tx, name: str) -> Source:
    """By name. Raises NotFound."""
    rows = await fetch(tx, f"SELECT {_SOURCE} FROM recon_sources WHERE name = $1", name)
    if not rows:
        raise NotFound("no such source")
    return _source(rows[0])


async def list_files(
    tx: Tx, *, source_id: UUID | None = None, channel_id: str | None = None, day: date | None = None, state: str | None = None,
    before: UUID | None = None, limit: int = 50,
) -> list[StatementFile]:  # fmt: skip
    """Newest first."""
    rows = await fetch(
        tx,
        f"""SELECT {_FILE} FROM recon_files f WHERE ($1::uuid IS NULL OR f.source_id = $1) AND ($2::text IS NULL OR f.channel_id = $2)
        AND ($3::date IS NULL OR f.day = $3) AND ($4::text IS NULL OR f.state = $4) AND ($5::uuid IS NULL OR f.file_id < $5)
        ORDER BY f.file_id DESC LIMIT $6""",
        source_id, channel_id, day, state, before, limit,
    )  # fmt: skip
    return [_file(r) for r in rows]


async def get_file(tx: Tx, file_id: UUID, *, lock: bool = False) -> StatementFile:
    """Raises NotFound."""
    rows = await fetch(tx, f"SELECT {_FILE} FROM recon_files f WHERE f.file_id = $1 {'FOR UPDATE OF f' if lock else ''}", file_id)
    if not rows:
        raise NotFound("no such file")
    return _file(rows[0])


async def find_file(tx: Tx, source_id: UUID, sha256: bytes) -> StatementFile | None:
    """The same bytes, if they came before."""
    rows = await fetch(tx, f"SELECT {_FILE} FROM recon_files f WHERE f.source_id = $1 AND f.sha256 = $2", source_id, sha256)
    return _file(rows[0]) if rows else None


async def environment_of(tx: Tx, channel_id: str) -> str:
    """`live` or `test`."""
    [row] = await fetch(tx, "SELECT environment FROM channels WHERE channel_id = $1", channel_id)
    return str(row["environment"])


async def reject_file(tx: Tx, file_id: UUID, by: str) -> StatementFile:
    """Throw away what a file said, before it counted. Raises NotFound, StateConflict once it was accepted."""
    file = await get_file(tx, file_id, lock=True)
    if file.state == "rejected":
        return file
    if file.state not in ("reading", "read"):
        raise StateConflict("this file counts already; a newer telling of the day replaces it")
    await execute(tx, "UPDATE recon_files SET state = 'rejected', accepted_by = $2 WHERE file_id = $1", file_id, by)
    await execute(tx, "DELETE FROM recon_pages WHERE file_id = $1", file_id)
    return await get_file(tx, file_id)


def _source(row: "asyncpg.Record") -> Source:
    values = dict(row)
    mapping = values["mapping"]
    if mapping is not None:
        values["mapping"] = FileMapping.model_validate(json.loads(mapping) if isinstance(mapping, str) else mapping)
    return Source(**values)


def _file(row: "asyncpg.Record") -> StatementFile:
    values = dict(row)
    bad = json.loads(values["bad"]) if isinstance(values["bad"], str) else values["bad"]
    values["bad"] = [(int(n), str(reason)) for n, reason in bad]
    return StatementFile(**values)
