"""Sets of rows as single statements: each column travels once as an array, or once as a value where all rows share it."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import attrgetter
from typing import Any

from kameng_api.kit.db import Tx, execute


@dataclass(frozen=True, slots=True)
class Column:
    """A column's name, its PostgreSQL type, and one value per row."""

    name: str
    type: str
    values: Sequence[Any]


def columns_of(rows: Sequence[Any], spec: Sequence[tuple[str, str]]) -> list[Column]:
    """Columns from the attributes of the same names: `spec` lists (name, type)."""
    return [Column(name, type_, list(map(attrgetter(name), rows))) for name, type_ in spec]


async def insert(tx: Tx, table: str, columns: Sequence[Column]) -> int:
    """INSERT all rows with one statement. The first column must be one in which rows differ, or stand for a single row."""
    shared = tuple(n > 0 and _is_shared(c.values) for n, c in enumerate(columns))
    sql = _insert_sql(table, tuple((c.name, c.type) for c in columns), shared)
    return await execute(tx, sql, *(c.values[0] if one else c.values for c, one in zip(columns, shared, strict=True)))


async def update(tx: Tx, table: str, keys: Sequence[Column], columns: Sequence[Column]) -> int:
    """UPDATE each row found by its keys with its own values, by one statement."""
    everything = (*keys, *columns)
    shared = tuple(n >= len(keys) and _is_shared(c.values) for n, c in enumerate(everything))
    sql = _update_sql(table, tuple((c.name, c.type) for c in everything), len(keys), shared)
    return await execute(tx, sql, *(c.values[0] if one else c.values for c, one in zip(everything, shared, strict=True)))


def _is_shared(values: Sequence[Any]) -> bool:
    # By identity: cheap, never wrong, and true for None and for the constants that rules and catalogue hand out.
    first = values[0]
    return all(value is first for value in values)


@lru_cache(maxsize=512)
def _insert_sql(table: str, columns: tuple[tuple[str, str], ...], shared: tuple[bool, ...]) -> str:
    chosen, source = _select(columns, shared)
    names = ", ".join(name for name, _ in columns)
    return f"INSERT INTO {table} ({names}) SELECT {', '.join(chosen)} {source}"


@lru_cache(maxsize=512)
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
