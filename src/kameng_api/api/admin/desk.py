"""The operator's side of the counter: who is asking, may they, and the forms everything here is asked and answered in.

The token and the role are looked at before a body is parsed: what an outsider sends is not read.
"""

from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Final, TypeVar
from uuid import UUID

from fastapi import Depends, Query, Request, Response
from pydantic import AwareDatetime, BeforeValidator, Field, WithJsonSchema

from kameng_api.api.deps import Door, door_of, request_id_of
from kameng_api.api.routes import StrictRoute
from kameng_api.catalog.rules import parse_rate
from kameng_api.kit import paging
from kameng_api.kit.clock import utc_now
from kameng_api.kit.db import Tx
from kameng_api.kit.errors import NotFound
from kameng_api.kit.ids import parse_public_id
from kameng_api.kit.money import parse_amount
from kameng_api.operators import actions
from kameng_api.operators.errors import TokenInvalid
from kameng_api.operators.rules import PERMISSIONS, Operator

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])
Item = TypeVar("Item")
_PERMISSION: Final = "kameng_permission"


def needs(permission: str) -> Callable[[Endpoint], Endpoint]:
    """What the operator's role must allow; every endpoint says it."""
    assert permission in PERMISSIONS, permission

    def mark(endpoint: Endpoint) -> Endpoint:
        setattr(endpoint, _PERMISSION, permission)
        return endpoint

    return mark


class DeskRoute(StrictRoute):
    """Asks for the token and the role before anything of the request is read."""

    @property
    def permission(self) -> str:
        """What this endpoint needs. An endpoint that does not say it cannot be mounted."""
        return str(getattr(self.endpoint, _PERMISSION))

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        permission = self.permission

        async def guarded(request: Request) -> Response:
            operator = await _authenticate(request)
            actions.require(operator, permission)
            request.scope["kameng.operator"] = operator
            return await handle(request)

        return guarded


async def _authenticate(request: Request) -> Operator:
    given = [value for name, value in request.scope["headers"] if name == b"authorization"]
    scheme, _, token = given[0].decode("latin-1").partition(" ") if len(given) == 1 else ("", "", "")
    if scheme.lower() != "bearer":
        raise TokenInvalid("send Authorization: Bearer op_…, once")
    async with door_of(request).db.transaction() as tx:
        return await actions.authenticate(tx, token.strip(), utc_now())


@dataclass(frozen=True, slots=True)
class Desk:
    """Who is asking, and the things of this process."""

    door: Door
    operator: Operator
    request_id: str

    @property
    def actor(self) -> str:
        return self.operator.name

    async def audit(self, tx: Tx, action: str, subject: str, **facts: Any) -> None:
        """Note it in the transaction that did it."""
        await actions.audit(tx, self.actor, action, subject, facts, self.request_id)

    def position(self, cursor: str | None, *context: str) -> list[str] | None:
        """Where the page begins. Raises CursorInvalid."""
        return None if cursor is None else paging.decode(self._cursor_key, cursor, ("admin", *context))

    def page(
        self,
        items: Sequence[Item],
        limit: int,
        show: Callable[[Item], Any],
        position: Callable[[Item], Sequence[str]],
        *context: str,
    ) -> dict[str, Any]:
        """`items` were asked for with `limit + 1`: the one too many says that there is another page."""
        shown = items[:limit]
        more = len(items) > limit
        cursor = paging.encode(self._cursor_key, position(shown[-1]), ("admin", *context)) if more else None
        return {"items": [show(item) for item in shown], "next_cursor": cursor}

    @property
    def _cursor_key(self) -> bytes:
        return self.door.keyring.derive("admin cursors")


async def _desk(request: Request) -> Desk:
    return Desk(door_of(request), request.scope["kameng.operator"], request_id_of(request))


AtDesk = Annotated[Desk, Depends(_desk)]
Cursor = Annotated[str | None, Query(max_length=1024)]


def read_id(prefix: str, text: str) -> UUID:
    """`mer_01J…` → UUID. Raises NotFound: what is no id names nothing."""
    found = parse_public_id(prefix, text)
    if found is None:
        raise NotFound("no such object")
    return found


def uuid_position(position: Sequence[str] | None) -> UUID | None:
    """For lists that are ordered by one id."""
    return None if position is None else UUID(position[0])


def time_position_alone(position: Sequence[str] | None) -> datetime | None:
    """For lists that are ordered by a time of which there is one each."""
    return None if position is None else datetime.fromisoformat(position[0])


def time_position(position: Sequence[str] | None) -> tuple[datetime, UUID] | None:
    """For lists that are ordered by a time and an id."""
    return None if position is None else (datetime.fromisoformat(position[0]), UUID(position[1]))


def _read_amount(text: object) -> int:
    if not isinstance(text, str):
        raise ValueError('money is a decimal string such as "98.5000"')
    return parse_amount(text)


def _read_signed(text: object) -> int:
    if isinstance(text, str) and text.startswith("-"):
        return -_read_amount(text[1:])
    return _read_amount(text)


def _read_rate(text: object) -> int:
    if not isinstance(text, str):
        raise ValueError('a rate is a decimal string such as "0.985"')
    return parse_rate(text)


def _must_be_text(value: object) -> object:
    if not isinstance(value, str):
        raise ValueError("a time is RFC 3339 text such as 2026-11-22T12:00:00Z")
    return value


def _decimal(pattern: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "pattern": pattern})


Amount = Annotated[int, BeforeValidator(_read_amount), _decimal(r"^(0|[1-9][0-9]{0,11})(\.[0-9]{1,4})?$")]
"""A decimal string on the wire, 1/10000 units in here."""
SignedAmount = Annotated[int, BeforeValidator(_read_signed), _decimal(r"^-?(0|[1-9][0-9]{0,11})(\.[0-9]{1,4})?$")]
Rate = Annotated[int, BeforeValidator(_read_rate), _decimal(r"^[0-9]{1,2}(\.[0-9]{1,6})?$")]
"""A decimal string on the wire, parts per million in here."""
Instant = Annotated[AwareDatetime, BeforeValidator(_must_be_text), Field(strict=False)]
