"""What a simulated supplier decides, as a table of values."""

from random import Random

import pytest

from kameng_api.simulator import behaviour
from kameng_api.simulator.behaviour import MAGIC, Manner, plan
from kameng_api.simulator.config import Faults, Knobs, Latency, Role
from kameng_api.simulator.protocol import Status

WILD = Knobs(refuse_rate=1, hang_rate=1, reset_rate=1, async_rate=1, partial_rate=1, contradiction_rate=1)


class NoDraw(Random):
    def random(self) -> float:
        raise AssertionError("nothing was to be drawn")


def test_there_are_ten_magic_targets_and_no_knob_changes_them() -> None:
    assert sorted(MAGIC) == sorted(["10000000010", *(f"1000000000{n}" for n in range(1, 10))])
    for target in MAGIC:
        for role in Role:
            for units in (1, 2):
                wild = plan(WILD, role, target, units, NoDraw())
                assert wild == plan(Knobs(), role, target, units, NoDraw())


def test_knobs_at_rest_deliver_and_draw_nothing() -> None:
    assert plan(Knobs(), Role.PRIMARY, "10000000000", 3, NoDraw()) == behaviour.DELIVER


@pytest.mark.parametrize(
    ("role", "units", "start", "delivered"),
    [
        (Role.PRIMARY, 1, Status.SUCCESS, None),
        (Role.PRIMARY, 5, Status.PARTIAL, 1),
        (Role.SECONDARY, 1, Status.FAILED, None),
        (Role.SECONDARY, 5, Status.FAILED, None),
    ],
)
def test_target_6_by_role_and_units(role: Role, units: int, start: str, delivered: int | None) -> None:
    found = plan(Knobs(), role, "10000000006", units, NoDraw())
    assert (found.start, found.units) == (start, delivered)


def test_shares_are_kept() -> None:
    knobs = Knobs(refuse_rate=0.25, async_rate=0.5)
    draw = Random(3)
    starts = [plan(knobs, Role.PRIMARY, "", 1, draw).start for _ in range(4000)]
    assert 900 < starts.count(Status.FAILED) < 1100
    assert 1400 < starts.count(Status.PROCESSING) < 1600  # half of the rest


def test_a_lost_request_is_never_an_order() -> None:
    for knobs in (Knobs(hang_rate=1, hang_point="before"), Knobs(reset_rate=1, reset_point="before")):
        found = plan(knobs, Role.PRIMARY, "", 1, Random(1))
        assert not found.recorded and found.manner in (Manner.HANG, Manner.RESET)


def test_callback_times() -> None:
    knobs = Knobs(callback_copies=2, callback_delay_s=3, callback_reorder=True)
    times = behaviour.callback_times(knobs, Status.SUCCESS)
    assert [status for _, status in sorted(times)] == [Status.SUCCESS, Status.SUCCESS, Status.PROCESSING]
    assert min(times)[0] == 3
    assert behaviour.callback_times(Knobs(callback_copies=0, callback_reorder=True), Status.SUCCESS) == []


def test_callbacks_leave_in_batches() -> None:
    assert behaviour.sent_at(Knobs(), 101.5, 1) == 101.5
    batched = Knobs(callback_batch_s=60)
    assert [behaviour.sent_at(batched, at, 1) for at in (100, 119.9, 120, 121)] == [120, 120, 120, 180]
    assert behaviour.sent_at(batched, 100, 0.05) == 102


def test_a_late_failure_says_processing_first() -> None:
    knobs = Knobs(late_failure_rate=1, late_failure_after_s=240, late_failure_spread_s=120, refuse_code="STOCK_EMPTY")
    draw = Random(5)
    plans = [plan(knobs, Role.PRIMARY, "", 1, draw) for _ in range(200)]
    assert {found.start for found in plans} == {Status.PROCESSING}
    steps = [found.later[0] for found in plans]
    assert {(step.status, step.fail_code) for step in steps} == {(Status.FAILED, "STOCK_EMPTY")}
    assert 240 <= min(step.after_s for step in steps) < 260 and 340 < max(step.after_s for step in steps) <= 360


def test_a_product_has_its_own_faults_instead_of_the_accounts() -> None:
    knobs = Knobs(refuse_rate=1, products={"hf-10": Faults(), "hf-30": Faults(async_rate=1)})
    starts = [plan(knobs.of(code), Role.PRIMARY, "", 1, Random(1)).start for code in ("hf-100", "hf-10", "hf-30")]
    assert starts == [Status.FAILED, Status.SUCCESS, Status.PROCESSING]
    assert Knobs.model_validate_json(knobs.model_dump_json()) == knobs


def test_slower_by_a_factor() -> None:
    knobs = Knobs(async_rate=1, async_after_s=5, slow_factor=12, latency=Latency(kind="fixed", ms=30, max_ms=300))
    assert plan(knobs, Role.PRIMARY, "", 1, Random(1)).later[0].after_s == 60
    assert behaviour.wait_ms(knobs, NoDraw()) == 300


def test_latency_and_flapping() -> None:
    assert behaviour.wait_ms(Faults(), NoDraw()) == 0
    assert behaviour.wait_ms(Faults(latency=Latency(kind="fixed", ms=9)), NoDraw()) == 9
    drawn = sorted(behaviour.wait_ms(Faults(latency=Latency(kind="lognormal", ms=50, max_ms=400)), Random(n)) for n in range(500))
    assert 40 < drawn[250] < 60 and drawn[-1] <= 400
    flapping = Knobs(flapping_period_s=10)
    assert [behaviour.is_down(flapping, now, 1) for now in (100, 104, 105, 109, 110)] == [
        "none",
        "none",
        "http_503",
        "http_503",
        "none",
    ]
    assert behaviour.is_down(flapping, 100.3, 0.05) == "http_503"
