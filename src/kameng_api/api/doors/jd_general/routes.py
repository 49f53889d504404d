"""The two endpoints that 京东 通用交易 (vtp) calls: produce this order (beginDistill), and what became of it (findDistill)."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Final

import orjson

from kameng_api.api.doors.door import (
    Account,
    Ask,
    Card,
    Conflict,
    Counter,
    Doubt,
    Kind,
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
from kameng_api.api.doors.jd_general import callback, mapping, wire
from kameng_api.api.doors.jd_general.mapping import Words

_ORDER_NO: Final = re.compile(r"\A[0-9]{1,18}\Z")
_COUNT: Final = re.compile(r"\A[1-9][0-9]{0,5}\Z")
_FEN: Final = re.compile(r"\A[0-9]{1,12}L?\Z")
_VENDOR: Final = re.compile(r"\A[0-9]{1,20}\Z")
_PER_FEN: Final = 100
"""1/10000 yuan in a fen."""


def _order_no(params: Mapping[str, str]) -> str:
    """Digits only: the signature puts nothing between a value and the next name."""
    number = params.get("jdOrderNo", "")
    if not _ORDER_NO.match(number):
        raise Unreadable("jdOrderNo is not a number")
    return number


def _signed(account: Account, ask: Ask, number: str, words: Words, order_id: str = "", product: str = "") -> Reply:
    """`agentOrderNo` may not be empty: without an order of ours it repeats JD's number."""
    told = {
        "agentOrderNo": order_id or number,
        "code": words.code,
        "jdOrderNo": int(number),
        "produceStatus": words.status,
        "product": product,
        "timestamp": wire.timestamp(ask.now),
    }
    return Reply(wire.write(account.secrets["private_key"], told))


async def _told(counter: Counter, ask: Ask, order: Shown) -> Reply:
    told = mapping.cards_of(await _cards(counter, order))
    words = mapping.words_of(order, told)
    product = wire.sealed_cards(counter.account.secrets["aes_key"], told) if told and words.status == mapping.SUCCESS else ""
    return _signed(counter.account, ask, order.number, words, order.order_id, product)


async def _cards(counter: Counter, order: Shown) -> Sequence[Card]:
    return await counter.cards(order) if order.state is State.SUCCEEDED and order.cards else ()


# ---- the two methods ---------------------------------------------------------------------------------------------------


async def begin_distill(counter: Counter, ask: Ask) -> Reply:
    """提交充值 & 提取卡密. Sent again it answers with the order as it is now."""
    params = ask.form()
    number = _order_no(params)
    wanted = _wanted(counter.account, params, number)
    offered = counter.product(wanted.product)
    if offered is not None and mapping.is_direct(offered.product_type) and wanted.quantity != 1:
        return await _closed(counter, ask, number, mapping.LOST)  # a direct charge is one (直充类型商品只能买一个)
    if offered is not None and not mapping.is_direct(offered.product_type):
        if not mapping.is_card(offered.product_type):
            return await _closed(counter, ask, number, mapping.NO_PRODUCT)
        _check_card_key(counter.account)
    match await counter.place(wanted):
        case Placed(order=order):
            return await _told(counter, ask, order)
        case Conflict(order=order):
            # Final words may be said only where nothing is delivered under this number.
            return _signed(counter.account, ask, number, mapping.LOST if _is_no_purchase(order) else mapping.UNREADABLE)
        case Refused(code=code):
            return _signed(counter.account, ask, number, mapping.REFUSED.get(code, mapping.STUCK))


def _is_no_purchase(order: Shown) -> bool:
    """What stands under JD's number bought nothing, whoever placed it: a merchant may buy JD's orders by another way while he moves here."""
    return order.state in (State.FAILED, State.CANCELLED)


def _check_card_key(account: Account) -> None:
    """Nothing is bought that could not be handed over. Raises Doubt: the operator can mend it, and the order is not lost."""
    try:
        wire.aes_key(account.secrets["aes_key"])
    except ValueError as wrong:
        raise Doubt(str(wrong)) from None


async def _closed(counter: Counter, ask: Ask, number: str, words: Words) -> Reply:
    """A no of our own. Asking for the order closes its number, so that the no stays true; if an order stands there, it is another."""
    order = await counter.find(number)
    return _signed(counter.account, ask, number, words if order is None or _is_no_purchase(order) else mapping.UNREADABLE)


