"""No URL of a merchant makes us call ourselves, in any spelling, at registration or send; the canary stays silent."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from kameng_api.kit.http import AddressRefused, Client, Transport, build_client
from kameng_api.kit.public_address import UrlRefused, check_url

PUBLIC = "93.184.216.34"


class Canary:
    """Listens on loopback, IPv4 and IPv6 where there is one, and remembers every connection and byte."""

    def __init__(self, context: ssl.SSLContext | None = None, *, close: bool = False) -> None:
        self.close = b"connection: close\r\n" if close else b""
        self.connections = 0
        self.received = b""
        self._context = context

    async def __aenter__(self) -> "Canary":
        self._servers = [await asyncio.start_server(self._hear, "127.0.0.1", 0, ssl=self._context)]
        self.port = self._servers[0].sockets[0].getsockname()[1]
        with contextlib.suppress(OSError):
            self._servers.append(await asyncio.start_server(self._hear, "::1", self.port, ssl=self._context))
        return self

    async def __aexit__(self, *_: object) -> None:
        for server in self._servers:
            server.close()

    async def _hear(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(ConnectionError):
            while chunk := await reader.read(65536):
                self.received += chunk
                if b"\r\n\r\n" in chunk:
                    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n" + self.close + b"\r\nok")
        writer.close()


@pytest.fixture
async def canary() -> AsyncIterator[Canary]:
    async with Canary() as found:
        yield found


def connecting_only(*, resolve: Any = None, ssl_context: ssl.SSLContext | None = None, loopback: bool = False) -> Client:
    """A guarded client whose first lock, the spelling of the URL, is open: left is the guard at connect time."""
    transport = Transport(max_connections=4, keepalive_s=4, guard=True, allow_loopback=loopback, resolve=resolve, ssl_context=ssl_context)
    assert transport._guard is not None
    transport._guard.check_url = lambda url: None  # type: ignore[method-assign]
    return Client(transport, timeout=httpx.Timeout(1.0))


SPELLINGS = [
    *(
        "127.0.0.1",
        "127.0.0.2",
        "127.1",
        "127.0.1",
        "127.255.255.254",
        "2130706433",
        "0x7f000001",
        "0x7f.0.0.1",
        "0x7F.0x0.0x0.0x1",
    ),
    *(
        "0177.0.0.1",
        "0177.1",
        "017700000001",
        "0x7f.1",
        "127.0.0.1.",
        "127.1.",
        "0",
        "0.0.0.0",
        "00",
        "0x0",
        "0.",
        "127.00.00.01",
    ),
    *(
        "localhost",
        "LOCALHOST",
        "LocalHost.",
        "localhost.localdomain",
        "ip6-localhost",
        "foo.localhost",
    ),
    *(
        "[::1]",
        "[0:0:0:0:0:0:0:1]",
        "[0000::0001]",
        "[::]",
        "[::127.0.0.1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::FFFF:127.0.0.1]",
    ),
    *(
        "[0:0:0:0:0:ffff:7f00:1]",
        "[::1%25lo]",
        "[::1%lo]",
        "[64:ff9b::127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "[fe80::1%25lo]",
    ),
    *(
        "10.0.0.1",
        "172.16.0.1",
        "192.168.0.1",
        "169.254.169.254",
        "100.100.100.200",
        "[fd00:ec2::254]",
        "metadata.google.internal",
    ),
    *(
        "１２７.０.０.１",
        "①②⑦.0.0.1",
        "127。0。0。1",
        "ⓛⓞⓒⓐⓛⓗⓞⓢⓣ",
        "xn--localhost-.example",
        "%31%32%37.0.0.1",
        "127.0.0.1%00.example",
    ),
]


async def no_such_name(host: str, port: int) -> list[str]:
    """The system's resolver for names that look numeric or local; no name server is asked, the test stays here."""
    if host.rstrip(".").lower().endswith((".example", ".internal", ".localdomain")):
        raise OSError(-2, "Name or service not known")
    answers = await asyncio.get_running_loop().getaddrinfo(host, port, type=1)
    return [str(answer[4][0]) for answer in answers]


def test_there_are_enough_spellings() -> None:
    assert len(set(SPELLINGS)) >= 40


