"""The machine itself works: one seed, twenty seconds of faults on everything, and a judge that finds nothing."""

from pathlib import Path

import pytest
from tests.chaos.faults import FAULTS
from tests.chaos.nemesis import plan
from tests.chaos.run import run, table

SEED = 20261122


@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_one_seed_of_chaos_loses_and_doubles_nothing(tmp_path: Path) -> None:
    outcome = await run(tmp_path / "chaos", SEED, 20.0, rate_per_s=30.0, small=True)
    assert outcome.green, table(outcome)
    assert outcome.orders > 200
    assert sum(outcome.faults.values()) >= 8


def test_the_same_seed_plans_the_same_faults() -> None:
    first, again, other = plan(7, 180.0), plan(7, 180.0), plan(8, 180.0)
    assert first == again
    assert first != other


def test_three_minutes_meet_every_fault_and_never_two_on_one_resource() -> None:
    for seed in range(4):
        shots = plan(seed, 180.0)
        assert {s.fault.name for s in shots} == {f.name for f in FAULTS}, {f.name for f in FAULTS} - {s.fault.name for s in shots}
        for n, one in enumerate(shots):
            for other in shots[n + 1 :]:
                if other.at_s < one.ends_at_s:
                    assert one.fault.resources(one.target).isdisjoint(other.fault.resources(other.target))
