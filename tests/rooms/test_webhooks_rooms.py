"""Events become deliveries exactly once, whoever commits late; secrets stay sealed; what was missed can be sent."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from uuid import UUID

import pytest

from kameng_api.kit.clock import utc_now
from kameng_api.kit.crypto import CryptoError, Keyring
from kameng_api.kit.db import Database, Tx, execute, fetch
from kameng_api.kit.errors import NotFound
from kameng_api.kit.ids import new_ulid, parse_public_id
from kameng_api.outbox import actions as outbox
from kameng_api.outbox.rules import Fact, fact_of
from kameng_api.settings import Settings
from kameng_api.webhooks import actions, queries
from kameng_api.webhooks.errors import AlreadyRegistered, EndpointIsDisabled, TooManyEndpoints
from kameng_api.webhooks.queries import Endpoint

BOOK, OTHER_BOOK = 2, 1
URL = "https://shop.example.com/hook"


@pytest.fixture
def keyring(settings: Settings) -> Keyring:
    return Keyring(settings.kek_bytes, next(iter(settings.kek_bytes)))


def fact(type_: str = "order.succeeded", book: int = BOOK, notify_url: str | None = None) -> Fact:
    made = fact_of(book, type_, "ord_01JD0000000000000000000009", 1, {"status": "succeeded"})
    return Fact(made.book_id, made.type, made.object_id, made.version, made.object_json, None, notify_url)


async def record(db: Database, *facts: Fact) -> None:
    async with db.transaction() as tx:
        await outbox.record(tx, facts)


async def register(
    db: Database, keyring: Keyring, url: str = URL, types: tuple[str, ...] = (), book: int = BOOK
) -> Endpoint:
    async with db.transaction() as tx:
        made, _ = await actions.register(tx, keyring, book, url=url, event_types=types, description="")
        return made


async def pass_on(db: Database, limit: int = 2000) -> int:
    async with db.transaction() as tx:
        return (await actions.fan_out(tx, limit)).events


async def rows(db: Database, sql: str, *values: object) -> list[dict[str, object]]:
    async with db.transaction() as tx:
        return [dict(r.items()) for r in await fetch(tx, sql, *values)]


async def delivered_to(db: Database) -> list[tuple[str, object]]:
    found = await rows(
        db,
        """SELECT e.type, d.endpoint_id FROM webhook_deliveries d JOIN events e USING (book_id, event_id)
        ORDER BY e.event_id, d.endpoint_id""",
    )
    return [(str(r["type"]), r["endpoint_id"]) for r in found]


@asynccontextmanager
async def late(db: Database) -> AsyncIterator[Tx]:
    """A transaction that has its id already and commits at the end of the block."""
    async with db.transaction() as tx:
        await outbox.record(tx, [fact("order.accepted")])
        yield tx


# --- the horizon ---


async def test_an_event_of_a_transaction_that_commits_late_is_passed_on_once(database: Database, keyring: Keyring) -> None:
    endpoint = await register(database, keyring)
    async with late(database):
        await record(database, fact("order.succeeded"))  # a younger transaction that commits first
        assert await pass_on(database) == 0  # it waits for the older one
    assert await pass_on(database) == 2
    assert await pass_on(database) == 0
    assert sorted(await delivered_to(database)) == [
        ("order.accepted", endpoint.endpoint_id),
        ("order.succeeded", endpoint.endpoint_id),
    ]


async def test_a_poller_never_passes_an_event_that_is_not_committed_yet(database: Database) -> None:
    seen: list[UUID] = []

    async def poll() -> None:
        async with database.transaction() as tx:
            place = None
            if seen:
                xid = await queries.find_event_xid(tx, BOOK, seen[-1])
                assert xid is not None
                place = xid, seen[-1]
            seen.extend(i for i, _ in await queries.list_events(tx, BOOK, after=place, event_type=None, limit=100))

    await record(database, fact())
    await poll()
    assert len(seen) == 1
    async with late(database):
        await record(database, fact())
        await poll()
        assert len(seen) == 1
    await poll()
    assert len(seen) == 3
    assert set(seen) == {r["event_id"] for r in await rows(database, "SELECT event_id FROM events")}


async def test_a_rolled_back_transaction_leaves_nothing_and_holds_nothing_up(database: Database, keyring: Keyring) -> None:
    await register(database, keyring)
    with pytest.raises(RuntimeError):
        async with late(database):
            raise RuntimeError
    await record(database, fact())
    assert await pass_on(database) == 1


async def test_fan_out_under_concurrent_commits_loses_and_doubles_nothing(database: Database, keyring: Keyring) -> None:
    await register(database, keyring)
    stop = asyncio.Event()
    passed = 0

    async def writer(pauses: float) -> None:
        for _ in range(30):
            async with database.transaction() as tx:
                await outbox.record(tx, [fact()])
                await asyncio.sleep(pauses)
                await outbox.record(tx, [fact()])

    async def fan_outs() -> None:
        nonlocal passed
        while True:
            ending = stop.is_set()
            count = await pass_on(database, 7)
            passed += count
            if ending and not count:
                return
            await asyncio.sleep(0)

    fanning = [asyncio.create_task(fan_outs()) for _ in range(2)]
    await asyncio.gather(*(writer(p) for p in (0.0, 0.001, 0.003, 0.01)))
    stop.set()
    await asyncio.gather(*fanning)
    while count := await pass_on(database):
        passed += count
    assert passed == 240
    [found] = await rows(
        database, "SELECT count(*) AS all, count(DISTINCT event_id) AS events FROM webhook_deliveries"
    )
    assert found == {"all": 240, "events": 240}
    [tasks] = await rows(database, "SELECT count(*) AS all FROM tasks WHERE lane = 'webhook' AND state = 'ready'")
    assert tasks == {"all": 240}


async def test_a_transaction_larger_than_the_range_is_taken_whole(database: Database, keyring: Keyring) -> None:
    await register(database, keyring)
    await record(database, *[fact() for _ in range(20)])
    await record(database, *[fact() for _ in range(3)])
    assert await pass_on(database, 5) == 6  # it looked at six of the 20, and took them all
    assert len(await delivered_to(database)) == 20
    await pass_on(database, 5)
    assert len(await delivered_to(database)) == 23


# --- who hears what ---


async def test_only_matching_endpoints_that_existed_then_hear_of_an_event(database: Database, keyring: Keyring) -> None:
    everything = await register(database, keyring)
    failures = await register(database, keyring, types=("order.failed", "order.cancelled"))
    deleted = await register(database, keyring, "https://shop.example.com/deleted")
    stranger = await register(database, keyring, book=OTHER_BOOK)
    await record(database, fact("order.failed"), fact("order.succeeded"))
    async with database.transaction() as tx:
        await actions.delete(tx, BOOK, deleted.endpoint_id)
    await register(database, keyring, "https://shop.example.com/later")
    await pass_on(database)
    assert set(await delivered_to(database)) == {
        ("order.failed", everything.endpoint_id),
        ("order.failed", failures.endpoint_id),
        ("order.succeeded", everything.endpoint_id),
    }
    assert stranger.endpoint_id not in {e for _, e in await delivered_to(database)}


async def test_an_event_without_receiver_makes_nothing(database: Database) -> None:
    await record(database, fact())
    assert await pass_on(database) == 1
    assert await delivered_to(database) == []
    assert await rows(database, "SELECT 1 AS one FROM tasks") == []


async def test_a_notify_url_gets_one_delivery_beside_the_endpoints(database: Database, keyring: Keyring) -> None:
    await register(database, keyring)
    await record(database, fact(notify_url="https://shop.example.com/order/1"))
    await pass_on(database)
    found = await rows(database, "SELECT endpoint_id IS NULL AS own, notify_url FROM webhook_deliveries ORDER BY own")
    assert found == [{"own": False, "notify_url": None}, {"own": True, "notify_url": "https://shop.example.com/order/1"}]


async def test_a_ping_reaches_its_own_endpoint_only(database: Database, keyring: Keyring) -> None:
    pinged = await register(database, keyring, types=("order.failed",))
    await register(database, keyring)
    async with database.transaction() as tx:
        await actions.ping(tx, pinged)
    await pass_on(database)
    assert await delivered_to(database) == [("endpoint.ping", pinged.endpoint_id)]


async def test_deliveries_of_a_disabled_endpoint_are_held_and_replayed_once(database: Database, keyring: Keyring) -> None:
    endpoint = await register(database, keyring)
    async with database.transaction() as tx:
        assert await actions.disable(tx, BOOK, endpoint.endpoint_id, "by_merchant")
        assert not await actions.disable(tx, BOOK, endpoint.endpoint_id, "failing")  # the first reason stays
    await record(database, fact(), fact())
    await pass_on(database)
    assert await rows(database, "SELECT 1 AS one FROM tasks") == []
    async with database.transaction() as tx:
        with pytest.raises(EndpointIsDisabled):
            await actions.replay_missing(tx, BOOK, endpoint.endpoint_id, None)
        with pytest.raises(EndpointIsDisabled):
            await actions.ping(tx, await queries.get_endpoint(tx, BOOK, endpoint.endpoint_id))
        await actions.enable(tx, BOOK, endpoint.endpoint_id)
        assert await actions.replay_missing(tx, BOOK, endpoint.endpoint_id, utc_now() + timedelta(hours=1)) == (0, False)
        assert await actions.replay_missing(tx, BOOK, endpoint.endpoint_id, None) == (2, False)
        assert await actions.replay_missing(tx, BOOK, endpoint.endpoint_id, None) == (0, False)
    assert len(await rows(database, "SELECT 1 AS one FROM tasks WHERE state = 'ready'")) == 2


async def test_resend_takes_the_same_delivery_up_again_or_makes_the_missing_one(database: Database, keyring: Keyring) -> None:
    await record(database, fact())
    endpoint = await register(database, keyring, types=("order.failed",))
    await pass_on(database)
    [event] = await rows(database, "SELECT event_id FROM events")
    event_id = event["event_id"]
    assert isinstance(event_id, UUID)
    async with database.transaction() as tx:
        first = await actions.resend(tx, BOOK, endpoint.endpoint_id, event_id)
        await actions.record_states(tx, [(BOOK, first, actions.State.GIVEN_UP, 14)])
        await execute(tx, "DELETE FROM tasks")
    async with database.transaction() as tx:
        assert await actions.resend(tx, BOOK, endpoint.endpoint_id, event_id) == first
        with pytest.raises(NotFound):
            await actions.resend(tx, BOOK, endpoint.endpoint_id, new_ulid())
    assert await rows(database, "SELECT state, attempts FROM webhook_deliveries") == [{"state": "pending", "attempts": 0}]
    assert await rows(database, "SELECT ref, state FROM tasks") == [{"ref": first, "state": "ready"}]


async def test_another_books_event_cannot_be_sent_to_my_endpoint(database: Database, keyring: Keyring) -> None:
    endpoint = await register(database, keyring)
    await record(database, fact(book=OTHER_BOOK))
    [event] = await rows(database, "SELECT event_id FROM events")
    assert isinstance(event["event_id"], UUID)
    with pytest.raises(NotFound):
        async with database.transaction() as tx:
            await actions.resend(tx, BOOK, endpoint.endpoint_id, event["event_id"])


# --- registration and secrets ---


async def test_the_same_registration_is_refused_with_the_first_ones_id(database: Database, keyring: Keyring) -> None:
    first = await register(database, keyring, types=("order.failed", "order.succeeded"))
    with pytest.raises(AlreadyRegistered) as refused:
        await register(database, keyring, types=("order.succeeded", "order.failed", "order.failed"))
    assert parse_public_id("whe", refused.value.facts["existing_id"]) == first.endpoint_id
    await register(database, keyring, types=("order.succeeded",))
    await register(database, keyring, book=OTHER_BOOK, types=("order.failed", "order.succeeded"))


async def test_twenty_registrations_at_once_make_no_twin_and_no_seventeenth(database: Database, keyring: Keyring) -> None:
    same = await asyncio.gather(*(register(database, keyring) for _ in range(10)), return_exceptions=True)
    assert sum(isinstance(r, AlreadyRegistered) for r in same) == 9
    more = await asyncio.gather(
        *(register(database, keyring, f"{URL}/{i}") for i in range(20)), return_exceptions=True
    )
    assert sum(isinstance(r, TooManyEndpoints) for r in more) == 5
    async with database.transaction() as tx:
        assert len(await queries.list_endpoints(tx, BOOK)) == 16


async def test_secrets_are_sealed_to_their_row(database: Database, keyring: Keyring) -> None:
    async with database.transaction() as tx:
        endpoint, secret = await actions.register(tx, keyring, BOOK, url=URL, event_types=(), description="")
    assert secret.startswith("whsec_")
    assert secret.encode() not in endpoint.secret_sealed
    assert actions.open_secrets(keyring, endpoint).at(utc_now()) == (secret,)
    other = await register(database, keyring, f"{URL}/other")
    async with database.transaction() as tx:
        await execute(
            tx, "UPDATE webhook_endpoints SET secret_sealed = $1 WHERE endpoint_id = $2",
            endpoint.secret_sealed, other.endpoint_id,
        )  # fmt: skip
        moved = await queries.get_endpoint(tx, BOOK, other.endpoint_id)
    with pytest.raises(CryptoError):
        actions.open_secrets(keyring, moved)


async def test_rotation_keeps_the_old_secret_for_a_day(database: Database, keyring: Keyring) -> None:
    async with database.transaction() as tx:
        endpoint, old = await actions.register(tx, keyring, BOOK, url=URL, event_types=(), description="")
        rotated, new = await actions.rotate_secret(tx, keyring, BOOK, endpoint.endpoint_id)
    secrets = actions.open_secrets(keyring, rotated)
    now = utc_now()
    assert secrets.at(now) == (new, old)
    assert secrets.at(now + timedelta(hours=23, minutes=59)) == (new, old)
    assert secrets.at(now + timedelta(hours=24, minutes=1)) == (new,)


async def test_a_book_has_one_notify_secret_however_many_ask_first(database: Database, keyring: Keyring) -> None:
    async def ask() -> str:
        async with database.transaction() as tx:
            return await actions.ensure_notify_secret(tx, keyring, BOOK)

    secrets = set(await asyncio.gather(*(ask() for _ in range(10))))
    assert len(secrets) == 1
    async with database.transaction() as tx:
        new = await actions.rotate_notify_secret(tx, keyring, BOOK)
        found = await actions.find_notify_secrets(tx, keyring, [BOOK, OTHER_BOOK])
    assert found[BOOK].at(utc_now()) == (new, *secrets)
    assert found[OTHER_BOOK].at(utc_now())[0].startswith("whsec_")
