"""One order through dispatch, answers, refunds and reviews, with everything that may go wrong between two transactions."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import orjson
import pytest
from tests.factories.counter import ALWAYS, Counter, shop

from kameng_api.kit.crypto import CryptoError
from kameng_api.kit.db import Database, execute, fetch
from kameng_api.kit.errors import Invalid, Problem, StateConflict
from kameng_api.kit.ids import new_ulid
from kameng_api.kit.sets import Moved
from kameng_api.orders import actions, codes, queries
from kameng_api.orders.absorb import News
from kameng_api.orders.actions import Resolution
from kameng_api.orders.changes import CodeSoldBefore
from kameng_api.orders.dispatch import Submission, dispatch
from kameng_api.orders.rules import Order
from kameng_api.orders.settle import Settlement, settle, settle_copies
from kameng_api.settings import Settings
from kameng_api.suppliers.port import (
    Accepted,
    Answer,
    Cause,
    Code,
    Delivered,
    NotFound,
    NotSent,
    RefusalReason,
    Refused,
    Reversed,
    Scope,
    Unknown,
)
from kameng_api.suppliers.queries import recent_health

NO = Refused(Scope.CHANNEL, RefusalReason.OUT_OF_STOCK)
NEVER = Refused(Scope.ORDER, RefusalReason.TARGET_INVALID)
YES = Delivered(1, cost=900_000, receipt="R")


@pytest.fixture
async def counter(database: Database, settings: Settings) -> Counter:
    return await Counter.open(database, settings)


# ---- the straight ways ---------------------------------------------------------------------------------------------


async def test_a_delivered_order_is_captured_once(counter: Counter) -> None:
    order, submission = await counter.buy()
    assert (submission.channel_id, submission.purchase.units, submission.purchase.max_cost) == ("a", 1, 900_000)
    assert await counter.told(submission, YES) == "succeeded"
    assert await counter.money() == (9_900, 0)
    assert await counter.tasks() == []
    assert [e for e, _ in await counter.events(order)] == ["order.accepted", "order.processing", "order.succeeded"]
    await counter.holds()


async def test_the_next_channel_is_asked_after_a_definite_no_and_not_before(counter: Counter) -> None:
    order, first = await counter.buy()
    assert await counter.dispatch() == []  # live: nothing else may be bought
    await counter.told(first, NO)
    [second] = await counter.dispatch()
    assert (first.channel_id, second.channel_id) == ("a", "b")
    await counter.told(second, NO)
    assert await counter.dispatch() == []
    assert ((await counter.now(order)).status, (await counter.now(order)).failure_code) == ("failed", "out_of_stock")
    assert await counter.money() == (10_000, 0)
    await counter.holds()


async def test_a_no_that_holds_everywhere_ends_the_order(counter: Counter) -> None:
    order, submission = await counter.buy()
    assert await counter.told(submission, NEVER) == "failed"
    assert (await counter.now(order)).failure_code == "target_invalid"
    assert len(await counter.attempts(order)) == 1
    await counter.holds()


async def test_units_are_bought_until_they_are_all_there(counter: Counter) -> None:
    order, first = await counter.buy(quantity=3)
    await counter.told(first, Delivered(1, cost=900_000))
    [second] = await counter.dispatch()
    assert (second.channel_id, second.purchase.units) == ("b", 2)
    assert await counter.told(second, Delivered(2)) == "succeeded"
    assert (await counter.now(order)).captured == 3_000_000
    await counter.holds()


async def test_what_nobody_delivers_is_returned(counter: Counter) -> None:
    order, first = await counter.buy(quantity=3)
    await counter.told(first, Delivered(1, cost=900_000))
    [second] = await counter.dispatch()
    await counter.told(second, NO)
    assert await counter.dispatch() == []
    now = await counter.now(order)
    assert (now.status, now.captured, await counter.money()) == ("partially_succeeded", 1_000_000, (9_900, 0))
    await counter.holds()


async def test_a_channel_that_could_not_be_reached_is_asked_again_after_a_pause(counter: Counter) -> None:
    order, first = await counter.buy()
    await counter.told(first, NotSent("refused connection"))
    [second] = await counter.dispatch()
    assert second.channel_id == "b"
    await counter.told(second, NotSent("refused connection"))
    assert await counter.dispatch() == []
    assert (await counter.now(order)).status == "processing"  # both are only paused
    assert await counter.tasks() == [("submit", "ready")]
    await counter.everything_due()
    async with counter.db.transaction() as tx:
        await execute(tx, "UPDATE attempts SET settled_at = now() - interval '1 minute'")
    [third] = await counter.dispatch()
    assert third.channel_id == "a"
    await counter.told(third, YES)
    await counter.holds()


async def test_a_purchase_that_no_channel_has_words_for_fails_at_once_and_not_at_its_deadline(counter: Counter) -> None:
    order, first = await counter.buy()
    await counter.told(first, NotSent("it has no face values", Cause.UNSAYABLE))
    [second] = await counter.dispatch()
    assert second.channel_id == "b"
    await counter.told(second, NotSent("it sells in yuan only", Cause.UNSAYABLE))
    assert await counter.dispatch() == []
    now = await counter.now(order)
    assert (now.status, now.failure_code, await counter.money()) == ("failed", "all_channels_refused", (10_000, 0))
    assert [a.trouble for a in await counter.attempts(order)] == ["it has no face values", "it sells in yuan only"]
    await counter.holds()


# ---- deadlines, limits, costs --------------------------------------------------------------------------------------


async def _pass_the_deadline(counter: Counter) -> None:
    async with counter.db.transaction() as tx:
        await execute(tx, "UPDATE orders SET deadline_at = now() - interval '1 second'")


async def test_a_deadline_that_passed_before_dispatch_fails_the_order(counter: Counter) -> None:
    order = await counter.order()
    await _pass_the_deadline(counter)
    assert await counter.dispatch() == []
    assert ((await counter.now(order)).failure_code, await counter.money()) == ("deadline_passed", (10_000, 0))
    await counter.holds()


@pytest.mark.parametrize("outcome", [Accepted("S"), Unknown("silence")])
async def test_a_deadline_never_ends_an_order_while_an_attempt_may_deliver(counter: Counter, outcome: Any) -> None:
    order, submission = await counter.buy()
    await counter.told(submission, outcome)
    await _pass_the_deadline(counter)
    await counter.expire_leases()
    assert await counter.dispatch() == []
    assert (await counter.now(order)).status == "processing"
    assert await counter.told(submission, YES, "look_up") == "succeeded"
    await counter.holds()


async def test_after_the_deadline_no_other_channel_is_tried(counter: Counter) -> None:
    order, submission = await counter.buy()
    await _pass_the_deadline(counter)
    await counter.told(submission, NO)
    assert await counter.dispatch() == []
    assert (await counter.now(order)).failure_code == "deadline_passed"
    await counter.holds()


async def test_a_channel_is_never_sent_more_than_its_limit_at_once(counter: Counter) -> None:
    for n in range(8):
        await counter.order(f"PO-{n}")
    sent = await counter.dispatch(room={"a": 3, "b": 2})
    assert sorted(s.channel_id for s in sent) == ["a"] * 3 + ["b"] * 2
    assert (await counter.tasks()).count(("submit", "ready")) == 3
    await counter.everything_due()
    assert len(await counter.dispatch(room={"a": 0, "b": 0})) == 0
    await counter.everything_due()
    assert len(await counter.dispatch()) == 3
    await counter.holds()


async def test_what_became_dearer_than_the_price_is_not_bought(counter: Counter) -> None:
    order = await counter.order()
    assert await counter.dispatch(snapshot=shop(costs={"a": 1_000_001, "b": 2_000_000})) == []
    assert (await counter.now(order)).failure_code == "price_exceeded"
    await counter.holds()


async def test_a_loss_that_the_operator_allows_waits_for_a_busy_channel(counter: Counter) -> None:
    dear = shop(costs={"a": 1_500_000})
    dear = replace(dear, products={k: replace(p, allow_below_cost=True) for k, p in dear.products.items()})
    counter.around = replace(counter.around, snapshot=dear)
    order = await counter.order()
    assert await counter.dispatch(room={"a": 0}) == []
    assert (await counter.now(order)).status == "accepted"
    await counter.everything_due()
    [submission] = await counter.dispatch()
    await counter.told(submission, Delivered(1, cost=1_500_000))
    await counter.holds()


async def test_an_offer_that_costs_nothing_leaves_no_trace_and_no_gap(counter: Counter) -> None:
    counter.around = replace(counter.around, snapshot=shop(costs={"a": 0}))
    order, submission = await counter.buy()
    await counter.told(submission, Delivered(1, cost=0))
    await counter.told(submission, Reversed("X"), "callback")
    await counter.told(submission, Reversed("X"), "callback")
    assert ((await counter.now(order)).refunded, await counter.money()) == (1_000_000, (10_000, 0))
    await counter.holds()


# ---- two of everything ---------------------------------------------------------------------------------------------


async def test_two_workers_never_buy_one_order_twice(counter: Counter) -> None:
    orders = [await counter.order(f"PO-{n}") for n in range(20)]
    rounds = await asyncio.gather(*(counter.dispatch(limit=20, worker=f"w{n}") for n in range(6)))
    bought = [s.order_key for found in rounds for s in found]
    assert sorted(bought) == sorted(o.key for o in orders)
    await counter.holds()


async def test_an_answer_told_twice_at_once_settles_once(counter: Counter) -> None:
    order, submission = await counter.buy()
    await asyncio.gather(*(counter.told(submission, YES, beat) for beat in ("place", "callback", "look_up", "callback")))
    assert ((await counter.now(order)).captured, await counter.money()) == (1_000_000, (9_900, 0))
    assert [e for e, _ in await counter.events(order)].count("order.succeeded") == 1
    await counter.holds()


async def test_contradicting_answers_at_once_end_in_one_of_them(counter: Counter) -> None:
    order, submission = await counter.buy()
    await asyncio.gather(counter.told(submission, YES, "callback"), counter.told(submission, NEVER))
    now = await counter.now(order)
    assert now.status in ("succeeded", "failed")
    assert await counter.incidents(order) in (["contradiction"], ["late_success"])
    assert await counter.money() == ((9_900, 0) if now.status == "succeeded" else (10_000, 0))
    await counter.holds()


async def test_two_answers_in_one_commit_are_absorbed_in_order(counter: Counter) -> None:
    order, submission = await counter.buy()
    news = [News(*submission.attempt_key, "callback", Answer(o), ALWAYS) for o in (Accepted("S"), YES, Accepted("S"), YES)]
    async with counter.db.transaction() as tx:
        await settle(tx, counter.keyring, [Settlement(n, submission.task if i == 1 else None) for i, n in enumerate(news)])
    assert (await counter.now(order)).status == "succeeded"
    await counter.holds()


async def test_good_news_is_recorded_without_locks_while_nobody_else_has_written(counter: Counter) -> None:
    first, second = await counter.order("PO-1"), await counter.order("PO-2")
    calls = {s.order_key: s for s in await counter.dispatch()}
    told = [Settlement(News(*s.attempt_key, "place", Answer(YES, b"{}"), ALWAYS), s.task, copy=s.copy) for s in calls.values()]
    async with counter.db.transaction() as tx:
        assert await settle_copies(tx, counter.keyring, told) == ["succeeded", "succeeded"]
    assert [(await counter.now(o)).captured for o in (first, second)] == [1_000_000, 1_000_000]
    assert (await counter.money(), await counter.tasks()) == ((9_800, 0), [])
    assert [e for e, _ in await counter.events(first)] == ["order.accepted", "order.processing", "order.succeeded"]
    await counter.holds()


async def test_a_copy_that_somebody_has_overtaken_writes_nothing_for_anybody(counter: Counter) -> None:
    first, second = await counter.order("PO-1"), await counter.order("PO-2")
    calls = {s.order_key: s for s in await counter.dispatch()}
    await counter.told(calls[second.key], Accepted("S"), "callback")
    told = [Settlement(News(*s.attempt_key, "place", Answer(YES, b"{}"), ALWAYS), s.task, copy=s.copy) for s in calls.values()]
    with pytest.raises(Moved):
        async with counter.db.transaction() as tx:
            await settle_copies(tx, counter.keyring, told)
    assert [(await counter.now(o)).status for o in (first, second)] == ["processing", "processing"]
    assert await counter.money() == (9_800, 200)
    assert not any(s.is_quick for s in told)  # the copies may have been changed by the failed write: only the rows count now
    assert await counter.told(calls[first.key], YES) == await counter.told(calls[second.key], YES) == "succeeded"
    await counter.holds()


async def test_two_workers_hear_of_one_purchase_and_it_is_recorded_once(counter: Counter) -> None:
    """The lease ran out, a look-up learnt of the delivery, and then the first answer arrived after all."""
    order, submission = await counter.buy()
    await counter.expire_leases()
    assert await counter.dispatch(worker="w2") == []  # in doubt now: asked, not sent again
    assert await counter.told(submission, YES, "look_up") == "succeeded"
    assert submission.copy.taken is False
    assert await counter.told(submission, YES) == "succeeded"
    assert ((await counter.now(order)).captured, await counter.money()) == (1_000_000, (9_900, 0))
    await counter.holds()


async def test_what_must_lock_money_is_not_written_without_locks(counter: Counter) -> None:
    """The last units of an order that cannot be completed release the rest of the hold: a floor account moves."""
    order, first = await counter.buy(quantity=2)
    await counter.told(first, Delivered(1, cost=900_000))
    [second] = await counter.dispatch()
    async with counter.db.transaction() as tx:
        await execute(tx, "UPDATE orders SET deadline_at = now() - interval '1 minute' WHERE order_id = $1", order.order_id)
    assert await counter.told(second, Delivered(1)) == "succeeded"
    await counter.holds()


async def test_cancel_and_dispatch_at_once_have_one_winner(counter: Counter) -> None:
    orders = [await counter.order(f"PO-{n}") for n in range(16)]

    async def cancel(order: Order) -> str:
        try:
            async with counter.db.transaction() as tx:
                return (await actions.cancel(tx, counter.keyring, *order.key)).status
        except StateConflict:
            return "dispatched"

    sent: list[Submission] = []

    async def send() -> None:
        for _ in range(8):
            sent.extend(await counter.dispatch(limit=3))

    words, _ = await asyncio.gather(asyncio.gather(*(cancel(o) for o in orders)), send())
    sent += await counter.dispatch()
    cancelled = {o.order_id for o, word in zip(orders, words, strict=True) if word == "cancelled"}
    bought = {s.order_key[1] for s in sent}
    assert cancelled.isdisjoint(bought) and cancelled | bought == {o.order_id for o in orders}
    assert await counter.money() == (10_000 - 100 * len(bought), 100 * len(bought))
    await counter.holds()


async def test_cancelled_again_is_the_same_and_once_dispatched_a_conflict(counter: Counter) -> None:
    order = await counter.order()
    for _ in range(2):
        async with counter.db.transaction() as tx:
            cancelled = await actions.cancel(tx, counter.keyring, *order.key)
        assert (cancelled.status, cancelled.version) == ("cancelled", 2)
    assert await counter.dispatch() == []
    _, submission = await counter.buy("PO-2")
    with pytest.raises(StateConflict):
        async with counter.db.transaction() as tx:
            await actions.cancel(tx, counter.keyring, *submission.order_key)
    assert [e for e, _ in await counter.events(order)] == ["order.accepted", "order.cancelled"]
    await counter.holds()


# ---- workers that stop or are late ---------------------------------------------------------------------------------


async def test_after_a_crash_the_attempt_is_asked_about_and_never_sent_again(counter: Counter) -> None:
    order, submission = await counter.buy()
    await counter.expire_leases()
    assert await counter.dispatch(worker="w2") == []
    assert (await counter.now(order)).substatus == "outcome_unknown"
    assert await counter.tasks() == [("look_up", "ready")]
    await counter.holds()
    assert await counter.told(submission, YES, "look_up") == "succeeded"
    await counter.holds()


async def test_the_late_answer_of_a_worker_that_lost_its_lease_is_still_a_fact(counter: Counter) -> None:
    order, submission = await counter.buy()
    await counter.expire_leases()
    await counter.dispatch(worker="w2")
    assert await counter.told(submission, YES) == "succeeded"
    assert (await counter.attempts(order))[0].state == "delivered"
    await counter.holds()


async def test_a_stale_worker_does_not_take_away_the_new_one_s_task(counter: Counter) -> None:
    order, first = await counter.buy()
    await counter.expire_leases()
    await counter.dispatch(worker="w2")
    await counter.told(first, NO, "look_up")
    [second] = await counter.dispatch(worker="w3")
    assert await counter.told(first, Unknown("timeout")) == "processing"  # the first worker wakes up
    assert ("submit", "running") in await counter.tasks()
    assert await counter.told(first, NO) == "processing"
    [live] = [a for a in await counter.attempts(order) if a.live]
    assert live.key == second.attempt_key
    await counter.told(second, YES)
    await counter.holds()


async def test_a_success_learnt_too_late_is_a_break_and_not_a_delivery(counter: Counter) -> None:
    order, submission = await counter.buy()
    await counter.told(submission, NEVER)
    for _ in range(3):
        await counter.told(submission, Delivered(1, cost=900_000, supplier_order_no="S-1"), "callback")
    now = await counter.now(order)
    assert (now.status, now.delivered_units, await counter.money()) == ("failed", 0, (10_000, 0))
    assert await counter.incidents(order) == ["late_success"]
    async with counter.db.transaction() as tx:
        [row] = await fetch(tx, "SELECT sum(amount)::bigint AS n FROM transfers WHERE debit_account = 'suspense'")
    assert row["n"] == 900_000
    await counter.holds()


async def test_a_success_learnt_too_late_stops_an_open_order(counter: Counter) -> None:
    order, submission = await counter.buy()
    await counter.told(submission, NO)
    await counter.told(submission, YES, "callback")
    assert (await counter.now(order)).substatus == "manual_review"
    assert await counter.dispatch() == []
    await counter.holds()


async def test_not_found_twice_frees_the_order_for_another_channel(counter: Counter) -> None:
    order, submission = await counter.buy()
    await counter.told(submission, Unknown("timeout"))
    await counter.told(submission, NotFound(), "look_up")
    await counter.told(submission, NotFound(), "look_up")
    [second] = await counter.dispatch()
    assert second.channel_id == "b"
    await counter.told(second, YES)
    assert [a.state for a in await counter.attempts(order)] == ["refused", "delivered"]
    await counter.holds()


# ---- reversals and refunds -----------------------------------------------------------------------------------------


async def test_a_reversal_counts_once_by_whichever_way_it_is_told(counter: Counter) -> None:
    order, submission = await counter.buy()
    await counter.told(submission, YES)
    back = Reversed("RV-1", 900_000)
    await asyncio.gather(*(counter.told(submission, back, beat) for beat in ("callback", "look_up", "callback")))
    async with counter.db.transaction() as tx:  # twice in one commit
        news = News(*submission.attempt_key, "callback", Answer(back), ALWAYS)
        await settle(tx, counter.keyring, [Settlement(news), Settlement(news)])
    assert ((await counter.now(order)).refunded, await counter.money()) == (1_000_000, (10_000, 0))
    assert [e for e, _ in await counter.events(order)].count("order.refunded") == 1
    await counter.holds()


async def test_reversals_in_parts_add_up_to_the_whole(counter: Counter) -> None:
    order, submission = await counter.buy(quantity=3)
    await counter.told(submission, Delivered(3, cost=2_700_000))
    for n, amount in enumerate((1, 900_000, 899_999, 900_000, 500)):
        await counter.told(submission, Reversed(f"RV-{n}", amount), "callback")
    assert (await counter.now(order)).refunded == 3_000_000
    await counter.holds()


async def test_a_reversal_before_the_delivery_was_known_waits_for_a_person(counter: Counter) -> None:
    order, submission = await counter.buy()
    await counter.told(submission, Reversed("RV-1", 900_000), "callback")
    await counter.told(submission, YES)  # the purchase's own answer, overtaken by the callback
    assert ((await counter.now(order)).substatus, await counter.money()) == ("manual_review", (9_900, 100))
    await counter.holds()


async def _refund(counter: Counter, order: Order, number: str, amount: int) -> str:
    try:
        async with counter.db.transaction() as tx:
            await actions.refund(tx, counter.keyring, *order.key, refund_no=number, amount=amount, reason="goodwill")
    except Problem as problem:
        return problem.code
    return "ok"


async def test_a_refund_counts_once_and_never_returns_more_than_was_paid(counter: Counter) -> None:
    order, submission = await counter.buy()
    assert await _refund(counter, order, "R-0", 1) == "state_conflict"
    await counter.told(submission, YES)
    words = await asyncio.gather(*(_refund(counter, order, "R-1", 400_000) for _ in range(5)))
    assert words == ["ok"] * 5
    assert await _refund(counter, order, "R-1", 400_001) == "state_conflict"
    assert await _refund(counter, order, "R-2", 600_001) == Invalid.code
    assert await _refund(counter, order, "R-2", 0) == Invalid.code
    words = await asyncio.gather(*(_refund(counter, order, f"R-x{n}", 400_000) for n in range(5)))
    assert sorted(words) == ["ok"] + ["validation_failed"] * 4
    await counter.told(submission, Reversed("RV", 900_000), "callback")  # only what is left goes back
    assert ((await counter.now(order)).refunded, await counter.money()) == (1_000_000, (10_000, 0))
    async with counter.db.transaction() as tx:
        assert [r.amount for r in await queries.list_refunds(tx, *order.key)] == [400_000, 400_000, 200_000]
    await counter.holds()


async def test_one_refund_number_stands_for_one_refund(counter: Counter) -> None:
    orders = []
    for n in range(2):
        order, submission = await counter.buy(f"PO-{n}")
        await counter.told(submission, YES)
        orders.append(order)
    assert await _refund(counter, orders[0], "R", 100) == "ok"
    assert await _refund(counter, orders[1], "R", 100) == "state_conflict"
    await counter.holds()


async def test_failed_orders_have_nothing_to_refund(counter: Counter) -> None:
    order, submission = await counter.buy()
    await counter.told(submission, NEVER)
    assert await _refund(counter, order, "R", 1) == "state_conflict"


# ---- codes ---------------------------------------------------------------------------------------------------------


async def test_codes_are_stored_once_and_open_beside_their_order_only(counter: Counter) -> None:
    order, submission = await counter.buy(sku="card", quantity=2)
    answer = Delivered(2, codes=(Code("TEST-CODE-OF-UNIT-1", "1"), Code("TEST-CODE-OF-UNIT-2")))
    await counter.told(submission, answer)
    await counter.told(submission, answer, "callback")
    async with counter.db.transaction() as tx:
        sealed = await queries.list_codes(tx, *order.key)
    assert [n for n, _ in sealed] == [1, 2]
    assert b"TEST-CODE" not in sealed[0][1] + sealed[1][1]
    plain = orjson.loads(codes.opened(counter.keyring, *order.key, sealed))
    assert plain == [{"code": "TEST-CODE-OF-UNIT-1", "pin": "1"}, {"code": "TEST-CODE-OF-UNIT-2"}]
    with pytest.raises(CryptoError):
        codes.opened(counter.keyring, order.book_id, new_ulid(), sealed)
    with pytest.raises(CryptoError):
        codes.opened(counter.keyring, *order.key, [(2, sealed[0][1]), (1, sealed[1][1])])
    await counter.holds()


async def test_a_code_that_was_sold_before_is_not_sold_again(counter: Counter) -> None:
    _, first = await counter.buy(sku="card")
    await counter.told(first, Delivered(1, codes=(Code("SAME", "1"),)))
    order, second = await counter.buy("PO-2", sku="card")
    with pytest.raises(CodeSoldBefore):
        await counter.told(second, Delivered(1, codes=(Code("SAME", "1"),)))
    assert (await counter.now(order)).delivered_units == 0
    await counter.told(second, Delivered(1, codes=(Code("SAME", "1"),)), codes_sold_before=True)
    now = await counter.now(order)
    assert (now.substatus, now.codes_count, await counter.money()) == ("manual_review", 0, (9_800, 100))
    assert await counter.incidents(order) == ["code_sold_before"]
    await counter.holds()


async def test_two_orders_that_get_one_code_at_once_do_not_both_keep_it(counter: Counter) -> None:
    submissions = [(await counter.buy(f"PO-{n}", sku="card"))[1] for n in range(4)]
    results = await asyncio.gather(
        *(counter.told(s, Delivered(1, codes=(Code("SAME"),))) for s in submissions), return_exceptions=True
    )
    assert sorted(type(r).__name__ for r in results) == ["CodeSoldBefore"] * 3 + ["str"]
    await counter.holds()


async def test_one_code_twice_in_one_delivery_is_no_delivery(counter: Counter) -> None:
    _, submission = await counter.buy(sku="card", quantity=2)
    with pytest.raises(CodeSoldBefore):
        await counter.told(submission, Delivered(2, codes=(Code("X"), Code("X"))))


# ---- a person decides ----------------------------------------------------------------------------------------------


async def _resolve(counter: Counter, order: Order, delivered: bool) -> str:
    try:
        async with counter.db.transaction() as tx:
            found = await actions.resolve_review(
                tx, counter.keyring, counter.around.snapshot, *order.key, Resolution(delivered, "seen", "R" if delivered else None)
            )
    except Problem as problem:
        return problem.code
    return found.status


@pytest.mark.parametrize(("delivered", "status", "available"), [(True, "succeeded", 9_900), (False, "failed", 10_000)])
async def test_a_review_ends_as_the_person_says(counter: Counter, delivered: bool, status: str, available: int) -> None:
    order, submission = await counter.buy()
    assert await _resolve(counter, order, delivered) == "state_conflict"
    await counter.told(submission, Unknown("ask us", needs_person=True))
    assert (await counter.now(order)).substatus == "manual_review"
    await counter.holds()
    words = await asyncio.gather(*(_resolve(counter, order, delivered) for _ in range(3)))
    assert sorted(words) == sorted([status, "state_conflict", "state_conflict"])
    assert await counter.money() == (available, 0)
    await counter.told(submission, YES, "look_up")  # the question that was under way
    assert (await counter.now(order)).status == status
    assert await counter.incidents(order) == ([] if delivered else ["late_success"])
    await counter.holds()


async def test_a_review_without_a_live_attempt_can_only_be_given_up(counter: Counter) -> None:
    order, submission = await counter.buy(quantity=2)
    await counter.told(submission, Delivered(1, cost=900_000))
    await counter.told(submission, NO, "callback")  # contradicts itself while the rest is open
    assert (await counter.now(order)).substatus == "manual_review"
    assert await _resolve(counter, order, True) == "state_conflict"
    assert await _resolve(counter, order, False) == "partially_succeeded"
    assert (await counter.now(order)).failure_code == "cancelled_by_operator"
    await counter.holds()


async def test_nothing_is_bought_while_a_person_decides(counter: Counter) -> None:
    order, submission = await counter.buy()
    await counter.told(submission, Unknown("ask us", needs_person=True))
    await counter.expire_leases()
    await counter.everything_due()
    assert await counter.dispatch() == []
    assert len(await counter.attempts(order)) == 1


# ---- poison --------------------------------------------------------------------------------------------------------


async def test_an_order_that_cannot_be_read_stops_nobody_else(counter: Counter) -> None:
    broken, fine = await counter.order("PO-1"), await counter.order("PO-2")
    async with counter.db.transaction() as tx:
        await execute(tx, "UPDATE orders SET target_sealed = 'x' WHERE order_id = $1", broken.order_id)
    async with counter.db.transaction() as tx:
        found = await dispatch(tx, counter.keyring, counter.around, limit=10, lease_s=60, worker="w")
    assert [s.order_key for s in found.submissions] == [fine.key]
    assert [t.key for t, _ in found.poisoned] == [broken.key]
    assert (await counter.now(broken)).committed_units == 0 and await counter.attempts(broken) == []
    await counter.holds()


async def test_an_answer_about_an_attempt_that_never_was_changes_nothing(counter: Counter) -> None:
    order, submission = await counter.buy()
    ghost = News(submission.attempt_key[0], order.order_id, "callback", Answer(YES), ALWAYS)
    async with counter.db.transaction() as tx:
        assert await settle(tx, counter.keyring, [Settlement(ghost)]) == [""]
    await counter.holds()


async def test_refusals_do_not_make_a_channel_ill_and_doubts_do(counter: Counter) -> None:
    for n in range(3):
        _, submission = await counter.buy(f"PO-{n}")
        await counter.told(submission, Refused(Scope.ORDER, RefusalReason.TARGET_INVALID, "TARGET_NOT_EXIST"))
    _, submission = await counter.buy("PO-u")
    await counter.told(submission, Unknown("silence"))
    async with counter.db.transaction() as tx:
        assert await recent_health(tx, ["a"]) == {"a": (0, 1)}


async def test_the_time_of_an_order_is_the_database_s(counter: Counter) -> None:
    order = await counter.order(deliver_within_s=60)
    assert order.deadline_at - order.created_at == timedelta(seconds=60)
