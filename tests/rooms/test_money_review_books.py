"""What could book twice, pay twice or buy twice where their books meet ours."""

from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from benchmarks.discrepancies import MAIN, Line
from tests.rooms.test_reconciliation import COGS, PREPAID, Desk, _attempt, desk
from tests.rules.test_reconciliation_rules import OVER, _only, facts

from kameng_api.jobs import reconciliation as jobs
from kameng_api.jobs.stops import stop
from kameng_api.kit.db import execute, fetch
from kameng_api.kit.errors import Invalid
from kameng_api.kit.ids import public_id, ulid_text
from kameng_api.ledger import stops
from kameng_api.ledger.actions import post_one
from kameng_api.ledger.queries import Breach
from kameng_api.ledger.rules import reconciled
from kameng_api.orders.absorb import News
from kameng_api.orders.settle import Settlement, settle
from kameng_api.reconciliation import landing, matching, queries
from kameng_api.reconciliation.errors import SamePerson
from kameng_api.reconciliation.rules import Break, Terms, classify
from kameng_api.reconciliation.sources import SourceWanted, put_source
from kameng_api.settings import Settings
from kameng_api.suppliers.port import Answer, Capabilities, Reversed

__all__ = ["desk"]
COST, PRICE = 900_000, 1_000_000


async def _resolve(desk: Desk, resolution: str) -> Break:
    b = await desk.the_break()
    await desk.propose(b, resolution)
    return await desk.decide(b)


async def _called_back(desk: Desk, bought: Any, number: str, amount: int) -> None:
    book_id, attempt_id = bought.submission.attempt_key
    news = News(book_id, attempt_id, "callback", Answer(Reversed(number, amount), b"{}"), Capabilities())
    async with desk.db.transaction() as tx:
        await settle(tx, desk.keyring, [Settlement(news, order_id=bought.submission.order_key[1])])


async def _refunded(desk: Desk) -> int:
    async with desk.db.transaction() as tx:
        [row] = await fetch(tx, "SELECT coalesce(sum(amount), 0)::bigint AS amount FROM refunds")
    return int(row["amount"])


async def test_two_reversals_on_a_statement_and_their_callbacks_pay_back_once(desk: Desk) -> None:
    bought = await desk.buy("clean-ok")
    await desk.tell_lines(bought, ("charge", -COST), ("reversal", 300_000), external_id="RV1")
    await desk.tell_lines(bought, ("reversal", 300_000), external_id="RV2")
    assert await desk.auto() == 1
    assert await desk.sums(COGS, PREPAID) == [300_000, -300_000]
    paid_back = await _refunded(desk)
    await _called_back(desk, bought, "RV1", 300_000)
    await _called_back(desk, bought, "RV2", 300_000)
    assert await desk.sums(COGS, PREPAID) == [300_000, -300_000]
    assert await _refunded(desk) == paid_back
    await matching.run_day(desk.db, MAIN, bought.day, "test")
    assert {b.state for b in await desk.breaks()} == {"closed"}
    await desk.holds()


async def test_what_was_booked_for_the_first_part_of_a_difference_is_not_booked_again(desk: Desk) -> None:
    bought = await desk.buy("clean-ok")
    await desk.tell_lines(bought, ("charge", -905_000))
    await _resolve(desk, "loss")
    await desk.tell_lines(bought, ("charge", -1_000))
    b = await desk.the_break()
    assert b.amount == 1_000
    await _resolve(desk, "loss")
    assert await desk.sums(COGS, PREPAID) == [906_000, -906_000]
    await matching.run_day(desk.db, MAIN, bought.day, "test")
    assert {b.state for b in await desk.breaks()} == {"closed"}


async def test_a_loss_whose_money_comes_back_later_is_a_difference_again(desk: Desk) -> None:
    bought = await desk.buy("clean-ok")
    await desk.tell_lines(bought, ("charge", -COST), ("charge", -COST))
    assert (await _resolve(desk, "loss")).class_ == "R8"
    await desk.tell_lines(bought, ("refund", COST))
    b = await desk.the_break()
    assert (b.class_, b.amount) == ("R7", -COST)
    await _resolve(desk, "gain")
    assert await desk.sums(COGS, PREPAID) == [COST, -COST]
    await matching.run_day(desk.db, MAIN, bought.day, "test")
    assert {b.state for b in await desk.breaks()} == {"closed"}
    await desk.holds()