def _wanted(account: Account, params: Mapping[str, str], number: str) -> Wanted:
    product, quantity, vendor = params.get("wareNo", "").strip(), params.get("quantity", ""), params.get("vendorId", "")
    if not product:
        raise Unreadable("wareNo is missing")
    if not _COUNT.match(quantity):
        raise Unreadable("quantity is not a number")
    if vendor and not _VENDOR.match(vendor):
        raise Unreadable("vendorId is not a number")
    target = params.get("produceAccount", "").strip()
    notify_url = params.get("notifyUrl", "").strip()
    if not notify_url:
        raise Unreadable("notifyUrl is missing")
    # Not the price, the times or the address to call: those may differ when the order is sent again.
    bought = [number, product, int(quantity), target]
    return Wanted(
        number=number,
        product=product,
        same=hashlib.sha256(orjson.dumps(bought)).hexdigest(),
        quantity=int(quantity),
        target=target or None,
        most=_most(account, params),
        callback=callback.address(account, notify_url),
        facts={"vendor": vendor},
    )


def _most(account: Account, params: Mapping[str, str]) -> int | None:
    """`totalPrice` is in fen; unless the account says otherwise, nothing dearer is bought for it."""
    if account.settings.get("price_limit") == "off":
        return None
    text = params.get("totalPrice", "")
    if not _FEN.match(text):
        raise Unreadable("totalPrice is not a number of fen")
    return int(text.rstrip("L")) * _PER_FEN


async def find_distill(counter: Counter, ask: Ask) -> Reply:
    """生产反查."""
    number = _order_no(ask.form())
    refunds = counter.account.settings.get("unknown_orders") == "refund"
    order = await counter.find(number, closing=refunds)
    if order is not None and order.facts:
        return await _told(counter, ask, order)
    # JD refunds by LOST: never said of a number under which an order that was placed another way is, or may be, delivered.
    lost = refunds and (order is None or _is_no_purchase(order))
    return _signed(counter.account, ask, number, mapping.LOST if lost else mapping.UNREADABLE)


class JdGeneralDoor(VendorDoor):
    """JD's general trade platform has its orders produced here, asynchronously."""

    name = "jd_general"
    title = "京东 通用交易"
    secrets = (
        Secret("private_key", "PRIVATEKEY of the signature, given by JD", vendor_given=True),
        Secret("aes_key", "AES key of the cards (32 characters), given by JD", vendor_given=True),
    )
    settings = (
        Setting("vendor_id", "vendorId in callbacks; empty: the one of the order", r"[0-9]{0,20}"),
        Setting("callback_url", "Fixed callback address, as for JD's self-test; empty: notifyUrl of the order"),
        Setting("price_limit", "Refuse an order that costs more than its totalPrice: on (default), or off", r"on|off|"),
        Setting("unknown_orders", "A query for an order we do not have: wait (paused, default), or refund (failed)", r"wait|refund|"),
    )
    paths = (
        Path("POST", "/beginDistill", Kind.PLACE, begin_distill),
        Path("POST", "/beginDisstill", Kind.PLACE, begin_distill),  # as the document's own example spells it
        Path("POST", "/findDistill", Kind.QUERY, find_distill),
    )
    letters = callback.JdGeneralLetters()
    asked_again = mapping.ASKED_AGAIN

    def account_of(self, ask: Ask) -> str | None:
        """findDistill does not say who asks, and vendorId is 0 for shops without one: the address should carry the account (`/~<account>`)."""
        return ask.in_path or ask.form().get("vendorId") or None

    def is_proven(self, ask: Ask, account: Account) -> bool:
        return wire.is_signed(account.secrets.get("private_key", ""), ask.form())

    def refuse(self, ask: Ask, path: Path | None, why: Why, detail: str) -> Reply:
        match why:
            case Why.UNKNOWN_ACCOUNT | Why.NOT_PROVEN | Why.ADDRESS:
                return _unsigned(ask, mapping.BAD_SIGNATURE)
            case Why.THROTTLED:
                return _unsigned(ask, mapping.WORKING)
            case _:
                return _unsigned(ask, mapping.UNREADABLE)

    def in_doubt(self, ask: Ask, path: Path) -> Reply:
        return _unsigned(ask, mapping.WORKING)


def _unsigned(ask: Ask, words: Words) -> Reply:
    """For whoever has not proven who asks, and for doubt: never signed, so that nobody can make us sign what they like. JD reads it as no answer."""
    return Reply(orjson.dumps({"code": words.code, "produceStatus": words.status, "signType": "MD5", "timestamp": wire.timestamp(ask.now)}))


DOOR: Final = JdGeneralDoor()
