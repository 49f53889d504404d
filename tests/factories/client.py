"""A merchant's program, as our documentation tells people to write it: httpx, and a signature over the very bytes that are sent."""

import secrets
import ssl
import time
from collections.abc import AsyncIterator, Generator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx
import orjson
from fastapi import FastAPI
from tests.factories.merchants import ApiKey
from tests.factories.pools import borrow

from kameng_api.api.deps import Door
from kameng_api.kit.signing import sign_request
from kameng_api.main import build_app
from kameng_api.settings import Settings


class Signature(httpx.Auth):
    """Signs what httpx is about to send. `skew_s` moves the clock, `nonce` fixes the nonce, `scheme` lies about the algorithm."""

    requires_request_body = True

    def __init__(self, key: ApiKey, *, skew_s: int = 0, nonce: str | None = None, scheme: str | None = None) -> None:
        self.key, self.skew_s, self.nonce, self.scheme = key, skew_s, nonce, scheme

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        request.headers["Authorization"] = authorization(
            self.key, request.method, request.url.raw_path, request.content,
            skew_s=self.skew_s, nonce=self.nonce, scheme=self.scheme,
        )  # fmt: skip
        yield request


def authorization(
    key: ApiKey,
    method: str,
    target: bytes,
    body: bytes = b"",
    *,
    skew_s: int = 0,
    nonce: str | None = None,
    scheme: str | None = None,
    timestamp: int | None = None,
) -> str:
    """The Authorization header for one request, signed now."""
    at = (int(time.time()) if timestamp is None else timestamp) + skew_s
    return sign_request(scheme or key.scheme, key.key, key.key_id, at, nonce or secrets.token_hex(16), method, target, body)


@asynccontextmanager
async def running_app(settings: Settings) -> AsyncIterator[FastAPI]:
    """The app with its lifespan run, for ASGI clients."""
    app = build_app(settings, borrow(settings))
    async with app.router.lifespan_context(app):
        yield app


NOBODY = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Trusts no authority: clients that speak http to loopback need none, and to read the usual ones takes 30 ms for each."""


def door_of(app: FastAPI) -> Door:
    door: Door = app.state.door
    return door


class Client:
    """Speaks to an app over ASGI, or to `base_url` over a socket, signing with `key` unless told otherwise."""

    def __init__(
        self,
        app: FastAPI | None = None,
        key: ApiKey | None = None,
        *,
        base_url: str = "http://kameng.test",
        peer: str = "127.0.0.1",
    ) -> None:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False, client=(peer, 40000)) if app is not None else None
        self.http = httpx.AsyncClient(transport=transport, base_url=base_url, timeout=30, trust_env=False, verify=NOBODY)
        self.key = key

    async def __aenter__(self) -> "Client":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.http.aclose()

    async def get(self, path: str, *, key: ApiKey | None = None, **options: Any) -> httpx.Response:
        return await self.send("GET", path, key=key, **options)

    async def post(self, path: str, body: Any = None, *, key: ApiKey | None = None, **options: Any) -> httpx.Response:
        return await self.send("POST", path, body, key=key, **options)

    async def send(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        key: ApiKey | None = None,
        signed: bool = True,
        headers: Mapping[str, str] | None = None,
        skew_s: int = 0,
        nonce: str | None = None,
        scheme: str | None = None,
    ) -> httpx.Response:
        """`body`: bytes as they are, anything else as compact JSON. `signed=False` sends no Authorization."""
        content = body if isinstance(body, bytes) else b"" if body is None else orjson.dumps(body)
        sent = {"Content-Type": "application/json", **(headers or {})} if content else dict(headers or {})
        holder = key or self.key
        auth = Signature(holder, skew_s=skew_s, nonce=nonce, scheme=scheme) if signed and holder is not None else None
        return await self.http.request(method, path, content=content, headers=sent, auth=auth)
