"""The house in miniature: the contract's order API on one port, signed by the kit's keys, and a memory of every request it got."""

import asyncio
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson
from aiohttp import web

from kameng_api.conformance import requests
from kameng_api.conformance.options import Options
from kameng_api.conformance.orders import UNIT_PRICE, NumberTaken, Order, OrderBook, defaults
from kameng_api.conformance.requests import RETRY, STATUS, Refused, Signed
from kameng_api.conformance.trace import Exchange, Redactor
from kameng_api.conformance.troubles import AnswerLost, NewMembers, NumberUsed, RefusedForGood, ServerError, TooMany, Trouble
from kameng_api.kit.ids import new_ulid, public_id
from kameng_api.kit.money import format_amount

_MAX_BODY_BYTES: Final = 1 << 20
_CREATE: Final = "/v1/orders"
_ORDER: Final = re.compile(r"/v1/orders/(?P<id>[A-Za-z0-9._~-]+)(?P<part>/refunds|/timeline|/cancel)?")
_BY_NUMBER: Final = re.compile(r"/v1/orders/by-merchant-no/(?P<number>[A-Za-z0-9._~-]+)")
_PRODUCT: Final = re.compile(r"/v1/products/(?P<sku>[A-Za-z0-9._~-]+)")


@dataclass(slots=True)
class Seen:
    """One request of the merchant's software. `at` is monotonic; `number` and `content` only for a proven and well-formed creation of an order,
    `attempted` the number in any other; `problem` is the code it was refused with, also where a scenario made that up (`played`).
    """

    at: float
    method: str
    path: str
    exchange: Exchange
    number: str | None = None
    content: dict[str, Any] | None = None
    attempted: str | None = None
    timestamp: int | None = None
    problem: str | None = None
    detail: str = ""
    played: bool = False


@dataclass(slots=True)
class Reply:
    """What is answered; `lost_after_s` instead: nothing, and then the end of the connection."""

    status: int
    document: Any
    headers: Mapping[str, str] = field(default_factory=dict)
    lost_after_s: float | None = None


