"""What an endpoint may ask for: the things of this process, and who is calling."""

from dataclasses import dataclass, field
from typing import Annotated, cast
from uuid import UUID

from fastapi import Depends, Request
from redis.asyncio import Redis

from kameng_api.api.access import AccessMap
from kameng_api.api.doors.lobby import Lobby
from kameng_api.api.limits import Failures, Memory
from kameng_api.api.lookups import Lookups
from kameng_api.api.metrics import Metrics
from kameng_api.api.outcomes import Outcomes
from kameng_api.api.signature import KeyCache
from kameng_api.catalog.rules import Snapshot
from kameng_api.kit.crypto import Keyring
from kameng_api.kit.db import Database
from kameng_api.kit.doorbell import Doorbell
from kameng_api.kit.fresh import Fresh
from kameng_api.kit.gather import Gatherer
from kameng_api.merchants.errors import ScopeMissing
from kameng_api.merchants.rules import Caller
from kameng_api.orders.actions import Place, Placed
from kameng_api.settings import Settings
from kameng_api.suppliers.actions import Arrival
from kameng_api.suppliers.connections import Connections


@dataclass(slots=True)
class Door:
    """What one API process holds from start to stop; it stands at `app.state.door`."""

    settings: Settings
    db: Database
    redis: Redis
    keyring: Keyring
    catalog: Fresh[Snapshot]
    doorbell: Doorbell
    keys: KeyCache
    memory: Memory
    failures: Failures
    access: AccessMap
    metrics: Metrics
    connections: Connections
    lookups: Lookups
    outcomes: Outcomes
    lobby: Lobby
    orders: Gatherer[Place, Placed] = field(init=False)
    callbacks: Gatherer[Arrival, UUID] = field(init=False)
    draining: bool = False
    in_flight: int = 0


def door_of(request: Request) -> Door:
    """The process's things."""
    return cast(Door, request.app.state.door)


def caller_of(request: Request) -> Caller:
    """Who signed this request; the gate has seen to it that somebody has."""
    return cast(Caller, request.scope["kameng.caller"])


def request_id_of(request: Request) -> str:
    """What the answer's `Request-Id` will be."""
    return cast(str, request.scope["kameng.request_id"])


def need_scope(caller: Caller, scope: str) -> None:
    """For what depends on more than the endpoint. Raises ScopeMissing."""
    if scope not in caller.scopes:
        raise ScopeMissing(f"the key lacks the scope {scope}", scope=scope)


async def _door(request: Request) -> Door:
    return door_of(request)


async def _caller(request: Request) -> Caller:
    return caller_of(request)


InDoor = Annotated[Door, Depends(_door)]
CalledBy = Annotated[Caller, Depends(_caller)]
