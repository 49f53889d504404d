"""What a batch's rows mean, how they add up, and which steps it may take: decided from values."""

from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.factories.counter import PHONE, PRICE, shop

from kameng_api.batches.requests import Ask, Desk, StoredRow, Trouble, cells_of, headings_in, pack, plan_merging, read, unpack
from kameng_api.batches.rules import FINAL, STEPS, Batch, Counts, Group, Options, State, add_up, ended_state, percent
from kameng_api.kit.errors import StateConflict
from kameng_api.merchants.rules import Caller

CALLER = Caller("ak", UUID(int=1), "m", 16, "test", "standard", "CNY", frozenset(), "127.0.0.1", "r")


def a_batch(state: State = State.PROCESSING) -> Batch:
    return Batch(16, UUID(int=2), "B-1", b"f", "test", "CNY", "json", None, Options(), False, state)


def a_desk(**options: Any) -> Desk:
    return Desk(CALLER, shop(), Options(**options), "B-1")


def test_a_state_that_has_ended_allows_no_step() -> None:
    assert {State.COMPLETED, State.COMPLETED_WITH_ERRORS, State.FAILED, State.CANCELLED} == FINAL
    for state in FINAL:
        for to in State:
            with pytest.raises(StateConflict):
                a_batch(state).step(to)
    assert set(STEPS) == set(State)


def test_a_step_is_a_visible_change() -> None:
    batch = a_batch()
    batch.step(State.COMPLETED)
    assert (batch.state, batch.version) == (State.COMPLETED, 2)


GROUPS = st.builds(
    Group,
    st.sampled_from(("pending", "invalid", "placed", "duplicate", "refused", "unprocessed")),
    st.none(),
    st.integers(1, 50),
    st.integers(0, 10**9),
)
ORDER = st.sampled_from(("accepted", "processing", "succeeded", "partially_succeeded", "failed", "cancelled"))


@given(st.lists(GROUPS, max_size=8), ORDER, st.integers(0, 100))
def test_the_counts_always_add_up(groups: list[Group], order: str, unseen: int) -> None:
    told = [replace(g, order_status=order) if g.status in ("placed", "duplicate") else g for g in groups]
    total = sum(g.rows for g in told) + unseen
    counts = add_up(total, told)
    assert counts.total == counts.invalid + counts.succeeded + counts.failed + counts.processing + counts.unprocessed
    assert min(counts.unprocessed, counts.processing, counts.failed) >= 0
    assert counts.unprocessed >= unseen
    assert 0 <= percent(a_batch(), counts) <= 100
    assert percent(a_batch(State.COMPLETED), replace(counts, processing=0, unprocessed=counts.unprocessed + counts.processing)) == 100


def test_what_is_not_a_delivery_is_an_error_of_the_batch() -> None:
    assert ended_state(Counts(total=2, succeeded=2)) is State.COMPLETED
    for name in ("invalid", "failed", "unprocessed", "partially_succeeded"):
        assert ended_state(Counts(total=2, **{name: 1})) is State.COMPLETED_WITH_ERRORS


def test_a_row_is_the_same_order_from_json_and_from_a_file() -> None:
    item = {"merchant_order_no": "PO-1", "sku": "phone", "quantity": 2, "target": PHONE, "max_unit_price": "100", "fields": {"zone": "east"}}
    cells = {**{k: str(v) for k, v in item.items() if k != "fields"}, "fields.zone": "east", "remark": "=kept"}
    ours, theirs = read(StoredRow(1, item=item)), read(StoredRow(1, cells=cells))
    assert isinstance(ours, Ask)
    assert ours == theirs
    assert cells_of(StoredRow(1, item=item)) == {k: v for k, v in cells.items() if k != "remark"}


