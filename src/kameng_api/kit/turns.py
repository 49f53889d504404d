"""Long computations that leave the loop to others now and then."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import TypeVar

Item = TypeVar("Item")


async def by_turns(items: Sequence[Item], at_once: int) -> AsyncIterator[Sequence[Item]]:
    """`items` in slices of `at_once`; after each of them everything else that is ready in this loop has its turn."""
    for start in range(0, len(items), at_once):
        yield items[start : start + at_once]
        await asyncio.sleep(0)