async def test_a_gain_whose_charge_comes_later_is_a_difference_again(desk: Desk) -> None:
    bought = await desk.buy("clean-ok")
    await desk.tell_lines(bought)
    assert (await _resolve(desk, "gain")).class_ == "R3"
    assert await desk.sums(COGS, PREPAID) == [0, 0]
    await desk.tell_lines(bought, ("charge", -COST))
    assert (await desk.the_break()).amount == COST
    await _resolve(desk, "loss")
    assert await desk.sums(COGS, PREPAID) == [COST, -COST]


async def test_what_is_parked_comes_out_of_suspense_when_its_line_comes_after_all(desk: Desk) -> None:
    bought = await desk.buy("clean-ok")
    await desk.tell_lines(bought)
    await _resolve(desk, "park")
    assert await desk.sums("suspense", PREPAID) == [-COST, 0]
    await desk.tell_lines(bought, ("charge", -COST))
    assert (await _resolve(desk, "explain")).state == "closed"
    assert await desk.sums("suspense", PREPAID, COGS) == [0, -COST, COST]
    await matching.run_day(desk.db, MAIN, bought.day, "test")
    assert {b.state for b in await desk.breaks()} == {"closed"}
    await desk.holds()


async def test_what_is_parked_and_then_settled_is_given_back_once(desk: Desk) -> None:
    bought = await desk.buy("clean-ok")
    await desk.tell_lines(bought)
    await _resolve(desk, "park")
    await _resolve(desk, "settle")
    assert await desk.sums("suspense", PREPAID, COGS) == [0, 0, 0]


async def test_a_parked_stranger_that_is_linked_leaves_suspense(desk: Desk) -> None:
    bought = await desk.buy("clean-ok")
    await desk.tell_lines(bought, ("charge", -COST), reference="TYPO", book_id=None, attempt_id=None)
    stranger = next(b for b in await desk.breaks() if b.class_ == "R5")
    await desk.propose(stranger, "park")
    await desk.decide(stranger)
    await desk.propose(stranger, "link:" + public_id("att", _attempt(bought)))
    await desk.decide(stranger)
    async with desk.db.transaction() as tx:
        [row] = await fetch(
            tx, "SELECT coalesce(sum(CASE WHEN debit_account = 'suspense' THEN amount ELSE -amount END), 0)::bigint AS amount FROM transfers "
            "WHERE 'suspense' IN (debit_account, credit_account)",
        )  # fmt: skip
    assert row["amount"] == 0


async def test_a_strangers_name_of_another_day_is_another_charge(desk: Desk) -> None:
    bought = await desk.buy("clean-ok")
    for n in range(2):
        day = bought.day + timedelta(days=n)
        await desk.land([Line(MAIN, f"X{n}", "charge", -COST, bought.at + timedelta(days=n), day, reference="WHO")], MAIN, day)
        await matching.run_day(desk.db, MAIN, day, "test")
    strangers = [b for b in await desk.breaks() if b.class_ == "R5"]
    assert [b.amount for b in strangers] == [COST, COST]


async def test_a_stopped_book_does_not_stop_what_the_machine_settles_for_others(desk: Desk) -> None:
    bought = await desk.buy("clean-ok")
    await desk.tell_lines(bought, ("charge", -900_060))
    async with desk.db.transaction() as tx:
        assert await stop(tx, [Breach("chain", desk.book_id, "made up")]) == [desk.book_id]
    assert await desk.auto() == 0  # passed over; a refusal would roll back everybody's
    async with desk.db.transaction() as tx:
        await stops.lift(tx, desk.book_id, "looked at it", "ann")
    assert await desk.auto() == 1


