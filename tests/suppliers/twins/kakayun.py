"""A 卡卡云 site, from the vendor's document (showdoc 2592446100589081, copy of 2026-04-14) alone."""

import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
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

BEFORE_AN_ORDER: Final = {
    "PRODUCT_OFF_SHELF": (1206, "商品不存在或者已下架"),
    "PARAM_INVALID": (1211, "充值字段错误"),
    "BALANCE_NOT_ENOUGH": (1213, "用户余额不足"),
    "PRICE_CHANGED": (1210, "存在亏本"),
    "STOCK_EMPTY": (-1, "其他错误"),  # the table has no code for it
}
MISSING: Final = {"sign": 1200, "userid": 1201, "timestamp": 1202}
STATUSES: Final = {"PROCESSING": 3, "CONTACT_STAFF": 1, "SUCCESS": 5, "PARTIAL": 5, "REVERSED": 5, "FAILED": 4}


def getKkySign(params: Mapping[str, Any], token: bytes) -> str:
    """ksort, skip '' and null and sign, booleans as words, arrays as JSON with JSON_UNESCAPED_UNICODE | JSON_UNESCAPED_SLASHES."""
    text = ""
    for key in sorted(params):
        value = params[key]
        if value == "" or value is None or key == "sign":
            continue
        if isinstance(value, bool):
            value = "true" if value else "false"
        if isinstance(value, dict | list):
            value = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        text += ("&" if text else "") + f"{key}={value}"
    return hashlib.md5(text.encode() + token).hexdigest()


def answer(code: int, message: str, data: object = "", **more: object) -> Told:
    return told({"code": code, "msg": message, "data": data, **more})


