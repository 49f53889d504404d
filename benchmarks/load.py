"""The load: signed orders over raw keep-alive connections, cheap enough to stand beside what it measures.

`python -m benchmarks.load` reads one JSON command per line and answers each with one line. The first is `{"keys": [[id, secret], …]}`. Each
of the others is a round: requests are signed beforehand, then sent; every answer is read, must be a 201 and must name the order it was asked
for. Anything else is counted and shown, never as a success.
"""

import array
import asyncio
import collections
import json
import resource
import secrets
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, cast

import uvloop

from kameng_api.kit.signing import HMAC_SCHEME, sign_request

_BODY: Final = b'{"merchant_order_no":"%b","sku":"%b","quantity":1,"target":"%b"}'
_HEAD: Final = (
    b"POST %b HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
)
_CONNECT_AT_ONCE: Final = 200
_SOURCES: Final = 8  # loopback addresses to connect from, so that ports do not run out
_PER_SOURCE: Final = 20_000
_TICK_S: Final = 0.001
_ANSWERS_WITHIN_S: Final = 30.0


@dataclass(slots=True)
class Tally:
    """What came of a round. Times in seconds of one clock; an order's number is its index."""

    sent: int = 0
    done: int = 0
    statuses: dict[str, int] = field(default_factory=dict)
    unacknowledged: list[int] = field(default_factory=list)
    finished_at: "array.array[float]" = field(default_factory=lambda: array.array("d"))
    took: "array.array[float]" = field(default_factory=lambda: array.array("d"))
    refused: int = 0
    lost: int = 0
    first_trouble: str = ""

    def miss(self, index: int, why: str, answer: bytes = b"") -> None:
        self.unacknowledged.append(index)
        self.statuses[why] = self.statuses.get(why, 0) + 1
        self.first_trouble = self.first_trouble or f"{why}: {answer[:600].decode('latin-1')}"


