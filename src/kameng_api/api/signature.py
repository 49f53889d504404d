"""Whose request is this? Keys, kept for a moment, and the one comparison that proves them.

A revoked or changed key is known everywhere within `GOOD_S`: entries in use are read again every second in one query, an entry that could not
be read again in time is not used any more, and an unknown id is remembered only as long.
"""

import asyncio
import hashlib
import time
from collections.abc import Coroutine, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import structlog

from kameng_api.api.limits import Budget
from kameng_api.kit import signing
from kameng_api.kit.crypto import Keyring
from kameng_api.kit.db import Database
from kameng_api.kit.gather import Gatherer
from kameng_api.kit.signing import Credentials
from kameng_api.merchants import actions, queries
from kameng_api.merchants.rules import Key, is_key_id

CLOCK_WINDOW_S: Final = 300
GOOD_S: Final = 3.0
_REFRESH_S: Final = 1.0
_UNUSED_S: Final = 60.0
_NOTE_USE_S: Final = 30.0
_MOST_UNKNOWN: Final = 4096
_MOST_PER_QUERY: Final = 2000

_DUMMY_SECRET: Final = hashlib.sha256(b"nobody's secret").hexdigest().encode()
_DUMMY_PUBLIC_KEY: Final = signing.ed25519_public_key(hashlib.sha256(b"nobody's seed").digest())

_log = structlog.get_logger()


class Known:
    """A key as this process keeps it: good until a moment of the monotonic clock."""

    __slots__ = ("budgets", "good_until", "key", "row")

    def __init__(self, key: Key, row: queries.Row, good_until: float) -> None:
        self.key = key
        self.row = row
        self.good_until = good_until
        self.budgets: dict[str, Budget] = {}


class KeyCache:
    """Keys by id, read from the database when first seen and every second while in use."""

    def __init__(self, db: Database, keyring: Keyring) -> None:
        self._db = db
        self._keyring = keyring
        self._known: dict[str, Known] = {}
        self._unknown: dict[str, float] = {}
        self._asking: Gatherer[str, Known | None] = Gatherer(self._ask, largest=_MOST_PER_QUERY, in_flight=2)
        self._used: dict[str, float] = {}
        self._written_at = 0.0
        self._keeping: asyncio.Task[None] | None = None

    def peek(self, key_id: str) -> Known | None:
        """The key if it is at hand and still good."""
        known = self._known.get(key_id)
        return known if known is not None and known.good_until > time.monotonic() else None

    async def find(self, key_id: str) -> Known | None:
        """The key, from the database if need be; None when there is no such key. Raises Unavailable."""
        known = self.peek(key_id)
        if known is not None:
            return known
        if not is_key_id(key_id) or self._unknown.get(key_id, 0.0) > time.monotonic():
            return None
        return await self._asking.submit(key_id)

    def note_use(self, key_id: str, at: float) -> None:
        """The key proved itself at `at`, unix seconds; written down later, many at a time."""
        self._used[key_id] = at

    async def _ask(self, key_ids: Sequence[str]) -> Sequence[Known | None]:
        asked_at = time.monotonic()
        async with self._db.transaction() as tx:
            rows = await queries.find_key_rows(tx, list(set(key_ids)))
        return [self._keep(key_id, rows.get(key_id), asked_at + GOOD_S) for key_id in key_ids]

    def _keep(self, key_id: str, row: queries.Row | None, good_until: float) -> Known | None:
        if row is None:
            self._known.pop(key_id, None)
            self._unknown[key_id] = good_until
            if len(self._unknown) > _MOST_UNKNOWN:
                del self._unknown[next(iter(self._unknown))]
            return None
        known = self._known.get(key_id)
        if known is not None and known.row == row:
            known.good_until = max(known.good_until, good_until)
            return known
        known = Known(queries.open_key(self._keyring, row), row, good_until)
        self._known[key_id] = known
        return known

    async def start(self) -> None:
        self._keeping = asyncio.create_task(self._keep_fresh())

    async def stop(self) -> None:
        """End the background reading and write down the last uses."""
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.gather(self._keeping, return_exceptions=True)
            self._keeping = None
        await self._asking.drain()
        await self._quietly(self.write_uses())

    async def _keep_fresh(self) -> None:
        written_at = time.monotonic()
        while True:
            await asyncio.sleep(_REFRESH_S)
            await self._quietly(self.refresh())
            if time.monotonic() - written_at >= _NOTE_USE_S:
                written_at = time.monotonic()
                await self._quietly(self.write_uses())

    async def _quietly(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception as trouble:
            _log.warning("gate.keys_stale", trouble=type(trouble).__name__)

    async def refresh(self) -> None:
        """Read every key in use again; forget those not used for a minute."""
        idle_since = time.time() - _UNUSED_S
        for key_id in [k for k in self._known if self._used.get(k, 0.0) < idle_since and self.peek(k) is None]:
            del self._known[key_id]
        for key_id in [k for k, until in self._unknown.items() if until <= time.monotonic()]:
            del self._unknown[key_id]
        in_use = [k for k in self._known if self._used.get(k, 0.0) >= idle_since]
        for start in range(0, len(in_use), _MOST_PER_QUERY):
            await self._ask(in_use[start : start + _MOST_PER_QUERY])

    async def write_uses(self) -> None:
        """Write `last_used_at` of the keys used since the last time."""
        now = time.time()
        used = {k: datetime.fromtimestamp(at, UTC) for k, at in self._used.items() if at >= self._written_at}
        if used:
            async with self._db.transaction() as tx:
                await actions.record_use(tx, used)
        self._written_at = now
        for key_id in [k for k, at in self._used.items() if at < now - _UNUSED_S]:
            del self._used[key_id]


def text_to_sign(credentials: Credentials, method: str, target: bytes, body: bytes) -> bytes:
    """The seven lines as we read this request. Raises ValueError when a part holds a line feed."""
    digest = hashlib.sha256(body).hexdigest() if body else signing.EMPTY_BODY_SHA256
    return signing.string_to_sign(
        credentials.scheme, credentials.timestamp, credentials.nonce, credentials.key_id, method, target, digest
    )


def is_proven(key: Key | None, credentials: Credentials, text: bytes) -> bool:
    """Whether `key` made this signature. An unknown key, or one of the other algorithm, costs the same and proves nothing."""
    if credentials.scheme == signing.HMAC_SCHEME:
        mine = key is not None and key.algorithm == "hmac" and key.secret is not None
        secret = key.secret if mine and key is not None and key.secret is not None else _DUMMY_SECRET
        return signing.verify_hmac(secret, text, credentials.signature) and mine
    mine = key is not None and key.algorithm == "ed25519" and key.public_key is not None
    public_key = key.public_key if mine and key is not None and key.public_key is not None else _DUMMY_PUBLIC_KEY
    return signing.verify_ed25519(public_key, text, credentials.signature) and mine
