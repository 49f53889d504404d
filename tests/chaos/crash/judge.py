"""Whether a lane came out of it well: quiet at last, and then the supplier's own log, the merchant's own receiver and the books agree."""

import asyncio
from typing import Any, Final

from tests.chaos.crash.scenarios import Told, insist
from tests.chaos.crash.stage import SELLERS, Lane

from kameng_api.reconciliation import invariants

_QUIET_S: Final = 60.0
_BUSY: Final = """
SELECT (SELECT count(*) FROM orders WHERE status IN ('accepted', 'processing')) AS orders,
  (SELECT count(*) FROM tasks WHERE lane <> 'upkeep') AS tasks,
  (SELECT count(*) FROM batches WHERE final_counts IS NULL AND state <> 'validated') AS batches,
  (SELECT count(*) FROM events WHERE xid >= (SELECT upto_xid FROM fanout_marks WHERE book_range = 0)) AS events,
  (SELECT count(*) FROM alarms WHERE sent_at IS NULL AND detail = 'for a test') AS alarms
"""
_ORDERS: Final = """
SELECT o.merchant_order_no AS number, o.sku, o.status, o.delivered_units, o.refunded,
  array_agg(a.reference) FILTER (WHERE a.reference IS NOT NULL) AS refs
FROM orders o LEFT JOIN attempts a USING (book_id, order_id) WHERE o.merchant_order_no = ANY ($1) GROUP BY o.book_id, o.order_id
"""
_ROUTED: Final = """
(SELECT decided_at AS at, action AS said, channel_id, reason FROM route_decisions d JOIN orders o USING (book_id, order_id)
  WHERE o.status IN ('accepted', 'processing') ORDER BY decided_at DESC LIMIT 3)
UNION ALL (SELECT at, state, channel_id, reason FROM channel_transitions ORDER BY at DESC LIMIT 6)
UNION ALL (SELECT until, 'probing until', channel_id, sku FROM route_probes)
"""
_TOLD_LATE: Final = """
SELECT count(*) FROM incidents i JOIN orders o USING (book_id, order_id)
WHERE o.merchant_order_no = ANY ($1) AND i.kind = 'late_success'
"""


async def quiet(lane: Lane) -> None:
    """Until nothing is under way or due any more. Raises AssertionError with what still is."""
    row: Any = None
    for turn in range(int(_QUIET_S / 0.05)):
        row = await lane.owner.fetchrow(_BUSY)
        if not any(row):
            return
        if turn % 2:
            await lane.hurry()
        await asyncio.sleep(0.05)
    tasks = await lane.owner.fetch("SELECT lane, state, attempts, trouble, run_at - now() AS due FROM tasks")
    routed = [dict(r) for r in await lane.owner.fetch(_ROUTED)]
    raise AssertionError(f"not quiet: {dict(row)}, {[dict(t) for t in tasks]}; what the router said: {routed}")


async def judge(lane: Lane, told: Told, *, late: bool = False) -> None:
    """Raises AssertionError for an order that was lost, ended otherwise than it must, was bought twice, or of which nobody was told.

    An order may fail when its suppliers were used up and deaths kept it from reaching one of them: by that supplier's own log, it never came.
    """
    numbers = sorted(told.ends)
    rows = {r["number"]: r for r in await lane.owner.fetch(_ORDERS, numbers)}
    assert set(rows) == set(numbers), f"acknowledged and gone: {set(numbers) - set(rows)}"
    for number, row in rows.items():
        assert row["delivered_units"] == (row["status"] == "succeeded"), (number, dict(row))
        references = row["refs"] or []
        delivered = lane.world.delivered(references)
        assert sum(delivered.values()) == row["delivered_units"] + late, (number, delivered, dict(row))
        asked = lane.world.asked_to_place(references)
        assert all(times == 1 for times in asked.values()), number
        kept_from_us = told.deaths and row["status"] == "failed" and len(references) >= SELLERS[row["sku"]] and len(asked) < len(references)
        assert kept_from_us or row["status"] in told.ends[number].split("|"), (number, dict(row), told.ends[number], asked)
    heard = [t for t in lane.world.receiver.told.get(lane.name, ()) if t["data"]["object"].get("merchant_order_no") in rows]
    finals = {(t["data"]["object"]["merchant_order_no"], t["type"]) for t in heard}
    assert {(n, f"order.{row['status']}") for n, row in rows.items()} <= finals, (told.ends, finals)
    bodies: dict[str, dict[str, Any]] = {}
    for t in heard:
        assert bodies.setdefault(t["id"], t) == t, "the same event with another body"
    for order_id in told.refunded:
        shown = (await insist(lambda order_id=order_id: lane.client.get(f"/v1/orders/{order_id}/refunds"))).json()["items"]  # type: ignore[misc]
        assert len(shown) == 1, (order_id, shown)
    if late:
        assert await lane.owner.fetchval(_TOLD_LATE, numbers) == 1
    async with lane.db.transaction() as tx:
        assert await invariants.check_all(tx) == []
