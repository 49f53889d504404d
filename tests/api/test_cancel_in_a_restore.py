"""An order that was open at the restored point may have been delivered since: its money does not go back before somebody knows."""


import pytest
from tests.api.test_contract import NOWHERE, SECRETS, body
from tests.api.test_signature import is_problem
from tests.factories.client import Client
from tests.factories.shop import stock_the_shop

from kameng_api.kit.db import Database, execute
from kameng_api.kit.ids import new_ulid
from kameng_api.settings import Settings


@pytest.fixture
async def goods(database: Database, settings: Settings) -> None:
    await stock_the_shop(database, settings, NOWHERE, SECRETS)


async def test_what_may_have_been_bought_is_not_cancelled(client: Client, database: Database) -> None:
    order = (await client.post("/v1/orders", body("PO-1"))).json()
    restore_id = new_ulid()
    async with database.transaction() as tx:
        await execute(tx, "INSERT INTO restores (restore_id, begun_by, last_commit_at, xid_shift) VALUES ($1, 'test', now(), 0)", restore_id)
        await execute(tx, "INSERT INTO restored_orders (book_id, order_id, restore_id) SELECT book_id, order_id, $1 FROM orders", restore_id)
    path = f"/v1/orders/{order['id']}"
    is_problem(await client.post(f"{path}/cancel"), 409, "state_conflict")
    assert (await client.get(path)).json()["status"] == "accepted"
    async with database.transaction() as tx:
        await execute(tx, "UPDATE restored_orders SET state = 'free'")
    assert (await client.post(f"{path}/cancel")).json()["status"] == "cancelled"
