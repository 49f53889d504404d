"""Breaks and what is done about them, on orders that really went through the rooms."""

from datetime import date, timedelta
from itertools import count
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from benchmarks.discrepancies import MAIN, Line, World, gap_of
from tests.factories.merchants import keyring_of, make_merchant

from kameng_api.catalog import queries as catalog_of
from kameng_api.kit.db import Database, execute, fetch
from kameng_api.kit.errors import Invalid
from kameng_api.kit.ids import public_id
from kameng_api.ledger import queries as ledger
from kameng_api.orders.choices import Surroundings
from kameng_api.reconciliation import actions, invariants, matching, queries
from kameng_api.reconciliation.errors import NotNow, SamePerson
from kameng_api.reconciliation.rules import Break
from kameng_api.settings import Settings

_NUMBERS = count()


class Desk(World):
    """A world in which one order is traded at a time and its lines are written by the test."""

    async def buy(self, plan: str) -> Any:
        async with self.db.transaction() as tx:
            around = Surroundings(await catalog_of.load_snapshot(tx))
        return (await self._buy(around, [plan], next(_NUMBERS)))[0]

    async def tell_lines(self, bought: Any, *moves: tuple[str, int], days: int = 3, **more: Any) -> date:
        """Land a statement of these movements (kind, amount) about one attempt, and empty ones after it; compare the day."""
        s = bought.submission
        lines = [
            Line(MAIN, f"T{len(self.lines)}-{n}", kind, amount, bought.at + timedelta(hours=1 + n), bought.day,
                 **{"reference": s.purchase.reference, "book_id": s.attempt_key[0], "attempt_id": s.attempt_key[1]} | more)
            for n, (kind, amount) in enumerate(moves)
        ]  # fmt: skip
        self.lines += lines
        for n in range(days):
            await self.land(lines if n == 0 else [], MAIN, bought.day + timedelta(days=n))
        await matching.run_day(self.db, MAIN, bought.day, "test")
        return bought.day  # type: ignore[no-any-return]

    async def breaks(self) -> list[Break]:
        async with self.db.transaction() as tx:
            return list(await queries.list_breaks(tx))

    async def the_break(self) -> Break:
        [one] = [b for b in await self.breaks() if b.state != "closed"]
        return one

    async def propose(self, b: Break, resolution: str, actor: str = "maker") -> None:
        async with self.db.transaction() as tx:
            await actions.propose(tx, b.break_id, actor, resolution, "because")

    async def decide(self, b: Break, actor: str = "checker", *, approve: bool = True, proposal: str | None = None) -> Break:
        """On what is proposed at this moment, or on what somebody saw."""
        async with self.db.transaction() as tx:
            seen = proposal or (await queries.get_break(tx, b.break_id)).proposal
            return await actions.decide(tx, self.keyring, actor, b.break_id, approve=approve, proposal=seen)

    async def auto(self) -> int:
        async with self.db.transaction() as tx:
            return await actions.auto_resolve(tx, self.keyring)

    async def sums(self, *accounts: str) -> list[int]:
        """Debits minus credits of each account in the merchant's book."""
        async with self.db.transaction() as tx:
            return [-await ledger.sum_of(tx, self.book_id, a, "CNY") for a in accounts]

    async def state(self, attempt_id: UUID) -> str:
        async with self.db.transaction() as tx:
            [row] = await fetch(tx, "SELECT state FROM attempts WHERE attempt_id = $1", attempt_id)
        return str(row["state"])

    async def holds(self) -> None:
        async with self.db.transaction() as tx:
            assert await invariants.check_all(tx) == []


CLAIM, PREPAID, VARIANCE, COGS = f"supplier_claim:{MAIN}", f"supplier_prepaid:{MAIN}", f"price_variance:{MAIN}", f"cogs:{MAIN}"


@pytest.fixture
async def desk(database: Database, settings: Settings) -> Desk:
    merchant = await make_merchant(database, settings, money="100000")

    async def nobody(statements: Any) -> None:
        raise AssertionError

    made = Desk(database, keyring_of(settings), merchant.merchant_id, merchant.book_id, 1, nobody)
    await made.stock()
    return made


def _attempt(bought: Any) -> UUID:
    return bought.submission.attempt_key[1]  # type: ignore[no-any-return]


async def test_a_statement_settles_an_unknown_outcome_as_an_answer_would(desk: Desk) -> None:
    good, bad = await desk.buy("R6"), await desk.buy("R6")
    await desk.tell_lines(good, ("charge", -900_000))
    await desk.tell_lines(bad, ("charge", -900_000), ("refund", 900_000))
    assert sorted(b.class_ for b in await desk.breaks()) == ["R6", "R6"]
    assert await desk.auto() == 2
    assert (await desk.state(_attempt(good)), await desk.state(_attempt(bad))) == ("delivered", "refused")
    assert all((b.state, b.automatic, b.resolution) == ("closed", True, "settle") for b in await desk.breaks())
    async with desk.db.transaction() as tx:
        beats = await fetch(tx, "SELECT DISTINCT beat FROM supplier_answers WHERE outcome IN ('delivered', 'refused')")
    assert [r["beat"] for r in beats] == ["statement"]
    assert await desk.auto() == 0


