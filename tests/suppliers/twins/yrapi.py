"""大猿人 `yrapi` as its documents describe it (showdoc.com.cn/dyr, server source of 2024-06-04): a form protocol that answers in errno."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar
from urllib.parse import quote_plus, unquote_plus, urlencode

from tests.suppliers.twins import Goods, Twin

from kameng_api.kit.money import format_amount, parse_amount
from kameng_api.simulator.accounts import Account
from kameng_api.simulator.books import Habits, Letter
from kameng_api.simulator.clock import Written
from kameng_api.simulator.config import Product
from kameng_api.simulator.face import Asked, Counter, Face, Path, Told, told
from kameng_api.simulator.protocol import Ask

DUPLICATE = "已经存在相同商户订单号的订单"
AT_THE_DOOR = {  # said before an order is written: afterwards there is none
    "PRODUCT_OFF_SHELF": "未找到相关产品(产品ID不正确或已下架)",
    "PRICE_CHANGED": "成本限制，提单不通过！",
    "TARGET_BLACKLISTED": "该号码无法充值-黑名单",
    "TARGET_NOT_EXIST": "手机号格式不正确",
    "PARAM_INVALID": "要充值的产品还没有准备好，请联系平台！",
}
STATES = {"SUCCESS": 1, "PARTIAL": 3, "FAILED": 2, "REVERSED": 2}  # whatever else there is shows as 0


def sign(params: Mapping[str, str], key: str) -> str:
    """As the PHP server does: ksort, http_build_query, the key behind it, urldecode of the whole, MD5, upper case."""
    query = "&".join(f"{quote_plus(name)}={quote_plus(params[name])}" for name in sorted(params) if name != "sign")
    return hashlib.md5(unquote_plus(f"{query}&apikey={key}").encode()).hexdigest().upper()


def djson(errno: int, errmsg: str, data: object = "") -> Told:
    return told({"errno": errno, "errmsg": errmsg, "data": data})


def _sells_cards_to(order: Mapping[str, Any]) -> bool:
    """Some shops put a card into `charge_kami`, others a proof of the top-up into `voucher`: here the account says which."""
    return str(order["target"]).startswith("card")


class Yrapi(Face):
    """`cancelled` and `turned_away` say why an order of the books is none, or another one, to the vendor."""

    habits: ClassVar[Habits] = Habits(calls_back_at_once=True, calls_back_early=True)

    def __init__(self) -> None:
        self.cancelled: set[str] = set()
        self.again: dict[str, list[str]] = {}
        self.turned_away: set[str] = set()

    def paths(self) -> Sequence[Path]:
        calls = {
            "recharge": ("place", self.recharge),
            "check": ("query", self.check),
            "user": ("balance", self.user),
            "product": ("products", self.product),
            "typecate": ("products", self.typecate),
            "remove": ("other", self.remove),
        }
        return [Path("POST", f"/yrapi.php/index/{name}", *call) for name, call in calls.items()]

    def account_of(self, asked: Asked, accounts: Mapping[str, Account], kind: str) -> Account | Told:
        params = asked.form()
        if "userid" not in params or "sign" not in params:
            return djson(1, "参数错误或请求方式错误，请使用http-post表单")
        account = accounts.get(params["userid"])
        if account is None:
            return djson(1, "未开通的商户ID,请联系客服开通")
        if params["sign"] != sign(params, account.secret.decode()):
            return djson(1, "签名错误")
        return account

    async def recharge(self, counter: Counter, asked: Asked) -> Told:
        params = {name: value.strip() for name, value in asked.form().items()}
        number = params.get("out_trade_num", "")
        known = number not in self.turned_away and await counter.is_known(number)
        if known and number not in self.cancelled:
            return djson(1, DUPLICATE)
        product = counter.account.products.get(params.get("product_id", ""))
        amount, digits = params.get("amount", ""), re.sub(r"\D", "", product.name) if product else ""
        if amount and digits and float(amount) != float(digits):
            return djson(1, "面值检测不相同，提单不通过！")
        ask = Ask(
            reference=number,
            product_code=params.get("product_id", ""),
            units=1,
            target=params.get("mobile", ""),
            face_value=None,
            max_cost=parse_amount(params["price"]) if params.get("price") else None,
            callback_url=params.get("notify_url", ""),
            fields="",
        )
        # select, then insert: nothing holds two requests apart that come at once
        order, _ = await counter.place(ask, always_new=True)
        if order["fail_code"] in AT_THE_DOOR:
            self.turned_away.add(number)
            return djson(1, AT_THE_DOOR[order["fail_code"]])
        if order["fail_code"] == "BALANCE_NOT_ENOUGH":
            self.cancelled.add(number)
        if known:
            self.again.setdefault(number, []).append(order["order_no"])
        entered = {
            "id": order["id"],
            "order_number": _number(order),
            "mobile": order["target"],
            "product_id": order["product_code"],
            "total_price": format_amount(order["unit_cost"]),
            "create_time": int(order["created_at"]),
            "guishu": "",
            "title": product.name if product else "",
            "out_trade_num": number,
        }
        return djson(0, "提交成功", entered)

    async def check(self, counter: Counter, asked: Asked) -> Told:
        rows = []
        for number in asked.form().get("out_trade_nums", "").split(","):
            found = [await counter.find(reference=number)]
            found += [await counter.find(number=one) for one in self.again.get(number, ())]
            rows += [self._row(order, first=place == 0) for place, order in enumerate(found) if order is not None and not _was_turned_away(order)]
        return djson(0, "ok", rows)

    def _row(self, order: Mapping[str, Any], *, first: bool) -> dict[str, Any]:
        state = self._state(order, first=first)
        return {
            "id": order["id"],
            "order_number": _number(order),
            "status": {0: 3, 1: 4, 2: 6, 3: 12, -1: 7}[state],
            "out_trade_num": order["out_order_no"],
            "create_time": int(order["created_at"]),
            "mobile": order["target"],
            "product_id": order["product_code"],
            "charge_amount": "100.00" if state == 1 else "0.00",
            "charge_kami": order["receipt"] if _sells_cards_to(order) else "",
            "isp": "移动",
            "product_name": "",
            "finish_time": int(order["finished_at"] or 0),
            "remark": "",
            "state": state,
            "voucher": "" if _sells_cards_to(order) else order["receipt"],
        }

    def _state(self, order: Mapping[str, Any], *, first: bool = True) -> int:
        if order["fail_code"] == "BALANCE_NOT_ENOUGH":
            return -1  # entered, and cancelled when the job could not charge it
        if order["status"] == "FAILED" and first and order["out_order_no"] in self.cancelled:
            return -1
        return STATES.get(order["status"], 0)

    async def remove(self, counter: Counter, asked: Asked) -> Told:
        number = asked.form().get("out_trade_nums", "")
        order = await counter.find(reference=number)
        if order is None or order["status"] != "PROCESSING":
            return djson(1, "失败", "未找到该订单号")
        self.cancelled.add(number)
        await counter.cancel(number)
        return djson(0, "申请成功", [{"out_trade_num": number, "mobile": order["target"], "status": 0}])

    async def user(self, counter: Counter, asked: Asked) -> Told:
        account = counter.account
        return djson(0, "ok", {"id": account.app_key, "username": account.name, "balance": format_amount(account.balance)})

    async def typecate(self, counter: Counter, asked: Asked) -> Told:
        return djson(0, "ok", [{"id": 1, "type_name": "手机充值", "cate": [{"id": 3, "cate": "话费快充", "type": 1}]}])

    async def product(self, counter: Counter, asked: Asked) -> Told:
        lines = [
            {
                "id": product.code,
                "name": product.name,
                "desc": "",
                "api_open": 1,
                "isp": "1,2,3",
                "ys_tag": "",
                "price": format_amount(counter.cost_of(product)),
                "y_price": 100,
                "max_price": "0.000",
                "type": 1,
            }
            for product in counter.products
            if product.on_sale
        ]
        return djson(0, "ok", [{"id": 3, "cate": "话费快充", "sort": 1, "type": 1, "products": lines}])

    def write(self, letter: Letter, now: float, *, forged: bool) -> Written:
        order = {**letter.view, **letter.more}
        state = self._state(order)
        params = {
            "userid": letter.account.app_key,
            "order_number": _number(order),
            "out_trade_num": order["out_order_no"],
            "otime": str(int(now)),
            "state": str(state),
            "mobile": order["target"],
            "remark": "",
            "charge_amount": "100.00" if state == 1 else "0.00",
            "voucher": "" if _sells_cards_to(order) else order["receipt"],
            "charge_kami": order["receipt"] if _sells_cards_to(order) else "",
        }
        params["sign"] = sign(params, "not the key" if forged else letter.account.secret.decode())
        return Written(urlencode(params).encode(), {"content-type": "application/x-www-form-urlencoded"})


def _number(order: Mapping[str, Any]) -> str:
    return f"CZH{order['id']:010d}"


def _was_turned_away(order: Mapping[str, Any]) -> bool:
    return order["status"] == "FAILED" and order["fail_code"] in AT_THE_DOOR


TWIN = Twin(
    name="yrapi",
    reversed_is_failed=True,
    face=Yrapi(),
    settings=lambda url, key, secret: {"base_url": url, "userid": key, "apikey": secret},
    products=(Product(code="8", name="移动100元", cost="97.5"), Product(code="9", name="移动50元", cost="48.75")),
    goods=Goods(topup="8"),
    most_units=1,
    secret="a key with 100%41+ in it",
)
