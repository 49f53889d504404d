"""The order rooms on a real database with a catalogue made of values: the test says what each supplier answers."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

from tests.factories.merchants import keyring_of, make_merchant

from kameng_api.catalog.rules import Channel, Offer, Price, PriceList, Product, Snapshot
from kameng_api.kit.crypto import Keyring
from kameng_api.kit.db import Database, execute, fetch
from kameng_api.kit.errors import Problem
from kameng_api.kit.sets import Moved
from kameng_api.ledger import queries as ledger
from kameng_api.merchants.rules import Caller
from kameng_api.orders import actions, queries
from kameng_api.orders.absorb import News
from kameng_api.orders.actions import Place, Placed
from kameng_api.orders.changes import CodeSoldBefore
from kameng_api.orders.choices import Surroundings
from kameng_api.orders.dispatch import Submission, dispatch
from kameng_api.orders.requests import OrderRequest, appraise
from kameng_api.orders.rules import Order
from kameng_api.orders.settle import Settlement, settle, settle_copies
from kameng_api.reconciliation import invariants
from kameng_api.settings import Settings
from kameng_api.suppliers import queries as attempts_of
from kameng_api.suppliers.port import Answer, Capabilities, Outcome
from kameng_api.suppliers.rules import Attempt
from kameng_api.tasks.rules import Task

PHONE = "13800138000"
PRICE = 1_000_000
"""100 CNY a unit; channel `a` asks 90, `b` 95."""

PRODUCTS = (
    Product("phone", "Phone", "topup", face_value=PRICE, target_kind="mobile"),
    Product("guarded", "Guarded", "topup", face_value=PRICE, target_kind="mobile", duplicate_window_s=600),
    Product("card", "Card", "card", face_value=PRICE),
)
ALWAYS = Capabilities(not_found_is_final=True, not_found_grace_s=0, min_query_interval_s=0.0)


def shop(*, costs: dict[str, int] | None = None, concurrency: int = 100) -> Snapshot:
    costs = costs or {"a": 900_000, "b": 950_000}
    return Snapshot(
        1,
        {p.sku: p for p in PRODUCTS},
        {p.sku: PriceList(Price(unit_price=PRICE)) for p in PRODUCTS},
        {p.sku: tuple(Offer(c, p.sku, "code", unit_cost=cost) for c, cost in costs.items()) for p in PRODUCTS},
        {c: Channel(c, c, "simulator", "test", concurrency=concurrency) for c in costs},
    )


@dataclass
class Counter:
    """One merchant's book, and the steps of an order as functions of one transaction each."""

    db: Database
    keyring: Keyring
    book_id: int
    merchant_id: UUID
    around: Surroundings = field(default_factory=lambda: Surroundings(shop()))

    @classmethod
    async def open(cls, db: Database, settings: Settings, *, money: str = "10000") -> "Counter":
        merchant = await make_merchant(db, settings, money=money)
        return cls(db, keyring_of(settings), merchant.book_id, merchant.merchant_id)

    def ask(self, number: str = "PO-1", *, book_id: int | None = None, **more: Any) -> Place:
        """An order at the door, appraised against the catalogue."""
        caller = Caller("ak", self.merchant_id, "m", book_id or self.book_id, "test", "standard", "CNY", frozenset(), "127.0.0.1", "r")
        sku = more.get("sku", "phone")
        request = OrderRequest(number, **{"sku": sku, "target": None if sku == "card" else PHONE} | more)
        verdict = appraise(request, caller, self.around.snapshot)
        return Place(caller.book_id, "test", "CNY", request, request.fingerprint(), verdict)

    async def place(self, *asked: Place) -> list[Placed | Problem]:
        """One flush."""
        async with self.db.transaction() as tx:
            return await actions.place(tx, self.keyring, asked)

    async def order(self, number: str = "PO-1", **more: Any) -> Order:
        """Place one that must be accepted."""
        [placed] = await self.place(self.ask(number, **more))
        assert isinstance(placed, Placed), placed
        return placed.order

    async def dispatch(self, *, limit: int = 100, lease_s: float = 60, worker: str = "w1", **around: Any) -> list[Submission]:
        async with self.db.transaction() as tx:
            found = await dispatch(tx, self.keyring, replace(self.around, **around), limit=limit, lease_s=lease_s, worker=worker)
        assert not found.poisoned, found.poisoned
        return found.submissions

    async def buy(self, number: str = "PO-1", **more: Any) -> tuple[Order, Submission]:
        """An order that has been placed and sent."""
        order = await self.order(number, **more)
        [submission] = await self.dispatch()
        return order, submission

    async def told(
        self, whom: Submission | Attempt, outcome: Outcome, beat: str = "place", *, task: Task | None = None, **more: Any
    ) -> str:
        """Settle one answer as a worker does; the purchase's own answer completes its task, without locks where that goes."""
        key = whom.attempt_key if isinstance(whom, Submission) else whom.key
        if isinstance(whom, Submission) and beat == "place":
            task = whom.task
        news = News(*key, beat, Answer(outcome, raw=b"{}"), **{"capabilities": ALWAYS} | more)
        copy = whom.copy if isinstance(whom, Submission) and beat == "place" else None
        settlement = Settlement(news, task, copy=copy)
        if settlement.is_quick:
            with suppress(Moved, CodeSoldBefore):
                async with self.db.transaction() as tx:
                    [status] = await settle_copies(tx, self.keyring, [settlement])
                return status
        async with self.db.transaction() as tx:
            [status] = await settle(tx, self.keyring, [settlement])
        return status

    async def now(self, order: Order) -> Order:
        async with self.db.transaction() as tx:
            return await queries.get_order(tx, *order.key)

    async def attempts(self, order: Order) -> list[Attempt]:
        async with self.db.transaction() as tx:
            return (await attempts_of.list_of_orders(tx, [order.key]))[order.key]

    async def incidents(self, order: Order) -> list[str]:
        async with self.db.transaction() as tx:
            return [r["kind"] for r in await queries.list_incidents(tx, *order.key)]

    async def money(self) -> tuple[int, int]:
        """(available, held) in whole units."""
        async with self.db.transaction() as tx:
            balance = await ledger.get_balance(tx, self.book_id, "CNY")
        return balance.available // 10_000, balance.held // 10_000

    async def tasks(self) -> list[tuple[str, str]]:
        async with self.db.transaction() as tx:
            return [(r["lane"], r["state"]) for r in await fetch(tx, "SELECT lane, state FROM tasks ORDER BY lane, ref")]

    async def expire_leases(self) -> None:
        """As if the workers that hold them had been silent for long."""
        async with self.db.transaction() as tx:
            await execute(tx, "UPDATE tasks SET lease_until = now() - interval '1 second' WHERE state = 'running'")

    async def everything_due(self) -> None:
        async with self.db.transaction() as tx:
            await execute(tx, "UPDATE tasks SET run_at = now() WHERE state = 'ready' AND run_at > now()")

    async def events(self, order: Order) -> list[tuple[str, int]]:
        async with self.db.transaction() as tx:
            rows = await fetch(tx, "SELECT type, version FROM events WHERE order_id = $1 ORDER BY version", order.order_id)
        return [(r["type"], r["version"]) for r in rows]

    async def holds(self) -> None:
        """Every invariant, and work or a person for every open order, without the grace that production gives."""
        async with self.db.transaction() as tx:
            assert await invariants.check_all(tx) == []
            idle = await fetch(
                tx,
                """SELECT o.order_id, o.substatus FROM orders o WHERE o.status IN ('accepted', 'processing')
                  AND o.substatus IS DISTINCT FROM 'manual_review'
                  AND NOT EXISTS (SELECT FROM tasks t WHERE t.book_id = o.book_id AND t.ref = o.order_id AND t.lane = 'submit')
                  AND NOT EXISTS (SELECT FROM tasks t JOIN attempts a ON a.book_id = t.book_id AND a.attempt_id = t.ref
                    WHERE a.book_id = o.book_id AND a.order_id = o.order_id AND t.lane = 'look_up')""",
            )
            assert idle == []


def codes_of(verdicts: Sequence[Placed | Problem]) -> list[str]:
    """`created`, `replayed` or the problem's code, for each."""
    return [("created" if v.created else "replayed") if isinstance(v, Placed) else v.code for v in verdicts]
