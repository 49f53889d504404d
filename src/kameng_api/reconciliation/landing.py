"""From what a supplier said to lines that count: pages are kept while a statement is read, and land when the whole of it was accepted.

Half a statement is worse than none, because what is missing in it looks like what never happened: nothing of a telling counts before all of
it was read. Landing goes page by page, each leaving in the transaction that lands it, so that it may be cut off anywhere and goes on.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Final
from uuid import UUID

import orjson

from kameng_api.kit.db import Tx, execute, fetch
from kameng_api.kit.errors import Invalid, StateConflict
from kameng_api.kit.ids import new_ulid, parse_book_reference, ulid_text
from kameng_api.reconciliation import sources
from kameng_api.reconciliation.errors import SamePerson
from kameng_api.reconciliation.sources import Source, StatementFile
from kameng_api.suppliers.port import StatementLine

PAGE: Final = 5_000
MOST_BAD_LISTED: Final = 200
SHRUNK: Final = 0.8
"""A telling with fewer than this share of the lines of the one before is not believed by a machine."""


@dataclass(slots=True)
class Telling:
    """A statement while it is being read. `digest` runs over what it says, in its order."""

    file_id: UUID
    source: Source
    day: date
    digest: Any = field(default_factory=hashlib.sha256)
    pages: int = 0
    rows: int = 0
    bad: list[tuple[int, str]] = field(default_factory=list)
    bad_count: int = 0
    token: str = ""
    first: StatementLine | None = None
    last: StatementLine | None = None
    in_order: bool = True
    waiting: list[tuple[int, StatementLine]] = field(default_factory=list)


class ReadElsewhere(StateConflict):
    """Somebody else reads this statement now; what this process has of it counts nothing."""


async def begin(tx: Tx, source: Source, day: date, name: str, by: str, *, sha256: bytes | None = None, size_bytes: int = 0) -> Telling:
    """Open a file. What an earlier reading left half-read is thrown away and read anew; whoever still reads it is shut out.

    `sha256` of the bytes where there are bytes. Raises StateConflict when the same bytes were read to their end before (the caller looks first).
    """
    file_id = await _left_half_read(tx, source, day, sha256)
    token = ulid_text(new_ulid())  # stands where later the name of who accepted it stands
    if file_id is None:
        file_id = new_ulid()
        await execute(
            tx,
            """INSERT INTO recon_files (file_id, source_id, channel_id, environment, day, sha256, name, size_bytes, by, accepted_by)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)""",
            file_id, source.source_id, source.channel_id, await sources.environment_of(tx, source.channel_id), day,
            sha256 or hashlib.sha256(file_id.bytes).digest(), name, size_bytes, by, token,
        )  # fmt: skip
    else:
        await execute(
            tx,
            """UPDATE recon_files SET state = 'reading', day = $2, name = $3, by = $4, created_at = now(), accepted_by = $5, bad = '[]'
            WHERE file_id = $1""",
            file_id, day, name, by, token,
        )  # fmt: skip
        await execute(tx, "DELETE FROM recon_pages WHERE file_id = $1", file_id)
    return Telling(file_id, source, day, token=token)


async def ask_for(tx: Tx, source: Source, day: date, by: str) -> UUID:
    """Let the workers fetch a day, now or again. Asked while it is being fetched, it is that fetch."""
    rows = await fetch(tx, "SELECT file_id FROM recon_files WHERE source_id = $1 AND day = $2 AND state = 'reading'", source.source_id, day)
    if rows:
        return UUID(str(rows[0]["file_id"]))
    file_id = new_ulid()
    await execute(
        tx,
        """INSERT INTO recon_files (file_id, source_id, channel_id, environment, day, sha256, name, size_bytes, by, created_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, 0, $8, 'epoch')""",
        file_id, source.source_id, source.channel_id, await sources.environment_of(tx, source.channel_id), day,
        hashlib.sha256(file_id.bytes).digest(), f"fetch {day}", by,
    )  # fmt: skip
    return file_id


async def _left_half_read(tx: Tx, source: Source, day: date, sha256: bytes | None) -> UUID | None:
    if sha256 is None:
        rows = await fetch(
            tx, "SELECT file_id, state FROM recon_files WHERE source_id = $1 AND day = $2 AND state = 'reading' FOR UPDATE", source.source_id, day
        )
    else:
        rows = await fetch(tx, "SELECT file_id, state FROM recon_files WHERE source_id = $1 AND sha256 = $2 FOR UPDATE", source.source_id, sha256)
        if rows and rows[0]["state"] not in ("reading", "rejected"):
            raise StateConflict("these bytes were uploaded before")
    return UUID(str(rows[0]["file_id"])) if rows else None


async def _still_mine(tx: Tx, telling: Telling) -> None:
    if not await fetch(
        tx, "SELECT 1 FROM recon_files WHERE file_id = $1 AND state = 'reading' AND accepted_by = $2 FOR UPDATE", telling.file_id, telling.token
    ):
        raise ReadElsewhere("this statement is being read by another process, or was thrown away")


async def give_up(tx: Tx, telling: Telling, *, because: str, for_good: bool) -> None:
    """The reading failed: nothing of it counts. `for_good`: the bytes are at fault; else it is tried again later. Raises ReadElsewhere."""
    await _still_mine(tx, telling)
    await execute(tx, "DELETE FROM recon_pages WHERE file_id = $1", telling.file_id)
    await execute(
        tx, "UPDATE recon_files SET state = $3, accepted_by = NULL, created_at = now(), bad = $2::text::jsonb WHERE file_id = $1",
        telling.file_id, orjson.dumps([[0, because]]).decode(), "rejected" if for_good else "reading",
    )  # fmt: skip


def take(telling: Telling, lines: Sequence[tuple[int, StatementLine]], bad: Sequence[tuple[int, str]] = ()) -> bool:
    """Note what was read. True when a page is full and `keep` should be called."""
    for number, line in lines:
        telling.digest.update(orjson.dumps(_values(number, line)[1:]))
        telling.first = telling.first or line
        telling.in_order = telling.in_order and (telling.last is None or telling.last.at <= line.at)
        telling.last = line
        telling.waiting.append((number, line))
    telling.rows += len(lines)
    telling.bad_count += len(bad)
    telling.bad += bad[: MOST_BAD_LISTED - len(telling.bad)]
    return len(telling.waiting) >= PAGE


async def keep(tx: Tx, telling: Telling) -> None:
    """Write what waits as one page. Raises ReadElsewhere."""
    await _still_mine(tx, telling)
    if telling.waiting:
        rows = [_values(number, line) for number, line in telling.waiting]
        await execute(
            tx, "INSERT INTO recon_pages (file_id, n, lines) VALUES ($1, $2, $3::text::jsonb)",
            telling.file_id, telling.pages, orjson.dumps(rows).decode(),
        )  # fmt: skip
        telling.pages += 1
        telling.waiting = []


def _values(number: int, line: StatementLine) -> list[Any]:
    # A book number fits in six base-32 digits, so whatever looks like our reference can be kept as one.
    ours = parse_book_reference(line.reference) if line.reference else None
    return [
        number, line.line_id, None, line.at.isoformat(), line.kind.value, line.amount, line.currency, line.reference,
        None if ours is None else ours[0], None if ours is None else str(ours[1]), line.supplier_order_no, line.external_id,
        line.balance_after, line.face_value, line.units,
    ]  # fmt: skip


async def finish(tx: Tx, telling: Telling, *, with_bytes: bool) -> StatementFile:
    """All was read. Returns the file in state `read`; or, fetched, the earlier one that said exactly the same of this day."""
    await keep(tx, telling)
    if not with_bytes:
        # An empty day says the same as every other empty day, and is not the same.
        telling.digest.update(telling.day.isoformat().encode())
        digest = telling.digest.digest()
        known = await sources.find_file(tx, telling.source.source_id, digest)
        if known is not None:
            await execute(tx, "DELETE FROM recon_pages WHERE file_id = $1", telling.file_id)
            await execute(
                tx, "UPDATE recon_files SET state = 'superseded', accepted_by = NULL, rows_read = $2 WHERE file_id = $1",
                telling.file_id, telling.rows,
            )  # fmt: skip
            return known
        await execute(tx, "UPDATE recon_files SET sha256 = $2 WHERE file_id = $1", telling.file_id, digest)
    opening, closing = _ends(telling)
    await execute(
        tx,
        """UPDATE recon_files SET state = 'read', accepted_by = NULL, rows_read = $2, rows_bad = $3, bad = $4::text::jsonb, opening = $5, closing = $6
        WHERE file_id = $1 AND state = 'reading'""",
        telling.file_id, telling.rows, telling.bad_count, orjson.dumps(telling.bad).decode(), opening, closing,
    )  # fmt: skip
    return await sources.get_file(tx, telling.file_id)


def _ends(telling: Telling) -> tuple[int | None, int | None]:
    """What the statement says the wallet held before its first and after its last line, where its order can be trusted."""
    first, last = telling.first, telling.last
    if first is None or last is None or not telling.in_order or telling.bad_count:
        return None, None
    opening = None if first.balance_after is None else first.balance_after - first.amount
    return opening, last.balance_after


async def why_not_alone(tx: Tx, file: StatementFile) -> str | None:
    """Why no machine should let this file count; None when it may."""
    [row] = await fetch(
        tx,
        """SELECT coalesce(max(rows_read), 0) AS most FROM recon_files
        WHERE source_id = $1 AND day = $2 AND state IN ('accepted', 'superseded') AND file_id <> $3""",
        file.source_id, file.day, file.file_id,
    )  # fmt: skip
    if file.rows_read < row["most"] * SHRUNK:
        return f"it tells {file.rows_read} lines where an earlier telling of the day had {row['most']}"
    return None


async def accept(tx: Tx, file_id: UUID, by: str, *, with_bad: bool = False) -> StatementFile:
    """Let what a file says count. Accepted again is the same file.

    What a person uploaded to a live channel may pay merchants back by itself: another person accepts it.

    Raises NotFound, SamePerson, StateConflict when it was rejected or not read to its end, Invalid when rows are bad and `with_bad` does not say so.
    """
    file = await sources.get_file(tx, file_id, lock=True)
    if file.state in ("accepted", "superseded"):
        return file
    if file.state != "read":
        raise StateConflict(f"the file is {file.state}")
    uploaded = await fetch(tx, "SELECT FROM recon_sources WHERE source_id = $1 AND kind = 'upload'", file.source_id)
    if uploaded and file.environment == "live" and file.by == by:
        raise SamePerson("who uploaded it may not accept it")
    if file.rows_bad and not with_bad:
        raise Invalid(f"{file.rows_bad} row(s) cannot be read; correct the file, or accept it without them")
    await execute(tx, "UPDATE recon_files SET state = 'accepted', accepted_by = $2, accepted_at = now() WHERE file_id = $1", file_id, by)
    # The last page is empty: with it goes what this telling no longer says.
    await execute(tx, "INSERT INTO recon_pages (file_id, n, lines) VALUES ($1, $2, '[]') ON CONFLICT DO NOTHING", file_id, _LAST_PAGE)
    return await sources.get_file(tx, file_id)


_LAST_PAGE: Final = 2**31 - 1

_FACTS: Final = "(at, kind, amount, currency, reference, supplier_order_no)"
_SAID: Final = """
SELECT (v->>1) AS said_id, (v->>0)::int AS line_no, (v->>3)::timestamptz AS at, (v->>4) AS kind,
  (v->>5)::bigint AS amount, (v->>6) AS currency, (v->>7) AS reference, (v->>8)::bigint AS book_id, (v->>9)::uuid AS attempt_id,
  (v->>10) AS supplier_order_no, (v->>11) AS external_id, (v->>12)::bigint AS balance_after, (v->>13)::bigint AS face_value, (v->>14)::int AS units
