"""Operators, approvals and money moved by hand, on a real PostgreSQL."""

import asyncio
from collections import Counter
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg
import orjson
import pytest
from sqlalchemy.exc import IntegrityError
from tests.factories.merchants import TestMerchant, keyring_of, make_merchant

from kameng_api.kit.clock import utc_now
from kameng_api.kit.crypto import Keyring
from kameng_api.kit.db import Database, execute, fetch
from kameng_api.kit.errors import Invalid, NotFound, Problem, StateConflict
from kameng_api.kit.ids import new_ulid
from kameng_api.ledger import queries as ledger
from kameng_api.ledger.errors import InsufficientBalance
from kameng_api.operators import actions, movements, queries, rules
from kameng_api.operators.errors import AlreadyDecided, NumberTaken, RoleTooSmall, SamePerson, TokenInvalid
from kameng_api.operators.movements import Done, Waiting
from kameng_api.operators.rules import Adjustment, CreditLine, Funding, Movement, SupplierTopup
from kameng_api.settings import Settings

LIMIT = 100_000_000


@pytest.fixture
def keyring(settings: Settings) -> Keyring:
    return keyring_of(settings)


@pytest.fixture
async def shop(database: Database, settings: Settings) -> TestMerchant:
    return await make_merchant(database, settings, environment="live", money="0.0000")


def funding(shop: TestMerchant, amount: int = 5_000_000, **change: Any) -> Funding:
    return Funding(**{
        "merchant_id": shop.merchant_id, "environment": "live", "channel": "bank", "external_id": "T-1",
        "currency": "CNY", "amount": amount, **change,
    })  # fmt: skip


async def move(db: Database, keyring: Keyring, movement: Movement, actor: str = "maker") -> Done | Waiting:
    async with db.transaction() as tx:
        return await movements.move(tx, keyring, actor, movement, above=LIMIT)


async def available(db: Database, shop: TestMerchant) -> int:
    async with db.transaction() as tx:
        assert await ledger.list_breaches(tx) == []
        return (await ledger.get_balance(tx, shop.book_id, "CNY")).available


async def count(db: Database, sql: str) -> int:
    async with db.transaction() as tx:
        [row] = await fetch(tx, sql)
        return int(row[0])


# ---- tokens ----------------------------------------------------------------------------------------------------------


async def test_a_token_is_stored_as_its_hash_only(database: Database) -> None:
    async with database.transaction() as tx:
        made = await actions.create_operator(tx, "ann", "finance")
        assert rules.TOKEN.fullmatch(made.token)
        assert (await actions.authenticate(tx, made.token, utc_now())).name == "ann"
        [row] = await fetch(tx, "SELECT o::text AS row FROM operators o")
        assert made.token not in row["row"]
        assert made.token not in repr(made)


@pytest.mark.parametrize("token", ["", "op_", "op_" + "a" * 43, "op_" + "a" * 44, "Op_" + "a" * 43])
async def test_an_unknown_token_is_refused(database: Database, token: str) -> None:
    async with database.transaction() as tx:
        await actions.create_operator(tx, "ann", "finance")
        with pytest.raises(TokenInvalid):
            await actions.authenticate(tx, token, utc_now())


async def test_a_token_ends_when_revoked_or_expired(database: Database) -> None:
    now = utc_now()
    async with database.transaction() as tx:
        ann = await actions.create_operator(tx, "ann", "finance")
        bob = await actions.create_operator(tx, "bob", "viewer", expires_at=now + timedelta(hours=1))
        await actions.revoke_operator(tx, "ann")
        await actions.revoke_operator(tx, "ann")
        assert (await actions.authenticate(tx, bob.token, now)).role == "viewer"
        for token, at in ((ann.token, now), (bob.token, now + timedelta(hours=1))):
            with pytest.raises(TokenInvalid):
                await actions.authenticate(tx, token, at)
        with pytest.raises(NotFound):
            await actions.revoke_operator(tx, "nobody")


