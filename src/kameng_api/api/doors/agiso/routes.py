"""The endpoints of 阿奇索 标准货源 under `/agisoAcprSupplierApi/`: products, orders, look-ups, cancellations."""

import hashlib
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final
from urllib.parse import urlsplit

import orjson

from kameng_api.api.doors.agiso import callback, mapping, wire
from kameng_api.api.doors.agiso.mapping import Words
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
    Stale,
    State,
    Unreadable,
    VendorDoor,
    Wanted,
    Why,
)

_BASE: Final = "/agisoAcprSupplierApi"
_LARGEST_PAGE: Final = 200
_MOST_UNITS: Final = 100_000
_DIGITS: Final = re.compile(r"\A[0-9]{1,10}\Z")
_AMOUNT: Final = re.compile(r"\A([0-9]{1,11})(?:\.([0-9]{1,20}))?\Z")
_ALWAYS_TLS: Final = frozenset(("cb.acpr.agiso.com", "cb-acpr.agiso.com"))
"""Their callback hosts, named with http in their documents. We call strangers' addresses over TLS only."""
_TOO_OFTEN: Final = Reply(b"", 429, "text/plain; charset=utf-8")
_NOT_NOW: Final = Reply(b"", 503, "text/plain; charset=utf-8")
"""For an order that was not taken and may be sent again: no code of theirs, because 200 would read as accepted and 9999 as refused."""


def _read(ask: Ask) -> dict[str, str]:
    try:
        return wire.read(ask.body)
    except wire.Unreadable as wrong:
        raise Unreadable(str(wrong)) from None


def _needed(params: Mapping[str, str], name: str) -> str:
    value = params.get(name, "").strip()
    if not value:
        raise Unreadable(f"{name} is missing")
    return value


def _count(params: Mapping[str, str], name: str, default: int | None = None) -> int:
    text = params.get(name, "").strip()
    if not text and default is not None:
        return default
    if not _DIGITS.match(text):
        raise Unreadable(f"{name} is not a number")
    return int(text)


def _limit(params: Mapping[str, str]) -> int | None:
    """`maxAmount`, yuan for the whole order, in 1/10000 yuan rounded down; None when they set no limit."""
    text = params.get("maxAmount", "").strip()
    if not text:
        return None
    match = _AMOUNT.match(text)
    if match is None:
        raise Unreadable("maxAmount is not a decimal number")
    whole, part = match.groups()
    return int(whole) * 10_000 + int((part or "").ljust(4, "0")[:4])


# ---- answers -----------------------------------------------------------------------------------------------------------


def _answer(code: int, message: str, data: Any) -> Reply:
    return Reply(wire.write({"code": code, "message": message, "data": data}))


def _done(data: Any) -> Reply:
    return _answer(mapping.OK, mapping.DONE_TEXT, data)


def _no(words: Words) -> Reply:
    return _answer(words.code, f"失败原因:{words.text}", None)


async def _told(counter: Counter, order: Shown) -> Reply:
    cards = await counter.cards(order) if order.cards and order.state is State.SUCCEEDED else ()
    return _done(callback.order_members(counter.account, order, cards))


def _still_working(number: str) -> Reply:
    """The only word of the protocol that is not final. In an answer to an order it reads as accepted, so it is said only where one may stand."""
    told = {"orderNo": number, "outTradeNo": "", "orderStatus": mapping.PROCESSING, "failCode": 0, "failReason": "", "orderCost": 0, "cards": ""}
    return _done(told)


# ---- orders ------------------------------------------------------------------------------------------------------------


async def create_recharge(counter: Counter, ask: Ask) -> Reply:
    return await _create(counter, _read(ask), direct=True)


async def create_purchase(counter: Counter, ask: Ask) -> Reply:
    return await _create(counter, _read(ask), direct=False)