FROM recon_pages p, jsonb_array_elements(p.lines) AS v WHERE p.file_id = $1"""
_HASH: Final = "left(md5({row}::text), 8)"
_COLUMNS: Final = (
    "line_no, at, kind, amount, currency, reference, book_id, attempt_id, supplier_order_no, external_id, balance_after, face_value, units"
)

# The same number saying something else: in one file two movements, in a newer one a correction. Neither is lost: what came later carries what
# it says in its number, so that it is the same line when it is told again.
_LAND: Final = f"""
WITH said AS MATERIALIZED ({_SAID} AND p.n = $2),
named AS (
  SELECT s.*, CASE WHEN l.line_id IS NULL OR (l.at, l.kind, l.amount, l.currency, l.reference, l.supplier_order_no) IS NOT DISTINCT FROM
      (s.at, s.kind, s.amount, s.currency, s.reference, s.supplier_order_no)
    THEN s.said_id ELSE s.said_id || '~' || {_HASH.format(row="(s.at, s.kind, s.amount, s.currency, s.reference, s.supplier_order_no)")}
    END AS ext_line_id
  FROM said s LEFT JOIN recon_lines l ON l.channel_id = $3 AND l.ext_line_id = s.said_id
),
again AS (
  UPDATE recon_lines l SET withdrawn_at = NULL FROM named n
  WHERE l.channel_id = $3 AND l.ext_line_id = n.ext_line_id AND l.withdrawn_at IS NOT NULL
)
INSERT INTO recon_lines (channel_id, file_id, day, ext_line_id, {_COLUMNS})
SELECT $3, $1, $4, ext_line_id, {_COLUMNS} FROM (
  SELECT DISTINCT ON (ext_line_id) * FROM named ORDER BY ext_line_id, line_no
) AS once ORDER BY line_no
ON CONFLICT (channel_id, ext_line_id) DO NOTHING
"""
# Two of one number in one page: the first was new to the statement above, the second is compared with it.
_OTHERS: Final = f"""
WITH said AS MATERIALIZED ({_SAID} AND p.n = $2)
INSERT INTO recon_lines (channel_id, file_id, day, ext_line_id, {_COLUMNS})
SELECT $3, $1, $4, s.said_id || '~' || {_HASH.format(row="(s.at, s.kind, s.amount, s.currency, s.reference, s.supplier_order_no)")},
  {", ".join("s." + c.strip() for c in _COLUMNS.split(","))}
