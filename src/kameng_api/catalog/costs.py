"""What each offer was reckoned with, since when, and on whose word."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from kameng_api.kit.db import Tx, execute, fetch

_NOTE: Final = """
INSERT INTO offer_costs (channel_id, sku, since, unit_cost, rate_ppm, said_by)
SELECT o.channel_id, o.sku, clock_timestamp(), o.unit_cost, o.rate_ppm, $3 FROM offers o
LEFT JOIN LATERAL (
  SELECT c.unit_cost, c.rate_ppm FROM offer_costs c WHERE c.channel_id = o.channel_id AND c.sku = o.sku ORDER BY c.since DESC LIMIT 1
) c ON true
WHERE o.channel_id = $1 AND o.sku = ANY ($2::text[]) AND (c.unit_cost, c.rate_ppm) IS DISTINCT FROM (o.unit_cost, o.rate_ppm)
"""


async def note_costs(tx: Tx, channel_id: str, skus: Sequence[str], said_by: str) -> None:
    """What we reckon with from now on, where it is another cost than before."""
    await execute(tx, _NOTE, channel_id, list(skus), said_by)


async def list_costs(tx: Tx, channel_id: str, sku: str, *, before: datetime | None = None, limit: int = 100) -> list[Mapping[str, Any]]:
    """Rows of `offer_costs`, newest first; `before` is the `since` of the last one seen."""
    rows = await fetch(
        tx,
        """SELECT channel_id, sku, since, unit_cost, rate_ppm, said_by FROM offer_costs
        WHERE channel_id = $1 AND sku = $2 AND ($3::timestamptz IS NULL OR since < $3) ORDER BY since DESC LIMIT $4""",
        channel_id, sku, before, limit,
    )  # fmt: skip
    return [dict(row) for row in rows]
