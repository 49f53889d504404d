"""What this process knows of the channels' health, and how the fleet shares it.

PostgreSQL alone says what was sent; this is an opinion about who is well. Every process folds the same events: its own at once, the others'
through a Redis stream a moment later, and whatever both missed from the attempts themselves. Without Redis only the moment is longer.
"""

import asyncio
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

import orjson
import structlog
from redis.asyncio import Redis

from kameng_api.alarms import actions as alarms
from kameng_api.catalog.rules import Channel, Snapshot
from kameng_api.kit.db import Database, Tx, fetch
from kameng_api.kit.fresh import Fresh
from kameng_api.orders.route_facts import UnderWay, options_of
from kameng_api.orders.rules import NO_EVIDENCE
from kameng_api.outbox import actions as outbox
from kameng_api.suppliers import events, vitals, volumes
from kameng_api.suppliers.answers import Closing, OpenedBy, closed_gates
from kameng_api.suppliers.connections import Connections
from kameng_api.suppliers.port import RefusalReason
from kameng_api.suppliers.routing import gauges
from kameng_api.suppliers.routing.facts import Answered, Change, ChannelFacts, Circuit, Event, Heard, Option, Reading, Sent
from kameng_api.suppliers.routing.health import Health
from kameng_api.suppliers.routing.tuning import DEFAULT, Tuning

_log = structlog.get_logger()

STREAM: Final = "kameng:route:events"
_LONGEST_STREAM: Final = 20_000
_SHARE_S: Final = 0.1
_HEAR_S: Final = 0.25
_LOOK_S: Final = 2.0
"""How often the attempts themselves are folded while Redis is away."""
_REPAIR_S: Final = 10.0
"""How often while it is not: whoever died between his commit and the stream is heard then."""
_FACTS_S: Final = 1.0
_KEEP_S: Final = 10.0
_MOST_UNSHARED: Final = 50_000
_ANSWERED_S: Final = 10.0
"""Attempts without an answer for so long are asked after in the database, the oldest first, so many of each channel."""
_ASKED_AFTER: Final = 200


def _no_lag() -> float:
    return 0.0


@dataclass(frozen=True, slots=True)
class Facts:
    """What must be asked of the database now and then: gates, wallets, commitments, and its clock (`at`, when ours stood at `clock`)."""

    at: datetime
    clock: float
    closings: Sequence[Closing] = ()
    spent: Mapping[str, int] = field(default_factory=dict)
    done: Mapping[UUID, int] = field(default_factory=dict)


