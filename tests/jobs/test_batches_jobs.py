"""Batches become orders: page by page, each once, whatever the rows say and whenever the worker dies."""

import asyncio
from collections import Counter as Tally
from types import SimpleNamespace
from typing import Any, cast

import orjson
import pytest
from tests.factories.counter import PHONE, PRICE, Counter, shop

from kameng_api.batches import actions, queries, requests
from kameng_api.batches.actions import NewBatch
from kameng_api.batches.errors import BatchNoConflict
from kameng_api.batches.queries import Item
from kameng_api.batches.requests import StoredRow
from kameng_api.batches.rules import PAGE, Batch, Counts, Options, State
from kameng_api.jobs.batches import WorkDesk, advance_batches
from kameng_api.kit.db import Database, execute, fetch
from kameng_api.kit.errors import StateConflict
from kameng_api.merchants.rules import Caller
from kameng_api.settings import Settings


class Hall:
    """One merchant, and a worker's desk that only makes batches."""

    def __init__(self, counter: Counter, settings: Settings, worker: str = "w1") -> None:
        self.counter = counter
        self.db = counter.db
        rung: list[str] = []
        buyer = SimpleNamespace(on_settled=lambda: rung.append("settled"))
        catalog = SimpleNamespace(current=counter.around.snapshot)
        found = SimpleNamespace(db=counter.db, keyring=counter.keyring, settings=settings, catalog=catalog, buyer=buyer, worker=worker)
        self.desk = cast(WorkDesk, found)
        self.catalog = catalog

    def new(self, rows: list[dict[str, Any]], number: str = "B-1", *, validate_only: bool = False, **options: Any) -> NewBatch:
        stored = [StoredRow(n, item=row) for n, row in enumerate(rows, 1)]
        return NewBatch(self.counter.book_id, number, "test", "CNY", Options(**options), validate_only, stored, ("sku",))

    async def send(self, rows: list[dict[str, Any]], number: str = "B-1", **more: Any) -> Batch:
        async with self.db.transaction() as tx:
            batch, _ = await actions.create(tx, self.counter.keyring, self.new(rows, number, **more))
        return batch

    async def upload(self, text: str, number: str = "F-1", *, filename: str = "a.csv", **options: Any) -> Batch:
        new = NewBatch(self.counter.book_id, number, "test", "CNY", Options(**options), False, content=text.encode(), filename=filename)
        async with self.db.transaction() as tx:
            batch, _ = await actions.create(tx, self.counter.keyring, new)
        return batch

    async def work(self, turns: int = 20) -> None:
        """Until nothing is due."""
        for _ in range(turns):
            if not await advance_batches(self.desk, 4):
                return
        raise AssertionError("never at rest")

    async def now(self, batch: Batch) -> tuple[Batch, Counts]:
        async with self.db.transaction() as tx:
            found = await queries.get_batch(tx, *batch.key)
            return found, await queries.count(tx, found)

    async def items(self, batch: Batch) -> list[Item]:
        async with self.db.transaction() as tx:
            return await queries.list_items(tx, batch, limit=100_000)

    async def statuses(self, batch: Batch) -> list[str]:
        return [item.shown for item in await self.items(batch)]

    async def orders(self) -> int:
        async with self.db.transaction() as tx:
            [row] = await fetch(tx, "SELECT count(*)::int AS n FROM orders WHERE book_id = $1", self.counter.book_id)
        return int(row["n"])

    async def end_orders(self, status: str = "succeeded") -> None:
        """As if the suppliers had answered; the batch's next look is due."""
        async with self.db.transaction() as tx:
            await execute(tx, "UPDATE orders SET status = $1, completed_at = now() WHERE status IN ('accepted', 'processing')", status)
            await execute(tx, "UPDATE tasks SET run_at = now() WHERE lane = 'batch'")

    async def events(self) -> list[tuple[str, dict[str, Any]]]:
        async with self.db.transaction() as tx:
            rows = await fetch(tx, "SELECT type, body FROM events WHERE starts_with(type, 'batch.') ORDER BY event_id")
        return [(r["type"], orjson.loads(r["body"])["data"]) for r in rows]


@pytest.fixture
async def hall(database: Database, settings: Settings) -> Hall:
    return Hall(await Counter.open(database, settings, money="100000"), settings)


def phones(n: int, **more: Any) -> list[dict[str, Any]]:
    return [{"sku": "phone", "target": PHONE, **more} for _ in range(n)]


