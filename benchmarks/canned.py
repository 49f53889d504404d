"""A server that gives prepared answers, one after the other and then always the last: `python -m benchmarks.canned` reads them from a line.

The line is JSON, a list of `{"status", "headers", "body"}`; it answers with `{"port"}` and reads the next list.
"""

import asyncio
import json
import sys
from typing import Any, cast

import uvloop


class Canned(asyncio.Protocol):
    """Answers each request that has arrived whole."""

    answers: list[bytes] = []  # noqa: RUF012  one list for all connections, changed between the rounds
    given = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop has transports of its own
        self._read = b""

    def data_received(self, data: bytes) -> None:
        self._read += data
        head, found, body = self._read.partition(b"\r\n\r\n")
        if not found:
            return
        length = next((int(line.partition(b":")[2]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0)
        if len(body) >= length:
            self._read = body[length:]
            self._transport.write(Canned.answers[min(Canned.given, len(Canned.answers) - 1)])
            Canned.given += 1


def written(answer: dict[str, Any]) -> bytes:
    """The answer as it goes over the wire."""
    body: bytes = answer["body"].encode(answer.get("charset", "utf-8"))
    headers = {**answer["headers"], "content-length": str(len(body))}
    lines = [f"HTTP/1.1 {answer['status']} OK", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


async def main() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Canned, "127.0.0.1", 0)
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        Canned.answers, Canned.given = [written(answer) for answer in json.loads(line)], 0
        sys.stdout.write(json.dumps({"port": server.sockets[0].getsockname()[1]}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    uvloop.run(main())
