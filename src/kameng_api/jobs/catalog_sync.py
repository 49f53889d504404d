"""Reads suppliers' lists: the whole on its clock, changes where the vendor tells them, and line by line what somebody hints at.

Claim (a lease on the channel's list) · call (no transaction) · record, page by page. A worker may die at any moment: the pages it recorded
stand, its lease ends, the next one begins anew, and what did not change is not written again. Only a list that was read to its end says
that something is gone.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol, TypeVar

from kameng_api.alarms import actions as alarms
from kameng_api.catalog import hand
from kameng_api.catalog import queries as catalog
from kameng_api.catalog.rules import Channel, Snapshot
from kameng_api.jobs.upkeep import Chore, is_my_turn, stamp
from kameng_api.kit import log
from kameng_api.kit.clock import wire_time
from kameng_api.kit.db import Database, Tx, fetch
from kameng_api.kit.fresh import Fresh
from kameng_api.settings import Settings
from kameng_api.suppliers.listings import actions, queries, reviews, rules, wishes
from kameng_api.suppliers.listings.actions import Claim, End, LeaseLost, Reading
from kameng_api.suppliers.port import AnswerUnusable, Supplier, SupplierProduct

_log = log.get()

_SYNC_S: Final = 5.0
_WATCH_S: Final = 60.0
_PRUNE_S: Final = 3_600.0
_QUOTES_S: Final = 120.0
"""How old the costs of a channel may be where a rule bounds the age of its quotes."""
_LEASE_S: Final = 180
_PAGE_CALL_S: Final = 120.0
_LINE_CALL_S: Final = 30.0
_AT_ONCE: Final = 2
_LINES_AT_ONCE: Final = 1_000
_MOST_PAGES: Final = 100_000
_MOST_CONFIRMED: Final = 500
"""Lines we sell that a whole reading lacks are asked for one by one, so many of a reading; more are believed to be gone as the list says."""
_HINTS_AT_ONCE: Final = 50
_HINTS_PER_TURN: Final = 2_000
_TROUBLES_IN_A_ROW: Final = 5
"""Lines hinted at that cannot be read one after another: then it is the vendor, not the line."""
_WHOLE_FOR_HINTS_S: Final = 300.0
_OVERLAP: Final = timedelta(minutes=2)
"""Changes are asked for from a little before the last time: a vendor's clock and ours differ, and a line that is read twice costs a call."""
_FIRST_CHANGES: Final = timedelta(days=1)
_STALE_AFTER: Final = 3
_PRUNE_AT_ONCE: Final = 5_000
_MOST_PRUNED: Final = 100

Item = TypeVar("Item")


class Desk(Protocol):
    """What this job needs of its process."""

    @property
    def db(self) -> Database: ...

    @property
    def settings(self) -> Settings: ...

    @property
    def catalog(self) -> Fresh[Snapshot]: ...

    def supplier_of(self, channel: Channel) -> Supplier:
        """Raises LookupError or ValueError when it cannot be connected."""
        ...


async def sync_catalogs(desk: Desk) -> int:
    """Read every list that is due. Returns how many were taken up. Several workers share the work."""
    await _open_lists(desk)
    quoting = _quoting(desk.catalog.current, datetime.now(UTC))
    return sum(await asyncio.gather(*(_work(desk, quoting) for _ in range(_AT_ONCE))))


async def _open_lists(desk: Desk) -> None:
    """Channels of whose list nobody has heard begin to be read, spread over their period."""
    async with desk.db.transaction() as tx:
        known = {one.channel_id for one in await queries.list_lists(tx)}
    channels = desk.catalog.current.channels
    found = [c for channel_id, c in sorted(channels.items()) if channel_id not in known and c.status == "enabled" and _has_list(desk, c)]
    if found:
        every_s = desk.settings.catalog_sync_s
        waits = [(c.channel_id, rules.first_after_s(every_s or _DAY_S, c.channel_id)) for c in found]
        async with desk.db.transaction() as tx:
            await actions.open_lists(tx, waits, every_s or _DAY_S, desk.settings.catalog_changes_s, enabled=every_s > 0)


