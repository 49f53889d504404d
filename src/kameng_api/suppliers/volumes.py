"""What channels have delivered by business day, counted from the attempts, so that commitments know how far they are."""

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from uuid import UUID

from kameng_api.catalog.hand import Counted, Hand, list_commitments, period_days
from kameng_api.kit.db import Tx, execute, fetch

# By the day of sending: what was sent before midnight and delivered after it counts for the day on which we kept the promise.
_COUNT = """
INSERT INTO channel_volumes (day, channel_id, sku, units, cost)
SELECT $1, a.channel_id, coalesce(a.sku, o.sku), sum(a.delivered_units), sum(greatest(coalesce(a.actual_cost, a.cost) - a.reversed_amount, 0))
FROM attempts a LEFT JOIN orders o ON a.sku IS NULL AND o.book_id = a.book_id AND o.order_id = a.order_id
WHERE a.channel_id = ANY ($2::text[]) AND a.state = 'delivered'
  AND a.sent_at >= $1::date::timestamp AT TIME ZONE 'Asia/Shanghai' AND a.sent_at < ($1::date + 1)::timestamp AT TIME ZONE 'Asia/Shanghai'
GROUP BY 2, 3
ON CONFLICT (day, channel_id, sku) DO UPDATE SET units = excluded.units, cost = excluded.cost
WHERE (channel_volumes.units, channel_volumes.cost) IS DISTINCT FROM (excluded.units, excluded.cost)
"""


async def record_volumes(tx: Tx, day: date, channel_ids: Sequence[str]) -> int:
    """Count one business day anew for these channels; returns how many (channel, SKU) have changed."""
    return await execute(tx, _COUNT, day, sorted(set(channel_ids)))


_DONE = """
SELECT k.rule_id, coalesce(sum(CASE WHEN k.in_units THEN v.units ELSE v.cost END), 0)::bigint AS done
FROM unnest($1::uuid[], $2::text[], $3::text[], $4::boolean[], $5::date[]) AS k (rule_id, channel_id, sku, in_units, first_day)
LEFT JOIN channel_volumes v ON v.channel_id = k.channel_id AND (k.sku IS NULL OR v.sku = k.sku) AND v.day >= k.first_day
GROUP BY 1
"""


async def load_done(tx: Tx, hand: Hand, now: datetime) -> Mapping[UUID, int]:
    """Commitment's rule → how much of it is done in its present period: units, or 1/10000 units of cost."""
    wanted = list_commitments(hand, now)
    if not wanted:
        return {}
    rows = await fetch(
        tx, _DONE,
        [rule.rule_id for rule, _ in wanted],
        [rule.scope.channel_id for rule, _ in wanted],
        [rule.scope.sku for rule, _ in wanted],
        [facts.counts is Counted.UNITS for _, facts in wanted],
        [period_days(facts.period, now)[0] for _, facts in wanted],
    )  # fmt: skip
    return {row["rule_id"]: row["done"] for row in rows}
