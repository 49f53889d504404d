"""Rows that become one order, and rows that become several: whatever the catalogue does meanwhile, each is bought whole, and once."""

from dataclasses import replace
from typing import Any

import pytest
from tests.conftest import _owner_connection
from tests.factories.counter import PHONE, PRICE, PRODUCTS, Counter
from tests.jobs.test_batches_jobs import Hall, phones

from kameng_api.batches import actions
from kameng_api.batches.rules import PAGE, State
from kameng_api.catalog.rules import Product
from kameng_api.embedded.servers import Servers
from kameng_api.evidence import restores
from kameng_api.jobs import batches as job
from kameng_api.jobs.batches import advance_batches
from kameng_api.kit.db import Database, execute, fetch
from kameng_api.kit.ids import new_ulid
from kameng_api.settings import Settings


@pytest.fixture
async def hall(database: Database, settings: Settings) -> Hall:
    return Hall(await Counter.open(database, settings, money="100000"), settings)


def sell(hall: Hall, **change: int) -> None:
    """Every product with other terms from now on."""
    products = {p.sku: replace(p, **change) for p in PRODUCTS}  # type: ignore[arg-type]
    hall.catalog.current = replace(hall.catalog.current, products=products)


async def work_until_a_page_is_validated(hall: Hall, monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker dies right after its first page."""
    real = job._validate

    async def dies(*given: object) -> None:
        await real(*given)  # type: ignore[arg-type]
        raise ConnectionError

    with monkeypatch.context() as broken:
        broken.setattr(job, "_validate", dies)
        await advance_batches(hall.desk, 4)
    async with hall.db.transaction() as tx:
        await execute(tx, "UPDATE tasks SET run_at = now() WHERE lane = 'batch'")


async def units(hall: Hall) -> int:
    async with hall.db.transaction() as tx:
        [row] = await fetch(tx, "SELECT coalesce(sum(quantity), 0)::int AS n FROM orders WHERE book_id = $1", hall.counter.book_id)
    return int(row["n"])


@pytest.mark.parametrize(("first", "second"), [(100, 1000), (1000, 100)])
async def test_what_one_order_may_hold_changes_between_two_pages_and_every_equal_row_is_bought_once(
    hall: Hall, monkeypatch: pytest.MonkeyPatch, first: int, second: int
) -> None:
    sell(hall, max_quantity=first)
    batch = await hall.send(phones(PAGE + 50, quantity=2), merge_equal=True, confirm="manual")
    await work_until_a_page_is_validated(hall, monkeypatch)
    sell(hall, max_quantity=second)
    await hall.work()
    sell(hall, max_quantity=1000)
    async with hall.db.transaction() as tx:
        await actions.confirm(tx, *batch.key)
    await hall.work()
    assert set(await hall.statuses(batch)) == {"accepted"}
    assert await units(hall) == 2 * (PAGE + 50)
    assert (await hall.now(batch))[1].total_cost == 2 * (PAGE + 50) * PRICE


async def test_a_row_that_needs_one_target_charged_twice_is_bought_whole_or_not_at_all(hall: Hall) -> None:
    sell(hall, max_quantity=1)
    rows: list[dict[str, Any]] = [{"face_value": "200", "target": PHONE}, {"face_value": "200", "target": PHONE, "confirm_duplicate": True}]
    batch = await hall.send(rows, split_skus=("guarded",))
    await hall.work()
    assert [(i.line_no, i.part, i.status, i.error_pointer) for i in await hall.items(batch)] == [
        (1, 1, "invalid", "/confirm_duplicate"), (1, 2, "invalid", "/confirm_duplicate"), (2, 1, "placed", None), (2, 2, "placed", None),
    ]  # fmt: skip
    assert await hall.orders() == 2


async def test_a_row_of_which_one_part_cannot_be_sold_is_not_bought_at_all(hall: Hall) -> None:
    unpriced = Product("small", "Small", "topup", face_value=PRICE // 2, target_kind="mobile")
    hall.catalog.current = replace(hall.catalog.current, products={**hall.catalog.current.products, "small": unpriced})
    batch = await hall.send([{"face_value": "150", "target": PHONE}, {"face_value": "100", "target": PHONE}], split_skus=("phone", "small"))
    await hall.work()
    found = [(i.line_no, i.part, i.status, i.error_code) for i in await hall.items(batch)]
    assert found == [(1, 1, "invalid", "validation_failed"), (1, 2, "invalid", "product_unavailable"), (2, 1, "placed", None)]
    assert await units(hall) == 1
    assert (await hall.now(batch))[0].state is State.PROCESSING


async def place_a_page(hall: Hall, monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker dies right after it has placed its first page."""
    real = job._place

    async def dies(*given: object) -> None:
        await real(*given)  # type: ignore[arg-type]
        raise ConnectionError

    with monkeypatch.context() as broken:
        broken.setattr(job, "_place", dies)
        while not await hall.orders():
            await make_due(hall)
            await advance_batches(hall.desk, 4)
    await make_due(hall)


async def make_due(hall: Hall) -> None:
    async with hall.db.transaction() as tx:
        await execute(tx, "UPDATE tasks SET run_at = now() WHERE lane = 'batch' AND state = 'ready'")


async def begin_a_restore(hall: Hall) -> None:
    async with hall.db.transaction() as tx:
        await execute(tx, "INSERT INTO restores (restore_id, begun_by, last_commit_at, xid_shift) VALUES ($1, 'test', now(), 0)", new_ulid())


async def test_a_batch_that_is_older_than_a_restore_buys_nothing_more(hall: Hall, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its next pages may have been placed, and delivered, after the restored point: under orders that nobody here can know."""
    waiting = await hall.send(phones(3), "B-2", confirm="manual")
    await hall.work()
    batch = await hall.send(phones(2 * PAGE))
    await place_a_page(hall, monkeypatch)
    unread = await hall.upload(f"sku,target\nphone,{PHONE}\n")
    await begin_a_restore(hall)
    async with hall.db.transaction() as tx:
        await actions.confirm(tx, *waiting.key)
    await hall.work()
    assert await hall.orders() == PAGE
    for one, left in ((batch, PAGE), (waiting, 3), (unread, 0)):
        found, counts = await hall.now(one)
        assert (found.state, counts.unprocessed) == (State.CANCELLED, left)
    assert {i.error_code for i in await hall.items(batch) if i.status == "unprocessed"} == {"batch_cancelled"}
    younger = await hall.send(phones(3), "B-3")
    await hall.work()
    assert (await hall.now(younger))[1].accepted == 3


async def test_a_batch_waits_while_the_database_is_not_where_its_rows_were(hall: Hall, migrated: Servers) -> None:
    batch = await hall.send(phones(3))
    async with hall.db.transaction() as tx:
        await restores.find_standing(tx)
    superuser = await _owner_connection(migrated.owner_url)
    try:
        await superuser.execute("UPDATE database_identity SET timeline_id = timeline_id + 1")
        await hall.work()
        assert await hall.orders() == 0
        await superuser.execute("UPDATE database_identity SET timeline_id = timeline_id - 1")
    finally:
        await superuser.close()
    await make_due(hall)
    await hall.work()
    assert (await hall.now(batch))[1].accepted == 3
