"""All suppliers at one glance: a channel's state, wallet, health, statements, offers, doubts and papers, read together for a person."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Final

import asyncpg

from kameng_api.catalog import queries as catalog
from kameng_api.catalog.rules import Channel
from kameng_api.kit.db import Tx, fetch
from kameng_api.ledger.forecast import Rates, seconds_left
from kameng_api.orders.rules import NO_EVIDENCE
from kameng_api.suppliers import queries as attempts_of
from kameng_api.suppliers import vitals
from kameng_api.suppliers.answers import OpenedBy, closed_gates
from kameng_api.suppliers.desk import queries as desk
from kameng_api.suppliers.desk.rules import HOME, Document, Standing


@dataclass(frozen=True, slots=True)
class Wallet:
    """What is in a wallet by the supplier's last word, less what was sent since; `left_s`: until nothing is left, None: not spent at all."""

    spendable: int | None
    rates: Rates
    left_s: int | None


@dataclass(frozen=True, slots=True)
class Overview:
    """One channel as its desk shows it. `good` and `bad`: answers of the last minute; `why_not`: what keeps new orders from it."""

    channel: Channel
    why_not: tuple[str, ...]
    good: int
    bad: int
    open_since: datetime | None
    wallet: Wallet
    unknowns: int
    oldest_unknown_at: datetime | None
    statement: asyncpg.Record | None
    offers: int
    offers_read_at: datetime | None
    synced: asyncpg.Record | None = None
    ending: tuple[Document, ...] = field(default=())
    ended: tuple[Document, ...] = field(default=())


_UNKNOWN: Final = """
SELECT channel_id, count(*) AS n, min(unknown_since) AS since FROM attempts
WHERE state = 'unknown' AND channel_id = ANY ($1::text[]) GROUP BY 1
"""

_STATEMENT: Final = """
SELECT DISTINCT ON (f.channel_id) f.channel_id, f.day, f.state, f.created_at, s.name AS source FROM recon_files f
JOIN recon_sources s USING (source_id) WHERE f.channel_id = ANY ($1::text[]) AND f.state IN ('read', 'accepted')
ORDER BY f.channel_id, f.day DESC, f.created_at DESC
"""

_OFFERS: Final = """
SELECT channel_id, count(*) AS n, max(quoted_at) AS read_at FROM offers WHERE channel_id = ANY ($1::text[]) GROUP BY 1
"""


_LISTS: Final = """
SELECT l.channel_id, l.whole_at, l.failures,
  (SELECT count(*) FROM (SELECT FROM offer_reviews r WHERE r.channel_id = l.channel_id AND r.state = 'open' LIMIT $2) AS o) AS reviews
FROM supplier_lists l WHERE l.channel_id = ANY ($1::text[])
"""
MOST_REVIEWS: Final = 1_000
"""Reviews that wait are counted up to here."""


async def list_overviews(tx: Tx, now: datetime, *, channel_id: str | None = None, environment: str | None = None) -> list[Overview]:
    """Every channel, by id. Raises ChannelUnknown for one that is named and is not there."""
    if channel_id is not None:
        channels: Sequence[Channel] = [await catalog.get_channel(tx, channel_id)]
    else:
        channels = await catalog.list_channels(tx, environment=environment)
    ids = [channel.channel_id for channel in channels]
    health = await attempts_of.recent_health(tx, ids)
    open_since = dict(await vitals.list_open_channels(tx))
    learnt: dict[tuple[str, str | None, OpenedBy], datetime] = {
        (c.channel_id, None, OpenedBy.WALLET): c.wallet_checked_at for c in channels if c.wallet_checked_at is not None
    }
    gates = closed_gates(await vitals.list_closings(tx, NO_EVIDENCE), learnt, now)
    wallets = await read_wallets(tx, channels)
    unknowns = {r["channel_id"]: r for r in await fetch(tx, _UNKNOWN, ids)}
    statements = {r["channel_id"]: r for r in await fetch(tx, _STATEMENT, ids)}
    offers = {r["channel_id"]: r for r in await fetch(tx, _OFFERS, ids)}
    lists = {r["channel_id"]: r for r in await fetch(tx, _LISTS, ids, MOST_REVIEWS)}
    papers: dict[str, list[Document]] = {}
    for document in await desk.list_documents(tx, channel_id):
        papers.setdefault(document.channel_id, []).append(document)
    today = now.astimezone(HOME).date()
    return [
        Overview(
            channel=channel,
            why_not=why_not(channel, now, open_since.get(id_), gates.get((id_, None))),
            good=health.get(id_, (0, 0))[0],
            bad=health.get(id_, (0, 0))[1],
            open_since=open_since.get(id_),
            wallet=wallets[id_],
            unknowns=unknowns[id_]["n"] if id_ in unknowns else 0,
            oldest_unknown_at=unknowns[id_]["since"] if id_ in unknowns else None,
            statement=statements.get(id_),
            offers=offers[id_]["n"] if id_ in offers else 0,
            offers_read_at=offers[id_]["read_at"] if id_ in offers else None,
            synced=lists.get(id_),
            ending=_standing(papers.get(id_, ()), Standing.ENDS_SOON, today),
            ended=_standing(papers.get(id_, ()), Standing.ENDED, today),
        )
        for channel in channels
        for id_ in (channel.channel_id,)
    ]