async def test_a_name_is_never_given_twice(database: Database) -> None:
    async with database.transaction() as tx:
        await actions.create_operator(tx, "ann", "finance")
        await actions.revoke_operator(tx, "ann")
        with pytest.raises(StateConflict):
            await actions.create_operator(tx, "ann", "admin")
        for name, role in (("cli:ann", "admin"), ("", "admin"), ("bob", "king"), ("a + b", "admin")):
            with pytest.raises(Invalid):
                await actions.create_operator(tx, name, role)


@pytest.mark.parametrize(
    ("permission", "roles"),
    [
        ("read", {"viewer", "support", "finance", "admin"}),
        ("merchants:write", {"admin"}),
        ("keys:write", {"admin"}),
        ("catalog:write", {"admin"}),
        ("channels:write", {"admin"}),
        ("suppliers:write", {"support", "admin"}),
        ("contacts:read", {"support", "finance", "admin"}),
        ("channels:switch", {"support", "admin"}),
        ("routing:write", {"admin"}),
        ("routing:switch", {"support", "admin"}),
        ("money:write", {"finance", "admin"}),
        ("refunds:write", {"support", "finance", "admin"}),
        ("reviews:write", {"support", "finance", "admin"}),
        ("approvals:decide", {"finance", "admin"}),
        ("webhooks:write", {"support", "admin"}),
        ("tasks:write", {"support", "admin"}),
        ("incidents:write", {"support", "finance", "admin"}),
        ("alarms:write", {"support", "finance", "admin"}),
        ("ledger:verify", {"finance", "admin"}),
        ("reconciliation:write", {"finance", "admin"}),
        ("reconciliation:propose", {"support", "finance", "admin"}),
        ("reconciliation:decide", {"finance", "admin"}),
        ("books:lift", {"finance", "admin"}),
        ("simulator:write", {"support", "admin"}),
        ("operators:write", {"admin"}),
        ("audit:read", {"finance", "admin"}),
    ],
)
def test_who_may_do_what(permission: str, roles: set[str]) -> None:
    for role in rules.ROLES:
        operator = rules.Operator(new_ulid(), role, role, None, None, None, utc_now())
        if role in roles:
            actions.require(operator, permission)
        else:
            with pytest.raises(RoleTooSmall):
                actions.require(operator, permission)


def test_the_table_of_permissions_is_the_one_tested() -> None:
    tested = {mark.args[1][n][0] for mark in test_who_may_do_what.pytestmark for n in range(len(mark.args[1]))}  # type: ignore[attr-defined]
    assert tested == set(rules.PERMISSIONS)


# ---- money -----------------------------------------------------------------------------------------------------------


async def test_a_funding_is_booked_once(database: Database, keyring: Keyring, shop: TestMerchant) -> None:
    assert await move(database, keyring, funding(shop)) == Done(funding(shop), replayed=False)
    assert await move(database, keyring, funding(shop), "another") == Done(funding(shop), replayed=True)
    assert await available(database, shop) == 5_000_000
    assert await count(database, "SELECT count(*) FROM audit_entries WHERE action = 'fund'") == 1
    assert await count(database, "SELECT count(*) FROM events WHERE type = 'balance.credited'") == 1


async def test_the_same_receipt_with_other_content_is_refused(database: Database, settings: Settings, keyring: Keyring, shop: TestMerchant) -> None:
    other = await make_merchant(database, settings, environment="live", money="0.0000")
    await move(database, keyring, funding(shop))
    for change in ({"amount": 5_000_001}, {"merchant_id": other.merchant_id}):
        with pytest.raises(NumberTaken):
            await move(database, keyring, funding(shop, **change))
    assert await available(database, shop) == 5_000_000
    assert await available(database, other) == 0
    await move(database, keyring, funding(shop, channel="alipay"))
    assert await available(database, shop) == 10_000_000


async def test_one_receipt_sent_many_times_in_parallel_credits_once(
    database: Database, settings: Settings, keyring: Keyring, shop: TestMerchant
) -> None:
    other = await make_merchant(database, settings, environment="live", money="0.0000")
    wanted = [funding(shop), funding(other)] * 10
    outcomes = await asyncio.gather(*(move(database, keyring, one) for one in wanted), return_exceptions=True)
    kinds = Counter(
        "refused" if isinstance(o, NumberTaken) else "again" if isinstance(o, Done) and o.replayed else "first"
        for o in outcomes
        if isinstance(o, Done | NumberTaken)
    )
    assert kinds == {"first": 1, "again": 9, "refused": 10}
    assert await available(database, shop) + await available(database, other) == 5_000_000


