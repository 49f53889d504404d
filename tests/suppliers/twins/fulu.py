"""福禄 open platform v2 as its documents describe it (open.fulu.com, clients of 2019-2022): JSON inside JSON, signed by its sorted characters."""

import base64
import hashlib
import json
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, ClassVar

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from tests.suppliers.twins import Goods, Twin

from kameng_api.simulator.accounts import Account
from kameng_api.simulator.books import Habits, Letter
from kameng_api.simulator.clock import Written
from kameng_api.simulator.config import Product
from kameng_api.simulator.face import Asked, Counter, Face, Path, Told, told
from kameng_api.simulator.protocol import Ask

CHINA = timezone(timedelta(hours=8))
WINDOW_S = 600
STATES = {"SUCCESS": "success", "FAILED": "failed", "REVERSED": "failed"}  # whatever else there is shows as processing
AT_THE_DOOR = {  # codes that a client tries another product on; what each means is told by no document
    "PRODUCT_OFF_SHELF": (3001, "商品已下架"),
    "STOCK_EMPTY": (3002, "商品库存不足"),
    "BALANCE_NOT_ENOUGH": (3003, "账户余额不足"),
    "PRICE_CHANGED": (3004, "商品价格变动"),
    "PARAM_INVALID": (3005, "参数错误"),
}
DUPLICATE = (3008, "外部订单号已存在")
KINDS = {"card": "卡密", "voucher": "卡密", "topup": "直充"}


def compact(value: object) -> str:
    """json_encode($x, 320): slashes and Unicode as they are."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def sign(text: str, secret: str) -> str:
    """Split into characters, sorted, joined, the secret behind them."""
    return hashlib.md5(("".join(sorted(text)) + secret).encode()).hexdigest()


def encrypt(secret: str, plain: str) -> str:
    missing = 16 - len(plain.encode()) % 16
    cipher = Cipher(algorithms.AES256(secret.encode()), modes.ECB()).encryptor()
    return base64.b64encode(cipher.update(plain.encode() + bytes([missing]) * missing) + cipher.finalize()).decode()


class Fulu(Face):
    """One path for everything: `method` in the body says what is asked. `/dashboard` is where a human sets the callbacks' address."""

    habits: ClassVar[Habits] = Habits(calls_back_at_once=True)

    def __init__(self) -> None:
        self.callback_url = ""
        self.calls: Mapping[str, Callable[[Counter, dict[str, Any]], Awaitable[Told]]] = {
            "fulu.order.direct.add": self.direct,
            "fulu.order.card.add": self.card,
            "fulu.order.mobile.add": self.mobile,
            "fulu.order.info.get": self.look_up,
            "fulu.user.info.get": self.user,
            "fulu.goods.list.get": self.goods_list,
            "fulu.goods.info.get": self.goods_info,
        }

    def paths(self) -> Sequence[Path]:
        return [Path("POST", "/api/getway", "other", self.getway), Path("PUT", "/dashboard", "other", self.dashboard)]

    def account_of(self, asked: Asked, accounts: Mapping[str, Account], kind: str) -> Account | Told:
        body = asked.json()
        if asked.path == "/dashboard":
            return accounts[body["client_id"]]
        if not isinstance(body, dict):
            return failed(1000, "参数错误")
        account = accounts.get(str(body.get("app_key")))
        if account is None:
            return failed(1001, "app_key错误")
        fields = {name: value for name, value in body.items() if name != "sign"}
        if body.get("sign") != sign(compact(fields), account.secret.decode()):
            return failed(1002, "签名错误")
        constants = {"version": "2.0", "format": "json", "charset": "utf-8", "sign_type": "md5", "app_auth_token": ""}
        if any(body.get(name) != value for name, value in constants.items()):
            return failed(1000, "公共参数错误")
        if not re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", str(body.get("timestamp"))):
            return failed(1003, "时间戳格式错误")
        at = datetime.strptime(body["timestamp"], "%Y-%m-%d %H:%M:%S").replace(tzinfo=CHINA)
        if abs((at - datetime.now(UTC)).total_seconds()) > WINDOW_S:
            return failed(1003, "请求已过期")
        return account

    async def dashboard(self, counter: Counter, asked: Asked) -> Told:
        self.callback_url = asked.json()["webhook_url"]
        return told({})

    async def getway(self, counter: Counter, asked: Asked) -> Told:
        body = asked.json()
        call = self.calls.get(body["method"])
        return failed(1004, "接口不存在") if call is None else await call(counter, json.loads(body["biz_content"]))

    async def direct(self, counter: Counter, business: dict[str, Any]) -> Told:
        return await self._add(counter, business, code=str(business["product_id"]), units=business["buy_num"], target=business["charge_account"])

    async def card(self, counter: Counter, business: dict[str, Any]) -> Told:
        return await self._add(counter, business, code=str(business["product_id"]), units=business["buy_num"], target="")

    async def mobile(self, counter: Counter, business: dict[str, Any]) -> Told:
        """The platform chooses the product: here the one of any face value."""
        value = round(business["charge_value"] * 10_000)
        return await self._add(counter, business, code="1", units=1, target=business["charge_phone"], face_value=value)

    async def _add(
        self, counter: Counter, business: Mapping[str, Any], *, code: str, units: int, target: str, face_value: int | None = None
    ) -> Told:
        number = business["customer_order_no"]
        if len(number) > 50:
            return failed(1000, "customer_order_no过长")
        ask = Ask(number, code, units, target, face_value, None, self.callback_url, compact(business))
        order, new = await counter.place(ask)
        if order["fail_code"] in AT_THE_DOOR:
            return failed(*AT_THE_DOOR[order["fail_code"]])
        if not new:
            return failed(*DUPLICATE)
        return signed(counter.account, {**_row(order), "order_state": "untreated", "operator_serial_number": None, "finish_time": None})

    async def look_up(self, counter: Counter, business: dict[str, Any]) -> Told:
        order = await counter.find(reference=business["customer_order_no"])
        if order is None or order["fail_code"] in AT_THE_DOOR:
            return failed(4000, "订单不存在")
        secret = counter.account.secret.decode()
        cards = [
            {"card_type": 0, "card_number": encrypt(secret, card["code"]), "card_pwd": encrypt(secret, card["pin"]), "card_deadline": None}
            for card in order.get("cards", ())
        ]
        return signed(counter.account, {**_row(order), "cards": cards if STATES.get(order["status"], "processing") == "success" else None})

    async def user(self, counter: Counter, business: dict[str, Any]) -> Told:
        return signed(counter.account, {"name": counter.account.name, "balance": counter.account.balance / 10_000, "is_open": 1})

    async def goods_list(self, counter: Counter, business: dict[str, Any]) -> Told:
        kind = business.get("product_type")
        rows = [_line(counter, product) for product in counter.products if product.face_min is None]
        return signed(counter.account, [row for row in rows if kind in (None, row["product_type"])])

    async def goods_info(self, counter: Counter, business: dict[str, Any]) -> Told:
        product = counter.account.products.get(str(business["product_id"]))
        return failed(2001, "商品不存在") if product is None else signed(counter.account, _line(counter, product))

    def write(self, letter: Letter, now: float, *, forged: bool) -> Written:
        row = _row({**letter.view, **letter.more})
        fields = {
            "order_id": row["order_id"],
            "charge_finish_time": row["finish_time"] or "",
            "customer_order_no": row["customer_order_no"],
            "order_status": row["order_state"],
            "recharge_description": "充值结果 http://fulu.example.com/a",
            "product_id": str(row["product_id"]),
            "price": f"{row['order_price']:.4f}",
            "buy_num": str(row["buy_num"]),
            "operator_serial_number": row["operator_serial_number"] or "",
        }
        fields["sign"] = sign(compact(fields), "not the secret" if forged else letter.account.secret.decode())
        return Written(json.dumps(fields).encode(), {"content-type": "application/json"})


