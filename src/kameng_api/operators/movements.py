"""Money moved by operators: each movement has a number, happens once, and above a set amount only when a second agrees.

Order of a movement: its number is locked → what already happened under it is returned → what is too large waits → the
rest is posted, told to the merchant and audited, all in the caller's transaction.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from asyncpg import UniqueViolationError

from kameng_api.catalog import queries as catalog
from kameng_api.kit.crypto import Keyring
from kameng_api.kit.db import Tx, execute, fetch
from kameng_api.kit.errors import Invalid
from kameng_api.kit.ids import public_id
from kameng_api.kit.money import format_amount
from kameng_api.ledger import actions as ledger
from kameng_api.ledger import queries as ledger_queries
from kameng_api.ledger import rules as books
from kameng_api.ledger.rules import Existed, Posting
from kameng_api.merchants import queries as merchants
from kameng_api.operators import queries, rules
from kameng_api.operators.actions import ask_approval, audit, invalid, mark_decided
from kameng_api.operators.errors import AlreadyDecided, NumberTaken, SamePerson
from kameng_api.operators.rules import (
    Adjustment,
    Approval,
    CreditLine,
    Funding,
    Movement,
    Refund,
    SupplierTopup,
)
from kameng_api.orders import actions as orders
from kameng_api.outbox import actions as outbox
from kameng_api.outbox.rules import fact_of


@dataclass(frozen=True, slots=True)
class Done:
    """The money moved: now, or (`replayed`) under the same number before."""

    movement: Movement
    replayed: bool


@dataclass(frozen=True, slots=True)
class Waiting:
    """Nothing moved: a second person must agree. `replayed` when this was asked before."""

    approval: Approval
    replayed: bool


async def move(tx: Tx, keyring: Keyring, actor: str, movement: Movement, *, above: int, request_id: str | None = None) -> Done | Waiting:
    """Do it, or put it before a second person when it is above `above` (1/10000 units).

    Raises Invalid, NotFound, NumberTaken, Mismatched, InsufficientBalance.
    """
    errors = rules.check_movement(movement)
    if errors:
        raise Invalid("this cannot be booked", errors=errors)
    await _lock_number(tx, rules.number_of(movement))
    await _check_currency(tx, movement)
    asked = await queries.find_approval(tx, rules.action_of(movement), rules.number_of(movement))
    if asked is not None:
        if asked.arguments != rules.arguments_of(movement):
            raise NumberTaken("this number was already used for something else")
        return Waiting(asked, replayed=True) if asked.state == "waiting" else Done(movement, replayed=True)
    if await _happened(tx, movement):
        return Done(movement, replayed=True)
    if rules.needs_second_person(movement, above):
        approval = await ask_approval(tx, rules.action_of(movement), rules.arguments_of(movement), actor)
        await audit(tx, actor, "approval.asked", _subject(approval), _facts(movement), request_id)
        return Waiting(approval, replayed=False)
    return Done(movement, replayed=not await _perform(tx, keyring, actor, movement, request_id))


async def decide(tx: Tx, keyring: Keyring, actor: str, approval_id: UUID, *, approve: bool, request_id: str | None = None) -> Approval:
    """Agree or refuse. Agreeing moves the money in this transaction; the same decision by the same person is no news.

    Raises NotFound, SamePerson, AlreadyDecided, and what the movement raises (then it goes on waiting).
    """
    approval = await queries.get_approval(tx, approval_id, lock=True)
    wanted = "approved" if approve else "rejected"
    if approval.state != "waiting":
        if (approval.state, approval.decided_by) == (wanted, actor):
            return approval
        raise AlreadyDecided(f"{approval.decided_by} has {approval.state} it before")
    if approve and approval.made_by == actor:
        raise SamePerson("who asked for it may not approve it")
    decided = await mark_decided(tx, approval_id, wanted, actor)
    movement = rules.movement_of(approval)
    await audit(tx, actor, f"approval.{wanted}", _subject(approval), _facts(movement), request_id)
    if approve:
        await _lock_number(tx, rules.number_of(movement))
        await _perform(tx, keyring, f"{approval.made_by} + {actor}", movement, request_id)
    return decided


async def _lock_number(tx: Tx, number: str) -> None:
    key = int.from_bytes(hashlib.sha256(number.encode()).digest()[:8], "big", signed=True)
    await execute(tx, "SELECT pg_advisory_xact_lock($1)", key)


async def _check_currency(tx: Tx, movement: Movement) -> None:
    match movement:
        case Funding() | CreditLine() | Adjustment(merchant_id=UUID()):
            assert movement.merchant_id is not None
            merchant = await merchants.get_merchant(tx, movement.merchant_id)
            if merchant.currency != movement.currency:
                raise invalid("/currency", "unknown_value", f"this merchant's books are kept in {merchant.currency}")
        case SupplierTopup():
            channel = await catalog.get_channel(tx, movement.channel_id)
            if channel.environment != movement.environment:
                raise invalid("/environment", "unknown_value", f"this channel is {channel.environment}")
        case _:
            pass


async def _book_of(tx: Tx, movement: Funding | Adjustment | CreditLine) -> int:
    if movement.merchant_id is None:
        return books.house_book(movement.environment)
    return await merchants.get_book(tx, movement.merchant_id, movement.environment)


async def _posting(tx: Tx, movement: Movement) -> Posting | None:
    """The movement's own posting; None where it is not one (a credit line) or another room posts it (a refund)."""
    match movement:
        case Funding():
            book_id = await _book_of(tx, movement)
            if movement.environment == "test":
                number = f"{movement.channel}:{movement.external_id}"
                return books.play_money(book_id, number, movement.currency, movement.amount)
            return books.fund_merchant(book_id, movement.channel, movement.external_id, movement.currency, movement.amount)
        case Adjustment():
            return books.adjustment(
                await _book_of(tx, movement), movement.ticket, movement.account, movement.currency, movement.amount,
                movement.note,
            )  # fmt: skip
        case SupplierTopup():
            house = books.house_book(movement.environment)
            return books.supplier_topup(house, movement.topup_no, movement.channel_id, movement.currency, movement.amount)
        case _:
            return None


