"""Money under concurrency, on a real PostgreSQL: many hands, one truth."""

import asyncio
from collections import Counter
from uuid import UUID

import asyncpg
import pytest
from sqlalchemy.engine import make_url
from sqlalchemy.exc import IntegrityError

from kameng_api.embedded.servers import Servers
from kameng_api.kit.db import Database, execute, fetch
from kameng_api.kit.ids import new_ulid
from kameng_api.ledger import actions as ledger
from kameng_api.ledger import queries, rules
from kameng_api.ledger.errors import InsufficientBalance, Mismatched
from kameng_api.ledger.rules import AVAILABLE, DEPOSIT, FROZEN, Existed, Insufficient, Mismatch, Posted, Posting, Verdict

BOOK, OTHER = 16, 17


@pytest.fixture
async def books(database: Database) -> Database:
    async with database.transaction() as tx:
        for book in (BOOK, OTHER):
            await execute(tx, "INSERT INTO books (book_id, merchant_id, environment) VALUES ($1, $2, 'live')", book, new_ulid())
            await ledger.open_book(tx, book, "CNY")
    return database


async def fund(database: Database, book: int, amount: int, name: str = "one") -> None:
    async with database.transaction() as tx:
        await ledger.record_receipt(tx, "bank", f"{book}-{name}", book, "CNY", amount)
        await ledger.post_one(tx, rules.fund_house(rules.HOUSE_LIVE, "bank", f"{book}-{name}", "CNY", amount))
        await ledger.post_one(tx, rules.fund_merchant(book, "bank", f"{book}-{name}", "CNY", amount))


async def post(database: Database, *postings: Posting) -> list[Verdict]:
    async with database.transaction() as tx:
        return await ledger.post(tx, postings)


async def breaches(database: Database) -> list[queries.Breach]:
    async with database.transaction() as tx:
        return await queries.list_breaches(tx)


async def balance(database: Database, book: int = BOOK) -> queries.MerchantBalance:
    async with database.transaction() as tx:
        return await queries.get_balance(tx, book, "CNY")


async def test_two_hundred_holds_against_money_for_fifty_let_exactly_fifty_through(books: Database) -> None:
    await fund(books, BOOK, 50 * 985_000)
    gate = asyncio.Event()

    async def hold() -> Verdict:
        posting = rules.hold(BOOK, new_ulid(), "CNY", 985_000)
        await gate.wait()
        [verdict] = await post(books, posting)
        return verdict

    waiting = [asyncio.create_task(hold()) for _ in range(200)]
    await asyncio.sleep(0)
    gate.set()
    verdicts = Counter(type(v) for v in await asyncio.gather(*waiting))
    assert verdicts == {Posted: 50, Insufficient: 150}
    after = await balance(books)
    assert (after.available, after.held) == (0, 50 * 985_000)
    assert await breaches(books) == []


async def test_a_hundred_identical_holds_in_parallel_are_one(books: Database) -> None:
    await fund(books, BOOK, 10_000_000)
    posting = rules.hold(BOOK, new_ulid(), "CNY", 985_000)
    verdicts = Counter(type(v[0]) for v in await asyncio.gather(*(post(books, posting) for _ in range(100))))
    assert verdicts == {Posted: 1, Existed: 99}
    assert (await balance(books)).held == 985_000
    assert await breaches(books) == []


async def test_capture_and_release_in_parallel_post_one_of_them(books: Database) -> None:
    await fund(books, BOOK, 10_000_000)
    for _ in range(10):
        order = new_ulid()
        await post(books, rules.hold(BOOK, order, "CNY", 100))
        capture = rules.final(BOOK, order, "CNY", captured=100, released=0)
        release = rules.final(BOOK, order, "CNY", captured=0, released=100)
        # A capture touches no floor account, so the loser may learn it from the primary key instead of a lock.
        results = await asyncio.gather(post(books, capture), post(books, release), return_exceptions=True)
        won = [r for r in results if isinstance(r, list) and isinstance(r[0], Posted)]
        lost = [r for r in results if r not in won]
        assert len(won) == 1
        assert lost == [[Mismatch()]] or isinstance(lost[0], asyncpg.UniqueViolationError | IntegrityError), lost
    assert (await balance(books)).held == 0
    assert await breaches(books) == []


