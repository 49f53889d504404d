"""The one door through which the house calls others over HTTP: httpx's API over aiohttp's engine, with every limit set.

Three things here are about money, not taste. An error says whether anything can have been sent: `ConnectError`,
`ConnectTimeout` and `PoolTimeout` mean that no byte of the request left, everything else means that it may have.
Nothing is sent twice: no redirects, no retries, not even aiohttp's own for GET on a connection that closed. With
`guard=True` no request reaches an address that is not public, whatever the URL or the resolver says, now or later.

`Client` leaves out what httpx does for browsers (cookies, auth flows, redirect history), which is most of its cost.
"""

import asyncio
import socket
import ssl
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import aiohttp
import httpx
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.connector import AddrInfoType, Connection
from yarl import URL

from kameng_api.kit.public_address import UrlRefused, check_url, is_loopback, is_public

# (host, port) → the addresses, as text. Raises OSError when the name does not exist.
Resolve = Callable[[str, int], Awaitable[list[str]]]

USER_AGENT = "kameng-api/0.1"
_DEFAULT_MAX_ANSWER_BYTES = 1 << 20
_CHUNK_BYTES = 1 << 14
_RESOLVER_THREADS = 8
_MOST_HEADER_SETS = 256
_WBITS = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}


# On `time.monotonic`: what this task asks after it is not sent. Looked at last of all, when the connection is there: a
# process that was frozen on the way must not do what others have by then taken over.
send_before: ContextVar[float] = ContextVar("send_before", default=float("inf"))


class SentTooLate(httpx.ConnectTimeout):
    """`send_before` was over when the connection was there. Nothing was sent."""


class AddressRefused(httpx.ConnectError):
    """The guard will not dial this address. Nothing was sent."""


class AnswerTooLong(httpx.ReadError):
    """The answer is longer than we read. The request was sent."""


def build_client(
    *,
    max_connections: int,
    connect_timeout_s: float,
    read_timeout_s: float = 15.0,
    guard: bool,
    allow_loopback: bool = False,
    keepalive_s: float = 4.0,
    max_answer_bytes: int = _DEFAULT_MAX_ANSWER_BYTES,
    user_agent: str = USER_AGENT,
    resolve: Resolve | None = None,
    ssl_context: ssl.SSLContext | None = None,
) -> "Client":
    """A pooled client for one process; close it with `aclose`. Needs a running loop only when the first request is
    sent.

    `connect_timeout_s` bounds name look-up, connection and TLS together, and separately the wait for a free connection;
    `read_timeout_s` each silence while waiting for the answer. There is no total: wrap a call in `asyncio.timeout`.
    `guard` is for URLs that others give us: https on public addresses and ports 443 and 8443 only; `allow_loopback`
    (development only) also lets it call loopback, on any port, with http. `resolve` replaces the system's resolver;
    `ssl_context` the usual certificate authorities.
    """
    return Client(
        Transport(
            max_connections=max_connections,
            keepalive_s=keepalive_s,
            guard=guard,
            allow_loopback=allow_loopback,
            resolve=resolve,
            ssl_context=ssl_context,
        ),
        timeout=httpx.Timeout(read_timeout_s, connect=connect_timeout_s, pool=connect_timeout_s),
        max_answer_bytes=max_answer_bytes,
        user_agent=user_agent,
    )


@cache
def usual_authorities() -> ssl.SSLContext:
    """Trusts whom everybody trusts. One for the whole process: to read their certificates takes 30 ms, and to hold them 0.4 MB."""
    return httpx.create_ssl_context(trust_env=False)


async def read_capped(response: httpx.Response, limit: int) -> bytes:
    """The first `limit` bytes of a streamed answer (`client.stream(...)`), decompressed; the rest is never read.

    An answer that does not decompress is returned as far as it does. A result of `limit` bytes may have been cut.
    """
    decompress = _decompressor(response.headers.get("content-encoding"))
    parts: list[bytes] = []
    left = limit
    async for chunk in response.aiter_raw():
        part = chunk
        if decompress is not None:
            try:
                part = decompress.decompress(chunk, left)
            except zlib.error:
                break
        parts.append(part[:left])
        left -= len(part)
        if left <= 0:
            break
    await response.aclose()
    return b"".join(parts)


@dataclass(frozen=True, slots=True)
class Answer:
    """What `Client.exchange` brings back. Header names are found in any case."""

    status_code: int
    headers: Mapping[str, str]
    content: bytes


