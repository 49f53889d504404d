"""Reloadly airtime as a process: written from the vendor's OpenAPI (2022-07), its help pages, and what others saw in its sandbox on 2026-10-08,
all read 2026-11-22. What it does with one number sent twice at once is what was seen there: it sells both.
"""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, ClassVar, Final

from tests.suppliers.twins import Goods, Twin
from tests.suppliers.twins._reloadly import WEBHOOK_SECRET, ReloadlyFace, stamp, units

from kameng_api.simulator.books import Habits
from kameng_api.simulator.config import Product
from kameng_api.simulator.face import Asked, Counter, Path, Told
from kameng_api.simulator.protocol import Ask

AUDIENCE: Final = "https://topups.reloadly.com"
_FAILED: Final = {"ORDER_REJECTED": "TRANSACTION_REJECTED_BY_OPERATOR", "TARGET_NOT_EXIST": "INVALID_RECIPIENT_PHONE"}


class AirtimeFace(ReloadlyFace):
    """Operators are the goods: `173-CN-15` in the books is operator 173 with one amount, `174-CN` one with a range."""

    habits: ClassVar[Habits] = Habits(calls_back_at_once=True)
    audience = AUDIENCE
    event = "airtime_transaction.status"
    media_type = "application/com.reloadly.topups-v1+json"
    refused_at_once: Mapping[str, tuple[int, str]] = {
        "TARGET_NOT_EXIST": (400, "INVALID_RECIPIENT_PHONE"),
        "TARGET_NOT_ELIGIBLE": (400, "OPERATOR_AND_RECIPIENT_PHONE_MISMATCH"),
        "TARGET_BLACKLISTED": (400, "PHONE_RECENTLY_RECHARGED"),
        "STOCK_EMPTY": (503, "OPERATOR_UNAVAILABLE_OR_CURRENTLY_INACTIVE"),
        "PRODUCT_OFF_SHELF": (503, "OPERATOR_UNAVAILABLE_OR_CURRENTLY_INACTIVE"),
        "BALANCE_NOT_ENOUGH": (400, "INSUFFICIENT_BALANCE"),
        "PRICE_CHANGED": (400, "INVALID_AMOUNT_FOR_OPERATOR"),
        "CHANNEL_MAINTENANCE": (503, "OPERATOR_UNAVAILABLE_OR_CURRENTLY_INACTIVE"),
        "PARAM_INVALID": (400, "INVALID_INPUT_PROVIDED"),
    }

    def paths(self) -> Sequence[Path]:
        return (
            *super().paths(),
            Path("POST", "/topups-async", "place", self.topup),
            Path("GET", "/topups/reports/transactions", "query", self.transactions),
            Path("GET", "/topups/{number}/status", "query", self.status),
            Path("GET", "/operators", "products", self.operators),
            Path("GET", "/operators/{number}", "products", self.operator),
        )

    async def topup(self, counter: Counter, asked: Asked) -> Told:
        body = asked.json()
        if not isinstance(body, dict) or any(name not in body for name in ("operatorId", "amount", "recipientPhone")):
            return self.error(400, "INVALID_INPUT_PROVIDED", asked.path)
        reference, amount, phone = str(body.get("customIdentifier", "")), body["amount"], body["recipientPhone"]
        if len(reference) > 150 or not isinstance(amount, int | float) or amount <= 0 or body.get("useLocalAmount"):
            return self.error(400, "INVALID_INPUT_PROVIDED", asked.path)
        operator = [product for product in counter.products if product.code.split("-")[0] == str(body["operatorId"])]
        if not operator or not operator[0].on_sale:
            return self.error(503, "OPERATOR_UNAVAILABLE_OR_CURRENTLY_INACTIVE", asked.path)
        chosen = [product for product in operator if product.face_min is not None or fixed_amount(product) == Decimal(str(amount))]
        if not chosen:
            return self.error(400, "INVALID_AMOUNT_FOR_OPERATOR", asked.path)
        number = str(phone.get("number", ""))
        if phone.get("countryCode") != chosen[0].code.split("-")[1] or not number.removeprefix("+").isdigit():
            return self.error(400, "INVALID_RECIPIENT_PHONE", asked.path)
        ask = Ask(
            reference=reference,
            product_code=chosen[0].code,
            units=1,
            target=number.removeprefix("+").removeprefix("86"),
            face_value=None if chosen[0].face_min is None else round(amount * 10_000),
            max_cost=None,
            callback_url=self.webhook_url,
            fields="",
        )
        order = await self.enter(counter, asked, ask)
        return order if isinstance(order, Told) else self.json({"transactionId": order["id"]})

    async def transactions(self, counter: Counter, asked: Asked) -> Told:
        return await self.report(counter, asked, 500)

    async def status(self, counter: Counter, asked: Asked) -> Told:
        number = asked.named["number"]
        order = await counter.find(number=number) if number.isascii() and number.isdigit() else None
        if order is None or self.was_refused(order):
            return self.error(404, "TRANSACTION_NOT_FOUND", asked.path)
        row = self.row(order)
        pending = row["status"] == "PROCESSING"
        code = _FAILED.get(order["fail_code"], "TRANSACTION_FAILED_ON_OPERATOR") if row["status"] == "FAILED" else None
        return self.json({"code": code, "message": None, "status": row["status"], "transaction": None if pending else row})

    def row(self, order: Mapping[str, Any]) -> dict[str, Any]:
        status = {"SUCCESS": "SUCCESSFUL", "PARTIAL": "SUCCESSFUL", "FAILED": "FAILED", "REVERSED": "REFUNDED"}.get(order["status"], "PROCESSING")
        cost = units(round(float(order["cost"]) * 10_000)) if status == "SUCCESSFUL" else 0
        parts = str(order["product_code"]).split("-")
        return {
            "transactionId": order["id"],
            "status": status,
            "operatorTransactionId": order["receipt"] or None,
            "customIdentifier": order["out_order_no"],
            "recipientPhone": f"86{order['target']}",
            "countryCode": parts[1],
            "operatorId": int(parts[0]),
            "operatorName": f"Operator {parts[0]}",
            "requestedAmount": float(parts[2]) if len(parts) > 2 else units(order["face_value"] or 0),
            "requestedAmountCurrencyCode": order["currency"],
            "transactionDate": stamp(order["created_at"]),
            "pinDetail": None,
            "balanceInfo": {"oldBalance": 1000.0, "newBalance": 1000.0 - cost, "cost": cost, "currencyCode": order["currency"], "updatedAt": None},
        }

    async def operators(self, counter: Counter, asked: Asked) -> Told:
        return self.page(asked.params(), [described(counter, product) for product in counter.products], 1000)

    async def operator(self, counter: Counter, asked: Asked) -> Told:
        found = [product for product in counter.products if product.code.split("-")[0] == asked.named["number"]]
        return self.json(described(counter, found[0])) if found else self.error(404, "OPERATOR_NOT_FOUND", asked.path)


