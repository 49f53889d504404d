"""Who may call: merchants, their books and their keys, as rows and as opened keys."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import asyncpg

from kameng_api.kit.crypto import Keyring
from kameng_api.kit.db import Tx, fetch
from kameng_api.kit.errors import NotFound
from kameng_api.merchants import rules
from kameng_api.merchants.rules import Key

Row = asyncpg.Record

_MERCHANT = "merchant_id, name, status, level, currency, timezone, low_balance_at, created_at"
_KEY_SHOWN = (
    "key_id, merchant_id, book_id, environment, algorithm, public_key, scopes, cidrs, label, not_before, expires_at, revoked_at, "
    "last_used_at, reads_per_s, writes_per_s, created_at"
)
# Without last_used_at: what is equal need not be opened again.
_KEYS = """
SELECT k.key_id, k.merchant_id, m.name, m.status, k.book_id, k.environment, m.level, m.currency, k.algorithm, k.secret_sealed,
  k.public_key, k.scopes, k.cidrs, k.not_before, k.expires_at, k.revoked_at, k.reads_per_s, k.writes_per_s
FROM unnest($1::text[]) AS wanted (key_id)
JOIN api_keys k ON k.key_id = wanted.key_id
JOIN merchants m ON m.merchant_id = k.merchant_id
"""


@dataclass(frozen=True, slots=True)
class Merchant:
    """One merchant. `low_balance_at` in 1/10000 units: below it the merchant is told."""

    merchant_id: UUID
    name: str
    status: str
    level: str
    currency: str
    timezone: str
    low_balance_at: int | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class KeyShown:
    """An API key as it may be shown: everything but the secret."""

    key_id: str
    merchant_id: UUID
    book_id: int
    environment: str
    algorithm: str
    public_key: bytes | None
    scopes: tuple[str, ...]
    cidrs: tuple[str, ...]
    label: str
    not_before: datetime | None
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None
    reads_per_s: int | None
    writes_per_s: int | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class DeliveryKeyShown:
    """A delivery key without its bytes."""

    kid: str
    book_id: int
    revoked_at: datetime | None
    created_at: datetime


async def find_merchant(tx: Tx, merchant_id: UUID) -> Merchant | None:
    rows = await fetch(tx, f"SELECT {_MERCHANT} FROM merchants WHERE merchant_id = $1", merchant_id)
    return Merchant(**rows[0]) if rows else None


async def get_merchant(tx: Tx, merchant_id: UUID) -> Merchant:
    """Raises NotFound."""
    merchant = await find_merchant(tx, merchant_id)
    if merchant is None:
        raise NotFound("no such merchant")
    return merchant


async def find_merchant_by_name(tx: Tx, name: str) -> Merchant | None:
    rows = await fetch(tx, f"SELECT {_MERCHANT} FROM merchants WHERE name = $1", name)
    return Merchant(**rows[0]) if rows else None


async def list_merchants(tx: Tx, *, after: UUID | None, limit: int) -> list[Merchant]:
    """Oldest first; `after` is the last id of the page before."""
    rows = await fetch(
        tx,
        f"SELECT {_MERCHANT} FROM merchants WHERE $1::uuid IS NULL OR merchant_id > $1 ORDER BY merchant_id LIMIT $2",
        after,
        limit,
    )
    return [Merchant(**row) for row in rows]


async def find_book(tx: Tx, merchant_id: UUID, environment: str) -> int | None:
    rows = await fetch(
        tx, "SELECT book_id FROM books WHERE merchant_id = $1 AND environment = $2", merchant_id, environment
    )
    return int(rows[0]["book_id"]) if rows else None


async def get_book(tx: Tx, merchant_id: UUID, environment: str) -> int:
    """The merchant's book in this environment. Raises NotFound."""
    book_id = await find_book(tx, merchant_id, environment)
    if book_id is None:
        raise NotFound("no such merchant")
    return book_id


async def find_merchant_of_book(tx: Tx, book_id: int) -> Merchant | None:
    columns = ", ".join(f"m.{column}" for column in _MERCHANT.split(", "))
    rows = await fetch(
        tx, f"SELECT {columns} FROM books b JOIN merchants m ON m.merchant_id = b.merchant_id WHERE b.book_id = $1", book_id
    )
    return Merchant(**rows[0]) if rows else None


async def list_keys(tx: Tx, merchant_id: UUID) -> list[KeyShown]:
    """Every key the merchant ever had, oldest first; never with its secret."""
    rows = await fetch(
        tx, f"SELECT {_KEY_SHOWN} FROM api_keys WHERE merchant_id = $1 ORDER BY created_at, key_id", merchant_id
    )
    return [_shown(row) for row in rows]


async def get_key(tx: Tx, key_id: str) -> KeyShown:
    """Raises NotFound."""
    rows = await fetch(tx, f"SELECT {_KEY_SHOWN} FROM api_keys WHERE key_id = $1", key_id)
    if not rows:
        raise NotFound("no such key")
    return _shown(rows[0])


def _shown(row: Row) -> KeyShown:
    return KeyShown(**{**dict(row), "scopes": tuple(row["scopes"]), "cidrs": tuple(row["cidrs"])})


async def find_key_rows(tx: Tx, key_ids: Sequence[str]) -> dict[str, Row]:
    """What is needed to verify with these keys, still sealed; see `open_key`."""
    return {row["key_id"]: row for row in await fetch(tx, _KEYS, list(key_ids))}


def open_key(keyring: Keyring, row: Row) -> Key:
    """A row of `find_key_rows` with its secret opened. Raises CryptoError when the row was tampered with."""
    sealed = row["secret_sealed"]
    return Key(
        key_id=row["key_id"],
        merchant_id=row["merchant_id"],
        merchant_name=row["name"],
        merchant_active=row["status"] == "active",
        book_id=row["book_id"],
        environment=row["environment"],
        level=row["level"],
        currency=row["currency"],
        algorithm=row["algorithm"],
        secret=None if sealed is None else keyring.open(sealed, secret_aad(row["key_id"])),
        public_key=row["public_key"],
        scopes=frozenset(row["scopes"]),
        networks=rules.parse_networks(row["cidrs"]),
        not_before=row["not_before"],
        expires_at=row["expires_at"],
        revoked_at=row["revoked_at"],
        reads_per_s=row["reads_per_s"],
        writes_per_s=row["writes_per_s"],
    )


def secret_aad(key_id: str) -> bytes:
    """What an API secret is bound to."""
    return b"api_keys.secret:" + key_id.encode()


def delivery_aad(kid: str) -> bytes:
    """What a delivery key is bound to."""
    return b"delivery_keys.key:" + kid.encode()


async def find_delivery_key(tx: Tx, keyring: Keyring, book_id: int) -> tuple[str, bytes] | None:
    """kid and the 32 bytes of the newest delivery key of this book that is not revoked."""
    rows = await fetch(
        tx,
        "SELECT kid, key_sealed FROM delivery_keys WHERE book_id = $1 AND revoked_at IS NULL ORDER BY kid DESC LIMIT 1",
        book_id,
    )
    if not rows:
        return None
    return rows[0]["kid"], keyring.open(rows[0]["key_sealed"], delivery_aad(rows[0]["kid"]))


async def list_delivery_keys(tx: Tx, book_id: int) -> list[DeliveryKeyShown]:
    """Newest first, without their bytes."""
    rows = await fetch(
        tx,
        "SELECT kid, book_id, revoked_at, created_at FROM delivery_keys WHERE book_id = $1 ORDER BY kid DESC",
        book_id,
    )
    return [DeliveryKeyShown(**row) for row in rows]