async def test_the_house_and_the_merchant_meet_in_clearing(database: Database, keyring: Keyring, shop: TestMerchant) -> None:
    await move(database, keyring, funding(shop))
    async with database.transaction() as tx:
        sums = await ledger.house_sums(tx, "live")
    assert sums[("psp_clearing:bank", "CNY")] == -5_000_000
    assert sums[("funding_clearing", "CNY")] == 0


async def test_play_money_never_reaches_the_live_books(database: Database, settings: Settings, keyring: Keyring) -> None:
    shop = await make_merchant(database, settings, environment="test", money="0.0000")
    huge = funding(shop, 10 * LIMIT, environment="test")
    assert await move(database, keyring, huge) == Done(huge, replayed=False), "play money asks nobody"
    assert await move(database, keyring, huge) == Done(huge, replayed=True)
    assert await available(database, shop) == 10 * LIMIT
    async with database.transaction() as tx:
        assert await ledger.house_sums(tx, "live") == {}
    assert await count(database, "SELECT count(*) FROM funding_receipts") == 0
    with pytest.raises(NumberTaken):
        await move(database, keyring, funding(shop, 1, environment="test"))


async def test_adjustments_are_signed_and_keep_the_floor(database: Database, keyring: Keyring, shop: TestMerchant) -> None:
    def adjust(amount: int, ticket: str, account: str = "merchant_available") -> Adjustment:
        return Adjustment(shop.merchant_id, "live", account, ticket, "CNY", amount, "counted again")

    await move(database, keyring, adjust(70_000, "A-1"))
    await move(database, keyring, adjust(-20_000, "A-2"))
    assert await available(database, shop) == 50_000
    with pytest.raises(InsufficientBalance):
        await move(database, keyring, adjust(-50_001, "A-3"))
    with pytest.raises(NumberTaken):
        await move(database, keyring, adjust(70_001, "A-1"))
    await move(database, keyring, adjust(30_000, "A-4", "merchant_deposit"))
    assert await available(database, shop) == 50_000
    for account in ("merchant_held", "sales", "suspense", "nonsense"):
        with pytest.raises(Invalid):
            await move(database, keyring, adjust(1, "A-5", account))
    async with database.transaction() as tx:
        assert (await ledger.house_sums(tx, "live"))[("suspense", "CNY")] == -80_000


async def test_the_house_is_adjusted_by_its_own_accounts_only(database: Database, keyring: Keyring) -> None:
    def adjust(account: str) -> Adjustment:
        return Adjustment(None, "live", account, "H-1", "CNY", 10_000, "drift")

    await move(database, keyring, adjust("supplier_prepaid:one"))
    with pytest.raises(Invalid):
        await move(database, keyring, adjust("merchant_available"))


async def test_a_credit_line_lets_the_balance_fall_that_far(database: Database, keyring: Keyring, shop: TestMerchant) -> None:
    await move(database, keyring, CreditLine(shop.merchant_id, "live", "C-1", "CNY", 50_000))
    take = Adjustment(shop.merchant_id, "live", "merchant_available", "A-1", "CNY", -50_000, "used")
    await move(database, keyring, take)
    assert await available(database, shop) == -50_000
    with pytest.raises(InsufficientBalance):
        await move(database, keyring, CreditLine(shop.merchant_id, "live", "C-2", "CNY", 49_999))


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"amount": 0}, "/amount"),
        ({"amount": -5}, "/amount"),
        ({"amount": 10**16}, "/amount"),
        ({"channel": "Bank!"}, "/channel"),
        ({"external_id": ""}, "/external_id"),
        ({"external_id": "a:b"}, "/external_id"),
        ({"currency": "USD"}, "/currency"),
    ],
)
async def test_a_wrong_funding_is_refused_with_its_place(
    database: Database, keyring: Keyring, shop: TestMerchant, change: dict[str, Any], pointer: str
) -> None:
    with pytest.raises(Invalid) as refused:
        await move(database, keyring, funding(shop, **change))
    assert [e.pointer for e in refused.value.errors] == [pointer]
    with pytest.raises(NotFound):
        await move(database, keyring, funding(shop, merchant_id=new_ulid()))
    with pytest.raises(NotFound):
        await move(database, keyring, SupplierTopup("nowhere", "live", "S-1", "CNY", 1))
    assert await count(database, "SELECT count(*) FROM transfers") == 0


