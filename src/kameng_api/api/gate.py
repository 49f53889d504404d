"""Everything a request must pass before the framework sees it, in the order of the contract.

size → strict header → clock → key → address → signature → nonce → rate → scope. Plain ASGI, because a framework parses before it asks who is
there. The body is read once, here, bounded in size and time, and handed on as bytes.
"""

import asyncio
import time
from datetime import UTC, datetime
from typing import Final

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kameng_api.api import limits, problems, signature
from kameng_api.api.access import BATCHES, NUMBERS, REVEALS, SIGNATURE_HELP, TEST_PREFIX, Access, nowhere
from kameng_api.api.deps import Door
from kameng_api.api.limits import Budget, Verdict
from kameng_api.api.problems import NothingHappened, RateLimited, Refused
from kameng_api.api.signature import CLOCK_WINDOW_S, Known
from kameng_api.kit import signing, traces
from kameng_api.kit.client_address import NOWHERE, Address, client_address, is_inside, neighbourhood
from kameng_api.kit.clock import utc_now
from kameng_api.kit.errors import NotFound, Problem
from kameng_api.kit.gather import Overflow
from kameng_api.kit.ids import new_ulid, ulid_text
from kameng_api.kit.signing import Credentials
from kameng_api.merchants.errors import AddressNotAllowed, BadSignature, KeyExpired, MerchantSuspended, ScopeMissing, UnknownKey
from kameng_api.merchants.rules import Caller, Key
from kameng_api.operators import actions as operators
from kameng_api.operators.errors import TokenInvalid

MAX_BODY_BYTES: Final = 1_000_000
MAX_UPLOAD_BYTES: Final = 32_000_000
"""A statement of a supplier, from an address that operators call from."""
MAX_FILE_BYTES: Final = 10_000_000
"""An import of a merchant (see `batches.rules`), or a scan of a supplier's document, from an address that operators call from."""
MAX_BATCH_BYTES: Final = 4_000_000
BODY_TIMEOUT_S: Final = 20.0
_LARGE_BODY_TIMEOUT_S: Final = 60.0
_DRAIN_BYTES: Final = 4 * MAX_BODY_BYTES
_DRAIN_S: Final = 2.0

_SIGNED: Final = b"/v1/"
_OPEN: Final = frozenset((b"/livez", b"/readyz", b"/openapi.json", b"/docs", b"/keys"))
_OPEN_BELOW: Final = b"/callbacks/"
_DOORS: Final = b"/doors/"
"""Foreign protocols, each with its own signature, which `doors.mounting` checks, and counts the failures of."""
_RESTRICTED: Final = b"/admin/"
_UPLOADS: Final = b"/admin/v1/reconciliation/files"
_METRICS: Final = b"/metrics"
_SCANS: Final = b"/admin/v1/supplier-files"
_MOST: Final = {_UPLOADS: MAX_UPLOAD_BYTES, _SCANS: MAX_FILE_BYTES, b"/v1/order-imports": MAX_FILE_BYTES, b"/v1/order-batches": MAX_BATCH_BYTES}
"""How many bytes a body may have, where that is more than MAX_BODY_BYTES."""

# What counts against an address: it could not prove who it is. A used nonce was signed by somebody.
_FAILURES: Final = frozenset(
    ("auth_missing", "auth_malformed", "unknown_key", "key_expired", "bad_signature", "timestamp_out_of_window", "ip_not_allowed")
)


class ClientGone(Exception):
    """The caller hung up before the request was whole."""