class House:
    """Serves between `start` and `stop`. Scenarios set `script` and `clock_offset_s`, and read `seen` and `book`.

    `settled`: numbers of earlier scenarios, which a late repetition may bring again; no trouble is spent on them.
    """

    def __init__(self, options: Options, redactor: Redactor, journal: list[Exchange]) -> None:
        self._options = options
        self._redactor = redactor
        self._journal = journal
        self._nonces: set[str] = set()
        self._runner: web.AppRunner | None = None
        self.book = OrderBook()
        self.seen: list[Seen] = []
        self.script: list[Trouble] = []
        self.settled: frozenset[str] = frozenset()
        self.clock_offset_s = 0
        self.changed = asyncio.Condition()
        self.base_url = ""

    async def start(self) -> None:
        """Begin to listen. Raises OSError when the port is taken."""
        app = web.Application(client_max_size=_MAX_BODY_BYTES)
        app.router.add_route("*", "/{tail:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._options.host, self._options.port)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.base_url = f"http://{host}:{port}"

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        began = time.monotonic()
        exchange = Exchange("merchant → platform", f"{request.method} {self._redactor.text(request.raw_path)}")
        exchange.request_headers = self._redactor.headers(request.headers)
        seen = Seen(began, request.method, request.raw_path.partition("?")[0], exchange)
        try:
            body = await request.read()
            exchange.request_body = self._redactor.body(body)
            seen.attempted = _number_in(body) if seen.path == _CREATE else None
            signed = Signed(request.method, request.raw_path, request.headers.getall("Authorization", []), body)
            reply = self._reply(signed, request.headers.get("Content-Type", ""), seen)
        except web.HTTPRequestEntityTooLarge:
            reply = _refusal(Refused("body_too_large", "at most 1 MB"), seen)
        except Refused as refused:
            reply = _refusal(refused, seen)
        if seen.path != "/livez":
            self.seen.append(seen)
            self._journal.append(exchange)
            async with self.changed:
                self.changed.notify_all()
        return await self._send(request, reply, exchange, began)

    async def _send(self, request: web.Request, reply: Reply, exchange: Exchange, began: float) -> web.StreamResponse:
        if reply.lost_after_s is not None:
            exchange.trouble = "the kit lost its own answer on purpose"
            await asyncio.sleep(reply.lost_after_s)
            exchange.took_s = time.monotonic() - began
            if request.transport is not None:
                request.transport.abort()
            return web.Response(status=503)  # nobody is there to read it any more
        kind = "application/problem+json" if reply.status >= 400 else "application/json"
        headers = {"Request-Id": public_id("req", new_ulid()), **reply.headers}
        content = orjson.dumps(reply.document)
        exchange.status, exchange.answer_headers, exchange.took_s = reply.status, self._redactor.headers(headers), time.monotonic() - began
        exchange.answer_body = self._redactor.body(content)
        return web.Response(body=content, status=reply.status, headers=headers, content_type=kind)

    def _reply(self, request: Signed, content_type: str, seen: Seen) -> Reply:
        path = request.path
        if path == "/livez":
            return Reply(200, {"status": "ok"})
        if path == "/v1/test/signature" and request.method == "POST":
            return self._show_text(request)
        credentials = requests.prove(
            request, key_id=self._options.key_id, secret=self._options.api_secret, nonces=self._nonces, clock_offset_s=self.clock_offset_s
        )
        seen.timestamp = credentials.timestamp
        if path == _CREATE and request.method == "POST":
            return self._create(request.body, content_type, seen)
        cancel = _ORDER.fullmatch(path)
        if cancel is not None and cancel["part"] == "/cancel" and request.method == "POST":
            return self._cancel(cancel["id"])
        if request.method != "GET":
            raise Refused("method_not_allowed" if path.startswith("/v1/") else "not_found", "the kit plays orders and events only")
        return self._read(path, request.target.partition("?")[2])

    def _create(self, body: bytes, content_type: str, seen: Seen) -> Reply:
        content, validate_only = requests.read_order(body, content_type)
        number = content["merchant_order_no"]
        if validate_only:
            amount = {"unit_price": format_amount(UNIT_PRICE), "amount": format_amount(UNIT_PRICE * content["quantity"]), "currency": "CNY"}
            told = {name: content[name] for name in ("merchant_order_no", "sku", "quantity")}
            return Reply(200, {"object": "order_validation", "valid": True, **told, **amount})
        seen.number, seen.content = number, content
        trouble = self.script.pop(0) if self.script and number not in self.settled else None
        seen.played = trouble is not None
        match trouble:
            case ServerError(status=status, booked=booked):
                if booked:
                    self.book.place(content)
                raise Refused("internal" if status == 500 else "unavailable", "the kit plays a server in trouble", charged="unknown")
            case TooMany(retry_after_s=wait_s):
                raise Refused("rate_limited", "the kit plays a limit", retry_after_s=wait_s)
            case RefusedForGood():
                raise Refused("product_unavailable", "this product cannot be bought now")
            case NumberUsed():
                other = content["metadata"] | {"placed_by": "somebody else with this number"}
                self.book.place(defaults({**content, "metadata": other}))
        try:
            order, new = self.book.place(content)
        except NumberTaken as taken:
            raise Refused("merchant_order_no_conflict", str(taken), existing_order_id=taken.existing.order_id) from None
        headers = {"Location": f"{_CREATE}/{order.order_id}"} | ({} if new else {"Idempotent-Replayed": "true"})
        document = order.view()
        if isinstance(trouble, NewMembers):
            document |= {"x_carbon_grams": 3, "x_future": {"nested": [1, None, {"deep": True}]}}
            headers["X-Future"] = "yes"
        lost_s = trouble.hold_s if isinstance(trouble, AnswerLost) else None
        return Reply(201 if new else 200, document, headers, lost_s)

    def _cancel(self, order_id: str) -> Reply:
        order = self._order(order_id)
        if order.status == "accepted":
            self.book.advance(order, "cancelled")
        if order.status != "cancelled":
            raise Refused("state_conflict", "it was dispatched")
        return Reply(200, order.view())

    def _read(self, path: str, query: str) -> Reply:
        by_number, by_id, product = _BY_NUMBER.fullmatch(path), _ORDER.fullmatch(path), _PRODUCT.fullmatch(path)
        if by_number is not None:
            found = self.book.by_number.get(by_number["number"])
            if found is None:
                raise Refused("not_found", "you have no order with this number")
            return Reply(200, found.view())
        if path == _CREATE:
            return _page([order.view() for order in reversed(self.book.by_id.values())][:100])
        if by_id is not None:
            return self._order_part(self._order(by_id["id"]), by_id["part"])
        if path == "/v1/events":
            return self._events(query)
        if path == "/v1/products":
            return _page([self._product(self._options.sku)])
        if product is not None:
            return Reply(200, self._product(product["sku"]))
        if path == "/v1/balance":
            zero = format_amount(0)
            return Reply(200, {"currency": "CNY", "available": "1000000.0000", "held": zero, "credit_limit": zero, "deposit": zero, "frozen": zero})
        raise Refused("not_found", "the kit plays orders, events, products and the balance only")

    def _order(self, order_id: str) -> Order:
        order = self.book.by_id.get(order_id)
        if order is None:
            raise Refused("not_found", "you have no such order")
        return order

    def _order_part(self, order: Order, part: str | None) -> Reply:
        if part is None:
            return Reply(200, order.view())
        if part == "/refunds" and order.refunded:
            amount = {"amount": format_amount(order.refunded), "currency": "CNY"}
            refund = {"id": "rfd" + order.order_id[3:], "refund_no": "KIT-1", "reason": "reversed by the supplier", **amount}
            return _page([{**refund, "created_at": order.completed_at}])
        return _page([])

    def _events(self, query: str) -> Reply:
        asked = dict(part.partition("=")[::2] for part in query.split("&") if part)
        place = 0
        if "after" in asked:
            ids = [event["id"] for event in self.book.events]
            if asked["after"] not in ids:
                raise Refused("cursor_invalid", "no event of yours with this id is on record")
            place = ids.index(asked["after"]) + 1
        limit = int(asked.get("limit", "20")) if asked.get("limit", "20").isdecimal() else 20
        shown = self.book.events[place : place + min(max(limit, 1), 100)]
        more = place + len(shown) < len(self.book.events)
        return Reply(200, {"items": shown, "next_cursor": shown[-1]["id"] if more and shown else None})

    def _product(self, sku: str) -> dict[str, Any]:
        return {
            "sku": sku, "name": "Conformance product", "product_type": "topup", "face_value": "100.0000", "unit_price": format_amount(UNIT_PRICE),
            "currency": "CNY", "fields": [], "stock": "in_stock", "status": "on_sale",
        }  # fmt: skip

    def _show_text(self, request: Signed) -> Reply:
        _, text = requests.text_to_sign(request)
        readable = text.decode("latin-1")
        valid = True
        try:
            requests.prove(request, key_id=self._options.key_id, secret=self._options.api_secret, nonces=set(), clock_offset_s=self.clock_offset_s)
        except Refused:
            valid = False
        names = ("scheme", "timestamp", "nonce", "key_id", "method", "target", "body_sha256")
        lines = dict(zip(names, readable.split("\n")[:-1], strict=True))
        return Reply(200, {"string_to_sign": readable, "lines": lines, "bytes": len(text), "signature_valid": valid})


def _number_in(body: bytes) -> str | None:
    try:
        read = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    number = read.get("merchant_order_no") if isinstance(read, dict) else None
    return number if isinstance(number, str) else None


def _page(items: list[dict[str, Any]]) -> Reply:
    return Reply(200, {"items": items, "next_cursor": None})


def _refusal(refused: Refused, seen: Seen) -> Reply:
    seen.problem, seen.detail = refused.code, refused.detail
    status = STATUS[refused.code]
    reading = seen.method in ("GET", "HEAD")
    document = {
        "type": f"urn:kameng:problem:{refused.code}", "title": refused.code.replace("_", " ").capitalize(), "status": status,
        "detail": refused.detail, "instance": seen.path, "code": refused.code, "request_id": public_id("req", new_ulid()),
        "charged": "no", "retry": RETRY.get(refused.code, "never"),
    }  # fmt: skip
    document |= refused.facts | ({"charged": "no"} if reading else {})
    headers = {"Retry-After": str(refused.facts["retry_after_s"])} if "retry_after_s" in refused.facts else {}
    if status == 503:
        headers["Retry-After"] = "1"
    return Reply(status, document, headers)