async def test_units_charged_one_by_one_are_no_last_word_before_the_window_is_over() -> None:
    one_of_three = facts("unknown", units=3, cost=225, told=(75, 0), prepaid=-225, wip=225)
    assert not _only(classify(one_of_three, Terms(charges_at_success=True))).automatic
    assert _only(classify(replace(one_of_three, charged=225), Terms(charges_at_success=True))).automatic
    assert _only(classify(one_of_three, replace(OVER, charges_at_success=True))).automatic


async def test_a_reversal_of_what_was_never_reported_goes_to_a_person() -> None:
    reversed_ = facts("unknown", told=(75, 75), reversals=1)
    assert [(f.class_, f.automatic) for f in classify(reversed_, OVER)] == [("R6", False)]


async def test_rows_that_could_not_be_read_do_not_count_as_told(desk: Desk) -> None:
    bought = await desk.buy("clean-ok")
    await desk.tell_lines(bought)
    async with desk.db.transaction() as tx:
        assert bought.day in (await queries.terms_of(tx, MAIN)).over_days
        await execute(tx, "UPDATE recon_files SET rows_bad = 1 WHERE day = $1", bought.day)
        assert bought.day not in (await queries.terms_of(tx, MAIN)).over_days


async def test_a_day_is_told_when_every_enabled_source_told_it(desk: Desk) -> None:
    bought = await desk.buy("clean-ok")
    await desk.tell_lines(bought)
    async with desk.db.transaction() as tx:
        assert bought.day in (await queries.terms_of(tx, MAIN)).over_days
        await put_source(tx, SourceWanted(MAIN, "refunds", "fetch"))
        assert bought.day not in (await queries.terms_of(tx, MAIN)).over_days
        await put_source(tx, SourceWanted(MAIN, "refunds", "fetch", enabled=False))
        assert bought.day in (await queries.terms_of(tx, MAIN)).over_days


async def test_no_person_alone_makes_a_live_statement_count(desk: Desk) -> None:
    async with desk.db.transaction() as tx:
        mapping = {"columns": {"at": "at", "amount": "amount", "kind": "kind", "line_id": "id", "reference": "ref"}, "kinds": {"C": "charge"}}
        source = await put_source(tx, SourceWanted(MAIN, "mail", "upload", mapping=mapping))
        telling = await landing.begin(tx, source, (await desk.today())[0], "f", "ann", sha256=b"x" * 32)
        file = await landing.finish(tx, telling, with_bytes=True)
        await execute(tx, "UPDATE recon_files SET environment = 'live' WHERE file_id = $1", file.file_id)
        with pytest.raises(SamePerson):
            await landing.accept(tx, file.file_id, "ann")
        assert (await landing.accept(tx, file.file_id, "bob")).state == "accepted"


async def test_a_tolerance_has_a_bound(desk: Desk) -> None:
    async with desk.db.transaction() as tx:
        with pytest.raises(Invalid):
            await put_source(tx, SourceWanted(MAIN, "wide", "fetch", tolerance=10_001))


async def test_a_break_that_the_books_refuse_goes_to_a_person_and_stops_no_other(desk: Desk, settings: Settings) -> None:
    wrong, fine = await desk.buy("clean-ok"), await desk.buy("R6")
    await desk.tell_lines(wrong, ("charge", -900_060))
    await desk.tell_lines(fine, ("charge", -COST), ("refund", COST))
    b = next(b for b in await desk.breaks() if b.class_ == "R7")
    async with desk.db.transaction() as tx:  # its event is taken by another one
        await post_one(tx, reconciled(b.book_id, f"var:{ulid_text(b.break_id)}", "variance", "CNY", "suspense", PREPAID, 1, None, b.break_id))
    at_work: Any = SimpleNamespace(db=desk.db, keyring=desk.keyring, settings=settings)
    assert await jobs.settle(at_work) == 1
    assert await desk.state(_attempt(fine)) == "refused"
    assert await jobs.settle(at_work) == 0
    assert {b.class_: b.state for b in await desk.breaks()} == {"R7": "open", "R6": "closed"}