class Client(httpx.AsyncClient):
    """`httpx.AsyncClient` without cookies, auth flows and redirects; answers are read up to `max_answer_bytes`."""

    def __init__(
        self,
        door: "Transport",
        *,
        timeout: httpx.Timeout,
        max_answer_bytes: int = _DEFAULT_MAX_ANSWER_BYTES,
        user_agent: str = USER_AGENT,
    ) -> None:
        self._default_headers = {"Accept": "*/*", "Accept-Encoding": "identity", "User-Agent": user_agent}
        super().__init__(transport=door, timeout=timeout, headers=self._default_headers, trust_env=False, follow_redirects=False)
        self._door = door
        self._max_answer_bytes = max_answer_bytes
        self._default_seconds = timeout.as_dict()
        self._beside: dict[tuple[str, ...], Mapping[str, str]] = {}

    async def exchange(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
        timeout: httpx.Timeout | None = None,
        max_answer_bytes: int | None = None,
        cut: bool = False,
    ) -> "Answer":
        """Send bytes that are ready and read the whole answer; twice as fast as `request`, with the same errors.

        An answer longer than `max_answer_bytes` is cut there if `cut` is set, else it raises `AnswerTooLong`.
        """
        seconds = self._default_seconds if timeout is None else timeout.as_dict()
        limit = self._max_answer_bytes if max_answer_bytes is None else max_answer_bytes
        if self.is_closed:
            raise RuntimeError("the client is closed")
        merged = {**self._defaults_beside(tuple(headers)), **headers} if headers else self._default_headers
        return await self._door.exchange(method, url, merged, content, seconds, limit=limit, cut=cut)

    def _defaults_beside(self, names: tuple[str, ...]) -> Mapping[str, str]:
        """Our own headers, without those that the caller names in whatever case. Callers use a handful of sets of names."""
        beside = self._beside.get(names)
        if beside is None:
            given = {name.lower() for name in names}
            beside = {name: value for name, value in self._default_headers.items() if name.lower() not in given}
            if len(self._beside) >= _MOST_HEADER_SETS:
                self._beside.clear()
            self._beside[names] = beside
        return beside

    async def send(  # auth and redirects are not offered here
        self, request: httpx.Request, *, stream: bool = False, **_ignored: Any
    ) -> httpx.Response:
        if self.is_closed:
            raise RuntimeError("the client is closed")
        response = await self._door.handle_async_request(request)
        response.request = request
        if not stream:
            await self._read_whole(response)
        return response

    async def _read_whole(self, response: httpx.Response) -> None:
        limit = self._max_answer_bytes
        try:
            content = await read_capped(response, limit + 1)
        finally:
            await response.aclose()
        if len(content) > limit:
            raise AnswerTooLong(f"the answer is longer than {limit} bytes", request=response.request)
        response._content = content  # what Response.aread would set; we read with a limit instead


