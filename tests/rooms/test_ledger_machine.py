"""The real ledger in PostgreSQL against a model of forty lines: whatever is posted, in whatever order, they agree and the books hold."""

import asyncio
from collections import defaultdict
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar
from uuid import UUID

import asyncpg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from sqlalchemy.engine import make_url
from tests.conftest import empty

from kameng_api.embedded.servers import Servers
from kameng_api.kit.db import Database, execute
from kameng_api.kit.ids import new_ulid
from kameng_api.ledger import actions as ledger
from kameng_api.ledger import queries, rules
from kameng_api.ledger.rules import Existed, Insufficient, Mismatch, Posted, Posting, Verdict

T = TypeVar("T")
BOOKS = (16, 17)
CHANNEL = "ch"
amounts = st.integers(1, 400)
books = st.sampled_from(BOOKS)


@dataclass
class Model:
    """What should be: balances by plain addition, and the content of every key."""

    balance: defaultdict[tuple[int, str], int] = field(default_factory=lambda: defaultdict(int))
    floor: dict[tuple[int, str], int] = field(default_factory=dict)
    keys: dict[tuple[int, str], Posting] = field(default_factory=dict)

    def expect(self, posting: Posting) -> type[Verdict]:
        known = self.keys.get((posting.book_id, posting.event_key))
        if known is not None:
            return Existed if known.lines == posting.lines else Mismatch
        trial = dict(self.balance)
        for line in posting.lines:
            for account, change in ((line.debit, -line.amount), (line.credit, line.amount)):
                key = (posting.book_id, account)
                trial[key] = trial.get(key, 0) + change
                if change < 0 and account in rules.FLOOR_ACCOUNTS and trial[key] < self.floor.get(key, 0):
                    return Insufficient
        self.balance.update(trial)
        self.keys[posting.book_id, posting.event_key] = posting
        return Posted


@dataclass(frozen=True)
class Held:
    """An order of the model with its one attempt."""

    book: int
    order: UUID
    attempt: UUID
    amount: int


