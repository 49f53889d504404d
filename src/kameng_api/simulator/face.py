"""Another vendor's protocol on the simulator's books: the same orders, wallet, faults and delivery log, spoken as that vendor speaks.

A face is written from the vendor's document and knows nothing of the adapter it is asked by. It says which paths there are, checks the
signature as the vendor does, turns a request into a call of `Counter`, and the order it gets into the vendor's words.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final
from urllib.parse import parse_qsl

import orjson
from starlette.routing import compile_path
from starlette.types import ASGIApp, Receive, Scope, Send

from kameng_api.simulator import behaviour, vendor
from kameng_api.simulator.accounts import Account
from kameng_api.simulator.behaviour import Manner
from kameng_api.simulator.books import Habits, Letter, cost_now
from kameng_api.simulator.clock import Written
from kameng_api.simulator.config import Product
from kameng_api.simulator.protocol import Ask
from kameng_api.simulator.vendor import Vendor

log = logging.getLogger(__name__)
JSON: Final = {"content-type": "application/json"}


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as it came. `headers` by lower-case name; `named` holds the parts of the path; `now` is seconds since 1970."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    named: Mapping[str, str]
    now: float

    def form(self) -> dict[str, str]:
        """The fields of a form body; of a name that stands twice, the last."""
        return dict(parse_qsl(self.body.decode("utf-8", "replace"), keep_blank_values=True))

    def params(self) -> dict[str, str]:
        """The fields of the query string."""
        return dict(parse_qsl(self.query, keep_blank_values=True))

    def json(self) -> Any:
        """The JSON body, None when there is none."""
        try:
            return orjson.loads(self.body)
        except orjson.JSONDecodeError:
            return None


@dataclass(frozen=True, slots=True)
class Told:
    """An answer as it goes over the wire."""

    body: bytes = field(repr=False)
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=lambda: JSON)


def told(value: object, status: int = 200) -> Told:
    """A JSON answer."""
    return Told(orjson.dumps(value), status)


class Unanswered(Exception):
    """The request gets no answer, or one that says nothing (`Manner.ERROR_500`)."""

    def __init__(self, manner: Manner) -> None:
        super().__init__(manner.value)
        self.manner = manner


class Busy(Exception):
    """Above the account's capacity; nothing was entered."""


class Counter:
    """What a face can do in the books for one account; everything it returns is committed.

    An order is a mapping: `id` (number), `order_no`, `out_order_no` (our reference), `status` (protocol.Status), `product_code`,
    `product_type`, `units`, `delivered_units`, `cost` (text), `unit_cost` (1/10000), `currency`, `receipt`, `fail_code` (protocol.FAIL_CODES),
    `reversal_no`, `reversed_amount` (text), `target`, `face_value` (1/10000 or None), `fields`, `callback_url`, `created_at`, `finished_at`
    (seconds since 1970) and, for card products once delivered, `cards` [{code, pin}].
    """

    def __init__(self, desk: Vendor, account: Account, now: float) -> None:
        self._desk = desk
        self.account = account
        self.now = now
        self.placed: set[str] = set()

    async def place(self, ask: Ask, *, always_new: bool = False) -> tuple[dict[str, Any], bool]:
        """(the order, whether it is new). `always_new`: a vendor that does not know repetitions. Raises Unanswered, Busy."""
        self.placed.add(ask.reference)
        done = await vendor.take(self._desk, self.account, ask, self.now, always_new=always_new)
        if done is None:
            raise Busy
        if isinstance(done, Manner):
            raise Unanswered(done)
        if done.manner is not Manner.ANSWER:
            raise Unanswered(done.manner)
        if done.view["fail_code"] == "BALANCE_NOT_ENOUGH" and self.account.knobs.wallet_empty_answer == "http_500":
            raise Unanswered(Manner.ERROR_500)
        number = done.view["order_no"]
        order = await self._desk.writer.submit(lambda: self._desk.books.describe(self.account, number=number))
        assert order is not None
        return order, done.new

    async def find(self, *, reference: str = "", number: str = "") -> dict[str, Any] | None:
        """The order under our `reference` (not before `not_found_for_s`), or under the vendor's own `number` (id or order_no)."""

        def found() -> dict[str, Any] | None:
            order = self._desk.books.describe(self.account, reference=reference, number=number)
            name = reference or ("" if order is None else order["out_order_no"])
            if self._desk.books.look_up(self.account, name, self.now) is None:
                return None
            return order

        return await self._desk.writer.submit(found)

    async def is_known(self, reference: str) -> bool:
        """Whether the books hold an order under `reference`, also one that is not shown yet."""
        return await self._desk.writer.submit(lambda: self._desk.books.describe(self.account, reference=reference)) is not None

    async def cancel(self, reference: str) -> dict[str, Any] | None:
        """An order that is worked on fails and is paid back; any other stays as it is. The order, None where there is none."""

        def cancelled() -> dict[str, Any] | None:
            books = self._desk.books
            order = books.describe(self.account, reference=reference)
            if order is not None and order["status"] == "PROCESSING":
                books.advance(self.account, reference, "FAILED", self.now)
            return books.describe(self.account, reference=reference)

        return await self._desk.writer.submit(cancelled)

    @property
    def products(self) -> Sequence[Product]:
        """The list in the order of its codes."""
        return [self.account.products[code] for code in sorted(self.account.products)]

    def cost_of(self, product: Product) -> int:
        """What it costs now, 1/10000 units; of ranged products per 1.00 of face value."""
        return cost_now(product, self.account.knobs.of(product.code).price_factor)

    def stock_of(self, product: Product) -> int | None:
        return self.account.stock[product.code]

    async def movements(self, start: float, end: float, *, after: int = 0, limit: int = 1000) -> list[Mapping[str, Any]]:
        """Wallet movements in `[start, end)` (seconds since 1970), oldest first: id, at, reference, order_id, kind, amount, balance_after."""
        accounts = self._desk.books.accounts
        rows = await self._desk.writer.submit(lambda: accounts.movements(self.account.name, start, end, after=after, limit=limit))
        return [dict(row) for row in rows]

    async def orders_between(self, start: float, end: float, *, after: int = 0, limit: int = 1000) -> list[dict[str, Any]]:
        """Orders placed in `[start, end)`, oldest first, with an id above `after`."""
        books = self._desk.books
        return await self._desk.writer.submit(lambda: books.list_orders(self.account, start, end, after=after, limit=limit))


