"""A merchant that only listens: counts webhooks, answers 200, and tells what it heard when asked over its standard input.

`python -m benchmarks.receiver` says `{"port": …}`, then answers each line: `{"forget": true}` or `{"ids": true|false}`.
"""

import asyncio
import json
import sys
import time
from typing import Any, Final

import uvloop

_OK: Final = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
_SUCCEEDED: Final = b'"type":"order.succeeded"'


class Heard:
    """Ids of `order.succeeded` events; times in unix seconds."""

    def __init__(self) -> None:
        self.ids: set[bytes] = set()
        self.requests = 0
        self.last_at = 0.0

    def take(self, request: bytes) -> None:
        self.requests += 1
        if _SUCCEEDED not in request:
            return
        at = request.find(b"webhook-id: ")
        event = request[at + 12 : request.find(b"\r", at)]
        if event not in self.ids:
            self.ids.add(event)
            self.last_at = time.time()


class Listener(asyncio.Protocol):
    """HTTP/1.1 as far as needed: a head, a content-length, a body."""

    def __init__(self, heard: Heard) -> None:
        self._heard = heard
        self._buffer = b""
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end].lower()
            at = head.find(b"content-length: ")
            length = int(head[at + 16 :].split(b"\r", 1)[0]) if at >= 0 else 0
            whole = end + 4 + length
            if len(self._buffer) < whole:
                return
            self._heard.take(head + self._buffer[end:whole])
            self._buffer = self._buffer[whole:]
            self._transport.write(_OK)


async def main() -> None:
    loop = asyncio.get_running_loop()
    heard = Heard()
    server = await loop.create_server(lambda: Listener(heard), "127.0.0.1", 0, backlog=1024)
    _say({"port": server.sockets[0].getsockname()[1]})
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        question = json.loads(line)
        if question.get("forget"):
            heard.ids.clear()
            heard.requests, heard.last_at = 0, 0.0
        answer: dict[str, Any] = {"events": len(heard.ids), "requests": heard.requests, "last_at": heard.last_at}
        if question.get("ids"):
            answer["ids"] = [event.decode() for event in heard.ids]
        _say(answer)


def _say(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    uvloop.run(main())