_DAY_S: Final = 86_400


def _has_list(desk: Desk, channel: Channel) -> bool:
    """Whether anything can be read of its list."""
    try:
        return desk.supplier_of(channel).product is not None or _has_whole_list(desk, channel)
    except Exception:  # who buys there hears of it
        return False


def _has_whole_list(desk: Desk, channel: Channel) -> bool:
    try:
        return desk.supplier_of(channel).products is not None
    except Exception:
        return False


def _quoting(snapshot: Snapshot, now: datetime) -> list[str]:
    """Channels with an offer whose cost may not grow old."""
    wanted = {
        offer.channel_id
        for offers in snapshot.offers.values()
        for offer in offers
        if hand.terms_of(snapshot.hand, offer.channel_id, offer.sku, now).quote_ttl_s is not None
    }
    return sorted(wanted) if snapshot.hand.about_channels else []


async def _work(desk: Desk, quoting: Sequence[str]) -> int:
    taken = 0
    while True:
        async with desk.db.transaction() as tx:
            claim = await actions.claim_list(tx, quoting, _QUOTES_S, _LEASE_S)
            channel = None if claim is None else await catalog.get_channel(tx, claim.channel_id)
        if claim is None or channel is None:
            return taken
        taken += 1
        try:
            well = await _read_list(desk, claim, desk.supplier_of(channel), fresh=claim.channel_id in quoting)
        except LeaseLost:
            continue
        except Exception as trouble:
            _log.warning("list.not_read", channel=claim.channel_id, trouble=type(trouble).__name__)
            well = False
        async with desk.db.transaction() as tx:
            await actions.give_back(tx, claim, full=claim.full, failed=not well)


async def _read_list(desk: Desk, claim: Claim, supplier: Supplier, *, fresh: bool) -> bool:
    """Everything of this list that is due. False when the vendor did not answer as it should."""
    well = True
    if claim.full and supplier.products is not None:
        well = await Whole(desk, claim, supplier, fresh).read()
    elif claim.changes and supplier.changed_since is not None:
        well = await _note_changes(desk, claim, supplier)
    return well and await _follow_hints(desk, claim, supplier)


# ---- calling -----------------------------------------------------------------------------------------------------------


async def _paced(pages: AsyncIterator[Sequence[Item]], pause_s: float) -> AsyncIterator[Sequence[Item]]:
    """The pages, each within its time and a pause between two calls. Raises AnswerUnusable, TimeoutError."""
    for n in range(_MOST_PAGES):
        if n:
            await asyncio.sleep(pause_s)
        async with asyncio.timeout(_PAGE_CALL_S):
            try:
                page = await anext(pages)
            except StopAsyncIteration:
                return
        yield page
    raise AnswerUnusable("a list without an end")


async def _ask_line(supplier: Supplier, code: str, pause_s: float) -> SupplierProduct | None:
    """One line, fresh; None: the vendor does not know it. Raises AnswerUnusable, TimeoutError, LineUnusable."""
    assert supplier.product is not None
    await asyncio.sleep(pause_s)
    async with asyncio.timeout(_LINE_CALL_S):
        line = await supplier.product(code)
    if line is not None and line.product_code != code:
        raise AnswerUnusable("an answer about another line")
    return None if line is None else rules.clean_line(line)


def _spoken(trouble: Exception) -> str:
    """In words safe to keep: only an adapter's own sentence is quoted."""
    return str(trouble)[:200] if isinstance(trouble, AnswerUnusable) else type(trouble).__name__


_ANSWERED_BADLY: Final = (AnswerUnusable, rules.LineUnusable, TimeoutError)


