"""Letting merchants in, giving them keys, and taking keys away.

A secret leaves this module once, in the answer to the action that made it; what stays is sealed and bound to its key id.
"""

import base64
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from kameng_api.kit.crypto import KEY_BYTES, Keyring
from kameng_api.kit.db import Tx, execute, fetch
from kameng_api.kit.errors import FieldError, Invalid, NotFound
from kameng_api.kit.ids import new_ulid, public_id, ulid_text
from kameng_api.merchants import queries, rules
from kameng_api.merchants.errors import NameTaken, TooManyKeys
from kameng_api.merchants.queries import KeyShown, Merchant

OpenBook = Callable[[Tx, int, str], Awaitable[None]]
"""`ledger.actions.open_book(tx, book_id, currency)`: the ledger stands on the same floor, so it is handed in."""

_FIRST_BOOK = 16  # the books below are the house's
_BOOKS_LOCK = 0x6B6D_0001  # two merchants made at once take their numbers one after the other


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key just made. `secret` is shown now or never; None for Ed25519, whose secret we never see."""

    key: KeyShown
    secret: str | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class NewDeliveryKey:
    """A delivery key just made: 32 bytes of ASCII, shown now or never."""

    kid: str
    key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Terms:
    """What a key may do, from where, when and how fast. Rates per second; None: the deployment's default."""

    scopes: Sequence[str] = rules.DEFAULT_SCOPES
    cidrs: Sequence[str] = ()
    label: str = ""
    not_before: datetime | None = None
    expires_at: datetime | None = None
    reads_per_s: int | None = None
    writes_per_s: int | None = None


async def create_merchant(
    tx: Tx,
    *,
    name: str,
    open_book: OpenBook,
    level: str = "standard",
    currency: str = "CNY",
    timezone: str = "Asia/Shanghai",
    low_balance_at: int | None = None,
) -> Merchant:
    """A merchant with a live and a test book, both empty. Raises Invalid, NameTaken."""
    errors = rules.check_merchant(name, level, currency, timezone)
    if errors:
        raise Invalid("a merchant cannot look like this", errors=errors)
    await execute(tx, "SELECT pg_advisory_xact_lock($1)", _BOOKS_LOCK)
    if await queries.find_merchant_by_name(tx, name) is not None:
        raise NameTaken("another merchant has this name")
    merchant_id = new_ulid()
    await execute(
        tx,
        "INSERT INTO merchants (merchant_id, name, level, currency, timezone, low_balance_at) VALUES ($1, $2, $3, $4, $5, $6)",
        merchant_id, name, level, currency, timezone, low_balance_at,
    )  # fmt: skip
    [last] = await fetch(tx, "SELECT greatest(max(book_id) + 1, $1) AS next FROM books", _FIRST_BOOK)
    for book_id, environment in enumerate(rules.ENVIRONMENTS, start=last["next"]):
        await execute(tx, "INSERT INTO books VALUES ($1, $2, $3)", book_id, merchant_id, environment)
        await open_book(tx, book_id, currency)
    return await queries.get_merchant(tx, merchant_id)


async def suspend(tx: Tx, merchant_id: UUID) -> Merchant:
    """Refuse every request of this merchant from now on (within 5 s). Orders already accepted go on. Raises NotFound."""
    return await _set_status(tx, merchant_id, "suspended")


async def resume(tx: Tx, merchant_id: UUID) -> Merchant:
    """Let a suspended merchant in again. Raises NotFound."""
    return await _set_status(tx, merchant_id, "active")


async def _set_status(tx: Tx, merchant_id: UUID, status: str) -> Merchant:
    await execute(tx, "UPDATE merchants SET status = $2 WHERE merchant_id = $1", merchant_id, status)
    return await queries.get_merchant(tx, merchant_id)