# ---- two people ------------------------------------------------------------------------------------------------------


async def ask(db: Database, keyring: Keyring, shop: TestMerchant, amount: int = LIMIT + 1) -> UUID:
    asked = await move(db, keyring, funding(shop, amount))
    assert isinstance(asked, Waiting)
    return asked.approval.approval_id


async def decide(db: Database, keyring: Keyring, approval_id: UUID, actor: str, *, approve: bool = True) -> rules.Approval:
    async with db.transaction() as tx:
        return await movements.decide(tx, keyring, actor, approval_id, approve=approve)


async def test_the_set_amount_itself_needs_nobody(database: Database, keyring: Keyring, shop: TestMerchant) -> None:
    assert isinstance(await move(database, keyring, funding(shop, LIMIT)), Done)
    big = funding(shop, LIMIT + 1, external_id="T-2")
    assert isinstance(await move(database, keyring, big), Waiting)
    assert await available(database, shop) == LIMIT


async def test_a_large_movement_happens_when_a_second_person_agrees(database: Database, keyring: Keyring, shop: TestMerchant) -> None:
    approval_id = await ask(database, keyring, shop)
    again = await move(database, keyring, funding(shop, LIMIT + 1))
    assert isinstance(again, Waiting)
    assert (again.approval.approval_id, again.replayed) == (approval_id, True), "asked twice is asked once"
    with pytest.raises(NumberTaken):
        await move(database, keyring, funding(shop, LIMIT + 2))
    with pytest.raises(NumberTaken):
        await move(database, keyring, funding(shop, 5))
    assert await available(database, shop) == 0

    decided = await decide(database, keyring, approval_id, "checker")
    assert (decided.state, decided.decided_by) == ("approved", "checker")
    assert await available(database, shop) == LIMIT + 1
    assert await move(database, keyring, funding(shop, LIMIT + 1)) == Done(funding(shop, LIMIT + 1), replayed=True)
    assert await available(database, shop) == LIMIT + 1


async def test_the_maker_may_not_approve_but_may_take_it_back(database: Database, keyring: Keyring, shop: TestMerchant) -> None:
    approval_id = await ask(database, keyring, shop)
    with pytest.raises(SamePerson):
        await decide(database, keyring, approval_id, "maker")
    assert (await decide(database, keyring, approval_id, "maker", approve=False)).state == "rejected"
    assert await available(database, shop) == 0
    with pytest.raises(AlreadyDecided):
        await decide(database, keyring, approval_id, "checker")
    assert await ask(database, keyring, shop) != approval_id, "after a rejection the number may be used again"


async def test_the_table_itself_refuses_the_makers_own_approval(database: Database, keyring: Keyring, shop: TestMerchant) -> None:
    approval_id = await ask(database, keyring, shop)
    with pytest.raises((IntegrityError, asyncpg.CheckViolationError)):
        async with database.transaction() as tx:
            await execute(
                tx,
                "UPDATE approvals SET state = 'approved', decided_by = made_by WHERE approval_id = $1",
                approval_id,
            )


async def test_two_approvals_in_parallel_move_the_money_once(database: Database, keyring: Keyring, shop: TestMerchant) -> None:
    approval_id = await ask(database, keyring, shop)
    people = ["checker", "second checker"] * 5
    outcomes = await asyncio.gather(*(decide(database, keyring, approval_id, one) for one in people), return_exceptions=True)
    assert all(isinstance(o, rules.Approval | AlreadyDecided) for o in outcomes), outcomes
    winners = {o.decided_by for o in outcomes if isinstance(o, rules.Approval)}
    assert len(winners) == 1
    assert sum(isinstance(o, AlreadyDecided) for o in outcomes) == 5
    assert await available(database, shop) == LIMIT + 1
    assert await count(database, "SELECT count(*) FROM transfers") == 2


