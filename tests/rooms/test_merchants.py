"""Merchants, their books and keys, on a real database."""

import asyncio
import base64
import re
from datetime import timedelta
from typing import Any

import pytest
from tests.factories.merchants import keyring_of, make_merchant

from kameng_api.kit.clock import utc_now
from kameng_api.kit.crypto import CryptoError, Keyring
from kameng_api.kit.db import Database, execute, fetch
from kameng_api.kit.errors import Invalid, NotFound
from kameng_api.kit.ids import new_ulid
from kameng_api.kit.signing import ed25519_public_key
from kameng_api.ledger import actions as ledger
from kameng_api.ledger import queries as books
from kameng_api.merchants import actions, queries
from kameng_api.merchants.actions import Terms
from kameng_api.merchants.errors import NameTaken, TooManyKeys
from kameng_api.merchants.queries import Merchant
from kameng_api.merchants.rules import MAX_ACTIVE_KEYS
from kameng_api.settings import Settings


async def create(db: Database, name: str = "Corner shop", **parts: Any) -> Merchant:
    async with db.transaction() as tx:
        return await actions.create_merchant(tx, name=name, open_book=ledger.open_book, **parts)


async def test_a_merchant_begins_with_two_empty_books(database: Database) -> None:
    merchant = await create(database)
    assert (merchant.status, merchant.level, merchant.currency) == ("active", "standard", "CNY")
    async with database.transaction() as tx:
        live = await queries.get_book(tx, merchant.merchant_id, "live")
        test = await queries.get_book(tx, merchant.merchant_id, "test")
        assert {live, test} == {16, 17}
        for book_id in (live, test):
            balance = await books.get_balance(tx, book_id, "CNY")
            assert (balance.available, balance.held, balance.credit_limit) == (0, 0, 0)
        found = await queries.find_merchant_of_book(tx, test)
        assert found == merchant


async def test_merchants_made_at_once_get_books_of_their_own(database: Database) -> None:
    merchants = await asyncio.gather(*(create(database, f"shop {n}") for n in range(12)))
    async with database.transaction() as tx:
        rows = await fetch(tx, "SELECT book_id FROM books WHERE merchant_id IS NOT NULL ORDER BY book_id")
        listed = await queries.list_merchants(tx, after=None, limit=100)
        page = await queries.list_merchants(tx, after=listed[4].merchant_id, limit=3)
    assert [r["book_id"] for r in rows] == list(range(16, 40))
    assert {m.merchant_id for m in listed} == {m.merchant_id for m in merchants}
    assert page == listed[5:8]


async def test_a_name_serves_one_merchant(database: Database) -> None:
    await create(database)
    with pytest.raises(NameTaken):
        await create(database)
    answers = await asyncio.gather(*(create(database, "Other") for _ in range(5)), return_exceptions=True)
    assert sum(isinstance(a, Merchant) for a in answers) == 1


@pytest.mark.parametrize(
    ("parts", "pointer"),
    [
        ({"name": ""}, "/name"), ({"name": " x"}, "/name"), ({"name": "a\nb"}, "/name"), ({"name": "x" * 101}, "/name"),
        ({"level": "Gold!"}, "/level"), ({"currency": "cny"}, "/currency"), ({"timezone": "Moon/Base"}, "/timezone"),
    ],
)  # fmt: skip
async def test_a_merchant_that_cannot_be_is_refused(database: Database, parts: dict[str, Any], pointer: str) -> None:
    with pytest.raises(Invalid) as refused:
        await create(database, **parts)
    assert [e.pointer for e in refused.value.errors] == [pointer]
    async with database.transaction() as tx:
        assert await queries.list_merchants(tx, after=None, limit=10) == []


async def test_a_secret_is_shown_once_and_sealed_to_its_key(database: Database, settings: Settings) -> None:
    keyring, merchant = keyring_of(settings), await create(database)
    async with database.transaction() as tx:
        one = await actions.create_hmac_key(tx, keyring, merchant.merchant_id, "live")
        two = await actions.create_hmac_key(tx, keyring, merchant.merchant_id, "live")
        assert one.secret is not None and two.secret is not None
        rows = await queries.find_key_rows(tx, [one.key.key_id, two.key.key_id, "ak_live_nobody"])
        shown = await queries.list_keys(tx, merchant.merchant_id)
    assert re.fullmatch(r"sk_live_[A-Za-z0-9_-]{43}", one.secret)
    assert re.fullmatch(r"ak_live_[0-9A-HJKMNP-TV-Z]{26}", one.key.key_id)
    assert set(rows) == {one.key.key_id, two.key.key_id}
    assert queries.open_key(keyring, rows[one.key.key_id]).secret == one.secret.encode()
    assert one.secret not in repr(one) and one.secret.encode() not in bytes(rows[one.key.key_id]["secret_sealed"])
    assert [k.key_id for k in shown] == [one.key.key_id, two.key.key_id]
    async with database.transaction() as tx:
        await execute(
            tx, "UPDATE api_keys SET secret_sealed = $2 WHERE key_id = $1", one.key.key_id, rows[two.key.key_id]["secret_sealed"]
        )
        moved = await queries.find_key_rows(tx, [one.key.key_id])
    with pytest.raises(CryptoError):
        queries.open_key(keyring, moved[one.key.key_id])


async def test_a_secret_opens_after_the_sealing_key_was_replaced(database: Database, settings: Settings) -> None:
    merchant = await create(database)
    old, new = b"o" * 32, b"n" * 32
    async with database.transaction() as tx:
        made = await actions.create_hmac_key(tx, Keyring({"old": old}, "old"), merchant.merchant_id, "test")
        [row] = (await queries.find_key_rows(tx, [made.key.key_id])).values()
    assert made.secret is not None
    assert queries.open_key(Keyring({"new": new, "old": old}, "new"), row).secret == made.secret.encode()


