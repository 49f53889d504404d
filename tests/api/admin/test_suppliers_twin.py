"""The supplier desk in front of a vendor's protocol: its connection tried and explained, and an order of it stopped."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from tests.api.admin.conftest import Operator, ok
from tests.factories.counter import Counter
from tests.factories.shop import open_desk
from tests.factories.workshop import settled
from tests.suppliers import twins
from tests.suppliers.twins import world
from tests.suppliers.twins.world import TwinWorld

from kameng_api.kit.db import Database, execute
from kameng_api.kit.ids import public_id
from kameng_api.settings import Settings
from kameng_api.suppliers.port import Accepted

NEVER_ENDS = "10000000003"
"""The simulator's magic target whose order is worked on for ever."""


@pytest.fixture(scope="module")
async def twin(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[TwinWorld]:
    async with world.opened(twins.get("yrapi"), tmp_path_factory.mktemp("yrapi")) as found:
        await world.at_rest(found)
        yield found


def connection(twin: TwinWorld, **more: str) -> dict[str, object]:
    given = dict(twin.twin.settings(twin.simulator.url, twin.twin.app_key, twin.twin.secret)) | more
    return {"adapter": "yrapi", "environment": "test", "settings": given}


async def test_a_vendors_connection_is_tried_and_what_is_wrong_is_said(admin: Operator, twin: TwinWorld) -> None:
    well = await ok(await admin.post("/suppliers/try", json=connection(twin)), 200)
    assert well["works"] and [step["found"] for step in well["steps"]] == ["well", "well"], well
    wrong = await ok(await admin.post("/suppliers/try", json=connection(twin, apikey="another key of this length")), 200)
    assert wrong["steps"][0]["found"] == "wrong_signature" and "签名错误" in wrong["steps"][0]["they_said"]
    stranger = await ok(await admin.post("/suppliers/try", json=connection(twin, userid="99999")), 200)
    assert stranger["steps"][0]["found"] == "wrong_account"


async def test_an_order_is_stopped_through_the_desk_and_freed_by_the_look_up(
    admin: Operator, twin: TwinWorld, database: Database, settings: Settings
) -> None:
    await ok(await admin.post("/channels", json={"id": "a", "name": "A", **connection(twin)}), 201)
    counter = await Counter.open(database, settings)
    order, submission = await counter.buy()
    [attempt] = await counter.attempts(order)
    placed = await twin.supplier.place(twin.purchase(target=NEVER_ENDS, reference=attempt.reference))
    assert isinstance(placed.outcome, Accepted)
    await counter.told(submission, placed.outcome)

    path = f"/orders/{public_id('ord', order.order_id)}/attempts/{public_id('att', attempt.attempt_id)}/ask-to-cancel"
    told = await ok(await admin.post(path, json={"reason": "the customer has left"}))
    assert (told["answer"], told["attempt"]["state"]) == ("accepted", "accepted"), "asking frees nothing"
    assert await counter.money() == (9900, 100)
    async with open_desk(settings) as desk:
        async with asyncio.timeout(20):
            while (await counter.attempts(order))[0].live:
                async with database.transaction() as tx:
                    await execute(tx, "UPDATE tasks SET run_at = now() WHERE lane = 'look_up' AND state = 'ready'")
                await desk.buyer.look_up(10)
                await settled(desk)
                await asyncio.sleep(0.05)
    [attempt] = await counter.attempts(order)
    assert attempt.state == "refused" and await twin.delivered(attempt.reference) == 0
    assert not (await counter.now(order)).final, "its units are free for another channel"
    await counter.holds()
