"""The clock of reconciliation: fetch each supplier's day, let it land, add it up, compare it, settle what evidence settles, tell a person the rest.

Every step may be killed at any moment and is found again from the rows: a statement half-read is read anew, pages that wait land, a comparison
goes on where it was. Nothing of a statement counts before the whole of it was read.
"""

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from typing import Any, Final, Protocol
from uuid import UUID

from kameng_api.alarms import actions as alarms
from kameng_api.catalog import queries as catalog
from kameng_api.catalog.rules import Channel
from kameng_api.jobs.upkeep import Chore, is_my_turn, stamp
from kameng_api.kit import log
from kameng_api.kit.clock import wire_time
from kameng_api.kit.crypto import Keyring
from kameng_api.kit.db import Database, Tx, fetch
from kameng_api.kit.errors import StateConflict, Unavailable
from kameng_api.kit.money import format_amount
from kameng_api.ledger.errors import BooksStopped
from kameng_api.ledger.rules import house_book
from kameng_api.operators import actions as operators
from kameng_api.reconciliation import actions, drift, landing, matching, queries, rollforward, rules, sources
from kameng_api.reconciliation.rules import Finding
from kameng_api.reconciliation.sources import Source, SourceWanted, StatementFile
from kameng_api.settings import Settings
from kameng_api.suppliers.port import AnswerUnusable, StatementTerms, Supplier

_log = log.get()

MACHINE: Final = "machine"
_FETCH_S: Final = 60.0
_LAND_S: Final = 5.0
_COMPARE_S: Final = 30.0
_WATCH_S: Final = 60.0
_PRUNE_S: Final = 3_600.0

_LOOK_BACK_DAYS: Final = 7
"""Days without a statement are asked for so long; then a person must ask, or upload."""
_RETRY_S: Final = 300.0
_MISSING_AFTER_S: Final = 6 * 3_600.0
_FETCHES_AT_ONCE: Final = 4
_AGAIN_S: Final = 6 * 3_600.0
"""Days inside the window are compared again so often: what waited may be due."""
_SNAPSHOT_DAYS: Final = 40
_SETTLE_AT_ONCE: Final = 100


class Desk(Protocol):
    """What these chores need of their process."""

    @property
    def db(self) -> Database: ...

    @property
    def settings(self) -> Settings: ...

    @property
    def keyring(self) -> Keyring: ...

    def supplier_of(self, channel: Channel) -> Supplier:
        """Raises LookupError or ValueError when it cannot be connected."""
        ...


@dataclass(frozen=True, slots=True)
class Wanted:
    """A day of a source that is to be fetched, and who asked."""

    source: Source
    day: date
    by: str


# ---- fetching ----------------------------------------------------------------------------------------------------------


async def fetch_statements(desk: Desk) -> int:
    """Fetch every day that is over, and whole by the source's word, and every day that was asked for. Returns how many came."""
    async with desk.db.transaction() as tx:
        if not await is_my_turn(tx, "fetch_statements", _FETCH_S):
            return 0
        channels = {c.channel_id: c for c in await catalog.list_channels(tx)}
        await stamp(tx, "fetch_statements")
    await _open_sources(desk, channels)
    async with desk.db.transaction() as tx:
        wanted = await _list_wanted(tx)
    places = asyncio.Semaphore(_FETCHES_AT_ONCE)

    async def one(w: Wanted) -> bool:
        async with places:
            return await _try_fetch(desk, channels[w.source.channel_id], w)

    return sum(await asyncio.gather(*(one(w) for w in wanted)))


