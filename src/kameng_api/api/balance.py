"""What a merchant may spend, every movement that made it so, and when to be told that it runs low."""

from typing import Annotated, Any, Final, Literal
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field
from starlette.responses import StreamingResponse

from kameng_api.api import balance_export
from kameng_api.api.deps import CalledBy, Door, InDoor
from kameng_api.api.routes import StrictRoute, WireModel
from kameng_api.api.wire import Amount, AmountIn, Limit, SignedAmount, Time
from kameng_api.kit import paging
from kameng_api.kit.clock import utc_now, wire_time, wire_time_or_none
from kameng_api.kit.errors import FieldError, Invalid, NotFound
from kameng_api.kit.ids import public_id
from kameng_api.kit.money import format_amount, parse_amount
from kameng_api.ledger import burning
from kameng_api.ledger import queries as ledger
from kameng_api.ledger.forecast import outlook
from kameng_api.ledger.queries import MerchantBalance, Movement
from kameng_api.ledger.rules import transaction_id
from kameng_api.merchants import alerts
from kameng_api.merchants.rules import Caller
from kameng_api.statements import queries as statements
from kameng_api.statements.queries import DayCut
from kameng_api.statements.rules import ID_PREFIX as STATEMENT

router = APIRouter(route_class=StrictRoute, tags=["balance"])

_LIST: Final = "balance/transactions"
_NEWEST_STATEMENTS: Final = 3


class Balance(BaseModel):
    """The merchant's money in this environment."""

    currency: str = Field(examples=["CNY"])
    available: SignedAmount = Field(description="May be spent now, without the credit line; negative while credit is used.")
    held: Amount = Field(description="Held for open orders (冻结货款).")
    credit_limit: Amount = Field(description="How far `available` may fall below zero.")
    deposit: Amount = Field(description="保证金")
    frozen: Amount = Field(description="Set aside for disputes and risk.")
    spendable: SignedAmount = Field(description="`available` + `credit_limit`: the largest order that would be accepted now.")


class StatementLink(BaseModel):
    """Where a day's statement is."""

    id: str = Field(examples=["stm_01JD0000000000000000000009"])
    date: str = Field(examples=["2026-11-21"])
    currency: str = Field(examples=["CNY"])
    url: str = Field(examples=["/v1/statements/2026-11-21?currency=CNY"])


class BalanceNow(Balance):
    statements: list[StatementLink] = Field(description="The newest three that are ready, newest first; all: GET /v1/statements.")


class BurnRate(BaseModel):
    """What you spend in an hour: orders less releases and refunds. The two busiest of 12, 24 or 28 parts of a window count like the third."""

    last_hour: Amount
    last_day: Amount
    last_week: Amount


class Alerts(BaseModel):
    """When you hear `balance.low`, and how things stand."""

    currency: str = Field(examples=["CNY"])
    amount: Amount | None = Field(description="Below this much to spend; null: never.")
    hours_left: int | None = Field(description="When it lasts for less than so many hours; null: never.")
    set_by: Literal["merchant", "operator"] | None = Field(description="Whose limits hold; null: there are none.")
    state: Literal["ok", "low"]
    reason: Literal["amount", "hours_left"] | None = Field(description="Which limit was crossed first.")
    low_since: Time | None
    spendable: SignedAmount
    burn_rate_per_hour: BurnRate
    empty_in_s: int | None = Field(description="Seconds until nothing is left at these rates; null: it is not being spent.")
    empty_at: Time | None


class WantedAlerts(WireModel):
    """Both limits as they shall be from now on; what is absent or null is not watched."""

    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")] | None = Field(None, description="Without it, your own.")
    amount: AmountIn | None = None
    hours_left: Annotated[int, Field(ge=1, le=alerts.MOST_HOURS)] | None = None


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


Currency = Annotated[str | None, Query(pattern=r"^[A-Z]{3}$", description="Without it, your own.")]


@router.get("/v1/balance", response_model=BalanceNow, summary="Balance")
async def get_balance(door: InDoor, caller: CalledBy) -> Any:
    async with door.db.transaction() as tx:
        balance = await ledger.get_balance(tx, caller.book_id, caller.currency)
        newest = await statements.list_newest(tx, caller.book_id, _NEWEST_STATEMENTS)
    return {**show_balance(balance), "statements": [_link(day.make_id, day) for day in newest if day.make_id is not None]}


