"""Every wire of the rig runs through this process, so that a wire can be slow, cut, silent or lossy while both ends are well.

`python -m tests.chaos.proxy SEED` reads one JSON object per line on standard input and answers each with one line:
`{"open": NAME, "to": [ADDRESS…], "ready": PATH}` → `{"port": …}` · `{"set": NAME, "fault": {…}}` · `{"clear": NAME}` (`*`: all) ·
`{"cut": NAME}` · `{"counts": true}`.
An ADDRESS is `unix:/path` or `host:port`; with several, connections go to them in turn and past those that refuse. `ready` makes the wire a
small load balancer: it asks each address for that path all the time and sends nobody to one that does not answer 200.
"""

import asyncio
import contextlib
import json
import random
import socket
import struct
import sys
from dataclasses import dataclass, field
from typing import Any, Final

import uvloop

_CHUNK: Final = 1 << 16
_HIGH: Final = 1 << 18
_READY_EVERY_S: Final = 0.2
_RESET: Final = struct.pack("ii", 1, 0)
UP, DOWN = "up", "down"
"""From who connected to who answers, and back."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with a wire at the moment; nothing, by default.

    `refuse`: new connections are reset. `silent` (up, down or both): bytes of that direction are read and lost, and the connection is reset
    when the fault ends, as a stream with a hole cannot go on. `stop_after` bytes of a direction (between the two numbers, drawn per
    connection, counted from the beginning of the fault) the connection is reset. `cut_at`: the connection is reset, instead of forwarding
    it, when this text (hex) comes down, with `chance`.
    """

    refuse: bool = False
    silent: str = ""
    latency_ms: float = 0.0
    jitter_ms: float = 0.0
    stop_direction: str = ""
    stop_after: tuple[int, int] = (0, 0)
    cut_at: bytes = b""
    chance: float = 1.0

    @classmethod
    def read(cls, said: dict[str, Any]) -> "Fault":
        stop = said.get("stop_after", (0, 0))
        return cls(**{**said, "stop_after": (int(stop[0]), int(stop[1])), "cut_at": bytes.fromhex(said.get("cut_at", ""))})


_WELL: Final = Fault()


@dataclass(slots=True, eq=False)
class _Line:
    """One connection through a wire."""

    ends: tuple[asyncio.StreamWriter, asyncio.StreamWriter]
    left: dict[str, int] = field(default_factory=dict)
    holed: bool = False
    dead: bool = False

    def reset(self) -> None:
        self.dead = True
        for end in self.ends:
            _reset(end)


def _reset(writer: asyncio.StreamWriter) -> None:
    """RST, not FIN: the peer shall not mistake it for a polite end."""
    with contextlib.suppress(OSError, RuntimeError, AttributeError, ValueError):  # ValueError: closed already
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    with contextlib.suppress(OSError, RuntimeError):
        writer.transport.abort()


