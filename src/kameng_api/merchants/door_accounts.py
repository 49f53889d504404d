"""Accounts at the doors: made, changed, rotated and switched off by operators; read by the doors and by the job that calls back.

The secrets leave this module once, in the answer to the action that made them; what stays is sealed and bound to its row.
"""

import base64
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import orjson

from kameng_api.kit import log
from kameng_api.kit.crypto import CryptoError, Keyring
from kameng_api.kit.db import Tx, execute, fetch
from kameng_api.kit.errors import FieldError, Invalid, NotFound
from kameng_api.kit.ids import new_ulid, public_id
from kameng_api.merchants import queries, rules
from kameng_api.merchants.door_rules import Account, DoorAccount, check_account, read_sold
from kameng_api.merchants.errors import NameTaken

PREFIX: Final = "dac"
_log = log.get()
_SHOWN = (
    "a.account_id, a.book_id, b.merchant_id, b.environment, a.door, a.account, a.settings::text AS settings, a.products::text AS products, "
    "a.own_skus, a.cidrs, a.reads_per_s, a.writes_per_s, a.label, a.enabled, a.created_at, a.updated_at"
)
_FROM = "FROM door_accounts a JOIN books b ON b.book_id = a.book_id"
_OPENED = f"""
SELECT {_SHOWN}, a.secrets_sealed, m.name, m.status, m.level, m.currency {_FROM} JOIN merchants m ON m.merchant_id = b.merchant_id
"""


@dataclass(frozen=True, slots=True)
class AccountShown:
    """An account as it may be shown: everything but the secrets."""

    account_id: UUID
    book_id: int
    merchant_id: UUID
    environment: str
    door: str
    account: str
    settings: Mapping[str, str]
    products: Mapping[str, Mapping[str, str]]
    own_skus: bool
    cidrs: tuple[str, ...]
    reads_per_s: int | None
    writes_per_s: int | None
    label: str
    enabled: bool
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class NewAccount:
    """An account just made or rotated. `secrets` are shown now or never."""

    account: AccountShown
    secrets: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True, slots=True)
class AccountTerms:
    """What an account means and may do. `products`: their number → {"sku", "face_value"?}. Rates per second; None: the deployment's."""

    settings: Mapping[str, str] = field(default_factory=dict)
    products: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    own_skus: bool = True
    cidrs: Sequence[str] = ()
    reads_per_s: int | None = None
    writes_per_s: int | None = None
    label: str = ""


def made_secret(length: int) -> str:
    """`length` random characters of base64url."""
    return base64.urlsafe_b64encode(os.urandom(length)).decode()[:length]


async def create(
    tx: Tx, keyring: Keyring, merchant_id: UUID, environment: str, door: str, account: str, secrets: Mapping[str, str], terms: AccountTerms
) -> NewAccount:
    """An account, enabled at once. What the door itself asks of secrets and settings has been checked by the caller.

    Raises NotFound, Invalid, NameTaken: another account of this door, of whatever merchant, has this name.
    """
    _check(account, secrets, terms)
    if environment not in rules.ENVIRONMENTS:
        raise Invalid(errors=[FieldError("/environment", "unknown_value", " | ".join(rules.ENVIRONMENTS))])
    book_id = await queries.get_book(tx, merchant_id, environment)
    account_id = new_ulid()
    made = await execute(
        tx,
        """INSERT INTO door_accounts (book_id, account_id, door, account, secrets_sealed, settings, products, own_skus, cidrs, reads_per_s,
          writes_per_s, label)
        VALUES ($1, $2, $3, $4, $5, $6::text::jsonb, $7::text::jsonb, $8, $9, $10, $11, $12) ON CONFLICT (door, account) DO NOTHING""",
        book_id, account_id, door, account, _sealed(keyring, account_id, secrets), *_columns(terms),
    )  # fmt: skip
    if not made:
        raise NameTaken("another account of this door has this name")
    return NewAccount(await get(tx, account_id), dict(secrets))


async def change(tx: Tx, account_id: UUID, terms: AccountTerms) -> AccountShown:
    """Replace the terms; secrets and switch stay. Raises NotFound, Invalid."""
    found = await get(tx, account_id)
    _check(found.account, {}, terms)
    await execute(
        tx,
        """UPDATE door_accounts SET settings = $2::text::jsonb, products = $3::text::jsonb, own_skus = $4, cidrs = $5, reads_per_s = $6,
          writes_per_s = $7, label = $8, updated_at = now() WHERE account_id = $1""",
        account_id, *_columns(terms),
    )  # fmt: skip
    return await get(tx, account_id)


async def rotate(tx: Tx, keyring: Keyring, account_id: UUID, secrets: Mapping[str, str]) -> NewAccount:
    """Other secrets from now on, everywhere within 3 s; the old ones end with it. Raises NotFound, Invalid."""
    found = await get(tx, account_id)
    _check(found.account, secrets, AccountTerms())
    await execute(
        tx, "UPDATE door_accounts SET secrets_sealed = $2, updated_at = now() WHERE account_id = $1",
        account_id, _sealed(keyring, account_id, secrets),
    )  # fmt: skip
    return NewAccount(await get(tx, account_id), dict(secrets))