class KakayunFace(Face):
    """POST with JSON throughout."""

    habits: ClassVar[Habits] = Habits(calls_back_at_once=True)
    retry_after_s = (300.0, 600.0, 900.0, 1200.0, 1500.0)
    acknowledgement: ClassVar[bytes] = b"ok"

    def paths(self) -> Sequence[Path]:
        return (
            Path("POST", "/dockapiv3/user/info", "balance", self.info),
            Path("POST", "/dockapiv3/goods/all", "products", self.all_goods),
            Path("POST", "/dockapiv3/goods/details", "products", self.details),
            Path("POST", "/dockapiv3/goods/tpl", "products", self.template),
            Path("POST", "/dockapiv3/order/create", "place", self.create),
            Path("POST", "/dockapiv3/order/get", "query", self.get),
            Path("POST", "/dockapiv3/order/cancelOrder", "other", self.cancel),
        )

    def account_of(self, asked: Asked, accounts: Mapping[str, Account], kind: str) -> Account | Told:
        params = asked.json() or {}
        for name, code in MISSING.items():
            if not params.get(name):
                return answer(code, f"{name}为空")
        account = accounts.get(str(params["userid"]))
        if account is None:
            return answer(1000, "商户ID无效")
        if abs(int(params["timestamp"]) - asked.now) > 300:
            return answer(403, "时间戳过期")
        if not hmac.compare_digest(getKkySign(params, account.secret), str(params["sign"])):
            return answer(401, "签名效验失败")
        return account

    def busy(self, kind: str) -> Told:
        return answer(404, "请求频繁")

    async def info(self, counter: Counter, asked: Asked) -> Told:
        return answer(1, "查询成功", {"money": format_amount(counter.account.balance), "creditquota": "10000.00"})

    async def all_goods(self, counter: Counter, asked: Asked) -> Told:
        params = asked.json()
        limit, page = min(int(params.get("limit", 10)), 50), int(params.get("page", 1))
        lines = [self._goods(counter, product) for product in counter.products]
        pages = -(-len(lines) // limit)
        return answer(1, "success", lines[(page - 1) * limit : page * limit], nowpage=str(page), allpage=pages, count=len(lines))

    async def details(self, counter: Counter, asked: Asked) -> Told:
        product = counter.account.products.get(str(asked.json().get("goodsid")))
        if product is None:
            return answer(1214, "商品不存在")
        return answer(1, "success", {**self._goods(counter, product), "minbuy": 1, "maxbuy": 5000, "details": ""})

    async def template(self, counter: Counter, asked: Asked) -> Told:
        return answer(1, "接口调用成功", [{"type": 1, "title": "充值帐号", "desc": ""}, {"type": 3, "title": "游戏大区", "desc": ""}])

    def _goods(self, counter: Counter, product: Product) -> dict[str, Any]:
        return {
            "goodsid": int(product.code),
            "goodsname": product.name,
            "goodsprice": format_amount(counter.cost_of(product)),
            "goodsstatus": int(product.on_sale),
            "goodstype": int(product.type == "topup"),
            "stock": counter.stock_of(product),
            "attach": [{"title": "充值帐号", "tip": "", "verification": 1}],
        }

    async def create(self, counter: Counter, asked: Asked) -> Told:
        params = asked.json()
        reference, product = str(params.get("usorderno", "")), counter.account.products.get(str(params.get("goodsid")))
        if await counter.is_known(reference):
            return answer(1205, "用户订单号已存在")
        if not params.get("buynum"):
            return answer(1204, "buynum字段为空")
        if product is None:
            return answer(1206, "商品不存在或者已下架")
        attach = params.get("attach", "")
        account = attach
        if isinstance(attach, list):
            account = next((field["value"] for field in attach if field["attachtype"] == "1"), "")
        if product.type == "topup" and not account:
            return answer(1208, "充值帐号为空")
        ask = Ask(
            reference=reference,
            product_code=product.code,
            units=int(params["buynum"]),
            target=str(account),
            face_value=None,
            max_cost=parse_amount(str(params["maxmoney"])) if params.get("maxmoney") else None,  # 最大进货总金额（非商品单价）
            callback_url=str(params.get("callbackurl", "")),
            fields=orjson.dumps(attach).decode(),
        )
        order, _ = await counter.place(ask)
        if order["status"] == "FAILED" and order["fail_code"] in BEFORE_AN_ORDER:
            return answer(*BEFORE_AN_ORDER[order["fail_code"]])
        return answer(1, "提交成功", {"orderno": f"SD{order['id']:024d}", "usorderno": reference})

    async def get(self, counter: Counter, asked: Asked) -> Told:
        params = asked.json()
        number = str(params.get("orderno", "")).removeprefix("SD")
        if not (params.get("usorderno") or number):
            return answer(1300, "系统单号和商家单号都为空")
        order = await counter.find(reference=str(params["usorderno"])) if params.get("usorderno") else await counter.find(number=str(int(number)))
        if order is None or (order["status"] == "FAILED" and order["fail_code"] in BEFORE_AN_ORDER):
            return answer(1301, "订单不存在")
        return answer(1, "查询成功", {**shown(order), "buynum": order["units"]})

    async def cancel(self, counter: Counter, asked: Asked) -> Told:
        reference = str(asked.json().get("usorderno", ""))
        before = await counter.find(reference=reference)
        if before is None:
            return answer(0, "退款失败:订单不存在")
        if before["status"] != "PROCESSING":
            return answer(0, "退款失败:订单已完成")
        await counter.cancel(reference)
        return answer(1, "退款成功")

    def write(self, letter: Letter, now: float, *, forged: bool) -> Written:
        order = {**letter.view, **letter.more}
        params = {"push_type": int(order["product_type"] != "topup"), **shown(order), "timestamp": int(now)}
        params["sign"] = getKkySign(params, b"not the secret" if forged else letter.account.secret)
        return Written(orjson.dumps(params), JSON)


def shown(order: Mapping[str, Any]) -> dict[str, Any]:
    """What a question and a callback both tell."""
    total = order["unit_cost"] * order["units"]
    back, kind = 0, 0
    if order["status"] in ("FAILED", "REVERSED"):
        back, kind = total, 1
    elif order["status"] == "PARTIAL":
        back, kind = order["unit_cost"] * (order["units"] - order["delivered_units"]), 2
    cards = order.get("cards") or [] if order["status"] in ("SUCCESS", "PARTIAL") else []
    return {
        "orderno": f"SD{order['id']:024d}",
        "usorderno": order["out_order_no"],
        "money": format_amount(total),
        "status": STATUSES[order["status"]],
        "refundmoney": format_amount(back),
        "refundstatus": kind,
        "receipt": order["receipt"],
        "cardlist": [f"卡号：{card['code']}\r" for card in cards],
        "cards": [{"card_no": card["code"], "card_pwd": card["pin"], "card_type": 1, "card_expire_at": 1798646400} for card in cards],
    }


PRODUCTS: Final = (
    Product(code="2478510", name="全国话费 100 元", type="topup", cost="97.50", stock=9999),
    Product(code="2478517", name="游戏点卡 30 元", type="card", cost="28.80", stock=9999),
)
TWIN: Final = Twin(
    name="kakayun",
    face=KakayunFace(),
    settings=lambda url, key, secret: {"base_url": url, "query_url": url, "userid": key, "key": secret, "list_interval_s": 0},
    products=PRODUCTS,
    goods=Goods(topup="2478510", card="2478517"),
    app_key="10052",
    traps={"storm": "how much of a top-up was delivered is never told, and is for a person: test_kakayun.py has the storm without parts"},
)