@pytest.mark.parametrize("host", SPELLINGS)
async def test_no_spelling_of_an_inside_address_reaches_anything(canary: Canary, host: str) -> None:
    urls = [
        f"{scheme}://{userinfo}{host}{port}/hook"
        for scheme in ("https", "http")
        for userinfo in ("", "merchant.example@")
        for port in ("", ":443", f":{canary.port}")
    ]
    async with (
        build_client(max_connections=4, connect_timeout_s=1, guard=True, resolve=no_such_name) as client,
        connecting_only(resolve=no_such_name) as second_lock,
    ):
        for url in urls:
            with pytest.raises(UrlRefused):
                check_url(url, development=False)
            with pytest.raises(AddressRefused):
                await client.exchange("POST", url, content=b"{}")
            with pytest.raises(AddressRefused):
                await client.post(httpx.URL("https://merchant.example").copy_with(host="127.0.0.1"), content=b"{}")
        for url in (f"http://{host}:{canary.port}/hook", f"https://{host}:{canary.port}/hook"):
            with pytest.raises((httpx.TransportError, httpx.InvalidURL)) as caught:
                await second_lock.exchange("POST", url, content=b"{}")
            assert isinstance(caught.value, httpx.ConnectError | httpx.UnsupportedProtocol)
    assert canary.connections == 0


async def test_the_canary_sings_when_the_guard_is_off(canary: Canary) -> None:
    async with build_client(max_connections=1, connect_timeout_s=1, guard=False) as client:
        assert (await client.exchange("POST", f"http://127.0.0.1:{canary.port}/hook")).status_code == 200
        assert (await client.exchange("POST", f"http://localhost:{canary.port}/hook")).status_code == 200
    assert canary.connections == 2


async def test_development_lets_loopback_in_and_nothing_else(canary: Canary) -> None:
    async with build_client(max_connections=1, connect_timeout_s=1, guard=True, allow_loopback=True) as client:
        for host in ("127.0.0.1", "localhost"):
            assert (await client.exchange("POST", f"http://{host}:{canary.port}/hook")).status_code == 200
        for url in (
            "http://10.0.0.1/",
            "http://169.254.169.254/",
            "https://192.168.0.1/",
            f"http://0.0.0.0:{canary.port}/",
        ):
            with pytest.raises(AddressRefused):
                await client.exchange("POST", url)
    assert canary.connections == 2


