"""What is known of every channel: a fold of events, the same in every process that is told the same.

Events are counted once and in dispatch order, whenever and however often they arrive; `tend` looks at the evidence on a grid of half seconds,
so that processes with the same events open and close the same circuits.
"""

from collections import deque
from collections.abc import Collection, Mapping
from math import inf, log
from typing import Final

from kameng_api.suppliers.routing.evidence import (
    BAD,
    DOUBT,
    GOOD,
    PENDING,
    VOID,
    Suspect,
    Trace,
    examine,
    learn,
    weigh,
)
from kameng_api.suppliers.routing.facts import (
    Answered,
    Change,
    ChannelFacts,
    Circuit,
    Event,
    Heard,
    Reading,
    Sent,
)
from kameng_api.suppliers.routing.snapshot import dump_state, load_state
from kameng_api.suppliers.routing.track import ChannelHealth, Rate, Track
from kameng_api.suppliers.routing.tuning import DEFAULT, Tuning

_GRID: Final = 2.0
"""Looks at the evidence in a second."""
_DAY: Final = 86_400.0
_REMEMBERED: Final = 4096
"""Answered attempts per channel that are remembered only so that nothing is counted twice."""
_LOST_S: Final = 7200.0
"""An attempt without any verdict for so long is forgotten."""
_STRAY_S: Final = 60.0
"""And after so long, or twice the time in which 95 of 100 verdicts come, it takes no place under an inferred limit: it is lost, not under way."""
_SET_BACK_S: Final = 120.0
_STATES: Final = {Heard.GOOD: GOOD, Heard.BAD: BAD, Heard.DOUBT: DOUBT, Heard.BUSY: VOID, Heard.NEUTRAL: VOID, Heard.REVERSED: BAD}


def _sent_at(trace: Trace) -> float:
    return trace.sent_at


def _count_strays(channel: ChannelHealth, now: float) -> int:
    before = now - max(2.0 * channel.law.late_s(), _STRAY_S)
    return sum(trace.sent_at < before for trace in channel.live.values())