def _link(statement_id: UUID, day: DayCut) -> dict[str, str]:
    url = f"/v1/statements/{day.day}?currency={day.currency}"
    return {"id": public_id(STATEMENT, statement_id), "date": day.day.isoformat(), "currency": day.currency, "url": url}


@router.get("/v1/balance/alerts", response_model=Alerts, summary="When you are told that your balance runs low")
async def get_alerts(door: InDoor, caller: CalledBy, currency: Currency = None) -> Any:
    return await _alerts(door, caller, currency or caller.currency)


@router.put(
    "/v1/balance/alerts", response_model=Alerts, summary="Be told when your balance runs low",
    description="`balance.low` comes once when a limit is crossed, and again only after a recovery: a tenth above the amount, a fifth above the "
    "hours. Other limits are judged afresh; the same again change nothing. Your limits replace the operator's mark.",
)  # fmt: skip
async def set_alerts(wanted: WantedAlerts, door: InDoor, caller: CalledBy) -> Any:
    currency = wanted.currency or caller.currency
    amount = None if wanted.amount is None else parse_amount(wanted.amount)
    if amount == 0:
        raise Invalid(errors=[FieldError("/amount", "out_of_range", "more than nothing, or null")])
    async with door.db.transaction() as tx:
        if await ledger.find_end(tx, caller.book_id, currency) is None:
            raise NotFound("no money in this currency")
        await alerts.set_limits(tx, caller.book_id, currency, amount, wanted.hours_left)
    return await _alerts(door, caller, currency)


async def _alerts(door: Door, caller: Caller, currency: str) -> dict[str, Any]:
    async with door.db.transaction() as tx:
        if await ledger.find_end(tx, caller.book_id, currency) is None:
            raise NotFound("no money in this currency")
        alert = await alerts.get_alert(tx, caller.book_id, currency)
        rates = await burning.find_rates(tx, caller.book_id, currency)
        balance = await ledger.get_balance(tx, caller.book_id, currency)
    limits = alert.limits
    watched = limits.amount is not None or limits.hours_left is not None
    return {
        "currency": currency,
        "amount": None if limits.amount is None else format_amount(limits.amount),
        "hours_left": limits.hours_left,
        "set_by": ("merchant" if limits.own else "operator") if watched else None,
        "state": "ok" if alert.low_since is None else "low",
        "reason": alert.reason,
        "low_since": wire_time_or_none(alert.low_since),
        **outlook(balance.available + balance.credit_limit, rates, utc_now()),
    }


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


_EXPORT: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "description": "One table in the columns of a statement; the row `closing` is the last, and is missing when the answer broke off.",
        "content": {
            "text/csv": {"schema": {"type": "string"}},
            balance_export.MEDIA_TYPES["xlsx"]: {"schema": {"type": "string", "format": "binary"}},
        },
    }
}
Day = Annotated[str, Query(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$", examples=["2026-11-21"])]


@router.get(
    "/v1/balance/transactions/export", response_class=StreamingResponse, responses=_EXPORT, summary="Fund flow of business days as a file",
    description="From the first to the last of these business days, in your time zone, both included, at most 93 and a million movements. A day "
    "that is over holds exactly the movements of its statement; today is exported as far as it has come.",
)  # fmt: skip
async def export_transactions(
    door: InDoor,
    caller: CalledBy,
    from_: Annotated[Day, Query(alias="from")],
    to: Day,
    format: Annotated[Literal["csv", "xlsx"], Query()] = "csv",
    currency: Currency = None,
) -> StreamingResponse:
    first, last = balance_export.read_days(from_, to)
    async with door.db.transaction() as tx:
        cut = await balance_export.cut_of(tx, caller, currency or caller.currency, first, last)
    return balance_export.answer(door.db, cut, format)


def show_balance(balance: MerchantBalance) -> dict[str, str]:
    """The balance as merchants read it."""
    return {
        "currency": balance.currency,
        "available": format_amount(balance.available),
        "held": format_amount(balance.held),
        "credit_limit": format_amount(balance.credit_limit),
        "deposit": format_amount(balance.deposit),
        "frozen": format_amount(balance.frozen),
        "spendable": format_amount(balance.available + balance.credit_limit),
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