async def test_opposite_orders_of_postings_do_not_deadlock(books: Database) -> None:
    for book in (BOOK, OTHER):
        await fund(books, book, 10_000)

    def moves(n: int) -> list[Posting]:
        made = []
        for book in (BOOK, OTHER):
            for account in (AVAILABLE, DEPOSIT, FROZEN):
                made.append(rules.adjustment(book, f"{n}-{account}", account, "CNY", 1, "test"))
        return made if n % 2 else made[::-1]

    results = await asyncio.gather(*(post(books, *moves(n)) for n in range(60)))
    assert all(isinstance(v, Posted) for verdicts in results for v in verdicts)
    assert (await balance(books)).deposit == (await balance(books, OTHER)).deposit == 60
    assert await breaches(books) == []


async def test_one_poor_merchant_spoils_nobodys_flush(books: Database) -> None:
    await fund(books, BOOK, 300)
    await fund(books, OTHER, 100)
    batch = [rules.hold(b, new_ulid(), "CNY", 100) for b in (OTHER, OTHER, BOOK, OTHER, BOOK)]
    verdicts = await post(books, *batch)
    assert [type(v) for v in verdicts] == [Posted, Insufficient, Posted, Insufficient, Posted]
    assert verdicts[1] == Insufficient(AVAILABLE, 0)
    assert verdicts[4] == Posted(100)
    assert await breaches(books) == []


async def test_the_same_key_with_other_lines_is_refused(books: Database) -> None:
    await fund(books, BOOK, 300)
    order = new_ulid()
    await post(books, rules.hold(BOOK, order, "CNY", 100))
    assert await post(books, rules.hold(BOOK, order, "CNY", 101)) == [Mismatch()]
    async with books.transaction() as tx:
        with pytest.raises(Mismatched):
            await ledger.post_one(tx, rules.hold(BOOK, order, "CNY", 99))
        with pytest.raises(InsufficientBalance):
            await ledger.post_one(tx, rules.hold(BOOK, new_ulid(), "CNY", 201))
    assert (await balance(books)).available == 200


async def test_a_receipt_credits_one_merchant_once(books: Database) -> None:
    await fund(books, BOOK, 300)
    await fund(books, BOOK, 300)
    assert (await balance(books)).available == 300
    async with books.transaction() as tx:
        with pytest.raises(Mismatched):
            await ledger.record_receipt(tx, "bank", f"{BOOK}-one", OTHER, "CNY", 300)
        with pytest.raises(Mismatched):
            await ledger.record_receipt(tx, "bank", f"{BOOK}-one", BOOK, "CNY", 301)
    assert await breaches(books) == []


async def test_a_credit_line_lets_the_balance_fall_so_far_and_no_further(books: Database) -> None:
    async with books.transaction() as tx:
        await ledger.set_credit_line(tx, BOOK, "CNY", 250)
    verdicts = await post(books, *(rules.hold(BOOK, new_ulid(), "CNY", 100) for _ in range(3)))
    assert verdicts == [Posted(-100), Posted(-200), Insufficient(AVAILABLE, 50)]
    assert (await balance(books)).credit_limit == 250
    async with books.transaction() as tx:
        with pytest.raises(InsufficientBalance):
            await ledger.set_credit_line(tx, BOOK, "CNY", 100)


async def test_sums_are_exact_before_during_and_after_a_roll_up(books: Database) -> None:
    await fund(books, BOOK, 10_000)
    for n in range(1, 6):
        await post(books, rules.hold(BOOK, new_ulid(), "CNY", n))
        assert (await balance(books)).held == n * (n + 1) // 2
        async with books.transaction() as tx:
            assert await ledger.roll_up(tx)
        assert (await balance(books)).held == n * (n + 1) // 2
    async with books.transaction() as tx:
        [row] = await fetch(tx, "SELECT credits FROM rollups WHERE book_id = $1 AND account = $2", BOOK, rules.HELD)
    assert row["credits"] >= 10  # all but what the horizon still hid
    assert await breaches(books) == []


async def test_a_roll_up_never_skips_a_transfer_that_commits_late(books: Database) -> None:
    await fund(books, BOOK, 10_000)
    async with books.transaction() as slow:
        await ledger.post(slow, [rules.adjustment(OTHER, "early", DEPOSIT, "CNY", 7, "test")])
        await post(books, rules.hold(BOOK, new_ulid(), "CNY", 5))
        async with books.transaction() as tx:
            await ledger.roll_up(tx)
    for _ in range(2):
        async with books.transaction() as tx:
            await ledger.roll_up(tx)
            assert await queries.sum_of(tx, OTHER, rules.SUSPENSE, "CNY") == -7
    assert await breaches(books) == []


