"""The endpoints of dujiao-next v1: what each asks of the house, and what it says. See README.md for the source and what is not verified."""

import hashlib
import zlib
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qs

import orjson

from kameng_api.api.doors.door import (
    Account,
    Ask,
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
    Shown,
    Stale,
    State,
    Unreadable,
    VendorDoor,
    Wanted,
    Why,
)
from kameng_api.api.doors.dujiao import wire
from kameng_api.api.doors.dujiao.callback import DujiaoLetters
from kameng_api.api.doors.dujiao.mapping import (
    CATEGORIES,
    PAID,
    REFUSALS,
    STATES,
    TURNED_AWAY,
    failed,
    fulfillment,
    is_number,
    money,
    product,
    replied,
    words,
)

_BASE: Final = "/api/v1/upstream"
_MOST_A_PAGE: Final = 100
_FORM_VALUES: Final = (str, int, float)


async def ping(counter: Counter, ask: Ask) -> Reply:
    """`POST /ping`: reachable, and how much may be spent now, credit included."""
    balance = await counter.balance()
    return replied({
        "ok": True, "site_name": "Kameng", "protocol_version": "1.0", "user_id": zlib.crc32(counter.account.account.encode()),
        "balance": money(balance.spendable), "currency": balance.currency, "member_level": None,
    })  # fmt: skip


async def categories(counter: Counter, ask: Ask) -> Reply:
    """`GET /categories`: the kinds of products."""
    found = [
        {"id": number, "parent_id": 0, "slug": slug, "name": words(chinese, english), "icon": "", "sort_order": 10 - number}
        for number, slug, chinese, english in CATEGORIES.values()
    ]
    return replied({"ok": True, "categories": found})


async def products(counter: Counter, ask: Ask) -> Reply:
    """`GET /products`: those on sale whose number in the account's product map is an integer."""
    page, size = _page(ask.query)
    found = sorted((one for one in counter.products() if _is_shown(one) and one.on_sale), key=lambda one: int(one.number))
    shown = found[(page - 1) * size : page * size]
    return replied({"ok": True, "items": [product(one) for one in shown], "total": len(found), "page": page, "page_size": size})


def _is_shown(one: Offered) -> bool:
    return is_number(one.number) and one.unit_price is not None


def _page(query: str) -> tuple[int, int]:
    given = parse_qs(query, max_num_fields=20)
    try:
        page, size = int(given.get("page", ["1"])[0]), int(given.get("page_size", ["20"])[0])
    except ValueError:
        raise Unreadable("page and page_size are numbers") from None
    return max(page, 1), min(max(size, 1), _MOST_A_PAGE)


async def one_product(counter: Counter, ask: Ask) -> Reply:
    """`GET /products/:id`."""
    number = ask.parameters["id"]
    offered = counter.product(number) if is_number(number) else None
    if offered is None or not _is_shown(offered):
        return failed(404, "product_not_found", "no such product")
    if not offered.on_sale:
        return failed(404, "product_unavailable", "the product is not on sale")
    return replied({"ok": True, "product": product(offered)})


async def place(counter: Counter, ask: Ask) -> Reply:
    """`POST /orders`: buy; the same `downstream_order_no` again answers the first order."""
    answer = await counter.place(_wanted(ask.json()))
    match answer:
        case Placed(order=order, created=created):
            status = PAID if created else STATES[order.state]
            return replied({"ok": True, **_head(order), "status": status, "amount": money(order.amount), "currency": order.currency})
        case Conflict():
            return failed(400, "bad_request", "downstream_order_no stands for an order with other content")
        case Refused(code=code, detail=detail):
            status_code, word = REFUSALS.get(code, (400, "bad_request"))
            return failed(status_code, word, detail)


def _head(order: Shown) -> dict[str, Any]:
    return {"order_id": order.short, "order_no": order.order_id}


def _wanted(body: Mapping[str, Any]) -> Wanted:
    """Raises Unreadable. Without a number of its own an order could not be sent again safely, so it is asked for."""
    sku, quantity, number = body.get("sku_id"), body.get("quantity"), body.get("downstream_order_no")
    form, callback = body.get("manual_form_data") or {}, body.get("callback_url") or None
    if type(sku) is not int or type(quantity) is not int or quantity < 1:
        raise Unreadable("sku_id and quantity are whole numbers above zero")
    if not isinstance(number, str) or not number:
        raise Unreadable("downstream_order_no is needed")
    if not isinstance(form, dict) or not all(isinstance(v, _FORM_VALUES) for v in form.values()):
        raise Unreadable("manual_form_data holds plain values")
    if callback is not None and not isinstance(callback, str):
        raise Unreadable("callback_url is text")
    fields = {name: str(value) for name, value in form.items()}
    same = orjson.dumps([sku, quantity, fields], option=orjson.OPT_SORT_KEYS)  # not where it is told: a shop may move
    target = fields.pop("target", None)
    return Wanted(
        number=number, product=str(sku), same=hashlib.sha256(same).hexdigest(), quantity=quantity, target=target, fields=fields, callback=callback
    )