def test_pages_come_back_as_they_were() -> None:
    rows = [StoredRow(1, item={"sku": "a"}), StoredRow(2, cells={"sku": "b"}), StoredRow(3, cells={}, problem=Trouble("formula_cell", "/sku", "d"))]
    assert unpack(pack(rows, ("sku",))) == (rows, ["sku"])
    assert headings_in(pack(rows, ("sku",))) == {}
    under = pack(rows, ("sku", "shop"), ("商品编号", "shop"))
    assert (unpack(under), headings_in(under)) == ((rows, ["sku", "shop"]), {"sku": "商品编号", "shop": "shop"})


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ("quantity", "0"), ("quantity", "1.5"), ("quantity", "-1"), ("quantity", "１"), ("quantity", "100001"), ("sku", "a b"),
        ("merchant_order_no", "PO 1"), ("target", "1" * 65), ("max_unit_price", "1,5"), ("max_unit_price", "1e3"), ("deliver_within_s", "86401"),
        ("confirm_duplicate", "maybe"),
    ],
)  # fmt: skip
def test_a_cell_that_cannot_be_read_is_named_and_never_shown(cell: str, value: str) -> None:
    wrong = read(StoredRow(1, cells={"sku": "phone", "target": PHONE, cell: value}))
    assert isinstance(wrong, Trouble)
    assert (wrong.code, wrong.pointer) == ("validation_failed", f"/{cell}")


def test_numbers_are_made_of_the_batch_and_the_line() -> None:
    [made] = a_desk().decide(StoredRow(7, item={"sku": "phone", "target": PHONE}))
    assert (made.number, made.amount, made.status) == ("B-1-7", PRICE, "pending")
    [own] = a_desk().decide(StoredRow(7, item={"merchant_order_no": "PO", "sku": "phone", "target": PHONE}))
    assert own.number == "PO"


def test_merging_is_the_same_each_time_and_loses_no_unit() -> None:
    rows = [StoredRow(n, item={"sku": "phone", "target": PHONE if n % 2 else "13800138001", "quantity": n % 3 + 1}) for n in range(1, 60)]
    plan = plan_merging(rows, {"phone": 20})
    assert plan == plan_merging(rows, {"phone": 20})
    carriers = {line: quantity for line, (carrier, quantity) in plan.items() if carrier == line}
    assert sum(carriers.values()) == sum(n % 3 + 1 for n in range(1, 60))
    assert max(carriers.values()) <= 20
    assert all(rows[line - 1].item["target"] == rows[carrier - 1].item["target"] for line, (carrier, _) in plan.items())  # type: ignore[index]


def test_rows_with_numbers_of_their_own_are_never_merged() -> None:
    rows = [StoredRow(n, item={"merchant_order_no": f"PO-{n}", "sku": "phone", "target": PHONE}) for n in range(1, 4)]
    assert plan_merging(rows, {"phone": 20}) == {}


def test_a_face_value_is_split_and_a_part_is_never_more_than_its_product_allows() -> None:
    parts = a_desk(split_skus=("phone",)).decide(StoredRow(1, item={"face_value": "100", "quantity": 250, "target": PHONE}))
    assert [(p.part, p.sku, p.quantity, p.number) for p in parts] == [
        (1, "phone", 100, "B-1-1-1"), (2, "phone", 100, "B-1-1-2"), (3, "phone", 50, "B-1-1-3"),
    ]  # fmt: skip
    for wrong in ({"face_value": "150"}, {}):
        [refused] = a_desk(split_skus=("phone",)).decide(StoredRow(1, item={"target": PHONE, **wrong}))
        assert refused.status == "invalid"
    [refused] = a_desk().decide(StoredRow(1, item={"face_value": "100", "target": PHONE}))
    assert refused.trouble is not None
    assert refused.trouble.pointer == "/face_value"


@given(
    st.lists(st.tuples(st.sampled_from((PHONE, "13800138001")), st.integers(1, 5)), min_size=1, max_size=60),
    st.integers(1, 10),
    st.lists(st.sampled_from((0, 1, 3, 7, 20, 1000)), min_size=60, max_size=60),
)
def test_a_plan_that_is_made_anew_for_each_page_loses_and_doubles_no_unit(wanted: list[tuple[str, int]], page: int, largest: list[int]) -> None:
    """Whatever one order may hold by then: what earlier pages settled stays as it is."""
    rows = [StoredRow(n, item={"sku": "phone", "target": target, "quantity": units}) for n, (target, units) in enumerate(wanted, 1)]
    carried: dict[int, int] = {}
    settled: dict[int, int] = {}
    for start in range(0, len(rows), page):
        plan = plan_merging(rows, {"phone": largest[start // page]}, dict(settled))
        for row in rows[start : start + page]:
            carrier, quantity = plan[row.line_no]
            carried[row.line_no] = carrier
            if carrier == row.line_no:
                settled[carrier] = quantity
    sums: dict[int, int] = {}
    for line, carrier in carried.items():
        sums[carrier] = sums.get(carrier, 0) + wanted[line - 1][1]
    assert sums == settled
