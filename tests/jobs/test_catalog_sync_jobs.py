"""Suppliers' lists read from a real simulator: what takes effect, what is held and asked, what is gone, and what a killed reader leaves."""

import asyncio
import zlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.factories.counter import Counter
from tests.factories.shop import open_desk
from tests.simulator.conftest import SECRETS, Simulator

from kameng_api.catalog import actions as catalog
from kameng_api.catalog import queries as catalog_queries
from kameng_api.catalog import rules
from kameng_api.catalog.rules import Offer, Price, Product
from kameng_api.jobs import catalog_sync
from kameng_api.jobs.desk import Desk
from kameng_api.kit.db import execute, fetch
from kameng_api.kit.money import parse_amount
from kameng_api.settings import Settings
from kameng_api.suppliers.listings import actions, queries, reviews, wishes
from kameng_api.suppliers.listings.queries import Review, ReviewFilter, Sync
from kameng_api.suppliers.listings.rules import Kind, ListTerms

CHANNEL = "sim-a"
TERMS = ListTerms()


class Shelf:
    """One SKU of its own on a line of its own, at a real simulator, and the reader in front of it."""

    def __init__(self, desk: Desk, simulator: Simulator, code: str) -> None:
        self.desk, self.db, self.simulator, self.code = desk, desk.db, simulator, code

    async def put(self, cost: str, code: str | None = None, **more: Any) -> None:
        body = {"name": f"Line {code or self.code}", "type": "card", "cost": cost, **more}
        await self.simulator.call("PUT", f"suppliers/{CHANNEL}/products/{code or self.code}", body)

    async def unlist(self, code: str | None = None) -> None:
        await self.simulator.call("DELETE", f"suppliers/{CHANNEL}/products/{code or self.code}")

    async def sell(self, price: str = "10", cost: str = "9") -> None:
        async with self.db.transaction() as tx:
            await catalog.put_product(tx, Product(self.code, self.code, "card", face_value=parse_amount("10")))
            await catalog.set_price(tx, self.code, Price(unit_price=parse_amount(price)))
            await catalog.set_offer(tx, Offer(CHANNEL, self.code, self.code, parse_amount(cost)))

    async def terms(self, terms: ListTerms = TERMS, **more: Any) -> None:
        wanted = {"enabled": True, "every_s": 21_600, "changes_every_s": 300, "pause_ms": 0, **more}
        async with self.db.transaction() as tx:
            await wishes.set_list(tx, CHANNEL, wishes.ListWanted(**wanted, terms=terms))

    async def read(self) -> Sync:
        """The whole list, now; how that ended."""
        async with self.db.transaction() as tx:
            await wishes.want_now(tx, CHANNEL, "a test")
        await catalog_sync.sync_catalogs(self.desk)
        return (await self.syncs("full"))[0]

    async def syncs(self, kind: str) -> list[Sync]:
        async with self.db.transaction() as tx:
            return await queries.list_syncs(tx, channel_id=CHANNEL, kind=kind)

    async def offer(self) -> Offer:
        async with self.db.transaction() as tx:
            [found] = await catalog_queries.list_offers(tx, sku=self.code, channel_id=CHANNEL)
        return found

    async def asked(self, **more: Any) -> list[Review]:
        async with self.db.transaction() as tx:
            return await queries.list_reviews(tx, ReviewFilter(channel_id=CHANNEL, product_code=self.code, **more))

    async def decide(self, review: Review, decision: str, **more: Any) -> Review:
        async with self.db.transaction() as tx:
            return await reviews.decide(tx, review.review_id, decision, "olga", **more)

    async def version(self) -> int:
        async with self.db.transaction() as tx:
            return await catalog_queries.find_version(tx)

    async def column(self, sql: str, *values: Any) -> list[Any]:
        async with self.db.transaction() as tx:
            return [row[0] for row in await fetch(tx, sql, *values)]