async def _open_sources(desk: Desk, channels: dict[str, Channel]) -> None:
    """Channels whose adapter declares a statement get a source by themselves; what a person set stays, but for a promise nobody gave."""
    async with desk.db.transaction() as tx:
        known = {s.channel_id: s for s in await sources.list_sources(tx, kind="fetch")}
    for channel_id, channel in sorted(channels.items()):
        source = known.get(channel_id)
        if channel.status != "enabled" or (source is not None and not source.complete):
            continue
        terms = terms_of(desk, channel)
        if terms is None or (source is not None and terms.complete):
            continue
        async with desk.db.transaction() as tx:
            wanted = SourceWanted(
                channel_id, channel_id, "fetch", timezone=terms.timezone, lag_s=terms.lag_s, complete=terms.complete
            ) if source is None else SourceWanted(
                channel_id, source.name, "fetch", source.currency, source.timezone, source.lag_s, False, source.window_days,
                source.charges_at, source.tolerance, source.drift_limit, None, source.enabled,
            )  # fmt: skip
            with suppress(StateConflict):  # the channel's name is another source's: a person gives this one its name
                made = await sources.put_source(tx, wanted)
                why = "its adapter declares a statement" if source is None else "its adapter does not promise a complete statement"
                await operators.audit(tx, MACHINE, "reconciliation.source_set", f"source:{made.name}", {"why": why, "complete": made.complete}, None)


def terms_of(desk: Desk, channel: Channel) -> StatementTerms | None:
    """What the channel's adapter says of its statement; None when it has none, or cannot be connected."""
    try:
        supplier = desk.supplier_of(channel)
    except Exception as trouble:
        _log.warning("statement_source_not_connected", channel=channel.channel_id, trouble=type(trouble).__name__)
        return None
    return supplier.statement_terms if supplier.statement is not None else None


# Days that nobody has read, or whose reading failed a while ago; and those that somebody asked for (their reading began at the epoch).
_WANTED: Final = """
SELECT s.name, d.day, f.by FROM recon_sources s JOIN channels c ON c.channel_id = s.channel_id AND c.status = 'enabled'
CROSS JOIN LATERAL (
  SELECT generate_series(
    greatest((now() AT TIME ZONE s.timezone)::date - $1::int, (s.created_at AT TIME ZONE s.timezone)::date),
    ((now() - make_interval(secs => s.lag_s)) AT TIME ZONE s.timezone)::date - 1, interval '1 day')::date AS day
  UNION SELECT day FROM recon_files a WHERE a.source_id = s.source_id AND a.state = 'reading'
) AS d
LEFT JOIN recon_files f ON f.source_id = s.source_id AND f.day = d.day AND f.state = 'reading'
WHERE s.kind = 'fetch' AND s.enabled
  AND CASE WHEN f.file_id IS NULL
    THEN NOT EXISTS (SELECT FROM recon_files a WHERE a.source_id = s.source_id AND a.day = d.day AND a.state IN ('read', 'accepted', 'rejected'))
    ELSE f.created_at < now() - make_interval(secs => CASE WHEN f.accepted_by IS NULL THEN $2::float8 ELSE $3::float8 END) END
ORDER BY d.day, s.name
"""
_READING_S: Final = 900.0
"""Whoever reads a statement for longer has died: it is read anew."""


async def _list_wanted(tx: Tx) -> list[Wanted]:
    by_name = {s.name: s for s in await sources.list_sources(tx, kind="fetch", enabled=True)}
    rows = await fetch(tx, _WANTED, _LOOK_BACK_DAYS, _RETRY_S, _READING_S)
    return [Wanted(by_name[r["name"]], r["day"], r["by"] or MACHINE) for r in rows if r["name"] in by_name]


async def _try_fetch(desk: Desk, channel: Channel, wanted: Wanted) -> bool:
    try:
        await fetch_day(desk, channel, wanted.source, wanted.day, wanted.by)
    except Exception as trouble:  # said in the file's row and told by an alarm when it lasts; the other sources go on
        _log.warning("statement_not_fetched", source=wanted.source.name, day=str(wanted.day), trouble=type(trouble).__name__)
        return False
    return True


