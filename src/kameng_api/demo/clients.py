"""The tour's two programs: an operator's, and a merchant's as our documentation tells people to write it."""

import asyncio
import base64
import secrets
import time
from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Self

import httpx
import orjson
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from kameng_api.kit.signing import ED25519_SCHEME, HMAC_SCHEME, sign_request

_PAGES: Final = 200
_NO_ANSWER_S: Final = 45.0
_AGAIN: Final = "kameng_demo.sent_again"


class Surprise(Exception):
    """An answer that the tour did not expect."""


def _read(answer: httpx.Response, *, well: tuple[int, ...] = (200, 201, 202)) -> Any:
    if answer.status_code not in well:
        request = answer.request
        raise Surprise(f"{request.method} {request.url.path}: {answer.status_code} {answer.text[:400]}")
    return answer.json()


async def _until_answered(send: Callable[[], Awaitable[httpx.Response]]) -> httpx.Response:
    """No answer, or a 5xx: unknown, so the same body and number again, signed anew; see `was_sent_again`. 429: when it says."""
    deadline = time.monotonic() + _NO_ANSWER_S
    again = False
    while True:
        try:
            answer = await send()
            if answer.status_code == 429 and time.monotonic() < deadline:
                await asyncio.sleep(float(answer.headers.get("retry-after", "1")))
                continue  # nothing was done
            if answer.status_code < 500 or time.monotonic() > deadline:
                answer.extensions[_AGAIN] = again
                return answer
        except httpx.TransportError:
            if time.monotonic() > deadline:
                raise
        again = True
        await asyncio.sleep(0.5)


def was_sent_again(answer: httpx.Response) -> bool:
    """Whether an earlier try may have done it already, so that a replay is as good as a creation."""
    return bool(answer.extensions[_AGAIN])


class Operator:
    """Speaks to `/admin/v1` with a bearer token; every call raises Surprise unless it went well."""

    def __init__(self, admin_url: str, token: str) -> None:
        self._http = httpx.AsyncClient(
            base_url=admin_url, headers={"Authorization": f"Bearer {token}"}, timeout=30, trust_env=False
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._http.aclose()

    async def get(self, path: str, **query: str | int) -> Any:
        return _read(await _until_answered(lambda: self._http.get(path, params=query)))

    async def post(self, path: str, body: dict[str, Any] | None = None) -> Any:
        return _read(await _until_answered(lambda: self._http.post(path, json=body)))

    async def put(self, path: str, body: dict[str, Any]) -> Any:
        return _read(await _until_answered(lambda: self._http.put(path, json=body)))


@dataclass(frozen=True, slots=True)
class Keys:
    """Everything a merchant's program needs. `secret` signs by HMAC; else `private_key`, base64 of the 32-byte seed, by Ed25519."""

    name: str
    merchant_id: str
    key_id: str
    environment: str = "test"
    secret: str | None = field(default=None, repr=False)
    private_key: str | None = field(default=None, repr=False)
    delivery_key: str = field(default="", repr=False)
    webhook_secret: str = field(default="", repr=False)

    def shown(self) -> dict[str, Any]:
        """As the state file has it."""
        proof = {"secret": self.secret} if self.secret is not None else {"private_key": self.private_key}
        algorithm = "hmac" if self.secret is not None else "ed25519"
        return {
            "name": self.name,
            "merchant_id": self.merchant_id,
            "environment": self.environment,
            "algorithm": algorithm,
            "key_id": self.key_id,
            **proof,
            "delivery_key": self.delivery_key,
            "webhook_secret": self.webhook_secret,
        }


class _Signature(httpx.Auth):
    """Signs what httpx is about to send, freshly each time."""

    requires_request_body = True

    def __init__(self, keys: Keys) -> None:
        self._key_id = keys.key_id
        self._scheme = HMAC_SCHEME if keys.secret is not None else ED25519_SCHEME
        self._key = keys.secret.encode() if keys.secret is not None else base64.b64decode(keys.private_key or "")

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        request.headers["Authorization"] = sign_request(
            self._scheme, self._key, self._key_id, int(time.time()), secrets.token_hex(16),
            request.method, request.url.raw_path, request.content,
        )  # fmt: skip
        yield request


class Merchant:
    """One merchant's program."""

    def __init__(self, base_url: str, keys: Keys) -> None:
        self.keys = keys
        self._http = httpx.AsyncClient(base_url=base_url, auth=_Signature(keys), timeout=60, trust_env=False)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._http.aclose()

    @property
    def name(self) -> str:
        return self.keys.name

    async def send(self, method: str, path: str, body: Any = None) -> httpx.Response:
        """The answer, whatever it is; asked again for a while when there is none."""
        content = None if body is None else orjson.dumps(body)
        headers = {} if content is None else {"Content-Type": "application/json"}
        return await _until_answered(lambda: self._http.request(method, path, content=content, headers=headers))

    async def get(self, path: str) -> Any:
        """Raises Surprise unless it is 200."""
        return _read(await self.send("GET", path), well=(200,))

    async def post(self, path: str, body: Any, *, well: tuple[int, ...] = (200, 201, 202)) -> Any:
        return _read(await self.send("POST", path, body), well=well)

    async def all_pages(self, path: str, parameter: str = "cursor") -> list[Any]:
        """Every item of a list, page by page."""
        items: list[Any] = []
        cursor = None
        for _ in range(_PAGES):
            page = await self.get(f"{path}?limit=100" + (f"&{parameter}={cursor}" if cursor else ""))
            items += page["items"]
            cursor = page["next_cursor"]
            if cursor is None:
                return items
        raise Surprise(f"{path} has no end")

    async def codes(self, order_id: str) -> list[dict[str, str]]:
        """The card codes of an order, opened with the delivery key."""
        return open_codes(self.keys.delivery_key, order_id, await self.get(f"/v1/orders/{order_id}/codes"))


def open_codes(delivery_key: str, order_id: str, envelope: dict[str, str]) -> list[dict[str, str]]:
    """Raises Surprise when the envelope is for another order, cryptography.exceptions.InvalidTag when it is not ours."""
    if envelope["associated_data"] != f"order_codes:{order_id}" or envelope["algorithm"] != "AEAD_AES_256_GCM":
        raise Surprise("these codes are not this order's")
    sealed = base64.b64decode(envelope["ciphertext"])
    plain = AESGCM(delivery_key.encode()).decrypt(envelope["nonce"].encode(), sealed, envelope["associated_data"].encode())
    codes: list[dict[str, str]] = orjson.loads(plain)
    return codes
