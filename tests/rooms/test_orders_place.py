"""Orders through the door: one verdict each, one order per number for ever, no more money than there is."""

import asyncio
from collections import Counter as Tally
from collections.abc import Sequence
from typing import Any

import pytest
from tests.factories.counter import PHONE, Counter, codes_of
from tests.factories.merchants import make_merchant

from kameng_api.kit.db import Database, execute, fetch
from kameng_api.kit.errors import Problem, StateConflict
from kameng_api.kit.gather import Gatherer
from kameng_api.kit.ids import public_id
from kameng_api.ledger import actions as ledger
from kameng_api.orders import actions, queries
from kameng_api.orders.actions import Place, Placed
from kameng_api.settings import Settings


@pytest.fixture
async def counter(database: Database, settings: Settings) -> Counter:
    return await Counter.open(database, settings)


async def test_an_order_holds_its_money_and_makes_work_due(counter: Counter) -> None:
    order = await counter.order(quantity=3)
    assert (order.status, order.version, order.amount) == ("accepted", 1, 3_000_000)
    assert await counter.money() == (9_700, 300)
    assert await counter.tasks() == [("submit", "ready")]
    assert await counter.events(order) == [("order.accepted", 1)]
    await counter.holds()


async def test_the_same_number_and_content_is_the_same_order_whatever_has_changed(counter: Counter) -> None:
    order = await counter.order()
    asked = counter.ask()
    # The product is gone and the money is spent: an existing number is found before anyone looks at those.
    gone = Place(asked.book_id, "test", "CNY", asked.request, asked.fingerprint, StateConflict("no such product"))
    [again] = await counter.place(gone)
    assert isinstance(again, Placed) and not again.created and again.order.order_id == order.order_id
    assert await counter.money() == (9_900, 100)
    await counter.holds()


async def test_a_refusal_waits_for_a_twin_that_is_about_to_commit(counter: Counter) -> None:
    """Both are asked at once; between them the catalogue changed. The second may not say "nothing was charged" while the first commits."""
    asked = counter.ask()
    gone = Place(asked.book_id, "test", "CNY", asked.request, asked.fingerprint, StateConflict("no such product"))
    async with counter.db.transaction() as tx:
        [first] = await actions.place(tx, counter.keyring, [asked])
        twin = asyncio.create_task(counter.place(gone))
        await asyncio.wait([twin], timeout=0.3)
        assert not twin.done(), "it was answered before the first was certain"
    [again] = await twin
    assert isinstance(first, Placed) and isinstance(again, Placed) and not again.created
    assert again.order.order_id == first.order.order_id
    await counter.holds()


async def test_the_same_number_with_other_content_is_a_conflict_that_names_the_order(counter: Counter) -> None:
    order = await counter.order()
    [verdict] = await counter.place(counter.ask(quantity=2))
    assert isinstance(verdict, Problem) and verdict.code == "merchant_order_no_conflict"
    assert verdict.facts["existing_order_id"] == public_id("ord", order.order_id)
    assert await counter.money() == (9_900, 100)


async def test_a_number_belongs_to_one_book(counter: Counter, database: Database, settings: Settings) -> None:
    other = await Counter.open(database, settings)
    await counter.order()
    await other.order()
    assert await counter.money() == await other.money() == (9_900, 100)
    await counter.holds()


async def test_a_refused_order_leaves_its_number_free(counter: Counter) -> None:
    assert codes_of(await counter.place(counter.ask(quantity=100), counter.ask("PO-2", quantity=1))) == ["created", "insufficient_balance"]
    assert await counter.money() == (0, 10_000)
    async with counter.db.transaction() as tx:
        [row] = await fetch(tx, "SELECT count(*) AS n FROM orders")
        assert row["n"] == 1
        first = await queries.get_by_number(tx, counter.book_id, "PO-1")
        await actions.cancel(tx, counter.keyring, *first.key)
    assert codes_of(await counter.place(counter.ask("PO-2", quantity=1))) == ["created"]
    await counter.holds()


async def test_twins_in_one_flush_are_one_order(counter: Counter) -> None:
    verdicts = await counter.place(counter.ask(), counter.ask(), counter.ask(quantity=2), counter.ask("PO-2"))
    assert codes_of(verdicts) == ["created", "replayed", "merchant_order_no_conflict", "created"]
    assert await counter.money() == (9_800, 200)
    await counter.holds()


async def test_a_poor_twin_leaves_no_trace_in_the_flush(database: Database, settings: Settings) -> None:
    """The first is too dear; the second, other content under the same number, is affordable and must not meet a ghost."""
    counter = await Counter.open(database, settings, money="150")
    dear, cheap = counter.ask(quantity=2), counter.ask(quantity=1)
    assert codes_of(await counter.place(dear, dear, cheap, cheap)) == ["insufficient_balance"] * 2 + ["created", "replayed"]
    assert await counter.money() == (50, 100)
    await counter.holds()


async def test_a_poor_order_does_not_block_its_target(database: Database, settings: Settings) -> None:
    counter = await Counter.open(database, settings, money="150")
    flush = [counter.ask("PO-1", sku="guarded", quantity=2), counter.ask("PO-2", sku="guarded"), counter.ask("PO-3", sku="guarded")]
    assert codes_of(await counter.place(*flush)) == ["insufficient_balance", "created", "duplicate_target"]
    await counter.holds()


