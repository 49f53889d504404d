"""卡商网, from the client written from its document (dtapps/kashangwl, d332140, 2024-03-08; doc.cqmeihu.cn) and nothing of ours.

What the document does not say is answered in the way that helps a caller least: every refusal has the same code, which is listed nowhere.
"""

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any, ClassVar, Final

import orjson
from tests.suppliers.twins import Goods, Twin

from kameng_api.kit.money import format_amount, parse_amount
from kameng_api.simulator.accounts import Account
from kameng_api.simulator.books import Habits, Letter
from kameng_api.simulator.clock import Written
from kameng_api.simulator.config import Product
from kameng_api.simulator.face import JSON, Asked, Counter, Face, Path, Told, told
from kameng_api.simulator.protocol import Ask

TYPES: Final = {"topup": 1, "card": 2, "voucher": 3}
STATES: Final = {"PROCESSING": 101, "SUCCESS": 200, "PARTIAL": 200, "REVERSED": 200, "FAILED": 500, "CONTACT_STAFF": 501}
BEFORE_AN_ORDER: Final = frozenset({"STOCK_EMPTY", "PRODUCT_OFF_SHELF", "BALANCE_NOT_ENOUGH", "PRICE_CHANGED", "PARAM_INVALID"})
CHINA: Final = timezone(timedelta(hours=8))


def digest(key: bytes, params: Mapping[str, Any]) -> str:
    """The source string is {key}customer_id192442order_id827669582783timestamp1626845767."""
    whole = key
    for name in sorted(params):
        if name != "sign":
            whole += name.encode() + str(params[name]).encode()
    return hashlib.md5(whole).hexdigest()


def fine(data: object) -> Told:
    return told({"code": "ok", "message": "成功", "data": data})


def wrong(message: str, code: str = "error") -> Told:
    return told({"code": code, "message": message, "data": {}})