@pytest.fixture
async def shelf(desk: Desk, simulator: Simulator, request: pytest.FixtureRequest) -> AsyncIterator[Shelf]:
    found = Shelf(desk, simulator, f"zz{zlib.crc32(request.node.name.encode())}")
    await found.put("9")
    await found.terms()
    async with desk.db.transaction() as tx:  # the other channel is nobody's business here
        await wishes.set_list(tx, "sim-b", wishes.ListWanted(False, 21_600, 300, 0, ListTerms()))
    yield found
    await simulator.turn(CHANNEL)


async def test_a_list_is_stored_its_costs_are_remembered_and_reading_it_again_writes_nothing(shelf: Shelf) -> None:
    await shelf.sell()
    first = await shelf.read()
    assert first.state == "done" and first.lines == first.added > 10 and first.gone == 0
    [line] = [one async for one in _lines(shelf)]
    assert (line.line.cost, line.skus) == (9_0000, (shelf.code,))
    version = await shelf.version()
    before = await shelf.column("SELECT xmin::text FROM supplier_products ORDER BY product_code")
    second = await shelf.read()
    assert (second.state, second.lines, second.added, second.changed, second.applied, second.reviews) == ("done", first.lines, 0, 0, 0, 0)
    assert await shelf.column("SELECT xmin::text FROM supplier_products ORDER BY product_code") == before
    assert await shelf.version() == version, "nothing that anybody could see has changed"
    await shelf.put("9.1")
    third = await shelf.read()
    assert (third.changed, third.applied) == (1, 1)
    assert (await shelf.offer()).unit_cost == 9_1000
    costs = "SELECT cost FROM supplier_costs WHERE product_code = $1 ORDER BY since"
    assert await shelf.column(costs, shelf.code) == [9_0000, 9_1000]
    reckoned = "SELECT unit_cost, said_by FROM offer_costs WHERE sku = $1 ORDER BY since"
    async with shelf.db.transaction() as tx:
        assert [tuple(r) for r in await fetch(tx, reckoned, shelf.code)] == [(9_0000, "operator"), (9_1000, "supplier's list")]


async def _lines(shelf: Shelf) -> AsyncIterator[queries.Line]:
    async with shelf.db.transaction() as tx:
        for one in await queries.list_lines(tx, CHANNEL, search=shelf.code):
            yield one


async def test_one_page_moves_the_version_once_however_many_offers_change(shelf: Shelf) -> None:
    for n in range(5):
        code = f"{shelf.code}-{n}"
        await shelf.put("9", code)
        one = Shelf(shelf.desk, shelf.simulator, code)
        await one.sell()
    await shelf.read()
    for n in range(5):
        await shelf.put("9.1", f"{shelf.code}-{n}")
    version = await shelf.version()
    assert (await shelf.read()).applied == 5
    assert await shelf.version() == version + 1


async def test_a_cost_beyond_the_limits_is_held_until_a_person_agrees(shelf: Shelf) -> None:
    await shelf.sell(price="20")
    await shelf.read()
    await shelf.put("12")
    assert (await shelf.read()).reviews == 1
    held = await shelf.offer()
    assert (held.unit_cost, held.held) == (9_0000, "price")
    [review] = await shelf.asked()
    assert (review.kind, review.facts["from"], review.facts["to"], review.change_ppm) == (Kind.PRICE_UP, "9.0000", "12.0000", 333_333)
    assert (await shelf.decide(review, "approve", told="120000")).state == "approved"
    now = await shelf.offer()
    assert (now.unit_cost, now.held, now.status) == (12_0000, None, "enabled")
    assert await shelf.column("SELECT said_by FROM offer_costs WHERE sku = $1 ORDER BY since DESC LIMIT 1", shelf.code) == ["olga"]
    assert (await shelf.read()).reviews == 0


async def test_a_cost_that_returns_opens_the_offer_and_the_question_is_overtaken(shelf: Shelf) -> None:
    await shelf.sell(price="20")
    await shelf.read()
    await shelf.put("12")
    await shelf.read()
    await shelf.put("9.05")
    await shelf.read()
    now = await shelf.offer()
    assert (now.unit_cost, now.held) == (9_0500, None)
    assert [r.state for r in await shelf.asked(state=None) if r.kind is Kind.PRICE_UP] == ["overtaken"]


