"""Merchants with books, keys and money, made through the same actions as the operator's."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID

from kameng_api.kit.crypto import Keyring
from kameng_api.kit.db import Database
from kameng_api.kit.ids import new_ulid, ulid_text
from kameng_api.kit.money import parse_amount
from kameng_api.kit.signing import ED25519_SCHEME, HMAC_SCHEME, ed25519_public_key
from kameng_api.ledger import actions as ledger
from kameng_api.ledger import rules
from kameng_api.merchants import actions, queries
from kameng_api.merchants.actions import Terms
from kameng_api.settings import Settings


@dataclass(frozen=True)
class ApiKey:
    """What a merchant's program holds: `key` is the secret's ASCII (HMAC) or the 32-byte seed (Ed25519)."""

    key_id: str
    scheme: str
    key: bytes = field(repr=False)


@dataclass(frozen=True)
class TestMerchant:
    """A merchant with one key, and its books."""

    __test__ = False

    merchant_id: UUID
    name: str
    environment: str
    book_id: int
    key: ApiKey


def keyring_of(settings: Settings) -> Keyring:
    return Keyring(settings.kek_bytes, next(iter(settings.kek_bytes)))


async def make_merchant(
    db: Database,
    settings: Settings,
    *,
    name: str | None = None,
    environment: str = "test",
    algorithm: str = "hmac",
    money: str = "10000.0000",
    level: str = "standard",
    terms: Terms | None = None,
) -> TestMerchant:
    """A merchant with `money` (decimal text) in its book and one API key with every scope."""
    name = name or f"merchant {ulid_text(new_ulid())}"
    async with db.transaction() as tx:
        merchant = await actions.create_merchant(tx, name=name, level=level, open_book=ledger.open_book)
        book_id = await queries.get_book(tx, merchant.merchant_id, environment)
        if parse_amount(money):
            await ledger.post_one(tx, give(book_id, environment, money))
    key = await make_key(db, settings, merchant.merchant_id, environment, algorithm=algorithm, terms=terms)
    return TestMerchant(merchant.merchant_id, name, environment, book_id, key)


def give(book_id: int, environment: str, money: str) -> rules.Posting:
    """Money for a book: play money in test, a bank receipt in live."""
    number = ulid_text(new_ulid())
    if environment == "test":
        return rules.play_money(book_id, number, "CNY", parse_amount(money))
    return rules.fund_merchant(book_id, "bank", number, "CNY", parse_amount(money))


async def make_key(
    db: Database,
    settings: Settings,
    merchant_id: UUID,
    environment: str = "test",
    *,
    algorithm: str = "hmac",
    scopes: Sequence[str] | None = None,
    terms: Terms | None = None,
) -> ApiKey:
    """One more key for a merchant; without `terms` it has every scope, or `scopes`."""
    terms = terms or Terms(scopes=scopes if scopes is not None else ALL_SCOPES)
    async with db.transaction() as tx:
        if algorithm == "hmac":
            new = await actions.create_hmac_key(tx, keyring_of(settings), merchant_id, environment, terms)
            assert new.secret is not None
            return ApiKey(new.key.key_id, HMAC_SCHEME, new.secret.encode())
        seed = hashlib.sha256(str(new_ulid()).encode()).digest()
        made = await actions.create_ed25519_key(tx, merchant_id, environment, ed25519_public_key(seed), terms)
        return ApiKey(made.key.key_id, ED25519_SCHEME, seed)


ALL_SCOPES = (
    "orders:write",
    "orders:read",
    "codes:read",
    "balance:read",
    "catalog:read",
    "webhooks:write",
    "targets:read",
)
