"""LiteLLM Router: lowest latency among deployments that are not cooling down. Blind to prices.

Source: BerriAI/litellm `router_strategy/lowest_latency.py` (015b945), `router_utils/cooldown_handlers.py` (04f2117): average of at most 10
latencies, of which a full list keeps the nine oldest and replaces the last; a timeout is written as 1000 s; other failures leave no latency;
no history = 0 = best; the list lives one hour after its last write. Cooldown 5 s when more than 50 % of at least 2 results of the calendar
minute failed, or at once after a 429. An order that finds everything cooling down waits (the source raises).
"""

from random import Random

from benchmarks.routing.policies.rival import Rival
from kameng_api.suppliers.routing.facts import Ask, Heard, Option

KEPT = 10
TIMEOUT_S = 1000.0
LIST_TTL_S = 3600.0
FAILED_SHARE = 0.5
COOLDOWN_S = 5.0


class Deployment:
    """One deployment's latencies and the counts of the current calendar minute."""

    __slots__ = ("bad", "cool_until", "good", "latencies", "minute", "written_at")

    def __init__(self) -> None:
        self.latencies: list[float] = []
        self.written_at = 0.0
        self.cool_until = float("-inf")
        self.minute = -1
        self.good = self.bad = 0

    def write(self, seconds: float, now: float) -> None:
        """Add a latency in the source's own way of trimming."""
        if now - self.written_at > LIST_TTL_S:
            self.latencies = []
        if len(self.latencies) < KEPT:
            self.latencies.append(seconds)
        else:
            self.latencies[-1] = seconds
        self.written_at = now

    def latency(self, now: float) -> float:
        """Seconds; 0 without history."""
        if not self.latencies or now - self.written_at > LIST_TTL_S:
            return 0.0
        return sum(self.latencies) / len(self.latencies)


class LiteLLM(Rival):
    """The least average; ties at random."""

    def __init__(self) -> None:
        super().__init__()
        self.deployments: dict[str, Deployment] = {}
        self._random: Random | None = None

    def pick(self, ask: Ask, usable: list[Option], now: float, seed: int) -> str | None:
        if self._random is None:
            self._random = Random(seed)
        ready = [(self._of(option.channel), option.channel) for option in usable]
        averages = [(deployment.latency(now), channel) for deployment, channel in ready if now >= deployment.cool_until]
        if not averages:
            return None
        least = min(averages)[0]
        best = [channel for average, channel in averages if average <= least]
        return best[0] if len(best) == 1 else best[int(self._random.random() * len(best))]

    def wait_s(self, usable: list[Option], now: float) -> float:
        return min(self._of(option.channel).cool_until for option in usable) - now

    def answered(self, channel: str, ok: bool, at: float, seconds: float, what: Heard) -> None:
        deployment = self._of(channel)
        minute = int(at // 60)
        if deployment.minute != minute:
            deployment.minute, deployment.good, deployment.bad = minute, 0, 0
        if ok:
            deployment.good += 1
            deployment.write(seconds, at)
            return
        deployment.bad += 1
        if what is Heard.DOUBT:
            deployment.write(TIMEOUT_S, at)
        total = deployment.good + deployment.bad
        if what is Heard.BUSY or (total > 1 and deployment.bad > FAILED_SHARE * total):
            deployment.cool_until = at + COOLDOWN_S

    def _of(self, channel: str) -> Deployment:
        deployment = self.deployments.get(channel)
        if deployment is None:
            deployment = self.deployments[channel] = Deployment()
        return deployment
