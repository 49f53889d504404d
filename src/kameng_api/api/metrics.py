"""What this process counts, for Prometheus; docs/operations.md explains each name."""

from collections.abc import Callable
from typing import Final

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from starlette.responses import Response

_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_SIZES: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


class Metrics:
    """One registry per app, so that two apps in one process (tests) do not share their counts."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self.requests = Counter(
            "kameng_http_requests", "Requests answered", ("route", "method", "status"), registry=self.registry
        )
        self.seconds = Histogram(
            "kameng_http_request_seconds", "From the first byte read to the answer", ("route", "method"),
            buckets=_SECONDS, registry=self.registry,
        )  # fmt: skip
        self.refusals = Counter(
            "kameng_gate_refusals", "Requests that the gate refused", ("code",), registry=self.registry
        )
        self.unremembered = Counter(
            "kameng_gate_unremembered", "Requests let through without nonce and rate check", registry=self.registry
        )
        self.door_requests = Counter(
            "kameng_door_requests", "Requests at the doors of foreign protocols, by what was said", ("door", "kind", "outcome"),
            registry=self.registry,
        )  # fmt: skip
        self.door_orders = Counter(
            "kameng_door_orders", "Orders asked for through doors, by the verdict", ("door", "verdict"), registry=self.registry
        )
        self.flush_size = Histogram(
            "kameng_flush_size", "How many items went in one flush", ("flush",), buckets=_SIZES, registry=self.registry
        )
        self._seen: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}

    def count(self, route: str, method: str, status: int, seconds: float) -> None:
        """One request answered."""
        known = self._seen.get((route, method, status))
        if known is None:
            known = self.requests.labels(route, method, str(status)), self.seconds.labels(route, method)
            self._seen[route, method, status] = known
        known[0].inc()
        known[1].observe(seconds)

    def watch(self, name: str, help_text: str, read: Callable[[], float]) -> None:
        """A gauge that is read when it is asked for."""
        Gauge(name, help_text, registry=self.registry).set_function(read)

    def flushes(self, flush: str) -> Callable[[int], None]:
        """For `Gatherer.on_flush`."""
        return self.flush_size.labels(flush).observe

    def render(self) -> Response:
        return Response(generate_latest(self.registry), media_type=None, headers={"Content-Type": CONTENT_TYPE_LATEST})