class Health:
    """The fold. Not safe for threads; one per process."""

    def __init__(self, facts: Mapping[str, ChannelFacts] | None = None, tuning: Tuning = DEFAULT) -> None:
        self.facts: Mapping[str, ChannelFacts] = facts or {}
        self.tuning = tuning
        self._channels: dict[str, ChannelHealth] = {}
        self._demand: dict[str, Rate] = {}
        self._changes: deque[Change] = deque(maxlen=1000)
        self._tick = -1

    def observe(self, event: Event) -> None:
        """Count one event, if it was not counted before."""
        channel = self._channels.get(event.channel)
        if channel is None:
            channel = self._channels[event.channel] = ChannelHealth(self.facts.get(event.channel, ChannelFacts()), event.at, self.tuning)
        trace = channel.known.get(event.attempt)
        if isinstance(event, Sent):
            told = trace is not None and trace.probe
            if trace is None:
                trace = self._begin(channel, event.attempt, event.sku, event.at, event.probe)
            if event.probe and not told:
                self._note_probe(channel, trace)
        else:
            if trace is None:
                trace = self._begin(channel, event.attempt, event.sku, event.sent_at, False)
            self._hear(channel, trace, event)
        channel.version += 1

    def _begin(self, channel: ChannelHealth, attempt: str, sku: str, sent_at: float, probe: bool) -> Trace:
        trace = Trace(attempt, sku, sent_at, probe)
        trace.crowd = max(len(channel.live) - channel.strays, 0)
        channel.known[attempt] = channel.live[attempt] = trace
        track = channel.skus.get(sku)
        if track is None:
            track = channel.skus[sku] = Track(sent_at, self.tuning.sku_half_life_s, self.tuning.sku_window)
        trace.apart = track.circuit is Circuit.OPEN
        demand = self._demand.get(sku)
        if demand is None:
            demand = self._demand[sku] = Rate(sent_at, self.tuning.half_life_s)
        demand.add(sent_at)
        channel.rate.add(sent_at)
        for each in (channel.track, track):
            each.insert(trace)
            each.pending += 1
            each.changed = True
        return trace

    def _note_probe(self, channel: ChannelHealth, trace: Trace) -> None:
        trace.probe = True
        for each in (channel.track, channel.skus[trace.sku]):
            if each.circuit is Circuit.OPEN:
                each.probes += 1
                each.probed_at = max(each.probed_at or trace.sent_at, trace.sent_at)

    def _hear(self, channel: ChannelHealth, trace: Trace, event: Answered) -> None:
        before, after = trace.state, _STATES.get(event.what, PENDING)
        if after == PENDING or before in (VOID, after):
            return
        if before in (GOOD, BAD) and event.what is not Heard.REVERSED:
            if after == DOUBT:
                self._hear_of_doubt(channel, trace, event.at)
            return
        if before == PENDING:
            channel.live.pop(trace.attempt, None)
        if after == DOUBT:
            trace.doubt_at = event.at
        elif event.what is not Heard.REVERSED:
            trace.heard_at = event.at
            if before == DOUBT and trace.doubt_at is not None:
                channel.count_freeze(event.at - trace.doubt_at)
            elif after == GOOD:
                channel.heard_at = max(channel.heard_at, event.at)
        trace.state = after
        self._count(channel, trace, before, after)
        if self.tuning.limits:
            self._learn_limit(channel, trace, event)

    def _hear_of_doubt(self, channel: ChannelHealth, trace: Trace, at: float) -> None:
        """That an attempt was in doubt is told after the verdict that ended it: it counts as if it had been told before."""
        if trace.doubt_at is not None or trace.heard_at is None or at >= trace.heard_at:
            return
        trace.doubt_at = at
        channel.count_freeze(trace.heard_at - at)
        for each in (channel.track, channel.skus[trace.sku]):
            each.changed = True
            if _is_evidence(trace, each, channel):
                each.doubted += each.weight(trace.sent_at)

    def _count(self, channel: ChannelHealth, trace: Trace, before: int, after: int) -> None:
        for each in (channel.track, channel.skus[trace.sku]):
            each.changed = True
            if before == PENDING:
                each.pending -= 1
            else:
                each.settled = (0, 0, 0)
            if after == VOID and before == PENDING:
                continue
            if not _is_evidence(trace, each, channel):
                continue
            weight = each.weight(trace.sent_at)
            if before == PENDING:
                each.answered += weight
            elif after == VOID:
                each.answered -= weight
            if after == GOOD:
                each.good += weight
            elif before == GOOD:
                each.good -= weight
            if after == DOUBT:
                each.doubted += weight

    def _learn_limit(self, channel: ChannelHealth, trace: Trace, event: Answered) -> None:
        """A refusal for load proves that what was under way then was all it takes; the longer none comes, the faster more is tried."""
        if event.what is Heard.BUSY:
            crowd = float(trace.crowd) if channel.limit is None else min(channel.limit, float(trace.crowd))
            channel.limit = max(crowd, 1.0)
            channel.busy_at = max(channel.busy_at, event.at)
        elif event.what is Heard.GOOD and channel.limit is not None and trace.crowd + 1 >= 0.7 * int(channel.limit):
            channel.limit += min(self.tuning.limit_growth * ((event.at - channel.busy_at) / 60.0) ** 2, 1.0)

    def tend(self, now: float) -> None:
        """Look at the evidence, at most twice a second; opens and closes circuits."""
        tick = int(now * _GRID)
        if self._tick - _SET_BACK_S * _GRID < tick <= self._tick:
            return  # looked at already; from far in the future, the clock has been set back since
        self._tick = tick
        at = tick / _GRID
        for name, channel in self._channels.items():
            self._tend_channel(name, channel, at)

    def _tend_channel(self, name: str, channel: ChannelHealth, now: float) -> None:
        tuning, track = self.tuning, channel.track
        if not (track.changed or track.pending or track.circuit is Circuit.OPEN or now - track.looked_at > 5.0):
            return
        track.changed = False
        track.looked_at = now
        track.age(now, channel.law)
        if now - channel.swept_at > 10.0:
            self._sweep(channel, now)
        without = [sku for sku, each in channel.skus.items() if each.circuit is Circuit.OPEN] if tuning.sku_level else []
        channel.strays = 0 if channel.limit is None else _count_strays(channel, now)
        speaks_at = self._speaks_at(channel, now)
        looked_at = channel.looked_at(now, self.tuning.own_delay_s)
        channel.p_reference = p = track.reference(tuning.p_prior, tuning.ref_prior, tuning.ref_memory)
        if track.circuit is Circuit.OPEN:
            channel.demand = sum(self._demand[sku].per_second(now) for sku in channel.skus)
            self._try_to_close(name, None, channel, track, now, looked_at, self._began(channel, track, speaks_at, p, without))
        else:
            track.weighing = weigh(track.traces, speaks_at, channel.law, p, tuning.p_dead, without, track.settled)
            track.settled = track.weighing.settled
            self._try_to_open(name, None, channel, track, now, looked_at)
        if tuning.sku_level and track.circuit is Circuit.CLOSED:
            for sku, each in channel.skus.items():
                if each.changed or each.pending or each.circuit is Circuit.OPEN:
                    self._tend_sku(name, sku, channel, each, now, speaks_at, looked_at)
        channel.version += 1

    def _tend_sku(self, name: str, sku: str, channel: ChannelHealth, track: Track, now: float, speaks_at: float | None, looked_at: float) -> None:
        tuning = self.tuning
        track.changed = False
        track.age(now, channel.law)
        reference = track.reference(channel.p_reference, tuning.sku_prior, tuning.ref_memory)
        p = max(min(reference, channel.p_now(now, tuning)), 0.3)  # a SKU is sick only if it is worse than its channel is now
        if track.circuit is Circuit.OPEN:
            self._try_to_close(name, sku, channel, track, now, looked_at, self._began(channel, track, speaks_at, p, ()))
            return
        track.weighing = weigh(track.traces, speaks_at, channel.law, p, tuning.p_dead, (), track.settled)
        track.settled = track.weighing.settled
        self._try_to_open(name, sku, channel, track, now, looked_at)

    def _began(self, channel: ChannelHealth, track: Track, speaks_at: float | None, p: float, without: Collection[str]) -> float | None:
        """When the trouble really began: answers that came after the circuit opened, to attempts from before, say that it was later than thought.

        Weighed afresh each time, so that processes which heard the same in another order agree.
        """
        since = weigh(track.traces, speaks_at, channel.law, p, self.tuning.p_dead, without).since
        return track.since if since is None or track.since is None else max(since, track.since)

    def _speaks_at(self, channel: ChannelHealth, now: float) -> float | None:
        """Up to when silence is evidence; None while it is not: too little is known, or the load is not ordinary."""
        tuning = self.tuning
        if not tuning.silence or channel.law.n < tuning.latencies or now - channel.busy_at < tuning.busy_s:
            return None
        return channel.looked_at(now, self.tuning.own_delay_s)

    def _try_to_open(self, name: str, sku: str | None, channel: ChannelHealth, track: Track, now: float, looked_at: float) -> None:
        tuning, weighing = self.tuning, track.weighing
        daily = max(channel.rate.per_second(now) * _DAY, 1.0)  # of the whole channel: one false alarm a day for all its SKUs together
        height = min(max(log(daily), tuning.h_min), tuning.h_max)
        if weighing.since is None or weighing.nats <= height:
            return
        if sku is None and tuning.sku_level and self._nats_without_worst(channel, weighing.since, now) < tuning.breadth * height:
            return
        track.open(now, weighing.since)
        channel.track.settled = (0, 0, 0)
        self._examine(sku, channel, track, now, looked_at, track.since)
        self._changes.append(Change(name, sku, Circuit.OPEN, now, weighing.nats, weighing.failures, weighing.silent))

    def _nats_without_worst(self, channel: ChannelHealth, since: float, now: float) -> float:
        """The evidence that is left when the SKU with most of it is set aside: what one SKU says does not condemn the others."""
        tuning = self.tuning
        trouble: dict[str, int] = {}
        for trace in channel.track.traces:
            if trace.sent_at >= since and trace.state in (BAD, DOUBT, PENDING):
                trouble[trace.sku] = trouble.get(trace.sku, 0) + (1 if trace.state == PENDING else 3)
        shut = [sku for sku, each in channel.skus.items() if each.circuit is Circuit.OPEN]
        open_troubles = {sku: count for sku, count in trouble.items() if sku not in shut}
        if not open_troubles:
            return 0.0
        worst = max(open_troubles, key=lambda sku: open_troubles[sku])
        if not any(trace.sent_at >= since and trace.sku != worst and trace.sku not in shut for trace in channel.track.traces):
            return inf  # nothing else was asked: nothing speaks for the rest of the channel, and often there is no rest
        speaks_at = self._speaks_at(channel, now)
        return weigh(channel.track.traces, speaks_at, channel.law, channel.p_reference, tuning.p_dead, [*shut, worst]).nats

    def _examine(
        self, sku: str | None, channel: ChannelHealth, track: Track, now: float, looked_at: float, began: float | None
    ) -> Suspect:
        since = now if began is None else began
        track.suspect = examine(track.traces, since, track.opened_at or now, now, looked_at, channel.law, sku)
        return track.suspect

    def _try_to_close(
        self, name: str, sku: str | None, channel: ChannelHealth, track: Track, now: float, looked_at: float, began: float | None
    ) -> None:
        tuning = self.tuning
        suspect = self._examine(sku, channel, track, now, looked_at, began)
        if suspect.wins < (1 if suspect.latency_s < tuning.cheap_s else 2):
            return
        opened_at = now if track.opened_at is None else track.opened_at
        track.close(now, channel.law)
        channel.track.settled = (0, 0, 0)
        self._changes.append(Change(name, sku, Circuit.CLOSED, now, 0.0, 0, 0))
        if sku is None:
            for each_sku, each in channel.skus.items():
                if each.circuit is Circuit.OPEN and (each.opened_at or now) >= opened_at - 60.0:
                    each.close(now, channel.law)
                    self._changes.append(Change(name, each_sku, Circuit.CLOSED, now, 0.0, 0, 0))
                else:
                    each.forget(now)

    def _sweep(self, channel: ChannelHealth, now: float) -> None:
        """Every ten seconds: learn the completion times, and forget what nothing is expected of any more."""
        channel.swept_at = now
        channel.track.settled = (0, 0, 0)  # weighed afresh, for the reference has moved
        channel.track.times.fade(self.tuning.ref_memory)
        channel.law = learn(
            channel.law, channel.track.times, channel.track.traces, now, channel.track.since or channel.track.weighing.since, self.tuning.latencies
        )
        for attempt, trace in list(channel.live.items()):
            if now - trace.sent_at <= _LOST_S:
                break
            del channel.live[attempt]
        excess = len(channel.known) - len(channel.live) - _REMEMBERED
        if excess > _REMEMBERED // 4:
            old = [attempt for attempt, trace in channel.known.items() if trace.state != PENDING][:excess]
            for attempt in old:
                del channel.known[attempt]

    def reading(self, channel: str, sku: str, now: float) -> Reading:
        """What `choose` may know of a channel for a SKU; call `tend` first. Cached until something is heard or the evidence is looked at again."""
        known = self._channels.get(channel)
        if known is None:
            facts = self.facts.get(channel, ChannelFacts())
            latency_s = facts.latency_s + facts.callback_batch_s / 2
            return Reading(p=self.tuning.p_prior, latency_s=latency_s, latency_healthy_s=latency_s)
        cached = known.readings.get(sku)
        if cached is not None and cached[0] == known.version:
            return cached[1]
        reading = self._read(known, sku, now)
        known.readings[sku] = (known.version, reading)
        return reading

    def _read(self, channel: ChannelHealth, sku: str, now: float) -> Reading:
        tuning, track = self.tuning, channel.track
        own = channel.skus.get(sku) if tuning.sku_level else None
        p = p_channel = channel.p_now(now, tuning)
        faded = track.faded(now)
        n = track.answered * faded
        doubt = track.doubted * faded / (n + tuning.prior + 20.0)
        if own is not None:
            faded = own.faded(now)
            n = own.answered * faded
            p = (own.good * faded + tuning.sku_prior * p_channel) / (n + tuning.sku_prior)
        p_healthy = channel.p_reference
        latency_s = channel.law.mean_s()
        opened = track if track.circuit is Circuit.OPEN else own if own is not None and own.circuit is Circuit.OPEN else None
        late_s = channel.law.late_s()
        freeze_s = channel.frozen_s / channel.freezes
        limit, inferred = channel.limit, True
        if limit is not None:
            limit += channel.strays
            inferred = now - channel.busy_at > 600.0
        in_flight = len(channel.live)
        if opened is None or opened.suspect is None:
            return Reading(
                p,
                n,
                latency_s,
                late_s,
                doubt,
                freeze_s,
                Circuit.CLOSED,
                False,
                max(track.weighing.nats, own.weighing.nats if own else 0.0),
                track.weighing.failures,
                track.weighing.silent,
                None,
                None,
                in_flight,
                limit,
                inferred,
                p_healthy,
                latency_s,
            )
        suspect, weighing = opened.suspect, opened.weighing
        demand = self._demand[sku].per_second(now) if opened is own else channel.demand
        earliest = (opened.probed_at or now) + (tuning.probe_again_s if suspect.wins else tuning.probe_min_s)
        return Reading(
            suspect.p,
            n,
            suspect.latency_s,
            late_s,
            0.0,
            freeze_s,
            Circuit.OPEN,
            opened is own,
            weighing.nats,
            weighing.failures,
            weighing.silent,
            opened.opened_at,
            earliest,
            in_flight,
            limit,
            inferred,
            p_healthy,
            channel.law.mean_s(),
            opened.probed_at,
            opened.probes,
            suspect.probing,
            suspect.wins,
            demand,
        )

    def unanswered(self, sent_before: float, most: int) -> list[str]:
        """Attempts that nothing was heard of and that were sent before then: the `most` oldest of each channel."""
        found: list[str] = []
        for channel in self._channels.values():
            old = (trace for trace in channel.live.values() if trace.sent_at < sent_before)
            found += [trace.attempt for trace in sorted(old, key=_sent_at)[:most]]
        return found

    def dump(self) -> bytes:
        """The whole state, for a snapshot; `load` gives a Health that decides the same."""
        return dump_state(self._tick, self._channels, self._demand)

    @classmethod
    def load(cls, snapshot: bytes, facts: Mapping[str, ChannelFacts] | None = None, tuning: Tuning = DEFAULT) -> "Health":
        """From a `dump` made with the same version; raises ValueError on any other."""
        health = cls(facts, tuning)
        health._tick, health._channels, health._demand = load_state(snapshot, tuning)
        return health

    def changes(self) -> list[Change]:
        """The circuits that opened or closed since the last call."""
        changes = list(self._changes)
        self._changes.clear()
        return changes


def _is_evidence(trace: Trace, track: Track, channel: ChannelHealth) -> bool:
    """Whether the attempt counts in the track's sums: not what was sent before it began anew, nor what one SKU's open circuit kept apart."""
    return trace.sent_at > track.fresh_from and not (trace.apart and track is channel.track)
