"""What suppliers call us with: believed when strongly signed by the right one, applied once, a hint otherwise."""

import asyncio
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
import structlog
from tests.factories.counter import Counter
from tests.factories.shop import open_desk
from tests.factories.workshop import judge, order_many, run_until_quiet, settled
from tests.simulator.conftest import SECRETS, Simulator

from kameng_api.jobs.callbacks import apply_callbacks
from kameng_api.jobs.desk import Desk
from kameng_api.jobs.orders import _CONFIRM_TRIES, _UNCONFIRMED
from kameng_api.kit.db import execute, fetch
from kameng_api.kit.ids import new_ulid, parse_book_reference
from kameng_api.orders.dispatch import Submission
from kameng_api.settings import Settings
from kameng_api.suppliers import actions as suppliers
from kameng_api.suppliers.actions import Arrival
from kameng_api.suppliers.adapters.simulator import wire
from kameng_api.suppliers.port import Accepted, Delivered, NotFound
from kameng_api.tasks import actions as tasks
from kameng_api.tasks.rules import Due, Lane


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """What is refused on purpose is logged nowhere."""
    with structlog.testing.capture_logs():
        yield


def call_of(reference: str, status: str, *, account: str = "sim-a", secret: str | None = None, **more: str) -> bytes:
    """The body that the simulator would send about this reference."""
    order = {
        "out_order_no": reference, "order_no": "S-1", "product_type": "topup", "status": status, "units": "1",
        "delivered_units": "1" if status == "SUCCESS" else "0", "cost": "97.5000", "receipt": "RCPT", **more,
    }  # fmt: skip
    return wire.signed_body(secret or SECRETS[account], f"app-{account}", int(time.time()), new_ulid().hex, order)


async def arrive(counter: Counter, *bodies: bytes, channel_id: str = "sim-a", attempt: tuple[int, UUID] | None = None) -> None:
    """As the API stores it, after its own verification."""
    async with counter.db.transaction() as tx:
        arrivals = [Arrival(channel_id, {"content-type": "application/json"}, body, True, attempt) for body in bodies]
        ids = await suppliers.store_callbacks(tx, counter.keyring, arrivals)
        await tasks.make_due(tx, [Due(attempt[0] if attempt else 16, Lane.CALLBACK, i) for i in ids])


async def _accepted(counter: Counter) -> tuple[Any, Submission]:
    [order] = await order_many(counter, 1)
    [submission] = await counter.dispatch()
    await counter.told(submission, Accepted("S-1"))
    return order, submission


async def _arrive(counter: Counter, submission: Submission, *bodies: bytes, channel_id: str = "sim-a") -> None:
    await arrive(counter, *bodies, channel_id=channel_id, attempt=parse_book_reference(submission.purchase.reference))


async def test_a_verdict_counts_once_however_often_it_comes(counter: Counter, desk: Desk) -> None:
    order, submission = await _accepted(counter)
    reference = submission.purchase.reference
    await _arrive(counter, submission, *(call_of(reference, s) for s in ("SUCCESS", "PROCESSING", "SUCCESS", "SUCCESS")))
    assert await apply_callbacks(desk, 100) == 4
    assert (await counter.now(order)).status == "succeeded"
    assert await counter.money() == (100_000 - 99, 0) or (await counter.money())[1] == 0
    assert [e for e, _ in await counter.events(order)].count("order.succeeded") == 1
    assert await counter.tasks() == []
    await counter.holds()


async def test_contradicting_callbacks_are_a_break_and_the_first_stands(counter: Counter, desk: Desk) -> None:
    order, submission = await _accepted(counter)
    reference = submission.purchase.reference
    await _arrive(counter, submission, call_of(reference, "SUCCESS"))
    await apply_callbacks(desk, 100)
    await _arrive(counter, submission, *(call_of(reference, "FAILED", fail_code="ORDER_REJECTED") for _ in range(3)))
    await apply_callbacks(desk, 100)
    assert ((await counter.now(order)).status, await counter.incidents(order)) == ("succeeded", ["contradiction"])
    await counter.holds()


def _believe_no_callback(desk: Desk) -> None:
    """As with most vendors, whose callbacks are signed in part, or without a date."""
    supplier = desk.connections.of(desk.catalog.current.channels["sim-a"])
    supplier.capabilities = replace(supplier.capabilities, trusted_callback=False)


