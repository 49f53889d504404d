"""When failed work is tried again."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from kameng_api.tasks.rules import BUDGET, Due, Lane, Task, backoff, earliest


@given(attempts=st.integers(1, 10_000), chance=st.floats(0, 1, exclude_max=True))
def test_work_that_raised_waits_longer_each_time_and_never_longer_than_minutes(attempts: int, chance: float) -> None:
    wait_s = backoff(attempts, chance).total_seconds()
    base = min(2.0 ** (attempts - 1), 300.0) if attempts < 20 else 300.0
    assert 0.75 * base <= wait_s <= 1.25 * base
    assert 0.75 <= wait_s <= 375


def test_the_budget_lasts_more_than_an_hour() -> None:
    assert sum(backoff(n, 0.0).total_seconds() for n in range(1, BUDGET + 1)) > 1800


def test_lanes_are_the_words_of_the_database() -> None:
    assert {lane.value for lane in Lane} == {"submit", "look_up", "callback", "batch", "webhook", "door", "upkeep"}
    assert Task.__dataclass_params__.frozen  # type: ignore[attr-defined]


T0 = datetime(2026, 11, 22, tzinfo=UTC)
times = st.none() | st.integers(0, 9).map(lambda n: T0 + timedelta(seconds=n))


@given(st.lists(st.builds(Due, st.integers(16, 17), st.sampled_from(Lane), st.integers(0, 2).map(lambda n: UUID(int=n)), times)))
def test_work_made_due_several_times_at_once_is_due_once_and_earliest(items: list[Due]) -> None:
    found = earliest(items)
    keys = [(d.book_id, d.lane, d.ref) for d in found]
    assert len(set(keys)) == len(keys) and set(keys) == {(d.book_id, d.lane, d.ref) for d in items}
    for one in found:
        asked = [d.run_at for d in items if (d.book_id, d.lane, d.ref) == (one.book_id, one.lane, one.ref)]
        assert one.run_at == (None if None in asked else min(t for t in asked if t is not None))