async def switch(tx: Tx, account_id: UUID, *, enabled: bool) -> AccountShown:
    """Off: the door answers as to a stranger, within 3 s everywhere; orders already placed go on. Raises NotFound.

    On: the caller takes up in the same transaction what was held for it meanwhile (`webhooks.actions.take_up_held`).
    """
    if not await execute(tx, "UPDATE door_accounts SET enabled = $2, updated_at = now() WHERE account_id = $1", account_id, enabled):
        raise NotFound("no such door account")
    return await get(tx, account_id)


async def is_off(tx: Tx, book_id: int, account_id: UUID) -> bool:
    """Whether the account is off, and stays so until `tx` ends: what is held for it now is seen by whoever switches it on."""
    rows = await fetch(tx, "SELECT enabled FROM door_accounts WHERE book_id = $1 AND account_id = $2 FOR SHARE", book_id, account_id)
    return not rows or not rows[0]["enabled"]


def _check(account: str, secrets: Mapping[str, str], terms: AccountTerms) -> None:
    errors = check_account(account, secrets, terms.products, terms.cidrs, (terms.reads_per_s, terms.writes_per_s))
    errors += rules.check_key("test", ("orders:read",), terms.cidrs, terms.label, None, None, ())
    if errors:
        raise Invalid("a door account cannot look like this", errors=errors)


def _columns(terms: AccountTerms) -> tuple[Any, ...]:
    return (
        orjson.dumps(terms.settings).decode(), orjson.dumps(terms.products).decode(), terms.own_skus, list(terms.cidrs), terms.reads_per_s,
        terms.writes_per_s, terms.label,
    )  # fmt: skip


def _sealed(keyring: Keyring, account_id: UUID, secrets: Mapping[str, str]) -> bytes:
    return keyring.seal(orjson.dumps(dict(secrets)), _binding(account_id))


def _binding(account_id: UUID) -> bytes:
    """What the secrets of an account are bound to."""
    return b"door_accounts.secrets:" + account_id.bytes


async def get(tx: Tx, account_id: UUID) -> AccountShown:
    """Raises NotFound."""
    rows = await fetch(tx, f"SELECT {_SHOWN} {_FROM} WHERE a.account_id = $1", account_id)
    if not rows:
        raise NotFound("no such door account")
    return _shown(rows[0])


async def list_of_merchant(tx: Tx, merchant_id: UUID) -> list[AccountShown]:
    """Oldest first, of both environments."""
    rows = await fetch(tx, f"SELECT {_SHOWN} {_FROM} WHERE b.merchant_id = $1 ORDER BY a.account_id", merchant_id)
    return [_shown(row) for row in rows]


def _shown(row: "queries.Row") -> AccountShown:
    values = dict(row.items())
    values |= {"settings": orjson.loads(row["settings"]), "products": orjson.loads(row["products"]), "cidrs": tuple(row["cidrs"])}
    return AccountShown(**values)


async def find_by_name(tx: Tx, keyring: Keyring, door: str, account: str) -> DoorAccount | None:
    """The account that a request names, with its secrets opened, also one that is switched off."""
    rows = await fetch(tx, f"{_OPENED} WHERE a.door = $1 AND a.account = $2", door, account)
    return _opened(keyring, rows[0]) if rows else None


async def find_by_ids(tx: Tx, keyring: Keyring, keys: Sequence[tuple[int, UUID]]) -> dict[tuple[int, UUID], DoorAccount]:
    """By (book, account), with their secrets opened. An account named beside another book than its own is not found.

    Nor is one whose secrets do not open, which is logged: it must not stop the others.
    """
    rows = await fetch(
        tx,
        f"{_OPENED} JOIN unnest($1::bigint[], $2::uuid[]) AS k (book_id, account_id) ON k.book_id = a.book_id AND k.account_id = a.account_id",
        [k[0] for k in keys], [k[1] for k in keys],
    )  # fmt: skip
    found: dict[tuple[int, UUID], DoorAccount] = {}
    for row in rows:
        try:
            found[row["book_id"], row["account_id"]] = _opened(keyring, row)
        except (CryptoError, ValueError, KeyError) as error:
            _log.error("door_secret_unreadable", account=public_id(PREFIX, row["account_id"]), trouble=type(error).__name__)
    return found


def _opened(keyring: Keyring, row: "queries.Row") -> DoorAccount:
    secrets = orjson.loads(keyring.open(row["secrets_sealed"], _binding(row["account_id"])))
    return DoorAccount(
        door=row["door"],
        account_id=row["account_id"],
        seen=Account(row["account"], row["environment"], row["currency"], secrets, orjson.loads(row["settings"])),
        merchant_id=row["merchant_id"],
        merchant_name=row["name"],
        merchant_active=row["status"] == "active",
        book_id=row["book_id"],
        level=row["level"],
        enabled=row["enabled"],
        networks=rules.parse_networks(row["cidrs"]),
        products={number: read_sold(sold) for number, sold in orjson.loads(row["products"]).items()},
        own_skus=row["own_skus"],
        reads_per_s=row["reads_per_s"],
        writes_per_s=row["writes_per_s"],
    )
