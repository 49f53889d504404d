"""The supplier desk's clocks: wallets that end, channels that paused, papers that run out; told once, and taken back when it is over."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from sqlalchemy.engine import make_url
from tests.factories.counter import Counter
from tests.factories.merchants import keyring_of

from kameng_api.catalog import actions as catalog
from kameng_api.catalog.actions import NewChannel
from kameng_api.embedded.servers import Servers
from kameng_api.jobs import supplier_desk
from kameng_api.kit.clock import utc_now
from kameng_api.kit.db import Database, fetch
from kameng_api.settings import Settings
from kameng_api.suppliers.desk import actions
from kameng_api.suppliers.desk.rules import HOME, Document
from kameng_api.suppliers.port import Delivered


@dataclass
class Desk:
    db: Database
    settings: Settings
    owner: str

    def supplier_of(self, channel: object) -> Any:
        raise LookupError

    async def run(self, chore: Any) -> Any:
        connection = await asyncpg.connect(make_url(self.owner).set(drivername="postgresql").render_as_string(hide_password=False))
        try:
            await connection.execute("DELETE FROM chores")
        finally:
            await connection.close()
        return await chore(self)

    async def alarms(self) -> dict[str, list[str]]:
        await self.run(supplier_desk.watch_suppliers)
        async with self.db.transaction() as tx:
            rows = await fetch(tx, "SELECT kind, subject FROM alarms WHERE closed_at IS NULL ORDER BY 1, 2")
        found: dict[str, list[str]] = {}
        for row in rows:
            found.setdefault(row["kind"], []).append(row["subject"])
        return found


@pytest.fixture
async def desk(database: Database, settings: Settings, migrated: Servers) -> Desk:
    async with database.transaction() as tx:
        for name in ("a", "b"):
            await catalog.create_channel(tx, keyring_of(settings), NewChannel(name, name, "simulator", "test", b"{}"))
    return Desk(database, settings, migrated.owner_url)


async def test_a_wallet_that_ends_soon_raises_an_alarm_until_it_is_refilled(desk: Desk) -> None:
    counter = await Counter.open(desk.db, desk.settings)
    _, submission = await counter.buy()
    await counter.told(submission, Delivered(1, cost=900_000))
    assert await desk.run(supplier_desk.count_burns) == 1
    async with desk.db.transaction() as tx:
        await catalog.set_wallet_terms(tx, "a", low_at=None, floor=None, resume_at=None, hours_left=12)
        await catalog.record_wallet(tx, "a", 9_000_000)  # ten hours of it
    assert await desk.alarms() == {"wallet_ends": ["a"]}
    async with desk.db.transaction() as tx:
        [row] = await fetch(tx, "SELECT detail FROM alarms")
    assert "empty in 10.0 h" in row["detail"] and "alarm below 12 h" in row["detail"]
    async with desk.db.transaction() as tx:
        await catalog.record_wallet(tx, "a", 90_000_000)
    assert await desk.alarms() == {}


async def test_a_paused_channel_is_told_of_while_it_lasts(desk: Desk) -> None:
    async with desk.db.transaction() as tx:
        await catalog.set_wallet_terms(tx, "a", low_at=None, floor=1_000_000, resume_at=5_000_000, hours_left=None)
        await catalog.record_wallet(tx, "a", 999_999)
    assert await desk.alarms() == {"wallet_paused": ["a"]}
    async with desk.db.transaction() as tx:
        [row] = await fetch(tx, "SELECT detail FROM alarms")
        assert "no new orders since" in row["detail"] and "until it holds 500.0000" in row["detail"]
        await catalog.record_wallet(tx, "a", 5_000_000)
    assert await desk.alarms() == {}


async def test_papers_are_told_of_before_and_after_they_end(desk: Desk) -> None:
    today = utc_now().astimezone(HOME).date()
    base = Document(UUID(int=0), "a", "contract", created_by="ann")
    async with desk.db.transaction() as tx:
        soon = await actions.add_document(tx, Document(**{**_values(base), "valid_until": today + timedelta(days=30)}))
        await actions.add_document(tx, Document(**{**_values(base), "valid_until": today - timedelta(days=1)}))
        await actions.add_document(tx, Document(**{**_values(base), "valid_until": today + timedelta(days=31)}))
    found = await desk.alarms()
    assert {kind: len(subjects) for kind, subjects in found.items()} == {"document_ending": 1, "document_ended": 1}
    assert found["document_ending"] == [f"a contract {str(soon.document_id)[-8:]}"]
    async with desk.db.transaction() as tx:
        for document in await fetch(tx, "SELECT document_id FROM supplier_documents"):
            await actions.withdraw_document(tx, "a", document["document_id"], "ann")
    assert await desk.alarms() == {}


async def test_a_channel_that_is_switched_off_reminds_of_nothing(desk: Desk) -> None:
    async with desk.db.transaction() as tx:
        await catalog.set_wallet_terms(tx, "a", low_at=None, floor=1_000_000, resume_at=None, hours_left=None)
        await catalog.record_wallet(tx, "a", 1)
        await actions.add_document(tx, Document(UUID(int=0), "a", "contract", valid_until=utc_now().date() - timedelta(days=9), created_by="ann"))
        await catalog.set_channel_status(tx, "a", "disabled")
    assert await desk.alarms() == {}


def _values(document: Document) -> dict[str, Any]:
    return {name: getattr(document, name) for name in ("document_id", "channel_id", "kind", "created_by")}
