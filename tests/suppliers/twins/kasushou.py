"""卡速售 2.0 as doc.kasushou.com/api/v2api describes it (copy of 2026-04-14): signed JSON, lists, and refunds as a number."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any, ClassVar
from urllib.parse import urlencode

from tests.suppliers.twins import Goods, Twin

from kameng_api.kit.money import format_amount, parse_amount
from kameng_api.simulator.accounts import Account
from kameng_api.simulator.books import Habits, Letter
from kameng_api.simulator.clock import Written
from kameng_api.simulator.config import Product
from kameng_api.simulator.face import Asked, Counter, Face, Path, Told, told
from kameng_api.simulator.protocol import Ask

AT_THE_DOOR = {  # refused before there is an order
    "PRODUCT_OFF_SHELF": "商品已下架",
    "STOCK_EMPTY": "商品库存不足",
    "BALANCE_NOT_ENOUGH": "余额不足",
    "PRICE_CHANGED": "商品售价高于安全价格",
    "PARAM_INVALID": "下单参数错误",
}
STATUSES = {"PROCESSING": 2, "CONTACT_STAFF": 2, "SUCCESS": 3, "PARTIAL": 3, "FAILED": 4, "REVERSED": 5}
TYPES = {"card": 1, "voucher": 1, "topup": 2}
CHINA = timezone(timedelta(hours=8))
TEMPLATE = [
    {"key": "recharge_account", "type": "text", "tip": "请填写充值账号", "name": "充值账号"},
    {"key": "lblName1", "type": "select", "tip": "", "name": "区服", "options": '["一区","二区"]'},
]


def php_json(value: object, *, slashes: bool) -> str:
    """`json_encode` with Unicode unescaped; an array without keys is a list to PHP, also where the request had an empty object."""
    if isinstance(value, dict):
        pairs = [f"{php_json(str(name), slashes=slashes)}:{php_json(one, slashes=slashes)}" for name, one in value.items()]
        return "{" + ",".join(pairs) + "}" if pairs else "[]"
    if isinstance(value, list):
        return "[" + ",".join(php_json(one, slashes=slashes) for one in value) + "]"
    written = json.dumps(value, ensure_ascii=False).replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    return written.replace("/", "\\/") if slashes and isinstance(value, str) else written


def sha1(*parts: str) -> str:
    return hashlib.sha1("".join(parts).encode()).hexdigest()


def callback_sign(fields: Mapping[str, str], key: str) -> str:
    """`unset` of sign, card_list and express_list, ksort, json_encode(…, 256): slashes are escaped here."""
    signed = {name: fields[name] for name in sorted(fields) if name not in ("sign", "card_list", "express_list")}
    return sha1(fields["time"], php_json(signed, slashes=True), key)


def hint_sign(fields: Mapping[str, str], key: str) -> str:
    """The push of a changed product: id and time alone."""
    return sha1(fields["time"], php_json({"id": fields["id"], "time": fields["time"]}, slashes=True), key)


def fine(data: object = None) -> Told:
    return told({"code": 200, "msg": "成功", "data": data})


def failed(msg: str, code: int = 400) -> Told:
    return told({"code": code, "msg": msg, "data": []})


class Kasushou(Face):
    """`seen` are the prices as of the last look into the price log."""

    habits: ClassVar[Habits] = Habits(calls_back_at_once=True)
    retry_after_s: Sequence[float] = (300.0, 600.0, 900.0, 1200.0, 1500.0)
    acknowledgement: ClassVar[bytes] = b"ok"

    def __init__(self) -> None:
        self.seen: dict[str, int] = {}
        self.log: list[dict[str, Any]] = []

    def paths(self) -> Sequence[Path]:
        calls = {
            "user/info": ("balance", self.user),
            "goods/list": ("products", self.goods_list),
            "goods/info": ("products", self.goods_info),
            "goods/pricelog": ("products", self.price_log),
            "order/buy": ("place", self.buy),
            "order/info": ("query", self.look_up),
            "order/close": ("other", self.close),
        }
        return [Path("POST", f"/api/v1/{name}", *call) for name, call in calls.items()]

    def account_of(self, asked: Asked, accounts: Mapping[str, Account], kind: str) -> Account | Told:
        account, time_ms, body = accounts.get(asked.headers.get("userid", "")), asked.headers.get("timestamp", ""), asked.json()
        if account is None or not (len(time_ms) == 13 and time_ms.isdigit()) or not isinstance(body, dict):
            return failed("用户不存在或参数错误")
        text = php_json({name: body[name] for name in sorted(body)}, slashes=False) if body else "{}"
        if asked.headers.get("sign") != sha1(time_ms, text, account.secret.decode()):
            return failed("签名错误")
        return account

    async def user(self, counter: Counter, asked: Asked) -> Told:
        return fine({"balance": format_amount(counter.account.balance)})

    async def buy(self, counter: Counter, asked: Asked) -> Told:
        body = asked.json()
        product = counter.account.products.get(str(body["id"]))
        attach, units = body.get("attach") or {}, int(body["quantity"])
        limit = body.get("safe_price")
        if product is not None and product.type == "topup" and not attach.get("recharge_account"):
            return failed("请填写充值账号")
        ask = Ask(
            reference=body["external_orderno"],
            product_code=str(body["id"]),
            units=units,
            target=attach.get("recharge_account", ""),
            face_value=None,
            max_cost=parse_amount(limit) * units if limit else None,
            callback_url=body.get("url", ""),
            fields=json.dumps(attach, ensure_ascii=False),
        )
        order, new = await counter.place(ask)
        if order["fail_code"] in AT_THE_DOOR:
            return failed(AT_THE_DOOR[order["fail_code"]])
        if not new:
            return failed("外部订单号重复，请勿重复提交")
        taken = {"ordersn": _number(order), "external_orderno": ask.reference, "total_price": _total(order)}
        return told({"code": 200, "msg": "下单成功", "data": taken})

    async def look_up(self, counter: Counter, asked: Asked) -> Told:
        body = asked.json()
        found = [await counter.find(reference=one) for one in str(body.get("external_orderno") or "").split(",") if one]
        found += [await counter.find(number=one.lstrip("D")) for one in str(body.get("ordersn") or "").split(",") if one]
        return fine([_row(order) for order in found if order is not None and order["fail_code"] not in AT_THE_DOOR])

    async def close(self, counter: Counter, asked: Asked) -> Told:
        order = await counter.find(number=str(asked.json().get("ordersn", "")).lstrip("D"))
        if order is None or order["status"] != "PROCESSING":
            return failed("订单当前状态不支持撤单")
        await counter.cancel(order["out_order_no"])
        return told({"code": 200, "msg": "撤单成功"})

    async def goods_list(self, counter: Counter, asked: Asked) -> Told:
        return fine(_page(asked.json(), [_line(counter, one) for one in counter.products]))

    async def goods_info(self, counter: Counter, asked: Asked) -> Told:
        product = counter.account.products.get(str(asked.json().get("id")))
        if product is None:
            return failed("商品不存在")
        more = {"goods_info": "", "goods_notice": "", "start_count": 1, "end_count": 10, "attach": TEMPLATE if product.type == "topup" else []}
        return fine({**_line(counter, product), **more})

    async def price_log(self, counter: Counter, asked: Asked) -> Told:
        at = datetime.fromtimestamp(counter.now, CHINA).strftime("%Y-%m-%d %H:%M:%S")
        for product in counter.products:
            cost = counter.cost_of(product)
            before = self.seen.setdefault(product.code, cost)
            if before != cost:
                entry = {"create_time": at, "price": format_amount(cost), "price1": format_amount(before), "goods_id": int(product.code), "status": 1}
                self.log.insert(0, entry)
            self.seen[product.code] = cost
        return fine(_page(asked.json(), self.log))

    def write(self, letter: Letter, now: float, *, forged: bool) -> Written:
        """Every other call as a form: the document shows PHP's `$post` and no content type."""
        row = _row({**letter.view, **letter.more})
        names = ("external_orderno", "ordersn", "status", "has_back_money", "total_price", "recharge_hints")
        fields = {**{name: str(row[name]) for name in names}, "time": str(int(now * 1000))}
        fields["sign"] = callback_sign(fields, "not the key" if forged else letter.account.secret.decode())
        cards = row["card_list"]
        if letter.more["id"] % 2:
            with_cards = {**fields, "card_list": json.dumps(cards)} if cards else fields
            return Written(urlencode(with_cards).encode(), {"content-type": "application/x-www-form-urlencoded"})
        text = json.dumps({**fields, "card_list": cards} if cards else fields, ensure_ascii=False)
        return Written(text.encode(), {"content-type": "application/json"})