async def test_what_was_turned_down_is_not_asked_again_until_it_says_something_else(shelf: Shelf) -> None:
    await shelf.sell(price="20")
    await shelf.read()
    await shelf.put("5")
    await shelf.read()
    [review] = await shelf.asked()
    assert review.kind is Kind.PRICE_DOWN and (await shelf.offer()).held is None
    await shelf.decide(review, "ignore")
    assert (await shelf.read()).reviews == 0 and await shelf.asked() == []
    await shelf.put("4")
    await shelf.read()
    assert [r.told for r in await shelf.asked()] == ["40000"]


async def test_a_cost_above_what_somebody_pays_is_held_told_and_buys_nothing(shelf: Shelf, counter: Counter) -> None:
    await shelf.sell(price="9.2")
    await shelf.read()
    await shelf.put("9.21")
    await shelf.read()
    assert ((await shelf.offer()).held, (await shelf.offer()).unit_cost) == ("margin", 9_0000)
    assert await shelf.column("SELECT subject FROM alarms WHERE kind = 'margin_guard' AND closed_at IS NULL") == [CHANNEL]
    await catalog_sync.watch_lists(shelf.desk)
    assert await shelf.column("SELECT subject FROM alarms WHERE kind = 'margin_guard' AND closed_at IS NULL") == [CHANNEL]
    async with shelf.db.transaction() as tx:
        snapshot = await catalog_queries.load_snapshot(tx, [shelf.code])
    assert rules.usable_offers(snapshot, shelf.code, "test") == [] and rules.cheapest_cost(snapshot, shelf.code, "test", None) is None
    [review] = await shelf.asked()
    assert review.kind is Kind.BELOW_COST
    async with shelf.db.transaction() as tx:
        await catalog.set_price(tx, shelf.code, Price(unit_price=parse_amount("9.5")))
    await shelf.read()
    now = await shelf.offer()
    assert (now.held, now.unit_cost) == (None, 9_2100), "somebody pays more now: the step is small enough"


async def test_a_line_that_is_gone_closes_its_offer_and_one_that_is_back_opens_it(shelf: Shelf) -> None:
    await shelf.sell()
    await shelf.read()
    await shelf.unlist()
    gone = await shelf.read()
    assert (gone.state, gone.gone, gone.applied) == ("done", 1, 1)
    assert (await shelf.offer()).held == "gone"
    assert [r.kind for r in await shelf.asked()] == [Kind.GONE]
    await shelf.put("9")
    await shelf.read()
    assert (await shelf.offer()).held is None
    assert [r.state for r in await shelf.asked(state=None, kind="gone")] == ["overtaken"]


async def test_a_list_that_breaks_off_or_is_cut_short_closes_nothing_that_is_still_there(shelf: Shelf) -> None:
    shelf.code = "zzzz-last"
    await shelf.put("9")
    await shelf.sell()
    await shelf.read()
    await shelf.simulator.turn(CHANNEL, catalogue={"fail_after": 0})
    broken = await shelf.read()
    assert (broken.state, broken.gone) == ("failed", 0) and broken.trouble is not None
    assert await shelf.column("SELECT failures FROM supplier_lists WHERE channel_id = $1", CHANNEL) == [1]
    lines = (await shelf.column("SELECT count(*) FROM supplier_products WHERE gone_at IS NULL"))[0]
    await shelf.simulator.turn(CHANNEL, catalogue={"truncate_after": lines - 1})  # the last line, by code, is what we sell
    cut = await shelf.read()
    assert (cut.state, cut.gone) == ("done", 0), "asked for by itself, the line is there"
    assert (await shelf.offer()).held is None