async def test_ed25519_keys_hold_no_secret(database: Database, settings: Settings) -> None:
    merchant, public = await create(database), ed25519_public_key(b"s" * 32)
    async with database.transaction() as tx:
        made = await actions.create_ed25519_key(tx, merchant.merchant_id, "test", public)
        [row] = (await queries.find_key_rows(tx, [made.key.key_id])).values()
    assert made.secret is None and row["secret_sealed"] is None and made.key.public_key == public
    for bad in (b"", public[:-1], public + b"x", bytes(32), b"\x01" + bytes(31)):
        with pytest.raises(Invalid):
            async with database.transaction() as tx:
                await actions.create_ed25519_key(tx, merchant.merchant_id, "test", bad)


@pytest.mark.parametrize(
    ("terms", "pointer"),
    [
        (Terms(scopes=["everything"]), "/scopes/0"), (Terms(scopes=[]), "/scopes"), (Terms(cidrs=["203.0.113.1/24"]), "/cidrs/0"),
        (Terms(cidrs=["anywhere"]), "/cidrs/0"), (Terms(reads_per_s=0), "/writes_per_s"), (Terms(label="x" * 101), "/label"),
        (Terms(not_before=utc_now(), expires_at=utc_now() - timedelta(days=1)), "/expires_at"),
    ],
)  # fmt: skip
async def test_a_key_that_cannot_be_is_refused(database: Database, settings: Settings, terms: Terms, pointer: str) -> None:
    merchant = await create(database)
    with pytest.raises(Invalid) as refused:
        async with database.transaction() as tx:
            await actions.create_hmac_key(tx, keyring_of(settings), merchant.merchant_id, "test", terms)
    assert pointer in [e.pointer for e in refused.value.errors]
    with pytest.raises(NotFound):
        async with database.transaction() as tx:
            await actions.create_hmac_key(tx, keyring_of(settings), new_ulid(), "test")


async def test_keys_per_merchant_have_a_limit_that_revoking_frees(database: Database, settings: Settings) -> None:
    merchant, keyring = await create(database), keyring_of(settings)
    async with database.transaction() as tx:
        keys = [await actions.create_hmac_key(tx, keyring, merchant.merchant_id, "test") for _ in range(MAX_ACTIVE_KEYS)]
    with pytest.raises(TooManyKeys):
        async with database.transaction() as tx:
            await actions.create_hmac_key(tx, keyring, merchant.merchant_id, "test")
    async with database.transaction() as tx:
        await actions.create_hmac_key(tx, keyring, merchant.merchant_id, "live")
        await actions.revoke_key(tx, keys[0].key.key_id)
        await actions.create_hmac_key(tx, keyring, merchant.merchant_id, "test")


async def test_rotation_keeps_the_terms_and_revocation_keeps_its_first_time(database: Database, settings: Settings) -> None:
    keyring = keyring_of(settings)
    terms = Terms(scopes=["orders:read"], cidrs=["203.0.113.0/24"], label="pos 7", reads_per_s=9, writes_per_s=8)
    holder = await make_merchant(database, settings, terms=terms)
    async with database.transaction() as tx:
        new = (await actions.rotate_key(tx, keyring, holder.key.key_id)).key
        assert new.key_id != holder.key.key_id
        assert (new.scopes, new.cidrs, new.label, new.reads_per_s, new.writes_per_s) == (
            ("orders:read",), ("203.0.113.0/24",), "pos 7", 9, 8,
        )  # fmt: skip
        first = await actions.revoke_key(tx, holder.key.key_id)
    async with database.transaction() as tx:
        again = await actions.revoke_key(tx, holder.key.key_id)
        assert first.revoked_at is not None and again.revoked_at == first.revoked_at
        for key_id in (holder.key.key_id, "ak_test_nobody"):
            with pytest.raises(NotFound):
                await actions.rotate_key(tx, keyring, key_id)


async def test_the_newest_delivery_key_that_stands_is_used(database: Database, settings: Settings) -> None:
    merchant, keyring = await create(database), keyring_of(settings)
    async with database.transaction() as tx:
        book_id = await queries.get_book(tx, merchant.merchant_id, "test")
        assert await queries.find_delivery_key(tx, keyring, book_id) is None
        one = await actions.create_delivery_key(tx, keyring, merchant.merchant_id, "test")
        two = await actions.create_delivery_key(tx, keyring, merchant.merchant_id, "test")
        assert re.fullmatch(r"dk_[0-9A-HJKMNP-TV-Z]{26}", one.kid) and len(one.key) == 32
        assert await queries.find_delivery_key(tx, keyring, book_id) == (two.kid, two.key)
        await actions.revoke_delivery_key(tx, two.kid)
        assert await queries.find_delivery_key(tx, keyring, book_id) == (one.kid, one.key)
        live = await queries.get_book(tx, merchant.merchant_id, "live")
        assert await queries.find_delivery_key(tx, keyring, live) is None
        assert base64.b64encode(one.key).decode() not in repr(one)


async def test_uses_are_written_many_at_a_time_and_never_backwards(database: Database, settings: Settings) -> None:
    holders = [await make_merchant(database, settings) for _ in range(3)]
    now = utc_now()
    async with database.transaction() as tx:
        await actions.record_use(tx, {h.key.key_id: now for h in holders} | {"ak_test_nobody": now})
    async with database.transaction() as tx:
        await actions.record_use(tx, {holders[0].key.key_id: now - timedelta(minutes=5)})
        assert [(await queries.get_key(tx, h.key.key_id)).last_used_at for h in holders] == [now] * 3