FROM said s JOIN recon_lines l ON l.channel_id = $3 AND l.ext_line_id = s.said_id AND l.file_id = $1
WHERE (l.at, l.kind, l.amount, l.currency, l.reference, l.supplier_order_no) IS DISTINCT FROM
  (s.at, s.kind, s.amount, s.currency, s.reference, s.supplier_order_no)
ON CONFLICT (channel_id, ext_line_id) DO NOTHING
"""
_NO_LONGER_SAID: Final = f"""
WITH said AS MATERIALIZED (SELECT said_id, {_HASH.format(row=_FACTS)} AS hash FROM ({_SAID}) AS s)
UPDATE recon_lines l SET withdrawn_at = now() FROM recon_files f
WHERE f.source_id = $2 AND f.day = $3 AND f.file_id <> $1 AND l.channel_id = $4 AND l.file_id = f.file_id AND l.day = $3
  AND l.withdrawn_at IS NULL AND NOT EXISTS (
    SELECT FROM said s WHERE s.hash = {_HASH.format(row="(l.at, l.kind, l.amount, l.currency, l.reference, l.supplier_order_no)")}
      AND (s.said_id = l.ext_line_id OR s.said_id || '~' || s.hash = l.ext_line_id))
"""


async def list_unlanded(tx: Tx, limit: int) -> list[UUID]:
    """Accepted files of which pages wait, the oldest first."""
    rows = await fetch(
        tx,
        """SELECT f.file_id FROM recon_files f
        WHERE f.state = 'accepted' AND EXISTS (SELECT FROM recon_pages p WHERE p.file_id = f.file_id AND NOT p.landed)
        ORDER BY f.accepted_at, f.file_id LIMIT $1""",
        limit,
    )  # fmt: skip
    return [r["file_id"] for r in rows]


async def land_page(tx: Tx, file_id: UUID) -> bool:
    """Let one page of an accepted file become lines. False when there is none left, or another worker is at this file."""
    found = await fetch(
        tx,
        "SELECT source_id, channel_id, day FROM recon_files WHERE file_id = $1 AND state = 'accepted' FOR UPDATE SKIP LOCKED",
        file_id,
    )  # fmt: skip
    pages = await fetch(
        tx, "SELECT n, jsonb_array_length(lines) AS rows FROM recon_pages WHERE file_id = $1 AND NOT landed ORDER BY n LIMIT 1", file_id
    )
    if not found or not pages:
        return False
    [file], [page] = found, pages
    if page["n"] == _LAST_PAGE:
        await execute(tx, _NO_LONGER_SAID, file_id, file["source_id"], file["day"], file["channel_id"])
        await execute(tx, "DELETE FROM recon_pages WHERE file_id = $1", file_id)
        return False
    values = (file_id, page["n"], file["channel_id"], file["day"])
    new = await execute(tx, _LAND, *values)
    new += await execute(tx, _OTHERS, *values)
    await execute(tx, "UPDATE recon_pages SET landed = true WHERE file_id = $1 AND n = $2", file_id, page["n"])
    await execute(
        tx, "UPDATE recon_files SET rows_new = rows_new + $2, rows_repeated = rows_repeated + $3 WHERE file_id = $1",
        file_id, new, page["rows"] - new,
    )  # fmt: skip
    return True
