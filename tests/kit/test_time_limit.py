"""One timer for many calls must behave as `asyncio.timeout` does for each."""

import asyncio

import pytest

from kameng_api.kit.time_limit import TimeLimit


async def test_a_call_that_takes_too_long_ends_in_a_timeout_and_others_do_not() -> None:
    limit = TimeLimit(0.05, slack_s=0.01)

    async def call(seconds: float) -> str:
        with limit():
            await asyncio.sleep(seconds)
        return "done"

    found = await asyncio.gather(call(0.01), call(5), call(0.02), call(5), return_exceptions=True)
    assert [type(f) for f in found] == [str, TimeoutError, str, TimeoutError]


async def test_each_call_has_its_own_time() -> None:
    limit = TimeLimit(0.1, slack_s=0.01)
    loop = asyncio.get_running_loop()

    async def late() -> float:
        started = loop.time()
        with pytest.raises(TimeoutError), limit():
            await asyncio.sleep(5)
        return loop.time() - started

    first = asyncio.create_task(late())
    await asyncio.sleep(0.06)
    second = asyncio.create_task(late())
    assert 0.09 < await first < 1
    assert 0.09 < await second < 1


async def test_a_cancellation_from_outside_stays_one() -> None:
    limit = TimeLimit(5)

    async def call() -> None:
        with limit():
            await asyncio.sleep(5)

    task = asyncio.create_task(call())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_error_of_the_call_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError), TimeLimit(5)():
        _ = 1 / 0


async def test_the_task_can_be_used_after_a_timeout() -> None:
    limit = TimeLimit(0.02, slack_s=0.01)
    with pytest.raises(TimeoutError), limit():
        await asyncio.sleep(5)
    await asyncio.sleep(0.05)
    assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]
    with limit():
        await asyncio.sleep(0)


async def test_calls_that_ended_are_forgotten() -> None:
    limit = TimeLimit(60)
    for _ in range(1000):
        with limit():
            pass
    assert len(limit._begun) <= 1