class KashangwlFace(Face):
    """Every call is a POST; requests come as JSON or as a form, answers are JSON."""

    habits: ClassVar[Habits] = Habits()
    acknowledgement: ClassVar[bytes] = b"ok"

    def paths(self) -> Sequence[Path]:
        return (
            Path("POST", "/api/customer", "balance", self.customer),
            Path("POST", "/api/buy", "place", self.buy),
            Path("POST", "/api/order", "query", self.order),
            Path("POST", "/api/outer-order", "query", self.outer_order),
            Path("POST", "/api/product", "products", self.product),
            Path("POST", "/api/product/recharge-params", "products", self.recharge_params),
        )

    def read(self, asked: Asked) -> dict[str, Any]:
        if "form" in asked.headers.get("content-type", ""):
            return asked.form()
        found = asked.json()
        return found if isinstance(found, dict) else {}

    def account_of(self, asked: Asked, accounts: Mapping[str, Account], kind: str) -> Account | Told:
        params = self.read(asked)
        account = accounts.get(str(params.get("customer_id")))
        if account is None or not hmac.compare_digest(digest(account.secret, params), str(params.get("sign"))):
            return wrong("签名错误")
        return account

    def broken(self, kind: str) -> Told:
        return wrong("服务器错误", "server_error")

    async def customer(self, counter: Counter, asked: Asked) -> Told:
        return fine({"id": int(counter.account.app_key), "name": "示例商家", "balance": format_amount(counter.account.balance)})

    async def buy(self, counter: Counter, asked: Asked) -> Told:
        params = self.read(asked)
        reference, quantity = str(params.get("outer_order_id", "")), int(params.get("quantity", 0))
        if await counter.is_known(reference):
            return wrong("外部订单号已存在")
        limit = parse_amount(str(params["safe_cost"])) * quantity if params.get("safe_cost") else None  # taken as the price of one
        ask = Ask(
            reference=reference,
            product_code=str(params.get("product_id", "")),
            units=quantity,
            target=str(params.get("recharge_account", "")),
            face_value=None,
            max_cost=limit,
            callback_url=str(params.get("notify_url", "")),
            fields=str(params.get("recharge_template_input_items", "")),
        )
        order, _ = await counter.place(ask)
        if order["status"] == "FAILED" and order["fail_code"] in BEFORE_AN_ORDER:
            return wrong(order["fail_code"].lower())
        price, total = format_amount(order["unit_cost"]), format_amount(order["unit_cost"] * order["units"])
        data = {"order_id": self.number(order), "product_price": price, "total_price": total, "recharge_url": "", "state": STATES[order["status"]]}
        if order["status"] == "PARTIAL":
            data["state"] = 101  # what was not delivered is paid back afterwards
        return fine({**data, **cards(order, "card_no", "card_password")})

    def number(self, order: Mapping[str, Any]) -> str:
        return str(827_600_000_000 + int(order["id"]))

    async def order(self, counter: Counter, asked: Asked) -> Told:
        number = str(self.read(asked).get("order_id", ""))
        return self._shown(counter, await counter.find(number=str(int(number) - 827_600_000_000)) if number.isdigit() else None)

    async def outer_order(self, counter: Counter, asked: Asked) -> Told:
        return self._shown(counter, await counter.find(reference=str(self.read(asked).get("outer_order_id", ""))))

    def _shown(self, counter: Counter, order: dict[str, Any] | None) -> Told:
        if order is None or (order["status"] == "FAILED" and order["fail_code"] in BEFORE_AN_ORDER):
            return wrong("订单不存在")
        total = order["unit_cost"] * order["units"]
        back = total if order["status"] in ("FAILED", "REVERSED") else order["unit_cost"] * (order["units"] - order["delivered_units"])
        done = order["status"] in ("SUCCESS", "PARTIAL", "FAILED", "REVERSED")
        data = {
            "id": self.number(order),
            "product_id": int(order["product_code"]),
            "product_name": counter.account.products[order["product_code"]].name,
            "product_type": TYPES[order["product_type"]],
            "product_price": format_amount(order["unit_cost"]),
            "quantity": order["units"],
            "total_price": format_amount(total),
            "refunded_amount": format_amount(back if done else 0),
            "buyer_customer_id": int(counter.account.app_key),
            "state": STATES[order["status"]],
            "created_at": datetime.fromtimestamp(order["created_at"], CHINA).strftime("%Y-%m-%d %H:%M:%S"),
            "recharge_account": order["target"],
            "recharge_info": order["receipt"],
            "outer_order_id": order["out_order_no"],
        }
        return fine({**data, **cards(order, "no", "password")})

    async def product(self, counter: Counter, asked: Asked) -> Told:
        found = counter.account.products.get(str(self.read(asked).get("product_id")))
        if found is None:
            return wrong("商品不存在")
        stock = counter.stock_of(found)
        line = {"id": int(found.code), "product_name": found.name, "name": "标准", "price": format_amount(counter.cost_of(found))}
        states = {"supply_state": 2 if stock == 0 else 1, "stock_state": 1 if found.on_sale else 3}
        return fine({**line, "valid_purchasing_quantity": "1-100", "superior_commissions_rate": 0, "type": TYPES[found.type], **states})

    async def recharge_params(self, counter: Counter, asked: Asked) -> Told:
        return fine({"recharge_account_label": "手机号", "recharge_params": []})

    def write(self, letter: Letter, now: float, *, forged: bool) -> Written:
        order = {**letter.view, **letter.more}
        params: dict[str, Any] = {
            "order_id": self.number(order),
            "outer_order_id": order["out_order_no"],
            "product_id": int(order["product_code"]),
            "quantity": order["units"],
            "state": STATES[order["status"]],
            "state_info": "",
            "created_at": datetime.fromtimestamp(order["created_at"], CHINA).strftime("%Y-%m-%d %H:%M:%S"),
            "customer_id": int(letter.account.app_key),
            "timestamp": int(now),
        }
        params["sign"] = digest(b"not the secret" if forged else letter.account.secret, params)
        return Written(orjson.dumps(params), JSON)


def cards(order: Mapping[str, Any], number: str, secret: str) -> dict[str, Any]:
    if order["status"] not in ("SUCCESS", "PARTIAL") or not order.get("cards"):
        return {}
    if order["product_type"] == "voucher":
        return {"tickets": [{"no": card["code"], "ticket": card["pin"]} for card in order["cards"]]}
    return {"cards": [{number: card["code"], secret: card["pin"]} for card in order["cards"]]}


PRODUCTS: Final = (
    Product(code="41553", name="全国话费 100 元", type="topup", cost="97.50"),
    Product(code="41554", name="游戏点卡 30 元", type="card", cost="28.80"),
    Product(code="41555", name="咖啡兑换券", type="voucher", cost="24.00"),
)
TWIN: Final = Twin(
    name="kashangwl",
    face=KashangwlFace(),
    settings=lambda url, key, secret: {"base_url": url, "customer_id": key, "customer_key": secret},
    products=PRODUCTS,
    goods=Goods(topup="41553", card="41554"),
    app_key="192442",
    traps={"storm": "how much of a part was delivered is never told, and is for a person: test_kashangwl.py has the storm without parts"},
)
