"""A spoiled statement is spoiled in the way the knob says, and in no other; the wallet itself stays true."""

from collections import Counter
from datetime import datetime, timedelta, timezone

import pytest
from tests.simulator.conftest import World

from kameng_api.simulator import statements
from kameng_api.simulator.config import StatementFaults
from kameng_api.simulator.statements import Movement
from kameng_api.suppliers.port import LineKind

DAY = datetime(2026, 11, 22, tzinfo=statements.CHINA).timestamp()
MOVEMENTS = [
    Movement(n, DAY + n if n > 400 else DAY - 1000 + n, f"KMT{n}", f"SIM{n}", "", *(("CHARGE", -97_5000) if n % 10 else ("TOP_UP", 1_000_0000)), n)
    for n in range(1, 2001)
]
OURS = [m for m in MOVEMENTS if m.at >= DAY]


def told(**faults: object) -> list[dict[str, str]]:
    return statements.page(StatementFaults(seed=7, **faults), MOVEMENTS, DAY, "CNY")  # type: ignore[arg-type]


def test_at_rest_the_statement_is_the_day() -> None:
    lines = told()
    assert [line["line_id"] for line in lines] == [f"W{m.id}" for m in OURS]
    assert lines == told() and {line["balance_after"] == "" for line in lines} == {False}
    assert {line["balance_after"] for line in told(balances=False)} == {""}


@pytest.mark.parametrize(
    ("fault", "fewer_or_more"),
    [("missing_rate", -1), ("duplicate_rate", 1), ("repeat_rate", 1), ("stranger_rate", 1), ("no_reference_rate", 0), ("amount_rate", 0)],
)
def test_a_fault_befalls_its_share_and_always_the_same_lines(fault: str, fewer_or_more: int) -> None:
    lines = told(**{fault: 0.25})
    assert lines == told(**{fault: 0.25})
    struck = [m for m in OURS if statements.hits(StatementFaults(seed=7, **{fault: 0.25}), fault.removesuffix("_rate"), m.id)]  # type: ignore[arg-type]
    assert 0.2 * len(OURS) < len(struck) < 0.3 * len(OURS)
    assert len(lines) == len(OURS) + fewer_or_more * len(struck)
    rest = told()
    changed = [line for line in lines if line not in rest]
    counted = {
        "missing_rate": 0,
        "repeat_rate": 0,
        "amount_rate": sum(m.kind == "CHARGE" for m in struck),
    }.get(fault, len(struck))
    assert len(changed) == counted
    repeated = [n for n, count in Counter(line["line_id"] for line in lines).items() if count > 1]
    assert len(repeated) == (len(struck) if fault == "repeat_rate" else 0)


def test_a_line_of_another_day_is_told_once_and_on_the_day_after() -> None:
    own, after = told(other_day_rate=0.3), statements.page(StatementFaults(seed=7, other_day_rate=0.3), OURS, DAY + 86_400, "CNY")
    moved = {line["line_id"] for line in after}
    assert 400 < len(moved) < 600
    assert {f"W{m.id}" for m in OURS} - {line["line_id"] for line in own} == moved
    assert {line["line_id"] for line in own} - {f"W{m.id}" for m in OURS}, "some of the day before are told today"


def test_a_statement_made_anew_and_shuffled_says_the_same_under_other_numbers() -> None:
    lines = told(reissue=2, shuffle=True)
    assert {line["line_id"] for line in lines} == {f"W{m.id}R2" for m in OURS}
    assert [line["out_order_no"] for line in lines] != [m.reference for m in OURS]
    assert sorted(line["out_order_no"] for line in lines) == sorted(m.reference for m in OURS)


async def test_the_knobs_reach_the_adapter(world: World) -> None:
    today = datetime.now(timezone(timedelta(hours=8))).date()
    bought = [world.purchase() for _ in range(8)]
    for purchase in bought:
        await world.a.place(purchase)
    await world.simulator.call("POST", f"suppliers/sim-a/orders/{bought[0].reference}/advance", {"status": "REVERSED"})
    whole = await world.statement(world.a, today)
    ours = [line for line in whole if line.reference in {p.reference for p in bought}]
    assert [line.kind for line in ours] == [LineKind.CHARGE] * 8 + [LineKind.REVERSAL]
    assert (ours[-1].external_id or "").startswith("RV") and ours[-1].amount == -ours[0].amount
    await world.simulator.turn(statement={"missing_rate": 1})
    assert await world.statement(world.a, today) == []
    await world.simulator.turn(statement={"truncate_after": 3})
    assert await world.statement(world.a, today) == whole[:3]
    await world.simulator.turn()
    assert await world.statement(world.a, today) == whole
    assert world.a.balance is not None
    assert (await world.a.balance()).balance == whole[-1].balance_after


async def test_an_outage_can_concern_one_path_alone(world: World) -> None:
    await world.simulator.turn(outage="http_503", outage_paths=["query"])
    purchase = world.purchase()
    placed = (await world.a.place(purchase)).outcome
    assert type(placed).__name__ == "Delivered"
    assert type(await world.look_up(purchase)).__name__ == "Unknown"
    await world.simulator.turn()
    assert type(await world.look_up(purchase)).__name__ == "Delivered"
