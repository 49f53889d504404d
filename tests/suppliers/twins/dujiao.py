"""A dujiao-next shop, from its open API document (dujiao-next/document docs/api/integration-open-api.md, 2026-04-01) alone.

What the document leaves open is taken from the shop's own source where the research note does: the path signed in callbacks and the times at
which they are sent again.
"""

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, ClassVar, Final
from urllib.parse import urlsplit

import orjson
from tests.suppliers.twins import Goods, Twin

from kameng_api.kit.money import format_amount
from kameng_api.simulator.accounts import Account
from kameng_api.simulator.books import Habits, Letter
from kameng_api.simulator.clock import Written
from kameng_api.simulator.config import Product
from kameng_api.simulator.face import JSON, Asked, Counter, Face, Path, Told, told
from kameng_api.simulator.protocol import Ask

ROOT: Final = "/api/v1/upstream"
REFUSED: Final = {
    "PARAM_INVALID": (400, "bad_request"),
    "PRODUCT_OFF_SHELF": (400, "sku_unavailable"),
    "BALANCE_NOT_ENOUGH": (402, "insufficient_balance"),
    "STOCK_EMPTY": (409, "insufficient_stock"),
}
"""Given before there is an order. Everything else that fails was an order first, and ends canceled (§4.5, §6)."""
STATUSES: Final = {
    "PROCESSING": "paid",
    "CONTACT_STAFF": "fulfilling",
    "SUCCESS": "completed",
    "PARTIAL": "partially_delivered",
    "FAILED": "canceled",
    "REVERSED": "refunded",
}


def signature(secret: bytes, method: str, path: str, timestamp: str, body: bytes) -> str:
    """§2.2: METHOD, PATH without query, TIMESTAMP, hex MD5 of the body."""
    lines = [method, path, timestamp, hashlib.md5(body).hexdigest()]
    return hmac.new(secret, "\n".join(lines).encode(), hashlib.sha256).hexdigest()


def wrong(status: int, code: str) -> Told:
    return told({"ok": False, "error_code": code, "error_message": code.replace("_", " ")}, status)


def sku_id(product: Product) -> int:
    return int(product.code.rpartition("-")[2])


def product_id(product: Product) -> int:
    return int(product.code.partition("-")[0])