async def test_two_roll_ups_at_once_count_nothing_twice(books: Database) -> None:
    await fund(books, BOOK, 10_000)
    for _ in range(5):
        await post(books, rules.hold(BOOK, new_ulid(), "CNY", 5))

    async def once() -> bool:
        async with books.transaction() as tx:
            return await ledger.roll_up(tx)

    assert any(await asyncio.gather(*(once() for _ in range(8))))
    assert await breaches(books) == []


@pytest.mark.parametrize("number", ["balance", "version", "transfer_after", "rollup"])
async def test_a_breach_is_found(books: Database, migrated: Servers, number: str) -> None:
    await fund(books, BOOK, 10_000)
    await post(books, rules.hold(BOOK, new_ulid(), "CNY", 5))
    async with books.transaction() as tx:
        await ledger.roll_up(tx)
    assert await breaches(books) == []
    forgery, expected = {
        "balance": ("UPDATE accounts SET balance = balance + 1 WHERE book_id = 16 AND account = 'merchant_available'", "balance_is_sum"),
        "version": ("UPDATE accounts SET version = version + 1 WHERE book_id = 16 AND account = 'merchant_available'", "balance_is_sum"),
        "transfer_after": ("UPDATE transfers SET debit_balance_after = debit_balance_after + 1 WHERE kind = 'hold'", "chain"),
        "rollup": ("UPDATE rollups SET debits = debits + 1 WHERE account = 'funding_clearing' AND book_id = 16", "rollup_is_sum"),
    }[number]  # fmt: skip
    owner = await _as(migrated.owner_url)
    assert await owner.execute(forgery) == "UPDATE 1"
    await owner.close()
    assert [b.invariant for b in await breaches(books)] == [expected]


@pytest.mark.parametrize(
    "statement",
    ["UPDATE transfers SET amount = amount + 1", "DELETE FROM transfers", "TRUNCATE transfers", "DELETE FROM accounts",
     "UPDATE funding_receipts SET amount = 1", "DELETE FROM funding_receipts", "TRUNCATE accounts", "DELETE FROM orders",
     "DELETE FROM audit_entries", "DROP TABLE transfers", "ALTER TABLE transfers DROP CONSTRAINT ck_transfers_amount"],
)  # fmt: skip
async def test_the_application_cannot_rewrite_the_books(books: Database, migrated: Servers, statement: str) -> None:
    await fund(books, BOOK, 10_000)
    app = await _as(migrated.app_url)
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await app.execute(statement)
    await app.close()
    assert (await balance(books)).available == 10_000


@pytest.mark.parametrize(
    ("line", "constraint"),
    [("'merchant_held', 'sales', 'CNY', 0", "amount"), ("'merchant_held', 'sales', 'CNY', -5", "amount"),
     ("'sales', 'sales', 'CNY', 5", "two_accounts")],
)  # fmt: skip
async def test_a_transfer_that_moves_nothing_cannot_be_written(books: Database, migrated: Servers, line: str, constraint: str) -> None:
    app = await _as(migrated.app_url)
    with pytest.raises(asyncpg.CheckViolationError, match=constraint):
        await app.execute(
            "INSERT INTO transfers (book_id, event_key, line, kind, debit_account, credit_account, currency, amount) "
            f"VALUES (16, 'x', 0, 'x', {line})"
        )
    await app.close()


async def test_the_fund_flow_runs_without_a_gap(books: Database) -> None:
    await fund(books, BOOK, 1_000)
    orders: list[UUID] = [new_ulid() for _ in range(6)]
    for n, order in enumerate(orders, 1):
        await post(books, rules.hold(BOOK, order, "CNY", 10 * n))
        if n % 2:
            await post(books, rules.final(BOOK, order, "CNY", captured=4 * n, released=6 * n))
    seen: list[queries.Movement] = []
    before = None
    while True:
        async with books.transaction() as tx:
            page = await queries.list_movements(tx, BOOK, "CNY", before_version=before, limit=3)
        if not page:
            break
        seen += page
        before = page[-1].version
    assert [m.version for m in seen] == list(range(len(seen), 0, -1))
    running = 0
    for m in reversed(seen):
        running += m.amount
        assert m.balance_after == running
    assert running == (await balance(books)).available


async def _as(url: str) -> "asyncpg.Connection[asyncpg.Record]":
    return await asyncpg.connect(make_url(url).set(drivername="postgresql").render_as_string(hide_password=False))