class Books(RuleBasedStateMachine):
    """Random business against the real thing. `loop` and `servers` are set by the test."""

    loop: asyncio.AbstractEventLoop
    servers: Servers

    orders: Bundle[Held] = Bundle("orders")

    @initialize()
    def open(self) -> None:
        self.model = Model()
        self.numbers = iter(range(1, 1_000_000))
        self.run(self._open())

    async def _open(self) -> None:
        await _empty(self.servers.owner_url)
        self.database = Database(self.servers.app_url, pool_size=4)
        async with self.database.transaction() as tx:
            for book in BOOKS:
                await execute(tx, "INSERT INTO books VALUES ($1, $2, 'live')", book, new_ulid())
                await ledger.open_book(tx, book, "CNY")

    def teardown(self) -> None:
        if hasattr(self, "database"):
            self.run(self.database.close())

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    def post(self, *postings: Posting) -> None:
        expected = [self.model.expect(p) for p in postings]

        async def do() -> list[Verdict]:
            async with self.database.transaction() as tx:
                return await ledger.post(tx, postings)

        verdicts = self.run(do())
        assert [type(v) for v in verdicts] == expected
        for posting, verdict in zip(postings, verdicts, strict=True):
            if verdict == Posted() or not isinstance(verdict, Posted):
                continue
            assert posting is not postings[-1] or verdict.available_after == self.model.balance[posting.book_id, rules.AVAILABLE]

    @rule(book=books, amount=amounts, number=st.integers(1, 6))
    def fund(self, book: int, amount: int, number: int) -> None:
        external = f"{book}:{number}"
        first = self.model.keys.get((book, f"fund:bank:{external}"))
        if first is not None:
            amount = first.lines[0].amount  # a receipt is unique; another amount under it is refused before the books
        self.post(
            rules.fund_house(rules.HOUSE_LIVE, "bank", external, "CNY", amount),
            rules.fund_merchant(book, "bank", external, "CNY", amount),
        )

    @rule(target=orders, book=books, amount=amounts)
    def hold(self, book: int, amount: int) -> Held:
        held = Held(book, new_ulid(), new_ulid(), amount)
        self.post(rules.hold(book, held.order, "CNY", amount))
        return held

    @rule(held=orders, other=amounts)
    def hold_again(self, held: Held, other: int) -> None:
        self.post(rules.hold(held.book, held.order, "CNY", held.amount))
        if self._is_held(held):
            self.post(rules.hold(held.book, held.order, "CNY", other))

    @rule(batch=st.lists(st.tuples(books, amounts), min_size=2, max_size=8))
    def hold_many_in_one_flush(self, batch: list[tuple[int, int]]) -> None:
        self.post(*(rules.hold(book, new_ulid(), "CNY", amount) for book, amount in batch))

    @rule(held=orders, delivered=st.integers(0, 4))
    def final(self, held: Held, delivered: int) -> None:
        if self._is_held(held):
            captured = held.amount * delivered // 4
            self.post(rules.final(held.book, held.order, "CNY", captured=captured, released=held.amount - captured))

    @rule(held=orders, cost=amounts)
    def reserve(self, held: Held, cost: int) -> None:
        if self._is_held(held):
            self.post(rules.reserve(held.book, held.attempt, held.order, CHANNEL, "CNY", cost))

    @rule(held=orders, actual=st.one_of(st.none(), amounts))
    def settle(self, held: Held, actual: int | None) -> None:
        reserve = self.model.keys.get((held.book, rules.reserve(held.book, held.attempt, held.order, CHANNEL, "CNY", 1).event_key))
        if reserve is None:
            return
        [cost] = [line.amount for line in reserve.lines]
        names = (held.book, held.attempt, held.order, CHANNEL, "CNY")
        self.post(
            rules.settle_refused(*names, reserved=cost)
            if actual is None
            else rules.settle_delivered(*names, reserved=cost, actual=actual)
        )

    @rule(held=orders, amount=amounts, number=st.integers(1, 4))
    def refund(self, held: Held, amount: int, number: int) -> None:
        self.post(rules.refund(held.book, held.order, f"r{number}", "CNY", amount))

    @rule(held=orders, amount=amounts, external=st.sampled_from("ab"))
    def reverse(self, held: Held, amount: int, external: str) -> None:
        names = (held.book, held.attempt, held.order, CHANNEL, "CNY")
        self.post(rules.reversal(*names, external_id=external, amount=amount))
        self.post(rules.late_success(*names, external_id=external, cost=amount))

    @rule(
        book=books,
        account=st.sampled_from([rules.AVAILABLE, rules.DEPOSIT, rules.FROZEN]),
        amount=amounts,
        down=st.booleans(),
        ticket=st.integers(1, 8),
    )
    def adjust(self, book: int, account: str, amount: int, down: bool, ticket: int) -> None:
        self.post(rules.adjustment(book, f"t{ticket}", account, "CNY", -amount if down else amount, "machine"))

    @rule(book=books, limit=st.integers(0, 300))
    def lend(self, book: int, limit: int) -> None:
        if self.model.balance[book, rules.AVAILABLE] < -limit:
            return

        async def do() -> None:
            async with self.database.transaction() as tx:
                await ledger.set_credit_line(tx, book, "CNY", limit)

        self.run(do())
        self.model.floor[book, rules.AVAILABLE] = -limit

    @rule()
    def roll_up(self) -> None:
        async def do() -> None:
            async with self.database.transaction() as tx:
                assert await ledger.roll_up(tx)

        self.run(do())

    def _is_held(self, held: Held) -> bool:
        return (held.book, rules.hold(held.book, held.order, "CNY", 1).event_key) in self.model.keys

    @invariant()
    def the_books_hold_and_say_what_the_model_says(self) -> None:
        if hasattr(self, "database"):
            self.run(self._compare())

    async def _compare(self) -> None:
        model = self.model.balance
        async with self.database.transaction() as tx:
            assert await queries.list_breaches(tx) == []
            for book in BOOKS:
                found = await queries.get_balance(tx, book, "CNY")
                assert found.available == model[book, rules.AVAILABLE]
                assert found.deposit == model[book, rules.DEPOSIT]
                assert found.frozen == model[book, rules.FROZEN]
                assert found.held == model[book, rules.HELD]
                for account in (rules.SALES, rules.SALES_REFUNDS, rules.SUSPENSE, rules.supplier_wip(CHANNEL), rules.cogs(CHANNEL)):
                    assert await queries.sum_of(tx, book, account, "CNY") == model[book, account], account
            house = await queries.house_sums(tx, "live")
        expected: defaultdict[str, int] = defaultdict(int)
        for (_, account), amount in model.items():
            if account not in rules.FLOOR_ACCOUNTS:
                expected[account] += amount
        assert {k: v for (k, _), v in house.items() if v} == {k: v for k, v in expected.items() if v}


async def _empty(owner_url: str) -> None:
    """Only the tables that this machine writes: it runs many times."""
    plain = make_url(owner_url).set(drivername="postgresql").render_as_string(hide_password=False)
    owner = await asyncpg.connect(plain)
    await owner.execute("TRUNCATE transfers, accounts, rollups, funding_receipts, orders, attempts CASCADE")
    await owner.execute("DELETE FROM books WHERE book_id IN (16, 17)")
    await owner.execute("UPDATE rollup_marks SET upto_xid = 0")
    await owner.close()


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """A loop of this test's own: Hypothesis calls its rules from ordinary functions."""
    made = asyncio.new_event_loop()
    yield made
    made.close()


@pytest.mark.timeout(300)
def test_the_ledger_agrees_with_its_model(migrated: Servers, loop: asyncio.AbstractEventLoop) -> None:
    loop.run_until_complete(empty(migrated.owner_url))  # of whatever the test before it left
    Books.loop, Books.servers = loop, migrated
    run_state_machine_as_test(
        Books,
        settings=settings(
            max_examples=25,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
