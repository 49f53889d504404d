"""A cursor works in the list it was given for, and nowhere else."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kameng_api.kit import paging
from kameng_api.kit.paging import CursorInvalid

KEY = b"k" * 32
WORDS = st.lists(st.text(alphabet=st.characters(codec="utf-8"), max_size=20), max_size=4)


@given(WORDS, WORDS)
def test_a_cursor_brings_back_its_position(position: list[str], context: list[str]) -> None:
    cursor = paging.encode(KEY, position, context)
    assert re.fullmatch(r"[A-Za-z0-9._~-]+", cursor)
    assert paging.decode(KEY, cursor, context) == position


@given(WORDS, WORDS, WORDS)
def test_another_list_or_another_key_refuses_it(position: list[str], context: list[str], other: list[str]) -> None:
    cursor = paging.encode(KEY, position, context)
    if other != context:
        with pytest.raises(CursorInvalid):
            paging.decode(KEY, cursor, other)
    with pytest.raises(CursorInvalid):
        paging.decode(b"x" * 32, cursor, context)


def test_contexts_are_not_glued_together() -> None:
    cursor = paging.encode(KEY, ["1"], ["ab", "c"])
    for other in (["a", "bc"], ["abc"], ["ab", "c", ""], ["c", "ab"]):
        with pytest.raises(CursorInvalid):
            paging.decode(KEY, cursor, other)


def test_every_change_of_one_character_is_refused() -> None:
    cursor = paging.encode(KEY, ["2026-11-22T11:44:59Z", "01JD0000000000000000000009"], ["book"])
    for place in range(len(cursor)):
        for character in "A_-.~0z=%":
            changed = cursor[:place] + character + cursor[place + 1 :]
            if changed != cursor:
                with pytest.raises(CursorInvalid):
                    paging.decode(KEY, changed, ["book"])


@pytest.mark.parametrize("cursor", ["", ".", "a.b", "abc%3D", "é", "a" * 5000, "W10." + "A" * 20, "W10.", "\n"])
def test_made_up_cursors_are_refused(cursor: str) -> None:
    with pytest.raises(CursorInvalid) as caught:
        paging.decode(KEY, cursor, [])
    assert caught.value.code == "cursor_invalid"


def test_a_position_that_does_not_fit_is_our_mistake() -> None:
    with pytest.raises(ValueError, match="too long"):
        paging.encode(KEY, ["x" * 2000], [])
