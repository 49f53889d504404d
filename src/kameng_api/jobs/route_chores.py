"""What the clock does for routing: prices asked anew where a rule wants them fresh, promised volumes counted, days of decisions made and dropped."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from kameng_api.catalog import actions as catalog
from kameng_api.catalog import hand
from kameng_api.catalog import queries as catalog_queries
from kameng_api.catalog.rules import Channel, Snapshot
from kameng_api.jobs.upkeep import Chore, Desk, is_my_turn, stamp
from kameng_api.kit import log
from kameng_api.kit.db import fetch
from kameng_api.suppliers import volumes
from kameng_api.suppliers.port import SupplierProduct

_log = log.get()

_QUOTES_S: Final = 120.0
_VOLUMES_S: Final = 60.0
_DAYS_S: Final = 3_600.0
_DAYS_AHEAD: Final = 3
_PRODUCTS_CALL_S: Final = 60.0


async def ask_prices(desk: Desk) -> int:
    """Read the product lists of channels whose quotes may grow stale; costs and stock follow them. Returns how many answered."""
    async with desk.db.transaction() as tx:
        if not await is_my_turn(tx, "ask_prices", _QUOTES_S):
            return 0
        snapshot = await catalog_queries.load_snapshot(tx)
        await stamp(tx, "ask_prices")
    channels = _with_quotes(snapshot, datetime.now(UTC))
    answers = await asyncio.gather(*(_ask_products(desk, channel) for channel in channels))
    known = [(channel, listed) for channel, listed in zip(channels, answers, strict=True) if listed is not None]
    for channel, listed in known:
        async with desk.db.transaction() as tx:
            await catalog.record_quotes(tx, channel.channel_id, [(p.product_code, p.cost) for p in listed if p.available])
            await catalog.record_stock(tx, channel.channel_id, [(p.product_code, p.stock if p.available else 0) for p in listed])
    return len(known)


def _with_quotes(snapshot: Snapshot, now: datetime) -> list[Channel]:
    wanted = {
        offer.channel_id
        for offers in snapshot.offers.values()
        for offer in offers
        if hand.terms_of(snapshot.hand, offer.channel_id, offer.sku, now).quote_ttl_s is not None
    }
    return [channel for channel_id, channel in sorted(snapshot.channels.items()) if channel_id in wanted and channel.status == "enabled"]


async def _ask_products(desk: Desk, channel: Channel) -> Sequence[SupplierProduct] | None:
    try:
        ask = desk.supplier_of(channel).products
        if ask is None:
            return None
        async with asyncio.timeout(_PRODUCTS_CALL_S):
            return await ask()
    except Exception as trouble:
        _log.warning("prices_not_read", channel=channel.channel_id, trouble=type(trouble).__name__)
        return None


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
    Chore("ask_prices", _QUOTES_S, ask_prices),
    Chore("count_volumes", _VOLUMES_S, count_volumes),
    Chore("turn_days", _DAYS_S, turn_days),
)
