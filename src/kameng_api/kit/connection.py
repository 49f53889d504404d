"""A connection of asyncpg that asks for PostgreSQL's own array types once per process, not once for each connection and statement.

asyncpg 0.32 knows scalars, but not `text[]` or `uuid[]`: whenever a connection first meets one, it looks it up in the catalogue, in up to
three round trips and 5 to 10 ms of the server's time. It has no public door for this; should it lose the private one that is overridden
here, connections ask again as before.
"""

from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any, Final

import asyncpg

_ARRAYS: Final = frozenset(
    (199, 1000, 1001, 1003, 1005, 1007, 1009, 1015, 1016, 1022, 1028, 1041, 1115, 1182, 1185, 1187, 1231, 2210, 2951, 3807)
)
"""Of json, bool, bytea, name, int2, int4, text, varchar, int8, float8, oid, inet, timestamp, date, timestamptz, interval, numeric, regclass,
uuid and jsonb. Numbers below 10,000 are the same in every PostgreSQL (pg_type.dat)."""
_NOTHING_PREPARED: Final = SimpleNamespace(name="none")
"""Stands for the statement that would have found out, and would have taken the place of an unnamed one."""

_found: list[Any] = []
"""What the catalogue said of `_ARRAYS`."""


class Connection(asyncpg.Connection):
    """As asyncpg's own."""

    __slots__ = ()

    async def _introspect_types(self, typeoids: Iterable[int], timeout: float) -> Any:
        """(rows of the catalogue, the statement that read them)."""
        if not _ARRAYS.issuperset(typeoids):
            return await super()._introspect_types(typeoids, timeout)  # type: ignore[misc]
        if _found:
            return _found, _NOTHING_PREPARED
        rows, statement = await super()._introspect_types(_ARRAYS, timeout)  # type: ignore[misc]
        _found[:] = rows
        return rows, statement