def _page(body: Mapping[str, Any], rows: Sequence[object]) -> dict[str, Any]:
    limit, page = min(int(body.get("limit") or 100), 100), int(body.get("page") or 1)
    return {"list": rows[(page - 1) * limit : page * limit], "total": len(rows)}


def _number(order: Mapping[str, Any]) -> str:
    return f"D{order['id']:021d}"


def _total(order: Mapping[str, Any]) -> str:
    return format_amount(order["unit_cost"] * order["units"])


def _row(order: Mapping[str, Any]) -> dict[str, Any]:
    status = STATUSES[order["status"]]
    kept = order["delivered_units"] if status == 3 else 0 if status in (4, 5) else order["units"]
    attach = {"recharge_account": order["target"]} if order["product_type"] == "topup" else {}
    return {
        "ordersn": _number(order),
        "external_orderno": order["out_order_no"],
        "recharge_info": [{"n": name, "v": value, "k": name} for name, value in attach.items()],
        "recharge_hints": "订单处理完成" if status == 3 else "订单已取消，资金已退回商城余额！ http://ks.example.com/a" if status > 3 else "",
        "status": status,
        "total_price": _total(order),
        "has_back_money": format_amount(order["unit_cost"] * (order["units"] - kept)),
        "card_list": [{"card_no": card["code"], "card_password": card["pin"]} for card in order.get("cards", ())],
    }


def _line(counter: Counter, product: Product) -> dict[str, Any]:
    return {
        "id": int(product.code),
        "goods_name": product.name,
        "goods_img": "",
        "goods_type": TYPES[product.type],
        "face_value": "100.00",
        "goods_price": format_amount(counter.cost_of(product)),
        "status": 1 if product.on_sale else 2,
        "stock_num": counter.stock_of(product) or 0,
        "can_buy": "",
        "can_no_buy": "",
        "can_price": "0.00",
        "need_balance": "0",
    }


TWIN = Twin(
    name="kasushou",
    reversed_is_failed=True,
    face=Kasushou(),
    settings=lambda url, key, secret: {"base_url": url, "user_id": key, "apikey": secret},
    products=(
        Product(code="2909", name="话费100元", cost="97.5", stock=100_000),
        Product(code="2910", name="点卡100元", type="card", cost="95.5", stock=100_000),
        *(Product(code=str(3000 + number), name=f"会员 {number}", cost="1.5", stock=5) for number in range(150)),
    ),
    goods=Goods(topup="2909", card="2910"),
    most_units=1,
)