async def _create(counter: Counter, params: Mapping[str, str], *, direct: bool) -> Reply:
    number, product = _needed(params, "orderNo"), _needed(params, "productNo")
    wanted = _wanted(params, number, product, counter.product(product), direct=direct)
    offered = counter.product(product)
    if offered is not None and not _is_sold_as(offered, direct=direct):
        return await _closed(counter, number, mapping.REFUSED["product_unavailable"])
    if not direct and not _can_hand_over(counter.account):
        return _NOT_NOW
    match await counter.place(wanted):
        case Placed(order=order):
            return await _told(counter, order)
        case Conflict(order=order):
            return _other(number, order)
        case Refused(code=code):
            return _no(mapping.REFUSED.get(code, mapping.REFUSED_OTHERWISE))


def _is_sold_as(offered: Offered, *, direct: bool) -> bool:
    return mapping.is_direct(offered.product_type) if direct else mapping.is_card(offered.product_type)


def _can_hand_over(account: Account) -> bool:
    """Whether cards could be told: none are bought under an appSecret that is no key. The operator can mend it."""
    try:
        wire.card_key(account.secrets["app_secret"])
    except ValueError:
        return False
    return True


async def _closed(counter: Counter, number: str, words: Words) -> Reply:
    """A no of our own. Asking for the order closes its number, so that the no stays true; if an order stands there, it is another."""
    order = await counter.find(number)
    return _no(words) if order is None else _other(number, order)


def _other(number: str, order: Shown) -> Reply:
    """Another order stands under the number. That is told as an error only where it bought nothing: an error may be read as a verdict."""
    return _no(mapping.NUMBER_OF_ANOTHER) if _is_no_purchase(order) else _still_working(number)


def _is_no_purchase(order: Shown) -> bool:
    """What stands under the number bought nothing, whoever placed it: a merchant may buy their orders by another way while he moves here."""
    return order.state in (State.FAILED, State.CANCELLED)


def _wanted(params: Mapping[str, str], number: str, product: str, offered: Offered | None, *, direct: bool) -> Wanted:
    quantity = _count(params, "buyNum", 1)
    if not 1 <= quantity <= _MOST_UNITS:
        raise Unreadable("buyNum is out of range")
    try:
        form = wire.read_attach(params.get("attach", ""))
    except wire.Unreadable:
        raise Unreadable("attach is not a JSON object in a string") from None
    target = (form.get("account", "").strip() or params.get("account", "").strip()) if direct else ""
    asked = {wanted.name for wanted in offered.fields} if offered is not None else set()
    fields = {name: value for name, value in form.items() if name in asked and value}
    return Wanted(
        number=number,
        product=product,
        same=_same(params, number, product, quantity, target, form, direct=direct),
        quantity=quantity,
        target=target or None,
        fields=fields,
        most=_limit(params),
        callback=_callback(params.get("callbackUrl", "").strip()),
        facts={"kind": "direct" if direct else "card"},
    )


def _same(params: Mapping[str, str], number: str, product: str, quantity: int, target: str, form: Mapping[str, str], *, direct: bool) -> str:
    """What is bought and for whom; not the limit, the address to call or the clock, which may change when it is sent again."""
    bought = [params.get("userId", ""), number, product, quantity, direct, target, {k: v for k, v in form.items() if k != "account"}]
    return hashlib.sha256(orjson.dumps(bought, option=orjson.OPT_SORT_KEYS)).hexdigest()


def _callback(url: str) -> str | None:
    if not url:
        return None
    if url.startswith("http://") and urlsplit(url).netloc in _ALWAYS_TLS:
        return "https://" + url.removeprefix("http://")
    return url


async def get_order(counter: Counter, ask: Ask) -> Reply:
    number = _needed(_read(ask), "orderNo")
    fails = counter.account.settings.get("unknown_orders") == "failed"
    order = await counter.find(number, closing=fails)
    if order is not None and order.facts:
        return await _told(counter, order)
    if not fails or (order is not None and not _is_no_purchase(order)):
        return _still_working(number)
    lost = {"orderStatus": mapping.FAILURE, "failCode": mapping.NO_ORDER.code, "failReason": mapping.NO_ORDER.text}
    return _done({"orderNo": number, "outTradeNo": "", **lost, "orderCost": 0, "cards": ""})


