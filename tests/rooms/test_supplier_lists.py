"""What stands of a supplier's list: offers that an operator touched meanwhile, hints beyond the limit, and the bits of a whole reading."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from tests.factories.merchants import keyring_of

from kameng_api.catalog import actions as catalog
from kameng_api.catalog import costs, listed
from kameng_api.catalog import queries as catalog_queries
from kameng_api.catalog.actions import NewChannel
from kameng_api.catalog.listed import Listed
from kameng_api.catalog.rules import Offer, Price, Product
from kameng_api.kit.db import Database, Tx, fetch
from kameng_api.settings import Settings
from kameng_api.suppliers.listings import actions, queries, wishes
from kameng_api.suppliers.listings.actions import Reading
from kameng_api.suppliers.listings.queries import ReviewFilter
from kameng_api.suppliers.listings.rules import ListTerms
from kameng_api.suppliers.port import SupplierProduct, WantedField

NOW = datetime.now(UTC)
LINE = SupplierProduct("code", "Card", "card", 9_0000, "CNY", 5, True)


@pytest.fixture
async def shop(database: Database, settings: Settings) -> Database:
    async with database.transaction() as tx:
        await catalog.create_channel(tx, keyring_of(settings), NewChannel("one", "One", "simulator", "test", b"{}"))
        await catalog.put_product(tx, Product("sku", "Card", "card", face_value=10_0000))
        await catalog.set_price(tx, "sku", Price(unit_price=12_0000))
        await catalog.set_offer(tx, Offer("one", "sku", "code", 9_0000), "olga")
        await wishes.set_list(tx, "one", wishes.ListWanted(True, 3600, 300, 0, ListTerms()))
    return database


async def _begin(tx: Tx) -> Reading:
    await wishes.want_now(tx, "one", "a test")
    claim = await actions.claim_list(tx, [], 120, 60)
    assert claim is not None
    return await actions.begin(tx, claim, "full", 60)


async def test_what_an_operator_has_touched_since_stays_as_he_left_it(shop: Database) -> None:
    async with shop.transaction() as tx:
        [(_, seen)] = await queries.load_sold(tx, "one", ["code"])
    async with shop.transaction() as tx:
        await catalog.set_offer(tx, Offer("one", "sku", "code", 8_0000), "olga")
    change = Listed("sku", "code", 9_5000, 3, None, seen.read_at)
    async with shop.transaction() as tx:
        assert await listed.apply_listed(tx, "one", [change], [], NOW, "list") == set()
        [(_, now)] = await queries.load_sold(tx, "one", ["code"])
        assert await listed.apply_listed(tx, "one", [replace(change, read_at=now.read_at)], [], NOW, "list") == {"sku"}
    async with shop.transaction() as tx:
        [offer] = await catalog_queries.list_offers(tx, sku="sku")
        assert (offer.unit_cost, offer.stock) == (9_5000, 3)
        told = [(row["unit_cost"], row["said_by"]) for row in await costs.list_costs(tx, "one", "sku")]
    assert told == [(9_5000, "list"), (8_0000, "olga"), (9_0000, "olga")]


async def test_an_operator_s_own_word_lifts_what_was_held(shop: Database) -> None:
    async with shop.transaction() as tx:
        reading = await _begin(tx)
        await actions.take_page(tx, reading, [LINE], NOW)
        await actions.take_page(tx, reading, [replace(LINE, cost=11_0000)], NOW)
    async with shop.transaction() as tx:
        assert [o.held for o in await catalog_queries.list_offers(tx, sku="sku")] == ["price"]
        await catalog.set_offer(tx, Offer("one", "sku", "code", 11_0000), "olga")
        assert [o.held for o in await catalog_queries.list_offers(tx, sku="sku")] == [None]


async def test_a_line_is_kept_as_it_was_told(shop: Database) -> None:
    told = replace(
        LINE, product_code="whole", face_min=1_0000, face_max=9_0000, fields=(WantedField("zone", "区服", "choice", True, ("a", "b")),), max_units=7
    )
    async with shop.transaction() as tx:
        await actions.take_page(tx, await _begin(tx), [told], NOW)
        known = await queries.load_known(tx, "one", ["whole"])
    assert known["whole"].line == told and not known["whole"].gone


async def test_the_bits_of_a_reading_find_what_it_lacked(shop: Database) -> None:
    lines = [replace(LINE, product_code=f"c{n:03d}") for n in range(40)]
    async with shop.transaction() as tx:
        reading = await _begin(tx)
        page = await actions.take_page(tx, reading, lines, NOW)
        assert sorted(page.numbers) == list(range(40))
        seen = bytearray(6)
        for number in page.numbers:
            if number not in (3, 17, 39):
                seen[number >> 3] |= 1 << (number & 7)
        assert await queries.count_missing(tx, "one", bytes(seen)) == (40, 3)
        first = await queries.list_missing(tx, "one", bytes(seen), after=-1, limit=2)
        rest = await queries.list_missing(tx, "one", bytes(seen), after=first[-1].number, limit=2)
    assert [one.number for one in first + rest] == [3, 17, 39]


async def test_more_hints_than_can_be_followed_make_the_whole_list_due(shop: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wishes, "MOST_HINTS", 3)
    async with shop.transaction() as tx:
        await wishes.note_hints(tx, "one", ["a", "b"])
        await wishes.note_hints(tx, "one", ["a", "b", "c"])
        assert [r["n"] for r in await fetch(tx, "SELECT count(*) AS n FROM catalog_hints")] == [2]
        assert [r["due"] for r in await fetch(tx, "SELECT next_full_at <= now() AS due FROM supplier_lists")] == [True]


async def test_a_hint_said_again_while_it_was_followed_is_followed_again(shop: Database) -> None:
    async with shop.transaction() as tx:
        await wishes.note_hints(tx, "one", ["a"])
    async with shop.transaction() as tx:
        followed = await wishes.list_hints(tx, "one", 10)
        assert len(followed) == 1
    async with shop.transaction() as tx:
        await wishes.note_hints(tx, "one", ["a"])
    async with shop.transaction() as tx:
        await wishes.drop_hints(tx, "one", followed)
        assert len(await wishes.list_hints(tx, "one", 10)) == 1


async def test_what_an_operator_touched_while_a_page_was_taken_is_judged_as_he_left_it(shop: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    applied = listed.apply_listed
    touched: list[bool] = []

    async def touch_first(*args: Any) -> set[str]:
        if not touched:
            touched.append(True)
            async with shop.transaction() as other:
                await catalog.set_offer(other, Offer("one", "sku", "code", 9_0000, stock=2), "olga")
        return await applied(*args)

    async with shop.transaction() as tx:
        reading = await _begin(tx)
        await actions.take_page(tx, reading, [LINE], NOW)
    monkeypatch.setattr(listed, "apply_listed", touch_first)
    async with shop.transaction() as tx:
        await actions.take_page(tx, reading, [replace(LINE, cost=13_0000, stock=1)], NOW)
    async with shop.transaction() as tx:
        assert [(o.held, o.unit_cost, o.stock) for o in await catalog_queries.list_offers(tx, sku="sku")] == [("margin", 9_0000, 1)]
        assert [r.kind for r in await queries.list_reviews(tx, ReviewFilter(sku="sku"))] == ["below_cost"]


@pytest.mark.parametrize(("change", "held", "kind"), [({"face_value": 5_0000}, "changed", "changed"), ({"cost": 13_0000}, "margin", "below_cost")])
async def test_a_hold_outlives_its_line_s_absence_and_so_does_its_question(shop: Database, change: dict[str, Any], held: str, kind: str) -> None:
    whole = replace(LINE, face_value=10_0000)
    odd = replace(whole, **change)
    async with shop.transaction() as tx:
        reading = await _begin(tx)
        await actions.take_page(tx, reading, [whole], NOW)
        await actions.take_page(tx, reading, [odd], NOW)
        await actions.take_gone(tx, reading, ["code"])
        assert sorted(r.kind for r in await queries.list_reviews(tx, ReviewFilter(sku="sku"))) == sorted([kind, "gone"])
        await actions.take_page(tx, reading, [odd], NOW)
        assert [(o.held, o.unit_cost) for o in await catalog_queries.list_offers(tx, sku="sku")] == [(held, 9_0000)]
        assert [r.kind for r in await queries.list_reviews(tx, ReviewFilter(sku="sku"))] == [kind]


async def test_an_offer_that_is_enabled_again_at_a_cost_of_the_past_is_held(shop: Database) -> None:
    async with shop.transaction() as tx:
        reading = await _begin(tx)
        await actions.take_page(tx, reading, [LINE], NOW)
        await catalog.set_offer(tx, Offer("one", "sku", "code", 9_0000, status="disabled"), "olga")
        await actions.take_page(tx, reading, [replace(LINE, cost=13_0000)], NOW)
        await catalog.set_offer(tx, Offer("one", "sku", "code", 9_0000), "olga")
        await actions.take_page(tx, reading, [replace(LINE, cost=13_0000)], NOW)
        assert [o.held for o in await catalog_queries.list_offers(tx, sku="sku")] == ["margin"]
        raised = await fetch(tx, "SELECT 1 FROM alarms WHERE kind = 'margin_guard' AND closed_at IS NULL")
    assert len(raised) == 1
