"""The forms that are hashed: a tree proves each of its leaves and nothing else, and there is one spelling of everything."""

import hashlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kameng_api.evidence.rules import (
    GENESIS,
    Header,
    canonical,
    commitment,
    header_from,
    is_canonical,
    leaf_hash,
    node_hash,
    path_of,
    root_from_path,
    root_of,
)

LEAVES = [leaf_hash(bytes([n])) for n in range(40)]


def test_the_tree_is_that_of_rfc_6962() -> None:
    """The definition by recursion, against the one by levels."""

    def mth(leaves: list[bytes]) -> bytes:
        if len(leaves) == 1:
            return leaves[0]
        k = 1 << (len(leaves) - 1).bit_length() - 1
        return hashlib.sha256(b"\x01" + mth(leaves[:k]) + mth(leaves[k:])).digest()

    for n in range(1, 41):
        assert root_of(LEAVES[:n]) == mth(LEAVES[:n])


@given(st.integers(1, 40), st.data())
def test_every_leaf_is_proven_and_no_other(count: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, count - 1))
    leaves = LEAVES[:count]
    path, root = path_of(leaves, index), root_of(leaves)
    assert root_from_path(leaves[index], index, count, path) == root
    assert root_from_path(leaf_hash(b"other"), index, count, path) != root
    assert root_from_path(leaves[index], index, count, [*path, GENESIS]) is None
    if path:
        assert root_from_path(leaves[index], index, count, path[:-1]) != root
    other = data.draw(st.integers(0, count - 1))
    if other != index:
        assert root_from_path(leaves[index], other, count, path) != root


def test_a_node_is_never_taken_for_a_leaf() -> None:
    left, right = LEAVES[:2]
    assert leaf_hash(left + right) != node_hash(left, right)


def test_a_header_reads_back_and_every_field_counts() -> None:
    header = Header(0, 2, 0, bytes([1] * 32), bytes([2] * 32), 3, 9, 10, 20, 1_700_000_000_000_000)
    assert header_from(header.form()) == header
    for change in ({"chain": 1}, {"no": 3}, {"epoch": 1}, {"prev": GENESIS}, {"root": GENESIS}, {"count": 4}, {"total": 8}, {"from_xid": 1},
                   {"upto_xid": 21}, {"at": 1}):  # fmt: skip
        assert replace(header, **change).hash != header.hash
    with pytest.raises(ValueError):
        header_from({**header.form(), "more": 1})


@pytest.mark.parametrize("other", [b'{"a": 1}', b'{"a":1} ', b'{"a":1.0,"b":1e2}', b'{"a":"\\u0041"}', b'{"a":1,"a":1}', b"[1]", b"", b"{"])
def test_there_is_one_spelling(other: bytes) -> None:
    assert is_canonical(canonical({"a": 1, "b": "卡"}))
    assert not is_canonical(other)


def test_a_commitment_hides_and_binds() -> None:
    one = commitment(b"s" * 32, "code:1", b"1234")
    assert one == commitment(b"s" * 32, "code:1", b"1234")
    others = (b"t" * 32, "code:1", b"1234"), (b"s" * 32, "code:2", b"1234"), (b"s" * 32, "code:1", b"1235")
    assert len({one, *(commitment(*other) for other in others)}) == 4