class Flipping:
    """A resolver that answers differently each time, and counts."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)
        self.asked = 0

    async def __call__(self, host: str, port: int) -> list[str]:
        self.asked += 1
        return self.answers.pop(0)


async def test_a_name_that_turns_inward_after_registration_is_refused_at_send(canary: Canary) -> None:
    url = "https://merchant.example:8443/hook"
    check_url(url, development=False)
    for inside in ("127.0.0.1", "10.0.0.1", "::1", "::ffff:127.0.0.1", "169.254.169.254", "64:ff9b::7f00:1"):
        resolver = Flipping([inside])
        async with build_client(max_connections=1, connect_timeout_s=1, guard=True, resolve=resolver) as client:
            for call in (client.exchange("POST", url), client.post(url)):
                resolver.answers = [[inside]]
                with pytest.raises(AddressRefused):
                    await call
    assert canary.connections == 0


@pytest.mark.parametrize("answers", [[PUBLIC, "127.0.0.1"], ["127.0.0.1", PUBLIC], ["2606:4700::1", "::1"], [PUBLIC, "not an address"]])
async def test_one_inside_address_among_the_answers_condemns_all(canary: Canary, answers: list[str]) -> None:
    async with connecting_only(resolve=Flipping(answers)) as client:
        with pytest.raises(AddressRefused):
            await client.exchange("POST", f"http://merchant.example:{canary.port}/hook")
    assert canary.connections == 0


async def test_the_checked_answer_is_the_dialled_one(canary: Canary) -> None:
    """Asked once for a connection: a second answer (here: inside) is never looked at."""
    resolver = Flipping(["127.0.0.1"], ["169.254.169.254"])
    async with connecting_only(resolve=resolver, loopback=True) as client:
        url = f"http://merchant.example:{canary.port}/hook"
        assert (await client.exchange("POST", url)).status_code == 200
        assert (await client.exchange("POST", url)).status_code == 200
        assert (resolver.asked, canary.connections) == (1, 1)
        assert canary.received.count(b"Host: merchant.example:") == 2


async def test_a_new_connection_asks_again_and_is_checked_again() -> None:
    async with Canary(close=True) as canary:
        resolver = Flipping(["127.0.0.1"], ["169.254.169.254"])
        url = f"http://merchant.example:{canary.port}/hook"
        async with connecting_only(resolve=resolver, loopback=True) as client:
            assert (await client.exchange("POST", url)).status_code == 200
            with pytest.raises(AddressRefused):
                await client.exchange("POST", url)
        assert (resolver.asked, canary.connections) == (2, 1)


async def test_the_socket_is_checked_even_if_the_resolver_was_not(canary: Canary) -> None:
    client = connecting_only(resolve=Flipping(["127.0.0.1"]))
    client._door._guard.check_all = lambda host, addresses: None  # type: ignore[union-attr, method-assign]
    async with client:
        with pytest.raises(AddressRefused):
            await client.exchange("POST", f"http://merchant.example:{canary.port}/hook")
    assert canary.connections == 0


async def test_the_peer_is_checked_before_the_first_byte(canary: Canary) -> None:
    """As if the network led us elsewhere: resolver and socket saw a public address, the connection ends inside."""
    client = connecting_only(resolve=Flipping(["127.0.0.1"]))
    guard = client._door._guard
    assert guard is not None
    guard.check_all = lambda host, addresses: None  # type: ignore[method-assign]
    strict, guard.allows = guard.allows, lambda address: True  # type: ignore[method-assign]
    check_peer = guard.check_peer

    def check_strictly(connection: Any) -> None:
        guard.allows = strict  # type: ignore[method-assign]
        check_peer(connection)

    guard.check_peer = check_strictly  # type: ignore[method-assign]
    async with client:
        with pytest.raises(AddressRefused):
            await client.exchange("POST", f"http://merchant.example:{canary.port}/hook", content=b"secret")
    await asyncio.sleep(0.05)
    assert canary.connections == 1
    assert canary.received == b""


@pytest.mark.parametrize("port", [1, 22, 25, 80, 6379, 5432, 8080, 65535])
async def test_other_ports_are_refused_before_anything_is_resolved(port: int) -> None:
    resolver = Flipping()
    async with build_client(max_connections=1, connect_timeout_s=1, guard=True, resolve=resolver) as client:
        with pytest.raises(AddressRefused):
            await client.exchange("POST", f"https://merchant.example:{port}/")
    assert resolver.asked == 0


async def test_a_redirect_inside_is_not_followed(canary: Canary) -> None:
    async def redirect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 307 x\r\nlocation: http://127.0.0.1:{canary.port}/\r\nconnection: close\r\n\r\n".encode())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(redirect, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, build_client(max_connections=1, connect_timeout_s=1, guard=True, allow_loopback=True) as client:
        assert (await client.exchange("POST", f"http://127.0.0.1:{port}/")).status_code == 307
        assert (await client.post(f"http://127.0.0.1:{port}/", follow_redirects=True)).status_code == 307
    assert canary.connections == 0


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for merchant.example that signs itself, with its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "merchant.example")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("merchant.example")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "merchant.pem"
    encoded_key = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM) + encoded_key)
    return path


async def test_tls_sni_and_host_keep_the_name_while_the_checked_address_is_dialled(certificate: Path) -> None:
    names: list[str | None] = []
    serving = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    serving.load_cert_chain(certificate)
    serving.sni_callback = lambda _socket, name, _context: names.append(name)
    trusting = ssl.create_default_context(cafile=str(certificate))
    async with Canary(serving) as canary:
        async with connecting_only(resolve=Flipping(["127.0.0.1"]), ssl_context=trusting, loopback=True) as client:
            answer = await client.exchange("POST", f"https://merchant.example:{canary.port}/hook", content=b"{}")
            assert answer.status_code == 200
        assert names == ["merchant.example"]
        assert f"Host: merchant.example:{canary.port}".encode() in canary.received


@pytest.mark.parametrize(("host", "trusted"), [("merchant.example", False), ("other.example", True)])
async def test_a_certificate_that_does_not_fit_means_nothing_was_sent(certificate: Path, host: str, trusted: bool) -> None:
    serving = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    serving.load_cert_chain(certificate)
    trusting = ssl.create_default_context(cafile=str(certificate)) if trusted else None
    async with Canary(serving) as canary:
        async with connecting_only(resolve=Flipping(["127.0.0.1"], ["127.0.0.1"]), ssl_context=trusting, loopback=True) as client:
            with pytest.raises(httpx.ConnectError):
                await client.exchange("POST", f"https://{host}:{canary.port}/hook", content=b"{}")
        assert canary.received == b""
