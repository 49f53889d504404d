"""蜂助手, from what public clients and servers of its standard open API agree on; the vendor's own document was not found."""

import hashlib
import hmac
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
    "PRODUCT_OFF_SHELF": 2000,
    "TARGET_NOT_EXIST": 3100,
    "TARGET_BLACKLISTED": 3100,
    "TARGET_NOT_ELIGIBLE": 3100,
    "PRICE_CHANGED": 3104,
    "STOCK_EMPTY": 3999,
    "BALANCE_NOT_ENOUGH": 4002,
    "PARAM_INVALID": 400,
}
STATES: Final = {"PROCESSING": 0, "SUCCESS": 1, "FAILED": 9, "REVERSED": 9, "CONTACT_STAFF": 9999, "PARTIAL": 9999}


def signature(key: bytes, params: Mapping[str, Any]) -> str:
    """SHA1 upper of sorted non-blank k=v, then signKey."""
    pairs = sorted((name, value) for name, value in params.items() if name != "sign" and value is not None and str(value).strip())
    text = "".join(f"{name}={value}&" for name, value in pairs)
    return hashlib.sha1(text.encode() + b"signKey=" + key).hexdigest().upper()


def answer(code: int, message: str, data: object = None) -> Told:
    return told({"retcode": code, "msg": message, "data": data if data is not None else {}})


class FengzhushouFace(Face):
    """POST with JSON throughout."""

    habits: ClassVar[Habits] = Habits(calls_back_at_once=True)

    def paths(self) -> Sequence[Path]:
        root = "/fzs-stdopen-api/api/v1"
        return (
            Path("POST", f"{root}/balance", "balance", self.balance),
            Path("POST", f"{root}/sendgoods", "place", self.send_goods),
            Path("POST", f"{root}/queryorder", "query", self.query_order),
        )

    def account_of(self, asked: Asked, accounts: Mapping[str, Account], kind: str) -> Account | Told:
        params = asked.json() or {}
        account = accounts.get(str(params.get("projectCode")))
        fresh = str(params.get("timestamp", "")).isdigit() and abs(int(params["timestamp"]) / 1000 - asked.now) <= 300
        if account is None or not fresh or not hmac.compare_digest(signature(account.secret, params), str(params.get("sign"))):
            return answer(1000, "invalid signature")
        return account

    def broken(self, kind: str) -> Told:
        return answer(9999, "系统内部错误")

    async def balance(self, counter: Counter, asked: Asked) -> Told:
        return answer(0, "ok", {"balance": format_amount(counter.account.balance)})

    async def send_goods(self, counter: Counter, asked: Asked) -> Told:
        params = asked.json()
        reference = str(params.get("channelOrderNo", ""))
        if await counter.is_known(reference):
            return answer(1000, "订单号重复")
        ask = Ask(
            reference=reference,
            product_code=str(params.get("skuCode", "")),
            units=int(params.get("num", 1)),
            target=str(params.get("account", "")),
            face_value=None,
            max_cost=parse_amount(str(params["skuPrice"])) if params.get("skuPrice") else None,
            callback_url=str(params.get("callbackUrl", "")),
            fields=str(params.get("ext", "")),
        )
        order, _ = await counter.place(ask)
        if order["status"] == "FAILED" and order["fail_code"] in BEFORE_AN_ORDER:
            return answer(BEFORE_AN_ORDER[order["fail_code"]], order["fail_code"])
        return answer(0, "ok", {"orderNo": f"FZS{order['id']:012d}", "channelOrderNo": reference})

    async def query_order(self, counter: Counter, asked: Asked) -> Told:
        order = await counter.find(reference=str(asked.json().get("channelOrderNo", "")))
        if order is None or (order["status"] == "FAILED" and order["fail_code"] in BEFORE_AN_ORDER):
            return answer(3000, "订单不存在")
        state = STATES[order["status"]]
        data = {"orderNo": f"FZS{order['id']:012d}", "channelOrderNo": order["out_order_no"], "skuPrice": format_amount(order["unit_cost"])}
        return answer(state, "ok", {**data, "status": state})

    def write(self, letter: Letter, now: float, *, forged: bool) -> Written:
        order = {**letter.view, **letter.more}
        params: dict[str, Any] = {
            "projectCode": letter.account.app_key,
            "orderNo": f"FZS{order['id']:012d}",
            "channelOrderNo": order["out_order_no"],
            "retcode": STATES[order["status"]],
            "msg": "",
            "timestamp": str(int(now * 1000)),
        }
        params["sign"] = signature(b"not the secret" if forged else letter.account.secret, params)
        return Written(orjson.dumps(params), JSON)

    def is_acknowledged(self, status: int, body: bytes) -> bool:
        try:
            return bool(status == 200 and orjson.loads(body) == {"code": "0"})
        except orjson.JSONDecodeError:
            return False


PRODUCTS: Final = (
    Product(code="SKU100", name="全国话费 100 元", type="topup", cost="97.50"),
    Product(code="SKU200", name="游戏点卡 30 元", type="card", cost="28.80"),
)
TWIN: Final = Twin(
    name="fengzhushou",
    reversed_is_failed=True,
    face=FengzhushouFace(),
    settings=lambda url, key, secret: {"base_url": url, "project_code": key, "sign_key": secret},
    products=PRODUCTS,
    goods=Goods(topup="SKU100"),
    app_key="P10001",
    most_units=1,
)
