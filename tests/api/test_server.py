"""The process as operators run it: a real socket, real signals, and bytes that no polite client would send."""

import asyncio
import base64
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import httpx
import pytest
from redis.asyncio import Redis
from tests.api.test_signature import is_problem
from tests.factories import nursery
from tests.factories.client import Client, authorization
from tests.factories.merchants import TestMerchant, make_key

from kameng_api.demo.processes import free_port
from kameng_api.embedded.servers import Servers
from kameng_api.kit.db import Database
from kameng_api.merchants.actions import Terms
from kameng_api.settings import Settings

PROGRAM = "from kameng_api.main import serve; from kameng_api.settings import Settings; serve(Settings(_env_file=None))"
READY_WITHIN_S = 60.0


@asynccontextmanager
async def serving(servers: Servers, log: Path, **more: str) -> AsyncIterator[tuple[str, nursery.Process]]:
    """`serve()` in a process of its own; yields its base URL when it is ready."""
    port = free_port()
    environment = os.environ | {
        "KAMENG_DATABASE_URL": servers.app_url, "KAMENG_REDIS_URL": servers.redis_url, "KAMENG_PORT": str(port),
        "KAMENG_RATE_READS_PER_S": "5000", "KAMENG_RATE_WRITES_PER_S": "5000", "KAMENG_RATE_AUTH_FAILURES_PER_MIN": "0", **more,
    }  # fmt: skip
    with log.open("wb") as out:
        process = nursery.popen(["-c", PROGRAM], env=environment, stdout=out, stderr=out)
    try:
        base_url = f"http://127.0.0.1:{port}"
        await _until_ready(base_url, process, log)
        yield base_url, process
    finally:
        process.terminate()
        await asyncio.to_thread(process.wait, 40)


async def _until_ready(base_url: str, process: nursery.Process, log: Path) -> None:
    until = time.monotonic() + READY_WITHIN_S
    async with httpx.AsyncClient(base_url=base_url, trust_env=False) as client:
        while True:
            assert process.poll() is None and time.monotonic() < until, log.read_text()  # noqa: ASYNC240  a few lines
            with suppress(httpx.TransportError):
                if (await client.get("/readyz")).status_code == 200:
                    return
            await asyncio.sleep(0.05)


@pytest.fixture
async def server(database: Database, redis: Redis, migrated: Servers, tmp_path: Path) -> AsyncIterator[str]:
    async with serving(migrated, tmp_path / "log") as (base_url, _):
        yield base_url


async def raw(base_url: str, content: bytes, *, wait_s: float = 5.0) -> bytes:
    """Send these bytes and read until the server has nothing more to say."""
    url = httpx.URL(base_url)
    reader, writer = await asyncio.open_connection(url.host, url.port)
    writer.write(content)
    await writer.drain()
    answer = b""
    try:
        async with asyncio.timeout(wait_s):
            while chunk := await reader.read(65536):
                answer += chunk
                head, _, body = answer.partition(b"\r\n\r\n")
                if b"content-length: " in head.lower():
                    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                    if len(body) >= length:
                        break
    except TimeoutError:
        pass
    finally:
        writer.close()
    return answer


async def test_over_a_socket_a_signed_request_is_served(server: str, merchant: TestMerchant) -> None:
    async with Client(base_url=server, key=merchant.key) as client:
        answer = await client.get("/v1/balance")
        assert answer.status_code == 200 and answer.json()["available"] == "10000.0000"
        assert "server" not in answer.headers and "date" in answer.headers
        for query in ("limit=5", "limit=5&cursor=abc%3D"):
            answer = await client.get(f"/v1/balance/transactions?{query}")
            assert answer.status_code in (200, 400) and "ratelimit" in answer.headers
        assert (await client.post("/v1/test/balance", {"number": "n", "available": "3"})).status_code == 201


async def test_over_a_socket_odd_targets_never_reach_a_route(server: str, merchant: TestMerchant) -> None:
    for target in (b"/v1/%62alance", b"//v1/balance", b"/v1/../v1/balance", b"/v1/balance;x", b"/v1/balance%00", b"/v1/./balance"):
        header = authorization(merchant.key, "GET", target).encode()
        answer = await raw(server, b"GET %b HTTP/1.1\r\nHost: k\r\nAuthorization: %b\r\n\r\n" % (target, header))
        assert b" 400 " in answer.split(b"\r\n")[0] and b"path_not_canonical" in answer, answer


