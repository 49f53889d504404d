"""Whether a request can have bought something, decided over real sockets."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import structlog

from kameng_api.kit.http import build_client
from kameng_api.suppliers.port import Cause, HttpAnswer, NotSent, Unknown
from kameng_api.suppliers.transport import Transport

Behaviour = Callable[[asyncio.StreamReader, asyncio.StreamWriter, list[bytes]], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\nok"


async def read_request(reader: asyncio.StreamReader, seen: list[bytes]) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    lengths = [line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
    body = await reader.readexactly(int(lengths[0].split(b":")[1])) if lengths else b""
    seen.append(head + body)


@contextlib.asynccontextmanager
async def vendor(behaviour: Behaviour) -> AsyncIterator[tuple[str, list[bytes]]]:
    """A real server that does exactly what the test says; yields its URL and the requests it read."""
    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await behaviour(reader, writer, seen)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/order?secret=1", seen
    finally:
        server.close()


@contextlib.asynccontextmanager
async def transport(connections: int = 4, **options: float) -> AsyncIterator[Transport]:
    client = build_client(max_connections=connections, connect_timeout_s=0.5, guard=False)
    try:
        yield Transport(client, connect_timeout_s=0.3, **options)  # type: ignore[arg-type]
    finally:
        await client.aclose()


def cut(writer: asyncio.StreamWriter) -> None:
    """Closes with a TCP reset."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def test_a_whole_answer_comes_back_as_it_is() -> None:
    async def answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: list[bytes]) -> None:
        await read_request(reader, seen)
        writer.write(OK.replace(b"content-type", b"Content-TYPE").replace(b"200 OK", b"503 Sorry"))
        await writer.drain()

    async with vendor(answers) as (url, seen), transport() as door:
        answer = await door.send("POST", url, headers={"x-a": "1"}, content=b"hello", timeout_s=2)
    assert answer == HttpAnswer(503, {"content-type": "text/plain", "content-length": "2"}, b"ok")
    assert len(seen) == 1 and seen[0].endswith(b"\r\n\r\nhello") and b"x-a: 1" in seen[0].lower()


async def test_a_refused_connection_is_not_sent() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # bound, not listening
        async with transport() as door:
            answer = await door.send("POST", f"http://127.0.0.1:{nobody.getsockname()[1]}/", content=b"x", timeout_s=2)
    assert isinstance(answer, NotSent) and answer.cause is Cause.UNREACHED


async def test_a_name_that_does_not_exist_is_not_sent() -> None:
    async with transport() as door:
        assert isinstance(await door.send("POST", "http://nobody.invalid/", timeout_s=5), NotSent)


async def test_a_connection_that_never_opens_is_not_sent() -> None:
    """A listener whose queue is full drops the handshake, as a dead host does."""
    with socket.socket() as deaf, contextlib.ExitStack() as waiting:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        for _ in range(8):
            other = waiting.enter_context(socket.socket())
            other.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                other.connect(deaf.getsockname())
        async with transport() as door:
            answer = await door.send("POST", f"http://127.0.0.1:{deaf.getsockname()[1]}/", content=b"x", timeout_s=3)
    assert isinstance(answer, NotSent) and answer.cause is Cause.UNREACHED


async def reset_after_reading(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: list[bytes]) -> None:
    await read_request(reader, seen)
    cut(writer)


async def close_after_reading(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: list[bytes]) -> None:
    await read_request(reader, seen)


async def reset_before_reading(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: list[bytes]) -> None:
    cut(writer)


async def silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: list[bytes]) -> None:
    await read_request(reader, seen)
    await asyncio.sleep(5)


async def half_a_head(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: list[bytes]) -> None:
    await read_request(reader, seen)
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-le")
    await writer.drain()


async def half_a_body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: list[bytes]) -> None:
    await read_request(reader, seen)
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{")
    await writer.drain()


async def half_a_chunked_body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: list[bytes]) -> None:
    await read_request(reader, seen)
    writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n")
    await writer.drain()


async def nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: list[bytes]) -> None:
    await read_request(reader, seen)
    writer.write(b"bonjour\r\n\r\n")
    await writer.drain()


async def a_drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: list[bytes]) -> None:
    await read_request(reader, seen)
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n")
    for _ in range(50):
        writer.write(b".")
        await writer.drain()
        await asyncio.sleep(0.1)