class Visit:
    """One request on its way through the gate: what is known of it so far, and what its answer must carry."""

    __slots__ = (
        "_receive", "_send", "access", "address", "answer_headers", "body", "body_done", "client", "door", "most", "neighbourhood", "path",
        "request_id", "scope", "status",
    )  # fmt: skip

    def __init__(self, scope: Scope, receive: Receive, send: Send, door: Door) -> None:
        self.scope = scope
        self._receive = receive
        self._send = send
        self.door = door
        self.path: bytes = scope["raw_path"]
        self.most = _MOST.get(self.path, MAX_BODY_BYTES)
        self.request_id = "req_" + ulid_text(new_ulid())
        scope["kameng.request_id"] = self.request_id
        self.answer_headers: list[tuple[bytes, bytes]] = [(b"request-id", self.request_id.encode())]
        self.access: Access | None = None
        self.client = ""
        self.neighbourhood = ""
        self.address: Address = NOWHERE
        self.body = b""
        self.body_done = False
        self.status = 0

    async def receive(self) -> Message:
        """For the framework: the whole body at once, then whatever the server has to say."""
        if not self.body_done:
            return await self._receive()
        body, self.body_done = self.body, False
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            # A new list: the response may be a prepared one that others share.
            message["headers"] = [*message.get("headers", ()), *self.answer_headers]
        await self._send(message)

    async def answer(self, response: Response) -> None:
        await response(self.scope, self._receive, self.send)

    async def read_body(self, declared: int | None) -> None:
        """Read the whole body, within `most` bytes and a time. Raises Refused, ClientGone."""
        if declared == 0:
            self.body_done = True
        else:
            try:
                async with asyncio.timeout(BODY_TIMEOUT_S if self.most <= MAX_BODY_BYTES else _LARGE_BODY_TIMEOUT_S):
                    self.body = await self._read_all()
            except TimeoutError:
                self.answer_headers.append((b"connection", b"close"))
                raise Refused("body_timeout") from None
            self.body_done = True
        self.scope["kameng.body"] = self.body

    async def _read_all(self) -> bytes:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        first: bytes = message.get("body", b"")
        if not message.get("more_body", False):
            if len(first) > self.most:
                self.body_done = True
                raise Refused("body_too_large")
            return first
        chunks, size = [first], len(first)
        while True:
            if size > self.most:
                raise Refused("body_too_large")
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            chunk: bytes = message.get("body", b"")
            chunks.append(chunk)
            size += len(chunk)
            if not message.get("more_body", False):
                if size > self.most:
                    self.body_done = True
                    raise Refused("body_too_large")
                return b"".join(chunks)

    async def let_pass_the_rest(self) -> None:
        """Before a refusal: read on for a moment, so that the caller gets to read it; if the body does not end, hang up after it."""
        if self.body_done:
            return
        left = _DRAIN_BYTES
        try:
            async with asyncio.timeout(_DRAIN_S):
                while left > 0:
                    message = await self._receive()
                    if message["type"] == "http.disconnect":
                        return
                    left -= len(message.get("body", b""))
                    if not message.get("more_body", False):
                        return
        except TimeoutError:
            pass
        self.answer_headers.append((b"connection", b"close"))


class Headers:
    """The few headers the gate reads, gone through once."""

    __slots__ = ("authorization", "authorizations", "chunked", "content_length", "forwarded")

    def __init__(self, raw: list[tuple[bytes, bytes]]) -> None:
        self.authorization = b""
        self.authorizations = 0
        self.content_length: int | None = None
        self.chunked = False
        self.forwarded: list[bytes] = []
        for name, value in raw:
            if name == b"authorization":
                self.authorization = value
                self.authorizations += 1
            elif name == b"content-length":
                self.content_length = int(value) if value.isdigit() and len(value) < 16 else MAX_UPLOAD_BYTES + 1
            elif name == b"transfer-encoding":
                self.chunked = True
            elif name == b"x-forwarded-for":
                self.forwarded.append(value)

    @property
    def declared(self) -> int | None:
        """Bytes to come; None when only the end will tell."""
        return None if self.chunked else self.content_length or 0


