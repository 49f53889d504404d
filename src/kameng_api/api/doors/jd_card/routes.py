"""The endpoints that 京东 游戏点卡 calls: may it be sold, take the order, what became of it; for direct charges and for cards."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson

from kameng_api.api.doors.door import (
    Account,
    Ask,
    Card,
    Conflict,
    Counter,
    Doubt,
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
from kameng_api.api.doors.jd_card import callback, mapping, wire
from kameng_api.api.doors.jd_card.mapping import Words

_ORDER_ID: Final = re.compile(r"\A[0-9]{1,20}\Z")
_COUNT: Final = re.compile(r"\A[1-9][0-9]{0,5}\Z")
_FORM_FIELDS: Final = {
    "permit": "permit",
    "gameAccountType": "game_account_type",
    "gameArea": "game_area",
    "gameServer": "game_server",
    "chargeType": "charge_type",
}
"""What JD's buyer chose, and the form field of our product that asks for it (of `{id, name}` the id)."""


def _form(ask: Ask) -> dict[str, str]:
    return wire.mended(ask.form())


def _data(ask: Ask) -> dict[str, Any]:
    try:
        return wire.read_data(_form(ask).get("data", ""))
    except wire.Unreadable as wrong:
        raise Unreadable(str(wrong)) from None


def _text(data: Mapping[str, Any], name: str) -> str:
    value = data.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise Unreadable(f"{name} is not text")
    return value.strip()


def _order_id(data: Mapping[str, Any]) -> str:
    number = _text(data, "orderId")
    if not _ORDER_ID.match(number):
        raise Unreadable("orderId is not a number")
    return number


def _quantity(data: Mapping[str, Any]) -> int:
    text = _text(data, "buyNum")
    if not _COUNT.match(text):
        raise Unreadable("buyNum is not a number")
    return int(text)


def _chosen(value: Any) -> str:
    """The id of `{id, name}`, which comes as an object or as its JSON in a string; other text is taken as it is."""
    if isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            value = json.loads(value, parse_int=str, parse_float=str)
        except (ValueError, RecursionError):
            raise Unreadable("a choice is not readable") from None
    if isinstance(value, dict):
        value = value.get("id")
    return value.strip() if isinstance(value, str) else ""


def _answer(words: Words, data: Mapping[str, Any] | None = None) -> Reply:
    told = {"retCode": words.code, "retMessage": words.text}
    return Reply(orjson.dumps(told | ({"data": wire.data_of_answer(data)} if data is not None else {})))


# ---- orders ------------------------------------------------------------------------------------------------------------


async def order_direct(counter: Counter, ask: Ask) -> Reply:
    return await _order(counter, _data(ask), "direct")


async def order_cards(counter: Counter, ask: Ask) -> Reply:
    return await _order(counter, _data(ask), "card")


async def _order(counter: Counter, data: Mapping[str, Any], kind: str) -> Reply:
    number = _order_id(data)
    product = _product_number(counter, data)
    offered = counter.product(product)
    wanted = _wanted(counter.account, data, kind, number, product, offered)
    if _text(data, "type") not in ("", "0"):
        return await _closed(counter, number, mapping.NOT_FOR_SALE)  # gifts (赠品权益) are other orders, for other accounts
    if offered is not None and not (mapping.is_direct if kind == "direct" else mapping.is_card)(offered.product_type):
        return await _closed(counter, number, mapping.NO_PRODUCT)
    match await counter.place(wanted):
        case Placed():
            return _answer(mapping.ACCEPTED)
        case Conflict(order=order):
            # A refusal that JD takes for final may be said only where nothing is delivered under this number.
            return _answer(mapping.NUMBER_TAKEN if _is_no_purchase(order) else mapping.IN_DOUBT)
        case Refused(code=code):
            return _answer(mapping.REFUSED.get(code, mapping.IN_DOUBT))


def _is_no_purchase(order: Shown) -> bool:
    """What stands under JD's number bought nothing, whoever placed it: a merchant may buy JD's orders by another way while he moves here."""
    return order.state in (State.FAILED, State.CANCELLED)


async def _closed(counter: Counter, number: str, words: Words) -> Reply:
    """A no of our own. Asking for the order closes its number, so that the no stays true; if an order stands there, it is another."""
    order = await counter.find(number)
    return _answer(words if order is None or _is_no_purchase(order) else mapping.IN_DOUBT)


def _product_number(counter: Counter, data: Mapping[str, Any]) -> str:
    """What the account's map names: JD's SKU, else the merchant's own product number that JD repeats (`outId`).

    Where the map names neither they may be SKUs of ours; then `outId` goes first, because JD's number that is one as well only happens to be.
    """
    sku, own = _text(data, "skuId"), _text(data, "outId")
    numbers = [number for number in (sku, own) if counter.is_mapped(number)] or [number for number in (own, sku) if number]
    if not numbers:
        raise Unreadable("skuId is missing")
    return next((number for number in numbers if counter.product(number) is not None), numbers[0])


def _wanted(account: Account, data: Mapping[str, Any], kind: str, number: str, product: str, offered: Offered | None) -> Wanted:
    quantity = _quantity(data)
    target = _text(data, "gameAccount") if kind == "direct" else ""
    choices = {ours: chosen for theirs, ours in _FORM_FIELDS.items() if (chosen := _chosen(data.get(theirs)))} if kind == "direct" else {}
    asked = {wanted.name for wanted in offered.fields} if offered is not None else set()
    # Not the price, the buyer's name or address: those may differ when the order is sent again.
    bought = [number, kind, _text(data, "skuId"), _text(data, "outId"), quantity, target, choices]
    return Wanted(
        number=number,
        product=product,
        same=hashlib.sha256(orjson.dumps(bought, option=orjson.OPT_SORT_KEYS)).hexdigest(),
        quantity=quantity,
        target=target or None,
        fields={name: value for name, value in choices.items() if name in asked},
        most=_most(account, data),
        callback=callback.address(account, kind),
        facts={"kind": kind},
    )


