"""Traces for whoever runs a collector, and nothing at all for everyone else.

Without `start` (no endpoint configured) `span` is one shared object that does nothing; OpenTelemetry is neither
needed nor imported into the path.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from typing import Any

_open: Callable[..., AbstractContextManager[Any]] | None = None
_close: Callable[[], None] | None = None
_NOTHING: AbstractContextManager[Any] = nullcontext()


class TracesUnavailable(Exception):
    """An exporter is configured, but the packages of the extra `traces` are not installed."""


def start(otlp_endpoint: str | None, *, name: str, headers: dict[str, str] | None = None) -> None:
    """Export spans over OTLP/HTTP to `otlp_endpoint` (…/v1/traces) as the process `name`; does nothing when the
    endpoint is empty.

    Raises `TracesUnavailable` when the packages are missing.
    """
    global _open, _close  # noqa: PLW0603 - one exporter per process, switched on once at its start
    if not otlp_endpoint:
        return
    try:
        trace = import_module("opentelemetry.sdk.trace")
        export = import_module("opentelemetry.sdk.trace.export")
        resources = import_module("opentelemetry.sdk.resources")
        otlp = import_module("opentelemetry.exporter.otlp.proto.http.trace_exporter")
    except ImportError as error:
        raise TracesUnavailable("traces need more packages: pip install 'kameng-api[traces]'") from error
    provider = trace.TracerProvider(resource=resources.Resource.create({"service.name": name}))
    exporter = otlp.OTLPSpanExporter(endpoint=otlp_endpoint, headers=headers)
    provider.add_span_processor(export.BatchSpanProcessor(exporter))
    _open = provider.get_tracer("kameng_api").start_as_current_span
    _close = provider.shutdown


def span(name: str, **attrs: str | int | float | bool) -> AbstractContextManager[Any]:
    """`with span("order.place", merchant=…):` - attributes are facts and ids, never bodies, keys or personal data."""
    return _NOTHING if _open is None else _open(name, attributes=attrs)


def stop() -> None:
    """Send what is waiting and switch traces off."""
    global _open, _close  # noqa: PLW0603
    if _close is not None:
        _close()
    _open = _close = None
