"""Rows that every test of a kind begins with: written through the real actions once, and put back as they were from then on."""

from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from datetime import datetime

from kameng_api.kit.db import Tx, execute, fetch

ALWAYS = ("alembic_version", "books", "rollup_marks", "fanout_marks", "catalog_version")
"""Tables that are never empty."""


@dataclass(frozen=True, slots=True)
class Rows:
    """What was written to a database that was empty before."""

    began: datetime
    ended: datetime
    """The writing. Moments in its rows are moved on, to look as if it ended when the rows are put back."""
    of: dict[str, str]
    """The rows of each table, as JSON."""
    columns: dict[str, str]
    """Of each table, what a SELECT that puts them back names."""
    version: int
    """Of the catalogue before, by `changes` less than afterwards."""
    changes: int


_kept: dict[Hashable, Rows] = {}


async def once(tx: Tx, key: Hashable, write: Callable[[], Awaitable[None]]) -> None:
    """What `write` writes; it is run where this process has no rows of it under `key` yet, or where the database is not empty."""
    if await _tables_in_use(tx):
        await write()
    elif key in _kept:
        await _put_back(tx, _kept[key])
    else:
        version = await _version(tx)
        await write()
        _kept[key] = await _read(tx, version)


async def _read(tx: Tx, version: int) -> Rows:
    of, columns = {}, {}
    for name in await _tables_in_use(tx):
        [row] = await fetch(tx, f"SELECT json_agg(t)::text AS rows FROM {name} t")
        of[name] = row["rows"]
        columns[name] = ", ".join(_put(r["attname"], r["atttypid"]) for r in await fetch(tx, _COLUMNS, name))
    [now] = await fetch(tx, "SELECT now() AS began, clock_timestamp() AS ended")
    return Rows(now["began"], now["ended"], of, columns, version, await _version(tx) - version)


_COLUMNS = """SELECT attname, atttypid::regtype::text AS atttypid FROM pg_attribute
    WHERE attrelid = $1::text::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum"""


def _put(column: str, kind: str) -> str:
    if kind != "timestamp with time zone":
        return column
    return f"CASE WHEN {column} >= $1 THEN {column} + (now() - $2) ELSE {column} END"


async def _put_back(tx: Tx, rows: Rows) -> None:
    inserts = [
        f"t{n} AS (INSERT INTO {name} SELECT {rows.columns[name]} FROM json_populate_recordset(NULL::{name}, ${n}::text::json))"
        for n, name in enumerate(rows.of, 3)
    ]
    # One statement: keys between its tables are looked at when it ends.
    await execute(tx, f"WITH {', '.join(inserts)} SELECT $1::timestamptz, $2::timestamptz", rows.began, rows.ended, *rows.of.values())
    shift = await _version(tx) - rows.version
    await execute(tx, "UPDATE catalog_version SET version = version + $1", rows.changes)
    if shift:
        await execute(
            tx,
            """UPDATE catalog_marks SET version = version + $1, stock_version = stock_version + $1 * sign(stock_version)::bigint,
              details_version = details_version + $1 * sign(details_version)::bigint""",
            shift,
        )


async def _version(tx: Tx) -> int:
    [row] = await fetch(tx, "SELECT version FROM catalog_version FOR UPDATE")
    return int(row["version"])


async def _tables_in_use(tx: Tx) -> list[str]:
    """Those that hold rows, of all that may be empty and had any before."""
    known = await fetch(
        tx,
        """SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relname <> ALL ($1) AND NOT relispartition
          AND (relkind = 'p' OR relkind = 'r' AND pg_relation_size(oid) > 0) ORDER BY relname""",
        ALWAYS,
    )
    used = await fetch(tx, " UNION ALL ".join(f"SELECT '{r['relname']}' AS name WHERE EXISTS (SELECT FROM {r['relname']})" for r in known))
    return [row["name"] for row in used]