async def _happened(tx: Tx, movement: Movement) -> bool:
    """Whether exactly this stands in the books. Raises NumberTaken when something else has its number."""
    if isinstance(movement, Funding) and movement.environment == "live":
        # A receipt is one merchant's: it is looked at by its own number, whoever's book it is in.
        book_id = await _book_of(tx, movement)
        rows = await fetch(
            tx,
            "SELECT book_id, amount, currency FROM funding_receipts WHERE channel = $1 AND external_id = $2",
            movement.channel, movement.external_id,
        )  # fmt: skip
        if rows and tuple(rows[0]) != (book_id, movement.amount, movement.currency):
            raise NumberTaken("this receipt was already booked with another merchant or amount")
        return bool(rows)
    if isinstance(movement, Refund):
        return await _refunded(tx, movement)
    posting = await _posting(tx, movement)
    if posting is None:
        return False
    known = (await ledger.find_existing(tx, [posting])).get((posting.book_id, posting.event_key))
    if known is not None and known != posting.lines:
        raise NumberTaken("this number was already used for something else")
    return known is not None


async def _refunded(tx: Tx, movement: Refund) -> bool:
    rows = await fetch(
        tx,
        "SELECT order_id, amount, currency FROM refunds WHERE book_id = $1 AND refund_no = $2",
        movement.book_id, movement.refund_no,
    )  # fmt: skip
    if rows and tuple(rows[0]) != (movement.order_id, movement.amount, movement.currency):
        raise NumberTaken("this refund number was already used for another order or amount")
    return bool(rows)


