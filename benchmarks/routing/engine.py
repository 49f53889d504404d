"""The same safe dispatch engine for every policy: it asks, sends, waits and never buys twice; what it cannot prove stays frozen.

A definite failure permits another channel, at most `ATTEMPTS` in all and none later than `DEADLINE_S` after the order came. A doubt freezes the
order until a look-up or a late callback resolves it. `naive=True` fails over on a doubt instead, to show what that costs.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush
from math import ceil, exp
from typing import Final, Protocol, runtime_checkable

from benchmarks.routing.world import (
    ASYNC_TIMEOUT_S,
    GRACE_S,
    LOOK_UPS_S,
    NORMAL,
    QUICK_S,
    SYNC_TIMEOUT_S,
    Fault,
    Scene,
    Truth,
    World,
    luck,
    mix,
    orders_of,
)
from kameng_api.suppliers.routing.facts import Action, Answered, Ask, Decision, Event, Heard, Option, Policy, Sent

ATTEMPTS: Final = 3
DEADLINE_S: Final = 900.0
KILLED_EACH: Final = 97
LEASE_S: Final = 3.0
"""A lease outlives the time in which the others learn of the probe, and no more: the next probe after an answer must not wait for it."""
SHORTEST_HOLD_S: Final = 0.05
REMEMBERED: Final = 256
"""So many attempts of each channel are read again from the database when shared memory is lost."""
MakePolicy = Callable[[World], Policy]

ASK_AGAIN, ANSWER, BOUNDARY, WIPE = range(4)
LIVE, DOUBTED, CLOSED = range(3)
GOOD, BAD, DOUBT, TAKEN, BUSY = Heard.GOOD, Heard.BAD, Heard.DOUBT, Heard.TAKEN, Heard.BUSY


class Misbehaved(Exception):
    """A policy chose what it was not offered, or what had already been tried."""


@runtime_checkable
class Rebuilds(Protocol):
    """A policy that can start again from the last events, read from the database, instead of from nothing."""

    def rebuild(self, events: Sequence[Event]) -> None:
        """`events`: those of the last 256 attempts of each channel, in the order in which they became known."""
        ...


@runtime_checkable
class Leases(Protocol):
    """A policy that can say which circuit a probe asks, so that among many workers one at a time probes it."""

    def circuit(self, channel: str, sku: str, now: float) -> str:
        """A name for the circuit that a probe of channel × SKU would ask now."""
        ...


class Order:
    """One order on its way."""

    __slots__ = ("asked", "at", "attempts", "deliveries", "done_at", "failed", "live", "margin", "number", "sku", "tried", "wasted", "worker")

    def __init__(self, number: int, at: float, sku: int, worker: int) -> None:
        self.number = number
        self.at = at
        self.sku = sku
        self.worker = worker
        self.attempts = 0
        self.failed = 0
        self.asked = 0
        self.tried: dict[str, str] = NOTHING_TRIED
        self.live = False
        self.done_at = -1.0
        self.margin: int | None = None
        self.deliveries = 0
        self.wasted = 0


NOTHING_TRIED: Final[dict[str, str]] = {}


class Attempt:
    """One request to one channel. `delivers` is the supplier's own log: nobody but the figures may look."""

    __slots__ = ("at", "channel", "cost", "delivers", "key", "occupies", "order", "state")

    def __init__(self, order: Order, channel: int, key: str, at: float, cost: int) -> None:
        self.order = order
        self.channel = channel
        self.key = key
        self.at = at
        self.cost = cost
        self.delivers = False
        self.occupies = True
        self.state = LIVE


@dataclass(slots=True)
class Outcome:
    """What happened in one run, for `measure`. `attempts`: (sent at, channel, SKU, dead, probe)."""

    scene: Scene
    seed: int
    orders: list[Order]
    attempts: list[tuple[float, int, int, bool, bool]] = field(default_factory=list)
    at_loss: int = 0
    """Deliveries bought for more than they were sold for."""
    holds: int = 0
    events: int = 0
    wiped_at: float | None = None