class DujiaoFace(Face):
    """The shop: goods of its stock are delivered by themselves (auto), what is done to an account by a person (manual)."""

    habits: ClassVar[Habits] = Habits(calls_back_at_once=True)
    retry_after_s = (30.0, 60.0, 120.0, 300.0)

    def paths(self) -> Sequence[Path]:
        return (
            Path("POST", f"{ROOT}/ping", "balance", self.ping),
            Path("GET", f"{ROOT}/products", "products", self.list_products),
            Path("GET", ROOT + "/products/{id:int}", "products", self.show_product),
            Path("POST", f"{ROOT}/orders", "place", self.create),
            Path("GET", ROOT + "/orders/{id:int}", "query", self.show),
            Path("POST", ROOT + "/orders/{id:int}/cancel", "other", self.cancel),
        )

    def account_of(self, asked: Asked, accounts: Mapping[str, Account], kind: str) -> Account | Told:
        key, timestamp, sign = (asked.headers.get(f"dujiao-next-{name}", "") for name in ("api-key", "timestamp", "signature"))
        if not (key and timestamp and sign):
            return wrong(401, "missing_auth_headers")
        if not timestamp.isdigit():
            return wrong(401, "invalid_timestamp")
        if abs(int(timestamp) - asked.now) > 60:
            return wrong(401, "timestamp_expired")
        account = accounts.get(key)
        if account is None:
            return wrong(401, "invalid_api_key")
        if not hmac.compare_digest(signature(account.secret, asked.method, asked.path, timestamp, asked.body), sign):
            return wrong(401, "invalid_signature")
        return account

    async def ping(self, counter: Counter, asked: Asked) -> Told:
        account = counter.account
        balance = {"balance": money(account.balance), "currency": account.currency}
        return told({"ok": True, "site_name": "My Shop", "protocol_version": "1.0", "user_id": 42, **balance, "member_level": None})

    async def list_products(self, counter: Counter, asked: Asked) -> Told:
        page, size = (int(asked.params().get(name, standard)) for name, standard in (("page", "1"), ("page_size", "20")))
        size = min(max(size, 1), 100)
        on_sale = [product for product in counter.products if product.on_sale]
        items = [self._item(counter, product) for product in on_sale[(page - 1) * size : page * size]]
        return told({"ok": True, "items": items, "total": len(on_sale), "page": page, "page_size": size})

    async def show_product(self, counter: Counter, asked: Asked) -> Told:
        found = next((product for product in counter.products if product_id(product) == int(asked.named["id"])), None)
        if found is None:
            return wrong(404, "product_not_found")
        return told({"ok": True, "product": self._item(counter, found)}) if found.on_sale else wrong(404, "product_unavailable")

    def _item(self, counter: Counter, product: Product) -> dict[str, Any]:
        stock, price = counter.stock_of(product), money(counter.cost_of(product))
        word = "unlimited" if stock is None else "out_of_stock" if not stock else "low_stock" if stock <= 20 else "in_stock"
        auto = product.type != "topup"
        form = {"fields": [{"key": "account", "type": "text", "required": True, "label": {"zh-CN": "充值账号"}}]}
        sku = {"id": sku_id(product), "sku_code": "DEFAULT", "spec_values": {}, "price_amount": price, "is_active": True}
        return {
            "id": product_id(product),
            "slug": product.code,
            "title": {"zh-CN": product.name},
            "price_amount": price,
            "fulfillment_type": "auto" if auto else "manual",
            "manual_form_schema": None if auto else form,
            "is_active": product.on_sale,
            "category_id": 1,
            "skus": [{**sku, "stock_status": word, "stock_quantity": -1 if stock is None else stock}],
        }

    async def create(self, counter: Counter, asked: Asked) -> Told:
        wanted = asked.json()
        if not isinstance(wanted, dict) or type(wanted.get("sku_id")) is not int or type(wanted.get("quantity")) is not int or wanted["quantity"] < 1:
            return wrong(400, "bad_request")
        url = str(wanted.get("callback_url") or "")
        host = urlsplit(url).hostname or ""
        if url and (host == "localhost" or host.startswith(("10.", "192.168.", "169.254."))):  # 127.0.0.1 too; but tests are at home there
            return wrong(400, "invalid_callback_url")
        product = next((product for product in counter.products if sku_id(product) == wanted["sku_id"]), None)
        if product is None:
            return wrong(400, "sku_unavailable")
        form = wanted.get("manual_form_data") or {}
        if product.type == "topup" and not form.get("account"):
            return wrong(400, "bad_request")
        ask = Ask(
            reference=str(wanted.get("downstream_order_no") or ""),
            product_code=product.code,
            units=wanted["quantity"],
            target=str(form.get("account", "")),
            face_value=None,
            max_cost=None,  # the shop knows no limit: it charges its price of the moment
            callback_url=url,
            fields=orjson.dumps(form).decode(),
        )
        order, new = await counter.place(ask)
        if order["status"] == "FAILED" and order["fail_code"] in REFUSED:
            return wrong(*REFUSED[order["fail_code"]])
        return told({"ok": True, **self._head(order), **({"status": "paid"} if new else {})})

    def _head(self, order: Mapping[str, Any]) -> dict[str, Any]:
        amount = money(order["unit_cost"] * order["units"])
        number = {"order_id": order["id"], "order_no": f"DJ{order['id']:012d}"}
        return {**number, "status": STATUSES[order["status"]], "amount": amount, "currency": order["currency"]}

    async def show(self, counter: Counter, asked: Asked) -> Told:
        order = await counter.find(number=asked.named["id"])
        if order is None:
            return wrong(404, "order_not_found")
        product = counter.account.products[order["product_code"]]
        price, total = money(order["unit_cost"]), money(order["unit_cost"] * order["units"])
        kind = "auto" if product.type != "topup" else "manual"
        item = {"product_id": product_id(product), "sku_id": sku_id(product), "title": {"zh-CN": product.name}, "quantity": order["units"]}
        item |= {"unit_price": price, "total_price": total, "fulfillment_type": kind}
        return told({"ok": True, **self._head(order), "items": [item], **fulfillment(order)})

    async def cancel(self, counter: Counter, asked: Asked) -> Told:
        """§4.7: what was paid cannot be cancelled, and the wallet pays at once."""
        order = await counter.find(number=asked.named["id"])
        return wrong(404, "order_not_found") if order is None else wrong(409, "cancel_not_allowed")

    def write(self, letter: Letter, now: float, *, forged: bool) -> Written:
        order = {**letter.view, **letter.more}
        timestamp = str(int(now))
        status = STATUSES[order["status"]]
        body = orjson.dumps(
            {
                "event": "order.fulfilled" if status == "completed" else "order.status_changed",
                "order_id": order["id"],
                "order_no": f"DJ{order['id']:012d}",
                "downstream_order_no": order["out_order_no"],
                "status": status,
                **fulfillment(order),
                "timestamp": int(now),
            }
        )
        secret = b"not the secret" if forged else letter.account.secret
        sign = signature(secret, "POST", "/api/v1/upstream/callback", timestamp, body)
        keys = {"dujiao-next-api-key": letter.account.app_key, "dujiao-next-timestamp": timestamp, "dujiao-next-signature": sign}
        return Written(body, {**JSON, **keys})

    def is_acknowledged(self, status: int, body: bytes) -> bool:
        try:
            found = orjson.loads(body)
        except orjson.JSONDecodeError:
            return False
        return status == 200 and isinstance(found, dict) and found.get("ok") is True


def fulfillment(order: Mapping[str, Any]) -> dict[str, Any]:
    """§4.6: only of what was delivered. Cards are lines of text."""
    if order["status"] != "SUCCESS":
        return {}
    cards = order.get("cards")
    payload = "\n".join(card["code"] for card in cards) if cards else f"充值成功 {order['receipt']}"
    at = datetime.fromtimestamp(order["finished_at"] or order["created_at"], UTC).isoformat()
    told_of = {"type": "auto" if cards else "manual", "status": "delivered", "payload": payload, "delivery_data": None, "delivered_at": at}
    return {"fulfillment": told_of}


def money(amount: int) -> str:
    """Two places, as the document shows amounts; more where they are needed."""
    text = format_amount(amount)
    return text[:-2] if text.endswith("00") else text


PRODUCTS: Final = (
    Product(code="21-1021", name="游戏点卡 30 元", type="card", cost="28.80"),
    Product(code="22-1022", name="视频会员 月卡", type="topup", cost="16.80"),
)
TWIN: Final = Twin(
    name="dujiao",
    cards_have_pins=False,
    face=DujiaoFace(),
    settings=lambda url, key, secret: {"base_url": url, "api_key": key, "api_secret": secret},
    products=PRODUCTS,
    goods=Goods(card="21-1021"),
    traps={
        "card_codes": "a card is a line of text without a pin: test_dujiao.py compares the texts",
        "storm": "how much of an order was delivered is never told, and is for a person: test_dujiao.py has the storm without parts",
    },
    in_chaos={"manual_payload": "note"},
    codes="{n}-{n}",
)