async def query(counter: Counter, ask: Ask) -> Reply:
    """`GET /orders/:id`, by our number, which only a caller can know whose order is committed."""
    order = await _order(counter, ask)
    if order is None:
        return failed(404, "order_not_found", "no such order")
    answer = {
        "ok": True, **_head(order), "status": STATES[order.state], "amount": money(order.amount), "currency": order.currency,
        "items": [_item(counter, order)],
    }  # fmt: skip
    delivered = fulfillment(order, await counter.cards(order) if order.final else ())
    if delivered is not None:
        answer["fulfillment"] = delivered
    return replied(answer)


async def _order(counter: Counter, ask: Ask) -> Shown | None:
    """Raises Doubt for one that came another way: it is nothing to this shop, but it must not hear "none" of what may be delivered."""
    text = ask.parameters["id"]
    order = await counter.find_by_short(int(text)) if text.isascii() and text.isdigit() and len(text) < 20 else None
    if order is None or order.mine:
        return order
    if order.state in (State.FAILED, State.CANCELLED):
        return None
    raise Doubt


def _item(counter: Counter, order: Shown) -> dict[str, Any]:
    offered = counter.product(order.product)
    number = int(order.product) if is_number(order.product) else 0
    return {
        "product_id": number, "sku_id": number, "title": words(offered.name if offered is not None else order.sku), "quantity": order.quantity,
        "unit_price": money(order.unit_price), "total_price": money(order.amount),
        "fulfillment_type": "auto" if order.product_type == "card" else "manual",
    }  # fmt: skip


async def cancel(counter: Counter, ask: Ask) -> Reply:
    """`POST /orders/:id/cancel`: before dispatch only."""
    order = await _order(counter, ask)
    after = await counter.cancel(order.order_id) if order is not None else None
    if after is None:
        return failed(404, "order_not_found", "no such order")
    if after.state not in (State.CANCELLED, State.FAILED):
        return failed(409, "cancel_not_allowed", "the order has been dispatched")
    return replied({"ok": True, **_head(after), "status": STATES[after.state]})


class DujiaoDoor(VendorDoor):
    """dujiao-next v1, as one shop buys from another."""

    name = "dujiao"
    title = "dujiao-next v1"
    secrets = (Secret("api_secret", "API secret"),)
    paths = (
        Path("POST", f"{_BASE}/orders", Kind.PLACE, place),
        Path("GET", f"{_BASE}/orders/{{id}}", Kind.QUERY, query),
        Path("POST", f"{_BASE}/orders/{{id}}/cancel", Kind.CANCEL, cancel),
        Path("POST", f"{_BASE}/ping", Kind.READ, ping),
        Path("GET", f"{_BASE}/categories", Kind.READ, categories),
        Path("GET", f"{_BASE}/products", Kind.READ, products),
        Path("GET", f"{_BASE}/products/{{id}}", Kind.READ, one_product),
    )
    letters = DujiaoLetters()
    a_no_closes = False
    asked_again = frozenset(("insufficient_balance", "out_of_stock"))

    def account_of(self, ask: Ask) -> str | None:
        return ask.headers.get(wire.API_KEY.lower())

    def is_proven(self, ask: Ask, account: Account) -> bool:
        timestamp = ask.headers.get(wire.TIMESTAMP.lower(), "")
        given = ask.headers.get(wire.SIGNATURE.lower(), "")
        if not timestamp.isascii() or not timestamp.isdigit() or len(timestamp) > 12:
            raise Unreadable("the timestamp is seconds since 1970")
        proven = wire.is_signed(account.secrets["api_secret"], ask.method, (ask.path, ask.full_path), timestamp, ask.body, given)
        if abs(int(ask.now.timestamp()) - int(timestamp)) > wire.WINDOW_S:
            raise Stale
        return proven

    def refuse(self, ask: Ask, path: Path | None, why: Why, detail: str) -> Reply:
        if why is Why.UNKNOWN_ACCOUNT and wire.API_KEY.lower() not in ask.headers:
            return failed(401, "missing_auth_headers", "send the three headers of the signature")
        status, code = TURNED_AWAY[why]
        return failed(status, code, detail)

    def in_doubt(self, ask: Ask, path: Path) -> Reply:
        return failed(503, "internal_error", "the outcome is not known: send the same request again")


DOOR = DujiaoDoor()
