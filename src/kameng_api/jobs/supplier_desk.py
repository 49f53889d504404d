"""Counts what suppliers' wallets burn, and tells a person in time: of wallets that end, of channels that paused, of papers that run out.

Killed at any moment, nothing is lost: the charges of the last hours are counted anew each time, and alarms are the whole truth of one moment.
"""

from datetime import datetime
from typing import Final

from kameng_api.alarms import actions as alarms
from kameng_api.catalog import queries as catalog
from kameng_api.catalog.rules import Channel
from kameng_api.jobs.upkeep import Chore, Desk, is_my_turn, stamp
from kameng_api.kit.clock import utc_now, wire_time
from kameng_api.kit.db import Tx
from kameng_api.kit.money import format_amount
from kameng_api.operators import suppliers
from kameng_api.suppliers.desk import actions, queries, rules

_COUNT_S: Final = 300.0
_WATCH_S: Final = 60.0


async def count_burns(desk: Desk) -> int:
    """Count what each wallet was charged by the hour. Returns how many hours were written."""
    async with desk.db.transaction() as tx:
        if not await is_my_turn(tx, "count_burns", _COUNT_S):
            return 0
        counted = await actions.count_burns(tx, utc_now())
        await stamp(tx, "count_burns")
    return counted


async def watch_suppliers(desk: Desk) -> None:
    """Raise and close the alarms of the supplier desk."""
    async with desk.db.transaction() as tx:
        if not await is_my_turn(tx, "watch_suppliers", _WATCH_S):
            return
        now = utc_now()
        enabled = [channel for channel in await catalog.list_channels(tx) if channel.status == "enabled"]
        await _watch_wallets(tx, enabled)
        await _watch_documents(tx, {channel.channel_id for channel in enabled}, now)
        await stamp(tx, "watch_suppliers")


async def _watch_wallets(tx: Tx, channels: list[Channel]) -> None:
    paused = {
        c.channel_id: f"the supplier said {format_amount(c.wallet_balance or 0)}; no new orders since {wire_time(c.wallet_paused_at)} until it holds "
        f"{format_amount(c.floor_now)}"
        for c in channels
        if c.wallet_paused_at is not None
    }
    await alarms.keep_raised(tx, "wallet_paused", paused)
    watched = [c for c in channels if c.wallet_hours_left is not None and c.wallet_balance is not None]
    wallets = await suppliers.read_wallets(tx, watched)
    ending = {}
    for c in watched:
        assert c.wallet_hours_left is not None
        wallet = wallets[c.channel_id]
        if wallet.left_s is not None and wallet.left_s < c.wallet_hours_left * 3600:
            ending[c.channel_id] = (
                f"{format_amount(max(wallet.spendable or 0, 0))} left, empty in {wallet.left_s / 3600:.1f} h at "
                f"{format_amount(wallet.rates.last_hour)} an hour; alarm below {c.wallet_hours_left} h"
            )
    await alarms.keep_raised(tx, "wallet_ends", ending)


async def _watch_documents(tx: Tx, enabled: set[str], now: datetime) -> None:
    documents = [one for one in await queries.list_documents(tx) if one.channel_id in enabled]
    ending, ended = rules.reminders(documents, now.astimezone(rules.HOME).date())
    await alarms.keep_raised(tx, "document_ending", ending)
    await alarms.keep_raised(tx, "document_ended", ended)


CHORES: Final[tuple[Chore, ...]] = (
    Chore("count_burns", _COUNT_S, count_burns),
    Chore("watch_suppliers", _WATCH_S, watch_suppliers),
)
