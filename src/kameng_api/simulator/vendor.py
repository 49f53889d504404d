"""The vendor's own API, as an adapter sees it: place, query, balance, products, statement.

Plain ASGI beside the Starlette router, because one process has to take several thousand orders a second.
"""

import asyncio
import hmac
import logging
import time
from collections import OrderedDict, defaultdict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Final

from starlette.types import Receive, Scope, Send

from kameng_api.kit.money import format_amount
from kameng_api.simulator import behaviour, lists, protocol, statements
from kameng_api.simulator.accounts import Account
from kameng_api.simulator.behaviour import Manner
from kameng_api.simulator.books import Books, order_no
from kameng_api.simulator.protocol import OK, Ask, Status, answer
from kameng_api.simulator.store import Writer

log = logging.getLogger(__name__)
LARGEST_BODY: Final = 65_536
NONCES_KEPT: Final = 20_000
STATEMENT_PAGE: Final = 1_000
CHANGES_PAGE: Final = 1_000
NUMBERS: Final = {"7001": ("CMCC", False), "7002": ("CUCC", False), "7003": ("CTCC", False), "7004": ("CBN", False), "7012": ("CUCC", True)}
"""Numbers that were taken along, by their last four digits: the network they are on now, and whether a virtual operator sold them."""

Reply = tuple[int, bytes]
Call = Callable[["Vendor", Account, Mapping[str, str], float], Awaitable["Reply | Manner"]]


class Vendor:
    """All simulated accounts behind one address; the app key says which one is spoken to."""

    def __init__(self, books: Books, writer: Writer, time_scale: float) -> None:
        self.books = books
        self.writer = writer
        self.time_scale = time_scale
        self._nonces: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._seconds: dict[str, tuple[int, int]] = {}
        self.held: defaultdict[str, set[str]] = defaultdict(set)  # account → references whose answer, final already, is held back

    def check(self, params: Mapping[str, str], now: float) -> Account | str:
        """The account that signed, or the code that refuses."""
        account = self.books.accounts.by_app_key.get(params.get("app_key", ""))
        if account is None:
            return "APP_KEY_INVALID"
        if not hmac.compare_digest(protocol.sign(account.secret, params).encode(), params.get("sign", "").encode()):
            return "SIGN_INVALID"
        timestamp = params.get("timestamp", "")
        if not (timestamp.isascii() and timestamp.isdigit() and abs(int(timestamp) - now) <= protocol.CLOCK_WINDOW_S):
            return "TIMESTAMP_EXPIRED"
        nonce = (account.name, params.get("nonce", ""))
        if not nonce[1] or nonce in self._nonces:
            return "NONCE_REUSED"
        self._nonces[nonce] = None
        if len(self._nonces) > NONCES_KEPT:
            self._nonces.popitem(last=False)
        return account

    def is_over_limit(self, account: Account, now: float) -> bool:
        limit = account.knobs.rate_limit_per_s
        if not limit:
            return False
        second, count = self._seconds.get(account.name, (0, 0))
        count = count + 1 if second == int(now) else 1
        self._seconds[account.name] = (int(now), count)
        return count > limit

    async def note(self, supplier: str, path: str, reference: str, verdict: str, now: float) -> None:
        await self.writer.submit(lambda: self.books.record_request(supplier, path, reference, verdict, now))


@dataclass(frozen=True, slots=True)
class Placed:
    """An order in the books. `manner`: how its caller is treated."""

    view: dict[str, Any]
    new: bool
    manner: Manner


async def take(vendor: Vendor, account: Account, ask: Ask, now: float, *, always_new: bool = False) -> Placed | Manner | None:
    """Enters an order. The manner alone when the request was lost before it became one; None above the account's capacity."""
    plan = behaviour.plan(account.knobs.of(ask.product_code), account.role, ask.target, ask.units, account.draw)
    if not plan.recorded:
        await vendor.note(account.name, "place", ask.reference, f"lost: {plan.manner}", now)
        return plan.manner

    def placed() -> tuple[dict[str, Any], bool] | None:
        """None above the account's capacity; decided where orders are written, so that no two take the last place."""
        capacity, held = account.knobs.capacity, vendor.held[account.name]
        if capacity and vendor.books.count_open(account) + len(held) >= capacity:
            vendor.books.record_request(account.name, "place", ask.reference, "RATE_LIMITED", now)
            return None
        view, new = vendor.books.place(account, ask, plan, now, always_new=always_new)
        if capacity and view["status"] != Status.PROCESSING:
            held.add(ask.reference)
        return view, new

    done = await vendor.writer.submit(placed)
    return None if done is None else Placed(*done, plan.manner if done[1] else Manner.ANSWER)


