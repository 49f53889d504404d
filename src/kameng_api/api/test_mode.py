"""Helpers of the test environment: what we would have signed, and play money. For live keys none of this exists."""

from dataclasses import replace
from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import APIRouter, Path, Request
from pydantic import BaseModel, Field, StringConstraints
from starlette.responses import JSONResponse, Response

from kameng_api.api.balance import Balance, show_balance
from kameng_api.api.deps import CalledBy, InDoor
from kameng_api.api.routes import ANY_QUERY, StrictRoute, WireModel
from kameng_api.api.webhooks import events_of_order
from kameng_api.api.wire import AmountIn
from kameng_api.kit.db import Tx
from kameng_api.kit.errors import FieldError, Invalid, NotFound, Unavailable
from kameng_api.kit.ids import parse_public_id, public_id
from kameng_api.kit.money import format_amount, parse_amount
from kameng_api.ledger import actions as ledger
from kameng_api.ledger import queries as books
from kameng_api.ledger.errors import Mismatched
from kameng_api.ledger.rules import AVAILABLE, PLAY_MONEY, Line, Posting, play_money
from kameng_api.merchants.rules import Caller
from kameng_api.orders import queries as orders
from kameng_api.outbox import actions as outbox
from kameng_api.outbox.rules import fact_of
from kameng_api.suppliers import queries as attempts_of
from kameng_api.suppliers.port import AnswerUnusable, Hurried
from kameng_api.tasks.rules import Lane
from kameng_api.webhooks import actions as webhooks
from kameng_api.webhooks.events import DELIVERY_PREFIX, EVENT_PREFIX

router = APIRouter(route_class=StrictRoute, tags=["test mode"])

_LINES: Final = ("scheme", "timestamp", "nonce", "key_id", "method", "target", "body_sha256")


class SignedText(BaseModel):
    """The seven lines as we read your request. Compare them with yours, byte by byte."""

    string_to_sign: str = Field(description="All seven lines, each ended by one line feed.")
    lines: dict[str, str] = Field(description="The same, by name.")
    bytes: int = Field(description="Length of string_to_sign.")
    signature_valid: bool = Field(description="Whether the signature you sent is your key's over this text.")


class SetBalance(WireModel):
    """Set the spendable play money of the test book."""

    number: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")] = Field(
        description="Your own number for this change: the same number and amount again changes nothing."
    )
    available: AmountIn = Field(description="What `available` shall be.")


@router.post(
    "/v1/test/signature",
    response_model=SignedText,
    summary="Our string to sign for the request you sent",
    openapi_extra={ANY_QUERY: True},
    description="Send any query and body, signed or wrongly signed with a known test key. The secret is never part of the answer.",
)
async def show_signed_text(request: Request) -> Any:
    text: bytes | None = request.scope.get("kameng.signed_text")
    if text is None:
        raise NotFound
    readable = text.decode("latin-1")
    return {
        "string_to_sign": readable,
        "lines": dict(zip(_LINES, readable.split("\n")[:-1], strict=True)),
        "bytes": len(text),
        "signature_valid": request.scope["kameng.signature_valid"],
    }


@router.post(
    "/v1/test/balance", status_code=201, response_model=Balance, responses={200: {"model": Balance}}, summary="Set play money"
)
async def set_balance(wanted: SetBalance, door: InDoor, caller: CalledBy) -> Response:
    available, most = parse_amount(wanted.available), parse_amount(door.settings.test_credit_limit)
    if caller.environment != "test":
        raise NotFound
    if available > most:
        wrong = FieldError("/available", "out_of_range", f"at most {format_amount(most)}")
        raise Invalid("more play money than this deployment gives", errors=[wrong])
    async with door.db.transaction() as tx:
        replayed = await _set_play_money(tx, caller, wanted.number, available)
        balance = await books.get_balance(tx, caller.book_id, caller.currency)
    headers = {"Idempotent-Replayed": "true"} if replayed else {}
    return JSONResponse(show_balance(balance), 200 if replayed else 201, headers)


class FastForwarded(BaseModel):
    """What happens now instead of later."""

    order_id: str = Field(examples=["ord_01JD0000000000000000000009"])
    moved: int = Field(description="How much the simulated suppliers had still to do for this order: outcomes, reversals, callbacks.")