async def fetch_day(desk: Desk, channel: Channel, source: Source, day: date, by: str) -> StatementFile:
    """Read one day of a supplier's statement, page by page, and accept it unless it looks broken.

    Raises StateConflict when the supplier has no statement, AnswerUnusable, TimeoutError, and what the adapter raises.
    """
    supplier = desk.supplier_of(channel)
    if supplier.statement is None:
        raise StateConflict("this supplier has no statement to fetch: upload its files")
    terms = supplier.statement_terms or StatementTerms()
    async with desk.db.transaction() as tx:
        telling = await landing.begin(tx, source, day, f"fetch {day}", by)
    try:
        async with asyncio.timeout(min(terms.reading_s, _READING_S - 60)):
            async for page in supplier.statement(day):
                first = telling.rows + 1
                if landing.take(telling, list(enumerate(page, first))):
                    async with desk.db.transaction() as tx:
                        await landing.keep(tx, telling)
    except Exception as trouble:
        because = str(trouble) if isinstance(trouble, AnswerUnusable) else type(trouble).__name__
        with suppress(landing.ReadElsewhere, Unavailable):
            async with desk.db.transaction() as tx:
                await landing.give_up(tx, telling, because=because, for_good=False)
        raise
    async with desk.db.transaction() as tx:
        file = await landing.finish(tx, telling, with_bytes=False)
        doubt = await landing.why_not_alone(tx, file) if file.state == "read" else None
        if file.state == "read" and doubt is None:
            file = await landing.accept(tx, file.file_id, by)
        if doubt is not None:
            await alarms.raise_alarm(tx, "statement_doubted", f"{source.name} {day}", None, f"{doubt}; accept or reject it")
        await operators.audit(
            tx, by, "reconciliation.fetched", f"source:{source.name}",
            {"day": str(day), "rows": file.rows_read, "state": file.state, "doubt": doubt}, None,
        )  # fmt: skip
    return file


# ---- landing and comparing ---------------------------------------------------------------------------------------------


async def land_files(desk: Desk) -> int:
    """Let accepted files become lines. Returns how many pages landed."""
    landed = 0
    async with desk.db.transaction() as tx:
        waiting = await landing.list_unlanded(tx, 20)
    for file_id in waiting:
        landed += await land(desk.db, file_id)
    return landed


async def land(db: Database, file_id: UUID) -> int:
    """All pages of one file, each in its own transaction."""
    landed = 0
    more = True
    while more:
        async with db.transaction() as tx:
            more = await landing.land_page(tx, file_id)
        landed += more
    return landed


# A day whose statement landed after it was last compared, or that waits for lines which may be late.
_TO_COMPARE: Final = """
SELECT f.channel_id, f.day, max(s.timezone) AS timezone, max(s.currency) AS currency FROM recon_files f JOIN recon_sources s USING (source_id)
WHERE f.state = 'accepted'
  AND NOT EXISTS (SELECT FROM recon_files o JOIN recon_pages p USING (file_id)
    WHERE o.channel_id = f.channel_id AND o.day = f.day AND o.state = 'accepted' AND NOT p.landed)
GROUP BY f.channel_id, f.day, s.window_days
HAVING EXISTS (SELECT FROM recon_runs r WHERE r.channel_id = f.channel_id AND r.day = f.day AND r.state = 'running')
  OR NOT EXISTS (SELECT FROM recon_runs r WHERE r.channel_id = f.channel_id AND r.day = f.day AND r.state <> 'failed'
    AND r.finished_at IS NOT NULL AND r.started_at > max(f.accepted_at)
    AND (r.started_at > now() - make_interval(secs => $1) OR f.day < current_date - s.window_days - 3))
ORDER BY f.day, f.channel_id LIMIT $2
"""


async def compare_days(desk: Desk) -> int:
    """Add up and compare the days that have something new, then settle what evidence settles. Returns how many days."""
    async with desk.db.transaction() as tx:
        if not await is_my_turn(tx, "compare_days", _COMPARE_S):
            return 0
        days = await fetch(tx, _TO_COMPARE, _AGAIN_S, 50)
        await stamp(tx, "compare_days")
    for d in days:
        try:
            await compare_day(desk.db, d["channel_id"], d["day"], d["timezone"], d["currency"], MACHINE)
        except Exception as trouble:  # one day spoils nothing for the others; it is tried again
            _log.error("day_not_compared", channel=d["channel_id"], day=str(d["day"]), trouble=type(trouble).__name__, exc_info=True)
    await settle(desk)
    return len(days)


async def compare_day(db: Database, channel_id: str, day: date, timezone: str, currency: str, by: str) -> Any:
    """Add one day up, and compare its lines with our attempts. Returns the run."""
    async with db.transaction() as tx:
        found = await rollforward.roll_forward(tx, channel_id, day, timezone=timezone, currency=currency)
        await _tell_gap(tx, found)
    return await matching.run_day(db, channel_id, day, by)