async def test_a_batch_becomes_orders_and_is_over_when_they_are(hall: Hall) -> None:
    batch = await hall.send([*phones(3), {"sku": "nothing", "target": PHONE}])
    await hall.work()
    found, counts = await hall.now(batch)
    assert (found.state, counts.accepted, counts.invalid, counts.processing) == (State.PROCESSING, 3, 1, 3)
    assert counts.total_cost == 3 * PRICE
    assert [i.merchant_order_no for i in await hall.items(batch)] == ["B-1-1", "B-1-2", "B-1-3", "B-1-4"]
    await hall.end_orders()
    await hall.work()
    found, counts = await hall.now(batch)
    assert (found.state, counts.succeeded, counts.invalid, counts.unprocessed) == (State.COMPLETED_WITH_ERRORS, 3, 1, 0)
    assert found.final_counts == counts
    assert [kind for kind, _ in await hall.events()] == ["batch.validated", "batch.completed"]
    versions = [told["version"] for _, told in await hall.events()]
    assert versions == sorted(set(versions))
    assert (await hall.counter.money())[1] == 300
    async with hall.db.transaction() as tx:
        assert await fetch(tx, "SELECT 1 FROM tasks WHERE lane = 'batch'") == []


async def test_the_same_number_is_the_same_batch_or_a_conflict(hall: Hall) -> None:
    batch = await hall.send(phones(2))
    again = await hall.send(phones(2))
    assert again.batch_id == batch.batch_id
    with pytest.raises(BatchNoConflict) as refused:
        await hall.send(phones(3))
    assert refused.value.facts["existing_batch_id"].startswith("bat_")
    with pytest.raises(BatchNoConflict):
        await hall.send(phones(2), mode="all_or_nothing")


async def test_the_same_number_sent_at_once_is_one_batch(hall: Hall) -> None:
    sent = await asyncio.gather(*(hall.send(phones(3)) for _ in range(8)))
    assert len({b.batch_id for b in sent}) == 1
    await hall.work()
    assert await hall.orders() == 3


async def test_rows_that_were_ordered_before_are_duplicates_and_other_content_is_a_conflict(hall: Hall) -> None:
    first = await hall.counter.order("PO-1")
    await hall.counter.order("PO-2", quantity=2)
    batch = await hall.send([{"merchant_order_no": n, "sku": "phone", "target": PHONE} for n in ("PO-1", "PO-2", "PO-3", "PO-3")])
    await hall.work()
    items = await hall.items(batch)
    assert [i.status for i in items] == ["duplicate", "invalid", "placed", "duplicate"]
    assert (items[0].order_id, items[1].error_code) == (first.order_id, "merchant_order_no_conflict")
    assert items[2].order_id == items[3].order_id
    assert await hall.orders() == 3


async def test_stop_leaves_the_rest_and_skip_goes_on_with_what_can_be_paid(database: Database, settings: Settings) -> None:
    rows = [*phones(2), *phones(1, quantity=5), *phones(2)]
    stopped = ["accepted"] * 2 + ["unprocessed"] * 3
    skipped = ["accepted"] * 2 + ["unprocessed", "accepted", "unprocessed"]
    for policy, expected in (("stop", stopped), ("skip", skipped)):
        hall = Hall(await Counter.open(database, settings, money="300"), settings)
        batch = await hall.send(rows, on_insufficient_balance=policy)
        await hall.work()
        assert await hall.statuses(batch) == expected, policy
        assert {i.error_code for i in await hall.items(batch) if i.status == "unprocessed"} == {"insufficient_balance"}
        await hall.end_orders()
        await hall.work()
        found, counts = await hall.now(batch)
        assert found.state is State.COMPLETED_WITH_ERRORS
        assert counts.total == counts.invalid + counts.succeeded + counts.failed + counts.processing + counts.unprocessed


async def test_money_that_ends_on_a_later_page_stops_there(database: Database, settings: Settings) -> None:
    hall = Hall(await Counter.open(database, settings, money=str(100 * (PAGE + 7))), settings)
    batch = await hall.send(phones(PAGE * 3))
    await hall.work()
    assert Tally(await hall.statuses(batch)) == {"accepted": PAGE + 7, "unprocessed": 2 * PAGE - 7}
    assert await hall.counter.money() == (0, 100 * (PAGE + 7))


async def test_all_or_nothing_places_all(hall: Hall) -> None:
    batch = await hall.send(phones(PAGE + 5), mode="all_or_nothing")
    await hall.work()
    assert set(await hall.statuses(batch)) == {"accepted"}
    assert await hall.orders() == PAGE + 5


