"""优卡云 as two public clients show it: multipart forms, MD5 with the key right behind the sorted fields, no callback anybody has seen.

No document of the vendor was found. What those leave open is settled on the strict side: a number is used once, empty values would be signed,
and what is refused at once is no order.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Final

from tests.suppliers.twins import Goods, Twin

from kameng_api.kit.money import format_amount, parse_amount
from kameng_api.simulator.accounts import Account
from kameng_api.simulator.books import Letter
from kameng_api.simulator.clock import Written
from kameng_api.simulator.config import Product
from kameng_api.simulator.face import Asked, Counter, Face, Path, Told, told
from kameng_api.simulator.protocol import Ask

# Codes other than 1000 are invented: no source names one. Whoever believed one would be found out.
AT_ONCE: Final[Mapping[str, tuple[int, str]]] = {
    "PRODUCT_OFF_SHELF": (1101, "商品不存在"),
    "BALANCE_NOT_ENOUGH": (1102, "余额不足"),
    "STOCK_EMPTY": (1103, "库存不足"),
    "PRICE_CHANGED": (1104, "超过最高进价"),
    "PARAM_INVALID": (1105, "参数错误"),
}
STATES: Final = {"SUCCESS": 3, "FAILED": 5, "REVERSED": 5, "CONTACT_STAFF": 4}
_PART: Final = re.compile(rb'Content-Disposition: form-data; name="([^"]+)"\r\n\r\n(.*)\Z', re.DOTALL)


def sign(fields: Mapping[str, str], key: str) -> str:
    text = "&".join(f"{name}={fields[name]}" for name in sorted(fields) if name != "sign")
    return hashlib.md5((text + key).encode()).hexdigest()


def parts(asked: Asked) -> dict[str, str]:
    """The fields of a multipart body, by its boundary; nothing where it is none."""
    kind, _, boundary = asked.headers.get("content-type", "").partition("boundary=")
    if not kind.startswith("multipart/form-data") or not boundary:
        return {}
    pieces = (b"\r\n" + asked.body).split(b"\r\n--" + boundary.encode())
    found = (_PART.search(piece) for piece in pieces)
    return {match[1].decode(): match[2].decode() for match in found if match}


def said(code: int, message: str, inner: object = None) -> Told:
    return told({"code": code, "msg": message, "data": inner})


class Youka(Face):
    def __init__(self) -> None:
        self.turned_away: set[str] = set()

    def paths(self) -> Sequence[Path]:
        return (
            Path("POST", "/api/buygoods", "place", self.buy),
            Path("POST", "/api/queryorder", "query", self.query),
            Path("POST", "/api/getusermoney", "balance", self.balance),
            Path("POST", "/api/goodsdetails", "products", self.details),
        )

    def account_of(self, asked: Asked, accounts: Mapping[str, Account], kind: str) -> Account | Told:
        fields = parts(asked)
        account = accounts.get(fields.get("userid", ""))
        if account is None or fields.get("sign") != sign(fields, account.secret.decode()):
            return said(1001, "签名错误")
        return account

    async def buy(self, counter: Counter, asked: Asked) -> Told:
        fields = parts(asked)
        number = fields.get("outorderno", "")
        if not number or not fields.get("quantity", "").isdigit():
            return said(*AT_ONCE["PARAM_INVALID"])
        if await counter.is_known(number) and number not in self.turned_away:
            return said(1106, "外部订单号重复")
        ask = Ask(
            reference=number,
            product_code=fields.get("goodsid", ""),
            units=int(fields["quantity"]),
            target=fields.get("accountname", ""),
            face_value=None,
            max_cost=parse_amount(fields["maxmoney"]) if fields.get("maxmoney") else None,
            callback_url="",
            fields="",
        )
        order, new = await counter.place(ask)
        if not new:
            return said(1106, "外部订单号重复")
        if order["fail_code"] in AT_ONCE:
            self.turned_away.add(number)
            return said(*AT_ONCE[order["fail_code"]])
        return said(1000, "ok", {"ordersn": order["order_no"], "outorderno": number})

    async def query(self, counter: Counter, asked: Asked) -> Told:
        fields = parts(asked)
        number = fields.get("outer_order_id", "")
        order = None if number in self.turned_away else await counter.find(reference=number)
        if order is None or fields.get("orderno", order["order_no"]) != order["order_no"]:
            return said(1107, "订单不存在")
        state = STATES.get(order["status"], 2)
        receipt = order["receipt"] if state == 3 else ""
        return said(1000, "ok", {"ordersn": order["order_no"], "outer_order_no": number, "status": state, "result": receipt})

    async def balance(self, counter: Counter, asked: Asked) -> Told:
        return said(1000, "ok", {"money": format_amount(counter.account.balance)})

    async def details(self, counter: Counter, asked: Asked) -> Told:
        product = counter.account.products.get(parts(asked).get("goodsid", ""))
        if product is None or not product.on_sale:
            return said(*AT_ONCE["PRODUCT_OFF_SHELF"])
        return said(1000, "ok", {"id": int(product.code), "goods_name": product.name, "goods_price": format_amount(counter.cost_of(product))})

    def write(self, letter: Letter, now: float, *, forged: bool) -> Written:
        raise AssertionError("no address was given to call back")

    def busy(self, kind: str) -> Told:
        return said(1099, "请求过于频繁")


TWIN: Final = Twin(
    name="youka",
    reversed_is_failed=True,
    face=Youka(),
    settings=lambda url, key, secret: {"base_url": url, "user_id": key, "key": secret},
    products=(Product(code="10086", name="视频会员 月卡", cost="16.80"), Product(code="10087", name="音乐会员 月卡", cost="9.50")),
    goods=Goods(topup="10086"),
    most_units=1,
)
