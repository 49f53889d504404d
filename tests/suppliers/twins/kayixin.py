"""卡易信 3.0 as its open document describes it (7qsaa0ye9g.apifox.cn, copy of 2026-04-14): raw bodies signed in headers, cards under AES."""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from tests.suppliers.twins import Goods, Twin

from kameng_api.simulator.accounts import Account
from kameng_api.simulator.books import Habits, Letter
from kameng_api.simulator.clock import Written
from kameng_api.simulator.config import Product
from kameng_api.simulator.face import Asked, Counter, Face, Path, Told, told
from kameng_api.simulator.protocol import Ask

AT_THE_DOOR = {  # every code but 1000 is a failure, msg says why
    "PRICE_CHANGED": (2400, "商品价格高于安全价"),
    "PRODUCT_OFF_SHELF": (2404, "商品已下架"),
    "STOCK_EMPTY": (2400, "商品库存不足"),
    "BALANCE_NOT_ENOUGH": (2400, "账户余额不足"),
    "PARAM_INVALID": (2400, "充值信息错误"),
}
STATUSES = {"PROCESSING": 2, "CONTACT_STAFF": 2, "SUCCESS": 3, "PARTIAL": 5, "FAILED": 4, "REVERSED": 5}
TYPES = {"card": 1, "voucher": 1, "topup": 3}
WINDOW_S = 600
PAGE = 20
SKU, SKU_OF = "RED-1", "6520"
TEMPLATE = [
    {"type": 0, "title": "充值账号", "placeholder": "", "required": 1, "regex": ""},
    {"type": 14, "title": "区服", "placeholder": "", "required": 0, "regex": "", "options": [{"name": "一区", "value": "1"}]},
]


def sign(account: str, secret: str, version: str, timestamp: str, body: bytes) -> str:
    return hashlib.md5(b"".join(part.encode() for part in (account, secret, version, timestamp)) + body).hexdigest()


def encrypt(secret: str, cards: object) -> str:
    """AES/ECB/PKCS7Padding, 256 bits, base64."""
    plain = json.dumps(cards, separators=(",", ":")).encode()
    missing = 16 - len(plain) % 16
    cipher = Cipher(algorithms.AES256(secret.encode()), modes.ECB()).encryptor()
    return base64.b64encode(cipher.update(plain + bytes([missing]) * missing) + cipher.finalize()).decode()


def fine(data: object = None, msg: str = "success") -> Told:
    return told({"code": 1000, "msg": msg, "data": data})


def failed(code: int, msg: str) -> Told:
    return told({"code": code, "msg": msg, "data": None})