async def test_a_hint_that_a_delivery_was_taken_back_is_asked_about(counter: Counter, desk: Desk, simulator: Simulator) -> None:
    _believe_no_callback(desk)
    [order] = await order_many(counter, 1)
    await run_until_quiet(desk, counter, [order])
    reference = (await counter.attempts(order))[0].reference
    before = await counter.money()
    forged = call_of(reference, "REVERSED", reversal_no="RV-FORGED", reversed_amount="97.5")
    await arrive(counter, forged, attempt=parse_book_reference(reference))
    assert await apply_callbacks(desk, 100) == 1
    await settled(desk)
    assert await counter.money() == before, "the supplier says that it stands"
    assert await counter.tasks() == []

    await simulator.call("POST", f"suppliers/sim-a/orders/{reference}/advance", {"status": "REVERSED"})
    hints = [call_of(reference, "REVERSED", reversal_no=f"RV-{n}", reversed_amount="97.5") for n in range(3)]
    await arrive(counter, *hints, attempt=parse_book_reference(reference))
    assert await apply_callbacks(desk, 100) == 3
    await settled(desk)
    assert (await counter.now(order)).refunded == order.amount, "once, by the number that the supplier gives"
    assert await counter.tasks() == []
    await counter.holds()


async def test_a_hint_that_nobody_confirms_is_asked_again_and_parked_for_a_person(counter: Counter, desk: Desk, simulator: Simulator) -> None:
    _believe_no_callback(desk)
    [order] = await order_many(counter, 1)
    await run_until_quiet(desk, counter, [order])
    reference = (await counter.attempts(order))[0].reference
    await simulator.turn("sim-a", outage="http_503")
    await arrive(counter, call_of(reference, "FAILED", fail_code="ORDER_REJECTED"), attempt=parse_book_reference(reference))
    for _ in range(_CONFIRM_TRIES):
        await counter.everything_due()
        assert await apply_callbacks(desk, 100) == 1
        await settled(desk)
    async with counter.db.transaction() as tx:
        [task] = await fetch(tx, "SELECT state, trouble FROM tasks WHERE lane = 'callback'")
    assert (task["state"], task["trouble"]) == ("parked", _UNCONFIRMED)
    assert (await counter.now(order)).status == "succeeded"
    await counter.holds()


async def test_a_callback_that_overtakes_the_purchase_s_own_answer(counter: Counter, desk: Desk) -> None:
    [order] = await order_many(counter, 1)
    [submission] = await counter.dispatch()
    await _arrive(counter, submission, call_of(submission.purchase.reference, "SUCCESS"))
    await apply_callbacks(desk, 100)
    assert (await counter.now(order)).status == "succeeded"
    await counter.told(submission, Accepted("S-1"))
    assert await counter.tasks() == []
    await counter.holds()


async def test_a_no_that_overtakes_the_purchase_s_own_yes_waits_for_it(counter: Counter, desk: Desk) -> None:
    """Delivered, said so, and then said failed: whichever of the two is recorded first, the delivery stands and a person sees the other."""
    [order] = await order_many(counter, 1)
    [submission] = await counter.dispatch()
    await _arrive(counter, submission, call_of(submission.purchase.reference, "FAILED", fail_code="ORDER_REJECTED"))
    assert await apply_callbacks(desk, 100) == 1
    assert ((await counter.now(order)).status, await counter.incidents(order)) == ("processing", [])
    assert await apply_callbacks(desk, 100) == 0, "not at once again"
    await counter.told(submission, Delivered(1, supplier_order_no="S-1"))
    await counter.everything_due()
    assert await apply_callbacks(desk, 100) == 1
    assert ((await counter.now(order)).status, await counter.incidents(order)) == ("succeeded", ["contradiction"])
    assert await counter.tasks() == []
    await counter.holds()


async def test_a_no_is_believed_when_whoever_bought_died_with_the_answer(counter: Counter, desk: Desk) -> None:
    [order] = await order_many(counter, 1)
    [submission] = await counter.dispatch()
    await _arrive(counter, submission, call_of(submission.purchase.reference, "FAILED", fail_code="ORDER_REJECTED"))
    async with counter.db.transaction() as tx:
        await execute(tx, "UPDATE attempts SET sent_at = sent_at - interval '1 hour'")
    assert await apply_callbacks(desk, 100) == 1
    assert [a.state for a in await counter.attempts(order)][:1] == ["refused"]
    await counter.holds()


async def test_one_supplier_s_word_about_another_one_s_reference_is_only_a_hint(counter: Counter, desk: Desk) -> None:
    order, submission = await _accepted(counter)
    body = call_of(submission.purchase.reference, "FAILED", account="sim-b", fail_code="ORDER_REJECTED")
    await _arrive(counter, submission, body, channel_id="sim-b")
    await apply_callbacks(desk, 100)
    assert (await counter.now(order)).substatus == "awaiting_supplier"
    assert await counter.tasks() == [("look_up", "ready")]
    await counter.holds()


