"""Another house, as its contract describes it (openapi/kameng.v1.yaml, docs/signing.md, docs/errors.md, docs/webhooks.md).

The real twin of this adapter is the house itself: test_kameng.py starts one. This face puts the same contract on the engine, so that the faults
of the generic traps can be set under it.
"""

import base64
import hashlib
import hmac
import re
from collections import deque
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, ClassVar, Final

import orjson
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from tests.suppliers.twins import Goods, Twin

from kameng_api.kit.money import SCALE, format_amount, parse_amount
from kameng_api.simulator.accounts import Account
from kameng_api.simulator.books import Habits, Letter
from kameng_api.simulator.clock import Written
from kameng_api.simulator.config import Product
from kameng_api.simulator.face import Asked, Counter, Face, Path, Told, told
from kameng_api.simulator.protocol import Ask

DELIVERY_KEY: Final = "0123456789abcdef0123456789abcdef"
WEBHOOK_KEY: Final = bytes(range(32))
CHINA: Final = timezone(timedelta(hours=8))
_HEADER: Final = re.compile(r'KM1-HMAC-SHA256 key_id="([^"]+)",timestamp="(\d+)",nonce="([A-Za-z0-9_-]{16,64})",signature="([^"]+)"')
REFUSED: Final = {
    "BALANCE_NOT_ENOUGH": (402, "insufficient_balance"),
    "PRODUCT_OFF_SHELF": (422, "product_unavailable"),
    "PRICE_CHANGED": (422, "price_changed"),
    "STOCK_EMPTY": (422, "out_of_stock"),
    "PARAM_INVALID": (422, "validation_failed"),
}
FAILURES: Final = {
    "TARGET_NOT_EXIST": "target_invalid",
    "TARGET_BLACKLISTED": "target_not_eligible",
    "TARGET_NOT_ELIGIBLE": "target_not_eligible",
    "ORDER_REJECTED": "supplier_rejected",
    "CHANNEL_MAINTENANCE": "all_channels_refused",
}
STATUSES: Final = {
    "PROCESSING": ("accepted", None),
    "CONTACT_STAFF": ("processing", "manual_review"),
    "SUCCESS": ("succeeded", None),
    "PARTIAL": ("partially_succeeded", None),
    "REVERSED": ("succeeded", None),
    "FAILED": ("failed", None),
}
KINDS: Final = {"CHARGE": "hold", "REFUND": "release", "REVERSAL": "refund", "TOP_UP": "fund"}


def problem(status: int, code: str, charged: str = "no", **more: object) -> Told:
    body = {"type": f"https://kameng.example/problems/{code}", "title": code, "status": status, "detail": code, "instance": "/", "code": code}
    body |= {"request_id": "req_1", "charged": charged, "retry": "never", **more}
    return Told(orjson.dumps(body), status, {"content-type": "application/problem+json"})


