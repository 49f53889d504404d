"""Reloadly gift cards as a process: written from the vendor's OpenAPI (2022-07) and what others saw in its sandbox on 2026-10-08, read 2026-11-22.

Cards are shown by an address of their own, in version 2 of the media type alone, and only once the order is successful.
"""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, ClassVar, Final

from tests.suppliers.twins import Goods, Twin
from tests.suppliers.twins._reloadly import WEBHOOK_SECRET, ReloadlyFace, stamp

from kameng_api.simulator.books import Habits
from kameng_api.simulator.config import Product
from kameng_api.simulator.face import Asked, Counter, Path, Told
from kameng_api.simulator.protocol import Ask

AUDIENCE: Final = "https://giftcards.reloadly.com"
_STATUSES: Final = {"SUCCESS": "SUCCESSFUL", "PARTIAL": "SUCCESSFUL", "FAILED": "FAILED", "REVERSED": "REFUNDED"}


class GiftFace(ReloadlyFace):
    """`10-25` in the books is product 10 with one face value, `11` one with a range."""

    habits: ClassVar[Habits] = Habits(calls_back_at_once=True)
    audience = AUDIENCE
    event = "giftcard_transaction.status"
    media_type = "application/com.reloadly.giftcards-v1+json"
    refused_at_once: Mapping[str, tuple[int, str]] = {
        "STOCK_EMPTY": (404, "INVALID_PRODUCT"),
        "PRODUCT_OFF_SHELF": (404, "INVALID_PRODUCT"),
        "BALANCE_NOT_ENOUGH": (400, "INSUFFICIENT_BALANCE"),
        "PRICE_CHANGED": (400, "WRONG_PRODUCT_PRICE"),
        "PARAM_INVALID": (400, "INVALID_INPUT_PROVIDED"),
    }

    def paths(self) -> Sequence[Path]:
        return (
            *super().paths(),
            Path("POST", "/orders", "place", self.order),
            Path("GET", "/orders/transactions/{number}/cards", "query", self.cards),
            Path("GET", "/reports/transactions", "query", self.transactions),
            Path("GET", "/reports/transactions/{number}", "query", self.transaction),
            Path("GET", "/products", "products", self.products),
            Path("GET", "/products/{number}", "products", self.product),
        )

    def accepted(self, path: str) -> frozenset[str]:
        return frozenset({"application/com.reloadly.giftcards-v2+json" if path.endswith("/cards") else self.media_type})

    async def order(self, counter: Counter, asked: Asked) -> Told:
        body = asked.json()
        if not isinstance(body, dict) or any(name not in body for name in ("productId", "quantity", "unitPrice", "senderName")):
            return self.error(400, "INVALID_INPUT_PROVIDED", asked.path)
        reference, price, quantity = str(body.get("customIdentifier", "")), body["unitPrice"], body["quantity"]
        if len(reference) > 150 or not isinstance(price, int | float) or not isinstance(quantity, int) or quantity < 1:
            return self.error(400, "INVALID_INPUT_PROVIDED", asked.path)
        known = [product for product in counter.products if product.code.split("-")[0] == str(body["productId"])]
        if not known:
            return self.error(404, "INVALID_PRODUCT", asked.path)
        chosen = [product for product in known if product.face_min is not None or Decimal(product.code.split("-")[1]) == Decimal(str(price))]
        if not chosen:
            return self.error(400, "WRONG_PRODUCT_PRICE", asked.path)
        ask = Ask(
            reference=reference,
            product_code=chosen[0].code,
            units=quantity,
            target=str((body.get("productAdditionalRequirements") or {}).get("userId", "")),
            face_value=None if chosen[0].face_min is None else round(price * 10_000),
            max_cost=None,
            callback_url=self.webhook_url,
            fields="",
        )
        order = await self.enter(counter, asked, ask)
        return order if isinstance(order, Told) else self.json(self.row(order))

    async def _one(self, counter: Counter, asked: Asked) -> dict[str, Any] | None:
        number = asked.named["number"]
        order = await counter.find(number=number) if number.isascii() and number.isdigit() else None
        return None if order is None or self.was_refused(order) else order

    async def cards(self, counter: Counter, asked: Asked) -> Told:
        order = await self._one(counter, asked)
        if order is None or _STATUSES.get(order["status"]) != "SUCCESSFUL":
            return self.error(404, "TRANSACTION_NOT_FOUND", asked.path)
        shown = [{"cardNumber": card["code"], "pinCode": card["pin"], "redemptionUrl": None} for card in order["cards"]]
        told = self.json(shown)
        return Told(told.body, 200, {"content-type": "application/com.reloadly.giftcards-v2+json"})

    async def transactions(self, counter: Counter, asked: Asked) -> Told:
        return await self.report(counter, asked, 50)

    async def transaction(self, counter: Counter, asked: Asked) -> Told:
        order = await self._one(counter, asked)
        return self.error(404, None, asked.path) if order is None else self.json(self.row(order))

    def row(self, order: Mapping[str, Any]) -> dict[str, Any]:
        status = _STATUSES.get(order["status"], "PROCESSING")
        cost = float(order["cost"]) if status == "SUCCESSFUL" else 0
        parts = str(order["product_code"]).split("-")
        price = float(parts[1]) if len(parts) > 1 else (order["face_value"] or 0) / 10_000
        product = {"productId": int(parts[0]), "quantity": order["units"], "unitPrice": price, "totalPrice": price * order["units"]}
        return {
            "transactionId": order["id"],
            "amount": cost,
            "currencyCode": order["currency"],
            "customIdentifier": order["out_order_no"],
            "status": status,
            "product": product,
            "transactionCreatedTime": stamp(order["created_at"]),
            "balaneInfo": {"oldBalance": 1000.0, "newBalance": 1000.0 - cost, "cost": cost, "currencyCode": order["currency"]},
        }

    async def products(self, counter: Counter, asked: Asked) -> Told:
        return self.page(asked.params(), [described(counter, product) for product in counter.products], 200)

    async def product(self, counter: Counter, asked: Asked) -> Told:
        found = [product for product in counter.products if product.code.split("-")[0] == asked.named["number"]]
        return self.json(described(counter, found[0])) if found else self.error(404, "INVALID_PRODUCT", asked.path)