class Wire:
    """One edge of the rig. Its draws come from the seed and its name, in the order of its own traffic."""

    def __init__(self, name: str, addresses: list[str], seed: int, ready: str = "") -> None:
        self.name = name
        self._addresses = addresses
        self._ready = ready
        self._out: set[str] = set()
        self._watching: list[asyncio.Task[None]] = []
        self._draw = random.Random(f"{seed}/{name}")
        self._turn = 0
        self._fault = _WELL
        self._lines: set[_Line] = set()
        self._server: asyncio.Server | None = None
        self.resets = 0
        self.bytes = 0

    async def open(self, port: int) -> int:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", port, backlog=512, limit=_HIGH)
        if self._ready:
            self._watching = [asyncio.create_task(self._watch(address)) for address in self._addresses]
        found: int = self._server.sockets[0].getsockname()[1]
        return found

    async def _watch(self, address: str) -> None:
        while True:
            if await is_ready(address, self._ready):
                self._out.discard(address)
            else:
                self._out.add(address)
            await asyncio.sleep(_READY_EVERY_S)

    def set(self, fault: Fault) -> None:
        self._heal_streams()
        self._fault = fault
        for line in self._lines:
            line.left = self._budget(fault)

    def cut(self) -> int:
        """Reset what is open; new connections are welcome."""
        lines = list(self._lines)
        for line in lines:
            self._kill(line)
        return len(lines)

    def _heal_streams(self) -> None:
        for line in [line for line in self._lines if line.holed]:
            self._kill(line)

    def _budget(self, fault: Fault) -> dict[str, int]:
        return {fault.stop_direction: self._draw.randint(*fault.stop_after)} if fault.stop_direction else {}

    def _kill(self, line: _Line) -> None:
        self.resets += 1
        line.reset()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._fault.refuse:
            self.resets += 1
            _reset(writer)
            return
        there = await self._dial()
        if there is None:
            _reset(writer)
            return
        line = _Line((writer, there[1]), self._budget(self._fault))
        self._lines.add(line)
        try:
            await asyncio.gather(self._pump(line, UP, reader, there[1]), self._pump(line, DOWN, there[0], writer))
        finally:
            self._lines.discard(line)
            for end in line.ends:
                with contextlib.suppress(OSError, RuntimeError):
                    end.close()

    async def _dial(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        for _ in self._addresses:
            self._turn += 1
            address = self._addresses[self._turn % len(self._addresses)]
            if address in self._out and len(self._out) < len(self._addresses):
                continue
            try:
                async with asyncio.timeout(5):
                    if address.startswith("unix:"):
                        return await asyncio.open_unix_connection(address[5:], limit=_HIGH)
                    host, _, port = address.rpartition(":")
                    return await asyncio.open_connection(host, int(port), limit=_HIGH)
            except (OSError, TimeoutError):
                continue
        return None

    async def _pump(self, line: _Line, direction: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(_CHUNK):
                self.bytes += len(data)
                passed = await self._pass(line, direction, data)
                if line.dead:
                    return
                if passed:
                    writer.write(passed)
                    await writer.drain()
                if len(passed) < len(data) and not line.holed:
                    self._kill(line)
                    return
            if line.holed:  # whoever gave up shall not be answered for: nothing of this stream arrives any more
                self._kill(line)
                return
            if writer.can_write_eof():
                writer.write_eof()
        except (OSError, RuntimeError):
            line.reset()

    async def _pass(self, line: _Line, direction: str, data: bytes) -> bytes:
        """What of `data` goes on; less than all of it is the end of the connection, unless the line has a hole now."""
        fault = self._fault
        if fault.latency_ms or fault.jitter_ms:
            await asyncio.sleep((fault.latency_ms + self._draw.random() * fault.jitter_ms) / 1000)
            fault = self._fault  # it may have been healed meanwhile
        if line.holed or fault.silent in (direction, "both"):
            line.holed = True
            return b""
        if fault.cut_at and direction == DOWN and fault.cut_at in data and self._draw.random() < fault.chance:
            return b""
        left = line.left.get(direction)
        if left is not None:
            line.left[direction] = left - len(data)
            if left < len(data):
                return data[: max(left, 0)]
        return data


async def is_ready(address: str, path: str) -> bool:
    """Whether `host:port` answers 200 to a GET."""
    host, _, port = address.rpartition(":")
    try:
        async with asyncio.timeout(2):
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(f"GET {path} HTTP/1.1\r\nhost: balancer\r\nconnection: close\r\n\r\n".encode())
            head = await reader.read(64)
            writer.close()
    except (OSError, TimeoutError):
        return False
    return head[9:12] == b"200"


class Switchboard:
    """All wires, spoken to over standard input."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._wires: dict[str, Wire] = {}

    async def obey(self, order: dict[str, Any]) -> dict[str, Any]:
        match order:
            case {"open": name, "to": addresses}:
                self._wires[name] = wire = Wire(name, addresses, self._seed, order.get("ready", ""))
                return {"port": await wire.open(order.get("port", 0))}
            case {"set": name, "fault": fault}:
                self._wires[name].set(Fault.read(fault))
            case {"clear": name}:
                for wire in self._wires.values() if name == "*" else [self._wires[name]]:
                    wire.set(_WELL)
            case {"cut": name}:
                return {"cut": self._wires[name].cut()}
            case {"counts": _}:
                return {"resets": {name: wire.resets for name, wire in self._wires.items()}, "bytes": sum(w.bytes for w in self._wires.values())}
        return {}


async def main() -> None:
    loop = asyncio.get_running_loop()
    board = Switchboard(int(sys.argv[1]))
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        sys.stdout.write(json.dumps(await board.obey(json.loads(line))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    uvloop.run(main())
