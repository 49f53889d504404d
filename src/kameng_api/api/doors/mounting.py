"""Where foreign protocols come in: `/doors/<name>/…`, behind the gate's limits, before any framework reads the request.

Every request takes the same way, whatever its door: account → address → signature → rates → answer. What cannot be answered for certain is
answered in the door's words for doubt, a bug too: a door has no other last resort.
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import structlog
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from kameng_api.api import limits
from kameng_api.api.deps import Door
from kameng_api.api.doors.counter import BoundCounter
from kameng_api.api.doors.door import Account, Ask, Doubt, Kind, Path, Reply, Stale, Unreadable, VendorDoor, Why
from kameng_api.kit.client_address import Address, neighbourhood
from kameng_api.kit.clock import utc_now
from kameng_api.kit.errors import NotFound, Problem, Unavailable
from kameng_api.kit.gather import Interrupted, Overflow
from kameng_api.merchants.door_rules import DoorAccount

PREFIX: Final = "/doors"
_PARAMETER: Final = re.compile(r"\\\{([a-z_]+)\\\}")
_IN_PATH: Final = "/~"
_NOBODY: Final = "0123456789abcdef0123456789abcdef"
_READS: Final = frozenset((Kind.QUERY, Kind.READ))
_UNPROVEN: Final = frozenset((Why.UNKNOWN_ACCOUNT, Why.ADDRESS, Why.NOT_PROVEN, Why.STALE))
"""What counts against an address and the account it names: a platform calls for many merchants from one address, and what one of them has set up
wrongly must not shut the door for the others. Only new names of strangers count against the address as a whole, because each costs a question."""
_WORLDS: Final = (Doubt, Unavailable, Overflow, Interrupted, Problem)
"""Why doubt is no bug of ours."""

_log = structlog.get_logger()


class _TurnedAway(Exception):
    def __init__(self, why: Why, detail: str) -> None:
        super().__init__(detail)
        self.why = why
        self.detail = detail


@dataclass(frozen=True, slots=True)
class _Route:
    """What the gate's metrics call a request."""

    path: str


@dataclass(frozen=True, slots=True)
class _Mounted:
    """One path of a door, ready to be matched."""

    path: Path
    pattern: re.Pattern[str]
    route: _Route


class Doors:
    """The ASGI application of all doors; it finds the process's things at `app.state.door`."""

    def __init__(self, doors: Sequence[VendorDoor]) -> None:
        self._doors: Mapping[str, VendorDoor] = {door.name: door for door in doors}
        self._paths: Mapping[str, Sequence[_Mounted]] = {door.name: [_mounted(door, path) for path in door.paths] for door in doors}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        house: Door = scope["app"].state.door
        raw: bytes = scope["raw_path"]
        name, _, rest = raw.decode("ascii").removeprefix(PREFIX).removeprefix("/").partition("/")
        door = self._doors.get(name)
        if door is None:
            raise NotFound("no such path")
        ask = _ask(scope, f"/{rest}")
        mounted, ask = self._find(door, ask)
        if mounted is not None:
            scope["route"] = mounted.route
        reply, outcome = await _reply(house, door, mounted.path if mounted is not None else None, ask, scope)
        kind = mounted.path.kind.value if mounted is not None else "none"
        house.metrics.door_requests.labels(door.name, kind, outcome).inc()
        headers = {"Cache-Control": "no-store", **reply.headers, "Content-Type": reply.content_type}
        await Response(reply.body, reply.status, headers)(scope, receive, send)

    def _find(self, door: VendorDoor, ask: Ask) -> tuple[_Mounted | None, Ask]:
        path, in_path = ask.path, None
        if path.startswith(_IN_PATH):
            in_path, _, path = path.removeprefix(_IN_PATH).partition("/")
            path = f"/{path}"
        for mounted in self._paths[door.name]:
            met = mounted.pattern.fullmatch(path) if mounted.path.method == ask.method else None
            if met is not None:
                return mounted, _on(ask, path, in_path, met.groupdict())
        return None, _on(ask, path, in_path, {})


def _mounted(door: VendorDoor, path: Path) -> _Mounted:
    pattern = _PARAMETER.sub(r"(?P<\1>[^/]+)", re.escape(path.template))
    return _Mounted(path, re.compile(pattern), _Route(f"{PREFIX}/{door.name}{path.template}"))


def _ask(scope: Scope, path: str) -> Ask:
    body: bytes = scope.get("kameng.body", b"")
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
    return Ask(
        method=scope["method"], path=path, full_path=scope["raw_path"].decode("ascii"), query=scope["query_string"].decode("latin-1"),
        headers=headers, body=body, address=str(scope["kameng.address"]), request_id=scope["kameng.request_id"], now=utc_now(),
    )  # fmt: skip


