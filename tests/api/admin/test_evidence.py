"""The desk sees how far the chain is and where a restore stands; a merchant's days and stopped books as the desk reads and changes them."""

import json
from datetime import timedelta

import pytest
from tests.api.admin.conftest import Hire, Operator, ok
from tests.factories.counter import Counter
from tests.rooms.test_statements import owner, run, today

from kameng_api.embedded.servers import Servers
from kameng_api.evidence import actions, restores
from kameng_api.jobs.evidence import signer_of
from kameng_api.kit.db import Database, execute
from kameng_api.kit.ids import public_id
from kameng_api.settings import Settings

__all__ = ["owner"]


@pytest.fixture
async def counter(database: Database, settings: Settings) -> Counter:
    return await Counter.open(database, settings)


async def test_the_chain_and_its_anchors(admin: Operator, counter: Counter, settings: Settings) -> None:
    assert (await ok(await admin.get("/evidence")))["head"] == 0
    signer = signer_of(settings, counter.keyring)
    async with counter.db.transaction() as tx:
        sealed = await actions.seal(tx, counter.keyring, signer)
    seen = await ok(await admin.get("/evidence"))
    assert (seen["head"], seen["leaves"], seen["epoch"], seen["anchors"]) == (1, sealed.leaves, 0, [])
    assert seen["keys"] == {signer.key_id: signer.public_key.hex()} and len(seen["hash"]) == 64


async def test_a_restore_and_its_losses(admin: Operator, counter: Counter, settings: Settings, migrated: Servers) -> None:
    assert await ok(await admin.get("/restores")) == {"standing": "well", "items": [], "next_cursor": None}
    assert await ok(await admin.get("/restores/losses")) == {"items": []}
    await counter.order("PO-1")
    db = Database(migrated.owner_url, pool_size=1)
    async with db.transaction() as tx:
        begun = await restores.begin(tx, "ann")
    await db.close()
    async with counter.db.transaction() as tx:
        await execute(
            tx,
            """INSERT INTO restore_losses (book_id, reference, restore_id, channel_id, supplier_order_no, amount, currency, at)
            VALUES ($1, 'ref', $2, 'sim-a', 'S1', 975000, 'CNY', now())""",
            counter.book_id, begun.restore_id,
        )  # fmt: skip
    seen = await ok(await admin.get("/restores"))
    [restore] = seen["items"]
    assert (seen["standing"], restore["id"], restore["begun_by"]) == ("holding", public_id("rst", begun.restore_id), "ann")
    assert (restore["orders"], restore["losses"], restore["ended_at"]) == ({"waiting": 1}, 1, None)


async def test_a_book_is_stopped_and_lifted_over_the_api(hire: Hire, counter: Counter) -> None:
    viewer, fang, gao = await hire("viewer"), await hire("finance", "fang"), await hire("finance", "gao")
    below = "/stopped-books/1"  # the house's: real money
    assert (await viewer.post(f"{below}/stop", json={"note": "odd"})).status_code == 403
    stopped = await ok(await fang.post(f"{below}/stop", json={"note": "odd"}), 201)
    assert (stopped["state"], stopped["invariant"], stopped["merchant_id"]) == ("stopped", "by_hand", None)
    assert (await fang.post(f"{below}/stop", json={"note": "odd"})).status_code == 409
    assert (await fang.post("/stopped-books/99999/lift", json={"note": "n"})).status_code == 404
    assert [s["id"] for s in (await ok(await viewer.get("/stopped-books")))["items"]] == [stopped["id"]]
    assert (await ok(await fang.post(f"{below}/lift", json={"note": "counted"})))["state"] == "lift_asked"
    assert (await ok(await fang.post(f"{below}/lift", json={"note": "counted"})))["state"] == "lift_asked", "one person is one person"
    assert (await ok(await gao.post(f"{below}/lift", json={"note": "agreed"})))["state"] == "lifted"
    assert (await ok(await viewer.get("/stopped-books")))["items"] == []
    assert len((await ok(await viewer.get("/stopped-books?state=all")))["items"]) == 1
    assert (await gao.post(f"{below}/lift", json={"note": "again"})).status_code == 409


async def test_the_desk_reads_the_bytes_that_the_merchant_gets_and_moves_the_end_of_his_day(
    admin: Operator, hire: Hire, counter: Counter, settings: Settings, migrated: Servers, owner: object
) -> None:
    await owner.execute("UPDATE merchants SET created_at = now() - interval '2 days'")  # type: ignore[attr-defined]
    await owner.execute("UPDATE transfers SET created_at = now() - interval '2 days'")  # type: ignore[attr-defined]
    assert await run(counter, settings) == 4
    merchant = public_id("mer", counter.merchant_id)
    below = f"/merchants/{merchant}/statements"
    first = await ok(await admin.get(f"{below}?environment=test&limit=1"))
    then = await ok(await admin.get(f"{below}?environment=test&limit=1&cursor={first['next_cursor']}"))
    assert [p["items"][0]["date"] for p in (first, then)] == [(today() - timedelta(days=n)).isoformat() for n in (1, 2)]
    day = then["items"][0]["date"]
    file = await admin.get(f"{below}/{day}?environment=test")
    assert json.loads(file.content)["closing"] == "10000.0000" and "content-digest" in file.headers
    assert (await admin.get(f"{below}/{day}?environment=test&format=xlsx")).content[:2] == b"PK"
    assert (await admin.get(f"{below}/2020-01-01")).status_code == 404
    viewer = await hire("viewer")
    assert (await viewer.put(f"/merchants/{merchant}/timezone", json={"timezone": "UTC"})).status_code == 403
    assert (await ok(await admin.put(f"/merchants/{merchant}/timezone", json={"timezone": "Asia/Tokyo"})))["timezone"] == "Asia/Tokyo"
    assert (await admin.put(f"/merchants/{merchant}/timezone", json={"timezone": "Mars/North"})).status_code == 422
