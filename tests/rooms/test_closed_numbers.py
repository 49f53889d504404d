"""A no about a number and a purchase under it meet at one lock: whichever is first, the other knows."""

import asyncio

from tests.factories.counter import Counter

from kameng_api.kit.db import Database
from kameng_api.ledger import actions as ledger
from kameng_api.ledger import rules as books
from kameng_api.orders import actions
from kameng_api.orders.actions import Placed
from kameng_api.orders.closing import close_number, find_settled
from kameng_api.orders.errors import NumberClosed, OrderNoConflict
from kameng_api.orders.queries import look_up_numbers
from kameng_api.settings import Settings


async def _close(counter: Counter, number: str) -> object:
    async with counter.db.transaction() as tx:
        return await close_number(tx, counter.book_id, "CNY", number, "jd_card")


async def test_what_was_denied_is_never_bought(database: Database, settings: Settings) -> None:
    counter = await Counter.open(database, settings)
    assert await _close(counter, "PO-1") is None
    assert await _close(counter, "PO-1") is None
    [verdict] = await counter.place(counter.ask("PO-1"))
    assert isinstance(verdict, NumberClosed)
    async with database.transaction() as tx:
        known = await look_up_numbers(tx, [(counter.book_id, "PO-2"), (counter.book_id, "PO-1")])
        assert (known.closed, known.orders) == ({(counter.book_id, "PO-1")}, {})
    await counter.holds()


async def test_a_closed_number_spoils_no_other_of_its_flush(database: Database, settings: Settings) -> None:
    counter = await Counter.open(database, settings)
    await _close(counter, "PO-2")
    await _close(counter, "PO-9")
    first, closed, third, again = await counter.place(*(counter.ask(number) for number in ("PO-1", "PO-2", "PO-3", "PO-1")))
    assert isinstance(first, Placed) and isinstance(third, Placed) and first.created and third.created
    assert isinstance(again, Placed) and not again.created
    assert isinstance(closed, NumberClosed)
    await counter.holds()


async def test_what_was_bought_is_not_denied(database: Database, settings: Settings) -> None:
    counter = await Counter.open(database, settings)
    [placed] = await counter.place(counter.ask("PO-1"))
    assert isinstance(placed, Placed)
    found = await _close(counter, "PO-1")
    assert found is not None and found.order_id == placed.order.order_id  # type: ignore[attr-defined]
    [again, other] = await counter.place(counter.ask("PO-1"), counter.ask("PO-1", quantity=2))
    assert isinstance(again, Placed) and not again.created
    assert isinstance(other, OrderNoConflict)


async def test_a_no_of_one_book_says_nothing_about_another(database: Database, settings: Settings) -> None:
    counter, other = await Counter.open(database, settings), await Counter.open(database, settings)
    await _close(counter, "PO-1")
    [verdict] = await other.place(other.ask("PO-1"))
    assert isinstance(verdict, Placed) and verdict.created


async def test_a_question_waits_for_a_purchase_that_has_begun(database: Database, settings: Settings) -> None:
    """The purchase has locked the account and written, and has not committed: nobody may say that it is not there."""
    counter = await Counter.open(database, settings)
    item = counter.ask("PO-1")
    async with database.transaction() as tx:
        [placed] = await actions.place(tx, counter.keyring, [item])
        closing = asyncio.create_task(_close(counter, "PO-1"))
        settled = asyncio.create_task(_settled(counter, "PO-1"))
        await asyncio.sleep(0.2)
        assert not closing.done() and not settled.done()
    assert isinstance(placed, Placed)
    for found in (await closing, await settled):
        assert found is not None and found.order_id == placed.order.order_id  # type: ignore[attr-defined]


async def _settled(counter: Counter, number: str) -> object:
    async with counter.db.transaction() as tx:
        return await find_settled(tx, counter.book_id, "CNY", number)


async def test_a_purchase_waits_for_a_no_that_is_being_said(database: Database, settings: Settings) -> None:
    counter = await Counter.open(database, settings)
    async with database.transaction() as tx:
        assert await close_number(tx, counter.book_id, "CNY", "PO-1", "jd_card") is None
        buying = asyncio.create_task(counter.place(counter.ask("PO-1")))
        await asyncio.sleep(0.2)
        assert not buying.done()
    [verdict] = await buying
    assert isinstance(verdict, NumberClosed)


async def test_in_a_race_exactly_one_of_them_is_true(database: Database, settings: Settings) -> None:
    counter = await Counter.open(database, settings, money="100000")
    bought = denied = 0
    for n in range(40):
        number = f"PO-{n}"
        first, second = (counter.place(counter.ask(number)), _close(counter, number))
        answers = await asyncio.gather(*((first, second) if n % 2 else (second, first)))
        placed, order = answers if n % 2 else answers[::-1]
        was_bought = isinstance(placed[0], Placed)
        assert was_bought == (order is not None)
        bought, denied = bought + was_bought, denied + (not was_bought)
    assert bought + denied == 40
    await counter.holds()


async def test_the_lock_is_the_one_that_purchases_take(database: Database, settings: Settings) -> None:
    """Were it another row, the tests above would still pass on a quiet machine."""
    counter = await Counter.open(database, settings)
    async with database.transaction() as tx:
        await ledger.lock(tx, [(counter.book_id, books.AVAILABLE, "CNY")])
        buying = asyncio.create_task(counter.place(counter.ask("PO-1")))
        asking = asyncio.create_task(_close(counter, "PO-2"))
        await asyncio.sleep(0.2)
        assert not buying.done() and not asking.done()
    await asyncio.gather(buying, asking)