async def _tell_gap(tx: Tx, day: rollforward.Day) -> None:
    subject = f"day:{day.channel_id}:{day.day}:{day.currency}"
    if not day.gap:
        if day.gap == 0:
            await actions.close_gone(tx, rules.GAP, subject, "the day adds up")
        return
    environment = await sources.environment_of(tx, day.channel_id)
    evidence = {
        "day": str(day.day), "opening": day.opening, "top_ups": day.top_ups, "charges": day.charges, "refunds": day.refunds,
        "other": day.other, "closing": day.closing, "theirs": day.theirs, "gap": day.gap,
        "why": f"the lines add up to {format_amount(day.closing or 0)}, the supplier says {format_amount(day.theirs or 0)}",
    }  # fmt: skip
    finding = Finding(
        rules.GAP, day.channel_id, environment, subject, house_book(environment), -day.gap, day.currency,
        f"{day.opening} {day.closing} {day.theirs}", evidence=evidence,
    )  # fmt: skip
    await actions.record_break(tx, finding)


async def settle(desk: Desk) -> int:
    """Apply what statement evidence decides by itself, some at a time. Returns how many breaks were closed by it."""
    settled = 0
    while True:
        try:
            async with desk.db.transaction() as tx:
                done = await actions.auto_resolve(tx, desk.keyring, limit=_SETTLE_AT_ONCE)
        except Unavailable:  # nothing is known about any of them: the next round looks again
            raise
        except Exception as trouble:  # one of them is refused, by the ledger or by the database
            _log.warning("settled_one_by_one", trouble=type(trouble).__name__)
            settled += await _settle_one_by_one(desk)
            return settled  # claims, and what is beyond, at the next round
        settled += done
        if not done:
            return settled


async def _settle_one_by_one(desk: Desk) -> int:
    """After a round that was refused as a whole: each in a transaction of its own; what the books refuse goes to a person.

    Raises Unavailable, which is no verdict on anything.
    """
    async with desk.db.transaction() as tx:
        ids = await actions.list_automatic(tx, _SETTLE_AT_ONCE)
    settled = 0
    for break_id in ids:
        try:
            async with desk.db.transaction() as tx:
                if break_id in await actions.list_automatic(tx, _SETTLE_AT_ONCE):
                    settled += await actions.resolve_one(tx, desk.keyring, break_id)
        except (Unavailable, BooksStopped):
            raise
        except Exception as trouble:
            _log.error("break_not_resolved", trouble=type(trouble).__name__, exc_info=True)
            async with desk.db.transaction() as tx:
                await actions.leave_to_a_person(tx, break_id, f"the books refused it: {type(trouble).__name__}")
    return settled


# ---- telling a person --------------------------------------------------------------------------------------------------

_MISSING: Final = """
SELECT s.name, d.day,
  (SELECT f.bad->0->>1 FROM recon_files f WHERE f.source_id = s.source_id AND f.day = d.day AND f.state = 'reading' LIMIT 1) AS why
FROM recon_sources s JOIN channels c ON c.channel_id = s.channel_id AND c.status = 'enabled'
CROSS JOIN LATERAL (SELECT generate_series(
  greatest((now() AT TIME ZONE s.timezone)::date - $1::int, (s.created_at AT TIME ZONE s.timezone)::date),
  ((now() - make_interval(secs => s.lag_s + $2::float8)) AT TIME ZONE s.timezone)::date - 1, interval '1 day')::date AS day) AS d
WHERE s.enabled AND NOT EXISTS (SELECT FROM recon_files f WHERE f.source_id = s.source_id AND f.day = d.day AND f.state IN ('read', 'accepted'))
ORDER BY d.day
"""


