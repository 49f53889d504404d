"""The endpoints of 大猿人 yrapi: what each asks of the house, and what it says. See README.md for the source and what is not verified."""

import hashlib
from collections.abc import Mapping
from typing import Final

from kameng_api.api.doors.door import (
    Account,
    Ask,
    Conflict,
    Counter,
    Kind,
    Offered,
    Path,
    Placed,
    Refused,
    Reply,
    Secret,
    Setting,
    Shown,
    State,
    Unreadable,
    VendorDoor,
    Wanted,
    Why,
)
from kameng_api.api.doors.yrapi import wire
from kameng_api.api.doors.yrapi.callback import YrapiLetters
from kameng_api.api.doors.yrapi.mapping import DUPLICATE, REFUSALS, TURNED_AWAY, busy, money, number, replied, row
from kameng_api.kit.money import parse_amount

_MOST_NUMBERS: Final = 50
_NOT_OF_THE_ORDER: Final = frozenset(("sign", "userid"))
_EXTRAS: Final = ("area", "ytype", "id_card_no", "city", "param1", "param2", "param3")
_CATEGORIES: Final = {"topup": (1, "充值"), "card": (2, "卡密"), "voucher": (3, "卡券")}


async def recharge(counter: Counter, ask: Ask) -> Reply:
    """`index/recharge`: buy one unit of a product."""
    form = _trimmed(ask.form())
    answer = await counter.place(_wanted(counter, form))
    match answer:
        case Placed(order=order, created=True):
            return replied(0, "提交成功", _accepted(counter, order))
        case Placed(order=order) if counter.account.settings.get("repeat") == "return":
            return replied(0, "提交成功", _accepted(counter, order))
        case Placed() | Conflict():
            return replied(1, DUPLICATE)
        case Refused(code=code, detail=detail):
            return replied(1, f"{REFUSALS.get(code, '下单失败')}: {detail}" if detail else REFUSALS.get(code, "下单失败"))


def _wanted(counter: Counter, form: Mapping[str, str]) -> Wanted:
    product = form.get("product_id", "")
    offered = counter.product(product)
    asked = {field.name for field in offered.fields} if offered is not None else frozenset()
    return Wanted(
        number=form.get("out_trade_num", ""),
        product=product,
        same=_same(form),
        target=form.get("mobile") or None,
        fields={name: form[name] for name in _EXTRAS if name in asked and form.get(name)},
        most=_amount(form, "price"),
        face_value=_amount(form, "amount"),
        callback=form.get("notify_url") or None,
    )


def _same(form: Mapping[str, str]) -> str:
    """A digest, because targets are among the fields. Empty fields count as left out."""
    fields = {name: value for name, value in form.items() if name not in _NOT_OF_THE_ORDER and value}
    return hashlib.sha256(wire.string_to_sign(fields, "").encode()).hexdigest()


def _trimmed(form: Mapping[str, str]) -> dict[str, str]:
    """The platform trims what it reads, after it has checked the signature."""
    return {name: value.strip() for name, value in form.items()}


def _amount(form: Mapping[str, str], name: str) -> int | None:
    """1/10000 units; None where the caller leaves it out. Raises Unreadable."""
    text = form.get(name)
    if not text:
        return None
    try:
        return parse_amount(text)
    except ValueError:
        raise Unreadable(f"{name} is not an amount") from None


def _accepted(counter: Counter, order: Shown) -> dict[str, object]:
    offered = counter.product(order.product)
    return {
        "order_number": order.order_id,
        "mobile": order.target or "",
        "product_id": number(order.product),
        "total_price": money(order.amount),
        "create_time": int(order.created_at.timestamp()),
        "out_trade_num": order.number,
        "title": offered.name if offered is not None else order.sku,
    }


async def check(counter: Counter, ask: Ask) -> Reply:
    """`index/check`: orders by the caller's numbers. A number under which nothing stands is simply missing, which means nothing.

    What came another way than through this account is "in progress" for good, unless it bought nothing: no cards, no target.
    """
    rows = []
    for one in _numbers(ask):
        order = await counter.find(one)
        if order is not None:
            rows.append(row(order, await counter.cards(order) if order.final else ()))
    return replied(0, "ok", rows)


def _numbers(ask: Ask) -> list[str]:
    form = ask.form()
    numbers = [one.strip() for one in form.get("out_trade_nums", "").split(",") if one.strip()]
    if not 1 <= len(numbers) <= _MOST_NUMBERS:
        raise Unreadable(f"out_trade_nums: 1 to {_MOST_NUMBERS} numbers")
    return list(dict.fromkeys(numbers))


