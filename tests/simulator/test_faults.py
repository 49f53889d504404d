"""The faults that routing is tested with, turned while the simulator runs, each judged by the delivery log."""

import asyncio
import time
from typing import Any

import pytest

from kameng_api.suppliers.port import (
    Accepted,
    Cause,
    Delivered,
    NotFound,
    NotSent,
    RefusalReason,
    Refused,
    Scope,
    Unknown,
)

from .conftest import SCALE, World


async def place(world: World, **more: Any) -> Any:
    return (await world.a.place(world.purchase(**more))).outcome


async def test_a_fast_outage_refuses_at_once_and_ends_when_it_is_turned_back(world: World) -> None:
    await world.simulator.turn(refuse_rate=1)
    purchase = world.purchase()
    outcome = (await world.a.place(purchase)).outcome
    assert isinstance(outcome, Refused) and (outcome.scope, outcome.reason) == (Scope.CHANNEL, RefusalReason.SUPPLIER_REJECTED)
    assert await world.simulator.delivered(purchase.reference) == 0
    await world.simulator.turn()
    assert isinstance(await place(world), Delivered)


async def test_a_black_hole_reads_and_never_answers_anything(world: World) -> None:
    await world.simulator.turn(outage="silent")
    purchase = world.purchase()
    assert (await world.a.place(purchase)).outcome == Unknown("no complete answer in time")
    assert isinstance(await world.look_up(purchase), Unknown)
    assert [row["verdict"] for row in await world.simulator.rows("log", purchase.reference)] == ["outage: silent"] * 2
    await world.simulator.turn()
    assert isinstance(await world.look_up(purchase), NotFound)
    assert await world.simulator.delivered(purchase.reference) == 0


async def test_accepted_and_failed_much_later(world: World) -> None:
    await world.simulator.turn(late_failure_rate=1, late_failure_after_s=20, late_failure_spread_s=10)
    purchase = world.purchase()
    started = time.monotonic()
    assert isinstance((await world.a.place(purchase)).outcome, Accepted)
    (news,) = await world.receiver.wait_for(world.a, purchase.reference, 1)
    assert time.monotonic() - started >= 20 * SCALE
    assert isinstance(news, Refused) and news.scope is Scope.CHANNEL
    assert await world.look_up(purchase) == news
    assert await world.simulator.delivered(purchase.reference) == 0
    assert sum(row["amount"] for row in await world.simulator.rows("movements", purchase.reference)) == 0


async def test_everything_slower_by_a_factor(world: World) -> None:
    slow = {"async_rate": 1, "async_after_s": 2, "latency": {"kind": "fixed", "ms": 20}}
    await world.simulator.turn(**slow, slow_factor=10)
    purchase = world.purchase()
    started = time.monotonic()
    assert isinstance((await world.a.place(purchase)).outcome, Accepted)
    assert time.monotonic() - started >= 0.2
    await world.look_until(purchase, Delivered)
    assert time.monotonic() - started >= 20 * SCALE


async def test_above_its_capacity_the_supplier_is_busy_as_documented(world: World) -> None:
    await world.simulator.turn("sim-b", capacity=3, async_rate=1, async_after_s=30)
    purchases = [world.purchase() for _ in range(8)]
    outcomes = [answer.outcome for answer in await asyncio.gather(*(world.b.place(purchase) for purchase in purchases))]
    busy = [purchase for purchase, outcome in zip(purchases, outcomes, strict=True) if isinstance(outcome, NotSent)]
    taken = [purchase for purchase, outcome in zip(purchases, outcomes, strict=True) if isinstance(outcome, Accepted)]
    assert (len(busy), len(taken)) == (5, 3)
    assert all(outcome.cause is Cause.BUSY for outcome in outcomes if isinstance(outcome, NotSent))
    for purchase in taken:
        await world.receiver.wait_for(world.b, purchase.reference, 1)
    for purchase in busy:
        assert isinstance(await world.look_up(purchase, world.b), NotFound)
        assert await world.simulator.delivered(purchase.reference) == 0
    again = [answer.outcome for answer in await asyncio.gather(*(world.b.place(purchase) for purchase in busy))]
    assert sum(isinstance(outcome, Accepted) for outcome in again) == 3  # room again, and no more than before
    for purchase, outcome in zip(busy, again, strict=True):
        if isinstance(outcome, Accepted):
            await world.receiver.wait_for(world.b, purchase.reference, 1)


async def test_answers_held_back_count_against_the_capacity(world: World) -> None:
    await world.simulator.turn("sim-b", capacity=2, latency={"kind": "fixed", "ms": 500})
    outcomes = [answer.outcome for answer in await asyncio.gather(*(world.b.place(world.purchase()) for _ in range(6)))]
    assert sum(isinstance(outcome, NotSent) and outcome.cause is Cause.BUSY for outcome in outcomes) == 4
    assert isinstance((await world.b.place(world.purchase())).outcome, Delivered)


