"""Merchants are told that their money runs low: once per crossing, again after a recovery, and not because of one burst."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import orjson
import pytest
from sqlalchemy.engine import make_url
from tests.factories.merchants import TestMerchant, give, make_merchant

from kameng_api.embedded.servers import Servers
from kameng_api.jobs import balances, upkeep
from kameng_api.kit.db import Database, fetch
from kameng_api.kit.ids import new_ulid, public_id
from kameng_api.kit.money import format_amount, parse_amount
from kameng_api.ledger import actions as ledger
from kameng_api.ledger import burning, rules
from kameng_api.ledger.forecast import Rates
from kameng_api.merchants import alerts
from kameng_api.settings import Settings

YUAN = 10_000


class House:
    """The desk of these chores, with a clock that can be turned: what was sampled is put back in time."""

    def __init__(self, db: Database, settings: Settings, owner: "asyncpg.Connection[asyncpg.Record]", merchant: TestMerchant) -> None:
        self.db, self.settings, self.merchant, self._owner = db, settings, merchant, owner

    def supplier_of(self, channel: object) -> Any:
        raise LookupError

    async def run(self, chore: Any) -> int:
        await self._owner.execute("DELETE FROM chores")
        return int(await chore(self))

    async def tell(self) -> int:
        return await self.run(balances.tell)

    async def spend(self, yuan: int) -> None:
        order = new_ulid()
        async with self.db.transaction() as tx:
            await ledger.post_one(tx, rules.hold(self.merchant.book_id, order, "CNY", yuan * YUAN))
            await ledger.post_one(tx, rules.final(self.merchant.book_id, order, "CNY", captured=yuan * YUAN, released=0))

    async def add(self, yuan: int) -> None:
        async with self.db.transaction() as tx:
            await ledger.post_one(tx, give(self.merchant.book_id, "test", str(yuan)))

    async def sample(self) -> None:
        await upkeep.roll_up(self)
        await self.run(balances.sample)

    async def let_pass(self, minutes: int) -> None:
        await self._owner.execute("UPDATE balance_samples SET at = at - make_interval(mins => $1)", minutes)

    async def limit(self, amount: str | None = None, hours_left: int | None = None) -> None:
        async with self.db.transaction() as tx:
            await alerts.set_limits(tx, self.merchant.book_id, "CNY", None if amount is None else parse_amount(amount), hours_left)

    async def mark_of_operator(self, yuan: int) -> None:
        await self._owner.execute("UPDATE merchants SET low_balance_at = $1", yuan * YUAN)

    async def events(self) -> list[dict[str, Any]]:
        async with self.db.transaction() as tx:
            rows = await fetch(tx, "SELECT body FROM events WHERE type = 'balance.low' AND book_id = $1 ORDER BY xid", self.merchant.book_id)
        return [orjson.loads(r["body"]) for r in rows]

    async def rates(self) -> Rates:
        await self.run(balances.sample)
        async with self.db.transaction() as tx:
            return await burning.find_rates(tx, self.merchant.book_id, "CNY")

    async def samples(self) -> int:
        async with self.db.transaction() as tx:
            [row] = await fetch(tx, "SELECT count(*) AS n FROM balance_samples")
        return int(row["n"])


@asynccontextmanager
async def _owner(migrated: Servers) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    connection = await asyncpg.connect(make_url(migrated.owner_url).set(drivername="postgresql").render_as_string(hide_password=False))
    try:
        yield connection
    finally:
        await connection.close()


@pytest.fixture
async def house(database: Database, settings: Settings, migrated: Servers) -> AsyncIterator[House]:
    merchant = await make_merchant(database, settings, money="1000")
    async with _owner(migrated) as owner:
        yield House(database, settings, owner, merchant)


async def test_a_crossing_is_told_once_and_again_after_a_recovery(house: House) -> None:
    await house.limit("500")
    assert await house.tell() == 0
    await house.spend(501)
    assert await house.tell() == 1
    assert await house.tell() == 0
    await house.spend(100)
    assert await house.tell() == 0  # lower still: told already
    await house.add(120)  # 519: above the limit, below a tenth more
    assert await house.tell() == 0
    await house.spend(20)
    assert await house.tell() == 0  # hovering is no second crossing
    await house.add(100)  # 599
    assert await house.tell() == 0
    await house.spend(100)
    assert await house.tell() == 1
    first, second = await house.events()
    assert first["data"]["id"] == public_id("mer", house.merchant.merchant_id)
    shown = first["data"]["object"]
    assert (shown["spendable"], shown["available"], shown["reason"], shown["amount"]) == ("499.0000", "499.0000", "amount", "500.0000")
    assert (shown["hours_left"], shown["empty_in_s"], shown["held"]) == (None, None, "0.0000")
    assert second["data"]["version"] > first["data"]["version"]
    assert second["id"] != first["id"]


async def test_two_workers_tell_once(house: House) -> None:
    await house.limit("2000")
    assert sorted([await house.tell(), await house.tell()]) == [0, 1]
    async with house.db.transaction() as tx:
        assert await alerts.mark_low(tx, [(house.merchant.book_id, "CNY", "amount")]) == set()
    assert len(await house.events()) == 1


async def test_the_credit_line_counts_as_spendable(house: House) -> None:
    await house.limit("500")
    async with house.db.transaction() as tx:
        await ledger.set_credit_line(tx, house.merchant.book_id, "CNY", 800 * YUAN)
    await house.spend(1100)
    assert await house.tell() == 0
    await house.spend(300)
    assert await house.tell() == 1
    [event] = await house.events()
    shown = event["data"]["object"]
    assert (shown["spendable"], shown["available"], shown["credit_limit"]) == ("400.0000", "-400.0000", "800.0000")


async def test_the_operators_mark_holds_until_the_merchant_sets_its_own(house: House) -> None:
    await house.mark_of_operator(1500)
    assert await house.tell() == 1
    await house.limit()  # the merchant wants to hear nothing
    assert await house.tell() == 0
    await house.limit("1001")
    assert await house.tell() == 1
    await house.limit("1001")  # the same again is nothing new
    assert await house.tell() == 0
    await house.limit("1002")
    assert await house.tell() == 1
    assert [e["data"]["object"]["amount"] for e in await house.events()] == ["1500.0000", "1001.0000", "1002.0000"]


async def _steady(house: House, steps: Sequence[int], minutes: int) -> None:
    """Samples `minutes` apart, with what was spent between them."""
    for yuan in steps:
        if yuan:
            await house.spend(yuan)
        await house.sample()
        await house.let_pass(minutes)


async def test_steady_spending_is_a_rate_and_a_burst_is_none(house: House) -> None:
    await house.add(99_000)
    await house.limit(hours_left=24)
    await _steady(house, [1] * 13, 5)
    quiet = await house.rates()
    assert quiet.last_hour == 11 * YUAN  # the twelfth piece has only begun
    await house.spend(90_000)  # one batch
    await house.sample()
    assert (await house.rates()).last_hour == quiet.last_hour + YUAN  # it counts like the others
    assert await house.tell() == 0


async def test_a_rate_that_stays_is_told_with_the_time_that_is_left(house: House) -> None:
    await house.add(29_000)
    await house.limit(hours_left=24)
    await _steady(house, [1000] * 26, 60)
    rates = await house.rates()
    assert rates.last_day == pytest.approx(1000 * YUAN * 23 / 24, abs=1)
    assert await house.tell() == 1
    [event] = await house.events()
    shown = event["data"]["object"]
    assert shown["reason"] == "hours_left" and shown["hours_left"] == 24
    assert shown["spendable"] == "4000.0000"
    assert shown["burn_rate_per_hour"]["last_day"] == "958.3333"
    assert 3 * 3600 <= shown["empty_in_s"] <= 6 * 3600
    await house.add(40_000)
    assert await house.tell() == 0
    await house.let_pass(60 * 24)
    assert (await house.rates()).last_day == 0


async def test_what_came_back_was_not_spent(house: House) -> None:
    order = new_ulid()
    await house.sample()
    async with house.db.transaction() as tx:
        await ledger.post_one(tx, rules.hold(house.merchant.book_id, order, "CNY", 10 * YUAN))
    await house.sample()
    async with house.db.transaction() as tx:
        await ledger.post_one(tx, rules.final(house.merchant.book_id, order, "CNY", captured=0, released=10 * YUAN))
    await house.sample()
    async with house.db.transaction() as tx:
        rows = await fetch(tx, "SELECT spent FROM balance_samples ORDER BY at")
    assert [format_amount(r["spent"]) for r in rows] == ["10.0000", "0.0000"]


async def test_samples_grow_sparse_with_age_and_idle_books_cost_nothing(house: House) -> None:
    await house.add(99_000)
    await _steady(house, [1] * 60, 5)
    many = await house.samples()
    assert many < 30
    for _ in range(3):
        await house.sample()
    assert await house.samples() <= many
    await house.let_pass(60 * 24 * 30)
    await house.sample()
    assert await house.samples() == 1
    assert await house.rates() == await house.rates()


async def test_many_books_are_told_in_one_round(house: House, database: Database, settings: Settings) -> None:
    for _ in range(20):
        await make_merchant(database, settings, money="10")
    await house.mark_of_operator(11)
    assert await house.tell() == 20  # not their live books, which never had any money, and not ours, which has more