class Kayixin(Face):
    habits: ClassVar[Habits] = Habits(calls_back_at_once=True)
    retry_after_s: Sequence[float] = (15.0, 15.0, 30.0, 180.0, 600.0, 1200.0, 1800.0)
    acknowledgement: ClassVar[bytes] = b"ok"

    def paths(self) -> Sequence[Path]:
        calls = {
            "user/getAccount": ("balance", self.account),
            "goods/getList": ("products", self.goods_list),
            "goods/getDetail": ("products", self.goods_detail),
            "order/create": ("place", self.create),
            "order/getDetail": ("query", self.detail),
            "order/refunds": ("other", self.refunds),
        }
        return [Path("POST", f"/api/v3/{name}", *call) for name, call in calls.items()]

    def account_of(self, asked: Asked, accounts: Mapping[str, Account], kind: str) -> Account | Told:
        names = ("x-app-id", "x-version", "x-timestamp", "x-signature")
        number, version, timestamp, signature = (asked.headers.get(name, "") for name in names)
        account = accounts.get(number)
        if account is None or version != "3.0":
            return failed(2401, "客户编号不存在")
        if not timestamp.isdigit() or abs(int(timestamp) - asked.now) > WINDOW_S:
            return failed(2401, "请求已过期")
        if signature != sign(number, account.secret.decode(), version, timestamp, asked.body):
            return failed(2401, "签名错误")
        return account

    async def account(self, counter: Counter, asked: Asked) -> Told:
        return fine({"balance": _money(counter.account.balance)})

    async def create(self, counter: Counter, asked: Asked) -> Told:
        body = asked.json()
        code, sku = str(body["goodsId"]), body.get("sku") or ""
        if (code == SKU_OF) != bool(sku) or (sku and sku != SKU):
            return failed(2404, "商品规格不存在")
        product = counter.account.products.get(code)
        attach = {one["name"]: one["value"] for one in body.get("attach") or ()}
        if product is not None and product.type == "topup" and not attach.get("充值账号"):
            return failed(2400, "请填写充值账号")
        limit = body.get("safePrice")
        ask = Ask(
            reference=body["outerNumber"],
            product_code=code,
            units=int(body["count"]),
            target=attach.get("充值账号", ""),
            face_value=None,
            max_cost=None if limit is None else round(float(limit) * 10_000),
            callback_url=body.get("notifyUrl") or "",
            fields=json.dumps(attach, ensure_ascii=False),
        )
        order, new = await counter.place(ask)
        if order["fail_code"] in AT_THE_DOOR:
            return failed(*AT_THE_DOOR[order["fail_code"]])
        if not new:
            return failed(2400, "采购单号重复")
        return fine({"cards": _cards(order) if order["status"] == "SUCCESS" else [], "orderNumber": _number(order)}, "购买成功")

    async def _find(self, counter: Counter, asked: Asked) -> dict[str, Any] | None:
        body = asked.json()
        if body.get("outerNumber"):
            order = await counter.find(reference=body["outerNumber"])
        else:
            order = await counter.find(number=str(body.get("orderNumber") or "")[8:])
        return None if order is None or order["fail_code"] in AT_THE_DOOR else order

    async def detail(self, counter: Counter, asked: Asked) -> Told:
        order = await self._find(counter, asked)
        return failed(2404, "订单不存在") if order is None else fine({**_row(order), "cards": _cards(order)})

    async def refunds(self, counter: Counter, asked: Asked) -> Told:
        order = await self._find(counter, asked)
        if order is None:
            return failed(2404, "订单不存在")
        if order["status"] == "SUCCESS":
            return fine({"status": 9})  # for their staff to decide
        if order["status"] != "PROCESSING":
            return failed(2400, "订单状态不允许退款")
        after = await counter.cancel(order["out_order_no"])
        assert after is not None
        return fine({"status": STATUSES[after["status"]]})

    async def goods_list(self, counter: Counter, asked: Asked) -> Told:
        page, rows = int(asked.json().get("page") or 1), [_line(counter, one) for one in counter.products]
        pages = -(-len(rows) // PAGE)
        # as titled: allCount 总页数, allPage 总条数
        return fine({"allCount": pages, "allPage": len(rows), "items": rows[(page - 1) * PAGE : page * PAGE]})

    async def goods_detail(self, counter: Counter, asked: Asked) -> Told:
        product = counter.account.products.get(str(asked.json().get("goodsId")))
        if product is None:
            return failed(2404, "商品不存在")
        stock = counter.stock_of(product)
        found = {**_line(counter, product), "minQuantity": 1, "maxQuantity": 10, "stockCount": stock or 0}
        found["rechargeTemplates"] = TEMPLATE if product.type == "topup" else []
        if product.code == SKU_OF:
            names = [{"title": "颜色", "value": "红"}]
            one = {"names": names, "status": 1, "sku": SKU, "money": _money(counter.cost_of(product)), "count": stock or 0}
            found["goodsSku"] = {"typeNames": [], "details": [one]}
        return fine(found)

    def write(self, letter: Letter, now: float, *, forged: bool) -> Written:
        order, account = {**letter.view, **letter.more}, letter.account
        secret, cards = account.secret.decode(), _cards({**letter.view, **letter.more})
        body = json.dumps({**_row(order), "cards": encrypt(secret, cards) if cards else ""}, ensure_ascii=False).encode()
        timestamp = str(int(now))
        headers = {
            "content-type": "application/json",
            "X-APP-ID": account.app_key,
            "X-Version": "3.0",
            "X-Timestamp": timestamp,
            "X-Signature": sign(account.app_key, "f" * 32 if forged else secret, "3.0", timestamp, body),
        }
        return Written(body, headers)


def _money(amount: int) -> float:
    return amount / 10_000


def _number(order: Mapping[str, Any]) -> str:
    return f"20261123{order['id']:09d}"


def _cards(order: Mapping[str, Any]) -> list[dict[str, Any]]:
    gone = 2 if order["status"] == "REVERSED" else 0
    return [
        {"cardId": f"{order['id']}-{place}", "cardNo": card["code"], "cardPwd": card["pin"], "cancelRequest": 1, "status": gone}
        for place, card in enumerate(order.get("cards", ()))
    ]


def _row(order: Mapping[str, Any]) -> dict[str, Any]:
    status, whole = STATUSES[order["status"]], order["unit_cost"] * order["units"]
    back = {4: whole, 5: whole if order["status"] == "REVERSED" else whole - order["unit_cost"] * order["delivered_units"]}.get(status, 0)
    return {
        "orderNumber": _number(order),
        "outerNumber": order["out_order_no"],
        "status": status,
        "count": order["units"],
        "money": _money(whole),
        "retMoney": _money(back),
        "result": "充值成功！" if status == 3 else "",
        "startCount": "",
        "nowCount": "",
        "endCount": "",
    }


def _line(counter: Counter, product: Product) -> dict[str, Any]:
    return {
        "goodsId": int(product.code),
        "name": product.name,
        "faceValue": 100,
        "salesPrice": _money(counter.cost_of(product)),
        "goodsType": TYPES[product.type],
        "warrantyDays": 0,
        "warrantyTime": 0,
        "warrantyUnit": 0,
        "status": 1 if product.on_sale else 2,
        "multiple": 2 if product.code == "6521" else 1,
        "isRepeat": 1,
        "isRefOrder": 1,
        "isRefMoney": 1,
        "skuType": 1 if product.code == SKU_OF else 0,
        "imgUrl": "",
    }


TWIN = Twin(
    name="kayixin",
    face=Kayixin(),
    settings=lambda url, key, secret: {"base_url": url, "app_id": key, "app_secret": secret},
    products=(
        Product(code="6518", name="话费100元", cost="97.5", stock=100_000),
        Product(code="6519", name="点卡100元", type="card", cost="95.5", stock=100_000),
        *(Product(code=str(7000 + number), name=f"会员 {number}", cost="1.5", stock=5) for number in range(40)),
    ),
    goods=Goods(topup="6518", card="6519"),
)
