"""秘史 as clients of its interface show it (recharge-go; clients of the szAgentId interface of 2017 and 2021): fixed-order MD5, answers in nRtn.

No document of the vendor was found. What those clients leave open is settled on the strict side: a number is used once, what is refused at once
is no order, and the price in callbacks is signed as a float with one place.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final
from urllib.parse import urlencode

from tests.suppliers.twins import Goods, Twin

from kameng_api.simulator.accounts import Account
from kameng_api.simulator.books import Letter
from kameng_api.simulator.clock import Written
from kameng_api.simulator.config import Product
from kameng_api.simulator.face import Asked, Counter, Face, Path, Told, told
from kameng_api.simulator.protocol import Ask

AT_ONCE: Final[Mapping[str, tuple[int, str]]] = {
    "TARGET_NOT_EXIST": (2001, "号段错误"),
    "TARGET_BLACKLISTED": (2003, "号码黑名单"),
    "TARGET_NOT_ELIGIBLE": (2002, "运营商错误"),
    "PRODUCT_OFF_SHELF": (2030, "产品没有配置或关闭"),
    "BALANCE_NOT_ENOUGH": (1006, "平台余额不足，请稍后再试！"),
    "PARAM_INVALID": (2050, "下单异常"),
}
SIGNED: Final = ("szAgentId", "szOrderId", "szPhoneNum", "nMoney", "nSortType", "nProductClass", "nProductType", "szTimeStamp")
STATES: Final = {"SUCCESS": (5012, "充值成功"), "FAILED": (5013, "充值失败"), "CONTACT_STAFF": (5019, "对账状态"), "REVERSED": (5013, "充值失败")}


def md5(names: Sequence[str], fields: Mapping[str, str], key: str) -> str:
    text = "&".join([f"{name}={fields.get(name, '')}" for name in names] + [f"szKey={key}"])
    return hashlib.md5(text.encode()).hexdigest()


def said(code: int, message: str, **more: Any) -> Told:
    return told({"nRtn": code, "szRtnCode": message, **more})


class Mishi(Face):
    def __init__(self) -> None:
        self.turned_away: set[str] = set()

    def paths(self) -> Sequence[Path]:
        return (
            Path("POST", "/plat/api/old/submitorder", "place", self.submit),
            Path("POST", "/plat/api/old/queryorder", "query", self.query),
            Path("POST", "/plat/api/old/queryBalance", "balance", self.balance),
        )

    def account_of(self, asked: Asked, accounts: Mapping[str, Account], kind: str) -> Account | Told:
        fields = asked.form()
        account = accounts.get(fields.get("szAgentId", ""))
        if account is None:
            return said(2021, "用户不存在")
        names = {"place": SIGNED, "query": SIGNED[:2], "balance": SIGNED[:1]}[kind]
        if fields.get("szVerifyString") != md5(names, fields, account.secret.decode()):
            return said(1004 if kind == "place" else 5004, "签名错误")
        return account

    async def submit(self, counter: Counter, asked: Asked) -> Told:
        fields = asked.form()
        number = fields["szOrderId"]
        if await counter.is_known(number) and number not in self.turned_away:
            return said(3003, "订单已存在")
        ask = Ask(
            reference=number,
            product_code=f"{fields['nSortType']}-{fields['nMoney']}",
            units=1,
            target=fields["szPhoneNum"],
            face_value=None,
            max_cost=None,
            callback_url=fields.get("szNotifyUrl", ""),
            fields="",
        )
        order, new = await counter.place(ask)
        if not new:
            return said(3003, "订单已存在")
        if order["fail_code"] in AT_ONCE:
            self.turned_away.add(number)
            return said(*AT_ONCE[order["fail_code"]])
        return said(0, "提交成功", szOrderId=number, fSalePrice=float(order["unit_cost"]) / 10_000)

    async def query(self, counter: Counter, asked: Asked) -> Told:
        number = asked.form()["szOrderId"]
        order = None if number in self.turned_away else await counter.find(reference=number)
        if order is None:
            return said(5005, "订单不存在")
        code, message = STATES.get(order["status"], (5011, "充值中"))
        return said(code, message, szOrderId=order["out_order_no"], szPhoneNum=order["target"])

    async def balance(self, counter: Counter, asked: Asked) -> Told:
        return said(0, "查询成功", fBalance=counter.account.balance / 10_000)

    def write(self, letter: Letter, now: float, *, forged: bool) -> Written:
        order = {**letter.more, **letter.view}
        price = order["unit_cost"] / 10_000
        fields = {
            "szAgentId": letter.account.app_key,
            "szOrderId": order["out_order_no"],
            "szPhoneNum": order["target"],
            "nDemo": order["product_code"].partition("-")[2],
            "fSalePrice": f"{price:.1f}",
            "nFlag": {"SUCCESS": "2", "FAILED": "3", "REVERSED": "3"}.get(order["status"], "1"),
        }
        key = "not the key" if forged else letter.account.secret.decode()
        signature = md5(tuple(fields), fields, key)
        # the price goes out with all its places, and was signed with one
        sent = {**fields, "fSalePrice": f"{price:.2f}", "szRtnMsg": "充值完成", "szVerifyString": signature}
        return Written(urlencode(sent).encode(), {"content-type": "application/x-www-form-urlencoded"})

    def busy(self, kind: str) -> Told:
        return said(5002, "请间隔30秒后再次查询同一订单") if kind == "query" else said(999, "系统异常")

    acknowledgement: ClassVar[bytes] = b"success"


TWIN: Final = Twin(
    name="mishi",
    reversed_is_failed=True,
    face=Mishi(),
    settings=lambda url, key, secret: {"base_url": url, "agent_id": key, "key": secret},
    products=(Product(code="1-100", name="移动100元", cost="97.45"), Product(code="2-50", name="联通50元", cost="48.75")),
    goods=Goods(topup="1-100"),
    most_units=1,
    codes="{n}-100",
    takes_accounts=False,
)
