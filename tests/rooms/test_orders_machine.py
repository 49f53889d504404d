"""Any business in any order, with crashes: after each step the books, the orders, the tasks and the events agree."""

import asyncio
from collections.abc import Coroutine, Iterator
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as examples
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule, run_state_machine_as_test
from tests.conftest import empty
from tests.factories.counter import ALWAYS, PHONE, Counter, codes_of

from kameng_api.embedded.servers import Servers
from kameng_api.kit.db import Database, execute, fetch
from kameng_api.kit.errors import Problem
from kameng_api.orders import actions
from kameng_api.orders.absorb import News
from kameng_api.orders.actions import Placed, Resolution
from kameng_api.orders.changes import CodeSoldBefore
from kameng_api.orders.dispatch import Submission
from kameng_api.orders.rules import Order
from kameng_api.orders.settle import Settlement, settle
from kameng_api.settings import Settings
from kameng_api.suppliers import queries as attempts_of
from kameng_api.suppliers.port import (
    Accepted,
    Answer,
    Code,
    Delivered,
    NotFound,
    NotSent,
    Outcome,
    RefusalReason,
    Refused,
    Reversed,
    Scope,
    Unknown,
)
from kameng_api.tasks import actions as tasks
from kameng_api.tasks.rules import Lane

T = TypeVar("T")

codes = st.sampled_from(["", "fresh", "fresh", "same"])
outcomes: st.SearchStrategy[Outcome | str] = st.one_of(
    st.builds(Delivered, st.integers(0, 4), st.none() | st.integers(0, 4_000_000)),
    st.builds(Refused, st.sampled_from(Scope), st.sampled_from(RefusalReason)),
    st.sampled_from(
        [
            Accepted("S"), Accepted(), NotSent("x"), Unknown("x"), Unknown("x", needs_person=True), NotFound(), NotFound(),
            Reversed("r1"), Reversed("r1", 400_000), Reversed("r2", 10**9), "cards", "cards", "sold",
        ]
    ),
)  # fmt: skip
beats = st.sampled_from(["look_up", "callback"])