async def _perform(tx: Tx, keyring: Keyring, actor: str, movement: Movement, request_id: str | None) -> bool:
    """Post it, tell the merchant, audit it. False when exactly this had been posted before."""
    match movement:
        case CreditLine():
            book_id = await _book_of(tx, movement)
            await ledger.set_credit_line(tx, book_id, movement.currency, movement.limit)
            posted = True
        case Refund():
            # The same number again was found before this; whoever refunds past the number's lock is caught by the order's.
            await orders.refund(
                tx, keyring, movement.book_id, movement.order_id,
                refund_no=movement.refund_no, amount=movement.amount, reason=movement.reason,
            )  # fmt: skip
            posted = True
        case Funding(environment="live"):
            posted = await _fund(tx, movement)
        case _:
            posting = await _posting(tx, movement)
            assert posting is not None
            posted = not isinstance(await _post(tx, posting), Existed)
    if posted:
        await _tell_credited(tx, movement)
        await audit(tx, actor, rules.action_of(movement), _subject_of(movement), _facts(movement), request_id)
    return posted


async def _fund(tx: Tx, movement: Funding) -> bool:
    """The receipt names its one merchant; two events, one per book, meet in `funding_clearing`."""
    book_id = await _book_of(tx, movement)
    channel, external_id = movement.channel, movement.external_id
    await ledger.record_receipt(tx, channel, external_id, book_id, movement.currency, movement.amount)
    house = books.house_book("live")
    await _post(tx, books.fund_house(house, channel, external_id, movement.currency, movement.amount))
    merchant = books.fund_merchant(book_id, channel, external_id, movement.currency, movement.amount)
    return not isinstance(await _post(tx, merchant), Existed)


async def _post(tx: Tx, posting: Posting) -> books.Posted | Existed:
    try:
        return await ledger.post_one(tx, posting)
    except UniqueViolationError as taken:  # somebody posts by another way than through the number's lock
        raise NumberTaken("this number is being booked at this moment; look again") from taken


async def _tell_credited(tx: Tx, movement: Movement) -> None:
    """`balance.credited` for whoever finds more money to spend."""
    gained = isinstance(movement, Funding) or (isinstance(movement, Adjustment) and movement.account == books.AVAILABLE and movement.amount > 0)
    if not gained:
        return
    assert isinstance(movement, Funding | Adjustment) and movement.merchant_id is not None
    book_id = await _book_of(tx, movement)
    balance = await ledger_queries.get_balance(tx, book_id, movement.currency)
    [row] = await fetch(
        tx,
        "SELECT version FROM accounts WHERE book_id = $1 AND account = $2 AND currency = $3",
        book_id, books.AVAILABLE, movement.currency,
    )  # fmt: skip
    shown = {
        "currency": balance.currency,
        "available": format_amount(balance.available),
        "held": format_amount(balance.held),
        "credit_limit": format_amount(balance.credit_limit),
        "deposit": format_amount(balance.deposit),
        "frozen": format_amount(balance.frozen),
        "credited": format_amount(movement.amount),
        "reference": movement.external_id if isinstance(movement, Funding) else movement.ticket,
    }
    merchant = public_id("mer", movement.merchant_id)
    await outbox.record(tx, [fact_of(book_id, "balance.credited", merchant, row["version"], shown)])


def _subject(approval: Approval) -> str:
    return public_id("apr", approval.approval_id)


def _subject_of(movement: Movement) -> str:
    match movement:
        case Refund():
            return public_id("ord", movement.order_id)
        case SupplierTopup():
            return f"channel:{movement.channel_id}"
        case Adjustment(merchant_id=None):
            return f"house:{movement.environment}"
        case Funding() | Adjustment() | CreditLine():
            assert movement.merchant_id is not None
            return public_id("mer", movement.merchant_id)


def _facts(movement: Movement) -> Mapping[str, Any]:
    """For the audit trail: amounts as people read them."""
    facts = rules.arguments_of(movement)
    for name in ("amount", "limit"):
        if name in facts:
            facts[name] = format_amount(facts[name])
    return {"action": rules.action_of(movement), **facts}