async def test_approving_and_rejecting_in_parallel_ends_in_one_of_them(database: Database, keyring: Keyring, shop: TestMerchant) -> None:
    for n in range(5):
        asked = await move(database, keyring, funding(shop, LIMIT + 1, external_id=f"R-{n}"))
        assert isinstance(asked, Waiting)
        before = await available(database, shop)
        await asyncio.gather(
            decide(database, keyring, asked.approval.approval_id, "checker"),
            decide(database, keyring, asked.approval.approval_id, "other", approve=False),
            return_exceptions=True,
        )
        async with database.transaction() as tx:
            state = (await queries.get_approval(tx, asked.approval.approval_id)).state
        gained = await available(database, shop) - before
        assert (state, gained) in (("approved", LIMIT + 1), ("rejected", 0))


async def test_what_cannot_be_done_goes_on_waiting(database: Database, keyring: Keyring, shop: TestMerchant) -> None:
    take = Adjustment(shop.merchant_id, "live", "merchant_available", "A-1", "CNY", -LIMIT - 1, "take back")
    asked = await move(database, keyring, take)
    assert isinstance(asked, Waiting)
    with pytest.raises(Problem):
        await decide(database, keyring, asked.approval.approval_id, "checker")
    async with database.transaction() as tx:
        assert (await queries.get_approval(tx, asked.approval.approval_id)).state == "waiting"
    await move(database, keyring, funding(shop, LIMIT))
    await move(database, keyring, funding(shop, LIMIT, external_id="T-2"))
    await decide(database, keyring, asked.approval.approval_id, "checker")
    assert await available(database, shop) == LIMIT - 1


async def test_the_audit_trail_names_both_people(database: Database, keyring: Keyring, shop: TestMerchant) -> None:
    approval_id = await ask(database, keyring, shop)
    await decide(database, keyring, approval_id, "checker")
    async with database.transaction() as tx:
        entries = await queries.list_audit(tx, subject=None, actor=None, before=None, limit=10)
    assert [(e.actor, e.action) for e in reversed(entries)] == [
        ("maker", "approval.asked"),
        ("checker", "approval.approved"),
        ("maker + checker", "fund"),
    ]
    assert entries[0].facts["amount"] == "10000.0001"


@pytest.mark.parametrize("verb", ["UPDATE audit_entries SET actor = 'x'", "DELETE FROM audit_entries"])
async def test_the_audit_trail_cannot_be_changed(database: Database, verb: str) -> None:
    async with database.transaction() as tx:
        await actions.audit(tx, "ann", "looked", "somewhere", {"a": 1}, "req_1")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        async with database.transaction() as tx:
            await execute(tx, verb)


async def test_the_merchant_reads_what_was_credited(database: Database, keyring: Keyring, shop: TestMerchant) -> None:
    await move(database, keyring, funding(shop))
    async with database.transaction() as tx:
        [row] = await fetch(tx, "SELECT book_id, body FROM events WHERE type = 'balance.credited'")
    shown = orjson.loads(row["body"])["data"]["object"]
    assert row["book_id"] == shop.book_id
    assert (shown["available"], shown["credited"], shown["reference"]) == ("500.0000", "500.0000", "T-1")


@pytest.mark.parametrize(
    "movement",
    [
        Funding(UUID(int=1), "live", "bank", "T-1", "CNY", 5),
        Adjustment(None, "test", "bank:main", "A", "CNY", -5, "n"),
        Adjustment(UUID(int=1), "live", "merchant_frozen", "A", "CNY", 5, "n"),
        CreditLine(UUID(int=1), "live", "C", "CNY", 5),
        SupplierTopup("one", "live", "S", "CNY", 5),
        rules.Refund(16, "live", UUID(int=2), "R", "CNY", 5, "broken"),
    ],
)
def test_a_movement_survives_the_wait(movement: Movement) -> None:
    stored = orjson.loads(orjson.dumps(rules.arguments_of(movement)))
    approval = rules.Approval(UUID(int=9), rules.action_of(movement), stored, "waiting", "a", None, utc_now(), None)
    assert rules.movement_of(approval) == movement