async def an_endless_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: list[bytes]) -> None:
    await read_request(reader, seen)
    writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n")
    for _ in range(100):
        writer.write(b"x" * 65_536)
        await writer.drain()


@pytest.mark.parametrize(
    "behaviour",
    [
        reset_after_reading,
        close_after_reading,
        reset_before_reading,
        silence,
        half_a_head,
        half_a_body,
        half_a_chunked_body,
        nonsense,
        a_drip,
        an_endless_answer,
    ],
)
async def test_whatever_goes_wrong_after_connecting_is_unknown_and_sent_once(behaviour: Behaviour) -> None:
    async with vendor(behaviour) as (url, seen), transport() as door:
        started = asyncio.get_running_loop().time()
        answer = await door.send("POST", url, content=b"buy one", timeout_s=0.8)
        took_s = asyncio.get_running_loop().time() - started
        await asyncio.sleep(0.05)
    assert isinstance(answer, Unknown), answer
    assert len(seen) <= 1
    assert took_s < 1.5


async def test_a_connection_reset_while_a_large_request_is_written_is_unknown() -> None:
    async with vendor(reset_before_reading) as (url, _), transport() as door:
        assert isinstance(await door.send("POST", url, content=b"x" * 5_000_000, timeout_s=2), Unknown)


async def test_a_full_pool_is_not_sent() -> None:
    async with vendor(silence) as (url, seen), transport(connections=1) as door:
        first = asyncio.create_task(door.send("POST", url, content=b"1", timeout_s=2))
        await asyncio.sleep(0.1)
        second = await door.send("POST", url, content=b"2", timeout_s=2)
        assert isinstance(second, NotSent)
        assert isinstance(await first, Unknown)
    assert len(seen) == 1


@pytest.mark.parametrize("method", ["POST", "GET"])  # some vendors sell by GET
@pytest.mark.parametrize("kind_of_close", ["fin", "reset"])
async def test_nothing_is_sent_twice_when_a_kept_connection_dies(method: str, kind_of_close: str) -> None:
    """The engine repeats idempotent methods by itself on a reused connection; ours must not."""

    async def answers_once_then_dies(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: list[bytes]) -> None:
        await read_request(reader, seen)
        writer.write(OK)
        await writer.drain()
        await read_request(reader, seen)
        if kind_of_close == "reset":
            cut(writer)

    async with vendor(answers_once_then_dies) as (url, seen), transport(connections=1) as door:
        body = b"n" if method == "POST" else b""
        first = await door.send(method, url, content=body, timeout_s=2)
        assert isinstance(first, HttpAnswer)
        second = await door.send(method, url, content=body, timeout_s=2)
        await asyncio.sleep(0.1)
    assert isinstance(second, Unknown)
    assert len(seen) == 2


async def test_no_redirect_is_followed() -> None:
    async def redirects(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: list[bytes]) -> None:
        await read_request(reader, seen)
        writer.write(b"HTTP/1.1 307 Moved\r\nlocation: /again\r\ncontent-length: 0\r\n\r\n")
        await writer.drain()

    async with vendor(redirects) as (url, seen), transport() as door:
        answer = await door.send("POST", url, content=b"x", timeout_s=2)
    assert isinstance(answer, HttpAnswer) and answer.status == 307
    assert len(seen) == 1


async def test_the_total_time_is_capped_below_the_lease() -> None:
    async with vendor(silence) as (url, _), transport(longest_s=0.3) as door:
        started = asyncio.get_running_loop().time()
        assert isinstance(await door.send("POST", url, timeout_s=60), Unknown)
        assert asyncio.get_running_loop().time() - started < 1


async def test_the_log_line_has_neither_query_nor_body() -> None:
    async with vendor(reset_after_reading) as (url, _), transport() as door:
        with structlog.testing.capture_logs() as lines:
            await door.send("POST", url, headers={"x-key": "hidden"}, content=b"hidden", timeout_s=2)
    assert len(lines) == 1
    assert lines[0]["path"] == "/order" and lines[0]["host"] == "127.0.0.1" and "took_ms" in lines[0]
    assert "secret" not in str(lines) and "hidden" not in str(lines)