def fixed_amount(product: Product) -> Decimal:
    return Decimal(product.code.split("-")[2])


def described(counter: Counter, product: Product) -> dict[str, Any]:
    number, country, *amount = product.code.split("-")
    cost = Decimal(counter.cost_of(product)) / 10_000
    face = Decimal(amount[0]) if amount else Decimal(1)
    return {
        "id": int(number),
        "operatorId": int(number),
        "name": product.name,
        "pin": False,
        "denominationType": "FIXED" if amount else "RANGE",
        "senderCurrencyCode": counter.account.currency,
        "destinationCurrencyCode": "CNY",
        "internationalDiscount": float((1 - cost / face) * 100),
        "localDiscount": 0,
        "minAmount": None if amount else float(product.face_min or 0),
        "maxAmount": None if amount else float(product.face_max or 0),
        "fixedAmounts": [float(amount[0])] if amount else [],
        "country": {"isoName": country, "name": country},
        "fees": {"international": 0, "internationalPercentage": 0, "local": 0, "localPercentage": 0},
        "status": "ACTIVE" if product.on_sale else "INACTIVE",
    }


TWIN: Final = Twin(
    name="reloadly",
    reversed_is_failed=True,
    face=AirtimeFace(),
    settings=lambda base_url, app_key, secret: {
        "base_url": base_url,
        "auth_url": base_url,
        "audience": AUDIENCE,
        "client_id": app_key,
        "client_secret": secret,
        "webhook_secret": WEBHOOK_SECRET,
        "country_code": "86",
    },
    products=(
        Product(code="173-CN-15", name="China Mobile", type="topup", cost="14.25"),
        Product(code="174-CN", name="China Unicom", type="topup", cost="0.97", face_min="1", face_max="100"),
    ),
    goods=Goods(topup="173-CN-15", ranged="174-CN"),
    currency="USD",
    most_units=1,
    dashboard="/dashboard",
    in_chaos={"currency": "CNY"},
    codes="{n}-CN-{cost}",
    takes_accounts=False,
)