class KamengFace(Face):
    """The merchant's side of a house."""

    habits: ClassVar[Habits] = Habits(calls_back_at_once=True)
    retry_after_s = (5.0, 30.0, 120.0, 300.0)

    def __init__(self) -> None:
        self.nonces: deque[str] = deque(maxlen=10_000)
        self.cancelled: set[str] = set()

    def paths(self) -> Sequence[Path]:
        return (
            Path("POST", "/v1/orders", "place", self.create),
            Path("GET", "/v1/orders/by-merchant-no/{number}", "query", self.show),
            Path("GET", "/v1/orders/{id}/codes", "query", self.codes),
            Path("POST", "/v1/orders/{id}/cancel", "other", self.cancel),
            Path("GET", "/v1/balance", "balance", self.balance),
            Path("GET", "/v1/products", "products", self.list_products),
            Path("GET", "/v1/products/changes", "products", self.changes),
            Path("GET", "/v1/products/{sku}", "products", self.product),
            Path("GET", "/v1/statements/{date}", "statement", self.statement),
        )

    def account_of(self, asked: Asked, accounts: Mapping[str, Account], kind: str) -> Account | Told:
        match = _HEADER.fullmatch(asked.headers.get("authorization", ""))
        if match is None:
            return problem(401, "auth_malformed")
        key_id, timestamp, nonce, signature = match.groups()
        if abs(int(timestamp) - asked.now) > 300:
            return problem(401, "timestamp_out_of_window", server_time=int(asked.now))
        account = accounts.get(key_id)
        if account is None:
            return problem(401, "unknown_key")
        target = asked.path + (f"?{asked.query}" if asked.query else "")
        lines = ["KM1-HMAC-SHA256", timestamp, nonce, key_id, asked.method, target, hashlib.sha256(asked.body).hexdigest()]
        expected = base64.b64encode(hmac.new(account.secret, "".join(f"{line}\n" for line in lines).encode(), hashlib.sha256).digest())
        if not hmac.compare_digest(expected, signature.encode()):
            return problem(401, "bad_signature")
        if nonce in self.nonces:
            return problem(401, "nonce_reused")
        self.nonces.append(nonce)
        return account

    def busy(self, kind: str) -> Told:
        return problem(429, "rate_limited", retry_after_s=1)

    def broken(self, kind: str) -> Told:
        return problem(500, "internal", "unknown")

    def down(self, kind: str) -> Told:
        return problem(503, "unavailable", "unknown")

    async def create(self, counter: Counter, asked: Asked) -> Told:
        wanted = asked.json()
        reference, units = wanted["merchant_order_no"], wanted.get("quantity", 1)
        known = await counter.find(reference=reference)
        if known is not None and known["fields"] != orjson.dumps(wanted).decode():
            return problem(409, "merchant_order_no_conflict", existing_order_id=order_id(known))
        face = wanted.get("fields", {}).get("face_value")
        limit = wanted.get("max_unit_price")
        ask = Ask(
            reference=reference,
            product_code=wanted["sku"],
            units=units,
            target=wanted.get("target", ""),
            face_value=None if face is None else parse_amount(face),
            max_cost=None if limit is None else parse_amount(limit) * units,
            callback_url=wanted.get("notify_url", ""),
            fields=orjson.dumps(wanted).decode(),
        )
        order, new = await counter.place(ask)
        if order["status"] == "FAILED" and order["fail_code"] in REFUSED:
            return problem(*REFUSED[order["fail_code"]])
        view = self.view(order)
        if not new:
            return told(view)
        waiting = {"status": "accepted", "substatus": None, "delivered_quantity": 0, "failure": None, "delivery": None, "codes_available": False}
        return told({**view, **waiting}, 201)

    def view(self, order: Mapping[str, Any]) -> dict[str, Any]:
        status, substatus = STATUSES[order["status"]]
        units = order["delivered_units"] if order["status"] in ("SUCCESS", "PARTIAL", "REVERSED") else 0
        if order["out_order_no"] in self.cancelled:
            status = "cancelled"
        failed = status == "failed"
        at = datetime.fromtimestamp(order["created_at"], UTC).isoformat()
        return {
            "id": order_id(order),
            "object": "order",
            "environment": "test",
            "version": 1,
            "status": status,
            "substatus": substatus,
            "merchant_order_no": order["out_order_no"],
            "sku": order["product_code"],
            "product_type": order["product_type"],
            "quantity": order["units"],
            "delivered_quantity": units,
            "unit_price": format_amount(order["unit_cost"]),
            "amount": format_amount(order["unit_cost"] * order["units"]),
            "currency": order["currency"],
            "refunded_amount": order["reversed_amount"] if order["status"] == "REVERSED" else "0.0000",
            "codes_available": bool(units) and order["product_type"] != "topup",
            "failure": {"code": FAILURES.get(order["fail_code"], "all_channels_refused"), "detail": ""} if failed else None,
            "delivery": {"receipt": order["receipt"], "delivered_at": at} if units else None,
            "created_at": at,
            "metadata": {},
        }

    async def show(self, counter: Counter, asked: Asked) -> Told:
        order = await counter.find(reference=asked.named["number"])
        if order is None or (order["status"] == "FAILED" and order["fail_code"] in REFUSED):
            return problem(404, "not_found")
        return told(self.view(order))

    async def codes(self, counter: Counter, asked: Asked) -> Told:
        order = await counter.find(number=str(int(asked.named["id"].removeprefix("ord_"))))
        if order is None or not order.get("cards"):
            return problem(404, "not_found")
        bound, nonce = f"order_codes:{order_id(order)}", f"{order['id']:012d}"
        sealed = AESGCM(DELIVERY_KEY.encode()).encrypt(nonce.encode(), orjson.dumps(order["cards"]), bound.encode())
        envelope = {"algorithm": "AEAD_AES_256_GCM", "kid": "dk_1", "nonce": nonce, "associated_data": bound}
        return told({**envelope, "ciphertext": base64.b64encode(sealed).decode()})

    async def cancel(self, counter: Counter, asked: Asked) -> Told:
        order = await counter.find(number=str(int(asked.named["id"].removeprefix("ord_"))))
        if order is None:
            return problem(404, "not_found")
        if order["status"] != "PROCESSING" and order["out_order_no"] not in self.cancelled:
            return problem(409, "state_conflict")
        self.cancelled.add(order["out_order_no"])
        await counter.cancel(order["out_order_no"])
        found = await counter.find(reference=order["out_order_no"])
        assert found is not None
        return told(self.view(found))

    async def balance(self, counter: Counter, asked: Asked) -> Told:
        account = counter.account
        return told({"currency": account.currency, "available": format_amount(account.balance), "held": "0.0000", "credit_limit": "0.0000"})

    def line(self, counter: Counter, product: Product) -> dict[str, Any]:
        stock, cost = counter.stock_of(product), counter.cost_of(product)
        ranged = product.face_min is not None and product.face_max is not None
        word = "out_of_stock" if stock == 0 else "low" if stock is not None and stock <= 20 else "in_stock"
        bounds = {"min": format_amount(parse_amount(product.face_min or "0")), "max": format_amount(parse_amount(product.face_max or "0"))}
        return {
            "sku": product.code,
            "name": product.name,
            "product_type": product.type,
            "face_value": None if ranged else "100.0000",
            "range": {**bounds, "step": "1.0000"} if ranged else None,
            "unit_price": None if ranged else format_amount(cost),
            "price_rate": f"{cost // SCALE}.{cost % SCALE:04d}00" if ranged else None,
            "currency": counter.account.currency,
            "fields": [],
            "carriers": [],
            "barcodes": [],
            "stock": word,
            "status": "on_sale" if product.on_sale else "paused",
        }

    async def list_products(self, counter: Counter, asked: Asked) -> Told:
        params = asked.params()
        limit, start = int(params.get("limit", "20")), int(params.get("cursor", "0"))
        lines = [self.line(counter, product) for product in counter.products]
        more = start + limit < len(lines)
        return told({"items": lines[start : start + limit], "next_cursor": str(start + limit) if more else None, "changes_after": None})

    async def changes(self, counter: Counter, asked: Asked) -> Told:
        lines = [] if asked.params().get("after") else [self.line(counter, product) for product in counter.products]
        items = [{"sku": line["sku"], "changed": ["price"], "product": line} for line in lines]
        return told({"items": items, "after": "the-end", "next_cursor": None})

    async def product(self, counter: Counter, asked: Asked) -> Told:
        found = counter.account.products.get(asked.named["sku"])
        return problem(404, "not_found") if found is None else told(self.line(counter, found))

    async def statement(self, counter: Counter, asked: Asked) -> Told:
        start = datetime.fromisoformat(asked.named["date"]).replace(tzinfo=CHINA).timestamp()
        if start + 86_400 > asked.now:
            return problem(409, "statement_not_ready")
        movements = []
        for row in await counter.movements(start, start + 86_400):
            of = None if row["order_id"] is None else f"ord_{row['order_id']:026d}"
            money = {"amount": format_amount(row["amount"]), "balance_after": format_amount(row["balance_after"])}
            names = {"id": f"txn_{row['id']}", "type": KINDS.get(row["kind"], "adjustment"), "merchant_order_no": row["reference"] or None}
            movements.append({**names, **money, "order_id": of, "time": datetime.fromtimestamp(row["at"], UTC).isoformat()})
        return told({"object": "statement", "date": asked.named["date"], "currency": counter.account.currency, "movements": movements})

    def write(self, letter: Letter, now: float, *, forged: bool) -> Written:
        view = self.view({**letter.view, **letter.more})
        kind = "order.refunded" if view["refunded_amount"] != "0.0000" else f"order.{view['status']}"
        at = datetime.fromtimestamp(now, UTC).isoformat()
        event = {"id": f"evt_{letter.notify_id}", "type": kind, "timestamp": at, "data": {"id": view["id"], "version": 1, "object": view}}
        body = orjson.dumps(event)
        text = f"evt_{letter.notify_id}.{int(now)}.".encode() + body
        sign = base64.b64encode(hmac.new(b"not the secret" if forged else WEBHOOK_KEY, text, hashlib.sha256).digest()).decode()
        names = {"webhook-id": f"evt_{letter.notify_id}", "webhook-timestamp": str(int(now)), "webhook-signature": f"v1,{sign}"}
        return Written(body, {"content-type": "application/json", **names})

    def is_acknowledged(self, status: int, body: bytes) -> bool:
        return 200 <= status < 300


def order_id(order: Mapping[str, Any]) -> str:
    return f"ord_{order['id']:026d}"


PRODUCTS: Final = (
    Product(code="mobile-cn-100", name="全国话费 100 元", type="topup", cost="97.50"),
    Product(code="game-card-30", name="游戏点卡 30 元", type="card", cost="28.80"),
    Product(code="qb", name="Q币", type="topup", cost="0.965", face_min="1", face_max="1000"),
)
TWIN: Final = Twin(
    name="kameng",
    face=KamengFace(),
    settings=lambda url, key, secret: {
        "base_url": url,
        "key_id": key,
        "secret": secret,
        "delivery_key": DELIVERY_KEY,
        "webhook_secret": "whsec_" + base64.b64encode(WEBHOOK_KEY).decode(),
    },
    products=PRODUCTS,
    goods=Goods(topup="mobile-cn-100", card="game-card-30", ranged="qb"),
    app_key="ak_test_01JD0000000000000000000001",
    ranged_codes="{n}",
    traps={},
)