def _most(account: Account, data: Mapping[str, Any]) -> int | None:
    """What JD pays the merchant for the order (`totalPrice`, 商家应收款): unless the account says otherwise, nothing dearer is bought for it."""
    if account.settings.get("price_limit") == "off":
        return None
    try:
        return wire.price(_text(data, "totalPrice"))
    except wire.Unreadable:
        raise Unreadable("totalPrice is not an amount") from None


async def query_direct(counter: Counter, ask: Ask) -> Reply:
    return await _query(counter, _order_id(_data(ask)), "direct")


async def query_cards(counter: Counter, ask: Ask) -> Reply:
    return await _query(counter, _order_id(_data(ask)), "card")


async def _query(counter: Counter, number: str, kind: str) -> Reply:
    refunds = counter.account.settings.get("unknown_orders") == "refund"
    order = await counter.find(number, closing=refunds)
    if order is None:
        return _answer(mapping.NO_ORDER if refunds else mapping.NOT_HERE)
    if not order.facts:  # bought under JD's number by another way: a no would have JD refund what is delivered
        return _answer(mapping.NOT_HERE)
    if order.facts.get("kind") != kind:
        raise Doubt("an order is asked for where the other kind is told")
    infos = mapping.card_infos(await _cards(counter, order))
    status = mapping.status_of(order, infos)
    told: dict[str, Any] = {"orderStatus": status}
    return _answer(mapping.FOUND, told | ({"cardinfos": infos} if status == mapping.SUCCESS and kind == "card" else {}))


async def _cards(counter: Counter, order: Shown) -> Sequence[Card]:
    return await counter.cards(order) if order.state is State.SUCCEEDED and order.cards else ()


async def pre_check(counter: Counter, ask: Ask) -> Reply:
    """Before the buyer pays (≤ 400 ms): is it on sale at this price, in stock, and covered by the balance?"""
    data = _data(ask)
    words = await _obstacle(counter, data)
    return _answer(mapping.FOUND, {"status": 0}) if words is None else _answer(words)


async def _obstacle(counter: Counter, data: Mapping[str, Any]) -> Words | None:
    offered = counter.product(_product_number(counter, data))
    quantity = _quantity(data)
    if offered is None or not (mapping.is_direct(offered.product_type) or mapping.is_card(offered.product_type)):
        return mapping.NO_PRODUCT
    if not offered.on_sale or offered.unit_price is None or quantity > offered.max_quantity:
        return mapping.NOT_FOR_SALE
    if offered.stock == "out_of_stock":
        return mapping.NO_STOCK
    cost = offered.unit_price * quantity
    most = _most(counter.account, data)
    if most is not None and cost > most:
        return mapping.PRICE
    if offered.target_kind is not None and not _text(data, "gameAccount"):
        return mapping.ACCOUNT_MISTYPED
    balance = await counter.balance()
    return None if balance.spendable >= cost else mapping.NO_MONEY


class JdCardDoor(VendorDoor):
    """JD's game and membership shop sends its orders here."""

    name = "jd_card"
    title = "京东 游戏点卡"
    secrets = (Secret("private_key", "privatekey (32 characters, given by JD)", vendor_given=True),)
    settings = (
        Setting("callback_base", f"Where JD is called back; empty: {callback.LIVE}, for test accounts {callback.REHEARSAL}; off: never"),
        Setting("price_limit", "Refuse an order that costs more than JD pays (totalPrice): on (default), or off", r"on|off|"),
        Setting("unknown_orders", "A query for an order we do not have: wait (999, default), or refund (101, JD refunds)", r"wait|refund|"),
    )
    paths = (
        Path("POST", "/preCheck", Kind.READ, pre_check),
        Path("POST", "/direct/order", Kind.PLACE, order_direct),
        Path("POST", "/direct/query", Kind.QUERY, query_direct),
        Path("POST", "/card/order", Kind.PLACE, order_cards),
        Path("POST", "/card/query", Kind.QUERY, query_cards),
    )
    letters = callback.JdCardLetters()
    asked_again = mapping.ASKED_AGAIN

    def account_of(self, ask: Ask) -> str | None:
        return _form(ask).get("customerId") or None

    def is_proven(self, ask: Ask, account: Account) -> bool:
        return wire.is_signed(account.secrets.get("private_key", ""), _form(ask))

    def refuse(self, ask: Ask, path: Path | None, why: Why, detail: str) -> Reply:
        match why:
            case Why.UNKNOWN_ACCOUNT | Why.NOT_PROVEN:
                return _answer(mapping.BAD_SIGNATURE)
            case Why.ADDRESS:
                return _answer(mapping.ADDRESS)
            case Why.THROTTLED:
                return _answer(mapping.BUSY)
            case Why.UNREADABLE if path is not None and path.kind is Kind.READ:
                return _answer(Words(mapping.WRONG.code, f"{mapping.WRONG.text}: {detail}"))
            case _:
                return _answer(Words(mapping.IN_DOUBT.code, f"{mapping.WRONG.text}: {detail}"))

    def in_doubt(self, ask: Ask, path: Path) -> Reply:
        return _answer(mapping.IN_DOUBT)


DOOR: Final = JdCardDoor()
