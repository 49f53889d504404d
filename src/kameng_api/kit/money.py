"""Amounts are integers in 1/10000 of the currency unit; text with four places exists only on the wire."""

import re
from typing import Final

SCALE: Final = 10_000
LARGEST: Final = 10**15  # 100 billion units: far above any order, far below BIGINT
_TEXT: Final = re.compile(r"\A(0|[1-9][0-9]{0,11})(?:\.([0-9]{1,4}))?\Z")


def format_amount(amount: int) -> str:
    """`985000` → `"98.5000"`; negative amounts carry a leading minus."""
    sign = "-" if amount < 0 else ""
    whole, part = divmod(abs(amount), SCALE)
    return f"{sign}{whole}.{part:04d}"


def parse_amount(text: str) -> int:
    """`"98.5"` → `985000`. Refuses signs, exponents, spaces, a fifth decimal, Unicode digits. Raises ValueError."""
    match = _TEXT.match(text)
    if match is None:
        raise ValueError("an amount is a decimal string with at most four places, such as \"98.5000\"")
    whole, part = match.groups()
    return int(whole) * SCALE + int((part or "").ljust(4, "0"))


def share_of(amount: int, units: int, of_units: int) -> int:
    """The part of `amount` that belongs to `units` of `of_units`, rounded down; the remainder stays with the other part."""
    assert 0 <= units <= of_units
    return amount * units // of_units


def at_rate(face_value: int, rate_ppm: int) -> int:
    """Price of a face value at a rate in parts per million, rounded up to 1/10000: the only place where money is rounded."""
    return -(-face_value * rate_ppm // 1_000_000)
