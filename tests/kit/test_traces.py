"""Traces reach a real collector when one is configured, and cost nothing when none is."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from kameng_api.kit import traces


@pytest.fixture(autouse=True)
def off() -> Iterator[None]:
    yield
    traces.stop()


def test_without_an_endpoint_a_span_is_one_shared_nothing() -> None:
    traces.start(None, name="api")
    traces.start("", name="api")
    assert traces.span("a", order_id="ord_1") is traces.span("b")
    with traces.span("outer"), traces.span("inner"):
        pass
    with pytest.raises(KeyError), traces.span("outer"):
        raise KeyError


async def test_spans_arrive_at_the_collector() -> None:
    received: list[bytes] = []

    async def collect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        received.append(head + await reader.readexactly(length))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(collect, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        traces.start(f"http://127.0.0.1:{port}/v1/traces", name="kameng-test", headers={"x-tenant": "t1"})
        with traces.span("order.place", order_id="ord_1"), traces.span("inner"):
            pass
        await asyncio.to_thread(traces.stop)
    assert received
    assert received[0].startswith(b"POST /v1/traces ")
    assert b"x-tenant: t1" in received[0].lower()


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(traces, "import_module", nothing)
    with pytest.raises(traces.TracesUnavailable, match=r"kameng-api\[traces\]"):
        traces.start("http://127.0.0.1:1/v1/traces", name="api")
