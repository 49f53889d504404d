"""What the clock does for routing: promised volumes counted, days of decisions made and dropped."""

from datetime import UTC, datetime, timedelta
from typing import Final

from kameng_api.catalog import actions as catalog
from kameng_api.catalog import hand
from kameng_api.catalog import queries as catalog_queries
from kameng_api.jobs.upkeep import Chore, Desk, is_my_turn, stamp
from kameng_api.kit.db import fetch
from kameng_api.suppliers import volumes

_VOLUMES_S: Final = 60.0
_DAYS_S: Final = 3_600.0
_DAYS_AHEAD: Final = 3


async def count_volumes(desk: Desk) -> int:
    """Count what was delivered today and yesterday by channels to which volumes were promised. Returns how many lines changed."""
    async with desk.db.transaction() as tx:
        if not await is_my_turn(tx, "count_volumes", _VOLUMES_S):
            return 0
        now = datetime.now(UTC)
        rules = hand.gather(await catalog_queries.list_rules(tx))
        channels = sorted({rule.scope.channel_id for rule, _ in hand.list_commitments(rules, now) if rule.scope.channel_id is not None})
        today = now.astimezone(hand.BUSINESS_ZONE).date()
        changed = 0
        for day in (today - timedelta(days=1), today) if channels else ():
            changed += await volumes.record_volumes(tx, day, channels)
        await stamp(tx, "count_volumes")
    return changed


async def turn_days(desk: Desk) -> int:
    """Make the coming days of decisions, drop those that are past their age, and forget rules that ended long ago."""
    days = desk.settings.keep_route_days
    async with desk.db.transaction() as tx:
        if not await is_my_turn(tx, "turn_days", _DAYS_S):
            return 0
        [row] = await fetch(tx, "SELECT route_partitions($1, $2) AS changed", _DAYS_AHEAD, days)
        await catalog.prune_rules(tx, days=days)
        await stamp(tx, "turn_days")
    return int(row["changed"])


CHORES: Final[tuple[Chore, ...]] = (
    Chore("count_volumes", _VOLUMES_S, count_volumes),
    Chore("turn_days", _DAYS_S, turn_days),
)
