"""Papers, contacts and burned wallets on a real PostgreSQL."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from uuid import UUID

import pytest
from tests.factories.counter import Counter
from tests.factories.merchants import keyring_of

from kameng_api.catalog import actions as catalog
from kameng_api.catalog import queries as channels
from kameng_api.catalog.actions import NewChannel
from kameng_api.catalog.errors import ChannelUnknown
from kameng_api.kit.clock import utc_now
from kameng_api.kit.crypto import CryptoError
from kameng_api.kit.db import Database, execute, fetch
from kameng_api.kit.errors import Invalid, NotFound, StateConflict
from kameng_api.operators import suppliers
from kameng_api.settings import Settings
from kameng_api.suppliers.desk import actions, queries
from kameng_api.suppliers.desk.rules import Document, Person
from kameng_api.suppliers.port import Delivered, RefusalReason, Refused, Scope

LICENCE = Document(UUID(int=0), "a", "telecom_licence", "B2-1", "MIIT", valid_until=date(2030, 12, 31), required=True, created_by="ann")
PDF = b"%PDF-1.7 a licence"
WANG = Person("Wang Er", "13800138000", "wx-wang", "w@example.com")


@pytest.fixture
async def shop(database: Database, settings: Settings) -> Database:
    async with database.transaction() as tx:
        for name in ("a", "b"):
            await catalog.create_channel(tx, keyring_of(settings), NewChannel(name, name, "simulator", "test", b"{}"))
    return database


async def version(db: Database) -> int:
    async with db.transaction() as tx:
        return await channels.find_version(tx)


async def test_a_channel_knows_when_its_first_required_document_ends(shop: Database) -> None:
    async with shop.transaction() as tx:
        first = await actions.add_document(tx, LICENCE)
        await actions.add_document(tx, replace(LICENCE, valid_until=date(2029, 6, 30)))
        await actions.add_document(tx, replace(LICENCE, valid_until=date(2020, 1, 1), required=False))
        assert (await channels.get_channel(tx, "a")).no_orders_after == datetime(2029, 6, 30, 16, tzinfo=UTC)
        assert (await channels.get_channel(tx, "b")).no_orders_after is None
    before = await version(shop)
    async with shop.transaction() as tx:
        await actions.change_document(tx, replace(first, note="renewed in spring"))
    assert await version(shop) == before, "processes read the catalogue again only when something about orders has changed"
    async with shop.transaction() as tx:
        for document in await queries.list_documents(tx, "a"):
            await actions.withdraw_document(tx, "a", document.document_id, "ann")
        assert (await channels.get_channel(tx, "a")).no_orders_after is None
        assert await queries.list_documents(tx, "a") == []
        assert len(await queries.list_documents(tx, "a", withdrawn=True)) == 3
        with pytest.raises(StateConflict):
            await actions.change_document(tx, first)
    assert await version(shop) > before


async def test_a_file_belongs_to_one_document_for_ever(shop: Database, settings: Settings) -> None:
    keyring = keyring_of(settings)
    async with shop.transaction() as tx:
        one, other = await actions.add_document(tx, LICENCE), await actions.add_document(tx, LICENCE)
        stored, new = await actions.store_file(tx, keyring, "a", one.document_id, PDF, "scan.pdf", "application/pdf")
        assert new and stored.file_size == len(PDF)
        assert (await actions.store_file(tx, keyring, "a", one.document_id, PDF, "scan.pdf", "application/pdf"))[1] is False
        with pytest.raises(StateConflict):
            await actions.store_file(tx, keyring, "a", one.document_id, PDF + b"!", "scan.pdf", "application/pdf")
        with pytest.raises(NotFound):
            await actions.store_file(tx, keyring, "b", one.document_id, PDF, "scan.pdf", "application/pdf")
        with pytest.raises(Invalid):
            await actions.store_file(tx, keyring, "a", other.document_id, b"#!/bin/sh", "scan.pdf", "application/pdf")
        assert await queries.open_file(tx, keyring, stored) == PDF
        with pytest.raises(NotFound):
            await queries.open_file(tx, keyring, other)
        await execute(
            tx,
            """UPDATE supplier_documents o SET file_sealed = s.file_sealed, file_hash = s.file_hash FROM supplier_documents s
            WHERE s.document_id = $1 AND o.document_id = $2""",
            one.document_id, other.document_id,
        )  # fmt: skip
        with pytest.raises(CryptoError):
            await queries.open_file(tx, keyring, other)


async def test_a_contact_is_named_only_with_the_keyring(shop: Database, settings: Settings) -> None:
    keyring = keyring_of(settings)
    async with shop.transaction() as tx:
        made = await actions.put_contact(tx, keyring, "a", None, role="finance", hours="9-18", person=WANG, by="ann")
        [blind] = await queries.list_contacts(tx, "a", None)
        assert (blind.role, blind.hours, blind.person) == ("finance", "9-18", None)
        assert (await queries.list_contacts(tx, "a", keyring))[0].person == WANG
        changed = await actions.put_contact(tx, keyring, "a", made.contact_id, role="on_duty", hours="", person=replace(WANG, im=""), by="bo")
        assert (changed.role, changed.updated_by, changed.person) == ("on_duty", "bo", replace(WANG, im=""))
        with pytest.raises(NotFound):
            await actions.put_contact(tx, keyring, "b", made.contact_id, role="on_duty", hours="", person=WANG, by="bo")
        with pytest.raises(ChannelUnknown):
            await actions.put_contact(tx, keyring, "nobody", None, role="on_duty", hours="", person=WANG, by="bo")
        await actions.remove_contact(tx, "a", made.contact_id)
        assert await queries.list_contacts(tx, "a", keyring) == []


async def test_a_balance_pauses_a_channel_and_a_refill_lets_it_go_on(shop: Database) -> None:
    async with shop.transaction() as tx:
        await catalog.set_wallet_terms(tx, "a", low_at=None, floor=1000, resume_at=5000, hours_left=None)
    for balance, paused in ((1000, False), (999, True), (4999, True), (5000, False), (1000, False), (999, True)):
        before = await version(shop)
        async with shop.transaction() as tx:
            was = (await channels.get_channel(tx, "a")).wallet_paused_at
            await catalog.record_wallet(tx, "a", balance)
            now = (await channels.get_channel(tx, "a")).wallet_paused_at
        assert (now is not None) is paused, balance
        assert await version(shop) > before, "every process hears of it"
        assert was is None or now is None or was == now, "since when is not forgotten"
    async with shop.transaction() as tx:
        await catalog.set_wallet_terms(tx, "a", low_at=None, floor=None, resume_at=None, hours_left=None)
        assert (await channels.get_channel(tx, "a")).wallet_paused_at is None, "without a floor there is no pause"
        with pytest.raises(Invalid):
            await catalog.set_wallet_terms(tx, "a", low_at=None, floor=2, resume_at=1, hours_left=None)


async def test_burns_are_counted_from_real_charges(shop: Database, settings: Settings) -> None:
    counter = await Counter.open(shop, settings)
    _, first = await counter.buy("PO-1")
    await counter.told(first, Delivered(1, cost=800_000))
    _, second = await counter.buy("PO-2")
    await counter.told(second, Refused(Scope.ORDER, RefusalReason.TARGET_INVALID))
    await counter.buy("PO-3")  # under way: its cost has left the wallet
    async with shop.transaction() as tx:
        now = utc_now()
        assert await actions.count_burns(tx, now) == 1
        [burn] = await queries.list_burns(tx, "a", now - timedelta(hours=2), now)
        assert (burn["charged"], burn["attempts"]) == (1_700_000, 2)
        rates = await queries.wallet_rates(tx, ["a", "b"])
        assert rates["b"].last_hour == 0
        assert rates["a"].last_hour == rates["a"].last_day == rates["a"].last_week == 1_700_000, "an hour old is not taken for a week"
        await catalog.record_wallet(tx, "a", 3_400_000)
    async with shop.transaction() as tx:
        wallet = (await suppliers.read_wallets(tx, [await channels.get_channel(tx, "a")]))["a"]
        assert wallet.spendable == 3_400_000 and wallet.left_s == 7200
        await execute(tx, "UPDATE attempts SET state = 'refused', refusal = 'supplier_rejected', settled_at = now() WHERE state = 'submitting'")
        assert await actions.count_burns(tx, utc_now()) == 1
        assert (await fetch(tx, "SELECT sum(charged)::bigint AS n FROM wallet_burns"))[0]["n"] == 800_000, "what is refused is not burned"


async def test_a_week_of_charges_gives_three_rates(shop: Database) -> None:
    async with shop.transaction() as tx:
        await execute(
            tx,
            """INSERT INTO wallet_burns (channel_id, hour, charged, attempts)
            SELECT 'a', date_trunc('hour', now(), 'UTC') - make_interval(hours => h), CASE WHEN h < 24 THEN 2400 ELSE 600 END, 1
            FROM generate_series(0, 500) AS h""",
        )
        rates = (await queries.wallet_rates(tx, ["a"]))["a"]
    assert 2400 <= rates.last_hour <= 4800, "the hour that has begun, and what is missing of it from the one before"
    assert rates.last_day == 2400
    assert 840 <= rates.last_week <= 870


async def test_the_overview_names_all_that_keeps_orders_away(shop: Database) -> None:
    async with shop.transaction() as tx:
        await actions.add_document(tx, replace(LICENCE, valid_until=date(2020, 1, 1)))
        await catalog.set_wallet_terms(tx, "a", low_at=None, floor=1000, resume_at=None, hours_left=None)
        await catalog.record_wallet(tx, "a", 1)
        await catalog.set_channel_status(tx, "a", "disabled")
    async with shop.transaction() as tx:
        a, b = await suppliers.list_overviews(tx, utc_now())
        assert a.why_not == ("disabled", "document_ended", "wallet_paused") and b.why_not == ()
        assert [one.kind for one in a.ended] == ["telecom_licence"] and a.ending == ()
        with pytest.raises(ChannelUnknown):
            await suppliers.list_overviews(tx, utc_now(), channel_id="nobody")