async def test_a_late_reversal_pays_the_merchant_back_once(desk: Desk) -> None:
    bought = await desk.buy("clean-ok")
    await desk.tell_lines(bought, ("charge", -900_000), ("reversal", 900_000), external_id="RV1")
    assert (await desk.the_break()).class_ == "R12"
    assert await desk.auto() == 1
    async with desk.db.transaction() as tx:
        refunds = await fetch(tx, "SELECT amount FROM refunds")
    assert [r["amount"] for r in refunds] == [1_000_000]
    await matching.run_day(desk.db, MAIN, bought.day, "test")
    assert [b.state for b in await desk.breaks()] == ["closed"]
    await desk.holds()


async def test_a_small_variance_is_posted_and_a_large_one_needs_two_people(desk: Desk) -> None:
    small, large = await desk.buy("clean-ok"), await desk.buy("clean-ok")
    await desk.tell_lines(small, ("charge", -900_060))
    await desk.tell_lines(large, ("charge", -905_000))
    assert await desk.auto() == 1
    assert await desk.sums(VARIANCE) == [60]
    b = await desk.the_break()
    assert (b.class_, b.amount) == ("R7", 5_000)
    await desk.propose(b, "loss")
    with pytest.raises(SamePerson):
        await desk.decide(b, "maker")
    assert (await desk.decide(b)).state == "closed"
    assert await desk.sums(COGS, PREPAID) == [1_805_000, -1_805_060]
    await matching.run_day(desk.db, MAIN, small.day, "test")
    assert {b.state for b in await desk.breaks()} == {"closed"}  # explained stays explained
    await desk.holds()


async def test_a_claim_is_open_until_it_is_paid(desk: Desk) -> None:
    bought = await desk.buy("clean-ok")
    await desk.tell_lines(bought, ("charge", -900_000), ("charge", -900_000))
    b = await desk.the_break()
    assert (b.class_, b.amount) == ("R8", 900_000)
    await desk.propose(b, "claim")
    assert (await desk.decide(b)).state == "approved"
    assert await desk.sums(CLAIM) == [900_000]
    assert await desk.auto() == 0
    await desk.tell_lines(bought, ("refund", 900_000))
    assert await desk.auto() == 1
    assert await desk.sums(CLAIM, PREPAID) == [0, -900_000]
    assert [x.closed_because for x in await desk.breaks()] == ["paid"]
    await desk.holds()


async def test_delivered_after_release_goes_through_suspense_and_leaves_it(desk: Desk) -> None:
    bought = await desk.buy("R4")
    await desk.tell_lines(bought, ("charge", -900_000))
    b = await desk.the_break()
    assert b.class_ == "R4"
    await desk.propose(b, "park")
    assert (await desk.decide(b)).state == "waiting"
    assert await desk.sums("suspense", PREPAID) == [900_000, -900_000]
    with pytest.raises(Invalid):
        await desk.propose(b, "park")
    await desk.propose(b, "loss", "other")
    assert (await desk.decide(b)).state == "closed"
    assert await desk.sums("suspense", COGS) == [0, 900_000]
    await matching.run_day(desk.db, MAIN, bought.day, "test")
    assert [x.state for x in await desk.breaks()] == ["closed"]
    await desk.holds()


async def test_absence_proves_nothing_before_the_window_is_told_nor_while_a_day_does_not_add_up(desk: Desk) -> None:
    bought = await desk.buy("clean-ok")
    day = await desk.tell_lines(bought, days=2)
    assert [(b.class_, b.state) for b in await desk.breaks()] == [("R2", "waiting")]
    async with desk.db.transaction() as tx:
        await actions.record_break(tx, gap_of(MAIN, "test", day, 5))
    await desk.land([], MAIN, day + timedelta(days=2))
    await matching.run_day(desk.db, MAIN, day, "test")
    assert sorted(b.class_ for b in await desk.breaks()) == ["R11", "R2"]
    async with desk.db.transaction() as tx:
        assert await actions.close_gone(tx, "R11", f"day:{MAIN}:{day}:CNY", "adds up now")
    await matching.run_day(desk.db, MAIN, day, "test")
    became = {b.class_: (b.state, b.closed_because) for b in await desk.breaks()}
    assert became["R3"] == ("open", None) and became["R2"] == ("closed", "became R3")
    await desk.tell_lines(bought, ("charge", -900_000))  # it came after all
    assert {b.state for b in await desk.breaks()} == {"closed"}


