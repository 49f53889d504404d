"""While a restore is open: ask suppliers what became of orders that were open then, and read what they charged that we do not know of."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

from kameng_api.alarms import actions as alarms
from kameng_api.catalog import queries as catalog
from kameng_api.catalog.rules import Channel, Snapshot, unit_cost
from kameng_api.evidence import restores
from kameng_api.evidence.restores import Held, Offered, Standing
from kameng_api.jobs.upkeep import Chore, Desk, is_my_turn, stamp
from kameng_api.kit import log
from kameng_api.kit.clock import utc_now
from kameng_api.kit.db import Database
from kameng_api.suppliers.port import Accepted, Answer, Capabilities, Delivered, NotFound, Refused, StatementLine, Supplier
from kameng_api.suppliers.rules import not_found_proves_nothing_bought

_log = log.get()

_LOOK_S: Final = 2.0
_LOSSES_S: Final = 60.0
_CALL_S: Final = 30.0
_AT_ONCE: Final = 20
_CALLS_AT_ONCE: Final = 8


class StandingLoader:
    """Loads for a `Fresh` whether orders may be sent, and notes that the rows were seen where they belong."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def __call__(self) -> Standing:
        async with self._db.transaction() as tx:
            standing = await restores.find_standing(tx)
            if standing is not Standing.MOVED:
                await restores.note_seen(tx)
            return standing


async def look_into_restored(desk: Desk) -> int:
    """Ask about orders that were open at the restored point. Returns how many were asked about."""
    async with desk.db.transaction() as tx:
        if await restores.find_open(tx) is None:
            await alarms.keep_raised(tx, "restore_open", {})
            return 0
        if not await is_my_turn(tx, "restored_orders", _LOOK_S):
            return 0
        held = await restores.list_held(tx, _AT_ONCE)
        snapshot = await catalog.load_snapshot(tx)
        await alarms.keep_raised(tx, "restore_open", {"database": "a restore is open: orders are accepted and wait, none is sent to a supplier"})
        await stamp(tx, "restored_orders")
    for one in held:
        try:
            await _look_into(desk, snapshot, one)
        except Exception as trouble:  # one order spoils nothing for the others
            _log.warning("restored_order_not_asked", trouble=type(trouble).__name__)
    return len(held)


async def _look_into(desk: Desk, snapshot: Snapshot, held: Held) -> None:
    suppliers = _suppliers(desk, snapshot, held.order.environment)
    answers = await _ask_all(suppliers, held)
    for n, reference in held.references:
        for channel, supplier in suppliers:
            answer = answers.get((n, channel.channel_id))
            if supplier is not None and answer is not None and isinstance(answer.outcome, Delivered | Accepted | Refused):
                await _take_back(desk, snapshot, held, n, reference, channel, answer, supplier.capabilities)
                return
    unproven = [c.channel_id for c, s in suppliers if not _proves(s, held)]
    mute = [c.channel_id for c, s in suppliers if s is None or s.look_up is None or not s.capabilities.not_found_is_final]
    heard = [answers.get((n, c.channel_id)) for n, _ in held.references for c, _ in suppliers if c.channel_id not in mute]
    async with desk.db.transaction() as tx:
        if any(a is None or not isinstance(a.outcome, NotFound) for a in heard):
            return  # somebody did not answer: asked again
        if mute:
            await restores.note(tx, held, "person", f"cannot be asked by reference: {', '.join(mute)}")
        elif held.first_asked_at is not None and not unproven:
            await restores.note(tx, held, "free", "no supplier knows any attempt of it")
        else:
            await restores.note_asked(tx, held)


def _proves(supplier: Supplier | None, held: Held) -> bool:
    capabilities = Capabilities() if supplier is None else supplier.capabilities
    return not_found_proves_nothing_bought(capabilities, held.begun_at, held.first_asked_at, utc_now())


def _suppliers(desk: Desk, snapshot: Snapshot, environment: str) -> list[tuple[Channel, Supplier | None]]:
    """Every channel that may have been asked then, whatever is enabled now. None: it cannot be connected."""
    found: list[tuple[Channel, Supplier | None]] = []
    for _, channel in sorted(snapshot.channels.items()):
        if channel.environment == environment:
            try:
                found.append((channel, desk.supplier_of(channel)))
            except (LookupError, ValueError):
                found.append((channel, None))
    return found


async def _ask_all(suppliers: Sequence[tuple[Channel, Supplier | None]], held: Held) -> dict[tuple[int, str], Answer]:
    """(attempt number, channel) → what it says about the reference, where it says something."""
    gate = asyncio.Semaphore(_CALLS_AT_ONCE)

    async def ask(supplier: Supplier, reference: str) -> Answer | None:
        assert supplier.look_up is not None
        try:
            async with gate, asyncio.timeout(_CALL_S):
                return await supplier.look_up(reference)
        except Exception:
            return None

    asked = [
        (n, c.channel_id, ask(s, reference)) for n, reference in held.references for c, s in suppliers if s is not None and s.look_up is not None
    ]
    answers = await asyncio.gather(*(call for _, _, call in asked))
    return {(n, channel): answer for (n, channel, _), answer in zip(asked, answers, strict=True) if answer is not None}


async def _take_back(
    desk: Any, snapshot: Snapshot, held: Held, n: int, reference: str, channel: Channel, answer: Answer, capabilities: Capabilities
) -> None:
    order = held.order
    offer = next((o for o in snapshot.offers.get(order.sku, ()) if o.channel_id == channel.channel_id), None)
    cost = 0 if offer is None else unit_cost(offer, order.face_value) * order.remaining_units
    at = Offered(channel.channel_id, "" if offer is None else offer.product_code, cost, order.unit_price * order.remaining_units)
    async with desk.db.transaction() as tx:
        taken = await restores.take_back(tx, desk.keyring, held, n, reference, at, answer, capabilities)
    _log.info("lost_attempt_found", channel=channel.channel_id, reference=reference, taken=taken)


async def read_losses(desk: Desk) -> int:
    """Read the statements since the last commit that survived. Returns how many purchases nobody here knows of were found anew."""
    async with desk.db.transaction() as tx:
        open_ = await restores.find_open(tx)
        if open_ is None or not await is_my_turn(tx, "restore_losses", _LOSSES_S):
            return 0
        await stamp(tx, "restore_losses")
        channels = await catalog.list_channels(tx)
    found = 0
    for channel in channels:
        try:
            supplier = desk.supplier_of(channel)
            if supplier.statement is None or supplier.statement_terms is None:
                continue
            zone = ZoneInfo(supplier.statement_terms.timezone)
            day = (open_["last_commit_at"] - timedelta(hours=1)).astimezone(zone).date()
            lines: list[StatementLine] = []
            while day <= utc_now().astimezone(zone).date():
                async with asyncio.timeout(supplier.statement_terms.reading_s):
                    async for page in supplier.statement(day):
                        lines += page
                day += timedelta(days=1)
        except Exception as trouble:
            _log.warning("statement_not_read", channel=channel.channel_id, trouble=type(trouble).__name__)
            continue
        async with desk.db.transaction() as tx:
            found += await restores.record_losses(tx, channel.channel_id, lines)
    return found


CHORES: Final = (Chore("restores.look", _LOOK_S, look_into_restored), Chore("restores.losses", 10.0, read_losses))
