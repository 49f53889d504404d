"""Sets of rows as single statements, and many sets as one: a transaction's writes in one round trip.

Each column travels once as an array, or once as a value where all rows share it. Each room describes what it writes as a `Part`; whoever
holds the transaction sends all parts together, as one statement with data-modifying CTEs.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from operator import attrgetter
from typing import Any, Final

from asyncpg import PostgresError, UniqueViolationError

from kameng_api.kit.db import Tx, execute, fetch

_PLACEHOLDER: Final = re.compile(r"\$(\d+)")
REFUSED: Final = "KM001"
"""SQLSTATE by which a function of the schema refuses rows that a part wanted to write."""
_XID_MASK: Final = 0xFFFFFFFF  # row versions name the low half of a transaction id


@dataclass(frozen=True, slots=True)
class Column:
    """A column's name, its PostgreSQL type, and one value per row."""

    name: str
    type: str
    values: Sequence[Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Part:
    """One INSERT, UPDATE or DELETE of many rows. No two parts of one `write` may touch the same row: they all see the same snapshot.

    `must_touch`: how many rows it has to find; `write` raises `Moved` when it found fewer. `refusal`: what `write` raises when the statement
    ends with the SQLSTATE `REFUSED`.
    """

    sql: str
    values: tuple[Any, ...] = field(repr=False)
    must_touch: int | None = None
    refusal: type[Exception] | None = None


class Moved(Exception):
    """Rows that were to be written had been changed by somebody else: nothing of this transaction may stand."""


def columns_of(rows: Sequence[Any], spec: Sequence[tuple[str, str]]) -> list[Column]:
    """Columns from the attributes of the same names: `spec` lists (name, type)."""
    return [Column(name, type_, list(map(attrgetter(name), rows))) for name, type_ in spec]


def inserting(table: str, columns: Sequence[Column]) -> Part:
    """Insert all rows. The first column must be one in which rows differ, or stand for a single row."""
    shared = tuple(n > 0 and _is_shared(c.values) for n, c in enumerate(columns))
    sql = _insert_sql(table, tuple((c.name, c.type) for c in columns), shared)
    return Part(sql, _sent(columns, shared))


def updating(table: str, keys: Sequence[Column], columns: Sequence[Column], *, written_by: Sequence[int] | None = None) -> Part:
    """Update each row found by its keys with its own values.

    `written_by`: per row, the transaction id (`pg_current_xact_id()`) that wrote the version these values were decided from. Every row must
    still be that version, or the write raises `Moved`: a copy kept in memory is as good as a locked row as long as this holds.
    """
    if written_by is not None:
        keys = (*keys, Column("xmin", "xid", [xid & _XID_MASK for xid in written_by]))
    everything = (*keys, *columns)
    shared = tuple(n >= len(keys) and _is_shared(c.values) for n, c in enumerate(everything))
    sql = _update_sql(table, tuple((c.name, c.type) for c in everything), len(keys), shared)
    return Part(sql, _sent(everything, shared), None if written_by is None else len(written_by))


async def write(tx: Tx, parts: Sequence[Part]) -> None:
    """Send all parts as one statement. Raises `Moved` or a part's `refusal`, and then nothing of the transaction may be committed."""
    if not parts:
        return
    try:
        await _send(tx, parts)
    except PostgresError as raised:
        refusal = next((p.refusal for p in parts if p.refusal is not None), None) if raised.sqlstate == REFUSED else None
        if refusal is None:
            raise
        raise refusal from raised


async def _send(tx: Tx, parts: Sequence[Part]) -> None:
    values = [value for p in parts for value in p.values]
    counted = tuple(n for n, p in enumerate(parts) if p.must_touch is not None)
    if counted:
        try:
            [found] = await fetch(tx, _together(tuple(p.sql for p in parts), counted), *values)
        except UniqueViolationError as taken:  # whoever changed the rows has also inserted what belongs to them
            raise Moved from taken
        if any(found[i] != parts[n].must_touch for i, n in enumerate(counted)):
            raise Moved
    else:
        await execute(tx, _together(tuple(p.sql for p in parts)) if len(parts) > 1 else parts[0].sql, *values)


def _sent(columns: Sequence[Column], shared: tuple[bool, ...]) -> tuple[Any, ...]:
    return tuple(c.values[0] if one else c.values for c, one in zip(columns, shared, strict=True))


def _is_shared(values: Sequence[Any]) -> bool:
    # By identity: cheap, never wrong, and true for None and for the constants that rules and catalogue hand out.
    first = values[0]
    return all(value is first for value in values)


@lru_cache(maxsize=1024)
def _together(statements: tuple[str, ...], counted: tuple[int, ...] = ()) -> str:
    """One statement of all; with `counted`, its one row says how many rows each of those statements touched."""
    taken = 0
    numbered: list[str] = []
    for sql in statements:
        count = max(int(n) for n in _PLACEHOLDER.findall(sql))
        numbered.append(_PLACEHOLDER.sub(lambda m, taken=taken: f"${int(m.group(1)) + taken}", sql))  # type: ignore[misc]
        taken += count
    if counted:
        inner = ", ".join(f"w{n} AS ({sql}{' RETURNING 1' if n in counted else ''})" for n, sql in enumerate(numbered))
        return f"WITH {inner} SELECT {', '.join(f'(SELECT count(*) FROM w{n})' for n in counted)}"
    before = ", ".join(f"w{n} AS ({sql})" for n, sql in enumerate(numbered[:-1]))
    return f"WITH {before} {numbered[-1]}"


@lru_cache(maxsize=1024)
def _insert_sql(table: str, columns: tuple[tuple[str, str], ...], shared: tuple[bool, ...]) -> str:
    chosen, source = _select(columns, shared)
    names = ", ".join(name for name, _ in columns)
    return f"INSERT INTO {table} ({names}) SELECT {', '.join(chosen)} {source}"


@lru_cache(maxsize=1024)
def _update_sql(table: str, columns: tuple[tuple[str, str], ...], keys: int, shared: tuple[bool, ...]) -> str:
    chosen, source = _select(columns, shared)
    sets = ", ".join(f"{name} = {value}" for (name, _), value in zip(columns[keys:], chosen[keys:], strict=True))
    where = " AND ".join(f"t.{name} = k.{name}" for name, _ in columns[:keys])
    return f"UPDATE {table} t SET {sets} {source} WHERE {where}"


def _select(columns: tuple[tuple[str, str], ...], shared: tuple[bool, ...]) -> tuple[list[str], str]:
    """(what to select for each column, the FROM clause that unnests the arrays)."""
    chosen: list[str] = []
    arrays: list[str] = []
    names: list[str] = []
    for n, ((name, type_), one) in enumerate(zip(columns, shared, strict=True), 1):
        if one:
            chosen.append(f"${n}::{type_}")
        else:
            chosen.append(f"k.{name}")
            arrays.append(f"${n}::{type_}[]")
            names.append(name)
    return chosen, f"FROM unnest({', '.join(arrays)}) AS k ({', '.join(names)})"