def described(counter: Counter, product: Product) -> dict[str, Any]:
    number, _, amount = product.code.partition("-")
    face = Decimal(amount) if amount else Decimal(1)
    discount = (1 - Decimal(counter.cost_of(product)) / 10_000 / face) * 100
    return {
        "productId": int(number),
        "productName": product.name,
        "status": "ACTIVE" if product.on_sale else "INACTIVE",
        "denominationType": "FIXED" if amount else "RANGE",
        "recipientCurrencyCode": counter.account.currency,
        "senderCurrencyCode": counter.account.currency,
        "recipientCurrencyToSenderCurrencyExchangeRate": 1,
        "senderFee": 0,
        "senderFeePercentage": 0,
        "discountPercentage": float(discount),
        "minRecipientDenomination": None if amount else float(product.face_min or 0),
        "maxRecipientDenomination": None if amount else float(product.face_max or 0),
        "fixedRecipientDenominations": [float(amount)] if amount else [],
        "additionalRequirements": {"userIdRequired": False},
    }


TWIN: Final = Twin(
    name="reloadly_gift",
    reversed_is_failed=True,
    face=GiftFace(),
    settings=lambda base_url, app_key, secret: {
        "base_url": base_url,
        "auth_url": base_url,
        "audience": AUDIENCE,
        "client_id": app_key,
        "client_secret": secret,
        "webhook_secret": WEBHOOK_SECRET,
        "sender_name": "Hub",
    },
    products=(
        Product(code="10-25", name="Xbox Live US", type="card", cost="24.25"),
        Product(code="11", name="Amazon US", type="card", cost="0.97", face_min="1", face_max="500"),
    ),
    goods=Goods(card="10-25", ranged="11"),
    currency="USD",
    dashboard="/dashboard",
    in_chaos={"currency": "CNY"},
    codes="{n}-{cost}",
)
