"""The evidence, the sums and the circuit of one channel, or of one SKU on it."""

from bisect import bisect_right
from math import exp, log
from typing import Final

from kameng_api.suppliers.routing.evidence import BAD, GOOD, Law, Suspect, Times, Trace, Weighing
from kameng_api.suppliers.routing.facts import ChannelFacts, Circuit, Reading
from kameng_api.suppliers.routing.tuning import Tuning

NEVER: Final = -1e18
_LN2: Final = log(2.0)
_SIGMA: Final = 0.7
"""Spread of the completion time before it is known."""
_P_MIN: Final = 0.3
_P_MAX: Final = 0.995
_BURST: Final = 64
"""So many attempts in a row may be closer together than evidence needs them."""
_SLACK_S: Final = 3.0
"""How late a batch of verdicts may be before its absence says anything."""


def _grown(power: float) -> float:
    """e to the power; a time stamp from a wrong clock days ahead makes a large number, and not an error."""
    return exp(min(power, 100.0))


class Rate:
    """How often something happens, of late: a count that halves in `half_life_s`."""

    __slots__ = ("born_at", "count", "half_life_s", "stamp")

    def __init__(self, now: float, half_life_s: float) -> None:
        self.born_at = self.stamp = now
        self.half_life_s = half_life_s
        self.count = 0.0

    def add(self, at: float) -> None:
        self.born_at = min(self.born_at, at)  # told late is not born late
        passed = at - self.stamp
        if passed > 8.0 * self.half_life_s:
            self.count *= exp(-passed * _LN2 / self.half_life_s)
            self.stamp, passed = at, 0.0
        self.count += _grown(passed * _LN2 / self.half_life_s)

    def per_second(self, now: float) -> float:
        decay = _LN2 / self.half_life_s
        seen = 1.0 - exp(-max(now - self.born_at, 1.0) * decay)
        return self.count * _grown((self.stamp - now) * decay) * decay / seen


class Track:
    """The evidence and the circuit of one channel, or of one SKU on it. Sums are of weights that halve in time, by the moment of sending."""

    __slots__ = (
        "answered",
        "base_answered",
        "base_good",
        "changed",
        "circuit",
        "doubted",
        "fresh_from",
        "gap_s",
        "good",
        "half_life_s",
        "looked_at",
        "opened_at",
        "pending",
        "probed_at",
        "probes",
        "settled",
        "since",
        "stamp",
        "suspect",
        "times",
        "traces",
        "weighing",
        "window",
    )

    def __init__(self, now: float, half_life_s: float, window: int) -> None:
        self.traces: list[Trace] = []
        self.window = window
        self.half_life_s = half_life_s
        self.stamp = now
        self.good = self.answered = self.doubted = 0.0
        self.base_good = self.base_answered = 0.0
        self.times = Times()
        self.circuit = Circuit.CLOSED
        self.opened_at: float | None = None
        self.since: float | None = None
        self.probed_at: float | None = None
        self.probes = 0
        self.fresh_from = NEVER
        self.pending = 0
        self.changed = False
        self.looked_at = now
        self.weighing = Weighing()
        self.settled = (0, 0, 0)
        self.gap_s = 0.0
        self.suspect: Suspect | None = None

    def weight(self, sent_at: float) -> float:
        """What an attempt counts in the sums, which are worth what they say at `stamp`."""
        if sent_at - self.stamp > 8.0 * self.half_life_s:
            self.fade(sent_at)
        return _grown((sent_at - self.stamp) * _LN2 / self.half_life_s)

    def fade(self, now: float) -> None:
        """Move the sums to `now`."""
        factor = self.faded(now)
        self.good *= factor
        self.answered *= factor
        self.doubted *= factor
        self.stamp = now

    def faded(self, now: float) -> float:
        """What the sums are worth at `now`."""
        return _grown((self.stamp - now) * _LN2 / self.half_life_s)

    def insert(self, trace: Trace) -> None:
        """Into its place in dispatch order; nearly always the last."""
        traces = self.traces
        if trace.sent_at <= self.fresh_from:
            return
        if len(traces) > _BURST and not trace.probe and trace.sent_at - traces[-_BURST].sent_at < self.gap_s * _BURST:
            return  # a sample is evidence enough: the window must reach back further than verdicts take
        if not traces or traces[-1].sent_at < trace.sent_at:
            traces.append(trace)
        else:
            traces.insert(bisect_right(traces, _place(trace), key=_place), trace)
            self.settled = (0, 0, 0)

    def age(self, now: float, law: Law) -> None:
        """Move the sums to `now` and let go of what is too old to be evidence, into the long-run reference unless it is suspicious."""
        if now - self.stamp > self.half_life_s:
            self.fade(now)
        excess = len(self.traces) - self.window
        if excess > self.window // 4:
            late_s = law.late_s()
            self.gap_s = late_s / (2 * self.window)
            self.let_go(min(excess, bisect_right(self.traces, now - 2.0 * late_s, key=_sent_at)), law)

    def let_go(self, count: int, law: Law) -> None:
        suspicious = self.since if self.since is not None else self.weighing.since
        for trace in self.traces[:count]:
            if trace.state in (GOOD, BAD) and (suspicious is None or trace.sent_at < suspicious) and not trace.apart:
                self.base_answered += 1.0
                self.base_good += trace.state == GOOD
                self.times.add(trace, law)
        del self.traces[:count]
        self.settled = (0, 0, 0)

    def reference(self, prior: float, weight: float, memory: float) -> float:
        """Long-run success without what is suspicious."""
        if self.base_answered > memory:
            self.base_good *= memory / self.base_answered
            self.base_answered = memory
        weighing = self.weighing
        good = self.base_good + weighing.good_before + weight * prior
        p = good / (self.base_answered + weighing.answered_before + weight)
        return min(max(p, _P_MIN), _P_MAX)

    def open(self, now: float, since: float) -> None:
        self.circuit = Circuit.OPEN
        self.opened_at = self.probed_at = now
        self.since = since
        self.probes = 0

    def close(self, now: float, law: Law) -> None:
        """Begin anew: what was sent before says nothing any more."""
        since = now if self.since is None else self.since
        self.let_go(bisect_right(self.traces, since, key=_sent_at), law)
        self.circuit = Circuit.CLOSED
        self.opened_at = self.probed_at = self.since = self.suspect = None
        self.forget(now)

    def forget(self, now: float) -> None:
        """What was sent before `now` is no evidence any more; the long-run reference stays."""
        self.traces.clear()
        self.good = self.answered = self.doubted = 0.0
        self.fresh_from = max(self.fresh_from, now)
        self.weighing = Weighing()
        self.settled = (0, 0, 0)


