"""Callbacks through doors on a real database, to a real receiver: every beat may be killed, and the end of every order is still told."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime

import pytest
from aiohttp import web
from tests.factories.counter import Counter
from tests.factories.doors import Receiver, receiving
from tests.factories.merchants import keyring_of

from kameng_api.jobs.door_callbacks import Messenger, call_back
from kameng_api.kit.crypto import Keyring
from kameng_api.kit.db import Database, fetch
from kameng_api.merchants import door_accounts
from kameng_api.merchants.door_accounts import AccountTerms
from kameng_api.merchants.door_rules import Account
from kameng_api.orders import actions as orders
from kameng_api.orders import foreign
from kameng_api.orders.foreign import Card, Letter, Letters, Shown
from kameng_api.orders.rules import Order
from kameng_api.settings import Settings
from kameng_api.suppliers.port import Code, Delivered
from kameng_api.webhooks import actions as webhooks


class PlainLetters(Letters):
    """The simplest a door can write."""

    retries_s = (10, 20)
    with_cards = True

    def write(self, account: Account, order: Shown, cards: Sequence[Card], now: datetime) -> Letter | None:
        if order.number == "PO-broken":
            raise ValueError("a bug of one door")
        if order.number == "PO-silent":
            return None
        words = [account.account, account.secrets["key"], order.number, order.state.value, *(card.code for card in cards)]
        return Letter(order.callback or "", " ".join(words).encode())

    def heard(self, status: int, body: bytes) -> bool:
        return status == 200 and body == b"ok"


@dataclass
class Desk:
    messenger: Messenger


@dataclass
class Post:
    """A merchant with an account at a door, a receiver, and messengers to hire."""

    counter: Counter
    receiver: Receiver
    settings: Settings
    account: door_accounts.NewAccount
    hired: list[Messenger]

    def hire(self, worker: str = "worker-1") -> Desk:
        messenger = Messenger(
            self.counter.db, self.counter.keyring, self.settings, worker, {"plain": PlainLetters()}, chance=lambda: 0.0
        )
        self.hired.append(messenger)
        return Desk(messenger)

    def receiver_of(self, path: str = "/cb") -> str:
        return foreign.receiver(self.account.account.account_id, f"{self.receiver.url}{path}")

    async def ended(self, number: str = "PO-1", *, path: str = "/cb") -> Order:
        """An order that was cancelled, its events passed on."""
        order = await self.counter.order(number, notify_url=self.receiver_of(path))
        async with self.counter.db.transaction() as tx:
            await orders.cancel(tx, self.counter.keyring, *order.key)
        await self.pass_on()
        return order

    async def pass_on(self) -> None:
        async with self.counter.db.transaction() as tx:
            await webhooks.fan_out(tx, 1000)

    async def states(self) -> list[tuple[str, int]]:
        async with self.counter.db.transaction() as tx:
            return [(r["state"], r["attempts"]) for r in await fetch(tx, "SELECT state, attempts FROM webhook_deliveries ORDER BY delivery_id")]

    async def troubles(self) -> list[str | None]:
        async with self.counter.db.transaction() as tx:
            return [r["trouble"] for r in await fetch(tx, "SELECT trouble FROM webhook_attempts ORDER BY attempt_id")]

    async def due_in_s(self) -> list[float]:
        async with self.counter.db.transaction() as tx:
            rows = await fetch(tx, "SELECT extract(epoch FROM run_at - now())::float8 AS s FROM tasks WHERE lane = 'door' AND state = 'ready'")
        return [r["s"] for r in rows]

    async def round(self, desk: Desk) -> int:
        await self.counter.everything_due()
        found = await call_back(desk, 100)
        await desk.messenger.drain()
        return found


@pytest.fixture
async def post(database: Database, settings: Settings) -> AsyncIterator[Post]:
    counter = await Counter.open(database, settings)
    async with database.transaction() as tx:
        account = await door_accounts.create(
            tx, keyring_of(settings), counter.merchant_id, "test", "plain", "1001", {"key": "key-for-tests"}, AccountTerms()
        )
    async with receiving() as receiver:
        receiver.reply = lambda _: (200, b"ok")
        opened = Post(counter, receiver, settings, account, [])
        yield opened
        for messenger in opened.hired:
            await messenger.stop()


async def test_the_end_of_an_order_is_told_once(post: Post) -> None:
    await post.ended()
    desk = post.hire()
    assert await post.round(desk) == 1
    assert [h.body for h in post.receiver.heard] == [b"1001 key-for-tests PO-1 cancelled"]
    assert await post.states() == [("delivered", 1)]
    assert await post.round(desk) == 0 and await post.troubles() == [None]


async def test_only_ends_are_told_and_webhooks_are_not_touched(post: Post) -> None:
    await post.counter.order("PO-1", notify_url=post.receiver_of())
    await post.pass_on()
    assert await post.states() == []
    plain = await post.counter.order("PO-2", notify_url="https://m.example.com/hook")
    await post.pass_on()
    async with post.counter.db.transaction() as tx:
        lanes = [r["lane"] for r in await fetch(tx, "SELECT lane FROM tasks WHERE lane IN ('webhook', 'door')")]
    assert lanes == ["webhook"] and plain.notify_url == "https://m.example.com/hook"


async def test_cards_are_told_and_the_reveal_is_written_down(post: Post) -> None:
    order, submission = await post.counter.buy("PO-1", sku="card", notify_url=post.receiver_of())
    await post.counter.told(submission, Delivered(1, codes=(Code("CARD-1", "1234"),)))
    await post.pass_on()
    await post.round(post.hire())
    assert post.receiver.heard[0].body == b"1001 key-for-tests PO-1 succeeded CARD-1"
    async with post.counter.db.transaction() as tx:
        reveals = await fetch(tx, "SELECT order_id, key_id, count FROM code_reveals")
        deliveries = await fetch(tx, "SELECT d.*::text AS all FROM webhook_deliveries d")
        attempts = await fetch(tx, "SELECT a.*::text AS all FROM webhook_attempts a")
    assert [(r["order_id"], r["key_id"], r["count"]) for r in reveals] == [(order.order_id, "door:plain:1001", 1)]
    assert "CARD-1" not in str([r["all"] for r in (*deliveries, *attempts)])


async def test_a_worker_that_dies_after_the_call_tells_it_again(post: Post) -> None:
    await post.ended()
    first = post.hire("worker-1")
    held = asyncio.Event()
    first.messenger._record = _never(held)  # type: ignore[method-assign,assignment]
    await call_back(first, 100)
    await asyncio.wait_for(held.wait(), 5)
    assert await call_back(post.hire("worker-2"), 100) == 0  # leased
    await post.counter.expire_leases()
    assert await post.round(post.hire("worker-3")) == 1
    assert len(post.receiver.heard) == 2 and len({h.body for h in post.receiver.heard}) == 1
    assert await post.states() == [("delivered", 1)]


def _never(held: asyncio.Event) -> object:
    async def record(*_args: object, **_more: object) -> None:
        held.set()

    return record


async def test_a_stale_worker_changes_nothing(post: Post) -> None:
    await post.ended()
    slow, release = post.hire("slow"), asyncio.Event()
    record = slow.messenger._record

    async def late(*args: object, **more: object) -> None:
        await release.wait()
        await record(*args, **more)  # type: ignore[arg-type]

    slow.messenger._record = late  # type: ignore[method-assign]
    post.receiver.reply = lambda _: (200, b"ok")
    await call_back(slow, 100)
    await asyncio.sleep(0.2)
    await post.counter.expire_leases()
    post.receiver.reply = lambda _: (500, b"")
    await post.round(post.hire("quick"))
    assert await post.states() == [("pending", 1)]
    release.set()
    await slow.messenger.drain()
    assert await post.states() == [("pending", 1)]  # what was sent is in the log; the state is its owner's
    assert sorted(str(t) for t in await post.troubles()) == ["None", "not_2xx"]


async def test_it_goes_on_as_the_door_says_then_is_given_up_and_sent_again_by_hand(post: Post) -> None:
    await post.ended()
    desk = post.hire()
    answers: list[tuple[int, bytes]] = [(200, b"OK"), (302, b""), (500, b"ok")]
    for n, answer in enumerate(answers):
        post.receiver.reply = lambda _, answer=answer: answer  # type: ignore[misc]
        await post.round(desk)
        waits = await post.due_in_s()
        expected = PlainLetters.retries_s[n : n + 1]
        assert [round(w) for w in waits] == [pytest.approx(s, abs=1) for s in expected]
    assert await post.states() == [("given_up", 3)]
    assert await post.troubles() == ["not_acknowledged", "redirected", "not_2xx"]
    async with post.counter.db.transaction() as tx:
        [row] = await fetch(tx, "SELECT delivery_id FROM webhook_deliveries")
        await webhooks.resend_delivery(tx, post.counter.book_id, row["delivery_id"])
    post.receiver.reply = lambda _: (200, b"ok")
    assert await post.round(desk) == 1
    assert await post.states() == [("delivered", 1)]


async def test_an_account_that_is_off_is_not_called_and_nothing_is_lost(post: Post) -> None:
    async with post.counter.db.transaction() as tx:
        await door_accounts.switch(tx, post.account.account.account_id, enabled=False)
    await post.ended()
    await post.round(post.hire())
    assert post.receiver.heard == [] and await post.states() == [("held", 0)]
    desk = post.hire()
    async with post.counter.db.transaction() as tx:
        await door_accounts.switch(tx, post.account.account.account_id, enabled=True)
        assert await webhooks.take_up_held(tx, post.counter.book_id, foreign.receiver(post.account.account.account_id, "")) == 1
    assert await post.round(desk) == 1
    assert await post.states() == [("delivered", 1)]


async def test_a_bug_of_one_door_and_silence_stop_nobody_else(post: Post) -> None:
    for number in ("PO-broken", "PO-silent", "PO-1"):
        await post.ended(number)
    await post.round(post.hire())
    assert [h.body for h in post.receiver.heard] == [b"1001 key-for-tests PO-1 cancelled"]
    assert sorted(await post.states()) == [("delivered", 1), ("given_up", 0), ("pending", 0)]
    async with post.counter.db.transaction() as tx:
        alarms = await fetch(tx, "SELECT kind, severity, detail FROM alarms")
    assert [(a["kind"], a["severity"]) for a in alarms] == [("task_parked", "warning")] and "plain" in alarms[0]["detail"]


async def test_codes_and_secrets_that_do_not_open_stop_nobody_else(post: Post) -> None:
    ring, post.counter.keyring = post.counter.keyring, Keyring({"lost": bytes(32)}, "lost")
    _, submission = await post.counter.buy("PO-sealed", sku="card", notify_url=post.receiver_of())
    await post.counter.told(submission, Delivered(1, codes=(Code("CARD-1", "1234"),)))
    async with post.counter.db.transaction() as tx:
        second = await door_accounts.create(
            tx, post.counter.keyring, post.counter.merchant_id, "test", "plain", "1002", {"key": "key-for-tests"}, AccountTerms()
        )
    post.counter.keyring = ring
    lost = await post.counter.order("PO-lost", notify_url=foreign.receiver(second.account.account_id, f"{post.receiver.url}/cb"))
    async with post.counter.db.transaction() as tx:
        await orders.cancel(tx, post.counter.keyring, *lost.key)
    await post.ended("PO-1")
    await post.round(post.hire())
    assert [h.body for h in post.receiver.heard] == [b"1001 key-for-tests PO-1 cancelled"]
    assert sorted(await post.states()) == [("delivered", 1), ("pending", 0), ("pending", 0)]
    async with post.counter.db.transaction() as tx:
        assert await fetch(tx, "SELECT 1 FROM code_reveals") == []


async def test_an_account_of_another_book_writes_no_letters_here(post: Post, database: Database, settings: Settings) -> None:
    other = await Counter.open(database, settings)
    order = await other.order("PO-1", notify_url=post.receiver_of())
    async with database.transaction() as tx:
        await orders.cancel(tx, other.keyring, *order.key)
    await post.pass_on()
    await post.round(post.hire())
    assert post.receiver.heard == []


async def test_addresses_inside_are_not_called(post: Post) -> None:
    order = await post.counter.order("PO-1", notify_url=foreign.receiver(post.account.account.account_id, "https://10.0.0.1/cb"))
    async with post.counter.db.transaction() as tx:
        await orders.cancel(tx, post.counter.keyring, *order.key)
    await post.pass_on()
    await post.round(post.hire())
    assert await post.troubles() == ["address_refused"]


async def test_one_dead_system_takes_no_more_than_its_share_of_the_places(post: Post) -> None:
    hanging = asyncio.Event()
    take = post.receiver.take

    async def never(request: web.Request) -> web.Response:
        await hanging.wait()
        return await take(request)

    post.receiver.take = never  # type: ignore[method-assign]
    for n in range(40):
        await post.ended(f"PO-{n}")
    desk = post.hire()
    await post.counter.everything_due()
    assert await call_back(desk, 100) == 40
    assert len(desk.messenger._waiting) + desk.messenger._in_flight.total() == 20
    hanging.set()
    await desk.messenger.drain()
    assert len(await post.due_in_s()) == 20 and await post.states() and not desk.messenger._waiting


async def test_one_dead_system_does_not_hold_up_the_others(post: Post) -> None:
    hanging = asyncio.Event()

    take = post.receiver.take

    async def slowly(request: web.Request) -> web.Response:
        if request.path == "/dead":
            await hanging.wait()
        return await take(request)

    async with post.counter.db.transaction() as tx:
        second = await door_accounts.create(
            tx, post.counter.keyring, post.counter.merchant_id, "test", "plain", "1002", {"key": "key-for-tests"}, AccountTerms()
        )
    post.receiver.take = slowly  # type: ignore[method-assign]
    for n in range(15):
        await post.ended(f"PO-dead-{n}", path="/dead")
    quick = await post.counter.order("PO-quick", notify_url=foreign.receiver(second.account.account_id, f"{post.receiver.url}/quick"))
    async with post.counter.db.transaction() as tx:
        await orders.cancel(tx, post.counter.keyring, *quick.key)
    await post.pass_on()
    desk = post.hire()
    await post.counter.everything_due()
    await call_back(desk, 100)
    heard = await post.receiver.wait_for(1, within_s=5)
    assert [h.path for h in heard] == ["/quick"]
    hanging.set()
    await desk.messenger.drain()
    assert len(post.receiver.heard) == 16