async def set_level(tx: Tx, merchant_id: UUID, level: str) -> Merchant:
    """Move the merchant to another price level (会员等级). Raises NotFound, Invalid."""
    merchant = await queries.get_merchant(tx, merchant_id)
    errors = rules.check_merchant(merchant.name, level, merchant.currency, merchant.timezone)
    if errors:
        raise Invalid("there is no such level", errors=errors)
    await execute(tx, "UPDATE merchants SET level = $2 WHERE merchant_id = $1", merchant_id, level)
    return await queries.get_merchant(tx, merchant_id)


async def set_timezone(tx: Tx, merchant_id: UUID, timezone: str) -> Merchant:
    """When the merchant's business day ends, from the next statement on. Raises NotFound, Invalid."""
    merchant = await queries.get_merchant(tx, merchant_id)
    errors = rules.check_merchant(merchant.name, merchant.level, merchant.currency, timezone)
    if errors:
        raise Invalid("there is no such time zone", errors=errors)
    await execute(tx, "UPDATE merchants SET timezone = $2 WHERE merchant_id = $1", merchant_id, timezone)
    return await queries.get_merchant(tx, merchant_id)


async def create_hmac_key(
    tx: Tx, keyring: Keyring, merchant_id: UUID, environment: str, terms: Terms | None = None
) -> NewKey:
    """A key whose secret both sides hold. Raises NotFound, Invalid, TooManyKeys."""
    secret = f"sk_{environment}_" + base64.urlsafe_b64encode(os.urandom(32)).rstrip(b"=").decode()
    key_id = f"ak_{environment}_{ulid_text(new_ulid())}"
    sealed = keyring.seal(secret.encode(), queries.secret_aad(key_id))
    key = await _insert_key(tx, key_id, merchant_id, environment, terms or Terms(), "hmac", sealed, None)
    return NewKey(key, secret)


async def create_ed25519_key(
    tx: Tx, merchant_id: UUID, environment: str, public_key: bytes, terms: Terms | None = None
) -> NewKey:
    """A key whose secret only the merchant holds; `public_key` is 32 bytes. Raises NotFound, Invalid, TooManyKeys."""
    if not _is_public_key(public_key):
        raise Invalid(
            "the public key cannot be used",
            errors=[FieldError("/public_key", "format", "base64 of the 32 bytes of an Ed25519 public key")],
        )
    key_id = f"ak_{environment}_{ulid_text(new_ulid())}"
    key = await _insert_key(tx, key_id, merchant_id, environment, terms or Terms(), "ed25519", None, public_key)
    return NewKey(key, None)


# Points of small order: a signature under them proves nothing, whoever made it.
_SMALL_ORDER = frozenset(
    bytes.fromhex(point)
    for point in (
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "0000000000000000000000000000000000000000000000000000000000000080",
        "0100000000000000000000000000000000000000000000000000000000000080",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    )
)


def _is_public_key(public_key: bytes) -> bool:
    if len(public_key) != KEY_BYTES or public_key in _SMALL_ORDER:
        return False
    try:
        Ed25519PublicKey.from_public_bytes(public_key)
    except ValueError:
        return False
    return True


async def _insert_key(
    tx: Tx,
    key_id: str,
    merchant_id: UUID,
    environment: str,
    terms: Terms,
    algorithm: str,
    secret_sealed: bytes | None,
    public_key: bytes | None,
) -> KeyShown:
    errors = rules.check_key(
        environment, terms.scopes, terms.cidrs, terms.label, terms.not_before, terms.expires_at,
        (terms.reads_per_s, terms.writes_per_s),
    )  # fmt: skip
    if errors:
        raise Invalid("a key cannot look like this", errors=errors)
    book_id = await queries.get_book(tx, merchant_id, environment)
    await execute(tx, "SELECT 1 FROM merchants WHERE merchant_id = $1 FOR NO KEY UPDATE", merchant_id)
    [active] = await fetch(
        tx,
        "SELECT count(*) AS keys FROM api_keys WHERE book_id = $1 AND merchant_id = $2 AND revoked_at IS NULL "
        "AND (expires_at IS NULL OR expires_at > now())",
        book_id,
        merchant_id,
    )
    if active["keys"] >= rules.MAX_ACTIVE_KEYS:
        raise TooManyKeys(f"at most {rules.MAX_ACTIVE_KEYS} active keys per environment; revoke one first")
    await execute(
        tx,
        "INSERT INTO api_keys (key_id, merchant_id, book_id, environment, algorithm, secret_sealed, public_key, scopes, cidrs, "
        "label, not_before, expires_at, reads_per_s, writes_per_s) "
        "VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)",
        key_id, merchant_id, book_id, environment, algorithm, secret_sealed, public_key, sorted(set(terms.scopes)),
        list(terms.cidrs), terms.label, terms.not_before, terms.expires_at, terms.reads_per_s, terms.writes_per_s,
    )  # fmt: skip
    return await queries.get_key(tx, key_id)