# ---- the whole list ----------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Whole:
    """One whole reading: which lines were seen is one bit each, however long the list."""

    desk: Desk
    claim: Claim
    supplier: Supplier
    fresh: bool
    seen: bytearray = field(default_factory=bytearray)
    unusable: int = 0

    async def read(self) -> bool:
        """False when it did not come to its end: then nothing is gone."""
        reading = await _begin(self.desk, self.claim, "full")
        try:
            await self._read_pages(reading)
            how = await self._close_missing(reading)
        except LeaseLost:
            raise
        except Exception as trouble:
            how = End("failed", trouble=_spoken(trouble))
            _log.warning("list.broken_off", channel=reading.channel_id, trouble=how.trouble)
        async with self.desk.db.transaction() as tx:
            await actions.end(tx, reading, how)
            if how.state == "stopped":
                await alarms.raise_alarm(tx, "catalog_vanished", reading.channel_id, None, how.trouble or "")
            elif how.whole:
                await alarms.close_alarm(tx, "catalog_vanished", reading.channel_id)
        return how.state != "failed"

    async def _read_pages(self, reading: Reading) -> None:
        assert self.supplier.products is not None
        asked_at = self.claim.now
        async for page in _paced(self.supplier.products(), self.claim.pause_s):
            for part in _parts(page, _LINES_AT_ONCE):
                lines, odd = _clean(part)
                async with self.desk.db.transaction() as tx:
                    taken = await actions.take_page(tx, reading, lines, asked_at, fresh=self.fresh)
                    if taken.sold_out and self.supplier.product is not None:
                        await wishes.ask_again(tx, reading.channel_id, taken.sold_out)
                    self._mark(taken.numbers)
                    if odd:  # it is in the list, whatever it says: what we know of it stays
                        self._mark(await wishes.list_numbers(tx, reading.channel_id, odd))
                        self.unusable += len(odd)
            asked_at = taken.now if page else asked_at

    def _mark(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            place = number >> 3
            if place >= len(self.seen):
                self.seen.extend(bytes(place + 1 - len(self.seen) + 1024))
            self.seen[place] |= 1 << (number & 7)

    async def _close_missing(self, reading: Reading) -> End:
        async with self.desk.db.transaction() as tx:
            terms, numbered, _ = await actions.hold_lease(tx, reading)
            self.seen.extend(bytes(max(numbered // 8 + 1 - len(self.seen), 0)))
            standing, missing = await queries.count_missing(tx, reading.channel_id, bytes(self.seen))
            allowed = (await queries.get_list(tx, reading.channel_id)).may_vanish
        trouble = f"{self.unusable} line(s) cannot be meant" if self.unusable else None
        if rules.must_ask(standing, missing, terms.vanish, allowed):
            said = f"the list lacks {missing} of {standing} lines: none was closed, a person must agree"
            return End("stopped", trouble=said, missing=missing)
        await self._take_gone(reading)
        return End("done", whole=True, trouble=trouble, changes_upto=self.claim.now)

    async def _take_gone(self, reading: Reading) -> None:
        """Those that no list ever held are asked for alone as often as the list is read: nothing else tells what they cost."""
        seen, after, confirmed = bytes(self.seen), -1, 0
        while True:
            async with self.desk.db.transaction() as tx:
                missing = await queries.list_missing(tx, reading.channel_id, seen, after=after, limit=_LINES_AT_ONCE)
            if not missing:
                return
            after = missing[-1].number
            gone = [one.product_code for one in missing if not one.sold]
            for one in [one for one in missing if one.sold]:
                if self.supplier.product is None or (one.listed and confirmed >= _MOST_CONFIRMED):
                    is_gone = one.listed
                else:
                    is_gone = await self._is_gone(reading, one.product_code)
                    confirmed += one.listed
                if is_gone:
                    gone.append(one.product_code)
            async with self.desk.db.transaction() as tx:
                await actions.take_gone(tx, reading, gone)

    async def _is_gone(self, reading: Reading, code: str) -> bool:
        """Whether the vendor, asked for this line alone, does not know it either. A bad answer closes nothing."""
        async with self.desk.db.transaction() as tx:
            _, _, asked_at = await actions.hold_lease(tx, reading)
        try:
            line = await _ask_line(self.supplier, code, self.claim.pause_s)
        except _ANSWERED_BADLY:
            return False
        if line is None:
            return True
        async with self.desk.db.transaction() as tx:
            await actions.take_page(tx, reading, [line], asked_at, fresh=self.fresh, alone=True)
        return False


async def _begin(desk: Desk, claim: Claim, kind: str) -> Reading:
    async with desk.db.transaction() as tx:
        return await actions.begin(tx, claim, kind, _LEASE_S)


def _clean(lines: Sequence[SupplierProduct]) -> tuple[list[SupplierProduct], list[str]]:
    """(lines that can be meant, the last of each code; codes of those that cannot)."""
    good: dict[str, SupplierProduct] = {}
    odd: set[str] = set()
    for line in lines:
        try:
            good[line.product_code] = rules.clean_line(line)
        except rules.LineUnusable:
            odd.add(line.product_code)
    return [line for code, line in sorted(good.items()) if code not in odd], sorted(odd)


def _parts(page: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    for start in range(0, len(page), size):
        yield page[start : start + size]


# ---- changes and hints -------------------------------------------------------------------------------------------------


async def _note_changes(desk: Desk, claim: Claim, supplier: Supplier) -> bool:
    """Ask which lines have changed; each is then read for itself."""
    assert supplier.changed_since is not None
    since = claim.changes_upto
    if since is None:
        if supplier.products is not None:  # nothing was ever read whole: changes of what?
            return True
        since = claim.now - _FIRST_CHANGES
    reading = await _begin(desk, claim, "changes")
    try:
        async for codes in _paced(supplier.changed_since(since - _OVERLAP), claim.pause_s):
            async with desk.db.transaction() as tx:
                await actions.hold_lease(tx, reading)
                await wishes.note_hints(tx, reading.channel_id, codes)
        how = End("done", changes_upto=claim.now)
    except LeaseLost:
        raise
    except Exception as trouble:
        how = End("failed", trouble=_spoken(trouble))
    async with desk.db.transaction() as tx:
        await actions.end(tx, reading, how)
    return how.state == "done"


async def _follow_hints(desk: Desk, claim: Claim, supplier: Supplier) -> bool:
    """Read the lines somebody hints at, one by one; where the vendor cannot be asked so, the whole list soon."""
    async with desk.db.transaction() as tx:
        hints = await wishes.list_hints(tx, claim.channel_id, _HINTS_AT_ONCE)
        if hints and supplier.product is None:
            await wishes.want_whole(tx, claim.channel_id, at_most_every_s=_WHOLE_FOR_HINTS_S)
    if not hints or supplier.product is None:
        return True
    reading = await _begin(desk, claim, "hints")
    found = Followed()
    followed = 0
    while hints and found.in_a_row < _TROUBLES_IN_A_ROW and followed < _HINTS_PER_TURN:
        await _follow(desk, claim, supplier, reading, hints, found)
        followed += len(hints)
        async with desk.db.transaction() as tx:
            hints = await wishes.list_hints(tx, claim.channel_id, _HINTS_AT_ONCE)
    well = found.in_a_row < _TROUBLES_IN_A_ROW
    async with desk.db.transaction() as tx:
        await actions.end(tx, reading, End("done" if well else "failed", trouble=found.trouble))
    return well


@dataclass(slots=True)
class Followed:
    """How following hints goes: the last trouble with a line, and how many lines in a row could not be read."""

    trouble: str | None = None
    in_a_row: int = 0


async def _follow(
    desk: Desk, claim: Claim, supplier: Supplier, reading: Reading, hints: Sequence[tuple[str, datetime]], found: Followed
) -> None:
    """One handful, until too many in a row cannot be read. A line that cannot be read is put off and keeps no other waiting; one that cannot
    be meant is followed, and stays as it was.
    """
    async with desk.db.transaction() as tx:
        _, _, asked_at = await actions.hold_lease(tx, reading)
    lines: list[SupplierProduct] = []
    gone: list[str] = []
    followed: list[tuple[str, datetime]] = []
    unread: list[str] = []
    for code, at in hints:
        if found.in_a_row >= _TROUBLES_IN_A_ROW:
            break
        try:
            line = await _ask_line(supplier, code, claim.pause_s)
        except rules.LineUnusable:
            pass
        except (AnswerUnusable, TimeoutError) as error:
            found.trouble = _spoken(error)
            found.in_a_row += 1
            unread.append(code)
            continue
        else:
            if line is None:
                gone.append(code)
            else:
                lines.append(line)
        found.in_a_row = 0
        followed.append((code, at))
    async with desk.db.transaction() as tx:
        await actions.take_page(tx, reading, sorted(lines, key=lambda one: one.product_code), asked_at, alone=True)
        if gone:
            await actions.take_gone(tx, reading, gone)
        await wishes.drop_hints(tx, reading.channel_id, followed)
        if unread:
            await wishes.put_off_hints(tx, reading.channel_id, unread)


# ---- telling people, throwing away ---------------------------------------------------------------------------------------


async def watch_lists(desk: Desk) -> None:
    """Alarms that are read from the state of the lists."""
    whole = [channel_id for channel_id, channel in desk.catalog.current.channels.items() if _has_whole_list(desk, channel)]
    async with desk.db.transaction() as tx:
        if not await is_my_turn(tx, "watch_lists", _WATCH_S):
            return
        await reviews.watch_margins(tx)
        await alarms.keep_raised(tx, "offers_held", await _held(tx))
        await alarms.keep_raised(tx, "catalog_stale", await _stale(tx, whole))
        await stamp(tx, "watch_lists")


async def _held(tx: Tx) -> dict[str, str]:
    rows = await fetch(
        tx,
        """SELECT channel_id, count(*) AS n, min(sku) AS sku, string_agg(DISTINCT held, ', ') AS why FROM offers
        WHERE held IS NOT NULL AND held <> 'margin' AND status = 'enabled' GROUP BY 1""",
    )
    return {r["channel_id"]: f"{r['n']} offer(s) are held until somebody looks ({r['why']}), for example {r['sku']}" for r in rows}


async def _stale(tx: Tx, whole: Sequence[str]) -> dict[str, str]:
    rows = await fetch(
        tx,
        """SELECT l.channel_id, l.whole_at, l.failures FROM supplier_lists l JOIN channels c ON c.channel_id = l.channel_id AND c.status = 'enabled'
        WHERE l.enabled AND l.channel_id = ANY ($2::text[]) AND coalesce(l.whole_at, l.updated_at) < now() - make_interval(secs => $1 * l.every_s)""",
        float(_STALE_AFTER), whole,
    )  # fmt: skip
    return {
        r["channel_id"]: f"its list was last read whole {'never' if r['whole_at'] is None else wire_time(r['whole_at'])}; "
        f"{r['failures']} failure(s) in a row"
        for r in rows
    }


async def prune_lists(desk: Desk) -> int:
    """Throw away readings and answered questions that are past their age. Returns how many went."""
    gone = 0
    for _ in range(_MOST_PRUNED):
        async with desk.db.transaction() as tx:
            if not await is_my_turn(tx, "prune_lists", _PRUNE_S):
                return gone
            went = await wishes.prune(tx, desk.settings.keep_catalog_days, _PRUNE_AT_ONCE)
            if not went:
                await stamp(tx, "prune_lists")
        gone += went
        if not went:
            break
    return gone


CHORES: Final[tuple[Chore, ...]] = (
    Chore("sync_catalogs", _SYNC_S, sync_catalogs, cut=True),  # type: ignore[arg-type]  # the desk of a worker keeps a copy of the catalogue too
    Chore("watch_lists", _WATCH_S, watch_lists),  # type: ignore[arg-type]
    Chore("prune_lists", _PRUNE_S, prune_lists),  # type: ignore[arg-type]
)
