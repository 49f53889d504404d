"""Vendors whose list says less than the line asked for alone, or holds no such line, or has lines that cannot be read."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import pytest
from tests.factories.merchants import keyring_of

from kameng_api.catalog import actions as catalog
from kameng_api.catalog import queries as catalog_queries
from kameng_api.catalog.actions import NewChannel
from kameng_api.catalog.rules import Offer, Price, Product
from kameng_api.jobs import catalog_sync
from kameng_api.kit.db import Database, execute, fetch
from kameng_api.settings import Settings
from kameng_api.suppliers.listings import actions, queries, wishes
from kameng_api.suppliers.listings.queries import ReviewFilter, Sync
from kameng_api.suppliers.listings.rules import ListTerms
from kameng_api.suppliers.port import Answer, AnswerUnusable, Cause, NotSent, Purchase, SupplierBase, SupplierProduct, WantedField

CHANNEL = "terse"
ZONE = (WantedField("zone", "区服"),)
LINE = SupplierProduct("10", "Game", "card", 9_0000, "CNY", None, True)


class Terse(SupplierBase):
    """Its list holds `listed`; a line asked for alone is `told`, and one of `odd` cannot be read."""

    def __init__(self) -> None:
        self.listed: list[SupplierProduct] = []
        self.told: dict[str, SupplierProduct] = {}
        self.odd: set[str] = set()
        self.asked: list[str] = []
        self.products, self.product = self._products, self._product

    async def place(self, purchase: Purchase) -> Answer:
        return Answer(NotSent("nothing is sold here", Cause.OURS))

    async def _products(self) -> AsyncIterator[Sequence[SupplierProduct]]:
        yield self.listed

    async def _product(self, code: str) -> SupplierProduct | None:
        self.asked.append(code)
        if code in self.odd:
            raise AnswerUnusable("product: unreadable")
        return self.told.get(code)


@dataclass
class Reader:
    """A worker in front of this one vendor."""

    db: Database
    vendor: Terse

    async def read(self) -> Sync:
        async with self.db.transaction() as tx:
            await wishes.want_now(tx, CHANNEL, "a test")
        assert await self.work()
        async with self.db.transaction() as tx:
            return (await queries.list_syncs(tx, channel_id=CHANNEL, kind="full"))[0]

    async def hint(self, *codes: str) -> None:
        async with self.db.transaction() as tx:
            await wishes.note_hints(tx, CHANNEL, codes)

    async def work(self) -> bool | None:
        """What is due; None: nothing is."""
        async with self.db.transaction() as tx:
            claim = await actions.claim_list(tx, [], 120, 60)
        if claim is None:
            return None
        well = await catalog_sync._read_list(cast(catalog_sync.Desk, self), claim, self.vendor, fresh=False)
        async with self.db.transaction() as tx:
            await actions.give_back(tx, claim, full=claim.full, failed=not well)
        return well

    async def sell(self, code: str, **more: Any) -> None:
        async with self.db.transaction() as tx:
            await catalog.put_product(tx, Product(f"sku-{code}".replace(":", "-"), code, "card", face_value=10_0000))
            await catalog.set_price(tx, f"sku-{code}".replace(":", "-"), Price(unit_price=12_0000))
            await catalog.set_offer(tx, Offer(CHANNEL, f"sku-{code}".replace(":", "-"), code, 9_0000, **more))

    async def offer(self, code: str = "10") -> Offer:
        async with self.db.transaction() as tx:
            [found] = [o for o in await catalog_queries.list_offers(tx, channel_id=CHANNEL) if o.product_code == code]
        return found

    async def line(self, code: str = "10") -> SupplierProduct:
        async with self.db.transaction() as tx:
            return (await queries.load_known(tx, CHANNEL, [code]))[code].line

    async def hints(self) -> dict[str, int]:
        async with self.db.transaction() as tx:
            return {r["product_code"]: r["failures"] for r in await fetch(tx, "SELECT product_code, failures FROM catalog_hints")}

    async def minutes_pass(self) -> None:
        async with self.db.transaction() as tx:
            await execute(tx, "UPDATE catalog_hints SET due_at = due_at - interval '1 day'")


@pytest.fixture
async def reader(database: Database, settings: Settings) -> Reader:
    async with database.transaction() as tx:
        await catalog.create_channel(tx, keyring_of(settings), NewChannel(CHANNEL, "Terse", "simulator", "test", b"{}"))
        await wishes.set_list(tx, CHANNEL, wishes.ListWanted(True, 21_600, 3_600, 0, ListTerms()))
    return Reader(database, Terse())


async def test_a_list_that_says_less_than_the_line_alone_changes_nothing_that_is_sold(reader: Reader) -> None:
    reader.vendor.listed = [LINE]
    reader.vendor.told = {"10": replace(LINE, fields=ZONE, stock=7, min_units=1, max_units=5)}
    await reader.read()
    await reader.hint("10")
    await reader.work()
    await reader.sell("10")
    for _ in range(2):
        assert (await reader.read()).changed == 0
        assert await reader.line() == reader.vendor.told["10"]
        assert ((await reader.offer()).held, (await reader.offer()).stock) == (None, 7)
        await reader.hint("10")
        await reader.work()
        assert (await reader.offer()).held is None
    reader.vendor.told["10"] = replace(reader.vendor.told["10"], fields=(WantedField("account", "账号"),))
    await reader.hint("10")
    await reader.work()
    assert (await reader.offer()).held == "changed", "what it must really be told now is another thing"


async def test_what_a_line_asked_for_alone_tells_first_is_no_change_and_what_it_tells_next_is(reader: Reader) -> None:
    reader.vendor.listed = [LINE]
    await reader.sell("10")
    await reader.read()
    reader.vendor.told = {"10": replace(LINE, fields=ZONE)}
    await reader.hint("10")
    await reader.work()
    assert (await reader.offer()).held is None
    assert (await reader.line()).fields == ZONE
    await reader.read()
    reader.vendor.told = {"10": LINE}
    await reader.hint("10")
    await reader.work()
    assert (await reader.offer()).held == "changed"


async def test_a_line_that_had_nothing_to_be_told_and_now_has_is_another_one(reader: Reader) -> None:
    reader.vendor.listed, reader.vendor.told = [LINE], {"10": LINE}
    await reader.sell("10")
    await reader.read()
    await reader.hint("10")
    await reader.work()
    reader.vendor.told = {"10": replace(LINE, fields=ZONE)}
    await reader.hint("10")
    await reader.work()
    assert (await reader.offer()).held == "changed"


async def test_what_was_sold_out_is_asked_for_again_where_the_list_does_not_tell_stock(reader: Reader) -> None:
    reader.vendor.listed = [LINE]
    reader.vendor.told = {"10": replace(LINE, stock=0)}
    await reader.sell("10")
    await reader.read()
    await reader.hint("10")
    await reader.work()
    assert (await reader.offer()).stock == 0
    await reader.read()
    assert (await reader.offer()).stock == 0, "a list that does not tell does not say that there is some"
    reader.vendor.told["10"] = replace(LINE, stock=3)
    await reader.read()
    assert (await reader.offer()).stock == 3
    reader.vendor.asked.clear()
    await reader.read()
    assert reader.vendor.asked == [], "what is not sold out is not asked for one by one"


async def test_where_a_list_tells_stock_none_means_that_there_is_no_limit(reader: Reader) -> None:
    other = replace(LINE, product_code="11", stock=4)
    reader.vendor.listed = [replace(LINE, stock=0), other]
    await reader.sell("10")
    await reader.read()
    assert (await reader.offer()).stock == 0
    reader.vendor.listed = [LINE, other]
    await reader.read()
    assert (await reader.offer()).stock is None


async def test_lines_that_are_only_told_alone_are_not_missed_in_the_list_and_kept_up_to_date(reader: Reader) -> None:
    reader.vendor.listed = [LINE]
    await reader.read()
    codes = [f"10:{n}" for n in range(6)]
    reader.vendor.told = {code: replace(LINE, product_code=code) for code in codes}
    await reader.hint(*codes)
    await reader.work()
    await reader.sell("10:1")
    await reader.sell("10:2")
    reader.vendor.told["10:1"] = replace(LINE, product_code="10:1", cost=9_1000)
    del reader.vendor.told["10:2"]
    reader.vendor.asked.clear()
    read = await reader.read()
    assert (read.state, read.gone) == ("done", 1)
    assert sorted(reader.vendor.asked) == ["10:1", "10:2"], "only what is sold"
    assert ((await reader.offer("10:1")).unit_cost, (await reader.offer("10:2")).held) == (9_1000, "gone")
    assert (await reader.line("10:5")).product_code == "10:5"


async def test_lines_that_the_list_once_held_are_still_missed(reader: Reader) -> None:
    reader.vendor.listed = [replace(LINE, product_code=str(n)) for n in range(10)]
    await reader.read()
    reader.vendor.told = {one.product_code: one for one in reader.vendor.listed}
    await reader.hint(*reader.vendor.told)
    await reader.work()
    reader.vendor.listed = reader.vendor.listed[:5]
    assert (await reader.read()).state == "stopped"


async def test_a_line_that_cannot_be_read_keeps_no_other_waiting(reader: Reader) -> None:
    reader.vendor.listed = [LINE]
    await reader.read()
    reader.vendor.odd = {"00"}
    reader.vendor.told = {"10": replace(LINE, cost=9_2000)}
    await reader.sell("10")
    await reader.hint("00")
    await reader.hint("10")
    assert await reader.work() is True
    assert (await reader.offer()).unit_cost == 9_2000
    assert await reader.hints() == {"00": 1}
    assert await reader.work() is None, "not again at once"
    await reader.minutes_pass()
    assert await reader.work() is True
    assert await reader.hints() == {"00": 2}
    await reader.minutes_pass()
    reader.vendor.odd = set()
    assert await reader.work() is True
    assert await reader.hints() == {}


async def test_a_vendor_that_answers_nothing_is_left_alone_after_a_few(reader: Reader) -> None:
    reader.vendor.listed = [LINE]
    await reader.read()
    codes = [f"{n:02d}" for n in range(20)]
    reader.vendor.odd = set(codes)
    await reader.hint(*codes)
    assert await reader.work() is False
    assert len(reader.vendor.asked) == catalog_sync._TROUBLES_IN_A_ROW < len(codes)
    assert sorted(await reader.hints()) == codes
    async with reader.db.transaction() as tx:
        [sync] = await queries.list_syncs(tx, channel_id=CHANNEL, kind="hints")
        assert await queries.list_reviews(tx, ReviewFilter(channel_id=CHANNEL, kind="gone")) == []
    assert (sync.state, sync.trouble) == ("failed", "product: unreadable")