async def test_too_much_gone_at_once_closes_nothing_before_a_person_agrees(shelf: Shelf) -> None:
    await shelf.sell()
    await shelf.read()
    await shelf.simulator.turn(CHANNEL, catalogue={"truncate_after": 3})
    stopped = await shelf.read()
    assert (stopped.state, stopped.gone) == ("stopped", 0) and stopped.missing is not None
    assert (await shelf.offer()).held is None
    assert await shelf.column("SELECT subject FROM alarms WHERE kind = 'catalog_vanished' AND closed_at IS NULL") == [CHANNEL]
    async with shelf.db.transaction() as tx:
        await wishes.let_go(tx, stopped.sync_id, "olga")
    await catalog_sync.sync_catalogs(shelf.desk)
    [done] = [one for one in await shelf.syncs("full") if one.sync_id > stopped.sync_id]
    assert done.state == "done" and 0 < done.gone <= stopped.missing and done.asked_by == "olga"
    assert await shelf.column("SELECT 1 FROM alarms WHERE kind = 'catalog_vanished' AND closed_at IS NULL") == []
    assert (await shelf.offer()).held is None, "what we sell was asked for by itself, and is there"


async def test_what_changed_is_read_line_by_line_without_the_whole_list(shelf: Shelf) -> None:
    await shelf.sell()
    await shelf.read()
    wholes = len(await shelf.syncs("full"))
    await shelf.put("9.2")
    async with shelf.db.transaction() as tx:
        await execute(tx, "UPDATE supplier_lists SET next_changes_at = now() WHERE channel_id = $1", CHANNEL)
    await catalog_sync.sync_catalogs(shelf.desk)
    assert (await shelf.offer()).unit_cost == 9_2000
    assert len(await shelf.syncs("full")) == wholes and (await shelf.syncs("changes"))[0].state == "done"
    assert await shelf.column("SELECT count(*) FROM catalog_hints") == [0]


async def test_a_hint_is_followed_and_its_values_count_for_nothing(shelf: Shelf) -> None:
    await shelf.sell()
    await shelf.read()
    await shelf.put("9.2")
    async with shelf.db.transaction() as tx:
        await wishes.note_hints(tx, CHANNEL, [shelf.code, "no-such-line", "a\nb", ""])
    await catalog_sync.sync_catalogs(shelf.desk)
    assert (await shelf.offer()).unit_cost == 9_2000
    await shelf.unlist()
    async with shelf.db.transaction() as tx:
        await wishes.note_hints(tx, CHANNEL, [shelf.code])
    await catalog_sync.sync_catalogs(shelf.desk)
    assert (await shelf.offer()).held == "gone", "asked for by itself, the vendor does not know it"
    assert await shelf.column("SELECT count(*) FROM catalog_hints") == [0]


async def test_a_vendor_that_does_not_answer_keeps_its_hints_and_is_left_alone_for_a_while(shelf: Shelf) -> None:
    await shelf.sell()
    await shelf.read()
    await shelf.simulator.turn(CHANNEL, outage="http_503", outage_paths=["product"])
    async with shelf.db.transaction() as tx:
        await wishes.note_hints(tx, CHANNEL, [shelf.code])
    assert await catalog_sync.sync_catalogs(shelf.desk) == 1
    assert await shelf.column("SELECT count(*) FROM catalog_hints") == [1]
    assert (await shelf.offer()).held is None
    assert await catalog_sync.sync_catalogs(shelf.desk) == 0, "not again at once"


