"""Webhooks on a real database, to real receivers: every beat may be killed, and every event still arrives unchanged."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from uuid import UUID

import orjson
import pytest
from aiohttp import web
from standardwebhooks import Webhook

from kameng_api.jobs import webhooks as job
from kameng_api.jobs.webhooks import Courier
from kameng_api.kit.crypto import Keyring
from kameng_api.kit.db import Database, execute, fetch
from kameng_api.kit.errors import Unavailable
from kameng_api.kit.http import build_client
from kameng_api.kit.ids import new_ulid, public_id
from kameng_api.outbox import actions as outbox
from kameng_api.outbox.rules import fact_of
from kameng_api.settings import Settings
from kameng_api.webhooks import actions, queries, rules
from kameng_api.webhooks.queries import Endpoint

BOOK = 2
Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Heard:
    path: str
    headers: dict[str, str]
    body: bytes
    at: float


@dataclass
class Receiver:
    """A merchant's server. `answers[path]` decides; without an entry it says 204."""

    url: str = ""
    heard: list[Heard] = field(default_factory=list)
    answers: dict[str, Answer] = field(default_factory=dict)
    open_calls: int = 0
    most_open: dict[str, int] = field(default_factory=dict)
    _open: dict[str, int] = field(default_factory=dict)

    async def hear(self, request: web.Request) -> web.StreamResponse:
        path = request.path
        body = await request.read()
        self.heard.append(Heard(path, dict(request.headers), body, time.monotonic()))
        self._open[path] = self._open.get(path, 0) + 1
        self.most_open[path] = max(self.most_open.get(path, 0), self._open[path])
        try:
            answer = self.answers.get(path)
            return web.Response(status=204) if answer is None else await answer(request)
        finally:
            self._open[path] -= 1

    def at(self, path: str) -> list[Heard]:
        return [h for h in self.heard if h.path == path]


def says(status: int, **headers: str) -> Answer:
    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(status=status, headers=headers, body=b"no")

    return answer


async def hangs(_: web.Request) -> web.StreamResponse:
    await asyncio.sleep(60)
    return web.Response(status=204)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    found = Receiver()
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", found.hear)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    found.url = f"http://127.0.0.1:{port}"
    yield found
    await runner.cleanup()


@dataclass
class Desk:
    db: Database
    courier: Courier


@pytest.fixture
def keyring(settings: Settings) -> Keyring:
    return Keyring(settings.kek_bytes, next(iter(settings.kek_bytes)))


@pytest.fixture
async def hire(database: Database, keyring: Keyring, settings: Settings) -> AsyncIterator[Callable[..., Desk]]:
    """A maker of couriers; `changes` are settings."""
    hired: list[Courier] = []

    def make(worker: str = "worker-1", **changes: object) -> Desk:
        courier = Courier(
            database, keyring, settings.model_copy(update=changes), worker, chance=lambda: 0.5
        )
        hired.append(courier)
        return Desk(database, courier)

    yield make
    for courier in hired:
        await kill(courier)


async def kill(courier: Courier) -> None:
    """As kill -9 does: nothing that was under way is finished or recorded."""
    running = list(courier._running)
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    await courier._client.aclose()


async def register(db: Database, keyring: Keyring, url: str, types: tuple[str, ...] = ()) -> tuple[Endpoint, str]:
    async with db.transaction() as tx:
        return await actions.register(tx, keyring, BOOK, url=url, event_types=types, description="")


async def happen(db: Database, count: int = 1, type_: str = "order.succeeded", notify_url: str | None = None) -> None:
    async with db.transaction() as tx:
        order = public_id("ord", new_ulid())
        facts = [fact_of(BOOK, type_, order, i + 1, {"id": order, "status": "succeeded"}) for i in range(count)]
        if notify_url is not None:
            facts = [type(f)(f.book_id, f.type, f.object_id, f.version, f.object_json, None, notify_url) for f in facts]
        await outbox.record(tx, facts)