def failed(code: int, message: str) -> Told:
    return told({"code": code, "message": message, "result": None, "sign": None})


def signed(account: Account, result: object) -> Told:
    text = compact(result)
    return told({"code": 0, "message": "接口调用成功", "result": text, "sign": sign(text, account.secret.decode())})


def _row(order: Mapping[str, Any]) -> dict[str, Any]:
    mobile = order["product_code"] == "1"
    finished = order["finished_at"]
    return {
        "order_id": f"26112300{order['id']:012d}",
        "product_id": 10000001 if mobile else int(order["product_code"]),
        "product_name": "",
        "charge_account": order["target"],
        "customer_order_no": order["out_order_no"],
        "create_time": _time(order["created_at"]),
        "buy_num": order["units"],
        "order_price": order["unit_cost"] / 10_000,
        "order_state": STATES.get(order["status"], "processing"),
        "finish_time": _time(finished) if finished else None,
        "area": None,
        "server": None,
        "type": None,
        "cards": None,
        "order_type": 1 if mobile else 3 if order["product_type"] != "topup" else 4,
        "operator_serial_number": order["receipt"] or None,
    }


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, CHINA).strftime("%Y-%m-%d %H:%M:%S")


def _line(counter: Counter, product: Product) -> dict[str, Any]:
    return {
        "product_id": int(product.code),
        "product_name": product.name,
        "face_value": 100.0,
        "product_type": KINDS[product.type],
        "purchase_price": counter.cost_of(product) / 10_000,
        "template_id": "",
        "stock_status": "断货" if counter.stock_of(product) == 0 else "充足",
        "sales_status": "上架" if product.on_sale else "下架",
    }


TWIN = Twin(
    name="fulu",
    reversed_is_failed=True,
    face=Fulu(),
    settings=lambda url, key, secret: {"base_url": url, "app_key": key, "app_secret": secret},
    products=(
        Product(code="10000497", name="会员月卡", cost="97.5"),
        Product(code="10000587", name="点卡100元", type="card", cost="95.5"),
        Product(code="1", name="话费", cost="0.975", face_min="1", face_max="500"),
    ),
    goods=Goods(topup="10000497", card="10000587", ranged="mobile"),
    most_units=1,  # no state says that a part was delivered: test_fulu.py buys several that are
    dashboard="/dashboard",
    traps={"price_list": "mobile top-ups have no line in the list; test_fulu.py reads the others"},
)
