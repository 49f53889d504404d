"""The policy that nobody can be: it sees the true state and takes what is worth most now, without foreseeing the next fault or a full channel."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from benchmarks.routing.engine import Run
from benchmarks.routing.world import ASYNC_TIMEOUT_S, GRACE_S, LOOK_UPS_S, QUICK_S, SYNC_TIMEOUT_S, Truth, late_share
from kameng_api.suppliers.routing.facts import Action, Ask, Decision, Event, Option

HOLD_S: Final = 5.0


class Oracle:
    """One-step look-ahead over true chances, times and limits. It knows no order's luck."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.waits: dict[tuple[object, ...], tuple[float, float]] = {}
        self.quiet: dict[tuple[object, ...], Decision] = {}

    def choose(self, ask: Ask, options: Sequence[Option], now: float, seed: int) -> Decision:
        """The channel of the highest true value; hold while every one is worth less than giving the order up."""
        run = self.run
        troubled = any(run.active)
        sku = run.scene.world.skus.index(ask.sku) if troubled else 0
        truths = [run.truth(n, sku) for n in range(len(run.names))] if troubled else run.scene.truths
        free = [
            n for n, truth in enumerate(truths)
            if run.names[n] not in ask.tried and (truth.cap is None or run.working[n] < truth.cap) and truth.cost <= ask.price
        ]
        if not free:
            return Decision(Action.HOLD, "NONE_FREE", until_s=HOLD_S)
        if troubled:
            return self.best_of(ask, free, truths)
        key = (*free, ask.attempts)
        if key not in self.quiet:
            self.quiet[key] = self.best_of(ask, free, truths)
        return self.quiet[key]

    def best_of(self, ask: Ask, free: Sequence[int], truths: Sequence[Truth]) -> Decision:
        """The channel worth most, of those that have room and do not cost more than we are paid."""
        run = self.run
        weights = ask.weights
        undelivered = weights.undelivered * ask.price / 1e6
        failed = weights.failed_attempt * ask.price / 1e6
        second = weights.second * ask.price / 1e6
        first, last = {}, {}
        for n in free:
            truth = truths[n]
            good_s, bad_s = self.waits_of(truth, n)
            waiting = second * (truth.p * good_s + (1 - truth.p) * bad_s)
            first[n] = truth.p * (ask.price - truth.cost) - (1 - truth.p) * failed - waiting
            last[n] = first[n] - (1 - truth.p) * undelivered
        more = ask.attempts + 1 < 3
        best, best_value = -1, float("-inf")
        for n in free:
            other = max((last[m] for m in free if m != n), default=-undelivered) if more else -undelivered
            value = first[n] + (1 - truths[n].p) * max(other, -undelivered)
            if value > best_value:
                best, best_value = n, value
        if best_value < -undelivered:
            return Decision(Action.HOLD, "ALL_WORTHLESS", until_s=HOLD_S)
        return Decision(Action.DISPATCH, "TRUE_VALUE", run.names[best])

    def waits_of(self, truth: Truth, channel: int) -> tuple[float, float]:
        """Expected seconds to a success and to a failure."""
        callback = self.run.callback[channel]
        key = (callback, truth.median_s, truth.sigma, truth.dark, truth.lost, truth.quick, truth.fail_s, truth.straggle, truth.batch_s)
        found = self.waits.get(key)
        if found is None:
            found = self.waits[key] = waits(truth, callback)
        return found

    def observe(self, event: Event) -> None:
        """It needs to be told nothing."""


def waits(truth: Truth, callback: bool) -> tuple[float, float]:
    """Expected seconds until a success and until a failure are known, look-ups and grace included."""
    timeout = ASYNC_TIMEOUT_S if callback else SYNC_TIMEOUT_S
    good = truth.mean_s()
    if not callback:
        edges = [timeout, *(timeout + age for age in LOOK_UPS_S)]
        good += sum((late_share(truth, before) - late_share(truth, after)) * (after - before) / 2 for before, after in pairwise(edges))
    good = (1 - truth.lost) * good + truth.lost * max(good, timeout + LOOK_UPS_S[0])
    bad = good
    if truth.quick:
        bad = QUICK_S
    elif truth.fail_s:
        bad = sum(truth.fail_s) / 2
    frozen = timeout + GRACE_S
    return good + truth.dark * (frozen - good), bad + truth.dark * (frozen - bad)
