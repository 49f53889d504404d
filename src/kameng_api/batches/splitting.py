"""拆单: a face value that nobody sells, made of face values that are on sale, in as few parts as possible."""

from collections.abc import Iterable, Mapping
from math import gcd
from typing import Final

MOST_PARTS: Final = 200
MOST_WORK: Final = 8_000_000
"""Face value in steps of the greatest common divisor, times the number of denominations: what is looked through in under a second."""


class TooFine(ValueError):
    """Too many steps and denominations to look through in bounded time; with face values as they are sold this does not happen."""


def split(
    face_value: int, denominations: Iterable[int], *, stock: Mapping[int, int] | None = None, most_parts: int = MOST_PARTS
) -> tuple[int, ...] | None:
    """The fewest parts that add up to `face_value`, largest first; None when no `most_parts` of them do. Raises TooFine.

    Amounts are positive, in one unit. `stock` says how many there are of a denomination, where that is limited. Of several ways with the fewest
    parts it is the one with the fewest of the smallest denomination, then of the next larger: the same question has one answer.
    """
    assert face_value > 0 and 0 < most_parts <= MOST_PARTS
    limits = stock or {}
    usable = {
        value: min(limits.get(value, most_parts), most_parts)
        for value in sorted(set(denominations), reverse=True)
        if 0 < value <= face_value and limits.get(value) != 0
    }
    if not usable or max(usable) * most_parts < face_value:
        return None
    step = gcd(*usable)
    if face_value % step:
        return None
    whole = face_value // step
    kinds = [(value // step, left) for value, left in usable.items()]
    if whole * len(kinds) > MOST_WORK:
        raise TooFine(f"{whole} steps of {len(kinds)} denominations")
    fewest = -(-whole // kinds[0][0])
    reach = min(most_parts, max(8, 2 * fewest))
    while True:
        found = _search(whole, kinds, reach)
        if found is not None or reach == most_parts:
            return None if found is None else tuple(value * step for value in found)
        reach = min(most_parts, reach * 4)


def _search(whole: int, kinds: list[tuple[int, int]], reach: int) -> list[int] | None:
    """At most `reach` parts. `sums[n]` is a number whose bit s says that n parts can add up to s: one shift tries every sum at once."""
    mask = (1 << (whole + 1)) - 1
    before: list[list[int]] = [[1, *([0] * reach)]]
    for value, left in kinds:
        before.append(_with(before[-1], value, left, mask))
    parts = next((n for n, sums in enumerate(before[-1]) if sums >> whole & 1), None)
    if parts is None:
        return None
    taken: list[int] = []
    for n in range(len(kinds), 0, -1):  # the smallest first, as few of it as will do
        value = kinds[n - 1][0]
        while not before[n - 1][parts] >> whole & 1:
            taken.append(value)
            parts, whole = parts - 1, whole - value
    return taken[::-1]


def _with(sums: list[int], value: int, left: int, mask: int) -> list[int]:
    """The sums when up to `left` of `value` may be added: bundles of 1, 2, 4, … of it make every number up to that."""
    sums = list(sums)
    bundle = 1
    while left > 0:
        bundle = min(bundle, left)
        for n in range(len(sums) - 1, bundle - 1, -1):
            if sums[n - bundle]:
                sums[n] |= sums[n - bundle] << (bundle * value) & mask
        left -= bundle
        bundle *= 2
    return sums