class Gate:
    """The outermost middleware of the app; it finds the process's things at `app.state.door`."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            await receive()
            await send({"type": "websocket.close", "code": 1008})
            return
        started = time.perf_counter()
        door: Door = scope["app"].state.door
        visit = Visit(scope, receive, send, door)
        if door.draining:
            visit.answer_headers.append((b"connection", b"close"))
        door.in_flight += 1
        try:
            await self._let_in(visit)
        except ClientGone:
            return
        finally:
            door.in_flight -= 1
            if visit.status:
                door.metrics.count(_route_of(visit), _method(scope), visit.status, time.perf_counter() - started)

    async def _let_in(self, visit: Visit) -> None:
        try:
            await _admit(visit)
        except Exception as trouble:
            if isinstance(trouble, ClientGone):
                raise
            response = problems.answer_to(visit.scope, trouble)
            if isinstance(trouble, Problem):
                visit.door.metrics.refusals.labels(trouble.code).inc()
                if trouble.code in _FAILURES:
                    visit.door.failures.note(visit.neighbourhood)
            await visit.let_pass_the_rest()
            await visit.answer(response)
            return
        try:
            with traces.span("http.request", method=visit.scope["method"], route=_route_of(visit), request_id=visit.request_id):
                await self.app(visit.scope, visit.receive, visit.send)
        except Exception as trouble:
            if visit.status:
                raise
            await visit.answer(problems.answer_to(visit.scope, trouble))
        if visit.status == 401 and visit.path.startswith(_RESTRICTED):  # an operator's token
            visit.door.failures.note(visit.neighbourhood)


def _method(scope: Scope) -> str:
    method: str = scope["method"]
    return method if method in ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS") else "other"


def _route_of(visit: Visit) -> str:
    if visit.access is not None:
        return visit.access.template
    route = visit.scope.get("route")
    return getattr(route, "path", None) or "unmatched"


async def _admit(visit: Visit) -> None:
    """Returns when the request may go on; raises the refusal."""
    scope, door = visit.scope, visit.door
    headers = Headers(scope["headers"])
    if headers.content_length is not None and headers.content_length > visit.most:
        raise Refused("body_too_large")
    path = visit.path
    if not signing.path_is_canonical(path):
        raise Refused("path_not_canonical")
    peer = scope.get("client")
    visit.address = client_address(peer[0] if peer else None, headers.forwarded, door.settings.trusted_proxies)
    visit.client = str(visit.address)
    visit.neighbourhood = neighbourhood(visit.address)
    if path.startswith(_SIGNED):
        await _admit_signed(visit, headers)
        return
    if path.startswith(_RESTRICTED) or path == _METRICS:
        if not is_inside(visit.address, door.settings.admin_cidrs):
            raise AddressNotAllowed("operators do not call from this address")
        _check_failures(visit)
        if visit.most > MAX_BODY_BYTES and not await _is_operator(door, headers):
            visit.most = MAX_BODY_BYTES  # the desk refuses it with its own words; until then it costs no more than anybody
            if (headers.content_length or 0) > visit.most:
                raise Refused("body_too_large")
    elif path.startswith(_DOORS):
        _check_failures(visit)
        scope["kameng.address"] = visit.address
    elif path not in _OPEN and not path.startswith(_OPEN_BELOW):
        raise NotFound("no such path")
    await visit.read_body(headers.declared)


async def _is_operator(door: Door, headers: Headers) -> bool:
    scheme, _, token = headers.authorization.decode("latin-1").partition(" ")
    if headers.authorizations != 1 or scheme.lower() != "bearer":
        return False
    try:
        async with door.db.transaction() as tx:
            await operators.authenticate(tx, token.strip(), utc_now())
    except TokenInvalid:
        return False
    return True


def _check_failures(visit: Visit) -> None:
    wait_s = visit.door.failures.wait_s(visit.neighbourhood)
    if wait_s:
        raise RateLimited("too many requests from this address could not prove who sent them", retry_after_s=wait_s)


async def _admit_signed(visit: Visit, headers: Headers) -> None:
    scope, door = visit.scope, visit.door
    _check_failures(visit)
    now = time.time()
    credentials = _read_credentials(headers, now)
    known = door.keys.peek(credentials.key_id) or await door.keys.find(credentials.key_id)
    key = known.key if known is not None else None
    if key is not None:
        _check_key(key, visit, now)
    elif visit.most > MAX_BODY_BYTES:
        visit.most = MAX_BODY_BYTES  # nobody whom we know: a large body of theirs is not read
        if (headers.content_length or 0) > visit.most:
            raise UnknownKey("no key has this id")
    await visit.read_body(headers.declared)

    method: str = scope["method"]
    path: str = scope["path"]
    query: bytes = scope["query_string"]
    target = visit.path + b"?" + query if query else visit.path
    try:
        text = signature.text_to_sign(credentials, method, target, visit.body)
    except ValueError:
        raise signing.AuthMalformed("a part of the request holds a line feed") from None
    proven = signature.is_proven(key, credentials, text)
    if known is None or key is None:
        raise UnknownKey("no key has this id")
    if path == SIGNATURE_HELP and key.environment == "test" and method == "POST":
        scope["kameng.signed_text"] = text
        scope["kameng.signature_valid"] = proven
        if not proven:
            door.failures.note(visit.neighbourhood)
            visit.access = door.access.find(method, path)
            return
    elif not proven:
        raise BadSignature("the signature is not this key's over this request")

    access = door.access.find(method, path)
    visit.access = access or nowhere(method)
    await _check_memory(visit, visit.access, known, credentials)
    door.keys.note_use(key.key_id, now)
    if not key.merchant_active:
        raise MerchantSuspended("the operator has stopped this merchant")
    if access is None or (access.test_only and key.environment != "test"):
        methods = door.access.methods(path)
        if access is None and methods and (key.environment == "test" or not path.startswith(TEST_PREFIX)):
            visit.answer_headers.append((b"allow", ", ".join(methods).encode()))
            raise Refused("method_not_allowed")
        raise NotFound("no such path")
    if access.scope is not None and access.scope not in key.scopes:
        raise ScopeMissing(f"the key lacks the scope {access.scope}", scope=access.scope)
    scope["kameng.access"] = access
    scope["kameng.caller"] = Caller(
        key.key_id, key.merchant_id, key.merchant_name, key.book_id, key.environment, key.level, key.currency, key.scopes,
        visit.client, visit.request_id,
    )  # fmt: skip


def _read_credentials(headers: Headers, now: float) -> Credentials:
    if headers.authorizations == 0:
        raise Refused("auth_missing")
    if headers.authorizations > 1:
        raise signing.AuthMalformed("more than one Authorization header")
    credentials = signing.parse_authorization(headers.authorization)
    if abs(int(now) - credentials.timestamp) > CLOCK_WINDOW_S:
        raise Refused("timestamp_out_of_window", server_time=int(now))
    return credentials


def _check_key(key: Key, visit: Visit, now: float) -> None:
    if key.revoked_at is not None or key.not_before is not None or key.expires_at is not None:
        unusable = key.why_unusable(datetime.fromtimestamp(now, UTC))
        if unusable:
            raise KeyExpired(unusable)
    if key.networks and not key.allows(visit.address):
        raise AddressNotAllowed(f"the key's allowlist does not hold {visit.client}", address=visit.client)


async def _check_memory(visit: Visit, access: Access, known: Known, credentials: Credentials) -> None:
    budget = known.budgets.get(access.rate_class) or _budget(visit.door, access.rate_class, known)
    try:
        verdict = await visit.door.memory.check(budget, limits.nonce_name(credentials.key_id, credentials.nonce))
    except Overflow:
        raise NothingHappened("more requests wait than we may hold") from None
    if not verdict.remembered:
        visit.door.metrics.unremembered.inc()
        if not access.repeatable:
            raise NothingHappened("replays cannot be told from first requests now, and this one is not safe to repeat")
        return
    if not verdict.fresh:
        raise Refused("nonce_reused")
    visit.answer_headers += (
        (b"ratelimit-policy", budget.policy),
        (b"ratelimit", b'"%b";r=%d;t=%d' % (budget.rate_class.encode(), verdict.remaining, verdict.reset_s)),
    )
    if not verdict.allowed:
        raise RateLimited("this key may not make more requests of this kind now", retry_after_s=_wait_s(verdict))


def _wait_s(verdict: Verdict) -> int:
    return max(1, verdict.retry_s)


def _budget(door: Door, rate_class: str, known: Known) -> Budget:
    settings, key = door.settings, known.key
    quota, window_s = key.reads_per_s or settings.rate_reads_per_s, 1
    if rate_class == BATCHES:
        quota, window_s = settings.rate_batches_per_min, 60
    elif rate_class == REVEALS:
        quota = settings.rate_reveals_per_s
    elif rate_class == NUMBERS:
        quota = settings.rate_numbers_per_s
    elif rate_class != "reads":
        quota = key.writes_per_s or settings.rate_writes_per_s
    known.budgets[rate_class] = made = limits.budget(key.key_id, rate_class, quota, window_s)
    return made

