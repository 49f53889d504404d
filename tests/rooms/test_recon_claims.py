"""Claims that wait for their money: what else is wrong with the same purchase is seen beside them, and each is paid once."""

from datetime import date, timedelta
from typing import Any
from uuid import UUID

import pytest
from benchmarks.discrepancies import MAIN, Line
from tests.rooms.test_reconciliation import CLAIM, COGS, PREPAID, Desk, desk

from kameng_api.api.admin import reconciliation_shapes as shapes
from kameng_api.kit.db import execute, fetch
from kameng_api.kit.ids import public_id
from kameng_api.ledger import queries as ledger
from kameng_api.reconciliation import matching
from kameng_api.reconciliation.queries import house_book_of
from kameng_api.reconciliation.rules import Break, payable

__all__ = ["desk"]

A, B, C = (UUID(int=n) for n in (1, 2, 3))


@pytest.mark.parametrize(
    ("claims", "taken", "paid"),
    [
        ([(A, 900)], 900, None),
        ([(A, 900)], 0, A),
        ([(A, 900)], -50, A),  # more came back than was claimed: the rest is a difference of its own
        ([(A, 900)], 400, None),  # a part pays nothing
        ([(A, 900), (B, 5)], 900, B),  # what fits exactly, before what is older
        ([(A, 900), (B, 900)], 900, A),
        ([(A, 900), (B, 900)], 0, A),
        ([(A, 500), (B, 300), (C, 100)], 0, A),
        ([], 0, None),
    ],
)
def test_which_claim_was_paid(claims: list[tuple[UUID, int]], taken: int, paid: UUID | None) -> None:
    assert payable(claims, taken) == paid


async def _claimed(desk: Desk, b: Break) -> None:
    await desk.propose(b, "claim")
    assert (await desk.decide(b)).state == "approved"


async def _open(desk: Desk) -> list[tuple[str, int]]:
    return [(b.class_, b.amount) for b in await desk.breaks() if b.state not in ("closed", "approved")]


async def _run_again(desk: Desk, day: date) -> None:
    before = [(b.break_id, b.state, b.fingerprint) for b in await desk.breaks()]
    run = await matching.run_day(desk.db, MAIN, day, "test")
    assert (run.counts.get("opened"), run.counts.get("closed")) == (0, 0)
    assert await desk.auto() == 0
    assert [(b.break_id, b.state, b.fingerprint) for b in await desk.breaks()] == before


async def test_a_further_duplicate_is_seen_beside_an_approved_claim_and_each_is_paid(desk: Desk) -> None:
    bought = await desk.buy("clean-ok")
    day = await desk.tell_lines(bought, ("charge", -900_000), ("charge", -900_000))
    [first] = await desk.breaks()
    await _claimed(desk, first)
    await _run_again(desk, day)  # what is claimed is explained

    await desk.tell_lines(bought, ("charge", -900_000))  # they do it again
    assert await _open(desk) == [("R8", 900_000)]  # that one charge, not both
    [second] = [b for b in await desk.breaks() if b.state == "open"]
    assert second.first_seen_at > first.first_seen_at
    await _claimed(desk, second)
    assert await desk.sums(CLAIM, PREPAID, COGS) == [1_800_000, -2_700_000, 900_000]
    await _run_again(desk, day)

    await desk.tell_lines(bought, ("refund", 900_000))
    assert await _open(desk) == []
    assert await desk.auto() == 1  # one of them, once
    assert await desk.auto() == 0
    assert await desk.sums(CLAIM, PREPAID) == [900_000, -1_800_000]
    assert sorted((b.state, b.closed_because) for b in await desk.breaks() if b.break_id == second.break_id) == [("approved", None)]

    await desk.tell_lines(bought, ("refund", 900_000))
    assert await desk.auto() == 1
    assert await desk.sums(CLAIM, PREPAID, COGS) == [0, -900_000, 900_000]
    assert [b.closed_because for b in await desk.breaks()] == ["paid", "paid"]
    await _run_again(desk, day)
    await desk.holds()


