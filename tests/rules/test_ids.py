"""Ids are what they claim to be, in both directions, and sort by time."""

import itertools
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kameng_api.kit import ids

ulids = st.integers(0, (1 << 128) - 1).map(lambda n: UUID(int=n))
books = st.integers(1, 32**6 - 1)


@given(ulids)
def test_an_id_survives_the_wire(ulid: UUID) -> None:
    text = ids.ulid_text(ulid)
    assert len(text) == 26
    assert ids.parse_ulid(text) == ulid
    assert ids.parse_public_id("ord", ids.public_id("ord", ulid)) == ulid


@given(ulids, ulids)
def test_texts_sort_as_ids_do(a: UUID, b: UUID) -> None:
    assert (ids.ulid_text(a) < ids.ulid_text(b)) == (a < b)


@given(books, ulids)
def test_a_reference_finds_its_book_and_row(book_id: int, ulid: UUID) -> None:
    reference = ids.book_reference(book_id, ulid)
    assert ids.parse_book_reference(reference) == (book_id, ulid)
    assert len(reference) <= 32
    assert reference.isalnum()
    assert reference == reference.upper()


@given(st.text(alphabet="0123456789ABCDEFGHJKMNPQRSTVWXYZ_ilou-é", max_size=40))
def test_a_foreign_text_is_no_id_or_reads_back_the_same(text: str) -> None:
    ulid = ids.parse_ulid(text)
    assert ulid is None or ids.ulid_text(ulid) == text
    found = ids.parse_book_reference(text)
    assert found is None or ids.book_reference(*found) == text
    public = ids.parse_public_id("ord", text)
    assert public is None or ids.public_id("ord", public) == text


@pytest.mark.parametrize(
    "text",
    ["", "ord_", "ord_81JD0000000000000000000000", "evt_01JD0000000000000000000000", "ord_01jd0000000000000000000000",
     "ord_01JD000000000000000000000I", "ord_01JD00000000000000000000000", "01JD0000000000000000000000", "ord01JD0000000000000000000000"],
)  # fmt: skip
def test_what_is_not_canonical_is_no_order_id(text: str) -> None:
    assert ids.parse_public_id("ord", text) is None


def test_fresh_ids_strictly_grow() -> None:
    made = [ids.new_ulid() for _ in range(50_000)]
    assert all(a < b for a, b in itertools.pairwise(made))


def test_an_id_begins_with_its_millisecond(monkeypatch: pytest.MonkeyPatch) -> None:
    far = 4_000_000_000_000
    monkeypatch.setattr(ids, "_last_ms", 0)
    monkeypatch.setattr(ids.time, "time_ns", lambda: far * 1_000_000)
    first, second = ids.new_ulid(), ids.new_ulid()
    assert first.int >> 80 == second.int >> 80 == far
    assert first < second


def test_ids_grow_when_the_clock_goes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ids, "_last_ms", 0)
    at = iter([5_000, 4_000, 3_000, 5_000, 5_001])
    monkeypatch.setattr(ids.time, "time_ns", lambda: next(at) * 1_000_000)
    made = [ids.new_ulid() for _ in range(5)]
    assert made == sorted(made)
    assert len(set(made)) == 5