def _on(ask: Ask, path: str, in_path: str | None, parameters: Mapping[str, str]) -> Ask:
    return Ask(
        ask.method, path, ask.full_path, ask.query, ask.headers, ask.body, ask.address, ask.request_id, ask.now, in_path, parameters
    )  # fmt: skip


async def _reply(house: Door, door: VendorDoor, path: Path | None, ask: Ask, scope: Scope) -> tuple[Reply, str]:
    """The reply, and a word for the metrics."""
    if path is None:
        return door.refuse(ask, None, Why.NO_SUCH_PATH, "no such path"), Why.NO_SUCH_PATH.value
    try:
        if path.anonymous:
            return await _anonymous(house, door, path, ask), "answered"
        counter = await _admit_counted(house, door, path, ask, scope["kameng.address"])
        assert path.answer is not None
        return await path.answer(counter, ask), "answered"
    except Unreadable as wrong:
        return door.refuse(ask, path, Why.UNREADABLE, str(wrong)), Why.UNREADABLE.value
    except _TurnedAway as turned:
        house.metrics.refusals.labels(f"door_{turned.why}").inc()
        return door.refuse(ask, path, turned.why, turned.detail), turned.why.value
    except Exception as trouble:
        _note(door, path, ask, trouble)
        return door.in_doubt(ask, path), "doubt"


def _note(door: VendorDoor, path: Path, ask: Ask, trouble: Exception) -> None:
    words = {"door": door.name, "path": path.template, "request_id": ask.request_id, "trouble": type(trouble).__name__}
    if isinstance(trouble, _WORLDS):
        _log.warning("door.doubt", **words)
    else:
        _log.error("door.failed", **words, exc_info=trouble)


async def _anonymous(house: Door, door: VendorDoor, path: Path, ask: Ask) -> Reply:
    account = await house.lobby.accounts.find(door.name, ask.in_path) if ask.in_path else None
    return door.answer_anonymous(ask, path, None if account is None else account.seen)


async def _admit_counted(house: Door, door: VendorDoor, path: Path, ask: Ask, address: Address) -> BoundCounter:
    """`_admit`, with a memory of who has failed to prove itself. Raises _TurnedAway, Unreadable."""
    named = door.account_of(ask)
    if not named:
        raise _TurnedAway(Why.UNKNOWN_ACCOUNT, "no account is named")
    near = neighbourhood(address)
    whom = f"{near} {door.name} {named[:64]}"
    if house.failures.wait_s(whom):
        raise _TurnedAway(Why.THROTTLED, "too many requests could not prove who sent them")
    is_new = not house.lobby.accounts.has_met(door.name, named)
    try:
        return await _admit(house, door, path, ask, named, address)
    except _TurnedAway as turned:
        if turned.why in _UNPROVEN:
            house.failures.note(whom)
            if turned.why is Why.UNKNOWN_ACCOUNT and is_new:
                house.failures.note(near)
        raise


async def _admit(house: Door, door: VendorDoor, path: Path, ask: Ask, named: str, address: Address) -> BoundCounter:
    """Returns the counter of whoever has proven itself. Raises _TurnedAway, Unreadable."""
    account = await house.lobby.accounts.find(door.name, named)
    if account is not None and not account.allows(address):
        raise _TurnedAway(Why.ADDRESS, "this address is not in the account's allowlist")
    try:
        proven = door.is_proven(ask, account.seen if account is not None else _nobody(door))
    except Stale:
        raise _TurnedAway(Why.STALE if account is not None else Why.UNKNOWN_ACCOUNT, "the timestamp is outside the window") from None
    if account is None:
        raise _TurnedAway(Why.UNKNOWN_ACCOUNT, "no such account")
    if not proven:
        raise _TurnedAway(Why.NOT_PROVEN, "the signature does not fit")
    await _check_rate(house, account, path.kind)
    return BoundCounter(house, door, account, ask.address, ask.request_id)


def _nobody(door: VendorDoor) -> Account:
    """Whom a stranger's signature is compared with, so that it takes as long."""
    return Account("nobody", "test", "CNY", {secret.name: _NOBODY for secret in door.secrets})


async def _check_rate(house: Door, account: DoorAccount, kind: Kind) -> None:
    """Raises _TurnedAway. While Redis is lost nothing is counted: every write here is idempotent by its number."""
    settings = house.settings
    if kind in _READS:
        name, quota = "reads", account.reads_per_s or settings.rate_reads_per_s
    else:
        name, quota = "writes", account.writes_per_s or settings.rate_writes_per_s
    verdict = await house.memory.check(limits.budget(f"door:{account.account_id}", name, quota, 1), os.urandom(16))
    if verdict.remembered and not verdict.allowed:
        raise _TurnedAway(Why.THROTTLED, "too many requests of this kind now")
