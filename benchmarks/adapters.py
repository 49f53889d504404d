"""What an adapter costs: the CPU of one purchase through it, over the same bytes through the bare pooled client.

Every adapter buys at a server of its own process that gives the answer of the adapter's first example; the bare client then sends the request
that the adapter had sent to the same server. Both in turn, several times; what the difference leaves is the adapter, its transport and log.
"""

import asyncio
import inspect
import json
import os
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import structlog
import uvloop
from yarl import URL

from benchmarks.figures import conclude, say, spread
from benchmarks.machine import Failed, machine
from kameng_api.kit.http import Client, build_client
from kameng_api.suppliers.port import Accepted, Adapter, Delivered, HttpAnswer, NotSent, Purchase, Supplier, Unknown
from kameng_api.suppliers.registry import list_adapters
from kameng_api.suppliers.transport import Transport

CALLS: Final = 1_500
ROUNDS: Final = 5
AT_ONCE: Final = 20
MOST_MS: Final = 0.15


class Redirected:
    """A `Send` that goes to the canned server whatever the vendor's host is, and remembers the last request."""

    def __init__(self, inner: Transport, port: int) -> None:
        self._inner = inner
        self._port = port
        self.last: tuple[str, str, Mapping[str, str], bytes] = ("", "", {}, b"")

    async def send(
        self, method: str, url: str, *, headers: Mapping[str, str] | None = None, content: bytes = b"", timeout_s: float = 30.0
    ) -> HttpAnswer | NotSent | Unknown:
        here = str(URL(url, encoded=True).with_scheme("http").with_host("127.0.0.1").with_port(self._port))
        self.last = method, here, headers or {}, content
        return await self._inner.send(method, here, headers=headers, content=content, timeout_s=timeout_s)


def find_example(adapter: Adapter) -> dict[str, Any]:
    """The first purchase among its examples that is taken. Raises Failed."""
    folder = adapter.folder or Path(inspect.getfile(adapter.settings)).parent
    for path in sorted((folder / "examples").glob("*.json")):
        example: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if example["call"] == "place" and example["expect"]["outcome"] in ("Delivered", "Accepted"):
            return example
    raise Failed(f"{adapter.name} has no example of a purchase that is taken")


async def measure(calls: int = CALLS, rounds: int = ROUNDS) -> bool:
    """The whole benchmark. True when no adapter costs more than `MOST_MS`."""
    stands_on = await machine()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))  # as in production, where a call that goes well is not logged
    worst, costs = ("", 0.0), {}
    async with _canned() as ask:
        for adapter in list_adapters():
            example = find_example(adapter)
            port = int((await ask([*example.get("before", ()), {**example["answer"], "charset": example.get("charset", "utf-8")}]))["port"])
            bare, own = await _measure(adapter, example, port, calls, rounds)
            cost_ms = [max(0.0, mine - limit) for mine, limit in zip(own, bare, strict=True)]
            costs[adapter.name] = {"adapter_ms": spread(own), "bare_ms": spread(bare), "cost_ms": spread(cost_ms)}
            median = statistics.median(cost_ms)
            say(f"  {adapter.name}: {median * 1000:.0f} µs over the bare client's {statistics.median(bare) * 1000:.0f} µs")
            worst = max(worst, (adapter.name, median), key=lambda pair: pair[1])
    shares = [cost["bare_ms"]["median"] / cost["adapter_ms"]["median"] for cost in costs.values()]
    figures = {"worst": worst[0], "worst_ms": round(worst[1], 3), "wanted_ms": MOST_MS, "adapters": costs, "machine": stands_on}
    conclude("adapters", min(shares), figures)
    return worst[1] <= MOST_MS


async def _measure(adapter: Adapter, example: Mapping[str, Any], port: int, calls: int, rounds: int) -> tuple[list[float], list[float]]:
    """(CPU of the bare client, of the adapter), milliseconds per call, a pair for each round. Raises Failed."""
    client = build_client(max_connections=AT_ONCE, connect_timeout_s=5.0, guard=False)
    way = Redirected(Transport(client), port)
    supplier = adapter.connect(adapter.settings(**example["settings"]), way.send)
    purchase = Purchase(**example["purchase"])
    outcome = (await supplier.place(purchase)).outcome
    if not isinstance(outcome, Delivered | Accepted):
        raise Failed(f"{adapter.name} did not take its own example: {outcome}")
    bare, own = [], []
    for _ in range(rounds):
        bare.append(await _cpu_ms(lambda: _bare(client, way), calls))
        own.append(await _cpu_ms(lambda: _buy(supplier, purchase), calls))
    await client.aclose()
    return bare, own


async def _bare(client: Client, way: Redirected) -> None:
    method, url, headers, content = way.last
    answer = await client.exchange(method, url, headers=headers, content=content)
    if not answer.content:
        raise Failed("the canned server gave nothing")


async def _buy(supplier: Supplier, purchase: Purchase) -> None:
    answer = await supplier.place(purchase)
    if not isinstance(answer.outcome, Delivered | Accepted):
        raise Failed(f"an answer was read as {type(answer.outcome).__name__}")


async def _cpu_ms(call: Callable[[], Awaitable[None]], calls: int) -> float:
    async def one_after_another(count: int) -> None:
        for _ in range(count):
            await call()

    await one_after_another(20)
    started = time.process_time()
    await asyncio.gather(*(one_after_another(calls // AT_ONCE) for _ in range(AT_ONCE)))
    return (time.process_time() - started) * 1000 / (calls // AT_ONCE * AT_ONCE)


@asynccontextmanager
async def _canned() -> AsyncIterator[Callable[[Sequence[Mapping[str, Any]]], Awaitable[dict[str, Any]]]]:
    running = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.canned", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, env=dict(os.environ)
    )
    assert running.stdin is not None and running.stdout is not None
    stdin, stdout = running.stdin, running.stdout

    async def ask(answers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        stdin.write(json.dumps(answers).encode() + b"\n")
        found: dict[str, Any] = json.loads(await stdout.readline())
        return found

    try:
        yield ask
    finally:
        stdin.close()
        await running.wait()


if __name__ == "__main__":
    sys.exit(0 if uvloop.run(measure()) else 1)
