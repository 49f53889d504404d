"""What attempts prove about a channel, in nats: answers, and answers that should have come and have not."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from math import erf, exp, log, pi, sqrt
from typing import Final

PENDING: Final = 0
GOOD: Final = 1
BAD: Final = 2
DOUBT: Final = 3
"""No verdict: counts as bad until it resolves."""
VOID: Final = 4
"""Says nothing about health."""

_ROOT2: Final = sqrt(2.0)
_ROOT2PI: Final = sqrt(2.0 * pi)
_ROUNDS: Final = 6
"""Rounds of expectation and maximisation where own times are hidden by batches."""
_FREEZE_S: Final = 300.0
"""How long an order is expected to be frozen in a channel that has fallen silent, until this outage shows otherwise."""
_OVERDUE: Final = 0.97
"""An answer that so many successes would have given by now does not come any more."""
_NO_SILENCE: Final = 0.01
"""A chance of having answered that is too small to be worth a logarithm."""


class Trace:
    """One attempt as evidence. `heard_at`: of its definite verdict."""

    __slots__ = ("apart", "attempt", "crowd", "doubt_at", "heard_at", "probe", "sent_at", "sku", "state")

    def __init__(self, attempt: str, sku: str, sent_at: float, probe: bool = False) -> None:
        self.attempt = attempt
        self.sku = sku
        self.sent_at = sent_at
        self.state = PENDING
        self.heard_at: float | None = None
        self.doubt_at: float | None = None
        self.probe = probe
        self.apart = False
        """Sent while the circuit of its SKU was open: it says nothing about the rest of the channel."""
        self.crowd = 0
        """How many others were under way when it was sent."""


@dataclass(frozen=True, slots=True)
class Law:
    """When successes arrive: log-normal, plus the wait for the next batch where verdicts come in batches."""

    mu: float
    sigma: float
    n: int
    batch_s: float = 0.0
    doubt: float = 0.0
    """Wider by this share while it rests on few successes."""

    def share(self, age_s: float) -> float:
        """How many of the successes have been decided by the supplier `age_s` seconds after sending."""
        if age_s <= 0.0:
            return 0.0
        return 0.5 + 0.5 * erf((log(age_s) - self.mu) / (self.sigma * _ROOT2 * (1.0 + self.doubt)))

    def mean_s(self) -> float:
        return exp(self.mu + self.sigma * self.sigma / 2) + self.batch_s / 2

    def late_s(self) -> float:
        """95 of 100 have arrived."""
        return exp(self.mu + 1.645 * self.sigma) + self.batch_s


class Times:
    """Completion times of successes that are no evidence any more: how many, and the sums of their logarithms and of the squares."""

    __slots__ = ("n", "squares", "total")

    def __init__(self, n: float = 0.0, total: float = 0.0, squares: float = 0.0) -> None:
        self.n, self.total, self.squares = n, total, squares

    def add(self, trace: Trace, law: Law) -> None:
        """Count it if it is a success that came without a doubt."""
        if trace.state == GOOD and trace.doubt_at is None and trace.heard_at is not None:
            x, variance = own_log(trace.heard_at - trace.sent_at, law)
            self.n += 1.0
            self.total += x
            self.squares += x * x + variance

    def fade(self, memory: float) -> None:
        """Let nothing older than about `memory` successes matter."""
        if self.n > memory:
            factor = memory / self.n
            self.n, self.total, self.squares = memory, self.total * factor, self.squares * factor


def own_log(seconds: float, law: Law) -> tuple[float, float]:
    """(mean, variance) of the logarithm of the supplier's own time in a time to a verdict.

    With batches the own time ended anywhere between this batch and the one before: what `law` expects in between.
    """
    end = log(max(seconds, 0.05))
    if law.batch_s <= 0.0:
        return end, 0.0
    begin = log(max(seconds - law.batch_s, 0.05))
    a, b = (begin - law.mu) / law.sigma, (end - law.mu) / law.sigma
    chance = 0.5 * (erf(b / _ROOT2) - erf(a / _ROOT2))
    if chance < 1e-6:
        return (begin if a > 0.0 else end), 0.0
    at_a, at_b = exp(-a * a / 2) / _ROOT2PI, exp(-b * b / 2) / _ROOT2PI
    shift = (at_a - at_b) / chance
    return law.mu + law.sigma * shift, law.sigma**2 * max(1.0 + (a * at_a - b * at_b) / chance - shift * shift, 0.0)


def learn(law: Law, before: Times, traces: Sequence[Trace], now: float, since: float | None, enough: int) -> Law:
    """The law of the successes `before` and among `traces` (dispatch order) sent before the suspicion `since`; the old one without `enough`.

    Only attempts old enough to have been answered are looked at, else the quick ones would be over-represented.
    """
    latest = now - law.late_s()
    if since is not None:
        latest = min(latest, since)
    for _ in range(_ROUNDS if law.batch_s > 0.0 else 1):
        law = _learn_once(law, before, traces, latest, enough)
    return law


def _learn_once(law: Law, before: Times, traces: Sequence[Trace], latest: float, enough: int) -> Law:
    times = Times(before.n, before.total, before.squares)
    for trace in traces:
        if trace.sent_at > latest:
            break
        times.add(trace, law)
    if times.n < enough:
        return law
    mu = times.total / times.n
    sigma = sqrt(max(times.squares / times.n - mu * mu, 0.0))
    return Law(mu, max(sigma, 0.25), int(times.n), law.batch_s, 1.0 / sqrt(times.n))


@dataclass(frozen=True, slots=True)
class Weighing:
    """The strongest case that the channel died, and what was before it. Counts of answers; `silent` weighs the unanswered by their lateness."""

    nats: float = 0.0
    since: float | None = None
    """When the first attempt of the suspicious suffix was sent; None: no suspicion."""
    failures: int = 0
    silent: int = 0
    good_before: int = 0
    answered_before: int = 0
    pending: float = 0.0
    """Successes that should have come from unanswered attempts, were the channel well: sum of the shares."""
    settled: tuple[int, int, int] = (0, 0, 0)
    """How many traces from the first are all answered and free of suspicion, their successes and answers: they need not be weighed again."""


def weigh(
    traces: Sequence[Trace],
    looked_at: float | None,
    law: Law,
    p: float,
    p_dead: float,
    without: Collection[str] = (),
    settled: tuple[int, int, int] = (0, 0, 0),
) -> Weighing:
    """CUSUM in dispatch order: the largest sum over all suffixes of ln(chance if dead / chance if well).

    `looked_at`: up to when silence speaks (None: it says nothing now); `without`: SKUs whose own circuit is open; `settled`: where an
    earlier weighing of the same traces may be taken up.
    """
    good_x = log(p_dead / p)
    bad_x = log((1.0 - p_dead) / (1.0 - p))
    nats = pending = 0.0
    since: float | None = None
    failures = silent = 0
    first, good, answered = settled
    good_before, answered_before = good, answered
    unanswered = False
    for index in range(first, len(traces)):
        trace = traces[index]
        state = trace.state
        if state == GOOD and not (without and trace.sku in without):
            nats += good_x
            good += 1
            answered += 1
        elif state == PENDING:
            unanswered = True
            if looked_at is None or (without and trace.sku in without):
                continue
            share = law.share(looked_at - trace.sent_at)
            if share < _NO_SILENCE:
                continue
            nats += log((1.0 - p_dead * share) / (1.0 - p * share))
            pending += share
            silent += 1
        elif state == VOID or (without and trace.sku in without):
            continue
        else:
            nats += bad_x
            failures += 1
            answered += 1
        if nats <= 0.0:
            nats, since, failures, silent = 0.0, None, 0, 0
            good_before, answered_before = good, answered
            if not unanswered:
                settled = (index + 1, good, answered)
        elif since is None:
            since = trace.sent_at
    return Weighing(nats, since, failures, silent, good_before, answered_before, pending, settled)


@dataclass(frozen=True, slots=True)
class Suspect:
    """How a channel behaves since the suspicion began, and whether it is back."""

    p: float
    latency_s: float
    """Seconds that an attempt there takes or freezes its order."""
    wins: int
    """Successes in a row, the latest in dispatch order."""
    probing: int
    """Probes under way and not overdue."""


def examine(traces: Sequence[Trace], since: float, opened_at: float, now: float, looked_at: float, law: Law, sku: str | None = None) -> Suspect:
    """What became of the attempts sent `since` the suspicion began, of one SKU or all; successes count towards closing once it is open."""
    good = seen = lost_s = silent = 0.0
    frozen_s, frozen = 2.0 * _FREEZE_S, 2.0
    wins = probing = 0
    for trace in traces:
        state = trace.state
        if trace.sent_at < since or state == VOID or (sku is not None and trace.sku != sku):
            continue
        if state in (GOOD, BAD):
            heard_at = trace.heard_at or now
            seen += 1.0
            lost_s += heard_at - trace.sent_at
            if trace.doubt_at is not None:
                frozen_s += heard_at - trace.sent_at
                frozen += 1.0
            if state == BAD:
                wins = 0
            else:
                good += 1.0
                wins += trace.doubt_at is None and heard_at > opened_at
            continue
        share = 1.0 if state == DOUBT else law.share(looked_at - trace.sent_at)
        silent += share
        if share > _OVERDUE:
            wins = 0
        elif trace.probe:
            probing += 1
    seen += silent
    latency_s = (lost_s + silent * frozen_s / frozen + law.mean_s()) / (seen + 1.0)
    return Suspect((good + 0.1) / (seen + 1.0), latency_s, wins, probing)
