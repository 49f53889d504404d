"""Finagle: power of two choices over PeakEWMA load, with failure accrual. Blind to prices.

Source: twitter/finagle `loadbalancer/PeakEwma.scala`, `loadbalancer/p2c/P2CPick.scala`, `liveness/FailureAccrualPolicy.scala`,
`liveness/FailureAccrualFactory.scala` (4feb34c): load = cost × (pending + 1), cost an EWMA with tau 10 s that jumps to any higher sample,
a host without history but with calls pending is penalised; dead after 5 consecutive failures, or when the 30 s EMA of success is below
0.8 with ≥ 5 requests; dead 5 s, then equal-jittered up to 300 s; then one probe. A load balancer in such a state "fails open"; here an
order waits, the two are drawn among the living (the source retries the draw up to five times), and a supplier's own limit is an ignorable
failure.
"""

from collections import deque
from math import exp
from random import Random

from benchmarks.routing.policies.rival import Rival
from kameng_api.suppliers.routing.facts import Ask, Heard, Option

TAU_S = 10.0
PENALTY = float((2**63 - 1) >> 16)
CONSECUTIVE = 5
SUCCESS_SHARE = 0.8
SUCCESS_WINDOW_S = 30.0
SUCCESS_REQUESTS = 5
DEAD_S = 5.0
LONGEST_DEAD_S = 300.0


class Node:
    """One host: its peak-sensitive latency and its accrued failures. `dead_until` None: alive; `probing`: one call is out."""

    __slots__ = ("born_at", "cost", "dead_until", "deaths", "failures", "probing", "recent", "share", "share_at", "stamp")

    def __init__(self, now: float) -> None:
        self.cost = 0.0
        self.stamp = self.born_at = now
        self.dead_until: float | None = None
        self.probing = False
        self.revive(now)

    def revive(self, now: float) -> None:
        """Alive with no history of failure."""
        self.failures = self.deaths = 0
        self.share = 1.0
        self.share_at: float | None = None
        self.born_at = now
        self.recent: deque[float] = deque()

    def take(self, seconds: float, now: float) -> None:
        """A latency is seen: up at once, down with the EWMA."""
        weight = exp(-max(now - self.stamp, 0.0) / TAU_S)
        self.cost = seconds if seconds > self.cost else self.cost * weight + seconds * (1.0 - weight)
        self.stamp = now

    def load(self, pending: int, now: float) -> float:
        """Lower is better; reading it lets the cost decay, as in the source."""
        self.take(0.0, now)
        return PENALTY + pending if self.cost == 0.0 and pending else self.cost * (pending + 1)

    def accrue(self, ok: bool, now: float) -> bool:
        """Count a result; true when the node must be marked dead."""
        if self.share_at is None:
            self.share = float(ok)
        else:
            weight = exp(-(now - self.share_at) / SUCCESS_WINDOW_S)
            self.share = self.share * weight + ok * (1.0 - weight)
        self.share_at = now
        self.recent.append(now)
        while self.recent[0] < now - SUCCESS_WINDOW_S:
            self.recent.popleft()
        if ok:
            self.failures = 0
            return False
        self.failures += 1
        low = now - self.born_at >= SUCCESS_WINDOW_S and self.share < SUCCESS_SHARE and len(self.recent) >= SUCCESS_REQUESTS
        return low or self.failures >= CONSECUTIVE


class FinagleP2C(Rival):
    """Two random living nodes; the less loaded one wins."""

    minds_busy = False

    def __init__(self) -> None:
        super().__init__()
        self.nodes: dict[str, Node] = {}
        self._random: Random | None = None

    def pick(self, ask: Ask, usable: list[Option], now: float, seed: int) -> str | None:
        if self._random is None:
            self._random = Random(seed)
        living = [option.channel for option in usable if self._is_open(option.channel, now)]
        if not living:
            return None
        channel = living[0] if len(living) == 1 else self._of_two(living, now, self._random)
        node = self.nodes[channel]
        node.probing = node.dead_until is not None
        return channel

    def _of_two(self, living: list[str], now: float, random: Random) -> str:
        first = int(random.random() * len(living))
        second = int(random.random() * (len(living) - 1))
        second += second >= first
        one, other = living[first], living[second]
        lighter = self.nodes[one].load(self.under_way[one], now) < self.nodes[other].load(self.under_way[other], now)
        return one if lighter else other

    def _is_open(self, channel: str, now: float) -> bool:
        node = self.nodes.get(channel)
        if node is None:
            node = self.nodes[channel] = Node(now)
        return node.dead_until is None or (now >= node.dead_until and not node.probing)

    def wait_s(self, usable: list[Option], now: float) -> float:
        dead = [self.nodes[option.channel] for option in usable]
        return min((node.dead_until - now for node in dead if node.dead_until is not None and not node.probing), default=2.0)

    def answered(self, channel: str, ok: bool, at: float, seconds: float, what: Heard) -> None:
        node = self.nodes.get(channel)
        if node is None:
            node = self.nodes[channel] = Node(at)
        node.take(seconds, at)
        if ok and node.probing:
            node.dead_until, node.probing = None, False
            node.revive(at)
        if node.dead_until is not None and not node.probing:
            return  # an older call ends while it is dead: neither a probe nor news
        if node.accrue(ok, at):
            node.dead_until = at + self._dead_s(node.deaths)
            node.deaths += 1
        elif node.probing:
            node.dead_until = at  # the policy would not mark it dead: probe again
        node.probing = False

    def _dead_s(self, deaths: int) -> float:
        if deaths == 0:
            return DEAD_S
        half = DEAD_S * 2.0 ** min(deaths - 1, 20)
        jitter = self._random.random() if self._random is not None else 0.5
        return min(half + jitter * half, LONGEST_DEAD_S)

    def neutral(self, channel: str, at: float) -> None:
        node = self.nodes.get(channel)
        if node is not None:
            node.probing = False