class Wire(asyncio.Protocol):
    """One connection: sends what it is given, reads one whole answer, and says so."""

    __slots__ = ("_buffer", "_due", "_index", "_number", "_on_free", "_tally", "_transport", "_whole", "alive", "used")

    def __init__(self, tally: Tally, on_free: Callable[["Wire"], None]) -> None:
        self._tally = tally
        self._on_free = on_free
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._whole = 0
        self._index = -1
        self._number = b""
        self._due = 0.0
        self.alive = False
        self.used = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        self.alive = True

    def send(self, index: int, number: bytes, request: bytes, due: float) -> None:
        assert self._transport is not None
        self._index, self._number, self._due = index, number, due
        self._tally.sent += 1
        self.used += 1
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        if self._buffer:
            data = self._buffer + data
            self._buffer = b""
        if not self._whole:
            end = data.find(b"\r\n\r\n")
            if end < 0:
                self._buffer = data
                return
            at = data.find(b"content-length: ", 0, end)
            self._whole = end + 4 + (int(data[at + 16 : data.find(b"\r", at + 16)]) if at > 0 else 0)
        if len(data) < self._whole:
            self._buffer = data
            return
        now = time.perf_counter()
        tally, index = self._tally, self._index
        self._whole, self._index = 0, -1
        tally.done += 1
        if data[9:12] == b"201" and self._number in data:
            tally.finished_at.append(now)
            tally.took.append(now - self._due)
        else:
            tally.miss(index, data[9:12].decode("latin-1") if data[9:12] != b"201" else "another order's answer", data)
        self._on_free(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.alive = False
        if self._index >= 0:
            self._tally.done += 1
            self._tally.miss(self._index, "connection lost", str(exc).encode())
            self._index = -1
        if self._transport is not None:
            self._tally.lost += 1
            self._transport = None

    def close(self) -> None:
        """Ours to close: not lost."""
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.close()


class Round:
    """One round: `numbers` and `requests` are ready before the first byte is sent."""

    def __init__(self, keys: Sequence[Sequence[str]], command: dict[str, Any]) -> None:
        self._port: int = command["port"]
        self._connections: int = command["connections"]
        self._seconds: float = command["seconds"]
        self._warm_s: float = command["warm_s"]
        self._rate: float = command.get("rate", 0.0)
        self._tally = Tally()
        self._next = 0
        self._stop_at = 0.0
        self._free: collections.deque[Wire] = collections.deque()
        self._closing = False
        chosen = keys[: command["spread"]]
        wanted = command["orders"] or int((self._seconds + self._warm_s) * (self._rate or 9_000)) + self._connections
        self._limited = bool(command["orders"])
        self._numbers, self._requests = _sign(chosen, command["path"].encode(), command["prefix"], wanted)

    async def run(self) -> dict[str, Any]:
        wires = await self._open()
        started = time.perf_counter()
        self._stop_at = float("inf") if self._limited else started + self._warm_s + self._seconds
        if self._rate:
            self._free.extend(wires)
            await self._paced(started)
        else:
            for wire in wires:
                self._feed(wire)
        await self._answers(wires)
        ended = time.perf_counter()
        alive = sum(wire.alive for wire in wires)
        used = sum(wire.used > 0 for wire in wires)
        for wire in wires:
            wire.close()
        return self._report(started, ended) | {"opened": len(wires), "alive": alive, "used": used}

    async def _open(self) -> list[Wire]:
        loop = asyncio.get_running_loop()
        wires: list[Wire] = []

        async def connect(n: int) -> None:
            source = None if self._connections <= 1000 else (f"127.0.0.{2 + n * _SOURCES // self._connections}", 0)
            try:
                async with asyncio.timeout(10):
                    _, wire = await loop.create_connection(
                        lambda: Wire(self._tally, self._on_free), "127.0.0.1", self._port, local_addr=source
                    )
            except (OSError, TimeoutError) as error:
                self._tally.refused += 1
                self._tally.first_trouble = self._tally.first_trouble or f"connect: {error!r}"
            else:
                wires.append(wire)

        for start in range(0, self._connections, _CONNECT_AT_ONCE):
            await asyncio.gather(*(connect(n) for n in range(start, min(start + _CONNECT_AT_ONCE, self._connections))))
        return wires

    def _on_free(self, wire: Wire) -> None:
        if self._rate:
            self._free.append(wire)
        else:
            self._feed(wire)

    def _feed(self, wire: Wire) -> None:
        now, index = time.perf_counter(), self._next
        if now < self._stop_at and index < len(self._requests):
            self._next += 1
            wire.send(index, self._numbers[index], self._requests[index], now)

    async def _paced(self, started: float) -> None:
        """Orders fall due at a steady rate, whatever became of the earlier ones; the clock of each runs from when it fell due."""
        total, rate, free = len(self._requests), self._rate, self._free
        while self._next < total and (now := time.perf_counter()) < self._stop_at:
            due = min(int((now - started) * rate) + 1, total)
            while self._next < due and free:
                wire = free.popleft()
                if wire.alive:
                    index = self._next
                    self._next += 1
                    wire.send(index, self._numbers[index], self._requests[index], started + index / rate)
            await asyncio.sleep(_TICK_S)

    async def _answers(self, wires: Sequence[Wire]) -> None:
        """Until nothing is due and nothing unanswered."""
        give_up_at = float("inf")
        while True:
            finished = time.perf_counter() >= self._stop_at or self._next >= len(self._requests) or not any(w.alive for w in wires)
            if finished and self._tally.done >= self._tally.sent:
                return
            if finished:
                give_up_at = min(give_up_at, time.perf_counter() + _ANSWERS_WITHIN_S)
            if time.perf_counter() > give_up_at:
                self._tally.statuses["no answer"] = self._tally.sent - self._tally.done
                return
            await asyncio.sleep(0.005)

    def _report(self, started: float, ended: float) -> dict[str, Any]:
        tally = self._tally
        exhausted = self._next >= len(self._requests)
        begin = started + self._warm_s
        end = max(min(self._stop_at, ended if exhausted else self._stop_at, ended), begin + 1e-9)
        inside = sorted(took for at, took in zip(tally.finished_at, tally.took, strict=True) if begin <= at <= end)
        return {
            "sent": tally.sent,
            "acknowledged": len(tally.took),
            "unacknowledged": tally.unacknowledged,
            "trouble": tally.statuses,
            "first_trouble": tally.first_trouble,
            "refused": tally.refused,
            "lost": tally.lost,
            "seconds": round(end - begin, 3),
            "per_s": round(len(inside) / (end - begin), 1),
            "p50_ms": _quantile_ms(inside, 0.50),
            "p99_ms": _quantile_ms(inside, 0.99),
            "max_ms": _quantile_ms(inside, 1.0),
        }


def _quantile_ms(ordered: Sequence[float], share: float) -> float | None:
    if not ordered:
        return None
    return round(1000 * ordered[min(int(share * len(ordered)), len(ordered) - 1)], 2)


def _sign(keys: Sequence[Sequence[str]], path: bytes, prefix: str, count: int) -> tuple[list[bytes], list[bytes]]:
    ready = [(key_id, secret.encode()) for key_id, secret, _, _ in keys]
    sku, target = keys[0][2].encode(), keys[0][3].encode()
    now, run = int(time.time()), secrets.token_hex(8)
    numbers: list[bytes] = []
    requests: list[bytes] = []
    for index in range(count):
        key_id, secret = ready[index % len(ready)]
        number = b"%b%07d" % (prefix.encode(), index)
        body = _BODY % (number, sku, target)
        signed = sign_request(HMAC_SCHEME, secret, key_id, now, f"{run}{index:016d}", "POST", path, body)
        numbers.append(number)
        requests.append(_HEAD % (path, signed.encode(), len(body)) + body)
    return numbers, requests


async def main() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    loop = asyncio.get_running_loop()
    keys: list[list[str]] = []
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        command = json.loads(line)
        if "keys" in command:
            keys = command["keys"]
            answer: dict[str, Any] = {"keys": len(keys)}
        else:
            answer = await Round(keys, command).run()
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    uvloop.run(main())
