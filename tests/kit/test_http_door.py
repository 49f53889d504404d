"""The outgoing door on real sockets: what an error proves, that nothing is sent twice, and that limits hold."""

import asyncio
import contextlib
import gzip
import time
from collections.abc import AsyncIterator, Callable

import httpx
import pytest

from kameng_api.kit import http
from kameng_api.kit.http import AnswerTooLong, Client, build_client, read_capped

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
NOTHING_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)


class Peer:
    """A server of raw bytes: `answer` gets the text of each request and the writer; what it received is kept."""

    def __init__(self, *answers: bytes | None, hang: bool = False) -> None:
        self.answers = list(answers)
        self.hang = hang
        self.requests: list[bytes] = []
        self.connections = 0

    async def __aenter__(self) -> "Peer":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/buy"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next((int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0)
                self.requests.append(head + await reader.readexactly(length))
                if self.hang:
                    await asyncio.sleep(60)
                answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
                if answer is None:
                    break
                writer.write(answer)
                await writer.drain()
                if b"connection: close" in answer or b"content-length: 99" in answer:
                    break
        writer.close()


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with build_client(max_connections=4, connect_timeout_s=0.5, read_timeout_s=0.5, guard=False) as found:
        yield found


async def by_post(client: Client, url: str) -> httpx.Response:
    return await client.post(url, content=b"{}")


async def by_exchange(client: Client, url: str) -> http.Answer:
    return await client.exchange("POST", url, content=b"{}")


WAYS = pytest.mark.parametrize("call", [by_post, by_exchange])
Call = Callable[[Client, str], "asyncio.Future[httpx.Response]"]


@WAYS
async def test_an_answer_comes_back_whole(client: Client, call: Call) -> None:
    async with Peer(b"HTTP/1.1 418 Teapot\r\nX-A: 1\r\nX-A: 2\r\nset-cookie: a=b\r\ncontent-length: 3\r\n\r\nabc") as peer:
        for _ in range(2):
            answer = await call(client, peer.url)
            assert (answer.status_code, answer.content) == (418, b"abc")
            assert answer.headers["x-a"].startswith("1")
    assert peer.connections == 1, "the connection is kept"
    assert b"cookie" not in peer.requests[1].lower(), "an answer leaves nothing behind"
    head = peer.requests[0].lower()
    assert head.startswith(b"post /buy http/1.1\r\n")
    for name in (b"host", b"accept", b"accept-encoding", b"user-agent", b"content-length"):
        assert head.count(b"\r\n" + name + b":") == 1, name
    assert b"accept-encoding: identity" in head


async def test_headers_and_target_arrive_as_given(client: Client) -> None:
    async with Peer(OK) as peer:
        headers = {"Content-Type": "application/json", "user-agent": "mine", "webhook-id": "evt_1"}
        for _ in range(2):
            await client.exchange("POST", peer.url + "?q=a%2Fb&c=%E4", headers=headers, content=b"{}")
        await client.post(peer.url + "?q=a%2Fb&c=%E4", headers=headers, content=b"{}")
    for request in peer.requests:
        assert request.startswith(b"POST /buy?q=a%2Fb&c=%E4 HTTP/1.1\r\n")
        assert request.lower().count(b"\r\nuser-agent:") == 1
        assert b"\r\nuser-agent: mine\r\n" in request.lower()
        assert request.lower().count(b"\r\ncontent-type: application/json\r\n") == 1
        assert request.endswith(b"\r\n\r\n{}")


@WAYS
async def test_a_refused_port_proves_that_nothing_was_sent(client: Client, call: Call) -> None:
    async with Peer(OK) as peer:
        pass
    with pytest.raises(httpx.ConnectError):
        await call(client, peer.url)


@WAYS
async def test_an_unknown_name_proves_that_nothing_was_sent(call: Call) -> None:
    async def nobody(host: str, port: int) -> list[str]:
        raise OSError(-2, "Name or service not known")

    async with build_client(max_connections=1, connect_timeout_s=1, guard=False, resolve=nobody) as client:
        with pytest.raises(httpx.ConnectError):
            await call(client, "http://nobody.example/")


@WAYS
async def test_a_name_server_that_hangs_ends_in_connect_timeout(call: Call) -> None:
    async def slow(host: str, port: int) -> list[str]:
        await asyncio.sleep(60)
        return []

    async with build_client(max_connections=1, connect_timeout_s=0.1, guard=False, resolve=slow) as client:
        with pytest.raises(httpx.ConnectTimeout):
            await call(client, "http://slow.example/")


@WAYS
async def test_a_full_pool_proves_that_nothing_was_sent(call: Call) -> None:
    async with (
        Peer(OK, hang=True) as peer,
        build_client(max_connections=1, connect_timeout_s=0.1, read_timeout_s=1.0, guard=False) as client,
    ):
        first = asyncio.ensure_future(call(client, peer.url))
        await asyncio.sleep(0.05)
        with pytest.raises(NOTHING_SENT):
            await call(client, peer.url)
        assert len(peer.requests) == 1
        with pytest.raises(httpx.ReadTimeout):
            await first


@WAYS
async def test_silence_after_the_request_may_have_bought(client: Client, call: Call) -> None:
    async with Peer(OK, hang=True) as peer:
        with pytest.raises(httpx.ReadTimeout):
            await call(client, peer.url)
        assert len(peer.requests) == 1