async def cancel_order(counter: Counter, ask: Ask) -> Reply:
    """撤单. Agreed exactly when nothing was delivered and nothing will be: cancelled before dispatch, or failed already."""
    number = _needed(_read(ask), "orderNo")
    order = await counter.find(number, closing=False)
    if order is None or not order.facts:
        return _cancel_answer(number, "订单不存在")
    if order.state is State.PROCESSING:
        order = await counter.cancel(order.order_id) or order
    if _is_no_purchase(order):
        return _cancel_answer(number, "", refund=order.amount)
    return _cancel_answer(number, "订单处理中，无法撤单" if order.state is State.PROCESSING else "订单已发货，无法撤单")


def _cancel_answer(number: str, refusal: str, *, refund: int = 0) -> Reply:
    """`refuseProof` is required even when there is nothing to prove: without it they read that cancelling is not offered."""
    status = mapping.CANCEL_REFUSED if refusal else mapping.CANCELLED
    told = {"orderNo": number, "cancelStatus": status, "refundAmount": wire.Number(refund), "refuseReason": refusal, "refuseProof": ""}
    return _done(told)


# ---- products ----------------------------------------------------------------------------------------------------------


async def list_products(counter: Counter, ask: Ask) -> Reply:
    params = _read(ask)
    kind, keyword = _count(params, "productType", 0), params.get("keyword", "").strip().lower()
    page, size = max(1, _count(params, "pageIndex", 1)), max(1, min(_LARGEST_PAGE, _count(params, "pageSize", 20)))
    found = [
        offered
        for offered in counter.products()
        if _is_shown(offered)
        and kind in (0, _kind_of(offered))
        and (keyword in offered.name.lower() or keyword in offered.number.lower())
    ]
    rest = found[(page - 1) * size :]
    return _done({"items": [_summary(offered) for offered in rest[:size]], "hasNextPage": len(rest) > size})


def _is_shown(offered: Offered) -> bool:
    return offered.unit_price is not None and (_is_sold_as(offered, direct=True) or _is_sold_as(offered, direct=False))


def _kind_of(offered: Offered) -> int:
    return mapping.DIRECT if mapping.is_direct(offered.product_type) else mapping.CARD


def _summary(offered: Offered) -> dict[str, Any]:
    return {
        "productNo": offered.number,
        "productTitle": offered.name,
        "productType": _kind_of(offered),
        "productCost": wire.Number(offered.unit_price or 0),
    }


async def get_template(counter: Counter, ask: Ask) -> Reply:
    offered = counter.product(_needed(_read(ask), "productNo"))
    if offered is None or not _is_shown(offered):
        return _no(mapping.REFUSED["product_unavailable"])
    attach = [_input("account", "手机号" if offered.target_kind == "mobile" else "充值账号", required=True)] if offered.target_kind else []
    attach += [_input(wanted.name, wanted.label, required=wanted.required) for wanted in offered.fields]
    told = {
        **_summary(offered),
        "apiType": mapping.ASYNCHRONOUS,
        "productStock": mapping.STOCK[offered.stock],
        "productStatus": 0 if offered.on_sale else 1,
        "attach": attach,
    }
    return _done(told)


def _input(name: str, title: str, *, required: bool) -> dict[str, Any]:
    """One line of the form that they show the buyer; the answers come back in `attach`."""
    told = {"type": 0, "name": name, "title": title, "desc": f"请输入{title}", "inputType": 0, "inputCheck": 1 if required else 0}
    return {**told, "inputDataSourceType": 0, "inputDataSource": None, "value": None}


async def no_price_news(counter: Counter, ask: Ask) -> Reply:
    """We do not push prices: `maxAmount` keeps each order within the price they know."""
    return _no(Words(mapping.OTHER, "不支持价格订阅"))