class SentAgain(BaseModel):
    event_id: str = Field(examples=["evt_01JD0000000000000000000042"])
    delivery_ids: list[str] = Field(description="One for each receiver; none: no enabled endpoint wants events of this type.")


OrderId = Annotated[str, Path(max_length=64, examples=["ord_01JD0000000000000000000009"])]


@router.post(
    "/v1/test/orders/{order_id}/fast-forward", status_code=202, response_model=FastForwarded, summary="Let time pass for a test order",
    description="Whatever the simulated suppliers would do for it later (the 30 s and 60 s of the magic targets, the reversal, callbacks that are "
    "sent again) they do now. The order changes a moment after the answer, as it would have.",
)  # fmt: skip
async def fast_forward(order_id: OrderId, door: InDoor, caller: CalledBy) -> Any:
    known = _order_id(order_id)
    async with door.db.transaction() as tx:
        order = await orders.get_order(tx, caller.book_id, known)
        attempts = (await attempts_of.list_of_orders(tx, [order.key]))[order.key]
    channels = door.catalog.current.channels
    moved = 0
    for attempt in attempts:
        channel = channels.get(attempt.channel_id)
        if channel is None or channel.environment != "test" or caller.environment != "test":
            continue
        supplier = door.connections.of(channel)
        if isinstance(supplier, Hurried):
            moved += await _hurry(supplier, attempt.reference)
    return {"order_id": order_id, "moved": moved}


async def _hurry(supplier: Hurried, reference: str) -> int:
    try:
        return await supplier.hurry(reference)
    except AnswerUnusable as trouble:
        raise Unavailable("the simulator did not answer") from trouble


@router.post(
    "/v1/test/orders/{order_id}/webhook", status_code=202, response_model=SentAgain, summary="Send the webhook of an order's state again",
    description="The newest event of the order goes once more to every enabled endpoint that wants it, and to its `notify_url`: same id, same bytes.",
)  # fmt: skip
async def send_order_webhook(order_id: OrderId, door: InDoor, caller: CalledBy) -> Any:
    async with door.db.transaction() as tx:
        events = await events_of_order(tx, caller.book_id, order_id)
        if not events:
            raise NotFound("its events are no longer kept")
        delivery_ids = await webhooks.send_everywhere(tx, caller.book_id, events[-1])
    door.doorbell.ring(Lane.WEBHOOK)
    return {"event_id": public_id(EVENT_PREFIX, events[-1]), "delivery_ids": [public_id(DELIVERY_PREFIX, d) for d in delivery_ids]}


def _order_id(text: str) -> UUID:
    known = parse_public_id("ord", text)
    if known is None:
        raise NotFound
    return known


async def _set_play_money(tx: Tx, caller: Caller, number: str, available: int) -> bool:
    """True when this number had been posted before with the same amount. Raises Mismatched when with another."""
    account = (caller.book_id, AVAILABLE, caller.currency)
    balances = await ledger.lock(tx, [account])
    note = f"available {format_amount(available)}"
    change = available - balances[account].balance
    posting = replace(play_money(caller.book_id, number, caller.currency, change or 1), note=note)
    if not change:
        posting = _there_and_back(posting)
    known = await books.find_note(tx, posting.book_id, posting.event_key)
    if known is not None:
        if known != note:
            raise Mismatched("this number was already used with another amount")
        return True
    await ledger.post_locked(tx, [posting], balances)
    if change > 0:
        await _tell_credited(tx, caller, number, change, balances[account].version + len(posting.lines))
    return False


async def _tell_credited(tx: Tx, caller: Caller, number: str, amount: int, version: int) -> None:
    """As when real money comes in, so that a program can be tried with it."""
    balance = await books.get_balance(tx, caller.book_id, caller.currency)
    shown = {**show_balance(balance), "credited": format_amount(amount), "reference": number}
    await outbox.record(tx, [fact_of(caller.book_id, "balance.credited", public_id("mer", caller.merchant_id), version, shown)])


def _there_and_back(posting: Posting) -> Posting:
    """Nothing is to change, but the number must be taken for ever, and only transfers keep it."""
    return replace(posting, lines=(Line(PLAY_MONEY, AVAILABLE, 1), Line(AVAILABLE, PLAY_MONEY, 1)))