async def test_a_signature_that_no_longer_verifies_is_only_a_hint(counter: Counter, desk: Desk) -> None:
    order, submission = await _accepted(counter)
    await _arrive(counter, submission, call_of(submission.purchase.reference, "SUCCESS", secret="another-secret-of-16"), b"not even JSON")
    await apply_callbacks(desk, 100)
    assert (await counter.now(order)).status == "processing"
    assert await counter.tasks() == [("look_up", "ready")]


async def test_a_hint_makes_the_look_up_due_now(counter: Counter, desk: Desk) -> None:
    _, submission = await _accepted(counter)
    assert await desk.buyer.look_up(10) == 0  # its own time has not come
    await _arrive(counter, submission, b"?")
    await apply_callbacks(desk, 100)
    assert await desk.buyer.look_up(10) == 1


async def test_a_callback_about_nothing_ends_quietly(counter: Counter, desk: Desk) -> None:
    await arrive(counter, b"{}", attempt=(counter.book_id, new_ulid()))
    await arrive(counter, b"{}", attempt=None)
    await apply_callbacks(desk, 100)
    assert await counter.tasks() == []


async def test_a_channel_that_cannot_be_connected_stops_no_other_callbacks(counter: Counter, settings: Settings) -> None:
    first, second = await order_many(counter, 2)
    ours = {s.order_key: s for s in await counter.dispatch(room={"sim-a": 1})}
    async with counter.db.transaction() as tx:
        await execute(tx, "UPDATE channels SET settings_sealed = 'x' WHERE channel_id = 'sim-a'")
    async with open_desk(settings) as desk:
        for s in ours.values():
            await counter.told(s, Accepted("S-1"))
            await _arrive(counter, s, call_of(s.purchase.reference, "SUCCESS", account=s.channel_id), channel_id=s.channel_id)
        await apply_callbacks(desk, 100)
        statuses = {ours[o.key].channel_id: (await counter.now(o)).status for o in (first, second)}
        assert statuses == {"sim-a": "processing", "sim-b": "succeeded"}
    await counter.holds()


async def test_a_worker_that_dies_with_callbacks_in_hand_loses_none(counter: Counter, desk: Desk) -> None:
    order, submission = await _accepted(counter)
    await _arrive(counter, submission, call_of(submission.purchase.reference, "SUCCESS"))
    async with counter.db.transaction() as tx:
        assert len(await tasks.claim(tx, Lane.CALLBACK, 10, 60, "dead")) == 1
    assert await apply_callbacks(desk, 100) == 0
    await counter.expire_leases()
    assert await apply_callbacks(desk, 100) == 1
    assert (await counter.now(order)).status == "succeeded"
    await counter.holds()


async def test_two_workers_apply_each_callback_once(counter: Counter, desk: Desk, settings: Settings, simulator: Simulator) -> None:
    orders = await order_many(counter, 20)
    for submission in await counter.dispatch():
        await counter.told(submission, Accepted("S-1"))
        await _arrive(counter, submission, *(call_of(submission.purchase.reference, "SUCCESS") for _ in range(2)))
    async with open_desk(settings) as other:
        await asyncio.gather(*(apply_callbacks(d, 7) for d in (desk, other) * 4))
    assert {(await counter.now(o)).status for o in orders} == {"succeeded"}
    await counter.holds()


async def test_not_found_after_accepted_never_buys_elsewhere(counter: Counter, desk: Desk, simulator: Simulator) -> None:
    """The supplier had taken it (its callback may still come): that it no longer knows it goes to a person."""
    order, submission = await _accepted(counter)
    for _ in range(4):
        await counter.told(submission, NotFound(), "look_up")
    assert ((await counter.now(order)).substatus, await counter.incidents(order)) == ("manual_review", ["contradiction"])
    await counter.everything_due()
    assert await desk.buyer.submit(10) == 0
    await _arrive(counter, submission, call_of(submission.purchase.reference, "SUCCESS"))
    await apply_callbacks(desk, 100)
    assert (await counter.now(order)).status == "succeeded"
    await counter.holds()


async def test_the_simulator_s_own_callbacks_are_read_as_sent(counter: Counter, desk: Desk, simulator: Simulator) -> None:
    """Nobody listens at our address: the orders end by look-ups alone."""
    await simulator.turn("sim-a", async_rate=1.0, async_after_s=1, callback_copies=3, callback_reorder=True)
    orders = await order_many(counter, 4)
    await run_until_quiet(desk, counter, orders)
    await judge(counter, simulator, orders)