async def place(vendor: Vendor, account: Account, params: Mapping[str, str], now: float) -> Reply | Manner:
    try:
        ask = protocol.read_ask(params)
    except protocol.Malformed:
        await vendor.note(account.name, "place", params.get("out_order_no", "")[:64], "BAD_REQUEST", now)
        return 200, answer("BAD_REQUEST")
    done = await take(vendor, account, ask, now)
    if isinstance(done, Manner):
        return done
    if done is None:
        return 429, answer("RATE_LIMITED")
    if done.manner is Manner.ERROR_500:
        return 500, answer("SYSTEM_ERROR")
    if done.manner is not Manner.ANSWER:
        return done.manner
    if done.view["fail_code"] == "BALANCE_NOT_ENOUGH" and account.knobs.wallet_empty_answer == "http_500":
        return 500, answer("SYSTEM_ERROR")
    return 200, _told(done.view, at_place=True)


async def query(vendor: Vendor, account: Account, params: Mapping[str, str], now: float) -> Reply | Manner:
    reference = params.get("out_order_no", "")[:64]
    view = await vendor.writer.submit(lambda: vendor.books.look_up(account, reference, now))
    return 200, answer("ORDER_NOT_FOUND") if view is None else _told(view, at_place=False)


async def hurry(vendor: Vendor, account: Account, params: Mapping[str, str], now: float) -> Reply | Manner:
    """What no real vendor has: whatever the order waits for happens now."""
    reference = params.get("out_order_no", "")[:64]
    moved = await vendor.writer.submit(lambda: vendor.books.hurry(account, reference, now))
    return 200, answer("ORDER_NOT_FOUND") if moved is None else answer(OK, {"moved": str(moved)})


def _told(view: dict[str, Any], *, at_place: bool) -> bytes:
    """A refusal at placing carries its reason as the code of the answer; in a query the order tells it."""
    if view["status"] == Status.CONTACT_STAFF:
        return answer("CONTACT_STAFF", view)
    return answer(view["fail_code"] if at_place and view["status"] == Status.FAILED else OK, view)


async def balance(vendor: Vendor, account: Account, params: Mapping[str, str], now: float) -> Reply | Manner:
    await vendor.note(account.name, "balance", "", OK, now)
    return 200, answer(OK, {"balance": format_amount(account.balance), "currency": account.currency})


async def products(vendor: Vendor, account: Account, params: Mapping[str, str], now: float) -> Reply | Manner:
    """The whole list in one answer, or with `limit` a page of it, the lines after the code `after`."""
    await vendor.note(account.name, "products", "", OK, now)
    limit = params.get("limit", "")
    if not limit:
        return 200, answer(OK, lists.whole(account))
    if not (limit.isascii() and limit.isdigit() and 1 <= int(limit) <= lists.LARGEST_PAGE):
        return 200, answer("BAD_REQUEST")
    try:
        return 200, answer(OK, lists.page(account, params.get("after", ""), int(limit)))
    except lists.Unavailable:
        return 503, answer("SERVICE_UNAVAILABLE")


async def product(vendor: Vendor, account: Account, params: Mapping[str, str], now: float) -> Reply | Manner:
    """One line of the list."""
    await vendor.note(account.name, "product", params.get("product_code", "")[:64], OK, now)
    found = account.products.get(params.get("product_code", ""))
    return 200, answer("PRODUCT_NOT_FOUND") if found is None else answer(OK, lists.line(account, found))


async def changes(vendor: Vendor, account: Account, params: Mapping[str, str], now: float) -> Reply | Manner:
    """Lines whose price, stock or status has changed since `since` (unix seconds), oldest first, each change once; `after` the last one seen."""
    await vendor.note(account.name, "changes", "", OK, now)
    since, after = params.get("since", ""), params.get("after", "") or "0"
    if not all(text.isascii() and text.isdigit() for text in (since, after)):
        return 200, answer("BAD_REQUEST")
    accounts = vendor.books.accounts
    rows = await vendor.writer.submit(lambda: accounts.changes(account.name, float(since), after=int(after), limit=CHANGES_PAGE))
    shown = [{"product_code": row["code"], "at": str(int(row["at"]))} for row in rows]
    return 200, answer(OK, {"changes": shown, "next": str(rows[-1]["id"]) if len(rows) == CHANGES_PAGE else ""})


async def number(vendor: Vendor, account: Account, params: Mapping[str, str], now: float) -> Reply | Manner:
    """Who carries a number today. The last four digits say it, so that tests can: see docs/simulator.md; of others nothing is known."""
    carrier, virtual = NUMBERS.get(params.get("target", "")[-4:], ("", False))
    await vendor.note(account.name, "number", "", OK, now)
    return 200, answer(OK, {"carrier": carrier, "virtual": "1" if virtual else "0", "ported": "1" if carrier else "0"})