async def test_over_a_socket_ambiguous_requests_are_refused(server: str, merchant: TestMerchant) -> None:
    header = authorization(merchant.key, "GET", b"/v1/balance").encode()
    twice = b"GET /v1/balance HTTP/1.1\r\nHost: k\r\nAuthorization: %b\r\nauthorization: %b\r\n\r\n" % (header, header)
    assert b"auth_malformed" in await raw(server, twice)
    lengths = b"POST /v1/orders HTTP/1.1\r\nHost: k\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}"
    smuggled = b"POST /v1/orders HTTP/1.1\r\nHost: k\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    feed = b"GET /v1/balance HTTP/1.1\r\nHost: k\r\nAuthorization: a\nX: b\r\n\r\n"
    for content in (lengths, smuggled, feed, b"GET /v1/\xff HTTP/1.1\r\nHost: k\r\n\r\n", b"nonsense\r\n\r\n"):
        first = (await raw(server, content, wait_s=2)).split(b"\r\n")[0]
        assert first == b"" or b" 400 " in first or b" 401 " in first, (content, first)


async def test_over_a_socket_forwarded_addresses_are_not_believed(
    server: str, database: Database, settings: Settings, merchant: TestMerchant
) -> None:
    fenced = await make_key(database, settings, merchant.merchant_id, terms=Terms(cidrs=["203.0.113.0/24"]))
    async with Client(base_url=server, key=fenced) as client:
        for name in ("X-Forwarded-For", "X-Real-IP", "Forwarded"):
            problem = is_problem(await client.get("/v1/balance", headers={name: "203.0.113.9"}), 403, "ip_not_allowed")
            assert problem["address"] == "127.0.0.1"


async def test_over_a_socket_large_bodies_are_answered_and_not_read_for_ever(server: str, merchant: TestMerchant) -> None:
    header = authorization(merchant.key, "POST", b"/v1/test/balance", b"x").encode()
    head = b"POST /v1/test/balance HTTP/1.1\r\nHost: k\r\nContent-Type: application/json\r\nAuthorization: %b\r\n" % header
    declared = await raw(server, head + b"Content-Length: 999999999\r\n\r\n" + b"a" * 1000, wait_s=6)
    assert b" 413 " in declared.split(b"\r\n")[0] and b"connection: close" in declared.lower()
    chunk = b"%x\r\n%b\r\n" % (200_000, b"a" * 200_000)
    chunked = await raw(server, head + b"Transfer-Encoding: chunked\r\n\r\n" + chunk * 6 + b"0\r\n\r\n", wait_s=6)
    assert b" 413 " in chunked.split(b"\r\n")[0], chunked[:200]


async def test_a_term_signal_finishes_what_is_under_way(
    database: Database, redis: Redis, migrated: Servers, merchant: TestMerchant, tmp_path: Path
) -> None:
    async with serving(migrated, tmp_path / "log") as (base_url, process):
        body = b'{"number":"n","available":"3"}'
        header = authorization(merchant.key, "POST", b"/v1/test/balance", body).encode()
        url = httpx.URL(base_url)
        reader, writer = await asyncio.open_connection(url.host, url.port)
        writer.write(
            b"POST /v1/test/balance HTTP/1.1\r\nHost: k\r\nContent-Type: application/json\r\nAuthorization: %b\r\nContent-Length: %d\r\n\r\n%b"
            % (header, len(body), body[:10])
        )
        await writer.drain()
        await asyncio.sleep(0.3)
        process.send_signal(signal.SIGTERM)
        await asyncio.sleep(0.5)
        assert process.poll() is None, "left a request behind"
        writer.write(body[10:])
        answer = await asyncio.wait_for(reader.read(), 10)
        assert b" 201 " in answer.split(b"\r\n")[0], answer
        writer.close()
        assert await asyncio.to_thread(process.wait, 20) in (0, -signal.SIGTERM)
    log = (tmp_path / "log").read_text()
    assert "Traceback" not in log and '"level":"error"' not in log, log


LIVE = {
    "KAMENG_MODE": "live",
    "KAMENG_KEYS": "k1:" + base64.b64encode(b"not the development key, 32 byte").decode(),
    "KAMENG_BASE_URL": "https://kameng.example",
}


async def test_in_live_mode_a_term_signal_is_announced_before_doors_close(
    database: Database, redis: Redis, migrated: Servers, tmp_path: Path
) -> None:
    async with serving(migrated, tmp_path / "log", **LIVE) as (base_url, process), Client(base_url=base_url) as client:
        assert (await client.get("/openapi.json")).status_code == 404
        process.send_signal(signal.SIGTERM)
        await asyncio.sleep(0.5)
        ready = await client.get("/readyz")
        assert ready.status_code == 503 and ready.json()["checks"]["draining"] == "yes"
        alive = await client.get("/livez")
        assert alive.status_code == 200 and alive.headers["connection"] == "close"
        assert process.poll() is None
        assert await asyncio.to_thread(process.wait, 20) in (0, -signal.SIGTERM)


async def test_live_and_ready_are_told_apart(server: str) -> None:
    async with Client(base_url=server) as client:
        assert (await client.get("/livez")).json() == {"status": "alive"}
        ready = (await client.get("/readyz")).json()
        assert ready["status"] == "ready"
        assert ready["checks"] == {"database": "ok", "migrations": "current", "memory": "ok", "draining": "no"}
        assert "kameng_http_requests_total" in (await client.get("/metrics")).text