class Transport(httpx.AsyncBaseTransport):
    """aiohttp behind httpx's interface. Unlike the `httpx-aiohttp` package, a closed connection is never a
    ConnectTimeout.
    """

    def __init__(
        self,
        *,
        max_connections: int,
        keepalive_s: float,
        guard: bool,
        allow_loopback: bool,
        resolve: Resolve | None = None,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._ssl_context = ssl_context
        self._max_connections = max_connections
        self._keepalive_s = keepalive_s
        self._guard = _Guard(allow_loopback) if guard else None
        self._resolve = resolve
        self._session: aiohttp.ClientSession | None = None
        self._timeouts: dict[tuple[float | None, ...], aiohttp.ClientTimeout] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        try:
            answer = await self._ask(
                request.method,
                str(request.url),
                _text_headers(request),
                await _whole_content(request),
                request.extensions.get("timeout", {}),
            )
        except Exception as error:
            raise _translated(error, request) from error
        return httpx.Response(
            answer.status,
            headers=list(answer.raw_headers),
            stream=_AnswerStream(answer, request),
            extensions={"reason_phrase": (answer.reason or "").encode("latin-1", "replace")},
        )

    async def exchange(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        content: bytes | None,
        seconds: Mapping[str, float | None],
        *,
        limit: int,
        cut: bool,
    ) -> Answer:
        """See `Client.exchange`; past httpx's own request and response objects, which cost as much as the call
        itself.
        """
        try:
            answer = await self._ask(method, url, headers, content, seconds)
            try:
                body = await _read(answer, limit + 1)
            finally:
                answer.release()  # closes the connection if anything is left unread
        except Exception as error:
            raise _translated(error) from error
        if len(body) > limit and not cut:
            raise AnswerTooLong(f"the answer is longer than {limit} bytes")
        return Answer(answer.status, answer.headers, body[:limit])

    async def aclose(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def _ask(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | list[tuple[str, str]],
        content: bytes | None,
        seconds: Mapping[str, float | None],
    ) -> aiohttp.ClientResponse:
        session = self._session or self._open()
        if self._guard is not None:
            self._guard.check_url(url)
        return await session.request(
            method,
            _yarl_url(url),
            headers=headers,
            data=content or None,
            allow_redirects=False,
            timeout=self._timeout(seconds),
        )

    def _open(self) -> aiohttp.ClientSession:
        guard = self._guard
        options: dict[str, Any] = {
            "limit": self._max_connections,
            "keepalive_timeout": self._keepalive_s,
            "ssl": self._ssl_context or usual_authorities(),
        }
        if guard is not None:
            options |= {"use_dns_cache": False, "socket_factory": guard.open_socket}
        if guard is not None or self._resolve is not None:
            options["resolver"] = _Resolver(self._resolve, guard)
        connector = _Connector(guard, **options)
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            skip_auto_headers=("Accept", "Accept-Encoding", "User-Agent", "Content-Type"),
        )
        # aiohttp sends a GET again when a kept connection closes before the answer; some suppliers sell by GET.
        self._session._retry_connection = False
        return self._session

    def _timeout(self, seconds: Mapping[str, float | None]) -> aiohttp.ClientTimeout:
        key = (seconds.get("pool"), seconds.get("connect"), seconds.get("read"))
        timeout = self._timeouts.get(key)
        if timeout is None:
            pool, connect, read = key
            both = None if pool is None or connect is None else pool + connect  # aiohttp's `connect` includes the wait
            timeout = aiohttp.ClientTimeout(total=None, connect=both, sock_connect=connect, sock_read=read)
            self._timeouts[key] = timeout
            if len(self._timeouts) > 256:
                self._timeouts.clear()
        return timeout


class _AnswerStream(httpx.AsyncByteStream):
    def __init__(self, answer: aiohttp.ClientResponse, request: httpx.Request) -> None:
        self._answer = answer
        self._request = request

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._answer.content.iter_chunked(_CHUNK_BYTES):
                yield chunk
        except Exception as error:
            raise _translated(error, self._request) from error

    async def aclose(self) -> None:
        self._answer.release()


class _Guard:
    """What may be dialled. One object asked four times: for the URL, each resolved address, each socket, each
    connection.
    """

    def __init__(self, allow_loopback: bool) -> None:
        self._allow_loopback = allow_loopback

    def allows(self, address: str) -> bool:
        return _may_dial(address, self._allow_loopback)

    def check_url(self, url: str) -> None:
        try:
            check_url(url, development=self._allow_loopback)
        except UrlRefused as error:
            raise AddressRefused(str(error)) from None

    def check_all(self, host: str, addresses: list[str]) -> None:
        """One inside address among the answers condemns them all: the name is not one that we want to know."""
        if not all(self.allows(address) for address in addresses):
            raise _RefusedAddress(f"{host} does not lead to a public address")

    def open_socket(self, address: AddrInfoType) -> socket.socket:
        family, kind, proto, _, sockaddr = address
        if not self.allows(str(sockaddr[0])):
            raise _RefusedAddress("not a public address")
        return socket.socket(family, kind, proto)

    def check_peer(self, connection: Connection) -> None:
        peer = connection.transport.get_extra_info("peername") if connection.transport else None
        if not peer or not self.allows(str(peer[0])):
            connection.close()
            raise _RefusedAddress("connected to an address that is not public")


@lru_cache(maxsize=8192)  # asked for every request, of the few addresses that kept connections lead to
def _may_dial(address: str, allow_loopback: bool) -> bool:
    try:
        return is_public(address) or (allow_loopback and is_loopback(address))
    except ValueError:
        return False


class _RefusedAddress(OSError):
    """Travels through aiohttp, which wraps it in its own connection error."""


class _TooLate(aiohttp.ClientConnectionError):
    """Travels through aiohttp; `SentTooLate` outside."""


class _Connector(aiohttp.TCPConnector):
    """Looks at the peer and at the clock once more before the request is written."""

    def __init__(self, guard: _Guard | None, **options: Any) -> None:
        super().__init__(**options)
        self._address_guard = guard

    async def connect(self, *args: Any, **kwargs: Any) -> Connection:
        connection = await super().connect(*args, **kwargs)
        if self._address_guard is not None:
            self._address_guard.check_peer(connection)
        if time.monotonic() > send_before.get():
            connection.close()
            raise _TooLate("too late to be sent")
        return connection


class _Resolver(AbstractResolver):
    """Resolves once for each connection; aiohttp then dials exactly the addresses returned here."""

    def __init__(self, resolve: Resolve | None, guard: _Guard | None) -> None:
        self._resolve = resolve or self._ask_system
        self._guard = guard
        # Threads of its own: a slow name server of one merchant must not hold up whatever else runs in threads.
        self._threads = ThreadPoolExecutor(_RESOLVER_THREADS, thread_name_prefix="resolve")

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC) -> list[ResolveResult]:
        addresses = await self._resolve(host, port)
        if self._guard is not None:
            self._guard.check_all(host, addresses)
        found = [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for address in addresses
        ]
        if not found:
            raise OSError(None, f"{host} has no address")
        return found

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _ask_system(self, host: str, port: int) -> list[str]:
        loop = asyncio.get_running_loop()
        answers = await loop.run_in_executor(self._threads, lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        return [str(sockaddr[0]) for _, _, _, _, sockaddr in answers]


def _translated(error: Exception, request: httpx.Request | None = None) -> Exception:
    """The httpx error of the same meaning. Only errors before the first byte of the request become Connect errors."""
    text = str(error) or type(error).__name__
    match error:
        case httpx.HTTPError():
            return error
        case aiohttp.ClientError(__cause__=_RefusedAddress()):
            return AddressRefused("not a public address", request=request)
        case _TooLate():
            return SentTooLate(text, request=request)
        case aiohttp.ConnectionTimeoutError():
            return httpx.ConnectTimeout(text, request=request)
        case aiohttp.ClientConnectorError():  # DNS, refused, TLS and certificate errors
            return httpx.ConnectError(text, request=request)
        case aiohttp.ServerTimeoutError() | TimeoutError():
            return httpx.ReadTimeout(text, request=request)
        case aiohttp.InvalidURL() | aiohttp.NonHttpUrlClientError():
            return httpx.UnsupportedProtocol(text, request=request)
        case aiohttp.ClientPayloadError():
            return httpx.ReadError(text, request=request)
        case aiohttp.ClientError():  # closed, reset, or not HTTP
            return httpx.RemoteProtocolError(text, request=request)
        case OSError():
            return httpx.ReadError(text, request=request)
        case _:
            return error


async def _read(answer: aiohttp.ClientResponse, limit: int) -> bytes:
    """At most `limit` bytes of the answer, decompressed as far as it can be."""
    decompress = _decompressor(answer.headers.get("Content-Encoding"))
    stream = answer.content
    body = b""
    while len(body) < limit:
        chunk = await stream.read(_CHUNK_BYTES)
        if not chunk:
            break
        if decompress is not None:
            try:
                chunk = decompress.decompress(chunk, limit - len(body))
            except zlib.error:
                break
        body += chunk
    return body[:limit]


def _decompressor(encoding: str | None) -> Any:
    wbits = _WBITS.get(encoding.strip().lower()) if encoding else None
    return None if wbits is None else zlib.decompressobj(wbits)


def _text_headers(request: httpx.Request) -> list[tuple[str, str]]:
    return [
        (name.decode("ascii"), value.decode("latin-1"))
        for name, value in request.headers.raw
        if name.lower() != b"transfer-encoding"  # content is sent whole, with its length
    ]


async def _whole_content(request: httpx.Request) -> bytes:
    try:
        return request.content
    except httpx.RequestNotRead:
        return await request.aread()


@lru_cache(maxsize=4096)
def _yarl_url(url: str) -> URL:
    if not url.isascii() or not url.isprintable() or " " in url:
        raise aiohttp.InvalidURL(url, "only printable ASCII can be sent as it is")
    return URL(url, encoded=True)  # sent byte for byte: some suppliers sign it
