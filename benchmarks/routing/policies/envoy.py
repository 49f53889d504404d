"""Envoy's outlier detection over priority levels of one host each, in the price order of t=0.

Source: envoyproxy/envoy `source/common/upstream/outlier_detection_impl.cc` (00c7146) and `outlier_detection.proto`: 5 consecutive 5xx
(timeouts are 504), sweep every 10 s, ejection 30 s × backoff and at most 300 s, backoff falls by one per healthy sweep, success-rate
outlier mean − 1.9 stdev over hosts with ≥ 100 requests in the interval when there are ≥ 5 such hosts, failure percentage not enforced.
Kinder than the source: `max_ejection_percent` 50 instead of 10 (which would eject nobody among fewer than ten), a supplier's 429 is
neither a failure nor a success, and an order that finds nothing healthy waits instead of the panic that sends it anywhere.
"""

from math import sqrt

from benchmarks.routing.policies.rival import Priority
from kameng_api.suppliers.routing.facts import Ask, Heard, Option

CONSECUTIVE = 5
SWEEP_S = 10.0
EJECTION_S = 30.0
LONGEST_EJECTION_S = 300.0
MAX_EJECTED_SHARE = 0.5
SUCCESS_RATE_HOSTS = 5
SUCCESS_RATE_REQUESTS = 100
STDEV_FACTOR = 1.9


class Host:
    """What the detector keeps of one host. `ejected_at` None: in the set; `returned_at`: when it last came back."""

    __slots__ = ("backoff", "ejected_at", "failures", "good", "returned_at", "total")

    def __init__(self) -> None:
        self.failures = 0
        self.backoff = 0
        self.good = self.total = 0
        self.ejected_at: float | None = None
        self.returned_at: float | None = None


class EnvoyOutlier(Priority):
    """Ejects, sweeps, and lets all traffic return at once: there is no half-open."""

    minds_busy = False

    def __init__(self) -> None:
        super().__init__()
        self.hosts: dict[str, Host] = {}
        self._sweep_at: float | None = None

    def pick(self, ask: Ask, usable: list[Option], now: float, seed: int) -> str | None:
        self._sweep_until(now)
        return super().pick(ask, usable, now, seed)

    def lets_through(self, channel: str, now: float) -> bool:
        host = self.hosts.get(channel)
        return host is None or host.ejected_at is None

    def wait_s(self, usable: list[Option], now: float) -> float:
        return (self._sweep_at or now) - now + 0.001

    def answered(self, channel: str, ok: bool, at: float, seconds: float, what: Heard) -> None:
        self._sweep_until(at)
        host = self.hosts.get(channel)
        if host is None:
            host = self.hosts[channel] = Host()
        host.total += 1
        if ok:
            host.good += 1
            host.failures = 0
            return
        host.failures += 1
        if host.failures == CONSECUTIVE and host.ejected_at is None:
            self._eject(host, at)
            host.failures = 0

    def _eject(self, host: Host, at: float) -> None:
        active = sum(other.ejected_at is not None for other in self.hosts.values())
        if active + 1 > MAX_EJECTED_SHARE * max(len(self.rank), len(self.hosts)):
            return
        host.ejected_at = at
        if host.backoff * EJECTION_S < LONGEST_EJECTION_S + EJECTION_S:
            host.backoff += 1

    def _sweep_until(self, now: float) -> None:
        if self._sweep_at is None:
            self._sweep_at = now + SWEEP_S
        while self._sweep_at <= now:
            self._sweep(self._sweep_at)
            self._sweep_at += SWEEP_S

    def _sweep(self, now: float) -> None:
        for host in self.hosts.values():
            if host.ejected_at is not None and min(EJECTION_S * host.backoff, LONGEST_EJECTION_S) <= now - host.ejected_at:
                host.ejected_at = None
                host.returned_at = now
                host.failures = 0
        self._eject_by_success_rate(now)
        for host in self.hosts.values():
            host.good = host.total = 0
            if host.ejected_at is None and host.returned_at is not None and now - host.returned_at >= SWEEP_S and host.backoff:
                host.backoff -= 1

    def _eject_by_success_rate(self, now: float) -> None:
        judged = [host for host in self.hosts.values() if host.ejected_at is None and host.total >= SUCCESS_RATE_REQUESTS]
        if len(judged) < SUCCESS_RATE_HOSTS:
            return
        rates = [host.good / host.total for host in judged]
        mean = sum(rates) / len(rates)
        least = mean - STDEV_FACTOR * sqrt(sum((rate - mean) ** 2 for rate in rates) / len(rates))
        for host, rate in zip(judged, rates, strict=True):
            if rate < least:
                self._eject(host, now)