class AgisoDoor(VendorDoor):
    """A marketplace's auto-delivery tool buys here as from a standard supplier."""

    name = "agiso"
    title = "阿奇索 / 91卡券 标准货源"
    secrets = (
        Secret("app_secret", "AppSecret (32 characters; also the key of the cards)", vendor_given=True),
        Secret("merchant_key", "Merchant key (商户密钥)"),
    )
    settings = (
        Setting("app_id", "AppId that getAppId answers; needs the address with /~<userId>", r"[0-9]{0,19}"),
        Setting("unknown_orders", "An order we do not have reads: wait (default), or failed", r"wait|failed|"),
    )
    paths = (
        Path("POST", f"{_BASE}/app/getAppId", Kind.READ, anonymous=True),
        Path("POST", f"{_BASE}/product/getList", Kind.READ, list_products),
        Path("POST", f"{_BASE}/product/getTemplate", Kind.READ, get_template),
        Path("POST", f"{_BASE}/product/subscribePriceNotify", Kind.READ, no_price_news),
        Path("POST", f"{_BASE}/product/cancelSubscribePriceNotify", Kind.READ, no_price_news),
        Path("POST", f"{_BASE}/order/createRecharge", Kind.PLACE, create_recharge),
        Path("POST", f"{_BASE}/order/createPurchase", Kind.PLACE, create_purchase),
        Path("POST", f"{_BASE}/order/get", Kind.QUERY, get_order),
        Path("POST", f"{_BASE}/order/cancel", Kind.CANCEL, cancel_order),
        Path("POST", f"{_BASE}/order/cancelOrder", Kind.CANCEL, cancel_order),
    )
    letters = callback.AgisoLetters()

    def account_of(self, ask: Ask) -> str | None:
        return _read(ask).get("userId") or None

    def is_proven(self, ask: Ask, account: Account) -> bool:
        params = _read(ask)
        if not wire.is_signed(account.secrets.get("app_secret", ""), account.secrets.get("merchant_key", ""), params):
            return False
        _check_clock(params.get("timestamp", ""), ask.now)
        return True

    def refuse(self, ask: Ask, path: Path | None, why: Why, detail: str) -> Reply:
        match why:
            case Why.UNKNOWN_ACCOUNT | Why.NOT_PROVEN:
                return _answer(mapping.BAD_SIGNATURE, "签名错误", None)
            case Why.ADDRESS:
                return _answer(mapping.BAD_SIGNATURE, "IP不在白名单", None)
            case Why.STALE:
                return _answer(mapping.OLD_TIMESTAMP, "时间戳过期", None)
            case Why.THROTTLED if path is not None and path.kind is Kind.QUERY:
                return self.in_doubt(ask, path)
            case Why.THROTTLED if path is not None and path.kind is Kind.PLACE:
                return _TOO_OFTEN
            case Why.THROTTLED:
                return _no(Words(mapping.OTHER, "请求过于频繁"))
            case Why.UNREADABLE:
                return _no(Words(mapping.OTHER, "参数错误"))
            case Why.NO_SUCH_PATH:
                return _no(Words(mapping.OTHER, "接口不存在"))

    def in_doubt(self, ask: Ask, path: Path) -> Reply:
        if path.kind not in (Kind.PLACE, Kind.QUERY):
            return _no(Words(mapping.OTHER, "系统繁忙，请稍后再试"))
        try:
            number = _read(ask).get("orderNo", "")
        except Unreadable:
            number = ""
        return _still_working(number)

    def answer_anonymous(self, ask: Ask, path: Path, account: Account | None) -> Reply:
        app_id = account.settings.get("app_id", "") if account is not None else ""
        return _done({"appId": int(app_id)}) if app_id else _no(Words(mapping.OTHER, "货源未配置"))


def _check_clock(text: str, now: datetime) -> None:
    """Raises Stale for a timestamp (seconds) ten minutes or more away, or none."""
    if not _DIGITS.match(text) or abs(int(text) - now.timestamp()) >= wire.CLOCK_WINDOW_S:
        raise Stale("the timestamp is more than ten minutes from our clock")


DOOR: Final = AgisoDoor()
