"""What a merchant may spend, and every movement that made it so."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from kameng_api.api.deps import CalledBy, InDoor
from kameng_api.api.routes import StrictRoute
from kameng_api.api.wire import Amount, Limit, SignedAmount, Time
from kameng_api.kit import paging
from kameng_api.kit.clock import wire_time
from kameng_api.kit.ids import public_id
from kameng_api.kit.money import format_amount
from kameng_api.ledger import queries as ledger
from kameng_api.ledger.queries import MerchantBalance, Movement
from kameng_api.ledger.rules import transaction_id
from kameng_api.merchants.rules import Caller

router = APIRouter(route_class=StrictRoute, tags=["balance"])

_LIST: Final = "balance/transactions"


class Balance(BaseModel):
    """The merchant's money in this environment."""

    currency: str = Field(examples=["CNY"])
    available: SignedAmount = Field(description="May be spent now, without the credit line; negative while credit is used.")
    held: Amount = Field(description="Held for open orders (冻结货款).")
    credit_limit: Amount = Field(description="How far `available` may fall below zero.")
    deposit: Amount = Field(description="保证金")
    frozen: Amount = Field(description="Set aside for disputes and risk.")


class Transaction(BaseModel):
    """One line of the fund flow (资金流水)."""

    id: str = Field(examples=["txn_01JD0000000000000000000001"])
    type: str = Field(
        description="`fund`, `hold`, `release`, `split` (what came back of a partly delivered order), `refund`, `adjustment`, `play_money`; "
        "more may be added.",
        examples=["hold"],
    )
    amount: SignedAmount
    balance_after: SignedAmount = Field(description="`available` right after this line.")
    order_id: str | None = Field(examples=["ord_01JD0000000000000000000009"])
    created_at: Time


class Transactions(BaseModel):
    items: list[Transaction]
    next_cursor: str | None


@router.get("/v1/balance", response_model=Balance, summary="Balance")
async def get_balance(door: InDoor, caller: CalledBy) -> Any:
    async with door.db.transaction() as tx:
        return show_balance(await ledger.get_balance(tx, caller.book_id, caller.currency))


@router.get("/v1/balance/transactions", response_model=Transactions, summary="Fund flow, newest first")
async def list_transactions(
    door: InDoor,
    caller: CalledBy,
    limit: Limit = 20,
    cursor: Annotated[str | None, Query(max_length=1024)] = None,
) -> Any:
    key, context = door.keyring.derive("cursors"), (_LIST, str(caller.book_id), caller.currency)
    before = int(paging.decode(key, cursor, context)[0]) if cursor is not None else None
    async with door.db.transaction() as tx:
        movements = await ledger.list_movements(
            tx, caller.book_id, caller.currency, before_version=before, limit=limit + 1
        )
    shown = movements[:limit]
    more = len(movements) > limit
    return {
        "items": [_show(movement, caller) for movement in shown],
        "next_cursor": paging.encode(key, [str(shown[-1].version)], context) if more else None,
    }


def show_balance(balance: MerchantBalance) -> dict[str, str]:
    """The balance as merchants read it."""
    return {
        "currency": balance.currency,
        "available": format_amount(balance.available),
        "held": format_amount(balance.held),
        "credit_limit": format_amount(balance.credit_limit),
        "deposit": format_amount(balance.deposit),
        "frozen": format_amount(balance.frozen),
    }


def _show(movement: Movement, caller: Caller) -> dict[str, str | None]:
    return {
        "id": transaction_id(caller.book_id, caller.currency, movement.version, movement.created_at),
        "type": movement.kind,
        "amount": format_amount(movement.amount),
        "balance_after": format_amount(movement.balance_after),
        "order_id": public_id("ord", movement.order_id) if movement.order_id else None,
        "created_at": wire_time(movement.created_at),
    }
