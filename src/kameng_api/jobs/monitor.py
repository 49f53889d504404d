"""The monitor's clock: what must be true is looked at minute by minute, and a book whose own money does not add up is stopped."""

from typing import Final

from kameng_api.alarms import actions as alarms
from kameng_api.jobs.stops import stop, tell_of_stops
from kameng_api.jobs.upkeep import Chore, Desk, by_subject, is_my_turn, stamp
from kameng_api.ledger.queries import Breach
from kameng_api.reconciliation import chain, invariants, monitor
from kameng_api.reconciliation.monitor import Trouble

_MINUTE_S: Final = 60.0
_DAY_S: Final = 86_400.0
_ALARMS_BY_MINUTE: Final = ("wallet_drift", "lane_late", "rollup_lag", "dead_rows")
"""Fan-out and seals have watches of their own (`jobs.upkeep`, `jobs.evidence`), which raise and close their alarms."""


async def check_money(desk: Desk) -> list[Breach]:
    """M1 and M2 over what was posted since the last minute."""
    async with desk.db.transaction() as tx:
        if not await is_my_turn(tx, "check_money", _MINUTE_S):
            return []
        found = await chain.check_chains(tx) + await invariants.check_sums(tx)
        await alarms.raise_alarms(tx, "invariant_broken", by_subject(found))
        await stop(tx, found)
        await stamp(tx, "check_money")
    return found


async def watch_figures(desk: Desk) -> list[Trouble]:
    """M6 to M8: nothing is stopped, a person is told."""
    async with desk.db.transaction() as tx:
        if not await is_my_turn(tx, "watch_figures", _MINUTE_S):
            return []
        found = await monitor.check_wallets(tx) + await monitor.check_lateness(tx) + await monitor.check_horizon(tx)
        for kind in _ALARMS_BY_MINUTE:
            await alarms.keep_raised(tx, kind, {t.subject: t.detail for t in found if t.alarm == kind})
        await tell_of_stops(tx)  # so that a lift closes its alarm
        await stamp(tx, "watch_figures")
    return found


async def watch_suspense(desk: Desk) -> list[Trouble]:
    """M9, once a day."""
    async with desk.db.transaction() as tx:
        if not await is_my_turn(tx, "watch_suspense", _DAY_S):
            return []
        found = await monitor.check_suspense(tx)
        await alarms.keep_raised(tx, "suspense_old", {t.subject: t.detail for t in found})
        await stamp(tx, "watch_suspense")
    return found


CHORES: Final[tuple[Chore, ...]] = (
    Chore("check_money", _MINUTE_S, check_money),
    Chore("watch_figures", _MINUTE_S, watch_figures),
    Chore("watch_suspense", 3600.0, watch_suspense),
)
