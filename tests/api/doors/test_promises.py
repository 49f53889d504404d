"""What every door may say of a number, whatever its protocol: a no is kept by every way of buying, and an order belongs to its account."""

from uuid import UUID

import pytest
from tests.factories.client import Client, door_of
from tests.factories.doors import DoorHouse
from tests.factories.shop import PHONE

from kameng_api.api.doors.counter import BoundCounter
from kameng_api.api.doors.door import Conflict, Doubt, Placed, State, Wanted
from kameng_api.api.doors.registry import get_door
from kameng_api.kit.db import execute, fetch
from kameng_api.kit.ids import new_ulid


async def _counter(house: DoorHouse, account: str = "10001", door: str = "yrapi") -> BoundCounter:
    await house.account(door, account, {"api_key": "testkey0123456789"})
    found = await door_of(house.app).lobby.accounts.find(door, account)
    assert found is not None
    return BoundCounter(door_of(house.app), get_door(door), found, "127.0.0.1", "req_test")


async def _restored(house: DoorHouse, days_ago: int) -> None:
    """A restore that is over."""
    async with house.db.transaction() as tx:
        await execute(
            tx,
            """INSERT INTO restores (restore_id, begun_by, last_commit_at, xid_shift, begun_at, ended_at)
            VALUES ($1, 'test', now() - make_interval(days => $2), 0, now() - make_interval(days => $2), now() - make_interval(days => $2))""",
            new_ulid(), days_ago,
        )  # fmt: skip


async def test_a_closed_number_is_refused_whichever_way_it_comes(quiet_house: DoorHouse) -> None:
    """The door said "no such order", the buyer was refunded; the merchant's own bridge is told of the order late."""
    counter = await _counter(quiet_house)
    for number in ("N-1", "till1-r1"):
        assert await counter.find(number, closing=True) is None
    order = {"merchant_order_no": "N-1", "sku": "mobile-cn-100", "target": PHONE}
    async with Client(quiet_house.app, quiet_house.merchant.key) as merchant:
        for path, body in (
            ("/v1/orders", order),
            ("/v1/orders", {**order, "validate_only": True}),
            ("/v1/scan", {"till_no": "till1", "receipt_no": "r1", "code": "mobile-cn-100", "target": PHONE}),
        ):
            answer = await merchant.post(path, body)
            assert (answer.status_code, answer.json()["code"]) == (409, "state_conflict"), answer.text
            assert "closed" in answer.json()["detail"]
        assert (await merchant.post("/v1/orders", {**order, "merchant_order_no": "N-2"})).status_code == 201
    assert await quiet_house.orders() == 1


async def test_after_a_restore_no_order_is_denied_for_good(quiet_house: DoorHouse) -> None:
    counter = await _counter(quiet_house)
    await _restored(quiet_house, 181)
    assert await counter.find("N-1", closing=True) is None
    await _restored(quiet_house, 179)
    with pytest.raises(Doubt):
        await counter.find("N-2", closing=True)
    assert await counter.find("N-2", closing=False) is None  # no promise
    async with quiet_house.db.transaction() as tx:
        assert [r["merchant_order_no"] for r in await fetch(tx, "SELECT merchant_order_no FROM closed_numbers")] == ["N-1"]


async def test_an_order_of_the_contracts_api_is_veiled(quiet_house: DoorHouse) -> None:
    counter = await _counter(quiet_house)
    async with Client(quiet_house.app, quiet_house.merchant.key) as merchant:
        placed = await merchant.post("/v1/orders", {"merchant_order_no": "N-1", "sku": "mobile-cn-100", "target": PHONE})
        assert placed.status_code == 201
        shown = await counter.find("N-1", closing=True)
        assert shown is not None and not shown.mine
        assert (shown.state, shown.target, shown.cards, shown.facts) == (State.PROCESSING, None, 0, {})
        after = await counter.cancel(placed.json()["id"])
        assert after is not None and after.state is State.PROCESSING
        stands = await quiet_house.order("N-1")
        assert stands is not None and stands.status == "accepted"
        assert isinstance(await counter.place(Wanted("N-1", "mobile-cn-100", "same", target=PHONE)), Conflict)
        assert (await merchant.post(f"/v1/orders/{placed.json()['id']}/cancel", {})).status_code == 200
    shown = await counter.find("N-1")
    assert shown is not None and shown.state is State.CANCELLED  # nothing was bought, and nothing ever will be under it


async def test_equal_content_of_another_account_is_another_order(quiet_house: DoorHouse) -> None:
    first, second = await _counter(quiet_house), await _counter(quiet_house, "10002")
    wanted = Wanted("N-1", "mobile-cn-100", "same", target=PHONE)
    assert isinstance(await first.place(wanted), Placed)
    met = await second.place(wanted)
    assert isinstance(met, Conflict) and not met.order.mine and met.order.key != UUID(int=0)
    again = await first.place(wanted)
    assert isinstance(again, Placed) and not again.created and again.order.target == PHONE
