"""What Reloadly's services share: tokens by audience, error bodies, reports whose filters read UTC-4, signed webhooks. Sources as in the twins.

The dashboard, where a human sets the webhook's address, is here one path more (`PUT /dashboard`); it is no part of the vendor's API.
"""

import asyncio
import hmac
import secrets
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, Final

import orjson

from kameng_api.simulator.accounts import Account
from kameng_api.simulator.books import Letter
from kameng_api.simulator.clock import Written
from kameng_api.simulator.face import Asked, Counter, Face, Path, Told
from kameng_api.simulator.protocol import Ask

WEBHOOK_SECRET: Final = "webhook-secret-of-the-dashboard"
FILTER_ZONE: Final = timezone(timedelta(hours=-4))
"""In which `startDate` and `endDate` are read, although rows say UTC."""
CHECK_TO_ENTRY_S: Final = 0.05
"""Between the check of a number and the order lies a moment in which another call passes the same check."""


def stamp(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}"


def units(amount: int) -> int | float:
    return amount / 10_000


class ReloadlyFace(Face):
    """One service behind one audience. Subclasses add their paths, `refused_at_once` and `row`."""

    retry_after_s: Sequence[float] = (5.0, 15.0, 60.0)
    audience = ""
    event = ""
    media_type = ""
    refused_at_once: Mapping[str, tuple[int, str]] = {}
    """The books' reasons that are errors of the request: it leaves no order, and its number can be used again."""

    def __init__(self) -> None:
        self.tokens: dict[str, tuple[str, float]] = {}
        self.tokens_given = 0
        self.tokens_refused = 0
        self.expires_in = 3600
        self.webhook_url = ""
        self.numbers: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)  # identifier without its case → (identifier, order id)

    def paths(self) -> Sequence[Path]:
        return (
            Path("POST", "/oauth/token", "other", self.token),
            Path("PUT", "/dashboard", "other", self.dashboard),
            Path("GET", "/accounts/balance", "balance", self.balance),
        )

    # ---- who asks

    def account_of(self, asked: Asked, accounts: Mapping[str, Account], kind: str) -> Account | Told:
        if asked.path in ("/oauth/token", "/dashboard"):
            return self._client(asked, accounts)
        scheme, _, token = asked.headers.get("authorization", "").partition(" ")
        if not token:
            return self.error(401, "MISSING_TOKEN", asked.path)
        name, until = self.tokens.get(token, ("", 0.0))
        if scheme != "Bearer" or not name:
            return self.error(401, "INVALID_TOKEN", asked.path)
        if asked.now >= until:
            return self.error(401, "TOKEN_EXPIRED", asked.path)
        if asked.headers.get("accept") not in self.accepted(asked.path):
            return self.error(406, "NOT_ACCEPTABLE", asked.path)
        return accounts[name]

    def _client(self, asked: Asked, accounts: Mapping[str, Account]) -> Account | Told:
        body = asked.json()
        account = accounts.get(str(body.get("client_id"))) if isinstance(body, dict) else None
        if account is None or not hmac.compare_digest(account.secret, str(body.get("client_secret")).encode()):
            self.tokens_refused += 1
            return self.error(401, "INVALID_CREDENTIALS", asked.path)
        if asked.path == "/oauth/token" and body.get("audience") != self.audience:
            return self.error(400, "INVALID_AUDIENCE", asked.path)
        return account

    def accepted(self, path: str) -> frozenset[str]:
        return frozenset({self.media_type})

    async def token(self, counter: Counter, asked: Asked) -> Told:
        if asked.json().get("grant_type") != "client_credentials":
            return self.error(400, "INVALID_INPUT_PROVIDED", asked.path)
        value = secrets.token_urlsafe(24)
        self.tokens[value] = counter.account.app_key, counter.now + self.expires_in
        self.tokens_given += 1
        return self.json({"access_token": value, "scope": "developer", "expires_in": self.expires_in, "token_type": "Bearer"})

    async def dashboard(self, counter: Counter, asked: Asked) -> Told:
        """Sets the webhook's address and the life of tokens, revokes those that were given, and says how many were given and refused."""
        body = asked.json()
        self.webhook_url = body.get("webhook_url", self.webhook_url)
        self.expires_in = body.get("expires_in", self.expires_in)
        if body.get("revoke"):
            self.tokens.clear()
        return self.json({"given": self.tokens_given, "refused": self.tokens_refused})

    async def balance(self, counter: Counter, asked: Asked) -> Told:
        account = counter.account
        told = {"balance": units(account.balance), "currencyCode": account.currency, "currencyName": account.currency, "updatedAt": stamp(asked.now)}
        return self.json(told)

    # ---- orders

    async def enter(self, counter: Counter, asked: Asked, ask: Ask) -> dict[str, Any] | Told:
        """A new order, or the refusal. The check of its number sees only what was entered when it looked."""
        known = await counter.find(reference=ask.reference) if await counter.is_known(ask.reference) else None
        if await counter.is_known(ask.reference) and (known is None or not self.was_refused(known)):
            return self.error(400, "CUSTOM_IDENTIFIER_ALREADY_USED", asked.path)
        await asyncio.sleep(CHECK_TO_ENTRY_S)
        order, _ = await counter.place(ask, always_new=True)
        if self.was_refused(order):
            status, code = self.refused_at_once[order["fail_code"]]
            return self.error(status, code, asked.path)
        self.numbers[ask.reference.lower()].append((ask.reference, str(order["id"])))
        return order

    def was_refused(self, order: Mapping[str, Any]) -> bool:
        """Whether its request was answered with an error: what fails later is an order."""
        return order["status"] == "FAILED" and order["fail_code"] in self.refused_at_once and order["finished_at"] == order["created_at"]

    async def report(self, counter: Counter, asked: Asked, cap: int) -> Told:
        """Rows of a window, which is read UTC-4; `customIdentifier` is searched without its case. Pages are counted from 1."""
        params = asked.params()
        try:
            start = self._moment(params.get("startDate"), 0.0)
            end = self._moment(params.get("endDate"), counter.now + 1)
        except ValueError:
            return self.error(400, "INVALID_INPUT_PROVIDED", asked.path)
        wanted = params.get("customIdentifier")
        if wanted is None:
            orders = await counter.orders_between(start, end, limit=1_000_000)
        else:
            orders = [order for order in await self._named(counter, wanted) if start <= order["created_at"] < end]
        rows = [self.row(order) for order in orders if not self.was_refused(order)]
        return self.page(params, rows, cap)

    async def _named(self, counter: Counter, wanted: str) -> list[dict[str, Any]]:
        named = self.numbers.get(wanted.lower())
        if named is None:  # from before a restart: only the first is found again
            order = await counter.find(reference=wanted)
            return [] if order is None else [order]
        if await counter.find(reference=named[0][0]) is None:  # not shown yet
            return []
        return [order for _, number in named if (order := await counter.find(number=number)) is not None]

    def _moment(self, text: str | None, otherwise: float) -> float:
        return otherwise if text is None else datetime.strptime(text, "%Y-%m-%d %H:%M:%S").replace(tzinfo=FILTER_ZONE).timestamp()

    def page(self, params: Mapping[str, str], rows: Sequence[Any], cap: int) -> Told:
        size = min(max(int(params.get("size", "50")), 1), cap)
        number = max(int(params.get("page", "1")), 1)
        pages = -(-len(rows) // size)
        content = rows[(number - 1) * size : number * size]
        told = {"content": content, "totalElements": len(rows), "totalPages": pages, "last": number >= pages, "first": number == 1, "size": size}
        return self.json({**told, "number": number, "numberOfElements": len(content)})

    def row(self, order: Mapping[str, Any]) -> dict[str, Any]:
        raise NotImplementedError

    # ---- answers

    def json(self, value: object, status: int = 200) -> Told:
        return Told(orjson.dumps(value), status, {"content-type": f"{self.media_type};charset=UTF-8" if self.media_type else "application/json"})

    def error(self, status: int, code: str | None, path: str, message: str = "") -> Told:
        body = {"timeStamp": stamp(datetime.now(UTC).timestamp()), "message": message or str(code), "path": path, "errorCode": code}
        return Told(orjson.dumps({**body, "infoLink": None, "details": []}), status, {"content-type": "application/json"})

    def busy(self, kind: str) -> Told:
        return self.error(429, "RATE_LIMIT_REACHED", "")

    def broken(self, kind: str) -> Told:
        return self.error(500, "TRANSACTION_CANNOT_BE_PROCESSED_AT_THE_MOMENT", "")

    # ---- webhooks

    def write(self, letter: Letter, now: float, *, forged: bool) -> Written:
        body = orjson.dumps({"date": stamp(now), "type": self.event, "data": self.row({**letter.more, **letter.view})})
        timestamp = str(int(now * 1000))
        secret = b"not the secret" if forged else WEBHOOK_SECRET.encode()
        signature = hmac.digest(secret, body + b":" + timestamp.encode(), "sha256").hex()
        return Written(
            body, {"content-type": "application/json", "X-Reloadly-Request-Timestamp": timestamp, "X-Reloadly-Signature": signature}
        )

    def is_acknowledged(self, status: int, body: bytes) -> bool:
        return status == 200