async def watch_books(desk: Desk) -> None:
    """Raise and close the alarms about statements, breaks and wallets."""
    async with desk.db.transaction() as tx:
        if not await is_my_turn(tx, "watch_books", _WATCH_S):
            return
        missing: dict[str, str] = {}
        for r in await fetch(tx, _MISSING, _LOOK_BACK_DAYS, _MISSING_AFTER_S):
            missing.setdefault(r["name"], f"no statement of {r['day']}" + (f": {r['why']}" if r["why"] else ""))
        await alarms.keep_raised(tx, "statement_missing", missing)
        waiting = {f"{f['name']} {f['day']}" for f in await fetch(tx, _DOUBTED)}
        for alarm in await fetch(tx, "SELECT subject FROM alarms WHERE kind = 'statement_doubted' AND closed_at IS NULL"):
            if alarm["subject"] not in waiting:
                await alarms.close_alarm(tx, "statement_doubted", alarm["subject"])
        await _watch_breaks(tx)
        far = {
            d.channel_id: f"they hold {format_amount(d.theirs)}, our books {format_amount(d.prepaid)} and {format_amount(d.wip)} under way: "
            f"{format_amount(d.amount)} apart, limit {format_amount(d.limit or 0)}"
            for d in await drift.read_drifts(tx)
            if d.beyond
        }
        await alarms.keep_raised(tx, "wallet_apart", far)
        await stamp(tx, "watch_books")


_DOUBTED: Final = "SELECT s.name, f.day FROM recon_files f JOIN recon_sources s USING (source_id) WHERE f.state = 'read'"


async def _watch_breaks(tx: Tx) -> None:
    """A comparison raises the alarms of what it finds; days that do not add up are told here, and what is over is closed here."""
    figures = {f"reconciliation:{f.class_}:{f.channel_id}": f for f in await queries.open_figures(tx) if f.class_ != rules.TIMING}
    gaps = {
        subject: f"{f.count} day(s) whose lines do not add up to the balance; the first seen {wire_time(f.oldest_at)}"
        for subject, f in figures.items()
        if f.class_ == rules.GAP
    }
    await alarms.raise_alarms(tx, "books_disagree", gaps, severity=rules.CLASSES[rules.GAP].severity)
    for alarm in await fetch(tx, "SELECT kind, subject FROM alarms WHERE starts_with(subject, 'reconciliation:') AND closed_at IS NULL"):
        if alarm["subject"] not in figures:
            await alarms.close_alarm(tx, alarm["kind"], alarm["subject"])


async def prune_wallets(desk: Desk) -> None:
    """Forget balances that no day needs any more."""
    async with desk.db.transaction() as tx:
        if await is_my_turn(tx, "prune_wallets", _PRUNE_S):
            await rollforward.prune_snapshots(tx, _SNAPSHOT_DAYS)
            await stamp(tx, "prune_wallets")


async def reconcile_day(desk: Desk, channel_id: str, day: date, by: str, *, refetch: bool) -> Any:
    """All of it at once, for a person who waits: fetch (if it can be fetched), land, add up, compare, settle. Returns the run.

    Raises NotFound, StateConflict, and what the supplier's adapter raises.
    """
    async with desk.db.transaction() as tx:
        channel = await catalog.get_channel(tx, channel_id)
    await _open_sources(desk, {channel_id: channel})
    async with desk.db.transaction() as tx:
        of_channel = await sources.list_sources(tx, channel_id=channel_id)
        if not of_channel:
            raise StateConflict("this channel has no source: set one, and upload its files")
        told = await sources.list_files(tx, channel_id=channel_id, day=day, state="accepted", limit=1)
    source = next((s for s in of_channel if s.kind == "fetch" and s.enabled), None)
    if source is not None and (refetch or not told):
        await fetch_day(desk, channel, source, day, by)
    await land_files(desk)
    main = source or of_channel[0]
    run = await compare_day(desk.db, channel_id, day, main.timezone, main.currency, by)
    await settle(desk)
    return run


# The desk of a worker has a keyring too.
CHORES: Final[tuple[Chore, ...]] = (
    Chore("fetch_statements", _FETCH_S, fetch_statements),  # type: ignore[arg-type]
    Chore("land_files", _LAND_S, land_files),  # type: ignore[arg-type]
    Chore("compare_days", _COMPARE_S, compare_days),  # type: ignore[arg-type]
    Chore("watch_books", _WATCH_S, watch_books),  # type: ignore[arg-type]
    Chore("prune_wallets", _PRUNE_S, prune_wallets),  # type: ignore[arg-type]
)