async def test_money_back_for_two_claims_at_once_pays_both(desk: Desk) -> None:
    bought = await desk.buy("clean-ok")
    await desk.tell_lines(bought, ("charge", -900_000), ("charge", -900_000))
    await _claimed(desk, (await desk.breaks())[0])
    await desk.tell_lines(bought, ("charge", -900_000))
    [second] = [b for b in await desk.breaks() if b.state == "open"]
    await _claimed(desk, second)
    await desk.tell_lines(bought, ("refund", 1_800_000))
    assert await desk.auto() == 2
    assert await desk.sums(CLAIM, PREPAID) == [0, -900_000]


async def test_a_part_of_a_claim_is_neither_a_payment_nor_a_difference(desk: Desk) -> None:
    bought = await desk.buy("clean-ok")
    day = await desk.tell_lines(bought, ("charge", -900_000), ("charge", -900_000))
    await _claimed(desk, (await desk.breaks())[0])
    await desk.tell_lines(bought, ("refund", 400_000))
    assert (await _open(desk), await desk.auto()) == ([], 0)
    await desk.tell_lines(bought, ("refund", 500_000))
    assert await desk.auto() == 1
    await desk.tell_lines(bought, ("refund", 50_000))  # more than they took: that is new
    assert await _open(desk) == [("R12", -50_000)] or [c for c, _ in await _open(desk)] == ["R7"]
    assert day == bought.day


# ---- charges of nobody


async def _stranger(desk: Desk, day: date, name: str, *amounts: int) -> None:
    _, at = await desk.today()
    lines = [Line(MAIN, f"N{len(desk.lines)}-{n}", "charge" if a < 0 else "refund", a, at, day, reference=name) for n, a in enumerate(amounts)]
    desk.lines += lines
    await desk.land(lines, MAIN, day)
    await matching.run_day(desk.db, MAIN, day, "test")


async def _house(desk: Desk, *accounts: str) -> list[int]:
    async with desk.db.transaction() as tx:
        return [-await ledger.sum_of(tx, house_book_of("test"), a, "CNY") for a in accounts]


async def test_a_claim_for_a_strangers_charge_is_paid_when_it_is_given_back(desk: Desk) -> None:
    day, _ = await desk.today()
    await _stranger(desk, day, "ELSE1", -900_000)
    [b] = await desk.breaks()
    await _claimed(desk, b)
    assert (await _house(desk, CLAIM, PREPAID), await desk.auto()) == ([900_000, -900_000], 0)
    await _stranger(desk, day + timedelta(days=1), "ELSE2", 900_000)  # somebody else's
    assert await desk.auto() == 0
    await _stranger(desk, day + timedelta(days=1), "ELSE1", 900_000)
    assert await desk.auto() == 1
    assert await _house(desk, CLAIM, PREPAID) == [0, 0]
    known = {x.evidence["name"] + str(x.amount): x for x in await desk.breaks()}
    assert (known["ELSE1900000"].closed_because, known["ELSE2-900000"].state) == ("paid", "open")
    payment = known["ELSE1-900000"]
    assert (payment.state, payment.resolution, payment.proposed_by, payment.approved_by) == ("closed", "explain", "maker", "checker")
    assert payment.note == f"pays the claim {public_id('brk', b.break_id)}"
    for n in (0, 1):
        await _run_again(desk, day + timedelta(days=n))
    await desk.holds()


