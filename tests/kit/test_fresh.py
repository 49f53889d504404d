"""A value kept fresh in the background, that stands when it cannot be read again."""

import asyncio

import pytest

from kameng_api.kit.fresh import Fresh


class Source:
    def __init__(self) -> None:
        self.loads = 0
        self.broken = False

    async def __call__(self) -> int:
        if self.broken:
            raise OSError("away")
        self.loads += 1
        return self.loads


async def test_the_value_is_loaded_again_and_again_until_stopped() -> None:
    source = Source()
    fresh = Fresh(source, 0.01)
    await fresh.start()
    assert fresh.current == 1
    await asyncio.sleep(0.1)
    assert fresh.current >= 3 and fresh.age_s < 0.1
    await fresh.stop()
    loads = source.loads
    await asyncio.sleep(0.05)
    assert source.loads == loads


async def test_the_last_value_stands_while_loading_fails_and_recovers() -> None:
    source = Source()
    fresh = Fresh(source, 0.01)
    await fresh.start()
    source.broken = True
    await asyncio.sleep(0.05)
    stale, age = fresh.current, fresh.age_s
    assert stale >= 1 and age > 0.02
    with pytest.raises(OSError, match="away"):
        await fresh.refresh()
    source.broken = False
    await asyncio.sleep(0.05)
    assert fresh.current > stale
    await fresh.stop()


async def test_a_first_load_that_fails_stops_the_start() -> None:
    source = Source()
    source.broken = True
    with pytest.raises(OSError, match="away"):
        await Fresh(source, 1).start()


def test_a_value_that_was_never_loaded_is_not_given_out() -> None:
    with pytest.raises(AssertionError):
        _ = Fresh(Source(), 1).current