async def remove(counter: Counter, ask: Ask) -> Reply:
    """`index/remove` (撤单) and `index/cancel` (退单): before dispatch only. Per order: `status` 0 it is cancelled, 1 it goes on."""
    rows = []
    for one in _numbers(ask):
        order = await counter.find(one)
        after = await counter.cancel(order.order_id) if order is not None else None
        if after is not None:
            status = 0 if after.state is State.CANCELLED else 1
            rows.append({"out_trade_num": after.number, "mobile": after.target or "", "status": status})
    if not any(one["status"] == 0 for one in rows):
        return replied(1, "失败", rows or "未找到该订单号")
    return replied(0, "ok", rows)


async def user(counter: Counter, ask: Ask) -> Reply:
    """`index/user`: the balance that may be spent now, credit included."""
    balance = await counter.balance()
    account = counter.account.account
    return replied(0, "ok", {"id": number(account), "username": account, "balance": money(balance.spendable)})


async def product(counter: Counter, ask: Ask) -> Reply:
    """`index/product`: what may be bought, by category; `type` and `cate_id` choose one."""
    form = ask.form()
    chosen = form.get("type") or form.get("cate_id")
    found: dict[int, dict[str, object]] = {}
    for one in counter.products():
        kind, name = _CATEGORIES[one.product_type]
        if one.on_sale and one.unit_price is not None and chosen in (None, "", str(kind)):
            category = found.setdefault(kind, {"id": kind, "cate": name, "sort": kind, "type": kind, "products": []})
            products = category["products"]
            assert isinstance(products, list)
            products.append(_offer(one))
    return replied(0, "ok", [found[kind] for kind in sorted(found)])


async def price(counter: Counter, ask: Ask) -> Reply:
    """`index/price`: one product."""
    offered = counter.product(ask.form().get("id", ""))
    if offered is None or not offered.on_sale or offered.unit_price is None:
        return replied(1, REFUSALS["product_unavailable"])
    return replied(0, "ok", _offer(offered))


def _offer(one: Offered) -> dict[str, object]:
    kind, name = _CATEGORIES[one.product_type]
    face = money(one.face_value or 0)
    return {
        "id": number(one.number), "name": one.name, "desc": "", "api_open": 1, "isp": "1,2,3", "ys_tag": "", "price": money(one.unit_price or 0),
        "y_price": face, "max_price": face, "type": kind, "cate_id": kind, "cate_name": name, "type_name": name,
    }  # fmt: skip


async def typecate(counter: Counter, ask: Ask) -> Reply:
    """`index/typecate`: the kinds of products."""
    kinds = [{"id": kind, "type_name": name, "cate": [{"id": kind, "cate": name, "type": kind}]} for kind, name in _CATEGORIES.values()]
    return replied(0, "ok", kinds)


async def elecity(counter: Counter, ask: Ask) -> Reply:
    """`index/elecity`: cities of electricity products; here a product asks for its fields by itself."""
    return replied(0, "ok", [])


class YrapiDoor(VendorDoor):
    """大猿人 yrapi, as merchants' 话费 software speaks it."""

    name = "yrapi"
    title = "大猿人 yrapi"
    secrets = (Secret("api_key", "API key (密钥)"),)
    settings = (
        Setting("repeat", "`return`: a repeat is answered with the first order; else, as the platform does, with its duplicate text", r"return|"),
    )
    paths = (
        Path("POST", "/yrapi.php/index/recharge", Kind.PLACE, recharge),
        Path("POST", "/yrapi.php/index/check", Kind.QUERY, check),
        Path("POST", "/yrapi.php/index/user", Kind.READ, user),
        Path("POST", "/yrapi.php/index/product", Kind.READ, product),
        Path("POST", "/yrapi.php/index/price", Kind.READ, price),
        Path("POST", "/yrapi.php/index/typecate", Kind.READ, typecate),
        Path("POST", "/yrapi.php/index/elecity", Kind.READ, elecity),
        Path("POST", "/yrapi.php/index/remove", Kind.CANCEL, remove),
        Path("POST", "/yrapi.php/index/cancel", Kind.CANCEL, remove),
    )
    letters = YrapiLetters()
    a_no_closes = False
    asked_again = frozenset(("insufficient_balance", "out_of_stock"))

    def account_of(self, ask: Ask) -> str | None:
        return ask.form().get("userid")

    def is_proven(self, ask: Ask, account: Account) -> bool:
        return wire.is_signed(ask.form(), account.secrets["api_key"])

    def refuse(self, ask: Ask, path: Path | None, why: Why, detail: str) -> Reply:
        if why in (Why.THROTTLED, Why.STALE):
            return busy(429)
        status, sentence = TURNED_AWAY[why]
        return replied(1, sentence, status=status)

    def in_doubt(self, ask: Ask, path: Path) -> Reply:
        return busy(503)


DOOR = YrapiDoor()
