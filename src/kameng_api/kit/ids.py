"""Ids are ULIDs: 48 bits of milliseconds, 80 random bits, kept as UUID in the database and as `prefix_` + 26 characters on the wire."""

import hashlib
import os
import time
from functools import lru_cache
from typing import Final
from uuid import UUID

_ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS: Final = [a + b for a in _ALPHABET for b in _ALPHABET]
_VALUE: Final = {c: i for i, c in enumerate(_ALPHABET)}
_RANDOM_MASK: Final = (1 << 80) - 1
_MAX_REFERENCE_BOOK: Final = 32**6
_STEPS_AT_ONCE: Final = 512

_last_ms = 0
_last_random = 0
_steps = bytearray()
"""Random bytes fetched ahead, one for each id that shares its millisecond with the one before: asking the system costs more than the id."""


def new_ulid() -> UUID:
    """A fresh id, strictly increasing within this process."""
    global _last_ms, _last_random  # noqa: PLW0603  monotony within a process needs the last value
    ms = time.time_ns() // 1_000_000
    if ms <= _last_ms:
        ms = _last_ms
        if not _steps:
            _steps.extend(os.urandom(_STEPS_AT_ONCE))
        _last_random = (_last_random + 1 + _steps.pop()) & _RANDOM_MASK
        if _last_random < 257:  # wrapped: borrow the next millisecond
            ms += 1
    else:
        _last_random = int.from_bytes(os.urandom(10), "big") >> 1
    _last_ms = ms
    return UUID(int=ms << 80 | _last_random)


def _forget() -> None:
    """A forked child must not go on with its parent's random numbers."""
    global _last_ms  # noqa: PLW0603
    _last_ms = 0
    _steps.clear()


os.register_at_fork(after_in_child=_forget)


def derived_ulid(parent: UUID, name: str) -> UUID:
    """The id of something that can be named by what it belongs to: whoever knows `parent` and `name` finds the same id again.

    It carries its parent's time, so that it lies near it in every index.
    """
    digest = hashlib.sha256(b"kameng/ulid/1\n" + parent.bytes + name.encode()).digest()
    return UUID(int=(parent.int >> 80 << 80) | int.from_bytes(digest[:10], "big"))


@lru_cache(maxsize=8192)  # an order's id is said some five times within the flush that makes it
def ulid_text(ulid: UUID) -> str:
    """26 characters of Crockford base32."""
    value = ulid.int
    return "".join([_PAIRS[(value >> shift) & 1023] for shift in range(120, -1, -10)])


def public_id(prefix: str, ulid: UUID) -> str:
    return f"{prefix}_{ulid_text(ulid)}"


def parse_ulid(text: str) -> UUID | None:
    """The id behind 26 canonical characters, else None."""
    if len(text) != 26 or text[0] > "7":
        return None
    value = 0
    for c in text:
        digit = _VALUE.get(c)
        if digit is None:
            return None
        value = value << 5 | digit
    return UUID(int=value)


def parse_public_id(prefix: str, text: str) -> UUID | None:
    """`ord_01J…` → UUID when the prefix fits and the rest is canonical, else None."""
    head, _, tail = text.partition("_")
    return parse_ulid(tail) if head == prefix else None


def book_reference(book_id: int, ulid: UUID) -> str:
    """Our reference to the outside (≤ 32 characters of [0-9A-Z]): the book in base32, then the ULID, so that an answer finds its rows by itself."""
    assert 0 < book_id < _MAX_REFERENCE_BOOK
    head = ""
    while book_id:
        book_id, digit = divmod(book_id, 32)
        head = _ALPHABET[digit] + head
    return head + ulid_text(ulid)


def parse_book_reference(reference: str) -> tuple[int, UUID] | None:
    """The inverse of `book_reference`; None for anything that we did not make."""
    head, ulid = reference[:-26], parse_ulid(reference[-26:])
    if ulid is None or not 1 <= len(head) <= 6 or head[0] == "0" or any(c not in _VALUE for c in head):
        return None
    book_id = 0
    for c in head:
        book_id = book_id * 32 + _VALUE[c]
    return book_id, ulid