async def statement(vendor: Vendor, account: Account, params: Mapping[str, str], now: float) -> Reply | Manner:
    """One page of a day's wallet movements (China time), oldest first; `next` is empty on the last page."""
    try:
        day = date.fromisoformat(params.get("day", ""))
        after = int(params.get("after", "") or 0)
    except ValueError:
        return 200, answer("BAD_REQUEST")
    accounts, faults = vendor.books.accounts, account.knobs.statement
    start = datetime(day.year, day.month, day.day, tzinfo=statements.CHINA).timestamp()
    since = start - 86_400 if faults.other_day_rate else start
    limit = STATEMENT_PAGE
    if faults.truncate_after is not None:
        told = await vendor.writer.submit(lambda: accounts.count_movements(account.name, since, start + 86_400, upto=after))
        limit = min(limit, max(faults.truncate_after - told, 0))
    rows = await vendor.writer.submit(lambda: accounts.movements(account.name, since, start + 86_400, after=after, limit=limit))
    movements = [statements.movement_of(row, "" if row["order_id"] is None else order_no(row["order_id"])) for row in rows]
    more = str(rows[-1]["id"]) if len(rows) == STATEMENT_PAGE else ""
    return 200, answer(OK, {"lines": statements.page(faults, movements, start, account.currency), "next": more})


class Endpoint:
    """One path of the vendor's API: outage, signature, rate limit, the call itself, latency."""

    def __init__(self, name: str, call: Call) -> None:
        self._name = name
        self._call = call

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        vendor: Vendor = scope["app"].state.vendor
        body = await read_body(receive)
        try:
            reply = await self._decide(vendor, body)
        except Exception:
            log.exception("simulator failed")
            reply = 500, answer("SYSTEM_ERROR")
        if isinstance(reply, Manner):
            await keep_silent(reply, scope, receive)
            return
        await _send(send, *reply)

    async def _decide(self, vendor: Vendor, body: bytes) -> Reply | Manner:
        now = time.time()
        try:
            params = protocol.read_params(body)
        except protocol.Malformed:
            return 200, answer("BAD_REQUEST")
        reference = params.get("out_order_no", "")[:64]
        known = vendor.books.accounts.by_app_key.get(params.get("app_key", ""))
        product_code = params.get("product_code", "")  # only an order names one
        down = behaviour.is_down(known.knobs.of(product_code), now, vendor.time_scale) if known is not None else "none"
        paths = known.knobs.outage_paths if known is not None else ()
        if known is not None and down != "none" and (not paths or self._name in paths):
            await vendor.note(known.name, self._name, reference, f"outage: {down}", now)
            return Manner.HANG if down == "silent" else (503, answer("SERVICE_UNAVAILABLE"))
        account = vendor.check(params, now)
        if isinstance(account, str):
            await vendor.note(known.name if known is not None else "", self._name, reference, account, now)
            return 200, answer(account)
        if vendor.is_over_limit(account, now):
            await vendor.note(account.name, self._name, reference, "RATE_LIMITED", now)
            return 429, answer("RATE_LIMITED")
        try:
            return await self._answered(vendor, account, params, now)
        finally:
            if self._name == "place":
                vendor.held[account.name].discard(reference)

    async def _answered(self, vendor: Vendor, account: Account, params: Mapping[str, str], now: float) -> Reply | Manner:
        reply = await self._call(vendor, account, params, now)
        wait_ms = behaviour.wait_ms(account.knobs.of(params.get("product_code", "")), account.draw)
        if wait_ms:
            await asyncio.sleep(wait_ms / 1000)
        return reply


async def keep_silent(manner: Manner, scope: Scope, receive: Receive) -> None:
    """No answer: until the caller has gone, or by cutting the connection now."""
    if manner is Manner.HANG:
        while (await receive())["type"] != "http.disconnect":
            pass
    else:
        scope["state"]["transport"].abort()
        await asyncio.sleep(0.01)


async def read_body(receive: Receive) -> bytes:
    """The whole body; nothing when it is too large or the caller has gone."""
    body = b""
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return b""
        part: bytes = message.get("body", b"")
        body += part
        if len(body) > LARGEST_BODY:
            return b""
        if not message.get("more_body", False):
            return body


async def _send(send: Send, status: int, body: bytes) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


ENDPOINTS: Final[dict[str, Endpoint]] = {
    "/open/v2/order/place": Endpoint("place", place),
    "/open/v2/order/query": Endpoint("query", query),
    "/open/v2/order/hurry": Endpoint("hurry", hurry),
    "/open/v2/balance": Endpoint("balance", balance),
    "/open/v2/products": Endpoint("products", products),
    "/open/v2/product": Endpoint("product", product),
    "/open/v2/changes": Endpoint("changes", changes),
    "/open/v2/number": Endpoint("number", number),
    "/open/v2/statement": Endpoint("statement", statement),
}