async def test_a_strangers_charge_beside_a_claimed_one_is_seen_alone_and_what_comes_back_the_same_day_pays(desk: Desk) -> None:
    day, _ = await desk.today()
    await _stranger(desk, day, "ELSE1", -900_000)
    await _claimed(desk, (await desk.breaks())[0])
    await _stranger(desk, day, "ELSE1", -500_000)
    assert await _open(desk) == [("R5", 500_000)]
    await _claimed(desk, next(b for b in await desk.breaks() if b.state == "open"))
    assert await _house(desk, CLAIM) == [1_400_000]
    await _stranger(desk, day, "ELSE1", 500_000)
    assert (await _open(desk), await desk.auto()) == ([], 1)
    assert await _house(desk, CLAIM, PREPAID) == [900_000, -900_000]
    assert {b.amount: b.closed_because for b in await desk.breaks()} == {900_000: None, 500_000: "paid"}
    await _run_again(desk, day)
    await _stranger(desk, day, "ELSE1", 900_000)
    assert await desk.auto() == 1
    assert await _house(desk, CLAIM, PREPAID) == [0, 0]
    await _run_again(desk, day)
    await desk.holds()


async def test_claims_for_one_name_are_paid_on_other_days_and_stay_explained(desk: Desk) -> None:
    day, _ = await desk.today()
    for amount in (-900_000, -500_000):
        await _stranger(desk, day, "ELSE1", amount)
        await _claimed(desk, next(b for b in await desk.breaks() if b.state == "open"))
    for n, amount in ((1, 500_000), (2, 900_000)):
        await _stranger(desk, day + timedelta(days=n), "ELSE1", amount)
        assert await desk.auto() == 1
    assert await _house(desk, CLAIM, PREPAID) == [0, 0]
    for n in range(3):
        await _run_again(desk, day + timedelta(days=n))
    await _stranger(desk, day, "ELSE1", -100_000)  # and again, that day
    assert await _open(desk) == [("R5", 100_000)]


# ---- what must not depend on statistics


@pytest.mark.parametrize("huge", [False, True])
@pytest.mark.parametrize("name", ["_OF_SENT", "_OF_TOLD", "_BY_REFERENCE"])
async def test_no_plan_of_a_page_can_become_the_product_of_two_pages(desk: Desk, name: str, huge: bool) -> None:
    """Whatever the planner believes of the tables, lookups go by key: a free join once compared every attempt of a page with every line of it."""
    bought = await desk.buy("clean-ok")
    day = await desk.tell_lines(bought, ("charge", -900_000))
    start, end = matching.day_bounds(day)
    sql = {"_OF_SENT": matching._legs(matching._OF_SENT), "_OF_TOLD": matching._legs(matching._OF_TOLD), "_BY_REFERENCE": matching._BY_REFERENCE}
    values: dict[str, tuple[Any, ...]] = {
        "_OF_SENT": (MAIN, start, end), "_OF_TOLD": (MAIN, day, 0, 2**62, start, end), "_BY_REFERENCE": (MAIN, day, 0, 2**62, A),
    }  # fmt: skip
    async with desk.db.transaction() as tx:
        if huge:
            await execute(tx, "SET LOCAL enable_nestloop = off")  # as if everything were believed to be huge
        await execute(tx, "SET LOCAL enable_seqscan = off")
        plan = "\n".join(r[0] for r in await fetch(tx, "EXPLAIN " + sql[name], *values[name]))
    for free in ("Hash Join", "Hash Left Join", "Hash Right", "Merge Join", "Merge Left", "Anti Join", "Seq Scan"):
        assert free not in plan, plan


async def test_a_run_says_how_far_each_source_was_believed(desk: Desk) -> None:
    day, _ = await desk.today()
    before = await matching.run_day(desk.db, MAIN, day, "test")
    async with desk.db.transaction() as tx:
        await execute(tx, "UPDATE recon_sources SET complete = false, charges_at = 'success', window_days = 0 WHERE channel_id = $1", MAIN)
    after = await matching.run_day(desk.db, MAIN, day, "test")
    said = [[(t["source"], t["complete"], t["charges_at"], t["window_days"]) for t in run.terms] for run in (before, after)]
    assert said == [[(MAIN, True, "submission", 2)], [(MAIN, False, "success", 0)]]
    assert shapes.run(after)["terms"][0]["tolerance"] == "0.0100"