async def test_a_list_has_one_reader_and_who_lost_the_lease_writes_nothing(shelf: Shelf) -> None:
    await shelf.sell()
    async with shelf.db.transaction() as tx:
        await wishes.want_now(tx, CHANNEL, "a test")
        claim = await actions.claim_list(tx, [], 120, 1)
        assert claim is not None and await actions.claim_list(tx, [], 120, 1) is None
    async with shelf.db.transaction() as tx:
        reading = await actions.begin(tx, claim, "full", 1)
    await asyncio.sleep(1.1)  # killed, as far as anybody can see
    await catalog_sync.sync_catalogs(shelf.desk)
    states = {one.sync_id: one.state for one in await shelf.syncs("full")}
    assert states.pop(reading.sync_id) == "lost" and list(states.values()) == ["done"]
    with pytest.raises(actions.LeaseLost):
        async with shelf.db.transaction() as tx:
            await actions.take_page(tx, reading, [], claim.now)
    with pytest.raises(actions.LeaseLost):
        async with shelf.db.transaction() as tx:
            await actions.take_gone(tx, reading, [shelf.code])
    async with shelf.db.transaction() as tx:
        await actions.give_back(tx, claim, full=True, failed=False)
    assert (await shelf.offer()).held is None


async def test_a_reader_that_dies_between_two_pages_leaves_what_it_read_and_closes_nothing(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    await shelf.sell()
    await shelf.read()
    await shelf.put("9.2")
    monkeypatch.setattr(catalog_sync, "_LINES_AT_ONCE", 4)
    died = asyncio.Event()
    close = catalog_sync.Whole._close_missing

    async def die(self: catalog_sync.Whole, reading: actions.Reading) -> actions.End:
        died.set()
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(catalog_sync.Whole, "_close_missing", die)
    async with shelf.db.transaction() as tx:
        await wishes.want_now(tx, CHANNEL, "a test")
    working = asyncio.create_task(catalog_sync.sync_catalogs(shelf.desk))
    await asyncio.wait_for(died.wait(), 20)
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)
    assert (await shelf.offer()).unit_cost == 9_2000
    assert (await shelf.syncs("full"))[0].state == "running"
    monkeypatch.setattr(catalog_sync.Whole, "_close_missing", close)
    assert await catalog_sync.sync_catalogs(shelf.desk) == 0, "its lease still stands"
    async with shelf.db.transaction() as tx:
        await execute(tx, "UPDATE supplier_lists SET lease_until = now() - interval '1 second' WHERE lease IS NOT NULL")
    await catalog_sync.sync_catalogs(shelf.desk)
    assert [one.state for one in await shelf.syncs("full")][:2] == ["done", "lost"]


async def test_a_new_line_is_asked_about_once_and_sold_when_a_person_says_as_what(shelf: Shelf) -> None:
    await shelf.read()
    [review] = await shelf.asked()
    assert (review.kind, review.sku, review.facts["cost"]) == (Kind.NEW, "", "9.0000")
    await shelf.read()
    assert len(await shelf.asked(state=None)) == 1
    async with shelf.db.transaction() as tx:
        await catalog.put_product(tx, Product(shelf.code, "x", "card", face_value=parse_amount("10")))
        await catalog.set_price(tx, shelf.code, Price(unit_price=parse_amount("10")))
    assert (await shelf.decide(review, "approve", sku=shelf.code)).state == "approved"
    assert ((await shelf.offer()).unit_cost, (await shelf.offer()).held) == (9_0000, None)


async def test_a_line_linked_at_a_loss_is_held_at_once_and_no_reading_lifts_that(shelf: Shelf) -> None:
    await shelf.read()
    async with shelf.db.transaction() as tx:
        await catalog.put_product(tx, Product(shelf.code, "x", "card", face_value=parse_amount("10")))
        await catalog.set_price(tx, shelf.code, Price(unit_price=parse_amount("8")))
        await reviews.link(tx, CHANNEL, shelf.code, shelf.code, "olga")
    assert (await shelf.offer()).held == "margin"
    await shelf.read()
    assert (await shelf.offer()).held == "margin"
    [review] = [r for r in await shelf.asked() if r.kind is Kind.BELOW_COST]
    await shelf.decide(review, "approve")
    assert (await shelf.offer()).held is None
    assert (await shelf.read()).reviews == 0