async def test_a_gap_stops_everything_automatic_on_its_channel(desk: Desk) -> None:
    bought = await desk.buy("clean-ok")
    day = await desk.tell_lines(bought, ("charge", -900_060))
    async with desk.db.transaction() as tx:
        await actions.record_break(tx, gap_of(MAIN, "test", day, 5))
    assert await desk.auto() == 0
    async with desk.db.transaction() as tx:
        await actions.close_gone(tx, "R11", f"day:{MAIN}:{day}:CNY", "adds up now")
    assert await desk.auto() == 1


async def test_a_stranger_is_linked_by_two_people_and_then_compared(desk: Desk) -> None:
    bought = await desk.buy("clean-ok")
    nobody: dict[str, Any] = {"reference": "TYPO", "book_id": None, "attempt_id": None}
    await desk.tell_lines(bought, ("charge", -900_000), **nobody)
    stranger = next(b for b in await desk.breaks() if b.class_ == "R5")
    async with desk.db.transaction() as tx:
        evidence = await queries.break_evidence(tx, stranger.break_id)
    assert [s["attempt_id"] for s in evidence["suggestions"]] == [] or evidence["suggestions"][0]["attempt_id"] == _attempt(bought)
    with pytest.raises(Invalid):
        await desk.propose(stranger, "link:att_nonsense")
    await desk.propose(stranger, "link:" + public_id("att", _attempt(bought)))
    assert (await desk.decide(stranger)).state == "closed"
    await matching.run_day(desk.db, MAIN, bought.day, "test")
    assert {b.state for b in await desk.breaks()} == {"closed"}


async def test_facts_that_moved_since_the_proposal_are_not_approved(desk: Desk) -> None:
    bought = await desk.buy("clean-ok")
    await desk.tell_lines(bought, ("charge", -900_000), ("charge", -900_000))
    b = await desk.the_break()
    await desk.propose(b, "loss")
    await desk.tell_lines(bought, ("charge", -900_000))
    with pytest.raises(NotNow):
        await desk.decide(b)
    assert await desk.sums(COGS) == [900_000]


async def test_a_run_that_was_cut_off_goes_on_and_ends_the_same(desk: Desk) -> None:
    for _ in range(6):
        desk.lines.clear()
        bought = await desk.buy("clean-ok")
        s = bought.submission
        line = Line(MAIN, f"C{s.attempt_key[1]}", "charge", -900_500, bought.at, bought.day, s.purchase.reference, *s.attempt_key)
        await desk.land([line], MAIN, bought.day)
    async with desk.db.transaction() as tx:
        run = await matching.start_run(tx, MAIN, bought.day, "test")
    for _ in range(4):
        async with desk.db.transaction() as tx:
            run = await matching.advance(tx, run, page=2)
    with pytest.raises(ZeroDivisionError):
        async with desk.db.transaction() as tx:
            await matching.advance(tx, run, page=2)
            raise ZeroDivisionError
    done = await matching.run_day(desk.db, MAIN, bought.day, "test", page=2)
    assert (done.run_id, done.state, done.counts["matched"], done.counts["opened"]) == (run.run_id, "done", 6, 6)


async def test_the_database_itself_wants_two_people(desk: Desk) -> None:
    bought = await desk.buy("clean-ok")
    await desk.tell_lines(bought, ("charge", -900_000), ("charge", -900_000))
    b = await desk.the_break()
    for change in (
        "proposed_by = 'a', approved_by = 'a', resolution = 'loss'",
        "state = 'closed', closed_at = now(), resolution = 'loss', proposed_by = 'a'",
        "state = 'closed', closed_at = now(), resolution = 'loss', automatic = true",
        "parked_key = 'k', parked_by = 'a', parked_checked_by = 'a'",
    ):
        with pytest.raises(asyncpg.CheckViolationError):
            async with desk.db.transaction() as tx:
                await execute(tx, f"UPDATE recon_breaks SET {change} WHERE break_id = $1", b.break_id)
    for change in ("UPDATE recon_lines SET amount = 1", "DELETE FROM recon_lines", "DELETE FROM recon_breaks", "DELETE FROM recon_matches"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with desk.db.transaction() as tx:
                await execute(tx, change)


async def test_a_break_of_ours_pages_somebody(desk: Desk) -> None:
    bought = await desk.buy("clean-ok")
    await desk.tell_lines(bought, ("charge", -905_000))
    async with desk.db.transaction() as tx:
        alarms = await fetch(tx, "SELECT kind, subject FROM alarms WHERE closed_at IS NULL")
    assert [tuple(r) for r in alarms] == [("books_disagree", f"reconciliation:R7:{MAIN}")]