class Pulse:
    """One per process. `tell` what has been committed; ask `under_way` before choosing."""

    def __init__(
        self,
        db: Database,
        redis_url: str | None,
        catalog: Fresh[Snapshot],
        connections: Connections,
        worker: str,
        tuning: Tuning = DEFAULT,
    ) -> None:
        self._db = db
        self._redis: Redis | None = None
        if redis_url is not None:
            self._redis = Redis.from_url(redis_url, socket_connect_timeout=1.0, socket_timeout=2.0)
        self._catalog = catalog
        self._connections = connections
        self._worker = f"{worker}#{secrets.token_hex(4)}".encode()  # another life of the same process has said things that we must hear
        self._tuning = tuning
        self._channel_facts: dict[str, ChannelFacts] = {}
        self._unqueryable: frozenset[str] = frozenset()
        self._asked_for: Snapshot | None = None
        self.health = Health(self._channel_facts, tuning)
        self._unshared: list[Event] = []
        self._unwritten: list[Change] = []
        self._heard_upto = "$"
        self._redis_away = self._redis is None
        self._looked_at = float("-inf")
        self._sent_in: tuple[int, dict[str, int]] = (0, {})
        self._spent_since: dict[str, tuple[datetime | None, datetime]] = {}
        self._spent: dict[str, int] = {}
        self._facts: Fresh[Facts] = Fresh(self._ask_facts, _FACTS_S)
        self.lag_s: Callable[[], float] = _no_lag
        """How long the oldest answer has lain here without being recorded: while we are slow, nobody else's silence says anything."""
        self._loops: list[asyncio.Task[None]] = []
        self._stopping = False

    # --- asked by whoever chooses ------------------------------------------------------------------------------------

    def under_way(self, now: datetime) -> UnderWay:
        """What is known at `now`, the database's clock. Cheap: nothing is awaited."""
        at = now.timestamp()
        self._ask_adapters()
        self._tend(at - self.lag_s())
        second, sent = self._sent_in
        gates = self._gates(now)
        return UnderWay(
            unqueryable=self._unqueryable,
            spent=self._facts.current.spent,
            sent_last_second=sent if second == int(at) else {},
            done=self._facts.current.done,
            read=lambda channel, sku: self._read(channel, sku, at),
            gates=gates,
            short_of={(c.channel, c.sku): c.units for c in self._facts.current.closings if c.reason is RefusalReason.OUT_OF_STOCK},
        )

    def _now(self) -> datetime:
        """The database's clock, carried on. This machine's own may be minutes off, and who has looked at the future sees nothing until it comes."""
        facts = self._facts.current
        return facts.at + timedelta(seconds=time.monotonic() - facts.clock)

    # What is only an opinion must not stop orders, nor strand what has been committed: whatever health raises ends here.

    def _tend(self, at: float) -> None:
        try:
            self.health.tend(at)
        except Exception as trouble:
            _log.error("pulse.not_tended", trouble=type(trouble).__name__, exc_info=True)

    def _read(self, channel: str, sku: str, at: float) -> Reading:
        try:
            return self.health.reading(channel, sku, at)
        except Exception as trouble:
            _log.error("pulse.not_read", channel=channel, sku=sku, trouble=type(trouble).__name__)
            return Reading()

    def _gates(self, now: datetime) -> Mapping[tuple[str, str | None], RefusalReason]:
        closings = self._facts.current.closings
        if not closings:
            return {}
        learnt: dict[tuple[str, str | None, OpenedBy], datetime] = {}
        snapshot = self._catalog.current
        for closing in closings:
            channel = snapshot.channels.get(closing.channel)
            if channel is not None and channel.wallet_checked_at is not None:
                learnt[closing.channel, None, OpenedBy.WALLET] = channel.wallet_checked_at
            for offer in snapshot.offers.get(closing.sku, ()):
                if offer.channel_id != closing.channel:
                    continue
                for fact, at in ((OpenedBy.COST, offer.quoted_at), (OpenedBy.STOCK, offer.stocked_at), (OpenedBy.ON_SALE, offer.listed_at)):
                    if at is not None:
                        learnt[closing.channel, closing.sku, fact] = at
        return closed_gates(closings, learnt, now)

    def _ask_adapters(self) -> None:
        """What the connected suppliers declare, once per copy of the catalogue."""
        snapshot = self._catalog.current
        if snapshot is self._asked_for:
            return
        self._asked_for = snapshot
        unqueryable: set[str] = set()
        for channel_id, channel in snapshot.channels.items():
            self._ask_adapter(channel_id, channel, unqueryable)
        self._unqueryable = frozenset(unqueryable)

    def _ask_adapter(self, channel_id: str, channel: Channel, unqueryable: set[str]) -> None:
        try:
            supplier = self._connections.of(channel)
        except Exception:  # who buys there hears of it
            return
        if supplier.look_up is None:
            unqueryable.add(channel_id)
        self._channel_facts[channel_id] = ChannelFacts(callback_batch_s=supplier.capabilities.callback_batch_s)

    # --- told by whoever has committed -------------------------------------------------------------------------------

    def tell(self, events: Sequence[Event]) -> None:
        """Fold what has just been committed, and pass it on to the others."""
        for event in events:
            try:
                self.health.observe(event)
            except Exception as trouble:
                _log.error("pulse.not_observed", channel=event.channel, trouble=type(trouble).__name__)
            if isinstance(event, Sent):
                self._count_sent(event)
        if self._redis is not None and len(self._unshared) < _MOST_UNSHARED:
            self._unshared += events

    def _count_sent(self, event: Sent) -> None:
        second, sent = self._sent_in
        if int(event.at) < second:
            return
        if int(event.at) > second:
            second, sent = int(event.at), {}
            self._sent_in = second, sent
        sent[event.channel] = sent.get(event.channel, 0) + 1

    # --- life --------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Know what can be known: the snapshot, the stream since then, and the last attempts. Raises when the database cannot be read."""
        self._ask_adapters()
        async with self._db.transaction() as tx:
            kept = await vitals.find_snapshot(tx)
        if kept is not None:
            with suppress(ValueError):  # of another version: the attempts are enough
                self.health = Health.load(kept[2], self._channel_facts, self._tuning)
                self._heard_upto = kept[1] or "$"
        if self._redis is not None and self._heard_upto == "$":
            with suppress(Exception):  # what is said from here on is heard, what was said before stands in the attempts
                await self._read_stream(self._redis)
        await self._facts.start()
        await self._look()
        self._loops = [asyncio.create_task(self._every(_SHARE_S, self._share)), asyncio.create_task(self._every(_HEAR_S, self._hear))]
        self._loops.append(asyncio.create_task(self._every(_KEEP_S / 2, self._keep)))

    async def stop(self) -> None:
        self._stopping = True  # a driver that is cancelled in the moment of its own timeout may swallow the cancellation
        for loop in self._loops:
            loop.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        await self._facts.stop()
        with suppress(Exception):
            await self._share()
        if self._redis is not None:
            with suppress(Exception):
                await self._redis.aclose()

    async def _every(self, seconds: float, step: Any) -> None:
        while not self._stopping:
            await asyncio.sleep(seconds)
            try:
                await step()
            except Exception as trouble:
                _log.warning("pulse.failed", step=step.__name__, trouble=type(trouble).__name__)
                await asyncio.sleep(min(1.0, 5 * seconds))

    async def _share(self) -> None:
        """One entry for all that was committed since the last: a stream is cheap by the entry."""
        if self._redis is None or not self._unshared:
            return
        events, self._unshared = self._unshared, []
        try:
            body = {b"w": self._worker, b"e": orjson.dumps([_pack(e) for e in events])}
            await self._redis.xadd(STREAM, body, maxlen=_LONGEST_STREAM, approximate=True)  # type: ignore[arg-type]
        except Exception:
            self._redis_away = True  # nobody hears these from us: the attempts tell them
            raise

    async def _hear(self) -> None:
        if self._redis is not None:
            try:
                await self._read_stream(self._redis)
                self._redis_away = False
            except Exception as trouble:
                if not self._redis_away:
                    _log.warning("pulse.redis_away", trouble=type(trouble).__name__)
                self._redis_away = True
        if time.monotonic() - self._looked_at > (_LOOK_S if self._redis_away else _REPAIR_S):
            await self._look()

    async def _read_stream(self, redis: Redis) -> None:
        if self._heard_upto == "$":
            last = await redis.xrevrange(STREAM, count=1)
            self._heard_upto = last[0][0].decode() if last else "0-0"
            return
        found = await redis.xread({STREAM: self._heard_upto}, count=500)
        for _, entries in found or ():
            for entry_id, body in entries:
                self._heard_upto = entry_id.decode()
                if body.get(b"w") != self._worker:
                    for packed in orjson.loads(body[b"e"]):
                        event = _unpack(packed)
                        self.health.observe(event)
                        if isinstance(event, Sent):
                            self._count_sent(event)
        if not found:
            last = await redis.xrevrange(STREAM, count=1)
            upto = last[0][0].decode() if last else "0-0"
            if _place(upto) < _place(self._heard_upto):
                self._heard_upto = upto  # flushed: the stream begins anew
                self._looked_at = float("-inf")

    async def _look(self) -> None:
        """Fold the attempts themselves: what was counted already is not counted again."""
        self._looked_at = time.monotonic()
        async with self._db.transaction() as tx:
            events = await vitals.list_recent(tx, list(self._catalog.current.channels), NO_EVIDENCE)
            # Whose answer was told by nobody, and who is not among the last ones any more, would count as under way for hours.
            known = {event.attempt for event in events}
            lost = [a for a in self.health.unanswered(self._now().timestamp() - _ANSWERED_S, _ASKED_AFTER) if a not in known]
            if lost:
                events += await vitals.list_these(tx, lost, NO_EVIDENCE)
        for n, event in enumerate(events):
            self.health.observe(event)
            if n % 500 == 499:
                await asyncio.sleep(0)

    async def _keep(self) -> None:
        """Write down circuits that changed, and now and then the whole state."""
        self._unwritten += self.health.changes()
        count = len(self._unwritten)
        async with self._db.transaction() as tx:
            if count:
                found = [vitals.Transition(c, datetime.fromtimestamp(c.at, UTC)) for c in self._unwritten]
                for transition in await vitals.record_transitions(tx, found):
                    c = transition.change
                    _log.warning("channel.circuit", channel=c.channel, sku=c.sku, state=c.circuit.value, why=transition.reason)
                    await self._say(tx, c)
                if any(t.change.sku is None for t in found):
                    await self._watch_our_way_out(tx)
            await vitals.save_snapshot(tx, "" if self._heard_upto == "$" else self._heard_upto, self.health.dump(), _KEEP_S)
        del self._unwritten[:count]

    async def _say(self, tx: Tx, change: Change) -> None:
        """Whoever watches the channels hears of it, and a person, until it closes."""
        channel = self._catalog.current.channels.get(change.channel)
        if channel is not None:
            await outbox.record(tx, [events.fact_of_change(change, channel.environment)])
        subject, detail = events.alarm_of_change(change)
        if change.circuit is Circuit.OPEN:
            await alarms.raise_alarm(tx, events.CHANNEL_OPEN_ALARM, subject, None, detail)
        else:
            await alarms.close_alarm(tx, events.CHANNEL_OPEN_ALARM, subject)

    async def _watch_our_way_out(self, tx: Tx) -> None:
        """Many channels that die in one moment point at ourselves: a person is told once, until fewer are open."""
        open_since = await vitals.list_open_channels(tx)
        together = events.opened_together(open_since)
        if together:
            detail = f"{len(together)} channels opened within {events.EGRESS_WITHIN_S:.0f} s: {', '.join(together[:10])}: look at our own way out"
            await alarms.raise_alarm(tx, events.EGRESS_ALARM, "our way out", None, detail)
        elif len(open_since) < events.EGRESS_CHANNELS:
            await alarms.close_alarm(tx, events.EGRESS_ALARM, "our way out")

    def sample(self) -> dict[gauges.Family, list[gauges.Sample]]:
        """What this process knows of the channels, as gauges."""
        now = self._now()
        known, snapshot = self.under_way(now), self._catalog.current
        options: dict[str, list[Option]] = {}
        for sku, product in snapshot.products.items():
            face_value = product.face_value if product.face_value is not None else product.face_min
            for environment in sorted(product.environments):
                options.setdefault(sku, []).extend(options_of(snapshot, sku, environment, 1, face_value, now, known))
        return gauges.sample(self.health, options, now.timestamp())

    async def _ask_facts(self) -> Facts:
        snapshot = self._catalog.current
        async with self._db.transaction() as tx:
            [row] = await fetch(tx, "SELECT now() AS now")
            clock = time.monotonic()
            closings = await vitals.list_closings(tx, NO_EVIDENCE)
            await self._count_wallets(tx, snapshot)
            done = await volumes.load_done(tx, snapshot.hand, row["now"])
        return Facts(row["now"], clock, closings, dict(self._spent), done)

    async def _count_wallets(self, tx: Any, snapshot: Snapshot) -> None:
        """Add up what was sent since each wallet was asked: only what is new since the last time is read."""
        since: dict[str, datetime] = {}
        for channel_id, channel in snapshot.channels.items():
            if channel.wallet_balance is None or channel.wallet_checked_at is None:
                self._spent.pop(channel_id, None)
                continue
            known = self._spent_since.get(channel_id)
            if known is None or known[0] != channel.wallet_checked_at:
                self._spent[channel_id] = 0
                known = self._spent_since[channel_id] = (channel.wallet_checked_at, channel.wallet_checked_at)
            since[channel_id] = known[1]
        if since:
            spent, upto = await vitals.count_spent(tx, since)
            for channel_id, cost in spent.items():
                self._spent[channel_id] += cost
                if upto is not None:
                    self._spent_since[channel_id] = (self._spent_since[channel_id][0], upto)


def _pack(event: Event) -> list[Any]:
    if isinstance(event, Sent):
        return [event.attempt, event.channel, event.sku, event.at, event.probe]
    return [event.attempt, event.channel, event.sku, event.at, event.sent_at, event.what.value]


def _unpack(packed: list[Any]) -> Event:
    if len(packed) == 5:
        return Sent(*packed)
    attempt, channel, sku, at, sent_at, what = packed
    return Answered(attempt, channel, sku, at, sent_at, Heard(what))


def _place(entry_id: str) -> tuple[int, int]:
    ms, _, n = entry_id.partition("-")
    return int(ms), int(n or 0)