Answering = Callable[[Counter, Asked], Awaitable[Told]]


@dataclass(frozen=True, slots=True)
class Path:
    """One path of the vendor. `kind` says which faults concern it: place, query, balance, products, number, statement, or other."""

    method: str
    template: str
    kind: str
    answer: Answering


class Face:
    """A vendor. Subclasses fill `paths` (in `__init__` or as a property), `account_of`, `write`, and what differs from the defaults."""

    habits: ClassVar[Habits] = Habits()
    retry_after_s: Sequence[float] = (5.0, 15.0, 60.0)
    acknowledgement: ClassVar[bytes] = b"success"
    settings: ClassVar[Mapping[str, Any]]
    """What the adapter's settings hold beside `base_url`: the account's keys as the twin's configuration gives them."""

    def paths(self) -> Sequence[Path]:
        raise NotImplementedError

    def account_of(self, asked: Asked, accounts: Mapping[str, Account], kind: str) -> Account | Told:
        """Whose signature it is, or the vendor's refusal. `accounts` by app key; `Account.secret` is its signing key."""
        raise NotImplementedError

    def write(self, letter: Letter, now: float, *, forged: bool) -> Written:
        """A callback; `letter.view` and `letter.more` together hold what `Counter` says of an order."""
        raise NotImplementedError

    def is_acknowledged(self, status: int, body: bytes) -> bool:
        return status == 200 and body == self.acknowledgement

    def busy(self, kind: str) -> Told:
        """Its documented answer to too many requests; most have none."""
        return told({"message": "too many requests"}, 429)

    def broken(self, kind: str) -> Told:
        """What it says when it breaks after the order was entered."""
        return Told(b"<html><body><h1>500 Internal Server Error</h1></body></html>", 500, {"content-type": "text/html"})

    def down(self, kind: str) -> Told:
        return Told(b"<html><body><h1>503 Service Unavailable</h1></body></html>", 503, {"content-type": "text/html"})

    # ---- what runs it

    def find(self, method: str, path: str) -> ASGIApp | None:
        for known, pattern, converters in self._compiled():
            match = pattern.match(path) if known.method == method else None
            if match is not None:
                named = {name: str(converters[name].convert(value)) for name, value in match.groupdict().items()}
                return _Endpoint(self, known, named)
        return None

    def _compiled(self) -> list[tuple[Path, Any, Any]]:
        found: list[tuple[Path, Any, Any]] | None = self.__dict__.get("_patterns")
        if found is None:
            found = [(path, *compile_path(path.template)[::2]) for path in self.paths()]
            self.__dict__["_patterns"] = found
        return found


class _Endpoint:
    """One request to a face: outage, signature, rate limit, the call, latency, and silence where the knobs want it."""

    def __init__(self, face: Face, path: Path, named: Mapping[str, str]) -> None:
        self._face = face
        self._path = path
        self._named = named

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        desk: Vendor = scope["app"].state.vendor
        body = await vendor.read_body(receive)
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        asked = Asked(scope["method"], scope["path"], scope["query_string"].decode("latin-1"), headers, body, self._named, time.time())
        try:
            answer = await self._decide(desk, asked)
        except Unanswered as unanswered:
            if unanswered.manner is not Manner.ERROR_500:
                await vendor.keep_silent(unanswered.manner, scope, receive)
                return
            answer = self._face.broken(self._path.kind)
        except Exception:
            log.exception("twin failed")
            answer = self._face.broken(self._path.kind)
        fields = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in answer.headers.items()]
        fields.append((b"content-length", str(len(answer.body)).encode()))
        await send({"type": "http.response.start", "status": answer.status, "headers": fields})
        await send({"type": "http.response.body", "body": answer.body})

    async def _decide(self, desk: Vendor, asked: Asked) -> Told:
        face, kind = self._face, self._path.kind
        account = face.account_of(asked, desk.books.accounts.by_app_key, kind)
        if isinstance(account, Told):
            await desk.note("", kind, "", "SIGN_INVALID", asked.now)
            return account
        down = behaviour.is_down(account.knobs, asked.now, desk.time_scale)
        if down != "none" and (not account.knobs.outage_paths or kind in account.knobs.outage_paths):
            await desk.note(account.name, kind, "", f"outage: {down}", asked.now)
            if down == "silent":
                raise Unanswered(Manner.HANG)
            return face.down(kind)
        if desk.is_over_limit(account, asked.now):
            await desk.note(account.name, kind, "", "RATE_LIMITED", asked.now)
            return face.busy(kind)
        counter = Counter(desk, account, asked.now)
        try:
            answer = await self._path.answer(counter, asked)
        except Busy:
            return face.busy(kind)
        finally:
            desk.held[account.name] -= counter.placed
        wait_ms = behaviour.wait_ms(account.knobs, account.draw)
        if wait_ms:
            await asyncio.sleep(wait_ms / 1000)
        return answer