class Run:
    """One policy in one scene with one seed. `lag_s`: how late other workers learn of an event; None: never.

    `mess`: jobs run twice, and some answers are lost because the worker that waited for them was killed.
    """

    def __init__(
        self,
        scene: Scene,
        seed: int,
        make_policy: Callable[["Run"], Policy],
        *,
        workers: int = 1,
        lag_s: float | None = 1.0,
        wipe_at: float | None = None,
        rebuild: bool = False,
        naive: bool = False,
        mess: bool = False,
    ) -> None:
        self.scene = scene
        self.seed = seed
        self.now = 0.0
        self.names = [channel.name for channel in scene.world.channels]
        self.place = {name: n for n, name in enumerate(self.names)}
        self.callback = [channel.callback for channel in scene.world.channels]
        self.active: list[tuple[Fault, ...]] = [() for _ in self.names]
        self.working = [0] * len(self.names)
        self.options: dict[int, tuple[Option, ...]] = {}
        self.heap: list[tuple[float, int, int, object, object]] = []
        self.pushed = 0
        self.moments = orders_of(scene, seed)
        self.outcome = Outcome(scene, seed, [], wiped_at=wipe_at)
        self.make_policy = make_policy
        self.lag_s = lag_s
        self.shared: deque[tuple[float, int, Event]] = deque()
        self.leases: dict[str, float] | None = {} if workers > 1 and lag_s is not None else None
        self.rebuild = rebuild
        self.naive = naive
        self.mess = mess
        self.journal: list[Event] | None = [] if wipe_at is not None and rebuild else None
        self.policies = [make_policy(self) for _ in range(workers)]
        for fault in scene.faults:
            self.push(fault.start, BOUNDARY, fault, True)
            self.push(fault.end, BOUNDARY, fault, False)
        if wipe_at is not None:
            self.push(wipe_at, WIPE, None, None)

    def push(self, at: float, what: int, subject: object, detail: object) -> None:
        """Make something happen later; what was pushed first happens first."""
        self.pushed += 1
        heappush(self.heap, (at, self.pushed, what, subject, detail))

    def truth(self, channel: int, sku: int) -> Truth:
        """What is true now. Do not change it."""
        truth = self.scene.truths[channel]
        if faults := self.active[channel]:
            for fault in faults:
                if fault.skus is None or sku in fault.skus:
                    if truth is self.scene.truths[channel]:
                        truth = truth.copy()
                    fault.bend(truth, self.now)
        return truth

    def run(self) -> Outcome:
        """Let it happen, until the last order has its end."""
        heap, workers, orders = self.heap, len(self.policies), self.outcome.orders
        for number, (at, sku) in enumerate(self.moments):
            while heap and heap[0][0] <= at:
                self.step()
            self.now = at
            order = Order(number, at, sku, number % workers)
            orders.append(order)
            self.ask(order)
            if self.mess and number % 7 == 0:
                self.push(at + 0.001 * (number % 5000), ASK_AGAIN, order, None)
        while heap:
            self.step()
        return self.outcome

    def step(self) -> None:
        """The next thing that happens."""
        self.now, _, what, subject, detail = heappop(self.heap)
        if what == ANSWER:
            self.hear(subject, detail)  # type: ignore[arg-type]
        elif what == ASK_AGAIN:
            self.ask(subject)  # type: ignore[arg-type]
        elif what == BOUNDARY:
            self.turn(subject, bool(detail))  # type: ignore[arg-type]
        else:
            self.wipe()

    def turn(self, fault: Fault, begins: bool) -> None:
        """A fault begins or ends; prices are read anew."""
        faults = self.active[fault.channel]
        self.active[fault.channel] = (*faults, fault) if begins else tuple(other for other in faults if other is not fault)
        self.options.clear()

    def options_of(self, sku: int) -> tuple[Option, ...]:
        """What could be asked for a SKU: the facts that are no secret."""
        found = self.options.get(sku)
        if found is None:
            code = self.scene.world.skus[sku]
            found = tuple(Option(channel=name, cost=self.truth(n, sku).cost, product_code=code) for n, name in enumerate(self.names))
            self.options[sku] = found
        return found

    def ask(self, order: Order) -> None:
        """Ask the policy about an order that has no live attempt; a job that comes twice finds that there is nothing to do."""
        if order.live or order.done_at >= 0:
            return
        age = self.now - order.at
        if order.attempts >= ATTEMPTS or age >= DEADLINE_S - 1e-6:
            order.done_at = self.now
            return
        if self.shared:
            self.spread()
        order.asked += 1
        world = self.scene.world
        ask = Ask(
            order=str(order.number), sku=world.skus[order.sku], price=world.price, age_s=age, left_s=DEADLINE_S - age,
            attempts=order.attempts, tried=order.tried,
        )
        seed = self.seed * 1_000_003 + order.number * 64 + order.asked
        policy = self.policies[order.worker]
        decision = policy.choose(ask, self.options_of(order.sku), self.now, seed)
        action = decision.action
        if self.leases is not None and action is Action.PROBE and not self.lease(policy, ask.sku, decision):
            decision = policy.choose(replace(ask, premium=True), self.options_of(order.sku), self.now, seed)
            action = decision.action
        if action is Action.DISPATCH or action is Action.PROBE:
            if decision.channel is None or order.tried.get(decision.channel, "busy") != "busy":
                raise Misbehaved(f"order {order.number}: {decision.channel} was tried already: {order.tried}")
            self.send(order, self.place[decision.channel], action is Action.PROBE)
        elif action is Action.HOLD:
            self.outcome.holds += 1
            wait = 5.0 if decision.until_s is None else decision.until_s
            self.push(self.now + max(min(wait, DEADLINE_S - age), SHORTEST_HOLD_S), ASK_AGAIN, order, None)
        else:
            order.done_at = self.now

    def lease(self, policy: Policy, sku: str, decision: Decision) -> bool:
        """Take the right to probe a circuit until everybody has heard of the probe; False when another worker has it."""
        leases, channel = self.leases, decision.channel or ""
        assert leases is not None
        circuit = policy.circuit(channel, sku, self.now) if isinstance(policy, Leases) else channel
        if leases.get(circuit, 0.0) > self.now:
            return False
        leases[circuit] = self.now + min(decision.until_s or 0.0, LEASE_S)
        return True

    def send(self, order: Order, channel: int, probe: bool) -> None:
        """Open an attempt, tell the policy, and let luck and the supplier's state decide what comes of it."""
        order.attempts += 1
        order.live = True
        now = self.now
        truth = self.truth(channel, order.sku)
        attempt = Attempt(order, channel, f"{order.number}.{order.attempts}", now, truth.cost)
        self.outcome.attempts.append((now, channel, order.sku, truth.dead, probe))
        self.tell(order.worker, Sent(attempt.key, self.names[channel], self.scene.world.skus[order.sku], now, probe))
        if truth.cap is not None and self.working[channel] >= truth.cap:
            attempt.occupies = False
            self.push(now + QUICK_S, ANSWER, attempt, BUSY)
            return
        draw = luck(self.seed, order.number, channel)
        attempt.delivers = (draw & 0xFFFFFF) < truth.p * 16777216.0
        seconds = truth.median_s * exp(truth.sigma * NORMAL[(draw >> 24) & 0xFFFF])
        if truth.quick and not attempt.delivers:
            attempt.occupies = False
            self.push(now + QUICK_S, ANSWER, attempt, BAD)
            return
        self.working[channel] += 1
        self.answer_later(attempt, truth, draw, seconds)

    def answer_later(self, attempt: Attempt, truth: Truth, draw: int, seconds: float) -> None:
        """Work out when what is heard of an attempt that the supplier took."""
        more = mix(draw) if truth.straggle or truth.dark or truth.fail_s or truth.twice else 0
        if truth.straggle and (more & 0xFFFF) < truth.straggle * 65536.0:
            seconds *= truth.straggle_factor
        if truth.fail_s and not attempt.delivers:
            seconds = truth.fail_s[0] + (truth.fail_s[1] - truth.fail_s[0]) * ((more >> 16) & 0xFFFF) / 65536.0
        callback = self.callback[attempt.channel]
        timeout = ASYNC_TIMEOUT_S if callback else SYNC_TIMEOUT_S
        now = attempt.at
        if callback:
            self.push(now + QUICK_S, ANSWER, attempt, TAKEN)
        verdict = GOOD if attempt.delivers else BAD
        lost = (draw >> 40) < truth.lost * 16777216.0 or (self.mess and attempt.order.number % KILLED_EACH == 0)
        if truth.dark and ((more >> 32) & 0xFFFF) < truth.dark * 65536.0:
            attempt.occupies = False
            self.working[attempt.channel] -= 1
            self.push(now + timeout, ANSWER, attempt, DOUBT)
            self.push(now + timeout + GRACE_S, ANSWER, attempt, verdict)
            return
        if lost or (seconds > timeout and not callback):
            self.push(now + timeout, ANSWER, attempt, DOUBT)
            seconds = looked_up_at(timeout, seconds)
        elif callback:
            if truth.batch_s:
                seconds = ceil((now + seconds) / truth.batch_s) * truth.batch_s - now
            if seconds > timeout:
                self.push(now + timeout, ANSWER, attempt, DOUBT)
        self.push(now + seconds, ANSWER, attempt, verdict)
        if truth.twice and ((more >> 48) & 0xFFFF) < truth.twice * 65536.0:
            self.push(now + seconds + (more & 0x3F), ANSWER, attempt, verdict)

    def hear(self, attempt: Attempt, what: Heard) -> None:
        """An answer, a time-out or the result of a look-up; the second of its kind changes nothing but is passed on."""
        order = attempt.order
        name = self.names[attempt.channel]
        fresh = attempt.state != CLOSED
        if fresh and what is not TAKEN:
            attempt.state = DOUBTED if what is DOUBT else CLOSED
            if attempt.state == CLOSED and attempt.occupies:
                self.working[attempt.channel] -= 1
        self.tell(order.worker, Answered(attempt.key, name, self.scene.world.skus[order.sku], self.now, attempt.at, what))
        if not fresh or what is TAKEN:
            return
        if what is GOOD:
            self.deliver(order, attempt)
        elif what is DOUBT:
            if self.naive:
                self.fail(order, name, "timeout")
        elif not self.naive or order.tried.get(name) != "timeout":
            self.fail(order, name, "busy" if what is BUSY else "failed")

    def deliver(self, order: Order, attempt: Attempt) -> None:
        """The supplier delivered; in the naive engine perhaps a second time."""
        order.deliveries += 1
        if order.margin is None:
            order.margin = self.scene.world.price - attempt.cost
            order.live = False
            order.done_at = self.now
        else:
            order.wasted += attempt.cost
        if attempt.cost > self.scene.world.price:
            self.outcome.at_loss += 1

    def fail(self, order: Order, name: str, how: str) -> None:
        """The attempt is closed: another channel may be asked."""
        order.failed += 1
        order.tried = {**order.tried, name: how}
        if order.margin is None:
            order.live = False
            self.ask(order)

    def tell(self, worker: int, event: Event) -> None:
        """The worker that was there learns at once, the others later or never."""
        self.outcome.events += 1
        if self.journal is not None:
            self.journal.append(event)
        if self.shared:
            self.spread()
        self.policies[worker].observe(event)
        if self.lag_s is not None and len(self.policies) > 1:
            self.shared.append((self.now + self.lag_s, worker, event))

    def spread(self) -> None:
        """Tell the other workers what is old enough."""
        shared, now = self.shared, self.now
        while shared and shared[0][0] <= now:
            _, origin, event = shared.popleft()
            for worker, policy in enumerate(self.policies):
                if worker != origin:
                    policy.observe(event)

    def wipe(self) -> None:
        """All shared memory is lost: the policies begin anew, from nothing or from what the database remembers."""
        self.policies = [self.make_policy(self) for _ in self.policies]
        self.shared.clear()
        if self.leases:
            self.leases.clear()
        if self.journal is None:
            return
        kept: dict[str, int] = {}
        keys: set[str] = set()
        for event in reversed(self.journal):
            if isinstance(event, Sent) and kept.get(event.channel, 0) < REMEMBERED:
                kept[event.channel] = kept.get(event.channel, 0) + 1
                keys.add(event.attempt)
        events = [event for event in self.journal if event.attempt in keys]
        for policy in self.policies:
            if isinstance(policy, Rebuilds):
                policy.rebuild(events)


def looked_up_at(timeout: float, seconds: float) -> float:
    """Age at which a look-up finds a result that is there after `seconds`, when the doubt began at `timeout`."""
    for age in LOOK_UPS_S:
        if timeout + age >= seconds:
            return timeout + age
    return timeout + LOOK_UPS_S[-1] + ceil((seconds - timeout - LOOK_UPS_S[-1]) / 3600.0) * 3600.0