@WAYS
@pytest.mark.parametrize(
    "answer",
    [
        None,
        b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\nhalf",
        b"no HTTP\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n",
    ],
)
async def test_a_broken_answer_is_never_a_connect_error(client: Client, call: Call, answer: bytes | None) -> None:
    async with Peer(answer) as peer:
        with pytest.raises(httpx.TransportError) as caught:
            await call(client, peer.url)
        assert not isinstance(caught.value, NOTHING_SENT)
        assert len(peer.requests) == 1


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "POST"])
async def test_a_kept_connection_that_closes_does_not_send_again(client: Client, method: str) -> None:
    async with Peer(OK, None) as peer:
        await client.request(method, peer.url)
        with pytest.raises(httpx.TransportError) as caught:
            await client.request(method, peer.url)
        assert not isinstance(caught.value, NOTHING_SENT)
        assert len(peer.requests) == 2
        with pytest.raises(httpx.TransportError):
            await client.exchange(method, peer.url)
        assert len(peer.requests) == 3


async def test_redirects_are_answers(client: Client) -> None:
    async with Peer(b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n") as peer:
        assert (await client.post(peer.url, content=b"{}", follow_redirects=True)).status_code == 302
        assert (await client.exchange("POST", peer.url)).status_code == 302
        assert len(peer.requests) == 2


async def test_proxy_settings_of_the_environment_are_not_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Peer(OK) as proxy, Peer(OK) as peer:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "HTTPS_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        monkeypatch.delenv("NO_PROXY", raising=False)
        async with build_client(max_connections=1, connect_timeout_s=1, guard=False) as client:
            await client.post(peer.url, content=b"{}")
            await client.exchange("POST", peer.url, content=b"{}")
        assert (proxy.connections, len(peer.requests)) == (0, 2)


async def test_a_longer_answer_is_refused_or_cut_and_the_rest_not_read() -> None:
    endless = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + b"4000\r\n" + b"x" * 0x4000 + b"\r\n"
    async with (
        Peer(endless) as peer,
        build_client(max_connections=2, connect_timeout_s=1, guard=False, max_answer_bytes=1000) as client,
    ):
        with pytest.raises(AnswerTooLong):
            await client.post(peer.url, content=b"{}")
        with pytest.raises(AnswerTooLong):
            await client.exchange("POST", peer.url)
        assert (await client.exchange("POST", peer.url, cut=True)).content == b"x" * 1000
        assert (await client.exchange("POST", peer.url, max_answer_bytes=10, cut=True)).content == b"x" * 10
        async with client.stream("POST", peer.url) as response:
            assert await read_capped(response, 500) == b"x" * 500
        assert peer.connections == 5, "a connection with an unread rest is never used again"


async def test_an_answer_of_exactly_the_limit_is_whole() -> None:
    async with (
        Peer(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n" + b"x" * 1000) as peer,
        build_client(max_connections=2, connect_timeout_s=1, guard=False, max_answer_bytes=1000) as client,
    ):
        assert len((await client.post(peer.url)).content) == 1000
        assert len((await client.exchange("POST", peer.url)).content) == 1000
        assert peer.connections == 1


async def test_a_gzip_bomb_is_cut_like_any_answer(client: Client) -> None:
    bomb = gzip.compress(b"0" * 50_000_000)
    text = gzip.compress(b"hello")
    head = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n"
    async with Peer(head % len(bomb) + bomb) as peer:
        with pytest.raises(AnswerTooLong):
            await client.exchange("POST", peer.url)
        assert len((await client.exchange("POST", peer.url, max_answer_bytes=16384, cut=True)).content) == 16384
        async with client.stream("POST", peer.url) as response:
            assert len(await read_capped(response, 16384)) == 16384
    async with Peer(head % len(text) + text) as peer:
        assert (await client.exchange("POST", peer.url)).content == b"hello"
        assert (await client.post(peer.url)).content == b"hello"
    async with Peer(head % 7 + b"garbage") as peer:
        assert (await client.exchange("POST", peer.url)).content == b""


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:1/a b", "http://127.0.0.1:1/\r\nX: y", "http://127.0.0.1:1/é", "ftp://127.0.0.1/", "/relative"],
)
async def test_a_url_that_cannot_be_sent_as_it_is_is_refused(client: Client, url: str) -> None:
    with pytest.raises(httpx.UnsupportedProtocol):
        await client.exchange("POST", url)


async def test_a_line_break_in_a_header_is_refused(client: Client) -> None:
    async with Peer(OK) as peer:
        with pytest.raises(ValueError, match=r"(?i)newline|header"):
            await client.exchange("POST", peer.url, headers={"X-A": "1\r\nX-B: 2"})
        assert peer.requests == []


async def test_a_cancelled_call_gives_its_connection_up() -> None:
    async with (
        Peer(OK, hang=True) as peer,
        build_client(max_connections=1, connect_timeout_s=1, read_timeout_s=30, guard=False) as client,
    ):
        for _ in range(3):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await client.exchange("POST", peer.url)
        assert peer.connections == 3


@WAYS
async def test_what_its_time_is_over_for_is_not_sent_on_a_new_or_a_kept_connection(client: Client, call: Call) -> None:
    async with Peer(OK) as peer:

        async def with_time(seconds: float) -> None:
            http.send_before.set(time.monotonic() + seconds)
            await call(client, peer.url)

        for _ in range(2):
            with pytest.raises(http.SentTooLate):
                await asyncio.create_task(with_time(-0.001))
        assert peer.requests == []
        await asyncio.create_task(with_time(10))
        with pytest.raises(http.SentTooLate):
            await asyncio.create_task(with_time(-0.001))
        await call(client, peer.url)  # the limit is the task's own
        assert len(peer.requests) == 2


async def test_a_closed_client_sends_nothing() -> None:
    async with Peer(OK) as peer:
        client = build_client(max_connections=1, connect_timeout_s=1, guard=False)
        await client.exchange("POST", peer.url)
        await client.aclose()
        for call in (by_post, by_exchange):
            with pytest.raises(RuntimeError, match="closed"):
                await call(client, peer.url)
