"""鼎信橙券 as its public PHP SDK and the open system xiyiyun show it: JSON, upper-case MD5, one state word per order.

No document of the vendor was found. What those leave open is settled on the strict side: a number is used once, and what is refused at once is
no order.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

import orjson
from tests.suppliers.twins import Goods, Twin

from kameng_api.kit.money import format_amount
from kameng_api.simulator.accounts import Account
from kameng_api.simulator.books import Letter
from kameng_api.simulator.clock import Written
from kameng_api.simulator.config import Product
from kameng_api.simulator.face import Asked, Counter, Face, Path, Told, told
from kameng_api.simulator.protocol import Ask

# Codes other than 7000 are invented: no source names one. Whoever believed one would be found out.
AT_ONCE: Final[Mapping[str, tuple[int, str]]] = {
    "PRODUCT_OFF_SHELF": (7101, "商品不存在或已下架"),
    "BALANCE_NOT_ENOUGH": (7102, "账户余额不足"),
    "STOCK_EMPTY": (7103, "库存不足"),
    "PARAM_INVALID": (7104, "参数错误"),
}
STATES: Final = {"SUCCESS": "SUCCESS", "FAILED": "FAILURE", "REVERSED": "FAILURE", "CONTACT_STAFF": "ABNORMAL"}


def sign(fields: Mapping[str, Any], key: str) -> str:
    """Non-empty, sorted, `k=v` joined by `&`, `&key=KEY`, MD5, upper case."""
    kept = sorted((name, str(value)) for name, value in fields.items() if name != "sign" and value is not None and str(value).strip())
    return hashlib.md5(("&".join(f"{name}={value}" for name, value in kept) + f"&key={key}").encode()).hexdigest().upper()


def said(code: int, message: str, inner: object = None) -> Told:
    return told({"code": code, "message": message, "data": inner})


class Chengquan(Face):
    acknowledgement: ClassVar[bytes] = b"OK"

    def __init__(self) -> None:
        self.turned_away: set[str] = set()

    def paths(self) -> Sequence[Path]:
        return (
            Path("POST", "/order/directCharge", "place", self.direct_charge),
            Path("POST", "/order/get", "query", self.get),
            Path("POST", "/user/balance/get", "balance", self.balance),
        )

    def account_of(self, asked: Asked, accounts: Mapping[str, Account], kind: str) -> Account | Told:
        body = asked.json()
        if not isinstance(body, dict):
            return said(7001, "参数错误")
        account = accounts.get(str(body.get("app_id", "")))
        if account is None or body.get("sign") != sign(body, account.secret.decode()):
            return said(7002, "签名错误")
        if not str(body.get("timestamp", "")).isdigit() or len(str(body["timestamp"])) != 13:
            return said(7001, "参数错误")
        return account

    async def direct_charge(self, counter: Counter, asked: Asked) -> Told:
        body = asked.json()
        number = str(body.get("order_no", ""))
        if not number or not body.get("recharge_number") or not body.get("version"):
            return said(7001, "参数错误")
        if await counter.is_known(number) and number not in self.turned_away:
            return said(7105, "订单号重复")
        ask = Ask(
            reference=number,
            product_code=str(body.get("product_id", "")),
            units=int(body.get("amount", 1)),
            target=str(body["recharge_number"]),
            face_value=None,
            max_cost=None,
            callback_url=str(body.get("notify_url", "")),
            fields="",
        )
        order, new = await counter.place(ask)
        if not new:
            return said(7105, "订单号重复")
        if order["fail_code"] in AT_ONCE:
            self.turned_away.add(number)
            return said(*AT_ONCE[order["fail_code"]])
        return said(7000, "OK", described(order))

    async def get(self, counter: Counter, asked: Asked) -> Told:
        number = str(asked.json().get("order_no", ""))
        order = None if number in self.turned_away else await counter.find(reference=number)
        if order is None:
            return said(7106, "订单不存在")
        return said(7000, "OK", described(order))

    async def balance(self, counter: Counter, asked: Asked) -> Told:
        return said(7000, "OK", {"balance": format_amount(counter.account.balance)})

    def write(self, letter: Letter, now: float, *, forged: bool) -> Written:
        order = {**letter.more, **letter.view}
        fields = {"app_id": letter.account.app_key, **described(order), "message": "", "timestamp": str(int(now * 1000))}
        fields["sign"] = sign(fields, "not the key" if forged else letter.account.secret.decode())
        return Written(orjson.dumps(fields), {"content-type": "application/json"})

    def busy(self, kind: str) -> Told:
        return said(7099, "请求过于频繁")


def described(order: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "order_no": order["out_order_no"],
        "cq_order_no": f"CQ{order['id']:010d}",
        "status": STATES.get(order["status"], "RECHARGE"),
        "amount": format_amount(order["unit_cost"]),
    }


TWIN: Final = Twin(
    name="chengquan",
    reversed_is_failed=True,
    face=Chengquan(),
    settings=lambda url, key, secret: {"base_url": url, "app_id": key, "key": secret},
    products=(Product(code="31", name="视频会员 月卡", cost="16.80"), Product(code="32", name="音乐会员 月卡", cost="9.50")),
    goods=Goods(topup="31"),
    most_units=1,
)