async def test_many_are_decided_by_one_word(shelf: Shelf) -> None:
    codes = [f"{shelf.code}-{n}" for n in range(6)]
    for code in codes:
        await shelf.put("9", code)
        await Shelf(shelf.desk, shelf.simulator, code).sell(price="20")
    await shelf.read()
    for n, code in enumerate(codes):
        await shelf.put("9.9" if n < 4 else "15", code)
    await shelf.read()
    wanted = ReviewFilter(channel_id=CHANNEL, kind="price_up", code_begins=shelf.code, most_change=100_000)
    async with shelf.db.transaction() as tx:
        settled = await reviews.decide_many(tx, wanted, "approve", "olga")
    assert (settled.decided, settled.skipped) == (4, {})
    sql = "SELECT unit_cost FROM offers WHERE channel_id = $1 AND product_code = ANY ($2::text[]) ORDER BY product_code"
    assert await shelf.column(sql, CHANNEL, codes) == [9_9000] * 4 + [9_0000] * 2
    async with shelf.db.transaction() as tx:
        rest = await reviews.decide_many(tx, ReviewFilter(channel_id=CHANNEL, kind="price_up", code_begins=shelf.code), "reject", "olga")
    assert rest.decided == 2
    off = "SELECT status FROM offers WHERE channel_id = $1 AND product_code = ANY ($2::text[]) ORDER BY product_code"
    assert await shelf.column(off, CHANNEL, codes) == ["enabled"] * 4 + ["disabled"] * 2


async def test_a_refusal_for_stock_is_taken_back_by_a_list_that_was_asked_after_it(shelf: Shelf, counter: Counter) -> None:
    await shelf.sell()
    await shelf.put("9", stock=7)
    await shelf.read()
    assert (await shelf.offer()).stocked_at is None, "nothing was closed"
    async with shelf.db.transaction() as tx:
        await execute(
            tx,
            """INSERT INTO attempts (book_id, attempt_id, order_id, n, channel_id, sku, product_code, units, state, currency, cost, reference, reason,
              refusal, settled_at)
            VALUES (2, gen_random_uuid(), gen_random_uuid(), 1, $1, $2, $2, 1, 'refused', 'CNY', 1, 'x', 'y', 'out_of_stock', now())""",
            CHANNEL, shelf.code,
        )  # fmt: skip
    await shelf.read()
    [row] = await shelf.column("SELECT o.stocked_at > a.settled_at FROM offers o JOIN attempts a ON a.sku = o.sku WHERE o.sku = $1", shelf.code)
    assert row is True


async def test_what_is_past_its_age_is_thrown_away_and_what_anything_cost_is_not(shelf: Shelf) -> None:
    await shelf.sell(price="20")
    await shelf.read()
    await shelf.put("5")
    await shelf.read()
    [review] = await shelf.asked()
    await shelf.decide(review, "reject")
    async with shelf.db.transaction() as tx:
        await execute(tx, "UPDATE offer_reviews SET decided_at = decided_at - interval '400 days' WHERE state <> 'open'")
        await execute(tx, "UPDATE catalog_syncs SET ended_at = ended_at - interval '400 days'")
    costs = await shelf.column("SELECT count(*) FROM supplier_costs")
    await catalog_sync.prune_lists(shelf.desk)
    assert len(await shelf.syncs("full")) == 1, "of each list its last reading stays"
    assert [r.state for r in await shelf.asked(state=None) if r.kind is Kind.PRICE_DOWN] == ["rejected"], "what was turned down is remembered"
    assert await shelf.column("SELECT count(*) FROM supplier_costs") == costs
    assert (await shelf.read()).reviews == 0


async def test_a_channel_nobody_has_heard_of_begins_to_be_read_on_its_own_clock(counter: Counter, settings: Settings) -> None:
    async with open_desk(settings) as desk:
        assert await catalog_sync.sync_catalogs(desk) == 0, "spread over their period, not all at once"
        async with desk.db.transaction() as tx:
            lists = await queries.list_lists(tx)
    assert [one.channel_id for one in lists] == sorted(SECRETS) and all(one.enabled and one.every_s == 21_600 for one in lists)
    assert len({one.next_full_at for one in lists}) == 2