@pytest.mark.parametrize(
    ("money", "rows", "code"),
    [
        ("100000", [*phones(2), {"sku": "nothing"}], "rows_invalid"),
        (str(100 * PAGE), phones(PAGE + 1), "insufficient_balance"),
    ],
)
async def test_all_or_nothing_places_none(database: Database, settings: Settings, money: str, rows: list[dict[str, Any]], code: str) -> None:
    hall = Hall(await Counter.open(database, settings, money=money), settings)
    batch = await hall.send(rows, mode="all_or_nothing")
    await hall.work()
    found, counts = await hall.now(batch)
    assert (found.state, found.failure_code, counts.accepted) == (State.FAILED, code, 0)
    assert await hall.orders() == 0
    assert await hall.counter.money() == (int(money), 0)
    assert [kind for kind, _ in await hall.events()][-1] == "batch.completed"


async def test_a_row_that_cannot_be_bought_when_its_turn_comes_takes_all_with_it(hall: Hall) -> None:
    batch = await hall.send(phones(3), mode="all_or_nothing", confirm="manual")
    await hall.work()
    hall.catalog.current = shop(costs={"a": 2 * PRICE})  # dearer to buy than it is sold by now
    async with hall.db.transaction() as tx:
        await actions.confirm(tx, *batch.key)
    await hall.work()
    found, _ = await hall.now(batch)
    assert (found.state, found.failure_code) == (State.FAILED, "product_unavailable")
    assert await hall.statuses(batch) == ["refused", "unprocessed", "unprocessed"]


async def test_manual_confirmation_waits_and_validate_only_never_buys(hall: Hall) -> None:
    checked = await hall.send(phones(2), validate_only=True)
    waiting = await hall.send(phones(2), confirm="manual")
    await hall.work()
    for batch in (checked, waiting):
        assert (await hall.now(batch))[0].state is State.VALIDATED
    assert await hall.orders() == 0
    async with hall.db.transaction() as tx:
        with pytest.raises(StateConflict):
            await actions.confirm(tx, *checked.key)
    for _ in range(2):
        async with hall.db.transaction() as tx:
            assert (await actions.confirm(tx, *waiting.key)).state is State.PROCESSING
    await hall.work()
    assert await hall.orders() == 2


async def test_cancelled_before_its_turn_nothing_is_placed(hall: Hall) -> None:
    early, waiting = await hall.send(phones(2), "B-1"), await hall.send(phones(2), "B-2", confirm="manual")
    async with hall.db.transaction() as tx:
        await actions.cancel(tx, *early.key)
    await hall.work()
    async with hall.db.transaction() as tx:
        await actions.cancel(tx, *waiting.key)
        assert (await actions.cancel(tx, *waiting.key)).state is State.CANCELLED
    await hall.work()
    for batch in (early, waiting):
        found, counts = await hall.now(batch)
        assert (found.state, counts.unprocessed, found.final_counts) == (State.CANCELLED, 2, counts)
    assert await hall.orders() == 0


async def test_cancelled_in_the_middle_what_was_placed_lives_on(hall: Hall) -> None:
    batch = await hall.send(phones(2 * PAGE), confirm="manual")
    await hall.work()
    async with hall.db.transaction() as tx:
        await actions.confirm(tx, *batch.key)
        found, now = await queries.lock_batch(tx, *batch.key)
        at_desk = _desk_of(hall, found)
        await actions.place_page(tx, hall.counter.keyring, found, now, at_desk)
    async with hall.db.transaction() as tx:
        await actions.cancel(tx, *batch.key)
    await hall.work()
    found, counts = await hall.now(batch)
    assert (found.state, counts.processing, counts.unprocessed, found.final_counts) == (State.CANCELLED, PAGE, PAGE, None)
    await hall.end_orders()
    await hall.work()
    found, counts = await hall.now(batch)
    assert (found.state, counts.succeeded, counts.unprocessed, found.final_counts) == (State.CANCELLED, PAGE, PAGE, counts)
    async with hall.db.transaction() as tx:
        with pytest.raises(actions.OutOfTurn):
            found, now = await queries.lock_batch(tx, *batch.key)
            await actions.place_page(tx, hall.counter.keyring, found, now, at_desk)


def _desk_of(hall: Hall, batch: Batch) -> Any:
    caller = Caller("", hall.counter.merchant_id, "m", batch.book_id, "test", "standard", "CNY", frozenset(), "", "")
    return requests.Desk(caller, hall.catalog.current, batch.options, batch.merchant_batch_no)


