"""拆单: the fewest parts, always the same ones, and an end to the search."""

import time
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kameng_api.batches.splitting import MOST_PARTS, TooFine, split

YUAN = 10_000


def _fewest(face_value: int, stock: dict[int, int | None]) -> int | None:
    """Every way there is, tried."""
    values = sorted(stock)
    counts = [range(min(face_value // v, face_value if stock[v] is None else stock[v] or 0) + 1) for v in values]
    sums = (sum(c) for c in product(*counts) if sum(n * v for n, v in zip(c, values, strict=True)) == face_value)
    return min(sums, default=None)


@given(
    face_value=st.integers(1, 60),
    stock=st.dictionaries(st.integers(1, 30), st.one_of(st.none(), st.integers(0, 4)), min_size=1, max_size=3),
)
def test_no_way_has_fewer_parts(face_value: int, stock: dict[int, int | None]) -> None:
    parts = split(face_value, stock, stock={value: left for value, left in stock.items() if left is not None})
    fewest = _fewest(face_value, stock)
    assert (parts is None) == (fewest is None)
    if parts is not None:
        assert sum(parts) == face_value
        assert len(parts) == fewest
        assert list(parts) == sorted(parts, reverse=True)
        assert all(left is None or parts.count(value) <= left for value, left in stock.items())
        assert set(parts) <= set(stock)


@given(st.integers(1, 200), st.lists(st.integers(1, 40), min_size=1, max_size=6), st.randoms())
def test_the_order_of_the_denominations_changes_nothing(face_value: int, denominations: list[int], random) -> None:  # type: ignore[no-untyped-def]
    shuffled = random.sample(denominations, len(denominations))
    assert split(face_value, denominations) == split(face_value, shuffled)


def test_greed_alone_would_take_more_parts() -> None:
    assert split(60 * YUAN, [50 * YUAN, 30 * YUAN, 10 * YUAN]) in ((50 * YUAN, 10 * YUAN), (30 * YUAN, 30 * YUAN))
    assert split(60 * YUAN, [50 * YUAN, 30 * YUAN, 5 * YUAN]) == (30 * YUAN, 30 * YUAN)


def test_of_equally_few_parts_the_smallest_are_avoided() -> None:
    assert split(60, [50, 30, 10]) == (30, 30)


def test_a_limited_denomination_is_not_used_more_often_than_it_is_there() -> None:
    assert split(300, [100, 50], stock={100: 2}) == (100, 100, 50, 50)
    assert split(300, [100, 50], stock={100: 2, 50: 1}) is None
    assert split(100, [100], stock={100: 0}) is None


@pytest.mark.parametrize(("face_value", "denominations"), [(35, [20, 10]), (5, [10]), (7, []), (7, [3, 5])])
def test_what_cannot_be_made_is_none(face_value: int, denominations: list[int]) -> None:
    assert split(face_value, denominations) is None


def test_more_parts_than_allowed_are_none() -> None:
    assert len(split(MOST_PARTS * YUAN, [YUAN]) or ()) == MOST_PARTS
    assert split((MOST_PARTS + 1) * YUAN, [YUAN]) is None
    assert split(11, [1], most_parts=10) is None


def test_large_values_end_soon() -> None:
    began = time.process_time()
    assert split(10**15, [10, 20, 50]) is None
    assert len(split(30_000 * YUAN, [500 * YUAN, 300 * YUAN, 200 * YUAN, 100 * YUAN, 50 * YUAN, 30 * YUAN]) or ()) == 60
    assert len(split(1_000_000, [9999, 9998, 5003, 7, 5001, 4999, 777, 11]) or ()) == 110
    with pytest.raises(TooFine):
        split(10**15, [10**13, 3])
    assert time.process_time() - began < 10