def _place(trace: Trace) -> tuple[float, str]:
    return trace.sent_at, trace.attempt


def _sent_at(trace: Trace) -> float:
    return trace.sent_at


class ChannelHealth:
    """Everything known of one channel. `known`: attempts that are remembered; `live`: those of them without any answer."""

    __slots__ = (
        "busy_at",
        "demand",
        "freezes",
        "frozen_s",
        "heard_at",
        "known",
        "law",
        "limit",
        "live",
        "p_reference",
        "rate",
        "readings",
        "skus",
        "strays",
        "swept_at",
        "track",
        "version",
    )

    def __init__(self, facts: ChannelFacts, now: float, tuning: Tuning) -> None:
        self.track = Track(now, tuning.half_life_s, tuning.window)
        self.skus: dict[str, Track] = {}
        self.rate = Rate(now, tuning.half_life_s)
        self.demand = 0.0
        self.known: dict[str, Trace] = {}
        self.live: dict[str, Trace] = {}
        self.law = Law(log(max(facts.latency_s, 0.1)) - _SIGMA * _SIGMA / 2, _SIGMA, 0, facts.callback_batch_s)
        self.p_reference = tuning.p_prior
        self.heard_at = now
        self.limit: float | None = None
        self.busy_at = NEVER
        self.strays = 0
        self.frozen_s, self.freezes = 300.0, 1.0
        self.swept_at = now
        self.readings: dict[str, tuple[int, Reading]] = {}
        self.version = 0

    def looked_at(self, now: float, own_delay_s: float) -> float:
        """Up to when a verdict must have been heard: a moment ago, or at the last batch that should have come."""
        batch_s = self.law.batch_s
        if batch_s <= 0.0:
            return now - own_delay_s
        since_s = now - self.heard_at
        if since_s < _SLACK_S:
            return self.heard_at - batch_s  # this batch is still coming in
        return self.heard_at + int((since_s - _SLACK_S) / batch_s) * batch_s

    def count_freeze(self, seconds: float) -> None:
        """So long an order stood still until its doubt was resolved."""
        self.frozen_s = min(self.frozen_s + seconds, 1e9)
        self.freezes += 1.0

    def p_now(self, now: float, tuning: Tuning) -> float:
        """Success as of late, the unanswered counted by how many of them should have come."""
        track = self.track
        faded = track.faded(now)
        return (track.good * faded + tuning.prior * self.p_reference) / (track.answered * faded + track.weighing.pending + tuning.prior)