async def test_one_poor_merchant_spoils_nobody_s_flush(counter: Counter, database: Database, settings: Settings) -> None:
    poor = await Counter.open(database, settings, money="0")
    verdicts = await counter.place(poor.ask("A"), counter.ask("A"), poor.ask("B"), counter.ask("B"))
    assert codes_of(verdicts) == ["insufficient_balance", "created"] * 2
    await counter.holds()


async def test_the_credit_line_is_spendable_and_no_more(database: Database, settings: Settings) -> None:
    counter = await Counter.open(database, settings, money="50")
    async with database.transaction() as tx:
        await ledger.set_credit_line(tx, counter.book_id, "CNY", 500_000)
    assert codes_of(await counter.place(counter.ask("A"), counter.ask("B"))) == ["created", "insufficient_balance"]
    assert await counter.money() == (-50, 100)
    await counter.holds()


# ---- one target twice ----------------------------------------------------------------------------------------------


async def test_a_target_charged_a_moment_ago_is_refused_unless_confirmed(counter: Counter) -> None:
    await counter.order("PO-1", sku="guarded")
    again = counter.ask("PO-2", sku="guarded")
    assert codes_of(await counter.place(again)) == ["duplicate_target"]
    other_target = counter.ask("PO-3", sku="guarded", target="13800138001")
    other_sku = counter.ask("PO-4", sku="phone", target=PHONE)
    confirmed = counter.ask("PO-5", sku="guarded", confirm_duplicate=True)
    magic = [counter.ask(f"PO-m{n}", sku="guarded", target="10000000001") for n in range(2)]
    assert codes_of(await counter.place(other_target, other_sku, confirmed, *magic)) == ["created"] * 5
    await counter.holds()


async def test_what_was_not_delivered_does_not_count_as_charged(counter: Counter) -> None:
    order = await counter.order("PO-1", sku="guarded")
    async with counter.db.transaction() as tx:
        await actions.cancel(tx, counter.keyring, *order.key)
    assert codes_of(await counter.place(counter.ask("PO-2", sku="guarded"))) == ["created"]


async def test_the_guard_forgets_after_its_window(counter: Counter) -> None:
    await counter.order("PO-1", sku="guarded")
    async with counter.db.transaction() as tx:
        await execute(tx, "UPDATE orders SET created_at = now() - interval '601 seconds'")
    assert codes_of(await counter.place(counter.ask("PO-2", sku="guarded"))) == ["created"]


async def test_the_guard_looks_at_one_merchant_s_orders_only(counter: Counter, database: Database, settings: Settings) -> None:
    other = await Counter.open(database, settings)
    await counter.order(sku="guarded")
    assert codes_of(await other.place(other.ask(sku="guarded"))) == ["created"]


async def test_fifty_parallel_orders_for_one_guarded_target_are_one(counter: Counter) -> None:
    asked = [counter.ask(f"PO-{n}", sku="guarded") for n in range(50)]
    assert Tally(await _through_doors(counter, asked)) == {"created": 1, "duplicate_target": 49}
    await counter.holds()


# ---- many at once --------------------------------------------------------------------------------------------------


async def _through_doors(counter: Counter, asked: Sequence[Place], doors: int = 2) -> list[str]:
    """As it really happens: several API processes, each gathering what arrives and flushing twice at once."""

    def door() -> Gatherer[Place, Placed]:
        async def flush(batch: Sequence[Place]) -> Sequence[Any]:
            return await counter.place(*batch)

        return Gatherer(flush, largest=16, in_flight=2)

    gatherers = [door() for _ in range(doors)]

    async def one(n: int, item: Place) -> str:
        try:
            placed = await gatherers[n % doors].submit(item)
        except Problem as problem:
            return problem.code
        return "created" if placed.created else "replayed"

    return await asyncio.gather(*(one(n, item) for n, item in enumerate(asked)))


async def test_two_hundred_parallel_orders_against_money_for_fifty(database: Database, settings: Settings) -> None:
    counter = await Counter.open(database, settings, money="5000")
    words = await _through_doors(counter, [counter.ask(f"PO-{n}") for n in range(200)])
    assert Tally(words) == {"created": 50, "insufficient_balance": 150}
    assert await counter.money() == (0, 5_000)
    await counter.holds()


async def test_a_hundred_parallel_identical_orders_are_one(counter: Counter) -> None:
    words = await _through_doors(counter, [counter.ask()] * 100, doors=3)
    assert Tally(words) == {"created": 1, "replayed": 99}
    assert await counter.money() == (9_900, 100)
    await counter.holds()


async def test_parallel_orders_with_one_number_and_two_contents(counter: Counter) -> None:
    words = await _through_doors(counter, [counter.ask(quantity=1 + n % 2) for n in range(100)])
    tally = Tally(words)
    assert (tally["created"], tally["replayed"], tally["merchant_order_no_conflict"]) == (1, 49, 50)
    await counter.holds()


async def test_flushes_of_many_books_in_any_order_do_not_lock_each_other_out(database: Database, settings: Settings) -> None:
    first = await Counter.open(database, settings)
    merchants = [await make_merchant(database, settings, money="300") for _ in range(12)]

    asked = []
    for round_, step in enumerate((1, 12, 5, 8)):  # each round meets the books in another order
        asked += [first.ask(f"PO-{round_}", book_id=merchants[n * step % 13 - 1].book_id) for n in range(1, 13)]
    words = await _through_doors(first, asked, doors=4)
    assert Tally(words) == {"created": 36, "insufficient_balance": 12}
    await first.holds()
