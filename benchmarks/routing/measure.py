"""From what happened to figures: value, waiting, deliveries, and how fast a policy left a dead channel and came back."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import nan
from typing import Final

from benchmarks.routing.engine import Outcome
from benchmarks.routing.world import Fault
from kameng_api.suppliers.routing.facts import Weights

UNIT: Final = 10_000
EVICTED_SHARE: Final = 0.10
BACK_SHARE: Final = 0.5
LOOK_S: Final = 30.0
LOOK_ATTEMPTS: Final = 12
"""Shares are taken over the next 30 s, or over the next 12 attempts where 30 s hold fewer: at three orders a minute 30 s say nothing."""
BEFORE_S: Final = 300.0
AFTER_WIPE_S: Final = 120.0

Sending = tuple[float, int, int, bool, bool]


@dataclass(slots=True)
class Figures:
    """One run in numbers. Amounts in currency units, times in seconds; nan where there is nothing to say."""

    orders: int
    value: float
    """Per 1,000 orders of face value 100."""
    p99_s: float
    delivered: float
    attempts: int
    failed: int
    dead_attempts: int
    at_loss: int
    doubles: int
    probes: int
    holds: int
    evict_orders: float = nan
    evict_s: float = nan
    back_s: float = nan
    after_wipe: float = nan
    micros: float = nan
    """Microseconds of this machine per order, engine and policy together."""
    regret: float = nan
    shares: list[list[int]] = field(default_factory=list)
    """Attempts per minute and channel, for the drawings."""


def figures(outcome: Outcome, weights: Weights | None = None) -> Figures:
    """All figures of one run but the regret, which needs the oracle's run beside it."""
    weights = weights or Weights()
    scene = outcome.scene
    unit = scene.world.price / UNIT / 1e6
    undelivered, failed_attempt, second = weights.undelivered * unit, weights.failed_attempt * unit, weights.second * unit
    value, failed, delivered, doubles = 0.0, 0, 0, 0
    waits: list[float] = []
    for order in outcome.orders:
        if order.done_at < 0:
            raise AssertionError(f"order {order.number} of {scene.name} never ended")
        wait = order.done_at - order.at
        waits.append(wait)
        failed += order.failed
        delivered += order.margin is not None
        doubles += order.deliveries > 1
        value += (-undelivered if order.margin is None else order.margin / UNIT) - second * wait - failed_attempt * order.failed - order.wasted / UNIT
    waits.sort()
    count = len(waits)
    found = Figures(
        orders=count,
        value=value / count * 1000,
        p99_s=waits[min(count - 1, int(0.99 * count))],
        delivered=delivered / count,
        attempts=len(outcome.attempts),
        failed=failed,
        dead_attempts=sum(sending[3] for sending in outcome.attempts),
        at_loss=outcome.at_loss,
        doubles=doubles,
        probes=sum(sending[4] for sending in outcome.attempts),
        holds=outcome.holds,
        shares=shares(outcome),
    )
    deaths = [fault for fault in scene.faults if fault.kills]
    watched = deaths if scene.name.startswith("chaos") else deaths[:1]
    leavings = [leaving(outcome.attempts, fault, scene.seconds) for fault in watched]
    returns = [back for fault in watched if (back := coming_back(outcome.attempts, fault, scene.seconds)) == back]
    if leavings:
        found.evict_orders = sum(orders for orders, _ in leavings) / len(leavings)
        found.evict_s = sum(seconds for _, seconds in leavings) / len(leavings)
    if returns:
        found.back_s = sum(returns) / len(returns)
    if outcome.wiped_at is not None:
        found.after_wipe = float(sum(sending[3] for sending in outcome.attempts if outcome.wiped_at <= sending[0] < outcome.wiped_at + AFTER_WIPE_S))
    return found


def touched(attempts: Sequence[Sending], fault: Fault) -> list[Sending]:
    """The attempts for SKUs that the fault concerns."""
    return [sending for sending in attempts if fault.skus is None or sending[2] in fault.skus]


def share_after(times: Sequence[float], there: Sequence[int], index: int, at: float) -> float:
    """Share of a channel in the attempts that follow. `there`: running count of attempts to it."""
    end = max(bisect_left(times, at + LOOK_S), min(index + LOOK_ATTEMPTS, len(times)))
    return (there[end] - there[index]) / (end - index) if end > index else 0.0


def running(attempts: Sequence[Sending], channel: int) -> tuple[list[float], list[int]]:
    """Times, and how many of the attempts before each went to the channel."""
    times = [sending[0] for sending in attempts]
    there = [0]
    for sending in attempts:
        there.append(there[-1] + (sending[1] == channel))
    return times, there


def leaving(attempts: Sequence[Sending], fault: Fault, seconds: float) -> tuple[float, float]:
    """(orders sent to the dead channel, seconds) until its share stays below 10 % for the next 30 s, or until the fault ends."""
    concerned = touched(attempts, fault)
    times, there = running(concerned, fault.channel)
    first = bisect_left(times, fault.start)
    end = min(fault.end, seconds)
    last = bisect_left(times, end)
    if share_after(times, there, first, fault.start) < EVICTED_SHARE:
        return 0.0, 0.0
    for index in range(first, last):
        if concerned[index][1] == fault.channel and share_after(times, there, index + 1, times[index]) < EVICTED_SHARE:
            return float(there[index + 1] - there[first]), times[index] - fault.start
    return float(there[last] - there[first]), end - fault.start


def coming_back(attempts: Sequence[Sending], fault: Fault, seconds: float) -> float:
    """Seconds after the fault's end until the channel has half its old share again; nan when it never had one or the time is over."""
    concerned = touched(attempts, fault)
    times, there = running(concerned, fault.channel)
    since, first, last = bisect_left(times, fault.start - BEFORE_S), bisect_left(times, fault.start), bisect_left(times, fault.end)
    before = (there[first] - there[since]) / (first - since) if first > since else 0.0
    if before < EVICTED_SHARE or fault.end > seconds - BEFORE_S:
        return nan
    for index in range(last, len(times)):
        if share_after(times, there, index, times[index]) >= BACK_SHARE * before:
            return max(0.0, times[index] - fault.end)
    return seconds - fault.end


def shares(outcome: Outcome) -> list[list[int]]:
    """Attempts per minute (rows) and channel (columns)."""
    minutes = int(outcome.scene.seconds // 60) + 1
    table = [[0] * len(outcome.scene.truths) for _ in range(minutes)]
    for at, channel, _, _, _ in outcome.attempts:
        table[min(int(at // 60), minutes - 1)][channel] += 1
    return table