async def pass_on(db: Database) -> int:
    total = 0
    async with asyncio.timeout(10):
        while True:
            async with db.transaction() as tx:
                passed = (await actions.fan_out(tx, 2000)).events
            if passed == 0:
                return total
            total += passed


async def once(desk: Desk) -> int:
    """Everything due now, called and recorded."""
    await pass_on(desk.db)
    total = 0
    while claimed := await desk.courier.deliver(500):
        total += claimed
    await desk.courier.drain()
    return total


async def hurry(db: Database) -> None:
    """Retries are due now."""
    async with db.transaction() as tx:
        await execute(tx, "UPDATE tasks SET run_at = now() - interval '1 second' WHERE lane = 'webhook'")


async def let_leases_run_out(db: Database) -> None:
    async with db.transaction() as tx:
        await execute(tx, "UPDATE tasks SET lease_until = now() - interval '1 second' WHERE state = 'running'")


async def rows(db: Database, sql: str, *values: object) -> list[dict[str, object]]:
    async with db.transaction() as tx:
        return [dict(r.items()) for r in await fetch(tx, sql, *values)]


async def states(db: Database) -> list[str]:
    return [str(r["state"]) for r in await rows(db, "SELECT state FROM webhook_deliveries ORDER BY delivery_id")]


def same_message(heard: list[Heard]) -> bool:
    return len({(h.headers["webhook-id"], h.body) for h in heard}) == 1