async def test_the_rate_limit_is_busy_too(world: World) -> None:
    await world.simulator.turn(rate_limit_per_s=1)
    outcomes = [await place(world) for _ in range(4)]
    assert {outcome.cause for outcome in outcomes if isinstance(outcome, NotSent)} == {Cause.BUSY}


async def test_callbacks_come_in_batches(world: World) -> None:
    batch_s = 40 * SCALE
    await world.simulator.turn(async_rate=1, async_after_s=1, callback_batch_s=40)
    purchases = [world.purchase() for _ in range(3)]
    for purchase in purchases:
        await world.a.place(purchase)
        await asyncio.sleep(0.1)
    for purchase in purchases:
        await world.receiver.wait_for(world.a, purchase.reference, 1)
        async with asyncio.timeout(5):
            while not (rows := await world.simulator.rows("callbacks", purchase.reference)):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        (order,) = await world.simulator.rows("orders", purchase.reference)
        due = -(-order["finished_at"] // batch_s) * batch_s
        assert due <= rows[0]["at"] < due + 1


async def test_prices_move_for_all_or_for_one_product(world: World) -> None:
    async def costs() -> dict[str, int]:
        assert world.a.products is not None
        return {line.product_code: line.cost async for page in world.a.products() for line in page}

    before = await costs()
    await world.simulator.turn(price_factor=1.05)
    outcome = await place(world)
    assert isinstance(outcome, Refused) and outcome.reason is RefusalReason.PRICE_EXCEEDED  # 102.375 is more than 100
    dearer = world.purchase(max_cost=103_0000)
    outcome = (await world.a.place(dearer)).outcome
    assert isinstance(outcome, Delivered) and outcome.cost == 102_3750 == (await costs())["hf-100"]
    assert sum(row["amount"] for row in await world.simulator.rows("movements", dearer.reference)) == -102_3750
    await world.simulator.turn(products={"hf-100": {"price_factor": 2}})
    assert await costs() == {**before, "hf-100": 2 * before["hf-100"]}
    assert isinstance(await place(world), Refused) and isinstance(await place(world, product_code="hf-50"), Delivered)


async def test_the_wallet_can_be_emptied_and_filled_again(world: World) -> None:
    assert world.a.balance is not None
    moved = await world.simulator.call("POST", "suppliers/sim-a/wallet", {"take": True})
    try:
        assert (await world.a.balance()).balance == 0
        outcome = await place(world)
        assert isinstance(outcome, Refused) and outcome.reason is RefusalReason.WALLET_EMPTY
    finally:
        await world.simulator.call("POST", "suppliers/sim-a/wallet", {"amount": moved["before"]})
    assert isinstance(await place(world), Delivered)
    await world.simulator.call("POST", "suppliers/sim-a/wallet", {}, status=422)


@pytest.mark.parametrize(
    ("faults", "kind"),
    [
        ({"refuse_rate": 1, "refuse_code": "STOCK_EMPTY"}, Refused),
        ({"outage": "silent"}, Unknown),
        ({"outage": "http_503"}, Unknown),
        ({"late_failure_rate": 1}, Accepted),
        ({"error_500_rate": 1}, Unknown),
    ],
)
async def test_one_product_fails_and_the_others_do_not(world: World, faults: dict[str, Any], kind: type) -> None:
    await world.simulator.turn(products={"hf-30": faults})
    bad, good = world.purchase(product_code="hf-30"), world.purchase(product_code="hf-50")
    assert isinstance((await world.a.place(bad)).outcome, kind)
    assert isinstance((await world.a.place(good)).outcome, Delivered)
    delivered = 1 if faults.get("error_500_rate") else 0
    assert [await world.simulator.delivered(purchase.reference) for purchase in (bad, good)] == [delivered, 1]
    await world.simulator.turn()
    assert isinstance(await place(world, product_code="hf-30"), Delivered)


async def test_faults_of_a_product_are_checked(world: World) -> None:
    knobs = "suppliers/sim-a/knobs"
    for wrong in ({"products": {"hf-30": {"capacity": 1}}}, {"products": {"hf-30": {"refuse_rate": 2}}}, {"price_factor": 0}):
        await world.simulator.call("PUT", knobs, wrong, status=422)
    patched = await world.simulator.call("PATCH", knobs, {"products": {"hf-30": {"refuse_rate": 1}}})
    assert patched["products"]["hf-30"]["refuse_rate"] == 1
    assert (await world.simulator.call("PATCH", knobs, {"capacity": 4}))["products"] == patched["products"]