async def test_equal_rows_become_one_order_and_each_row_has_it(hall: Hall) -> None:
    rows = [*phones(3), *phones(1, merchant_order_no="OWN-1"), *phones(PAGE, quantity=1), {"sku": "card"}]
    batch = await hall.send(rows, merge_equal=True)
    await hall.work()
    items = await hall.items(batch)
    assert set(await hall.statuses(batch)) == {"accepted"}
    equal = [i for i in items if i.sku == "phone" and i.merchant_order_no != "OWN-1"]
    orders = Tally(i.order_id for i in equal)
    assert sorted(orders.values()) == [53, 100, 100]  # a product's largest quantity is 100
    assert await hall.orders() == 3 + 2
    async with hall.db.transaction() as tx:
        units = await fetch(tx, "SELECT sum(quantity)::int AS n FROM orders WHERE sku = 'phone'")
    assert units[0]["n"] == PAGE + 4
    assert (await hall.now(batch))[1].total_cost == (PAGE + 5) * PRICE


async def test_a_face_value_is_split_into_what_is_on_sale(hall: Hall) -> None:
    batch = await hall.send(
        [
            {"face_value": "300", "target": PHONE}, {"face_value": "150", "target": PHONE},
            {"merchant_order_no": "OWN", "face_value": "100", "target": PHONE},
        ],
        split_skus=("phone",),
    )
    await hall.work()
    items = await hall.items(batch)
    assert [(i.line_no, i.part, i.status, i.merchant_order_no, i.quantity) for i in items] == [
        (1, 1, "placed", "B-1-1-1", 3), (2, 0, "invalid", None, None), (3, 1, "placed", "OWN-1", 1),
    ]  # fmt: skip
    async with hall.db.transaction() as tx:
        assert sum(i.amount for i in await queries.list_parts(tx, batch, 1)) == 3 * PRICE


async def test_a_file_is_read_and_its_bad_rows_are_told(hall: Hall) -> None:
    lines = ["merchant_order_no,sku,target,quantity,remark"]
    lines += [f"PO-{n},phone,{PHONE},1,shop {n}" for n in range(10)]
    lines += [f"PO-X,phone,{PHONE},0,", "PO-Y,phone,1.38E+10,1,", "PO-Z,phone,138,1,"]
    batch = await hall.upload("\n".join(lines))
    await hall.work()
    found, counts = await hall.now(batch)
    assert (found.state, counts.total, counts.accepted, counts.invalid) == (State.PROCESSING, 13, 10, 3)
    wrong = [(i.line_no, i.error_code, i.error_pointer) for i in await hall.items(batch) if i.status == "invalid"]
    assert [line for line, _, _ in wrong] == [12, 13, 14]
    assert wrong[1][1] == "scientific_notation"
    async with hall.db.transaction() as tx:
        assert await fetch(tx, "SELECT 1 FROM batch_files") == []
        pages = await fetch(tx, "SELECT sealed FROM batch_pages")
    assert all(PHONE.encode() not in row["sealed"] for row in pages)


async def test_a_file_that_cannot_be_read_fails_and_says_why(hall: Hall) -> None:
    batch = await hall.upload("not a workbook", filename="a.xlsx")
    await hall.work()
    found, counts = await hall.now(batch)
    assert (found.state, found.failure_code, counts.total) == (State.FAILED, "not_a_spreadsheet", 0)
    assert [kind for kind, _ in await hall.events()] == ["batch.completed"]


async def test_a_worker_without_its_lease_changes_nothing(hall: Hall) -> None:
    batch = await hall.send(phones(3))
    async with hall.db.transaction() as tx:
        await execute(tx, "UPDATE tasks SET state = 'running', lease_token = 1, lease_until = now() + interval '1 hour' WHERE lane = 'batch'")
    await hall.work()
    assert (await hall.now(batch))[0].pages_validated == 0
    await hall.counter.expire_leases()
    await hall.work()
    assert await hall.orders() == 3


async def test_many_workers_at_one_batch_place_each_row_once(hall: Hall, settings: Settings) -> None:
    batch = await hall.send(phones(4 * PAGE))
    others = [Hall(hall.counter, settings, f"w{n}") for n in range(3)]
    for _ in range(12):
        await hall.counter.expire_leases()  # every one of them is taken for dead all the time
        await asyncio.gather(*(advance_batches(o.desk, 4) for o in others))
    await hall.counter.expire_leases()
    await hall.work()
    assert Tally(await hall.statuses(batch)) == {"accepted": 4 * PAGE}
    assert await hall.orders() == 4 * PAGE