async def until(what: Callable[[], bool], timeout_s: float = 5.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not what():  # noqa: ASYNC110  what is waited for happens in receivers and rows
            await asyncio.sleep(0.01)


async def until_async(what: Callable[[], Awaitable[bool]], timeout_s: float = 5.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not await what():  # noqa: ASYNC110  the rows of another connection ring no bell
            await asyncio.sleep(0.05)


async def all_delivered(db: Database) -> bool:
    try:
        return set(await states(db)) == {"delivered"}
    except Unavailable:
        return False  # this connection had been cut too


# --- telling ---


async def test_an_event_arrives_signed_and_the_standard_library_verifies_it(
    database: Database, keyring: Keyring, receiver: Receiver, hire: Callable[..., Desk]
) -> None:
    _, secret = await register(database, keyring, f"{receiver.url}/hook")
    await happen(database)
    assert await once(hire()) == 1
    [heard] = receiver.heard
    assert Webhook(secret).verify(heard.body, heard.headers)["type"] == "order.succeeded"
    [stored] = await rows(database, "SELECT event_id, body FROM events")
    assert heard.body == stored["body"]
    assert isinstance(stored["event_id"], UUID)
    assert heard.headers["webhook-id"] == public_id("evt", stored["event_id"]) == orjson.loads(heard.body)["id"]
    assert heard.headers["Content-Type"] == "application/json"
    assert await states(database) == ["delivered"]
    assert await rows(database, "SELECT 1 AS one FROM tasks") == []
    [attempt] = await rows(database, "SELECT http_status, trouble FROM webhook_attempts")
    assert attempt == {"http_status": 204, "trouble": None}


async def test_an_order_tells_its_own_notify_url_signed_with_the_books_secret(
    database: Database, keyring: Keyring, receiver: Receiver, hire: Callable[..., Desk]
) -> None:
    await happen(database, notify_url=f"{receiver.url}/mine?order=1")
    await once(hire())
    [heard] = receiver.heard
    async with database.transaction() as tx:
        secret = await actions.ensure_notify_secret(tx, keyring, BOOK)
    Webhook(secret).verify(heard.body, heard.headers)
    assert await states(database) == ["delivered"]


async def test_every_attempt_sends_the_same_id_and_bytes_until_it_is_given_up(
    database: Database, keyring: Keyring, receiver: Receiver, hire: Callable[..., Desk]
) -> None:
    _, secret = await register(database, keyring, f"{receiver.url}/hook")
    receiver.answers["/hook"] = says(500)
    await happen(database)
    desk = hire()
    for attempt in range(1, rules.MAX_ATTEMPTS + 1):
        desk.courier._lines.clear()  # the pause after failures has a test of its own
        assert await once(desk) == 1
        [row] = await rows(database, "SELECT state, attempts FROM webhook_deliveries")
        assert row["attempts"] == attempt
        if attempt <= len(rules.RETRY_DELAYS):
            [wait] = await rows(database, "SELECT extract(epoch FROM run_at - now())::float AS s FROM tasks")
            assert wait["s"] == pytest.approx(rules.RETRY_DELAYS[attempt - 1].total_seconds(), abs=2)
        await hurry(database)
    assert await states(database) == ["given_up"]
    assert await rows(database, "SELECT 1 AS one FROM tasks") == []
    assert len(receiver.heard) == 14
    assert same_message(receiver.heard)
    for heard in receiver.heard:
        Webhook(secret).verify(heard.body, heard.headers)
    assert len(await rows(database, "SELECT 1 AS one FROM webhook_attempts WHERE http_status = 500")) == 14


async def test_during_rotation_both_secrets_verify_and_afterwards_only_the_new_one(
    database: Database, keyring: Keyring, receiver: Receiver, hire: Callable[..., Desk]
) -> None:
    endpoint, old = await register(database, keyring, f"{receiver.url}/hook")
    async with database.transaction() as tx:
        _, new = await actions.rotate_secret(tx, keyring, BOOK, endpoint.endpoint_id)
    desk = hire()
    await happen(database)
    await once(desk)
    for secret in (old, new):
        Webhook(secret).verify(receiver.heard[0].body, receiver.heard[0].headers)
    assert len(receiver.heard[0].headers["webhook-signature"].split(" ")) == 2
    async with database.transaction() as tx:
        await execute(tx, "UPDATE webhook_endpoints SET old_secret_until = now() - interval '1 second'")
    await happen(database)
    await once(desk)
    Webhook(new).verify(receiver.heard[1].body, receiver.heard[1].headers)
    assert len(receiver.heard[1].headers["webhook-signature"].split(" ")) == 1


# --- killed between the beats ---


async def test_killed_after_the_claim_it_arrives_from_another_worker(
    database: Database, keyring: Keyring, receiver: Receiver, hire: Callable[..., Desk]
) -> None:
    await register(database, keyring, f"{receiver.url}/hook")
    await happen(database)
    await pass_on(database)
    dead = hire()
    await dead.courier.deliver(10)  # the call is scheduled, not begun
    await kill(dead.courier)
    assert receiver.heard == []
    alive = hire("worker-2")
    assert await once(alive) == 0  # the lease of the dead one still stands
    await let_leases_run_out(database)
    assert await once(alive) == 1
    assert len(receiver.heard) == 1
    assert await states(database) == ["delivered"]


async def test_killed_between_call_and_record_it_arrives_again_with_the_same_id_and_bytes(
    database: Database, keyring: Keyring, receiver: Receiver, hire: Callable[..., Desk]
) -> None:
    await register(database, keyring, f"{receiver.url}/hook")
    await happen(database)
    await pass_on(database)
    dead = hire()

    async def never(_: object) -> list[None]:
        await asyncio.sleep(60)
        return []

    dead.courier._records._flush = never  # type: ignore[assignment]
    await dead.courier.deliver(10)
    await until(lambda: len(receiver.heard) == 1)
    await asyncio.sleep(0.05)
    await kill(dead.courier)
    assert await states(database) == ["pending"]
    await let_leases_run_out(database)
    await once(hire("worker-2"))
    assert len(receiver.heard) == 2
    assert same_message(receiver.heard)
    assert await states(database) == ["delivered"]


async def test_a_worker_that_lost_its_lease_changes_no_state(
    database: Database, keyring: Keyring, receiver: Receiver, hire: Callable[..., Desk]
) -> None:
    await register(database, keyring, f"{receiver.url}/hook")
    gate = asyncio.Event()

    async def late_failure(_: web.Request) -> web.StreamResponse:
        if len(receiver.heard) == 1:
            await gate.wait()
            return web.Response(status=500)
        return web.Response(status=204)

    receiver.answers["/hook"] = late_failure
    await happen(database)
    await pass_on(database)
    slow, quick = hire("worker-1"), hire("worker-2")
    await slow.courier.deliver(10)
    await until(lambda: len(receiver.heard) == 1)
    await let_leases_run_out(database)
    await once(quick)
    assert await states(database) == ["delivered"]
    gate.set()
    await slow.courier.drain()
    assert await states(database) == ["delivered"]
    assert await rows(database, "SELECT 1 AS one FROM tasks") == []
    assert len(await rows(database, "SELECT 1 AS one FROM webhook_attempts")) == 2  # what was sent stays on record


async def test_killed_during_fan_out_nothing_is_passed_on_and_nothing_is_lost(
    database: Database, keyring: Keyring
) -> None:
    await register(database, keyring, "https://example.com/hook")
    await happen(database, 3)
    with pytest.raises(RuntimeError):
        async with database.transaction() as tx:
            assert (await actions.fan_out(tx, 100)).events == 3
            raise RuntimeError("killed before COMMIT")
    assert await states(database) == []
    assert await pass_on(database) == 3
    assert await pass_on(database) == 0
    assert await states(database) == ["pending"] * 3


async def test_a_database_that_goes_away_between_call_and_record_is_asked_again(
    database: Database, keyring: Keyring, receiver: Receiver, hire: Callable[..., Desk]
) -> None:
    await register(database, keyring, f"{receiver.url}/hook")
    await happen(database, 5)
    await pass_on(database)

    async def cut_the_lines(_: web.Request) -> web.StreamResponse:
        with contextlib.suppress(Unavailable):  # its own line may be cut by the other one
            async with database.transaction() as tx:
                await fetch(
                    tx,
                    """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                    WHERE usename = current_user AND pid <> pg_backend_pid() AND state = 'idle'""",
                )
        return web.Response(status=204)

    receiver.answers["/hook"] = cut_the_lines
    desk = hire()
    await desk.courier.deliver(10)
    await desk.courier.drain()
    await until_async(lambda: all_delivered(database))
    assert len(receiver.heard) == 5


async def test_a_clean_stop_sends_or_gives_back_everything(
    database: Database, keyring: Keyring, receiver: Receiver, hire: Callable[..., Desk]
) -> None:
    await register(database, keyring, f"{receiver.url}/hook")

    async def slow(_: web.Request) -> web.StreamResponse:
        await asyncio.sleep(0.2)
        return web.Response(status=204)

    receiver.answers["/hook"] = slow
    await happen(database, 40)
    await pass_on(database)
    desk = hire(webhook_per_endpoint=5)
    await desk.courier.deliver(100)
    await until(lambda: len(receiver.heard) >= 5)
    await desk.courier.stop()
    assert await rows(database, "SELECT 1 AS one FROM tasks WHERE state = 'running'") == []
    done = (await states(database)).count("delivered")
    assert 5 <= done < 40
    await once(hire("worker-2"))
    assert await states(database) == ["delivered"] * 40
    assert len(receiver.heard) == 40


# --- what receivers do ---


async def test_gone_disables_with_an_alarm_and_the_events_are_kept(
    database: Database, keyring: Keyring, receiver: Receiver, hire: Callable[..., Desk]
) -> None:
    endpoint, _ = await register(database, keyring, f"{receiver.url}/hook")
    receiver.answers["/hook"] = says(410)
    await happen(database)
    desk = hire()
    await once(desk)
    async with database.transaction() as tx:
        found = await queries.get_endpoint(tx, BOOK, endpoint.endpoint_id)
    assert (found.status, found.status_reason) == ("disabled", "gone")
    [alarm] = await rows(database, "SELECT kind, subject FROM alarms WHERE closed_at IS NULL")
    assert alarm == {"kind": "endpoint_disabled", "subject": public_id("whe", endpoint.endpoint_id)}
    await happen(database, 2)
    await once(desk)
    assert await states(database) == ["held"] * 3
    assert len(receiver.heard) == 1
    del receiver.answers["/hook"]
    async with database.transaction() as tx:
        await actions.enable(tx, BOOK, endpoint.endpoint_id)
        assert await actions.replay_missing(tx, BOOK, endpoint.endpoint_id, None) == (3, False)
    await once(desk)
    assert await states(database) == ["delivered"] * 3
    assert len(receiver.heard) == 4
    assert len({h.headers["webhook-id"] for h in receiver.heard}) == 3


async def test_what_was_claimed_before_the_endpoint_was_disabled_is_held(
    database: Database, keyring: Keyring, receiver: Receiver, hire: Callable[..., Desk]
) -> None:
    endpoint, _ = await register(database, keyring, f"{receiver.url}/hook")
    await happen(database)
    await pass_on(database)
    async with database.transaction() as tx:
        assert await actions.disable(tx, BOOK, endpoint.endpoint_id, "by_merchant")
    await once(hire())
    assert receiver.heard == []
    assert await states(database) == ["held"]


async def test_after_five_days_and_twenty_failures_the_endpoint_is_disabled_with_an_alarm(
    database: Database, keyring: Keyring, receiver: Receiver, hire: Callable[..., Desk]
) -> None:
    endpoint, _ = await register(database, keyring, f"{receiver.url}/hook")
    receiver.answers["/hook"] = says(500)
    async with database.transaction() as tx:
        await execute(
            tx, "UPDATE webhook_endpoints SET failures = 18, first_failure_at = now() - interval '5 days 1 hour'"
        )
    desk = hire()
    for expected in ("enabled", "disabled"):
        await happen(database)
        await once(desk)
        async with database.transaction() as tx:
            assert (await queries.get_endpoint(tx, BOOK, endpoint.endpoint_id)).status == expected
    [alarm] = await rows(database, "SELECT kind FROM alarms")
    assert alarm["kind"] == "endpoint_disabled"


async def test_a_success_forgets_the_failures(
    database: Database, keyring: Keyring, receiver: Receiver, hire: Callable[..., Desk]
) -> None:
    endpoint, _ = await register(database, keyring, f"{receiver.url}/hook")
    receiver.answers["/hook"] = says(500)
    desk = hire()
    await happen(database, 3)
    await once(desk)
    async with database.transaction() as tx:
        failing = await queries.get_endpoint(tx, BOOK, endpoint.endpoint_id)
    assert failing.failures == 3
    assert failing.first_failure_at is not None
    receiver.answers.clear()
    await hurry(database)
    await once(desk)
    async with database.transaction() as tx:
        well = await queries.get_endpoint(tx, BOOK, endpoint.endpoint_id)
    assert (well.failures, well.first_failure_at) == (0, None)
    assert well.last_success_at is not None


async def test_a_redirect_is_not_followed(
    database: Database, keyring: Keyring, receiver: Receiver, hire: Callable[..., Desk]
) -> None:
    await register(database, keyring, f"{receiver.url}/hook")
    receiver.answers["/hook"] = says(307, Location=f"{receiver.url}/inside")
    await happen(database)
    await once(hire())
    assert [h.path for h in receiver.heard] == ["/hook"]
    [attempt] = await rows(database, "SELECT http_status, trouble FROM webhook_attempts")
    assert attempt == {"http_status": 307, "trouble": "redirected"}
    assert await states(database) == ["pending"]


async def test_an_endless_answer_is_read_for_16_kb_and_counts_by_its_status(
    database: Database, keyring: Keyring, receiver: Receiver, hire: Callable[..., Desk]
) -> None:
    await register(database, keyring, f"{receiver.url}/hook")
    written = 0

    async def endless(request: web.Request) -> web.StreamResponse:
        nonlocal written
        response = web.StreamResponse(status=200)
        await response.prepare(request)
        for _ in range(4000):
            await response.write(b"x" * 16384)
            written += 16384
        return response

    receiver.answers["/hook"] = endless
    await happen(database)
    started = time.monotonic()
    await once(hire())
    assert time.monotonic() - started < 5
    assert written < 32 << 20
    assert await states(database) == ["delivered"]


@pytest.mark.parametrize("way", ["says nothing", "never ends"])
async def test_the_whole_call_has_one_deadline(
    way: str, database: Database, keyring: Keyring, receiver: Receiver, hire: Callable[..., Desk],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(rules, "TOTAL_TIMEOUT_S", 0.4)
    await register(database, keyring, f"{receiver.url}/hook")

    async def drip(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=200)
        await response.prepare(request)
        for _ in range(200):
            await response.write(b"x")
            await asyncio.sleep(0.05)
        return response

    receiver.answers["/hook"] = hangs if way == "says nothing" else drip
    await happen(database)
    started = time.monotonic()
    await once(hire())
    assert time.monotonic() - started < 3
    [attempt] = await rows(database, "SELECT http_status, trouble FROM webhook_attempts")
    assert attempt == {"http_status": None, "trouble": "timed_out"}
    assert await states(database) == ["pending"]


async def test_an_endpoint_whose_secret_cannot_be_opened_waits_and_holds_nobody_up(
    database: Database, keyring: Keyring, receiver: Receiver, hire: Callable[..., Desk]
) -> None:
    lost = Keyring({"lost": b"x" * 32}, "lost")
    await register(database, lost, f"{receiver.url}/sealed")
    await register(database, keyring, f"{receiver.url}/hook")
    await happen(database)
    await once(hire())
    assert [h.path for h in receiver.heard] == ["/hook"]
    [waiting] = await rows(database, "SELECT state, trouble, run_at > now() AS later FROM tasks")
    assert waiting == {"state": "ready", "trouble": "secret_unreadable", "later": True}


async def test_a_refused_connection_is_tried_again(database: Database, keyring: Keyring, hire: Callable[..., Desk]) -> None:
    await register(database, keyring, "http://127.0.0.1:9/hook")
    await happen(database)
    await once(hire())
    [attempt] = await rows(database, "SELECT http_status, trouble FROM webhook_attempts")
    assert attempt == {"http_status": None, "trouble": "connect_failed"}
    assert await states(database) == ["pending"]


# --- nobody waits for another's receiver ---


async def test_a_hanging_endpoint_does_not_delay_the_others(
    database: Database, keyring: Keyring, receiver: Receiver, hire: Callable[..., Desk]
) -> None:
    for name in ("hang-1", "hang-2", "hang-3"):
        await register(database, keyring, f"{receiver.url}/{name}", ("balance.low",))
        receiver.answers[f"/{name}"] = hangs
    await register(database, keyring, f"{receiver.url}/well", ("order.succeeded",))
    desk = hire(webhook_concurrency=20, webhook_per_endpoint=10)
    await happen(database, 700, "balance.low")  # 2,100 deliveries stand before the first for /well
    await pass_on(database)
    stop = asyncio.Event()

    async def work() -> None:
        while not stop.is_set():
            if not await job.fan_out(desk) and not await job.deliver(desk, 200):
                await asyncio.sleep(0.02)

    working = asyncio.create_task(work())
    await until(lambda: any(h.path.startswith("/hang") for h in receiver.heard))
    delays = []
    for i in range(20):
        started = time.monotonic()
        await happen(database)
        await until(lambda i=i: len(receiver.at("/well")) == i + 1)  # type: ignore[misc]
        delays.append(time.monotonic() - started)
    stop.set()
    await working
    assert sorted(delays)[-2] < 1.0, delays
    assert max(delays) < 3.0, delays
    assert sum(receiver.most_open[f"/hang-{i}"] for i in (1, 2, 3)) <= 30
    assert len(await rows(database, "SELECT 1 AS one FROM tasks")) >= 2100 - 200  # and nothing of theirs was dropped


async def test_no_endpoint_gets_more_calls_at_once_than_its_limit(
    database: Database, keyring: Keyring, receiver: Receiver, hire: Callable[..., Desk]
) -> None:
    await register(database, keyring, f"{receiver.url}/hook")

    async def slow(_: web.Request) -> web.StreamResponse:
        await asyncio.sleep(0.01)
        return web.Response(status=204)

    receiver.answers["/hook"] = slow
    await happen(database, 300)
    await once(hire(webhook_per_endpoint=7))
    assert receiver.most_open["/hook"] <= 7
    assert len(receiver.heard) == 300


async def test_a_thousand_events_for_many_endpoints_arrive_once_each(
    database: Database, keyring: Keyring, receiver: Receiver, hire: Callable[..., Desk]
) -> None:
    for i in range(5):
        await register(database, keyring, f"{receiver.url}/hook-{i}")
    await happen(database, 200)
    desks = [hire("worker-1"), hire("worker-2")]
    await pass_on(database)
    async with asyncio.timeout(20):
        while "pending" in await states(database):
            await asyncio.gather(*(once(desk) for desk in desks))
    assert len(receiver.heard) == 1000
    assert len({(h.path, h.headers["webhook-id"]) for h in receiver.heard}) == 1000


# --- what may not be called ---


INSIDE = [
    "http://127.0.0.1:{port}/x", "http://localhost:{port}/x", "http://2130706433:{port}/x", "http://0x7f000001:{port}/x",
    "http://0177.0.0.1:{port}/x", "http://127.1:{port}/x", "http://0:{port}/x", "http://0.0.0.0:{port}/x",
    "http://[::1]:{port}/x", "http://[::ffff:127.0.0.1]:{port}/x", "http://[64:ff9b::7f00:1]:{port}/x",
    "http://[2002:7f00:1::]:{port}/x", "http://[::1%25lo]:{port}/x", "http://LOCALHOST.:{port}/x",
    "http://127.0.0.1.:{port}/x", "https://127.0.0.1:{port}/x", "http://user@127.0.0.1:{port}/x",
    "http://example.com@127.0.0.1:{port}/x", "http://127.0.0.1:{port}#@example.com/",
    "http://127.0.0.1:{port}\\@example.com/",
    "http://①②⑦.⓪.⓪.①:{port}/x", "http://169.254.169.254/latest/meta-data", "https://inside.example:8443/x",
]  # fmt: skip


async def test_no_spelling_of_an_inside_address_is_called_when_it_is_time_to_send(
    database: Database, keyring: Keyring, receiver: Receiver, settings: Settings
) -> None:
    """The rows are written past the registration check, as if a name had changed its address since."""
    port = receiver.url.rsplit(":", 1)[1]

    async def rebound(host: str, _: int) -> list[str]:
        return ["93.184.216.34", "127.0.0.1"] if host == "inside.example" else ["127.0.0.1"]

    live = settings.model_copy(update={"webhook_development": False})
    client = build_client(
        max_connections=100, connect_timeout_s=2, guard=True, allow_loopback=live.webhook_development, resolve=rebound
    )
    courier = Courier(database, keyring, live, "worker-1", client=client)
    for spelling in INSIDE:
        await happen(database, notify_url=spelling.format(port=port))
    try:
        await once(Desk(database, courier))
    finally:
        await courier.stop()
    assert receiver.heard == []
    found = await rows(database, "SELECT trouble, count(*) AS count FROM webhook_attempts GROUP BY 1")
    assert found == [{"trouble": "address_refused", "count": len(INSIDE)}]
