"""The magic targets of the contract, through the real adapter over real HTTP, twenty times faster than life."""

import asyncio

from kameng_api.suppliers.port import (
    Accepted,
    Delivered,
    RefusalReason,
    Refused,
    Reversed,
    Scope,
    Unknown,
)

from .conftest import SCALE, World


async def test_1_succeeds_after_a_second(world: World) -> None:
    purchase = world.purchase("10000000001")
    assert isinstance((await world.a.place(purchase)).outcome, Accepted)
    assert isinstance(await world.look_up(purchase), Accepted)
    assert await world.simulator.delivered(purchase.reference) == 0
    (news,) = await world.receiver.wait_for(world.a, purchase.reference, 1)
    assert isinstance(news, Delivered) and news.units == 1 and news.cost == 97_5000 and news.receipt
    assert await world.look_up(purchase) == news
    assert await world.simulator.delivered(purchase.reference) == 1


async def test_2_is_refused_after_a_second(world: World) -> None:
    purchase = world.purchase("10000000002")
    assert isinstance((await world.a.place(purchase)).outcome, Accepted)
    (news,) = await world.receiver.wait_for(world.a, purchase.reference, 1)
    assert isinstance(news, Refused)
    assert (news.scope, news.reason) == (Scope.ORDER, RefusalReason.SUPPLIER_REJECTED)
    assert await world.look_up(purchase) == news
    assert await world.simulator.delivered(purchase.reference) == 0
    assert sum(row["amount"] for row in await world.simulator.rows("movements", purchase.reference)) == 0


async def test_3_is_processing_for_thirty_seconds(world: World) -> None:
    purchase = world.purchase("10000000003")
    started = asyncio.get_running_loop().time()
    assert isinstance((await world.a.place(purchase)).outcome, Accepted)
    await asyncio.sleep(20 * SCALE)
    assert isinstance(await world.look_up(purchase), Accepted)
    assert isinstance(await world.look_until(purchase, Delivered), Delivered)
    assert asyncio.get_running_loop().time() - started >= 30 * SCALE


async def test_4_answers_500_says_processing_and_succeeds_after_a_minute(world: World) -> None:
    purchase = world.purchase("10000000004")
    answer = await world.a.place(purchase)
    assert isinstance(answer.outcome, Unknown) and answer.http_status == 500
    assert isinstance(await world.look_up(purchase), Accepted)
    (news,) = await world.receiver.wait_for(world.a, purchase.reference, 1)
    assert isinstance(news, Delivered)
    assert await world.simulator.delivered(purchase.reference) == 1


async def test_5_answers_500_says_processing_and_fails_after_a_minute(world: World) -> None:
    purchase = world.purchase("10000000005")
    assert isinstance((await world.a.place(purchase)).outcome, Unknown)
    assert isinstance(await world.look_up(purchase), Accepted)
    (news,) = await world.receiver.wait_for(world.a, purchase.reference, 1)
    assert isinstance(news, Refused) and news.scope is Scope.ORDER
    assert await world.simulator.delivered(purchase.reference) == 0


async def test_6_delivers_one_unit_and_every_other_supplier_refuses_the_rest(world: World) -> None:
    purchase = world.purchase("10000000006", units=3)
    outcome = (await world.a.place(purchase)).outcome
    assert isinstance(outcome, Delivered) and outcome.units == 1 and outcome.cost == 97_5000
    assert await world.look_up(purchase) == outcome
    for units in (2, 1):
        rest = (await world.b.place(world.purchase("10000000006", units=units))).outcome
        assert isinstance(rest, Refused) and rest.scope is Scope.CHANNEL
    assert await world.simulator.delivered(purchase.reference) == 1
    assert isinstance((await world.a.place(world.purchase("10000000006"))).outcome, Delivered)


async def test_7_succeeds_and_is_reversed_after_thirty_seconds(world: World) -> None:
    purchase = world.purchase("10000000007")
    assert isinstance((await world.a.place(purchase)).outcome, Delivered)
    assert isinstance(await world.look_up(purchase), Delivered)
    (news,) = await world.receiver.wait_for(world.a, purchase.reference, 1)
    assert isinstance(news, Reversed) and news.amount == 97_5000 and news.external_id
    assert await world.look_up(purchase) == news
    (delivery,) = await world.simulator.rows("deliveries", purchase.reference)
    assert delivery["reversed_at"] is not None
    assert sum(row["amount"] for row in await world.simulator.rows("movements", purchase.reference)) == 0


async def test_8_calls_back_twice_and_out_of_order(world: World) -> None:
    purchase = world.purchase("10000000008")
    assert isinstance((await world.a.place(purchase)).outcome, Accepted)
    news = await world.receiver.wait_for(world.a, purchase.reference, 3)
    assert [type(one) for one in news] == [Delivered, Delivered, Accepted]
    assert isinstance(await world.look_up(purchase), Delivered)
    assert await world.simulator.delivered(purchase.reference) == 1


async def test_9_waits_for_their_staff(world: World) -> None:
    purchase = world.purchase("10000000009")
    placed = (await world.a.place(purchase)).outcome
    assert isinstance(placed, Unknown) and placed.needs_person
    looked = await world.look_up(purchase)
    assert isinstance(looked, Unknown) and looked.needs_person
    path = f"suppliers/sim-a/orders/{purchase.reference}/advance"
    await world.simulator.call("POST", path, {"status": "SUCCESS"})
    assert isinstance(await world.look_up(purchase), Delivered)
    assert await world.simulator.delivered(purchase.reference) == 1
    await world.simulator.call("POST", "suppliers/sim-a/orders/nobody/advance", {"status": "SUCCESS"}, status=404)


async def test_10_is_refused_by_the_first_and_delivered_by_the_second(world: World) -> None:
    refused = (await world.a.place(world.purchase("10000000010"))).outcome
    assert isinstance(refused, Refused) and refused.scope is Scope.CHANNEL
    assert isinstance((await world.b.place(world.purchase("10000000010"))).outcome, Delivered)