def _standing(documents: Sequence[Document], wanted: Standing, today: date) -> tuple[Document, ...]:
    return tuple(one for one in documents if one.standing(today) is wanted)


def why_not(channel: Channel, now: datetime, open_since: datetime | None, gate: str | None = None) -> tuple[str, ...]:
    """What keeps new orders from all of a channel; empty: nothing does."""
    reasons = (
        ("disabled", channel.status != "enabled"),
        ("document_ended", channel.no_orders_after is not None and now >= channel.no_orders_after),
        ("wallet_paused", channel.wallet_paused_at is not None),
        ("wallet_empty", gate is not None),
        ("circuit_open", open_since is not None),
    )
    return tuple(name for name, holds in reasons if holds)


async def read_wallets(tx: Tx, channels: Sequence[Channel]) -> dict[str, Wallet]:
    """channel → what is left in its wallet and for how long, from real charges."""
    told = {c.channel_id: c.wallet_checked_at for c in channels if c.wallet_checked_at is not None}
    spent, _ = await vitals.count_spent(tx, told) if told else ({}, None)
    rates = await desk.wallet_rates(tx, [c.channel_id for c in channels])
    found = {}
    for c in channels:
        spendable = None if c.wallet_balance is None else c.wallet_balance - spent.get(c.channel_id, 0)
        rate = rates.get(c.channel_id, Rates())
        found[c.channel_id] = Wallet(spendable, rate, None if spendable is None else seconds_left(spendable, rate))
    return found


_HISTORY: Final = """
SELECT date_bin(make_interval(secs => $4), at, 'epoch') AS at, currency, (array_agg(balance ORDER BY at DESC))[1] AS balance,
  min(balance) AS least, max(balance) AS most
FROM wallet_snapshots s WHERE channel_id = $1 AND s.at >= $2 AND s.at < $3 GROUP BY 1, 2 ORDER BY 1, 2
"""
MOST_POINTS: Final = 1_000


async def list_balances(tx: Tx, channel_id: str, since: datetime, until: datetime, step: timedelta) -> list[asyncpg.Record]:
    """What the supplier said the wallet holds: the last word of each step, and its least and most."""
    return await fetch(tx, _HISTORY, channel_id, since, until, step.total_seconds())


_SOURCES: Final = """
SELECT s.name, s.kind, s.timezone, s.lag_s, s.complete, s.enabled,
  CASE s.kind WHEN 'upload' THEN coalesce(s.mapping->>'format', 'csv') ELSE 'adapter' END AS format,
  f.day, f.state, f.created_at
FROM recon_sources s LEFT JOIN LATERAL (
  SELECT f.day, f.state, f.created_at FROM recon_files f WHERE f.source_id = s.source_id AND f.state IN ('read', 'accepted')
  ORDER BY f.day DESC, f.created_at DESC LIMIT 1
) f ON true WHERE s.channel_id = $1 ORDER BY s.name
"""


async def list_schedules(tx: Tx, channel_id: str) -> list[asyncpg.Record]:
    """Where a channel's statements come from, when, and the last that came."""
    return await fetch(tx, _SOURCES, channel_id)