async def rotate_key(tx: Tx, keyring: Keyring, key_id: str, *, public_key: bytes | None = None) -> NewKey:
    """A second key with the terms of the first, which stays valid until it is revoked. Ed25519 needs the new public key.

    Raises NotFound, also for a revoked key; Invalid; TooManyKeys.
    """
    old = await queries.get_key(tx, key_id)
    if old.revoked_at is not None:
        raise NotFound("no such key")
    terms = Terms(
        old.scopes, old.cidrs, old.label, old.not_before, old.expires_at, old.reads_per_s, old.writes_per_s
    )
    if old.algorithm == "hmac":
        return await create_hmac_key(tx, keyring, old.merchant_id, old.environment, terms)
    return await create_ed25519_key(tx, old.merchant_id, old.environment, public_key or b"", terms)


async def revoke_key(tx: Tx, key_id: str) -> KeyShown:
    """End a key for good, everywhere within 5 s. Again: nothing changes. Raises NotFound."""
    await execute(tx, "UPDATE api_keys SET revoked_at = now() WHERE key_id = $1 AND revoked_at IS NULL", key_id)
    return await queries.get_key(tx, key_id)


async def create_delivery_key(tx: Tx, keyring: Keyring, merchant_id: UUID, environment: str) -> NewDeliveryKey:
    """The key under which card codes are shown from now on; older ones stay readable until revoked. Raises NotFound."""
    book_id = await queries.get_book(tx, merchant_id, environment)
    kid = public_id("dk", new_ulid())
    key = base64.urlsafe_b64encode(os.urandom(24))  # 32 ASCII bytes, as the contract's vector: merchants use the text as it is
    await execute(
        tx,
        "INSERT INTO delivery_keys (kid, book_id, key_sealed) VALUES ($1, $2, $3)",
        kid,
        book_id,
        keyring.seal(key, queries.delivery_aad(kid)),
    )
    return NewDeliveryKey(kid, key)


async def revoke_delivery_key(tx: Tx, kid: str) -> None:
    """Never show codes under this key again. Again: nothing changes. Raises NotFound."""
    if not await execute(tx, "UPDATE delivery_keys SET revoked_at = coalesce(revoked_at, now()) WHERE kid = $1", kid):
        raise NotFound("no such key")


async def record_use(tx: Tx, used: Mapping[str, datetime]) -> None:
    """Note when keys were used last, many at a time; a key that a concurrent writer holds is left to the next round."""
    await execute(
        tx,
        """
        UPDATE api_keys k SET last_used_at = u.at
        FROM (
          SELECT held.key_id, wanted.at FROM unnest($1::text[], $2::timestamptz[]) AS wanted (key_id, at)
          JOIN api_keys held ON held.key_id = wanted.key_id
          ORDER BY held.key_id FOR NO KEY UPDATE OF held SKIP LOCKED
        ) AS u
        WHERE k.key_id = u.key_id AND (k.last_used_at IS NULL OR k.last_used_at < u.at)
        """,
        list(used),
        list(used.values()),
    )
