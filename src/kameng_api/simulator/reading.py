"""Reads the simulator's file beside the writer: the log as tests see it."""

import asyncio
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from kameng_api.kit.money import format_amount

# Public name of a log → its table.
TABLES: Final[Mapping[str, str]] = {
    "deliveries": "delivery",
    "orders": "sim_order",
    "movements": "movement",
    "log": "request",
    "callbacks": "callback",
}
_TOTALS: Final = """
SELECT s.name, s.balance,
    (SELECT count(*) FROM request r WHERE r.supplier = s.name) AS requests,
    (SELECT count(*) FROM sim_order o WHERE o.supplier = s.name) AS orders,
    (SELECT count(*) FROM delivery d WHERE d.supplier = s.name) AS deliveries,
    (SELECT count(*) FROM delivery d WHERE d.supplier = s.name AND d.reversed_at IS NOT NULL) AS reversed,
    (SELECT coalesce(sum(amount), 0) FROM movement m WHERE m.supplier = s.name) AS moved,
    (SELECT coalesce(-sum(amount), 0) FROM movement m
        WHERE m.supplier = s.name AND kind IN ('CHARGE', 'REFUND', 'REVERSAL')) AS charged
FROM supplier s ORDER BY s.name"""


class File:
    """A second, read-only connection; every read runs in a thread."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def rows(self, log: str, reference: str | None, supplier: str | None, after: int, limit: int) -> list[dict[str, Any]]:
        """At most `limit` committed rows with an id above `after`, oldest first; amounts are integers of 1/10000."""
        where, values = ["id > ?"], [after, limit]
        for column, value in (("reference", reference), ("supplier", supplier)):
            if value is not None:
                where.append(f"{column} = ?")
                values.insert(-1, value)  # type: ignore[arg-type]
        text = f"SELECT * FROM {TABLES[log]} WHERE {' AND '.join(where)} ORDER BY id LIMIT ?"
        return await asyncio.to_thread(self._read, text, values)

    async def totals(self) -> dict[str, Any]:
        """Per supplier and over all; `charged` is what orders cost net of refunds and reversals."""
        rows = await asyncio.to_thread(self._read, _TOTALS, [])
        return {
            "suppliers": [{**row, **{name: format_amount(row[name]) for name in ("balance", "moved", "charged")}} for row in rows],
            "deliveries": sum(row["deliveries"] for row in rows),
            "orders": sum(row["orders"] for row in rows),
        }

    def _read(self, text: str, values: list[Any]) -> list[dict[str, Any]]:
        connection = sqlite3.connect(f"file:{self._path}?mode=ro", uri=True)
        try:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute(text, values)]
        finally:
            connection.close()