class Shop(RuleBasedStateMachine):
    """`loop`, `servers` and `config` are set by the test. Purchases are answered any number of times, in any order, or never."""

    loop: asyncio.AbstractEventLoop
    servers: Servers
    config: Settings

    orders: Bundle[Order] = Bundle("orders")
    calls: Bundle[Submission] = Bundle("calls")  # under way: nobody has heard their answer
    sent: Bundle[Submission] = Bundle("sent")  # every purchase there ever was

    @initialize()
    def open(self) -> None:
        self.numbers = iter(range(1, 100_000))
        self.refunds = iter(range(1, 100_000))
        self.run(self._open())

    async def _open(self) -> None:
        await empty(self.servers.owner_url)
        self.db = Database(self.servers.app_url, pool_size=4)
        self.counter = await Counter.open(self.db, self.config, money="1000")

    def teardown(self) -> None:
        if hasattr(self, "db"):
            self.run(self.db.close())

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    # --- the merchant ------------------------------------------------------------------------------------------------

    @rule(target=orders, flush=st.lists(st.tuples(st.integers(1, 4), st.sampled_from(["phone", "guarded", "card"])), min_size=1, max_size=4))
    def place(self, flush: list[tuple[int, str]]) -> Any:
        asked = [self.counter.ask(f"PO-{next(self.numbers)}", quantity=units, sku=sku) for units, sku in flush]
        return multiple(*(v.order for v in self.run(self.counter.place(*asked)) if isinstance(v, Placed)))

    @rule(order=orders, same=st.booleans())
    def place_again(self, order: Order, same: bool) -> None:
        more = {"quantity": order.quantity if same else order.quantity + 1, "sku": order.sku, "target": None if order.sku == "card" else PHONE}
        before = self.run(self.counter.money())
        words = codes_of(self.run(self.counter.place(self.counter.ask(order.merchant_order_no, **more))))
        assert words == (["replayed"] if same else ["merchant_order_no_conflict"])
        assert self.run(self.counter.money()) == before

    @rule(order=orders)
    def cancel(self, order: Order) -> None:
        self.try_(lambda tx: actions.cancel(tx, self.counter.keyring, *order.key))

    # --- the operator ------------------------------------------------------------------------------------------------

    @rule(order=orders, amount=st.integers(1, 2_000_000))
    def refund(self, order: Order, amount: int) -> None:
        number = f"R-{next(self.refunds)}"
        self.try_(lambda tx: actions.refund(tx, self.counter.keyring, *order.key, refund_no=number, amount=amount, reason="x"))

    @rule(order=orders, delivered=st.booleans())
    def resolve(self, order: Order, delivered: bool) -> None:
        verdict = Resolution(delivered, "seen")
        self.try_(lambda tx: actions.resolve_review(tx, self.counter.keyring, self.counter.around.snapshot, *order.key, verdict))

    def try_(self, act: Any) -> None:
        """In a transaction of its own; a refusal is as good as a success, an assertion is not."""

        async def do() -> None:
            try:
                async with self.db.transaction() as tx:
                    await act(tx)
            except Problem:
                pass

        self.run(do())

    # --- the workers -------------------------------------------------------------------------------------------------

    # The wall clock decides nothing here, else Hypothesis could not replay what it found: whatever waits is due.
    @rule(target=calls, a=st.sampled_from([0, 99, 99]), b=st.sampled_from([0, 99, 99]))
    def dispatch(self, a: int, b: int) -> Any:
        self.run(self.counter.everything_due())
        return multiple(*self.run(self.counter.dispatch(room={"a": a, "b": b}, not_sent_pause_s=0.0)))

    @rule(target=sent, call=consumes(calls), outcome=outcomes, sold=codes)
    def answer(self, call: Submission, outcome: Outcome | str, sold: str) -> Submission:
        self.tell(call, outcome, "place", sold)
        return call

    @rule(target=sent, call=consumes(calls))
    def the_worker_dies(self, call: Submission) -> Submission:
        self.run(self.counter.expire_leases())
        return call

    @rule(call=sent, outcome=outcomes, beat=beats, sold=codes)
    def tell_later(self, call: Submission, outcome: Outcome | str, beat: str, sold: str) -> None:
        self.tell(call, outcome, beat, sold)

    @rule(call=calls, outcome=outcomes, sold=codes)
    def a_callback_overtakes(self, call: Submission, outcome: Outcome | str, sold: str) -> None:
        self.tell(call, outcome, "callback", sold)

    @rule(call=sent, first=outcomes, second=outcomes)
    def two_answers_in_one_commit(self, call: Submission, first: Outcome | str, second: Outcome | str) -> None:
        told = [o for o in (first, second) if not isinstance(o, str)]

        async def do() -> None:
            async with self.db.transaction() as tx:
                news = [News(*call.attempt_key, "callback", Answer(o), ALWAYS) for o in told]
                await settle(tx, self.counter.keyring, [Settlement(n) for n in news])

        self.run(do())

    @rule(outcome=outcomes)
    def look_up(self, outcome: Outcome | str) -> None:
        """What the job does: claim, ask, record with the task."""

        async def claim() -> list[Any]:
            async with self.db.transaction() as tx:
                claimed = await tasks.claim(tx, Lane.LOOK_UP, 100, 60, "w")
                found = await attempts_of.find_attempts(tx, [t.key for t in claimed]) if claimed else {}
                await tasks.complete(tx, [t for t in claimed if not found[t.key].live])
            return [(t, found[t.key]) for t in claimed if found[t.key].live]

        self.run(self.counter.everything_due())
        for task, attempt in self.run(claim()):
            said = NotFound() if isinstance(outcome, str) else outcome
            self.run(self.counter.told(attempt, said, "look_up", task=task))

    def tell(self, call: Submission, outcome: Outcome | str, beat: str, sold: str) -> None:
        units, number = call.purchase.units, call.purchase.reference
        if isinstance(outcome, str) or (call.product_type == "card" and isinstance(outcome, Delivered) and outcome.units):
            made = {"": [], "fresh": [Code(f"{number}-{n}") for n in range(units)], "same": [Code(f"same-{n}") for n in range(units)]}[sold]
            outcome = Delivered(units, codes=tuple(made) if call.product_type == "card" else ())

        async def do() -> None:
            try:
                await self.counter.told(call, outcome, beat)
            except CodeSoldBefore:
                await self.counter.told(call, outcome, beat, codes_sold_before=True)

        self.run(do())

    # --- time --------------------------------------------------------------------------------------------------------

    @rule()
    def all_leases_run_out(self) -> None:
        self.run(self.counter.expire_leases())

    @rule()
    def deadlines_pass(self) -> None:
        async def do() -> None:
            async with self.db.transaction() as tx:
                await execute(tx, "UPDATE orders SET deadline_at = now() - interval '1 second'")

        self.run(do())

    @invariant()
    def everything_agrees(self) -> None:
        if hasattr(self, "counter"):
            self.run(self._agree())

    async def _agree(self) -> None:
        await self.counter.holds()
        async with self.db.transaction() as tx:
            # What the merchant has, from his orders alone.
            [sums] = await fetch(
                tx,
                """SELECT coalesce(sum(captured - refunded), 0)::bigint AS paid,
                  coalesce(sum(amount) FILTER (WHERE status IN ('accepted', 'processing')), 0)::bigint AS held FROM orders""",
            )
            [account] = await fetch(tx, "SELECT balance FROM accounts WHERE book_id = $1 AND account = 'merchant_available'", self.counter.book_id)
            assert account["balance"] == 10_000_000 - sums["paid"] - sums["held"]
            # No purchase was sent while an earlier one could still deliver.
            early = await fetch(
                tx,
                """SELECT a.attempt_id FROM attempts a JOIN attempts b USING (book_id, order_id) WHERE b.n < a.n
                  AND (b.settled_at IS NULL OR b.settled_at > a.sent_at)""",
            )
            assert early == []


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """A loop of this test's own: Hypothesis calls its rules from ordinary functions."""
    made = asyncio.new_event_loop()
    yield made
    made.close()


@pytest.mark.timeout(300)
def test_orders_agree_with_the_books_whatever_happens(migrated: Servers, settings: Settings, loop: asyncio.AbstractEventLoop) -> None:
    Shop.loop, Shop.servers, Shop.config = loop, migrated, settings
    run_state_machine_as_test(
        Shop,
        settings=examples(max_examples=20, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True),
    )
